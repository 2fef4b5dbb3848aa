"""Figures of the study of stage 2: quality against cost, and who is no worse."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, Words, draws
from minddiff_utils.reporting.wording import counted, span, subject_order

__all__ = ["fig_no_worse", "fig_pareto"]

_WORDS = {
    "structural_loss": "structural loss",
    "ssim_2d": "SSIM",
    "pcc": "pixel correlation (PCC)",
    "clip_judge": "CLIP similarity (judge)",
}
_MARKS = {"better": "o", "no worse": "o", "not shown": "D", "worse": "X"}
#: The eighth colour is gray, which is for controls.
_COLOURS = (*PALETTE[:7], *PALETTE[8:])


def _metrics(table: pd.DataFrame) -> list[str]:
    names = [name for name in _WORDS if name in set(table["metric"])]
    if not names:
        raise DataError("The study's table has none of the endpoints: run it again.")
    return names


@draws(
    "The table of quality and cost",
    "method metric value low high cost n_images n_subjects",
)
def fig_pareto(points: pd.DataFrame, shown: Words, *, confidence: float) -> Figure:
    """Draw every endpoint against the U-Net evaluations of an image.

    `points`: from `stage2_engines.pareto_table`; `shown`: methods with a colour of
    their own, in words; others are gray.
    """
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
    beside = _side_by_side(points[points["method"].isin(named)])
    for axes, metric in zip(grid, metrics, strict=True):
        for row in canvas.records(points[points["metric"] == metric]):
            name, value = row["method"], float(row["value"])
            bars = np.array([[value - float(row["low"])], [float(row["high"]) - value]])
            control = {"_true": "^", "_shuffled": "v"}
            ends = (mark for end, mark in control.items() if name.endswith(end))
            look: dict[str, Any] = {"marker": next(ends, "."), "markersize": 4}
            look |= {"color": GRAY, "zorder": 2, "linestyle": "", "elinewidth": 1}
            if name in shown:
                colour = _COLOURS[named.index(name) % len(_COLOURS)]
                look |= {"marker": "o", "markersize": 6, "color": colour, "zorder": 3}
            x, yerr = float(row["cost"]) * beside.get(name, 1.0), np.nan_to_num(bars)
            look |= {"label": shown.get(name), "yerr": np.maximum(yerr, 0)}
            axes.errorbar([x], [value], **look)
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
    alike = group.groupby(group)
    place = alike.cumcount() - (alike.transform("size") - 1) / 2
    return {str(name): float(1.2**k) for name, k in place.items()}


@draws(
    "The table of verdicts",
    "subject method reference metric value ci_low ci_high margin verdict n_images",
)
def fig_no_worse(
    verdicts: pd.DataFrame,
    shown: Words,
    *,
    reference: str,
    confidence: float,
) -> Figure:
    """Draw how far each engine is from the reference, with the margins.

    `verdicts`: from `stage2_engines.confirm`, above 0 is better; its rows of
    `reference` are drawn. `shown`: words for methods and reference.
    """
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
    whose = {"all": "all"}
    words = [f"{shown.get(m, m)}, {whose.get(s, f'subject {s}')}" for m, s in lines]
    titles, n = [_WORDS[metric] for metric in metrics], len(metrics)
    figure, grid = canvas.rows_by_metric(page, words, titles, "difference", n)
    for axes, metric in zip(grid, metrics, strict=True):
        drawn = rows[rows["metric"] == metric]
        axes.axvline(0, color="0.3", linewidth=0.7)
        margin = -float(drawn["margin"].iloc[0])
        axes.axvline(margin, color="0.3", lw=0.7, linestyle="--")
        for row in canvas.records(drawn):
            method, place = str(row["method"]), (row["method"], str(row["subject"]))
            look: dict[str, Any] = {"marker": _MARKS[str(row["verdict"])]}
            look |= {"color": PALETTE[methods.index(method)], "width": 1.4}
            canvas.draw_interval(axes, lines.index(place), row, **look)
    return figure
