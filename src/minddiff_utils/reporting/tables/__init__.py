"""The paper's tables T1 to T5, and the rules by which galleries pick their images.

Tables in, tables out. Long tables hold a number, its interval, n, floor and ceiling in
each row, and say in `status` what a number does not cover; `for_print` sets them in
columns for readers. Nothing is dropped in silence: a subject without scores is a row
"missing", a method that was not run a row with the reason. Not here: files, and how a
score is computed (`metrics`). Place in the flow: layer 9; notebooks 05 and 06 call it.

`rows` holds what all tables share; `comparison` (T1, T3), `ablation` (T2), `decoding`
(T4) and `cost` (T5) are the tables; `printing` sets them in columns; `picks` are the
galleries' rules.
"""

from minddiff_utils.reporting.tables.ablation import (
    FEATURES,
    ablation_table,
    ladders,
    main_effects,
    quality_by_k,
)
from minddiff_utils.reporting.tables.comparison import comparison_table, subjects_table
from minddiff_utils.reporting.tables.cost import cost_table
from minddiff_utils.reporting.tables.decoding import (
    AREA_SETS,
    accuracy_table,
    weights_by_area,
)
from minddiff_utils.reporting.tables.picks import (
    Picks,
    failure_rule,
    failure_table,
    pick_images,
)
from minddiff_utils.reporting.tables.printing import (
    bounded_cell,
    count_cell,
    for_print,
    interval_cell,
)
from minddiff_utils.reporting.tables.rows import shared_images, with_aliases

__all__ = [
    "AREA_SETS",
    "FEATURES",
    "Picks",
    "ablation_table",
    "accuracy_table",
    "bounded_cell",
    "comparison_table",
    "cost_table",
    "count_cell",
    "failure_rule",
    "failure_table",
    "for_print",
    "interval_cell",
    "ladders",
    "main_effects",
    "pick_images",
    "quality_by_k",
    "shared_images",
    "subjects_table",
    "weights_by_area",
    "with_aliases",
]
