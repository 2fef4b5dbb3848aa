"""What all fitted linear decoders share: predictions, voxel weights, what is saved."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from minddiff_utils.core.errors import DataError, check_finite, check_shape
from minddiff_utils.core.types import Array, Doubles, Floats, Mask
from minddiff_utils.decoding.targets import blocks

__all__ = ["LinearDecoder", "Targets", "check_fit"]

#: Weights that are held densely at once.
_BLOCK_ELEMENTS = 4_194_304


class Targets(Protocol):
    """Targets to fit: an array, or `StandardisedTargets`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n_images, n_targets)."""

    def __getitem__(self, key: tuple[slice, slice], /) -> Floats:
        """Return the columns `[:, start:stop]`."""


def check_fit(X: Floats, Y: Targets, *, n_images: int = 1) -> None:
    """Raise DataError unless X and Y have the same images, `n_images` or more."""
    check_shape(X.shape, (None, None), "X")
    check_shape(Y.shape, (len(X), None), "Y")
    if X.shape[1] == 0 or Y.shape[1] == 0 or len(X) == 0:
        raise DataError(f"X {X.shape} and Y {Y.shape} hold nothing to fit.")
    if len(X) < n_images:
        raise DataError(f"Ridge needs {n_images} training images or more.")


class LinearDecoder(RegressorMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """A linear decoder of many targets from the same voxels.

    The contract of all decoders here. `fit(X, Y)` learns from responses X (n_images,
    n_voxels) and targets Y (n_images, n_targets), each target as if it were alone, and
    reads Y in blocks of columns. A target that is constant is predicted by its
    constant. NaN and infinite values are refused, and so are shapes that do not fit.

    Attributes
    ----------
    weights_ : (n_targets, n_voxels or fewer)
        Of each target; `dense_weights` has one for every voxel.
    intercept_, alpha_ : (n_targets,)
        Intercept and penalty.
    alphas_ : (n_alphas,) float64
        The penalties from which those of `alpha_` were chosen.
    n_features_in_ : int
        n_voxels.
    """

    weights_: Floats
    intercept_: Floats
    alpha_: Doubles
    alphas_: Doubles
    n_features_in_: int

    #: Fitted arrays that have a row for each target, without the underscore.
    _PER_TARGET: ClassVar[tuple[str, ...]] = ("weights", "intercept")

    @abstractmethod
    def fit(self, X: Floats, Y: Targets) -> Self:
        """Fit all targets and return the decoder."""

    def _check_fitted(self) -> None:
        if not hasattr(self, "weights_"):
            raise DataError("The decoder has not been fitted: call fit first.")

    def _block_size(self) -> int:
        """Return how many targets have their dense weights formed at once."""
        return max(1, _BLOCK_ELEMENTS // self.n_features_in_)

    def _weight_blocks(self) -> list[slice]:
        self._check_fitted()
        return list(blocks(len(self.intercept_), self._block_size()))

    def dense_weights(self, targets: slice) -> Floats:
        """Return the weights of some targets for every voxel, (n, n_voxels)."""
        return self.weights_[targets]

    def predict(self, X: Floats) -> Floats:
        """Return the predictions (n_images, n_targets) for responses X.

        In the dtype of the weights.

        Raises
        ------
        DataError
            Not fitted, another number of voxels, or NaN or infinite values.
        """
        targets = self._weight_blocks()
        check_shape(X.shape, (None, self.n_features_in_), "X")
        check_finite(bool(np.isfinite(X).all()), "X")
        X = X.astype(self.weights_.dtype, copy=False)
        Y_hat = np.empty((len(X), len(self.intercept_)), X.dtype)
        for block in targets:
            product = X @ self.dense_weights(block).T
            n = block.stop - block.start
            Y_hat[:, block] = product[:, :n] + self.intercept_[block]
        return Y_hat

    def fit_predict(self, X: Floats, Y: Targets, X_test: Floats) -> Floats:
        """Fit all targets and return their predictions for the responses X_test."""
        return self.fit(X, Y).predict(X_test)

    def voxel_weight(self) -> Doubles:
        """Return the mean over targets of the absolute weight, (n_voxels,)."""
        total = sum(
            np.abs(self.dense_weights(block)).sum(axis=0, dtype=np.float64)
            for block in self._weight_blocks()
        )
        return np.asarray(total / len(self.intercept_))

    def voxel_pattern(self, X: Floats) -> Doubles:
        """Return the mean over targets of each voxel's |r| with the decoded target.

        Haufe's pattern of one target at a time, on the scale of a correlation. The
        correlations between voxels are formed once (1 GB for NSD), or not at all where
        there are so few images that going through the predictions costs less.

        A voxel's weight says what the decoder does with it: it may be large for a voxel
        that holds nothing of the target and cancels another's noise, and small for one
        of many that hold the same. A pattern says in which voxels the decoded target
        shows. It is as good as the decoder: what is not decoded has no pattern, and a
        confound that is decoded has one. Neither says that the brain makes use of it.

        Parameters
        ----------
        X : (n_images, n_voxels)
            Training responses.

        Returns
        -------
        (n_voxels,) float64
            In [0, 1]; 0 for a voxel that does not vary. Targets whose prediction does
            not vary are left out; NaN if there is no other.

        References
        ----------
        Haufe et al. (2014), On the interpretation of weight vectors of linear models in
        multivariate neuroimaging, NeuroImage 87, eq. 6: covariance times weights.
        """
        targets = self._weight_blocks()
        check_shape(X.shape, (None, self.n_features_in_), "X")
        standard = X.astype(self.weights_.dtype)
        standard -= standard.mean(axis=0)
        sd = standard.std(axis=0)
        standard /= np.where(np.ptp(X, axis=0) > 0, sd, np.inf)
        few = 2 * len(X) < self.n_features_in_
        # (n_voxels, n_voxels)
        correlation = None if few else standard.T @ standard / len(X)
        total, n_varying = np.zeros(self.n_features_in_), 0
        for block in targets:
            W = sd * self.dense_weights(block)[: block.stop - block.start]
            # (n_block, n_voxels)
            if correlation is None:
                covariance = (W @ standard.T) @ standard / len(X)
            else:
                covariance = W @ correlation
            variance = np.sum(covariance * W, axis=1)  # of the decoded target
            varies = variance > 0
            r = np.abs(covariance[varies]) / np.sqrt(variance[varies])[:, None]
            total += r.sum(axis=0, dtype=np.float64)
            n_varying += len(r)
        return total / n_varying if n_varying else np.full_like(total, np.nan)

    def noise_gain(self, voxel_noise: Doubles) -> Doubles:
        """Return the variance that independent voxel noise adds to each target.

        Parameters
        ----------
        voxel_noise : (n_voxels,)
            Noise variance of each voxel.

        Returns
        -------
        (n_targets,) float64
            sum_v w_v^2 noise_v.
        """
        targets = self._weight_blocks()
        check_shape(voxel_noise.shape, (self.n_features_in_,), "voxel_noise")
        gain = np.empty(len(self.intercept_))
        for block in targets:
            gain[block] = self._noise_gain(block, voxel_noise)
        return gain

    def _noise_gain(self, block: slice, voxel_noise: Doubles) -> Doubles:
        squared = np.square(self.dense_weights(block), dtype=np.float64)
        return np.asarray(squared @ voxel_noise)

    # --- parts, and what is saved ---

    def part(self, targets: slice | Mask) -> Self:
        """Return the fitted decoder of some targets; of a slice without a copy."""
        self._check_fitted()
        some = copy.copy(self)
        for name in self._PER_TARGET:
            setattr(some, f"{name}_", getattr(self, f"{name}_")[targets])
        return some

    def arrays(self) -> dict[str, Array]:
        """Return what `from_arrays` needs; what targets have has a row for each."""
        self._check_fitted()
        return {name: getattr(self, f"{name}_") for name in self._PER_TARGET}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the fitted decoder that `arrays` came from, or some of its targets.

        Parameters that only matter to a fit are at their defaults.

        Raises
        ------
        DataError
            An array is missing, or the arrays do not fit together.
        """
        missing = [name for name in cls._PER_TARGET if name not in arrays]
        if missing:
            raise DataError(
                f"The decoder lacks {', '.join(missing)}: run notebook 02 again."
            )
        decoder, n_targets = cls(), len(arrays["weights"])
        for name in cls._PER_TARGET:
            check_shape(arrays[name].shape[:1], (n_targets,), f"Decoder's {name}")
            setattr(decoder, f"{name}_", arrays[name])
        decoder.n_features_in_ = arrays["weights"].shape[1]
        return decoder
