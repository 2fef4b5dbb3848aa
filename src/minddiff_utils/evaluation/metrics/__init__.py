"""Named scores of reconstructed images: pure functions, one definition per name.

Every variant that published code confuses has a name of its own here. `pixels` compares
images, `embeddings` what networks make of them, `definitions` says what each metric is
and who publishes it, `conditions` scores all images of a subject. Networks come in as
embeddings, so that the judge knows nothing of the method it judges: `embedders` lists
them, `architectures` builds them, `networks` makes images into features. Not here:
intervals and tests.
"""

from minddiff_utils.evaluation.metrics.definitions import (
    METRICS,
    Metric,
    Rule,
    definitions,
    metrics_of,
    with_settings,
)
from minddiff_utils.evaluation.metrics.embeddings import (
    category_only_two_way,
    cosine_similarity,
    embedding_distance,
    frechet_distance,
    two_way_by_reconstruction,
    two_way_by_truth,
)
from minddiff_utils.evaluation.metrics.pixels import (
    pcc_425,
    pixel_correlation,
    ssim_2d,
    ssim_2d_425,
    ssim_percolumn_legacy,
    ssim_percolumn_legacy_425,
)
from minddiff_utils.evaluation.metrics.scores import (
    ConditionImages,
    SubjectScores,
    frechet_table,
    score_condition,
    score_methods,
    shuffled_floor,
)

__all__ = [
    "METRICS",
    "ConditionImages",
    "Metric",
    "Rule",
    "SubjectScores",
    "category_only_two_way",
    "cosine_similarity",
    "definitions",
    "embedding_distance",
    "frechet_distance",
    "frechet_table",
    "metrics_of",
    "pcc_425",
    "pixel_correlation",
    "score_condition",
    "score_methods",
    "shuffled_floor",
    "ssim_2d",
    "ssim_2d_425",
    "ssim_percolumn_legacy",
    "ssim_percolumn_legacy_425",
    "two_way_by_reconstruction",
    "two_way_by_truth",
    "with_settings",
]
