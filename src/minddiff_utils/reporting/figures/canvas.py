"""What all figures share: page, style, words and checks of what they are given.

Not here: any figure. Place in the flow: used by the other modules of `figures`.
"""

import textwrap
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError, check_shape

__all__ = [
    "GRAY",
    "HIGH",
    "LOW",
    "PALETTE",
    "WIDTH",
    "Grid",
    "Page",
    "area_colours",
    "area_order",
    "check_images",
    "check_table",
    "counted",
    "draw_images",
    "feature_order",
    "feature_words",
    "new_figure",
    "pooled_rows",
    "sample_size",
    "span",
    "styled",
    "subject_order",
    "wrap",
]

Images = npt.NDArray[np.uint8]
P = ParamSpec("P")
R = TypeVar("R")

#: Width of a page of text, inches.
WIDTH = 7.2
#: What is written across figures of the profile `smoke`.
#: Colours that are told apart with any colour vision (seaborn's "colorblind").
PALETTE: tuple[Any, ...] = tuple(sns.color_palette("colorblind"))
GRAY = "0.45"
LOW, HIGH = PALETTE[0], PALETTE[1]

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "0.3",
    "axes.grid": False,
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 8,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "text.parse_math": False,  # a caption may hold dollar signs
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}


def _settings() -> AbstractContextManager[None]:
    """Put matplotlib's own defaults and our style in force, whatever its files say."""
    return style.context(["default", _STYLE])


class _Drawing(Figure):
    """A figure that a notebook shows exactly once, whatever matplotlib's backend is.

    Fonts, hinting and compression are looked up when it is drawn, hence these methods.
    """

    def draw(self, renderer: Any) -> None:
        with _settings():
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        with _settings():
            super().savefig(fname, **kwargs)

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


@dataclass(frozen=True)
class Page:
    """The frame of a figure.

    Attributes
    ----------
    title : str
        What the figure shows.
    note : str
        What is counted and which interval is drawn.
    """

    title: str
    note: str


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Return `draw` in the style of all figures, leaving matplotlib as it was."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _settings():
            return draw(*args, **kwargs)

    return drawn


def new_figure(page: Page, height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure with title and note; `run.show` adds the profile's label.

    Parameters
    ----------
    page : Page
        The frame.
    height, width : float
        Inches.
    """
    figure = _Drawing(figsize=(width, height), layout="constrained")
    title = wrap(page.title, width * 12)
    figure.suptitle(title, x=0.01, ha="left", size=10, weight="bold")
    foot = wrap(page.note, width * 20)
    figure.supxlabel(foot, x=0.01, ha="left", size=6.5, color=GRAY)
    return figure


def wrap(text: str, width: float) -> str:
    r"""Return `text` in lines of at most `width` characters.

    >>> wrap("stage 1 from another brain", 12)
    'stage 1 from\nanother\nbrain'
    """
    return textwrap.fill(text, max(int(width), 1), break_long_words=False)


# --- words --------------------------------------------------------------------------


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def span(numbers: Collection[float]) -> str:
    """Return a count, or the range of several.

    >>> span([4, 4]), span([2, 20])
    ('4', '2 to 20')
    """
    low, high = int(min(numbers)), int(max(numbers))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def feature_words(feature: str) -> str:
    """Return a feature's name as shown.

    >>> feature_words("c"), feature_words("clip/3")
    ('c (semantic)', 'Z_CLIP, layer 3')
    """
    known = {"c": "c (semantic)", "z": "z (detail)"}
    if feature.startswith("clip/"):
        return f"Z_CLIP, layer {feature.removeprefix('clip/')}"
    return known.get(feature, feature)


def _feature_rank(feature: str) -> tuple[int, int, str]:
    if feature.startswith("clip/") and feature.removeprefix("clip/").isdigit():
        return 2, int(feature.removeprefix("clip/")), feature
    return {"c": 0, "z": 1}.get(feature, 3), 0, feature


def feature_order(features: Collection[str]) -> list[str]:
    """Return features as c, z, CLIP layers by number, then others.

    >>> feature_order({"clip/10", "clip/2", "z", "c"})
    ['c', 'z', 'clip/2', 'clip/10']
    """
    return sorted(set(map(str, features)), key=_feature_rank)


def subject_order(subjects: Collection[object]) -> list[str]:
    """Return subjects by number, "all" last.

    >>> subject_order(["all", 10, 2])
    ['2', '10', 'all']
    """

    def rank(name: str) -> tuple[int, int, str]:
        return (2, 0, name) if name == "all" else (not name.isdigit(), len(name), name)

    return sorted(set(map(str, subjects)), key=rank)


def area_order(areas: Collection[str]) -> list[str]:
    """Return areas from early to late, unknown ones last.

    >>> area_order({"LO", "V1", "hV4"})
    ['V1', 'hV4', 'LO']
    """
    known = [area for area in (*LVC, *HVC) if area in areas]
    return known + [str(a) for a in dict.fromkeys(areas) if a not in AREAS]


def area_colours(areas: Sequence[str]) -> list[Any]:
    """Return a colour per area: low-level, high-level, or gray where it is neither."""
    groups = {**dict.fromkeys(LVC, LOW), **dict.fromkeys(HVC, HIGH)}
    return [groups.get(area, GRAY) for area in areas]


# --- checks -------------------------------------------------------------------------


def check_table(table: pd.DataFrame, columns: Collection[str], what: str) -> None:
    """Raise DataError unless `table` has rows and these columns."""
    lacking = ", ".join(c for c in columns if c not in table.columns)
    if lacking:
        raise DataError(
            f"{what} has no column {lacking}: pass the table that the notebook made."
        )
    if table.empty:
        raise DataError(f"{what} has no rows: run the notebook that fills it first.")


def check_images(images: npt.NDArray[Any], what: str) -> None:
    """Raise DataError unless `images` are uint8 (n, height, width, 3), n >= 1."""
    check_shape(images.shape, (None, None, None, 3), what)
    if images.dtype != np.uint8 or not len(images):
        raise DataError(
            f"{what} are {len(images)} images of {images.dtype}, but at least one "
            "uint8 image is expected: convert them with `images` first."
        )


def pooled_rows(table: pd.DataFrame, what: str) -> tuple[pd.DataFrame, str]:
    """Return the rows over all subjects, or of the only one, and whose they are.

    Raises
    ------
    DataError
        There are several subjects and no rows "all".
    """
    subjects = subject_order(table["subject"].astype(str).tolist())
    chosen = "all" if "all" in subjects else subjects[0]
    if chosen != "all" and len(subjects) > 1:
        raise DataError(
            f"{what} has subjects {', '.join(subjects)} but no rows 'all': "
            "pool them first, or pass one subject."
        )
    n_subjects = len([s for s in subjects if s != "all"])
    whose = f"subject {chosen}"
    if chosen == "all":
        whose = counted(n_subjects, "subject") if n_subjects else "all subjects"
    return table[table["subject"].astype(str) == chosen], whose


def sample_size(table: pd.DataFrame, rows: pd.DataFrame, whose: str) -> str:
    """Return the words for the n of `pooled_rows`: subjects, and images of each."""
    if whose.startswith("subject "):
        return f"{whose}, n = {span(rows['n'])} images"
    single = table[(table["subject"].astype(str) != "all") & (table["n"] > 0)]
    images = f", {span(single['n'])} images each" if len(single) else ""
    return f"n = {span(rows['n'])} subjects{images}"


# --- pictures -----------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """Pictures in rows and columns.

    Attributes
    ----------
    rows : sequence of uint8 (n, height, width, 3)
        Pictures of each row; a shorter row leaves its last cells blank.
    names, notes : sequence of str
        Words at the left of each row, and smaller ones below them.
    columns : sequence of str
        Words above the columns; none for no words.
    """

    rows: Sequence[Images]
    names: Sequence[str]
    notes: Sequence[str]
    columns: Sequence[str]

    @property
    def n_columns(self) -> int:
        """Return the length of the longest row."""
        return max(len(row) for row in self.rows)

    def cell(self, width: float = WIDTH, words: float = 1.35) -> float:
        """Return the side of a cell, inches, on a page with a column of words."""
        return min((width - words) / self.n_columns, 1.1)

    def height(self) -> float:
        """Return the height that the grid needs with title and foot, inches."""
        return self.cell() * len(self.rows) + 1.0


def draw_images(axes: Axes, grid: Grid) -> None:
    """Draw `grid` into `axes`, one unit per cell, so that all pictures align."""
    gap = 0.03
    for r, row in enumerate(grid.rows):
        for k, image in enumerate(row):
            extent = (k + gap, k + 1 - gap, r + 1 - gap, r + gap)
            axes.imshow(image, extent=extent, aspect="equal")
        note = grid.notes[r] if grid.notes else ""
        name = wrap(grid.names[r], 20)
        beside: dict[str, Any] = {"ha": "right", "clip_on": False}
        axes.text(
            -0.08, r + 0.5, name, va="bottom" if note else "center", size=8, **beside
        )
        if note:
            words = wrap(note, 27)
            axes.text(-0.08, r + 0.54, words, va="top", size=6, color=GRAY, **beside)
    for k, title in enumerate(grid.columns):
        words = wrap(title, 16)
        axes.text(k + 0.5, -0.06, words, ha="center", va="bottom", size=7.5)
    axes.set(xlim=(0, grid.n_columns), ylim=(len(grid.rows), 0))
    axes.set_anchor("W")
    axes.set_axis_off()
