"""Algonauts 2023 as a data set: means over an image's trials, in fsaverage's vertices.

The release holds the training images and their responses; those of the challenge's own
test images are withheld and not used. Of the rest, images that all subjects of NSD
share test here: of subjects 1, 2, 5 and 7 the paper's 8,859 + 982 images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from PIL import Image

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Images, IntArray, Matrix
from minddiff_utils.datasets.algonauts import layout
from minddiff_utils.datasets.inventory import (
    HEMISPHERES,
    DataFile,
    Hemisphere,
    is_there,
)
from minddiff_utils.datasets.nsd import layout as nsd
from minddiff_utils.datasets.nsd.data_set import OfNsd
from minddiff_utils.datasets.nsd.publisher import NSD
from minddiff_utils.datasets.protocol import Trials, Units, UnitSet, units_of
from minddiff_utils.datasets.published import Published
from minddiff_utils.datasets.visual_areas import ROI_LABELS, assign_areas

__all__ = ["Algonauts"]

_RELEASE = Published(
    "name the folder that holds subj01 to subj08 of the Algonauts 2023 release "
    "(--nsd-root), or unpack the release there",
    "compare it with the Algonauts 2023 release and download it again",
)
_DRAWN, _SIDES = "prf-visualrois", (nsd.IMAGE_SIZE, nsd.IMAGE_SIZE)


@dataclass(frozen=True)
class Algonauts(OfNsd):
    """The release below the root of NSD's files that it needs."""

    name: str = "algonauts"
    are_averaged: bool = True
    rows: ClassVar[Sequence[DataFile]] = layout.FILES

    def notes(self, subject: int) -> tuple[str, ...]:
        """Return what a reader of any number must know of these responses."""
        last = layout.n_sessions(subject)
        ceiling = (
            "lh.ncsnr.mgh and rh.ncsnr.mgh are not there: no noise ceiling is "
            "available, and none is estimated."
        )
        return (
            "Responses were standardised by the release on all trials of a session, "
            "those of test images included, and averaged over an image's trials in "
            f"sessions 1 to {last}.",
            "Vertices lie in nsdgeneral and RSC: areas beyond them, the parietal ones "
            "above all, are cut off, and counts are no voxel counts.",
            *self.order_notes,
            *([] if self._ncsnr_files(subject) else [ceiling]),
        )

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
        return np.array(list(self._images(subject)), np.int64)

    def check(self, subject: int, sessions: Sequence[int]) -> None:
        """Raise DataError unless names, table, design, arrays and masks agree."""
        ids = self.image_ids(subject)
        self.n_repeats(subject, ids)
        self.place(subject, ids)
        for h, vertices in self._vertices(subject).items():
            for roi in layout.ROIS:  # those that are there fit the columns
                if roi == _DRAWN or is_there(self.file("roi", subject, h=h, roi=roi)):
                    self._mask(subject, h, roi, len(vertices))
            self._fmri(subject, h)

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
        n = ((planned >= 1) & (planned <= last * nsd.N_TRIALS)).sum(axis=1)
        if not n.all():
            unseen = image_id[n == 0]
            raise DataError(
                f"{len(unseen)} images of subject {subject} (such as nsd_id "
                f"{unseen[0]}) were not shown in sessions 1 to {last} by "
                f"{self.tree.file('table')}: use the images of this subject."
            )
        return np.asarray(n, np.int64)

    def test_images(self, subject: int) -> IntArray:
        """Return the `nsd_id` of the images that all subjects of NSD share, (1000,)."""
        return self.tree.shared_images()

    def images(self, image_id: IntArray) -> Images:
        """Return the images, (n, 425, 425, 3), in the order asked."""
        known = self._every_image
        images = np.empty((len(image_id), *_SIDES, 3), np.uint8)
        for row, nsd_id in enumerate(np.asarray(image_id).tolist()):
            if nsd_id not in known:
                raise DataError(
                    f"No subject's training_images in {self.tree.root} hold image "
                    f"nsd_id {nsd_id}: unpack them there."
                )
            images[row] = _read_image(known[nsd_id])
        return images

    # What was measured

    def units(self, subject: int, which: UnitSet) -> Units:
        """Return the vertices of the eleven areas, or all of the challenge space."""
        vertices = self._vertices(subject)
        area = np.concatenate([self._areas(subject, h, vertices[h]) for h in vertices])
        side = np.repeat((0, 1), [len(own) for own in vertices.values()])
        index = np.concatenate(list(vertices.values()))
        position = np.stack([side, index], axis=1).astype(np.int32)
        ncsnr = None
        if paths := self._ncsnr_files(subject):
            both = [NSD.ncsnr(p, _per_vertex(p, "Noise ceiling")) for p in paths]
            ncsnr = np.stack(both)[side, index]
        grid, owner = (len(HEMISPHERES), nsd.N_FSAVERAGE), f"subject {subject}"
        return units_of(position, grid, area, ncsnr, which, owner)

    def responses(self, subject: int, session: int, units: Units) -> Matrix:
        """Return the mean responses, (n_images, n_units) float32."""
        side, index = units.position.T
        parts = []
        for number, (h, own) in enumerate(self._vertices(subject).items()):
            columns = np.searchsorted(own, index[side == number])
            part = np.ascontiguousarray(self._fmri(subject, h)[:, columns])
            _RELEASE.no_infinity(self.file("fmri", subject, h=h), part)
            parts.append(part)
        return np.concatenate(parts, axis=1)

    def responses_file(self, subject: int, session: int) -> str:
        """Return the name of the two arrays."""
        return str(self.file("fmri", subject, h="lh").with_name("?h_training_fmri.npy"))

    # The files of the release

    @cached_property
    def _every_image(self) -> dict[int, Path]:
        """Return the images of all subjects whose folders are there."""
        folders = filter(is_there, map(self._folder, range(1, 9)))
        return {k: path for one in folders for k, path in _list_images(one).items()}

    def _folder(self, subject: int) -> Path:
        """Return the folder of a subject's training images."""
        fmri = self.file("fmri", subject, h="lh")
        return fmri.parent.parent / "training_images"

    def _images(self, subject: int) -> dict[int, Path]:
        """Return a subject's images by `nsd_id`, in the order of the rows."""
        return _list_images(self._folder(subject))

    def _vertices(self, subject: int) -> dict[Hemisphere, IntArray]:
        """Return the fsaverage vertices of the columns of each hemisphere."""
        vertices = dict[Hemisphere, IntArray]()
        for h in HEMISPHERES:
            path = self.file("vertices", subject, h=h)
            vertices[h] = np.flatnonzero(_read_mask(path, nsd.N_FSAVERAGE, 1))
            if not len(vertices[h]):
                raise _RELEASE.wrong(path, "no vertex", "thousands")
        n = tuple(map(len, vertices.values()))
        if n == layout.N_VERTICES[subject][::-1] and n[0] != n[1]:
            raise DataError(
                f"The masks all-vertices of subject {subject} mark {n[0]} left and "
                f"{n[1]} right vertices, but the release has them the other way "
                "round: name the hemispheres as released."
            )
        return vertices

    def _mask(self, subject: int, h: Hemisphere, roi: str, n: int) -> IntArray:
        """Return the labels of a hemisphere's `n` columns."""
        path = self.file("roi", subject, h=h, roi=roi)
        return _read_mask(path, n, len(layout.ROIS[roi]))

    def _fmri(self, subject: int, h: Hemisphere) -> Matrix:
        """Return a hemisphere's responses, left on disk; rows and columns fit."""
        path, sides = self.file("fmri", subject, h=h), ("images", "vertices")
        values = _RELEASE.array(path, "Responses", "float32", sides, mmap_mode="r")
        marked = {side: len(own) for side, own in self._vertices(subject).items()}
        (other,) = marked.keys() - {h}
        n_images, n = len(self._images(subject)), values.shape[1]
        if n != marked[h]:
            swapped = f", as many as {other} has: are they swapped?"
            hint = swapped if n == marked[other] else ""
            raise DataError(
                f"{path} has {n} vertices, but the mask all-vertices of {h} marks "
                f"{marked[h]}{hint or ': use files of one subject and release.'}"
            )
        if len(values) != n_images:
            raise DataError(
                f"{path} has {len(values)} rows, but training_images hold {n_images} "
                "images: unpack all images of this subject, and no others."
            )
        return values

    def _areas(self, subject: int, h: Hemisphere, vertices: IntArray) -> IntArray:
        """Return each vertex's area as an index into `AREAS`, -1 where none.

        As in volumes, what was drawn on the subject overrides the atlas.
        """
        path, names = self.file("kastner", subject, h=h), ROI_LABELS["Kastner2015"]
        atlas = NSD.labels(path, _per_vertex(path, "Kastner2015"))
        NSD.check_labels(path, atlas, names.values(), "a label up to 25")
        drawn = self._mask(subject, h, _DRAWN, len(vertices))
        return assign_areas(atlas[vertices], names, drawn, ROI_LABELS[_DRAWN])

    def _ncsnr_files(self, subject: int) -> list[Path]:
        """Return NSD's files of both hemispheres, none where one is not there."""
        paths = [self.file("ncsnr", subject, h=h) for h in HEMISPHERES]
        return paths if all(map(is_there, paths)) else []


# --- single files ---------------------------------------------------------------------


def _read_mask(path: Path, n: int, most: int) -> IntArray:
    """Return a mask of `n` vertices, whose values are 0 to `most`."""
    values = _RELEASE.array(path, "Mask", "numbers", (n,))
    return _RELEASE.whole(path, values, "the mask", 0, most)


def _per_vertex(path: Path, what: str) -> Matrix:
    """Return one number per vertex of fsaverage, from a file of NSD."""
    values = NSD.volume(path, what).squeeze()
    check_shape(values.shape, (nsd.N_FSAVERAGE,), f"{what} {path}")
    return values.astype(np.float32)


def _list_images(folder: Path) -> dict[int, Path]:
    """Return the training images by `nsd_id`, in the order of the rows of responses.

    Raises
    ------
    DataError
        There is none, a name is not as released, or ranks and ids do not ascend
        together from rank 1 without a gap.
    """
    with _RELEASE.reading(folder, "Training images"):
        pngs = [path for path in folder.iterdir() if path.suffix.lower() == ".png"]
    paths = [path for path in pngs if not path.name.startswith(".")]
    if not paths:
        raise _RELEASE.wrong(folder, "no image", "train-0001_nsd-NNNNN.png and others")
    names = pd.Series([path.name for path in paths], paths)
    numbers = names.str.extract(layout.IMAGE_NAME)
    if (odd := numbers.index[numbers["rank"].isna()]).size:
        raise DataError(
            f"{odd[0]} is no name of the release, as train-0001_nsd-00013.png is: "
            "leave the files as they were unpacked."
        )
    numbers = numbers.astype(np.int64).sort_values(["rank", "nsd_id"])
    rank, ids = numbers["rank"].to_numpy(), numbers["nsd_id"].to_numpy()
    place = np.arange(1, len(rank) + 1)
    if (beyond := numbers.index[ids >= nsd.N_IMAGES]).size:
        found = f"image {numbers['nsd_id'][beyond[0]]} by its name"
        raise _RELEASE.wrong(beyond[0], found, f"0 to {nsd.N_IMAGES - 1}")
    if (gaps := np.flatnonzero(rank != place)).size:
        first, due = rank[gaps[0]], place[gaps[0]]
        twice = f"an image too many of rank {first}"
        found = twice if first < due else f"no image of rank {due}"
        raise _RELEASE.wrong(folder, found, "ranks from 1, each once")
    if (falls := np.flatnonzero(np.diff(ids) <= 0)).size:
        found = f"an id out of order at rank {rank[falls[0] + 1]}"
        raise _RELEASE.wrong(folder, found, "ascending ids")
    return dict(zip(ids.tolist(), numbers.index, strict=True))


def _read_image(path: Path) -> Images:
    """Return one image, (425, 425, 3) uint8."""
    with _RELEASE.reading(path, "Image"), Image.open(path) as picture:
        mode, size, pixels = picture.mode, picture.size, np.asarray(picture)
    if (mode, size) != ("RGB", _SIDES):
        found = f"a picture of {size[0]} x {size[1]} px ({mode})"
        raise _RELEASE.wrong(path, found, f"{_SIDES[0]} x {_SIDES[1]} px (RGB)")
    return pixels
