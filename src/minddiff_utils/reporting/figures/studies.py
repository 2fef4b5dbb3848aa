"""Figures of what the paper left open: stage 2's engines (A3), notebooks 07 to 09."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Images
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, Grid, Words, draws
from minddiff_utils.reporting.wording import counted, percent, span, subject_order, wrap

__all__ = ["fig_factors", "fig_leakage", "fig_no_worse", "fig_pareto", "fig_video"]


_WORDS = {
    "structural_loss": "structural loss",
    "ssim_2d": "SSIM",
    "pcc": "pixel correlation (PCC)",
    "clip_judge": "CLIP similarity (judge)",
}
_MEANS = "subject method metric value ci_low ci_high n_images n_subjects"
_MARKS = {"better": "o", "no worse": "o", "not shown": "D", "worse": "X"}
#: The eighth colour is gray, which is for controls.
_COLOURS = (*PALETTE[:7], *PALETTE[8:])


@draws(
    "The table of quality and cost",
    "method metric value low high cost n_images n_subjects",
)
def fig_pareto(points: pd.DataFrame, shown: Words, *, confidence: float) -> Figure:
    """Draw every endpoint against the U-Net evaluations of an image.

    `points`: from `stage2_engines.pareto_table`; `shown`: methods with a colour of
    their own, in words; others are gray.
    """
    metrics = canvas.metrics_in(points, _WORDS)
    note = (
        f"{canvas.counts(points)}; bars: {confidence:.0%} "
        "interval for these subjects and new images. A guided step counts two "
        "evaluations; gradients are not counted. Gray: controls, upward triangles with "
        "true features, downward ones with another image's, dots other variants. "
        "Points of one cost stand side by side. Intervals of two arms may overlap "
        "where their difference on the same images is clear: that has its own figures"
    )
    figure = canvas.new_figure("Quality against cost in stage 2", note, 5.4)
    grid = canvas.panels(figure, len(metrics), 2, sharex=True)
    named = [name for name in dict.fromkeys(points["method"]) if name in shown]
    beside = _side_by_side(points[points["method"].isin(named)])
    for axes, metric in zip(grid, metrics, strict=True):
        for row in points[points["metric"] == metric].to_dict("records"):
            name, value = row["method"], float(row["value"])
            bars = np.abs([[value - row["low"]], [row["high"] - value]])
            mark = {"true": "^", "shuffled": "v"}.get(name.rpartition("_")[2], ".")
            look: dict[str, Any] = {"marker": mark, "markersize": 4}
            look |= {"color": GRAY, "zorder": 2, "linestyle": "", "elinewidth": 1}
            if name in shown:
                colour = _COLOURS[named.index(name) % len(_COLOURS)]
                look |= {"marker": "o", "markersize": 6, "color": colour, "zorder": 3}
            look |= {"label": shown.get(name), "yerr": np.nan_to_num(bars)}
            axes.errorbar([row["cost"] * beside.get(name, 1.0)], [value], **look)
        better = "lower" if metric == "structural_loss" else "higher"
        axes.set(title=f"{_WORDS[metric]} ({better} is better)", xscale="log")
        axes.xaxis.set_major_formatter("{x:,.0f}")  # no mathematics in our style
        axes.grid(axis="both")
    for axes in grid[-2:]:
        axes.set_xlabel("U-Net evaluations per image")
    handles, words = grid[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside right center")
    return figure


def _side_by_side(points: pd.DataFrame) -> dict[str, float]:
    """Return each arm's shift in cost, a factor, where several cost the same."""
    costs = points.groupby("method", sort=False)["cost"].first().sort_values()
    steps = np.diff(np.log(costs.to_numpy(np.float64)), prepend=np.nan)
    group = pd.Series(~(steps < 0.1), costs.index).cumsum()  # within a tenth
    alike = group.groupby(group)
    place = alike.cumcount() - (alike.transform("size") - 1) / 2
    return {str(name): float(1.2**k) for name, k in place.items()}


@draws(
    "The table of verdicts",
    "subject method reference metric value ci_low ci_high margin verdict n_images",
)
def fig_no_worse(
    verdicts: pd.DataFrame,
    shown: Words,
    *,
    reference: str,
    confidence: float,
) -> Figure:
    """Draw how far each engine is from the reference, with the margins.

    `verdicts`: from `stage2_engines.confirm`, above 0 is better; its rows of
    `reference` are drawn. `shown`: words for methods and reference.
    """
    rows = verdicts[verdicts["reference"] == reference]
    canvas.check_table(rows, (), f"The table of verdicts against {reference}")
    metrics = canvas.metrics_in(rows, _WORDS)
    methods = list(dict.fromkeys(rows["method"].astype(str)))
    lines = [(m, s) for m in methods for s in subject_order(rows["subject"])]
    note = (
        f"n = {span(rows['n_images'])} images; lines: {confidence:.0%} intervals;"
        " dashed: margin. Circle: better or no worse, diamond: not shown, cross: worse"
    )
    title = f"Difference from {shown.get(reference, reference)} (above 0: better)"
    page = (title, note, 1.4 + 0.24 * len(lines))
    whose = {"all": "all"}
    words = [f"{shown.get(m, m)}, {whose.get(s, f'subject {s}')}" for m, s in lines]
    titles, n = [_WORDS[metric] for metric in metrics], len(metrics)
    figure, grid = canvas.rows_by_metric(page, words, titles, "difference", n)
    for axes, metric in zip(grid, metrics, strict=True):
        drawn = rows[rows["metric"] == metric]
        axes.axvline(0, color="0.3", linewidth=0.7)
        margin = -float(drawn["margin"].iloc[0])
        axes.axvline(margin, color="0.3", lw=0.7, linestyle="--")
        for row in drawn.to_dict("records"):
            method, place = str(row["method"]), (row["method"], str(row["subject"]))
            look: dict[str, Any] = {"marker": _MARKS[str(row["verdict"])]}
            look |= {"color": PALETTE[methods.index(method)], "width": 1.4}
            canvas.draw_interval(axes, lines.index(place), row, **look)
    return figure


#: Accuracies that are drawn, in words, with their line and marker.
_READ = {"c_r": ("c", "-", "o"), "z_r": ("z", "--", "s")}
_SHARES = (25, 50)

Rows = Mapping[Any, Mapping[Any, Any]]


@draws("The table of means", _MEANS)
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
    note = (
        f"{canvas.counts(pooled[pooled['metric'].isin(_READ)])}. Accuracy: r of an"
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
    for row in slopes.to_dict("records"):
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
    axes.set(xlabel="SNR of a trial, over the subject's own", ylabel="accuracy of c, r")
    if len(table):
        axes.legend()


def _draw_minutes(axes: Axes, rows: Rows, facts: pd.DataFrame) -> None:
    axes.set_title("D  A new subject, by minutes of data", size=8)
    looks = {"own": {"color": GRAY}, "aligned": {"color": PALETTE[3]}}
    methods = facts["method"].unique()
    for kind, apart in (("own", 1.02), ("aligned", 0.98)):  # no interval hides another
        names = [m for m in methods if m.startswith(f"{kind}_")]
        times = [apart * float(name.rpartition("_")[2]) for name in names]
        _draw_lines(axes, rows, names, times, looks[kind])
    if alone := sorted(float(m[4:]) for m in methods if m.startswith("own_")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(alone, [f"{t:g}" for t in alone])
    axes.set(xlabel="minutes of data", ylabel="accuracy, r")
    canvas.draw_keys(axes, {"alone": looks["own"], "aligned": looks["aligned"]})


@draws("The table of gains", _MEANS)
def fig_leakage(
    gains: pd.DataFrame,
    shares: pd.DataFrame,
    metrics: Words,
    groups: Mapping[str, Words],
    curve: Words,
    *,
    confidence: float = 0.95,
) -> Figure:
    """Draw what each row scores above a generator that is told nothing, and by axes.

    `gains`: from `summaries.contrast_table`, all with the same reference, of which the
    rows "all" are drawn, or those of the only subject; `shares`: from
    `studies.leakage.prior_shares` of one method, printed beside the rows; `groups`:
    what a group of rows knows -> method -> words; `curve`: method -> number of axes in
    words, the first being the reference itself. None of the rows is there: DataError.
    """
    pooled = canvas.pooled_rows(gains, "The table of gains")
    drawn = pooled[pooled["metric"].isin(metrics)]
    rows = drawn.set_index(["metric", "method"]).to_dict("index")
    there = set(drawn["method"])
    known = [[name for name in words if name in there] for words in groups.values()]
    lines = [name for own in known for name in own]
    canvas.check_table(drawn[drawn["method"].isin(lines)], (), "The table of gains")
    words = {name: text for own in groups.values() for name, text in own.items()}
    colours = {name: PALETTE[k] for k, own in enumerate(known) for name in own}
    note = (
        f"{canvas.counts(pooled)}."
        f" Dot and line: mean and {percent(confidence)} interval of the paired"
        " difference from stage 1 given the training means of c and z (t over images);"
        " number: the same as a share of stage 1's difference. Colours: what a row is"
        f" told ({'; '.join(groups)}). Below: stage 1 from the leading principal axes"
        " of c and of z alone, the decoder refitted"
    )
    title = "How much of a reconstruction is the brain's, and how much the prior's"
    above = 0.75 + 0.26 * len(lines)
    figure = canvas.new_figure(title, note, above + 2.6)
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[above, 1.9]).flat
    grid = canvas.panels(top, len(metrics), len(metrics), sharey=True)
    for axes, metric in zip(grid, metrics, strict=True):
        axes.set_title(wrap(metrics[metric], 30), size=8)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.grid(axis="x")
        share = shares[shares["metric"] == metric].set_index("prior")["value"].dropna()
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform()}
        for place, name in enumerate(lines):
            if row := rows.get((metric, name)):
                canvas.draw_interval(axes, place, row, color=colours[name], zorder=3)
            if name in share:
                percentage = f"{round(100 * share[name])} %"
                axes.text(1.01, place, percentage, size=6.5, va="center", **beside)
        for own in filter(None, known):
            if place := lines.index(own[0]):
                axes.axhline(place - 0.5, color="0.8", linewidth=0.6)
    grid[0].set_yticks(range(len(lines)), [wrap(words[name], 34) for name in lines])
    grid[0].invert_yaxis()
    top.supxlabel("score above that of the same generator told nothing", size=8)
    lower = canvas.panels(below, len(metrics), len(metrics))
    for axes, metric in zip(lower, metrics, strict=True):
        steps = [rows.get((metric, name)) for name in curve]
        _draw_curve(axes, steps, list(curve.values()))
    lower[0].set_ylabel("score above it")
    below.supxlabel("principal axes of c and of z that are read", size=8)
    return figure


def _draw_curve(
    axes: Axes, steps: Sequence[Mapping[Any, Any] | None], names: Sequence[str]
) -> None:
    """Draw the gain against the number of axes, evenly spaced; the first has none."""
    known = {k: row for k, row in enumerate(steps) if row is not None}
    values = [float(row["value"]) for row in known.values()]
    axes.plot([0, *known], [0.0, *values], color=GRAY, zorder=1)
    axes.plot(0, 0, "o", color=GRAY, markersize=4)
    for place, row in known.items():
        canvas.draw_interval(axes, place, row, upright=True, color=PALETTE[0])
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.grid(axis="y")
    axes.set_xticks(range(len(names)), list(names))


@draws("The table of means", f"{_MEANS} floor")
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
    canvas.check_table(drawn, (), "The table of means, of frames in order,")
    n_subjects = int(drawn["n_subjects"].max())
    note = (
        f"n = {span(drawn['n_images'])} clips of {counted(n_subjects, 'subject')}."
        f" Dot and line: mean and {percent(confidence)} interval (t over clips)."
        f" Shaded: the whole clip is over before the next volume, {tr:g} s later."
        " Dotted: the same with the truth of other clips. Below: one clip, the first of"
        " the test clips, whichever it is"
    )
    shown = {words: images[name] for name, words in rows.items() if name in images}
    n_frames = len(next(iter(images.values())))
    strip = Grid(shown, [str(k + 1) for k in range(n_frames)])
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
        for row in own.to_dict("records"):
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
    seen = "seconds in which an object crosses half of the image, eight frames"
    axes.set(xlabel=seen, ylabel="pairs of frames in order")
    axes.grid(axis="y")
    canvas.draw_keys(axes, keys, loc="upper left")
