"""Stable Diffusion 1.x and CLIP ViT-B/32, from files laid out as the hub has them.

The paper's is v1-4; v1-5 and what was tuned from either have the same parts, and labels
name what is there (`core.checkpoint`). `vae`, `unet`, `scheduler`, `text_encoder` and
`tokenizer` are diffusers' layout, `clip` is open_clip's. Weights are safetensors, and
fill the models strictly: a name that is missing or left over is an error, where the
libraries' own loaders only warn.
"""

import logging
from pathlib import Path
from typing import Any

import torch

from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD
from minddiff_utils.core.profile import ModelConfig
from minddiff_utils.models.backbone import Backbone, assemble
from minddiff_utils.models.clip import ClipEncoder, Scale, load_clip
from minddiff_utils.models.downloads import PINNED
from minddiff_utils.models.libraries import (
    Autoencoder,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    UNet,
)
from minddiff_utils.models.precision import freeze, place
from minddiff_utils.models.text_encoder import TransformersText
from minddiff_utils.models.weights import (
    DIFFUSERS_WEIGHTS,
    OPEN_CLIP_WEIGHTS,
    TEXT_WEIGHTS,
    State,
    building,
    check_digests,
    find_weights,
    load_weights,
    models_folder,
    read_diffusers,
    read_json,
    read_schedule,
    sha256,
)

__all__ = ["CLIP_SCALE", "REMEDY", "SD14_TOKENS", "load_sd14"]

LOG = logging.getLogger(__name__)

#: Tokens of c in MindDiffuser's published code (`ModelConfig.n_tokens`).
SD14_TOKENS = 15
#: Of a CLIP whose config names no mean and SD.
CLIP_SCALE: Scale = (CLIP_MEAN, CLIP_STD)
REMEDY = (
    "put Stable Diffusion v1-4 there in the layout of diffusers (vae, unet, scheduler,"
    " text_encoder, tokenizer; safetensors) and open_clip's ViT-B/32 in its folder"
    " clip, both from the hub at the commits that the README names"
)
#: Width of the text that a U-Net reads; in the family 1.x it is 768.
_OTHER_FAMILIES = {1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
#: diffusers before 0.13 named the autoencoder's attention so; v1-4 was saved by one.
_OLD_ATTENTION = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
_WEIGHTS = (
    f"vae/{DIFFUSERS_WEIGHTS}",
    f"unet/{DIFFUSERS_WEIGHTS}",
    f"text_encoder/{TEXT_WEIGHTS}",
    f"clip/{OPEN_CLIP_WEIGHTS}",
)


def load_sd14(config: ModelConfig, root: Path | None) -> Backbone:
    """Read Stable Diffusion 1.x and CLIP ViT-B/32 from the folder `sd14` in `root`."""
    device, precision = place(config)
    folder = models_folder(root, "sd14", REMEDY)
    for name in _WEIGHTS:
        find_weights(folder, name)
    _check_family(folder / "unet" / "config.json")
    _check(folder)
    vae = read_diffusers(Autoencoder, folder / "vae", _OLD_ATTENTION)
    unet = read_diffusers(UNet, folder / "unet")
    return assemble(
        "sd14",
        freeze(vae, device, torch.float32),
        freeze(unet, device, precision).to(memory_format=torch.channels_last),
        _read_schedule(folder),
        _read_text(folder, device, config.n_tokens),
        _read_clip(folder / "clip", device, config),
    )


def _check_family(config: Path) -> None:
    """Raise ModelError where a U-Net is known to be of another family than 1.x."""
    width = read_json(config).get("cross_attention_dim")
    family = next((name for n, name in _OTHER_FAMILIES.items() if n == width), "")
    if family:
        raise ModelError(
            f"{config} is of {family}, which reads another text encoder: {REMEDY}; any"
            " other checkpoint of the family 1.x, such as v1-5, will do, and labels"
            " name it."
        )


def _check(folder: Path) -> None:
    """Compare digests: those of SHA256SUMS, or at least those that the hub pins."""
    if (folder / "SHA256SUMS").is_file():
        check_digests(folder)
        return
    LOG.warning("%s has no SHA256SUMS: its weights are not checked", folder)
    for pin in PINNED:
        for name, digest in pin.digests.items():
            path = folder / pin.target / name
            if path.is_file() and sha256(path) != digest:
                LOG.warning("%s is not %s of %s", path, pin.revision, pin.repository)


def _read_schedule(folder: Path) -> dict[str, Any]:
    """Return the noise schedule; latents are never clipped to [-1, 1].

    v1-4's file is of another sampler (PNDM) on the same schedule; DDIM would clip where
    it says nothing of clipping.
    """
    return {"clip_sample": False, **read_schedule(folder)}


# --- text -----------------------------------------------------------------------------


def _read_text(folder: Path, device: torch.device, n_tokens: int) -> TransformersText:
    home = folder / "text_encoder"
    path = home / "config.json"
    fields = read_json(path)
    with building(path):
        config = CLIPTextConfig.from_dict(fields)
        text = CLIPTextModel(config)
    load_weights(text, home / TEXT_WEIGHTS, _rename_text)
    return TransformersText(
        freeze(text, device, torch.float32),
        _read_tokenizer(folder / "tokenizer"),
        n_tokens,
        int(config.hidden_size),
    )


def _rename_text(state: State) -> State:
    """Drop the prefix and the table of positions that older transformers saved."""
    plain = {name.removeprefix("text_model."): v for name, v in state.items()}
    plain.pop("embeddings.position_ids", None)
    return plain


def _read_tokenizer(folder: Path) -> Any:
    for name in ("vocab.json", "merges.txt"):  # without them an empty one is made
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name} is missing: {REMEDY}.")
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder} is no tokenizer of CLIP: {reason}.") from error


# --- CLIP -----------------------------------------------------------------------------


def _read_clip(folder: Path, device: torch.device, config: ModelConfig) -> ClipEncoder:
    model_config = read_json(folder / "open_clip_config.json").get("model_cfg", {})
    if not model_config.get("quick_gelu", False):
        LOG.warning(
            "%s says nothing of quick_gelu: right for LAION's weights, wrong for"
            " OpenAI's, which MindDiffuser uses",
            folder / "open_clip_config.json",
        )
    return load_clip(
        folder, device, default=CLIP_SCALE, normalisation=config.normalisation
    )
