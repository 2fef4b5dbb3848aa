"""The images that all eight subjects of NSD saw three times: 515 of the shared 1,000.

Results on them stand beside those on 982 or 1,000, as papers choose either.
"""

import numpy as np
import pandas as pd

from minddiff_utils.core.run import Run
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets import NsdTree
from minddiff_utils.datasets.nsd.experiment import Design
from minddiff_utils.datasets.nsd.layout import FACTS, N_SHARED
from minddiff_utils.evaluation.summaries import compare_methods

__all__ = ["compare_on", "shared515"]

#: Sessions to which all eight subjects came: 30.
_SESSIONS_OF_ALL = min(facts.n_sessions for facts in FACTS.values())


def seen_three_times(design: Design, n_sessions: int) -> IntArray:
    """Return the shared images shown three times in the first sessions, ascending.

    The order of images is the same for all subjects; all came to `n_sessions`.
    """
    order = design.of(range(1, n_sessions + 1))
    times = np.bincount(order[order < N_SHARED], minlength=N_SHARED)
    return np.sort(design.images[0, :N_SHARED][times == 3])


def shared515(run: Run) -> IntArray:
    """Return the images that all eight subjects saw three times, by NSD's own design.

    515 of real NSD; in silico, where all sessions are complete, no test image is left
    out; none of a data set with other images than NSD's. The design is missing or
    damaged: DataError.
    """
    if run.profile.data_set == "laion_fmri":
        return np.empty(0, np.int64)
    tree = NsdTree(run.tree.nsd, run.profile.data.betas_version)
    return seen_three_times(tree.design(), _SESSIONS_OF_ALL)


def compare_on(
    nsd_id: IntArray,
    scores: pd.DataFrame,
    comparison: pd.DataFrame,
    *,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the table of all methods on the images `nsd_id`.

    `scores`, `comparison`: of all images, and `compare_methods` of them, which is
    returned where no image is left out; no row where none is among them.
    """
    part = scores[scores["nsd_id"].isin(nsd_id)].reset_index(drop=True)
    if part.empty:
        return comparison.iloc[:0].copy()
    if len(part) == len(scores):
        return comparison.copy()
    return compare_methods(part, confidence=confidence)
