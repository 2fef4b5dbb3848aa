"""How well a decoder's predictions do: correlation, null, ceiling, the accuracy row.

Place in the flow: layer 7; it knows decoders by what they share (`LinearDecoder`) only.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import ConfigError, DataError, check_finite, check_shape
from minddiff_utils.decoding.targets import blocks

__all__ = [
    "Accuracy",
    "LinearDecoder",
    "feature_correlation",
    "nanmean",
    "noise_ceiling_r",
    "permutation_null",
    "score_decoder",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]

#: Elements of one block of targets by voxels or images (64 MB of float64).
_BLOCK_ELEMENTS = 8_000_000


class LinearDecoder(Protocol):
    """What every fitted decoder can say, whatever it was fitted by."""

    n_features_in_: int

    def predict(self, X: Floats) -> Floats:
        """Return the predictions (n_images, n_targets) for responses X."""

    def voxel_weight(self) -> Doubles:
        """Return the mean over targets of the absolute weight, (n_voxels,)."""

    def noise_gain(self, voxel_noise: Doubles) -> Doubles:
        """Return the variance that independent voxel noise adds, (n_targets,)."""


def nanmean(values: Floats) -> float:
    """Return the mean of the finite values, NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if finite.size else float("nan")


def _check_pair(Y_true: Floats, Y_hat: Floats) -> None:
    check_shape(Y_true.shape, (None, None), "Y_true")
    check_shape(Y_hat.shape, Y_true.shape, "Y_hat")
    if len(Y_true) < 2:
        raise DataError(f"A correlation needs 2 images or more, not {len(Y_true)}.")
    check_finite(bool(np.isfinite(Y_true).all()), "Y_true")
    check_finite(bool(np.isfinite(Y_hat).all()), "Y_hat")


def _unit_columns(Y: Floats) -> Doubles:
    """Return centred columns of unit norm; NaN in columns that do not vary."""
    centred = Y.astype(np.float64)
    centred -= centred.mean(axis=0)
    norm = np.sqrt(np.sum(centred**2, axis=0))
    varies = (np.ptp(Y, axis=0) > 0) & (norm > 0)
    centred /= np.where(varies, norm, np.nan)
    return centred


def _targetblocks(Y: Floats) -> Iterator[slice]:
    return blocks(Y.shape[1], max(1, _BLOCK_ELEMENTS // len(Y)))


def feature_correlation(Y_true: Floats, Y_hat: Floats) -> Doubles:
    """Return the signed Pearson r of each target over images.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        True and decoded features.

    Returns
    -------
    (n_targets,) float64
        NaN where the true or the decoded target does not vary; use nanmean.

    Raises
    ------
    DataError
        Shapes differ, fewer than 2 images, or NaN or infinite values.
    """
    _check_pair(Y_true, Y_hat)
    r = np.empty(Y_true.shape[1])
    for block in _targetblocks(Y_true):
        product = _unit_columns(Y_true[:, block]) * _unit_columns(Y_hat[:, block])
        r[block] = product.sum(axis=0)
    return r


def permutation_null(
    Y_true: Floats, Y_hat: Floats, *, n_permutations: int, rng: np.random.Generator
) -> Doubles:
    """Return the mean correlation over targets when test images are permuted.

    All targets are permuted together, so that the null keeps their dependence. With
    columns of unit norm U and V the mean r under a permutation p is the sum over images
    i of K[p(i), i], where K = U V' / n_targets: one product serves all permutations.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        True and decoded features; targets where either does not vary are left out.
    n_permutations : int
        At least 1.
    rng : Generator
        Draws the permutations.

    Returns
    -------
    (n_permutations,) float64

    Raises
    ------
    ConfigError
        n_permutations is below 1.
    DataError
        As `feature_correlation`, or no target varies.
    """
    _check_pair(Y_true, Y_hat)
    if n_permutations < 1:
        raise ConfigError(
            f"n_permutations is {n_permutations}, but must be at least 1."
        )
    n_images = len(Y_true)
    kernel = np.zeros((n_images, n_images))
    n_used = 0
    for block in _targetblocks(Y_true):
        U, V = _unit_columns(Y_true[:, block]), _unit_columns(Y_hat[:, block])
        used = np.isfinite(U[0]) & np.isfinite(V[0])
        kernel += U[:, used] @ V[:, used].T
        n_used += int(np.count_nonzero(used))
    if n_used == 0:
        raise DataError(
            "No target varies in both truth and prediction: nothing to test."
        )
    images = np.arange(n_images)
    order = rng.permuted(np.tile(images, (n_permutations, 1)), axis=1)
    return np.asarray(kernel[order, images].sum(axis=1) / n_used)


def noise_ceiling_r(
    decoder: LinearDecoder, Y_hat_std: Floats, ncsnr: Floats, n_repeats: Ints
) -> Doubles:
    """Return the highest correlation that voxel noise allows this decoder per target.

    A single trial of a z-scored voxel has the noise variance 1 / (1 + ncsnr^2), an
    average over m trials 1/m of it. A linear prediction passes on
    sum_v w_v^2 noise_v; what is left of its variance over test images is signal, and
    ceiling = sqrt(max(0, 1 - noise / variance)), the correlation with a truth that the
    signal part predicts perfectly. Noise is taken as independent between voxels;
    positively correlated noise under weights of one sign makes the true ceiling lower.
    The variance is estimated on few images, so use the mean over many targets.

    Parameters
    ----------
    decoder : LinearDecoder
        Fitted on z-scored voxels.
    Y_hat_std : (n_test, n_targets)
        Its own predictions for the test images, not rescaled.
    ncsnr : (n_voxels,)
        Noise-ceiling signal-to-noise ratio of each voxel, per trial.
    n_repeats : (n_test,) int
        Trials averaged in each test response.

    Returns
    -------
    (n_targets,) float64
        In [0, 1]; NaN where the prediction does not vary.

    References
    ----------
    Allen et al. (2022), Nature Neuroscience 25, Methods: noise ceiling from ncsnr.
    """
    check_shape(Y_hat_std.shape, (None, None), "Y_hat_std")
    check_shape(ncsnr.shape, (decoder.n_features_in_,), "ncsnr")
    check_shape(n_repeats.shape, (len(Y_hat_std),), "n_repeats")
    check_finite(bool(np.isfinite(ncsnr).all()), "ncsnr")
    check_finite(bool(np.isfinite(Y_hat_std).all()), "Y_hat_std")
    if len(n_repeats) < 2 or n_repeats.min() < 1 or ncsnr.min() < 0:
        raise DataError(
            "A noise ceiling needs 2 test images or more, n_repeats of 1 or more and "
            "ncsnr of 0 or more: check responses.h5."
        )
    voxel_noise = np.mean(1 / n_repeats) / (1 + ncsnr.astype(np.float64) ** 2)
    noise = decoder.noise_gain(voxel_noise)
    check_shape(Y_hat_std.shape, (None, len(noise)), "Y_hat_std")
    variance = Y_hat_std.var(axis=0, ddof=1, dtype=np.float64)
    varies = np.ptp(Y_hat_std, axis=0) > 0
    reliability = 1 - noise / np.where(varies, variance, np.nan)
    return np.asarray(np.sqrt(np.maximum(reliability, 0)))


# --- one row of the accuracy table ----------------------------------------------------


@dataclass(frozen=True)
class Accuracy:
    """How well one feature is decoded; the columns of the accuracy table.

    Attributes
    ----------
    r_mean, r_median : float
        Over the targets that vary, of the signed correlation over test images.
    r_null_mean, r_null_high : float
        Mean and 97.5 % quantile of the mean correlation with permuted images.
    p_permutation : float
        (1 + #{null >= r_mean}) / (1 + n_permutations), one-sided, never 0.
    r_ceiling : float
        Mean of the noise ceilings; NaN where there is none.
    n_images, n_targets : int
        Test images, and targets with a correlation.
    """

    r_mean: float
    r_median: float
    r_null_mean: float
    r_null_high: float
    p_permutation: float
    r_ceiling: float
    n_images: int
    n_targets: int


def score_decoder(
    Y_true: Floats,
    Y_hat: Floats,
    ceiling_r: Floats,
    *,
    n_permutations: int,
    rng: np.random.Generator,
) -> dict[str, float | int]:
    """Return the `Accuracy` of decoded features as a row: name to value.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        True and decoded features of the test images, each in any linear scale.
    ceiling_r : (n_targets,)
        From `noise_ceiling_r`.
    n_permutations : int
        Permutations of the test images.
    rng : Generator
        Draws them.

    Raises
    ------
    DataError
        As `permutation_null`.

    References
    ----------
    Phipson and Smyth (2010), Permutation p-values should never be zero.
    """
    check_shape(ceiling_r.shape, Y_true.shape[1:], "ceiling_r")
    null = permutation_null(Y_true, Y_hat, n_permutations=n_permutations, rng=rng)
    r = feature_correlation(Y_true, Y_hat)
    r = r[np.isfinite(r)]
    observed = float(r.mean())
    reached = np.count_nonzero(null >= observed - 1e-12)  # a tie broken by rounding
    accuracy = Accuracy(
        r_mean=observed,
        r_median=float(np.median(r)),
        r_null_mean=float(null.mean()),
        r_null_high=float(np.quantile(null, 0.975)),
        p_permutation=float((1 + reached) / (1 + n_permutations)),
        r_ceiling=nanmean(ceiling_r),
        n_images=len(Y_true),
        n_targets=len(r),
    )
    return asdict(accuracy)
