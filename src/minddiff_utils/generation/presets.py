"""Which sampler and which engine a profile, or one of its conditions, asks for.

Four presets of stage 2. `paper` is Algorithm 1: plain gradient steps on z and c through
the complete sampler. `released` is what the published code does: Adam on z alone,
decaying, with fresh noise in every iteration and layer weights. `fast` is ours: the
loop of Algorithm 1 through a short surrogate of the sampler, Adam, an anchor on c, and
the final image always by the complete sampler. `guided`, ours too, steers the sampling
itself and leaves z and c as decoded. Nothing is computed here.
"""

from dataclasses import dataclass
from typing import Any, Literal

from minddiff_utils.core.conditions import Condition
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.profile import Profile, Stage1Config, Stage2Config
from minddiff_utils.generation.sampler import Memory, Solver
from minddiff_utils.generation.structural_loss import Loss

__all__ = [
    "AlignmentSettings",
    "EngineSettings",
    "GuidanceSettings",
    "config_of",
    "engine_settings",
    "from_noise",
    "image_to_image",
    "layers_of",
    "sampler_of",
]

#: Step size of Algorithm 1 and learning rate of the released code.
PAPER_STEP = 0.01
#: Decay of the released code's learning rate per iteration.
RELEASED_DECAY = 0.999


@dataclass(frozen=True)
class AlignmentSettings:
    """How the loop over z and c optimises; the profile has checked single values.

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
    loss : {"paper", "released", "balanced"}
        Layer weights, see `structural_loss.layer_weights`.
    noise : {"fixed", "fresh"}
        Whether ε stays or is drawn anew in every iteration.
    anchor_c : float
        Weight of the penalty on c's displacement.
    n_steps, guidance_scale : int, float or None
        Steps and guidance of the surrogate sampler; None means the complete sampler's.
    solver : str
        The surrogate's, one of `sampler.SOLVERS`; the complete sampler is DDIM.
    guided_share : float
        Share of the surrogate's steps, from the noisiest, that are guided.
    stop_level : float
        An image stops when its loss is at or below this times the discrepancy level
        (`structural_loss.discrepancy`); 0 means never. For fixed noise only.
    n_candidates : int
        Iterates, evenly spaced, whose images the complete sampler makes for the choice.
    n_trajectory : int
        Iterates whose images are kept for show.
    memory : {"store", "checkpoint"}
        See `sampler.img2img`.
    """

    n_iter: int
    lr_z: float
    lr_c: float
    lr_decay: float = 1.0
    optimiser: Literal["gradient", "adam"] = "adam"
    loss: Loss = "paper"
    noise: Literal["fixed", "fresh"] = "fixed"
    anchor_c: float = 0.0
    n_steps: int | None = None
    guidance_scale: float | None = None
    solver: Solver = "ddim"
    guided_share: float = 1.0
    stop_level: float = 0.0
    n_candidates: int = 4
    n_trajectory: int = 8
    memory: Memory = "store"

    def __post_init__(self) -> None:
        if self.noise == "fresh" and self.stop_level:
            raise ConfigError(
                "Under fresh noise the loss jumps from one draw to the next, so it must"
                " be stopped by n_iter alone: set stop_level to 0."
            )


@dataclass(frozen=True)
class GuidanceSettings:
    """How the sampling is steered; the profile has checked single values.

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
    loss : {"paper", "released", "balanced"}
        Layer weights, see `structural_loss.layer_weights`.
    n_trajectory : int
        Clean estimates kept for show.
    memory : {"store", "checkpoint"}
        See `sampler.img2img`.
    """

    form: Literal["clean", "unet"] = "clean"
    strength: float = 0.1
    n_inner: int = 1
    first: float = 0.0
    last: float = 1.0
    loss: Loss = "balanced"
    n_trajectory: int = 8
    memory: Memory = "store"

    def __post_init__(self) -> None:
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


#: What tells which engine of stage 2 runs, and how.
EngineSettings = AlignmentSettings | GuidanceSettings


def engine_settings(config: Stage2Config) -> EngineSettings:
    """Return the settings of the engine that `config.preset` names.

    `released` keeps its published step size. The paper does not say whether ε is drawn
    anew; `paper` keeps it, so that the losses of two iterations can be compared.

    References
    ----------
    `paper`: MindDiffuser Algorithm 1 (η = 0.01, sum of squared errors, c and z).
    `released`: `Reconstruction.py`, commit c9773ac (Adam 0.01, decay 0.999, z only).
    """
    if config.preset == "guided":
        guided = config.guided
        return GuidanceSettings(
            form=guided.form,
            strength=guided.strength,
            n_inner=guided.n_inner,
            first=guided.range[0],
            last=guided.range[1],
            n_trajectory=config.n_trajectory,
        )
    section = config.paper if config.preset == "paper" else config.released
    common: dict[str, Any] = {
        "n_iter": section.n_iter,
        "n_candidates": section.n_candidates,
        "n_trajectory": config.n_trajectory,
    }
    if config.preset == "paper":
        eta = config.paper.step
        return AlignmentSettings(lr_z=eta, lr_c=eta, optimiser="gradient", **common)
    if config.preset == "released":
        return AlignmentSettings(
            lr_z=PAPER_STEP,
            lr_c=0.0,
            lr_decay=RELEASED_DECAY,
            loss="released",
            noise="fresh",
            **common,
        )
    fast = config.fast.model_dump(exclude={"layers"})
    return AlignmentSettings(**fast, loss="balanced", n_trajectory=config.n_trajectory)


# --- of one condition -----------------------------------------------------------------


def config_of(row: Condition, config: Stage2Config) -> Stage2Config:
    """Return the `stage2` part under which a condition's engine runs.

    A row with its own number of iterations is a shorter loop, of which the last image
    counts; without any iteration the guided sampling has no strength.
    """
    preset = row.engine if row.engine in ("paper", "guided") else config.preset
    change: dict[str, Any] = {}
    if row.n_iter is not None and preset != "guided":
        change = {"n_iter": row.n_iter, "n_candidates": 2}
    elif row.n_iter == 0:
        change = {"strength": 0.0}
    return config.using(preset, **change)


def layers_of(row: Condition, profile: Profile) -> tuple[int, ...]:
    """Return the CLIP blocks in a condition's loss: the presets of ours have fewer."""
    decoded = profile.features.clip_layers
    if row.layers == "highest":
        return (max(decoded),)
    if row.layers is not None:
        return row.layers
    preset = config_of(row, profile.stage2).preset
    return profile.stage2.fast.layers if preset in ("fast", "guided") else decoded


def sampler_of(row: Condition, profile: Profile) -> Stage1Config:
    """Return a condition's sampler: stage 1's, or that from its own level of noise."""
    sampler, systems = profile.stage1, profile.systems
    if row.z is None:
        return from_noise(sampler)
    if row.strength == "takagi":
        return image_to_image(sampler, systems.strength_takagi)
    if row.strength == "brain_diffuser":
        return image_to_image(sampler, systems.strength_brain_diffuser)
    return sampler


def from_noise(sampler: Stage1Config) -> Stage1Config:
    """Return the sampler that begins at the highest level and takes all steps."""
    n_steps = sampler.n_steps
    return _at(sampler, n_steps - 1, n_steps)


def image_to_image(sampler: Stage1Config, strength: float) -> Stage1Config:
    """Return the sampler that noises to `strength` of the grid and denoises all of it.

    The image is noised to the level from which it is denoised, as diffusers does.
    CompVis' `stochastic_encode(z, 40)`, which Takagi and Nishimoto call, takes grid
    index 40 and then denoises from 39: one level more noise than the U-Net is told.

    >>> image_to_image(Stage1Config(), 0.8)
    Stage1Config(n_steps=50, encode_index=39, decode_steps=40, guidance_scale=5.0)
    """
    steps = max(1, int(strength * sampler.n_steps))
    return _at(sampler, steps - 1, steps)


def _at(sampler: Stage1Config, encode_index: int, decode_steps: int) -> Stage1Config:
    levels = {"encode_index": encode_index, "decode_steps": decode_steps}
    return sampler.model_copy(update=levels)
