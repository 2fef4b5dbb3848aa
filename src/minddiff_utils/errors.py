"""The one exception tree and the argument checks every module shares.

A message is one sentence: what was given, what is allowed, what to do. Place in the
flow: layer 0, imported by everything, imports nothing of ours.
"""

import os
import re
from collections.abc import Collection
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
    "system_words",
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
    """Raise DataError unless `path` exists; `remedy` says what to do."""
    if not path.exists():
        raise DataError(f"{what} not found at {path}: {remedy}.")


def check_shape(
    shape: tuple[int, ...], expected: tuple[int | None, ...], name: str
) -> None:
    """Raise DataError unless `shape` equals `expected`, where None matches any size."""
    fits = len(shape) == len(expected) and all(
        e is None or s == e for s, e in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("any" if e is None else str(e) for e in expected) + ")"
        raise DataError(f"{name} has shape {shape}, but {wanted} is expected.")


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
