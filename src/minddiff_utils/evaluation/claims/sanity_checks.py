"""What a sceptic asks for first: nulls, ceilings, zero iterations, a falling loss."""

import pandas as pd

from minddiff_utils.core.conditions import by_name
from minddiff_utils.evaluation.claims.decoding_rules import all_areas
from minddiff_utils.evaluation.claims.evidence import (
    ALPHA,
    HOLDS,
    Evidence,
    Outcome,
    Pair,
    count_words,
    find,
    find_contrasts,
    side_of,
    signed,
)
from minddiff_utils.evaluation.claims.reconstruction_rules import stage2_gain

__all__ = ["sanity_table"]

Check = tuple[str, str, str, bool]


def _check_accuracy(evidence: Evidence) -> list[Check]:
    accuracy = all_areas(evidence.table("accuracy"))
    checks: list[Check] = []
    if accuracy.empty:
        return checks
    expected = f"above the permutation null, p <= {ALPHA} in every subject"
    for feature, own in accuracy.groupby("feature", sort=False):
        p = float(own["p_permutation"].max())
        r, null = float(own["r_mean"].mean()), float(own["r_null_mean"].mean())
        who = count_words(len(own), "subject")
        seen = f"r = {r:.3f}, null {null:.3f}, largest p {p:.3g} of {who}"
        passed = bool(p <= ALPHA and (own["r_mean"] > own["r_null_mean"]).all())
        checks.append((f"decoding accuracy of {feature}", expected, seen, passed))
    return checks


def _check_order(evidence: Evidence) -> list[Check]:
    """Check what must be above 0: true features, and one's own brain."""
    stages = {"stage 1": by_name()["stage1"], "stage 2": by_name()["stage2"]}
    ordered = {
        **{
            f"recovery ceiling, {k}": (row.ceiling, row.name)
            for k, row in stages.items()
        },
        **{f"shuffled brain, {k}": (row.name, row.floor) for k, row in stages.items()},
    }
    checks: list[Check] = []
    for name, (better, worse) in ordered.items():
        for metric in ("clip_judge", "pcc"):
            key = {"contrast": f"{better} - {worse}", "metric": metric}
            row = find(evidence.table("contrasts"), subject="all", **key)
            expected = f"{better} - {worse} > 0, interval without 0"
            seen = "missing" if row is None else signed(row)
            passed = row is not None and side_of(row, 0.0) > 0
            checks.append((f"{name}, {metric}", expected, seen, passed))
    return checks


def _check_stage2(evidence: Evidence, n_equal: int, n_compared: int) -> list[Check]:
    equal = bool(n_compared) and n_equal == n_compared
    seen = f"{n_equal} of {n_compared} images equal"
    expected = "the same bytes for every image compared"
    checks = [("stage 2 with zero iterations is stage 1", expected, seen, equal)]
    table = evidence.table("stage2")
    seen, falls = "missing", pd.Series([False])
    if not table.empty:
        falls = table["loss_best"] < table["loss_first"]
        drop = float((1.0 - table["loss_best"] / table["loss_first"]).mean())
        counted = f"{int(falls.sum())} of {len(table)} images"
        seen = f"{counted}, mean fall {100 * drop:.1f} %"
    return [*checks, ("structural loss falls", "every image", seen, bool(falls.all()))]


def _check_gain(evidence: Evidence) -> Check:
    outcome = stage2_gain(evidence)
    passed = outcome.state == HOLDS
    seen = f"{outcome.state}: {outcome.words}"
    if not passed:
        seen = f"{seen}; {_why(evidence, outcome)}"
    expected = "PCC and SSIM rise, CLIP similarity is kept (paired intervals)"
    return ("stage 2 improves on stage 1", expected, seen, passed)


def _why(evidence: Evidence, outcome: Outcome) -> str:
    """Return what limits stage 2, read from the run with the true features."""
    if "at the cost of semantics" in outcome.words:
        return "structure does rise, but c moves away from the decoded semantics"
    if "structure improves" in outcome.words:
        return (
            "structure does rise; the interval of judge CLIP reaches beyond the allowed"
            " loss, and more images would narrow it"
        )
    pairs = [Pair("stage2_true", "true_features", m) for m in ("pcc", "ssim_2d")]
    contrasts = find_contrasts(evidence, pairs)
    if not contrasts:
        return "why is open: stage 2 from true features was not run"
    seen = ", ".join(signed(contrast.row) for contrast in contrasts)
    if all(contrast.shown > 0 for contrast in contrasts):
        return f"true features do gain (PCC, SSIM {seen}): decoding of Z_CLIP limits it"
    return f"true features gain no more (PCC, SSIM {seen}): alignment itself limits it"


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
