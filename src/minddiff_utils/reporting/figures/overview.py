"""The method on one page, drawn from the run's own images.

Drawing only. Place in the flow: called by notebook 06.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.reporting.figures.canvas import (
    PALETTE,
    Images,
    Page,
    check_images,
    new_figure,
    styled,
)

__all__ = ["MethodPanels", "fig_method"]

Floats = npt.NDArray[np.floating[Any]]

#: Size of the overview, inches.
_SIZE = (7.2, 4.3)
_SIDE = 1.0  # side of a picture, inches
#: Centres of the panels, inches from the lower left.
_PLACES = {
    "seen": (0.75, 2.6),
    "responses": (2.15, 2.6),
    "c_alone": (3.75, 3.2),
    "z_alone": (3.75, 1.96),
    "sampled": (5.25, 2.6),
    "aligned": (6.55, 2.6),
    "losses": (5.25, 1.15),
}


@dataclass(frozen=True)
class MethodPanels:
    """One test image on its way through the method.

    Attributes
    ----------
    seen, z_alone, c_alone, sampled, aligned : uint8 (height, width, 3)
        What the subject saw; decoded z through the autoencoder; decoded c from noise;
        both; after alignment.
    responses : (n_voxels,)
        The subject's standardised responses to the image.
    losses : (n_iter + 1,)
        Structural loss along the alignment.
    """

    seen: Images
    z_alone: Images
    c_alone: Images
    sampled: Images
    aligned: Images
    responses: Floats
    losses: Floats

    def __post_init__(self) -> None:
        for name in ("seen", "z_alone", "c_alone", "sampled", "aligned"):
            check_images(getattr(self, name)[None], f"The image {name!r}")
        check_shape(self.responses.shape, (None,), "responses")
        check_shape(self.losses.shape, (None,), "losses")
        if not (self.responses.size and self.losses.size):
            raise DataError("responses and losses must not be empty: pass one image's.")


def _panel(figure: Figure, name: str, words: str, size: float = _SIDE) -> Axes:
    """Return empty axes around the place `name` with `words` above."""
    (width, height), (x, y) = _SIZE, _PLACES[name]
    box = ((x - size / 2) / width, (y - size / 2) / height)
    axes = figure.add_axes((*box, size / width, size / height))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(words, size=7.5, loc="center", pad=3)
    return axes


def _draw_responses(axes: Axes, responses: Floats) -> None:
    """Draw all voxels as a square of pixels, in the order of the volume."""
    side = int(np.ceil(np.sqrt(responses.size)))
    pixels = np.full(side * side, np.nan)
    pixels[: responses.size] = responses
    axes.imshow(pixels.reshape(side, side), cmap="PuOr_r", vmin=-2.5, vmax=2.5)
    axes.set_xlabel(f"{responses.size:,} voxels\n(z-scores, −2.5 to 2.5)", size=6.5)


def _draw_losses(axes: Axes, losses: Floats) -> None:
    relative = losses / losses[0]
    axes.plot(np.arange(losses.size), relative, color=PALETTE[0])
    axes.spines[["left", "bottom"]].set_visible(True)
    axes.set_xticks([0, losses.size - 1])
    axes.tick_params(labelsize=6, length=2)
    levels = sorted({1.0, round(float(np.nanmin(relative)), 2)})
    axes.set_yticks(levels, [f"{level:g}" for level in levels])
    axes.set_xlabel("iteration", size=6.5, labelpad=-4)


_STRAIGHT = "arc3,rad=0"
_CORNER = "angle,angleA=90,angleB=0,rad=6"
#: From, to (inches), colour, way.
_ARROWS: tuple[tuple[tuple[float, float], tuple[float, float], Any, str], ...] = (
    ((1.28, 2.6), (1.62, 2.6), "0.2", _STRAIGHT),
    ((2.7, 2.75), (3.22, 3.15), PALETTE[1], _STRAIGHT),
    ((2.7, 2.45), (3.22, 2.05), PALETTE[0], _STRAIGHT),
    ((2.15, 1.72), (4.5, 1.15), PALETTE[2], _CORNER),
    ((4.28, 3.15), (4.72, 2.8), PALETTE[1], _STRAIGHT),
    ((4.28, 2.05), (4.72, 2.4), PALETTE[0], _STRAIGHT),
    ((5.78, 2.6), (6.02, 2.6), "0.2", _STRAIGHT),
    ((5.75, 1.15), (6.55, 2.06), PALETTE[2], "angle,angleA=0,angleB=90,rad=6"),
)
_WORDS = (
    (1.45, 2.68, "fMRI", "0.2"),
    (2.9, 3.05, "c", PALETTE[1]),
    (2.9, 2.08, "z", PALETTE[0]),
    (3.3, 1.22, "Z_CLIP", PALETTE[2]),
)


@styled
def fig_method(panels: MethodPanels) -> Figure:
    """Draw the method as a path from the seen image to its reconstruction.

    Parameters
    ----------
    panels : MethodPanels
        Images and numbers of one test image.
    """
    note = (
        "n = 1 test image, all pictures and numbers from this run; c: decoded text "
        "embedding, z: decoded latent, Z_CLIP: decoded CLIP features; no interval"
    )
    page = Page("From responses to a picture: two stages", note)
    figure = new_figure(page, _SIZE[1], _SIZE[0])
    figure.set_layout_engine("none")  # every panel has its place
    for name, words in (
        ("seen", "seen image"),
        ("c_alone", "c alone (from noise)"),
        ("z_alone", "z alone (autoencoder)"),
        ("sampled", "stage 1\nc and z"),
        ("aligned", "stage 2\naligned"),
    ):
        _panel(figure, name, words).imshow(getattr(panels, name))
    _draw_responses(_panel(figure, "responses", "response"), panels.responses)
    losses = _panel(figure, "losses", "structural loss, relative", 0.9)
    _draw_losses(losses, panels.losses)
    width, height = _SIZE
    for start, end, colour, way in _ARROWS:
        ends = [(x / width, y / height) for x, y in (start, end)]
        arrow = FancyArrowPatch(*ends, transform=figure.transFigure, fill=True)
        arrow.set(arrowstyle="-|>", connectionstyle=way, mutation_scale=9)
        arrow.set(color=colour, linewidth=1.3)
        figure.add_artist(arrow)
    for x, y, words, colour in _WORDS:
        text = figure.text(x / width, y / height, words, ha="center", color=colour)
        text.set(size=8.5, weight="bold" if colour != "0.2" else "normal")
    return figure
