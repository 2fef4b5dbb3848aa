"""Choices made on training images: no leak, and the choice that a hand would make."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.types import Floats
from minddiff_utils.decoding import (
    RidgeGCV,
    VoxelSelectedRidge,
    contiguous_folds,
    cross_validate,
    top_percent,
)
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.cross_validation import choose_decoders, pooled_correlation
from minddiff_utils.decoding.feature_selection import choose_k, k_curve, select_best
from minddiff_utils.decoding.scores import feature_correlation
from minddiff_utils.decoding.targets import TargetScaling


def world(
    rng: np.random.Generator, n: int = 90, n_voxels: int = 30, n_targets: int = 12
) -> tuple[Floats, Floats]:
    """Return voxels and targets of one hidden signal; the last half is pure noise."""
    hidden = rng.standard_normal((n, 6))
    X = hidden @ rng.standard_normal((6, n_voxels)) + rng.standard_normal((n, n_voxels))
    Y = hidden @ rng.standard_normal((6, n_targets))
    Y[:, n_targets // 2 :] = rng.standard_normal((n, n_targets - n_targets // 2))
    return X, Y


def out_of_fold(decoder: LinearDecoder, X: Floats, Y: Floats, folds: Any) -> Floats:
    return cross_validate({"Y": decoder}, X, {"Y": Y}, folds)["Y"]


# --- folds --------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.data())
def test_folds_hold_out_every_image_once_in_runs(n: int, draw: st.DataObject) -> None:
    folds = contiguous_folds(n, draw.draw(st.integers(2, n)))
    assert np.concatenate([held for _, held in folds]).tolist() == list(range(n))
    for train, held in folds:
        assert sorted([*train, *held]) == list(range(n))
        assert held[-1] - held[0] == len(held) - 1


@pytest.mark.parametrize("n_folds", [1, 6])
def test_impossible_folds_are_refused(n_folds: int) -> None:
    with pytest.raises(ConfigError, match=f"n_folds is {n_folds}"):
        contiguous_folds(5, n_folds)


def test_folds_that_leak_are_refused(rng: np.random.Generator) -> None:
    X, Y = world(rng)
    rows = np.arange(90)
    leaks = [(rows, rows[:5])]
    twice = [(rows[5:], rows[:5]), (rows[5:], rows[:5])]
    for folds, message in (
        (leaks, "held-out images must be in none"),
        (twice, "held-out images must be in none"),
        ([], "There is no fold"),
    ):
        with pytest.raises(DataError, match=message):
            out_of_fold(VoxelSelectedRidge(1, 3), X, Y, folds)


# --- predictions --------------------------------------------------------------------


@pytest.mark.parametrize(
    "decoder", [VoxelSelectedRidge(1.0, 8), RidgeGCV(dtype="float64")]
)
def test_cross_validation_equals_folds_fitted_by_hand(
    decoder: LinearDecoder, rng: np.random.Generator
) -> None:
    X, Y = world(rng)
    Y[:, 3] = 4.0
    features = {"c": Y[:, :5], "clip/1": 20 + 3 * Y[:, 5:]}
    folds = contiguous_folds(len(X), 3)
    found = cross_validate({"clip/1": decoder, "c": decoder}, X, features, folds)
    assert list(found) == ["clip/1", "c"]
    assert not hasattr(decoder, "weights_")
    for name, targets in features.items():
        for train, held in folds:
            scaling = TargetScaling.fit(targets[train])
            alone = decoder.__class__(**decoder.get_params())
            alone.fit(X[train], scaling.apply(targets[train]))
            expected = scaling.invert(alone.predict(X[held]))
            # standardised predictions pass through float32; targets are up to 40
            np.testing.assert_allclose(found[name][held], expected, atol=2e-5)
        r = pooled_correlation(targets, found[name], folds)
        r_all = feature_correlation(targets, found[name])
        varies = TargetScaling.fit(targets).varies
        np.testing.assert_array_equal(r, np.where(varies, r_all, np.nan))


def test_an_image_never_changes_its_own_out_of_fold_prediction(
    rng: np.random.Generator,
) -> None:
    X, Y = world(rng)
    folds = contiguous_folds(len(X), 3)
    before = out_of_fold(VoxelSelectedRidge(1.0, 8), X, Y, folds)
    changed = Y.copy()
    changed[5] += 100.0  # an image of the first fold
    after = out_of_fold(VoxelSelectedRidge(1.0, 8), X, changed, folds)
    held = folds[0][1]
    np.testing.assert_array_equal(after[held], before[held])
    assert not np.allclose(after[folds[1][1]], before[folds[1][1]])


def test_rows_that_no_fold_holds_out_have_no_prediction(
    rng: np.random.Generator,
) -> None:
    X, Y = world(rng)
    first = contiguous_folds(len(X), 3)[:1]
    Y_hat = out_of_fold(VoxelSelectedRidge(1.0, 8), X, Y, first)
    assert np.isfinite(Y_hat[first[0][1]]).all()
    assert np.isnan(Y_hat[first[0][0]]).all()


def test_cross_validation_is_not_fooled_by_a_decoder_that_overfits(
    rng: np.random.Generator,
) -> None:
    X, Y = rng.standard_normal((60, 100)), rng.standard_normal((60, 200))
    decoder, folds = VoxelSelectedRidge(0.15, 40), contiguous_folds(60, 3)
    r = pooled_correlation(Y, out_of_fold(decoder, X, Y, folds), folds)
    # 200 independent targets: SE of the mean about 1/sqrt(60 * 200) = .009
    assert -0.06 < r.mean() < 0.04
    assert feature_correlation(Y, decoder.fit(X, Y).predict(X)).mean() > 0.8


def test_features_with_equal_decoders_take_one_fit_per_fold(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []
    fit = VoxelSelectedRidge.fit
    monkeypatch.setattr(
        VoxelSelectedRidge, "fit", lambda *args: (fits.append(1), fit(*args))[1]
    )
    X, Y = world(rng)
    n_voxels = {"c": 9, "clip/1": 8, "clip/2": 8}
    decoders = {name: VoxelSelectedRidge(1.0, n) for name, n in n_voxels.items()}
    features = {"c": Y[:, :2], "clip/1": Y[:, 2:7], "clip/2": Y[:, 7:]}
    cross_validate(decoders, X, features, contiguous_folds(len(X), 3))
    assert len(fits) == 2 * 3


# --- the choice of a decoder --------------------------------------------------------


def test_each_feature_gets_the_penalty_it_would_get_alone(
    rng: np.random.Generator,
) -> None:
    X, Y = world(rng, n=60, n_voxels=40)  # as many voxels as training images
    features = {"signal": Y[:, :6], "noise": Y[:, 6:]}
    candidates: dict[str, LinearDecoder] = {
        f"alpha {alpha:g}": VoxelSelectedRidge(alpha, 40) for alpha in (1e-6, 30, 1e7)
    }
    folds = contiguous_folds(60, 3)
    each = {name: dict.fromkeys(features, one) for name, one in candidates.items()}
    found = choose_decoders(each, X, features, folds)
    assert list(found) == list(features)
    assert found["signal"]["candidate"][0] == "alpha 30"
    for name, table in found.items():
        assert table["r_cv_mean"].is_monotonic_decreasing
        assert (table["n_targets"] == 6).all()
        for _, row in table.iterrows():
            Y_hat = out_of_fold(candidates[row["candidate"]], X, features[name], folds)
            r = pooled_correlation(features[name], Y_hat, folds).mean()
            # predictions in float32, of other blocks of targets
            assert row["r_cv_mean"] == pytest.approx(r, abs=1e-6)


def test_of_equal_candidates_the_first_one_is_chosen_and_none_is_refused(
    rng: np.random.Generator,
) -> None:
    X, Y = world(rng)
    folds = contiguous_folds(90, 2)
    same = {name: {"Y": VoxelSelectedRidge(1.0, 8)} for name in ("first", "second")}
    table = choose_decoders(same, X, {"Y": Y}, folds)["Y"]
    assert table["candidate"].tolist() == ["first", "second"]
    with pytest.raises(ConfigError, match="no decoder to choose from"):
        choose_decoders({}, X, {"Y": Y}, folds)


# --- k % ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=1, max_size=30),
    st.floats(0.1, 100),
)
def test_the_selected_targets_are_the_best(values: list[float], k: float) -> None:
    r = np.array(values)
    if np.isnan(r).all():
        with pytest.raises(DataError, match="No target has a correlation"):
            select_best(r, k)
        return
    best = select_best(r, k)
    rest = ~best & ~np.isnan(r)
    assert not np.isnan(r[best]).any()
    n_best = max(1, round(k / 100 * len(r)))
    assert np.count_nonzero(best) == min(n_best, np.count_nonzero(~np.isnan(r)))
    if rest.any():
        assert r[best].min() >= r[rest].max()


def test_ties_are_selected_from_the_lower_index() -> None:
    best = select_best(np.array([0.1, 0.3, 0.3, 0.3]), 50)
    assert best.tolist() == [False, True, True, False]


@pytest.mark.parametrize("k_percent", [0.0, -1.0, 100.1, float("nan")])
def test_impossible_percentages_are_refused(k_percent: float) -> None:
    with pytest.raises(ConfigError, match="k_percent"):
        select_best(np.array([0.1]), k_percent)


def test_the_k_curve_of_a_hand_computed_case() -> None:
    r_cv = np.array([0.4, 0.1, np.nan, 0.3])
    r_test = np.array([0.5, 0.2, np.nan, np.nan])
    curve = k_curve(r_cv, r_test, np.array([1.0, 2.0, 0.0, 5.0]), (25, 50, 100))
    columns = ["k_percent", "n_selected", "r_cv_selected_mean", "r_selected_mean"]
    assert list(curve.columns) == [*columns, "variance_kept"]
    assert curve["k_percent"].tolist() == [25, 50, 100]
    assert curve["n_selected"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(curve["r_cv_selected_mean"], [0.4, 0.35, 0.8 / 3])
    np.testing.assert_allclose(curve["r_selected_mean"], [0.5, 0.5, 0.35])
    np.testing.assert_allclose(curve["variance_kept"], [1 / 8, 6 / 8, 1])


def test_test_data_do_not_change_what_is_selected(rng: np.random.Generator) -> None:
    r_cv, variance = rng.uniform(-0.2, 0.6, 40), rng.uniform(1, 2, 40)
    one, other = (
        k_curve(r_cv, r_test, variance, (10, 50))
        for r_test in (r_cv, rng.permutation(r_cv))
    )
    kept = ["k_percent", "n_selected", "r_cv_selected_mean", "variance_kept"]
    assert one[kept].equals(other[kept])
    assert not one["r_selected_mean"].equals(other["r_selected_mean"])


def test_the_k_curve_refuses_variances_that_are_none() -> None:
    r = np.array([0.1, 0.2])
    for variance in ([0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(DataError, match="Variances"):
            k_curve(r, r, np.array(variance), (50,))


def identification(Y: Floats, Y_hat: Floats) -> float:
    """Return how often Y_hat of an image correlates most with its own Y, over pairs."""
    varies = (Y.std(0) > 0) & (Y_hat.std(0) > 0)
    Z, Z_hat = ((A - A.mean(0))[:, varies] / A.std(0)[varies] for A in (Y, Y_hat))
    r = np.corrcoef(Z_hat, Z)[: len(Y), len(Y) :]
    wins = [r[i, i] > r[i, j] for i in range(len(r)) for j in range(len(r)) if i != j]
    return float(np.mean(wins))


def test_identification_equals_its_definition(rng: np.random.Generator) -> None:
    Y = rng.standard_normal((24, 12))
    Y_hat = 0.5 * Y + rng.standard_normal(Y.shape)
    Y[:, 3] = Y_hat[:, 7] = 2.0
    folds = contiguous_folds(24, 2)
    table = choose_k(Y, Y_hat, folds=folds, k_grid=(50, 100))
    for k_percent, found in zip((50, 100), table["identification"], strict=True):
        expected = []
        for row, (_, held) in enumerate(folds):
            other = folds[1 - row][1]
            r = feature_correlation(Y[other], Y_hat[other])
            best = select_best(r, k_percent)
            expected.append(identification(Y[held][:, best], Y_hat[held][:, best]))
        assert found == pytest.approx(np.mean(expected))


def test_k_is_chosen_between_too_few_and_too_noisy(rng: np.random.Generator) -> None:
    n, n_good, n_bad = 120, 20, 380
    Y = rng.standard_normal((n, n_good + n_bad))
    Y_hat = rng.standard_normal(Y.shape)
    Y_hat[:, :n_good] += 0.8 * Y[:, :n_good]  # a twentieth is decodable
    folds, k_grid = contiguous_folds(n, 3), (0.5, 5, 100)
    table = choose_k(Y, Y_hat, folds=folds, k_grid=k_grid)
    assert table["chosen"].tolist() == [False, True, False]
    assert table["n_selected"].tolist() == [2, 20, 400]
    chosen = top_percent(Y, Y_hat, folds, k_grid=k_grid)
    assert chosen.selected[:n_good].mean() > 0.8
    assert chosen.selected.sum() == 20
    given = top_percent(Y, Y_hat, folds, k_grid=k_grid, k_percent=10)
    assert given.selected.sum() == 40


def test_the_images_that_are_identified_do_not_rank_the_targets(
    rng: np.random.Generator,
) -> None:
    # pure noise: a ranking that saw the same images would identify above chance
    scores = []
    for _ in range(20):
        Y, Y_hat = rng.standard_normal((2, 40, 300))
        table = choose_k(Y, Y_hat, folds=contiguous_folds(40, 2), k_grid=(5,))
        scores.append(table["identification"][0])
    error = np.std(scores) / np.sqrt(len(scores))
    assert abs(np.mean(scores) - 0.5) < 4 * error  # passes by chance 1 - 6e-5


def test_a_choice_of_k_needs_folds_candidates_and_a_target_that_varies(
    rng: np.random.Generator,
) -> None:
    Y, folds = rng.standard_normal((20, 4)), contiguous_folds(20, 2)
    for few, grid in ((folds[:1], (5,)), ([], (5,)), (folds, ())):
        with pytest.raises(ConfigError, match="2 folds or more and at least one k"):
            choose_k(Y, Y, folds=few, k_grid=grid)
    with pytest.raises(DataError, match="No target has a correlation"):
        choose_k(Y, np.ones_like(Y), folds=folds, k_grid=(50,))
