"""Volumes of voxels and numbers per vertex, as NIfTI and MGH files hold them.

Whatever is wrong with a file becomes an exception in words, which its publisher's
reader (`published`) turns into a sentence: a changed byte in a header gives the same
result or an error, never other numbers.
"""

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage

from minddiff_utils.core.types import Array, Ints
from minddiff_utils.datasets.surfaces import is_tag

__all__ = ["end_of", "load_image", "read_array", "read_voxels"]


def load_image(path: Path) -> SpatialImage:
    """Return the volume at `path`, its numbers not yet read."""
    if path.suffix.lower() == ".mgh":  # nibabel would leave the file open
        return nib.MGHImage.from_bytes(path.read_bytes())
    image = nib.load(path)
    if not isinstance(image, SpatialImage):
        raise ImageFileError(f"{type(image).__name__} is no volume")
    plain = path.suffix.lower() == ".nii"  # gzip has a checksum
    if plain and end_of(image) != path.stat().st_size:
        raise ValueError(f"{path.stat().st_size} bytes, {end_of(image)} by its header")
    return image


def end_of(image: Any) -> int:
    """Return where a file's numbers end."""
    n_values = math.prod(map(int, image.shape))  # may be beyond int64
    return int(image.dataobj.offset) + n_values * int(image.get_data_dtype().itemsize)


def read_array(path: Path) -> npt.NDArray[Any]:
    """Return the numbers of a volume that ends where its header says."""
    image: Any = load_image(path)
    scaling = float(image.dataobj.slope), float(image.dataobj.inter)
    kind = image.get_data_dtype().kind
    if kind not in "iuf" or (kind == "f" and scaling != (1.0, 0.0)):
        raise ValueError(f"{image.get_data_dtype()} numbers, scaled by {scaling}")
    values: npt.NDArray[Any] = np.asanyarray(image.dataobj)
    with nib.openers.ImageOpener(str(path)) as file:
        file.seek(end_of(image))
        rest = file.read(64)
    if rest and not (isinstance(image, nib.MGHImage) and _is_footer(rest)):
        raise ValueError(f"{len(rest)} bytes or more beyond the end by its header")
    return values


def read_voxels(path: Path, image: Any, ijk: Ints, dtype: npt.DTypeLike) -> Array:
    """Return the voxels `ijk` (n_voxels, 3) of a file's volumes, (n_volumes, n_voxels).

    Volumes are read one by one in the order of the file, of which a session has up to
    12 GB, and to its end, where gzip has a checksum. `image` as `load_image` gives it.
    """
    if (scaling := (image.dataobj.slope, image.dataobj.inter)) != (1, 0):
        raise ValueError(f"numbers scaled by {scaling}")
    stored, shape = image.get_data_dtype(), image.shape
    place = np.ravel_multi_index(tuple(ijk.T), shape[:3], order="F")
    n_bytes = math.prod(shape[:3]) * stored.itemsize
    found = np.empty((shape[3], len(place)), dtype)
    with nib.openers.ImageOpener(str(path)) as file:
        file.seek(int(image.dataobj.offset))
        for row in found:
            volume = file.read(n_bytes)
            if len(volume) < n_bytes:
                raise EOFError("it ends within a trial")
            row[:] = np.frombuffer(volume, stored)[place]
        if file.read(1):
            raise ValueError("more bytes than its header says")
    return found


def _is_footer(rest: bytes) -> bool:
    """Return whether bytes can be what FreeSurfer leaves behind an MGH volume.

    Five floats, then tags, each of a small number.
    """
    return len(rest) == 20 or (len(rest) >= 24 and is_tag(rest[20:24]))
