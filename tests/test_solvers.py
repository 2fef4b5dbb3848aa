"""Fast solvers give the exact answer, whatever block, threads and precision."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.decoding import (
    ScaledTargets,
    TargetScaling,
    VoxelSelectedRidge,
    voxel_selected,
)
from minddiff_utils.decoding.design import make_design
from minddiff_utils.decoding.masked_cg import deflate, solve_masked
from minddiff_utils.decoding.planning import (
    Rates,
    Sizes,
    block_targets,
    choose_solver,
    device_rates,
)
from minddiff_utils.decoding.solvers import solve_batched, solve_subsets, threads
from minddiff_utils.decoding.voxel_selected import fit_together

Array = npt.NDArray[Any]
#: One core of a processor with fast bfloat16 products, and of one without.
AMX = Rates(2e11, 1.0e12, 6e10, 4e8, 1e10)
PLAIN = Rates(6e10, 0, 4e10, 3e8, 1e10)


def data(
    rng: np.random.Generator, n: int = 600, n_voxels: int = 150, n_targets: int = 12
) -> tuple[Array, Array]:
    """Return correlated voxels with means of their own, and targets."""
    hidden = rng.standard_normal((n, 10))
    X = 0.5 * hidden @ rng.standard_normal((10, n_voxels))
    X += rng.standard_normal((n, n_voxels)) + rng.uniform(-1, 1, n_voxels)
    Y = hidden @ rng.standard_normal((10, n_targets)) + 1
    return X, Y + rng.standard_normal(Y.shape)


def system(
    rng: np.random.Generator, n: int = 150, n_selected: int = 60, n_targets: int = 9
) -> tuple[Array, Array, Array]:
    """Return a Gram matrix, each target's columns and right sides."""
    X, _ = data(rng, 600, n)
    X = (X - X.mean(0)) / X.std(0)
    gram = X.T @ X + 0.5 * np.eye(n)
    chosen = np.stack(
        [np.sort(rng.permutation(n)[:n_selected]) for _ in range(n_targets)]
    )
    return gram, chosen, rng.standard_normal((n_targets, n_selected)) * 100


def by_hand(gram: Array, chosen: Array, right: Array) -> Array:
    return np.stack(
        [
            np.linalg.solve(gram[np.ix_(c, c)], b)
            for c, b in zip(chosen, right, strict=True)
        ]
    )


# --- one system per target ------------------------------------------------------------


@pytest.mark.parametrize("remainder", [torch.float64, torch.float32, torch.bfloat16])
def test_masked_conjugate_gradients_equal_a_dense_solve(
    rng: np.random.Generator, remainder: torch.dtype
) -> None:
    gram, chosen, right = system(rng)
    dtype = torch.float64 if remainder == torch.float64 else torch.float32
    A, b = torch.from_numpy(gram).to(dtype), torch.from_numpy(right).to(dtype)
    tol = 1e-10 if dtype == torch.float64 else 5e-6
    found, residual = solve_masked(
        A, deflate(A, remainder), torch.from_numpy(chosen), b, tol
    )
    assert residual.max() <= tol
    expected = by_hand(gram, chosen, right)
    error = np.linalg.norm(found.numpy() - expected, axis=1)
    # condition at most 1e4: the error is at most the residual times it
    assert (error / np.linalg.norm(expected, axis=1)).max() < 1e4 * tol


def test_the_reported_residual_is_the_true_one(rng: np.random.Generator) -> None:
    gram, chosen, right = system(rng)
    A, b = torch.from_numpy(gram).float(), torch.from_numpy(right).float()
    found, residual = solve_masked(
        A, deflate(A, torch.float32), torch.from_numpy(chosen), b, 1e-4
    )
    for row, columns in enumerate(chosen):
        own = gram[np.ix_(columns, columns)] @ found[row].double().numpy()
        true = np.linalg.norm(own - right[row]) / np.linalg.norm(right[row])
        # a float32 product of 150 terms: 1e-6 of the right side
        assert residual[row].item() == pytest.approx(true, abs=2e-6)


def test_a_target_s_solution_does_not_depend_on_its_neighbours(
    rng: np.random.Generator,
) -> None:
    gram, chosen, right = system(rng)
    right[1:] *= 1e3  # harder and easier neighbours
    right[4] = 0
    A, b = torch.from_numpy(gram), torch.from_numpy(right)
    split = deflate(A, torch.float64)
    together, _ = solve_masked(A, split, torch.from_numpy(chosen), b, 1e-10)
    for row in range(len(chosen)):
        part = slice(row, row + 1)
        alone, _ = solve_masked(
            A, split, torch.from_numpy(chosen[part]), b[part], 1e-10
        )
        scale = max(float(alone.abs().max()), 1e-300)
        assert (
            float((together[row] - alone[0]).abs().max()) / scale < 1e-8
        )  # tol * cond
    assert not together[4].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gathered_systems_equal_batched_ones(
    rng: np.random.Generator, dtype: type
) -> None:
    gram, chosen, right = system(rng)
    gram, right = gram.astype(dtype), right.astype(dtype)
    tol = 5e-6 if dtype == np.float32 else 1e-12
    one, residual = solve_subsets(gram, chosen, right, tol)
    many, _ = solve_batched(
        torch.from_numpy(gram), torch.from_numpy(chosen), torch.from_numpy(right), tol
    )
    expected = by_hand(gram.astype(float), chosen, right.astype(float))
    scale = np.abs(expected).max()
    assert residual.max() <= tol
    for found in (one, many.numpy()):
        assert np.abs(found - expected).max() / scale < 1e4 * tol  # condition


def test_float32_is_refined_where_the_first_solution_is_not_good_enough() -> None:
    rng = np.random.default_rng(1)
    gram, chosen, right = system(rng)
    gram += 3e4 * np.outer(np.ones(150), np.ones(150))  # condition about 1e7
    _, residual = solve_subsets(
        gram.astype(np.float32), chosen, right.astype(np.float32), 1e-7
    )
    assert residual.max() < 1e-6
    with pytest.raises(DataError, match="linearly dependent"):
        solve_subsets(np.ones((5, 5)), np.array([[0, 1]]), np.ones((1, 2)), 1e-9)


# --- the estimator --------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_float32_predictions_are_those_of_float64(
    rng: np.random.Generator, solver: str
) -> None:
    X, Y = data(rng)
    exact = VoxelSelectedRidge(0.15, 60).fit(X, Y)
    fast = VoxelSelectedRidge(0.15, 60, solver=solver, dtype="float32").fit(X, Y)
    assert fast.solver_ == solver
    assert fast.weights_.dtype == np.float32
    np.testing.assert_array_equal(fast.voxels_, exact.voxels_)
    expected = exact.predict(X)
    error = np.abs(fast.predict(X) - expected).max(0) / expected.std(0)
    assert error.max() < 1e-4  # what the class promises
    assert fast.residual_.max() <= 2e-6


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_blocks_change_results_by_rounding_only(
    rng: np.random.Generator, solver: str
) -> None:
    X, Y = data(rng)
    options: dict[str, Any] = {"solver": solver, "dtype": "float32"}
    whole = VoxelSelectedRidge(0.15, 40, **options).fit(X, Y)
    parts = VoxelSelectedRidge(0.15, 40, chunk_targets=5, **options).fit(X, Y)
    np.testing.assert_array_equal(whole.voxels_, parts.voxels_)
    scale = np.abs(whole.weights_).max()
    # twice the tolerance times a condition of about 1e2
    assert np.abs(whole.weights_ - parts.weights_).max() / scale < 1e-3
    expected = whole.predict(X)
    assert (np.abs(parts.predict(X) - expected) / expected.std(0)).max() < 1e-4


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_threads_do_not_change_a_byte(rng: np.random.Generator, solver: str) -> None:
    X, Y = data(rng)
    options: dict[str, Any] = {"solver": solver, "dtype": "float32", "chunk_targets": 3}
    one, two = (
        VoxelSelectedRidge(0.15, 40, n_threads=n, **options).fit(X, Y) for n in (1, 2)
    )
    for name in ("voxels_", "weights_", "intercept_", "residual_"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decoders_fitted_together_are_those_fitted_alone(
    rng: np.random.Generator, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = data(rng)
    X[:, 3] = 2.0  # a voxel that cannot be used
    made = []

    def count(*args: Any) -> Any:
        made.append(make_design(*args))
        return made[-1]

    def new() -> list[VoxelSelectedRidge]:
        solver = "cg" if dtype == "float32" else "cholesky"
        return [
            VoxelSelectedRidge(0.15, 20, dtype=dtype),
            VoxelSelectedRidge(0.15, 60, dtype=dtype, solver=solver),
        ]

    alone = [decoder.fit(X, Y[:, :5]) for decoder in new()]
    monkeypatch.setattr(voxel_selected, "make_design", count)
    together = fit_together(new(), X, [Y[:, :5], Y[:, :5]])
    assert len(made) == 1
    for one, other in zip(alone, together, strict=True):
        assert one.solver_ == other.solver_
        for name in ("voxels_", "weights_", "intercept_", "residual_"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_decoders_that_cannot_share_a_gram_matrix_are_not_fitted_together() -> None:
    decoders = [VoxelSelectedRidge(0.15, 2), VoxelSelectedRidge(10.0, 2)]
    with pytest.raises(ConfigError, match=r"differ in alpha \(0.15, 10.0\)"):
        fit_together(decoders, np.eye(4), [np.eye(4), np.eye(4)])


def test_threads_leave_torch_as_they_found_it() -> None:
    before = torch.get_num_threads()
    with threads(2) as run:
        assert list(run(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == before


def test_a_target_that_does_not_converge_is_told(rng: np.random.Generator) -> None:
    X, Y = data(rng, n=60, n_voxels=300, n_targets=2)  # more voxels than images
    decoder = VoxelSelectedRidge(1e-9, 290, solver="cg", dtype="float32", tol=2e-6)
    with pytest.warns(ConvergenceWarning, match="of 2 targets did not reach"):
        decoder.fit(X, Y)
    assert (decoder.residual_ > 2e-6).any()


@pytest.mark.parametrize(
    "options",
    [{"dtype": "float32"}, {"solver": "cg"}, {"solver": "cg", "dtype": "float32"}],
)
def test_odd_data_are_handled_alike_by_all_solvers(
    rng: np.random.Generator, options: dict[str, Any]
) -> None:
    X, Y = data(rng)
    X[:, 7] = 3.0
    Y[:, 2] = -1.5
    decoder = VoxelSelectedRidge(0.15, 20, **options).fit(X, Y)
    assert 7 not in decoder.voxels_
    assert (decoder.predict(X)[:, 2] == -1.5).all()
    assert not decoder.weights_[2].any()
    every = VoxelSelectedRidge(0.15, 999, **options).fit(X, Y)
    assert every.voxels_.shape == (12, 149)
    for bad in (np.nan, np.inf):
        spoilt = Y.copy()
        spoilt[3, 3] = bad
        with pytest.raises(DataError, match="NaN or infinite"):
            VoxelSelectedRidge(0.15, 20, **options).fit(X, spoilt)
    with pytest.raises(DataError, match="Y has shape"):
        VoxelSelectedRidge(0.15, 20, **options).fit(X, Y[:-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lu"}, "must be one of: auto, cholesky, cg"),
        ({"dtype": "float16"}, "must be one of: float32, float64"),
        ({"tol": 1e-9, "dtype": "float32"}, "float32 allows 2e-06 to 1"),
        ({"n_threads": 0}, "n_threads is 0"),
        ({"max_memory": 0}, "max_memory is 0"),
    ],
)
def test_options_that_do_not_exist_are_refused(
    rng: np.random.Generator, options: dict[str, Any], message: str
) -> None:
    X, Y = data(rng, 20, 8, 2)
    with pytest.raises(ConfigError, match=message):
        VoxelSelectedRidge(0.15, 4, **options).fit(X, Y)


def test_tensors_give_what_arrays_give(rng: np.random.Generator) -> None:
    X, Y = data(rng)
    arrays = VoxelSelectedRidge(0.15, 20).fit(X, Y)
    tensors = VoxelSelectedRidge(0.15, 20).fit(torch.from_numpy(X), torch.from_numpy(Y))
    np.testing.assert_array_equal(arrays.weights_, tensors.weights_)


# --- streams and memory ---------------------------------------------------------------


class Watched:
    """Targets that write down what is read of them."""

    def __init__(self, Y: Array) -> None:
        self.Y, self.shape, self.dtype = Y, Y.shape, Y.dtype
        self.read: list[tuple[int, int]] = []

    def __getitem__(self, key: tuple[slice, slice]) -> Array:
        columns = key[1]
        self.read.append((columns.start, columns.stop))
        return self.Y[key]


def test_targets_are_read_once_in_blocks(rng: np.random.Generator) -> None:
    X, Y = data(rng)
    watched = Watched(Y)
    decoder = VoxelSelectedRidge(0.15, 20, chunk_targets=5).fit(X, watched)
    assert sorted(watched.read) == [(0, 5), (5, 10), (10, 12)]
    whole = VoxelSelectedRidge(0.15, 20, chunk_targets=5).fit(X, Y)
    np.testing.assert_array_equal(decoder.weights_, whole.weights_)


def test_standardised_hdf5_targets_give_what_arrays_give(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    X, Y = data(rng)
    scaling = TargetScaling.fit(Y)
    expected = VoxelSelectedRidge(0.15, 20).fit(X, scaling.apply(Y))
    with h5py.File(tmp_path / "targets.h5", "w") as file:
        stored = file.create_dataset("Y", data=Y)
        streamed = TargetScaling.fit(stored)
        decoder = VoxelSelectedRidge(0.15, 20).fit(X, ScaledTargets(stored, streamed))
    np.testing.assert_allclose(streamed.mean, scaling.mean, rtol=1e-14)
    # the means differ by rounding
    np.testing.assert_allclose(decoder.weights_, expected.weights_, rtol=0, atol=1e-12)


MEMORY_PROGRAM = """
import sys
import numpy as np
from minddiff_utils.decoding import VoxelSelectedRidge
from minddiff_utils.core.rng import stream
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))
rng = stream(0, "memory")
X = rng.standard_normal((1500, 1200), dtype=np.float32)
Y = rng.standard_normal((1500, 3000), dtype=np.float32)
options = {"solver": sys.argv[2], "dtype": "float32", "n_threads": 1}
VoxelSelectedRidge(1.0, 20, **options).fit(X[:90, :90], Y[:90, :50])
limit = None if sys.argv[1] == "none" else int(sys.argv[1])
decoder = VoxelSelectedRidge(1.0, 200, max_memory=limit, **options)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts from here
before = status("VmRSS")
decoder.fit(X, Y)
held = decoder.weights_.nbytes + decoder.voxels_.nbytes
print((status("VmHWM") - before) * 1024 - held)
"""


def peak(limit: str, solver: str) -> int:
    command = [sys.executable, "-c", MEMORY_PROGRAM, limit, solver]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(("solver", "limit"), [("cholesky", 70e6), ("cg", 75e6)])
def test_max_memory_is_kept(solver: str, limit: float) -> None:
    assert 0 < peak(str(int(limit)), solver) < limit
    assert peak("none", solver) > limit  # the bound binds


def test_too_little_memory_is_one_sentence_with_the_need() -> None:
    sizes = Sizes(1500, 1200, 3000, 200)
    with pytest.raises(ConfigError, match=r"need [\d,]+ with solver cg on 2 thread"):
        block_targets(sizes, "cg", (4, 2), 2, 1_000_000)


def test_less_memory_means_smaller_blocks() -> None:
    sizes = Sizes(8859, 11694, 16384, 4000)
    blocks = [
        block_targets(sizes, "cg", (4, 2), 2, limit)
        for limit in (None, 12_000_000_000, 2_200_000_000)
    ]
    assert blocks[0] >= blocks[1] >= blocks[2] >= 1
    assert blocks[2] < blocks[0]


# --- which solver ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_selected", "n_targets", "rates", "expected"),
    [
        (450, 10752, AMX, "cholesky"),  # c
        (850, 57600, AMX, "cholesky"),  # one CLIP job
        (4000, 16384, AMX, "cg"),  # z
        (450, 10752, PLAIN, "cholesky"),
        (850, 57600, PLAIN, "cholesky"),
    ],
)
def test_the_solver_of_each_feature_at_the_size_of_nsd(
    n_selected: int, n_targets: int, rates: Rates, expected: str
) -> None:
    sizes = Sizes(8859, 11694, n_targets, n_selected)
    assert choose_solver(sizes, rates, 5e-6, "float32") == expected


def test_small_and_exact_problems_are_factorised() -> None:
    assert choose_solver(Sizes(200, 150, 30, 60), AMX, 5e-6, "float32") == "cholesky"
    large = Sizes(8859, 11694, 16384, 4000)
    assert choose_solver(large, AMX, 1e-10, "float64") == "cholesky"
    shared = Sizes(8859, 4000, 16384, 4000)
    assert choose_solver(shared, AMX, 5e-6, "float32") == "cholesky"


def test_the_choice_is_made_of_sizes_and_never_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def clock() -> float:
        raise AssertionError("the choice looked at a clock")

    for name in ("time", "perf_counter", "process_time", "monotonic"):
        monkeypatch.setattr(f"time.{name}", clock)
    sizes = Sizes(8859, 11694, 16384, 4000)
    rates = device_rates("cpu")
    found = {choose_solver(sizes, rates, 5e-6, "float32") for _ in range(20)}
    assert len(found) == 1
    assert rates == device_rates("cpu")
