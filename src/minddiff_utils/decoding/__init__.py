"""Decoders of image features from voxels, their choice and their scores.

`voxel_selected` is the paper's decoder (FastL2LiR's answer), `kernel_ridge` is ridge on
all voxels (the preset `fast`), by way of `eigenbasis`; `banded` searches the balance of
voxel groups by himalaya; both are kinds of `all_voxels`. `grouped` fits several
features at once. `selection` chooses on training images alone, `scores` tells how well
predictions do, `collapse` along how many directions, `targets` scales targets and reads
them by blocks.
They know nothing of images, models or files. Place in the flow: layer 7.
"""

from minddiff_utils.decoding.banded import BandedRidge
from minddiff_utils.decoding.collapse import (
    category_holdout,
    effective_rank,
    rank_ratio,
    variance_explained,
    variance_spectrum,
)
from minddiff_utils.decoding.eigenbasis import default_alphas
from minddiff_utils.decoding.grouped import fit_features, group_features, part_of
from minddiff_utils.decoding.kernel_ridge import DenseRidge
from minddiff_utils.decoding.scores import (
    Accuracy,
    LinearDecoder,
    feature_correlation,
    noise_ceiling_r,
    permutation_null,
    score_decoder,
)
from minddiff_utils.decoding.selection import (
    choose_by_correlation,
    choose_each_by_correlation,
    choose_k,
    contiguous_folds,
    cross_validated_correlation,
    cross_validated_features,
    cross_validated_predictions,
    identification_accuracy,
    k_curve,
    pooled_correlation,
    select_best,
)
from minddiff_utils.decoding.targets import (
    ScaledTargets,
    SideBySide,
    SomeImages,
    TargetScaling,
    TargetSource,
)
from minddiff_utils.decoding.voxel_selected import VoxelSelectedRidge

__all__ = [
    "Accuracy",
    "BandedRidge",
    "DenseRidge",
    "LinearDecoder",
    "ScaledTargets",
    "SideBySide",
    "SomeImages",
    "TargetScaling",
    "TargetSource",
    "VoxelSelectedRidge",
    "category_holdout",
    "choose_by_correlation",
    "choose_each_by_correlation",
    "choose_k",
    "contiguous_folds",
    "cross_validated_correlation",
    "cross_validated_features",
    "cross_validated_predictions",
    "default_alphas",
    "effective_rank",
    "feature_correlation",
    "fit_features",
    "group_features",
    "identification_accuracy",
    "k_curve",
    "noise_ceiling_r",
    "part_of",
    "permutation_null",
    "pooled_correlation",
    "rank_ratio",
    "score_decoder",
    "select_best",
    "variance_explained",
    "variance_spectrum",
]
