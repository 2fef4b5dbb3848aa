"""The smoke profile end to end: every notebook runs, and kills change no byte."""

import html
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.places import notebook_path
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.evaluation.claims import CLAIMS, COLUMNS
from minddiff_utils.pipeline.graph import GRAPH, make_plan
from minddiff_utils.pipeline.runner import run_plan
from tests import faults
from tests.hostile import give_settings

#: Notebooks that a simulation runs.
OF_SMOKE = {n.stem for n in GRAPH if not n.profile and not n.is_of_nsd}
LIMIT_S = 1800  # six times what two busy cores need
N_KILLS = 3


@dataclass(frozen=True)
class Smoke:
    """Two roots in which smoke was run to its end, one of them with kills.

    That one ran on a machine full of a user's settings, too.
    """

    undisturbed: Path
    killed: Path
    kills: faults.Kills
    foreign: dict[Path, bytes]
    foreign_lost: list[Path]


#: What a user may keep beside an artefact, named as tools name what they leave.
FOREIGN = ("notes.txt", "mine.part", "mine.old", "truth.old", ".mine.lock", "tmp_mine")


def strew(root: Path) -> dict[Path, bytes]:
    """Write files of a user's own into every folder of a run; return what they hold."""
    below = (path for path in root.rglob("*") if not path.is_symlink())
    folders = [root, *(path for path in below if path.is_dir())]
    foreign = {
        folder / name: f"{folder} {name}" for folder in folders for name in FOREIGN
    }
    for path, text in foreign.items():
        path.write_text(text, encoding="utf-8")
    return {path: text.encode() for path, text in foreign.items()}


def gather(foreign: dict[Path, bytes]) -> list[Path]:
    """Take a user's files out again; return those that are gone or changed."""
    lost = [
        p for p, held in foreign.items() if not p.is_file() or p.read_bytes() != held
    ]
    for path in foreign:
        path.unlink(missing_ok=True)
    return lost


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    undisturbed = faults.start(first, "--jobs", "1")
    log, rng = faults.Kills(), np.random.default_rng(2308)
    foreign: dict[Path, bytes] = {}
    with pytest.MonkeyPatch.context() as patch:
        # what a user has set up changes no byte either
        for name, value in give_settings(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        for _ in range(N_KILLS):
            before = faults.batches(second)
            # of one job at a time no kernel is warm, whose death would stop nothing
            faults.kill_once(second, rng, 45.0, log, "--jobs", "1")
            log.lost_batches += faults.lost(before, faults.batches(second))
            # before the simulation's folder is there, files in its place are refused
            is_there = (second / "data/smoke/nsd/IN_SILICO.manifest.json").is_file()
            foreign |= strew(second) if is_there and not foreign else {}
        faults.run_through(second, "--jobs", "1")
    lost = gather(foreign)
    # what lies in a data tree may be read: without these files 00 looks at it again
    faults.run_through(second, "--jobs", "1")
    said, _ = undisturbed.communicate(timeout=LIMIT_S)
    assert undisturbed.returncode == 0, said
    return Smoke(first, second, log, foreign, lost)


@pytest.mark.timeout(LIMIT_S)
def test_what_a_user_keeps_in_any_folder_of_a_run_stays(smoke: Smoke) -> None:
    folders = {path.parent for path in smoke.foreign}
    assert len(folders) > 10  # data, subjects, models, figures: a run was under way
    assert smoke.foreign_lost == []


@pytest.mark.timeout(LIMIT_S)
def test_a_run_that_was_killed_ends_with_the_bytes_of_one_that_was_not(
    smoke: Smoke,
) -> None:
    assert sum(smoke.kills.victims.values()) == N_KILLS
    assert smoke.kills.tracebacks == []
    assert smoke.kills.survivors == []
    assert smoke.kills.lost_batches == []
    found, expected = faults.results(smoke.killed), faults.results(smoke.undisturbed)
    assert len(expected) > 200
    assert faults.differences(found, expected) == []
    for root in (smoke.killed, smoke.undisturbed):
        assert faults.leftovers(root) == []
    seen = json.loads(json.dumps(smoke.kills.report()))  # as the long form writes it
    assert seen["kills"] == sum(seen["in_notebook"].values()) == N_KILLS


def _with_every_cell_twice(folder: Path) -> None:
    """Write the notebooks with each code cell but the parameters followed by itself."""
    for notebook in GRAPH:
        page = nbformat.read(notebook_path(notebook.stem), as_version=4)
        cells = []
        for cell in page.cells:
            cells.append(cell)
            tags = cell.metadata.get("tags", [])
            if cell.cell_type == "code" and "parameters" not in tags:
                cells.append(nbformat.v4.new_code_cell(cell.source))
        page.cells = cells
        path = notebook_path(notebook.stem, folder)
        path.parent.mkdir(exist_ok=True)
        nbformat.write(page, path)


@pytest.mark.timeout(LIMIT_S)
def test_every_cell_can_be_run_twice_with_the_same_files(
    smoke: Smoke, tmp_path: Path
) -> None:
    """On a finished run: tables are made again, and no batch is lost or made again."""
    source, root = tmp_path / "notebooks", tmp_path / "root"
    source.mkdir()
    _with_every_cell_twice(source)
    shutil.copytree(smoke.undisturbed, root, symlinks=True)
    before = faults.batches(root)
    assert {name.split()[0] for name in before} == {"03", "04"}
    tree = Tree(root, "smoke", root / "data" / "smoke" / "nsd")
    plan = make_plan(load_profile("smoke"), tree, {}, source=source)
    run_plan(plan, n_jobs=1, force=True, say=lambda _: None)
    assert faults.lost(before, faults.batches(root)) == []
    found, expected = faults.results(root), faults.results(smoke.undisturbed)
    assert faults.differences(found, expected) == []


@pytest.mark.timeout(LIMIT_S)
def test_flipped_bits_are_found_by_their_digest_and_only_they_are_made_again(
    smoke: Smoke,
) -> None:
    root, rng = smoke.killed, np.random.default_rng(2308)
    image = sorted(root.glob("data/smoke/derived/subj01/stage1/*.png"))[0]
    table = root / "figures" / "smoke" / "tables" / "T1_comparison.csv"
    for path in (image, table):
        faults.flip(path, rng)
    said, _ = faults.run_through(root, "--jobs", "1")
    again = [line.split(":")[0] for line in said.splitlines() if "queued" in line]
    assert again == ["03_stage1_subj01", "05_evaluation"]
    found, expected = faults.results(root), faults.results(smoke.undisturbed)
    assert faults.differences(found, expected) == []


@pytest.mark.timeout(LIMIT_S)
def test_every_notebook_was_executed_without_an_error(smoke: Smoke) -> None:
    folder = smoke.undisturbed / "figures" / "smoke" / "notebooks"
    made = {path.stem.removesuffix("_subj01"): path for path in folder.glob("*.ipynb")}
    assert set(made) == OF_SMOKE
    for path in made.values():
        for cell in nbformat.read(path, as_version=4).cells:
            outputs = cell.get("outputs", [])
            assert not [o for o in outputs if o.output_type == "error"], path.name


def _outputs(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", [])]


@pytest.mark.timeout(LIMIT_S)
def test_executed_notebooks_show_whole_tables_and_no_progress_bars(
    smoke: Smoke,
) -> None:
    figures = smoke.undisturbed / "figures" / "smoke"
    for path in (figures / "notebooks").glob("*.ipynb"):
        said = [o.text for o in _outputs(path) if o.output_type == "stream"]
        assert "it/s]" not in "".join(said), path.name
    outputs = _outputs(figures / "notebooks" / "05_evaluation.ipynb")
    pages = [o.get("data", {}).get("text/html", "") for o in outputs]
    shown = {
        " ".join(html.unescape(cell).split())
        for page in pages
        for cell in re.findall(r"<td>(.*?)</td>", page, re.DOTALL)
    }
    ledger = pd.read_csv(figures / "claims.csv")
    long = [text for text in ledger["statement"] if len(text) > 50]
    assert long  # else this test shows nothing
    assert {" ".join(text.split()) for text in long} <= shown


@pytest.mark.timeout(LIMIT_S)
def test_the_ledger_has_every_claim_and_compares_none_with_the_paper(
    smoke: Smoke,
) -> None:
    ledger = pd.read_csv(smoke.undisturbed / "figures" / "smoke" / "claims.csv")
    assert tuple(ledger.columns) == COLUMNS
    assert list(ledger["claim"].unique()) == [claim.claim for claim in CLAIMS]
    # one subject of a few images, and no number of the paper is ever claimed
    numbers = ledger[ledger["claim"].isin(["C1", "C2", "C3"])]
    assert numbers["verdict"].eq("not testable here").all()
    assert ledger["profile"].str.contains("in-silico").all()


@pytest.mark.timeout(LIMIT_S)
def test_zero_iterations_of_stage_2_are_stage_1_to_the_byte(
    smoke: Smoke,
) -> None:
    folder = smoke.undisturbed / "data" / "smoke" / "derived" / "subj01"
    still = pd.read_csv(folder / "zero_iterations.csv")
    assert len(still) == 4
    assert still["equal"].all()


@pytest.mark.timeout(LIMIT_S)
def test_no_test_image_is_in_the_corpus_of_the_posterior(smoke: Smoke) -> None:
    folder = smoke.undisturbed / "data" / "smoke" / "derived" / "subj01"
    responses = store.read_arrays(folder / "responses.h5", ["nsd_id", "split"])
    train = responses["nsd_id"][responses["split"] == "train"]
    found = store.read_arrays(folder / "decoded.h5", ["nsd_id", "posterior_nsd_id"])
    assert np.isin(found["posterior_nsd_id"], train).all()
    assert not np.isin(found["posterior_nsd_id"], found["nsd_id"]).any()


@pytest.mark.timeout(LIMIT_S)
def test_a_second_run_skips_everything(smoke: Smoke) -> None:
    said, _ = faults.run_through(smoke.undisturbed)
    assert said.count("up to date") == len(OF_SMOKE)
    assert "queued" not in said


@pytest.mark.timeout(LIMIT_S)
def test_the_report_stands_alone(smoke: Smoke) -> None:
    path = smoke.undisturbed / "figures" / "smoke" / "report.html"
    page = path.read_text(encoding="utf-8")
    assert "in-silico" in page
    assert 'src="http' not in page
    assert page.count("data:image/png;base64,") >= 15
