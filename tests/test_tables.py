"""Tables compare the same images, drop nothing in silence, and print what they hold."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from minddiff_utils.core.conditions import factorial
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.evaluation.summaries import summarise
from minddiff_utils.reporting import galleries, tables

SETTINGS = {"pcc": "Pearson r over RGB values", "clip_judge": "cosine, judge CLIP"}
PCC = {"pcc": SETTINGS["pcc"]}


def _scores(
    values: Mapping[str, float],
    subjects: Sequence[int] = (1, 2),
    n_images: int = 4,
    metrics: Sequence[str] = ("pcc",),
) -> pd.DataFrame:
    """Return scores: the method's value, + 1 for subject 2, + a tenth per image."""
    rows = [
        (str(s), m, 10 * i, k, v + (s == 2) + 0.1 * i, 0.5 * v)
        for s, (m, v), i, k in product(
            subjects, values.items(), range(n_images), metrics
        )
    ]
    columns = ["subject", "method", "nsd_id", "metric", "value", "floor"]
    return pd.DataFrame(rows, columns=columns)


def _factorial(weights: Sequence[float], interaction: float = 0.0) -> dict[str, float]:
    """Return each cell's score: its features' weights, and c with Z_CLIP together."""
    return {
        m: float(np.dot(f, weights)) + interaction * (f[0] and f[2])
        for m, f in factorial().items()
    }


WEIGHTS = (0.3, -0.2, 0.1)
ADDITIVE = _scores(_factorial(WEIGHTS))


def _accuracy() -> pd.DataFrame:
    rows = [
        (str(s), f, a, 0.1 * k + 0.01 * s, 0.001 * s, 0.8, 0.01 * s, 20, 50)
        for s, (k, f), a in product(
            (1, 2, 5), enumerate(("z", "c", "clip/2")), ("all", "LVC", "HVC", "V1")
        )
    ]
    names = "subject feature area_set r_mean r_null_mean r_ceiling p_permutation"
    return pd.DataFrame(rows, columns=[*names.split(), "n_images", "n_targets"])


# --- the same images ------------------------------------------------------------------


def test_only_images_that_every_method_has_are_kept() -> None:
    scores = _scores({"a": 0.1, "b": 0.2, "other": 0.3}, n_images=5)
    # b lacks image 0 in subject 1, and images 30 and 40 in subject 2
    lacks = (scores["subject"] == "1") & (scores["nsd_id"] == 0)
    lacks |= (scores["subject"] == "2") & (scores["nsd_id"] >= 30)
    kept = tables.shared_images(
        scores[~(lacks & (scores["method"] == "b"))], ("a", "b")
    )
    assert set(kept["method"]) == {"a", "b"}
    ids = kept.groupby(["subject", "method"])["nsd_id"].apply(list).to_dict()
    assert ids["1", "a"] == ids["1", "b"] == [10, 20, 30, 40]
    assert ids["2", "a"] == ids["2", "b"] == [0, 10, 20]


def test_methods_without_a_common_image_are_refused() -> None:
    scores = _scores({"a": 0.1, "b": 0.2})
    apart = (scores["method"] == "a") == (scores["nsd_id"] < 20)
    for given, methods, words in (
        (scores[apart], ("a", "b"), "share no image"),
        (scores, ("a", "gone"), "hold no gone"),
    ):
        with pytest.raises(DataError, match=words):
            tables.shared_images(given, methods)


def test_an_alias_copies_scores_but_never_replaces_them() -> None:
    scores = _scores({"a": 0.1, "b": 0.2})
    both = tables.with_aliases(scores, {"twin": "a", "b": "a"})
    twin, own = (both[both["method"] == m]["value"].tolist() for m in ("twin", "b"))
    assert twin == scores.loc[scores["method"] == "a", "value"].tolist()
    assert own == scores.loc[scores["method"] == "b", "value"].tolist()
    with pytest.raises(DataError, match="gone"):
        tables.with_aliases(scores, {"twin": "gone"})


# --- T1 and T3 ------------------------------------------------------------------------


def _comparison(scores: pd.DataFrame) -> pd.DataFrame:
    return summarise(scores, ceilings={})


def test_the_comparison_says_over_how_many_each_row_is() -> None:
    scores = _scores({"a": 0.1, "b": 0.2})
    few = (scores["method"] == "b") & (scores["nsd_id"] >= 20)
    table = tables.comparison_table(
        _comparison(scores[~few]),
        who=("1", "7", "all"),
        methods=("a", "b", "gone"),
        settings=PCC,
        not_run={"ic_gan": "weights are not public"},
    ).set_index(["subject", "method"])
    status, value = table["status"].to_dict(), table["value"]
    counts = table[["n_images", "n_subjects"]].apply(tuple, axis=1).to_dict()
    assert [counts["1", m] for m in ("a", "b", "gone")] == [(4, 1), (2, 1), (0, 0)]
    assert counts["all", "b"] == (2, 2)
    assert status["1", "a"] == status["all", "b"] == ""
    assert status["7", "a"] == "missing"
    for subject in ("1", "all"):
        assert status[subject, "ic_gan"] == "not run: weights are not public"
        assert status[subject, "gone"].startswith("not run: no scores")
        assert np.isnan(value[subject, "ic_gan"])
    # mean of subject 1's (0.1 + 0, 0.1, 0.2, 0.3) is 0.25; subject 2's is 1 higher
    assert value["1", "a"] == pytest.approx(0.25)
    assert value["all", "a"] == pytest.approx(0.75)
    assert table.loc[("1", "a"), "settings"] == PCC["pcc"]


def test_a_metric_that_was_not_scored_is_refused() -> None:
    comparison = _comparison(_scores({"a": 0.1}))
    known = {"who": ("1",), "methods": ("a",), "not_run": {}}
    with pytest.raises(DataError, match="ssim"):
        tables.comparison_table(comparison, settings={"ssim": ""}, **known)


# --- T2 -------------------------------------------------------------------------------


def test_main_effects_are_the_weights_of_an_additive_score() -> None:
    rows = tables.main_effects(ADDITIVE).set_index(["method", "subject"])
    for feature, weight in zip(tables.FEATURES, WEIGHTS, strict=True):
        for subject, n_subjects in (("1", 1), ("2", 1), ("all", 2)):
            row = rows.loc[(feature, subject)]
            # rounding of sums of about ten numbers of order 1; every image has the
            # same difference, so that the interval has no width
            assert row["value"] == pytest.approx(weight, abs=1e-12)
            assert row["ci_low"] == pytest.approx(weight, abs=1e-12)
            assert (row["n_images"], row["n_subjects"]) == (4, n_subjects)


def test_half_of_an_interaction_counts_for_each_of_its_features() -> None:
    """By hand: c has its weight in 4 of 4 pairs of cells, the interaction in 2."""
    scores = _scores(_factorial((0.3, 0.0, 0.1), interaction=0.08))
    effects = tables.main_effects(scores)
    pooled = effects[effects["subject"] == "all"].set_index("method")["value"]
    np.testing.assert_allclose(pooled[[*tables.FEATURES]], [0.34, 0, 0.14], atol=1e-12)


def _ablation(scores: pd.DataFrame, subjects: Sequence[int] = (1, 2)) -> pd.DataFrame:
    ladders = {"layers": ("guided_layers_1", "stage2_guided"), "k": ("guided_k5",)}
    return tables.ablation_table(
        scores, subjects=subjects, settings=PCC, ladders=ladders
    )


def test_all_rows_of_the_ablation_are_over_the_same_images() -> None:
    cells = _factorial(WEIGHTS)
    scores = _scores({**cells, "guided_layers_1": 0.5, "true_features": 0.9})
    few = (scores["method"] == "guided_layers_1") & (scores["nsd_id"] >= 20)
    table = _ablation(scores[~few])
    rows = table[table["value"].notna()]
    single = rows[rows["subject"] == "1"]
    assert len(single) == 8 + 3 + 2
    assert (rows["n_images"] == 2).all()
    stage1 = single[single["method"] == "stage1"].iloc[0]
    assert stage1["value"] == pytest.approx(0.3 - 0.2 + 0.05)  # images 0 and 10
    assert stage1["ceiling"] == pytest.approx(0.9 + 0.05)  # on the same two
    groups = ["factorial", "main effect", "layers", "k"]
    assert table["group"].unique().tolist() == groups


def test_the_ablation_names_cells_by_their_features() -> None:
    table = _ablation(ADDITIVE)
    cells = table[(table["group"] == "factorial") & (table["subject"] == "all")]
    flags = cells[list(tables.FEATURES)].astype(int).to_numpy()
    assert len(np.unique(flags, axis=0)) == 8
    np.testing.assert_allclose(cells["value"], flags @ WEIGHTS + 0.65)
    assert table.loc[table["group"] != "factorial", "c"].isna().all()


def test_the_ablation_reports_what_was_not_run_and_who_is_lacking() -> None:
    whole = _ablation(ADDITIVE, subjects=(1, 2, 7))
    effects = whole[whole["group"] == "main effect"].set_index(["subject", "method"])
    assert effects.loc[("all", "c"), "n_subjects"] == 2
    assert effects.loc[("7", "c"), "status"] == "missing"
    part = ADDITIVE[ADDITIVE["method"] != "none"]
    with pytest.raises(DataError, match="none"):
        tables.main_effects(part)
    table = _ablation(part, subjects=(1, 2, 7))
    status = table.set_index(["subject", "group", "method"])["status"]
    assert status["all", "factorial", "none"] == "not run: no scores of it"
    assert status["all", "main effect", "c"].endswith("needs all cells, none")
    assert status["all", "k", "guided_k5"] == "not run: no scores of it"
    assert status["all", "factorial", "stage1"] == ""
    assert status["7", "factorial", "stage1"] == "missing"
    with pytest.raises(DataError, match="No condition"):
        _ablation(_scores({"retrieval": 0.1}))


def test_ladders_hold_the_profile_s_own_setting_once() -> None:
    overrides = {
        "ablation.n_images": 2,
        "features.clip_layers": (1, 2),
        "ablation.layers": ((2,), (1,)),
        "ablation.iterations": (8, 4),
        "ablation.k_grid": (100.0, 5.0),
        "decoding.k_percent": 25.0,
    }
    methods, same_as = tables.ladders(load_profile("smoke", overrides))
    assert methods == {
        "layers": ("guided_layers_1", "guided_layers_2", "guided_layers_1_2"),
        "iterations": ("stage2_iter_0", "stage2_iter_4", "stage2_iter_8", "stage2"),
        "k": ("guided_k5", "guided_k25", "guided_k100"),
    }
    assert same_as == {
        "stage2_iter_0": "stage1",
        "guided_layers_1_2": "stage2_guided",
        "guided_k25": "stage2_guided",
    }
    overrides |= {"ablation.k_grid": (25.0,), "ablation.layers": ((1, 2),)}
    _, same_as = tables.ladders(load_profile("smoke", overrides))
    assert same_as == {"stage2_iter_0": "stage1"}


def test_quality_by_k_rises_in_k_and_keeps_to_shared_images() -> None:
    scores = _scores({"guided_k100": 0.1, "guided_k5": 0.3, "guided_k12.5": 0.2})
    few = (scores["method"] == "guided_k5") & (scores["nsd_id"] == 0)
    table = tables.quality_by_k(scores[~few], settings=PCC)
    single = table[table["subject"] == "1"]
    assert single["k_percent"].tolist() == [5.0, 12.5, 100.0]
    assert (single["n_images"] == 3).all()
    np.testing.assert_allclose(single["value"], [0.5, 0.4, 0.3])
    with pytest.raises(DataError, match="guided_k"):
        tables.quality_by_k(_scores({"a": 1.0}), settings=PCC)


# --- T4 -------------------------------------------------------------------------------


def test_accuracy_over_subjects_has_student_s_interval() -> None:
    table = tables.accuracy_table(_accuracy(), subjects=(1, 2, 5), confidence=0.9)
    rows = table.set_index(["subject", "feature", "area_set"])
    row = rows.loc[("all", "c", "LVC")]
    r = np.array([0.11, 0.12, 0.15])
    low, high = scipy.stats.t.interval(0.9, 2, r.mean(), scipy.stats.sem(r))
    expected = {"value": r.mean(), "ci_low": low, "ci_high": high, "n": 3}
    expected |= {"p_permutation": 0.05, "floor": 0.008 / 3, "ceiling": 0.8}
    assert row[[*expected]].to_dict() == pytest.approx(expected)  # p: the largest


def test_accuracy_reports_areas_and_subjects_that_are_lacking() -> None:
    table = tables.accuracy_table(_accuracy(), subjects=(1, 2, 5, 7), confidence=0.95)
    status = table.set_index(["subject", "feature", "area_set"])["status"]
    asked = _accuracy()[["feature", "area_set"]].drop_duplicates()
    assert len(table) == 5 * len(asked)  # what nobody asked for has no row
    assert table["feature"].drop_duplicates().tolist() == ["c", "z", "clip/2"]
    assert status["7", "c", "all"] == "missing"
    assert ("1", "c", "V2") not in status
    assert status["all", "c", "all"] == "3 of 4 subjects"
    assert status["1", "c", "V1"] == ""
    twice = pd.concat([_accuracy(), _accuracy()])
    with pytest.raises(DataError, match="twice"):
        tables.accuracy_table(twice, subjects=(1, 2, 5), confidence=0.95)


def test_a_single_k_differs_from_nothing() -> None:
    rows = [("1", "guided_k50", i, "pcc", 0.1 * i) for i in range(3)]
    columns = ["subject", "method", "nsd_id", "metric", "value"]
    table = tables.k_differences(pd.DataFrame(rows, columns=columns))
    assert table.empty
    assert {"features", "k_percent", "value", "ci_low"} <= set(table.columns)


def test_quality_at_a_k_is_compared_with_that_at_the_largest_one() -> None:
    rows = [
        (s, f"guided_k{k:g}", i, "pcc", k / 1000 + i / 100, 0.0)
        for s, k, i in product("12", (5.0, 25.0, 100.0), range(4))
    ]
    scores = pd.DataFrame(
        rows, columns=["subject", "method", "nsd_id", "metric", "value", "floor"]
    )
    table = tables.k_differences(scores)
    pooled = table[table["subject"] == "all"].set_index("k_percent")
    assert pooled["value"].to_dict() == pytest.approx({5.0: -0.095, 25.0: -0.075})
    assert set(table["reference"]) == {"guided_k100"}
    # true Z_CLIP on fewer images, and what has no k, each against its own largest k
    names = {"guided_k5": "guided_true_k5", "guided_k100": "guided_true_k100"}
    true = scores[scores["nsd_id"] < 2].replace({"method": names})
    weighted = scores[scores["method"] == "guided_k25"]
    weighted = weighted.assign(method="guided_likelihood")
    more = pd.concat([scores, true[true["method"] != "guided_k25"], weighted])
    found = tables.k_differences(more)
    pd.testing.assert_frame_equal(found[found["features"] == "decoded"], table)
    both = found[(found["subject"] == "all") & (found["features"] != "decoded")]
    both = both.set_index("features")
    assert both["value"].to_dict() == pytest.approx(
        {"true": -0.095, "weighted": -0.075}
    )
    assert both["n_images"].to_dict() == {"true": 2, "weighted": 4}
    assert both["k_percent"].isna().to_dict() == {"true": False, "weighted": True}


def test_weights_by_area_are_means_over_the_area_s_voxels() -> None:
    weight = {"c": np.array([1.0, 3.0, *[5.0] * 20]), "z": np.zeros(22)}
    pattern = {name: values / 10 for name, values in weight.items()}
    roi = np.array([0, 0, *[2] * 20])
    table = tables.weights_by_area(weight, pattern, roi, ["V1", "V2", "V3"])
    columns = ["feature", "area", "weight", "n_voxels", "pattern", "few_voxels"]
    assert table.columns.tolist() == columns
    c = table[table["feature"] == "c"]
    assert c["weight"].tolist() == [2.0, 0.0, 5.0]
    assert c["pattern"].tolist() == [0.2, 0.0, 0.5]
    assert c["n_voxels"].tolist() == [2, 0, 20]
    assert c["few_voxels"].tolist() == [True, True, False]


def test_high_areas_over_low_ones_count_voxels_and_leave_out_small_areas() -> None:
    rows = [
        ("c", "V1", 1.0, 30), ("c", "V2", 4.0, 60), ("c", "V3", 99.0, 19),
        ("c", "LO", 6.0, 20), ("c", "MST", 99.0, 8),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["feature", "area", "pattern", "n_voxels"])
    table["few_voxels"] = table["n_voxels"] < 20
    # LVC: (30 + 240) / 90 = 3; HVC: 6
    assert tables.high_over_low(table, "pattern").to_dict() == {"c": 2.0}


# --- T5 -------------------------------------------------------------------------------


def test_costs_are_relative_to_algorithm_1_whether_it_ran_or_not() -> None:
    rows = [("1", "stage1", i, 16, np.nan) for i in range(4)]
    rows += [("1", "stage2", i, 100 + 10 * i, 40) for i in range(4)]
    columns = ["subject", "method", "nsd_id", "n_unet_evaluations", "n_unet_gradients"]
    costs = pd.DataFrame(rows, columns=columns)
    reference = {"n_unet_evaluations": 1000, "n_unet_gradients": 500}
    table = tables.cost_table(costs, reference=reference)
    table = table.set_index(["metric", "method"])[["value", "total", "relative", "n"]]
    stage2 = table.loc[("n_unet_evaluations", "stage2")].tolist()
    assert stage2 == pytest.approx([115, 460, 115 / 1000, 4])
    assert table.loc[("n_unet_gradients", "stage1"), "value"] == 0
    assert table.loc[("n_unet_gradients", "stage2"), "relative"] == 40 / 500


# --- for readers ----------------------------------------------------------------------


def test_a_printed_table_has_a_column_per_metric_and_ends_with_definitions() -> None:
    comparison = _comparison(_scores({"a": 0.1}, metrics=tuple(SETTINGS)))
    long = tables.comparison_table(
        comparison,
        who=("1", "all"),
        methods=("a",),
        settings=SETTINGS,
        not_run={"ic_gan": "no weights"},
    )
    printed = tables.for_print(long, {"pcc": "PCC", "clip_judge": "CLIP"})
    counts = ["n_images", "n_subjects"]
    assert list(printed.columns) == ["subject", "method", "PCC", "CLIP", *counts]
    row = comparison[(comparison["subject"] == "1") & (comparison["metric"] == "pcc")]
    low, high = row["ci_low"].iloc[0], row["ci_high"].iloc[0]
    assert printed.loc[0, "PCC"] == f"0.250 [{low:.2f}, {high:.2f}]"
    assert printed.loc[1, "PCC"] == "not run: no weights"
    last = ["settings", "", *SETTINGS.values(), "", ""]
    assert printed.iloc[-1].tolist() == last
    assert not printed.map(lambda cell: "nan" in cell).any(axis=None)


def test_cells_carry_the_sign_of_a_difference_or_floor_and_ceiling() -> None:
    effects = _ablation(ADDITIVE)
    effects = effects[effects["subject"] == "all"]
    printed = tables.for_print(effects, {"pcc": "PCC"}, rows=("group", "method"))
    cells = printed.set_index(["group", "method"])["PCC"]
    assert cells["main effect", "z"].startswith("-0.200 [-0.200, -0.200]")
    long = tables.accuracy_table(_accuracy(), subjects=(1, 2, 5), confidence=0.95)
    by_area = tables.for_print(
        long[long["subject"] == "1"],
        {"c": "c", "z": "z"},
        rows=("area_set",),
        across="feature",
        cell=tables.bounded_cell,
    ).set_index("area_set")
    assert by_area.loc["V1", "c"] == "0.110 (floor 0.00, ceiling 0.80)"
    assert "IPS" not in by_area.index


# --- which images are shown -----------------------------------------------------------


def _ranked(n: int) -> pd.DataFrame:
    """Return n images whose ids fall while their scores rise, shuffled."""
    ids = np.arange(n)[::-1] * 2
    table = pd.DataFrame({"nsd_id": ids, "value": np.linspace(0, 1, n)})
    return table.sample(frac=1, random_state=1)


def test_picked_images_lie_at_the_quantiles_after_the_fixed_ones() -> None:
    selection = galleries.select_images(_ranked(21), 6, words="judge CLIP", fixed=[4])
    # image 40 - 2 r has rank r of 0 to 20; quantiles are ranks 1, 5, 10, 15, 19
    assert selection.nsd_id == (4, 38, 30, 20, 10, 2)
    assert selection.titles == ("fixed: 4", "5 %", "25 %", "50 %", "75 %", "95 %")
    assert "fixed ids 4; quantiles" in selection.rule
    assert "5, 25, 50, 75, 95 % of judge CLIP, among 21 images" in selection.rule
    few = galleries.select_images(_ranked(21), 3, words="score")
    assert few.titles == ("5 %", "50 %", "95 %")


def test_no_image_is_picked_twice_and_ties_are_ranked_by_id() -> None:
    selection = galleries.select_images(_ranked(3), 5, words="score", fixed=(2,))
    assert sorted(selection.nsd_id) == [0, 2, 4]
    assert len(selection.titles) == 3
    table = pd.DataFrame({"nsd_id": [9, 3, 7, 1, 5], "value": 0.5})
    for order in (table, table[::-1]):
        assert galleries.select_images(order, 1, words="score").nsd_id == (5,)


def test_scores_of_two_metrics_or_of_no_image_are_refused() -> None:
    with pytest.raises(DataError, match="twice"):
        galleries.select_images(pd.concat([_ranked(5)] * 2), 2, words="score")


def _two_metrics(clip: Sequence[float], ssim: Sequence[float]) -> pd.DataFrame:
    rows = [
        ("1", "stage2", i, metric, v)
        for metric, values in (("clip_judge", clip), ("ssim_2d", ssim))
        for i, v in enumerate(values)
    ]
    names = ["subject", "method", "nsd_id", "metric", "value"]
    return pd.DataFrame(rows, columns=names)


def _failures(scores: pd.DataFrame) -> pd.DataFrame:
    table = galleries.failure_table(
        scores, semantic="clip_judge", structural="ssim_2d", n=2
    )
    return table.set_index("nsd_id")


def test_failures_have_the_largest_product_of_opposite_ranks() -> None:
    """By hand, six images: low CLIP and high SSIM are 0 (6 x 5), 1 (5 x 6), 2 (4 x 4).

    The first two tie at 30, and the lower id goes first. Low SSIM and high CLIP: 3
    (4 x 4), 4 (6 x 5), 5 (5 x 6).
    """
    table = _failures(_two_metrics([1, 2, 3, 4, 5, 6], [5, 6, 4, 3, 1, 2]))
    for signature, places in (
        ("low semantic", {0: 1, 1: 2}),
        ("low structural", {4: 1, 5: 2}),
    ):
        marked = table[table["signature"] == signature]
        assert marked["place"].to_dict() == places
    same = _failures(_two_metrics(range(6), range(6)))
    assert (same["signature"] == "").all()
    assert (same["place"] == 0).all()


def test_failures_need_both_scores_of_one_subject_and_method() -> None:
    scores = _two_metrics(range(6), range(6))
    with pytest.raises(DataError, match="lacking"):
        _failures(scores.iloc[:-1])
    with pytest.raises(DataError, match="several"):
        _failures(pd.concat([scores, scores.assign(subject="2")]))
