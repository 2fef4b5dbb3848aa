"""Figures of k: what is gained and lost when only the k % best targets are kept."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import (
    GRAY,
    PALETTE,
    Words,
    draws,
    n_subjects_in,
)
from minddiff_utils.reporting.wording import counted, percent, span, wrap

__all__ = ["fig_k_quality", "fig_k_selection"]

#: Where on the axis of k stands what has none.
_WEIGHTED = 118
_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")


@draws(
    "The table of k",
    "layer k_percent r_selected_mean r_cv_selected_mean variance_kept identification",
)
def fig_k_selection(k_table: pd.DataFrame, *, k_chosen: float | None) -> Figure:
    """Draw accuracy and share of variance against the share of targets kept.

    `k_table`: notebook 02's `k_selection`, of one or (column subject) several subjects,
    whose mean is drawn; variance_kept is a share, 0 to 1. `k_chosen`: the k in use,
    percent; None where cross-validation chose one for each layer.
    """
    mean = k_table.groupby(["layer", "k_percent"]).mean(numeric_only=True).reset_index()
    layers = sorted(mean["layer"].unique())
    used = "a k for each layer" if k_chosen is None else "dotted"
    note = (
        f"n = {counted(n_subjects_in(k_table), 'subject')}, "
        f"{counted(len(layers), 'CLIP layer')}; "
        "mean over the targets kept and over subjects, no interval. Targets are ranked "
        "on training images only; identification: pairs of held-out training images, "
        f"chance .5. In use: {used}"
    )
    title = "What is gained and lost when only the k % best targets are kept"
    figure = canvas.new_figure(title, note, 3.1)
    accuracy, variance, identification = panels = figure.subplots(1, 3)
    colours = sns.color_palette("viridis", len(layers))
    for layer, colour in zip(layers, colours, strict=True):
        curve = mean[mean["layer"] == layer].sort_values("k_percent")
        k, line = curve["k_percent"], {"color": colour, "marker": "o", "markersize": 3}
        dashed: Any = line | {"ls": "--", "marker": ""}
        accuracy.plot(k, curve["r_selected_mean"], **line)
        accuracy.plot(k, curve["r_cv_selected_mean"], **dashed)
        variance.plot(k, 100 * curve["variance_kept"], label=f"{layer}", **line)
        identification.plot(k, curve["identification"], **line)
    for axes in panels:
        if k_chosen is not None:
            axes.axvline(k_chosen, color="black", linestyle=":", linewidth=1)
        axes.grid(axis="y")
        axes.set_xlabel("targets kept, k (%)")
    accuracy.set_ylabel("mean correlation r")
    variance.set(ylabel="share of training variance (%)", title="information kept")
    variance.plot([0, 100], [0, 100], color="0.7", linewidth=0.8, zorder=0)
    accuracy.set_title("accuracy of the targets kept")
    styles = {"test images": "-", "cross-validated, training": "--"}
    keys = {words: {"color": "0.3", "ls": ls} for words, ls in styles.items()}
    canvas.draw_keys(accuracy, keys, loc="best")
    if k_chosen is not None:
        right: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points"}
        variance.annotate(f"k = {k_chosen:g} %", (k_chosen, 2), **right)
    identification.set_ylabel("pairwise identification (share)")
    identification.set_title("what training images prefer")
    variance.legend(title="CLIP layer", ncols=2, loc="upper left", title_fontsize=7)
    return figure


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
    n_subjects = counted(n_subjects_in(k_table), "subject")
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
