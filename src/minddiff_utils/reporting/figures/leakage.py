"""The figure of notebook 08: how much of a score is read from the brain."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, Words, draws
from minddiff_utils.reporting.wording import counted, percent, span, wrap

__all__ = ["fig_leakage"]


@draws(
    "The table of gains",
    "subject method metric value ci_low ci_high n_images n_subjects",
)
def fig_leakage(
    gains: pd.DataFrame,
    shares: pd.DataFrame,
    metrics: Words,
    groups: Mapping[str, Words],
    curve: Words,
    *,
    confidence: float = 0.95,
) -> Figure:
    """Draw what each row scores above a generator that is told nothing, and by axes.

    `gains`: from `summaries.contrast_table`, all with the same reference, of which the
    rows "all" are drawn, or those of the only subject; `shares`: from
    `studies.leakage.prior_shares` of one method, printed beside the rows; `groups`:
    what a group of rows knows -> method -> words; `curve`: method -> number of axes in
    words, the first being the reference itself. None of the rows is there: DataError.
    """
    pooled = canvas.pooled_rows(gains, "The table of gains")
    drawn = pooled[pooled["metric"].isin(metrics)]
    rows = drawn.set_index(["metric", "method"]).to_dict("index")
    there = set(drawn["method"])
    known = [[name for name in words if name in there] for words in groups.values()]
    lines = [name for own in known for name in own]
    if not lines:
        raise DataError("The table of gains holds none of the rows to draw.")
    words = {name: text for own in groups.values() for name, text in own.items()}
    colours = {name: PALETTE[k] for k, own in enumerate(known) for name in own}
    n_subjects = int(pooled["n_subjects"].max())
    note = (
        f"n = {span(pooled['n_images'])} images, {counted(n_subjects, 'subject')}."
        f" Dot and line: mean and {percent(confidence)} interval of the paired"
        " difference from stage 1 given the training means of c and z (t over images);"
        " number: the same as a share of stage 1's difference. Colours: what a row is"
        f" told ({'; '.join(groups)}). Below: stage 1 from the leading principal axes"
        " of c and of z alone, the decoder refitted"
    )
    title = "How much of a reconstruction is the brain's, and how much the prior's"
    above = 0.75 + 0.26 * len(lines)
    figure = canvas.new_figure(title, note, above + 2.6)
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[above, 1.9]).flat
    grid = canvas.panels(top, len(metrics), len(metrics), sharey=True)
    for axes, metric in zip(grid, metrics, strict=True):
        axes.set_title(wrap(metrics[metric], 30), size=8)
        of = shares[shares["metric"] == metric].set_index("prior")["value"]
        for place, name in enumerate(lines):
            row = rows.get((metric, name), {})
            _draw_row(axes, place, row, colours[name], of.get(name, math.nan))
        for own in filter(None, known):
            if place := lines.index(own[0]):
                axes.axhline(place - 0.5, color="0.8", linewidth=0.6)
    grid[0].set_yticks(range(len(lines)), [wrap(words[name], 34) for name in lines])
    grid[0].invert_yaxis()
    top.supxlabel("score above that of the same generator told nothing", size=8)
    lower = canvas.panels(below, len(metrics), len(metrics))
    for axes, metric in zip(lower, metrics, strict=True):
        steps = [rows.get((metric, name)) for name in curve]
        _draw_curve(axes, steps, list(curve.values()))
    lower[0].set_ylabel("score above it")
    below.supxlabel("principal axes of c and of z that are read", size=8)
    return figure


def _draw_row(
    axes: Axes, place: int, row: Mapping[Any, Any], colour: object, share: float
) -> None:
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.grid(axis="x")
    if row:
        canvas.draw_interval(axes, place, row, color=colour, zorder=3)
    if math.isfinite(share):
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform()}
        words = f"{round(100 * share)} %"
        axes.text(1.01, place, words, size=6.5, va="center", **beside)


def _draw_curve(
    axes: Axes, steps: Sequence[Mapping[Any, Any] | None], names: Sequence[str]
) -> None:
    """Draw the gain against the number of axes, evenly spaced; the first has none."""
    known = {k: row for k, row in enumerate(steps) if row is not None}
    values = [float(row["value"]) for row in known.values()]
    axes.plot([0, *known], [0.0, *values], color=GRAY, zorder=1)
    axes.plot(0, 0, "o", color=GRAY, markersize=4)
    for place, row in known.items():
        canvas.draw_interval(axes, place, row, upright=True, color=PALETTE[0])
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.grid(axis="y")
    axes.set_xticks(range(len(names)), list(names))
