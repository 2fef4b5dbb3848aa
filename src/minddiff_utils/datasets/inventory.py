"""The files of a data set in one list, and the forms in which people have them.

Each data set lists its files in its `layout`, a row for those of one kind. Its reader,
`minddiff check`, `minddiff fetch`, the estimate of disk space and the question whether
a notebook is up to date all read that list; another file is one more row there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

__all__ = [
    *("HEMISPHERES", "Anatomy", "DataFile", "Hemisphere", "find", "is_there"),
    *("list_files", "path_in", "sides_of", "there"),
]

Hemisphere = Literal["lh", "rh"]
HEMISPHERES: tuple[Hemisphere, ...] = ("lh", "rh")
#: A subject, or the group surface.
Anatomy = int | Literal["fsaverage"]
#: What there is to choose from for each name in a path.
Choices = Mapping[str, Sequence[Any]]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
#: How COCO's archive unpacks below or beside the folder of captions.
_UNPACKED = ("annotations", "annotations_trainval2017/annotations")


# --- the list -------------------------------------------------------------------------


@dataclass(frozen=True)
class DataFile:
    """A file of a data set; in a list, those of one kind whose paths differ in a name.

    Attributes
    ----------
    kind : str
        How it is read and checked.
    path : str
        Below the data set's root, and its publisher's: {subject} ("subj01"), {number}
        (1) and {version} stand for what they say, other words for names.
    reason : str
        What a run needs it for.
    names : dict
        Name, session, h, ...: its own, and in a list what there is to choose from.
    optional : bool
        Whether a run goes on without it, and makes less.
    notebook : str
        The one that reads it.
    subject : int, "fsaverage" or None
        None for what all subjects share.
    n_bytes : float
        Its size as published, 0 where it is too small to count.
    """

    kind: str
    path: str
    reason: str
    names: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False
    notebook: str = "01"
    subject: Anatomy | None = None
    n_bytes: float = 0


def path_in(
    rows: Sequence[DataFile],
    kind: str,
    subject: Anatomy | None = None,
    /,
    **names: str | int,
) -> str:
    """Return the path of a file of a list, as published."""
    row = next(row for row in rows if row.kind == kind)
    return row.path.format(subject=_folder(subject), number=subject, **names)


def _folder(subject: Anatomy | None) -> str | None:
    return f"subj{subject:02d}" if isinstance(subject, int) else subject


def _expand(
    row: DataFile, subject: int | None, more: Choices, version: str
) -> Iterator[DataFile]:
    """Yield the files of a row that a subject needs; `more` names to choose from."""
    choices, who = {**row.names, **more}, row.subject
    if "{subject}" in row.path or "{number" in row.path:
        who = subject
    for values in product(*choices.values()):
        names = dict(zip(choices, values, strict=True))
        given = {"subject": _folder(who), "number": who, "version": version}
        path = row.path.format(**given | names)
        yield replace(row, path=path, subject=who, names=names)


def list_files(
    rows: Iterable[DataFile],
    subjects: Iterable[int | None],
    more: Mapping[str, Choices] = _NOTHING,
    version: str = "",
) -> tuple[DataFile, ...]:
    """Return the files of a list that subjects need, each once.

    `subjects` [None]: those alone that all subjects share; `more`: kind -> further
    names to choose from; `version`: of the responses.
    """
    rows = tuple(rows)
    files = (
        file
        for subject in subjects
        for row in rows
        for file in _expand(row, subject, more.get(row.kind, _NOTHING), version)
    )
    return tuple({file.path: file for file in files}.values())


# --- the forms in which people have the files -----------------------------------------


def is_there(path: Path) -> bool:
    """Return whether a file has this name, even if nobody can read it.

    A link to nothing has it, and so may what lies in a folder that may not be entered:
    who reads it says what is wrong.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def find(root: Path, path: str | Path) -> Path:
    """Return the file in the place of `path` below `root`; the place where none is.

    A name as published comes first; then the same numbers unpacked, sessions without a
    leading zero, COCO's captions a folder deeper, other capitals.
    """
    place = root / path
    if is_there(place):
        return place
    for folder, name in product(_folders(place), _names(place.name)):
        if is_there(found := _as_written(root, folder / name)):
            return found
    return place


def there(root: Path, files: Iterable[DataFile]) -> tuple[Path, ...]:
    """Return the files there are of a list, in any form, sorted."""
    found = {path for file in files for path in sides_of(root, file.path)}
    return tuple(sorted(path for path in found if is_there(path)))


def sides_of(root: Path, path: str) -> tuple[Path, ...]:
    """Return the file of a volume, or where only those are there, its two halves."""
    whole, place = find(root, path), Path(path)
    if is_there(whole):
        return (whole,)
    names = (f"{h}.{place.name}" for h in HEMISPHERES)
    halves = tuple(find(root, place.with_name(name)) for name in names)
    return halves if all(map(is_there, halves)) else (whole,)


def _names(name: str) -> Iterator[str]:
    """Yield the names of a file and of its other forms."""
    for stem in dict.fromkeys((name, re.sub(r"session0+(?=\d)", "session", name))):
        yield stem
        if stem.endswith(".nii.gz"):
            yield stem.removesuffix(".gz")
        if stem.endswith("mgz"):
            yield f"{stem.removesuffix('z')}h"


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders that may hold a file."""
    folder = path.parent
    yield folder
    if path.name.startswith("captions_"):
        yield from (folder / name for name in _UNPACKED)
        yield folder.parent
        yield from (folder.parent / name for name in _UNPACKED)


def _as_written(root: Path, path: Path) -> Path:
    """Return a file or folder below `root` in the capitals in which it is there."""
    if is_there(path) or path == root:
        return path
    parent, held = _as_written(root, path.parent), list[Path]()
    with suppress(OSError):  # nobody may look
        held = sorted(parent.iterdir())
    alike = (one for one in held if one.name.lower() == path.name.lower())
    return next(alike, parent / path.name)
