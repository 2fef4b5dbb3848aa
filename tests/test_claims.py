"""Every claim can hold and can fail, refuses its null, and says what was not run."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.areas import AREAS, HVC
from minddiff_utils.core.conditions import CONTRASTS
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.resampling import Resampling
from minddiff_utils.core.rng import stream
from minddiff_utils.evaluation import claims
from minddiff_utils.evaluation.claims import CLAIMS, decoding_rules
from minddiff_utils.evaluation.claims import evidence as evidence_words
from minddiff_utils.evaluation.claims import nulls as null_makers
from minddiff_utils.evaluation.claims.evidence import Evidence, Outcome
from minddiff_utils.evaluation.summaries import paired_table, summarise

SUBJECTS = ("1", "2", "5", "7")
LABEL = "profile nsd"
#: Values of subject 1 that lie at the paper's own (PAPER claims C1 to C3).
PAPER = {"clip_judge": 0.765, "ssim_2d": 0.354, "pcc": 0.278}
DIRECTIONAL = ("C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11")

# --- a run in which every claim holds -----------------------------------------------


def _interval(table: pd.DataFrame, width: float) -> pd.DataFrame:
    low, high = table["value"] - width, table["value"] + width
    return table.assign(ci_low=low, ci_high=high)


def _comparison() -> pd.DataFrame:
    rows = [
        (subject, method, metric, best - 0.01 * rank)
        for rank, subject in enumerate((*SUBJECTS, "all"))
        for method in ("stage1", "stage2")
        for metric, best in PAPER.items()
    ]
    table = pd.DataFrame(rows, columns=["subject", "method", "metric", "value"])
    return _interval(table, 0.02).assign(n=982, floor=0.1, ceiling=0.9)


def _contrast_table(values: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    rows = [("all", *key, value) for key, value in values.items()]
    table = pd.DataFrame(rows, columns=["subject", "contrast", "metric", "value"])
    counts = {"n": 4, "n_subjects_positive": 4}
    return _interval(table, 0.01).assign(p_permutation=0.001, **counts)


def _contrasts() -> pd.DataFrame:
    values = {(f"{a} - {b}", metric): 0.05 for a, b in CONTRASTS for metric in PAPER}
    return _contrast_table(values | {("c_only - z_only", "ssim_2d"): -0.05})


def _paired() -> pd.DataFrame:
    values = {"pcc": 0.05, "ssim_2d": 0.05, "clip_judge": 0.0}
    return _contrast_table({("stage2 - stage1", m): v for m, v in values.items()})


def _k_selection() -> pd.DataFrame:
    rows = [
        (subject, layer, k, 0.5, 0.4 - 0.003 * k, k / 100)
        for subject in SUBJECTS
        for layer in (1, 2)
        for k in (5.0, 10.0, 25.0, 50.0, 75.0, 100.0)
    ]
    columns = ["subject", "layer", "k_percent", "r_cv_selected_mean"]
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
    rows = [  # accuracy ranks subjects as CLIP does
        (subject, feature, area_set, r - 0.02 * rank * (r > 0), p)
        for rank, subject in enumerate(SUBJECTS)
        for feature in ("c", "z", "clip/1")
        for area_set, r, p in (("all", 0.3, 0.005), ("V1", 0.0, 0.9))
    ]
    columns = ["subject", "feature", "area_set", "r_mean", "p_permutation"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(r_null_mean=0.0, r_null_high=0.02, r_ceiling=0.6)


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
    return Evidence(tables, in_silico, "demo" if in_silico else "nsd")


def _nothing(in_silico: bool = False) -> Evidence:
    return replace(_evidence(in_silico=in_silico), tables={})


def _with(evidence: Evidence, **tables: pd.DataFrame) -> Evidence:
    return replace(evidence, tables={**evidence.tables, **tables})


def _ledger(evidence: Evidence) -> pd.DataFrame:
    return claims.evaluate_claims(evidence, label=LABEL).set_index("claim")


def _verdict(evidence: Evidence, claim: str) -> str:
    return str(_ledger(evidence).loc[claim, "verdict"])


def _set(
    table: pd.DataFrame, value: float, width: float = 0.01, **where: str
) -> pd.DataFrame:
    """Return a table of results with one number, and its interval, replaced."""
    row = np.logical_and.reduce([table[k] == v for k, v in where.items()])
    assert row.any()
    ends = (value, value - width, value + width)
    table.loc[row, ["value", "ci_low", "ci_high"]] = ends
    return table


def _gain(metric: str, value: float) -> dict[str, pd.DataFrame]:
    return {"paired": _set(_paired(), value, metric=metric)}


def _differing(contrast: str, metric: str, value: float) -> dict[str, pd.DataFrame]:
    table = _set(_contrasts(), value, contrast=contrast, metric=metric)
    return {"contrasts": table}


def _without(contrast: str) -> dict[str, pd.DataFrame]:
    table = _contrasts()
    return {"contrasts": table[table["contrast"] != contrast]}


def _at_floor(subject: str, metric: str) -> dict[str, pd.DataFrame]:
    table = _comparison()
    row = (table["subject"] == subject) & (table["metric"] == metric)
    table.loc[row, "ci_low"] = table.loc[row, "floor"]
    return {"comparison": table}


def _k(**changed: Any) -> dict[str, pd.DataFrame]:
    return {"k_selection": _k_selection().assign(**changed)}


def _rising(subjects: Sequence[str], *layers: int) -> Any:
    """Return accuracies that rise with k in some subjects and layers."""

    def accuracy(table: pd.DataFrame) -> pd.Series:
        rows = table["subject"].isin(subjects) & table["layer"].isin(layers)
        return table["r_selected_mean"].mask(rows, table["k_percent"] / 1000)

    return accuracy


def _some(name: str, column: str, values: Sequence[Any]) -> dict[str, pd.DataFrame]:
    table = _evidence().table(name)
    return {name: table[table[column].isin(values)]}


def _k_quality(values: Mapping[float, float]) -> pd.DataFrame:
    rows = [
        ("all", k, metric, value, value - 0.02, value + 0.02)
        for metric in PAPER
        for k, value in values.items()
    ]
    columns = ["subject", "k_percent", "metric", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def _balanced(**values: float) -> dict[str, pd.DataFrame]:
    return {"k_quality": _k_quality({float(k[1:]): v for k, v in values.items()})}


def _weighing(weight: Any) -> dict[str, pd.DataFrame]:
    return {"weights": _weights().assign(weight=weight)}


def _even(feature: str) -> dict[str, pd.DataFrame]:
    return _weighing(lambda t: t["weight"].mask(t["feature"] == feature, 1.0))


def _single_area() -> dict[str, pd.DataFrame]:
    lean = {"c": 2.0, "z": 0.5, "clip/2": 0.5, "clip/10": 0.5}
    return _weighing(lambda t: t["feature"].map(lean).where(t["area"] == "IPS", 1.0))


def _decoded(column: str, value: float) -> dict[str, pd.DataFrame]:
    table = _accuracy()
    table.loc[2, column] = value  # subject 1, z, all areas
    return {"accuracy": table}


def _reranked() -> dict[str, pd.DataFrame]:
    table = _comparison()
    row = (table["method"] == "stage2") & (table["metric"] == "clip_judge")
    new = table["subject"].map({"1": 0.6, "2": 0.7, "5": 0.65, "7": 0.68})
    return {"comparison": table.assign(value=table["value"].mask(row, new))}


# --- every claim holds, fails, or cannot be said --------------------------------------


@pytest.mark.parametrize("claim", DIRECTIONAL)
@pytest.mark.parametrize("in_silico", [False, True])
def test_a_directional_claim_holds_where_its_effect_is(
    claim: str, in_silico: bool
) -> None:
    verdict = _verdict(_evidence(in_silico=in_silico), claim)
    word = "holds (in silico, direction only): " if in_silico else "holds: "
    assert verdict.startswith(word), verdict


@pytest.mark.parametrize("claim", ["C1", "C2", "C3"])
def test_a_number_holds_where_the_interval_has_the_paper_s_and_else_fails(
    claim: str,
) -> None:
    row = _ledger(_evidence()).loc[claim]
    assert row["verdict"].startswith("holds: ")
    assert row["ci_low"] <= row["paper_value"] <= row["ci_high"]
    assert (row["n"], row["floor"], row["ceiling"]) == (982, 0.1, 0.9)
    table = _set(_comparison(), 0.1, 0.02, method="stage2")
    assert _verdict(_with(_evidence(), comparison=table), claim).startswith("fails: ")
    table[["ci_low", "ci_high"]] = np.nan
    verdict = _verdict(_with(_evidence(), comparison=table), claim)
    assert verdict.startswith("cannot be said here: a single image")


_NONE = "cannot be said here: "
_UNSHOWN = "fails: not shown, "
_NO_LEAD = f"{_UNSHOWN}no certain lead over Takagi & Nishimoto in"
_LOWER = "fails: lower than Takagi & Nishimoto in"
_FALLS = "accuracy falls in"
_REMOVED = {
    "c": ("stage2_guided - z_clip", "clip_judge"),
    "z": ("stage2_guided - c_clip", "pcc"),
    "Z_CLIP": ("stage2_guided - stage1", "ssim_2d"),
}
_MARGIN = 0.10 * (0.765 - 0.04 - 0.1)  # the row "all" of `_comparison`
_TABLES = {
    **{"C4": ["contrasts"], "C5": ["paired", "comparison"], "C6": ["contrasts"]},
    **{"C7": ["comparison"], "C8": ["k_selection"], "C9": ["weights"]},
    **{"C10": ["accuracy", "comparison"], "C11": ["contrasts"]},
}
#: Claim, tables that differ from those in which all holds, and its verdict.
_CASES: list[tuple[str, dict[str, pd.DataFrame], str]] = [
    # a lead in every metric; MindDiffuser's version is told, not judged
    *(
        ("C4", _differing("stage2 - takagi", metric, value), f"{start} {name}")
        for metric, name in evidence_words.SHORT.items()
        for value, start in ((0.0, _NO_LEAD), (-0.2, _LOWER))
    ),
    ("C4", _differing("stage2 - takagi_minddiffuser", "pcc", -0.3), "holds: .*-0.300"),
    ("C4", {}, "holds: .*against Ozcelik et al. it cannot be said here"),
    ("C4", _without("stage2 - takagi"), f"{_NONE}Takagi.* stage 2 minus retrieval"),
    # a gain in structure, and no loss of semantics beyond a tenth of stage 1's lead
    ("C5", _gain("pcc", 0.0), f"{_UNSHOWN}no certain gain"),
    ("C5", _gain("ssim_2d", -0.2), "fails: no certain gain"),
    ("C5", _gain("clip_judge", -0.07), f"{_UNSHOWN}structure improves, semantic loss"),
    ("C5", _gain("clip_judge", -0.2), "fails: .*at the cost of semantics"),
    ("C5", _gain("clip_judge", -0.9 * _MARGIN + 0.01), "holds: "),
    ("C5", _gain("clip_judge", -1.1 * _MARGIN + 0.01), "fails: "),
    # each of three, taken from all three
    *(
        (
            "C6",
            _differing(*_REMOVED[feature], value),
            f"fails: {start}.*{feature} {how}",
        )
        for feature in _REMOVED
        for value, start, how in (
            (0.0, "not shown, one taken", "adds nothing certain to"),
            (-0.2, "one taken from all three", "harms"),
        )
    ),
    ("C6", _differing("stage1 - z_only", "clip_judge", 0.0), "holds: one taken"),
    # every subject
    ("C7", _at_floor("5", "pcc"), f"{_UNSHOWN}3 of 4 .* not in: subject 5 pcc$"),
    ("C7", _at_floor("5", "clip_judge"), f"{_UNSHOWN}3 of 4 .*: subject 5 clip_judge$"),
    # the accuracy of test images falls, of whole subjects, and information rises
    ("C8", _k(r_selected_mean=0.3), "fails: "),
    ("C8", _k(variance_kept=0.3), "fails: "),
    ("C8", _k(r_selected_mean=_rising(["1", "2"], 1)), f"{_UNSHOWN}.*{_FALLS} 6 of 8"),
    ("C8", _k(r_selected_mean=_rising(["7"], 1, 2)), f"{_UNSHOWN}.*{_FALLS} 6 of 8"),
    (
        "C8",
        _k(
            r_selected_mean=_rising(SUBJECTS, 1, 2),
            variance_kept=lambda t: -t["k_percent"],
        ),
        f"fails: as k grows, {_FALLS} 0 of 8",
    ),
    ("C8", _some("k_selection", "k_percent", [5, 25, 100]), f"{_NONE}fewer than 4 val"),
    ("C8", _balanced(k5=0.2, k25=0.40, k100=0.41), "holds: as k grows"),
    ("C8", _balanced(k5=0.2, k25=0.35, k100=0.41), "fails: the trend is seen, the bal"),
    ("C8", _balanced(k5=0.4, k25=0.40, k100=0.41), f"{_UNSHOWN}the trend is seen, the"),
    ("C8", _balanced(k5=0.2, k10=0.4, k100=0.41), "holds: .*is not tested here"),
    # every feature leans, and not by a single area: 6 of 11 splits have it
    *(("C9", _even(f), f"fails: .*{f} 1.00") for f in ("c", "z", "clip/2")),
    ("C9", _single_area(), f"{_UNSHOWN}.*p = 0.545$"),
    ("C9", _weighing(lambda t: 3 - t["weight"]), "fails: weight of"),
    ("C9", _some("weights", "feature", ["z", "clip/2"]), _NONE),
    ("C9", _some("weights", "feature", ["c", "clip/2"]), _NONE),
    # every feature above chance, and quality follows
    ("C10", _decoded("p_permutation", 0.2), f"{_UNSHOWN}11 of 12 pairs"),
    ("C10", _decoded("r_mean", -0.01), f"{_UNSHOWN}11 of 12 pairs"),
    ("C10", _reranked(), f"{_UNSHOWN}12 of 12 pairs"),
    # both scores tell the failures apart
    (
        "C11",
        _differing("c_only - z_only", "clip_judge", 0.0),
        f"{_UNSHOWN}.*not certain",
    ),
    (
        "C11",
        _differing("c_only - z_only", "ssim_2d", 0.0),
        f"{_UNSHOWN}.*not certainly",
    ),
    *(
        (claim, {name: pd.DataFrame()}, _NONE)
        for claim, names in _TABLES.items()
        for name in names
    ),
]


@pytest.mark.parametrize(("claim", "tables", "words"), _CASES)
def test_the_verdict_follows_the_evidence(
    claim: str, tables: Mapping[str, pd.DataFrame], words: str
) -> None:
    assert re.match(words, _verdict(_with(_evidence(), **tables), claim))


@pytest.mark.parametrize(
    ("feature", "tables"),
    [
        ("c", _differing("stage1 - z_only", "clip_judge", 0.0)),
        ("z", _differing("stage1 - c_only", "pcc", 0.0)),
        ("Z_CLIP", _gain("ssim_2d", 0.0)),
    ],
)
def test_c6_reads_single_steps_where_the_factorial_was_not_run(
    feature: str, tables: Mapping[str, pd.DataFrame]
) -> None:
    full = _with(_evidence(), **tables)
    table = full.table("contrasts")
    without = table[table["contrast"] != "stage2_guided - c_clip"]
    row = _ledger(_with(full, contrasts=without)).loc["C6"]
    assert row["verdict"].startswith(f"{_UNSHOWN}no full factorial")
    assert f"{feature} adds nothing certain" in row["verdict"]
    assert row["our_value"] == 2


def test_c9_reads_the_lowest_layer_and_counts_voxels_not_areas() -> None:
    table = _weights()
    top = table["feature"] == "clip/10"
    table.loc[top & table["area"].isin(HVC), "weight"] = 9.0  # a high layer may lean
    one = (table["feature"] == "c") & (table["area"] == "V1")
    table.loc[one, ["weight", "n_voxels"]] = (50.0, 1)
    row = _ledger(_with(_evidence(), weights=table)).loc["C9"]
    assert " c above 1 and the others below 1 in 4 of 4 subjects" in row["verdict"]
    # 4 low areas of 50 voxels at 1 and one voxel at 50, against 2
    assert row["our_value"] == pytest.approx(2.0 / (250 / 201))


@pytest.mark.parametrize("claim", [c.claim for c in CLAIMS])
@pytest.mark.parametrize("in_silico", [False, True])
def test_without_tables_nothing_can_be_said(claim: str, in_silico: bool) -> None:
    row = _ledger(_nothing(in_silico)).loc[claim]
    assert row["verdict"].startswith("cannot be said here")
    assert np.isnan(row["our_value"])


def test_a_profile_that_only_tests_the_code_cannot_speak() -> None:
    smoke = replace(_evidence(in_silico=True), profile="smoke")
    for verdict in _ledger(smoke)["verdict"]:
        assert verdict.startswith("cannot be said here (in silico, direction only): ")
    verdict = _verdict(smoke, "C5")
    assert "profile smoke tests the code, only demo and nsd can tell" in verdict
    assert "PCC +0.050" in verdict  # the numbers are still there


def test_a_single_subject_cannot_show_what_holds_across_subjects() -> None:
    tables = {
        name: table[table["subject"].isin(["1", "all"])]
        for name, table in _evidence().tables.items()
        if "subject" in table
    }
    ledger = _ledger(replace(_evidence(), tables=tables))
    assert ledger.loc["C7", "verdict"] == "cannot be said here: the run has 1 subject"
    assert ledger.loc["C10", "verdict"].startswith("cannot be said here: 3 of 3 pairs")
    assert "1 scored subject, too few" in ledger.loc["C10", "verdict"]


# --- the ledger ---------------------------------------------------------------------


def test_in_silico_numbers_are_never_compared_with_the_paper_s() -> None:
    ledger = _ledger(_evidence(in_silico=True))
    for claim in ("C1", "C2", "C3"):
        assert ledger.loc[claim, "verdict"].startswith(
            "cannot be said here (in silico, direction only): "
        )
    assert not any("paper's value" in verdict for verdict in ledger["verdict"])
    assert all("in silico" in verdict for verdict in ledger["verdict"])


def test_the_ledger_has_one_row_per_claim_of_the_paper_in_order() -> None:
    table = claims.evaluate_claims(_evidence(), label=LABEL)
    assert table.columns.tolist() == list(claims.COLUMNS)
    assert table["claim"].tolist() == [f"C{k}" for k in range(1, 12)]
    assert table["paper_value"].tolist()[:3] == [0.765, 0.354, 0.278]
    assert table["paper_value"][3:].isna().all()
    assert set(table["profile"]) == {LABEL}


@pytest.mark.parametrize("in_silico", [False, True])
def test_verdicts_are_sentences_a_person_can_read(in_silico: bool) -> None:
    full = _evidence(in_silico=in_silico)
    bare = {"comparison": _comparison().assign(ceiling=np.nan)}
    for evidence in (full, _nothing(in_silico), _with(full, **bare)):
        for verdict in _ledger(evidence)["verdict"]:
            state, _, words = verdict.partition(": ")
            mark = " (in silico, direction only)" if in_silico else ""
            words_first = ("holds", "fails", "cannot be said here")
            assert state in {f"{word}{mark}" for word in words_first}
            assert len(words) > 20
            assert not re.search(r"\bnan\b|None|\d{5}|np\.", verdict), verdict
            assert not re.search(r"\b1 subjects", verdict)


def test_conclusions_are_a_sentence_for_each_row_of_the_ledger() -> None:
    table = claims.evaluate_claims(
        _with(_evidence(in_silico=True), **_gain("pcc", 0.0)), label=LABEL
    )
    count, *sentences = claims.conclusions(table)
    assert count == (
        "Of 11 claims: holds 7, fails 1, cannot be said here 3 (in silico, direction"
        " only)."
    )
    assert [line.split()[0] for line in sentences] == list(table["claim"])
    assert sentences[4] == (
        "C5 fails (stage 2 improves structure over stage 1 without losing semantics):"
        " not shown, no certain gain in both PCC and SSIM."
    )


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
    evidence = replace(_evidence(), tables={"comparison": own})
    assert _verdict(evidence, "C1").startswith("holds: ")


def test_a_table_that_holds_a_row_twice_is_an_error() -> None:
    table = pd.concat([_comparison(), _comparison()])
    with pytest.raises(DataError, match="twice"):
        _ledger(_with(_evidence(), comparison=table))


# --- helpers whose numbers the rules rest on ----------------------------------------


def test_rank_trend_equals_scipy_s_rho_over_all_orders(
    rng: np.random.Generator,
) -> None:
    import scipy.stats

    x, curves = [1.0, 2.0, 2.5, 9.0, 4.0], rng.normal(size=(5, 2)).round(1)
    curves[1, 0] = curves[2, 0]  # a tie

    def mean_rho(order: Sequence[float]) -> float:
        rho = [scipy.stats.spearmanr(order, curve).statistic for curve in curves.T]
        return float(np.mean(rho))

    rho, p = decoding_rules._rank_trend(x, curves)
    assert rho.mean() == pytest.approx(mean_rho(x))
    null = [mean_rho(order) for order in itertools.permutations(x)]
    assert p == pytest.approx(np.mean(np.array(null) >= mean_rho(x) - 1e-9))


def test_a_curve_that_does_not_vary_has_no_trend() -> None:
    rho, p = decoding_rules._rank_trend([1, 2, 3, 4], np.full((4, 1), 0.3))
    assert (rho[0], p) == (0.0, 1.0)


def test_p_over_drawn_orders_is_near_the_exact_one(rng: np.random.Generator) -> None:
    import scipy.stats

    x, y = np.arange(9), rng.normal(size=(9, 1))
    _, p = decoding_rules._rank_trend(x.tolist(), y)
    expected = scipy.stats.spearmanr(x, y[:, 0], alternative="greater").pvalue
    # scipy's t is an approximation, and 20,000 draws have a standard error of 0.004
    assert p == pytest.approx(expected, abs=0.02)
    assert decoding_rules._rank_trend(x.tolist(), x[:, None])[1] == 1 / 20_000


def test_c9_s_p_is_that_of_all_splits_counted_one_by_one(
    rng: np.random.Generator,
) -> None:
    table = _weights().assign(weight=lambda t: t["weight"] + rng.uniform(0, 3, len(t)))
    table["n_voxels"] = table["area"].map({a: 10 + k for k, a in enumerate(AREAS)})

    def apart(high: Sequence[str]) -> float:
        logs: dict[str, list[float]] = {}
        for (feature, _), own in table.groupby(["feature", "subject"]):
            inside = own["area"].isin(high)
            means = [
                np.average(own.loc[rows, "weight"], weights=own.loc[rows, "n_voxels"])
                for rows in (inside, ~inside)
            ]
            logs.setdefault(str(feature), []).append(float(np.log(means[0] / means[1])))
        c, z, low = (np.mean(logs[f]) for f in ("c", "z", "clip/2"))
        return float(c - (z + low) / 2)

    splits = list(itertools.combinations(AREAS, len(HVC)))[::40]  # 12 of 462
    ratios = decoding_rules._log_ratios(table, ("c", "z", "clip/2"))
    ours = (ratios[0] - (ratios[1] + ratios[2]) / 2).mean(axis=0)
    assert ratios.shape == (3, 4, 462)
    assert ours[0] == pytest.approx(apart(HVC))
    for value in map(apart, splits):
        assert np.abs(ours - value).min() < 1e-12


# --- the checks are checked -----------------------------------------------------------

_N_IMAGES = 16
#: Means of the methods in every metric; SSIM of z alone beats that of c alone.
_MEANS = {
    **{"z_only": 0.10, "c_only": 0.30, "stage1": 0.40, "stage2": 0.60},
    **{"z_clip": 0.50, "c_clip": 0.50, "stage2_guided": 0.70},
    **{"takagi": 0.35, "takagi_minddiffuser": 0.38},
}


@pytest.fixture(scope="module")
def scored() -> Evidence:
    """Give a real run's tables, made of scores image by image, with every effect."""
    rng = stream(0, "scored")
    rows = []
    for rank, subject in enumerate(SUBJECTS):
        for method, mean in _MEANS.items():
            for metric in PAPER:
                level = 0.6 if (method, metric) == ("z_only", "ssim_2d") else mean
                value = level - 0.02 * rank + rng.normal(0, 0.05, _N_IMAGES)
                columns = {"subject": subject, "method": method, "metric": metric}
                table = pd.DataFrame({"nsd_id": range(_N_IMAGES), "value": value})
                rows.append(table.assign(**columns, floor=0.05))
    scores = pd.concat(rows, ignore_index=True)
    draws = Resampling(lambda *_: rng, n_bootstrap=100, n_permutations=1)
    made = [
        paired_table(scores, a, b, resampling=draws)
        for a, b in CONTRASTS
        if {a, b} <= set(_MEANS)
    ]
    return _with(
        _evidence(),
        scores=scores,
        comparison=summarise(scores, resampling=draws, ceilings={}),
        paired=paired_table(scores, "stage2", "stage1", resampling=draws),
        contrasts=pd.concat(made, ignore_index=True),
        k_quality=_k_quality({5: 0.2, 25: 0.4, 100: 0.41}),
    )


_BY_ID = {claim.claim: claim for claim in CLAIMS}


def test_no_check_of_the_ledger_is_vacuous(scored: Evidence) -> None:
    table = claims.vacuity_table(scored, rng=stream(0, "vacuity"), label=LABEL)
    columns = ["claim", "null", "n_draws", "n_held", "vacuous", "observed", "profile"]
    assert table.columns.tolist() == columns
    assert table["claim"].tolist() == list(_BY_ID)
    for column, values in (
        *(("n_draws", {20}), ("profile", {LABEL}), ("vacuous", {"no"})),
    ):
        assert set(table[column]) == values
    assert set(table["observed"]) <= {"holds", "fails"}
    assert claims.vacuity_lines(table) == []


def _always(state: str) -> Any:
    return lambda _evidence: Outcome(state, "whatever the evidence is")


@pytest.mark.parametrize("claim", ["C5", "C7", "C8", "C9"])
@pytest.mark.parametrize(
    ("state", "held", "words"),
    [
        ("holds", 20, "its rule holds on 20 of 20 draws of its null"),
        ("fails", 0, "its rule does not hold where the effect was planted"),
    ],
)
def test_a_rule_that_ignores_its_evidence_is_caught(
    claim: str, state: str, held: int, words: str, scored: Evidence
) -> None:
    blind = replace(_BY_ID[claim], evaluate=_always(state))
    rng = stream(0, "blind")
    table = claims.vacuity_table(scored, rng=rng, label=LABEL, claims=[blind])
    assert table["vacuous"].tolist() == ["yes"]
    assert table["n_held"].tolist() == [held]
    (line,) = claims.vacuity_lines(table)
    assert line.startswith(f"{claim} is vacuous: {words}")


def test_a_rule_that_reads_a_part_of_its_interval_is_caught(scored: Evidence) -> None:
    """A gain by the mean alone holds on about half of the nulls."""

    def by_mean(evidence: Evidence) -> Outcome:
        row = evidence_words.find_contrast(evidence, "stage2", "stage1", "pcc")
        return Outcome("holds" if row is not None and row["value"] > 0 else "fails", "")

    loose = replace(_BY_ID["C5"], evaluate=by_mean)
    rng = stream(0, "loose")
    table = claims.vacuity_table(scored, rng=rng, label=LABEL, claims=[loose])
    assert table["vacuous"].tolist() == ["yes"]


def test_nothing_is_drawn_where_the_run_says_nothing_or_kept_no_scores(
    scored: Evidence,
) -> None:
    def table(evidence: Evidence) -> pd.DataFrame:
        rng, some = stream(0, "none"), [_BY_ID[c] for c in ("C1", "C5", "C9")]
        found = claims.vacuity_table(evidence, rng=rng, label=LABEL, claims=some)
        assert (found["n_draws"].eq(0) == found["vacuous"].eq("not run")).all()
        return found.set_index("claim")["vacuous"]

    silico = replace(scored, in_silico=True)
    assert table(silico).to_dict() == {"C1": "not run", "C5": "no", "C9": "no"}
    assert set(table(replace(silico, profile="smoke"))) == {"not run"}
    assert set(table(_nothing())) == {"not run"}
    bare = table(_with(scored, scores=pd.DataFrame()))
    assert bare.to_dict() == {"C1": "not run", "C5": "not run", "C9": "no"}


def test_a_claim_s_draws_do_not_depend_on_the_other_claims(scored: Evidence) -> None:
    ids = ("C5", "C9")
    alone, both = (
        claims.vacuity_table(
            scored, rng=stream(0, "own"), label=LABEL, claims=[_BY_ID[c] for c in some]
        )
        for some in (ids[:1], ids)
    )
    pd.testing.assert_frame_equal(alone, both.iloc[:1])


def test_scores_without_a_method_of_the_contrasts_are_an_error(
    scored: Evidence,
) -> None:
    scores = scored.table("scores")
    lacking = _with(scored, scores=scores[scores["method"] != "takagi"])
    with pytest.raises(DataError, match="The scores lack takagi"):
        _BY_ID["C4"].make_null(lacking, stream(0, "x"))
    own = scores[(scores["method"] != "takagi") | (scores["nsd_id"] < 0)]
    other = scores[scores["method"] == "takagi"].assign(nsd_id=-1)
    apart = _with(scored, scores=pd.concat([own, other.drop_duplicates(_KEYS)]))
    with pytest.raises(DataError, match="share no image"):
        _BY_ID["C4"].make_null(apart, stream(0, "x"))


_KEYS = ["subject", "metric", "nsd_id"]


def test_methods_are_exchanged_by_image_alike_in_subjects_and_metrics(
    scored: Evidence, rng: np.random.Generator
) -> None:
    methods = ["stage1", "stage2", "takagi"]
    scores = scored.table("scores")
    new = null_makers.exchanged(scores, methods, rng)
    wide = [
        t[t["method"].isin(methods)].pivot(
            index=_KEYS, columns="method", values="value"
        )
        for t in (scores, new)
    ]
    before, after = (w[methods].to_numpy() for w in wide)
    assert (np.sort(before, axis=1) == np.sort(after, axis=1)).all()
    where = (after[:, :, None] == before[:, None, :]).argmax(axis=2)
    orders = pd.DataFrame(where, index=wide[0].index).groupby("nsd_id")
    assert (orders.nunique() == 1).all(axis=None)
    assert len(np.unique(where, axis=0)) > 2  # 16 images, 6 orders


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
    table = _sanity(_nothing(True), 0, 0)
    assert len(table) == 11
    assert not table["passed"].any()


@pytest.mark.parametrize(
    ("check", "tables"),
    [
        (
            "recovery ceiling, stage 1, pcc",
            _differing("true_features - stage1", "pcc", 0.0),
        ),
        (
            "shuffled brain, stage 2, clip_judge",
            _differing("stage2 - stage2_shuffled", "clip_judge", 0.0),
        ),
        ("structural loss falls", {"stage2": _stage2().assign(loss_best=[0.5, 2.0])}),
        ("stage 2 improves on stage 1", _gain("pcc", 0.0)),
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


@pytest.mark.parametrize(
    ("metric", "loss", "true_gain", "words"),
    [
        ("clip_judge", -1.0, 0.05, "structure does rise, but c moves away"),
        ("clip_judge", -0.07, 0.05, "structure does rise; the interval of judge CLIP"),
        ("pcc", 0.0, 0.05, "decoding of Z_CLIP limits it"),
        ("pcc", 0.0, 0.0, "alignment itself limits it"),
    ],
)
def test_a_missing_gain_is_traced_to_what_limits_it(
    metric: str, loss: float, true_gain: float, words: str
) -> None:
    tables = _differing("stage2_true - true_features", "pcc", true_gain)
    evidence = _with(_evidence(), **_gain(metric, loss), **tables)
    seen = _sanity(evidence).loc["stage 2 improves on stage 1", "observed"]
    assert words in seen
    assert ("limits it" in seen) == (metric == "pcc")
