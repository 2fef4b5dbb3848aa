"""Ridge regression of each target on the voxels that correlate most with it.

`VoxelSelectedRidge` gives the answer of FastL2LiR 0.11 (a ridge of its own n_feat
voxels per target) in a fraction of the time. Place in the flow: layer 7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dposv
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, RegressorMixin

from minddiff_utils.decoders.targets import blocks
from minddiff_utils.errors import ConfigError, DataError, check_finite, check_shape

__all__ = ["VoxelSelectedRidge"]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]

#: FastL2LiR 0.11 leaves out voxels whose training variance is below this.
MIN_VARIANCE = 1e-8
#: Elements of one block of targets by voxels or images (64 MB of float64).
_BLOCK_ELEMENTS = 8_000_000
#: Rows of the Gram matrix gathered at once; only its lower triangle is needed.
_GATHER_ROWS = 64
#: Correlations that differ relatively by less are a tie: a thousand times the rounding.
_TIE = 1e-12


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
        for part in blocks(n, _GATHER_ROWS):
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
        for block in blocks(n_targets, size):
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

    def noise_gain(self, voxel_noise: Doubles) -> Doubles:
        """Return sum_v w_v^2 noise_v of each target, (n_targets,), float64."""
        self._require_fit()
        check_shape(voxel_noise.shape, (self.n_features_in_,), "voxel_noise")
        return np.asarray(self._matrix(self.weights_**2) @ voxel_noise)

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
