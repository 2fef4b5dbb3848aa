"""Several features fitted at once: what all their targets share is computed once.

Targets of a linear decoder are independent given the responses. So features whose
decoders have equal parameters are fitted side by side, with one eigendecomposition or
Gram matrix for all, and told apart afterwards. Not here: the estimators, and what is
done with the fits. Place in the flow: layer 7, between the estimators and `selection`.
"""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone

from minddiff_utils.decoding.all_voxels import AllVoxelDecoder, PredictionSink
from minddiff_utils.decoding.kernel_ridge import DenseRidge
from minddiff_utils.decoding.targets import (
    SideBySide,
    TargetSource,
    blocks,
    read_targets,
)
from minddiff_utils.decoding.voxel_selected import VoxelSelectedRidge

__all__ = ["fit_features", "fit_into", "group_features", "part_of"]

Floats = npt.NDArray[np.floating[Any]]
Decoder = TypeVar("Decoder", bound=BaseEstimator)

#: Decoders that fit each target as if it were alone.
_INDEPENDENT = (AllVoxelDecoder, VoxelSelectedRidge)
#: Those among them that read targets by blocks.
_STREAMING = (DenseRidge, VoxelSelectedRidge)
#: What they keep of each target, along the first axis.
_PER_TARGET = (
    "weights_",
    "intercept_",
    "voxels_",
    "residual_",
    "alpha_",
    "band_scales_",
    "criterion_",
)
#: Targets whose predictions are formed at once.
_PREDICTED = 4096


def _are_equal(one: BaseEstimator, other: BaseEstimator) -> bool:
    """Return whether two unfitted decoders would give the same fit of a target."""
    mine, theirs = one.get_params(), other.get_params()
    return type(one) is type(other) and all(
        np.array_equal(value, theirs[name]) for name, value in mine.items()
    )


def group_features(decoders: Mapping[str, BaseEstimator]) -> list[list[str]]:
    """Return the features by name, those together that are fitted at once.

    Together are features whose decoders are of the same class with equal parameters.
    Decoders of other packages stay alone: they may fit targets jointly.

    >>> ours, paper = DenseRidge(), VoxelSelectedRidge()
    >>> group_features({"c": ours, "z": paper, "clip/1": DenseRidge()})
    [['c', 'clip/1'], ['z']]
    """
    groups: list[list[str]] = []
    for name, decoder in decoders.items():
        for group in groups if isinstance(decoder, _INDEPENDENT) else []:
            if _are_equal(decoders[group[0]], decoder):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def part_of(decoder: Decoder, targets: slice) -> Decoder:
    """Return the fitted decoder of some of its targets; its arrays are views.

    Parameters
    ----------
    decoder : VoxelSelectedRidge, DenseRidge or BandedRidge
        Fitted.
    targets : slice
        Of its targets.
    """
    part = copy.copy(decoder)
    for name in _PER_TARGET:
        if hasattr(decoder, name):
            setattr(part, name, getattr(decoder, name)[targets])
    return part


def _fit(decoder: Decoder, X: Floats, Y: SideBySide) -> Decoder:
    """Return a fitted clone of the decoder of all targets."""
    fitted: Decoder = clone(decoder)
    if not isinstance(fitted, _STREAMING):
        fitted.fit(X, read_targets(Y, slice(0, Y.shape[1])))
    elif isinstance(fitted, DenseRidge) and len(Y.parts) > 1:
        # max_memory was meant for the weights of one feature, so here they are ours
        shape = (Y.shape[1], X.shape[1])
        fitted.fit(X, Y, weights_out=np.empty(shape, fitted.dtype))
    else:
        fitted.fit(X, Y)
    return fitted


def fit_features(
    X: Floats,
    Y: Mapping[str, TargetSource],
    decoders: Mapping[str, Decoder],
) -> dict[str, Decoder]:
    """Fit a decoder to each feature, equal decoders in one fit.

    The decoder of a feature answers for its targets only. Those of one fit share
    their arrays, which lie side by side in memory.

    Parameters
    ----------
    X : (n_images, n_voxels)
        Training responses.
    Y : mapping of (n_images, n_targets)
        Training targets by feature, best standardised (`ScaledTargets`).
    decoders : mapping of estimators
        One for each feature of `Y`, not fitted; they stay so.

    Returns
    -------
    dict of estimators
        Fitted, by feature, in the order of `decoders`.

    Raises
    ------
    ConfigError, DataError
        As the decoders' `fit`.
    """
    fitted = {}
    for group in group_features(decoders):
        joined = SideBySide({name: Y[name] for name in group})
        whole = _fit(decoders[group[0]], X, joined)
        for name, own in joined.columns.items():
            fitted[name] = whole if len(group) == 1 else part_of(whole, own)
    return {name: fitted[name] for name in decoders}


def fit_into(
    decoder: BaseEstimator,
    X: Floats,
    Y: SideBySide,
    X_test: Floats,
    predictions_out: PredictionSink,
) -> None:
    """Fit a clone of the decoder and write its predictions for `X_test`, by blocks.

    Where predictions can be had without weights (`DenseRidge`), there are none.

    Parameters
    ----------
    decoder : estimator
        Not fitted; it stays so.
    X, X_test : (n_images, n_voxels), (n_test, n_voxels)
        Nothing is learnt from `X_test`.
    Y : SideBySide
        Training targets (n_images, n_targets).
    predictions_out : (n_test, n_targets)
        Takes the predictions.

    Raises
    ------
    ConfigError, DataError
        As the decoder's `fit`.
    """
    if isinstance(decoder, DenseRidge):
        clone(decoder).fit_predict(X, Y, X_test, predictions_out=predictions_out)
        return
    fitted, n_targets = _fit(decoder, X, Y), Y.shape[1]
    if not isinstance(fitted, _INDEPENDENT):
        predictions_out[:, slice(0, n_targets)] = fitted.predict(X_test)
        return
    for block in blocks(n_targets, _PREDICTED):
        predictions_out[:, block] = part_of(fitted, block).predict(X_test)
