from .ground_truth import (
    ceiling_table,
    layout_table,
    ncsnr_recovery,
    planted_autocorrelation,
    read_truth,
    subject_table,
)
from .nsd_writer import simulate
from .true_brain import read_brain
from .voxel_model import area_table

__all__ = [
    "area_table",
    "ceiling_table",
    "layout_table",
    "ncsnr_recovery",
    "planted_autocorrelation",
    "read_brain",
    "read_truth",
    "simulate",
    "subject_table",
]
