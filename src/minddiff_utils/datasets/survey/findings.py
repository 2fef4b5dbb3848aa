"""What a survey found: findings, counts, and how they are printed.

Place in the flow: part of `survey`; reads no files.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

__all__ = ["UNREAD", "Count", "Finding", "State", "Survey", "wrong_lines"]

State = Literal[
    "ok", "missing", "damaged", "unreadable", "unexpected", "optional missing"
]

_STATES: tuple[State, ...] = (
    "ok",
    "missing",
    "damaged",
    "unreadable",
    "unexpected",
    "optional missing",
)
#: Said of files whose contents were not read.
UNREAD = "contents not read"
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
    state : str
        "ok"; "missing", "damaged" or "unreadable" (the system lets nobody read it, it
        may be whole), which a run would stumble over; "optional missing", without
        which it goes on; "unexpected", not what NSD publishes.
    expected, found, remedy : str
        What should be there, what is, and what to do; `remedy` is empty if all is well.
    optional : bool
        Whether a run goes on without it.
    """

    subject: int | None
    item: str
    path: Path | None
    state: State
    expected: str
    found: str
    remedy: str = ""
    optional: bool = False

    @property
    def is_fatal(self) -> bool:
        """Return whether a run would stumble over it."""
        unusable = ("missing", "damaged", "unreadable")
        return self.state in unusable and not self.optional

    @property
    def owner(self) -> str:
        """Return whose it is."""
        return "all subjects" if self.subject is None else f"subject {self.subject}"

    @property
    def sentence(self) -> str:
        """Return the finding as one sentence."""
        where = "" if self.path is None else f" at {self.path}"
        found = self.found
        if "expected" not in found:  # some errors say already what is
            found += f"; expected {self.expected}"
        end = f": {self.remedy}." if self.remedy else "."
        return f"{self.state}: {self.owner}, {self.item}{where}: {found}{end}"


@dataclass(frozen=True)
class Count:
    """A number of one subject and, where it is known, what it should be."""

    subject: int
    quantity: str
    n: int
    expected: int | None = None


@dataclass(frozen=True)
class Survey:
    """What `survey` found.

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
    quantities : tuple of Count
        Trials, images and voxels of each subject.
    """

    root: Path
    is_real: bool
    sessions: tuple[int, ...]
    findings: tuple[Finding, ...]
    quantities: tuple[Count, ...]

    @property
    def exit_code(self) -> int:
        """Return 1 if a file cannot be used, else 0; the rest are warnings."""
        unusable = ("missing", "damaged", "unreadable")
        return int(any(f.state in unusable for f in self.findings))

    def table(self) -> pd.DataFrame:
        """Return one row per finding: subject (NA: all), item, state, ..., path."""
        rows = [
            (f.subject, f.item, f.state, f.expected, f.found, f.remedy, f.path)
            for f in self.findings
        ]
        names = ["subject", "item", "state", "expected", "found", "remedy", "path"]
        table = pd.DataFrame(rows, columns=names)
        table["path"] = ["" if p is None else str(p) for p in table["path"]]
        return table.astype({"subject": "Int64"})

    def counts(self) -> pd.DataFrame:
        """Return (subject, quantity, n, expected); `expected` is NA where unknown."""
        rows = [(c.subject, c.quantity, c.n, c.expected) for c in self.quantities]
        table = pd.DataFrame(rows, columns=["subject", "quantity", "n", "expected"])
        return table.astype({"subject": "Int64", "n": "Int64", "expected": "Int64"})

    def lines(self) -> list[str]:
        """Return what to print: states, what is wrong, counts, and one last line.

        Paths are relative to the folder, which the first line names.
        """
        wrong = wrong_lines(self.findings)
        kind = (
            "taken for NSD itself: nothing marks it as in silico"
            if self.is_real
            else "in silico"
        )
        return [
            f"{self.root} ({kind}), {_named(self.sessions)}",
            "",
            *_state_lines(self.findings),
            "",
            *(line.replace(f"{self.root}/", "") for line in wrong),
            *_count_lines(self.quantities),
            self.verdict,
        ]

    @property
    def verdict(self) -> str:
        """Return the last line: how many findings are in which state."""
        states = Counter(f.state for f in self.findings)
        named = [f"{states[state]} {state}" for state in _STATES if states[state]]
        unread = sum(UNREAD in f.found for f in self.findings)
        more = f" ({unread} only by header and length)" if unread else ""
        return f"{len(self.findings)} findings: {', '.join(named)}{more}."


def _named(sessions: tuple[int, ...]) -> str:
    """Return words for sessions, few where they are the first ones."""
    if sessions == tuple(range(1, len(sessions) + 1)):
        return f"first {len(sessions)} sessions"
    return f"sessions {', '.join(map(str, sessions))}"


def _state_lines(findings: Sequence[Finding]) -> list[str]:
    """Return how many findings of each owner are in which state."""
    owners = [f.owner for f in findings]
    states = pd.Series([f.state for f in findings])
    table = pd.crosstab(pd.Series(owners), states)
    shown = table.reindex(columns=[s for s in _STATES if s in table])
    head = ["", *map(str, shown.columns)]
    rows = [[str(name), *map(str, row)] for name, row in shown.iterrows()]
    return _aligned([head, *rows])


def wrong_lines(findings: Sequence[Finding]) -> list[str]:
    """Return a sentence for each finding not all right, the many alike in one."""
    lines, sessions, optional = [], dict[str, list[Finding]](), dict[str, list[str]]()
    for finding in findings:
        if finding.state == "missing" and finding.item.startswith(_SESSION):
            sessions.setdefault(finding.owner, []).append(finding)
        elif finding.state == "optional missing":
            optional.setdefault(finding.owner, []).append(finding.item)
        elif finding.state != "ok":
            lines.append(finding.sentence)
    for some in sessions.values():
        numbers = ", ".join(f.item.removeprefix(_SESSION) for f in some)
        lines.append(replace(some[0], item=f"{_SESSION}{numbers}").sentence)
    for owner, items in optional.items():
        lines.append(f"optional missing: {owner}: {', '.join(items)}.")
    return [*lines, ""] if lines else []


def _count_lines(quantities: Sequence[Count]) -> list[str]:
    """Return the counts, a column per subject, the expected number where it differs."""
    cells: dict[str, dict[int, str]] = {}
    for count in quantities:
        differs = count.expected not in (None, count.n)
        text = f"{count.n:,}" + (f" (not {count.expected:,})" if differs else "")
        cells.setdefault(count.quantity, {})[count.subject] = text
    subjects = sorted({count.subject for count in quantities})
    rows = [["", *(f"subject {s}" for s in subjects)]]
    rows += [
        [name, *(own.get(s, "—") for s in subjects)] for name, own in cells.items()
    ]
    return [*_aligned(rows), ""] if cells else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
