"""How a finished run differs from the reference: claim by claim, table by table.

Tables print numbers with six significant digits, sentences with as many decimals as
they show. Two numbers are within rounding where they differ by at most one unit of the
last digit that is printed: of the sixth significant one in a cell that is a number,
of the last decimal in a sentence. Whole numbers in a sentence are counts and must be
equal.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.machine import processor_name
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.store import read_bytes
from minddiff_utils.reporting.reference.about import LEDGER, About, read_about, read_run

__all__ = ["Comparison", "Part", "compare", "compare_cells"]

Kind = Literal["identical", "within rounding", "different"]
_KINDS: tuple[Kind, ...] = ("identical", "within rounding", "different")
_DIGITS = 6
#: What floating point makes of zero.
_ZERO = 1e-12
#: So that one unit itself counts, whatever binary floating point makes of it.
_SLACK = 1 + 1e-6
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
#: A column that is measured anew in each run.
_MEASURED = "seconds"


@dataclass(frozen=True)
class Part:
    """A claim or a table, how it agrees, and in `words` where it does not.

    `is_changed_verdict`: whether it is a claim with another verdict.
    """

    name: str
    kind: Kind
    words: str = ""
    is_changed_verdict: bool = False

    def line(self, width: int) -> str:
        """Return one line of the comparison, its name on `width` characters."""
        words = f", {self.words}" if self.words else ""
        return f"{self.name + ':':<{width + 1}} {self.kind}{words}"


@dataclass(frozen=True)
class Comparison:
    """A run beside the reference, claim by claim and table by table.

    `notes`: what made the two, and what differs in it.
    """

    notes: tuple[str, ...]
    claims: tuple[Part, ...]
    tables: tuple[Part, ...]

    def lines(self) -> list[str]:
        """Return the whole comparison, line by line."""
        parts = (*self.claims, *self.tables)
        width = max(len(part.name) for part in parts)
        return [*self.notes, *(part.line(width) for part in parts)]

    def difference(self) -> str:
        """Return one sentence on what differs beyond rounding; empty if nothing."""
        parts = []
        for what, whole in (("claims", self.claims), ("tables", self.tables)):
            if own := [part.name for part in whole if part.kind == "different"]:
                parts.append(f"{len(own)} of {len(whole)} {what} ({', '.join(own)})")
        if not parts:
            return ""
        changed = [part.name for part in self.claims if part.is_changed_verdict]
        verdicts = "no verdict changes"
        if changed:
            verdicts = f"the verdict changes on {', '.join(changed)}"
        return (
            f"This run differs from the reference beyond rounding in"
            f" {' and '.join(parts)}; {verdicts}."
        )


def compare(run: Path, reference: Path, *, profile: Profile) -> Comparison:
    """Compare the finished run in the folder `run` with a reference.

    `run`: `figures/<profile>`, made with `profile`; `reference`: a folder that
    `write_reference` wrote. The reference is of another profile, other settings or
    another version: ConfigError; there is no reference, or no finished run: DataError;
    a file of either is damaged: StoreError.
    """
    about = read_about(reference)
    _check_profile(about, profile)
    manifest = read_run(run, profile)
    version = manifest["versions"].get("minddiff-utils")
    if version != about.version:
        raise ConfigError(
            f"The reference is of version {about.version}, the run in {run} of version"
            f" {version}: check out that version, or run again with this one's code,"
            " then compare."
        )
    here, there = (_cells(folder / LEDGER) for folder in (run, reference))
    names = sorted(name for name in about.files if re.match(r"tables/.*\.csv$", name))
    return Comparison(
        notes=tuple(_notes(about, manifest, run)),
        claims=_claims(here, there),
        tables=tuple(_table(run / name, reference / name) for name in names),
    )


def _check_profile(about: About, profile: Profile) -> None:
    if about.profile != profile.name:
        raise ConfigError(
            f"The reference is of profile {about.profile}, not {profile.name}: compare"
            f" that with minddiff compare --profile {about.profile}."
        )
    if about.digest != profile.digest:
        both = profile.model_dump(mode="json"), dict(about.settings)
        now, then = (dict(pd.json_normalize(s).iloc[0]) for s in both)
        other = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
        raise ConfigError(
            f"The reference was made with other settings"
            f" ({', '.join(other) or 'the profile'}): compare a run of"
            f" profile {about.profile} as it is in the clone."
        )


def _notes(about: About, manifest: Mapping[str, Any], run: Path) -> Iterable[str]:
    """Give what made the two, and what differs in it."""
    yield f"Reference: {about.words()}"
    yield f"Compared with it: {run}"
    versions = manifest["versions"]
    other = [
        f"{name} {versions.get(name, 'absent')} (reference {there})"
        for name, there in about.versions.items()
        if versions.get(name) != there
    ]
    if other:
        yield f"Other libraries: {', '.join(other)}"
    if manifest["code"] != about.code:
        yield f"Other code than the reference's (commit {about.commit})"
    made = (run / "tables").glob("*.csv.manifest.json")
    names = {f"tables/{path.name.removesuffix('.manifest.json')}" for path in made}
    if more := sorted(names - about.files.keys()):
        yield f"Not in the reference: {', '.join(more)}"
    if processor_name() != about.machine["processor"]:
        yield f"Another processor: {processor_name()}"


# --- claims and tables ----------------------------------------------------------------


def _cells(path: Path) -> pd.DataFrame:
    """Return the cells of a table as they are printed."""
    text = BytesIO(read_bytes(path))
    return pd.read_csv(text, dtype=str, keep_default_na=False)


def _claims(here: pd.DataFrame, there: pd.DataFrame) -> tuple[Part, ...]:
    """Compare two ledgers, claim by claim."""
    ours, theirs = (dict(iter(t.groupby("claim", sort=False))) for t in (here, there))
    parts = []
    for name in map(str, dict.fromkeys((*theirs, *ours))):
        if name in ours and name in theirs:
            parts.append(_claim(name, ours[name], theirs[name]))
        else:
            where = "the reference" if name in ours else "this run"
            parts.append(Part(name, "different", f"not in {where}", True))
    return tuple(parts)


def _claim(name: str, here: pd.DataFrame, there: pd.DataFrame) -> Part:
    """Compare the endpoints of one claim."""
    now, before = (rows["verdict"].iloc[0] for rows in (here, there))
    if before != now:
        words = f"the verdict changes from '{before}' to '{now}'"
        return Part(name, "different", words, True)
    stays = f"the verdict stays '{now}'"
    if len(here) != len(there) or list(here) != list(there):
        return Part(name, "different", f"{stays}; it has other endpoints")
    kinds = {
        column: _worst(map(compare_cells, here[column], there[column]))
        for column in here
    }
    other = [str(column) for column, kind in kinds.items() if kind == "different"]
    words = f"{stays}; other: {', '.join(other)}" if other else ""
    return Part(name, _worst(kinds.values()), words)


def _table(here: Path, there: Path) -> Part:
    """Compare the table of a run with that of the reference."""
    name = here.stem
    if not here.is_file():
        return Part(name, "different", "not in this run")
    ours, theirs = _cells(here), _cells(there)
    if list(ours) != list(theirs):
        return Part(name, "different", "it has other columns")
    words = [f"{_MEASURED} measured and not compared"] if _MEASURED in ours else []
    if name == _MEASURED:  # a notebook that ran again has a row, or has none yet
        return Part(name, "identical", words[0])
    if len(ours) != len(theirs):
        n_rows = f"{len(ours)} rows, {len(theirs)} in the reference"
        return Part(name, "different", n_rows)
    ours, theirs = (t.drop(columns=_MEASURED, errors="ignore") for t in (ours, theirs))
    kinds = [
        compare_cells(a, b)
        for a, b in zip(ours.to_numpy().flat, theirs.to_numpy().flat, strict=True)
    ]
    other = [place for place, kind in enumerate(kinds) if kind == "different"]
    if other:
        words.append(
            f"{len(other)} of {len(kinds)} cells, {_largest(ours, theirs, other)}"
        )
    return Part(name, _worst(kinds), "; ".join(words))


def _largest(ours: pd.DataFrame, theirs: pd.DataFrame, places: list[int]) -> str:
    """Return in words which of the cells at `places` differs most."""

    def size(place: int) -> float:
        a, b = (_as_number(t.to_numpy().flat[place]) for t in (ours, theirs))
        if a is None or b is None or a == b:
            return 0.0
        return abs(a - b) / max(abs(a), abs(b))

    row, column = divmod(max(places, key=size), ours.shape[1])
    here, there = (str(t.iloc[row, column]) or "nothing" for t in (ours, theirs))
    return (
        f"most of all {ours.columns[column]} in row {row + 1}"
        f" ({' '.join(theirs.iloc[row, :3].tolist())}): {here}, reference {there}"
    )


# --- cells ----------------------------------------------------------------------------


def _worst(kinds: Iterable[Kind]) -> Kind:
    """Return the kind that says most; identical where there is none."""
    return max(kinds, key=_KINDS.index, default="identical")


def compare_cells(here: str, there: str) -> Kind:
    """Return how two cells of a table agree.

    >>> compare_cells("0.123457", "0.123456")
    'within rounding'
    >>> compare_cells("shown: +0.075, 3 of 4", "shown: +0.076, 4 of 4")
    'different'
    """
    if here == there:
        return "identical"
    a, b = _as_number(here), _as_number(there)
    if a is not None and b is not None:
        size = max(abs(a), abs(b), _ZERO)
        unit = 10.0 ** (math.floor(math.log10(size)) - _DIGITS + 1)
        is_close = size <= _ZERO or abs(a - b) <= max(unit * _SLACK, _ZERO)
        return "within rounding" if is_close else "different"
    if _NUMBER.sub("#", here) != _NUMBER.sub("#", there):
        return "different"
    pairs = zip(_NUMBER.findall(here), _NUMBER.findall(there), strict=True)
    return _worst(_compare_in_text(Decimal(x), Decimal(y)) for x, y in pairs)


def _as_number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _compare_in_text(a: Decimal, b: Decimal) -> Kind:
    if a == b:
        return "identical"
    last = max(int(a.as_tuple().exponent), int(b.as_tuple().exponent))
    is_close = last < 0 and abs(a - b) <= Decimal(1).scaleb(last)
    return "within rounding" if is_close else "different"
