from .completeness import check_completeness as check_completeness
from .floors import category_floor as category_floor, floor_table as floor_table
from .images import gallery as gallery
from .subject_tables import (
    gather as gather,
    gather_costs as gather_costs,
    notebook_seconds as notebook_seconds,
)
from .summaries import (
    compare_methods as compare_methods,
    contrast_table as contrast_table,
)
