"""The eigenbasis of the responses, and the penalty of each target in it.

One decomposition serves all targets and all penalties: in its basis ridge is a scaling,
and the error of generalised cross-validation has a closed form. Bands are groups of
voxels whose balance is chosen too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from minddiff_utils.core.errors import ConfigError, DataError, check_finite, check_shape
from minddiff_utils.core.types import Doubles, Floats, Ints
from minddiff_utils.decoding.targets import blocks

__all__ = [
    "Basis",
    "band_columns",
    "centred_responses",
    "centred_targets",
    "check_alphas",
    "choose_penalties",
    "default_alphas",
    "eigenbases",
    "times_coefficients",
]

#: Voxels or images that are gathered, checked or converted at once.
_STRIP = 512
#: Default penalties, in units of the mean eigenvalue: 4 per decade, 1e-3 to 1e5.
_GRID = 10.0 ** (np.arange(-12, 21) / 4)


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


# --- responses ----------------------------------------------------------------------


@dataclass(frozen=True)
class Responses:
    """Centred responses and their bands."""

    X: torch.Tensor  # (n_images, n_voxels), centred
    mean: Doubles  # (n_voxels,)
    band: Ints  # (n_voxels,), position of the voxel's band
    trace: Doubles  # (n_bands,), sum of squares of the band's centred responses

    @property
    def is_wide(self) -> bool:
        """Return whether the kernel over images is smaller than that over voxels."""
        return self.X.shape[0] <= self.X.shape[1]


def band_columns(bands: Ints | None, n_voxels: int) -> tuple[Ints, Ints]:
    """Return the sorted labels of the bands and each voxel's position among them.

    None puts all voxels into one band; DataError if there is not one label per voxel.

    >>> band_columns(np.array([7, 2, 7]), 3)
    (array([2, 7]), array([1, 0, 1]))
    """
    if bands is None:
        return np.zeros(1, np.int64), np.zeros(n_voxels, np.int64)
    check_shape(np.shape(bands), (n_voxels,), "bands")
    labels, position = np.unique(np.asarray(bands), return_inverse=True)
    return labels, position


def centred_responses(
    X: Floats, labels: Ints, band: Ints, dtype: torch.dtype
) -> Responses:
    """Return the responses X (n_images, n_voxels), centred, with their bands.

    Constant voxels are exactly 0.

    Raises
    ------
    DataError
        X is not finite, or no voxel of a band varies.
    """
    check_finite(bool(np.isfinite(X).all()), "X")
    mean = X.mean(axis=0, dtype=np.float64)
    constant = X.max(axis=0) == X.min(axis=0)
    mean[constant] = X[0, constant]  # a rounded mean would leave a residue
    centred = torch.empty(X.shape, dtype=dtype)
    power = np.zeros(X.shape[1])
    for rows in blocks(len(X), _STRIP):
        centred[rows] = torch.from_numpy(X[rows] - mean)
        power += centred[rows].double().square().sum(0).numpy()
    trace: Doubles = np.bincount(band, power, len(labels)).astype(np.float64)
    if not trace.min() > 0:
        which = "" if len(labels) == 1 else f" of band {labels[np.argmin(trace)]}"
        raise DataError(
            f"No voxel{which} varies over the {len(X)} training images: leave the band "
            "out or check the responses."
        )
    return Responses(centred, mean, band, trace)


def _gram_matrices(responses: Responses) -> list[torch.Tensor]:
    """Return the kernel over images of each band, or one Gram matrix over voxels."""
    X = responses.X
    size = min(X.shape)
    if not responses.is_wide:
        gram = X.new_zeros((size, size))
        for rows in blocks(len(X), _STRIP):
            gram.addmm_(X[rows].T, X[rows])
        return [gram]
    kernels = []
    for position in range(len(responses.trace)):
        kernel = X.new_zeros((size, size))
        columns = torch.from_numpy(np.flatnonzero(responses.band == position))
        for part in blocks(len(columns), _STRIP):
            strip = X[:, columns[part]]
            kernel.addmm_(strip, strip.T)
        kernels.append(kernel)
    return kernels


# --- bases --------------------------------------------------------------------------


@dataclass(frozen=True)
class Basis:
    """Eigenbasis of the training images under one ratio of the bands.

    The scaled responses are U diag(sqrt(lambda)) V'; a voxel's scale is s_v.
    """

    left: torch.Tensor  # U, (n_images, rank)
    values: torch.Tensor  # lambda, (rank,), float64, ascending
    right: torch.Tensor  # s_v V', (rank, n_voxels), or (rank, 0) if not wanted
    test: torch.Tensor  # `right` times the centred test responses, (rank, n_test)


def eigenbases(
    responses: Responses, shares: Doubles, X_test: torch.Tensor, *, with_right: bool
) -> list[Basis]:
    """Return the eigenbasis under each ratio of bands, `shares` (n_ratios, n_bands).

    The trace of the whole stays what it is, so that penalties mean the same under every
    ratio.
    """
    grams = _gram_matrices(responses)
    trace = responses.trace
    squares = shares * trace.sum() / trace  # by what each band's square is multiplied
    return [_eigenbasis(responses, grams, s, X_test, with_right) for s in squares]


def _combined(
    responses: Responses, grams: list[torch.Tensor], square: Doubles
) -> torch.Tensor:
    """Return the Gram matrix of the responses with each band scaled."""
    if responses.is_wide:
        total: torch.Tensor = grams[0] * square[0]
        for gram, factor in zip(grams[1:], square[1:], strict=True):
            total.add_(gram, alpha=float(factor))
        return total
    scale: torch.Tensor = responses.X.new_tensor(np.sqrt(square)[responses.band])
    scaled = grams[0] * scale
    scaled *= scale[:, None]
    return scaled


def _eigenbasis(
    responses: Responses,
    grams: list[torch.Tensor],
    square: Doubles,
    X_test: torch.Tensor,
    with_right: bool,
) -> Basis:
    """Return the eigenbasis under one ratio.

    1. eigh of the smaller Gram matrix; directions within rounding of 0 are dropped,
       and one for the mean.
    2. The other side's vectors by one product.
    """
    X = responses.X
    voxel_square = X.new_tensor(square[responses.band])
    values, vectors = torch.linalg.eigh(_combined(responses, grams, square))
    limit = torch.finfo(X.dtype).eps * float(values[-1])
    rank = min(int((values > limit).sum()), len(X) - 1)
    values, vectors = values[len(values) - rank :].double(), vectors[:, -rank:]
    root = values.sqrt().to(X.dtype)
    right = X.new_empty((rank, 0))
    if responses.is_wide:
        left = vectors
        if with_right:
            right = ((left / root).T @ X).mul_(voxel_square)
    else:
        scaled = vectors * voxel_square.sqrt()[:, None]
        left = X @ (scaled / root)
        if with_right:
            right = scaled.T.contiguous()
    test = (left / root).T @ (X @ (X_test * voxel_square).T)
    return Basis(left, values, right, test)


# --- targets ------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """The chosen solution of a block of targets."""

    ratio: torch.Tensor  # (n_block,) int64
    alpha: torch.Tensor  # (n_block,) float64
    error: torch.Tensor  # (n_block,) float64, the criterion
    coefficient: torch.Tensor  # (largest rank, n_block), of the rows of `right`


def centred_targets(Y: Floats, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return targets minus their means, and the means in float64.

    A constant target becomes exactly 0, and its mean is exactly the constant.
    """
    check_finite(bool(np.isfinite(Y).all()), "Y")
    y = torch.from_numpy(np.asarray(Y, dtype=np.float64))
    mean = torch.where(y.amax(0) == y.amin(0), y[0], y.mean(0))
    return (y - mean).to(dtype), mean


def _gcv(
    basis: Basis, alphas: torch.Tensor, Y: torch.Tensor, T: torch.Tensor
) -> torch.Tensor:
    """Return n RSS / (n - trace H)^2, (n_alphas, n_block), float64.

    H includes the mean: n - trace H = (n - 1 - rank) + sum_j alpha / (lambda_j +
    alpha), which loses no digits when H nears the identity; likewise RSS.
    """
    n_images, rank = basis.left.shape
    kept = alphas[:, None] / (basis.values + alphas[:, None])  # (n_alphas, rank)
    residual = kept.square() @ T.double().square()
    if rank < n_images - 1:  # what no pattern of voxels reaches
        outside = Y - basis.left @ T
        residual += outside.square().sum(0, dtype=torch.float64)
    freedom = (n_images - 1 - rank) + kept.sum(1, keepdim=True)
    return n_images * residual / freedom.square()


def choose_penalties(
    bases: Sequence[Basis], alphas: torch.Tensor, Y: torch.Tensor
) -> Chosen:
    """Return the best penalty and ratio of each target; ties go to the first of each.

    `alphas` descend, so that the first is the strongest.
    """
    n_block = Y.shape[1]
    rank = max(len(basis.values) for basis in bases)
    ratio = torch.zeros(n_block, dtype=torch.int64)
    alpha = alphas.new_full((n_block,), float(alphas[0]))
    error = alphas.new_full((n_block,), float("inf"))
    coefficient = Y.new_zeros((rank, n_block))
    for number, basis in enumerate(bases):
        T = basis.left.T @ Y  # (rank, n_block)
        least, where = _gcv(basis, alphas, Y, T).min(0)
        better = least < error
        best = alphas[where[better]]
        shrink = basis.values.sqrt()[:, None] / (basis.values[:, None] + best)
        coefficient[:, better] = 0
        coefficient[: len(T), better] = T[:, better] * shrink.to(T.dtype)
        ratio[better], alpha[better], error[better] = number, best, least[better]
    return Chosen(ratio, alpha, error, coefficient)


def times_coefficients(factors: Sequence[torch.Tensor], chosen: Chosen) -> torch.Tensor:
    """Return each target's coefficients times the factor of its ratio.

    `factors` are (rank, width), one for each ratio; the result is (n_block, width).
    """
    n_block = len(chosen.ratio)
    result = factors[0].new_empty((n_block, factors[0].shape[1]))
    for number, factor in enumerate(factors):
        targets = torch.nonzero(chosen.ratio == number)[:, 0]
        if len(targets) == n_block:
            return chosen.coefficient[: len(factor)].T @ factor
        result[targets] = chosen.coefficient[: len(factor), targets].T @ factor
    return result
