"""The models that a profile names, read from their folder."""

from dataclasses import replace
from pathlib import Path

import torch

from minddiff_utils.core.errors import check_choice
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import ModelConfig
from minddiff_utils.models.backbone import Backbone, assemble, own_text
from minddiff_utils.models.clip import PLAIN, Judge, load_clip
from minddiff_utils.models.libraries import Autoencoder, UNet
from minddiff_utils.models.precision import compiled, find_device, freeze, place
from minddiff_utils.models.random import tiny_backbone, tiny_judge
from minddiff_utils.models.stable_diffusion import CLIP_SCALE, load_sd14
from minddiff_utils.models.weights import (
    OPEN_CLIP_WEIGHTS,
    check_digests,
    find_weights,
    models_folder,
    read_diffusers,
    read_schedule,
)

__all__ = ["load_backbone", "load_judge"]


def load_backbone(config: ModelConfig, root: Path | None = None) -> Backbone:
    """Load the models that `config` names, frozen.

    Parameters
    ----------
    config : ModelConfig
        Which models, on which device, and the U-Net's precision.
    root : Path, optional
        Folder that holds one folder per kind of models (`demo`, `sd14`); the default is
        the repository's `data/models`. `config.path`, where set, is used instead.

    Raises
    ------
    ModelError
        A file is missing, damaged, a pickle, not the one listed in SHA256SUMS or of
        another kind; a GPU is asked for where there is none, or a precision that the
        device does not have; compiling without a compiler.
    """
    if config.path is not None:
        root = project_root() / config.path  # an absolute path stands for itself
    if config.backbone == "tiny":
        backbone = tiny_backbone()
    elif config.backbone == "demo":
        backbone = _load_demo(config, root)
    else:
        backbone = load_sd14(config, root)
    if config.compile:
        return replace(backbone, _unet=compiled(backbone._unet))
    return backbone


def load_judge(
    root: Path | None = None, *, kind: str = "demo", device: str = "cpu"
) -> Judge:
    """Load the judge that belongs to the backbone `kind` (demo, sd14 or tiny).

    Parameters
    ----------
    root : Path, optional
        As in `load_backbone`; the judge is in the folder `judge` of its kind.
    kind : str
        `ModelConfig.backbone` of the profile.
    device : str
        Its `ModelConfig.device`.

    Raises
    ------
    ConfigError
        Unknown kind.
    ModelError
        A file is missing or damaged, or a GPU is asked for where there is none.
    """
    check_choice(kind, ("demo", "sd14", "tiny"), "kind")
    if kind == "tiny":
        return tiny_judge()
    remedy = "put an open_clip model (config and safetensors) in its folder judge"
    folder, default = models_folder(root, kind, remedy), CLIP_SCALE
    if kind == "demo":
        check_digests(folder)
        default = PLAIN
    else:
        find_weights(folder, f"judge/{OPEN_CLIP_WEIGHTS}")
    where = find_device(device)
    return Judge(f"{kind} judge", load_clip(folder / "judge", where, default=default))


def _load_demo(config: ModelConfig, root: Path | None) -> Backbone:
    """Read the demo models below `root`; every file must have its listed digest."""
    device, precision = place(config)
    folder = models_folder(root, "demo", "restore the repository's data folder")
    check_digests(folder)
    vae = read_diffusers(Autoencoder, folder / "vae")
    unet = read_diffusers(UNet, folder / "unet")
    clip = load_clip(folder / "clip", device, normalisation=config.normalisation)
    return assemble(
        "demo",
        freeze(vae, device, torch.float32),
        freeze(unet, device, precision).to(memory_format=torch.channels_last),
        read_schedule(folder),
        own_text(clip),
        clip,
    )
