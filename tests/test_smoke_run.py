"""The smoke profile end to end: every notebook runs, twice with the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from minddiff_utils.claims import CLAIMS, COLUMNS
from minddiff_utils.runner import GRAPH

RUN = [sys.executable, "-m", "minddiff_utils.cli", "run", "--profile", "smoke"]
LIMIT_S = 900


def start(root: Path) -> subprocess.Popen:
    environment = os.environ | {"MINDDIFF_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    models = root / "data" / "models"
    models.parent.mkdir(parents=True, exist_ok=True)
    if not models.exists():
        repository = Path(__file__).resolve().parents[1]
        models.symlink_to(repository / "data" / "models")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*RUN, "--jobs", "1"], env=environment, **pipes)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Run smoke in two empty roots at once, as two users would."""
    made = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for process in [start(root) for root in made]:
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said
    return made


def artefacts(root: Path) -> dict[str, bytes]:
    """Return the tables, images and claims of a run; manifests hold times."""
    figures, derived = root / "figures" / "smoke", root / "data" / "smoke" / "derived"
    paths = [
        *figures.glob("tables/*"),
        *figures.glob("*.csv"),
        *figures.glob("*.png"),
        *derived.rglob("*.png"),
        *derived.rglob("*.csv"),
    ]
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in paths
        # manifests and the table of seconds hold times
        if not path.name.endswith(".manifest.json") and path.stem != "seconds"
    }


@pytest.mark.timeout(LIMIT_S)
def test_two_runs_give_the_same_tables_and_images_to_the_byte(
    roots: list[Path],
) -> None:
    first, second = (artefacts(root) for root in roots)
    assert first.keys() == second.keys()
    assert len(first) > 60
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.timeout(LIMIT_S)
def test_every_notebook_was_executed_without_an_error(roots: list[Path]) -> None:
    folder = roots[0] / "figures" / "smoke" / "notebooks"
    made = {path.stem.removesuffix("_subj01"): path for path in folder.glob("*.ipynb")}
    assert set(made) == {notebook.stem for notebook in GRAPH}
    for path in made.values():
        for cell in nbformat.read(path, as_version=4).cells:
            outputs = cell.get("outputs", [])
            assert not [o for o in outputs if o.output_type == "error"], path.name


@pytest.mark.timeout(LIMIT_S)
def test_the_ledger_has_every_claim_and_compares_none_with_the_paper(
    roots: list[Path],
) -> None:
    ledger = pd.read_csv(roots[0] / "figures" / "smoke" / "claims.csv")
    assert tuple(ledger.columns) == COLUMNS
    assert list(ledger["claim"]) == [claim.claim for claim in CLAIMS]
    # one subject of a few images, and no number of the paper is ever claimed
    numbers = ledger[ledger["claim"].isin(["C1", "C2", "C3"])]
    assert numbers["verdict"].str.startswith("cannot be said here").all()
    assert ledger["profile"].str.contains("in-silico").all()


@pytest.mark.timeout(LIMIT_S)
def test_zero_iterations_of_stage_2_are_stage_1_to_the_byte(
    roots: list[Path],
) -> None:
    folder = roots[0] / "data" / "smoke" / "derived" / "subj01"
    still = pd.read_csv(folder / "zero_iterations.csv")
    assert len(still) == 4
    assert still["equal"].all()


@pytest.mark.timeout(LIMIT_S)
def test_a_second_run_skips_everything(roots: list[Path]) -> None:
    process = start(roots[0])
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert said.count("up to date") == len(GRAPH)
    assert "queued" not in said


@pytest.mark.timeout(LIMIT_S)
def test_the_report_stands_alone(roots: list[Path]) -> None:
    page = (roots[0] / "figures" / "smoke" / "report.html").read_text(encoding="utf-8")
    assert "in-silico" in page
    assert 'src="http' not in page
    assert page.count("data:image/png;base64,") >= 15
