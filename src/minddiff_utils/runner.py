"""The notebooks as a graph: strict papermill, nothing done twice, failures kept.

A notebook runs when its source, the package, the profile or something before it has
changed, or when an artefact it wrote is gone. Its executed copy goes to
`figures/<profile>/notebooks/`; beside it a small record says what made it, how long it
took and how much memory. Place in the flow: layer 10; `cli` calls it.
"""

import ast
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from minddiff_utils import provenance
from minddiff_utils.config import Profile, project_root
from minddiff_utils.errors import ConfigError, RunError
from minddiff_utils.store import Tree, alone

__all__ = [
    "GRAPH",
    "Job",
    "Plan",
    "Result",
    "check_parameters",
    "execute",
    "make_plan",
    "read_parameters",
    "run_plan",
]


@dataclass(frozen=True)
class Notebook:
    """A notebook of the main line."""

    stem: str
    per_subject: bool
    per_shard: bool = False


#: The main line, in order; each needs all before it (of its own subject).
GRAPH = (
    Notebook("00_insilico_nsd", per_subject=False),
    Notebook("01_data_prep", per_subject=True),
    Notebook("02_decoding", per_subject=True),
    Notebook("03_stage1", per_subject=True, per_shard=True),
    Notebook("04_stage2", per_subject=True, per_shard=True),
    Notebook("05_evaluation", per_subject=False),
    Notebook("06_figures", per_subject=False),
)


@dataclass(frozen=True)
class Job:
    """One execution of one notebook."""

    notebook: str
    subject: int | None
    key: str
    needs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """Return the name of the executed copy, without suffix."""
        if self.subject is None:
            return self.notebook
        name = f"{self.notebook}_subj{self.subject:02d}"
        shard = self.parameters.get("shard")
        return f"{name}_shard{shard.replace('/', 'of')}" if shard else name


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, in an order that respects what they need."""

    jobs: tuple[Job, ...]
    tree: Tree
    source: Path


@dataclass(frozen=True)
class Result:
    """How one job ended; `failure` is empty if it went well."""

    name: str
    seconds: float
    peak_mb: float
    failure: str = ""


# --- parameters -------------------------------------------------------------------


def read_parameters(path: Path) -> dict[str, Any]:
    """Return the literals of the one cell tagged `parameters`, by name.

    Raises
    ------
    RunError
        No such cell, several of them, or something in it that is no literal.
    """
    cells = nbformat.read(path, as_version=4).cells
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise RunError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters', but must have "
            "exactly one: tag the cell that holds its parameters."
        )
    found: dict[str, Any] = {}
    try:
        body = ast.parse(tagged[0].source).body
    except SyntaxError as error:
        raise RunError(
            f"{path.name}, parameters cell, line {error.lineno}: {error.msg}, but only "
            "NAME = literal is allowed there: mend that line."
        ) from error
    for node in body:
        target: ast.expr | None = None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        if not isinstance(target, ast.Name):
            raise RunError(
                f"{path.name}, parameters cell, line {node.lineno}: only "
                "NAME = literal is allowed there; move anything else to the next cell."
            )
        found[target.id] = _literal(path, node)
    return found


def _literal(path: Path, node: ast.stmt) -> Any:
    try:
        return ast.literal_eval(getattr(node, "value", ""))
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{path.name}, parameters cell, line {node.lineno}: the value must be a "
            "literal, so that it can be replaced from outside."
        ) from error


def check_parameters(path: Path, given: Mapping[str, Any]) -> None:
    """Refuse parameters that the notebook lacks or that have another type.

    Raises
    ------
    RunError
        As `read_parameters`; or an unknown name or a wrong type.
    """
    known = read_parameters(path)
    for name, value in given.items():
        if name not in known:
            raise RunError(
                f"{path.name} has no parameter {name!r}: it has {', '.join(known)}."
            )
        if type(value) is not type(known[name]):
            raise RunError(
                f"{path.name}: parameter {name!r} must be "
                f"{type(known[name]).__name__}, not {type(value).__name__}."
            )


# --- the plan ---------------------------------------------------------------------


def make_plan(
    profile: Profile,
    tree: Tree,
    overrides: Mapping[str, Any],
    *,
    only: Sequence[str] = (),
    first: str = "",
    n_shards: int = 1,
    source: Path | None = None,
) -> Plan:
    """Return the jobs of `profile`; `only` and `first` are notebook numbers ("04").

    With `n_shards` above 1, notebooks 03 and 04 are that many jobs per subject.

    Raises
    ------
    ConfigError
        A number that no notebook has, or more shards than batches of images.
    RunError
        A notebook is missing or its parameters are not as they must be.
    """
    source = source or project_root() / "notebooks"
    numbers = [n.stem[:2] for n in GRAPH]
    for number in (*only, *([first] if first else [])):
        if number not in numbers:
            raise ConfigError(
                f"No notebook has the number {number!r}: use {', '.join(numbers)}."
            )
    profile.check_shards(n_shards)
    jobs: list[Job] = []
    for notebook in GRAPH:
        if notebook.stem.startswith("00") and profile.simulation is None:
            continue
        before = tuple(jobs)  # shards of one notebook do not need each other
        for part in _parts(notebook, profile, n_shards):
            jobs.append(_job(notebook, part, profile, overrides, before, source))
    kept = [
        job
        for job in jobs
        if (not only or job.notebook[:2] in only) and job.notebook[:2] >= first
    ]
    return Plan(tuple(kept), tree, source)


def _parts(notebook: Notebook, profile: Profile, n_shards: int) -> list[dict[str, Any]]:
    """Return the parameters in which a notebook's jobs differ."""
    if not notebook.per_subject:
        return [{}]
    shards: list[dict[str, Any]] = [{}]
    if notebook.per_shard and n_shards > 1:
        shards = [{"shard": f"{index}/{n_shards}"} for index in range(n_shards)]
    return [{"subject": s, **shard} for s in profile.subjects for shard in shards]


def _job(
    notebook: Notebook,
    part: Mapping[str, Any],
    profile: Profile,
    overrides: Mapping[str, Any],
    before: Sequence[Job],
    source: Path,
) -> Job:
    path = source / f"{notebook.stem}.ipynb"
    if not path.is_file():
        raise RunError(f"{path} is missing: restore the notebook.")
    parameters: dict[str, Any] = {
        "profile": profile.name,
        "overrides": dict(overrides),
        **part,
    }
    check_parameters(path, parameters)
    subject = part.get("subject")
    needs = [b for b in before if subject is None or b.subject in (None, subject)]
    facts = {
        "notebook": provenance.digest_file(path),
        "code": provenance.code_digest(),
        "profile": profile.digest,
        "before": [b.key for b in needs],
        **part,
    }
    names = tuple(b.name for b in needs)
    key = provenance.digest_json(facts)
    return Job(notebook.stem, subject, key, names, parameters)


def is_done(job: Job, tree: Tree) -> bool:
    """Return whether `job` was run with this key and its artefacts are still there."""
    try:
        record = json.loads(_record(job, tree).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(record, dict) or record.get("key") != job.key:
        return False
    artefacts = record.get("artefacts")
    if not isinstance(artefacts, dict):
        return False  # not a record of ours: run again
    return all(_unchanged(Path(p), facts) for p, facts in artefacts.items())


def _unchanged(path: Path, facts: Sequence[int]) -> bool:
    try:
        return _stamp(path) == list(facts)
    except OSError:
        return False


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _record(job: Job, tree: Tree) -> Path:
    return tree.notebooks / f"{job.name}.run.json"


# --- execution --------------------------------------------------------------------


def execute(job: Job, tree: Tree, source: Path) -> Result:
    """Run one notebook in a fresh kernel; the executed copy is kept in any case."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    began = time.time()
    tree.notebooks.mkdir(parents=True, exist_ok=True)
    record, journal = _record(job, tree), tree.notebooks / f".{job.name}.journal"
    record.unlink(missing_ok=True)
    journal.unlink(missing_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "MINDDIFF_JOURNAL": str(journal)}
    os.environ |= {"MINDDIFF_ROOT": str(tree.root), "MINDDIFF_NSD_ROOT": str(tree.nsd)}
    failure = ""
    try:
        papermill.execute_notebook(
            source / f"{job.notebook}.ipynb",
            tree.notebooks / f"{job.name}.ipynb",
            parameters=dict(job.parameters),
            kernel_name="python3",
            cwd=source,
            progress_bar=False,
            extra_arguments=["--log-level=40"],  # errors only, not the start-up hints
        )
    except papermill.PapermillExecutionError as error:
        failure = _describe(job, tree, source, error)
    except DeadKernelError:
        failure = (
            f"the kernel of {job.name} died, which happens when memory runs out (see "
            f"{tree.notebooks / job.name}.ipynb)"
        )
    seconds = time.time() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    if not failure:
        _remember(job, record, journal, seconds, usage)
    journal.unlink(missing_ok=True)
    return Result(job.name, seconds, usage, failure)


def _describe(job: Job, tree: Tree, source: Path, error: Any) -> str:
    cells = nbformat.read(source / f"{job.notebook}.ipynb", as_version=4).cells
    tagged = [
        i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", [])
    ]
    # papermill adds one cell after the parameters
    index = error.cell_index - (1 if error.cell_index > tagged[0] else 0)
    return (
        f"cell {index + 1} of {job.name} failed with {error.ename}: {error.evalue} "
        f"(see {tree.notebooks / job.name}.ipynb)"
    )


def _remember(
    job: Job, record: Path, journal: Path, seconds: float, peak_mb: float
) -> None:
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    # what a notebook kept for a while, such as the state of a long loop, is gone again
    kept = [line for line in sorted(set(lines)) if Path(line).exists()]
    facts = {
        "key": job.key,
        "seconds": round(seconds, 1),
        "peak_mb": round(peak_mb),
        "artefacts": {p: _stamp(Path(p)) for p in kept},
    }
    part = record.with_suffix(".part")
    part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    part.replace(record)


def run_plan(
    plan: Plan, *, n_jobs: int, force: bool, say: Callable[[str], None]
) -> list[Result]:
    """Run what is not up to date, up to `n_jobs` notebooks at once.

    Raises
    ------
    RunError
        A notebook failed; the sentence names the cell and how to continue.
    StoreError
        Another run is at work on the same profile below the same root.
    """
    with alone(plan.tree.root / "data" / plan.tree.profile_name):
        return _run_alone(plan, n_jobs=n_jobs, force=force, say=say)


def _run_alone(
    plan: Plan, *, n_jobs: int, force: bool, say: Callable[[str], None]
) -> list[Result]:
    todo = [j for j in plan.jobs if force or not is_done(j, plan.tree)]
    for job in plan.jobs:
        if job not in todo:
            say(f"{job.name}: up to date")
    results: list[Result] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_jobs, context, max_tasks_per_child=1) as pool:
        for result in _in_order(todo, plan, pool, say):
            results.append(result)
            if result.failure:
                pool.shutdown(cancel_futures=True)
                raise RunError(
                    f"{result.failure}; mend it and give the same command again: what "
                    "is done is kept."
                )
            done = f"{len(results)} of {len(todo)}"
            cost = f"{result.seconds:.0f} s, {result.peak_mb:.0f} MB"
            say(f"{result.name}: done in {cost} ({done})")
    return results


def _in_order(
    todo: Sequence[Job],
    plan: Plan,
    pool: ProcessPoolExecutor,
    say: Callable[[str], None],
) -> Iterator[Result]:
    waiting = {job.name: job for job in todo}
    running: dict[Future[Result], str] = {}
    while waiting or running:
        open_names = set(waiting) | set(running.values())
        ready = [j for j in waiting.values() if not open_names & set(j.needs)]
        for job in ready:
            del waiting[job.name]
            running[pool.submit(execute, job, plan.tree, plan.source)] = job.name
            say(f"{job.name}: queued")
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            name = running.pop(future)
            try:
                result = future.result()
            except BrokenProcessPool as error:
                raise RunError(
                    f"A process died while {name} ran, which happens when memory runs "
                    "out: lower --jobs and give the same command again; what is done "
                    "is kept."
                ) from error
            yield result
