from .check import check_folder
from .leaks import check_leaks, leak_report
from .nsd.experiment import Design, Trials, to_percent
from .nsd.reader import NsdTree, check_trials

__all__ = [
    "Design",
    "NsdTree",
    "Trials",
    "check_folder",
    "check_leaks",
    "check_trials",
    "leak_report",
    "to_percent",
]
