"""The visual areas of the paper, in its order, and the ratio of high to low ones."""

from collections.abc import Sequence

import pandas as pd

__all__ = ["AREAS", "FEW_VOXELS", "HVC", "LVC", "high_over_low"]

#: MindDiffuser's 11 visual areas, from early to late (PAPER claim C9).
AREAS = ("V1", "V2", "V3", "V3ab", "hV4", "VO", "PHC", "LO", "MT", "MST", "IPS")
#: Low- and high-level visual cortex.
LVC = ("V1", "V2", "V3", "V3ab", "hV4")
HVC = ("VO", "PHC", "LO", "MT", "MST", "IPS")
#: Areas with fewer voxels decide nothing: their mean is that of single voxels.
FEW_VOXELS = 20


def high_over_low(
    table: pd.DataFrame, column: str, *, by: Sequence[str] = ("feature",)
) -> pd.Series:
    """Return the mean over voxels of HVC over that of LVC.

    Every voxel counts once, areas with fewer than `FEW_VOXELS` not at all.

    Parameters
    ----------
    table : DataFrame
        Columns area, n_voxels, those of `by` and `column`, a mean over the area.
    column : str
        Such as weight or pattern.
    by : sequence of str
        What has a ratio of its own.
    """
    kept = table[table["n_voxels"] >= FEW_VOXELS]
    kept = kept.assign(total=kept[column] * kept["n_voxels"])

    def mean_of(areas: Sequence[str]) -> pd.Series:
        inside = kept[kept["area"].isin(areas)]
        sums = inside.groupby(list(by), sort=False)[["total", "n_voxels"]].sum()
        return sums["total"] / sums["n_voxels"]

    return mean_of(HVC) / mean_of(LVC)
