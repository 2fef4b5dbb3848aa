"""Intervals cover, p-values equal hand counts, and no cell's number moves another's."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from minddiff_utils.core import statistics
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.rng import stream
from minddiff_utils.core.statistics import Resampling

RESAMPLING = Resampling(partial(stream, 7), n_bootstrap=400, n_permutations=400)


# --- intervals ----------------------------------------------------------------------


def test_the_interval_of_a_mean_matches_its_normal_theory(
    rng: np.random.Generator,
) -> None:
    sample = rng.normal(3.0, 2.0, 400)
    found = statistics.bootstrap_interval(sample, rng=rng, n_bootstrap=4000)
    half = 1.96 * sample.std() / 20  # 20 = root of n
    assert found.value == sample.mean()
    assert found.n == 400
    # quantiles of 4000 draws have a standard error of about 3 % of the half width
    assert found.low == pytest.approx(sample.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(sample.mean() + half, abs=0.1 * half)


def test_the_interval_covers_the_truth_about_as_often_as_it_says(
    rng: np.random.Generator,
) -> None:
    hits = 0
    for _ in range(400):
        found = statistics.bootstrap_interval(
            rng.exponential(1.0, 40), rng=rng, n_bootstrap=300, confidence=0.9
        )
        hits += found.low <= 1.0 <= found.high
    # nominal 0.90, somewhat less for a skewed sample; binomial error is 0.015
    assert 0.83 < hits / 400 < 0.94


def test_a_wider_confidence_gives_a_wider_interval(rng: np.random.Generator) -> None:
    sample = rng.normal(size=30)
    widths = []
    for confidence in (0.5, 0.9, 0.99):
        found = statistics.bootstrap_interval(
            sample, rng=stream(1, "same"), confidence=confidence
        )
        widths.append(found.high - found.low)
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_one_value_has_no_interval(rng: np.random.Generator) -> None:
    single = statistics.bootstrap_interval([0.3], rng=rng)
    crossed = statistics.crossed_bootstrap_interval([[0.3]], rng=rng)
    for found in (single, crossed):
        assert (found.value, found.n) == (0.3, 1)
        assert np.isnan([found.low, found.high]).all()


def test_crossed_draws_are_means_of_resampled_rows_and_columns(
    rng: np.random.Generator,
) -> None:
    sample = rng.normal(size=(3, 5))
    who = rng.integers(0, 3, (50, 3, 1))
    what = rng.integers(0, 5, (50, 1, 5))
    expected = sample[who, what].mean(axis=(1, 2))
    found = statistics._crossed_means(sample, who, what)
    np.testing.assert_allclose(found, expected, atol=1e-12)  # other order of summation


def test_the_crossed_interval_covers_the_truth_under_both_effects(
    rng: np.random.Generator,
) -> None:
    hits = 0
    for _ in range(200):
        subjects, images = rng.normal(size=(8, 1)), rng.normal(size=(1, 40))
        found = statistics.crossed_bootstrap_interval(
            subjects + images + rng.normal(size=(8, 40)), rng=rng, n_bootstrap=300
        )
        hits += found.low <= 0.0 <= found.high
    # nominal 0.95; a percentile interval over 8 subjects falls somewhat short of it
    assert 0.84 < hits / 200 < 0.99


def test_four_differing_subjects_are_covered_as_the_docstring_says(
    rng: np.random.Generator,
) -> None:
    hits = 0
    for _ in range(300):
        subjects, images = rng.normal(size=(4, 1)), rng.normal(size=(1, 60))
        found = statistics.crossed_bootstrap_interval(
            subjects + images + rng.normal(size=(4, 60)), rng=rng, n_bootstrap=300
        )
        hits += found.low <= 0.0 <= found.high
    assert hits / 300 == pytest.approx(0.83, abs=0.08)  # binomial error is 0.022


def test_ignoring_subjects_would_give_too_narrow_an_interval(
    rng: np.random.Generator,
) -> None:
    scores = rng.normal(size=(6, 1)) + 0.1 * rng.normal(size=(6, 50))
    crossed = statistics.crossed_bootstrap_interval(scores, rng=rng)
    images = statistics.bootstrap_interval(scores.mean(axis=0), rng=rng)
    assert crossed.value == pytest.approx(images.value)
    assert (crossed.high - crossed.low) > 5 * (images.high - images.low)
    assert crossed.n == 6


# --- permutation tests --------------------------------------------------------------


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
    assert statistics.permutation_p(observed, null) == pytest.approx(p)


@pytest.mark.parametrize("n", [2, 4, 9])
def test_exact_sign_flips_equal_scipy_s(n: int, rng: np.random.Generator) -> None:
    sample = rng.normal(0.5, 1.0, n)
    expected = scipy.stats.permutation_test(
        (sample, np.zeros(n)),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
    ).pvalue
    assert statistics.exact_sign_flip_test(sample) == pytest.approx(expected)


def test_four_subjects_alone_cannot_reach_significance() -> None:
    assert statistics.exact_sign_flip_test([1.0, 9.0, 2.0, 5.0]) == 2 / 16
    assert statistics.exact_sign_flip_test([0.0, 0.0]) == 1.0


def test_random_flips_approach_the_exact_p(rng: np.random.Generator) -> None:
    sample = rng.normal(0.4, 1.0, 12)
    found = statistics.paired_permutation_test(sample, rng=rng, n_permutations=20_000)
    # binomial error of 20,000 draws is below 0.004
    exact = statistics.exact_sign_flip_test(sample)
    assert found == pytest.approx(exact, abs=0.015)


def test_p_values_are_uniform_without_an_effect(rng: np.random.Generator) -> None:
    p = [
        statistics.paired_permutation_test(
            rng.normal(size=15), rng=rng, n_permutations=99
        )
        for _ in range(400)
    ]
    rejected = np.mean(np.array(p) <= 0.05)
    assert 0.015 < rejected < 0.09  # nominal 0.05, binomial error 0.011


def test_a_difference_of_exactly_0_has_p_1(rng: np.random.Generator) -> None:
    assert statistics.paired_permutation_test(np.zeros(6), rng=rng) == 1.0


# --- tables -------------------------------------------------------------------------


def _scores(methods: Sequence[str], n_images: int = 12) -> pd.DataFrame:
    """Return scores in which each method is 0.1 better than the one before."""
    rng = stream(3, "scores")
    rows = []
    for subject in ("1", "2", "5", "7"):
        base = rng.normal(0.5, 0.1, n_images)
        for rank, method in enumerate(methods):
            own = stream(3, "scores", subject, method)
            values = base + 0.1 * rank + own.normal(0, 0.02, n_images)
            rows += [
                (subject, method, 70 + k, "pcc", value, 0.1)
                for k, value in enumerate(values)
            ]
    columns = ["subject", "method", "nsd_id", "metric", "value", "floor"]
    return pd.DataFrame(rows, columns=columns)


def _row(table: pd.DataFrame, **wanted: str) -> Any:
    for column, value in wanted.items():
        table = table[table[column] == value]
    (found,) = table.itertuples()
    return found


def test_summary_rows_hold_means_floors_and_ceilings() -> None:
    scores = _scores(["stage1", "true_features"])
    table = statistics.summarise(
        scores, resampling=RESAMPLING, ceilings={"stage1": "true_features"}
    )
    assert table.columns.tolist() == [
        *("subject", "method", "metric", "value", "ci_low", "ci_high", "n"),
        *("floor", "ceiling"),
    ]
    own = scores[(scores["subject"] == "2") & (scores["method"] == "stage1")]
    best = scores[(scores["subject"] == "2") & (scores["method"] == "true_features")]
    row = _row(table, subject="2", method="stage1")
    assert row.value == pytest.approx(own["value"].mean())
    assert row.ci_low < row.value < row.ci_high
    assert (row.n, row.floor) == (12, pytest.approx(0.1))
    assert row.ceiling == pytest.approx(best["value"].mean())
    pooled = _row(table, subject="all", method="stage1")
    every = scores[scores["method"] == "stage1"]
    assert (pooled.value, pooled.n) == (pytest.approx(every["value"].mean()), 4)
    assert np.isnan(_row(table, subject="2", method="true_features").ceiling)


def test_a_ceiling_on_the_first_images_lends_its_lead() -> None:
    scores = _scores(["stage2", "stage2_true"])
    there = (scores["method"] == "stage2") | (scores["nsd_id"] <= 75)
    table = statistics.summarise(
        scores[there], resampling=RESAMPLING, ceilings={"stage2": "stage2_true"}
    )
    of_2 = scores[scores["subject"] == "2"]
    wide = of_2.pivot(index="nsd_id", columns="method", values="value")
    first = wide[wide.index <= 75]
    assert 0 < len(first) < len(wide)
    lead = first["stage2_true"].mean() - first["stage2"].mean()
    row = _row(table, subject="2", method="stage2")
    assert row.ceiling == pytest.approx(wide["stage2"].mean() + lead)


def test_a_ceiling_on_other_images_is_no_ceiling() -> None:
    scores = _scores(["stage2", "stage2_true"])
    other = scores["nsd_id"] % 2 == (scores["method"] == "stage2")
    table = statistics.summarise(
        scores[other], resampling=RESAMPLING, ceilings={"stage2": "stage2_true"}
    )
    assert table[table["method"] == "stage2"]["ceiling"].isna().all()


@pytest.mark.parametrize("new", ["added", "zzz"])
def test_adding_a_method_moves_no_other_number(new: str) -> None:
    small = statistics.summarise(
        _scores(["stage1", "stage2"]), resampling=RESAMPLING, ceilings={}
    )
    scores = _scores(["stage1", "stage2", new])
    order = scores["method"].map({new: 0, "stage1": 1, "stage2": 2})
    large = statistics.summarise(
        scores.iloc[order.argsort(kind="stable")], resampling=RESAMPLING, ceilings={}
    )
    kept = large[large["method"] != new].reset_index(drop=True)
    assert kept.equals(small)
    paired = [
        statistics.paired_table(some, "stage2", "stage1", resampling=RESAMPLING)
        for some in (_scores(["stage1", "stage2"]), scores)
    ]
    assert paired[0].equals(paired[1])


def test_paired_table_of_a_hand_made_frame() -> None:
    # differences: subject 1: 1, 2, 3; subject 2: 1, 1, -5; image 12 is not paired
    rows = [
        *(("1", "b", k, "pcc", v) for k, v in ((10, 1.0), (11, 3.0), (13, 6.0))),
        *(("1", "a", k, "pcc", v) for k, v in ((10, 0.0), (11, 1.0), (13, 3.0))),
        *(("2", "b", k, "pcc", v) for k, v in ((10, 1.0), (11, 1.0), (13, 0.0))),
        *(("2", "a", k, "pcc", v) for k, v in ((10, 0.0), (11, 0.0), (13, 5.0))),
        ("1", "b", 12, "pcc", 99.0),
    ]
    scores = pd.DataFrame(
        rows, columns=["subject", "method", "nsd_id", "metric", "value"]
    )
    resampling = Resampling(partial(stream, 7), n_permutations=20_000)
    table = statistics.paired_table(scores, "b", "a", resampling=resampling)
    assert table.columns.tolist() == [
        *("subject", "contrast", "metric", "value", "ci_low", "ci_high"),
        *("p_permutation", "n", "n_subjects_positive", "p_subjects"),
    ]
    assert set(table["contrast"]) == {"b - a"}
    one, two, pooled = (_row(table, subject=s) for s in ("1", "2", "all"))
    assert (one.value, one.n, one.n_subjects_positive) == (2.0, 3, 1)
    assert (two.value, two.n, two.n_subjects_positive) == (-1.0, 3, 0)
    assert (one.ci_low, one.ci_high) == (1.0, 3.0)  # all draws of one image: 1/27
    # all flips of 1, 2, 3: 2 of 8 reach |6|; binomial error of the draws is 0.003
    assert one.p_permutation == pytest.approx(2 / 8, abs=0.015)
    assert np.isnan(one.p_subjects)
    # subject means 2 and -1: flips give 0.5 and 1.5, both at least 0.5
    assert (pooled.value, pooled.n, pooled.n_subjects_positive) == (0.5, 2, 1)
    assert pooled.p_subjects == 1.0
    # image means 1, 1.5, -1: |sum| is 1.5 or more in all but 2 of 8 flips
    assert pooled.p_permutation == pytest.approx(6 / 8, abs=0.015)


def test_a_real_gain_is_found_and_its_sign_is_right() -> None:
    scores = _scores(["stage1", "stage2"])
    found = statistics.paired_table(scores, "stage2", "stage1", resampling=RESAMPLING)
    row = _row(found, subject="all")
    assert 0 < row.ci_low < 0.1 < row.ci_high + 0.02
    assert row.n_subjects_positive == 4
    assert row.p_permutation < 0.01
    back = statistics.paired_table(scores, "stage1", "stage2", resampling=RESAMPLING)
    assert _row(back, subject="all").value == pytest.approx(-row.value)


# --- refusals -----------------------------------------------------------------------


def test_samples_that_cannot_be_resampled_are_refused(
    rng: np.random.Generator,
) -> None:
    with pytest.raises(DataError, match="is empty"):
        statistics.bootstrap_interval([], rng=rng)
    with pytest.raises(DataError, match="NaN"):
        statistics.bootstrap_interval([1.0, np.nan], rng=rng)
    with pytest.raises(DataError, match="shape"):
        statistics.crossed_bootstrap_interval([1.0, 2.0], rng=rng)
    with pytest.raises(ConfigError, match=r"confidence is 1\.0"):
        statistics.bootstrap_interval([1.0, 2.0], rng=rng, confidence=1.0)
    with pytest.raises(DataError, match="use paired_permutation_test"):
        statistics.exact_sign_flip_test(np.ones(17))
    with pytest.raises(DataError, match="null distribution is empty"):
        statistics.permutation_p(1.0, [])


def test_tables_that_cannot_be_paired_are_refused() -> None:
    scores = _scores(["stage1", "stage2"])
    with pytest.raises(DataError, match="share no image"):
        statistics.paired_table(scores, "stage1", "absent", resampling=RESAMPLING)
    apart = scores[(scores["subject"] == "1") == (scores["nsd_id"] > 75)]
    with pytest.raises(DataError, match="No image is scored in every subject"):
        statistics.summarise(apart, resampling=RESAMPLING, ceilings={})
    twice = pd.concat([scores, scores.iloc[:1]])
    with pytest.raises(DataError, match="scored twice"):
        statistics.summarise(twice, resampling=RESAMPLING, ceilings={})


# --- no worse -----------------------------------------------------------------------


def test_holm_equals_the_definition_and_never_falls(rng: np.random.Generator) -> None:
    p = rng.random(7)
    found = statistics.holm(p)
    order = np.argsort(p)
    by_hand = np.empty(7)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (7 - rank) * p[index]))
        by_hand[index] = highest
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)
    assert (np.diff(found[order]) >= 0).all()
    assert statistics.holm([0.2]).tolist() == [0.2]


MARGINS = {"ssim": 0.05, "loss": 0.05}
BETTER = {"ssim": True, "loss": False}


def _pairs(shift: float, n_images: int = 40) -> pd.DataFrame:
    """Return scores in which `new` is better than `old` by `shift`, with noise."""
    rng = stream(4, "tests", "pairs")
    rows = []
    for subject, image in [(s, k) for s in ("1", "2") for k in range(n_images)]:
        base, noise = rng.normal(size=2)
        better = shift + 0.02 * noise
        for metric, sign in (("ssim", 1), ("loss", -1)):
            rows.append((subject, "old", image, metric, base))
            rows.append((subject, "new", image, metric, base + sign * better))
    names = ["subject", "method", "nsd_id", "metric", "value"]
    return pd.DataFrame(rows, columns=names)


def _no_worse(shift: float, n_images: int = 40) -> pd.DataFrame:
    return statistics.non_inferiority(
        *(_pairs(shift, n_images), "new", "old", MARGINS, BETTER),
        resampling=Resampling(partial(stream, 0), 2000, 2000, 0.95),
    )


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (0.1, "no worse"),  # better
        (-0.01, "no worse"),  # a little worse, well within the margin
        (-0.05, "worse"),  # below 0, and at the margin itself
        (-0.2, "worse"),
    ],
)
def test_the_verdict_follows_difference_and_margin(shift: float, verdict: str) -> None:
    table = _no_worse(shift)
    assert len(table) == 2 * 3  # two endpoints; two subjects and all
    assert set(table["verdict"]) == {verdict}
    # noise of 0.02 over 40 images
    np.testing.assert_allclose(table["value"], shift, atol=0.02)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_few_images_show_nothing_even_where_the_mean_is_good() -> None:
    table = _no_worse(0.0, n_images=3)
    own = table[table["subject"] != "all"]
    assert set(own["verdict"]) == {"not shown"}  # 3 flips: p is at least 1/8


def test_no_worse_is_rarely_said_at_the_margin() -> None:
    rng = stream(5, "tests", "size")
    said = 0
    for _ in range(200):
        scores = _pairs(0.0, 20)
        new = scores["method"] == "new"
        noise = rng.normal(-0.05, 0.05, size=int(new.sum()))
        better = scores.loc[new, "metric"].map({"ssim": 1.0, "loss": -1.0})
        scores.loc[new, "value"] += noise * better
        table = statistics.non_inferiority(
            *(scores, "new", "old", {"ssim": 0.05}, BETTER),
            resampling=Resampling(partial(stream, 0), 200, 200, 0.95),
        )
        said += int((table["verdict"].iloc[0]) == "no worse")
    assert said <= 20  # 5 % of 200 is 10; a binomial exceeds 20 once in 1,500 times
