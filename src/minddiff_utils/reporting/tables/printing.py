"""Long tables in columns, for Markdown and LaTeX.

Place in the flow: layer 9, part of `tables`.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from minddiff_utils.reporting.figures.canvas import check_table, span
from minddiff_utils.reporting.tables.rows import INTERVAL, Row, records

__all__ = [
    "bounded_cell",
    "count_cell",
    "for_print",
    "interval_cell",
]


def interval_cell(row: Row) -> str:
    """Return a number with its interval, as in "0.517 [0.49, 0.55]".

    A row with p_holm is a difference: signs are shown, and p.

    >>> interval_cell({"value": 0.5171, "ci_low": 0.4902, "ci_high": 0.5511})
    '0.517 [0.49, 0.55]'
    """
    value, low, high = (float(row[name]) for name in INTERVAL)
    known = np.isfinite(low) and np.isfinite(high)
    p = float(row.get("p_holm", np.nan))
    if np.isfinite(p):
        bounds = f" [{low:+.3f}, {high:+.3f}]" if known else ""
        return f"{value:+.3f}{bounds}, p = {p:.2g}"
    return f"{value:.3f} [{low:.2f}, {high:.2f}]" if known else f"{value:.3f}"


def bounded_cell(row: Row) -> str:
    """Return `interval_cell` with floor and ceiling, where they are known.

    >>> known = {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "floor": 0.01}
    >>> bounded_cell(known | {"ceiling": float("nan")})
    '0.500 [0.40, 0.60] (floor 0.01)'
    """
    said = [
        f"{name} {float(row[name]):.2f}"
        for name in ("floor", "ceiling")
        if np.isfinite(float(row[name]))
    ]
    return interval_cell(row) + (f" ({', '.join(said)})" if said else "")


def count_cell(row: Row) -> str:
    """Return a cost, with its share of the reference's where there is one.

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
    """Return a long table of this module in columns, its cells as text.

    Parameters
    ----------
    table : DataFrame
        A long table, or some of its rows.
    words : mapping of str to str
        Value of the column `across` -> heading, in the order shown.
    rows : sequence of str
        Columns that together name a printed row.
    across : str
        The column that is spread out: "metric", or "feature" for T4.
    cell : callable
        From a row of the table to the words of its cell.

    Returns
    -------
    DataFrame
        `rows`, a column per heading, n (and n_images if there), and `note` where a
        status was to be said. A cell without a number holds the status of its row, one
        without a row "–". The last row, "settings", defines each metric.

    Raises
    ------
    DataError
        A column is missing, or no row has one of `words`.
    """
    needed = (*rows, across, *INTERVAL, "n", "status", "settings")
    check_table(table, needed, "The table to print")
    own = table[table[across].isin(words)]
    check_table(own, (), f"The table to print, for {', '.join(words)},")
    printed = []
    for names, block in own.groupby(list(rows), sort=False, dropna=False):
        by_heading = {row[across]: row for row in records(block)}
        line = dict(zip(rows, map(_name, names), strict=True))
        for value, heading in words.items():
            found = by_heading.get(value)
            line[heading] = _cell(found, cell) if found else "–"
        scored = block[np.isfinite(block["value"].astype(float))]
        counts = [c for c in ("n", "n_images") if c in block]
        line |= {c: span((scored if len(scored) else block)[c]) for c in counts}
        line["note"] = "; ".join(dict.fromkeys(s for s in scored["status"] if s))
        printed.append(line)
    printed.append(_settings_line(own, words, rows, across))
    found_table = pd.DataFrame(printed)
    if not found_table["note"].any():
        found_table = found_table.drop(columns="note")
    return found_table


def _name(value: object) -> str:
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def _cell(row: Row, cell: Callable[[Row], str]) -> str:
    return cell(row) if np.isfinite(float(row["value"])) else str(row["status"])


def _settings_line(
    own: pd.DataFrame, words: Mapping[str, str], rows: Sequence[str], across: str
) -> dict[str, str]:
    line = dict.fromkeys(rows, "") | {rows[0]: "settings"}
    for value, heading in words.items():
        said = own.loc[own[across] == value, "settings"].unique()
        line[heading] = "; ".join(map(str, said)) or "–"
    counts = {c: "" for c in ("n", "n_images") if c in own}
    return line | counts | {"note": ""}
