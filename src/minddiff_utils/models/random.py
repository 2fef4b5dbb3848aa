"""Random models of the same classes and layout: for tests, and for a rehearsal.

`tiny` ones are made in memory, a few thousand weights. The others are written in the
layout that `load_backbone` reads. `full` has the architectures of Stable Diffusion
v1-4, CLIP ViT-B/32 and the judge ViT-H/14: seconds and memory do not depend on what the
weights are. `thin` has narrow copies of the U-Net, the autoencoder and the judge, which
a processor can run; the features keep their sizes (15 tokens of 768, latents of 4 x 64
x 64, six CLIP blocks of 50 tokens of 768), so that the decoders do the real work.
`reading` is thin but for the autoencoder: all that makes c, z and Z_CLIP is real. No
hub is asked.
"""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn

from minddiff_utils.models.backbone import Backbone, assemble, own_text
from minddiff_utils.models.clip import PLAIN, ClipEncoder, Judge, build_clip
from minddiff_utils.models.libraries import (
    Autoencoder,
    CLIPTextConfig,
    CLIPTextModel,
    SimpleTokenizer,
    UNet,
)
from minddiff_utils.models.precision import freeze
from minddiff_utils.models.text_encoder import WordTokenizer
from minddiff_utils.models.weights import (
    DIFFUSERS_WEIGHTS,
    OPEN_CLIP_WEIGHTS,
    TEXT_WEIGHTS,
    sha256,
)

__all__ = [
    "MAKERS",
    "Kind",
    "model_configs",
    "tiny_backbone",
    "tiny_judge",
    "weight_bytes",
    "write_models",
    "write_tokenizer",
]

Kind = Literal["full", "thin", "reading"]
Config = Mapping[str, Any]

#: huggingface.co/CompVis/stable-diffusion-v1-4: unet/config.json, vae/config.json,
#: scheduler/scheduler_config.json (as DDIM reads it) and text_encoder/config.json.
UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
VAE: dict[str, Any] = {
    "sample_size": 512,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.18215,
}
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
#: What is narrower, and shorter, where there is no GPU.
_THIN_UNET: dict[str, Any] = {
    "layers_per_block": 1,
    "block_out_channels": [16, 16, 32, 32],
    "norm_num_groups": 8,
    "attention_head_dim": 2,
    # no attention among the 4,096 places of the largest map
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
}
_THIN_VAE: dict[str, Any] = {
    "layers_per_block": 1,
    "block_out_channels": [8, 8, 16, 16],
    "norm_num_groups": 4,
}
_CLIP = "ViT-B-32-quickgelu"

_TINY_WORDS = (
    *("a", "the", "of", "on", "in", "at", "with", "photo", "small", "large", "red"),
    *("person", "dog", "cat", "bird", "car", "bus", "boat", "chair", "clock", "street"),
)
_TINY_TOKENS = ("<pad>", "<bos>", "<unk>", *_TINY_WORDS, "<eos>")
TINY_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 16,
        "width": 16,
        "layers": 6,
        "head_width": 8,
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": len(_TINY_TOKENS),
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
TINY_VAE: dict[str, Any] = {
    "latent_channels": 4,
    "sample_size": 64,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "block_out_channels": [4, 4, 4, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "mid_block_add_attention": False,
    "latents_mean": [0.0] * 4,
    "latents_std": [0.25] * 4,
}
TINY_UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "block_out_channels": [8, 16],
    "attention_head_dim": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}


def _tiny_clip(dtype: torch.dtype) -> ClipEncoder:
    words = len(_TINY_TOKENS)
    context = int(TINY_CLIP["text_cfg"]["context_length"])
    clip = freeze(build_clip(TINY_CLIP), torch.device("cpu"), dtype)
    tokenizer = WordTokenizer(_TINY_TOKENS, 0, 1, words - 1, 2, context)
    return ClipEncoder(clip, tokenizer, 64, *PLAIN)


def tiny_backbone(
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    prediction_type: str = "v_prediction",
) -> Backbone:
    """Return random models of the same classes, a few thousand weights, in memory.

    The weights follow from `seed`; the caller's random state is left as it was. On the
    CPU; for tests and for trying code out, its images mean nothing.

    >>> tiny_backbone().image_size
    64
    """
    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = freeze(Autoencoder(**TINY_VAE), device, dtype)
        unet = freeze(UNet(**TINY_UNET), device, dtype)
        clip = _tiny_clip(dtype)
    scheduler = {**SCHEDULER, "prediction_type": prediction_type}
    return assemble("tiny", vae, unet, scheduler, own_text(clip), clip)


def tiny_judge(seed: int = 1) -> Judge:
    """Return a judge with random weights from `seed`, for tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Judge("tiny judge", _tiny_clip(torch.float32))


# --- of the real sizes ----------------------------------------------------------------


#: Each model's folder: its weights' file, and what makes it of a config.
MAKERS: Mapping[str, tuple[str, Callable[[Config], nn.Module]]] = {
    "unet": (DIFFUSERS_WEIGHTS, lambda config: UNet(**config)),
    "vae": (DIFFUSERS_WEIGHTS, lambda config: Autoencoder(**config)),
    "text_encoder": (TEXT_WEIGHTS, lambda c: CLIPTextModel(CLIPTextConfig(**c))),
    "clip": (OPEN_CLIP_WEIGHTS, build_clip),
    "judge": (OPEN_CLIP_WEIGHTS, build_clip),
}


def model_configs(kind: Kind) -> dict[str, Config]:
    """Return the config of each model of a kind, by its folder."""
    from open_clip import get_model_config  # after the package, see `backbone`

    clip = {**get_model_config(_CLIP), "quick_gelu": True}
    unet = UNET if kind == "full" else UNET | _THIN_UNET
    vae = VAE | _THIN_VAE if kind == "thin" else VAE
    judge = get_model_config("ViT-H-14" if kind == "full" else "ViT-B-32")
    return dict(zip(MAKERS, (unet, vae, TEXT, clip, judge), strict=True))


def weight_bytes(kind: Kind) -> int:
    """Return the bytes of `write_models`' files, from shapes alone."""
    with torch.device("meta"):
        models = (
            MAKERS[name][1](config) for name, config in model_configs(kind).items()
        )
        states = (model.state_dict() for model in models)
        return sum(2 * v.numel() for state in states for v in state.values())


def write_models(folder: Path, kind: Kind, seed: int) -> None:
    """Write random models to `folder/sd14`, in half precision, with their digests.

    A folder that is complete already is left as it is. One model is in memory at a
    time, in float32.

    Parameters
    ----------
    folder : Path
        Becomes `models.path`.
    kind : {"full", "thin", "reading"}
    seed : int
        The caller's random state is left as it was.
    """
    home, configs = folder / "sd14", model_configs(kind)
    note = json.dumps({"kind": kind, "seed": seed, "configs": configs})
    done = home / "REHEARSAL.json"
    if done.is_file() and done.read_text(encoding="utf-8") == note:
        return
    done.unlink(missing_ok=True)
    digests = []
    for number, (name, config) in enumerate(configs.items()):
        weights, make = MAKERS[name]
        path = home / name / weights
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed + number)
            model = make(config)
        save_file({k: v.half() for k, v in model.state_dict().items()}, path)
        digests.append(f"{sha256(path)}  {name}/{weights}\n")
        del model
        if weights == OPEN_CLIP_WEIGHTS:
            _write_json(path.with_name("open_clip_config.json"), {"model_cfg": config})
        else:
            _write_json(path.with_name("config.json"), config)
    _write_json(home / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_tokenizer(home / "tokenizer")
    (home / "SHA256SUMS").write_text("".join(digests), encoding="utf-8")
    done.write_text(note, encoding="utf-8")


def _write_json(path: Path, content: Config) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path) -> None:
    """Write OpenAI's vocabulary, which open_clip ships, as Stable Diffusion has it."""
    from open_clip.tokenizer import default_bpe  # after the package, see `backbone`

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    begin, end = "<|startoftext|>", "<|endoftext|>"
    names = [*list(SimpleTokenizer().encoder)[:-2], begin, end]
    _write_json(folder / "vocab.json", {name: i for i, name in enumerate(names)})
    lines = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(lines, encoding="utf-8")
    marks = {"bos_token": begin, "eos_token": end, "pad_token": end, "unk_token": end}
    _write_json(folder / "special_tokens_map.json", marks)
    settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    _write_json(folder / "tokenizer_config.json", {**settings, **marks})
