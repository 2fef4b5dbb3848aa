"""The structural loss: its three forms by hand, and what they refuse."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from minddiff_utils.core.errors import DataError
from minddiff_utils.generation.structural_loss import (
    Likelihood,
    StructuralLoss,
    StructuralTarget,
    layer_weights,
    structural_loss,
)

#: Two images, two layers of three features, by hand.
Z_HAND = {
    1: np.array([[1.0, 2.0, 2.0], [0.0, 3.0, 4.0]], np.float32),
    2: np.array([[4.0, 0.0, 3.0], [1.0, 1.0, 1.0]], np.float32),
}
MASK_HAND = {1: np.array([False, True, True]), 2: np.array([True, False, True])}
SCALE_HAND = {
    1: np.array([9.0, 1.0, 2.0], np.float32),
    2: np.array([0.5, 9.0, 0.5], np.float32),
}
SEEN_HAND = {
    1: np.array([[7.0, 3.0, 2.5], [7.0, 3.0, 1.0]], np.float32),
    2: np.array([[2.0, 7.0, 3.0], [1.5, 7.0, 0.0]], np.float32),
}


def _torch(arrays: dict[int, npt.NDArray[Any]]) -> dict[int, Tensor]:
    return {k: torch.from_numpy(v) for k, v in arrays.items()}


def _hand_target() -> StructuralTarget:
    return StructuralTarget(_torch(Z_HAND), _torch(MASK_HAND), _torch(SCALE_HAND))


def _hand_loss(kind: Any) -> npt.NDArray[np.float32]:
    target = _hand_target()
    weights = layer_weights(target, kind)
    return structural_loss(_torch(SEEN_HAND), target, weights).numpy()


def test_paper_loss_is_the_sum_of_squared_errors_of_selected_features() -> None:
    # image 0: 1² + 0.5² and 2² + 0²; image 1: 0² + 3² and 0.5² + 1²
    np.testing.assert_allclose(_hand_loss("paper"), [5.25, 10.25], rtol=1e-6)


def test_released_loss_equals_the_published_formula() -> None:
    expected = []
    for row in range(2):
        norms = np.array(
            [np.linalg.norm(Z_HAND[k][row] * MASK_HAND[k]) for k in (1, 2)]
        )
        weights = (1 / norms) / (1 / norms).sum() * np.array([1.5, 1.2])
        # nn.MSELoss over all entries, masked ones included
        errors = [
            np.mean(((SEEN_HAND[k][row] - Z_HAND[k][row]) * MASK_HAND[k]) ** 2)
            for k in (1, 2)
        ]
        expected.append((weights * errors).sum())
    np.testing.assert_allclose(_hand_loss("released"), expected, rtol=1e-6)  # float32


def test_released_loss_weighs_six_layers_as_published() -> None:
    n = 6
    one = {k: torch.ones(1, 4) for k in range(1, n + 1)}
    mask = {k: torch.ones(4, dtype=torch.bool) for k in one}
    scale = {k: torch.ones(4) for k in one}
    weights = layer_weights(StructuralTarget(one, mask, scale), "released")
    # equal norms: each 1/6 of the layer's extra weight, over 4 features
    found = [float(weights[k]) * n * 4 for k in one]
    np.testing.assert_allclose(found, [1.5, 1.2, 1, 1, 1, 1], rtol=1e-6)


def test_balanced_loss_weighs_by_the_training_variance() -> None:
    # layer 1: variance 1 + 4; layer 2: 0.25 + 0.25; two layers
    expected = [(1.25 / 5 + 4 / 0.5) / 2, (9 / 5 + 1.25 / 0.5) / 2]
    np.testing.assert_allclose(_hand_loss("balanced"), expected, rtol=1e-6)


def test_guessing_the_mean_costs_about_one_under_the_balanced_loss() -> None:
    rng = torch.Generator().manual_seed(3)
    scale = {k: 0.1 + torch.rand(50, generator=rng) for k in (1, 2)}
    features = {k: torch.randn((4000, 50), generator=rng) * scale[k] for k in (1, 2)}
    mask = {k: torch.rand(50, generator=rng) < 0.5 for k in (1, 2)}
    target = StructuralTarget(features, mask, scale)
    mean = {k: torch.zeros_like(v) for k, v in features.items()}
    loss = structural_loss(mean, target, layer_weights(target, "balanced"))
    # standard error of the mean of 4000 losses is below 0.01
    assert float(loss.mean()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("kind", ["paper", "released", "balanced"])
def test_unselected_features_change_neither_loss_nor_gradient(kind: Any) -> None:
    target = _hand_target()
    changed = {k: v.clone() for k, v in target.features.items()}
    seen = {k: v.requires_grad_() for k, v in _torch(SEEN_HAND).items()}
    for k in changed:
        changed[k][:, ~target.selected[k]] = torch.nan
    spoiled = replace(target, features=changed)
    first = structural_loss(seen, target, layer_weights(target, kind))
    second = structural_loss(seen, spoiled, layer_weights(spoiled, kind))
    assert torch.equal(first, second)
    second.sum().backward()
    for k, image in seen.items():
        zero = image.grad == 0
        assert bool(zero[:, ~target.selected[k]].all())
        assert bool(image.grad.isfinite().all())


# --- some of the images ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["paper", "released", "balanced"])
def test_rows_keep_each_image_s_target_and_loss(kind: Any) -> None:
    target, order = _hand_target(), torch.tensor([1, 0, 1])
    some = target.rows(order)
    assert (target.n_images, some.n_images) == (2, 3)
    for k in target.layers:
        assert torch.equal(some.features[k], target.features[k][order])
        assert torch.equal(some.selected[k], target.selected[k])
        assert torch.equal(some.scale[k], target.scale[k])
    seen = _torch(SEEN_HAND)
    loss = structural_loss(seen, target, layer_weights(target, kind))
    seen = {k: v[order] for k, v in seen.items()}
    found = structural_loss(seen, some, layer_weights(some, kind))
    assert torch.equal(found, loss[order])


# --- refusals -------------------------------------------------------------------------


def _wrong(name: str, layer: int, value: Tensor) -> dict[str, dict[int, Tensor]]:
    target = _hand_target()
    return {name: {**getattr(target, name), layer: value}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"selected": _torch({1: MASK_HAND[1]})}, "the same layers"),
        (_wrong("selected", 1, torch.zeros(3, dtype=torch.bool)), "raise k_percent"),
        (_wrong("selected", 1, torch.ones(3)), "must be bool"),
        (_wrong("selected", 2, torch.ones(4, dtype=torch.bool)), "selected of layer 2"),
        (_wrong("scale", 2, torch.ones(1)), "scale of layer 2"),
        (_wrong("features", 2, torch.ones(1, 3)), "Z of layer 2"),
        (_wrong("features", 2, torch.full((2, 3), torch.nan)), "NaN"),
    ],
)
def test_inconsistent_targets_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        replace(_hand_target(), **change)


def test_balanced_needs_features_that_vary_in_training() -> None:
    target = replace(_hand_target(), scale=_torch({k: np.zeros(3) for k in (1, 2)}))
    with pytest.raises(DataError, match="no scale"):
        layer_weights(target, "balanced")


# --- losses that a shrunk target does not mislead -------------------------------------

MEAN_HAND = {
    1: np.array([5.0, 1.0, 1.0], np.float32),
    2: np.array([0.0, 5.0, 1.0], np.float32),
}


def _with_mean() -> StructuralTarget:
    return replace(_hand_target(), mean=_torch(MEAN_HAND))


def test_cosine_is_that_of_standardised_deviations_of_selected_features() -> None:
    found = StructuralLoss.of(_with_mean(), "cosine")(_torch(SEEN_HAND))
    expected = []
    for row in range(2):
        distances = []
        for k in (1, 2):
            keep = MASK_HAND[k]
            seen, decoded = (
                ((side[k][row] - MEAN_HAND[k]) / SCALE_HAND[k])[keep].astype(float)
                for side in (SEEN_HAND, Z_HAND)
            )
            cos = seen @ decoded / np.linalg.norm(seen) / np.linalg.norm(decoded)
            distances.append(1 - cos)
        expected.append(np.mean(distances))
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32


def test_shrinking_what_was_decoded_leaves_the_cosine_and_misleads_the_others() -> None:
    rng = torch.Generator().manual_seed(3)
    truth = {1: torch.randn((6, 40), generator=rng)}
    ones = {1: torch.ones(40)}
    whole = StructuralTarget(truth, {1: ones[1] > 0}, ones, mean={1: 0 * ones[1]})
    shrunk = replace(whole, features={1: 0.4 * truth[1]})
    dull = {1: 0.4 * truth[1]}
    # of a target that is shrunk, a dull image is nearer than the truth itself ...
    squared = StructuralLoss.of(shrunk, "balanced")
    assert (squared(dull) < squared(truth)).all()
    # ... but not by the cosine
    cosine = StructuralLoss.of(shrunk, "cosine")
    torch.testing.assert_close(cosine(truth), torch.zeros(6), rtol=0, atol=1e-6)
    other = {1: truth[1].roll(1, 0)}
    assert (cosine(other) > 0.3).all()


def test_likelihood_is_the_mean_squared_error_in_the_axes_of_the_noise() -> None:
    rng = np.random.default_rng(4)
    known, expected = {}, np.zeros(2)
    for k in (1, 2):
        A, b, d = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=(2, 5))
        known[k] = Likelihood(*(torch.from_numpy(v).float() for v in (A, b, d)))
        error = SEEN_HAND[k].astype(float) @ A.T + b - d
        expected += np.square(error).mean(axis=1) / 2
    target = replace(_hand_target(), likelihood=known)
    loss = StructuralLoss.of(target, "likelihood")
    np.testing.assert_allclose(loss(_torch(SEEN_HAND)), expected, rtol=1e-5)  # float32
    # rows keep what was decoded of their image
    order = [1, 0, 1]
    seen = {k: v[order] for k, v in _torch(SEEN_HAND).items()}
    np.testing.assert_allclose(loss.rows(order)(seen), expected[order], rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "words"), [("cosine", "loss cosine"), ("likelihood", "loss likelihood")]
)
def test_a_loss_without_what_it_reads_says_what_to_do(kind: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        StructuralLoss.of(_hand_target(), kind)
    assert str(caught.value).endswith("run notebook 02 again.")


@pytest.mark.parametrize("name", ["mean", "likelihood"])
def test_what_is_known_is_known_of_all_layers(name: str) -> None:
    part = {1: torch.zeros(3)}
    if name == "likelihood":
        part: Any = {
            1: Likelihood(torch.zeros(1, 3), torch.zeros(1), torch.zeros(2, 1))
        }
    with pytest.raises(DataError, match=rf"{name} names the layers \[1\]"):
        replace(_hand_target(), **{name: part})
