"""The report: one HTML page that carries all its figures and tables.

It needs no network and no script, reads on paper and on a phone, and escapes every
word it is given. It states in plain words what kind of data the numbers come from.
Not here: any number or drawing, and no file is written. Place in the flow: layer 9;
notebook 06 calls it.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

import pandas as pd
from jinja2 import Environment, StrictUndefined

from minddiff_utils.errors import DataError

__all__ = [
    "FigureItem",
    "Section",
    "TableItem",
    "banner",
    "cell_text",
    "render_report",
    "verdict_class",
]

_PNG = b"\x89PNG\r\n\x1a\n"
#: First words of a verdict -> its colour; the longer ones first.
_VERDICTS = (
    ("not supported", "against"),
    ("not tested", "open"),
    ("not comparable", "apart"),
    ("supported", "for"),
    ("agrees", "for"),
    ("differs", "against"),
)


@dataclass(frozen=True)
class FigureItem:
    """A figure of the report.

    Attributes
    ----------
    name : str
        Short name, such as the file's.
    png : bytes
        The picture.
    caption : str
        Words that can be read alone.
    """

    name: str
    png: bytes
    caption: str

    def __post_init__(self) -> None:
        if not self.png.startswith(_PNG):
            raise DataError(
                f"Figure {self.name!r} is no PNG: pass the bytes of the PNG file."
            )


@dataclass(frozen=True)
class TableItem:
    """A table of the report: name, rows and a caption that can be read alone."""

    name: str
    table: pd.DataFrame
    caption: str


@dataclass(frozen=True)
class Section:
    """A section: title, paragraphs, then tables, then figures."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[TableItem] = ()
    figures: Sequence[FigureItem] = field(default=(), repr=False)


def banner(label: str) -> tuple[str, str]:
    """Return heading and text that say what kind of data the label names.

    >>> banner("profile nsd")[0]
    'Measured responses'
    """
    if "in-silico" not in label.lower():
        return "Measured responses", (
            "The responses come from the folder of the Natural Scenes Dataset that "
            "this run was given. Sizes, models and presets are those of the profile; "
            "where they differ from the paper's, so may the numbers."
        )
    text = (
        "No person was scanned for this page. The subjects are in silico: a computer "
        "program made up their brain responses to drawn scenes, and small demo models "
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
    if _is_bool(value):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return _float_text(float(value))
    return str(value)


def _is_bool(value: object) -> bool:
    return type(value).__name__ in {"bool", "bool_"}  # Python's and numpy's


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "–"
    small = value != 0 and abs(value) < 0.001
    return f"{value:.2e}" if small or abs(value) >= 1e6 else f"{value:.3f}"


def verdict_class(verdict: str) -> str:
    """Return the colour class of a verdict in words, empty where it is none.

    >>> verdict_class("not supported: no gain"), verdict_class("supported: gain")
    ('against', 'for')
    """
    words = verdict.strip().lower()
    return next((name for start, name in _VERDICTS if words.startswith(start)), "")


@dataclass(frozen=True)
class _Cell:
    lead: str  # shown bold: a verdict's first words
    text: str
    css: str
    column: str


def _cell(column: str, value: object) -> _Cell:
    text = cell_text(value)
    if column == "verdict":
        lead, colon, rest = text.partition(":")
        css = f"verdict {verdict_class(text)}".strip()
        return _Cell(lead + colon, rest, css, column)
    if _is_bool(value):
        return _Cell(text, "", "verdict for" if value else "verdict against", column)
    return _Cell("", text, "number" if isinstance(value, Real) else "", column)


def _rows(table: pd.DataFrame) -> list[list[_Cell]]:
    columns = [str(c) for c in table.columns]
    return [
        [_cell(c, v) for c, v in zip(columns, row, strict=True)]
        for row in table.itertuples(index=False, name=None)
    ]


def _columns(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return each column's name and whether it holds numbers."""
    kinds = [(str(name).replace("_", " "), table[name].dtype) for name in table.columns]
    return [(name, kind.kind in "iuf") for name, kind in kinds]


def _paragraphs(text: str) -> list[str]:
    return [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]


def _view(section: Section) -> dict[str, object]:
    """Return a section as the template reads it."""
    return {
        "title": section.title,
        "paragraphs": list(section.paragraphs),
        "tables": [
            {
                "columns": _columns(item.table),
                "ledger": "verdict" in item.table.columns,
                "rows": _rows(item.table),
                "caption": item.caption,
                "name": item.name,
            }
            for item in section.tables
        ],
        "figures": [
            {
                "name": item.name,
                "data": base64.b64encode(item.png).decode("ascii"),
                "caption": item.caption,
            }
            for item in section.figures
        ],
    }


def render_report(
    title: str,
    label: str,
    lead: str,
    sections: Sequence[Section],
    *,
    facts: Mapping[str, str] | None = None,
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

    Returns
    -------
    str
        The same arguments give the same text; nothing on the page is loaded from
        elsewhere.

    Raises
    ------
    DataError
        There are no sections.
    """
    if not sections:
        raise DataError("The report has no sections: pass at least one.")
    heading, text = banner(label)
    template = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).from_string(_PAGE)
    return template.render(
        title=title,
        label=label,
        lead=_paragraphs(lead),
        banner_title=heading,
        banner_text=text,
        sections=[_view(section) for section in sections],
        facts=list((facts or {}).items()),
    )


_CSS = """
:root { color-scheme: light dark; --ink: #1d1f22; --soft: #5c636b; --paper: #ffffff;
  --line: #d9dce0; --band: #f4f5f7; --warn: #fff4d6; --warn-line: #c98a00;
  --for: #d5efe3; --against: #fbdccb; --open: #e8eaed; --apart: #dbe7f6;
  --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a3abb3;
  --paper: #16181b; --line: #3a3f45; --band: #1f2226; --warn: #3a2e0c;
  --warn-line: #d9a120; --for: #12452f; --against: #5a2a12; --open: #33383e;
  --apart: #1d3a5c; --link: #7db8f5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
p { max-width: 46rem; }
a { color: var(--link); }
.label { color: var(--soft); margin: 0 0 1.2rem; }
.banner { background: var(--warn); border-left: .35rem solid var(--warn-line);
  padding: .7rem 1rem; margin: 1.2rem 0; }
.banner p { margin: .2rem 0; }
nav ol { columns: 18rem; padding-left: 1.4rem; margin: .4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; width: 100%; }
caption, figcaption { text-align: left; font-size: .86rem; color: var(--soft);
  padding: .4rem 0; max-width: 46rem; }
caption { caption-side: top; }
th, td { padding: .35rem .55rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
thead th { background: var(--band); vertical-align: bottom; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.ledger td.verdict { min-width: 17rem; }
.ledger td:nth-child(2):not(.number) { min-width: 11rem; }
td.for { background: var(--for); } td.against { background: var(--against); }
td.open { background: var(--open); } td.apart { background: var(--apart); }
figure { margin: 1.6rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); border-radius: .25rem; }
footer { margin-top: 3rem; font-size: .86rem; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media screen and (max-width: 44rem) {
  .ledger, .ledger tbody, .ledger tr, .ledger td { display: block; width: auto; }
  .ledger caption { display: block; } .ledger thead { display: none; }
  .ledger tr { border: 1px solid var(--line); margin: 0 0 .8rem; }
  .ledger td, .ledger td.number { border: 0; text-align: left; white-space: normal; }
  .ledger td.verdict, .ledger td:nth-child(2) { min-width: 0; }
  .ledger td::before { content: attr(data-column) ": "; color: var(--soft); } }
@media print { :root { --ink: #000000; --soft: #444444; --paper: #ffffff;
  --line: #bbbbbb; --band: #f0f0f0; --warn: #ffffff; --for: #e3f4ec;
  --against: #fce7dc; --open: #f0f0f0; --apart: #e8eff8; --link: #000000; }
  main { max-width: none; padding: 0; } nav { display: none; }
  figure, .banner, tr { break-inside: avoid; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: .7rem; } th, td { padding: .2rem; }
}
"""

_PAGE = (
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>"""
    + _CSS
    + """</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<p class="label">{{ label }}</p>
<div class="banner" role="note">
<p><strong>{{ banner_title }}.</strong></p>
<p>{{ banner_text }}</p>
</div>
{% for paragraph in lead %}
<p>{{ paragraph }}</p>
{% endfor %}
<nav aria-label="Contents">
<strong>Contents</strong>
<ol>
{% for section in sections %}
<li><a href="#s{{ loop.index }}">{{ section.title }}</a></li>
{% endfor %}
</ol>
</nav>
{% for section in sections %}
<section id="s{{ loop.index }}">
<h2>{{ loop.index }}. {{ section.title }}</h2>
{% for paragraph in section.paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
{% for table in section.tables %}
<div class="scroll">
<table{% if table.ledger %} class="ledger"{% endif %}>
<caption><strong>{{ table.name }}.</strong> {{ table.caption }} ({{ label }})</caption>
<thead><tr>
{% for column, numeric in table.columns %}
<th scope="col"{% if numeric %} class="number"{% endif %}>{{ column }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>
{% for cell in row %}
<td data-column="{{ cell.column }}"{% if cell.css %} class="{{ cell.css }}"{% endif %}>
{%- if cell.lead %}<strong>{{ cell.lead }}</strong>{% endif %}{{ cell.text }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
{% for figure in section.figures %}
<figure>
<img src="data:image/png;base64,{{ figure.data }}" alt="{{ figure.caption }}">
<figcaption><strong>{{ figure.name }}.</strong> {{ figure.caption }}</figcaption>
</figure>
{% endfor %}
</section>
{% endfor %}
<footer>
{% if facts %}
<h2>What made this page</h2>
<dl>
{% for name, value in facts %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
{% endif %}
<p>{{ label }}</p>
</footer>
</main>
</body>
</html>
"""
)
