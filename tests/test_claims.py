"""Every claim can be supported and can fail; what was not run is not tested."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from minddiff_utils import claims
from minddiff_utils.claims import CLAIMS, CONTRASTS, Evidence
from minddiff_utils.config import AREAS, HVC
from minddiff_utils.errors import DataError

SUBJECTS = ("1", "2", "5", "7")
LABEL = "profile nsd"
#: Values of subject 1 that lie at the paper's own (PAPER claims C1 to C3).
PAPER = {"clip_judge": 0.765, "ssim_2d": 0.354, "pcc": 0.278}
DIRECTIONAL = ("C5", "C6", "C7", "C8", "C9", "C10", "C11")

# --- a run in which every claim holds -----------------------------------------------


def _comparison() -> pd.DataFrame:
    rows = []
    for rank, subject in enumerate((*SUBJECTS, "all")):
        for method in ("stage1", "stage2"):
            for metric, best in PAPER.items():
                value = best - 0.01 * rank
                ends = (value - 0.02, value + 0.02, 982, 0.1, 0.9)
                rows.append((subject, method, metric, value, *ends))
    columns = ["subject", "method", "metric", "value", "ci_low", "ci_high", "n"]
    return pd.DataFrame(rows, columns=[*columns, "floor", "ceiling"])


def _contrast(contrast: str, metric: str, value: float) -> tuple[Any, ...]:
    return (
        "all",
        contrast,
        metric,
        value,
        value - 0.01,
        value + 0.01,
        0.001,
        4,
        4,
        0.125,
    )


def _contrast_table(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["subject", "contrast", "metric", "value", "ci_low", "ci_high"]
    more = ["p_permutation", "n", "n_subjects_positive", "p_subjects"]
    return pd.DataFrame(rows, columns=columns + more)


def _contrasts() -> pd.DataFrame:
    rows = [
        _contrast(f"{a} - {b}", metric, 0.05)
        for a, b in CONTRASTS
        for metric in PAPER
        if (a, b, metric) != ("c_only", "z_only", "ssim_2d")
    ]
    return _contrast_table([*rows, _contrast("c_only - z_only", "ssim_2d", -0.05)])


def _paired() -> pd.DataFrame:
    values = {"pcc": 0.05, "ssim_2d": 0.05, "clip_judge": 0.0}
    return _contrast_table(
        [_contrast("stage2 - stage1", m, v) for m, v in values.items()]
    )


def _k_selection() -> pd.DataFrame:
    rows = [
        (subject, layer, k, round(10 * k), 0.5, 0.4 - 0.003 * k, k / 100)
        for subject in SUBJECTS
        for layer in (1, 2)
        for k in (5.0, 10.0, 25.0, 50.0, 75.0, 100.0)
    ]
    columns = ["subject", "layer", "k_percent", "n_selected", "r_cv_selected_mean"]
    return pd.DataFrame(rows, columns=[*columns, "r_selected_mean", "variance_kept"])


def _weights() -> pd.DataFrame:
    rows = [
        (subject, feature, area, 2.0 if (area in HVC) == (feature == "c") else 1.0, 50)
        for subject in SUBJECTS
        for feature in ("c", "z", "clip/2", "clip/10")
        for area in AREAS
    ]
    columns = ["subject", "feature", "area", "weight", "n_voxels"]
    return pd.DataFrame(rows, columns=columns)


def _accuracy() -> pd.DataFrame:
    rows = []
    for rank, subject in enumerate(SUBJECTS):  # accuracy ranks subjects as CLIP does
        for feature in ("c", "z", "clip/1"):
            for area_set, r in (("all", 0.3 - 0.02 * rank), ("V1", 0.0)):
                p = 0.005 if area_set == "all" else 0.9
                rows.append((subject, feature, area_set, r, 0.0, 0.02, 0.6, p, 982, 90))
    columns = ["subject", "feature", "area_set", "r_mean", "r_null_mean", "r_null_high"]
    more = ["r_ceiling", "p_permutation", "n_images", "n_targets"]
    return pd.DataFrame(rows, columns=columns + more)


def _stage2() -> pd.DataFrame:
    return pd.DataFrame({"loss_first": [1.0, 2.0], "loss_best": [0.5, 1.8]})


def _evidence(*, in_silico: bool = False) -> Evidence:
    tables = {
        "comparison": _comparison(),
        "paired": _paired(),
        "contrasts": _contrasts(),
        "k_selection": _k_selection(),
        "weights": _weights(),
        "accuracy": _accuracy(),
        "stage2": _stage2(),
    }
    return Evidence(tables, in_silico)


def _with(evidence: Evidence, **tables: pd.DataFrame) -> Evidence:
    return replace(evidence, tables={**evidence.tables, **tables})


def _ledger(evidence: Evidence) -> pd.DataFrame:
    return claims.evaluate_claims(evidence, label=LABEL).set_index("claim")


def _verdict(evidence: Evidence, claim: str) -> str:
    return str(_ledger(evidence).loc[claim, "verdict"])


# --- supported ----------------------------------------------------------------------


@pytest.mark.parametrize("claim", DIRECTIONAL)
@pytest.mark.parametrize("in_silico", [False, True])
def test_a_directional_claim_is_supported_where_it_holds(
    claim: str, in_silico: bool
) -> None:
    verdict = _verdict(_evidence(in_silico=in_silico), claim)
    assert verdict.startswith("supported: "), verdict


@pytest.mark.parametrize("claim", ["C1", "C2", "C3"])
def test_a_number_agrees_where_the_interval_holds_the_paper_s(claim: str) -> None:
    row = _ledger(_evidence()).loc[claim]
    assert row["verdict"].startswith("agrees: ")
    assert row["ci_low"] <= row["paper_value"] <= row["ci_high"]
    assert (row["n"], row["floor"], row["ceiling"]) == (982, 0.1, 0.9)


# --- the null fails -----------------------------------------------------------------


@pytest.mark.parametrize("claim", ["C1", "C2", "C3"])
def test_a_number_at_its_floor_differs(claim: str) -> None:
    table = _comparison()
    table[["value", "ci_low", "ci_high"]] = (0.1, 0.08, 0.12)
    assert _verdict(_with(_evidence(), comparison=table), claim).startswith("differs: ")


def _paired_with(metric: str, value: float) -> pd.DataFrame:
    table = _paired()
    row = table["metric"] == metric
    table.loc[row, ["value", "ci_low", "ci_high"]] = (value, value - 0.01, value + 0.01)
    return table


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("pcc", 0.0, "no certain gain"),
        ("ssim_2d", 0.0, "no certain gain"),
        ("clip_judge", -0.2, "semantic loss is not excluded"),
    ],
)
def test_c5_fails_without_a_gain_or_with_a_semantic_loss(
    metric: str, value: float, words: str
) -> None:
    verdict = _verdict(_with(_evidence(), paired=_paired_with(metric, value)), "C5")
    assert verdict.startswith("not supported: ")
    assert words in verdict


def test_c5_allows_a_loss_of_a_tenth_of_stage_1_s_lead_over_its_floor() -> None:
    lead = 0.10 * (0.765 - 0.04 - 0.1)  # the row "all" of `_comparison`
    for share, state in ((0.9, "supported"), (1.1, "not supported")):
        table = _paired_with("clip_judge", -share * lead + 0.01)  # interval's lower end
        verdict = _verdict(_with(_evidence(), paired=table), "C5")
        assert verdict.startswith(f"{state}: ")


def _contrasts_with(contrast: str, metric: str, value: float) -> pd.DataFrame:
    table = _contrasts()
    row = (table["contrast"] == contrast) & (table["metric"] == metric)
    assert row.sum() == 1
    table.loc[row, ["value", "ci_low", "ci_high"]] = (value, value - 0.01, value + 0.01)
    return table


@pytest.mark.parametrize(
    ("feature", "tables"),
    [
        ("c", {"contrasts": _contrasts_with("stage1 - z_only", "clip_judge", 0.0)}),
        ("z", {"contrasts": _contrasts_with("stage1 - c_only", "pcc", 0.0)}),
        ("Z_CLIP", {"paired": _paired_with("ssim_2d", 0.0)}),
    ],
)
def test_c6_fails_where_a_feature_adds_nothing(
    feature: str, tables: Mapping[str, pd.DataFrame]
) -> None:
    row = _ledger(_with(_evidence(), **tables)).loc["C6"]
    assert row["verdict"].startswith("not supported: ")
    assert f"{feature} adds nothing certain" in row["verdict"]
    assert row["our_value"] == 2


@pytest.mark.parametrize("metric", ["clip_judge", "pcc"])
def test_c7_fails_where_one_subject_is_at_its_floor(metric: str) -> None:
    table = _comparison()
    row = (table["subject"] == "5") & (table["metric"] == metric)
    table.loc[row, "ci_low"] = table.loc[row, "floor"]
    verdict = _verdict(_with(_evidence(), comparison=table), "C7")
    assert verdict.startswith("not supported: 3 of 4 subjects")
    assert verdict.endswith(f"fails: subject 5 {metric}")


@pytest.mark.parametrize("column", ["r_selected_mean", "variance_kept"])
def test_c8_fails_where_k_does_not_matter(column: str) -> None:
    table = _k_selection()
    table[column] = 0.3
    verdict = _verdict(_with(_evidence(), k_selection=table), "C8")
    assert verdict.startswith("not supported: ")


def test_c8_fails_where_accuracy_moves_either_way(rng: np.random.Generator) -> None:
    table = _k_selection()
    odd = (table["layer"] == 1) == (table["subject"].isin(["1", "2"]))
    table.loc[odd, "r_selected_mean"] = table.loc[odd, "k_percent"] / 1000
    verdict = _verdict(_with(_evidence(), k_selection=table), "C8")
    assert verdict.startswith("not supported: as k grows, accuracy falls in 4 of 8")


def test_c8_reads_the_accuracy_of_test_images_not_the_one_that_selected() -> None:
    table = _k_selection()
    table["r_cv_selected_mean"] = table["r_selected_mean"]
    table["r_selected_mean"] = 0.3
    verdict = _verdict(_with(_evidence(), k_selection=table), "C8")
    assert verdict.startswith("not supported: ")


@pytest.mark.parametrize("feature", ["c", "z", "clip/2"])
def test_c9_fails_where_areas_weigh_alike(feature: str) -> None:
    table = _weights()
    table.loc[table["feature"] == feature, "weight"] = 1.0
    verdict = _verdict(_with(_evidence(), weights=table), "C9")
    assert verdict.startswith("not supported: ")
    assert f"{feature} 1.00" in verdict


def test_c9_reads_the_lowest_layer_and_counts_voxels_not_areas() -> None:
    table = _weights()
    top = table["feature"] == "clip/10"
    table.loc[top & table["area"].isin(HVC), "weight"] = 9.0  # a high layer may lean
    one = (table["feature"] == "c") & (table["area"] == "V1")
    table.loc[one, ["weight", "n_voxels"]] = (50.0, 1)
    row = _ledger(_with(_evidence(), weights=table)).loc["C9"]
    assert row["verdict"].startswith("supported: ")
    # 4 low areas of 50 voxels at 1 and one voxel at 50, against 2
    assert row["our_value"] == pytest.approx(2.0 / (250 / 201))


def test_c10_fails_where_a_feature_is_at_chance() -> None:
    for column, value in (("p_permutation", 0.2), ("r_mean", -0.01)):
        table = _accuracy()
        table.loc[2, column] = value  # subject 1, z, all areas
        verdict = _verdict(_with(_evidence(), accuracy=table), "C10")
        assert verdict.startswith("not supported: 11 of 12 pairs")


def test_c10_fails_where_quality_does_not_follow() -> None:
    table = _comparison()
    row = (table["method"] == "stage2") & (table["metric"] == "clip_judge")
    swapped = table["subject"].map({"1": 0.6, "2": 0.7, "5": 0.65, "7": 0.68})
    table.loc[row, "value"] = swapped[row]
    verdict = _verdict(_with(_evidence(), comparison=table), "C10")
    assert verdict.startswith("not supported: 12 of 12 pairs")


@pytest.mark.parametrize("metric", ["clip_judge", "ssim_2d"])
def test_c11_fails_where_a_score_does_not_tell_the_failures_apart(metric: str) -> None:
    table = _contrasts_with("c_only - z_only", metric, 0.0)
    verdict = _verdict(_with(_evidence(), contrasts=table), "C11")
    assert verdict.startswith("not supported: ")
    assert "not certainly lower" in verdict


# --- not tested ---------------------------------------------------------------------


@pytest.mark.parametrize("claim", [c.claim for c in CLAIMS])
@pytest.mark.parametrize("in_silico", [False, True])
def test_without_tables_nothing_is_tested(claim: str, in_silico: bool) -> None:
    row = _ledger(Evidence({}, in_silico)).loc[claim]
    assert row["verdict"].startswith("not tested: ")
    assert np.isnan(row["our_value"])


def test_c4_is_not_tested_but_says_what_is_near_it() -> None:
    verdict = _verdict(_evidence(), "C4")
    assert verdict.startswith("not tested: neither system is run here")
    assert "stage 2 minus retrieval" in verdict


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ("C5", "paired"),
        ("C5", "comparison"),
        ("C6", "contrasts"),
        ("C6", "paired"),
        ("C7", "comparison"),
        ("C8", "k_selection"),
        ("C9", "weights"),
        ("C10", "accuracy"),
        ("C10", "comparison"),
        ("C11", "contrasts"),
    ],
)
def test_a_claim_without_one_of_its_tables_is_not_tested(claim: str, name: str) -> None:
    verdict = _verdict(_with(_evidence(), **{name: pd.DataFrame()}), claim)
    assert verdict.startswith("not tested: ")


def test_a_single_subject_cannot_show_what_holds_across_subjects() -> None:
    tables = {
        name: table[table["subject"].isin(["1", "all"])]
        for name, table in _evidence().tables.items()
        if "subject" in table
    }
    ledger = _ledger(Evidence(tables, in_silico=False))
    assert ledger.loc["C7", "verdict"] == "not tested: the run has 1 subject"
    assert ledger.loc["C10", "verdict"].startswith("not tested: 3 of 3 pairs")
    assert "1 scored subject, too few" in ledger.loc["C10", "verdict"]


@pytest.mark.parametrize("feature", ["c", "z"])
def test_c9_is_not_tested_without_voxels_of_a_feature(feature: str) -> None:
    table = _weights()
    table = table[table["feature"] != feature]
    assert _verdict(_with(_evidence(), weights=table), "C9").startswith("not tested: ")


def test_a_number_from_one_image_is_not_tested() -> None:
    table = _comparison()
    table[["ci_low", "ci_high"]] = np.nan
    verdict = _verdict(_with(_evidence(), comparison=table), "C1")
    assert verdict.startswith("not tested: a single image")


# --- the ledger ---------------------------------------------------------------------


def test_in_silico_numbers_are_never_compared_with_the_paper_s() -> None:
    ledger = _ledger(_evidence(in_silico=True))
    for claim in ("C1", "C2", "C3"):
        assert ledger.loc[claim, "verdict"].startswith("not comparable (in silico): ")
    assert not any(re.search("agrees|differs", v) for v in ledger["verdict"])


def test_the_ledger_has_one_row_per_claim_of_the_paper_in_order() -> None:
    table = claims.evaluate_claims(_evidence(), label=LABEL)
    assert table.columns.tolist() == list(claims.COLUMNS)
    assert table["claim"].tolist() == [f"C{k}" for k in range(1, 12)]
    assert table["paper_value"].tolist()[:3] == [0.765, 0.354, 0.278]
    assert table["paper_value"][3:].isna().all()
    assert set(table["profile"]) == {LABEL}
    assert all(claim.null for claim in CLAIMS)


@pytest.mark.parametrize("in_silico", [False, True])
def test_verdicts_are_sentences_a_person_can_read(in_silico: bool) -> None:
    full = _evidence(in_silico=in_silico)
    bare = {"comparison": _comparison().assign(ceiling=np.nan)}
    for evidence in (full, Evidence({}, in_silico), _with(full, **bare)):
        for verdict in _ledger(evidence)["verdict"]:
            state, _, words = verdict.partition(": ")
            assert state in {
                *("supported", "not supported", "not tested"),
                *("agrees", "differs", "not comparable (in silico)"),
            }
            assert len(words) > 20
            assert not re.search(r"\bnan\b|None|\d{5}|np\.", verdict), verdict
            assert not re.search(r"\b1 subjects", verdict)


def test_c2_names_the_other_definition_of_ssim() -> None:
    row = ("1", "stage2", "ssim_percolumn_legacy", 0.461, 0.4, 0.5, 982, 0.1, 0.9)
    table = pd.concat(
        [_comparison(), pd.DataFrame([row], columns=_comparison().columns)]
    )
    verdict = _verdict(_with(_evidence(), comparison=table), "C2")
    assert verdict.endswith(
        "which SSIM the paper used is unknown, per column it is 0.461"
    )


def test_subjects_read_back_as_numbers_are_still_found() -> None:
    table = _comparison()
    own = table[table["subject"] != "all"].astype({"subject": int})
    assert _verdict(Evidence({"comparison": own}, in_silico=False), "C1").startswith(
        "agr"
    )


def test_a_table_that_holds_a_row_twice_is_an_error() -> None:
    table = pd.concat([_comparison(), _comparison()])
    with pytest.raises(DataError, match="twice"):
        _ledger(_with(_evidence(), comparison=table))


# --- helpers whose numbers the rules rest on ----------------------------------------


def test_rank_correlation_and_its_exact_p_equal_scipy_s() -> None:
    import scipy.stats

    x, y = [1.0, 2.0, 2.0, 5.0, 9.0], [0.1, 0.4, 0.2, 0.2, 0.9]
    expected = scipy.stats.spearmanr(x, y).statistic
    assert claims._rank_correlation(x, y) == pytest.approx(expected)
    # four distinct subjects in the same order: 1 of 24 orders
    assert claims._rank_p([1, 2, 3, 4], [5, 6, 7, 8]) == pytest.approx(1 / 24)


def test_sign_p_is_the_binomial_tail() -> None:
    import scipy.stats

    expected = scipy.stats.binomtest(7, 8, alternative="greater").pvalue
    assert claims._sign_p(7, 8) == pytest.approx(expected)


def test_weights_by_area_are_means_over_the_area_s_voxels() -> None:
    weight = {"c": np.array([1.0, 3.0, 5.0]), "z": np.array([0.0, 0.0, 2.0])}
    table = claims.weights_by_area(weight, np.array([0, 0, 2]), ["V1", "V2", "V3"])
    assert table.columns.tolist() == ["feature", "area", "weight", "n_voxels"]
    c = table[table["feature"] == "c"]
    assert c["weight"].tolist() == [2.0, 0.0, 5.0]
    assert c["n_voxels"].tolist() == [2, 0, 1]


# --- the sceptic's table ------------------------------------------------------------


def _sanity(evidence: Evidence, n_equal: int = 3, n_compared: int = 3) -> pd.DataFrame:
    table = claims.sanity_table(evidence, n_equal=n_equal, n_compared=n_compared)
    return table.set_index("check")


def test_all_checks_pass_where_all_holds() -> None:
    table = _sanity(_evidence())
    assert table.columns.tolist() == ["expected", "observed", "passed"]
    assert table["passed"].all()
    assert len(table) == 3 + 8 + 2 + 1  # features, orders, stage 2, gain


def test_missing_tables_pass_no_check() -> None:
    table = _sanity(Evidence({}, in_silico=True), 0, 0)
    assert len(table) == 11
    assert not table["passed"].any()


@pytest.mark.parametrize(
    ("check", "tables"),
    [
        (
            "recovery ceiling, stage 1, pcc",
            {"contrasts": _contrasts_with("true_features - stage1", "pcc", 0.0)},
        ),
        (
            "shuffled brain, stage 2, clip_judge",
            {
                "contrasts": _contrasts_with(
                    "stage2 - stage2_shuffled", "clip_judge", 0.0
                )
            },
        ),
        (
            "structural loss falls",
            {
                "stage2": pd.DataFrame(
                    {"loss_first": [1.0, 1.0], "loss_best": [0.5, 1.0]}
                )
            },
        ),
        ("stage 2 improves on stage 1", {"paired": _paired_with("pcc", 0.0)}),
        (
            "decoding accuracy of z",
            {"accuracy": _accuracy().assign(p_permutation=0.06)},
        ),
    ],
)
def test_a_check_fails_on_its_null(
    check: str, tables: Mapping[str, pd.DataFrame]
) -> None:
    assert not _sanity(_with(_evidence(), **tables)).loc[check, "passed"]


def test_zero_iterations_must_be_equal_for_every_image() -> None:
    name = "stage 2 with zero iterations is stage 1"
    assert not _sanity(_evidence(), 2, 3).loc[name, "passed"]
    assert not _sanity(_evidence(), 0, 0).loc[name, "passed"]


def test_a_gain_with_uncertain_semantics_is_not_blamed_on_decoding() -> None:
    evidence = _with(_evidence(), paired=_paired_with("clip_judge", -1.0))
    said = _sanity(evidence).loc["stage 2 improves on stage 1", "observed"]
    assert "structure does rise" in said
    assert "limits it" not in said


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.05, "decoding of Z_CLIP limits it"), (0.0, "alignment itself limits it")],
)
def test_a_missing_gain_is_traced_to_decoding_or_alignment(
    value: float, words: str
) -> None:
    contrasts = _contrasts_with("stage2_true - true_features", "pcc", value)
    evidence = _with(_evidence(), paired=_paired_with("pcc", 0.0), contrasts=contrasts)
    assert words in _sanity(evidence).loc["stage 2 improves on stage 1", "observed"]
