"""Tables of means and differences equal hand counts, and no cell moves another's."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.resampling import Resampling
from minddiff_utils.core.rng import stream
from minddiff_utils.evaluation import summaries

RESAMPLING = Resampling(partial(stream, 7), n_bootstrap=400, n_permutations=400)


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


def _summary(
    scores: pd.DataFrame, ceilings: Mapping[str, str] | None = None
) -> pd.DataFrame:
    return summaries.summarise(scores, resampling=RESAMPLING, ceilings=ceilings or {})


def _paired(scores: pd.DataFrame, method: str, reference: str) -> pd.DataFrame:
    return summaries.paired_table(scores, method, reference, resampling=RESAMPLING)


def _row(table: pd.DataFrame, **wanted: str) -> Any:
    for column, value in wanted.items():
        table = table[table[column] == value]
    (found,) = table.itertuples()
    return found


def test_summary_rows_hold_means_floors_and_ceilings() -> None:
    scores = _scores(["stage1", "true_features"])
    table = _summary(scores, {"stage1": "true_features"})
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
    table = _summary(scores[there], {"stage2": "stage2_true"})
    of_2 = scores[scores["subject"] == "2"]
    wide = of_2.pivot(index="nsd_id", columns="method", values="value")
    first = wide[wide.index <= 75]
    lead = first["stage2_true"].mean() - first["stage2"].mean()
    row = _row(table, subject="2", method="stage2")
    assert row.ceiling == pytest.approx(wide["stage2"].mean() + lead)
    # on other images there is none
    apart = scores["nsd_id"] % 2 == (scores["method"] == "stage2")
    table = _summary(scores[apart], {"stage2": "stage2_true"})
    assert table[table["method"] == "stage2"]["ceiling"].isna().all()


@pytest.mark.parametrize("new", ["added", "zzz"])
def test_adding_a_method_moves_no_other_number(new: str) -> None:
    two = _scores(["stage1", "stage2"])
    scores = _scores(["stage1", "stage2", new])
    order = scores["method"].map({new: 0, "stage1": 1, "stage2": 2})
    large = _summary(scores.iloc[order.argsort(kind="stable")])
    kept = large[large["method"] != new].reset_index(drop=True)
    assert kept.equals(_summary(two))
    assert _paired(scores, "stage2", "stage1").equals(_paired(two, "stage2", "stage1"))


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
    table = summaries.paired_table(scores, "b", "a", resampling=resampling)
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
    found = _paired(scores, "stage2", "stage1")
    row = _row(found, subject="all")
    assert 0 < row.ci_low < 0.1 < row.ci_high + 0.02
    assert row.n_subjects_positive == 4
    assert row.p_permutation < 0.01
    back = _paired(scores, "stage1", "stage2")
    assert _row(back, subject="all").value == pytest.approx(-row.value)


def test_tables_that_cannot_be_paired_are_refused() -> None:
    scores = _scores(["stage1", "stage2"])
    with pytest.raises(DataError, match="share no image"):
        _paired(scores, "stage1", "absent")
    apart = scores[(scores["subject"] == "1") == (scores["nsd_id"] > 75)]
    with pytest.raises(DataError, match="No image is scored in every subject"):
        _summary(apart)
    twice = pd.concat([scores, scores.iloc[:1]])
    with pytest.raises(DataError, match="scored twice"):
        _summary(twice)


# --- no worse -----------------------------------------------------------------------

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
    return summaries.non_inferiority(
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
        table = summaries.non_inferiority(
            *(scores, "new", "old", {"ssim": 0.05}, BETTER),
            resampling=Resampling(partial(stream, 0), 200, 200, 0.95),
        )
        said += int((table["verdict"].iloc[0]) == "no worse")
    assert said <= 20  # 5 % of 200 is 10; a binomial exceeds 20 once in 1,500 times
