"""Ridge on all voxels: its weights, its choices, its memory, its answers to bad input.

References are independent: normal equations, scikit-learn, himalaya, a hat matrix.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from himalaya.kernel_ridge import KernelRidgeCV
from sklearn.base import clone
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import LeaveOneOut

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.decoding import DenseRidge, ScaledTargets, TargetScaling
from minddiff_utils.decoding.eigenbasis import default_alphas

Array = npt.NDArray[Any]
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


def exact(**options: Any) -> DenseRidge:
    return DenseRidge(**{"alphas": ALPHAS, "dtype": "float64", **options})


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
    single = DenseRidge(alphas=[10.0]).fit(X.astype(np.float32), Y).predict(X_test)
    assert single.dtype == np.float32
    # largest eigenvalue / penalty is below 1e3; 1e3 * 6e-8 of values about 5
    np.testing.assert_allclose(single, double, rtol=0, atol=3e-4)


def test_intercept_is_not_penalised(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    decoder = exact().fit(X, Y)
    shifted = exact().fit(X + 100, Y - 1000)
    np.testing.assert_allclose(shifted.weights_, decoder.weights_, atol=ATOL)


@pytest.mark.parametrize("bands", [None, "halves"])
def test_fit_predict_equals_fit_then_predict(
    data: tuple[Array, ...], bands: str | None
) -> None:
    X, Y, X_test = data
    labels = None if bands is None else np.arange(X.shape[1]) % 2
    expected = exact(bands=labels).fit(X, Y).predict(X_test)
    found = exact(bands=labels).fit_predict(X, Y, X_test)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


def test_integer_responses_are_accepted(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    whole = np.round(X * 10).astype(np.int16)
    expected = exact(alphas=[5.0]).fit(whole.astype(np.float64), Y).weights_
    found = exact(alphas=[5.0]).fit(whole, Y).weights_
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


# --- the choice ---------------------------------------------------------------------


def hat_matrix(X: Array, alpha: float) -> Array:
    """Return H with yhat = H y for ridge with an unpenalised intercept."""
    A = np.column_stack([X, np.ones(len(X))])
    penalty = alpha * np.eye(A.shape[1])
    penalty[-1, -1] = 0
    return A @ np.linalg.solve(A.T @ A + penalty, A.T)


def gcv_by_hat_matrix(X: Array, Y: Array, alpha: float) -> Array:
    H = hat_matrix(X, alpha)
    n = len(X)
    rss = np.sum((Y - H @ Y) ** 2, axis=0)
    return np.asarray((rss / n) / (1 - np.trace(H) / n) ** 2)


def test_gcv_equals_the_hat_matrix_formula(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    table = np.array([gcv_by_hat_matrix(X, Y, alpha) for alpha in ALPHAS])
    decoder = exact(choice="gcv").fit(X, Y)
    np.testing.assert_array_equal(decoder.alpha_, ALPHAS[table.argmin(axis=0)])
    np.testing.assert_allclose(decoder.criterion_, table.min(axis=0), rtol=1e-9)


def test_leave_one_out_equals_refitting_without_each_image(
    data: tuple[Array, ...],
) -> None:
    X, Y, _ = data
    table = np.zeros((len(ALPHAS), Y.shape[1]))
    for train, held in LeaveOneOut().split(X):
        for row, alpha in enumerate(ALPHAS):
            model = Ridge(alpha=alpha, solver="cholesky").fit(X[train], Y[train])
            table[row] += (model.predict(X[held])[0] - Y[held[0]]) ** 2 / len(X)
    decoder = exact(choice="loo").fit(X, Y)
    np.testing.assert_array_equal(decoder.alpha_, ALPHAS[table.argmin(axis=0)])
    np.testing.assert_allclose(decoder.criterion_, table.min(axis=0), rtol=1e-9)


def test_leave_one_out_equals_ridgecv(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    reference = RidgeCV(alphas=ALPHAS, alpha_per_target=True).fit(X, Y)
    decoder = exact(choice="loo").fit(X, Y)
    np.testing.assert_array_equal(decoder.alpha_, reference.alpha_)
    np.testing.assert_allclose(decoder.criterion_, -reference.best_score_, rtol=1e-9)
    np.testing.assert_allclose(decoder.weights_, reference.coef_, rtol=0, atol=ATOL)


def test_leave_one_out_chooses_as_himalaya_with_one_fold_per_image(
    data: tuple[Array, ...],
) -> None:
    X, Y, X_test = data
    reference = KernelRidgeCV(
        ALPHAS, kernel="linear", fit_intercept=True, cv=len(X), warn=False
    )
    reference.fit(X, Y)
    decoder = exact(choice="loo").fit(X, Y)
    np.testing.assert_allclose(decoder.alpha_, reference.best_alphas_, rtol=1e-12)
    np.testing.assert_allclose(
        decoder.predict(X_test), reference.predict(X_test), rtol=0, atol=ATOL
    )


def test_criterion_stays_exact_when_the_fit_nearly_interpolates(
    rng: np.random.Generator,
) -> None:
    X, Y = rng.standard_normal((20, 200)), rng.standard_normal((20, 3))
    alpha = 1e-6  # eigenvalues are near 200: 1 - H_ii is near 1e-8
    decoder = exact(alphas=[alpha], choice="loo").fit(X, Y)
    errors = np.zeros(3)
    for train, held in LeaveOneOut().split(X):
        model = Ridge(alpha=alpha, solver="svd").fit(X[train], Y[train])
        errors += (model.predict(X[held])[0] - Y[held[0]]) ** 2 / len(X)
    np.testing.assert_allclose(decoder.criterion_, errors, rtol=1e-6)


def test_noise_gets_the_largest_penalty_and_signal_a_small_one(
    rng: np.random.Generator,
) -> None:
    X = rng.standard_normal((200, 50))
    signal = X @ rng.standard_normal(50)
    noise = rng.permutation(signal)
    decoder = DenseRidge().fit(X, np.column_stack([signal, noise]))
    assert decoder.alpha_[0] < 10 < 1e3 < decoder.alpha_[1]


def test_default_grid_follows_the_scale_of_the_responses(
    data: tuple[Array, ...],
) -> None:
    X, Y, _ = data
    small, large = DenseRidge().fit(X, Y), DenseRidge().fit(10 * X, Y)
    np.testing.assert_allclose(large.alphas_, 100 * small.alphas_, rtol=1e-6)
    np.testing.assert_allclose(10 * large.weights_, small.weights_, atol=1e-5)


def test_default_grid_is_in_units_of_the_mean_eigenvalue() -> None:
    grid = default_alphas(trace=30.0, shape=(4, 7))  # 3 directions, 10 each
    assert np.isclose(grid, 10.0).sum() == 1
    np.testing.assert_allclose(grid[[0, -1]], [1e-2, 1e6])


# --- bands --------------------------------------------------------------------------


def test_each_ratio_equals_ridge_on_scaled_voxels(data: tuple[Array, ...]) -> None:
    X, Y, X_test = data
    bands = np.where(np.arange(X.shape[1]) < 10, 7, 3)
    decoder = exact(bands=bands, band_ratios=[[1, 3]]).fit(X, Y)
    power = np.sum((X - X.mean(axis=0)) ** 2, axis=0)
    scale = np.empty(X.shape[1])
    for label, share in ((3, 0.25), (7, 0.75)):
        own = bands == label
        scale[own] = np.sqrt(share * power.sum() / power[own].sum())
    reference = Ridge(alpha=decoder.alpha_, solver="cholesky").fit(X * scale, Y)
    np.testing.assert_allclose(
        decoder.weights_, reference.coef_ * scale, rtol=0, atol=ATOL
    )
    np.testing.assert_allclose(
        decoder.predict(X_test), reference.predict(X_test * scale), atol=ATOL
    )
    np.testing.assert_allclose(decoder.band_scales_, np.tile([0.25, 0.75], (7, 1)))


@pytest.mark.parametrize("choice", ["gcv", "loo"])
def test_ratio_and_penalty_are_the_best_of_all_pairs(
    data: tuple[Array, ...], choice: str
) -> None:
    X, Y, _ = data
    bands = np.arange(X.shape[1]) % 2
    ratios = [[1, 1], [4, 1], [1, 4]]
    single = [exact(bands=bands, band_ratios=[r], choice=choice) for r in ratios]
    errors = np.array([one.fit(X, Y).criterion_ for one in single])
    joint = exact(bands=bands, choice=choice).fit(X, Y)
    best = errors.argmin(axis=0)
    assert len(np.unique(best)) > 1
    np.testing.assert_allclose(joint.criterion_, errors.min(axis=0), rtol=1e-9)
    for target, number in enumerate(best):
        one = single[number]
        np.testing.assert_allclose(joint.weights_[target], one.weights_[target])
        np.testing.assert_allclose(joint.band_scales_[target], one.band_scales_[0])


def test_the_band_with_signal_gets_the_larger_scale(rng: np.random.Generator) -> None:
    X = rng.standard_normal((150, 200))
    Y = X[:, :100] @ rng.standard_normal((100, 20)) + 5 * rng.standard_normal((150, 20))
    decoder = DenseRidge(bands=np.repeat([0, 1], 100)).fit(X, Y)
    assert np.mean(decoder.band_scales_[:, 0] > 0.5) > 0.9


def test_bands_have_equal_variance_whatever_their_size(
    rng: np.random.Generator,
) -> None:
    X, Y = rng.standard_normal((30, 50)), rng.standard_normal((30, 2))
    bands = np.repeat([0, 1], [45, 5])
    repeated = np.hstack([X[:, :45], np.tile(X[:, 45:], 9)])
    one = exact(bands=bands, band_ratios=[[1, 1]], alphas=[1.0]).fit(X, Y)
    other = exact(
        bands=np.repeat([0, 1], 45),
        band_ratios=[[1, 1]],
        alphas=[np.sum(np.var(repeated, axis=0)) / np.sum(np.var(X, axis=0))],
    ).fit(repeated, Y)
    np.testing.assert_allclose(one.predict(X), other.predict(repeated), atol=ATOL)


# --- streaming and memory -----------------------------------------------------------


def test_targets_and_results_stream_through_hdf5(
    data: tuple[Array, ...], tmp_path: Path
) -> None:
    X, Y, X_test = data
    expected = exact().fit(X, Y)
    with h5py.File(tmp_path / "targets.h5", "w") as file:
        file["Y"] = Y
        weights = file.create_dataset("weights", (7, X.shape[1]), "f8")
        kept = file.create_dataset("predictions", (10, 7), "f8")
        decoder = exact()
        given = decoder.fit_predict(
            X, file["Y"], X_test, weights_out=weights, predictions_out=kept
        )
        assert given is kept
        np.testing.assert_allclose(weights[:], expected.weights_, atol=ATOL)
        np.testing.assert_allclose(kept[:], expected.predict(X_test), atol=ATOL)
        np.testing.assert_allclose(
            decoder.voxel_weight(), expected.voxel_weight(), atol=ATOL
        )


@pytest.mark.parametrize("source", ["tensor", "scaled"])
def test_targets_may_be_a_tensor_or_scaled_when_read(
    data: tuple[Array, ...], source: str
) -> None:
    X, Y, _ = data
    scaling = TargetScaling.fit(Y)
    given = {"tensor": torch.from_numpy(Y), "scaled": ScaledTargets(Y, scaling)}[source]
    expected = exact().fit(X, Y if source == "tensor" else scaling.apply(Y))
    found = exact().fit(X, given)
    np.testing.assert_allclose(found.weights_, expected.weights_, rtol=0, atol=ATOL)


class Watched:
    """Targets that note how many columns were asked for at once."""

    def __init__(self, Y: Array) -> None:
        self.Y, self.shape, self.dtype = Y, Y.shape, Y.dtype
        self.widths: list[int] = []

    def __getitem__(self, key: tuple[slice, slice]) -> Array:
        found: Array = self.Y[key]
        self.widths.append(found.shape[1])
        return found


def test_targets_are_read_once_and_results_do_not_depend_on_the_blocks(
    rng: np.random.Generator,
) -> None:
    X, Y = rng.standard_normal((50, 60)), rng.standard_normal((50, 300))
    whole = exact(choice="loo").fit(X, Y)
    watched = Watched(Y)
    least = exact(choice="loo", max_memory=26_000_000).fit(X, watched)
    assert sum(watched.widths) == 300
    assert max(watched.widths) < 150
    np.testing.assert_array_equal(least.alpha_, whole.alpha_)
    np.testing.assert_allclose(least.weights_, whole.weights_, rtol=0, atol=ATOL)


MEMORY_PROGRAM = """
import sys
import h5py, numpy as np
from minddiff_utils.decoding import DenseRidge
from minddiff_utils.core.rng import stream
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))
rng = stream(0, "memory")
X = rng.standard_normal((1200, 2000), dtype=np.float32)
Y = rng.standard_normal((1200, 5000), dtype=np.float32)
DenseRidge().fit(X[:50, :50], Y[:50, :50])  # libraries take their buffers
with h5py.File(sys.argv[1], "w") as file:
    file["Y"] = Y
    W = file.create_dataset("W", (5000, 2000), "f4")
    del Y
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts from here
    before = status("VmRSS")
    bands = np.arange(2000) % 2 if sys.argv[3] == "bands" else None
    options = {"bands": bands, "choice": sys.argv[4]}
    decoder = DenseRidge(max_memory=int(sys.argv[2]), **options)
    decoder.fit(X, file["Y"], weights_out=W)
print((status("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("choice", ["gcv", "loo"])
@pytest.mark.parametrize(("bands", "limit"), [("none", 105e6), ("bands", 145e6)])
def test_max_memory_is_kept(
    tmp_path: Path, bands: str, limit: float, choice: str
) -> None:
    """Peak of a process beyond what it had; unbounded: 130 MB, 170 with bands."""
    command = [sys.executable, "-c", MEMORY_PROGRAM]
    arguments = [str(tmp_path / "memory.h5"), str(int(limit)), bands, choice]
    done = subprocess.run(
        command + arguments, capture_output=True, text=True, check=True
    )
    assert 0 < int(done.stdout) < limit


def test_too_little_memory_is_one_sentence_with_the_need(
    data: tuple[Array, ...],
) -> None:
    X, Y, _ = data
    with pytest.raises(ConfigError, match=r"max_memory is 0 MB, .* need \d+ MB: raise"):
        DenseRidge(max_memory=1000).fit(X, Y)


def test_weights_that_do_not_fit_ask_for_weights_out() -> None:
    X, Y = np.zeros((3, 1000), np.float32), np.zeros((3, 100_000), np.float32)
    with pytest.raises(ConfigError, match="or give weights_out"):
        DenseRidge(max_memory=300_000_000).fit(X, Y)


# --- what cannot be decoded or is wrong ---------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_target_is_predicted_by_its_constant(
    data: tuple[Array, ...], dtype: Any
) -> None:
    X, Y, X_test = data
    Y = Y.copy()
    Y[:, 2] = 0.1
    decoder = DenseRidge(dtype=dtype).fit(X, Y)
    assert not decoder.weights_[2].any()
    np.testing.assert_array_equal(
        decoder.predict(X_test)[:, 2], np.dtype(dtype).type(0.1)
    )
    assert decoder.alpha_[2] == decoder.alphas_[-1]
    assert decoder.criterion_[2] == 0


def test_a_constant_voxel_gets_weight_zero_and_changes_nothing(
    data: tuple[Array, ...],
) -> None:
    X, Y, _ = data
    wider = np.column_stack([X, np.full(len(X), 0.1)])
    decoder = exact().fit(wider, Y)
    assert not decoder.weights_[:, -1].any()
    expected = exact().fit(X, Y).weights_
    np.testing.assert_allclose(decoder.weights_[:, :-1], expected, rtol=0, atol=ATOL)


def test_repeated_voxels_share_their_weight(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    decoder = exact(alphas=[3.0]).fit(np.hstack([X, X]), Y)
    once = exact(alphas=[1.5]).fit(X, Y)  # half the penalty: two shares, w^2 / 2
    half = X.shape[1]
    np.testing.assert_allclose(decoder.weights_[:, :half], once.weights_ / 2, atol=ATOL)
    np.testing.assert_allclose(decoder.weights_[:, half:], once.weights_ / 2, atol=ATOL)


BAD_INPUT = {
    "NaN in X": (lambda X, Y: (np.where(X[1, 1] == X, np.nan, X), Y), "X holds NaN"),
    "NaN in Y": (lambda X, Y: (X, np.where(Y[1, 1] == Y, np.inf, Y)), "Y holds NaN"),
    "rows": (lambda X, Y: (X[1:], Y), r"Y has shape \(\d+, 7\), but"),
    "one target vector": (lambda X, Y: (X, Y[:, 0]), r"Y has shape \(\d+,\), but"),
    "one image": (lambda X, Y: (X[:1], Y[:1]), "2 training images or more, not 1"),
    "no target": (lambda X, Y: (X, Y[:, :0]), "hold nothing to fit"),
    "constant voxels": (lambda X, Y: (X * 0, Y), "No voxel varies over the"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_data_is_one_sentence(data: tuple[Array, ...], case: str) -> None:
    change, message = BAD_INPUT[case]
    X, Y = change(*data[:2])
    with pytest.raises(DataError, match=message) as caught:
        DenseRidge().fit(X, Y)
    assert str(caught.value).count(". ") == 0


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "alpha of 0": ({"alphas": [0.0, 1.0]}, "penalties above 0"),
    "no alpha": ({"alphas": []}, "penalties above 0"),
    "infinite alpha": ({"alphas": [np.inf]}, "penalties above 0"),
    "tiny alpha": ({"alphas": [1e-7]}, "float32 resolves no penalty below"),
    "choice": ({"choice": "aic"}, "must be one of: gcv, loo"),
    "dtype": ({"dtype": "float16"}, "must be one of: float32, float64"),
    "ratios": ({"band_ratios": [[1.0, 2.0]]}, r"one finite scale .* 1 band\(s\)"),
    "ratio of 0": ({"band_ratios": [[0.0]]}, "finite scale above 0"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_one_sentence(data: tuple[Array, ...], case: str) -> None:
    options, message = BAD_OPTIONS[case]
    with pytest.raises(ConfigError, match=message):
        DenseRidge(**options).fit(data[0], data[1])


def test_a_constant_band_is_named(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    X = X.copy()
    X[:, :4] = 1
    bands = np.where(np.arange(X.shape[1]) < 4, 5, 6)
    with pytest.raises(DataError, match="No voxel of band 5 varies"):
        DenseRidge(bands=bands).fit(X, Y)


def test_bands_of_another_length_are_refused(data: tuple[Array, ...]) -> None:
    with pytest.raises(DataError, match="bands has shape"):
        DenseRidge(bands=np.zeros(3, int)).fit(data[0], data[1])


def test_results_of_another_shape_are_refused_before_the_work(
    data: tuple[Array, ...],
) -> None:
    X, Y, X_test = data
    with pytest.raises(DataError, match="weights_out has shape"):
        DenseRidge().fit(X, Y, weights_out=np.empty((2, 2)))
    with pytest.raises(DataError, match="predictions_out has shape"):
        DenseRidge().fit_predict(X, Y, X_test, predictions_out=np.empty((2, 2)))
    with pytest.raises(DataError, match="X_test has shape"):
        DenseRidge().fit_predict(X, Y, X_test[:, 1:])


def test_two_images_are_enough(rng: np.random.Generator) -> None:
    X, Y = rng.standard_normal((2, 4)), rng.standard_normal((2, 3))
    expected = Ridge(alpha=1.0).fit(X, Y).coef_
    np.testing.assert_allclose(exact(alphas=[1.0]).fit(X, Y).weights_, expected)


def test_nothing_is_said_before_a_fit() -> None:
    with pytest.raises(DataError, match="has not been fitted"):
        DenseRidge().predict(np.zeros((2, 3)))


def test_weights_that_were_not_kept_are_not_invented(data: tuple[Array, ...]) -> None:
    X, Y, X_test = data
    decoder = exact().fit(X, Y)
    decoder.fit_predict(X, Y, X_test)
    with pytest.raises(DataError, match="kept no weights"):
        decoder.predict(X_test)


# --- as a decoder -------------------------------------------------------------------


def test_clone_and_parameters_round_trip(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    decoder = exact(bands=np.arange(X.shape[1]) % 2, choice="loo")
    copy = clone(decoder)
    assert copy.get_params().keys() == decoder.get_params().keys()
    np.testing.assert_array_equal(copy.fit(X, Y).alpha_, decoder.fit(X, Y).alpha_)


def test_voxel_weight_and_noise_gain_equal_their_definitions(
    data: tuple[Array, ...], rng: np.random.Generator
) -> None:
    X, Y, _ = data
    decoder = exact().fit(X, Y)
    noise = rng.random(X.shape[1])
    W = decoder.weights_
    np.testing.assert_allclose(decoder.voxel_weight(), np.abs(W).mean(axis=0))
    np.testing.assert_allclose(decoder.noise_gain(noise), (W**2 * noise).sum(axis=1))


@pytest.mark.parametrize("bands", [None, "halves"])
def test_arrays_restore_all_or_some_targets(
    data: tuple[Array, ...], bands: str | None
) -> None:
    X, Y, X_test = data
    labels = None if bands is None else np.arange(X.shape[1]) % 2
    decoder = exact(bands=labels).fit(X, Y)
    arrays = decoder.arrays()
    keep = np.array([1, 4])
    some = {k: v[keep] if len(v) == 7 else v for k, v in arrays.items()}
    for found, columns in ((arrays, np.arange(7)), (some, keep)):
        restored = DenseRidge.from_arrays(found)
        np.testing.assert_array_equal(restored.weights_, decoder.weights_[columns])
        expected = decoder.predict(X_test)[:, columns]
        np.testing.assert_allclose(restored.predict(X_test), expected, atol=ATOL)
        np.testing.assert_array_equal(restored.alpha_, decoder.alpha_[columns])
        np.testing.assert_array_equal(
            restored.band_scales_, decoder.band_scales_[columns]
        )


def test_damaged_arrays_are_refused(data: tuple[Array, ...]) -> None:
    arrays = exact().fit(data[0], data[1]).arrays()
    with pytest.raises(DataError, match="lacks intercept"):
        DenseRidge.from_arrays({k: v for k, v in arrays.items() if k != "intercept"})
    with pytest.raises(DataError, match="Decoder's alpha has shape"):
        DenseRidge.from_arrays({**arrays, "alpha": arrays["alpha"][1:]})


def test_the_same_fit_gives_the_same_bytes(data: tuple[Array, ...]) -> None:
    X, Y, _ = data
    one, other = DenseRidge().fit(X, Y), DenseRidge().fit(X, Y)
    assert one.weights_.tobytes() == other.weights_.tobytes()
