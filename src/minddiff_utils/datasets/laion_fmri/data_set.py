"""LAION-fMRI as a data set: single trials, in voxels at 1.8 mm.

Its makers' own splits say which images train and which test; images that a split names
in neither part (those outside the distribution, where others test) are left out with
their trials.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.provenance import MARK
from minddiff_utils.core.types import IntArray, Matrix
from minddiff_utils.datasets.laion_fmri import files, layout
from minddiff_utils.datasets.nsd.betas import voxel_indices
from minddiff_utils.datasets.nsd.layout import is_there
from minddiff_utils.datasets.protocol import (
    SingleTrials,
    Trials,
    Units,
    UnitSet,
    units_of,
)

__all__ = ["LaionFmri"]

logger = logging.getLogger(__name__)

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
        return self.root / layout.path_of(kind, subject, **names)

    def files(
        self, subject: int, sessions: Sequence[int], units: UnitSet
    ) -> tuple[Path, ...]:
        """Return the files there are of those that are read."""
        asked = [n for n in sessions if n <= layout.N_SESSIONS]
        named = layout.inventory([subject], asked, self.split)
        paths = {self.root / path for path, _ in named}
        regions = [roi for names in layout.ROIS.values() for roi in names]
        regions += [_GENERAL] if units == "nsdgeneral" else []
        paths |= {layout.roi_file(self.root, subject, roi) for roi in regions}
        return tuple(sorted(path for path in paths if is_there(path)))

    def notes(self, subject: int) -> tuple[str, ...]:
        """Return what a reader of any number must know of these responses."""
        notes = [
            f"Images train and test by the split {self.split} of LAION-fMRI; images "
            "that it names in neither part are left out.",
            "There is no region PHC, and IPS is IPS0 alone: ratios of high- to "
            "low-level areas are not those of the paper's eleven.",
        ]
        if not is_there(self._file("ceiling", subject)):
            notes.append(
                "The noise ceiling of four repeats is not there: none is available, "
                "and none is estimated."
            )
        return tuple(notes)

    # What was shown

    @cached_property
    def _number(self) -> dict[str, int]:
        """Return each image's number by its name: its row in the table."""
        return files.read_table(self._file("table"))

    @cached_property
    def _captions(self) -> dict[str, list[str]]:
        return files.read_captions(self._file("captions"))

    def _parts(self, subject: int) -> tuple[IntArray, IntArray]:
        """Return the numbers of the images that train, and of those that test."""
        path = self._file("split", subject, split=self.split)
        parts = files.read_split(path, self.split)
        train, test = (self._numbers(part, path) for part in parts)
        return train, test

    def _numbers(self, names: Sequence[str], path: Path) -> IntArray:
        """Return the numbers of images that a file names."""
        unknown = next((name for name in names if name not in self._number), "")
        if unknown:
            raise DataError(
                f"{path} names the image {unknown}, which {self._file('table')} does "
                "not have: use files of one release."
            )
        return np.array([self._number[name] for name in names], np.int64)

    def _shown(self, subject: int, session: int) -> IntArray:
        """Return the number of the image of each volume of a session's betas."""
        path = self._file("trials", subject, session=session)
        return self._numbers(files.read_trials(path, session), path)

    def sessions(self, subject: int, asked: Sequence[int]) -> tuple[int, ...]:
        """Return the sessions asked for, of those that are public; all are there."""
        numbers = tuple(n for n in asked if n <= layout.N_SESSIONS)
        layout.check_sessions(subject, numbers)
        lacking = [
            n for n in numbers if not is_there(self._file("betas", subject, session=n))
        ]
        if lacking or not numbers:
            path = self._file("betas", subject, session=(lacking or [asked[0]])[0])
            n_there = len(numbers) - len(lacking)
            raise DataError(
                f"Betas of {len(lacking) or 'all'} sessions are missing, {n_there} are "
                f"there, such as {path}: get them with `minddiff fetch`, or set "
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
        grid = files.read_areas(self.root, subject).shape
        for session, numbers in zip(sessions, seen, strict=True):
            path = self._file("betas", subject, session=session)
            shape = files.read_grid(path)
            check_shape(shape, (*grid, len(numbers)), f"Betas in {path}")
        known = np.unique(np.concatenate(seen))
        names = {number: name for name, number in self._number.items()}
        used = known[np.isin(known, np.concatenate([train, test]))]
        silent = [names[n] for n in used.tolist() if names[n] not in self._captions]
        if silent:
            raise DataError(
                f"{self._file('captions')} has no caption of {len(silent)} images, "
                f"such as {silent[0]}: use files of one release."
            )

    def trials(self, subject: int, sessions: Sequence[int]) -> Trials:
        """Return the trials of images that the split names.

        Places are a fixed order that has nothing to do with what images show, so that
        validation images are like the training images.
        """
        used = np.concatenate(self._parts(subject))
        names = {number: name for name, number in self._number.items()}
        order = sorted(
            used.tolist(), key=lambda n: hashlib.sha256(names[n].encode()).digest()
        )
        place = {number: at for at, number in enumerate(order)}
        session, image = list[int](), list[int]()
        for number in sessions:
            shown = [n for n in self._shown(subject, number).tolist() if n in place]
            session += [number] * len(shown)
            image += shown
        return Trials(
            np.array(session, np.int64),
            np.array(image, np.int64),
            np.array([place[n] for n in image], np.int64),
        )

    def test_images(self, subject: int) -> IntArray:
        """Return the numbers of the images that test under the split."""
        return self._parts(subject)[1]

    def images(self, image_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return the images as they were shown, (n, 1000, 1000, 3)."""
        ids, n_images = np.asarray(image_id), len(self._number)
        odd = ids[(ids < 0) | (ids >= n_images)]
        if len(odd):
            raise DataError(
                f"{self._file('table')} has images 0 to {n_images - 1}, but image "
                f"{odd[0]} is asked for: use files of one release."
            )
        return files.read_images(self._file("images"), ids, n_images)

    def captions(self, image_id: IntArray, n_captions: int) -> npt.NDArray[np.object_]:
        """Return the best captions that people wrote of each image, (n, n_captions)."""
        names = list(self._number)
        texts = [
            self._captions.get(names[n], []) for n in np.asarray(image_id).tolist()
        ]
        few = [n for n, one in enumerate(texts) if len(one) < n_captions]
        if few:
            name = names[int(image_id[few[0]])]
            raise DataError(
                f"{self._file('captions')} has {len(texts[few[0]])} captions by people "
                f"of {name}, but {n_captions} are asked for: set features.n_captions "
                "to 3, which images of one subject have."
            )
        return np.array([one[:n_captions] for one in texts], object)

    def coco_id(self, image_id: IntArray) -> None:  # noqa: ARG002
        """Return None: most pictures are not from COCO."""
        return

    # What was measured

    def units(self, subject: int, which: UnitSet) -> Units:
        """Return the voxels of the areas, or of all visual cortex (laiongeneral)."""
        areas = files.read_areas(self.root, subject)
        mask = areas >= 0
        if which == "nsdgeneral":
            path = layout.roi_file(self.root, subject, _GENERAL)
            mask = files.read_mask(path)
            check_shape(mask.shape, areas.shape, f"Region {path}")
        area = areas[mask]
        counts = np.bincount(area[area >= 0], minlength=len(AREAS)).tolist()
        each = ", ".join(f"{a} {n}" for a, n in zip(AREAS, counts, strict=True))
        logger.info("subject %d: %d voxels (%s)", subject, len(area), each)
        ncsnr = self._ncsnr(subject, mask)
        return units_of(voxel_indices(mask), areas.shape, area, ncsnr, which)

    def _ncsnr(self, subject: int, mask: npt.NDArray[np.bool_]) -> Matrix | None:
        path = self._file("ceiling", subject)
        if not is_there(path):
            return None
        ratio = files.read_ceiling(path)
        check_shape(ratio.shape, mask.shape, f"Noise ceiling {path}")
        values: Matrix = ratio[mask]
        return values

    def responses(self, subject: int, session: int, units: Units) -> Matrix:
        """Return one session's betas of the images that the split names, float32."""
        shown = self._shown(subject, session)
        path = self._file("betas", subject, session=session)
        shape = (*units.grid, len(shown))
        betas = files.read_betas(path, units.position, shape)
        return betas[np.isin(shown, np.concatenate(self._parts(subject)))]

    def responses_file(self, subject: int, session: int) -> str:
        """Return the path of a session's betas."""
        return str(self._file("betas", subject, session=session))
