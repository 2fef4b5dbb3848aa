"""MindEye2's folder as a data set: single trials in the voxels of nsdgeneral.

A convenience for those who have it: 1.9 GB of responses a subject in one file. NSD's
small files lie beside (regions, stimulus table, captions), which say where a voxel is.
What is not settled about the responses stands in `layout`.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Images, IntArray, Mask, Matrix
from minddiff_utils.datasets.inventory import DataFile, is_there
from minddiff_utils.datasets.mindeye2 import layout
from minddiff_utils.datasets.nsd import layout as nsd
from minddiff_utils.datasets.nsd.data_set import OfNsd
from minddiff_utils.datasets.nsd.layout import N_TRIALS
from minddiff_utils.datasets.protocol import (
    Trials,
    Units,
    UnitSet,
    sessions_within,
    voxels_of,
)
from minddiff_utils.datasets.published import Published, check_ids, open_hdf5

__all__ = ["MindEye2", "read_behaviour"]

_FOLDER = Published(
    "name the folder that holds the files of pscotti/mindeyev2 (--nsd-root), or "
    "download it there",
    "compare it with pscotti/mindeyev2 on Hugging Face and download it again",
)
_MEMBER = ".behav.npy"
#: Share of a region's columns that must lie in the same region of NSD's volume.
_LEAST_IN_REGION = 0.5


@dataclass(frozen=True)
class MindEye2(OfNsd):
    """The folder, and those files of NSD that it needs, below one root."""

    name: str = "mindeye2"
    rows: ClassVar[Sequence[DataFile]] = layout.FILES

    def notes(self, subject: int) -> tuple[str, ...]:
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

    def _size(self, subject: int) -> tuple[int, int]:
        """Return the numbers of trials and voxels of a subject's responses."""
        with _open_betas(self.file("betas", subject)) as data:
            n_trials, n_voxels = data.shape
        return n_trials, n_voxels

    def sessions(self, subject: int, asked: Sequence[int]) -> tuple[int, ...]:
        """Return those of the sessions `asked` that the array of responses holds."""
        path, most = self.file("betas", subject), self._size(subject)[0] // N_TRIALS
        if most > nsd.FACTS[subject].n_sessions:
            expected = f"{nsd.FACTS[subject].n_sessions} at most"
            raise _FOLDER.wrong(path, f"{most} sessions", expected)
        return sessions_within(subject, asked, most, f" in {path}")

    def trials(self, subject: int, sessions: Sequence[int]) -> Trials:
        """Return the trials of `sessions`, in time order."""
        path, n_trials = self.file("indices", subject), self._size(subject)[0]
        ids = _read_indices(path, subject)
        if len(ids) != n_trials:
            found = f"{len(ids)} trials of subject {subject}"
            raise _FOLDER.wrong(path, found, f"{n_trials}, as responses have")
        session = np.repeat(np.arange(1, n_trials // N_TRIALS + 1), N_TRIALS)
        return Trials(session, ids, self.place(subject, ids)).of(sessions)

    def check(self, subject: int, sessions: Sequence[int]) -> None:
        """Raise DataError unless indices, behaviour, design and regions agree."""
        every = range(1, nsd.FACTS[subject].n_sessions + 1)
        ids = self.trials(subject, every).image_id
        self._check_design(subject, ids)
        self._check_regions(subject)
        parts = [self.file("train", subject, part=session - 1) for session in sessions]
        for path in (*parts, self.file("test", subject)):
            if is_there(path):
                self._check_behaviour(path, subject, ids)

    def test_images(self, subject: int) -> IntArray:
        """Return the `nsd_id` of the images that all subjects share, (1000,)."""
        return _read_shared(self.file("shared", subject))

    def images(self, image_id: IntArray) -> Images:
        """Return NSD's images where they are there, else the folder's of 224 px."""
        path = self.file("images224", 1)
        if is_there(self.tree.file("stimuli")) or not is_there(path):
            return self.tree.stimuli(image_id)
        return _read_images(path, image_id)

    def _check_design(self, subject: int, ids: IntArray) -> None:
        if not is_there(self.tree.file("design")):
            return
        design = self.tree.trials(subject, len(ids) // N_TRIALS)
        differ = np.flatnonzero(design.image_id != ids)
        if len(differ):
            raise DataError(
                f"{self.file('indices', subject)} names image {ids[differ[0]]} in trial"
                f" {differ[0] + 1} of subject {subject}, but nsd_expdesign.mat "
                f"{design.image_id[differ[0]]} ({len(differ)} trials differ): use the "
                "files of one subject."
            )

    def _check_behaviour(self, path: Path, subject: int, ids: IntArray) -> None:
        table, wrong = read_behaviour(path), _FOLDER.wrong
        image = table["image"].to_numpy()
        if not (table["subject"] == subject).all():
            found = f"trials of subject {table['subject'].iloc[0]:.0f}"
            raise wrong(path, found, f"those of subject {subject}")
        rows = table["row"].to_numpy()
        row = _FOLDER.whole(path, rows, "the column row", 0, len(ids) - 1)
        differ = np.flatnonzero(ids[row] != image)
        if len(differ):
            at, other = differ[0], self.file("indices", subject).name
            found = f"image {image[at]:.0f} for row {row[at]}"
            raise wrong(path, found, f"{ids[row[at]]}, as {other} has it,")

    # What was measured

    def units(self, subject: int, which: UnitSet) -> Units:
        """Return the voxels of the eleven areas inside nsdgeneral, or all of it."""
        has_ncsnr = self.tree.has_ncsnr(subject)
        ncsnr = self.tree.ncsnr(subject) if has_ncsnr else None
        general, areas = self._general(subject), self.tree.areas(subject)
        return voxels_of(general, areas, ncsnr, which, f"subject {subject}")

    def responses(self, subject: int, session: int, units: Units) -> Matrix:
        """Return one session's responses, (750, n_units) float32."""
        places = np.ravel_multi_index(tuple(units.position.T), units.grid)
        columns = np.searchsorted(np.flatnonzero(self._general(subject)), places)
        path, first = self.file("betas", subject), (session - 1) * N_TRIALS
        with _open_betas(path) as data:
            values: Matrix = data[first : first + N_TRIALS][:, columns]
        _FOLDER.no_infinity(path, values)
        return values

    def responses_file(self, subject: int, session: int) -> str:
        """Return the path of the array, and the session's rows."""
        first = (session - 1) * N_TRIALS
        return f"{self.file('betas', subject)}, rows {first} to {first + N_TRIALS - 1},"

    def _general(self, subject: int) -> Mask:
        """Return nsdgeneral, whose voxels in C order are the columns of responses."""
        general = np.asarray(self.tree.roi(subject, "nsdgeneral") > 0)
        n_voxels = self._size(subject)[1]
        if int(general.sum()) != n_voxels:
            expected = f"{general.sum()}, as NSD's nsdgeneral of subject {subject} has,"
            path = self.file("betas", subject)
            raise _FOLDER.wrong(path, f"{n_voxels} voxels", expected)
        return general

    def _check_regions(self, subject: int) -> None:
        """Raise DataError unless V1 of the folder is V1 of NSD's volume."""
        general, path = self._general(subject), self.file("regions", subject)
        if not is_there(path):
            return
        regions = _read_regions(path, subject, int(general.sum()))
        if "V1" not in regions or not regions["V1"].any():
            held = f"the regions {', '.join(regions)[:200] or 'nothing'}"
            raise _FOLDER.wrong(path, held, "V1, with a voxel in it,")
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


# --- single files ---------------------------------------------------------------------


@contextmanager
def _open_betas(path: Path) -> Iterator[h5py.Dataset]:
    """Open a subject's responses, (n_trials, n_voxels) float32; NaN where none is."""
    shape = "trials", "voxels"
    with _FOLDER.hdf5(path, "Responses", "betas", "float32", shape) as data:
        if len(data) % N_TRIALS:
            expected = f"a multiple of {N_TRIALS}"
            raise _FOLDER.wrong(path, f"{len(data)} trials", expected)
        yield data


def _read_indices(path: Path, subject: int) -> IntArray:
    """Return the `nsd_id` of each trial of a subject."""
    name, what, shape = f"subj{subject:02d}", "Images of the trials", ("trials",)
    with _FOLDER.hdf5(path, what, name, "numbers", shape) as data:
        return _FOLDER.whole(path, data[...], name, 0, nsd.N_IMAGES - 1)


def _read_shared(path: Path) -> IntArray:
    """Return the `nsd_id` of the images that all subjects share, (1000,)."""
    values = _FOLDER.array(path, "Shared images", "bool", (nsd.N_IMAGES,))
    if values.sum() != nsd.N_SHARED:
        raise _FOLDER.wrong(path, f"{values.sum()} shared images", f"{nsd.N_SHARED}")
    return np.flatnonzero(values)


def _read_regions(path: Path, subject: int, n_voxels: int) -> dict[str, Mask]:
    """Return region -> which columns are in it, (n_voxels,)."""
    with _FOLDER.reading(path, "Regions"), open_hdf5(path) as file:
        group = file.get(f"subj{subject:02d}")
        if not isinstance(group, h5py.Group):
            held = ", ".join(map(str, file))[:200] or "nothing"
            raise _FOLDER.wrong(path, held, f"a group subj{subject:02d}")
        found = {name: np.asarray(group[name][...]) for name in group}
    for name, values in found.items():
        _FOLDER.check_array(path, values, "numbers", (n_voxels,), name)
    return {name: values > 0 for name, values in found.items()}


def read_behaviour(path: Path) -> pd.DataFrame:
    """Return the behaviour of a tar's trials, in the order of its members.

    Columns `layout.BEHAVIOUR`; NaN where the file has -1.
    """
    rows = []
    with _FOLDER.reading(path, "Behaviour"), tarfile.open(path) as tar:
        for member in tar:
            if not member.isfile() or not member.name.endswith(_MEMBER):
                continue
            stored = tar.extractfile(member)
            assert stored is not None  # it is a file
            values = np.load(io.BytesIO(stored.read()), allow_pickle=False)
            shape = 1, len(layout.BEHAVIOUR)
            _FOLDER.check_array(path, values, "floats", shape, member.name)
            rows.append(values[0])
    if not rows:
        raise _FOLDER.wrong(path, f"no member *{_MEMBER}", "one for each trial")
    table = pd.DataFrame(np.stack(rows), columns=list(layout.BEHAVIOUR))
    return table.mask(table == -1)


def _read_images(path: Path, image_id: IntArray) -> Images:
    """Return images, (n, 224, 224, 3), from float16 in 0..1 with channels first."""
    shape = "images", 3, "height", "width"
    with _FOLDER.hdf5(path, "Images", "images", "floats", shape) as data:
        ids = check_ids(image_id, len(data), path)
        images = np.empty((len(ids), *data.shape[2:], 3), np.uint8)
        for row in np.argsort(ids, kind="stable"):
            values = data[ids[row]].astype(np.float32)
            if not ((values >= 0) & (values <= 1)).all():
                found = "values beyond 0 and 1, or NaN"
                raise _FOLDER.wrong(path, found, "images in 0..1")
            images[row] = np.rint(255 * values).transpose(1, 2, 0)
    return images
