"""The reader of NSD's files: from files to arrays, from 1-based to 0-based, once.

It refuses files that are missing, truncated or of the wrong kind, prepares nothing and
writes nothing. Where the files lie stands in `layout`.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core import errors
from minddiff_utils.core.errors import DataError, check_choice, check_shape
from minddiff_utils.core.provenance import MARK, origin_of
from minddiff_utils.core.types import IntArray, Mask, Matrix
from minddiff_utils.datasets import surfaces, visual_areas
from minddiff_utils.datasets.coco import read_captions
from minddiff_utils.datasets.inventory import (
    Anatomy,
    Hemisphere,
    find,
    is_there,
    sides_of,
    there,
)
from minddiff_utils.datasets.nsd import experiment, layout
from minddiff_utils.datasets.nsd.betas import read_betas
from minddiff_utils.datasets.nsd.layout import Container
from minddiff_utils.datasets.nsd.publisher import NSD
from minddiff_utils.datasets.nsd.space import check_space
from minddiff_utils.datasets.protocol import (
    Trials,
    UnitSet,
    first_captions,
    sessions_within,
)

__all__ = ["NsdTree"]

logger = logging.getLogger(__name__)


# --- the tree -----------------------------------------------------------------------


@dataclass(frozen=True)
class NsdTree:
    """NSD's folder at `root` (or an in-silico one of the same layout), read-only."""

    root: Path
    betas_version: str = layout.BETAS_VERSIONS[0]

    # Files

    def file(
        self, kind: str, subject: Anatomy | None = None, **names: str | int
    ) -> Path:
        """Return the file of the inventory, in whatever form it is there.

        The path as NSD publishes it where it is not; `kind` and `names` as in
        `layout.FILES`.
        """
        path = layout.path_of(kind, subject, version=self.betas_version, **names)
        return find(self.root, path)

    def betas_folder(self, subject: int) -> Path:
        """Return the folder of a subject's betas."""
        path = layout.path_of("ncsnr", subject, version=self.betas_version)
        return find(self.root, Path(path).parent)

    def inputs(
        self,
        notebook: str,
        subjects: Sequence[int],
        sessions: Sequence[int],
        voxels: UnitSet = "areas",
    ) -> tuple[Path, ...]:
        """Return the files there are of those that a notebook reads, in any form.

        Where a folder holds both containers of a session's betas, both count: the one
        stands in for the other. So do the mark of a simulation and its second test set.

        Parameters
        ----------
        notebook : str
            "01", or "06", which draws maps of the cortex.
        subjects, sessions, voxels
            As the profile has them.
        """
        asked = dict.fromkeys(subjects, sessions)
        every = layout.inventory(asked, self.betas_version, layout.CONTAINERS)
        files = (file for file in every if file.notebook == notebook)
        if voxels != "nsdgeneral":
            files = (f for f in files if f.names.get("name") != "nsdgeneral")
        beside = (self.root / MARK, self.root / layout.SECOND_TEST_SET)
        return tuple(sorted((*there(self.root, files), *filter(is_there, beside))))

    def files(self) -> tuple[Path, ...]:
        """Return every file of the tree, sorted."""
        paths = (p for name in layout.PARTS for p in (self.root / name).rglob("*"))
        return tuple(sorted(p for p in paths if p.is_file()))

    # Experiment

    def design(self) -> experiment.Design:
        """Return the experiment's design with 0-based indices."""
        return experiment.read_design(self.file("design"))

    def trials(self, subject: int, n_sessions: int) -> Trials:
        """Return what `subject` saw in the first `n_sessions` sessions.

        Images are numbered by `nsd_id`, and an image's place is its 10k index.
        """
        check_choice(subject, range(1, 9), "subject")
        check_choice(n_sessions, range(1, layout.N_SESSIONS + 1), "n_sessions")
        design = self.design()
        order = design.order[: n_sessions * layout.N_TRIALS]
        session = np.repeat(np.arange(1, n_sessions + 1), layout.N_TRIALS)
        return Trials(session, design.images[subject - 1, order], order)

    def second_test_set(self) -> IntArray:
        """Return the shared images, by nsd_id, that form a test set of their own.

        None in the real NSD.

        Raises
        ------
        DataError
            The table is damaged, or names an image that is not shared.
        """
        path = self.root / layout.SECOND_TEST_SET
        if not is_there(path):
            return np.zeros(0, np.int64)
        table = NSD.numbers(path, "Second test set", ["nsdId"])
        nsd_id = table["nsdId"].to_numpy(np.int64)
        if not np.isin(nsd_id, self.design().images[0, : layout.N_SHARED]).all():
            raise NSD.wrong(path, "an image that is not shared", "shared images")
        return nsd_id

    def shared_images(self) -> IntArray:
        """Return the `nsd_id` of the images that all subjects share, by the table."""
        path = self.file("table")
        shared = self.stim_info("shared1000")["shared1000"]
        if shared.dtype != bool:
            found = "words or gaps in the column shared1000"
            raise NSD.wrong(path, found, "True or False")
        ids = np.flatnonzero(shared)
        if len(ids) != layout.N_SHARED:
            raise NSD.wrong(path, f"{len(ids)} shared images", f"{layout.N_SHARED}")
        return ids

    def stim_info(self, *columns: str) -> pd.DataFrame:
        """Return the table of the 73,000 stimuli, which has the `columns` at least."""
        return experiment.read_table(self.file("table"), columns)

    def stimuli(self, nsd_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return the images `nsd_id`, (n, 425, 425, 3) uint8, in the order asked."""
        return experiment.read_stimuli(self.file("stimuli"), nsd_id)

    def captions(self, nsd_id: IntArray, n_captions: int) -> npt.NDArray[np.object_]:
        """Return the first `n_captions` COCO captions of each image, (n, n_captions).

        Captions are ordered by annotation id and joined by cocoId.

        Raises
        ------
        DataError
            A caption file is missing or damaged, or an image has too few captions.
        """
        info = self.stim_info("cocoId", "cocoSplit")
        info = info.iloc[np.asarray(nsd_id, np.int64)]
        files = {s: self.file("captions", split=s) for s in set(info["cocoSplit"])}
        known = {split: read_captions(NSD, path) for split, path in files.items()}
        images = list(zip(info["cocoId"], info["cocoSplit"], strict=True))
        texts = [known[split].get(int(coco_id), []) for coco_id, split in images]
        names = [f"image cocoId {n} in {files[split]}" for n, split in images]
        return first_captions(texts, names, n_captions)

    def captions_of(self, split: str) -> dict[int, list[str]]:
        """Return the captions of COCO's `split` by cocoId, ordered by their ids."""
        return read_captions(NSD, self.file("captions", split=split))

    def responses(self, subject: int) -> pd.DataFrame:
        """Return the behavioural table, one row per trial, ids 1-based as stored."""
        path, columns = self.file("responses", subject), ("SESSION", "73KID", "10KID")
        return NSD.numbers(path, "Behavioural responses", columns, "\t")

    # Volumes

    def sessions(self, subject: int) -> tuple[int, ...]:
        """Return the sessions whose betas are present, in either container."""
        folder = self.betas_folder(subject)
        try:
            held = set(map(layout.session_of, folder.iterdir()))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise DataError(f"{folder} {errors.read_trouble(error)}.") from error
        return tuple(sorted({known[0] for known in held if known and known[0]}))

    @property
    def is_real(self) -> bool:
        """Return whether no simulation marked the folder as its own."""
        return origin_of(self.root) == "measured"

    def sessions_of(self, subject: int, asked: Sequence[int]) -> tuple[int, ...]:
        """Return those of the sessions `asked` (1-based, ascending) that `subject` has.

        Not every subject of NSD came to all 40. An in-silico subject has those that
        are there, where all 40 are asked for, and else at least as many as NSD's.

        Raises
        ------
        DataError
            The subject has none of them.
        """
        most = layout.FACTS[subject].n_sessions
        if not self.is_real:
            last = max(self.sessions(subject), default=0)
            most = last if last and asked[-1] == layout.N_SESSIONS else max(most, last)
        return sessions_within(subject, asked, most)

    def check_sessions(self, subject: int, sessions: Collection[int]) -> None:
        """Raise DataError unless `sessions` (1-based numbers) are all present."""
        missing = sorted(set(sessions) - set(self.sessions(subject)))
        if missing:
            listed = ", ".join(map(str, missing))
            folder = self.betas_folder(subject)
            most = layout.FACTS[subject].n_sessions
            known = f" (NSD has {most} of this subject)" if missing[-1] > most else ""
            raise DataError(
                f"Subject {subject} lacks the betas of session {listed} in {folder}"
                f"{known}: {NSD.source(folder)}, or lower data.sessions."
            )

    def betas(
        self,
        subject: int,
        session: int,
        mask: Mask,
        form: Container | None = None,
    ) -> npt.NDArray[np.int16]:
        """Return one session's stored betas at `mask`, (750, n_voxels) int16.

        Columns follow `voxel_indices(mask)`; `to_percent` gives percent signal change.
        Both containers hold the same numbers; hdf5 is read where there is one, and
        nii.gz in its place where it is damaged, unless `form` asks for one of them.

        Raises
        ------
        DataError
            The file is missing, truncated, or of the wrong shape or dtype.
        """
        path = self.betas_file(subject, session, form)
        try:
            self.check_space(subject, path)
            return read_betas(path, mask)
        except DataError as error:
            other = self.betas_file(subject, session, "nii.gz")
            if form is not None or path == other or not is_there(other):
                raise
            logger.warning("%s %s is read in its place", error, other.name)
        return self.betas(subject, session, mask, "nii.gz")

    def betas_file(
        self, subject: int, session: int, form: Container | None = None
    ) -> Path:
        """Return the file that `betas` reads."""
        hdf5, packed = (
            self.file("betas", subject, session=session, form=each)
            for each in layout.CONTAINERS
        )
        if form is None:
            return packed if is_there(packed) > is_there(hdf5) else hdf5
        return packed if form == "nii.gz" else hdf5

    def _volume(self, subject: int, path: Path, what: str) -> npt.NDArray[Any]:
        """Return a volume as it is stored, which lies where the others do."""
        values = NSD.volume(path, what)
        self.check_space(subject, path)
        check_shape(values.shape, (None, None, None), f"{what} {path}")
        return values

    def brainmask(self, subject: int) -> Mask:
        """Return NSD's liberal brain mask, (X, Y, Z) bool."""
        path = self.file("brainmask", subject)
        labels = NSD.labels(path, self._volume(subject, path, "Brain mask"))
        if not 0 <= labels.min() <= labels.max() == 1:
            raise NSD.wrong(path, f"{labels.min()} to {labels.max()}", "0 and 1")
        return np.asarray(labels > 0)

    def check_space(self, subject: int, path: Path) -> None:
        """Raise DataError unless a volume lies where the subject's others do.

        It is compared with the first of ncsnr, brain mask and Kastner2015 that is
        there; betas as hdf5, which state no space, by the order of the axes.
        """
        roi = self.file("roi", subject, name="Kastner2015")
        known = (self.file("ncsnr", subject), self.file("brainmask", subject), roi)
        check_space(path, known)

    def has_ncsnr(self, subject: int) -> bool:
        """Return whether there is a file of ncsnr, which trials can stand in for."""
        return is_there(self.file("ncsnr", subject))

    def ncsnr(self, subject: int) -> Matrix:
        """Return NSD's noise-ceiling SNR, (X, Y, Z) float32; NaN where not known."""
        path = self.file("ncsnr", subject)
        values = self._volume(subject, path, "Noise-ceiling SNR")
        if values.dtype.kind != "f":
            raise NSD.wrong(path, f"{values.dtype} values", "float32")
        return NSD.ncsnr(path, values)

    def roi(self, subject: int, name: str) -> IntArray:
        """Return a label volume: -1 not cortex, 0 cortex without label, 1..N labels.

        Raises
        ------
        DataError
            The file is missing or damaged, or a value is no label.
        """
        halves: list[IntArray] = []
        for path in sides_of(self.root, layout.path_of("roi", subject, name=name)):
            values = self._volume(subject, path, f"Region volume {name}")
            shape = halves[0].shape if halves else values.shape
            check_shape(values.shape, shape, f"Region volume {path}")
            halves.append(NSD.labels(path, values))
        labels: IntArray = np.maximum.reduce(halves)  # -1 in the other hemisphere
        table = self.file("labels", subject, name=name)
        expected = f"a label of {table.name}" if table.exists() else "a label"
        known = self.roi_labels(subject, name).values()
        NSD.check_labels(path, labels, known, expected)
        return labels

    def roi_labels(self, subject: int, name: str) -> dict[str, int]:
        """Return label name -> value, from the folder's colour table where it exists.

        Raises
        ------
        DataError
            The table is damaged, or lacks labels that the areas are made of.
        """
        path = self.file("labels", subject, name=name)
        if not is_there(path) and name in visual_areas.ROI_LABELS:
            return dict(visual_areas.ROI_LABELS[name])
        with NSD.reading(path, f"Colour table of {name}"):
            labels = visual_areas.read_labels(path.read_text("utf-8-sig"))
        needed = visual_areas.NEEDED_LABELS.get(name, ())
        lacking = [label for label in needed if label not in labels]
        if lacking:
            held = ", ".join(labels)[:200] or "no label at all"
            expected = f"a label {', '.join(lacking)}"
            raise NSD.wrong(path, held, f"{expected}, spelled so,")
        return labels

    def areas(self, subject: int) -> IntArray:
        """Return each voxel's area as an index into `core.areas.AREAS`, -1 outside."""
        names = ("Kastner2015", "prf-visualrois")
        atlas, drawn = (
            (self.roi(subject, name), self.roi_labels(subject, name)) for name in names
        )
        return visual_areas.assign_areas(*atlas, *drawn)

    # Surfaces

    def transform(
        self, subject: int, hemisphere: Hemisphere, surface: str = "layerB2"
    ) -> npt.NDArray[np.float64]:
        """Return the functional-volume coordinate of each vertex, (n_vertices, 3).

        0-based voxel-centre indices in array order; NaN where NSD has no data (9999).
        """
        path = self.file("transform", subject, h=hemisphere, depth=surface)
        values = NSD.volume(path, "Surface transform").astype(np.float64)
        check_shape(values.shape, (None, 1, 1, 3), f"Surface transform {path}")
        values = values.reshape(-1, 3)
        values[(values == layout.NO_DATA).any(axis=1)] = np.nan
        return values - 1.0  # 1-based in the file

    def from_fsaverage(self, subject: int, hemisphere: Hemisphere) -> IntArray:
        """Return the subject's vertex nearest to each fsaverage vertex, 0-based.

        `values[from_fsaverage]` brings a map of the subject to the group surface.
        """
        path = self.file("to_fsaverage", subject, h=hemisphere)
        values = NSD.volume(path, "Surface transform")
        check_shape(values.shape, (None, 1, 1), f"Surface transform {path}")
        index = NSD.labels(path, values).ravel() - 1
        if index.min() < 0:
            raise NSD.wrong(path, "an index below 1", "1-based vertices")
        return index

    def surface(
        self, subject: Anatomy, hemisphere: Hemisphere, kind: str = "inflated"
    ) -> tuple[npt.NDArray[np.float64], IntArray]:
        """Return vertices (n_vertices, 3) mm and faces (n_faces, 3), 0-based."""
        path = self.file("surface", subject, h=hemisphere, surface=kind)
        with NSD.reading(path, "Surface"):
            return surfaces.read_mesh(path)

    def flat_patch(
        self, subject: Anatomy, hemisphere: Hemisphere
    ) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Return the flat map's vertices (n,), 0-based, and positions (n, 3), mm.

        Vertices of the medial wall and along the cuts are not in it.
        """
        path = self.file("surface", subject, h=hemisphere, surface="full.flat.patch.3d")
        with NSD.reading(path, "Flat map"):
            return surfaces.read_patch(path)

    def surface_values(
        self, subject: Anatomy, hemisphere: Hemisphere, kind: str = "sulc"
    ) -> Matrix:
        """Return one number per vertex, (n_vertices,), such as sulcal depth."""
        path = self.file("surface", subject, h=hemisphere, surface=kind)
        with NSD.reading(path, "Surface values"):
            return surfaces.read_per_vertex(path)
