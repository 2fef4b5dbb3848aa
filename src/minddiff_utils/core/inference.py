"""Estimates with intervals: these subjects, new images; beside it, new subjects.

The primary inference takes the subjects as they are and the images as a sample: values
are averaged over subjects, and Student's t over images gives the interval. The
secondary one takes the subjects as the sample. Nothing here knows what a score means.

References
----------
Westfall, Kenny and Judd (2014), Statistical power and optimal design in experiments in
which samples of participants respond to samples of stimuli, J. Exp. Psychol. Gen. 143.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from minddiff_utils.core.errors import ConfigError, DataError, check_finite, check_shape
from minddiff_utils.core.types import Doubles, IntArray

__all__ = [
    "POWER",
    "Estimate",
    "estimate",
    "estimate_subjects",
    "jackknife",
    "t_interval",
]

#: Probability with which `Estimate.smallest_effect` would be shown.
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A mean with the interval of each inference, and what this n could show.

    Attributes
    ----------
    value : float
        Mean over images and subjects.
    low, high : float
        Ends of the interval for these subjects and new images; NaN for one image.
    smallest_effect : float
        The smallest distance from a bound that this many images would show (the
        interval on one side of the bound) with a probability of `POWER`.
    n_images, n_subjects : int
    n_positive : int
        Subjects whose own mean is above 0.
    subjects_low, subjects_high : float
        Ends of the interval for new subjects and these images: t over subject means
        with n_subjects - 1 degrees of freedom; NaN for one subject.
    """

    value: float
    low: float
    high: float
    smallest_effect: float
    n_images: int
    n_subjects: int
    n_positive: int
    subjects_low: float
    subjects_high: float


def t_interval(sample: Doubles, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the ends of Student's interval of a mean, and its standard error.

    Parameters
    ----------
    sample : float (n,)
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high, standard_error : float
        NaN where n is 1.

    Examples
    --------
    >>> [round(x, 3) for x in t_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.484, 4.484, 0.577]
    """
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence is {confidence}, but must lie between 0 and 1.")
    n, mean = len(sample), float(sample.mean())
    if n < 2:
        return np.nan, np.nan, np.nan
    error = float(sample.std(ddof=1) / np.sqrt(n))
    half = _t((1 + confidence) / 2, n - 1) * error
    return mean - half, mean + half, error


@cache
def _t(probability: float, n_free: int) -> float:
    """Return Student's quantile: the same few are asked for thousands of times."""
    return float(stats.t.ppf(probability, n_free))


def estimate(values: npt.ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the mean of subjects x images with its intervals.

    Parameters
    ----------
    values : float (n_subjects, n_images) or (n_images,)
        Scores or paired differences of the same images in every subject.
    confidence : float
        Of both intervals.

    Raises
    ------
    DataError
        No values, or values that are not finite.
    """
    sample = np.atleast_2d(np.asarray(values, dtype=np.float64))
    check_shape(sample.shape, (None, None), "The values")
    if sample.size == 0:
        raise DataError("The values are empty: evaluate at least one image.")
    check_finite(bool(np.isfinite(sample).all()), "The values")
    n_subjects, n_images = sample.shape
    low, high, error = t_interval(sample.mean(axis=0), confidence)
    by_subject = sample.mean(axis=1)
    subjects_low, subjects_high, _ = t_interval(by_subject, confidence)
    return Estimate(
        float(sample.mean()),
        low,
        high,
        _smallest(error, n_images, confidence),
        n_images,
        n_subjects,
        int((by_subject > 0).sum()),
        subjects_low,
        subjects_high,
    )


def _smallest(error: float, n: int, confidence: float) -> float:
    """Return the effect that `n` units with this standard error would show."""
    if n < 2:
        return np.nan
    return (_t((1 + confidence) / 2, n - 1) + _t(POWER, n - 1)) * error


def estimate_subjects(values: npt.ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the mean of one number per subject; subjects are the only unit.

    `low` and `high` are NaN and `n_images` is 0; `smallest_effect` is of subjects.

    Parameters
    ----------
    values : float (n_subjects,)
    """
    sample = np.asarray(values, dtype=np.float64)
    check_shape(sample.shape, (None,), "The values")
    result = estimate(sample[:, None], confidence=confidence)
    error = t_interval(sample, confidence)[2]
    smallest = _smallest(error, len(sample), confidence)
    return replace(
        result, low=np.nan, high=np.nan, smallest_effect=smallest, n_images=0
    )


def jackknife(
    statistic: Callable[[IntArray], Doubles],
    n_images: int,
    *,
    confidence: float = 0.95,
) -> Estimate:
    """Return a statistic of all images, such as a correlation, with its intervals.

    Each image's pseudo-value, n t - (n - 1) t without the image, takes the place of a
    score; the mean over subjects and its interval over images follow as in `estimate`,
    centred on the statistic itself.

    Parameters
    ----------
    statistic : callable
        Rows of images to one value per subject (n_subjects,).
    n_images : int
        At least 4.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 11.
    """
    if n_images < 4:
        raise DataError(
            f"A correlation over {n_images} images has no interval: evaluate 4 or more."
        )
    rows = np.arange(n_images)
    whole = np.asarray(statistic(rows), dtype=np.float64)
    without = np.stack([statistic(np.delete(rows, k)) for k in rows], axis=1)
    pseudo = n_images * whole[:, None] - (n_images - 1) * without
    result = estimate(pseudo, confidence=confidence)
    shift = float(whole.mean()) - result.value
    subjects_low, subjects_high, _ = t_interval(whole, confidence)
    return replace(
        result,
        value=float(whole.mean()),
        low=result.low + shift,
        high=result.high + shift,
        n_positive=int((whole > 0).sum()),
        subjects_low=subjects_low,
        subjects_high=subjects_high,
    )
