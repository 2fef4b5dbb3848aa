from .galleries import (
    ablation_rows,
    method_panels,
    scored_gallery,
    select_for_gallery,
    subject_gallery,
    system_rows,
)
from .report_contents import build_report, conclusions
from .surface_maps import cortical_maps

__all__ = [
    "ablation_rows",
    "build_report",
    "conclusions",
    "cortical_maps",
    "method_panels",
    "scored_gallery",
    "select_for_gallery",
    "subject_gallery",
    "system_rows",
]
