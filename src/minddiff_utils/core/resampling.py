"""Intervals and tests by resampling: bootstrap, sign flips, permutations, Holm.

Everything random takes a generator or a named stream; nothing here knows what a score
means or what a table looks like.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import ConfigError, DataError, check_finite, check_shape
from minddiff_utils.core.types import Floats, IntArray

__all__ = [
    "Interval",
    "Resampling",
    "bootstrap_interval",
    "crossed_bootstrap_interval",
    "exact_sign_flip_test",
    "holm",
    "paired_permutation_test",
    "permutation_p",
]

Stream = Callable[..., np.random.Generator]

#: Above this many units all sign flips are not enumerated.
_MAX_EXACT_UNITS = 16


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval and the number of units behind it."""

    value: float
    low: float
    high: float
    n: int


def _check_sample(values: npt.ArrayLike, name: str) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise DataError(f"{name} is empty: evaluate at least one image.")
    check_finite(bool(np.isfinite(sample).all()), name)
    return sample


def _percentiles(draws: Floats, confidence: float) -> tuple[float, float]:
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence is {confidence}, but must lie between 0 and 1.")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)


def bootstrap_interval(
    values: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of `values` with a percentile bootstrap interval over images.

    With about ten images a percentile interval is somewhat too narrow (by about a
    tenth); read borderline cases accordingly.

    Parameters
    ----------
    values : float (n_images,)
        One score per image; the image is the unit that is resampled.
    rng : numpy Generator
        Source of the draws.
    n_bootstrap : int
        Number of draws.
    confidence : float
        Nominal coverage.

    Returns
    -------
    Interval
        With one image, low and high are NaN.

    Raises
    ------
    DataError
        No values, or values that are not finite.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    sample = _check_sample(values, "The scores")
    check_shape(sample.shape, (None,), "The scores")
    if len(sample) == 1:
        return Interval(float(sample[0]), float("nan"), float("nan"), 1)
    rows = rng.integers(0, len(sample), size=(n_bootstrap, len(sample)))
    low, high = _percentiles(sample[rows].mean(axis=1), confidence)
    return Interval(float(sample.mean()), low, high, len(sample))


def crossed_bootstrap_interval(
    values: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of subject means, resampling subjects and images together.

    All subjects see the same images, so neither is nested in the other: each draw
    takes subjects with replacement and, independently, images with replacement. With
    one subject this is the bootstrap over images. Conservative where subjects hardly
    differ. With four subjects that differ as much as images do, a nominal 0.95 covers
    about 0.83 (simulated, four subjects and 60 images): read it beside the number of
    subjects that share the sign.

    Parameters
    ----------
    values : float (n_subjects, n_images)
        Scores, one row per subject, one column per image.
    rng, n_bootstrap, confidence
        As for `bootstrap_interval`.

    Returns
    -------
    Interval
        `n` counts subjects.

    References
    ----------
    Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1(2).
    """
    sample = _check_sample(values, "The scores")
    check_shape(sample.shape, (None, None), "The scores")
    n_subjects, n_images = sample.shape
    if sample.size == 1:
        return Interval(float(sample[0, 0]), float("nan"), float("nan"), 1)
    who = rng.integers(0, n_subjects, size=(n_bootstrap, n_subjects, 1))
    what = rng.integers(0, n_images, size=(n_bootstrap, 1, n_images))
    low, high = _percentiles(_crossed_means(sample, who, what), confidence)
    return Interval(float(sample.mean()), low, high, n_subjects)


def _crossed_means(sample: Floats, who: IntArray, what: IntArray) -> Floats:
    """Return the mean of each draw; counts instead of copies keep memory small."""
    n_draws, (n_subjects, n_images) = len(who), sample.shape
    weight_who = np.zeros((n_draws, n_subjects))
    weight_what = np.zeros((n_draws, n_images))
    draw = np.arange(n_draws)[:, None]
    np.add.at(weight_who, (draw, who[:, :, 0]), 1.0 / n_subjects)
    np.add.at(weight_what, (draw, what[:, 0, :]), 1.0 / n_images)
    return np.asarray(((weight_who @ sample) * weight_what).sum(axis=1))


def permutation_p(observed: float, null: npt.ArrayLike) -> float:
    """Return ``(1 + #{null >= observed}) / (1 + N)``, never 0.

    Parameters
    ----------
    observed : float
        Statistic of the data; larger means more evidence.
    null : float (n_permutations,)
        The statistic under permutations.

    Returns
    -------
    float
        In (0, 1].

    References
    ----------
    Phipson and Smyth (2010), Permutation p-values should never be zero.

    Examples
    --------
    >>> permutation_p(2.0, [0.0, 1.0, 3.0])
    0.5
    """
    draws = _check_sample(null, "The null distribution")
    check_finite(bool(np.isfinite(observed)), "The observed statistic")
    slack = 1e-12 * max(1.0, abs(observed))  # a tie that rounding broke is still a tie
    return float((1 + np.count_nonzero(draws >= observed - slack)) / (1 + draws.size))


def paired_permutation_test(
    differences: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    n_permutations: int = 2000,
    alternative: Literal["two-sided", "greater"] = "two-sided",
) -> float:
    """Return the p of a mean difference of 0, by random sign flips.

    Parameters
    ----------
    differences : float (n,)
        One difference per unit.
    rng : numpy Generator
        Source of the flips.
    n_permutations : int
        Number of flips drawn; p is at least 1 / (1 + n_permutations).
    alternative : {"two-sided", "greater"}
        What counts as evidence: a mean far from 0, or one above 0.

    Returns
    -------
    float
        In (0, 1].
    """
    sample = _check_sample(differences, "The differences")
    check_shape(sample.shape, (None,), "The differences")
    signs = rng.integers(0, 2, size=(n_permutations, len(sample))) * 2.0 - 1.0
    null = signs @ sample / len(sample)
    if alternative == "greater":
        return permutation_p(sample.mean(), null)
    return permutation_p(abs(sample.mean()), np.abs(null))


def exact_sign_flip_test(differences: npt.ArrayLike) -> float:
    """Return the two-sided p of a mean difference of 0 over all sign flips.

    For few units, such as subjects: with four the smallest p is 2/16, so that four
    subjects alone can never reach 0.05.

    Parameters
    ----------
    differences : float (n,)
        One difference per unit, at most 16 units.

    Returns
    -------
    float
        Share of the 2^n flips at least as far from 0, in (0, 1].

    Examples
    --------
    >>> exact_sign_flip_test([1.0, 2.0, 1.0, 3.0])
    0.125
    """
    sample = _check_sample(differences, "The differences")
    check_shape(sample.shape, (None,), "The differences")
    if len(sample) > _MAX_EXACT_UNITS:
        raise DataError(
            f"{len(sample)} units have too many sign flips to list, at most "
            f"{_MAX_EXACT_UNITS}: use paired_permutation_test."
        )
    flips = np.array(list(itertools.product((1.0, -1.0), repeat=len(sample))))
    null = np.abs(flips @ sample) / len(sample)
    observed = abs(sample.mean())
    slack = 1e-12 * max(1.0, observed)
    return float(np.mean(null >= observed - slack))


def holm(p_values: npt.ArrayLike) -> Floats:
    """Return p values adjusted for the number of tests, in their order.

    The k-th smallest of m is multiplied by m - k + 1, then made to rise.

    Parameters
    ----------
    p_values : float (n_tests,)

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _check_sample(p_values, "The p values")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


@dataclass(frozen=True)
class Resampling:
    """How many draws, at which confidence, from which named streams."""

    stream: Stream
    n_bootstrap: int = 2000
    n_permutations: int = 2000
    confidence: float = 0.95

    def interval(self, values: Floats, *names: str) -> Interval:
        """Return the mean with its interval, from the stream of these names.

        Over images where `values` is (n_images,), over subjects and images where it is
        (n_subjects, n_images).
        """
        crossed = np.ndim(values) == 2
        bootstrap = crossed_bootstrap_interval if crossed else bootstrap_interval
        return bootstrap(
            values,
            rng=self.stream("bootstrap", *names),
            n_bootstrap=self.n_bootstrap,
            confidence=self.confidence,
        )
