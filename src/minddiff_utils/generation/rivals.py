"""The systems that the paper compares itself with, as far as they can be run here.

Each goes through the same backbone and, where its method allows, the same decoded
features, so that a difference between rows is one of method. Weights and generators of
the original systems are not part of this project, and each row says what it shares with
its model. Not here: rows without a generator.

References
----------
Takagi and Nishimoto (2023), High-resolution image reconstruction with latent diffusion
models from human brain activity, CVPR; z from early, c from higher visual areas.
Ozcelik and VanRullen (2023), Natural scene reconstruction from fMRI signals using
generative latent diffusion, Scientific Reports 13 (Brain-Diffuser).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minddiff_utils.core import store
from minddiff_utils.core.conditions import Condition, by_name
from minddiff_utils.core.config import Profile
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.images import resize, to_torch
from minddiff_utils.core.run import Run
from minddiff_utils.generation.diffusion import DiffusionSettings
from minddiff_utils.generation.reconstruction import (
    Aligned,
    DecodedFeatures,
    Made,
    align_images,
    sampler_of,
    stage1_images,
    with_preset,
)
from minddiff_utils.models import Backbone

__all__ = [
    "Rivals",
    "brain_diffuser_style",
    "read_pixel_ridge",
    "read_rivals",
    "rival_images",
]

Matrix = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Rivals = Mapping[str, npt.NDArray[Any]]


def read_rivals(
    path: Path, nsd_id: npt.NDArray[np.int64], size: int
) -> dict[str, npt.NDArray[Any]]:
    """Read `decoded_rivals.h5` for the images `nsd_id`, which its first rows are.

    Parameters
    ----------
    path : Path
        Written by notebook 02.
    nsd_id : (n,) int64
    size : int
        Side in px to which `pixel_ridge`, returned as uint8 (n, size, size, 3), is
        enlarged.

    Raises
    ------
    StoreError
        The file is missing, or is of other images.
    """
    decoded = [f"{row.name}/{feature}" for row in _own() for feature in ("c", "z")]
    found = _read_first(path, nsd_id, ["pixel_ridge", *decoded])
    return {**found, "pixel_ridge": _pictures(found["pixel_ridge"], size)}


def read_pixel_ridge(
    path: Path,
    nsd_id: npt.NDArray[np.int64],
    size: int,
    rows: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.uint8]:
    """Return `pixel_ridge` of `read_rivals` alone, of some rows where they are given.

    Nothing else is read, and no other row enlarged: at 512 px a thousand images take
    0.7 GiB.
    """
    small = _read_first(path, nsd_id, ["pixel_ridge"])["pixel_ridge"]
    return _pictures(small if rows is None else small[rows], size)


def _read_first(
    path: Path, nsd_id: npt.NDArray[np.int64], names: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    stored, n = store.read_arrays(path, ["nsd_id", *names]), len(nsd_id)
    if not np.array_equal(stored["nsd_id"][:n], nsd_id):
        raise StoreError(
            f"{path} is not of the images to reconstruct: run notebook 02 of this"
            " subject again."
        )
    return {name: values[:n] for name, values in stored.items()}


def _own() -> list[Condition]:
    """Return the conditions with features of their own in `decoded_rivals.h5`."""
    return [row for row in by_name().values() if row.c == "own"]


def _pictures(pixels: Matrix, size: int) -> Images:
    """Return predicted pixels in 0..1, clipped, as images of `size` px."""
    side = round((pixels.shape[1] / 3) ** 0.5)
    scaled = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    return resize(scaled.reshape(len(pixels), side, side, 3), size)


# --- images (notebooks 03 and 04) -----------------------------------------------------


def _with(
    decoded: DecodedFeatures, rivals: Rivals, system: str, backbone: Backbone
) -> DecodedFeatures:
    """Return the features with c and z of another system."""

    def like(values: Matrix, shape: torch.Tensor) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.reshape(shape.shape).to(backbone.device, backbone.dtype)

    c, z = rivals[f"{system}/c"], rivals[f"{system}/z"]
    return replace(decoded, c=like(c, decoded.c), z=like(z, decoded.z))


def rival_images(
    run: Run,
    backbone: Backbone,
    decoded: DecodedFeatures,
    rivals: Rivals,
    diffusion: DiffusionSettings,
) -> dict[str, Made]:
    """Return the images of the systems that are a stage 1 from other features.

    Parameters
    ----------
    decoded : DecodedFeatures
        The profile's own.
    rivals : mapping
        From `read_rivals`.
    diffusion : DiffusionSettings
        Stage 1's sampler; Takagi's takes its own strength instead.
    """
    return {
        row.name: stage1_images(
            run,
            backbone,
            _with(decoded, rivals, row.name, backbone),
            diffusion=sampler_of(row, diffusion, run.profile.rivals),
        )
        for row in _own()
    }


def brain_diffuser_style(
    run: Run,
    backbone: Backbone,
    decoded: DecodedFeatures,
    rivals: Rivals,
    diffusion: DiffusionSettings,
) -> Aligned:
    """Return images in the style of Brain-Diffuser, not by its models.

    As there: a low-level image read from voxels (there a decoded VDVAE, here ridge to
    pixels) is noised at strength 0.75 and denoised under decoded text and decoded CLIP
    vision (there Versatile Diffusion's two conditions, here c and guidance by the
    highest decoded CLIP block).
    """
    highest = decoded.target.layers[-1]
    profile = run.profile
    config = with_preset(profile.stage2, "guided")
    config = config.model_copy(update={"layers_fast": (highest,)})
    start = replace(decoded, z=_encode(backbone, rivals["pixel_ridge"], profile))
    sampler = sampler_of(by_name()["brain_diffuser_style"], diffusion, profile.rivals)
    return align_images(run, backbone, start, config, diffusion=sampler)


@torch.no_grad()
def _encode(backbone: Backbone, images: Images, profile: Profile) -> torch.Tensor:
    """Return the latents of images, a batch at a time."""
    size = backbone.at_once(profile.models.batch_size)
    parts = [
        backbone.encode_images(to_torch(images[i : i + size]).to(backbone.device))
        for i in range(0, len(images), size)
    ]
    return torch.cat(parts)
