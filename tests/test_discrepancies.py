"""What paper and released code differ in: the list, the switches, and their effects."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.inference import estimate, jackknife
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import start as start_run
from minddiff_utils.decoding.targets import TargetScaling
from minddiff_utils.generation.presets import AlignmentSettings, sampler_of, settings_of
from minddiff_utils.models import Backbone
from minddiff_utils.pipeline import cli
from minddiff_utils.reporting import figures
from minddiff_utils.studies import discrepancies
from minddiff_utils.studies.discrepancy_list import listed
from minddiff_utils.studies.stage2_arms import arms_of
from tests import small_subject
from tests.small_subject import IDS, TRAIN, Start, backbone, start, write_files

__all__ = ["backbone", "start"]  # fixtures

DEMO = load_profile("demo")
#: What no arm makes: forms of the score.
FORMS = {"signed", "absolute", "signed_other", "absolute_other", "three_scores"}
LISTED = listed()
SWITCHED = LISTED[LISTED["switch"] != ""]


# --- the list and its switches --------------------------------------------------------


def test_each_of_the_27_is_switched_or_says_why_not() -> None:
    once = LISTED.drop_duplicates(["number", "paper", "code", "why"])
    numbers = once["number"].tolist()
    assert [n for n in numbers if n.isdigit()] == [str(k) for k in range(1, 28)]
    assert len(numbers) == 29  # and 1 to 5 together, and other k
    assert ((LISTED["why"] == "") == (LISTED["switch"] != "")).all()
    assert ((LISTED["method"] == "") == (LISTED["switch"] == "")).all()


def test_each_switch_compares_two_arms_or_two_forms_of_the_score() -> None:
    arms = {arm.name for arm in arms_of(DEMO, "discrepancies")}
    assert {*SWITCHED["method"], *SWITCHED["reference"]} == arms | FORMS


def test_each_loop_differs_from_the_paper_s_in_one_thing() -> None:
    arms = {arm.name: arm for arm in arms_of(DEMO, "discrepancies")}
    base = settings_of(arms["loop"], DEMO)
    assert isinstance(base, AlignmentSettings)
    expected = (30, 0.001, 0.001, "gradient", "paper", "fixed")
    found = (base.n_iter, base.lr_z, base.lr_c)
    assert (*found, base.optimiser, base.loss, base.noise) == expected
    changes: dict[str, dict[str, Any]] = {
        "c_stays": {"lr_c": 0.0},
        "adam": {"optimiser": "adam", "lr_z": 0.01, "lr_c": 0.01, "lr_decay": 0.999},
        "half": {"n_iter": 15},
        "layer_weights": {"loss": "released"},
        "imagenet": {},
        **{name: {} for name in ("k_5", "k_80", "k_100")},
    }
    for name, change in changes.items():
        own = settings_of(arms[name], DEMO)
        assert vars(own) == vars(base) | change
        kept = float(name[2:]) if name.startswith("k_") else 25
        assert arms[name].k_percent == kept
    levels = {a.name: sampler_of(a, DEMO) for a in arms.values() if "noised" in a.name}
    assert {s.n_steps for s in levels.values()} == {50}
    none = load_profile("demo", {"study.n_iter_pilot": 0})
    assert {a.engine for a in arms_of(none, "discrepancies")} == {"sampler"}


# --- decoding -------------------------------------------------------------------------


def _world(n_test: int = 40) -> tuple[np.ndarray, ...]:
    """Return responses to 120 training, some test and 30 further images, and c, z."""
    rng = np.random.default_rng(5)
    Y = rng.standard_normal((150 + n_test, 12)).astype(np.float32)
    X = Y @ rng.standard_normal((12, 40)).astype(np.float32)
    X = X + rng.standard_normal(X.shape).astype(np.float32) + 3
    return X[:120], X[120 : 120 + n_test], X[120 + n_test :], Y[:120], Y[120:]


def test_a_test_set_that_moves_as_a_whole_is_lost_but_for_its_own_scaling() -> None:
    X_train, X_test, X_held, Y_train, truth = _world()
    targets = {"c": Y_train, "z": Y_train[:, :5], "clip/1": Y_train}
    config = DEMO.decoding.model_copy(update={"n_feat_c": 30, "n_feat_z": 20})
    given = (X_held, targets, config)
    still = discrepancies.decoded_again(X_train, X_test, *given)
    moved = discrepancies.decoded_again(X_train, 2 * X_test + 1, *given)
    assert set(still) == {
        *("dense", "paper_decoder", "own_scaling", "scaled_on_all", "voxels")
    }
    assert set(still["voxels"]) == set(still["scaled_on_all"]) == {"c", "z"}
    own, paper = moved["own_scaling"]["c"], moved["paper_decoder"]["c"]
    np.testing.assert_allclose(own, still["own_scaling"]["c"], atol=1e-3)
    assert np.abs(paper - still["paper_decoder"]["c"]).max() > 1
    r = np.corrcoef(still["paper_decoder"]["c"].ravel(), truth[:40].ravel())[0, 1]
    assert r > 0.9
    # other numbers of voxels, and only for c and z
    assert np.abs(still["voxels"]["c"] - still["paper_decoder"]["c"]).max() > 0.01


def test_numbers_for_images_have_the_statistic_s_mean_and_jackknife_interval(
    rng: np.random.Generator,
) -> None:
    x, y = rng.standard_normal((2, 25))
    y = y + x

    def r(rows: np.ndarray) -> float:
        return float(np.corrcoef(x[rows], y[rows])[0, 1])

    found = estimate(discrepancies.per_image(r, 25))
    expected = jackknife(lambda rows: np.array([r(rows)]), 25)
    assert found.value == pytest.approx(r(np.arange(25)))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_absolute_correlations_reward_a_decoder_that_knows_nothing(
    rng: np.random.Generator,
) -> None:
    truth = {n: rng.standard_normal((30, 50)).astype("f4") for n in ("c", "z")}
    noise = {n: rng.standard_normal((30, 50)).astype("f4") for n in truth}
    scaling = {n: TargetScaling.fit(Y) for n, Y in truth.items()}
    forms = discrepancies._score_forms(noise, truth, scaling)
    assert set(forms) == FORMS
    assert abs(forms["signed"]["r_c"].mean()) < 0.1 < forms["absolute"]["r_c"].mean()
    # the mean over targets, added back, makes any two images alike in c
    lifted = [{n: Y + np.arange(50) for n, Y in own.items()} for own in (noise, truth)]
    lifted_forms = discrepancies._score_forms(*lifted, scaling)
    assert lifted_forms["three_scores"]["r_c"].mean() > 0.9
    np.testing.assert_allclose(
        lifted_forms["signed"]["r_c"], forms["signed"]["r_c"], atol=1e-4
    )


# --- effects --------------------------------------------------------------------------


def _scores(shift: dict[str, float], sd: float = 0.01) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    rows = [
        (str(s), method, i, metric, 0.5 + shift.get(method, 0) + rng.normal(0, sd))
        for method in ("c_stays", "half", "adam", "loop")
        for metric in ("ssim_2d", "named_by_judge")
        for s in (1, 2)
        for i in range(24)
    ]
    columns = ["subject", "method", "nsd_id", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_an_effect_moves_a_conclusion_only_beyond_the_margin() -> None:
    shift = {"c_stays": -0.1, "adam": 0.02}  # the margin of SSIM is .02
    table = discrepancies.effects(_scores(shift), DEMO)
    own = table[table["metric"] == "ssim_2d"].set_index("number")
    assert own["moves"].to_dict() == {"1": "yes", "2": "open", "3": "no"}
    assert own.loc["1", "value"] == pytest.approx(-0.1, abs=0.01)
    assert set(own["n_images"]) == {24}
    why = table.drop_duplicates("number").set_index("number")["why"]
    assert (why["1"], why["12"]) == ("", "not run")
    assert why["7"] == "a name: there is one autoencoder"
    lines = discrepancies.conclusions(table.assign(metric=table["metric"].fillna("")))
    assert lines[:3] == [
        *("Move a conclusion: 1 (ssim_2d).", "Open: 2 (ssim_2d).", "Move none: 3.")
    ]
    assert lines[3].startswith("No effect was measured: 4, 5, 1 to 5, 6,")


def test_the_command_writes_every_effect_and_they_are_read_and_drawn(
    start: Start, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    run, rng = start(subject=None), np.random.default_rng(1)
    for subject in (1, 2):
        own = start(subject=subject)
        write_files(own, backbone)
        n = len(TRAIN) + len(IDS) + 3
        split = ["train"] * len(TRAIN) + ["test"] * len(IDS) + ["validation"] * 3
        stored = {
            "split": np.array(split),
            "nsd_id": np.arange(n),
            "betas": rng.standard_normal((n, 9)).astype(np.float32),
            "n_repeats": np.ones(n, int),
            "ncsnr": np.ones(9, np.float32),
        }
        stored["nsd_id"][len(TRAIN) : len(TRAIN) + len(IDS)] = IDS
        path = own.tree.derived(subject) / "responses.h5"
        store.write_arrays(path, stored, run=own)
    changes = small_subject.SMALL | {"study.n_iter_pilot": 2, "ablation.n_images": 3}
    given = [f"--set={key}={json.dumps(value)}" for key, value in changes.items()]
    words = ["study", "--profile", "smoke", "--part", "discrepancies", "--jobs", "1"]
    assert cli.main([*words, *given]) == 0
    assert "--only A4" in capsys.readouterr().out
    table = discrepancies.read_effects(run)
    assert table is not None
    measured = table[table["metric"] != ""]
    assert set(measured["number"]) == set(SWITCHED["number"])
    assert set(measured["metric"]) == set(discrepancies.METRICS)
    decoding = measured["metric"].str.startswith("r_")
    assert set(measured.loc[decoding, "n_images"]) == {5}
    assert set(measured.loc[~decoding, "n_images"]) == {3}
    assert discrepancies.conclusions(table)[3].startswith(
        "No effect was measured: 6, 7"
    )
    rows = {(s.method, s.reference, "all"): s.switch for s in SWITCHED.itertuples()}
    figure = figures.fig_differences(measured, discrepancies.METRICS, rows, "Effects")
    assert len(figure.axes) == len(discrepancies.METRICS)


def test_nothing_is_read_where_nothing_was_run(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    assert discrepancies.read_effects(start_run("demo")) is None
