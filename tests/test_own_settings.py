"""What a user has set up on a machine changes no byte and no destination."""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pytest

from minddiff_utils.core import provenance, surroundings
from minddiff_utils.core.signature import sign
from minddiff_utils.pipeline import warm_kernels
from minddiff_utils.reporting import figures
from tests.hostile import give_settings

WORDS = "profile smoke: in-silico subjects, demo models"

# --- figures --------------------------------------------------------------------------

#: What a matplotlibrc may hold, look and file format alike.
RC = {
    "axes.facecolor": "black",
    "axes.prop_cycle": mpl.cycler(color=["red"]),
    "axes.spines.left": False,
    "axes.titleweight": "bold",
    "axes.unicode_minus": False,
    "figure.dpi": 31,
    "font.family": "monospace",
    "font.sans-serif": ["DejaVu Serif"],
    "image.cmap": "hot",
    "lines.antialiased": False,
    "mathtext.fontset": "stix",
    "path.simplify": False,
    "pdf.compression": 0,
    "pdf.fonttype": 42,
    "savefig.bbox": "tight",
    "savefig.facecolor": "red",
    "savefig.pad_inches": 1.0,
    "savefig.transparent": True,
    "text.antialiased": False,
    "text.hinting": "none",
    "text.usetex": True,
    "xtick.direction": "in",
}


def _drawn() -> list[bytes]:
    """Return a figure as PNG and PDF, and as a notebook shows it."""
    ceiling = np.linspace(-0.5, 0.9, 40)
    figure = figures.fig_reliability(ceiling, np.zeros(40, int), ["V1"])
    sign(figure, WORDS)
    found = []
    for kind, facts in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        buffer = BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata=facts)
        found.append(buffer.getvalue())
    return [*found, figure._repr_png_()]


def test_no_matplotlibrc_changes_a_figure() -> None:
    expected = _drawn()
    with mpl.rc_context(RC):
        assert _drawn() == expected


# --- what a run starts ----------------------------------------------------------------

#: Run as a program: what a notebook of a run sees, told by itself.
_LOOKS = """
import sys
from pathlib import Path
import nbformat
from minddiff_utils.pipeline import graph, runner
from minddiff_utils.core.run import Tree
if __name__ == "__main__":
    root = Path(sys.argv[1])
    tree = Tree(root, "smoke", root / "nsd")
    job = graph.Job("look", None, "key", (), {"profile": "smoke"})
    plan = graph.Plan((job,), tree, root)
    runner.run_plan(plan, n_jobs=1, force=True, say=lambda _: None)
"""
_CELLS = (
    'profile: str = "smoke"',
    """
import json, locale, os, sys, threading, time, warnings
import matplotlib as mpl, numpy as np, pandas as pd, threadpoolctl, torch, yaml
from IPython import get_ipython
from minddiff_utils.reporting import figures
np.ones((2, 2)) @ np.ones((2, 2))
moving = ("HOME", "MINDDIFF_ROOT", "MINDDIFF_NSD_ROOT", "MINDDIFF_JOURNAL", "TMPDIR")
kept = ("PATH", "JPY_PARENT_PID", "JPY_SESSION_NAME", "PYDEVD_USE_FRAME_EVAL")
told = {
    "variables": {k: v for k, v in os.environ.items() if k not in (*moving, *kept)},
    "hash": hash("a"),
    "flags": [sys.flags.optimize, sys.warnoptions, sys.executable],
    "filters": len([f for f in warnings.filters if f[0] == "error"]),
    "path": [p for p in sys.path if "/place" in p],
    "foreign": sorted(n for n in vars(__builtins__) if n.startswith("hostile")),
    "names": sorted(n for n in get_ipython().user_ns if "hostile" in n),
    "rc": [mpl.rcParams["axes.facecolor"], mpl.rcParams["text.usetex"]],
    "pandas": [pd.get_option("display.precision"), pd.get_option("display.max_rows")],
    "encoding": [locale.getlocale(), sys.getfilesystemencoding(), time.tzname],
    "threads": sorted(p["num_threads"] for p in threadpoolctl.threadpool_info()),
    "capability": torch.backends.cpu.get_cpu_capability(),
    "home": sorted(p for p in os.listdir(os.path.expanduser("~")) if p[0] != "."),
}
print(json.dumps(told))
pd.DataFrame({"x": [1 / 3]})
""",
    """
import numpy as np
from minddiff_utils.reporting import figures
figures.fig_reliability(np.linspace(0, 1, 9), np.zeros(9, int), ["V1"])
""",
)


def _look(root: Path, **process: object) -> list[object]:
    """Return the outputs of a notebook that a run in `root` has played."""
    root.mkdir()
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(text) for text in _CELLS]
    made.cells[0].metadata["tags"] = ["parameters"]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata["kernelspec"] = spec
    nbformat.write(made, root / "look.ipynb")
    (root / "look.py").write_text(_LOOKS, encoding="utf-8")
    command = [sys.executable, str(root / "look.py"), str(root)]
    done = subprocess.run(
        command, capture_output=True, check=False, timeout=240, **process
    )
    assert done.returncode == 0, done.stderr.decode()
    copy = root / "figures" / "smoke" / "notebooks" / "look.ipynb"
    cells = nbformat.read(copy, as_version=4).cells
    return [
        output.get("data", output.get("text"))
        for c in cells
        for output in c.get("outputs", [])
    ]


@pytest.mark.timeout(600)
def test_a_notebook_sees_and_shows_the_same_whatever_the_user_has_set_up(
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    variables = give_settings(place)
    clean = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
    expected = _look(tmp_path / "clean", env=clean)
    found = _look(tmp_path / "hostile", env=clean | variables, cwd=place)
    assert json.loads(str(expected[0]))["foreign"] == []
    assert found == expected


def test_variables_of_the_user_s_do_not_reach_what_a_run_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hostile = give_settings(tmp_path)
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("MINDDIFF_FUZZ", "1")
    with surroundings.own_variables() as found:
        assert list(Path(found["HOME"]).iterdir()) == []
        kept = {name for name in hostile if found.get(name) == hostile[name]}
        assert kept <= {"TMPDIR"}
        assert found["CUDA_VISIBLE_DEVICES"] == "3"
        assert found["MINDDIFF_FUZZ"] == "1"
    assert not Path(found["HOME"]).exists()


def test_what_was_there_before_is_there_afterwards(tmp_path: Path) -> None:
    before = dict(os.environ), sys.path[:], Path.cwd()
    with surroundings.settled():
        assert Path(os.environ["HOME"]) == Path.cwd()
        with surroundings.settled():  # inside, nothing more happens
            assert os.environ["HOME"] == str(Path.cwd())
    assert before == (dict(os.environ), sys.path[:], Path.cwd())


def test_a_place_that_is_gone_is_no_obstacle(tmp_path: Path) -> None:
    gone, before = tmp_path / "gone", Path.cwd()
    gone.mkdir()
    os.chdir(gone)
    try:
        gone.rmdir()
        with surroundings.settled():
            assert Path.cwd().is_dir()
    finally:
        os.chdir(before)


def test_a_temporary_folder_with_a_long_path_needs_no_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert warm_kernels.job_context(9).get_start_method() == "spawn"


def test_the_commit_is_that_of_the_project_whatever_git_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = provenance._commit.__wrapped__()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert provenance._commit.__wrapped__() == expected
