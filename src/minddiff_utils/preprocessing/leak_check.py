"""What would let the test set reach the training set, image by image.

Ids, pictures, COCO's ids and captions are compared between the splits: one picture can
stand under two ids. Likeness is no leak, and not looked for.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.core.types import IntArray, Mask
from minddiff_utils.datasets.leaks import caption_keys, leaking_words, pairs_across
from minddiff_utils.datasets.protocol import DataSet
from minddiff_utils.preprocessing.responses import Responses
from minddiff_utils.preprocessing.splits import TESTS

__all__ = ["check_leaks", "find_leaks", "leak_report"]


def find_leaks(
    data_set: DataSet,
    subject: int,
    responses: Responses,
    images: Images,
    captions: npt.NDArray[np.object_],
) -> pd.DataFrame:
    """Return `leak_report` of one subject's responses, their images and captions.

    In-silico captions come from a small grammar, so that many scenes share all of
    theirs; they are compared in measured data only.
    """
    test_id = data_set.test_images(subject)
    coco_id = data_set.coco_id(responses.nsd_id)
    texts = captions.tolist() if data_set.is_real else None
    return leak_report(responses, images, test_id, coco_id, texts)


def leak_report(
    responses: Responses,
    images: Images,
    shared_id: IntArray,
    coco_id: IntArray | None = None,
    captions: Sequence[Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Return what would let the test set reach the training set.

    Columns: check, found, allowed (NA: reported only), passed, nsd_id (what was found,
    an equals sign between two ids of one picture).

    Parameters
    ----------
    responses : Responses
        Prepared responses.
    images : (n_images, size, size, 3) uint8
        Their stimuli, rows aligned; may be unread.
    shared_id : (1000,) int64
        `nsd_id` of the images shared by all subjects.
    coco_id : (n_images,) int64, optional
        Their pictures in COCO. In validation and training they may be the same, as
        nothing is tested there: this is reported.
    captions : (n_images, n_captions) str, optional
        Captions that people wrote: no two pictures have the same.
    """
    nsd_id, test = responses.nsd_id, np.isin(responses.split, TESTS)
    shared = np.isin(nsd_id, shared_id)
    twice = np.unique(nsd_id, return_index=True)[1]
    again = np.setdiff1d(np.arange(len(nsd_id)), twice)
    found: dict[str, Sequence[Sequence[int]]] = {
        "images in two splits": [(row,) for row in again.tolist()],
        "test images that are not shared": _rows(test & ~shared),
        "training images that are shared": _rows(~test & shared),
        "pictures equal to the byte in test and training": pairs_across(
            _digests(images), test, ~test
        ),
    }
    reported = set[str]()
    if coco_id is not None:
        ids = coco_id.tolist()
        found["COCO pictures in test and training"] = pairs_across(ids, test, ~test)
        name = "COCO pictures in validation and training"
        validation, train = responses.split == "validation", responses.split == "train"
        found[name] = pairs_across(ids, validation, train)
        reported.add(name)
    if captions is not None:
        name = "sets of captions in test and training"
        found[name] = pairs_across(caption_keys(captions), test, ~test)
    return _table(nsd_id, found, reported)


def _rows(mask: Mask) -> list[tuple[int]]:
    return [(row,) for row in np.flatnonzero(mask).tolist()]


def _digests(images: Images) -> list[str]:
    return [
        hashlib.sha256(image.tobytes()).hexdigest()
        for _, block in in_blocks(images)
        for image in block
    ]


def _table(
    nsd_id: IntArray, found: Mapping[str, Sequence[Sequence[int]]], reported: set[str]
) -> pd.DataFrame:
    numbers = [len(rows) for rows in found.values()]
    table = pd.DataFrame({"check": list(found), "found": numbers})
    limits = [None if name in reported else 0 for name in found]
    table["allowed"] = pd.array(limits, "Int64")
    free = table["allowed"].isna()
    table["passed"] = (free | (table["found"] == 0)).astype(bool)
    table["nsd_id"] = [leaking_words(nsd_id, rows) for rows in found.values()]
    return table


def check_leaks(leaks: pd.DataFrame, policy: Literal["refuse", "report"]) -> None:
    """Raise DataError if a leak was found and the profile does not accept leaks.

    Parameters
    ----------
    leaks : DataFrame
        From `leak_report`.
    policy : str
        `data.leaks` of the profile.
    """
    failed = leaks[~leaks["passed"]]
    if policy == "report" or failed.empty:
        return
    words = "; ".join(
        f"{n} {check} (nsd_id {ids})"
        for n, check, ids in failed[["found", "check", "nsd_id"]].itertuples(
            index=False
        )
    )
    raise DataError(
        f"Test images reach the training set: {words}: compare nsd_expdesign.mat, "
        "nsd_stim_info_merged.csv and nsd_stimuli.hdf5 with NSD's own, or set "
        "data.leaks to report to go on all the same."
    )
