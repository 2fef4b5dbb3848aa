"""The decoder equals FastL2LiR; the scores equal their definitions and do not leak."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge

from minddiff_utils import decoding as decoders
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.decoding import (
    BandedRidge,
    DenseRidge,
    ScaledTargets,
    SideBySide,
    SomeImages,
    TargetScaling,
    VoxelSelectedRidge,
    grouped,
    scores,
)

Array = npt.NDArray[Any]
CASES = ("few", "strong", "all_tall", "all_wide", "near_constant")


def oracle(case: str) -> dict[str, Array]:
    with np.load(Path(__file__).parent / "oracles" / "fastl2lir.npz") as file:
        return {k.partition("/")[2]: file[k] for k in file if k.startswith(case + "/")}


def fitted(o: dict[str, Array], **changes: Any) -> VoxelSelectedRidge:
    options = {"alpha": float(o["alpha"]), "n_feat": int(o["n_feat"]), **changes}
    return VoxelSelectedRidge(**options).fit(o["X_train"], o["Y_train"])


def dense(decoder: VoxelSelectedRidge) -> Array:
    """Return the weights as FastL2LiR has them, (n_voxels, n_targets)."""
    W = np.zeros((decoder.n_features_in_, len(decoder.weights_)))
    for target, voxels in enumerate(decoder.voxels_):
        W[voxels, target] = decoder.weights_[target]
    return W


def data(
    rng: np.random.Generator, n: int = 60, n_voxels: int = 40, n_targets: int = 7
) -> tuple[Array, Array]:
    hidden = rng.standard_normal((n, 5))
    X = hidden @ rng.standard_normal((5, n_voxels)) + rng.standard_normal((n, n_voxels))
    Y = hidden @ rng.standard_normal((5, n_targets))
    return X + 0.5, Y + rng.standard_normal((n, n_targets)) + 2


# --- against FastL2LiR --------------------------------------------------------------

# Both sides solve in float64; the condition numbers here are at most 1e4, so rounding
# stays below 1e4 * 1e-16 of the largest weight (about 1), with a hundredfold margin.
ATOL = 1e-10


@pytest.mark.parametrize("case", CASES)
def test_weights_and_predictions_equal_fastl2lir(case: str) -> None:
    o = oracle(case)
    decoder = fitted(o)
    np.testing.assert_allclose(dense(decoder), o["W"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(decoder.intercept_, o["b"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(
        decoder.predict(o["X_test"]), o["Y_hat"], rtol=0, atol=100 * ATOL
    )


def test_twin_voxels_add_up_to_what_fastl2lir_gives_them() -> None:
    o = oracle("ties")
    decoder = fitted(o)
    twins = (2, -1, o["W"].shape[1])
    ours, theirs = (W.reshape(twins).sum(axis=0) for W in (dense(decoder), o["W"]))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATOL)
    predicted = decoder.predict(o["X_test"])
    np.testing.assert_allclose(predicted, o["Y_hat"], rtol=0, atol=100 * ATOL)


def test_of_twin_voxels_the_lower_index_is_selected_first() -> None:
    o = oracle("ties")
    half = o["W"].shape[0] // 2
    for voxels in fitted(o).voxels_.tolist():
        lower = {v for v in voxels if v < half}
        assert {v - half for v in voxels if v >= half} <= lower
        assert len(voxels) == 7
        assert len(lower) == 4  # three whole pairs, and the lower one of the fourth


def test_a_voxel_that_hardly_varies_is_never_selected() -> None:
    o = oracle("near_constant")
    r = np.corrcoef(o["X_train"][:, 4], o["Y_train"][:, 0])[0, 1]
    assert r > 0.999  # it would be the first one selected
    assert 4 not in fitted(o).voxels_


def test_scikit_learns_ridge_differs_because_its_intercept_is_free() -> None:
    o = oracle("strong")
    voxels = fitted(o).voxels_[0]
    X, y = o["X_train"][:, voxels], o["Y_train"][:, 0]
    ones = np.ones((len(X), 1))
    penalised = Ridge(100.0, fit_intercept=False).fit(np.hstack([X, ones]), y).coef_
    free = Ridge(100.0).fit(X, y)
    np.testing.assert_allclose(penalised[:-1], o["W"][voxels, 0], rtol=0, atol=ATOL)
    assert abs(penalised[-1] - o["b"][0]) < ATOL
    assert np.max(np.abs(free.coef_ - o["W"][voxels, 0])) > 1e-3
    assert abs(free.intercept_ - o["b"][0]) > 0.1


@pytest.mark.filterwarnings("ignore")  # of the other package
def test_fastl2lir_itself_agrees_on_fresh_data(rng: np.random.Generator) -> None:
    fastl2lir = pytest.importorskip("fastl2lir")
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("fastl2lir 0.11 fails on numpy 2.4")
    X, Y = data(rng)
    model = fastl2lir.FastL2LiR()
    model.fit(X, Y, alpha=0.15, n_feat=9)
    ours = VoxelSelectedRidge(0.15, 9).fit(X, Y)
    np.testing.assert_allclose(ours.predict(X), model.predict(X), rtol=0, atol=1e-9)


def test_more_voxels_than_one_gathered_block_are_solved_alike(
    rng: np.random.Generator,
) -> None:
    X, Y = data(rng, n=300, n_voxels=180, n_targets=3)
    decoder = VoxelSelectedRidge(2.0, 150).fit(X, Y)
    for target, voxels in enumerate(decoder.voxels_):
        A = np.column_stack([X[:, voxels], np.ones(len(X))])
        w = np.linalg.solve(A.T @ A + 2.0 * np.eye(151), A.T @ Y[:, target])
        # 150 unknowns, condition about 1e3: rounding stays far below this
        np.testing.assert_allclose(decoder.weights_[target], w[:-1], rtol=0, atol=1e-11)
        assert abs(decoder.intercept_[target] - w[-1]) < 1e-11


# --- the estimator ------------------------------------------------------------------


@pytest.mark.parametrize("n_feat", [9, 40])
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_results_do_not_depend_on_chunking(
    rng: np.random.Generator, n_feat: int, chunk: int
) -> None:
    X, Y = data(rng)
    whole = VoxelSelectedRidge(0.15, n_feat).fit(X, Y)
    parts = VoxelSelectedRidge(0.15, n_feat, chunk_targets=chunk).fit(X, Y)
    np.testing.assert_array_equal(whole.voxels_, parts.voxels_)
    # only the order of sums differs, times a condition number of about 1e3
    np.testing.assert_allclose(whole.weights_, parts.weights_, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_the_order_of_voxels_does_not_matter(seed: int, n_feat: int) -> None:
    rng = np.random.default_rng(seed)
    X, Y = data(rng, n=30, n_voxels=12, n_targets=3)
    order = rng.permutation(12)
    one = VoxelSelectedRidge(0.5, n_feat).fit(X, Y)
    other = VoxelSelectedRidge(0.5, n_feat).fit(X[:, order], Y)
    # rounding only, as the voxels are distinct
    np.testing.assert_allclose(dense(one)[order], dense(other), rtol=0, atol=1e-10)


def test_constant_targets_are_predicted_by_their_constant(
    rng: np.random.Generator,
) -> None:
    X, Y = data(rng)
    varying = VoxelSelectedRidge(0.15, 5).fit(X, Y).predict(X)
    Y[:, 2] = 0.1  # its mean is not 0.1 to the last digit
    decoder = VoxelSelectedRidge(0.15, 5).fit(X, Y)
    predicted = decoder.predict(X)
    assert np.all(predicted[:, 2] == 0.1)
    assert not decoder.weights_[2].any()
    np.testing.assert_array_equal(np.delete(predicted, 2, 1), np.delete(varying, 2, 1))


def test_all_usable_voxels_are_used_where_n_feat_exceeds_them(
    rng: np.random.Generator,
) -> None:
    X, Y = data(rng)
    X[:, [3, 20]] = 1.0
    decoder = VoxelSelectedRidge(0.15, 39).fit(X, Y)
    usable = np.delete(np.arange(40), [3, 20])
    np.testing.assert_array_equal(decoder.voxels_, np.tile(usable, (7, 1)))
    alone = VoxelSelectedRidge(0.15, 38).fit(X[:, usable], Y)
    # the layout in memory changes the order of sums, nothing else
    np.testing.assert_allclose(decoder.weights_, alone.weights_, rtol=0, atol=1e-12)


def test_float32_data_give_the_float64_answer(rng: np.random.Generator) -> None:
    X, Y = (values.astype(np.float32) for values in data(rng))
    single = VoxelSelectedRidge(0.15, 9).fit(X, Y)
    double = VoxelSelectedRidge(0.15, 9).fit(X.astype(float), Y.astype(float))
    np.testing.assert_array_equal(single.weights_, double.weights_)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["X", "Y"])
def test_values_that_are_not_finite_are_refused(
    rng: np.random.Generator, where: str, value: float
) -> None:
    X, Y = data(rng)
    {"X": X, "Y": Y}[where][3, 2] = value
    with pytest.raises(DataError, match=f"{where} holds NaN"):
        VoxelSelectedRidge(0.15, 5).fit(X, Y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"n_feat": 0}, "n_feat is 0"),
        ({"chunk_targets": 0}, "chunk_targets is 0"),
    ],
)
def test_parameters_out_of_range_are_refused(
    rng: np.random.Generator, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        VoxelSelectedRidge(**options).fit(*data(rng))


def test_a_fit_needs_images_targets_and_a_voxel_that_varies(
    rng: np.random.Generator,
) -> None:
    X, Y = data(rng)
    with pytest.raises(DataError, match="None of 40 voxels varies"):
        VoxelSelectedRidge().fit(np.ones_like(X), Y)
    with pytest.raises(DataError, match="nothing to fit"):
        VoxelSelectedRidge().fit(X, Y[:, :0])
    with pytest.raises(DataError, match="Y has shape"):
        VoxelSelectedRidge().fit(X, Y[1:])


@pytest.mark.parametrize("n_feat", [2, 3])
def test_dependent_voxels_without_penalty_are_refused(n_feat: int) -> None:
    a = np.array([1.0, -1.0, 1.0, -1.0])  # four images: every pivot is exact
    X = np.column_stack([a, a, [1.0, 1.0, -1.0, -1.0]])
    with pytest.raises(DataError, match=r"raise decoding\.alpha"):
        VoxelSelectedRidge(1e-300, n_feat).fit(X, a[:, None])


def test_prediction_needs_a_fit_and_the_same_voxels(rng: np.random.Generator) -> None:
    X, Y = data(rng)
    with pytest.raises(DataError, match="not been fitted"):
        VoxelSelectedRidge().predict(X)
    decoder = VoxelSelectedRidge(0.15, 5).fit(X, Y)
    with pytest.raises(DataError, match="X has shape"):
        decoder.predict(X[:, 1:])
    with pytest.raises(DataError, match="X holds NaN"):
        decoder.predict(np.full_like(X, np.nan))


def test_it_is_a_scikit_learn_estimator(rng: np.random.Generator) -> None:
    X, Y = data(rng)
    decoder = VoxelSelectedRidge(0.3, 4).fit(X, Y)
    params = {
        "alpha": 0.3,
        "n_feat": 4,
        "chunk_targets": None,
        "solver": "auto",
        "dtype": "float64",
        "device": "cpu",
        "max_memory": None,
        "tol": None,
        "n_threads": None,
    }
    assert decoder.get_params() == params
    assert clone(decoder).get_params() == params
    assert not hasattr(clone(decoder), "weights_")
    assert decoder.score(X, Y) > 0.1


def test_voxel_weight_is_the_mean_absolute_weight() -> None:
    arrays = {
        "voxels": np.array([[0, 2], [2, 3]]),
        "weights": np.array([[1.0, -2.0], [4.0, 0.5]]),
        "intercept": np.zeros(2),
        "n_voxels": np.array(5),
        "alpha": np.array(0.15),
        "n_feat": np.array(2),
    }
    decoder = VoxelSelectedRidge.from_arrays(arrays)
    assert decoder.voxel_weight().tolist() == [0.5, 0.0, 3.0, 0.25, 0.0]


def test_arrays_bring_the_decoder_back(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    X, Y = data(rng)
    decoder = VoxelSelectedRidge(0.3, 4).fit(X, Y)
    np.savez(tmp_path / "decoder.npz", allow_pickle=False, **decoder.arrays())
    with np.load(tmp_path / "decoder.npz", allow_pickle=False) as file:
        again = VoxelSelectedRidge.from_arrays(dict(file))
    np.testing.assert_array_equal(again.predict(X), decoder.predict(X))
    assert again.get_params() == decoder.get_params()


def test_arrays_of_some_targets_bring_those_back(rng: np.random.Generator) -> None:
    X, Y = data(rng)
    decoder = VoxelSelectedRidge(0.3, 4).fit(X, Y)
    keep = np.array([5, 1])
    some = {k: v[keep] if v.ndim else v for k, v in decoder.arrays().items()}
    predicted = VoxelSelectedRidge.from_arrays(some).predict(X)
    np.testing.assert_array_equal(predicted, decoder.predict(X)[:, keep])


def test_arrays_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    arrays = VoxelSelectedRidge(0.3, 4).fit(*data(rng)).arrays()
    with pytest.raises(DataError, match="lacks weights"):
        VoxelSelectedRidge.from_arrays(
            {k: v for k, v in arrays.items() if k != "weights"}
        )
    with pytest.raises(DataError, match=r"outside 0\.\.2"):
        VoxelSelectedRidge.from_arrays({**arrays, "n_voxels": np.array(3)})
    with pytest.raises(DataError, match="intercept has shape"):
        VoxelSelectedRidge.from_arrays({**arrays, "intercept": np.zeros(3)})


# --- scaling of the targets ---------------------------------------------------------


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


def test_a_constant_target_has_scale_1_and_is_inverted_to_its_constant(
    rng: np.random.Generator,
) -> None:
    Y = rng.standard_normal((50, 3))
    Y[:, 1] = 0.1
    scaling = TargetScaling.fit(Y)
    assert scaling.varies.tolist() == [True, False, True]
    assert scaling.scale[1] == 1
    assert not scaling.apply(Y)[:, 1].any()
    # the mean of fifty times 0.1, rounded
    np.testing.assert_allclose(scaling.invert(scaling.apply(Y))[:, 1], 0.1, rtol=1e-15)


def test_a_target_that_varies_by_rounding_alone_counts_as_constant(
    rng: np.random.Generator,
) -> None:
    Y = rng.standard_normal((50, 3)).astype(np.float32)
    Y[:, 0] = np.float32(1) + np.float32(1.2e-7) * (np.arange(50) % 2)
    Y[:, 2] *= 1e-4  # weak, yet a thousand times above rounding
    scaling = TargetScaling.fit(Y)
    assert scaling.varies.tolist() == [False, True, True]
    assert not scaling.apply(Y)[:, 0].any()


def test_scaling_refuses_targets_that_are_empty_or_not_finite() -> None:
    with pytest.raises(DataError, match="empty"):
        TargetScaling.fit(np.zeros((0, 3)))
    with pytest.raises(DataError, match="Y_train holds NaN"):
        TargetScaling.fit(np.array([[1.0], [np.nan]]))


# --- targets that are read, not held ------------------------------------------------


class Watched:
    """Targets that note which columns they were asked for."""

    def __init__(self, Y: Array) -> None:
        self.Y, self.shape = Y, Y.shape
        self.asked: list[tuple[int, int]] = []

    def __getitem__(self, key: tuple[slice, slice]) -> Array:
        found: Array = self.Y[key]
        self.asked.append(key[1].indices(self.shape[1])[:2])
        return found


def three_parts() -> dict[str, Any]:
    """Return 2 images of 2 + 1 + 3 targets: an array, a tensor, and scaled ones."""
    scaling = TargetScaling(np.ones(3), np.full(3, 2.0), np.ones(3, bool))
    return {
        "c": np.array([[0.0, 1], [10, 11]]),
        "z": torch.tensor([[2.0], [12]], dtype=torch.float64),
        "clip/1": ScaledTargets(np.array([[7.0, 9, 11], [27, 29, 31]]), scaling),
    }


@pytest.mark.parametrize(("start", "stop"), [(0, 6), (1, 4), (2, 3), (3, 6), (4, 99)])
def test_targets_side_by_side_are_read_as_one(start: int, stop: int) -> None:
    joined = SideBySide(three_parts())
    whole = np.array([[0.0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15]])
    assert joined.shape == (2, 6)
    np.testing.assert_array_equal(joined[:, start:stop], whole[:, start:stop])
    np.testing.assert_array_equal(joined[1:, start:stop], whole[1:, start:stop])


def test_each_part_has_its_columns_by_name() -> None:
    joined = SideBySide(three_parts())
    columns = {"c": slice(0, 2), "z": slice(2, 3), "clip/1": slice(3, 6)}
    assert joined.columns == columns
    assert list(joined.columns) == list(columns)
    for name, part in three_parts().items():
        np.testing.assert_array_equal(joined[:, columns[name]], part[:, 0:3])


def test_of_targets_side_by_side_only_the_columns_asked_for_are_read() -> None:
    parts = {name: Watched(np.zeros((2, 4))) for name in "abcd"}
    SideBySide(parts)[:, 6:9]
    assert {name: part.asked for name, part in parts.items()} == {
        "a": [],
        "b": [(2, 4)],
        "c": [(0, 1)],
        "d": [],
    }


def test_targets_that_do_not_stand_side_by_side_are_refused() -> None:
    with pytest.raises(DataError, match="no targets to put side by side"):
        SideBySide({})
    with pytest.raises(DataError, match="Targets z has shape"):
        SideBySide({"c": np.zeros((4, 2)), "z": np.zeros((5, 2))})
    joined = SideBySide(three_parts())
    for columns in (slice(0, 6, 2), slice(3, 3), slice(6, 9)):
        with pytest.raises(DataError, match="neighbouring columns of 6"):
            joined[:, columns]


def test_some_images_are_read_in_the_order_asked_for(rng: np.random.Generator) -> None:
    Y = rng.standard_normal((6, 4))
    rows = np.array([5, 0, 3])
    some = SomeImages(torch.from_numpy(Y), rows)
    assert some.shape == (3, 4)
    np.testing.assert_array_equal(some[:, 1:3], Y[rows, 1:3])
    np.testing.assert_array_equal(some[1:, 1:3], Y[[0, 3], 1:3])


def test_joined_scalings_scale_each_part_as_its_own(rng: np.random.Generator) -> None:
    # beside targets of this size those of c would count as constant
    parts = {"c": rng.standard_normal((9, 2)), "z": 1e9 * rng.standard_normal((9, 3))}
    own = [TargetScaling.fit(Y) for Y in parts.values()]
    joined = TargetScaling.joined(own)
    expected = [s.apply(Y) for s, Y in zip(own, parts.values(), strict=True)]
    found = joined.apply(np.hstack(list(parts.values())))
    np.testing.assert_array_equal(found, np.hstack(expected))
    assert joined.varies.all()


# --- several features at once -------------------------------------------------------

FAMILIES = {
    "voxel-selected": VoxelSelectedRidge(0.5, 8),
    "dense": DenseRidge(dtype="float64"),
    "dense, two bands": DenseRidge(bands=np.arange(40) % 2, dtype="float64"),
    "banded": BandedRidge(np.arange(40) % 2, "float64", n_samples=3, n_folds=2),
}


def features(rng: np.random.Generator) -> tuple[Array, dict[str, Array]]:
    """Return responses and three features of 7, 5 and 9 targets."""
    X, Y = data(rng, n_targets=21)
    return X, {"c": Y[:, :7], "z": Y[:, 7:12], "clip/1": Y[:, 12:]}


def test_features_with_equal_decoders_are_grouped() -> None:
    bands = np.array([0, 1, 1])
    found = decoders.group_features(
        {
            "c": DenseRidge(bands=bands),
            "z": VoxelSelectedRidge(0.15, 3),
            "clip/1": DenseRidge(bands=bands.copy()),
            "clip/2": DenseRidge(bands=1 - bands),
            "clip/3": VoxelSelectedRidge(0.15, 4),
            "clip/4": BandedRidge(bands),
            "clip/5": VoxelSelectedRidge(0.15, 3),
        }
    )
    assert found == [
        ["c", "clip/1"],
        ["z", "clip/5"],
        ["clip/2"],
        ["clip/3"],
        ["clip/4"],
    ]


def test_decoders_that_may_fit_targets_jointly_stay_alone() -> None:
    assert decoders.group_features({"c": Ridge(), "z": Ridge()}) == [["c"], ["z"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_features_fitted_at_once_are_decoded_as_if_alone(
    family: str, rng: np.random.Generator
) -> None:
    X, Y = features(rng)
    found = decoders.fit_features(X, Y, dict.fromkeys(Y, FAMILIES[family]))
    assert list(found) == list(Y)
    for name, one in found.items():
        alone = clone(FAMILIES[family]).fit(X, Y[name])
        assert one.arrays().keys() == alone.arrays().keys()
        for key, value in alone.arrays().items():
            # other blocks of targets in float64, condition numbers below 1e4
            np.testing.assert_allclose(
                one.arrays()[key], value, rtol=1e-9, atol=ATOL, err_msg=f"{name} {key}"
            )
        np.testing.assert_allclose(one.predict(X), alone.predict(X), atol=100 * ATOL)
    assert not hasattr(FAMILIES[family], "n_features_in_")


def test_a_decoder_of_another_package_is_fitted_to_each_feature(
    rng: np.random.Generator,
) -> None:
    X, Y = features(rng)
    found = decoders.fit_features(X, Y, {name: Ridge(2.0) for name in Y})
    for name, one in found.items():
        np.testing.assert_array_equal(one.coef_, Ridge(2.0).fit(X, Y[name]).coef_)


def test_part_of_a_decoder_answers_for_its_targets_without_a_copy(
    rng: np.random.Generator,
) -> None:
    X, Y = data(rng)
    whole = DenseRidge(dtype="float64").fit(X, Y)
    part = decoders.part_of(whole, slice(2, 5))
    np.testing.assert_array_equal(part.predict(X), whole.predict(X)[:, 2:5])
    assert np.shares_memory(part.weights_, whole.weights_)
    assert len(whole.weights_) == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_part_of_a_decoder_keeps_nothing_of_the_other_targets(
    family: str, rng: np.random.Generator
) -> None:
    X, Y = data(rng)  # 7 targets, and nothing else that is 7 long
    whole = clone(FAMILIES[family]).fit(X, Y)
    part = decoders.part_of(whole, slice(2, 5))
    for name, value in vars(whole).items():
        if np.shape(value)[:1] == (7,):
            np.testing.assert_array_equal(getattr(part, name), value[2:5], err_msg=name)


def test_the_weights_of_several_features_may_exceed_what_one_fit_may_hold(
    rng: np.random.Generator,
) -> None:
    X = rng.standard_normal((20, 400))
    Y = {f"clip/{k}": rng.standard_normal((20, 3000)) for k in range(4)}
    decoder = DenseRidge(max_memory=45_000_000)  # 12,000 x 400 weights take 19 MB
    with pytest.raises(ConfigError, match="max_memory is 45 MB"):
        clone(decoder).fit(X, SideBySide(Y))
    found = decoders.fit_features(X, Y, dict.fromkeys(Y, decoder))
    assert found["clip/3"].weights_.shape == (3000, 400)


@pytest.mark.parametrize(
    "decoder",
    [DenseRidge(max_memory=25_200_000), VoxelSelectedRidge(1.0, 8, chunk_targets=16)],
)
def test_targets_of_several_features_are_read_once_by_blocks(
    decoder: Any, rng: np.random.Generator
) -> None:
    X = rng.standard_normal((50, 60))
    Y = {name: Watched(rng.standard_normal((50, 200))) for name in ("c", "z")}
    decoders.fit_features(X, Y, dict.fromkeys(Y, decoder))
    for watched in Y.values():
        columns = [c for start, stop in watched.asked for c in range(start, stop)]
        assert columns == list(range(200))
        assert max(stop - start for start, stop in watched.asked) < 100


def test_predictions_are_formed_by_blocks_too(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = features(rng)
    monkeypatch.setattr(grouped, "_PREDICTED", 4)
    Y_hat = np.zeros((60, 21))
    grouped.fit_into(FAMILIES["voxel-selected"], X, SideBySide(Y), X, Y_hat)
    for name, own in SideBySide(Y).columns.items():
        alone = clone(FAMILIES["voxel-selected"]).fit(X, Y[name])
        np.testing.assert_allclose(Y_hat[:, own], alone.predict(X), atol=100 * ATOL)


# --- correlation and its null -------------------------------------------------------


def test_correlation_equals_numpys_with_its_sign(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "_BLOCK_ELEMENTS", 60)  # three targets at a time
    Y, Y_hat = rng.standard_normal((2, 20, 7))
    Y_hat[:, 0] = -Y[:, 0]
    r = decoders.feature_correlation(Y, Y_hat)
    each = [np.corrcoef(Y[:, t], Y_hat[:, t])[0, 1] for t in range(7)]
    np.testing.assert_allclose(r, each, atol=1e-14)  # rounding
    assert r[0] == pytest.approx(-1)


def test_correlation_is_nan_where_truth_or_prediction_does_not_vary(
    rng: np.random.Generator,
) -> None:
    Y, Y_hat = rng.standard_normal((2, 20, 3))
    Y[:, 0] = Y_hat[:, 2] = 0.1
    r = decoders.feature_correlation(Y, Y_hat)
    assert np.isnan(r).tolist() == [True, False, True]


def test_correlation_needs_two_images_of_finite_values() -> None:
    one = np.ones((1, 3))
    with pytest.raises(DataError, match="2 images or more"):
        decoders.feature_correlation(one, one)
    with pytest.raises(DataError, match="Y_hat has shape"):
        decoders.feature_correlation(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(DataError, match="Y_hat holds NaN"):
        decoders.feature_correlation(np.ones((2, 3)), np.full((2, 3), np.nan))


def test_the_permutation_null_equals_the_plain_loop(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "_BLOCK_ELEMENTS", 36)  # three targets at a time
    Y, Y_hat = rng.standard_normal((2, 12, 8))
    Y[:, 3] = Y_hat[:, 6] = 2.0
    null = decoders.permutation_null(
        Y, Y_hat, n_permutations=25, rng=np.random.default_rng(5)
    )
    same = np.random.default_rng(5)
    orders = same.permuted(np.tile(np.arange(12), (25, 1)), axis=1)
    loop = [np.nanmean(decoders.feature_correlation(Y[o], Y_hat)) for o in orders]
    np.testing.assert_allclose(null, loop, atol=1e-14)  # rounding
    assert np.std(null) > 0.01


def test_the_null_needs_permutations_and_a_target_that_varies(
    rng: np.random.Generator,
) -> None:
    Y = rng.standard_normal((5, 2))
    with pytest.raises(ConfigError, match="n_permutations is 0"):
        decoders.permutation_null(Y, Y, n_permutations=0, rng=rng)
    with pytest.raises(DataError, match="No target varies"):
        decoders.permutation_null(Y, np.ones_like(Y), n_permutations=3, rng=rng)


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
        }
    )


def test_the_ceiling_of_a_hand_computed_case() -> None:
    decoder = made_decoder(np.array([[0.5, 1.0], [0.0, 0.0]]), 3)
    Y_hat = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])  # variance 1 and 0
    ncsnr, repeats = np.array([1.0, 2.0, 9.0]), np.array([1, 2, 2])
    # mean(1/m) = 2/3; noise = 2/3 (0.25 / 2 + 1 / 5) = 0.21667
    ceiling = decoders.noise_ceiling_r(decoder, Y_hat, ncsnr, repeats)
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
    reached = decoders.feature_correlation(truth, Y_hat)
    ceiling = decoders.noise_ceiling_r(decoder, Y_hat, ncsnr, repeats)
    assert 0.4 < reached.mean() < 0.8  # the noise matters
    # r is known to 1/sqrt(4000) = .016 per target; five times that for the largest
    np.testing.assert_allclose(ceiling, reached, atol=0.08)
    assert abs(ceiling.mean() - reached.mean()) < 0.02


def test_the_ceiling_is_0_when_noise_exceeds_the_variance_and_1_without_noise() -> None:
    decoder = made_decoder(np.array([[1.0]]), 1)
    Y_hat, repeats = np.array([[0.0], [0.1]]), np.array([1, 1])
    low = decoders.noise_ceiling_r(decoder, Y_hat, np.array([0.0]), repeats)
    high = decoders.noise_ceiling_r(decoder, Y_hat, np.array([1e9]), repeats)
    assert low[0] == 0
    assert high[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("ncsnr", "repeats"), [([-0.1], [1, 1]), ([1.0], [0, 1]), ([np.nan], [1, 1])]
)
def test_the_ceiling_refuses_impossible_noise(
    ncsnr: list[float], repeats: list[int]
) -> None:
    decoder = made_decoder(np.array([[1.0]]), 1)
    with pytest.raises(DataError, match="ncsnr"):
        decoders.noise_ceiling_r(
            decoder, np.array([[0.0], [1.0]]), np.array(ncsnr), np.array(repeats)
        )


# --- cross-validation ---------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.data())
def test_folds_hold_out_every_image_once_in_runs(n: int, draw: st.DataObject) -> None:
    folds = decoders.contiguous_folds(n, draw.draw(st.integers(2, n)))
    assert np.concatenate([held for _, held in folds]).tolist() == list(range(n))
    for train, held in folds:
        assert sorted([*train, *held]) == list(range(n))
        assert held[-1] - held[0] == len(held) - 1


@pytest.mark.parametrize("n_folds", [1, 6])
def test_impossible_folds_are_refused(n_folds: int) -> None:
    with pytest.raises(ConfigError, match=f"n_folds is {n_folds}"):
        decoders.contiguous_folds(5, n_folds)


def test_cross_validation_equals_folds_fitted_by_hand(rng: np.random.Generator) -> None:
    X, Y = data(rng)
    Y[:, 3] = 4.0
    Y_hat = np.zeros_like(Y)
    for part in (slice(0, 20), slice(20, 40), slice(40, 60)):
        train = np.ones(60, bool)
        train[part] = False
        mean, sd = Y[train].mean(axis=0), Y[train].std(axis=0)
        sd[3] = 1.0
        decoder = VoxelSelectedRidge(0.15, 8).fit(X[train], (Y[train] - mean) / sd)
        Y_hat[part] = decoder.predict(X[part]) * sd + mean
    r = decoders.cross_validated_correlation(
        X,
        Y,
        decoder=VoxelSelectedRidge(0.15, 8),
        folds=decoders.contiguous_folds(60, 3),
    )
    expected = [
        np.corrcoef(a, b)[0, 1] for a, b in zip(Y.T[:3], Y_hat.T[:3], strict=True)
    ]
    np.testing.assert_allclose(r[:3], expected, atol=1e-6)  # predictions in float32
    assert np.isnan(r[3])


def test_cross_validation_is_not_fooled_by_a_decoder_that_overfits(
    rng: np.random.Generator,
) -> None:
    X, Y = rng.standard_normal((60, 100)), rng.standard_normal((60, 200))
    on_training = VoxelSelectedRidge(0.15, 40).fit(X, Y).predict(X)
    assert decoders.feature_correlation(Y, on_training).mean() > 0.8
    r = decoders.cross_validated_correlation(
        X,
        Y,
        decoder=VoxelSelectedRidge(0.15, 40),
        folds=decoders.contiguous_folds(60, 3),
    )
    # 200 independent targets: SE of the mean about 1/sqrt(60 * 200) = .009
    assert -0.06 < r.mean() < 0.04


def test_folds_that_leak_are_refused(rng: np.random.Generator) -> None:
    X, Y = data(rng)
    rows = np.arange(60)
    leaks = [(rows, rows[:5])]
    twice = [(rows[5:], rows[:5]), (rows[5:], rows[:5])]
    for folds in (leaks, twice):
        with pytest.raises(DataError, match="held-out images must be in none"):
            decoders.cross_validated_correlation(
                X, Y, decoder=VoxelSelectedRidge(1, 3), folds=folds
            )
    with pytest.raises(DataError, match="There is no fold"):
        decoders.cross_validated_correlation(
            X, Y, decoder=VoxelSelectedRidge(1, 3), folds=[]
        )


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
            decoders.select_best(r, k)
        return
    best = decoders.select_best(r, k)
    rest = ~best & ~np.isnan(r)
    assert not np.isnan(r[best]).any()
    wanted = max(1, round(k / 100 * len(r)))
    assert np.count_nonzero(best) == min(wanted, np.count_nonzero(~np.isnan(r)))
    if rest.any():
        assert r[best].min() >= r[rest].max()


def test_ties_are_selected_from_the_lower_index() -> None:
    best = decoders.select_best(np.array([0.1, 0.3, 0.3, 0.3]), 50)
    assert best.tolist() == [False, True, True, False]


@pytest.mark.parametrize("k_percent", [0.0, -1.0, 100.1, float("nan")])
def test_impossible_percentages_are_refused(k_percent: float) -> None:
    with pytest.raises(ConfigError, match="k_percent"):
        decoders.select_best(np.array([0.1]), k_percent)


def test_the_k_curve_of_a_hand_computed_case() -> None:
    r_cv = np.array([0.4, 0.1, np.nan, 0.3])
    r_test = np.array([0.5, 0.2, np.nan, np.nan])
    curve = decoders.k_curve(
        r_cv, r_test, np.array([1.0, 2.0, 0.0, 5.0]), (25, 50, 100)
    )
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
        decoders.k_curve(r_cv, r_test, variance, (10, 50))
        for r_test in (r_cv, rng.permutation(r_cv))
    )
    kept = ["k_percent", "n_selected", "r_cv_selected_mean", "variance_kept"]
    assert one[kept].equals(other[kept])
    assert not one["r_selected_mean"].equals(other["r_selected_mean"])


def test_the_k_curve_refuses_variances_that_are_none() -> None:
    r = np.array([0.1, 0.2])
    for variance in ([0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(DataError, match="Variances"):
            decoders.k_curve(r, r, np.array(variance), (50,))


# --- one row of the table -----------------------------------------------------------


def test_a_good_decoder_has_the_smallest_p(rng: np.random.Generator) -> None:
    Y = rng.standard_normal((30, 6))
    Y_hat = Y + rng.standard_normal((30, 6))
    Y[:, 4] = 1.0
    ceiling = np.array([0.8, 0.9, np.nan, 0.7, 0.6, 0.5])
    score = decoders.score_decoder(Y, Y_hat, ceiling, n_permutations=99, rng=rng)
    r = decoders.feature_correlation(Y, Y_hat)
    assert score["r_mean"] == pytest.approx(np.nanmean(r))
    assert score["r_median"] == pytest.approx(np.nanmedian(r))
    assert score["r_ceiling"] == pytest.approx(0.7)
    assert score["p_permutation"] == pytest.approx(1 / 100)
    assert abs(score["r_null_mean"]) < 0.05  # SE .18 / sqrt(5 * 99) = .008
    assert 0 < score["r_null_high"] < score["r_mean"]
    assert (score["n_images"], score["n_targets"]) == (30, 5)


def test_p_is_uniform_when_nothing_is_decoded(rng: np.random.Generator) -> None:
    p = []
    for _ in range(200):
        Y, Y_hat = rng.standard_normal((2, 12, 4))
        nan = np.full(4, np.nan)
        score = decoders.score_decoder(Y, Y_hat, nan, n_permutations=99, rng=rng)
        p.append(score["p_permutation"])
        assert np.isnan(score["r_ceiling"])
    # binomial, n = 200: SD .015 at .05 and .035 at .5; four times that
    assert abs(np.mean(np.array(p) <= 0.05) - 0.05) < 0.06
    assert abs(np.mean(np.array(p) <= 0.5) - 0.5) < 0.14


def test_p_counts_the_permutations_that_reach_the_observed_mean() -> None:
    Y = np.array([[1.0], [2.0]])  # two images: a permutation is identity or swap
    rng = np.random.default_rng(3)
    score = decoders.score_decoder(Y, Y, np.ones(1), n_permutations=50, rng=rng)
    order = np.random.default_rng(3).permuted(np.tile([0, 1], (50, 1)), axis=1)
    identities = int(np.count_nonzero(order[:, 0] == 0))
    assert score["p_permutation"] == pytest.approx((1 + identities) / 51)
