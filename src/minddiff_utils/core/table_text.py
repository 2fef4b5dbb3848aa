"""A table as text: for a page in markdown and for a paper in LaTeX."""

from typing import Any

import pandas as pd
from pandas.api.types import is_float_dtype

__all__ = ["as_text", "latex", "markdown"]


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of strings: numbers with three decimals, a dash for no value.

    Counts that are floats only for a NaN among them are whole numbers.
    """
    return table.apply(_texts)


def _texts(column: pd.Series) -> pd.Series:
    known = column.dropna()
    is_count = is_float_dtype(column) and bool((known % 1 == 0).all())

    def text(value: Any) -> str:
        if pd.isna(value):
            return "–"
        if isinstance(value, float):
            return f"{value:.0f}" if is_count else f"{value:.3f}"
        return str(value)

    return column.map(text)


def markdown(table: pd.DataFrame, label: str) -> str:
    """Return a table of strings in markdown, under its label."""
    header = "| " + " | ".join(map(str, table.columns)) + " |"
    rule = "|" + "---|" * table.shape[1]
    rows = ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    return "\n".join([label, "", header, rule, *rows, ""])


def latex(table: pd.DataFrame, label: str) -> str:
    """Return a table of strings in LaTeX; the label is its caption."""
    marks = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"}
    escapes = str.maketrans(marks)
    lines = [r"\begin{table}", rf"\caption{{{label.translate(escapes)}}}"]
    lines.append(rf"\begin{{tabular}}{{{'l' * table.shape[1]}}}\hline")
    lines.append(
        " & ".join(str(c).translate(escapes) for c in table.columns) + r" \\\hline"
    )
    for row in table.itertuples(index=False):
        lines.append(" & ".join(str(v).translate(escapes) for v in row) + r" \\")
    lines += [r"\hline\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)
