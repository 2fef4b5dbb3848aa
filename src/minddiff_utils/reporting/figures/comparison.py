"""Figures on the choice of the decoder: accuracy, rank of what is predicted, hold-out.

Drawing only. Place in the flow: called by notebook 02.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures.canvas import (
    PALETTE,
    Page,
    check_table,
    feature_order,
    feature_words,
    new_figure,
    span,
    styled,
    wrap,
)

__all__ = ["fig_decoders", "fig_holdout"]

_DECODERS = (
    "decoder",
    "feature",
    "r_mean",
    "r_low",
    "r_high",
    "confidence",
    "r_ceiling",
    "rank_share",
    "n_images",
    "n_targets",
)
_HOLDOUT = (
    "decoder",
    "feature",
    "trained_on",
    "r_mean",
    "r_low",
    "r_high",
    "confidence",
    "rank_share",
    "n_train",
    "n_images",
    "n_categories",
)


def _names(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["decoder"].astype(str)))


#: Decoders that keep their colour from figure to figure; others take what is left.
_ORDER = ("voxel-selected (paper)", "voxel-selected, tuned", "dense")


def _colours(names: list[str]) -> dict[str, Any]:
    known = [*_ORDER, *[name for name in names if name not in _ORDER]]
    return {name: PALETTE[known.index(name) % len(PALETTE)] for name in names}


def _legend(axes: Axes, names: list[str], more: list[Line2D], marker: str) -> None:
    dot: dict[str, Any] = {"marker": marker, "markersize": 6, "linestyle": ""}
    colours = _colours(names)
    keys = [Line2D([], [], color=colours[name], label=name, **dot) for name in names]
    axes.legend(
        handles=[*keys, *more], loc="lower left", bbox_to_anchor=(0, 1), ncols=2
    )


def _check_names(names: list[str]) -> None:
    if len(names) > len(PALETTE):
        raise DataError(
            f"{len(names)} decoders cannot be told apart by {len(PALETTE)} colours:"
            " draw fewer at a time."
        )


def _interval(table: pd.DataFrame) -> str:
    """Return what the intervals of the table are."""
    levels = table["confidence"].unique()
    if len(levels) > 1:
        raise DataError(
            f"The intervals have the confidences {', '.join(map(str, levels))}, but one"
            " figure tells one: draw them apart."
        )
    return f"{100 * levels[0]:.3g} % interval (bootstrap of images)"


@styled
def fig_decoders(table: pd.DataFrame) -> Figure:
    """Draw each decoder's accuracy and the rank of its predictions, by feature.

    Parameters
    ----------
    table : DataFrame
        Columns decoder, feature, r_mean with r_low and r_high (its interval of this
        confidence), r_ceiling, rank_share (effective rank of the predictions over that
        of the truth), n_images, n_targets.

    Raises
    ------
    DataError
        Columns or rows are missing, several subjects or confidences, or more decoders
        than colours.
    """
    check_table(table, _DECODERS, "The comparison of decoders")
    names, features = _names(table), feature_order(table["feature"].tolist())
    _check_names(names)
    if table.duplicated(["decoder", "feature"]).any():
        raise DataError(
            "The comparison of decoders has several rows for a decoder and feature:"
            " pass the table of one subject."
        )
    colours = _colours(names)
    note = (
        f"n = {span(table['n_images'])} test images, {span(table['n_targets'])} "
        "targets, 1 subject. Left: signed r, mean over targets; line: "
        f"{_interval(table)}; diamond: mean noise ceiling of that decoder. Right: "
        "effective rank (participation ratio) of the predictions over that of the true "
        "features of the same images; 1: as many directions as the truth; no interval"
    )
    page = Page("Which decoder reads more, and does it collapse?", note)
    figure = new_figure(page, 3.5)
    left, right = figure.subplots(1, 2, width_ratios=(4, 3))
    for place, feature in enumerate(features):
        own = table[table["feature"].astype(str) == feature]
        for i, name in enumerate(names):
            row = own[own["decoder"].astype(str) == name]
            if not row.empty:
                x, width = place + (i - (len(names) - 1) / 2) * 0.82 / len(names), 0.75
                _bar(left, x, row.iloc[0], width / len(names), colours[name])
                right.plot(x, row["rank_share"], "o", color=colours[name], markersize=4)
    for axes in (left, right):
        _feature_axis(axes, features)
    left.set_ylabel("correlation r, true and decoded")
    right.set_ylabel("effective rank, truth = 1")
    right.set_ylim(bottom=0)
    right.axhline(1, color="0.3", linewidth=0.7, linestyle="--")
    mark: dict[str, Any] = {"marker": "D", "markersize": 4, "markerfacecolor": "w"}
    ceiling = Line2D([], [], color="0.2", linestyle="", label="ceiling", **mark)
    _legend(left, names, [ceiling], "s")
    return figure


def _bar(axes: Axes, x: float, row: pd.Series, width: float, colour: Any) -> None:
    axes.bar(x, float(row["r_mean"]), width, color=colour)
    axes.plot([x, x], [row["r_low"], row["r_high"]], color="black", linewidth=0.9)
    if np.isfinite(row.get("r_ceiling", np.nan)):
        mark: dict[str, Any] = {"markersize": 3.5, "markerfacecolor": "w"}
        axes.plot(x, row["r_ceiling"], "D", color="0.2", **mark)


def _feature_axis(axes: Axes, features: list[str]) -> None:
    axes.set_xticks(range(len(features)), [wrap(feature_words(f), 9) for f in features])
    axes.set_xlabel("feature")
    axes.axhline(0, color="0.3", linewidth=0.7)
    axes.grid(axis="y")
    axes.margins(y=0.08)


@styled
def fig_holdout(table: pd.DataFrame) -> Figure:
    """Draw accuracy and rank on categories that were trained on, and that were not.

    Parameters
    ----------
    table : DataFrame
        Columns decoder, feature, trained_on ("same categories" or "other categories"),
        r_mean, r_low, r_high, confidence, rank_share, n_train, n_images, n_categories.

    Raises
    ------
    DataError
        Columns or rows are missing, several confidences, or more decoders than colours.
    """
    check_table(table, _HOLDOUT, "The hold-out of categories")
    names, features = _names(table), feature_order(table["feature"].tolist())
    _check_names(names)
    colours = _colours(names)
    note = (
        f"n = {span(table['n_images'])} images of {span(table['n_categories'])} "
        f"held-out categories; {span(table['n_train'])} training images under both "
        "conditions; 1 subject. Filled: trained on other images of these categories; "
        "open: on other categories only. Left: signed r, mean over targets; line: "
        f"{_interval(table)}. Right: effective rank over that of the truth; no interval"
    )
    page = Page("Categories that no training image shows", note)
    figure = new_figure(page, 3.3)
    left, right = figure.subplots(1, 2)
    for place, feature in enumerate(features):
        for i, name in enumerate(names):
            both = (table["feature"] == feature) & (table["decoder"] == name)
            for _, row in table[both].iterrows():
                seen = row["trained_on"] == "same categories"
                shift = (i - (len(names) - 1) / 2) * 0.8 / len(names)
                x = place + shift + (-0.03 if seen else 0.03)
                colour = colours[name]
                _point(left, right, x, row, colour if seen else "w", colour)
    for axes in (left, right):
        _feature_axis(axes, features)
    left.set_ylabel("correlation r, true and decoded")
    right.set_ylabel("effective rank, truth = 1")
    right.set_ylim(bottom=0)
    _legend(left, names, [], "o")
    return figure


def _point(
    left: Axes, right: Axes, x: float, row: pd.Series, face: Any, edge: Any
) -> None:
    dot: dict[str, Any] = {"markerfacecolor": face, "color": edge, "markersize": 5}
    left.plot([x, x], [row["r_low"], row["r_high"]], color=edge, linewidth=0.9)
    left.plot(x, row["r_mean"], "o", **dot)
    right.plot(x, row["rank_share"], "o", **dot)
