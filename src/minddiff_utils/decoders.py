"""Voxel-selected ridge regression, and how well its predictions do.

`VoxelSelectedRidge` gives the answer of FastL2LiR 0.11 (a ridge of its own n_feat
voxels per target) in a fraction of the time. Around it: the scaling of the targets, the
correlation of decoded with true features and its permutation null, the ceiling that
voxel noise leaves, and the choice of the k % best targets by cross-validation. numpy on
the CPU; it knows nothing of images, models or files. Place in the flow: layer 7.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dposv
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, RegressorMixin

from minddiff_utils.errors import ConfigError, DataError, check_finite, check_shape

__all__ = [
    "Accuracy",
    "TargetScaling",
    "VoxelSelectedRidge",
    "contiguous_folds",
    "cross_validated_correlation",
    "feature_correlation",
    "k_curve",
    "noise_ceiling_r",
    "permutation_null",
    "score_decoder",
    "select_best",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]
Fold = tuple[Ints, Ints]

#: FastL2LiR 0.11 leaves out voxels whose training variance is below this.
MIN_VARIANCE = 1e-8
#: Elements of one block of targets by voxels or images (64 MB of float64).
_BLOCK_ELEMENTS = 8_000_000
#: Rows of the Gram matrix gathered at once; only its lower triangle is needed.
_GATHER_ROWS = 64
#: Correlations that differ relatively by less are a tie: a thousand times the rounding.
_TIE = 1e-12
#: A target varies if its SD exceeds this times the root mean square of all targets.
_MIN_RELATIVE_SD = 1e-6


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _nanmean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if finite.size else float("nan")


# --- scaling of the targets -----------------------------------------------------------


@dataclass(frozen=True)
class TargetScaling:
    """Mean and SD of each target on the training images.

    A target whose SD is below one millionth of the root mean square of all targets does
    not vary: what is left of it is the rounding of the network that computed it (the
    start token of c, for one, which no caption changes). Its scale is 1, and it is
    applied as exactly 0 and inverted as its mean.

    Attributes
    ----------
    mean, scale : (n_targets,) float64
        In the targets' units.
    varies : (n_targets,) bool
        Whether the target varies over the training images.
    """

    mean: Doubles
    scale: Doubles
    varies: Mask

    @classmethod
    def fit(cls, Y_train: Floats) -> Self:
        """Return the scaling of training targets (n_images, n_targets).

        Raises
        ------
        DataError
            No image, or NaN or infinite values.
        """
        check_shape(Y_train.shape, (None, None), "Y_train")
        if Y_train.size == 0:
            raise DataError(f"Y_train is empty {Y_train.shape}: pass images, targets.")
        check_finite(bool(np.isfinite(Y_train).all()), "Y_train")
        mean = Y_train.mean(axis=0, dtype=np.float64)
        spread = Y_train.std(axis=0, dtype=np.float64)
        typical = np.sqrt(np.mean(mean**2 + spread**2))
        varies = (spread > _MIN_RELATIVE_SD * typical) & (np.ptp(Y_train, axis=0) > 0)
        return cls(mean, np.where(varies, spread, 1.0), varies)

    def apply(self, Y: Floats) -> Floats:
        """Return Y (n_images, n_targets) standardised, in the dtype of Y."""
        check_shape(Y.shape, (None, len(self.mean)), "Y")
        scaled = (Y - self.mean.astype(Y.dtype)) / self.scale.astype(Y.dtype)
        scaled[:, ~self.varies] = 0
        return scaled

    def invert(self, Y_scaled: Floats) -> Floats:
        """Return standardised targets in their own units, in the dtype given."""
        check_shape(Y_scaled.shape, (None, len(self.mean)), "Y_scaled")
        kind = Y_scaled.dtype
        return np.asarray(Y_scaled * self.scale.astype(kind) + self.mean.astype(kind))


# --- the decoder ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Design:
    """What all targets share. `columns` are the usable voxels, in ascending order."""

    columns: Ints  # (n_usable,)
    mean: Doubles  # (n_usable,)
    scale: Doubles  # (n_usable,), population SD
    Z: Doubles  # (n_images, n_usable), standardised voxels
    gram: Doubles  # (n_usable, n_usable), penalised, intercept eliminated
    shrink: float  # n_images / (n_images + alpha), what the penalty leaves of a mean
    mean_weight: float  # alpha * shrink


def _design(X: Floats, alpha: float) -> _Design:
    """Prepare the normal equations with the penalised intercept eliminated.

    With A = [X, 1], (A'A + alpha I) [w; b] = A'y has the last row
    b = shrink (mean(y) - mean(x)'w). Put into the others it leaves, for centred Xc, yc:
    (Xc'Xc + alpha shrink mean(x) mean(x)' + alpha I) w
    = Xc'yc + alpha shrink mean(x) mean(y). Centring first loses no digits.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    columns = np.flatnonzero(X.var(axis=0, dtype=np.float64) >= MIN_VARIANCE)
    Z = X[:, columns].astype(np.float64)
    mean = mean[columns]
    Z -= mean
    scale = np.sqrt(np.mean(Z**2, axis=0))
    Z /= scale
    shrink = len(X) / (len(X) + alpha)
    gram = Z.T @ Z
    gram *= scale
    gram *= scale[:, None]
    gram += np.outer(alpha * shrink * mean, mean)
    gram[np.diag_indices_from(gram)] += alpha
    return _Design(columns, mean, scale, Z, gram, shrink, alpha * shrink)


def _largest(scores: Doubles, n: int) -> Ints:
    """Return the columns of the n largest scores of each row, ascending, (rows, n).

    Of scores equal within rounding the one at the lower column comes first.
    """
    n_columns = scores.shape[1]
    if n == n_columns:
        return np.broadcast_to(np.arange(n), scores.shape)
    least = np.partition(scores, n_columns - n, axis=1)[:, n_columns - n, None]
    chosen = scores >= least * (1 - _TIE)
    for row in np.flatnonzero(np.count_nonzero(chosen, axis=1) > n):
        clear = scores[row] > least[row] * (1 + _TIE)
        tied = np.flatnonzero(chosen[row] & ~clear)
        chosen[row, tied[n - np.count_nonzero(clear) :]] = False
    return np.nonzero(chosen)[1].reshape(len(scores), n)


def _raise_singular() -> None:
    raise DataError(
        "The voxels of a target are linearly dependent to rounding, so its weights are "
        "not determined: raise decoding.alpha or lower n_feat."
    )


def _solve_common(gram: Doubles, right: Doubles) -> Doubles:
    """Solve for right sides (rows, n) that all have the same matrix (n, n)."""
    try:
        factor = cho_factor(gram, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        _raise_singular()
    return np.asarray(cho_solve(factor, right.T, check_finite=False).T)


def _solve_subsets(gram: Doubles, chosen: Ints, right: Doubles) -> Doubles:
    """Solve, row by row, the system of the rows and columns `chosen` (rows, n).

    One matrix at a time stays in the cache; a stack of them for a batched solver was
    measured slower. LAPACK reads the lower triangle of the C-ordered buffer as the
    upper one of its transpose, so only that half is gathered.
    """
    size, n = len(gram), chosen.shape[1]
    flat = gram.ravel()
    buffer = np.zeros((n, n))
    solution = np.empty_like(right)
    for row, columns in enumerate(chosen):
        starts = columns * size
        for part in _blocks(n, _GATHER_ROWS):
            where = starts[part, None] + columns[: part.stop]
            buffer[part, : part.stop] = flat.take(where)
        _, weights, failed = dposv(buffer.T, right[row], lower=0, overwrite_a=1)
        if failed:
            _raise_singular()
        solution[row] = weights
    return solution


class VoxelSelectedRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression of each target on the n_feat voxels that correlate most with it.

    Per target: the `n_feat` voxels of largest absolute Pearson correlation on the
    training images (voxels of variance below 1e-8 excluded, ties to the lower index), a
    column of ones, and w = (A'A + alpha I)^-1 A'y. The intercept is penalised with the
    weights, unlike scikit-learn's; alpha adds to A'A, whose diagonal is about n_images,
    so that 0.15 hardly regularises and the selection does.

    Same answer as FastL2LiR 0.11 but for two cases there: where n_feat exceeds the
    usable voxels all usable ones are taken (there, near-constant ones are used too),
    and a target that is constant on the training images is predicted by that constant.

    Parameters
    ----------
    alpha : float
        Penalty, above 0.
    n_feat : int
        Voxels per target, at least 1.
    chunk_targets : int, optional
        Targets whose correlations are held at once; default: 64 MB of them. Changes
        results by rounding only.

    Attributes
    ----------
    voxels_ : (n_targets, n_selected) int32
        Selected voxels, ascending; n_selected = min(n_feat, usable voxels).
    weights_ : (n_targets, n_selected) float64
        Their weights.
    intercept_ : (n_targets,) float64
    n_features_in_ : int
        n_voxels.

    References
    ----------
    FastL2LiR, https://github.com/KamitaniLab/PyFastL2LiR, version 0.11.
    MindDiffuser section 3.1 and its released code (alpha, n_feat).

    Examples
    --------
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> VoxelSelectedRidge(alpha=0.15, n_feat=2).fit(X, Y).predict(X).shape
    (4, 2)
    """

    voxels_: npt.NDArray[np.int32]
    weights_: Doubles
    intercept_: Doubles
    n_features_in_: int

    def __init__(
        self, alpha: float = 0.15, n_feat: int = 450, chunk_targets: int | None = None
    ) -> None:
        self.alpha = alpha
        self.n_feat = n_feat
        self.chunk_targets = chunk_targets

    def fit(self, X: Floats, Y: Floats) -> Self:
        """Fit all targets.

        Parameters
        ----------
        X : (n_images, n_voxels)
            Training responses.
        Y : (n_images, n_targets)
            Training targets, best standardised (`TargetScaling`).

        Raises
        ------
        ConfigError
            alpha, n_feat or chunk_targets is out of range.
        DataError
            Shapes do not fit, NaN or infinite values, or no voxel varies.
        """
        self._check(X, Y)
        design = _design(X, float(self.alpha))
        n_usable = len(design.columns)
        if n_usable == 0:
            raise DataError(
                f"None of {X.shape[1]} voxels varies over the training images: check "
                "the responses of notebook 01."
            )
        n_targets, n_selected = Y.shape[1], min(int(self.n_feat), n_usable)
        self.n_features_in_ = X.shape[1]
        self.voxels_ = np.empty((n_targets, n_selected), np.int32)
        self.weights_ = np.empty((n_targets, n_selected))
        self.intercept_ = np.empty(n_targets)
        size = self.chunk_targets or max(1, _BLOCK_ELEMENTS // max(n_usable, len(X)))
        for block in _blocks(n_targets, size):
            self._fit_block(design, Y, block)
        return self

    def _check(self, X: Floats, Y: Floats) -> None:
        for name, low in (("n_feat", 1), ("chunk_targets", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} is {value}, but must be at least {low}.")
        if not self.alpha > 0:
            raise ConfigError(f"alpha is {self.alpha}, but must be above 0.")
        check_shape(X.shape, (None, None), "X")
        check_shape(Y.shape, (len(X), None), "Y")
        if len(X) == 0 or Y.shape[1] == 0:
            raise DataError(f"X {X.shape} and Y {Y.shape} hold nothing to fit.")
        check_finite(bool(np.isfinite(X).all()), "X")
        check_finite(bool(np.isfinite(Y).all()), "Y")

    def _fit_block(self, design: _Design, Y: Floats, block: slice) -> None:
        y = Y[:, block].astype(np.float64)
        y_mean = y.mean(axis=0)
        constant = np.ptp(y, axis=0) == 0
        y_mean[constant] = y[0, constant]
        cross = (y - y_mean).T @ design.Z  # (chunk, n_usable), r up to a factor per row
        chosen = _largest(np.abs(cross), self.weights_.shape[1])
        means = design.mean[chosen]
        right = np.take_along_axis(cross, chosen, axis=1) * design.scale[chosen]
        right += design.mean_weight * means * y_mean[:, None]
        if chosen.shape[1] == len(design.columns):
            weights = _solve_common(design.gram, right)
        else:
            weights = _solve_subsets(design.gram, chosen, right)
        intercept = design.shrink * (y_mean - np.sum(means * weights, axis=1))
        weights[constant] = 0
        self.voxels_[block] = design.columns[chosen]
        self.weights_[block] = weights
        self.intercept_[block] = np.where(constant, y_mean, intercept)

    def _matrix(self, values: Doubles) -> Any:
        """Return `values` of the selected voxels as sparse (n_targets, n_voxels)."""
        n_targets, n_selected = self.voxels_.shape
        starts = np.arange(n_targets + 1, dtype=np.int64) * n_selected
        parts = (values.ravel(), self.voxels_.ravel(), starts)
        return csr_array(parts, shape=(n_targets, self.n_features_in_))

    def _require_fit(self) -> None:
        if not hasattr(self, "weights_"):
            raise DataError("The decoder has not been fitted: call fit first.")

    def predict(self, X: Floats) -> Doubles:
        """Return the predictions (n_images, n_targets) for responses X.

        Raises
        ------
        DataError
            Not fitted, another number of voxels, or NaN or infinite values.
        """
        self._require_fit()
        check_shape(X.shape, (None, self.n_features_in_), "X")
        check_finite(bool(np.isfinite(X).all()), "X")
        product = self._matrix(self.weights_) @ X.T.astype(np.float64)
        return np.ascontiguousarray(product.T) + self.intercept_

    def voxel_weight(self) -> Doubles:
        """Return the mean over targets of the absolute weight, (n_voxels,).

        A target that did not select a voxel counts as 0.
        """
        self._require_fit()
        total = np.bincount(
            self.voxels_.ravel(),
            weights=np.abs(self.weights_).ravel(),
            minlength=self.n_features_in_,
        )
        return np.asarray(total / len(self.voxels_))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `from_arrays` needs; per target: voxels, weights, intercept."""
        self._require_fit()
        return {
            "voxels": self.voxels_,
            "weights": self.weights_,
            "intercept": self.intercept_,
            "n_voxels": np.array(self.n_features_in_),
            "alpha": np.array(float(self.alpha)),
            "n_feat": np.array(int(self.n_feat)),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the fitted decoder that `arrays` came from, or some of its targets.

        Raises
        ------
        DataError
            An array is missing, or the arrays do not fit together.
        """
        keys = ("voxels", "weights", "intercept", "n_voxels", "alpha", "n_feat")
        missing = [key for key in keys if key not in arrays]
        if missing:
            raise DataError(
                f"The decoder lacks {', '.join(missing)}: run notebook 02 again."
            )
        voxels, weights = arrays["voxels"], arrays["weights"]
        check_shape(voxels.shape, (None, None), "Decoder's voxels")
        check_shape(weights.shape, voxels.shape, "Decoder's weights")
        check_shape(arrays["intercept"].shape, voxels.shape[:1], "Decoder's intercept")
        n_voxels = int(arrays["n_voxels"])
        if voxels.size and not (voxels.min() >= 0 and voxels.max() < n_voxels):
            raise DataError(f"The decoder names voxels outside 0..{n_voxels - 1}.")
        decoder = cls(float(arrays["alpha"]), int(arrays["n_feat"]))
        decoder.n_features_in_ = n_voxels
        decoder.voxels_ = voxels.astype(np.int32)
        decoder.weights_ = weights.astype(np.float64)
        decoder.intercept_ = arrays["intercept"].astype(np.float64)
        return decoder


# --- how well -------------------------------------------------------------------------


def _check_pair(Y_true: Floats, Y_hat: Floats) -> None:
    check_shape(Y_true.shape, (None, None), "Y_true")
    check_shape(Y_hat.shape, Y_true.shape, "Y_hat")
    if len(Y_true) < 2:
        raise DataError(f"A correlation needs 2 images or more, not {len(Y_true)}.")
    check_finite(bool(np.isfinite(Y_true).all()), "Y_true")
    check_finite(bool(np.isfinite(Y_hat).all()), "Y_hat")


def _unit_columns(Y: Floats) -> Doubles:
    """Return centred columns of unit norm; NaN in columns that do not vary."""
    centred = Y.astype(np.float64)
    centred -= centred.mean(axis=0)
    norm = np.sqrt(np.sum(centred**2, axis=0))
    varies = (np.ptp(Y, axis=0) > 0) & (norm > 0)
    centred /= np.where(varies, norm, np.nan)
    return centred


def _target_blocks(Y: Floats) -> Iterator[slice]:
    return _blocks(Y.shape[1], max(1, _BLOCK_ELEMENTS // len(Y)))


def feature_correlation(Y_true: Floats, Y_hat: Floats) -> Doubles:
    """Return the signed Pearson r of each target over images.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        True and decoded features.

    Returns
    -------
    (n_targets,) float64
        NaN where the true or the decoded target does not vary; use nanmean.

    Raises
    ------
    DataError
        Shapes differ, fewer than 2 images, or NaN or infinite values.
    """
    _check_pair(Y_true, Y_hat)
    r = np.empty(Y_true.shape[1])
    for block in _target_blocks(Y_true):
        product = _unit_columns(Y_true[:, block]) * _unit_columns(Y_hat[:, block])
        r[block] = product.sum(axis=0)
    return r


def permutation_null(
    Y_true: Floats, Y_hat: Floats, *, n_permutations: int, rng: np.random.Generator
) -> Doubles:
    """Return the mean correlation over targets when test images are permuted.

    All targets are permuted together, so that the null keeps their dependence. With
    columns of unit norm U and V the mean r under a permutation p is the sum over images
    i of K[p(i), i], where K = U V' / n_targets: one product serves all permutations.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        True and decoded features; targets where either does not vary are left out.
    n_permutations : int
        At least 1.
    rng : Generator
        Draws the permutations.

    Returns
    -------
    (n_permutations,) float64

    Raises
    ------
    ConfigError
        n_permutations is below 1.
    DataError
        As `feature_correlation`, or no target varies.
    """
    _check_pair(Y_true, Y_hat)
    if n_permutations < 1:
        raise ConfigError(
            f"n_permutations is {n_permutations}, but must be at least 1."
        )
    n_images = len(Y_true)
    kernel = np.zeros((n_images, n_images))
    n_used = 0
    for block in _target_blocks(Y_true):
        U, V = _unit_columns(Y_true[:, block]), _unit_columns(Y_hat[:, block])
        used = np.isfinite(U[0]) & np.isfinite(V[0])
        kernel += U[:, used] @ V[:, used].T
        n_used += int(np.count_nonzero(used))
    if n_used == 0:
        raise DataError(
            "No target varies in both truth and prediction: nothing to test."
        )
    images = np.arange(n_images)
    order = rng.permuted(np.tile(images, (n_permutations, 1)), axis=1)
    return np.asarray(kernel[order, images].sum(axis=1) / n_used)


def noise_ceiling_r(
    decoder: VoxelSelectedRidge, Y_hat_std: Floats, ncsnr: Floats, n_repeats: Ints
) -> Doubles:
    """Return the highest correlation that voxel noise allows this decoder per target.

    A single trial of a z-scored voxel has the noise variance 1 / (1 + ncsnr^2), an
    average over m trials 1/m of it. A linear prediction passes on
    sum_v w_v^2 noise_v; what is left of its variance over test images is signal, and
    ceiling = sqrt(max(0, 1 - noise / variance)), the correlation with a truth that the
    signal part predicts perfectly. Noise is taken as independent between voxels;
    positively correlated noise under weights of one sign makes the true ceiling lower.
    The variance is estimated on few images, so use the mean over many targets.

    Parameters
    ----------
    decoder : VoxelSelectedRidge
        Fitted on z-scored voxels.
    Y_hat_std : (n_test, n_targets)
        Its own predictions for the test images, not rescaled.
    ncsnr : (n_voxels,)
        Noise-ceiling signal-to-noise ratio of each voxel, per trial.
    n_repeats : (n_test,) int
        Trials averaged in each test response.

    Returns
    -------
    (n_targets,) float64
        In [0, 1]; NaN where the prediction does not vary.

    References
    ----------
    Allen et al. (2022), Nature Neuroscience 25, Methods: noise ceiling from ncsnr.
    """
    decoder._require_fit()
    check_shape(Y_hat_std.shape, (None, len(decoder.voxels_)), "Y_hat_std")
    check_shape(ncsnr.shape, (decoder.n_features_in_,), "ncsnr")
    check_shape(n_repeats.shape, (len(Y_hat_std),), "n_repeats")
    check_finite(bool(np.isfinite(ncsnr).all()), "ncsnr")
    check_finite(bool(np.isfinite(Y_hat_std).all()), "Y_hat_std")
    if len(n_repeats) < 2 or n_repeats.min() < 1 or ncsnr.min() < 0:
        raise DataError(
            "A noise ceiling needs 2 test images or more, n_repeats of 1 or more and "
            "ncsnr of 0 or more: check responses.h5."
        )
    voxel_noise = np.mean(1 / n_repeats) / (1 + ncsnr.astype(np.float64) ** 2)
    noise = decoder._matrix(decoder.weights_**2) @ voxel_noise
    variance = Y_hat_std.var(axis=0, ddof=1, dtype=np.float64)
    varies = np.ptp(Y_hat_std, axis=0) > 0
    reliability = 1 - noise / np.where(varies, variance, np.nan)
    return np.asarray(np.sqrt(np.maximum(reliability, 0)))


# --- the k % best targets -------------------------------------------------------------


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
            "r_cv_selected_mean": _nanmean(r_cv[best]),
            "r_selected_mean": _nanmean(r_test[best]),
            "variance_kept": float(variance[best].sum(dtype=np.float64)) / total,
        }
        rows.append(row)
    return pd.DataFrame(rows)


# --- one row of the accuracy table ----------------------------------------------------


@dataclass(frozen=True)
class Accuracy:
    """How well one feature is decoded; the columns of the accuracy table.

    Attributes
    ----------
    r_mean, r_median : float
        Over the targets that vary, of the signed correlation over test images.
    r_null_mean, r_null_high : float
        Mean and 97.5 % quantile of the mean correlation with permuted images.
    p_permutation : float
        (1 + #{null >= r_mean}) / (1 + n_permutations), one-sided, never 0.
    r_ceiling : float
        Mean of the noise ceilings; NaN where there is none.
    n_images, n_targets : int
        Test images, and targets with a correlation.
    """

    r_mean: float
    r_median: float
    r_null_mean: float
    r_null_high: float
    p_permutation: float
    r_ceiling: float
    n_images: int
    n_targets: int


def score_decoder(
    Y_true: Floats,
    Y_hat: Floats,
    ceiling_r: Floats,
    *,
    n_permutations: int,
    rng: np.random.Generator,
) -> dict[str, float | int]:
    """Return the `Accuracy` of decoded features as a row: name to value.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        True and decoded features of the test images, each in any linear scale.
    ceiling_r : (n_targets,)
        From `noise_ceiling_r`.
    n_permutations : int
        Permutations of the test images.
    rng : Generator
        Draws them.

    Raises
    ------
    DataError
        As `permutation_null`.

    References
    ----------
    Phipson and Smyth (2010), Permutation p-values should never be zero.
    """
    check_shape(ceiling_r.shape, Y_true.shape[1:], "ceiling_r")
    null = permutation_null(Y_true, Y_hat, n_permutations=n_permutations, rng=rng)
    r = feature_correlation(Y_true, Y_hat)
    r = r[np.isfinite(r)]
    observed = float(r.mean())
    reached = np.count_nonzero(null >= observed - 1e-12)  # a tie broken by rounding
    accuracy = Accuracy(
        r_mean=observed,
        r_median=float(np.median(r)),
        r_null_mean=float(null.mean()),
        r_null_high=float(np.quantile(null, 0.975)),
        p_permutation=float((1 + reached) / (1 + n_permutations)),
        r_ceiling=_nanmean(ceiling_r),
        n_images=len(Y_true),
        n_targets=len(r),
    )
    return asdict(accuracy)
