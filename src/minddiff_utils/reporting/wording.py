"""Labels and number formats: how figures, tables and the report say a thing."""

import textwrap
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.areas import AREAS, HVC, LVC

__all__ = [
    "area_order",
    "cell_text",
    "counted",
    "feature_order",
    "feature_words",
    "percent",
    "span",
    "step_words",
    "subject_order",
    "wrap",
]


def wrap(text: str, width: float) -> str:
    r"""Return `text` in lines of at most `width` characters.

    >>> wrap("stage 1 from another brain", 12)
    'stage 1 from\nanother\nbrain'
    """
    return textwrap.fill(text, max(int(width), 1), break_long_words=False)


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def step_words(preset: str) -> str:
    """Return what an engine of stage 2 goes through one by one.

    >>> step_words("paper"), step_words("bayes")
    ('iteration', 'step of the sampler')
    """
    return "step of the sampler" if preset == "bayes" else "iteration"


def percent(share: float) -> str:
    """Return a share as a percentage.

    >>> percent(0.95), percent(0.995)
    ('95 %', '99.5 %')
    """
    return f"{100 * share:g} %"


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


def feature_order(features: Iterable[object]) -> list[str]:
    """Return features as c, z, CLIP layers by number, then others.

    >>> feature_order({"clip/10", "clip/2", "z", "c"})
    ['c', 'z', 'clip/2', 'clip/10']
    """
    places = {"c": 0, "z": 1, "clip": 2}
    return sorted(
        set(map(str, features)),
        key=lambda name: (places.get(name.partition("/")[0], 3), len(name), name),
    )


def subject_order(subjects: Iterable[object]) -> list[str]:
    """Return subjects by number, "all" last.

    >>> subject_order(["all", 10, 2])
    ['2', '10', 'all']
    """
    return sorted(
        set(map(str, subjects)),
        key=lambda name: (name == "all", not name.isdigit(), len(name), name),
    )


def area_order(areas: Iterable[object]) -> list[str]:
    """Return areas from early to late, unknown ones last.

    >>> area_order({"LO", "V1", "hV4"})
    ['V1', 'hV4', 'LO']
    """
    names = dict.fromkeys(map(str, areas))
    known = [area for area in (*LVC, *HVC) if area in names]
    return known + [name for name in names if name not in AREAS]


def cell_text(value: Any) -> str:
    """Return a cell of the report: 3 digits, truth in words, nothing as a dash.

    >>> cell_text(0.12345), cell_text(0.00001234), cell_text(True), cell_text(1500)
    ('0.123', '1.23e-05', 'yes', '1500')
    """
    if pd.isna(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral) or not isinstance(value, Real):
        return str(value)
    size = abs(float(value))
    return f"{value:.3f}" if size == 0 or 0.001 <= size < 1e6 else f"{value:.2e}"
