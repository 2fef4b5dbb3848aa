"""Slopes with crossed random effects, against dense matrices and simulated data."""

import numpy as np
import pytest
from scipy import linalg, stats

from minddiff_utils.core.crossed import crossed_slopes, variance_ratios
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.rng import stream

SLOPES = (0.4, -0.2)


def _world(
    rng: np.random.Generator, n_subjects: int = 4, n_images: int = 30
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and two accuracies, of images that are easy or hard for all."""
    shape = (n_subjects, n_images)
    x = rng.normal(size=(2, *shape)) + rng.normal(size=(2, 1, n_images))
    effects = 0.8 * rng.normal(size=(1, n_images)) + 0.5 * rng.normal(
        size=(shape[0], 1)
    )
    y = np.tensordot(SLOPES, x, 1) + effects + 0.5 * rng.normal(size=shape)
    return y, x


def _dense(y: np.ndarray, x: np.ndarray, ratios: tuple[float, float]):
    """Return GLS slopes and -2 log restricted likelihood from the whole covariance."""
    n_subjects, n_images = y.shape
    ones = [np.ones((n, n)) for n in y.shape]
    same_image, same_subject = (
        np.kron(ones[0], np.eye(n_images)),
        np.kron(np.eye(n_subjects), ones[1]),
    )
    V = np.eye(y.size) + ratios[0] * same_image + ratios[1] * same_subject
    X = np.column_stack([np.ones(y.size), *x.reshape(len(x), -1)])
    inverse = linalg.inv(V)
    information = X.T @ inverse @ X
    slopes = linalg.solve(information, X.T @ inverse @ y.ravel())
    rest = y.ravel() - X @ slopes
    n_free = y.size - X.shape[1]
    likelihood = n_free * np.log(rest @ inverse @ rest)
    likelihood += np.linalg.slogdet(V)[1] + np.linalg.slogdet(information)[1]
    return slopes[1:], likelihood


@pytest.mark.parametrize("seed", range(4))
def test_slopes_and_variances_are_those_of_the_whole_covariance(seed: int) -> None:
    y, x = _world(stream(seed, "tests", "crossed"), 3, 12)
    ratios = variance_ratios(y, x)
    expected, best = _dense(y, x, ratios)
    found = crossed_slopes(y, x)
    np.testing.assert_allclose([one.value for one in found], expected, rtol=1e-9)
    for factors in ((0.8, 1), (1.25, 1), (1, 0.8), (1, 1.25)):
        near = (ratios[0] * factors[0], ratios[1] * factors[1])
        assert _dense(y, x, near)[1] >= best - 1e-7


def test_fixed_effects_are_dummy_variables() -> None:
    y, x = _world(stream(1, "tests", "crossed"), 3, 12)
    image, subject = np.tile(np.eye(12), (3, 1)), np.repeat(np.eye(3), 12, axis=0)
    X = np.column_stack([*x.reshape(2, -1), image, subject[:, 1:]])
    expected = np.linalg.lstsq(X, y.ravel(), rcond=None)[0][:2]
    found = [one.value for one in crossed_slopes(y, x, fixed=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_intervals_hold_the_true_slopes_as_often_as_they_say() -> None:
    """95 % of 150 worlds: .915 to .985 is within two standard errors."""
    rng = stream(2, "tests", "crossed")
    held = np.zeros(2)
    for _ in range(150):
        y, x = _world(rng, n_images=24)
        for k, one in enumerate(crossed_slopes(y, x)):
            held[k] += one.low < SLOPES[k] < one.high
    assert (np.abs(held / 150 - 0.95) < 0.036).all()


def test_without_an_effect_one_in_forty_is_shown_on_each_side() -> None:
    """Images that are hard for all make no slope; 200 draws, three standard errors."""
    rng = stream(3, "tests", "crossed")
    shown = 0
    for _ in range(200):
        y, x = _world(rng, n_images=24)
        y = y - np.tensordot(SLOPES, x, 1)
        shown += crossed_slopes(y, x)[0].low > 0
    assert shown / 200 < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 200)


def test_the_order_of_subjects_and_images_does_not_matter() -> None:
    rng = stream(4, "tests", "crossed")
    y, x = _world(rng)
    order = np.ix_(rng.permutation(4), rng.permutation(30))
    for one, other in zip(
        crossed_slopes(y, x),
        crossed_slopes(y[order], x[(slice(None), *order)]),
        strict=True,
    ):
        for name in ("value", "low", "high", "n_positive", "subjects_low"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6)


def test_one_subject_has_the_slopes_of_its_images() -> None:
    y, x = _world(stream(5, "tests", "crossed"), 1)
    found = crossed_slopes(y, x[:1])[0]
    assert found.value == pytest.approx(stats.linregress(x[0, 0], y[0]).slope)
    assert found.n_subjects == 1
    assert np.isnan(found.subjects_low)


def test_values_that_do_not_fit_are_refused() -> None:
    y, x = _world(stream(6, "tests", "crossed"))
    with pytest.raises(DataError, match="values"):
        crossed_slopes(y, x[:, :, :-1])
    y[0, 0] = np.nan
    with pytest.raises(DataError, match="values"):
        crossed_slopes(y, x)
