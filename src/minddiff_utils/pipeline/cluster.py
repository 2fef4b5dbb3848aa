"""Jobs on many machines: workers of dask.distributed instead of processes here.

Dask decides which worker gets a job, and gives it to another when a worker is lost. The
worker starts a process that runs the notebook as on one machine, so that records and
results are the same, and that ends when its worker does (`worker`). Not for choosing
what runs, or in which order: `runner.run_plan` takes `dask_workers` as its executor.
"""

import inspect
import logging
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import distributed

from minddiff_utils.core.errors import ConfigError, RunError, check_choice
from minddiff_utils.core.profile_files import parse_yaml
from minddiff_utils.core.reading import reading
from minddiff_utils.core.surroundings import interrupts_held, settled, visible_gpus
from minddiff_utils.pipeline.graph import Job, Plan
from minddiff_utils.pipeline.records import Result
from minddiff_utils.pipeline.runner import Say, Workers, process_died
from minddiff_utils.pipeline.worker import order_of, run_order

__all__ = ["Queue", "dask_workers", "read_queue"]

#: dask-jobqueue's classes, by the word in a cluster file.
_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
}
#: What no cluster file may set: objects, and what is ours, as one job of the queue is
#: one worker and --jobs says how many.
_OURS = frozenset(
    {"self", "args", "kwargs", "job_kwargs", "base_class_kwargs", "scheduler", "name"}
    | {"n_workers", "processes", "job_cls", "scheduler_cls", "loop", "asynchronous"}
)
#: How often a job is given to another worker after its own was lost.
_N_RETRIES = 2
_SETTINGS = {
    "distributed.scheduler.allowed-failures": _N_RETRIES,
    "distributed.scheduler.http.routes": [],  # nobody looks on
    "distributed.worker.http.routes": [],
    # a process on a local worker sees the variables that one of --executor local sees
    "distributed.nanny.pre-spawn-environ": {},
}
#: Seconds until a queue is asked for a worker in place of a lost one: dask itself waits
#: for 15 s whether it comes back.
_REPLACED_AFTER_S = 20.0


# --- the cluster file -------------------------------------------------------------


@dataclass(frozen=True)
class Queue:
    """A queue whose jobs are our workers, and what dask-jobqueue is told of it."""

    system: str
    options: Mapping[str, Any]


def read_queue(path: Path) -> Queue:
    """Return what the YAML file at `path` says: `system` and `options`.

    Raises
    ------
    ConfigError
        The file cannot be read, or has other keys, an unknown system, or an option
        that dask-jobqueue does not have or that is not the file's to set.
    """
    what = "The cluster file"
    with reading(path, ConfigError, found="is no text", remedy="mend it", what=what):
        text = path.read_text(encoding="utf-8")
    content = parse_yaml(text, f"The cluster file {path}")
    if not isinstance(content, dict) or set(content) != {"system", "options"}:
        raise ConfigError(
            f"The cluster file {path} must have two keys: system, one of"
            f" {', '.join(_SYSTEMS)}, and options, such as cores and memory."
        )
    system, options = content["system"], content["options"]
    check_choice(system, list(_SYSTEMS), f"system in the cluster file {path}")
    if not isinstance(options, dict):
        raise ConfigError(
            f"options in the cluster file {path} must be NAME: VALUE, as cores: 4."
        )
    known = _option_names(system)
    for name in options:
        if name not in known:
            raise ConfigError(
                f"The cluster file {path} sets the option {name!r}, but may set only"
                f" {', '.join(sorted(known))}."
            )
    return Queue(system, options)


def _option_names(system: str) -> set[str]:
    """Return the names of the options that a cluster file may set."""
    cluster = _queue_class(system)
    inits = [c.__init__ for c in (cluster, *cluster.job_cls.__mro__)]
    return {n for i in inits for n in inspect.signature(i).parameters} - _OURS


def _queue_class(system: str) -> Any:
    import dask_jobqueue

    return getattr(dask_jobqueue, _SYSTEMS[system])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


# --- opening workers --------------------------------------------------------------


@contextmanager
def dask_workers(
    plan: Plan,
    n_jobs: int,
    say: Say,
    *,
    scheduler: str = "",
    queue: Queue | None = None,
    gpu: bool = False,
) -> Iterator[Workers]:
    """Open `n_jobs` workers on this machine or in a queue, or join a scheduler.

    Parameters
    ----------
    scheduler : str
        Address of a running scheduler, such as tls://10.0.0.1:8786.
    queue : Queue
        Where each worker is a job of its own.
    gpu : bool
        Whether each worker needs a GPU of its own.

    Raises
    ------
    ConfigError
        There are fewer GPUs than workers, or the queue's options are wrong.
    RunError
        The scheduler cannot be reached, or its workers offer no GPU.
    """
    gpus: Sequence[str] = ()
    if scheduler:
        opened = _joined(scheduler, gpu=gpu)
    elif queue is not None:
        folder = plan.tree.root / "data" / plan.tree.profile_name
        opened = _queued(queue, n_jobs, folder, gpu=gpu)
    else:
        gpus = visible_gpus(n_jobs) if gpu else ()
        dask.config.refresh(paths=[], env={})  # no settings of the user's
        opened = _local(n_jobs, gpu=gpu)
    with dask.config.set(_SETTINGS), opened as client:
        workers = _DaskWorkers(client, plan, say, gpus=gpus)
        workers.resources = {"GPU": 1} if gpu else {}
        workers.n_kept = n_jobs if queue is not None else 0
        try:
            yield workers
        finally:
            workers.is_open = False
            if client.status == "running":
                client.unsubscribe_topic("all")


@contextmanager
def _local(n_jobs: int, *, gpu: bool) -> Iterator[distributed.Client]:
    """Open workers on this machine: on its own address, for its own user only."""
    with settled(), tempfile.TemporaryDirectory(prefix="minddiff-") as folder:
        with interrupts_held():
            cluster = distributed.LocalCluster(
                n_workers=n_jobs,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                security=True,  # else any user of this machine could send code
                silence_logs=logging.CRITICAL,  # what is lost, we say
                memory_limit=None,
                local_directory=folder,
                resources={"GPU": 1} if gpu else None,
            )
        with cluster, distributed.Client(cluster, set_as_default=False) as client:
            yield client


@contextmanager
def _queued(
    queue: Queue, n_jobs: int, folder: Path, *, gpu: bool
) -> Iterator[distributed.Client]:
    """Open workers that are jobs of a queue; `folder`, seen by all, has their keys."""
    given = dict(queue.options)
    extra = ["--nthreads", "1", *(["--resources", "GPU=1"] if gpu else [])]
    options = {
        "security": True,
        **given,
        "processes": 1,
        "worker_extra_args": [*given.get("worker_extra_args", []), *extra],
        "scheduler_options": {
            "dashboard_address": None,
            **given.get("scheduler_options", {}),
        },
        "silence_logs": logging.CRITICAL,
    }
    # the jobs' key files, readable by their owner alone, are deleted with their objects
    options.setdefault("shared_temp_directory", str(folder))
    try:
        cluster = _queue_class(queue.system)(**options)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"The options of the cluster file are not as {queue.system} needs them:"
            f" {_one_line(error)}."
        ) from error
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        cluster.scale(n_jobs)
        yield client


@contextmanager
def _joined(address: str, *, gpu: bool) -> Iterator[distributed.Client]:
    """Join the scheduler at `address`; its workers must offer any GPU that we need."""
    try:
        client = distributed.Client(address, timeout=20, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"No dask scheduler can be reached at {address!r}: start one with"
            " dask scheduler, and give the address that it prints."
        ) from error
    with client:
        workers = client.scheduler_info()["workers"].values()
        if gpu and workers and not any(w["resources"].get("GPU") for w in workers):
            raise RunError(
                f"No worker of {address} offers a GPU: start each with --nthreads 1"
                " --resources GPU=1 and with CUDA_VISIBLE_DEVICES set to its own."
            )
        yield client


# --- giving jobs to workers -------------------------------------------------------


class _DaskWorkers:
    """Dask's workers as the runner sees them."""

    losses = (
        distributed.KilledWorker,
        BrokenExecutor,
        CancelledError,
        ModuleNotFoundError,
    )
    resources: Mapping[str, float]
    n_kept: int  # workers that a queue is to hold, whatever becomes of them; 0: none

    def __init__(
        self, client: distributed.Client, plan: Plan, say: Say, *, gpus: Sequence[str]
    ) -> None:
        self._client, self._plan, self._say, self._gpus = client, plan, say, gpus
        self._pool = client.get_executor(pure=False)
        self._names: dict[str, str] = {}
        self.is_open = True
        client.subscribe_topic("all", self._hear)

    def submit(self, job: Job) -> Future[Result]:
        key = f"{job.name}-{uuid.uuid4().hex}"
        self._names[key] = job.name
        order = order_of(job, self._plan)
        future: Future[Result] = self._pool.submit(
            run_order, order, self._gpus, key=key, resources=self.resources or None
        )
        return future

    def explain(self, name: str, error: Exception, /) -> str:
        if isinstance(error, distributed.KilledWorker):
            return (
                f"{name} was lost with its worker {error.allowed_failures + 1} times,"
                " which happens when memory or a queue's time runs out: give workers"
                " more of it and run the same command again; what is done is kept."
            )
        if isinstance(error, ModuleNotFoundError):
            return (
                f"A worker could not start {name} ({_one_line(error)}): install this"
                " package there as it is here, and run the same command again."
            )
        if isinstance(error, CancelledError):
            return (
                f"The dask scheduler was lost while {name} ran: start it again and run"
                " the same command again; what is done is kept."
            )
        return process_died(name)

    def _hear(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Tell of the jobs of a lost worker, and have a queue replace it."""
        _, fact = event
        if fact.get("action") != "remove-worker" or not self.is_open:
            return  # from the end of the run on, workers end as they should
        for key in fact["processing-tasks"]:
            if key in self._names:
                self._say(f"{self._names[key]}: lost with its worker {fact['worker']}")
        cluster, loop = self._client.cluster, self._client.loop
        if self.n_kept and cluster is not None and loop is not None:
            loop.call_later(_REPLACED_AFTER_S, cluster.scale, self.n_kept)
