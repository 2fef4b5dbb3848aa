"""What a claim is, what it is decided on, and the words of its verdict.

`Evidence` holds the tables of a run, a `Claim` the rule and the null that must fail it,
an `Outcome` what the rule found. Not here: any rule.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import DataError

__all__ = [
    "ALPHA",
    "CANNOT",
    "FAILS",
    "HOLDS",
    "SHORT",
    "Claim",
    "Evidence",
    "Outcome",
    "above",
    "below",
    "cannot",
    "count_words",
    "decide",
    "find",
    "find_contrast",
    "on_difference",
    "p_words",
    "refused",
    "signed",
]

#: The first words of every verdict.
HOLDS, FAILS, CANNOT = "holds", "fails", "cannot be said here"
#: What follows them where the subjects are simulated.
IN_SILICO = " (in silico, direction only)"
#: Level of all tests.
ALPHA = 0.05
#: Metrics in the words of a verdict.
SHORT = {"clip_judge": "judge CLIP", "pcc": "PCC", "ssim_2d": "SSIM"}

_NAN = float("nan")


@dataclass(frozen=True)
class Evidence:
    """The tables a run made, by name, and whether its subjects are simulated.

    Attributes
    ----------
    tables : mapping of DataFrame
        `comparison`, `paired`, `contrasts` as written by notebook 05; `accuracy`,
        `k_selection` of notebook 02 with a column `subject`; `weights` of
        `weights_by_area` with a column `subject`; `stage2` of notebook 04 likewise.
        Optional: `k_quality`, the final quality by k (columns subject, k_percent,
        metric, value, ci_low, ci_high); `scores`, image by image (columns subject,
        method, nsd_id, metric, value, floor), from which nulls are made.
    in_silico : bool
        Whether the subjects are simulated.
    profile : str
        Name of the profile; empty: demo in silico, nsd otherwise.
    """

    tables: Mapping[str, pd.DataFrame]
    in_silico: bool
    profile: str = ""

    def table(self, name: str) -> pd.DataFrame:
        """Return a table, empty where the run did not make it."""
        return self.tables.get(name, pd.DataFrame())

    def with_tables(self, **tables: pd.DataFrame) -> "Evidence":
        """Return the evidence with some tables replaced."""
        return replace(self, tables={**self.tables, **tables})

    @property
    def source(self) -> str:
        """The profile that the evidence comes from."""
        return self.profile or ("demo" if self.in_silico else "nsd")


@dataclass(frozen=True)
class Outcome:
    """What a rule found: one of three states, the reason in words, and numbers."""

    state: str
    words: str
    value: float = _NAN
    ci_low: float = _NAN
    ci_high: float = _NAN
    n: int = 0
    floor: float = _NAN
    ceiling: float = _NAN

    def verdict(self, *, in_silico: bool) -> str:
        """Return state and reason as one sentence."""
        return f"{self.state}{IN_SILICO if in_silico else ''}: {self.words}"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper as data: what it says, and what decides it.

    Attributes
    ----------
    claim, statement : str
        Id and words.
    paper_value : float
        The paper's number, NaN where it gives none.
    metrics : tuple of str
        What is measured.
    methods : tuple of str
        Methods whose images are scored for it; empty where no image is.
    direction : str
        What must be seen for the claim to hold.
    null : str
        What must fail the same check.
    profiles : tuple of str
        Profiles that can speak to it; any other "cannot be said here".
    evaluate : callable
        The rule: evidence to outcome.
    make_null, make_effect : callable
        Evidence and generator to evidence of the same shape, in which the null is true
        by construction, or in which the effect is planted and large.
    """

    claim: str
    statement: str
    paper_value: float
    metrics: tuple[str, ...]
    methods: tuple[str, ...]
    direction: str
    null: str
    profiles: tuple[str, ...]
    evaluate: Callable[[Evidence], Outcome]
    make_null: Callable[[Evidence, np.random.Generator], Evidence]
    make_effect: Callable[[Evidence, np.random.Generator], Evidence]


def decide(claim: Claim, evidence: Evidence) -> Outcome:
    """Return what the claim's rule finds, as far as the profile can speak to it."""
    found = claim.evaluate(evidence)
    if found.state == CANNOT or evidence.source in claim.profiles:
        return found
    able = " and ".join(claim.profiles)
    words = f"profile {evidence.source} tests the code, only {able} can tell"
    return replace(found, state=CANNOT, words=f"{words}; {found.words}")


# --- rows of tables -----------------------------------------------------------------


def find(table: pd.DataFrame, **wanted: str) -> pd.Series | None:
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


def find_contrast(
    evidence: Evidence, method: str, reference: str, metric: str
) -> pd.Series | None:
    """Return the pooled row of `method` minus `reference`, or None."""
    wanted = {"contrast": f"{method} - {reference}", "metric": metric}
    for name in ("paired", "contrasts"):
        row = find(evidence.table(name), subject="all", **wanted)
        if row is not None:
            return row
    return None


def above(row: pd.Series, bound: float) -> bool:
    """Return whether the whole interval is above `bound`; False where it is NaN."""
    return bool(float(row["ci_low"]) > bound)


def below(row: pd.Series, bound: float) -> bool:
    """Return whether the whole interval is below `bound`; False where it is NaN."""
    return bool(float(row["ci_high"]) < bound)


# --- words --------------------------------------------------------------------------


def cannot(why: str) -> Outcome:
    """Return the outcome of a rule that lacks what it needs."""
    return Outcome(CANNOT, why)


def refused(*, shown: bool) -> str:
    """Return how the reason of a failure begins.

    `shown`: the opposite is shown; else an interval or test leaves it open.
    """
    return "" if shown else "not shown, "


def on_difference(state: str, words: str, row: pd.Series) -> Outcome:
    """Return the outcome of a rule whose number is a paired difference, floor 0."""
    value, low, high = (float(row[k]) for k in ("value", "ci_low", "ci_high"))
    return Outcome(state, words, value, low, high, int(row["n"]), 0.0)


def count_words(n: int, noun: str) -> str:
    """Return a number and its noun.

    >>> count_words(1, "subject"), count_words(2, "subject")
    ('1 subject', '2 subjects')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def p_words(p: float) -> str:
    """Return a p value in words."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def signed(row: pd.Series) -> str:
    """Return a paired difference with its interval and the subjects that agree."""
    value, low, high = (float(row[k]) for k in ("value", "ci_low", "ci_high"))
    positive, n = int(row["n_subjects_positive"]), int(row["n"])
    said = f"{value:+.3f}"
    if not math.isnan(low):  # one subject with one image has no interval
        said += f" [{low:+.3f}, {high:+.3f}]"
    return f"{said} (positive in {positive}/{n} subjects)"
