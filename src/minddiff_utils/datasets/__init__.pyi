from .check import check_folder
from .nsd.data_set import Nsd
from .nsd.experiment import Design
from .nsd.reader import NsdTree, check_trials
from .opening import open_data_set
from .protocol import DataSet, Trials, Units

__all__ = [
    "DataSet",
    "Design",
    "Nsd",
    "NsdTree",
    "Trials",
    "Units",
    "check_folder",
    "check_trials",
    "open_data_set",
]
