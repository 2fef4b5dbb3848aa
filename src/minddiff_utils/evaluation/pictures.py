"""The images of a subject that evaluation needs, and rows of galleries.

Place in the flow: layer 9, part of `evaluation`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minddiff_utils.core import store
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.rows import Rows
from minddiff_utils.core.run import Run
from minddiff_utils.evaluation.baselines import read_condition
from minddiff_utils.evaluation.metrics import ConditionImages
from minddiff_utils.generation.rivals import read_pixel_ridge

__all__ = [
    "Stimuli",
    "gallery",
    "read_stimuli",
    "rows_of",
    "subject_galleries",
    "test_ids",
    "wanted_ids",
]

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Stimuli:
    """The images of one subject that evaluation needs, unread.

    Attributes
    ----------
    truth : ConditionImages
        The images to reconstruct.
    test : Rows of uint8 (n_test, S, S, 3)
        All test images, the reference of set-wise distances.
    train : Rows of uint8 (n_train, S, S, 3)
        Training images.
    retrieved : Rows of uint8 (n, S, S, 3)
        The training image nearest to each decoded feature set.
    drawn : Rows of uint8 (n, S, S, 3)
        A training image at random for each.
    """

    truth: ConditionImages
    test: Rows
    train: Rows
    retrieved: Rows
    drawn: Rows


def read_stimuli(run: Run, subject: int) -> Stimuli:
    """Read the true images of one subject.

    Raises
    ------
    StoreError
        An artefact is missing, or two of them do not belong together.
    """
    folder = run.tree.derived(subject)
    nsd_id = store.read_arrays(folder / "stimuli.h5", ["nsd_id"])["nsd_id"]
    images = store.read_rows(folder / "stimuli.h5", "images")
    split = store.read_arrays(folder / "responses.h5", ["split"])["split"]
    found = store.read_arrays(folder / "decoded.h5", ["nsd_id", "retrieval_nsd_id"])
    n = run.profile.data.n_reconstruct
    wanted, nearest = (found[k][:n] for k in ("nsd_id", "retrieval_nsd_id"))
    if not len(split) == len(images) == len(nsd_id):
        raise _strangers(folder)
    rows, train = rows_of(folder, wanted, nsd_id), images.of(split == "train")
    draw = run.stream("random train", subject).integers(len(train), size=len(wanted))
    return Stimuli(
        truth=ConditionImages("truth", wanted, images.of(rows)),
        test=images.of(split == "test"),
        train=train,
        retrieved=images.of(rows_of(folder, nearest, nsd_id)),
        drawn=train.of(draw),
    )


def rows_of(
    folder: Path, wanted: npt.NDArray[np.int64], nsd_id: npt.NDArray[np.int64]
) -> list[int]:
    """Return the rows of the images `wanted` among `nsd_id`.

    Raises
    ------
    StoreError
        One of them is not there; the sentence names `folder`, which both are from.
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


def test_ids(run: Run, subject: int) -> npt.NDArray[np.int64]:
    """Return the images of the subject's test set, as rows of `Stimuli.test`."""
    folder = run.tree.derived(subject)
    nsd_id = store.read_arrays(folder / "stimuli.h5", ["nsd_id"])["nsd_id"]
    split = store.read_arrays(folder / "responses.h5", ["split"])["split"]
    return np.asarray(nsd_id[split == "test"], np.int64)


def wanted_ids(run: Run, subject: int) -> npt.NDArray[np.int64]:
    """Return the images to reconstruct, (n,), in order."""
    path = run.tree.derived(subject) / "decoded.h5"
    found = store.read_arrays(path, ["nsd_id"])["nsd_id"]
    return found[: run.profile.data.n_reconstruct]


def gallery(
    run: Run,
    subject: int,
    methods: Mapping[str, str],
    *,
    n: int,
    picked: Sequence[int] | None = None,
) -> dict[str, Images]:
    """Return the first `n` images of the run's shard, or those `picked`, by method.

    Parameters
    ----------
    methods : mapping of str to str
        Method (or `truth`, `retrieval`, `random_train`, `pixel_ridge`) to the words of
        its row, in order; methods without images are left out.
    picked : sequence of int, optional
        Image ids, in the order shown.
    """
    stimuli = read_stimuli(run, subject)
    nsd_id = stimuli.truth.nsd_id
    shown = [row for batch in run.batches(len(nsd_id)) for row in batch][:n]
    if picked is not None:
        shown = rows_of(run.tree.derived(subject), np.array(picked), nsd_id)
    own: dict[str, Images | Rows] = {
        "truth": stimuli.truth.images,
        "retrieval": stimuli.retrieved,
        "random_train": stimuli.drawn,
    }
    if "pixel_ridge" in methods:
        path = run.tree.derived(subject) / "decoded_rivals.h5"
        size = stimuli.truth.images.shape[1]
        own["pixel_ridge"] = read_pixel_ridge(path, nsd_id, size)
    rows: dict[str, Images] = {}
    for method, words in methods.items():
        if method in own:
            rows[words] = np.asarray(own[method][shown])
            continue
        folder = run.tree.stage_dir(subject, method)
        made = read_condition(folder, method, nsd_id[shown])
        if made is not None:
            rows[words] = _in_place(made, nsd_id[shown])
    return rows


def _in_place(made: ConditionImages, nsd_id: npt.NDArray[np.int64]) -> Images:
    """Return the images up to the last there is; an unfinished one between is white."""
    images = np.asarray(made.images[:])
    place = np.flatnonzero(np.isin(nsd_id, made.nsd_id))
    filled = np.full((place[-1] + 1, *images.shape[1:]), 255, np.uint8)
    filled[place] = images
    return filled


def subject_galleries(
    run: Run,
    subjects: Sequence[int],
    method: str,
    *,
    n: int,
    picked: Sequence[int] | None = None,
) -> dict[str, Images]:
    """Return the seen images and one method's images of every subject."""
    rows = gallery(run, subjects[0], {"truth": "seen image"}, n=n, picked=picked)
    for subject in subjects:
        words = {method: f"subject {subject}"}
        rows |= gallery(run, subject, words, n=n, picked=picked)
    return rows
