"""What stage 2 costs at full size, said before it runs: counts, hours, memory.

Counts come from the objects that the run itself uses (`Schedule`, `AlignmentSettings`,
`GuidanceSettings`); seconds and bytes of one unit come from a file that
`tests/benchmarks/stage2_sd14.py` measured on a named device, or, where nobody measured
one, from counts of operations at a speed that the user names, and then they say so. It
runs no model and knows no image. Place in the flow: layer 9, above both engines of
stage 2; `minddiff plan` prints it.

Counted are the U-Net, the autoencoder's decoder and CLIP. Left out: the text encoder
(0.3 % of one U-Net call), the optimiser's step, and writing files.
"""

from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError

from minddiff_utils.core.config import Profile, Stage2Config
from minddiff_utils.core.errors import (
    ConfigError,
    DataError,
    check_choice,
    check_exists,
)
from minddiff_utils.core.places import project_root
from minddiff_utils.core.reading import reading
from minddiff_utils.generation.alignment import surrogate
from minddiff_utils.generation.device_memory import (
    Footprint,
    counted_footprint,
    default_memory,
    held_by,
    image_bytes,
)
from minddiff_utils.generation.presets import (
    AlignmentSettings,
    EngineSettings,
    GuidanceSettings,
    engine_settings,
)
from minddiff_utils.generation.sampler import Memory, Schedule, make_schedule
from minddiff_utils.models import tiny_backbone

__all__ = [
    "OPERATIONS",
    "PRESETS",
    "Counts",
    "Prediction",
    "Rates",
    "Seconds",
    "Work",
    "alignment_work",
    "device_hours",
    "estimated_rates",
    "find_rates",
    "guidance_work",
    "iteration_counts",
    "operations",
    "peak_bytes",
    "predict",
    "preset_work",
    "read_rates",
    "seconds",
    "settings_work",
    "wall_hours",
]

Preset = Literal["paper", "released", "fast", "guided"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Kind = Literal["cpu", "cuda"]
Precision = Literal["float32", "float16", "bfloat16"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Seconds:
    """Seconds of one sample through each unit.

    Attributes
    ----------
    unet_forward : float
        One U-Net evaluation; a guided step takes two.
    unet_backward_stored : float
        Its gradient for the inputs alone, with all values stored.
    unet_backward_checkpointed : float
        The same with the evaluation done again, as `memory="checkpoint"` does.
    decode_forward, decode_backward : float
        The autoencoder's decoder.
    clip_forward, clip_backward : float
        CLIP's image tower as far as block 6.
    """

    unet_forward: Positive
    unet_backward_stored: Positive
    unet_backward_checkpointed: Positive
    decode_forward: Positive
    decode_backward: Positive
    clip_forward: Positive
    clip_backward: Positive


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes of the units, for one device.

    Attributes
    ----------
    backbone : str
        Whose models: sd14.
    device, torch : str
        Name of the device; version of torch.
    kind : {"cpu", "cuda"}
        What a profile calls the device.
    dtype : str
        Of the U-Net; the decoder and CLIP compute in float32.
    batch : int
        Images at once when it was measured.
    seconds : Seconds
    bytes : Footprint
    source : str
        Where the numbers are from, in a few words.
    """

    backbone: str
    device: str
    kind: Kind
    dtype: Precision
    batch: Annotated[int, Field(gt=0)]
    torch: str
    seconds: Seconds
    bytes: Footprint
    source: str = ""


# --- the models' own numbers ----------------------------------------------------------

#: Operations of one sample through each unit of Stable Diffusion v1-4 and CLIP
#: ViT-B/32, two per multiply-add: 64 x 64 latents, 15 tokens, gradients for z and c
#: alone. Counted by `tests/benchmarks/stage2_sd14.py --part operations`.
OPERATIONS = Seconds(
    unet_forward=0.7980e12,
    unet_backward_stored=0.9828e12,
    unet_backward_checkpointed=0.7980e12 + 0.9828e12,
    decode_forward=2.5145e12,
    decode_backward=2.5661e12,
    clip_forward=4.524e9,
    clip_backward=4.593e9,
)
#: Weights of the text encoder, for which the benchmark has a stand-in.
_TEXT_WEIGHTS = 123_060_480
#: Stands for the device where the rates are estimated.
_NOBODY = "none"
_ITEM_BYTES: dict[Precision, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


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

    def weigh(self, each: Seconds, memory: Memory) -> float:
        """Return the sum of the counts, each times its unit's value."""
        stored, again = each.unet_backward_stored, each.unet_backward_checkpointed
        return (
            self.unet_forwards * each.unet_forward
            + self.unet_backwards * (stored if memory == "store" else again)
            + self.decode_forwards * each.decode_forward
            + self.decode_backwards * each.decode_backward
            + self.clip_forwards * each.clip_forward
            + self.clip_backwards * each.clip_backward
        )


@dataclass(frozen=True)
class Work:
    """What one image costs under a preset, at most: it may stop by itself.

    Attributes
    ----------
    optimising : Counts
        Of the loop, or of the steered sampling.
    finishing : Counts
        Of the complete sampler's images.
    memory : {"store", "checkpoint"}
        How values are kept for the gradient.
    held : int
        U-Net samples of one image whose values are held at once.
    """

    optimising: Counts
    finishing: Counts
    memory: Memory
    held: int

    @property
    def total(self) -> Counts:
        """Return both parts together."""
        return self.optimising + self.finishing


def iteration_counts(short: Schedule) -> Counts:
    """Return what one gradient step through the schedule costs one image."""
    return Counts(short.n_unet_evaluations, short.n_unet_evaluations, 1, 1, 1, 1)


def _finish_counts(full: Schedule) -> Counts:
    return Counts(full.n_unet_evaluations, 0, 1, 0, 1, 0)


def alignment_work(
    full: Schedule, short: Schedule, settings: AlignmentSettings
) -> Work:
    """Return what `alignment.align` costs one image that does not stop by itself.

    Parameters
    ----------
    full, short : Schedule
        The complete sampler and the one to optimise through, see `surrogate`.
    settings : AlignmentSettings
    """
    moves = settings.lr_z > 0 or settings.lr_c > 0
    n_steps = settings.n_iter if moves else 0
    step = iteration_counts(short)
    look = replace(step, unet_backwards=0, decode_backwards=0, clip_backwards=0)
    # every iteration looks at its image, the one after the last step too
    optimising = step * n_steps + look * (settings.n_iter + 1 - n_steps)
    # stage 1's image, and one for each candidate that has moved
    n_finishes = 1 + min(settings.n_candidates, n_steps)
    finishing = _finish_counts(full) * n_finishes
    held = held_by(settings, full, settings.memory)
    return Work(optimising, finishing, settings.memory, held)


def guidance_work(schedule: Schedule, settings: GuidanceSettings) -> Work:
    """Return what `guided_sampling.guide` costs one image."""
    pulls = settings.pulls(len(schedule.timesteps))
    n_pulled = sum(pulls)
    through = settings.form == "unet"
    n_grads = settings.n_inner * n_pulled
    n_looks = n_grads + len(pulls) - n_pulled
    branches = schedule.n_unet_evaluations // len(pulls)
    steered = Counts(
        unet_forwards=schedule.n_unet_evaluations,
        unet_backwards=branches * n_pulled if through else 0,
        decode_forwards=n_looks,
        decode_backwards=n_grads,
        clip_forwards=n_looks,
        clip_backwards=n_grads,
    )
    # both final images: the guided one is only decoded, stage 1's is sampled too
    finishing = _finish_counts(schedule) + Counts(decode_forwards=1, clip_forwards=1)
    held = held_by(settings, schedule, settings.memory)
    return Work(steered, finishing, settings.memory, held)


def preset_work(profile: Profile, preset: Preset, memory: Memory | None = None) -> Work:
    """Return what one image costs under `preset` with the profile's numbers.

    Without `memory` its values are kept as where there is room for one image.

    `paper` takes `n_iter_paper` where the profile's own preset is another, as
    notebook 04 does. The grid is laid on the tiny models' noise schedule: counts depend
    on its length alone.
    """
    check_choice(preset, PRESETS, "preset")
    full = make_schedule(tiny_backbone(), profile.stage1)
    config = _stage2_config(profile.stage2, preset)
    settings = engine_settings(config)
    memory = memory or default_memory(settings, profile.models)
    return settings_work(full, replace(settings, memory=memory))


def settings_work(full: Schedule, settings: EngineSettings) -> Work:
    """Return what one image costs under the settings of any engine."""
    if isinstance(settings, GuidanceSettings):
        return guidance_work(full, settings)
    return alignment_work(full, surrogate(full, settings), settings)


def _stage2_config(config: Stage2Config, preset: Preset) -> Stage2Config:
    if preset == "paper" and config.preset != "paper":
        config = config.model_copy(update={"n_iter": config.n_iter_paper})
    return config.model_copy(update={"preset": preset})


# --- rates ----------------------------------------------------------------------------


def read_rates(path: Path) -> Rates:
    """Read the rates that the benchmark wrote to `path`.

    Raises
    ------
    DataError
        The file is missing, no JSON, or a number is missing or not above 0.
    """
    remedy = "write one with tests/benchmarks/stage2_sd14.py --out"
    check_exists(path, "The file of rates", remedy)
    with reading(path, DataError, found="is no file of rates", remedy=remedy):
        content = path.read_bytes()
    try:
        found = TypeAdapter(Rates).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise DataError(
            f"{path} is no file of rates, {where}: {first['msg']}: {remedy}."
        ) from error
    source = f"measured on {found.device}, batches of {found.batch} ({path.name})"
    return replace(found, source=source)


def find_rates(
    folder: Path | None, backbone: str, kind: str, dtype: str
) -> Rates | None:
    """Return the first rates in `folder` for such a device, None if there are none.

    Parameters
    ----------
    folder : Path or None
        With the benchmark's files; None means the repository's `data/cost`.
    backbone, kind, dtype : str
        As in a profile's `models`.
    """
    folder = folder or project_root() / "data" / "cost"
    for path in sorted(folder.glob("*.json")):
        rates = read_rates(path)
        if (rates.backbone, rates.kind, rates.dtype) == (backbone, kind, dtype):
            return rates
    return None


def estimated_rates(
    unet_tflops: float, tflops_float32: float, kind: Kind, dtype: Precision
) -> Rates:
    """Return rates of Stable Diffusion v1-4 from operation counts at two speeds.

    Nothing was measured.

    Parameters
    ----------
    unet_tflops : float
        Of the U-Net, in its precision `dtype`, TFLOP/s.
    tflops_float32 : float
        Of the autoencoder and CLIP, which compute in float32.
    kind, dtype : str
        As in a profile's `models`.

    Raises
    ------
    ConfigError
        A speed is no number above 0.
    """
    for speed in (unet_tflops, tflops_float32):
        if not 0 < speed < float("inf"):
            raise ConfigError(
                f"The speed is {speed} TFLOP/s, but must be a finite number above 0."
            )
    speeds = {"unet": unet_tflops, "decode": tflops_float32, "clip": tflops_float32}
    counted = vars(OPERATIONS).items()
    each = Seconds(**{k: n / (speeds[k.split("_")[0]] * 1e12) for k, n in counted})
    source = f"estimate from operation counts at {unet_tflops:g} TFLOP/s"
    if tflops_float32 != unet_tflops:
        source += f", {tflops_float32:g} in float32"
    footprint = counted_footprint(_ITEM_BYTES[dtype])
    return Rates("sd14", _NOBODY, kind, dtype, 1, "none", each, footprint, source)


# --- predictions ----------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """What one preset costs.

    Attributes
    ----------
    preset : str
    work : Work
        Per image.
    operations : float or None
        Per image; None for other models than Stable Diffusion's.
    seconds : float or None
        Per image on one device; None where nobody measured it.
    peak_bytes : float or None
        Of one batch of the profile.
    source : str
        Where the seconds come from.
    peak_source : str
        Where the peak comes from.
    """

    preset: Preset
    work: Work
    operations: float | None
    seconds: float | None
    peak_bytes: float | None
    source: str
    peak_source: str


def operations(work: Work) -> float:
    """Return the operations of one image with Stable Diffusion's models, FLOP."""
    return work.total.weigh(OPERATIONS, work.memory)


def seconds(work: Work, rates: Rates) -> float:
    """Return the seconds of one image on one device."""
    return work.total.weigh(rates.seconds, work.memory)


def peak_bytes(work: Work, footprint: Footprint, n_images: int) -> float:
    """Return the most that `n_images` hold at once, weights included."""
    each = image_bytes(footprint, work.held, work.memory)
    return footprint.weights + n_images * each


def predict(profile: Profile, preset: Preset, rates: Rates | None) -> Prediction:
    """Return what `preset` costs under the profile's numbers.

    Parameters
    ----------
    profile : Profile
    preset : {"paper", "released", "fast", "guided"}
    rates : Rates or None
        In the U-Net's precision, see `find_rates`; None where nobody measured them.
    """
    models = profile.models
    work = preset_work(profile, preset)
    if models.backbone != "sd14":
        return Prediction(preset, work, None, None, None, "none for these models", "")
    item_bytes = _ITEM_BYTES[models.dtype]
    footprint, peak_source = counted_footprint(item_bytes), "counted tensors"
    time, source = None, "not measured"
    if rates is not None:
        time, source = seconds(work, rates), rates.source
    if rates is not None and rates.device != _NOBODY:
        footprint, peak_source = rates.bytes, rates.source
    n_images = models.n_at_once or (1 if models.device == "cuda" else models.batch_size)
    peak = peak_bytes(work, footprint, n_images) + _TEXT_WEIGHTS * 4
    return Prediction(preset, work, operations(work), time, peak, source, peak_source)


def device_hours(seconds_per_image: float, n_images: int, n_subjects: int) -> float:
    """Return the hours of one device for all images of all subjects."""
    return seconds_per_image * n_images * n_subjects / 3600


def wall_hours(hours: float, n_devices: int) -> float:
    """Return the hours on `n_devices` at once: images are independent.

    Raises
    ------
    ConfigError
        No device.
    """
    if n_devices < 1:
        raise ConfigError(f"There are {n_devices} devices, but must be 1 or more.")
    return hours / n_devices
