"""Exact solvers of one ridge system for each target, and when to take another.

The system of a target is a subset of the rows and columns of one Gram matrix. Here each
is gathered and factorised; `_conjugate_gradients` goes over all targets at once.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.linalg.blas import get_blas_funcs
from threadpoolctl import threadpool_limits
from torch import Tensor

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Doubles, Floats, Ints
from minddiff_utils.decoding.targets import blocks

__all__ = ["choose_solver", "solve_common", "solve_subsets", "threads"]


#: Rows of the Gram matrix gathered at once: they stay in the second-level cache.
_GATHER_ROWS = 32
#: At most this many refinement steps; each gains the digits of the factor's dtype.
_MAX_REFINEMENTS = 3


def expected_iterations(n_images: int, n_selected: int, tol: float) -> float:
    """Return the iterations that conjugate gradients are expected to take.

    After deflation the voxels are noise, whose Gram matrix has its eigenvalues between
    n_images (1 -+ sqrt(q))^2 with q = n_selected / n_images (Marchenko and Pastur,
    1967), so that each iteration gains a factor of sqrt(q).
    """
    q = min(n_selected / n_images, 0.99)
    return math.log(2 / tol) / -math.log(math.sqrt(q)) + 1


def choose_solver(n_images: int, n_voxels: int, n_selected: int, tol: float) -> str:
    """Return "cholesky" or "cg", whichever takes fewer operations for a target.

    A factorisation runs at half the speed of a large product at best, so that its
    operations count twice. Sizes alone decide, never a clock or the processor: the same
    profile is solved alike everywhere. Where all targets share all voxels, one
    factorisation serves them.
    """
    if n_selected == n_voxels:
        return "cholesky"
    gradients = expected_iterations(n_images, n_selected, tol) * 2 * n_voxels**2
    return "cg" if gradients < 2 * n_selected**3 / 3 else "cholesky"


@contextmanager
def threads(n_threads: int) -> Iterator[Callable[..., Any]]:
    """Yield a `map` over `n_threads` threads, each with its linear algebra on one core.

    What a thread computes does not depend on how many of them there are, as none shares
    a product with another. The settings of BLAS, OpenMP and torch are put back.
    """
    before = torch.get_num_threads()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            if n_threads == 1:
                yield map
            else:
                # the number is a thread's own in OpenMP, so each one sets it
                with ThreadPoolExecutor(
                    n_threads, initializer=torch.set_num_threads, initargs=(1,)
                ) as pool:
                    yield pool.map
        finally:
            torch.set_num_threads(before)


def _raise_singular() -> None:
    raise DataError(
        "The voxels of a target are linearly dependent to rounding, so its weights are "
        "not determined: raise decoding.alpha or lower n_feat."
    )


def _relative(residual: Tensor, right: Tensor) -> Tensor:
    """Return |residual| / |right| of each row, 0 where both are 0."""
    norm = torch.linalg.norm(right.double(), dim=1)
    size: Tensor = torch.linalg.norm(residual.double(), dim=1)
    relative: Tensor = size / norm.clamp_min(1e-300)
    return relative


def _refined(
    matrix: Tensor, factor: Tensor, right: Tensor, tol: float
) -> tuple[Tensor, Tensor]:
    """Solve from a Cholesky factor; refine with float64 residuals while above `tol`.

    Parameters
    ----------
    matrix, factor : (..., n, n)
        The symmetric matrix and its lower factor.
    right : (..., n_rows, n)
        Right sides in rows.

    Returns
    -------
    solution, residual : (..., n_rows, n)
    """
    solution = torch.cholesky_solve(right.mT, factor).mT
    residual = right - solution @ matrix
    for _ in range(_MAX_REFINEMENTS):
        size = torch.linalg.norm(residual, dim=-1)
        if bool((size <= tol * torch.linalg.norm(right, dim=-1)).all()):
            break
        residual = right.double() - solution.double() @ matrix.double()
        step = torch.cholesky_solve(residual.to(right).mT, factor).mT
        solution = (solution.double() + step.double()).to(right)
        residual = right.double() - solution.double() @ matrix.double()
    return solution, residual


def solve_common(gram: Tensor, right: Tensor, tol: float) -> tuple[Tensor, Tensor]:
    """Solve for right sides (n_targets, n) that all have the same matrix (n, n).

    Returns
    -------
    solution : (n_targets, n)
    residual : (n_targets,) float64
        Reached relative residual.

    Raises
    ------
    DataError
        The matrix is singular to rounding.
    """
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        _raise_singular()
    solution, residual = _refined(gram, factor, right, tol)
    return solution, _relative(residual, right)


class _System:
    """One gathered system at a time, in two buffers that are used again and again.

    Only the lower triangle is gathered. torch's factorisation lets other threads run
    meanwhile, which scipy's does not (measured: two threads take 1.06 times as long as
    one with the former, 1.9 times with the latter).
    """

    def __init__(self, gram: Floats, n: int) -> None:
        self.flat, self.size = gram.ravel(), len(gram)
        self.matrix = np.zeros((n, n), gram.dtype)
        self.factor = np.empty((n, n), gram.dtype, order="F")
        (self.trsv,) = get_blas_funcs(("trsv",), (gram,))

    def load(self, columns: Ints) -> None:
        """Gather the rows and columns `columns` and factor them."""
        starts = columns * self.size
        for part in blocks(len(columns), _GATHER_ROWS):
            where = starts[part, None] + columns[: part.stop]
            # every index is in range; `clip` only skips the buffer for errors
            self.matrix[part, : part.stop] = self.flat.take(where, mode="clip")
        failed = torch.empty((), dtype=torch.int32)
        out = (torch.from_numpy(self.factor), failed)
        torch.linalg.cholesky_ex(torch.from_numpy(self.matrix), out=out)
        if int(failed):
            _raise_singular()

    def solve(self, right: Floats) -> Floats:
        """Return the solution from the factor alone."""
        half = self.trsv(self.factor, right, lower=1, trans=0)
        return np.asarray(self.trsv(self.factor, half, lower=1, trans=1))

    def residual(self, right: Floats, solution: Floats) -> Floats:
        """Return right - matrix @ solution, in the dtype of `solution`."""
        matrix = self.matrix.astype(solution.dtype, copy=False)
        (symv,) = get_blas_funcs(("symv",), (matrix,))
        return np.asarray(right - symv(1.0, matrix.T, solution, lower=0))


def _solve_one(system: _System, right: Floats, tol: float) -> tuple[Floats, float]:
    solution = system.solve(right)
    norm = float(np.linalg.norm(right)) or 1.0
    reached = float(np.linalg.norm(system.residual(right, solution))) / norm
    for _ in range(_MAX_REFINEMENTS):
        if reached <= tol:
            break
        exact = solution.astype(np.float64)
        step = system.solve(system.residual(right, exact).astype(right.dtype))
        exact += step
        solution = exact
        reached = float(np.linalg.norm(system.residual(right, exact))) / norm
    return solution, reached


def solve_subsets(
    gram: Floats, chosen: Ints, right: Floats, tol: float
) -> tuple[Floats, Doubles]:
    """Solve, row by row, the system of the rows and columns `chosen` (rows, n).

    One matrix at a time stays in the cache; a stack of them for a batched solver was
    measured slower on a CPU.

    Parameters
    ----------
    gram : (n_usable, n_usable) float32 or float64
        Symmetric, positive definite, C-ordered.
    chosen : (n_targets, n) int64
        Rows and columns of each target's system.
    right : (n_targets, n)
        Right sides, in the dtype of `gram`.
    tol : float
        A solution whose relative residual is above it is refined with residuals in
        float64; what float32 gives is below 1e-5 as a rule.

    Returns
    -------
    solution : (n_targets, n), in the dtype of `right`
    residual : (n_targets,) float64
        Reached relative residual.

    Raises
    ------
    DataError
        A system is singular to rounding.
    """
    system = _System(gram, chosen.shape[1])
    solution = np.empty_like(right)
    reached = np.empty(len(right))
    for row, columns in enumerate(chosen):
        system.load(columns)
        solution[row], reached[row] = _solve_one(system, right[row], tol)
    return solution, reached
