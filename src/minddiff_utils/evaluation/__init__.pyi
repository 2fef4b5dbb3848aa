from .evidence import (
    category_floor,
    floor_table,
    make_evidence,
    with_settings,
)
from .pictures import (
    Stimuli,
    gallery,
    read_stimuli,
    subject_galleries,
    wanted_ids,
)
from .scoring import (
    Models,
    embed_with,
    load_models,
    score_subject,
    score_subjects,
)
from .stock import (
    Stock,
    gather,
    gather_costs,
    notebook_seconds,
    take_stock,
)
from .summaries import (
    compare_methods,
    contrast_table,
    paired_table,
    resampling,
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
    "paired_table",
    "read_stimuli",
    "resampling",
    "score_subject",
    "score_subjects",
    "subject_galleries",
    "take_stock",
    "wanted_ids",
    "with_settings",
]
