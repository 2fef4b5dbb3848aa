"""The runner is strict, skips what is up to date and keeps failures."""

from pathlib import Path

import nbformat
import pytest

from minddiff_utils import runner
from minddiff_utils.config import load_profile
from minddiff_utils.errors import ConfigError, RunError
from minddiff_utils.store import Tree

PARAMETERS = 'profile: str = "smoke"\noverrides: dict = {}'
WRITES = (
    "from minddiff_utils import store\n"
    "run = store.start(profile)\n"
    'store.write_text(run.tree.root / "made" / f"{subject}.txt", "x", run=run)'
)


def notebook(*cells: str, tagged: int = 1) -> nbformat.NotebookNode:
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(metadata={"kernelspec": spec})
    made.cells = [nbformat.v4.new_code_cell(c) for c in cells]
    for cell in made.cells[:tagged]:
        cell.metadata["tags"] = ["parameters"]
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A main line whose notebooks each write one small artefact."""
    source = tmp_path / "notebooks"
    source.mkdir()
    for entry in runner.GRAPH:
        subject = "\nsubject: int = 1" if entry.per_subject else ""
        body = WRITES if entry.per_subject else WRITES.replace("subject", "profile")
        made = notebook(
            PARAMETERS + subject, body.replace("{", f"{{'{entry.stem}'}}{{")
        )
        nbformat.write(made, source / f"{entry.stem}.ipynb")
    return source


def plan(folder: Path, **options: object) -> runner.Plan:
    root = folder.parent
    tree = Tree(root, "smoke", root / "nsd")
    return runner.make_plan(load_profile("smoke"), tree, {}, source=folder, **options)


@pytest.mark.parametrize(
    ("cells", "tagged", "words"),
    [
        (["x = 1"], 0, "0 cells tagged"),
        (["x = 1", "y = 2"], 2, "2 cells tagged"),
        (["x = 1 + y"], 1, "must be a literal"),
        (["import os"], 1, "NAME = literal"),
        (["a = b = 1"], 1, "NAME = literal"),
    ],
)
def test_a_parameters_cell_that_is_not_literal_is_refused(
    tmp_path: Path, cells: list, tagged: int, words: str
) -> None:
    path = tmp_path / "n.ipynb"
    nbformat.write(notebook(*cells, tagged=tagged), path)
    with pytest.raises(RunError, match=words):
        runner.read_parameters(path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"subjct": 1}, "no parameter 'subjct'"),
        ({"subject": "1"}, "must be int, not str"),
        ({"subject": True}, "must be int, not bool"),
    ],
)
def test_unknown_or_mistyped_parameters_are_refused(
    tmp_path: Path, given: dict, words: str
) -> None:
    path = tmp_path / "n.ipynb"
    nbformat.write(notebook("subject: int = 1"), path)
    with pytest.raises(RunError, match=words):
        runner.check_parameters(path, given)


def test_each_job_needs_what_its_own_subject_did_before(folder: Path) -> None:
    jobs = {job.name: job for job in plan(folder).jobs}
    assert jobs["03_stage1_subj01"].needs == (
        "00_insilico_nsd",
        "01_data_prep_subj01",
        "02_decoding_subj01",
    )
    assert len(jobs["06_figures"].needs) == 6


def test_only_and_from_choose_notebooks_and_unknown_numbers_are_refused(
    folder: Path,
) -> None:
    assert {j.notebook[:2] for j in plan(folder, only=("04",)).jobs} == {"04"}
    assert {j.notebook[:2] for j in plan(folder, first="05").jobs} == {"05", "06"}
    with pytest.raises(ConfigError, match="'09'"):
        plan(folder, only=("09",))


def test_a_changed_notebook_changes_the_keys_of_all_after_it(folder: Path) -> None:
    before = {job.name: job.key for job in plan(folder).jobs}
    path = folder / "03_stage1.ipynb"
    made = nbformat.read(path, as_version=4)
    made.cells[1].source += "\n# changed"
    nbformat.write(made, path)
    after = {job.name: job.key for job in plan(folder).jobs}
    changed = {name for name in before if before[name] != after[name]}
    assert {n[:2] for n in changed} == {"03", "04", "05", "06"}


def test_second_run_skips_and_a_lost_artefact_is_made_again(folder: Path) -> None:
    said: list[str] = []
    small = plan(folder, only=("00", "01"))
    assert len(runner.run_plan(small, n_jobs=1, force=False, say=said.append)) == 2
    assert runner.run_plan(small, n_jobs=1, force=False, say=said.append) == []
    assert "01_data_prep_subj01: up to date" in said
    made = sorted((folder.parent / "made").glob("01*.txt"))
    made[0].unlink()
    again = runner.run_plan(small, n_jobs=1, force=False, say=said.append)
    assert [result.name for result in again] == ["01_data_prep_subj01"]


def test_a_failure_names_the_cell_and_keeps_the_executed_copy(folder: Path) -> None:
    path = folder / "00_insilico_nsd.ipynb"
    nbformat.write(notebook(PARAMETERS, "x = 1", "raise ValueError('no')"), path)
    with pytest.raises(RunError, match=r"cell 3 of 00_insilico_nsd .*ValueError: no"):
        runner.run_plan(
            plan(folder, only=("00",)), n_jobs=1, force=False, say=lambda _: None
        )
    copy = folder.parent / "figures" / "smoke" / "notebooks" / "00_insilico_nsd.ipynb"
    assert "ValueError" in copy.read_text(encoding="utf-8")


def test_a_missing_notebook_is_said(folder: Path) -> None:
    (folder / "04_stage2.ipynb").unlink()
    with pytest.raises(RunError, match=r"04_stage2\.ipynb is missing"):
        plan(folder)
