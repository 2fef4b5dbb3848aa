"""Two printed cells: identical, within rounding, or different.

Tables print numbers with six significant digits, sentences with as many decimals as
they show. Two numbers are within rounding where they differ by at most one unit of the
last digit that is printed: of the sixth significant one in a cell that is a number,
of the last decimal in a sentence. Whole numbers in a sentence are counts and must be
equal.
"""

import math
import re
from decimal import Decimal
from typing import Literal

__all__ = ["Kind", "compare_cells", "relative", "worst"]

Kind = Literal["identical", "within rounding", "different"]
_KINDS: tuple[Kind, ...] = ("identical", "within rounding", "different")
_DIGITS = 6
#: What floating point makes of zero.
_ZERO = 1e-12
#: So that one unit itself counts, whatever binary floating point makes of it.
_SLACK = 1 + 1e-6
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def worst(kinds: list[Kind]) -> Kind:
    """Return the kind that says most; identical where there is none."""
    return max(kinds, key=_KINDS.index, default="identical")


def compare_cells(here: str, there: str) -> Kind:
    """Return how two cells of a table agree.

    >>> compare_cells("0.123457", "0.123456")
    'within rounding'
    >>> compare_cells("holds: +0.075, 3 of 4", "holds: +0.076, 4 of 4")
    'different'
    """
    if here == there:
        return "identical"
    a, b = _as_number(here), _as_number(there)
    if a is not None and b is not None:
        return "within rounding" if _are_close(a, b) else "different"
    if _NUMBER.sub("#", here) != _NUMBER.sub("#", there):
        return "different"
    pairs = zip(_NUMBER.findall(here), _NUMBER.findall(there), strict=True)
    return worst([_compare_in_text(Decimal(x), Decimal(y)) for x, y in pairs])


def relative(here: str, there: str) -> float:
    """Return the difference of two numbers relative to the larger one, 0 for text."""
    a, b = _as_number(here), _as_number(there)
    if a is None or b is None or a == b:
        return 0.0
    return abs(a - b) / max(abs(a), abs(b))


def _as_number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _are_close(a: float, b: float) -> bool:
    size = max(abs(a), abs(b))
    if size <= _ZERO:
        return True
    unit = 10.0 ** (math.floor(math.log10(size)) - _DIGITS + 1)
    return abs(a - b) <= max(unit * _SLACK, _ZERO)


def _compare_in_text(a: Decimal, b: Decimal) -> Kind:
    if a == b:
        return "identical"
    last = max(int(a.as_tuple().exponent), int(b.as_tuple().exponent))
    close = last < 0 and abs(a - b) <= Decimal(1).scaleb(last)
    return "within rounding" if close else "different"
