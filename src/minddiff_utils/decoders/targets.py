"""The targets of a decoder: their scaling, and how they are cut into blocks.

Place in the flow: layer 7, the lowest module of `decoders`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from minddiff_utils.errors import DataError, check_finite, check_shape

__all__ = ["ScaledTargets", "TargetScaling", "TargetSource", "blocks", "read_targets"]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: Bytes that BLAS, LAPACK and the heap hold beside what is counted; rounded up.
LIBRARY_BYTES = 24_000_000
#: A target varies if its SD exceeds this times the root mean square of all targets.
_MIN_RELATIVE_SD = 1e-6
#: Elements of one block of targets that is read (64 MB of float64).
_BLOCK_ELEMENTS = 8_000_000


class TargetSource(Protocol):
    """Targets that are read by blocks: an array, a tensor, an HDF5 data set, ..."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n_images, n_targets)."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return the columns `[:, start:stop]`."""


def blocks(n: int, size: int) -> Iterator[slice]:
    """Return slices of `size` that cover 0..n; the last one may be shorter.

    >>> [(part.start, part.stop) for part in blocks(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def read_targets(source: TargetSource, block: slice, name: str = "Y") -> Floats:
    """Return the targets `block` of `source` as an array (n_images, len(block)).

    Raises
    ------
    DataError
        They hold NaN or infinite values.
    """
    values = source[:, block]
    if hasattr(values, "detach"):  # a torch tensor, on whatever device
        values = values.detach().cpu()
    array = np.asarray(values)
    check_finite(bool(np.isfinite(array).all()), name)
    return array


@dataclass(frozen=True)
class TargetScaling:
    """Mean and SD of each target on the training images.

    A target whose SD is below one millionth of the root mean square of all targets does
    not vary: what is left of it is the rounding of the network that computed it (the
    start token of c, for one, which no caption changes). Its scale is 1, and it is
    applied as exactly 0 and inverted as its mean.

    Attributes
    ----------
    mean, scale : (n_targets,) float64
        In the targets' units.
    varies : (n_targets,) bool
        Whether the target varies over the training images.
    """

    mean: Doubles
    scale: Doubles
    varies: Mask

    @classmethod
    def fit(cls, Y_train: TargetSource) -> Self:
        """Return the scaling of training targets (n_images, n_targets).

        They are read block by block, so that they may be an HDF5 data set.

        Raises
        ------
        DataError
            No image, or NaN or infinite values.
        """
        shape = tuple(Y_train.shape)
        check_shape(shape, (None, None), "Y_train")
        n_images, n_targets = shape
        if n_images * n_targets == 0:
            raise DataError(f"Y_train is empty {shape}: pass images, targets.")
        mean, spread = np.empty(n_targets), np.empty(n_targets)
        differs = np.empty(n_targets, bool)
        for block in blocks(n_targets, max(1, _BLOCK_ELEMENTS // n_images)):
            values = read_targets(Y_train, block, "Y_train")
            mean[block] = values.mean(axis=0, dtype=np.float64)
            spread[block] = values.std(axis=0, dtype=np.float64)
            differs[block] = np.ptp(values, axis=0) > 0
        typical = np.sqrt(np.mean(mean**2 + spread**2))
        varies = (spread > _MIN_RELATIVE_SD * typical) & differs
        return cls(mean, np.where(varies, spread, 1.0), varies)

    def __getitem__(self, block: slice) -> Self:
        """Return the scaling of some targets."""
        return type(self)(self.mean[block], self.scale[block], self.varies[block])

    def apply(self, Y: Floats) -> Floats:
        """Return Y (n_images, n_targets) standardised, in the dtype of Y."""
        check_shape(Y.shape, (None, len(self.mean)), "Y")
        scaled = (Y - self.mean.astype(Y.dtype)) / self.scale.astype(Y.dtype)
        scaled[:, ~self.varies] = 0
        return scaled

    def invert(self, Y_scaled: Floats) -> Floats:
        """Return standardised targets in their own units, in the dtype given."""
        check_shape(Y_scaled.shape, (None, len(self.mean)), "Y_scaled")
        kind = Y_scaled.dtype
        return np.asarray(Y_scaled * self.scale.astype(kind) + self.mean.astype(kind))


@dataclass(frozen=True)
class ScaledTargets:
    """Standardised targets that are computed when they are read.

    `ScaledTargets(file["c"], scaling)` goes where a decoder's `fit` takes Y: no more
    than a block of the data set is ever in memory.

    Attributes
    ----------
    source : TargetSource
        Targets in their own units, (n_images, n_targets).
    scaling : TargetScaling
        Of all of them.

    Raises
    ------
    DataError
        Another number of targets than the scaling has.
    """

    source: TargetSource
    scaling: TargetScaling

    def __post_init__(self) -> None:
        expected = (None, len(self.scaling.mean))
        check_shape(tuple(self.source.shape), expected, "The source of targets")

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n_images, n_targets)."""
        return tuple(self.source.shape)

    def __getitem__(self, key: tuple[slice, slice], /) -> Floats:
        """Return `[rows, columns]` standardised; both are slices."""
        rows, columns = key
        values = self.source[rows, columns]
        if hasattr(values, "detach"):
            values = values.detach().cpu()
        return self.scaling[columns].apply(np.asarray(values))
