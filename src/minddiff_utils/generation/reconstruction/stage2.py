"""Images of stage 2: aligned with their decoded structure, batch by batch.

Not here: the optimisation (`alignment`) and the guided sampler (`guidance`). Place in
the flow: part of `reconstruction`, notebook 04.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from minddiff_utils.core import store
from minddiff_utils.core.config import Stage2Config
from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.run import Run
from minddiff_utils.generation.alignment import (
    AlignmentResult,
    Keeper,
    Latent,
    align,
    joined,
)
from minddiff_utils.generation.batches import Batch, Recipe, made_once
from minddiff_utils.generation.diffusion import (
    DiffusionSettings,
    draw_noise,
    make_schedule,
)
from minddiff_utils.generation.guidance import (
    CombinedSettings,
    GuidanceSettings,
    align_and_guide,
    guide,
)
from minddiff_utils.generation.reconstruction.features import DecodedFeatures
from minddiff_utils.generation.reconstruction.room import room_for, with_memory
from minddiff_utils.generation.reconstruction.settings import (
    Stage2Settings,
    diffusion_settings,
    stage2_settings,
)
from minddiff_utils.generation.reconstruction.stage1 import (
    Made,
    ids_of,
    noise_generators,
    stacked_images,
)
from minddiff_utils.models import Backbone

__all__ = ["Aligned", "Arrays", "align_batch", "align_images", "zero_iterations_equal"]

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Aligned:
    """Stage-2 images of one condition and how the optimiser got there.

    `batches` is empty where none of the images is in the run's shard. Their own images
    are in `made` alone, their frames are those of the first images.
    """

    made: Made
    batches: tuple[Batch, ...]

    def stacked(self, name: str) -> npt.NDArray[Any]:
        """Return a field of all batches, stacked over images."""
        return np.concatenate([getattr(batch, name) for batch in self.batches])


def align_images(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    config: Stage2Config,
    *,
    diffusion: DiffusionSettings | None = None,
    n_batches: int | None = None,
) -> Aligned:
    """Align stage-1 images with their structural features, batch by batch.

    The presets of ours compare the blocks `layers_fast` alone, the others all six. A
    batch that was cut off goes on from the last state that it kept. `diffusion` takes
    the place of the profile's sampler; `n_batches` are the shard's first (default all).
    """
    began = time.time()
    if config.preset in ("fast", "guided", "combined"):
        features = features.with_layers(config.layers_fast)
    batches = run.batches(len(features.nsd_id))[:n_batches]
    settings = stage2_settings(config)
    diffusion = diffusion or diffusion_settings(run.profile.stage1)
    found = []
    for rows in batches:
        own = features.rows(rows)
        n_shown = sum(row < config.n_images_trajectory for row in rows)
        found.append(_aligned(run, backbone, own, settings, diffusion, n_shown))
    images = stacked_images(backbone, [batch.images for batch in found])
    cost = max((int(b.n_unet_evaluations.max()) for b in found), default=0)
    seconds = time.time() - began
    ids, done = ids_of(features, batches), [batch.finished for batch in found]
    finished = np.concatenate(done) if done else None
    whole = Made(ids, images, cost, seconds, diffusion, finished)
    # held once: those of a thousand images at 512 px take a gigabyte
    found = [replace(batch, images=batch.images[:0].copy()) for batch in found]
    return Aligned(whole, tuple(found))


def _aligned(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: Stage2Settings,
    diffusion: DiffusionSettings,
    n_shown: int,
) -> Batch:
    """Return a batch of stage 2, from the memory of an earlier run if it is there."""
    ids, words = tuple(features.nsd_id.tolist()), repr((settings, diffusion, n_shown))
    recipe = Recipe(ids, words, features.tensors, _made_batch)
    found = made_once(
        run,
        recipe,
        inputs=(run, backbone, features, settings),
        diffusion=diffusion,
        keeper=recipe.keeper(run),
        n_shown=n_shown,
    )
    return Batch(**found)


def _made_batch(
    *,
    inputs: tuple[Run, Backbone, DecodedFeatures, Stage2Settings],
    diffusion: DiffusionSettings,
    keeper: Keeper,
    n_shown: int,
) -> Arrays:
    result = align_batch(*inputs, diffusion=diffusion, keeper=keeper)
    _, backbone, features, _ = inputs
    return Batch.of(backbone, result, features.nsd_id.tolist(), n_shown).arrays()


def align_batch(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: Stage2Settings,
    *,
    diffusion: DiffusionSettings | None = None,
    keeper: Keeper | None = None,
) -> AlignmentResult:
    """Align the images of one batch by whichever engine the settings belong to.

    They start from the noise of stage 1. With a `keeper` a batch of `alignment` that
    was cut off goes on from the last state that it kept. `diffusion`: default the
    profile's sampler.
    As many images go through at once as the device has room for.

    Raises
    ------
    ModelError
        The device's memory ran out.
    """
    diffusion = diffusion or diffusion_settings(run.profile.stage1)
    n, models = len(features.nsd_id), run.profile.models
    full = make_schedule(backbone, diffusion)
    room = room_for(backbone, settings, full, models, n)
    parts = features.parts(room.n_images)
    keepers = _keepers(keeper, [part.nsd_id for part in parts])
    settings = with_memory(settings, room.memory)
    inputs = run, backbone, settings, diffusion
    try:
        found = [_align(*inputs, *own) for own in zip(parts, keepers, strict=True)]
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The GPU's memory ran out at {room.n_images} images at once and memory"
            f" {room.memory!r}: set models.n_at_once to less, or models.memory to"
            " checkpoint, or end other work on that GPU."
        ) from error
    return joined(found)


def _keepers(
    keeper: Keeper | None, parts: Sequence[npt.NDArray[np.int64]]
) -> list[Keeper | None]:
    """Return a keeper for each part of a batch, all of them in the file of one.

    What a part that is done has kept stays there until the batch is done.
    """
    if keeper is None:
        return [None] * len(parts)
    kept = dict(keeper.load() or {})

    def keeper_of(ids: npt.NDArray[np.int64]) -> Keeper:
        prefix = f"images {' '.join(map(str, ids))}/"

        def load() -> Arrays | None:
            own = {k: v for k, v in kept.items() if k.startswith(prefix)}
            return {k.removeprefix(prefix): v for k, v in own.items()} or None

        def save(state: Arrays) -> None:
            kept.update({f"{prefix}{name}": value for name, value in state.items()})
            keeper.save(kept)

        return Keeper(load, save, keeper.every)

    return [keeper_of(ids) for ids in parts]


def _align(
    run: Run,
    backbone: Backbone,
    settings: Stage2Settings,
    diffusion: DiffusionSettings,
    features: DecodedFeatures,
    keeper: Keeper | None,
) -> AlignmentResult:
    """Align images that go through at once."""
    names = features.nsd_id.tolist()
    generators = noise_generators(run, names)
    noise = draw_noise(backbone, generators)
    latent = Latent(features.z, features.c, noise, names)
    inputs = (backbone, latent, features.target, diffusion)
    if isinstance(settings, GuidanceSettings):
        return guide(*inputs, settings)
    if isinstance(settings, CombinedSettings):
        return align_and_guide(*inputs, settings, keeper=keeper)
    return align(*inputs, settings, generators=generators, keeper=keeper)


def zero_iterations_equal(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    config: Stage2Config,
    folder: Path,
) -> pd.DataFrame:
    """Compare stage 2 with zero iterations to the stage-1 files, pixel by pixel.

    Of the run's first batch alone: it goes through everything that could differ, and
    the whole set costs as much as a stage of its own.

    Returns
    -------
    DataFrame
        Columns nsd_id, equal; `folder` holds stage 1's `<nsd_id>.png`.
    """
    nothing = {"n_iter": 0, "n_iter_fast": None, "strength_guided": 0.0}
    same = "fast" if config.preset == "combined" else config.preset
    still = config.model_copy(update={**nothing, "preset": same})
    made = align_images(run, backbone, features, still, n_batches=1).made
    ids = made.nsd_id[made.is_finished]
    equal = [
        np.array_equal(image, store.read_png(folder / f"{nsd_id}.png"))
        for nsd_id, image in zip(ids, made.images[made.is_finished], strict=True)
    ]
    return pd.DataFrame({"nsd_id": ids, "equal": np.array(equal, bool)})
