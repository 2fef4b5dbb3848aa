"""Stage 1: noise the decoded latent to a level, then denoise it under the decoded text.

The sampler's gradient reaches z and c, its noise is an argument, and the level of
noising and the first denoising step may differ, as they do in MindDiffuser's released
code (index 37, 35 steps). It is DDIM without added noise, the paper's; where the
settings agree it equals diffusers' image-to-image pipeline. It knows nothing of brains
or losses.

Notation: z = decoded latent, c = decoded text, x_t = noised latent, ε = noise, ᾱ_t =
cumulative product of the noise schedule, w = guidance scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from minddiff_utils.core.errors import (
    ConfigError,
    ModelError,
    check_choice,
    check_shape,
)
from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.models import Backbone

__all__ = [
    "Branches",
    "Memory",
    "Schedule",
    "Steering",
    "clean_and_noise",
    "draw_noise",
    "img2img",
    "make_schedule",
    "sample",
]

#: How intermediate values are kept for the gradient: all of them, or x_t only.
Memory = Literal["store", "checkpoint"]
#: Which branches of the guided prediction a gradient goes through.
Branches = Literal["both", "conditional"]


@dataclass(frozen=True)
class Schedule:
    """The levels a sample passes through, in the order of denoising.

    Attributes
    ----------
    encode_abar : float
        ᾱ of the level to which z is noised.
    timesteps : tuple of int
        Training timestep at which the U-Net is called, per step.
    abar, abar_next : tuple of float
        ᾱ before and after each step.
    guidance : tuple of float
        w of classifier-free guidance, per step; 1 and 0 need one branch only.
    prediction : str
        epsilon or v_prediction: what the U-Net predicts.
    """

    encode_abar: float
    timesteps: tuple[int, ...]
    abar: tuple[float, ...]
    abar_next: tuple[float, ...]
    guidance: tuple[float, ...]
    prediction: str

    @property
    def branches(self) -> tuple[int, ...]:
        """Return the U-Net forward passes of each step; a guided one takes two."""
        return tuple(1 if w in (0, 1) else 2 for w in self.guidance)

    @property
    def n_unet_evaluations(self) -> int:
        """Return the U-Net forward passes per image.

        As many backward passes are taken where the sample is optimised.
        """
        return sum(self.branches)

    @property
    def reads_text(self) -> bool:
        """Return whether any step reads c."""
        return any(self.guidance)


def make_schedule(backbone: Backbone, settings: Stage1Config) -> Schedule:
    """Return the levels of `settings` on the backbone's own noise schedule.

    z is noised to grid index `encode_index` (0 is the cleanest) and denoised from index
    `decode_steps - 1` down. The two agree when `encode_index == decode_steps - 1`; 37
    and 35 of the released code do not: the U-Net is told a lower level than there is.

    Raises
    ------
    ConfigError
        The grid has more steps than the noise schedule has levels.
    ModelError
        The scheduler predicts or clips in a way this sampler does not.

    References
    ----------
    MindDiffuser Algorithm 1; `Reconstruction.py` of the released code (c9773ac): 50
    steps, 37, 35 and guidance 5.0.
    """
    scheduler = _scheduler(backbone, settings.n_steps)
    config: Any = scheduler.config
    if config.clip_sample or getattr(config, "thresholding", False):
        raise ModelError(
            "The scheduler clips its samples, which stops the gradient: set clip_sample"
            " and thresholding to false in scheduler_config.json."
        )
    check_choice(config.prediction_type, ("epsilon", "v_prediction"), "prediction_type")
    levels = scheduler.alphas_cumprod.double()
    times = [int(t) for t in scheduler.timesteps]  # noisiest first
    stride = config.num_train_timesteps // settings.n_steps
    steps = times[-settings.decode_steps :]
    final = float(scheduler.final_alpha_cumprod)
    after = [t - stride for t in steps]
    return Schedule(
        encode_abar=float(levels[times[-1 - settings.encode_index]]),
        timesteps=tuple(steps),
        abar=tuple(float(levels[t]) for t in steps),
        abar_next=tuple(float(levels[t]) if t >= 0 else final for t in after),
        guidance=_guidance(settings.guidance_scale, settings.guided_share, len(steps)),
        prediction=config.prediction_type,
    )


def _scheduler(backbone: Backbone, n_steps: int) -> Any:
    """Return the backbone's scheduler with a grid that lies on its noise schedule."""
    scheduler = backbone.scheduler(1)
    n_levels = int(scheduler.config.num_train_timesteps)
    if n_steps <= n_levels:
        scheduler = backbone.scheduler(n_steps)
        # with an offset, the noisiest step of the finest grid lies beyond the end
        if int(scheduler.timesteps[0]) < n_levels:
            return scheduler
    raise ConfigError(
        f"A grid of {n_steps} steps does not fit on a noise schedule of {n_levels}"
        " levels: lower n_steps."
    )


def _guidance(scale: float, share: float, n_steps: int) -> tuple[float, ...]:
    """Return w per step: `scale` in the first `share` of them, the noisiest, then 1.

    Guidance in a limited interval: Kynkäänniemi et al. 2024 (2404.07724).
    """
    n_guided = round(share * n_steps)
    return (scale,) * n_guided + (1.0,) * (n_steps - n_guided)


def draw_noise(backbone: Backbone, generators: Sequence[torch.Generator]) -> Tensor:
    """Return ε (n, C, h, w), one image from each generator, drawn on the CPU.

    An image's noise depends on its own generator only: never on order, batch or device.
    """
    shape = backbone.latent_shape
    noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
    return noise.to(backbone.device, backbone.dtype)


def _predict(
    backbone: Backbone,
    schedule: Schedule,
    null: Tensor,
    x: Tensor,
    step: int,
    c: Tensor,
    gradient: Branches = "both",
) -> Tensor:
    """Return the U-Net's guided prediction; both branches in one call, or apart."""
    t, w = schedule.timesteps[step], schedule.guidance[step]
    nulls = null.expand_as(c)
    if w == 1:
        return backbone.unet(x, t, c)
    if w == 0:
        return backbone.unet(x, t, nulls)
    if gradient == "conditional" and x.requires_grad:
        with_c = backbone.unet(x, t, c)
        with torch.no_grad():
            without = backbone.unet(x, t, nulls)
            guided = without + w * (with_c - without)
        followed: Tensor = _GradientOf.apply(guided, with_c)  # type: ignore[no-untyped-call]
        return followed
    both = backbone.unet(torch.cat([x, x]), t, torch.cat([nulls, c]))
    without, with_c = both.chunk(2)
    return without + w * (with_c - without)


class _GradientOf(torch.autograd.Function):
    """One tensor's values with another's gradient."""

    @staticmethod
    def forward(_: Any, values: Tensor, followed: Tensor) -> Tensor:
        del followed
        return values.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


def clean_and_noise(
    schedule: Schedule, step: int, x: Tensor, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the clean latent and the noise that a prediction implies at a step.

    x = sqrt(ᾱ) clean + sqrt(1 - ᾱ) noise holds whatever was predicted.
    """
    a = schedule.abar[step]
    if schedule.prediction == "epsilon":
        return (x - (1 - a) ** 0.5 * out) / a**0.5, out
    clean = a**0.5 * x - (1 - a) ** 0.5 * out
    return clean, a**0.5 * out + (1 - a) ** 0.5 * x


def _renoise(schedule: Schedule, step: int, clean: Tensor, noise: Tensor) -> Tensor:
    """Return the clean latent under the noise of the next level (η = 0)."""
    a_next = schedule.abar_next[step]
    following: Tensor = a_next**0.5 * clean + (1 - a_next) ** 0.5 * noise
    return following


def _ddim_step(schedule: Schedule, out: Tensor, step: int, x: Tensor) -> Tensor:
    """Take one DDIM step with η = 0 (Song et al. 2021, equation 12)."""
    return _renoise(schedule, step, *clean_and_noise(schedule, step, x, out))


class Steering(Protocol):
    """What changes the clean latent that each step implies.

    Attributes
    ----------
    gradient : {"both", "conditional"}
        Whether the gradient for x goes through both branches of the guided prediction
        or, at half the cost, through the conditional one as if it were the whole.
    """

    @property
    def gradient(self) -> Branches:
        """Return through which branches the gradient goes."""

    def enter(self, step: int, x: Tensor) -> Tensor:
        """Return x as the step starts from it, such as a leaf of a graph."""

    def steer(self, step: int, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean latent and the noise to go on with."""


def img2img(
    backbone: Backbone,
    z: Tensor,
    c: Tensor,
    noise: Tensor,
    schedule: Schedule,
    *,
    memory: Memory = "store",
    steering: Steering | None = None,
) -> Tensor:
    """Return denoised latents (n, C, h, w); gradients reach z, c and the noise.

    Parameters
    ----------
    z, noise : Tensor
        Decoded latents and the noise to add, (n, C, h, w).
    c : Tensor
        Decoded text, (n, n_tokens, d).
    schedule : Schedule
        From `make_schedule`.
    memory : {"store", "checkpoint"}
        Whether the U-Net's values in each step are stored for the gradient, or only its
        inputs, at the price of a second forward pass. The gradients are the same.
    steering : Steering, optional
        Changes what each step goes on with.

    Raises
    ------
    DataError
        z, c and noise do not belong together or do not fit the backbone.

    References
    ----------
    MindDiffuser Algorithm 1, lines 3 and 4; Ho and Salimans 2022 for guidance.
    """
    n = len(z)  # nothing may broadcast: two images would share their noise unseen
    check_shape(tuple(z.shape), (n, *backbone.latent_shape), "z")
    check_shape(tuple(noise.shape), (n, *backbone.latent_shape), "noise")
    check_shape(tuple(c.shape), (n, backbone.n_tokens, backbone.text_dim), "c")
    # 1. noise z to the stage-1 level: x = sqrt(ᾱ) z + sqrt(1 - ᾱ) ε
    a = schedule.encode_abar
    x: Tensor = a**0.5 * z + (1 - a) ** 0.5 * noise
    predict = partial(_predict, backbone, schedule, backbone.null_text())
    gradient = steering.gradient if steering is not None else "both"
    # 2. denoise under c
    for step in range(len(schedule.timesteps)):
        if steering is not None:
            x = steering.enter(step, x)
        keeps_graph = torch.is_grad_enabled() and (x.requires_grad or c.requires_grad)
        if memory == "checkpoint" and keeps_graph:
            out = torch_checkpoint(predict, x, step, c, gradient, use_reentrant=False)
        else:
            out = predict(x, step, c, gradient)
        if steering is None:
            x = _ddim_step(schedule, out, step, x)
        else:
            x = _renoise(schedule, step, *steering.steer(step, x, out))
    return x


@torch.no_grad()
def sample(
    backbone: Backbone, z: Tensor, c: Tensor, noise: Tensor, schedule: Schedule
) -> Tensor:
    """Return stage-1 images (n, 3, S, S), clipped to [-1, 1], without gradients."""
    latents = img2img(backbone, z, c, noise, schedule)
    return backbone.decode_latents(latents).clamp(-1, 1)
