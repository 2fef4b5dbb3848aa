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

    Parameters
    ----------
    gains : DataFrame
        From `summaries.contrast_table`, all with the same reference; the rows "all" are
        drawn, or those of the only subject.
    shares : DataFrame
        From `studies.leakage.prior_shares` of one method; printed beside the rows.
    metrics : mapping of str to str
        Metric -> words, in the order shown.
    groups : mapping of mapping of str to str
        What a group of rows knows -> method -> words, in the order shown; those that
        were not run are left out.
    curve : mapping of str to str
        Method -> number of axes in words, in the order shown; the first is the
        reference itself.
    confidence : float
        Of the intervals, for the note.

    Raises
    ------
    DataError
        A column is missing, or none of the rows or metrics is there.
    """
    pooled = canvas.pooled_rows(gains, "The table of gains")
    rows = {
        (row["metric"], row["method"]): row
        for row in canvas.records(pooled[pooled["metric"].isin(metrics)])
    }
    there = {method for _, method in rows}
    known = [[name for name in words if name in there] for words in groups.values()]
    lines = [name for own in known for name in own]
    if not lines:
        raise DataError("The table of gains holds none of the rows to draw.")
    first = {own[0]: what for own, what in zip(known, groups, strict=True) if own}
    words = {name: text for own in groups.values() for name, text in own.items()}
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
        own = canvas.records(shares[shares["metric"] == metric])
        of = {row["prior"]: float(row["value"]) for row in own}
        for place, name in enumerate(lines):
            colour = PALETTE[list(groups).index(_group(groups, name))]
            row = rows.get((metric, name), {})
            _draw_row(axes, place, row, colour, of.get(name, math.nan))
            if name in first and place:
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


def _group(groups: Mapping[str, Words], name: str) -> str:
    return next(what for what, words in groups.items() if name in words)


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
