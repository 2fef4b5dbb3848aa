"""How the noise of trials hangs together: between voxels, and from trial to trial.

Noise is what differs between the trials of one image. Nothing is decoded from it;
averages over repeats are better the less of it is shared.

Notation
--------
z_t = standardised response in trial t, d_t = z_t - mean over the m trials of its image,
E[d_t^2] = (1 - 1/m) sigma^2, E[d_s d_t] = (1 - 1/m_s) (1 - 1/m_t) cov(noise) for trials
of different images.

References
----------
Kay et al. 2025, PLoS Computational Biology (covariance of noise and signal).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.types import Doubles, IntArray, Matrix
from minddiff_utils.datasets.protocol import DataSet
from minddiff_utils.preprocessing.repeats import Known, read_trials
from minddiff_utils.preprocessing.responses import Responses
from minddiff_utils.preprocessing.trials import average_repeats

__all__ = [
    "Residuals",
    "by_distance",
    "correlation_between_trials",
    "noise_residuals",
    "residuals_of",
]


@dataclass(frozen=True)
class Residuals:
    """What trials differ by from the mean of their image.

    Attributes
    ----------
    values : (n_trials, n_voxels) float32
        0 for an image that was seen once, of which nothing is known.
    weight : (n_trials,) float64
        1 - 1/m: the share of the noise variance that is left.
    session : (n_trials,) int64
    image : (n_trials,) int64
    """

    values: Matrix
    weight: Doubles
    session: IntArray
    image: IntArray

    def correlation(self) -> Doubles:
        """Return the correlation of the noise between voxels, (n_voxels, n_voxels)."""
        known = self.values[self.weight > 0].astype(np.float32)
        norm = np.linalg.norm(known, axis=0)
        unit = known / np.where(norm > 0, norm, np.inf)
        return np.asarray(unit.T @ unit, np.float64)


def residuals_of(z: Matrix, image: IntArray, session: IntArray) -> Residuals:
    """Return the residuals of all trials.

    Parameters
    ----------
    z : (n_trials, n_voxels) float32
        Standardised within sessions, in time order.
    image, session : (n_trials,) int64

    Raises
    ------
    DataError
        A value is not finite, or no image has two trials.
    """
    check_shape(image.shape, (len(z),), "image")
    check_shape(session.shape, (len(z),), "session")
    if not np.isfinite(z).all():
        raise DataError("Noise is looked at in voxels with data in all trials alone.")
    _, row, n_repeats = np.unique(image, return_inverse=True, return_counts=True)
    weight = 1 - 1 / n_repeats[row]
    if not weight.any():
        raise DataError("No image was seen twice: nothing tells noise from signal.")
    values = z - average_repeats(z, image).betas[row]
    return Residuals(values, weight, session, image)


def noise_residuals(
    data_set: DataSet, subject: int, data: DataConfig, responses: Responses
) -> tuple[Residuals, npt.NDArray[np.int64]]:
    """Read all trials of a subject; return residuals and the voxels they are of.

    Parameters
    ----------
    data_set, subject, data
        As for `prepare_responses`.
    responses : Responses
        Of the same subject and data.

    Returns
    -------
    residuals : Residuals
    voxels : (n,) int64
        Columns of the responses that hold data in every trial.
    """
    every = range(responses.betas.shape[1])
    known = Known(responses.units, responses.nsd_id, responses.split)
    z, trials = read_trials(data_set, subject, data, known, every)
    voxels = np.flatnonzero(np.isfinite(z).all(axis=0))
    found = residuals_of(z[:, voxels], trials.image_id, trials.session)
    return found, voxels


def correlation_between_trials(residuals: Residuals, n_lags: int) -> Doubles:
    """Return the correlation of the noise 1 to `n_lags` trials apart, (n_lags,).

    Means over voxels, within sessions, of pairs of trials of different images.
    """
    values, weight = residuals.values, residuals.weight
    variance = float((values**2).sum(dtype=np.float64) / weight.sum())
    found = []
    for lag in range(1, n_lags + 1):
        pair = (residuals.session[lag:] == residuals.session[:-lag]) & (
            residuals.image[lag:] != residuals.image[:-lag]
        )
        products = np.einsum("tv,tv->t", values[lag:], values[:-lag])[pair]
        expected = (weight[lag:] * weight[:-lag])[pair].sum() * variance
        found.append(float(products.sum(dtype=np.float64)) / expected)
    return np.array(found)


def by_distance(
    correlations: dict[str, Doubles],
    voxel_ijk: npt.NDArray[np.int32],
    edges: Sequence[float],
) -> pd.DataFrame:
    """Return the mean correlation of pairs of voxels by their distance.

    Parameters
    ----------
    correlations : dict of str to (n_voxels, n_voxels)
        By name, a column each.
    voxel_ijk : (n_voxels, 3) int32
    edges : sequence of float
        Of the bins, ascending, in voxels.

    Returns
    -------
    DataFrame
        Columns: distance (mean, in voxels), n_pairs, and the mean of each matrix; bins
        without a pair are left out.
    """
    first, second = np.triu_indices(len(voxel_ijk), 1)
    apart = np.linalg.norm(
        (voxel_ijk[first] - voxel_ijk[second]).astype(np.float32), axis=1
    )
    place = np.digitize(apart, edges) - 1
    inside = (place >= 0) & (place < len(edges) - 1)
    columns = {"distance": apart[inside]}
    columns |= {k: r[first, second][inside] for k, r in correlations.items()}
    grouped = pd.DataFrame(columns).groupby(place[inside])
    table = grouped.mean().reset_index(drop=True)
    table.insert(1, "n_pairs", grouped.size().to_numpy())
    return table
