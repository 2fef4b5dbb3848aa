from .ablation import (
    FEATURES as FEATURES,
    ablation_table as ablation_table,
    k_differences as k_differences,
    ladders as ladders,
    main_effects as main_effects,
    quality_by_k as quality_by_k,
)
from .decoding import (
    AREA_SETS as AREA_SETS,
    accuracy_table as accuracy_table,
    cost_table as cost_table,
    high_over_low as high_over_low,
    weights_by_area as weights_by_area,
)
from .rows import (
    bounded_cell as bounded_cell,
    comparison_table as comparison_table,
    count_cell as count_cell,
    for_print as for_print,
    interval_cell as interval_cell,
    shared_images as shared_images,
    with_aliases as with_aliases,
)
