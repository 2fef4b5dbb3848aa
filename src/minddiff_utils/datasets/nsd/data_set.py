"""NSD behind the protocol of all data sets: single trials, in voxels at 1.8 mm."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import IntArray, Matrix
from minddiff_utils.datasets.inventory import is_there
from minddiff_utils.datasets.nsd.experiment import to_percent
from minddiff_utils.datasets.nsd.layout import FACTS, N_SHARED, SUBJECT1
from minddiff_utils.datasets.nsd.reader import NsdTree, check_trials
from minddiff_utils.datasets.protocol import (
    SingleTrials,
    Trials,
    Units,
    UnitSet,
    voxels_of,
)

__all__ = ["Nsd", "OfNsd"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OfNsd(SingleTrials):
    """What data sets have alike whose images are NSD's, beside files of NSD's tree."""

    tree: NsdTree

    @property
    def is_real(self) -> bool:
        """Return whether no simulation marked the folder as its own."""
        return self.tree.is_real

    def captions(self, image_id: IntArray, n_captions: int) -> npt.NDArray[np.object_]:
        """Return the first COCO captions of each image, (n, n_captions)."""
        return self.tree.captions(image_id, n_captions)

    def coco_id(self, image_id: IntArray) -> IntArray:
        """Return the pictures' numbers in COCO."""
        table = self.tree.stim_info("cocoId")
        return np.asarray(table["cocoId"].to_numpy()[image_id], np.int64)

    @property
    def order_notes(self) -> list[str]:
        """Return a sentence where nothing says the order of a subject's images."""
        if is_there(self.tree.file("design")):
            return []
        return [
            "nsd_expdesign.mat is not there: images are in the order of their ids, "
            "and other images validate than by the order of NSD's list."
        ]

    def place(self, subject: int, ids: IntArray) -> IntArray:
        """Return the 10k index of each image, its id where no design is there."""
        if not is_there(self.tree.file("design")):
            return ids
        own = self.tree.design().images[subject - 1]
        order = np.argsort(own)
        row = np.searchsorted(own, ids, sorter=order).clip(max=len(own) - 1)
        place = order[row]
        strangers = np.unique(ids[own[place] != ids])
        if len(strangers):
            raise DataError(
                f"{len(strangers)} images of subject {subject} (such as nsd_id "
                f"{strangers[0]}) are not the subject's by {self.tree.file('design')}: "
                "use the files of this subject."
            )
        return np.asarray(place, np.int64)


@dataclass(frozen=True)
class Nsd(OfNsd):
    """NSD's tree, or an in-silico one of the same layout, as a data set."""

    name: str = "nsd"

    def files(
        self, subject: int, sessions: Sequence[int], units: UnitSet
    ) -> tuple[Path, ...]:
        """Return the files there are of those that notebook 01 reads."""
        return self.tree.inputs("01", [subject], sessions, units)

    def notes(self, subject: int) -> tuple[str, ...]:
        """Return nothing: responses are prepared here."""
        return ()

    # What was shown

    def sessions(self, subject: int, asked: Sequence[int]) -> tuple[int, ...]:
        """Return those of the sessions `asked` that the subject has; all are there."""
        numbers = self.tree.sessions_of(subject, asked)
        self.tree.check_sessions(subject, numbers)
        return numbers

    def check(self, subject: int, sessions: Sequence[int]) -> None:
        """Raise DataError unless design, stimulus table and behaviour agree."""
        check_trials(self.tree, subject, sessions[-1])

    def trials(self, subject: int, sessions: Sequence[int]) -> Trials:
        """Return the trials of `sessions`; an image's place is its 10k index."""
        shown = self.tree.trials(subject, sessions[-1]).of(sessions)
        return Trials(shown.session, shown.nsd_id, shown.image_10k)

    def test_images(self, subject: int) -> IntArray:
        """Return the `nsd_id` of the images that all subjects share, (1000,)."""
        return self.tree.design().images[subject - 1, :N_SHARED]

    def second_test_images(self, subject: int) -> IntArray:
        """Return the `nsd_id` of a second test set, which a simulation may have."""
        return self.tree.second_test_set()

    def images(self, image_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return the images, (n, 425, 425, 3), in the order asked."""
        return self.tree.stimuli(image_id)

    # What was measured

    def units(self, subject: int, which: UnitSet) -> Units:
        """Return the voxels of the eleven areas, or of `nsdgeneral`."""
        areas = self.tree.areas(subject)
        mask = np.asarray(areas >= 0)
        n_voxels = int(mask.sum())
        is_paper_s = subject == 1 and areas.shape == FACTS[1].grid
        if is_paper_s and n_voxels != SUBJECT1["11 areas"]:
            logger.warning(
                "subject 1 has %d voxels in the 11 areas, but MindDiffuser used %d: "
                "these region files differ from the paper's",
                n_voxels,
                SUBJECT1["11 areas"],
            )
        if which == "nsdgeneral":
            mask = self.tree.roi(subject, "nsdgeneral") > 0
        ncsnr = None
        if self.tree.has_ncsnr(subject):
            ncsnr = self.tree.ncsnr(subject)
        else:
            logger.warning(
                "subject %d has no ncsnr.nii.gz: ncsnr recomputed from the trials read"
                " is used in its place",
                subject,
            )
        return voxels_of(mask, areas, ncsnr, which, f"subject {subject}")

    def responses(
        self, subject: int, session: int, units: Units
    ) -> npt.NDArray[np.int16]:
        """Return one session's stored betas, (750, n_units) int16."""
        mask = np.zeros(units.grid, bool)
        mask[tuple(units.position.T)] = True
        return self.tree.betas(subject, session, mask)

    def scaled(self, stored: npt.NDArray[Any]) -> Matrix:
        """Return stored betas as percent signal change."""
        return to_percent(stored)

    def responses_file(self, subject: int, session: int) -> str:
        """Return the path of a session's betas."""
        return str(self.tree.betas_file(subject, session))
