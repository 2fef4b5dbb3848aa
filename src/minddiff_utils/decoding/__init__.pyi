from .banded_ridge import BandedRidge
from .cross_validation import contiguous_folds, cross_validate
from .feature_selection import top_percent
from .fitting import VoxelData, fit, score
from .ridge import RidgeGCV
from .voxel_selection import VoxelSelectedRidge

__all__ = [
    "BandedRidge",
    "RidgeGCV",
    "VoxelData",
    "VoxelSelectedRidge",
    "contiguous_folds",
    "cross_validate",
    "fit",
    "score",
    "top_percent",
]
