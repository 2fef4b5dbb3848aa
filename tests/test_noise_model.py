"""The noise model: its parameters from a known world, likelihood, posterior, limits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats

from minddiff_utils.core.errors import ConfigError, DataError, MindDiffError
from minddiff_utils.decoding.decoding_errors import (
    choose_posterior,
    choose_rank,
    learn,
)
from minddiff_utils.decoding.noise_model import (
    NoiseModel,
    calibration,
    error_share,
    posterior_over,
)

SIDES = ("Y", "Y_hat")
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Features with known principal axes, and decodings with known errors."""

    Y: Doubles
    Y_hat: Doubles
    gain: Doubles
    covariance: Doubles


def _world(n: int = 4000, n_targets: int = 12, p: int = 3, seed: int = 1) -> World:
    """Make features of p standardised dimensions, and their decodings.

    The targets' SDs are 1, so that standardising leaves the axes as they are made; the
    axes have clearly different variances, so that they come in a known order.
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(n_targets, p)))[0]
    coordinates = rng.normal(size=(n, p)) * np.array([3.0, 2.0, 1.0])[:p]
    gain = np.array([0.6, 0.4, 0.2])[:p]
    root = np.tril(rng.normal(size=(p, p)), -1) * 0.2 + np.diag([0.9, 0.6, 0.5][:p])
    errors = rng.normal(size=(n, p)) @ root.T
    Y = coordinates @ basis.T
    scale = Y.std(axis=0)
    Y_hat = (gain * coordinates + errors + 0.3) @ basis.T
    return World(Y / scale, Y_hat / scale, gain, root @ root.T)


def _fitted(world: World, n_axes: int = 3) -> NoiseModel:
    return NoiseModel.fit(world.Y, world.Y_hat, n_axes=n_axes)


# --- what is learnt -------------------------------------------------------------------


def test_the_errors_of_a_known_world_are_learnt() -> None:
    rng = np.random.default_rng(2)
    n, p = 4000, 3
    # standardised targets that are the axes themselves, but for their order and sign
    Y = rng.normal(size=(n, p))
    Y = np.linalg.qr(Y - Y.mean(0))[0] * np.sqrt(n)
    Y = np.repeat(Y, [3, 2, 1], axis=1)  # axes of variance 3, 2 and 1
    gain = np.repeat([0.6, 0.4, 0.2], [3, 2, 1])
    shared = rng.normal(size=(n, 1))  # one error in all targets
    Y_hat = gain * Y + 0.5 * shared + 0.1
    noise = NoiseModel.fit(Y, Y_hat, n_axes=3)
    # 4,000 images: standard errors of about .005 to .02
    np.testing.assert_allclose(noise.gain, [0.6, 0.4, 0.2], atol=0.04)
    # of an axis of m equal targets, the shared error and the offset count sqrt(m)
    root = np.sqrt([3, 2, 1])
    np.testing.assert_allclose(np.abs(noise.offset), 0.1 * root, atol=0.04)
    expected = 0.25 * np.outer(root, root)
    np.testing.assert_allclose(np.abs(noise.covariance), expected, rtol=0.06)


def test_axes_are_the_principal_ones_of_the_standardised_targets() -> None:
    world = _world()
    noise = _fitted(world)
    standardised = (world.Y - world.Y.mean(0)) / world.Y.std(0)
    _, size, axes = np.linalg.svd(standardised, full_matrices=False)
    found = noise.coordinates(world.Y)
    for k in range(3):
        r = np.corrcoef(found[:, k], standardised @ axes[k])[0, 1]
        assert abs(r) > 1 - 1e-5  # float32 axes
    # as many as the world has: they hold all there is
    np.testing.assert_allclose(np.square(found).sum(0), np.square(size[:3]), rtol=1e-4)


def test_a_target_that_does_not_vary_has_no_part() -> None:
    world = _world()
    constant = np.full((len(world.Y), 1), 7.0)
    Y, Y_hat = (np.hstack([constant, side]) for side in (world.Y, world.Y_hat))
    noise = NoiseModel.fit(Y, Y_hat, n_axes=3)
    assert not noise.axes[0].any()
    changed = Y_hat.copy()
    changed[:, 0] = 1e3
    np.testing.assert_array_equal(noise.decoded(changed), noise.decoded(Y_hat))


def test_leading_axes_are_those_of_a_smaller_model() -> None:
    world = _world()
    whole, part = _fitted(world), _fitted(world).leading(2)
    np.testing.assert_array_equal(part.gain, whole.gain[:2])
    np.testing.assert_array_equal(part.covariance, whole.covariance[:2, :2])
    np.testing.assert_array_equal(
        part.coordinates(world.Y), whole.coordinates(world.Y)[:, :2]
    )


def test_the_same_images_give_the_same_bytes() -> None:
    world = _world(n=300)
    one, two = _fitted(world), _fitted(world)
    for name in ("mean", "axes", "gain", "offset", "covariance"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


# --- likelihood and posterior ---------------------------------------------------------


def test_the_log_likelihood_is_that_of_the_normal_distribution() -> None:
    world = _world(n=400)
    noise = _fitted(world)
    found = noise.log_likelihood(world.Y_hat[:4], world.Y[:5])
    truth, decoded = noise.coordinates(world.Y[:5]), noise.coordinates(world.Y_hat[:4])
    for row in range(4):
        expected = [
            stats.multivariate_normal.logpdf(
                decoded[row], noise.gain * y + noise.offset, noise.covariance
            )
            for y in truth
        ]
        # up to a constant of the decoded image
        differences = found[row] - found[row, 0]
        np.testing.assert_allclose(differences, expected - expected[0], rtol=1e-8)


def test_the_map_gives_what_is_expected_of_a_feature() -> None:
    world = _world(n=400)
    noise = _fitted(world)
    arrays = noise.arrays()
    found = world.Y @ arrays["map"].T + arrays["shift"]
    np.testing.assert_allclose(found, noise.expected(world.Y), rtol=1e-4, atol=1e-4)
    # and the errors around it are independent, of variance 1
    errors = noise.decoded(world.Y_hat) - noise.expected(world.Y)
    np.testing.assert_allclose(np.cov(errors.T), np.eye(3), atol=0.05)


def test_the_posterior_is_bayes_rule_over_the_corpus() -> None:
    world = _world(n=400)
    noise, corpus = _fitted(world), world.Y[:3]
    found = posterior_over(noise, world.Y_hat[:2], corpus)
    likelihood = np.exp(noise.log_likelihood(world.Y_hat[:2], corpus))
    expected = likelihood / likelihood.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-10)
    np.testing.assert_allclose(found.mean(corpus), expected @ corpus, rtol=1e-5)
    np.testing.assert_array_equal(found.likeliest, expected.argmax(axis=1))
    n_effective = 1 / (expected**2).sum(axis=1)
    np.testing.assert_allclose(found.n_effective, n_effective, rtol=1e-10)


def test_heat_makes_all_entries_alike_and_cold_leaves_one() -> None:
    world = _world(n=400)
    noise, corpus = _fitted(world), world.Y[:50]
    hot, cold = (
        posterior_over(noise, world.Y_hat[:9], corpus, temperature=temperature)
        for temperature in (1e9, 1e-9)
    )
    np.testing.assert_allclose(hot.weights, 1 / 50, rtol=1e-5)
    np.testing.assert_allclose(cold.n_effective, 1)
    np.testing.assert_array_equal(cold.likeliest, hot.likeliest)


def test_over_a_large_corpus_the_mean_is_that_of_the_normal_posterior() -> None:
    world = _world(n=20_000)
    noise = _fitted(world)
    corpus, new = world.Y[200:], world.Y_hat[:200]
    found = noise.coordinates(posterior_over(noise, new, corpus).mean(corpus))
    prior = np.diag(noise.coordinates(corpus).var(axis=0))
    G = np.diag(noise.gain)
    kalman = prior @ G @ np.linalg.inv(G @ prior @ G + noise.covariance)
    expected = (noise.coordinates(new) - noise.offset) @ kalman.T
    # the corpus is a sample of 19,800: a few effective entries in the tails
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1 * expected.std()


def test_the_posterior_mean_errs_less_than_what_was_decoded() -> None:
    world = _world(n=2000)
    known, new = slice(1000), slice(1000, None)
    noise = NoiseModel.fit(world.Y[known], world.Y_hat[known], n_axes=3)
    mean = posterior_over(noise, world.Y_hat[new], world.Y[known]).mean(world.Y[known])
    errors = [
        np.square(side - world.Y[new]).mean() for side in (mean, world.Y_hat[new])
    ]
    assert errors[0] < 0.9 * errors[1]


# --- what is chosen -------------------------------------------------------------------


def test_no_image_finds_itself_in_the_corpus() -> None:
    rng = np.random.default_rng(5)
    Y = rng.normal(size=(400, 6))  # nothing in common between images
    Y_hat = Y + 0.01 * rng.normal(size=Y.shape)  # of which a decoder knows all
    noise = NoiseModel.fit(Y, Y_hat)
    sides = noise.coordinates(Y), noise.coordinates(Y_hat)
    table = choose_posterior(noise, *sides, ranks=(6,), temperatures=(1.0,))
    # with itself in the corpus r2 would be 1; its nearest neighbour gives less
    assert table["r2"].iloc[0] < 0.9
    assert table["r2_decoded"].iloc[0] > 0.99


def test_the_chosen_temperature_has_the_smallest_error() -> None:
    world = _world(n=1200)
    noise = _fitted(world)
    sides = noise.coordinates(world.Y), noise.coordinates(world.Y_hat)
    table = choose_posterior(noise, *sides, ranks=(2, 3), temperatures=(1, 300))
    (best,) = np.flatnonzero(table["chosen"])
    assert table["r2"].iloc[best] == table["r2"].max()
    assert table["temperature"].iloc[best] == 1  # 300 leaves little but the mean
    assert table["n_axes"].tolist() == [2, 2, 3, 3]


def test_axes_that_tell_nothing_are_not_chosen() -> None:
    rng = np.random.default_rng(6)
    seen, noise = rng.normal(size=(2, 400, 40))
    # five things shown by ten targets each are decoded; 35 targets of their own are not
    n_alike = [10] * 5 + [1] * 35
    decoded = np.where(np.arange(40) < 5, seen, 0) + noise
    Y, Y_hat = (np.repeat(side, n_alike, axis=1) for side in (seen, decoded))
    model = NoiseModel.fit(Y, Y_hat)
    sides = model.coordinates(Y), model.coordinates(Y_hat)
    table = choose_rank(model, *sides, ranks=(2, 5, 40))
    assert table.loc[table["chosen"], "n_axes"].item() == 5
    assert table["top1"].between(0, 1).all()


def test_what_is_learnt_of_a_subject_is_what_each_feature_gives_alone() -> None:
    worlds = {n: _world(n=400, seed=k) for k, n in enumerate(("c", "z", "clip/1"))}
    Y, Y_hat = ({n: getattr(w, side) for n, w in worlds.items()} for side in SIDES)
    found = learn(Y, Y_hat)
    assert list(found.noise) == ["c", "clip/1"]
    assert list(found.by_rank) == ["clip/1"]
    assert found.z_error == error_share(Y["z"], Y_hat["z"])
    whole = NoiseModel.fit(Y["clip/1"], Y_hat["clip/1"])
    ranks = choose_rank(
        whole, *(whole.coordinates(side["clip/1"]) for side in (Y, Y_hat))
    )
    pd.testing.assert_frame_equal(found.by_rank["clip/1"], ranks)
    n_axes = ranks.loc[ranks["chosen"], "n_axes"].item()
    assert found.noise["clip/1"].n_axes == n_axes
    whole = NoiseModel.fit(Y["c"], Y_hat["c"])
    table = choose_posterior(
        whole, *(whole.coordinates(side["c"]) for side in (Y, Y_hat))
    )
    best = table.loc[table["r2"].idxmax()]
    assert found.temperature == best["temperature"]
    assert found.noise["c"].n_axes == best["n_axes"]


# --- how far it can be believed -------------------------------------------------------


@pytest.mark.parametrize(("factor", "is_calibrated"), [(1.0, True), (2.0, False)])
def test_coverage_is_nominal_for_the_errors_that_were_learnt(
    factor: float, is_calibrated: bool
) -> None:
    world = _world(n=4000)
    known, new = slice(2000), slice(2000, None)
    noise = NoiseModel.fit(world.Y[known], world.Y_hat[known], n_axes=3)
    expected = noise.gain * noise.coordinates(world.Y[new]) + noise.offset
    errors = noise.coordinates(world.Y_hat[new]) - expected
    # new decodings with errors of `factor` times the size
    basis = np.linalg.pinv(noise.axes.astype(float))
    Y_hat = (expected + factor * errors) @ basis + noise.mean
    table = calibration(noise, world.Y[new], Y_hat)
    np.testing.assert_allclose(table["rms"] / table["sd"], factor, rtol=0.06)
    for level in (50, 80, 95):
        # 2,000 images: the standard error of a coverage is about .01
        near = np.abs(table[f"coverage_{level}"] - level / 100) < 0.04
        assert near.all() == is_calibrated


def test_the_error_share_is_one_for_the_mean_and_zero_for_the_truth() -> None:
    world = _world(n=300)
    mean = np.broadcast_to(world.Y.mean(axis=0), world.Y.shape)
    assert error_share(world.Y, mean) == pytest.approx(1)
    assert error_share(world.Y, world.Y) == 0


# --- what is refused ------------------------------------------------------------------


def _refused(error: pytest.ExceptionInfo[MindDiffError], words: str) -> None:
    text = str(error.value)
    assert words in text
    assert text.endswith(".")
    assert ". " not in text


def test_what_cannot_be_learnt_is_refused_in_one_sentence() -> None:
    world = _world(n=300)
    missing = world.Y_hat.copy()
    missing[3] = np.nan
    cases: list[tuple[Any, Any, str]] = [
        (world.Y[:15], world.Y_hat[:15], "16 training images or more"),
        (world.Y, missing, "no out-of-fold prediction"),
        (world.Y, world.Y_hat[:, :3], "Y_hat"),
        (np.ones((300, 2)), np.ones((300, 2)), "No target varies"),
        (world.Y, world.Y, "no noise to learn"),
    ]
    for Y, Y_hat, words in cases:
        with pytest.raises(DataError) as caught:
            NoiseModel.fit(Y, Y_hat)
        _refused(caught, words)


def test_a_temperature_or_rank_that_does_not_exist_is_refused() -> None:
    world = _world(n=300)
    noise = _fitted(world)
    with pytest.raises(ConfigError) as caught:
        posterior_over(noise, world.Y_hat, world.Y, temperature=0)
    _refused(caught, "temperature is 0")
    with pytest.raises(ConfigError) as caught:
        noise.leading(4)
    _refused(caught, "n_axes is 4")
