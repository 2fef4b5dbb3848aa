"""Processes that end with the one that started them.

A run that was killed must not go on unseen, in a job or in a worker of a pool, beside
the run that takes its place. Place in the flow: layer 1.
"""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait

__all__ = ["end_with_parent"]


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
