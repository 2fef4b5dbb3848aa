"""The figure of notebook 09: how fast a scene may move to be read from fMRI."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Images
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, Grid, Words, draws
from minddiff_utils.reporting.wording import counted, percent, span

__all__ = ["fig_video"]


@draws(
    "The table of means",
    "subject method metric value ci_low ci_high floor n_images n_subjects",
)
def fig_video(
    means: pd.DataFrame,
    images: Mapping[str, Images],
    orders: Mapping[str, float],
    methods: Words,
    rows: Words,
    *,
    tr: float,
    confidence: float = 0.95,
) -> Figure:
    """Draw the share of frames in order against the duration of a clip, and a clip.

    `means`: from `summaries.summarise`; `images`: row -> uint8 (n_frames, S, S, 3) of
    one clip, of which `rows` are drawn; `orders`: metric -> seconds that a clip of it
    lasts; `tr`: seconds between volumes. No order of any of `methods`: DataError.
    """
    pooled = canvas.pooled_rows(means, "The table of means")
    drawn = pooled[pooled["metric"].isin(orders) & pooled["method"].isin(methods)]
    if drawn.empty:
        raise DataError("The table of means holds no order of frames to draw.")
    n_subjects = int(drawn["n_subjects"].max())
    note = (
        f"n = {span(drawn['n_images'])} clips of {counted(n_subjects, 'subject')}."
        f" Dot and line: mean and {percent(confidence)} interval (t over clips)."
        f" Shaded: the whole clip is over before the next volume, {tr:g} s later."
        " Dotted: the same with the truth of other clips. Below: one clip, the first of"
        " the test clips, whichever it is"
    )
    strip = Grid(
        [images[name] for name in rows if name in images],
        [rows[name] for name in rows if name in images],
        [str(k + 1) for k in range(len(next(iter(images.values()))))],
    )
    title = "How fast a scene may move for its frames to be put in order"
    figure = canvas.new_figure(title, note, 2.4 + strip.height)
    above, below = figure.subfigures(
        2, 1, squeeze=False, height_ratios=[2.6, strip.height - 1.0]
    ).flat
    (axes,) = canvas.panels(above, 1, 1)
    _draw_orders(axes, drawn, orders, methods, tr)
    (pictures,) = canvas.panels(below, 1, 1)
    canvas.draw_images(pictures, strip)
    return figure


def _draw_orders(
    axes: Axes,
    drawn: pd.DataFrame,
    orders: Mapping[str, float],
    methods: Words,
    tr: float,
) -> None:
    keys: dict[str, dict[str, Any]] = {}
    for place, (method, words) in enumerate(methods.items()):
        own = drawn[drawn["method"] == method].assign(
            seconds=lambda table: table["metric"].map(orders)
        )
        look = {"color": PALETTE[place]}
        own = own.sort_values("seconds")
        axes.plot(own["seconds"], own["value"], linewidth=1, **look)
        axes.plot(own["seconds"], own["floor"], linewidth=1, linestyle=":", **look)
        for row in canvas.records(own):
            shift = 1.03 ** (place - (len(methods) - 1) / 2)  # side by side
            where = float(row["seconds"]) * shift
            canvas.draw_interval(axes, where, row, upright=True, **look)
        if len(own):
            keys[words] = {**look, "marker": "o"}
    seconds = sorted(orders.values())
    axes.axvspan(seconds[0] / 1.3, max(tr, seconds[0]) * 1.08, color="0.92", zorder=0)
    axes.axhline(0.5, color=GRAY, linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xlim(seconds[0] / 1.3, seconds[-1] * 1.3)
    axes.set_xticks(seconds, [f"{s:g}" for s in seconds])
    axes.set_xlabel(
        "seconds in which an object crosses half of the image, eight frames"
    )
    axes.set_ylabel("pairs of frames in order")
    axes.grid(axis="y")
    canvas.draw_keys(axes, keys, loc="upper left")
