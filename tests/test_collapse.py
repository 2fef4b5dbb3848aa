"""Effective ranks against closed forms; no category is on both sides of a hold-out."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.decoding import (
    category_holdout,
    collapse,
    effective_rank,
    rank_ratio,
    variance_explained,
    variance_spectrum,
)

Array = npt.NDArray[Any]
MEASURES: tuple[Any, ...] = ("participation", "entropy")


def features(
    spectrum: Array, n_images: int, n_targets: int, rng: np.random.Generator
) -> Array:
    """Return features whose covariance has exactly this spectrum, plus a mean."""
    k = len(spectrum)
    A = rng.standard_normal((n_images, k))
    U = np.linalg.qr(A - A.mean(axis=0))[0]  # orthonormal and orthogonal to ones
    V = np.linalg.qr(rng.standard_normal((n_targets, k)))[0]
    Y = U * np.sqrt(np.asarray(spectrum) * (n_images - 1)) @ V.T
    return np.asarray(Y + rng.standard_normal(n_targets))


SHAPES = [(40, 15), (15, 40)]


@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("k", [1, 4, 10])
def test_k_equal_directions_have_rank_k(
    n: int, p: int, measure: Any, k: int, rng: np.random.Generator
) -> None:
    Y = features(np.full(k, 3.0), n, p, rng)
    # rounding of 1e-16 in each of up to 40 eigenvalues; p log p of it is below 1e-12
    assert effective_rank(Y, measure) == pytest.approx(k, rel=1e-10)


def test_unequal_directions_follow_the_formulas(rng: np.random.Generator) -> None:
    Y = features(np.array([2.0, 1.0, 1.0]), 30, 8, rng)
    assert effective_rank(Y, "participation") == pytest.approx(16 / 6)
    entropy = 0.5 * np.log(2) + 2 * 0.25 * np.log(4)
    assert effective_rank(Y, "entropy") == pytest.approx(np.exp(entropy))


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_spectrum_is_that_of_the_covariance(
    n: int, p: int, rng: np.random.Generator
) -> None:
    Y = rng.standard_normal((n, p)) * rng.random(p) + 7
    expected = np.sort(np.linalg.eigvalsh(np.cov(Y.T)))[::-1][: min(n, p)]
    np.testing.assert_allclose(variance_spectrum(Y), expected, rtol=0, atol=1e-12)


def test_blocks_of_targets_change_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    Y = rng.standard_normal((10, 33))
    whole = variance_spectrum(Y)
    monkeypatch.setattr(collapse, "_BLOCK", 7)
    np.testing.assert_allclose(variance_spectrum(Y), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_rank_ignores_mean_scale_and_rotation(
    measure: Any, rng: np.random.Generator
) -> None:
    Y = features(np.array([5.0, 2.0, 0.5]), 20, 6, rng)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert effective_rank(-3 * Y @ rotation + 1, measure) == pytest.approx(
        effective_rank(Y, measure)
    )


def test_entropy_rank_is_not_below_participation(rng: np.random.Generator) -> None:
    for _ in range(20):
        Y = features(rng.random(6) ** 3, 12, 9, rng)
        assert effective_rank(Y, "entropy") >= effective_rank(Y) - 1e-9


@pytest.mark.parametrize("measure", MEASURES)
def test_ratio_tells_a_collapse(measure: Any, rng: np.random.Generator) -> None:
    truth = features(np.ones(8), 50, 20, rng)
    leading = np.linalg.svd(truth - truth.mean(axis=0))[2][:2]
    collapsed = (truth - truth.mean(axis=0)) @ leading.T @ leading
    assert rank_ratio(truth, collapsed, measure) == pytest.approx(2 / 8)
    assert rank_ratio(truth, 0.1 * truth, measure) == pytest.approx(1)


def test_ratio_needs_the_same_images(rng: np.random.Generator) -> None:
    Y = rng.standard_normal((9, 4))
    with pytest.raises(DataError, match="Y_hat has shape"):
        rank_ratio(Y, Y[1:])


def test_variance_explained_is_cumulative(rng: np.random.Generator) -> None:
    Y = features(np.array([1.0, 6.0, 3.0]), 30, 8, rng)
    np.testing.assert_allclose(variance_explained(Y, 4), [0.6, 0.9, 1.0, 1.0])
    with pytest.raises(ConfigError, match="n_directions is 9, but must be from 1 to 8"):
        variance_explained(Y, 9)


@pytest.mark.parametrize(
    ("Y", "message"),
    [
        (np.ones((1, 3)), "needs 2 images"),
        (np.ones((3, 0)), "needs 2 images"),
        (np.full((5, 3), 0.1), "nothing to rank"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "Y holds NaN"),
        (np.ones(3), "Y has shape"),
    ],
)
def test_features_without_a_spectrum_are_refused(Y: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        effective_rank(Y)


def test_an_unknown_measure_is_refused(rng: np.random.Generator) -> None:
    measure: Any = "numerical"
    with pytest.raises(ConfigError, match="must be one of: participation, entropy"):
        effective_rank(rng.standard_normal((4, 2)), measure)


# --- categories ---------------------------------------------------------------------


def test_mixed_and_unlabelled_images_are_in_neither_part() -> None:
    labels = [{"dog"}, {"cat"}, {"dog", "cat"}, set(), {"cow", "dog"}, {"cat", "owl"}]
    train, held_out = category_holdout(labels, {"dog", "cow"})
    np.testing.assert_array_equal(train, [1, 5])
    np.testing.assert_array_equal(held_out, [0, 4])


@given(
    st.lists(st.frozensets(st.integers(0, 6), max_size=3), min_size=1, max_size=30),
    st.frozensets(st.integers(0, 6), min_size=1, max_size=5),
)
def test_no_held_out_image_shares_a_category_with_training(
    labels: list[frozenset[int]], wanted: frozenset[int]
) -> None:
    try:
        train, held_out = category_holdout(labels, wanted)
    except (ConfigError, DataError):
        shown = frozenset().union(*labels)
        one_side = not any(one and one <= wanted for one in labels) or not any(
            one and not one & wanted for one in labels
        )
        assert one_side or not wanted <= shown
        return
    seen = frozenset().union(*(labels[i] for i in train))
    tested = frozenset().union(*(labels[i] for i in held_out))
    assert not seen & tested
    assert seen
    assert tested <= wanted


@pytest.mark.parametrize(
    ("labels", "wanted", "error", "message"),
    [
        ([{"cat"}], {"dog"}, ConfigError, "no image shows: dog"),
        ([{"cat"}], set(), ConfigError, "no image shows: none"),
        ([{"cat"}, {"dog"}], "cat", ConfigError, "holds the text 'cat'"),
        (["cat", "dog"], {"cat"}, ConfigError, "labels holds the text 'cat'"),
        ([{"cat"}], {"cat"}, DataError, "no training image"),
        ([{"cat", "dog"}, {"dog"}], {"cat"}, DataError, "no held-out image"),
        ([], {"cat"}, ConfigError, "no image shows: cat"),
    ],
)
def test_impossible_holdouts_are_one_sentence(
    labels: Any, wanted: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        category_holdout(labels, wanted)
