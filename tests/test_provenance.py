"""What a notebook's artefacts depend on: the code it reaches, and no other."""

import ast
import subprocess
from pathlib import Path

import grimp
import nbformat
import pytest

from minddiff_utils import provenance
from minddiff_utils.runner import GRAPH

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "minddiff_utils"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("minddiff_utils", cache_dir=None)


def _code(stem: str) -> str:
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def _named(code: str, modules: set[str]) -> set[str]:
    """Return the package's modules that some code imports, by its syntax tree."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module, *names} & modules
    return found


def _file(module: str) -> Path:
    base = PACKAGE.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@pytest.mark.parametrize("stem", [notebook.stem for notebook in GRAPH])
def test_a_notebook_s_code_is_all_that_its_imports_reach(
    graph: grimp.ImportGraph, stem: str
) -> None:
    named = _named(_code(stem), graph.modules)
    reached = set(named)
    for module in named:
        reached |= graph.find_upstream_modules(module)
    # a package is loaded before what is in it, and with it what its __init__ imports
    while True:
        parents = {m.rpartition(".")[0] for m in reached} - {""} - reached
        if not parents:
            break
        for module in parents:
            reached |= {module, *graph.find_upstream_modules(module)}
    found = provenance._reached(_code(stem), PACKAGE, drawing=True)
    assert found == {_file(module) for module in reached}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a package in which `method` draws and computes, and `apart` is apart."""
    files = {
        "__init__.py": "",
        "method.py": "from minddiff_utils import figures\n"
        "from minddiff_utils.deep.sums import (\n    add,  # a word, and another\n)",
        "deep/__init__.py": "",
        "deep/sums.py": "def add(): pass",
        "figures/__init__.py": "from minddiff_utils.figures import canvas",
        "figures/canvas.py": "COLOUR = 'blue'",
        "apart.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_modules_that_only_draw_can_be_left_out(small: Path) -> None:
    code = "from minddiff_utils import method"
    every = {"__init__.py", "method.py", "deep/__init__.py", "deep/sums.py"}
    drawing = {"figures/__init__.py", "figures/canvas.py"}
    for wanted, names in ((False, every), (True, every | drawing)):
        found = provenance._reached(code, small, drawing=wanted)
        assert {path.relative_to(small).as_posix() for path in found} == names


def test_stage_2_does_not_depend_on_the_colour_of_a_plot() -> None:
    reached = provenance._reached(_code("04_stage2"), PACKAGE, drawing=False)
    names = {path.relative_to(PACKAGE).as_posix() for path in reached}
    assert {"reconstruction/stage2.py", "alignment/__init__.py", "batches.py"} <= names
    assert not [name for name in names if name.startswith(("figures/", "report/"))]
    digests = [provenance.code_digest("04_stage2", drawing=d) for d in (True, False)]
    assert digests[0] != digests[1]


def test_preparation_does_not_depend_on_the_generator() -> None:
    reached = provenance._reached(_code("01_data_prep"), PACKAGE, drawing=True)
    names = {path.relative_to(PACKAGE).parts[0] for path in reached}
    assert {"nsd.py", "prep.py"} <= names
    assert not {"alignment", "diffusion.py", "reconstruction", "decoders"} & names


def test_without_a_notebook_all_code_counts() -> None:
    every = provenance.digest_paths(sorted(PACKAGE.rglob("*.py")), PACKAGE)
    assert provenance.code_digest() == every
    assert provenance.code_digest("99_not_there") == every


# --- the commit -----------------------------------------------------------------------


def _git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _commit_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(provenance, "project_root", lambda: root)
    return provenance._commit.__wrapped__()


def test_an_archive_inside_another_repository_has_not_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _commit_of(tmp_path, monkeypatch) == "unknown"
    _git(tmp_path, "init")
    assert _commit_of(tmp_path, monkeypatch) == "unknown"  # no commit yet
    _git(tmp_path, "commit", "--allow-empty", "--message", "of the other")
    head = _git(tmp_path, "rev-parse", "HEAD")[:12]
    assert _commit_of(tmp_path, monkeypatch) == head
    inside = tmp_path / "archive"
    inside.mkdir()
    assert _commit_of(inside, monkeypatch) == "unknown"
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    assert _commit_of(link, monkeypatch) == head


def test_a_clone_with_the_line_ends_of_windows_has_the_same_bytes(
    tmp_path: Path,
) -> None:
    """Scripts run, and digests of code and of files hold, whatever autocrlf says."""
    names = [".gitattributes", "run_all.sh", "data/models/demo/SHA256SUMS"]
    names += ["src/minddiff_utils/rng.py", "data/atlas/visual_atlas_fsaverage5.npz"]
    names += ["notebooks/profiles/smoke.yaml", "data/sprites/cat.webp"]
    source, clone = tmp_path / "source", tmp_path / "clone"
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    _git(source, "init")
    _git(source, "add", ".")
    _git(source, "commit", "--message", "all")
    _git(tmp_path, "clone", "--config", "core.autocrlf=true", str(source), str(clone))
    for name in names:
        assert (clone / name).read_bytes() == (ROOT / name).read_bytes(), name
