"""Runs of a task in BIDS's form: volumes of masked voxels, their times and events.

What notebook 09 reads: `sub-01/func/sub-01_task-NAME_run-1_bold.nii.gz` with `.json`
and `_events.tsv` beside it, below a folder with `dataset_description.json`. Volumes are
(n_voxels, 1, 1, n_volumes), the voxels of a mask in a row. Not behind `protocol`, which
is of responses to pictures.

References
----------
Gorgolewski et al. (2016), The brain imaging data structure, Scientific Data 3:160044.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Matrix
from minddiff_utils.datasets.published import Published

__all__ = ["BidsRun", "read_runs"]

_FILES = Published(
    "put it beside the others of its run, or run the notebook that writes them",
    "bring the files of this run again",
)
_COLUMNS = ("onset", "duration", "clip", "frame")


@dataclass(frozen=True)
class BidsRun:
    """One run.

    `bold`: (n_volumes, n_voxels) float32, volume v at v * `tr` seconds; `events`: onset
    and duration (s), clip and frame, a row for each frame.
    """

    bold: Matrix
    tr: float
    events: pd.DataFrame


def read_runs(folder: Path, subject: int, task: str) -> list[BidsRun]:
    """Return the runs of a task of a subject, in their order.

    Raises
    ------
    DataError
        A file is missing or damaged, times of the header and of the `.json` differ, a
        value is no number, or an event lies outside of its run.
    """
    with _FILES.reading(folder / "dataset_description.json", "Description of BIDS"):
        pass
    stem = f"sub-{subject:02d}_task-{task}_run-"
    func = folder / f"sub-{subject:02d}" / "func"
    paths = sorted(func.glob(f"{stem}*_bold.nii.gz"), key=lambda p: (len(p.name), p))
    if not paths:
        raise DataError(f"{func} has no file {stem}*_bold.nii.gz: {_FILES.where}.")
    runs = [_read_run(path) for path in paths]
    for path, run in zip(paths, runs, strict=True):
        n, first = run.bold.shape[1], runs[0].bold.shape[1]
        if n != first:
            raise _FILES.wrong(path, f"{n} voxels", f"the {first} of the first run")
    return runs


def _read_run(path: Path) -> BidsRun:
    with _FILES.reading(path, "Volumes"):
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj, np.float32)
        stated = float(image.header.get_zooms()[-1])
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    with _FILES.reading(sidecar, "Sidecar"):
        tr = json.loads(sidecar.read_text(encoding="utf-8"))["RepetitionTime"]
    if not isinstance(tr, int | float) or not 0 < tr < np.inf:
        raise _FILES.wrong(sidecar, f"RepetitionTime {tr!r}", "a number of seconds")
    if abs(stated - tr) > 1e-4:  # the header has 32 bits
        found = f"a volume every {stated:g} s"
        raise _FILES.wrong(path, found, f"one every {tr:g} s, as {sidecar.name} says")
    if values.ndim != 4 or values.shape[1:3] != (1, 1):
        raise _FILES.wrong(path, f"shape {values.shape}", "(n_voxels, 1, 1, n_volumes)")
    if not np.isfinite(values).all():
        raise _FILES.wrong(path, "NaN or infinite values", "a number in each voxel")
    bold = np.ascontiguousarray(values[:, 0, 0].T)
    return BidsRun(bold, float(tr), _read_events(path, len(bold) * tr))


def _read_events(bold: Path, seconds: float) -> pd.DataFrame:
    path = bold.with_name(bold.name.replace("_bold.nii.gz", "_events.tsv"))
    with _FILES.reading(path, "Events"):
        events = pd.read_csv(path, sep="\t")
    _FILES.check_columns(path, events, _COLUMNS)
    times = events[["onset", "duration"]].to_numpy(np.float64)
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise _FILES.wrong(path, "a time that is no number of seconds", "onsets from 0")
    last = float(times.sum(axis=1).max(initial=0))
    if last > seconds:
        found = f"a frame that ends at {last:g} s"
        raise _FILES.wrong(path, found, f"none after the run's {seconds:g} s")
    return events
