"""Table T4: decoding accuracy by feature and area; T5: what an image costs."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.areas import AREAS, FEW_VOXELS, high_over_low
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.inference import t_interval
from minddiff_utils.reporting.figures.canvas import INTERVAL, check_table
from minddiff_utils.reporting.wording import feature_order

__all__ = [
    "AREA_SETS",
    "accuracy_table",
    "cost_table",
    "high_over_low",
    "weights_by_area",
]

#: The rows of T4 for each feature.
AREA_SETS = ("all", "all_targets", "LVC", "HVC", *AREAS)
#: Columns of notebook 02's accuracies -> those of the tables.
_NAMES = {
    **{"r_mean": "value", "r_null_mean": "floor", "r_ceiling": "ceiling"},
    **{"n_images": "n", "n_targets": "n_targets", "p_permutation": "p_permutation"},
}
_COUNTS = {
    "n_unet_evaluations": "passes of one sample through the U-Net, per image",
    "n_unet_gradients": "of these, passes with a gradient, per image",
}


def accuracy_table(
    accuracy: pd.DataFrame, *, subjects: Sequence[int], confidence: float
) -> pd.DataFrame:
    """Return table T4: decoding accuracy by feature and area, with floor and ceiling.

    `accuracy`: notebook 02's, of all subjects; a column missing, a row twice, or no row
    is a DataError. A row for each of `subjects` (and "all"), feature and one of
    `AREA_SETS` that was decoded in any subject, "missing" for a subject in whom it was
    not: value (signed r, mean over targets), ci_low and ci_high (of "all" alone:
    Student's t over subjects, as so few cannot be resampled), n (test images; subjects
    for "all"), n_targets, floor (mean r with permuted images), ceiling (mean noise
    ceiling), p_permutation (for "all" the largest), status, settings.
    """
    key = ["feature", "area_set", "subject"]
    check_table(accuracy, (*key, *_NAMES), "The table of accuracies")
    names = [*map(str, subjects)]
    table = accuracy[[*key, *_NAMES]].rename(columns=_NAMES)
    table = table.assign(subject=table["subject"].astype(str), status="")
    if table.duplicated(key).any():
        raise DataError(
            "A feature is scored twice for one subject and area set: pass each once."
        )
    pooled = _over_subjects(table[table["subject"].isin(names)], len(names), confidence)
    features = feature_order(table["feature"].tolist())
    asked = set(zip(table["feature"], table["area_set"], strict=True))
    grid = product(features, AREA_SETS, [*names, "all"])
    every = pd.MultiIndex.from_tuples([r for r in grid if r[:2] in asked], names=key)
    rows = pd.concat([table, pooled]).set_index(key).reindex(every).reset_index()
    columns = ["subject", *key[:2], *INTERVAL, "n", "n_targets", "floor", "ceiling"]
    return rows[[*columns, "p_permutation", "status"]].assign(
        n=rows["n"].fillna(0).astype(int),
        n_targets=rows["n_targets"].astype("Int64"),
        status=rows["status"].fillna("missing"),
        settings="signed Pearson r over test images, mean over the targets in use; "
        "all_targets and sets of areas: over every target",
    )


def _over_subjects(
    table: pd.DataFrame, n_subjects: int, confidence: float
) -> pd.DataFrame:
    """Return the rows "all": means over subjects with Student's interval."""
    rows = []
    for (feature, area_set), block in table.groupby(["feature", "area_set"]):
        r, n = block["value"].to_numpy(), len(block)  # an unknown subject is no zero
        low, high, _ = t_interval(r, confidence)
        row: dict[Any, Any] = {"feature": feature, "area_set": area_set, "n": n}
        row |= {"subject": "all", "value": r.mean(), "ci_low": low, "ci_high": high}
        row |= block[["n_targets", "p_permutation"]].max().to_dict()
        row |= block[["floor", "ceiling"]].mean().to_dict()
        status = f"{n} of {n_subjects} subjects" if n < n_subjects else ""
        rows.append(row | {"status": status})
    return pd.DataFrame(rows)


def weights_by_area(
    voxel_weight: Mapping[str, npt.NDArray[np.floating]],
    voxel_pattern: Mapping[str, npt.NDArray[np.floating]],
    roi: npt.NDArray[np.integer],
    roi_names: Sequence[str],
) -> pd.DataFrame:
    """Return decoder weight and pattern of each area, means over its voxels.

    Weights say which voxels the decoder makes use of, also to cancel noise; patterns
    in which voxels that which is decoded shows. Neither is where the brain represents
    it (`LinearDecoder.voxel_pattern`).

    `voxel_weight`, `voxel_pattern`: feature -> mean |w|, and mean |r| with the decoded
    target, over targets, float (n_voxels,); `roi`, (n_voxels,): index into `roi_names`.
    Columns feature, area, weight, n_voxels, pattern, few_voxels (fewer than 20); an
    area without voxels has weight and pattern 0.
    """
    rows = []
    for feature, (index, area) in product(voxel_weight, enumerate(roi_names)):
        inside = np.asarray(roi) == index
        both, n = (voxel_weight[feature], voxel_pattern[feature]), int(inside.sum())
        weight, pattern = (float(v[inside].mean()) if n else 0.0 for v in both)
        rows.append((feature, str(area), weight, n, pattern, n < FEW_VOXELS))
    columns = ["feature", "area", "weight", "n_voxels", "pattern", "few_voxels"]
    return pd.DataFrame(rows, columns=columns)


# --- T5 -------------------------------------------------------------------------------


def cost_table(
    costs: pd.DataFrame, *, confidence: float = 0.95, reference: Mapping[str, float]
) -> pd.DataFrame:
    """Return table T5: what an image costs under each method.

    `costs`: the rows of stage1.csv and stage2.csv; NaN gradients, as stage 1 has no
    such column, count as none; an image twice is a DataError. `reference`: what an
    image costs under Algorithm 1, by count. By method and metric: value (mean), ci_low,
    ci_high (over images), n (images), total, relative (to the reference's; NaN where
    that is 0), floor and ceiling (NaN: a cost has none), status, settings.
    """
    image = ["subject", "method", "nsd_id"]
    check_table(costs, (*image, *_COUNTS), "The table of costs")
    if costs.duplicated(image).any():
        raise DataError("An image of one method is there twice: pass each cost once.")
    filled = costs.fillna({"n_unet_gradients": 0})
    filled = filled.sort_values(["subject", "nsd_id"], kind="stable")
    rows: list[dict[str, Any]] = []
    for metric, method in product(_COUNTS, dict.fromkeys(costs["method"])):
        unit = reference.get(metric, 0)
        own = filled.loc[filled["method"] == method, metric].dropna()
        values = own.to_numpy(np.float64)
        mean, (low, high, _) = float(values.mean()), t_interval(values, confidence)
        row = {"method": str(method), "metric": metric, "value": mean}
        row |= {"ci_low": low, "ci_high": high, "n": len(values)}
        row |= {"total": values.sum(), "relative": mean / unit if unit else np.nan}
        rows.append(row | {"floor": np.nan, "ceiling": np.nan, "status": ""})
    return pd.DataFrame(rows).assign(settings=lambda t: t["metric"].map(_COUNTS))
