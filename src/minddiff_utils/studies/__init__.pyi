from .cost import predict, workloads
from .cost_report import plan_lines
from .nsd_rehearsal import rehearse
from .stage2_arms import ENGINES
from .stage2_engines import (
    REFERENCES,
    StudyResult,
    conclusions,
    read_study,
    run_study,
)

__all__ = [
    "ENGINES",
    "REFERENCES",
    "StudyResult",
    "conclusions",
    "plan_lines",
    "predict",
    "read_study",
    "rehearse",
    "run_study",
    "workloads",
]
