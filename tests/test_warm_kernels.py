"""Warm kernels: woken once, replaced when gone, ended with their run."""

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from minddiff_utils.core.errors import RunError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.pipeline import graph, runner, warm_kernels
from tests.small_notebooks import write_notebooks

PARENT = (
    "import os\nfrom pathlib import Path\n"
    'root = Path(os.environ["MINDDIFF_ROOT"])\n'
    '(root / "kernel").write_text(f"{os.getpid()} {os.getppid()}")'
)


@pytest.fixture
def plan(tmp_path: Path) -> graph.Plan:
    """Return the plan of one small notebook that tells its process and its parent."""
    source = tmp_path / "notebooks"
    write_notebooks(source, lambda _: PARENT)
    tree = Tree(tmp_path, "smoke", tmp_path / "nsd")
    profile = load_profile("smoke")
    return graph.make_plan(profile, tree, {}, only=("00",), source=source)


def _processes(plan: graph.Plan) -> tuple[int, int]:
    kernel, parent = (plan.tree.root / "kernel").read_text().split()
    return int(kernel), int(parent)


@pytest.mark.skipif(not warm_kernels.can_be_warm(), reason="no kernel is warm here")
def test_the_kernel_of_a_job_is_its_own_child_and_ends_with_it(
    plan: graph.Plan,
) -> None:
    said: list[str] = []
    runner.run_plan(plan, n_jobs=1, force=False, say=said.append)
    kernel, parent = _processes(plan)
    assert parent != os.getpid()
    assert not psutil.pid_exists(kernel)
    assert not psutil.pid_exists(parent)


_JOBS = """
import time
from minddiff_utils.pipeline import warm_kernels
if __name__ == "__main__":
    warm_kernels.job_context(3)
    print("loads", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not warm_kernels.can_be_warm(), reason="no fork server here")
def test_a_fork_server_that_still_loads_ends_with_its_run(tmp_path: Path) -> None:
    script = tmp_path / "jobs.py"
    script.write_text(_JOBS, encoding="utf-8")
    command = [sys.executable, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"loads\n"
        _wait_until_it_watches(_fork_server(run.pid))
        children = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        # loading takes ten seconds and more
        _, alive = psutil.wait_procs(children, timeout=6)
    assert not alive


def _fork_server(run: int) -> psutil.Process:
    """Wait until the one below the process `run` has its own command line."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for child in psutil.Process(run).children(recursive=True):
            if "forkserver" in " ".join(child.cmdline()):
                return child
        time.sleep(0.01)
    raise AssertionError("no fork server was started")


def _wait_until_it_watches(server: psutil.Process) -> None:
    """Wait until it has its second thread."""
    deadline = time.monotonic() + 30
    while server.num_threads() < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


_LOOKS = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
import psutil
from minddiff_utils.pipeline import warm_kernels
def look():
    loaded = "minddiff_utils.reporting.report_contents" in sys.modules
    return loaded, psutil.Process(os.getppid()).num_threads()
if __name__ == "__main__":
    with ProcessPoolExecutor(1, warm_kernels.job_context(3)) as pool:
        print(*pool.submit(look).result())
"""


@pytest.mark.skipif(not warm_kernels.can_be_warm(), reason="no fork server here")
def test_a_job_is_forked_from_loaded_libraries_and_one_thread(tmp_path: Path) -> None:
    script = tmp_path / "looks.py"
    script.write_text(_LOOKS, encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, check=True)
    assert done.stdout == b"True 1\n"


@pytest.mark.parametrize(
    "error", [EOFError("unexpected EOF"), ConnectionResetError(), BrokenProcessPool()]
)
def test_a_fork_server_that_is_gone_is_one_sentence(
    plan: graph.Plan, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(ProcessPoolExecutor, "submit", refuse)
    with pytest.raises(RunError, match="A process died while 00_insilico_nsd ran"):
        runner.run_plan(plan, n_jobs=1, force=False, say=lambda _: None)


def test_a_warm_kernel_that_died_while_it_waited_is_replaced(
    plan: graph.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = multiprocessing.Pipe()
    there.close()  # as after kill -9
    monkeypatch.setattr(warm_kernels, "_warm", [(None, here)])
    (job,) = plan.jobs
    result = runner.execute(job, plan.tree, plan.source)
    assert result.failure == ""
    assert warm_kernels._warm == []
    assert _processes(plan)[1] == os.getpid()  # started the usual way
