from .check import check_folder as check_folder
from .nsd.data_set import Nsd as Nsd, check_trials as check_trials
from .nsd.experiment import Design as Design
from .nsd.reader import NsdTree as NsdTree
from .opening import open_data_set as open_data_set
from .protocol import DataSet as DataSet, Trials as Trials, Units as Units
