"""Single files of MindEye2's folder, opened: what is wrong is one sentence.

Arrays are read without pickles: an array of objects is refused.
"""

import io
import tarfile
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.reading import Published
from minddiff_utils.core.types import IntArray, Mask, Matrix
from minddiff_utils.datasets.mindeye2.layout import BEHAVIOUR
from minddiff_utils.datasets.nsd.formats import open_hdf5
from minddiff_utils.datasets.nsd.layout import N_IMAGES, N_SHARED, N_TRIALS

__all__ = [
    "FOLDER",
    "read_behaviour",
    "read_images",
    "read_indices",
    "read_regions",
    "read_rows",
    "read_shared",
    "shape_of_betas",
]

FOLDER = Published(
    "name the folder that holds the files of pscotti/mindeyev2 (--nsd-root), or "
    "download it there",
    "compare it with pscotti/mindeyev2 on Hugging Face and download it again",
)
_MEMBER = ".behav.npy"


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    if name not in file or not isinstance(file[name], h5py.Dataset):
        held = ", ".join(map(str, file))[:200] or "nothing"
        raise FOLDER.wrong(path, held, f"a dataset {name!r}")
    return file[name]


def _betas(file: h5py.File, path: Path) -> h5py.Dataset:
    data = _dataset(file, "betas", path)
    if data.dtype != np.float32:
        raise FOLDER.wrong(path, f"{data.dtype} responses", "float32")
    if data.ndim != 2 or 0 in data.shape or len(data) % N_TRIALS:
        expected = f"(trials, voxels), {N_TRIALS} trials a session,"
        raise FOLDER.wrong(path, f"an array of shape {data.shape}", expected)
    return data


def shape_of_betas(path: Path) -> tuple[int, int]:
    """Return the numbers of trials and voxels of a subject's responses."""
    with FOLDER.reading(path, "Responses"), open_hdf5(path) as file:
        n_trials, n_voxels = _betas(file, path).shape
    return int(n_trials), int(n_voxels)


def read_rows(path: Path, rows: slice, columns: IntArray) -> Matrix:
    """Return some responses, (n_rows, n_columns) float32; NaN where there is none."""
    with FOLDER.reading(path, "Responses"), open_hdf5(path) as file:
        values: Matrix = _betas(file, path)[rows][:, columns]
    if np.isinf(values).any():
        raise FOLDER.wrong(path, "infinite values", "finite ones or NaN")
    return values


def read_indices(path: Path, subject: int) -> IntArray:
    """Return the `nsd_id` of each trial of a subject."""
    with FOLDER.reading(path, "Images of the trials"), open_hdf5(path) as file:
        values = _dataset(file, f"subj{subject:02d}", path)[...]
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        found = f"{values.dtype} of shape {values.shape} for subject {subject}"
        raise FOLDER.wrong(path, found, "a row of ids")
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise FOLDER.wrong(path, f"no whole numbers for subject {subject}", "ids")
    ids: IntArray = values.astype(np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < N_IMAGES:
        found = f"ids {ids.min()} to {ids.max()} for subject {subject}"
        raise FOLDER.wrong(path, found, f"0 to {N_IMAGES - 1}")
    return ids


def read_shared(path: Path) -> IntArray:
    """Return the `nsd_id` of the images that all subjects share, (1000,)."""
    with FOLDER.reading(path, "Shared images"):
        values = np.load(path, allow_pickle=False)
    if values.dtype != bool or values.shape != (N_IMAGES,):
        found = f"{values.dtype} of shape {values.shape}"
        raise FOLDER.wrong(path, found, f"bool of shape ({N_IMAGES},)")
    if values.sum() != N_SHARED:
        raise FOLDER.wrong(path, f"{values.sum()} shared images", f"{N_SHARED}")
    return np.flatnonzero(values)


def read_regions(path: Path, subject: int, n_voxels: int) -> dict[str, Mask]:
    """Return region -> which columns are in it, (n_voxels,)."""
    with FOLDER.reading(path, "Regions"), open_hdf5(path) as file:
        group = file.get(f"subj{subject:02d}")
        if not isinstance(group, h5py.Group):
            held = ", ".join(map(str, file))[:200] or "nothing"
            raise FOLDER.wrong(path, held, f"a group subj{subject:02d}")
        found = {name: np.asarray(group[name][...]) for name in group}
    for name, values in found.items():
        if values.dtype.kind not in "biuf" or values.shape != (n_voxels,):
            held = f"{values.dtype} of shape {values.shape} for {name}"
            raise FOLDER.wrong(path, held, f"a mask of {n_voxels} voxels")
    return {name: values > 0 for name, values in found.items()}


def read_behaviour(path: Path) -> pd.DataFrame:
    """Return the behaviour of a tar's trials, in the order of its members.

    Columns `layout.BEHAVIOUR`; NaN where the file has -1.
    """
    rows = []
    with FOLDER.reading(path, "Behaviour"), tarfile.open(path) as tar:
        for member in tar:
            if not member.isfile() or not member.name.endswith(_MEMBER):
                continue
            stored = tar.extractfile(member)
            assert stored is not None  # it is a file
            values = np.load(io.BytesIO(stored.read()), allow_pickle=False)
            if values.shape != (1, len(BEHAVIOUR)) or values.dtype.kind != "f":
                held = f"{values.dtype} of shape {values.shape} in {member.name}"
                raise FOLDER.wrong(path, held, f"floats of shape (1, {len(BEHAVIOUR)})")
            rows.append(values[0])
    if not rows:
        raise FOLDER.wrong(path, f"no member *{_MEMBER}", "one for each trial")
    table = pd.DataFrame(np.stack(rows), columns=list(BEHAVIOUR))
    return table.mask(table == -1)


def read_images(path: Path, image_id: IntArray) -> npt.NDArray[np.uint8]:
    """Return images, (n, 224, 224, 3), from float16 in 0..1 with channels first."""
    with FOLDER.reading(path, "Images"), open_hdf5(path) as file:
        data = _dataset(file, "images", path)
        if data.dtype.kind != "f" or data.ndim != 4 or data.shape[1] != 3:
            found = f"{data.dtype} of shape {data.shape}"
            raise FOLDER.wrong(path, found, "floats of shape (73000, 3, 224, 224)")
        ids = np.asarray(image_id, np.int64)
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(data):
            raise DataError(
                f"nsd_id must lie in 0..{len(data) - 1}, the images of {path}, but "
                f"spans {ids.min()}..{ids.max()}."
            )
        images = np.empty((len(ids), *data.shape[2:], 3), np.uint8)
        for row in np.argsort(ids, kind="stable"):
            values = data[ids[row]].astype(np.float32)
            if not (values >= 0).all() or not (values <= 1).all():
                raise FOLDER.wrong(
                    path, "values beyond 0 and 1, or NaN", "images in 0..1"
                )
            images[row] = np.rint(255 * values).transpose(1, 2, 0)
    return images
