"""The notebooks as a graph: strict papermill, nothing done twice, failures kept.

A notebook runs when its source, the package, the profile or something before it has
changed, or when an artefact it wrote is gone. Its executed copy goes to
`figures/<profile>/notebooks/`; beside it a small record says what made it, how long it
took and how much memory. Place in the flow: layer 10; `cli` calls it.
"""

import ast
import json
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import nbformat

from minddiff_utils.core import provenance
from minddiff_utils.core.config import Profile, project_root
from minddiff_utils.core.errors import ConfigError, RunError, system_words
from minddiff_utils.core.locks import alone, sweep
from minddiff_utils.core.reading import reading
from minddiff_utils.core.run import Tree, expected_origin, judge_files, network_files
from minddiff_utils.core.surroundings import (
    ended_if_cut_off,
    environment,
    interrupts_held,
    peak_bytes,
    settled,
    visible_gpus,
)
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.pipeline import kernels

__all__ = [
    "GRAPH",
    "Engine",
    "Job",
    "Plan",
    "Result",
    "Say",
    "Workers",
    "check_parameters",
    "execute",
    "finished_since",
    "is_done",
    "local_processes",
    "make_plan",
    "process_died",
    "read_parameters",
    "record_stamp",
    "run_plan",
    "why",
]

#: Tells the user one line.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Notebook:
    """A notebook of the main line."""

    stem: str
    per_subject: bool
    per_shard: bool = False
    shows_study: bool = False
    shows_figures: bool = False  # of the notebooks before it


#: The main line, in order; each needs all before it (of its own subject).
GRAPH = (
    Notebook("00_insilico_nsd", per_subject=False),
    Notebook("01_data_prep", per_subject=True),
    Notebook("02_decoding", per_subject=True),
    Notebook("03_stage1", per_subject=True, per_shard=True),
    Notebook("04_stage2", per_subject=True, per_shard=True, shows_study=True),
    Notebook("05_evaluation", per_subject=False),
    Notebook("06_figures", per_subject=False, shows_figures=True),
)


@dataclass(frozen=True)
class Job:
    """One execution of one notebook; `key` is the digest of `facts`.

    `result` is that of the facts on which its results depend, the drawing left out:
    what comes after it depends on that alone, unless it shows its figures.
    """

    notebook: str
    subject: int | None
    key: str
    needs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(hash=False)
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def result(self) -> str:
        """Return the digest of the facts but what only draws."""
        return _result_key(self.facts)

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
    """How one job ended; `failure` is empty if it went well.

    `where` names the worker that did it, where there are several machines.
    """

    name: str
    seconds: float
    peak_mb: float
    failure: str = ""
    where: str = ""


# --- parameters -------------------------------------------------------------------


def read_parameters(path: Path) -> dict[str, Any]:
    """Return the literals of the one cell tagged `parameters`, by name.

    Raises
    ------
    RunError
        No such cell, several of them, or something in it that is no literal.
    """
    no_notebook = "is no notebook that can be read"
    with reading(path, RunError, found=no_notebook, remedy="restore it"):
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
    place = (source, tree)
    for notebook in GRAPH:
        if notebook.stem.startswith("00") and profile.simulation is None:
            continue
        before = tuple(jobs)  # shards of one notebook do not need each other
        for part in _parts(notebook, profile, n_shards):
            jobs.append(_job(notebook, part, profile, overrides, before, place))
    kept = [
        job
        for job in jobs
        if (not only or job.notebook[:2] in only) and job.notebook[:2] >= first
    ]
    if not kept:
        raise ConfigError(
            f"There is no notebook to run: --only {','.join(only) or 'none'} and --from"
            f" {first or 'none'} leave nothing of profile {profile.name}; change --only"
            " or --from."
        )
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
    place: tuple[Path, Tree],
) -> Job:
    source, tree = place
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
        "code": provenance.code_digest(notebook.stem, drawing=False),
        "drawing": provenance.code_digest(notebook.stem),
        "profile": profile.part_digest(notebook.stem),
        "files": _files(notebook.stem[:2], subject, profile, tree),
        "before": {
            b.name: b.key if notebook.shows_figures else b.result for b in needs
        },
        **part,
    }
    if notebook.shows_study:
        facts["study"] = _folder_digest(tree.study)
    names = tuple(b.name for b in needs)
    key = provenance.digest_json(facts)
    return Job(notebook.stem, subject, key, names, parameters, facts)


def _result_key(facts: Mapping[str, Any]) -> str:
    return provenance.digest_json({k: v for k, v in facts.items() if k != "drawing"})


def _files(
    number: str, subject: int | None, profile: Profile, tree: Tree
) -> dict[str, str]:
    """Return the stamps of the files that a notebook reads and no notebook writes.

    A simulated tree is written by notebook 00, whose record knows its files.
    """
    kind = profile.models.backbone
    files: tuple[Path, ...] = ()
    if number in ("02", "03", "04", "05"):
        files = network_files(tree.models, kind)
    if number == "05":
        files += judge_files(tree.models, kind)
    found = provenance.stamps(files, tree.models)
    simulated = profile.simulation is not None
    if simulated and expected_origin(profile, tree) == "in silico":
        return found
    data, nsd = profile.data, NsdTree(tree.nsd, profile.data.betas_version)
    if number == "01" and subject is not None:
        read = nsd.inputs(subject, data.session_numbers, data.voxels)
        found |= provenance.stamps(read, tree.nsd)
    if number == "06":
        for each in profile.subjects:
            found |= provenance.stamps(nsd.map_inputs(each), tree.nsd)
    return found


def _folder_digest(folder: Path) -> str:
    """Return a digest of the files in `folder`, manifests aside; they hold times."""
    files = (p for p in folder.glob("*") if p.is_file() and ".manifest." not in p.name)
    return provenance.digest_paths(sorted(files), folder)


# --- what is up to date -----------------------------------------------------------


def is_done(job: Job, tree: Tree) -> bool:
    """Return whether `job` was run with this key and its artefacts are still there."""
    return not why(job, tree)


def why(job: Job, tree: Tree) -> str:
    """Return why `job` has to run, in a few words; empty if it is up to date."""
    path = _record(job, tree)
    if not path.is_file():
        copy = tree.notebooks / f"{job.name}.ipynb"
        return "did not finish" if copy.exists() else "new"
    record = _read_record(path)
    if record is None:
        return "its record is damaged"
    if record["key"] != _expected(job, tree):
        return _changes(job, record.get("facts"))
    if record.get("simulated", {}) != (now := _simulated(job, tree)):
        return _files_changed(now, record.get("simulated"))
    for name, stamp in record["artefacts"].items():
        change = _change(tree.root / name, stamp)
        if change:
            return f"{Path(name).name} {change}"
    return ""


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return the record at `path`, None unless it is whole and one of ours."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("artefacts"), dict)
    return record if whole and "key" in record else None


def _changes(job: Job, old: object) -> str:
    """Return what has changed since: the job's own facts, else those before it."""
    if not isinstance(old, dict):
        return "its record is of an earlier version"
    own = [f for f in job.facts if f != "before" and old.get(f) != job.facts[f]]
    if "code" in own:
        own.remove("drawing")  # which holds all code
    if own:
        told = [
            _files_changed(job.facts[f], old.get(f)) if f == "files" else f"{f} changed"
            for f in sorted(own, reverse=True)
        ]
        return ", ".join(told)
    before, was = job.facts.get("before", {}), old.get("before")
    was = was if isinstance(was, dict) else {}
    for name, key in before.items():  # in order: the first has changed by itself
        if was.get(name) != key:
            return f"{name} {'changed' if name in was else 'is new'}"
    gone = [name for name in was if name not in before]
    return f"{gone[0]} is no more" if gone else "its record is of an earlier version"


def _files_changed(now: Mapping[str, str], old: object) -> str:
    """Return what happened to the first file that is not as it was."""
    was = old if isinstance(old, dict) else {}
    other = sorted(k for k in now.keys() | was.keys() if now.get(k) != was.get(k))
    word = "is gone" if other[0] not in now else "changed"
    word = word if other[0] in was else "is new"
    more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
    return f"{other[0]} {word}{more}"


def _change(path: Path, known: object) -> str:
    """Return what happened to an artefact since, empty if nothing did.

    Content decides: a bad disk changes no time, and a copied tree has other times.
    """
    size, digest = known if isinstance(known, list) and len(known) == 2 else (-1, "")
    try:
        if path.stat().st_size != size or provenance.digest_file(path) != digest:
            return "was changed or is damaged"
    except OSError:
        return "is gone"
    return ""


def _content(path: Path) -> list[Any]:
    """Return size in bytes and digest of the file at `path`."""
    return [path.stat().st_size, provenance.digest_file(path)]


def _stamp(path: Path) -> list[int]:
    """Return size in bytes and time of change in ns of the file at `path`."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def finished_since(job: Job, tree: Tree, stamp: Sequence[int]) -> Result | None:
    """Return the result of `job` if it was done after its record had this stamp.

    `stamp` is what `record_stamp` said then.
    """
    path = _record(job, tree)
    if not is_done(job, tree) or _stamp(path) == list(stamp):
        return None
    record = _read_record(path) or {}
    return Result(job.name, record.get("seconds", 0.0), record.get("peak_mb", 0.0))


def record_stamp(job: Job, tree: Tree) -> list[int]:
    """Return the stamp of the record of `job`, empty where there is none."""
    try:
        return _stamp(_record(job, tree))
    except OSError:
        return []


def _record(job: Job, tree: Tree) -> Path:
    return tree.notebooks / f"{job.name}.run.json"


# --- execution --------------------------------------------------------------------


def execute(job: Job, tree: Tree, source: Path) -> Result:
    """Run one notebook in a fresh kernel; the executed copy is kept if it is whole."""
    began = time.time()
    record, journal = _record(job, tree), tree.notebooks / f".{job.name}.journal"
    try:
        tree.notebooks.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)
        failure = _play(job, tree, source, journal)
        usage = peak_bytes(resource.RUSAGE_CHILDREN) / 2**20
        if not failure:
            _remember(job, tree, journal, time.time() - began, usage)
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
                _unformatted(source / f"{job.notebook}.ipynb"),
                _unformatted(tree.notebooks / f"{job.name}.ipynb"),
                parameters=dict(job.parameters),
                kernel_name="python3",
                cwd=source,
                progress_bar=False,
                kernel_manager_class=kernels.StandByKernelManager,
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


def _before(job: Job, tree: Tree) -> dict[str, str]:
    """Return the keys of the jobs before this one as they have truly been run.

    A job that is run alone, while one before it is not up to date, has read what that
    one left: it must not pass for current once that one has been run again.
    """
    found = {}
    for name, key in job.facts.get("before", {}).items():
        record = _read_record(tree.notebooks / f"{name}.run.json") or {}
        keys = [record.get("key", _NEVER), record.get("result", _NEVER)]
        found[name] = key if key in keys else keys[0]
    return found


def _expected(job: Job, tree: Tree) -> str:
    """Return the key that a current record has.

    A job before this one that no runner has ever run is `_NEVER` in it.
    """
    before = job.facts.get("before", {})
    lacking = {n for n in before if not (tree.notebooks / f"{n}.run.json").exists()}
    if not lacking:
        return job.key
    known = {name: _NEVER if name in lacking else key for name, key in before.items()}
    return provenance.digest_json(dict(job.facts) | {"before": known})


#: In the place of the key of a job that has no record.
_NEVER = "none"


def _simulated(job: Job, tree: Tree) -> dict[str, str]:
    """Return the stamps of the tree that notebook 00 wrote, nothing for the others."""
    files = NsdTree(tree.nsd).files() if job.notebook.startswith("00") else ()
    return provenance.stamps(files, tree.nsd)


def _inside(path: Path, root: Path) -> str:
    """Return `path` as seen from `root`: a copied tree is judged by its own files."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _remember(
    job: Job, tree: Tree, journal: Path, seconds: float, peak_mb: float
) -> None:
    record = _record(job, tree)
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    # what a notebook kept for a while, such as the state of a long loop, is gone again
    kept = [path for path in map(Path, sorted(set(lines))) if path.exists()]
    known = dict(job.facts) | {"before": _before(job, tree)}
    facts = {
        "key": provenance.digest_json(known) if job.facts else job.key,
        "result": _result_key(known),
        "facts": known,
        "simulated": _simulated(job, tree),
        "seconds": round(seconds, 1),
        "peak_mb": round(peak_mb),
        "artefacts": {_inside(p, tree.root): _content(p) for p in kept},
    }
    part = record.with_suffix(".part")
    part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    part.replace(record)


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
Engine = Callable[[Plan, int, Say], AbstractContextManager[Workers]]


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
        "--jobs and give the same command again; what is done is kept."
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
            context = kernels.job_context(len(plan.jobs))
        pool = ProcessPoolExecutor(
            n_jobs,
            context,
            initializer=kernels.begin_job,
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
    engine: Engine = local_processes,
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
        with engine(replace(plan, jobs=tuple(todo)), n_jobs, say) as workers:
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
                f"{result.failure}; mend it and give the same command again: what is "
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
