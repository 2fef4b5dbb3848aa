"""Intervals equal scipy's, cover as often as they say, and the old ones did not.

The simulations use the variance components of paired differences in the demo's study of
stage 2 (in silico, data/study/first_world/scores.csv, 4 subjects x 8 images): SSIM of
the engine `fast` minus stage 1 has standard deviations .028 of a subject, .035 of an
image, .045 of the rest; they are estimated again here from that file.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.inference import (
    POWER,
    estimate,
    estimate_subjects,
    jackknife,
    t_interval,
)
from minddiff_utils.evaluation.claims.rules import rank_correlation
from minddiff_utils.evaluation.summaries import Matrices

Floats = npt.NDArray[np.float64]

SUBJECT, IMAGE, REST = 0.028, 0.035, 0.045
#: Error rate of a rule at its bound, on one side.
NOMINAL = 0.025
N_DRAWS = 4000
#: Twice the Monte Carlo error of a rate of .025 from so many draws: .005.
ERROR = 2 * np.sqrt(NOMINAL * (1 - NOMINAL) / N_DRAWS)
#: The demo's images until now and from now on, and NSD's 982 shared images.
SIZES = [(4, 12), (4, 60), (4, 982)]


def draws(
    rng: np.random.Generator,
    n_draws: int,
    n_subjects: int,
    n_images: int,
    *,
    subject: float = SUBJECT,
) -> Floats:
    """Return differences (n_draws, n_subjects, n_images) of mean 0 in these subjects.

    The subjects are fixed: what each gains differs, and their mean is 0.
    """
    own = rng.normal(0, subject, (n_draws, n_subjects, 1))
    own -= own.mean(axis=1, keepdims=True)
    images = rng.normal(0, IMAGE, (n_draws, 1, n_images))
    return own + images + rng.normal(0, REST, (n_draws, n_subjects, n_images))


def is_above(values: Floats, bound: float = 0.0) -> bool:
    return estimate(values).low > bound


# --- the estimate -------------------------------------------------------------------


def test_the_interval_over_images_is_scipys(rng: np.random.Generator) -> None:
    values = rng.normal(0.1, 1.0, (4, 9))
    result = estimate(values, confidence=0.9)
    images = stats.ttest_1samp(values.mean(axis=0), 0).confidence_interval(0.9)
    subjects = stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.9)
    assert (result.low, result.high) == pytest.approx((images.low, images.high))
    assert result.subjects_low == pytest.approx(subjects.low)
    assert result.subjects_high == pytest.approx(subjects.high)
    assert result.value == pytest.approx(values.mean())
    assert (result.n_images, result.n_subjects) == (9, 4)
    assert result.n_positive == (values.mean(axis=1) > 0).sum()


def test_one_subject_is_a_row_of_images(rng: np.random.Generator) -> None:
    values = rng.normal(size=7)
    flat, row = estimate(values), estimate(values[None])
    assert flat.low == row.low
    assert np.isnan([flat.subjects_low, flat.subjects_high]).all()


def test_one_image_has_no_interval() -> None:
    result = estimate([[0.3], [0.5]])
    assert result.value == pytest.approx(0.4)
    assert np.isnan([result.low, result.high, result.smallest_effect]).all()
    assert result.subjects_low < 0.4 < result.subjects_high


def test_one_number_per_subject_has_subjects_as_its_unit() -> None:
    result = estimate_subjects([1.0, 2.0, 3.0])
    assert (result.n_images, result.n_subjects, result.n_positive) == (0, 3, 3)
    assert np.isnan([result.low, result.high]).all()
    bounds = stats.ttest_1samp([1.0, 2.0, 3.0], 0).confidence_interval()
    assert result.subjects_low == pytest.approx(bounds.low)
    # (t of .975 and of .80 with 2 degrees of freedom) / sqrt(3)
    assert result.smallest_effect == pytest.approx((4.3027 + 1.0607) / 3**0.5, 1e-3)


@pytest.mark.parametrize(
    ("values", "words"), [(np.empty((4, 0)), "empty"), ([[1.0, np.nan]], "NaN")]
)
def test_values_that_cannot_be_averaged_are_refused(
    values: npt.ArrayLike, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        estimate(values)


def test_a_confidence_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"confidence is 1\.5"):
        t_interval(np.ones(3), 1.5)


@pytest.mark.parametrize("n_images", [8, 12, 60])
def test_the_smallest_effect_is_shown_with_the_stated_power(
    n_images: int, rng: np.random.Generator
) -> None:
    sd = np.sqrt(IMAGE**2 + REST**2 / 4)
    expected = stats.t.ppf([0.975, POWER], n_images - 1).sum() * sd / np.sqrt(n_images)
    shown, smallest = 0, []
    for values in draws(rng, 1000, 4, n_images):
        smallest.append(estimate(values).smallest_effect)
        shown += is_above(values + expected)
    assert np.mean(smallest) == pytest.approx(expected, rel=0.05)
    # the sum of two quantiles is an approximation; binomial error .013
    assert shown / 1000 == pytest.approx(POWER, abs=0.05)


# --- error rates at the demo's and NSD's sizes ----------------------------------------


@pytest.mark.parametrize(("n_subjects", "n_images"), SIZES)
def test_a_null_effect_is_shown_as_often_as_stated(
    n_subjects: int, n_images: int, rng: np.random.Generator
) -> None:
    n_draws = N_DRAWS if n_images < 100 else N_DRAWS // 2
    low = [
        estimate(values).low > 0 for values in draws(rng, n_draws, n_subjects, n_images)
    ]
    error = ERROR * np.sqrt(N_DRAWS / n_draws)
    assert np.mean(low) == pytest.approx(NOMINAL, abs=error)


@pytest.mark.parametrize(("n_subjects", "n_images"), SIZES[:2])
def test_a_conjunction_errs_no_more_often_at_its_worst_null(
    n_subjects: int, n_images: int, rng: np.random.Generator
) -> None:
    # all three endpoints must be shown (C4 to C6); at worst two are certain, one is 0
    held = 0
    for values in draws(rng, N_DRAWS, n_subjects, n_images):
        held += is_above(values) and is_above(values + 1.0) and is_above(values + 2.0)
    assert held / N_DRAWS <= NOMINAL + ERROR


@pytest.mark.parametrize(("n_subjects", "n_images"), SIZES[:2])
def test_every_subject_errs_no_more_often_where_one_subject_is_at_chance(
    n_subjects: int, n_images: int, rng: np.random.Generator
) -> None:
    # C7: each subject's own interval must lie above; three do, the last gains nothing
    held = 0
    for values in draws(rng, N_DRAWS, n_subjects, n_images, subject=0.0):
        shifted = values + np.array([1.0, 1.0, 1.0, 0.0])[:, None]
        held += all(is_above(row) for row in shifted)
    assert held / N_DRAWS == pytest.approx(NOMINAL, abs=ERROR)


def test_equivalence_errs_no_more_often_at_its_margin(rng: np.random.Generator) -> None:
    # C1 to C3 on 500 images of one subject, the true mean at the margin of .03
    held = 0
    for values in rng.normal(0.03, 0.15, (2000, 500)):
        result = estimate(values)
        held += result.low > -0.03 and result.high < 0.03
    assert held / 2000 <= NOMINAL + ERROR * np.sqrt(2)


@pytest.mark.parametrize(("n_images", "n_draws"), [(12, 600), (60, 300)])
def test_a_rank_correlation_of_0_is_shown_as_often_as_stated(
    n_images: int, n_draws: int, rng: np.random.Generator
) -> None:
    # C10 and C11; a share of each value is the image's, the same in all subjects
    shown = 0
    for _ in range(n_draws):
        x, y = (
            rng.normal(size=(1, n_images)) + rng.normal(size=(4, n_images))
            for _ in range(2)
        )
        shown += rank_correlation(x, y).low > 0
    # the jackknife is somewhat liberal where images are few: .04 and twice the Monte
    # Carlo error of .008 are accepted
    assert shown / n_draws <= 0.04 + 0.016


def test_the_rank_correlation_is_scipys_mean(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 3, 15))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    result = rank_correlation(x, y)
    assert result.value == pytest.approx(np.mean(expected))
    assert result.n_positive == (np.array(expected) > 0).sum()


# --- the intervals that this project had before ---------------------------------------


def crossed_bootstrap(values: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Return the percentile interval over subjects and images drawn together."""
    n_subjects, n_images = values.shape
    means = [
        rng.multinomial(n_subjects, [1 / n_subjects] * n_subjects)
        @ values
        @ rng.multinomial(n_images, [1 / n_images] * n_images)
        / values.size
        for _ in range(200)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def false_positives(
    rng: np.random.Generator, sizes: tuple[int, int], *, subject: float, fixed: bool
) -> float:
    """Return how often the old interval lies above a true mean of 0."""
    n_subjects, n_images = sizes
    above = 0
    for values in draws(rng, 200, n_subjects, n_images, subject=0.0):
        own = rng.normal(0, subject, (n_subjects, 1))
        own -= own.mean() if fixed else 0.0
        above += crossed_bootstrap(values + own, rng)[0] > 0
    return above / 200


def test_the_old_interval_was_too_narrow_for_new_subjects_at_nsds_size(
    rng: np.random.Generator,
) -> None:
    rate = false_positives(rng, (4, 982), subject=SUBJECT, fixed=False)
    assert rate > NOMINAL + 3 * np.sqrt(NOMINAL * (1 - NOMINAL) / 200)


def test_the_old_interval_was_too_wide_for_the_demos_subjects(
    rng: np.random.Generator,
) -> None:
    # subjects that differ much, as in PCC: the interval hardly ever errs, and so
    # hardly ever shows anything
    rate = false_positives(rng, (4, 12), subject=0.05, fixed=True)
    assert rate <= NOMINAL / 2


def test_the_components_are_those_of_the_demos_study() -> None:
    path = Path(__file__).parents[1] / "data/study/first_world/scores.csv"
    scores = pd.read_csv(path).astype({"subject": str})
    d = Matrices(scores).contrast("fast", "none", "ssim_2d").to_numpy()
    n_subjects, n_images = d.shape
    subjects, images = d.mean(axis=1, keepdims=True), d.mean(axis=0, keepdims=True)
    rest = (d - subjects - images + d.mean()).ravel() @ (
        d - subjects - images + d.mean()
    ).ravel()
    rest /= (n_subjects - 1) * (n_images - 1)
    of_images = (n_subjects * images.var(ddof=1) - rest) / n_subjects
    of_subjects = (n_images * subjects.var(ddof=1) - rest) / n_images
    found = np.sqrt([of_subjects, of_images, rest])
    np.testing.assert_allclose(found, [SUBJECT, IMAGE, REST], atol=0.0006)


# --- the jackknife --------------------------------------------------------------------


def test_the_jackknife_of_a_mean_is_the_interval_of_the_mean(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(size=(3, 11))
    direct = estimate(values)
    result = jackknife(lambda rows: values[:, rows].mean(axis=1), 11)
    assert (result.value, result.low, result.high) == pytest.approx(
        (direct.value, direct.low, direct.high)
    )
    assert result.n_positive == direct.n_positive
    assert result.subjects_low == pytest.approx(direct.subjects_low)


def test_too_few_images_for_a_correlation_are_refused() -> None:
    with pytest.raises(DataError, match="over 3 images"):
        jackknife(lambda _: np.zeros(2), 3)
