"""Single files of NSD, opened: whatever is wrong with one is said in one sentence.

Nothing here knows where a file lies or what its numbers mean (`nsd` does). What to do
about a file follows the data: an in-silico folder is simulated again, NSD's own is
compared with what NSD publishes. Place in the flow: below `nsd`, part of layer 4.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import SpatialImage

from minddiff_utils.core.errors import DataError, check_exists
from minddiff_utils.core.reading import reading, stand_in
from minddiff_utils.datasets.nsd.facts import MARK, PARTS
from minddiff_utils.datasets.nsd.formats import load_image, read_array

__all__ = [
    "again",
    "dataset",
    "first_volume",
    "guard",
    "is_marked",
    "load_image",
    "open_hdf5",
    "read_volume",
    "source",
    "to_labels",
    "wrong",
]

#: Off a whole number; 26 labels in steps of 1 / 255 of their range are 0.05 off.
_ROUNDING = 0.1
#: No vertex and no label has a number beyond it.
_FARTHEST = 2**31
_SIMULATE = "make one with `minddiff simulate`"


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


@contextmanager
def guard(path: Path, what: str) -> Iterator[None]:
    """Turn a missing or unreadable file into one sentence."""
    check_exists(path, what, source(path))
    found = "is truncated or not in NSD's format"
    with reading(path, DataError, found=found, remedy=again(path), what=what):
        yield


def wrong(path: Path, found: str, expected: str) -> DataError:
    """Return the error of a file that can be read and holds something else."""
    remedy = "replace it by NSD's own file"
    if is_marked(path):
        remedy = again(path)
    other, fetch = stand_in(path)
    if other:
        return DataError(f"{path} {other}: {fetch or remedy}.")
    return DataError(f"{path} holds {found}, but {expected} is expected: {remedy}.")


# --- opening --------------------------------------------------------------------------


def first_volume(paths: Iterator[Path]) -> tuple[Path, SpatialImage] | None:
    """Return the first volume that can be read, and its file."""
    for path in paths:
        with suppress(DataError), guard(path, "Volume"):
            return path, load_image(path)
    return None


def read_volume(path: Path, what: str) -> npt.NDArray[Any]:
    """Return the array of a NIfTI or MGH file as it is stored, without scaling."""
    with guard(path, what):
        return read_array(path)


def to_labels(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int64]:
    """Return values as whole numbers: a volume resaved as floats or scaled is rounded.

    Fractions beyond what eight bits leave of two dozen labels are refused.
    """
    if not np.isfinite(values).all():
        raise wrong(path, "NaN or infinite values", "labels")
    labels = np.rint(values)
    off = (np.abs(values - labels) > _ROUNDING) | (np.abs(labels) > _FARTHEST)
    if off.any():
        found = f"the value {float(values[off].ravel()[0]):.6g}"
        raise wrong(path, found, "a whole number, neither resampled nor averaged,")
    return np.asarray(labels, np.int64)


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; whoever else has it open does not matter."""
    return h5py.File(path, "r", locking=False)


def dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Return the dataset `name` of an open file."""
    if name not in file or not isinstance(file[name], h5py.Dataset):
        held = ", ".join(map(str, file)) or "nothing"
        raise wrong(path, f"{held}", f"a dataset named {name!r}")
    return file[name]
