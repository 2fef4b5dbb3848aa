"""Which subjects are finished, and the tables that they left.

Place in the flow: layer 9, part of `evaluation`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils import store
from minddiff_utils.errors import StoreError
from minddiff_utils.evaluation.pictures import wanted_ids

__all__ = [
    "Stock",
    "check_complete",
    "gather",
    "gather_costs",
    "notebook_seconds",
    "take_stock",
]


def check_complete(run: store.Run, subject: int, nsd_id: npt.NDArray[np.int64]) -> None:
    """Refuse images of some shards, or of a run for other images."""
    for stage in ("stage1", "stage2"):
        path = run.tree.derived(subject) / f"{stage}.csv"
        table = store.read_table(path, ["method", "nsd_id"])
        made = table.loc[table["method"] == stage, "nsd_id"]
        if made.tolist() != nsd_id.tolist():
            raise StoreError(
                f"{path} tells of {len(made)} images, but other ones, or another"
                f" number than {len(nsd_id)}, are to be evaluated: run notebooks 03"
                " and 04 of this subject with the same profile and overrides."
            )


@dataclass(frozen=True)
class Stock:
    """Subjects whose notebooks are done, and why the others are missing."""

    complete: tuple[int, ...]
    missing: Mapping[int, str]

    def table(self) -> pd.DataFrame:
        """Return a row per subject: `subject` and `state`."""
        rows = [(str(s), "complete") for s in self.complete]
        rows += [(str(s), f"missing: {why}") for s, why in self.missing.items()]
        return pd.DataFrame(rows, columns=["subject", "state"])


#: What notebooks 02 to 04 leave of each subject and later notebooks read.
_NEEDED = (
    "decoded.h5",
    "decoded_rivals.h5",
    "accuracy.csv",
    "k_selection.csv",
    "weights.csv",
    "zero_iterations.csv",
    "trajectories.h5",
)


def take_stock(run: store.Run) -> Stock:
    """Tell finished subjects from missing and half-finished ones.

    Raises
    ------
    StoreError
        No subject of the profile is finished; the sentence is that of the first.
    """
    missing: dict[int, str] = {}
    for subject in run.profile.subjects:
        folder = run.tree.derived(subject)
        absent = [name for name in _NEEDED if not (folder / name).is_file()]
        try:
            if absent:
                raise StoreError(
                    f"{folder / absent[0]} does not exist: run notebooks 02 to 04 of"
                    " this subject."
                )
            check_complete(run, subject, wanted_ids(run, subject))
        except StoreError as error:
            missing[subject] = str(error)
    complete = tuple(s for s in run.profile.subjects if s not in missing)
    if not complete:
        raise StoreError(next(iter(missing.values())))
    return Stock(complete, missing)


def gather(
    run: store.Run, name: str, subjects: Sequence[int] | None = None
) -> pd.DataFrame:
    """Return a table that each subject has, with the column `subject` in front.

    `subjects`: default all of the profile.
    """
    tables = []
    for subject in run.profile.subjects if subjects is None else subjects:
        table = store.read_table(run.tree.derived(subject) / name)
        table = table.drop(columns="subject", errors="ignore")
        table.insert(0, "subject", str(subject))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def gather_costs(run: store.Run, subjects: Sequence[int] | None = None) -> pd.DataFrame:
    """Return what each image cost under each method: U-Net evaluations and gradients.

    Stage 1 has no gradients; its column is NaN.
    """
    columns = ["subject", "method", "nsd_id", "n_unet_evaluations", "n_unet_gradients"]
    parts = [gather(run, f"{stage}.csv", subjects) for stage in ("stage1", "stage2")]
    return pd.concat([part.reindex(columns=columns) for part in parts])


def notebook_seconds(run: store.Run) -> pd.DataFrame:
    """Return the wall time of every notebook that the runner has recorded.

    Columns notebook (without subject and shard) and seconds; empty where the notebooks
    were run by hand.

    Raises
    ------
    StoreError
        A record is damaged.
    """
    rows = []
    for path in sorted(run.tree.notebooks.glob("*.run.json")):
        stem = path.name.removesuffix(".run.json").partition("_subj")[0]
        rows.append((stem, _seconds(path)))
    return pd.DataFrame(rows, columns=["notebook", "seconds"])


def _seconds(path: Path) -> float:
    try:
        return float(json.loads(store.read_bytes(path))["seconds"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(
            f"{path} is damaged and tells no seconds: delete it and run again."
        ) from error
