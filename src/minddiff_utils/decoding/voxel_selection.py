"""Ridge regression of each target on the voxels that correlate most with it.

`VoxelSelectedRidge` gives the answer of FastL2LiR 0.11 (a ridge of its own voxels per
target) in a fraction of the time: the normal equations of all voxels are formed once,
and each target solves its own rows and columns of them (`_solvers`,
`_conjugate_gradients`).
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from minddiff_utils.core.errors import (
    ConfigError,
    DataError,
    check_choice,
    check_finite,
    check_shape,
)
from minddiff_utils.core.types import Array, Doubles, Floats
from minddiff_utils.decoding._conjugate_gradients import (
    Deflation,
    deflate,
    solve_masked,
)
from minddiff_utils.decoding._linear_decoder import LinearDecoder, Targets, check_fit
from minddiff_utils.decoding._normal_equations import (
    NormalEquations,
    normal_equations,
    select_voxels,
)
from minddiff_utils.decoding._solvers import (
    choose_solver,
    solve_common,
    solve_subsets,
    threads,
)
from minddiff_utils.decoding.targets import blocks

__all__ = ["VoxelSelectedRidge"]


#: Relative residual of the normal equations to reach.
_TOLERANCE = {"float32": 2e-6, "float64": 1e-10}
#: Targets of one block of conjugate gradients: wide products, 0.3 GB at 12,000 voxels.
_CG_TARGETS = 512
#: Elements of one block of targets by voxels or images for the exact solver.
_BLOCK_ELEMENTS = 8_000_000


def _has_bfloat16() -> bool:
    """Return whether products in bfloat16 are faster on this processor."""
    return bool(
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


@dataclass(eq=False, repr=False)
class VoxelSelectedRidge(LinearDecoder):
    """Ridge regression of each target on the voxels that correlate most with it.

    Per target: the `n_voxels` of largest absolute Pearson correlation on the training
    images (voxels of variance below 1e-8 excluded, ties to the lower index), a column
    of ones, and w = (A'A + alpha I)^-1 A'y. The intercept is penalised with the
    weights, unlike scikit-learn's; alpha adds to A'A, whose diagonal is about n_images,
    so that 0.15 hardly regularises and the selection does.

    Same answer as FastL2LiR 0.11 but for two cases there: where `n_voxels` exceeds the
    usable ones all usable ones are taken (there, near-constant ones are used too), and
    a target that is constant on the training images is predicted by that constant. The
    default is exact in float64; `dtype="float32"` is for whole subjects of NSD, with
    predictions within 1e-4 of their SD.

    Parameters
    ----------
    alpha : float
        Penalty, above 0.
    n_voxels : int
        Voxels per target, at least 1.
    dtype : {"float64", "float32"}
        Of the computation, the weights and the predictions.
    solver : {"auto", "cholesky", "cg"}
        Exact factorisation per target, or conjugate gradients over all targets of a
        block; "auto" takes the exact one for float64, and for float32 the one of fewer
        operations.

    Attributes
    ----------
    voxels_ : (n_targets, n_selected) int32
        Selected voxels, ascending; n_selected = min(n_voxels, usable voxels).
    weights_ : (n_targets, n_selected)
        Their weights.
    intercept_, alpha_ : (n_targets,)
        The penalty is the same for all.
    residual_ : (n_targets,) float64
        Relative residual reached; 0 for a constant target.
    solver_ : str
        The solver that was taken.
    n_features_in_ : int
        Voxels of the responses.

    References
    ----------
    FastL2LiR, https://github.com/KamitaniLab/PyFastL2LiR, version 0.11.
    MindDiffuser section 3.1 and its released code (alpha, voxels per target).

    Examples
    --------
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> VoxelSelectedRidge(alpha=0.15, n_voxels=2).fit(X, Y).predict(X).shape
    (4, 2)
    """

    alpha: float = 0.15
    n_voxels: int = 450
    dtype: str = "float64"
    solver: str = "auto"

    _PER_TARGET: ClassVar = ("voxels", "weights", "intercept", "residual")

    @property
    def alphas_(self) -> Doubles:  # type: ignore[override]
        """Return the one penalty."""
        return np.array([self.alpha], np.float64)

    @property
    def alpha_(self) -> Doubles:  # type: ignore[override]
        """Return the penalty of each target."""
        self._check_fitted()
        return np.full(len(self.weights_), self.alpha, np.float64)

    def fit(self, X: Floats, Y: Targets) -> Self:
        """Fit all targets.

        Parameters
        ----------
        X : (n_images, n_voxels)
            Training responses.
        Y : (n_images, n_targets)
            Training targets, best standardised; read once, in blocks of columns.

        Raises
        ------
        ConfigError
            A parameter is out of range.
        DataError
            Shapes do not fit, NaN or infinite values, no voxel varies, or the voxels of
            a target are linearly dependent.

        Warns
        -----
        ConvergenceWarning
            Some targets did not reach the tolerance; `residual_` says which.
        """
        self._check_parameters()
        check_fit(X, Y)
        n_targets, self.n_features_in_ = Y.shape[1], X.shape[1]
        self.solver_ = self._choose_solver(*X.shape)
        with threads(torch.get_num_threads()) as run:
            like = torch.empty(0, dtype=getattr(torch, self.dtype))
            equations = normal_equations(X, float(self.alpha), like, run)
            deflation = None
            if self.solver_ == "cg":
                low = _has_bfloat16() and self.dtype == "float32"
                deflation = deflate(
                    equations.gram, torch.bfloat16 if low else like.dtype
                )
            shape = (n_targets, min(int(self.n_voxels), len(equations.columns)))
            self.voxels_ = np.empty(shape, np.int32)
            self.weights_ = np.empty(shape, self.dtype)
            self.intercept_ = np.empty(n_targets, self.dtype)
            self.residual_ = np.empty(n_targets)
            size = max(1, _BLOCK_ELEMENTS // max(X.shape))
            size = _CG_TARGETS if self.solver_ == "cg" else size
            fit_block = partial(self._fit_block, equations, deflation, Y)
            for _ in run(fit_block, blocks(n_targets, size)):
                pass
        self._warn_if_unconverged()
        return self

    def _check_parameters(self) -> None:
        check_choice(self.solver, ("auto", "cholesky", "cg"), "solver")
        check_choice(self.dtype, tuple(_TOLERANCE), "dtype")
        if self.n_voxels < 1:
            raise ConfigError(f"n_voxels is {self.n_voxels}, but must be at least 1.")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ConfigError(f"alpha is {self.alpha}, but must be above 0 and finite.")

    def _choose_solver(self, n_images: int, n_voxels: int) -> str:
        if self.solver != "auto":
            return self.solver
        if self.dtype == "float64":
            return "cholesky"
        n_selected = min(int(self.n_voxels), n_voxels)
        return choose_solver(n_images, n_voxels, n_selected, _TOLERANCE[self.dtype])

    def _fit_block(
        self,
        equations: NormalEquations,
        deflation: Deflation | None,
        Y: Targets,
        block: slice,
    ) -> None:
        y = Y[:, block].astype(np.float64)
        check_finite(bool(np.isfinite(y).all()), "Y")
        mean, constant = y.mean(axis=0), np.ptp(y, axis=0) == 0
        mean[constant] = y[0, constant]
        y -= mean
        centred = torch.from_numpy(y).to(equations.Z)
        cross = centred.T @ equations.Z  # (n_block, n_usable), r but for a factor
        chosen = select_voxels(cross, centred, equations.Z, self.weights_.shape[1])
        columns = chosen.numpy()  # (n_block, n_selected)
        offset = equations.alpha * equations.shrink * equations.mean / equations.scale
        extra = torch.from_numpy(offset[columns] * mean[:, None]).to(cross)
        right = cross.gather(1, chosen) + extra
        solution, residual = self._solve(equations.gram, deflation, chosen, right)
        weights = solution / equations.scale[columns]
        passed_on = np.sum(equations.mean[columns] * weights, axis=1)
        intercept = equations.shrink * (mean - passed_on)
        weights[constant] = 0
        self.voxels_[block] = equations.columns[columns]
        self.weights_[block] = weights
        self.intercept_[block] = np.where(constant, mean, intercept)
        self.residual_[block] = np.where(constant, 0, residual)

    def _solve(
        self, gram: Tensor, deflation: Deflation | None, chosen: Tensor, right: Tensor
    ) -> tuple[Floats, Doubles]:
        """Return solutions (n_block, n_selected) and relative residuals (n_block,)."""
        tol = _TOLERANCE[self.dtype]
        if deflation is not None:
            solution, residual = solve_masked(gram, deflation, chosen, right, tol)
        elif chosen.shape[1] == len(gram):
            solution, residual = solve_common(gram, right, tol)
        else:
            arrays = (gram.numpy(), chosen.numpy(), right.numpy())
            return solve_subsets(*arrays, tol)
        return solution.numpy(), residual.numpy()

    def _warn_if_unconverged(self) -> None:
        tol = _TOLERANCE[self.dtype]
        missed = int(np.count_nonzero(~(self.residual_ <= tol)))
        if missed:
            warnings.warn(
                f"{missed} of {len(self.residual_)} targets did not reach the relative "
                f"residual {tol:g}, the worst {self.residual_.max():.1e}: raise alpha, "
                "or use dtype='float64'.",
                ConvergenceWarning,
                stacklevel=3,
            )

    # --- after a fit ---

    def _block_size(self) -> int:
        # always as many, and the last block filled up: so a target's prediction does
        # not depend on which others are asked for
        return 256

    def dense_weights(self, targets: slice) -> Floats:
        """Return the weights of some targets for every voxel, 0 where not selected.

        (256, n_voxels), or more rows where more targets are asked for; the rest is 0.
        """
        voxels = self.voxels_[targets]
        n_rows = max(len(voxels), self._block_size())
        dense = np.zeros((n_rows, self.n_features_in_), self.weights_.dtype)
        np.put_along_axis(dense[: len(voxels)], voxels, self.weights_[targets], axis=1)
        return dense

    def _noise_gain(self, block: slice, voxel_noise: Doubles) -> Doubles:
        weights = self.weights_[block].astype(np.float64)
        return np.asarray(np.sum(weights**2 * voxel_noise[self.voxels_[block]], axis=1))

    def arrays(self) -> dict[str, Array]:
        """Return what `from_arrays` needs; the arrays of targets have a row for each.

        In files the number of selected voxels is `n_feat`, as FastL2LiR has it, and
        `n_voxels` that of the responses.
        """
        arrays = super().arrays()
        return arrays | {
            "n_voxels": np.array(self.n_features_in_),
            "alpha": np.array(float(self.alpha)),
            "n_feat": np.array(int(self.n_voxels)),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the fitted decoder that `arrays` came from, or some of its targets.

        Raises
        ------
        DataError
            An array is missing, or the arrays do not fit together.
        """
        decoder = super().from_arrays(arrays)
        voxels, n_voxels = decoder.voxels_, int(arrays["n_voxels"])
        check_shape(voxels.shape, decoder.weights_.shape, "Decoder's voxels")
        if voxels.size and not (voxels.min() >= 0 and voxels.max() < n_voxels):
            raise DataError(f"The decoder names voxels outside 0..{n_voxels - 1}.")
        decoder.n_features_in_ = n_voxels
        decoder.alpha, decoder.n_voxels = float(arrays["alpha"]), int(arrays["n_feat"])
        decoder.dtype = str(decoder.weights_.dtype)
        return decoder
