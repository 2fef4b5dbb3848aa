"""Tiny random models of the same classes, in memory: for tests and for trying out."""

from typing import Any

import torch

from minddiff_utils.models.core import Backbone, assemble, own_text
from minddiff_utils.models.eye import PLAIN, Eye, Judge, build_clip
from minddiff_utils.models.libraries import Autoencoder, UNet
from minddiff_utils.models.placement import freeze
from minddiff_utils.models.text import WordTokenizer

__all__ = ["tiny_backbone", "tiny_judge"]

_TINY_WORDS = (
    *("a", "the", "of", "on", "in", "at", "with", "photo", "small", "large", "red"),
    *("person", "dog", "cat", "bird", "car", "bus", "boat", "chair", "clock", "street"),
)
_TINY_TOKENS = ("<pad>", "<bos>", "<unk>", *_TINY_WORDS, "<eos>")
_TINY_CLIP: dict[str, Any] = {
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
_TINY_VAE: dict[str, Any] = {
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
_TINY_UNET: dict[str, Any] = {
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
_TINY_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def _tiny_eye(dtype: torch.dtype) -> Eye:
    words = len(_TINY_TOKENS)
    context = int(_TINY_CLIP["text_cfg"]["context_length"])
    clip = freeze(build_clip(_TINY_CLIP), torch.device("cpu"), dtype)
    tokenizer = WordTokenizer(_TINY_TOKENS, 0, 1, words - 1, 2, context)
    return Eye(clip, tokenizer, 64, *PLAIN)


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
        vae = freeze(Autoencoder(**_TINY_VAE), device, dtype)
        unet = freeze(UNet(**_TINY_UNET), device, dtype)
        eye = _tiny_eye(dtype)
    scheduler = {**_TINY_SCHEDULER, "prediction_type": prediction_type}
    return assemble("tiny", vae, unet, scheduler, own_text(eye), eye)


def tiny_judge(seed: int = 1) -> Judge:
    """Return a judge with random weights from `seed`, for tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Judge("tiny judge", _tiny_eye(torch.float32))
