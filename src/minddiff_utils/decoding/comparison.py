"""Which decoder to trust: all side by side, and on categories never trained on.

Does a sparse choice of voxels per target read more than a dense ridge, and do
predictions collapse onto few directions? Not here: the decoders, and the features that
go on to stages 1 and 2 (`readout`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator

from minddiff_utils.core.config import DecodingConfig
from minddiff_utils.core.errors import ConfigError, DataError, check_shape
from minddiff_utils.core.resampling import Interval
from minddiff_utils.decoding import (
    BandedRidge,
    DenseRidge,
    ScaledTargets,
    SomeImages,
    TargetScaling,
    TargetSource,
    VoxelSelectedRidge,
    category_holdout,
    choose_each_by_correlation,
    contiguous_folds,
    default_alphas,
    effective_rank,
    feature_correlation,
    fit_features,
    noise_ceiling_r,
)
from minddiff_utils.decoding.readout import VoxelData, make_decoder

__all__ = [
    "Holdout",
    "all_decoders",
    "bootstrap_mean_r",
    "compare_decoders",
    "compare_on_holdout",
    "some_targets",
    "split_by_category",
]

Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


# --- intervals ------------------------------------------------------------------------


def bootstrap_mean_r(
    Y_true: Matrix,
    Y_hat: Matrix,
    *,
    n_bootstrap: int,
    confidence: float,
    rng: np.random.Generator,
) -> Interval:
    """Return the mean over targets of Pearson's r, with a bootstrap over images.

    Every resample of images recomputes all correlations, from weighted sums: one
    product per sum serves all resamples.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        True and decoded features; targets where either does not vary are left out.
    n_bootstrap : int
        Resamples of the images.
    confidence : float
        Of the interval, in (0, 1).
    rng : Generator
        Draws the resamples.

    Raises
    ------
    ConfigError
        confidence is out of range.
    DataError
        As `feature_correlation`, or no target varies.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}, but must be between 0 and 1.")
    r = feature_correlation(Y_true, Y_hat)
    keep = np.isfinite(r)
    if not keep.any():
        raise DataError("No target varies in truth and prediction: nothing to compare.")
    n = len(Y_true)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(np.float64)
    means = _weighted_mean_r(
        _standard(Y_true[:, keep]), _standard(Y_hat[:, keep]), counts
    )
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(means, (tail, 1 - tail))
    return Interval(float(r[keep].mean()), float(low), float(high), n)


def _standard(Y: Matrix) -> npt.NDArray[np.float64]:
    centred = Y.astype(np.float64)
    centred -= centred.mean(axis=0)
    return np.asarray(centred / centred.std(axis=0))


def _weighted_mean_r(
    U: npt.NDArray[np.float64],
    V: npt.NDArray[np.float64],
    counts: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the mean r of each row of counts (n_bootstrap, n_images)."""
    n = counts.sum(axis=1, keepdims=True)
    mean_u, mean_v = counts @ U / n, counts @ V / n
    cross = counts @ (U * V) / n - mean_u * mean_v
    var_u, var_v = counts @ U**2 / n - mean_u**2, counts @ V**2 / n - mean_v**2
    varies = (var_u > 1e-12) & (var_v > 1e-12)  # one image drawn n times has no r
    r = np.where(varies, cross / np.sqrt(np.where(varies, var_u * var_v, 1)), np.nan)
    return np.asarray(np.nanmean(r, axis=1))


# --- side by side ---------------------------------------------------------------------


def some_targets(
    features: Mapping[str, Matrix], n: int, *, rng: np.random.Generator
) -> dict[str, Rows]:
    """Return up to `n` targets of each feature that vary, drawn at random, ascending.

    Parameters
    ----------
    features : mapping of (n_images, n_targets)
        Training targets by name.
    n : int
        Targets per feature.
    rng : Generator
        Draws them.
    """
    chosen = {}
    for name, Y in features.items():
        varying = np.flatnonzero(TargetScaling.fit(Y).varies)
        chosen[name] = np.sort(rng.permutation(varying)[:n])
    return chosen


#: Penalties from which the voxel-selected ridge may choose, and factors on n_feat.
_ALPHAS = (0.15, 10.0, 100.0, 1000.0)
_FACTORS = (1.0, 3.0)


def all_decoders(
    X_train: Matrix,
    Y_train: Mapping[str, Matrix],
    config: DecodingConfig,
    *,
    bands: npt.NDArray[np.integer[Any]],
) -> dict[str, dict[str, BaseEstimator]]:
    """Return every decoder that is compared, by name and feature, not fitted.

    The paper's own; the same selection with alpha and n_feat chosen for each feature by
    cross-validation; ridge on all voxels with a penalty for each target; the same with
    the balance of two voxel groups chosen too, among four ratios; and banded ridge by
    random search (himalaya).

    Parameters
    ----------
    X_train, Y_train : (n_images, n_voxels), mapping of (n_images, n_targets)
        Training images of one subject: all choices are made on them.
    config : DecodingConfig
        alpha, n_feat and folds.
    bands : (n_voxels,) int
        Group of each voxel, such as LVC and HVC.
    """
    paper = {name: make_decoder(name, config, "voxel_selected") for name in Y_train}
    banded = BandedRidge(
        bands, alphas=_coarse(X_train), n_samples=4, n_folds=config.n_folds
    )
    return {
        "voxel-selected (paper)": paper,
        "voxel-selected, tuned": _tuned(X_train, Y_train, paper, config.n_folds),
        "dense": {name: DenseRidge() for name in Y_train},
        "dense, two bands": {name: DenseRidge(bands=bands) for name in Y_train},
        "banded (himalaya)": dict.fromkeys(Y_train, banded),
    }


def _coarse(X: Matrix) -> npt.NDArray[np.float64]:
    """Return one penalty per decade: the random search is dear, and shares scale it."""
    trace = float(np.square(X - X.mean(axis=0), dtype=np.float64).sum())
    return default_alphas(trace, X.shape)[::4]


def _tuned(
    X: Matrix,
    Y: Mapping[str, Matrix],
    paper: Mapping[str, BaseEstimator],
    n_folds: int,
) -> dict[str, BaseEstimator]:
    """Return the voxel-selected ridge with each feature's best alpha and n_feat."""
    n_feat = {name: paper[name].get_params()["n_feat"] for name in Y}
    candidates: dict[str, dict[str, BaseEstimator]] = {
        f"alpha {alpha:g}, {factor:g} n_feat": {
            name: VoxelSelectedRidge(alpha=alpha, n_feat=round(factor * n_feat[name]))
            for name in Y
        }
        for alpha in _ALPHAS
        for factor in _FACTORS
    }
    folds = contiguous_folds(len(X), n_folds)
    tables = choose_each_by_correlation(X, Y, candidates=candidates, folds=folds)
    return {
        name: candidates[str(table["candidate"].iloc[0])][name]
        for name, table in tables.items()
    }


@dataclass(frozen=True)
class _Intervals:
    """How the intervals of a table are drawn, the same for all its rows."""

    n_bootstrap: int
    confidence: float
    seed: int

    def score(self, truth: Matrix, Y_hat: Matrix) -> dict[str, Any]:
        """Return accuracy with interval and the ranks, of standardised targets."""
        r = bootstrap_mean_r(
            truth,
            Y_hat,
            n_bootstrap=self.n_bootstrap,
            confidence=self.confidence,
            rng=np.random.default_rng(self.seed),
        )
        rank, rank_true = effective_rank(Y_hat), effective_rank(truth)
        return {
            "r_mean": r.value,
            "r_low": r.low,
            "r_high": r.high,
            "confidence": self.confidence,
            "rank": rank,
            "rank_true": rank_true,
            "rank_share": rank / rank_true,
            "n_images": r.n,
            "n_targets": int(np.isfinite(feature_correlation(truth, Y_hat)).sum()),
        }


def _fitted(
    X: Matrix, Y: Mapping[str, TargetSource], decoders: Mapping[str, BaseEstimator]
) -> tuple[dict[str, TargetScaling], dict[str, BaseEstimator]]:
    """Return the scaling and the fitted decoder of each feature that has a decoder."""
    scalings = {name: TargetScaling.fit(Y[name]) for name in decoders}
    scaled = {name: ScaledTargets(Y[name], scalings[name]) for name in decoders}
    return scalings, fit_features(X, scaled, decoders)


def compare_decoders(
    data: VoxelData,
    Y_train: Mapping[str, Matrix],
    Y_test: Mapping[str, Matrix],
    decoders: Mapping[str, Mapping[str, BaseEstimator]],
    *,
    n_bootstrap: int,
    confidence: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Fit every decoder to every feature and score it on the test images.

    Parameters
    ----------
    data : VoxelData
        Responses of one subject.
    Y_train, Y_test : mapping of (n_images, n_targets)
        Features by name.
    decoders : mapping of mapping of estimators
        Decoder's name to feature to an unfitted estimator; all choices that it makes
        it makes on training images.
    n_bootstrap : int
        Resamples of test images behind each interval.
    confidence : float
        Of each interval.
    rng : Generator
        Draws the resamples, the same for all decoders and features.

    Returns
    -------
    DataFrame
        decoder, feature, r_mean, r_low, r_high, confidence, rank, rank_true,
        rank_share, n_images, n_targets, r_ceiling.
    """
    rows = []
    intervals = _Intervals(n_bootstrap, confidence, int(rng.integers(2**63)))
    for name, by_feature in decoders.items():
        scalings, fitted = _fitted(data.X_train, Y_train, by_feature)
        for feature, own in fitted.items():
            Y_hat = own.predict(data.X_test).astype(np.float32)
            ceiling = noise_ceiling_r(own, Y_hat, data.ncsnr, data.n_repeats_test)
            score = intervals.score(scalings[feature].apply(Y_test[feature]), Y_hat)
            rows.append(
                {"decoder": name, "feature": feature, **score}
                | {"r_ceiling": float(np.nanmean(ceiling))}
            )
    return pd.DataFrame(rows)


# --- categories that were never trained on --------------------------------------------


@dataclass(frozen=True)
class Holdout:
    """Training rows under two conditions, and the rows that both are scored on.

    Attributes
    ----------
    categories : tuple of str
        Those held out.
    other, same : (n_train,) int64
        Rows of images without any of these categories; and as many rows drawn from
        these and from other images of the held-out categories.
    held_out : (n_images,) int64
        Rows that are scored; in neither of the two.
    """

    categories: tuple[str, ...]
    other: Rows
    same: Rows
    held_out: Rows


def split_by_category(
    labels: Sequence[frozenset[str]], *, share: float, rng: np.random.Generator
) -> Holdout:
    """Hold out a share of the categories, all their images with them.

    Half of the images of held-out categories are scored. The other half goes into the
    training rows of the control condition, which are as many as those of the hold-out.

    Parameters
    ----------
    labels : sequence of sets of str
        Categories of each training image; images without any are left out.
    share : float
        Of the categories, in (0, 1).
    rng : Generator
        Draws categories and halves.

    Raises
    ------
    DataError
        Too few categories or images to hold any out.
    """
    known = sorted(frozenset().union(*labels))
    n_held = round(share * len(known))
    if not 1 <= n_held < len(known):
        raise DataError(
            f"{share:g} of {len(known)} categories cannot be held out: at least one"
            " category must be held out and one must stay."
        )
    chosen = tuple(sorted(rng.permutation(known)[:n_held].tolist()))
    other, held = category_holdout(labels, chosen)
    order = rng.permutation(held)
    scored, kept = np.sort(order[: len(order) // 2]), order[len(order) // 2 :]
    if len(scored) < 2 or len(other) < 2:
        raise DataError(
            f"Holding out {n_held} categories leaves {len(other)} training images and"
            f" {len(scored)} to score: use more sessions."
        )
    rest = rng.permutation(other)[: max(0, len(other) - len(kept))]
    same = np.sort(np.concatenate([kept, rest]))[: len(other)]
    return Holdout(chosen, np.sort(other), same, scored)


def compare_on_holdout(
    X: Matrix,
    Y: Mapping[str, Matrix],
    decoders: Mapping[str, Mapping[str, BaseEstimator]],
    holdout: Holdout,
    *,
    n_bootstrap: int,
    confidence: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Score decoders on held-out categories, trained with and without them.

    Parameters
    ----------
    X, Y : (n_images, n_voxels), mapping of (n_images, n_targets)
        Training images of one subject; test images take no part.
    decoders : mapping of mapping of estimators
        As in `compare_decoders`.
    holdout : Holdout
        From `split_by_category`, on the same rows.
    n_bootstrap : int
        Resamples of images behind each interval.
    confidence : float
        Of each interval.
    rng : Generator
        Draws the resamples, the same for all.

    Returns
    -------
    DataFrame
        decoder, feature, trained_on ("same categories", "other categories"), the
        columns of `compare_decoders` without r_ceiling, n_train, n_categories.
    """
    for feature, targets in Y.items():
        check_shape(targets.shape, (len(X), None), f"Y of {feature}")
    rows = []
    intervals = _Intervals(n_bootstrap, confidence, int(rng.integers(2**63)))
    conditions = {"same categories": holdout.same, "other categories": holdout.other}
    held_out = holdout.held_out
    for name, by_feature in decoders.items():
        found: dict[str, list[dict[str, Any]]] = {feature: [] for feature in by_feature}
        for condition, train in conditions.items():
            own = {feature: SomeImages(Y[feature], train) for feature in by_feature}
            scalings, fitted = _fitted(X[train], own, by_feature)
            n = {"n_train": len(train), "n_categories": len(holdout.categories)}
            for feature, rows_of in found.items():
                Y_hat = fitted[feature].predict(X[held_out]).astype(np.float32)
                truth = scalings[feature].apply(Y[feature][held_out])
                row = {"decoder": name, "feature": feature, "trained_on": condition}
                rows_of.append(row | intervals.score(truth, Y_hat) | n)
        rows += [row for rows_of in found.values() for row in rows_of]
    return pd.DataFrame(rows)
