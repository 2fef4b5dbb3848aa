"""The report: one HTML page that carries all its figures and tables.

It needs no network and no script, reads on paper, on a phone and by ear, and escapes
every word it is given. It states in plain words what kind of data the numbers come
from. Not here: any number or drawing, and no file is written. Place in the flow:
layer 9; notebook 06 calls it.

`items` is what a section may hold, `words` turns values into words, `page` is the HTML
and `style` its look; the page is put together here. Enlarging and comparing pictures is
done by links to the picture itself and the style's `:target`, so that each picture is
in the page once.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, StrictUndefined

from minddiff_utils.core.errors import DataError
from minddiff_utils.reporting.report.items import (
    FigureItem,
    GalleryItem,
    LinkItem,
    Section,
    TableItem,
    png_size,
)
from minddiff_utils.reporting.report.page import PAGE
from minddiff_utils.reporting.report.words import (
    GLYPHS,
    banner,
    cell_text,
    count_verdicts,
    is_bool,
    verdict_class,
)

__all__ = [
    "FigureItem",
    "GalleryItem",
    "LinkItem",
    "Section",
    "TableItem",
    "banner",
    "cell_text",
    "render_report",
    "verdict_class",
]

#: Pictures up to this side, in pixels, are enlarged as squares and not smoothed.
_SMALL = 128

_View = dict[str, object]


# --- tables ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    lead: str  # shown bold: a verdict's first words
    text: str
    css: str
    column: str
    glyph: str = ""


def _readable(column: object) -> str:
    return str(column).replace("_", " ")


def _cell(column: str, value: object) -> _Cell:
    text, name = cell_text(value), _readable(column)
    if column == "verdict":
        kind = verdict_class(text)
        lead, colon, rest = text.partition(":")
        css = f"verdict {kind}".strip()
        return _Cell(lead + colon, rest, css, name, GLYPHS[kind])
    if is_bool(value):
        return _Cell(text, "", "verdict for" if value else "verdict against", name)
    return _Cell("", text, "number" if isinstance(value, Real) else "", name)


def _rows(table: pd.DataFrame) -> list[list[_Cell]]:
    columns = [str(c) for c in table.columns]
    return [
        [_cell(c, v) for c, v in zip(columns, row, strict=True)]
        for row in table.itertuples(index=False, name=None)
    ]


def _columns(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return each column's name and whether it holds numbers."""
    return [(_readable(name), table[name].dtype.kind in "iuf") for name in table]


def _table(item: TableItem, anchor: str) -> _View:
    ledger = "verdict" in item.table.columns
    return {
        "id": anchor,
        "name": item.name,
        "caption": item.caption,
        "columns": _columns(item.table),
        "rows": _rows(item.table),
        "ledger": ledger,
        "folded": not ledger and len(item.table) > item.open_rows,
    }


# --- pictures -------------------------------------------------------------------------


def _picture(png: bytes, alt: str, anchor: str) -> _View:
    width, height = png_size(png, alt)
    return {
        "id": anchor,
        "data": base64.b64encode(png).decode("ascii"),
        "alt": alt,
        "width": width,
        "height": height,
        "small": max(width, height) <= _SMALL,
    }


def _figure(item: FigureItem, anchor: str) -> _View:
    picture = _picture(item.png, item.alt or item.caption, anchor)
    return {"name": item.name, "caption": item.caption, "picture": picture}


def _image_words(column: str) -> str:
    """Return an image's words: an id alone would not say of what it is one."""
    return f"image {column}" if column.isdigit() else column


def _gallery(item: GalleryItem, anchor: str) -> _View:
    images = [
        {
            "words": _image_words(column),
            "pictures": [
                _picture(
                    pictures[i],
                    f"{method}, {_image_words(column)}",
                    f"{anchor}-{i + 1}-{k}",
                )
                for k, (method, pictures) in enumerate(item.rows.items())
            ],
        }
        for i, column in enumerate(item.columns)
    ]
    return {
        "id": anchor,
        "name": item.name,
        "caption": item.caption,
        "rule": item.rule,
        "methods": list(item.rows),
        "images": images,
    }


# --- the page -------------------------------------------------------------------------


def _section(section: Section, number: int) -> _View:
    """Return a section as the template reads it; its number makes the anchors."""
    return {
        "id": f"s{number}",
        "title": section.title,
        "paragraphs": list(section.paragraphs),
        "definitions": list(section.definitions),
        "tables": [
            _table(item, f"t{number}-{i}") for i, item in enumerate(section.tables, 1)
        ],
        "galleries": [
            _gallery(item, f"g{number}-{i}")
            for i, item in enumerate(section.galleries, 1)
        ],
        "figures": [
            _figure(item, f"f{number}-{i}") for i, item in enumerate(section.figures, 1)
        ],
        "links": [(link.text, quote(link.href)) for link in section.links],
    }


def _verdicts(ledger: TableItem, sections: Sequence[Section]) -> list[_View]:
    """Return the ledger's claims by verdict, each with the anchor of its row."""
    anchors = [
        f"t{number}-{i}"
        for number, section in enumerate(sections, 1)
        for i, item in enumerate(section.tables, 1)
        if item is ledger
    ]
    if not anchors:
        raise DataError(
            f"The ledger {ledger.name!r} is in no section, so its rows cannot be linked"
            " to: pass the TableItem that a section holds."
        )
    groups = count_verdicts(ledger.table)
    claims = [cell_text(value) for value in ledger.table["claim"]]
    found = ledger.table.get("statement", pd.Series([""] * len(claims)))
    statements = [cell_text(value) for value in found]
    return [
        {
            "words": group.words,
            "css": group.css,
            "glyph": GLYPHS[group.css],
            "in_silico": group.in_silico,
            "claims": [
                (f"{anchors[0]}-r{row + 1}", claims[row], statements[row])
                for row in group.rows
            ],
        }
        for group in groups
    ]


def _paragraphs(text: str) -> list[str]:
    return [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]


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
    counts = [len(item.rows) for section in sections for item in section.galleries]
    template = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).from_string(PAGE)
    return template.render(
        n_methods=max(counts, default=0),
        title=title,
        label=label,
        lead=_paragraphs(lead),
        banner_title=heading,
        banner_text=text,
        verdicts=[] if ledger is None else _verdicts(ledger, sections),
        sections=[_section(section, i) for i, section in enumerate(sections, 1)],
        facts=list((facts or {}).items()),
    )
