from .cost import predict as predict, workloads as workloads
from .cost_report import plan_lines as plan_lines
from .rehearsal import rehearse as rehearse
from .stage2_arms import ENGINES as ENGINES
from .stage2_engines import (
    REFERENCES as REFERENCES,
    StudyResult as StudyResult,
    conclusions as conclusions,
    read_study as read_study,
    run_study as run_study,
)
