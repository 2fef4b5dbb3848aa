"""Figures of notebooks 05 and 06: methods, subjects, features and k compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.conditions import factorial
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, WIDTH, Words, draws
from minddiff_utils.reporting.wording import counted, percent, span, subject_order, wrap

__all__ = [
    "fig_ablation",
    "fig_comparison",
    "fig_differences",
    "fig_images",
    "fig_k_quality",
    "fig_naming",
    "fig_subjects",
]

_NUMBERS = "value ci_low ci_high n_images n_subjects"
_SCORES = f"subject method metric chance {_NUMBERS}"
_PAIRS = f"subject method reference metric {_NUMBERS}"
_STAGES = {"stage1": ("stage 1", PALETTE[0]), "stage2": ("stage 2", PALETTE[1])}


def _interval(confidence: float) -> str:
    """Return what an interval of these figures is."""
    width = percent(confidence)
    return f"{width} interval, these subjects and new images (t over images)"


# --- methods ------------------------------------------------------------------------


@draws("The table of scores", f"{_SCORES} ceiling")
def fig_comparison(
    table: pd.DataFrame,
    metrics: Words,
    methods: Words,
    *,
    title: str = "Reconstruction quality by method",
    confidence: float = 0.95,
) -> Figure:
    """Draw every method's score with interval, chance level and ceiling, by metric.

    Only methods with as many images as most are drawn: means over different images
    cannot be compared; the note names the others. `table`: from `summaries.summarise`;
    its rows "all" are drawn, or those of the only subject, and several subjects without
    rows "all" are a DataError. `title`: which methods these are.
    """
    rows = canvas.pooled_rows(table, "The table of scores")
    metric_names = canvas.metrics_in(rows, metrics)
    rows = rows[rows["method"].isin(methods) & rows["metric"].isin(metric_names)]
    canvas.check_table(rows, (), f"The table of scores, for {', '.join(methods)},")
    full = rows[rows["n_images"] == rows["n_images"].max()]
    few = [m for m in methods if m in set(rows["method"]) - set(full["method"])]
    names = [m for m in methods if (full["method"] == m).any()]
    left_out = f". On fewer images, and so in T1 alone: {', '.join(few)}" if few else ""
    note = (
        f"{canvas.counts(full)}. Dot and line: mean, {_interval(confidence)}; triangle:"
        " highest chance level on the same images; diamond: ceiling, the same with"
        f" true features{left_out}"
    )
    n_columns = min(3, len(metric_names))
    height = 1.0 + -(-len(metric_names) // n_columns) * (0.55 + 0.3 * len(names))
    words = [wrap(methods[m], 36) for m in names]
    titles = [wrap(metrics[metric], 27) for metric in metric_names]
    page = (title, note, height)
    figure, grid = canvas.rows_by_metric(page, words, titles, "score", n_columns)
    mark: dict[str, Any] = {"linestyle": "", "markersize": 4, "zorder": 2}
    ceiling = mark | {"marker": "D", "color": "0.4", "markerfacecolor": "white"}
    for axes, metric in zip(grid, metric_names, strict=True):
        for row in full[full["metric"] == metric].to_dict("records"):
            place = names.index(row["method"])
            axes.plot(row["chance"], place, marker="^", color="0.6", **mark)
            axes.plot(row["ceiling"], place, **ceiling)
            _, colour = _STAGES.get(row["method"], ("", GRAY))
            canvas.draw_interval(axes, place, row, color=colour, zorder=3)
    return figure


@draws("The table of differences", f"{_PAIRS} smallest_effect")
def fig_differences(
    contrasts: pd.DataFrame,
    metrics: Words,
    rows: Mapping[tuple[str, str, str], str],
    title: str,
    *,
    confidence: float = 0.95,
) -> Figure:
    """Draw paired differences on the same images as a forest plot.

    `contrasts`: from `summaries.contrast_table`; `rows`: (method, reference, subject)
    to the row's words, in the order shown, those that were not run left out. None of
    them in the table: DataError. `title`: what is compared.
    """
    names = canvas.metrics_in(contrasts, metrics)
    keys = contrasts[["method", "reference", "subject"]].astype(str).agg(tuple, axis=1)
    drawn = contrasts.assign(line=keys)[keys.isin(rows)]
    canvas.check_table(drawn, (), "The table of differences, for the rows to draw,")
    lines = [key for key in rows if key in set(keys)]
    note = (
        f"{canvas.counts(drawn)}. Dot and line: mean difference,"
        f" {_interval(confidence)}; filled where it lies on one side of 0; gray bar:"
        " effects that this n would probably not show (power under 80 %)"
    )
    across = len(names) if len(names) < 5 else 3  # numbers of narrow panels touch
    height = 0.27 * len(lines) * -(-len(names) // across)
    titles = [wrap(metrics[metric], 60 / across + 6) for metric in names]
    words, page = [wrap(rows[line], 40) for line in lines], (title, note, 1.2 + height)
    figure, grid = canvas.rows_by_metric(page, words, titles, "difference", across)
    for axes, metric in zip(grid, names, strict=True):
        axes.axvline(0, color="0.3", linewidth=0.8)
        for row in drawn[drawn["metric"] == metric].to_dict("records"):
            place, blind = lines.index(row["line"]), float(row["smallest_effect"])
            if np.isfinite(blind):
                axes.barh(place, 2 * blind, 0.7, left=-blind, color="0.92", zorder=0)
            colour: Any = "black" if row["line"][2] == "all" else PALETTE[0]
            face = colour if canvas.is_shown(row) else "white"
            look = {"color": colour, "markerfacecolor": face, "zorder": 3}
            canvas.draw_interval(axes, place, row, **look)
    return figure


@draws("The table of names", f"metric method category chance ceiling {_NUMBERS}")
def fig_naming(
    table: pd.DataFrame,
    namers: Words,
    methods: Words,
    *,
    by_category: str,
    confidence: float = 0.95,
) -> Figure:
    """Draw the share named rightly by method, and by category for one method.

    `table`: from `evaluation.further.naming_table`, shares from 0 to 1; `namers`: its
    metrics in words; `by_category`: the method whose categories are drawn, as the first
    of `namers` names them.
    """
    whole = table[table["category"] == "all"]
    names = [m for m in methods if (whole["method"] == m).any()]
    who = [m for m in namers if (whole["metric"] == m).any()]
    chosen = (table["metric"] == who[0]) & (table["method"] == by_category)
    kinds = table[chosen & (table["category"] != "all")]
    kinds = kinds.sort_values(["value", "category"], ascending=[False, True])
    most, n = int(whole["n_images"].max()), int(whole["n_subjects"].max())
    note = (
        f"n = {counted(most, 'image')} or fewer in {counted(n, 'subject')}. Bar and"
        f" line: share named rightly and {percent(confidence)} interval over images;"
        " triangle: chance, the same names for other images; diamond: the true images."
        f" Below: each category, by the first, {methods.get(by_category, by_category)}"
    )
    height = 3.4 + 0.27 * len(names)
    figure = canvas.new_figure("Which reconstructions can be named", note, height)
    ratios = [0.9 + 0.27 * len(names), 1.9]
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=ratios).flat
    grid = canvas.panels(above, len(who), len(who), sharey=True)
    for axes, metric in zip(grid, who, strict=True):
        axes.set_title(wrap(namers[metric], 36), size=8)
        _draw_named(axes, whole[whole["metric"] == metric], names)
    words = [wrap(methods[m], 38) for m in names]
    grid[0].set_yticks(range(len(names)), words, size=7)
    grid[0].invert_yaxis()
    axes, places = below.subplots(), np.arange(len(kinds))
    axes.bar(places, kinds["value"], color=PALETTE[0], alpha=0.55)
    axes.plot(places, kinds["ceiling"], "D", color="0.4", mfc="white", markersize=3)
    labels = kinds["category"] + " (" + kinds["n_images"].astype(str) + ")"
    axes.set_xticks(places, labels.tolist(), rotation=90, size=5.5)
    axes.set(xlim=(-0.7, len(kinds) - 0.3), ylim=(0, 1.05), ylabel="share (n images)")
    return figure


def _draw_named(axes: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    axes.set(xlim=(0, 1.02), xlabel="share named rightly")
    axes.grid(axis="x")
    for row in rows[rows["method"].isin(names)].to_dict("records"):
        place = names.index(row["method"])
        colour = PALETTE[0] if row["method"] in _STAGES else GRAY
        axes.barh(place, row["value"], height=0.6, color=colour, alpha=0.55)
        canvas.draw_interval(axes, place, row, color=colour, markersize=2)
        axes.plot(row["chance"], place, "^", color="0.3", markersize=3.5)
        axes.plot(row["ceiling"], place, "D", color="0.4", mfc="white", markersize=3.5)


# --- subjects -----------------------------------------------------------------------


@draws("The table of scores", _SCORES)
def fig_subjects(
    table: pd.DataFrame, metrics: Words, *, confidence: float = 0.95
) -> Figure:
    """Draw stage 1 and stage 2 of every subject with intervals, by metric.

    `table`: from `summaries.summarise`; other methods than the stages are not drawn.
    """
    rows = table[table["method"].isin([*_STAGES])]
    names = canvas.metrics_in(rows, metrics)
    subjects = subject_order(rows["subject"])
    note = (
        f"{canvas.counts(rows)}. Dot and line: mean, {_interval(confidence)}; dash:"
        " highest chance level on the same images"
    )
    figure = canvas.new_figure("Stage 1 and stage 2 in every subject", note, 3.0)
    grid = canvas.panels(figure, len(names), len(names))
    for axes, metric in zip(grid, names, strict=True):
        scored = rows[rows["metric"] == metric].sort_values("method", kind="stable")
        for row in scored.to_dict("records"):
            first = row["method"] == "stage1"
            x = subjects.index(str(row["subject"])) + (-0.14 if first else 0.14)
            look = {"color": _STAGES[row["method"]][1], "linestyle": "-"}
            canvas.draw_interval(axes, x, row, upright=True, **look)
            axes.plot(x, row["chance"], marker="_", markersize=9, color="0.5")
        if "all" in subjects and len(subjects) > 1:
            ends = (len(subjects) - 1.5, len(subjects) - 0.5)
            axes.axvspan(*ends, color="0.95", zorder=0)
        axes.grid(axis="y")
        axes.set_xticks(range(len(subjects)), subjects)
        axes.set(xlim=(-0.5, len(subjects) - 0.5), xlabel="subject", ylabel="score")
        axes.set_title(wrap(metrics[metric], 84 / len(names)), size=8)
    keys = {words: {"color": c, "marker": "o"} for words, c in _STAGES.values()}
    canvas.draw_keys(grid[-1], keys, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@draws()
def fig_images(
    pairs: Mapping[str, pd.DataFrame], *, confidence: float = 0.95
) -> Figure:
    """Draw how well an image was decoded against how well it was reconstructed.

    `pairs`: from `claims.image_pairs`, claim to a table with columns subject, x and y,
    one row per image, whose `attrs` "x", "y" and "rho" name axes and correlation.
    """
    n = max(len(table) for table in pairs.values())
    note = (
        f"n = {counted(n, 'point')}: an image of a subject. Spearman's rho within"
        f" subjects, their mean, {percent(confidence)} interval by the jackknife over"
        " images"
    )
    title = "Are images that are read better reconstructed better?"
    figure = canvas.new_figure(title, note, 3.5)
    grid = canvas.panels(figure, len(pairs), len(pairs))
    for axes, (words, table) in zip(grid, pairs.items(), strict=True):
        canvas.check_table(table, ("subject", "x", "y"), f"The images of {words!r}")
        for k, subject in enumerate(subject_order(table["subject"])):
            own = table[table["subject"].astype(str) == subject]
            look: dict[str, Any] = {"color": PALETTE[k % len(PALETTE)], "alpha": 0.8}
            axes.plot(own["x"], own["y"], "o", ms=3.5, label=subject, mew=0, **look)
        axes.set_title(f"{words}: {table.attrs['rho']}", size=8)
        axes.set(xlabel=table.attrs["x"], ylabel=table.attrs["y"])
        axes.grid()
    grid[-1].legend(title="subject", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


# --- what each feature is worth -----------------------------------------------------


@draws("The table of differences", _PAIRS)
def fig_ablation(
    contrasts: pd.DataFrame,
    features: Sequence[str],
    metrics: Words,
    *,
    reference: str,
    confidence: float = 0.95,
) -> Figure:
    """Draw each combination of features as dots, and its difference from all of them.

    `contrasts`: from `summaries.contrast_table`, every cell of the factorial minus
    `reference`, the cell with all features, which is the line at 0; `features`: in the
    order of the factorial's flags.
    """
    own = contrasts[contrasts["reference"] == reference]
    canvas.check_table(own, (), f"The table of differences from {reference}")
    rows = canvas.pooled_rows(own, "The table of differences")
    rows = rows[rows["metric"].isin(canvas.metrics_in(rows, metrics))]
    flags = dict(sorted(factorial().items(), key=lambda cell: sum(cell[1])))
    cells = pd.DataFrame.from_dict(flags, orient="index", columns=[*features])
    cells = cells.drop(index=reference)
    last = features[-1]
    note = (
        f"{canvas.counts(rows)}, the same images in both parts of a row. Filled: the"
        f" feature is there. Dot and line: mean difference from all {len(features)},"
        f" {_interval(confidence)}. Blue: without {last}, orange: with it"
    )
    title = f"What is lost without {', '.join(features[:-1])} or {last}"
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
        _draw_losses(axes, by_method.reindex(cells.index), cells[last])
        axes.set_title(wrap(words, 84 / len(metrics)), size=8)
        axes.set_xlabel("difference")
    return figure


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
    axes.set(xlim=(-0.6, n_features - 0.4), ylim=(n - 0.5, -0.5), yticks=[])
    axes.set_xlabel("feature used")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _draw_losses(axes: Axes, scores: pd.DataFrame, flags: pd.Series) -> None:
    """Draw one metric's differences; `flags`: whether the last feature is there."""
    axes.axvline(0, color="0.3", linewidth=0.8)
    at: dict[str, Any] = {"transform": axes.get_yaxis_transform()}
    rows = zip(scores.to_dict("records"), flags, strict=True)
    for place, (row, flag) in enumerate(rows):
        if not np.isfinite(float(row["value"])):
            axes.text(0.03, place, "not run", va="center", size=7, color=GRAY, **at)
            continue
        look: dict[str, Any] = {"color": PALETTE[int(flag)], "zorder": 3}
        look |= {"width": 1.6, "markersize": 5.5}
        canvas.draw_interval(axes, place, row, **look)
    axes.grid(axis="x")
    axes.margins(x=0.08)


# --- how many features to keep -------------------------------------------------------

#: Where on the axis of k stands what has none.
_WEIGHTED = 118
_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")


@draws("The table of k", "layer k_percent r_selected_mean identification")
def fig_k_quality(
    k_table: pd.DataFrame,
    differences: pd.DataFrame,
    metrics: Words,
    *,
    k_chosen: float | None,
    confidence: float = 0.95,
) -> Figure:
    """Draw accuracy, identification and final quality against k.

    `k_table`, `k_chosen`: as for `fig_k_selection`, layers averaged; `differences`:
    from `tables.k_differences`. Quality has a panel for decoded and one for true
    Z_CLIP; what is weighted and has no k stands beside the decoded ones.
    """
    curves = ["r_selected_mean", "identification"]
    facts = ("features", "subject", "metric", "n_images", "k_percent")
    needed = (*facts, *canvas.INTERVAL)
    canvas.check_table(differences, needed, "The differences by k")
    pooled = canvas.pooled_rows(differences, "The differences by k")
    n_subjects = counted(canvas.n_subjects_in(k_table), "subject")
    used = "a k for each layer" if k_chosen is None else f"{k_chosen:g} %, dotted"
    note = (
        f"n = {n_subjects}; left and middle: mean over"
        f" {counted(int(k_table['layer'].nunique()), 'layer')}, thin: subjects, bold:"
        " their mean, no interval; identification: pairs of held-out training images."
        f" Quality: {span(pooled['n_images'])} images each, the same at every k, with"
        f" {percent(confidence)} interval for these subjects and new images, filled"
        " where it lies on one side of 0; w: all decoded features, weighted by the"
        " decoder's errors; true: Z_CLIP of the seen image, c and z as decoded."
        " Features are ranked on training images only."
        f" Dashed: the paper's 25 %; k in use: {used}"
    )
    title = "Selecting k % of the CLIP features: accuracy, identification, quality"
    figure = canvas.new_figure(title, note, 3.2)
    accuracy, identification, final, true = panels = figure.subplots(1, 4)
    by_subject = k_table.assign(subject=k_table.get("subject", "1"))
    decoding = by_subject.groupby(["subject", "k_percent"])[curves].mean()
    for axes, name in zip(panels, curves, strict=False):
        wide = decoding[name].unstack("k_percent").T
        axes.plot(wide.index, wide, color=GRAY, lw=0.8, marker="o", ms=2.5)
        axes.plot(wide.index, wide.mean(axis=1), color="black", lw=2.2, zorder=3)
    true.sharey(final)  # so that what is lost can be compared
    rows = pooled[pooled["metric"].isin(metrics)]
    of_true = rows["features"] == "true"
    _draw_gains(final, rows[~of_true], list(metrics))
    _draw_gains(true, rows[of_true], list(metrics))
    for axes in panels:
        axes.axvline(25, color="0.3", linestyle="--", linewidth=0.8, zorder=1)
        if k_chosen is not None:
            axes.axvline(k_chosen, color="0.3", ls=":", lw=1.1, zorder=1)
        axes.grid(axis="y")
        axes.set(xlabel="features kept, k (%)", xlim=(0, 104))
    final.set(xlim=(0, _WEIGHTED + 6), xticks=[0, 50, 100, _WEIGHTED])
    final.set_xticklabels(["0", "50", "100", "w"])
    accuracy.set(ylabel="mean correlation r", title="accuracy of those kept")
    identification.set(ylabel="share of pairs (chance .5)", title="identification")
    largest = f"{k_table['k_percent'].max():g} %"
    final.set(ylabel=f"difference from k = {largest}", title="images, decoded")
    true.set(title="images, true Z_CLIP")
    keys = {
        wrap(words, 16): {"color": PALETTE[i], "marker": _MARKERS[i]}
        for i, words in enumerate(metrics.values())
    }
    canvas.draw_keys(
        final, keys, loc="lower right", frameon=True, framealpha=1, edgecolor="none"
    )
    return figure


def _draw_gains(axes: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    """Draw each metric's differences, beside each other."""
    axes.axhline(0, color="0.3", linewidth=0.8)
    for row in rows.to_dict("records"):
        place = names.index(row["metric"])
        look: dict[str, Any] = {"color": PALETTE[place], "marker": _MARKERS[place]}
        look["markerfacecolor"] = PALETTE[place] if canvas.is_shown(row) else "white"
        k = _WEIGHTED if row["features"] == "weighted" else row["k_percent"]
        x = k + 2.2 * (place - (len(names) - 1) / 2)
        canvas.draw_interval(axes, x, row, upright=True, zorder=3, **look)
