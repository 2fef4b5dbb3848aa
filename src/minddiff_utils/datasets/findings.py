"""What a check of a folder found: findings, counts, and how they are printed."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import pandas as pd

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets.nsd.publisher import NSD

__all__ = ["Count", "Finding", "Report", "look", "sentences", "spoilt"]

T = TypeVar("T")
State = Literal[
    "ok", "missing", "damaged", "unreadable", "unexpected", "optional missing"
]
_STATES: tuple[State, ...] = get_args(State)
_UNUSABLE = ("missing", "damaged", "unreadable")
#: How the item of a missing session begins.
_SESSION = "betas session "


@dataclass(frozen=True)
class Finding:
    """What was found out about one file, or about several that must agree.

    Attributes
    ----------
    subject : int or None
        None for what all subjects share.
    item : str
        What it is, such as "betas session 03 hdf5".
    path : Path or None
        The file; None where several files must agree.
    optional : bool
        Whether a run goes on without it.
    is_unread : bool
        Whether only its header and length were looked at.
    state : str
        "ok"; "missing", "damaged" or "unreadable" (the system lets nobody read it, it
        may be whole), which a run would stumble over; "optional missing", without
        which it goes on; "unexpected", not what NSD publishes.
    words : str
        What is wrong and what to do, as the reader says it.
    """

    subject: int | None
    item: str
    path: Path | None = None
    optional: bool = False
    is_unread: bool = False
    state: State = "ok"
    words: str = ""

    def but(self, state: State, words: str) -> "Finding":
        """Return the finding in another state, for a reason."""
        return replace(self, state=state, words=words)

    @property
    def is_unusable(self) -> bool:
        """Return whether it cannot be used."""
        return self.state in _UNUSABLE

    @property
    def owner(self) -> str:
        """Return whose it is."""
        return "all subjects" if self.subject is None else f"subject {self.subject}"

    @property
    def sentence(self) -> str:
        """Return the finding as one sentence."""
        return f"{self.state}: {self.owner}, {self.item}: {self.words}."


def look(
    finding: Finding, read: Callable[..., T], *args: Any
) -> tuple[Finding, T | None]:
    """Return the finding, and what `read` returned if all is well.

    A damaged file may make the libraries raise anything, which becomes a sentence.
    """
    try:
        if finding.path is None:
            return finding, read(*args)
        with NSD.reading(finding.path, finding.item):
            return finding, read(*args)
    except DataError as error:
        return spoilt(finding, error), None


def spoilt(finding: Finding, error: DataError) -> Finding:
    """Return the finding for an error."""
    words = " ".join(str(error).split()).rstrip(".")
    state: State = "damaged"
    if "cannot be read (" in words:
        state = "unreadable"
    elif finding.path is not None and not os.path.exists(finding.path):  # noqa: PTH110
        state = "optional missing" if finding.optional else "missing"
    return finding.but(state, words)


# --- a folder -------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """A number of one subject and, where it is known, what it should be."""

    subject: int
    quantity: str
    n: int
    expected: int | None = None


@dataclass(frozen=True)
class Report:
    """What `check_folder` found.

    Attributes
    ----------
    root : Path
        The folder.
    is_real : bool
        False if a simulation marked the folder as its own.
    sessions : tuple of int
        The sessions of each subject that were asked for, from 1.
    findings : tuple of Finding
        One for each file, and one for each agreement between files.
    counts : tuple of Count
        Trials, images and voxels of each subject.
    """

    root: Path
    is_real: bool
    sessions: tuple[int, ...]
    findings: tuple[Finding, ...]
    counts: tuple[Count, ...]

    @property
    def exit_code(self) -> int:
        """Return 1 if a file cannot be used, else 0; the rest are warnings."""
        return int(any(finding.is_unusable for finding in self.findings))

    @property
    def verdict(self) -> str:
        """Return how many findings are in which state."""
        states = Counter(f.state for f in self.findings)
        named = [f"{states[state]} {state}" for state in _STATES if states[state]]
        unread = sum(f.is_unread and f.state == "ok" for f in self.findings)
        more = f" ({unread} only by header and length)" if unread else ""
        return f"{len(self.findings)} findings: {', '.join(named)}{more}."

    def lines(self) -> list[str]:
        """Return what to print: states, what is wrong, counts, and the verdict.

        Paths are relative to the folder, which the first line names.
        """
        real = "taken for NSD itself: nothing marks it as in silico"
        first = self.sessions == tuple(range(1, len(self.sessions) + 1))
        numbers = ", ".join(map(str, self.sessions))
        asked = (
            f"first {len(self.sessions)} sessions" if first else f"sessions {numbers}"
        )
        wrong = [text.replace(f"{self.root}/", "") for text in sentences(self.findings)]
        rows = pd.DataFrame([(f.owner, f.state) for f in self.findings])
        table = pd.crosstab(rows[0], rows[1])
        return [
            f"{self.root} ({real if self.is_real else 'in silico'}), {asked}",
            "",
            *_printed(table.reindex(columns=[s for s in _STATES if s in table])),
            "",
            *wrong,
            *([""] if wrong else []),
            *_numbers(self.counts),
            self.verdict,
        ]


def sentences(findings: Sequence[Finding]) -> list[str]:
    """Return a sentence for each finding not all right, the many alike in one."""
    lines, sessions, optional = [], dict[str, list[Finding]](), dict[str, list[str]]()
    for finding in findings:
        if finding.state == "missing" and finding.item.startswith(_SESSION):
            sessions.setdefault(finding.owner, []).append(finding)
        elif finding.state == "optional missing":
            optional.setdefault(finding.owner, []).append(finding.item)
        elif finding.state != "ok":
            lines.append(finding.sentence)
    for missing in sessions.values():
        numbers = ", ".join(f.item.removeprefix(_SESSION) for f in missing)
        lines.append(replace(missing[0], item=f"{_SESSION}{numbers}").sentence)
    for owner, items in optional.items():
        lines.append(f"optional missing: {owner}: {', '.join(items)}.")
    return lines


def _numbers(counts: Sequence[Count]) -> list[str]:
    """Return the counts, a column per subject, the expected number where it differs."""
    cells: dict[str, dict[str, str]] = {}
    for count in counts:
        is_other = count.expected not in (None, count.n)
        text = f"{count.n:,}" + (f" (not {count.expected:,})" if is_other else "")
        cells.setdefault(f"subject {count.subject}", {})[count.quantity] = text
    return [*_printed(pd.DataFrame(cells).fillna("—")), ""] if cells else []


def _printed(table: pd.DataFrame) -> list[str]:
    return str(table.rename_axis(index=None, columns=None).to_string()).splitlines()
