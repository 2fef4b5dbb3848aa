"""What a claim is, what it is decided on, and how a verdict follows from endpoints.

A rule turns the tables of a run (`Evidence`) into endpoints: effects with an interval
and a bound that they must exceed. One verdict follows for all claims alike. Not here:
any rule.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.inference import Estimate, estimate, estimate_subjects
from minddiff_utils.evaluation.summaries import Matrices

__all__ = [
    "CONTRADICTED",
    "INCONCLUSIVE",
    "NOT_TESTABLE",
    "SHORT",
    "SUPPORTED",
    "Claim",
    "Endpoint",
    "Evidence",
    "NotTestableError",
    "Outcome",
    "Result",
    "Rule",
    "count_words",
    "decide",
    "engine_words",
    "method_words",
]

#: The four verdicts.
SUPPORTED, CONTRADICTED = "supported", "contradicted"
INCONCLUSIVE, NOT_TESTABLE = "inconclusive", "not testable here"
#: Metrics in the words of a verdict.
SHORT = {
    "clip_judge": "CLIP similarity (judge)",
    "clip_method": "CLIP similarity (ViT-B/32)",
    "pcc": "PCC",
    "ssim_2d": "SSIM",
    "c_r": "accuracy of c, r",
    "z_r": "accuracy of z, r",
    "frame_order_250": "frames in order, 0.25 s",
    "frame_order_1000": "frames in order, 1 s",
    "frame_order_4000": "frames in order, 4 s",
    "two_way_motion": "motion, two-way",
    "temporal_ssim": "SSIM of the motion",
}
_ENGINES = {
    "paper": "Algorithm 1 as printed",
    "released": "released code's loop",
    "bayes": "bayes (ours)",
    "best_of_n": "best of N draws",
    "none": "stage 1",  # as the first study called it
}

_STAGES = {
    "stage1": "stage 1",
    "stage2": "stage 2",
    "setting_only": "the true setting alone",
    "heldout": "stage 1 without its cluster in training",
    "noise_refit": "a decoder fitted to noise",
    "axes_10": "ten principal axes",
    "voxels_25": "a quarter of the voxels",
    "trials_25": "a quarter of the trials",
    "own_50": "a new subject's 50 minutes alone",
    "aligned_50": "a new subject's 50 minutes, aligned",
    "picture": "each volume as a picture",
    "lags_prior": "lags and a temporal prior",
}

#: What the interval of an endpoint shows: the effect lies where the claim says; beyond
#: the bound on the other side; neither.
Result = Literal["shown", "opposite", "open"]


def engine_words(preset: str) -> str:
    """Return an engine of stage 2 in the words of the ledger.

    >>> engine_words("bayes")
    'bayes (ours)'
    """
    return _ENGINES.get(preset, preset)


def method_words(name: str) -> str:
    """Return a method of the tables, or an arm of the study, in words.

    >>> method_words("stage2"), method_words("takagi"), method_words("paper")
    ('stage 2', 'Takagi & Nishimoto', 'Algorithm 1 as printed')
    """
    if name in _STAGES:
        return _STAGES[name]
    row = by_name().get(name)
    known = row.short or row.label if row else name
    return _ENGINES.get(name, known).removesuffix(" (ours)")


def count_words(n: int, noun: str) -> str:
    """Return a number and its noun.

    >>> count_words(1, "subject"), count_words(2, "subject")
    ('1 subject', '2 subjects')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


class NotTestableError(Exception):
    """A run cannot speak to a claim; the message says what is missing."""


@dataclass(frozen=True)
class Endpoint:
    """One effect that a claim stands or falls with.

    `name`: what is compared, in words; `scale`: unit of the effect; `unit`: what the
    interval generalises over, and so which one decides, that of the estimate or its
    `subjects_low` and `subjects_high`; the claim says that the effect lies between
    `above` and `below`.
    """

    name: str
    scale: str
    result_of: Estimate
    unit: Literal["image", "subject"] = "image"
    above: float = 0.0
    below: float = np.inf

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the interval that decides."""
        if self.unit == "subject":
            return self.result_of.subjects_low, self.result_of.subjects_high
        return self.result_of.low, self.result_of.high

    @property
    def result(self) -> Result:
        """Return what the interval shows; an interval that is not known is open."""
        low, high = self.interval
        if low > self.above and high < self.below:
            return "shown"
        return "opposite" if high < self.above or low > self.below else "open"


@dataclass(frozen=True)
class Evidence:
    """The tables of a run, and what a verdict has to know of it.

    `tables`: `scores`, image by image (subject, method, nsd_id, metric, value, floor),
    the steps of ladders under their own names; `image_accuracy` (subject, nsd_id,
    feature, area_set, r), `accuracy`, `k_selection`, `weights` and `stage2` of all
    subjects; `study`, `factors`, `leakage` and `video`, the scores of the study of
    stage 2 and of notebooks 07 to 09, where they were run. `preset`: the engine that
    makes the images called stage2; `backbone`: which generator and CLIP; `missing`:
    subjects that are not finished; `confidence`: of the intervals, 0.95 in every
    published rule.
    """

    tables: Mapping[str, pd.DataFrame]
    in_silico: bool
    profile: str
    preset: str = "bayes"
    backbone: str = "demo"
    missing: Sequence[int] = field(default_factory=tuple)
    confidence: float = 0.95
    _known: dict[str, Matrices] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def table(self, name: str) -> pd.DataFrame:
        """Return a table, empty where the run did not make it."""
        return self.tables.get(name, pd.DataFrame())

    def matrices(self, source: str = "scores") -> Matrices:
        """Return a table of scores as matrices; it is there and not empty."""
        if source not in self._known:
            self._known[source] = Matrices(self.table(source))
        return self._known[source]

    def contrast(
        self,
        method: str,
        reference: str,
        metric: str,
        *,
        above: float = 0.0,
        source: str = "scores",
    ) -> Endpoint:
        """Return a paired difference of two methods, over all subjects, as endpoint.

        Raises
        ------
        NotTestableError
            One of the methods was not run, or they share no image.
        """
        scores = self.table(source)
        for name in (method, reference):
            if scores.empty or not (scores["method"] == name).any():
                raise NotTestableError(f"{method_words(name)} was not run")
        wide = self.matrices(source).contrast(method, reference, metric)
        words = f"{method_words(method)} minus {method_words(reference)}"
        about = (words, SHORT[metric], "the two methods share no image")
        return replace(self.mean(wide, *about), above=above)

    def mean(self, wide: pd.DataFrame, name: str, scale: str, why: str) -> Endpoint:
        """Return the mean of subjects x images as endpoint, over images that all have.

        There is none: NotTestableError, which says `why`.
        """
        shared = wide.dropna(axis=1)
        if shared.empty:
            raise NotTestableError(why)
        return Endpoint(name, scale, estimate(shared, confidence=self.confidence))

    def subject_mean(self, values: npt.ArrayLike, name: str, scale: str) -> Endpoint:
        """Return the mean of one number per subject as endpoint."""
        mean = estimate_subjects(values, confidence=self.confidence)
        return Endpoint(name, scale, mean, "subject")


@dataclass(frozen=True)
class Outcome:
    """What a rule found: the verdict, why in a few words, and its endpoints."""

    verdict: str
    reason: str
    endpoints: tuple[Endpoint, ...] = ()


Rule = Callable[[Evidence], Sequence[Endpoint]]


@dataclass(frozen=True)
class Claim:
    """One claim as data: what it says, and what decides it.

    `rule`: the claim is the conjunction of its endpoints; `engine`: what is judged, an
    engine, "run" for this run's, "none" where it is decoding;
    `paper_value`: the paper's number, NaN where it gives none; `profiles`: those that
    can speak to it.
    """

    claim: str
    statement: str
    rule: Rule
    engine: str = "none"
    paper_value: float = float("nan")
    profiles: tuple[str, ...] = ("demo", "nsd")


def decide(claim: Claim, evidence: Evidence) -> Outcome:
    """Return the verdict on a claim.

    Supported: every endpoint is shown; as all must be, no correction for their number
    is due (intersection-union test, Berger 1982). Contradicted: the opposite of one is
    shown. Inconclusive: neither. Not testable here: something is missing.
    """
    try:
        if evidence.profile not in claim.profiles:
            able = " and ".join(claim.profiles)
            raise NotTestableError(
                f"profile {evidence.profile} tests the code, not {able}"
            )
        endpoints = tuple(claim.rule(evidence))
    except NotTestableError as why:
        return Outcome(NOT_TESTABLE, str(why))
    opposite = [e for e in endpoints if e.result == "opposite"]
    if opposite:
        return Outcome(CONTRADICTED, _reason(opposite, "the opposite of"), endpoints)
    unsure = [e for e in endpoints if e.result == "open"]
    if unsure:
        return Outcome(INCONCLUSIVE, _reason(unsure, "not shown:"), endpoints)
    words = f"shown in {count_words(len(endpoints), 'endpoint')}"
    return Outcome(SUPPORTED, words, endpoints)


def _reason(endpoints: Sequence[Endpoint], start: str) -> str:
    names = [f"{e.name}, {e.scale}" for e in endpoints]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{start} {'; '.join(names[:2])}{more}"
