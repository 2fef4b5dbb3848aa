"""What would let the test set reach the training set, image by image.

Ids, pictures, COCO's ids and captions are compared between the splits: one picture can
stand under two ids. Likeness is no leak, and not looked for.
`preprocessing.leak_check` gathers what is compared; `check` compares what files say.
"""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.core.types import IntArray, Mask

__all__ = [
    "Pictured",
    "caption_keys",
    "check_leaks",
    "leak_report",
    "leaking_words",
    "pairs_across",
]

#: Two rows that are one image.
Pair = tuple[int, int]

#: Pairs that a sentence names.
_NAMED = 5


class Pictured(Protocol):
    """Rows of images: prepared responses."""

    @property
    def nsd_id(self) -> IntArray:
        """Return each row's image, 0-based."""

    @property
    def split(self) -> npt.NDArray[np.str_]:
        """Return "train", "validation" or "test" for each row."""


def pairs_across(keys: Iterable[Hashable], one: Mask, other: Mask) -> list[Pair]:
    """Return rows of `one` and `other` with the same key, a pair for each of `one`.

    >>> pairs_across("abca", np.arange(4) < 1, np.arange(4) > 0)
    [(0, 3)]
    """
    known = list(keys)
    first = {known[row]: int(row) for row in np.flatnonzero(other)[::-1]}
    rows = np.flatnonzero(one).tolist()
    return [(row, first[known[row]]) for row in rows if known[row] in first]


def caption_keys(captions: Iterable[Sequence[str]]) -> list[Hashable]:
    """Return a key for each image's captions, the same where they are the same texts.

    One text for all of an image's captions, or none, says nothing: it is like no other.

    >>> caption_keys([["a", "b"], ["b", "a"], ["a", "a"], []])
    [('a', 'b'), ('a', 'b'), 2, 3]
    """
    sets = [tuple(sorted(set(map(str, texts)))) for texts in captions]
    return [texts if len(texts) > 1 else row for row, texts in enumerate(sets)]


def leaking_words(nsd_id: IntArray, pairs: Sequence[Sequence[int]]) -> str:
    """Return words that name rows or pairs of rows by `nsd_id`, a few of many.

    >>> leaking_words(np.array([7, 8, 9]), [(0, 2), (1,)])
    '7 = 9, 8'
    """
    named = [" = ".join(str(nsd_id[row]) for row in rows) for rows in pairs[:_NAMED]]
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return ", ".join(named) + more


def leak_report(
    responses: Pictured,
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
    responses : Pictured
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
    nsd_id, test = responses.nsd_id, responses.split == "test"
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
