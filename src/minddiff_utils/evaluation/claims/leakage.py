"""The rules of O2 to O4: is it read, or guessed? Decided on the tables of notebook 08.

Fixed on 2026-11-30, before notebook 08 had run on any test image; CHANGELOG.md says
what had been seen by then. Images are the unit.
"""

from collections.abc import Callable, Sequence

from minddiff_utils.core.inference import estimate
from minddiff_utils.evaluation.claims.evidence import (
    Endpoint,
    Evidence,
    NotTestableError,
    method_words,
)

__all__ = ["above", "beyond_category", "held_out"]

#: Where the scores are.
_SOURCE = "leakage"
#: Shares of comparisons won, of which half are won by chance.
_SHARES = {
    "two_way_within": "two-way identification (judge) within clusters",
    "two_way_across": "two-way identification (judge) across clusters",
    "c_beats_clusters": "c: its cluster's mean against another's",
}


def above(
    reference: str, metrics: Sequence[str]
) -> Callable[[Evidence], Sequence[Endpoint]]:
    """Return the rule: stage 1 above `reference` in each of the metrics."""

    def rule(evidence: Evidence) -> list[Endpoint]:
        return [
            evidence.contrast("stage1", reference, metric, source=_SOURCE)
            for metric in metrics
        ]

    return rule


def beyond_category(evidence: Evidence) -> list[Endpoint]:
    """Decide O2: what is read goes beyond the kind of thing and of place.

    Stage 1 is identified among images of its own cluster of categories more often than
    half of the time, and has a higher PCC than images made from the true category
    alone, and from the true setting alone.
    """
    endpoints = [_above_half(evidence, "stage1", "two_way_within")]
    for reference in ("category_only", "setting_only"):
        endpoints += above(reference, ["pcc"])(evidence)
    return endpoints


def held_out(evidence: Evidence) -> list[Endpoint]:
    """Decide O3: categories that trained no decoder are read above chance.

    Without the image's cluster of categories in training: decoded c is more like the
    mean c of its cluster than like that of another, and stage 1's image is identified
    among images of other clusters and of its own, each more often than half of the
    time.
    """
    return [_above_half(evidence, "heldout", metric) for metric in reversed(_SHARES)]


def _above_half(evidence: Evidence, method: str, metric: str) -> Endpoint:
    """Return the share of comparisons won, minus a half."""
    scores, wide = evidence.table(_SOURCE), None
    if not scores.empty:
        wide = evidence.matrices(_SOURCE).matrix(method, metric).dropna(axis=1)
    if wide is None or wide.empty:
        raise NotTestableError(
            f"no {_SHARES[metric]} of {method_words(method)}: notebook 08 was not run,"
            " or no image is of one cluster"
        )
    mean = estimate(wide - 0.5, confidence=evidence.confidence)
    return Endpoint(f"{method_words(method)}, {_SHARES[metric]}", "share over .5", mean)
