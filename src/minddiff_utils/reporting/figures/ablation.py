"""Figures of the ablation: what each feature is worth, and what k costs or gains.

Drawing only. Place in the flow: called by notebooks 05 and 06.
"""

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
    WIDTH,
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

__all__ = ["fig_ablation", "fig_k_quality"]

_NUMBERS = ("value", "ci_low", "ci_high", "n")
_CELLS = ("subject", "method", "metric", *_NUMBERS, "floor")
_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")


# --- the factorial --------------------------------------------------------------------


@styled
def fig_ablation(
    table: pd.DataFrame,
    features: Sequence[str],
    metrics: Mapping[str, str],
) -> Figure:
    """Draw every combination of features as a row of dots, and its scores beside it.

    Parameters
    ----------
    table : DataFrame
        The factorial of T2: columns subject, method, metric, value, ci_low, ci_high, n,
        floor and one per feature with 1 or 0; the rows "all", or of the only subject.
        A combination without a value keeps its row, with the words "not run".
    features : sequence of str
        Columns of the features, in the order shown.
    metrics : mapping of str to str
        Name -> words, in the order shown.

    Raises
    ------
    DataError
        A column, a metric or every score is missing, or one combination has two names.
    """
    check_table(table, (*_CELLS, *features), "The table of the ablation")
    rows, whose = pooled_rows(table, "The table of the ablation")
    cells = _ordered_cells(rows, features)
    scored = rows[
        np.isfinite(rows["value"].astype(float)) & rows["metric"].isin(metrics)
    ]
    check_table(scored, (), f"The ablation's scores by {', '.join(metrics)}")
    page = Page(
        f"What {', '.join(features[:-1])} and {features[-1]} are worth, in every "
        "combination",
        _ablation_note(table, scored, whose, features[-1]),
    )
    figure = new_figure(page, 1.7 + 0.27 * len(cells))
    dots = 0.36 * len(features)
    widths = [dots, *[(WIDTH - dots) / len(metrics)] * len(metrics)]
    grid: dict[str, Any] = {"width_ratios": widths}
    panels = figure.subplots(1, len(widths), sharey=True, gridspec_kw=grid)
    _draw_presence(panels[0], cells, features)
    for axes, (metric, words) in zip(panels[1:], metrics.items(), strict=True):
        own = rows[rows["metric"] == metric].set_index("method")
        _draw_cells(axes, own, cells.iloc[:, -1])
        axes.set_title(wrap(words, 84 / len(metrics)), size=8)
        axes.set_xlabel("score")
    return figure


def _ordered_cells(rows: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
    """Return methods x features, few features first, then in the features' order."""
    names = list(features)
    cells = rows.drop_duplicates("method").set_index("method")[names].astype(int)
    if cells.duplicated().any():
        raise DataError(
            "Two methods have the same features: pass the rows of the factorial alone."
        )
    order = cells.assign(total=cells.sum(axis=1))
    down = [True, *[False] * len(names)]
    order = order.sort_values(["total", *names], ascending=down, kind="stable")
    return order[names]


def _ablation_note(
    table: pd.DataFrame, scored: pd.DataFrame, whose: str, last: str
) -> str:
    return (
        f"{sample_size(table, scored, whose)}, the same images in every row. "
        "Filled: the feature is there. Dot and line: mean and bootstrap interval; "
        f"triangle: floor, shuffled pairs. Blue: without {last}, orange: with it"
    )


def _draw_presence(axes: Axes, cells: pd.DataFrame, features: Sequence[str]) -> None:
    for place, flags in enumerate(cells.to_numpy()):
        axes.axhspan(place - 0.5, place + 0.5, color="0.96" if place % 2 else "white")
        for k, flag in enumerate(flags):
            face = "0.1" if flag else "white"
            edge = "0.1" if flag else "0.6"
            axes.plot(k, place, "o", ms=7, mfc=face, mec=edge, mew=0.9, zorder=3)
        on = np.flatnonzero(flags)
        if len(on) > 1:
            axes.plot([on[0], on[-1]], [place, place], color="0.1", lw=1.5, zorder=2)
    axes.set_xticks(range(len(features)), features)
    axes.set_yticks([])
    axes.set(xlim=(-0.6, len(features) - 0.4), ylim=(len(cells) - 0.5, -0.5))
    axes.set_xlabel("feature used")
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _draw_cells(axes: Axes, own: pd.DataFrame, last: pd.Series) -> None:
    """Draw the scores; `last` says by method whether the last feature is there."""
    flags = zip(last.index.astype(str), last.to_numpy(), strict=True)
    for place, (name, flag) in enumerate(flags):
        axes.axhspan(
            place - 0.5, place + 0.5, color="0.96" if place % 2 else "white", zorder=0
        )
        value = float(own["value"].get(name, np.nan))
        if not np.isfinite(value):
            at: dict[str, Any] = {"transform": axes.get_yaxis_transform()}
            axes.text(0.03, place, "not run", va="center", size=7, color=GRAY, **at)
            continue
        row = own.loc[name]
        colour = PALETTE[1] if flag else PALETTE[0]
        axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, lw=1.6)
        axes.plot(value, place, "o", ms=5.5, color=colour, zorder=3)
        axes.plot(row["floor"], place, "^", ms=4, color="0.55", zorder=2)
    axes.grid(axis="x")
    axes.margins(x=0.08)


# --- k --------------------------------------------------------------------------------


@styled
def fig_k_quality(
    k_table: pd.DataFrame,
    quality: pd.DataFrame,
    words: str,
    *,
    k_chosen: float | None,
) -> Figure:
    """Draw accuracy, information kept and final quality against k, subject by subject.

    Parameters
    ----------
    k_table : DataFrame
        Columns subject, layer, k_percent, r_selected_mean, variance_kept; layers are
        averaged.
    quality : DataFrame
        Columns subject (and, for several, "all"), k_percent, value, ci_low, ci_high, n
        of one metric.
    words : str
        What that metric is.
    k_chosen : float or None
        The k in use, percent; None where cross-validation chose one for each layer.

    Raises
    ------
    DataError
        A column or a row is missing, or `quality` holds a k twice for one subject.
    """
    columns = ("subject", "layer", "k_percent", "r_selected_mean", "variance_kept")
    check_table(k_table, columns, "The table of k")
    check_table(quality, ("subject", "k_percent", *_NUMBERS), "The quality by k")
    if quality.duplicated(["subject", "k_percent"]).any():
        raise DataError("The quality by k has a k twice: pass one metric's rows.")
    pooled, _ = pooled_rows(quality, "The quality by k")
    subjects = subject_order(k_table["subject"].astype(str).tolist())
    page = Page(
        "Selecting k % of the CLIP features: accuracy, information and final quality",
        _k_note(k_table, quality, len(subjects), k_chosen),
    )
    figure = new_figure(page, 3.3)
    panels = figure.subplots(1, 3)
    decoding = _decoding_lines(k_table)
    for axes, name in zip(panels, ("r_selected_mean", "variance_kept"), strict=False):
        own = decoding.rename(columns={name: "y"})
        _draw_lines(axes, own, subjects)
        middle = own.groupby("k_percent")["y"].mean()
        axes.plot(middle.index, middle, color="black", lw=2.2, zorder=3)
    final = quality.rename(columns={"value": "y"})
    single = final[final["subject"].astype(str) != "all"]
    _draw_lines(panels[2], single, subjects)
    _draw_mean(panels[2], pooled.sort_values("k_percent"))
    _k_quality_axes(panels, words, k_chosen)
    _k_legend(panels[1], subjects)
    return figure


def _k_note(
    k_table: pd.DataFrame,
    quality: pd.DataFrame,
    n_subjects: int,
    k_chosen: float | None,
) -> str:
    single = quality[quality["subject"].astype(str) != "all"]
    images = f", {span(single['n'])} images each" if len(single) else ""
    layers = counted(int(k_table["layer"].nunique()), "layer")
    used = "a k for each layer" if k_chosen is None else f"{k_chosen:g} %, dotted"
    return (
        f"n = {counted(n_subjects, 'subject')}; left and middle: mean over {layers}, "
        f"test images, no interval; right{images}, the same at every k: bars are the "
        "bootstrap interval over subjects and images. Thin: single subjects, bold: "
        f"mean. Features are ranked on training images only. k in use: {used}"
    )


def _decoding_lines(k_table: pd.DataFrame) -> pd.DataFrame:
    """Return both decoding curves by subject, layers averaged; variance in percent."""
    table = k_table.assign(
        subject=k_table["subject"].astype(str),
        variance_kept=100 * k_table["variance_kept"],
    )
    values = ["r_selected_mean", "variance_kept"]
    return table.groupby(["subject", "k_percent"])[values].mean().reset_index()


def _draw_lines(axes: Axes, table: pd.DataFrame, subjects: Sequence[str]) -> None:
    for subject, own in table.groupby(table["subject"].astype(str), sort=False):
        line = own.sort_values("k_percent")
        style = _subject_style(subjects, str(subject))
        axes.plot(line["k_percent"], line["y"], **style)


def _subject_style(subjects: Sequence[str], subject: str) -> dict[str, Any]:
    k = list(subjects).index(subject) if subject in subjects else len(subjects)
    look = {"color": PALETTE[k % len(PALETTE)], "marker": _MARKERS[k % len(_MARKERS)]}
    return {**look, "lw": 0.8, "ms": 3.5}


def _draw_mean(axes: Axes, pooled: pd.DataFrame) -> None:
    k, y = pooled["k_percent"], pooled["value"]
    axes.plot(k, y, color="black", lw=2.2, zorder=3)
    axes.vlines(k, pooled["ci_low"], pooled["ci_high"], color="black", lw=1, zorder=3)


def _k_quality_axes(panels: Sequence[Axes], words: str, k_chosen: float | None) -> None:
    accuracy, variance, final = panels
    for axes in panels:
        if k_chosen is not None:
            axes.axvline(k_chosen, color="black", linestyle=":", linewidth=1)
        axes.grid(axis="y")
        axes.set_xlabel("features kept, k (%)")
        axes.set_xlim(0, 104)
    accuracy.set(ylabel="mean correlation r", title="accuracy of those kept")
    variance.set(ylabel="share of variance (%)", title="information kept")
    variance.plot([0, 100], [0, 100], color="0.7", linewidth=0.8, zorder=0)
    final.set(ylabel=wrap(words, 34), title="final quality")


def _k_legend(axes: Axes, subjects: Sequence[str]) -> None:
    keys = [
        Line2D([], [], label=f"subject {s}", **_subject_style(subjects, s))
        for s in subjects
        if s != "all"
    ]
    keys.append(Line2D([], [], color="black", lw=2.2, label="mean"))
    axes.legend(handles=keys, loc="upper left")
