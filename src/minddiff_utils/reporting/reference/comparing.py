"""How a finished run differs from the reference, claim by claim and table by table."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from minddiff_utils.core.config import Profile
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.machine import processor_name
from minddiff_utils.core.store import read_bytes
from minddiff_utils.reporting.reference.about import About, read_about
from minddiff_utils.reporting.reference.cells import (
    Kind,
    compare_cells,
    relative,
    worst,
)
from minddiff_utils.reporting.reference.run import read_manifest

__all__ = ["Comparison", "Part", "compare"]

#: Columns that are measured anew in each run.
_MEASURED = ("seconds",)
_LEDGER = "claims.csv"


@dataclass(frozen=True)
class Part:
    """A claim or a table: how it agrees, and in words where it does not."""

    name: str
    kind: Kind
    words: str = ""
    is_changed_verdict: bool = False

    def line(self) -> str:
        """Return one line of the comparison."""
        return f"{self.name}: {self.kind}" + (f", {self.words}" if self.words else "")


@dataclass(frozen=True)
class Comparison:
    """A run beside the reference."""

    notes: tuple[str, ...]
    claims: tuple[Part, ...]
    tables: tuple[Part, ...]

    def lines(self) -> list[str]:
        """Return all that is to be said, line by line."""
        parts = (*self.claims, *self.tables)
        width = max(len(part.name) for part in parts)
        aligned = (
            part.line().replace(":", ":" + " " * (width - len(part.name)), 1)
            for part in parts
        )
        return [*self.notes, *aligned]

    def difference(self) -> str:
        """Return one sentence on what differs beyond rounding; empty if nothing."""
        changed = [c.name for c in self.claims if c.is_changed_verdict]
        claims = [c.name for c in self.claims if c.kind == "different"]
        tables = [t.name for t in self.tables if t.kind == "different"]
        if not claims and not tables:
            return ""
        parts = [
            f"{len(found)} of {len(whole)} {what} ({', '.join(found)})"
            for found, whole, what in (
                (claims, self.claims, "claims"),
                (tables, self.tables, "tables"),
            )
            if found
        ]
        verdicts = (
            f"the verdict changes on {', '.join(changed)}"
            if changed
            else "no verdict changes"
        )
        return (
            f"This run differs from the reference beyond rounding in"
            f" {' and '.join(parts)}; {verdicts}."
        )


def compare(run: Path, reference: Path, *, profile: Profile) -> Comparison:
    """Compare the finished run in the folder `run` with a reference.

    Parameters
    ----------
    run : Path
        `figures/<profile>` of a finished run.
    reference : Path
        A folder that `write_reference` wrote.
    profile : Profile
        What the run was made with.

    Raises
    ------
    ConfigError
        The reference is of another profile, other settings or another version.
    DataError
        There is no reference, or no finished run.
    StoreError
        A file of either is damaged.
    """
    about = read_about(reference)
    _check_profile(about, profile)
    manifest = read_manifest(run, profile)
    version = manifest["versions"].get("minddiff-utils")
    if version != about.version:
        raise ConfigError(
            f"The reference is of version {about.version}, the run in {run} of version"
            f" {version}: check out that version, or run again with this one's code,"
            " then compare."
        )
    names = sorted(
        name
        for name in about.files
        if name.startswith("tables/") and name.endswith(".csv")
    )
    return Comparison(
        notes=_notes(about, manifest, run),
        claims=_claims(_rows(run / _LEDGER), _rows(reference / _LEDGER)),
        tables=tuple(_table(run / name, reference / name) for name in names),
    )


def _check_profile(about: About, profile: Profile) -> None:
    if about.profile != profile.name:
        raise ConfigError(
            f"The reference is of profile {about.profile}, not {profile.name}: compare"
            f" that with minddiff compare --profile {about.profile}."
        )
    if about.digest != profile.digest:
        now = profile.model_dump(mode="json")
        names = ", ".join(_differing(now, about.settings)) or "the profile's fields"
        raise ConfigError(
            f"The reference was made with other settings ({names}): compare a run of"
            f" profile {about.profile} as it is in the clone."
        )


def _differing(
    here: Mapping[str, Any], there: Mapping[str, Any], above: str = ""
) -> list[str]:
    """Return the names of the fields that differ, as `--set` takes them."""
    found = []
    for key in here.keys() | there.keys():
        a, b = here.get(key), there.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differing(a, b, f"{above}{key}.")
        elif a != b:
            found.append(f"{above}{key}")
    return sorted(found)


def _notes(about: About, manifest: Mapping[str, Any], run: Path) -> tuple[str, ...]:
    """Return what made the two, and what differs in it."""
    notes = [f"Reference: {about.words()}", f"Compared with it: {run}"]
    versions = manifest["versions"]
    other = [
        f"{name} {versions.get(name, 'absent')} (reference {there})"
        for name, there in about.versions.items()
        if versions.get(name) != there
    ]
    if other:
        notes.append(f"Other libraries: {', '.join(other)}")
    if manifest["code"] != about.code:
        notes.append(f"Other code than the reference's (commit {about.commit})")
    made = {
        f"tables/{path.name.removesuffix('.manifest.json')}"
        for path in (run / "tables").glob("*.csv.manifest.json")
    }
    more = sorted(made - about.files.keys())
    if more:
        notes.append(f"Not in the reference: {', '.join(more)}")
    if processor_name() != about.machine["processor"]:
        notes.append(f"Another processor: {processor_name()}")
    return tuple(notes)


# --- tables -------------------------------------------------------------------------


def _rows(path: Path) -> list[list[str]]:
    """Return the cells of a table as they are printed, its header first."""
    return list(csv.reader(StringIO(read_bytes(path).decode())))


def _claims(here: list[list[str]], there: list[list[str]]) -> tuple[Part, ...]:
    """Compare two ledgers, claim by claim."""
    own = {row[0]: dict(zip(here[0], row, strict=True)) for row in here[1:]}
    known = {row[0]: dict(zip(there[0], row, strict=True)) for row in there[1:]}
    parts = []
    for name in dict.fromkeys((*known, *own)):
        if name not in own or name not in known:
            where = "this run" if name not in own else "the reference"
            parts.append(Part(name, "different", f"not in {where}", True))
            continue
        parts.append(_claim(name, own[name], known[name]))
    return tuple(parts)


def _claim(name: str, here: Mapping[str, str], there: Mapping[str, str]) -> Part:
    before, now = _verdict(there), _verdict(here)
    if before != now:
        words = f"the verdict changes from '{before}' to '{now}'"
        return Part(name, "different", words, True)
    kinds = {
        column: compare_cells(here.get(column, ""), there.get(column, ""))
        for column in dict.fromkeys((*there, *here))
    }
    differing = [column for column, kind in kinds.items() if kind == "different"]
    words = f"the verdict stays '{now}'; other: {', '.join(differing)}"
    return Part(name, worst(list(kinds.values())), words if differing else "")


def _verdict(row: Mapping[str, str]) -> str:
    """Return the verdict without the numbers that follow it."""
    return row["verdict"].partition(":")[0]


def _table(here: Path, there: Path) -> Part:
    """Compare the table of a run with that of the reference."""
    if not here.is_file():
        return Part(here.stem, "different", "not in this run")
    own, known = _rows(here), _rows(there)
    if own[:1] != known[:1]:
        return Part(here.stem, "different", "it has other columns")
    if len(own) != len(known):
        words = f"{len(own) - 1} rows, {len(known) - 1} in the reference"
        return Part(here.stem, "different", words)
    header = known[0] if known else []
    columns = [k for k, name in enumerate(header) if name not in _MEASURED]
    left_out = [name for name in header if name in _MEASURED]
    cells = [
        (row, column, own[row][column], known[row][column])
        for row in range(1, len(known))
        for column in columns
    ]
    return _judged(here.stem, header, known, cells, left_out)


def _judged(
    name: str,
    header: Sequence[str],
    known: Sequence[Sequence[str]],
    cells: Sequence[tuple[int, int, str, str]],
    left_out: Sequence[str],
) -> Part:
    kinds = [compare_cells(here, there) for *_, here, there in cells]
    differing = [c for c, kind in zip(cells, kinds, strict=True) if kind == "different"]
    words = [f"{', '.join(left_out)} measured and not compared"] if left_out else []
    if differing:
        row, column, here, there = max(differing, key=lambda c: relative(*c[2:]))
        who = " ".join(known[row][:3])
        words.append(
            f"{len(differing)} of {len(cells)} cells, most of all {header[column]} in"
            f" row {row} ({who}): {here or 'nothing'}, reference {there or 'nothing'}"
        )
    return Part(name, worst(kinds), "; ".join(words))
