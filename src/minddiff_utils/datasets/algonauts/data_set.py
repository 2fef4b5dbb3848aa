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
from PIL import Image

from minddiff_utils.core.errors import (
    DataError,
    check_choice,
    check_exists,
    check_shape,
)
from minddiff_utils.core.reading import reading
from minddiff_utils.core.types import IntArray, Matrix
from minddiff_utils.datasets.algonauts import layout
from minddiff_utils.datasets.inventory import (
    HEMISPHERES,
    Hemisphere,
    find,
    is_there,
    there,
)
from minddiff_utils.datasets.nsd import layout as nsd
from minddiff_utils.datasets.nsd.data_set import OfNsd
from minddiff_utils.datasets.nsd.publisher import NSD
from minddiff_utils.datasets.protocol import Trials, Units, UnitSet, units_of
from minddiff_utils.datasets.published import Published
from minddiff_utils.datasets.visual_areas import ROI_LABELS, assign_areas

__all__ = ["Algonauts"]

_LABELS = {
    name: {label: value for value, label in enumerate(labels, start=1)}
    for name, labels in {**ROI_LABELS, **layout.ROIS}.items()
}

_WHERE = (
    "name the folder that holds subj01 to subj08 of the Algonauts 2023 release "
    "(--nsd-root), or unpack the release there"
)
_AGAIN = "compare it with the Algonauts 2023 release and download it again"
_RELEASE = Published(_WHERE, _AGAIN)
_FROM_NSD = (
    "download it from NSD's bucket, where it has the same path from nsddata on, or name"
    " the right folder (--nsd-root)"
)


@dataclass(frozen=True)
class Algonauts(OfNsd):
    """The release below the root of NSD's files that it needs."""

    name: str = "algonauts"
    are_averaged: bool = True

    def file(self, kind: str, subject: int, **names: str) -> Path:
        """Return a file of the inventory."""
        check_choice(subject, range(1, 9), "subject")
        return find(self.tree.root, layout.path(kind, subject, **names))

    def files(
        self, subject: int, sessions: Sequence[int], units: UnitSet
    ) -> tuple[Path, ...]:
        """Return the files there are of those that are read, images aside.

        Of images, thousands, only the names say what a row is; they are read when the
        rows are.
        """
        files = (f for f in layout.inventory(subject) if f.notebook == "01")
        return there(self.tree.root, files)

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
        if not self._has_ncsnr(subject):
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
        return np.array(list(self._images(subject)), np.int64)

    def check(self, subject: int, sessions: Sequence[int]) -> None:
        """Raise DataError unless names, table, design, arrays and masks agree."""
        ids = self.image_ids(subject)
        self.n_repeats(subject, ids)
        self.place(subject, ids)
        self._check_masks(subject)
        for h in HEMISPHERES:
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

    def images(self, image_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return the images, (n, 425, 425, 3), in the order asked."""
        known = self._every_image
        images = np.empty((len(image_id), nsd.IMAGE_SIZE, nsd.IMAGE_SIZE, 3), np.uint8)
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
        grid, owner = (len(HEMISPHERES), nsd.N_FSAVERAGE), f"subject {subject}"
        ncsnr = self._ncsnr(subject, position)
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
        known = dict[int, Path]()
        for subject in range(1, 9):
            if is_there(self._folder(subject)):
                known |= self._images(subject)
        return known

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
            own = np.flatnonzero(_read_mask(path, nsd.N_FSAVERAGE, 1))
            if not len(own):
                raise _RELEASE.wrong(path, "no vertex", "thousands")
            vertices[h] = own
        n = tuple(map(len, vertices.values()))
        if n == layout.N_VERTICES[subject][::-1] and n[0] != n[1]:
            raise DataError(
                f"The masks all-vertices of subject {subject} mark {n[0]} left and "
                f"{n[1]} right vertices, but the release has them the other way "
                "round: name the hemispheres as released."
            )
        return vertices

    def _check_masks(self, subject: int) -> None:
        """Raise DataError unless all masks that are there fit the columns."""
        for h, vertices in self._vertices(subject).items():
            for roi, labels in layout.ROIS.items():
                path = self.file("roi", subject, h=h, roi=roi)
                if roi == "prf-visualrois" or is_there(path):
                    _read_mask(path, len(vertices), len(labels))

    def _fmri(self, subject: int, h: Hemisphere) -> Matrix:
        """Return a hemisphere's responses, left on disk; rows and columns fit."""
        path = self.file("fmri", subject, h=h)
        values, n_images = _read_fmri(path), len(self._images(subject))
        sides = {side: len(own) for side, own in self._vertices(subject).items()}
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

    def _areas(self, subject: int, h: Hemisphere, vertices: IntArray) -> IntArray:
        """Return each vertex's area as an index into `AREAS`, -1 where none.

        As in volumes, what was drawn on the subject overrides the atlas.
        """
        path = self.file("kastner", subject, h=h)
        atlas = NSD.labels(path, _read_surface(path, "Kastner2015"))
        names = _LABELS["Kastner2015"]
        NSD.check_labels(path, atlas, names.values(), "a label up to 25")
        prf = self.file("roi", subject, h=h, roi="prf-visualrois")
        drawn = _read_mask(prf, len(vertices), len(layout.ROIS["prf-visualrois"]))
        return assign_areas(atlas[vertices], names, drawn, _LABELS["prf-visualrois"])

    def _has_ncsnr(self, subject: int) -> bool:
        """Return whether NSD's files of both hemispheres are there."""
        paths = (self.file("ncsnr", subject, h=h) for h in HEMISPHERES)
        return all(map(is_there, paths))

    def _ncsnr(self, subject: int, position: npt.NDArray[np.int32]) -> Matrix | None:
        """Return NSD's noise-ceiling SNR of each vertex, None where it is not there."""
        if not self._has_ncsnr(subject):
            return None
        paths = [self.file("ncsnr", subject, h=h) for h in HEMISPHERES]
        sides = [NSD.ncsnr(p, _read_surface(p, "Noise ceiling")) for p in paths]
        return np.asarray(np.stack(sides)[tuple(position.T)], np.float32)


# --- single files ---------------------------------------------------------------------


def _read_fmri(path: Path) -> Matrix:
    """Return a hemisphere's responses, (n_images, n_vertices), left on disk."""
    values = _RELEASE.array(path, "Responses", mmap_mode="r")
    _RELEASE.check_array(path, values, "float32", ("images", "vertices"))
    return values


def _read_mask(path: Path, n: int, most: int) -> IntArray:
    """Return a mask of `n` vertices, whose values are 0 to `most`."""
    values = _RELEASE.array(path, "Mask")
    _RELEASE.check_array(path, values, "numbers", (n,))
    return _RELEASE.whole(path, values, "the mask", 0, most)


def _read_surface(path: Path, what: str) -> npt.NDArray[np.float32]:
    """Return one number per vertex of fsaverage, from a file of NSD."""
    check_exists(path, what, _FROM_NSD)
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
    check_exists(folder, "Training images", _WHERE)
    with reading(folder, DataError, remedy=_AGAIN):
        pictures = [p for p in folder.iterdir() if p.suffix.lower() == ".png"]
    found, images, last = list[tuple[int, int, Path]](), dict[int, Path](), -1
    for path in sorted(p for p in pictures if not p.name.startswith(".")):
        name = layout.IMAGE_NAME.fullmatch(path.name)
        if name is None:
            raise DataError(
                f"{path} is no name of the release, as train-0001_nsd-00013.png is: "
                "leave the files as they were unpacked."
            )
        rank, nsd_id = int(name[1]), int(name[2])
        if nsd_id >= nsd.N_IMAGES:
            words = f"image {nsd_id} by its name"
            raise _RELEASE.wrong(path, words, f"0 to {nsd.N_IMAGES - 1}")
        found.append((rank, nsd_id, path))
    if not found:
        raise _RELEASE.wrong(folder, "no image", "train-0001_nsd-NNNNN.png and others")
    for place, (rank, nsd_id, path) in enumerate(sorted(found), start=1):
        if rank != place:
            odd = f"no image of rank {place}"
            words = odd if rank > place else f"an image too many of rank {rank}"
            raise _RELEASE.wrong(folder, words, "ranks from 1, each once")
        if nsd_id <= last:
            words = f"an id out of order at rank {rank}"
            raise _RELEASE.wrong(folder, words, "ascending ids")
        images[nsd_id] = path
        last = nsd_id
    return images


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return one image, (425, 425, 3) uint8."""
    with _RELEASE.reading(path, "Image"), Image.open(path) as picture:
        mode, size = picture.mode, picture.size
        pixels = np.asarray(picture)
    if mode != "RGB" or size != (nsd.IMAGE_SIZE, nsd.IMAGE_SIZE):
        found = f"a picture of {size[0]} x {size[1]} px ({mode})"
        raise _RELEASE.wrong(
            path, found, f"{nsd.IMAGE_SIZE} x {nsd.IMAGE_SIZE} px (RGB)"
        )
    return pixels
