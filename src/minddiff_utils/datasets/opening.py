"""The data set of a name, in a folder."""

from pathlib import Path

from minddiff_utils.core.errors import check_choice
from minddiff_utils.datasets.nsd.data_set import Nsd
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.datasets.protocol import DataSet

__all__ = ["open_data_set"]


def open_data_set(name: str, root: Path, betas_version: str) -> DataSet:
    """Return the data set `name` (`Profile.data_set`), whose files lie below `root`.

    `betas_version` is NSD's folder of betas, which other data sets have not.

    Raises
    ------
    ConfigError
        There is no such data set.
    """
    check_choice(name, ("nsd",), "data_set")
    return Nsd(NsdTree(root, betas_version))
