"""Which penalties were chosen, and whether the grid was wide enough for them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from minddiff_utils.decoding import DenseRidge
from minddiff_utils.decoding.readout import FeatureReadout

__all__ = ["penalty_table"]


def penalty_table(readouts: Mapping[str, FeatureReadout]) -> pd.DataFrame:
    """Return the penalties of each feature's decoder over its targets that vary.

    Many targets at an edge of the grid would have taken a penalty beyond it. At the
    highest one there is often nothing to decode: the prediction is about the mean.

    Returns
    -------
    DataFrame
        Columns feature, n_targets, n_alphas (in the grid), median, and the share of
        targets at_lowest and at_highest; shares are NaN where one penalty is given.
    """
    rows = []
    for name, readout in readouts.items():
        decoder, varies = readout.decoder, readout.scaling.varies
        row: dict[str, object] = {"feature": name, "n_targets": int(varies.sum())}
        if isinstance(decoder, DenseRidge):
            chosen, grid = decoder.alpha_[varies], decoder.alphas_
            row |= {"n_alphas": len(grid), "median": float(np.median(chosen))}
            row["at_lowest"] = float((chosen == grid.min()).mean())
            row["at_highest"] = float((chosen == grid.max()).mean())
        else:
            row |= {"n_alphas": 1, "median": float(decoder.alpha)}
            row |= {"at_lowest": np.nan, "at_highest": np.nan}
        rows.append(row)
    return pd.DataFrame(rows)
