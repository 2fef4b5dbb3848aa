from .banded_ridge import BandedRidge as BandedRidge
from .cross_validation import (
    contiguous_folds as contiguous_folds,
    cross_validate as cross_validate,
)
from .feature_selection import top_percent as top_percent
from .fitting import VoxelData as VoxelData, fit as fit, score as score
from .ridge import RidgeGCV as RidgeGCV
from .voxel_selection import VoxelSelectedRidge as VoxelSelectedRidge
