"""The shards of a stage: each writes its share, the last one all together.

Place in the flow: part of `reconstruction`, the end of notebooks 03 and 04.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.locks import locked
from minddiff_utils.core.run import Run
from minddiff_utils.generation.batches import subject_of
from minddiff_utils.generation.reconstruction.stage1 import Made
from minddiff_utils.generation.reconstruction.stage2 import Aligned, Arrays
from minddiff_utils.generation.reconstruction.written import (
    FRAMES,
    TRAJECTORY,
    stage1_table,
    stage2_table,
    trajectory_arrays,
)

__all__ = ["Finished", "begin_stage", "finish_stage1", "finish_stage2"]

#: What each stage writes for all images of a subject together.
_FILES = {
    "stage1": ("stage1.csv",),
    "stage2": ("stage2.csv", "zero_iterations.csv", "trajectories.h5"),
}


def begin_stage(
    run: Run, stage: Literal["stage1", "stage2"], *, inputs: Sequence[Path]
) -> None:
    """Delete a stage's tables that are of another run, before images change below them.

    What this very run has written before, or another shard of it, stays. `inputs` must
    be those that `finish_stage1` or `finish_stage2` is given.
    """
    folder = run.tree.derived(subject_of(run))
    with locked(folder):
        for name in _FILES[stage]:
            store.discard_stale(folder / name, run=run, inputs=inputs)


@dataclass(frozen=True)
class Finished:
    """What a shard leaves: its own share, or everything where it was the last one.

    Attributes
    ----------
    run : Run
        The run of all images if all of them are there, this shard's run otherwise.
    tables : mapping of DataFrame
        By file name.
    trajectories : mapping of arrays
        As `trajectory_arrays`; empty for stage 1.
    """

    run: Run
    tables: Mapping[str, pd.DataFrame]
    trajectories: Arrays


def finish_stage1(
    run: Run,
    made: Mapping[str, Made],
    nsd_id: npt.NDArray[np.int64],
    *,
    inputs: Sequence[Path],
) -> Finished:
    """Write `stage1.csv`, or this shard's share of it; the last shard writes it whole.

    Parameters
    ----------
    made : mapping of Made
        This shard's images, already written, by condition.
    nsd_id : (n,) int64
        The images of all shards, in order.
    inputs : sequence of Path
        As given to `begin_stage`.
    """
    share = Finished(run, {"stage1.csv": stage1_table(run, made)}, {})
    return _finish(share, list(made), nsd_id, inputs)


def finish_stage2(
    run: Run,
    aligned: Mapping[str, Aligned],
    still: pd.DataFrame,
    nsd_id: npt.NDArray[np.int64],
    *,
    inputs: Sequence[Path],
) -> Finished:
    """Write the tables and trajectories of stage 2, as `finish_stage1`.

    `still` is the result of `zero_iterations_equal`.
    """
    tables = {
        "stage2.csv": stage2_table(run.profile, aligned),
        "zero_iterations.csv": still,
    }
    share = Finished(run, tables, trajectory_arrays(aligned))
    return _finish(share, list(aligned), nsd_id, inputs)


def _finish(
    share: Finished,
    methods: Sequence[str],
    nsd_id: npt.NDArray[np.int64],
    inputs: Sequence[Path],
) -> Finished:
    """Write a share; where all shares are there, write and return the whole."""
    run = share.run
    folder = run.tree.derived(subject_of(run))
    with locked(folder):  # else two last shards could each miss the other
        whole: Finished | None = share
        if not run.is_whole:
            _write_share(share, folder, inputs)
            whole = _read_shares(share, folder, methods, nsd_id, inputs)
        if whole is None:
            return share
        for name, table in whole.tables.items():
            path = folder / name
            store.write_table(path, table, run=whole.run, inputs=inputs)
        if whole.trajectories:
            path = folder / "trajectories.h5"
            store.write_arrays(path, whole.trajectories, run=whole.run, inputs=inputs)
        _discard_leftovers(whole, methods)
    return whole


def _write_share(share: Finished, folder: Path, inputs: Sequence[Path]) -> None:
    """Write the share exactly: a CSV would round it."""
    written = {name: _columns(table) for name, table in share.tables.items()}
    if share.trajectories:
        written["trajectories.h5"] = dict(share.trajectories)
    for name, arrays in written.items():
        store.write_part(folder / name, arrays, run=share.run, inputs=inputs)


def _columns(table: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """Return a table's columns as arrays; integers that can be missing as floats."""
    return {
        str(name): column.to_numpy(np.float64, na_value=np.nan)
        if column.dtype == "Int64"
        else column.to_numpy()
        for name, column in table.items()
    }


def _read_shares(
    share: Finished,
    folder: Path,
    methods: Sequence[str],
    nsd_id: npt.NDArray[np.int64],
    inputs: Sequence[Path],
) -> Finished | None:
    """Return all shards' shares as one, None while one is missing."""
    names = [*share.tables, *(["trajectories.h5"] if share.trajectories else [])]
    found = {}
    for name in names:
        parts = store.read_parts(folder / name, run=share.run, inputs=inputs)
        if parts is None:
            return None
        found[name] = parts
    rank = {int(image): row for row, image in enumerate(nsd_id)}
    tables = {
        name: _joined_table(found[name], table, methods, rank)
        for name, table in share.tables.items()
    }
    paths = _joined_paths(found.get("trajectories.h5", []), methods, rank)
    return Finished(share.run.whole(), tables, paths)


def _joined_table(
    parts: Sequence[Arrays],
    like: pd.DataFrame,
    methods: Sequence[str],
    rank: Mapping[int, int],
) -> pd.DataFrame:
    """Return the rows of all parts in the order of one run, typed as `like`."""
    columns = {
        name: np.concatenate([part[name] for part in parts]) for name in like.columns
    }
    table = pd.DataFrame(columns).astype(like.dtypes.to_dict())
    place = table["nsd_id"].map(rank)
    if "method" in table:
        place += len(rank) * table["method"].map(list(methods).index)
    return table.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)


def _joined_paths(
    parts: Sequence[Arrays], methods: Sequence[str], rank: Mapping[int, int]
) -> dict[str, npt.NDArray[Any]]:
    """Return the trajectories of all parts in the order of one run."""
    joined: dict[str, npt.NDArray[Any]] = {}
    for method in methods:
        own = [part for part in parts if f"{method}/nsd_id" in part]
        if not own:
            continue
        order = _order(own, f"{method}/nsd_id", rank)
        for name, per_image in TRAJECTORY.items():
            found = [part[f"{method}/{name}"] for part in own]
            joined[f"{method}/{name}"] = (
                np.concatenate(found)[order] if per_image else found[0]
            )
        order = _order(own, f"{method}/shown", rank)
        for name in FRAMES:
            found = [part[f"{method}/{name}"] for part in own]
            joined[f"{method}/{name}"] = np.concatenate(found)[order]
    return joined


def _order(
    parts: Sequence[Arrays], name: str, rank: Mapping[int, int]
) -> npt.NDArray[np.int64]:
    """Return the order of one run for rows whose image ids are in the array `name`."""
    images = np.concatenate([part[name] for part in parts])
    return np.argsort([rank[int(image)] for image in images])


def _discard_leftovers(whole: Finished, methods: Sequence[str]) -> None:
    """Delete images that this run did not make: an earlier one may have made more."""
    table = next(iter(whole.tables.values()))
    for method in methods:
        own = table[(table["method"] == method) & table["finished"]]
        made = set(own["nsd_id"].astype(str))
        folder = whole.run.tree.stage_dir(subject_of(whole.run), method)
        for path in folder.glob("*.png"):
            if path.stem not in made:
                store.discard(path)
