"""The other engine of stage 2: the structural gradient inside the sampling.

One run of stage 1's sampler, in which each step's estimate of the clean image is pulled
towards the decoded CLIP features before the noise is put back. z and c stay as decoded,
so this is not Algorithm 1 and is never called by its name; it costs a hundredth of it.
Results have the form of `alignment`'s.

The gradient goes through the U-Net (DPS, NeuralDiffuser). It is scaled to a root mean
square of 1 per image, times `strength` times the noise level sqrt(1 - ᾱ), so that the
step depends neither on the loss's scale nor on the number of features. It goes through
both branches of the guided prediction, or through the conditional one alone, as in
NeuralDiffuser: the branches differ little, and half the work is saved.

References
----------
Li et al. 2024, NeuralDiffuser (arXiv 2402.13809).
Chung et al. 2023, Diffusion Posterior Sampling (arXiv 2209.14687).
"""

import logging
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from minddiff_utils.core.errors import DataError, ModelError
from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.generation.alignment import AlignmentResult, Latent
from minddiff_utils.generation.alignment_state import stage1_images
from minddiff_utils.generation.presets import GuidanceSettings
from minddiff_utils.generation.sampler import (
    Branches,
    Schedule,
    clean_and_noise,
    img2img,
    make_schedule,
)
from minddiff_utils.generation.structural_loss import StructuralLoss, StructuralTarget
from minddiff_utils.models import Backbone

__all__ = ["guide"]

LOG = logging.getLogger(__name__)


def _unit(gradient: Tensor) -> Tensor:
    """Return the gradient at a root mean square of 1 per image; 0 stays 0."""
    smallest = torch.finfo(gradient.dtype).tiny
    # squares of the gradient itself could leave the range of float32
    largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(smallest)
    scaled = gradient / largest
    size = scaled.square().mean((1, 2, 3), keepdim=True).sqrt()
    return scaled / size.clamp_min(smallest)


@dataclass
class _Pull:
    """Steers the sampler: a pull on the clean estimate of each step.

    `losses` (n,) and `frames` are those of each step's estimate before its pull;
    `missed` counts the pulls without a direction, of each image.
    """

    backbone: Backbone
    schedule: Schedule
    loss: StructuralLoss
    settings: GuidanceSettings
    missed: Tensor
    losses: list[Tensor] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)

    @property
    def gradient(self) -> Branches:
        """Return through which branches the gradient goes."""
        return self.settings.gradient

    def loss_of(self, images: Tensor) -> Tensor:
        """Return the losses of images, (n,)."""
        return self.loss(self.backbone.clip_layers(images, self.loss.target.layers))

    def _is_active(self, step: int) -> bool:
        return self.settings.pulls(len(self.schedule.timesteps))[step]

    def enter(self, step: int, x: Tensor) -> Tensor:
        """Return x as a leaf, which a pull differentiates."""
        return x.detach().requires_grad_(self._is_active(step))

    def steer(self, step: int, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean latent after its pull, and the noise in x."""
        if x.requires_grad and not out.requires_grad:
            raise ModelError(
                "Steering needs the U-Net's gradient, but the U-Net runs without: use"
                " one that torch can differentiate."
            )
        clean, noise = clean_and_noise(self.schedule, step, x, out)
        if self._is_active(step):
            clean = self._pulled(step, clean, x)
        else:
            with torch.no_grad():
                self._see(clean)
        return clean.detach(), noise.detach()

    def _pulled(self, step: int, clean: Tensor, x: Tensor) -> Tensor:
        level = self.settings.strength * (1 - self.schedule.abar[step]) ** 0.5
        shift = self._direction(self._see(clean), x)
        pulled: Tensor = clean.detach() - level * shift
        return pulled

    def _see(self, clean: Tensor) -> Tensor:
        """Return the losses of clean latents; keep them and the images."""
        images = self.backbone.decode_latents(clean)
        value = self.loss_of(images)
        self.losses.append(value.detach())
        self.frames.append(images.detach().clamp(-1, 1))
        return value

    def _direction(self, value: Tensor, wrt: Tensor) -> Tensor:
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


def guide(
    backbone: Backbone,
    latent: Latent,
    target: StructuralTarget,
    diffusion: Stage1Config,
    settings: GuidanceSettings,
) -> AlignmentResult:
    """Sample n images that are pulled towards their decoded structure.

    Parameters
    ----------
    latent : Latent
        As for `alignment.align`.
    target : StructuralTarget
        Decoded CLIP features.
    diffusion : Stage1Config
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
    loss = StructuralLoss.of(target, settings.loss)
    missed = torch.zeros(len(latent.z), dtype=torch.int64, device=latent.z.device)
    pull = _Pull(backbone, schedule, loss, settings, missed)
    began, n_steps = time.perf_counter(), len(schedule.timesteps)
    inputs = (backbone, latent.z, latent.c, latent.noise, schedule)
    with torch.enable_grad():
        x = img2img(*inputs, memory=settings.memory, steering=pull)
    losses, frames = torch.stack(pull.losses, 1), torch.stack(pull.frames, 1)
    with torch.no_grad():
        guided = backbone.decode_latents(x).clamp(-1, 1)
        plain = stage1_images(backbone, latent, schedule)
        found = torch.stack([pull.loss_of(images) for images in (plain, guided)], 1)
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
    most = 1 if settings.gradient == "conditional" else 2
    pulls = zip(schedule.branches, settings.pulls(n_steps), strict=True)
    through = sum(min(branches, most) for branches, is_pulled in pulls if is_pulled)
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
        n_unet_gradients=np.full(n, through),
    )
