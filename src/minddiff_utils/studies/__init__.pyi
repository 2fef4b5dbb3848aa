from .stage2_arms import ENGINES as ENGINES
from .stage2_engines import (
    REFERENCES as REFERENCES,
    conclusions as conclusions,
    read_study as read_study,
)
