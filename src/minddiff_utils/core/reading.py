"""What goes wrong in reading a file, whichever library reads it, in one sentence.

Only what the libraries say of a file's own bytes is damage; what the system says (a
lock, a permission, a disk, memory) is said as such, and nobody is told to replace a
file that may be whole. Every reader of the package goes through here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minddiff_utils.core.errors import MindDiffError, read_trouble

__all__ = ["in_words", "reading", "stand_in"]

_HEAD = 1024  # bytes that tell what a file really is
_TAIL = 1 << 16
_LONGEST = 300  # of a library's words


@contextmanager
def reading(
    path: Path,
    kind: type[MindDiffError],
    *,
    found: str = "is damaged",
    remedy: str,
    what: str = "",
) -> Iterator[None]:
    """Turn whatever a library raises while it reads `path` into one sentence.

    Parameters
    ----------
    path : Path
        The file, which is named.
    kind : type
        The error to raise.
    found, remedy : str
        What is wrong and what to do where the file itself is damaged.
    what : str
        What the file is, such as "Betas".
    """
    try:
        yield
    except MindDiffError:
        raise
    except Exception as error:  # a damaged file may raise anything
        name = f"{what} at {path}" if what else str(path)
        raise kind(f"{name} {in_words(path, error, found, remedy)}.") from error


def in_words(path: Path, error: Exception, found: str, remedy: str) -> str:
    """Return what is wrong with `path`, a colon, and what to do."""
    trouble = read_trouble(error) or _probe(path)
    if trouble is not None:
        return trouble
    other, fetch = stand_in(path)
    if other:
        return f"{other}: {fetch or remedy}"
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = "".join(c if c.isprintable() else "?" for c in reason)[:_LONGEST]
    return f"{found} ({reason}): {remedy}"


def _probe(path: Path) -> str | None:
    """Return the trouble that the system has with the ends of a file.

    Some libraries take an error of the system for a file of no known kind.
    """
    try:
        with path.open("rb") as file:
            file.read(_TAIL)
            file.seek(max(file.seek(0, 2) - _TAIL, 0))
            file.read(_TAIL)
    except OSError as error:
        return read_trouble(error)
    return None


def stand_in(path: Path) -> tuple[str, str]:
    """Return what lies in the place of a file that never came, and how to get it.

    Both are empty where nothing of the kind is seen; the second where it is not known.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head.lstrip().lower()
    if not head:
        return "is empty", ""
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file", "get it (`git lfs pull`)"
    if b"/annex/objects/" in head:
        return "is a pointer of git-annex, not the file", "get it (`git annex get`)"
    if text.startswith((b"<?xml", b"<!doctype", b"<html", b"<error")):
        return "is a server's page or error message, not the file", ""
    return "", ""
