"""One job on a worker of dask: a process that runs it as on one machine.

The worker gives its process an order, one line of JSON; the process checks that it has
the same code and files as whoever gave the order, runs the notebook, and ends when the
worker ends. `cluster` sends the orders; workers run this module as a program.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minddiff_utils import __version__
from minddiff_utils.core import provenance
from minddiff_utils.core.errors import MindDiffError
from minddiff_utils.core.locks import locked
from minddiff_utils.core.places import notebook_path
from minddiff_utils.core.run import Tree
from minddiff_utils.core.surroundings import own_variables
from minddiff_utils.pipeline.graph import Job, Plan
from minddiff_utils.pipeline.records import Result, finished_since, record_stamp
from minddiff_utils.pipeline.runner import execute

__all__ = ["order_of", "run_order"]


def order_of(job: Job, plan: Plan) -> str:
    """Return all that a worker needs to run `job`, as one line of JSON."""
    return json.dumps(
        {
            "job": asdict(job),
            "tree": asdict(plan.tree),
            "source": plan.source,
            "record": record_stamp(job, plan.tree),
            "package": __version__,
            "code": provenance.code_digest(),
        },
        default=str,
    )


def run_order(order: str, gpus: Sequence[str]) -> Result:
    """Run a job on a worker of dask, in a process that ends when the worker does.

    Parameters
    ----------
    order : str
        JSON, from `order_of`.
    gpus : sequence of str
        The GPU of each worker of this machine by its number; empty where each worker
        has its own already.

    Raises
    ------
    BrokenExecutor
        The process died.
    """
    from distributed import get_worker  # the process that runs the job needs no dask

    worker = get_worker()
    mine = {"CUDA_VISIBLE_DEVICES": gpus[int(worker.name)]} if gpus else {}
    command = [sys.executable, "-P", "-m", "minddiff_utils.pipeline.worker"]
    pipe = subprocess.PIPE
    with (
        own_variables() as variables,
        subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            env=variables | mine,
            cwd=variables["HOME"],
            encoding="utf-8",
        ) as process,
    ):
        if process.stdin is None or process.stdout is None:
            raise BrokenExecutor
        # the pipe stays open: the process takes its end for the worker's end
        process.stdin.write(f"{order}\n")
        process.stdin.flush()
        answer = process.stdout.read()
        if process.wait() != 0:
            raise BrokenExecutor
    where = f"worker {worker.name} on {socket.gethostname()}"
    return replace(Result(**json.loads(answer)), where=where)


# --- the process that runs a job --------------------------------------------------


def _obey(order: Mapping[str, Any]) -> Result:
    """Run the job of `order`, unless this machine has other code or other files."""
    job, source = Job(**order["job"]), Path(order["source"])
    tree = _tree(order["tree"])
    problem = _difference(order, job, tree, source)
    if problem:
        return Result(job.name, 0.0, 0.0, f"{socket.gethostname()} {problem}")
    # a worker that was given up may still be at it: wait, and take what it made
    with locked(tree.notebooks / ".locks" / job.name):
        done = finished_since(job, tree, order["record"])
        return done or execute(job, tree, source)


def _tree(facts: Mapping[str, str | None]) -> Tree:
    models = facts["models_root"]
    return Tree(
        root=Path(facts["root"] or ""),
        profile_name=facts["profile_name"] or "",
        nsd=Path(facts["nsd"] or ""),
        models_root=Path(models) if models else None,
    )


def _difference(order: Mapping[str, Any], job: Job, tree: Tree, source: Path) -> str:
    """Return in what this machine differs from the one that gave the order."""
    here = (__version__, provenance.code_digest())
    there = (order["package"], order["code"])
    if here != there:
        return (
            f"has version {here[0]} of this package with code {here[1]}, but the run"
            f" was started with {there[0]} and code {there[1]}: install the same there"
        )
    notebook = notebook_path(job.notebook, source)
    for path in (tree.root / "data" / tree.profile_name, notebook):
        if not path.exists():
            return f"does not see {path}: all machines must share the file system"
    if provenance.digest_file(notebook) != job.facts["notebook"]:
        return f"has another {notebook}: all machines must share the file system"
    return ""


def _end_with_worker() -> None:
    """End this process, and so its kernel, when the pipe from the worker closes."""
    os.read(0, 1)
    os._exit(1)


def _main() -> None:
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_worker, daemon=True).start()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)  # what a kernel prints is no answer
        try:
            result = _obey(order)
        except MindDiffError as error:
            failure = f"{order['job']['notebook']} could not run: {error}"
            result = Result(order["job"]["notebook"], 0.0, 0.0, failure)
        answer.write(json.dumps(asdict(result)))


if __name__ == "__main__":
    _main()
