from .decoding import (
    fig_accuracy as fig_accuracy,
    fig_accuracy_histograms as fig_accuracy_histograms,
    fig_calibration as fig_calibration,
    fig_decoders as fig_decoders,
    fig_holdout as fig_holdout,
    fig_k_selection as fig_k_selection,
    fig_predictions as fig_predictions,
    fig_weights_by_area as fig_weights_by_area,
)
from .evaluation import (
    fig_ablation as fig_ablation,
    fig_comparison as fig_comparison,
    fig_differences as fig_differences,
    fig_images as fig_images,
    fig_k_quality as fig_k_quality,
    fig_naming as fig_naming,
    fig_subjects as fig_subjects,
)
from .maps import (
    Surface as Surface,
    fig_flat_maps as fig_flat_maps,
    fig_inflated as fig_inflated,
)
from .preparation import (
    fig_ncsnr_recovery as fig_ncsnr_recovery,
    fig_noise as fig_noise,
    fig_reliability as fig_reliability,
    fig_repeats as fig_repeats,
    fig_roi_counts as fig_roi_counts,
    fig_scenes as fig_scenes,
)
from .reconstruction import (
    MethodPanels as MethodPanels,
    fig_failures as fig_failures,
    fig_gallery as fig_gallery,
    fig_losses as fig_losses,
    fig_losses_of_truth as fig_losses_of_truth,
    fig_method as fig_method,
    fig_trajectory as fig_trajectory,
)
from .studies import (
    fig_factors as fig_factors,
    fig_leakage as fig_leakage,
    fig_no_worse as fig_no_worse,
    fig_pareto as fig_pareto,
    fig_video as fig_video,
)
