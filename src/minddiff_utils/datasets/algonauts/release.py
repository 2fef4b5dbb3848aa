"""The reader of the release: rows are images, columns vertices of fsaverage.

It refuses arrays that do not fit their images and masks, prepares nothing and writes
nothing. Where the files lie stands in `layout`.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_choice
from minddiff_utils.core.types import IntArray, Matrix
from minddiff_utils.datasets.algonauts import layout
from minddiff_utils.datasets.algonauts.files import (
    list_images,
    read_fmri,
    read_mask,
    read_ncsnr,
    read_surface,
)
from minddiff_utils.datasets.nsd.areas import ROI_LABELS, assign_areas
from minddiff_utils.datasets.nsd.formats import to_labels, wrong
from minddiff_utils.datasets.nsd.layout import (
    HEMISPHERES,
    N_FSAVERAGE,
    Hemisphere,
    find,
    is_there,
)

__all__ = ["Release"]

logger = logging.getLogger(__name__)

_LABELS = {
    name: {label: value for value, label in enumerate(labels, start=1)}
    for name, labels in {**ROI_LABELS, **layout.ROIS}.items()
}


@dataclass(frozen=True)
class Release:
    """The release below `root`, and NSD's atlas and ncsnr beside it."""

    root: Path

    def file(self, kind: str, subject: int, **names: str) -> Path:
        """Return a file of the inventory."""
        check_choice(subject, range(1, 9), "subject")
        return find(self.root / layout.path(kind, subject, **names))

    @cached_property
    def every_image(self) -> dict[int, Path]:
        """Return the images of all subjects whose folders are there."""
        known = dict[int, Path]()
        for subject in range(1, 9):
            if is_there(self.image_folder(subject)):
                known |= self.images(subject)
        return known

    def image_folder(self, subject: int) -> Path:
        """Return the folder of a subject's training images."""
        fmri = self.file("fmri", subject, h="lh")
        return fmri.parent.parent / "training_images"

    def images(self, subject: int) -> dict[int, Path]:
        """Return a subject's images by `nsd_id`, in the order of the rows."""
        return list_images(self.image_folder(subject))

    def vertices(self, subject: int) -> list[IntArray]:
        """Return the fsaverage vertices of the columns of each hemisphere."""
        vertices = []
        for h in HEMISPHERES:
            path = self.file("vertices", subject, h=h)
            own = np.flatnonzero(read_mask(path, N_FSAVERAGE, (0, 1)))
            if not len(own):
                raise DataError(
                    f"{path} marks no vertex, but thousands are expected: download it "
                    "again."
                )
            vertices.append(own)
        n = tuple(map(len, vertices))
        if n == layout.N_VERTICES[subject][::-1] and n[0] != n[1]:
            raise DataError(
                f"The masks all-vertices of subject {subject} mark {n[0]} left and "
                f"{n[1]} right vertices, but the release has them the other way "
                "round: name the hemispheres as released."
            )
        return vertices

    def check_masks(self, subject: int) -> None:
        """Raise DataError unless all masks that are there fit the columns."""
        for h, vertices in zip(HEMISPHERES, self.vertices(subject), strict=True):
            for roi, labels in layout.ROIS.items():
                path = self.file("roi", subject, h=h, roi=roi)
                if roi == "prf-visualrois" or is_there(path):
                    read_mask(path, len(vertices), range(len(labels) + 1))

    def fmri(self, subject: int, h: Hemisphere) -> npt.NDArray[np.float32]:
        """Return a hemisphere's responses, left on disk; rows and columns fit."""
        path = self.file("fmri", subject, h=h)
        values, n_images = read_fmri(path), len(self.images(subject))
        sides = dict(zip(HEMISPHERES, map(len, self.vertices(subject)), strict=True))
        other = next(side for side in HEMISPHERES if side != h)
        n = values.shape[1]
        if n != sides[h]:
            swapped = f", as many as {other} has: are they swapped?"
            hint = swapped if n == sides[other] else ""
            raise DataError(
                f"{path} has {n} vertices, but the mask all-vertices of {h} marks "
                f"{sides[h]}{hint or ': use files of one subject and release.'}"
            )
        if len(values) != n_images:
            raise DataError(
                f"{path} has {len(values)} rows, but training_images hold {n_images} "
                "images: unpack all images of this subject, and no others."
            )
        return values

    def areas(self, subject: int, h: Hemisphere, vertices: IntArray) -> IntArray:
        """Return each vertex's area as an index into `AREAS`, -1 where none.

        As in volumes, what was drawn on the subject overrides the atlas.
        """
        path = self.file("kastner", subject, h=h)
        atlas = to_labels(read_surface(path, "Kastner2015"), path)
        names = _LABELS["Kastner2015"]
        odd = set(np.unique(atlas).tolist()) - {-1, 0, *names.values()}
        if odd:
            raise wrong(path, f"the value {min(odd)}", "-1, 0 or a label up to 25")
        drawn = read_mask(
            self.file("roi", subject, h=h, roi="prf-visualrois"),
            len(vertices),
            range(len(layout.ROIS["prf-visualrois"]) + 1),
        )
        areas = assign_areas(atlas[vertices], names, drawn, _LABELS["prf-visualrois"])
        logger.info(
            "subject %d %s: %d of %d vertices of the atlas lie in the challenge space",
            *(subject, h, int((atlas[vertices] > 0).sum()), int((atlas > 0).sum())),
        )
        return areas

    def ncsnr_files(self, subject: int) -> list[Path] | None:
        """Return NSD's two files, None unless both are there."""
        paths = [self.file("ncsnr", subject, h=h) for h in HEMISPHERES]
        return paths if all(map(is_there, paths)) else None

    def ncsnr(self, subject: int, position: npt.NDArray[np.int32]) -> Matrix | None:
        """Return NSD's noise-ceiling SNR of each vertex, None where it is not there."""
        paths = self.ncsnr_files(subject)
        if paths is None:
            return None
        both = np.stack([read_ncsnr(path) for path in paths])
        values: Matrix = both[tuple(position.T)]
        return values
