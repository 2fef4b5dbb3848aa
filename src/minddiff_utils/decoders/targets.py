"""The targets of a decoder: their scaling, and how they are cut into blocks.

Place in the flow: layer 7, the lowest module of `decoders`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minddiff_utils.errors import DataError, check_finite, check_shape

__all__ = ["TargetScaling", "blocks"]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: A target varies if its SD exceeds this times the root mean square of all targets.
_MIN_RELATIVE_SD = 1e-6


def blocks(n: int, size: int) -> Iterator[slice]:
    """Return slices of `size` that cover 0..n; the last one may be shorter.

    >>> [(part.start, part.stop) for part in blocks(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


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
    def fit(cls, Y_train: Floats) -> Self:
        """Return the scaling of training targets (n_images, n_targets).

        Raises
        ------
        DataError
            No image, or NaN or infinite values.
        """
        check_shape(Y_train.shape, (None, None), "Y_train")
        if Y_train.size == 0:
            raise DataError(f"Y_train is empty {Y_train.shape}: pass images, targets.")
        check_finite(bool(np.isfinite(Y_train).all()), "Y_train")
        mean = Y_train.mean(axis=0, dtype=np.float64)
        spread = Y_train.std(axis=0, dtype=np.float64)
        typical = np.sqrt(np.mean(mean**2 + spread**2))
        varies = (spread > _MIN_RELATIVE_SD * typical) & (np.ptp(Y_train, axis=0) > 0)
        return cls(mean, np.where(varies, spread, 1.0), varies)

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
