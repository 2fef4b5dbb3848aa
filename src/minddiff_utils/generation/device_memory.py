"""How many images a device takes at once, and whether their values can be stored.

Both follow from the free memory of the device and from what one image holds for its
gradient: counted for Stable Diffusion, nothing worth counting for the small models. A
CPU takes whole batches and stores. Images do not depend on either beyond rounding. Not
here: what a run costs (`cost`).
"""

import logging
from dataclasses import dataclass
from math import inf
from typing import Annotated

from pydantic import Field

from minddiff_utils.core.profile import ModelConfig
from minddiff_utils.generation.presets import EngineSettings, GuidanceSettings
from minddiff_utils.generation.sampler import Memory, Schedule
from minddiff_utils.models import Backbone

__all__ = [
    "Footprint",
    "Room",
    "counted_footprint",
    "default_memory",
    "held_by",
    "image_bytes",
    "room_for",
]

LOG = logging.getLogger(__name__)

Positive = Annotated[float, Field(gt=0)]
#: Share of the free memory that counted values may take; what passes while computing
#: comes on top of them.
_SHARE = 0.8
#: Images from which on storing is worth its memory: it saves an evaluation in each
#: gradient, and a GPU is about busy with the four samples of two guided images.
_WORTH_STORING = 2
#: Weights of the U-Net, and of autoencoder and CLIP together.
_UNET_WEIGHTS = 859_520_964
_OTHER_WEIGHTS = 83_653_863 + 151_277_313
#: Bytes that one sample keeps for its gradient, in float32; counted by
#: `tests/benchmarks/stage2_sd14.py --part operations`.
_UNET_SAVED = 1470 * 2**20
_DECODE_SAVED = 5688 * 2**20


@dataclass(frozen=True)
class Footprint:
    """Bytes that decide the peak.

    Attributes
    ----------
    weights : float
        Held before the first image: all models, and on a CPU the process itself.
    unet_saved : float
        What one U-Net sample keeps for its gradient.
    unet_gradient, decode_gradient : float
        Above the weights, at most, while one sample's gradient is formed.
    """

    weights: Positive
    unet_saved: Positive
    unet_gradient: Positive
    decode_gradient: Positive


def counted_footprint(item_bytes: int) -> Footprint:
    """Return what must be held whatever the device: weights, and values saved.

    `item_bytes` are those of a number of the U-Net. Passing values come on top, so that
    a true peak lies above what follows from this.
    """
    saved = _UNET_SAVED * item_bytes / 4
    weights = _UNET_WEIGHTS * item_bytes + _OTHER_WEIGHTS * 4
    return Footprint(weights, saved, saved, float(_DECODE_SAVED))


def image_bytes(footprint: Footprint, held: int, memory: Memory) -> float:
    """Return the most that one image holds at once, `held` U-Net samples of it.

    What the U-Net stored stays while the decoder's gradient is formed; with
    checkpoints the two follow each other.
    """
    decode = footprint.decode_gradient
    if memory == "store":
        return held * footprint.unet_saved + decode
    return max(held * footprint.unet_gradient, decode)


def held_by(settings: EngineSettings, full: Schedule, memory: Memory) -> int:
    """Return the U-Net samples of one image whose values are held at once."""
    if isinstance(settings, GuidanceSettings):
        return max(full.branches)
    gradients = full.n_unet_evaluations
    return gradients if memory == "store" else min(gradients, max(full.branches))


def default_memory(settings: EngineSettings, models: ModelConfig) -> Memory:
    """Return the memory mode that fits where one image fits: what a plan counts with.

    `bayes` has one U-Net call per gradient, so that a checkpoint would save nothing.
    """
    if models.memory != "auto":
        return models.memory
    loops = not isinstance(settings, GuidanceSettings)
    return "checkpoint" if loops and models.device == "cuda" else "store"


@dataclass(frozen=True)
class Room:
    """How the images of a batch go through stage 2.

    Attributes
    ----------
    memory : {"store", "checkpoint"}
        As in `sampler.img2img`.
    n_images : int
        At once.
    """

    memory: Memory
    n_images: int


def room_for(
    backbone: Backbone,
    settings: EngineSettings,
    full: Schedule,
    models: ModelConfig,
    most: int,
) -> Room:
    """Return the room for `most` images or fewer, by the device's free memory.

    Values are stored where two images fit so, or all of them; otherwise checkpoints
    make room for more. `models.memory` and `models.n_at_once` fix either.
    """
    free = backbone.free_bytes() * _SHARE
    footprint = counted_footprint(backbone.unet_item_bytes)
    memory, n = models.memory, most
    if memory == "auto":
        memory = "store"
    if free < inf and backbone.name == "sd14":
        stored = image_bytes(footprint, held_by(settings, full, memory), memory)
        n = int(free // stored)
        loops = not isinstance(settings, GuidanceSettings)
        if models.memory == "auto" and loops and n < min(_WORTH_STORING, most):
            memory = "checkpoint"
            again = image_bytes(footprint, held_by(settings, full, memory), memory)
            n = int(free // again)
        if n < 1:
            LOG.warning(
                "%.1f GB of the device are free, less than one image may need: end"
                " other work there if memory runs out",
                backbone.free_bytes() / 1e9,
            )
    return Room(memory, max(1, min(n, models.n_at_once or most, most)))
