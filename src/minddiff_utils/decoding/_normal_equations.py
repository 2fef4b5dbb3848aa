"""The normal equations of responses, and the voxels that each target selects."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minddiff_utils.core.errors import DataError, check_finite
from minddiff_utils.core.types import Doubles, Floats, Ints
from minddiff_utils.decoding.targets import blocks

__all__ = ["NormalEquations", "normal_equations", "select_voxels"]

Map = Callable[[Callable[[slice], object], Iterable[slice]], Iterable[object]]

#: FastL2LiR 0.11 leaves out voxels whose training variance is below this.
MIN_VARIANCE = 1e-8
#: float64 correlations that differ relatively by less are a tie: 1000 times rounding.
_TIE = 1e-12
#: Correlations from a float32 product are this exact (measured: 7e-8 at 8,859 images).
_FLOAT32_BAND = 4e-7
#: Voxels of one tile of the Gram matrix, and elements of one block of X.
GRAM_TILE = 256
#: Images of one float32 product; such products are summed in float64 (measured error at
#: 8,859 images: 4e-9 of the diagonal, as much as storing the result in float32 costs).
_GRAM_IMAGES = 1024
_READ_ELEMENTS = 500_000


@dataclass(frozen=True)
class NormalEquations:
    """Those of standardised voxels, the penalised intercept eliminated.

    With A = [X, 1], (A'A + alpha I) [w; b] = A'y has the last row
    b = shrink (mean(y) - m'w), m the voxel means. Put into the others it leaves, for
    u = w * scale and standardised voxels Z,
    (Z'Z + alpha shrink (m/scale) (m/scale)' + diag(alpha / scale^2)) u
    = Z'y + alpha shrink mean(y) m/scale. Centring first loses no digits.

    Attributes
    ----------
    columns : (n_usable,) int
        Usable voxels, ascending.
    mean, scale : (n_usable,) float64
        Mean and population SD of the usable voxels.
    Z : (n_images, n_usable) tensor
        Standardised voxels.
    gram : (n_usable, n_usable) tensor
        The matrix on the left; summed in float64, stored in the dtype of Z.
    alpha, shrink : float
        shrink = n_images / (n_images + alpha), what the penalty leaves of a mean.
    """

    columns: Ints
    mean: Doubles
    scale: Doubles
    Z: Tensor
    gram: Tensor
    alpha: float
    shrink: float


def _moments(X: Floats) -> tuple[Ints, Doubles, Doubles]:
    """Return the usable columns of X, their means and SDs, reading X block by block."""
    n_images, n_voxels = X.shape
    mean, variance = np.empty(n_voxels), np.empty(n_voxels)
    for part in blocks(n_voxels, max(1, _READ_ELEMENTS // n_images)):
        values = X[:, part].astype(np.float64)
        check_finite(bool(np.isfinite(values).all()), "X")
        mean[part] = values.mean(axis=0)
        variance[part] = values.var(axis=0)
    columns = np.flatnonzero(variance >= MIN_VARIANCE)
    if len(columns) == 0:
        raise DataError(
            f"None of {n_voxels} voxels varies over the training images: check the "
            "responses of notebook 01."
        )
    return columns, mean[columns], np.sqrt(variance[columns])


def _standardised(
    X: Floats, columns: Ints, mean: Doubles, scale: Doubles, like: Tensor
) -> Tensor:
    Z = like.new_empty((len(X), len(columns)))
    for part in blocks(len(columns), max(1, _READ_ELEMENTS // len(X))):
        values = X[:, columns[part]].astype(np.float64)
        values -= mean[part]
        values /= scale[part]
        Z[:, part] = torch.from_numpy(values).to(Z)
    return Z


def _product(Z: Tensor, rows: slice, columns: slice) -> Tensor:
    """Return Z[:, rows]' Z[:, columns], summed over images in float64."""
    size = len(Z) if Z.dtype == torch.float64 else _GRAM_IMAGES
    tile = Z.new_zeros((), dtype=torch.float64)
    for images in blocks(len(Z), size):
        tile = tile + (Z[images, rows].T @ Z[images, columns]).double()
    return tile


def _fill_gram(
    gram: Tensor, Z: Tensor, offset: Tensor, ridge: Tensor, run: Map
) -> None:
    """Write Z'Z + offset offset' + diag(ridge), tile by tile, into `gram`."""

    def row_of_tiles(rows: slice) -> None:
        for columns in blocks(rows.stop, GRAM_TILE):
            tile = _product(Z, rows, columns)
            tile += torch.outer(offset[rows], offset[columns])
            if columns == rows:
                tile += torch.diag(ridge[rows])
            gram[columns, rows] = tile.T.to(gram)
            gram[rows, columns] = tile.to(gram)

    for _ in run(row_of_tiles, blocks(len(gram), GRAM_TILE)):
        pass


def normal_equations(
    X: Floats, alpha: float, like: Tensor, run: Map = map
) -> NormalEquations:
    """Return the normal equations of training responses.

    Parameters
    ----------
    X : (n_images, n_voxels)
        Training responses.
    alpha : float
        Penalty.
    like : tensor
        Its dtype and device are those of Z and the Gram matrix.
    run : callable
        `map`, or the `map` of an executor.

    Raises
    ------
    DataError
        X holds NaN or infinite values, or no voxel varies.
    """
    columns, mean, scale = _moments(X)
    Z = _standardised(X, columns, mean, scale, like)
    shrink = len(X) / (len(X) + alpha)
    gram = Z.new_empty((len(columns), len(columns)))
    offset = np.sqrt(alpha * shrink) * mean / scale
    ridge = torch.from_numpy(alpha / scale**2).to(Z.device)
    _fill_gram(gram, Z, torch.from_numpy(offset).to(Z.device), ridge, run)
    return NormalEquations(columns, mean, scale, Z, gram, alpha, shrink)


def _exact_scores(Z: Tensor, y: Tensor, columns: Tensor) -> Tensor:
    """Return |Z[:, columns]' y| in float64, equal within 1e-12 made equal."""
    parts = [
        (Z[:, columns[part]].double() * y.double()[:, None]).sum(0).abs()
        for part in blocks(len(columns), GRAM_TILE)
    ]
    scores = torch.cat(parts)
    return torch.round(scores / scores.max().clamp_min(1e-300) / _TIE)


def select_voxels(cross: Tensor, y: Tensor, Z: Tensor, n: int) -> Tensor:
    """Return the columns of the n largest |cross| of each row, ascending.

    Of scores equal within rounding the one at the lower column comes first. Where
    float32 cannot tell which voxels are among the n, their products are taken again in
    float64: the selection is that of float64 data, whatever is computed beside it.

    Parameters
    ----------
    cross : (n_targets, n_usable)
        Z'y per target.
    y : (n_images, n_targets)
        Centred targets.
    Z : (n_images, n_usable)
        Standardised voxels.
    n : int
        At most n_usable.

    Returns
    -------
    (n_targets, n) int64
    """
    n_targets, n_columns = cross.shape
    if n == n_columns:
        return torch.arange(n, device=cross.device).expand(n_targets, n)
    scores = cross.abs()
    least = scores.topk(n, dim=1, sorted=False).values.amin(1, keepdim=True)
    if cross.dtype == torch.float64:
        slack = least * _TIE
    else:
        slack = _FLOAT32_BAND * len(Z) ** 0.5 * torch.linalg.norm(y, dim=0)[:, None]
    chosen = scores >= least - slack
    for row in (chosen.sum(1) > n).nonzero()[:, 0].tolist():
        clear = scores[row] > least[row] + slack[row]
        tied = (chosen[row] & ~clear).nonzero()[:, 0]
        chosen[row, tied] = False
        if cross.dtype != torch.float64 and bool(scores[row].any()):
            exact = _exact_scores(Z, y[:, row], tied)
            tied = tied[torch.argsort(exact, descending=True, stable=True)]
        chosen[row, tied[: n - int(clear.sum())]] = True
    return chosen.nonzero()[:, 1].view(n_targets, n)
