"""The rules of the claims on reconstructions: C1 to C7 and C11.

Each rule was fixed before the numbers and reads the tables of notebook 05 alone. Which
pairs of methods each compares stands here as data.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from minddiff_utils.core.conditions import FROM_ALL_THREE, ONE_STEP_EACH
from minddiff_utils.evaluation.claims.evidence import (
    CANNOT,
    FAILS,
    HOLDS,
    SHORT,
    Contrast,
    Evidence,
    Outcome,
    Pair,
    cannot,
    count_words,
    find,
    find_contrast,
    find_contrasts,
    on_difference,
    refused,
    side_of,
    signed,
)

__all__ = [
    "FACTORIAL",
    "GAIN",
    "SIGNATURES",
    "SINGLE_STEPS",
    "TAKAGI",
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

#: C4 and C5: in each of the claims' metrics.
TAKAGI = tuple(Pair("stage2", "takagi", metric) for metric in SHORT)
GAIN = tuple(Pair("stage2", "stage1", metric) for metric in SHORT)
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
#: C11: failures of known cause, without z against without c.
SIGNATURES = (
    Pair("c_only", "z_only", "clip_judge"),
    Pair("c_only", "z_only", "ssim_2d", -1),
)


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
        state, why = CANNOT, "a single image has no interval"
        if evidence.in_silico:
            why = "a simulated subject's number has no match in the paper"
        elif not math.isnan(low):
            inside = low <= paper_value <= high
            state = HOLDS if inside else FAILS
            why = f"the paper's value lies {'in' if inside else 'outside'} our interval"
        words = (
            f"{why}; ours {value:.3f}, floor {_level(floor)}, ceiling {_level(top)}"
            f"{_other_definition(table, metric)}"
        )
        return Outcome(state, words, value, low, high, int(row["n"]), floor, top)

    return evaluate


def _level(value: float) -> str:
    return "not run" if math.isnan(value) else f"{value:.3f}"


def _other_definition(table: pd.DataFrame, metric: str) -> str:
    """Return the score under the other definition that the paper may have used."""
    name = "ssim_percolumn_legacy"
    row = find(table, subject="1", method="stage2", metric=name)
    if metric != "ssim_2d" or row is None:
        return ""
    return (
        f"; which SSIM the paper used is unknown, per column it is {row['value']:.3f}"
    )


# --- C4 to C6, C11: paired differences ----------------------------------------------


def _named(contrasts: Sequence[Contrast], shown: int) -> str:
    """Return the metrics in which a contrast shows this."""
    return ", ".join(SHORT[c.metric] for c in contrasts if c.shown == shown)


def _differences(contrasts: Sequence[Contrast]) -> str:
    return ", ".join(f"{SHORT[c.metric]} {signed(c.row)}" for c in contrasts)


def _state(contrasts: Sequence[Contrast]) -> tuple[str, str]:
    """Return whether all are shown, and how the reason begins."""
    if all(c.shown > 0 for c in contrasts):
        return HOLDS, ""
    return FAILS, refused(shown=any(c.shown < 0 for c in contrasts))


def other_systems(evidence: Evidence) -> Outcome:
    """Decide C4: stage 2 above `takagi` in judge CLIP, PCC and SSIM, every interval.

    The comparison with MindDiffuser's own version of that system is told, not judged.
    """
    ozcelik = (
        "against Ozcelik et al. it cannot be said here, no IC-GAN model is to be had"
        " offline"
    )
    contrasts = find_contrasts(evidence, TAKAGI)
    if not contrasts:
        near = find_contrast(evidence, "stage2", "retrieval", "clip_judge")
        words = f"Takagi & Nishimoto's system is not run here; {ozcelik}"
        if near is not None:
            what = "stage 2 minus retrieval of a training image, judge CLIP"
            words += f"; {what}: {signed(near)}"
        return cannot(words)
    name = "Takagi & Nishimoto"
    state, _ = _state(contrasts)
    why = f"higher than {name} in semantics and structure"
    if lower := _named(contrasts, -1):
        why = f"lower than {name} in {lower}"
    elif unsure := _named(contrasts, 0):
        why = f"not shown, no certain lead over {name} in {unsure}"
    words = f"{why}; {_differences(contrasts)}"
    pairs = [pair._replace(reference="takagi_minddiffuser") for pair in TAKAGI]
    if again := find_contrasts(evidence, pairs):
        words += f"; against MindDiffuser's version of it: {_differences(again)}"
    return on_difference(state, f"{words}; {ozcelik}", contrasts[0].row)


def stage2_gain(evidence: Evidence) -> Outcome:
    """Decide C5: PCC and SSIM rise, and a semantic loss beyond the margin is excluded.

    The margin is a tenth of stage 1's distance to its floor in judge CLIP.
    """
    contrasts = find_contrasts(evidence, GAIN)
    key = {"subject": "all", "method": "stage1", "metric": "clip_judge"}
    base = find(evidence.table("comparison"), **key)
    if not contrasts or base is None:
        return cannot("stage 1 and stage 2 are not both scored")
    clip, *structure = contrasts
    margin = LOSS_ALLOWED * (float(base["value"]) - float(base["floor"]))
    gained, start = _state(structure)
    state = FAILS
    if gained == FAILS:
        why = f"{start}no certain gain in both PCC and SSIM"
    elif margin > 0 and side_of(clip.row, -margin) > 0:
        state, why = HOLDS, "structure improves and semantics are kept"
    elif side_of(clip.row, -max(margin, 0.0)) < 0:
        why = "structure improves at the cost of semantics"
    else:
        why = "not shown, structure improves, semantic loss is not excluded"
    words = f"{why}; {_differences([*structure, clip])} (loss allowed {margin:.3f})"
    return on_difference(state, words, structure[0].row)


def ablation_pairs(evidence: Evidence) -> Mapping[str, Pair]:
    """Return the contrasts of C6 by feature: the factorial's where all are there."""
    whole = find_contrasts(evidence, FACTORIAL.values())
    return FACTORIAL if whole else SINGLE_STEPS


def each_feature(evidence: Evidence) -> Outcome:
    """Decide C6: without a feature the metric it stands for falls, for all three.

    The feature is taken from all three together (guided sampling) where the run made
    the full factorial; else c and z are taken from stage 1, Z_CLIP from stage 2.
    """
    pairs = ablation_pairs(evidence)
    for pair in pairs.values():
        if not find_contrasts(evidence, [pair]):
            missing = f"{pair.method} - {pair.reference}"
            return cannot(f"the contrast {missing} in {SHORT[pair.metric]} is missing")
    contrasts = find_contrasts(evidence, pairs.values())
    effect = {1: "adds to", 0: "adds nothing certain to", -1: "harms"}
    words = [
        f"{feature} {effect[c.shown]} {SHORT[c.metric]}, {signed(c.row)}"
        for feature, c in zip(pairs, contrasts, strict=True)
    ]
    whole = "one taken from all three in guided sampling"
    how = whole if pairs is FACTORIAL else "no full factorial, one step each"
    state, start = _state(contrasts)
    helps, n = sum(c.shown > 0 for c in contrasts), int(contrasts[-1].row["n"])
    return Outcome(
        state,
        f"{start}{how}: " + "; ".join(words),
        float(helps),
        n=n,
        floor=0.0,
        ceiling=float(len(pairs)),
    )


def failure_signatures(evidence: Evidence) -> Outcome:
    """Decide C11 by two failures of known cause: without c, and without z.

    Images of c alone minus images of z alone: judge CLIP higher, SSIM lower.
    """
    contrasts = find_contrasts(evidence, SIGNATURES)
    if not contrasts:
        return cannot("the contrast c_only - z_only is missing")
    state, start = _state(contrasts)
    clip, ssim = (
        f"{'lower' if c.shown > 0 else 'not certainly lower'} without {what}, "
        f"{signed(c.row)}"
        for c, what in zip(contrasts, "cz", strict=True)
    )
    words = (
        f"{start}in images of c alone minus images of z alone, judge CLIP is {clip},"
        f" and SSIM {ssim}; failures of unknown cause, in single images, are not tested"
    )
    return on_difference(state, words, contrasts[0].row)


# --- C7: every subject --------------------------------------------------------------


def every_subject(evidence: Evidence) -> Outcome:
    """Decide C7: in every subject judge CLIP and PCC lie above the shuffled floor."""
    table = evidence.table("comparison")
    if table.empty:
        return cannot("no image is scored in this run")
    own = table[(table["method"] == "stage2") & (table["subject"].astype(str) != "all")]
    subjects = list(dict.fromkeys(own["subject"].astype(str)))
    if len(subjects) < 2:
        return cannot(f"the run has {count_words(len(subjects), 'subject')}")
    sides: dict[tuple[str, str], int] = {}
    for subject in subjects:
        for metric in ("clip_judge", "pcc"):
            row = find(own, subject=subject, metric=metric)
            if row is None:
                return cannot(f"subject {subject} has no {SHORT[metric]}")
            sides[subject, metric] = side_of(row, float(row["floor"]))
    failed = {key: side for key, side in sides.items() if side < 1}
    n, works = len(subjects), len(subjects) - len({subject for subject, _ in failed})
    words = (
        f"{works} of {n} subjects have judge CLIP and PCC above the shuffled-pair"
        " floor, one profile for all"
    )
    if failed:
        names = ", ".join(f"subject {s} {metric}" for s, metric in failed)
        start = refused(shown=min(failed.values()) < 0)
        words = f"{start}{words}; not in: {names}"
    state = FAILS if failed else HOLDS
    return Outcome(state, words, float(works), n=n, floor=0.0, ceiling=float(n))
