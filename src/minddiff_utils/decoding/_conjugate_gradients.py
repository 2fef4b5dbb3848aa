"""Conjugate gradients over all targets of a block at once, each on its own voxels.

The systems differ by which rows and columns of one Gram matrix they keep, so a 0/1 mask
per target and one matrix product serve all of them.

Notation: gram = A; deflation A = V diag(values) V' + diag(d) + remainder; M the mask;
x, r, p, z = solution, residual, direction, preconditioned residual of the textbook.

The low rank and the diagonal carry nearly all of A. What remains is small, so it may be
held and multiplied in bfloat16: an error of 2^-9 there is one of about 1e-3 in a
residual. The exact residual is put back whenever the running one has fallen to an
eightieth, before that error steers the directions. Measured at NSD's size to 2e-6:
37 iterations and 4 exact residuals with a fiftieth, 38 and 3 with an eightieth, 65 and
3 with a 250th; at a thousandth it stalls.
Splitting A itself in this way would need three products for the same digits.

References
----------
Hestenes and Stiefel (1952), Methods of conjugate gradients for solving linear systems.
van der Vorst and Ye (2000), Residual replacement strategies for Krylov methods.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from minddiff_utils.core import rng
from minddiff_utils.decoding.targets import blocks

__all__ = ["Deflation", "deflate", "solve_masked"]

#: Leading eigenvectors that are split off, and the extra ones that find them.
RANK, OVERSAMPLING = 128, 16
_POWER_STEPS = 3
#: Rows of the remainder made at once.
_SPLIT_ROWS = 256
#: Iterations between two looks at who has converged.
_LOOK_EVERY = 2
_MAX_ITERATIONS = 400
_MAX_REPLACEMENTS = 8
#: The running residual is trusted for this much of a fall, by the remainder's dtype.
_TRUSTED_FALL = {torch.bfloat16: 1.2e-2, torch.float32: 1e-5, torch.float64: 1e-13}
#: A target is looked at when its running residual is this much below the goal.
_MARGIN = 0.8
#: Share of finished targets at which the others move together.
_COMPACT = 1 / 8
#: The preconditioner's diagonal is at least this share of the matrix's.
_MIN_DIAGONAL = 1e-3


@dataclass(frozen=True)
class Deflation:
    """A Gram matrix as low rank, diagonal and remainder.

    Attributes
    ----------
    vectors : (n, rank)
        Approximate leading eigenvectors.
    values : (rank,)
        Their Ritz values.
    diagonal : (n,)
        Diagonal of the matrix less the low-rank part.
    safe_diagonal : (n,)
        The same, at least a thousandth of the matrix's: the preconditioner's.
    remainder : (n, n)
        What is off the diagonal of the rest; bfloat16, float32 or float64.
    """

    vectors: Tensor
    values: Tensor
    diagonal: Tensor
    safe_diagonal: Tensor
    remainder: Tensor

    def multiply(self, p: Tensor) -> Tensor:
        """Return p A for rows p (n_targets, n)."""
        product = torch.mm(p.to(self.remainder.dtype), self.remainder).to(p.dtype)
        product.addcmul_(p, self.diagonal)
        return product.addmm_((p @ self.vectors) * self.values, self.vectors.T)


def _leading(gram: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return approximate leading eigenvectors and values by subspace iteration."""
    width = min(rank + OVERSAMPLING, len(gram))
    # a fixed start: the same Gram matrix always gives the same split
    start = rng.stream(0, "decoders", "deflation").standard_normal((len(gram), width))
    basis = torch.from_numpy(start).to(gram)
    for _ in range(_POWER_STEPS):
        basis = torch.linalg.qr(gram @ basis).Q
    small = basis.T @ (gram @ basis)
    values, rotation = torch.linalg.eigh((small + small.T) / 2)
    return (basis @ rotation[:, -rank:]).contiguous(), values[-rank:]


def deflate(gram: Tensor, remainder_dtype: torch.dtype) -> Deflation:
    """Split a symmetric positive definite matrix (n, n).

    Parameters
    ----------
    gram : (n, n) float32 or float64
    remainder_dtype : dtype
        bfloat16 where its products are fast, or the dtype of `gram`.
    """
    n = len(gram)
    vectors, values = _leading(gram, max(1, min(RANK, n // 4)))
    remainder = torch.empty(n, n, dtype=remainder_dtype, device=gram.device)
    diagonal = torch.empty_like(gram[0])
    weighted = vectors * values
    for rows in blocks(n, _SPLIT_ROWS):
        part = gram[rows] - weighted[rows] @ vectors.T
        corner = part[:, rows].diagonal()
        diagonal[rows] = corner
        corner.zero_()
        remainder[rows] = part.to(remainder_dtype)
    safe = torch.maximum(diagonal, _MIN_DIAGONAL * gram.diagonal())
    return Deflation(vectors, values, diagonal, safe, remainder)


@dataclass
class _Active:
    """The targets still iterating; all tensors have one row per target."""

    target: Tensor  # (n_active,) row of the block
    mask: Tensor  # (n_active, n) 0 or 1
    inner: Tensor  # (n_active, rank, rank), inverse inner matrix of Woodbury's formula
    right: Tensor  # (n_active, n)
    x: Tensor
    r: Tensor
    p: Tensor
    rz: Tensor  # (n_active,) r'z
    norm: Tensor  # (n_active,) |right|
    goal: Tensor  # (n_active,) running relative residual at which to look
    looked: Tensor  # (n_active,) exact residuals taken
    done: Tensor  # (n_active,) bool

    def keep(self, rows: Tensor) -> None:
        """Drop the other rows."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[rows])


def _inner_inverses(deflation: Deflation, chosen: Tensor) -> Tensor:
    """Return (values^-1 + V' M d^-1 V)^-1 of each target, (n_targets, rank, rank)."""
    vectors, rank = deflation.vectors, len(deflation.values)
    inner = vectors.new_empty((len(chosen), rank, rank))
    scaled = vectors / deflation.safe_diagonal.sqrt()[:, None]
    for row, columns in enumerate(chosen):
        part = scaled[columns]
        torch.mm(part.T, part, out=inner[row])
    inner.diagonal(dim1=1, dim2=2).add_(1 / deflation.values)
    factor, failed = torch.linalg.cholesky_ex(inner)
    if not bool(failed.any()):
        return torch.cholesky_inverse(factor)
    # rounding left one indefinite: the inverse of what it spans
    inverse: Tensor = torch.linalg.pinv(inner.double(), hermitian=True)
    return inverse.to(inner.dtype)


def _precondition(deflation: Deflation, a: _Active) -> Tensor:
    """Return z: r times the inverse of M (V diag(values) V' + diag(d)) M."""
    z = a.r / deflation.safe_diagonal  # r is 0 off the mask
    low = torch.bmm(a.inner, (z @ deflation.vectors)[:, :, None])[:, :, 0]
    shift = (low @ deflation.vectors.T).div_(deflation.safe_diagonal)
    return z.sub_(shift.mul_(a.mask))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the ratio of rows, 0 where there is nothing left to divide by."""
    return torch.where(denominator > 0, numerator / denominator, 0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a, b)
    return product


def _start(deflation: Deflation, chosen: Tensor, right: Tensor, tol: float) -> _Active:
    """Return the state of all targets at x = 0."""
    n_targets, n = len(chosen), len(deflation.diagonal)
    mask = right.new_zeros((n_targets, n)).scatter_(1, chosen, 1.0)
    full = right.new_zeros((n_targets, n)).scatter_(1, chosen, right)
    norm = torch.linalg.norm(right, dim=1)
    fall = _TRUSTED_FALL[deflation.remainder.dtype]
    a = _Active(
        target=torch.arange(n_targets, device=right.device),
        mask=mask,
        inner=_inner_inverses(deflation, chosen),
        right=full,
        x=torch.zeros_like(full),
        r=full.clone(),
        p=full,
        rz=norm,
        norm=norm,
        goal=torch.full_like(norm, max(_MARGIN * tol, fall)),
        looked=torch.zeros_like(norm, dtype=torch.int64),
        done=norm == 0,
    )
    a.p = _precondition(deflation, a)
    a.rz = _dot(a.r, a.p)
    return a


def _replace(a: _Active, gram: Tensor, due: Tensor, fall: float, tol: float) -> Tensor:
    """Put the exact residual in place of the running one in the rows `due`.

    Returns
    -------
    (n_due,) relative residual; rows that reached `tol` are marked done.
    """
    r = (a.right[due] - a.x[due] @ gram).mul_(a.mask[due])
    reached: Tensor = torch.linalg.norm(r, dim=1) / a.norm[due]
    a.r[due] = r
    a.goal[due] = torch.clamp(fall * reached, min=_MARGIN * tol)
    a.looked[due] += 1
    a.done[due] = (reached <= tol) | (a.looked[due] >= _MAX_REPLACEMENTS)
    return reached


def solve_masked(
    gram: Tensor, deflation: Deflation, chosen: Tensor, right: Tensor, tol: float
) -> tuple[Tensor, Tensor]:
    """Solve the system of the rows and columns `chosen` of every target.

    A target stops by its own residual alone, so that its result depends on the others
    by rounding only.

    Parameters
    ----------
    gram : (n, n)
        Symmetric, positive definite.
    deflation : Deflation
        Of `gram`.
    chosen : (n_targets, n_selected) int64
        Rows and columns of each target's system.
    right : (n_targets, n_selected)
        Right sides.
    tol : float
        Relative residual to reach.

    Returns
    -------
    solution : (n_targets, n_selected)
    residual : (n_targets,) float64
        Relative residual, recomputed from `gram`; above `tol` where it was not reached
        in 400 iterations or 8 exact residuals.
    """
    fall = _TRUSTED_FALL[deflation.remainder.dtype]
    a = _start(deflation, chosen, right, tol)
    solution = torch.zeros_like(right)
    residual = right.new_zeros(len(right), dtype=torch.float64)
    for iteration in range(1, _MAX_ITERATIONS + 1):
        # 1. step along the direction
        q = deflation.multiply(a.p).mul_(a.mask)
        step = _ratio(a.rz, _dot(a.p, q))[:, None]
        a.x.addcmul_(step, a.p)
        a.r.addcmul_(step, q, value=-1)
        # 2. exact residuals where they are due; what has converged is stored
        last = iteration == _MAX_ITERATIONS
        if last or iteration % _LOOK_EVERY == 0:
            small = torch.linalg.norm(a.r, dim=1) <= a.goal * a.norm
            due = ((small | last) & ~a.done).nonzero()[:, 0]
            if len(due):
                reached = _replace(a, gram, due, fall, tol)
                rows = a.target[due]
                residual[rows] = reached.double()
                solution[rows] = a.x[due].gather(1, chosen[rows])
            if bool(a.done.all()):
                break
            if float(a.done.sum()) >= _COMPACT * len(a.done):
                a.keep((~a.done).nonzero()[:, 0])
        # 3. next direction
        z = _precondition(deflation, a)
        rz = _dot(a.r, z)
        a.p = z.addcmul_(_ratio(rz, a.rz)[:, None], a.p)
        a.rz = rz
    return solution, residual
