"""What has been run: a small record beside each executed notebook, and what it tells.

A notebook runs when its source, the code it reaches, the profile, a file that it reads
or something before it has changed, or when an artefact it wrote is gone. Its record
says what made it, how long it took and how much memory. Not for running anything
(`runner`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minddiff_utils.core import provenance
from minddiff_utils.core.run import Tree
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.pipeline.graph import Job

__all__ = [
    "Result",
    "finished_since",
    "is_done",
    "record_path",
    "record_stamp",
    "remember",
    "why",
]


@dataclass(frozen=True)
class Result:
    """How one job ended; `failure` is empty if it went well.

    `where` names the worker that did it, where there are several machines.
    """

    name: str
    seconds: float
    peak_mb: float
    failure: str = ""
    where: str = ""


#: In the place of the key of a job that has no record.
_NEVER = "none"


# --- what is up to date -----------------------------------------------------------


def is_done(job: Job, tree: Tree) -> bool:
    """Return whether `job` was run with this key and its artefacts are still there."""
    return not why(job, tree)


def why(job: Job, tree: Tree) -> str:
    """Return why `job` has to run, in a few words; empty if it is up to date."""
    path = record_path(job, tree)
    if not path.is_file():
        copy = tree.notebooks / f"{job.name}.ipynb"
        return "did not finish" if copy.exists() else "new"
    record = _read_record(path)
    if record is None:
        return "its record is damaged"
    if record["key"] != _expected(job, tree):
        return _changes(job, record.get("facts"))
    if record.get("simulated", {}) != (now := _simulated(job, tree)):
        return _files_changed(now, record.get("simulated"))
    for name, stamp in record["artefacts"].items():
        change = _change(tree.root / name, stamp)
        if change:
            return f"{Path(name).name} {change}"
    return ""


def _expected(job: Job, tree: Tree) -> str:
    """Return the key that a current record has.

    A job before this one that no runner has ever run is `_NEVER` in it.
    """
    before = job.facts.get("before", {})
    lacking = {n for n in before if not (tree.notebooks / f"{n}.run.json").exists()}
    if not lacking:
        return job.key
    known = {name: _NEVER if name in lacking else key for name, key in before.items()}
    return provenance.digest_json(dict(job.facts) | {"before": known})


def _simulated(job: Job, tree: Tree) -> dict[str, str]:
    """Return the stamps of the tree that notebook 00 wrote, nothing for the others."""
    files = NsdTree(tree.nsd).files() if job.notebook.startswith("00") else ()
    return provenance.stamps(files, tree.nsd)


def _changes(job: Job, old: object) -> str:
    """Return what has changed since: the job's own facts, else those before it."""
    if not isinstance(old, dict):
        return "its record is of an earlier version"
    changed = [f for f in job.facts if f != "before" and old.get(f) != job.facts[f]]
    if "code" in changed:
        changed.remove("drawing")  # which holds all code
    if changed:
        words = [
            _files_changed(job.facts[f], old.get(f)) if f == "files" else f"{f} changed"
            for f in sorted(changed, reverse=True)
        ]
        return ", ".join(words)
    before, was = job.facts.get("before", {}), old.get("before")
    was = was if isinstance(was, dict) else {}
    for name, key in before.items():  # in order: the first has changed by itself
        if was.get(name) != key:
            return f"{name} {'changed' if name in was else 'is new'}"
    gone = [name for name in was if name not in before]
    return f"{gone[0]} is no more" if gone else "its record is of an earlier version"


def _files_changed(now: Mapping[str, str], old: object) -> str:
    """Return what happened to the first file that is not as it was."""
    was = old if isinstance(old, dict) else {}
    other = sorted(k for k in now.keys() | was.keys() if now.get(k) != was.get(k))
    word = "is gone" if other[0] not in now else "changed"
    word = word if other[0] in was else "is new"
    more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
    return f"{other[0]} {word}{more}"


def _change(path: Path, known: object) -> str:
    """Return what happened to an artefact since, empty if nothing did.

    Content decides: a bad disk changes no time, and a copied tree has other times.
    """
    size, digest = known if isinstance(known, list) and len(known) == 2 else (-1, "")
    try:
        if path.stat().st_size != size or provenance.digest_file(path) != digest:
            return "was changed or is damaged"
    except OSError:
        return "is gone"
    return ""


# --- records -----------------------------------------------------------------------


def record_path(job: Job, tree: Tree) -> Path:
    """Return where the record of `job` is kept."""
    return tree.notebooks / f"{job.name}.run.json"


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return the record at `path`, None unless it is whole and one of ours."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("artefacts"), dict)
    return record if whole and "key" in record else None


def record_stamp(job: Job, tree: Tree) -> list[int]:
    """Return the stamp of the record of `job`, empty where there is none."""
    try:
        return _stamp(record_path(job, tree))
    except OSError:
        return []


def _stamp(path: Path) -> list[int]:
    """Return size in bytes and time of change in ns of the file at `path`."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def finished_since(job: Job, tree: Tree, stamp: Sequence[int]) -> Result | None:
    """Return the result of `job` if it was done after its record had this stamp.

    `stamp` is what `record_stamp` said then.
    """
    path = record_path(job, tree)
    if not is_done(job, tree) or _stamp(path) == list(stamp):
        return None
    record = _read_record(path) or {}
    return Result(job.name, record.get("seconds", 0.0), record.get("peak_mb", 0.0))


def remember(
    job: Job, tree: Tree, journal: Path, seconds: float, peak_mb: float
) -> None:
    """Write the record of a job that has just been run.

    `journal` lists the files that its notebook wrote, one a line.
    """
    record = record_path(job, tree)
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    # what a notebook kept for a while, such as the state of a long loop, is gone again
    kept = [path for path in map(Path, sorted(set(lines))) if path.exists()]
    known = dict(job.facts) | {"before": _before(job, tree)}
    ran = replace(job, facts=known)
    facts = {
        "key": provenance.digest_json(known) if job.facts else job.key,
        "result": ran.result,
        "facts": known,
        "simulated": _simulated(job, tree),
        "seconds": round(seconds, 1),
        "peak_mb": round(peak_mb),
        "artefacts": {_inside(p, tree.root): _content(p) for p in kept},
    }
    part = record.with_suffix(".part")
    part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    part.replace(record)


def _before(job: Job, tree: Tree) -> dict[str, str]:
    """Return the keys of the jobs before this one as they have truly been run.

    A job that is run alone, while one before it is not up to date, has read what that
    one left: it must not pass for current once that one has been run again.
    """
    keys_run = {}
    for name, key in job.facts.get("before", {}).items():
        record = _read_record(tree.notebooks / f"{name}.run.json") or {}
        keys = [record.get("key", _NEVER), record.get("result", _NEVER)]
        keys_run[name] = key if key in keys else keys[0]
    return keys_run


def _inside(path: Path, root: Path) -> str:
    """Return `path` as seen from `root`: a copied tree is judged by its own files."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _content(path: Path) -> list[Any]:
    """Return size in bytes and digest of the file at `path`."""
    return [path.stat().st_size, provenance.digest_file(path)]
