"""One subject's betas: every session in either container.

By default only what stands before the numbers is read: shape, type, and a length that
fits them. Place in the flow: part of `survey`.
"""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from minddiff_utils.errors import check_shape
from minddiff_utils.nsd import N_TRIALS
from minddiff_utils.survey.findings import Finding
from minddiff_utils.survey.looking import UNREAD, Item, Scope, differs, look
from minddiff_utils.survey.packed import check_nii
from minddiff_utils.survey.volumes import Grid, Volumes

__all__ = ["look_at_betas"]

_BETAS_FILE = re.compile(r"betas_session(\d{2})\.(hdf5|nii\.gz)")


def look_at_betas(
    scope: Scope, subject: int, volumes: Volumes
) -> tuple[list[Finding], set[int]]:
    """Return findings on the betas there and lacking, and the sound sessions."""
    folder = scope.tree.betas_folder(subject)
    if not folder.is_dir():
        held = sorted(p.name for p in folder.parent.glob("betas_*")) or ["nothing"]
        text = f"betas of {len(scope.asked(subject))} sessions"
        item = Item(subject, "betas", folder, text)
        found = f"no such folder; beside it: {', '.join(held)}"
        return [item.finding("missing", found, scope.remedy)], set()
    findings, well, there = _too_many(scope, subject), set[int](), set[int]()
    for path in sorted(folder.glob("betas_session*")):
        finding, session = _beta_file(scope, subject, path, volumes)
        findings.append(finding)
        there.add(session)
        if finding.state == "ok":
            well.add(session)
    for session in sorted(set(scope.asked(subject)) - there):
        path = folder / f"betas_session{session:02d}.hdf5"
        item = Item(
            subject, f"betas session {session:02d}", path, "it, or the same as nii.gz"
        )
        findings.append(item.finding("missing", "neither is there", scope.remedy))
    return findings, well


def _too_many(scope: Scope, subject: int) -> list[Finding]:
    """Return a finding if a session is asked for that the subject lacks."""
    most = scope.n_sessions(subject)
    if scope.sessions[-1] <= most:
        return []
    item = Item(subject, "sessions asked for", None, f"session {scope.sessions[-1]}")
    remedy = f"lower data.sessions to {most}"
    return [item.finding("missing", f"the subject has {most}", remedy)]


def _beta_file(
    scope: Scope, subject: int, path: Path, volumes: Volumes
) -> tuple[Finding, int]:
    """Return the finding about one file, and its session; 0 if it is of none."""
    name, most = _BETAS_FILE.fullmatch(path.name), scope.n_sessions(subject)
    if name is None:
        text = "betas_sessionNN.hdf5 or .nii.gz"
        item = Item(subject, "a file beside the betas", path, text)
        remedy = "delete it if a download has left it behind"
        return item.finding("unexpected", path.name, remedy), 0
    session = int(name[1])
    label = f"betas session {name[1]} {name[2]}"
    if not 1 <= session <= most:
        item = Item(subject, label, path, f"a session from 1 to {most}")
        found = f"session {session}, which the subject does not have"
        return item.finding("damaged", found, "delete it, or give it its name"), 0
    grid = volumes.grid or ("X", "Y", "Z")
    text = f"int16, {' x '.join(map(str, grid))} x {N_TRIALS}"
    item = Item(subject, label, path, text)
    if name[2] == "hdf5":
        where = subject, session
        finding, _ = look(scope, item, _read_hdf5, scope, where, path, volumes)
    else:
        finding, _ = look(scope, item, _read_nii, scope, path, volumes)
    return finding, session


def _check_betas(shape: Grid, dtype: np.dtype[Any], grid: Grid | None) -> str:
    """Return what is there; raise DataError unless it is int16 on the grid."""
    if dtype.kind != "i" or dtype.itemsize != 2:
        raise differs(f"{dtype} betas", "int16 (percent signal change x 300)")
    check_shape(shape, (*(grid or (None, None, None)), N_TRIALS), "The volume")
    return f"int16, {' x '.join(map(str, shape))}"


def _read_hdf5(
    scope: Scope, where: tuple[int, int], path: Path, volumes: Volumes
) -> tuple[None, str]:
    with h5py.File(path, "r") as file:  # refuses a file shorter than it says
        data = file.get("betas")
        if not isinstance(data, h5py.Dataset):
            held = ", ".join(map(str, file)) or "nothing"
            raise differs(f"it holds {held}", "a dataset named 'betas'")
        found = _check_betas(data.shape[::-1], data.dtype, volumes.grid)
    if not scope.deep or volumes.areas is None:
        return None, f"{found}; {UNREAD}"
    betas = scope.tree.betas(*where, volumes.areas >= 0, "hdf5")
    n_voxels = betas.shape[1]
    empty = int((~betas.any(axis=0)).sum())
    if empty == n_voxels:
        raise differs("nothing but zeros in the areas", "responses")
    return None, f"{found}; {empty} of {n_voxels} voxels of the areas have no data"


def _read_nii(scope: Scope, path: Path, volumes: Volumes) -> tuple[None, str]:
    image = check_nii(path, to_the_end=scope.deep)
    found = _check_betas(image.shape, image.get_data_dtype(), volumes.grid)
    return None, f"{found}; {'read to the end' if scope.deep else UNREAD}"
