"""One session's betas out of its file, in either container.

Place in the flow: below `nsd`, part of layer 4.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from minddiff_utils.errors import check_shape
from minddiff_utils.nsd_facts import N_TRIALS
from minddiff_utils.nsd_files import dataset, guard, open_hdf5, wrong
from minddiff_utils.nsd_formats import load_image

__all__ = ["read_betas_hdf5", "read_betas_nii", "voxel_indices"]

Mask = npt.NDArray[np.bool_]
Voxels = npt.NDArray[np.int32]


def voxel_indices(mask: Mask) -> Voxels:
    """Return (n_voxels, 3) indices of `mask`'s voxels in C order: k runs fastest.

    This is the order of the columns of every response matrix of this project.

    >>> voxel_indices(np.array([[[True, False], [True, True]]])).tolist()
    [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    return np.argwhere(mask).astype(np.int32)


def _check_int16(dtype: np.dtype[Any], path: Path) -> None:
    if dtype.kind != "i" or dtype.itemsize != 2:
        raise wrong(path, f"{dtype} betas", "int16 (percent signal change x 300)")


def read_betas_nii(path: Path, mask: Mask) -> npt.NDArray[np.int16]:
    """Return one session at `mask`, (750, n_voxels), from a NIfTI file."""
    with guard(path, "Betas"):
        image = load_image(path)
    _check_int16(image.get_data_dtype(), path)
    check_shape(image.shape, (*mask.shape, N_TRIALS), f"Betas in {path}")
    with guard(path, "Betas"):
        data = np.asanyarray(image.dataobj)  # int16: NSD's slope 0 means no scaling
    _check_int16(data.dtype, path)
    return np.ascontiguousarray(data[mask].T, dtype=np.int16)


def _read_chunks(data: h5py.Dataset, ijk: Voxels) -> npt.NDArray[np.int16] | None:
    """Return betas chunk by chunk, (750, n_voxels); None if chunks are not NSD's.

    NSD's chunk is one voxel by 750 trials, uncompressed. Chunks are taken whole, in the
    order of their index and only for the voxels asked: as a selection, HDF5 would copy
    every number on its own (tests/benchmarks/read_nsd.py).
    """
    if data.chunks != (N_TRIALS, 1, 1, 1) or data.id.get_create_plist().get_nfilters():
        return None
    rows = np.empty((len(ijk), N_TRIALS), data.dtype)
    as_bytes = rows.view(np.uint8)
    for row in np.lexsort(ijk.T):  # k slowest, i fastest
        i, j, k = ijk[row].tolist()
        try:
            data.id.read_direct_chunk((0, k, j, i), out=as_bytes[row])
        except (RuntimeError, ValueError):  # never written: HDF5 fills only selections
            rows[row] = data[:, k, j, i]
    return np.ascontiguousarray(rows.T, np.int16)


def _read_planes(data: h5py.Dataset, ijk: Voxels) -> npt.NDArray[np.int16]:
    """Return betas, (750, n_voxels), plane by plane; for files with other chunks."""
    betas = np.empty((N_TRIALS, len(ijk)), np.int16)
    for k in np.unique(ijk[:, 2]):
        columns = np.flatnonzero(ijk[:, 2] == k)
        i, j = ijk[columns, 0], ijk[columns, 1]
        block = data[:, k, j.min() : j.max() + 1, i.min() : i.max() + 1]
        betas[:, columns] = block[:, j - j.min(), i - i.min()]
    return betas


def read_betas_hdf5(path: Path, mask: Mask) -> npt.NDArray[np.int16]:
    """Return one session at `mask`, (750, n_voxels), from an HDF5 file."""
    ijk = voxel_indices(mask)
    with guard(path, "Betas"), open_hdf5(path) as file:
        data = dataset(file, "betas", path)
        _check_int16(data.dtype, path)
        expected = (N_TRIALS, *mask.shape[::-1])  # MATLAB's order seen from Python
        check_shape(data.shape, expected, f"Betas in {path}")
        betas = _read_chunks(data, ijk)
        return _read_planes(data, ijk) if betas is None else betas
