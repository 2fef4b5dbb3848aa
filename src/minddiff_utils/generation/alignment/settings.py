"""What stage 2 starts from, how it optimises, and what it returns.

Nothing is computed here. Place in the flow: the lowest module of `alignment`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from minddiff_utils.core.config import Stage2Config
from minddiff_utils.core.errors import (
    ConfigError,
    check_choice,
)
from minddiff_utils.generation.critic import (
    CRITICS,
    Critic,
)
from minddiff_utils.generation.diffusion import (
    SOLVERS,
    Memory,
    Solver,
)

__all__ = [
    "AlignmentResult",
    "AlignmentSettings",
    "Keeper",
    "Latent",
    "State",
    "preset",
]

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
    stop_level : float
        An image stops when its loss is at or below this times the discrepancy level
        (`critic.discrepancy`); 0 means never. For fixed noise only.
    choose : {"best", "last"}
        Which candidate is returned: that of the lowest loss, or the last one.
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
    solver: Solver = "ddim"
    guided_share: float = 1.0
    stop_level: float = 0.0
    choose: Literal["best", "last"] = "best"
    n_candidates: int = 4
    n_trajectory: int = 8
    memory: Memory = "store"

    def __post_init__(self) -> None:
        check_choice(self.optimiser, ("gradient", "adam"), "optimiser")
        check_choice(self.critic, CRITICS, "critic")
        check_choice(self.noise, ("fixed", "fresh"), "noise")
        check_choice(self.solver, SOLVERS, "solver")
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
        if not self.stop_level >= 0:
            raise ConfigError(
                f"stop_level is {self.stop_level}, but must be 0 or above."
            )
        if self.noise == "fresh" and self.stop_level:
            raise ConfigError(
                "Under fresh noise the loss jumps from one draw to the next, so it must"
                " be stopped by n_iter alone: set stop_level to 0."
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
        stop_level=config.stop_level,
        **common,
    )
