"""The report's page, its words and its verdicts; `page.html` lays it out."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.report.items import Section, TableItem, png_size
from minddiff_utils.reporting.wording import cell_text, is_bool

__all__ = ["banner", "render_report", "verdict_class"]

#: First words of a verdict -> its class.
_VERDICTS = (
    ("supported", "for"),
    ("contradicted", "against"),
    ("inconclusive", "open"),
    ("not testable here", "apart"),
)
#: Class of a verdict -> the sign before it, so that colour is never alone; in the order
#: in which the classes are counted.
_GLYPHS = {"for": "✓", "against": "✗", "open": "?", "apart": "–", "": ""}


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


# --- tables ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    column: str
    text: str
    css: str = ""
    lead: str = ""  # shown bold: a verdict's first words
    glyph: str = ""


def _cell(column: str, value: object) -> _Cell:
    text, name = cell_text(value), column.replace("_", " ")
    if column == "verdict":
        kind = verdict_class(text)
        lead, colon, rest = text.partition(":")
        css = f"verdict {kind}".strip()
        return _Cell(name, rest, css, lead + colon, _GLYPHS[kind])
    if is_bool(value):
        return _Cell(name, "", "verdict for" if value else "verdict against", text)
    return _Cell(name, text, "number" if isinstance(value, Real) else "")


def _cells(table: pd.DataFrame) -> Iterator[list[_Cell]]:
    columns = [str(c) for c in table.columns]
    for row in table.itertuples(index=False, name=None):
        yield [_cell(c, v) for c, v in zip(columns, row, strict=True)]


def _headings(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return each column's name and whether it holds numbers."""
    kinds = (table[name].dtype.kind for name in table)
    return [
        (str(name).replace("_", " "), kind in "iuf")
        for name, kind in zip(table, kinds, strict=True)
    ]


# --- verdicts -------------------------------------------------------------------------


def _first_words(verdict: str) -> tuple[str, str]:
    """Return a verdict's first words and their class."""
    words = verdict.strip().lower()
    known = (pair for pair in _VERDICTS if words.startswith(pair[0]))
    return next(known, (words.partition(":")[0], ""))


def verdict_class(verdict: str) -> str:
    """Return the class of a verdict in words, empty where it is none.

    >>> verdict_class("contradicted"), verdict_class("supported")
    ('against', 'for')
    """
    return _first_words(verdict)[1]


def _verdicts(
    ledger: TableItem, sections: Sequence[Section]
) -> list[dict[str, object]]:
    """Return the claims by the first words of their verdicts, with their rows' anchors.

    The classes come in the order for, against, open, apart, none; within a class the
    words come in the order of the ledger.
    """
    missing = {"claim", "verdict"} - set(ledger.table.columns)
    if missing:
        raise DataError(
            f"The ledger of claims has no column {sorted(missing)[0]!r}: pass the table"
            " of claims.csv."
        )
    places = [
        f"t{number}-{i}"
        for number, section in enumerate(sections, 1)
        for i, item in enumerate(section.tables, 1)
        if item is ledger
    ]
    if not places:
        raise DataError(
            f"The ledger {ledger.name!r} is in no section, so its rows cannot be linked"
            " to: pass the TableItem that a section holds."
        )
    groups: dict[tuple[str, str, bool], list[tuple[str, str, str]]] = {}
    for k, row in enumerate(ledger.table.to_dict("records"), 1):
        verdict = cell_text(row["verdict"])
        lead = verdict.partition(":")[0].lower().replace("-", " ")
        claim = (f"{places[0]}-r{k}", cell_text(row["claim"]))
        key = (*_first_words(verdict), "in silico" in lead)
        groups.setdefault(key, []).append((*claim, cell_text(row.get("statement", ""))))
    order = list(_GLYPHS)
    return [
        {"words": words, "css": css, "glyph": _GLYPHS[css], "in_silico": marked}
        | {"claims": groups[words, css, marked]}
        for words, css, marked in sorted(groups, key=lambda key: order.index(key[1]))
    ]


# --- the page -------------------------------------------------------------------------


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")


def render_report(
    title: str,
    label: str,
    lead: str,
    sections: Sequence[Section],
    *,
    facts: Mapping[str, str] | None = None,
    ledger: TableItem | None = None,
) -> str:
    """Return the report as one self-contained HTML page.

    Parameters
    ----------
    title, label : str
        Title; the profile's words.
    lead : str
        What the page shows, in paragraphs with an empty line between.
    sections : sequence of Section
        In the order shown.
    facts : mapping of str to str, optional
        What made the page, such as digest, seed and versions; shown at its end.
    ledger : TableItem, optional
        The ledger of claims that one of the sections holds, with columns `claim`,
        `verdict` and, where there are any, `statement`. Its verdicts are counted at
        the top of the page, each claim with a link to its row.

    Returns
    -------
    str
        The same arguments give the same text; nothing on the page is loaded from
        elsewhere.

    Raises
    ------
    DataError
        There are no sections; or the ledger is in none of them or lacks a column.
    """
    if not sections:
        raise DataError("The report has no sections: pass at least one.")
    heading, text = banner(label)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (_base64, _cells, _headings, png_size):
        environment.globals[function.__name__.removeprefix("_")] = function
    galleries = (item for section in sections for item in section.galleries)
    values = {
        "title": title,
        "label": label,
        "lead": [" ".join(p.split()) for p in lead.split("\n\n") if p.strip()],
        "banner_title": heading,
        "banner_text": text,
        "verdicts": [] if ledger is None else _verdicts(ledger, sections),
        "sections": sections,
        "facts": list((facts or {}).items()),
        "n_methods": max((len(item.rows) for item in galleries), default=0),
    }
    # macros of the page read the label, so it is there for all of them
    return environment.get_template("page.html", globals={"label": label}).render(
        values
    )
