"""The lock files hold what is needed and nothing else; tests stay out of a run."""

import ast
import re
from collections.abc import Iterable, Iterator
from importlib import metadata

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from minddiff_utils.core.config import project_root

ROOT = project_root()
#: Started by a person or by a library's name, not imported.
STARTED = {
    "requirements.lock": {"jupyterlab", "nbconvert"},
    "requirements-tests.lock": {
        *("import-linter", "moto[s3,server]", "mypy", "nbstripout", "pandas-stubs"),
        *("pytest", "pytest-randomly", "pytest-timeout", "pytest-xdist", "ruff"),
        "types-PyYAML",
    },
}


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
    modules = set()
    for source in _sources(folders):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    owners = metadata.packages_distributions()
    return {owner for module in modules for owner in owners.get(module, [])}


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


def of_a_run() -> set[str]:
    roots = imported("src", "notebooks") - {"minddiff-utils"}
    return needed(roots | STARTED["requirements.lock"])


def of_tests() -> set[str]:
    roots = imported("tests") - {"minddiff-utils", "fastl2lir"}
    return needed(roots | STARTED["requirements-tests.lock"]) - of_a_run()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("requirements.lock", of_a_run), ("requirements-tests.lock", of_tests)],
)
def test_a_lock_file_holds_what_is_needed_and_nothing_else(name: str, wanted) -> None:
    # brought by Python itself; other systems' and versions' needs may be pinned, too
    by_hand = {"setuptools", "pip"}
    assert wanted() - by_hand == set(locked(name))


def test_a_run_needs_no_test_tool_and_no_linter() -> None:
    tools = re.compile(r"pytest|mypy|ruff|hypothesis|moto|flask|import-linter|cov")
    assert [name for name in locked("requirements.lock") if tools.match(name)] == []


@pytest.mark.parametrize("name", STARTED)
def test_every_package_is_pinned_to_one_version_that_is_installed(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").split()
    pinned = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+")
    assert [line for line in lines if not pinned.fullmatch(line)] == []
    for package, version in locked(name).items():
        assert metadata.version(package).partition("+")[0] == version, package


def test_conda_reads_the_same_list() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "- -r requirements.lock" in text
