"""One run at a time in a folder, and none that goes on unseen.

A folder is locked by the system, which frees the lock of a process that dies; what a
killed writer left half-written is swept away; and a process that a run has started ends
with it, not beside the run that takes its place.
"""

import errno
import fcntl
import logging
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from multiprocessing.connection import wait
from pathlib import Path

from filelock import SoftFileLock, Timeout

from minddiff_utils.core.errors import StoreError, writing

__all__ = ["alone", "end_with_parent", "locked", "sweep", "unfinished"]

_log = logging.getLogger(__name__)
_A_DAY_S = 24 * 3600
#: After so long a wait for another's lock, and each time again, it is said.
_SAY_SO_S = 60.0


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep `folder` for one run until the block ends; refuse a second one at once.

    The system frees the lock of a process that dies.

    Raises
    ------
    StoreError
        Another process has the folder; the sentence names it.
    """
    path = folder / ".run.lock"
    with ExitStack() as stack:
        file = stack.enter_context(_open_lock(path))
        try:
            _hold(file, path, stack, wait=False)
        except BlockingIOError as error:
            file.seek(0)
            who = f"process {file.read().decode(errors='replace').strip()}"
            raise StoreError(
                f"Another run ({who}) is at work in {folder}: wait until it ends, or"
                " give this one a folder of its own with MINDDIFF_ROOT."
            ) from error
        with writing(path):
            file.truncate(0)
            file.write(f"{os.getpid()} on {_host()}\n".encode())
        yield


def _hold(file: FileIO, path: Path, stack: ExitStack, *, wait: bool) -> None:
    """Lock `file`, open at `path`, until `stack` ends; BlockingIOError if it is held.

    Where the disk knows no such locks (Lustre as it is mounted by default, some NFS),
    a second file beside it, which names host and process, stands for the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    except BlockingIOError:
        raise
    except OSError as error:
        _log.debug("%s: flock says %s", path, error)
    marker = SoftFileLock(path.with_name(path.name + ".held"), thread_local=False)
    with writing(path):
        while not _claimed(marker, _SAY_SO_S if wait else 0):
            if not wait:
                break
            _log.warning(
                "Waiting for the process whose number and host are in %s; if it has"
                " ended, delete that file.",
                marker.lock_file,
            )
    if not marker.is_locked:
        raise BlockingIOError(errno.EWOULDBLOCK, str(path))
    stack.callback(marker.release)


def _claimed(marker: SoftFileLock, seconds: float) -> bool:
    try:
        marker.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def _open_lock(path: Path) -> FileIO:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab+", buffering=0)  # nothing is left to write on closing


def unfinished(path: Path) -> Path:
    """Return the file that this process fills before it takes the place of `path`."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")


def sweep(folder: Path) -> None:
    """Delete what writers left half-written below `folder` when they were killed.

    Parts of living processes stay, and for a day those of other machines; so does what
    has no name that a writer gives, such as a user's own or a download under way.
    """
    for part in folder.rglob(".*.*.*.part"):
        *_, host, pid, _ = part.name.rsplit(".", 3)
        if not pid.isdecimal() or not host or not part.is_file():
            continue
        if host == _host():
            left = not _is_alive(int(pid))
        else:
            left = time.time() - part.stat().st_mtime > _A_DAY_S
        if left:
            part.unlink(missing_ok=True)


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of `folder`'s lock until the block ends.

    The system frees the lock of a process that dies.
    """
    path = folder / ".lock"
    with ExitStack() as stack:
        _hold(stack.enter_context(_open_lock(path)), path, stack, wait=True)
        yield


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
