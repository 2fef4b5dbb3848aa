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
from minddiff_utils.reporting.report.page import (
    FigureItem,
    GalleryItem,
    LedgerItem,
    Report,
    Section,
    TableItem,
    render_report,
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
LABEL = "profile demo: in-silico subjects, demo models"
METHODS = ("seen", "stage 2", "stage 1", "retrieval: nearest training image")
N_IMAGES, N_LONG = 12, 400
#: A start of the browser takes about a second, on a busy machine several.
LIMIT_S = 60

#: Shows the report in a frame of a phone's and of a desk's width, operates it as a
#: reader does, and writes what it measures into the page.
PROBE = """<!DOCTYPE html><meta charset="utf-8"><title>probe</title>
<iframe id="phone" width="360" height="800" src="report.html"></iframe>
<iframe id="desk" width="1280" height="800" src="report.html"></iframe>
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
  const overflow = () => page.documentElement.scrollWidth
    - page.documentElement.clientWidth;
  const pictures = () => [...page.querySelectorAll(".pictures .m1 img")].map(box);
  found.width = view.innerWidth;
  found.overflow = overflow();
  found.first = box(page.querySelector("header img"));
  found.small = pictures()[0];
  page.querySelector(".enlarge").click();
  found.large = pictures()[0];
  found.large_overflow = overflow();
  page.querySelector(".pick2").click();
  found.hidden = page.querySelector("tr.m2").getClientRects().length === 0;
  found.kept = page.querySelector("tr.m3").getClientRects().length > 0;
  found.figure = box(page.querySelector("main figure img"));
  found.cells = [...page.querySelectorAll("#claim-3 td")].map(cell =>
    view.getComputedStyle(cell, "::before").content);
  const rows = () => [...page.querySelectorAll("#claim-11 tr")].map(
    row => row.getClientRects().length > 0).join();
  found.some_rows = rows();
  page.querySelector("#claim-11 .unfold input").click();
  found.all_rows = rows();
  view.location.hash = "#claim-9"; await soon();
  found.claim = box(page.getElementById("claim-9"));
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
    names = [f"C{i}" for i in range(1, 12)]
    about = {"statement": "a statement of a dozen words or so " * 2}
    about |= {"engine": "an engine", "verdict": "supported", "reason": ""}
    claims = pd.DataFrame({"claim": names}).assign(**about)
    end = {"endpoint": "averylongword" * 9} | {f"quantity {i}": "0.1" for i in range(9)}
    end["result"] = "shown"
    ends = {name: [end] * 3 for name in names}
    ends["C11"] = [end | {"result": "open"}, *[end] * 6]
    ledger = LedgerItem(claims, ends, "The ledger.")
    rows = {m: [_png((64, 64), f"{m}{i}") for i in range(N_IMAGES)] for m in METHODS}
    images = [str(1000 + i) for i in range(N_IMAGES - 1)] + ["a few words on an image"]
    below = {m: ["0.81 · 0.42"] * N_IMAGES for m in METHODS[1:]}
    numbers = {f"a_long_column_name_{i}": [0.5] * n_long for i in range(9)}
    table = TableItem("long", pd.DataFrame(numbers), "Long.")
    wide = FigureItem("wide", _png((300, 1500), "figure"), "A wide figure.")
    sections = [
        Section("Claims", ["Words. " * 30], [ledger]),
        Section("Gallery", items=[GalleryItem("g", rows, images, "C.", below)]),
        Section("Scores", ["word" * 60], [table, wide]),
        Section(
            "Files",
            links=[("a link", "notebooks/" + "long" * 30 + ".ipynb")],
            settings=[("a_setting_with_a_long_name", "0123456789abcdef" * 8)],
        ),
    ]
    first = FigureItem("F1", _png((440, 740), "first"), "The first figure.")
    lead = ["The lead. " * 20] * 2
    facts = [("digest", "0123456789abcdef" * 8)]
    return render_report(
        Report("A report", LABEL, lead, first, ledger, sections, facts)
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


@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 800)])
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
    assert found[name]["large_overflow"] == 0


def test_the_first_picture_is_within_the_first_screen(found: dict[str, Any]) -> None:
    picture = found["desk"]["first"]
    assert picture["top"] + picture["height"] <= 800
    assert picture["width"] > 500


@pytest.mark.parametrize("name", ["phone", "desk"])
def test_pictures_grow_and_rows_are_chosen(found: dict[str, Any], name: str) -> None:
    here = found[name]
    assert here["small"]["width"] == here["small"]["height"] < 100
    assert here["large"]["width"] > 2 * here["small"]["width"]
    assert here["hidden"]
    assert here["kept"]


@pytest.mark.parametrize("name", ["phone", "desk"])
def test_of_many_endpoints_those_shown_are_folded(
    found: dict[str, Any], name: str
) -> None:
    here = found[name]
    assert here["some_rows"] == ",".join(["true"] * 2 + ["false"] * 6)
    assert here["all_rows"] == ",".join(["true"] * 8)


def test_a_figure_s_small_print_stays_large_on_a_phone(found: dict[str, Any]) -> None:
    assert found["phone"]["figure"]["width"] >= 640  # moved about, not shrunk
    assert 640 <= found["desk"]["figure"]["width"] <= 1280


def test_on_a_phone_each_number_says_what_it_is(found: dict[str, Any]) -> None:
    assert found["phone"]["cells"][0].startswith('"quantity 0')
    assert found["desk"]["cells"][0] == "none"


@pytest.mark.parametrize("name", ["phone", "desk"])
def test_a_claim_s_link_brings_it_into_view(found: dict[str, Any], name: str) -> None:
    assert 0 <= found[name]["claim"]["top"] < 100
    assert found[name]["folded"] is False


def test_paper_shows_the_rows_that_the_screen_folds(
    browser: Browser, page: Path
) -> None:
    short = page.parent / "short.html"
    short.write_text(_report(1), encoding="utf-8")
    # 400 rows more; a sheet holds fewer than 130 of them
    assert browser.n_pages(page) >= browser.n_pages(short) + 3
