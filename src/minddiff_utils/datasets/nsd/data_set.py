"""NSD behind the protocol of all data sets: single trials, in voxels at 1.8 mm."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_choice
from minddiff_utils.core.types import IntArray, Matrix
from minddiff_utils.datasets.inventory import (
    DataFile,
    find,
    is_there,
    list_files,
    path_in,
    there,
)
from minddiff_utils.datasets.nsd.experiment import to_percent
from minddiff_utils.datasets.nsd.layout import FACTS, FILES, N_SHARED, SUBJECT1
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.datasets.protocol import (
    SingleTrials,
    Trials,
    Units,
    UnitSet,
    voxels_of,
)

__all__ = ["Nsd", "OfNsd", "check_trials"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OfNsd(SingleTrials):
    """What data sets have alike whose images are NSD's, beside files of NSD's tree."""

    tree: NsdTree
    rows: ClassVar[Sequence[DataFile]] = FILES

    def file(self, kind: str, subject: int, **names: str | int) -> Path:
        """Return a file of the data set's list, in whatever form it is there."""
        check_choice(subject, range(1, 9), "subject")
        names = {"version": self.tree.betas_version, **names}
        return find(self.tree.root, path_in(self.rows, kind, subject, **names))

    def files(
        self, subject: int, sessions: Sequence[int], units: UnitSet
    ) -> tuple[Path, ...]:
        """Return the files there are of those that are read, images in folders aside.

        Of these, thousands, only the names say what a row is; they are read when the
        rows are.
        """
        files = list_files(self.rows, [subject], version=self.tree.betas_version)
        return there(self.tree.root, (f for f in files if f.notebook == "01"))

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
        return self.tree.trials(subject, sessions[-1]).of(sessions)

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


def check_trials(tree: NsdTree, subject: int, n_sessions: int) -> None:
    """Raise DataError unless design, stimulus table and behaviour name the same images.

    The three files state the index chain independently: the design by its order, the
    table by trial numbers (1-based), the behaviour by 1-based ids. The behavioural file
    is optional.
    """
    trials = tree.trials(subject, n_sessions)
    columns = [f"subject{subject}_rep{r}" for r in range(3)]
    planned = tree.stim_info(*columns)[columns].to_numpy(np.int64)
    numbers = planned[trials.image_id]  # (n_trials, 3)
    expected = np.arange(1, len(trials.image_id) + 1)[:, None]
    differ = np.flatnonzero(~(numbers == expected).any(axis=1))
    if len(differ):
        raise DataError(
            f"Subject {subject}, trial {differ[0] + 1}: the stimulus table does not "
            f"list nsdId {trials.image_id[differ[0]]} there, as nsd_expdesign.mat does "
            f"({len(differ)} trials differ): use the two files of one release."
        )
    if not is_there(tree.file("responses", subject)):
        return
    behaviour = tree.responses(subject)
    behaviour = behaviour[behaviour["SESSION"] <= n_sessions]
    ids = behaviour[["10KID", "73KID"]].to_numpy(np.float64)
    stated = np.stack([trials.place, trials.image_id], axis=1) + 1
    if not np.array_equal(ids, stated):
        raise DataError(
            f"Subject {subject}: responses.tsv names other images than "
            "nsd_expdesign.mat: use the two files of one release."
        )
