"""Intervals cover, and p-values equal hand counts and scipy's."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest
import scipy.stats

from minddiff_utils.core import resampling
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.resampling import (
    bootstrap_interval,
    crossed_bootstrap_interval,
    exact_sign_flip_test,
    paired_permutation_test,
)
from minddiff_utils.core.rng import stream

# --- intervals ----------------------------------------------------------------------


def test_the_interval_of_a_mean_matches_its_normal_theory(
    rng: np.random.Generator,
) -> None:
    sample = rng.normal(3.0, 2.0, 400)
    interval = bootstrap_interval(sample, rng=rng, n_bootstrap=4000)
    half = 1.96 * sample.std() / 20  # 20 = root of n
    assert (interval.value, interval.n) == (sample.mean(), 400)
    # quantiles of 4000 draws have a standard error of about 3 % of the half width
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.1 * half)


def test_crossed_draws_are_means_of_resampled_rows_and_columns(
    rng: np.random.Generator,
) -> None:
    sample = rng.normal(size=(3, 5))
    same = stream(1, "crossed")
    rows, columns = (same.integers(0, n, (50, n)) for n in (3, 5))
    draws = [sample[np.ix_(*ids)].mean() for ids in zip(rows, columns, strict=True)]
    interval = crossed_bootstrap_interval(
        sample, rng=stream(1, "crossed"), n_bootstrap=50
    )
    ends = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose([interval.low, interval.high], ends, atol=1e-12)


@pytest.mark.parametrize(
    ("n_subjects", "n_images", "least", "most"),
    [
        (1, 40, 0.88, 0.99),
        (8, 40, 0.84, 0.99),  # a percentile interval over 8 falls somewhat short
        (4, 60, 0.75, 0.91),  # the 0.83 of the docstring, binomial error 0.022
    ],
)
def test_the_interval_covers_the_truth_about_as_often_as_it_says(
    n_subjects: int, n_images: int, least: float, most: float, rng: np.random.Generator
) -> None:
    hits = 0
    for _ in range(300):
        subjects = rng.normal(size=(n_subjects, 1)) if n_subjects > 1 else 0.0
        images = rng.exponential(1.0, size=(1, n_images)) - 1.0
        noise = rng.normal(size=(n_subjects, n_images))
        interval = crossed_bootstrap_interval(
            subjects + images + noise, rng=rng, n_bootstrap=300
        )
        hits += interval.low <= 0.0 <= interval.high
    assert least < hits / 300 < most  # nominal 0.95


def test_a_wider_confidence_gives_a_wider_interval(rng: np.random.Generator) -> None:
    sample = rng.normal(size=30)
    intervals = [
        bootstrap_interval(sample, rng=stream(1, "same"), confidence=confidence)
        for confidence in (0.5, 0.9, 0.99)
    ]
    widths = [interval.high - interval.low for interval in intervals]
    assert widths == sorted(set(widths))


def test_one_value_has_no_interval(rng: np.random.Generator) -> None:
    for interval in (
        bootstrap_interval([0.3], rng=rng),
        crossed_bootstrap_interval([[0.3]], rng=rng),
    ):
        assert (interval.value, interval.n) == (0.3, 1)
        assert np.isnan([interval.low, interval.high]).all()


def test_ignoring_subjects_would_give_too_narrow_an_interval(
    rng: np.random.Generator,
) -> None:
    scores = rng.normal(size=(6, 1)) + 0.1 * rng.normal(size=(6, 50))
    crossed = crossed_bootstrap_interval(scores, rng=rng)
    images = bootstrap_interval(scores.mean(axis=0), rng=rng)
    assert crossed.value == pytest.approx(images.value)
    assert (crossed.high - crossed.low) > 5 * (images.high - images.low)
    assert crossed.n == 6


# --- tests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "null", "p"),
    [
        (5.0, [1.0, 2.0, 3.0], 1 / 4),  # never 0
        (2.0, [1.0, 2.0, 3.0], 3 / 4),  # a tie counts against
        (0.0, [1.0, 2.0, 3.0], 1.0),
        (0.3, [0.1 + 0.2, 0.0, 0.0], 2 / 4),  # a tie broken by rounding
    ],
)
def test_permutation_p_equals_the_hand_count(
    observed: float, null: Sequence[float], p: float
) -> None:
    assert resampling.permutation_p(observed, null) == pytest.approx(p)


def _scipy_p(sample: Any, alternative: str) -> float:
    result = scipy.stats.permutation_test(
        (sample, np.zeros(len(sample))),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative=alternative,
    )
    return float(result.pvalue)


@pytest.mark.parametrize("n", [2, 4, 9])
def test_exact_sign_flips_equal_scipy_s(n: int, rng: np.random.Generator) -> None:
    sample = rng.normal(0.5, 1.0, n)
    expected = _scipy_p(sample, "two-sided")
    assert exact_sign_flip_test(sample) == pytest.approx(expected)


def test_four_subjects_alone_cannot_reach_significance() -> None:
    assert exact_sign_flip_test([1.0, 9.0, 2.0, 5.0]) == 2 / 16
    assert exact_sign_flip_test([0.0, 0.0]) == 1.0


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_random_flips_approach_scipy_s_exact_p(
    alternative: Literal["two-sided", "greater"], rng: np.random.Generator
) -> None:
    sample = rng.normal(0.4, 1.0, 12)
    p = paired_permutation_test(
        sample, rng=rng, n_permutations=20_000, alternative=alternative
    )
    # binomial error of 20,000 draws is below 0.004
    assert p == pytest.approx(_scipy_p(sample, alternative), abs=0.015)


def test_p_values_are_uniform_without_an_effect(rng: np.random.Generator) -> None:
    p = [
        paired_permutation_test(rng.normal(size=15), rng=rng, n_permutations=99)
        for _ in range(400)
    ]
    assert 0.015 < np.mean(np.array(p) <= 0.05) < 0.09  # binomial error 0.011
    assert paired_permutation_test(np.zeros(6), rng=rng) == 1.0


def test_holm_equals_the_definition_and_never_falls(rng: np.random.Generator) -> None:
    p = rng.random(7)
    adjusted = resampling.holm(p)
    order = np.argsort(p)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (7 - rank) * p[index]))
        assert adjusted[index] == pytest.approx(highest, rel=1e-12)
    assert (np.diff(adjusted[order]) >= 0).all()
    assert resampling.holm([0.2]).tolist() == [0.2]


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda rng: bootstrap_interval([], rng=rng), "is empty"),
        (lambda rng: bootstrap_interval([1.0, np.nan], rng=rng), "NaN"),
        (lambda rng: crossed_bootstrap_interval([1.0, 2.0], rng=rng), "shape"),
        (
            lambda rng: bootstrap_interval([1.0, 2.0], rng=rng, confidence=1.0),
            r"confidence is 1\.0",
        ),
        (
            lambda _: exact_sign_flip_test(np.ones(17)),
            "use paired_permutation_test",
        ),
        (lambda _: resampling.permutation_p(1.0, []), "null distribution is empty"),
    ],
)
def test_samples_that_cannot_be_resampled_are_refused(
    refused: Callable[[np.random.Generator], Any],
    words: str,
    rng: np.random.Generator,
) -> None:
    with pytest.raises((ConfigError, DataError), match=words):
        refused(rng)
