"""Figures of the study of stage 2: quality against cost, and who is no worse than whom.

Drawing only. Place in the flow: called by appendix notebook A3.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures.canvas import (
    GRAY,
    PALETTE,
    Page,
    check_table,
    counted,
    new_figure,
    span,
    styled,
    subject_order,
)

__all__ = ["fig_no_worse", "fig_pareto"]

_WORDS = {
    "structural_loss": "structural loss",
    "ssim_2d": "SSIM",
    "pcc": "pixel correlation (PCC)",
    "clip_judge": "CLIP similarity (judge)",
}
_POINTS = ("method", "metric", "value", "low", "high", "cost", "n", "n_subjects")
_VERDICTS = (
    *("subject", "method", "reference", "metric", "value", "low", "high"),
    *("margin", "verdict", "n"),
)
_MARKS = {"no worse": "o", "not shown": "D", "worse": "X"}


def _metrics(table: pd.DataFrame) -> list[str]:
    found = [name for name in _WORDS if name in set(table["metric"])]
    if not found:
        raise DataError("The study's table has none of the endpoints: run it again.")
    return found


#: The eighth colour is gray, which is for controls.
_OWN = (*PALETTE[:7], *PALETTE[8:])


def _colours(names: list[str], shown: Mapping[str, str]) -> dict[str, Any]:
    """Return a colour per named method; the others are gray."""
    own = [name for name in names if name in shown]
    return {name: _OWN[k % len(_OWN)] for k, name in enumerate(own)}


@styled
def fig_pareto(
    points: pd.DataFrame,
    shown: Mapping[str, str],
    *,
    confidence: float,
) -> Figure:
    """Draw every endpoint against the U-Net evaluations of an image.

    Parameters
    ----------
    points : DataFrame
        Columns method, metric, value, low, high, cost, n, n_subjects.
    shown : mapping of str to str
        Methods with a colour of their own, and their words; others are gray.
    confidence : float
        Of the intervals.

    Raises
    ------
    DataError
        A column or every endpoint is missing, or there is no row.
    """
    check_table(points, _POINTS, "The table of quality and cost")
    metrics = _metrics(points)
    subjects = counted(int(points["n_subjects"].max()), "subject")
    note = (
        f"n = {span(points['n'])} images of {subjects}; bars: {confidence:.0%} "
        "bootstrap interval over subjects and images. A guided step counts two "
        "evaluations; gradients are not counted. Gray: controls"
    )
    page = Page("Quality against cost in stage 2", note)
    figure = new_figure(page, 5.4)
    grid = figure.subplots(2, 2, sharex=True).ravel()
    names = list(dict.fromkeys(points["method"].astype(str)))
    colours = _colours(names, shown)
    for axes, metric in zip(grid, metrics, strict=False):
        own = points[points["metric"] == metric]
        _draw_points(axes, own, shown, colours)
        better = "lower" if metric == "structural_loss" else "higher"
        axes.set(title=f"{_WORDS[metric]} ({better} is better)", xscale="log")
        axes.grid(axis="both")
    for axes in grid[len(metrics) :]:
        axes.remove()
    for axes in grid[-2:]:
        axes.set_xlabel("U-Net evaluations per image")
    handles, words = grid[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside right center")
    return figure


def _draw_points(
    axes: Axes,
    own: pd.DataFrame,
    shown: Mapping[str, str],
    colours: Mapping[str, Any],
) -> None:
    for row in _records(own):
        name, value = str(row["method"]), float(row["value"])
        known = name in shown
        bars = np.array([[value - float(row["low"])], [float(row["high"]) - value]])
        axes.errorbar(
            [float(row["cost"])],
            [value],
            yerr=np.maximum(np.nan_to_num(bars), 0),
            color=colours.get(name, GRAY),
            marker="o" if known else ".",
            markersize=6 if known else 4,
            linestyle="",
            elinewidth=1,
            label=shown.get(name),
            zorder=3 if known else 2,
        )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


@styled
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
        From `summaries.non_inferiority`.
    shown : mapping of str to str
        Words for methods and reference.
    reference : str
        The reference whose rows are drawn.
    confidence : float
        Of the one-sided lower bound.

    Raises
    ------
    DataError
        A column or the reference is missing.
    """
    check_table(verdicts, _VERDICTS, "The table of verdicts")
    own = verdicts[verdicts["reference"] == reference]
    check_table(own, _VERDICTS, f"The table of verdicts against {reference}")
    metrics, methods = _metrics(own), list(dict.fromkeys(own["method"].astype(str)))
    subjects = subject_order(own["subject"].astype(str).tolist())
    n = own.loc[own["subject"] != "all", "n"]
    note = (
        f"n = {span(n)} images per subject; intervals from the {confidence:.0%} "
        "one-sided lower to the upper bound; dashed: margin. Circle: no worse, "
        "diamond: not shown, cross: worse"
    )
    title = f"Difference from {shown.get(reference, reference)} (above 0: better)"
    page = Page(title, note)
    figure = new_figure(page, 1.4 + 0.24 * len(subjects) * len(methods))
    grid = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
    for axes, metric in zip(grid, metrics, strict=True):
        _draw_differences(axes, own[own["metric"] == metric], methods, subjects)
        axes.set(title=_WORDS[metric], xlabel="difference")
    grid[0].set_yticks(
        range(len(subjects) * len(methods)),
        [
            f"{shown.get(m, m)}, {'all' if s == 'all' else f'subject {s}'}"
            for m in methods
            for s in subjects
        ],
    )
    grid[0].invert_yaxis()
    return figure


def _draw_differences(
    axes: Axes, own: pd.DataFrame, methods: list[str], subjects: list[str]
) -> None:
    axes.axvline(0, color="0.3", linewidth=0.7)
    axes.axvline(-float(own["margin"].iloc[0]), color="0.3", lw=0.7, linestyle="--")
    for row in _records(own):
        k = methods.index(str(row["method"]))
        place = k * len(subjects) + subjects.index(str(row["subject"]))
        ends = [float(row["low"]), float(row["high"])]
        axes.plot(ends, [place, place], color=PALETTE[k], linewidth=1.4)
        mark = {"color": PALETTE[k], "marker": _MARKS[str(row["verdict"])]}
        axes.plot([float(row["value"])], [place], markersize=5, **mark)
    axes.grid(axis="x")
