"""Figures of k: what is gained and lost when only the k % best targets are kept."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import PALETTE
from minddiff_utils.reporting.figures.decoding import n_subjects_in
from minddiff_utils.reporting.wording import counted, span, subject_order, wrap

__all__ = ["fig_k_quality", "fig_k_selection"]

_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")


def _finish(
    panels: Sequence[Axes], noun: str, k_chosen: float | None, kept: str
) -> None:
    """Name the axes that both figures share, and mark the k in use."""
    for axes in panels:
        if k_chosen is not None:
            axes.axvline(k_chosen, color="black", linestyle=":", linewidth=1)
        axes.grid(axis="y")
        axes.set_xlabel(f"{noun} kept, k (%)")
    panels[0].set_ylabel("mean correlation r")
    panels[1].set(ylabel=f"share of {kept} (%)", title="information kept")
    panels[1].plot([0, 100], [0, 100], color="0.7", linewidth=0.8, zorder=0)


@canvas.styled
def fig_k_selection(k_table: pd.DataFrame, *, k_chosen: float | None) -> Figure:
    """Draw accuracy and share of variance against the share of targets kept.

    Parameters
    ----------
    k_table : DataFrame
        Columns layer, k_percent, r_selected_mean, r_cv_selected_mean, variance_kept,
        identification and, for several subjects, subject; lines are means over
        subjects.
    k_chosen : float or None
        The k in use, percent; None where cross-validation chose one for each layer.
    """
    values = ["r_selected_mean", "r_cv_selected_mean", "variance_kept"]
    values.append("identification")
    canvas.check_table(k_table, ("layer", "k_percent", *values), "The table of k")
    mean = k_table.groupby(["layer", "k_percent"])[values].mean().reset_index()
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
    _finish(panels, "targets", k_chosen, "training variance")
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


@canvas.styled
def fig_k_quality(
    k_table: pd.DataFrame, quality: pd.DataFrame, words: str, *, k_chosen: float | None
) -> Figure:
    """Draw accuracy, information kept and final quality against k, subject by subject.

    Parameters
    ----------
    k_table : DataFrame
        Columns subject, layer, k_percent, r_selected_mean, variance_kept; layers are
        averaged.
    quality : DataFrame
        Columns subject (and, for several, "all"), k_percent, value, ci_low, ci_high,
        n_images of one metric.
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
    canvas.check_table(k_table, columns, "The table of k")
    needed = ("subject", "k_percent", "value", "ci_low", "ci_high", "n_images")
    canvas.check_table(quality, needed, "The quality by k")
    if quality.duplicated(["subject", "k_percent"]).any():
        raise DataError("The quality by k has a k twice: pass one metric's rows.")
    pooled, _ = canvas.pooled_rows(quality, "The quality by k")
    pooled = pooled.sort_values("k_percent")
    single = quality[quality["subject"].astype(str) != "all"]
    subjects = subject_order(k_table["subject"])
    images = f", {span(single['n_images'])} images each" if len(single) else ""
    used = "a k for each layer" if k_chosen is None else f"{k_chosen:g} %, dotted"
    note = (
        f"n = {counted(len(subjects), 'subject')}; left and middle: mean over "
        f"{counted(int(k_table['layer'].nunique()), 'layer')}, "
        f"test images, no interval; right{images}, the same at every k: bars are the "
        "interval for these subjects and new images. Thin: single subjects, bold: "
        f"mean. Features are ranked on training images only. k in use: {used}"
    )
    title = (
        "Selecting k % of the CLIP features: accuracy, information and final quality"
    )
    figure = canvas.new_figure(title, note, 3.3)
    accuracy, variance, final = panels = figure.subplots(1, 3)
    look = {
        subject: {
            "color": PALETTE[i % 10],
            "marker": _MARKERS[i % 8],
            "lw": 0.8,
            "ms": 3.5,
        }
        for i, subject in enumerate([*subjects, "other"])
    }
    bold: dict[str, Any] = {"color": "black", "lw": 2.2}
    curves = ["r_selected_mean", "variance_kept"]
    percent = k_table.assign(variance_kept=100 * k_table["variance_kept"])
    decoding = percent.groupby(["subject", "k_percent"])[curves].mean().reset_index()
    for axes, rows, name in (
        (accuracy, decoding, "r_selected_mean"),
        (variance, decoding, "variance_kept"),
        (final, single, "value"),
    ):
        for subject, curve in rows.groupby(rows["subject"].astype(str), sort=False):
            line = curve.sort_values("k_percent")
            style: Any = look.get(str(subject), look["other"])
            axes.plot(line["k_percent"], line[name], **style)
        middle = rows.groupby("k_percent")[name].mean()
        if axes is final:
            middle = pooled.set_index("k_percent")["value"]
        axes.plot(middle.index, middle, zorder=3, **bold)
    ends: dict[str, Any] = {"color": "black", "lw": 1, "zorder": 3}
    final.vlines(pooled["k_percent"], pooled["ci_low"], pooled["ci_high"], **ends)
    _finish(panels, "features", k_chosen, "variance")
    for axes in panels:
        axes.set_xlim(0, 104)
    accuracy.set_title("accuracy of those kept")
    final.set(ylabel=wrap(words, 34), title="final quality")
    keys: dict[str, Any] = {f"subject {s}": look[s] for s in subjects if s != "all"}
    canvas.draw_keys(variance, keys | {"mean": bold}, loc="upper left")
    return figure
