"""The contract of all decoders: what each of them does alike is tested once, here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.types import Array
from minddiff_utils.decoding import BandedRidge, RidgeGCV, VoxelSelectedRidge
from minddiff_utils.decoding._grouped import (
    fit_features,
    group_features,
    predict_features,
)
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.other_systems import category_means
from minddiff_utils.decoding.targets import StandardisedTargets, TargetScaling

N, N_VOXELS, N_TARGETS = 60, 40, 7
BANDS = np.arange(N_VOXELS) % 2
DECODERS: dict[str, LinearDecoder] = {
    "voxel-selected": VoxelSelectedRidge(0.5, 8),
    "gradients": VoxelSelectedRidge(0.5, 8, solver="cg"),
    "all voxels selected": VoxelSelectedRidge(0.5, 99),
    "gcv": RidgeGCV(dtype="float64"),
    "gcv, two bands": RidgeGCV(bands=BANDS, dtype="float64"),
    "banded": BandedRidge(BANDS, n_samples=3, n_folds=2, dtype="float64"),
}
#: Other blocks or orders of sums in float64; condition numbers are below 1e4, values
#: about 10. Conjugate gradients stop at a relative residual of 1e-10.
CLOSE = {"rtol": 1e-6, "atol": 1e-7}


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> LinearDecoder:
    return clone(DECODERS[request.param])


@pytest.fixture
def data(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Give X_train, Y_train and X_test, with means of their own."""
    hidden = rng.standard_normal((N + 10, 5))
    X = hidden @ rng.standard_normal((5, N_VOXELS)) + 0.5
    X += rng.standard_normal(X.shape)
    Y = hidden[:N] @ rng.standard_normal((5, N_TARGETS)) + 2
    return X[:N], Y + rng.standard_normal(Y.shape), X[N:]


# --- fit and predict ----------------------------------------------------------------


def test_predictions_are_weights_times_responses_and_intercept(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    X, Y, X_test = data
    assert decoder.fit(X, Y) is decoder
    W = decoder.dense_weights(slice(0, N_TARGETS))[:N_TARGETS]
    assert W.shape == (N_TARGETS, N_VOXELS)
    expected = X_test @ W.T + decoder.intercept_
    np.testing.assert_allclose(decoder.predict(X_test), expected, rtol=1e-10)
    assert decoder.n_features_in_ == N_VOXELS
    assert decoder.score(X, Y) > 0.1  # scikit-learn's


def test_a_fit_with_predictions_predicts_as_a_fit_and_then_a_prediction(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    X, Y, X_test = data
    expected = clone(decoder).fit(X, Y).predict(X_test)
    found = decoder.fit_predict(X, Y, X_test)
    np.testing.assert_allclose(found, expected, **CLOSE)
    with pytest.raises(DataError, match="has shape"):
        decoder.fit_predict(X, Y, X_test[:, 1:])


def test_each_target_has_a_penalty_of_the_grid(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    decoder.fit(*data[:2])
    assert decoder.alpha_.shape == (N_TARGETS,)
    near = np.abs(decoder.alpha_[:, None] / decoder.alphas_ - 1).min(axis=1)
    assert near.max() < 1e-12


def test_constant_targets_are_predicted_by_their_constant(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    X, Y, X_test = data
    Y[:, 2] = 0.1  # its mean is not 0.1 to the last digit
    decoder.fit(X, Y)
    assert np.all(decoder.predict(X_test)[:, 2] == 0.1)
    assert not decoder.weights_[2].any()


def test_a_constant_voxel_gets_no_weight(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    X, Y, _ = data
    X[:, 3] = 0.1
    decoder.fit(X, Y)
    # zero, or what rounding leaves of it in the eigenvectors
    assert np.abs(decoder.dense_weights(slice(0, N_TARGETS))[:, 3]).max() < 1e-13


def test_the_order_of_voxels_does_not_matter(
    decoder: LinearDecoder, data: tuple[Array, ...], rng: np.random.Generator
) -> None:
    X, Y, X_test = data
    order = rng.permutation(N_VOXELS)
    moved = clone(decoder)
    if getattr(moved, "bands", None) is not None:
        moved.set_params(bands=BANDS[order])
    found = moved.fit(X[:, order], Y).predict(X_test[:, order])
    np.testing.assert_allclose(found, decoder.fit(X, Y).predict(X_test), **CLOSE)


class Watched:
    """Targets that note which columns were asked for."""

    def __init__(self, Y: Array) -> None:
        self.Y, self.shape = Y, Y.shape
        self.asked: list[int] = []

    def __getitem__(self, key: tuple[slice, slice]) -> Array:
        self.asked += range(*key[1].indices(self.shape[1]))
        found: Array = self.Y[key]
        return found


def test_each_target_is_read_once(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    X, Y, _ = data
    watched = Watched(np.tile(Y, 300))  # more than one block of any decoder
    decoder.fit(X, watched)
    assert sorted(watched.asked) == list(range(watched.shape[1]))


# --- what cannot be fitted ----------------------------------------------------------

BAD_DATA: dict[str, tuple[Any, str]] = {
    "NaN in X": (lambda X, Y: (np.where(X[1, 1] == X, np.nan, X), Y), "X holds NaN"),
    "inf in X": (lambda X, Y: (np.where(X[1, 1] == X, np.inf, X), Y), "X holds NaN"),
    "NaN in Y": (lambda X, Y: (X, np.where(Y[1, 1] == Y, np.nan, Y)), "Y holds NaN"),
    "inf in Y": (lambda X, Y: (X, np.where(Y[1, 1] == Y, np.inf, Y)), "Y holds NaN"),
    "rows": (lambda X, Y: (X[1:], Y), r"Y has shape \(\d+, 7\), but"),
    "one target vector": (lambda X, Y: (X, Y[:, 0]), r"Y has shape \(\d+,\), but"),
    "no image": (lambda X, Y: (X[:0], Y[:0]), "hold nothing to fit"),
    "no target": (lambda X, Y: (X, Y[:, :0]), "hold nothing to fit"),
    "constant voxels": (lambda X, Y: (np.ones_like(X), Y), "o.* voxel.* varies over"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_sentence(
    decoder: LinearDecoder, data: tuple[Array, ...], case: str
) -> None:
    change, message = BAD_DATA[case]
    with pytest.raises(DataError, match=message) as caught:
        decoder.fit(*change(*data[:2]))
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (VoxelSelectedRidge, {"alpha": 0.0}, "alpha is 0.0"),
        (VoxelSelectedRidge, {"alpha": float("nan")}, "alpha is nan"),
        (VoxelSelectedRidge, {"n_voxels": 0}, "n_voxels is 0"),
        (VoxelSelectedRidge, {"dtype": "float16"}, "one of: float32, float64"),
        (VoxelSelectedRidge, {"solver": "lu"}, "one of: auto, cholesky, cg"),
        (RidgeGCV, {"alphas": [0.0, 1.0]}, "penalties above 0"),
        (RidgeGCV, {"alphas": []}, "penalties above 0"),
        (RidgeGCV, {"alphas": [np.inf]}, "penalties above 0"),
        (RidgeGCV, {"alphas": [1e-7]}, "float32 resolves no penalty below"),
        (RidgeGCV, {"dtype": "float16"}, "one of: float32, float64"),
        (BandedRidge, {"alphas": [-1.0]}, "penalties above 0"),
        (BandedRidge, {"n_samples": 0}, "n_samples is 0"),
        (BandedRidge, {"n_folds": 31}, "between 2 and half of the 60 training images"),
        (BandedRidge, {"seed": -1}, "seed is -1"),
        (BandedRidge, {"dtype": "float16"}, "one of: float32, float64"),
    ],
)
def test_parameters_out_of_range_are_one_sentence(
    kind: Any, options: dict[str, Any], message: str, data: tuple[Array, ...]
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options).fit(*data[:2])


@pytest.mark.parametrize("kind", [RidgeGCV, BandedRidge])
def test_bands_need_a_label_for_each_voxel_and_a_voxel_that_varies(
    kind: Any, data: tuple[Array, ...]
) -> None:
    X, Y, _ = data
    with pytest.raises(DataError, match="bands has shape"):
        kind(bands=np.zeros(3, int)).fit(X, Y)
    X[:, BANDS == 1] = 1
    with pytest.raises(DataError, match="No voxel of band 1 varies"):
        kind(bands=BANDS).fit(X, Y)


def test_prediction_needs_a_fit_and_the_same_voxels(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    X, Y, _ = data
    for ask in (decoder.voxel_weight, decoder.arrays, lambda: decoder.predict(X)):
        with pytest.raises(DataError, match="not been fitted"):
            ask()
    decoder.fit(X, Y)
    with pytest.raises(DataError, match="X has shape"):
        decoder.predict(X[:, 1:])
    with pytest.raises(DataError, match="X holds NaN"):
        decoder.predict(np.full_like(X, np.nan))
    with pytest.raises(DataError, match="voxel_noise has shape"):
        decoder.noise_gain(np.ones(3))


# --- weights by voxel, parts, files -------------------------------------------------


def test_voxel_weight_and_noise_gain_equal_their_definitions(
    decoder: LinearDecoder, data: tuple[Array, ...], rng: np.random.Generator
) -> None:
    X, Y, _ = data
    decoder.fit(X, Y)
    # the weights, from nothing but predictions
    silence = decoder.predict(np.zeros((1, N_VOXELS)))
    W = (decoder.predict(np.eye(N_VOXELS)) - silence).T
    noise = rng.random(N_VOXELS)
    np.testing.assert_allclose(decoder.voxel_weight(), np.abs(W).mean(0), **CLOSE)
    np.testing.assert_allclose(decoder.noise_gain(noise), W**2 @ noise, **CLOSE)


def test_voxel_pattern_is_the_correlation_with_what_is_decoded(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    X, Y, _ = data
    X = X.copy()
    X[:, 4] = 0.25  # says nothing
    Y = np.column_stack([Y, np.full(len(Y), 3.0)])  # decoded as a constant
    decoder.fit(X, Y)
    for seen in (X, X[: (N_VOXELS - 1) // 2]):  # by voxels; by images, where few
        Y_hat = decoder.predict(seen)[:, :-1]
        r = [
            [np.corrcoef(x, y)[0, 1] if np.ptp(x) else 0.0 for y in Y_hat.T]
            for x in seen.T
        ]
        pattern = decoder.voxel_pattern(seen)
        np.testing.assert_allclose(pattern, np.abs(r).mean(1), atol=1e-6)  # float32


def test_a_voxel_that_cancels_noise_has_weight_and_no_pattern(
    rng: np.random.Generator,
) -> None:
    # Haufe et al. (2014), section 2.1: x1 = s + d, x2 = d; the decoder is x1 - x2
    signal, noise = rng.standard_normal((2, 4000))
    X = np.stack([signal + noise, noise], axis=1)
    decoder = RidgeGCV(dtype="float64").fit(X, signal[:, None])
    weight, pattern = decoder.voxel_weight(), decoder.voxel_pattern(X)
    assert weight[1] / weight[0] == pytest.approx(1, abs=0.01)
    assert pattern[0] == pytest.approx(np.sqrt(0.5), abs=0.05)  # SE .016
    assert pattern[1] < 0.06


@pytest.mark.parametrize("kept", [slice(2, 5), np.arange(N_TARGETS) % 3 == 1])
def test_part_of_a_decoder_keeps_nothing_of_the_other_targets(
    decoder: LinearDecoder, data: tuple[Array, ...], kept: Any
) -> None:
    X, Y, X_test = data
    decoder.fit(X, Y)
    part = decoder.part(kept)
    for name, value in vars(decoder).items():
        if np.shape(value)[:1] == (N_TARGETS,):
            np.testing.assert_array_equal(getattr(part, name), value[kept])
    expected = decoder.predict(X_test)[:, kept]
    np.testing.assert_allclose(part.predict(X_test), expected, rtol=1e-10)
    assert len(decoder.weights_) == N_TARGETS
    if isinstance(kept, slice):
        assert np.shares_memory(part.weights_, decoder.weights_)


def test_a_file_brings_the_decoder_back(
    decoder: LinearDecoder, data: tuple[Array, ...], tmp_path: Path
) -> None:
    X, Y, X_test = data
    some = decoder.fit(X, Y).part(slice(1, 4))
    for fitted in (decoder, some):
        np.savez(tmp_path / "decoder.npz", allow_pickle=False, **fitted.arrays())
        with np.load(tmp_path / "decoder.npz", allow_pickle=False) as file:
            again = type(decoder).from_arrays(dict(file))
        np.testing.assert_array_equal(again.predict(X_test), fitted.predict(X_test))
        np.testing.assert_array_equal(again.alpha_, fitted.alpha_)


def test_arrays_that_do_not_fit_are_refused(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    arrays = decoder.fit(*data[:2]).arrays()
    kind = type(decoder)
    with pytest.raises(DataError, match="lacks weights: run notebook 02"):
        kind.from_arrays({k: v for k, v in arrays.items() if k != "weights"})
    with pytest.raises(DataError, match="intercept has shape"):
        kind.from_arrays({**arrays, "intercept": np.zeros(3)})
    if "voxels" in arrays:
        with pytest.raises(DataError, match=r"outside 0\.\.2"):
            kind.from_arrays({**arrays, "n_voxels": np.array(3)})


def test_it_is_a_scikit_learn_estimator(
    decoder: LinearDecoder, data: tuple[Array, ...]
) -> None:
    before = decoder.get_params()
    decoder.fit(*data[:2])
    copy = clone(decoder)
    assert not hasattr(copy, "weights_")
    for name, value in copy.get_params().items():
        np.testing.assert_array_equal(value, before[name])


# --- several features at once -------------------------------------------------------


def test_features_with_equal_decoders_are_grouped() -> None:
    bands = np.array([0, 1, 1])
    found = group_features(
        {
            "c": RidgeGCV(bands=bands),
            "z": VoxelSelectedRidge(0.15, 3),
            "clip/1": RidgeGCV(bands=bands.copy()),
            "clip/2": RidgeGCV(bands=1 - bands),
            "clip/3": VoxelSelectedRidge(0.15, 4),
            "clip/4": BandedRidge(bands),
            "clip/5": VoxelSelectedRidge(0.15, 3),
        }
    )
    alone = [["clip/2"], ["clip/3"], ["clip/4"]]
    assert found == [["c", "clip/1"], ["z", "clip/5"], *alone]


@pytest.mark.parametrize("rows", [slice(None), np.arange(5, 50)])
def test_features_fitted_at_once_are_decoded_as_if_alone(
    decoder: LinearDecoder, data: tuple[Array, ...], rows: Any
) -> None:
    X, Y, X_test = data
    features = {"c": Y[:, :3], "z": 1e4 * Y[:, 3:4] + 7, "clip/1": Y[:, 4:]}
    decoders = dict.fromkeys(features, decoder)
    found = fit_features(decoders, X, features, rows)
    assert list(found) == list(features)
    assert not hasattr(decoder, "n_features_in_")  # clones are fitted
    X_all = np.concatenate([X, X_test])
    test = np.arange(N, N + 10)
    all_features = {n: np.concatenate([F, F[:10]]) for n, F in features.items()}
    train = np.arange(N)[rows]
    direct = predict_features(decoders, X_all, all_features, train, test)
    for name, (one, scaling) in found.items():
        expected = TargetScaling.fit(features[name][rows])
        np.testing.assert_array_equal(scaling.scale, expected.scale)
        targets = expected.apply(features[name][rows])
        alone = clone(decoder).fit(X[rows], targets).predict(X_test)
        np.testing.assert_allclose(one.predict(X_test), alone, **CLOSE)
        # passed through float32, values about 5 SDs
        np.testing.assert_allclose(
            scaling.apply(direct[name].astype(float)), alone, atol=1e-5
        )


# --- targets ------------------------------------------------------------------------


def test_scaled_targets_have_mean_0_and_sd_1_and_come_back(
    rng: np.random.Generator,
) -> None:
    Y = rng.normal(3, [0.1, 1, 10], (50, 3))
    scaling = TargetScaling.fit(Y)
    scaled = scaling.apply(Y)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-13)  # rounding
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-13)
    np.testing.assert_allclose(scaling.invert(scaled), Y, rtol=1e-13)
    assert scaling.apply(Y.astype(np.float32)).dtype == np.float32


def test_targets_that_are_constant_but_for_rounding_are_0_and_come_back_as_their_mean(
    rng: np.random.Generator,
) -> None:
    Y = rng.standard_normal((50, 4)).astype(np.float32)
    Y[:, 0] = np.float32(1) + np.float32(1.2e-7) * (np.arange(50) % 2)
    Y[:, 1] = 0.1
    Y[:, 2] *= 1e-4  # weak, yet a thousand times above rounding
    scaling = TargetScaling.fit(Y)
    assert scaling.varies.tolist() == [False, False, True, True]
    assert not scaling.apply(Y)[:, :2].any()
    assert scaling.scale[:2].tolist() == [1, 1]
    # the mean of fifty times 0.1, in float32
    back = scaling.invert(scaling.apply(Y))[:, 1]
    np.testing.assert_allclose(back, 0.1, rtol=1e-6)


def test_scaling_refuses_targets_that_are_empty_or_not_finite() -> None:
    with pytest.raises(DataError, match="empty"):
        TargetScaling.fit(np.zeros((0, 3)))
    with pytest.raises(DataError, match="Y_train holds NaN"):
        TargetScaling.fit(np.array([[1.0], [np.nan]]))


@pytest.mark.parametrize("rows", [slice(None), np.array([5, 0, 3, 8])])
@pytest.mark.parametrize(("start", "stop"), [(0, 6), (1, 4), (2, 3), (3, 6), (4, 99)])
def test_features_side_by_side_are_read_as_one(
    start: int, stop: int, rows: Any, rng: np.random.Generator
) -> None:
    # beside targets of this size those of c would count as constant
    features = {
        "c": rng.standard_normal((9, 2)),
        "z": 1e9 * rng.standard_normal((9, 1)),
        "clip/1": rng.standard_normal((9, 3)),
    }
    joined = StandardisedTargets(features, rows)
    scaled = [TargetScaling.fit(Y[rows]).apply(Y[rows]) for Y in features.values()]
    whole = np.hstack(scaled)
    assert joined.shape == whole.shape
    np.testing.assert_array_equal(joined[:, start:stop], whole[:, start:stop])
    for part, columns in zip(scaled, joined.columns.values(), strict=True):
        np.testing.assert_array_equal(joined[:, columns], part)


def test_features_of_different_images_do_not_stand_side_by_side() -> None:
    with pytest.raises(DataError, match="Targets z has shape"):
        StandardisedTargets({"c": np.zeros((4, 2)), "z": np.zeros((5, 2))})


# --- what the category alone says -----------------------------------------------------


def test_the_category_s_mean_is_over_the_training_images_that_name_the_same() -> None:
    cat, dog, none = frozenset({"cat"}), frozenset({"dog"}), frozenset[str]()
    train = [cat, cat, dog, cat | dog]
    Y = np.array([[1.0], [3.0], [10.0], [20.0]], np.float32)
    test = [cat, dog, cat | dog, frozenset({"bus"}), none, frozenset({"cat", "bus"})]
    found = category_means(Y, train, test)
    # by hand; no bus was seen: all four; cat and bus: most is shared with cat alone
    np.testing.assert_allclose(found[:, 0], [2.0, 10.0, 20.0, 8.5, 8.5, 2.0])
