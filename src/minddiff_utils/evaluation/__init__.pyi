from .images import category_floor as category_floor, gallery as gallery
from .subject_tables import (
    check_completeness as check_completeness,
    gather as gather,
    gather_costs as gather_costs,
    notebook_seconds as notebook_seconds,
)
from .summaries import (
    compare_methods as compare_methods,
    contrast_table as contrast_table,
    floor_table as floor_table,
)
