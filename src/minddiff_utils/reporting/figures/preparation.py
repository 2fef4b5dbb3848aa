"""Figures of notebook 01: areas, repeats, reliability, images; 00's ground truth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Floats, Images, Ints
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import HIGH, LOW, PALETTE, draws
from minddiff_utils.reporting.wording import area_order, counted, subject_order, wrap

__all__ = [
    "fig_ncsnr_recovery",
    "fig_noise",
    "fig_reliability",
    "fig_repeats",
    "fig_roi_counts",
    "fig_scenes",
]

_BOTH = ("planted", "measured")


def _name_groups(axes: Axes) -> None:
    """Say what the two colours of the areas mean."""
    groups = {"low-level (LVC)": LOW, "high-level (HVC)": HIGH}
    keys = [Patch(color=colour, label=words) for words, colour in groups.items()]
    axes.legend(handles=keys, loc="lower right", ncols=2, bbox_to_anchor=(1, 1))


@draws("The table of areas", "subject area area_set n_voxels")
def fig_roi_counts(counts: pd.DataFrame) -> Figure:
    """Draw the number of voxels of each visual area, a panel per subject.

    `counts`: columns subject, area, area_set (LVC or HVC), n_voxels.
    """
    subjects, areas = subject_order(counts["subject"]), area_order(counts["area"])
    note = (
        f"n = {int(counts['n_voxels'].sum()):,} voxels of "
        f"{counted(len(subjects), 'subject')}; a count, no interval"
    )
    height = 1.0 + 1.6 * len(subjects)
    figure = canvas.new_figure("Voxels in each visual area", note, height)
    grid = canvas.panels(figure, len(subjects), 1, sharex=True, sharey=True)
    for axes, subject in zip(grid, subjects, strict=True):
        areas_of = counts[counts["subject"].astype(str) == subject]
        n_voxels = areas_of.set_index("area")["n_voxels"].reindex(areas).fillna(0)
        bars = axes.bar(areas, n_voxels, color=canvas.area_colours(areas), width=0.75)
        axes.bar_label(bars, fmt="{:,.0f}", size=7, padding=1)
        axes.set(ylabel="voxels", title=f"subject {subject}")
        axes.margins(y=0.18)
    _name_groups(grid[0])
    grid[-1].set_xlabel("visual area, from early to late")
    return figure


@draws()
def fig_repeats(repeats: Mapping[str, Floats]) -> Figure:
    """Draw single trials of the same images, a panel per voxel.

    `repeats`: what to say of a voxel to its trials (n_images, n_repeats), NaN where a
    trial holds no data.
    """
    sizes = {values.shape for values in repeats.values()}
    if len(sizes) != 1:
        raise DataError(
            f"The voxels' trials have the shapes {sorted(sizes)}, but must be of the"
            " same images, in one voxel or more."
        )
    [(n_images, n_repeats)] = sizes
    note = (
        f"n = {counted(n_images, 'test image')}, {counted(n_repeats, 'trial')} of each;"
        " dots: trials, lines: their mean; no interval, all trials are shown"
    )
    figure = canvas.new_figure("The same image again", note, 0.9 + 1.6 * len(repeats))
    grid = canvas.panels(figure, len(repeats), 1, sharex=True, sharey=True)
    x = np.arange(1, n_images + 1)
    for axes, (name, values) in zip(grid, repeats.items(), strict=True):
        for trials in values.T:
            axes.scatter(x, trials, s=12, color=PALETTE[0], alpha=0.7, linewidths=0)
        mean = pd.DataFrame(values).mean(axis=1)  # of the trials that hold data
        axes.hlines(mean, x - 0.32, x + 0.32, color="black", linewidth=1.4)
        axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
        axes.set(ylabel="response (z)", title=name)
    grid[-1].set(xlabel="test image", xticks=x)
    return figure


@draws()
def fig_reliability(
    noise_ceiling_r: Floats, roi: Ints, area_names: Sequence[str]
) -> Figure:
    """Draw the distribution over voxels of the noise ceiling, by area.

    `noise_ceiling_r`, (n_voxels,): correlation that a perfect model would reach, NaN
    where not known; `roi`, (n_voxels,): index into `area_names`.
    """
    check_shape(roi.shape, noise_ceiling_r.shape, "roi")
    voxels = pd.DataFrame({"area": np.array(area_names)[roi], "r": noise_ceiling_r})
    known = voxels.dropna()
    n_voxels, areas = known["area"].value_counts(), area_order(known["area"])
    if not areas:
        raise DataError("No voxel has a noise ceiling: check ncsnr of this subject.")
    note = (
        f"n = {len(known):,} voxels ({len(voxels) - len(known):,} without a value); "
        "outline: density of voxels, box: quartiles, line: median; no interval, as "
        "these are voxels and not a sample mean"
    )
    figure = canvas.new_figure("Noise ceiling by visual area", note, 3.0)
    axes = figure.subplots()
    colours = dict(zip(areas, canvas.area_colours(areas), strict=True))
    look: dict[str, Any] = {"alpha": 0.4, "saturation": 1, "linewidth": 0.9, "cut": 0}
    look |= {"hue": "area", "palette": colours, "legend": False, "order": areas}
    sns.violinplot(known, x="area", y="r", density_norm="width", ax=axes, **look)
    axes.set_xticks(range(len(areas)), [f"{a}\n{n_voxels[a]:,}" for a in areas])
    axes.grid(axis="y")
    axes.set(xlabel="visual area and number of voxels", ylim=(0, 1))
    axes.set_ylabel("noise ceiling (correlation r)", size=7.5)
    _name_groups(axes)
    return figure


@draws()
def fig_scenes(images: Images, captions: Sequence[str]) -> Figure:
    """Draw images, uint8 (n_images, height, width, 3), each with its caption."""
    canvas.check_images(images, "Scenes")
    check_shape((len(captions),), (len(images),), "captions")
    n, height, width, _ = images.shape
    n_columns = min(4, n)
    note = (
        f"n = {counted(n, 'image')}, {width} x {height} px; the first caption of each"
    )
    height = 0.7 + 2.2 * -(-n // n_columns)
    figure = canvas.new_figure("Images and captions", note, height)
    grid = canvas.panels(figure, n, n_columns)
    for axes, image, caption in zip(grid, images, captions, strict=True):
        axes.imshow(image)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_xlabel(wrap(caption, 27), size=7.5, va="top")
    return figure


@draws()
def fig_ncsnr_recovery(
    planted: Floats, recomputed: Floats, standard_error: Floats
) -> Figure:
    """Draw the planted signal-to-noise ratio against the one computed from trials.

    All (n_voxels,): ncsnr that the simulation was given, the one that its trials show,
    and the standard error of the latter; voxels with a NaN in one are left out.
    """
    check_shape(recomputed.shape, planted.shape, "recomputed")
    check_shape(standard_error.shape, planted.shape, "standard_error")
    error = recomputed - planted
    known = np.isfinite(error) & np.isfinite(standard_error)
    if not known.any():
        raise DataError("No voxel has both ncsnr values: check the simulated folder.")
    x, y = planted[known], recomputed[known]
    within = np.abs(error[known]) <= 2 * standard_error[known]
    note = (
        f"n = {int(known.sum()):,} voxels; {100 * within.mean():.1f} % lie within 2 "
        "standard errors of the line (about 95 % if the estimate is right)"
    )
    figure = canvas.new_figure("The planted ncsnr is found again", note, 3.9, 4.2)
    axes = figure.subplots()
    top = float(max(x.max(), y.max(), 1e-6)) * 1.05
    axes.plot([0, top], [0, top], color="black", linewidth=0.9, label="equal", zorder=3)
    for inside, look in (
        (within, {"color": PALETTE[0], "alpha": 0.35, "label": "within 2 SE"}),
        (~within, {"color": PALETTE[3], "alpha": 0.8, "label": "outside"}),
    ):
        axes.scatter(x[inside], y[inside], s=5, linewidths=0, rasterized=True, **look)
    axes.set(xlabel="ncsnr planted", ylabel="ncsnr recomputed from trials")
    axes.set(xlim=(0, top), ylim=(min(0.0, float(y.min())), top), aspect="equal")
    axes.legend(loc="upper left", markerscale=2.5)
    return figure


@draws("Noise by distance", "distance n_pairs planted measured")
def fig_noise(
    distance: pd.DataFrame, serial: pd.DataFrame, ceilings: pd.DataFrame
) -> Figure:
    """Draw planted and measured structure of the noise, and ceilings that were reached.

    `distance`: columns distance (voxels), n_pairs, planted and measured correlation of
    the noise of two voxels; `serial`: lag (trials), planted and measured correlation of
    successive noise; `ceilings`: ceiling, reached (means over voxels), n_voxels.
    """
    canvas.check_table(serial, ("lag", *_BOTH), "Noise by lag")
    canvas.check_table(ceilings, ("ceiling", "reached", "n_voxels"), "Ceilings")
    note = (
        f"n = {int(distance['n_pairs'].sum()):,} pairs of voxels; "
        f"{int(ceilings['n_voxels'].sum()):,} voxels; means, no interval, as the "
        "planted values are known"
    )
    title = "The planted noise is in the written trials"
    figure = canvas.new_figure(title, note, 2.9)
    left, middle, right = figure.subplots(1, 3)
    for axes, table, x in ((left, distance, "distance"), (middle, serial, "lag")):
        axes.plot(table[x], table["planted"], color="black", label="planted")
        dots = {"color": PALETTE[0], "linewidths": 0, "label": "measured"}
        axes.scatter(table[x], table["measured"], s=18, zorder=3, **dots)
        axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    left.set(xlabel="distance (voxels)", ylabel="noise correlation")
    middle.set(xlabel="trials apart", ylabel="noise correlation")
    left.legend(loc="upper right")
    right.plot([0, 1], [0, 1], color="black", linewidth=0.9)
    right.scatter(ceilings["ceiling"], ceilings["reached"], s=18, color=PALETTE[0])
    right.set(xlabel="noise ceiling (r)", ylabel="r with the true signal")
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return figure
