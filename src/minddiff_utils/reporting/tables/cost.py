"""Table T5: what an image costs under each method, and each notebook's time.

Place in the flow: layer 9, part of `tables`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.resampling import Resampling, bootstrap_interval
from minddiff_utils.reporting.figures.canvas import check_table

__all__ = [
    "cost_table",
]

_COUNTS = {
    "n_unet_evaluations": "passes of one sample through the U-Net, per image",
    "n_unet_gradients": "of these, passes with a gradient, per image",
}
_SECONDS = "wall time of one run of the notebook"


def cost_table(
    costs: pd.DataFrame,
    seconds: pd.DataFrame,
    *,
    resampling: Resampling,
    reference: Mapping[str, float],
) -> pd.DataFrame:
    """Return table T5: what an image costs under each method, and each notebook's time.

    Parameters
    ----------
    costs : DataFrame
        Columns subject, method, nsd_id, n_unet_evaluations, n_unet_gradients; the rows
        of stage1.csv and stage2.csv. NaN gradients, as stage 1 has no such column,
        count as none: it forms no gradient.
    seconds : DataFrame
        Columns notebook, seconds; one row per run (subject, shard). It may be empty.
    resampling : Resampling
        Draws, confidence and streams of the intervals over images, or runs.
    reference : mapping of float
        What an image costs under Algorithm 1, by count: costs are compared with it.

    Returns
    -------
    DataFrame
        Columns method (or notebook), metric, value (mean), ci_low, ci_high, n (images,
        or runs), total, relative (to the reference's; NaN where that is 0), floor and
        ceiling (NaN: a cost has none), status, settings.

    Raises
    ------
    DataError
        A column is missing, there are no costs, or an image is there twice.
    """
    image = ["subject", "method", "nsd_id"]
    check_table(costs, (*image, *_COUNTS), "The table of costs")
    if costs.duplicated(image).any():
        raise DataError("An image of one method is there twice: pass each cost once.")
    filled = costs.assign(n_unet_gradients=costs["n_unet_gradients"].fillna(0))
    rows = []
    for metric, words in _COUNTS.items():
        wide = filled.pivot(
            index=["subject", "nsd_id"], columns="method", values=metric
        )
        for method in dict.fromkeys(costs["method"]):
            own = wide[method].dropna().to_numpy()
            row = _cost_row(str(method), metric, own, resampling)
            if reference[metric] > 0:
                row["relative"] = row["value"] / reference[metric]
            rows.append(row | {"status": "", "settings": words})
    if len(seconds):
        check_table(seconds, ("notebook", "seconds"), "The table of times")
        for notebook, block in seconds.groupby("notebook", sort=True):
            own = block["seconds"].to_numpy(dtype=np.float64)
            row = _cost_row(str(notebook), "seconds", own, resampling)
            rows.append(row | {"status": "", "settings": _SECONDS})
    return pd.DataFrame(rows)


def _cost_row(
    name: str, metric: str, values: npt.NDArray[Any], resampling: Resampling
) -> dict[str, Any]:
    found = bootstrap_interval(
        values,
        rng=resampling.stream("cost", name, metric),
        n_bootstrap=resampling.n_bootstrap,
        confidence=resampling.confidence,
    )
    bounds = {"value": found.value, "ci_low": found.low, "ci_high": found.high}
    whole = {"n": found.n, "total": float(values.sum()), "relative": np.nan}
    nothing = {"floor": np.nan, "ceiling": np.nan}
    return {"method": name, "metric": metric, **bounds, **whole, **nothing}
