"""The experiment's files: design, stimulus table, stimuli, captions, behaviour.

Each function reads one file and says in one sentence what is wrong with it; what is no
caption is never turned into words.
"""

import json
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import IntArray, Mask
from minddiff_utils.datasets.nsd.formats import (
    dataset,
    guard,
    open_hdf5,
    read_mat,
    wrong,
)
from minddiff_utils.datasets.nsd.layout import (
    N_IMAGES,
    N_IMAGES_SUBJECT,
    N_SESSIONS,
    N_SHARED,
    N_TRIALS,
)

__all__ = [
    "Design",
    "Trials",
    "captions_by_image",
    "is_caption",
    "read_captions",
    "read_design",
    "read_responses",
    "read_second_test_set",
    "read_stimuli",
    "read_table",
    "to_percent",
]


#: int16 units per percent signal change in every beta file (NSD `export.m`).
_BETA_SCALE = 300


@dataclass(frozen=True)
class Design:
    """The experiment's design, 0-based.

    Attributes
    ----------
    order : (30000,) int64
        10k index, 0..9999, of every trial in time order; the same for all subjects.
    images : (8, 10000) int64
        `nsd_id`, 0..72999, of each subject's 10k images; the first 1000 are shared.
    """

    order: IntArray
    images: IntArray

    def of(self, sessions: Collection[int]) -> IntArray:
        """Return the 10k index of every trial of `sessions` (from 1), in time order."""
        rows = np.array(list(sessions), np.int64) - 1
        return self.order.reshape(-1, N_TRIALS)[rows].ravel()


@dataclass(frozen=True)
class Trials:
    """What one subject saw, trial by trial, in time order; every index 0-based.

    Attributes
    ----------
    session : (n_trials,) int64
        Session number, 1-based as in NSD's file names.
    image_10k : (n_trials,) int64
        The subject's own image index, 0..9999; below 1000 for shared images.
    nsd_id : (n_trials,) int64
        The experiment's image index, 0..72999: the row of stimuli and of the csv.
    """

    session: IntArray
    image_10k: IntArray
    nsd_id: IntArray

    @property
    def shared(self) -> Mask:
        """Return which trials showed an image that all subjects share (test)."""
        return np.asarray(self.image_10k < N_SHARED)

    def of(self, sessions: Collection[int]) -> "Trials":
        """Return the trials of `sessions` alone, still in time order."""
        rows = np.isin(self.session, list(sessions))
        return Trials(self.session[rows], self.image_10k[rows], self.nsd_id[rows])


def to_percent(raw: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return stored betas as percent signal change, float32.

    >>> to_percent(np.array([300, -150], np.int16)).tolist()
    [1.0, -0.5]
    """
    return raw.astype(np.float32) / np.float32(_BETA_SCALE)


def read_design(path: Path) -> Design:
    """Return the experiment's design with 0-based indices.

    Raises
    ------
    DataError
        The file is missing, damaged, or not NSD's design.
    """
    with guard(path, "Experimental design"):
        raw = read_mat(path, ("masterordering", "subjectim", "sharedix"))

    def indices(name: str, shape: tuple[int, ...]) -> IntArray:
        if name not in raw:
            raise wrong(path, f"no variable {name!r}", "NSD's experimental design")
        values = np.asarray(raw[name])
        check_shape(values.shape, shape, f"{name} in {path}")
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            text = f"no numbers or fractions in {name}"
            raise wrong(path, text, "1-based indices")
        whole = values.astype(np.int64)  # MATLAB's uint16 would wrap below zero
        if not np.array_equal(whole, values) or whole.min() < 1:
            text = f"values below 1 or fractions in {name}"
            raise wrong(path, text, "1-based indices")
        return whole - 1

    order = indices("masterordering", (1, N_SESSIONS * N_TRIALS))[0]
    images = indices("subjectim", (8, N_IMAGES_SUBJECT))
    shared = indices("sharedix", (1, N_SHARED))[0]
    if order.max() >= N_IMAGES_SUBJECT or images.max() >= N_IMAGES:
        raise wrong(path, "indices beyond the last image", "NSD's design")
    if not (images[:, :N_SHARED] == shared).all():
        raise wrong(path, "subjects with other shared images", "the same 1000")
    return Design(order, images)


def _check_whole(table: pd.DataFrame, columns: Collection[str], path: Path) -> None:
    """Raise DataError unless the columns hold numbers, and none is missing."""
    for name in columns:
        if table[name].dtype.kind not in "iuf" or table[name].isna().any():
            raise wrong(path, f"words or gaps in the column {name}", "numbers")


def read_table(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """Return the table of the 73,000 stimuli, row = `nsd_id` (0-based).

    Raises
    ------
    DataError
        The file is missing or damaged, or one of `columns` is not in it or holds
        something else.
    """
    with guard(path, "Stimulus table"):
        # column by column: a table cut short has no warning of its own
        table = pd.read_csv(path, index_col=0, low_memory=False)
    lacking = ", ".join(n for n in (*columns, "nsdId") if n not in table)
    if lacking:
        raise wrong(path, f"no column {lacking}", "NSD's stimulus table")
    check_shape(table.shape, (N_IMAGES, None), f"Stimulus table {path}")
    _check_whole(table, set(columns) - {"cocoSplit", "shared1000"}, path)
    if "cocoSplit" in columns and table["cocoSplit"].isna().any():
        raise wrong(path, "gaps in the column cocoSplit", "train2017 or val2017")
    if not np.array_equal(table["nsdId"], np.arange(N_IMAGES)):
        raise wrong(path, "rows out of order", "row r to describe nsdId r")
    return table


def read_second_test_set(path: Path) -> IntArray:
    """Return the images (nsd_id, 0-based) of a simulation's second test set.

    Raises
    ------
    DataError
        The file is damaged.
    """
    with guard(path, "Second test set"):
        table = pd.read_csv(path)
    if "nsdId" not in table:
        raise wrong(path, "no column nsdId", "the images of a second test set")
    _check_whole(table, ["nsdId"], path)
    return table["nsdId"].to_numpy(np.int64)


def read_stimuli(path: Path, nsd_id: IntArray) -> npt.NDArray[np.uint8]:
    """Return the images `nsd_id`, (n, 425, 425, 3) uint8 RGB, in the order asked.

    Raises
    ------
    DataError
        The file is missing, damaged, of another kind, or lacks an image.
    """
    with guard(path, "Stimuli"), open_hdf5(path) as file:
        bricks = dataset(file, "imgBrick", path)
        check_shape(bricks.shape, (None, None, None, 3), f"imgBrick in {path}")
        if bricks.dtype != np.uint8:
            raise wrong(path, f"{bricks.dtype} images", "uint8")
        if bricks.shape[1] != bricks.shape[2]:
            sides = f"{bricks.shape[1]} x {bricks.shape[2]}"
            raise wrong(path, f"images of {sides} px", "squares")
        rows = np.asarray(nsd_id, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(bricks):
            raise DataError(
                f"nsd_id must lie in 0..{len(bricks) - 1}, the images of {path}, "
                f"but spans {rows.min()}..{rows.max()}."
            )
        images = np.empty((len(rows), *bricks.shape[1:]), np.uint8)
        for row in np.argsort(rows, kind="stable"):  # in the file's own order
            images[row] = bricks[rows[row]]
    return images


def read_responses(path: Path) -> pd.DataFrame:
    """Return the behavioural table, one row per trial, ids 1-based as stored."""
    with guard(path, "Behavioural responses"):
        table = pd.read_csv(path, sep="\t")
    lacking = {"SESSION", "73KID", "10KID"} - set(table.columns)
    if lacking:
        raise wrong(path, f"no column {lacking.pop()}", "NSD's responses")
    _check_whole(table, ["SESSION", "73KID", "10KID"], path)
    return table


# --- captions -------------------------------------------------------------------------


def read_captions(path: Path) -> dict[int, list[str]]:
    """Return the captions of a file by cocoId, in the order of their ids.

    Raises
    ------
    DataError
        The file is missing, or no file of captions.
    """
    with guard(path, "COCO captions"):
        raw = json.loads(path.read_text(encoding="utf-8"))
    try:
        return captions_by_image(raw)
    except ValueError as error:
        raise wrong(path, str(error), "COCO's caption annotations") from error


def captions_by_image(raw: Any) -> dict[int, list[str]]:
    """Return COCO's captions by cocoId, in the order of their annotation ids.

    A caption without a visible character is none; an annotation that stands twice
    counts once; white space and control characters become single blanks.

    Raises
    ------
    ValueError
        What is wrong, in words: no annotations, an id that is no whole number, a
        caption that is no text, two annotations under one id.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("annotations"), list):
        raise ValueError("no list of annotations")
    seen: dict[int, tuple[int, str]] = {}
    for note in raw["annotations"]:
        number, image = (_whole(note, name) for name in ("id", "image_id"))
        caption = image, _text(note, number)
        if seen.setdefault(number, caption) != caption:
            raise ValueError(f"two different annotations with the id {number}")
    known: dict[int, list[str]] = {}
    for _, (image, text) in sorted(seen.items()):
        if is_caption(text):
            known.setdefault(image, []).append(text)
    return known


def _field(note: Any, name: str) -> Any:
    if not isinstance(note, dict):
        raise ValueError(f"{type(note).__name__} {str(note)[:40]!r} for an annotation")
    if name not in note:
        held = ", ".join(map(str, note)) or "nothing"
        raise ValueError(f"an annotation without {name!r} (it has {held[:80]})")
    return note[name]


def _whole(note: Any, name: str) -> int:
    value = _field(note, name)
    try:
        number = int(value)
        whole = not isinstance(value, bool) and float(value) == number
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(f"{str(value)[:40]!r} for the {name!r} of an annotation")
    return number


def _text(note: Any, number: int) -> str:
    value = _field(note, "caption")
    if not isinstance(value, str):
        kind = "nothing (null)" if value is None else f"{str(value)[:40]!r}"
        raise ValueError(f"{kind} for the caption of annotation {number}")
    kinds = [unicodedata.category(c) for c in value]
    if "Cs" in kinds:  # half of a pair: no file can hold it
        raise ValueError(f"broken Unicode in the caption of annotation {number}")
    visible = (" " if k == "Cc" else c for c, k in zip(value, kinds, strict=True))
    return " ".join("".join(visible).split())


def is_caption(text: str) -> bool:
    r"""Return whether a text has a visible character.

    >>> is_caption("a cat"), is_caption(" \u200b")
    (True, False)
    """
    return any(c.isprintable() and not c.isspace() for c in text)
