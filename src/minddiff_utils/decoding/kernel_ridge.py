"""Ridge regression of every target on all voxels, from one eigendecomposition.

`DenseRidge` chooses each target's penalty, and if asked the balance of voxel groups,
by generalised cross-validation or leave-one-out on the training images, for any number
of targets in bounded memory. It does not select voxels (`voxel_selected`) and does not
search scales at random (`banded`). Place in the flow: layer 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from minddiff_utils.core.errors import (
    ConfigError,
    DataError,
    check_choice,
    check_finite,
    check_shape,
)
from minddiff_utils.decoding.all_voxels import (
    MAX_BLOCK,
    AllVoxelDecoder,
    MatrixSink,
    Precision,
    PredictionSink,
)
from minddiff_utils.decoding.eigenbasis import (
    CRITERIA,
    STRIP,
    Basis,
    Choice,
    Design,
    Doubles,
    Floats,
    Ints,
    band_columns,
    centred_design,
    centred_targets,
    check_alphas,
    choose_penalties,
    default_alphas,
    eigenbasis_of,
    gram_matrices,
    times_coefficients,
)
from minddiff_utils.decoding.targets import LIBRARY_BYTES, TargetSource, blocks

__all__ = ["DenseRidge"]

#: A penalty below this times the rounding unit times the largest eigenvalue would be
#: answered with errors above about 1 % in the weakest directions.
_RESOLVED = 100
#: How much more than the others each band gets in turn, in the default ratios.
_EMPHASIS = 4.0


def _default_ratios(n_bands: int) -> Doubles:
    """Return equal bands, then each band in turn with four times the others' part."""
    if n_bands == 1:
        return np.ones((1, 1))
    emphasis = np.ones((n_bands, n_bands)) + (_EMPHASIS - 1) * np.eye(n_bands)
    return np.vstack([np.ones((1, n_bands)), emphasis])


@dataclass(frozen=True)
class _Results:
    """Where a fit writes what is wanted of it."""

    weights: MatrixSink | None
    predictions: PredictionSink | None


@dataclass(frozen=True)
class _Sizes:
    """The sizes that decide how much memory a fit takes."""

    n_images: int
    n_voxels: int
    n_targets: int
    n_test: int
    n_bands: int
    n_ratios: int
    element: int  # bytes
    target_element: int  # bytes, of targets as they are read
    with_weights: bool
    held: int  # bytes of the results that the estimator allocates itself

    @property
    def bases(self) -> int:
        """Return the bytes of all eigenbases."""
        rank = min(self.n_images - 1, self.n_voxels)
        width = self.n_images + self.n_test + self.with_weights * self.n_voxels
        return self.n_ratios * rank * width * self.element

    @property
    def decomposition(self) -> int:
        """Return the most bytes held while the bases are made.

        Centred responses, Gram matrices, and for eigh four matrices of their size
        (input, vectors, and a workspace of two).
        """
        small = min(self.n_images, self.n_voxels)
        n_grams = self.n_bands if self.n_images <= self.n_voxels else 1
        strips = 3 * STRIP * max(self.n_images, self.n_voxels) * 8
        elements = self.n_images * self.n_voxels + (n_grams + 4) * small**2
        test = 4 * self.n_test * max(self.n_voxels, self.n_images)
        return self.bases + (elements + test) * self.element + strips + LIBRARY_BYTES

    def per_target(self, choice: Choice) -> int:
        """Return the bytes of one target in a block."""
        rank = min(self.n_images - 1, self.n_voxels)
        n_images = self.n_images * (self.target_element + 16 + 2 * self.element)
        n_images += (3 * self.n_images * self.element) if choice == "loo" else 0
        n_rank = rank * (5 * self.element + 24)
        n_voxels = self.with_weights * self.n_voxels * (2 * self.element + 8)
        return n_images + n_rank + n_voxels + self.n_test * (2 * self.element + 8)

    def block(self, choice: Choice, max_memory: int) -> int:
        """Return how many targets are solved at once.

        What the decomposition has freed is not counted as free: allocators keep it.

        Raises
        ------
        ConfigError
            Not even one target fits into `max_memory`.
        """
        fixed = self.decomposition + self.held
        least = fixed + self.per_target(choice)
        if least > max_memory:
            hint = " or give weights_out" if self.with_weights and self.held else ""
            raise ConfigError(
                f"max_memory is {max_memory / 1e6:.0f} MB, but {self.n_images} images, "
                f"{self.n_voxels} voxels, {self.n_targets} targets and {self.n_ratios} "
                f"ratio(s) of bands need {least / 1e6:.0f} MB: raise it{hint}."
            )
        fit = (max_memory - fixed) // self.per_target(choice)
        return int(min(fit, MAX_BLOCK, self.n_targets))


class DenseRidge(AllVoxelDecoder):
    """Ridge regression on all voxels with a penalty chosen for each target.

    Minimises |y - X w - b|^2 + alpha |w|^2 with b unpenalised. One symmetric
    eigendecomposition, of the kernel over images or of the Gram matrix over voxels,
    whichever is smaller, answers for all targets and all penalties; targets are read
    once, in blocks of columns.

    With `bands`, voxel groups are weighed against each other: the kernel of each group
    is divided by its trace and multiplied by a relative scale, one eigendecomposition
    for each ratio of scales, and ratio and penalty of each target are chosen together
    by the same criterion. Equal scales give each band the same total variance, whatever
    its number of voxels, and so differ from ridge without bands.

    Parameters
    ----------
    alphas : sequence of float, optional
        Penalties to choose from, above 0, added to X'X of centred voxels (as
        scikit-learn's). Default: 4 per decade from 1e-3 to 1e5 times the mean
        eigenvalue, as far as `dtype` resolves them.
    choice : {"gcv", "loo"}
        Generalised cross-validation, cheap, or the exact mean squared leave-one-out
        error, which costs one more product per penalty. Both with the intercept in the
        hat matrix, both on training images alone.
    bands : (n_voxels,) int, optional
        Label of each voxel's group.
    band_ratios : (n_ratios, n_bands) float, optional
        Relative scales to choose from, bands in ascending order of their labels; only
        ratios matter. Default: all equal, then each band in turn at 4 times the others.
    dtype : {"float32", "float64"}
        Of the large arrays. Criteria, means and penalties are float64 always. float32
        cannot resolve penalties below 1e-5 of the largest eigenvalue and says so.
    device : str
        A torch device, such as "cpu" or "cuda".
    max_memory : int
        Bytes that a fit may allocate beyond its arguments, results included, on each of
        host and device. Block sizes follow from it and change results by rounding only.

    Attributes
    ----------
    weights_ : (n_targets, n_voxels)
        In `dtype`, or what was given as `weights_out`.
    intercept_ : (n_targets,) float64
    alpha_ : (n_targets,) float64
        Chosen penalties; the largest for a target that is constant.
    band_scales_ : (n_targets, n_bands) float64
        Chosen share of each band in the trace of the kernel; rows sum to 1.
    criterion_ : (n_targets,) float64
        The criterion at the choice, an estimate of the squared error per image.
    alphas_, ratios_ : (n_alphas,), (n_ratios, n_bands) float64
        What was chosen from; ratios sum to 1. Of a fit only.
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
    >>> DenseRidge(alphas=[1.0]).fit(X, Y).predict(X).shape
    (4, 2)
    """

    alphas_: Doubles
    ratios_: Doubles

    def __init__(
        self,
        alphas: Sequence[float] | Doubles | None = None,
        choice: Choice = "gcv",
        bands: Ints | None = None,
        band_ratios: Doubles | None = None,
        dtype: Precision = "float32",
        device: str = "cpu",
        max_memory: int = 6_000_000_000,
    ) -> None:
        self.alphas = alphas
        self.choice = choice
        self.bands = bands
        self.band_ratios = band_ratios
        self.dtype = dtype
        self.device = device
        self.max_memory = max_memory

    def fit(
        self, X: Floats, Y: TargetSource, weights_out: MatrixSink | None = None
    ) -> Self:
        """Fit all targets and keep their weights.

        Parameters
        ----------
        X : (n_images, n_voxels)
            Training responses.
        Y : (n_images, n_targets)
            Training targets: an array, a tensor, an `h5py.Dataset`, `ScaledTargets`;
            read in blocks `Y[:, start:stop]`, never whole.
        weights_out : (n_targets, n_voxels), optional
            An array or `h5py.Dataset` that takes the weights and becomes `weights_`;
            default: a new array, which counts towards `max_memory`.

        Raises
        ------
        ConfigError
            A parameter is out of range, or `max_memory` is too small.
        DataError
            Shapes do not fit, NaN or infinite values, fewer than 2 images, or no voxel
            of a band varies.
        """
        shape = (Y.shape[-1], X.shape[-1])
        held = 0 if weights_out is not None else int(np.prod(shape)) * self._element()
        block = self._plan(X, Y, n_test=0, with_weights=True, held=held)
        if weights_out is None:
            weights_out = np.empty(shape, self.dtype)
        check_shape(weights_out.shape, shape, "weights_out")
        bases, mean = self._decompose(X, X[:0], with_right=True)
        self._solve(bases, mean, Y, block, _Results(weights_out, None))
        return self

    def fit_predict(
        self,
        X: Floats,
        Y: TargetSource,
        X_test: Floats,
        *,
        weights_out: MatrixSink | None = None,
        predictions_out: PredictionSink | None = None,
    ) -> Any:
        """Fit all targets and return their predictions for `X_test`.

        Without `weights_out` the weights are never formed, which saves more than half
        of the time; `predict`, `voxel_weight`, `noise_gain` and `arrays` then say that
        there are none.

        Parameters
        ----------
        X, Y
            As in `fit`; nothing is learnt from `X_test`.
        X_test : (n_test, n_voxels)
            Responses to decode.
        weights_out : (n_targets, n_voxels), optional
            As in `fit`, but nothing is kept by default.
        predictions_out : (n_test, n_targets), optional
            Takes the predictions; default: a new array, which counts towards
            `max_memory`.

        Returns
        -------
        (n_test, n_targets)
            In `dtype`, or `predictions_out`.

        Raises
        ------
        ConfigError, DataError
            As `fit`.
        """
        check_shape(X_test.shape, (None, X.shape[-1]), "X_test")
        check_finite(bool(np.isfinite(X_test).all()), "X_test")
        shape = (len(X_test), Y.shape[-1])
        keep = weights_out is not None
        held = int(np.prod(shape)) * self._element()
        held = 0 if predictions_out is not None else held
        block = self._plan(X, Y, n_test=len(X_test), with_weights=keep, held=held)
        if predictions_out is None:
            predictions_out = np.empty(shape, self.dtype)
        check_shape(predictions_out.shape, shape, "predictions_out")
        if weights_out is not None:
            check_shape(weights_out.shape, (shape[1], X.shape[1]), "weights_out")
        bases, mean = self._decompose(X, X_test, with_right=keep)
        self._solve(bases, mean, Y, block, _Results(weights_out, predictions_out))
        return predictions_out

    # --- checks and sizes ---

    def _element(self) -> int:
        check_choice(self.dtype, ("float32", "float64"), "dtype")
        return int(np.dtype(self.dtype).itemsize)

    def _check(self, X: Floats, Y: TargetSource) -> None:
        check_choice(self.choice, tuple(CRITERIA), "choice")
        check_alphas(self.alphas)
        check_shape(X.shape, (None, None), "X")
        check_shape(Y.shape, (len(X), None), "Y")
        if len(X) < 2:
            raise DataError(f"Ridge needs 2 training images or more, not {len(X)}.")
        if X.shape[1] == 0 or Y.shape[1] == 0:
            raise DataError(f"X {X.shape} and Y {Y.shape} hold nothing to fit.")

    def _ratios(self, n_bands: int) -> Doubles:
        """Return the shares of the bands to choose from, each row summing to 1."""
        if self.band_ratios is None:
            ratios = _default_ratios(n_bands)
        else:
            ratios = np.asarray(self.band_ratios, dtype=np.float64)
        fits = ratios.ndim == 2 and ratios.shape[1] == n_bands and len(ratios) > 0
        if not (fits and np.isfinite(ratios).all() and ratios.min() > 0):
            raise ConfigError(
                f"band_ratios has shape {ratios.shape}, but must hold in every row one "
                f"finite scale above 0 for each of {n_bands} band(s)."
            )
        return np.asarray(ratios / ratios.sum(axis=1, keepdims=True))

    def _plan(
        self, X: Floats, Y: TargetSource, *, n_test: int, with_weights: bool, held: int
    ) -> int:
        """Check everything that can be checked before the work; return the block."""
        self._check(X, Y)
        labels, _ = band_columns(self.bands, X.shape[1])
        sizes = _Sizes(
            n_images=len(X),
            n_voxels=X.shape[1],
            n_targets=Y.shape[1],
            n_test=n_test,
            n_bands=len(labels),
            n_ratios=len(self._ratios(len(labels))),
            element=self._element(),
            target_element=_element_read(Y),
            with_weights=with_weights,
            held=held,
        )
        return sizes.block(self.choice, self.max_memory)

    # --- the fit ---

    def _decompose(
        self, X: Floats, X_test: Floats, *, with_right: bool
    ) -> tuple[list[Basis], Doubles]:
        """Return the basis of each ratio and the voxel means; set the grid."""
        device = torch.device(self.device)
        kind = torch.float32 if self.dtype == "float32" else torch.float64
        design = centred_design(X, self.bands, kind, device)
        test = torch.from_numpy(X_test - design.mean).to(device, kind)
        self.ratios_ = self._ratios(len(design.trace))
        grams = gram_matrices(design)
        bases = [
            eigenbasis_of(design, grams, row, test, with_right=with_right)
            for row in self.ratios_
        ]
        self.alphas_ = self._grid(design, bases)
        self.n_features_in_ = X.shape[1]
        return bases, design.mean

    def _grid(self, design: Design, bases: Sequence[Basis]) -> Doubles:
        """Return the penalties, ascending.

        Raises
        ------
        ConfigError
            One is too small for the precision.
        """
        largest = max(float(basis.values[-1]) for basis in bases)
        least = _RESOLVED * torch.finfo(design.X.dtype).eps * largest
        if self.alphas is None:
            grid = default_alphas(float(design.trace.sum()), design.X.shape)
            return np.asarray(grid[grid >= min(least, grid[-1])])
        grid = np.unique(np.asarray(self.alphas, dtype=np.float64))
        if grid[0] < least:
            remedy = " or use dtype='float64'" if self.dtype == "float32" else ""
            raise ConfigError(
                f"alphas holds {grid[0]:.3g}, but {self.dtype} resolves no penalty "
                f"below {least:.3g} for these responses: leave it out{remedy}."
            )
        return grid

    def _solve(
        self,
        bases: Sequence[Basis],
        mean: Doubles,
        Y: TargetSource,
        block: int,
        results: _Results,
    ) -> None:
        """Choose and solve all targets, block by block."""
        n_targets, device = Y.shape[1], bases[0].values.device
        alphas = torch.from_numpy(self.alphas_[::-1].copy()).to(device)
        self.alpha_, self.criterion_ = np.empty(n_targets), np.empty(n_targets)
        self.band_scales_ = np.empty((n_targets, self.ratios_.shape[1]))
        for name in ("weights_", "intercept_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        if results.weights is not None:
            self.weights_, self.intercept_ = results.weights, np.empty(n_targets)
        for part in blocks(n_targets, block):
            centred, offset = centred_targets(Y, part, bases[0].left)
            chosen = choose_penalties(bases, alphas, centred, self.choice)
            del centred
            self.alpha_[part] = chosen.alpha.cpu().numpy()
            self.criterion_[part] = chosen.error.cpu().numpy()
            self.band_scales_[part] = self.ratios_[chosen.ratio.cpu().numpy()]
            if results.predictions is not None:
                Y_hat = times_coefficients(
                    [basis.test for basis in bases], chosen
                ).double()
                Y_hat += offset[:, None]
                results.predictions[:, part] = Y_hat.T.cpu().numpy().astype(self.dtype)
            if results.weights is not None:
                W = (
                    times_coefficients([basis.right for basis in bases], chosen)
                    .cpu()
                    .numpy()
                )
                results.weights[part] = W
                self.intercept_[part] = offset.cpu().numpy() - W @ mean


def _element_read(Y: TargetSource) -> int:
    """Return the bytes that an element takes while its block is read.

    A source that does not say its dtype may compute what it gives (`ScaledTargets`):
    it gets room for its source, an intermediate and the result in float64.
    """
    dtype = getattr(Y, "dtype", None)
    return dtype.itemsize if isinstance(dtype, np.dtype) else 3 * 8
