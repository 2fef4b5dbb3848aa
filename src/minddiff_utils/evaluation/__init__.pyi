from .completeness import check_completeness
from .floors import category_floor, floor_table
from .images import gallery
from .subject_tables import gather, gather_costs, notebook_seconds
from .summaries import (
    compare_methods,
    contrast_table,
)

__all__ = [
    "category_floor",
    "check_completeness",
    "compare_methods",
    "contrast_table",
    "floor_table",
    "gallery",
    "gather",
    "gather_costs",
    "notebook_seconds",
]
