"""Which sampler and which engine a profile, or one of its conditions, asks for.

Three presets of stage 2. `paper` is Algorithm 1: plain gradient steps on z and c
through the sampler. `released` is what the published code does: Adam on z alone,
decaying, with fresh noise in every iteration and layer weights. `bayes` is ours: it
steers the sampling itself, from the posterior mean of c, in a sampler of its own.
Nothing is computed here.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from minddiff_utils.core.condition import Condition
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.profile import Preset, Profile, Stage1Config, Stage2Config
from minddiff_utils.generation.sampler import Branches, Memory
from minddiff_utils.generation.structural_loss import Loss

__all__ = [
    "AlignmentSettings",
    "EngineSettings",
    "GuidanceSettings",
    "engine_settings",
    "image_to_image",
    "layers_of",
    "sampler_of",
    "settings_of",
    "uses_posterior",
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
    loss : str
        One of five measures, see `structural_loss.StructuralLoss`.
    noise : {"fixed", "fresh"}
        Whether ε stays or is drawn anew in every iteration.
    n_candidates : int
        Iterates, evenly spaced, whose images are made for the choice.
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
    n_candidates: int = 4
    n_trajectory: int = 8
    memory: Memory = "store"


@dataclass(frozen=True)
class GuidanceSettings:
    """How the sampling is steered; the profile has checked single values.

    Attributes
    ----------
    gradient : {"both", "conditional"}
        Branches of the guided prediction that it goes through.
    strength : float
        Root mean square of one pull, in units of the noise level; 0 gives stage 1.
    first, last : float
        Share of the steps, from the noisiest, at which pulling begins and ends.
    loss : str
        One of five measures, see `structural_loss.StructuralLoss`.
    n_trajectory : int
        Clean estimates kept for show.
    memory : {"store", "checkpoint"}
        See `sampler.img2img`.
    """

    gradient: Branches = "both"
    strength: float = 0.1
    first: float = 0.0
    last: float = 1.0
    loss: Loss = "balanced"
    n_trajectory: int = 8
    memory: Memory = "store"

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last <= 1:
            raise ConfigError(
                f"Guidance from {self.first} to {self.last} of the steps is no range"
                " within 0 to 1: choose first below last."
            )

    def pulls(self, n_steps: int) -> tuple[bool, ...]:
        """Return whether each step is pulled."""
        if not self.strength:
            return (False,) * n_steps
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
    more: dict[str, Any] = {"n_trajectory": config.n_trajectory}
    if config.preset == "bayes":
        more |= config.bayes.model_dump(exclude={"range"})
        first, last = config.bayes.range
        return GuidanceSettings(first=first, last=last, **more)
    if config.preset == "paper":
        more |= config.paper.model_dump(exclude={"step", "n_images"})
        eta = config.paper.step
        return AlignmentSettings(lr_z=eta, lr_c=eta, optimiser="gradient", **more)
    return AlignmentSettings(
        lr_z=PAPER_STEP,
        lr_c=0.0,
        lr_decay=RELEASED_DECAY,
        loss="released",
        noise="fresh",
        **more,
        **config.released.model_dump(),
    )


# --- of one condition -----------------------------------------------------------------


def preset_of(row: Condition, config: Stage2Config) -> Preset:
    """Return the engine of stage 2 that makes a condition, else the profile's.

    A number of iterations is that of a loop: of `paper`, where the profile's has none.
    """
    if row.engine in get_args(Preset):
        return cast(Preset, row.engine)
    if row.n_iter and config.preset == "bayes":
        return "paper"
    return config.preset


def uses_posterior(row: Condition, profile: Profile) -> bool:
    """Return whether the posterior mean of c, and its sampler, make a condition.

    They do where preset `bayes` makes what is called stage 2, whatever decoders say of
    c. A row that names the engine says itself what it starts from.
    """
    if row.engine == "preset":
        return preset_of(row, profile.stage2) == "bayes"
    return row.c == "posterior" or (
        row.engine == "bayes" and row.c in ("shuffled", "true")
    )


def settings_of(row: Condition, profile: Profile) -> EngineSettings:
    """Return the settings of the engine of stage 2 that makes a condition.

    A row with its own number of iterations is a shorter loop, of which the last image
    counts; without any iteration the guided sampling has no strength.
    """
    config = profile.stage2
    settings = engine_settings(config.using(preset_of(row, config)))
    change = dict(row.settings)
    if row.n_iter is not None and isinstance(settings, AlignmentSettings):
        change |= {"n_iter": row.n_iter, "n_candidates": 2}
    elif row.n_iter == 0:
        change["strength"] = 0.0
    return replace(settings, **change)


def layers_of(row: Condition, profile: Profile) -> tuple[int, ...]:
    """Return the CLIP blocks in a condition's loss: its own, or all decoded ones."""
    decoded = profile.features.clip_layers
    if row.layers == "highest":
        return (max(decoded),)
    return decoded if row.layers is None else row.layers


def sampler_of(row: Condition, profile: Profile) -> Stage1Config:
    """Return a condition's sampler: stage 1's, or that from its own level of noise.

    What starts from the posterior mean of c has one of its own: where c errs less, z
    needs less noise.
    """
    sampler = profile.stage1
    if uses_posterior(row, profile):
        sampler = profile.posterior or sampler
    sampler = sampler.model_copy(update=dict(row.sampler))
    if row.z is None:  # from noise
        return image_to_image(sampler, 1.0)
    if row.strength is None:
        return sampler
    strength = getattr(profile.systems, f"strength_{row.strength}")
    return image_to_image(sampler, strength)


def image_to_image(sampler: Stage1Config, strength: float) -> Stage1Config:
    """Return the sampler that noises to `strength` of the grid and denoises all of it.

    The image is noised to the level from which it is denoised, as diffusers does.
    CompVis' `stochastic_encode(z, 40)`, which Takagi and Nishimoto call, takes grid
    index 40 and then denoises from 39: one level more noise than the U-Net is told.

    >>> image_to_image(Stage1Config(), 0.8).encode_index
    39
    """
    steps = max(1, int(strength * sampler.n_steps))
    levels = {"encode_index": steps - 1, "decode_steps": steps}
    return sampler.model_copy(update=levels)
