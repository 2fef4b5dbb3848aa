"""File formats as NSD's own MATLAB code writes them, to the byte and without dates.

NIfTI headers differ from nibabel's defaults (sform code 1, qform code 0, zero slope),
so they are packed here. Not a reader: `datasets.nsd` reads, and shares no code with
this module.

References
----------
Allen et al. 2022, Nature Neuroscience 25:116, data manual; cvnlab/nsdcode
`nsd_savenifti`, cvnlab/nsddatapaper `main/export.m`.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

__all__ = [
    "VOXEL_MM",
    "nifti_header",
    "write_beta_hdf5",
    "write_beta_nifti",
    "write_curvature",
    "write_flat_patch",
    "write_mgh",
    "write_nifti",
    "write_surface",
]

#: Edge of a func1pt8mm voxel as the headers state it, mm.
VOXEL_MM = 1.8
#: numpy kind -> (NIfTI datatype code, bits per voxel).
_DATATYPES = {"int16": (4, 16), "float32": (16, 32), "float64": (64, 64)}
_GZIP = 31  # zlib's wbits for a gzip container; its header then holds no time


def nifti_header(
    shape: tuple[int, ...], dtype: str, *, step: float, extremes: tuple[int, int]
) -> bytes:
    """Return the 352 bytes before the voxels of a NIfTI-1 file.

    Parameters
    ----------
    shape : tuple of int
        (X, Y, Z) or (X, Y, Z, T).
    dtype : str
        One of int16, float32, float64.
    step : float
        Fourth pixel dimension: 4/3 for betas and maps, 1 for ROI and brain mask.
    extremes : tuple of int
        Rounded (maximum, minimum) of the data: glmax and glmin.
    """
    code, bits = _DATATYPES[dtype]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    header[38:39] = b"r"
    dims = [len(shape), *shape, *[1] * (7 - len(shape))]
    struct.pack_into("<8h", header, 40, *dims)
    struct.pack_into("<hh", header, 70, code, bits)
    pixdim = (0.0, VOXEL_MM, VOXEL_MM, VOXEL_MM, step, 1.0, 1.0, 1.0)
    struct.pack_into("<8f", header, 76, *pixdim)
    struct.pack_into("<f", header, 108, 352.0)
    struct.pack_into("<ii", header, 140, *extremes)
    header[228:232] = b"none"
    struct.pack_into("<hh", header, 252, 0, 1)  # qform_code, sform_code
    for axis in range(3):
        row = [0.0, 0.0, 0.0, -(shape[axis] - 1) / 2 * VOXEL_MM]
        row[axis] = VOXEL_MM
        struct.pack_into("<4f", header, 280 + 16 * axis, *row)
    header[344:348] = b"n+1\0"
    return bytes(header)


def _extremes(values: npt.NDArray[Any]) -> tuple[int, int]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0, 0
    return int(np.rint(finite.max())), int(np.rint(finite.min()))


def write_nifti(path: Path, volume: npt.NDArray[Any], *, step: float = 4 / 3) -> None:
    """Write a volume (X, Y, Z) as .nii.gz; same array, same bytes."""
    dtype = volume.dtype.name
    header = nifti_header(volume.shape, dtype, step=step, extremes=_extremes(volume))
    data = volume.astype(volume.dtype.newbyteorder("<")).tobytes(order="F")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + data, 4, mtime=0))


def write_beta_hdf5(
    path: Path,
    betas: npt.NDArray[np.int16],
    voxel_ijk: npt.NDArray[np.int32],
    shape: tuple[int, int, int],
) -> None:
    """Write betas as NSD's hdf5: `betas` (n_trials, Z, Y, X), one chunk per voxel.

    Parameters
    ----------
    path : Path
        File to make.
    betas : ndarray of int16, shape (n_trials, n_voxels)
        Percent signal change times 300.
    voxel_ijk : ndarray of int32, shape (n_voxels, 3)
        Where each column lies; all other voxels stay unwritten and read as zero.
    shape : tuple of int
        (X, Y, Z).
    """
    n_trials = len(betas)
    path.parent.mkdir(parents=True, exist_ok=True)
    by_voxel = np.ascontiguousarray(betas.T, dtype="<i2")
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "betas",
            shape=(n_trials, *shape[::-1]),
            dtype="<i2",
            chunks=(n_trials, 1, 1, 1),
            track_times=False,
        )
        for (i, j, k), values in zip(voxel_ijk.tolist(), by_voxel, strict=True):
            dataset.id.write_direct_chunk((0, k, j, i), values.tobytes())


def write_beta_nifti(
    path: Path,
    betas: npt.NDArray[np.int16],
    voxel_ijk: npt.NDArray[np.int32],
    shape: tuple[int, int, int],
) -> None:
    """Write the same betas as NSD's nii.gz: (X, Y, Z, n_trials), int16."""
    extremes = (max(int(betas.max()), 0), min(int(betas.min()), 0))
    header = nifti_header((*shape, len(betas)), "int16", step=4 / 3, extremes=extremes)
    path.parent.mkdir(parents=True, exist_ok=True)
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    with path.open("wb") as file:
        file.write(packer.compress(header))
        for volume in _volumes(betas, voxel_ijk, shape):
            file.write(packer.compress(volume))
        file.write(packer.flush())


def _volumes(
    betas: npt.NDArray[np.int16],
    voxel_ijk: npt.NDArray[np.int32],
    shape: tuple[int, int, int],
) -> Iterator[bytes]:
    place = np.ravel_multi_index(tuple(voxel_ijk.T), shape, order="F")
    volume = np.zeros(int(np.prod(shape)), dtype="<i2")
    for row in betas:
        volume[place] = row
        yield volume.tobytes()


def write_mgh(path: Path, values: npt.NDArray[Any]) -> None:
    """Write values per vertex, (n_vertices,) or (n_vertices, 3), as .mgz or .mgh."""
    n_vertices = len(values)
    n_frames = 1 if values.ndim == 1 else values.shape[1]
    header = bytearray(284)
    struct.pack_into(">7i", header, 0, 1, n_vertices, 1, 1, n_frames, 3, 1)
    axes = (-1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0)
    struct.pack_into(">h15f", header, 28, 1, 1.0, 1.0, 1.0, *axes, 0.0, 0.0, 0.0)
    packed = bytes(header) + values.astype(">f4").tobytes(order="F")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mgz":
        packed = gzip.compress(packed, 6, mtime=0)
    path.write_bytes(packed)


def write_surface(
    path: Path, coordinates: npt.NDArray[np.float32], faces: npt.NDArray[np.int32]
) -> None:
    """Write a FreeSurfer triangle file without user name or date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\xff\xff\xfecreated by minddiff-utils\n\n"
        + struct.pack(">ii", len(coordinates), len(faces))
        + coordinates.astype(">f4").tobytes()
        + faces.astype(">i4").tobytes()
    )


def write_flat_patch(
    path: Path, coordinates: npt.NDArray[np.float32], kept: npt.NDArray[np.bool_]
) -> None:
    """Write the vertices `kept` of a flat map as a FreeSurfer binary patch."""
    vertices = np.flatnonzero(kept)
    records = np.zeros(len(vertices), dtype=[("index", ">i4"), ("xyz", ">f4", 3)])
    records["index"] = vertices + 1
    records["xyz"] = coordinates[vertices]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(">ii", -1, len(vertices)) + records.tobytes())


def write_curvature(path: Path, values: npt.NDArray[np.float32], n_faces: int) -> None:
    """Write one value per vertex as FreeSurfer's curvature format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = b"\xff\xff\xff" + struct.pack(">iii", len(values), n_faces, 1)
    path.write_bytes(header + values.astype(">f4").tobytes())
