"""Workers of dask do what processes here do, and a lost one loses nothing."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from minddiff_utils.core.errors import ConfigError, RunError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.pipeline import graph, records, runner, worker
from minddiff_utils.pipeline.cluster import Queue, dask_workers, read_queue
from tests.small_notebooks import write_notebooks

#: The first time the notebook waits for its end, which the test brings about.
WAITS_ONCE = """
import os, time
from minddiff_utils import start
run = start(profile, subject=subject, shard=shard)
marker = run.tree.root / "marker"
if not marker.exists():
    marker.write_text(str(os.getpid()))
    time.sleep(300)
"""
WRITES = """
from minddiff_utils import start
from minddiff_utils.core import store
run = start(profile, subject=subject, shard=shard)
store.write_text(run.tree.root / "made" / f"{run.shard[0]}.txt", "done", run=run)
"""


def _plan(root: Path, cell: str, n_shards: int = 1) -> graph.Plan:
    """Return the plan of one notebook of this cell, as 03_stage1."""
    source = root / "notebooks"
    write_notebooks(source, lambda _: cell)
    profile = load_profile("smoke", {"models.batch_size": 2})
    tree = Tree(root, "smoke", root / "nsd")
    given = {"models.batch_size": 2}
    options = {"only": ("03",), "n_shards": n_shards, "source": source}
    return graph.make_plan(profile, tree, given, **options)


def _made(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((root / "made").glob("*.txt"))}


def _run(plan: graph.Plan, executor: runner.Executor, n_jobs: int = 1) -> list[str]:
    said: list[str] = []
    runner.run_plan(
        plan, n_jobs=n_jobs, force=False, say=said.append, executor=executor
    )
    return said


@pytest.mark.timeout(900)
def test_workers_of_dask_leave_the_files_and_records_of_local_processes(
    tmp_path: Path,
) -> None:
    writes = WRITES.replace(
        "run = start(profile,", "run = start(profile, overrides=overrides,"
    )
    roots = {name: tmp_path / name for name in ("local", "dask")}
    plans = {name: _plan(r, writes, n_shards=2) for name, r in roots.items()}
    _run(plans["local"], runner.local_processes)
    said = _run(plans["dask"], dask_workers, n_jobs=2)
    assert _made(roots["dask"]) == _made(roots["local"])
    assert len(_made(roots["dask"])) == 2
    ends = [line for line in said if " by worker " in line]
    assert [line.rpartition(" (")[2] for line in ends] == ["1 of 2)", "2 of 2)"]
    for job in plans["dask"].jobs:
        assert records.is_done(job, plans["dask"].tree)
    assert [line.split(": ")[1] for line in _run(plans["dask"], dask_workers)] == [
        "up to date",
        "up to date",
    ]


@pytest.mark.timeout(900)
def test_a_job_whose_worker_is_killed_is_done_by_another(tmp_path: Path) -> None:
    plan = _plan(tmp_path, WAITS_ONCE + WRITES)
    killer = threading.Thread(target=_kill_worker, args=(tmp_path / "marker",))
    killer.start()
    said = _run(plan, dask_workers)
    killer.join()
    assert _made(tmp_path) == {"0.txt": b"done"}
    assert [line for line in said if "lost with its worker" in line]
    assert said[-1].endswith("(1 of 1)")


def _kill_worker(marker: Path) -> None:
    """Kill the worker above the kernel that wrote its number into `marker`."""
    while not (marker.exists() and marker.read_text()):
        time.sleep(0.1)
    kernel = psutil.Process(int(marker.read_text()))
    above = [p for p in kernel.parents() if "forkserver" not in " ".join(p.cmdline())]
    jobs = [p for p in above if "minddiff_utils.pipeline.worker" in p.cmdline()]
    jobs[-1].parent().kill()


@pytest.mark.timeout(900)
def test_a_notebook_that_fails_is_said_at_once_and_not_tried_again(
    tmp_path: Path,
) -> None:
    count = (
        "from minddiff_utils import start\n"
        "run = start(profile)\n"
        'with (run.tree.root / "tries").open("a") as file:\n    file.write("x")\n'
        'raise ValueError("no")'
    )
    plan = _plan(tmp_path, count)
    with pytest.raises(RunError, match="cell 2 of 03_stage1_subj01 failed"):
        _run(plan, dask_workers)
    assert (tmp_path / "tries").read_text() == "x"


def test_a_machine_with_other_code_or_files_refuses_the_job(tmp_path: Path) -> None:
    plan = _plan(tmp_path, WRITES)
    (job,) = plan.jobs
    (tmp_path / "data" / "smoke").mkdir(parents=True)
    order = {"package": worker.__version__, "code": worker.provenance.code_digest()}
    assert worker._difference(order, job, plan.tree, plan.source) == ""
    other = worker._difference(order | {"code": "x"}, job, plan.tree, plan.source)
    assert "install the same there" in other
    changed = replace(job, facts=dict(job.facts) | {"notebook": "x"})
    assert "has another" in worker._difference(order, changed, plan.tree, plan.source)
    elsewhere = replace(plan.tree, root=tmp_path / "not_mounted")
    assert "share the file system" in worker._difference(
        order, job, elsewhere, plan.source
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("system: [", "not valid YAML"),
        ("system: slurm", "must have two keys: system"),
        ("system: moon\noptions: {}", "system in the cluster file"),
        ("system: slurm\noptions: [1]", "must be NAME: VALUE"),
        ("system: slurm\noptions: {coers: 4}", "sets the option 'coers'"),
        ("system: slurm\noptions: {n_workers: 4}", "sets the option 'n_workers'"),
        ("system: slurm\noptions: {job_cls: x}", "sets the option 'job_cls'"),
        ("system: !!python/name:os.system\noptions: {}", "not valid YAML"),
    ],
)
def test_a_cluster_file_names_a_queue_and_its_options_and_no_code(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_queue(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("system", ["slurm", "pbs", "sge", "lsf"])
def test_a_cluster_file_of_each_queue_is_read(tmp_path: Path, system: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"system: {system}\noptions: {{cores: 4, memory: 16GB}}")
    assert read_queue(path) == Queue(system, {"cores": 4, "memory": "16GB"})


def test_a_scheduler_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    plan = _plan(tmp_path, WRITES)
    with (
        pytest.raises(RunError, match="No dask scheduler can be reached"),
        dask_workers(plan, 1, lambda _: None, scheduler="nowhere:1x"),
    ):
        pass
