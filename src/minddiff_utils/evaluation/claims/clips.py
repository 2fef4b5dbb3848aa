"""The rule on moving scenes, O6b; fixed on 2026-11-30 before its numbers were seen.

From the scores of notebook 09 to endpoints, as `rules` from those of the others.
"""

from dataclasses import replace

from minddiff_utils.core.inference import estimate
from minddiff_utils.evaluation.claims.evidence import (
    SHORT,
    Endpoint,
    Evidence,
    NotTestableError,
    method_words,
)

__all__ = ["in_order"]

#: Share of pairs of frames in order, over a half: more than this where they are slow,
#: less than that, either way, where all eight fall into the time of one volume.
_SLOW, _FAST = 0.25, 0.1
_METHOD = "lags_prior"


def in_order(evidence: Evidence) -> list[Endpoint]:
    """Decide O6b: how fast a clip may be for its frames to be put in order.

    By lags and a temporal prior, of frames shown for 4 s three pairs in four are in the
    right order, and more; of frames shown for a quarter of a second, eight in a volume,
    so many as guessing has, within a tenth.
    """
    slow, fast = (_over_half(evidence, f"frame_order_{ms}") for ms in (4000, 250))
    return [replace(slow, above=_SLOW), replace(fast, above=-_FAST, below=_FAST)]


def _over_half(evidence: Evidence, metric: str) -> Endpoint:
    if evidence.table("video").empty:
        raise NotTestableError("no clips were decoded: notebook 09 was not run")
    wide = evidence.matrices("video").matrix(_METHOD, metric).dropna(axis=1)
    if wide.empty:
        raise NotTestableError(f"no {SHORT[metric]} of {method_words(_METHOD)}")
    mean = estimate(wide - 0.5, confidence=evidence.confidence)
    return Endpoint(f"{method_words(_METHOD)}, {SHORT[metric]}", "share over .5", mean)
