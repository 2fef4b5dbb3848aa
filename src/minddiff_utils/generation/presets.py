"""Which sampler and which engine a profile, or one of its conditions, asks for.

Five presets of stage 2. `paper` is Algorithm 1: plain gradient steps on z and c through
the complete sampler. `released` is what the published code does: Adam on z alone,
decaying, with fresh noise in every iteration and layer weights. `fast` is ours: the
loop of Algorithm 1 through a short surrogate of the sampler, Adam, an anchor on c, and
the final image always by the complete sampler. `guided`, ours too, steers the sampling
itself and leaves z and c as decoded. `bayes`, ours, does that from the posterior mean
of c, in a sampler of its own. Nothing is computed here.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from minddiff_utils.core.conditions import Condition
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.profile import Preset, Profile, Stage1Config, Stage2Config
from minddiff_utils.generation.sampler import Branches, Memory, Solver
from minddiff_utils.generation.structural_loss import Loss

__all__ = [
    "AlignmentSettings",
    "EngineSettings",
    "GuidanceSettings",
    "engine_settings",
    "image_to_image",
    "is_bayes",
    "layers_of",
    "sampler_of",
    "settings_of",
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
    anchor_c : float
        Weight of the penalty on c's displacement.
    n_steps, guidance_scale, guided_share : int, float, float or None
        Steps and guidance of the surrogate sampler, and the share of its steps, from
        the noisiest, that are guided; None means the complete sampler's.
    solver : str
        The surrogate's, one of `sampler.SOLVERS`; the complete sampler is DDIM.
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
    guided_share: float | None = None
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
    gradient : {"both", "conditional"}
        Branches of the guided prediction that it goes through, of the form `unet`.
    strength : float
        Root mean square of one pull, in units of the noise level; 0 gives stage 1.
    n_inner : int
        Pulls per step; more than 1 for `clean` only.
    first, last : float
        Share of the steps, from the noisiest, at which pulling begins and ends.
    loss : str
        One of five measures, see `structural_loss.StructuralLoss`.
    n_trajectory : int
        Clean estimates kept for show.
    memory : {"store", "checkpoint"}
        See `sampler.img2img`.
    """

    form: Literal["clean", "unet"] = "clean"
    gradient: Branches = "both"
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
    if config.preset in ("guided", "bayes"):
        own = config.bayes if config.preset == "bayes" else config.guided
        more |= own.model_dump(exclude={"range"})
        first, last = own.range
        return GuidanceSettings(first=first, last=last, **more)
    if config.preset == "fast":
        more |= config.fast.model_dump(exclude={"layers"})
        return AlignmentSettings(**more)
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

    A number of iterations is that of a loop: of `fast`, where the profile's has none.
    """
    if row.engine in get_args(Preset):
        return cast(Preset, row.engine)
    if row.n_iter and config.preset in ("guided", "bayes"):
        return "fast"
    return config.preset


def is_bayes(row: Condition, profile: Profile) -> bool:
    """Return whether preset `bayes` makes a condition: from the posterior mean of c."""
    if row.engine == "preset":
        return preset_of(row, profile.stage2) == "bayes"
    return row.engine == "bayes"


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
    """Return the CLIP blocks in a condition's loss: `fast` and `guided` have fewer."""
    decoded = profile.features.clip_layers
    if row.layers == "highest":
        return (max(decoded),)
    if row.layers is not None:
        return row.layers
    if row.engine == "sampler":  # of stage 1: no setting of stage 2 bears on it
        return decoded
    ours = preset_of(row, profile.stage2) in ("fast", "guided")
    return profile.stage2.fast.layers if ours else decoded


def sampler_of(row: Condition, profile: Profile) -> Stage1Config:
    """Return a condition's sampler: stage 1's, or that from its own level of noise.

    What starts from the posterior mean of c has one of its own: where c errs less, z
    needs less noise.
    """
    sampler = profile.stage1
    if row.c == "posterior" or is_bayes(row, profile):
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
