"""The pretrained models as one object: autoencoder, U-Net, scheduler, text and CLIP.

A `Backbone` turns images into latents z, captions into token sequences c and images
into layer-wise CLIP features, and back from latents to images; nobody else knows if
the models are the demo's, Stable Diffusion v1-4's or tiny random ones. Weights are
safetensors only, their digests are checked, and all parameters are frozen. It trains
nothing and knows nothing of brains. Place in the flow: layer 5.

`torchvision` makes torchvision importable, `libraries` imports diffusers, transformers
and open_clip after it; `text` and `eye` are what captions and images go through, `core`
is the object, `placement` its device and precision; `weights` reads files, `hub` says
where the real ones come from; `demo`, `sd14` and `tiny` are the three kinds of models.
"""

from dataclasses import replace
from pathlib import Path

from minddiff_utils.core.config import ModelConfig
from minddiff_utils.core.errors import check_choice
from minddiff_utils.core.places import project_root
from minddiff_utils.models.core import Backbone
from minddiff_utils.models.demo import load_demo
from minddiff_utils.models.eye import PLAIN, Judge, load_eye
from minddiff_utils.models.hub import PINNED, HubFiles, download_command
from minddiff_utils.models.placement import compiled, find_device, full_float32
from minddiff_utils.models.sd14 import CLIP_SCALE, SD14_TOKENS, load_sd14
from minddiff_utils.models.text import WordTokenizer
from minddiff_utils.models.tiny import tiny_backbone, tiny_judge
from minddiff_utils.models.torchvision import load_torchvision
from minddiff_utils.models.weights import (
    OPEN_CLIP_WEIGHTS,
    check_digests,
    find_weights,
    models_folder,
)

__all__ = [
    "PINNED",
    "SD14_TOKENS",
    "Backbone",
    "HubFiles",
    "Judge",
    "WordTokenizer",
    "check_digests",
    "download_command",
    "find_device",
    "full_float32",
    "load_backbone",
    "load_judge",
    "load_torchvision",
    "tiny_backbone",
    "tiny_judge",
]


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
        backbone = load_demo(config, root)
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
    return Judge(f"{kind} judge", load_eye(folder / "judge", where, default=default))
