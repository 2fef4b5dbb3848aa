"""Stage 2: the critics' formulas, the presets' steps, and images that stay apart."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from minddiff_utils import alignment
from minddiff_utils.alignment import (
    AlignmentResult,
    AlignmentSettings,
    Latent,
    align,
    preset,
)
from minddiff_utils.backbone import Backbone, tiny_backbone
from minddiff_utils.config import load_profile
from minddiff_utils.critic import StructuralTarget, layer_weights, structural_loss
from minddiff_utils.diffusion import (
    DiffusionSettings,
    draw_noise,
    img2img,
    make_schedule,
    sample,
)
from minddiff_utils.errors import ConfigError, DataError, ModelError

DIFFUSION = DiffusionSettings(
    n_steps=3, encode_index=1, decode_steps=2, guidance_scale=2
)
LAYERS = (1, 2)
#: Adam on both variables, through the complete sampler.
PLAIN = AlignmentSettings(n_iter=3, lr_z=0.05, lr_c=0.05, critic="balanced")
#: Networks sum in another order for another batch size: float32 rounding.
FLOAT32 = 1e-4


def _generators(n: int, start: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(start + row) for row in range(n)]


def _problem(n: int = 2) -> tuple[Backbone, Latent, StructuralTarget]:
    """Return random latents, and targets read from images of other latents."""
    backbone = tiny_backbone()
    rng = torch.Generator().manual_seed(11)
    z = torch.randn((n, *backbone.latent_shape), generator=rng)
    c = torch.randn((n, backbone.n_tokens, backbone.text_dim), generator=rng)
    latent = Latent(z, c, draw_noise(backbone, _generators(n)))
    other = torch.randn((n, *backbone.latent_shape), generator=rng)
    with torch.no_grad():
        seen = backbone.decode_latents(other).clamp(-1, 1)
        features = backbone.clip_layers(seen, LAYERS)
    width = features[1].shape[1]
    selected = {k: torch.rand(width, generator=rng) < 0.25 for k in LAYERS}
    scale = {k: 0.5 + torch.rand(width, generator=rng) for k in LAYERS}
    return backbone, latent, StructuralTarget(features, selected, scale)


def _rows(latent: Latent, target: StructuralTarget, rows: Sequence[int]) -> Any:
    index = list(rows)
    features = {k: v[index] for k, v in target.features.items()}
    parts = (x[index] for x in (latent.z, latent.c, latent.noise))
    return Latent(*parts), replace(target, features=features)


def _stage1(backbone: Backbone, latent: Latent) -> Tensor:
    schedule = make_schedule(backbone, DIFFUSION)
    return sample(backbone, latent.z, latent.c, latent.noise, schedule)


# --- critics ------------------------------------------------------------------------

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


def _hand_loss(critic: Any) -> npt.NDArray[np.float32]:
    target = _hand_target()
    weights = layer_weights(target, critic)
    return structural_loss(_torch(SEEN_HAND), target, weights).numpy()


def test_paper_critic_is_the_sum_of_squared_errors_of_selected_features() -> None:
    # image 0: 1² + 0.5² and 2² + 0²; image 1: 0² + 3² and 0.5² + 1²
    np.testing.assert_allclose(_hand_loss("paper"), [5.25, 10.25], rtol=1e-6)


def test_released_critic_equals_the_published_formula() -> None:
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


def test_released_critic_weighs_six_layers_as_published() -> None:
    n = 6
    one = {k: torch.ones(1, 4) for k in range(1, n + 1)}
    mask = {k: torch.ones(4, dtype=torch.bool) for k in one}
    scale = {k: torch.ones(4) for k in one}
    weights = layer_weights(StructuralTarget(one, mask, scale), "released")
    # equal norms: each 1/6 of the layer's extra weight, over 4 features
    found = [float(weights[k]) * n * 4 for k in one]
    np.testing.assert_allclose(found, [1.5, 1.2, 1, 1, 1, 1], rtol=1e-6)


def test_balanced_critic_weighs_by_the_training_variance() -> None:
    # layer 1: variance 1 + 4; layer 2: 0.25 + 0.25; two layers
    expected = [(1.25 / 5 + 4 / 0.5) / 2, (9 / 5 + 1.25 / 0.5) / 2]
    np.testing.assert_allclose(_hand_loss("balanced"), expected, rtol=1e-6)


def test_guessing_the_mean_costs_about_one_under_the_balanced_critic() -> None:
    rng = torch.Generator().manual_seed(3)
    scale = {k: 0.1 + torch.rand(50, generator=rng) for k in (1, 2)}
    features = {k: torch.randn((4000, 50), generator=rng) * scale[k] for k in (1, 2)}
    mask = {k: torch.rand(50, generator=rng) < 0.5 for k in (1, 2)}
    target = StructuralTarget(features, mask, scale)
    mean = {k: torch.zeros_like(v) for k, v in features.items()}
    loss = structural_loss(mean, target, layer_weights(target, "balanced"))
    # standard error of the mean of 4000 losses is below 0.01
    assert float(loss.mean()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("critic", ["paper", "released", "balanced"])
def test_unselected_features_change_neither_loss_nor_gradient(critic: Any) -> None:
    target = _hand_target()
    changed = {k: v.clone() for k, v in target.features.items()}
    seen = {k: v.requires_grad_() for k, v in _torch(SEEN_HAND).items()}
    for k in changed:
        changed[k][:, ~target.selected[k]] = torch.nan
    spoiled = replace(target, features=changed)
    first = structural_loss(seen, target, layer_weights(target, critic))
    second = structural_loss(seen, spoiled, layer_weights(spoiled, critic))
    assert torch.equal(first, second)
    second.sum().backward()
    for k, image in seen.items():
        zero = image.grad == 0
        assert bool(zero[:, ~target.selected[k]].all())
        assert bool(image.grad.isfinite().all())


# --- stage 1 is where it starts -----------------------------------------------------


@pytest.mark.parametrize("n_steps", [None, 1])
@pytest.mark.parametrize("noise", ["fixed", "fresh"])
def test_zero_iterations_are_stage_1_to_the_byte(noise: Any, n_steps: int) -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, n_iter=0, noise=noise, n_steps=n_steps)
    generators = _generators(2)
    found = align(backbone, latent, target, DIFFUSION, settings, generators=generators)
    assert torch.equal(found.images, _stage1(backbone, latent))
    assert found.candidates == found.trajectory_iterations == (0,)
    assert found.losses.shape == (2, 1)
    assert found.best_iteration.tolist() == [0, 0]
    assert torch.equal(found.z, latent.z)
    assert torch.equal(found.c, latent.c)


def test_the_inputs_are_left_as_they_were() -> None:
    backbone, latent, target = _problem()
    before = [x.clone() for x in (latent.z, latent.c, latent.noise)]
    align(backbone, latent, target, DIFFUSION, PLAIN)
    for old, new in zip(before, (latent.z, latent.c, latent.noise), strict=True):
        assert torch.equal(old, new)
        assert not new.requires_grad


# --- presets ------------------------------------------------------------------------


def _preset(name: str, n_iter: int = 2) -> AlignmentSettings:
    config = load_profile("smoke").stage2
    return preset(config.model_copy(update={"preset": name, "n_iter": n_iter}))


def test_presets_are_what_their_sources_say() -> None:
    paper, released, fast = map(_preset, ("paper", "released", "fast"))
    config = load_profile("smoke").stage2
    assert (paper.optimiser, paper.lr_z, paper.lr_c) == ("gradient", 0.01, 0.01)
    assert (paper.critic, paper.noise, paper.n_steps) == ("paper", "fixed", None)
    assert (paper.lr_decay, paper.anchor_c) == (1.0, 0.0)
    assert (released.optimiser, released.lr_z, released.lr_c) == ("adam", 0.01, 0.0)
    assert (released.critic, released.noise) == ("released", "fresh")
    assert (released.lr_decay, released.n_steps) == (0.999, None)
    assert (fast.optimiser, fast.lr_z, fast.lr_c) == ("adam", config.lr_z, config.lr_c)
    assert (fast.critic, fast.noise, fast.anchor_c) == ("balanced", "fixed", 3.0)
    assert (fast.n_steps, fast.guidance_scale) == (config.n_steps_fast, 1.0)


def _loss(
    backbone: Backbone, target: StructuralTarget, critic: Any, *parts: Tensor
) -> Tensor:
    schedule = make_schedule(backbone, DIFFUSION)
    images = backbone.decode_latents(img2img(backbone, *parts, schedule))
    weights = layer_weights(target, critic)
    return structural_loss(backbone.clip_layers(images, LAYERS), target, weights)


def test_paper_takes_plain_gradient_steps_on_z_and_c() -> None:
    backbone, latent, target = _problem()
    settings = replace(_preset("paper"), n_candidates=1)
    found = align(backbone, latent, target, DIFFUSION, settings)
    z, c = latent.z.clone(), latent.c.clone()
    for _ in range(2):
        z, c = z.requires_grad_(), c.requires_grad_()
        loss = _loss(backbone, target, "paper", z, c, latent.noise).sum()
        step_z, step_c = torch.autograd.grad(loss, (z, c))
        z, c = (z - 0.01 * step_z).detach(), (c - 0.01 * step_c).detach()
    assert found.best_iteration.tolist() == [2, 2]
    # repeated float32 sums in the same order
    torch.testing.assert_close(found.z, z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.c, c, rtol=1e-6, atol=1e-6)


def test_released_takes_decayed_adam_steps_on_z_under_fresh_noise() -> None:
    backbone, latent, target = _problem()
    generators = _generators(2)
    noises = [draw_noise(backbone, generators) for _ in range(3)]
    assert torch.equal(noises[0], latent.noise)
    settings = replace(_preset("released", 3), n_candidates=1)
    generators = _generators(2)
    assert torch.equal(draw_noise(backbone, generators), latent.noise)
    found = align(backbone, latent, target, DIFFUSION, settings, generators=generators)
    # Adam (Kingma and Ba 2015, algorithm 1) written out; the rate decays before a step
    z, mean, square = latent.z.clone(), 0.0, 0.0
    for step in range(1, 4):
        z = z.requires_grad_()
        noise = noises[step - 1]
        loss = _loss(backbone, target, "released", z, latent.c, noise).sum()
        (slope,) = torch.autograd.grad(loss, z)
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        unbiased = (mean / (1 - 0.9**step), square / (1 - 0.999**step))
        rate = 0.01 * 0.999**step
        z = (z - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)).detach()
    assert found.best_iteration.tolist() == [3, 3]
    # gradients near Adam's 1e-8 magnify rounding, by far less than the step of 0.01
    torch.testing.assert_close(found.z, z, rtol=0, atol=1e-4)
    assert torch.equal(found.c, latent.c)


# --- what moves ---------------------------------------------------------------------


@pytest.mark.parametrize("still", ["z", "c"])
def test_a_step_size_of_0_leaves_its_variable_untouched(still: str) -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, **{f"lr_{still}": 0.0}, n_candidates=1)
    found = align(backbone, latent, target, DIFFUSION, settings)
    assert (found.best_iteration == 3).all()
    moving = "c" if still == "z" else "z"
    assert torch.equal(getattr(found, still), getattr(latent, still))
    assert not torch.equal(getattr(found, moving), getattr(latent, moving))


def test_two_step_sizes_of_0_give_stage_1() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, lr_z=0.0, lr_c=0.0)
    found = align(backbone, latent, target, DIFFUSION, settings)
    assert torch.equal(found.images, _stage1(backbone, latent))
    assert np.ptp(found.losses, axis=1).max() == 0
    assert found.best_iteration.tolist() == [0, 0]  # ties go to the earlier one


@pytest.mark.parametrize("optimiser", ["gradient", "adam"])
def test_the_loss_falls_where_the_target_can_be_reached(optimiser: Any) -> None:
    backbone, latent, target = _problem()
    schedule = make_schedule(backbone, DIFFUSION)
    rng = torch.Generator().manual_seed(4)
    goal = latent.z + 0.3 * torch.randn(latent.z.shape, generator=rng)
    with torch.no_grad():
        found = img2img(backbone, goal, latent.c, latent.noise, schedule)
        features = backbone.clip_layers(backbone.decode_latents(found), LAYERS)
    reachable = replace(target, features=features)
    rate = 100.0 if optimiser == "gradient" else 0.05
    settings = replace(PLAIN, n_iter=15, lr_z=rate, lr_c=0.0, optimiser=optimiser)
    losses = align(backbone, latent, reachable, DIFFUSION, settings).losses
    assert (losses[:, -1] < 0.5 * losses[:, 0]).all()


def test_the_anchor_holds_c_and_only_c() -> None:
    backbone, latent, target = _problem()
    free, held = (
        align(backbone, latent, target, DIFFUSION, replace(PLAIN, n_iter=5, anchor_c=a))
        for a in (0.0, 100.0)
    )
    shift = [(found.c - latent.c).square().mean().sqrt() for found in (free, held)]
    assert shift[1] < 0.5 * shift[0]
    assert (held.losses[:, 0] == free.losses[:, 0]).all()  # the penalty is not reported


def test_the_anchor_is_the_displacement_relative_to_the_size_of_c() -> None:
    start = torch.full((2, 3, 4), 2.0)
    start[1] = 0.5
    moved = start + 1.0
    found = alignment._anchor(moved, start)
    torch.testing.assert_close(found, torch.tensor([0.25, 4.0]))  # 1² / 2², 1² / 0.5²


def test_the_surrogate_optimises_and_the_complete_sampler_decodes() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, n_steps=1, guidance_scale=1.0, n_candidates=2)
    found = align(backbone, latent, target, DIFFUSION, settings)
    final = _stage1(backbone, replace(latent, z=found.z, c=found.c))
    torch.testing.assert_close(found.images, final, rtol=0, atol=FLOAT32)
    # 4 surrogate images of 1 unguided step, 3 candidates of 2 guided ones
    assert found.n_unet_evaluations.tolist() == [4 * 1 + 3 * 2 * 2] * 2
    assert found.n_unet_gradients.tolist() == [3 * 1] * 2  # the last look takes none
    complete = align(
        *(backbone, latent, target, DIFFUSION),
        replace(settings, n_steps=None, guidance_scale=None),
    )
    assert complete.n_unet_evaluations.tolist() == [(4 + 3) * 2 * 2] * 2
    assert not np.allclose(found.losses[:, 0], complete.losses[:, 0])


def test_checkpointing_moves_nothing() -> None:
    backbone, latent, target = _problem()
    found = [
        align(backbone, latent, target, DIFFUSION, replace(PLAIN, memory=memory)).losses
        for memory in ("store", "checkpoint")
    ]
    np.testing.assert_allclose(*found, rtol=1e-4)  # float32 over three steps


# --- noise --------------------------------------------------------------------------


def test_fixed_noise_gives_the_same_numbers_twice() -> None:
    backbone, latent, target = _problem()
    first, second = (
        align(backbone, latent, target, DIFFUSION, PLAIN) for _ in range(2)
    )
    np.testing.assert_array_equal(first.losses, second.losses)
    assert torch.equal(first.images, second.images)


def test_fresh_noise_varies_the_loss_but_not_the_candidates() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, lr_z=0.0, lr_c=0.0, noise="fresh")
    found = [
        align(
            backbone, latent, target, DIFFUSION, settings, generators=_generators(2, s)
        )
        for s in (0, 0, 50)
    ]
    np.testing.assert_array_equal(found[0].losses, found[1].losses)
    np.testing.assert_array_equal(found[0].losses[:, 0], found[2].losses[:, 0])
    assert (np.abs(found[0].losses[:, 1:] - found[2].losses[:, 1:]) > 1e-6).all()
    assert (np.ptp(found[0].losses, axis=1) > 1e-6).all()
    # nothing moves, and candidates keep the noise of stage 1
    assert np.ptp(found[0].candidate_losses, axis=1).max() == 0


def test_fresh_noise_needs_a_generator_per_image() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, noise="fresh")
    with pytest.raises(DataError, match="1 were given for 2"):
        align(backbone, latent, target, DIFFUSION, settings, generators=_generators(1))


# --- images stay apart --------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "released", "fast"])
def test_images_of_a_batch_do_not_influence_each_other(name: str) -> None:
    backbone, latent, target = _problem(3)
    settings = replace(_preset(name, 3), n_candidates=1)
    generators = _generators(3, 7)
    whole = align(backbone, latent, target, DIFFUSION, settings, generators=generators)
    for row in range(3):
        one, own = _rows(latent, target, [row])
        alone = align(
            *(backbone, one, own, DIFFUSION, settings),
            generators=_generators(1, 7 + row),
        )
        # Adam magnifies rounding where gradients are near 0, hence 1e-3
        np.testing.assert_allclose(alone.losses[0], whole.losses[row], rtol=1e-3)
        np.testing.assert_allclose(
            alone.images[0], whole.images[row], atol=10 * FLOAT32
        )


def test_a_diverging_image_leaves_its_neighbour_alone() -> None:
    backbone, latent, target = _problem(2)
    scaled = {k: v.clone() for k, v in target.features.items()}
    for features in scaled.values():
        features[0] = 1e18  # squared error and gradient beyond float32's reach
    spoiled = replace(target, features=scaled)
    settings = replace(
        PLAIN, critic="paper", optimiser="gradient", lr_z=0.01, lr_c=0.01
    )
    found = align(backbone, latent, spoiled, DIFFUSION, settings)
    clean = align(backbone, latent, target, DIFFUSION, settings)
    assert np.isnan(found.losses[0, -1])
    assert found.best_iteration[0] == 0
    assert torch.equal(found.images[0], _stage1(backbone, latent)[0])
    np.testing.assert_allclose(found.losses[1], clean.losses[1], rtol=1e-6)
    assert bool(found.trajectory.isfinite().all())  # gray, not NaN


# --- choice and bookkeeping ---------------------------------------------------------


def _best(*losses: Sequence[float]) -> alignment._Best:
    images = [
        torch.full((len(losses[0]), 3, 1, 1), float(k)) for k in range(len(losses))
    ]
    latents = [Latent(x.clone(), x.clone(), x) for x in images]
    best = alignment._Best(images[0], torch.tensor(losses[0]), latents[0])
    for k in range(1, len(losses)):
        best.consider(10 * k, images[k], torch.tensor(losses[k]), latents[k])
    return best


def test_the_lowest_loss_wins_and_the_earlier_one_on_a_tie() -> None:
    best = _best([3.0, 1.0, 2.0], [2.0, 1.0, 3.0], [2.0, 0.5, 2.0])
    assert best.iteration.tolist() == [10, 20, 0]
    assert best.images[:, 0, 0, 0].tolist() == [1.0, 2.0, 0.0]
    assert torch.equal(best.z, best.images)
    assert torch.equal(best.c, best.images)


def test_a_candidate_without_a_number_never_wins() -> None:
    nan = float("nan")
    best = _best([1.0, nan, nan], [nan, 5.0, nan], [2.0, nan, nan])
    assert best.iteration.tolist() == [0, 10, 0]


def _check_best(found: AlignmentResult) -> None:
    column = found.candidate_losses.argmin(axis=1)
    assert found.best_iteration.tolist() == [found.candidates[k] for k in column]


def test_candidates_and_trajectory_are_kept_as_documented() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, n_iter=6, n_candidates=3, n_trajectory=4)
    found = align(backbone, latent, target, DIFFUSION, settings)
    assert found.candidates == found.trajectory_iterations == (0, 2, 4, 6)
    assert found.losses.shape == (2, 7)
    assert found.candidate_losses.shape == (2, 4)
    assert found.trajectory.shape == (2, 4, 3, 64, 64)
    _check_best(found)
    with torch.no_grad():
        seen = backbone.clip_layers(found.images, LAYERS)
        loss = structural_loss(seen, target, layer_weights(target, "balanced")).numpy()
    # the saved image has the loss that chose it
    np.testing.assert_allclose(loss, found.candidate_losses.min(axis=1), rtol=1e-5)
    # without a surrogate, the first frame is stage 1
    torch.testing.assert_close(found.trajectory[:, 0], _stage1(backbone, latent))


def test_fewer_iterations_than_candidates_are_all_candidates() -> None:
    backbone, latent, target = _problem()
    found = align(backbone, latent, target, DIFFUSION, replace(PLAIN, n_iter=1))
    assert found.candidates == found.trajectory_iterations == (0, 1)
    _check_best(found)


# --- refusals -----------------------------------------------------------------------


class _NoGradient:
    """A backbone whose decoder runs without gradients, as the released sampler does."""

    def __init__(self, inner: Backbone) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @torch.no_grad()
    def decode_latents(self, z: Tensor) -> Tensor:
        return self.inner.decode_latents(z)


@pytest.mark.parametrize("name", ["paper", "released", "fast"])
def test_a_model_without_gradients_is_an_error(name: str) -> None:
    backbone, latent, target = _problem()
    blind = _NoGradient(backbone)
    with pytest.raises(ModelError, match="no gradient for z"):
        align(
            *(blind, latent, target, DIFFUSION, _preset(name)),
            generators=_generators(2),
        )


def test_moving_c_where_guidance_does_not_read_it_is_refused() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, n_steps=2, guidance_scale=0.0)
    with pytest.raises(ConfigError, match="does not read c"):
        align(backbone, latent, target, DIFFUSION, settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_iter": -1},
        {"n_candidates": 0},
        {"n_trajectory": 0},
        {"lr_z": -0.1},
        {"lr_c": float("nan")},
        {"anchor_c": -1.0},
        {"lr_decay": 0.0},
        {"optimiser": "sgd"},
        {"critic": "mse"},
        {"noise": "none"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        replace(PLAIN, **wrong)


def test_targets_of_other_images_are_refused() -> None:
    backbone, latent, target = _problem()
    _, one = _rows(latent, target, [0])
    with pytest.raises(DataError, match="2 latents but targets of 1"):
        align(backbone, latent, one, DIFFUSION, PLAIN)


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
