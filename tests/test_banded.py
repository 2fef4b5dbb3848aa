"""Banded ridge equals himalaya's own answer and keeps its global state to itself."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from himalaya.backend import get_backend, set_backend
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from sklearn.base import clone
from sklearn.linear_model import Ridge

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.decoding import BandedRidge, DenseRidge

Array = npt.NDArray[Any]
ALPHAS = np.logspace(0, 4, 9)
BANDS = np.repeat([0, 1], [30, 50])
#: float64, condition numbers below 1e5, values about 10.
ATOL = 1e-9


@pytest.fixture
def data(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Give X_train, Y_train, X_test; only the first band knows of the targets."""
    X = rng.standard_normal((80, 80)) + 0.5
    Y = X[:, :30] @ rng.standard_normal((30, 6)) + 3 * rng.standard_normal((80, 6)) + 2
    return X[:60], Y[:60], X[60:]


def banded(**options: Any) -> BandedRidge:
    defaults = {"bands": BANDS, "alphas": ALPHAS, "dtype": "float64", "n_samples": 8}
    return BandedRidge(**{**defaults, **options})


def test_answer_equals_himalaya_called_directly(
    data: tuple[Array, Array, Array],
) -> None:
    X, Y, X_test = data
    power = np.sum((X - X.mean(axis=0)) ** 2, axis=0)
    bands = [(X[:, b == BANDS], X_test[:, b == BANDS]) for b in (0, 1)]
    factors = [power.sum() / power[b == BANDS].sum() for b in (0, 1)]
    Ks = [A @ A.T * f for (A, _), f in zip(bands, factors, strict=True)]
    Ks_test = [B @ A.T * f for (A, B), f in zip(bands, factors, strict=True)]
    options = {"n_iter": 8, "alphas": ALPHAS, "progress_bar": False}
    reference = MultipleKernelRidgeCV(
        kernels="precomputed",
        solver_params=options,
        fit_intercept=True,
        cv=5,
        random_state=3,
    ).fit(np.stack(Ks), Y)
    decoder = banded(seed=3).fit(X, Y)
    np.testing.assert_allclose(
        decoder.predict(X_test), reference.predict(np.stack(Ks_test)), atol=ATOL
    )
    np.testing.assert_allclose(decoder.alpha_, reference.best_alphas_)
    shares = np.exp(reference.deltas_) * reference.best_alphas_
    np.testing.assert_allclose(decoder.band_scales_, shares.T)
    np.testing.assert_allclose(decoder.criterion_, -reference.cv_scores_.max(axis=0))


@pytest.mark.parametrize("bands", [None, np.zeros(80, int)])
def test_one_band_is_plain_ridge(
    data: tuple[Array, Array, Array], bands: Array | None
) -> None:
    X, Y, X_test = data
    decoder = banded(bands=bands).fit(X, Y)
    reference = Ridge(alpha=decoder.alpha_, solver="cholesky").fit(X, Y)
    np.testing.assert_allclose(decoder.weights_, reference.coef_, rtol=0, atol=ATOL)
    np.testing.assert_allclose(
        decoder.predict(X_test), reference.predict(X_test), rtol=0, atol=ATOL
    )


def test_penalties_and_scales_mean_the_same_as_in_dense_ridge(
    data: tuple[Array, Array, Array],
) -> None:
    X, Y, X_test = data
    searched = banded(alphas=[50.0], n_samples=1).fit(X, Y)  # the first: equal shares
    options: dict[str, Any] = {"band_ratios": [[1, 1]], "dtype": "float64"}
    given = DenseRidge(alphas=[50.0], bands=BANDS, **options).fit(X, Y)
    np.testing.assert_allclose(searched.weights_, given.weights_, rtol=0, atol=ATOL)
    np.testing.assert_allclose(
        searched.predict(X_test), given.predict(X_test), rtol=0, atol=ATOL
    )


def test_a_band_of_noise_gets_less_weight(data: tuple[Array, Array, Array]) -> None:
    X, Y, _ = data
    decoder = banded().fit(X, Y)
    plain = banded(bands=None).fit(X, Y)
    assert np.mean(decoder.band_scales_[:, 0]) > 0.7

    def noise_part(fitted: BandedRidge) -> float:
        weight = fitted.voxel_weight()
        return float(weight[BANDS == 1].sum() / weight.sum())

    assert noise_part(decoder) < 0.7 * noise_part(plain)


def test_the_seed_decides_the_search(data: tuple[Array, Array, Array]) -> None:
    X, Y, _ = data
    first, again, other = (banded(seed=seed).fit(X, Y) for seed in (1, 1, 2))
    assert first.weights_.tobytes() == again.weights_.tobytes()
    assert not np.array_equal(first.band_scales_, other.band_scales_)


def test_chunks_of_targets_change_nothing(data: tuple[Array, Array, Array]) -> None:
    X, Y, _ = data
    whole, parts = banded().fit(X, Y), banded(chunk_targets=4).fit(X, Y)
    np.testing.assert_allclose(parts.weights_, whole.weights_, rtol=0, atol=ATOL)


@pytest.mark.parametrize("fails", [False, True])
def test_himalayas_backend_and_numpys_state_are_as_before(
    data: tuple[Array, Array, Array], fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y, _ = data
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - what must not change
    set_backend("torch")
    try:
        if fails:

            def broken(*_: Any, **__: Any) -> None:
                raise RuntimeError("broken")

            monkeypatch.setattr(MultipleKernelRidgeCV, "fit", broken)
            with pytest.raises(RuntimeError, match="broken"):
                banded().fit(X, Y)
        else:
            assert isinstance(banded().fit(X, Y).weights_, np.ndarray)
        assert get_backend().name == "torch"
    finally:
        set_backend("numpy")
    after = np.random.get_state()[1]  # noqa: NPY002
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_target_or_voxel_is_harmless(
    data: tuple[Array, Array, Array], dtype: Any
) -> None:
    X, Y, X_test = data
    X, Y = X.copy(), Y.copy()
    X[:, 3], Y[:, 1] = 0.1, 0.3
    decoder = banded(dtype=dtype).fit(X, Y)
    assert not decoder.weights_[:, 3].any()
    assert not decoder.weights_[1].any()
    np.testing.assert_array_equal(
        decoder.predict(X_test)[:, 1], np.dtype(dtype).type(0.3)
    )


BAD_DATA: dict[str, tuple[Any, str]] = {
    "NaN in X": (lambda X, Y: (X * np.nan, Y), "X holds NaN"),
    "NaN in Y": (lambda X, Y: (X, Y * np.inf), "Y holds NaN"),
    "rows": (lambda X, Y: (X[1:], Y), "Y has shape"),
    "no target": (lambda X, Y: (X, Y[:, :0]), "hold nothing to fit"),
    "constant": (lambda X, Y: (np.where(BANDS == 1, 1, X), Y), "No voxel of band 1"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_sentence(data: tuple[Array, Array, Array], case: str) -> None:
    change, message = BAD_DATA[case]
    with pytest.raises(DataError, match=message):
        banded().fit(*change(*data[:2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": [-1.0]}, "penalties above 0"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"n_folds": 31}, "between 2 and half of the 60 training images"),
        ({"seed": -1}, "seed is -1"),
        ({"chunk_targets": 0}, "chunk_targets is 0"),
        ({"dtype": "float16"}, "must be one of: float32, float64"),
    ],
)
def test_bad_options_are_one_sentence(
    data: tuple[Array, Array, Array], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        banded(**options).fit(data[0], data[1])


def test_arrays_restore_the_decoder_and_clone_its_parameters(
    data: tuple[Array, Array, Array], rng: np.random.Generator
) -> None:
    X, Y, X_test = data
    decoder = clone(banded()).fit(X, Y)
    restored = BandedRidge.from_arrays(decoder.arrays())
    np.testing.assert_array_equal(restored.predict(X_test), decoder.predict(X_test))
    noise = rng.random(80)
    gain = (decoder.weights_**2 * noise).sum(axis=1)
    np.testing.assert_allclose(restored.noise_gain(noise), gain)
