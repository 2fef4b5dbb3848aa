"""Slopes over images and subjects together: a mixed model with crossed random effects.

Every subject has every image, so that the model falls into independent parts (within
both, between images, between subjects) and generalised least squares is ordinary least
squares of partly centred values.

Notation
--------
y_si = b_0 + sum_k b_k x_ksi + u_i + v_s + e_si ; ratios = (var u, var v) / var e.

References
----------
Baltagi (2021), Econometric Analysis of Panel Data, chapter 3 (two-way error components,
partly centred values). Patterson and Thompson (1971), Biometrika 58 (REML).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from minddiff_utils.core.errors import check_finite, check_shape
from minddiff_utils.core.inference import Estimate, jackknife, t_interval
from minddiff_utils.core.types import Doubles, IntArray

__all__ = ["crossed_slopes", "variance_ratios"]

Ratios = tuple[float, float]
#: No variance ratio is sought above this; there the effect is as good as fixed.
_LARGEST = 1e4


def crossed_slopes(
    y: npt.ArrayLike,
    x: Sequence[npt.ArrayLike],
    *,
    fixed: bool = False,
    confidence: float = 0.95,
) -> list[Estimate]:
    """Return the slope of y on each x, given the others, with intervals over images.

    The ratios of variances are those of all images (REML); the jackknife over images
    gives the interval. Counts and the interval for new subjects are those of each
    subject's own slopes.

    Parameters
    ----------
    y : float (n_subjects, n_images)
    x : sequence of float (n_subjects, n_images)
    fixed : bool
        Subject and image as fixed effects: what neither of them explains.

    Raises
    ------
    DataError
        Fewer than 4 images, shapes that do not match, or values that are not finite.
    """
    both = [np.asarray(values, np.float64) for values in (y, *x)]
    for values in both:
        check_shape(values.shape, both[0].shape, "The values")
        check_finite(bool(np.isfinite(values).all()), "The values")
    target, given = both[0], np.stack(both[1:])
    ratios = (np.inf, np.inf) if fixed else variance_ratios(target, given)

    def slope(k: int, rows: IntArray) -> Doubles:
        return _fit(target[:, rows], given[:, :, rows], ratios)[0][[k]]

    subjects = [[s] for s in range(len(target))]
    own = np.stack([_fit(target[s], given[:, s], (0.0, 0.0))[0] for s in subjects])
    found = []
    for k, by_subject in enumerate(own.T):
        some = partial(slope, k)
        pooled = jackknife(some, target.shape[1], confidence=confidence)
        low, high, _ = t_interval(by_subject, confidence)
        one = replace(pooled, n_subjects=len(own), subjects_low=low, subjects_high=high)
        found.append(replace(one, n_positive=int((by_subject > 0).sum())))
    return found


def variance_ratios(y: Doubles, x: Doubles) -> Ratios:
    """Return the variances of images and of subjects, over that of the rest, by REML.

    `y`: (n_subjects, n_images); `x`: (n_x, n_subjects, n_images). 0 for both where
    there is one subject, as then nothing tells an image's effect from the rest.
    """
    n_subjects, n_images = y.shape
    if min(y.shape) < 2:
        return 0.0, 0.0
    n_free = y.size - 1 - len(x)

    def criterion(logs: Doubles) -> float:
        ratios = np.expm1(logs)
        _, rest, information = _fit(y, x, (float(ratios[0]), float(ratios[1])))
        between = (n_images - 1) * np.log1p(n_subjects * ratios[0])
        between += (n_subjects - 1) * np.log1p(n_images * ratios[1])
        rest = max(rest, np.finfo(float).tiny)  # a perfect fit
        return float(n_free * np.log(rest) + between + information)

    bounds = [(0.0, float(np.log1p(_LARGEST)))] * 2
    options = {"ftol": 1e-13, "gtol": 1e-8}
    starts = ((0.1, 3.0), (1.0, 0.1))
    tried = [
        minimize(criterion, np.array(s), bounds=bounds, options=options) for s in starts
    ]
    best = min(tried, key=lambda one: float(one.fun)).x
    return float(np.expm1(best[0])), float(np.expm1(best[1]))


def _fit(y: Doubles, x: Doubles, ratios: Ratios) -> tuple[Doubles, float, float]:
    """Return slopes, sum of squares that is left, and log |X'X|, partly centred."""
    n_subjects, n_images = y.shape
    kept = [
        (1 + n * ratio) ** -0.5 if np.isfinite(ratio) else 0.0
        for n, ratio in zip((n_subjects, n_images), ratios, strict=True)
    ]

    def centred(values: Doubles) -> Doubles:
        rest = values - values.mean()
        by_image = rest.mean(axis=0, keepdims=True)
        by_subject = rest.mean(axis=1, keepdims=True)
        return np.asarray(
            rest - (1 - kept[0]) * by_image - (1 - kept[1]) * by_subject
        ).ravel()

    target, design = centred(y), np.stack([centred(one) for one in x], axis=1)
    slopes = np.asarray(np.linalg.lstsq(design, target, rcond=None)[0], np.float64)
    left = float(np.square(target - design @ slopes).sum())
    return slopes, left, float(np.linalg.slogdet(design.T @ design)[1])
