"""The page escapes its words, loads nothing, serves every reader, says what it is."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.evaluation.claims import COLUMNS
from minddiff_utils.reporting import report
from minddiff_utils.reporting.report import (
    FigureItem,
    GalleryItem,
    LinkItem,
    Section,
    TableItem,
    banner,
    render_report,
    verdict_class,
)
from minddiff_utils.reporting.wording import cell_text

STYLE = (Path(report.__file__).parent / "style.css").read_text(encoding="utf-8")
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
VERDICT_GROUNDS = ("for", "against", "open", "apart")
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

    def of_class(self, css: str) -> list[Attributes]:
        return [a for _, a in self.tags if css in (a.get("class") or "").split()]

    def inside(self, tag: str, parent: str) -> list[bool]:
        """Return of each element `tag` whether it lies in a `parent`."""
        every = zip(self.tags, self.parents, strict=True)
        return [parent in parents for (name, _), parents in every if name == tag]


def _png(gray: int = 7, size: tuple[int, int] = (4, 6)) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.full((*size, 3), gray, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


TABLE = pd.DataFrame(
    {
        "claim": ["C1", "C2"],
        "our_value": [0.123456, np.nan],
        "n": [20, 3],
        "passed": [True, False],
        "verdict": ["supported: it rises", "contradicted: it does not"],
    }
)


def _gallery(words: str = "Words.", methods: int = 3) -> GalleryItem:
    """Return a gallery of two images, each picture of another gray."""
    names = ["seen", *(f"{words} {k}" for k in range(1, methods))]
    rows = {m: [_png(10 * k), _png(10 * k + 1)] for k, m in enumerate(names)}
    return GalleryItem(words, rows, ["1234", words], words, words)


def _full(words: str = "Words.", label: str = DEMO) -> str:
    """Return a page with everything that a page may hold."""
    ledger = TableItem(words, TABLE, words)
    long = TableItem(words, pd.DataFrame({words: [words] * 30}), words)
    everything = Section(
        words,
        [words],
        [long, TableItem(words, TABLE, words)],
        [FigureItem(words, _png(), words), FigureItem("big", _png(1, (200, 300)), "c")],
        [_gallery(words), _gallery(words, methods=1)],
        [LinkItem(words, "notebooks/05.ipynb"), LinkItem("table", "tables/a.csv")],
        [(words, words)],
    )
    sections = [Section("Claims", [], [ledger]), everything, Section("Last", ["More."])]
    facts = {words: words}
    return render_report(words, label, words, sections, facts=facts, ledger=ledger)


def _one(**parts: Any) -> str:
    """Return a page with one section of these parts."""
    return render_report("t", DEMO, "lead", [Section("s", **parts)])


@pytest.fixture(scope="module")
def full() -> _Page:
    return _Page(_full())


# --- safety ---------------------------------------------------------------------------


def test_hostile_words_are_shown_and_never_run() -> None:
    hostile = pd.DataFrame({HOSTILE: [HOSTILE], "verdict": [HOSTILE]})
    sections = [
        Section(HOSTILE, [HOSTILE], figures=[FigureItem(HOSTILE, _png(), HOSTILE)]),
        Section("Table", [], [TableItem("t", hostile, "")]),
    ]
    text = render_report(HOSTILE, HOSTILE, HOSTILE, sections, facts={HOSTILE: HOSTILE})
    page = _Page(text)
    assert not page.all("script")
    assert not [1 for _, attributes in page.tags if "onerror" in attributes]
    assert [image["alt"] for image in page.all("img")] == [HOSTILE]
    # title, heading, label, lead, ...: the words as they were given
    assert page.words.count(HOSTILE) >= 10


@pytest.mark.parametrize("words", BREAKOUTS)
def test_no_words_change_the_page(words: str, full: _Page) -> None:
    hostile = _Page(_full(words))
    # the same elements with the same attributes, in the same places
    assert [(t, list(a)) for t, a in hostile.tags] == [
        (t, list(a)) for t, a in full.tags
    ]
    assert hostile.parents == full.parents
    for (_, given), (_, safe) in zip(hostile.tags, full.tags, strict=True):
        for name in {"id", "href", "class", "style", "src"} & set(given):
            assert given[name] == safe[name]
    # title, heading, lead, paragraph, captions, legend, methods, definitions, ...
    assert hostile.words.count(words) >= 20


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


def test_the_same_input_gives_the_same_page() -> None:
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
    page = _Page(_full(label=profile.label()))
    assert heading in page.words
    assert f"({profile.label()})" in page.words  # below a table


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


@pytest.mark.parametrize(
    ("verdict", "css"),
    [
        *(("supported: x", "for"), ("Contradicted", "against")),
        *(("inconclusive (in silico): x", "open"), ("not testable here: x", "apart")),
        ("perhaps", ""),
    ],
)
def test_verdicts_have_the_colour_of_their_first_words(verdict: str, css: str) -> None:
    assert verdict_class(verdict) == css


def test_a_verdict_is_text_and_colour_and_truth_is_a_word() -> None:
    assert "verdict" in COLUMNS  # of the ledger of claims
    page = _Page(_one(tables=[TableItem("t", TABLE, "Caption.")]))
    classes = [cell.get("class") or "" for cell in page.all("td")]
    assert classes.count("verdict for") == 2  # supported, yes
    assert classes.count("verdict against") == 2  # contradicted, no
    assert "contradicted: it does not" in page.words
    assert "0.123" in page.words
    assert "0.123456" not in page.words


# --- the claims first -----------------------------------------------------------------


VERDICTS = (
    *("supported (in silico): a", "contradicted: b", "inconclusive: c"),
    *("supported (in silico): d", "supported: fails to mention silico"),
)
LEDGER = TableItem(
    "claims",
    pd.DataFrame(
        [(f"C{i}", f"statement {i}", v) for i, v in enumerate(VERDICTS, 1)],
        columns=["claim", "statement", "verdict"],
    ),
    "Ledger.",
)


def _counted(ledger: TableItem = LEDGER) -> str:
    sections = [Section("First", ["x"]), Section("Claims", [], [ledger])]
    return render_report("t", DEMO, "The lead.", sections, ledger=ledger)


def test_verdicts_are_counted_at_the_top_with_the_mark_in_words() -> None:
    text = _counted()
    assert text.index("</header>") < text.index("The claims, by verdict")
    assert text.index("The claims, by verdict") < text.index("The lead.")
    words = " ".join(_Page(text).words.split())
    groups = re.findall(r"(\d+) [✓✗?] ([a-z ]+?) (in silico )?(C\d)", words)
    # two hold in silico, one holds on measured data, one fails, one is open
    assert groups == [
        ("2", "supported", "in silico ", "C1"),
        ("1", "supported", "", "C5"),
        ("1", "contradicted", "", "C2"),
        ("1", "inconclusive", "", "C3"),
    ]
    assert "by verdict" not in _one()


def test_every_claim_at_the_top_links_to_its_own_row() -> None:
    text = _counted()
    links = re.findall(r'<a href="#(t2-1-r\d+)">(C\d)</a> <span>([^<]*)<', text)
    assert sorted(claim for _, claim, _ in links) == list(LEDGER.table["claim"])
    for anchor, claim, statement in links:
        row = text.split(f'<tr id="{anchor}">')[1].split("</tr>")[0]
        assert f">{claim}</th>" in row
        assert statement in row


def test_a_ledger_that_cannot_be_linked_to_is_refused() -> None:
    with pytest.raises(DataError, match="in no section"):
        render_report("t", DEMO, "lead", [Section("s")], ledger=LEDGER)
    for column in ("claim", "verdict"):
        lacking = TableItem("claims", LEDGER.table.drop(columns=column), "Ledger.")
        with pytest.raises(DataError, match=f"no column '{column}'"):
            _counted(lacking)


def test_a_report_without_sections_is_refused() -> None:
    with pytest.raises(DataError, match="no sections"):
        render_report("t", DEMO, "lead", [])


# --- pictures -------------------------------------------------------------------------


def test_every_picture_of_a_gallery_says_method_and_image_and_is_as_given() -> None:
    rows = {"seen": [_png(1), _png(2)], "stage 2": [_png(3), _png(4)]}
    item = GalleryItem("g", rows, ["1234", "a red ball"], "Caption.", "The first two.")
    page = _Page(_one(galleries=[item]))
    assert [image["alt"] for image in page.all("img")] == [
        *("seen, image 1234", "stage 2, image 1234"),
        *("seen, a red ball", "stage 2, a red ball"),
    ]
    sources = [(image["src"] or "").partition(",") for image in page.all("img")]
    assert {kind for kind, _, _ in sources} == {"data:image/png;base64"}
    pictures = [
        rows["seen"][0],
        rows["stage 2"][0],
        rows["seen"][1],
        rows["stage 2"][1],
    ]
    assert [base64.b64decode(data, validate=True) for *_, data in sources] == pictures
    rule = "How these images were chosen. The first two."
    assert rule in " ".join(page.words.split())


def test_each_picture_is_in_the_page_once_and_costs_little_beside_its_bytes() -> None:
    rng = np.random.default_rng(0)  # noise: bytes that no page could share by chance
    pictures = []
    for image in rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8):
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    rows = {f"m{k}": pictures[10 * k : 10 * k + 10] for k in range(4)}
    item = GalleryItem("g", rows, [str(i) for i in range(10)], "Caption.", "All.")
    text = _one(galleries=[item])
    coded = sum(4 * -(-len(p) // 3) for p in pictures)  # base64: 4 letters per 3 bytes
    assert text.count("data:image/png") == len(pictures)
    assert len(text) < coded + len(_one()) + 1000 * len(pictures)


def test_only_small_pictures_are_shown_in_squares_and_all_reserve_their_place() -> None:
    sizes = {(128, 128): "small", (128, 129): None, (512, 512): None, (64, 64): "small"}
    images = _Page(_one(figures=[FigureItem(f"{s}", _png(1, s), "c") for s in sizes]))
    for (height, width), image in zip(sizes, images.all("img"), strict=True):
        assert image.get("class") == sizes[height, width]
        assert (image["height"], image["width"]) == (str(height), str(width))


def test_a_picture_is_a_link_that_enlarges_it_and_a_link_back(full: _Page) -> None:
    pictures, closes = full.of_class("pic"), full.of_class("close")
    assert len(pictures) == len(closes) == len(full.all("img")) == 10
    assert all(full.inside("img", "a"))
    for picture in pictures:
        assert picture["href"] == f"#{picture['id']}"
        assert f"#{picture['id']}-at" in {a["href"] for a in closes}
    steps = [[a["href"] for a in full.of_class(name)] for name in ("next", "previous")]
    # two images of three methods, and two of one, in the second section
    assert steps[0] == ["#g2-1-2-0", "#g2-1-2-1", "#g2-1-2-2", "#g2-2-2-0"]
    assert steps[1] == ["#g2-1-1-0", "#g2-1-1-1", "#g2-1-1-2", "#g2-2-1-0"]


def test_each_row_but_the_seen_one_has_a_box_that_hides_it(full: _Page) -> None:
    text = _full()
    boxes = [a["class"] for a in full.all("input") if a["type"] == "checkbox"]
    assert boxes == ["pick1", "pick2"]
    for k in (1, 2):
        rule = f".gallery:has(.pick{k}:not(:checked)) .m{k} {{ display: none; }}"
        assert rule in text
        assert len([a for t, a in full.tags if a.get("class") == f"cell m{k}"]) == 2
    assert ".pick0" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": {}}, "is empty"),
        ({"columns": []}, "is empty"),
        ({"rule": " "}, "no rule"),
        ({"rows": {"seen": [_png()]}}, "1 pictures of 'seen' for 2 images"),
        ({"rows": {"seen": [_png(), b"GIF89a"]}}, "'seen' of image 'Words.' is no PNG"),
    ],
)
def test_a_gallery_that_lacks_something_is_refused(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        GalleryItem(**{**vars(_gallery()), **change})


def test_bytes_that_are_no_png_are_refused() -> None:
    with pytest.raises(DataError, match="no PNG"):
        FigureItem("figure", b"<svg/>", "caption")


# --- links, definitions, long tables --------------------------------------------------


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("notebooks/05_evaluation.ipynb", "notebooks/05_evaluation.ipynb"),
        ("tables/a b.csv", "tables/a%20b.csv"),
        ("a\"onclick='x'.csv", "a%22onclick%3D%27x%27.csv"),
        ("what?#100%.csv", "what%3F%23100%25.csv"),
        ("%2e%2e/x.csv", "%252e%252e/x.csv"),
        ("<b>&.csv", "%3Cb%3E%26.csv"),
    ],
)
def test_a_link_leads_to_the_file_it_names(path: str, href: str) -> None:
    assert {"href": href} in _Page(_one(links=[LinkItem("file", path)])).all("a")


@pytest.mark.parametrize(
    "path",
    [
        *("javascript:alert(1)", "JavaScript:x", "data:text/html,x", "file:///etc"),
        *("https://example.org/x", "//example.org/x", "/etc/passwd", "\\\\host\\x"),
        *("../x.csv", "a/../../x.csv", "a/..", "./x.csv", "a//b", "", " ", "a/ /b"),
        *(" .. /x", "java\nscript:x", "a\tb", "\x00x", "a/", "c:x"),
    ],
)
def test_a_link_out_of_the_reports_folder_or_without_words_is_refused(
    path: str,
) -> None:
    with pytest.raises(DataError, match="no path below the report's folder"):
        LinkItem("text", path)
    with pytest.raises(DataError, match="no text"):
        LinkItem(" ", "a.csv")


def test_definitions_are_terms_with_their_words() -> None:
    text = _one(definitions=[("stage 1", "diffusion"), ("stage 2", "steps")])
    assert "<dt>stage 1</dt><dd>diffusion</dd>" in text
    assert "<dt>stage 2</dt><dd>steps</dd>" in text


@pytest.mark.parametrize(
    ("rows", "column", "folded"),
    [(20, "value", False), (21, "value", True), (50, "verdict", False)],
)
def test_long_tables_but_the_ledger_are_folded_with_all_their_rows(
    rows: int, column: str, folded: bool
) -> None:
    table = TableItem("long", pd.DataFrame({column: range(rows)}), "Caption.")
    page = _Page(_one(tables=[table]))
    assert (f"Show all {rows} rows of long" in page.words) == folded
    cells = [*page.inside("td", "details"), *page.inside("th", "details")]
    assert cells == [folded] * (rows + 1)
    assert page.words.count("Caption.") == 1


# --- for every reader -----------------------------------------------------------------


def test_ids_are_unique_and_every_inner_link_and_label_leads_to_one(
    full: _Page,
) -> None:
    ids = [a["id"] for _, a in full.tags if a.get("id")]
    assert len(set(ids)) == len(ids)
    targets = [a["href"][1:] for a in full.all("a") if (a["href"] or "")[:1] == "#"]
    labels = [a["aria-labelledby"] for _, a in full.tags if "aria-labelledby" in a]
    assert len(targets) > 30
    assert len(labels) > 5
    assert set(targets) | set(labels) <= set(ids)


def test_headings_skip_no_level_and_sections_are_in_the_contents(full: _Page) -> None:
    levels = [int(t[1]) for t, _ in full.tags if re.fullmatch("h[1-6]", t)]
    assert (levels[0], levels.count(1), max(levels)) == (1, 1, 3)
    assert all(b - a <= 1 for a, b in pairwise(levels))
    linked = [
        attributes["href"]
        for (tag, attributes), parents in zip(full.tags, full.parents, strict=True)
        if tag == "a" and "nav" in parents
    ]
    assert linked == ["#s1", "#s2", "#s3"]


def test_the_page_has_landmarks_and_a_way_past_the_contents(full: _Page) -> None:
    for tag in ("header", "nav", "main", "footer"):
        assert len(full.all(tag)) == 1
    assert full.all("html")[0]["lang"] == "en"
    assert full.all("a")[0] == {"class": "skip", "href": "#main"}
    assert full.all("main")[0]["id"] == "main"


def test_every_picture_has_words_and_every_table_head_a_scope(full: _Page) -> None:
    assert all((image["alt"] or "").strip() for image in full.all("img"))
    assert {head.get("scope") for head in full.all("th")} == {"col", "row"}
    assert len(full.all("caption")) == 2  # of the tables that are not folded
    folded = zip(full.all("table"), full.inside("table", "details"), strict=True)
    assert all("aria-labelledby" in table for table, inside in folded if inside)
    item = FigureItem("f", _png(), "The caption.", "Two lines that rise.")
    page = _Page(_one(figures=[item]))
    assert page.all("img")[0]["alt"] == "Two lines that rise."
    assert page.words.count("The caption.") == 1


def test_all_that_can_be_operated_is_reached_by_the_keyboard(full: _Page) -> None:
    for tag, attributes in full.tags:
        if "tabindex" in attributes:  # scrolling regions, and the target of "skip"
            assert attributes["tabindex"] == ("-1" if tag == "main" else "0")
        if tag == "a":
            assert attributes["href"]
    assert all(full.inside("input", "label"))
    assert ":focus-visible { outline: .2rem solid" in STYLE


def _colours() -> dict[str, dict[str, str]]:
    """Return the colours of the style: light, dark and on paper, as they cascade."""
    blocks = re.findall(r":root {(.*?)}", STYLE, re.DOTALL)
    light, dark, paper = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in blocks
    )
    return {"light": light, "dark": light | dark, "paper": light | dark | paper}


def _contrast(one: str, other: str) -> float:
    """Return the contrast of two colours by WCAG 2.2: (L1 + 0.05) / (L2 + 0.05)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        ]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
def test_ink_stands_out_from_every_ground(scheme: str) -> None:
    # 4.48 and 4.54: the two grays around the limit on white, as commonly quoted
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert _contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)
    colours = _colours()[scheme]
    pairs = [("ink", g) for g in ("paper", "band", "warn", *VERDICT_GROUNDS)]
    pairs += [(ink, g) for ink in ("soft", "link") for g in ("paper", "band")]
    for ink, ground in pairs:  # text: WCAG AA, 4.5
        assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for edge in ("edge", "link", "warn-line"):  # borders and outlines: 3
        assert _contrast(colours[edge], colours["paper"]) >= 3, edge


def test_the_style_is_whole_moves_nothing_and_undoes_on_paper_what_a_screen_needs() -> (
    None
):
    text = _full()
    used = set(re.findall(r"var\(--([a-z-]+)\)", text))
    assert used <= set(re.findall(r"--([a-z-]+):", text))
    assert STYLE.count("{") == STYLE.count("}")
    assert not re.search("animation|transition|scroll-behavior", STYLE)
    paper = STYLE[STYLE.index("@media print") :]
    assert "details::details-content { content-visibility: visible;" in paper
    hidden = re.search(r"\n  ([^{}]*nav[^{}]*) { display: none; }", paper)
    assert hidden is not None
    assert "banner" not in hidden[1]
