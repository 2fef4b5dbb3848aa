"""What the page holds, and its words on the data; `page.html` lays it out."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from numbers import Real
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from minddiff_utils.reporting.wording import cell_text

__all__ = [
    "FigureItem",
    "GalleryItem",
    "Item",
    "LedgerItem",
    "Report",
    "Section",
    "TableItem",
    "banner",
    "render_report",
    "template",
]

#: Verdict -> class of its colour and sign before it, so that colour is never alone; in
#: the order in which verdicts are counted.
VERDICTS = {
    "supported": ("for", "✓"),
    "contradicted": ("against", "✗"),
    "inconclusive": ("open", "?"),
    "not testable here": ("apart", "–"),
}
#: Endpoints of a claim that are read at a glance.
_MOST_ROWS = 6


@dataclass(frozen=True)
class FigureItem:
    """A figure, content of a PNG, with words that can be read alone."""

    name: str
    png: bytes = field(repr=False)
    caption: str
    kind: str = "figure"


@dataclass(frozen=True)
class TableItem:
    """A table with words that can be read alone, printed without its index.

    It is shown only when it is opened, and on paper.
    """

    name: str
    table: pd.DataFrame
    caption: str
    kind: str = "table"


@dataclass(frozen=True)
class GalleryItem:
    """Pictures of the same images by several methods, to be compared by eye.

    `rows`: method -> its PNG pictures, one per image or of the first ones alone, the
    seen images first; `columns`: the images in words; `scores`: method -> what stands
    below its pictures.
    """

    name: str
    rows: Mapping[str, Sequence[bytes]] = field(repr=False)
    columns: Sequence[str]
    caption: str
    scores: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: str = "gallery"


@dataclass(frozen=True)
class LedgerItem:
    """The ledger: each claim with its verdict, and below it its endpoints.

    `claims`: from `ledger.verdicts`, one row per claim; `endpoints`: claim -> its
    endpoints, each with the same quantities, by their names.
    """

    claims: pd.DataFrame
    endpoints: Mapping[str, Sequence[Mapping[str, str]]] = field(repr=False)
    caption: str
    kind: str = "ledger"

    def n_folded(self, claim: str) -> int:
        """Return how many of the endpoints a screen folds: of many those shown."""
        rows = self.endpoints.get(claim, ())
        shown = [row for row in rows if row.get("result") == "shown"]
        return len(shown) if len(rows) > _MOST_ROWS else 0

    def groups(self) -> list[tuple[str, list[str]]]:
        """Return the verdicts with their claims."""
        by_verdict = self.claims.groupby("verdict", sort=False)["claim"].agg(list)
        known = sorted(by_verdict.index, key=[*VERDICTS, *by_verdict.index].index)
        return [(verdict, by_verdict[verdict]) for verdict in known]


Item = FigureItem | TableItem | GalleryItem | LedgerItem


@dataclass(frozen=True)
class Section:
    """A title, paragraphs, and what follows them, in the order shown.

    `links`: words and path, below the page's folder, of files to open; `settings`:
    names and what they are set to.
    """

    title: str
    paragraphs: Sequence[str] = ()
    items: Sequence[Item] = ()
    links: Sequence[tuple[str, str]] = ()
    settings: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Report:
    """The whole page.

    `label`: the profile's words; `lead`: paragraphs below the title, `first`: the
    picture beside them; `ledger`: its verdicts are counted at the top, one of the
    sections holds it; `facts`: what made the page, shown at its end.
    """

    title: str
    label: str
    lead: Sequence[str]
    first: FigureItem
    ledger: LedgerItem
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()


def banner(label: str) -> tuple[str, str]:
    """Return heading and text that say what kind of data the profile's words name.

    >>> banner("profile nsd")[0]
    'Measured responses'
    """
    words = label.lower()
    if "measured and in-silico" in words:
        return "Measured responses, and in silico: simulated ones", (
            "Some of the subjects were scanned, the others are in silico: a computer "
            "program made up their brain responses to drawn scenes. Numbers over all "
            "subjects mix the two: they must not be compared with the paper's, and say "
            "nothing about real brains."
        )
    if "in-silico" not in words:
        return "Measured responses", (
            "The responses come from the folder of the Natural Scenes Dataset that "
            "this run was given. Sizes, models and presets are those of the profile; "
            "where they differ from the paper's, so may the numbers."
        )
    text = (
        "No person was scanned: a computer program made up the brain responses to "
        "drawn scenes. Numbers say in which direction the parts of the method act; "
        "they are never the paper's numbers, must not be compared with them, and say "
        "nothing about real brains."
    )
    if "smoke" in words:
        text += " This is moreover the smoke profile: a run so small that its numbers "
        text += "mean nothing at all."
    return "In silico: simulated brains, not measured ones", text


# --- the page -------------------------------------------------------------------------


def _size(png: bytes) -> tuple[int, int]:
    with Image.open(BytesIO(png)) as image:
        return image.size


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


@cache
def template(name: str) -> Template:
    """Return the page of this folder called `name`, to be filled."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell_text, "embedded": _embedded, "size": _size}
    environment.tests["numeric"] = lambda value: isinstance(value, Real)
    environment.globals["looks"] = VERDICTS
    return environment.get_template(name)


def render_report(report: Report) -> str:
    """Return the report as one self-contained HTML page.

    The same report gives the same text; nothing on the page is loaded from elsewhere.
    """
    heading, text = banner(report.label)
    items = [item for section in report.sections for item in section.items]
    n_rows = [len(item.rows) for item in items if isinstance(item, GalleryItem)]
    return template("page.html").render(
        page=report,
        banner_title=heading,
        banner_text=text,
        n_rows=max(n_rows, default=0),
    )
