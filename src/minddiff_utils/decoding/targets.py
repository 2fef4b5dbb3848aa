"""The targets of a decoder: their scaling, and how they are cut into blocks.

Place in the flow: layer 7, the lowest module of `decoders`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_finite, check_shape

__all__ = [
    "ScaledTargets",
    "SideBySide",
    "SomeImages",
    "TargetScaling",
    "TargetSource",
    "blocks",
    "read_targets",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
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


def _as_array(values: Any) -> Floats:
    """Return what a source gave as an array; a torch tensor may be on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def read_targets(source: TargetSource, block: slice, name: str = "Y") -> Floats:
    """Return the targets `block` of `source` as an array (n_images, len(block)).

    Raises
    ------
    DataError
        They hold NaN or infinite values.
    """
    array = _as_array(source[:, block])
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

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """Return the scaling of targets side by side, each part's as it was fitted."""
        every = list(parts)
        return cls(
            np.concatenate([part.mean for part in every]),
            np.concatenate([part.scale for part in every]),
            np.concatenate([part.varies for part in every]),
        )

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
        return self.scaling[columns].apply(_as_array(self.source[rows, columns]))


@dataclass(frozen=True)
class SomeImages:
    """Some images of a source of targets, taken when they are read.

    Attributes
    ----------
    source : TargetSource
        Targets of all images, (n_images, n_targets).
    rows : (n_some,) int
        Which images, in which order.
    """

    source: TargetSource
    rows: Ints

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n_some, n_targets)."""
        return (len(self.rows), *self.source.shape[1:])

    def __getitem__(self, key: tuple[slice, slice], /) -> Floats:
        """Return `[rows, columns]`; both are slices."""
        rows, columns = key
        return _as_array(self.source[:, columns])[self.rows[rows]]


@dataclass(frozen=True)
class SideBySide:
    """Several sources of targets of the same images, read as one, never held as one.

    Attributes
    ----------
    parts : mapping of str to TargetSource
        Targets (n_images, n_targets) by name; they follow each other in this order.

    Raises
    ------
    DataError
        There is no part, or the parts differ in their images.

    Examples
    --------
    >>> joined = SideBySide({"c": np.zeros((4, 2)), "z": np.ones((4, 3))})
    >>> joined.shape, joined.columns["z"]
    ((4, 5), slice(2, 5, None))
    >>> joined[:1, 1:4]
    array([[0., 1., 1.]])
    """

    parts: Mapping[str, TargetSource]

    def __post_init__(self) -> None:
        if not self.parts:
            raise DataError(
                "There are no targets to put side by side: name at least 1."
            )
        n_images = next(iter(self.parts.values())).shape[0]
        for name, part in self.parts.items():
            check_shape(tuple(part.shape), (n_images, None), f"Targets {name}")

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Return which columns each part has, by name."""
        stops = np.cumsum([part.shape[1] for part in self.parts.values()]).tolist()
        starts = [0, *stops[:-1]]
        return dict(zip(self.parts, map(slice, starts, stops), strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n_images, n_targets of all parts)."""
        n_targets = sum(part.shape[1] for part in self.parts.values())
        return (next(iter(self.parts.values())).shape[0], n_targets)

    def __getitem__(self, key: tuple[slice, slice], /) -> Floats:
        """Return `[rows, columns]`, both slices; columns are neighbours.

        Only the parts that have some of the columns are read, and only those columns.

        Raises
        ------
        DataError
            The columns have a step, or there are none.
        """
        rows, wanted = key
        start, stop, step = wanted.indices(self.shape[1])
        if step != 1 or start >= stop:
            raise DataError(
                f"Targets side by side were asked for {wanted}, but one or more"
                f" neighbouring columns of {self.shape[1]} are read at once."
            )
        found = []
        for name, own in self.columns.items():
            first, last = max(start, own.start), min(stop, own.stop)
            if first < last:
                block = slice(first - own.start, last - own.start)
                found.append(_as_array(self.parts[name][rows, block]))
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)
