from .check import check_folder
from .nsd.experiment import Design, Trials, to_percent
from .nsd.reader import NsdTree, check_trials

__all__ = [
    "Design",
    "NsdTree",
    "Trials",
    "check_folder",
    "check_trials",
    "to_percent",
]
