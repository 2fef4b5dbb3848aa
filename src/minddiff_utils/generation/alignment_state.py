"""What the loop of stage 2 goes through, and what it remembers.

The graph from latent to loss; the variables, losses and best iterates of a run, and who
has stopped. All of it can be put away as arrays and taken up again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minddiff_utils.core.errors import ConfigError, ModelError
from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.generation.presets import AlignmentSettings
from minddiff_utils.generation.sampler import (
    Schedule,
    img2img,
    make_schedule,
    sample,
)
from minddiff_utils.generation.structural_loss import StructuralLoss, StructuralTarget
from minddiff_utils.models import Backbone

__all__ = [
    "Latent",
    "Objective",
    "Progress",
    "State",
    "make_objective",
    "stage1_images",
]

State = Mapping[str, npt.NDArray[Any]]


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
    names : sequence
        What to call the images in messages and in the progress bar; default: rows.
    images : Tensor, optional
        Stage 1's images of it (n, 3, S, S) in [-1, 1]; sampled where they are missing.
    """

    z: Tensor
    c: Tensor
    noise: Tensor
    names: Sequence[object] = ()
    images: Tensor | None = None


def stage1_images(backbone: Backbone, latent: Latent, full: Schedule) -> Tensor:
    """Return the sampler's images of a latent: those it has, or sampled."""
    if latent.images is not None:
        return latent.images
    return sample(backbone, latent.z, latent.c, latent.noise, full)


@dataclass(frozen=True)
class Objective:
    """Latent → generator → encoder → loss, as one graph."""

    backbone: Backbone
    schedule: Schedule
    loss: StructuralLoss
    settings: AlignmentSettings

    def loss_of(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of the images of some rows of the batch."""
        features = self.backbone.clip_layers(images, self.loss.target.layers)
        return self.loss.rows(rows)(features)

    def imagine(self, latent: Latent) -> Tensor:
        """Return images that carry the gradient."""
        memory = self.settings.memory
        parts = (latent.z, latent.c, latent.noise)
        latents = img2img(self.backbone, *parts, self.schedule, memory=memory)
        return self.backbone.decode_latents(latents)

    def finish(self, latent: Latent, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return clipped images and their losses, no gradient."""
        images = stage1_images(self.backbone, latent, self.schedule)
        with torch.no_grad():
            return images, self.loss_of(images, rows)


def make_objective(
    backbone: Backbone,
    target: StructuralTarget,
    diffusion: Stage1Config,
    settings: AlignmentSettings,
) -> Objective:
    """Return the graph of one call of `align`.

    Raises
    ------
    ConfigError
        c is to move, but the sampler does not read it.
    """
    schedule = make_schedule(backbone, diffusion)
    if settings.lr_c > 0 and not schedule.reads_text:
        raise ConfigError(
            "With a guidance_scale of 0 the U-Net does not read c, so c cannot be"
            " optimised: raise the guidance or set lr_c to 0."
        )
    loss = StructuralLoss.of(target, settings.loss)
    return Objective(backbone, schedule, loss, settings)


def _spread(n_iter: int, n: int) -> tuple[int, ...]:
    """Return up to `n` distinct iterations, evenly spaced from 0 to `n_iter`."""
    return tuple(sorted({int(k) for k in np.linspace(0, n_iter, n).round()}))


class Best:
    """The best candidate of each image so far."""

    def __init__(self, images: Tensor, loss: Tensor, latent: Latent) -> None:
        unknown = torch.full_like(loss, torch.inf)
        self.images, self.loss = images.clone(), loss.where(~loss.isnan(), unknown)
        self.z, self.c = latent.z.detach().clone(), latent.c.detach().clone()
        self.iteration = torch.zeros(len(loss), dtype=torch.int64)

    def consider(
        self, iteration: int, images: Tensor, loss: Tensor, latent: Latent
    ) -> None:
        """Take what is better than before."""
        rows = loss < self.loss  # never NaN
        self.images[rows] = images[rows]
        self.loss[rows] = loss[rows]
        self.z[rows] = latent.z.detach()[rows]
        self.c[rows] = latent.c.detach()[rows]
        self.iteration[rows.cpu()] = iteration


def _check_gradient(name: str, gradient: Tensor | None, loss: Tensor) -> None:
    dead = gradient is None or not bool(gradient.any())
    if dead and bool((loss.detach() > 0).any()):
        raise ModelError(
            f"The structural loss has no gradient for {name}: some model on the way"
            " runs without gradients; use models that torch can differentiate."
        )


class Variables:
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

    def move(self, loss: Tensor, active: Tensor) -> None:
        """Step in the active rows; the others stay where they are."""
        if self.optimiser is None:
            return
        self.optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:  # without it backward would fail unexplained
            loss.sum().backward()  # type: ignore[no-untyped-call]
        for name, leaf, _ in self.moving:
            _check_gradient(name, leaf.grad, loss)
        before = [leaf.detach().clone() for _, leaf, _ in self.moving]
        for group in self.optimiser.param_groups:
            group["lr"] *= self.decay
        self.optimiser.step()
        with torch.no_grad():
            for (_, leaf, _), old in zip(self.moving, before, strict=True):
                leaf[~active] = old[~active]

    def state(self) -> dict[str, Tensor]:
        """Return the variables and what the rule remembers of earlier steps."""
        found = {"z": self.z.detach(), "c": self.c.detach()}
        if self.optimiser is not None:
            rates = [group["lr"] for group in self.optimiser.param_groups]
            found["lr"] = torch.tensor(rates, dtype=torch.float64)
            for name, leaf, _ in self.moving:
                for key, value in self.optimiser.state[leaf].items():
                    if isinstance(value, Tensor):  # SGD keeps an empty momentum
                        found[f"{name}_{key}"] = value
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state of variables with the same settings."""
        with torch.no_grad():
            self.z.copy_(state["z"])
            self.c.copy_(state["c"])
        if self.optimiser is None:
            return
        rates = state["lr"].tolist()
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
        for name, leaf, _ in self.moving:
            start = f"{name}_"  # "z/…" could not stand beside "z" in a file
            kept = {  # Adam counts its steps, a scalar, on the CPU
                key.removeprefix(start): value.to(leaf.device) if value.ndim else value
                for key, value in state.items()
                if key.startswith(start)
            }
            if kept:
                self.optimiser.state[leaf] = kept


class Progress:
    """What a run has seen so far; it can be put away as arrays and taken up again.

    `moved` marks images whose iterate is no candidate yet.
    """

    #: Tensors that are put away.
    KEPT = (
        *("losses", "candidate_losses", "frames", "last", "seconds", "active"),
        *("moved", "diverged", "stopped", "finishes", "looks", "steps"),
    )

    def __init__(self, objective: Objective, start: Latent) -> None:
        settings, n, device = objective.settings, len(start.z), start.z.device
        self.objective, self.start = objective, start
        self.variables = Variables(start, settings)
        self.candidates = _spread(settings.n_iter, settings.n_candidates + 1)
        self.shown = _spread(settings.n_iter, settings.n_trajectory)
        self.iteration = 0
        self.losses = torch.full((n, settings.n_iter + 1), torch.nan)
        self.candidate_losses = torch.full((n, len(self.candidates)), torch.nan)
        self.active = torch.ones(n, dtype=torch.bool, device=device)
        self.moved = torch.zeros(n, dtype=torch.bool, device=device)
        self.diverged = torch.zeros(n, dtype=torch.bool)
        self.stopped = torch.full((n,), settings.n_iter)
        self.finishes = torch.ones(n, dtype=torch.int64)
        self.looks, self.steps = torch.zeros(2, n, dtype=torch.int64).unbind()
        self.seconds = torch.zeros(settings.n_iter + 1, dtype=torch.float64)
        images, loss = objective.finish(start, torch.arange(n, device=device))
        self.best = Best(images, loss, start)
        self.candidate_losses[:, 0] = loss
        self.last = images.clone()  # of each image, as the optimiser saw it
        self.frames = images.new_zeros((n, len(self.shown), *images.shape[1:]))

    @property
    def rows(self) -> Tensor:
        """Return the images that still move."""
        return self.active.nonzero()[:, 0]

    def latent(self, rows: Tensor) -> Latent:
        """Return the present iterate of some images, with its graph."""
        z, c = self.variables.z[rows], self.variables.c[rows]
        return Latent(z, c, self.start.noise[rows])

    def consider(self) -> None:
        """Make the images of what has moved since the last candidate."""
        column = self.candidates.index(self.iteration)
        self.candidate_losses[:, column] = self.candidate_losses[:, column - 1]
        rows = self.moved.nonzero()[:, 0]
        if len(rows):
            found, loss = self.objective.finish(self.latent(rows), rows)
            images = self.best.images.clone()
            losses = torch.full_like(self.best.loss, torch.nan)
            images[rows], losses[rows] = found, loss
            now = Latent(self.variables.z, self.variables.c, self.start.noise)
            self.best.consider(self.iteration, images, losses, now)
            self.moved[rows] = False
            rows = rows.cpu()
            self.candidate_losses[rows, column] = loss.float().cpu()
            self.finishes[rows] += 1

    def see(self, rows: Tensor, images: Tensor, loss: Tensor) -> None:
        """Note this iteration's losses and images; end those without a number."""
        frames = images.detach().clamp(-1, 1).to(self.last)
        finite = loss.isfinite() & frames.isfinite().flatten(1).all(1)
        self.looks[rows.cpu()] += 1
        self.losses[rows.cpu(), self.iteration] = loss.detach().float().cpu()
        self.last[rows[finite]] = frames[finite]
        self._end(rows[~finite])
        self.diverged[rows[~finite].cpu()] = True
        self.moved[rows[~finite]] = False  # there is nothing to show

    def show(self) -> None:
        """Keep a frame of every image; one that has stopped shows its last."""
        if self.iteration in self.shown:
            self.frames[:, self.shown.index(self.iteration)] = self.last

    def _end(self, rows: Tensor) -> None:
        self.active[rows] = False
        self.stopped[rows.cpu()] = self.iteration

    def state(self, generators: Sequence[torch.Generator]) -> State:
        """Return everything that the rest of the run depends on."""
        tensors = {name: getattr(self, name) for name in self.KEPT}
        tensors |= {f"move/{k}": v for k, v in self.variables.state().items()}
        tensors |= {f"best/{k}": v for k, v in vars(self.best).items()}
        tensors |= {f"random/{k}": g.get_state() for k, g in enumerate(generators)}
        # copies: the run goes on, and must not change what was kept
        arrays = {k: v.detach().cpu().numpy().copy() for k, v in tensors.items()}
        return {**arrays, "iteration": np.array(self.iteration)}

    def restore(self, state: State, generators: Sequence[torch.Generator]) -> None:
        """Go back to a state of a run with the same settings and images."""
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
        for name in self.KEPT:
            getattr(self, name).copy_(tensors[name])
        for name, value in vars(self.best).items():
            value.copy_(tensors[f"best/{name}"])
        moves = {k[5:]: v for k, v in tensors.items() if k.startswith("move/")}
        self.variables.restore(moves)
        for k, generator in enumerate(generators):
            generator.set_state(tensors[f"random/{k}"])
        self.iteration = int(state["iteration"])
