"""The page escapes its words, loads nothing, and says what its numbers are."""

import base64
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from minddiff_utils.claims import COLUMNS
from minddiff_utils.config import load_profile
from minddiff_utils.errors import DataError
from minddiff_utils.report import (
    FigureItem,
    Section,
    TableItem,
    banner,
    cell_text,
    render_report,
    verdict_class,
)

DEMO = "profile demo: in-silico subjects, demo models"
HOSTILE = """<script>alert("x & 'y'")</script><img src=x onerror=z> {{ 7 * 7 }} &amp;"""


class _Page(HTMLParser):
    """Elements with their attributes, and the words outside tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _png(gray: int = 7) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.full((4, 6, 3), gray, np.uint8)).save(buffer, "PNG")
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


def _sections(words: str = "Words.") -> list[Section]:
    figure, table = FigureItem(words, _png(), words), TableItem(words, _table(), words)
    return [Section(words, [words], [table], [figure]), Section("Second", ["More."])]


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


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = _Page(_render())
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "iframe", "object", "embed", "base", "form"}
    )
    for _, attributes in page.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    text = _render().lower()
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
    assert _render() == _render()


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
    heading, text = banner(profile.label)
    simulated = profile.simulation is not None
    assert ("in silico" in heading.lower()) == simulated
    assert ("never the paper's numbers" in text) == simulated
    assert ("mean nothing" in text) == (name == "smoke")
    assert heading in _Page(_render(label=profile.label)).words


def test_every_section_is_in_the_contents() -> None:
    page = _Page(_render())
    ids = {section["id"] for section in page.all("section")}
    linked = {(a["href"] or "").removeprefix("#") for a in page.all("a")}
    assert ids == linked == {"s1", "s2"}


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
