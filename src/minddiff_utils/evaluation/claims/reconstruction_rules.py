"""The rules of the claims on reconstructions: C1 to C7 and C11.

Each rule was fixed before the numbers and reads the tables of notebook 05 alone.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

from minddiff_utils.core.conditions import FROM_ALL_THREE, ONE_STEP_EACH
from minddiff_utils.evaluation.claims.evidence import (
    CANNOT,
    FAILS,
    HOLDS,
    SHORT,
    Evidence,
    Outcome,
    above,
    below,
    cannot,
    count_words,
    find,
    find_contrast,
    on_difference,
    refused,
    signed,
)

__all__ = [
    "FACTORIAL",
    "SINGLE_STEPS",
    "Pair",
    "ablation_pairs",
    "each_feature",
    "every_subject",
    "failure_signatures",
    "other_systems",
    "paper_number",
    "stage2_gain",
]

#: Semantics count as kept where the interval excludes a loss of this share of
#: stage 1's distance to its floor.
LOSS_ALLOWED = 0.10


class Pair(NamedTuple):
    """Two methods and a metric in which the first must be higher (sign 1) or lower."""

    method: str
    reference: str
    metric: str
    sign: int = 1


#: C6: each feature and the metric it stands for.
_STANDS_FOR = {"c": "clip_judge", "z": "pcc", "Z_CLIP": "ssim_2d"}
#: C6: what is removed from all three features.
FACTORIAL: Mapping[str, Pair] = {
    feature: Pair(*FROM_ALL_THREE[feature], metric)
    for feature, metric in _STANDS_FOR.items()
}
#: C6 in a run without the factorial: c and z from stage 1, Z_CLIP from stage 2.
SINGLE_STEPS: Mapping[str, Pair] = {
    feature: Pair(*ONE_STEP_EACH[feature], metric)
    for feature, metric in _STANDS_FOR.items()
}


# --- C1 to C3: the paper's numbers ------------------------------------------------


def paper_number(metric: str, paper_value: float) -> Callable[[Evidence], Outcome]:
    """Return the rule: the paper's number lies in our interval, on real data alone."""

    def evaluate(evidence: Evidence) -> Outcome:
        table = evidence.table("comparison")
        row = find(table, subject="1", method="stage2", metric=metric)
        if row is None:
            return cannot("subject 1 has no stage-2 scores in this run")
        value, low, high = (float(row[k]) for k in ("value", "ci_low", "ci_high"))
        floor, top = float(row["floor"]), float(row["ceiling"])
        ours = f"ours {value:.3f}, floor {_level(floor)}, ceiling {_level(top)}"
        ours += _other_definition(table, metric)
        if evidence.in_silico:
            state, why = (
                CANNOT,
                "a simulated subject's number has no match in the paper",
            )
        elif math.isnan(low) or math.isnan(high):
            state, why = CANNOT, "a single image has no interval"
        elif low <= paper_value <= high:
            state, why = HOLDS, "the paper's value lies in our interval"
        else:
            state, why = FAILS, "the paper's value lies outside our interval"
        numbers = (value, low, high, int(row["n"]), floor, top)
        return Outcome(state, f"{why}; {ours}", *numbers)

    return evaluate


def _level(value: float) -> str:
    return "not run" if math.isnan(value) else f"{value:.3f}"


def _other_definition(table: pd.DataFrame, metric: str) -> str:
    """Return the score under the other definition that the paper may have used."""
    if metric != "ssim_2d":
        return ""
    wanted = {"subject": "1", "method": "stage2", "metric": "ssim_percolumn_legacy"}
    row = find(table, **wanted)
    if row is None:
        return ""
    return (
        f"; which SSIM the paper used is unknown, per column it is {row['value']:.3f}"
    )


# --- C4 to C7: comparisons of methods ---------------------------------------------


def _rows(
    evidence: Evidence, method: str, reference: str
) -> dict[str, pd.Series] | None:
    """Return the contrast in each of the claims' metrics, None where one is missing."""
    rows = {m: find_contrast(evidence, method, reference, m) for m in SHORT}
    found = {m: row for m, row in rows.items() if row is not None}
    return found if len(found) == len(rows) else None


def _said(rows: Mapping[str, pd.Series]) -> str:
    return ", ".join(f"{SHORT[m]} {signed(row)}" for m, row in rows.items())


def other_systems(evidence: Evidence) -> Outcome:
    """Decide C4: stage 2 above `takagi` in judge CLIP, PCC and SSIM, every interval.

    The comparison with MindDiffuser's own version of that system is told, not judged.
    """
    ozcelik = (
        "against Ozcelik et al. it cannot be said here, no IC-GAN model is to be had"
        " offline"
    )
    rows = _rows(evidence, "stage2", "takagi")
    if rows is None:
        near = find_contrast(evidence, "stage2", "retrieval", "clip_judge")
        said = f"Takagi & Nishimoto's system is not run here; {ozcelik}"
        if near is not None:
            what = "stage 2 minus retrieval of a training image, judge CLIP"
            said += f"; {what}: {signed(near)}"
        return cannot(said)
    state, why = _all_higher(rows, "Takagi & Nishimoto")
    said = f"{why}; {_said(rows)}"
    again = _rows(evidence, "stage2", "takagi_minddiffuser")
    if again is not None:
        said += f"; against MindDiffuser's version of it: {_said(again)}"
    return on_difference(state, f"{said}; {ozcelik}", rows["clip_judge"])


def _all_higher(rows: Mapping[str, pd.Series], name: str) -> tuple[str, str]:
    unsure = [SHORT[m] for m, row in rows.items() if not above(row, 0.0)]
    lower = [SHORT[m] for m, row in rows.items() if below(row, 0.0)]
    if lower:
        return FAILS, f"lower than {name} in {', '.join(lower)}"
    if unsure:
        return FAILS, f"not shown, no certain lead over {name} in {', '.join(unsure)}"
    return HOLDS, f"higher than {name} in semantics and structure"


def stage2_gain(evidence: Evidence) -> Outcome:
    """Decide C5: PCC and SSIM rise, and a semantic loss beyond the margin is excluded.

    The margin is a tenth of stage 1's distance to its floor in judge CLIP.
    """
    rows = _rows(evidence, "stage2", "stage1")
    wanted = {"subject": "all", "method": "stage1", "metric": "clip_judge"}
    base = find(evidence.table("comparison"), **wanted)
    if rows is None or base is None:
        return cannot("stage 1 and stage 2 are not both scored")
    pcc, ssim, clip = (rows[m] for m in ("pcc", "ssim_2d", "clip_judge"))
    margin = LOSS_ALLOWED * (float(base["value"]) - float(base["floor"]))
    said = (
        f"PCC {signed(pcc)}, SSIM {signed(ssim)}, judge CLIP {signed(clip)} "
        f"(loss allowed {margin:.3f})"
    )
    state = FAILS
    if not (above(pcc, 0.0) and above(ssim, 0.0)):
        falls = below(pcc, 0.0) or below(ssim, 0.0)
        why = f"{refused(shown=falls)}no certain gain in both PCC and SSIM"
    elif margin > 0 and above(clip, -margin):
        state, why = HOLDS, "structure improves and semantics are kept"
    elif below(clip, -max(margin, 0.0)):
        why = "structure improves at the cost of semantics"
    else:
        why = "not shown, structure improves, semantic loss is not excluded"
    return on_difference(state, f"{why}; {said}", pcc)


def ablation_pairs(evidence: Evidence) -> Mapping[str, Pair]:
    """Return the contrasts of C6 by feature: the factorial's where all are there."""
    rows = [find_contrast(evidence, *pair[:3]) for pair in FACTORIAL.values()]
    return SINGLE_STEPS if any(row is None for row in rows) else FACTORIAL


def each_feature(evidence: Evidence) -> Outcome:
    """Decide C6: without a feature the metric it stands for falls, for all three.

    The feature is taken from all three together (guided sampling) where the run made
    the full factorial; else c and z are taken from stage 1, Z_CLIP from stage 2.
    """
    pairs = ablation_pairs(evidence)
    words, helps, hurts, n = [], 0, 0, 0
    for feature, pair in pairs.items():
        row = find_contrast(evidence, *pair[:3])
        if row is None:
            missing = f"{pair.method} - {pair.reference}"
            return cannot(f"the contrast {missing} in {SHORT[pair.metric]} is missing")
        adds, lowers, n = above(row, 0.0), below(row, 0.0), int(row["n"])
        effect = "adds" if adds else "harms" if lowers else "adds nothing certain"
        link = " " if lowers else " to "
        words.append(f"{feature} {effect}{link}{SHORT[pair.metric]}, {signed(row)}")
        helps, hurts = helps + adds, hurts + lowers
    whole = "one taken from all three in guided sampling"
    how = whole if pairs is FACTORIAL else "no full factorial, one step each"
    holds = helps == len(pairs)
    start = "" if holds else refused(shown=hurts > 0)
    said = f"{start}{how}: " + "; ".join(words)
    state, of = HOLDS if holds else FAILS, float(len(pairs))
    return Outcome(state, said, float(helps), n=n, floor=0.0, ceiling=of)


def every_subject(evidence: Evidence) -> Outcome:
    """Decide C7: in every subject judge CLIP and PCC lie above the shuffled floor."""
    table = evidence.table("comparison")
    if table.empty:
        return cannot("no image is scored in this run")
    own = table[(table["method"] == "stage2") & (table["subject"].astype(str) != "all")]
    subjects = list(dict.fromkeys(own["subject"].astype(str)))
    if len(subjects) < 2:
        return cannot(f"the run has {count_words(len(subjects), 'subject')}")
    failed: dict[tuple[str, str], bool] = {}
    for subject in subjects:
        for metric in ("clip_judge", "pcc"):
            row = find(own, subject=subject, metric=metric)
            if row is None:
                return cannot(f"subject {subject} has no {SHORT[metric]}")
            if not above(row, float(row["floor"])):
                failed[subject, metric] = below(row, float(row["floor"]))
    works = len(subjects) - len({subject for subject, _ in failed})
    reason = "judge CLIP and PCC above the shuffled-pair floor, one profile for all"
    said = f"{works} of {len(subjects)} subjects have {reason}"
    if failed:
        names = ", ".join(f"subject {s} {metric}" for s, metric in failed)
        said = f"{refused(shown=any(failed.values()))}{said}; not in: {names}"
    state = FAILS if failed else HOLDS
    n = len(subjects)
    return Outcome(state, said, float(works), n=n, floor=0.0, ceiling=float(n))


# --- C11: signatures of failure ---------------------------------------------------


def failure_signatures(evidence: Evidence) -> Outcome:
    """Decide C11 by two failures of known cause: without c, and without z.

    Images of c alone minus images of z alone: judge CLIP higher, SSIM lower.
    """
    clip, ssim = (
        find_contrast(evidence, "c_only", "z_only", m)
        for m in ("clip_judge", "ssim_2d")
    )
    if clip is None or ssim is None:
        return cannot("the contrast c_only - z_only is missing")
    semantic, structural = above(clip, 0.0), below(ssim, 0.0)
    holds = semantic and structural
    opposite = below(clip, 0.0) or above(ssim, 0.0)
    words = [
        "lower" if sure else "not certainly lower" for sure in (semantic, structural)
    ]
    said = (
        f"{'' if holds else refused(shown=opposite)}in images of c alone minus images "
        f"of z alone, judge CLIP is {words[0]} without c, {signed(clip)}, and SSIM "
        f"{words[1]} without z, {signed(ssim)}; failures of unknown cause, in single "
        "images, are not tested"
    )
    return on_difference(HOLDS if holds else FAILS, said, clip)
