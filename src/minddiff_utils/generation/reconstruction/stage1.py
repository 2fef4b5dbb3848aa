"""Images of stage 1: z under c through the sampler, batch by batch.

Place in the flow: part of `reconstruction`, notebook 03.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.images import to_uint8
from minddiff_utils.core.run import Run
from minddiff_utils.generation.batches import Recipe, finished_images, made_once
from minddiff_utils.generation.diffusion import (
    DiffusionSettings,
    draw_noise,
    make_schedule,
    sample,
)
from minddiff_utils.generation.reconstruction.features import DecodedFeatures
from minddiff_utils.generation.reconstruction.settings import (
    diffusion_settings,
    from_noise,
)
from minddiff_utils.models import Backbone

__all__ = [
    "Images",
    "Made",
    "ids_of",
    "noise_generators",
    "stacked_images",
    "stage1_images",
]

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Made:
    """Images of one condition and what they cost.

    Attributes
    ----------
    nsd_id : (n,) int64
        The images.
    images : uint8 (n, S, S, 3)
        Reconstructions.
    n_unet_evaluations : int
        U-Net forward passes per image.
    seconds : float
        Wall time for all of them.
    settings : DiffusionSettings or None
        The sampler that made them; None where there was no diffusion.
    finished : bool (n,) or None
        Which of them are images, from `batches.finished_images`; None: all.
    """

    nsd_id: npt.NDArray[np.int64]
    images: Images
    n_unet_evaluations: int
    seconds: float
    settings: DiffusionSettings | None = None
    finished: npt.NDArray[np.bool_] | None = None

    @property
    def is_finished(self) -> npt.NDArray[np.bool_]:
        """Return which of the images are finished, bool (n,)."""
        whole = np.ones(len(self.nsd_id), bool)
        return whole if self.finished is None else self.finished


def noise_generators(run: Run, nsd_id: Sequence[int]) -> list[torch.Generator]:
    """Return one stream of noise per image, named by subject and image."""
    return [run.torch_stream("noise", run.subject or 0, int(i)) for i in nsd_id]


def stage1_images(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    *,
    use_z: bool = True,
    use_c: bool = True,
    diffusion: DiffusionSettings | None = None,
) -> Made:
    """Return the first images, or what one feature alone gives.

    Both: z noised to the stage-1 level and denoised under c. Without c: z straight
    through the autoencoder, no diffusion. Without z: c from pure noise, all steps.
    `diffusion` takes the place of the profile's sampler.

    Raises
    ------
    ConfigError
        Neither feature is used.
    """
    if not (use_z or use_c):
        raise ConfigError("An image needs z or c: use at least one of them.")
    began = time.time()
    settings = None
    if use_c:
        settings = diffusion or diffusion_settings(run.profile.stage1)
        settings = settings if use_z else from_noise(settings)
    batches = run.batches(len(features.nsd_id))
    found = [
        _first_images(run, backbone, own if use_z else own.without_z(), settings)
        for own in map(features.rows, batches)
    ]
    cost = 0
    if settings is not None:
        cost = make_schedule(backbone, settings).n_unet_evaluations
    images = stacked_images(backbone, [batch["images"] for batch in found])
    finished = [batch["finished"] for batch in found if "finished" in batch]
    seconds = time.time() - began
    ids = ids_of(features, batches)
    done = np.concatenate(finished) if finished else None
    return Made(ids, images, cost, seconds, settings, done)


def _first_images(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: DiffusionSettings | None,
) -> Mapping[str, npt.NDArray[Any]]:
    """Return a batch without stage 2; without settings z alone is decoded."""
    ids = tuple(features.nsd_id.tolist())
    if settings is None:
        recipe = Recipe(ids, "z decoded", (features.z,), _decode)
        return made_once(run, recipe, backbone=backbone, features=features)
    recipe = Recipe(ids, repr(settings), (features.z, features.c), _diffuse)
    return made_once(
        run, recipe, run=run, backbone=backbone, features=features, settings=settings
    )


def _diffuse(
    *,
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: DiffusionSettings,
) -> dict[str, npt.NDArray[Any]]:
    schedule = make_schedule(backbone, settings)
    found = []
    for part in features.parts(backbone.at_once(len(features.nsd_id))):
        noise = draw_noise(backbone, noise_generators(run, part.nsd_id.tolist()))
        x = sample(backbone, part.z, part.c, noise, schedule)
        found.append(finished_images(backbone, x, part.nsd_id.tolist()))
    images, finished = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return {"images": images, "finished": finished}


@torch.no_grad()
def _decode(*, backbone: Backbone, features: DecodedFeatures) -> dict[str, Images]:
    parts = torch.split(features.z, backbone.at_once(len(features.nsd_id)))
    found = [to_uint8(backbone.decode_latents(z)) for z in parts]
    return {"images": np.concatenate(found)}


def stacked_images(backbone: Backbone, images: Sequence[Images]) -> Images:
    """Return all batches' images; none of them gives (0, S, S, 3)."""
    size = backbone.image_size
    return np.concatenate([np.empty((0, size, size, 3), np.uint8), *images])


def ids_of(
    features: DecodedFeatures, batches: Sequence[Sequence[int]]
) -> npt.NDArray[np.int64]:
    """Return the images of all batches, in their order."""
    return features.nsd_id[np.array([r for rows in batches for r in rows], np.int64)]
