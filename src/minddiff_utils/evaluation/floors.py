"""What reconstructions score that know nothing of the image."""

import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.conditions import floors
from minddiff_utils.core.run import Run
from minddiff_utils.evaluation.images import rows_of, wanted_ids
from minddiff_utils.evaluation.metrics import METRICS
from minddiff_utils.evaluation.metrics.embeddings import category_only_two_way
from minddiff_utils.preprocessing import categories_in_captions

__all__ = ["category_floor", "floor_table"]


def category_floor(run: Run, subject: int) -> float:
    """Return the two-way score of a reconstruction that carries the category alone.

    The category of an image is the set of object names in its captions. An artefact is
    missing, or two of them do not belong together: StoreError.
    """
    folder, names = run.tree.derived(subject), ["nsd_id", "captions"]
    stored = store.read_arrays(folder / "stimuli.h5", names)
    rows = rows_of(folder, wanted_ids(run, subject), stored["nsd_id"])
    return category_only_two_way(categories_in_captions(stored["captions"][rows]))


_INTERVAL = ("value", "ci_low", "ci_high", "n_images", "n_subjects")


def floor_table(comparison: pd.DataFrame, category_floor: float) -> pd.DataFrame:
    """Return what each metric gives to reconstructions that know nothing.

    `comparison`: from `compare_methods`, whose rows over all subjects are read;
    `category_floor`: for two-way identification. Columns metric, floor (what it is),
    value, ci_low, ci_high, n_images, n_subjects.
    """
    pooled = comparison[comparison["subject"] == "all"]
    rows = []
    for metric, block in pooled.groupby("metric", sort=False):
        own = {row["method"]: row for row in block.to_dict("records")}
        if "stage1" in own:
            counts = {k: own["stage1"][k] for k in ("n_images", "n_subjects")}
            pairs = {"value": own["stage1"]["floor"], **counts}
            words = "stage 1 scored against other images"
            rows.append({"metric": metric, "floor": words, **pairs})
        for method, words in floors().items():
            numbers = {k: own[method][k] for k in _INTERVAL} if method in own else None
            if numbers:
                rows.append({"metric": metric, "floor": words, **numbers})
        if METRICS[str(metric)].rule.startswith("two_way"):
            words = "the right category and nothing else (expectation)"
            rows.append({"metric": metric, "floor": words, "value": category_floor})
    table = pd.DataFrame(rows, columns=["metric", "floor", *_INTERVAL])
    return table.astype({"n_images": "Int64", "n_subjects": "Int64"})
