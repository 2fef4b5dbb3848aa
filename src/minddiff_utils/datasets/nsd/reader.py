"""The reader of NSD's folder layout: the only module that knows NSD's file names.

It turns files into arrays and 1-based ids into 0-based ones, once, and refuses files
that are missing, truncated or of the wrong kind. It prepares nothing (`prep` does) and
writes nothing. Place in the flow: layer 4, the first step of notebook 01.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import (
    DataError,
    check_choice,
    check_shape,
    read_trouble,
)
from minddiff_utils.core.provenance import MARK, origin_of
from minddiff_utils.datasets.nsd.betas import (
    read_betas_hdf5,
    read_betas_nii,
    voxel_indices,
)
from minddiff_utils.datasets.nsd.facts import FACTS, N_SESSIONS, N_TRIALS
from minddiff_utils.datasets.nsd.files import (
    dataset,
    first_volume,
    guard,
    open_hdf5,
    read_volume,
    source,
    to_labels,
    wrong,
)
from minddiff_utils.datasets.nsd.formats import (
    load_image,
    read_mat,
    read_mesh,
    read_per_vertex,
)
from minddiff_utils.datasets.nsd.forms import find, is_there, session_of, sides_of
from minddiff_utils.datasets.nsd.space import check_axes, check_same_space
from minddiff_utils.datasets.nsd.text import (
    NEEDED_LABELS,
    ROI_LABELS,
    read_captions,
    read_labels,
)

__all__ = [
    "BETA_SCALE",
    "N_IMAGES",
    "N_IMAGES_SUBJECT",
    "N_SHARED",
    "N_TRIALS",
    "ROI_LABELS",
    "Container",
    "Design",
    "NsdTree",
    "Trials",
    "check_trials",
    "to_percent",
    "voxel_indices",
]

logger = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Hemisphere = Literal["lh", "rh"]
#: A subject, or the group surface.
Anatomy = int | Literal["fsaverage"]
Container = Literal["auto", "hdf5", "nii.gz"]
VoxelSet = Literal["areas", "nsdgeneral"]

#: int16 units per percent signal change in every beta file (NSD `export.m`).
BETA_SCALE = 300
#: Images of the experiment, images per subject, images shared by all subjects.
N_IMAGES = 73_000
N_IMAGES_SUBJECT = 10_000
N_SHARED = 1_000
#: "No data" in NSD's coordinate files.
NO_DATA = 9999

#: Label volumes of the areas, and what maps are drawn on.
_AREA_VOLUMES = ("Kastner2015", "prf-visualrois")
_SURFACES = ("white", "inflated", "sulc", "full.flat.patch.3d")
#: COCO's parts, whose captions are read.
_SPLITS = ("train2017", "val2017")


@dataclass(frozen=True)
class Design:
    """The experiment's design, 0-based.

    Attributes
    ----------
    order : (30000,) int64
        10k index, 0..9999, of every trial in time order; the same for all subjects.
    images : (8, 10000) int64
        `nsd_id`, 0..72999, of each subject's 10k images; the first 1000 are shared.
    """

    order: IntArray
    images: IntArray


@dataclass(frozen=True)
class Trials:
    """What one subject saw, trial by trial, in time order; every index 0-based.

    Attributes
    ----------
    session : (n_trials,) int64
        Session number, 1-based as in NSD's file names.
    image_10k : (n_trials,) int64
        The subject's own image index, 0..9999; below 1000 for shared images.
    nsd_id : (n_trials,) int64
        The experiment's image index, 0..72999: the row of stimuli and of the csv.
    """

    session: IntArray
    image_10k: IntArray
    nsd_id: IntArray

    @property
    def shared(self) -> Mask:
        """Return which trials showed an image that all subjects share (test)."""
        return np.asarray(self.image_10k < N_SHARED)

    def of(self, sessions: Collection[int]) -> "Trials":
        """Return the trials of `sessions` alone, still in time order."""
        rows = np.isin(self.session, list(sessions))
        return Trials(self.session[rows], self.image_10k[rows], self.nsd_id[rows])


def to_percent(raw: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return stored betas as percent signal change, float32.

    >>> to_percent(np.array([300, -150], np.int16)).tolist()
    [1.0, -0.5]
    """
    return raw.astype(np.float32) / np.float32(BETA_SCALE)


# --- checks ------------------------------------------------------------------------


def _design_array(
    raw: dict[str, Any], name: str, shape: tuple[int, ...], path: Path
) -> IntArray:
    if name not in raw:
        raise wrong(path, "no variable " + repr(name), "NSD's experimental design")
    values = np.asarray(raw[name])
    check_shape(values.shape, shape, f"{name} in {path}")
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise wrong(path, f"no numbers or fractions in {name}", "1-based indices")
    as_int = values.astype(np.int64)  # MATLAB's uint16 would wrap below zero
    if not np.array_equal(as_int, values) or as_int.min() < 1:
        raise wrong(path, f"values below 1 or fractions in {name}", "1-based indices")
    return as_int


def _check_whole(
    table: pd.DataFrame, columns: Collection[str], path: Path, what: str
) -> None:
    """Raise DataError unless the columns hold numbers, and none is missing."""
    for name in columns:
        if table[name].dtype.kind not in "iuf" or table[name].isna().any():
            raise wrong(path, f"words or gaps in the column {name}", what)


# --- the tree -----------------------------------------------------------------------


@dataclass(frozen=True)
class NsdTree:
    """NSD's folder at `root` (or an in-silico one of the same layout), read-only."""

    root: Path
    betas_version: str = "betas_fithrf_GLMdenoise_RR"

    # Paths

    def experiment_file(self, name: str) -> Path:
        """Return the file `name` of the experiment's design."""
        return find(self.root / "nsddata" / "experiments" / "nsd" / name)

    def func_folder(self, subject: int) -> Path:
        """Return the folder of a subject's volumes at 1.8 mm."""
        return self.subject_folder(subject) / "func1pt8mm"

    def subject_folder(self, subject: int) -> Path:
        """Return a subject's folder of processed data."""
        return self.root / "nsddata" / "ppdata" / f"subj{subject:02d}"

    def freesurfer_folder(self, subject: Anatomy, folder: str) -> Path:
        """Return a folder of a subject's surfaces, or fsaverage's."""
        name = subject if isinstance(subject, str) else f"subj{subject:02d}"
        return self.root / "nsddata" / "freesurfer" / name / folder

    def stimuli_folder(self) -> Path:
        """Return the folder of the images and their captions."""
        return self.root / "nsddata_stimuli" / "stimuli" / "nsd"

    def captions_file(self, split: str) -> Path:
        """Return COCO's file of the captions of `split`, such as val2017."""
        return find(self.stimuli_folder() / "annotations" / f"captions_{split}.json")

    def betas_folder(self, subject: int) -> Path:
        """Return the folder of a subject's betas."""
        ppdata = self.root / "nsddata_betas" / "ppdata" / f"subj{subject:02d}"
        return ppdata / "func1pt8mm" / self.betas_version

    def inputs(
        self, subject: int, sessions: Collection[int], voxels: VoxelSet = "areas"
    ) -> tuple[Path, ...]:
        """Return the files there are of those that notebook 01 reads, in any form.

        Where a folder holds both containers of a session's betas, both count: the one
        stands in for the other.
        """
        areas = [*_AREA_VOLUMES, *(("nsdgeneral",) if voxels == "nsdgeneral" else ())]
        betas, func = self.betas_folder(subject), self.func_folder(subject)
        labels = self.freesurfer_folder(subject, "label")
        stimuli = self.stimuli_folder()
        named = [
            self.root / MARK,  # whether they were measured
            self.experiment_file("nsd_expdesign.mat"),
            self.experiment_file("nsd_stim_info_merged.csv"),
            stimuli / "nsd_stimuli.hdf5",
            *(stimuli / "annotations" / f"captions_{s}.json" for s in _SPLITS),
            self.subject_folder(subject) / "behav" / "responses.tsv",
            func / "brainmask.nii.gz",
            betas / "ncsnr.nii.gz",
            *(labels / f"{area}.mgz.ctab" for area in _AREA_VOLUMES),
            *(
                betas / f"betas_session{session:02d}.{form}"
                for session in sessions
                for form in ("hdf5", "nii.gz")
            ),
        ]
        found = [*map(find, named)]
        for area in areas:
            found += sides_of(func / "roi" / f"{area}.nii.gz")
        return tuple(sorted({path for path in found if is_there(path)}))

    def files(self) -> tuple[Path, ...]:
        """Return every file of the tree, sorted."""
        folders = ("nsddata", "nsddata_betas", "nsddata_stimuli")
        found = (p for name in folders for p in (self.root / name).rglob("*"))
        return tuple(sorted(p for p in found if p.is_file()))

    def map_inputs(self, subject: int) -> tuple[Path, ...]:
        """Return the files there are of those from which notebook 06 draws maps."""
        folder = self.subject_folder(subject) / "transforms"
        surfaces = self.freesurfer_folder(subject, "surf")
        named = [
            path
            for h in ("lh", "rh")
            for path in (
                *(folder / f"{h}.func1pt8-to-layerB{k}.mgz" for k in (1, 2, 3)),
                folder / f"{h}.white-to-fsaverage.mgz",
                *(surfaces / f"{h}.{kind}" for kind in _SURFACES),
            )
        ]
        found = map(find, named)
        return tuple(sorted({path for path in found if is_there(path)}))

    # Experiment

    def design(self) -> Design:
        """Return the experiment's design with 0-based indices.

        Raises
        ------
        DataError
            The file is missing, damaged, or not NSD's design.
        """
        path = self.experiment_file("nsd_expdesign.mat")
        with guard(path, "Experimental design"):
            raw = read_mat(path, ("masterordering", "subjectim", "sharedix"))
        n_order = 40 * N_TRIALS
        order = _design_array(raw, "masterordering", (1, n_order), path)[0] - 1
        images = _design_array(raw, "subjectim", (8, N_IMAGES_SUBJECT), path) - 1
        shared = _design_array(raw, "sharedix", (1, N_SHARED), path)[0] - 1
        if order.max() >= N_IMAGES_SUBJECT or images.max() >= N_IMAGES:
            raise wrong(path, "indices beyond the last image", "NSD's design")
        if not (images[:, :N_SHARED] == shared).all():
            raise wrong(path, "subjects with other shared images", "the same 1000")
        return Design(order, images)

    def trials(self, subject: int, n_sessions: int) -> Trials:
        """Return what `subject` saw in the first `n_sessions` sessions."""
        check_choice(subject, range(1, 9), "subject")
        check_choice(n_sessions, range(1, 41), "n_sessions")
        design = self.design()
        order = design.order[: n_sessions * N_TRIALS]
        session = np.repeat(np.arange(1, n_sessions + 1), N_TRIALS)
        return Trials(session, order, design.images[subject - 1, order])

    def stim_info(self, *columns: str) -> pd.DataFrame:
        """Return the table of the 73,000 stimuli, row = `nsd_id` (0-based).

        Raises
        ------
        DataError
            The file is missing or damaged, or one of `columns` is not in it or holds
            something else.
        """
        path = self.experiment_file("nsd_stim_info_merged.csv")
        with guard(path, "Stimulus table"):
            table = pd.read_csv(path, index_col=0)
        lacking = ", ".join(n for n in (*columns, "nsdId") if n not in table)
        if lacking:
            raise wrong(path, f"no column {lacking}", "NSD's stimulus table")
        check_shape(table.shape, (N_IMAGES, None), f"Stimulus table {path}")
        _check_whole(table, set(columns) - {"cocoSplit", "shared1000"}, path, "numbers")
        if "cocoSplit" in columns and table["cocoSplit"].isna().any():
            raise wrong(path, "gaps in the column cocoSplit", "train2017 or val2017")
        if not np.array_equal(table["nsdId"], np.arange(N_IMAGES)):
            raise wrong(path, "rows out of order", "row r to describe nsdId r")
        return table

    def stimuli(self, nsd_id: IntArray) -> npt.NDArray[np.uint8]:
        """Return the images `nsd_id`, (n, 425, 425, 3) uint8 RGB, in the order asked.

        Raises
        ------
        DataError
            The file is missing, damaged, of another kind, or lacks an image.
        """
        path = find(self.stimuli_folder() / "nsd_stimuli.hdf5")
        with guard(path, "Stimuli"), open_hdf5(path) as file:
            bricks = dataset(file, "imgBrick", path)
            check_shape(bricks.shape, (None, None, None, 3), f"imgBrick in {path}")
            if bricks.dtype != np.uint8:
                raise wrong(path, f"{bricks.dtype} images", "uint8")
            if bricks.shape[1] != bricks.shape[2]:
                sides = f"{bricks.shape[1]} x {bricks.shape[2]}"
                raise wrong(path, f"images of {sides} px", "squares")
            wanted = np.asarray(nsd_id, np.int64)
            if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(bricks):
                raise DataError(
                    f"nsd_id must lie in 0..{len(bricks) - 1}, the images of {path}, "
                    f"but spans {wanted.min()}..{wanted.max()}."
                )
            images = np.empty((len(wanted), *bricks.shape[1:]), np.uint8)
            for row in np.argsort(wanted, kind="stable"):  # in the file's own order
                images[row] = bricks[wanted[row]]
        return images

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
        splits = sorted(set(info["cocoSplit"]))
        known = {split: self.captions_of(split) for split in splits}
        rows = []
        for coco_id, split in zip(info["cocoId"], info["cocoSplit"], strict=True):
            found = known[split].get(int(coco_id), [])
            if len(found) < n_captions:
                raise DataError(
                    f"Image cocoId {coco_id} has {len(found)} captions in "
                    f"{self.captions_file(split)}, but {n_captions} are asked for: use "
                    "COCO's 2017 captions, or lower features.n_captions."
                )
            rows.append(found[:n_captions])
        return np.array(rows, dtype=object).reshape(len(rows), n_captions)

    def captions_of(self, split: str) -> dict[int, list[str]]:
        """Return the captions of COCO's `split` by cocoId, in the order of their ids.

        Raises
        ------
        DataError
            The file is missing, or no file of captions.
        """
        path = self.captions_file(split)
        with guard(path, "COCO captions"):
            raw = json.loads(path.read_text(encoding="utf-8"))
        try:
            return read_captions(raw)
        except ValueError as error:
            raise wrong(path, str(error), "COCO's caption annotations") from error

    def responses(self, subject: int) -> pd.DataFrame:
        """Return the behavioural table, one row per trial, ids 1-based as stored."""
        path = find(self.subject_folder(subject) / "behav" / "responses.tsv")
        with guard(path, "Behavioural responses"):
            table = pd.read_csv(path, sep="\t")
        lacking = {"SESSION", "73KID", "10KID"} - set(table.columns)
        if lacking:
            raise wrong(path, f"no column {lacking.pop()}", "NSD's responses")
        _check_whole(table, ["SESSION", "73KID", "10KID"], path, "numbers")
        return table

    # Volumes

    def sessions(self, subject: int) -> tuple[int, ...]:
        """Return the sessions whose betas are present, in either container."""
        folder = self.betas_folder(subject)
        try:
            held = {session_of(path) for path in find(folder).iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise DataError(f"{folder} {read_trouble(error)}.") from error
        return tuple(sorted(held - {0}))

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
        most = FACTS[subject].n_sessions
        if not self.is_real:
            last = max(self.sessions(subject), default=0)
            most = last if last and asked[-1] == N_SESSIONS else max(most, last)
        found = tuple(session for session in asked if session <= most)
        if not found:
            raise DataError(
                f"Subject {subject} has {most} sessions, but of these none is asked for"
                f" ({', '.join(map(str, asked))}): change data.only_sessions, or leave"
                " the subject out."
            )
        return found

    def check_sessions(self, subject: int, sessions: Collection[int]) -> None:
        """Raise DataError unless `sessions` (1-based numbers) are all present."""
        missing = sorted(set(sessions) - set(self.sessions(subject)))
        if missing:
            listed = ", ".join(map(str, missing))
            folder = self.betas_folder(subject)
            most = FACTS[subject].n_sessions
            known = f" (NSD has {most} of this subject)" if missing[-1] > most else ""
            raise DataError(
                f"Subject {subject} lacks the betas of session {listed} in "
                f"{folder}{known}: "
                f"{source(folder)}, or lower "
                "data.sessions."
            )

    def betas(
        self, subject: int, session: int, mask: Mask, container: Container = "auto"
    ) -> npt.NDArray[np.int16]:
        """Return one session's stored betas at `mask`, (750, n_voxels) int16.

        Columns follow `voxel_indices(mask)`; `to_percent` gives percent signal change.
        Both containers hold the same numbers; "auto" prefers hdf5, which is faster.

        Raises
        ------
        DataError
            The file is missing, truncated, or of the wrong shape or dtype.
        """
        path = self.betas_file(subject, session, container)
        try:
            self.check_space(subject, path)
            is_hdf5 = path.suffix.lower() == ".hdf5"
            return (read_betas_hdf5 if is_hdf5 else read_betas_nii)(path, mask)
        except DataError as error:
            other = self.betas_file(subject, session, "nii.gz")
            if container != "auto" or path == other or not is_there(other):
                raise
            logger.warning("%s %s is read in its place", error, other.name)
        return self.betas(subject, session, mask, "nii.gz")

    def betas_file(
        self, subject: int, session: int, container: Container = "auto"
    ) -> Path:
        """Return the file that `betas` reads."""
        check_choice(container, ("auto", "hdf5", "nii.gz"), "container")
        stem = self.betas_folder(subject) / f"betas_session{session:02d}"
        hdf5, nii = (find(Path(f"{stem}.{end}")) for end in ("hdf5", "nii.gz"))
        use_nii = container == "nii.gz" or (
            container == "auto" and is_there(nii) and not is_there(hdf5)
        )
        return nii if use_nii else hdf5

    def brainmask(self, subject: int) -> Mask:
        """Return NSD's liberal brain mask, (X, Y, Z) bool."""
        path = find(self.func_folder(subject) / "brainmask.nii.gz")
        values = read_volume(path, "Brain mask")
        self.check_space(subject, path)
        check_shape(values.shape, (None, None, None), f"Brain mask {path}")
        labels = to_labels(values, path)
        if not 0 <= labels.min() <= labels.max() == 1:
            raise wrong(path, f"{labels.min()} to {labels.max()}", "0 and 1")
        return np.asarray(labels > 0)

    def check_space(self, subject: int, path: Path) -> None:
        """Raise DataError unless a volume lies where the subject's others do.

        It is compared with the first of ncsnr, brain mask and Kastner2015 that is
        there; betas as hdf5, which state no space, by the order of the axes.
        """
        func = self.func_folder(subject)
        names = func / "brainmask.nii.gz", func / "roi" / "Kastner2015.nii.gz"
        known = (self.betas_folder(subject) / "ncsnr.nii.gz", *names)
        beside = first_volume(p for p in map(find, known) if p != path)
        if beside is None:
            return
        if path.suffix.lower() == ".hdf5":
            check_axes(*beside, path)
            return
        with guard(path, "Volume"):
            image = load_image(path)
        check_same_space(path, image, *beside)

    def affine(self, subject: int) -> npt.NDArray[np.float64]:
        """Return the (4, 4) affine of the functional volumes, mm."""
        path = find(self.func_folder(subject) / "brainmask.nii.gz")
        with guard(path, "Brain mask"):
            return np.asarray(load_image(path).affine, np.float64)

    def has_ncsnr(self, subject: int) -> bool:
        """Return whether there is a file of ncsnr, which trials can stand in for."""
        return is_there(find(self.betas_folder(subject) / "ncsnr.nii.gz"))

    def ncsnr(self, subject: int) -> npt.NDArray[np.float32]:
        """Return NSD's noise-ceiling SNR, (X, Y, Z) float32; NaN where not known."""
        path = find(self.betas_folder(subject) / "ncsnr.nii.gz")
        values = read_volume(path, "Noise-ceiling SNR")
        if values.dtype.kind != "f":
            raise wrong(path, f"{values.dtype} values", "float32")
        self.check_space(subject, path)
        check_shape(values.shape, (None, None, None), f"Noise-ceiling SNR {path}")
        if (values < 0).any() or np.isinf(values).any():
            raise wrong(path, "negative or infinite values", "a signal-to-noise ratio")
        return values.astype(np.float32)

    def roi(self, subject: int, name: str) -> IntArray:
        """Return a label volume: -1 not cortex, 0 cortex without label, 1..N labels.

        Raises
        ------
        DataError
            The file is missing or damaged, or a value is no label.
        """
        halves: list[IntArray] = []
        for path in self.roi_files(subject, name):
            values = read_volume(path, f"Region volume {name}")
            self.check_space(subject, path)
            shape = halves[0].shape if halves else (None, None, None)
            check_shape(values.shape, shape, f"Region volume {path}")
            halves.append(to_labels(values, path))
        labels: IntArray = np.maximum.reduce(halves)  # -1 in the other hemisphere
        allowed = {-1, 0, *self.roi_labels(subject, name).values()}
        odd = set(np.unique(labels).tolist()) - allowed
        if odd:
            table = self.colour_table(subject, name)
            known = f" of {table.name}" if table.exists() else ""
            raise wrong(path, f"the value {min(odd)}", f"-1, 0 or a label{known}")
        return labels

    def roi_files(self, subject: int, name: str) -> tuple[Path, ...]:
        """Return the file of a label volume, or those of its two hemispheres."""
        return sides_of(self.func_folder(subject) / "roi" / f"{name}.nii.gz")

    def colour_table(self, subject: int, name: str) -> Path:
        """Return the file that names the labels of a region volume."""
        return find(self.freesurfer_folder(subject, "label") / f"{name}.mgz.ctab")

    def roi_labels(self, subject: int, name: str) -> dict[str, int]:
        """Return label name -> value, from the folder's colour table where it exists.

        Raises
        ------
        DataError
            The table is damaged, or lacks labels that the areas are made of.
        """
        path = self.colour_table(subject, name)
        if not is_there(path) and name in ROI_LABELS:
            return {label: v for v, label in enumerate(ROI_LABELS[name], start=1)}
        with guard(path, f"Colour table of {name}"):
            labels = read_labels(path.read_text("utf-8-sig"))
        lacking = [n for n in NEEDED_LABELS.get(name, ()) if n not in labels]
        if lacking:
            held = ", ".join(labels)[:200] or "no label at all"
            expected = f"a label {', '.join(lacking)}"
            raise wrong(path, held, f"{expected}, spelled so,")
        return labels

    # Surfaces

    def transform(
        self, subject: int, hemisphere: Hemisphere, surface: str = "layerB2"
    ) -> npt.NDArray[np.float64]:
        """Return the functional-volume coordinate of each vertex, (n_vertices, 3).

        0-based voxel-centre indices in array order; NaN where NSD has no data (9999).
        """
        name = f"{hemisphere}.func1pt8-to-{surface}.mgz"
        path = find(self.subject_folder(subject) / "transforms" / name)
        values = read_volume(path, "Surface transform").astype(np.float64)
        check_shape(values.shape, (None, 1, 1, 3), f"Surface transform {path}")
        values = values.reshape(-1, 3)
        values[(values == NO_DATA).any(axis=1)] = np.nan
        return values - 1.0  # 1-based in the file

    def from_fsaverage(self, subject: int, hemisphere: Hemisphere) -> IntArray:
        """Return the subject's vertex nearest to each fsaverage vertex, 0-based.

        `values[from_fsaverage]` brings a map of the subject to the group surface.
        """
        name = f"{hemisphere}.white-to-fsaverage.mgz"
        path = find(self.subject_folder(subject) / "transforms" / name)
        values = read_volume(path, "Surface transform")
        check_shape(values.shape, (None, 1, 1), f"Surface transform {path}")
        index = to_labels(values, path).ravel() - 1
        if index.min() < 0:
            raise wrong(path, "an index below 1", "1-based vertices")
        return index

    def surface(
        self, subject: Anatomy, hemisphere: Hemisphere, kind: str = "inflated"
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Return vertices (n_vertices, 3) mm and faces (n_faces, 3), 0-based."""
        path = find(self.freesurfer_folder(subject, "surf") / f"{hemisphere}.{kind}")
        with guard(path, "Surface"):
            return read_mesh(path)

    def flat_patch(
        self, subject: Anatomy, hemisphere: Hemisphere
    ) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Return the flat map's vertices (n,), 0-based, and positions (n, 3), mm.

        Vertices of the medial wall and along the cuts are not in it. FreeSurfer's
        binary patch: -1, n, then per vertex its 1-based index (negative at the border)
        and three floats, big endian.
        """
        path = (
            self.freesurfer_folder(subject, "surf") / f"{hemisphere}.full.flat.patch.3d"
        )
        with guard(path, "Flat map"):
            data = path.read_bytes()
            magic, n_vertices = np.frombuffer(data, ">i4", 2).tolist()
            if magic != -1 or len(data) != 8 + 16 * n_vertices:
                raise ValueError("its size does not fit its header")
            kind = np.dtype([("index", ">i4"), ("xyz", ">f4", 3)])
            records = np.frombuffer(data, kind, n_vertices, offset=8)
        return (
            np.abs(records["index"]).astype(np.int64) - 1,
            records["xyz"].astype(np.float64),
        )

    def surface_values(
        self, subject: Anatomy, hemisphere: Hemisphere, kind: str = "sulc"
    ) -> npt.NDArray[np.float32]:
        """Return one number per vertex, (n_vertices,), such as sulcal depth."""
        path = find(self.freesurfer_folder(subject, "surf") / f"{hemisphere}.{kind}")
        with guard(path, "Surface values"):
            return read_per_vertex(path)

    # The whole tree

    def problems(self, subject: int, n_sessions: int) -> list[str]:
        """Return every problem a run of `subject` would meet, one sentence each."""
        checks: tuple[Callable[[], object], ...] = (
            lambda: check_trials(self, subject, n_sessions),
            lambda: self.check_sessions(subject, range(1, n_sessions + 1)),
            lambda: self._check_grid(subject),
            lambda: self.stimuli(self.trials(subject, 1).nsd_id[:1]),
            lambda: self.captions(self.trials(subject, 1).nsd_id[:1], 1),
        )
        found = []
        for check in checks:
            try:
                check()
            except DataError as error:
                found.append(str(error))
        return found

    def _check_grid(self, subject: int) -> None:
        """Raise DataError unless mask, regions and ncsnr lie on one voxel grid."""
        grid = self.brainmask(subject).shape
        for name in ("Kastner2015", "prf-visualrois"):
            check_shape(self.roi(subject, name).shape, grid, f"Region volume {name}")
        if self.has_ncsnr(subject):
            check_shape(self.ncsnr(subject).shape, grid, "Noise-ceiling SNR")


def check_trials(tree: NsdTree, subject: int, n_sessions: int) -> None:
    """Raise DataError unless design, stimulus table and behaviour name the same images.

    The three files state the index chain independently: the design by its order, the
    table by trial numbers (1-based), the behaviour by 1-based ids. The behavioural file
    is optional.
    """
    trials = tree.trials(subject, n_sessions)
    columns = [f"subject{subject}_rep{r}" for r in range(3)]
    planned = tree.stim_info(*columns)[columns].to_numpy(np.int64)
    numbers = planned[trials.nsd_id]  # (n_trials, 3)
    expected = np.arange(1, len(trials.nsd_id) + 1)[:, None]
    wrong = np.flatnonzero(~(numbers == expected).any(axis=1))
    if len(wrong):
        raise DataError(
            f"Subject {subject}, trial {wrong[0] + 1}: the stimulus table does not "
            f"list nsdId {trials.nsd_id[wrong[0]]} there, as nsd_expdesign.mat does "
            f"({len(wrong)} trials differ): use the two files of one release."
        )
    if not is_there(find(tree.subject_folder(subject) / "behav" / "responses.tsv")):
        return
    behaviour = tree.responses(subject)
    behaviour = behaviour[behaviour["SESSION"] <= n_sessions]
    ids = behaviour[["10KID", "73KID"]].to_numpy(np.float64)
    stated = np.stack([trials.image_10k, trials.nsd_id], axis=1) + 1
    if not np.array_equal(ids, stated):
        raise DataError(
            f"Subject {subject}: responses.tsv names other images than "
            "nsd_expdesign.mat: use the two files of one release."
        )
