"""Figures of notebook 02: how well features are read from voxels, and from where.

Drawing only. Place in the flow: called by notebooks 02, 05 and 06.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minddiff_utils.core.areas import LVC
from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures.canvas import (
    GRAY,
    HIGH,
    LOW,
    PALETTE,
    Page,
    area_order,
    check_table,
    counted,
    feature_order,
    feature_words,
    new_figure,
    span,
    styled,
    wrap,
)

__all__ = [
    "fig_accuracy",
    "fig_accuracy_histograms",
    "fig_k_selection",
    "fig_predictions",
    "fig_weights_by_area",
]

Floats = npt.NDArray[np.floating[Any]]

_SETS = {"all": ("all areas", GRAY), "LVC": ("LVC", LOW), "HVC": ("HVC", HIGH)}
_ACCURACY = (
    "feature",
    "area_set",
    "r_mean",
    "r_null_high",
    "r_null_mean",
    "r_ceiling",
    "p_permutation",
    "n_images",
    "n_targets",
)


def _n_subjects(table: pd.DataFrame) -> int:
    return int(table["subject"].nunique()) if "subject" in table else 1


# --- accuracy -----------------------------------------------------------------------


@styled
def fig_accuracy(accuracy: pd.DataFrame) -> Figure:
    """Draw decoding accuracy by feature and area set, with null level and ceiling.

    Parameters
    ----------
    accuracy : DataFrame
        Columns feature, area_set (all, LVC, HVC), r_mean, r_null_high, r_null_mean,
        r_ceiling, p_permutation, n_images, n_targets and, for several subjects,
        subject.
    """
    check_table(accuracy, _ACCURACY, "The table of accuracies")
    features = feature_order(accuracy["feature"].tolist())
    found = list(dict.fromkeys(accuracy["area_set"].astype(str)))
    sets = sorted(found, key=lambda name: [*_SETS, name].index(name))
    n_subjects = _n_subjects(accuracy)
    dots = ", dots: subjects" if n_subjects > 1 else ""
    note = (
        f"n = {span(accuracy['n_images'])} test images, {span(accuracy['n_targets'])} "
        f"targets, {counted(n_subjects, 'subject')}. Bar: signed r, mean over targets"
        f"{dots}; no interval. Black line: 97.5 % of r with permuted images; diamond: "
        "mean noise ceiling; *: p <= 0.05 in every subject (permutation)"
    )
    page = Page("Decoding accuracy against chance and ceiling", note)
    figure = new_figure(page, 3.4)
    axes = figure.subplots()
    width = 0.8 / len(sets)
    for s, name in enumerate(sets):
        offset = (s - (len(sets) - 1) / 2) * width
        own = accuracy[accuracy["area_set"].astype(str) == name]
        _accuracy_bars(axes, own, features, offset, width)
    axes.set_xticks(range(len(features)), [wrap(feature_words(f), 9) for f in features])
    axes.axhline(0, color="0.3", linewidth=0.7)
    axes.grid(axis="y")
    axes.margins(y=0.1)
    axes.set(xlabel="feature", ylabel="correlation r, true and decoded")
    axes.legend(
        handles=_accuracy_keys(sets), loc="lower left", ncols=5, bbox_to_anchor=(0, 1)
    )
    return figure


def _colour(area_set: str) -> Any:
    return _SETS.get(area_set, (area_set, PALETTE[2]))[1]


def _accuracy_keys(sets: list[str]) -> list[Line2D]:
    bar: dict[str, Any] = {"marker": "s", "markersize": 7, "linestyle": ""}
    keys = [
        Line2D([], [], color=_colour(n), label=_SETS.get(n, (n,))[0], **bar)
        for n in sets
    ]
    ceiling: dict[str, Any] = {"marker": "D", "markersize": 4, "markerfacecolor": "w"}
    return [
        *keys,
        Line2D([], [], color="black", label="null, 97.5 %"),
        Line2D([], [], color="0.2", linestyle="", label="ceiling", **ceiling),
    ]


def _accuracy_bars(
    axes: Axes, own: pd.DataFrame, features: list[str], offset: float, width: float
) -> None:
    for place, feature in enumerate(features):
        rows = own[own["feature"].astype(str) == feature]
        if rows.empty:
            continue
        x, r = place + offset, float(rows["r_mean"].mean())
        axes.bar(x, r, width * 0.92, color=_colour(str(rows["area_set"].iloc[0])))
        null = float(rows["r_null_high"].max())
        half = width * 0.46
        axes.plot([x - half, x + half], [null, null], color="black", linewidth=1.3)
        ceiling = float(rows["r_ceiling"].mean())
        marker: dict[str, Any] = {"markerfacecolor": "w", "color": "0.2"}
        axes.plot(x, ceiling, marker="D", markersize=4, **marker)  # NaN: no mark
        top = max(r, null, float(rows["r_mean"].max()))
        if len(rows) > 1:
            dots = np.linspace(-0.25, 0.25, len(rows)) * width + x
            axes.scatter(dots, rows["r_mean"], s=7, color="white", edgecolor="black")
        if (rows["p_permutation"] <= 0.05).all():
            above: dict[str, Any] = {"xytext": (0, 0), "textcoords": "offset points"}
            axes.annotate("*", (x, top), ha="center", va="bottom", **above)


@styled
def fig_accuracy_histograms(
    r_by_feature: Mapping[str, Floats],
    *,
    floors: Mapping[str, Floats],
    ceilings: Mapping[str, Floats],
) -> Figure:
    """Draw the distribution over targets of each feature's accuracy, floor, ceiling.

    Parameters
    ----------
    r_by_feature : mapping of (n_targets,)
        Signed correlation over test images; NaN where the target does not vary.
    floors, ceilings : mapping of (n_targets,)
        The same with permuted test images, and the noise ceilings.
    """
    if not r_by_feature:
        raise DataError("No accuracies given: decode at least one feature.")
    features = feature_order(list(r_by_feature))
    n_columns = min(4, len(features))
    n_rows = -(-len(features) // n_columns)
    finite = {f: r_by_feature[f][np.isfinite(r_by_feature[f])] for f in features}
    note = (
        "Unit: targets, n in each panel, no interval. Blue: accuracy; gray outline: "
        "floor, test images permuted; orange outline: noise ceiling. Lines: the medians"
    )
    page = Page("Decoding accuracy of single targets", note)
    figure = new_figure(page, 0.9 + 1.5 * n_rows)
    grid = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False).ravel()
    bounds = {
        f: [values[f][np.isfinite(values[f])] for values in (floors, ceilings)]
        for f in features
    }
    every = np.concatenate([*finite.values(), *(r for b in bounds.values() for r in b)])
    low, high = (every.min(), every.max()) if len(every) else (0.0, 0.0)
    bins = np.linspace(min(float(low), -0.05), max(float(high), 0.05), 41)
    for axes, feature in zip(grid, features, strict=False):
        for r, colour in zip(bounds[feature], ("0.45", PALETTE[1]), strict=True):
            _outline(axes, r, bins, colour)
        _histogram(axes, finite[feature], bins, feature)
    for axes in grid[len(features) :]:
        axes.set_axis_off()
    for axes in grid[max(0, len(features) - n_columns) : len(features)]:
        axes.set_xlabel("correlation r")
        axes.tick_params(labelbottom=True)
    for axes in grid[::n_columns]:
        axes.set_ylabel("share of targets")
    return figure


def _outline(axes: Axes, r: Floats, bins: Floats, colour: Any) -> None:
    """Draw a floor or a ceiling: the outline of its histogram, and its median."""
    if not len(r):
        return
    share = np.full(len(r), 1 / len(r))
    style: Any = {"histtype": "step", "linewidth": 0.9}
    axes.hist(r, bins, weights=share, color=colour, **style)  # type: ignore[arg-type]
    axes.axvline(float(np.median(r)), color=colour, linewidth=0.9, linestyle="--")


def _histogram(axes: Axes, r: Floats, bins: Floats, feature: str) -> None:
    share = np.full(len(r), 1 / max(len(r), 1))
    axes.hist(r, bins, weights=share, color=PALETTE[0], alpha=0.6)  # type: ignore[arg-type]
    said = f"{feature_words(feature)}\nn = {len(r):,}"
    if len(r):
        median = float(np.median(r))
        axes.axvline(median, color="black", linewidth=1.3)
        said += f", median {median:.3f}"
    axes.set_title(said, size=7.5)


# --- selection of targets -----------------------------------------------------------


@styled
def fig_k_selection(
    k_table: pd.DataFrame, *, k_chosen: float | None
) -> Figure:
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
    check_table(k_table, ("layer", "k_percent", *values), "The table of k")
    mean = k_table.groupby(["layer", "k_percent"])[values].mean().reset_index()
    layers = sorted(mean["layer"].unique())
    n_subjects = _n_subjects(k_table)
    used = "a k for each layer" if k_chosen is None else "dotted"
    note = (
        f"n = {counted(n_subjects, 'subject')}, {counted(len(layers), 'CLIP layer')}; "
        "mean over the targets kept and over subjects, no interval. Targets are ranked "
        "on training images only; identification: pairs of held-out training images, "
        f"chance .5. In use: {used}"
    )
    title = "What is gained and lost when only the k % best targets are kept"
    page = Page(title, note)
    figure = new_figure(page, 3.1)
    panels = figure.subplots(1, 3)
    colours = sns.color_palette("viridis", len(layers))
    for layer, colour in zip(layers, colours, strict=True):
        own = mean[mean["layer"] == layer].sort_values("k_percent")
        _k_lines(panels, own, {"color": colour, "marker": "o", "markersize": 3})
    _k_axes(panels, k_chosen)
    panels[1].legend(title="CLIP layer", ncols=2, loc="upper left", title_fontsize=7)
    return figure


def _k_lines(panels: Sequence[Axes], own: pd.DataFrame, line: dict[str, Any]) -> None:
    k = own["k_percent"]
    accuracy, variance, identification = panels
    accuracy.plot(k, own["r_selected_mean"], **line)
    accuracy.plot(k, own["r_cv_selected_mean"], **line | {"ls": "--", "marker": ""})
    layer = f"{own['layer'].iloc[0]}"
    variance.plot(k, 100 * own["variance_kept"], label=layer, **line)
    identification.plot(k, own["identification"], **line)


def _k_axes(panels: Sequence[Axes], k_chosen: float | None) -> None:
    accuracy, variance, identification = panels
    for axes in panels:
        if k_chosen is not None:
            axes.axvline(k_chosen, color="black", linestyle=":", linewidth=1)
        axes.grid(axis="y")
        axes.set_xlabel("targets kept, k (%)")
    accuracy.set(ylabel="mean correlation r", title="accuracy of the targets kept")
    styles = [("test images", "-"), ("cross-validated, training", "--")]
    keys = [Line2D([], [], color="0.3", ls=ls, label=name) for name, ls in styles]
    accuracy.legend(handles=keys, loc="best")
    variance.set(ylabel="share of training variance (%)", title="information kept")
    variance.plot([0, 100], [0, 100], color="0.7", linewidth=0.8, zorder=0)
    if k_chosen is not None:
        words = {"xytext": (3, 0), "textcoords": "offset points"}
        variance.annotate(f"k = {k_chosen:g} %", (k_chosen, 2), **words)  # type: ignore[arg-type]
    ylabel = "pairwise identification (share)"
    identification.set(ylabel=ylabel, title="what training images prefer")


# --- where the information is -------------------------------------------------------


def _relative_weights(weights: pd.DataFrame) -> pd.DataFrame:
    """Return features x areas: mean |w| over the mean of all the feature's voxels."""
    table = weights.assign(total=weights["weight"] * weights["n_voxels"])
    table["subject"] = table.get("subject", "1")
    whole = table.groupby(["subject", "feature"])[["total", "n_voxels"]].transform(
        "sum"
    )
    mean = whole["total"] / whole["n_voxels"]
    inside = (table["n_voxels"] > 0) & (mean > 0)
    table["relative"] = (table["weight"] / mean).where(inside)
    features = feature_order(table["feature"].tolist())
    areas = area_order(table["area"].astype(str).tolist())
    wide = table.pivot_table("relative", "feature", "area", "mean", dropna=False)
    return wide.reindex(index=features, columns=areas)


@styled
def fig_weights_by_area(weights: pd.DataFrame) -> Figure:
    """Draw how strongly each area's voxels weigh in the decoders, as a heat map.

    Parameters
    ----------
    weights : DataFrame
        Columns feature, area, weight (mean |w| over the area's voxels), n_voxels and,
        for several subjects, subject (averaged).
    """
    check_table(weights, ("feature", "area", "weight", "n_voxels"), "Voxel weights")
    shown = _relative_weights(weights)
    finite = shown.to_numpy()[np.isfinite(shown.to_numpy())]
    if not len(finite):
        raise DataError(
            "All voxel weights are 0 or without voxels: fit decoders first."
        )
    reach = max(float(np.abs(finite - 1).max()), 0.05)
    voxels = weights.drop_duplicates([c for c in ("subject", "area") if c in weights])
    note = (
        f"n = {int(voxels['n_voxels'].sum()):,} voxels, "
        f"{counted(_n_subjects(weights), 'subject')}, mean over subjects, no interval; "
        "1: the mean over all voxels of that feature; –: no voxel in that area. Line: "
        "low-level areas at its left, high-level at its right"
    )
    page = Page("Which areas the decoders draw on", note)
    figure = new_figure(page, 1.3 + 0.34 * len(shown))
    axes = figure.subplots()
    axes.set_facecolor("0.93")
    limits: dict[str, Any] = {"vmin": 1 - reach, "vmax": 1 + reach}
    heat = axes.imshow(shown.to_numpy(), cmap="PuOr_r", aspect="auto", **limits)
    figure.colorbar(heat, ax=axes, pad=0.02).set_label("mean |w|, relative")
    for (row, column), value in np.ndenumerate(shown.to_numpy()):
        words = f"{value:.2f}" if np.isfinite(value) else "–"
        dark = abs(value - 1) > 0.7 * reach  # NaN: black on gray
        ink = "white" if dark else "black"
        axes.text(column, row, words, size=7, color=ink, ha="center", va="center")
    n_low = len([area for area in shown.columns if area in LVC])
    axes.axvline(n_low - 0.5, color="black", linewidth=1.2)
    axes.set_xticks(range(shown.shape[1]), shown.columns)
    axes.set_yticks(range(len(shown)), [feature_words(f) for f in shown.index])
    axes.set_xlabel("visual area, from early to late")
    return figure


@styled
def fig_predictions(
    pairs: Mapping[str, tuple[Floats, Floats]]
) -> Figure:
    """Draw the predictions of single targets against the truth, a panel per target.

    Parameters
    ----------
    pairs : mapping of str to (truth, prediction)
        What to say of a target, and its standardised values, (n_images,) each.
    """
    if len({values.shape for pair in pairs.values() for values in pair}) != 1:
        raise DataError(
            "Truth and prediction must be of the same images, in one target or more."
        )
    n_images = len(next(iter(pairs.values()))[0])
    note = (
        f"n = {counted(n_images, 'test image')}; line: prediction = truth; no interval,"
        " all images are shown"
    )
    page = Page("Single targets, image by image", note)
    figure = new_figure(page, 3.4)
    grid = figure.subplots(1, len(pairs), sharex=True, sharey=True, squeeze=False)
    for axes, (name, (truth, predicted)) in zip(grid[0], pairs.items(), strict=True):
        axes.axline((0, 0), slope=1, color=GRAY, linewidth=0.9)
        axes.scatter(truth, predicted, s=12, color=PALETTE[0], alpha=0.7, linewidths=0)
        axes.set(xlabel="true (SD of training images)", title=name)
    grid[0, 0].set_ylabel("decoded")
    return figure
