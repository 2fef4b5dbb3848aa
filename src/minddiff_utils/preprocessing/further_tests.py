"""Responses of a further test set, in the voxels and units of the core.

The decoders know responses that are standardised within sessions of the core. What
stands for a session's mean and SD in another session is a choice, and each has a cost:

core
    The mean over the core's sessions of their means and SDs, over training trials.
    Nothing of the test set enters, but a shift between the days stays in.
own
    Mean and SD over the trials of the test set itself, within a run where runs are
    known. A shift is gone, but test statistics enter, and what all stimuli of the test
    set have in common is lost. Published decodings of NSD-imagery do this.

Both are prepared, and tables have a row of each.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.types import Array, IntArray, Mask, Matrix
from minddiff_utils.datasets.further_tests import FurtherTest
from minddiff_utils.datasets.further_tests.test_set import FurtherTrials
from minddiff_utils.datasets.nsd.experiment import to_percent
from minddiff_utils.datasets.protocol import DataSet, Units
from minddiff_utils.datasets.validity import fault, where_held
from minddiff_utils.preprocessing.splits import may_scale
from minddiff_utils.preprocessing.trials import (
    Scaling,
    average_repeats,
    fit_scaling,
    zscore_sessions,
)

__all__ = ["FurtherResponses", "core_scaling", "core_units", "prepare_further"]

logger = logging.getLogger(__name__)

Standard = Literal["core", "own"]
STANDARDS: tuple[Standard, ...] = ("core", "own")


@dataclass(frozen=True)
class FurtherResponses:
    """One subject's responses to a further test set, averaged over trials.

    Attributes
    ----------
    betas : mapping of (n_rows, n_voxels) float32
        By what they are standardised by: `core` and `own`. Columns are those of
        `responses.h5`.
    stimulus, condition, n_repeats : (n_rows,)
        Number of the stimulus, what the subject did with it, and trials averaged.
    n_filled : mapping of int
        Values that are 0, the mean, because the voxel has no data there.
    """

    betas: Mapping[Standard, Matrix]
    stimulus: IntArray
    condition: npt.NDArray[np.str_]
    n_repeats: IntArray
    n_filled: Mapping[Standard, int]

    def rows(self, condition: str) -> IntArray:
        """Return the rows of a condition, ascending by stimulus."""
        return np.flatnonzero(self.condition == condition)

    def arrays(self) -> dict[str, Array]:
        """Return the content of `responses_<test set>.h5`."""
        betas = {f"betas/{name}": values for name, values in self.betas.items()}
        names = ("stimulus", "condition", "n_repeats")
        return betas | {name: getattr(self, name) for name in names}


def core_units(
    data_set: DataSet, subject: int, data: DataConfig, stored: Mapping[str, Array]
) -> Units:
    """Return the units of `responses.h5`, in its order.

    Raises
    ------
    DataError
        It has vertices, or voxels that the data set has not.
    """
    if "voxel_ijk" not in stored:
        raise DataError(
            "responses.h5 has vertices, but further test sets are read in voxels: use "
            "the profile nsd."
        )
    units = data_set.units(subject, data.voxels)
    flat, wanted = (
        np.ravel_multi_index(tuple(ijk.T), units.grid, mode="clip")
        for ijk in (units.position, stored["voxel_ijk"])
    )
    keep = np.isin(flat, wanted)
    kept = units.at(keep)
    if not np.array_equal(kept.position, stored["voxel_ijk"]):
        raise DataError(
            f"responses.h5 of subject {subject} has voxels that the regions of this "
            "folder do not name: run notebook 01 again."
        )
    return kept


def core_scaling(
    data_set: DataSet,
    subject: int,
    data: DataConfig,
    stored: Mapping[str, Array],
    units: Units,
) -> Scaling:
    """Return mean and SD of the core's sessions, averaged over sessions.

    The sessions are read once more, one at a time: their statistics are not kept. As in
    the core, over training trials alone unless `data.zscore_on` is `all`. A session in
    which a voxel is constant is left out of its mean.
    """
    sessions = data_set.sessions(subject, data.session_numbers)
    trials = data_set.trials(subject, sessions)
    fits = may_scale(trials.image_id, data_set.test_images(subject), stored)
    fits |= data.zscore_on == "all"
    n = len(units.area)
    total, spread, count = np.zeros(n), np.zeros(n), np.zeros(n)
    for session in sessions:
        raw = data_set.responses(subject, session, units)
        rows = fits[trials.session == session] & where_held(raw).trials
        one = fit_scaling(data_set.scaled(raw)[rows])
        total += np.where(one.valid, one.mean, 0)
        spread += np.where(one.valid, one.scale, 0)
        count += one.valid
        logger.info("subject %d: statistics of session %d", subject, session)
    valid = count > 0
    known = np.maximum(count, 1)
    scale = np.where(valid, spread / known, 1)
    return Scaling((total / known).astype(np.float32), scale.astype(np.float32), valid)


def prepare_further(
    test_set: FurtherTest, subject: int, units: Units, scaling: Scaling
) -> FurtherResponses:
    """Read, standardise in both ways and average the responses of a further test set.

    Parameters
    ----------
    units : Units
        Those of the core, from `core_units`.
    scaling : Scaling
        From `core_scaling`.

    Raises
    ------
    DataError
        A file is missing, damaged, or no data.
    """
    trials = test_set.trials(subject)
    mask = np.zeros(units.grid, bool)
    mask[tuple(units.position.T)] = True
    raw = test_set.betas(subject, mask)
    check_shape(raw.shape, (len(trials.stimulus), None), f"NSD-{test_set.name}")
    held = where_held(raw)
    words = fault(raw, held)
    if words:
        raise DataError(
            f"{test_set.betas_file(subject)} holds {words}: compare it with NSD's own "
            "file and download it again."
        )
    empty = ~held.trials[:, None] | ~held.voxels
    percent = to_percent(raw)
    return _averaged(trials, _standardised(percent, trials, scaling, empty))


def _standardised(
    percent: Matrix, trials: FurtherTrials, scaling: Scaling, empty: Mask
) -> dict[Standard, Matrix]:
    whole = np.asarray(~empty.all(axis=1))
    z: dict[Standard, Matrix] = {
        "core": scaling.apply(percent),
        "own": zscore_sessions(percent, trials.block, whole),
    }
    for values in z.values():
        values[empty] = np.nan
    return z


def _averaged(trials: FurtherTrials, z: Mapping[Standard, Matrix]) -> FurtherResponses:
    """Average over the trials of each stimulus in each condition."""
    known = trials.is_known
    conditions, code = np.unique(trials.condition[known], return_inverse=True)
    most = int(trials.stimulus.max()) + 1
    key = code * most + trials.stimulus[known]
    averaged = {name: average_repeats(values[known], key) for name, values in z.items()}
    one = averaged["core"]
    rows: dict[str, Any] = {
        "stimulus": one.image % most,
        "condition": conditions[one.image // most],
        "n_repeats": one.n_repeats.astype(np.int64),
    }
    return FurtherResponses(
        betas={name: part.betas for name, part in averaged.items()},
        n_filled={name: part.n_filled for name, part in averaged.items()},
        **rows,
    )
