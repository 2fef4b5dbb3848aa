"""The images of a subject that evaluation reads: true ones, and every condition's.

All are files: what was seen is in `stimuli.h5`, the images of each condition in the
folder that notebook 03 or 04 wrote. Not here: what each condition is
(`core.conditions`), scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name, conditions_of
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.rows import Rows
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Images, IntArray
from minddiff_utils.evaluation.metrics import ConditionImages
from minddiff_utils.evaluation.metrics.embeddings import category_only_two_way
from minddiff_utils.preprocessing import categories_in_captions

__all__ = [
    "Stimuli",
    "category_floor",
    "condition_images",
    "gallery",
    "made_ids",
    "read_condition",
    "read_stimuli",
    "rows_of",
    "unfinished",
    "wanted_ids",
]


# --- what was seen --------------------------------------------------------------------


@dataclass(frozen=True)
class Stimuli:
    """The true images of one subject, unread.

    `truth`: the images to reconstruct; `test`, uint8 (n_test, S, S, 3): all test
    images, the reference of set-wise distances; `test_id`: which these are.
    """

    truth: ConditionImages
    test: Rows
    test_id: IntArray


def read_stimuli(run: Run, subject: int) -> Stimuli:
    """Return the true images of one subject.

    An artefact is missing, or two of them do not belong together: StoreError.
    """
    folder = run.tree.derived(subject)
    nsd_id = store.read_arrays(folder / "stimuli.h5", ["nsd_id"])["nsd_id"]
    images = store.read_rows(folder / "stimuli.h5", "images")
    split = store.read_arrays(folder / "responses.h5", ["split"])["split"]
    if not len(split) == len(images) == len(nsd_id):
        raise _strangers(folder)
    wanted = wanted_ids(run, subject)
    truth = images.of(rows_of(folder, wanted, nsd_id))
    tests = split == "test"
    seen = ConditionImages("truth", wanted, truth)
    return Stimuli(seen, images.of(tests), nsd_id[tests])


def rows_of(folder: Path, wanted: IntArray, nsd_id: IntArray) -> list[int]:
    """Return the rows of the images `wanted` among `nsd_id`.

    One of them is not there: StoreError; it names `folder`, which both are from.
    """
    row = {int(i): k for k, i in enumerate(nsd_id)}
    try:
        return [row[int(i)] for i in wanted]
    except KeyError as error:
        raise _strangers(folder) from error


def _strangers(folder: Path) -> StoreError:
    return StoreError(
        f"{folder}: stimuli.h5, responses.h5 and decoded.h5 do not belong together; run"
        " notebooks 01 and 02 of this subject again."
    )


def category_floor(run: Run, subject: int) -> float:
    """Return the two-way score of a reconstruction that carries the category alone.

    The category of an image is the set of object names in its captions. An artefact is
    missing, or two of them do not belong together: StoreError.
    """
    folder, names = run.tree.derived(subject), ["nsd_id", "captions"]
    stored = store.read_arrays(folder / "stimuli.h5", names)
    rows = rows_of(folder, wanted_ids(run, subject), stored["nsd_id"])
    return category_only_two_way(categories_in_captions(stored["captions"][rows]))


def wanted_ids(run: Run, subject: int) -> IntArray:
    """Return the images to reconstruct, (n,), in order."""
    path = run.tree.derived(subject) / "decoded.h5"
    found = store.read_arrays(path, ["nsd_id"])["nsd_id"]
    return found[: run.profile.data.n_reconstruct]


# --- what was made --------------------------------------------------------------------


def made_ids(folder: Path, method: str, nsd_id: Sequence[int] | IntArray) -> list[int]:
    """Return those of the images `nsd_id` that a condition has, in their order.

    Some are missing of a condition that is made for all of them, and its table does not
    call them unfinished: StoreError.
    """
    wanted = [int(i) for i in nsd_id]
    found = [i for i in wanted if (folder / f"{i}.png").is_file()]
    condition = by_name().get(method)  # None: a step of the ablation
    left = {*wanted} - {*found}
    if condition is None or condition.n_images != "all":
        left = set()
    lost = unfinished(folder.parent) if left else {}
    if any(method not in lost.get(i, ()) for i in left):
        raise StoreError(
            f"{folder} holds {len(found)} of {len(wanted)} images: run notebooks 03 "
            "and 04 for all shards of this subject first."
        )
    return found


def read_condition(
    folder: Path, method: str, nsd_id: Sequence[int] | IntArray
) -> ConditionImages | None:
    """Return the images of a condition, or None where it has none.

    `folder` holds one `<nsd_id>.png` per image; `method`: name of the row; `nsd_id`,
    (n,): the images wanted, in this order. As `made_ids`, or the images differ in size:
    StoreError.
    """
    found = made_ids(folder, method, nsd_id)
    if not found:
        return None
    shape = store.read_png(folder / f"{found[0]}.png").shape
    images = np.empty((len(found), *shape), np.uint8)  # never held twice
    for row, number in enumerate(found):
        image = store.read_png(folder / f"{number}.png")
        if image.shape != shape:
            raise StoreError(
                f"{folder} holds images of different sizes: move it away and run"
                " notebooks 03 and 04 again."
            )
        images[row] = image
    return ConditionImages(method, np.array(found, dtype=np.int64), images)


def unfinished(folder: Path) -> dict[int, list[str]]:
    """Return the images that half precision could not make, with their methods.

    `folder`: a subject's, with what notebooks 03 and 04 have written so far.
    """
    found: dict[int, list[str]] = {}
    for name in ("stage1.csv", "stage2.csv"):
        if (folder / name).is_file():
            table = store.read_table(folder / name)
            if "finished" in table:  # not in one of an earlier version
                lost = table[~table["finished"]]
                for image, method in zip(lost["nsd_id"], lost["method"], strict=True):
                    found.setdefault(int(image), []).append(str(method))
    return found


def condition_images(
    run: Run,
    subject: int,
    truth: ConditionImages,
    names: Sequence[str] | None = None,
) -> Iterator[ConditionImages]:
    """Yield the conditions `names` of a subject that have images.

    Default: every condition in the order of the tables; those of the ablation come
    last, with their own images. As `read_condition`, StoreError.
    """
    every = [row.name for row in conditions_of(run.profile) if row.engine]
    for name in every if names is None else names:
        found = read_condition(run.tree.stage_dir(subject, name), name, truth.nsd_id)
        if found is not None:
            yield found
        del found  # before the next one's images are read


# --- galleries ------------------------------------------------------------------------


def gallery(
    run: Run,
    subject: int,
    methods: Mapping[str, str],
    *,
    n: int,
    picked: Sequence[int] | None = None,
) -> dict[str, Images]:
    """Return the first `n` images of the run's shard, or those `picked`, by method.

    `methods`: condition, or `truth`, to the words of its row, in order; conditions
    without images are left out. `picked`: ids, in the order shown.
    """
    truth = read_stimuli(run, subject).truth
    chosen = [row for batch in run.batches(len(truth.nsd_id)) for row in batch][:n]
    if picked is not None:
        folder = run.tree.derived(subject)
        chosen = rows_of(folder, np.array(picked), truth.nsd_id)
    rows: dict[str, Images] = {}
    for method, words in methods.items():
        if method == "truth":
            rows[words] = np.asarray(truth.images[chosen])
            continue
        folder, ids = run.tree.stage_dir(subject, method), truth.nsd_id[chosen]
        made = read_condition(folder, method, ids)
        if made is not None:
            rows[words] = _in_place(made, ids)
    return rows


def _in_place(made: ConditionImages, nsd_id: IntArray) -> Images:
    """Return the images up to the last there is; an unfinished one between is white."""
    images = np.asarray(made.images[:])
    place = np.flatnonzero(np.isin(nsd_id, made.nsd_id))
    filled = np.full((place[-1] + 1, *images.shape[1:]), 255, np.uint8)
    filled[place] = images
    return filled
