"""Figures of notebooks 03 and 04: galleries, losses and trajectories.

Drawing only. Place in the flow: called by notebooks 03 to 06 and by appendix A1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.reporting.figures.canvas import (
    GRAY,
    PALETTE,
    Grid,
    Images,
    Page,
    check_images,
    counted,
    draw_images,
    new_figure,
    styled,
)

__all__ = ["fig_gallery", "fig_losses", "fig_trajectory"]

Floats = npt.NDArray[np.floating[Any]]


@styled
def fig_gallery(
    rows: Mapping[str, Images],
    *,
    title: str,
    row_notes: Mapping[str, str] | None = None,
    column_titles: Sequence[str] | None = None,
    rule: str = "",
) -> Figure:
    """Draw images in a grid: a row per method, a column per image.

    Parameters
    ----------
    rows : mapping of uint8 (n_images, height, width, 3)
        Method -> images, usually the seen ones first; a method with fewer images
        leaves its last cells blank.
    title : str
        The profile's words; what the gallery shows.
    row_notes : mapping of str to str, optional
        Small words below the name of a row.
    column_titles : sequence of str, optional
        Words above the columns.
    rule : str, optional
        How the images were picked, for the note.

    Raises
    ------
    DataError
        No rows, or a row holds no uint8 RGB images.
    """
    if not rows:
        raise DataError("The gallery has no rows: pass at least one method's images.")
    for name, images in rows.items():
        check_images(images, f"Images of {name!r}")
    notes = row_notes or {}
    unknown = ", ".join(sorted(set(notes) - set(rows)))
    if unknown:
        raise DataError(f"row_notes name {unknown}, which is no row of the gallery.")
    grid = Grid(
        rows=list(rows.values()),
        names=list(rows),
        notes=[notes.get(name, "") for name in rows],
        columns=list(column_titles or ()),
    )
    if column_titles is not None:
        check_shape((len(column_titles),), (grid.n_columns,), "column_titles")
    note = (
        f"n = {counted(grid.n_columns, 'image')}, {counted(len(rows), 'row')}; "
        "single images, no interval"
    )
    note += f". {rule}" if rule else ""
    figure = new_figure(Page(title, note), grid.height())
    draw_images(figure.subplots(), grid)
    return figure


def _relative(losses: Floats, first: Floats) -> Floats:
    """Return losses over each image's first one; NaN where that is not above 0.

    An image that has stopped keeps its last loss.
    """
    usable = np.where(first > 0, first, np.nan)
    relative = pd.DataFrame(losses / usable[:, None]).ffill(axis="columns")
    return np.asarray(relative)


def _mean_or_nan(values: Floats) -> Floats:
    """Return the mean over images of the finite values; NaN where there is none."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0)
    n = known.sum(axis=0)
    mean: Floats = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return mean


@styled
def fig_losses(
    losses: Floats,
    best_iteration: npt.NDArray[np.integer[Any]],
    candidates: Sequence[int],
    candidate_losses: Floats,
) -> Figure:
    """Draw the structural loss along stage 2, relative to its start.

    Parameters
    ----------
    losses : (n_images, n_iter + 1)
        Loss that the optimiser saw; NaN after an image's last step.
    best_iteration : (n_images,)
        The candidate chosen for each image.
    candidates : sequence of int
        Iterations whose images the complete sampler made.
    candidate_losses : (n_images, number of candidates)
        Loss of those images.
    """
    n_images, n_steps = losses.shape
    candidates = [int(k) for k in candidates]
    check_shape(best_iteration.shape, (n_images,), "best_iteration")
    check_shape(candidate_losses.shape, (n_images, len(candidates)), "candidate_losses")
    note = (
        f"n = {counted(n_images, 'image')}; thin: single images, thick: their mean; no "
        "interval. Loss of iteration 0 is 1; an image that has stopped keeps its last. "
        "Right: images of the complete sampler, filled where it is the one chosen"
    )
    page = Page("Structural loss during alignment (stage 2)", note)
    figure = new_figure(page, 3.1)
    left, right = figure.subplots(1, 2, sharey=True)
    relative = _relative(losses, losses[:, 0])
    left.plot(np.arange(n_steps), relative.T, color=GRAY, linewidth=0.5, alpha=0.5)
    thick = {"color": PALETTE[0], "lw": 2.2, "marker": "" if n_steps > 1 else "o"}
    left.plot(np.arange(n_steps), _mean_or_nan(relative), **thick)
    left.set(title="as the optimiser saw it", ylabel="loss, relative to iteration 0")
    shown = _relative(candidate_losses, candidate_losses[:, 0])
    _draw_candidates(right, shown, candidates, best_iteration)
    right.set_title("complete sampler (numbers: images that chose it)")
    right.margins(y=0.12)
    for axes in (left, right):
        axes.axhline(1, color="0.3", linewidth=0.7, linestyle="--")
        axes.grid(axis="y")
        axes.set_xlabel("iteration")
    return figure


def _draw_candidates(
    axes: Axes,
    shown: Floats,
    candidates: Sequence[int],
    best_iteration: npt.NDArray[np.integer[Any]],
) -> None:
    axes.plot(candidates, shown.T, color=GRAY, linewidth=0.5, alpha=0.5)
    axes.plot(candidates, _mean_or_nan(shown), color=PALETTE[1], linewidth=2.2)
    for k, iteration in enumerate(candidates):
        chosen = best_iteration == iteration
        x = np.full(len(shown), iteration)
        axes.scatter(x, shown[:, k], s=12, facecolor="white", edgecolor="0.4", zorder=3)
        axes.scatter(x[chosen], shown[chosen, k], s=14, color=PALETTE[1], zorder=4)
        axes.annotate(
            f"{int(chosen.sum())}",
            (iteration, 1),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            size=7,
        )
    axes.set_xticks(candidates)


@styled
def fig_trajectory(
    images: Images, iterations: Sequence[int], truth: Images
) -> Figure:
    """Draw images along stage 2, a row per image, with the seen image at the end.

    Parameters
    ----------
    images : uint8 (n_images, n_steps, height, width, 3)
        As the optimiser saw them.
    iterations : sequence of int
        Their iterations.
    truth : uint8 (n_images, height, width, 3)
        Seen images.
    """
    check_shape(images.shape, (len(truth), len(iterations), None, None, 3), "images")
    check_images(truth, "Seen images")
    for steps in images:
        check_images(steps, "Images along the way")
    titles = [f"iteration {k}" for k in iterations]
    n_images, n_columns = len(images), len(titles) + 1
    note = (
        f"n = {counted(n_images, 'image')}; as the optimiser's sampler makes them; "
        "last column: the image the subject saw"
    )
    page = Page("What alignment changes, step by step (stage 2)", note)
    figure = new_figure(page, min(6.6 / n_columns, 1.1) * n_images + 1.2)
    columns = [*titles, "seen image"]
    rows = [_with_truth(row, seen) for row, seen in zip(images, truth, strict=True)]
    names = [f"{k + 1}" for k in range(n_images)]
    draw_images(figure.subplots(), Grid(rows, names, (), columns))
    return figure


def _with_truth(steps: Images, seen: Images) -> Images:
    check_shape(seen.shape, steps.shape[1:], "A seen image")
    return np.concatenate([steps, seen[None]])
