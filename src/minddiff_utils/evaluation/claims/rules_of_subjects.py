"""The rules of O1: what makes subjects differ, and images of one subject.

Fixed on 2026-11-30, before notebook 07 had run on any test image of the demo; as of
`rules`. CHANGELOG.md says what had been seen by then.
"""

from collections.abc import Sequence
from dataclasses import astuple

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
from minddiff_utils.evaluation.claims.rules import paired_images
from minddiff_utils.evaluation.summaries import ESTIMATE

__all__ = ["follows_accuracy", "image_slopes"]

#: What each feature stands for in O1a.
_STANDS_FOR = {"c": "clip_judge", "z": "pcc"}


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
