"""The demo's own small models, shipped with the repository."""

from pathlib import Path

import torch

from minddiff_utils.core.config import ModelConfig
from minddiff_utils.models.core import Backbone, assemble, own_text
from minddiff_utils.models.eye import load_eye
from minddiff_utils.models.libraries import Autoencoder, UNet
from minddiff_utils.models.placement import freeze, place
from minddiff_utils.models.weights import (
    check_digests,
    models_folder,
    read_diffusers,
    read_schedule,
)

__all__ = ["load_demo"]


def load_demo(config: ModelConfig, root: Path | None) -> Backbone:
    """Read the demo models below `root`; every file must have its listed digest."""
    device, precision = place(config)
    folder = models_folder(root, "demo", "restore the repository's data folder")
    check_digests(folder)
    vae = read_diffusers(Autoencoder, folder / "vae")
    unet = read_diffusers(UNet, folder / "unet")
    eye = load_eye(folder / "clip", device, normalisation=config.normalisation)
    return assemble(
        "demo",
        freeze(vae, device, torch.float32),
        freeze(unet, device, precision).to(memory_format=torch.channels_last),
        read_schedule(folder),
        own_text(eye),
        eye,
    )
