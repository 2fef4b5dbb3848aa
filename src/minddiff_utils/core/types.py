"""Names for arrays by what they hold; shapes stand in each docstring."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Doubles",
    "Floats",
    "Images",
    "IntArray",
    "Ints",
    "Mask",
    "Matrix",
]

Array = npt.NDArray[Any]
#: Of any precision, in double, and in single precision.
Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
#: Of any width, and as numpy indexes.
Ints = npt.NDArray[np.integer[Any]]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
#: RGB, uint8 (n, height, width, 3).
Images = npt.NDArray[np.uint8]
