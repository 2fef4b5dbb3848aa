"""Rows that tables of scores share, and tables T1 and T3, which are these rows.

A subject without scores is a row "missing", a method that was not run a row with the
reason; each row says over how many images and subjects it is.
"""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures.canvas import INTERVAL, check_table

__all__ = [
    "INTERVAL",
    "SCORES",
    "SUMMARY",
    "check_metrics",
    "comparison_table",
    "complete",
    "shared_images",
    "with_aliases",
]

#: Columns of scores, one row per image; and of their summaries.
SCORES = ("subject", "method", "nsd_id", "metric", "value", "floor")
_KEY = ["subject", "method", "metric"]
COUNTS = ("n_images", "n_subjects")
SUMMARY = (*_KEY, *INTERVAL, *COUNTS, "floor", "chance")
SUMMARY += ("chance_method", "ceiling", "sd_draw")


def with_aliases(scores: pd.DataFrame, same_as: Mapping[str, str]) -> pd.DataFrame:
    """Return `scores` with methods that are another one under a second name.

    `same_as`: name -> the method that it equals by construction, such as
    "guided_layers_12" -> "stage2_guided"; a name with scores of its own keeps them. A
    method that others equal has no scores: DataError.
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

    Images are matched within a subject and a metric; `scores` has columns `SCORES`. A
    method has no scores, or no image is shared: DataError.
    """
    check_table(scores, SCORES, "The table of scores")
    names = list(dict.fromkeys(methods))
    kept = scores[scores["method"].isin(names)]
    kept = kept.assign(subject=kept["subject"].astype(str))
    absent = sorted(set(names) - set(kept["method"]))
    if absent:
        raise DataError(
            f"The scores hold no {', '.join(absent)}, so no images can be shared with "
            "it: run the notebook that makes it, or leave it out."
        )
    groups = kept.groupby(["subject", "metric", "nsd_id"])["method"]
    shared = kept[groups.transform("nunique") == len(names)]
    if shared.empty:
        raise DataError(
            f"{', '.join(names)} share no image: run the notebooks that make them for "
            "the same images."
        )
    return shared.reset_index(drop=True)


def check_metrics(table: pd.DataFrame, settings: Mapping[str, str]) -> None:
    """Raise DataError unless each metric that is defined was scored."""
    absent = [metric for metric in settings if metric not in set(table["metric"])]
    if absent or not settings:
        raise DataError(
            f"settings define {', '.join(absent) or 'no metric'}, but the scores hold "
            f"{', '.join(sorted(set(table['metric'])))}: define metrics that were "
            "scored."
        )


def complete(
    table: pd.DataFrame,
    who: Sequence[str],
    methods: Sequence[str],
    settings: Mapping[str, str],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return one row per subject, method and metric, in this order, with `settings`.

    A row that `table` lacks holds NaN, counts of 0 and, as its status, why.
    """
    scored = set(table["method"])
    reasons = {
        name: "missing"
        if name in scored
        else f"not run: {not_run.get(name, 'no scores of it')}"
        for name in methods
    }
    every = pd.MultiIndex.from_product([who, methods, settings], names=_KEY)
    known = table.assign(status="").set_index(_KEY).index
    rows = table.set_index(_KEY).reindex(every).reset_index()
    lacks = ~every.isin(known)
    return rows.assign(
        **{name: rows[name].fillna(0).astype(int) for name in COUNTS},
        status=rows["method"].map(reasons).where(lacks, ""),
        settings=rows["metric"].map(settings),
    )


def comparison_table(
    comparison: pd.DataFrame,
    *,
    who: Sequence[str],
    methods: Sequence[str],
    settings: Mapping[str, str],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return table T1, every method in some subjects and over all, or T3.

    `comparison`: from `summaries.summarise`; `who`: subjects, and "all"; `methods`: in
    the order shown; `settings`: metric -> its definition, these are shown, one without
    a score is a DataError; `not_run`: method -> why there are no scores, each gets its
    rows. Columns as `comparison`'s, status ("missing" or "not run" with the reason,
    beside NaN) and settings.
    """
    check_table(comparison, SUMMARY, "The table of summarised scores")
    check_metrics(comparison, settings)
    table = comparison[[*SUMMARY]].assign(subject=comparison["subject"].astype(str))
    names = list(dict.fromkeys([*methods, *not_run]))
    kept = table[table["method"].isin(names) & table["metric"].isin(settings)]
    return complete(kept, who, names, settings, not_run)
