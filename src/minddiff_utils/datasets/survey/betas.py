"""One subject's betas: every session in either container.

By default of the numbers a sample alone is read: of an hdf5 file some voxels in all
trials, of a nii.gz file the first trials. Where a sample has a hole, the file is read
as notebook 01 would, so that both refuse the same. Place in the flow: part of `survey`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.datasets.nsd.files import open_hdf5
from minddiff_utils.datasets.nsd.forms import BETAS_FILE, find, session_of
from minddiff_utils.datasets.nsd.reader import N_TRIALS, Container
from minddiff_utils.datasets.survey.findings import Finding
from minddiff_utils.datasets.survey.looking import (
    UNREAD,
    Item,
    Scope,
    damage,
    differs,
    look,
)
from minddiff_utils.datasets.survey.packed import check_nii
from minddiff_utils.datasets.survey.volumes import Grid, Volumes
from minddiff_utils.datasets.validity import MOST_EMPTY, digest_betas, fault, where_held

__all__ = ["look_at_betas"]

#: Voxels of an hdf5 file, and trials of a nii.gz file, that are read as a sample.
_N_VOXELS, _N_TRIALS = 64, 2


def look_at_betas(
    scope: Scope, subject: int, volumes: Volumes
) -> tuple[list[Finding], set[int]]:
    """Return findings on the betas there and lacking, and the sound sessions."""
    folder = scope.tree.betas_folder(subject)
    try:
        paths = sorted(find(folder).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        held = sorted(p.name for p in folder.parent.glob("betas_*")) or ["nothing"]
        text = f"betas of {len(scope.asked(subject))} sessions"
        item = Item(subject, "betas", folder, text)
        found = f"no such folder; beside it: {', '.join(held)}"
        return [item.finding("missing", found, scope.remedy)], set()
    except OSError as error:
        item = Item(subject, "betas", folder, "a folder")
        return [damage(item, error, scope.remedy)], set()
    findings, well, there = _none_asked(scope, subject), set[int](), set[int]()
    seen, files = dict[str, str](), list[tuple[int, Finding]]()
    asked = scope.asked(subject)
    for path in (p for p in paths if p.name.lower().startswith("betas_session")):
        if scope.before_run and session_of(path) not in asked:
            continue
        finding, session, digest = _beta_file(scope, subject, path, volumes)
        if digest and seen.setdefault(digest, path.name) != path.name:
            found = f"the numbers of {seen[digest]} once more"
            remedy = "compare both with their source and fetch them again"
            finding = replace(finding, state="damaged", found=found, remedy=remedy)
        files.append((session, finding))
        there.add(session)
        if finding.state == "ok":
            well.add(session)
    for session, finding in files:
        bad = finding.state in ("damaged", "unreadable") and session in well
        gives_way = bad and _gives_way(scope, (subject, session), finding, volumes)
        findings.append(_stood_in(finding) if gives_way else finding)
    for session in sorted(set(asked) - there):
        path = folder / f"betas_session{session:02d}.hdf5"
        item = Item(
            subject, f"betas session {session:02d}", path, "it, or the same as nii.gz"
        )
        findings.append(item.finding("missing", "neither is there", scope.remedy))
    return findings, well


def _gives_way(
    scope: Scope, where: tuple[int, int], finding: Finding, volumes: Volumes
) -> bool:
    """Return whether a run reads a session's other container in place of a bad file.

    It reads the hdf5 where there is one, and gives up one that cannot be read; numbers
    that are no data are refused in notebook 01.
    """
    if finding.path is None or finding.path.suffix.lower() != ".hdf5":
        return True
    if volumes.areas is None:
        return False
    try:
        scope.tree.betas(*where, _every_nth(volumes.areas >= 0, 1), "hdf5")
    except DataError:
        return True
    return False


def _stood_in(finding: Finding) -> Finding:
    """Return the finding about a file whose other container is sound and read."""
    remedy = f"{finding.remedy}; until then the other container is read in its place"
    return replace(finding, state="unexpected", remedy=remedy)


def _none_asked(scope: Scope, subject: int) -> list[Finding]:
    """Return a finding if the subject has none of the sessions asked for."""
    if scope.asked(subject):
        return []
    numbers = ", ".join(map(str, scope.sessions))
    item = Item(subject, "sessions asked for", None, f"some of {numbers}")
    remedy = "change data.only_sessions, or leave the subject out"
    found = f"the subject has {scope.n_sessions(subject)}"
    return [item.finding("missing", found, remedy)]


def _beta_file(
    scope: Scope, subject: int, path: Path, volumes: Volumes
) -> tuple[Finding, int, str]:
    """Return the finding about one file, its session (0: none), and its digest."""
    name, most = BETAS_FILE.fullmatch(path.name), scope.n_sessions(subject)
    if name is None:
        text = "betas_sessionNN.hdf5 or .nii.gz"
        item = Item(subject, "a file beside the betas", path, text)
        remedy = "move it away if a download has left it behind"
        return item.finding("unexpected", path.name, remedy), 0, ""
    session = int(name[1])
    label = f"betas session {session:02d} {name[2].lower()}"
    if not 1 <= session <= most:
        item = Item(subject, label, path, f"a session from 1 to {most}")
        found = f"session {session}, which the subject does not have"
        return (
            item.finding("damaged", found, "move it away, or give it its name"),
            0,
            "",
        )
    grid = volumes.grid or ("X", "Y", "Z")
    text = f"int16, {' x '.join(map(str, grid))} x {N_TRIALS}"
    item = Item(subject, label, path, text)
    read = _read_hdf5 if name[2].lower() == "hdf5" else _read_nii
    finding, digest = look(scope, item, read, scope, (subject, session), path, volumes)
    return finding, session, digest or ""


def _check_betas(shape: Grid, dtype: np.dtype[Any], grid: Grid | None) -> str:
    """Return what is there; raise DataError unless it is int16 on the grid."""
    if dtype.kind != "i" or dtype.itemsize != 2:
        raise differs(f"{dtype} betas", "int16 (percent signal change x 300)")
    check_shape(shape, (*(grid or (None, None, None)), N_TRIALS), "The volume")
    return f"int16, {' x '.join(map(str, shape))}"


def _read_hdf5(
    scope: Scope, where: tuple[int, int], path: Path, volumes: Volumes
) -> tuple[str, str]:
    with open_hdf5(path) as file:  # refuses a file shorter than it says
        data = file.get("betas")
        if not isinstance(data, h5py.Dataset):
            held = ", ".join(map(str, file)) or "nothing"
            raise differs(f"it holds {held}", "a dataset named 'betas'")
        found = _check_betas(data.shape[::-1], data.dtype, volumes.grid)
    if volumes.areas is None:
        return "", f"{found}; {UNREAD}"
    areas = volumes.areas >= 0
    sample = areas if scope.deep else _every_nth(areas, _N_VOXELS)
    raw = scope.tree.betas(*where, sample, "hdf5")
    there = where_held(raw)
    if scope.before_run and there.voxels.any():  # 01 itself reads them all
        return digest_betas(raw), found
    if fault(raw, there) or not (there.voxels.all() and there.trials.all()):
        return digest_betas(raw), f"{found}; {_read_whole(scope, where, areas, 'hdf5')}"
    return digest_betas(raw), f"{found}; {raw.shape[1]} voxels of the areas have data"


def _read_nii(
    scope: Scope, where: tuple[int, int], path: Path, volumes: Volumes
) -> tuple[str, str]:
    image = check_nii(path, to_the_end=scope.deep)
    found = _check_betas(image.shape, image.get_data_dtype(), volumes.grid)
    scope.tree.check_space(where[0], path)
    if volumes.areas is None:
        return "", f"{found}; {'read to the end' if scope.deep else UNREAD}"
    areas = volumes.areas >= 0
    first = np.asanyarray(image.dataobj[..., :_N_TRIALS])[areas].T
    empty = (first == 0).all(axis=0).mean() > (
        1 - 1e-9 if scope.before_run else MOST_EMPTY
    )
    if scope.deep or empty:
        found = f"{found}; {_read_whole(scope, where, areas, 'nii.gz')}"
    else:
        found = f"{found}; {UNREAD} but for the first {_N_TRIALS} trials"
    return digest_betas(first), found


def _every_nth(areas: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.bool_]:
    """Return at most `n` voxels of the areas, evenly in the order of the file.

    A hole of a file in one piece is found if it is 1 / n of the areas or more.
    """
    k, j, i = np.nonzero(areas.T)
    rows = np.unique(np.linspace(0, len(k) - 1, n).round().astype(np.int64))
    sample = np.zeros_like(areas)
    sample[i[rows], j[rows], k[rows]] = True
    return sample


def _read_whole(
    scope: Scope,
    where: tuple[int, int],
    areas: npt.NDArray[np.bool_],
    container: Container,
) -> str:
    """Return how much of a session's areas is empty; raise DataError if too much."""
    raw = scope.tree.betas(*where, areas, container)
    held = where_held(raw)
    if wrong := fault(raw, held):
        raise DataError(f"{wrong}.")
    empty = f"{int((~held.voxels).sum())} of {raw.shape[1]} voxels of the areas"
    return f"{empty} and {int((~held.trials).sum())} trials have no data"
