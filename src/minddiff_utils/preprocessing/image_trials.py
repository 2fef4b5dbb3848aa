"""The single trials of a subject's training or test images, to use only some of them.

They are scaled as the averaged responses of `responses.h5` are, within whole sessions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.types import Array, Doubles, IntArray, Mask, Matrix
from minddiff_utils.datasets.protocol import DataSet
from minddiff_utils.preprocessing.noise_structure import residuals_of
from minddiff_utils.preprocessing.repeats import Known, read_trials
from minddiff_utils.preprocessing.trials import average_repeats

__all__ = ["SECONDS_PER_TRIAL", "ImageTrials", "image_trials"]

#: From one image to the next in NSD.
SECONDS_PER_TRIAL = 4.0


@dataclass(frozen=True)
class ImageTrials:
    """Trials of the images of one split, in time order.

    Attributes
    ----------
    z : (n_trials, n_voxels) float32
        NaN where a trial holds no data.
    row : (n_trials,) int64
        The image, as a row of the responses of the split.
    session : (n_trials,) int64
    minute : (n_trials,) float64
        Minutes of data at the end of the trial, those of other images counted; NaN
        where responses are means over trials.
    """

    z: Matrix
    row: IntArray
    session: IntArray
    minute: Doubles

    def averaged(self, keep: Mask) -> tuple[Matrix, IntArray]:
        """Return responses averaged over some of the trials, and which images."""
        mean = average_repeats(self.z[keep], self.row[keep])
        return mean.betas, mean.image

    def first(self, n: int) -> Matrix:
        """Return the mean of each image's first `n` trials, (n_images, n_voxels).

        An image with fewer has all of its own; NaN where it has none.
        """
        nth = pd.Series(self.row).groupby(self.row).cumcount().to_numpy()
        mean, image = self.averaged(nth < n)
        every = np.full((self.row.max() + 1, self.z.shape[1]), np.nan, np.float32)
        every[image] = mean
        return every

    def noise(self) -> Matrix:
        """Return what trials of repeated images differ by from their image's mean.

        (n, n_voxels), with the variance of a single trial's noise. No image was seen
        twice: DataError.
        """
        found = residuals_of(np.nan_to_num(self.z), self.row, self.session)
        again = found.weight > 0
        scale = np.sqrt(found.weight[again, None]).astype(np.float32)
        return np.asarray(found.values[again] / scale, np.float32)


def image_trials(
    data_set: DataSet,
    subject: int,
    data: DataConfig,
    stored: Mapping[str, Array],
    split: str = "train",
) -> ImageTrials:
    """Read the trials of a split's images; where they are averaged, one for each.

    Parameters
    ----------
    data_set, subject, data
        As for `prepare_responses`.
    stored : mapping of arrays
        The content of `responses.h5` of the same subject and data.
    split : str
        Of `stored`: whose images.

    Raises
    ------
    DataError
        A file is missing or damaged.
    """
    wanted = np.flatnonzero(stored["split"] == split)
    if data_set.are_averaged:
        rows = np.arange(len(wanted))
        nowhere = np.zeros(len(rows), np.int64)
        unknown = np.full(len(rows), np.nan)
        return ImageTrials(stored["betas"][wanted], rows, nowhere, unknown)
    units = data_set.units(subject, data.voxels)
    position = stored["voxel_ijk" if units.are_voxels else "vertex"]
    there, used = (
        np.ravel_multi_index(tuple(p.T), units.grid) for p in (units.position, position)
    )
    known = Known(units.at(np.isin(there, used)), stored["nsd_id"], stored["split"])
    every = range(len(position))
    z, trials = read_trials(data_set, subject, data, known, every)
    row_of = {int(i): k for k, i in enumerate(stored["nsd_id"][wanted])}
    rows = np.array([row_of.get(i, -1) for i in trials.image_id.tolist()])
    keep = (rows >= 0) & ~np.isnan(z).all(axis=1)
    minute = np.arange(1, len(rows) + 1) * SECONDS_PER_TRIAL / 60
    return ImageTrials(z[keep], rows[keep], trials.session[keep], minute[keep])
