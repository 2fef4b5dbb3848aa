"""Figure of notebook 05: how many reconstructions can be named, by method and kind."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE
from minddiff_utils.reporting.wording import counted, percent, wrap

__all__ = ["fig_naming"]

_COLUMNS = (
    *("metric", "method", "category", "value", "ci_low", "ci_high"),
    *("chance", "ceiling", "n_images", "n_subjects"),
)
#: Drawn in colour.
_STAGES = ("stage1", "stage2")


@canvas.styled
def fig_naming(
    table: pd.DataFrame,
    namers: Mapping[str, str],
    methods: Mapping[str, str],
    *,
    by_category: str,
    confidence: float = 0.95,
) -> Figure:
    """Draw the share named rightly by method, and by category for one method.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.further.naming_table`.
    namers, methods : mapping of str to str
        Metric, and method -> words, in the order shown; those not in the table are left
        out.
    by_category : str
        The method whose categories are drawn, named by the first of `namers`.
    """
    canvas.check_table(table, _COLUMNS, "The table of names")
    whole = table[table["category"] == "all"]
    names = [m for m in methods if (whole["method"] == m).any()]
    who = [m for m in namers if (whole["metric"] == m).any()]
    chosen = (table["metric"] == who[0]) & (table["method"] == by_category)
    kinds = table[chosen & (table["category"] != "all")].sort_values(
        ["value", "category"], ascending=[False, True]
    )
    most, n = int(whole["n_images"].max()), int(whole["n_subjects"].max())
    note = (
        f"n = {counted(most, 'image')} or fewer in {counted(n, 'subject')}. Bar and"
        f" line: share named rightly and {percent(confidence)} interval over images;"
        " triangle: chance,"
        " the same names for other images; diamond: the true images. Below: each"
        f" category, by the first, {methods.get(by_category, by_category)}"
    )
    height = 3.4 + 0.27 * len(names)
    figure = canvas.new_figure("Which reconstructions can be named", note, height)
    ratios = [0.9 + 0.27 * len(names), 1.9]
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=ratios).flat
    grid = canvas.panels(above, len(who), len(who), sharey=True)
    for axes, metric in zip(grid, who, strict=True):
        axes.set_title(wrap(namers[metric], 36), size=8)
        _draw_methods(axes, whole[whole["metric"] == metric], names)
    words = [wrap(methods[m], 38) for m in names]
    grid[0].set_yticks(range(len(names)), words, size=7)
    grid[0].invert_yaxis()
    _draw_categories(below.subplots(), kinds)
    return figure


def _draw_methods(axes: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share named rightly")
    axes.grid(axis="x")
    for row in canvas.records(rows[rows["method"].isin(names)]):
        place = names.index(row["method"])
        colour = PALETTE[0] if row["method"] in _STAGES else GRAY
        axes.barh(place, row["value"], height=0.6, color=colour, alpha=0.55)
        numbers = [row[name] for name in ("value", "ci_low", "ci_high")]
        canvas.draw_interval(axes, place, numbers, color=colour, markersize=2)
        axes.plot(row["chance"], place, "^", color="0.3", markersize=3.5)
        axes.plot(row["ceiling"], place, "D", color="0.4", mfc="white", markersize=3.5)


def _draw_categories(axes: Axes, kinds: pd.DataFrame) -> None:
    places = np.arange(len(kinds))
    axes.bar(places, kinds["value"], color=PALETTE[0], alpha=0.55)
    axes.plot(places, kinds["ceiling"], "D", color="0.4", mfc="white", markersize=3)
    words = [f"{row['category']} ({row['n_images']})" for row in canvas.records(kinds)]
    axes.set_xticks(places, words, rotation=90, size=5.5)
    axes.set_xlim(-0.7, len(kinds) - 0.3)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("share (n images)")
