"""How well a voxel could be predicted at best: its noise-ceiling SNR and its ceiling.

Notation
--------
v^2 = noise variance of z-scored trials, m = repeats of an image,
NC = noise ceiling, percent of variance.

References
----------
Allen, E. J. et al. (2022). Nature Neuroscience 25, 116-126, noise ceiling in Methods.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_finite, check_shape
from minddiff_utils.core.types import IntArray, Matrix

__all__ = ["ncsnr_of_trials", "noise_ceiling", "noise_ceiling_r"]


def ncsnr_of_trials(z: Matrix, image: IntArray) -> Matrix:
    """Return the noise-ceiling SNR of each voxel, (n_voxels,) float32; NaN if unknown.

    NSD's recipe: over images with exactly three trials, the mean of the variance over
    trials (n - 1) is the noise variance v^2 of z-scored data, and
    ncsnr = sqrt(max(0, 1 - v^2)) / v. Images with an invalid trial at a voxel are
    ignored there.

    References
    ----------
    cvnlab/nsddatapaper, `main/export_noiseceiling.m`.
    """
    check_shape(image.shape, (len(z),), "image")
    order = np.argsort(image, kind="stable")
    _, start, count = np.unique(image[order], return_index=True, return_counts=True)
    first = start[count == 3]
    if not len(first):
        return np.full(z.shape[1], np.nan, np.float32)
    trials = z[order[first[:, None] + np.arange(3)]]  # (n_images, 3, n_voxels)
    variance = trials.astype(np.float64).var(axis=1, ddof=1)
    known = np.isfinite(variance)
    n_known = known.sum(axis=0)
    noise = np.where(known, variance, 0).sum(axis=0) / np.maximum(n_known, 1)
    signal = np.sqrt(np.maximum(0.0, 1.0 - noise))
    usable = (n_known > 0) & (noise > 0)
    ratio = signal / np.sqrt(np.where(usable, noise, 1.0))
    return np.where(usable, ratio, np.nan).astype(np.float32)


def noise_ceiling(ncsnr: Matrix, n_repeats: npt.NDArray[np.integer[Any]]) -> Matrix:
    """Return the noise ceiling, percent of variance, of responses averaged as stated.

    NC = 100 p ncsnr^2 / (ncsnr^2 + mean(1 / m)): with mixed repeats m the noise
    variance of the averages is the mean over images of 1 / m. Where a voxel has no
    repeat (m = 0) the response is its mean, which nothing correlates with: p is the
    share of images that have one, and the mean is over those.

    Parameters
    ----------
    ncsnr : (n_voxels,)
    n_repeats : (n_images,) or (n_images, n_voxels) of int
        Repeats in all voxels, or the valid ones in each, which may be none.

    Raises
    ------
    DataError
        No image, one without repeat, a voxel without any, or an ncsnr that is negative
        or not finite.

    Examples
    --------
    >>> noise_ceiling(np.array([0, 1], np.float32), np.array([3, 3])).tolist()
    [0.0, 75.0]
    """
    least = n_repeats if n_repeats.ndim == 1 else n_repeats.max(axis=0, initial=0)
    if not least.size or least.min() < 1:
        raise DataError("A noise ceiling needs images with at least one repeat each.")
    check_finite(bool(np.isfinite(ncsnr).all()), "ncsnr")
    if (ncsnr < 0).any():
        raise DataError("ncsnr must not be negative: it is a ratio of SDs.")
    power = ncsnr.astype(np.float64) ** 2
    valid = n_repeats > 0
    n_valid = valid.sum(axis=0)
    noise = np.sum(valid / np.maximum(n_repeats, 1), axis=0) / n_valid
    share = n_valid / len(n_repeats)
    return np.asarray(100.0 * share * power / (power + noise), np.float32)


def noise_ceiling_r(ncsnr: Matrix, n_repeats: npt.NDArray[np.integer[Any]]) -> Matrix:
    """Return the highest correlation a perfect model can reach: sqrt(NC / 100)."""
    share = noise_ceiling(ncsnr, n_repeats) / np.float32(100)
    return np.asarray(np.sqrt(share), np.float32)
