"""Ridge regression of every target on all voxels, from one eigendecomposition.

`DenseRidge` chooses each target's penalty, and if asked the balance of voxel groups,
by generalised cross-validation or leave-one-out on the training images, for any number
of targets in bounded memory. It does not select voxels (`voxel_selected`) and does not
search scales at random (`banded`). Place in the flow: layer 7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, RegressorMixin

from minddiff_utils.decoders.targets import (
    LIBRARY_BYTES,
    TargetSource,
    blocks,
    read_targets,
)
from minddiff_utils.errors import (
    ConfigError,
    DataError,
    check_choice,
    check_finite,
    check_shape,
)

__all__ = [
    "AllVoxelDecoder",
    "DenseRidge",
    "MatrixSink",
    "Precision",
    "PredictionSink",
    "band_columns",
    "check_alphas",
    "default_alphas",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Choice = Literal["gcv", "loo"]
Precision = Literal["float32", "float64"]

#: Most targets solved at once; wider products are not faster on a CPU.
_MAX_BLOCK = 1024
#: Voxels or images that are gathered, checked or converted at once.
_STRIP = 512
#: A penalty below this times the rounding unit times the largest eigenvalue would be
#: answered with errors above about 1 % in the weakest directions.
_RESOLVED = 100
#: Default penalties, in units of the mean eigenvalue: 4 per decade, 1e-3 to 1e5.
_GRID = 10.0 ** (np.arange(-12, 21) / 4)
#: How much more than the others each band gets in turn, in the default ratios.
_EMPHASIS = 4.0


class PredictionSink(Protocol):
    """Where predictions go in blocks, whatever becomes of them there."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the results."""

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Take a block."""


class MatrixSink(PredictionSink, Protocol):
    """Where results go to stay: a numpy array, memory map or `h5py.Dataset`."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return what was written."""


def check_alphas(alphas: Sequence[float] | Doubles | None) -> None:
    """Raise ConfigError unless `alphas` is None or holds finite penalties above 0."""
    if alphas is None:
        return
    grid = np.asarray(alphas, dtype=np.float64)
    if grid.ndim != 1 or grid.size == 0 or not np.all((grid > 0) & np.isfinite(grid)):
        raise ConfigError(
            f"alphas is {alphas!r}, but must hold one or more finite penalties above 0."
        )


def default_alphas(trace: float, shape: tuple[int, ...]) -> Doubles:
    """Return 4 penalties per decade, 1e-3 to 1e5 times the mean eigenvalue.

    `trace` is the sum of squares of centred responses (n_images, n_voxels) of `shape`,
    which have min(n_images - 1, n_voxels) directions.
    """
    return np.asarray(_GRID * (trace / min(shape[0] - 1, shape[1])))


# --- the eigenbasis -------------------------------------------------------------------


@dataclass(frozen=True)
class _Design:
    """What all targets share: centred responses and the Gram matrices they give."""

    X: torch.Tensor  # (n_images, n_voxels), centred
    mean: Doubles  # (n_voxels,)
    band: Ints  # (n_voxels,), position of the voxel's band
    trace: Doubles  # (n_bands,), sum of squares of the band's centred responses

    @property
    def is_wide(self) -> bool:
        """Return whether the kernel over images is smaller than that over voxels."""
        return self.X.shape[0] <= self.X.shape[1]


@dataclass(frozen=True)
class _Basis:
    """Eigenbasis of the training images under one ratio of the bands.

    The scaled responses are U diag(sqrt(lambda)) V'; a voxel's scale is s_v.
    """

    left: torch.Tensor  # U, (n_images, rank)
    values: torch.Tensor  # lambda, (rank,), float64, ascending
    right: torch.Tensor  # s_v V', (rank, n_voxels), or (rank, 0) if not wanted
    test: torch.Tensor  # `right` times the centred test responses, (rank, n_test)


@dataclass(frozen=True)
class _Chosen:
    """The chosen solution of a block of targets."""

    ratio: torch.Tensor  # (n_block,) int64
    alpha: torch.Tensor  # (n_block,) float64
    error: torch.Tensor  # (n_block,) float64, the criterion
    coefficient: torch.Tensor  # (largest rank, n_block), of the rows of `right`


def _centred(
    X: Floats, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, Doubles]:
    """Return X minus its voxel means, and the means; constant voxels are exactly 0."""
    for rows in blocks(len(X), _STRIP):
        check_finite(bool(np.isfinite(X[rows]).all()), "X")
    mean = X.mean(axis=0, dtype=np.float64)
    constant = X.max(axis=0) == X.min(axis=0)
    mean[constant] = X[0, constant]  # a rounded mean would leave a residue
    centred = torch.empty(X.shape, dtype=dtype, device=device)
    for rows in blocks(len(X), _STRIP):
        centred[rows] = torch.from_numpy(X[rows] - mean).to(device)
    return centred, mean


def band_columns(bands: Ints | None, n_voxels: int) -> tuple[Ints, Ints]:
    """Return the sorted labels of the bands and each voxel's position among them.

    Parameters
    ----------
    bands : (n_voxels,) int, optional
        A label per voxel; None puts all voxels into one band.
    n_voxels : int

    Raises
    ------
    DataError
        Not one label per voxel.

    Examples
    --------
    >>> band_columns(np.array([7, 2, 7]), 3)
    (array([2, 7]), array([1, 0, 1]))
    """
    if bands is None:
        return np.zeros(1, np.int64), np.zeros(n_voxels, np.int64)
    check_shape(np.shape(bands), (n_voxels,), "bands")
    labels, position = np.unique(np.asarray(bands), return_inverse=True)
    return labels, position


def _design(
    X: Floats, bands: Ints | None, dtype: torch.dtype, device: torch.device
) -> _Design:
    labels, band = band_columns(bands, X.shape[1])
    centred, mean = _centred(X, dtype, device)
    power = np.zeros(X.shape[1])
    for rows in blocks(len(X), _STRIP):
        power += centred[rows].double().square().sum(0).cpu().numpy()
    trace: Doubles = np.bincount(band, power, len(labels)).astype(np.float64)
    if not trace.min() > 0:
        which = "" if bands is None else f" of band {labels[np.argmin(trace)]}"
        raise DataError(
            f"No voxel{which} varies over the {len(X)} training images: leave the band "
            "out or check the responses."
        )
    return _Design(centred, mean, band, trace)


def _grams(design: _Design) -> list[torch.Tensor]:
    """Return the kernel over images of each band, or one Gram matrix over voxels."""
    X = design.X
    size = min(X.shape)
    if not design.is_wide:
        gram = X.new_zeros((size, size))
        for rows in blocks(len(X), _STRIP):
            gram.addmm_(X[rows].T, X[rows])
        return [gram]
    kernels = []
    for position in range(len(design.trace)):
        kernel = X.new_zeros((size, size))
        columns = torch.from_numpy(np.flatnonzero(design.band == position))
        columns = columns.to(X.device)
        for part in blocks(len(columns), _STRIP):
            strip = X[:, columns[part]]
            kernel.addmm_(strip, strip.T)
        kernels.append(kernel)
    return kernels


def _balanced(design: _Design, share: Doubles) -> Doubles:
    """Return by what the square of each band is multiplied to own its trace share.

    The trace of the whole stays what it is, so that penalties mean the same under
    every ratio.
    """
    return np.asarray(share * design.trace.sum() / design.trace)


def _combined(
    design: _Design, grams: list[torch.Tensor], square: Doubles
) -> torch.Tensor:
    """Return the Gram matrix of the responses with each band scaled."""
    if design.is_wide:
        total: torch.Tensor = grams[0] * square[0]
        for gram, factor in zip(grams[1:], square[1:], strict=True):
            total.add_(gram, alpha=float(factor))
        return total
    scale: torch.Tensor = design.X.new_tensor(np.sqrt(square)[design.band])
    scaled = grams[0] * scale
    scaled *= scale[:, None]
    return scaled


def _basis(
    design: _Design,
    grams: list[torch.Tensor],
    share: Doubles,
    X_test: torch.Tensor,
    *,
    with_right: bool,
) -> _Basis:
    """Return the eigenbasis under one ratio.

    1. eigh of the smaller Gram matrix; directions within rounding of 0 are dropped,
       and one for the mean.
    2. The other side's vectors by one product.
    """
    X, square = design.X, _balanced(design, share)
    voxel_square = X.new_tensor(square[design.band])
    values, vectors = torch.linalg.eigh(_combined(design, grams, square))
    limit = torch.finfo(X.dtype).eps * float(values[-1])
    rank = min(int((values > limit).sum()), len(X) - 1)
    values, vectors = values[len(values) - rank :].double(), vectors[:, -rank:]
    root = values.sqrt().to(X.dtype)
    right = X.new_empty((rank, 0))
    if design.is_wide:
        left = vectors
        if with_right:
            right = ((left / root).T @ X).mul_(voxel_square)
    else:
        scaled = vectors * voxel_square.sqrt()[:, None]
        left = X @ (scaled / root)
        if with_right:
            right = scaled.T.contiguous()
    test = (left / root).T @ (X @ (X_test * voxel_square).T)
    return _Basis(left, values, right, test)


# --- the choice -----------------------------------------------------------------------


def _outside(basis: _Basis, Y: torch.Tensor, T: torch.Tensor) -> torch.Tensor | None:
    """Return what of centred Y no voxel pattern reaches, None if all is reached."""
    n_images, rank = basis.left.shape
    return None if rank == n_images - 1 else Y - basis.left @ T


def _gcv(
    basis: _Basis, alphas: torch.Tensor, Y: torch.Tensor, T: torch.Tensor
) -> torch.Tensor:
    """Return n RSS / (n - trace H)^2, (n_alphas, n_block), float64.

    H includes the mean: n - trace H = (n - 1 - rank) + sum_j alpha / (lambda_j +
    alpha), which loses no digits when H nears the identity; likewise RSS.
    """
    n_images, rank = basis.left.shape
    kept = alphas[:, None] / (basis.values + alphas[:, None])  # (n_alphas, rank)
    residual = kept.square() @ T.double().square()
    outside = _outside(basis, Y, T)
    if outside is not None:
        residual += outside.square().sum(0, dtype=torch.float64)
    freedom = (n_images - 1 - rank) + kept.sum(1, keepdim=True)
    return n_images * residual / freedom.square()


def _loo(
    basis: _Basis, alphas: torch.Tensor, Y: torch.Tensor, T: torch.Tensor
) -> torch.Tensor:
    """Return the mean squared leave-one-out error, (n_alphas, n_block), float64.

    e_i = (y_i - yhat_i) / (1 - H_ii), with the mean in H, so that the intercept is
    fitted without image i too.
    """
    U = basis.left
    strips = list(blocks(len(U), _STRIP))
    outside = _outside(basis, Y, T)
    mean_only = torch.zeros(len(U), dtype=U.dtype, device=U.device)
    if outside is not None:  # else 1 - 1/n - sum_j U_ij^2 is 0
        for rows in strips:
            mean_only[rows] = 1 - 1 / len(U) - U[rows].square().sum(1)
    error = T.new_empty((len(alphas), T.shape[1]), dtype=torch.float64)
    for row, alpha in enumerate(alphas):
        kept = (alpha / (basis.values + alpha)).to(U.dtype)
        residual = U @ (kept[:, None] * T)
        if outside is not None:
            residual += outside
        free = torch.cat([U[rows].square() @ kept for rows in strips])
        residual /= (free + mean_only.clamp(min=0))[:, None]
        error[row] = residual.square_().mean(0, dtype=torch.float64)
    return error


_CRITERIA = {"gcv": _gcv, "loo": _loo}


def _choose(
    bases: Sequence[_Basis], alphas: torch.Tensor, Y: torch.Tensor, choice: Choice
) -> _Chosen:
    """Return the best penalty and ratio of each target; ties go to the first of each.

    `alphas` descend, so that the first is the strongest.
    """
    n_block = Y.shape[1]
    rank = max(len(basis.values) for basis in bases)
    ratio = torch.zeros(n_block, dtype=torch.int64, device=Y.device)
    alpha = alphas.new_full((n_block,), float(alphas[0]))
    error = alphas.new_full((n_block,), float("inf"))
    coefficient = Y.new_zeros((rank, n_block))
    for number, basis in enumerate(bases):
        T = basis.left.T @ Y  # (rank, n_block)
        least, where = _CRITERIA[choice](basis, alphas, Y, T).min(0)
        better = least < error
        own = alphas[where[better]]
        shrink = basis.values.sqrt()[:, None] / (basis.values[:, None] + own)
        coefficient[:, better] = 0
        coefficient[: len(T), better] = T[:, better] * shrink.to(T.dtype)
        ratio[better], alpha[better], error[better] = number, own, least[better]
    return _Chosen(ratio, alpha, error, coefficient)


def _default_ratios(n_bands: int) -> Doubles:
    """Return equal bands, then each band in turn with four times the others' part."""
    if n_bands == 1:
        return np.ones((1, 1))
    emphasis = np.ones((n_bands, n_bands)) + (_EMPHASIS - 1) * np.eye(n_bands)
    return np.vstack([np.ones((1, n_bands)), emphasis])


# --- the estimator --------------------------------------------------------------------


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
        strips = 3 * _STRIP * max(self.n_images, self.n_voxels) * 8
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
        return int(min(fit, _MAX_BLOCK, self.n_targets))


class AllVoxelDecoder(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """What fitted linear decoders with a weight for every voxel can say and save.

    Attributes
    ----------
    weights_ : (n_targets, n_voxels)
        An array, memory map or `h5py.Dataset`.
    intercept_, alpha_, criterion_ : (n_targets,) float64
        Intercept, chosen penalty, and estimated squared error per image.
    band_scales_ : (n_targets, n_bands) float64
        Share of each band in the trace of the kernel; rows sum to 1.
    n_features_in_ : int
        n_voxels.
    """

    bands: Ints | None
    dtype: Precision
    weights_: Any
    intercept_: Doubles
    alpha_: Doubles
    band_scales_: Doubles
    criterion_: Doubles
    n_features_in_: int

    def __init__(self, bands: Ints | None = None, dtype: Precision = "float32") -> None:
        self.bands = bands
        self.dtype = dtype

    def _require_weights(self) -> None:
        if not hasattr(self, "alpha_"):
            raise DataError("The decoder has not been fitted: call fit first.")
        if not hasattr(self, "weights_"):
            raise DataError(
                "The decoder kept no weights: call fit, or give weights_out to "
                "fit_predict."
            )

    def _weight_blocks(self) -> list[slice]:
        self._require_weights()
        size = max(1, _STRIP * _MAX_BLOCK * 8 // self.n_features_in_)
        return list(blocks(len(self.intercept_), size))

    def predict(self, X: Floats) -> Floats:
        """Return the predictions (n_images, n_targets) for responses X, in `dtype`.

        Raises
        ------
        DataError
            Not fitted, no weights kept, another number of voxels, or NaN or infinite
            values.
        """
        parts = self._weight_blocks()
        check_shape(X.shape, (None, self.n_features_in_), "X")
        check_finite(bool(np.isfinite(X).all()), "X")
        responses = X.astype(self.dtype, copy=False)
        Y_hat = np.empty((len(X), len(self.intercept_)), self.dtype)
        for part in parts:
            W = np.asarray(self.weights_[part])
            Y_hat[:, part] = responses @ W.T + self.intercept_[part]
        return Y_hat

    def voxel_weight(self) -> Doubles:
        """Return the mean over targets of the absolute weight, (n_voxels,)."""
        parts = self._weight_blocks()
        total = np.zeros(self.n_features_in_)
        for part in parts:
            total += np.abs(self.weights_[part]).sum(axis=0, dtype=np.float64)
        return np.asarray(total / len(self.intercept_))

    def noise_gain(self, voxel_noise: Doubles) -> Doubles:
        """Return sum_v w_v^2 noise_v of each target, (n_targets,), float64."""
        parts = self._weight_blocks()
        check_shape(voxel_noise.shape, (self.n_features_in_,), "voxel_noise")
        gain = np.empty(len(self.intercept_))
        for part in parts:
            gain[part] = np.square(self.weights_[part], dtype=np.float64) @ voxel_noise
        return gain

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `from_arrays` needs.

        Per target, in the first axis: weights, intercept, alpha, band_scales,
        criterion. Weights in a file are read whole.
        """
        self._require_weights()
        found: dict[str, npt.NDArray[Any]] = {
            "weights": np.asarray(self.weights_[:]),
            "intercept": self.intercept_,
            "alpha": self.alpha_,
            "band_scales": self.band_scales_,
            "criterion": self.criterion_,
        }
        if self.bands is not None:
            # a row, so that its first axis is never as long as that of the targets
            found["bands"] = np.asarray(self.bands)[None]
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the fitted decoder that `arrays` came from, or some of its targets.

        Parameters that only matter to a fit are at their defaults.

        Raises
        ------
        DataError
            An array is missing, or the arrays do not fit together.
        """
        per_target = ("intercept", "alpha", "band_scales", "criterion")
        missing = [key for key in ("weights", *per_target) if key not in arrays]
        if missing:
            raise DataError(
                f"The decoder lacks {', '.join(missing)}: run notebook 02 again."
            )
        weights = arrays["weights"]
        check_shape(weights.shape, (None, None), "Decoder's weights")
        n_targets, n_voxels = weights.shape
        bands = arrays["bands"][0] if "bands" in arrays else None
        labels, _ = band_columns(bands, n_voxels)
        shapes: dict[str, tuple[int, ...]] = {k: (n_targets,) for k in per_target}
        shapes["band_scales"] = (n_targets, len(labels))
        for key, shape in shapes.items():
            check_shape(arrays[key].shape, shape, f"Decoder's {key}")
        dtype: Precision = "float64" if weights.dtype == np.float64 else "float32"
        decoder = cls(bands=bands, dtype=dtype)
        decoder.n_features_in_ = n_voxels
        decoder.weights_ = weights.astype(dtype)
        for key in per_target:
            setattr(decoder, f"{key}_", arrays[key].astype(np.float64))
        return decoder


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
        check_choice(self.choice, tuple(_CRITERIA), "choice")
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
    ) -> tuple[list[_Basis], Doubles]:
        """Return the basis of each ratio and the voxel means; set the grid."""
        device = torch.device(self.device)
        kind = torch.float32 if self.dtype == "float32" else torch.float64
        design = _design(X, self.bands, kind, device)
        test = torch.from_numpy(X_test - design.mean).to(device, kind)
        self.ratios_ = self._ratios(len(design.trace))
        grams = _grams(design)
        bases = [
            _basis(design, grams, row, test, with_right=with_right)
            for row in self.ratios_
        ]
        self.alphas_ = self._grid(design, bases)
        self.n_features_in_ = X.shape[1]
        return bases, design.mean

    def _grid(self, design: _Design, bases: Sequence[_Basis]) -> Doubles:
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
        bases: Sequence[_Basis],
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
            centred, offset = _centred_targets(Y, part, bases[0].left)
            chosen = _choose(bases, alphas, centred, self.choice)
            del centred
            self.alpha_[part] = chosen.alpha.cpu().numpy()
            self.criterion_[part] = chosen.error.cpu().numpy()
            self.band_scales_[part] = self.ratios_[chosen.ratio.cpu().numpy()]
            if results.predictions is not None:
                Y_hat = _products([basis.test for basis in bases], chosen).double()
                Y_hat += offset[:, None]
                results.predictions[:, part] = Y_hat.T.cpu().numpy().astype(self.dtype)
            if results.weights is not None:
                W = _products([basis.right for basis in bases], chosen).cpu().numpy()
                results.weights[part] = W
                self.intercept_[part] = offset.cpu().numpy() - W @ mean


def _element_read(Y: TargetSource) -> int:
    """Return the bytes that an element takes while its block is read.

    A source that does not say its dtype may compute what it gives (`ScaledTargets`):
    it gets room for its source, an intermediate and the result in float64.
    """
    dtype = getattr(Y, "dtype", None)
    return dtype.itemsize if isinstance(dtype, np.dtype) else 3 * 8


def _centred_targets(
    Y: TargetSource, part: slice, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a block of targets minus their means, and the means in float64.

    A constant target becomes exactly 0, and its mean is exactly the constant.
    """
    block = np.asarray(read_targets(Y, part), dtype=np.float64)
    y = torch.from_numpy(block).to(like.device)
    mean = y.mean(0)
    mean = torch.where(y.amax(0) == y.amin(0), y[0], mean)
    return (y - mean).to(like.dtype), mean


def _products(factors: Sequence[torch.Tensor], chosen: _Chosen) -> torch.Tensor:
    """Return each target's coefficients times the factor of its ratio.

    `factors` are (rank, width), one for each ratio; the result is (n_block, width).
    """
    n_block = len(chosen.ratio)
    result = factors[0].new_empty((n_block, factors[0].shape[1]))
    for number, factor in enumerate(factors):
        own = torch.nonzero(chosen.ratio == number)[:, 0]
        if len(own) == n_block:
            return chosen.coefficient[: len(factor)].T @ factor
        result[own] = chosen.coefficient[: len(factor), own].T @ factor
    return result
