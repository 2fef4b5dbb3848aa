"""Retrieval finds the training image that was planted."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.decoding.retrieval import nearest_rows


def _feature(
    rng: np.random.Generator, rows: list[int], *, noise: float, n_features: int = 60
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return noisy copies of `rows`, and the training features of which they are."""
    training = rng.normal(size=(40, n_features))
    return training[rows] + noise * rng.normal(size=(len(rows), n_features)), training


def _nearest(**pairs: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> list[int]:
    decoded, training = ({n: pair[k] for n, pair in pairs.items()} for k in (0, 1))
    return nearest_rows(decoded, training).tolist()


def test_retrieval_finds_the_planted_neighbour_and_of_equal_ones_the_first(
    rng: np.random.Generator,
) -> None:
    rows = [31, 4, 4, 17]
    pairs = {name: _feature(rng, rows, noise=0.5) for name in ("c", "z")}
    assert _nearest(**pairs) == rows
    for _, training in pairs.values():
        training[2] = training[4]
    assert _nearest(**pairs) == [31, 2, 2, 17]


def test_retrieval_takes_the_mean_correlation_and_counts_each_feature_once(
    rng: np.random.Generator,
) -> None:
    pairs = {name: _feature(rng, [3, 8], noise=3.0) for name in ("c", "z")}
    r = sum(np.corrcoef(*pair)[:2, 2:] for pair in pairs.values())
    assert _nearest(**pairs) == np.argmax(r, axis=1).tolist()
    short = _feature(rng, [5], noise=0.0, n_features=20)
    long = _feature(rng, [9], noise=3.0, n_features=4000)
    assert _nearest(c=short, z=long) == [5]


def test_features_that_cannot_be_compared_are_refused(rng: np.random.Generator) -> None:
    predicted, training = _feature(rng, [5, 6], noise=0.5)
    with pytest.raises(DataError, match="at least one decoded feature"):
        _nearest()
    for flat in (np.ones((1, 60)), np.zeros((1, 0))):
        with pytest.raises(DataError, match="does not vary"):
            _nearest(c=(flat, training[:, : flat.shape[1]]))
    with pytest.raises(DataError, match="training c has shape"):
        _nearest(c=(predicted, training[:, 1:]))
    with pytest.raises(DataError, match="similarity by z"):
        _nearest(c=(predicted, training), z=(predicted[:1], training))
