"""A data set's reading is rehearsed on a folder of its layout, apart from results."""

import json
from pathlib import Path

import numpy as np
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.provenance import MARK
from minddiff_utils.core.run import expected_origin
from minddiff_utils.datasets import open_data_set
from minddiff_utils.datasets.algonauts.layout import N_VERTICES
from minddiff_utils.datasets.digits69.reader import read_digits
from minddiff_utils.models.random import model_configs
from minddiff_utils.pipeline import commands
from minddiff_utils.pipeline.cli import main
from minddiff_utils.preprocessing import (
    find_leaks,
    prepare_responses,
    prepare_stimuli,
)
from minddiff_utils.studies import rehearsal
from minddiff_utils.studies.rehearsal import READING, Rehearsal, prepare, rehearse
from minddiff_utils.studies.rehearsal_folders import AlgonautsSize, LaionSize

SMALL: dict[str, AlgonautsSize | LaionSize] = {
    "algonauts": AlgonautsSize(9, 31, (60, 90)),
    "laion_fmri": LaionSize(side=10, region=2, n_images=24, n_table=30),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_is_written_is_read_as_the_release_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "write_models", lambda *_: None)
    monkeypatch.setattr(Rehearsal, "size", SMALL[name])
    trial = rehearse(name, {"data.n_validation": 5}, tmp_path)
    prepare(trial, lambda _: None)
    assert expected_origin(trial.profile, trial.tree) == "in silico"
    data = trial.profile.data
    data_set = open_data_set(name, trial.tree.nsd, data.betas_version, data.split)
    assert not data_set.is_real
    sessions = data_set.sessions(trial.subject, data.session_numbers)
    data_set.check(trial.subject, sessions)
    ready = prepare_responses(data_set, trial.subject, data)
    assert len(ready.nsd_id) == (40 if name == "algonauts" else 24)
    assert len(set(ready.split.tolist())) == 3
    assert np.isfinite(ready.betas).all()
    n_captions = trial.profile.features.n_captions
    stimuli = prepare_stimuli(data_set, ready.nsd_id, 16, n_captions)
    texts = stimuli["captions"]
    assert isinstance(texts, np.ndarray)
    leaks = find_leaks(data_set, trial.subject, ready, stimuli["images"], texts)
    assert leaks["passed"].all()
    before = {p: p.stat().st_mtime_ns for p in trial.tree.nsd.rglob("*")}
    prepare(trial, lambda _: None)  # it is there
    assert {p: p.stat().st_mtime_ns for p in trial.tree.nsd.rglob("*")} == before


def test_digits_are_written_of_the_published_sizes_and_pass_for_no_real_ones(
    tmp_path: Path,
) -> None:
    trial = rehearse("digits69", {}, tmp_path)
    prepare(trial, lambda _: None)
    assert expected_origin(trial.profile, trial.tree) == "in silico"
    digits = read_digits(trial.tree.nsd)
    assert digits.responses.shape == (100, 3092)
    low = digits.images[digits.digit == 6, 14:].mean()
    assert low > 2 * digits.images[digits.digit == 9, 14:].mean()  # they stand upright
    (trial.tree.nsd / MARK).unlink()
    with pytest.raises(DataError, match="but its SHA-256 is"):
        read_digits(trial.tree.nsd)


@pytest.mark.parametrize("name", SMALL)
def test_it_has_the_release_s_sizes_one_subject_and_a_place_of_its_own(
    name: str, tmp_path: Path
) -> None:
    trial = rehearse(name, {"subjects": [5, 7]}, tmp_path)
    assert trial.profile.subjects == (5,)
    assert trial.tree.root == tmp_path / "data" / f"{name}-rehearsal"
    for place in (trial.tree.nsd, trial.tree.figures, trial.tree.derived(5)):
        assert place.is_relative_to(trial.tree.root)
    assert trial.profile.data.n_images == 40
    assert "40 images a subject" in trial.profile.label()
    reading, full, thin = map(model_configs, (trial.kind, "full", "thin"))
    makers = {"vae", "text_encoder", "clip"}  # of z, c and Z_CLIP
    assert {name for name in full if reading[name] == full[name]} == makers
    assert reading["unet"] == thin["unet"]
    given = rehearse(name, {"data.n_images": None}, tmp_path)
    assert "n_images" not in given.profile.data.model_dump()  # no digest moves
    assert given.profile.data.n_images is None
    json.dumps(trial.overrides)  # they go to a notebook as its parameters
    assert AlgonautsSize.of(5) == AlgonautsSize(982, 8859, N_VERTICES[5])
    assert AlgonautsSize.of(3).n_vertices == (19_004, 20_544)
    assert (LaionSize().side, LaionSize().n_table) == (143, 25_052)


@pytest.mark.parametrize("name", READING)
def test_the_command_runs_the_notebooks_that_read_and_decode(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    ran = list[str]()
    monkeypatch.setattr(
        commands, "run_plan", lambda plan, **_: ran.extend(j.name for j in plan.jobs)
    )
    monkeypatch.setattr(rehearsal, "prepare", lambda *_: ran.append("folder"))
    words = ["run", "--rehearse", "--profile", name]
    words += [] if name == "digits69" else ["--subjects", "3"]
    assert main([*words, "--dry-run"]) == 0
    assert ran == []
    assert main(words) == 0
    assert ran[0] == "folder"
    assert [job[:2] for job in ran[1:]] == list(READING[name])
    said = capsys.readouterr().out
    assert "in-silico subjects" in said
    assert "Not covered: accuracies, as values are noise" in said
    assert main([*words, "--nsd-root", "."]) == 1
    assert main(["run", "--rehearse", "--profile", "demo"]) == 1
    assert "demo runs as it is" in capsys.readouterr().err
