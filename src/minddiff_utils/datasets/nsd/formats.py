"""Single files of NSD, opened: whatever is wrong with one is said in one sentence.

Here are also the formats whose libraries take damage for numbers, or end the process at
it: a changed byte in a header gives the same result or an error here, never other
numbers, and never a signal. Nothing here knows where a file lies or what its numbers
mean. What to do about a file follows the data: an in-silico folder is simulated again,
NSD's own is compared with what NSD publishes.
"""

import math
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage

from minddiff_utils.core.errors import DataError, check_exists
from minddiff_utils.core.provenance import MARK
from minddiff_utils.core.reading import reading, stand_in
from minddiff_utils.core.types import IntArray, Matrix
from minddiff_utils.datasets.nsd.layout import PARTS
from minddiff_utils.datasets.published import Published

__all__ = [
    *("NSD", "again", "check_labels", "first_volume", "load_image"),
    *("read_mesh", "read_patch", "read_per_vertex", "read_volume", "source"),
    *("to_labels", "to_ncsnr"),
]

#: Off a whole number; 26 labels in steps of 1 / 255 of their range are 0.05 off.
_ROUNDING = 0.1
#: No vertex and no label has a number beyond it.
_FARTHEST = 2**31
_SIMULATE = "make one with `minddiff simulate`"


_FREESURFER: Any = nib.freesurfer  # its functions carry no types

# --- what to do -----------------------------------------------------------------------


def _root(path: Path) -> Path | None:
    """Return the folder that holds NSD's folders and, in one of them, `path`."""
    return next((p.parent for p in path.parents if p.name in PARTS), None)


def is_marked(path: Path) -> bool:
    """Return whether `path` lies in a folder that a simulation marked as its own."""
    root = _root(path)
    return root is not None and _seen((root / MARK).is_file)


def _seen(test: Callable[[], bool]) -> bool:
    """Return what `test` of a path says, False where nobody may look."""
    try:
        return test()
    except OSError:
        return False


def source(path: Path) -> str:
    """Return where a file that is not there comes from."""
    root, name = _root(path), "name the right folder (--nsd-root)"
    if root is None or is_marked(path):
        return f"{name}, or {_SIMULATE}"
    if not _seen(root.is_dir):
        return f"{name}, download NSD with `minddiff fetch`, or {_SIMULATE}"
    if path.suffix == ".json":
        return f"unpack COCO's annotations_trainval2017.zip there, or {name}"
    return f"download it from NSD (`minddiff fetch`), or {name}"


def again(path: Path) -> str:
    """Return what to do about a file whose bytes are damaged."""
    if is_marked(path):
        return "simulate the folder again (`minddiff simulate`)"
    owner = "COCO's" if path.suffix == ".json" else "NSD's"
    return (
        f"compare its size and checksum with {owner} own file, and download it again"
        " beside this one if they differ"
    )


class _Nsd(Published):
    """NSD's files: where they come from, and what helps, depends on the folder."""

    @contextmanager
    def reading(self, path: Path, what: str, where: str = "") -> Iterator[None]:
        """Turn a missing or unreadable file into one sentence."""
        check_exists(path, what, where or source(path))
        found = "is truncated or not in NSD's format"
        with reading(path, DataError, found=found, remedy=again(path), what=what):
            yield

    def wrong(self, path: Path, found: str, expected: str) -> DataError:
        """Return the error of a file that can be read and holds something else."""
        marked = is_marked(path)
        remedy = again(path) if marked else "replace it by NSD's own file"
        other, fetch = stand_in(path)
        if other:
            return DataError(f"{path} {other}: {fetch or remedy}.")
        return DataError(f"{path} holds {found}, but {expected} is expected: {remedy}.")


NSD = _Nsd("", "")


# --- opening --------------------------------------------------------------------------


def first_volume(paths: Iterator[Path]) -> tuple[Path, SpatialImage] | None:
    """Return the first volume that can be read, and its file."""
    for path in paths:
        with suppress(DataError), NSD.reading(path, "Volume"):
            return path, load_image(path)
    return None


def read_volume(path: Path, what: str) -> npt.NDArray[Any]:
    """Return the array of a NIfTI or MGH file as it is stored, without scaling."""
    with NSD.reading(path, what):
        return _read_array(path)


def to_labels(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int64]:
    """Return values as whole numbers: a volume resaved as floats or scaled is rounded.

    Fractions beyond what eight bits leave of two dozen labels are refused.
    """
    if not np.isfinite(values).all():
        raise NSD.wrong(path, "NaN or infinite values", "labels")
    labels = np.rint(values)
    off = (np.abs(values - labels) > _ROUNDING) | (np.abs(labels) > _FARTHEST)
    if off.any():
        found = f"the value {float(values[off].ravel()[0]):.6g}"
        raise NSD.wrong(path, found, "a whole number, neither resampled nor averaged,")
    return np.asarray(labels, np.int64)


def check_labels(
    path: Path, labels: IntArray, known: Iterable[int], expected: str
) -> None:
    """Refuse labels that are none of -1, 0 and those `known`."""
    odd = set(np.unique(labels).tolist()) - {-1, 0, *known}
    if odd:
        raise NSD.wrong(path, f"the value {min(odd)}", f"-1, 0 or {expected}")


def to_ncsnr(values: npt.NDArray[Any], path: Path) -> Matrix:
    """Return noise-ceiling SNR as float32; refuse what can be none."""
    if (values < 0).any() or np.isinf(values).any():
        raise NSD.wrong(path, "negative or infinite values", "a signal-to-noise ratio")
    return values.astype(np.float32)


# --- volumes --------------------------------------------------------------------------


def load_image(path: Path) -> SpatialImage:
    """Return the volume at `path`, its numbers not yet read."""
    if path.suffix.lower() == ".mgh":  # nibabel would leave the file open
        return nib.MGHImage.from_bytes(path.read_bytes())
    image = nib.load(path)
    if not isinstance(image, SpatialImage):
        raise ImageFileError(f"{type(image).__name__} is no volume")
    plain = path.suffix.lower() == ".nii"  # gzip has a checksum
    if plain and _end(image) != path.stat().st_size:
        raise ValueError(f"{path.stat().st_size} bytes, {_end(image)} by its header")
    return image


def _end(image: Any) -> int:
    """Return where a file's numbers end."""
    n_values = math.prod(map(int, image.shape))  # may be beyond int64
    return int(image.dataobj.offset) + n_values * int(image.get_data_dtype().itemsize)


def _read_array(path: Path) -> npt.NDArray[Any]:
    """Return the numbers of a volume that ends where its header says."""
    image: Any = load_image(path)
    scaling = float(image.dataobj.slope), float(image.dataobj.inter)
    kind = image.get_data_dtype().kind
    if kind not in "iuf" or (kind == "f" and scaling != (1.0, 0.0)):
        raise ValueError(f"{image.get_data_dtype()} numbers, scaled by {scaling}")
    values: npt.NDArray[Any] = np.asanyarray(image.dataobj)
    with nib.openers.ImageOpener(str(path)) as file:
        file.seek(_end(image))
        rest = file.read(64)
    if rest and not (isinstance(image, nib.MGHImage) and _is_footer(rest)):
        raise ValueError(f"{len(rest)} bytes or more beyond the end by its header")
    return values


def _is_footer(rest: bytes) -> bool:
    """Return whether bytes can be what FreeSurfer leaves behind an MGH volume.

    Five floats, then tags, each of a small number.
    """
    return len(rest) == 20 or (len(rest) >= 24 and _is_tag(rest[20:24]))


def _is_tag(four: bytes) -> bool:
    """Return whether four bytes are the number of one of FreeSurfer's tags."""
    return 0 < int.from_bytes(four, "big", signed=True) < 1000


# --- surfaces -------------------------------------------------------------------------


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
    if rest and not _is_tag(rest):
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
