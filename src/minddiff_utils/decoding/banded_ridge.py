"""Banded ridge over voxel groups, its scales searched at random by himalaya."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from himalaya.backend import (  # type: ignore[import-untyped]
    get_backend,
    set_backend,
)
from himalaya.kernel_ridge import (  # type: ignore[import-untyped]
    MultipleKernelRidgeCV,
)

from minddiff_utils.core.errors import (
    ConfigError,
    DataError,
    check_choice,
    check_finite,
)
from minddiff_utils.core.types import Doubles, Floats, Ints
from minddiff_utils.decoding._eigenbasis import (
    band_columns,
    check_alphas,
    default_alphas,
)
from minddiff_utils.decoding._linear_decoder import LinearDecoder, Targets, check_fit

__all__ = ["BandedRidge"]


@dataclass(eq=False, repr=False)
class BandedRidge(LinearDecoder):
    """Ridge regression with a penalty for each voxel group and target.

    The wide search that `RidgeGCV(bands=...)` replaces by a few ratios: dearer per
    target, for questions about the bands themselves. The linear kernel of each band is
    divided by its trace and multiplied by that of all voxels; a random search over the
    shares of the bands (himalaya, Dirichlet samples, the first one equal shares) and
    the penalties maximises each target's cross-validated fit on folds of neighbouring
    training images. Penalties mean the same as in `RidgeGCV`, and one band is plain
    ridge. The intercept is not penalised and is fitted anew in each fold.

    Parameters
    ----------
    bands : (n_voxels,) int, optional
        Label of each voxel's group; None puts all into one.
    alphas : sequence of float, optional
        Penalties, above 0. Default: as `RidgeGCV`.
    n_samples : int
        Shares of bands that are tried, at least 1.
    n_folds : int
        Folds of the cross-validation, at least 2.
    seed : int
        Of the search; the same seed gives the same decoder.
    dtype : {"float32", "float64"}
        Of the computation.

    Attributes
    ----------
    weights_ : (n_targets, n_voxels)
        In `dtype`.
    intercept_, alpha_ : (n_targets,) float64
        Intercepts and chosen penalties.
    alphas_ : (n_alphas,) float64
        What the penalties were chosen from.
    band_scales_ : (n_targets, n_bands) float64
        Chosen share of each band in the trace of the kernel; rows sum to 1.
    criterion_ : (n_targets,) float64
        Cross-validated squared error per image at the choice.
    n_features_in_ : int
        n_voxels.

    References
    ----------
    Dupré la Tour et al. (2022), Feature-space selection with banded ridge regression,
    NeuroImage 264.

    Examples
    --------
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> decoder = BandedRidge(np.array([0, 0, 1, 1]), n_folds=2, n_samples=3)
    >>> decoder.fit(X, Y).band_scales_.shape
    (2, 2)
    """

    bands: Ints | None = None
    alphas: Sequence[float] | Doubles | None = None
    n_samples: int = 20
    n_folds: int = 5
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"

    _PER_TARGET: ClassVar = (
        *("weights", "intercept", "alpha", "band_scales", "criterion"),
    )

    def fit(self, X: Floats, Y: Targets) -> Self:
        """Fit all targets; they and all kernels are held in memory.

        Parameters
        ----------
        X : (n_images, n_voxels)
            Training responses.
        Y : (n_images, n_targets)
            Training targets.

        Raises
        ------
        ConfigError
            A parameter is out of range.
        DataError
            Shapes do not fit, NaN or infinite values, or no voxel of a band varies.
        """
        check_fit(X, Y)
        # targets lie one after the other, whatever the caller's order: the same sums
        Y = np.asfortranarray(Y[:, 0 : Y.shape[1]])
        self._check(X, Y)
        labels, band = band_columns(self.bands, X.shape[1])
        mean = X.mean(axis=0, dtype=np.float64)
        constant = np.ptp(X, axis=0) == 0
        mean[constant] = X[0, constant]
        centred = (X - mean).astype(self.dtype)
        power = np.square(centred, dtype=np.float64).sum(axis=0)
        trace = np.bincount(band, power, len(labels)).astype(np.float64)
        if not trace.min() > 0:
            raise DataError(
                f"No voxel of band {labels[np.argmin(trace)]} varies over the "
                f"{len(X)} training images: leave the band out or check the responses."
            )
        square = trace.sum() / trace
        parts = [centred[:, band == position] for position in range(len(labels))]
        factors = square.astype(self.dtype)
        kernels = np.stack([(V @ V.T) * f for V, f in zip(parts, factors, strict=True)])
        default = default_alphas(float(trace.sum()), X.shape)
        grid = default if self.alphas is None else self.alphas
        self.alphas_ = np.unique(np.asarray(grid, np.float64))
        model = self._search(kernels, Y.astype(self.dtype))
        self._keep(model, centred, band, square, mean)
        # himalaya's intercept stands for a constant target only up to rounding
        still = np.ptp(Y, axis=0) == 0
        self.weights_[still], self.intercept_[still] = 0, Y[0, still]
        return self

    def _check(self, X: Floats, Y: Floats) -> None:
        check_choice(self.dtype, ("float32", "float64"), "dtype")
        check_alphas(self.alphas)
        for name, least in (("n_samples", 1), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"{name} is {value}, but must be at least {least}.")
        if not 2 <= self.n_folds <= len(X) // 2:
            raise ConfigError(
                f"n_folds is {self.n_folds}, but must be between 2 and half of the "
                f"{len(X)} training images."
            )
        check_finite(bool(np.isfinite(X).all()), "X")
        check_finite(bool(np.isfinite(Y).all()), "Y")

    def _search(self, kernels: Floats, Y: Floats) -> Any:
        """Return himalaya's fitted model."""
        model = MultipleKernelRidgeCV(
            kernels="precomputed",
            solver="random_search",
            solver_params={
                "n_iter": int(self.n_samples),
                "alphas": self.alphas_.astype(self.dtype),
                "progress_bar": False,
            },
            fit_intercept=True,
            cv=int(self.n_folds),
            random_state=int(self.seed),
        )
        before = get_backend().name
        set_backend("numpy")
        try:
            # a sampled share may underflow to 0, whose logarithm himalaya takes
            with np.errstate(divide="ignore"):
                return model.fit(kernels, Y)
        finally:
            set_backend(before)

    def _keep(
        self, model: Any, centred: Floats, band: Ints, square: Doubles, mean: Doubles
    ) -> None:
        """Turn himalaya's dual solution into weights and intercept."""
        scales = np.exp(np.asarray(model.deltas_, np.float64))  # (n_bands, n_targets)
        self.alpha_ = 1 / scales.sum(axis=0)
        self.band_scales_ = np.ascontiguousarray((scales * self.alpha_).T)
        dual = np.asarray(model.dual_coef_)  # (n_images, n_targets)
        self.weights_ = np.ascontiguousarray(dual.T @ centred)
        for position, factor in enumerate(square):
            part = np.ix_(
                np.arange(len(self.weights_)), np.flatnonzero(band == position)
            )
            self.weights_[part] *= (scales[position] * factor)[:, None]
        self.intercept_ = np.asarray(model.intercept_, np.float64)
        self.intercept_ = self.intercept_ - self.weights_ @ mean
        self.criterion_ = -np.max(np.asarray(model.cv_scores_, np.float64), axis=0)
        self.n_features_in_ = centred.shape[1]
