"""The study of stage 2: arms, costs and verdicts, on tiny random models."""

import importlib
import json
import shutil
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
from minddiff_utils.core.images import to_torch
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Run
from minddiff_utils.core.run import start as start_run
from minddiff_utils.generation import SubjectFeatures
from minddiff_utils.generation.presets import (
    AlignmentSettings,
    GuidanceSettings,
    layers_of,
    sampler_of,
    settings_of,
    uses_posterior,
)
from minddiff_utils.generation.structural_loss import layer_weights, structural_loss
from minddiff_utils.models import Backbone, load_judge
from minddiff_utils.pipeline import cli
from minddiff_utils.reporting import figures
from minddiff_utils.studies import stage2_engines as study
from minddiff_utils.studies.stage2_arms import ENGINES, arms_of
from tests import small_subject
from tests.small_subject import (
    LAYERS,
    Start,
    backbone,
    files,
    made,
    start,
    write_files,
)

__all__ = ["backbone", "start"]  # fixtures

generate = importlib.import_module("minddiff_utils.generation.generate")
ROOT = Path(__file__).parents[1]
#: What the demo keeps for show.
SHOWN: dict[str, Any] = {"n_candidates": 4, "n_trajectory": 8}

SMALL = {
    "stage2.n_trajectory": 2,
    "study.n_images": 3,
    "study.n_images_pilot": 2,
    "study.n_iter_paper": 4,
    "study.n_iter_pilot": 2,
}


@pytest.fixture
def begin(start: Start, backbone: Backbone) -> Start:
    """Give a function that starts a run of a study whose features are on disk."""

    def begins(subject: int | None = 1, **over: Any) -> Run:
        return start(subject=subject, **(SMALL | over))

    for subject in (1, 2):
        run = begins(subject)
        write_files(run, backbone)
        path = run.tree.derived(subject) / "decoded_validation.h5"
        store.write_arrays(path, files(backbone)["decoded.h5"], run=run)
    return begins


# --- arms ---------------------------------------------------------------------------


def test_the_confirmation_has_every_arm_of_the_protocol_once() -> None:
    profile = load_profile("demo")
    arms = {arm.name: arm for arm in arms_of(profile, "confirmation")}
    assert len(arms) == len(arms_of(profile, "confirmation"))
    assert {*study.REFERENCES, *ENGINES} <= set(arms)
    assert arms["bayes_shuffled"].clip == arms["bayes_shuffled"].z == "shuffled"
    paper, tuned, released = (
        settings_of(arms[name], profile)
        for name in ("paper", "paper_tuned", "released")
    )
    assert paper == AlignmentSettings(300, 0.01, 0.01, optimiser="gradient", **SHOWN)
    assert tuned == replace(paper, lr_z=0.001, lr_c=0.001)
    assert (released.n_iter, released.loss) == (300, "released")
    bayes, best = settings_of(arms["bayes"], profile), arms["best_of_n"]
    assert isinstance(bayes, GuidanceSettings)
    assert best.n_draws == by_name()["stage1_best"].n_draws
    assert best.settings == {"loss": bayes.loss}


def test_the_study_s_bayes_is_that_of_stage_2_whatever_the_profile_s_preset() -> None:
    bayes, nsd = load_profile("demo"), load_profile("nsd")
    chosen = nsd.model_copy(update={"stage2": nsd.stage2.using("bayes")})
    for profile, other in ((bayes, bayes), (nsd, chosen)):
        arms = {arm.name: arm for arm in arms_of(profile, "confirmation")}
        for arm, row in (("", ""), ("_shuffled", "_shuffled"), ("_true", "_true")):
            own, theirs = arms[f"bayes{arm}"], by_name()[f"stage2{row}"]
            for of in (settings_of, sampler_of, layers_of, uses_posterior):
                assert of(own, profile) == of(theirs, other)


def test_variants_of_the_pilot_have_distinct_names_and_settings() -> None:
    profile = load_profile("demo")
    arms = arms_of(profile, "pilot")
    assert len({arm.name for arm in arms}) == len(arms)
    starts = [(a.engine, a.c, a.clip, a.n_draws, sampler_of(a, profile)) for a in arms]
    engines = [(settings_of(a, profile), layers_of(a, profile)) for a in arms]
    assert len(set(zip(starts, engines, strict=True))) == len(arms)
    none = load_profile("demo", {"study.n_iter_pilot": 0})
    found = {arm.name for arm in arms} - {a.name for a in arms_of(none, "pilot")}
    assert found == {
        f"paper, step {eta}" for eta in ("0.01", "0.001", "0.0001", "1e-05")
    }


def test_arms_around_bayes_change_one_thing_each() -> None:
    profile = load_profile("demo")
    arms = {arm.name: arm for arm in arms_of(profile, "pilot")}
    bayes = arms["bayes"]
    own, settings = sampler_of(bayes, profile), settings_of(bayes, profile)
    assert own == profile.posterior
    levels = {"less noise": -1, "more noise": 1}
    for words, step in levels.items():
        found = sampler_of(arms[f"bayes, {words}"], profile)
        assert found.encode_index == own.encode_index + step
        assert found.decode_steps == found.encode_index + 1
    assert sampler_of(arms["bayes, stage 1's noise"], profile) == profile.stage1
    decoded = arms["bayes, decoded c"]
    assert (decoded.engine, decoded.c) == ("bayes", "decoded")
    assert sampler_of(decoded, profile) == own
    assert settings_of(decoded, profile) == settings
    assert layers_of(decoded, profile) == layers_of(bayes, profile)
    # the profile has guidance 7
    assert sampler_of(arms["bayes, guidance 5"], profile).guidance_scale == 5
    assert "bayes, guidance 7" not in arms


# --- running ------------------------------------------------------------------------


@wraps(generate._align)  # else it would be other code
def _never(*_: object, **__: object) -> None:
    msg = "was made again"
    raise AssertionError(msg)


def _confirmed(run: Run) -> pd.DataFrame:
    return study.run_subject(run, "confirmation", lambda _: None)


def test_a_subject_s_arms_are_scored_on_all_images(begin: Start) -> None:
    told: list[str] = []
    scores = study.run_subject(begin(), "confirmation", told.append)
    assert len(told) == len(arms_of(begin().profile, "confirmation"))
    counts = scores.groupby(["method", "metric"]).size()
    assert set(counts) == {3}
    assert set(scores["metric"]) >= {*study.ENDPOINTS, "paper_loss", "heldout_loss"}
    assert scores["value"].notna().all()
    assert set(scores["subject"]) == {"1"}
    wide = scores.pivot(index=["method", "nsd_id"], columns="metric", values="value")
    loss = wide["structural_loss"].groupby("method").mean()
    assert loss["paper"] <= loss["stage1"]  # iteration 0 is a candidate
    n_draws = {a.name: a.n_draws for a in arms_of(begin().profile, "confirmation")}
    for name, n in (("stage1", 5), ("best_of_n", 5 * n_draws["best_of_n"])):
        assert wide.loc[name, "n_unet_evaluations"].eq(n).all()
    assert wide.loc["bayes", "n_unet_evaluations"].eq(6).all()
    assert wide["seconds"].gt(0).all()


def test_an_arm_s_objects_are_named_by_the_caption_nearest_to_what_the_judge_sees(
    begin: Start, backbone: Backbone
) -> None:
    run = begin()
    features = SubjectFeatures(run, backbone, n=3)
    judge = load_judge(run.tree.models, kind="demo")
    arms = [
        generate.generate(run, backbone, features, row)
        for row in arms_of(run.profile, "heldout")
    ]
    scores = study.score_arms(features, judge, arms)
    named = scores[scores["metric"] == "named_by_judge"].set_index(["method", "nsd_id"])
    shown = ["cat", "dog", "bus"]
    stored = store.read_arrays(features.path("stimuli.h5"), ["nsd_id"])[
        "nsd_id"
    ].tolist()
    captions = judge.text_embed([f"a photo of a {name}" for name in shown])
    for arm in arms:
        likeness = judge.image_embed(to_torch(arm.images)) @ captions.T
        for i, k in zip(arm.nsd_id.tolist(), likeness.argmax(1).tolist(), strict=True):
            right = shown[stored.index(i) % 3] == shown[k]
            assert named.loc[(arm.condition.name, i), "value"] == right
    assert len(named) == 9


def test_arms_are_made_again_after_a_change_of_engine_or_profile_alone(
    begin: Start, monkeypatch: pytest.MonkeyPatch, edited: Callable[..., None]
) -> None:
    few = arms_of(begin().profile, "confirmation")[-3:]  # those of bayes
    monkeypatch.setattr(study, "arms_of", lambda *_: few)
    first = _confirmed(begin())
    monkeypatch.setattr(generate, "_align", _never)
    edited("studies/stage2_engines.py", "Return", "Give")
    pd.testing.assert_frame_equal(first, _confirmed(begin()))
    with pytest.raises(AssertionError, match="made again"):
        _confirmed(begin(seed=9))
    edited("generation/guided_sampling.py", "def guide(", "def guide(  # another way")
    with pytest.raises(AssertionError, match="made again"):
        _confirmed(begin())


def test_the_first_of_several_draws_is_stage_1_and_the_best_is_kept(
    begin: Start, backbone: Backbone
) -> None:
    run = begin()
    features = SubjectFeatures(run, backbone, n=2)
    target = features.of("decoded").target
    losses = []
    for n_draws in (1, 2, 5):
        row = replace(by_name()["stage1"], clip="decoded", n_draws=n_draws)
        images = to_torch(made(features, row)["stage1"].images)
        layers = backbone.clip_layers(images, target.layers)
        weights = layer_weights(target, "balanced")
        losses.append(structural_loss(layers, target, weights).detach().numpy())
    assert (losses[1] <= losses[0] + 1e-3).all()  # images are rounded to 8 bits
    assert (losses[2] <= losses[1] + 1e-3).all()
    assert (losses[2] < losses[0]).any()


def test_heldout_features_are_those_that_no_loss_saw(
    begin: Start, backbone: Backbone
) -> None:
    target = SubjectFeatures(begin(), backbone, n=2).of("true").target
    other = study.unselected(target)
    assert other is not None
    for k in LAYERS:
        assert not (other.selected[k] & target.selected[k]).any()
        assert (other.selected[k] | target.selected[k]).all()
    every = {k: mask | True for k, mask in target.selected.items()}
    assert study.unselected(replace(target, selected=every)) is None


def test_a_profile_without_a_study_says_so(begin: Start) -> None:
    with pytest.raises(ConfigError, match="has no study"):
        _confirmed(begin(**{"study.n_images": 0}))


# --- tables and figures ---------------------------------------------------------------


def test_tables_of_all_subjects_are_written_read_told_and_drawn(begin: Start) -> None:
    run = begin(None)
    assert study.read_study(run) is None
    scores = pd.concat([_confirmed(begin(s)) for s in (1, 2)], ignore_index=True)
    written = study._write(run, "confirmation", scores)
    text = json.loads((run.tree.study / "confirmation.json").read_text("utf-8"))
    assert text["command"] == "minddiff study --profile smoke --part confirmation"
    assert text["arms"]["paper"]["settings"]["n_iter"] == 4
    assert text["profile"]["study"]["margin_ssim"] == 0.02
    result = study.read_study(run)
    assert result is not None
    assert result.pilot is None  # a confirmation can do without
    pd.testing.assert_frame_equal(result.verdicts, written, atol=1e-5)
    n_references, n_endpoints = len(study.REFERENCES), len(study.ENDPOINTS)
    assert len(written) == n_references * n_endpoints * 3  # 2 subjects, all
    share = result.costs.set_index("method")["share"]
    assert share["paper"] == 1
    n_arms = scores["method"].nunique()
    assert len(result.points) == n_arms * n_endpoints
    assert set(result.points["n_images"]) == {3}
    assert set(result.points["n_subjects"]) == {2}
    lines = study.conclusions(result)
    assert len(lines) == n_references + n_endpoints
    ours = f"bayes against Algorithm 1, at {share['bayes']:.1%} of its U-Net"
    (line,) = (line for line in lines if line.startswith(ours))
    assert all(endpoint in line for endpoint in study.ENDPOINTS)
    figure = figures.fig_pareto(result.points, ENGINES, confidence=0.95)
    assert len(figure.axes) == 4
    against = {"confidence": 0.95, "reference": "best_of_n"}
    assert len(figures.fig_no_worse(result.verdicts, ENGINES, **against).axes) == 4
    with pytest.raises(DataError, match="against nobody has no rows"):
        figures.fig_no_worse(written, {}, confidence=0.95, reference="nobody")


def test_a_published_study_is_read_without_the_arms_that_are_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    run = start_run("demo", notebook="A3_engines")
    shutil.copytree(ROOT / "data" / "study" / "demo", run.tree.study)
    path = run.tree.study / "scores.csv"
    gone = pd.read_csv(path).assign(method="an engine of before")
    pd.concat([pd.read_csv(path), gone]).to_csv(path, index=False)
    result = study.read_study(run)
    assert result is not None
    arms = {arm.name for arm in arms_of(run.profile, "confirmation")}
    costs = pd.read_csv(run.tree.study / "costs.csv").replace("none", "stage1")
    costs = costs[costs["method"].isin(arms)].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        costs, result.costs[costs.columns], rtol=1e-5, check_dtype=False
    )
    assert set(result.points["method"]) == set(costs["method"])
    keys = ["subject", "method", "reference", "metric"]
    published = pd.read_csv(run.tree.study / "verdicts.csv").astype({"subject": str})
    published = published[published["method"] == "bayes"]
    assert len(published) == len(result.verdicts)
    both = published.merge(result.verdicts, on=keys, suffixes=("", "_now"))
    assert len(both) == len(published)
    for column in ("value", "ci_low", "ci_high", "margin"):
        np.testing.assert_allclose(both[column], both[f"{column}_now"], atol=1e-5)
    assert (both["verdict"] == both["verdict_now"]).all()
    assert study.conclusions(result)
    first = ROOT / "data" / "study" / "first_world" / "scores.csv"
    shutil.copy(first, path)  # of engines that are all gone
    assert study.read_study(run) is None


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
    begin: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(None)
    changes = (small_subject.SMALL | SMALL).items()
    given = [f"--set={key}={json.dumps(value)}" for key, value in changes]
    words = ["study", "--profile", "smoke", "--part", "pilot", "--jobs", "1"]
    assert cli.main([*words, *given]) == 0
    table = store.read_table(run.tree.study / "pilot.csv")
    arms = arms_of(run.profile, "pilot")
    assert table["method"].tolist() == [arm.name for arm in arms]
    assert "subject 2, bayes" in capsys.readouterr().out
    text = json.loads((run.tree.study / "pilot.json").read_text(encoding="utf-8"))
    assert text["arms"]["stage1"]["settings"] is None


def test_ours_on_held_out_categories_are_held_against_stage_1(
    begin: Start, backbone: Backbone
) -> None:
    run = begin(None)
    for subject in (1, 2):
        path = run.tree.derived(subject) / "decoded_second.h5"
        store.write_arrays(path, files(backbone)["decoded.h5"], run=run)
    changes = (small_subject.SMALL | SMALL).items()
    given = [f"--set={key}={json.dumps(value)}" for key, value in changes]
    words = ["study", "--profile", "smoke", "--part", "heldout", "--jobs", "1"]
    assert cli.main([*words, *given]) == 0
    table = store.read_table(run.tree.study / "heldout.csv")
    assert set(table["reference"]) == {"stage1"}
    assert set(table["method"]) == {"posterior", "bayes"}
    assert set(table["metric"]) == {*study.ENDPOINTS, "named_by_judge"}


def test_a_study_of_more_subjects_at_once_than_gpus_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    device = ["--set", "models.device=cuda", "--jobs", "2"]
    assert cli.main(["study", "--profile", "smoke", *device]) == 1
    error = capsys.readouterr().err
    assert "--jobs is 2, but each job needs a GPU of its own" in error
    assert error.count("\n") == 1
