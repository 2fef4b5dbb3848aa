"""Which subjects are finished, and the tables that notebooks 02 to 04 left of each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.reading import reading
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import IntArray
from minddiff_utils.evaluation.images import made_ids, wanted_ids

__all__ = [
    "check_completeness",
    "check_images",
    "gather",
    "gather_costs",
    "notebook_seconds",
]


def check_images(run: Run, subject: int, nsd_id: IntArray) -> None:
    """Refuse images of some shards or another run, or that are not there."""
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
        made_ids(run.tree.stage_dir(subject, stage), stage, nsd_id)


@dataclass(frozen=True)
class Completeness:
    """Subjects whose notebooks are done, and why the others are missing.

    `n_images`: of each finished subject the images that were reconstructed, and those
    of its test set.
    """

    n_images: Mapping[int, tuple[int, int]]
    missing: Mapping[int, str]

    @property
    def complete(self) -> tuple[int, ...]:
        """Return the finished subjects, in the profile's order."""
        return tuple(self.n_images)

    def table(self) -> pd.DataFrame:
        """Return a row per subject: `subject`, `state`, `n_reconstructed`, `n_test`."""
        rows: list[tuple[object, ...]] = [
            (str(s), "complete", *n) for s, n in self.n_images.items()
        ]
        rows += [
            (str(s), f"missing: {why}", pd.NA, pd.NA) for s, why in self.missing.items()
        ]
        columns = ["subject", "state", "n_reconstructed", "n_test"]
        table = pd.DataFrame(rows, columns=columns)
        return table.astype({"n_reconstructed": "Int64", "n_test": "Int64"})

    def image_words(self) -> str:
        """Return how many images were reconstructed of how many of the test set."""
        words = [f"{n} of {n_test}" for n, n_test in self.n_images.values()]
        if len(set(words)) == 1:
            return f"{words[0]} test images"
        each = zip(self.complete, words, strict=True)
        return ", ".join(f"subject {s}: {w}" for s, w in each) + " test images"


#: What notebooks 02 to 04 leave of each subject and later notebooks read.
_NEEDED = (
    "decoded.h5",
    "decoded_systems.h5",
    "accuracy.csv",
    "image_accuracy.csv",
    "k_selection.csv",
    "weights.csv",
    "zero_iterations.csv",
    "trajectories.h5",
)


def check_completeness(run: Run) -> Completeness:
    """Tell finished subjects from missing and half-finished ones.

    No subject of the profile is finished: StoreError, in the words of the first.
    """
    n_images: dict[int, tuple[int, int]] = {}
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
            wanted = wanted_ids(run, subject)
            check_images(run, subject, wanted)
            test = store.read_arrays(folder / "decoded.h5", ["nsd_id"])["nsd_id"]
            n_images[subject] = (len(wanted), len(test))
        except StoreError as error:
            missing[subject] = str(error)
    if not n_images:
        raise StoreError(next(iter(missing.values())))
    return Completeness(n_images, missing)


# --- put together ---------------------------------------------------------------------


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
