"""The page escapes its words, loads nothing, serves every reader, says what it is."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.evaluation.claims import evidence
from minddiff_utils.reporting.report import page
from minddiff_utils.reporting.report.page import (
    FigureItem,
    GalleryItem,
    LedgerItem,
    Report,
    Section,
    TableItem,
    banner,
    render_report,
)
from minddiff_utils.reporting.wording import cell_text

STYLE = (Path(page.__file__).parent / "style.css").read_text(encoding="utf-8")
DEMO = "profile demo: in-silico subjects, demo models"
HOSTILE = """<script>alert("x & 'y'")</script><img src=x onerror=z> {{ 7 * 7 }} &amp;"""
BREAKOUTS = [
    HOSTILE,
    "</style><style>@import 'x'</style>",
    "</title></head><body onload=x>",
    '" autofocus onfocus="x',
    "' style='background: red",
    "--><!-- ]]> {% raw %} {# x #}",
    "javascript:alert(1)",
]
GROUNDS = ("for", "against", "open", "apart")
VOID = {"meta", "img", "input", "br", "link"}

Attributes = dict[str, str | None]


class _Page(HTMLParser):
    """Elements with their attributes and words; every tag must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Attributes]] = []
        self.parents: list[tuple[str, ...]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        self.parents.append(tuple(self._open))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.tags if name == tag]


def _png(gray: int = 7, size: tuple[int, int] = (4, 6)) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.full((*size, 3), gray, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


TABLE = pd.DataFrame({"what": ["a", "b"], "a_score": [0.123456, np.nan], "n": [20, 3]})
CLAIMS = pd.DataFrame(
    [
        ("C1", "it rises", "none", "supported", ""),
        ("C2", "it falls", "bayes (ours)", "inconclusive", ""),
        ("C3", "it stays", "none", "supported", ""),
        ("C4", "it is there", "none", "not testable here", "no data"),
    ],
    columns=["claim", "statement", "engine", "verdict", "reason"],
)
ENDS = {
    name: [{"endpoint": f"end of {name}", "effect": "+0.100"}]
    for name in ("C1", "C2", "C3")
}


def _gallery(words: str = "Words.") -> GalleryItem:
    """Return a gallery of two images, each picture of another gray."""
    rows = {f"{words} {k}": [_png(10 * k), _png(10 * k + 1)] for k in range(3)}
    below = {f"{words} 1": [words, "0.5"]}
    return GalleryItem(words, rows, ["1234", words], words, below)


def _full(words: str = "Words.", label: str = DEMO) -> str:
    """Return a page with everything that a page may hold."""
    claims = CLAIMS.assign(statement=words, engine=words, reason=words)
    ends = {**ENDS, "C1": [{"endpoint": words, "effect": words}]}
    ledger = LedgerItem(claims, ends, words)
    figure = FigureItem(words, _png(), words)
    everything = Section(
        words,
        [words],
        [
            TableItem(words, pd.DataFrame({words: [words]}), words),
            TableItem(words, TABLE, words),
            _gallery(words),
            figure,
        ],
        [(words, "notebooks/05.ipynb"), ("a table", f"tables/{words}.csv")],
        [(words, words)],
    )
    sections = [Section("Claims", items=[ledger]), everything]
    facts = [(words, words)]
    return render_report(Report(words, label, [words], figure, ledger, sections, facts))


@pytest.fixture(scope="module")
def full() -> _Page:
    return _Page(_full())


# --- safety ---------------------------------------------------------------------------


@pytest.mark.parametrize("words", BREAKOUTS)
def test_no_words_change_the_page(words: str, full: _Page) -> None:
    hostile = _Page(_full(words))
    # the same elements with the same attributes, in the same places
    assert [(t, list(a)) for t, a in hostile.tags] == [
        (t, list(a)) for t, a in full.tags
    ]
    assert hostile.parents == full.parents
    for (_, given), (_, safe) in zip(hostile.tags, full.tags, strict=True):
        for name in {"id", "class", "style", "src"} & set(given):
            assert given[name] == safe[name]
        link = given.get("href") or "#"
        assert link.startswith(("#", "notebooks/", "tables/"))
    # title, heading, lead, captions, names, cells, scores, settings, ...
    assert hostile.words.count(" ".join(words.split())) >= 20


def test_nothing_is_loaded_from_elsewhere(full: _Page) -> None:
    assert {tag for tag, _ in full.tags}.isdisjoint(
        {"script", "link", "iframe", "object", "embed", "base", "form"}
    )
    for _, attributes in full.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert ":" not in (attributes.get("href") or "#")
        assert not [name for name in attributes if name.startswith("on")]
    for words in ("http:", "https:", "url(", "@import"):
        assert words not in _full().lower()
    policies = [m["content"] for m in full.all("meta") if "http-equiv" in m]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert _full() == _full()


# --- what it says -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo", "smoke", "nsd"])
def test_the_banner_fits_the_profile(name: str) -> None:
    profile = load_profile(name)
    heading, text = banner(profile.label())
    simulated = profile.simulation is not None
    assert ("in silico" in heading.lower()) == simulated
    assert ("never the paper's numbers" in text) == simulated
    assert ("mean nothing" in text) == (name == "smoke")
    shown = _Page(_full(label=profile.label()))
    assert heading in shown.words
    assert f"({profile.label()})" in shown.words  # below a table


@pytest.mark.parametrize(
    ("value", "words"),
    [
        *((True, "yes"), (np.bool_(False), "no"), (0.123456, "0.123"), (0.0, "0.000")),
        *((np.float32(-1.5), "-1.500"), (3e-5, "3.00e-05"), (np.int64(12), "12")),
        *((float("nan"), "–"), (None, "–"), (pd.NA, "–"), ("text", "text")),
    ],
)
def test_cells_read_as_words(value: object, words: str) -> None:
    assert cell_text(value) == words


def test_the_ledger_s_verdicts_are_the_page_s() -> None:
    own = {evidence.SUPPORTED, evidence.CONTRADICTED, evidence.INCONCLUSIVE}
    assert own | {evidence.NOT_TESTABLE} == set(page.VERDICTS)


def _ledger_page() -> str:
    ledger = LedgerItem(CLAIMS, ENDS, "Ledger.")
    figure = FigureItem("F1", _png(), "First.")
    return render_report(
        Report("t", DEMO, ["The lead."], figure, ledger, [Section("s", items=[ledger])])
    )


def test_verdicts_are_counted_at_the_top_and_link_to_their_claims() -> None:
    text = _ledger_page()
    head = text[: text.index("</header>")]
    words = " ".join(_Page(head + "</header></body></html>").words.split())
    assert (
        "✓ supported 2: C1 C3 ? inconclusive 1: C2 – not testable here 1: C4" in words
    )
    for anchor, claim in re.findall(r'<a href="#(claim-\d)">\s*(C\d)', head):
        own = text.split(f'id="{anchor}"')[1].split("</tbody>")[0]
        assert f"<strong>{claim}</strong>" in own
        assert (f"end of {claim}" in own) == (claim in ENDS)
    assert "bayes (ours)" in text
    assert "no data" in text
    assert text.count('class="engine"') == 1  # "none" is no engine


def test_the_first_picture_comes_before_the_claims() -> None:
    text = _ledger_page()
    assert text.index("<img") < text.index("</header>") < text.index('id="claim-1"')


# --- pictures -------------------------------------------------------------------------


def test_every_picture_of_a_gallery_says_method_and_image_and_is_as_given() -> None:
    rows = {"seen": [_png(1), _png(2)], "stage 2": [_png(3)]}
    item = GalleryItem("g", rows, ["1234", "a ball"], "Caption.", {"stage 2": ["0.8"]})
    ledger = LedgerItem(CLAIMS, ENDS, "Ledger.")
    first = FigureItem("F1", _png(), "First.")
    shown = _Page(
        render_report(
            Report("t", DEMO, [], first, ledger, [Section("s", items=[item])])
        )
    )
    _, *images = shown.all("img")
    names = ["seen, 1234", "seen, a ball", "stage 2, 1234"]
    assert [image["alt"] for image in images] == names
    data = [(image["src"] or "").partition("base64,")[2] for image in images]
    decoded = [base64.b64decode(d, validate=True) for d in data]
    assert decoded == [_png(1), _png(2), _png(3)]
    assert "0.8" in shown.words
    boxes = [a["class"] for a in shown.all("input")]
    assert boxes == ["pick1", "enlarge"]  # the seen images stay


def test_only_small_pictures_are_shown_in_squares_and_all_reserve_their_place() -> None:
    for size, css in (((128, 128), "small"), ((128, 129), None)):
        first = FigureItem("F1", _png(1, size), "c")
        ledger = LedgerItem(CLAIMS, ENDS, "Ledger.")
        text = render_report(Report("t", DEMO, [], first, ledger, []))
        (image,) = _Page(text).all("img")
        assert image.get("class") == css
        assert (image["height"], image["width"]) == tuple(map(str, size))


# --- every reader ---------------------------------------------------------------------


def test_the_page_is_reached_by_ear_and_keyboard(full: _Page) -> None:
    ids = [a["id"] for _, a in full.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in full.tags:
        target = (attributes.get("href") or "").removeprefix("#")
        if (attributes.get("href") or "").startswith("#"):
            assert target in ids
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
    scrolled = [a for _, a in full.tags if a.get("class") == "scroll"]
    assert scrolled
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in scrolled)
    assert all("aria-label" in a or "aria-labelledby" in a for a in scrolled)
    assert all(image["alt"] for image in full.all("img"))
    assert all(head["scope"] in ("row", "col", "rowgroup") for head in full.all("th"))
    assert next(t for t, _ in full.tags if t in ("h1", "h2")) == "h1"
    assert full.all("html")[0]["lang"] == "en"


def _colours(block: str) -> dict[str, tuple[float, ...]]:
    return {
        name: tuple(int(code[k : k + 2], 16) / 255 for k in (0, 2, 4))
        for name, code in re.findall(r"--([a-z-]+): #([0-9a-f]{6})", block)
    }


def _luminance(colour: tuple[float, ...]) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize(
    "start", [":root", "prefers-color-scheme: dark", "@media print"]
)
def test_words_are_read_on_every_ground(start: str) -> None:
    """WCAG 2.2: 4.5 to 1 for words, 3 to 1 for borders and the focus ring."""
    colours = _colours(STYLE[STYLE.index(start) :].partition("}")[0])

    def ratio(one: str, other: str) -> float:
        pair = sorted(_luminance(colours[name]) + 0.05 for name in (one, other))
        return pair[1] / pair[0]

    for ground in ("paper", "band", "warn", *GROUNDS):
        assert ratio("ink", ground) >= 4.5
    assert min(ratio("soft", "paper"), ratio("link", "paper")) >= 4.5
    assert min(ratio("edge", "paper"), ratio("warn-line", "paper")) >= 3


def test_the_style_closes_what_it_opens_and_moves_nothing() -> None:
    used = set(re.findall(r"var\(--([a-z-]+)\)", STYLE))
    assert used <= set(re.findall(r"--([a-z-]+):", STYLE))
    assert STYLE.count("{") == STYLE.count("}")
    assert not re.search("animation|transition|scroll-behavior", STYLE)
    paper = STYLE[STYLE.index("@media print") :]
    assert "details::details-content { content-visibility: visible;" in paper
