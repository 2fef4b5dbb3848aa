"""What fitted linear decoders with a weight for every voxel can say and save.

Place in the flow: what `kernel_ridge` and `banded` have in common.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin

from minddiff_utils.core.errors import DataError, check_finite, check_shape
from minddiff_utils.decoding.eigenbasis import (
    STRIP,
    Doubles,
    Floats,
    Ints,
    band_columns,
)
from minddiff_utils.decoding.targets import blocks

__all__ = ["MAX_BLOCK", "AllVoxelDecoder", "MatrixSink", "Precision", "PredictionSink"]

Precision = Literal["float32", "float64"]
#: Most targets solved at once; wider products are not faster on a CPU.
MAX_BLOCK = 1024


class PredictionSink(Protocol):
    """Where predictions go in blocks, whatever becomes of them there."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the results."""

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Take a block."""


class MatrixSink(PredictionSink, Protocol):
    """Where results go to stay: a numpy array, memory map or `h5py.Dataset`."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return what was written."""


class AllVoxelDecoder(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """What fitted linear decoders with a weight for every voxel can say and save.

    Attributes
    ----------
    weights_ : (n_targets, n_voxels)
        An array, memory map or `h5py.Dataset`.
    intercept_, alpha_, criterion_ : (n_targets,) float64
        Intercept, chosen penalty, and estimated squared error per image.
    band_scales_ : (n_targets, n_bands) float64
        Share of each band in the trace of the kernel; rows sum to 1.
    n_features_in_ : int
        n_voxels.
    """

    bands: Ints | None
    dtype: Precision
    weights_: Any
    intercept_: Doubles
    alpha_: Doubles
    band_scales_: Doubles
    criterion_: Doubles
    n_features_in_: int

    def __init__(self, bands: Ints | None = None, dtype: Precision = "float32") -> None:
        self.bands = bands
        self.dtype = dtype

    def _require_weights(self) -> None:
        if not hasattr(self, "alpha_"):
            raise DataError("The decoder has not been fitted: call fit first.")
        if not hasattr(self, "weights_"):
            raise DataError(
                "The decoder kept no weights: call fit, or give weights_out to "
                "fit_predict."
            )

    def _weight_blocks(self) -> list[slice]:
        self._require_weights()
        size = max(1, STRIP * MAX_BLOCK * 8 // self.n_features_in_)
        return list(blocks(len(self.intercept_), size))

    def predict(self, X: Floats) -> Floats:
        """Return the predictions (n_images, n_targets) for responses X, in `dtype`.

        Raises
        ------
        DataError
            Not fitted, no weights kept, another number of voxels, or NaN or infinite
            values.
        """
        parts = self._weight_blocks()
        check_shape(X.shape, (None, self.n_features_in_), "X")
        check_finite(bool(np.isfinite(X).all()), "X")
        responses = X.astype(self.dtype, copy=False)
        Y_hat = np.empty((len(X), len(self.intercept_)), self.dtype)
        for part in parts:
            W = np.asarray(self.weights_[part])
            Y_hat[:, part] = responses @ W.T + self.intercept_[part]
        return Y_hat

    def voxel_weight(self) -> Doubles:
        """Return the mean over targets of the absolute weight, (n_voxels,)."""
        parts = self._weight_blocks()
        total = np.zeros(self.n_features_in_)
        for part in parts:
            total += np.abs(self.weights_[part]).sum(axis=0, dtype=np.float64)
        return np.asarray(total / len(self.intercept_))

    def noise_gain(self, voxel_noise: Doubles) -> Doubles:
        """Return sum_v w_v^2 noise_v of each target, (n_targets,), float64."""
        parts = self._weight_blocks()
        check_shape(voxel_noise.shape, (self.n_features_in_,), "voxel_noise")
        gain = np.empty(len(self.intercept_))
        for part in parts:
            gain[part] = np.square(self.weights_[part], dtype=np.float64) @ voxel_noise
        return gain

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `from_arrays` needs.

        Per target, in the first axis: weights, intercept, alpha, band_scales,
        criterion. Weights in a file are read whole.
        """
        self._require_weights()
        found: dict[str, npt.NDArray[Any]] = {
            "weights": np.asarray(self.weights_[:]),
            "intercept": self.intercept_,
            "alpha": self.alpha_,
            "band_scales": self.band_scales_,
            "criterion": self.criterion_,
        }
        if self.bands is not None:
            # a row, so that its first axis is never as long as that of the targets
            found["bands"] = np.asarray(self.bands)[None]
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the fitted decoder that `arrays` came from, or some of its targets.

        Parameters that only matter to a fit are at their defaults.

        Raises
        ------
        DataError
            An array is missing, or the arrays do not fit together.
        """
        per_target = ("intercept", "alpha", "band_scales", "criterion")
        missing = [key for key in ("weights", *per_target) if key not in arrays]
        if missing:
            raise DataError(
                f"The decoder lacks {', '.join(missing)}: run notebook 02 again."
            )
        weights = arrays["weights"]
        check_shape(weights.shape, (None, None), "Decoder's weights")
        n_targets, n_voxels = weights.shape
        bands = arrays["bands"][0] if "bands" in arrays else None
        labels, _ = band_columns(bands, n_voxels)
        shapes: dict[str, tuple[int, ...]] = {k: (n_targets,) for k in per_target}
        shapes["band_scales"] = (n_targets, len(labels))
        for key, shape in shapes.items():
            check_shape(arrays[key].shape, shape, f"Decoder's {key}")
        dtype: Precision = "float64" if weights.dtype == np.float64 else "float32"
        decoder = cls(bands=bands, dtype=dtype)
        decoder.n_features_in_ = n_voxels
        decoder.weights_ = weights.astype(dtype)
        for key in per_target:
            setattr(decoder, f"{key}_", arrays[key].astype(np.float64))
        return decoder
