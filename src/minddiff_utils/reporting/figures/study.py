"""Figures of the study of stage 2: quality against cost, and who is no worse."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE
from minddiff_utils.reporting.wording import counted, span, subject_order

__all__ = ["fig_no_worse", "fig_pareto"]

_WORDS = {
    "structural_loss": "structural loss",
    "ssim_2d": "SSIM",
    "pcc": "pixel correlation (PCC)",
    "clip_judge": "CLIP similarity (judge)",
}
_NUMBERS = ("value", "low", "high")
_INTERVAL = ("value", "ci_low", "ci_high")
_MARKS = {"better": "o", "no worse": "o", "not shown": "D", "worse": "X"}
#: The eighth colour is gray, which is for controls.
_COLOURS = (*PALETTE[:7], *PALETTE[8:])


def _metrics(table: pd.DataFrame) -> list[str]:
    names = [name for name in _WORDS if name in set(table["metric"])]
    if not names:
        raise DataError("The study's table has none of the endpoints: run it again.")
    return names


@canvas.styled
def fig_pareto(
    points: pd.DataFrame, shown: Mapping[str, str], *, confidence: float
) -> Figure:
    """Draw every endpoint against the U-Net evaluations of an image.

    Parameters
    ----------
    points : DataFrame
        Columns method, metric, value, low, high, cost, n_images, n_subjects.
    shown : mapping of str to str
        Methods with a colour of their own, and their words; others are gray.
    confidence : float
        Of the intervals.

    Raises
    ------
    DataError
        A column or every endpoint is missing, or there is no row.
    """
    needed = ("method", "metric", *_NUMBERS, "cost", "n_images", "n_subjects")
    canvas.check_table(points, needed, "The table of quality and cost")
    metrics = _metrics(points)
    subjects = counted(int(points["n_subjects"].max()), "subject")
    note = (
        f"n = {span(points['n_images'])} images, {subjects}; bars: {confidence:.0%} "
        "interval for these subjects and new images. A guided step counts two "
        "evaluations; gradients are not counted. Gray: controls, upward triangles with "
        "true features, downward ones with another image's, dots other variants. "
        "Points of one cost stand side by side. Intervals of two arms may overlap "
        "where their difference on the same images is clear: that has its own figures"
    )
    figure = canvas.new_figure("Quality against cost in stage 2", note, 5.4)
    grid = canvas.panels(figure, len(metrics), 2, sharex=True)
    named = [name for name in dict.fromkeys(points["method"]) if name in shown]
    colours = {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(named)}
    beside = _side_by_side(points[points["method"].isin(named)])
    for axes, metric in zip(grid, metrics, strict=True):
        for row in canvas.records(points[points["metric"] == metric]):
            place = float(row["cost"]) * beside.get(row["method"], 1.0)
            _draw_point(axes, row | {"cost": place}, shown, colours)
        better = "lower" if metric == "structural_loss" else "higher"
        axes.set(title=f"{_WORDS[metric]} ({better} is better)", xscale="log")
        axes.xaxis.set_major_formatter("{x:,.0f}")  # no mathematics in our style
        axes.grid(axis="both")
    for axes in grid[-2:]:
        axes.set_xlabel("U-Net evaluations per image")
    handles, words = grid[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside right center")
    return figure


def _side_by_side(points: pd.DataFrame) -> dict[str, float]:
    """Return each arm's shift in cost, a factor, where several cost the same."""
    costs = points.groupby("method", sort=False)["cost"].first().sort_values()
    steps = np.diff(np.log(costs.to_numpy(np.float64)), prepend=np.nan)
    group = pd.Series(~(steps < 0.1), costs.index).cumsum()  # within a tenth
    place = (
        group.groupby(group).cumcount()
        - (group.groupby(group).transform("size") - 1) / 2
    )
    return {str(name): float(1.2**k) for name, k in place.items()}


def _draw_point(
    axes: Axes,
    row: Mapping[Any, Any],
    shown: Mapping[str, str],
    colours: Mapping[str, Any],
) -> None:
    name, value = row["method"], float(row["value"])
    bars = np.array([[value - float(row["low"])], [float(row["high"]) - value]])
    control = {"_true": "^", "_shuffled": "v"}
    mark = next((m for end, m in control.items() if str(name).endswith(end)), ".")
    look: dict[str, Any] = {"marker": mark, "markersize": 4, "color": GRAY, "zorder": 2}
    if name in shown:
        look = {"marker": "o", "markersize": 6, "color": colours[name], "zorder": 3}
    look |= {"linestyle": "", "elinewidth": 1, "label": shown.get(name)}
    yerr = np.maximum(np.nan_to_num(bars), 0)
    axes.errorbar([float(row["cost"])], [value], yerr=yerr, **look)


@canvas.styled
def fig_no_worse(
    verdicts: pd.DataFrame,
    shown: Mapping[str, str],
    *,
    reference: str,
    confidence: float,
) -> Figure:
    """Draw how far each engine is from the reference, with the margins.

    Parameters
    ----------
    verdicts : DataFrame
        From `stage2_engines.confirm`.
    shown : mapping of str to str
        Words for methods and reference.
    reference : str
        The reference whose rows are drawn.
    confidence : float
        Of the intervals.

    Raises
    ------
    DataError
        A column or the reference is missing.
    """
    needed = (
        "subject",
        "method",
        "reference",
        "metric",
        *_INTERVAL,
        "margin",
        "verdict",
    )
    canvas.check_table(verdicts, (*needed, "n_images"), "The table of verdicts")
    rows = verdicts[verdicts["reference"] == reference]
    canvas.check_table(rows, (), f"The table of verdicts against {reference}")
    metrics, methods = _metrics(rows), list(dict.fromkeys(rows["method"].astype(str)))
    lines = [(m, s) for m in methods for s in subject_order(rows["subject"])]
    note = (
        f"n = {span(rows['n_images'])} images; lines: {confidence:.0%} intervals;"
        " dashed: margin. Circle: better or no worse, diamond: not shown, cross: worse"
    )
    title = f"Difference from {shown.get(reference, reference)} (above 0: better)"
    page = (title, note, 1.4 + 0.24 * len(lines))
    words = [f"{shown.get(m, m)}, {_whose(subject)}" for m, subject in lines]
    titles, n = [_WORDS[metric] for metric in metrics], len(metrics)
    figure, grid = canvas.rows_by_metric(page, words, titles, "difference", n)
    for axes, metric in zip(grid, metrics, strict=True):
        drawn = rows[rows["metric"] == metric]
        axes.axvline(0, color="0.3", linewidth=0.7)
        margin = -float(drawn["margin"].iloc[0])
        axes.axvline(margin, color="0.3", lw=0.7, linestyle="--")
        for row in canvas.records(drawn):
            method, numbers = str(row["method"]), [row[name] for name in _INTERVAL]
            look: dict[str, Any] = {"marker": _MARKS[str(row["verdict"])]}
            look["color"] = PALETTE[methods.index(method)]
            place = lines.index((method, str(row["subject"])))
            canvas.draw_interval(axes, place, numbers, width=1.4, **look)
    return figure


def _whose(subject: str) -> str:
    return "all" if subject == "all" else f"subject {subject}"
