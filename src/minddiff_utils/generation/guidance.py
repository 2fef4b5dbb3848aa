"""The other engine of stage 2: the structural gradient inside the sampling.

One run of stage 1's sampler, in which each step's estimate of the clean image is pulled
towards the decoded CLIP features before the noise is put back. z and c stay as decoded,
so this is not Algorithm 1 and is never called by its name; it costs a hundredth of it.
Place in the flow: layer 8, above `alignment`, whose results it returns in the same form
and with which it can be combined.

Two forms. `clean` takes the gradient with respect to the clean estimate, so that the
U-Net is never differentiated (MPGD); `unet` takes it through the U-Net (DPS,
NeuralDiffuser). Both scale it to a root mean square of 1 per image, times `strength`
times the noise level sqrt(1 - ᾱ), so that the step depends neither on the loss's scale
nor on the number of features. In `unet` the gradient goes through both branches of the
guided prediction; NeuralDiffuser takes the conditional one alone.

References
----------
He et al. 2024, Manifold Preserving Guided Diffusion (arXiv 2311.16424).
Li et al. 2024, NeuralDiffuser (arXiv 2402.13809).
Chung et al. 2023, Diffusion Posterior Sampling (arXiv 2209.14687).
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from minddiff_utils.core.config import Stage2Config
from minddiff_utils.core.errors import ConfigError, DataError, ModelError, check_choice
from minddiff_utils.generation.alignment import (
    AlignmentResult,
    AlignmentSettings,
    Keeper,
    Latent,
    align,
    preset,
)
from minddiff_utils.generation.critic import (
    CRITICS,
    Critic,
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.generation.diffusion import (
    DiffusionSettings,
    Memory,
    Schedule,
    clean_and_noise,
    make_schedule,
    predict_at,
    renoise,
    sample,
)
from minddiff_utils.models import Backbone

__all__ = [
    "CombinedSettings",
    "GuidanceSettings",
    "align_and_guide",
    "combined_preset",
    "guidance_preset",
    "guide",
]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class GuidanceSettings:
    """How the sampling is steered.

    Attributes
    ----------
    form : {"clean", "unet"}
        Gradient with respect to the clean estimate, or through the U-Net.
    strength : float
        Root mean square of one pull, in units of the noise level; 0 gives stage 1.
    n_inner : int
        Pulls per step; more than 1 for `clean` only.
    first, last : float
        Share of the steps, from the noisiest, at which pulling begins and ends.
    critic : {"paper", "released", "balanced"}
        See `critic.layer_weights`.
    n_trajectory : int
        Clean estimates kept for show.
    memory : {"store", "checkpoint"}
        How the U-Net's values are kept for the gradient, as in `diffusion.img2img`.
    """

    form: Literal["clean", "unet"] = "clean"
    strength: float = 0.1
    n_inner: int = 1
    first: float = 0.0
    last: float = 1.0
    critic: Critic = "balanced"
    n_trajectory: int = 8
    memory: Memory = "store"

    def __post_init__(self) -> None:
        check_choice(self.form, ("clean", "unet"), "form")
        check_choice(self.critic, CRITICS, "critic")
        if not (self.strength >= 0 and self.n_inner >= 1 and self.n_trajectory >= 1):
            raise ConfigError(
                f"strength is {self.strength}, n_inner {self.n_inner} and n_trajectory"
                f" {self.n_trajectory}, but they must be at least 0, 1 and 1."
            )
        if self.form == "unet" and self.n_inner > 1:
            raise ConfigError(
                f"n_inner is {self.n_inner}, but the form 'unet' has one gradient per"
                " step: set n_inner to 1 or form to 'clean'."
            )
        if not 0 <= self.first < self.last <= 1:
            raise ConfigError(
                f"Guidance from {self.first} to {self.last} of the steps is no range"
                " within 0 to 1: choose first below last."
            )

    def pulls(self, n_steps: int) -> tuple[bool, ...]:
        """Return whether each step is pulled."""
        low = min(round(self.first * n_steps), n_steps - 1)  # one step at the least
        high = max(round(self.last * n_steps), low + 1)
        return tuple(low <= step < high for step in range(n_steps))


def guidance_preset(
    config: Stage2Config, *, memory: Memory = "store"
) -> GuidanceSettings:
    """Return the settings that the profile's `stage2` part stands for."""
    return GuidanceSettings(
        form=config.form_guided,
        strength=config.strength_guided,
        n_inner=config.n_inner_guided,
        first=config.range_guided[0],
        last=config.range_guided[1],
        n_trajectory=config.n_trajectory,
        memory=memory,
    )


def _unit(gradient: Tensor) -> Tensor:
    """Return the gradient at a root mean square of 1 per image; 0 stays 0."""
    smallest = torch.finfo(gradient.dtype).tiny
    # squares of the gradient itself could leave the range of float32
    largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(smallest)
    scaled = gradient / largest
    size = scaled.square().mean((1, 2, 3), keepdim=True).sqrt()
    return scaled / size.clamp_min(smallest)


@dataclass(frozen=True)
class _Pull:
    """The critic's view of a clean estimate, and one pull on it."""

    backbone: Backbone
    target: StructuralTarget
    weights: Mapping[int, Tensor]
    settings: GuidanceSettings
    missed: Tensor  # pulls without a direction so far, of each image

    def loss(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses (n,) and images of clean latents."""
        images = self.backbone.decode_latents(clean)
        features = self.backbone.clip_layers(images, self.target.layers)
        return structural_loss(features, self.target, self.weights), images

    def direction(self, value: Tensor, wrt: Tensor) -> Tensor:
        """Return the unit gradient; images without a number are not pulled."""
        if not value.requires_grad:
            raise ModelError(
                "The structural loss has no gradient for the latents: the autoencoder"
                " or CLIP runs without gradients; use models that torch can"
                " differentiate."
            )
        (gradient,) = torch.autograd.grad(value.sum(), wrt)
        finite = gradient.flatten(1).isfinite().all(1) & value.isfinite()
        usable = torch.where(finite[:, None, None, None], gradient, 0.0)
        self.missed.add_(~usable.flatten(1).any(1) & (value != 0))
        return _unit(usable)


def _estimate(
    pull: _Pull, schedule: Schedule, latent: Latent, step: int, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the clean latent and the noise in x, with a graph if x asks for one."""
    null = pull.backbone.null_text()
    predict = partial(predict_at, pull.backbone, schedule, null)
    through = x.requires_grad
    with torch.set_grad_enabled(through):
        if through and pull.settings.memory == "checkpoint":
            out = torch_checkpoint(predict, x, step, latent.c, use_reentrant=False)
        else:
            out = predict(x, step, latent.c)
        if through and not out.requires_grad:
            raise ModelError(
                "The form 'unet' needs the U-Net's gradient, but the U-Net runs"
                " without: use one that torch can differentiate, or the form 'clean'."
            )
        return clean_and_noise(schedule, step, x, out)


def _pulled(
    pull: _Pull, clean: Tensor, x: Tensor, level: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the clean latent after its pulls, and loss and image before the first."""
    seen: list[tuple[Tensor, Tensor]] = []
    for _ in range(pull.settings.n_inner):
        leaf = clean if x.requires_grad else clean.detach().requires_grad_()
        with torch.enable_grad():
            value, images = pull.loss(leaf)
        seen.append((value.detach(), images.detach()))
        shift = pull.direction(value, x if x.requires_grad else leaf)
        clean = leaf.detach() - level * shift
    return clean, *seen[0]


def _steps(
    pull: _Pull, schedule: Schedule, latent: Latent
) -> tuple[Tensor, Tensor, Tensor]:
    """Return final latents, losses (n, n_steps) and images before each pull."""
    settings = pull.settings
    a = schedule.encode_abar
    x = a**0.5 * latent.z + (1 - a) ** 0.5 * latent.noise
    losses, frames = [], []
    for step, active in enumerate(settings.pulls(len(schedule.timesteps))):
        x = x.detach().requires_grad_(active and settings.form == "unet")
        clean, noise = _estimate(pull, schedule, latent, step, x)
        if active:
            level = settings.strength * (1 - schedule.abar[step]) ** 0.5
            clean, value, images = _pulled(pull, clean, x, level)
        else:
            with torch.no_grad():
                value, images = pull.loss(clean)
        losses.append(value)
        frames.append(images.clamp(-1, 1))
        x = renoise(schedule, step, clean.detach(), noise.detach())
    return x, torch.stack(losses, 1), torch.stack(frames, 1)


def guide(
    backbone: Backbone,
    latent: Latent,
    target: StructuralTarget,
    diffusion: DiffusionSettings,
    settings: GuidanceSettings,
) -> AlignmentResult:
    """Sample n images that are pulled towards their decoded structure.

    Parameters
    ----------
    latent : Latent
        As for `alignment.align`.
    target : StructuralTarget
        Decoded CLIP features.
    diffusion : DiffusionSettings
        Stage 1's complete sampler.
    settings : GuidanceSettings

    Returns
    -------
    AlignmentResult
        `losses` are those of the clean estimate at each step before its pull; the two
        candidates are stage 1's image (0) and the guided one, and the one of the lower
        loss is chosen; z and c are the given ones.

    Raises
    ------
    DataError
        Latents and targets of another number of images.
    ModelError
        A model on the way of the gradient runs without gradients.
    """
    if target.n_images != len(latent.z):
        raise DataError(
            f"There are {len(latent.z)} latents but targets of {target.n_images}"
            " images: pass the same images."
        )
    schedule = make_schedule(backbone, diffusion)
    weights = layer_weights(target, settings.critic)
    missed = torch.zeros(len(latent.z), dtype=torch.int64, device=latent.z.device)
    pull = _Pull(backbone, target, weights, settings, missed)
    began, n_steps = time.perf_counter(), len(schedule.timesteps)
    x, losses, frames = _steps(pull, schedule, latent)
    with torch.no_grad():
        guided = backbone.decode_latents(x).clamp(-1, 1)
        plain = sample(backbone, latent.z, latent.c, latent.noise, schedule)
        found = torch.stack([_loss_of(pull, images) for images in (plain, guided)], 1)
    # NaN is never better, and anything better than it
    better = (found[:, 1] < found[:, 0]) | (found[:, 0].isnan() & ~found[:, 1].isnan())
    diverged = ~losses.isfinite().all(1) | ~found[:, 1].isfinite()
    for row in diverged.nonzero()[:, 0].tolist():
        name = latent.names[row] if latent.names else row
        LOG.warning("image %s: its loss was not a number; it may be stage 1's", name)
    for row in ((missed > 0) & ~diverged).nonzero()[:, 0].tolist():
        LOG.warning(
            "image %s: %d pulls had no direction, as their gradient was 0 or no finite"
            " number; if models.dtype is float16, set it to float32",
            *(latent.names[row] if latent.names else row, int(missed[row])),
        )
    shown = np.unique(np.linspace(0, n_steps - 1, settings.n_trajectory).round())
    n, cost = len(latent.z), 2 * schedule.n_unet_evaluations
    through = sum(settings.pulls(n_steps)) * (settings.form == "unet")
    branches = schedule.n_unet_evaluations // n_steps
    return AlignmentResult(
        images=torch.where(better[:, None, None, None], guided, plain),
        losses=losses.float().cpu().numpy(),
        candidates=(0, n_steps),
        candidate_losses=found.float().cpu().numpy(),
        best_iteration=np.where(better.cpu().numpy(), n_steps, 0).astype(np.int64),
        stopped=np.full(n, n_steps),
        diverged=diverged.cpu().numpy(),
        trajectory=frames[:, shown.astype(int).tolist()].nan_to_num(nan=0.0),
        trajectory_iterations=tuple(shown.astype(int).tolist()),
        z=latent.z.clone(),
        c=latent.c.clone(),
        seconds=np.linspace(0, time.perf_counter() - began, n_steps + 1)[1:],
        n_unet_evaluations=np.full(n, cost),
        n_unet_gradients=np.full(n, through * branches),
    )


def _loss_of(pull: _Pull, images: Tensor) -> Tensor:
    features = pull.backbone.clip_layers(images, pull.target.layers)
    return structural_loss(features, pull.target, pull.weights)


# --- both engines ---------------------------------------------------------------------


@dataclass(frozen=True)
class CombinedSettings:
    """The outer loop first, then guided sampling from what it found.

    Attributes
    ----------
    alignment : AlignmentSettings
        Of the loop over z and c.
    guidance : GuidanceSettings
        Of the sampling that makes the final image.
    """

    alignment: AlignmentSettings
    guidance: GuidanceSettings


def combined_preset(
    config: Stage2Config, *, memory: Memory = "store"
) -> CombinedSettings:
    """Return the settings of a short loop with guided sampling at its end."""
    n_iter = config.n_iter_combined
    short = {"preset": "fast", "n_iter_fast": n_iter, "n_candidates_fast": 1}
    steer = {"strength_guided": config.strength_combined}
    return CombinedSettings(
        preset(config.model_copy(update=short), memory=memory),
        guidance_preset(config.model_copy(update=steer), memory=memory),
    )


def align_and_guide(
    backbone: Backbone,
    latent: Latent,
    target: StructuralTarget,
    diffusion: DiffusionSettings,
    settings: CombinedSettings,
    *,
    keeper: Keeper | None = None,
) -> AlignmentResult:
    """Align n images, then sample them guided from the z and c that were found.

    Parameters, errors and warnings are those of `alignment.align` and `guide`.

    Returns
    -------
    AlignmentResult
        That of the loop, with one more candidate, n_iter + 1: the guided image. It is
        chosen where its loss is the lowest. Costs are those of both.
    """
    found = align(
        *(backbone, latent, target, diffusion, settings.alignment), keeper=keeper
    )
    start = Latent(found.z, found.c, latent.noise, latent.names)
    guided = guide(backbone, start, target, diffusion, settings.guidance)
    last = settings.alignment.n_iter + 1
    better = guided.best_iteration > 0
    spent = found.seconds[-1] + guided.seconds[-1]
    return replace(
        found,
        images=guided.images,
        candidates=(*found.candidates, last),
        candidate_losses=np.hstack(
            [found.candidate_losses, guided.candidate_losses[:, 1:]]
        ),
        best_iteration=np.where(better, last, found.best_iteration),
        diverged=found.diverged | guided.diverged,
        seconds=np.append(found.seconds, spent),
        n_unet_evaluations=found.n_unet_evaluations + guided.n_unet_evaluations,
        n_unet_gradients=found.n_unet_gradients + guided.n_unet_gradients,
    )
