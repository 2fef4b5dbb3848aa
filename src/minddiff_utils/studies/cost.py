"""What stage 2 costs at full size, said before it runs: counts, hours, memory.

Counts come from the engines themselves: each is run for one or two iterations on models
that only count, and what an iteration adds is multiplied. Seconds and bytes of one unit
come from a file that `tests/benchmarks/stage2_sd14.py` measured on a named device, or,
where nobody measured one, from counts of operations at a speed that the user names, and
then they say so. No model of the run is loaded, no image is made; `minddiff plan`
prints it.

Counted are the U-Net, the autoencoder's decoder and CLIP. Left out: the text encoder
(0.3 % of one U-Net call), the optimiser's step, and writing files.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import astuple, dataclass, field, fields, replace
from functools import cache
from io import StringIO
from typing import Any, cast, get_args

import torch
from torch import Tensor

from minddiff_utils.core.condition import Condition
from minddiff_utils.core.conditions import by_name, conditions_of, draws, n_images_of
from minddiff_utils.core.errors import check_choice
from minddiff_utils.core.profile import Preset, Profile, Stage1Config
from minddiff_utils.generation import device_memory
from minddiff_utils.generation.alignment import Latent, align
from minddiff_utils.generation.guided_sampling import guide
from minddiff_utils.generation.presets import (
    EngineSettings,
    GuidanceSettings,
    sampler_of,
    settings_of,
)
from minddiff_utils.generation.sampler import Memory, make_schedule, sample
from minddiff_utils.generation.structural_loss import Likelihood, StructuralTarget
from minddiff_utils.models import Backbone, tiny_backbone
from minddiff_utils.studies import unit_rates

__all__ = [
    "PRESETS",
    "Counts",
    "Prediction",
    "Work",
    "predict",
    "preset_work",
    "settings_work",
    "workloads",
]

PRESETS: tuple[Preset, ...] = get_args(Preset)
#: Weights of the text encoder, for which the benchmark has a stand-in.
_TEXT_WEIGHTS = 123_060_480


# --- counts ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """How often one image goes through each unit.

    U-Net evaluations and gradients are those of `AlignmentResult`: an evaluation that
    is done again for the gradient is part of the gradient.
    """

    unet_forwards: int = 0
    unet_backwards: int = 0
    decode_forwards: int = 0
    decode_backwards: int = 0
    clip_forwards: int = 0
    clip_backwards: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Counts(*(a + b for a, b in pairs))

    def __mul__(self, n: int) -> "Counts":
        return Counts(*(n * a for a in astuple(self)))


@dataclass(frozen=True)
class _CountingModels(Backbone):
    """Models that count what goes through them, and compute next to nothing.

    Outputs depend on every input, so that gradients take the way that they take in a
    run. The schedule is the tiny models': only the grid's length counts.
    """

    seen: Counter[str] = field(default_factory=Counter)

    @classmethod
    def make(cls) -> "_CountingModels":
        tiny = tiny_backbone()
        own = {f.name: getattr(tiny, f.name) for f in fields(tiny)}
        own |= {"latent_shape": (1, 1, 1), "image_size": 1, "layer_widths": (3,)}
        return cls(**own)

    def unet(self, latents: Tensor, _t: int | Tensor, c: Tensor) -> Tensor:
        text = c.mean((1, 2))[:, None, None, None]
        return self._counted("unet", 0.1 * latents + 0.1 * text)

    def decode_latents(self, z: Tensor) -> Tensor:
        return self._counted("decode", z.expand(-1, 3, -1, -1))

    def clip_layers(self, x: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        return dict.fromkeys(layers, self._counted("clip", x.flatten(1)))

    def _counted(self, unit: str, out: Tensor) -> Tensor:
        self.seen[f"{unit}_forwards"] += len(out)
        if out.requires_grad:
            name, hooked = f"{unit}_backwards", cast(Any, out)  # of no type in torch
            hooked.register_hook(lambda g: self.seen.update({name: len(g)}))
        return out


@cache
def _counts(settings: EngineSettings | None, diffusion: Stage1Config) -> Counts:
    """Return what one image counts when an engine runs as it is; None: stage 1."""
    models = _CountingModels.make()
    latent = Latent(
        z=torch.ones(1, *models.latent_shape),
        c=torch.ones(1, models.n_tokens, models.text_dim),
        noise=torch.ones(1, *models.latent_shape),
        images=torch.zeros(1, 3, 1, 1),  # stage 1 has made it
    )
    width = models.layer_widths[0]
    ones, seen = {1: torch.ones(width)}, {1: torch.eye(width)[:1]}
    mean = {1: torch.arange(float(width))}  # or no pixel would change a cosine
    noise = {1: Likelihood(torch.ones(1, width), torch.ones(1), torch.ones(1, 1))}
    target = StructuralTarget(seen, {1: ones[1] > 0}, ones, mean, noise)
    inputs = (models, latent, target, diffusion)
    with redirect_stderr(StringIO()):  # no progress bars of what makes no image
        if isinstance(settings, GuidanceSettings):
            guide(*inputs, settings)
        elif settings is not None:
            align(*inputs, settings, generators=[torch.Generator()])
        else:
            schedule = make_schedule(models, diffusion)
            sample(models, latent.z, latent.c, latent.noise, schedule)
    return Counts(**models.seen)


def _engine_counts(settings: EngineSettings, diffusion: Stage1Config) -> Counts:
    """Return what one image counts under an engine, if it does not diverge.

    Loops are run for 1 and 2 iterations, with 1 and 2 candidates: counts are linear in
    both, and there is no candidate without an iteration of its own.
    """
    settings = replace(settings, memory="store")  # nothing is evaluated again
    if isinstance(settings, GuidanceSettings) or settings.n_iter <= 2:
        return _counts(settings, diffusion)
    first, longer, more = (
        _counts(replace(settings, n_iter=n_iter, n_candidates=n), diffusion)
        for n_iter, n in ((1, 1), (2, 1), (2, 2))
    )
    n_candidates = min(settings.n_candidates, settings.n_iter)
    iteration, candidate = longer + first * -1, more + longer * -1
    return first + iteration * (settings.n_iter - 1) + candidate * (n_candidates - 1)


@dataclass(frozen=True)
class Work:
    """What one image costs, at most: it may diverge.

    `memory`: how values are kept for the gradient; `held`: U-Net samples of one image
    whose values are held at once.
    """

    counts: Counts
    memory: Memory = "store"
    held: int = 0

    def weigh(self, each: unit_rates.Seconds) -> float:
        """Return the sum over units of one image, such as seconds or operations."""
        values: dict[str, float] = dict(vars(each))
        gradient = "stored" if self.memory == "store" else "checkpointed"
        values["unet_backward"] = values[f"unet_backward_{gradient}"]
        counts = vars(self.counts).items()
        return sum(float(n * values[unit.removesuffix("s")]) for unit, n in counts)

    def peak_bytes(self, footprint: device_memory.Footprint, n_images: int) -> float:
        """Return the most that `n_images` hold at once, weights included."""
        each = device_memory.image_bytes(footprint, self.held, self.memory)
        return footprint.weights + n_images * each


def settings_work(diffusion: Stage1Config, settings: EngineSettings) -> Work:
    """Return what one image costs under the settings of any engine."""
    schedule = make_schedule(tiny_backbone(), diffusion)
    held = device_memory.held_by(settings, schedule, settings.memory)
    return Work(_engine_counts(settings, diffusion), settings.memory, held)


def work_of(row: Condition, profile: Profile, memory: Memory | None = None) -> Work:
    """Return what one image of a condition costs.

    Without `memory` its values are kept as where there is room for one image.
    """
    if row.engine == "autoencoder":
        return Work(Counts(decode_forwards=1))
    diffusion = sampler_of(row, profile)
    if row.engine == "sampler":
        one = _counts(None, diffusion)
        if row.n_draws == 1:
            return Work(one)
        n_made = row.n_draws - len(draws())  # the others are rows of their own
        return Work(one * n_made + Counts(clip_forwards=1) * row.n_draws)
    settings = settings_of(row, profile)
    memory = memory or device_memory.default_memory(settings, profile.models)
    return settings_work(diffusion, replace(settings, memory=memory))


def preset_work(profile: Profile, preset: Preset, memory: Memory | None = None) -> Work:
    """Return what one image of stage 2 costs under `preset`."""
    check_choice(preset, PRESETS, "preset")
    chosen = profile.model_copy(update={"stage2": profile.stage2.using(preset)})
    return work_of(by_name()["stage2"], chosen, memory)


# --- what notebooks 03 and 04 run -----------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """One condition: on how many images of a subject, at what cost of each."""

    name: str
    n_images: int
    work: Work

    @property
    def counts(self) -> Counts:
        """Return the counts of all its images."""
        return self.work.counts * self.n_images


def workloads(profile: Profile, n_images: int) -> list[Workload]:
    """Return what notebooks 03 and 04 make for `n_images` of one subject, before it is.

    The same conditions on as many images with the same settings as in the notebooks,
    which a test holds it to. Images that two conditions share are made once; the check
    that no iteration changes nothing, on one batch, is left out.
    """
    return [
        Workload(row.name, n_images_of(row, profile, n_images), work_of(row, profile))
        for row in conditions_of(profile)
        if row.engine and not row.is_baseline
    ]


# --- predictions ----------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """What one preset costs; operations and seconds are per image.

    `source`: where the seconds come from, None where nobody measured them; operations
    are None for other models than Stable Diffusion's; `peak_bytes`: of one batch of the
    profile, counted or measured.
    """

    preset: Preset
    work: Work
    source: str
    operations: float | None = None
    seconds: float | None = None
    peak_bytes: float | None = None
    peak_is_counted: bool = False


def predict(
    profile: Profile, preset: Preset, rates: unit_rates.Rates | None
) -> Prediction:
    """Return what `preset` costs under the profile's numbers.

    `rates`: in the U-Net's precision, see `find_rates`; None: nobody measured them.
    """
    models, work = profile.models, preset_work(profile, preset)
    if models.backbone != "sd14":
        return Prediction(preset, work, "none for these models")
    is_counted = rates is None or rates.device == unit_rates.NOT_MEASURED
    footprint = device_memory.counted_footprint(unit_rates.ITEM_BYTES[models.dtype])
    if rates is not None and not is_counted:
        footprint = rates.bytes
    n_images = models.n_at_once or (1 if models.device == "cuda" else models.batch_size)
    return Prediction(
        preset,
        work,
        source="not measured" if rates is None else rates.source,
        operations=work.weigh(unit_rates.OPERATIONS),
        seconds=None if rates is None else work.weigh(rates.seconds),
        peak_bytes=work.peak_bytes(footprint, n_images) + _TEXT_WEIGHTS * 4,
        peak_is_counted=is_counted,
    )
