"""Figures of notebook 02: what is decoded, how well, from where, by which decoder."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.areas import LVC
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Floats
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, HIGH, LOW, PALETTE, draws
from minddiff_utils.reporting.wording import (
    area_order,
    counted,
    feature_order,
    feature_words,
    span,
    wrap,
)

__all__ = [
    "fig_accuracy",
    "fig_accuracy_histograms",
    "fig_calibration",
    "fig_decoders",
    "fig_holdout",
    "fig_k_selection",
    "fig_predictions",
    "fig_weights_by_area",
]

_SETS = {
    **{"all": ("all areas, targets in use", "0.7"), "all_targets": ("all areas", GRAY)},
    **{"LVC": ("LVC", LOW), "HVC": ("HVC", HIGH)},
}
_CEILING: dict[str, Any] = {"color": "0.2", "marker": "D", "markersize": 4}
_CEILING["markerfacecolor"] = "w"


def _draw_feature_axis(axes: Axes, features: list[str], margin: float = 0.08) -> None:
    """Name the features below, and draw a line at 0."""
    names = [wrap(feature_words(f), 9) for f in features]
    axes.set_xticks(range(len(names)), names)
    axes.axhline(0, color="0.3", linewidth=0.7)
    axes.grid(axis="y")
    axes.margins(y=margin)
    axes.set_xlabel("feature")


# --- accuracy -----------------------------------------------------------------------


@draws(
    "The table of accuracies",
    "feature area_set r_mean r_null_high r_null_mean r_ceiling p_permutation"
    " r_null_within_high p_within n_images n_targets",
)
def fig_accuracy(accuracy: pd.DataFrame) -> Figure:
    """Draw decoding accuracy by feature and area set, with null level and ceiling.

    `accuracy`: from `decoding.score`, of one or (column subject) several subjects; r is
    Pearson's, signed, and all_targets, LVC and HVC are over the same targets.
    """
    features = feature_order(accuracy["feature"])
    names = list(dict.fromkeys(accuracy["area_set"].astype(str)))
    names.sort(key=[*_SETS, *names].index)
    sets = {name: _SETS.get(name, (name, PALETTE[2])) for name in names}
    n_subjects = canvas.n_subjects_in(accuracy)
    dots = ", dots: subjects" if n_subjects > 1 else ""
    note = (
        f"n = {span(accuracy['n_images'])} test images, {span(accuracy['n_targets'])} "
        f"targets, {counted(n_subjects, 'subject')}. Bar: signed r, mean over targets"
        f"{dots}; no interval. Black line: 97.5 % of r with permuted images; dotted "
        "line: with images permuted among like ones only (clusters of c); diamond: "
        "mean noise ceiling; *: p <= 0.05 in every subject (permutation), **: among "
        "like images too"
    )
    figure = canvas.new_figure(
        "Decoding accuracy against chance and ceiling", note, 3.4
    )
    axes = figure.subplots()
    width = 0.8 / len(names)
    by_bar = dict(iter(accuracy.groupby(["area_set", "feature"])))
    for place, feature in enumerate(features):
        there = [name for name in names if (name, feature) in by_bar]
        for s, name in enumerate(there):
            x = place + (s - (len(there) - 1) / 2) * width
            _accuracy_bar(axes, by_bar[name, feature], x, width, sets[name][1])
    _draw_feature_axis(axes, features, margin=0.1)
    axes.set_ylabel("correlation r, true and decoded")
    bar: dict[str, Any] = {"marker": "s", "markersize": 7, "linestyle": ""}
    keys = {words: {"color": colour, **bar} for words, colour in sets.values()}
    keys["null, 97.5 %"] = {"color": "black"}
    keys["null among like images"] = {"color": "black", "linestyle": ":"}
    keys["ceiling"] = {"linestyle": "", **_CEILING}
    canvas.draw_keys(axes, keys, loc="lower left", ncols=6, bbox_to_anchor=(0, 1))
    return figure


def _accuracy_bar(
    axes: Axes, rows: pd.DataFrame, x: float, width: float, colour: Any
) -> None:
    """Draw one feature and area set; `rows`: one per subject."""
    r = float(rows["r_mean"].mean())
    null, within = (float(rows[f"r_null{k}_high"].max()) for k in ("", "_within"))
    axes.bar(x, r, width * 0.92, color=colour)
    ends = [x - width * 0.46, x + width * 0.46]
    axes.plot(ends, [null, null], color="black", linewidth=1.3)
    axes.plot(ends, [within, within], color="black", linewidth=1.3, linestyle=":")
    axes.plot(x, float(rows["r_ceiling"].mean()), **_CEILING)  # NaN: no mark
    if len(rows) > 1:
        dots = np.linspace(-0.25, 0.25, len(rows)) * width + x
        axes.scatter(dots, rows["r_mean"], s=7, color="white", edgecolor="black")
    if (rows["p_permutation"] <= 0.05).all():
        top = max(r, null, within, float(rows["r_mean"].max()))
        above: dict[str, Any] = {"xytext": (0, 0), "textcoords": "offset points"}
        stars = "**" if (rows["p_within"] <= 0.05).all() else "*"
        axes.annotate(stars, (x, top), ha="center", va="bottom", **above)


@draws()
def fig_accuracy_histograms(
    r_by_feature: Mapping[str, Floats],
    *,
    floors: Mapping[str, Floats],
    ceilings: Mapping[str, Floats],
) -> Figure:
    """Draw the distribution over targets of each feature's accuracy, floor, ceiling.

    Feature to float (n_targets,): signed correlation over test images, NaN where the
    target does not vary; `floors`: the same with permuted test images; `ceilings`:
    noise ceilings.
    """
    if not r_by_feature:
        raise DataError("No accuracies given: decode at least one feature.")
    features = feature_order(r_by_feature)
    n, n_columns = len(features), min(4, len(r_by_feature))
    note = (
        "Unit: targets, n in each panel, no interval. Blue: accuracy; gray outline: "
        "floor, test images permuted; orange outline: noise ceiling. Lines: the medians"
    )
    height = 0.9 + 1.5 * -(-n // n_columns)
    figure = canvas.new_figure("Decoding accuracy of single targets", note, height)
    grid = canvas.panels(figure, n, n_columns, sharex=True)
    each = (floors, ceilings, r_by_feature)
    known = {f: [r[f][np.isfinite(r[f])] for r in each] for f in features}
    every = np.concatenate([r for three in known.values() for r in three])
    bins = np.linspace(every.min(initial=-0.05), every.max(initial=0.05), 41)
    thin, dashed = {"lw": 0.9}, {"lw": 0.9, "ls": "--"}
    looks: tuple[tuple[Any, Any, Any], ...] = (
        ("0.45", thin, dashed),
        (PALETTE[1], thin, dashed),
        (PALETTE[0], {"fill": True, "alpha": 0.6}, {"lw": 1.3, "color": "black"}),
    )
    for axes, feature in zip(grid, features, strict=True):
        for r, (colour, shape, line) in zip(known[feature], looks, strict=True):
            if len(r):
                share = np.histogram(r, bins)[0] / len(r)
                axes.stairs(share, bins, color=colour, **shape)
                axes.axvline(float(np.median(r)), **{"color": colour} | line)
        *_, r = known[feature]
        median = f", median {np.median(r):.3f}" if len(r) else ""
        axes.set_title(f"{feature_words(feature)}\nn = {len(r):,}{median}", size=7.5)
    for axes in grid[-n_columns:]:
        axes.set_xlabel("correlation r")
        axes.tick_params(labelbottom=True)
    for axes in grid[::n_columns]:
        axes.set_ylabel("share of targets")
    return figure


@draws()
def fig_predictions(pairs: Mapping[str, tuple[Floats, Floats]]) -> Figure:
    """Draw the predictions of single targets against the truth, a panel per target.

    `pairs`: what to say of a target to its standardised values, true and predicted,
    (n_images,) each.
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
    figure = canvas.new_figure("Single targets, image by image", note, 3.4)
    grid = canvas.panels(figure, len(pairs), len(pairs), sharex=True, sharey=True)
    for axes, (name, (truth, predicted)) in zip(grid, pairs.items(), strict=True):
        axes.axline((0, 0), slope=1, color=GRAY, linewidth=0.9)
        axes.scatter(truth, predicted, s=12, color=PALETTE[0], alpha=0.7, linewidths=0)
        axes.set(xlabel="true (SD of training images)", title=name)
    grid[0].set_ylabel("decoded")
    return figure


@draws("The calibration", "feature axis sd rms coverage_50 coverage_80 coverage_95")
def fig_calibration(table: pd.DataFrame, *, n_images: int) -> Figure:
    """Draw the errors that a noise model expects against those of other images.

    `table` is from `noise_model.calibration` of each feature, one below the other.
    """
    features = feature_order(table["feature"])
    levels = {f"coverage_{level}": level for level in (50, 80, 95)}
    note = (
        f"n = {counted(n_images, 'validation image')}, no interval; a point on the left"
        " is an axis of a feature, a line on the right the mean over its axes. On the"
        " gray lines errors are as large as expected"
    )
    figure = canvas.new_figure("Decoding errors, expected and found", note, 3.4)
    sizes, coverage = figure.subplots(1, 2)
    for feature, colour in zip(features, PALETTE, strict=False):
        rows = table[table["feature"] == feature]
        label = feature_words(feature)
        sizes.scatter(rows["sd"], rows["rms"], s=9, color=colour, alpha=0.7, lw=0)
        found = [100 * rows[name].mean() for name in levels]
        coverage.plot(
            list(levels.values()), found, "o-", ms=3, color=colour, label=label
        )
    sizes.set(xscale="log", yscale="log", xlabel="expected SD of the error")
    sizes.set(ylabel="found (root mean square)", title="size of the error, by axis")
    for axis in (sizes.xaxis, sizes.yaxis):
        axis.set_major_formatter("{x:g}")
    sizes.axline((1, 1), (10, 10), color=GRAY, linewidth=0.9, zorder=0)
    coverage.axline((50, 50), slope=1, color=GRAY, linewidth=0.9, zorder=0)
    coverage.set(xlabel="probability of the interval (%)", ylabel="errors inside (%)")
    coverage.set(title="how often an interval holds", xticks=list(levels.values()))
    coverage.legend(loc="lower right")
    return figure


# --- how many targets to keep --------------------------------------------------------


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
    n_layers = k_table["layer"].nunique()
    used = "a k for each layer" if k_chosen is None else "dotted"
    note = (
        f"n = {counted(canvas.n_subjects_in(k_table), 'subject')}, "
        f"{counted(n_layers, 'CLIP layer')}; "
        "mean over the targets kept and over subjects, no interval. Targets are ranked "
        "on training images only; identification: pairs of held-out training images, "
        f"chance .5. In use: {used}"
    )
    title = "What is gained and lost when only the k % best targets are kept"
    figure = canvas.new_figure(title, note, 3.1)
    accuracy, variance, identification = panels = figure.subplots(1, 3)
    table = k_table.assign(variance_kept=100 * k_table["variance_kept"])
    look: dict[str, Any] = {"palette": sns.color_palette("viridis", n_layers)}
    look |= {"x": "k_percent", "hue": "layer", "errorbar": None}
    dots = {"marker": "o", "markersize": 4, "markeredgewidth": 0}
    names = ("r_selected_mean", "variance_kept", "identification")
    for axes, name in zip(panels, names, strict=True):
        key = "full" if axes is variance else False
        sns.lineplot(table, y=name, ax=axes, legend=key, **dots, **look)
        axes.set_xlabel("targets kept, k (%)")
        axes.grid(axis="y")
        if k_chosen is not None:
            axes.axvline(k_chosen, color="black", linestyle=":", linewidth=1)
    look |= {"ax": accuracy, "ls": "--", "legend": False}
    sns.lineplot(table, y="r_cv_selected_mean", **look)
    accuracy.set(ylabel="mean correlation r", title="accuracy of the targets kept")
    identification.set_ylabel("pairwise identification (share)")
    identification.set_title("what training images prefer")
    variance.set(ylabel="share of training variance (%)", title="information kept")
    variance.plot([0, 100], [0, 100], color="0.7", linewidth=0.8, zorder=0)
    styles = {"test images": "-", "cross-validated, training": "--"}
    keys = {words: {"color": "0.3", "ls": ls} for words, ls in styles.items()}
    canvas.draw_keys(accuracy, keys, loc="best")
    if k_chosen is not None:
        right: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points"}
        variance.annotate(f"k = {k_chosen:g} %", (k_chosen, 2), **right)
    variance.legend(title="CLIP layer", ncols=2, loc="upper left", title_fontsize=7)
    return figure


# --- where the information is -------------------------------------------------------


def _by_area(weights: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """Return features x areas: means over subjects, NaN where there is no voxel."""
    table = weights.assign(value=values.where(weights["n_voxels"] > 0))
    wide = table.pivot_table("value", "feature", "area", "mean", dropna=False)
    rows, columns = feature_order(weights["feature"]), area_order(weights["area"])
    return wide.reindex(index=rows, columns=columns)


def _relative_weights(weights: pd.DataFrame) -> pd.Series:
    """Return mean |w| of each row over the mean of all voxels."""
    keys = [weights.get("subject", weights["feature"]), weights["feature"]]
    total = (weights["weight"] * weights["n_voxels"]).groupby(keys).transform("sum")
    mean = total / weights["n_voxels"].groupby(keys).transform("sum")
    return (weights["weight"] / mean).where(mean > 0)


@draws("Voxel weights", "feature area weight n_voxels pattern few_voxels")
def fig_weights_by_area(weights: pd.DataFrame) -> Figure:
    """Draw decoder weights and patterns of each area's voxels, as two heat maps.

    `weights`: from `tables.weights_by_area`; several subjects (column subject) are
    averaged, areas of few voxels in any subject hatched. All weights 0: DataError.
    """
    weights = weights.reset_index(drop=True)
    table = _by_area(weights, _relative_weights(weights))
    values = table.to_numpy()
    if not np.isfinite(values).any():
        raise DataError(
            "All voxel weights are 0 or without voxels: fit decoders first."
        )
    voxels = weights.drop_duplicates([c for c in ("subject", "area") if c in weights])
    note = (
        f"n = {int(voxels['n_voxels'].sum()):,} voxels, "
        f"{counted(canvas.n_subjects_in(weights), 'subject')}, mean over subjects, no "
        "interval. Weights: 1 is the mean over all voxels of that feature; patterns: "
        "|r| of a voxel with the decoded target over training images, mean over "
        "targets; –: no voxel in that area; hatched: fewer than 20 in a subject. "
        "Line: low-level areas at its left, high-level at its right"
    )
    height = 2.0 + 0.6 * len(table)
    figure = canvas.new_figure("Which areas the decoders draw on", note, height)
    upper, lower = figure.subplots(2, 1, sharex=True)
    reach = max(float(np.nanmax(np.abs(values - 1))), 0.05)
    few = weights[weights["few_voxels"] & (weights["n_voxels"] > 0)]["area"].unique()
    around_1 = {"vmin": 1 - reach, "vmax": 1 + reach, "cmap": "PuOr_r"}
    _heat_map(upper, table, few, "mean |w|, relative", **around_1)
    upper.set_title("weights: what the decoder makes use of")
    patterns = _by_area(weights, weights["pattern"])
    _heat_map(lower, patterns, few, "mean |r|", vmin=0, cmap="Greens")
    lower.set_title("patterns: in which voxels the decoded target shows")
    lower.set_xlabel("visual area, from early to late")
    return figure


def _heat_map(
    axes: Axes, table: pd.DataFrame, few: Collection[str], unit: str, **colours: Any
) -> None:
    """Draw features x areas, a number in each cell; areas of `few` voxels hatched."""
    look = {"annot": True, "fmt": ".2f", "annot_kws": {"size": 7}} | colours
    names = [feature_words(feature) for feature in table.index]
    bar = {"label": unit, "pad": 0.02}
    sns.heatmap(table, ax=axes, yticklabels=names, cbar_kws=bar, **look)
    axes.tick_params(axis="y", rotation=0)
    axes.set(facecolor="0.93", xlabel="", ylabel="")
    for row, column in np.argwhere(table.isna().to_numpy()):
        axes.text(column + 0.5, row + 0.5, "–", size=7, ha="center", va="center")
    for place, area in enumerate(table.columns):
        if area in few:
            axes.axvspan(place, place + 1, fc="none", ec="0.6", lw=0, hatch="//")
    n_low = sum(area in LVC for area in table.columns)
    axes.axvline(n_low, color="black", linewidth=1.2)


# --- which decoder ------------------------------------------------------------------

_BOTH = "decoder feature r_mean r_low r_high confidence rank_share n_images"
#: Decoders that keep their colour from figure to figure; others take what is left.
_ORDER = ("voxel-selected (paper)", "voxel-selected, tuned", "dense")


def _colours(table: pd.DataFrame) -> dict[str, Any]:
    """Return the colour of each decoder, in the order of the table."""
    names = list(dict.fromkeys(table["decoder"].astype(str)))
    known = [*_ORDER, *[name for name in names if name not in _ORDER]]
    return {name: PALETTE[known.index(name) % len(PALETTE)] for name in names}


def _interval(table: pd.DataFrame) -> str:
    """Return what the intervals of the table are."""
    confidence = 100 * table["confidence"].iloc[0]
    return f"{confidence:.3g} % interval (bootstrap of images)"


def _places(
    table: pd.DataFrame, width: float
) -> Iterator[tuple[float, Any, dict[Any, Any]]]:
    """Give place, colour and numbers of each row: decoders side by side, by feature.

    `width`: what the decoders of a feature take of the distance between features.
    """
    features, colours = feature_order(table["feature"]), _colours(table)
    names = list(colours)
    for row in table.to_dict("records"):
        name, place = str(row["decoder"]), features.index(str(row["feature"]))
        shift = (names.index(name) - (len(names) - 1) / 2) * width / len(names)
        yield place + shift, colours[name], row


def _finish(
    left: Axes, right: Axes, table: pd.DataFrame, marker: str, **more: Any
) -> None:
    """Name the axes of accuracy and rank and the colours; `more`: keys, their look."""
    for axes in (left, right):
        _draw_feature_axis(axes, feature_order(table["feature"]))
    left.set_ylabel("correlation r, true and decoded")
    right.set_ylabel("effective rank, truth = 1")
    right.set_ylim(bottom=0)
    dot: dict[str, Any] = {"marker": marker, "markersize": 6, "linestyle": ""}
    keys = {name: {"color": c, **dot} for name, c in _colours(table).items()}
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
    canvas.draw_keys(left, keys | more, ncols=2, **place)


@draws("The comparison of decoders", f"{_BOTH} r_ceiling n_targets")
def fig_decoders(table: pd.DataFrame) -> Figure:
    """Draw each decoder's accuracy and the rank of its predictions, by feature.

    `table`: from `decoding.comparison`, of one subject, or DataError; r_low to r_high
    is the interval of r_mean, rank_share the effective rank of the predictions over
    that of the truth.
    """
    n_decoders = len(_colours(table))
    if table.duplicated(["decoder", "feature"]).any():
        raise DataError(
            "The comparison of decoders has several rows for a decoder and feature:"
            " pass the table of one subject."
        )
    note = (
        f"n = {span(table['n_images'])} test images, {span(table['n_targets'])} "
        "targets, 1 subject. Left: signed r, mean over targets; line: "
        f"{_interval(table)}; diamond: mean noise ceiling of that decoder. Right: "
        "effective rank (participation ratio) of the predictions over that of the true "
        "features of the same images; 1: as many directions as the truth; no interval"
    )
    title = "Which decoder reads more, and does it collapse?"
    figure = canvas.new_figure(title, note, 3.5)
    left, right = figure.subplots(1, 2, width_ratios=(4, 3))
    ceiling = _CEILING | {"linestyle": ""}
    for x, colour, row in _places(table, 0.82):
        left.bar(x, row["r_mean"], 0.75 / n_decoders, color=colour)
        left.plot([x, x], [row["r_low"], row["r_high"]], color="black", linewidth=0.9)
        left.plot(x, row["r_ceiling"], **ceiling | {"markersize": 3.5})  # NaN: no mark
        right.plot(x, row["rank_share"], "o", color=colour, markersize=4)
    _finish(left, right, table, "s", ceiling=ceiling)
    right.axhline(1, color="0.3", linewidth=0.7, linestyle="--")
    return figure


@draws("The hold-out of categories", f"{_BOTH} trained_on n_train n_categories")
def fig_holdout(table: pd.DataFrame) -> Figure:
    """Draw accuracy and rank on categories that were trained on, and that were not.

    `table`: as for `fig_decoders`, with trained_on ("same categories" or "other
    categories"), n_train and n_categories, without r_ceiling and n_targets.
    """
    note = (
        f"n = {span(table['n_images'])} images of {span(table['n_categories'])} "
        f"held-out categories; {span(table['n_train'])} training images under both "
        "conditions; 1 subject. Filled: trained on other images of these categories; "
        "open: on other categories only. Left: signed r, mean over targets; line: "
        f"{_interval(table)}. Right: effective rank over that of the truth; no interval"
    )
    figure = canvas.new_figure("Categories that no training image shows", note, 3.3)
    left, right = figure.subplots(1, 2)
    names = dict(zip(("r_mean", "r_low", "r_high"), canvas.INTERVAL, strict=True))
    for place, colour, row in _places(table.rename(columns=names), 0.8):
        seen = row["trained_on"] == "same categories"
        look = {"color": colour, "markerfacecolor": colour if seen else "w"}
        x = place + (-0.03 if seen else 0.03)
        canvas.draw_interval(left, x, row, upright=True, width=0.9, **look)
        right.plot(x, row["rank_share"], "o", markersize=5, **look)
    _finish(left, right, table, "o")
    return figure
