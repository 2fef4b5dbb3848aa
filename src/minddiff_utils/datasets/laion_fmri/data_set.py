"""LAION-fMRI as a data set: single trials, in voxels at 1.8 mm.

Its makers' own splits say which images train and which test; images that a split names
in neither part (those outside the distribution, where others test) are left out with
their trials.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.provenance import MARK
from minddiff_utils.core.types import IntArray, Ints, Mask, Matrix
from minddiff_utils.datasets.inventory import is_there
from minddiff_utils.datasets.laion_fmri import layout
from minddiff_utils.datasets.protocol import (
    SingleTrials,
    Trials,
    Units,
    UnitSet,
    first_captions,
    voxels_of,
)
from minddiff_utils.datasets.published import Published, check_ids
from minddiff_utils.datasets.volumes import load_image, read_voxels

__all__ = ["LaionFmri"]

_RELEASE = Published(
    "get it with `minddiff fetch`, or name the folder of LAION-fMRI that holds"
    " derivatives and stimuli (--nsd-root)",
    "compare it with LAION-fMRI's own file and fetch it again",
)
#: What stood behind images that are transparent in part, and their side, px.
_GREY, _SIDE = 128, 1000
#: The region that stands for all visual cortex, where `data.voxels` asks for it.
_GENERAL = "laiongeneral"


@dataclass(frozen=True)
class LaionFmri(SingleTrials):
    """The folder of LAION-fMRI, under one of its splits."""

    root: Path
    split: str
    name: str = "laion_fmri"

    @property
    def is_real(self) -> bool:
        """Return whether no simulation marked the folder as its own."""
        return not (self.root / MARK).is_file()

    def _file(self, kind: str, subject: int = 0, **names: str | int) -> Path:
        return layout.find(self.root / layout.path_of(kind, subject, **names))

    def files(
        self, subject: int, sessions: Sequence[int], units: UnitSet
    ) -> tuple[Path, ...]:
        """Return the files there are of those that are read."""
        files = layout.inventory([subject], sessions, self.split)
        paths = {layout.find(self.root / file.path) for file in files}
        if units == "nsdgeneral":
            paths.add(self._file("roi", subject, roi=_GENERAL))
        return tuple(sorted(path for path in paths if is_there(path)))

    def notes(self, subject: int) -> tuple[str, ...]:
        """Return what a reader of any number must know of these responses."""
        ceiling = (
            "The noise ceiling of four repeats is not there: none is available, and "
            "none is estimated."
        )
        return (
            f"Images train and test by the split {self.split} of LAION-fMRI; images "
            "that it names in neither part are left out.",
            "There is no region PHC, and IPS is IPS0 alone: ratios of high- to "
            "low-level areas are not those of the paper's eleven.",
            *([] if is_there(self._file("ceiling", subject)) else [ceiling]),
        )

    # What was shown

    @cached_property
    def _names(self) -> "pd.Index[str]":
        """Return the images' names; an image's number is its row in the table."""
        path = self._file("table")
        table = _read_csv(path, "Table of images", ["image_name"])
        names: pd.Index[str] = pd.Index(table["image_name"].tolist())
        if names.has_duplicates:
            twice = names[names.duplicated()][0]
            raise _RELEASE.wrong(path, f"the image {twice} twice", "each name once")
        return names

    @cached_property
    def _captions(self) -> "pd.Series[Any]":
        """Return the captions that people wrote of each image, the best one first."""
        path, columns = self._file("captions"), ["image_name", "caption"]
        table = _read_csv(path, "Captions", [*columns, "caption_idx", "source"])
        table = table[table["source"] == "human"]
        rank = pd.to_numeric(table["caption_idx"], errors="coerce")
        if not (rank >= 1).all():
            found = "a caption of a person without a rank"
            raise _RELEASE.wrong(path, found, "ranks from 1")
        ranked = table.loc[rank.sort_values(kind="stable").index, columns]
        return ranked.groupby("image_name")["caption"].agg(list)

    def _parts(self, subject: int) -> tuple[IntArray, IntArray]:
        """Return the numbers of the images that train, and of those that test."""
        path = self._file("split", subject, split=self.split)
        train, test = (self._numbers(p, path) for p in _read_split(path, self.split))
        return train, test

    def _numbers(self, names: Sequence[str], path: Path) -> IntArray:
        """Return the numbers of images that a file names."""
        numbers = np.asarray(self._names.get_indexer(pd.Index(names)), np.int64)
        if -1 in numbers:
            unknown = names[int(numbers.argmin())]
            raise DataError(
                f"{path} names the image {unknown}, which {self._file('table')} does "
                "not have: use files of one release."
            )
        return numbers

    def _shown(self, subject: int, session: int) -> IntArray:
        """Return the number of the image of each volume of a session's betas."""
        path = self._file("trials", subject, session=session)
        return self._numbers(_read_trials(path, session), path)

    def sessions(self, subject: int, asked: Sequence[int]) -> tuple[int, ...]:
        """Return the sessions asked for, of those that are public; all are there."""
        numbers = layout.public_sessions(subject, asked)
        betas = [self._file("betas", subject, session=n) for n in numbers]
        lacking = [path for path in betas if not is_there(path)]
        if lacking:
            raise DataError(
                f"Betas of {len(lacking)} sessions are missing, {len(betas)} are asked "
                f"for, such as {lacking[0]}: get them with `minddiff fetch`, or set "
                "data.sessions or data.only_sessions to those that are there."
            )
        return numbers

    def check(self, subject: int, sessions: Sequence[int]) -> None:
        """Raise DataError unless tables, split, betas and regions agree."""
        train, test = self._parts(subject)
        seen = [self._shown(subject, session) for session in sessions]
        if not np.isin(np.concatenate(seen), test).any():
            raise DataError(
                f"None of the test images of the split {self.split} was shown to "
                f"subject {subject} in the sessions asked for: use the split of this "
                "subject, or more sessions."
            )
        grid = self._areas(subject).shape
        for session, numbers in zip(sessions, seen, strict=True):
            path = self._file("betas", subject, session=session)
            _open_betas(path, (*grid, len(numbers)))
        self.captions(np.intersect1d(np.concatenate(seen), [*train, *test]), 1)

    def trials(self, subject: int, sessions: Sequence[int]) -> Trials:
        """Return the trials of images that the split names.

        Places are a fixed order that has nothing to do with what images show, so that
        validation images are like the training images.
        """
        used = np.concatenate(self._parts(subject))
        digest = [sha256(name.encode()).hexdigest() for name in self._names[used]]
        place = np.full(len(self._names), -1)
        place[used[np.argsort(digest)]] = np.arange(len(used))
        shown = [self._shown(subject, number) for number in sessions]
        session = np.repeat(np.array(sessions, np.int64), [len(one) for one in shown])
        image = np.concatenate(shown)
        kept = place[image] >= 0
        return Trials(session[kept], image[kept], place[image[kept]])

    def test_images(self, subject: int) -> IntArray:
        """Return the numbers of the images that test under the split."""
        return self._parts(subject)[1]

    def images(self, image_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return the images as they were shown, (n, 1000, 1000, 3)."""
        return _read_images(self._file("images"), image_id, len(self._names))

    def captions(self, image_id: IntArray, n_captions: int) -> npt.NDArray[np.object_]:
        """Return the best captions that people wrote of each image, (n, n_captions)."""
        names = self._names[image_id].tolist()
        texts = [self._captions.get(name, []) for name in names]
        where = [f"{name} in {self._file('captions')}" for name in names]
        return first_captions(texts, where, n_captions)

    def coco_id(self, image_id: IntArray) -> None:
        """Return None: most pictures are not from COCO."""
        return

    # What was measured

    def units(self, subject: int, which: UnitSet) -> Units:
        """Return the voxels of the areas, or of all visual cortex (laiongeneral)."""
        areas = self._areas(subject)
        mask = np.asarray(areas >= 0)
        if which == "nsdgeneral":
            mask = _read_mask(self._file("roi", subject, roi=_GENERAL))
        path = self._file("ceiling", subject)
        ncsnr = _read_ceiling(path) if is_there(path) else None
        return voxels_of(mask, areas, ncsnr, which, f"subject {subject}")

    def _areas(self, subject: int) -> IntArray:
        """Return the volume of areas as indices into `AREAS`, -1 outside.

        Where regions overlap at a border, the earlier area has the voxel.
        """
        volume: IntArray | None = None
        regions = [(n, r) for n, area in enumerate(AREAS) for r in layout.ROIS[area]]
        for number, region in reversed(regions):
            path = self._file("roi", subject, roi=region)
            mask = _read_mask(path)
            if volume is None:
                volume = np.full(mask.shape, -1, np.int64)
            check_shape(mask.shape, volume.shape, f"Region {path}")
            volume[mask] = number
        assert volume is not None  # there are regions
        return volume

    def responses(self, subject: int, session: int, units: Units) -> Matrix:
        """Return one session's betas of the images that the split names, float32."""
        shown = self._shown(subject, session)
        path = self._file("betas", subject, session=session)
        betas = _read_betas(path, units.position, (*units.grid, len(shown)))
        return betas[np.isin(shown, np.concatenate(self._parts(subject)))]

    def responses_file(self, subject: int, session: int) -> str:
        """Return the path of a session's betas."""
        return str(self._file("betas", subject, session=session))


# --- tables ---------------------------------------------------------------------------


def _read_csv(
    path: Path, what: str, columns: Sequence[str], sep: str = ","
) -> pd.DataFrame:
    """Return some columns of a table as text; all are there and none has a gap."""
    found: pd.DataFrame = _RELEASE.text(path, what, columns, sep)[list(columns)]
    empty = (found == "").any(axis=1)
    if empty.any():
        raise _RELEASE.wrong(path, f"a gap in row {int(empty.argmax()) + 1}", "no gap")
    if found.empty:
        raise _RELEASE.wrong(path, "no row", "one at least")
    return found


def _read_trials(path: Path, session: int) -> list[str]:
    """Return the name of the image of each volume of betas, in their order."""
    table = _read_csv(path, "Trials", ["session", "beta_index", "label"], "\t")
    number = table["session"].str.removeprefix("ses-").str.lstrip("0")
    if (odd := table["session"][number != f"{session}"]).size:
        found = f"trials of session {odd.iloc[0]!r}"
        raise _RELEASE.wrong(path, found, f"session {session}")
    index = pd.to_numeric(table["beta_index"], errors="coerce").to_numpy(float)
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        found = "a beta_index that is not there once for each volume"
        raise _RELEASE.wrong(path, found, f"0 to {len(index) - 1}")
    return table["label"].iloc[np.argsort(index)].tolist()


def _read_split(path: Path, name: str) -> tuple[list[str], list[str]]:
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
    every = pd.Index([*train, *test])
    if every.has_duplicates:
        twice = every[every.duplicated()][0]
        raise _RELEASE.wrong(path, f"{twice} more than once", "each image once")
    return train, test


# --- volumes --------------------------------------------------------------------------


def _read_volume(path: Path, what: str) -> npt.NDArray[Any]:
    values = _RELEASE.volume(path, what)
    _RELEASE.check_array(path, values, "numbers", ("i", "j", "k"))
    return values


def _read_mask(path: Path) -> Mask:
    """Return the voxels of a region."""
    values = _read_volume(path, "Region")
    odd = values[~np.isin(values, (0, 1))]
    if odd.size:
        raise _RELEASE.wrong(path, f"the value {float(odd[0]):.4g}", "0 or 1")
    return np.asarray(values == 1)


def _read_ceiling(path: Path) -> Matrix:
    """Return the noise-ceiling SNR of each voxel: 4 repeats, in percent of variance.

    References
    ----------
    Allen et al. (2022): NC = 100 s / (s + 1 / n) for s = ncsnr squared.
    """
    percent = _read_volume(path, "Noise ceiling").astype(np.float64)
    if (percent < 0).any() or (percent >= 100).any():
        found = "values below 0 or from 100 on"
        raise _RELEASE.wrong(path, found, "percent of the variance")
    return np.sqrt(percent / (100 - percent) / 4).astype(np.float32)


def _open_betas(path: Path, shape: tuple[int, ...]) -> Any:
    """Return a session's betas, floats of a `shape` (i, j, k, trials), not yet read."""
    with _RELEASE.reading(path, "Betas"):
        image: Any = load_image(path)
    dtype, scale = image.get_data_dtype(), (image.dataobj.slope, image.dataobj.inter)
    if dtype.kind != "f" or scale != (1, 0):
        raise _RELEASE.wrong(path, f"{dtype} betas scaled by {scale}", "plain floats")
    if image.shape != shape:
        raise _RELEASE.wrong(path, f"betas of shape {image.shape}", f"{shape}")
    return image


def _read_betas(path: Path, ijk: Ints, shape: tuple[int, ...]) -> Matrix:
    """Return a session's betas at `ijk` (n_units, 3), (n_trials, n_units) float32."""
    image = _open_betas(path, shape)
    with _RELEASE.reading(path, "Betas"):
        betas = read_voxels(path, image, ijk, np.float32)
    _RELEASE.no_infinity(path, betas)
    return betas


# --- images ---------------------------------------------------------------------------


def _read_images(path: Path, rows: IntArray, n_images: int) -> npt.NDArray[np.uint8]:
    """Return images as they were shown, (n, 1000, 1000, 3): on grey where open."""
    with _RELEASE.hdf5(path, "Images", "images") as stored:
        if stored.shape != (n_images,):
            found = f"other than {n_images} images"
            raise _RELEASE.wrong(path, found, "one for each name")
        ids = check_ids(rows, n_images, path)
        images = np.empty((len(ids), _SIDE, _SIDE, 3), np.uint8)
        for at, row in enumerate(ids.tolist()):
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
