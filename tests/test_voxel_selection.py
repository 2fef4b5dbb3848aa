"""The paper's decoder equals FastL2LiR; its fast solvers give the exact answer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Array
from minddiff_utils.decoding import VoxelSelectedRidge, voxel_selection
from minddiff_utils.decoding._conjugate_gradients import deflate, solve_masked
from minddiff_utils.decoding._solvers import choose_solver, solve_subsets, threads

# Both sides solve in float64; the condition numbers here are at most 1e4, so rounding
# stays below 1e4 * 1e-16 of the largest weight (about 1), with a hundredfold margin.
ATOL = 1e-10


def oracle(case: str) -> dict[str, Array]:
    with np.load(Path(__file__).parent / "oracles" / "fastl2lir.npz") as file:
        return {k.partition("/")[2]: file[k] for k in file if k.startswith(case + "/")}


def fitted(o: dict[str, Array]) -> VoxelSelectedRidge:
    decoder = VoxelSelectedRidge(float(o["alpha"]), int(o["n_feat"]))
    return decoder.fit(o["X_train"], o["Y_train"])


def weights(decoder: VoxelSelectedRidge) -> Array:
    """Return the weights as FastL2LiR has them, (n_voxels, n_targets)."""
    n_targets = len(decoder.weights_)
    return decoder.dense_weights(slice(0, n_targets))[:n_targets].T


def data(
    rng: np.random.Generator, n: int = 600, n_voxels: int = 150, n_targets: int = 12
) -> tuple[Array, Array]:
    """Return correlated voxels with means of their own, and targets."""
    hidden = rng.standard_normal((n, 10))
    X = 0.5 * hidden @ rng.standard_normal((10, n_voxels))
    X += rng.standard_normal((n, n_voxels)) + rng.uniform(-1, 1, n_voxels)
    Y = hidden @ rng.standard_normal((10, n_targets)) + 1
    return X, Y + rng.standard_normal(Y.shape)


# --- against FastL2LiR --------------------------------------------------------------


@pytest.mark.parametrize(
    "case", ["few", "strong", "all_tall", "all_wide", "near_constant"]
)
def test_weights_and_predictions_equal_fastl2lir(case: str) -> None:
    o = oracle(case)
    decoder = fitted(o)
    np.testing.assert_allclose(weights(decoder), o["W"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(decoder.intercept_, o["b"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(
        decoder.predict(o["X_test"]), o["Y_hat"], rtol=0, atol=100 * ATOL
    )


def test_twin_voxels_add_up_to_what_fastl2lir_gives_them() -> None:
    o = oracle("ties")
    decoder = fitted(o)
    twins = (2, -1, o["W"].shape[1])
    ours, theirs = (W.reshape(twins).sum(axis=0) for W in (weights(decoder), o["W"]))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATOL)
    predicted = decoder.predict(o["X_test"])
    np.testing.assert_allclose(predicted, o["Y_hat"], rtol=0, atol=100 * ATOL)
    half = o["W"].shape[0] // 2
    for voxels in decoder.voxels_.tolist():
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
    X, Y = data(rng, 60, 40, 7)
    model = fastl2lir.FastL2LiR()
    model.fit(X, Y, alpha=0.15, n_feat=9)
    ours = VoxelSelectedRidge(0.15, 9).fit(X, Y)
    np.testing.assert_allclose(ours.predict(X), model.predict(X), rtol=0, atol=1e-9)


def test_all_usable_voxels_are_used_where_more_are_asked_for(
    rng: np.random.Generator,
) -> None:
    X, Y = data(rng, 60, 40, 7)
    X[:, [3, 20]] = 1.0
    usable = np.delete(np.arange(40), [3, 20])
    decoder = VoxelSelectedRidge(0.15, 39).fit(X, Y)
    np.testing.assert_array_equal(decoder.voxels_, np.tile(usable, (7, 1)))


# --- solvers ------------------------------------------------------------------------


def system(
    rng: np.random.Generator, n: int = 150, n_selected: int = 60, n_targets: int = 9
) -> tuple[Array, Array, Array, Array]:
    """Return a Gram matrix, each target's columns and right sides, and solutions."""
    X, _ = data(rng, 600, n)
    X = (X - X.mean(0)) / X.std(0)
    gram = X.T @ X + 0.5 * np.eye(n)
    chosen = np.stack(
        [np.sort(rng.permutation(n)[:n_selected]) for _ in range(n_targets)]
    )
    right = rng.standard_normal((n_targets, n_selected)) * 100
    expected = [
        np.linalg.solve(gram[np.ix_(c, c)], b)
        for c, b in zip(chosen, right, strict=True)
    ]
    return gram, chosen, right, np.stack(expected)


@pytest.mark.parametrize(
    ("dtype", "remainder"),
    [("float64", "float64"), ("float32", "float32"), ("float32", "bfloat16")],
)
def test_conjugate_gradients_equal_a_dense_solve_and_report_their_residual(
    rng: np.random.Generator, dtype: str, remainder: str
) -> None:
    gram, chosen, right, expected = system(rng)
    kind = getattr(torch, dtype)
    A, b = torch.from_numpy(gram).to(kind), torch.from_numpy(right).to(kind)
    tol = 1e-10 if dtype == "float64" else 5e-6
    split = deflate(A, getattr(torch, remainder))
    found, residual = solve_masked(A, split, torch.from_numpy(chosen), b, tol)
    assert residual.max() <= tol
    error = np.linalg.norm(found.numpy() - expected, axis=1)
    # condition at most 1e4: the error is at most the residual times it
    assert (error / np.linalg.norm(expected, axis=1)).max() < 1e4 * tol
    for row, columns in enumerate(chosen):
        made = gram[np.ix_(columns, columns)] @ found[row].double().numpy()
        true = np.linalg.norm(made - right[row]) / np.linalg.norm(right[row])
        # a float32 product of 150 terms: 1e-6 of the right side
        assert residual[row].item() == pytest.approx(true, abs=2e-6)


def test_a_target_s_solution_does_not_depend_on_its_neighbours(
    rng: np.random.Generator,
) -> None:
    gram, chosen, right, _ = system(rng)
    right[1:] *= 1e3  # harder and easier neighbours
    right[4] = 0
    A, b, c = (torch.from_numpy(values) for values in (gram, right, chosen))
    split = deflate(A, torch.float64)
    together, _ = solve_masked(A, split, c, b, 1e-10)
    assert not together[4].any()
    for row in range(len(chosen)):
        part = slice(row, row + 1)
        alone, _ = solve_masked(A, split, c[part], b[part], 1e-10)
        difference = (together[row] - alone[0]).abs().max()
        assert float(difference) <= 1e-8 * float(alone.abs().max())  # tol * cond


@pytest.mark.parametrize(("dtype", "tol"), [(np.float32, 5e-6), (np.float64, 1e-12)])
def test_gathered_systems_equal_a_dense_solve(
    rng: np.random.Generator, dtype: type, tol: float
) -> None:
    gram, chosen, right, expected = system(rng)
    found, residual = solve_subsets(
        gram.astype(dtype), chosen, right.astype(dtype), tol
    )
    assert residual.max() <= tol
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e4 * tol


def test_float32_is_refined_where_the_first_solution_is_not_good_enough() -> None:
    gram, chosen, right, _ = system(np.random.default_rng(1))
    gram += 3e4 * np.outer(np.ones(150), np.ones(150))  # condition about 1e7
    single = gram.astype(np.float32), chosen, right.astype(np.float32)
    assert solve_subsets(*single, 1e-7)[1].max() < 1e-6
    with pytest.raises(DataError, match="linearly dependent"):
        solve_subsets(np.ones((5, 5)), np.array([[0, 1]]), np.ones((1, 2)), 1e-9)


@pytest.mark.parametrize("n_voxels", [2, 3])
def test_dependent_voxels_without_penalty_are_refused(n_voxels: int) -> None:
    a = np.array([1.0, -1.0, 1.0, -1.0])  # four images: every pivot is exact
    X = np.column_stack([a, a, [1.0, 1.0, -1.0, -1.0]])
    with pytest.raises(DataError, match=r"raise decoding\.alpha"):
        VoxelSelectedRidge(1e-300, n_voxels).fit(X, a[:, None])


def test_threads_leave_torch_as_they_found_it() -> None:
    before = torch.get_num_threads()
    with threads(2) as run:
        assert list(run(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == before


# --- precision, blocks and threads ---------------------------------------------------


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_float32_predictions_are_those_of_float64(
    rng: np.random.Generator, solver: str
) -> None:
    X, Y = data(rng)
    X[:, 7], Y[:, 2] = 3.0, -1.5
    exact = VoxelSelectedRidge(0.15, 60).fit(X, Y)
    fast = VoxelSelectedRidge(0.15, 60, "float32", solver).fit(X, Y)
    assert (exact.solver_, fast.solver_) == ("cholesky", solver)
    assert fast.weights_.dtype == np.float32
    varying = np.delete(np.arange(12), 2)
    np.testing.assert_array_equal(fast.voxels_[varying], exact.voxels_[varying])
    expected = exact.predict(X)[:, varying]
    error = np.abs(fast.predict(X)[:, varying] - expected).max(0) / expected.std(0)
    assert error.max() < 1e-4  # what the class promises
    assert fast.residual_.max() <= 2e-6
    assert (fast.predict(X)[:, 2] == -1.5).all()


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_blocks_change_results_by_rounding_only_and_threads_not_at_all(
    rng: np.random.Generator, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = data(rng)

    def fit() -> VoxelSelectedRidge:
        return VoxelSelectedRidge(0.15, 40, "float32", solver).fit(X, Y)

    whole = fit()
    monkeypatch.setattr(voxel_selection, "_CG_TARGETS", 5)
    monkeypatch.setattr(voxel_selection, "_BLOCK_ELEMENTS", 5 * len(X))
    parts = fit()
    np.testing.assert_array_equal(whole.voxels_, parts.voxels_)
    scale = np.abs(whole.weights_).max()
    # twice the tolerance times a condition of about 1e2
    assert np.abs(whole.weights_ - parts.weights_).max() / scale < 1e-3
    for n_threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        found = fit()
        for name in ("voxels_", "weights_", "intercept_", "residual_"):
            assert getattr(found, name).tobytes() == getattr(parts, name).tobytes()


def test_float32_data_give_the_float64_answer(rng: np.random.Generator) -> None:
    X, Y = (values.astype(np.float32) for values in data(rng, 60, 40))
    single = VoxelSelectedRidge(0.15, 9).fit(X, Y)
    double = VoxelSelectedRidge(0.15, 9).fit(X.astype(float), Y.astype(float))
    np.testing.assert_array_equal(single.weights_, double.weights_)


def test_a_target_that_does_not_converge_is_told(rng: np.random.Generator) -> None:
    X, Y = data(rng, n=60, n_voxels=300, n_targets=2)  # more voxels than images
    decoder = VoxelSelectedRidge(1e-9, 290, "float32", "cg")
    with pytest.warns(ConvergenceWarning, match="of 2 targets did not reach"):
        decoder.fit(X, Y)
    assert (decoder.residual_ > 2e-6).any()


@pytest.mark.parametrize(
    ("n_selected", "expected"),
    [(450, "cholesky"), (850, "cholesky"), (4000, "cg"), (11694, "cholesky")],
)
def test_the_solver_of_each_feature_at_the_size_of_nsd(
    n_selected: int, expected: str
) -> None:
    assert choose_solver(8859, 11694, n_selected, 2e-6) == expected
