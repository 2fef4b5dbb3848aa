"""Guided sampling: one pull by hand, images that stay apart, and stage 1 without it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minddiff_utils.core.errors import ConfigError, DataError, ModelError
from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.generation import guided_sampling, sampler
from minddiff_utils.generation.alignment import Latent
from minddiff_utils.generation.guided_sampling import guide
from minddiff_utils.generation.presets import GuidanceSettings, engine_settings
from minddiff_utils.generation.sampler import (
    clean_and_noise,
    draw_noise,
    img2img,
    make_schedule,
    sample,
)
from minddiff_utils.generation.structural_loss import (
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.models import Backbone, tiny_backbone

#: Four guided steps.
DIFFUSION = Stage1Config(n_steps=6, encode_index=3, decode_steps=4, guidance_scale=2)
LAYERS = (1, 2)
BOTH = GuidanceSettings(strength=0.2)
HALF = GuidanceSettings(gradient="conditional", strength=0.2)
#: Rounding over four steps.
FLOAT32 = 1e-4


def _problem(
    n: int = 2, dtype: torch.dtype = torch.float32
) -> tuple[Backbone, Latent, StructuralTarget]:
    """Return random latents, and the target of images that lie near by."""
    backbone = tiny_backbone(dtype=dtype)
    rng = torch.Generator().manual_seed(12)
    z = torch.randn((n, *backbone.latent_shape), generator=rng).to(dtype)
    c = torch.randn((n, backbone.n_tokens, backbone.text_dim), generator=rng).to(dtype)
    noise = draw_noise(backbone, [torch.Generator().manual_seed(k) for k in range(n)])
    goal = z + torch.randn(z.shape, generator=rng).to(dtype)
    schedule = make_schedule(backbone, DIFFUSION)
    with torch.no_grad():
        seen = backbone.decode_latents(img2img(backbone, goal, c, noise, schedule))
        features = backbone.clip_layers(seen, LAYERS)
    width = features[1].shape[1]
    selected = {k: torch.rand(width, generator=rng) < 0.25 for k in LAYERS}
    scale = {k: (0.5 + torch.rand(width, generator=rng)).to(dtype) for k in LAYERS}
    return backbone, Latent(z, c, noise), StructuralTarget(features, selected, scale)


def _rows(latent: Latent, target: StructuralTarget, rows: Sequence[int]) -> Any:
    index = torch.tensor(rows)
    parts = (x[index] for x in (latent.z, latent.c, latent.noise))
    return Latent(*parts), target.rows(index)


def _stage1(backbone: Backbone, latent: Latent) -> Tensor:
    schedule = make_schedule(backbone, DIFFUSION)
    return sample(backbone, latent.z, latent.c, latent.noise, schedule)


def _loss(backbone: Backbone, target: StructuralTarget, images: Tensor) -> Tensor:
    features = backbone.clip_layers(images, LAYERS)
    return structural_loss(features, target, layer_weights(target, "balanced"))


class _Around:
    """A backbone of which single methods are replaced."""

    def __init__(self, inner: Backbone) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _BlindUNet(_Around):
    @torch.no_grad()
    def unet(self, *parts: Any) -> Tensor:
        return self.inner.unet(*parts)


class _BlindDecoder(_Around):
    @torch.no_grad()
    def decode_latents(self, z: Tensor) -> Tensor:
        return self.inner.decode_latents(z)


class _Recorder(_Around):
    """Remembers the latents that were decoded."""

    def __init__(self, inner: Backbone) -> None:
        super().__init__(inner)
        self.decoded: list[Tensor] = []

    def decode_latents(self, z: Tensor) -> Tensor:
        self.decoded.append(z.detach().clone())
        return self.inner.decode_latents(z)


# --- what it starts from ------------------------------------------------------------


@pytest.mark.parametrize("settings", [BOTH, HALF])
def test_a_strength_of_0_is_stage_1_to_the_byte(settings: GuidanceSettings) -> None:
    backbone, latent, target = _problem()
    recorder: Any = _Recorder(backbone)
    settings = replace(settings, strength=0)
    found = guide(recorder, latent, target, DIFFUSION, settings)
    assert torch.equal(found.images, _stage1(backbone, latent))
    # not only chosen: the guided latents themselves are those of stage 1
    guided, plain = recorder.decoded[-2:]
    assert torch.equal(guided, plain)
    assert found.best_iteration.tolist() == [0, 0]


def test_the_result_has_the_form_that_stage_2_has() -> None:
    backbone, latent, target = _problem()
    settings = replace(BOTH, n_trajectory=3)
    found = guide(backbone, latent, target, DIFFUSION, settings)
    assert found.candidates == (0, 4)
    assert found.losses.shape == (2, 4)
    assert found.candidate_losses.shape == (2, 2)
    assert found.trajectory_iterations == (0, 2, 3)
    assert found.trajectory.shape == (2, 3, 3, 64, 64)
    assert found.seconds.shape == (4,)
    assert found.stopped.tolist() == [4, 4]
    assert torch.equal(found.z, latent.z)
    assert torch.equal(found.c, latent.c)


def test_the_profile_s_part_becomes_the_settings() -> None:
    config = load_profile("smoke", {"stage2.n_trajectory": 5}).stage2.using(
        "bayes", gradient="both", strength=0.3, range=(0.2, 0.7)
    )
    found = engine_settings(config)
    assert found == GuidanceSettings(
        strength=0.3,
        first=0.2,
        last=0.7,
        gradient="both",
        loss="cosine",
        n_trajectory=5,
    )


# --- one pull -------------------------------------------------------------------------


def test_one_pull_is_the_unit_gradient_times_strength_and_noise_level() -> None:
    backbone, latent, target = _problem(dtype=torch.float64)
    recorder: Any = _Recorder(backbone)
    one = Stage1Config(n_steps=2, encode_index=1, decode_steps=1, guidance_scale=2)
    guide(recorder, latent, target, one, GuidanceSettings(strength=0.3))
    estimate, guided, plain = recorder.decoded
    # by hand: the estimate of the only step, and its loss's gradient
    schedule = make_schedule(backbone, one)
    a = schedule.encode_abar
    x = (a**0.5 * latent.z + (1 - a) ** 0.5 * latent.noise).requires_grad_()
    out = sampler._predict(backbone, schedule, backbone.null_text(), x, 0, latent.c)
    clean, _ = clean_and_noise(schedule, 0, x, out)
    torch.testing.assert_close(estimate, clean.detach(), rtol=0, atol=1e-12)
    loss = _loss(backbone, target, backbone.decode_latents(clean)).sum()
    (slope,) = torch.autograd.grad(loss, x)
    size = torch.stack([(each**2).mean().sqrt() for each in slope])
    level = 0.3 * (1 - schedule.abar[0]) ** 0.5
    pull = -level * slope / size[:, None, None, None]
    # the pulled estimate is then noised to the next level
    expected = schedule.abar_next[0] ** 0.5 * pull
    # float64: differences of latents of about 1
    torch.testing.assert_close(guided - plain, expected, rtol=1e-6, atol=1e-12)


def test_the_conditional_gradient_takes_the_other_branch_as_given() -> None:
    backbone, latent, target = _problem(dtype=torch.float64)
    recorder: Any = _Recorder(backbone)
    one = Stage1Config(n_steps=2, encode_index=1, decode_steps=1, guidance_scale=2)
    settings = GuidanceSettings(gradient="conditional", strength=0.3)
    guide(recorder, latent, target, one, settings)
    _, guided, plain = recorder.decoded
    schedule = make_schedule(backbone, one)
    a, t = schedule.encode_abar, schedule.timesteps[0]
    x = (a**0.5 * latent.z + (1 - a) ** 0.5 * latent.noise).requires_grad_()
    with_c = backbone.unet(x, t, latent.c)
    with torch.no_grad():
        without = backbone.unet(x, t, backbone.null_text().expand_as(latent.c))
        excess = (2 - 1) * (with_c - without)  # a constant to the gradient
    clean, _ = clean_and_noise(schedule, 0, x, with_c + excess)
    loss = _loss(backbone, target, backbone.decode_latents(clean)).sum()
    (slope,) = torch.autograd.grad(loss, x)
    size = torch.stack([(each**2).mean().sqrt() for each in slope])
    level = 0.3 * (1 - schedule.abar[0]) ** 0.5
    expected = (
        -(schedule.abar_next[0] ** 0.5) * level * slope / size[:, None, None, None]
    )
    # float64: differences of latents of about 1
    torch.testing.assert_close(guided - plain, expected, rtol=1e-6, atol=1e-12)


def test_a_pull_does_not_depend_on_the_size_of_the_gradient() -> None:
    rng = torch.Generator().manual_seed(2)
    gradient = torch.randn((2, 4, 8, 8), generator=rng)
    unit = guided_sampling._unit(gradient)
    root = unit.square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(root, torch.ones(2))
    for factor in (1e-30, 1e30):  # their squares leave the range of float32
        found = guided_sampling._unit(factor * gradient)
        torch.testing.assert_close(found, unit, rtol=1e-5, atol=1e-6)
    assert not guided_sampling._unit(torch.zeros(1, 4, 8, 8)).any()


@pytest.mark.parametrize(
    ("first", "last", "n_steps", "expected"),
    [
        (0.0, 1.0, 4, "1111"),
        (0.0, 0.5, 4, "1100"),
        (0.5, 1.0, 4, "0011"),
        (0.25, 0.75, 4, "0110"),
        (0.0, 0.3, 10, "1110000000"),
        (0.4, 0.45, 5, "00100"),  # one step at the least,
        (0.0, 0.01, 4, "1000"),
        (0.95, 1.0, 4, "0001"),  # at the end too
        (0.0, 1.0, 1, "1"),
    ],
)
def test_steps_in_the_range_are_pulled(
    first: float, last: float, n_steps: int, expected: str
) -> None:
    settings = GuidanceSettings(first=first, last=last)
    found = "".join(str(int(pulled)) for pulled in settings.pulls(n_steps))
    assert found == expected


def test_nothing_is_pulled_before_the_range() -> None:
    backbone, latent, target = _problem()
    late = guide(backbone, latent, target, DIFFUSION, replace(BOTH, first=0.5))
    never = guide(backbone, latent, target, DIFFUSION, replace(BOTH, strength=0))
    # steps 0 and 1 are not pulled; the loss of step 2 is that before its pull
    np.testing.assert_allclose(late.losses[:, :3], never.losses[:, :3], rtol=1e-6)
    assert (np.abs(late.losses[:, 3] / never.losses[:, 3] - 1) > 1e-3).all()


@pytest.mark.parametrize("settings", [BOTH, HALF])
def test_guidance_lowers_the_loss_where_the_target_can_be_reached(
    settings: GuidanceSettings,
) -> None:
    backbone, latent, target = _problem()
    found = guide(backbone, latent, target, DIFFUSION, settings)
    assert (found.candidate_losses[:, 1] < 0.9 * found.candidate_losses[:, 0]).all()
    assert found.best_iteration.tolist() == [4, 4]
    with torch.no_grad():
        loss = _loss(backbone, target, found.images).numpy()
    # the returned images have the loss that chose them
    np.testing.assert_allclose(loss, found.candidate_losses[:, 1], rtol=1e-5)


def test_stage_1_stays_where_guidance_makes_the_loss_worse() -> None:
    backbone, latent, target = _problem()
    found = guide(backbone, latent, target, DIFFUSION, replace(BOTH, strength=1e3))
    assert (found.candidate_losses[:, 1] > found.candidate_losses[:, 0]).all()
    assert torch.equal(found.images, _stage1(backbone, latent))
    assert found.best_iteration.tolist() == [0, 0]


# --- where the gradient goes ----------------------------------------------------------


@pytest.mark.parametrize("part", [{}, {"first": 0.3, "last": 0.7}])
@pytest.mark.parametrize("settings", [BOTH, HALF])
def test_the_counted_passes_are_those_of_the_u_net(
    settings: GuidanceSettings, part: dict[str, float], count_passes: Any
) -> None:
    backbone, latent, target = _problem()
    passes = count_passes(backbone)
    settings = replace(settings, **part)
    found = guide(backbone, latent, target, DIFFUSION, settings)
    # 4 guided steps, guided by the target and not
    assert found.n_unet_evaluations.tolist() == [2 * 4 * 2] * 2
    pulled = 2 if part else 4
    branches = 1 if settings.gradient == "conditional" else 2
    assert found.n_unet_gradients.tolist() == [pulled * branches] * 2
    assert passes.forward == found.n_unet_evaluations.sum()
    assert passes.backward == found.n_unet_gradients.sum()


def test_a_u_net_without_gradients_is_an_error() -> None:
    backbone, latent, target = _problem()
    blind: Any = _BlindUNet(backbone)
    with pytest.raises(ModelError, match="one that torch can differentiate"):
        guide(blind, latent, target, DIFFUSION, BOTH)


@pytest.mark.parametrize("settings", [BOTH, HALF])
def test_a_decoder_without_gradients_is_an_error(settings: GuidanceSettings) -> None:
    backbone, latent, target = _problem()
    blind: Any = _BlindDecoder(backbone)
    with pytest.raises(ModelError, match="no gradient for the latents"):
        guide(blind, latent, target, DIFFUSION, settings)


@pytest.mark.parametrize("settings", [BOTH, HALF])
def test_checkpointing_moves_nothing(settings: GuidanceSettings) -> None:
    backbone, latent, target = _problem()
    stored, again = (
        guide(backbone, latent, target, DIFFUSION, replace(settings, memory=memory))
        for memory in ("store", "checkpoint")
    )
    np.testing.assert_allclose(again.losses, stored.losses, rtol=FLOAT32)
    torch.testing.assert_close(again.images, stored.images, rtol=0, atol=FLOAT32)


# --- images stay apart ----------------------------------------------------------------


@pytest.mark.parametrize("settings", [BOTH, HALF])
def test_images_of_a_batch_do_not_influence_each_other(
    settings: GuidanceSettings,
) -> None:
    # in float64: float32 rounds differently in other batch sizes, and pulls magnify it
    backbone, latent, target = _problem(2, torch.float64)
    whole = guide(backbone, latent, target, DIFFUSION, settings)
    for row in range(2):
        one, own = _rows(latent, target, [row])
        alone = guide(backbone, one, own, DIFFUSION, settings)
        np.testing.assert_allclose(alone.losses[0], whole.losses[row], rtol=1e-6)
        torch.testing.assert_close(
            alone.images[0], whole.images[row], rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("value", [float("nan"), 1e30])  # 1e30 has an infinite square
@pytest.mark.parametrize("settings", [BOTH, HALF])
def test_an_image_without_a_loss_is_stage_1_s_and_leaves_its_neighbour_alone(
    settings: GuidanceSettings, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    backbone, latent, target = _problem()
    clean = guide(backbone, latent, target, DIFFUSION, settings)
    assert clean.diverged.tolist() == [False, False]
    for features in target.features.values():
        features[0] = value  # behind the back of the checks
    named = replace(latent, names=("nsd 907", "nsd 12"))
    recorder: Any = _Recorder(backbone)
    with caplog.at_level(logging.WARNING):
        found = guide(recorder, named, target, DIFFUSION, settings)
    assert found.diverged.tolist() == [True, False]
    assert ["nsd 907" in line for line in caplog.messages] == [True]
    assert torch.equal(found.images[0], _stage1(backbone, latent)[0])
    assert found.best_iteration.tolist() == [0, 4]
    guided, plain = recorder.decoded[-2:]
    # it was not pulled at all; single branches are other batches than pairs of them
    torch.testing.assert_close(guided[0], plain[0], rtol=0, atol=FLOAT32)
    assert torch.equal(found.images[1], clean.images[1])
    np.testing.assert_array_equal(found.losses[1], clean.losses[1])
    assert bool(found.trajectory.isfinite().all())


# --- refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"first": 0.5, "last": 0.5}, "no range"),
        ({"first": -0.1}, "no range"),
        ({"last": 1.1}, "no range"),
        ({"last": float("nan")}, "no range"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(BOTH, **wrong)


def test_targets_of_other_images_are_refused() -> None:
    backbone, latent, target = _problem()
    _, one = _rows(latent, target, [0])
    with pytest.raises(DataError, match="2 latents but targets of 1"):
        guide(backbone, latent, one, DIFFUSION, BOTH)
