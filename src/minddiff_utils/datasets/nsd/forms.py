"""The forms in which people have NSD's files, and where each is found.

A name as NSD publishes it comes first; then the same numbers unpacked, sessions without
a leading zero, COCO's captions a folder deeper, capitals. The one inventory: who reads,
checks or fetches asks here. Place in the flow: below `nsd`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from minddiff_utils.datasets.nsd.facts import PARTS

__all__ = ["BETAS_FILE", "find", "is_there", "lies_otherwise", "session_of", "sides_of"]

#: A session's betas: number and container.
BETAS_FILE = re.compile(r"betas_session(\d+)\.(hdf5|nii\.gz|nii)", re.IGNORECASE)
#: How COCO's archive unpacks below or beside the folder of captions.
_UNPACKED = ("annotations", "annotations_trainval2017/annotations")


def session_of(path: Path) -> int:
    """Return the session whose betas a file holds, by its name; 0 for none."""
    name = BETAS_FILE.fullmatch(path.name)
    return int(name[1]) if name else 0


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


def find(path: Path) -> Path:
    """Return the file in the place of NSD's `path`; `path` itself where none is."""
    if is_there(path):
        return path
    names = tuple(_names(path.name))
    for folder in _folders(path):
        for name in names:
            if is_there(folder / name):
                return folder / name
        held = {p.name.lower(): p for p in _listed(folder)}  # in other capitals
        for name in names:
            if name.lower() in held:
                return held[name.lower()]
    return path


def sides_of(path: Path) -> tuple[Path, ...]:
    """Return the file of a region volume, or where only those are, its two halves."""
    whole = find(path)
    halves = tuple(find(path.with_name(f"{h}.{path.name}")) for h in ("lh", "rh"))
    return halves if not is_there(whole) and all(map(is_there, halves)) else (whole,)


def lies_otherwise(path: Path) -> bool:
    """Return whether a file is not there, but is in another form."""
    return not is_there(path) and all(map(is_there, sides_of(path)))


def _names(name: str) -> Iterator[str]:
    """Yield the names of a file and of its other forms."""
    session = BETAS_FILE.fullmatch(name)
    stems = [name]
    if session:
        stems.append(f"betas_session{int(session[1])}.{session[2]}")
    for stem in stems:
        yield stem
        if stem.endswith(".nii.gz"):
            yield stem.removesuffix(".gz")
        if stem.endswith(".mgz"):
            yield f"{stem.removesuffix('z')}h"


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders that may hold a file."""
    folder = _as_written(path.parent)
    yield folder
    if path.name.startswith("captions_"):
        yield from (folder / name for name in _UNPACKED)
        yield folder.parent
        yield from (folder.parent / name for name in _UNPACKED)


def _as_written(folder: Path) -> Path:
    """Return a folder in the capitals in which it is there."""
    if is_there(folder) or folder.name in PARTS or folder == folder.parent:
        return folder
    parent = _as_written(folder.parent)
    held = {p.name.lower(): p for p in _listed(parent)}
    return held.get(folder.name.lower(), parent / folder.name)


def _listed(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted; nothing where nobody may look."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
