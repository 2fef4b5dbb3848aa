"""The images of any generated condition, batch by batch.

One loop for every row of the table of conditions: z through the autoencoder, the
sampler of stage 1, an engine of stage 2, or a baseline without a generator. Each
image's noise comes from a stream named by subject and image, so that no image depends
on order or shard. Not here: the sampler (`sampler`), the engines (`alignment`,
`guided_sampling`), and what is written of the images (`results`).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minddiff_utils.core.condition import Condition
from minddiff_utils.core.conditions import draws
from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.images import to_torch, to_uint8
from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Images
from minddiff_utils.generation.alignment import (
    PER_IMAGE,
    AlignmentResult,
    Latent,
    align,
    joined,
)
from minddiff_utils.generation.baselines import baseline_images
from minddiff_utils.generation.checkpoints import Arrays, Checkpoint, checkpoint_of
from minddiff_utils.generation.decoded_features import DecodedFeatures, SubjectFeatures
from minddiff_utils.generation.device_memory import room_for
from minddiff_utils.generation.guided_sampling import guide
from minddiff_utils.generation.presets import (
    EngineSettings,
    GuidanceSettings,
    sampler_of,
    settings_of,
)
from minddiff_utils.generation.sampler import draw_noise, make_schedule, sample
from minddiff_utils.generation.structural_loss import Loss, StructuralLoss
from minddiff_utils.models import Backbone

__all__ = [
    "Generated",
    "align_batch",
    "finished_images",
    "generate",
    "is_generated",
    "noise_generators",
]

LOG = logging.getLogger(__name__)

Ids = Sequence[int]


@dataclass(frozen=True)
class Generated:
    """Images of one condition and how they were made.

    Attributes
    ----------
    condition : Condition
    nsd_id : (n,) int64
        The images of the run's shard.
    images : uint8 (n, S, S, 3)
    finished : bool (n,)
        Which of them are images, from `finished_images`.
    sampler : Stage1Config or None
        The sampler that made them; None where there was no diffusion.
    n_unet_evaluations : int
        U-Net forward passes per image of stage 1.
    batches : tuple of mappings
        What stage 2 kept of each batch, without the images, see `_kept`.
    seconds : float (n,)
        Wall time of each image's batch, over its images; empty for a baseline.
    """

    condition: Condition
    nsd_id: npt.NDArray[np.int64]
    images: Images
    finished: npt.NDArray[np.bool_]
    sampler: Stage1Config | None = None
    n_unet_evaluations: int = 0
    batches: tuple[Arrays, ...] = field(default=(), repr=False)
    seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def stacked(self, name: str) -> npt.NDArray[np.generic]:
        """Return what stage 2 kept of all batches, stacked over images."""
        return np.concatenate([batch[name] for batch in self.batches])


def noise_generators(run: Run, nsd_id: Ids) -> list[torch.Generator]:
    """Return one stream of noise per image, named by subject and image."""
    return [run.torch_stream("noise", run.subject or 0, int(i)) for i in nsd_id]


def finished_images(
    backbone: Backbone, x: torch.Tensor, names: Ids
) -> tuple[Images, npt.NDArray[np.bool_]]:
    """Return images as uint8 (n, S, S, 3), and which of them are finished, bool (n,).

    A U-Net in half precision can leave the range of its numbers. An image without a
    number is then named, with what to do; it is grey and counts as unfinished, and the
    others go on.

    Raises
    ------
    DataError
        An image has no number although the U-Net computes in float32.
    """
    finite = x.isfinite().flatten(1).all(1)
    if backbone.precision == torch.float32 or bool(finite.all()):
        return to_uint8(x), np.ones(len(x), bool)
    kind = str(backbone.precision).removeprefix("torch.")
    for row in (~finite).nonzero()[:, 0].tolist():
        LOG.warning(
            "image %s: the U-Net in %s gave no number, so there is no image; the others"
            " go on; to have it, set models.dtype to float32 and run again",
            *(names[row], kind),
        )
    images = to_uint8(torch.where(finite[:, None, None, None], x, 0.0))
    return images, finite.cpu().numpy()


# --- the loop -------------------------------------------------------------------------


def generate(
    run: Run,
    backbone: Backbone,
    features: SubjectFeatures,
    condition: Condition,
    *,
    n_batches: int | None = None,
) -> Generated:
    """Return the images of a condition, of the run's shard, batch by batch.

    A batch that is done is read from its checkpoint; one that was cut off goes on from
    the last state that it kept.

    Parameters
    ----------
    run : Run
        Of a subject.
    backbone : Backbone
    features : SubjectFeatures
        Of the same subject.
    condition : Condition
        A row of the table with an engine.
    n_batches : int, optional
        The shard's first; default: all.

    Raises
    ------
    ModelError
        The device's memory ran out.
    """
    if condition.is_baseline:
        every = baseline_images(features, str(condition.engine))
        rows = [k for batch in run.batches(len(every))[:n_batches] for k in batch]
        ids = features.nsd_id[rows]
        return Generated(condition, ids, every[rows], np.ones(len(ids), bool))
    plan = _plan(run, backbone, features, condition)[:n_batches]
    found = [checkpoint.made_once(make) for checkpoint, make in plan]
    size = backbone.image_size
    images = [np.empty((0, size, size, 3), np.uint8), *(b["images"] for b in found)]
    finished = [np.empty(0, bool), *(batch["finished"] for batch in found)]
    sampler, cost = None, 0
    if condition.engine != "autoencoder":
        sampler = sampler_of(condition, run.profile)
        cost = condition.n_draws * make_schedule(backbone, sampler).n_unet_evaluations
    seconds = [np.full(len(c.nsd_id), c.seconds / len(c.nsd_id)) for c, _ in plan]
    return Generated(
        condition,
        np.array([i for made, _ in plan for i in made.nsd_id], np.int64),
        np.concatenate(images),
        np.concatenate(finished),
        sampler,
        cost,
        # the images are held once: those of a thousand at 512 px take a gigabyte
        tuple({k: v for k, v in batch.items() if k != "images"} for batch in found),
        np.concatenate([np.empty(0), *seconds]),
    )


def is_generated(
    run: Run, backbone: Backbone, features: SubjectFeatures, condition: Condition
) -> bool:
    """Return whether all batches of a condition are done, of the run's shard."""
    if condition.is_baseline:
        return True
    plan = _plan(run, backbone, features, condition)
    return all(checkpoint.is_there for checkpoint, _ in plan)


_Plan = list[tuple[Checkpoint, Callable[[], Arrays]]]


def _plan(
    run: Run, backbone: Backbone, features: SubjectFeatures, condition: Condition
) -> _Plan:
    """Return each batch's checkpoint, and what makes the batch."""
    inputs = features.of_condition(condition)
    plan: _Plan = []
    for rows in run.batches(len(inputs.nsd_id)):
        own = inputs.rows(rows)
        make, settings, tensors = _batch_maker(run, own, condition, rows)
        checkpoint = checkpoint_of(
            run, _ids(own), make, settings=repr(settings), tensors=tensors
        )
        given = (run, backbone, own, checkpoint)
        plan.append((checkpoint, partial(make, *given, *settings)))
    return plan


def _batch_maker(
    run: Run, features: DecodedFeatures, condition: Condition, rows: Sequence[int]
) -> tuple[Callable[..., Arrays], tuple[Any, ...], tuple[torch.Tensor, ...]]:
    """Return what makes a batch, its settings, and the tensors that it reads."""
    if condition.engine == "autoencoder":
        return _decode, (), (features.z,)
    sampler = sampler_of(condition, run.profile)
    if condition.engine == "sampler" and condition.n_draws == 1:
        return _sample, (sampler, condition.draw), (features.z, features.c)
    if condition.engine == "sampler":
        loss = condition.settings.get("loss", "balanced")
        return _sample_best, (sampler, condition.n_draws, loss), features.tensors
    n_shown = sum(row < run.profile.stage2.n_images_trajectory for row in rows)
    settings = settings_of(condition, run.profile)
    return _align, (settings, sampler, n_shown), features.tensors


def _ids(features: DecodedFeatures) -> list[int]:
    ids: list[int] = features.nsd_id.tolist()
    return ids


# --- a batch --------------------------------------------------------------------------


def _in_parts(
    backbone: Backbone,
    features: DecodedFeatures,
    make: Callable[[DecodedFeatures], torch.Tensor],
) -> Arrays:
    """Return the images of a batch, made of as many at once as there is room for."""
    found = [
        finished_images(backbone, make(part), _ids(part))
        for part in features.parts(backbone.at_once(len(features.nsd_id)))
    ]
    images, finished = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return {"images": images, "finished": finished}


@torch.no_grad()
def _decode(
    _run: Run, backbone: Backbone, features: DecodedFeatures, _state: object
) -> Arrays:
    """Return z through the autoencoder."""
    return _in_parts(backbone, features, lambda part: backbone.decode_latents(part.z))


def _sample(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    _state: object,
    sampler: Stage1Config,
    draw: int,
) -> Arrays:
    """Return stage 1: z noised to its level by some draw, and denoised under c."""
    schedule = make_schedule(backbone, sampler)

    def drawn(part: DecodedFeatures) -> torch.Tensor:
        generators = noise_generators(run, _ids(part))
        for _ in range(draw):
            noise = draw_noise(backbone, generators)
        return sample(backbone, part.z, part.c, noise, schedule)

    return _in_parts(backbone, features, drawn)


@torch.no_grad()
def _sample_best(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    _state: object,
    sampler: Stage1Config,
    n_draws: int,
    kind: Loss,
) -> Arrays:
    """Return of `n_draws` images by stage 1 the one with the lowest structural loss.

    The draws go on in each image's own stream: more of them change no earlier one. The
    first are stage 1's and those that show its spread, and are not sampled twice.
    """
    lowest, kept = torch.full((len(features.nsd_id),), torch.nan), torch.empty(0)
    for draw in range(1, n_draws + 1):
        images = _stage1(run, backbone, features, sampler, draw)
        loss = _losses(backbone, features, images, kind)
        better = (loss < lowest) | lowest.isnan()  # a draw may have no number
        lowest = torch.where(better, loss, lowest)
        chosen = better.to(images.device)[:, None, None, None]
        kept = torch.where(chosen, images, kept) if draw > 1 else images
    best, finished = finished_images(backbone, kept, _ids(features))
    return {"images": best, "finished": finished}


def _losses(
    backbone: Backbone, features: DecodedFeatures, images: torch.Tensor, kind: Loss
) -> torch.Tensor:
    """Return the structural loss of each image of a batch, (n,), on the CPU."""
    size = backbone.at_once(len(images))
    found = []
    for part, some in zip(features.parts(size), torch.split(images, size), strict=True):
        layers = backbone.clip_layers(some, part.target.layers)
        found.append(StructuralLoss.of(part.target, kind)(layers).cpu())
    return torch.cat(found)


def _align(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    checkpoint: Checkpoint | None,
    settings: EngineSettings,
    sampler: Stage1Config,
    n_shown: int,
) -> Arrays:
    """Return stage 2 as plain arrays, images as uint8.

    Frames (n_shown, n_frames, S, S, 3) are those of the first images alone: those of a
    thousand at 512 px would fill a workstation's memory.
    """
    result = align_batch(run, backbone, features, settings, sampler, checkpoint)
    images, finished = finished_images(backbone, result.images, _ids(features))
    frames = result.trajectory[:n_shown]  # (n_shown, n_frames, 3, S, S)
    if not finished.all():
        frames = frames.nan_to_num(nan=0.0)
    flat = to_uint8(frames.reshape(-1, *frames.shape[2:]))
    return {
        "images": images,
        "finished": finished,
        **{name: getattr(result, name) for name in PER_IMAGE},
        "candidates": np.array(result.candidates, np.int64),
        "frames": flat.reshape(*frames.shape[:2], *flat.shape[1:]),
        "iterations": np.array(result.trajectory_iterations, np.int64),
    }


def _stage1(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    sampler: Stage1Config,
    draw: int = 1,
) -> torch.Tensor:
    """Return stage 1's images of a batch, (n, 3, S, S), NaN where one is unfinished.

    Draws that the table of conditions has are read from their checkpoints, or made and
    kept there.
    """
    settings, tensors = (sampler, draw), (features.z, features.c)
    make = partial(_sample, run, backbone, features, None, *settings)
    if draw <= len(draws()):
        checkpoint = checkpoint_of(
            run, _ids(features), _sample, settings=repr(settings), tensors=tensors
        )
        batch = checkpoint.made_once(make)
    else:
        batch = make()
    images = to_torch(batch["images"]).to(backbone.device)
    images[~torch.from_numpy(batch["finished"])] = torch.nan
    return images


def align_batch(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: EngineSettings,
    sampler: Stage1Config,
    checkpoint: Checkpoint | None = None,
) -> AlignmentResult:
    """Align the images of one batch by whichever engine the settings belong to.

    They start from the noise and the images of stage 1, which are not sampled twice. As
    many go through at once as the device has room for. With a checkpoint, a loop that
    was cut off goes on from its last state.

    Raises
    ------
    ModelError
        The device's memory ran out.
    """
    full = make_schedule(backbone, sampler)
    room = room_for(backbone, settings, full, run.profile.models, len(features.nsd_id))
    settings = replace(settings, memory=room.memory)

    def aligned(part: DecodedFeatures, images: torch.Tensor | None) -> AlignmentResult:
        names = _ids(part)
        generators = noise_generators(run, names)
        noise = draw_noise(backbone, generators)
        latent = Latent(part.z, part.c, noise, names, images)
        inputs = (backbone, latent, part.target, sampler)
        if isinstance(settings, GuidanceSettings):
            return guide(*inputs, settings)
        state = checkpoint.state_of(names) if checkpoint is not None else None
        return align(*inputs, settings, generators=generators, state=state)

    try:
        plain = torch.split(_stage1(run, backbone, features, sampler), room.n_images)
        return joined(list(map(aligned, features.parts(room.n_images), plain)))
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The GPU's memory ran out at {room.n_images} images at once and memory"
            f" {room.memory!r}: set models.n_at_once to less, or models.memory to"
            " checkpoint, or end other work on that GPU."
        ) from error
