"""Named scores of reconstructed images: pure functions, one definition per name.

Every variant that published code confuses has a name of its own here. `registry` is the
one table of metrics and networks, `pixels` compares images, `embeddings` what networks
make of them, `networks` makes images into features, `scores` scores all images of a
subject. Networks come in as embeddings, so that the judge knows nothing of the method
it judges. Not here: intervals and tests.
"""

from minddiff_utils.evaluation.metrics.registry import (
    METRICS,
    definitions,
    with_settings,
)
from minddiff_utils.evaluation.metrics.scores import (
    ConditionImages,
    Seen,
    SubjectScores,
    frechet_table,
    score_methods,
)

__all__ = [
    "METRICS",
    "ConditionImages",
    "Seen",
    "SubjectScores",
    "definitions",
    "frechet_table",
    "score_methods",
    "with_settings",
]
