"""Tables compare the same images, drop nothing in silence, and print what they hold."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from minddiff_utils.core.conditions import factorial
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.resampling import Resampling
from minddiff_utils.core.rng import stream
from minddiff_utils.evaluation.summaries import summarise
from minddiff_utils.reporting import tables

DRAWS = Resampling(partial(stream, 3), n_bootstrap=200, n_permutations=199)
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


def _accuracy(subjects: Sequence[int] = (1, 2, 5)) -> pd.DataFrame:
    rows = [
        (str(s), f, a, 0.1 * k + 0.01 * s, 0.001 * s, 0.8, 0.01 * s, 20, 50)
        for s, (k, f), a in product(
            subjects, enumerate(("z", "c", "clip/2")), ("all", "LVC", "HVC", "V1")
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
    with pytest.raises(DataError, match="share no image"):
        tables.shared_images(scores[apart], ("a", "b"))
    with pytest.raises(DataError, match="hold no gone"):
        tables.shared_images(scores, ("a", "gone"))
    with pytest.raises(DataError, match="twice"):
        tables.shared_images(pd.concat([scores, scores]), ("a", "b"))


def test_an_alias_copies_scores_but_never_replaces_them() -> None:
    scores = _scores({"a": 0.1, "b": 0.2})
    found = tables.with_aliases(scores, {"twin": "a", "b": "a"})
    twin, own = (found[found["method"] == m]["value"].tolist() for m in ("twin", "b"))
    assert twin == scores.loc[scores["method"] == "a", "value"].tolist()
    assert own == scores.loc[scores["method"] == "b", "value"].tolist()
    with pytest.raises(DataError, match="gone"):
        tables.with_aliases(scores, {"twin": "gone"})


# --- T1 and T3 ------------------------------------------------------------------------


def _comparison(scores: pd.DataFrame) -> pd.DataFrame:
    return summarise(scores, resampling=DRAWS, ceilings={})


def test_the_comparison_says_what_each_row_does_not_cover() -> None:
    scores = _scores({"a": 0.1, "b": 0.2})
    few = (scores["method"] == "b") & (scores["nsd_id"] >= 20)
    found = tables.comparison_table(
        _comparison(scores[~few]),
        subjects=(1, 2, 7),
        methods=("a", "b", "gone"),
        settings=PCC,
        not_run={"ic_gan": "weights are not public"},
    ).set_index(["subject", "method"])
    assert found.loc[("1", "a"), "status"] == ""
    assert found.loc[("1", "b"), "status"] == "2 of 4 images"
    assert found.loc[("all", "a"), "status"] == "2 of 3 subjects"
    assert found.loc[("all", "b"), "status"] == "2 of 4 images; 2 of 3 subjects"
    for subject in ("1", "all"):
        said = found.loc[(subject, "ic_gan"), "status"]
        assert said == "not run: weights are not public"
        assert found.loc[(subject, "gone"), "status"].startswith("not run: no scores")
        assert np.isnan(found.loc[(subject, "ic_gan"), "value"])
    # mean of subject 1's (0.1 + 0, 0.1, 0.2, 0.3) is 0.25; subject 2's is 1 higher
    assert found.loc[("1", "a"), "value"] == pytest.approx(0.25)
    assert found.loc[("all", "a"), "value"] == pytest.approx(0.75)
    assert found.loc[("1", "a"), "settings"] == PCC["pcc"]


def test_the_first_subject_without_scores_is_missing_not_replaced() -> None:
    found = tables.comparison_table(
        _comparison(_scores({"a": 0.1})),
        subjects=(5, 1, 2),
        methods=("a",),
        settings=PCC,
        not_run={},
    )
    assert found["subject"].tolist() == ["5", "all"]
    assert found["status"].tolist() == ["missing", "2 of 3 subjects"]


def test_a_method_with_scores_cannot_be_said_not_to_be_run() -> None:
    with pytest.raises(DataError, match="also said not to be run"):
        tables.comparison_table(
            _comparison(_scores({"a": 0.1})),
            subjects=(1, 2),
            methods=("a",),
            settings=PCC,
            not_run={"a": "too dear"},
        )


def test_every_subject_of_the_profile_has_its_rows() -> None:
    comparison = _comparison(_scores({"stage1": 0.1, "stage2": 0.2}))
    known = {"methods": ("stage1", "stage2"), "settings": PCC}
    found = tables.subjects_table(comparison, subjects=(1, 2, 5), **known)
    assert found["subject"].tolist() == [
        s for s in ("1", "2", "5", "all") for _ in "ab"
    ]
    assert found.loc[found["subject"] == "5", "status"].tolist() == ["missing"] * 2
    assert (found.loc[found["subject"] == "5", "n"] == 0).all()
    with pytest.raises(ConfigError, match="subjects is empty"):
        tables.subjects_table(comparison, subjects=(), **known)
    with pytest.raises(DataError, match="ssim"):
        tables.subjects_table(
            comparison, subjects=(1,), methods=("stage1",), settings={"ssim": ""}
        )


# --- T2 -------------------------------------------------------------------------------


def test_main_effects_are_the_weights_of_an_additive_score() -> None:
    scores = _scores(_factorial((0.3, -0.2, 0.1)))
    found = tables.main_effects(scores, resampling=DRAWS).set_index(
        ["method", "subject"]
    )
    for feature, weight in zip(tables.FEATURES, (0.3, -0.2, 0.1), strict=True):
        for subject in ("1", "2", "all"):
            row = found.loc[(feature, subject)]
            # rounding of sums of about ten numbers of order 1
            assert row["value"] == pytest.approx(weight, abs=1e-12)
            assert row["floor"] == pytest.approx(weight / 2, abs=1e-12)
            # every image has the same difference, so no draw moves the mean
            assert row["ci_low"] == pytest.approx(weight, abs=1e-12)
            assert row["n_images"] == 4
        assert found.loc[(feature, "1"), "n"] == 4
        assert found.loc[(feature, "all"), "n"] == 2


def test_a_subject_without_a_floor_leaves_the_effects_as_they_are() -> None:
    """One image has no other to be paired with, so its floor has no number."""
    scores = _scores(_factorial((0.3, -0.2, 0.1)))
    expected = tables.main_effects(scores, resampling=DRAWS)
    scores["floor"] = np.nan
    found = tables.main_effects(scores, resampling=DRAWS)
    assert found["floor"].isna().all()
    same = [name for name in found if name != "floor"]
    pd.testing.assert_frame_equal(found[same], expected[same])


def test_half_of_an_interaction_counts_for_each_of_its_features() -> None:
    """By hand: c has its weight in 4 of 4 pairs of cells, the interaction in 2."""
    scores = _scores(_factorial((0.3, 0.0, 0.1), interaction=0.08))
    found = tables.main_effects(scores, resampling=DRAWS)
    pooled = found[found["subject"] == "all"].set_index("method")["value"]
    assert pooled["c"] == pytest.approx(0.34)
    assert pooled["z"] == pytest.approx(0.0, abs=1e-12)
    assert pooled["Z_CLIP"] == pytest.approx(0.14)


def test_holm_counts_all_effects_and_metrics_of_a_subject(
    rng: np.random.Generator,
) -> None:
    scores = _scores(_factorial((0.3, 0.0, 0.1)), metrics=("pcc", "clip_judge"))
    scores["value"] += rng.normal(0, 0.2, len(scores))
    found = tables.main_effects(scores, resampling=DRAWS)
    for _, block in found.groupby("subject"):
        assert len(block) == 6
        smallest = block["p_permutation"].min()
        assert block["p_holm"].min() == pytest.approx(min(1, 6 * smallest))
        assert (block["p_holm"] >= block["p_permutation"]).all()


def test_main_effects_need_all_eight_cells() -> None:
    cells = _factorial((0.3, -0.2, 0.1))
    del cells["z_clip"]
    with pytest.raises(DataError, match="z_clip"):
        tables.main_effects(_scores(cells), resampling=DRAWS)


LADDERS = {"layers": ("guided_layers_1", "stage2_guided"), "k": ("guided_k5",)}


def _ablation(
    scores: pd.DataFrame, subjects: Sequence[int] = (1, 2), **not_run: str
) -> pd.DataFrame:
    return tables.ablation_table(
        scores,
        subjects=subjects,
        settings=PCC,
        resampling=DRAWS,
        ladders=LADDERS,
        not_run=not_run,
    )


def test_all_rows_of_the_ablation_are_over_the_same_images() -> None:
    cells = _factorial((0.3, -0.2, 0.1))
    scores = _scores({**cells, "guided_layers_1": 0.5, "true_features": 0.9})
    few = (scores["method"] == "guided_layers_1") & (scores["nsd_id"] >= 20)
    found = _ablation(scores[~few])
    single = found[(found["subject"] == "1") & found["value"].notna()]
    assert len(single) == 8 + 3 + 2
    assert (single["n"] == 2).all()
    assert (single["n_images"] == 2).all()
    pooled = found[(found["subject"] == "all") & found["value"].notna()]
    assert (pooled["n"] == 2).all()
    assert (pooled["n_images"] == 2).all()
    stage1 = single[single["method"] == "stage1"].iloc[0]
    assert stage1["value"] == pytest.approx(0.3 - 0.2 + 0.05)  # images 0 and 10
    assert stage1["ceiling"] == pytest.approx(0.9 + 0.05)  # on the same two
    assert (
        found["group"].unique() == ["factorial", "main effect", "layers", "k"]
    ).all()


def test_the_ablation_names_cells_by_their_features() -> None:
    found = _ablation(_scores(_factorial((0.3, -0.2, 0.1))))
    cells = found[(found["group"] == "factorial") & (found["subject"] == "all")]
    flags = cells[list(tables.FEATURES)].astype(int).to_numpy()
    assert len(np.unique(flags, axis=0)) == 8
    np.testing.assert_allclose(cells["value"], flags @ [0.3, -0.2, 0.1] + 0.65)
    assert found.loc[found["group"] != "factorial", "c"].isna().all()


def test_the_ablation_reports_what_was_not_run() -> None:
    cells = _factorial((0.3, -0.2, 0.1))
    del cells["none"]
    found = _ablation(_scores(cells), subjects=(1, 2, 7), none="no seed given")
    pooled = found[found["subject"] == "all"].set_index(["group", "method"])["status"]
    assert pooled["factorial", "none"] == "not run: no seed given"
    assert pooled["main effect", "c"].endswith("eight cells, none not run")
    assert pooled["k", "guided_k5"] == "not run: no scores of it"
    assert pooled["factorial", "stage1"] == "2 of 3 subjects"
    own = found[(found["subject"] == "7") & (found["method"] == "stage1")]
    assert own["status"].tolist() == ["missing"]


def test_effects_over_all_say_which_subjects_are_lacking() -> None:
    found = _ablation(_scores(_factorial((0.3, -0.2, 0.1))), subjects=(1, 2, 7))
    effects = found[found["group"] == "main effect"].set_index(["subject", "method"])
    assert effects.loc[("all", "c"), "status"] == "2 of 3 subjects"
    assert effects.loc[("7", "c"), "status"] == "missing"


def test_an_ablation_without_any_condition_is_refused() -> None:
    with pytest.raises(DataError, match="no condition"):
        _ablation(_scores({"retrieval": 0.1}))


def test_ladders_hold_the_profile_s_own_setting_once() -> None:
    overrides = {
        "ablation.n_images": 2,
        "ablation.layers": ((1, 2, 3), (1,)),
        "ablation.iterations": (8, 4),
        "ablation.k_grid": (100.0, 5.0),
        "stage2.layers_fast": (1, 2),
        "decoding.k_percent": 25.0,
    }
    methods, same_as = tables.ladders(load_profile("smoke", overrides))
    assert methods["layers"] == (
        *("guided_layers_1", "guided_layers_1_2", "guided_layers_1_2_3"),
    )
    iterations = ("stage2_iter_0", "stage2_iter_4", "stage2_iter_8", "stage2")
    assert methods["iterations"] == iterations
    assert methods["k"] == ("guided_k5", "guided_k25", "guided_k100")
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
    found = tables.quality_by_k(scores[~few], settings=PCC, resampling=DRAWS)
    single = found[found["subject"] == "1"]
    assert single["k_percent"].tolist() == [5.0, 12.5, 100.0]
    assert (single["n"] == 3).all()
    np.testing.assert_allclose(single["value"], [0.5, 0.4, 0.3])
    with pytest.raises(DataError, match="guided_k"):
        tables.quality_by_k(_scores({"a": 1.0}), settings=PCC, resampling=DRAWS)


# --- T4 -------------------------------------------------------------------------------


def test_accuracy_over_subjects_has_student_s_interval() -> None:
    found = tables.accuracy_table(_accuracy(), subjects=(1, 2, 5), confidence=0.9)
    key = ["subject", "feature", "area_set"]
    row = found.set_index(key).loc[("all", "c", "LVC")]
    r = np.array([0.11, 0.12, 0.15])
    low, high = scipy.stats.t.interval(0.9, 2, r.mean(), scipy.stats.sem(r))
    assert row["value"] == pytest.approx(r.mean())
    assert (row["ci_low"], row["ci_high"]) == (
        pytest.approx(low),
        pytest.approx(high),
    )
    assert row["n"] == 3
    assert row["p_permutation"] == pytest.approx(0.05)  # the largest
    assert row["floor"] == pytest.approx(0.008 / 3)
    assert row["ceiling"] == pytest.approx(0.8)


def test_accuracy_reports_areas_and_subjects_that_are_lacking() -> None:
    found = tables.accuracy_table(_accuracy(), subjects=(1, 2, 5, 7), confidence=0.95)
    key = ["subject", "feature", "area_set"]
    status = found.set_index(key)["status"]
    assert len(found) == 5 * 3 * 14
    assert found["feature"].drop_duplicates().tolist() == ["c", "z", "clip/2"]
    assert status["7", "c", "all"] == "missing"
    assert status["1", "c", "V2"] == "missing"
    assert status["all", "c", "V2"] == "missing"
    assert status["all", "c", "all"] == "3 of 4 subjects"
    assert status["1", "c", "V1"] == ""


def test_a_doubled_accuracy_is_refused() -> None:
    twice = pd.concat([_accuracy(), _accuracy()])
    with pytest.raises(DataError, match="twice"):
        tables.accuracy_table(twice, subjects=(1, 2, 5), confidence=0.95)


# --- T5 -------------------------------------------------------------------------------


#: Of an image under Algorithm 1.
REFERENCE = {"n_unet_evaluations": 1000, "n_unet_gradients": 500}


def _costs() -> pd.DataFrame:
    rows = [("1", "stage1", i, 16, np.nan) for i in range(4)]
    rows += [("1", "stage2", i, 100 + 10 * i, 40) for i in range(4)]
    columns = ["subject", "method", "nsd_id", "n_unet_evaluations", "n_unet_gradients"]
    return pd.DataFrame(rows, columns=columns)


def test_costs_are_relative_to_algorithm_1_whether_it_ran_or_not() -> None:
    times = pd.DataFrame({"notebook": ["04", "03", "04"], "seconds": [30.0, 5.0, 50.0]})
    found = tables.cost_table(_costs(), times, resampling=DRAWS, reference=REFERENCE)
    found = found.set_index(["metric", "method"])
    stage2 = found.loc[("n_unet_evaluations", "stage2")]
    assert stage2["value"] == pytest.approx(115)
    assert stage2["total"] == pytest.approx(460)
    assert stage2["relative"] == pytest.approx(115 / 1000)
    assert stage2["status"] == ""
    assert found.loc[("n_unet_gradients", "stage1"), "value"] == 0
    assert found.loc[("n_unet_gradients", "stage2"), "relative"] == 40 / 500
    assert found.loc[("seconds", "04"), "value"] == pytest.approx(40)
    assert found.loc[("seconds", "04"), "total"] == pytest.approx(80)
    assert found.loc[("seconds", "03"), "n"] == 1


# --- for readers ----------------------------------------------------------------------


def test_a_printed_table_has_a_column_per_metric_and_ends_with_definitions() -> None:
    comparison = _comparison(_scores({"a": 0.1}, metrics=tuple(SETTINGS)))
    long = tables.comparison_table(
        comparison,
        subjects=(1, 2),
        methods=("a",),
        settings=SETTINGS,
        not_run={"ic_gan": "no weights"},
    )
    shown = tables.for_print(long, {"pcc": "PCC", "clip_judge": "CLIP"})
    assert list(shown.columns) == ["subject", "method", "PCC", "CLIP", "n"]
    row = comparison[(comparison["subject"] == "1") & (comparison["metric"] == "pcc")]
    low, high = row["ci_low"].iloc[0], row["ci_high"].iloc[0]
    assert shown.loc[0, "PCC"] == f"0.250 [{low:.2f}, {high:.2f}]"
    assert shown.loc[1, "PCC"] == "not run: no weights"
    assert shown.iloc[-1].tolist() == ["settings", "", *SETTINGS.values(), ""]
    assert not shown.map(lambda cell: "nan" in cell).any(axis=None)


def test_a_printed_table_notes_what_a_number_does_not_cover() -> None:
    long = tables.subjects_table(
        _comparison(_scores({"a": 0.1})),
        subjects=(1, 2, 7),
        methods=("a",),
        settings=PCC,
    )
    shown = tables.for_print(long, {"pcc": "PCC"}).set_index("subject")
    assert shown.loc["all", "note"] == "2 of 3 subjects"
    assert shown.loc["7", "PCC"] == "missing"


def test_printed_effects_carry_sign_and_p() -> None:
    found = _ablation(_scores(_factorial((0.3, -0.2, 0.1))))
    found = found[found["subject"] == "all"]
    shown = tables.for_print(found, {"pcc": "PCC"}, rows=("group", "method"))
    cell = shown[(shown["group"] == "main effect") & (shown["method"] == "z")]["PCC"]
    assert cell.iloc[0].startswith("-0.200 [-0.200, -0.200], p = ")


def test_accuracies_print_by_area_with_floor_and_ceiling() -> None:
    long = tables.accuracy_table(_accuracy(), subjects=(1, 2, 5), confidence=0.95)
    shown = tables.for_print(
        long[long["subject"] == "1"],
        {"c": "c", "z": "z"},
        rows=("area_set",),
        across="feature",
        cell=tables.bounded_cell,
    ).set_index("area_set")
    assert shown.loc["V1", "c"] == "0.110 (floor 0.00, ceiling 0.80)"
    assert shown.loc["IPS", "c"] == "missing"


# --- which images are shown -----------------------------------------------------------


def _ranked(n: int) -> pd.DataFrame:
    """Return n images whose ids fall while their scores rise, shuffled."""
    ids = np.arange(n)[::-1] * 2
    table = pd.DataFrame({"nsd_id": ids, "value": np.linspace(0, 1, n)})
    return table.sample(frac=1, random_state=1)


def test_picked_images_lie_at_the_quantiles_after_the_fixed_ones() -> None:
    found = tables.pick_images(_ranked(21), 6, words="judge CLIP", fixed=(4,))
    # image 40 - 2 r has rank r of 0 to 20; quantiles are ranks 1, 5, 10, 15, 19
    assert found.nsd_id == (4, 38, 30, 20, 10, 2)
    assert found.titles == ("fixed: 4", "5 %", "25 %", "50 %", "75 %", "95 %")
    assert "fixed ids 4" in found.rule
    assert "5, 25, 50, 75, 95 % of judge CLIP, among 21 images" in found.rule


def test_fewer_images_are_the_median_and_then_the_ends() -> None:
    found = tables.pick_images(_ranked(21), 3, words="score")
    assert found.titles == ("5 %", "50 %", "95 %")


def test_no_image_is_picked_twice_and_all_are_shown_when_few() -> None:
    found = tables.pick_images(_ranked(3), 5, words="score", fixed=(2,))
    assert sorted(found.nsd_id) == [0, 2, 4]
    assert len(found.titles) == 3


def test_ties_are_ranked_by_id_whatever_the_order_of_rows() -> None:
    table = pd.DataFrame({"nsd_id": [9, 3, 7, 1, 5], "value": 0.5})
    found = tables.pick_images(table, 1, words="score")
    assert found.nsd_id == (5,)
    assert tables.pick_images(table[::-1], 1, words="score") == found


def test_a_fixed_image_without_a_score_is_named() -> None:
    found = tables.pick_images(_ranked(5), 2, words="score", fixed=(999, 2))
    assert found.nsd_id[0] == 2
    assert "fixed ids 999 have no score" in found.rule


def test_scores_of_two_metrics_are_refused() -> None:
    with pytest.raises(DataError, match="twice"):
        tables.pick_images(pd.concat([_ranked(5)] * 2), 2, words="score")
    with pytest.raises(ConfigError, match="n is 0"):
        tables.pick_images(_ranked(5), 0, words="score")


def _two_metrics(clip: Sequence[float], ssim: Sequence[float]) -> pd.DataFrame:
    both = {"clip_judge": clip, "ssim_2d": ssim}
    rows = [
        ("1", "stage2", i, metric, v)
        for metric, values in both.items()
        for i, v in enumerate(values)
    ]
    names = ["subject", "method", "nsd_id", "metric", "value"]
    return pd.DataFrame(rows, columns=names)


def _failures(scores: pd.DataFrame, n: int = 1) -> pd.DataFrame:
    return tables.failure_table(
        scores, semantic="clip_judge", structural="ssim_2d", n=n
    ).set_index("nsd_id")


def test_failures_have_the_largest_product_of_opposite_ranks() -> None:
    """By hand, six images: low CLIP and high SSIM are 0 (6 x 5), 1 (5 x 6), 2 (4 x 4).

    The first two tie at 30, and the lower id goes first.
    """
    scores = _two_metrics([1, 2, 3, 4, 5, 6], [5, 6, 4, 3, 1, 2])
    found = _failures(scores, n=2)
    low = found[found["signature"] == "low semantic"]
    assert low["place"].to_dict() == {0: 1, 1: 2}
    # low SSIM and high CLIP: 3 (4 x 4), 4 (6 x 5), 5 (5 x 6)
    high = found[found["signature"] == "low structural"]
    assert high["place"].to_dict() == {4: 1, 5: 2}


def test_where_both_scores_agree_nothing_is_a_failure_of_one_kind() -> None:
    found = _failures(_two_metrics(range(6), range(6)), n=2)
    assert (found["signature"] == "").all()
    assert (found["place"] == 0).all()


def test_failures_need_both_scores_of_one_subject_and_method() -> None:
    scores = _two_metrics(range(6), range(6))
    with pytest.raises(DataError, match="lacking"):
        _failures(scores.iloc[:-1])
    with pytest.raises(DataError, match="several"):
        _failures(pd.concat([scores, scores.assign(subject="2")]))


def test_weights_by_area_are_means_over_the_area_s_voxels() -> None:
    weight = {"c": np.array([1.0, 3.0, 5.0]), "z": np.array([0.0, 0.0, 2.0])}
    table = tables.weights_by_area(weight, np.array([0, 0, 2]), ["V1", "V2", "V3"])
    assert table.columns.tolist() == ["feature", "area", "weight", "n_voxels"]
    c = table[table["feature"] == "c"]
    assert c["weight"].tolist() == [2.0, 0.0, 5.0]
    assert c["n_voxels"].tolist() == [2, 0, 1]
