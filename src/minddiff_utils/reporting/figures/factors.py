"""The figure of notebook 07: what makes subjects differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, Words, draws
from minddiff_utils.reporting.wording import counted, percent, span, wrap

__all__ = ["fig_factors"]

#: Accuracies that are drawn, in words, with their line and marker.
_READ = {"c_r": ("c", "-", "o"), "z_r": ("z", "--", "s")}
_SHARES = (25, 50)

Rows = Mapping[Any, Mapping[Any, Any]]


@draws("The table of means", "subject method metric value ci_low ci_high n_images")
def fig_factors(
    means: pd.DataFrame,
    slopes: pd.DataFrame,
    facts: pd.DataFrame,
    metrics: Words,
    *,
    confidence: float = 0.95,
) -> Figure:
    """Draw slopes over images, doses, virtual subjects, and a new subject's minutes.

    `means`: from `summaries.summarise`, of `studies.subjects.study`, whose second table
    is `facts`; `slopes`: from `claims.image_slopes`, may be empty. The means have no
    row of all data: DataError.
    """
    pooled = canvas.pooled_rows(means, "The table of means")
    rows = pooled.set_index(["method", "metric"]).to_dict("index")
    if ("all", "c_r") not in rows:
        raise DataError("The table of means has no decoder of all data to compare.")
    read = pooled.loc[pooled["metric"].isin(_READ), "n_images"]
    n_subjects = int(pooled["n_subjects"].max())
    note = (
        f"n = {span(read)} images, {counted(n_subjects, 'subject')}. Accuracy: r of an"
        f" image's decoded c or z. Lines: {percent(confidence)} intervals, new images"
        " (A: jackknife, filled: image and subject as random effects, open: as fixed"
        " ones). C: each dot is a virtual subject, a subject's responses with more of"
        " its own noise and fewer voxels"
    )
    title = "What makes subjects differ: voxels, signal, or how much data there is"
    figure = canvas.new_figure(title, note, 6.2)
    slope, dose, virtual, minutes = canvas.panels(figure, 4, 2)
    _draw_slopes(slope, slopes, metrics)
    _draw_doses(dose, rows)
    _draw_virtual(virtual, means, facts)
    _draw_minutes(minutes, rows, facts)
    for axes in (dose, virtual, minutes):
        axes.grid(axis="y")
    return figure


def _draw_slopes(axes: Axes, slopes: pd.DataFrame, metrics: Words) -> None:
    axes.set_title("A  Image by image: what accuracy is worth", size=8)
    axes.axvline(0, color="0.3", linewidth=0.8)
    places = [(metric, feature) for metric in metrics for feature in ("c", "z")]
    for row in canvas.records(slopes):
        if (key := (row["metric"], row["feature"])) in places:
            is_fixed = row["model"] == "fixed"
            colour = PALETTE[0] if row["feature"] == "c" else PALETTE[1]
            look = {"color": colour, "markerfacecolor": "white" if is_fixed else colour}
            place = places.index(key) + (0.2 if is_fixed else -0.1)
            canvas.draw_interval(axes, place, row, **look)
    axes.set_yticks(
        range(len(places)), [f"{wrap(metrics[m], 16)}: {f}" for m, f in places]
    )
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlabel("score per unit of r")
    axes.grid(axis="x")


def _draw_doses(axes: Axes, rows: Rows) -> None:
    axes.set_title("B  Less of one subject", size=8)
    looks: dict[str, dict[str, Any]] = {}
    for k, factor in enumerate(("voxels", "trials", "sessions")):
        looks[factor] = {"color": PALETTE[k]}
        names = [*(f"{factor}_{share}" for share in _SHARES), "all"]
        places = [place + 0.07 * (k - 1) for place in range(3)]
        _draw_lines(axes, rows, names, places, looks[factor])
    for place, area in ((3, "LVC"), (4, "HVC")):
        _draw_lines(axes, rows, [area], [place], {"color": GRAY})
    ticks = [*(f"{share} %" for share in _SHARES), "all", "LVC", "HVC"]
    axes.set_xticks(range(5), ticks)
    axes.set_ylabel("accuracy, r")
    keys = {name: {"color": "0.2", "linestyle": k} for name, k, _ in _READ.values()}
    canvas.draw_keys(axes, looks | keys, ncols=2)


def _draw_lines(
    axes: Axes,
    rows: Rows,
    methods: Sequence[str],
    places: Sequence[float],
    look: Mapping[str, Any],
) -> None:
    for metric, (_, line, marker) in _READ.items():
        own = [(x, rows[m, metric]) for x, m in zip(places, methods, strict=True)
               if (m, metric) in rows]  # fmt: skip
        axes.plot([x for x, _ in own], [r["value"] for _, r in own], line, **look)
        for x, row in own:
            some = {"marker": marker, "markersize": 3.5, **look}
            canvas.draw_interval(axes, x, row, upright=True, width=1, **some)


def _draw_virtual(axes: Axes, means: pd.DataFrame, facts: pd.DataFrame) -> None:
    axes.set_title("C  Virtual subjects: noise and voxels", size=8)
    own = means[(means["metric"] == "c_r") & (means["subject"] != "all")]
    table = facts.merge(own, on=["subject", "method"]).sort_values("relative_snr")
    table = table[table["method"].str.startswith("virtual")]
    for k, (share, some) in enumerate(table.groupby("voxels_percent"), 2):
        look = {"color": PALETTE[k], "label": f"{share:g} % of the voxels"}
        axes.plot(some["relative_snr"], some["value"], "o", **look)
    axes.set_xscale("log", base=2)
    levels = sorted(table["relative_snr"].unique())
    axes.set_xticks(levels, [f"{level:.2g}" for level in levels])
    axes.set_xlabel("SNR of a trial, over the subject's own")
    axes.set_ylabel("accuracy of c, r")
    if len(table):
        axes.legend()


def _draw_minutes(axes: Axes, rows: Rows, facts: pd.DataFrame) -> None:
    axes.set_title("D  A new subject, by minutes of data", size=8)
    methods = [str(m) for m in facts["method"].unique()]
    looks = {"own": {"color": GRAY}, "aligned": {"color": PALETTE[3]}}
    for kind, look in looks.items():
        names = [m for m in methods if m.startswith(f"{kind}_")]
        apart = 1.02 if kind == "own" else 0.98  # no interval hides the other
        times = [apart * float(m.rpartition("_")[2]) for m in names]
        _draw_lines(axes, rows, names, times, look)
    if any(m.startswith("own_") for m in methods):
        axes.set_xscale("log", base=2)
        times = sorted(
            {float(m.rpartition("_")[2]) for m in methods if m[:4] == "own_"}
        )
        axes.set_xticks(times, [f"{t:g}" for t in times])
    axes.set_xlabel("minutes of data")
    axes.set_ylabel("accuracy, r")
    canvas.draw_keys(axes, {"alone": looks["own"], "aligned": looks["aligned"]})
