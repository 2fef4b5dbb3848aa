"""Which images train, validate and test: by image, never by trial."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import IntArray, Mask

__all__ = ["TESTS", "check_splits", "may_scale", "some_images", "split_images"]

#: Splits of images that all subjects share; the second one's categories are in no other
#: split. The real NSD has none.
TESTS = ("test", "test2")


def split_images(
    place: IntArray,
    is_test: Mask,
    n_validation: int,
    fold: int = 1,
    *,
    is_second: Mask | None = None,
) -> npt.NDArray[np.str_]:
    """Return the split of each distinct image, by image.

    Validation is a block of `n_validation` of the images that do not test, in the order
    of the subject's list: the last block for `fold` 1, as in the published code, the
    one before it for 2, and so on. Folds do not overlap; NSD lists a subject's own
    images in no order.

    Parameters
    ----------
    place : (n_images,) int64
        Place of each image in the subject's own list, ascending.
    is_test : (n_images,) bool
        Of NSD the images that all subjects share.
    is_second : (n_images,) bool, optional
        Of those in `is_test`, the ones that are "test2".

    Raises
    ------
    DataError
        Images are not distinct and ascending, no training or test image is left, or
        there is no such fold.

    Examples
    --------
    >>> place = np.array([3, 1000, 1001, 1005])
    >>> split_images(place, place < 1000, 1, fold=2).tolist()
    ['test', 'train', 'validation', 'train']
    """
    check_shape(is_test.shape, place.shape, "is_test")
    if (np.diff(place) <= 0).any():
        raise DataError("Images must be distinct and ascending: average repeats first.")
    again = np.zeros_like(is_test) if is_second is None else is_test & is_second
    n_test, n_other = int((is_test & ~again).sum()), int((~is_test).sum())
    if not n_test or n_validation >= n_other:
        raise DataError(
            f"{n_test} shared and {n_other} other images cannot give a test"
            f" set, {n_validation} validation images and a training set: use more "
            "sessions, or lower data.n_validation."
        )
    last = n_other - (fold - 1) * n_validation
    if not n_validation <= last <= n_other:
        raise DataError(
            f"There is no validation fold {fold}: {n_other} images that are not shared "
            f"make folds 1 to {n_other // n_validation} of {n_validation} images; lower"
            " data.validation_fold or data.n_validation."
        )
    split = np.where(is_test, "test", "train").astype("<U10")
    split[again] = "test2"
    split[np.flatnonzero(~is_test)[last - n_validation : last]] = "validation"
    return split


def some_images(parts: npt.NDArray[Any], n_images: int | None) -> Mask:
    """Return which images to keep: `n_images`, spread evenly, or all for None.

    Each part has its share of them, and two at least of those that it has.

    Parameters
    ----------
    parts : (n_images,)
        What an image may be for, in the order of the subject's list.

    Examples
    --------
    >>> some_images(np.array([1, 1, 1, 0, 0, 0, 0, 0, 0]), 6).tolist()
    [True, False, True, True, False, True, True, False, True]
    """
    keep = np.full(len(parts), n_images is None or n_images >= len(parts))
    if keep.all() or n_images is None:
        return keep
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        n = max(round(n_images * len(rows) / len(parts)), min(2, len(rows)))
        keep[rows[evenly(len(rows), n)]] = True
    return keep


def evenly(n_rows: int, n: int) -> IntArray:
    """Return `n` of `n_rows` rows, spread evenly, the first and the last among them.

    >>> evenly(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return np.linspace(0, n_rows - 1, min(n, n_rows)).round().astype(np.int64)


def may_scale(
    image_id: IntArray, test_images: IntArray, known: Mapping[str, npt.NDArray[Any]]
) -> Mask:
    """Return which trials fit a standardisation: those of no held-out image.

    `known` holds `nsd_id` and `split` of the images that are used. Images that are left
    out (`data.n_images`) fit it too, or sessions would have few trials to tell.
    """
    validate = known["nsd_id"][known["split"] == "validation"]
    return ~np.isin(image_id, np.concatenate([test_images, validate]))


def check_splits(nsd_id: IntArray, split: npt.NDArray[np.str_]) -> None:
    """Raise DataError if an image stands in two splits, or twice in one."""
    check_shape(split.shape, nsd_id.shape, "split")
    unknown = set(split.tolist()) - {"train", "validation", *TESTS}
    if unknown:
        raise DataError(
            f"Split {sorted(unknown)[0]!r} is not train, validation, test or test2."
        )
    ids, counts = np.unique(nsd_id, return_counts=True)
    if (counts > 1).any():
        twice = int(ids[counts > 1][0])
        where = ", ".join(sorted(set(split[nsd_id == twice].tolist())))
        raise DataError(
            f"Image nsd_id {twice} stands {int(counts.max())} times ({where}): "
            "average repeats before splitting, and split by image."
        )
