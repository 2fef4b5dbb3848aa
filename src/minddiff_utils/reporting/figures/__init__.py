"""Every figure of the notebooks and the report: one function per figure, drawing only.

Arrays and tables in, a matplotlib `Figure` out. Nothing here computes a result, reads a
model or a file, or touches pyplot's global state. Each figure says what it shows, in
which unit, over how many units and with which interval, and carries the profile's
label. Place in the flow: layer 9, below `cortex` and `report`; modules follow the
notebooks: `preparation` (01), `decoding` and `comparison` (02), `reconstruction` (03,
04), `study` (A3), `evaluation` and `ablation` (05), `overview`, `maps` and
`failures` (06), all drawn on `canvas`.
"""

from minddiff_utils.reporting.figures.ablation import fig_ablation, fig_k_quality
from minddiff_utils.reporting.figures.comparison import fig_decoders, fig_holdout
from minddiff_utils.reporting.figures.decoding import (
    fig_accuracy,
    fig_accuracy_histograms,
    fig_k_selection,
    fig_predictions,
    fig_weights_by_area,
)
from minddiff_utils.reporting.figures.evaluation import (
    fig_comparison,
    fig_paired,
    fig_quality_vs_accuracy,
    fig_subjects,
)
from minddiff_utils.reporting.figures.failures import fig_failures
from minddiff_utils.reporting.figures.maps import (
    FlatMap,
    InflatedMap,
    Mesh,
    fig_flat_maps,
    fig_inflated,
)
from minddiff_utils.reporting.figures.overview import MethodPanels, fig_method
from minddiff_utils.reporting.figures.preparation import (
    fig_ncsnr_recovery,
    fig_reliability,
    fig_repeats,
    fig_roi_counts,
    fig_scenes,
)
from minddiff_utils.reporting.figures.reconstruction import (
    fig_gallery,
    fig_losses,
    fig_trajectory,
)
from minddiff_utils.reporting.figures.study import fig_no_worse, fig_pareto

__all__ = [
    "FlatMap",
    "InflatedMap",
    "Mesh",
    "MethodPanels",
    "fig_ablation",
    "fig_accuracy",
    "fig_accuracy_histograms",
    "fig_comparison",
    "fig_decoders",
    "fig_failures",
    "fig_flat_maps",
    "fig_gallery",
    "fig_holdout",
    "fig_inflated",
    "fig_k_quality",
    "fig_k_selection",
    "fig_losses",
    "fig_method",
    "fig_ncsnr_recovery",
    "fig_no_worse",
    "fig_paired",
    "fig_pareto",
    "fig_predictions",
    "fig_quality_vs_accuracy",
    "fig_reliability",
    "fig_repeats",
    "fig_roi_counts",
    "fig_scenes",
    "fig_subjects",
    "fig_trajectory",
    "fig_weights_by_area",
]
