"""What a sceptic asks first: nulls, ceilings, zero iterations, a falling loss."""

import pandas as pd

from minddiff_utils.core.conditions import by_name
from minddiff_utils.evaluation.claims.evidence import (
    SHORT,
    Evidence,
    NotTestableError,
    count_words,
)

__all__ = ["sanity_table"]

#: Level of the permutation tests of decoding.
_ALPHA = 0.05

Check = tuple[str, str, str, bool]


def _check_accuracy(evidence: Evidence) -> list[Check]:
    accuracy = evidence.table("accuracy")
    if accuracy.empty:
        return []
    checks: list[Check] = []
    expected = f"above the permutation null, p <= {_ALPHA} in every subject"
    whole = accuracy[accuracy["area_set"] == "all"]
    for feature, own in whole.groupby("feature", sort=False):
        p = float(own["p_permutation"].max())
        r, null = float(own["r_mean"].mean()), float(own["r_null_mean"].mean())
        who = count_words(len(own), "subject")
        seen = f"r = {r:.3f}, null {null:.3f}, largest p {p:.3g} of {who}"
        passed = bool(p <= _ALPHA and (own["r_mean"] > own["r_null_mean"]).all())
        checks.append((f"decoding accuracy of {feature}", expected, seen, passed))
    return checks


def _check_order(evidence: Evidence) -> list[Check]:
    """Check what must be above 0: true features, and one's own brain."""
    checks: list[Check] = []
    for row in (by_name()["stage1"], by_name()["stage2"]):
        pairs = {
            "recovery ceiling": (row.ceiling or "", row.name),
            "another image's brain": (row.name, row.floor or ""),
        }
        for name, (better, worse) in pairs.items():
            for metric in ("clip_judge", "pcc"):
                expected = f"{better} above {worse}, interval without 0"
                try:
                    endpoint = evidence.contrast(better, worse, metric)
                except NotTestableError as why:
                    seen, passed = f"missing: {why}", False
                else:
                    mean = endpoint.result_of
                    seen = (
                        f"{mean.value:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}],"
                        f" {count_words(mean.n_images, 'image')}"
                    )
                    passed = endpoint.result == "shown"
                what = f"{name}, {row.name}, {SHORT[metric]}"
                checks.append((what, expected, seen, passed))
    return checks


def _check_stage2(evidence: Evidence, n_equal: int, n_compared: int) -> list[Check]:
    equal = bool(n_compared) and n_equal == n_compared
    seen = f"{n_equal} of {n_compared} images equal"
    expected = "the same bytes for every image compared"
    checks = [("stage 2 with zero iterations is stage 1", expected, seen, equal)]
    table = evidence.table("stage2")
    seen, falls = "missing", pd.Series([False])
    if not table.empty:
        table = table[table["method"] == "stage2"]
        falls = table["loss_best"] < table["loss_first"]
        drop = float((1.0 - table["loss_best"] / table["loss_first"]).mean())
        counted = f"{int(falls.sum())} of {count_words(len(table), 'image')}"
        seen = f"{counted}, mean fall {100 * drop:.1f} %"
    return [*checks, ("structural loss falls", "every image", seen, bool(falls.all()))]


def sanity_table(evidence: Evidence, *, n_equal: int, n_compared: int) -> pd.DataFrame:
    """Return what a sceptic asks for first, with what was seen.

    `n_equal`, `n_compared`: images whose stage 2 with zero iterations equals stage 1,
    of those compared. Columns check, expected, observed, passed.
    """
    checks = [
        *_check_accuracy(evidence),
        *_check_order(evidence),
        *_check_stage2(evidence, n_equal, n_compared),
    ]
    return pd.DataFrame(checks, columns=["check", "expected", "observed", "passed"])
