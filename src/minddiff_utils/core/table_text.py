"""A table as text: for a page in markdown and for a paper in LaTeX."""

import pandas as pd

__all__ = ["latex", "markdown"]


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
