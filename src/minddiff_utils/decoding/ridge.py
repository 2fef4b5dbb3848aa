"""Ridge regression of every target on all voxels, from one eigendecomposition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import torch

from minddiff_utils.core.errors import (
    ConfigError,
    check_choice,
    check_finite,
    check_shape,
)
from minddiff_utils.core.types import Doubles, Floats, Ints
from minddiff_utils.decoding._eigenbasis import (
    Basis,
    band_columns,
    centred_responses,
    centred_targets,
    check_alphas,
    choose_penalties,
    default_alphas,
    eigenbases,
    times_coefficients,
)
from minddiff_utils.decoding._linear_decoder import LinearDecoder, Targets, check_fit
from minddiff_utils.decoding.targets import blocks

__all__ = ["RidgeGCV"]


#: Most targets solved at once; wider products are not faster on a CPU.
_BLOCK = 1024
#: A penalty below this times the rounding unit times the largest eigenvalue would be
#: answered with errors above about 1 % in the weakest directions.
_RESOLVED = 100
#: How much more than the others each band gets in turn.
_EMPHASIS = 4.0


def band_shares(n_bands: int) -> Doubles:
    """Return equal bands, then each band in turn with four times the others' part.

    >>> band_shares(2).round(1).tolist()
    [[0.5, 0.5], [0.8, 0.2], [0.2, 0.8]]
    """
    ratios = np.ones((1, n_bands))
    if n_bands > 1:
        emphasis = np.ones((n_bands, n_bands)) + (_EMPHASIS - 1) * np.eye(n_bands)
        ratios = np.vstack([ratios, emphasis])
    return np.asarray(ratios / ratios.sum(axis=1, keepdims=True))


@dataclass(eq=False, repr=False)
class RidgeGCV(LinearDecoder):
    """Ridge regression on all voxels, the penalty of each target chosen by GCV.

    Minimises |y - X w - b|^2 + alpha |w|^2 with b unpenalised, and chooses alpha by
    generalised cross-validation on the training images, the intercept in the hat
    matrix. One symmetric eigendecomposition, of the kernel over images or of the Gram
    matrix over voxels, whichever is smaller, answers for all targets and penalties.

    With `bands`, voxel groups are weighed against each other: the kernel of each group
    is divided by its trace and multiplied by a relative scale, one eigendecomposition
    for each ratio of scales (all equal, then each band in turn at 4 times the others),
    and ratio and penalty of each target are chosen together. Equal scales give each
    band the same total variance, whatever its number of voxels, and so differ from
    ridge without bands.

    Parameters
    ----------
    alphas : sequence of float, optional
        Penalties to choose from, above 0, added to X'X of centred voxels (as
        scikit-learn's). Default: 4 per decade from 1e-3 to 1e5 times the mean
        eigenvalue, as far as `dtype` resolves them.
    bands : (n_voxels,) int, optional
        Label of each voxel's group.
    dtype : {"float32", "float64"}
        Of the large arrays. Criteria, means and penalties are float64 always. float32
        cannot resolve penalties below 1e-5 of the largest eigenvalue and says so.

    Attributes
    ----------
    weights_ : (n_targets, n_voxels)
        In `dtype`.
    intercept_ : (n_targets,) float64
    alpha_ : (n_targets,) float64
        Chosen penalties; the largest for a target that is constant.
    alphas_ : (n_alphas,) float64
        What they were chosen from.
    band_scales_ : (n_targets, n_bands) float64
        Chosen share of each band in the trace of the kernel; rows sum to 1.
    criterion_ : (n_targets,) float64
        The criterion at the choice, an estimate of the squared error per image.
    n_features_in_ : int
        n_voxels.

    References
    ----------
    Golub, Heath and Wahba (1979), Generalized cross-validation as a method for choosing
    a good ridge parameter, Technometrics 21.
    Dupré la Tour et al. (2022), Feature-space selection with banded ridge regression,
    NeuroImage 264.

    Examples
    --------
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> RidgeGCV(alphas=[1.0]).fit(X, Y).predict(X).shape
    (4, 2)
    """

    alphas: Sequence[float] | Doubles | None = None
    bands: Ints | None = None
    dtype: Literal["float32", "float64"] = "float32"

    _PER_TARGET: ClassVar = (
        *("weights", "intercept", "alpha", "band_scales", "criterion"),
    )

    def fit(self, X: Floats, Y: Targets) -> Self:
        """Fit all targets.

        Parameters
        ----------
        X : (n_images, n_voxels)
            Training responses.
        Y : (n_images, n_targets)
            Training targets; read once, in blocks of columns.

        Raises
        ------
        ConfigError
            A parameter is out of range.
        DataError
            Shapes do not fit, NaN or infinite values, fewer than 2 images, or no voxel
            of a band varies.
        """
        self._solve(X, Y, X[:0], with_weights=True)
        return self

    def fit_predict(self, X: Floats, Y: Targets, X_test: Floats) -> Floats:
        """Fit all targets and return their predictions for the responses X_test.

        The weights are never formed, which saves more than half of the time; nothing is
        learnt from X_test.
        """
        check_shape(X_test.shape, (None, X.shape[-1]), "X_test")
        check_finite(bool(np.isfinite(X_test).all()), "X_test")
        return self._solve(X, Y, X_test, with_weights=False)

    def _solve(
        self, X: Floats, Y: Targets, X_test: Floats, *, with_weights: bool
    ) -> Floats:
        """Choose and solve all targets; return the predictions (n_test, n_targets)."""
        check_choice(self.dtype, ("float32", "float64"), "dtype")
        check_alphas(self.alphas)
        check_fit(X, Y, n_images=2)
        kind = getattr(torch, self.dtype)
        responses = centred_responses(X, *band_columns(self.bands, X.shape[1]), kind)
        shares = band_shares(len(responses.trace))
        test = torch.from_numpy(X_test - responses.mean).to(kind)
        bases = eigenbases(responses, shares, test, with_right=with_weights)
        self.alphas_ = self._grid(responses.trace, X.shape, bases)
        n_targets = Y.shape[1]
        self.n_features_in_ = X.shape[1]
        self.alpha_, self.criterion_ = np.empty(n_targets), np.empty(n_targets)
        self.band_scales_ = np.empty((n_targets, shares.shape[1]))
        for name in ("weights_", "intercept_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        if with_weights:
            self.weights_ = np.empty((n_targets, X.shape[1]), self.dtype)
            self.intercept_ = np.empty(n_targets)
        Y_hat = np.empty((len(X_test), n_targets), self.dtype)
        alphas = torch.from_numpy(self.alphas_[::-1].copy())
        for block in blocks(n_targets, _BLOCK):
            centred, offset = centred_targets(Y[:, block], kind)
            chosen = choose_penalties(bases, alphas, centred)
            self.alpha_[block] = chosen.alpha.numpy()
            self.criterion_[block] = chosen.error.numpy()
            self.band_scales_[block] = shares[chosen.ratio.numpy()]
            made = times_coefficients([basis.test for basis in bases], chosen)
            Y_hat[:, block] = (made.double() + offset[:, None]).T.numpy()
            if with_weights:
                W = times_coefficients([basis.right for basis in bases], chosen)
                self.weights_[block] = W.numpy()
                self.intercept_[block] = offset.numpy() - W.numpy() @ responses.mean
        return Y_hat

    def _grid(
        self, trace: Doubles, shape: tuple[int, ...], bases: Sequence[Basis]
    ) -> Doubles:
        """Return the penalties, ascending.

        Raises
        ------
        ConfigError
            One is too small for the precision.
        """
        largest = max(float(basis.values[-1]) for basis in bases)
        least = _RESOLVED * np.finfo(self.dtype).eps * largest
        if self.alphas is None:
            grid = default_alphas(float(trace.sum()), shape)
            return np.asarray(grid[grid >= min(least, grid[-1])])
        grid = np.unique(np.asarray(self.alphas, dtype=np.float64))
        if grid[0] < least:
            remedy = " or use dtype='float64'" if self.dtype == "float32" else ""
            raise ConfigError(
                f"alphas holds {grid[0]:.3g}, but {self.dtype} resolves no penalty "
                f"below {least:.3g} for these responses: leave it out{remedy}."
            )
        return grid
