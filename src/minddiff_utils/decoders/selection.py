"""Which targets can be decoded: cross-validation on training images, the k % best.

Place in the flow: layer 7.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, clone

from minddiff_utils.decoders.scores import feature_correlation, nanmean
from minddiff_utils.decoders.targets import TargetScaling
from minddiff_utils.errors import ConfigError, DataError, check_shape

__all__ = [
    "choose_by_correlation",
    "choose_k",
    "contiguous_folds",
    "cross_validated_correlation",
    "cross_validated_predictions",
    "identification_accuracy",
    "k_curve",
    "pooled_correlation",
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


def _out_of_fold(
    X: Floats, Y: Floats, decoder: BaseEstimator, folds: Sequence[Fold]
) -> Iterator[tuple[Ints, Floats]]:
    """Yield the held-out rows of each fold and their predictions, in Y's own units."""
    for train, held in folds:
        scaling = TargetScaling.fit(Y[train])
        fitted = clone(decoder).fit(X[train], scaling.apply(Y[train]))
        yield held, scaling.invert(fitted.predict(X[held]).astype(np.float32))


def cross_validated_predictions(
    X: Floats, Y: Floats, *, decoder: BaseEstimator, folds: Sequence[Fold]
) -> Floats:
    """Return what a decoder that never saw an image predicts for it.

    Scaling and decoder of a fold see its training rows alone; whatever the decoder
    chooses by itself (voxels, alpha) it chooses on them.

    Parameters
    ----------
    X, Y : (n_images, n_voxels), (n_images, n_targets)
        Training images only.
    decoder : scikit-learn estimator
        Not fitted; a clone is fitted per fold.
    folds : sequence of (train_rows, held_out_rows)
        Held-out rows are disjoint.

    Returns
    -------
    (n_images, n_targets) float32
        In the targets' own units; NaN in rows that no fold holds out.

    Raises
    ------
    DataError
        No fold, a fold holds out its own training rows, or what the decoder raises.
    """
    check_shape(Y.shape, (len(X), None), "Y")
    _check_folds(folds)
    Y_hat = np.full(Y.shape, np.nan, np.float32)
    for held, predicted in _out_of_fold(X, Y, decoder, folds):
        Y_hat[held] = predicted
    return Y_hat


def cross_validated_correlation(
    X: Floats, Y: Floats, *, decoder: BaseEstimator, folds: Sequence[Fold]
) -> Doubles:
    """Return each target's correlation with its out-of-fold predictions.

    The predictions of all folds are pooled in the targets' own units; a target that
    cannot be predicted gets an r slightly below 0, since a fold's training mean falls
    as its held-out mean rises.

    Parameters
    ----------
    X, Y, decoder, folds
        As in `cross_validated_predictions`.

    Returns
    -------
    (n_targets,) float64
        NaN where the target or its prediction does not vary.
    """
    Y_hat = cross_validated_predictions(X, Y, decoder=decoder, folds=folds)
    return pooled_correlation(Y, Y_hat, folds)


def pooled_correlation(Y: Floats, Y_hat: Floats, folds: Sequence[Fold]) -> Doubles:
    """Return each target's correlation over the held-out rows of all folds.

    NaN where the target does not vary over training images, whatever rounding says.
    """
    held_out = _check_folds(folds)
    r = feature_correlation(Y[held_out], Y_hat[held_out])
    r[~TargetScaling.fit(Y).varies] = np.nan
    return r


def choose_by_correlation(
    X: Floats,
    Y: Floats,
    *,
    candidates: Mapping[str, BaseEstimator],
    folds: Sequence[Fold],
) -> pd.DataFrame:
    """Compare decoders by their mean cross-validated correlation, the best one first.

    The grid of alpha and n_feat, for one, is a mapping of names to estimators.

    Parameters
    ----------
    X, Y, folds
        As in `cross_validated_predictions`; training images only.
    candidates : mapping of str to estimator
        What to compare, by name.

    Returns
    -------
    DataFrame
        candidate, r_cv_mean, n_targets; of equal ones the earlier comes first.

    Raises
    ------
    ConfigError
        There is no candidate.
    """
    if not candidates:
        raise ConfigError("There is no decoder to choose from: name at least one.")
    rows = []
    for name, decoder in candidates.items():
        r = cross_validated_correlation(X, Y, decoder=decoder, folds=folds)
        n_targets = int(np.isfinite(r).sum())
        rows.append(
            {"candidate": name, "r_cv_mean": nanmean(r), "n_targets": n_targets}
        )
    table = pd.DataFrame(rows)
    return table.sort_values("r_cv_mean", ascending=False, kind="stable").reset_index(
        drop=True
    )


# --- which share of the targets -------------------------------------------------------


def identification_accuracy(Y_true: Floats, Y_hat: Floats) -> float:
    """Return how often the decoded pattern is nearer to its own image's than another's.

    For each image, the share of other images whose true pattern correlates less with
    the decoded one than its own does, a tie counting half; the mean over images. Chance
    is .5. Targets are standardised over the images first, so that each counts the same.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        Targets that do not vary in either are left out.

    Raises
    ------
    DataError
        Fewer than 2 images, or no target varies.
    """
    check_shape(Y_hat.shape, Y_true.shape, "Y_hat")
    spread, spread_hat = Y_true.std(axis=0), Y_hat.std(axis=0)
    keep = (spread > 0) & (spread_hat > 0)
    if len(Y_true) < 2 or not keep.any():
        raise DataError(
            f"Identification needs 2 images or more and a target that varies, not"
            f" {len(Y_true)} images and {int(keep.sum())} such targets."
        )
    truth, decoded = (
        _unit_rows((Y[:, keep] - Y[:, keep].mean(axis=0)) / s[keep])
        for Y, s in ((Y_true, spread), (Y_hat, spread_hat))
    )
    similarity = decoded @ truth.T  # (decoded image, true image)
    own = np.diag(similarity)[:, None]
    wins = (similarity < own).sum(axis=1) + ((similarity == own).sum(axis=1) - 1) / 2
    return float(wins.mean() / (len(Y_true) - 1))


def _unit_rows(Y: Floats) -> Floats:
    centred = Y - Y.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(norm > 0, norm, 1))


def choose_k(
    Y: Floats, Y_hat: Floats, *, folds: Sequence[Fold], k_grid: Sequence[float]
) -> pd.DataFrame:
    """Compare shares of targets by identification on images that did not rank them.

    For each fold the targets are ranked by the correlation over the other folds' images
    and the k % best identify the fold's own images. Few targets carry little
    information, many carry noise: the best k lies between.

    Parameters
    ----------
    Y : (n_images, n_targets)
        Training targets.
    Y_hat : (n_images, n_targets)
        Their `cross_validated_predictions`.
    folds : sequence of (train_rows, held_out_rows)
        Those of `Y_hat`, 2 or more.
    k_grid : sequence of float
        Percentages.

    Returns
    -------
    DataFrame
        k_percent, n_selected, identification (mean over folds) and chosen: the highest,
        of equal ones the smallest k.

    Raises
    ------
    ConfigError
        No k, or one outside (0, 100].
    DataError
        One fold only, or no target has a correlation.
    """
    if len(folds) < 2 or not k_grid:
        raise ConfigError("Choosing k needs 2 folds or more and at least one k.")
    grid = sorted(k_grid)
    scores = np.zeros((len(folds), len(grid)))
    n_selected = np.zeros(len(grid), np.int64)
    for row, (_, held) in enumerate(folds):
        others = [fold for other, fold in enumerate(folds) if other != row]
        ranking = pooled_correlation(Y, Y_hat, others)
        for column, k_percent in enumerate(grid):
            best = select_best(ranking, k_percent)
            pair = (Y[held][:, best], Y_hat[held][:, best])
            scores[row, column] = identification_accuracy(*pair)
            n_selected[column] = best.sum()
    table = pd.DataFrame(
        {
            "k_percent": np.array(grid, dtype=np.float64),
            "n_selected": n_selected,
            "identification": scores.mean(axis=0),
        }
    )
    return table.assign(chosen=table.index == table["identification"].argmax())


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
