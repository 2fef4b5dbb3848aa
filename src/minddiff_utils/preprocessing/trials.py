"""Single trials, scaled within their sessions and averaged over repeats.

Pure functions on arrays. Values that are invalid or filled are counted, never repaired
silently.

Notation
--------
v = voxel, s = session, i = image, t = trial.
z_vst = (b_vst - mean_vs) / sd_vs ; y_vi = mean over the valid repeats of z.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from minddiff_utils.core.errors import DataError, check_finite, check_shape
from minddiff_utils.core.types import IntArray, Mask, Matrix

__all__ = [
    "Averaged",
    "Scaling",
    "average_repeats",
    "fit_scaling",
    "zscore_sessions",
]


@dataclass(frozen=True)
class Scaling:
    """A standardisation fitted on some rows, to be applied to any.

    Attributes
    ----------
    mean, scale : (n_columns,) float32
        Mean and SD (n - 1) of the rows it was fitted on; scale is 1 where invalid.
    valid : (n_columns,) bool
        False where the fitted rows are constant: there is no signal to scale.
    """

    mean: Matrix
    scale: Matrix
    valid: Mask

    def apply(self, X: Matrix) -> Matrix:
        """Return (X - mean) / scale, with NaN in invalid columns."""
        check_shape(X.shape, (None, len(self.mean)), "X")
        scaled = (X - self.mean) / self.scale
        scaled[:, ~self.valid] = np.nan
        return scaled.astype(np.float32)


def fit_scaling(X_train: Matrix) -> Scaling:
    """Fit mean and SD of each column, (n_rows, n_columns), on training rows only.

    Raises
    ------
    DataError
        Fewer than two rows, or a NaN or infinite value.
    """
    check_shape(X_train.shape, (None, None), "X_train")
    if len(X_train) < 2:
        raise DataError(
            f"Scaling needs at least 2 training rows, but has {len(X_train)}: "
            "use more sessions or fewer validation images."
        )
    check_finite(bool(np.isfinite(X_train).all()), "X_train")
    wide = X_train.astype(np.float64)
    deviation = wide.std(axis=0, ddof=1)
    valid = np.ptp(X_train, axis=0) > 0
    scale = np.where(valid, deviation, 1.0).astype(np.float32)
    return Scaling(wide.mean(axis=0).astype(np.float32), scale, valid)


def zscore_sessions(percent: Matrix, session: IntArray, fit_rows: Mask) -> Matrix:
    """Standardise each voxel within each session, (n_trials, n_voxels) float32.

    Mean and SD (n - 1, as NSD's `calczscore`) come from the trials in `fit_rows` alone.
    A voxel that is constant there in a session (NSD stores zeros where a voxel left the
    slab) is invalid in that session and NaN in the result.

    Raises
    ------
    DataError
        NaN in the input, shapes that do not match, or a session without fit rows.
    """
    check_shape(session.shape, (len(percent),), "session")
    check_shape(fit_rows.shape, (len(percent),), "fit_rows")
    check_finite(bool(np.isfinite(percent).all()), "Betas")
    z = np.empty_like(percent, dtype=np.float32)
    for number in np.unique(session):
        rows = session == number
        z[rows] = fit_scaling(percent[rows & fit_rows]).apply(percent[rows])
    return z


@dataclass(frozen=True)
class Averaged:
    """Responses averaged over repeats, rows ascending by image.

    Attributes
    ----------
    image : (n_images,) int64
        The distinct images.
    betas : (n_images, n_voxels) float32
        Mean over valid repeats; 0, the session mean, where no repeat is valid.
    n_repeats : (n_images,) int32
        Trials of each image, valid or not.
    n_valid : (n_images, n_voxels) int32
        Repeats that are valid in each voxel; where there is none, betas are filled.
    """

    image: IntArray
    betas: Matrix
    n_repeats: npt.NDArray[np.int32]
    n_valid: npt.NDArray[np.int32]

    @property
    def n_filled(self) -> int:
        """Return how many values are 0 because no repeat was valid."""
        return int((self.n_valid == 0).sum())


def average_repeats(z: Matrix, image: IntArray) -> Averaged:
    """Average the trials of each image over its valid (not NaN) repeats.

    Raises
    ------
    DataError
        An infinite value, or as many image indices as trials are not given.
    """
    check_shape(image.shape, (len(z),), "image")
    check_finite(not np.isinf(z).any(), "Standardised responses")
    distinct, row, n_repeats = np.unique(image, return_inverse=True, return_counts=True)
    shape = (len(distinct), len(z))
    ones = np.ones(len(z), np.float64)
    gather = sparse.csr_array((ones, (row, np.arange(len(z)))), shape=shape)
    valid = np.isfinite(z)
    total = gather @ np.where(valid, z, 0).astype(np.float64)  # (n_images, n_voxels)
    count = gather @ valid.astype(np.float64)
    betas = (total / np.maximum(count, 1)).astype(np.float32)
    return Averaged(distinct, betas, n_repeats.astype(np.int32), count.astype(np.int32))
