"""Figures of notebook 05: methods, subjects and features compared, with intervals."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, WIDTH
from minddiff_utils.reporting.wording import counted, span, subject_order, wrap

__all__ = [
    "fig_ablation",
    "fig_comparison",
    "fig_paired",
    "fig_quality_vs_accuracy",
    "fig_subjects",
]

_NUMBERS = ["value", "ci_low", "ci_high"]
_SCORES = ("subject", "method", "metric", *_NUMBERS, "n")
_STAGES = {"stage1": ("stage 1", PALETTE[0]), "stage2": ("stage 2", PALETTE[1])}


def _metrics_in(table: pd.DataFrame, metrics: Mapping[str, str]) -> list[str]:
    names = [name for name in metrics if (table["metric"] == name).any()]
    if not names:
        raise DataError(
            f"The table holds none of the metrics {', '.join(metrics)}: "
            "name metrics that were scored."
        )
    return names


# --- methods ------------------------------------------------------------------------


@canvas.styled
def fig_comparison(
    table: pd.DataFrame, metrics: Mapping[str, str], methods: Mapping[str, str]
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
    canvas.check_table(table, (*_SCORES, "floor", "ceiling"), "The table of scores")
    rows, whose = canvas.pooled_rows(table, "The table of scores")
    metric_names = _metrics_in(rows, metrics)
    names = [m for m in methods if (rows["method"] == m).any()]
    if not names:
        raise DataError(f"The table holds none of the methods {', '.join(methods)}.")
    note = (
        f"{canvas.sample_size(table, rows, whose)}. Dot and line: mean and "
        "bootstrap interval; triangle: floor, shuffled pairs; diamond: ceiling, the "
        "same with true features"
    )
    n_columns = min(3, len(metric_names))
    height = 1.0 + -(-len(metric_names) // n_columns) * (0.55 + 0.3 * len(names))
    page = ("Reconstruction quality by method", note, height)
    words = [wrap(methods[m], 30) for m in names]
    titles = [wrap(metrics[metric], 27) for metric in metric_names]
    figure, grid = canvas.rows_by_metric(page, words, titles, "score", n_columns)
    for axes, metric in zip(grid, metric_names, strict=True):
        scored = rows[(rows["metric"] == metric) & rows["method"].isin(names)]
        for row in canvas.records(scored):
            _draw_method(axes, row, names.index(row["method"]))
    return figure


def _draw_method(axes: Axes, row: Mapping[Any, Any], place: int) -> None:
    mark: dict[str, Any] = {"linestyle": "", "markersize": 4, "zorder": 2}
    axes.plot(row["floor"], place, marker="^", color="0.6", **mark)
    mark |= {"marker": "D", "color": "0.4", "markerfacecolor": "white"}
    axes.plot(row["ceiling"], place, **mark)
    _, colour = _STAGES.get(row["method"], ("", GRAY))
    numbers = [row[name] for name in _NUMBERS]
    canvas.draw_interval(axes, place, numbers, color=colour, zorder=3)


@canvas.styled
def fig_paired(paired: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """Draw paired differences by subject and over all: a forest plot.

    Parameters
    ----------
    paired : DataFrame
        Columns subject, contrast, metric, value, ci_low, ci_high, p_permutation, n.
    metrics : mapping of str to str
        Name -> words, in the order shown.
    """
    needed = ("subject", "contrast", "metric", *_NUMBERS, "n", "p_permutation")
    canvas.check_table(paired, needed, "The table of differences")
    names = _metrics_in(paired, metrics)
    lines = [
        (contrast, subject)
        for contrast, block in paired.groupby("contrast", sort=False)
        for subject in subject_order(block["subject"])
    ]
    note = (
        f"{canvas.images_per_subject(paired)}dot and line: mean difference and "
        "bootstrap interval, for 'all' over subjects and images; filled: p <= 0.05 "
        "(paired permutation), open: above"
    )
    if paired["contrast"].nunique() == 1:
        words = [_whose(subject) for _, subject in lines]
        # "stage2 - stage1": "stage 2 minus stage 1"
        what = re.sub(r"stage(\d)", r"stage \1", str(lines[0][0]))
        what = what.replace(" - ", " minus ")
    else:
        words, what = [f"{c}: {s}" for c, s in lines], "paired differences"
    page = (f"Same images, two methods: {what}", note, 1.2 + 0.24 * len(lines))
    n = len(names)
    titles = [wrap(metrics[metric], 60 / n + 6) for metric in names]
    figure, grid = canvas.rows_by_metric(page, words, titles, "difference", n)
    for axes, metric in zip(grid, names, strict=True):
        axes.axvline(0, color="0.3", linewidth=0.8)
        for row in canvas.records(paired[paired["metric"] == metric]):
            line = (row["contrast"], str(row["subject"]))
            _draw_difference(axes, row, lines.index(line))
    return figure


def _whose(subject: str) -> str:
    return "all subjects" if subject == "all" else f"subject {subject}"


def _draw_difference(axes: Axes, row: Mapping[Any, Any], place: int) -> None:
    look = {"color": PALETTE[0], "marker": "o"}
    if str(row["subject"]) == "all":
        look = {"color": "black", "marker": "D"}
        axes.axhspan(place - 0.45, place + 0.45, color="0.95", zorder=0)
    is_small = float(row["p_permutation"]) <= 0.05
    look["markerfacecolor"] = look["color"] if is_small else "white"
    canvas.draw_interval(
        axes, place, [row[name] for name in _NUMBERS], zorder=3, **look
    )


# --- subjects -----------------------------------------------------------------------


@canvas.styled
def fig_subjects(table: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """Draw stage 1 and stage 2 of every subject with intervals, by metric.

    Parameters
    ----------
    table : DataFrame
        Columns subject, method, metric, value, ci_low, ci_high, n and floor; methods
        stage1 and stage2 are drawn.
    metrics : mapping of str to str
        Name -> words, in the order shown.
    """
    canvas.check_table(table, (*_SCORES, "floor"), "The table of scores")
    rows = table[table["method"].isin([*_STAGES])]
    names = _metrics_in(rows, metrics)
    subjects = subject_order(rows["subject"])
    note = (
        f"{canvas.images_per_subject(rows)}dot and line: mean and bootstrap interval, "
        "for 'all' over subjects and images; dash: floor, shuffled pairs"
    )
    figure = canvas.new_figure("Stage 1 and stage 2 in every subject", note, 3.0)
    grid = canvas.panels(figure, len(names), len(names))
    for axes, metric in zip(grid, names, strict=True):
        scored = rows[rows["metric"] == metric]
        for row in canvas.records(scored.sort_values("method", kind="stable")):
            first = row["method"] == "stage1"
            x = subjects.index(str(row["subject"])) + (-0.14 if first else 0.14)
            look = {"color": _STAGES[row["method"]][1], "linestyle": "-"}
            numbers = [row[name] for name in _NUMBERS]
            canvas.draw_interval(axes, x, numbers, upright=True, **look)
            axes.plot(x, row["floor"], marker="_", markersize=9, color="0.5")
        if "all" in subjects and len(subjects) > 1:
            ends = (len(subjects) - 1.5, len(subjects) - 0.5)
            axes.axvspan(*ends, color="0.95", zorder=0)
        axes.set_xlim(-0.5, len(subjects) - 0.5)
        axes.grid(axis="y")
        axes.set_xticks(range(len(subjects)), subjects)
        axes.set(xlabel="subject", ylabel="score")
        axes.set_title(wrap(metrics[metric], 84 / len(names)), size=8)
    keys = {words: {"color": c, "marker": "o"} for words, c in _STAGES.values()}
    canvas.draw_keys(grid[-1], keys, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@canvas.styled
def fig_quality_vs_accuracy(accuracy: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draw each subject's reconstruction quality against its decoding accuracy.

    Parameters
    ----------
    accuracy : DataFrame
        Columns subject, feature, r_mean and, if any, area_set ("all" is used).
    table : DataFrame
        Columns subject, method, metric, value, ci_low, ci_high, n; stage 2's
        similarity to the seen image in the judge's CLIP is drawn.
    """
    canvas.check_table(
        accuracy, ("subject", "feature", "r_mean"), "The table of accuracies"
    )
    canvas.check_table(table, _SCORES, "The table of scores")
    if "area_set" in accuracy and (accuracy["area_set"] == "all").any():
        accuracy = accuracy[accuracy["area_set"] == "all"]
    mean = accuracy.groupby(accuracy["subject"].astype(str))["r_mean"].mean()
    rows = table[(table["method"] == "stage2") & (table["metric"] == "clip_judge")]
    rows = rows[rows["subject"].astype(str).isin(mean.index)]
    canvas.check_table(rows, _SCORES, "Stage 2's judge CLIP of these subjects")
    note = (
        f"n = {counted(len(rows), 'subject')}, {span(rows['n'])} images each; x: mean "
        f"r over {counted(accuracy['feature'].nunique(), 'feature')}; line: bootstrap "
        "interval over images; no line is fitted to so few subjects"
    )
    title = "Does quality follow decoding accuracy?"
    figure = canvas.new_figure(title, note, 3.6, 4.4)
    axes = figure.subplots()
    for k, row in enumerate(canvas.records(rows)):
        x, numbers = float(mean[str(row["subject"])]), [row[name] for name in _NUMBERS]
        look: dict[str, Any] = {"color": PALETTE[k % len(PALETTE)], "markersize": 6}
        look["label"] = f"subject {row['subject']}"
        canvas.draw_interval(axes, x, numbers, upright=True, width=1.2, **look)
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    axes.legend(ncols=4, frameon=False, handletextpad=0.1, columnspacing=0.8, **place)
    axes.grid()
    axes.margins(x=0.15, y=0.1)
    axes.set(xlabel="decoding accuracy, mean correlation r")
    axes.set_ylabel("stage 2, CLIP similarity (judge)")
    return figure


# --- what each feature is worth -----------------------------------------------------


@canvas.styled
def fig_ablation(
    table: pd.DataFrame, features: Sequence[str], metrics: Mapping[str, str]
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
    needed = ("subject", "method", "metric", *_NUMBERS, "n", "floor", *features)
    canvas.check_table(table, needed, "The table of the ablation")
    rows, whose = canvas.pooled_rows(table, "The table of the ablation")
    cells = _ordered_cells(rows, list(features))
    scored = rows[rows["value"].astype(float).notna() & rows["metric"].isin(metrics)]
    canvas.check_table(scored, (), f"The ablation's scores by {', '.join(metrics)}")
    last = features[-1]
    note = (
        f"{canvas.sample_size(table, scored, whose)}, the same images in every row. "
        "Filled: the feature is there. Dot and line: mean and bootstrap interval; "
        f"triangle: floor, shuffled pairs. Blue: without {last}, orange: with it"
    )
    title = (
        f"What {', '.join(features[:-1])} and {last} are worth, in every combination"
    )
    figure = canvas.new_figure(title, note, 1.7 + 0.27 * len(cells))
    dots = 0.36 * len(features)
    widths = [dots, *[(WIDTH - dots) / len(metrics)] * len(metrics)]
    panels = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
    for axes in panels:
        for place in range(len(cells)):
            band = "0.96" if place % 2 else "white"
            axes.axhspan(place - 0.5, place + 0.5, color=band, zorder=0)
    _draw_presence(panels[0], cells)
    for axes, (metric, words) in zip(panels[1:], metrics.items(), strict=True):
        by_method = rows[rows["metric"] == metric].set_index("method")
        _draw_scores(axes, by_method.reindex(cells.index), cells[last])
        axes.set_title(wrap(words, 84 / len(metrics)), size=8)
        axes.set_xlabel("score")
    return figure


def _ordered_cells(rows: pd.DataFrame, features: list[str]) -> pd.DataFrame:
    """Return methods x features, few features first, then in the features' order."""
    cells = rows.drop_duplicates("method").set_index("method")[features].astype(int)
    if cells.duplicated().any():
        raise DataError(
            "Two methods have the same features: pass the rows of the factorial alone."
        )
    order = cells.assign(total=cells.sum(axis=1))
    down = [True, *[False] * len(features)]
    order = order.sort_values(["total", *features], ascending=down, kind="stable")
    return order[features]


def _draw_presence(axes: Axes, cells: pd.DataFrame) -> None:
    n, n_features = cells.shape
    for place, flags in enumerate(cells.to_numpy()):
        for k, flag in enumerate(flags):
            face, edge = ("0.1", "0.1") if flag else ("white", "0.6")
            axes.plot(k, place, "o", ms=7, mfc=face, mec=edge, mew=0.9, zorder=3)
        on = np.flatnonzero(flags)
        if len(on) > 1:
            axes.plot([on[0], on[-1]], [place, place], color="0.1", lw=1.5, zorder=2)
    axes.set_xticks(range(n_features), cells.columns)
    axes.set_yticks([])
    axes.set(xlim=(-0.6, n_features - 0.4), ylim=(n - 0.5, -0.5))
    axes.set_xlabel("feature used")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _draw_scores(axes: Axes, scores: pd.DataFrame, flags: pd.Series) -> None:
    """Draw one metric's scores; `flags`: whether the last feature is there."""
    at: dict[str, Any] = {"transform": axes.get_yaxis_transform()}
    for place, (row, flag) in enumerate(
        zip(canvas.records(scores), flags, strict=True)
    ):
        if not np.isfinite(float(row["value"])):
            axes.text(0.03, place, "not run", va="center", size=7, color=GRAY, **at)
            continue
        look: dict[str, Any] = {"color": PALETTE[int(flag)], "zorder": 3}
        canvas.draw_interval(
            axes, place, [row[n] for n in _NUMBERS], width=1.6, markersize=5.5, **look
        )
        axes.plot(row["floor"], place, "^", ms=4, color="0.55", zorder=2)
    axes.grid(axis="x")
    axes.margins(x=0.08)
