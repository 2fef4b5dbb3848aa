"""The lock files hold what is needed and nothing else; tests stay out of a run.

A run's file comes first; those of the extras hold only what it lacks.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from minddiff_utils.core.places import project_root

ROOT = project_root()
#: What the package imports for one command only: such a lock holds what a run lacks.
EXTRAS = {
    "requirements-cluster.lock": {"dask", "dask-jobqueue", "distributed"},
}
#: Started by a person or by a library's name, not imported.
STARTED = {
    "requirements.lock": {"jupyterlab", "nbconvert"},
    "requirements-cluster.lock": {"cryptography"},  # dask: security=True
    "requirements-tests.lock": {
        *("import-linter", "mypy", "nbstripout", "pandas-stubs"),
        *("pytest", "pytest-randomly", "pytest-timeout", "pytest-xdist", "ruff"),
        "types-PyYAML",
    },
}
#: In the order in which they are installed.
LOCKS = ("requirements.lock", *EXTRAS, "requirements-tests.lock")
#: Imported, and in no lock file: ours, and what the oracles' own environment holds.
NOT_PINNED = {"minddiff-utils", "fastl2lir"}
#: Module that can be imported -> packages that hold it.
OWNERS = metadata.packages_distributions()


def locked(name: str) -> dict[str, str]:
    """Return package -> version of a lock file."""
    lines = (ROOT / name).read_text(encoding="utf-8").split()
    return {canonicalize_name(p): v for p, v in (line.split("==") for line in lines)}


def _sources(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.read_text(encoding="utf-8")
        for path in sorted((ROOT / folder).rglob("*.ipynb")):
            cells = nbformat.read(path, as_version=4).cells
            yield "\n".join(c.source for c in cells if c.cell_type == "code")


def imported(*folders: str) -> set[str]:
    """Return the packages that the code in some folders imports by name."""
    found = [_owners(ast.walk(ast.parse(source))) for source in _sources(folders)]
    return set().union(*found)


def _owners(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the packages that some nodes of a syntax tree import by name."""
    modules = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
    return {canonicalize_name(o) for m in modules for o in OWNERS.get(m, [])}


def needed(roots: Iterable[str]) -> set[str]:
    """Return `roots` and all that they require, by their metadata."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras}:
            if (name, extra) in found:
                continue
            found.add((name, extra))
            for line in metadata.requires(name) or []:
                further = Requirement(line)
                marker = further.marker
                if marker is None or marker.evaluate({"extra": extra}):
                    waiting.append(further)
    return {name for name, _ in found}


@cache
def wanted(name: str) -> set[str]:
    """Return what a lock file must hold: what its imports require, by their metadata.

    What another lock that is installed before it holds is left out.
    """
    extras = set().union(*EXTRAS.values())
    if name == "requirements.lock":
        roots = imported("src", "notebooks") - NOT_PINNED - extras
        return needed(roots | STARTED[name])
    before = wanted("requirements.lock")
    if name in EXTRAS:
        return needed(EXTRAS[name] | STARTED[name]) - before
    for extra in EXTRAS:
        before = before | wanted(extra)
    return needed(imported("tests") - NOT_PINNED | STARTED[name]) - before


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_holds_what_is_needed_and_nothing_else(name: str) -> None:
    by_python = {"setuptools", "pip"}
    assert wanted(name) - by_python == set(locked(name))


def test_every_extra_is_imported_by_the_package_and_in_no_other_lock() -> None:
    assert set().union(*EXTRAS.values()) <= imported("src")
    pinned = [package for name in LOCKS for package in locked(name)]
    assert len(pinned) == len(set(pinned))


def test_every_lock_file_is_an_extra_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dynamic = project["tool"]["setuptools"]["dynamic"]
    extras = dynamic["optional-dependencies"]
    named = {f"requirements-{extra}.lock": value for extra, value in extras.items()}
    named["requirements.lock"] = dynamic["dependencies"]
    assert named == {name: {"file": [name]} for name in LOCKS}
    assert set(LOCKS) == {path.name for path in ROOT.glob("requirements*.lock")}


def test_all_locks_are_installed_for_the_tests_and_one_for_a_run() -> None:
    script = (ROOT / "tests" / "run.sh").read_text(encoding="utf-8")
    (stated,) = re.findall(r'^LOCKS="(.+)"$', script, re.M)
    assert sorted(stated.split()) == sorted(LOCKS)
    assert stated.startswith("requirements.lock ")  # torch comes first
    assert "LOCKS" not in (ROOT / "run_all.sh").read_text(encoding="utf-8")


def test_a_run_imports_no_package_of_an_extra() -> None:
    packages = {package for name in EXTRAS for package in locked(name)}
    closed = [m for m, o in OWNERS.items() if {*map(canonicalize_name, o)} & packages]
    assert {"dask", "distributed"} <= set(closed)
    ours, theirs = set(), set()
    for path in (ROOT / "src").rglob("*.py"):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        ours.add(".".join(p for p in parts if p != "__init__"))
        if _owners(ast.parse(path.read_text(encoding="utf-8")).body) & packages:
            theirs.add(".".join(parts[:3]))  # a module of a room, or a folder there
    assert theirs == {"minddiff_utils.pipeline.cluster"}
    modules = sorted(
        name for name in ours if ".".join(name.split(".")[:3]) not in theirs
    )
    code = (
        f"import importlib, sys; sys.modules.update(dict.fromkeys({closed}))\n"
        f"for name in {modules}: importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_a_run_needs_no_test_tool_and_no_linter() -> None:
    tools = re.compile(r"pytest|mypy|ruff|hypothesis|flask|import-linter|cov")
    assert [name for name in locked("requirements.lock") if tools.match(name)] == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_to_one_version_that_is_installed(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").split()
    pinned = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+")
    assert [line for line in lines if not pinned.fullmatch(line)] == []
    for package, version in locked(name).items():
        assert metadata.version(package).partition("+")[0] == version, package


def test_conda_reads_the_same_list() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "- -r requirements.lock" in text
