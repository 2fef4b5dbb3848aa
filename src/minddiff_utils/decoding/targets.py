"""The targets of a decoder: their scaling, and how they are read block by block."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from minddiff_utils.core.errors import DataError, check_finite, check_shape
from minddiff_utils.core.types import Doubles, Floats, Ints, Mask

__all__ = ["StandardisedTargets", "TargetScaling", "blocks"]

Rows = slice | Ints

#: All images.
_EVERY = slice(None)
#: A target varies if its SD exceeds this times the root mean square of all targets.
_MIN_RELATIVE_SD = 1e-6
#: Elements of one block of targets (64 MB of float64).
_BLOCK_ELEMENTS = 8_000_000


def blocks(n: int, size: int) -> Iterator[slice]:
    """Return slices of `size` that cover 0..n; the last one may be shorter.

    >>> [(part.start, part.stop) for part in blocks(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def target_blocks(n_images: int, n_targets: int) -> Iterator[slice]:
    """Return blocks of targets that take 64 MB of float64 over `n_images`."""
    return blocks(n_targets, max(1, _BLOCK_ELEMENTS // n_images))


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
    def fit(cls, Y: Floats, rows: Rows = _EVERY) -> Self:
        """Return the scaling of the targets Y (n_images, n_targets) over some rows.

        Raises
        ------
        DataError
            No image, or NaN or infinite values.
        """
        check_shape(Y.shape, (None, None), "Y_train")
        n_images, n_targets = len(Y[:, :1][rows]), Y.shape[1]
        if n_images * n_targets == 0:
            raise DataError(f"Y_train is empty {Y.shape}: pass images, targets.")
        mean, spread = np.empty(n_targets), np.empty(n_targets)
        differs = np.empty(n_targets, bool)
        for block in target_blocks(n_images, n_targets):
            values = Y[:, block][rows]
            check_finite(bool(np.isfinite(values).all()), "Y_train")
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
class StandardisedTargets:
    """Several features side by side, each standardised when a block of it is read.

    It goes where a decoder's `fit` takes Y: the 85,000 targets of a subject of NSD are
    never copied as a whole.

    Attributes
    ----------
    features : mapping of str to (n_images, n_targets)
        They follow each other in this order.
    rows : slice or (n_rows,) int
        The images that are read; the scalings are theirs.

    Raises
    ------
    DataError
        The features differ in their images.

    Examples
    --------
    >>> two = {"c": np.eye(2), "z": np.ones((2, 3))}
    >>> joined = StandardisedTargets(two)
    >>> joined.shape, joined.columns["z"]
    ((2, 5), slice(2, 5, None))
    >>> joined[:, 1:3]
    array([[-1.,  0.],
           [ 1.,  0.]])
    """

    features: Mapping[str, Floats]
    rows: Rows = field(default_factory=lambda: _EVERY)

    def __post_init__(self) -> None:
        for name, Y in self.features.items():
            check_shape(Y.shape, (self._n_images, None), f"Targets {name}")

    @property
    def _n_images(self) -> int:
        return len(next(iter(self.features.values())))

    @cached_property
    def scalings(self) -> dict[str, TargetScaling]:
        """Return each feature's scaling: what varies is judged within a feature."""
        return {n: TargetScaling.fit(Y, self.rows) for n, Y in self.features.items()}

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Return which columns each feature has."""
        stops = np.cumsum([Y.shape[1] for Y in self.features.values()]).tolist()
        starts = [0, *stops[:-1]]
        return dict(zip(self.features, map(slice, starts, stops), strict=True))

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Return (n_rows, n_targets of all features)."""
        n_rows = len(np.arange(self._n_images)[self.rows])
        return n_rows, sum(Y.shape[1] for Y in self.features.values())

    def __getitem__(self, key: tuple[slice, slice]) -> Floats:
        """Return `[:, start:stop]` of the standardised targets."""
        start, stop, _ = key[1].indices(self.shape[1])
        parts = []
        for name, columns in self.columns.items():
            first, last = max(start, columns.start), min(stop, columns.stop)
            if first < last:
                block = slice(first - columns.start, last - columns.start)
                values = self.features[name][:, block][self.rows]
                parts.append(self.scalings[name][block].apply(values))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
