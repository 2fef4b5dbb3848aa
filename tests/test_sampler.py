"""The sampler equals diffusers' where settings agree, and says where it departs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from minddiff_utils.core.errors import ConfigError, DataError, ModelError
from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.generation import sampler
from minddiff_utils.generation.sampler import (
    draw_noise,
    img2img,
    make_schedule,
    sample,
)
from minddiff_utils.models import Backbone, tiny_backbone

#: float32 rounding over ten steps, on latents of about 10.
FLOAT32 = 1e-4
PREDICTIONS = ["epsilon", "v_prediction"]


def _levels(n_steps: int, encode_index: int, decode_steps: int, w: float) -> Any:
    return Stage1Config(
        n_steps=n_steps,
        encode_index=encode_index,
        decode_steps=decode_steps,
        guidance_scale=w,
    )


def _generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _inputs(backbone: Backbone, n: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    (generator,) = _generators(5)
    z = torch.randn((n, *backbone.latent_shape), generator=generator)
    c = torch.randn((n, backbone.n_tokens, backbone.text_dim), generator=generator)
    noise = draw_noise(backbone, _generators(*range(n)))
    return z.to(backbone.dtype), c.to(backbone.dtype), noise


class _KnownNoise:
    """A backbone whose U-Net returns the noise that was added; keeps its timesteps."""

    def __init__(self, noise: Tensor, *, prediction_type: str = "epsilon") -> None:
        self.inner = tiny_backbone(prediction_type=prediction_type)
        self.noise, self.timesteps = noise, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def unet(self, _latents: Tensor, t: int, _c: Tensor) -> Tensor:
        self.timesteps.append(t)
        return self.noise


# --- against diffusers --------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_one_step_equals_diffusers_ddim_step(prediction_type: str) -> None:
    backbone = tiny_backbone(prediction_type=prediction_type)
    x, c, _ = _inputs(backbone)
    schedule = make_schedule(backbone, _levels(10, 9, 10, 1.0))
    scheduler = backbone.scheduler(10)
    for step, t in enumerate(scheduler.timesteps):
        with torch.no_grad():
            out = backbone.unet(x, int(t), c)
            ours = sampler._ddim_step(schedule, out, step, x)
        expected = scheduler.step(out, t, x, eta=0.0).prev_sample
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)  # float32


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("n_steps", [7, 10])  # 7 does not divide the 1000 levels
def test_the_loop_equals_add_noise_and_guided_steps_of_diffusers(
    prediction_type: str, n_steps: int
) -> None:
    backbone = tiny_backbone(prediction_type=prediction_type)
    z, c, noise = _inputs(backbone)
    schedule = make_schedule(backbone, _levels(n_steps, 5, 6, 5.0))
    scheduler = backbone.scheduler(n_steps)
    times = scheduler.timesteps[-6:]
    x = scheduler.add_noise(z, noise, times[:1])
    with torch.no_grad():
        for t in times:
            without = backbone.unet(x, t, backbone.null_text().expand_as(c))
            out = without + 5.0 * (backbone.unet(x, t, c) - without)
            x = scheduler.step(out, t, x, eta=0.0).prev_sample
        ours = img2img(backbone, z, c, noise, schedule)
    torch.testing.assert_close(ours, x, rtol=0, atol=FLOAT32)


def _pipeline(backbone: Backbone, scheduler: Any, **options: Any) -> Tensor:
    """Return the latents of diffusers' image-to-image pipeline."""
    # imported late: `backbone` makes the import possible beside some builds of torch
    from diffusers import StableDiffusionImg2ImgPipeline

    z, c, _ = _inputs(backbone)
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=backbone._vae,
        unet=backbone._unet,
        scheduler=scheduler,
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    latents: Tensor = pipeline(
        prompt_embeds=c,
        negative_prompt_embeds=backbone.null_text().expand_as(c),
        image=z,
        guidance_scale=5.0,
        generator=_generators(0, 1),  # the same draws as `draw_noise`
        output_type="latent",
        **options,
    ).images
    return latents


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_agreeing_levels_equal_diffusers_image_to_image_pipeline(
    strength: float,
) -> None:
    backbone = tiny_backbone()
    scheduler = backbone.scheduler(10)
    options = {"strength": strength, "num_inference_steps": 10}
    expected = _pipeline(backbone, scheduler, **options)
    steps = round(10 * strength)
    settings = _levels(10, steps - 1, steps, 5.0)
    with torch.no_grad():
        ours = img2img(backbone, *_inputs(backbone), make_schedule(backbone, settings))
    torch.testing.assert_close(ours, expected, rtol=0, atol=FLOAT32)


# --- levels -------------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_denoising_with_the_true_prediction_returns_the_latent(
    prediction_type: str,
) -> None:
    z, c, noise = _inputs(tiny_backbone())
    backbone = _KnownNoise(noise, prediction_type=prediction_type)
    schedule = make_schedule(backbone, _levels(20, 12, 13, 1.0))

    def velocity(latents: Tensor, t: int, c: Tensor) -> Tensor:
        a = float(backbone.scheduler(20).alphas_cumprod[t])
        return a**0.5 * noise - (1 - a) ** 0.5 * z

    if prediction_type == "v_prediction":
        backbone.unet = velocity
    back = img2img(backbone, z, c, noise, schedule)
    last = schedule.abar_next[-1]  # 0.999: the schedule ends just above no noise
    expected = last**0.5 * z + (1 - last) ** 0.5 * noise
    torch.testing.assert_close(back, expected, rtol=0, atol=FLOAT32)
    clean = replace(schedule, abar_next=(*schedule.abar_next[:-1], 1.0))
    back = img2img(backbone, z, c, noise, clean)
    torch.testing.assert_close(back, z, rtol=0, atol=FLOAT32)


def test_levels_37_and_35_are_the_released_code_s_timesteps() -> None:
    schedule = make_schedule(tiny_backbone(), _levels(50, 37, 35, 5.0))
    # timesteps 741 and 681 of Stable Diffusion's schedule: ᾱ 0.0604 and 0.0946
    assert schedule.encode_abar == pytest.approx(0.0604, abs=5e-5)
    assert schedule.timesteps[0] == 681
    assert schedule.abar[0] == pytest.approx(0.0946, abs=5e-5)
    assert schedule.timesteps[-1] == 1
    assert len(schedule.timesteps) == 35


def test_under_the_mismatch_z_arrives_weaker_and_noise_remains() -> None:
    z, c, noise = _inputs(tiny_backbone())
    backbone = _KnownNoise(noise)
    schedule = make_schedule(backbone, _levels(50, 37, 35, 1.0))
    schedule = replace(schedule, abar_next=(*schedule.abar_next[:-1], 1.0))
    back = img2img(backbone, z, c, noise, schedule)
    # by hand: x is noised to a, but read as if it were at b
    a, b = schedule.encode_abar, schedule.abar[0]
    left = ((1 - a) ** 0.5 - (1 - b) ** 0.5) / b**0.5
    expected = (a / b) ** 0.5 * z + left * noise
    assert (a / b) ** 0.5 == pytest.approx(0.80, abs=0.005)
    torch.testing.assert_close(back, expected, rtol=0, atol=FLOAT32)
    assert backbone.timesteps == list(schedule.timesteps)


@pytest.mark.parametrize(
    ("guidance", "share", "passes"),
    [(0.0, 1.0, 6), (1.0, 1.0, 6), (5.0, 1.0, 12), (5.0, 0.5, 9)],
)
def test_evaluations_are_counted_as_they_happen(
    guidance: float, share: float, passes: int
) -> None:
    backbone = tiny_backbone()
    z, c, noise = _inputs(backbone)
    rows: list[int] = []
    hook = backbone._unet.register_forward_pre_hook(
        lambda _module, args: rows.append(len(args[0]))
    )
    levels = _levels(10, 5, 6, guidance).model_copy(update={"guided_share": share})
    schedule = make_schedule(backbone, levels)
    assert schedule.guidance[:3] == (guidance,) * 3
    sample(backbone, z, c, noise, schedule)
    hook.remove()
    assert sum(rows) == schedule.n_unet_evaluations * len(z) == passes * len(z)


def test_guidance_of_0_reads_the_null_text_and_1_the_decoded_text() -> None:
    backbone = tiny_backbone()
    z, c, noise = _inputs(backbone)
    null = backbone.null_text().expand_as(c)
    schedule = make_schedule(backbone, _levels(10, 5, 6, 1.0))
    off = replace(schedule, guidance=(0.0,) * 6)
    near = replace(schedule, guidance=(1.0 + 1e-7,) * 6)
    with torch.no_grad():
        none = img2img(backbone, z, c, noise, off)
        torch.testing.assert_close(none, img2img(backbone, z, null, noise, schedule))
        one = img2img(backbone, z, c, noise, schedule)
        both = img2img(backbone, z, c, noise, near)
    torch.testing.assert_close(one, both, rtol=0, atol=FLOAT32)
    assert (none - one).abs().max() > 1e-3


# --- gradients ----------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_gradients_of_z_c_and_noise_equal_finite_differences(guidance: float) -> None:
    backbone = tiny_backbone(dtype=torch.float64)
    inputs = [x[:1].clone().requires_grad_() for x in _inputs(backbone)]
    schedule = make_schedule(backbone, _levels(10, 7, 5, guidance))

    def value(*parts: Tensor) -> Tensor:
        latents = img2img(backbone, *parts, schedule)
        return backbone.decode_latents(latents).square().mean()

    gradients = torch.autograd.grad(value(*inputs), inputs)
    for position, gradient in enumerate(gradients):
        assert gradient.abs().max() > 1e-6
        direction = gradient / gradient.norm()
        moved = []
        for sign in (1, -1):
            parts = [x.detach() for x in inputs]
            parts[position] = parts[position] + sign * 1e-4 * direction
            with torch.no_grad():
                moved.append(value(*parts))
        slope = (moved[0] - moved[1]) / 2e-4
        # central differences in float64 err by the step squared, about 1e-8
        torch.testing.assert_close(slope, gradient.norm(), rtol=1e-4, atol=1e-9)


def test_checkpoint_and_store_give_the_same_image_and_gradients() -> None:
    backbone = tiny_backbone()
    schedule = make_schedule(backbone, _levels(10, 7, 5, 2.0))
    found = []
    for memory in ("store", "checkpoint"):
        z, c, noise = _inputs(backbone)
        z, c = z.requires_grad_(), c.requires_grad_()
        x = img2img(backbone, z, c, noise, schedule, memory=memory)
        found.append((x.detach(), *torch.autograd.grad(x.square().sum(), (z, c))))
    for stored, recomputed in zip(*found, strict=True):
        # the same operations in the same order; only sums of gradients may regroup
        torch.testing.assert_close(stored, recomputed, rtol=1e-5, atol=1e-5)


def test_sample_needs_no_gradient_and_stays_within_the_image_range() -> None:
    backbone = tiny_backbone()
    z, c, noise = _inputs(backbone)
    schedule = make_schedule(backbone, _levels(10, 7, 5, 2.0))
    images = sample(backbone, 40 * z.requires_grad_(), c, noise, schedule)
    assert not images.requires_grad
    assert images.shape == (2, 3, 64, 64)
    assert images.min() >= -1
    assert images.max() <= 1


# --- noise and short schedules ------------------------------------------------------


def test_noise_belongs_to_the_image_whatever_the_order_or_batch() -> None:
    backbone = tiny_backbone()
    together = draw_noise(backbone, _generators(3, 1, 2))
    for row, seed in enumerate((3, 1, 2)):
        assert torch.equal(
            together[row : row + 1], draw_noise(backbone, _generators(seed))
        )
    assert not torch.equal(together[0], together[1])


# --- refusals -----------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [1000, 1001])  # with offset 1, step 1000 is too far
def test_a_grid_finer_than_the_schedule_is_refused(n_steps: int) -> None:
    with pytest.raises(ConfigError, match="lower n_steps"):
        make_schedule(tiny_backbone(), _levels(n_steps, 5, 5, 1.0))


@pytest.mark.parametrize("flag", ["clip_sample", "thresholding"])
def test_a_scheduler_that_clips_is_refused(flag: str) -> None:
    backbone = tiny_backbone()
    config = {**backbone._scheduler_config, flag: True}
    clipping = replace(backbone, _scheduler_config=config)
    with pytest.raises(ModelError, match="clips"):
        make_schedule(clipping, _levels(10, 5, 5, 1.0))


def test_another_kind_of_prediction_is_refused() -> None:
    backbone = tiny_backbone(prediction_type="sample")
    with pytest.raises(ConfigError, match="prediction_type is 'sample'"):
        make_schedule(backbone, _levels(10, 5, 5, 1.0))


@pytest.mark.parametrize("position", [0, 1, 2])
def test_inputs_that_would_broadcast_are_refused(position: int) -> None:
    backbone = tiny_backbone()
    schedule = make_schedule(backbone, _levels(10, 5, 5, 1.0))
    inputs = list(_inputs(backbone))
    inputs[position] = inputs[position][:1]
    with pytest.raises(DataError, match="is expected"):
        img2img(backbone, *inputs, schedule)
