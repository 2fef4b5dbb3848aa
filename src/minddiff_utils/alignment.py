"""Stage 2: gradient steps on z and c until the image shows the decoded structure.

Latent → generator → encoder → critic: the latent (z, c, noise) becomes an image through
the sampler of stage 1 and the autoencoder, the image becomes CLIP features, and the
critic (`critic`) compares them with the features decoded from the brain; the gradient
goes all the way back. Images share a batch, never a number: each has its own loss, its
own noise, its own stop and its own best iterate. It reads no files. Place in the flow:
layer 8, after stage 1. The other engine, which steers the sampling itself, is
`guidance`.

Three presets. `paper` is Algorithm 1: plain gradient steps on z and c through the
complete sampler. `released` is what the published code does: Adam on z alone, decaying,
with fresh noise in every iteration and layer weights. `fast` is ours: the loop of
Algorithm 1 through a short surrogate of the sampler, Adam, an anchor on c, a stop, and
the final image always by the complete sampler.

Notation: z, c, ε as in `diffusion`; η = step size.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from minddiff_utils.backbone import Backbone
from minddiff_utils.config import Stage2Config
from minddiff_utils.critic import (
    CRITICS,
    Critic,
    StructuralTarget,
    discrepancy,
    layer_weights,
    structural_loss,
)
from minddiff_utils.diffusion import (
    SOLVERS,
    DiffusionSettings,
    Memory,
    Schedule,
    Solver,
    draw_noise,
    img2img,
    make_schedule,
    sample,
    thin,
    with_active_steps,
)
from minddiff_utils.errors import (
    ConfigError,
    DataError,
    ModelError,
    check_choice,
    check_shape,
)

__all__ = [
    "AlignmentResult",
    "AlignmentSettings",
    "Keeper",
    "Latent",
    "align",
    "preset",
    "surrogate",
]

LOG = logging.getLogger(__name__)

#: Step size of Algorithm 1 and learning rate of the released code.
PAPER_STEP = 0.01
#: Decay of the released code's learning rate per iteration.
RELEASED_DECAY = 0.999

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
    """

    z: Tensor
    c: Tensor
    noise: Tensor
    names: Sequence[object] = ()


@dataclass(frozen=True)
class AlignmentSettings:
    """How stage 2 optimises.

    Attributes
    ----------
    n_iter : int
        Gradient steps, at most.
    lr_z, lr_c : float
        Step sizes; 0 leaves the variable as decoded.
    lr_decay : float
        Factor on both step sizes before every step, the first one too, as in the
        released code.
    optimiser : {"gradient", "adam"}
        Plain gradient step, or Adam.
    critic : {"paper", "released", "balanced"}
        Layer weights, see `critic.layer_weights`.
    noise : {"fixed", "fresh"}
        Whether ε stays or is drawn anew in every iteration.
    anchor_c : float
        Weight of the penalty on c's displacement.
    n_steps, guidance_scale : int, float or None
        Steps and guidance of the surrogate sampler; None means the complete sampler's.
    solver : str
        The surrogate's, one of `diffusion.SOLVERS`; the complete sampler is DDIM.
    guided_share : float
        Share of the surrogate's steps, from the noisiest, that are guided.
    active_steps : int or None
        Steps of it in which the U-Net's gradient is formed; None means all.
    precision : {"float32", "bfloat16"}
        Of the U-Net while optimising; the complete sampler keeps its own.
    stop_level : float
        An image stops when its loss is at or below this times the discrepancy level
        (`critic.discrepancy`); 0 means never.
    stop_window, stop_gain : int, float
        An image stops when its loss has not fallen by the share `stop_gain` within
        `stop_window` iterations; 0 iterations mean never. For fixed noise only.
    choose : {"best", "last"}
        Which candidate is returned: that of the lowest loss, or the last one.
    n_candidates : int
        Iterates, evenly spaced, whose images the complete sampler makes for the choice.
    n_trajectory : int
        Iterates whose images are kept for show.
    memory : {"store", "checkpoint"}
        See `diffusion.img2img`.
    decode : callable or None
        Latents (n, C, h, w) to images while optimising; None means the autoencoder's.
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
    solver: Solver = "ddim"
    guided_share: float = 1.0
    active_steps: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    stop_level: float = 0.0
    stop_window: int = 0
    stop_gain: float = 0.005
    choose: Literal["best", "last"] = "best"
    n_candidates: int = 4
    n_trajectory: int = 8
    memory: Memory = "store"
    decode: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        check_choice(self.optimiser, ("gradient", "adam"), "optimiser")
        check_choice(self.critic, CRITICS, "critic")
        check_choice(self.noise, ("fixed", "fresh"), "noise")
        check_choice(self.solver, SOLVERS, "solver")
        check_choice(self.precision, ("float32", "bfloat16"), "precision")
        check_choice(self.choose, ("best", "last"), "choose")
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
        stops = (self.stop_level, self.stop_window, self.stop_gain)
        if not all(value >= 0 for value in stops):
            raise ConfigError(
                f"stop_level is {self.stop_level}, stop_window {self.stop_window} and"
                f" stop_gain {self.stop_gain}, but they must be 0 or above."
            )
        if self.noise == "fresh" and (self.stop_level or self.stop_window):
            raise ConfigError(
                "Under fresh noise the loss jumps from one draw to the next, so it must"
                " be stopped by n_iter alone: set stop_level and stop_window to 0."
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
        sampler where there is one; NaN after an image's last step.
    candidates : tuple of int
        Iterations whose images the complete sampler made; 0 is stage 1. An image that
        has stopped shows its last iterate at the later ones.
    candidate_losses : ndarray
        Structural loss of those images, clipped to [-1, 1], (n, number of candidates).
    best_iteration : ndarray
        The chosen candidate of each image: with `choose` "best" that of the lowest
        loss, the earlier one on a tie; one without a number (the steps diverged) is
        never chosen over one with.
    stopped : ndarray
        Steps that each image took, (n,); below n_iter where it stopped by itself.
    diverged : ndarray
        Whether its loss lost its number, which ended its steps, bool (n,).
    trajectory : Tensor
        Images along the way, as the optimiser saw them, (n, n_trajectory, 3, S, S).
    trajectory_iterations : tuple of int
        Their iterations.
    z, c : Tensor
        Latents and text of the chosen iterate.
    seconds : ndarray
        Wall time at the end of each iteration, for the whole batch, (n_iter + 1,).
    n_unet_evaluations : ndarray
        U-Net forward passes of each image, optimisation and candidates together, (n,).
    n_unet_gradients : ndarray
        U-Net backward passes of each image, (n,).
    """

    images: Tensor
    losses: npt.NDArray[np.float32]
    candidates: tuple[int, ...]
    candidate_losses: npt.NDArray[np.float32]
    best_iteration: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.int64]
    diverged: npt.NDArray[np.bool_]
    trajectory: Tensor
    trajectory_iterations: tuple[int, ...]
    z: Tensor
    c: Tensor
    seconds: npt.NDArray[np.float64]
    n_unet_evaluations: npt.NDArray[np.int64]
    n_unet_gradients: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Keeper:
    """Where the state of a run is kept, so that it can go on where it was cut off.

    Attributes
    ----------
    load : callable
        Returns the last state saved, or None.
    save : callable
        Keeps a state (arrays by name); the one before may be dropped.
    every : int
        Iterations between two states.
    """

    load: Callable[[], State | None]
    save: Callable[[State], None]
    every: int


# --- presets ------------------------------------------------------------------------


def preset(config: Stage2Config, *, memory: Memory = "store") -> AlignmentSettings:
    """Return the settings that the profile's `stage2` part stands for.

    `paper` and `released` keep their published step sizes whatever the profile says;
    `lr_z`, `lr_c`, `anchor_c` and the fields of the surrogate belong to `fast`. The
    paper does not say whether ε is drawn anew; `paper` keeps it, so that the losses of
    two iterations can be compared.

    References
    ----------
    `paper`: MindDiffuser Algorithm 1 (η = 0.01, sum of squared errors, c and z).
    `released`: `Reconstruction.py`, commit c9773ac (Adam 0.01, decay 0.999, z only).
    """
    common: dict[str, Any] = {
        "n_iter": config.n_iter,
        "n_trajectory": config.n_trajectory,
        "n_candidates": config.n_candidates,
        "memory": memory,
    }
    if config.preset == "paper":
        eta = config.step_paper
        return AlignmentSettings(lr_z=eta, lr_c=eta, optimiser="gradient", **common)
    if config.preset == "released":
        return AlignmentSettings(
            lr_z=PAPER_STEP,
            lr_c=0.0,
            lr_decay=RELEASED_DECAY,
            critic="released",
            noise="fresh",
            **common,
        )
    common["n_iter"] = (
        config.n_iter if config.n_iter_fast is None else config.n_iter_fast
    )
    common["n_candidates"] = config.n_candidates_fast or config.n_candidates
    return AlignmentSettings(
        lr_z=config.lr_z,
        lr_c=config.lr_c,
        critic="balanced",
        anchor_c=config.anchor_c,
        n_steps=config.n_steps_fast,
        guidance_scale=config.guidance_scale_fast,
        guided_share=config.guided_share_fast,
        solver=config.solver_fast,
        precision=config.precision_fast,
        stop_level=config.stop_level,
        **common,
    )


# --- generator, encoder, critic -------------------------------------------------------


def _anchor(c: Tensor, c_start: Tensor) -> Tensor:
    """Return c's mean squared displacement relative to its mean square, (n,).

    One scale per image: a scale per token would be zero at constant tokens.
    """
    size = (c_start**2).mean((1, 2)).clamp_min(1e-12)
    return ((c - c_start) ** 2).mean((1, 2)) / size


@dataclass(frozen=True)
class _Engine:
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
        low = self.settings.precision == "bfloat16"
        kind = self.backbone.device.type
        with torch.autocast(kind, torch.bfloat16) if low else nullcontext():
            latents = img2img(self.backbone, *parts, self.short, memory=memory)
        decode = self.settings.decode or self.backbone.decode_latents
        return decode(latents)

    def finish(self, latent: Latent, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the complete sampler's images and their losses, no gradient."""
        images = sample(self.backbone, latent.z, latent.c, latent.noise, self.full)
        with torch.no_grad():
            return images, self.loss_of(images, rows)


def surrogate(full: Schedule, settings: AlignmentSettings) -> Schedule:
    """Return the sampler that is optimised through, of the complete one `full`."""
    n_steps, scale = settings.n_steps, settings.guidance_scale
    short = thin(
        full,
        len(full.timesteps) if n_steps is None else n_steps,
        full.guidance[0] if scale is None else scale,
        solver=settings.solver,
        guided_share=settings.guided_share,
    )
    n_active = settings.active_steps
    return short if n_active is None else with_active_steps(short, n_active)


def _engine(
    backbone: Backbone,
    target: StructuralTarget,
    diffusion: DiffusionSettings,
    settings: AlignmentSettings,
) -> _Engine:
    full = make_schedule(backbone, diffusion)
    short = surrogate(full, settings)
    if settings.lr_c > 0 and not short.reads_text:
        raise ConfigError(
            "With a guidance_scale of 0 the U-Net does not read c, so c cannot be"
            " optimised: raise the guidance or set lr_c to 0."
        )
    weights = layer_weights(target, settings.critic)
    return _Engine(backbone, full, short, target, weights, settings)


def _spread(n_iter: int, n: int) -> tuple[int, ...]:
    """Return up to `n` distinct iterations, evenly spaced from 0 to `n_iter`."""
    return tuple(sorted({int(k) for k in np.linspace(0, n_iter, n).round()}))


# --- what a run remembers -------------------------------------------------------------


class _Best:
    """The best candidate of each image so far, by the complete sampler's loss."""

    def __init__(self, images: Tensor, loss: Tensor, latent: Latent) -> None:
        unknown = torch.full_like(loss, torch.inf)
        self.images, self.loss = images.clone(), loss.where(~loss.isnan(), unknown)
        self.z, self.c = latent.z.detach().clone(), latent.c.detach().clone()
        self.iteration = torch.zeros(len(loss), dtype=torch.int64)

    def consider(
        self, iteration: int, images: Tensor, loss: Tensor, latent: Latent
    ) -> None:
        """Take what is better than before."""
        self._take(loss < self.loss, iteration, images, loss, latent)  # never NaN

    def replace(
        self, iteration: int, images: Tensor, loss: Tensor, latent: Latent
    ) -> None:
        """Take whatever has a number."""
        self._take(loss.isfinite(), iteration, images, loss, latent)

    def _take(
        self, rows: Tensor, iteration: int, images: Tensor, loss: Tensor, latent: Latent
    ) -> None:
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

    def move(self, objective: Tensor, loss: Tensor, active: Tensor) -> None:
        """Step in the active rows; the others stay where they are."""
        if self.optimiser is None:
            return
        self.optimiser.zero_grad(set_to_none=True)
        if objective.requires_grad:  # without it backward would fail unexplained
            objective.backward()  # type: ignore[no-untyped-call]
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


class _Progress:
    """What a run has seen so far; it can be put away as arrays and taken up again.

    `moved` marks images whose iterate the complete sampler has not shown yet.
    """

    #: Tensors that are put away.
    KEPT = (
        *("losses", "candidate_losses", "frames", "last", "seconds", "active"),
        *("moved", "diverged", "stopped", "finishes", "looks", "steps"),
    )

    def __init__(self, engine: _Engine, start: Latent) -> None:
        settings, n, device = engine.settings, len(start.z), start.z.device
        self.engine, self.start = engine, start
        self.variables = _Variables(start, settings)
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
        images, loss = engine.finish(start, torch.arange(n, device=device))
        self.best = _Best(images, loss, start)
        self.candidate_losses[:, 0] = loss
        self.last = images.clone()  # of each image, by the optimiser's sampler
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
        """Let the complete sampler show what has moved since the last candidate."""
        column = self.candidates.index(self.iteration)
        self.candidate_losses[:, column] = self.candidate_losses[:, column - 1]
        rows = self.moved.nonzero()[:, 0]
        if len(rows):
            found, loss = self.engine.finish(self.latent(rows), rows)
            images = self.best.images.clone()
            losses = torch.full_like(self.best.loss, torch.nan)
            images[rows], losses[rows] = found, loss
            now = Latent(self.variables.z, self.variables.c, self.start.noise)
            last = self.engine.settings.choose == "last"
            take = self.best.replace if last else self.best.consider
            take(self.iteration, images, losses, now)
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

    def stop(self, level: Tensor | None) -> None:
        """End the images that have reached their level or gain no more."""
        settings, now = self.engine.settings, self.iteration
        done = torch.zeros_like(self.diverged)
        if level is not None:
            done |= self.losses[:, now] <= level.cpu()
        window = settings.stop_window
        if 0 < window <= now:
            recent = self.losses[:, now - window + 1 : now + 1].amin(1)
            before = self.losses[:, : now - window + 1].amin(1)
            done |= recent > (1 - settings.stop_gain) * before
        self._end((done.to(self.active.device) & self.active).nonzero()[:, 0])

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


# --- the loop -------------------------------------------------------------------------


def align(
    backbone: Backbone,
    latent: Latent,
    target: StructuralTarget,
    diffusion: DiffusionSettings,
    settings: AlignmentSettings,
    *,
    generators: Sequence[torch.Generator] = (),
    keeper: Keeper | None = None,
) -> AlignmentResult:
    """Align n images with their decoded structure.

    An image whose loss is no longer a number stops where its best iterate is; a warning
    says which one, and the others go on.

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
    keeper : Keeper, optional
        Keeps the state every so often, and gives back the one to go on from. The rest
        of the run is the same, to the byte.

    Raises
    ------
    ConfigError
        c is to move, but the sampler's guidance of 0 does not read it.
    DataError
        Fresh noise without one generator per image, latents and targets of another
        number of images, or a stop at a discrepancy level that is not known.
    ModelError
        The gradient does not reach z or c.

    References
    ----------
    MindDiffuser Algorithm 1. The rule for the chosen image is ours, the paper has none:
    the lowest structural loss of the complete sampler's image among iteration 0 and
    `n_candidates` evenly spaced iterations.
    """
    engine = _engine(backbone, target, diffusion, settings)
    if target.n_images != len(latent.z):
        raise DataError(
            f"There are {len(latent.z)} latents but targets of {target.n_images}"
            " images: pass the same images."
        )
    if settings.noise == "fresh" and len(generators) != len(latent.z):
        raise DataError(
            f"Fresh noise needs one generator per image: {len(generators)} were given"
            f" for {len(latent.z)} images."
        )
    names = latent.names or range(len(latent.z))
    check_shape((len(names),), (len(latent.z),), "names")
    progress = _Progress(engine, latent)
    state = keeper.load() if keeper is not None else None
    if state is not None:
        progress.restore(state, generators)
    _optimise(progress, generators, names, keeper)
    return _result(progress)


def _optimise(
    run: _Progress,
    generators: Sequence[torch.Generator],
    names: Sequence[object],
    keeper: Keeper | None,
) -> None:
    """Take all steps that are left."""
    settings, began = run.engine.settings, time.perf_counter()
    level = None
    if settings.stop_level > 0:
        level = settings.stop_level * discrepancy(run.engine.target, settings.critic)
    spent = float(run.seconds[run.iteration - 1]) if run.iteration else 0.0
    label = f"stage 2, images {names[0]} to {names[-1]}"
    steps = range(run.iteration, settings.n_iter + 1)
    bar = tqdm(steps, desc=label, leave=False, mininterval=2.0)
    for iteration in bar:
        run.iteration = iteration
        if keeper is not None and iteration % keeper.every == 0 and iteration:
            keeper.save(run.state(generators))
        # 1. candidates come from the complete sampler, under the noise of stage 1
        if iteration in run.candidates[1:]:
            run.consider()
        _iterate(run, generators, names, level)
        run.show()
        run.seconds[iteration] = spent + time.perf_counter() - began
        loss = float(run.losses[:, iteration].nanmean())
        bar.set_postfix(loss=f"{loss:.4g}", moving=int(run.active.sum()))


def _iterate(
    run: _Progress,
    generators: Sequence[torch.Generator],
    names: Sequence[object],
    level: Tensor | None,
) -> None:
    """Look at the present iterates and take a step from them."""
    settings, last = run.engine.settings, run.iteration == run.engine.settings.n_iter
    noise = run.start.noise
    if settings.noise == "fresh" and run.iteration > 0:
        noise = draw_noise(run.engine.backbone, generators)
    rows = run.rows
    if not len(rows):
        return
    # 2. latent → generator → encoder → critic
    with torch.set_grad_enabled(not last):
        part = run.latent(rows)
        now = Latent(part.z, part.c, noise[rows])
        images = run.engine.imagine(now)
        loss = run.engine.loss_of(images, rows)
        objective = loss + settings.anchor_c * _anchor(now.c, run.start.c[rows])
    run.see(rows, images, loss)
    for row in rows[~run.active[rows]].tolist():
        LOG.warning(
            "image %s: the loss is no longer a number after iteration %d; it keeps its"
            " best iterate until there",
            names[row],
            run.iteration,
        )
    run.stop(level)
    # 3. a gradient step on z and c (Algorithm 1, lines 6 and 7)
    moving = run.active[rows]
    if not last and bool(moving.any()) and run.variables.moving:
        run.variables.move(objective[moving].sum(), loss[moving], run.active)
        run.moved |= run.active
        run.steps[run.rows.cpu()] += 1


def _result(run: _Progress) -> AlignmentResult:
    full, short = run.engine.full, run.engine.short
    looking = run.looks * short.n_unet_evaluations
    gradients = run.steps * short.n_unet_gradients
    evaluations = looking + run.finishes * full.n_unet_evaluations
    return AlignmentResult(
        images=run.best.images,
        losses=run.losses.numpy(),
        candidates=run.candidates,
        candidate_losses=run.candidate_losses.numpy(),
        best_iteration=run.best.iteration.numpy(),
        stopped=run.stopped.numpy(),
        diverged=run.diverged.numpy(),
        trajectory=run.frames,
        trajectory_iterations=run.shown,
        z=run.best.z,
        c=run.best.c,
        seconds=run.seconds.numpy(),
        n_unet_evaluations=evaluations.numpy(),
        n_unet_gradients=gradients.numpy(),
    )
