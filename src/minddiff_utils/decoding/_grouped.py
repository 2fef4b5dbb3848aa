"""Several features fitted at once: what all their targets share is computed once.

Each target is fitted as if it were alone. So features whose decoders have equal
parameters are fitted side by side, with one eigendecomposition or Gram matrix for all,
and told apart afterwards.
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from sklearn.base import clone

from minddiff_utils.core.types import Floats
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.targets import Rows, StandardisedTargets, TargetScaling

__all__ = ["fit_features", "group_features", "predict_features"]

Decoder = TypeVar("Decoder", bound=LinearDecoder)


def _are_equal(one: LinearDecoder, other: LinearDecoder) -> bool:
    """Return whether two unfitted decoders would give the same fit of a target."""
    mine, theirs = one.get_params(), other.get_params()
    return type(one) is type(other) and all(
        np.array_equal(value, theirs[name]) for name, value in mine.items()
    )


def group_features(decoders: Mapping[str, LinearDecoder]) -> list[list[str]]:
    """Return the features by name, those together whose decoders are equal.

    >>> from minddiff_utils.decoding import RidgeGCV, VoxelSelectedRidge
    >>> ours, paper = RidgeGCV(), VoxelSelectedRidge()
    >>> group_features({"c": ours, "z": paper, "clip/1": RidgeGCV()})
    [['c', 'clip/1'], ['z']]
    """
    groups: list[list[str]] = []
    for name, decoder in decoders.items():
        for group in groups:
            if _are_equal(decoders[group[0]], decoder):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _grouped(
    decoders: Mapping[str, Decoder], Y: Mapping[str, Floats], rows: Rows
) -> Iterator[tuple[Decoder, StandardisedTargets]]:
    """Give an unfitted decoder of each group and the group's targets."""
    for group in group_features(decoders):
        targets = StandardisedTargets({name: Y[name] for name in group}, rows)
        yield clone(decoders[group[0]]), targets


def fit_features(
    decoders: Mapping[str, Decoder],
    X: Floats,
    Y: Mapping[str, Floats],
    rows: Rows = slice(None),
) -> dict[str, tuple[Decoder, TargetScaling]]:
    """Fit a decoder to each feature, equal decoders in one fit.

    The decoder of a feature answers for its targets only. Those of one fit share their
    arrays, which lie side by side in memory.

    Parameters
    ----------
    decoders : mapping of estimators
        One for each feature, not fitted; they stay so.
    X : (n_images, n_voxels)
        Responses.
    Y : mapping of (n_images, n_targets)
        Targets by feature in their own units.
    rows : slice or (n_rows,) int
        The training images; scalings and fits see no others.

    Returns
    -------
    dict of (estimator, TargetScaling)
        Fitted on standardised targets, by feature, in the order of `decoders`.

    Raises
    ------
    ConfigError, DataError
        As the decoders' `fit`.
    """
    fitted = {}
    for decoder, targets in _grouped(decoders, Y, rows):
        decoder.fit(X[rows], targets)
        for name, columns in targets.columns.items():
            fitted[name] = decoder.part(columns), targets.scalings[name]
    return {name: fitted[name] for name in decoders}


def predict_features(
    decoders: Mapping[str, LinearDecoder],
    X: Floats,
    Y: Mapping[str, Floats],
    train: Rows,
    test: Rows,
) -> dict[str, Floats]:
    """Fit on the images `train` and predict the images `test`, by feature.

    In the targets' own units, (n_test, n_targets) float32. Parameters as in
    `fit_features`; no decoder is kept, so that ridge need not form its weights.
    """
    predicted = {}
    for decoder, targets in _grouped(decoders, Y, train):
        Y_hat = decoder.fit_predict(X[train], targets, X[test]).astype(np.float32)
        for name, columns in targets.columns.items():
            predicted[name] = targets.scalings[name].invert(Y_hat[:, columns])
    return predicted
