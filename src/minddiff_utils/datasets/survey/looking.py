"""How one file is looked at: whatever goes wrong becomes a finding.

Place in the flow: part of `survey`; everything there goes through `look`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from minddiff_utils.core.config import FeatureConfig
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.reading import in_words
from minddiff_utils.datasets.nsd.facts import FACTS, N_SESSIONS
from minddiff_utils.datasets.nsd.files import again
from minddiff_utils.datasets.nsd.forms import find
from minddiff_utils.datasets.nsd.reader import NsdTree, VoxelSet
from minddiff_utils.datasets.survey.findings import UNREAD, Finding, State

__all__ = ["UNREAD", "Item", "Scope", "damage", "differs", "look"]

T = TypeVar("T")


@dataclass(frozen=True)
class Scope:
    """What is asked of which folder."""

    tree: NsdTree
    subjects: tuple[int, ...]
    sessions: tuple[int, ...]  # ascending, 1-based
    deep: bool
    is_real: bool
    # before a run: what it reads alone, whether or not NSD publishes other numbers
    before_run: bool = False
    voxels: VoxelSet = "areas"
    n_captions: int = FeatureConfig().n_captions

    @property
    def published(self) -> bool:
        """Return whether the constants that NSD publishes must hold."""
        return self.is_real and not self.before_run

    @property
    def remedy(self) -> str:
        """Return where a lacking file comes from."""
        return "download it from NSD" if self.is_real else "simulate the folder"

    @property
    def captions(self) -> str:
        """Return where lacking captions come from."""
        coco = "unpack COCO's annotations_trainval2017.zip"
        return coco if self.is_real else self.remedy

    def n_sessions(self, subject: int) -> int:
        """Return the last session that `subject` can have."""
        return FACTS[subject].n_sessions if self.is_real else N_SESSIONS

    def asked(self, subject: int) -> tuple[int, ...]:
        """Return those of the sessions asked for that `subject` has, or should have."""
        try:
            return self.tree.sessions_of(subject, self.sessions)
        except DataError:
            return ()


@dataclass(frozen=True)
class Item:
    """Something to look at."""

    subject: int | None
    name: str
    path: Path | None
    expected: str
    optional: bool = False
    source: str = ""  # where to get it, if not from NSD

    def finding(self, state: State, found: str, remedy: str = "") -> Finding:
        """Return the finding about this item."""
        about = (self.subject, self.name, self.path, state, self.expected, found)
        return Finding(*about, remedy, self.optional)


def look(
    scope: Scope, item: Item, read: Callable[..., tuple[T, str]], *args: Any
) -> tuple[Finding, T | None]:
    """Return the finding about `item`, and what `read` got from it if all is well.

    `read` returns a value and what it saw, or raises whatever damaged files make the
    libraries raise.
    """
    remedy = item.source or scope.remedy
    if item.path is not None:
        item = replace(item, path=find(item.path))
    try:
        if item.path is not None and not item.path.exists():
            state: State = "optional missing" if item.optional else "missing"
            found = "a link to nothing" if item.path.is_symlink() else "not there"
            return item.finding(state, found, remedy), None
        value, found = read(*args)
    except Exception as error:  # noqa: BLE001  (a damaged file may raise anything)
        return damage(item, error, remedy), None
    return item.finding("ok", found), value


def damage(item: Item, error: Exception, remedy: str) -> Finding:
    """Return the finding for an error; what it says of path and remedy has a column.

    `remedy` is said where the error has none of its own, and no file to blame.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if item.path is not None:
        remedy = again(item.path)
        if not isinstance(error, DataError):
            text = in_words(item.path, error, "cannot be understood", remedy)
        text = text.replace(f" at {item.path}", "")
        text = text.replace(str(item.path), item.path.name)
    wrong, _, last = text.rstrip(".").rpartition(": ")
    state: State = "unreadable" if "cannot be read (" in wrong else "damaged"
    return item.finding(state, wrong or last, last if wrong else remedy)


def differs(found: object, expected: object) -> DataError:
    """Return the error that says what is there and what should be."""
    return DataError(f"{found}, but {expected} is expected.")
