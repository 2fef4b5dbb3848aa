"""A downloaded file on disk: how much of it is there, and how it gets its name.

Bytes are gathered in a hidden part beside the file, which takes the file's name at once
when they are all there and verified. Records of checksums are kept in the project, not
among the data; a file without one is compared once more.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from minddiff_utils.core.errors import DataError, StoreError
from minddiff_utils.core.places import read_environment

__all__ = [
    *("State", "check_space", "discard", "free_bytes", "in_units", "is_begun"),
    *("on_disk", "part_of", "place_of", "put_in_place", "write_record"),
]

State = Literal["complete", "unverified", "begun", "absent"]


def place_of(root: Path, path: str) -> Path:
    """Return where a file goes, which is below `root`.

    Folders of the root may be links to other disks: that is the user's own choice.

    Raises
    ------
    DataError
        The path leads out of the root.
    """
    parts = Path(path).parts
    odd = Path(path).is_absolute() or ".." in parts or not parts
    if odd or "\0" in path or "\\" in path:
        raise DataError(
            f"{path!r} would be written outside of {root}: no file of a data"
            " set has such a place."
        )
    return root.joinpath(*parts)


def part_of(path: Path) -> Path:
    """Return where the bytes of `path` are gathered until they are all there."""
    return path.with_name(f".{path.name}.part")


def on_disk(path: Path, size: int, checksum: str) -> tuple[State, int]:
    """Return the state of a file and the bytes of its part that count."""
    if path.is_file() and path.stat().st_size == size:
        noted = _noted(path)
        if noted == _stamp(path, checksum):
            return "complete", 0
        if noted is None or noted.split()[0] == checksum:  # by other means, or since
            return "unverified", 0
    part = part_of(path)
    begun = is_begun(part, size, checksum)
    return ("begun", part.stat().st_size) if begun else ("absent", 0)


def is_begun(part: Path, size: int, checksum: str) -> bool:
    """Return whether a part is the beginning of the file that is stated."""
    known = part.is_file() and not part.is_symlink() and _noted(part) == checksum
    return known and part.stat().st_size <= size


# --- records --------------------------------------------------------------------------


def _record(path: Path) -> Path:
    """Return the file that holds the checksum of `path`, named after where it lies."""
    place = os.fsencode(path.parent.resolve() / path.name)
    name = hashlib.sha256(place).hexdigest()[:32]
    return read_environment().root / "data" / ".fetched" / f"{name}.etag"


def _stamp(path: Path, checksum: str) -> str:
    """Return what the record of `path` holds; a complete file's ends with its time."""
    is_part = path.name.endswith(".part")
    return checksum if is_part else f"{checksum} {path.stat().st_mtime_ns}"


def _noted(path: Path) -> str | None:
    """Return the checksum in the record of `path`, None where there is none."""
    record = _record(path)
    if record.is_symlink() or not record.is_file():
        return None
    return record.read_text(encoding="utf-8", errors="replace").strip() or None


def write_record(path: Path, checksum: str) -> None:
    """Note the checksum of `path`, at once or not at all; the data do without it."""
    record = _record(path)
    fresh = record.with_name(f"{record.name}.{os.getpid()}.new")
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(f"{_stamp(path, checksum)}\n", encoding="utf-8")
        fresh.replace(record)


def _forget(path: Path) -> None:
    with suppress(OSError):
        _record(path).unlink(missing_ok=True)


def discard(part: Path) -> int:
    """Delete a part and its record; return the bytes it had."""
    n_bytes = part.stat().st_size if part.is_file() else 0
    part.unlink(missing_ok=True)
    _forget(part)
    return n_bytes


def put_in_place(path: Path, checksum: str) -> None:
    """Give the verified part its name; cut off anywhere, no record says too much."""
    part = part_of(path)
    _sync(part)
    _forget(path)
    part.replace(path)
    write_record(path, checksum)
    _forget(part)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- space ----------------------------------------------------------------------------


def _there(path: Path) -> Path:
    """Return the folder nearest to `path` that is there already, links followed."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def free_bytes(root: Path) -> int:
    """Return the free bytes of the disk that `root` is or will be on."""
    return shutil.disk_usage(_there(root)).free


def check_space(sizes: Mapping[Path, int]) -> None:
    """Raise StoreError unless the bytes that come to each place fit its disk.

    Folders of one root may be links to several disks, so each disk is counted.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for place, size in sizes.items():
        folder = _there(place.parent)
        loose = next((p for p in place.parents if p.is_symlink() and not p.exists()), 0)
        if loose or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            what = "is a link to nothing" if loose else "cannot be written"
            raise StoreError(
                f"{loose or folder} {what}, and {place.name} is to go there: mend it,"
                " or name another folder."
            )
        first, needed = disks.get(folder.stat().st_dev, (folder, 0))
        disks[folder.stat().st_dev] = first, needed + size
    for folder, size in disks.values():
        if size > (free := shutil.disk_usage(folder).free):
            raise StoreError(
                f"{in_units(size)} are to be downloaded to {folder}, but"
                f" {in_units(free)} are free there: free space, name another folder,"
                " or fetch fewer subjects or sessions."
            )


def in_units(n: int) -> str:
    """Return `n` bytes in the units of disks.

    >>> in_units(1_094_000_000), in_units(12)
    ('1.09 GB', '12 B')
    """
    value, units = float(n), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{n} B" if n < 1000 else f"{value:.2f} {units[0]}"
