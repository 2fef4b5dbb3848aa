from .decoding import (
    fig_accuracy,
    fig_accuracy_histograms,
    fig_calibration,
    fig_decoders,
    fig_holdout,
    fig_predictions,
    fig_weights_by_area,
)
from .evaluation import (
    fig_ablation,
    fig_comparison,
    fig_differences,
    fig_images,
    fig_naming,
    fig_subjects,
)
from .failures import (
    fig_failures,
)
from .leakage import (
    fig_leakage,
)
from .maps import (
    Surface,
    fig_flat_maps,
    fig_inflated,
)
from .preparation import (
    fig_ncsnr_recovery,
    fig_noise,
    fig_reliability,
    fig_repeats,
    fig_roi_counts,
    fig_scenes,
)
from .reconstruction import (
    MethodPanels,
    fig_gallery,
    fig_losses,
    fig_losses_of_truth,
    fig_method,
    fig_trajectory,
)
from .selection import (
    fig_k_quality,
    fig_k_selection,
)
from .study import (
    fig_no_worse,
    fig_pareto,
)

__all__ = [
    "MethodPanels",
    "Surface",
    "fig_ablation",
    "fig_accuracy",
    "fig_accuracy_histograms",
    "fig_calibration",
    "fig_comparison",
    "fig_decoders",
    "fig_differences",
    "fig_failures",
    "fig_flat_maps",
    "fig_gallery",
    "fig_holdout",
    "fig_images",
    "fig_inflated",
    "fig_k_quality",
    "fig_k_selection",
    "fig_leakage",
    "fig_losses",
    "fig_losses_of_truth",
    "fig_method",
    "fig_naming",
    "fig_ncsnr_recovery",
    "fig_no_worse",
    "fig_noise",
    "fig_pareto",
    "fig_predictions",
    "fig_reliability",
    "fig_repeats",
    "fig_roi_counts",
    "fig_scenes",
    "fig_subjects",
    "fig_trajectory",
    "fig_weights_by_area",
]
