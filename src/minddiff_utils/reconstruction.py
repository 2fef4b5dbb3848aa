"""From decoded features to images on disk: every condition of stages 1 and 2.

A condition says which features (decoded, true, another image's) go through which part
of the generator. Noise comes from a stream named by subject and image, so that no image
depends on order or shard. Not here: the sampler (`diffusion`) and the optimisation
(`alignment`). Place in the flow: layer 8, notebooks 03 and 04.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from minddiff_utils import store
from minddiff_utils.alignment import (
    AlignmentResult,
    AlignmentSettings,
    Latent,
    StructuralTarget,
    align,
    preset,
)
from minddiff_utils.backbone import Backbone
from minddiff_utils.config import Profile, Stage1Config, Stage2Config
from minddiff_utils.diffusion import (
    DiffusionSettings,
    draw_noise,
    make_schedule,
    sample,
)
from minddiff_utils.errors import ConfigError, StoreError
from minddiff_utils.images import to_uint8

__all__ = [
    "Aligned",
    "DecodedFeatures",
    "Made",
    "Source",
    "align_images",
    "diffusion_settings",
    "paper_config",
    "read_decoded",
    "stage1_images",
    "stage1_table",
    "stage2_table",
    "trajectory_arrays",
    "write_images",
    "zero_iterations_equal",
]

Images = npt.NDArray[np.uint8]
#: Where the features of a condition come from.
Source = Literal["decoded", "true", "shuffled"]


@dataclass(frozen=True)
class DecodedFeatures:
    """The features of the images to reconstruct, as tensors on the backbone's device.

    Attributes
    ----------
    nsd_id : (n,) int64
        The images.
    z : Tensor
        Latents (n, C, h, w).
    c : Tensor
        Text sequences (n, n_tokens, d).
    target : StructuralTarget
        CLIP features, the selected ones, and their training scale.
    """

    nsd_id: npt.NDArray[np.int64]
    z: Tensor
    c: Tensor
    target: StructuralTarget

    def rows(self, index: Sequence[int]) -> "DecodedFeatures":
        """Return some of the images."""
        rows = list(index)
        clip = {k: v[rows] for k, v in self.target.features.items()}
        target = replace(self.target, features=clip)
        return DecodedFeatures(self.nsd_id[rows], self.z[rows], self.c[rows], target)


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
    """

    nsd_id: npt.NDArray[np.int64]
    images: Images
    n_unet_evaluations: int
    seconds: float


@dataclass(frozen=True)
class Aligned:
    """Stage-2 images of one condition and how the optimiser got there."""

    made: Made
    batches: tuple[AlignmentResult, ...]

    def stacked(self, name: str) -> npt.NDArray[Any]:
        """Return a field of all batches' results, stacked over images."""
        found = [getattr(batch, name) for batch in self.batches]
        return np.concatenate(
            [f.numpy() if isinstance(f, Tensor) else np.asarray(f) for f in found]
        )


def diffusion_settings(config: Stage1Config) -> DiffusionSettings:
    """Return the sampler's settings of a profile."""
    return DiffusionSettings(
        n_steps=config.n_steps,
        encode_index=config.encode_index,
        decode_steps=config.decode_steps,
        guidance_scale=config.guidance_scale,
    )


def paper_config(config: Stage2Config) -> Stage2Config:
    """Return the `stage2` part under which the paper's own preset runs."""
    return config.model_copy(update={"preset": "paper", "n_iter": config.n_iter_paper})


# --- reading ------------------------------------------------------------------------


def read_decoded(
    path: Path, backbone: Backbone, layers: Sequence[int], *, n: int, source: Source
) -> DecodedFeatures:
    """Read the first `n` test images' features from `decoded.h5`.

    Parameters
    ----------
    path : Path
        Written by notebook 02.
    backbone : Backbone
        Gives shapes, device and precision.
    layers : sequence of int
        CLIP layers of the profile.
    n : int
        Images to reconstruct.
    source : {"decoded", "true", "shuffled"}
        Decoded from the brain; extracted from the seen image; or decoded from the
        brain's response to the next image (cyclic), which is the floor.

    Raises
    ------
    StoreError
        The file does not hold the backbone's features, or fewer than `n` images.
    """
    kind = "true" if source == "true" else "decoded"
    names = ["c", "z", *(f"clip/{layer}" for layer in layers)]
    wanted = [f"{name}/{kind}" for name in names]
    clip_facts = [f"clip/{k}/{fact}" for k in layers for fact in ("selected", "scale")]
    stored = store.read_arrays(path, ["nsd_id", *wanted, *clip_facts])
    nsd_id = stored["nsd_id"]
    if len(nsd_id) < n:
        raise StoreError(
            f"{path} holds {len(nsd_id)} test images, but {n} are to be reconstructed:"
            " lower data.n_reconstruct."
        )
    rows = np.arange(n)
    rows = np.roll(rows, -1) if source == "shuffled" else rows

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        values = torch.from_numpy(np.ascontiguousarray(stored[name][rows]))
        if values[0].numel() != int(np.prod(shape)):
            raise StoreError(
                f"{path}, {name}: {values[0].numel()} values per image, but"
                f" {backbone.name} needs {int(np.prod(shape))}: run notebook 02 again."
            )
        return values.reshape(n, *shape).to(backbone.device, backbone.dtype)

    fact = {k: torch.from_numpy(stored[k]).to(backbone.device) for k in clip_facts}
    target = StructuralTarget(
        features={
            k: tensor(f"clip/{k}/{kind}", (backbone.layer_widths[k - 1],))
            for k in layers
        },
        selected={k: fact[f"clip/{k}/selected"] for k in layers},
        scale={k: fact[f"clip/{k}/scale"] for k in layers},
    )
    z = tensor(f"z/{kind}", backbone.latent_shape)
    c = tensor(f"c/{kind}", (backbone.n_tokens, backbone.text_dim))
    return DecodedFeatures(nsd_id[:n], z, c, target)


def _generators(run: store.Run, nsd_id: Sequence[int]) -> list[torch.Generator]:
    return [run.torch_stream("noise", run.subject or 0, int(i)) for i in nsd_id]


def _batches(run: store.Run, n: int) -> list[list[int]]:
    """Return the rows of this shard, in batches of the profile's size."""
    rows = [row for row in range(n) if run.in_shard(row)]
    size = run.profile.models.batch_size
    return [rows[start : start + size] for start in range(0, len(rows), size)]


# --- stage 1 ------------------------------------------------------------------------


def stage1_images(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    *,
    use_z: bool = True,
    use_c: bool = True,
) -> Made:
    """Return the first images, or what one feature alone gives.

    Both: z noised to the stage-1 level and denoised under c. Without c: z straight
    through the autoencoder, no diffusion. Without z: c from pure noise, all steps.

    Raises
    ------
    ConfigError
        Neither feature is used.
    """
    if not (use_z or use_c):
        raise ConfigError("An image needs z or c: use at least one of them.")
    began = time.time()
    settings = diffusion_settings(run.profile.stage1)
    if not use_z:
        n_steps = settings.n_steps
        settings = replace(settings, encode_index=n_steps - 1, decode_steps=n_steps)
    schedule = make_schedule(backbone, settings)
    batches = _batches(run, len(features.nsd_id))
    images = []
    for rows in batches:
        own = features.rows(rows)
        if use_c:
            z = own.z if use_z else torch.zeros_like(own.z)
            noise = draw_noise(backbone, _generators(run, own.nsd_id.tolist()))
            images.append(to_uint8(sample(backbone, z, own.c, noise, schedule)))
        else:
            with torch.no_grad():
                images.append(to_uint8(backbone.decode_latents(own.z)))
    nsd_id = features.nsd_id[[row for rows in batches for row in rows]]
    cost = schedule.n_unet_evaluations if use_c else 0
    return Made(nsd_id, np.concatenate(images), cost, time.time() - began)


# --- stage 2 ------------------------------------------------------------------------


def align_images(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    config: Stage2Config,
) -> Aligned:
    """Align stage-1 images with their structural features, batch by batch."""
    began = time.time()
    settings = preset(config)
    diffusion = diffusion_settings(run.profile.stage1)
    batches = _batches(run, len(features.nsd_id))
    results = [
        _align_batch(run, backbone, features.rows(rows), diffusion, settings)
        for rows in batches
    ]
    images = np.concatenate([to_uint8(result.images) for result in results])
    nsd_id = features.nsd_id[[row for rows in batches for row in rows]]
    cost = results[0].n_unet_evaluations
    made = Made(nsd_id, images, cost, time.time() - began)
    return Aligned(made, tuple(results))


def _align_batch(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    diffusion: DiffusionSettings,
    settings: AlignmentSettings,
) -> AlignmentResult:
    generators = _generators(run, features.nsd_id.tolist())
    noise = draw_noise(backbone, generators)
    latent = Latent(features.z, features.c, noise)
    return align(
        backbone, latent, features.target, diffusion, settings, generators=generators
    )


def zero_iterations_equal(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    config: Stage2Config,
    folder: Path,
) -> pd.DataFrame:
    """Compare stage 2 with zero iterations to the stage-1 files, pixel by pixel.

    Returns
    -------
    DataFrame
        Columns nsd_id, equal; `folder` holds stage 1's `<nsd_id>.png`.
    """
    still = config.model_copy(update={"n_iter": 0})
    made = align_images(run, backbone, features, still).made
    equal = [
        np.array_equal(image, store.read_png(folder / f"{nsd_id}.png"))
        for nsd_id, image in zip(made.nsd_id, made.images, strict=True)
    ]
    return pd.DataFrame({"nsd_id": made.nsd_id, "equal": equal})


# --- writing ------------------------------------------------------------------------


def write_images(
    run: store.Run, made: Mapping[str, Made], *, inputs: Sequence[Path]
) -> None:
    """Write each condition's images to its folder, one PNG per image."""
    if run.subject is None:
        raise ConfigError("Images belong to a subject: start the run with one.")
    for method, condition in made.items():
        folder = run.tree.stage_dir(run.subject, method)
        for nsd_id, image in zip(condition.nsd_id, condition.images, strict=True):
            store.write_png(folder / f"{nsd_id}.png", image, run=run, inputs=inputs)


def stage1_table(run: store.Run, made: Mapping[str, Made]) -> pd.DataFrame:
    """Return a row per condition and image: method, nsd_id, n_unet_evaluations."""
    settings = run.profile.stage1
    frames = [
        pd.DataFrame(
            {
                "method": method,
                "nsd_id": condition.nsd_id,
                "encode_index": settings.encode_index,
                "decode_steps": settings.decode_steps,
                "guidance_scale": settings.guidance_scale,
                "n_unet_evaluations": condition.n_unet_evaluations,
            }
        )
        for method, condition in made.items()
    ]
    return pd.concat(frames, ignore_index=True)


def stage2_table(profile: Profile, aligned: Mapping[str, Aligned]) -> pd.DataFrame:
    """Return a row per condition and image: losses, chosen iteration, cost.

    `loss_first` and `loss_best` are those of the complete sampler's image before and
    after, so that the two can be compared.
    """
    frames = []
    for method, found in aligned.items():
        losses = found.stacked("candidate_losses")
        chosen = found.stacked("best_iteration")
        frames.append(
            pd.DataFrame(
                {
                    "method": method,
                    "nsd_id": found.made.nsd_id,
                    "seed": profile.seed,
                    "loss_first": losses[:, 0],
                    "loss_best": np.nanmin(losses, axis=1),
                    "best_iteration": chosen,
                    "n_unet_evaluations": found.made.n_unet_evaluations,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def trajectory_arrays(aligned: Mapping[str, Aligned]) -> dict[str, npt.NDArray[Any]]:
    """Return the content of `trajectories.h5`: losses and images along the way."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for method, found in aligned.items():
        first = found.batches[0]
        frames = found.stacked("trajectory")  # (n, n_frames, 3, S, S)
        flat = to_uint8(torch.from_numpy(frames.reshape(-1, *frames.shape[2:])))
        arrays |= {
            f"{method}/nsd_id": found.made.nsd_id,
            f"{method}/losses": found.stacked("losses"),
            f"{method}/candidates": np.array(first.candidates),
            f"{method}/candidate_losses": found.stacked("candidate_losses"),
            f"{method}/best_iteration": found.stacked("best_iteration"),
            f"{method}/images": flat.reshape(*frames.shape[:2], *flat.shape[1:]),
            f"{method}/iterations": np.array(first.trajectory_iterations),
        }
    return arrays
