"""Rows that tables of scores share, tables T1 and T3, which are these rows; printing.

A subject without scores is a row "missing", a method that was not run a row with the
reason; each row says over how many images and subjects it is. `for_print` sets long
tables in columns, for Markdown and LaTeX.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures.canvas import INTERVAL, check_table
from minddiff_utils.reporting.wording import span

__all__ = [
    "SCORES",
    "SUMMARY",
    "bounded_cell",
    "check_metrics",
    "comparison_table",
    "complete",
    "count_cell",
    "for_print",
    "interval_cell",
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
    known = table.set_index(_KEY)
    rows = known.reindex(every).reset_index()
    return rows.assign(
        **{name: rows[name].fillna(0).astype(int) for name in COUNTS},
        status=rows["method"].map(reasons).where(~every.isin(known.index), ""),
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
    shown = table[table["metric"].isin(settings)]
    return complete(shown, who, names, settings, not_run)


# --- for readers ----------------------------------------------------------------------

#: A row of a table, by column.
Row = Mapping[Any, Any]


def interval_cell(row: Row) -> str:
    """Return a row's number with its interval.

    A row with a smallest effect is a difference: signs are shown.

    >>> interval_cell({"value": 0.5171, "ci_low": 0.4902, "ci_high": 0.5511})
    '0.517 [0.49, 0.55]'
    """
    value, low, high = (float(row[name]) for name in INTERVAL)
    known = np.isfinite(low) and np.isfinite(high)
    if np.isfinite(float(row.get("smallest_effect", np.nan))):
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{value:.3f} [{low:.2f}, {high:.2f}]" if known else f"{value:.3f}"


def bounded_cell(row: Row) -> str:
    """Return `interval_cell` with floor and ceiling, where they are known.

    >>> known = {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "floor": 0.01}
    >>> bounded_cell(known | {"ceiling": float("nan")})
    '0.500 [0.40, 0.60] (floor 0.01)'
    """
    bounds = {name: float(row[name]) for name in ("floor", "ceiling")}
    known = [f"{name} {v:.2f}" for name, v in bounds.items() if np.isfinite(v)]
    return interval_cell(row) + (f" ({', '.join(known)})" if known else "")


def count_cell(row: Row) -> str:
    """Return a cost of T5, with its share of the reference's where there is one.

    >>> count_cell({"value": 1234.0, "relative": 0.125})
    '1,234 (0.125 x)'
    """
    relative = float(row.get("relative", np.nan))
    share = f" ({relative:.3g} x)" if np.isfinite(relative) else ""
    return f"{float(row['value']):,.0f}{share}"


def for_print(
    table: pd.DataFrame,
    words: Mapping[str, str],
    *,
    rows: Sequence[str] = ("subject", "method"),
    across: str = "metric",
    cell: Callable[[Row], str] = interval_cell,
) -> pd.DataFrame:
    """Return a long table of this package in columns, its cells as text.

    `words`: value of the column `across`, which is spread out, to its heading, in the
    order shown; `rows`: columns that together name a printed row; `cell`: from a row of
    the table to the words of its cell. A column is missing, or no row has one of
    `words`: DataError.

    Columns `rows`, one per heading, n_images and n_subjects (or n), and `note` where a
    status was to be said. A cell without a number holds the status of its row, one
    without a row "–". The last row, "settings", defines each metric.
    """
    needed = (*rows, across, *INTERVAL, "status", "settings")
    check_table(table, needed, "The table to print")
    kept = table[table[across].isin(words)]
    check_table(kept, (), f"The table to print, for {', '.join(words)},")
    counts = [c for c in ("n", "n_images", "n_subjects") if c in kept]
    printed = []
    for names, block in kept.groupby(list(rows), sort=False, dropna=False):
        scored = block[np.isfinite(block["value"].astype(float))]
        counted = scored if len(scored) else block
        texts = {
            row[across]: cell(row)
            if np.isfinite(float(row["value"]))
            else row["status"]
            for row in block.to_dict("records")
        }
        printed.append(
            dict(zip(rows, map(_name, names), strict=True))
            | {heading: str(texts.get(key, "–")) for key, heading in words.items()}
            | {c: span(counted[c]) for c in counts}
            | {"note": "; ".join(dict.fromkeys(s for s in scored["status"] if s))}
        )
    defined = kept.astype({"settings": str}).groupby(across)["settings"].unique()
    last = {heading: "; ".join(defined.get(key, [])) for key, heading in words.items()}
    printed.append(
        dict.fromkeys((*rows, *counts, "note"), "")
        | {rows[0]: "settings"}
        | {heading: text or "–" for heading, text in last.items()}
    )
    columns = pd.DataFrame(printed)
    return columns if columns["note"].any() else columns.drop(columns="note")


def _name(value: object) -> str:
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]
