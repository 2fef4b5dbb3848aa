"""The report's words: the banner, the cells of tables, and verdicts.

Place in the flow: layer 9, part of `report`.
"""

import math
from dataclasses import dataclass, field
from numbers import Integral, Real

import pandas as pd

from minddiff_utils.core.errors import DataError

__all__ = [
    "GLYPHS",
    "Verdicts",
    "banner",
    "cell_text",
    "count_verdicts",
    "is_bool",
    "verdict_class",
]

#: First words of a verdict -> its class; the longer ones first.
_VERDICTS = (
    ("cannot be said here", "open"),
    ("not comparable", "apart"),
    ("not supported", "against"),
    ("not tested", "open"),
    ("supported", "for"),
    ("agrees", "for"),
    ("differs", "against"),
    ("holds", "for"),
    ("fails", "against"),
)
#: Class of a verdict -> the sign before it, so that colour is never alone; in the order
#: in which the classes are counted.
GLYPHS = {"for": "✓", "against": "✗", "open": "?", "apart": "≠", "": ""}


def banner(label: str) -> tuple[str, str]:
    """Return heading and text that say what kind of data the label names.

    >>> banner("profile nsd")[0]
    'Measured responses'
    """
    if "measured and in-silico" in label.lower():
        return "Measured responses, and in silico: simulated ones", (
            "Some of the subjects were scanned, the others are in silico: a computer "
            "program made up their brain responses to drawn scenes. Numbers over all "
            "subjects mix the two: they must not be compared with the paper's, and say "
            "nothing about real brains."
        )
    if "in-silico" not in label.lower():
        return "Measured responses", (
            "The responses come from the folder of the Natural Scenes Dataset that "
            "this run was given. Sizes, models and presets are those of the profile; "
            "where they differ from the paper's, so may the numbers."
        )
    text = (
        "No person was scanned for this page. The subjects are in silico: a computer "
        "program made up their brain responses to drawn scenes, and generative models "
        "turned those into pictures. The numbers test that the pipeline works and in "
        "which direction its parts act. They are never the paper's numbers, must not "
        "be compared with them, and say nothing about real brains."
    )
    if "smoke" in label.lower():
        text += " This is moreover the smoke profile: a run so small that its numbers "
        text += "mean nothing at all."
    return "In silico: simulated brains, not measured ones", text


def cell_text(value: object) -> str:
    """Return a table cell: numbers to 3 digits, truth in words, nothing as a dash.

    >>> cell_text(0.12345), cell_text(0.00001234), cell_text(True), cell_text(1500)
    ('0.123', '1.23e-05', 'yes', '1500')
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return "–"
    if is_bool(value):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return _float_text(float(value))
    return str(value)


def is_bool(value: object) -> bool:
    """Return whether a value is a truth value of Python or numpy."""
    return type(value).__name__ in {"bool", "bool_"}


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "–"
    small = value != 0 and abs(value) < 0.001
    return f"{value:.2e}" if small or abs(value) >= 1e6 else f"{value:.3f}"


# --- verdicts -------------------------------------------------------------------------


def _first_words(verdict: str) -> tuple[str, str]:
    """Return a verdict's first words and their class."""
    words = verdict.strip().lower()
    known = (pair for pair in _VERDICTS if words.startswith(pair[0]))
    return next(known, (words.partition(":")[0], ""))


def verdict_class(verdict: str) -> str:
    """Return the class of a verdict in words, empty where it is none.

    >>> verdict_class("fails: no gain"), verdict_class("holds (in silico): gain")
    ('against', 'for')
    """
    return _first_words(verdict)[1]


def _in_silico(verdict: str) -> bool:
    """Return whether a verdict's lead, before the colon, is marked as in silico."""
    return "in silico" in verdict.partition(":")[0].lower().replace("-", " ")


@dataclass(frozen=True)
class Verdicts:
    """The claims whose verdict begins with the same words.

    Attributes
    ----------
    words, css : str
        These words and their class.
    in_silico : bool
        Whether the verdicts are marked as in silico.
    rows : list of int
        Their rows in the ledger, from 0.
    """

    words: str
    css: str
    in_silico: bool
    rows: list[int] = field(default_factory=list)


def count_verdicts(ledger: pd.DataFrame) -> list[Verdicts]:
    """Return the ledger's rows by the first words of their verdicts.

    The classes come in the order for, against, open, apart, none; within a class the
    words come in the order of the ledger.

    Raises
    ------
    DataError
        The ledger has no column `claim` or `verdict`.

    >>> table = pd.DataFrame({"claim": ["A", "B"], "verdict": ["fails: x", "holds"]})
    >>> [(group.words, group.rows) for group in count_verdicts(table)]
    [('holds', [1]), ('fails', [0])]
    """
    missing = {"claim", "verdict"} - set(ledger.columns)
    if missing:
        raise DataError(
            f"The ledger of claims has no column {sorted(missing)[0]!r}: pass the table"
            " of claims.csv."
        )
    groups: dict[tuple[str, bool], Verdicts] = {}
    for row, verdict in enumerate(map(cell_text, ledger["verdict"])):
        words, css = _first_words(verdict)
        marked = _in_silico(verdict)
        group = groups.setdefault((words, marked), Verdicts(words, css, marked))
        group.rows.append(row)
    order = list(GLYPHS)
    return sorted(groups.values(), key=lambda group: order.index(group.css))
