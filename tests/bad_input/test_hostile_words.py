"""Captions and names that try to be code are words on the page, and no more.

`test_report` hands hostile words to the page; here they come the way a stranger's data
would: from NSD's captions, tables, printed tables and the names of files.
"""

import json
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from minddiff_utils import evaluation
from minddiff_utils.core import store
from minddiff_utils.evaluation.claims import COLUMNS
from minddiff_utils.reporting import report_contents, surface_maps
from minddiff_utils.reporting.figures.preparation import fig_scenes

from .world import FIGURES, Copy, World

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><style>@import '//x'</style>",
    "</td></table><iframe src=javascript:alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}$ \\input{/etc/passwd} | `rm`",
)
NOTEBOOK = '"><img onerror=alert(1)>.ipynb'


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def _speak(world: World) -> None:
    """Put hostile words into every caption of the folder."""
    for path in world.nsd.rglob("captions_*.json"):
        notes = json.loads(path.read_text())
        for k, note in enumerate(notes["annotations"]):
            note["caption"] += f" {HOSTILE[k % len(HOSTILE)]}"
        path.unlink()
        path.write_text(json.dumps(notes))


def _write_tables(world: World) -> None:
    """Put hostile words wherever a table or a name can hold some."""
    run, tables = world.start(None), world.figures / "tables"
    hostile = ("claim", "statement", "verdict", "engine", "reason", "endpoint")
    ledger = {**dict.fromkeys(COLUMNS, 0.5), **dict.fromkeys(hostile, HOSTILE)}
    store.write_table(
        world.figures / "claims.csv", pd.DataFrame(ledger | {"profile": "x"}), run=run
    )
    checks = {"check": HOSTILE, "observed": HOSTILE, "passed": False}
    store.write_table(tables / "sanity.csv", pd.DataFrame(checks), run=run)
    path = tables / "T2_ablation.csv"
    table = pd.concat([store.read_table(path)] * len(HOSTILE))
    store.write_table(path, table.assign(method=HOSTILE, group=HOSTILE), run=run)
    folder = world.figures / "notebooks"
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(), folder / NOTEBOOK)


def test_captions_of_a_hostile_folder_are_stored_and_drawn_as_they_are(
    copy: Copy,
) -> None:
    world = copy(("data/smoke/nsd",))
    _speak(world)
    world.play("01")
    stored = store.read_arrays(world.derived / "stimuli.h5", ["captions", "images"])
    said = " ".join(stored["captions"].ravel().tolist())
    assert all(words in said for words in HOSTILE)
    # matplotlib would read $...$ as mathematics, and fail at what is none
    figure = fig_scenes(stored["images"][:8], [*HOSTILE, "$x"])
    figure.canvas.draw()
    assert world.start().tree.derived(1) == world.derived


def test_a_report_of_hostile_tables_and_names_has_nothing_that_runs(
    copy: Copy,
) -> None:
    world = copy(("data/smoke/derived", "figures"))
    plain = _Page(
        report_contents.build_report(world.start(None), surface_maps.CorticalMaps(1))
    )
    _write_tables(world)
    page = _Page(
        report_contents.build_report(world.start(None), surface_maps.CorticalMaps(1))
    )
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    names = {name for _, attributes in page.tags for name in attributes}
    before = {name for _, attributes in plain.tags for name in attributes}
    assert names <= before | {"data-column"}  # of endpoints, which the plain one lacks
    assert not [name for name in names if name.startswith("on")]
    for _, attributes in page.tags:
        for name in ("href", "src"):
            place = attributes.get(name) or ""
            assert not place.lower().lstrip().startswith("javascript:")
            assert place.startswith(
                ("#", "data:image/png", "notebooks/", "tables/", "")
            )
    for words in HOSTILE[:-1]:
        assert page.words.count(words) >= 4  # tables, ledger and its index
    assert NOTEBOOK in page.words
    assert len([1 for tag, _ in page.tags if tag == "img"]) >= len(FIGURES)


def test_the_categories_of_hostile_captions_are_those_of_the_plain_ones(
    copy: Copy,
) -> None:
    """What a caption holds beside its object changes no score."""
    world = copy(("data/smoke/nsd", "data/smoke/derived"))
    before = evaluation.category_floor(world.start(None), 1)
    path = world.derived / "stimuli.h5"
    arrays = dict(store.read_arrays(path))
    hostile = HOSTILE[1]
    arrays["captions"] = np.array(
        [[f"{text} {hostile}" for text in row] for row in arrays["captions"]], object
    )
    store.write_arrays(path, arrays, run=world.start())
    assert evaluation.category_floor(world.start(None), 1) == before
    assert isinstance(path, Path)
