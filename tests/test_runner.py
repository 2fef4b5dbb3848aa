"""The runner is strict, skips what is up to date and keeps failures."""

import json
import shutil
from functools import partial
from pathlib import Path

import nbformat
import pytest

from minddiff_utils.core.errors import ConfigError, RunError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.pipeline import graph, records, runner
from tests.small_notebooks import PARAMETERS, notebook, write_notebooks

WRITES = (
    "from minddiff_utils import start\n"
    "from minddiff_utils.core import store\n"
    "run = start(profile)\n"
    'store.write_text(run.tree.root / "made" / f"{subject}.txt", "x", run=run)'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A main line whose notebooks each write one small artefact."""
    source = tmp_path / "notebooks"

    def body(entry: graph.Notebook) -> str:
        own = WRITES if entry.per_subject else WRITES.replace("subject", "profile")
        return own.replace("{", f"{{'{entry.stem}'}}{{")

    write_notebooks(source, body)
    return source


def plan(folder: Path, **options: object) -> graph.Plan:
    root = folder.parent
    tree = Tree(root, "smoke", root / "nsd")
    return graph.make_plan(load_profile("smoke"), tree, {}, source=folder, **options)


@pytest.mark.parametrize(
    ("cells", "tagged", "words"),
    [
        (["x = 1"], 0, "0 cells tagged"),
        (["x = 1", "y = 2"], 2, "2 cells tagged"),
        (["x = 1 + y"], 1, "must be a literal"),
        (["x: int = = 1"], 1, "parameters cell, line 1: invalid syntax"),
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
        graph.read_parameters(path)


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
        graph.check_parameters(path, given)


def test_each_job_needs_what_its_own_subject_did_before(folder: Path) -> None:
    jobs = {job.name: job for job in plan(folder).jobs}
    assert jobs["03_stage1_subj01"].needs == (
        "00_insilico_nsd",
        "01_data_prep_subj01",
        "02_decoding_subj01",
    )
    assert jobs["A2_decoders_subj01"].needs == jobs["03_stage1_subj01"].needs
    assert jobs["A3_engines"].needs[-1] == "04_stage2_subj01"
    assert "A3_engines" not in jobs["05_evaluation"].needs  # no result depends on it
    further = {"07_subjects", "08_leakage"}
    assert {*further, "09_video"} < set(jobs["05_evaluation"].needs)
    assert all(jobs[n].needs == jobs["05_evaluation"].needs[:-3] for n in further)
    assert jobs["09_video"].needs == ("00_insilico_nsd", "01_data_prep_subj01")
    assert {"A2_decoders_subj01", "A3_engines", "05_evaluation"} <= set(
        jobs["06_figures"].needs
    )


def test_only_and_from_choose_notebooks_and_unknown_numbers_are_refused(
    folder: Path,
) -> None:
    assert {j.notebook[:2] for j in plan(folder, only=("04",)).jobs} == {"04"}
    assert [j.notebook for j in plan(folder, only=("A3",)).jobs] == ["A3_engines"]
    assert {j.notebook[:2] for j in plan(folder, first="05").jobs} == {"05", "06"}
    assert plan(folder, first="04").jobs[1].notebook == "07_subjects"
    with pytest.raises(ConfigError, match="'99'"):
        plan(folder, only=("99",))


def test_a_notebook_on_request_runs_where_it_is_named_and_in_smoke(
    folder: Path,
) -> None:
    asked = {n.stem for n in graph.GRAPH if n.on_request}
    assert asked
    assert asked <= {job.notebook for job in plan(folder).jobs}
    root = folder.parent
    demo = (load_profile("demo"), Tree(root, "demo", root / "nsd"), {})
    made = graph.make_plan(*demo, source=folder).jobs
    assert not asked & {job.notebook for job in made}
    for stem in sorted(asked):
        one = graph.make_plan(*demo, only=(stem[:2],), source=folder)
        assert {job.notebook for job in one.jobs} == {stem}


def test_a_changed_notebook_changes_the_keys_of_all_after_it(folder: Path) -> None:
    before = {job.name: job.key for job in plan(folder).jobs}
    path = folder / "03_stage1.ipynb"
    made = nbformat.read(path, as_version=4)
    made.cells[1].source += "\n# changed"
    nbformat.write(made, path)
    after = {job.name: job.key for job in plan(folder).jobs}
    changed = {name for name in before if before[name] != after[name]}
    later = "03 04 A3 A4 A5 07 08 05 06"  # 09 reads what 01 writes
    assert {n[:2] for n in changed} == set(later.split())


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


# --- shards -------------------------------------------------------------------------


def sharded(folder: Path, n_shards: int, **options: object) -> graph.Plan:
    """Return a plan of two subjects with 7 images in batches of 2, so of 4 batches."""
    over = {"subjects": [1, 2], "data.n_reconstruct": 7, "models.batch_size": 2}
    tree = Tree(folder.parent, "smoke", folder.parent / "nsd")
    profile = load_profile("smoke", over)
    return graph.make_plan(
        profile, tree, over, source=folder, n_shards=n_shards, **options
    )


def test_shards_are_jobs_of_their_own_of_notebooks_03_and_04(folder: Path) -> None:
    names = [job.name for job in sharded(folder, 2, only=("02", "03", "04")).jobs]
    assert names == [
        "02_decoding_subj01",
        "02_decoding_subj02",
        *(f"03_stage1_subj0{s}_shard{i}of2" for s in (1, 2) for i in (0, 1)),
        *(f"04_stage2_subj0{s}_shard{i}of2" for s in (1, 2) for i in (0, 1)),
    ]


def test_a_shard_waits_for_all_shards_before_it_and_for_none_beside_it(
    folder: Path,
) -> None:
    jobs = {job.name: job for job in sharded(folder, 2).jobs}
    first = ("00_insilico_nsd", "01_data_prep_subj02", "02_decoding_subj02")
    assert jobs["03_stage1_subj02_shard1of2"].needs == first
    assert jobs["04_stage2_subj02_shard0of2"].needs == (
        *first,
        "03_stage1_subj02_shard0of2",
        "03_stage1_subj02_shard1of2",
    )
    assert len(jobs["05_evaluation"].needs) == 1 + 2 + 2 + 4 + 4 + 3  # 07 to 09


def test_each_shard_is_told_which_it_is_and_has_a_key_of_its_own(
    folder: Path,
) -> None:
    jobs = sharded(folder, 3, only=("03",)).jobs
    told = [(job.parameters["subject"], job.parameters["shard"]) for job in jobs]
    assert told == [(s, f"{i}/3") for s in (1, 2) for i in range(3)]
    assert len({job.key for job in jobs}) == 6


def test_one_shard_is_the_plain_run(folder: Path) -> None:
    plain = sharded(folder, 1)
    assert "03_stage1_subj01" in [job.name for job in plain.jobs]
    assert all("shard" not in job.parameters for job in plain.jobs)


@pytest.mark.parametrize("n_shards", [-1, 0, 5])
def test_more_shards_than_batches_are_refused(folder: Path, n_shards: int) -> None:
    with pytest.raises(ConfigError, match="7 images in batches of 2 make 1 to 4"):
        sharded(folder, n_shards)


# --- what breaks --------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"key": "KEY"}', '{"key": "KEY", "artefacts": [1]}']
)
def test_a_damaged_record_means_that_the_job_runs_again(
    folder: Path, content: str
) -> None:
    small = plan(folder, only=("00",))
    job = small.jobs[0]
    record = small.tree.notebooks / f"{job.name}.run.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"key": "KEY", "artefacts": {}}'.replace("KEY", job.key))
    assert records.is_done(job, small.tree)
    record.write_text(content.replace("KEY", job.key))
    assert not records.is_done(job, small.tree)


@pytest.mark.parametrize(
    ("victim", "words"),
    [
        ("getpid", r"the kernel of 00_insilico_nsd died.*see .*00_insilico_nsd\.ipynb"),
        ("getppid", "A process died while 00_insilico_nsd ran.*lower --jobs"),
    ],
)
def test_a_process_that_dies_is_said_in_a_sentence(
    folder: Path, victim: str, words: str
) -> None:
    body = f"import os, signal\nos.kill(os.{victim}(), signal.SIGKILL)"
    nbformat.write(notebook(PARAMETERS, body), folder / "00_insilico_nsd.ipynb")
    with pytest.raises(RunError, match=words) as error:
        runner.run_plan(
            plan(folder, only=("00",)), n_jobs=1, force=False, say=lambda _: None
        )
    assert "what is done is kept." in str(error.value)
    assert not list(folder.parent.rglob("*.run.json"))


def test_a_copy_that_cannot_be_written_is_one_sentence(folder: Path) -> None:
    nbformat.write(notebook(PARAMETERS, "1"), folder / "00_insilico_nsd.ipynb")
    small = plan(folder, only=("00",))
    (small.tree.notebooks / "00_insilico_nsd.ipynb").mkdir(parents=True)
    words = r"^00_insilico_nsd could not be run and kept in \S+ \(Is a directory\)"
    with pytest.raises(RunError, match=words):
        runner.run_plan(small, n_jobs=1, force=False, say=lambda _: None)
    assert not list(folder.parent.rglob("*.run.json"))


def test_what_was_kept_for_a_while_is_not_remembered(tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept.csv", tmp_path / "unfinished.h5"
    kept.write_text("1", encoding="utf-8")
    tree, journal = Tree(tmp_path, "smoke", tmp_path / "nsd"), tmp_path / ".job.journal"
    tree.notebooks.mkdir(parents=True)
    journal.write_text(f"{gone}\n{kept}\n{kept}\n", encoding="utf-8")
    job = graph.Job("04_stage2", 1, "key", (), {})
    records.remember(job, tree, journal, 1.0, 2.0)
    facts = json.loads(records.record_path(job, tree).read_text(encoding="utf-8"))
    assert list(facts["artefacts"]) == ["kept.csv"]


def test_a_copy_of_a_tree_is_judged_by_its_own_files(tmp_path: Path) -> None:
    first = Tree(tmp_path / "first", "smoke", tmp_path / "nsd")
    first.notebooks.mkdir(parents=True)
    journal = first.root / ".job.journal"
    (first.root / "kept.csv").write_text("1", encoding="utf-8")
    journal.write_text(f"{first.root / 'kept.csv'}\n", encoding="utf-8")
    job = graph.Job("04_stage2", 1, "key", (), {})
    records.remember(job, first, journal, 1.0, 2.0)
    shutil.copytree(first.root, tmp_path / "second")
    second = Tree(tmp_path / "second", "smoke", tmp_path / "nsd")
    assert records.is_done(job, second)
    (second.root / "kept.csv").write_text("2", encoding="utf-8")
    assert not records.is_done(job, second)
    assert records.is_done(job, first)


def test_jobs_at_the_same_time_see_a_gpu_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-0a")
    monkeypatch.setenv("MINDDIFF_ROOT", str(folder.parent))
    body = (
        "import os, time\n"
        "from minddiff_utils import start\n"
        "from minddiff_utils.core import store\n"
        "run = start(profile, subject=subject, overrides=overrides)\n"
        'name, mine = f"{subject}.txt", os.environ["CUDA_VISIBLE_DEVICES"]\n'
        'store.write_text(run.tree.root / "gpu" / name, mine, run=run)\n'
        "deadline = time.time() + 60\n"
        'while len(list((run.tree.root / "gpu").glob("*.txt"))) < 2:\n'
        "    assert time.time() < deadline\n"
        "    time.sleep(0.05)\n"
    )
    own = f"{PARAMETERS}\nsubject: int = 1"
    nbformat.write(notebook(own, body), folder / "01_data_prep.ipynb")
    given = {"subjects": [1, 2]}
    root, profile = folder.parent, load_profile("smoke", given)
    tree = Tree(root, "smoke", root / "nsd")
    both = graph.make_plan(profile, tree, given, source=folder, only=("01",))
    local = partial(runner.local_processes, gpu=True)
    runner.run_plan(both, n_jobs=2, force=False, say=lambda _: None, executor=local)
    seen = [p.read_text() for p in (root / "gpu").glob("*.txt")]
    assert sorted(seen) == ["3", "GPU-0a"]
