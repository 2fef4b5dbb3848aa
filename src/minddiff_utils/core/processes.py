"""Processes that end with the one that started them, their GPU and their memory.

A run that was killed must not go on unseen, in a job or in a worker of a pool, beside
the run that takes its place. Place in the flow: layer 1.
"""

import multiprocessing
import os
import resource
import sys
import threading
from multiprocessing.connection import wait

from minddiff_utils.core.errors import ConfigError

__all__ = ["end_with_parent", "peak_bytes", "visible_gpus"]


def peak_bytes(who: int = resource.RUSAGE_SELF) -> int:
    """Return the most memory that this process, or one of its children, has held.

    `who` as in `resource.getrusage`, whose unit is bytes on macOS and KiB elsewhere.
    """
    held = resource.getrusage(who).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


def end_with_parent() -> None:
    """Let this process end as soon as its parent does; without one nothing happens.

    Called first of all in a process of `multiprocessing`, such as by the initializer of
    a pool: a pool's own workers would finish what they are at, and write it.
    """
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


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
            f" shows {len(gpus)}: lower --jobs, or use --engine dask with --scheduler"
            " or --cluster."
        )
    return gpus
