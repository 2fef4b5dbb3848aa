"""Decoders side by side on the same targets, and on categories never trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import ConfigError, DataError, check_shape
from minddiff_utils.core.types import Doubles, IntArray, Matrix
from minddiff_utils.decoding._eigenbasis import default_alphas
from minddiff_utils.decoding._grouped import fit_features
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.cross_validation import choose_decoders, contiguous_folds
from minddiff_utils.decoding.fitting import VoxelData
from minddiff_utils.decoding.scores import (
    effective_rank,
    feature_correlation,
    noise_ceiling,
)
from minddiff_utils.decoding.voxel_selection import VoxelSelectedRidge

__all__ = [
    "Holdout",
    "bootstrap_mean_r",
    "coarse_penalties",
    "compare_decoders",
    "compare_on_holdout",
    "conclusions",
    "split_by_category",
    "tuned",
]

Contenders = Mapping[str, Mapping[str, LinearDecoder]]


# --- intervals ------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean with its interval and the number of images behind it."""

    value: float
    low: float
    high: float
    n: int


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


def _standard(Y: Matrix) -> Doubles:
    centred = Y.astype(np.float64)
    centred -= centred.mean(axis=0)
    return np.asarray(centred / centred.std(axis=0))


def _weighted_mean_r(
    U: Doubles,
    V: Doubles,
    counts: Doubles,
) -> Doubles:
    """Return the mean r of each row of counts (n_bootstrap, n_images)."""
    n = counts.sum(axis=1, keepdims=True)
    mean_u, mean_v = counts @ U / n, counts @ V / n
    cross = counts @ (U * V) / n - mean_u * mean_v
    var_u, var_v = counts @ U**2 / n - mean_u**2, counts @ V**2 / n - mean_v**2
    varies = (var_u > 1e-12) & (var_v > 1e-12)  # one image drawn n times has no r
    r = np.where(varies, cross / np.sqrt(np.where(varies, var_u * var_v, 1)), np.nan)
    return np.asarray(np.nanmean(r, axis=1))


# --- side by side ---------------------------------------------------------------------


def coarse_penalties(X: Matrix) -> Doubles:
    """Return one penalty per decade for responses X (n_images, n_voxels).

    For the random search, which is dear and whose shares scale them.
    """
    trace = float(np.square(X - X.mean(axis=0), dtype=np.float64).sum())
    return default_alphas(trace, X.shape)[::4]


def tuned(
    decoders: Mapping[str, VoxelSelectedRidge],
    X: Matrix,
    Y: Mapping[str, Matrix],
    *,
    alphas: Sequence[float],
    factors: Sequence[float],
    n_folds: int,
) -> dict[str, LinearDecoder]:
    """Return the voxel-selected ridge with each feature's best alpha and n_voxels.

    Parameters
    ----------
    decoders : mapping of VoxelSelectedRidge
        Their `n_voxels` times each of `factors` is tried.
    X, Y : (n_images, n_voxels), mapping of (n_images, n_targets)
        Training images of one subject: the choice is made on them.
    alphas, factors : sequence of float
        The grid.
    n_folds : int
        Folds of the cross-validation.
    """
    candidates: dict[str, dict[str, LinearDecoder]] = {
        f"alpha {alpha:g}, {factor:g} n_voxels": {
            name: VoxelSelectedRidge(alpha, round(factor * decoder.n_voxels))
            for name, decoder in decoders.items()
        }
        for alpha in alphas
        for factor in factors
    }
    folds = contiguous_folds(len(X), n_folds)
    tables = choose_decoders(candidates, X, Y, folds)
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


def compare_decoders(
    contenders: Contenders,
    data: VoxelData,
    Y_train: Mapping[str, Matrix],
    Y_test: Mapping[str, Matrix],
    *,
    n_bootstrap: int,
    confidence: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Fit every decoder to every feature and score it on the test images.

    Parameters
    ----------
    contenders : mapping of mapping of estimators
        Decoder's name to feature to an unfitted estimator; all choices that it makes
        it makes on training images.
    data : VoxelData
        Responses of one subject.
    Y_train, Y_test : mapping of (n_images, n_targets)
        Features by name.
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
    for name, decoders in contenders.items():
        fitted = fit_features(decoders, data.X_train, Y_train)
        for feature, (decoder, scaling) in fitted.items():
            Y_hat = decoder.predict(data.X_test).astype(np.float32)
            ceiling = noise_ceiling(decoder, Y_hat, data.ncsnr, data.n_repeats_test)
            row = intervals.score(scaling.apply(Y_test[feature]), Y_hat)
            row["r_ceiling"] = float(np.nanmean(ceiling))
            rows.append({"decoder": name, "feature": feature, **row})
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
    other: IntArray
    same: IntArray
    held_out: IntArray


def split_by_category(
    labels: Sequence[frozenset[str]], *, share: float, rng: np.random.Generator
) -> Holdout:
    """Hold out a share of the categories, all their images with them.

    An image is held out if all its categories are held-out ones, trained on if none is,
    and dropped if it mixes both or shows none: an image without labels may show
    anything. Half of the held-out images are scored. The other half goes into the
    training rows of the control condition, which are as many as those of the hold-out.

    Parameters
    ----------
    labels : sequence of sets of str
        Categories of each training image.
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
    held = np.flatnonzero([bool(one) and one <= set(chosen) for one in labels])
    other = np.flatnonzero([bool(one) and not one & set(chosen) for one in labels])
    order = rng.permutation(held)
    scored, kept = np.sort(order[: len(order) // 2]), order[len(order) // 2 :]
    if len(scored) < 2 or len(other) < 2:
        raise DataError(
            f"Holding out {n_held} categories leaves {len(other)} training images and"
            f" {len(scored)} to score: use more sessions."
        )
    rest = rng.permutation(other)[: max(0, len(other) - len(kept))]
    same = np.sort(np.concatenate([kept, rest]))[: len(other)]
    return Holdout(chosen, other, same, scored)


def compare_on_holdout(
    contenders: Contenders,
    X: Matrix,
    Y: Mapping[str, Matrix],
    holdout: Holdout,
    *,
    n_bootstrap: int,
    confidence: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Score decoders on held-out categories, trained with and without them.

    Parameters
    ----------
    contenders : mapping of mapping of estimators
        As in `compare_decoders`.
    X, Y : (n_images, n_voxels), mapping of (n_images, n_targets)
        Training images of one subject; test images take no part.
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
    train = {"same categories": holdout.same, "other categories": holdout.other}
    scored = holdout.held_out
    for name, decoders in contenders.items():
        fits = {key: fit_features(decoders, X, Y, part) for key, part in train.items()}
        for feature in decoders:
            for condition, fitted in fits.items():
                decoder, scaling = fitted[feature]
                Y_hat = decoder.predict(X[scored]).astype(np.float32)
                row = intervals.score(scaling.apply(Y[feature][scored]), Y_hat)
                row["n_train"] = len(train[condition])
                row["n_categories"] = len(holdout.categories)
                names = {"decoder": name, "feature": feature, "trained_on": condition}
                rows.append(names | row)
    return pd.DataFrame(rows)


def conclusions(compared: pd.DataFrame, unseen: pd.DataFrame) -> list[str]:
    """Return sentences on the tables of `compare_decoders` and `compare_on_holdout`.

    For each feature the decoder with the highest accuracy, those whose intervals reach
    its own, and what each decoder loses on categories that it never saw.
    """
    lines = []
    for feature, rows in compared.groupby("feature", sort=False):
        best, *others = rows.sort_values("r_mean", ascending=False).to_dict("records")
        level = [row["decoder"] for row in others if row["r_high"] >= best["r_low"]]
        lines.append(
            f"{feature}: {best['decoder']} reads most (r {best['r_mean']:.2f}); "
            f"intervals that reach its own: {', '.join(level) or 'none'}"
        )
    for decoder, rows in unseen.groupby("decoder", sort=False):
        r = rows.pivot_table("r_mean", "feature", "trained_on", sort=False)
        change = r["other categories"] - r["same categories"]
        losses = ", ".join(
            f"{feature} {value:+.2f}" for feature, value in change.items()
        )
        lines.append(f"{decoder}: change of r on categories never seen: {losses}")
    return lines
