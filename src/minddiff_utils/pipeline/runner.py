"""Runs the notebooks of a plan: strict papermill, nothing done twice, failures kept.

An executed copy goes to `figures/<profile>/notebooks/`; `records` says what is up to
date, and `graph` what is to be run in which order.
"""

import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import nbformat

from minddiff_utils.core.errors import RunError, system_words
from minddiff_utils.core.locks import alone, sweep
from minddiff_utils.core.places import notebook_path
from minddiff_utils.core.run import Tree
from minddiff_utils.core.surroundings import (
    ended_if_cut_off,
    environment,
    interrupts_held,
    peak_bytes,
    settled,
    visible_gpus,
)
from minddiff_utils.pipeline import warm_kernels
from minddiff_utils.pipeline.graph import Job, Plan
from minddiff_utils.pipeline.records import Result, is_done, record_path, remember

__all__ = [
    "Executor",
    "Say",
    "Workers",
    "execute",
    "local_processes",
    "process_died",
    "run_plan",
]

#: Tells the user one line.
Say = Callable[[str], None]


# --- execution --------------------------------------------------------------------


def execute(job: Job, tree: Tree, source: Path) -> Result:
    """Run one notebook in a fresh kernel; the executed copy is kept if it is whole."""
    began = time.time()
    record, journal = record_path(job, tree), tree.notebooks / f".{job.name}.journal"
    try:
        tree.notebooks.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)
        failure = _play(job, tree, source, journal)
        usage = peak_bytes(resource.RUSAGE_CHILDREN) / 2**20
        if not failure:
            remember(job, tree, journal, time.time() - began, usage)
        journal.unlink(missing_ok=True)
    except OSError as error:  # not of a cell: its copy and its record are ours
        usage = 0.0
        for part in (tree.notebooks / f"{job.name}.ipynb", record.with_suffix(".part")):
            with suppress(OSError):
                part.unlink()
        failure = f"{job.name} could not be run{_kept_where(error, tree.notebooks)}"
    return Result(job.name, time.time() - began, usage, failure)


def _kept_where(error: OSError, folder: Path) -> str:
    """Return what failed: what is kept in `folder`, unless another file is named."""
    words, name = system_words(error), error.filename
    if isinstance(name, str) and folder not in Path(name).parents:
        return f" ({words}: {name})"
    return f" and kept in {folder} ({words})"


def _play(job: Job, tree: Tree, source: Path, journal: Path) -> str:
    """Run the notebook's cells; return what failed, empty if nothing did."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from zmq import ZMQError

    variables = {"MINDDIFF_JOURNAL": str(journal), "MINDDIFF_ROOT": str(tree.root)}
    variables |= {"MINDDIFF_NSD_ROOT": str(tree.nsd)}
    try:
        with settled(), environment(variables):
            papermill.execute_notebook(
                _unformatted(notebook_path(job.notebook, source)),
                _unformatted(tree.notebooks / f"{job.name}.ipynb"),
                parameters=dict(job.parameters),
                kernel_name="python3",
                cwd=notebook_path(job.notebook, source).parent,
                progress_bar=False,
                kernel_manager_class=warm_kernels.WarmKernelManager,
                # no start-up hints, nor the interrupt that ends each kernel
                extra_arguments=["--log-level=50"],
            )
    except papermill.PapermillExecutionError as error:
        return _describe(job, tree, source, error)
    except DeadKernelError:
        return (
            f"the kernel of {job.name} died, which happens when memory runs out (see "
            f"{tree.notebooks / job.name}.ipynb)"
        )
    except (RuntimeError, ZMQError) as error:  # before the first cell
        words = " ".join(str(error).split()) or type(error).__name__
        return f"the kernel of {job.name} could not be started ({words})"
    return ""


def _unformatted(path: Path) -> str:
    """Return `path` so that papermill, which formats it, gives it back as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _describe(job: Job, tree: Tree, source: Path, error: Any) -> str:
    cells = nbformat.read(notebook_path(job.notebook, source), as_version=4).cells
    tagged = [
        i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", [])
    ]
    # papermill adds one cell after the parameters
    index = error.cell_index - (1 if error.cell_index > tagged[0] else 0)
    return (
        f"cell {index + 1} of {job.name} failed with {error.ename}: {error.evalue} "
        f"(see {tree.notebooks / job.name}.ipynb)"
    )


# --- running a plan ---------------------------------------------------------------


class Workers(Protocol):
    """What jobs are given to: processes of this machine, or workers of many."""

    @property
    def losses(self) -> tuple[type[Exception], ...]:
        """Return what a future raises where a job was lost, not where it failed."""
        ...

    def submit(self, job: Job) -> "Future[Result]":
        """Start `job` and return at once."""
        ...

    def explain(self, name: str, error: Exception, /) -> str:
        """Return the sentence on the loss of the job `name`: what to do."""
        ...


#: Opens the workers for a plan, a number of jobs at once and what tells the user.
Executor = Callable[[Plan, int, Say], AbstractContextManager[Workers]]


class _Processes:
    losses = (BrokenProcessPool,)

    def __init__(
        self, pool: ProcessPoolExecutor, plan: Plan, gpus: Sequence[str]
    ) -> None:
        self._pool, self._plan = pool, plan
        self._last: dict[str, Future[Result] | None] = dict.fromkeys(gpus)

    def submit(self, job: Job) -> Future[Result]:
        tree, source = self._plan.tree, self._plan.source
        # a run has no more jobs at once than GPUs, so one of them is free
        free = (g for g, last in self._last.items() if last is None or last.done())
        gpu = next(free, None)
        try:
            with interrupts_held():
                future = self._pool.submit(_execute_on, gpu, job, tree, source)
            if gpu is not None:
                self._last[gpu] = future
            return future
        except (BrokenProcessPool, EOFError, ConnectionError) as error:
            # what forks the jobs is gone
            raise RunError(process_died(job.name)) from error

    def explain(self, name: str, _error: Exception, /) -> str:
        return process_died(name)


def _execute_on(gpu: str | None, job: Job, tree: Tree, source: Path) -> Result:
    """Run a job in this process, its own, on one GPU; None: as it finds the machine."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first used
    return execute(job, tree, source)


def process_died(name: str) -> str:
    """Return the sentence on a process that died below the job `name`."""
    return (
        f"A process died while {name} ran, which happens when memory runs out: lower "
        "--jobs and run the same command again; what is done is kept."
    )


@contextmanager
def local_processes(
    plan: Plan, n_jobs: int, _say: Say, *, gpu: bool = False
) -> Iterator[Workers]:
    """Give each job a process of its own on this machine, up to `n_jobs` at once.

    With `gpu`, several jobs at once have a GPU each, which no other sees.

    Raises
    ------
    ConfigError
        There are fewer GPUs than `n_jobs`.
    """
    gpus = visible_gpus(n_jobs) if gpu and n_jobs > 1 else ()
    with settled():
        with interrupts_held():
            context = warm_kernels.job_context(len(plan.jobs))
        pool = ProcessPoolExecutor(
            n_jobs,
            context,
            initializer=warm_kernels.begin_job,
            initargs=(dict(os.environ),),
            max_tasks_per_child=1,
        )
        with pool, ended_if_cut_off(pool):
            yield _Processes(pool, plan, gpus)


def run_plan(
    plan: Plan,
    *,
    n_jobs: int,
    force: bool,
    say: Say,
    executor: Executor = local_processes,
    before: Callable[[Sequence[Job]], None] = lambda _: None,
) -> list[Result]:
    """Run what is not up to date, up to `n_jobs` notebooks at once.

    `before` is given the jobs that are to run; an error of its stops them all.

    Raises
    ------
    RunError
        A notebook failed or was lost; the sentence says how to continue.
    StoreError
        Another run is at work on the same profile below the same root.
    """
    with alone(plan.tree.root / "data" / plan.tree.profile_name):
        for folder in (
            plan.tree.root / "data" / plan.tree.profile_name,
            plan.tree.figures,
        ):
            sweep(folder)
        todo = [j for j in plan.jobs if force or not is_done(j, plan.tree)]
        for job in plan.jobs:
            if job not in todo:
                say(f"{job.name}: up to date")
        if not todo:
            return []
        before(todo)
        with executor(replace(plan, jobs=tuple(todo)), n_jobs, say) as workers:
            return _run_all(todo, workers, n_jobs, say)


def _run_all(
    todo: Sequence[Job], workers: Workers, n_jobs: int, say: Say
) -> list[Result]:
    results: list[Result] = []
    for result in _in_order(todo, workers, n_jobs, say):
        results.append(result)
        if result.failure:
            say(f"{result.name}: failed")
            raise RunError(
                f"{result.failure}; mend it and run the same command again: what is "
                "done is kept."
            )
        done = f"{len(results)} of {len(todo)}"
        cost = f"{result.seconds:.0f} s, {result.peak_mb:.0f} MB"
        where = f" by {result.where}" if result.where else ""
        say(f"{result.name}: done in {cost}{where} ({done})")
    return results


def _in_order(
    todo: Sequence[Job], workers: Workers, n_jobs: int, say: Say
) -> Iterator[Result]:
    waiting = {job.name: job for job in todo}
    running: dict[Future[Result], str] = {}
    while waiting or running:
        open_names = set(waiting) | set(running.values())
        ready = [j for j in waiting.values() if not open_names & set(j.needs)]
        # no more than can run: a job that waits on a worker would be lost with it
        for job in ready[: n_jobs - len(running)]:
            del waiting[job.name]
            running[workers.submit(job)] = job.name
            say(f"{job.name}: queued")
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            name = running.pop(future)
            try:
                result = future.result()
            except workers.losses as error:
                raise RunError(workers.explain(name, error)) from error
            yield result
