"""Algonauts 2023 as a data set: means over an image's trials, in fsaverage's vertices.

The release holds the training images and their responses; those of the challenge's own
test images are withheld and not used. Of the rest, images that all subjects of NSD
share test here: of subjects 1, 2, 5 and 7 the paper's 8,859 + 982 images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import IntArray, Matrix
from minddiff_utils.datasets.algonauts import layout
from minddiff_utils.datasets.algonauts.files import read_image
from minddiff_utils.datasets.algonauts.release import Release
from minddiff_utils.datasets.nsd.data_set import OfNsd
from minddiff_utils.datasets.nsd.formats import wrong
from minddiff_utils.datasets.nsd.layout import (
    HEMISPHERES,
    IMAGE_SIZE,
    N_FSAVERAGE,
    N_SHARED,
    N_TRIALS,
    find,
    is_there,
)
from minddiff_utils.datasets.protocol import Trials, Units, UnitSet, units_of

__all__ = ["Algonauts"]


@dataclass(frozen=True)
class Algonauts(OfNsd):
    """The release below the root of NSD's files that it needs."""

    name: str = "algonauts"
    are_averaged: bool = True

    @cached_property
    def release(self) -> Release:
        """Return the reader of the release's own files."""
        return Release(self.tree.root)

    def files(
        self,
        subject: int,
        sessions: Sequence[int],  # noqa: ARG002
        units: UnitSet,  # noqa: ARG002
    ) -> tuple[Path, ...]:
        """Return the files there are of those that are read, images aside.

        Of images, thousands, only the names say what a row is; they are read when the
        rows are.
        """
        paths = (find(self.tree.root / path) for path in layout.inventory(subject))
        return tuple(sorted(path for path in paths if is_there(path)))

    def notes(self, subject: int) -> tuple[str, ...]:
        """Return what a reader of any number must know of these responses."""
        last = layout.n_sessions(subject)
        notes = [
            "Responses were standardised by the release on all trials of a session, "
            "those of test images included, and averaged over an image's trials in "
            f"sessions 1 to {last}.",
            "Vertices lie in nsdgeneral and RSC: areas beyond them, the parietal ones "
            "above all, are cut off, and counts are no voxel counts.",
        ]
        notes += self.order_notes
        if self.release.ncsnr_files(subject) is None:
            notes.append(
                "lh.ncsnr.mgh and rh.ncsnr.mgh are not there: no noise ceiling is "
                "available, and none is estimated."
            )
        return tuple(notes)

    # What was shown

    def sessions(self, subject: int, asked: Sequence[int]) -> tuple[int, ...]:
        """Return the sessions over which the release averages: all or none."""
        self.image_ids(subject)
        sessions = tuple(range(1, layout.n_sessions(subject) + 1))
        lacking = sorted(set(sessions) - set(asked))
        if lacking:
            raise DataError(
                f"Responses of subject {subject} are means over sessions 1 to "
                f"{sessions[-1]}, but session {lacking[0]} is not asked for: set "
                "data.sessions to all and data.only_sessions to null."
            )
        return sessions

    def image_ids(self, subject: int) -> IntArray:
        """Return the `nsd_id` of each row of the responses, ascending."""
        return np.array(list(self.release.images(subject)), np.int64)

    def check(self, subject: int, sessions: Sequence[int]) -> None:  # noqa: ARG002
        """Raise DataError unless names, table, design, arrays and masks agree."""
        ids = self.image_ids(subject)
        self.n_repeats(subject, ids)
        self.place(subject, ids)
        self.release.check_masks(subject)
        for h in HEMISPHERES:
            self.release.fmri(subject, h)

    def trials(self, subject: int, sessions: Sequence[int]) -> Trials:
        """Return a row per image; its session stands for all that are averaged."""
        ids = self.image_ids(subject)
        session = np.full(len(ids), sessions[0], np.int64)
        return Trials(session, ids, self.place(subject, ids))

    def n_repeats(self, subject: int, image_id: IntArray) -> IntArray:
        """Return in how many trials each image was seen, by the stimulus table."""
        columns = [f"subject{subject}_rep{r}" for r in range(3)]
        planned = self.tree.stim_info(*columns)[columns].to_numpy(np.int64)[image_id]
        last = layout.n_sessions(subject)
        n = ((planned >= 1) & (planned <= last * N_TRIALS)).sum(axis=1)
        if not n.all():
            unseen = image_id[n == 0]
            raise DataError(
                f"{len(unseen)} images of subject {subject} (such as nsd_id "
                f"{unseen[0]}) were not shown in sessions 1 to {last} by "
                f"{self.tree.file('table')}: use the images of this subject."
            )
        return np.asarray(n, np.int64)

    def test_images(self, subject: int) -> IntArray:  # noqa: ARG002
        """Return the `nsd_id` of the images that all subjects of NSD share, (1000,)."""
        shared = self.tree.stim_info("shared1000")["shared1000"]
        path = self.tree.file("table")
        if shared.dtype != bool:
            raise wrong(path, "words or gaps in the column shared1000", "True or False")
        ids = np.flatnonzero(shared)
        if len(ids) != N_SHARED:
            raise wrong(path, f"{len(ids)} shared images", f"{N_SHARED}")
        return ids

    def images(self, image_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return the images, (n, 425, 425, 3), in the order asked."""
        known = self.release.every_image
        images = np.empty((len(image_id), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        for row, nsd_id in enumerate(np.asarray(image_id).tolist()):
            if nsd_id not in known:
                raise DataError(
                    f"No subject's training_images in {self.tree.root} hold image "
                    f"nsd_id {nsd_id}: unpack them there."
                )
            images[row] = read_image(known[nsd_id])
        return images

    # What was measured

    def units(self, subject: int, which: UnitSet) -> Units:
        """Return the vertices of the eleven areas, or all of the challenge space."""
        vertices = self.release.vertices(subject)
        area = np.concatenate(
            [
                self.release.areas(subject, h, own)
                for h, own in zip(HEMISPHERES, vertices, strict=True)
            ]
        )
        if not (area >= 0).any():
            raise DataError(
                f"Subject {subject} has no vertex in any of the areas "
                f"{', '.join(AREAS)}: check the masks of prf-visualrois and "
                "Kastner2015.mgz."
            )
        side = np.repeat((0, 1), [len(own) for own in vertices])
        position = np.stack([side, np.concatenate(vertices)], axis=1).astype(np.int32)
        grid = (len(HEMISPHERES), N_FSAVERAGE)
        ncsnr = self.release.ncsnr(subject, position)
        return units_of(position, grid, area, ncsnr, which)

    def responses(self, subject: int, session: int, units: Units) -> Matrix:  # noqa: ARG002
        """Return the mean responses, (n_images, n_units) float32."""
        side, index = units.position.T
        parts = []
        for number, h in enumerate(HEMISPHERES):
            own = self.release.vertices(subject)[number]
            columns = np.searchsorted(own, index[side == number])
            part = np.ascontiguousarray(self.release.fmri(subject, h)[:, columns])
            if np.isinf(part).any():
                path = self.release.file("fmri", subject, h=h)
                raise DataError(
                    f"{path} holds infinite values, but finite ones or NaN are "
                    "expected: download it again."
                )
            parts.append(part)
        return np.concatenate(parts, axis=1)

    def responses_file(self, subject: int, session: int) -> str:  # noqa: ARG002
        """Return the name of the two arrays."""
        return str(
            self.release.file("fmri", subject, h="lh").with_name("?h_training_fmri.npy")
        )
