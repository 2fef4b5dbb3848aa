"""Which targets can be decoded: cross-validation on training images, the k % best.

Place in the flow: layer 7.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.decoders.scores import feature_correlation, nanmean
from minddiff_utils.decoders.targets import TargetScaling
from minddiff_utils.decoders.voxel_selected import VoxelSelectedRidge
from minddiff_utils.errors import ConfigError, DataError, check_shape

__all__ = [
    "contiguous_folds",
    "cross_validated_correlation",
    "k_curve",
    "select_best",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]
Fold = tuple[Ints, Ints]


def contiguous_folds(n_images: int, n_folds: int) -> list[Fold]:
    """Return (train_rows, held_out_rows) of folds of neighbouring images.

    >>> [held_out.tolist() for _, held_out in contiguous_folds(5, 2)]
    [[0, 1, 2], [3, 4]]
    """
    if not 2 <= n_folds <= n_images:
        raise ConfigError(
            f"n_folds is {n_folds}, but must be between 2 and the {n_images} images."
        )
    rows = np.arange(n_images)
    return [(np.setdiff1d(rows, part), part) for part in np.array_split(rows, n_folds)]


def _check_folds(folds: Sequence[Fold]) -> Ints:
    """Return all held-out rows, in the order of the folds."""
    if not folds:
        raise DataError("There is no fold: use contiguous_folds.")
    held_out = np.concatenate([held for _, held in folds])
    apart = all(len(np.intersect1d(train, held)) == 0 for train, held in folds)
    if not apart or len(np.unique(held_out)) < len(held_out):
        raise DataError(
            "A fold's held-out images must be in none of its training images and in no "
            "other fold's held-out images: use contiguous_folds."
        )
    return np.asarray(held_out)


def cross_validated_correlation(
    X: Floats, Y: Floats, *, alpha: float, n_feat: int, folds: Sequence[Fold]
) -> Doubles:
    """Return each target's correlation with its out-of-fold predictions.

    Scaling and decoder of a fold see its training rows alone. The predictions of all
    folds are pooled in the targets' own units; a target that cannot be predicted gets
    an r slightly below 0, since a fold's training mean falls as its held-out mean
    rises.

    Parameters
    ----------
    X, Y : (n_images, n_voxels), (n_images, n_targets)
        Training images only.
    alpha, n_feat
        As in `VoxelSelectedRidge`.
    folds : sequence of (train_rows, held_out_rows)
        Held-out rows are disjoint.

    Returns
    -------
    (n_targets,) float64
        NaN where the target or its prediction does not vary.
    """
    check_shape(Y.shape, (len(X), None), "Y")
    held_out = _check_folds(folds)
    Y_hat = np.empty((len(held_out), Y.shape[1]), np.float32)
    start = 0
    for train, held in folds:
        scaling = TargetScaling.fit(Y[train])
        decoder = VoxelSelectedRidge(alpha, n_feat)
        decoder.fit(X[train], scaling.apply(Y[train]))
        stop = start + len(held)
        Y_hat[start:stop] = scaling.invert(decoder.predict(X[held]))
        start = stop
    r = feature_correlation(Y[held_out], Y_hat)
    r[~TargetScaling.fit(Y).varies] = np.nan
    return r


def select_best(r: Floats, k_percent: float) -> Mask:
    """Return which targets are the k % with the largest r, (n_targets,) bool.

    k % of all targets, rounded, at least one; NaN is never selected, so that there may
    be fewer; ties go to the lower index.

    >>> select_best(np.array([0.2, np.nan, 0.5, 0.2]), 50).tolist()
    [True, False, True, False]
    """
    check_shape(r.shape, (None,), "r")
    if not 0 < k_percent <= 100:
        raise ConfigError(f"k_percent is {k_percent}, but must be in (0, 100].")
    n_finite = int(np.count_nonzero(np.isfinite(r)))
    if n_finite == 0:
        raise DataError("No target has a correlation, so none can be selected.")
    n_selected = min(n_finite, max(1, round(k_percent / 100 * len(r))))
    best = np.argsort(-r, kind="stable")[:n_selected]  # NaN comes last
    mask = np.zeros(len(r), bool)
    mask[best] = True
    return mask


def k_curve(
    r_cv: Floats, r_test: Floats, variance: Floats, k_grid: Sequence[float]
) -> pd.DataFrame:
    """Return what is gained and lost when only the k % best targets are kept.

    Targets are ranked by `r_cv` alone, which training images gave; `r_test` is only
    averaged.

    Parameters
    ----------
    r_cv, r_test : (n_targets,)
        Cross-validated and test correlation; NaN is left out of means.
    variance : (n_targets,)
        Training variance of the targets, 0 for those that do not vary.
    k_grid : sequence of float
        Percentages.

    Returns
    -------
    DataFrame
        k_percent, n_selected, r_cv_selected_mean, r_selected_mean (test) and
        variance_kept, the selected targets' share of the variance of all.
    """
    n_targets = len(r_cv)
    check_shape(r_test.shape, (n_targets,), "r_test")
    check_shape(variance.shape, (n_targets,), "variance")
    total = float(variance.sum(dtype=np.float64))
    if not (np.isfinite(total) and total > 0 and variance.min() >= 0):
        raise DataError("Variances must be 0 or more, finite, and not all 0.")
    rows = []
    for k_percent in k_grid:
        best = select_best(r_cv, k_percent)
        row = {
            "k_percent": float(k_percent),
            "n_selected": int(np.count_nonzero(best)),
            "r_cv_selected_mean": nanmean(r_cv[best]),
            "r_selected_mean": nanmean(r_test[best]),
            "variance_kept": float(variance[best].sum(dtype=np.float64)) / total,
        }
        rows.append(row)
    return pd.DataFrame(rows)
