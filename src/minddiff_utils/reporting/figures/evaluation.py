"""Figures of notebook 05: methods and subjects compared, with intervals.

Drawing only. Place in the flow: called by notebooks 05 and 06.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures.canvas import (
    GRAY,
    PALETTE,
    Page,
    check_table,
    counted,
    new_figure,
    pooled_rows,
    sample_size,
    span,
    styled,
    subject_order,
    wrap,
)

__all__ = [
    "fig_comparison",
    "fig_paired",
    "fig_quality_vs_accuracy",
    "fig_subjects",
]

_SCORES = ("subject", "method", "metric", "value", "ci_low", "ci_high", "n")
_PAIRED = ("subject", "contrast", "metric", "value", "ci_low", "ci_high", "n")
_BOTH = {"stage1": ("stage 1", PALETTE[0]), "stage2": ("stage 2", PALETTE[1])}


def _metrics_in(table: pd.DataFrame, metrics: Mapping[str, str]) -> list[str]:
    found = [name for name in metrics if (table["metric"] == name).any()]
    if not found:
        raise DataError(
            f"The table holds none of the metrics {', '.join(metrics)}: "
            "name metrics that were scored."
        )
    return found


def _interval(axes: Axes, row: pd.Series, place: float, **style: Any) -> None:
    """Draw a dot with its horizontal interval; without interval, the dot alone."""
    value = float(row["value"])
    low, high = float(row["ci_low"]), float(row["ci_high"])
    if np.isfinite(low) and np.isfinite(high):
        axes.plot([low, high], [place, place], color=style["color"], linewidth=1.5)
    axes.plot(value, place, linestyle="", markersize=5, **{"marker": "o"} | style)


def _panels(figure: Figure, n: int, n_columns: int) -> list[Axes]:
    n_rows = -(-n // n_columns)
    grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.set_axis_off()
    return list(grid[:n])


# --- methods ------------------------------------------------------------------------


@styled
def fig_comparison(
    table: pd.DataFrame,
    metrics: Mapping[str, str],
    methods: Mapping[str, str],
) -> Figure:
    """Draw every method's score, with interval, floor and ceiling, by metric.

    Parameters
    ----------
    table : DataFrame
        Columns subject, method, metric, value, ci_low, ci_high, n, floor, ceiling; the
        rows "all" are drawn, or those of the only subject.
    metrics, methods : mapping of str to str
        Name -> words, in the order shown.
    """
    check_table(table, (*_SCORES, "floor", "ceiling"), "The table of scores")
    rows, whose = pooled_rows(table, "The table of scores")
    metric_names = _metrics_in(rows, metrics)
    names = [m for m in methods if (rows["method"] == m).any()]
    if not names:
        raise DataError(f"The table holds none of the methods {', '.join(methods)}.")
    n_columns = min(3, len(metric_names))
    n_rows = -(-len(metric_names) // n_columns)
    note = (
        f"{sample_size(table, rows, whose)}. Dot and line: mean and "
        "bootstrap interval; triangle: floor, shuffled pairs; diamond: ceiling, the "
        "same with true features"
    )
    page = Page("Reconstruction quality by method", note)
    figure = new_figure(page, 1.0 + n_rows * (0.55 + 0.3 * len(names)))
    for axes, metric in zip(
        _panels(figure, len(metric_names), n_columns), metric_names, strict=True
    ):
        own = rows[rows["metric"] == metric]
        _draw_methods(axes, own, names)
        axes.set_yticks(range(len(names)), [wrap(methods[m], 30) for m in names])
        axes.set_title(wrap(metrics[metric], 27), size=8)
        axes.set_xlabel("score")
    figure.axes[0].invert_yaxis()
    return figure


def _draw_methods(axes: Axes, own: pd.DataFrame, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        for _, row in own[own["method"] == name].iterrows():
            colour = _BOTH.get(name, (name, GRAY))[1]
            edge: dict[str, Any] = {"linestyle": "", "markersize": 4, "zorder": 2}
            axes.plot(row["floor"], place, marker="^", color="0.6", **edge)
            mark = {"marker": "D", "color": "0.4", "markerfacecolor": "white"}
            axes.plot(row["ceiling"], place, **mark | edge)
            _interval(axes, row, place, color=colour, zorder=3)
    axes.grid(axis="x")
    axes.set_ylim(-0.6, len(names) - 0.4)


@styled
def fig_paired(
    paired: pd.DataFrame, metrics: Mapping[str, str]
) -> Figure:
    """Draw paired differences by subject and over all: a forest plot.

    Parameters
    ----------
    paired : DataFrame
        Columns subject, contrast, metric, value, ci_low, ci_high, p_permutation, n.
    metrics : mapping of str to str
        Name -> words, in the order shown.
    """
    check_table(paired, (*_PAIRED, "p_permutation"), "The table of differences")
    names = _metrics_in(paired, metrics)
    contrasts = list(dict.fromkeys(paired["contrast"].astype(str)))
    lines = [
        (contrast, subject)
        for contrast in contrasts
        for subject in subject_order(
            paired.loc[paired["contrast"] == contrast, "subject"].tolist()
        )
    ]
    single = paired[paired["subject"].astype(str) != "all"]
    n = f"n = {span(single['n'])} images per subject; " if len(single) else ""
    note = (
        f"{n}dot and line: mean difference and bootstrap interval, for 'all' over "
        "subjects and images; filled: p <= 0.05 (paired permutation), open: above"
    )
    what = _in_words(contrasts[0]) if len(contrasts) == 1 else "paired differences"
    figure = new_figure(
        Page(f"Same images, two methods: {what}", note), 1.2 + 0.24 * len(lines)
    )
    several = len(contrasts) > 1
    for axes, metric in zip(
        _panels(figure, len(names), len(names)), names, strict=True
    ):
        _forest(axes, paired[paired["metric"] == metric], lines)
        words = [f"{c}: {s}" if several else _whose(s) for c, s in lines]
        axes.set_yticks(range(len(lines)), words)
        axes.set_title(wrap(metrics[metric], 60 / len(names) + 6), size=8)
        axes.set_xlabel("difference")
    figure.axes[0].invert_yaxis()
    return figure


def _in_words(contrast: str) -> str:
    """Return "stage 2 minus stage 1" for "stage2 - stage1"."""
    return re.sub(r"stage(\d)", r"stage \1", contrast).replace(" - ", " minus ")


def _whose(subject: str) -> str:
    return "all subjects" if subject == "all" else f"subject {subject}"


def _forest(axes: Axes, own: pd.DataFrame, lines: Sequence[tuple[str, str]]) -> None:
    axes.axvline(0, color="0.3", linewidth=0.8)
    for place, (contrast, subject) in enumerate(lines):
        same = (own["contrast"] == contrast) & (own["subject"].astype(str) == subject)
        for _, row in own[same].iterrows():
            pooled = subject == "all"
            colour = "black" if pooled else PALETTE[0]
            filled = float(row["p_permutation"]) <= 0.05
            face = colour if filled else "white"
            marker = "D" if pooled else "o"
            style = {"color": colour, "marker": marker, "markerfacecolor": face}
            _interval(axes, row, place, zorder=3, **style)
        if subject == "all":
            axes.axhspan(place - 0.45, place + 0.45, color="0.95", zorder=0)
    axes.grid(axis="x")
    axes.set_ylim(-0.6, len(lines) - 0.4)


# --- subjects -----------------------------------------------------------------------


@styled
def fig_subjects(
    table: pd.DataFrame, metrics: Mapping[str, str]
) -> Figure:
    """Draw stage 1 and stage 2 of every subject with intervals, by metric.

    Parameters
    ----------
    table : DataFrame
        Columns subject, method, metric, value, ci_low, ci_high, n and floor; methods
        stage1 and stage2 are drawn.
    metrics : mapping of str to str
        Name -> words, in the order shown.
    """
    check_table(table, (*_SCORES, "floor"), "The table of scores")
    rows = table[table["method"].isin(list(_BOTH))]
    names = _metrics_in(rows, metrics)
    subjects = subject_order(rows["subject"].tolist())
    single = rows[rows["subject"].astype(str) != "all"]
    n = f"n = {span(single['n'])} images per subject; " if len(single) else ""
    note = (
        f"{n}dot and line: mean and bootstrap interval, for 'all' over subjects and "
        "images; dash: floor, shuffled pairs"
    )
    page = Page("Stage 1 and stage 2 in every subject", note)
    figure = new_figure(page, 3.0)
    grid = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, metric in zip(grid, names, strict=True):
        _draw_subjects(axes, rows[rows["metric"] == metric], subjects)
        axes.set_xticks(range(len(subjects)), subjects)
        axes.set(xlabel="subject", ylabel="score")
        axes.set_title(wrap(metrics[metric], 84 / len(names)), size=8)
    keys = [
        Line2D([], [], color=colour, marker="o", label=words)
        for words, colour in _BOTH.values()
    ]
    grid[-1].legend(handles=keys, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _draw_subjects(axes: Axes, own: pd.DataFrame, subjects: Sequence[str]) -> None:
    for (method, (_, colour)), shift in zip(_BOTH.items(), (-0.14, 0.14), strict=True):
        for _, row in own[own["method"] == method].iterrows():
            x = subjects.index(str(row["subject"])) + shift
            axes.plot([x, x], [row["ci_low"], row["ci_high"]], color=colour, lw=1.5)
            axes.plot(x, row["value"], marker="o", markersize=5, color=colour)
            axes.plot(x, row["floor"], marker="_", markersize=9, color="0.5")
    if "all" in subjects and len(subjects) > 1:
        axes.axvspan(len(subjects) - 1.5, len(subjects) - 0.5, color="0.95", zorder=0)
    axes.set_xlim(-0.5, len(subjects) - 0.5)
    axes.grid(axis="y")


@styled
def fig_quality_vs_accuracy(
    accuracy: pd.DataFrame, table: pd.DataFrame
) -> Figure:
    """Draw each subject's reconstruction quality against its decoding accuracy.

    Parameters
    ----------
    accuracy : DataFrame
        Columns subject, feature, r_mean and, if any, area_set ("all" is used).
    table : DataFrame
        Columns subject, method, metric, value, ci_low, ci_high, n; stage 2's
        similarity to the seen image in the judge's CLIP is drawn.
    """
    check_table(accuracy, ("subject", "feature", "r_mean"), "The table of accuracies")
    check_table(table, _SCORES, "The table of scores")
    if "area_set" in accuracy and (accuracy["area_set"] == "all").any():
        accuracy = accuracy[accuracy["area_set"] == "all"]
    mean = accuracy.groupby(accuracy["subject"].astype(str))["r_mean"].mean()
    rows = table[(table["method"] == "stage2") & (table["metric"] == "clip_judge")]
    rows = rows[rows["subject"].astype(str).isin(mean.index)]
    check_table(rows, _SCORES, "Stage 2's judge CLIP of these subjects")
    note = (
        f"n = {counted(len(rows), 'subject')}, {span(rows['n'])} images each; x: mean "
        f"r over {counted(accuracy['feature'].nunique(), 'feature')}; line: bootstrap "
        "interval over images; no line is fitted to so few subjects"
    )
    page = Page("Does quality follow decoding accuracy?", note)
    figure = new_figure(page, 3.6, 4.4)
    axes = figure.subplots()
    for k, (_, row) in enumerate(rows.iterrows()):
        x, colour = float(mean[str(row["subject"])]), PALETTE[k % len(PALETTE)]
        axes.plot([x, x], [row["ci_low"], row["ci_high"]], color=colour)
        words = f"subject {row['subject']}"
        axes.plot(x, row["value"], marker="o", ls="", color=colour, label=words)
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    axes.legend(ncols=4, frameon=False, handletextpad=0.1, columnspacing=0.8, **place)
    axes.grid()
    axes.margins(x=0.15, y=0.1)
    axes.set(xlabel="decoding accuracy, mean correlation r")
    axes.set_ylabel("stage 2, CLIP similarity (judge)")
    return figure
