"""From decoded features to images on disk: every condition of stages 1 and 2.

A condition says which features (decoded, true, another image's) go through which part
of the generator. Noise comes from a stream named by subject and image, so that no image
depends on order or shard; the last shard puts the tables and trajectories of all of
them together. Not here: the sampler (`diffusion`) and the optimisation (`alignment`).
Place in the flow: layer 8, notebooks 03 and 04.
"""

import math
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
    Keeper,
    Latent,
    align,
    preset,
)
from minddiff_utils.backbone import Backbone
from minddiff_utils.batches import (
    Batch,
    Recipe,
    discard_other_code,
    made_once,
    subject_of,
)
from minddiff_utils.config import Profile, Stage1Config, Stage2Config
from minddiff_utils.critic import StructuralTarget
from minddiff_utils.diffusion import (
    DiffusionSettings,
    Memory,
    draw_noise,
    make_schedule,
    sample,
)
from minddiff_utils.errors import ConfigError, StoreError, check_choice
from minddiff_utils.guidance import (
    CombinedSettings,
    GuidanceSettings,
    align_and_guide,
    combined_preset,
    guidance_preset,
    guide,
)
from minddiff_utils.images import to_uint8

__all__ = [
    "Aligned",
    "DecodedFeatures",
    "Finished",
    "Made",
    "Source",
    "Stage2Settings",
    "align_batch",
    "align_images",
    "begin_stage",
    "diffusion_settings",
    "finish_stage1",
    "finish_stage2",
    "from_noise",
    "memory_on",
    "noise_generators",
    "paper_config",
    "read_decoded",
    "stage1_images",
    "stage1_table",
    "stage2_settings",
    "stage2_table",
    "subject_of",
    "trajectory_arrays",
    "with_preset",
    "write_images",
    "zero_iterations_equal",
]

#: What tells which engine of stage 2 runs, and how.
Stage2Settings = AlignmentSettings | GuidanceSettings | CombinedSettings
Images = npt.NDArray[np.uint8]
Arrays = Mapping[str, npt.NDArray[Any]]
#: What each stage writes for all images of a subject together.
_FILES = {
    "stage1": ("stage1.csv",),
    "stage2": ("stage2.csv", "zero_iterations.csv", "trajectories.h5"),
}
#: Arrays of a condition in `trajectories.h5` -> whether there is a row per image.
_TRAJECTORY = {
    "nsd_id": True,
    "losses": True,
    "candidates": False,
    "candidate_losses": True,
    "best_iteration": True,
    "iterations": False,
}
#: Arrays with a row per image whose frames are kept.
_FRAMES = ("shown", "images")
#: Where the features of a condition come from.
Source = Literal["decoded", "true", "shuffled"]
#: Columns of the two tables, and their types; Int64 can be missing.
_STAGE1_COLUMNS = {
    "method": "str",
    "nsd_id": "int64",
    "seed": "int64",
    "encode_index": "Int64",
    "decode_steps": "Int64",
    "guidance_scale": "float64",
    "n_unet_evaluations": "int64",
}
_STAGE2_COLUMNS = {
    "method": "str",
    "nsd_id": "int64",
    "seed": "int64",
    "loss_first": "float64",
    "loss_best": "float64",
    "best_iteration": "int64",
    "stopped": "int64",
    "diverged": "bool",
    "n_unet_evaluations": "int64",
    "n_unet_gradients": "int64",
}


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

    def with_layers(self, layers: Sequence[int]) -> "DecodedFeatures":
        """Return the features with some of the CLIP layers in the target.

        Raises
        ------
        ConfigError
            A layer was not decoded.
        """
        strange = sorted(set(layers) - set(self.target.layers))
        if strange or not layers:
            raise ConfigError(
                f"stage2.layers_fast is {tuple(layers)}, but the decoded layers are"
                f" {self.target.layers}: choose among them, or change"
                " features.clip_layers."
            )
        whole = self.target
        parts = (whole.features, whole.selected, whole.scale, whole.residual)
        target = StructuralTarget(
            *({k: part[k] for k in layers if k in part} for part in parts)
        )
        return replace(self, target=target)

    def without_z(self) -> "DecodedFeatures":
        """Return the features with latents of 0, which noise replaces."""
        return replace(self, z=torch.zeros_like(self.z))

    def without_c(self, backbone: Backbone) -> "DecodedFeatures":
        """Return the features with the empty caption's text for every image."""
        return replace(self, c=backbone.null_text().expand_as(self.c).clone())


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
    """

    nsd_id: npt.NDArray[np.int64]
    images: Images
    n_unet_evaluations: int
    seconds: float
    settings: DiffusionSettings | None = None


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


def with_preset(
    config: Stage2Config, name: Literal["guided", "combined"]
) -> Stage2Config:
    """Return the `stage2` part under which another engine of ours runs."""
    return config.model_copy(update={"preset": name})


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
        brain's response to the file's next test image (the last one takes the first),
        which is the floor. The donor of an image does not depend on `n`.

    Raises
    ------
    ConfigError
        Another source, or a CLIP layer that the backbone does not have.
    DataError
        `selected` or `scale` does not fit a layer's features.
    StoreError
        The file does not hold the backbone's features, fewer than `n` images, or, for
        shuffled, no other image.
    """
    check_choice(source, ("decoded", "true", "shuffled"), "source")
    for layer in layers:
        check_choice(layer, range(1, len(backbone.layer_widths) + 1), "A CLIP layer")
    kind = "true" if source == "true" else "decoded"
    shapes = _shapes(backbone, layers)
    facts = [
        f"clip/{k}/{fact}" for k in layers for fact in ("selected", "scale", "residual")
    ]
    wanted = [f"{name}/{kind}" for name in shapes]
    stored = store.read_arrays(path, ["nsd_id", *wanted, *facts])
    rows = _rows(path, len(stored["nsd_id"]), n, source)
    read = {
        name: _tensor(path, stored, f"{name}/{kind}", shape, backbone)[rows]
        for name, shape in shapes.items()
    }
    fact = {name: torch.from_numpy(stored[name]).to(backbone.device) for name in facts}
    target = StructuralTarget(
        features={k: read[f"clip/{k}"] for k in layers},
        selected={k: fact[f"clip/{k}/selected"] for k in layers},
        scale={k: fact[f"clip/{k}/scale"] for k in layers},
        residual={k: fact[f"clip/{k}/residual"] for k in layers},
    )
    return DecodedFeatures(stored["nsd_id"][:n], read["z"], read["c"], target)


def _shapes(backbone: Backbone, layers: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of one image's features by name."""
    clip = {f"clip/{k}": (backbone.layer_widths[k - 1],) for k in layers}
    c = (backbone.n_tokens, backbone.text_dim)
    return {"c": c, "z": backbone.latent_shape, **clip}


def _rows(path: Path, n_stored: int, n: int, source: Source) -> list[int]:
    """Return which of the file's rows stand for the first `n` images."""
    if n_stored < n:
        raise StoreError(
            f"{path} holds {n_stored} test images, but {n} are to be reconstructed:"
            " lower data.n_reconstruct."
        )
    if source != "shuffled":
        return list(range(n))
    if n_stored < 2:
        raise StoreError(
            f"{path} holds {n_stored} test image, but a shuffled condition needs 2 or"
            " more: raise simulation.n_test_images or data.sessions."
        )
    return [(row + 1) % n_stored for row in range(n)]


def _tensor(
    path: Path,
    stored: Mapping[str, npt.NDArray[Any]],
    name: str,
    shape: tuple[int, ...],
    backbone: Backbone,
) -> Tensor:
    """Return a stored feature of all images in the backbone's shape and precision."""
    n_images, values = len(stored["nsd_id"]), stored[name]
    if values.shape != (n_images, math.prod(shape)):
        raise StoreError(
            f"{path}, {name}: shape {values.shape}, but {backbone.name} needs"
            f" {(n_images, math.prod(shape))}: run notebook 02 again."
        )
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.reshape(n_images, *shape).to(backbone.device, backbone.dtype)


def noise_generators(run: store.Run, nsd_id: Sequence[int]) -> list[torch.Generator]:
    """Return one stream of noise per image, named by subject and image."""
    return [run.torch_stream("noise", run.subject or 0, int(i)) for i in nsd_id]


def _stack(backbone: Backbone, images: Sequence[Images]) -> Images:
    """Return all batches' images; none of them gives (0, S, S, 3)."""
    size = backbone.image_size
    return np.concatenate([np.empty((0, size, size, 3), np.uint8), *images])


def _ids(
    features: DecodedFeatures, batches: Sequence[Sequence[int]]
) -> npt.NDArray[np.int64]:
    return features.nsd_id[np.array([r for rows in batches for r in rows], np.int64)]


def memory_on(device: str) -> Memory:
    """Return how stage 2 holds intermediate values; the gradients are the same.

    A GPU's memory does not hold all steps of a full-size U-Net.

    >>> memory_on("cuda"), memory_on("cpu")
    ('checkpoint', 'store')
    """
    return "checkpoint" if device == "cuda" else "store"


# --- stage 1 ------------------------------------------------------------------------


def stage1_images(
    run: store.Run,
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
    images = [
        _first_images(run, backbone, own if use_z else own.without_z(), settings)
        for own in map(features.rows, batches)
    ]
    cost = 0
    if settings is not None:
        cost = make_schedule(backbone, settings).n_unet_evaluations
    made = _stack(backbone, images)
    seconds = time.time() - began
    return Made(_ids(features, batches), made, cost, seconds, settings)


def _first_images(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: DiffusionSettings | None,
) -> Images:
    """Return a batch's images without stage 2; without settings z alone is decoded."""
    ids = tuple(features.nsd_id.tolist())
    if settings is None:
        recipe = Recipe(ids, "z decoded", (features.z,))
        found = made_once(run, recipe, lambda: {"images": _decode(backbone, features)})
        return found["images"]
    recipe = Recipe(ids, repr(settings), (features.z, features.c))
    found = made_once(
        run, recipe, lambda: {"images": _diffuse(run, backbone, features, settings)}
    )
    return found["images"]


def from_noise(settings: DiffusionSettings) -> DiffusionSettings:
    """Return the settings that begin at the highest level and take all steps."""
    n_steps = settings.n_steps
    return replace(settings, encode_index=n_steps - 1, decode_steps=n_steps)


def _diffuse(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: DiffusionSettings,
) -> Images:
    noise = draw_noise(backbone, noise_generators(run, features.nsd_id.tolist()))
    schedule = make_schedule(backbone, settings)
    return to_uint8(sample(backbone, features.z, features.c, noise, schedule))


@torch.no_grad()
def _decode(backbone: Backbone, features: DecodedFeatures) -> Images:
    return to_uint8(backbone.decode_latents(features.z))


# --- stage 2 ------------------------------------------------------------------------


def align_images(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    config: Stage2Config,
    *,
    diffusion: DiffusionSettings | None = None,
) -> Aligned:
    """Align stage-1 images with their structural features, batch by batch.

    The presets of ours compare the blocks `layers_fast` alone, the others all six. A
    batch that was cut off goes on from the last state that it kept. `diffusion` takes
    the place of the profile's sampler.
    """
    began = time.time()
    if config.preset in ("fast", "guided", "combined"):
        features = features.with_layers(config.layers_fast)
    batches = run.batches(len(features.nsd_id))
    settings = stage2_settings(config, backbone)
    diffusion = diffusion or diffusion_settings(run.profile.stage1)
    found = []
    for rows in batches:
        own = features.rows(rows)
        n_shown = sum(row < config.n_images_trajectory for row in rows)
        found.append(_aligned(run, backbone, own, settings, diffusion, n_shown))
    images = _stack(backbone, [batch.images for batch in found])
    cost = max((int(b.n_unet_evaluations.max()) for b in found), default=0)
    seconds = time.time() - began
    whole = Made(_ids(features, batches), images, cost, seconds, diffusion)
    # held once: those of a thousand images at 512 px take a gigabyte
    found = [replace(batch, images=batch.images[:0].copy()) for batch in found]
    return Aligned(whole, tuple(found))


def _aligned(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: Stage2Settings,
    diffusion: DiffusionSettings,
    n_shown: int,
) -> Batch:
    """Return a batch of stage 2, from the memory of an earlier run if it is there."""
    recipe = _recipe(features, repr((settings, diffusion, n_shown)))

    def make() -> Arrays:
        result = align_batch(run, backbone, features, settings, diffusion=diffusion)
        return Batch.of(result, n_shown).arrays()

    return Batch(**made_once(run, recipe, make))


def _recipe(features: DecodedFeatures, settings: str) -> Recipe:
    clip = features.target
    parts = (clip.features, clip.selected, clip.scale)
    arrays = [part[k] for part in parts for k in clip.layers]
    ids = tuple(features.nsd_id.tolist())
    return Recipe(ids, settings, (features.z, features.c, *arrays))


def stage2_settings(config: Stage2Config, backbone: Backbone) -> Stage2Settings:
    """Return the settings of the engine that `config.preset` names."""
    memory = memory_on(backbone.device.type)
    if config.preset == "combined":
        return combined_preset(config, memory=memory)
    if config.preset == "guided":
        return guidance_preset(config, memory=memory)
    return preset(config, memory=memory)


def align_batch(
    run: store.Run,
    backbone: Backbone,
    features: DecodedFeatures,
    settings: Stage2Settings,
    *,
    diffusion: DiffusionSettings | None = None,
) -> AlignmentResult:
    """Align the images of one batch by whichever engine the settings belong to.

    They start from the noise of stage 1. A batch of `alignment` that was cut off goes
    on from the last state that it kept. `diffusion`: default the profile's sampler.
    """
    diffusion = diffusion or diffusion_settings(run.profile.stage1)
    names = features.nsd_id.tolist()
    generators = noise_generators(run, names)
    noise = draw_noise(backbone, generators)
    latent = Latent(features.z, features.c, noise, names)
    inputs = (backbone, latent, features.target, diffusion)
    if isinstance(settings, GuidanceSettings):
        return guide(*inputs, settings)
    recipe = _recipe(features, repr((settings, diffusion)))
    path = recipe.path(run, "unfinished")
    keeper = _keeper(run, path, recipe.facts(run))
    if isinstance(settings, CombinedSettings):
        result = align_and_guide(*inputs, settings, keeper=keeper)
    else:
        result = align(*inputs, settings, generators=generators, keeper=keeper)
    store.discard(path)
    return result


#: Iterations between two states that are kept; a state of the demo takes 10 ms.
_KEEP_EVERY = 25


def _keeper(run: store.Run, path: Path, facts: Mapping[str, Any]) -> Keeper:
    def load() -> Mapping[str, npt.NDArray[Any]] | None:
        there = store.is_current(path, run=run, facts=facts)
        return store.read_arrays(path) if there else None

    def save(state: Mapping[str, npt.NDArray[Any]]) -> None:
        store.write_arrays(path, state, run=run, facts=facts)

    return Keeper(load, save, _KEEP_EVERY)


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
    nothing = {"n_iter": 0, "n_iter_fast": None, "strength_guided": 0.0}
    same = "fast" if config.preset == "combined" else config.preset
    still = config.model_copy(update={**nothing, "preset": same})
    made = align_images(run, backbone, features, still).made
    equal = [
        np.array_equal(image, store.read_png(folder / f"{nsd_id}.png"))
        for nsd_id, image in zip(made.nsd_id, made.images, strict=True)
    ]
    return pd.DataFrame({"nsd_id": made.nsd_id, "equal": equal})


# --- writing ------------------------------------------------------------------------


def begin_stage(
    run: store.Run, stage: Literal["stage1", "stage2"], *, inputs: Sequence[Path]
) -> None:
    """Delete a stage's tables that are of another run, before images change below them.

    What this very run has written before, or another shard of it, stays. `inputs` must
    be those that `finish_stage1` or `finish_stage2` is given.
    """
    folder = run.tree.derived(subject_of(run))
    with store.locked(folder):
        discard_other_code(run)
        for name in _FILES[stage]:
            store.discard_stale(folder / name, run=run, inputs=inputs)


def write_images(
    run: store.Run, made: Mapping[str, Made], *, inputs: Sequence[Path]
) -> None:
    """Write each condition's images to its folder, one PNG per image."""
    subject = subject_of(run)
    for method, condition in made.items():
        folder = run.tree.stage_dir(subject, method)
        for nsd_id, image in zip(condition.nsd_id, condition.images, strict=True):
            store.write_png(folder / f"{nsd_id}.png", image, run=run, inputs=inputs)


def stage1_table(run: store.Run, made: Mapping[str, Made]) -> pd.DataFrame:
    """Return a row per condition and image: the sampler's settings and the cost.

    Columns: method, nsd_id, seed, encode_index, decode_steps, guidance_scale and
    n_unet_evaluations; the settings are missing where there was no diffusion.
    """
    rows = [
        {
            "method": method,
            "nsd_id": int(nsd_id),
            "seed": run.profile.seed,
            "encode_index": found.settings.encode_index if found.settings else None,
            "decode_steps": found.settings.decode_steps if found.settings else None,
            "guidance_scale": found.settings.guidance_scale if found.settings else None,
            "n_unet_evaluations": found.n_unet_evaluations,
        }
        for method, found in made.items()
        for nsd_id in found.nsd_id
    ]
    table = pd.DataFrame(rows, columns=list(_STAGE1_COLUMNS))
    return table.astype(_STAGE1_COLUMNS)


def stage2_table(profile: Profile, aligned: Mapping[str, Aligned]) -> pd.DataFrame:
    """Return a row per condition and image: losses, chosen iteration, cost.

    Columns: method, nsd_id, seed, loss_first, loss_best, best_iteration, stopped,
    diverged, n_unet_evaluations and n_unet_gradients. `loss_first` and `loss_best` are
    those of the complete sampler's image before and after, so that the two can be
    compared.
    """
    frames = [pd.DataFrame(columns=list(_STAGE2_COLUMNS)).astype(_STAGE2_COLUMNS)]
    for method, found in aligned.items():
        if not found.batches:
            continue
        losses = found.stacked("candidate_losses")
        frames.append(
            pd.DataFrame(
                {
                    "method": method,
                    "nsd_id": found.made.nsd_id,
                    "seed": profile.seed,
                    "loss_first": losses[:, 0],
                    "loss_best": np.nanmin(losses, axis=1),
                    "best_iteration": found.stacked("best_iteration"),
                    "stopped": found.stacked("stopped"),
                    "diverged": found.stacked("diverged"),
                    "n_unet_evaluations": found.stacked("n_unet_evaluations"),
                    "n_unet_gradients": found.stacked("n_unet_gradients"),
                }
            )
        )
    return pd.concat(frames, ignore_index=True).astype(_STAGE2_COLUMNS)


def trajectory_arrays(aligned: Mapping[str, Aligned]) -> dict[str, npt.NDArray[Any]]:
    """Return the content of `trajectories.h5`: losses and images along the way.

    Per condition: nsd_id (n,), losses (n, n_iter + 1), candidates (n_candidates,),
    candidate_losses (n, n_candidates), best_iteration (n,); of the first images, whose
    ids are shown (n_shown,), images uint8 (n_shown, n_frames, S, S, 3), and the frames'
    iterations (n_frames,); nothing for a condition without images in this shard.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for method, found in aligned.items():
        if not found.batches:
            continue
        first = found.batches[0]
        own = {
            "nsd_id": found.made.nsd_id,
            "losses": found.stacked("losses"),
            "candidates": first.candidates,
            "candidate_losses": found.stacked("candidate_losses"),
            "best_iteration": found.stacked("best_iteration"),
            "iterations": first.iterations,
            "shown": _shown(found),
            "images": found.stacked("frames"),
        }
        names = (*_TRAJECTORY, *_FRAMES)
        arrays |= {f"{method}/{name}": own[name] for name in names}
    return arrays


def _shown(found: Aligned) -> npt.NDArray[np.int64]:
    """Return the ids of the images whose frames were kept."""
    ends = np.cumsum([len(batch.losses) for batch in found.batches])
    ids = np.split(found.made.nsd_id, ends[:-1])
    parts = zip(ids, found.batches, strict=True)
    return np.concatenate([own[: len(batch.frames)] for own, batch in parts])


# --- all shards together --------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """What a shard leaves: its own share, or everything where it was the last one.

    Attributes
    ----------
    run : Run
        The run of all images if all of them are there, this shard's run otherwise.
    tables : mapping of DataFrame
        By file name.
    trajectories : mapping of arrays
        As `trajectory_arrays`; empty for stage 1.
    """

    run: store.Run
    tables: Mapping[str, pd.DataFrame]
    trajectories: Arrays


def finish_stage1(
    run: store.Run,
    made: Mapping[str, Made],
    nsd_id: npt.NDArray[np.int64],
    *,
    inputs: Sequence[Path],
) -> Finished:
    """Write `stage1.csv`, or this shard's share of it; the last shard writes it whole.

    Parameters
    ----------
    made : mapping of Made
        This shard's images, already written, by condition.
    nsd_id : (n,) int64
        The images of all shards, in order.
    inputs : sequence of Path
        As given to `begin_stage`.
    """
    share = Finished(run, {"stage1.csv": stage1_table(run, made)}, {})
    return _finish(share, list(made), nsd_id, inputs)


def finish_stage2(
    run: store.Run,
    aligned: Mapping[str, Aligned],
    still: pd.DataFrame,
    nsd_id: npt.NDArray[np.int64],
    *,
    inputs: Sequence[Path],
) -> Finished:
    """Write the tables and trajectories of stage 2, as `finish_stage1`.

    `still` is the result of `zero_iterations_equal`.
    """
    tables = {
        "stage2.csv": stage2_table(run.profile, aligned),
        "zero_iterations.csv": still,
    }
    share = Finished(run, tables, trajectory_arrays(aligned))
    return _finish(share, list(aligned), nsd_id, inputs)


def _finish(
    share: Finished,
    methods: Sequence[str],
    nsd_id: npt.NDArray[np.int64],
    inputs: Sequence[Path],
) -> Finished:
    """Write a share; where all shares are there, write and return the whole."""
    run = share.run
    folder = run.tree.derived(subject_of(run))
    with store.locked(folder):  # else two last shards could each miss the other
        whole: Finished | None = share
        if not run.is_whole:
            _write_share(share, folder, inputs)
            whole = _read_shares(share, folder, methods, nsd_id, inputs)
        if whole is None:
            return share
        for name, table in whole.tables.items():
            path = folder / name
            store.write_table(path, table, run=whole.run, inputs=inputs)
        if whole.trajectories:
            path = folder / "trajectories.h5"
            store.write_arrays(path, whole.trajectories, run=whole.run, inputs=inputs)
        _discard_leftovers(whole, methods)
    return whole


def _write_share(share: Finished, folder: Path, inputs: Sequence[Path]) -> None:
    """Write the share exactly: a CSV would round it."""
    written = {name: _columns(table) for name, table in share.tables.items()}
    if share.trajectories:
        written["trajectories.h5"] = dict(share.trajectories)
    for name, arrays in written.items():
        store.write_part(folder / name, arrays, run=share.run, inputs=inputs)


def _columns(table: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """Return a table's columns as arrays; integers that can be missing as floats."""
    return {
        str(name): column.to_numpy(np.float64, na_value=np.nan)
        if column.dtype == "Int64"
        else column.to_numpy()
        for name, column in table.items()
    }


def _read_shares(
    share: Finished,
    folder: Path,
    methods: Sequence[str],
    nsd_id: npt.NDArray[np.int64],
    inputs: Sequence[Path],
) -> Finished | None:
    """Return all shards' shares as one, None while one is missing."""
    names = [*share.tables, *(["trajectories.h5"] if share.trajectories else [])]
    found = {}
    for name in names:
        parts = store.read_parts(folder / name, run=share.run, inputs=inputs)
        if parts is None:
            return None
        found[name] = parts
    rank = {int(image): row for row, image in enumerate(nsd_id)}
    tables = {
        name: _joined_table(found[name], table, methods, rank)
        for name, table in share.tables.items()
    }
    paths = _joined_paths(found.get("trajectories.h5", []), methods, rank)
    return Finished(share.run.whole(), tables, paths)


def _joined_table(
    parts: Sequence[Arrays],
    like: pd.DataFrame,
    methods: Sequence[str],
    rank: Mapping[int, int],
) -> pd.DataFrame:
    """Return the rows of all parts in the order of one run, typed as `like`."""
    columns = {
        name: np.concatenate([part[name] for part in parts]) for name in like.columns
    }
    table = pd.DataFrame(columns).astype(like.dtypes.to_dict())
    place = table["nsd_id"].map(rank)
    if "method" in table:
        place += len(rank) * table["method"].map(list(methods).index)
    return table.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)


def _joined_paths(
    parts: Sequence[Arrays], methods: Sequence[str], rank: Mapping[int, int]
) -> dict[str, npt.NDArray[Any]]:
    """Return the trajectories of all parts in the order of one run."""
    joined: dict[str, npt.NDArray[Any]] = {}
    for method in methods:
        own = [part for part in parts if f"{method}/nsd_id" in part]
        if not own:
            continue
        order = _order(own, f"{method}/nsd_id", rank)
        for name, per_image in _TRAJECTORY.items():
            found = [part[f"{method}/{name}"] for part in own]
            joined[f"{method}/{name}"] = (
                np.concatenate(found)[order] if per_image else found[0]
            )
        order = _order(own, f"{method}/shown", rank)
        for name in _FRAMES:
            found = [part[f"{method}/{name}"] for part in own]
            joined[f"{method}/{name}"] = np.concatenate(found)[order]
    return joined


def _order(
    parts: Sequence[Arrays], name: str, rank: Mapping[int, int]
) -> npt.NDArray[np.int64]:
    """Return the order of one run for rows whose image ids are in the array `name`."""
    images = np.concatenate([part[name] for part in parts])
    return np.argsort([rank[int(image)] for image in images])


def _discard_leftovers(whole: Finished, methods: Sequence[str]) -> None:
    """Delete images that this run did not make: an earlier one may have made more."""
    table = next(iter(whole.tables.values()))
    for method in methods:
        made = set(table.loc[table["method"] == method, "nsd_id"].astype(str))
        folder = whole.run.tree.stage_dir(subject_of(whole.run), method)
        for path in folder.glob("*.png"):
            if path.stem not in made:
                store.discard(path)
