"""Do decoded features collapse to few dimensions? Effective rank and category hold-out.

Predictions that vary along fewer directions than the truth cannot tell apart what the
missing directions tell apart, above all for images unlike those of the training set.
These functions measure that; they do not fit anything. Place in the flow: layer 7.

References
----------
arXiv 2509.15832, on output-dimension collapse in reconstruction from brain activity.
"""

from collections.abc import Collection, Hashable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import (
    ConfigError,
    DataError,
    check_choice,
    check_finite,
    check_shape,
)

__all__ = [
    "category_holdout",
    "effective_rank",
    "rank_ratio",
    "variance_explained",
    "variance_spectrum",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Measure = Literal["participation", "entropy"]

#: Targets multiplied at once (64 MB of float64 for 1,000 images).
_BLOCK = 8192


def variance_spectrum(Y: Floats) -> Doubles:
    """Return the eigenvalues of the covariance of Y over images, descending.

    Parameters
    ----------
    Y : (n_images, n_targets)
        Features, in any units that suit their comparison.

    Returns
    -------
    (min(n_images, n_targets),) float64
        Non-negative; their sum is the total variance (divisor n_images - 1). With
        fewer images than targets they come from the products between images.

    Raises
    ------
    DataError
        Fewer than 2 images, no target, NaN or infinite values, or nothing varies.
    """
    check_shape(Y.shape, (None, None), "Y")
    n_images, n_targets = Y.shape
    if n_images < 2 or n_targets < 1:
        raise DataError(
            f"Y is {Y.shape}, but a spectrum needs 2 images and 1 target or more."
        )
    check_finite(bool(np.isfinite(Y).all()), "Y")
    if not np.any(np.ptp(Y, axis=0) > 0):
        raise DataError("No target varies over the images: there is nothing to rank.")
    if n_targets < n_images:
        centred = _centred(Y)
        product = centred.T @ centred
    else:
        product = np.zeros((n_images, n_images))
        for start in range(0, n_targets, _BLOCK):
            centred = _centred(Y[:, start : start + _BLOCK])
            product += centred @ centred.T
    values = np.linalg.eigvalsh(product)[::-1] / (n_images - 1)
    return np.asarray(np.maximum(values, 0))  # rounding may leave -1e-17


def _centred(Y: Floats) -> Doubles:
    centred = Y.astype(np.float64)
    centred -= centred.mean(axis=0)
    centred[:, np.ptp(Y, axis=0) == 0] = 0
    return centred


def effective_rank(Y: Floats, measure: Measure = "participation") -> float:
    """Return along how many directions features vary.

    With the covariance eigenvalues v: "participation" is the participation ratio
    (sum v)^2 / sum v^2; "entropy" is exp(-sum p log p) with p = v / sum v. Both are k
    for k equal directions and need no threshold. The first is the default: it follows
    the strong directions; the second is never below it and counts weak directions more,
    on few images their noise too.

    Parameters
    ----------
    Y : (n_images, n_targets)
        At most n_images - 1 directions can be seen, and both measures depend on the
        targets' units: compare only features of the same images in the same units.
    measure : {"participation", "entropy"}

    Returns
    -------
    float
        At least 1, at most min(n_images - 1, n_targets).

    Raises
    ------
    ConfigError
        Unknown measure.
    DataError
        As `variance_spectrum`.

    References
    ----------
    Roy and Vetterli (2007), The effective rank: a measure of effective dimensionality,
    EUSIPCO, with eigenvalues of the covariance for singular values.

    Examples
    --------
    >>> Y = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(effective_rank(Y), 6)
    2.0
    """
    check_choice(measure, ("participation", "entropy"), "measure")
    spectrum = variance_spectrum(Y)
    share = spectrum / spectrum.sum()
    if measure == "participation":
        return float(1 / np.sum(share**2))
    positive = share[share > 0]
    return float(np.exp(-np.sum(positive * np.log(positive))))


def rank_ratio(
    Y_true: Floats, Y_hat: Floats, measure: Measure = "participation"
) -> float:
    """Return the effective rank of predictions as a part of that of the truth.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        The same images and targets in the same units.
    measure : {"participation", "entropy"}

    Returns
    -------
    float
        1 where predictions vary along as many directions as the truth, near 0 where
        they collapsed. Noise in predictions raises it: read it beside the correlation.

    Raises
    ------
    DataError
        Shapes differ, or as `variance_spectrum`.
    """
    check_shape(Y_hat.shape, Y_true.shape, "Y_hat")
    return effective_rank(Y_hat, measure) / effective_rank(Y_true, measure)


def variance_explained(Y: Floats, n_directions: int) -> Doubles:
    """Return the share of variance in the first 1, 2, ... leading directions of Y.

    Parameters
    ----------
    Y : (n_images, n_targets)
    n_directions : int
        From 1 to min(n_images, n_targets).

    Returns
    -------
    (n_directions,) float64
        Cumulative, ascending, at most 1.

    Raises
    ------
    ConfigError
        n_directions is out of range.
    DataError
        As `variance_spectrum`.
    """
    spectrum = variance_spectrum(Y)
    if not 1 <= n_directions <= len(spectrum):
        raise ConfigError(
            f"n_directions is {n_directions}, but must be from 1 to {len(spectrum)}."
        )
    share = np.cumsum(spectrum)[:n_directions] / spectrum.sum()
    return np.asarray(np.minimum(share, 1))


def category_holdout(
    labels: Sequence[Collection[Hashable]], held_out_categories: Collection[Hashable]
) -> tuple[Rows, Rows]:
    """Split images so that held-out images show only categories never trained on.

    An image is held out if all its categories are held-out ones, trained on if none is,
    and dropped if it mixes both or shows none: an image without labels may show
    anything.

    Parameters
    ----------
    labels : sequence of collections, one for each image
        Object categories in each image.
    held_out_categories : collection
        Categories to hold out; each must occur.

    Returns
    -------
    train, held_out : (n,) int64
        Rows of the images, ascending; those dropped are in neither.

    Raises
    ------
    ConfigError
        No category to hold out, or one that no image shows.
    DataError
        No image is left on one side.

    Examples
    --------
    >>> category_holdout([{"cat"}, {"dog"}, {"cat", "dog"}], {"dog"})
    (array([0]), array([1]))
    """
    wanted = _as_set(held_out_categories, "held_out_categories")
    shown = [_as_set(one, "labels") for one in labels]
    absent = wanted.difference(*shown) if shown else wanted
    if not wanted or absent:
        names = ", ".join(sorted(map(str, absent))) or "none"
        raise ConfigError(
            f"held_out_categories that no image shows: {names}; name one or more of "
            "the categories in labels."
        )
    held = np.array([bool(one) and one <= wanted for one in shown])
    train = np.array([bool(one) and not one & wanted for one in shown])
    if not (held.any() and train.any()):
        side = "held-out" if train.any() else "training"
        raise DataError(
            f"Holding out {len(wanted)} categories leaves no {side} image: hold out "
            "other categories."
        )
    return np.flatnonzero(train), np.flatnonzero(held)


def _as_set(categories: Collection[Hashable], name: str) -> frozenset[Hashable]:
    if isinstance(categories, str):  # would be split into letters
        raise ConfigError(f"{name} holds the text {categories!r}: pass a set of names.")
    return frozenset(categories)
