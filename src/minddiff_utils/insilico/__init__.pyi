from .ground_truth import (
    ceiling_table as ceiling_table,
    layout_table as layout_table,
    ncsnr_recovery as ncsnr_recovery,
    planted_autocorrelation as planted_autocorrelation,
    read_truth as read_truth,
    subject_table as subject_table,
)
from .nsd_writer import simulate as simulate
from .true_brain import read_brain as read_brain
from .voxel_model import area_table as area_table
