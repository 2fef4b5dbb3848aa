"""Scores equal their definitions: correlation, null, ceiling, p-value, rank."""

import numpy as np
import pytest

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.types import Array
from minddiff_utils.decoding import VoxelSelectedRidge, targets
from minddiff_utils.decoding.scores import (
    accuracy,
    effective_rank,
    feature_correlation,
    noise_ceiling,
    permutation_p,
    variance_spectrum,
)

# --- correlation and its null -------------------------------------------------------


def _alone(n_images: int) -> Array:
    """Return the one order of images none of which is like another."""
    return np.arange(n_images)[None]


def test_correlation_equals_numpys_with_its_sign(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_BLOCK_ELEMENTS", 60)  # three targets at a time
    Y, Y_hat = rng.standard_normal((2, 20, 7))
    Y_hat[:, 0] = -Y[:, 0]
    r = feature_correlation(Y, Y_hat)
    each = [np.corrcoef(Y[:, t], Y_hat[:, t])[0, 1] for t in range(7)]
    np.testing.assert_allclose(r, each, atol=1e-14)  # rounding
    assert r[0] == pytest.approx(-1)


def test_correlation_is_nan_where_truth_or_prediction_does_not_vary(
    rng: np.random.Generator,
) -> None:
    Y, Y_hat = rng.standard_normal((2, 20, 3))
    Y[:, 0] = Y_hat[:, 2] = 0.1
    r = feature_correlation(Y, Y_hat)
    assert np.isnan(r).tolist() == [True, False, True]


def test_correlation_needs_two_images_of_finite_values() -> None:
    one = np.ones((1, 3))
    with pytest.raises(DataError, match="2 images or more"):
        feature_correlation(one, one)
    with pytest.raises(DataError, match="Y_hat has shape"):
        feature_correlation(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(DataError, match="Y_hat holds NaN"):
        feature_correlation(np.ones((2, 3)), np.full((2, 3), np.nan))


def test_the_permutation_null_equals_the_plain_loop(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_BLOCK_ELEMENTS", 36)  # three targets at a time
    Y, Y_hat = rng.standard_normal((2, 12, 8))
    Y[:, 3] = Y_hat[:, 6] = 2.0
    same = np.random.default_rng(5)
    orders = same.permuted(np.tile(np.arange(12), (25, 1)), axis=1)
    loop = [np.nanmean(feature_correlation(Y[o], Y_hat)) for o in orders]
    for within in (orders, orders[:9]):
        options = {"n_permutations": 25, "rng": np.random.default_rng(5)}
        row = accuracy(Y, Y_hat, np.ones(8), within=within, **options)
        some = loop[: len(within)]
        # but for rounding
        assert row["r_null_mean"] == pytest.approx(np.mean(loop), abs=1e-14)
        assert row["r_null_high"] == pytest.approx(np.quantile(loop, 0.975), abs=1e-14)
        assert row["r_null_within"] == pytest.approx(np.mean(some), abs=1e-14)


def test_the_null_needs_permutations_and_a_target_that_varies(
    rng: np.random.Generator,
) -> None:
    Y, own = rng.standard_normal((5, 2)), {"within": _alone(5), "rng": rng}
    with pytest.raises(ConfigError, match="n_permutations is 0"):
        accuracy(Y, Y, np.ones(2), n_permutations=0, **own)
    with pytest.raises(DataError, match="No target varies"):
        accuracy(Y, np.ones_like(Y), np.ones(2), n_permutations=3, **own)


# --- noise ceiling ------------------------------------------------------------------


def made_decoder(weights: Array, n_voxels: int) -> VoxelSelectedRidge:
    n_targets, n_feat = weights.shape
    return VoxelSelectedRidge.from_arrays(
        {
            "voxels": np.tile(np.arange(n_feat), (n_targets, 1)),
            "weights": weights,
            "intercept": np.zeros(n_targets),
            "n_voxels": np.array(n_voxels),
            "alpha": np.array(0.15),
            "n_feat": np.array(n_feat),
            "residual": np.zeros(n_targets),
        }
    )


def test_the_ceiling_of_a_hand_computed_case() -> None:
    decoder = made_decoder(np.array([[0.5, 1.0], [0.0, 0.0]]), 3)
    Y_hat = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])  # variance 1 and 0
    ncsnr, repeats = np.array([1.0, 2.0, 9.0]), np.array([1, 2, 2])
    # mean(1/m) = 2/3; noise = 2/3 (0.25 / 2 + 1 / 5) = 0.21667
    ceiling = noise_ceiling(decoder, Y_hat, ncsnr, repeats)
    assert ceiling[0] == pytest.approx(np.sqrt(1 - 0.65 / 3))
    assert np.isnan(ceiling[1])


def test_the_ceiling_is_the_correlation_reached_under_known_noise(
    rng: np.random.Generator,
) -> None:
    n_test, n_voxels, n_targets = 4000, 20, 12
    ncsnr = rng.uniform(0.2, 1.2, n_voxels)
    noise_sd = 1 / np.sqrt(1 + ncsnr**2)  # per trial, of a z-scored voxel
    signal = rng.standard_normal((n_test, n_voxels)) * ncsnr * noise_sd
    repeats = rng.integers(1, 4, n_test)
    noise = rng.standard_normal((n_test, n_voxels)) * noise_sd
    decoder = made_decoder(rng.standard_normal((n_targets, n_voxels)), n_voxels)
    truth = decoder.predict(signal)  # what this decoder gives without noise
    Y_hat = decoder.predict(signal + noise / np.sqrt(repeats)[:, None])
    reached = feature_correlation(truth, Y_hat)
    ceiling = noise_ceiling(decoder, Y_hat, ncsnr, repeats)
    assert 0.4 < reached.mean() < 0.8  # the noise matters
    # r is known to 1/sqrt(4000) = .016 per target; five times that for the largest
    np.testing.assert_allclose(ceiling, reached, atol=0.08)
    assert abs(ceiling.mean() - reached.mean()) < 0.02


def test_the_ceiling_is_0_when_noise_exceeds_the_variance_and_1_without_noise() -> None:
    decoder = made_decoder(np.array([[1.0]]), 1)
    Y_hat, repeats = np.array([[0.0], [0.1]]), np.array([1, 1])
    low = noise_ceiling(decoder, Y_hat, np.array([0.0]), repeats)
    high = noise_ceiling(decoder, Y_hat, np.array([1e9]), repeats)
    assert low[0] == 0
    assert high[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("ncsnr", "repeats"),
    [([-0.1, 1], [1, 1]), ([1.0, 1], [0, 1]), ([np.nan, 1], [1, 1])],
)
def test_the_ceiling_refuses_impossible_noise(
    ncsnr: list[float], repeats: list[int]
) -> None:
    decoder = made_decoder(np.array([[1.0], [1.0]]), 2)
    with pytest.raises(DataError, match="ncsnr"):
        noise_ceiling(
            decoder, np.array([[0.0], [1.0]]), np.array(ncsnr), np.array(repeats)
        )


def test_without_any_ncsnr_there_is_no_ceiling() -> None:
    decoder = made_decoder(np.array([[1.0, 2], [1, 1]]), 2)
    found = noise_ceiling(decoder, np.eye(2), np.full(2, np.nan), np.array([1, 1]))
    assert np.isnan(found).tolist() == [True, True]


# --- one row of the table -----------------------------------------------------------


def test_a_good_decoder_has_the_smallest_p(rng: np.random.Generator) -> None:
    Y = rng.standard_normal((30, 6))
    Y_hat = Y + rng.standard_normal((30, 6))
    Y[:, 4] = 1.0
    ceiling = np.array([0.8, 0.9, np.nan, 0.7, 0.6, 0.5])
    score = accuracy(Y, Y_hat, ceiling, within=_alone(30), n_permutations=99, rng=rng)
    r = feature_correlation(Y, Y_hat)
    assert score["r_mean"] == pytest.approx(np.nanmean(r))
    assert score["r_median"] == pytest.approx(np.nanmedian(r))
    assert score["r_ceiling"] == pytest.approx(0.7)
    assert score["p_permutation"] == pytest.approx(1 / 100)
    assert abs(score["r_null_mean"]) < 0.05  # SE .18 / sqrt(5 * 99) = .008
    assert 0 < score["r_null_high"] < score["r_mean"]
    assert (score["n_images"], score["n_targets"]) == (30, 5)
    # alone in its cluster, no image can change places: nothing can be shown
    assert score["r_null_within"] == pytest.approx(score["r_mean"])
    assert score["p_within"] == 1


def test_p_is_uniform_when_nothing_is_decoded(rng: np.random.Generator) -> None:
    p = []
    for _ in range(200):
        Y, Y_hat = rng.standard_normal((2, 12, 4))
        nan = np.full(4, np.nan)
        score = accuracy(Y, Y_hat, nan, within=_alone(12), n_permutations=99, rng=rng)
        p.append(score["p_permutation"])
        assert np.isnan(score["r_ceiling"])
    # binomial, n = 200: SD .015 at .05 and .035 at .5; four times that
    assert abs(np.mean(np.array(p) <= 0.05) - 0.05) < 0.06
    assert abs(np.mean(np.array(p) <= 0.5) - 0.5) < 0.14


def test_p_counts_the_permutations_that_reach_the_observed_mean() -> None:
    Y = np.array([[1.0], [2.0]])  # two images: a permutation is identity or swap
    rng = np.random.default_rng(3)
    score = accuracy(Y, Y, np.ones(1), within=_alone(2), n_permutations=50, rng=rng)
    order = np.random.default_rng(3).permuted(np.tile([0, 1], (50, 1)), axis=1)
    identities = int(np.count_nonzero(order[:, 0] == 0))
    assert score["p_permutation"] == pytest.approx((1 + identities) / 51)


# --- effective rank -----------------------------------------------------------------


def features(
    spectrum: Array, n_images: int, n_targets: int, rng: np.random.Generator
) -> Array:
    """Return features whose covariance has exactly this spectrum, plus a mean."""
    k = len(spectrum)
    A = rng.standard_normal((n_images, k))
    U = np.linalg.qr(A - A.mean(axis=0))[0]  # orthonormal and orthogonal to ones
    V = np.linalg.qr(rng.standard_normal((n_targets, k)))[0]
    Y = U * np.sqrt(np.asarray(spectrum) * (n_images - 1)) @ V.T
    return np.asarray(Y + rng.standard_normal(n_targets))


SHAPES = [(40, 15), (15, 40)]


@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize("k", [1, 4, 10])
def test_k_equal_directions_have_rank_k(
    n: int, p: int, k: int, rng: np.random.Generator
) -> None:
    Y = features(np.full(k, 3.0), n, p, rng)
    # rounding of 1e-16 in each of up to 40 eigenvalues; p log p of it is below 1e-12
    assert effective_rank(Y) == pytest.approx(k, rel=1e-10)


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_spectrum_is_that_of_the_covariance(
    n: int, p: int, rng: np.random.Generator
) -> None:
    Y = rng.standard_normal((n, p)) * rng.random(p) + 7
    expected = np.sort(np.linalg.eigvalsh(np.cov(Y.T)))[::-1][: min(n, p)]
    np.testing.assert_allclose(variance_spectrum(Y), expected, rtol=0, atol=1e-12)


def test_rank_ignores_mean_scale_and_rotation(rng: np.random.Generator) -> None:
    Y = features(np.array([5.0, 2.0, 0.5]), 20, 6, rng)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert effective_rank(-3 * Y @ rotation + 1) == pytest.approx(effective_rank(Y))


@pytest.mark.parametrize(
    ("Y", "message"),
    [
        (np.ones((1, 3)), "needs 2 images"),
        (np.ones((3, 0)), "needs 2 images"),
        (np.full((5, 3), 0.1), "nothing to rank"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "Y holds NaN"),
        (np.ones(3), "Y has shape"),
    ],
)
def test_features_without_a_spectrum_are_refused(Y: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        effective_rank(Y)


# --- p values -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "null", "p"),
    [
        (5.0, [1.0, 2.0, 3.0], 1 / 4),  # never 0
        (2.0, [1.0, 2.0, 3.0], 3 / 4),  # a tie counts against
        (0.0, [1.0, 2.0, 3.0], 1.0),
        (0.3, [0.1 + 0.2, 0.0, 0.0], 2 / 4),  # a tie broken by rounding
    ],
)
def test_permutation_p_equals_the_hand_count(
    observed: float, null: list[float], p: float
) -> None:
    assert permutation_p(observed, np.array(null)) == pytest.approx(p)
