"""Tables of means and differences equal hand counts, and no cell moves another's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.rng import stream
from minddiff_utils.evaluation import summaries

SUBJECTS = ("1", "2", "5", "7")
COLUMNS = ["subject", "method", "nsd_id", "metric", "value", "floor"]


def _scores(methods: Sequence[str], n_images: int = 12) -> pd.DataFrame:
    """Return scores in which each method is 0.1 better than the one before."""
    rng = stream(3, "scores")
    rows = []
    for subject in SUBJECTS:
        base = rng.normal(0.5, 0.1, n_images)
        for rank, method in enumerate(methods):
            own = stream(3, "scores", subject, method)
            values = base + 0.1 * rank + own.normal(0, 0.02, n_images)
            rows += [
                (subject, method, 70 + k, "pcc", value, 0.1)
                for k, value in enumerate(values)
            ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _summary(
    scores: pd.DataFrame, ceilings: Mapping[str, str] | None = None, **more: Any
) -> pd.DataFrame:
    return summaries.summarise(scores, ceilings=ceilings or {}, **more)


def _row(table: pd.DataFrame, **where: str) -> Any:
    for column, value in where.items():
        table = table[table[column] == value]
    (row,) = table.itertuples()
    return row


def test_summary_rows_hold_means_intervals_levels_and_counts() -> None:
    scores = _scores(["stage1", "true_features"])
    table = _summary(scores, {"stage1": "true_features"})
    assert table.columns.tolist() == [
        *("subject", "method", "metric", "value", "ci_low", "ci_high"),
        *("n_images", "n_subjects", "floor", "chance", "chance_method", "ceiling"),
        "sd_draw",
    ]
    wide = scores.pivot(index="nsd_id", columns=["method", "subject"], values="value")
    row = _row(table, subject="2", method="stage1")
    own = wide["stage1", "2"]
    bounds = stats.ttest_1samp(own, 0).confidence_interval()
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx(
        (own.mean(), bounds.low, bounds.high)
    )
    assert (row.n_images, row.n_subjects) == (12, 1)
    assert (row.floor, row.chance) == (pytest.approx(0.1), pytest.approx(0.1))
    assert row.ceiling == pytest.approx(wide["true_features", "2"].mean())
    pooled = _row(table, subject="all", method="stage1")
    bounds = stats.ttest_1samp(wide["stage1"].mean(axis=1), 0).confidence_interval()
    assert (pooled.ci_low, pooled.ci_high) == pytest.approx((bounds.low, bounds.high))
    assert (pooled.n_images, pooled.n_subjects) == (12, 4)
    assert np.isnan(_row(table, subject="2", method="true_features").ceiling)


def test_a_ceiling_that_lacks_images_of_the_row_is_left_blank() -> None:
    scores = _scores(["stage2", "stage2_true"])
    there = (scores["method"] == "stage2") | (scores["nsd_id"] <= 75)
    table = _summary(scores[there], {"stage2": "stage2_true"})
    assert table.loc[table["method"] == "stage2", "ceiling"].isna().all()
    # the row on fewer images has one
    few = (scores["method"] == "stage2_true") | (scores["nsd_id"] <= 75)
    table = _summary(scores[few], {"stage2": "stage2_true"})
    ceilings = table.loc[table["method"] == "stage2", "ceiling"]
    best = scores[(scores["method"] == "stage2_true") & (scores["nsd_id"] <= 75)]
    assert ceilings.iloc[-1] == pytest.approx(best["value"].mean())
    assert (ceilings <= best["value"].max()).all()


def test_chance_is_the_highest_level_on_the_same_images() -> None:
    scores = _scores(["mean_image", "stage2"])
    dull = scores[scores["method"] == "mean_image"].assign(method="shuffled")
    scores = pd.concat([scores, dull.assign(value=0.2)], ignore_index=True)
    table = _summary(scores, floors=["mean_image", "shuffled"])
    row = _row(table, subject="all", method="stage2")
    own = scores[scores["method"] == "mean_image"]["value"].mean()
    assert (row.chance, row.chance_method) == (pytest.approx(own), "mean_image")
    assert row.floor == pytest.approx(0.1)
    # of a distance the lowest is the hardest to beat
    far = scores.assign(metric="fid_judge")
    row = _row(
        _summary(far, floors=["mean_image", "shuffled"]), subject="all", method="stage2"
    )
    assert (row.chance, row.chance_method) == (pytest.approx(0.1), "")


def test_the_spread_over_draws_is_that_of_single_images() -> None:
    scores = _scores(["a", "b", "other"])
    table = _summary(scores, draws=["a", "b"])
    wide = scores.pivot(index="nsd_id", columns=["method", "subject"], values="value")
    # of two draws the variance is half the squared difference
    expected = np.sqrt(((wide["a"] - wide["b"]) ** 2 / 2).to_numpy().mean())
    assert _row(table, subject="all", method="a").sd_draw == pytest.approx(expected)
    assert _row(table, subject="all", method="b").sd_draw == pytest.approx(expected)
    assert table.loc[table["method"] == "other", "sd_draw"].isna().all()


@pytest.mark.parametrize("new", ["added", "zzz"])
def test_adding_a_method_moves_no_other_number(new: str) -> None:
    two = _scores(["stage1", "stage2"])
    scores = _scores(["stage1", "stage2", new])
    order = scores["method"].map({new: 0, "stage1": 1, "stage2": 2})
    large = _summary(scores.iloc[order.argsort(kind="stable")])
    kept = large[large["method"] != new].reset_index(drop=True)
    assert kept.equals(_summary(two))


def test_contrasts_of_a_hand_made_frame() -> None:
    # differences: subject 1: 1, 2, 3; subject 2: 1, 1, -5; image 12 is not paired
    rows = [
        *(("1", "b", k, "pcc", v) for k, v in ((10, 1.0), (11, 3.0), (13, 6.0))),
        *(("1", "a", k, "pcc", v) for k, v in ((10, 0.0), (11, 1.0), (13, 3.0))),
        *(("2", "b", k, "pcc", v) for k, v in ((10, 1.0), (11, 1.0), (13, 0.0))),
        *(("2", "a", k, "pcc", v) for k, v in ((10, 0.0), (11, 0.0), (13, 5.0))),
        ("1", "b", 12, "pcc", 99.0),
    ]
    scores = pd.DataFrame(rows, columns=COLUMNS[:-1])
    table = summaries.contrast_table(scores, [("b", "a")])
    assert table.columns.tolist() == [
        *("subject", "method", "reference", "metric"),
        *summaries.ESTIMATE,
    ]
    one, two, pooled = (_row(table, subject=s) for s in ("1", "2", "all"))
    # 2 +- 4.3027 * 1 / sqrt(3), Student's t with 2 degrees of freedom
    assert (one.value, one.ci_low, one.ci_high) == pytest.approx(
        (2, -0.484, 4.484), abs=1e-3
    )
    assert (one.n_images, one.n_subjects, one.n_subjects_positive) == (3, 1, 1)
    assert (two.value, two.n_images, two.n_subjects_positive) == (-1.0, 3, 0)
    # over subjects the images' means are 1, 1.5, -1
    assert pooled.value == pytest.approx(0.5)
    assert (pooled.n_images, pooled.n_subjects, pooled.n_subjects_positive) == (3, 2, 1)
    # subject means 2 and -1: .5 +- 12.706 * 1.5
    assert pooled.subjects_high == pytest.approx(0.5 + 12.706 * 1.5, abs=1e-2)


def test_a_real_gain_is_found_and_its_sign_is_right() -> None:
    scores = _scores(["stage1", "stage2"])
    row = _row(summaries.contrast_table(scores), subject="all")
    assert 0 < row.ci_low < 0.1 < row.ci_high + 0.02
    assert row.n_subjects_positive == 4
    back = summaries.contrast_table(scores, [("stage1", "stage2")])
    assert _row(back, subject="all").value == pytest.approx(-row.value)


def test_pairs_whose_methods_were_not_run_are_left_out() -> None:
    scores = _scores(["stage1", "stage2"])
    table = summaries.contrast_table(scores)
    pairs = set(zip(table["method"], table["reference"], strict=True))
    assert pairs == {("stage2", "stage1")}
    with pytest.raises(DataError, match="No two methods"):
        summaries.contrast_table(scores[scores["method"] == "stage1"])


def test_tables_that_cannot_be_paired_are_refused() -> None:
    scores = _scores(["stage1", "stage2"])
    unlike = scores["nsd_id"] + 100 * (scores["method"] == "stage1")
    with pytest.raises(DataError, match="stage2 and stage1 share no image"):
        summaries.contrast_table(scores.assign(nsd_id=unlike))
    apart = scores[(scores["subject"] == "1") == (scores["nsd_id"] > 75)]
    with pytest.raises(DataError, match="No image is scored in every subject"):
        _summary(apart)
    twice = pd.concat([scores, scores.iloc[:1]])
    with pytest.raises(DataError, match="scored twice"):
        _summary(twice)
