"""The study of stage 2: arms, costs and verdicts, on tiny random models."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.images import to_torch, to_uint8
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run
from minddiff_utils.core.run import start as start_run
from minddiff_utils.evaluation import resampling
from minddiff_utils.generation.decoded_features import read_decoded
from minddiff_utils.generation.presets import AlignmentSettings, GuidanceSettings
from minddiff_utils.models import Backbone, tiny_backbone
from minddiff_utils.pipeline import cli
from minddiff_utils.reporting import figures
from minddiff_utils.studies import stage2_arms
from minddiff_utils.studies import stage2_engines as study
from minddiff_utils.studies.stage2_arms import ENGINES, Arm
from tests.small_subject import given, made

IDS = np.array([907, 12, 3456])
LAYERS = (1, 2)
SMALL = {
    "subjects": (1, 2),
    "models.backbone": "tiny",
    "models.batch_size": 2,
    "features.clip_layers": LAYERS,
    "stage1.n_steps": 4,
    "stage1.encode_index": 2,
    "stage1.decode_steps": 3,
    "stage2.fast.n_iter": 2,
    "stage2.fast.n_steps": 1,
    "stage2.n_trajectory": 2,
    "study.n_images": 3,
    "study.n_images_pilot": 2,
}
Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Give a function that starts a run whose features are on disk."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    backbone = tiny_backbone()
    for subject in (1, 2):
        run = start_run("smoke", subject=subject, overrides=SMALL)
        folder = run.tree.derived(subject)
        rng = stream(0, "tests", "study", subject)
        images = rng.integers(0, 256, size=(3, 64, 64, 3)).astype(np.uint8)
        stimuli = {"images": images, "nsd_id": IDS}
        store.write_arrays(folder / "stimuli.h5", stimuli, run=run)
        split = np.array(["train", "train", "test"])
        store.write_arrays(folder / "responses.h5", {"split": split}, run=run)
        for name in ("decoded.h5", "decoded_validation.h5"):
            store.write_arrays(folder / name, _features(backbone, rng), run=run)

    def starts(subject: int | None = 1, **over: Any) -> Run:
        return start_run("smoke", subject=subject, overrides={**SMALL, **over})

    return starts


def _features(backbone: Backbone, rng: np.random.Generator) -> dict[str, Any]:
    widths = {
        "c": backbone.n_tokens * backbone.text_dim,
        "z": int(np.prod(backbone.latent_shape)),
        **{f"clip/{k}": backbone.layer_widths[k - 1] for k in LAYERS},
    }
    arrays: dict[str, Any] = {"nsd_id": IDS}
    for name, width in widths.items():
        for kind in ("decoded", "true"):
            values = rng.normal(size=(len(IDS), width))
            arrays[f"{name}/{kind}"] = values.astype(np.float32)
        arrays[f"{name}/scale"] = rng.uniform(0.5, 2, width).astype(np.float32)
        arrays[f"{name}/selected"] = rng.random(width) < 0.5
        arrays[f"{name}/residual"] = rng.uniform(0.1, 1, width).astype(np.float32)
    return arrays


# --- arms ---------------------------------------------------------------------------


def test_the_confirmation_has_every_arm_of_the_protocol_once() -> None:
    arms = stage2_arms.confirmation_arms(load_profile("demo"))
    names = [arm.name for arm in arms]
    assert len(names) == len(set(names))
    needed = {"none", "best_of_n", "paper", "released", "fast", "guided"}
    assert needed | {"fast_shuffled", "fast_true"} <= set(names)
    by_name = {arm.name: arm for arm in arms}
    paper, released = by_name["paper"].settings, by_name["released"].settings
    assert isinstance(paper, AlignmentSettings)
    assert isinstance(released, AlignmentSettings)
    assert paper.n_iter == released.n_iter == 300
    assert paper.lr_z == paper.lr_c == 0.01
    assert isinstance(by_name["guided"].settings, GuidanceSettings)
    assert by_name["fast_shuffled"].source == "shuffled"


def test_best_of_n_costs_about_as_much_as_fast() -> None:
    profile = load_profile("demo")
    arms = {arm.name: arm for arm in stage2_arms.confirmation_arms(profile)}
    stage1 = 2 * profile.stage1.decode_steps
    # 18 looks through 4 steps, 2 of them guided; stage 1 and 2 candidates
    fast = 18 * (2 * 2 + 2) + 3 * stage1
    assert abs(arms["best_of_n"].n_draws * stage1 - fast) <= stage1 / 2


def test_variants_of_the_pilot_have_distinct_names_and_settings() -> None:
    arms = stage2_arms.pilot_arms(load_profile("demo"))
    assert len({arm.name for arm in arms}) == len(arms)
    settings = [(repr(arm.settings), arm.layers) for arm in arms]
    assert len(set(settings)) == len(arms)


# --- running ------------------------------------------------------------------------


def _few(_profile: Any) -> tuple[Arm, ...]:
    fast = AlignmentSettings(n_iter=2, lr_z=0.1, lr_c=0.0, loss="balanced")
    return (
        Arm("none", "stage 1", None),
        Arm("best_of_n", "draws", None, layers=(1,), n_draws=3),
        Arm("paper", "slow", replace(fast, n_iter=4)),
        Arm("fast", "fast", fast, layers=(1,)),
        Arm("fast_shuffled", "floor", fast, "shuffled", (1,)),
        Arm("guided", "guided", GuidanceSettings(), layers=(1,)),
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the confirmation to six small arms."""
    monkeypatch.setattr(stage2_arms, "confirmation_arms", _few)


@wraps(stage2_arms.make)  # else it would be other code
def _never(*_: object, **__: object) -> None:
    msg = "was made again"
    raise AssertionError(msg)


@pytest.mark.usefixtures("few")
def test_a_subject_s_arms_are_scored_on_all_images(start: Start) -> None:
    said: list[str] = []
    scores = study.run_subject(start(), "confirmation", said.append)
    assert len(said) == 6
    counts = scores.groupby(["method", "metric"]).size()
    assert set(counts) == {3}
    assert set(scores["metric"]) >= {*study.ENDPOINTS, "paper_loss", "heldout_loss"}
    assert scores["value"].notna().all()
    assert set(scores["subject"]) == {"1"}
    wide = scores.pivot(index=["method", "nsd_id"], columns="metric", values="value")
    loss = wide["structural_loss"].groupby("method").mean()
    assert loss["paper"] <= loss["none"]  # iteration 0 is a candidate
    assert wide.loc["none", "n_unet_evaluations"].eq(6).all()
    assert wide.loc["best_of_n", "n_unet_evaluations"].eq(18).all()
    assert wide.loc["guided", "n_unet_evaluations"].eq(12).all()


@pytest.mark.usefixtures("few")
def test_arms_are_made_again_after_a_change_of_engine_or_profile_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch, edited: Callable[..., None]
) -> None:
    first = study.run_subject(start(), "confirmation", lambda _: None)
    monkeypatch.setattr(stage2_arms, "make", _never)
    edited("studies/stage2_engines.py", "Return", "Give")
    again = study.run_subject(start(), "confirmation", lambda _: None)
    pd.testing.assert_frame_equal(first, again)
    with pytest.raises(AssertionError, match="made again"):
        study.run_subject(start(seed=9), "confirmation", lambda _: None)
    edited("generation/guided_sampling.py", "def guide(", "def guide(  # another way")
    with pytest.raises(AssertionError, match="made again"):
        study.run_subject(start(), "confirmation", lambda _: None)


def test_the_first_of_several_draws_is_stage_1_and_the_best_is_kept(
    start: Start,
) -> None:
    run, backbone = start(), tiny_backbone()
    path = run.tree.derived(1) / "decoded.h5"
    features = read_decoded(path, backbone, LAYERS, n=2, source="decoded")
    stage1 = made(given(run, backbone, features), by_name()["stage1"])["stage1"]
    losses = []
    for n_draws in (1, 2, 5):
        images, _ = stage2_arms.best_of(run, backbone, features, n_draws)
        if n_draws == 1:
            np.testing.assert_array_equal(to_uint8(images), stage1.images)
        x = to_torch(to_uint8(images))
        loss = stage2_arms.balanced_loss(backbone, x, features.target)
        losses.append(loss.numpy())
    assert (losses[1] <= losses[0] + 1e-3).all()  # images are rounded to 8 bits
    assert (losses[2] <= losses[1] + 1e-3).all()


def test_heldout_features_are_those_that_no_loss_saw(start: Start) -> None:
    run, backbone = start(), tiny_backbone()
    path = run.tree.derived(1) / "decoded.h5"
    target = read_decoded(path, backbone, LAYERS, n=2, source="true").target
    other = study.unselected(target)
    assert other is not None
    for k in LAYERS:
        assert not (other.selected[k] & target.selected[k]).any()
        assert (other.selected[k] | target.selected[k]).all()
    every = {k: mask | True for k, mask in target.selected.items()}
    assert study.unselected(replace(target, selected=every)) is None


def test_a_profile_without_a_study_says_so(start: Start) -> None:
    with pytest.raises(ConfigError, match="has no study"):
        study.run_subject(start(**{"study.n_images": 0}), "pilot", lambda _: None)


# --- tables and figures ---------------------------------------------------------------


@pytest.mark.usefixtures("few")
def test_tables_of_all_subjects_are_written_read_told_and_drawn(start: Start) -> None:
    scores = pd.concat(
        [study.run_subject(start(s), "confirmation", lambda _: None) for s in (1, 2)],
        ignore_index=True,
    )
    run = start(None)
    assert study.read_study(run) is None
    compared = {"engines": ("fast", "guided"), "references": ("paper", "none")}
    margins, draws = run.profile.study.margins, resampling(run)
    verdicts = study.confirm(scores, margins, resampling=draws, **compared)
    assert len(verdicts) == 2 * 2 * 4 * 3  # engines, references, endpoints, subjects
    costs = study.cost_table(scores)
    share = costs.set_index("method")["share"]
    assert share["paper"] == 1 > share["fast"]
    tables = {"scores": scores, "costs": costs, "verdicts": verdicts}
    for name, table in tables.items():
        store.write_table(run.tree.study / f"{name}.csv", table, run=run)
    result = study.read_study(run)
    assert result is not None
    assert result.pilot is None  # a confirmation can do without
    assert len(result.points) == 6 * 4
    assert set(result.points["n"]) == {6}
    assert set(result.points["n_subjects"]) == {2}
    lines = study.conclusions(result)
    assert len(lines) == 2 + 4  # engines against Algorithm 1, and endpoints
    fast = f"fast against Algorithm 1, at {share['fast']:.1%} of its U-Net evaluations:"
    assert lines[0].startswith(fast)
    assert all(endpoint in lines[0] for endpoint in study.ENDPOINTS)
    figure = figures.fig_pareto(result.points, ENGINES, confidence=0.95)
    assert len(figure.axes) == 4
    against = {"confidence": 0.95, "reference": "paper"}
    assert len(figures.fig_no_worse(result.verdicts, ENGINES, **against).axes) == 4
    with pytest.raises(DataError, match="against nobody has no rows"):
        figures.fig_no_worse(verdicts, {}, confidence=0.95, reference="nobody")


def test_what_the_study_wrote_names_its_command_and_settings(start: Start) -> None:
    run = start(None)
    text = json.loads(study._settings(run, "confirmation"))
    assert text["command"] == "minddiff study --profile smoke --part confirmation"
    assert text["arms"]["fast"]["settings"]["n_iter"] == 2
    assert text["profile"]["study"]["margin_ssim"] == 0.02


# --- the command --------------------------------------------------------------------


def test_the_command_says_in_one_sentence_what_has_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    tiny = ["--set", "models.backbone=tiny"]
    assert cli.main(["study", "--profile", "smoke", "--jobs", "1", *tiny]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "decoded.h5" in said[0]
    assert not (tmp_path / "data" / "study").exists()


def test_the_command_runs_the_pilot_of_every_subject(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(None)
    given = [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
    words = ["study", "--profile", "smoke", "--part", "pilot", "--jobs", "1"]
    assert cli.main([*words, *given]) == 0
    table = store.read_table(run.tree.study / "pilot.csv")
    assert table["method"].tolist() == [
        a.name for a in stage2_arms.pilot_arms(run.profile)
    ]
    assert "subject 2, fast" in capsys.readouterr().out
    text = json.loads((run.tree.study / "pilot.json").read_text(encoding="utf-8"))
    assert text["arms"]["none"]["settings"] is None


def test_a_study_of_more_subjects_at_once_than_gpus_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    device = ["--set", "models.device=cuda", "--jobs", "2"]
    assert cli.main(["study", "--profile", "smoke", *device]) == 1
    error = capsys.readouterr().err
    assert "--jobs is 2, but each job needs a GPU of its own" in error
    assert error.count("\n") == 1
