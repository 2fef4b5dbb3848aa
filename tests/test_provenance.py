"""What a notebook's artefacts depend on: the code it reaches, and no other."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from minddiff_utils.core import provenance, reach
from minddiff_utils.core.places import notebook_path
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.reach import Package
from minddiff_utils.core.run import Tree
from minddiff_utils.pipeline import graph
from minddiff_utils.pipeline.graph import GRAPH

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "src" / "minddiff_utils"
STEMS = [notebook.stem for notebook in GRAPH]
#: What comes after images were made, and after decoders were fitted; not 09.
IMAGES = "03 04 A3 A4 A5 07 08 05 06"
DECODED = f"02 A2 {IMAGES}"


def _code(stem: str) -> str:
    cells = nbformat.read(notebook_path(stem), as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(FOLDER)


def _keys(root: Path) -> dict[str, str]:
    """Return the key of each notebook of smoke."""
    tree = Tree(root, "smoke", root / "nsd")
    plan = graph.make_plan(load_profile("smoke"), tree, {})
    return {job.notebook: job.key for job in plan.jobs}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the keys of the package as it is."""
    return _keys(tmp_path_factory.mktemp("before"))


@pytest.mark.parametrize(
    ("name", "old", "expected"),
    [
        # a verdict
        *(
            (f"evaluation/claims/{part}.py", "Return", "07 08 09 05 06")
            for part in ("evidence", "ledger", "rules", "rules_of_studies")
        ),
        ("evaluation/claims/sanity_checks.py", "Return", "05 06"),
        ("reporting/tables/rows.py", "Return", "05 06"),
        # a figure: who draws it, and the report, which shows it
        ("reporting/figures/preparation.py", "def fig_roi_counts(", "01 06"),
        ("reporting/figures/decoding.py", "def fig_weights_by_area(", "02 06"),
        ("reporting/figures/evaluation.py", "def fig_subjects(", "05 06"),
        ("reporting/figures/reconstruction.py", "def fig_failures(", "06"),
        # a sentence of the report
        ("reporting/report/captions.csv", "Decoder weights by area", "06"),
        ("reporting/report/page.py", "Return", "06"),
        ("reporting/report/page.html", "<body", "06"),
        ("reporting/report/style.css", "body", "06"),
        ("reporting/report_contents.py", "Return", "06"),
        ("reporting/galleries.py", "Return", "06"),
        # what makes numbers: all that comes after
        ("preprocessing/responses.py", "def prepare_responses(", f"00 01 {DECODED} 09"),
        ("preprocessing/leak_check.py", "def leak_report(", f"01 {DECODED} 09"),
        ("decoding/_solvers.py", "def ", DECODED),
        ("decoding/voxel_selection.py", "def fit(", DECODED),
        ("decoding/comparison.py", "Return", "A2 06"),
        # 03 runs again, but its images are read from their checkpoints
        ("generation/sampler.py", "def sample(", f"{IMAGES} 09"),
        ("generation/guided_sampling.py", "def guide(", IMAGES),
        ("generation/alignment_state.py", "def make_objective(", IMAGES),
        ("evaluation/metrics/pixels.py", "def ", "07 08 09 05 06"),
        ("reporting/surface_maps.py", "def flat_maps(", "06"),
        ("studies/stage2_engines.py", "def read_study(", "A3 06"),
        ("studies/discrepancies.py", "def read_effects(", "A4 06"),
        ("studies/stage2_arms.py", "Return", "06 A3"),  # it makes arms when loaded
    ],
)
def test_a_word_makes_stale_what_reaches_it_and_nothing_else(
    before: dict[str, str],
    edited: Callable[..., None],
    tmp_path: Path,
    name: str,
    old: str,
    expected: str,
) -> None:
    edited(name, old, "Give back" if old == "Return" else f"{old} ")
    after = _keys(tmp_path)
    found = {stem[:2] for stem in before if before[stem] != after[stem]}
    assert found == set(expected.split())


def test_what_no_notebook_reaches_makes_none_stale(
    before: dict[str, str], edited: Callable[..., None], tmp_path: Path
) -> None:
    for name, old in {
        "studies/discrepancies.py": "def decoded_again(",
        "studies/discrepancy_list/differences.csv": "VQ-VAE",
        "pipeline/commands.py": "Run",
        "pipeline/graph.py": "Return",
        "studies/cost_report.py": "Return",
        "datasets/download.py": "Return",
        "studies/rehearsal_data.py": "Return",
    }.items():
        edited(name, old, f"{old} ")
    assert _keys(tmp_path) == before


def test_notebook_07_depends_on_the_trials_of_every_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {subject: tmp_path / "nsd" / f"betas_{subject}" for subject in (1, 2)}
    files[1].parent.mkdir()
    for path in files.values():
        path.write_bytes(b"betas")
    read = SimpleNamespace(files=lambda subject, *_: (files[subject],))
    monkeypatch.setattr(graph, "open_data_set", lambda *_: read)
    profile = load_profile("nsd", {"subjects": (1, 2)})
    tree = Tree(tmp_path, "nsd", tmp_path / "nsd")
    jobs = {j.notebook: j for j in graph.make_plan(profile, tree, {}).jobs}
    assert set(jobs["07_subjects"].facts["files"]) == {"betas_1", "betas_2"}
    assert not {"betas_1"} & set(jobs["08_leakage"].facts["files"])


def test_the_face_of_the_package_leads_to_the_code_behind_it(package: Package) -> None:
    names = package.reached("from minddiff_utils import start\nstart('smoke')")
    assert names["minddiff_utils.core.run"] > {"start", "Run", "Tree", "fix_threads"}
    assert "load_profile" in names["minddiff_utils.core.profile_files"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, minddiff_utils; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert not {"numpy", "pandas", "pydantic", "torch"} & set(
        done.stdout.decode().split()
    )


@pytest.mark.parametrize("more", ["# a comment", "LATER = 1"])
def test_any_edit_of_a_file_that_is_reached_makes_its_notebook_stale(
    package: Package, more: str
) -> None:
    for stem in STEMS:
        reached = package.reached(_code(stem))
        before = dict(package.text(reached))
        for name in before:
            path = package.path(name)
            if path is None:
                continue  # a template, which counts whole
            edited = f"{path.read_text(encoding='utf-8')}\n{more}\n"
            module = reach._parsed(name, edited)
            assert module.text(reached[name]) != before[name], name


def test_digests_of_a_package_that_was_read_open_none_of_its_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package, opened = Package(FOLDER), []
    monkeypatch.setattr(provenance, "_package", lambda: package)
    provenance.read_package()
    read = Path.read_text

    def recorded(path: Path, **options: Any) -> str:
        opened.append(path.suffix)
        return read(path, **options)

    monkeypatch.setattr(Path, "read_text", recorded)
    for stem in STEMS:
        provenance.code_digest.__wrapped__(stem)
    assert ".ipynb" in opened
    assert not {".py", ".pyi"} & set(opened)


def test_without_a_notebook_all_code_counts() -> None:
    files = [
        path
        for kind in ("*.py", "*.html", "*.css", "*.csv", "*.mplstyle")
        for path in FOLDER.rglob(kind)
    ]
    every = provenance.digest_paths(Package(FOLDER).files, FOLDER)
    assert set(Package(FOLDER).files) == set(files)
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
    names += [
        "src/minddiff_utils/core/rng.py",
        "data/atlas/visual_atlas_fsaverage5.npz",
    ]
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


# --- how names are followed ---------------------------------------------------------

FILES = {
    "__init__.py": "",
    "prep.py": "from minddiff_utils.deep import add\nK = 1\n"
    "def one():\n    return add(K)\n"
    "def two():\n    from minddiff_utils import late\n    return late.call()\n"
    "def three(run: 'Kind') -> None: ...\nclass Kind:\n    pass\n",
    "deep/__init__.py": "from minddiff_utils.deep.sums import add\n"
    "from minddiff_utils.deep.other import take",
    "deep/sums.py": "import math\nPI = math.pi\ndef add(x):\n    return x + PI\n"
    "def unused():\n    return 0\n",
    "deep/other.py": "def take(): pass\n",
    "late.py": "def call():\n    return helper()\ndef helper(): ...\ndef apart(): ...",
    "acts.py": "from minddiff_utils.late import apart\napart()\ndef idle(): ...\n",
    "table.py": "from minddiff_utils.late import helper\nBY_NAME = {'a': helper}\n"
    "BY_NAME['b'] = lambda: take2()\ndef take2(): ...\ndef not_in(): ...",
    "made.py": "from importlib import import_module\n"
    "def named(name):\n    return import_module(name)\n",
    "lazy/__init__.py": "__getattr__ = attach(__name__)\n",
    "lazy/__init__.pyi": "from .far import asked as asked\n",
    "lazy/far.py": "def asked():\n    return 1\ndef other(): ...\n",
    "shadow.py": "from minddiff_utils.late import call\n"
    "def f(call):\n    return call\n",
    "both.py": "def add(): ...\n"
    "def f():\n    from minddiff_utils.deep import add\n    return add\n",
}


@pytest.fixture
def small(tmp_path: Path) -> Package:
    for name, text in FILES.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return Package(tmp_path / "small")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "from minddiff_utils import prep\nprep.one()",
            {"prep": {"one", "K"}, "deep.sums": {"add", "PI"}},
        ),
        (
            "import minddiff_utils.prep\nminddiff_utils.prep.one()",
            {"prep": {"one", "K"}, "deep.sums": {"add", "PI"}},
        ),
        (
            "from minddiff_utils.prep import two as go\ngo()",
            {"prep": {"two"}, "late": {"call", "helper"}},
        ),
        (
            "from minddiff_utils import prep as p\np.three(None)",
            {"prep": {"three", "Kind"}},
        ),
        ("from minddiff_utils import deep\ndeep.take()", {"deep.other": {"take"}}),
        (
            "from minddiff_utils import late\nfor name in ('call',):\n"
            "    getattr(late, name)()",
            {"late": {"*", "call", "helper", "apart"}},
        ),
        (
            "from minddiff_utils import late\nlate.not_there",
            {"late": {"*", "call", "helper", "apart"}},
        ),
        (
            "from minddiff_utils import acts\nacts.idle()",
            {"acts": {"idle"}, "late": {"apart"}},
        ),
        ("import minddiff_utils.acts", {"late": {"apart"}}),
        (
            "from minddiff_utils.table import BY_NAME",
            {"table": {"BY_NAME", "take2"}, "late": {"helper"}},
        ),
        # a variable with a definition's name: too much rather than too little
        (
            "from minddiff_utils.shadow import f",
            {"shadow": {"f"}, "late": {"call", "helper"}},
        ),
        # as well as an import of that name elsewhere in the module
        (
            "from minddiff_utils.both import add",
            {"both": {"add"}, "deep.sums": {"add", "PI"}},
        ),
        # what a package hands on only when it is asked for
        ("from minddiff_utils import lazy\nlazy.asked()", {"lazy.far": {"asked"}}),
        ("from minddiff_utils.lazy import asked", {"lazy.far": {"asked"}}),
        (
            "from minddiff_utils.late import *",
            {"late": {"*", *("call", "helper", "apart")}},
        ),
    ],
)
def test_names_are_followed_to_their_definitions(
    small: Package, code: str, expected: dict[str, set[str]]
) -> None:
    found = {
        k.removeprefix("minddiff_utils."): v
        for k, v in small.reached(code).items()
        if v
    }
    if "table" in expected:  # what acts on import counts with the module
        found = {k: v for k, v in found.items() if k in expected}
    assert found == expected


def test_a_name_made_at_run_time_reaches_the_whole_package(small: Package) -> None:
    found = small.reached("from minddiff_utils import made\nmade.named('x')")
    assert {f"minddiff_utils.{m}" for m in ("late", "prep", "deep.sums")} <= set(found)


def test_modules_that_only_draw_can_be_left_out() -> None:
    digests = [provenance.code_digest("04_stage2", drawing=d) for d in (True, False)]
    assert digests[0] != digests[1]


_DIGESTS = """
from minddiff_utils.core import provenance
from minddiff_utils.pipeline.graph import GRAPH
for notebook in GRAPH:
    for drawing in (True, False):
        print(provenance.code_digest(notebook.stem, drawing=drawing))
"""


def test_digests_do_not_depend_on_the_order_of_a_set() -> None:
    """Python hashes names anew in each process, unless told otherwise."""
    said = []
    for seed in ("0", "3"):
        done = subprocess.run(
            [sys.executable, "-c", _DIGESTS],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        said.append(done.stdout)
    assert len(said[0].split()) == 2 * len(GRAPH)
    assert said[0] == said[1]
