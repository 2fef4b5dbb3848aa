"""Table T4: decoding accuracy by feature and area; and the weights of areas.

Place in the flow: layer 9, part of `tables`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures.canvas import check_table, feature_order
from minddiff_utils.reporting.tables.rows import INTERVAL, blank, records

__all__ = [
    "AREA_SETS",
    "accuracy_table",
    "weights_by_area",
]

#: The rows of T4 for each feature.
AREA_SETS = ("all", "LVC", "HVC", *AREAS)


def accuracy_table(
    accuracy: pd.DataFrame, *, subjects: Sequence[int], confidence: float
) -> pd.DataFrame:
    """Return table T4: decoding accuracy by feature and area, with floor and ceiling.

    Parameters
    ----------
    accuracy : DataFrame
        Of all subjects: subject, feature, area_set, r_mean, r_null_mean, r_ceiling,
        p_permutation, n_images, n_targets.
    subjects : sequence of int
        The profile's.
    confidence : float
        Of the intervals in the rows "all": Student's t over subjects, as so few
        subjects cannot be resampled. A subject alone has none.

    Returns
    -------
    DataFrame
        Columns subject (or "all"), feature, area_set, value (signed r, mean over
        targets), ci_low, ci_high, n (test images; subjects for "all"), n_targets,
        floor (mean r with permuted images), ceiling (mean noise ceiling),
        p_permutation (for "all" the largest of the subjects'), status, settings. One
        row for each of `AREA_SETS`, "missing" where nothing was decoded from it.

    Raises
    ------
    DataError
        A column is missing, a row is there twice, or there is no row.
    """
    key = ["subject", "feature", "area_set"]
    numbers = ["r_mean", "r_null_mean", "r_ceiling", "p_permutation"]
    needed = [*key, *numbers, "n_images", "n_targets"]
    check_table(accuracy, needed, "The table of accuracies")
    table = accuracy[needed].assign(subject=accuracy["subject"].astype(str))
    if table.duplicated(key).any():
        raise DataError(
            "A feature is scored twice for one subject and area set: pass each once."
        )
    names = {"r_mean": "value", "r_null_mean": "floor", "r_ceiling": "ceiling"}
    table = table.rename(columns={**names, "n_images": "n"})
    table = table.assign(ci_low=np.nan, ci_high=np.nan, status="")
    rows = {tuple(r[k] for k in key): r for r in records(table)}
    listed = []
    for feature in feature_order(table["feature"].tolist()):
        for area_set in AREA_SETS:
            cells = {str(s): rows.get((str(s), feature, area_set)) for s in subjects}
            known = [cell for cell in cells.values() if cell]
            cells["all"] = _mean_accuracy(known, len(subjects), confidence)
            names = {"feature": feature, "area_set": area_set}
            listed += [
                {**(cell or blank("missing")), **names, "subject": subject}
                for subject, cell in cells.items()
            ]
    columns = [*key, *INTERVAL, "n", "n_targets", "floor", "ceiling"]
    found = pd.DataFrame(listed)[[*columns, "p_permutation", "status"]]
    found["n_targets"] = found["n_targets"].astype("Int64")
    settings = "signed Pearson r over test images, mean over the targets in use"
    return found.assign(settings=settings)


def _mean_accuracy(
    rows: Sequence[Mapping[str, Any]], n_wanted: int, confidence: float
) -> dict[str, Any] | None:
    """Return the row over subjects, None where there is none of them."""
    if not rows:
        return None
    table = pd.DataFrame(rows)
    r, n = table["value"].to_numpy(dtype=np.float64), len(table)
    half = np.nan
    if n > 1:
        t = stats.t.ppf((1 + confidence) / 2, n - 1)
        half = float(t * r.std(ddof=1) / np.sqrt(n))
    mean = float(r.mean())
    return {
        "value": mean,
        "ci_low": mean - half,
        "ci_high": mean + half,
        "n": n,
        "n_targets": int(table["n_targets"].max()),
        "floor": float(table["floor"].mean()),
        "ceiling": float(table["ceiling"].mean()),
        "p_permutation": float(table["p_permutation"].max()),
        "status": "" if n == n_wanted else f"{n} of {n_wanted} subjects",
    }


def weights_by_area(
    voxel_weight: Mapping[str, npt.NDArray[np.floating]],
    roi: npt.NDArray[np.integer],
    roi_names: Sequence[str],
) -> pd.DataFrame:
    """Return the mean absolute decoder weight of each area's voxels.

    Parameters
    ----------
    voxel_weight : mapping of float (n_voxels,)
        Mean |w| over targets, by feature (`c`, `z`, `clip/1`, ...).
    roi : int (n_voxels,)
        Index into `roi_names`.
    roi_names : sequence of str
        Areas.

    Returns
    -------
    DataFrame
        Columns feature, area, weight, n_voxels; an area without voxels has weight 0.
    """
    rows = []
    for feature, weight in voxel_weight.items():
        for index, area in enumerate(roi_names):
            inside = np.asarray(weight)[np.asarray(roi) == index]
            mean = float(inside.mean()) if len(inside) else 0.0
            rows.append((feature, str(area), mean, len(inside)))
    return pd.DataFrame(rows, columns=["feature", "area", "weight", "n_voxels"])
