"""Rows of a large array, read when they are asked for: images that stay where they are.

The images of one subject of NSD take 5 GB as they are shown and 8 GB at the generator's
size. Whatever looks at all of them does it block by block, and this is what it is
handed in the place of an array. It knows no file and no image; who makes one says how
rows are read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.types import Array, IntArray

__all__ = ["BLOCK", "Images", "Rows", "in_blocks", "take"]

#: Rows read at once where all are gone through.
BLOCK = 64


@dataclass(frozen=True)
class Rows:
    """An array (n, ...) whose rows are read when they are asked for.

    Attributes
    ----------
    read : callable
        Positions, int64 (k,), to the array of these rows, (k, ...).
    shape : tuple of int
    dtype : dtype
    """

    read: Callable[[IntArray], Array]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Return the number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        """Read rows: one by its position, more by slice, mask or positions."""
        positions = np.arange(len(self))[key]
        if positions.ndim == 0:
            return np.asarray(self.read(positions[None])[0])
        return self.read(positions)

    def __iter__(self) -> Iterator[Array]:
        for _, block in in_blocks(self):
            yield from block

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Read all rows."""
        return np.asarray(self[:], dtype)

    def of(self, key: Any) -> "Rows":
        """Return some of the rows, unread, by slice, mask or positions."""
        chosen = np.arange(len(self))[key]
        shape = (len(chosen), *self.shape[1:])
        return Rows(lambda positions: self.read(chosen[positions]), shape, self.dtype)


#: Images, uint8 (n, height, width, 3), held or unread.
Images = npt.NDArray[np.uint8] | Rows


def take(array: Any, key: Any) -> Any:
    """Return rows of an array, or of `Rows` without reading them."""
    return array.of(key) if isinstance(array, Rows) else array[key]


def in_blocks(array: Any, n_rows: int = BLOCK) -> Iterator[tuple[slice, Array]]:
    """Yield an array's or `Rows`'s blocks of `n_rows` rows, with where each stands.

    >>> [(k.start, v.tolist()) for k, v in in_blocks(np.arange(3), 2)]
    [(0, [0, 1]), (2, [2])]
    """
    for first in range(0, len(array), n_rows):
        rows = slice(first, min(first + n_rows, len(array)))
        yield rows, array[rows]
