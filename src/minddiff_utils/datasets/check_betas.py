"""One subject's betas: every session in either container.

By default of the numbers a sample alone is read: of an hdf5 file some voxels in all
trials, of a nii.gz file the first trials. Where a sample has a hole, the file is read
as notebook 01 would, so that both refuse the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Mask
from minddiff_utils.datasets.check_files import Scope, check_nii
from minddiff_utils.datasets.findings import UNREAD, Finding, differs, look, spoilt
from minddiff_utils.datasets.nsd.formats import open_hdf5
from minddiff_utils.datasets.nsd.layout import N_TRIALS, Container, find, session_of
from minddiff_utils.datasets.validity import MOST_EMPTY, digest_betas, fault, where_held

__all__ = ["check_betas"]

Grid = tuple[int, ...]

#: Voxels of an hdf5 file, and trials of a nii.gz file, that are read as a sample.
_N_VOXELS, _N_TRIALS = 64, 2


@dataclass(frozen=True)
class _Volumes:
    """What the betas of a subject must fit; None where it is not known."""

    scope: Scope
    subject: int
    grid: Grid | None
    areas: Mask | None


def check_betas(
    scope: Scope, subject: int, grid: Grid | None, areas: Mask | None
) -> tuple[list[Finding], set[int]]:
    """Return findings on the betas there and lacking, and the sound sessions.

    Parameters
    ----------
    grid : tuple of int, or None
        That of the subject's other volumes, where it is known.
    areas : (X, Y, Z) bool, or None
        Voxels of the areas, where they are known.
    """
    folder, asked = scope.tree.betas_folder(subject), scope.asked(subject)
    expected = f"betas of {len(asked)} sessions"
    item = Finding(subject, "betas", folder, expected, scope.remedy())
    try:
        paths = sorted(find(folder).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        beside = sorted(p.name for p in folder.parent.glob("betas_*")) or ["nothing"]
        found = f"no such folder; beside it: {', '.join(beside)}"
        return [replace(item, state="missing", found=found)], set()
    except OSError as error:
        return [spoilt(item, error)], set()
    volumes = _Volumes(scope, subject, grid, areas)
    files = _look_at_files(volumes, paths, asked)
    sound = {number for number, finding in files if finding.state == "ok"}
    findings = _none_asked(scope, subject)
    for number, finding in files:
        if (
            finding.is_unusable
            and number in sound
            and _gives_way(volumes, number, finding.path)
        ):
            remedy = (
                f"{finding.remedy}; until then the other container is read in its place"
            )
            finding = replace(finding, state="unexpected", remedy=remedy)
        findings.append(finding)
    for number in sorted(set(asked) - {number for number, _ in files}):
        name, path = (
            f"betas session {number:02d}",
            scope.tree.betas_file(subject, number),
        )
        item = Finding(subject, name, path, "it, or the same as nii.gz", scope.remedy())
        found = "neither is there"
        findings.append(replace(item, state="missing", found=found))
    return findings, sound


def _none_asked(scope: Scope, subject: int) -> list[Finding]:
    """Return a finding if the subject has none of the sessions asked for."""
    if scope.asked(subject):
        return []
    numbers = ", ".join(map(str, scope.sessions))
    remedy = "change data.only_sessions, or leave the subject out"
    item = Finding(subject, "sessions asked for", None, f"some of {numbers}", remedy)
    found = f"the subject has {scope.n_sessions(subject)}"
    return [replace(item, state="missing", found=found)]


def _look_at_files(
    volumes: _Volumes, paths: Sequence[Path], asked: Sequence[int]
) -> list[tuple[int, Finding]]:
    """Return the session (0: none) and the finding of each file of betas."""
    files, seen = list[tuple[int, Finding]](), dict[str, str]()
    most = volumes.scope.n_sessions(volumes.subject)
    for path in paths:
        known = session_of(path)
        if known is None or (volumes.scope.before_run and known[0] not in asked):
            continue
        number, form = known
        name = f"betas session {number:02d} {form}"
        item = Finding(volumes.subject, name, path, f"a session from 1 to {most}")
        if not form:
            item = replace(
                item,
                item="a file beside the betas",
                expected="betas_sessionNN.hdf5 or .nii.gz",
                remedy="move it away if a download has left it behind",
                state="unexpected",
                found=path.name,
            )
        elif not 1 <= number <= most:
            found = f"session {number}, which the subject does not have"
            remedy = "move it away, or give it its name"
            item = replace(item, state="damaged", found=found, remedy=remedy)
            number = 0
        else:
            grid = " x ".join(map(str, volumes.grid or ("X", "Y", "Z")))
            item = replace(item, expected=f"int16, {grid} x {N_TRIALS}")
            read = _read_hdf5 if form == "hdf5" else _read_nii
            item, digest = look(item, read, volumes, number, path)
            if digest and seen.setdefault(digest, path.name) != path.name:
                found = f"the numbers of {seen[digest]} once more"
                remedy = "compare both with their source and fetch them again"
                item = replace(item, state="damaged", found=found, remedy=remedy)
        files.append((number, item))
    return files


def _gives_way(volumes: _Volumes, number: int, path: Path | None) -> bool:
    """Return whether a run reads a session's other container in place of a bad file.

    It reads the hdf5 where there is one, and gives up one that cannot be read; numbers
    that are no data are refused in notebook 01.
    """
    if path is None or path.suffix.lower() != ".hdf5":
        return True
    if volumes.areas is None:
        return False
    try:
        _betas(volumes, number, _sample(volumes.areas, 1), "hdf5")
    except DataError:
        return True
    return False


def _betas(
    volumes: _Volumes, number: int, mask: Mask, form: Container
) -> npt.NDArray[np.int16]:
    """Return a session's betas as a run reads them."""
    return volumes.scope.tree.betas(volumes.subject, number, mask, form)


def _check(shape: Grid, dtype: np.dtype[Any], grid: Grid | None) -> str:
    """Return what is there; raise DataError unless it is int16 on the grid."""
    if dtype.kind != "i" or dtype.itemsize != 2:
        raise differs(f"{dtype} betas", "int16 (percent signal change x 300)")
    check_shape(shape, (*(grid or (None, None, None)), N_TRIALS), "The volume")
    return f"int16, {' x '.join(map(str, shape))}"


def _read_hdf5(volumes: _Volumes, number: int, path: Path) -> tuple[str, str]:
    """Return a digest of the numbers ("" where none is read), and what was seen."""
    scope, areas = volumes.scope, volumes.areas
    with open_hdf5(path) as file:  # refuses a file shorter than it says
        data = file.get("betas")
        if not isinstance(data, h5py.Dataset):
            names = ", ".join(map(str, file)) or "nothing"
            raise differs(f"it holds {names}", "a dataset named 'betas'")
        found = _check(data.shape[::-1], data.dtype, volumes.grid)
    if areas is None:
        return "", f"{found}; {UNREAD}"
    raw = _betas(volumes, number, areas if scope.deep else _sample(areas), "hdf5")
    held = where_held(raw)
    if scope.before_run and held.voxels.any():  # 01 itself reads them all
        pass
    elif fault(raw, held) or not (held.voxels.all() and held.trials.all()):
        found = f"{found}; {_read_whole(volumes, number, areas, 'hdf5')}"
    else:
        found = f"{found}; {raw.shape[1]} voxels of the areas have data"
    return digest_betas(raw), found


def _read_nii(volumes: _Volumes, number: int, path: Path) -> tuple[str, str]:
    """Return a digest of the first trials ("" without areas), and what was seen."""
    scope, areas = volumes.scope, volumes.areas
    image = check_nii(path, to_the_end=scope.deep)
    found = _check(image.shape, image.get_data_dtype(), volumes.grid)
    scope.tree.check_space(volumes.subject, path)
    if areas is None:
        return "", f"{found}; {'read to the end' if scope.deep else UNREAD}"
    first = np.asanyarray(image.dataobj[..., :_N_TRIALS])[areas].T
    empty = float((first == 0).all(axis=0).mean())
    if scope.deep or empty > (1 - 1e-9 if scope.before_run else MOST_EMPTY):
        found = f"{found}; {_read_whole(volumes, number, areas, 'nii.gz')}"
    else:
        found = f"{found}; {UNREAD} but for the first {_N_TRIALS} trials"
    return digest_betas(first), found


def _read_whole(volumes: _Volumes, number: int, areas: Mask, form: Container) -> str:
    """Return how much of a session's areas is empty; raise DataError if too much."""
    raw = _betas(volumes, number, areas, form)
    held = where_held(raw)
    if wrong := fault(raw, held):
        raise DataError(f"{wrong}.")
    empty = f"{int((~held.voxels).sum())} of {raw.shape[1]} voxels of the areas"
    return f"{empty} and {int((~held.trials).sum())} trials have no data"


def _sample(areas: Mask, n: int = _N_VOXELS) -> Mask:
    """Return at most `n` voxels of the areas, evenly in the order of the file.

    A hole of a file in one piece is found if it is 1 / n of the areas or more.
    """
    k, j, i = np.nonzero(areas.T)
    rows = np.unique(np.linspace(0, len(k) - 1, n).round().astype(np.int64))
    sample = np.zeros_like(areas)
    sample[i[rows], j[rows], k[rows]] = True
    return sample
