"""Ridge regression of each target on the voxels that correlate most with it.

`VoxelSelectedRidge` gives the answer of FastL2LiR 0.11 (a ridge of its own n_feat
voxels per target) in a fraction of the time. The parts: `design` (normal equations,
selection), `solvers` and `masked_cg` (weights), `planning` (which of them, how many
targets at once). Place in the flow: layer 7.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from minddiff_utils.core.errors import (
    ConfigError,
    DataError,
    check_choice,
    check_finite,
    check_shape,
)
from minddiff_utils.decoding.design import Design, make_design, select_voxels
from minddiff_utils.decoding.masked_cg import Deflation, deflate, solve_masked
from minddiff_utils.decoding.planning import (
    Sizes,
    block_targets,
    choose_solver,
    device_rates,
)
from minddiff_utils.decoding.solvers import (
    solve_batched,
    solve_common,
    solve_subsets,
    threads,
)
from minddiff_utils.decoding.targets import TargetSource, blocks, read_targets

__all__ = ["VoxelSelectedRidge", "fit_together"]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: Relative residual of the normal equations to reach, and what rounding allows.
_DEFAULT_TOL = {"float32": 2e-6, "float64": 1e-10}
_LEAST_TOL = {"float32": 2e-6, "float64": 1e-13}
#: Targets of one product in `predict`; always as many, so that a target's prediction
#: does not depend on which others are asked for.
_PREDICT_TARGETS = 256


@dataclass(frozen=True)
class _Job:
    """One fit: what it was asked for and what was decided about it."""

    design: Design
    deflation: Deflation | None
    solver: str
    tol: float
    lock: Lock  # of the source of targets, which threads share


@dataclass(frozen=True)
class _Centred:
    """One block of targets: less their means, which are kept."""

    values: Tensor  # (n_images, n_block)
    mean: Doubles  # (n_block,)
    constant: npt.NDArray[np.bool_]  # (n_block,)


def _centred(job: _Job, Y: TargetSource, block: slice) -> _Centred:
    with job.lock:
        y = read_targets(Y, block).astype(np.float64)
    mean = y.mean(axis=0)
    constant = np.ptp(y, axis=0) == 0
    mean[constant] = y[0, constant]
    y -= mean
    return _Centred(torch.from_numpy(y).to(job.design.Z), mean, constant)


def _solve(job: _Job, chosen: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return solutions (n_block, n_selected) and relative residuals (n_block,)."""
    gram = job.design.gram
    if job.deflation is not None:
        return solve_masked(gram, job.deflation, chosen, right, job.tol)
    if chosen.shape[1] == len(gram):
        return solve_common(gram, right, job.tol)
    if gram.device.type != "cpu":
        return solve_batched(gram, chosen, right, job.tol)
    arrays = (gram.numpy(), chosen.numpy(), right.numpy())
    solution, residual = solve_subsets(*arrays, job.tol)
    return torch.from_numpy(solution), torch.from_numpy(residual)


def _as_array(X: Any) -> Floats:
    """Return an array or a tensor of any device as an array."""
    return np.asarray(X.detach().cpu() if hasattr(X, "detach") else X)


def _count_targets(X: Any, Y: TargetSource) -> int:
    """Return the number of targets; X and Y have the same images, one at least."""
    check_shape(tuple(X.shape), (None, None), "X")
    check_shape(tuple(Y.shape), (len(X), None), "Y")
    if len(X) == 0 or Y.shape[1] == 0:
        raise DataError(
            f"X {tuple(X.shape)} and Y {tuple(Y.shape)} hold nothing to fit."
        )
    return int(Y.shape[1])


def _remainder_dtype(dtype: torch.dtype, has_bfloat16: bool) -> torch.dtype:
    return torch.bfloat16 if has_bfloat16 and dtype == torch.float32 else dtype


def _check_alike(decoders: Sequence["VoxelSelectedRidge"]) -> None:
    """Refuse decoders that cannot share one Gram matrix."""
    for name in ("alpha", "dtype", "device", "n_threads"):
        found = {str(getattr(decoder, name)) for decoder in decoders}
        if len(found) > 1:
            raise ConfigError(
                f"Decoders that are fitted together differ in {name} "
                f"({', '.join(sorted(found))}): fit them one by one."
            )


def fit_together(
    decoders: Sequence["VoxelSelectedRidge"], X: Any, targets: Sequence[TargetSource]
) -> list["VoxelSelectedRidge"]:
    """Fit several decoders to the same responses, on one Gram matrix.

    The result is that of `decoder.fit(X, Y)` one by one, to the byte.

    Parameters
    ----------
    decoders : sequence of VoxelSelectedRidge
        Of one alpha, dtype, device and number of threads; n_feat may differ.
    X : array or tensor (n_images, n_voxels)
        Training responses.
    targets : sequence of TargetSource
        The targets of each decoder, as in `VoxelSelectedRidge.fit`.

    Returns
    -------
    list of VoxelSelectedRidge
        The decoders themselves, fitted.

    Raises
    ------
    ConfigError, DataError
        As `VoxelSelectedRidge.fit`; or the decoders differ in what they must share.
    """
    _check_alike(decoders)
    X, first = _as_array(X), decoders[0]
    plans = []
    for decoder, Y in zip(decoders, targets, strict=True):
        decoder._check_parameters()
        plans.append(decoder._plan(X.shape, _count_targets(X, Y)))
    dtype, device = _DTYPES[first.dtype], str(first.device)
    low = _remainder_dtype(dtype, device_rates(device).low_product > 0)
    with threads(first._threads()) as run:
        like = torch.empty(0, dtype=dtype, device=device)
        design = make_design(X, float(first.alpha), like, run)
        used = {solver for solver, _ in plans}
        deflation = deflate(design.gram, low) if "cg" in used else None
        for decoder, Y, (solver, size) in zip(decoders, targets, plans, strict=True):
            low_rank = deflation if solver == "cg" else None
            job = _Job(design, low_rank, solver, decoder._tol(), Lock())
            decoder._fit_blocks(job, Y, size, run)
    return list(decoders)


class VoxelSelectedRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression of each target on the n_feat voxels that correlate most with it.

    Per target: the `n_feat` voxels of largest absolute Pearson correlation on the
    training images (voxels of variance below 1e-8 excluded, ties to the lower index), a
    column of ones, and w = (A'A + alpha I)^-1 A'y. The intercept is penalised with the
    weights, unlike scikit-learn's; alpha adds to A'A, whose diagonal is about n_images,
    so that 0.15 hardly regularises and the selection does.

    Same answer as FastL2LiR 0.11 but for two cases there: where n_feat exceeds the
    usable voxels all usable ones are taken (there, near-constant ones are used too),
    and a target that is constant on the training images is predicted by that constant.
    The default is exact in float64; `dtype="float32"` is for whole subjects of NSD,
    with predictions within 1e-4 of their SD.

    Parameters
    ----------
    alpha : float
        Penalty, above 0.
    n_feat : int
        Voxels per target, at least 1.
    chunk_targets : int, optional
        Targets solved together; default: as suits the solver and `max_memory`. Changes
        results by rounding only.
    solver : {"auto", "cholesky", "cg"}
        Exact factorisation per target, or conjugate gradients over all targets of a
        chunk; "auto" takes the faster one by operation counts, and the exact one for
        float64 (`planning`).
    dtype : {"float64", "float32"}
        Of the computation, the weights and the predictions.
    device : str
        "cpu", or a torch device such as "cuda".
    max_memory : int, optional
        Bytes that `fit` may hold beside its inputs and its results.
    tol : float, optional
        Relative residual of each target's equations to reach; default 2e-6 in float32,
        1e-10 in float64. The exact solver refines its solution where it is missed.
    n_threads : int, optional
        Chunks in work at once, each on one core; default: torch's number of threads.
        Does not change the results.

    Attributes
    ----------
    voxels_ : (n_targets, n_selected) int32
        Selected voxels, ascending; n_selected = min(n_feat, usable voxels).
    weights_ : (n_targets, n_selected) float64 or float32
        Their weights.
    intercept_ : (n_targets,) float64 or float32
    residual_ : (n_targets,) float64
        Relative residual reached; 0 for a constant target.
    solver_ : str
        The solver that was taken.
    n_features_in_ : int
        n_voxels.

    References
    ----------
    FastL2LiR, https://github.com/KamitaniLab/PyFastL2LiR, version 0.11.
    MindDiffuser section 3.1 and its released code (alpha, n_feat).

    Examples
    --------
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> VoxelSelectedRidge(alpha=0.15, n_feat=2).fit(X, Y).predict(X).shape
    (4, 2)
    """

    voxels_: npt.NDArray[np.int32]
    weights_: Floats
    intercept_: Floats
    residual_: Doubles
    solver_: str
    n_features_in_: int

    def __init__(  # noqa: PLR0913  (scikit-learn wants each parameter by name)
        self,
        alpha: float = 0.15,
        n_feat: int = 450,
        chunk_targets: int | None = None,
        *,
        solver: str = "auto",
        dtype: str = "float64",
        device: str = "cpu",
        max_memory: int | None = None,
        tol: float | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.alpha = alpha
        self.n_feat = n_feat
        self.chunk_targets = chunk_targets
        self.solver = solver
        self.dtype = dtype
        self.device = device
        self.max_memory = max_memory
        self.tol = tol
        self.n_threads = n_threads

    def fit(self, X: Any, Y: TargetSource) -> Self:
        """Fit all targets.

        Parameters
        ----------
        X : array or tensor (n_images, n_voxels)
            Training responses.
        Y : array, tensor, HDF5 data set, ... (n_images, n_targets)
            Training targets, best standardised (`TargetScaling`, `ScaledTargets`);
            `Y[:, start:stop]` is read chunk by chunk, never the whole.

        Raises
        ------
        ConfigError
            A parameter is out of range, or max_memory does not suffice.
        DataError
            Shapes do not fit, NaN or infinite values, no voxel varies, or the voxels of
            a target are linearly dependent.

        Warns
        -----
        ConvergenceWarning
            Some targets did not reach `tol`; `residual_` says which.
        """
        return fit_together([self], X, [Y])[0]

    def _check_parameters(self) -> None:
        check_choice(self.solver, ("auto", "cholesky", "cg"), "solver")
        check_choice(self.dtype, tuple(_DTYPES), "dtype")
        for name in ("n_feat", "chunk_targets", "max_memory", "n_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, but must be at least 1.")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ConfigError(f"alpha is {self.alpha}, but must be above 0 and finite.")
        least = _LEAST_TOL[self.dtype]
        if self.tol is not None and not least <= self.tol < 1:
            raise ConfigError(
                f"tol is {self.tol}, but {self.dtype} allows {least} to 1."
            )

    def _plan(self, shape: tuple[int, int], n_targets: int) -> tuple[str, int]:
        """Return solver and targets per block, from sizes alone."""
        rates = device_rates(str(self.device))
        n_selected = min(int(self.n_feat), shape[1])
        sizes = Sizes(*shape, n_targets, n_selected)
        solver = self.solver
        if solver == "auto":
            solver = choose_solver(sizes, rates, self._tol(), self.dtype)
        dtype = _DTYPES[self.dtype]
        low = _remainder_dtype(dtype, rates.low_product > 0)
        widths = (dtype.itemsize, low.itemsize)
        size = block_targets(sizes, solver, widths, self._threads(), self.max_memory)
        return solver, min(size, self.chunk_targets or size)

    def _tol(self) -> float:
        return self.tol or _DEFAULT_TOL[self.dtype]

    def _threads(self) -> int:
        return self.n_threads or torch.get_num_threads()

    def _allocate(self, n_voxels: int, n_targets: int, n_usable: int) -> None:
        n_selected = min(int(self.n_feat), n_usable)
        self.n_features_in_ = n_voxels
        self.voxels_ = np.empty((n_targets, n_selected), np.int32)
        self.weights_ = np.empty((n_targets, n_selected), self.dtype)
        self.intercept_ = np.empty(n_targets, self.dtype)
        self.residual_ = np.empty(n_targets)

    def _fit_blocks(self, job: _Job, Y: TargetSource, size: int, run: Any) -> None:
        n_voxels = job.design.n_voxels
        n_targets = int(Y.shape[1])
        self._allocate(n_voxels, n_targets, len(job.design.columns))
        self.solver_ = job.solver
        for _ in run(partial(self._fit_block, job, Y), blocks(n_targets, size)):
            pass
        self._warn_if_unconverged(job.tol)

    def _fit_block(self, job: _Job, Y: TargetSource, block: slice) -> None:
        design = job.design
        y = _centred(job, Y, block)
        cross = y.values.T @ design.Z  # (n_block, n_usable), r up to a factor per row
        chosen = select_voxels(cross, y.values, design.Z, self.weights_.shape[1])
        columns = chosen.cpu().numpy()  # (n_block, n_selected)
        offset = design.alpha * design.shrink * design.mean / design.scale
        extra = torch.from_numpy(offset[columns] * y.mean[:, None]).to(cross)
        right = cross.gather(1, chosen) + extra
        del cross, extra
        solution, residual = _solve(job, chosen, right)
        weights = solution.cpu().numpy() / design.scale[columns]
        passed_on = np.sum(design.mean[columns] * weights, axis=1)
        intercept = design.shrink * (y.mean - passed_on)
        weights[y.constant] = 0
        self.voxels_[block] = design.columns[columns]
        self.weights_[block] = weights
        self.intercept_[block] = np.where(y.constant, y.mean, intercept)
        self.residual_[block] = np.where(y.constant, 0, residual.cpu().numpy())

    def _warn_if_unconverged(self, tol: float) -> None:
        missed = int(np.count_nonzero(~(self.residual_ <= tol)))
        if missed:
            warnings.warn(
                f"{missed} of {len(self.residual_)} targets did not reach the relative "
                f"residual {tol:g}, the worst {self.residual_.max():.1e}: raise alpha "
                "or tol, or use solver='cholesky' with dtype='float64'.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _require_fit(self) -> None:
        if not hasattr(self, "weights_"):
            raise DataError("The decoder has not been fitted: call fit first.")

    def predict(self, X: Any) -> Floats:
        """Return the predictions (n_images, n_targets) for responses X.

        In the dtype of the weights. Targets are put into dense blocks
        (n_voxels, 256): faster than a sparse product where n_feat is a third of them.

        Raises
        ------
        DataError
            Not fitted, another number of voxels, or NaN or infinite values.
        """
        self._require_fit()
        X = _as_array(X)
        check_shape(X.shape, (None, self.n_features_in_), "X")
        check_finite(bool(np.isfinite(X).all()), "X")
        X = X.astype(self.weights_.dtype, copy=False)
        n_targets = len(self.weights_)
        Y_hat = np.empty((len(X), n_targets), self.weights_.dtype)
        dense = np.zeros((_PREDICT_TARGETS, self.n_features_in_), X.dtype)
        for block in blocks(n_targets, _PREDICT_TARGETS):
            voxels, n = self.voxels_[block], block.stop - block.start
            np.put_along_axis(dense[:n], voxels, self.weights_[block], axis=1)
            Y_hat[:, block] = (X @ dense.T)[:, :n]
            np.put_along_axis(dense[:n], voxels, 0, axis=1)
        Y_hat += self.intercept_
        return Y_hat

    def voxel_weight(self) -> Doubles:
        """Return the mean over targets of the absolute weight, (n_voxels,).

        A target that did not select a voxel counts as 0.
        """
        self._require_fit()
        total = np.zeros(self.n_features_in_)
        for block in blocks(len(self.voxels_), _PREDICT_TARGETS):
            total += np.bincount(
                self.voxels_[block].ravel(),
                weights=np.abs(self.weights_[block]).ravel(),
                minlength=self.n_features_in_,
            )
        return total / len(self.voxels_)

    def noise_gain(self, voxel_noise: Doubles) -> Doubles:
        """Return sum_v w_v^2 noise_v of each target, (n_targets,), float64."""
        self._require_fit()
        check_shape(voxel_noise.shape, (self.n_features_in_,), "voxel_noise")
        gain = np.empty(len(self.voxels_))
        for block in blocks(len(gain), _PREDICT_TARGETS):
            weights = self.weights_[block].astype(np.float64)
            gain[block] = np.sum(weights**2 * voxel_noise[self.voxels_[block]], axis=1)
        return gain

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `from_arrays` needs.

        Per target: voxels, weights, intercept, residual; the others are scalars.
        """
        self._require_fit()
        found = {
            "voxels": self.voxels_,
            "weights": self.weights_,
            "intercept": self.intercept_,
            "n_voxels": np.array(self.n_features_in_),
            "alpha": np.array(float(self.alpha)),
            "n_feat": np.array(int(self.n_feat)),
        }
        if hasattr(self, "residual_"):
            found["residual"] = self.residual_
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the fitted decoder that `arrays` came from, or some of its targets.

        Its dtype is that of the weights. Arrays without `residual` are accepted.

        Raises
        ------
        DataError
            An array is missing, or the arrays do not fit together.
        """
        keys = ("voxels", "weights", "intercept", "n_voxels", "alpha", "n_feat")
        missing = [key for key in keys if key not in arrays]
        if missing:
            raise DataError(
                f"The decoder lacks {', '.join(missing)}: run notebook 02 again."
            )
        voxels, weights = arrays["voxels"], arrays["weights"]
        check_shape(voxels.shape, (None, None), "Decoder's voxels")
        check_shape(weights.shape, voxels.shape, "Decoder's weights")
        check_shape(arrays["intercept"].shape, voxels.shape[:1], "Decoder's intercept")
        n_voxels = int(arrays["n_voxels"])
        if voxels.size and not (voxels.min() >= 0 and voxels.max() < n_voxels):
            raise DataError(f"The decoder names voxels outside 0..{n_voxels - 1}.")
        dtype = "float32" if weights.dtype == np.float32 else "float64"
        decoder = cls(float(arrays["alpha"]), int(arrays["n_feat"]), dtype=dtype)
        decoder.n_features_in_ = n_voxels
        decoder.voxels_ = voxels.astype(np.int32)
        decoder.weights_ = weights.astype(dtype)
        decoder.intercept_ = arrays["intercept"].astype(dtype)
        if "residual" in arrays:
            check_shape(arrays["residual"].shape, voxels.shape[:1], "Its residual")
            decoder.residual_ = arrays["residual"].astype(np.float64)
        return decoder
