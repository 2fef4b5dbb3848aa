from .galleries import (
    ablation_rows as ablation_rows,
    method_panels as method_panels,
    scored_gallery as scored_gallery,
    select_for_gallery as select_for_gallery,
    subject_gallery as subject_gallery,
    system_rows as system_rows,
)
from .report_contents import build_report as build_report, conclusions as conclusions
from .surface_maps import cortical_maps as cortical_maps
