"""A table as text: for a page in markdown and for a paper in LaTeX."""

import pandas as pd

__all__ = ["latex", "markdown"]


def markdown(shown: pd.DataFrame, label: str) -> str:
    """Return a table of strings in markdown, under its label."""
    header = "| " + " | ".join(map(str, shown.columns)) + " |"
    rule = "|" + "---|" * shown.shape[1]
    rows = ["| " + " | ".join(row) + " |" for row in shown.itertuples(index=False)]
    return "\n".join([label, "", header, rule, *rows, ""])


def latex(shown: pd.DataFrame, label: str) -> str:
    """Return a table of strings in LaTeX; the label is its caption."""
    marks = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"}
    table = str.maketrans(marks)
    lines = [r"\begin{table}", rf"\caption{{{label.translate(table)}}}"]
    lines.append(rf"\begin{{tabular}}{{{'l' * shown.shape[1]}}}\hline")
    lines.append(
        " & ".join(str(c).translate(table) for c in shown.columns) + r" \\\hline"
    )
    for row in shown.itertuples(index=False):
        lines.append(" & ".join(str(v).translate(table) for v in row) + r" \\")
    lines += [r"\hline\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)
