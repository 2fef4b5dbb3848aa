"""Data as people have them run from notebook 01 to the report.

In-silico folders stand in for NSD: small, of noise, with what some subjects lack.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from minddiff_utils.core.profile import SimulationConfig
from minddiff_utils.insilico import nsd_writer
from minddiff_utils.pipeline.cli import main
from tests.bad_input.world import SMALL
from tests.tiny_nsd import noise

#: Subjects who came to all sessions, to fewer and to fewest, as in NSD (40, 32, 30).
SESSIONS = {1: 3, 3: 2, 4: 1}
LIMIT_S = 1800
#: The profile nsd, as small as it goes.
TINY = SMALL | {
    "data.sessions": "all",
    "data.n_reconstruct": "null",
    "models.device": "cpu",
    "models.dtype": "float32",
    "decoding.decoder": "dense",
    "decoding.n_feat_c": 5,
    "decoding.n_feat_z": 5,
    "decoding.n_feat_clip": 5,
    "decoding.n_folds": 2,
    "stage2.preset": "released",
    "stage2.released.n_iter": 1,
    "stage2.released.n_candidates": 1,
    "stage2.n_images_controls": 1,
    "systems.pixel_size": 8,
}


def a_folder(root: Path, sessions: dict[int, int]) -> Path:
    """Write a folder in NSD's layout in which subjects have different sessions."""
    most = max(sessions.values())
    settings = SimulationConfig(n_sessions=most, n_test_images=8, image_size=8)
    nsd_writer.simulate(
        root, settings, tuple(sessions), 2308, n_workers=1, source=noise
    )
    for subject, n in sessions.items():
        for path in root.rglob(f"subj{subject:02d}/**/betas_session*"):
            if int(path.name[13:15]) > n:
                path.unlink()
    return root


def delete(root: Path, *patterns: str) -> None:
    for pattern in patterns:
        found = list(root.glob(pattern))
        assert found, pattern
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(nsd: Path, *more: str, subjects: Sequence[int]) -> int:
    """Run the profile nsd as a user would."""
    words = [part for k, v in TINY.items() for part in ("--set", f"{k}={v}")]
    who = ["--subjects", ",".join(map(str, subjects)), "--jobs", "1"]
    root = ["--nsd-root", str(nsd)]
    return main(["run", "--profile", "nsd", *root, *who, *words, *more])


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder; a test works on a copy."""
    return a_folder(tmp_path_factory.mktemp("lab") / "nsd", SESSIONS)


def test_all_that_is_needed_and_missing_is_said_before_anything_runs(
    nsd: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    root = tmp_path / "lab"
    shutil.copytree(nsd, root, copy_function=lambda a, b: Path(b).hardlink_to(a))
    delete(
        root,
        "nsddata_betas/ppdata/subj01/**/betas_session01.*",
        "nsddata/ppdata/subj04/func1pt8mm/roi/*Kastner2015.nii.gz",
        "nsddata_stimuli/stimuli/nsd/annotations/captions_val2017.json",
    )
    assert run(root, subjects=(1, 4)) == 1
    said = capsys.readouterr().err
    assert said.startswith("Nothing was run, as this is needed:\n")
    lines = said.splitlines()[1:]
    for words in ("subject 1, betas session 01", "subject 4, Kastner", "val2017"):
        (line,) = [line for line in lines if words in line]
        assert re.search(r": [^:]+\.$", line)  # its remedy
    assert not list(tmp_path.rglob("*.ipynb"))
    # what is not asked for is not missed
    assert run(root, "--only", "06", "--dry-run", subjects=(4,)) == 0


@pytest.mark.timeout(LIMIT_S)
def test_subjects_of_different_sessions_and_files_run_together_to_the_report(
    nsd: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    root = tmp_path / "lab"
    shutil.copytree(nsd, root, copy_function=lambda a, b: Path(b).hardlink_to(a))
    delete(
        root,
        "nsddata/freesurfer/subj*",  # surfaces and colour tables
        "nsddata/ppdata/subj*/transforms",
        "nsddata_betas/ppdata/subj04/**/*.hdf5",
        "nsddata_betas/ppdata/subj04/**/ncsnr.nii.gz",
    )
    run(root, subjects=tuple(SESSIONS))
    out, error = capsys.readouterr()
    optional = re.search(r"optional missing: subject 1: (.*)\.", out)
    assert optional, error
    assert {"labels of Kastner2015", "lh.white"} <= set(optional[1].split(", "))
    assert "failed" not in error, error  # what noise says of claims is no matter here
    figures = tmp_path / "figures" / "nsd"
    page = (figures / "report.html").read_text(encoding="utf-8")
    assert "profile nsd: in-silico subjects" in page
    assert "Subject 1 is not shown on the cortex: " in page
    assert not list(figures.glob("cortex_*"))
    table = pd.read_csv(figures / "tables" / "subjects.csv").set_index("subject")
    assert (table["n_reconstructed"] == table["n_test"]).all()
    assert table.loc[1, "n_test"] > table.loc[3, "n_test"] > table.loc[4, "n_test"] > 2
    ledger = pd.read_csv(figures / "claims.csv")
    assert ledger["profile"].str.contains("in-silico").all()
