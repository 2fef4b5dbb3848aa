"""The page escapes its words, loads nothing, serves every reader, says what it is."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.evaluation.claims import COLUMNS
from minddiff_utils.reporting.report import (
    FigureItem,
    GalleryItem,
    LinkItem,
    Section,
    TableItem,
    banner,
    cell_text,
    render_report,
    verdict_class,
)
from minddiff_utils.reporting.report.style import STYLE

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
STEPS = ("next", "previous")
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
        self.texts: list[tuple[str, str]] = []
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
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.tags if name == tag]

    def of_class(self, css: str) -> list[Attributes]:
        return [a for _, a in self.tags if css in (a.get("class") or "").split()]

    @property
    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.tags if a.get("id")]


def _png(gray: int = 7, size: tuple[int, int] = (4, 6)) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.full((*size, 3), gray, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "claim": ["C1", "C2"],
            "our_value": [0.123456, np.nan],
            "n": [20, 3],
            "passed": [True, False],
            "verdict": ["supported: it rises", "not supported: it does not"],
        }
    )


def _gallery(words: str = "Words.", methods: int = 3) -> GalleryItem:
    """Return a gallery of two images, each picture of another gray."""
    names = ["seen", *(f"{words} {k}" for k in range(1, methods))]
    rows = {m: [_png(10 * k), _png(10 * k + 1)] for k, m in enumerate(names)}
    return GalleryItem(words, rows, ["1234", words], words, words)


def _sections(words: str = "Words.") -> list[Section]:
    figure, table = FigureItem(words, _png(), words), TableItem(words, _table(), words)
    return [Section(words, [words], [table], [figure]), Section("Second", ["More."])]


def _full(words: str = "Words.", label: str = DEMO) -> str:
    """Return a page with everything that a page may hold."""
    ledger = TableItem(words, _table(), words)
    long = TableItem(words, pd.DataFrame({words: [words] * 30}), words)
    everything = Section(
        words,
        [words],
        [long, TableItem(words, _table(), words)],
        [FigureItem(words, _png(), words), FigureItem("big", _png(1, (200, 300)), "c")],
        [_gallery(words), _gallery(words, methods=1)],
        [LinkItem(words, "notebooks/05.ipynb"), LinkItem("table", "tables/a.csv")],
        [(words, words)],
    )
    sections = [Section("Claims", [], [ledger]), everything, Section("Last", ["More."])]
    facts = {words: words}
    return render_report(words, label, words, sections, facts=facts, ledger=ledger)


def _render(words: str = "Words.", label: str = DEMO) -> str:
    return render_report(words, label, words, _sections(words), facts={"digest": words})


# --- safety ---------------------------------------------------------------------------


def test_hostile_words_are_shown_and_never_run() -> None:
    table = TableItem("t", pd.DataFrame({HOSTILE: [HOSTILE], "verdict": [HOSTILE]}), "")
    sections = [*_sections(HOSTILE), Section("Table", [], [table])]
    text = render_report(HOSTILE, HOSTILE, HOSTILE, sections, facts={HOSTILE: HOSTILE})
    page = _Page(text)
    assert not page.all("script")
    assert not [1 for _, attributes in page.tags if "onerror" in attributes]
    assert len(page.all("img")) == 1
    assert page.all("img")[0]["alt"] == HOSTILE
    # title, heading, label, lead, ...: the words as they were given
    assert page.words.count(HOSTILE) >= 10


@pytest.mark.parametrize("words", BREAKOUTS)
def test_no_words_change_the_page(words: str) -> None:
    plain, hostile = _Page(_full()), _Page(_full(words))
    # the same elements with the same attributes, in the same places
    assert [(t, list(a)) for t, a in hostile.tags] == [
        (t, list(a)) for t, a in plain.tags
    ]
    assert hostile.parents == plain.parents
    for (_, given), (_, safe) in zip(hostile.tags, plain.tags, strict=True):
        for name in {"id", "href", "class", "style", "src"} & set(given):
            assert given[name] == safe[name]
    # title, heading, lead, paragraph, captions, legend, methods, definitions, ...
    assert hostile.words.count(words) >= 20


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = _Page(_full())
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "iframe", "object", "embed", "base", "form"}
    )
    for _, attributes in page.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert ":" not in (attributes.get("href") or "#")
    text = _full().lower()
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_browser_is_told_to_load_nothing() -> None:
    policies = [m["content"] for m in _Page(_render()).all("meta") if "http-equiv" in m]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_png_bytes_come_back_unchanged() -> None:
    source = _Page(_render()).all("img")[0]["src"]
    assert source is not None
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data, validate=True) == _png()


def test_the_same_input_gives_the_same_page() -> None:
    assert _full() == _full()


def test_bytes_that_are_no_png_are_refused() -> None:
    with pytest.raises(DataError, match="no PNG"):
        FigureItem("figure", b"<svg/>", "caption")


def test_a_report_without_sections_is_refused() -> None:
    with pytest.raises(DataError, match="no sections"):
        render_report("t", DEMO, "lead", [])


# --- what it says -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo", "smoke", "nsd"])
def test_the_banner_fits_the_profile(name: str) -> None:
    profile = load_profile(name)
    heading, text = banner(profile.label())
    simulated = profile.simulation is not None
    assert ("in silico" in heading.lower()) == simulated
    assert ("never the paper's numbers" in text) == simulated
    assert ("mean nothing" in text) == (name == "smoke")
    assert heading in _Page(_render(label=profile.label())).words


def test_every_section_is_in_the_contents() -> None:
    page = _Page(_render())
    ids = [section["id"] for section in page.all("section")]
    in_nav = [
        (attributes["href"] or "").removeprefix("#")
        for (tag, attributes), parents in zip(page.tags, page.parents, strict=True)
        if tag == "a" and "nav" in parents
    ]
    assert ids == in_nav == ["s1", "s2"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "yes"),
        (np.bool_(False), "no"),
        (0.123456, "0.123"),
        (np.float32(-1.5), "-1.500"),
        (3e-5, "3.00e-05"),
        (0.0, "0.000"),
        (np.int64(12), "12"),
        (float("nan"), "–"),
        (None, "–"),
        (pd.NA, "–"),
        ("text", "text"),
    ],
)
def test_cells_read_as_words(value: object, words: str) -> None:
    assert cell_text(value) == words


@pytest.mark.parametrize(
    ("verdict", "css"),
    [
        ("supported: x", "for"),
        ("agrees: x", "for"),
        ("not supported: x", "against"),
        ("differs: x", "against"),
        ("not tested: x", "open"),
        ("not comparable (in silico): x", "apart"),
        ("holds: x", "for"),
        ("Holds (in silico): x", "for"),
        ("fails (in silico): x", "against"),
        ("cannot be said here: x", "open"),
        ("perhaps", ""),
    ],
)
def test_verdicts_have_the_colour_of_their_first_words(verdict: str, css: str) -> None:
    assert verdict_class(verdict) == css


def test_a_verdict_is_text_and_colour_and_truth_is_a_word() -> None:
    page = _Page(_render())
    classes = [cell.get("class") or "" for cell in page.all("td")]
    assert classes.count("verdict for") == 2  # supported, yes
    assert classes.count("verdict against") == 2  # not supported, no
    assert "not supported: it does not" in page.words
    assert "0.123" in page.words
    assert "0.123456" not in page.words


def test_the_ledger_of_claims_has_the_column_that_is_coloured() -> None:
    assert "verdict" in COLUMNS


def test_every_table_names_the_profile() -> None:
    assert f"({DEMO})" in _Page(_render()).words


# --- the claims first -----------------------------------------------------------------


def _ledger() -> TableItem:
    verdicts = ["holds (in silico): a", "fails: b", "cannot be said here: c"]
    words = {
        "claim": [f"C{i}" for i in range(1, 6)],
        "statement": [f"statement {i}" for i in range(1, 6)],
        "verdict": [
            *verdicts,
            "holds (in silico): d",
            "holds: fails to mention silico",
        ],
    }
    return TableItem("claims", pd.DataFrame(words), "Ledger.")


def _counted(ledger: TableItem) -> str:
    sections = [Section("First", ["x"]), Section("Claims", [], [ledger])]
    return render_report("t", DEMO, "The lead.", sections, ledger=ledger)


def test_verdicts_are_counted_at_the_top_with_the_mark_in_words() -> None:
    text = _counted(_ledger())
    assert text.index("The claims, by verdict") < text.index("The lead.")
    assert text.index("</header>") < text.index("The claims, by verdict")
    words = " ".join(_Page(text).words.split())
    found = re.findall(r"(\d+) [✓✗?] ([a-z ]+?) (in silico )?(C\d)", words)
    # two hold in silico, one holds on measured data, one fails, one is open
    assert found == [
        ("2", "holds", "in silico ", "C1"),
        ("1", "holds", "", "C5"),
        ("1", "fails", "", "C2"),
        ("1", "cannot be said here", "", "C3"),
    ]


def test_every_claim_at_the_top_links_to_its_own_row() -> None:
    ledger = _ledger()
    text = _counted(ledger)
    links = re.findall(r'<a href="#(t2-1-r\d+)">(C\d)</a> <span>([^<]*)<', text)
    assert sorted(claim for _, claim, _ in links) == list(ledger.table["claim"])
    for anchor, claim, statement in links:
        row = text.split(f'<tr id="{anchor}">')[1].split("</tr>")[0]
        assert f">{claim}</th>" in row
        assert statement in row


def test_without_a_ledger_nothing_is_counted() -> None:
    assert "by verdict" not in _render()


def test_a_ledger_that_no_section_shows_is_refused() -> None:
    with pytest.raises(DataError, match="in no section"):
        render_report("t", DEMO, "lead", _sections(), ledger=_ledger())


@pytest.mark.parametrize("column", ["claim", "verdict"])
def test_a_ledger_without_its_columns_is_refused(column: str) -> None:
    ledger = TableItem("claims", _ledger().table.drop(columns=column), "Ledger.")
    with pytest.raises(DataError, match=f"no column '{column}'"):
        _counted(ledger)


# --- pictures -------------------------------------------------------------------------


def test_every_picture_of_a_gallery_says_method_and_image() -> None:
    rows = {"seen": [_png(1), _png(2)], "stage 2": [_png(3), _png(4)]}
    item = GalleryItem("g", rows, ["1234", "a red ball"], "Caption.", "The first two.")
    page = _Page(render_report("t", DEMO, "l", [Section("s", galleries=[item])]))
    words = [image["alt"] for image in page.all("img")]
    assert words == [
        *("seen, image 1234", "stage 2, image 1234"),
        *("seen, a red ball", "stage 2, a red ball"),
    ]
    sources = [(image["src"] or "").partition(",")[2] for image in page.all("img")]
    wanted = [rows["seen"][0], rows["stage 2"][0], rows["seen"][1], rows["stage 2"][1]]
    assert [base64.b64decode(source) for source in sources] == wanted
    assert "How these images were chosen. The first two." in " ".join(
        page.words.split()
    )


def test_each_picture_is_in_the_page_once_and_costs_little_beside_its_bytes() -> None:
    rng = np.random.default_rng(0)  # noise: bytes that no page could share by chance
    images = rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    pictures = []
    for image in images:
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    rows = {f"m{k}": pictures[10 * k : 10 * k + 10] for k in range(4)}
    item = GalleryItem("g", rows, [str(i) for i in range(10)], "Caption.", "All.")
    text = render_report("t", DEMO, "l", [Section("s", galleries=[item])])
    bare = len(_render())
    coded = sum(4 * -(-len(p) // 3) for p in pictures)  # base64: 4 letters per 3 bytes
    assert text.count("data:image/png") == len(pictures)
    assert len(text) < coded + bare + 1000 * len(pictures)


def test_only_small_pictures_are_shown_in_squares_and_all_reserve_their_place() -> None:
    sizes = {(128, 128): "small", (128, 129): None, (512, 512): None, (64, 64): "small"}
    figures = [FigureItem(f"{s}", _png(1, s), "c") for s in sizes]
    images = _Page(render_report("t", DEMO, "l", [Section("s", figures=figures)]))
    for (height, width), image in zip(sizes, images.all("img"), strict=True):
        assert image.get("class") == sizes[height, width]
        assert (image["height"], image["width"]) == (str(height), str(width))


def test_a_picture_is_a_link_that_enlarges_it_and_a_link_back() -> None:
    page = _Page(_full())
    pictures = page.of_class("pic")
    assert len(pictures) == len(page.all("img")) == 10
    for tag, parents in zip(page.tags, page.parents, strict=True):
        if tag[0] == "img":
            assert parents[-1] == "a"
    for picture in pictures:
        assert picture["href"] == f"#{picture['id']}"
        assert f"#{picture['id']}-at" in {a["href"] for a in page.of_class("close")}
    assert len(page.of_class("close")) == len(pictures)


def test_from_a_large_picture_the_same_method_of_the_next_image_is_one_step() -> None:
    page = _Page(_full())
    steps = {name: [a["href"] for a in page.of_class(name)] for name in STEPS}
    # two images of three methods, and two of one, in the second section
    assert steps["next"] == ["#g2-1-2-0", "#g2-1-2-1", "#g2-1-2-2", "#g2-2-2-0"]
    assert steps["previous"] == ["#g2-1-1-0", "#g2-1-1-1", "#g2-1-1-2", "#g2-2-1-0"]


def test_each_row_but_the_seen_one_has_a_box_that_hides_it() -> None:
    text = _full()
    page = _Page(text)
    boxes = [a["class"] for a in page.all("input") if a["type"] == "checkbox"]
    assert boxes == ["pick1", "pick2"]
    for k in (1, 2):
        rule = f".gallery:has(.pick{k}:not(:checked)) .m{k} {{ display: none; }}"
        assert rule in text
        assert len([a for t, a in page.tags if a.get("class") == f"cell m{k}"]) == 2
    assert ".pick0" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": {}}, "is empty"),
        ({"columns": []}, "is empty"),
        ({"rule": " "}, "no rule"),
        ({"rows": {"seen": [_png()]}}, "1 pictures of 'seen' for 2 images"),
        ({"rows": {"seen": [_png(), b"GIF89a"]}}, "'seen' of image 'Words.'"),
    ],
)
def test_a_gallery_that_lacks_something_is_refused(
    change: dict[str, Any], words: str
) -> None:
    made = _gallery()
    with pytest.raises(DataError, match=re.escape(words)):
        GalleryItem(**{**vars(made), **change})


# --- links, definitions, long tables --------------------------------------------------


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("claims.csv", "claims.csv"),
        ("notebooks/05_evaluation.ipynb", "notebooks/05_evaluation.ipynb"),
        ("tables/a b.csv", "tables/a%20b.csv"),
        ("a\"onclick='x'.csv", "a%22onclick%3D%27x%27.csv"),
        ("what?#100%.csv", "what%3F%23100%25.csv"),
        ("%2e%2e/x.csv", "%252e%252e/x.csv"),
        ("<b>&.csv", "%3Cb%3E%26.csv"),
    ],
)
def test_a_link_leads_to_the_file_it_names(path: str, href: str) -> None:
    section = Section("s", links=[LinkItem("the file", path)])
    links = _Page(render_report("t", DEMO, "l", [section])).all("a")
    assert {"href": href} in links


@pytest.mark.parametrize(
    "path",
    [
        *("javascript:alert(1)", "JavaScript:x", "data:text/html,x", "file:///etc"),
        *("https://example.org/x", "//example.org/x", "/etc/passwd", "\\\\host\\x"),
        *("../x.csv", "a/../../x.csv", "a/..", "./x.csv", "a//b", "", " ", "a/ /b"),
        *(" .. /x", "java\nscript:x", "a\tb", "\x00x", "a/", "c:x"),
    ],
)
def test_a_link_out_of_the_reports_folder_is_refused(path: str) -> None:
    with pytest.raises(DataError, match="no path below the report's folder"):
        LinkItem("text", path)


def test_a_link_without_words_is_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        LinkItem(" ", "a.csv")


def test_definitions_are_terms_with_their_words() -> None:
    section = Section("s", definitions=[("stage 1", "diffusion"), ("stage 2", "steps")])
    text = render_report("t", DEMO, "l", [section])
    assert "<dt>stage 1</dt><dd>diffusion</dd>" in text
    assert "<dt>stage 2</dt><dd>steps</dd>" in text


@pytest.mark.parametrize(("rows", "folded"), [(20, False), (21, True)])
def test_long_tables_are_folded_with_all_their_rows(rows: int, folded: bool) -> None:
    table = TableItem("long", pd.DataFrame({"value": range(rows)}), "Caption.")
    page = _Page(render_report("t", DEMO, "l", [Section("s", [], [table])]))
    assert (f"Show all {rows} rows of long" in page.words) == folded
    inside = [
        "details" in parents
        for (tag, _), parents in zip(page.tags, page.parents, strict=True)
        if tag == "td"
    ]
    assert inside == [folded] * rows
    assert page.words.count("Caption.") == 1


def test_a_ledger_is_never_folded() -> None:
    table = pd.DataFrame({"claim": ["C"] * 50, "verdict": ["holds"] * 50})
    item = TableItem("claims", table, "Caption.")
    assert "Show all" not in render_report("t", DEMO, "l", [Section("s", [], [item])])


# --- for every reader -----------------------------------------------------------------


def test_ids_are_unique_and_every_inner_link_and_label_leads_to_one() -> None:
    page = _Page(_full())
    assert len(set(page.ids)) == len(page.ids)
    inner = [a["href"] or "" for a in page.all("a")]
    targets = [href[1:] for href in inner if href.startswith("#")]
    labels = [a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a]
    assert len(targets) > 30
    assert len(labels) > 5
    assert set(targets) | set(labels) <= set(page.ids)


def test_headings_skip_no_level_and_there_is_one_title() -> None:
    levels = [int(t[1]) for t, _ in _Page(_full()).tags if re.fullmatch("h[1-6]", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(levels) == 3
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_the_page_has_landmarks_and_a_way_past_the_contents() -> None:
    page = _Page(_full())
    for tag in ("header", "nav", "main", "footer"):
        assert len(page.all(tag)) == 1
    assert page.all("html")[0]["lang"] == "en"
    first = next(attributes for tag, attributes in page.tags if tag == "a")
    assert first == {"class": "skip", "href": "#main"}
    assert page.all("main")[0]["id"] == "main"


def test_every_picture_has_words_and_every_table_head_a_scope() -> None:
    page = _Page(_full())
    assert all((image["alt"] or "").strip() for image in page.all("img"))
    assert {head.get("scope") for head in page.all("th")} == {"col", "row"}
    for table, parents in zip(page.tags, page.parents, strict=True):
        if table[0] == "table" and "details" in parents:
            assert table[1]["aria-labelledby"] in page.ids
    assert len(page.all("caption")) == 2  # of the tables that are not folded


def test_a_figures_own_words_replace_its_caption_for_who_cannot_see() -> None:
    item = FigureItem("f", _png(), "The caption.", "Two lines that rise.")
    page = _Page(render_report("t", DEMO, "l", [Section("s", figures=[item])]))
    assert page.all("img")[0]["alt"] == "Two lines that rise."
    assert page.words.count("The caption.") == 1


def test_all_that_can_be_operated_is_reached_by_the_keyboard() -> None:
    page = _Page(_full())
    for tag, attributes in page.tags:
        if "tabindex" in attributes:  # scrolling regions, and the target of "skip"
            assert attributes["tabindex"] == ("-1" if tag == "main" else "0")
        if tag == "a":
            assert attributes["href"]
        assert not [name for name in attributes if name.startswith("on")]
    for tag, parents in zip(page.tags, page.parents, strict=True):
        if tag[0] == "input":
            assert parents[-1] == "label"
    assert ":focus-visible { outline: .2rem solid" in STYLE


def _colours() -> dict[str, dict[str, str]]:
    """Return the colours of the style: light, dark and on paper, as they cascade."""
    blocks = re.findall(r":root {(.*?)}", STYLE, re.DOTALL)
    found = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in blocks
    ]
    light, dark, paper = found
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


def test_the_contrast_is_that_of_the_standard() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    # 4.48 and 4.54: the two grays around the limit on white, as commonly quoted
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert _contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
def test_ink_stands_out_from_every_ground(scheme: str) -> None:
    colours = _colours()[scheme]
    pairs = [("ink", g) for g in ("paper", "band", "warn", *VERDICT_GROUNDS)]
    pairs += [(ink, g) for ink in ("soft", "link") for g in ("paper", "band")]
    for ink, ground in pairs:  # text: WCAG AA, 4.5
        assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for edge in ("edge", "link", "warn-line"):  # borders and outlines: 3
        assert _contrast(colours[edge], colours["paper"]) >= 3, edge


def test_the_style_uses_no_name_that_nothing_defines() -> None:
    text = _full()
    used = set(re.findall(r"var\(--([a-z-]+)\)", text))
    defined = set(re.findall(r"--([a-z-]+):", text))
    assert used <= defined
    assert STYLE.count("{") == STYLE.count("}")


def test_nothing_on_the_page_moves() -> None:
    assert not re.search("animation|transition|scroll-behavior", STYLE)


def test_paper_undoes_what_only_a_screen_needs() -> None:
    paper = STYLE[STYLE.index("@media print") :]
    assert "details::details-content { content-visibility: visible;" in paper
    hidden = re.search(r"\n  ([^{}]*nav[^{}]*) { display: none; }", paper)
    assert hidden is not None
    assert "banner" not in hidden[1]
