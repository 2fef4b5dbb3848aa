"""Which targets can be decoded: cross-validation on training images, the k % best.

Place in the flow: layer 7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator

from minddiff_utils.core.errors import ConfigError, DataError, check_shape
from minddiff_utils.decoding.grouped import fit_into, group_features
from minddiff_utils.decoding.scores import feature_correlation, nanmean
from minddiff_utils.decoding.targets import (
    ScaledTargets,
    SideBySide,
    SomeImages,
    TargetScaling,
    TargetSource,
)

__all__ = [
    "choose_by_correlation",
    "choose_each_by_correlation",
    "choose_k",
    "contiguous_folds",
    "cross_validated_correlation",
    "cross_validated_features",
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


@dataclass(frozen=True)
class _OwnUnits:
    """Takes standardised predictions of some images, keeps them in the own units."""

    Y_hat: Floats  # (n_images, n_targets), what is kept
    rows: Ints  # (n_some,), the images that are predicted
    scaling: TargetScaling

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n_some, n_targets)."""
        return len(self.rows), self.Y_hat.shape[1]

    def __setitem__(self, key: tuple[slice, slice], values: Floats, /) -> None:
        """Take the predictions of a block of targets."""
        rows, columns = key
        own = self.scaling[columns].invert(values.astype(np.float32))
        self.Y_hat[self.rows[rows], columns] = own


def cross_validated_features(
    X: Floats,
    Y: Mapping[str, TargetSource],
    *,
    decoders: Mapping[str, BaseEstimator],
    folds: Sequence[Fold],
) -> dict[str, Floats]:
    """Return what decoders that never saw an image predict for it, by feature.

    Scaling and decoder of a fold see its training rows alone; whatever the decoder
    chooses by itself (voxels, alpha) it chooses on them. Features whose decoders are
    equal are fitted at once (`fit_features`), one fit per fold.

    Parameters
    ----------
    X, Y : (n_images, n_voxels), mapping of (n_images, n_targets)
        Training images only; targets are read by blocks.
    decoders : mapping of scikit-learn estimators
        One for each feature, not fitted; clones are fitted.
    folds : sequence of (train_rows, held_out_rows)
        Held-out rows are disjoint.

    Returns
    -------
    dict of (n_images, n_targets) float32
        In the targets' own units; NaN in rows that no fold holds out. Features that
        were fitted at once are columns of one array.

    Raises
    ------
    DataError
        No fold, a fold holds out its own training rows, or what the decoder raises.
    """
    _check_folds(folds)
    found: dict[str, Floats] = {}
    for group in group_features(decoders):
        joined = SideBySide({name: Y[name] for name in group})
        check_shape(joined.shape, (len(X), None), "Y")
        Y_hat = np.full(joined.shape, np.nan, np.float32)
        for train, held in folds:
            parts = {name: SomeImages(Y[name], train) for name in group}
            scalings = {name: TargetScaling.fit(part) for name, part in parts.items()}
            scaled = {n: ScaledTargets(parts[n], scalings[n]) for n in group}
            kept = _OwnUnits(Y_hat, held, TargetScaling.joined(scalings.values()))
            fit_into(decoders[group[0]], X[train], SideBySide(scaled), X[held], kept)
        found |= {name: Y_hat[:, own] for name, own in joined.columns.items()}
    return {name: found[name] for name in decoders}


def cross_validated_predictions(
    X: Floats, Y: TargetSource, *, decoder: BaseEstimator, folds: Sequence[Fold]
) -> Floats:
    """Return what a decoder that never saw an image predicts for it.

    `cross_validated_features` of one feature, which says more.

    Returns
    -------
    (n_images, n_targets) float32
        In the targets' own units; NaN in rows that no fold holds out.
    """
    decoders = {"Y": decoder}
    return cross_validated_features(X, {"Y": Y}, decoders=decoders, folds=folds)["Y"]


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
    return _pooled(Y, Y_hat, _check_folds(folds), TargetScaling.fit(Y).varies)


def _pooled(Y: Floats, Y_hat: Floats, rows: Ints, varies: Mask) -> Doubles:
    """Return each target's correlation over some rows, NaN where it does not vary."""
    r = feature_correlation(Y[rows], Y_hat[rows])
    r[~varies] = np.nan
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
    each = {name: {"Y": decoder} for name, decoder in candidates.items()}
    return choose_each_by_correlation(X, {"Y": Y}, candidates=each, folds=folds)["Y"]


def choose_each_by_correlation(
    X: Floats,
    Y: Mapping[str, Floats],
    *,
    candidates: Mapping[str, Mapping[str, BaseEstimator]],
    folds: Sequence[Fold],
) -> dict[str, pd.DataFrame]:
    """Compare decoders by their mean cross-validated correlation, feature by feature.

    Parameters
    ----------
    X, Y, folds
        As in `cross_validated_features`; training images only.
    candidates : mapping of mapping of estimators
        Candidate's name to feature to decoder. Of one candidate, features with equal
        decoders are fitted at once.

    Returns
    -------
    dict of DataFrame
        By feature, as `choose_by_correlation`.

    Raises
    ------
    ConfigError
        There is no candidate.
    """
    if not candidates:
        raise ConfigError("There is no decoder to choose from: name at least one.")
    rows: dict[str, list[dict[str, Any]]] = {feature: [] for feature in Y}
    for name, decoders in candidates.items():
        Y_hat = cross_validated_features(X, Y, decoders=decoders, folds=folds)
        for feature, found in rows.items():
            r = pooled_correlation(Y[feature], Y_hat[feature], folds)
            n_targets = int(np.isfinite(r).sum())
            found.append(
                {"candidate": name, "r_cv_mean": nanmean(r), "n_targets": n_targets}
            )
    return {
        feature: pd.DataFrame(found)
        .sort_values("r_cv_mean", ascending=False, kind="stable")
        .reset_index(drop=True)
        for feature, found in rows.items()
    }


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
    truth, decoded, varies = _standardised_pair(Y_true, Y_hat)
    return _identified(truth[:, varies], decoded[:, varies])


def _standardised_pair(Y_true: Floats, Y_hat: Floats) -> tuple[Floats, Floats, Mask]:
    """Return both standardised over their images, and which targets vary in both."""
    pair = []
    varies = np.ones(Y_true.shape[1], bool)
    for Y in (Y_true, Y_hat):
        spread = Y.std(axis=0)
        varies &= spread > 0
        pair.append((Y - Y.mean(axis=0)) / np.where(spread > 0, spread, 1))
    return pair[0], pair[1], varies


def _identified(truth: Floats, decoded: Floats) -> float:
    """Return the accuracy of identification by standardised targets that vary."""
    products = _RowProducts(len(truth))
    products.add(truth, decoded)
    return products.identified()


class _RowProducts:
    """Correlations of decoded with true images over targets that come in portions.

    Sets of targets that grow with k share most of their products: each target enters
    once. Sums are those of Pearson's r over the targets of a row.
    """

    def __init__(self, n_images: int) -> None:
        self._n_targets = 0
        self._cross = np.zeros((n_images, n_images))  # (decoded, true image)
        self._sums = np.zeros((2, n_images))  # of true and decoded rows
        self._squares = np.zeros((2, n_images))

    def add(self, truth: Floats, decoded: Floats) -> None:
        """Take more targets, (n_images, n_new)."""
        self._n_targets += truth.shape[1]
        self._cross += decoded @ truth.T
        for row, Y in enumerate((truth, decoded)):
            self._sums[row] += Y.sum(axis=1, dtype=np.float64)
            self._squares[row] += np.einsum("ij,ij->i", Y, Y, dtype=np.float64)

    def identified(self) -> float:
        """Return how often an image is nearer to its own truth than to another's."""
        n_images = len(self._cross)
        if n_images < 2 or self._n_targets == 0:
            raise DataError(
                f"Identification needs 2 images or more and a target that varies, not"
                f" {n_images} images and {self._n_targets} such targets."
            )
        true_sum, decoded_sum = self._sums / np.sqrt(self._n_targets)
        norm = np.sqrt(np.clip(self._squares - [true_sum**2, decoded_sum**2], 0, None))
        true_norm, decoded_norm = np.where(norm > 0, norm, 1)
        covariance = self._cross - np.outer(decoded_sum, true_sum)
        similarity = covariance / np.outer(decoded_norm, true_norm)
        similarity = similarity.round(12)  # a tie stays one, whatever the rounding
        own = np.diag(similarity)[:, None]
        less, same = similarity < own, similarity == own
        wins = less.sum(axis=1) + (same.sum(axis=1) - 1) / 2
        return float(wins.mean() / (n_images - 1))


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
    _check_folds(folds)
    can_vary = TargetScaling.fit(Y).varies
    for row, (_, held) in enumerate(folds):
        others = [rows for other, (_, rows) in enumerate(folds) if other != row]
        ranking = _pooled(Y, Y_hat, np.concatenate(others), can_vary)
        truth, decoded, varies = _standardised_pair(Y[held], Y_hat[held])
        products = _RowProducts(len(held))
        seen = np.zeros(len(varies), bool)
        for column, k_percent in enumerate(grid):
            best = select_best(ranking, k_percent)  # holds the ones of smaller k
            new = best & varies & ~seen
            seen |= best
            products.add(truth[:, new], decoded[:, new])
            scores[row, column] = products.identified()
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
