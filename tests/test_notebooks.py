"""Notebooks are clean in the repository and told as STYLE asks."""

import ast
from pathlib import Path

import nbformat
import pytest

from minddiff_utils.core.places import notebook_path, project_root
from minddiff_utils.pipeline.graph import GRAPH, read_parameters

FOLDER = project_root() / "notebooks"
NOTEBOOKS = sorted([*FOLDER.glob("*.ipynb"), *(FOLDER / "appendix").glob("*.ipynb")])
IDS = [path.stem for path in NOTEBOOKS]


def code_cells(path: Path) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def test_a_run_executes_every_notebook_but_that_of_the_demo_models() -> None:
    stems = {path.stem for path in NOTEBOOKS} - {"A1_demo_models"}
    assert stems == {notebook.stem for notebook in GRAPH}
    for notebook in GRAPH:
        assert notebook_path(notebook.stem).is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_committed_without_outputs_counts_or_run_metadata(path: Path) -> None:
    made = nbformat.read(path, as_version=4)
    assert "papermill" not in made.metadata
    for cell in code_cells(path):
        assert not cell.outputs
        assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_parameters_are_literals_and_start_with_profile(path: Path) -> None:
    assert next(iter(read_parameters(path))) == "profile"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_code_cells_are_short_and_logic_lives_in_the_package(path: Path) -> None:
    for cell in code_cells(path):
        lines = cell.source.splitlines()
        assert len(lines) <= 20, cell.source
        assert not any(line.startswith(("%", "!")) for line in lines)
        assert "sys.path" not in cell.source
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 3, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_prose_accompanies_code(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    words = sum(len(c.source.split()) for c in cells if c.cell_type == "markdown")
    assert words / len(code_cells(path)) >= 20


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("02_decoding", "mode of its posterior, where the released code draws from it"),
        ("02_decoding", "bilinear interpolation for the targets"),
        ("03_stage1", "noises to grid index 40 of 50"),
        ("03_stage1", "We make one image where theirs has five samples"),
        ("04_stage2", "whether $\\varepsilon$ is drawn anew in `paper`"),
        ("04_stage2", "NeuralDiffuser takes the conditional branch alone"),
    ],
)
def test_a_deviation_is_stated_in_the_notebook_where_it_happens(
    stem: str, words: str
) -> None:
    cells = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4).cells
    told = [c.source for c in cells if c.cell_type == "markdown" and words in c.source]
    assert len(told) == 1
    assert "> **Deviation**" in told[0].split(words)[0]
