"""Rows that every table shares, and tables T1 and T3, which are nothing but these rows.

All methods are compared on the same images. A subject without scores is a row
"missing", a method that was not run a row with the reason.
"""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.reporting.figures.canvas import check_table

__all__ = [
    "INTERVAL",
    "SCORES",
    "SUMMARY",
    "check_metrics",
    "comparison_table",
    "complete",
    "shared_images",
    "subjects_table",
    "summary_rows",
    "with_aliases",
]

#: Columns of scores, one row per image; and of their summaries.
SCORES = ("subject", "method", "nsd_id", "metric", "value", "floor")
INTERVAL = ("value", "ci_low", "ci_high")
_KEY = ["subject", "method", "metric"]
SUMMARY = (*_KEY, *INTERVAL, "n", "floor", "ceiling")


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
    names = list(dict.fromkeys(methods))
    kept = scores[scores["method"].isin(names)]
    kept = kept.assign(subject=kept["subject"].astype(str))
    absent = sorted(set(names) - set(kept["method"]))
    if absent:
        raise DataError(
            f"The scores hold no {', '.join(absent)}, so no images can be shared with "
            "it: run the notebook that makes it, or leave it out."
        )
    image = ["subject", "metric", "nsd_id"]
    if kept.duplicated([*image, "method"]).any():
        raise DataError(
            "An image is scored twice for one subject, method and metric: pass each "
            "score once."
        )
    n_methods = kept.groupby(image)["method"].transform("count")
    shared = kept[n_methods == len(names)]
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


def _coverage(table: pd.DataFrame, n_subjects: int) -> list[str]:
    """Return of each row which images and subjects it leaves out, "" for none."""
    single = table[table["subject"] != "all"]
    n_by_method = single.groupby(["method", "metric"])["n"].max().to_dict()
    n_most = int(single["n"].max()) if len(single) else 0
    words = []
    for subject, method, metric, n in table[[*_KEY, "n"]].itertuples(index=False):
        pooled = subject == "all"
        n_images = int(n_by_method.get((method, metric), n_most)) if pooled else n
        parts = [f"{n_images} of {n_most} images"] if n_images < n_most else []
        if pooled and n < n_subjects:
            parts.append(f"{n} of {n_subjects} subjects")
        words.append("; ".join(parts))
    return words


def complete(
    table: pd.DataFrame,
    subjects: Sequence[str],
    methods: Sequence[str],
    settings: Mapping[str, str],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return one row per subject, method and metric, in this order, with `settings`.

    A row that `table` lacks holds NaN, n = 0 and, as its status, why.
    """
    scored = set(table["method"])
    reasons = {
        name: "missing"
        if name in scored
        else f"not run: {not_run.get(name, 'no scores of it')}"
        for name in methods
    }
    every = pd.MultiIndex.from_product([subjects, methods, settings], names=_KEY)
    rows = table.set_index(_KEY).reindex(every).reset_index()
    return rows.assign(
        n=rows["n"].fillna(0).astype(int),
        status=rows["status"].where(
            rows["status"].notna(), rows["method"].map(reasons)
        ),
        settings=rows["metric"].map(settings),
    )


def summary_rows(
    summary: pd.DataFrame,
    who: Sequence[str],
    subjects: Sequence[int],
    methods: Sequence[str],
    settings: Mapping[str, str],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return a summary with a row for every method and metric, of `who` in turn."""
    check_table(summary, SUMMARY, "The table of summarised scores")
    if not subjects:
        raise ConfigError("subjects is empty: pass the profile's list of subjects.")
    check_metrics(summary, settings)
    both = sorted(set(summary["method"]) & set(not_run))
    if both:
        raise DataError(
            f"{', '.join(both)} has scores but is also said not to be run: remove one."
        )
    table = summary[[*SUMMARY]].assign(subject=summary["subject"].astype(str))
    table = table[table["method"].isin(methods) & table["metric"].isin(settings)]
    table = table.assign(status=_coverage(table, len(subjects)))
    names = list(dict.fromkeys([*methods, *not_run]))
    return complete(table, who, names, settings, not_run)


# --- T1 and T3 ------------------------------------------------------------------------


def comparison_table(
    comparison: pd.DataFrame,
    *,
    subjects: Sequence[int],
    methods: Sequence[str],
    settings: Mapping[str, str],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return table T1: every method in the first subject and over all of them.

    Parameters
    ----------
    comparison : DataFrame
        From `summaries.summarise`: subject (and "all"), method, metric, value, ci_low,
        ci_high, n, floor, ceiling.
    subjects : sequence of int
        The profile's; the first one is shown.
    methods : sequence of str
        In the order shown.
    settings : mapping of str to str
        Metric -> its definition; these metrics are shown.
    not_run : mapping of str to str
        Method -> why there are no scores; each gets its rows.

    Returns
    -------
    DataFrame
        Columns subject, method, metric, value, ci_low, ci_high, n, floor, ceiling,
        status, settings. `status` is empty where the row covers everything, names the
        images or subjects it covers where others cover more ("2 of 100 images"), or
        says "missing" or "not run" beside NaN.

    Raises
    ------
    ConfigError
        No subjects.
    DataError
        A column or a metric is missing, or a method in `not_run` has scores.
    """
    who = [str(s) for s in subjects[:1]] + ["all"]
    return summary_rows(comparison, who, subjects, methods, settings, not_run)


def subjects_table(
    comparison: pd.DataFrame,
    *,
    subjects: Sequence[int],
    methods: Sequence[str],
    settings: Mapping[str, str],
) -> pd.DataFrame:
    """Return table T3: some methods in every subject of the profile, and over all.

    Parameters, columns and errors are those of `comparison_table`.
    """
    who = [*map(str, subjects), "all"]
    return summary_rows(comparison, who, subjects, methods, settings, {})
