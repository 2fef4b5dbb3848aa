"""Ridge on all voxels: its weights, its choices and its bands.

References are independent: normal equations, scikit-learn, himalaya, a hat matrix.
"""

from typing import Any

import numpy as np
import pytest
from himalaya.backend import get_backend, set_backend
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from sklearn.linear_model import Ridge

from minddiff_utils.core.types import Array
from minddiff_utils.decoding import BandedRidge, RidgeGCV, ridge
from minddiff_utils.decoding._eigenbasis import default_alphas

ALPHAS = np.logspace(-1, 4, 11)
SHAPES = {"wide": (40, 70), "tall": (90, 30)}

# float64 throughout and condition numbers below 1e5: rounding stays below 1e5 * 1e-16
# of the largest value (about 10), with a tenfold margin.
ATOL = 1e-9


@pytest.fixture(params=SHAPES)
def data(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[Array, ...]:
    """Give X_train, Y_train (7 targets of falling signal) and X_test."""
    n, n_voxels = SHAPES[request.param]
    hidden = rng.standard_normal((n + 10, 5))
    X = hidden @ rng.standard_normal((5, n_voxels))
    X += rng.standard_normal(X.shape) + 0.5
    Y = hidden @ rng.standard_normal((5, 7)) * np.linspace(3, 0, 7)
    Y += rng.standard_normal(Y.shape) + 2
    return X[:n], Y[:n], X[n:]


def exact(**options: Any) -> RidgeGCV:
    return RidgeGCV(**{"alphas": ALPHAS, "dtype": "float64", **options})


def scaled(X: Array, bands: Array, shares: Array) -> Array:
    """Return the factor of each voxel that gives its band that share of the trace."""
    power = np.sum((X - X.mean(axis=0)) ** 2, axis=0)
    scale = np.empty(X.shape[1])
    for label, share in zip(np.unique(bands), shares, strict=True):
        own = bands == label
        scale[own] = np.sqrt(share * power.sum() / power[own].sum())
    return scale


# --- the weights --------------------------------------------------------------------


def test_weights_equal_scikit_learn_at_the_chosen_penalty(
    data: tuple[Array, ...],
) -> None:
    X, Y, X_test = data
    decoder = exact().fit(X, Y)
    assert len(np.unique(decoder.alpha_)) > 1
    reference = Ridge(alpha=decoder.alpha_, solver="cholesky").fit(X, Y)
    np.testing.assert_allclose(decoder.weights_, reference.coef_, rtol=0, atol=ATOL)
    np.testing.assert_allclose(decoder.intercept_, reference.intercept_, atol=ATOL)
    np.testing.assert_allclose(
        decoder.predict(X_test), reference.predict(X_test), rtol=0, atol=ATOL
    )


def test_float32_predictions_are_within_its_rounding(data: tuple[Array, ...]) -> None:
    X, Y, X_test = data
    double = exact(alphas=[10.0]).fit(X, Y).predict(X_test)
    single = RidgeGCV(alphas=[10.0]).fit(X.astype(np.float32), Y).predict(X_test)
    assert single.dtype == np.float32
    # largest eigenvalue / penalty is below 1e3; 1e3 * 6e-8 of values about 5
    np.testing.assert_allclose(single, double, rtol=0, atol=3e-4)


def test_intercept_is_not_penalised(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    decoder = exact().fit(X, Y)
    shifted = exact().fit(X + 100, Y - 1000)
    np.testing.assert_allclose(shifted.weights_, decoder.weights_, atol=ATOL)


def test_repeated_voxels_share_their_weight(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    decoder = exact(alphas=[3.0]).fit(np.hstack([X, X]), Y)
    once = exact(alphas=[1.5]).fit(X, Y)  # half the penalty: two shares, w^2 / 2
    both = np.hstack([once.weights_, once.weights_]) / 2
    np.testing.assert_allclose(decoder.weights_, both, atol=ATOL)


def test_integer_responses_and_two_images_are_enough(rng: np.random.Generator) -> None:
    X, Y = rng.integers(-9, 9, (2, 4)).astype(np.int16), rng.standard_normal((2, 3))
    expected = Ridge(alpha=1.0).fit(X.astype(float), Y).coef_
    np.testing.assert_allclose(exact(alphas=[1.0]).fit(X, Y).weights_, expected)


def test_blocks_of_targets_change_nothing(
    data: tuple[Array, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y, _ = data
    whole = exact().fit(X, Y)
    assert whole.weights_.tobytes() == exact().fit(X, Y).weights_.tobytes()
    monkeypatch.setattr(ridge, "_BLOCK", 3)
    parts = exact().fit(X, Y)
    np.testing.assert_array_equal(parts.alpha_, whole.alpha_)
    np.testing.assert_allclose(parts.weights_, whole.weights_, rtol=0, atol=ATOL)


# --- the choice ---------------------------------------------------------------------


def gcv_by_hat_matrix(X: Array, Y: Array, alpha: float) -> Array:
    """Return GCV from H with yhat = H y, the intercept in H and not penalised."""
    A = np.column_stack([X, np.ones(len(X))])
    penalty = alpha * np.eye(A.shape[1])
    penalty[-1, -1] = 0
    H = A @ np.linalg.solve(A.T @ A + penalty, A.T)
    n = len(X)
    rss = np.sum((Y - H @ Y) ** 2, axis=0)
    return np.asarray((rss / n) / (1 - np.trace(H) / n) ** 2)


def test_gcv_equals_the_hat_matrix_formula(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    table = np.array([gcv_by_hat_matrix(X, Y, alpha) for alpha in ALPHAS])
    decoder = exact().fit(X, Y)
    np.testing.assert_array_equal(decoder.alpha_, ALPHAS[table.argmin(axis=0)])
    np.testing.assert_allclose(decoder.criterion_, table.min(axis=0), rtol=1e-9)


def test_noise_gets_the_largest_penalty_and_signal_a_small_one(
    rng: np.random.Generator,
) -> None:
    X = rng.standard_normal((200, 50))
    signal = X @ rng.standard_normal(50)
    Y = np.column_stack([signal, rng.permutation(signal), np.full(200, 0.1)])
    decoder = RidgeGCV().fit(X, Y)
    assert decoder.alpha_[0] < 10 < 1e3 < decoder.alpha_[1]
    assert (decoder.alpha_[2], decoder.criterion_[2]) == (decoder.alphas_[-1], 0)


def test_the_default_grid_follows_the_scale_of_the_responses(
    data: tuple[Array, ...],
) -> None:
    grid = default_alphas(trace=30.0, shape=(4, 7))  # 3 directions, 10 each
    assert np.isclose(grid, 10.0).sum() == 1
    np.testing.assert_allclose(grid[[0, -1]], [1e-2, 1e6])
    X, Y, _ = data
    small, large = RidgeGCV().fit(X, Y), RidgeGCV().fit(10 * X, Y)
    np.testing.assert_allclose(large.alphas_, 100 * small.alphas_, rtol=1e-6)
    np.testing.assert_allclose(10 * large.weights_, small.weights_, atol=1e-5)


# --- bands --------------------------------------------------------------------------


def test_with_bands_it_is_ridge_on_scaled_voxels_with_the_best_of_all_pairs(
    data: tuple[Array, ...],
) -> None:
    X, Y, _ = data
    bands = np.where(np.arange(X.shape[1]) < 10, 7, 3)
    decoder = exact(bands=bands).fit(X, Y)
    ratios = np.array([[1, 1], [4, 1], [1, 4]]) / [[2], [5], [5]]
    scales = [scaled(X, bands, shares) for shares in ratios]
    errors = np.array(
        [[gcv_by_hat_matrix(X * s, Y, alpha) for alpha in ALPHAS] for s in scales]
    )
    np.testing.assert_allclose(decoder.criterion_, errors.min(axis=(0, 1)), rtol=1e-9)
    assert len(np.unique(errors.min(axis=1).argmin(axis=0))) > 1
    for target, row in enumerate(errors.min(axis=1).argmin(axis=0)):
        np.testing.assert_allclose(decoder.band_scales_[target], ratios[row])
        alpha = decoder.alpha_[target]
        assert alpha == ALPHAS[errors[row, :, target].argmin()]
        reference = Ridge(alpha=alpha, solver="cholesky")
        reference.fit(X * scales[row], Y[:, target])
        expected = reference.coef_ * scales[row]
        np.testing.assert_allclose(decoder.weights_[target], expected, atol=ATOL)


@pytest.mark.parametrize("kind", [RidgeGCV, BandedRidge])
def test_the_band_with_signal_gets_the_larger_scale(
    kind: Any, rng: np.random.Generator
) -> None:
    X = rng.standard_normal((150, 200))
    Y = X[:, :100] @ rng.standard_normal((100, 20)) + 5 * rng.standard_normal((150, 20))
    decoder = kind(bands=np.repeat([0, 1], 100)).fit(X, Y)
    np.testing.assert_allclose(decoder.band_scales_.sum(axis=1), 1, rtol=1e-6)
    assert np.mean(decoder.band_scales_[:, 0] > 0.5) > 0.85


# --- himalaya's search --------------------------------------------------------------

BANDS = np.repeat([0, 1], [30, 40])


def searched(**options: Any) -> BandedRidge:
    defaults = {"bands": BANDS, "alphas": ALPHAS, "dtype": "float64", "n_samples": 8}
    return BandedRidge(**{**defaults, **options})


@pytest.fixture
def wide(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Give X_train, Y_train, X_test; only the first band knows of the targets."""
    X = rng.standard_normal((80, 70)) + 0.5
    Y = X[:, :30] @ rng.standard_normal((30, 6)) + 3 * rng.standard_normal((80, 6)) + 2
    return X[:60], Y[:60], X[60:]


def test_the_search_equals_himalaya_called_directly(wide: tuple[Array, ...]) -> None:
    X, Y, X_test = wide
    power = np.sum((X - X.mean(axis=0)) ** 2, axis=0)
    bands = [(X[:, b == BANDS], X_test[:, b == BANDS]) for b in (0, 1)]
    factors = [power.sum() / power[b == BANDS].sum() for b in (0, 1)]
    Ks = [A @ A.T * f for (A, _), f in zip(bands, factors, strict=True)]
    Ks_test = [B @ A.T * f for (A, B), f in zip(bands, factors, strict=True)]
    reference = MultipleKernelRidgeCV(
        kernels="precomputed",
        solver_params={"n_iter": 8, "alphas": ALPHAS, "progress_bar": False},
        fit_intercept=True,
        cv=5,
        random_state=3,
    ).fit(np.stack(Ks), Y)
    decoder = searched(seed=3).fit(X, Y)
    np.testing.assert_allclose(
        decoder.predict(X_test), reference.predict(np.stack(Ks_test)), atol=ATOL
    )
    np.testing.assert_allclose(decoder.alpha_, reference.best_alphas_)
    shares = np.exp(reference.deltas_) * reference.best_alphas_
    np.testing.assert_allclose(decoder.band_scales_, shares.T)
    np.testing.assert_allclose(decoder.criterion_, -reference.cv_scores_.max(axis=0))


def test_penalties_and_scales_mean_the_same_as_in_ridge(
    wide: tuple[Array, ...],
) -> None:
    X, Y, _ = wide
    plain = searched(bands=None).fit(X, Y)
    reference = Ridge(alpha=plain.alpha_, solver="cholesky").fit(X, Y)
    np.testing.assert_allclose(plain.weights_, reference.coef_, rtol=0, atol=ATOL)
    equal = searched(alphas=[50.0], n_samples=1).fit(X, Y)  # the first: equal shares
    scale = scaled(X, BANDS, np.array([0.5, 0.5]))
    expected = Ridge(alpha=50.0, solver="cholesky").fit(X * scale, Y).coef_ * scale
    np.testing.assert_allclose(equal.weights_, expected, rtol=0, atol=ATOL)


def test_the_seed_decides_the_search(wide: tuple[Array, ...]) -> None:
    X, Y, _ = wide
    first, again, other = (searched(seed=seed).fit(X, Y) for seed in (1, 1, 2))
    assert first.weights_.tobytes() == again.weights_.tobytes()
    assert not np.array_equal(first.band_scales_, other.band_scales_)


@pytest.mark.parametrize("fails", [False, True])
def test_himalayas_backend_and_numpys_state_are_as_before(
    wide: tuple[Array, ...], fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y, _ = wide
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - what must not change
    set_backend("torch")
    try:
        if fails:

            def broken(*_: Any, **__: Any) -> None:
                raise RuntimeError("broken")

            monkeypatch.setattr(MultipleKernelRidgeCV, "fit", broken)
            with pytest.raises(RuntimeError, match="broken"):
                searched().fit(X, Y)
        else:
            assert isinstance(searched().fit(X, Y).weights_, np.ndarray)
        assert get_backend().name == "torch"
    finally:
        set_backend("numpy")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
