"""Rows that every table shares: the same images for all, and what is not there.

A subject without scores is a row "missing", a method that was not run a row with the
reason. Place in the flow: layer 9, part of `tables`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.reporting.figures.canvas import check_table

__all__ = [
    "INTERVAL",
    "NUMBERS",
    "SCORES",
    "SUMMARY",
    "Row",
    "blank",
    "check_metrics",
    "complete",
    "coverage",
    "records",
    "shared_images",
    "summary_rows",
    "with_aliases",
]

Row = Mapping[str, Any]

#: Columns of scores, one row per image; and of their summaries.
SCORES = ("subject", "method", "nsd_id", "metric", "value", "floor")
INTERVAL = ("value", "ci_low", "ci_high")
NUMBERS = (*INTERVAL, "n", "floor", "ceiling")
SUMMARY = ("subject", "method", "metric", *NUMBERS)


def with_aliases(scores: pd.DataFrame, same_as: Mapping[str, str]) -> pd.DataFrame:
    """Return `scores` with methods that are another one under a second name.

    Parameters
    ----------
    scores : DataFrame
        Column method and any others.
    same_as : mapping of str to str
        Name -> the method that it equals by construction, such as "guided_layers_12"
        -> "stage2_guided"; a name with scores of its own keeps them.

    Raises
    ------
    DataError
        A method that others equal has no scores.
    """
    scored = set(scores["method"])
    absent = sorted(set(same_as.values()) - scored)
    if absent:
        raise DataError(
            f"same_as points to {', '.join(absent)}, but the scores hold no such "
            "method: score it, or leave the name out."
        )
    copies = [
        scores[scores["method"] == method].assign(method=name)
        for name, method in same_as.items()
        if name not in scored
    ]
    return pd.concat([scores, *copies], ignore_index=True)


def shared_images(scores: pd.DataFrame, methods: Collection[str]) -> pd.DataFrame:
    """Return the scores of `methods` on the images that all of them have.

    Images are matched within a subject and a metric. A subject that lacks one of the
    methods has no such image and drops out; the tables report it as missing.

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value, floor; one row per image.
    methods : collection of str

    Raises
    ------
    DataError
        A method has no scores, an image is scored twice, or no image is shared.
    """
    check_table(scores, SCORES, "The table of scores")
    wanted = list(dict.fromkeys(methods))
    own = scores[scores["method"].isin(wanted)]
    own = own.assign(subject=own["subject"].astype(str))
    absent = sorted(set(wanted) - set(own["method"]))
    if absent:
        raise DataError(
            f"The scores hold no {', '.join(absent)}, so no images can be shared with "
            "it: run the notebook that makes it, or leave it out."
        )
    image = ["subject", "metric", "nsd_id"]
    if own.duplicated([*image, "method"]).any():
        raise DataError(
            "An image is scored twice for one subject, method and metric: pass each "
            "score once."
        )
    n_methods = own.groupby(image)["method"].transform("count")
    shared = own[n_methods == len(wanted)]
    if shared.empty:
        raise DataError(
            f"{', '.join(wanted)} share no image: run the notebooks that make them for "
            "the same images."
        )
    return shared.reset_index(drop=True)


def blank(status: str, **keys: object) -> dict[str, object]:
    """Return a row without numbers that says why."""
    return {**keys, **dict.fromkeys(NUMBERS, np.nan), "n": 0, "status": status}


def coverage(table: pd.DataFrame, subjects: Sequence[int]) -> list[str]:
    """Return of each row which images and subjects it leaves out, "" for none."""
    single = table[table["subject"] != "all"]
    n_by_method = single.groupby(["method", "metric"])["n"].max().to_dict()
    n_most = int(single["n"].max()) if len(single) else 0
    words = []
    for row in table.to_dict("records"):
        pooled = row["subject"] == "all"
        n = n_by_method.get((row["method"], row["metric"]), n_most)
        n_images = int(n if pooled else row["n"])
        said = [f"{n_images} of {n_most} images"] if n_images < n_most else []
        if pooled and row["n"] < len(subjects):
            said.append(f"{row['n']} of {len(subjects)} subjects")
        words.append("; ".join(said))
    return words


def complete(
    table: pd.DataFrame,
    subjects: Sequence[str],
    methods: Sequence[str],
    settings: Mapping[str, str],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return one row per subject, method and metric, in this order."""
    found = {(r["subject"], r["method"], r["metric"]): r for r in records(table)}
    scored = set(table["method"])
    rows = []
    for subject in subjects:
        for method in methods:
            reason = not_run.get(method, "no scores of it")
            status = "missing" if method in scored else f"not run: {reason}"
            for metric in settings:
                key = (subject, method, metric)
                names = dict(zip(("subject", "method", "metric"), key, strict=True))
                rows.append(found.get(key) or blank(status, **names))
    return pd.DataFrame(rows, columns=[*SUMMARY, "status"])


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dicts."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def check_metrics(table: pd.DataFrame, settings: Mapping[str, str]) -> None:
    """Raise DataError unless each metric that is defined was scored."""
    absent = [metric for metric in settings if metric not in set(table["metric"])]
    if absent or not settings:
        raise DataError(
            f"settings define {', '.join(absent) or 'no metric'}, but the scores hold "
            f"{', '.join(sorted(set(table['metric'])))}: define metrics that were "
            "scored."
        )


def _check_not_run(scored: Collection[str], not_run: Mapping[str, str]) -> None:
    both = sorted(set(scored) & set(not_run))
    if both:
        raise DataError(
            f"{', '.join(both)} has scores but is also said not to be run: remove one."
        )


def summary_rows(
    summary: pd.DataFrame,
    shown: Sequence[str],
    subjects: Sequence[int],
    methods: Sequence[str],
    settings: Mapping[str, str],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return a summary with a row for every subject, method and metric asked for."""
    check_table(summary, SUMMARY, "The table of summarised scores")
    if not subjects:
        raise ConfigError("subjects is empty: pass the profile's list of subjects.")
    check_metrics(summary, settings)
    _check_not_run(summary["method"], not_run)
    table = summary.assign(subject=summary["subject"].astype(str))
    table = table[table["method"].isin(methods) & table["metric"].isin(settings)]
    table = table.assign(status=coverage(table, subjects))
    names = list(dict.fromkeys([*methods, *not_run]))
    table = complete(table, shown, names, settings, not_run)
    return table.assign(settings=table["metric"].map(settings))
