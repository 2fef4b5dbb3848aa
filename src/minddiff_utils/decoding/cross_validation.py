"""Predictions for training images by decoders that never saw them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import ConfigError, DataError, check_shape
from minddiff_utils.core.types import Doubles, Floats, Ints, Mask
from minddiff_utils.decoding._grouped import predict_features
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.scores import feature_correlation, nanmean
from minddiff_utils.decoding.targets import TargetScaling

__all__ = [
    "Fold",
    "choose_decoders",
    "contiguous_folds",
    "cross_validate",
    "pooled_correlation",
]

Fold = tuple[Ints, Ints]


def contiguous_folds(n_images: int, n_folds: int) -> list[Fold]:
    """Return (train_rows, held_out_rows) of folds of neighbouring images.

    >>> [held_out.tolist() for _, held_out in contiguous_folds(5, 2)]
    [[0, 1, 2], [3, 4]]
    """
    if not 2 <= n_folds <= n_images:
        raise ConfigError(
            f"n_folds is {n_folds}, but must be between 2 and the {n_images} images."
        )
    rows = np.arange(n_images)
    return [(np.setdiff1d(rows, part), part) for part in np.array_split(rows, n_folds)]


def held_out_rows(folds: Sequence[Fold]) -> Ints:
    """Return all held-out rows, in the order of the folds.

    Raises
    ------
    DataError
        There is no fold, or a fold holds out an image of its own training images or of
        another fold.
    """
    if not folds:
        raise DataError("There is no fold: use contiguous_folds.")
    held_out = np.concatenate([held for _, held in folds])
    apart = all(len(np.intersect1d(train, held)) == 0 for train, held in folds)
    if not apart or len(np.unique(held_out)) < len(held_out):
        raise DataError(
            "A fold's held-out images must be in none of its training images and in no "
            "other fold's held-out images: use contiguous_folds."
        )
    return np.asarray(held_out)


def cross_validate(
    decoders: Mapping[str, LinearDecoder],
    X: Floats,
    Y: Mapping[str, Floats],
    folds: Sequence[Fold],
) -> dict[str, Floats]:
    """Return what decoders that never saw an image predict for it, by feature.

    Scaling and decoder of a fold see its training rows alone; whatever the decoder
    chooses by itself (voxels, alpha) it chooses on them. Features whose decoders are
    equal are fitted at once, one fit per fold.

    Parameters
    ----------
    decoders : mapping of estimators
        One for each feature to predict, not fitted; clones are fitted.
    X, Y : (n_images, n_voxels), mapping of (n_images, n_targets)
        Training images only.
    folds : sequence of (train_rows, held_out_rows)
        Held-out rows are disjoint.

    Returns
    -------
    dict of (n_images, n_targets) float32
        In the targets' own units; NaN in rows that no fold holds out.

    Raises
    ------
    DataError
        No fold, a fold holds out its own training rows, or what the decoder raises.
    """
    held_out_rows(folds)
    Y_hat: dict[str, Floats] = {}
    for name in decoders:
        check_shape(Y[name].shape, (len(X), None), f"Y of {name}")
        Y_hat[name] = np.full(Y[name].shape, np.nan, np.float32)
    for train, held in folds:
        for name, predicted in predict_features(decoders, X, Y, train, held).items():
            Y_hat[name][held] = predicted
    return Y_hat


def pooled_correlation(
    Y: Floats,
    Y_hat: Floats,
    folds: Sequence[Fold],
    *,
    varies: Mask | None = None,
) -> Doubles:
    """Return each target's correlation with its predictions, pooled over folds.

    A target that cannot be predicted gets an r slightly below 0, since a fold's
    training mean falls as its held-out mean rises.

    Parameters
    ----------
    Y, Y_hat : (n_images, n_targets)
        Targets and their predictions from `cross_validate`, in the targets' own units.
    folds : sequence of (train_rows, held_out_rows)
        Those of `Y_hat`, or some of them.
    varies : (n_targets,) bool, optional
        Whether a target varies; by default judged on all rows of Y.

    Returns
    -------
    (n_targets,) float64
        NaN where the target or its prediction does not vary.
    """
    rows = held_out_rows(folds)
    r = feature_correlation(Y[rows], Y_hat[rows])
    r[~(TargetScaling.fit(Y).varies if varies is None else varies)] = np.nan
    return r


def choose_decoders(
    candidates: Mapping[str, Mapping[str, LinearDecoder]],
    X: Floats,
    Y: Mapping[str, Floats],
    folds: Sequence[Fold],
) -> dict[str, pd.DataFrame]:
    """Compare decoders by their mean cross-validated correlation, feature by feature.

    Parameters
    ----------
    candidates : mapping of mapping of estimators
        Candidate's name to feature to decoder.
    X, Y, folds
        As in `cross_validate`; training images only.

    Returns
    -------
    dict of DataFrame
        By feature: candidate, r_cv_mean, n_targets, the best one first; of equal ones
        the earlier.

    Raises
    ------
    ConfigError
        There is no candidate.
    """
    if not candidates:
        raise ConfigError("There is no decoder to choose from: name at least one.")
    rows: dict[str, list[dict[str, Any]]] = {feature: [] for feature in Y}
    for name, decoders in candidates.items():
        Y_hat = cross_validate(decoders, X, Y, folds)
        for feature, scores in rows.items():
            r = pooled_correlation(Y[feature], Y_hat[feature], folds)
            row = {"candidate": name, "r_cv_mean": nanmean(r)}
            scores.append(row | {"n_targets": int(np.isfinite(r).sum())})
    return {
        feature: pd.DataFrame(scores)
        .sort_values("r_cv_mean", ascending=False, kind="stable")
        .reset_index(drop=True)
        for feature, scores in rows.items()
    }
