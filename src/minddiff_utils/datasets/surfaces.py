"""FreeSurfer's surfaces: triangles, numbers per vertex and flat maps.

The libraries that read these formats take damage for numbers, or end the process at
it: here a changed byte gives the same result or an exception in words, which the
publisher's reader (`published`) turns into a sentence.
"""

import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

__all__ = ["is_tag", "read_mesh", "read_patch", "read_per_vertex"]

_FREESURFER: Any = nib.freesurfer  # its functions carry no types


def is_tag(four: bytes) -> bool:
    """Return whether four bytes are the number of one of FreeSurfer's tags."""
    return 0 < int.from_bytes(four, "big", signed=True) < 1000


def read_mesh(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return vertices (n, 3) and faces (m, 3) of a FreeSurfer surface of triangles."""
    with path.open("rb") as file:
        magic = file.read(3)
        if magic != b"\xff\xff\xfe":
            raise ValueError("no surface of triangles")
        file.readline(), file.readline()
        start = file.tell()
        n_vertices, n_faces = struct.unpack(">ii", file.read(8))
        file.seek(start + 8 + 12 * (max(n_vertices, 0) + max(n_faces, 0)))
        rest = file.read(4)
    size = path.stat().st_size - start - 8
    if min(n_vertices, n_faces) < 1 or 12 * (n_vertices + n_faces) > size:
        raise ValueError(f"{size} bytes for {n_vertices} vertices, {n_faces} faces")
    if rest and not is_tag(rest):
        raise ValueError(f"more than {n_vertices} vertices and {n_faces} faces")
    vertices, faces = _FREESURFER.read_geometry(path)
    if not np.isfinite(vertices).all():
        raise ValueError("NaN or infinite coordinates")
    if not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError(f"faces of vertices {faces.min()} to {faces.max()}")
    return np.asarray(vertices, np.float64), np.asarray(faces, np.int64)


def read_per_vertex(path: Path) -> npt.NDArray[np.float32]:
    """Return one number per vertex of a FreeSurfer morphometry file."""
    data = path.read_bytes()
    if data[:3] != b"\xff\xff\xff":
        raise ValueError("no file of numbers per vertex")
    n_vertices, _, n_values = struct.unpack(">iii", data[3:15])
    if n_values != 1 or len(data) != 15 + 4 * n_vertices:
        raise ValueError(f"{len(data)} bytes for {n_vertices} vertices")
    return np.asarray(_FREESURFER.read_morph_data(path), np.float32)


def read_patch(
    path: Path,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return vertices (n,), 0-based, and positions (n, 3) of a FreeSurfer flat patch.

    -1, n, then per vertex its 1-based index (negative at the border) and three floats,
    big endian.
    """
    data = path.read_bytes()
    magic, n_vertices = np.frombuffer(data, ">i4", 2).tolist()
    if magic != -1 or len(data) != 8 + 16 * n_vertices:
        raise ValueError("its size does not fit its header")
    kind = np.dtype([("index", ">i4"), ("xyz", ">f4", 3)])
    records = np.frombuffer(data, kind, n_vertices, offset=8)
    index = np.abs(records["index"]).astype(np.int64) - 1
    return index, records["xyz"].astype(np.float64)
