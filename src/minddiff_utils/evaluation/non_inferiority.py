"""Whether a method is no worse than another, as the study of stage 2 asks.

Pure functions of a table of scores, one row per image. Not here: what a score is
(`metrics`), what is drawn and permuted (`core.resampling`).
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.resampling import (
    Resampling,
    exact_sign_flip_test,
    holm,
    paired_permutation_test,
)
from minddiff_utils.core.run import Run

__all__ = [
    "non_inferiority",
    "paired_table",
    "resampling",
]


_INTERVAL = ["value", "ci_low", "ci_high"]


def resampling(run: Run) -> Resampling:
    """Return the draws and streams of the profile."""
    config = run.profile.evaluation
    return Resampling(
        stream=run.stream,
        n_bootstrap=config.n_bootstrap,
        n_permutations=config.n_permutations,
        confidence=config.confidence,
    )


# --- means --------------------------------------------------------------------------


def _by_subject(
    scores: pd.DataFrame,
) -> Iterator[tuple[str, pd.Series | pd.DataFrame, pd.DataFrame]]:
    """Yield each subject's values by image, then subjects x images as "all".

    The last item is the rows that were used: in "all" the images that every subject
    has.
    """
    for subject, used in scores.groupby("subject", sort=False):
        yield str(subject), used["value"], used
    wide = _matrix(scores)
    yield "all", wide, scores[scores["nsd_id"].isin(wide.columns)]


def _matrix(scores: pd.DataFrame) -> pd.DataFrame:
    """Return subjects x images, with the images that every subject has."""
    if scores.duplicated(["subject", "nsd_id"]).any():
        raise DataError(
            "An image is scored twice for one subject, method and metric: pass each"
            " score once."
        )
    wide = scores.pivot(index="subject", columns="nsd_id", values="value")
    shared = wide.dropna(axis=1)
    if shared.empty:
        raise DataError(
            "No image is scored in every subject, so subjects cannot be pooled: "
            "reconstruct the same test images for all subjects."
        )
    return shared


# --- paired differences -------------------------------------------------------------


def paired_table(
    scores: pd.DataFrame,
    method: str,
    reference: str,
    *,
    resampling: Resampling,
) -> pd.DataFrame:
    """Return `method` minus `reference` on the same images, with intervals and tests.

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value.
    method, reference : str
        The two methods; images that both have are compared.
    resampling : Resampling
        Draws, confidence and streams.

    Returns
    -------
    DataFrame
        Columns subject (or "all"), contrast, metric, value, ci_low, ci_high,
        p_permutation, n, n_subjects_positive, p_subjects. Rows of a subject: the image
        is the unit. Rows "all": the interval resamples subjects and images,
        p_permutation flips images averaged over subjects, and p_subjects flips the
        subjects' means (at least 2 / 2^n).

    Raises
    ------
    DataError
        The two methods share no image.
    """
    keys = ["subject", "nsd_id", "metric"]
    first = scores[scores["method"] == method]
    second = scores[scores["method"] == reference]
    both = first.merge(second, on=keys, suffixes=("", "_reference"))
    if both.empty:
        raise DataError(
            f"{method} and {reference} share no image: run the notebooks that make "
            "them for the same images."
        )
    both["value"] = both["value"] - both["value_reference"]
    rows = [
        _paired_row((subject, f"{method} - {reference}", str(metric)), d, resampling)
        for metric, block in both.groupby("metric", sort=False)
        for subject, d, _ in _by_subject(block)
    ]
    columns = ["subject", "contrast", "metric", *_INTERVAL, "p_permutation", "n"]
    more = ["n_subjects_positive", "p_subjects"]
    return pd.DataFrame(rows, columns=columns + more)


def _paired_row(
    key: tuple[str, str, str],
    differences: pd.Series | pd.DataFrame,
    resampling: Resampling,
) -> tuple[object, ...]:
    interval = resampling.interval(differences.to_numpy(), *key)
    per_image, means = differences, pd.Series([differences.to_numpy().mean()])
    p_subjects = np.nan
    if isinstance(differences, pd.DataFrame):
        per_image, means = differences.mean(axis=0), differences.mean(axis=1)
        p_subjects = exact_sign_flip_test(means)
    p = paired_permutation_test(
        per_image,
        rng=resampling.stream("flips", *key),
        n_permutations=resampling.n_permutations,
    )
    value, low, high, n = astuple(interval)
    return (*key, value, low, high, p, n, int((means > 0).sum()), p_subjects)


# --- no worse -------------------------------------------------------------------------


def non_inferiority(
    scores: pd.DataFrame,
    method: str,
    reference: str,
    margins: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
    *,
    resampling: Resampling,
) -> pd.DataFrame:
    """Return whether `method` is no worse than `reference` by more than a margin.

    A difference is counted so that above 0 means better. `low` is the lower end of a
    one-sided interval; p is that of a sign-flip test of the difference plus the margin,
    adjusted (Holm) over the endpoints of one subject. "no worse": p is at most one less
    the confidence and `low` above minus the margin; "worse": `high`, the upper end,
    is below 0 and `low` below minus the margin; else "not shown".

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value.
    method, reference : str
    margins : mapping of float
        By metric, in its units, at least 0; these metrics are the endpoints.
    higher_is_better : mapping of bool
        By metric.
    resampling : Resampling

    Returns
    -------
    DataFrame
        Columns subject (or "all"), method, reference, metric, value, low, high, margin,
        p_holm, verdict, n (images of a subject; subjects for "all").
    """
    known = scores[scores["metric"].isin(margins)]
    better = known["metric"].map(higher_is_better).map({True: 1.0, False: -1.0})
    signed = known.assign(value=known["value"] * better)
    # the 1 - 2 tail interval has the one-sided bound at its lower end
    one_sided = replace(resampling, confidence=2 * resampling.confidence - 1)
    table = paired_table(signed, method, reference, resampling=one_sided)
    margin = table["metric"].map(margins)
    table = table.assign(method=method, reference=reference, margin=margin)
    table["p"] = [
        _one_sided_p(signed, row, resampling) for row in table.to_dict("records")
    ]
    adjusted = table.groupby("subject", sort=False)["p"].transform(holm)
    names = {"ci_low": "low", "ci_high": "high"}
    table = table.assign(p_holm=adjusted).rename(columns=names)
    table["verdict"] = [_verdict(row, resampling) for row in table.to_dict("records")]
    columns = ["subject", "method", "reference", "metric", "value", "low", "high"]
    return table[[*columns, "margin", "p_holm", "verdict", "n"]]


def _one_sided_p(
    signed: pd.DataFrame, row: Mapping[Hashable, Any], resampling: Resampling
) -> float:
    """Return the p of a difference at or below minus the margin."""
    own = signed[signed["metric"] == row["metric"]]
    if row["subject"] != "all":
        own = own[own["subject"] == row["subject"]]
    wide = own.pivot(index=["subject", "nsd_id"], columns="method", values="value")
    pairs = (wide[row["method"]] - wide[row["reference"]]).dropna()
    per_image = pairs.groupby("nsd_id").mean().to_numpy() + row["margin"]
    names = [str(row[k]) for k in ("subject", "method", "reference", "metric")]
    return paired_permutation_test(
        per_image,
        rng=resampling.stream("margin", *names),
        n_permutations=resampling.n_permutations,
        alternative="greater",
    )


def _verdict(row: Mapping[Hashable, Any], resampling: Resampling) -> str:
    if row["low"] > -row["margin"] and row["p_holm"] <= 1 - resampling.confidence:
        return "no worse"
    if row["high"] < 0 and row["low"] < -row["margin"]:
        return "worse"
    return "not shown"
