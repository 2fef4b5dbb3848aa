"""What a run's processes see of the machine: nothing that a user has set up there.

A run gives the same bytes on every account: what it starts sees variables, a home and a
working folder of the project, not those by which a user sets up plotting, notebooks or
numerical libraries. Ctrl-C, too, is for the run alone. The GPUs that it may use and the
memory that it has held are told here, too.
"""

import multiprocessing
import os
import resource
import signal
import site
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from minddiff_utils.core.errors import ConfigError, MindDiffError, RunError
from minddiff_utils.core.locks import end_with_parent

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

__all__ = [
    "DETERMINISTIC",
    "ended_if_cut_off",
    "environment",
    "in_own_process",
    "in_processes",
    "interrupts_held",
    "only",
    "own_variables",
    "peak_bytes",
    "settled",
    "visible_gpus",
]

Result = TypeVar("Result")

#: Environment variables that cuBLAS must have found at its start to repeat its sums.
DETERMINISTIC: Mapping[str, str] = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

#: Variables that say where things are and what may be used, not how to compute or draw.
_KEPT = frozenset(
    {"PATH", "TMPDIR", "TEMP", "TMP", "CC", "CXX", "HDF5_USE_FILE_LOCKING"}
    | {"LD_LIBRARY_PATH", "LD_PRELOAD"}
    | {"DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"}
    | {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH"}
    | {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
    | {"HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"}
    | {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"}
)
_FIXED = {
    **DETERMINISTIC,
    "LC_ALL": "C.UTF-8",
    # as ipykernel sets it; matplotlib reads it when it is loaded
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "TZ": "UTC",
}
#: Set where all of this is in force; a process started there has it already.
_MARK = "MINDDIFF_SETTLED"
#: Where Python found these, it must find them again.
_NEEDED = ("minddiff_utils", "numpy", "torch")


def environment(variables: Mapping[str, str]) -> AbstractContextManager[None]:
    """Set environment variables for what is started inside, then take them back.

    Beside `variables` those without which a GPU's sums differ from run to run.
    """
    return only(os.environ | {**DETERMINISTIC, **variables})


@contextmanager
def only(variables: Mapping[str, str]) -> Iterator[None]:
    """Let these be all environment variables, then take back what was there before."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def own_variables() -> Iterator[dict[str, str]]:
    """Yield the variables of a process that sees the project's settings, not a user's.

    Of the user's variables only those stay that name places and devices, and our own.
    HOME is a new folder, deleted in the end, in which no library finds a configuration.

    Raises
    ------
    RunError
        No temporary folder can be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(
            prefix="minddiff-", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise RunError(
            f"No temporary folder can be made ({error.strerror or error}): free space"
            " or mend permissions there, or name another folder with TMPDIR."
        ) from error
    with folder as home:
        yield _settings(os.environ, home)


@contextmanager
def settled() -> Iterator[None]:
    """Give what is started inside `own_variables`, and this process while inside.

    The working folder is HOME, and Python looks for modules where our own libraries
    are, nowhere else. Inside another such block nothing happens.
    """
    if _MARK in os.environ:
        yield
        return
    with (
        own_variables() as variables,
        _own_modules(),
        only(variables),
        _working_in(variables["HOME"]),
    ):
        yield


@contextmanager
def _working_in(folder: str) -> Iterator[None]:
    """Work in `folder`: one that may not be entered is no place to start processes."""
    try:
        before = os.getcwd()  # noqa: PTH109 - must not resolve
    except OSError:  # it was deleted
        before = folder
    os.chdir(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(before)


@contextmanager
def _own_modules() -> Iterator[None]:
    """Let processes of `multiprocessing`, which take our sys.path, find ours alone."""
    before, libraries = sys.path[:], _libraries()
    foreign = {"", site.getusersitepackages(), *_entries(os.environ)}
    with suppress(OSError):
        foreign.add(os.getcwd())  # noqa: PTH109
    sys.path[:] = [
        entry
        for entry in before
        if entry not in foreign or os.path.realpath(entry) in libraries
    ]
    try:
        yield
    finally:
        sys.path[:] = before


def _settings(given: Mapping[str, str], home: str) -> dict[str, str]:
    """Return the variables that take the place of those in `given`."""
    kept = {k: v for k, v in given.items() if k in _KEPT or k.startswith("MINDDIFF_")}
    ours = {"HOME": home, _MARK: "1", "USER": f"user{os.getuid()}"}
    ours["LOGNAME"] = ours["USER"]  # an account may have no name
    libraries = _libraries()
    path = [p for p in _entries(given) if os.path.realpath(p) in libraries]
    if path:
        ours["PYTHONPATH"] = os.pathsep.join(path)
    if os.path.realpath(site.getusersitepackages()) not in libraries:
        ours["PYTHONNOUSERSITE"] = "1"
    return kept | _FIXED | ours


def _entries(given: Mapping[str, str]) -> list[str]:
    """Return the folders that PYTHONPATH names, as Python puts them into its path."""
    named = given.get("PYTHONPATH", "").split(os.pathsep)
    return [os.path.abspath(entry) for entry in named if entry]  # noqa: PTH100


def _libraries() -> set[str]:
    """Return the folders in which Python found our package and what it needs."""
    specs = [find_spec(name) for name in _NEEDED]
    places = [Path(s.origin).resolve().parents[1] for s in specs if s and s.origin]
    return {str(place) for place in places}


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait; processes and threads that are started inside never hear it.

    A terminal sends it to every process of the run. The run alone answers and ends the
    others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ended_if_cut_off(pool: Executor) -> Iterator[None]:
    """End the pool's processes at once if the block is cut off, as by Ctrl-C.

    A pool would wait for them, which may take hours. An error of ours is no such end:
    what is at work then may finish.
    """
    try:
        yield
    except MindDiffError:
        raise
    except BaseException:
        over = threading.Event()
        threading.Thread(target=_end_children, args=(over,), daemon=True).start()
        try:
            pool.shutdown(cancel_futures=True)
        finally:
            over.set()
        raise


def _end_children(over: threading.Event) -> None:
    """Kill again and again: a pool may be about to replace what has ended."""
    while not over.is_set():
        for process in multiprocessing.active_children():
            process.kill()
        over.wait(0.1)


def visible_gpus(n_jobs: int) -> list[str]:
    """Return this machine's GPUs, as `CUDA_VISIBLE_DEVICES` names them: one per job.

    Raises
    ------
    ConfigError
        There are fewer than `n_jobs`.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        import torch

        gpus = [str(index) for index in range(torch.cuda.device_count())]
    else:
        gpus = [name.strip() for name in named.split(",") if name.strip()]
    if len(gpus) < n_jobs:
        raise ConfigError(
            f"--jobs is {n_jobs}, but each job needs a GPU of its own and this machine"
            f" shows {len(gpus)}: lower --jobs, or use --executor dask with --scheduler"
            " or --cluster."
        )
    return gpus


def peak_bytes(who: int = resource.RUSAGE_SELF) -> int:
    """Return the most memory that this process, or one of its children, has held.

    `who` as in `resource.getrusage`, whose unit is bytes on macOS and KiB elsewhere.
    """
    held = resource.getrusage(who).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


def in_own_process(function: Callable[..., Result], *given: Any) -> Result:
    """Return what a function of a module gives, run in a new process that ends then."""
    (result,) = in_processes(function, [given])
    return result


def in_processes(
    function: Callable[..., Result],
    given: Iterable[tuple[Any, ...]],
    n_jobs: int = 1,
    gpus: Sequence[str] = (),
) -> Iterator[Result]:
    """Yield what a function of a module gives for each of some arguments, as it comes.

    In new processes that end then, `n_jobs` at once; each has one of the `gpus`, if
    there are any, for itself.
    """
    context = multiprocessing.get_context("spawn")  # torch and forks do not mix
    own = context.SimpleQueue()
    for gpu in gpus:
        own.put(gpu)
    mine = own if gpus else None
    with (
        settled(),
        ProcessPoolExecutor(n_jobs, context, _begin, (mine,)) as pool,
        ended_if_cut_off(pool),
    ):
        with interrupts_held():
            futures = [pool.submit(function, *one) for one in given]
        for future in as_completed(futures):
            yield future.result()


def _begin(gpus: "SimpleQueue[str] | None") -> None:
    """Let this process end with its parent, and take a GPU of its own."""
    end_with_parent()
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()
