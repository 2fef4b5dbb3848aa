"""The structure of noise is found in trials of mixed repeats, whatever the signal."""

import numpy as np
import numpy.typing as npt
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.preprocessing.noise_structure import (
    by_distance,
    correlation_between_trials,
    residuals_of,
)

N_VOXELS, SERIAL, SHARED = 40, 0.3, 0.4


@pytest.fixture
def trials(
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give noise of known structure beneath a strong signal: z, image, session."""
    repeats = rng.permutation(np.repeat([1, 2, 3], [900, 800, 500]))
    image = rng.permutation(np.repeat(np.arange(2200), repeats))[:4000]
    session = np.repeat(np.arange(5), 800)
    noise = rng.normal(size=(4000, N_VOXELS)) * (1 - SHARED) ** 0.5
    noise += rng.normal(size=(4000, 1)) * SHARED**0.5  # r = SHARED for every pair
    for t in range(1, 4000):
        if t % 800:
            noise[t] = SERIAL * noise[t - 1] + (1 - SERIAL**2) ** 0.5 * noise[t]
    signal = 2 * rng.normal(size=(2200, N_VOXELS))
    return (signal[image] + noise).astype(np.float32), image, session


def test_noise_is_told_from_signal(
    trials: tuple[
        npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]
    ],
) -> None:
    z, image, session = trials
    found = residuals_of(z, image, session)
    known = found.weight > 0
    variance = (found.values**2).sum() / found.weight.sum() / N_VOXELS
    # about 1,700 degrees of freedom, of which 40 % are shared by all voxels
    assert variance == pytest.approx(1, abs=0.06)
    assert not found.values[~known].any()
    r = found.correlation()
    off = r[np.triu_indices(N_VOXELS, 1)]
    assert off.mean() == pytest.approx(SHARED, abs=0.08)
    np.testing.assert_allclose(np.diag(r), 1, atol=1e-5)


def test_noise_that_goes_on_is_found_at_every_lag(
    trials: tuple[
        npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]
    ],
) -> None:
    found = correlation_between_trials(residuals_of(*trials), 3)
    # some 2,000 pairs of 40 voxels that share noise: an SE of about .015
    np.testing.assert_allclose(found, SERIAL ** np.arange(1, 4), atol=0.06)


def test_pairs_are_sorted_by_their_distance() -> None:
    ijk = np.array([[0, 0, 0], [0, 0, 1], [0, 3, 0]], np.int32)
    r = np.array([[1, 0.5, 0.1], [0.5, 1, 0.3], [0.1, 0.3, 1]])
    table = by_distance({"r": r}, ijk, (0.5, 1.5, 2.5, 4))
    assert table["n_pairs"].tolist() == [1, 2]
    np.testing.assert_allclose(table["r"], [0.5, 0.2])
    np.testing.assert_allclose(table["distance"], [1, (3 + 10**0.5) / 2], rtol=1e-6)


def test_trials_that_tell_nothing_are_refused() -> None:
    once, session = np.arange(4), np.zeros(4, np.int64)
    with pytest.raises(DataError, match="seen twice"):
        residuals_of(np.zeros((4, 2), np.float32), once, session)
    empty = np.full((4, 2), np.nan, np.float32)
    with pytest.raises(DataError, match="data in all trials"):
        residuals_of(empty, np.zeros(4, np.int64), session)
