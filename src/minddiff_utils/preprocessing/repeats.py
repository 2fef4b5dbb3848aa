"""Single trials of a few voxels, to look at before they are averaged.

For show alone: the responses themselves come from `responses`, whose scaling this
repeats on the few sessions in which the images shown here were repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.types import IntArray, Mask, Matrix
from minddiff_utils.datasets.protocol import DataSet, Trials, Units
from minddiff_utils.preprocessing.responses import Responses
from minddiff_utils.preprocessing.splits import may_scale
from minddiff_utils.preprocessing.trials import zscore_sessions

__all__ = ["Known", "Repeats", "read_repeats", "read_trials"]


@dataclass(frozen=True)
class Repeats:
    """The trials of some test images in some voxels.

    Attributes
    ----------
    nsd_id : (n_images,) int64
        The images, ascending.
    z : (n_images, n_repeats, n_voxels) float32
        Session-standardised trials in time order; NaN where a trial holds no data.
    """

    nsd_id: IntArray
    z: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Known:
    """Which voxels there are, and what each image that they respond to is for.

    `nsd_id`, `split`: (n_images,).
    """

    units: Units
    nsd_id: IntArray
    split: npt.NDArray[np.str_]


def read_repeats(
    data_set: DataSet,
    subject: int,
    data: DataConfig,
    responses: Responses,
    voxels: Sequence[int],
    *,
    n_images: int = 16,
) -> Repeats:
    """Read the trials of the test images whose repeats were over first.

    Parameters
    ----------
    data_set, subject, data
        As for `prepare_responses`.
    responses : Responses
        Of the same subject and data.
    voxels : sequence of int
        Columns of the responses.
    n_images : int
        Images at most, of those that were shown most often.

    Raises
    ------
    DataError
        A voxel is named twice.
    """
    if len(set(voxels)) < len(voxels):
        raise DataError(f"The voxels {list(voxels)} are not all different.")
    numbers = data_set.sessions(subject, data.session_numbers)
    trials = data_set.trials(subject, numbers)
    test = np.isin(trials.image_id, responses.nsd_id[responses.split == "test"])
    rows = _first_repeated(trials, test, n_images)  # (n_images, n_repeats) of trials
    sessions = np.unique(trials.session[rows]).tolist()
    known = Known(responses.units, responses.nsd_id, responses.split)
    z, _ = read_trials(data_set, subject, data, known, voxels, sessions=sessions)
    row = np.cumsum(np.isin(trials.session, sessions)) - 1  # of `trials` in `z`
    return Repeats(trials.image_id[rows[:, 0]], z[row[rows]])


def read_trials(
    data_set: DataSet,
    subject: int,
    data: DataConfig,
    responses: Known,
    voxels: Sequence[int],
    *,
    sessions: Sequence[int] | None = None,
) -> tuple[Matrix, Trials]:
    """Read single trials, scaled as the responses are.

    Parameters
    ----------
    data_set, subject, data, voxels
        As for `read_repeats`.
    responses : Known
    sessions : sequence of int, optional
        Of those of the responses; by default all.

    Returns
    -------
    z : (n_trials, n_voxels) float32
        In time order; NaN where a trial holds no data.
    trials : Trials
        What they showed.
    """
    numbers = data_set.sessions(subject, data.session_numbers)
    read = numbers if sessions is None else sessions
    trials = data_set.trials(subject, numbers).of(read)
    columns = np.sort(np.array(voxels))
    units = responses.units.at(columns)
    raw = np.concatenate([data_set.responses(subject, s, units) for s in read])
    raw = raw[:, np.searchsorted(columns, voxels)]
    empty = ((raw == 0) | np.isnan(raw)).all(axis=1)
    z = data_set.scaled(raw)
    if not data_set.are_averaged:
        known = {"nsd_id": responses.nsd_id, "split": responses.split}
        fits = may_scale(trials.image_id, data_set.test_images(subject), known)
        fits |= data.zscore_on == "all"
        z = zscore_sessions(z, trials.session, fits & ~empty)
    z[empty] = np.nan
    return z, trials


def _first_repeated(trials: Trials, is_test: Mask, n_images: int) -> IntArray:
    """Return the trials of test images that were shown most often, (n, n_repeats)."""
    rows = np.flatnonzero(is_test)
    _, row, counts = np.unique(
        trials.image_id[rows], return_inverse=True, return_counts=True
    )
    by_image = [rows[row == k] for k in np.flatnonzero(counts == counts.max())]
    soonest = sorted(by_image, key=lambda image: int(image[-1]))[:n_images]
    return np.array(sorted(soonest, key=lambda image: int(trials.image_id[image[0]])))
