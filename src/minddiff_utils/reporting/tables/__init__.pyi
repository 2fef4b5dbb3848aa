from .ablation import (
    FEATURES,
    ablation_table,
    k_differences,
    ladders,
    main_effects,
    quality_by_k,
)
from .decoding import (
    AREA_SETS,
    accuracy_table,
    cost_table,
    high_over_low,
    weights_by_area,
)
from .printing import (
    bounded_cell,
    count_cell,
    for_print,
    interval_cell,
)
from .rows import (
    comparison_table,
    shared_images,
    with_aliases,
)

__all__ = [
    "AREA_SETS",
    "FEATURES",
    "ablation_table",
    "accuracy_table",
    "bounded_cell",
    "comparison_table",
    "cost_table",
    "count_cell",
    "for_print",
    "high_over_low",
    "interval_cell",
    "k_differences",
    "ladders",
    "main_effects",
    "quality_by_k",
    "shared_images",
    "weights_by_area",
    "with_aliases",
]
