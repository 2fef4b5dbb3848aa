"""Which solver, which block size: decided from sizes before anything is computed.

Costs are operation counts over nominal rates, never timings, so that the same sizes on
the same kind of processor always give the same plan and the same bytes. Place in the
flow: layer 7, below `voxel_selected`.
"""

import math
from dataclasses import dataclass

import torch

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.decoding.design import GRAM_TILE
from minddiff_utils.decoding.masked_cg import OVERSAMPLING, RANK
from minddiff_utils.decoding.targets import LIBRARY_BYTES

__all__ = [
    "Rates",
    "Sizes",
    "block_targets",
    "choose_solver",
    "device_rates",
    "expected_iterations",
]

#: Targets of one block of conjugate gradients: wide products, 0.3 GB at 12,000 voxels.
_CG_TARGETS = 512
#: Elements of one block of targets by voxels or images for the exact solver.
_BLOCK_ELEMENTS = 8_000_000
#: Exact residuals per target beside bfloat16 products (`masked_cg`: measured 3).
_EXACT_RESIDUALS = 3


@dataclass(frozen=True)
class Rates:
    """Nominal speed of one core or one GPU, in operations or bytes per second.

    Attributes
    ----------
    product : float
        Large matrix products in float32.
    low_product : float
        The same in bfloat16; 0 where it is no faster.
    cholesky : float
        Factorisation of a matrix of 500 to 5,000 rows in float32.
    gather : float
        Elements of a submatrix gathered.
    memory : float
        Bytes moved by elementwise work.
    """

    product: float
    low_product: float
    cholesky: float
    gather: float
    memory: float


#: Measured on one core of a Xeon of 2023 (AMX), an EPYC (AVX-512 BF16), and rounded.
_AMX = Rates(2e11, 1.0e12, 6e10, 4e8, 1e10)
_AVX512_BF16 = Rates(8e10, 1.5e11, 5e10, 3e8, 1e10)
_PLAIN = Rates(6e10, 0, 4e10, 3e8, 1e10)
#: Data sheet of the H100, halved; small factorisations reach a tenth of it.
_GPU = Rates(2.5e13, 4e14, 2e12, 1e11, 1e12)


def device_rates(device: str) -> Rates:
    """Return the rates of the processor or of the GPU."""
    if device != "cpu":
        return _GPU
    if torch.cpu._is_amx_tile_supported():
        return _AMX
    if torch.cpu._is_avx512_bf16_supported():
        return _AVX512_BF16
    return _PLAIN


@dataclass(frozen=True)
class Sizes:
    """The sizes of a fit."""

    n_images: int
    n_voxels: int  # usable ones
    n_targets: int
    n_selected: int


def expected_iterations(sizes: Sizes, tol: float) -> float:
    """Return the iterations that conjugate gradients are expected to take.

    After deflation the voxels are noise, whose Gram matrix has its eigenvalues between
    n_images (1 -+ sqrt(q))^2 with q = n_selected / n_images (Marchenko and Pastur,
    1967), so that each iteration gains a factor of sqrt(q).
    """
    q = min(sizes.n_selected / sizes.n_images, 0.99)
    return math.log(2 / tol) / -math.log(math.sqrt(q)) + 1


def _seconds_cholesky(sizes: Sizes, rates: Rates) -> float:
    n = sizes.n_selected
    each = n**3 / 3 / rates.cholesky + n**2 / 2 / rates.gather
    return sizes.n_targets * each


def _seconds_cg(sizes: Sizes, rates: Rates, tol: float) -> float:
    square = 2 * sizes.n_voxels**2
    iteration = square / (rates.low_product or rates.product)
    iteration += 100 * sizes.n_voxels / rates.memory
    exact = _EXACT_RESIDUALS if rates.low_product else 1
    each = expected_iterations(sizes, tol) * iteration + exact * square / rates.product
    each += 4 * sizes.n_selected * RANK**2 / rates.product
    once = 5 * square * (RANK + OVERSAMPLING) / rates.product
    return sizes.n_targets * each + once


def choose_solver(sizes: Sizes, rates: Rates, tol: float, dtype: str) -> str:
    """Return `cholesky` or `cg`, whichever the operation counts say is faster.

    float64 asks for the exact answer, so it always gets `cholesky`; so does a fit in
    which all targets share all voxels.
    """
    if dtype == "float64" or sizes.n_selected == sizes.n_voxels:
        return "cholesky"
    cheaper = _seconds_cg(sizes, rates, tol) < _seconds_cholesky(sizes, rates)
    return "cg" if cheaper else "cholesky"


# --- memory -------------------------------------------------------------------------


def _fixed_bytes(
    sizes: Sizes, solver: str, width: int, low_width: int, n_threads: int
) -> int:
    """Return what a fit holds whatever its block size."""
    n, square = sizes.n_voxels, sizes.n_voxels**2
    shared = width * (sizes.n_images * n + square) + 32 * n
    tiles = n_threads * 8 * GRAM_TILE * (2 * sizes.n_images + 3 * GRAM_TILE)
    if solver == "cg":
        low_rank = width * n * (RANK + OVERSAMPLING)
        split = 4 * width * GRAM_TILE * n
        work = low_width * square + 2 * low_rank + max(split, 3 * low_rank)
        work += n_threads * 2 * width * sizes.n_selected * RANK
    elif sizes.n_selected == n:
        work = width * square
    else:
        work = n_threads * (2 * width + 8) * sizes.n_selected**2
    return shared + max(tiles, work) + LIBRARY_BYTES


def _target_bytes(sizes: Sizes, solver: str, width: int) -> int:
    """Return what one target of a block holds: itself, its scores, its solution."""
    n = sizes.n_voxels
    each = sizes.n_images * (24 + width) + n * (3 * width + 10)
    each += sizes.n_selected * (48 + 4 * width)
    if solver == "cg":
        each += n * (12 * width + 4) + 3 * width * RANK**2
    return each


def block_targets(
    sizes: Sizes,
    solver: str,
    itemsizes: tuple[int, int],
    n_threads: int,
    max_memory: int | None,
) -> int:
    """Return how many targets are solved together.

    Parameters
    ----------
    sizes : Sizes
    solver : {"cholesky", "cg"}
    itemsizes : (int, int)
        Bytes of an element of the Gram matrix and of the remainder (`masked_cg`).
    n_threads : int
        Blocks in work at once.
    max_memory : int or None
        Bytes that a fit may hold beside its inputs and its result.

    Raises
    ------
    ConfigError
        max_memory does not suffice for the Gram matrix and one target per thread.
    """
    longest = max(sizes.n_voxels, sizes.n_images)
    preferred = _CG_TARGETS if solver == "cg" else max(1, _BLOCK_ELEMENTS // longest)
    preferred = min(preferred, sizes.n_targets)
    if max_memory is None:
        return preferred
    width, low_width = itemsizes
    fixed = _fixed_bytes(sizes, solver, width, low_width, n_threads)
    each = n_threads * _target_bytes(sizes, solver, width)
    if max_memory < fixed + each:
        raise ConfigError(
            f"max_memory is {max_memory:,} bytes, but {sizes.n_images} images of "
            f"{sizes.n_voxels} usable voxels need {fixed + each:,} with solver "
            f"{solver} on {n_threads} thread(s): raise it or take fewer threads."
        )
    return int(min(preferred, (max_memory - fixed) // each))
