"""Figures of notebooks 03, 04 and 06: images, losses, the method on one page, failures.

Failure signatures: where an image's meaning and its structure are recovered apart.
Which images are extreme is decided before, by a rule (`galleries`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Doubles, Floats, Images, Ints
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, Words, draws
from minddiff_utils.reporting.wording import counted, wrap

__all__ = [
    "MethodPanels",
    "fig_failures",
    "fig_gallery",
    "fig_losses",
    "fig_losses_of_truth",
    "fig_method",
    "fig_trajectory",
]


@draws()
def fig_gallery(
    rows: Mapping[str, Images],
    *,
    title: str,
    column_titles: Sequence[str] = (),
    rule: str = "",
    below: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw images in a grid: a row per method, a column per image.

    `rows`: method -> uint8 (n_images, height, width, 3), usually the seen ones first; a
    method with fewer images leaves its last cells blank. `title`: what is shown;
    `column_titles`: one for each column; `rule`: how the images were picked; `below`:
    method -> its scores, which stand below its pictures.
    """
    if not rows:
        raise DataError("The gallery has no rows: pass at least one method's images.")
    for name, images in rows.items():
        canvas.check_images(images, f"Images of {name!r}")
    grid = canvas.Grid(rows, column_titles, below or {})
    if column_titles:
        check_shape((len(column_titles),), (grid.n_columns,), "column_titles")
    size = f"{counted(grid.n_columns, 'image')}, {counted(len(rows), 'row')}"
    scored = "Below: CLIP similarity by the judge · SSIM" if below else ""
    parts = [f"n = {size}; single images, no interval", scored, rule]
    figure = canvas.new_figure(title, ". ".join(filter(None, parts)), grid.height)
    canvas.draw_images(figure.subplots(), grid)
    return figure


@draws()
def fig_losses(
    losses: Floats,
    best_iteration: Ints,
    candidates: Sequence[int],
    candidate_losses: Floats,
    *,
    unit: str = "iteration",
) -> Figure:
    """Draw the structural loss along stage 2, relative to its start.

    `losses`, (n_images, n_iter + 1): as the engine saw them, NaN after an image's last
    step; `best_iteration`, (n_images,): the candidate chosen; `candidates`: iterations
    whose images are candidates; `candidate_losses`, (n_images, n_candidates): of those
    images; `unit`: what is on the axis, from `wording.step_words`.
    """
    n_images, n_steps = losses.shape
    check_shape(best_iteration.shape, (n_images,), "best_iteration")
    check_shape(candidate_losses.shape, (n_images, len(candidates)), "candidate_losses")
    relative, sampled = _relative(losses), _relative(candidate_losses)
    rises = int((relative[:, 1] > relative[:, 0]).sum()) if n_steps > 1 else 0
    note = (
        f"n = {counted(n_images, 'image')}; thin: single images, thick: their mean; no "
        "interval. The first loss is 1; an image that has stopped keeps its last. The "
        f"second is above it in {rises} of the images. Right: finished images, the "
        "one before the first change among them; filled where it is the one chosen"
    )
    title = "Structural loss along stage 2"
    figure = canvas.new_figure(title, note, 3.1)
    left, right = figure.subplots(1, 2, sharey=True)
    marker = "" if n_steps > 1 else "o"
    left.set(title="as the engine saw it", ylabel="loss, relative to the first")
    for axes, steps, curves, colour, mark in (
        (left, range(n_steps), relative, PALETTE[0], marker),
        (right, candidates, sampled, PALETTE[1], ""),
    ):
        axes.plot(steps, curves.T, color=GRAY, linewidth=0.5, alpha=0.5)
        mean = pd.DataFrame(curves).mean()  # of the losses that are known
        axes.plot(steps, mean, color=colour, linewidth=2.2, marker=mark)
        axes.axhline(1, color="0.3", linewidth=0.7, linestyle="--")
        axes.grid(axis="y")
        axes.set_xlabel(unit)
    for k, iteration in enumerate(candidates):
        chosen, y = best_iteration == iteration, sampled[:, k]
        x = np.full(n_images, iteration)
        right.scatter(x, y, s=12, facecolor="white", edgecolor="0.4", zorder=3)
        right.scatter(x[chosen], y[chosen], s=14, color=PALETTE[1], zorder=4)
        at: Any = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "top"}
        right.annotate(f"{int(chosen.sum())}", (iteration, 1), size=7, **at)
    right.set_xticks(candidates)
    right.set_title("finished images (numbers: how often chosen)")
    right.margins(y=0.12)
    return figure


def _relative(losses: Floats) -> Floats:
    """Return losses over each image's first, the last one kept; NaN without one."""
    first = np.where(losses[:, 0] > 0, losses[:, 0], np.nan)
    return pd.DataFrame(losses / first[:, None]).ffill(axis="columns").to_numpy()


@draws()
def fig_trajectory(
    images: Images,
    iterations: Sequence[int],
    truth: Images,
    *,
    unit: str = "iteration",
) -> Figure:
    """Draw images along stage 2, a row per image, with the seen image at the end.

    `images`, uint8 (n_images, n_steps, height, width, 3): as the engine saw them at
    `iterations`; `truth`, uint8 (n_images, height, width, 3): the seen ones; `unit`:
    as of `fig_losses`.
    """
    canvas.check_images(truth, "Seen images")
    check_shape(images.shape, (len(truth), len(iterations), *truth.shape[1:]), "images")
    rows = np.concatenate([images, truth[:, None]], axis=1)
    for row in rows:
        canvas.check_images(row, "Images along the way")
    n_images, n_columns, *_ = rows.shape
    note = (
        f"n = {counted(n_images, 'image')}; as the engine saw them, by {unit}; "
        "last column: the image the subject saw"
    )
    title = "What stage 2 changes, step by step"
    height = min(6.6 / n_columns, 1.1) * n_images + 1.2
    figure = canvas.new_figure(title, note, height)
    word = unit.partition(" ")[0]
    columns = [*(f"{word} {k}" for k in iterations), "seen image"]
    by_image = {f"{k}": row for k, row in enumerate(rows, 1)}
    canvas.draw_images(figure.subplots(), canvas.Grid(by_image, columns))
    return figure


@draws()
def fig_losses_of_truth(losses: Mapping[str, tuple[Floats, Floats]]) -> Figure:
    """Draw the loss of the seen image against that of draws, a panel per loss.

    `losses`: name of a loss to truth (n_images,) and draws (n_images, n_draws).
    """
    n_images, n_draws = next(iter(losses.values()))[1].shape
    for truth, drawn in losses.values():
        check_shape(drawn.shape, (n_images, n_draws), "draws")
        check_shape(truth.shape, (n_images,), "truth")
    note = (
        f"n = {counted(n_images, 'image')}; across: mean loss of"
        f" {counted(n_draws, 'draw')} of stage 1, each image's own target; no interval,"
        " all images are shown. Below the line the loss knows the seen image from a"
        " draw; the share of images there stands in each panel"
    )
    title = "What each loss makes of the seen image"
    figure = canvas.new_figure(title, note, 2.6)
    panels = canvas.panels(figure, len(losses), len(losses))
    for axes, (name, (truth, drawn)) in zip(panels, losses.items(), strict=True):
        mean = drawn.mean(axis=1)
        axes.scatter(mean, truth, s=9, color=PALETTE[0], alpha=0.7, linewidths=0)
        low = float(min(mean.min(), truth.min()))
        axes.axline((low, low), slope=1, color=GRAY, linewidth=0.9, zorder=0)
        below = f"{(truth < mean).mean():.0%} below"
        axes.text(0.96, 0.04, below, transform=axes.transAxes, ha="right", size=7.5)
        axes.set(title=name, aspect="equal", adjustable="datalim")
        axes.locator_params(nbins=3)
        axes.set_xlabel("loss of a draw")
    panels[0].set_ylabel("loss of the seen image")
    return figure


# --- the method on one page ---------------------------------------------------------


@dataclass(frozen=True)
class MethodPanels:
    """One test image on its way through the method.

    `pictures`, uint8 (height, width, 3) each: "seen", what the subject saw; "z_alone",
    decoded z through the autoencoder; "c_alone", decoded c from noise; "sampled", both;
    "aligned". `responses`, (n_voxels,): standardised; `losses`, (n_iter + 1,): along
    the alignment; `scores`: what stands below a picture, by its name; `engine`: what
    made the image of stage 2; `unit`: as of `fig_losses`; `rule`: how the image was
    chosen.
    """

    pictures: Mapping[str, Images]
    responses: Floats
    losses: Floats
    scores: Mapping[str, str]
    engine: str
    unit: str
    rule: str


#: From, to, feature, colour; where the arrow begins and ends, shares of the panels.
_ARROWS: tuple[tuple[Any, ...], ...] = (
    ("seen", "responses", "", "0.2", (1.04, 0.5), (-0.04, 0.5)),
    ("responses", "c_alone", "c", PALETTE[1], (1.1, 0.8), (-0.06, 0.5)),
    ("responses", "z_alone", "z", PALETTE[0], (1.1, 0.2), (-0.06, 0.5)),
    ("responses", "losses", "Z_CLIP", PALETTE[2], (0.5, -0.5), (-0.2, 0.1)),
    ("c_alone", "sampled", "", PALETTE[1], (1.06, 0.5), (-0.06, 0.7)),
    ("z_alone", "sampled", "", PALETTE[0], (1.06, 0.5), (-0.06, 0.3)),
    ("sampled", "aligned", "", "0.2", (1.04, 0.5), (-0.04, 0.5)),
    ("losses", "aligned", "", PALETTE[2], (1.06, 0.1), (0.5, -0.2)),
)


@draws()
def fig_method(panels: MethodPanels) -> Figure:
    """Draw the method as a path from the seen image to its reconstruction.

    `panels`: of one test image, from `reporting.method_panels`.
    """
    note = (
        "n = 1 test image, all pictures and numbers from this run; c: decoded text "
        "embedding, z: decoded latent, Z_CLIP: decoded CLIP features; below pictures: "
        f"CLIP similarity by the judge · SSIM; no interval. {panels.rule}"
    )
    figure = canvas.new_figure("From responses to a picture: two stages", note, 4.3)
    titles = {
        "seen": "seen image",
        "responses": "fMRI response",
        "c_alone": "c alone (from noise)",
        "z_alone": "z alone (autoencoder)",
        "sampled": "stage 1\nc and z",
        "aligned": f"stage 2\n{panels.engine}",
        "losses": "structural loss, relative",
    }
    places = figure.subplot_mosaic("..c..\nsrcpa\nsrzpa\n..zl.\n...l.")
    grid = {name: places[k] for name, k in zip(titles, "srczpal", strict=True)}
    for name, axes in grid.items():
        axes.set_title(titles[name], size=7.5, loc="center", pad=3)
        if name in panels.pictures:
            axes.imshow(panels.pictures[name])
            axes.set_xlabel(panels.scores.get(name, ""), size=6.5, labelpad=2)
        if name != "losses":
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    _draw_responses(grid["responses"], panels.responses)
    _draw_curve(grid["losses"], panels.losses, panels.unit)
    for start, end, words, colour, leaves, reaches in _ARROWS:
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.3}
        if "losses" in (start, end):  # around a corner
            angles = "angleA=-90,angleB=0" if end == "losses" else "angleA=0,angleB=90"
            arrow["connectionstyle"] = f"angle,{angles},rad=6"
        at: Any = {"xycoords": grid[end].transAxes, "textcoords": "axes fraction"}
        text = grid[start].annotate(words, reaches, leaves, arrowprops=arrow, **at)
        text.set(color=colour, size=8.5, weight="bold", in_layout=False)
    return figure


def _draw_responses(axes: Axes, responses: Floats) -> None:
    """Draw all voxels as a square of pixels, in the order of the volume."""
    side = int(np.ceil(np.sqrt(responses.size)))
    pixels = np.full(side * side, np.nan)
    pixels[: responses.size] = responses
    axes.imshow(pixels.reshape(side, side), cmap="PuOr_r", vmin=-2.5, vmax=2.5)
    axes.set_xlabel(f"{responses.size:,} voxels\n(z-scores, −2.5 to 2.5)", size=6.5)


def _draw_curve(axes: Axes, losses: Floats, unit: str) -> None:
    relative = losses / losses[0]
    axes.plot(np.arange(losses.size), relative, color=PALETTE[0])
    axes.set_xticks([0, losses.size - 1])
    axes.tick_params(labelsize=6, length=2)
    levels = sorted({1.0, round(float(np.nanmin(relative)), 2)})
    axes.set_yticks(levels, [f"{level:g}" for level in levels])
    axes.set_xlabel(unit, size=6.5, labelpad=-4)


# --- failures -------------------------------------------------------------------------

#: Seen and reconstructed image, uint8 (height, width, 3) each.
Pair = tuple[Images, Images]

#: Signature -> colour and marker.
_LOOK = {"low semantic": (PALETTE[0], "s"), "low structural": (PALETTE[1], "D")}


@draws("The table of failures", "subject method nsd_id signature place")
def fig_failures(
    points: pd.DataFrame,
    images: Mapping[int, Pair],
    metrics: Words,
    *,
    rule: str,
) -> Figure:
    """Draw one score against another per image, and the images that disagree most.

    `points`: from `galleries.failure_table`; `images`: id of every marked image to the
    seen and the reconstructed one, uint8 (height, width, 3) each, or DataError;
    `metrics`: the structural one (x), then the semantic one (y); `rule`: how the images
    shown were chosen, for the note.
    """
    canvas.check_table(points, metrics, "The table of failures")
    subject, method = points[["subject", "method"]].iloc[0]
    marked = points[points["place"] > 0].sort_values(["signature", "place"])
    ids = marked["nsd_id"].astype(int)
    letters = {i: ascii_lowercase[k % 26] for k, i in enumerate(ids)}
    if absent := sorted(letters.keys() - images.keys()):
        raise DataError(
            f"The images {', '.join(map(str, absent))} are marked but not given: pass "
            "the seen and the reconstructed image of each."
        )
    note = (
        f"n = {counted(len(points), 'image')} of subject {subject}, {method}; single "
        "images with their id, no interval; made: the reconstruction. Dashed: medians. "
        f"{rule}"
    )
    title = "Failure signatures: meaning without structure, and reverse"
    figure = canvas.new_figure(title, note, 4.5)
    scatter, *beside = figure.subplot_mosaic("ab\nac", width_ratios=[1.25, 1]).values()
    _draw_scatter(scatter, points, metrics, letters)
    n_columns = max(1, int(points["place"].max()))
    structural, semantic = (
        words.partition(",")[0].partition(" (")[0] for words in metrics.values()
    )
    both = ((semantic, structural), (structural, semantic))
    for axes, signature, (low, high) in zip(beside, _LOOK, both, strict=True):
        look: dict[str, Any] = {"color": _ink(signature), "weight": "bold"}
        axes.set_title(f"low {low}, high {high}", size=8.5, pad=14, **look)
        own = ids[marked["signature"] == signature].tolist()
        _draw_pairs(axes, own, images, letters, n_columns)
    return figure


def _ink(signature: str) -> Any:
    """Return the signature's colour, darker, so that words are read easily."""
    return tuple(0.75 * part for part in _LOOK[signature][0])


def _draw_scatter(
    axes: Axes,
    points: pd.DataFrame,
    metrics: Words,
    letters: Mapping[int, str],
) -> None:
    x, y = metrics
    plain = points[points["signature"] == ""]
    axes.scatter(plain[x], plain[y], s=12, color=GRAY, alpha=0.6, lw=0)
    for signature, (colour, marker) in _LOOK.items():
        marked = points[points["signature"] == signature]
        look: dict[str, Any] = {"color": colour, "marker": marker, "edgecolor": "k"}
        axes.scatter(marked[x], marked[y], s=30, lw=0.6, **look)
    medians = points[[x, y]].median()
    axes.axvline(medians[x], color="0.3", ls="--", lw=0.8, zorder=1)
    axes.axhline(medians[y], color="0.3", ls="--", lw=0.8, zorder=1)
    marked = points[points["signature"] != ""]
    white: Any = {"path_effects": [withStroke(linewidth=2.5, foreground="white")]}
    beside = _beside(marked[[x, y]].to_numpy(np.float64), medians.to_numpy(np.float64))
    for row, place in zip(marked.to_dict("records"), beside, strict=True):
        look = {"color": _ink(row["signature"]), "size": 8.5, "weight": "bold"}
        look |= {"ha": "center", "va": "center", "zorder": 5, **white}
        at: Any = {"xytext": place, "textcoords": "offset points"}
        axes.annotate(letters[int(row["nsd_id"])], (row[x], row[y]), **at, **look)
    axes.margins(0.09)
    axes.set_xlabel(wrap(metrics[x], 40))
    axes.set_ylabel(wrap(metrics[y], 46))
    axes.grid()


#: About the panel's size in points of type; the layout is not known yet.
_PANEL = np.array([200.0, 220.0])
#: Where a letter may stand, in points of type from its point.
_SIDES = 9.0 * np.array(
    [(1, 0.5), (-1, 0.5), (1, -0.5), (-1, -0.5), (0, 1), (0, -1), (1, 0), (-1, 0)]
)


def _beside(xy: Doubles, medians: Doubles) -> Iterator[tuple[float, ...]]:
    """Give each point's side on which points, lines and letters leave most room."""
    scale = _PANEL / np.maximum(np.ptp(xy, axis=0), 1e-12) if len(xy) else _PANEL
    taken, lines = list(scale * xy), scale * medians
    for place in range(len(xy)):
        others = [t for k, t in enumerate(taken) if k != place]
        sides = taken[place] + _SIDES
        gaps = [np.linalg.norm(sides - other, axis=1) for other in others]
        best = int(np.min([*gaps, *np.abs(sides - lines).T], axis=0).argmax())
        taken.append(sides[best])
        yield tuple(_SIDES[best])


def _draw_pairs(
    axes: Axes,
    nsd_ids: list[int],
    images: Mapping[int, Pair],
    letters: Mapping[int, str],
    n_columns: int,
) -> None:
    if not nsd_ids:
        axes.text(0, 0.8, "no image in this quadrant", size=8, color=GRAY)
        axes.set_axis_off()
        return
    both = "seen", "made"
    pairs = zip(*(images[i] for i in nsd_ids), strict=True)
    rows = {k: np.stack(side) for k, side in zip(both, pairs, strict=True)}
    for row in rows.values():
        canvas.check_images(row, "Images of failures")
    titles = [f"{letters[i]}: {i}" for i in nsd_ids]
    canvas.draw_images(axes, canvas.Grid(rows, titles))
    axes.set_xlim(0, n_columns)  # the same size of picture in both panels
