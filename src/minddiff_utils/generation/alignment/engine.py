"""Latent → generator → encoder → critic, as one graph.

Place in the flow: between `settings` and `progress`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from minddiff_utils.core.errors import (
    ConfigError,
)
from minddiff_utils.generation.alignment.settings import AlignmentSettings, Latent
from minddiff_utils.generation.critic import (
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.generation.diffusion import (
    DiffusionSettings,
    Schedule,
    img2img,
    make_schedule,
    sample,
    thin,
)
from minddiff_utils.models import Backbone

__all__ = ["Engine", "anchor", "make_engine", "surrogate"]


def anchor(c: Tensor, c_start: Tensor) -> Tensor:
    """Return c's mean squared displacement relative to its mean square, (n,).

    One scale per image: a scale per token would be zero at constant tokens.
    """
    size = (c_start**2).mean((1, 2)).clamp_min(1e-12)
    return ((c - c_start) ** 2).mean((1, 2)) / size


@dataclass(frozen=True)
class Engine:
    """Generator, encoder and critic of one call of `align`."""

    backbone: Backbone
    full: Schedule
    short: Schedule
    target: StructuralTarget
    weights: Mapping[int, Tensor]
    settings: AlignmentSettings

    def loss_of(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of the images of some rows of the batch."""
        features = self.backbone.clip_layers(images, self.target.layers)
        target = self.target.rows(rows)
        weights = {layer: w[rows] for layer, w in self.weights.items()}
        return structural_loss(features, target, weights)

    def imagine(self, latent: Latent) -> Tensor:
        """Return images that carry the gradient, by the optimiser's sampler."""
        memory = self.settings.memory
        parts = (latent.z, latent.c, latent.noise)
        latents = img2img(self.backbone, *parts, self.short, memory=memory)
        return self.backbone.decode_latents(latents)

    def finish(self, latent: Latent, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the complete sampler's images and their losses, no gradient."""
        images = sample(self.backbone, latent.z, latent.c, latent.noise, self.full)
        with torch.no_grad():
            return images, self.loss_of(images, rows)


def surrogate(full: Schedule, settings: AlignmentSettings) -> Schedule:
    """Return the sampler that is optimised through, of the complete one `full`."""
    n_steps, scale = settings.n_steps, settings.guidance_scale
    return thin(
        full,
        len(full.timesteps) if n_steps is None else n_steps,
        full.guidance[0] if scale is None else scale,
        solver=settings.solver,
        guided_share=settings.guided_share,
    )


def make_engine(
    backbone: Backbone,
    target: StructuralTarget,
    diffusion: DiffusionSettings,
    settings: AlignmentSettings,
) -> Engine:
    """Return the graph of one call of `align`.

    Raises
    ------
    ConfigError
        c is to move, but the sampler does not read it.
    """
    full = make_schedule(backbone, diffusion)
    short = surrogate(full, settings)
    if settings.lr_c > 0 and not short.reads_text:
        raise ConfigError(
            "With a guidance_scale of 0 the U-Net does not read c, so c cannot be"
            " optimised: raise the guidance or set lr_c to 0."
        )
    weights = layer_weights(target, settings.critic)
    return Engine(backbone, full, short, target, weights, settings)
