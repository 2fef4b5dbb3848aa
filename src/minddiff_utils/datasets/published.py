"""Files as somebody publishes them: tables, arrays, volumes, and what is wrong in them.

What each publisher's readers have alike. What is wrong with a file is one sentence that
ends with what to do, which the publisher's own object knows.
"""

import struct
import subprocess
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.io import loadmat

from minddiff_utils.core.errors import DataError, check_exists
from minddiff_utils.core.reading import reading
from minddiff_utils.core.types import IntArray, Matrix
from minddiff_utils.datasets.volumes import read_array

__all__ = ["Published", "check_ids", "open_hdf5"]

#: Kinds of numbers of which the size does not matter, and numpy's letters for them.
_KINDS = {"floats": "f", "numbers": "biuf"}
#: Off a whole number; 26 labels in steps of 1 / 255 of their range are 0.05 off.
_ROUNDING = 0.1
#: No vertex and no label has a number beyond it.
_FARTHEST = 2**31
_COMPRESSED = 15  # a MATLAB element that zlib packed, with a checksum
_SECONDS = 120  # for a design of 0.4 MB
_APART = """
import sys
from io import BytesIO
import numpy as np
from scipy.io import loadmat
found = loadmat(sys.argv[1], variable_names=sys.argv[2:])
kept = {k: np.asarray(v) for k, v in found.items() if isinstance(v, np.ndarray)}
for name, value in kept.items():
    if value.dtype.hasobject:
        kept[name] = np.full(value.shape, "cell")
buffer = BytesIO()
np.savez(buffer, **kept)
sys.stdout.buffer.write(buffer.getvalue())
"""


@dataclass(frozen=True)
class Published:
    """Files of one publisher: their readers, and what to say where one is not so.

    Each reader raises DataError.

    Attributes
    ----------
    where : str
        What to do where a file is not there.
    again : str
        What to do about a damaged one.
    form : str
        What a damaged one is not in.
    """

    where: str = ""
    again: str = ""
    form: str = "as published"

    def source(self, path: Path) -> str:
        """Return where a file that is not there comes from."""
        return self.where

    def remedy(self, path: Path) -> str:
        """Return what to do about a file whose bytes are damaged."""
        return self.again

    @contextmanager
    def reading(self, path: Path, what: str, where: str = "") -> Iterator[None]:
        """Turn a missing or damaged file into one sentence (DataError)."""
        check_exists(path, what, where or self.source(path))
        found, remedy = f"is truncated or not {self.form}", self.remedy(path)
        with reading(path, DataError, found=found, remedy=remedy, what=what):
            yield

    def wrong(self, path: Path, found: str, expected: str) -> DataError:
        """Return the error of a file that can be read and holds something else."""
        return DataError(
            f"{path} holds {found}, but {expected} is expected: {self.again}."
        )

    def text(
        self, path: Path, what: str, columns: Collection[str], sep: str = ","
    ) -> pd.DataFrame:
        """Return a table as text, without NaN, which has the `columns` at least."""
        with self.reading(path, what):
            table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False)
        self.check_columns(path, table, columns)
        return table

    def numbers(
        self, path: Path, what: str, columns: Collection[str], sep: str = ","
    ) -> pd.DataFrame:
        """Return a table whose `columns` hold whole numbers from 0, without a gap."""
        with self.reading(path, what):
            table = pd.read_csv(path, sep=sep)
        self.check_numbers(path, table, columns)
        return table

    def check_numbers(
        self, path: Path, table: pd.DataFrame, columns: Collection[str]
    ) -> None:
        """Refuse a table unless it has the columns, all of whole numbers from 0."""
        self.check_columns(path, table, columns)
        for name in columns:
            self.whole(path, table[name].to_numpy(), f"the column {name}", 0, 2**31)

    def check_columns(
        self, path: Path, table: pd.DataFrame, columns: Collection[str]
    ) -> None:
        """Refuse a table that lacks one of the columns."""
        lacking = [name for name in columns if name not in table]
        if lacking:
            held = ", ".join(map(str, table.columns))[:200]
            raise self.wrong(path, f"the columns {held}", f"a column {lacking[0]}")

    def array(
        self,
        path: Path,
        what: str,
        kind: str,
        shape: Sequence[int | str],
        **options: Any,
    ) -> npt.NDArray[Any]:
        """Return a file of numpy, of a kind and shape as `check_array` has them.

        Pickles, which could run code, are refused.
        """
        with self.reading(path, what):
            values = np.asarray(np.load(path, allow_pickle=False, **options))
        self.check_array(path, values, kind, shape)
        return values

    def matlab(
        self, path: Path, what: str, names: Collection[str]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the variables `names` of a MATLAB file (up to version 7)."""
        with self.reading(path, what):
            stored = _read_mat(path, names)
        lacking = [name for name in names if name not in stored]
        if lacking:
            held = ", ".join(stored) or "none of its variables"
            raise self.wrong(path, held, f"a variable {lacking[0]!r}")
        return stored

    @contextmanager
    def hdf5(
        self,
        path: Path,
        what: str,
        name: str,
        kind: str = "",
        shape: Sequence[int | str] = (),
    ) -> Iterator[h5py.Dataset]:
        """Open a file and give its dataset `name`; errors while it is open are said.

        `kind` and `shape` as `check_array` has them; without a kind it may be any.
        """
        with self.reading(path, what), open_hdf5(path) as file:
            data = self.dataset(file, name, path)
            if kind:
                self.check_array(path, data, kind, shape, name)
            yield data

    def dataset(self, file: h5py.File, name: str, path: Path) -> h5py.Dataset:
        """Return the dataset `name` of an open file."""
        if name not in file or not isinstance(file[name], h5py.Dataset):
            held = ", ".join(map(str, file))[:200] or "nothing"
            raise self.wrong(path, held, f"a dataset {name!r}")
        return file[name]

    def check_array(
        self,
        path: Path,
        values: npt.NDArray[Any] | h5py.Dataset,
        kind: str,
        shape: Sequence[int | str],
        name: str = "",
    ) -> None:
        """Refuse an array of another kind or shape.

        Parameters
        ----------
        kind : str
            A dtype, or "floats" or "numbers" of any size.
        shape : sequence
            A word stands for any length but 0.
        name : str
            What it is in its file.
        """
        right = values.dtype.kind in _KINDS.get(kind, "") or str(values.dtype) == kind
        sizes = zip(values.shape, shape, strict=False)
        fits = all(n == side or (n and isinstance(side, str)) for n, side in sizes)
        if right and fits and len(shape) == values.ndim:
            return
        found = f"{values.dtype} of shape {values.shape}{name and f' for {name}'}"
        sides = ", ".join(map(str, shape)) + "," * (len(shape) == 1)
        raise self.wrong(path, found, f"{kind} of shape ({sides})")

    def whole(
        self, path: Path, values: npt.NDArray[Any], name: str, least: int, most: int
    ) -> IntArray:
        """Return numbers as int64; refuse fractions, gaps and what is out of range."""
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise self.wrong(path, f"no numbers in {name}", "whole numbers")
        whole = values.astype(np.int64)  # MATLAB's uint16 would wrap below zero
        if not np.array_equal(whole, values):
            raise self.wrong(path, f"fractions in {name}", "whole numbers")
        if whole.size and not least <= whole.min() <= whole.max() <= most:
            found = f"values {whole.min()} to {whole.max()} in {name}"
            raise self.wrong(path, found, f"{least} to {most}")
        return whole

    def no_infinity(self, path: Path, values: npt.NDArray[Any]) -> None:
        """Refuse infinite responses; NaN stands for none."""
        if np.isinf(values).any():
            raise self.wrong(path, "infinite values", "finite ones or NaN")

    # Volumes, and numbers per vertex

    def volume(self, path: Path, what: str) -> npt.NDArray[Any]:
        """Return the array of a NIfTI or MGH file as it is stored, without scaling."""
        with self.reading(path, what):
            return read_array(path)

    def labels(self, path: Path, values: npt.NDArray[Any]) -> IntArray:
        """Return values as whole numbers; floats of a volume resaved are rounded.

        Fractions beyond what eight bits leave of two dozen labels are refused.
        """
        if not np.isfinite(values).all():
            raise self.wrong(path, "NaN or infinite values", "labels")
        labels = np.rint(values)
        off = (np.abs(values - labels) > _ROUNDING) | (np.abs(labels) > _FARTHEST)
        if off.any():
            found = f"the value {float(values[off].ravel()[0]):.6g}"
            expected = "a whole number, neither resampled nor averaged,"
            raise self.wrong(path, found, expected)
        return np.asarray(labels, np.int64)

    def check_labels(
        self, path: Path, labels: IntArray, known: Iterable[int], expected: str
    ) -> None:
        """Refuse labels that are none of -1, 0 and those `known`."""
        odd = set(np.unique(labels).tolist()) - {-1, 0, *known}
        if odd:
            raise self.wrong(path, f"the value {min(odd)}", f"-1, 0 or {expected}")

    def ncsnr(self, path: Path, values: npt.NDArray[Any]) -> Matrix:
        """Return noise-ceiling SNR as float32; refuse what can be none."""
        if (values < 0).any() or np.isinf(values).any():
            found = "negative or infinite values"
            raise self.wrong(path, found, "a signal-to-noise ratio")
        return values.astype(np.float32)


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; whoever else has it open does not matter."""
    return h5py.File(path, "r", locking=False)


def check_ids(image_id: npt.ArrayLike, n_images: int, path: Path) -> IntArray:
    """Return the ids of images; refuse those beyond the images of a file."""
    ids = np.asarray(image_id, np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < n_images:
        raise DataError(
            f"Image ids must lie in 0..{n_images - 1}, the images of {path}, but span"
            f" {ids.min()}..{ids.max()}: use files of one release."
        )
    return ids


# --- MATLAB ---------------------------------------------------------------------------


def _read_mat(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Return those variables `names` that a MATLAB file (up to version 7) holds.

    SciPy's reader may end the process at one changed byte, without a word. Where every
    variable is compressed, the checksums of zlib verify the bytes; any other file is
    read in a process of its own.
    """
    data = path.read_bytes()
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise ValueError("MATLAB's version 7.3: save it in MATLAB with -v7")
    if _is_verified(data):
        stored = loadmat(BytesIO(data), variable_names=list(names))
        return {name: np.asarray(stored[name]) for name in names if name in stored}
    command = [sys.executable, "-c", _APART, str(path.absolute()), *names]
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    if done.returncode < 0:
        raise ValueError(f"its reader ends by signal {-done.returncode}")
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip().splitlines()[-1])
    with np.load(BytesIO(done.stdout), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _is_verified(data: bytes) -> bool:
    """Return whether all of a MATLAB file is compressed; raise where a sum is wrong."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or 0 in data[:4]:
        return False
    place = 128
    while place + 8 <= len(data):
        kind, size = struct.unpack(f"{order}II", data[place : place + 8])
        if kind != _COMPRESSED:
            return False
        packed = zlib.decompressobj()
        packed.decompress(data[place + 8 : place + 8 + size])
        if not packed.eof:
            raise EOFError("a variable is cut short")
        place += 8 + size
    return place == len(data)
