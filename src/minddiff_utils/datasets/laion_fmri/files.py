"""Single files of LAION-fMRI, opened: what is wrong is one sentence."""

import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.reading import Published
from minddiff_utils.core.types import IntArray, Ints, Mask, Matrix
from minddiff_utils.datasets.laion_fmri import layout
from minddiff_utils.datasets.nsd.formats import load_image, open_hdf5

__all__ = [
    "read_areas",
    "read_betas",
    "read_captions",
    "read_ceiling",
    "read_grid",
    "read_images",
    "read_mask",
    "read_split",
    "read_table",
    "read_trials",
]

_RELEASE = Published(
    "get it with `minddiff fetch`, or name the folder of LAION-fMRI that holds"
    " derivatives and stimuli (--nsd-root)",
    "compare it with LAION-fMRI's own file and fetch it again",
)
#: What stood behind images that are transparent in part, and their side, px.
_GREY, _SIDE = 128, 1000
_SESSION = re.compile(r"(?:ses-)?0*(\d+)")


# --- tables ---------------------------------------------------------------------------


def _read_csv(path: Path, what: str, columns: Sequence[str], sep: str) -> pd.DataFrame:
    """Return some columns of a table as text; all are there and none has a gap."""
    with _RELEASE.reading(path, what):
        table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False)
    lacking = [name for name in columns if name not in table]
    if lacking:
        held = ", ".join(map(str, table.columns))[:80]
        raise _RELEASE.wrong(path, f"the columns {held}", f"a column {lacking[0]}")
    found: pd.DataFrame = table[list(columns)]
    empty = (found == "").any(axis=1)
    if empty.any():
        raise _RELEASE.wrong(path, f"a gap in row {int(empty.argmax()) + 1}", "no gap")
    if found.empty:
        raise _RELEASE.wrong(path, "no row", "one at least")
    return found


def read_table(path: Path) -> dict[str, int]:
    """Return the number of each image, its row in the table, by its name."""
    names = _read_csv(path, "Table of images", ["image_name"], ",")["image_name"]
    twice = names[names.duplicated()]
    if len(twice):
        raise _RELEASE.wrong(path, f"the image {twice.iloc[0]} twice", "each name once")
    return {name: row for row, name in enumerate(names)}


def read_trials(path: Path, session: int) -> list[str]:
    """Return the name of the image of each volume of betas, in their order."""
    table = _read_csv(path, "Trials", ["session", "beta_index", "label"], "\t")
    numbers = [_SESSION.fullmatch(text) for text in table["session"]]
    if any(number is None or int(number[1]) != session for number in numbers):
        odd = next(t for t in table["session"] if not _is(session, t))
        raise _RELEASE.wrong(path, f"trials of session {odd!r}", f"session {session}")
    index = pd.to_numeric(table["beta_index"], errors="coerce").to_numpy(float)
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        found = "a beta_index that is not there once for each volume"
        raise _RELEASE.wrong(path, found, f"0 to {len(index) - 1}")
    return table["label"].iloc[np.argsort(index)].tolist()


def _is(session: int, text: str) -> bool:
    number = _SESSION.fullmatch(text)
    return number is not None and int(number[1]) == session


def read_captions(path: Path) -> dict[str, list[str]]:
    """Return the captions that people wrote of each image, the best one first."""
    columns = ["image_name", "caption_idx", "source", "caption"]
    table = _read_csv(path, "Captions", columns, ",")
    table = table[table["source"] == "human"]
    rank = pd.to_numeric(table["caption_idx"], errors="coerce")
    if rank.isna().any() or (rank < 1).any():
        raise _RELEASE.wrong(
            path, "a caption of a person without a rank", "ranks from 1"
        )
    table = table.assign(rank=rank).sort_values(["image_name", "rank"])
    grouped = table.groupby("image_name", sort=False)["caption"]
    return {str(name): texts.tolist() for name, texts in grouped}


def read_split(path: Path, name: str) -> tuple[list[str], list[str]]:
    """Return the names of the images that train, and of those that test."""
    where = "get it with `minddiff fetch`, or copy laion_fmri/splits/data there"
    with _RELEASE.reading(path, "Split", where):
        split = json.loads(path.read_text(encoding="utf-8"))
        first = split["variants"][0]
        parts = first["train_ids"], first["test_ids"]
        stated = split["name"], int(split["n_train"]), int(split["n_test"])
        if not all(isinstance(text, str) for part in parts for text in part):
            raise TypeError("ids that are no names")
    train, test = parts
    if stated[0] != name:
        raise _RELEASE.wrong(path, f"the split {stated[0]!r}", f"{name!r}")
    if stated[1:] != (len(train), len(test)) or not train or not test:
        n = f"{len(train)} training and {len(test)} test images"
        raise _RELEASE.wrong(path, n, f"{stated[1]} and {stated[2]}, which it states,")
    both = set(train) & set(test)
    if both or len({*train, *test}) < len(train) + len(test):
        twice = min(both) if both else "an image"
        raise _RELEASE.wrong(path, f"{twice} more than once", "each image once")
    return train, test


# --- volumes --------------------------------------------------------------------------


def read_grid(path: Path) -> tuple[int, ...]:
    """Return the shape of a session's betas, (i, j, k, trials), by its header."""
    with _RELEASE.reading(path, "Betas"):
        return tuple(map(int, load_image(path).shape))


def _read_volume(path: Path, what: str) -> npt.NDArray[Any]:
    with _RELEASE.reading(path, what):
        values = np.asanyarray(load_image(path).dataobj)
    if values.ndim != 3 or values.dtype.kind not in "iuf":
        found = f"{values.dtype} values of shape {values.shape}"
        raise _RELEASE.wrong(path, found, "one number per voxel")
    return values


def read_mask(path: Path) -> Mask:
    """Return the voxels of a region."""
    values = _read_volume(path, "Region")
    odd = values[~np.isin(values, (0, 1))]
    if odd.size:
        raise _RELEASE.wrong(path, f"the value {float(odd[0]):.4g}", "0 or 1")
    return np.asarray(values == 1)


def read_areas(root: Path, subject: int) -> IntArray:
    """Return the volume of areas as indices into `AREAS`, -1 outside.

    Where regions overlap at a border, the earlier area has the voxel.

    Raises
    ------
    DataError
        A mask is missing, damaged or of another grid, or no voxel lies in any area.
    """
    volume: IntArray | None = None
    for number, area in reversed(list(enumerate(AREAS))):
        for roi in layout.ROIS[area]:
            path = layout.roi_file(root, subject, roi)
            mask = read_mask(path)
            if volume is None:
                volume = np.full(mask.shape, -1, np.int64)
            check_shape(mask.shape, volume.shape, f"Region {path}")
            volume[mask] = number
    if volume is None or not (volume >= 0).any():
        raise DataError(
            f"Subject {subject} has no voxel in any of the areas: fetch the masks of "
            "derivatives/rois again."
        )
    return volume


def read_ceiling(path: Path) -> Matrix:
    """Return the noise-ceiling SNR of each voxel: 4 repeats, in percent of variance.

    References
    ----------
    Allen et al. (2022): NC = 100 s / (s + 1 / n) for s = ncsnr squared.
    """
    percent = _read_volume(path, "Noise ceiling").astype(np.float64)
    if np.isinf(percent).any() or (percent < 0).any() or (percent >= 100).any():
        raise _RELEASE.wrong(
            path, "values below 0 or from 100 on", "percent of the variance"
        )
    return np.sqrt(percent / (100 - percent) / 4).astype(np.float32)


def read_betas(path: Path, ijk: Ints, shape: tuple[int, ...]) -> Matrix:
    """Return a session's betas at `ijk` (n_units, 3), (n_trials, n_units) float32.

    Trials are read one by one in the order of the file: a whole session has 12 GB.
    """
    with _RELEASE.reading(path, "Betas"):
        image: Any = load_image(path)
    dtype = image.get_data_dtype()
    scaled = (float(image.dataobj.slope), float(image.dataobj.inter)) != (1.0, 0.0)
    if dtype.kind != "f" or scaled:
        raise _RELEASE.wrong(
            path, f"{dtype} betas{' with a scale' if scaled else ''}", "floats"
        )
    if tuple(image.shape) != shape:
        raise _RELEASE.wrong(path, f"betas of shape {image.shape}", f"{shape}")
    place = np.ravel_multi_index(tuple(ijk.T), shape[:3], order="F")
    n_bytes = math.prod(shape[:3]) * dtype.itemsize
    betas = np.empty((shape[3], len(place)), np.float32)
    with _RELEASE.reading(path, "Betas"), nib.openers.ImageOpener(str(path)) as file:
        file.seek(int(image.dataobj.offset))
        for row in betas:
            volume = file.read(n_bytes)
            if len(volume) < n_bytes:
                raise EOFError("it ends within a trial")
            row[:] = np.frombuffer(volume, dtype)[place]
        if file.read(1):
            raise ValueError("more bytes than its header says")
    if np.isinf(betas).any():
        raise _RELEASE.wrong(path, "infinite values", "finite ones or NaN")
    return betas


# --- images ---------------------------------------------------------------------------


def read_images(path: Path, rows: IntArray, n_images: int) -> npt.NDArray[np.uint8]:
    """Return images as they were shown, (n, 1000, 1000, 3): on grey where open."""
    images = np.empty((len(rows), _SIDE, _SIDE, 3), np.uint8)
    with _RELEASE.reading(path, "Images"), open_hdf5(path) as file:
        stored = file["images"]
        if not isinstance(stored, h5py.Dataset) or stored.shape != (n_images,):
            raise _RELEASE.wrong(
                path, f"other than {n_images} images", "one for each name"
            )
        for at, row in enumerate(rows.tolist()):
            data = np.asarray(stored[row])
            if data.dtype != np.uint8 or not data.size:
                raise _RELEASE.wrong(path, f"no picture in row {row}", "a JPEG or PNG")
            images[at] = _as_shown(data.tobytes(), path, row)
    return images


def _as_shown(data: bytes, path: Path, row: int) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
        if picture.size != (_SIDE, _SIDE):
            found = f"a picture of {picture.width} x {picture.height} px in row {row}"
            raise _RELEASE.wrong(path, found, f"{_SIDE} x {_SIDE} px")
        colours = picture.convert("RGBA")
    behind = Image.new("RGBA", colours.size, (_GREY, _GREY, _GREY, 255))
    return np.asarray(Image.alpha_composite(behind, colours).convert("RGB"))
