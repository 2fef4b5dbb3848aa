"""A file on disk: where it goes, how much of it is there, how it gets its name.

Beside a file stands a record of its ETag, beside a part the record of what it is part
of. Nothing here knows the bucket. Place in the flow: part of `fetch`.
"""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Literal

from minddiff_utils.errors import DataError

__all__ = [
    "State",
    "discard",
    "free_bytes",
    "on_disk",
    "part_of",
    "place_of",
    "put_in_place",
    "write_record",
]

State = Literal["complete", "unproven", "begun", "absent"]


def place_of(root: Path, destination: PurePosixPath) -> Path:
    """Return where a file goes, which is below `root`.

    Folders of the root may be links to other disks: that is the user's own choice.
    """
    text, parts = str(destination), destination.parts
    odd = destination.is_absolute() or ".." in parts or not parts
    if odd or "\0" in text or "\\" in text:
        raise DataError(
            f"{text!r} would be written outside of {root}: no file of NSD has such a"
            " place."
        )
    return root.joinpath(*parts)


def _record(path: Path) -> Path:
    """Return the file that holds the ETag of the complete file `path`.

    Hidden, like the part: `nsd` takes any `betas_*` it sees for a session.
    """
    return path.with_name(f".{path.name.removeprefix('.')}.etag")


def part_of(path: Path) -> Path:
    """Return where the bytes of `path` are gathered until they are all there."""
    return path.with_name(f".{path.name}.part")


def _noted(record: Path) -> str | None:
    """Return the ETag in `record`, None where there is none."""
    if record.is_symlink() or not record.is_file():
        return None
    return record.read_text(encoding="utf-8", errors="replace").strip() or None


def on_disk(path: Path, size: int, etag: str) -> tuple[State, int]:
    """Return the state of a file and the bytes of its part that count."""
    if path.is_file() and path.stat().st_size == size:
        noted = _noted(_record(path))
        if noted == etag:
            return "complete", 0
        if noted is None:  # put there by other means
            return "unproven", 0
    part = part_of(path)
    if part.is_symlink() or not part.is_file() or _noted(_record(part)) != etag:
        return "absent", 0
    n_begun = part.stat().st_size
    return ("begun", n_begun) if n_begun <= size else ("absent", 0)


def free_bytes(root: Path) -> int:
    """Return the free bytes of the disk that `root` is or will be on."""
    root = root.absolute()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    return shutil.disk_usage(there).free


def discard(part: Path) -> int:
    """Delete a part and its record; return the bytes it had."""
    n_bytes = part.stat().st_size if part.is_file() else 0
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)
    return n_bytes


def write_record(path: Path, etag: str) -> None:
    """Note the ETag of `path`, at once or not at all."""
    record = _record(path)
    fresh = record.with_name(f"{record.name}.new")
    fresh.write_text(f"{etag}\n", encoding="utf-8")
    fresh.replace(record)


def put_in_place(path: Path, etag: str) -> None:
    """Give the proven part its name; cut off anywhere, no record says too much."""
    part = part_of(path)
    _sync(part)
    _record(path).unlink(missing_ok=True)
    part.replace(path)
    write_record(path, etag)
    _record(part).unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
