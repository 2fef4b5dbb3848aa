"""What manifests and digests cost, as a share of the notebooks' time.

    python tests/benchmarks/bookkeeping.py --profile demo --subjects 1 --out FILE.json

Runs the cells of each notebook in a process of its own, in a temporary folder, with a
clock on every function that computes a digest, reads or writes a manifest, or moves an
artefact into place; of calls within calls only the outer one counts, and the writing of
the artefact itself does not. The aim is a share below 2 %.
"""

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AIM = 0.02
#: What keeps the books: module of `minddiff_utils`, owner in it, names.
BOOKS = (
    ("core.provenance", "", ("digest_file", "digest_json", "digest_paths")),
    ("core.provenance", "", ("describe", "input_digest", "read_manifest")),
    ("core.store", "", ("_write", "is_intact")),
    ("generation.generate", "", ("checkpoint_of",)),
)
#: Tells the process that runs a notebook where to write what it found.
FOUND = "MINDDIFF_BOOKKEEPING"


class Clock:
    """Sums the seconds of clocked calls, without the work that is done inside."""

    def __init__(self) -> None:
        self.seconds, self._running, self._since = 0.0, False, 0.0

    def books(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Clock `function` unless a clocked one called it."""

        @functools.wraps(function)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            return self._switched(True, function, args, kwargs)

        return clocked

    def work(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Stop the clock while `function` runs."""

        @functools.wraps(function)
        def stopped(*args: Any, **kwargs: Any) -> Any:
            return self._switched(False, function, args, kwargs)

        return stopped

    def _switched(self, on: bool, function: Any, args: Any, kwargs: Any) -> Any:
        before = self._running
        self._set(on)
        try:
            return function(*args, **kwargs)
        finally:
            self._set(before)

    def _set(self, on: bool) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds += now - self._since
        self._running, self._since = on, now


def set_clock(clock: Clock) -> None:
    """Put `clock` on the functions of `BOOKS`; the filling of artefacts is work."""
    from minddiff_utils.core import store

    for name, owner, functions in BOOKS:
        module = importlib.import_module(f"minddiff_utils.{name}")
        home = getattr(module, owner) if owner else module
        for function in functions:
            setattr(home, function, clock.books(getattr(home, function)))
    write: Callable[..., Any] = store._write

    def filled(path: Path, fill: Callable[[Path], None], *rest: Any) -> Any:
        return write(path, clock.work(fill), *rest)

    store._write = filled


def run_cells(notebook: Path, parameters: dict[str, Any], found: Path) -> None:
    """Run a notebook's code in this process and write the seconds to `found`."""
    import matplotlib as mpl
    import nbformat

    mpl.use("Agg")
    clock = Clock()
    set_clock(clock)
    cells = nbformat.read(notebook, as_version=4).cells
    space: dict[str, Any] = {"display": lambda *_: None}
    began = time.perf_counter()
    for cell in cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
            if "parameters" in cell.metadata.get("tags", []):
                space.update(parameters)
    whole = time.perf_counter() - began
    found.write_text(json.dumps({"seconds": whole, "books": clock.seconds}))


def clocked_job(
    job: Any, source: Path, environment: dict[str, str], folder: Path
) -> dict[str, float]:
    """Run one job's notebook in a process of its own; return seconds and books."""
    found = folder / "found.json"
    orders = {"notebook": job.notebook, "parameters": dict(job.parameters)}
    command = [sys.executable, __file__, "--job", json.dumps(orders)]
    subprocess.run(
        command, env=environment | {FOUND: str(found)}, cwd=source, check=True
    )
    seconds: dict[str, float] = json.loads(found.read_text())
    return seconds


def seconds_of_records(folder: Path) -> float:
    """Digest every artefact once, as the records of the notebooks do afterwards."""
    from minddiff_utils.core.provenance import digest_file

    began = time.perf_counter()
    for manifest in folder.rglob("*.manifest.json"):
        path = manifest.with_name(manifest.name.removesuffix(".manifest.json"))
        if path.is_file():
            digest_file(path)
    return time.perf_counter() - began


def measure(profile_name: str, subjects: list[int], folder: Path) -> dict[str, Any]:
    """Run all notebooks in `folder`; return seconds by notebook, and the share."""
    from minddiff_utils.core.places import project_root
    from minddiff_utils.core.profile_files import load_profile
    from minddiff_utils.core.run import Tree
    from minddiff_utils.pipeline.graph import make_plan

    overrides = {"subjects": subjects}
    profile = load_profile(profile_name, overrides)
    source = project_root() / "notebooks"
    (folder / "data").mkdir()
    for name in ("models", "atlas", "sprites", "study"):
        (folder / "data" / name).symlink_to(project_root() / "data" / name)
    tree = Tree(folder, profile_name, folder / "data" / profile_name / "nsd")
    environment = dict(os.environ) | {
        "MINDDIFF_ROOT": str(folder),
        "MINDDIFF_NSD_ROOT": str(tree.nsd),
        "OMP_NUM_THREADS": "1",
    }
    plan = make_plan(profile, tree, overrides)
    jobs = {j.name: clocked_job(j, source, environment, folder) for j in plan.jobs}
    seconds = sum(j["seconds"] for j in jobs.values())
    books = sum(j["books"] for j in jobs.values()) + seconds_of_records(folder)
    return {"profile": profile_name, "subjects": subjects, "jobs": jobs} | {
        "seconds": seconds,
        "books": books,
        "share": books / seconds,
        "met": books / seconds < AIM,
    }


def main() -> None:
    """Measure, or run one notebook for a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--subjects", default="1", help="with commas")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        job = json.loads(args.job)
        notebook = Path.cwd() / f"{job['notebook']}.ipynb"
        run_cells(notebook, job["parameters"], Path(os.environ[FOUND]))
        return
    subjects = [int(s) for s in args.subjects.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.profile, subjects, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
