"""MindEye2's folder as a data set: single trials in the voxels of nsdgeneral.

A convenience for those who have it: 1.9 GB of responses a subject in one file. NSD's
small files lie beside (regions, stimulus table, captions), which say where a voxel is.
What is not settled about the responses stands in `layout`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError, check_choice
from minddiff_utils.core.types import IntArray, Mask, Matrix
from minddiff_utils.datasets.mindeye2 import files as stored
from minddiff_utils.datasets.mindeye2 import layout
from minddiff_utils.datasets.nsd.betas import voxel_indices
from minddiff_utils.datasets.nsd.data_set import OfNsd
from minddiff_utils.datasets.nsd.layout import FACTS, N_TRIALS, find, is_there
from minddiff_utils.datasets.protocol import Trials, Units, UnitSet, units_of

__all__ = ["MindEye2"]

#: Share of a region's columns that must lie in the same region of NSD's volume.
_LEAST_IN_REGION = 0.5


@dataclass(frozen=True)
class MindEye2(OfNsd):
    """The folder, and those files of NSD that it needs, below one root."""

    name: str = "mindeye2"

    def file(self, kind: str, subject: int, part: int = 0) -> Path:
        """Return a file of the inventory."""
        check_choice(subject, range(1, 9), "subject")
        return find(self.tree.root / layout.path(kind, subject, part))

    def files(
        self,
        subject: int,
        sessions: Sequence[int],  # noqa: ARG002
        units: UnitSet,  # noqa: ARG002
    ) -> tuple[Path, ...]:
        """Return the files there are of those that are read."""
        roi = ("nsdgeneral", "Kastner2015", "prf-visualrois")
        paths = {find(self.tree.root / path) for path in layout.inventory(subject)}
        paths |= {self.tree.file("roi", subject, name=name) for name in roi}
        paths.add(self.tree.file("ncsnr", subject))
        return tuple(sorted(path for path in paths if is_there(path)))

    def notes(self, subject: int) -> tuple[str, ...]:  # noqa: ARG002
        """Return what a reader of any number must know of these responses."""
        return (
            "Responses are those of MindEye2's folder, which does not say from which "
            "betas of NSD they were made, nor over which trials they were standardised;"
            " they are standardised once more, within sessions.",
            "Voxels lie in nsdgeneral: areas beyond it, the parietal ones above all, "
            "are cut off.",
            *self.order_notes,
        )

    # What was shown

    def sessions(self, subject: int, asked: Sequence[int]) -> tuple[int, ...]:
        """Return those of the sessions `asked` that the array of responses holds."""
        path = self.file("betas", subject)
        most = stored.shape_of_betas(path)[0] // N_TRIALS
        if most > FACTS[subject].n_sessions:
            raise stored.FOLDER.wrong(
                path, f"{most} sessions", f"{FACTS[subject].n_sessions} at most"
            )
        sessions = tuple(session for session in asked if session <= most)
        if not sessions:
            raise DataError(
                f"Subject {subject} has {most} sessions in {path}, but of these none is"
                f" asked for ({', '.join(map(str, asked))}): change data.only_sessions,"
                " or leave the subject out."
            )
        return sessions

    def trials(self, subject: int, sessions: Sequence[int]) -> Trials:
        """Return the trials of `sessions`, in time order."""
        path = self.file("indices", subject)
        ids = stored.read_indices(path, subject)
        n_trials = stored.shape_of_betas(self.file("betas", subject))[0]
        if len(ids) != n_trials:
            found = f"{len(ids)} trials of subject {subject}"
            raise stored.FOLDER.wrong(path, found, f"{n_trials}, as responses have")
        session = np.repeat(np.arange(1, n_trials // N_TRIALS + 1), N_TRIALS)
        return Trials(session, ids, self.place(subject, ids)).of(sessions)

    def check(self, subject: int, sessions: Sequence[int]) -> None:
        """Raise DataError unless indices, behaviour, design and regions agree."""
        every = range(1, FACTS[subject].n_sessions + 1)
        ids = self.trials(subject, every).image_id
        self._check_design(subject, ids)
        self._check_regions(subject)
        parts = [self.file("train", subject, session - 1) for session in sessions]
        for path in (*parts, self.file("test", subject)):
            if is_there(path):
                self._check_behaviour(path, subject, ids)

    def test_images(self, subject: int) -> IntArray:
        """Return the `nsd_id` of the images that all subjects share, (1000,)."""
        return stored.read_shared(self.file("shared", subject))

    def images(self, image_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return NSD's images where they are there, else the folder's of 224 px."""
        path = self.file("images", 1)
        if is_there(self.tree.file("stimuli")) or not is_there(path):
            return self.tree.stimuli(image_id)
        return stored.read_images(path, image_id)

    def _check_design(self, subject: int, ids: IntArray) -> None:
        if not is_there(self.tree.file("design")):
            return
        design = self.tree.trials(subject, len(ids) // N_TRIALS)
        differ = np.flatnonzero(design.nsd_id != ids)
        if len(differ):
            raise DataError(
                f"{self.file('indices', subject)} names image {ids[differ[0]]} in trial"
                f" {differ[0] + 1} of subject {subject}, but nsd_expdesign.mat "
                f"{design.nsd_id[differ[0]]} ({len(differ)} trials differ): use the "
                "files of one subject."
            )

    def _check_behaviour(self, path: Path, subject: int, ids: IntArray) -> None:
        table = stored.read_behaviour(path)
        row, image = (table[name].to_numpy() for name in ("row", "image"))
        if not (table["subject"] == subject).all():
            found = f"trials of subject {table['subject'].iloc[0]:.0f}"
            raise stored.FOLDER.wrong(path, found, f"those of subject {subject}")
        if not ((row >= 0) & (row < len(ids)) & (row == np.rint(row))).all():
            raise stored.FOLDER.wrong(
                path, "rows that there are not", f"0 to {len(ids) - 1}"
            )
        differ = np.flatnonzero(ids[row.astype(np.int64)] != image)
        if len(differ):
            raise stored.FOLDER.wrong(
                path,
                f"image {image[differ[0]]:.0f} for row {row[differ[0]]:.0f}",
                f"{ids[int(row[differ[0]])]}, as {self.file('indices', subject).name} "
                "has it,",
            )

    # What was measured

    def units(self, subject: int, which: UnitSet) -> Units:
        """Return the voxels of the eleven areas inside nsdgeneral, or all of it."""
        general = self._general(subject)
        area = self.tree.areas(subject)[general]
        if not (area >= 0).any():
            raise DataError(
                f"Subject {subject} has no voxel in any of the areas "
                f"{', '.join(AREAS)} inside nsdgeneral: check the regions of NSD."
            )
        ncsnr = None
        if self.tree.has_ncsnr(subject):
            ncsnr = self.tree.ncsnr(subject)[general]
        return units_of(voxel_indices(general), general.shape, area, ncsnr, which)

    def responses(self, subject: int, session: int, units: Units) -> Matrix:
        """Return one session's responses, (750, n_units) float32."""
        general = self._general(subject)
        number = np.full(general.shape, -1, np.int64)
        number[general] = np.arange(int(general.sum()))
        columns = number[tuple(units.position.T)]
        first = (session - 1) * N_TRIALS
        path = self.file("betas", subject)
        return stored.read_rows(path, slice(first, first + N_TRIALS), columns)

    def responses_file(self, subject: int, session: int) -> str:
        """Return the path of the array, and the session's rows."""
        first = (session - 1) * N_TRIALS
        return f"{self.file('betas', subject)}, rows {first} to {first + N_TRIALS - 1},"

    def _general(self, subject: int) -> Mask:
        """Return nsdgeneral, whose voxels in C order are the columns of responses."""
        general = np.asarray(self.tree.roi(subject, "nsdgeneral") > 0)
        path = self.file("betas", subject)
        n_voxels = stored.shape_of_betas(path)[1]
        if int(general.sum()) != n_voxels:
            raise stored.FOLDER.wrong(
                path,
                f"{n_voxels} voxels",
                f"{general.sum()}, as NSD's nsdgeneral of subject {subject} has,",
            )
        return general

    def _check_regions(self, subject: int) -> None:
        """Raise DataError unless V1 of the folder is V1 of NSD's volume."""
        general, path = self._general(subject), self.file("regions", subject)
        if not is_there(path):
            return
        regions = stored.read_regions(path, subject, int(general.sum()))
        if "V1" not in regions or not regions["V1"].any():
            held = ", ".join(regions)[:200] or "nothing"
            raise stored.FOLDER.wrong(
                path, f"the regions {held}", "V1, with a voxel in it,"
            )
        labels = self.tree.roi_labels(subject, "prf-visualrois")
        v1 = [labels[name] for name in ("V1v", "V1d")]
        drawn = np.isin(self.tree.roi(subject, "prf-visualrois")[general], v1)
        share = float(drawn[regions["V1"]].mean())
        if share < _LEAST_IN_REGION:
            raise DataError(
                f"{path} has {int(regions['V1'].sum())} voxels of subject {subject} in "
                f"V1, of which {share:.0%} lie in V1 of prf-visualrois: the columns of "
                f"{self.file('betas', subject).name} are not in the order that is "
                "expected (nsdgeneral, C order), so that no voxel's place is known; "
                "please report this."
            )
