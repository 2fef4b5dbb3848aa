"""CLIP: embeddings of images and text, and the outputs of its image blocks' MLPs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from minddiff_utils.core.images import clip_normalise, resize_tensor
from minddiff_utils.models.libraries import CLIP, SimpleTokenizer
from minddiff_utils.models.precision import freeze, full_float32
from minddiff_utils.models.text_encoder import Tokenizer, WordTokenizer
from minddiff_utils.models.weights import (
    OPEN_CLIP_WEIGHTS,
    building,
    load_weights,
    read_json,
)

__all__ = [
    "IMAGENET",
    "PLAIN",
    "ClipEncoder",
    "Judge",
    "Scale",
    "build_clip",
    "load_clip",
]

Colour = tuple[float, float, float]
#: Channel mean and SD in [0, 1].
Scale = tuple[Colour, Colour]

#: Images stay in [-1, 1], as the demo models learnt.
PLAIN: Scale = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
#: ImageNet's (torchvision's networks), which MindDiffuser's code feeds to CLIP.
IMAGENET: Scale = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ClipEncoder:
    """CLIP with its own image size and normalisation; takes images in [-1, 1].

    Images may come from another device or in another precision: they are moved.
    """

    model: CLIP
    tokenizer: Tokenizer
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def prepare(self, x: Tensor) -> Tensor:
        """Return images (n, 3, S, S) at CLIP's size and on its scale."""
        like = self.model.positional_embedding
        x = x.to(like.device, like.dtype)
        return clip_normalise(resize_tensor(x, self.size), self.mean, self.std)

    def image_embed(self, x: Tensor) -> Tensor:
        """Return (n, e) of unit norm."""
        embedding: Tensor = self.model.encode_image(self.prepare(x), normalize=True)
        return embedding

    def text_embed(self, captions: Sequence[str]) -> Tensor:
        """Return (n, e) of unit norm."""
        ids = self.tokenizer(captions).to(self.model.positional_embedding.device)
        embedding: Tensor = self.model.encode_text(ids, normalize=True)
        return embedding

    def layers(self, x: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the MLP outputs of the blocks `layers`, from 1, flattened."""
        tower = self.model.visual
        hidden = tower._embeds(self.prepare(x))  # (n, n_vision_tokens, width)
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(tower.transformer.resblocks, start=1):
            hidden = hidden + block.ls_1(block.attention(q_x=block.ln_1(hidden)))
            mlp = block.mlp(block.ln_2(hidden))
            if number in layers:
                outputs[number] = mlp.flatten(1)  # (n, n_vision_tokens * width)
            if number == max(layers):
                break
            hidden = hidden + block.ls_2(mlp)
        return outputs


@dataclass(frozen=True)
class Judge:
    """A CLIP that took no part in decoding or generation; it only scores.

    Attributes
    ----------
    name : str
        Which judge, for the tables.
    """

    name: str
    _clip: ClipEncoder = field(repr=False)

    @torch.no_grad()
    def image_embed(self, x: Tensor) -> Tensor:
        """Embed images (n, 3, S, S) in [-1, 1]; returns (n, e) of unit norm."""
        with full_float32():
            return self._clip.image_embed(x.clamp(-1, 1))

    @torch.no_grad()
    def text_embed(self, captions: Sequence[str]) -> Tensor:
        """Embed captions; returns (n, e) of unit norm."""
        with full_float32():
            return self._clip.text_embed(captions)


# --- reading it -----------------------------------------------------------------------


def build_clip(model_config: Mapping[str, Any]) -> CLIP:
    """Return open_clip's model of a config, with random weights."""
    return CLIP(
        int(model_config["embed_dim"]),
        dict(model_config["vision_cfg"]),
        dict(model_config["text_cfg"]),
        quick_gelu=bool(model_config.get("quick_gelu", False)),
    )


def _scale(preprocess: Mapping[str, Any], default: Scale) -> Scale:
    """Return mean and SD of the three colours, as a model's config states them."""
    mean, std = preprocess.get("mean", default[0]), preprocess.get("std", default[1])
    red, green, blue = map(float, mean)
    of_red, of_green, of_blue = map(float, std)
    return (red, green, blue), (of_red, of_green, of_blue)


def load_clip(
    folder: Path,
    device: torch.device,
    *,
    default: Scale = PLAIN,
    normalisation: Literal["clip", "imagenet"] = "clip",
) -> ClipEncoder:
    """Read an open_clip model from `folder`, in float32.

    Parameters
    ----------
    default : pair of RGB triples
        Mean and SD where the model's config has none (`preprocess_cfg`).
    normalisation : str
        clip: the model's own mean and SD; imagenet: ImageNet's instead.

    Raises
    ------
    ModelError
        A file is missing, damaged or of another model.
    """
    path = folder / "open_clip_config.json"
    config = read_json(path)
    with building(path):
        model_config = config["model_cfg"]
        model = build_clip(model_config)
        context = int(model_config["text_cfg"]["context_length"])
        size = int(model_config["vision_cfg"]["image_size"])
        scale = _scale(config.get("preprocess_cfg", {}), default)
    load_weights(model, folder / OPEN_CLIP_WEIGHTS)
    words = folder / "vocabulary.json"
    tokenizer: Tokenizer = (
        WordTokenizer.from_file(words, context)
        if words.is_file()
        else SimpleTokenizer(context_length=context)
    )
    mean, std = IMAGENET if normalisation == "imagenet" else scale
    return ClipEncoder(freeze(model, device, torch.float32), tokenizer, size, mean, std)
