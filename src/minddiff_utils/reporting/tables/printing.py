"""Long tables in columns, for Markdown and LaTeX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.reporting.figures.canvas import check_table
from minddiff_utils.reporting.tables.rows import INTERVAL
from minddiff_utils.reporting.wording import span

__all__ = ["bounded_cell", "count_cell", "for_print", "interval_cell"]

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
