"""What `preprocessing` needs of a data set, and nothing more.

A data set is a class with these attributes and methods, in a folder of its own; files,
formats and whatever is peculiar to it stay behind them. Units are voxels or vertices,
responses single trials or means over an image's trials, sessions and repeats are as
many as there are. Files are only read, and what is wrong with one is one sentence.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import IntArray, Mask, Matrix

__all__ = [
    *("DataSet", "SingleTrials", "Trials", "UnitSet", "Units"),
    *("first_captions", "sessions_within", "units_of", "voxels_of"),
]

logger = logging.getLogger(__name__)

#: Units of the areas alone, or of all visual cortex as the data set delimits it.
UnitSet = Literal["areas", "nsdgeneral"]


@dataclass(frozen=True)
class Trials:
    """What one subject saw, one row per response, in time order where it is known.

    Attributes
    ----------
    session : (n_trials,) int64
        Session number, from 1.
    image_id : (n_trials,) int64
        The data set's number of the image.
    place : (n_trials,) int64
        Place of the image in the subject's own list: rows of images ascend by it, and
        the last ones validate.
    """

    session: IntArray
    image_id: IntArray
    place: IntArray

    def of(self, sessions: Collection[int]) -> "Trials":
        """Return the trials of `sessions` alone, in the same order."""
        rows = np.isin(self.session, list(sessions))
        return Trials(self.session[rows], self.image_id[rows], self.place[rows])


@dataclass(frozen=True)
class Units:
    """The voxels or vertices of a subject whose responses are read.

    Attributes
    ----------
    position : (n_units, n_axes) int32
        Of a voxel i, j, k; of a vertex hemisphere (0 left, 1 right) and index. 0-based,
        ascending in C order, which is the order of the columns of all responses.
    grid : tuple of n_axes int
        Shape of the volume, or (2, vertices of a hemisphere).
    area : (n_units,) int32
        Index into `area_names`.
    area_names : tuple of str
        The areas, and what lies in none of them last if there is such a unit.
    area_sets : dict
        Name of a set of areas -> its areas.
    ncsnr : (n_units,) float32 or None
        Noise-ceiling SNR, NaN where unknown; None where the data set states none.
    """

    position: npt.NDArray[np.int32]
    grid: tuple[int, ...]
    area: npt.NDArray[np.int32]
    area_names: tuple[str, ...]
    area_sets: Mapping[str, tuple[str, ...]]
    ncsnr: Matrix | None = None

    def __post_init__(self) -> None:
        check_shape(self.position.shape, (None, len(self.grid)), "Positions of units")
        check_shape(self.area.shape, (len(self.position),), "Areas of units")
        if self.ncsnr is not None:
            check_shape(self.ncsnr.shape, self.area.shape, "ncsnr of units")

    @property
    def are_voxels(self) -> bool:
        """Return whether units are voxels; else they are vertices."""
        return len(self.grid) == 3

    def at(self, rows: Sequence[int] | npt.NDArray[Any]) -> "Units":
        """Return the units in `rows`, an index or a mask."""
        which = np.asarray(rows)
        position, area = self.position[which], self.area[which]
        ncsnr = None if self.ncsnr is None else self.ncsnr[which]
        return replace(self, position=position, area=area, ncsnr=ncsnr)


class DataSet(Protocol):
    """A data set whose files lie below one folder.

    Every method raises DataError where a file is missing, damaged or at odds with the
    others.
    """

    @property
    def name(self) -> str:
        """Return its name, as profiles and `responses.h5` have it."""

    @property
    def is_real(self) -> bool:
        """Return whether its responses were measured, not simulated."""

    @property
    def are_averaged(self) -> bool:
        """Return whether responses are standardised and averaged over trials already.

        Else they are single trials, to be standardised within sessions.
        """

    def files(
        self, subject: int, sessions: Sequence[int], units: UnitSet
    ) -> tuple[Path, ...]:
        """Return the files there are of those that the other methods read, sorted."""

    def notes(self, subject: int) -> tuple[str, ...]:
        """Return sentences that a reader of any number from these responses needs."""

    def sessions(self, subject: int, asked: Sequence[int]) -> tuple[int, ...]:
        """Return those of the sessions `asked` (ascending) that the subject came to.

        Raises
        ------
        DataError
            There is none, or the responses of one are missing.
        """

    def check(self, subject: int, sessions: Sequence[int]) -> None:
        """Raise DataError where several files name other images for the trials."""

    def trials(self, subject: int, sessions: Sequence[int]) -> Trials:
        """Return the trials of `sessions` (numbers from `sessions`).

        Where responses are means over sessions, each image has one row, in the first.
        """

    def n_repeats(self, subject: int, image_id: IntArray) -> IntArray | None:
        """Return in how many trials images were seen whose responses are averaged.

        None where that is not known. Single trials are counted, not asked for.
        """

    def test_images(self, subject: int) -> IntArray:
        """Return the ids of the images that test, seen or not; all others train."""

    def second_test_images(self, subject: int) -> IntArray:
        """Return those of `test_images` that form a test set of their own.

        None in measured data: a simulation shows categories that train nothing.
        """

    def units(self, subject: int, which: UnitSet) -> Units:
        """Return the subject's units, with their areas and noise-ceiling SNR."""

    def responses(
        self, subject: int, session: int, units: Units
    ) -> npt.NDArray[np.int16] | Matrix:
        """Return the responses of one session as stored, (n_trials, n_units).

        Rows are those of `trials`. NaN, and zero throughout, stand for no data.
        """

    def scaled(self, stored: npt.NDArray[np.int16] | Matrix) -> Matrix:
        """Return stored responses in percent signal change, or in SDs; float32."""

    def responses_file(self, subject: int, session: int) -> str:
        """Return the name of what `responses` reads, for a sentence."""

    def images(self, image_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return the images, (n, size, size, 3), in the order asked."""

    def captions(self, image_id: IntArray, n_captions: int) -> npt.NDArray[np.object_]:
        """Return `n_captions` captions of each image, (n, n_captions)."""

    def coco_id(self, image_id: IntArray) -> IntArray | None:
        """Return the pictures' numbers in COCO; None where they are from elsewhere."""


class SingleTrials:
    """What data sets of single trials have alike; a data set says what is otherwise."""

    are_averaged: bool = False

    def n_repeats(self, subject: int, image_id: IntArray) -> IntArray | None:
        """Return None: trials are single ones."""
        return None

    def second_test_images(self, subject: int) -> IntArray:
        """Return nothing: no image forms a test set of its own."""
        return np.zeros(0, np.int64)

    def scaled(self, stored: npt.NDArray[Any]) -> Matrix:
        """Return a copy: responses are in units of their own, or in SDs."""
        return stored.astype(np.float32)


def sessions_within(
    subject: int, asked: Sequence[int], most: int, where: str = ""
) -> tuple[int, ...]:
    """Return those of the sessions `asked` up to `most`; DataError without any."""
    sessions = tuple(session for session in asked if session <= most)
    if not sessions or sessions[0] < 1:
        raise DataError(
            f"Subject {subject} has sessions 1 to {most}{where}, but"
            f" {', '.join(map(str, asked))} are asked for: change data.only_sessions,"
            " or leave the subject out."
        )
    return sessions


def units_of(
    position: npt.NDArray[np.int32],
    grid: tuple[int, ...],
    area: IntArray,
    ncsnr: Matrix | None,
    which: UnitSet,
    owner: str,
) -> Units:
    """Return those of the units in an area, or for `nsdgeneral` all of them.

    Parameters
    ----------
    position, grid, ncsnr
        As in `Units`.
    area : (n_units,)
        Index into the paper's areas, -1 in none of them.
    which : {"areas", "nsdgeneral"}
        Units of the areas, or all.
    owner : str
        Whose they are, for a sentence.

    Raises
    ------
    DataError
        None lies in any area.
    """
    names: tuple[str, ...] = AREAS
    n = np.bincount(area[area >= 0], minlength=len(AREAS)).tolist()
    kinds = "voxels" if len(grid) == 3 else "vertices"
    if not any(n):
        raise DataError(
            f"{owner.capitalize()} has no {kinds} in any of the areas"
            f" {', '.join(AREAS)}: check the files of its regions."
        )
    each = ", ".join(f"{a} {n_units}" for a, n_units in zip(AREAS, n, strict=True))
    logger.info("%s: %d %s (%s)", owner, sum(n), kinds, each)
    if which == "nsdgeneral" and (area < 0).any():
        names = (*AREAS, "none")
        area = np.where(area < 0, len(AREAS), area)
    sets = {"LVC": LVC, "HVC": HVC}
    every = Units(position, grid, area.astype(np.int32), names, sets, ncsnr)
    return every.at(area >= 0)


def voxels_of(
    mask: Mask, areas: IntArray, ncsnr: Matrix | None, which: UnitSet, owner: str
) -> Units:
    """Return the voxels of `mask` as `units_of` does; all arguments are volumes.

    Raises
    ------
    DataError
        None lies in any area, or volumes have other grids.
    """
    if ncsnr is not None:
        check_shape(ncsnr.shape, mask.shape, f"ncsnr of {owner}")
        ncsnr = ncsnr[mask]
    check_shape(mask.shape, areas.shape, f"nsdgeneral of {owner}")
    position = np.argwhere(mask).astype(np.int32)
    return units_of(position, areas.shape, areas[mask], ncsnr, which, owner)


def first_captions(
    texts: Sequence[Sequence[str]], names: Sequence[str], n_captions: int
) -> npt.NDArray[np.object_]:
    """Return the first captions of each image, (n, n_captions).

    Raises
    ------
    DataError
        An image has too few; `names` say which, and in which file.
    """
    for name, known in zip(names, texts, strict=True):
        if len(known) < n_captions:
            fewer = ", or lower features.n_captions" if known else ""
            raise DataError(
                f"There are {len(known)} captions of {name}, but {n_captions} or more"
                f" are needed: use captions of the release{fewer}."
            )
    rows = [known[:n_captions] for known in texts]
    return np.array(rows, dtype=object).reshape(len(rows), n_captions)
