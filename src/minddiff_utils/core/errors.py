"""The one exception tree and the argument checks every module shares.

A message is one sentence: what was given, what is allowed, what to do.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "ConfigError",
    "DataError",
    "MindDiffError",
    "ModelError",
    "RunError",
    "StoreError",
    "check_choice",
    "check_exists",
    "check_finite",
    "check_shape",
    "in_a_line",
    "read_trouble",
    "system_words",
    "writing",
]


class MindDiffError(Exception):
    """Base of every error a user of this package is meant to read."""


class ConfigError(MindDiffError):
    """A profile, an override or a command-line argument is wrong."""


class DataError(MindDiffError):
    """A data file is missing, damaged or inconsistent."""


class ModelError(MindDiffError):
    """Model weights or configs are missing, damaged or of the wrong kind."""


class StoreError(MindDiffError):
    """An artefact cannot be read, written or trusted."""


class RunError(MindDiffError):
    """A notebook failed or was given parameters it does not have."""


def check_choice(value: object, allowed: Collection[object], name: str) -> None:
    """Raise ConfigError unless `value` is one of `allowed`."""
    if value not in allowed:
        options = ", ".join(map(str, allowed))
        raise ConfigError(f"{name} is {value!r}, but must be one of: {options}.")


def check_exists(path: Path, what: str, remedy: str) -> None:
    """Raise DataError unless `path` exists; `remedy` says what to do if nothing does.

    A link to nothing and a folder that may not be entered are said as such.
    """
    try:
        path.stat()
    except (OSError, ValueError) as error:
        trouble = f"at {path} {read_trouble(error)}"
        if _system_number(error) in (None, errno.ENOENT):
            link = path.is_symlink()
            trouble = f"at {path} {_dangling(path)}" if link else f"not found at {path}"
            trouble += "" if link else f": {remedy}"
        raise DataError(f"{what} {trouble}.") from error


def check_shape(
    shape: tuple[int, ...], expected: tuple[int | None, ...], name: str
) -> None:
    """Raise DataError unless `shape` equals `expected`, where None matches any size."""
    fits = len(shape) == len(expected) and all(
        e is None or s == e for s, e in zip(shape, expected, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if e is None else str(e) for e in expected)
        raise DataError(f"{name} has shape {shape}, but ({sizes}) is expected.")


def check_finite(is_finite: bool, name: str) -> None:
    """Raise DataError unless `is_finite`, the result of a finiteness test on `name`."""
    if not is_finite:
        raise DataError(
            f"{name} holds NaN or infinite values: exclude or repair them first."
        )


def system_words(error: OSError | RuntimeError) -> str:
    """Return what the system says of a failed write, which HDF5 hides in a paragraph.

    HDF5 raises RuntimeError where it fails while it closes a file; any other
    RuntimeError is no failed write and is raised again.

    >>> system_words(RuntimeError("file write failed: ..., errno = 28, buf = 0x55"))
    'No space left on device'
    """
    hidden = re.search(r"errno = (\d+)", str(error))
    if hidden:
        return os.strerror(int(hidden[1]))
    if not isinstance(error, OSError):
        raise error
    return error.strerror or " ".join(str(error).split())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of writing to `path` into one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter while HDF5 closes a file
        reason = system_words(error)
        raise StoreError(
            f"{path} could not be written ({reason}): free space or mend permissions "
            "there, then run the same command again."
        ) from error


#: Where the system names its own number: HDF5, Python and Rust.
_NUMBERED = re.compile(r"(?:errno = |\[Errno |os error )(\d+)")
#: Errors of the system by class, for libraries that pass the class on without a number.
_NUMBERS = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    BlockingIOError: errno.EAGAIN,
    InterruptedError: errno.EINTR,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
    TimeoutError: errno.ETIMEDOUT,
    ConnectionError: errno.ENOTCONN,
    MemoryError: errno.ENOMEM,
}
_PERMIT = "permit yourself to read it and to enter its folders"
_LOCKED = "wait until the program that holds it has ended, then run again"
_OPEN = "close other programs or raise the limit of open files (ulimit -n)"
_READ_REMEDIES = {
    errno.EACCES: _PERMIT,
    errno.EPERM: _PERMIT,
    errno.EAGAIN: _LOCKED,
    errno.EBUSY: _LOCKED,
    errno.EDEADLK: _LOCKED,
    errno.ENOLCK: _LOCKED,
    errno.ETXTBSY: _LOCKED,
    errno.EMFILE: _OPEN,
    errno.ENFILE: _OPEN,
    errno.ENOMEM: "free memory, or ask for less at once",
    errno.EINTR: "run again",
    errno.EISDIR: "move the folder aside and put the file in its place",
    errno.ENOTDIR: "mend its path, of which a part is a file and no folder",
    errno.ELOOP: "mend the link, which leads back to itself",
    errno.ENAMETOOLONG: "give its folder a shorter path",
    errno.ENOENT: "put it there, or mount the disk that it lies on",
}


def read_trouble(error: BaseException) -> str | None:
    """Return why the system lets nobody read a file, and what to do; None for damage.

    The file itself may be whole. Libraries hide what the system said in a paragraph, or
    in the error before theirs. An invalid argument is what damaged files make them ask.

    >>> read_trouble(OSError("unable to lock file, errno = 11"))[:31]
    'cannot be read (Resource tempor'
    """
    number = _system_number(error)
    if number is None:
        return None
    disk = "the file may be whole, so look after the disk or network that it lies on"
    remedy = _READ_REMEDIES.get(number, f"{disk}, then run again")
    words = "not enough memory" if number == errno.ENOMEM else os.strerror(number)
    return f"cannot be read ({words}): {remedy}"


def _system_number(error: BaseException | None) -> int | None:
    """Return the system's number for what went wrong, None where it said nothing."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        stated = _NUMBERED.search(str(error))
        kinds = (n for kind, n in _NUMBERS.items() if isinstance(error, kind))
        number = getattr(error, "errno", None) or next(kinds, None)
        if number is None and stated is not None:
            number = int(stated[1])
        if number and number != errno.EINVAL:
            return int(number)
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or hidden
    return None


def _dangling(path: Path) -> str:
    """Return what is wrong with a link to nothing, and what to do."""
    target = str(path.readlink())
    annex = "get it (`git annex get`)" if ".git/annex" in target else "mend the link"
    return f"is a link to nothing ({target}): {annex}, or mount the disk it points to"


def in_a_line(text: str, most: int = 200) -> str:
    """Return what a user gave so that it fits into a sentence: no line break, short."""
    line = text if text.isprintable() else ascii(text)
    return line if len(line) <= most else f"{line[:most]}…"
