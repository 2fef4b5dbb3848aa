"""How well predictions do: correlation, null, noise ceiling, effective rank."""

import numpy as np

from minddiff_utils.core.errors import ConfigError, DataError, check_finite, check_shape
from minddiff_utils.core.types import Doubles, Floats, Ints
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.targets import blocks, target_blocks

__all__ = [
    "accuracy",
    "effective_rank",
    "feature_correlation",
    "nanmean",
    "noise_ceiling",
    "permutation_p",
    "variance_spectrum",
]


#: Targets whose covariance is added at once (64 MB of float64 for 1,000 images).
_SPECTRUM_TARGETS = 8192


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
    for block in target_blocks(*Y_true.shape):
        product = _unit_columns(Y_true[:, block]) * _unit_columns(Y_hat[:, block])
        r[block] = product.sum(axis=0)
    return r


def permutation_p(observed: float, null: Doubles) -> float:
    """Return ``(1 + #{null >= observed}) / (1 + N)``, never 0.

    Parameters
    ----------
    observed : float
        Statistic of the data; larger means more evidence.
    null : float (n_permutations,)
        The statistic under permutations.

    Returns
    -------
    float
        In (0, 1].

    References
    ----------
    Phipson and Smyth (2010), Permutation p-values should never be zero.

    Examples
    --------
    >>> permutation_p(2.0, [0.0, 1.0, 3.0])
    0.5
    """
    draws = np.asarray(null, dtype=np.float64)
    if draws.size == 0:
        raise DataError("The null distribution is empty: draw at least once.")
    check_finite(bool(np.isfinite(draws).all()), "The null distribution")
    check_finite(bool(np.isfinite(observed)), "The observed statistic")
    slack = 1e-12 * max(1.0, abs(observed))  # a tie that rounding broke is still a tie
    return float((1 + np.count_nonzero(draws >= observed - slack)) / (1 + draws.size))


def _image_products(Y_true: Floats, Y_hat: Floats) -> tuple[Doubles, int]:
    """Return U V', (true image, decoded image), and the targets that vary in both.

    U and V have columns of unit norm. All targets are permuted together, so that a null
    keeps their dependence: the mean r under an order p of the images is the sum over
    images i of K[p(i), i], where K = U V' / n_targets. One product serves all orders.
    """
    n_images = len(Y_true)
    kernel = np.zeros((n_images, n_images))
    n_used = 0
    for block in target_blocks(*Y_true.shape):
        U, V = _unit_columns(Y_true[:, block]), _unit_columns(Y_hat[:, block])
        used = np.isfinite(U[0]) & np.isfinite(V[0])
        kernel += U[:, used] @ V[:, used].T
        n_used += int(np.count_nonzero(used))
    if n_used == 0:
        raise DataError(
            "No target varies in both truth and prediction: nothing to test."
        )
    return kernel, n_used


def _null(
    kernel: Doubles, n_used: int, n_permutations: int, rng: np.random.Generator
) -> Doubles:
    if n_permutations < 1:
        raise ConfigError(
            f"n_permutations is {n_permutations}, but must be at least 1."
        )
    every = np.tile(np.arange(len(kernel)), (n_permutations, 1))
    return _mean_r(kernel, n_used, rng.permuted(every, axis=1))


def _mean_r(kernel: Doubles, n_used: int, orders: Ints) -> Doubles:
    """Return the mean correlation with the true images in each of some orders."""
    images = np.arange(len(kernel))
    return np.asarray(kernel[orders, images].sum(axis=1) / n_used)


def noise_ceiling(
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
        Noise-ceiling signal-to-noise ratio of each voxel, per trial; NaN throughout
        where none is known.
    n_repeats : (n_test,) int
        Trials averaged in each test response.

    Returns
    -------
    (n_targets,) float64
        In [0, 1]; NaN where the prediction does not vary or no ncsnr is known.

    References
    ----------
    Allen et al. (2022), Nature Neuroscience 25, Methods: noise ceiling from ncsnr.
    """
    check_shape(Y_hat_std.shape, (None, None), "Y_hat_std")
    check_shape(ncsnr.shape, (decoder.n_features_in_,), "ncsnr")
    check_shape(n_repeats.shape, (len(Y_hat_std),), "n_repeats")
    if np.isnan(ncsnr).all():
        return np.full(Y_hat_std.shape[1], np.nan)
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


def accuracy(
    Y_true: Floats,
    Y_hat: Floats,
    ceiling: Floats,
    *,
    within: Ints,
    n_permutations: int,
    rng: np.random.Generator,
) -> dict[str, float | int]:
    """Return how well one feature is decoded, as a row of the accuracy table.

    Parameters
    ----------
    Y_true, Y_hat : (n_images, n_targets)
        True and decoded features of the test images, each in any linear scale.
    ceiling : (n_targets,)
        From `noise_ceiling`.
    within : (n_orders, n_images) int
        Orders in which like images alone have changed places: the conditional chance
        level (`chance.permutations_within`).
    n_permutations : int
        Permutations of all test images.
    rng : Generator
        Draws them.

    Returns
    -------
    dict
        r_mean, r_median: over the targets that vary, of the signed correlation over
        test images. r_null_mean, r_null_high: mean and 97.5 % quantile of the mean
        correlation with permuted images. p_permutation: (1 + #{null >= r_mean}) / (1 +
        n_permutations), one-sided, never 0. r_ceiling: mean of the noise ceilings, NaN
        where there is none. n_images, n_targets: test images, and targets with a
        correlation. r_null_within, r_null_within_high, p_within: as r_null_mean,
        r_null_high and p_permutation, with the orders of `within`. A decoder that knows
        nothing of an image but its cluster scores r_null_within itself.

    Raises
    ------
    ConfigError
        n_permutations is below 1.
    DataError
        As `feature_correlation`, or no target varies.

    References
    ----------
    Phipson and Smyth (2010), Permutation p-values should never be zero.
    """
    check_shape(ceiling.shape, Y_true.shape[1:], "ceiling")
    check_shape(within.shape, (None, len(Y_true)), "within")
    _check_pair(Y_true, Y_hat)
    products = _image_products(Y_true, Y_hat)
    null = _null(*products, n_permutations, rng)
    null_within = _mean_r(*products, within)
    r = feature_correlation(Y_true, Y_hat)
    r = r[np.isfinite(r)]
    observed = float(r.mean())
    return {
        "r_mean": observed,
        "r_median": float(np.median(r)),
        "r_null_mean": float(null.mean()),
        "r_null_high": float(np.quantile(null, 0.975)),
        "p_permutation": permutation_p(observed, null),
        "r_ceiling": nanmean(ceiling),
        "n_images": len(Y_true),
        "n_targets": len(r),
        "r_null_within": float(null_within.mean()),
        "r_null_within_high": float(np.quantile(null_within, 0.975)),
        "p_within": permutation_p(observed, null_within),
    }


# --- directions ---------------------------------------------------------------------


def variance_spectrum(Y: Floats) -> Doubles:
    """Return the eigenvalues of the covariance of Y over images, descending.

    Parameters
    ----------
    Y : (n_images, n_targets)
        Features, in any units that suit their comparison.

    Returns
    -------
    (min(n_images, n_targets),) float64
        Non-negative; their sum is the total variance (divisor n_images - 1). With
        fewer images than targets they come from the products between images.

    Raises
    ------
    DataError
        Fewer than 2 images, no target, NaN or infinite values, or nothing varies.
    """
    check_shape(Y.shape, (None, None), "Y")
    n_images, n_targets = Y.shape
    if n_images < 2 or n_targets < 1:
        raise DataError(
            f"Y is {Y.shape}, but a spectrum needs 2 images and 1 target or more."
        )
    check_finite(bool(np.isfinite(Y).all()), "Y")
    if not np.any(np.ptp(Y, axis=0) > 0):
        raise DataError("No target varies over the images: there is nothing to rank.")
    if n_targets < n_images:
        centred = _centred(Y)
        product = centred.T @ centred
    else:
        product = np.zeros((n_images, n_images))
        for block in blocks(n_targets, _SPECTRUM_TARGETS):
            centred = _centred(Y[:, block])
            product += centred @ centred.T
    values = np.linalg.eigvalsh(product)[::-1] / (n_images - 1)
    return np.asarray(np.maximum(values, 0))  # rounding may leave -1e-17


def _centred(Y: Floats) -> Doubles:
    centred = Y.astype(np.float64)
    centred -= centred.mean(axis=0)
    centred[:, np.ptp(Y, axis=0) == 0] = 0
    return centred


def effective_rank(Y: Floats) -> float:
    """Return along how many directions features vary: the participation ratio.

    (sum v)^2 / sum v^2 of the covariance eigenvalues v; k for k equal directions.
    Predictions that vary along fewer directions than the truth cannot tell apart what
    the missing directions tell apart (arXiv 2509.15832); noise in predictions raises
    the rank, so read it beside the correlation.

    Parameters
    ----------
    Y : (n_images, n_targets)
        At most n_images - 1 directions can be seen, and the rank depends on the
        targets' units: compare only features of the same images in the same units.

    Returns
    -------
    float
        At least 1, at most min(n_images - 1, n_targets).

    Raises
    ------
    DataError
        As `variance_spectrum`.

    Examples
    --------
    >>> Y = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(effective_rank(Y), 6)
    2.0
    """
    spectrum = variance_spectrum(Y)
    share = spectrum / spectrum.sum()
    return float(1 / np.sum(share**2))
