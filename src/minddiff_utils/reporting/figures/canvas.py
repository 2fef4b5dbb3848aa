"""What all figures share: the page, its style, panels, intervals, keys and checks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import wraps
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

from minddiff_utils.core.areas import HVC, LVC
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Images
from minddiff_utils.reporting.wording import span, subject_order, wrap

__all__ = [
    "GRAY",
    "HIGH",
    "INTERVAL",
    "LOW",
    "PALETTE",
    "WIDTH",
    "Grid",
    "Words",
    "area_colours",
    "check_images",
    "check_table",
    "counts",
    "draw_images",
    "draw_interval",
    "draw_keys",
    "draws",
    "is_shown",
    "metrics_in",
    "n_subjects_in",
    "new_figure",
    "panels",
    "pooled_rows",
    "rows_by_metric",
]

P = ParamSpec("P")
R = TypeVar("R")

#: Width of a page of text, inches.
WIDTH = 7.2
#: Height of a line of a row's words, inches.
_LINE = 0.14
#: Colours that are told apart with any colour vision (seaborn's "colorblind").
PALETTE: tuple[Any, ...] = tuple(sns.color_palette("colorblind"))
GRAY = "0.45"
LOW, HIGH = PALETTE[0], PALETTE[1]

#: Name of a metric or method -> what a reader is told, in the order shown.
Words = Mapping[str, str]
#: A number with its interval.
INTERVAL = ("value", "ci_low", "ci_high")

#: What differs from matplotlib's own defaults.
_STYLE = Path(__file__).with_name("figures.mplstyle")


#: Dots per inch of a picture, and pixels per inch at which a notebook shows it.
_DPI, _SHOWN_DPI = 150, 110


def _settings() -> AbstractContextManager[None]:
    """Put matplotlib's own defaults and our style in force, whatever its files say."""
    return style.context(["default", _STYLE])


class _Drawing(Figure):
    """A figure that a notebook shows exactly once, whatever matplotlib's backend is.

    Fonts, hinting and compression are looked up when it is drawn, hence these methods.
    """

    _png = b""

    def draw(self, renderer: Any) -> None:
        with _settings():
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        with _settings():
            super().savefig(fname, **kwargs)
        # places are found once, which takes longest; other formats have the same
        self.set_layout_engine("none")
        self.stale = False  # until something is added
        if isinstance(fname, BytesIO) and kwargs.get("format") == "png":
            self._png = fname.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the picture last written, which is drawn once, and its width."""
        if self.stale or not self._png:
            facts = {"Software": None}
            self.savefig(BytesIO(), format="png", dpi=_DPI, metadata=facts)
        return self._png, {"width": round(self.get_figwidth() * _SHOWN_DPI)}


def draws(
    what: str = "", columns: str = ""
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a figure: in the style of all, matplotlib is left as it was.

    Where the first thing that is drawn is a table, `what` names it and `columns`, apart
    by blanks, are checked: they are its schema.
    """

    def decorate(draw: Callable[P, R]) -> Callable[P, R]:
        @wraps(draw)
        def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
            if what:
                first: Any = next(iter([*args, *kwargs.values()]))
                check_table(first, columns.split(), what)
            with _settings():
                return draw(*args, **kwargs)

        return drawn

    return decorate


# --- the page -------------------------------------------------------------------------


def new_figure(title: str, note: str, height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure, size in inches; `run.show` adds the label.

    `title` says what it shows, `note` what is counted and which interval is drawn.
    """
    figure = _Drawing(figsize=(width, height), layout="constrained")
    figure.suptitle(wrap(title, width * 12), x=0.01, ha="left", size=10, weight="bold")
    foot = wrap(note, width * 20)
    figure.supxlabel(foot, x=0.01, ha="left", size=6.5, color=GRAY)
    return figure


def panels(figure: FigureBase, n: int, n_columns: int, **options: Any) -> list[Axes]:
    """Return `n` axes in rows of `n_columns`; places that are left over stay empty."""
    n_rows = -(-n // n_columns)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, **options).ravel()
    for axes in grid[n:]:
        axes.set_axis_off()
    return list(grid[:n])


def rows_by_metric(
    page: tuple[str, str, float],
    rows: Sequence[str],
    titles: Sequence[str],
    xlabel: str,
    n_columns: int,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel per metric, all with the same named rows.

    `page`: title, note and height, which grows where words of two rows would touch;
    `rows`: words at the left, from the top; `titles`: words above each panel.
    """
    title, note, height = page
    n_lines = [words.count("\n") + 1 for words in rows]
    apart = _LINE * max(map(sum, pairwise(n_lines)), default=2) / 2
    least = 1.0 + -(-len(titles) // n_columns) * (0.55 + apart * len(rows))
    figure = new_figure(title, note, max(height, least))
    grid = panels(figure, len(titles), n_columns, sharey=True)
    for axes, words in zip(grid, titles, strict=True):
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_title(words, size=8)
        axes.set_xlabel(xlabel)
        axes.grid(axis="x")
    grid[0].invert_yaxis()
    return figure, grid


def draw_keys(
    axes: Axes, keys: Mapping[str, Mapping[str, Any]], **options: Any
) -> None:
    """Draw a legend of lines and markers: words -> their look."""
    handles = [Line2D([], [], label=words, **look) for words, look in keys.items()]
    axes.legend(handles=handles, **options)


def draw_interval(
    axes: Axes,
    place: float,
    row: Mapping[Any, Any],
    *,
    upright: bool = False,
    width: float = 1.5,
    **look: Any,
) -> None:
    """Draw a row's `INTERVAL` as a dot on a line, or without bounds as a dot alone.

    `place`: where they stand on the other axis, x where they are `upright`; `width`: of
    the line; `look`: of the dot, whose colour the line has.
    """
    value, low, high = (float(row[name]) for name in INTERVAL)

    def draw(along: Any, across: Any, **look: Any) -> None:
        axes.plot(*((across, along) if upright else (along, across)), **look)

    if np.isfinite(low) and np.isfinite(high):
        draw([low, high], [place, place], color=look["color"], linewidth=width)
    draw(value, place, **{"marker": "o", "markersize": 5, "linestyle": ""} | look)


def area_colours(areas: Sequence[str]) -> list[Any]:
    """Return a colour per area: low-level, high-level, or gray where it is neither."""
    groups = {**dict.fromkeys(LVC, LOW), **dict.fromkeys(HVC, HIGH)}
    return [groups.get(area, GRAY) for area in areas]


# --- what a figure is given -----------------------------------------------------------


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


def is_shown(row: Mapping[Any, Any]) -> bool:
    """Return whether the row's interval lies on one side of 0."""
    return float(row["ci_low"]) > 0 or float(row["ci_high"]) < 0


def pooled_rows(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return the rows over all subjects, or of the only one; else raise DataError."""
    subjects = subject_order(table["subject"])
    chosen = "all" if "all" in subjects else subjects[0]
    if chosen != "all" and len(subjects) > 1:
        raise DataError(
            f"{what} has subjects {', '.join(subjects)} but no rows 'all': "
            "pool them first, or pass one subject."
        )
    return table[table["subject"].astype(str) == chosen]


def metrics_in(table: pd.DataFrame, metrics: Words) -> list[str]:
    """Return those of `metrics` that the table holds; none: DataError."""
    names = [name for name in metrics if (table["metric"] == name).any()]
    if not names:
        raise DataError(
            f"The table holds none of the metrics {', '.join(metrics)}: "
            "name metrics that were scored."
        )
    return names


def counts(rows: pd.DataFrame) -> str:
    """Return the words for n: images, and subjects of each row."""
    images, subjects = span(rows["n_images"]), span(rows["n_subjects"])
    who = "subject" if subjects == "1" else "subjects"
    return f"n = {images} images, {subjects} {who}"


def n_subjects_in(table: pd.DataFrame) -> int:
    """Return the number of subjects; a table without such a column is of one."""
    return int(table["subject"].nunique()) if "subject" in table else 1


# --- pictures -----------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """Pictures in rows, a shorter one leaving its last cells blank, and words on them.

    `rows`: name, at the left, -> pictures; `columns`: words above; `below`: name of a
    row -> words below each of its pictures.
    """

    rows: Mapping[str, Images]
    columns: Sequence[str]
    below: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def tops(self) -> list[float]:
        """Return where each row begins, and the last one ends, in cells."""
        pitches = [1.16 if name in self.below else 1.0 for name in self.rows]
        return [0.0, *np.cumsum(pitches).tolist()]

    @property
    def n_columns(self) -> int:
        """Return the length of the longest row."""
        return max(map(len, self.rows.values()))

    @property
    def height(self) -> float:
        """Return the height that the grid needs with title and foot, inches."""
        cell = min((WIDTH - 1.35) / self.n_columns, 0.85)  # beside a column of words
        return cell * self.tops[-1] + 1.0


def draw_images(axes: Axes, grid: Grid) -> None:
    """Draw `grid` into `axes`, one unit per cell, so that all pictures align."""
    gap = 0.03
    beside: dict[str, Any] = {"ha": "right", "va": "center", "clip_on": False}
    centred: dict[str, Any] = {"ha": "center", "clip_on": False}
    tops = grid.tops
    for top, (name, row) in zip(tops, grid.rows.items(), strict=False):
        for k, image in enumerate(row):
            extent = (k + gap, k + 1 - gap, top + 1 - gap, top + gap)
            axes.imshow(image, extent=extent, aspect="equal")
        for k, words in enumerate(grid.below.get(name, ())):
            axes.text(k + 0.5, top + 0.99, words, va="top", size=6.5, **centred)
        axes.text(-0.08, top + 0.5, wrap(name, 20), size=8, **beside)
    for k, title in enumerate(grid.columns):
        axes.text(k + 0.5, -0.06, wrap(title, 16), va="bottom", size=7.5, **centred)
    axes.set(xlim=(0, grid.n_columns), ylim=(tops[-1], 0))
    axes.set_anchor("W")
    axes.set_axis_off()
