"""The data set of a name, in a folder."""

from pathlib import Path

from minddiff_utils.core.errors import check_choice
from minddiff_utils.core.profile_values import SPLITS
from minddiff_utils.datasets.algonauts.data_set import Algonauts
from minddiff_utils.datasets.laion_fmri.data_set import LaionFmri
from minddiff_utils.datasets.mindeye2.data_set import MindEye2
from minddiff_utils.datasets.nsd.data_set import Nsd
from minddiff_utils.datasets.nsd.layout import BETAS_VERSIONS
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.datasets.protocol import DataSet

__all__ = ["open_data_set"]


def open_data_set(
    name: str, root: Path, betas_version: str, split: str | None = None
) -> DataSet:
    """Return the data set `name` (`Profile.data_set`), whose files lie below `root`.

    `betas_version` is NSD's folder of betas; Algonauts 2023 was made from one of them.
    `split` names one of LAION-fMRI's.

    Raises
    ------
    ConfigError
        There is no such data set, or it has no such betas or split.
    """
    check_choice(name, ("nsd", "algonauts", "laion_fmri", "mindeye2"), "data_set")
    if name == "laion_fmri":
        check_choice(split, SPLITS, "data.split")
        return LaionFmri(root, str(split))
    tree = NsdTree(root, betas_version)
    if name == "nsd":
        return Nsd(tree)
    if name == "mindeye2":
        return MindEye2(tree)
    check_choice(betas_version, BETAS_VERSIONS[:1], "data.betas_version")
    return Algonauts(tree)
