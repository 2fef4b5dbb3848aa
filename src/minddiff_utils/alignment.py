"""Stage 2: gradient steps on z and c until the image shows the decoded structure.

Latent → generator → encoder → critic: the latent (z, c, noise) becomes an image through
the sampler of stage 1 and the autoencoder, the image becomes CLIP features, and the
critic compares them with the features decoded from the brain; the gradient goes all the
way back. Images share a batch, never a number: each has its own loss, its own noise and
its own best iterate. It reads no files. Place in the flow: layer 8, after stage 1.

Three presets. `paper` is Algorithm 1: plain gradient steps on z and c through the
complete sampler. `released` is what the published code does: Adam on z alone, decaying,
with fresh noise in every iteration and layer weights. `fast` is ours: the loop of
Algorithm 1 through a short surrogate of the sampler, Adam, an anchor on c, and the
final image always by the complete sampler.

Notation: z, c, ε as in `diffusion`; Z = decoded CLIP features, m = mask of selected
features, η = step size.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minddiff_utils.backbone import Backbone
from minddiff_utils.config import Stage2Config
from minddiff_utils.diffusion import (
    DiffusionSettings,
    Memory,
    Schedule,
    draw_noise,
    img2img,
    make_schedule,
    sample,
    thin,
)
from minddiff_utils.errors import (
    ConfigError,
    DataError,
    ModelError,
    check_choice,
    check_finite,
    check_shape,
)

__all__ = [
    "AlignmentResult",
    "AlignmentSettings",
    "Latent",
    "StructuralTarget",
    "align",
    "layer_weights",
    "preset",
    "structural_loss",
]

LOG = logging.getLogger(__name__)

#: Weights of blocks 1 to 6 in the released code (`Reconstruction.py`, MSE_CLIP_mask).
RELEASED_LAYER_WEIGHTS = (1.5, 1.2, 1.0, 1.0, 1.0, 1.0)
#: Step size of Algorithm 1 and learning rate of the released code.
PAPER_STEP = 0.01
#: Decay of the released code's learning rate per iteration.
RELEASED_DECAY = 0.999

Critic = Literal["paper", "released", "balanced"]


@dataclass(frozen=True)
class Latent:
    """What the generator starts from, for n images.

    Attributes
    ----------
    z : Tensor
        Standardised latents (n, C, h, w).
    c : Tensor
        Text sequences (n, n_tokens, d).
    noise : Tensor
        ε, (n, C, h, w).
    """

    z: Tensor
    c: Tensor
    noise: Tensor


@dataclass(frozen=True)
class StructuralTarget:
    """The decoded CLIP features, and which of them count.

    Attributes
    ----------
    features : mapping of int to Tensor
        Layer (1-based block) to Z, (n, n_features).
    selected : mapping of int to Tensor
        Layer to m, bool (n_features,): the k % best decoded on training data.
    scale : mapping of int to Tensor
        Layer to the training standard deviation of each feature, (n_features,).
    """

    features: Mapping[int, Tensor]
    selected: Mapping[int, Tensor]
    scale: Mapping[int, Tensor]

    def __post_init__(self) -> None:
        layers = set(self.features)
        if not layers or layers != set(self.selected) or layers != set(self.scale):
            raise DataError(
                "features, selected and scale must name the same layers, at least one,"
                f" but name {sorted(layers)}, {sorted(self.selected)} and"
                f" {sorted(self.scale)}."
            )
        empty = [k for k, mask in self.selected.items() if not bool(mask.any())]
        if empty:
            raise DataError(
                f"No feature of CLIP layer {empty[0]} is selected: raise k_percent."
            )
        for layer in self.layers:
            self._check_layer(layer, len(self.features[self.layers[0]]))

    def _check_layer(self, layer: int, n_images: int) -> None:
        features, mask = self.features[layer], self.selected[layer]
        width = tuple(features.shape[1:])
        check_shape(tuple(features.shape), (n_images, None), f"Z of layer {layer}")
        check_shape(tuple(mask.shape), width, f"selected of layer {layer}")
        check_shape(tuple(self.scale[layer].shape), width, f"scale of layer {layer}")
        if mask.dtype != torch.bool:
            raise DataError(
                f"selected of layer {layer} is {mask.dtype}, but must be bool."
            )
        finite = bool(features[:, mask].isfinite().all())
        check_finite(finite, f"Z of layer {layer}, where selected,")

    @property
    def layers(self) -> tuple[int, ...]:
        """Return the layers in ascending order."""
        return tuple(sorted(self.features))


@dataclass(frozen=True)
class AlignmentSettings:
    """How stage 2 optimises.

    Attributes
    ----------
    n_iter : int
        Gradient steps.
    lr_z, lr_c : float
        Step sizes; 0 leaves the variable as decoded.
    lr_decay : float
        Factor on both step sizes before every step, the first one too, as in the
        released code.
    optimiser : {"gradient", "adam"}
        Plain gradient step, or Adam.
    critic : {"paper", "released", "balanced"}
        Layer weights, see `layer_weights`.
    noise : {"fixed", "fresh"}
        Whether ε stays or is drawn anew in every iteration.
    anchor_c : float
        Weight of the penalty on c's displacement.
    n_steps, guidance_scale : int, float or None
        Steps and guidance of the surrogate sampler; None means the complete sampler.
    n_candidates : int
        Iterates, evenly spaced, whose images the complete sampler makes for the choice.
    n_trajectory : int
        Iterates whose images are kept for show.
    memory : {"store", "checkpoint"}
        See `diffusion.img2img`.
    """

    n_iter: int
    lr_z: float
    lr_c: float
    lr_decay: float = 1.0
    optimiser: Literal["gradient", "adam"] = "adam"
    critic: Critic = "paper"
    noise: Literal["fixed", "fresh"] = "fixed"
    anchor_c: float = 0.0
    n_steps: int | None = None
    guidance_scale: float | None = None
    n_candidates: int = 4
    n_trajectory: int = 8
    memory: Memory = "store"

    def __post_init__(self) -> None:
        check_choice(self.optimiser, ("gradient", "adam"), "optimiser")
        check_choice(self.critic, ("paper", "released", "balanced"), "critic")
        check_choice(self.noise, ("fixed", "fresh"), "noise")
        if self.n_iter < 0 or self.n_candidates < 1 or self.n_trajectory < 1:
            raise ConfigError(
                f"n_iter is {self.n_iter}, n_candidates {self.n_candidates} and"
                f" n_trajectory {self.n_trajectory}, but they must be at least 0, 1, 1."
            )
        rates = (self.lr_z, self.lr_c, self.anchor_c)
        if not (all(rate >= 0 for rate in rates) and self.lr_decay > 0):  # NaN fails
            raise ConfigError(
                f"lr_z is {self.lr_z}, lr_c {self.lr_c}, anchor_c {self.anchor_c} and"
                f" lr_decay {self.lr_decay}, but the first three must be 0 or above and"
                " lr_decay above 0."
            )


@dataclass(frozen=True)
class AlignmentResult:
    """What stage 2 found, for n images.

    Attributes
    ----------
    images : Tensor
        Chosen images (n, 3, S, S) in [-1, 1], by the complete sampler.
    losses : ndarray
        Structural loss that the optimiser saw, (n, n_iter + 1); through the surrogate
        sampler where there is one.
    candidates : tuple of int
        Iterations whose images the complete sampler made; 0 is stage 1.
    candidate_losses : ndarray
        Structural loss of those images, clipped to [-1, 1], (n, number of candidates).
    best_iteration : ndarray
        The candidate with the lowest loss of each image; the earlier one on a tie; one
        without a number (the steps diverged) is never chosen over one with.
    trajectory : Tensor
        Images along the way, as the optimiser saw them, (n, n_trajectory, 3, S, S);
        gray where the steps diverged.
    trajectory_iterations : tuple of int
        Their iterations.
    z, c : Tensor
        Latents and text of the chosen iterate.
    n_unet_evaluations : int
        U-Net forward passes per image, optimisation and candidates together.
    """

    images: Tensor
    losses: npt.NDArray[np.float32]
    candidates: tuple[int, ...]
    candidate_losses: npt.NDArray[np.float32]
    best_iteration: npt.NDArray[np.int64]
    trajectory: Tensor
    trajectory_iterations: tuple[int, ...]
    z: Tensor
    c: Tensor
    n_unet_evaluations: int


# --- presets ------------------------------------------------------------------------


def preset(config: Stage2Config, *, memory: Memory = "store") -> AlignmentSettings:
    """Return the settings that the profile's `stage2` part stands for.

    `paper` and `released` keep their published step sizes whatever the profile says;
    the profile's `lr_z`, `lr_c`, `anchor_c`, `n_steps_fast` and `guidance_scale_fast`
    belong to `fast`. The paper does not say whether ε is drawn anew; `paper` keeps it,
    so that the losses of two iterations can be compared.

    References
    ----------
    `paper`: MindDiffuser Algorithm 1 (η = 0.01, sum of squared errors, c and z).
    `released`: `Reconstruction.py`, commit c9773ac (Adam 0.01, decay 0.999, z only).
    """
    if config.preset == "paper":
        return AlignmentSettings(
            n_iter=config.n_iter,
            lr_z=PAPER_STEP,
            lr_c=PAPER_STEP,
            optimiser="gradient",
            n_trajectory=config.n_trajectory,
            memory=memory,
        )
    if config.preset == "released":
        return AlignmentSettings(
            n_iter=config.n_iter,
            lr_z=PAPER_STEP,
            lr_c=0.0,
            lr_decay=RELEASED_DECAY,
            critic="released",
            noise="fresh",
            n_trajectory=config.n_trajectory,
            memory=memory,
        )
    return AlignmentSettings(
        n_iter=config.n_iter,
        lr_z=config.lr_z,
        lr_c=config.lr_c,
        critic="balanced",
        anchor_c=config.anchor_c,
        n_steps=config.n_steps_fast,
        guidance_scale=config.guidance_scale_fast,
        n_trajectory=config.n_trajectory,
        memory=memory,
    )


# --- critic ---------------------------------------------------------------------------


def layer_weights(target: StructuralTarget, critic: Critic) -> dict[int, Tensor]:
    """Return each layer's weight per image, (n,), on the sum of squared errors.

    paper : 1.
    released : 1 / norm of the layer's masked target, made to sum to 1 over the layers,
        times 1.5, 1.2, 1, 1, … in the order of the layers, over the number of all
        features (the released code averages over masked entries too).
    balanced : 1 / (training variance of the layer's selected features, summed), over
        the number of layers: each layer counts the same, and guessing the mean gives
        about 1.

    Raises
    ------
    DataError
        balanced, and a layer's selected features have no training variance.

    References
    ----------
    MindDiffuser Algorithm 1, line 5; `MSE_CLIP_mask` of the released code (c9773ac).
    """
    n = len(next(iter(target.features.values())))
    weights: dict[int, Tensor] = {}
    norms = {k: _masked_norm(target, k) for k in target.layers}
    inverse_sum = torch.stack([1 / norm for norm in norms.values()]).sum(0)
    for order, layer in enumerate(target.layers):
        features, mask = target.features[layer], target.selected[layer]
        if critic == "paper":
            weights[layer] = features.new_ones(n)
        elif critic == "released":
            extra = (*RELEASED_LAYER_WEIGHTS, *[1.0] * order)[order]
            weights[layer] = extra / norms[layer] / inverse_sum / features.shape[1]
        else:
            variance = (target.scale[layer][mask] ** 2).sum()
            if not 0 < float(variance) < float("inf"):
                raise DataError(
                    f"The selected features of CLIP layer {layer} have variance"
                    f" {float(variance)} in training, so that their errors have no"
                    " scale: select others."
                )
            weights[layer] = features.new_ones(n) / (variance * len(target.layers))
    return weights


def _masked_norm(target: StructuralTarget, layer: int) -> Tensor:
    masked = _masked(target.features[layer], target.selected[layer])
    norm: Tensor = torch.linalg.vector_norm(masked, dim=1).clamp_min(1e-12)
    return norm


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` with 0 where not selected, even in place of a NaN."""
    return torch.where(mask, values, torch.zeros_like(values))


def structural_loss(
    features: Mapping[int, Tensor],
    target: StructuralTarget,
    weights: Mapping[int, Tensor],
) -> Tensor:
    """Return the weighted sum of squared errors of each image, (n,).

    L = Σ_layers w Σ_features m (f - Z)²

    References
    ----------
    MindDiffuser Algorithm 1, line 5 (w = 1).
    """
    total = torch.zeros_like(weights[target.layers[0]])
    for layer in target.layers:
        error = features[layer] - target.features[layer]
        error = _masked(error, target.selected[layer])
        total = total + weights[layer] * (error**2).sum(1)
    return total


def _anchor(c: Tensor, c_start: Tensor) -> Tensor:
    """Return c's mean squared displacement relative to its mean square, (n,).

    One scale per image: a scale per token would be zero at constant tokens.
    """
    size = (c_start**2).mean((1, 2)).clamp_min(1e-12)
    return ((c - c_start) ** 2).mean((1, 2)) / size


# --- the loop -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Engine:
    """Generator, encoder and critic of one call of `align`."""

    backbone: Backbone
    full: Schedule
    short: Schedule
    target: StructuralTarget
    weights: Mapping[int, Tensor]
    settings: AlignmentSettings

    def loss_of(self, images: Tensor) -> Tensor:
        features = self.backbone.clip_layers(images, self.target.layers)
        return structural_loss(features, self.target, self.weights)

    def imagine(self, latent: Latent) -> Tensor:
        """Return images that carry the gradient, by the optimiser's sampler."""
        latents = img2img(
            self.backbone,
            latent.z,
            latent.c,
            latent.noise,
            self.short,
            memory=self.settings.memory,
        )
        return self.backbone.decode_latents(latents)

    def finish(self, latent: Latent) -> tuple[Tensor, Tensor]:
        """Return the complete sampler's images and their losses, no gradient."""
        images = sample(self.backbone, latent.z, latent.c, latent.noise, self.full)
        with torch.no_grad():
            return images, self.loss_of(images)


def _spread(n_iter: int, n: int) -> tuple[int, ...]:
    """Return up to `n` distinct iterations, evenly spaced from 0 to `n_iter`."""
    return tuple(sorted({int(k) for k in np.linspace(0, n_iter, n).round()}))


class _Best:
    """The best candidate of each image so far, by the complete sampler's loss."""

    def __init__(self, images: Tensor, loss: Tensor, latent: Latent) -> None:
        unknown = torch.full_like(loss, torch.inf)
        self.images, self.loss = images.clone(), loss.where(~loss.isnan(), unknown)
        self.z, self.c = latent.z.detach().clone(), latent.c.detach().clone()
        self.iteration = np.zeros(len(loss), np.int64)

    def consider(
        self, iteration: int, images: Tensor, loss: Tensor, latent: Latent
    ) -> None:
        better = loss < self.loss  # NaN is never better
        self.images[better] = images[better]
        self.loss[better] = loss[better]
        self.z[better] = latent.z.detach()[better]
        self.c[better] = latent.c.detach()[better]
        self.iteration[better.cpu().numpy()] = iteration


def _check_gradient(name: str, gradient: Tensor | None, loss: Tensor) -> None:
    dead = gradient is None or not bool(gradient.any())
    if dead and bool((loss.detach() > 0).any()):
        raise ModelError(
            f"The structural loss has no gradient for {name}: some model on the way"
            " runs without gradients; use models that torch can differentiate."
        )


class _Trace:
    """What is seen along the way: losses, candidates' losses and images."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.candidate_losses: list[Tensor] = []
        self.frames: list[Tensor] = []

    def show(self, images: Tensor, iteration: int) -> None:
        frame = images.detach().clamp(-1, 1)
        diverged = int((~frame.isfinite()).flatten(1).any(1).sum())
        if diverged:
            LOG.warning("iteration %d: %d images diverged", iteration, diverged)
        self.frames.append(frame.nan_to_num(nan=0.0))


class _Variables:
    """z and c as leaves of the graph, and the rule that moves them."""

    def __init__(self, latent: Latent, settings: AlignmentSettings) -> None:
        self.z = latent.z.detach().clone().requires_grad_(settings.lr_z > 0)
        self.c = latent.c.detach().clone().requires_grad_(settings.lr_c > 0)
        pairs = (("z", self.z, settings.lr_z), ("c", self.c, settings.lr_c))
        self.moving = [(name, leaf, lr) for name, leaf, lr in pairs if lr > 0]
        groups = [{"params": [leaf], "lr": lr} for _, leaf, lr in self.moving]
        kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.SGD
        self.optimiser = kind(groups) if groups else None
        self.decay = settings.lr_decay

    def move(self, objective: Tensor, loss: Tensor) -> None:
        if self.optimiser is None:
            return
        self.optimiser.zero_grad(set_to_none=True)
        if objective.requires_grad:  # without it backward would fail unexplained
            objective.backward()  # type: ignore[no-untyped-call]
        for name, leaf, _ in self.moving:
            _check_gradient(name, leaf.grad, loss)
        for group in self.optimiser.param_groups:
            group["lr"] *= self.decay
        self.optimiser.step()


def align(
    backbone: Backbone,
    latent: Latent,
    target: StructuralTarget,
    diffusion: DiffusionSettings,
    settings: AlignmentSettings,
    *,
    generators: Sequence[torch.Generator] = (),
) -> AlignmentResult:
    """Align n images with their decoded structure.

    Parameters
    ----------
    latent : Latent
        What stage 1 started from; zero iterations give stage 1's images to the byte.
    target : StructuralTarget
        Decoded CLIP features.
    diffusion : DiffusionSettings
        Stage 1's complete sampler.
    settings : AlignmentSettings
        From `preset`.
    generators : sequence of torch.Generator
        One per image, after its first noise was drawn; only for fresh noise.

    Raises
    ------
    ConfigError
        c is to move, but the sampler's guidance of 0 does not read it.
    DataError
        Fresh noise without one generator per image, or latents and targets of another
        number of images.
    ModelError
        The gradient does not reach z or c.

    References
    ----------
    MindDiffuser Algorithm 1. The rule for the chosen image is ours, the paper has none:
    the lowest structural loss of the complete sampler's image among iteration 0 and
    `n_candidates` evenly spaced iterations.
    """
    engine = _engine(backbone, target, diffusion, settings)
    n_targets = len(target.features[target.layers[0]])
    if n_targets != len(latent.z):
        raise DataError(
            f"There are {len(latent.z)} latents but targets of {n_targets} images: pass"
            " the same images."
        )
    if settings.noise == "fresh" and len(generators) != len(latent.z):
        raise DataError(
            f"Fresh noise needs one generator per image: {len(generators)} were given"
            f" for {len(latent.z)} images."
        )
    return _optimise(engine, latent, generators)


def _engine(
    backbone: Backbone,
    target: StructuralTarget,
    diffusion: DiffusionSettings,
    settings: AlignmentSettings,
) -> _Engine:
    full = make_schedule(backbone, diffusion)
    short = full
    if settings.n_steps is not None:
        scale = settings.guidance_scale
        scale = full.guidance_scale if scale is None else scale
        short = thin(full, settings.n_steps, scale)
    if settings.lr_c > 0 and short.guidance_scale == 0:
        raise ConfigError(
            "With a guidance_scale of 0 the U-Net does not read c, so c cannot be"
            " optimised: raise the guidance or set lr_c to 0."
        )
    weights = layer_weights(target, settings.critic)
    return _Engine(backbone, full, short, target, weights, settings)


def _optimise(
    engine: _Engine, start: Latent, generators: Sequence[torch.Generator]
) -> AlignmentResult:
    settings = engine.settings
    candidates = _spread(settings.n_iter, settings.n_candidates + 1)
    shown = _spread(settings.n_iter, settings.n_trajectory)
    variables, trace = _Variables(start, settings), _Trace()
    images, loss = engine.finish(start)
    best = _Best(images, loss, start)
    trace.candidate_losses.append(loss)
    for iteration in range(settings.n_iter + 1):
        # 1. candidates come from the complete sampler, under the noise of stage 1
        now = Latent(variables.z, variables.c, start.noise)
        if iteration in candidates[1:]:
            images, loss = engine.finish(now)
            best.consider(iteration, images, loss, now)
            trace.candidate_losses.append(loss)
        # 2. latent → generator → encoder → critic
        if settings.noise == "fresh" and iteration > 0:
            now = Latent(now.z, now.c, draw_noise(engine.backbone, generators))
        last = iteration == settings.n_iter
        with torch.set_grad_enabled(not last):
            images = engine.imagine(now)
            loss = engine.loss_of(images)
            objective = loss + settings.anchor_c * _anchor(now.c, start.c)
        trace.losses.append(loss.detach())
        if iteration in shown:
            trace.show(images, iteration)
        # 3. a gradient step on z and c (Algorithm 1, lines 6 and 7)
        if not last:
            variables.move(objective.sum(), loss)
            LOG.debug("iteration %d: loss %.4g", iteration, trace.losses[-1].mean())
    return _result(engine, best, trace, candidates, shown)


def _result(
    engine: _Engine,
    best: _Best,
    trace: _Trace,
    candidates: tuple[int, ...],
    shown: tuple[int, ...],
) -> AlignmentResult:
    optimising = engine.short.n_unet_evaluations * len(trace.losses)
    choosing = engine.full.n_unet_evaluations * len(candidates)
    return AlignmentResult(
        images=best.images,
        losses=torch.stack(trace.losses, 1).float().cpu().numpy(),
        candidates=candidates,
        candidate_losses=torch.stack(trace.candidate_losses, 1).float().cpu().numpy(),
        best_iteration=best.iteration,
        trajectory=torch.stack(trace.frames, 1),
        trajectory_iterations=shown,
        z=best.z,
        c=best.c,
        n_unet_evaluations=optimising + choosing,
    )
