"""The paper's claims as a ledger: statement, our evidence, verdict in words.

Every directional claim names the null that must fail and is decided by a rule stated
here, before the numbers. Numbers of in-silico subjects are never compared with the
paper's numbers. Not here: making the tables (`statistics`). Place in the flow: layer 9;
notebook 05 calls it.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.config import HVC, LVC
from minddiff_utils.errors import DataError

__all__ = [
    "CLAIMS",
    "COLUMNS",
    "CONTRASTS",
    "Claim",
    "Evidence",
    "Outcome",
    "evaluate_claims",
    "sanity_table",
    "weights_by_area",
]

#: Columns of `claims.csv`.
COLUMNS = (
    "claim",
    "statement",
    "paper_value",
    "our_value",
    "ci_low",
    "ci_high",
    "n",
    "floor",
    "ceiling",
    "verdict",
    "profile",
)
#: (method, reference) of every contrast the claims and the sanity table read, beside
#: stage 2 minus stage 1, which has a table of its own.
CONTRASTS = (
    ("stage1", "z_only"),
    ("stage1", "c_only"),
    ("c_only", "z_only"),
    ("stage1", "shuffled"),
    ("stage1", "retrieval"),
    ("stage2", "retrieval"),
    ("stage2", "mean_image"),
    ("stage2", "stage2_shuffled"),
    ("stage2", "z_only"),
    ("true_features", "stage1"),
    ("stage2_true", "stage2"),
    ("stage2_true", "true_features"),
)
#: C6: what is removed -> contrast with and without it, and the metric it stands for.
ABLATIONS = {
    "c": ("stage1 - z_only", "clip_judge"),
    "z": ("stage1 - c_only", "pcc"),
    "Z_CLIP": ("stage2 - stage1", "ssim_2d"),
}
#: Metrics in the words of a verdict.
_SHORT = {"clip_judge": "judge CLIP", "pcc": "PCC", "ssim_2d": "SSIM"}
#: Semantics count as kept where the interval excludes a loss of this share of
#: stage 1's distance to its floor.
LOSS_ALLOWED = 0.10
#: Level of all tests.
ALPHA = 0.05

_NAN = float("nan")


@dataclass(frozen=True)
class Evidence:
    """The tables a run made, by name, and whether its subjects are simulated.

    `comparison`, `paired`, `contrasts` as written by notebook 05; `accuracy`,
    `k_selection` of notebook 02 with a column `subject`; `weights` of
    `weights_by_area` with a column `subject`; `stage2` of notebook 04 likewise.
    """

    tables: Mapping[str, pd.DataFrame]
    in_silico: bool

    def table(self, name: str) -> pd.DataFrame:
        """Return a table, empty where the run did not make it."""
        return self.tables.get(name, pd.DataFrame())


@dataclass(frozen=True)
class Outcome:
    """Numbers of one ledger row and the verdict in words."""

    verdict: str
    value: float = _NAN
    ci_low: float = _NAN
    ci_high: float = _NAN
    n: int = 0
    floor: float = _NAN
    ceiling: float = _NAN


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, the null that must fail, and the rule that decides."""

    claim: str
    statement: str
    paper_value: float
    null: str
    evaluate: Callable[[Evidence], Outcome]


def _find(table: pd.DataFrame, **wanted: str) -> pd.Series | None:
    """Return the only row with these values, or None."""
    if table.empty:
        return None
    keep = pd.Series(data=True, index=table.index)
    for column, value in wanted.items():
        keep &= table[column].astype(str) == value
    found = table[keep]
    if len(found) > 1:
        raise DataError(
            f"A table of results holds {wanted} twice: run notebook 05 again."
        )
    return None if found.empty else found.iloc[0]


def _untested(why: str) -> Outcome:
    return Outcome(f"not tested: {why}")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _p_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _signed(row: pd.Series) -> str:
    value, low, high = (float(row[k]) for k in ("value", "ci_low", "ci_high"))
    positive, n = int(row["n_subjects_positive"]), int(row["n"])
    return (
        f"{value:+.3f} [{low:+.3f}, {high:+.3f}] (positive in {positive}/{n} subjects)"
    )


def _level(value: float) -> str:
    return "not run" if math.isnan(value) else f"{value:.3f}"


def _above(row: pd.Series, bound: float) -> bool:
    return bool(float(row["ci_low"]) > bound)  # NaN: False


# --- C1 to C3: the paper's numbers ------------------------------------------------


def _number(metric: str, paper_value: float) -> Callable[[Evidence], Outcome]:
    def evaluate(evidence: Evidence) -> Outcome:
        table = evidence.table("comparison")
        row = _find(table, subject="1", method="stage2", metric=metric)
        if row is None:
            return _untested("subject 1 has no stage-2 scores in this run")
        value, low, high = (float(row[k]) for k in ("value", "ci_low", "ci_high"))
        floor, top = float(row["floor"]), float(row["ceiling"])
        ours = f"ours {value:.3f}, floor {_level(floor)}, ceiling {_level(top)}"
        ours += _other_definition(table, metric)
        if evidence.in_silico:
            verdict = f"not comparable (in silico): {ours}"
        elif math.isnan(low) or math.isnan(high):
            verdict = f"not tested: a single image has no interval; {ours}"
        elif low <= paper_value <= high:
            verdict = f"agrees: the paper's value lies in our interval; {ours}"
        else:
            verdict = f"differs: the paper's value lies outside our interval; {ours}"
        return Outcome(verdict, value, low, high, int(row["n"]), floor, top)

    return evaluate


def _other_definition(table: pd.DataFrame, metric: str) -> str:
    """Return the score under the other definition that the paper may have used."""
    if metric != "ssim_2d":
        return ""
    find = {"subject": "1", "method": "stage2", "metric": "ssim_percolumn_legacy"}
    row = _find(table, **find)
    if row is None:
        return ""
    return (
        f"; which SSIM the paper used is unknown, per column it is {row['value']:.3f}"
    )


# --- C4 to C7: comparisons of methods ---------------------------------------------


def _other_systems(evidence: Evidence) -> Outcome:
    row = _find(
        evidence.table("contrasts"),
        subject="all",
        contrast="stage2 - retrieval",
        metric="clip_judge",
    )
    why = "neither system is run here; stage 1 (c and z, no alignment) is next of kin"
    if row is None:
        return _untested(why)
    near = "stage 2 minus retrieval of a training image, judge CLIP"
    return _untested(f"{why}; {near}: {_signed(row)}")


def _stage2_gain(evidence: Evidence) -> Outcome:
    paired, table = evidence.table("paired"), evidence.table("comparison")
    find = {"subject": "all", "contrast": "stage2 - stage1"}
    pcc = _find(paired, metric="pcc", **find)
    ssim = _find(paired, metric="ssim_2d", **find)
    clip = _find(paired, metric="clip_judge", **find)
    base = _find(table, subject="all", method="stage1", metric="clip_judge")
    if pcc is None or ssim is None or clip is None or base is None:
        return _untested("stage 1 and stage 2 are not both scored")
    margin = LOSS_ALLOWED * (float(base["value"]) - float(base["floor"]))
    structure = _above(pcc, 0.0) and _above(ssim, 0.0)
    kept = margin > 0 and _above(clip, -margin)
    said = (
        f"PCC {_signed(pcc)}, SSIM {_signed(ssim)}, judge CLIP {_signed(clip)} "
        f"(loss allowed {margin:.3f})"
    )
    if structure and kept:
        verdict = "supported: structure improves and semantics are kept"
    elif structure:
        verdict = "not supported: structure improves, semantic loss is not excluded"
    else:
        verdict = "not supported: no certain gain in both PCC and SSIM"
    verdict = f"{verdict}; {said}"
    low, high = float(pcc["ci_low"]), float(pcc["ci_high"])
    return Outcome(verdict, float(pcc["value"]), low, high, int(pcc["n"]), 0.0)


def _ablation(evidence: Evidence) -> Outcome:
    both = [evidence.table("contrasts"), evidence.table("paired")]
    table = pd.concat([t for t in both if not t.empty]) if any(map(len, both)) else None
    if table is None:
        return _untested("no contrasts in this run")
    table = table.reset_index(drop=True)
    words, count, n = [], 0, 0
    for feature, (contrast, metric) in ABLATIONS.items():
        row = _find(table, subject="all", contrast=contrast, metric=metric)
        if row is None:
            return _untested(f"the contrast {contrast} is missing")
        helps = _above(row, 0.0)
        count, n = count + helps, int(row["n"])
        effect = "adds" if helps else "adds nothing certain"
        words.append(f"{feature} {effect} to {_SHORT[metric]}, {_signed(row)}")
    state = "supported" if count == len(ABLATIONS) else "not supported"
    verdict = f"{state}: " + "; ".join(words)
    return Outcome(verdict, float(count), n=n, floor=0.0, ceiling=float(len(ABLATIONS)))


def _all_subjects(evidence: Evidence) -> Outcome:
    table = evidence.table("comparison")
    if table.empty:
        return _untested("no image is scored in this run")
    own = table[(table["method"] == "stage2") & (table["subject"].astype(str) != "all")]
    subjects = list(dict.fromkeys(own["subject"].astype(str)))
    if len(subjects) < 2:
        return _untested(f"the run has {_count(len(subjects), 'subject')}")
    failed: list[str] = []
    for subject in subjects:
        for metric in ("clip_judge", "pcc"):
            row = _find(own, subject=subject, metric=metric)
            if row is None or not _above(row, float(row["floor"])):
                failed.append(f"subject {subject} {metric}")
    works = len(subjects) - len({name.split()[1] for name in failed})
    state = "not supported" if failed else "supported"
    reason = "judge CLIP and PCC above the shuffled-pair floor, one profile for all"
    said = f"{works} of {len(subjects)} subjects have {reason}"
    verdict = f"{state}: {said}" + (f"; fails: {', '.join(failed)}" if failed else "")
    return Outcome(
        verdict, float(works), n=len(subjects), floor=0.0, ceiling=float(len(subjects))
    )


# --- C8 to C10: decoding ----------------------------------------------------------


def _rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rho, ties ranked by their mean; 0 where one does not vary."""
    a = pd.Series(x, dtype=float).rank().to_numpy()
    b = pd.Series(y, dtype=float).rank().to_numpy()
    a, b = a - a.mean(), b - b.mean()
    length = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / length if length > 0 else 0.0


def _rank_p(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the exact one-sided p of Spearman's rho over all orders (n <= 8)."""
    observed = _rank_correlation(x, y)
    null = [_rank_correlation(x, order) for order in itertools.permutations(y)]
    return float(np.mean([value >= observed - 1e-12 for value in null]))


def _selection(evidence: Evidence) -> Outcome:
    table = evidence.table("k_selection")
    if table.empty:
        return _untested("no k-selection table in this run")
    accuracy, information = [], []
    for _, curve in table.groupby(["subject", "layer"]):
        k = curve["k_percent"].to_list()
        accuracy.append(_rank_correlation(k, curve["r_selected_mean"].to_list()))
        information.append(_rank_correlation(k, curve["variance_kept"].to_list()))
    n = len(accuracy)
    falls = sum(rho < 0 for rho in accuracy)
    rises = sum(rho > 0 for rho in information)
    # sign test: as many curves that fall must be rare if k did not matter
    p = max(_sign_p(falls, n), _sign_p(rises, n))
    state = "supported" if p <= ALPHA else "not supported"
    verdict = (
        f"{state}: as k grows, accuracy falls in {falls} of {n} curves and information "
        f"rises in {rises} (sign test {_p_words(p)}; layers of one subject are not "
        "independent); that k = 25 is a good balance is not tested here"
    )
    return Outcome(verdict, float(np.mean(accuracy)), n=n, floor=0.0, ceiling=-1.0)


def _sign_p(hits: int, n: int) -> float:
    return sum(math.comb(n, k) for k in range(hits, n + 1)) / 2.0**n


def _hvc_ratios(table: pd.DataFrame, feature: str) -> dict[str, float]:
    """Return, per subject, mean |w| of HVC voxels over mean |w| of LVC voxels."""
    ratios: dict[str, float] = {}
    own = table[table["feature"] == feature]
    for subject, areas in own.groupby("subject"):
        parts = []
        for group in (HVC, LVC):
            some = areas[areas["area"].isin(group) & (areas["n_voxels"] > 0)]
            total = float((some["weight"] * some["n_voxels"]).sum())
            parts.append(total / max(float(some["n_voxels"].sum()), 1.0))
        ratios[str(subject)] = parts[0] / parts[1] if parts[1] > 0 else _NAN
    return ratios


def _lowest_layer(table: pd.DataFrame) -> str | None:
    """Return the feature `clip/<layer>` of the lowest layer, if there is one."""
    found = [str(f) for f in set(table["feature"]) if str(f).startswith("clip/")]
    return min(found, key=lambda name: int(name.split("/")[1]), default=None)


def _interpretable(evidence: Evidence) -> Outcome:
    table = evidence.table("weights")
    low = None if table.empty else _lowest_layer(table)
    if low is None:
        return _untested("no table of voxel weights of CLIP layers in this run")
    ratios = {f: _hvc_ratios(table, f) for f in ("c", "z", low)}
    subjects = list(ratios["c"])
    known = [found.get(s, _NAN) for found in ratios.values() for s in subjects]
    if not known or not all(map(math.isfinite, known)):
        return _untested("weights of c, z or the lowest CLIP layer are missing")
    leans = [
        ratios["c"][s] > 1.0 and ratios["z"][s] < 1.0 and ratios[low][s] < 1.0
        for s in subjects
    ]
    means = {f: float(np.mean(list(found.values()))) for f, found in ratios.items()}
    said = ", ".join(f"{f} {value:.2f}" for f, value in means.items())
    state = "supported" if all(leans) else "not supported"
    verdict = (
        f"{state}: weight of a high-level over a low-level voxel: {said}; c above 1 "
        f"and the others below 1 in {sum(leans)} of {_count(len(subjects), 'subject')}"
    )
    return Outcome(verdict, means["c"], n=len(subjects), floor=1.0)


def _all_areas(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Return the rows decoded from all areas together."""
    if accuracy.empty or "area_set" not in accuracy:
        return accuracy
    every = accuracy[accuracy["area_set"].astype(str).str.lower() == "all"]
    return accuracy if every.empty else every


def _decodable(evidence: Evidence) -> Outcome:
    accuracy = _all_areas(evidence.table("accuracy"))
    if accuracy.empty:
        return _untested("no decoding accuracies in this run")
    passed = (accuracy["p_permutation"] <= ALPHA) & (
        accuracy["r_mean"] > accuracy["r_null_mean"]
    )
    first = (
        f"{int(passed.sum())} of {len(accuracy)} pairs of feature and subject decode "
        "above chance"
    )
    found = Outcome(
        f"not supported: {first}",
        float(accuracy["r_mean"].mean()),
        n=int(accuracy["subject"].nunique()),
        floor=float(accuracy["r_null_mean"].mean()),
        ceiling=float(accuracy["r_ceiling"].mean()),
    )
    if not passed.all():
        return found
    state, second = _quality_follows(accuracy, evidence.table("comparison"))
    return replace(found, verdict=f"{state}: {first}; {second}")


def _quality_follows(
    accuracy: pd.DataFrame, comparison: pd.DataFrame
) -> tuple[str, str]:
    """Return verdict and words on whether quality ranks subjects as accuracy does."""
    mean = accuracy.groupby(accuracy["subject"].astype(str))["r_mean"].mean()
    quality: dict[str, float] = {}
    for subject in mean.index:
        row = _find(comparison, subject=subject, method="stage2", metric="clip_judge")
        if row is not None:
            quality[str(subject)] = float(row["value"])
    n = len(quality)
    if n < 4:
        few = f"{_count(n, 'scored subject')}, too few to show that quality follows"
        return "not tested", few
    x, y = [float(mean[s]) for s in quality], list(quality.values())
    rho, p = _rank_correlation(x, y), _rank_p(x, y)
    said = (
        f"rank correlation with judge CLIP over {n} subjects {rho:+.2f} ({_p_words(p)})"
    )
    return ("supported" if p <= ALPHA else "not supported"), said


# --- C11: signatures of failure ---------------------------------------------------


def _failure_signatures(evidence: Evidence) -> Outcome:
    """Compare two failures of known cause: without c, and without z."""
    find = {"subject": "all", "contrast": "c_only - z_only"}
    table = evidence.table("contrasts")
    clip = _find(table, metric="clip_judge", **find)
    ssim = _find(table, metric="ssim_2d", **find)
    if clip is None or ssim is None:
        return _untested("the contrast c_only - z_only is missing")
    semantic, structural = _above(clip, 0.0), bool(float(ssim["ci_high"]) < 0.0)
    state = "supported" if semantic and structural else "not supported"
    words = [
        "lower" if sure else "not certainly lower" for sure in (semantic, structural)
    ]
    verdict = (
        f"{state}: in images of c alone minus images of z alone, judge CLIP is "
        f"{words[0]} without c, {_signed(clip)}, and SSIM {words[1]} without z, "
        f"{_signed(ssim)}; failures of unknown cause, in single images, are not tested"
    )
    low, high = float(clip["ci_low"]), float(clip["ci_high"])
    return Outcome(verdict, float(clip["value"]), low, high, int(clip["n"]), 0.0)


#: The ledger, in the paper's order.
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "C1",
        "subject 1: CLIP similarity",
        0.765,
        "similarity to other images",
        _number("clip_judge", 0.765),
    ),
    Claim(
        "C2",
        "subject 1: SSIM",
        0.354,
        "SSIM with other images",
        _number("ssim_2d", 0.354),
    ),
    Claim(
        "C3",
        "subject 1: PCC (pixel correlation)",
        0.278,
        "correlation with other images",
        _number("pcc", 0.278),
    ),
    Claim(
        "C4",
        "better than Takagi & Nishimoto (2023) and Ozcelik et al. (2022)",
        _NAN,
        "equal scores of both systems",
        _other_systems,
    ),
    Claim(
        "C5",
        "stage 2 improves structure over stage 1 without losing semantics",
        _NAN,
        "stage 2 minus stage 1 is 0 in PCC and SSIM",
        _stage2_gain,
    ),
    Claim(
        "C6",
        "each of c, z, Z_CLIP contributes: removing one lowers its metric",
        _NAN,
        "removing a feature changes its metric by 0",
        _ablation,
    ),
    Claim(
        "C7",
        "works for subjects 1, 2, 5, 7 without any change per subject",
        _NAN,
        "a subject's scores equal the shuffled-pair floor",
        _all_subjects,
    ),
    Claim(
        "C8",
        "smaller k: higher decoding accuracy, less information; k = 25 balances",
        _NAN,
        "accuracy and information do not depend on k",
        _selection,
    ),
    Claim(
        "C9",
        "c leans on high-level areas; low CLIP layers and z lean on early areas",
        _NAN,
        "weights are alike in high and low areas: ratio 1",
        _interpretable,
    ),
    Claim(
        "C10",
        "c, z, Z_CLIP decode above chance, and quality follows across subjects",
        _NAN,
        "accuracy equals that of permuted test images; subjects in any order",
        _decodable,
    ),
    Claim(
        "C11",
        "low CLIP with high SSIM: semantic misalignment; the reverse: distortion",
        _NAN,
        "the two scores do not separate the two kinds of failure",
        _failure_signatures,
    ),
)


def evaluate_claims(evidence: Evidence, *, label: str) -> pd.DataFrame:
    """Return the ledger: one row per claim, verdict in words.

    Parameters
    ----------
    evidence : Evidence
        Tables of the run; a missing one gives "not tested".
    label : str
        The profile's words.

    Returns
    -------
    DataFrame
        The columns of `COLUMNS`. A directional verdict begins with "supported",
        "not supported" or "not tested"; one on a number with "agrees" or "differs",
        or, in silico, with "not comparable (in silico)".
    """
    rows = []
    for claim in CLAIMS:
        found = claim.evaluate(evidence)
        numbers = (found.value, found.ci_low, found.ci_high, found.n)
        ends = (found.floor, found.ceiling, found.verdict, label)
        rows.append((claim.claim, claim.statement, claim.paper_value, *numbers, *ends))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def weights_by_area(
    voxel_weight: Mapping[str, npt.NDArray[np.floating]],
    roi: npt.NDArray[np.integer],
    roi_names: Sequence[str],
) -> pd.DataFrame:
    """Return the mean absolute decoder weight of each area's voxels.

    Parameters
    ----------
    voxel_weight : mapping of float (n_voxels,)
        Mean |w| over targets, by feature (`c`, `z`, `clip/1`, ...).
    roi : int (n_voxels,)
        Index into `roi_names`.
    roi_names : sequence of str
        Areas.

    Returns
    -------
    DataFrame
        Columns feature, area, weight, n_voxels; an area without voxels has weight 0.
    """
    rows = []
    for feature, weight in voxel_weight.items():
        for index, area in enumerate(roi_names):
            inside = np.asarray(weight)[np.asarray(roi) == index]
            mean = float(inside.mean()) if len(inside) else 0.0
            rows.append((feature, str(area), mean, len(inside)))
    return pd.DataFrame(rows, columns=["feature", "area", "weight", "n_voxels"])


# --- what a sceptic asks for ------------------------------------------------------

Check = tuple[str, str, str, bool]


def _check_accuracy(evidence: Evidence) -> list[Check]:
    accuracy = _all_areas(evidence.table("accuracy"))
    checks: list[Check] = []
    if accuracy.empty:
        return checks
    for feature, own in accuracy.groupby("feature", sort=False):
        p = float(own["p_permutation"].max())
        r, null = float(own["r_mean"].mean()), float(own["r_null_mean"].mean())
        said = f"r = {r:.3f}, null {null:.3f}, largest p {p:.3g} of {len(own)} subjects"
        wanted = f"above the permutation null, p <= {ALPHA} in every subject"
        passed = bool(p <= ALPHA and (own["r_mean"] > own["r_null_mean"]).all())
        checks.append((f"decoding accuracy of {feature}", wanted, said, passed))
    return checks


_ORDERED = (
    ("recovery ceiling, stage 1", "true_features - stage1"),
    ("recovery ceiling, stage 2", "stage2_true - stage2"),
    ("shuffled brain, stage 1", "stage1 - shuffled"),
    ("shuffled brain, stage 2", "stage2 - stage2_shuffled"),
)


def _check_order(evidence: Evidence) -> list[Check]:
    checks: list[Check] = []
    for name, contrast in _ORDERED:
        for metric in ("clip_judge", "pcc"):
            wanted = f"{contrast} > 0, interval without 0"
            row = _find(
                evidence.table("contrasts"),
                subject="all",
                contrast=contrast,
                metric=metric,
            )
            said = "missing" if row is None else _signed(row)
            passed = row is not None and _above(row, 0.0)
            checks.append((f"{name}, {metric}", wanted, said, passed))
    return checks


def _check_stage2(evidence: Evidence, n_equal: int, n_compared: int) -> list[Check]:
    equal = bool(n_compared) and n_equal == n_compared
    said = f"{n_equal} of {n_compared} images equal"
    wanted = "the same bytes for every image compared"
    checks = [("stage 2 with zero iterations is stage 1", wanted, said, equal)]
    table = evidence.table("stage2")
    if table.empty:
        return [*checks, ("structural loss falls", "every image", "missing", False)]
    falls = table["loss_best"] < table["loss_first"]
    drop = float((1.0 - table["loss_best"] / table["loss_first"]).mean())
    said = f"{int(falls.sum())} of {len(table)} images, mean fall {100 * drop:.1f} %"
    return [
        *checks,
        ("structural loss falls", "every image", said, bool(falls.all())),
    ]


def _check_gain(evidence: Evidence) -> Check:
    outcome = _stage2_gain(evidence)
    passed = outcome.verdict.startswith("supported")
    said = (
        outcome.verdict if passed else f"{outcome.verdict}; {_why(evidence, outcome)}"
    )
    wanted = "PCC and SSIM rise, CLIP similarity is kept (paired intervals)"
    return ("stage 2 improves on stage 1", wanted, said, passed)


def _why(evidence: Evidence, outcome: Outcome) -> str:
    """Return what limits stage 2, read from the run with the true features."""
    if "structure improves" in outcome.verdict:
        return (
            "structure does rise; the interval of judge CLIP reaches beyond the allowed"
            " loss, and more images would narrow it"
        )
    find = {"subject": "all", "contrast": "stage2_true - true_features"}
    rows = [
        _find(evidence.table("contrasts"), metric=metric, **find)
        for metric in ("pcc", "ssim_2d")
    ]
    if any(row is None for row in rows):
        return "why is open: stage 2 from true features was not run"
    said = ", ".join(_signed(row) for row in rows if row is not None)
    if all(row is not None and _above(row, 0.0) for row in rows):
        return f"true features do gain (PCC, SSIM {said}): decoding of Z_CLIP limits it"
    return f"true features gain no more (PCC, SSIM {said}): alignment itself limits it"


def sanity_table(evidence: Evidence, *, n_equal: int, n_compared: int) -> pd.DataFrame:
    """Return what a sceptic asks for first, with what was seen.

    Parameters
    ----------
    evidence : Evidence
        Tables of the run.
    n_equal, n_compared : int
        Images whose stage 2 with zero iterations equals stage 1, of those compared.

    Returns
    -------
    DataFrame
        Columns check, expected, observed, passed.
    """
    checks = [
        *_check_accuracy(evidence),
        *_check_order(evidence),
        *_check_stage2(evidence, n_equal, n_compared),
        _check_gain(evidence),
    ]
    return pd.DataFrame(checks, columns=["check", "expected", "observed", "passed"])
