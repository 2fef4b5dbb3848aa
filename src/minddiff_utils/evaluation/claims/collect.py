"""The tables of a run that the claims are decided on."""

from collections.abc import Mapping, Sequence

import pandas as pd

from minddiff_utils.core.run import Run
from minddiff_utils.evaluation.claims.evidence import Evidence
from minddiff_utils.evaluation.subject_tables import gather

__all__ = ["collect_evidence"]


def collect_evidence(
    run: Run,
    made: Mapping[str, pd.DataFrame],
    *,
    subjects: Sequence[int] | None = None,
) -> Evidence:
    """Return everything that the claims are decided on.

    Parameters
    ----------
    made : mapping of DataFrame
        What notebook 05 made: `comparison`, `paired`, `contrasts`, `scores` and, where
        k was varied, `k_quality`.
    subjects : sequence of int, optional
        Default all of the profile.
    """
    stage2 = gather(run, "stage2.csv", subjects)
    tables = {
        **made,
        "accuracy": gather(run, "accuracy.csv", subjects),
        "k_selection": gather(run, "k_selection.csv", subjects),
        "weights": gather(run, "weights.csv", subjects),
        "stage2": stage2[stage2["method"] == "stage2"],
    }
    in_silico = run.origin != "measured"
    return Evidence(tables, in_silico=in_silico, profile=run.profile.name)
