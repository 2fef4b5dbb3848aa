"""What a claim is, what it is decided on, and the words of its verdict.

`Evidence` holds the tables of a run, a `Claim` the rule and the null that must fail it,
an `Outcome` what the rule found; a `Pair` is what most rules compare. Not here: any
rule.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import DataError

__all__ = [
    "ALPHA",
    "CANNOT",
    "FAILS",
    "HOLDS",
    "IN_SILICO",
    "SHORT",
    "Claim",
    "Contrast",
    "Evidence",
    "Outcome",
    "Pair",
    "cannot",
    "count_words",
    "decide",
    "find",
    "find_contrast",
    "find_contrasts",
    "on_difference",
    "p_words",
    "refused",
    "side_of",
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
        Name of the profile.
    """

    tables: Mapping[str, pd.DataFrame]
    in_silico: bool
    profile: str

    def table(self, name: str) -> pd.DataFrame:
        """Return a table, empty where the run did not make it."""
        return self.tables.get(name, pd.DataFrame())

    def with_tables(self, **tables: pd.DataFrame) -> "Evidence":
        """Return the evidence with some tables replaced."""
        return replace(self, tables={**self.tables, **tables})


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


Maker = Callable[[Evidence, np.random.Generator], Evidence]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper as data: what it says, and what decides it.

    Attributes
    ----------
    claim, statement : str
        Id and words.
    null : str
        What must fail the same check.
    evaluate : callable
        The rule: evidence to outcome.
    make_null, make_effect : callable
        Evidence and generator to evidence of the same shape, in which the null is true
        by construction, or in which the effect is planted and large.
    metrics : tuple of str
        What is measured.
    methods : tuple of str
        Methods whose images are scored for it; empty where no image is.
    paper_value : float
        The paper's number, NaN where it gives none.
    profiles : tuple of str
        Profiles that can speak to it; any other "cannot be said here".
    """

    claim: str
    statement: str
    null: str
    evaluate: Callable[[Evidence], Outcome]
    make_null: Maker
    make_effect: Maker
    metrics: tuple[str, ...] = tuple(SHORT)
    methods: tuple[str, ...] = ()
    paper_value: float = _NAN
    profiles: tuple[str, ...] = ("demo", "nsd")


def decide(claim: Claim, evidence: Evidence) -> Outcome:
    """Return what the claim's rule finds, as far as the profile can speak to it."""
    outcome = claim.evaluate(evidence)
    if outcome.state == CANNOT or evidence.profile in claim.profiles:
        return outcome
    able = " and ".join(claim.profiles)
    words = f"profile {evidence.profile} tests the code, only {able} can tell"
    return replace(outcome, state=CANNOT, words=f"{words}; {outcome.words}")


# --- rows of tables -----------------------------------------------------------------


def find(table: pd.DataFrame, **values: str) -> pd.Series | None:
    """Return the only row with these values, or None."""
    if table.empty:
        return None
    keep = pd.Series(data=True, index=table.index)
    for column, value in values.items():
        keep &= table[column].astype(str) == value
    rows = table[keep]
    if len(rows) > 1:
        raise DataError(
            f"A table of results holds {values} twice: run notebook 05 again."
        )
    return None if rows.empty else rows.iloc[0]


def side_of(row: pd.Series, bound: float) -> int:
    """Return 1 or -1 where the whole interval is above or below `bound`, else 0."""
    return int(float(row["ci_low"]) > bound) - int(float(row["ci_high"]) < bound)


class Pair(NamedTuple):
    """Two methods and a metric in which the first must be higher (sign 1) or lower."""

    method: str
    reference: str
    metric: str
    sign: int = 1


class Contrast(NamedTuple):
    """A pair's difference over all subjects, and what its interval shows.

    `shown`: 1 as the pair says, -1 the opposite, 0 neither.
    """

    metric: str
    row: pd.Series
    shown: int


def find_contrast(
    evidence: Evidence, method: str, reference: str, metric: str
) -> pd.Series | None:
    """Return the pooled row of `method` minus `reference`, or None."""
    values = {"contrast": f"{method} - {reference}", "metric": metric}
    for name in ("paired", "contrasts"):
        row = find(evidence.table(name), subject="all", **values)
        if row is not None:
            return row
    return None


def find_contrasts(evidence: Evidence, pairs: Iterable[Pair]) -> list[Contrast]:
    """Return the contrasts of the pairs, none at all where one of them is missing."""
    contrasts = []
    for pair in pairs:
        row = find_contrast(evidence, *pair[:3])
        if row is None:
            return []
        contrasts.append(Contrast(pair.metric, row, pair.sign * side_of(row, 0.0)))
    return contrasts


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
    words = f"{value:+.3f}"
    if not math.isnan(low):  # one subject with one image has no interval
        words += f" [{low:+.3f}, {high:+.3f}]"
    return f"{words} (positive in {positive}/{n} subjects)"
