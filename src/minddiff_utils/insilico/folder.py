"""The folder of in-silico data: which files are ours, and how new ones replace them.

A simulation shares its folder with whatever a user puts there, perhaps files of the
real NSD. So it keeps the list of the files that it wrote, with sizes and digests, and
replaces or deletes these alone; a file that is not what was written is refused before
anything changes. All of it lies inside the folder, new files too until they are whole:
nothing outside is written, renamed or deleted.

Cut off anywhere, the next call goes on: while files move into place the list holds old
and new ones, and the folder of unfinished files has a mark of its own.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minddiff_utils.core.errors import DataError, system_words
from minddiff_utils.core.provenance import MARK, SMALL_BYTES, digest_file

__all__ = ["PARTS", "TRUTH", "Renewal", "find", "renewing", "written"]

#: The folders of NSD's layout, and the one of what only a simulation knows.
PARTS = ("nsddata", "nsddata_betas", "nsddata_stimuli")
TRUTH = "truth"
#: A file by which a folder of ours is known, and the list of what is ours in it.
_LIST = "IN_SILICO.manifest.json"
MARK_TEXT = (
    "In-silico data in the layout of the Natural Scenes Dataset, written by\n"
    "minddiff-utils. No brain was scanned and no COCO image is in here.\n"
)
#: Where new files are until they are whole.
_UNFINISHED = ".in_silico_unfinished"
#: What disks and file managers leave in a folder that is empty to its owner.
_OF_THE_SYSTEM = {"lost+found", ".DS_Store", ".snapshot", "System Volume Information"}

#: File, relative to the folder -> "size digest" of what it may be.
_Files = Mapping[str, list[str]]


@dataclass(frozen=True)
class Renewal:
    """A change of the folder `root` under way.

    Attributes
    ----------
    root : Path
    fresh : Path
        Empty; the new files are written here, as they will lie below `root`.
    """

    root: Path
    fresh: Path

    def publish(self, key: str, facts: Mapping[str, Any]) -> None:
        """Put the new files in place and delete those of before that have none.

        `key` and `facts` are what `find` will know of the folder.

        Raises
        ------
        DataError
            A file that is not ours is in the way; then nothing is changed.
        """
        new = {name: [_content(self.fresh / name)] for name in _names(self.fresh)}
        old = _read(self.root).get("files", {})
        both = {k: [*old.get(k, []), *new.get(k, [])] for k in sorted({*old, *new})}
        for name, contents in both.items():
            _check_place(self.root, name, contents)
        self._write(MARK, MARK_TEXT)
        self._write(_LIST, _as_text({"key": "", "files": both}))
        for name in new:
            place = self.root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            (self.fresh / name).replace(place)
        for name in sorted(set(old) - set(new)):
            _delete(self.root, name)
        self._write(_LIST, _as_text({"key": key, "files": new, "facts": dict(facts)}))

    def _write(self, name: str, text: str) -> None:
        """Write a file of the folder at once or not at all."""
        part = self.fresh.parent / f"{name}.new"
        part.write_text(text, encoding="utf-8")
        part.replace(self.root / name)


def find(root: Path, key: str) -> dict[str, Any] | None:
    """Return the facts of the folder if it was made under `key` and is whole.

    Whole means that every file that was written is there with its size and, where it is
    small, its content.
    """
    record = _read(root)
    if record.get("key") != key:
        return None
    if not all(_is_whole(root / k, v[0]) for k, v in record["files"].items()):
        return None
    _discard(root)
    facts: dict[str, Any] = record["facts"]
    return facts


def written(root: Path) -> list[str]:
    """Return the names of the files that a simulation wrote to the folder."""
    return sorted(_read(root).get("files", {}))


@contextmanager
def renewing(root: Path) -> Iterator[Renewal]:
    """Give an empty folder inside `root` for new files; whatever goes wrong, it goes.

    Raises
    ------
    DataError
        `root` holds files of another origin or is no folder, a file of ours was
        replaced, or the disk refuses.
    """
    _check_ours(root)
    was_there = root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        _discard(root)
        (root / _UNFINISHED).mkdir(exist_ok=True)
        (root / _UNFINISHED / MARK).write_text(MARK_TEXT, encoding="utf-8")
        fresh = root / _UNFINISHED / "new"
        fresh.mkdir()
        yield Renewal(root, fresh)
    except (OSError, RuntimeError) as error:  # the latter while HDF5 closes a file
        raise DataError(
            f"The in-silico NSD could not be written to {root} ({system_words(error)}):"
            " free space or mend permissions there, then run the same command again."
        ) from error
    finally:
        with suppress(OSError):
            _discard(root)
            if not was_there:
                root.rmdir()  # only where nothing came of it


# --- what is ours ---------------------------------------------------------------------


def _read(root: Path) -> dict[str, Any]:
    """Return the folder's list; empty where there is none that can be read."""
    try:
        record = json.loads((root / _LIST).read_text(encoding="utf-8"))
        files = record["files"]
        if all(_stated(text) >= 0 for found in files.values() for text in found):
            return dict(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return {}


def _as_text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def _names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _content(path: Path) -> str:
    return f"{path.stat().st_size} {digest_file(path)}"


def _stated(content: str) -> int:
    """Return the size that a content states."""
    return int(content.partition(" ")[0])


def _size(path: Path) -> int:
    """Return the bytes of a file, -1 where there is none to be seen."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _is_whole(path: Path, content: str) -> bool:
    size = _size(path)
    if size != _stated(content) or size >= SMALL_BYTES:
        return size == _stated(content)
    with suppress(OSError):
        return _content(path) == content
    return False


def _check_ours(root: Path) -> None:
    """Raise DataError unless new files may come to `root`, before they are made."""
    try:
        if not root.exists() and not root.is_symlink():
            return
        if not root.is_dir():
            what = "a link to nothing" if root.is_symlink() else "a file"
            raise DataError(
                f"{root} is {what}, but must be a folder: name another one for the"
                " in-silico data."
            )
        held = {path.name for path in root.iterdir()} - _OF_THE_SYSTEM - {_UNFINISHED}
        if held and not (root / MARK).is_file():
            raise DataError(
                f"{root} holds files that no simulation wrote, perhaps the real NSD: "
                "name another folder for the in-silico one, or move these files away."
            )
        for name, contents in _read(root).get("files", {}).items():
            size = _size(root / name)
            if size >= 0 and size not in map(_stated, contents):
                raise _replaced(root, name)
    except OSError as error:
        raise DataError(
            f"{root} cannot be read ({error.strerror}): mend its permissions, or name"
            " another folder for the in-silico data."
        ) from error


def _check_place(root: Path, name: str, contents: list[str]) -> None:
    """Raise DataError unless the file may be replaced or deleted, or is not there."""
    place = root / name
    above = [root / part for part in Path(name).parents if part != Path()]
    for folder in above:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise DataError(
                f"{folder} is a link or a file, where the in-silico data have a folder"
                " of their own: name another folder for them, or move it away."
            )
    if place.is_symlink() or (place.exists() and not place.is_file()):
        raise _replaced(root, name)
    if place.exists() and _content(place) not in contents:
        raise _replaced(root, name)


def _replaced(root: Path, name: str) -> DataError:
    return DataError(
        f"{root / name} is not the file that a simulation wrote there, perhaps one of"
        f" the real NSD: move it out of {root}, or name another folder for the"
        " in-silico data."
    )


# --- deleting -------------------------------------------------------------------------


def _delete(root: Path, name: str) -> None:
    """Delete a file of ours, and the folders above it that are empty then."""
    (root / name).unlink(missing_ok=True)
    for folder in (root / part for part in Path(name).parents if part != Path()):
        try:
            folder.rmdir()
        except OSError:  # holds something, or is gone already
            return


def _discard(root: Path) -> None:
    """Delete the folder of unfinished files; its mark goes last.

    Raises
    ------
    DataError
        Somebody else has a folder of that name.
    """
    folder = root / _UNFINISHED
    if not folder.is_dir() and not folder.is_symlink():
        return
    mark = folder / MARK
    if folder.is_symlink() or (any(folder.iterdir()) and not mark.is_file()):
        raise DataError(
            f"{folder} holds files that no simulation wrote: move it away, then run"
            " the same command again."
        )
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != mark:
            path.unlink()
    mark.unlink(missing_ok=True)
    folder.rmdir()
