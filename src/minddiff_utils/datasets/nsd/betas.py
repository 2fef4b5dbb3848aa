"""One session's betas out of its file, in either container.

A disk that takes long for each read (a mounted bucket) is noticed at the first voxels,
and the file is then read in large blocks, in its own order, in bounded memory.
"""

import logging
import time
from functools import lru_cache, partial
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import check_shape
from minddiff_utils.core.types import Mask
from minddiff_utils.datasets.nsd.layout import N_TRIALS
from minddiff_utils.datasets.nsd.publisher import NSD
from minddiff_utils.datasets.published import open_hdf5
from minddiff_utils.datasets.volumes import load_image, read_voxels

__all__ = ["check_int16", "read_betas", "voxel_indices"]

logger = logging.getLogger(__name__)

Voxels = npt.NDArray[np.int32]


def voxel_indices(mask: Mask) -> Voxels:
    """Return (n_voxels, 3) indices of `mask`'s voxels in C order: k runs fastest.

    This is the order of the columns of every response matrix of this project.

    >>> voxel_indices(np.array([[[True, False], [True, True]]])).tolist()
    [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    return np.argwhere(mask).astype(np.int32)


def check_int16(dtype: np.dtype[Any], path: Path) -> None:
    """Raise DataError unless betas are stored as NSD stores them."""
    if dtype.kind != "i" or dtype.itemsize != 2:
        raise NSD.wrong(path, f"{dtype} betas", "int16 (percent signal change x 300)")


def read_betas(
    path: Path, mask: Mask, n_trials: int = N_TRIALS
) -> npt.NDArray[np.int16]:
    """Return one session at `mask`, (n_trials, n_voxels), from either container."""
    is_hdf5 = path.suffix.lower() == ".hdf5"
    return (_read_hdf5 if is_hdf5 else _read_nii)(path, mask, n_trials)


def _read_nii(path: Path, mask: Mask, n_trials: int) -> npt.NDArray[np.int16]:
    with NSD.reading(path, "Betas"):
        image = load_image(path)
    check_int16(image.get_data_dtype(), path)
    check_shape(image.shape, (*mask.shape, n_trials), f"Betas in {path}")
    with NSD.reading(path, "Betas"):  # NSD's slope 0 means no scaling
        return read_voxels(path, image, voxel_indices(mask), np.int16)


#: Bytes read at once from a slow disk, and blocks held: 128 MB.
_BLOCK, _N_BLOCKS = 4 << 20, 32
#: Reads after which the pace is known; bytes a second that any disk gives in order.
_FIRST, _IN_ORDER = 16, 100e6
#: Seconds that must be saved for a change of plan.
_WORTHWHILE_S = 1.0


class _SlowDiskError(Exception):
    """Reading piece by piece would take longer than reading the file in its order."""


class _Pace:
    """Notices at the first pieces that the disk takes long for each."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes, self._start = n_bytes, time.perf_counter()

    def check(self, n_read: int, n_pieces: int) -> None:
        """Raise where the pieces left would take longer than the whole file."""
        if n_read not in (1, _FIRST):
            return
        each = (time.perf_counter() - self._start) / n_read
        n_blocks = self._n_bytes / _BLOCK + 1
        in_order = self._n_bytes / _IN_ORDER + each * n_blocks
        if each * (n_pieces - n_read) > in_order + _WORTHWHILE_S:
            raise _SlowDiskError


class _Blocks(FileIO):
    """A file read in large blocks, the last of which are held."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._block = lru_cache(_N_BLOCKS)(partial(self._read_block, path))

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, which HDF5 asks for once, to the end of the file."""
        n_read, place = 0, self.tell()
        while n_read < len(buffer):
            number, start = divmod(place + n_read, _BLOCK)
            part = self._block(number)[start : start + len(buffer) - n_read]
            if not part:
                break
            buffer[n_read : n_read + len(part)] = part
            n_read += len(part)
        self.seek(place + n_read)
        return n_read

    @staticmethod
    def _read_block(path: Path, number: int) -> bytes:
        return np.fromfile(path, np.uint8, _BLOCK, offset=number * _BLOCK).tobytes()


def _read_chunks(
    data: h5py.Dataset, ijk: Voxels, pace: _Pace | None
) -> npt.NDArray[np.int16] | None:
    """Return betas chunk by chunk, (n_trials, n_voxels); None if chunks are not NSD's.

    NSD's chunk is one voxel by all trials, uncompressed. Chunks are taken whole, in the
    order of their index and only for the voxels asked: as a selection, HDF5 would copy
    every number on its own (tests/benchmarks/read_nsd.py).
    """
    n_trials = len(data)
    if data.chunks != (n_trials, 1, 1, 1) or data.id.get_create_plist().get_nfilters():
        return None
    rows = np.empty((len(ijk), n_trials), data.dtype)
    as_bytes = rows.view(np.uint8)
    for n_read, row in enumerate(np.lexsort(ijk.T)):  # k slowest, i fastest
        if pace is not None:
            pace.check(n_read, len(ijk))
        i, j, k = ijk[row].tolist()
        try:
            data.id.read_direct_chunk((0, k, j, i), out=as_bytes[row])
        except (RuntimeError, ValueError):  # never written: HDF5 fills only selections
            rows[row] = data[:, k, j, i]
    return np.ascontiguousarray(rows.T, np.int16)


def _read_planes(
    data: h5py.Dataset, ijk: Voxels, pace: _Pace | None
) -> npt.NDArray[np.int16]:
    """Return betas, (n_trials, n_voxels), plane by plane; for other chunks."""
    betas = np.empty((len(data), len(ijk)), np.int16)
    planes = np.unique(ijk[:, 2])
    for n_read, k in enumerate(planes):
        if pace is not None:
            pace.check(n_read, len(planes))
        columns = np.flatnonzero(ijk[:, 2] == k)
        i, j = ijk[columns, 0], ijk[columns, 1]
        block = data[:, k, j.min() : j.max() + 1, i.min() : i.max() + 1]
        betas[:, columns] = block[:, j - j.min(), i - i.min()]
    return betas


def _read_hdf5(path: Path, mask: Mask, n_trials: int) -> npt.NDArray[np.int16]:
    with NSD.reading(path, "Betas"):
        try:
            with open_hdf5(path) as file:
                pace = _Pace(path.stat().st_size)
                return _read_file(file, path, mask, n_trials, pace)
        except _SlowDiskError:
            logger.info("%s lies on a slow disk and is read in its order", path)
        with _Blocks(path) as blocks, h5py.File(blocks, "r") as file:
            return _read_file(file, path, mask, n_trials, None)


def _read_file(
    file: h5py.File, path: Path, mask: Mask, n_trials: int, pace: _Pace | None
) -> npt.NDArray[np.int16]:
    data, ijk = NSD.dataset(file, "betas", path), voxel_indices(mask)
    check_int16(data.dtype, path)
    expected = (n_trials, *mask.shape[::-1])  # MATLAB's order seen from Python
    check_shape(data.shape, expected, f"Betas in {path}")
    betas = _read_chunks(data, ijk, pace)
    return _read_planes(data, ijk, pace) if betas is None else betas
