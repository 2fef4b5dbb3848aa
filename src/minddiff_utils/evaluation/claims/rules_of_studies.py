"""The rules of O1 to O4 and O6, on what notebooks 07 to 09 find.

Fixed on 2026-11-30, before notebooks 07 and 08 had run on any test image of the demo,
and before 09's numbers were seen; as of `rules`. CHANGELOG.md says what had been seen
by then.
"""

from collections.abc import Sequence
from dataclasses import astuple, replace

import pandas as pd

from minddiff_utils.core.crossed import crossed_slopes
from minddiff_utils.core.inference import Estimate
from minddiff_utils.evaluation.claims.evidence import (
    SHORT,
    Endpoint,
    Evidence,
    NotTestableError,
    method_words,
)
from minddiff_utils.evaluation.claims.rules import above, paired_images
from minddiff_utils.evaluation.summaries import ESTIMATE

__all__ = [
    "beyond_category",
    "follows_accuracy",
    "held_out",
    "image_slopes",
    "in_order",
]

#: What each feature stands for in O1a.
_STANDS_FOR = {"c": "clip_judge", "z": "pcc"}
#: Shares of comparisons won, of which half are won by chance.
_SHARES = {
    "two_way_within": "two-way identification (judge) within clusters",
    "two_way_across": "two-way identification (judge) across clusters",
    "c_beats_clusters": "c: its cluster's mean against another's",
}
#: Why a table lacks a share.
_LACKS = {
    "leakage": "notebook 08 was not run, or no image is of one cluster",
    "video": "notebook 09 was not run",
}
#: O6b: share of pairs of frames in order, over a half: more than this where they are
#: slow, less than that, either way, where all eight fall into the time of one volume.
_SLOW, _FAST = 0.25, 0.1


# --- O1: what makes subjects differ ---------------------------------------------------


def _slopes(
    evidence: Evidence, metric: str, method: str = "stage2", *, fixed: bool = False
) -> dict[str, Estimate]:
    """Return the slopes of a score on the accuracies of c and z, by feature."""
    *read, score = paired_images(evidence, ("c", "z"), (metric,), method)
    if len(score) < 2:
        raise NotTestableError("the run has 1 subject")
    values = [part.to_numpy() for part in read]
    found = crossed_slopes(
        score.to_numpy(), values, fixed=fixed, confidence=evidence.confidence
    )
    return dict(zip(("c", "z"), found, strict=True))


def follows_accuracy(evidence: Evidence) -> list[Endpoint]:
    """Decide O1a: an image that is read better is made better, whoever reads it.

    Subject and image are crossed random effects: that some images are easy, or some
    subjects good, is no slope. Judge CLIP of stage 2 on the accuracy of c, given that
    of z, and PCC on that of z, given that of c.
    """
    return [
        Endpoint(
            f"stage 2: {SHORT[metric]} on the accuracy of {feature}",
            "score per unit of r",
            _slopes(evidence, metric)[feature],
        )
        for feature, metric in _STANDS_FOR.items()
    ]


def image_slopes(
    evidence: Evidence, methods: Sequence[str], metrics: Sequence[str]
) -> pd.DataFrame:
    """Return all slopes of scores on the accuracies of c and z, for a table.

    Columns model ("random" or "fixed" effects of subject and image), method, metric,
    feature and those of `summaries.ESTIMATE`; empty where the run lacks them.
    """
    rows = []
    for model in ("random", "fixed"):
        for method in methods:
            for metric in metrics:
                try:
                    found = _slopes(evidence, metric, method, fixed=model == "fixed")
                except NotTestableError:
                    continue
                rows += [
                    (model, method_words(method), metric, feature, *astuple(one))
                    for feature, one in found.items()
                ]
    columns = ["model", "method", "metric", "feature", *ESTIMATE]
    return pd.DataFrame(rows, columns=columns)


# --- O2 to O4, O6: is it read, or guessed? --------------------------------------------


def beyond_category(evidence: Evidence) -> list[Endpoint]:
    """Decide O2: what is read goes beyond the kind of thing and of place.

    Stage 1 is identified among images of its own cluster of categories more often than
    half of the time, and has a higher PCC than images made from the true category
    alone, and from the true setting alone.
    """
    endpoints = [_above_half(evidence, "leakage", "stage1", "two_way_within")]
    for reference in ("category_only", "setting_only"):
        rule = above(reference, ["pcc"], method="stage1", source="leakage")
        endpoints += rule(evidence)
    return endpoints


def held_out(evidence: Evidence) -> list[Endpoint]:
    """Decide O3: categories that trained no decoder are read above chance.

    Without the image's cluster of categories in training: decoded c is more like the
    mean c of its cluster than like that of another, and stage 1's image is identified
    among images of other clusters and of its own, each more often than half of the
    time.
    """
    shares = "c_beats_clusters", "two_way_across", "two_way_within"
    return [_above_half(evidence, "leakage", "heldout", share) for share in shares]


def in_order(evidence: Evidence) -> list[Endpoint]:
    """Decide O6b: how fast a clip may be for its frames to be put in order.

    By lags and a temporal prior, more than three in four pairs of frames of 4 s are in
    the right order; of frames of a quarter of a second, eight in a volume, as many as
    by guessing, within a tenth.
    """
    slow, fast = (
        _above_half(evidence, "video", "lags_prior", f"frame_order_{ms}")
        for ms in (4000, 250)
    )
    return [replace(slow, above=_SLOW), replace(fast, above=-_FAST, below=_FAST)]


def _above_half(evidence: Evidence, source: str, method: str, metric: str) -> Endpoint:
    """Return the share of comparisons won, minus a half."""
    words, wide = _SHARES.get(metric) or SHORT[metric], pd.DataFrame()
    if not evidence.table(source).empty:
        wide = evidence.matrices(source).matrix(method, metric) - 0.5
    why = f"no {words} of {method_words(method)}: {_LACKS[source]}"
    name = f"{method_words(method)}, {words}"
    return evidence.mean(wide, name, "share over .5", why)
