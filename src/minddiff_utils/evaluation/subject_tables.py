"""Tables that notebooks 02 to 04 left for each subject, put together."""

import json
from collections.abc import Sequence

import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.reading import reading
from minddiff_utils.core.run import Run

__all__ = ["gather", "gather_costs", "notebook_seconds"]


def gather(run: Run, name: str, subjects: Sequence[int] | None = None) -> pd.DataFrame:
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


def gather_costs(run: Run, subjects: Sequence[int] | None = None) -> pd.DataFrame:
    """Return what each image cost under each method: U-Net evaluations and gradients.

    Stage 1 has no gradients; its column is NaN.
    """
    columns = ["subject", "method", "nsd_id", "n_unet_evaluations", "n_unet_gradients"]
    parts = [gather(run, f"{stage}.csv", subjects) for stage in ("stage1", "stage2")]
    return pd.concat([part.reindex(columns=columns) for part in parts])


def notebook_seconds(run: Run) -> pd.DataFrame:
    """Return the wall time of every notebook that the runner has recorded.

    Columns notebook (without subject and shard) and seconds; empty where the notebooks
    were run by hand. A record is damaged: StoreError.
    """
    rows = []
    for path in sorted(run.tree.notebooks.glob("*.run.json")):
        stem = path.name.removesuffix(".run.json").partition("_subj")[0]
        lacks, remedy = "is damaged and tells no seconds", "move it away and run again"
        with reading(path, StoreError, found=lacks, remedy=remedy):
            seconds = float(json.loads(store.read_bytes(path))["seconds"])
        rows.append((stem, seconds))
    return pd.DataFrame(rows, columns=["notebook", "seconds"])
