"""All subjects together: scores of every compared method, and the claims' evidence.

Reads what notebooks 01 to 04 wrote for each subject and hands it to `metrics`,
`statistics` and `claims`, which know nothing of files. Place in the flow: layer 9,
notebooks 05 and 06.

`pictures` reads images, `stock` says which subjects are finished and gathers their
tables, `scoring` scores every method, `evidence` is what the claims are decided on.
"""

from minddiff_utils.evaluation.evidence import (
    category_floor,
    floor_table,
    make_evidence,
    with_settings,
)
from minddiff_utils.evaluation.pictures import (
    Stimuli,
    gallery,
    read_stimuli,
    subject_galleries,
    wanted_ids,
)
from minddiff_utils.evaluation.scoring import (
    Models,
    compare_methods,
    contrast_table,
    embed_with,
    load_models,
    resampling,
    score_subject,
    score_subjects,
)
from minddiff_utils.evaluation.stock import (
    Stock,
    gather,
    gather_costs,
    notebook_seconds,
    take_stock,
)

__all__ = [
    "Models",
    "Stimuli",
    "Stock",
    "category_floor",
    "compare_methods",
    "contrast_table",
    "embed_with",
    "floor_table",
    "gallery",
    "gather",
    "gather_costs",
    "load_models",
    "make_evidence",
    "notebook_seconds",
    "read_stimuli",
    "resampling",
    "score_subject",
    "score_subjects",
    "subject_galleries",
    "take_stock",
    "wanted_ids",
    "with_settings",
]
