"""Failure signatures: where an image's meaning and its structure are recovered apart.

Which images are extreme is decided before, by a rule (`galleries`).
"""

from collections.abc import Iterator, Mapping
from string import ascii_lowercase
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Doubles, Images
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import GRAY, PALETTE, Words, draws
from minddiff_utils.reporting.wording import counted, wrap

__all__ = ["fig_failures"]

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
    marked = {
        signature: points[points["signature"] == signature].sort_values("place")
        for signature in _LOOK
    }
    ids = [int(i) for rows in marked.values() for i in rows["nsd_id"]]
    letters = {i: ascii_lowercase[k % 26] for k, i in enumerate(ids)}
    absent = sorted(set(ids) - set(images))
    if absent:
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
    grid = figure.add_gridspec(2, 2, width_ratios=[1.25, 1.0])
    _draw_scatter(figure.add_subplot(grid[:, 0]), points, metrics, letters)
    n_columns = max(1, int(points["place"].max()))
    structural, semantic = (
        words.partition(",")[0].partition(" (")[0] for words in metrics.values()
    )
    both = ((semantic, structural), (structural, semantic))
    for k, ((low, high), (signature, rows)) in enumerate(
        zip(both, marked.items(), strict=True)
    ):
        axes = figure.add_subplot(grid[k, 1])
        words: dict[str, Any] = {"color": _ink(signature), "weight": "bold"}
        axes.set_title(f"low {low}, high {high}", size=8.5, pad=14, **words)
        _draw_pairs(axes, rows["nsd_id"].tolist(), images, letters, n_columns)
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
    for row, place in zip(canvas.records(marked), beside, strict=True):
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
    rows = [np.stack([images[i][side] for i in nsd_ids]) for side in (0, 1)]
    for row in rows:
        canvas.check_images(row, "Images of failures")
    titles = [f"{letters[i]}: {i}" for i in nsd_ids]
    canvas.draw_images(axes, canvas.Grid(rows, ["seen", "made"], titles))
    axes.set_xlim(0, n_columns)  # the same size of picture in both panels
