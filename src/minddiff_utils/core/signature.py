"""The words below every figure that a run writes: profile, data and models.

A figure function knows what it draws, a run what the numbers stand for; so the run
signs. A reader's own matplotlib figure is signed like those of `figures`.
"""

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["WATERMARK", "sign"]

WATERMARK = "smoke: numbers mean nothing"
#: Characters of small print on an inch of a figure's width.
_PER_INCH = 20


def sign(figure: "Figure", label: str) -> None:
    """Write `label` below `figure`, and across it, for smoke, the watermark.

    A figure that has the label already stays as it is.
    """
    from matplotlib import style

    width = figure.get_figwidth()
    line = textwrap.fill(label, int(width * _PER_INCH), break_long_words=False)
    foot = figure.get_supxlabel()
    if foot.endswith(line):
        return
    with style.context("default"):  # whatever matplotlib's files say
        if foot:
            words = next(text for text in figure.texts if text.get_text() == foot)
            words.set_text(f"{foot}\n{line}")
        else:
            figure.supxlabel(line, x=0.01, ha="left", size=6.5, color="0.45")
        if "smoke" in label.lower():
            _mark(figure, 3.6 * width)


def _mark(figure: "Figure", size: float) -> None:
    """Write the watermark across `figure`, in letters of `size` points."""
    from matplotlib.patheffects import withStroke

    mark = figure.text(0.5, 0.5, WATERMARK, size=size, rotation=20)
    mark.set(ha="center", va="center", color="0.3", alpha=0.24, zorder=100)
    mark.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    mark.set_in_layout(False)
