"""The page as a browser shows it: narrow and wide, large pictures, and on paper.

Needs a Chromium: named by the variable CHROMIUM, or on PATH under one of its names.
"""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from minddiff_utils.core.rng import stream
from minddiff_utils.reporting.report import (
    FigureItem,
    GalleryItem,
    LinkItem,
    Section,
    TableItem,
    render_report,
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
LABEL = "profile demo: in-silico subjects, demo models"
METHODS = ("seen", "stage 2", "stage 1", "retrieval: nearest training image")
N_IMAGES, N_LONG = 12, 300
#: A start of the browser takes about a second, on a busy machine several.
LIMIT_S = 60

#: Shows the report in a frame of a phone's and of a desk's width, operates it as a
#: reader does, and writes what it measures into the page.
PROBE = """<!DOCTYPE html><meta charset="utf-8"><title>probe</title>
<iframe id="phone" width="360" height="800" src="report.html"></iframe>
<iframe id="desk" width="1280" height="900" src="report.html"></iframe>
<pre id="found"></pre>
<script>
const soon = () => new Promise(done => setTimeout(done, 60));
const box = element => {
  const {left, top, width, height} = element.getBoundingClientRect();
  return {left, top, width, height};
};
async function measure(name) {
  const view = document.getElementById(name).contentWindow;
  const page = view.document, found = {};
  const get = id => page.getElementById(id);
  const seen = element => view.getComputedStyle(element).visibility === "visible"
    && element.getClientRects().length > 0;
  found.width = view.innerWidth;
  found.overflow = page.documentElement.scrollWidth - page.documentElement.clientWidth;
  found.small = box(get("g2-1-3-1").firstElementChild);
  view.scrollTo(0, get("g2-1-3-1").getBoundingClientRect().top + view.scrollY - 200);
  found.before = view.scrollY;
  get("g2-1-3-1").focus(); get("g2-1-3-1").click(); await soon();
  found.large = box(get("g2-1-3-1").firstElementChild);
  found.reference = box(get("g2-1-3-0").firstElementChild);
  found.others = box(get("g2-1-3-2").firstElementChild);
  found.focused = page.activeElement.id;
  const links = [...page.querySelectorAll("a, input, summary")].filter(seen);
  found.reached = links.map(a => a.getAttribute("aria-label") || a.textContent.trim()
    || a.id);
  found.close_on_top = page.elementFromPoint(
    found.large.left + 9, found.large.top + 9).className;
  page.querySelector("#g2-1-3-1-at .next").click(); await soon();
  found.next = view.location.hash;
  page.querySelector("#g2-1-4-1-at .close").click(); await soon();
  found.closed = box(get("g2-1-4-1").firstElementChild);
  found.after = view.scrollY;
  page.querySelector(".pick2").click();
  found.hidden = get("g2-1-1-2").getClientRects().length === 0;
  found.kept = get("g2-1-1-3").getClientRects().length > 0;
  page.querySelectorAll("[type=radio]")[1].click();
  found.line = [0, 1, 3].map(k => box(get("g2-1-1-" + k).firstElementChild));
  found.line_overflow = page.documentElement.scrollWidth
    - page.documentElement.clientWidth;
  get("f3-1").click(); await soon();
  found.figure = box(get("f3-1").firstElementChild);
  found.caption_seen = seen(page.querySelector("#f3-1-at figcaption"));
  view.location.hash = "#t1-1-r2"; await soon();
  found.row = box(get("t1-1-r2"));
  found.folded = page.querySelector("main details").open;
  return found;
}
window.onload = async () => {
  const found = {phone: await measure("phone"), desk: await measure("desk")};
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>
"""


def _browser() -> str:
    """Return a Chromium that starts, or skip."""
    named = os.environ.get("CHROMIUM")
    found = [path for path in map(shutil.which, NAMES) if path]
    path = named or (found[0] if found else None)
    if path is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)}, and CHROMIUM is not set")
    try:
        started = subprocess.run(
            [path, "--version"], capture_output=True, check=False, timeout=LIMIT_S
        )
    except OSError as error:
        pytest.skip(f"the Chromium at {path} cannot be run: {error}")
    if started.returncode:
        pytest.skip(f"the Chromium at {path} does not start: {started.stderr!r}")
    return path


class Browser:
    """A headless Chromium with a profile of its own."""

    def __init__(self, path: str, folder: Path) -> None:
        self._path, self._folder = path, folder

    def run(self, page: Path, *options: str) -> str:
        command = [
            *(self._path, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--hide-scrollbars", "--no-first-run", "--disable-background-networking"),
            *("--allow-file-access-from-files", f"--user-data-dir={self._folder}"),
            *(*options, page.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT_S)
        return done.stdout.decode("utf-8")

    def shot(self, page: Path, width: int, height: int) -> np.ndarray:
        """Return the page's first screen, (height, width, 3) uint8."""
        target = page.parent / f"{width}.png"
        size = f"--window-size={width},{height}"
        self.run(page, size, f"--screenshot={target}")
        with Image.open(target) as image:
            return np.asarray(image.convert("RGB"))

    def n_pages(self, page: Path) -> int:
        """Return how many sheets the page prints on."""
        target = page.with_suffix(".pdf")
        self.run(page, f"--print-to-pdf={target}")
        pdf = target.read_bytes()
        assert pdf.startswith(b"%PDF-")
        return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser(_browser(), tmp_path_factory.mktemp("browser"))


def _png(size: tuple[int, int], key: str) -> bytes:
    image = stream(1, "tests", key).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _report(n_long: int) -> str:
    """Return a small report with all that could be too wide for a phone."""
    numbers = {f"a_long_column_name_{i}": [0.5] * n_long for i in range(9)}
    ledger = pd.DataFrame(
        {
            "claim": [f"C{i}" for i in range(1, 12)],
            "statement": ["a statement of a dozen words or so " * 2] * 11,
            **{name: [0.123] * 11 for name in ("ours", "low", "high", "n", "floor")},
            "verdict": ["holds (in silico): " + "averylongword" * 9] * 11,
        }
    )
    claims = TableItem("claims", ledger, "The ledger.")
    rows = {m: [_png((64, 64), f"{m}{i}") for i in range(N_IMAGES)] for m in METHODS}
    images = [str(1000 + i) for i in range(N_IMAGES - 1)] + ["a few words on an image"]
    sections = [
        Section("Claims", ["Words. " * 30], [claims]),
        Section("Gallery", galleries=[GalleryItem("g", rows, images, "C.", "All.")]),
        Section(
            "Scores",
            ["word" * 60],
            [TableItem("long", pd.DataFrame(numbers), "Long.")],
            [FigureItem("wide", _png((300, 1500), "figure"), "A wide figure.")],
            (),
            [LinkItem("a link", "notebooks/" + "long" * 30 + ".ipynb")],
            [("a_setting_with_a_long_name", "0123456789abcdef" * 8)],
        ),
    ]
    facts = {"digest": "0123456789abcdef" * 8}
    return render_report(
        "A report", LABEL, "The lead.", sections, facts=facts, ledger=claims
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(_report(N_LONG), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(browser: Browser, page: Path) -> dict[str, Any]:
    """What the probe measured, in a frame as wide as a phone and one as a desk."""
    probe = page.parent / "probe.html"
    probe.write_text(PROBE, encoding="utf-8")
    text = browser.run(probe, "--virtual-time-budget=20000", "--dump-dom")
    words = re.search(r'<pre id="found">(.+?)</pre>', text)
    assert words is not None, "the probe did not come to its end"
    measured: dict[str, Any] = json.loads(unescape(words[1]))
    return measured


@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 900)])
def test_the_first_screen_is_not_blank(
    browser: Browser, page: Path, width: int, height: int
) -> None:
    image = browser.shot(page, width, height)
    assert image.shape == (height, width, 3)
    # text and coloured grounds: a blank page has one colour and no variance
    assert image.std() > 10
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(("name", "width"), [("phone", 360), ("desk", 1280)])
def test_no_page_is_wider_than_its_window(
    found: dict[str, Any], name: str, width: int
) -> None:
    assert found[name]["width"] == width
    assert found[name]["overflow"] == 0
    assert found[name]["line_overflow"] == 0


@pytest.mark.parametrize(("name", "side"), [("phone", 250), ("desk", 500)])
def test_a_chosen_picture_is_large_beside_the_seen_one(
    found: dict[str, Any], name: str, side: int
) -> None:
    here = found[name]
    assert here["small"]["width"] < 110
    for picture in (here["large"], here["reference"]):
        assert picture["width"] == picture["height"] > side
        assert picture["left"] >= 0
        assert picture["left"] + picture["width"] <= here["width"]
        assert picture["top"] >= 0
    assert here["others"]["width"] < here["large"]["width"] / 2
    assert here["others"]["top"] > here["large"]["top"] + here["large"]["height"]
    beside = here["large"]["top"] == here["reference"]["top"]
    assert beside == (name == "desk")  # on a phone one above the other


@pytest.mark.parametrize("name", ["phone", "desk"])
def test_while_a_picture_is_large_the_keyboard_reaches_only_its_view(
    found: dict[str, Any], name: str
) -> None:
    here = found[name]
    assert here["focused"] == "g2-1-3-1"
    assert here["reached"] == [
        *("g2-1-3-0", "g2-1-3-1", "Previous image", "Next image", "Close"),
        *("g2-1-3-2", "g2-1-3-3"),
    ]
    assert here["close_on_top"] == "close"  # a click on the large picture closes it
    assert here["next"] == "#g2-1-4-1"


@pytest.mark.parametrize("name", ["phone", "desk"])
def test_closing_brings_the_reader_back_to_the_picture(
    found: dict[str, Any], name: str
) -> None:
    here = found[name]
    height = {"phone": 800, "desk": 900}[name]
    assert here["closed"]["width"] == here["small"]["width"]
    assert 0 <= here["closed"]["top"] < height
    assert abs(here["after"] - here["before"]) < height  # not the top of the page


@pytest.mark.parametrize(("name", "together"), [("phone", 2), ("desk", 3)])
def test_the_reader_chooses_the_rows_that_stand_side_by_side(
    found: dict[str, Any], name: str, together: int
) -> None:
    here = found[name]
    assert here["hidden"]
    assert here["kept"]
    tops = [picture["top"] for picture in here["line"]]
    assert tops.count(tops[0]) == together  # on a phone two on a line
    assert all(p["width"] > 1.5 * 94 for p in here["line"][:together])


def test_a_figure_opens_large_with_its_caption(found: dict[str, Any]) -> None:
    # on a phone as large as on a desk, to be moved about; on a desk the window's width
    assert found["phone"]["figure"]["width"] == 1200
    assert 1200 <= found["desk"]["figure"]["width"] <= 1280
    assert found["phone"]["caption_seen"]
    assert found["desk"]["caption_seen"]


@pytest.mark.parametrize("name", ["phone", "desk"])
def test_a_claims_link_brings_its_row_into_view(
    found: dict[str, Any], name: str
) -> None:
    assert 0 <= found[name]["row"]["top"] < 100
    assert found[name]["folded"] is False


def test_paper_shows_the_rows_that_the_screen_folds(
    browser: Browser, page: Path
) -> None:
    short = page.parent / "short.html"
    short.write_text(_report(1), encoding="utf-8")
    # 300 rows more; a sheet holds fewer than 75 of them
    assert browser.n_pages(page) >= browser.n_pages(short) + 4
