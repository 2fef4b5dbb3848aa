"""The pretrained networks of the metrics, built empty, cut and filled with weights.

Architectures are torchvision's and open_clip's; weights are read from local safetensors
only.

Files of weights, `<models>/perception/<file>.safetensors`:

- torchvision's networks: the state dict of the published `.pth`, keys unchanged;
- `clip_vit_l14_openai`: open_clip's state dict of the whole CLIP, both towers;
- `swav_resnet50`: torchvision's ResNet-50 keys without `fc`, that is the published
  checkpoint without the prefix `module.` and without `projection_head` and
  `prototypes`.

Counters of batch norms (`num_batches_tracked`) may be missing: nothing here reads them.
A `.pth` becomes safetensors by `safetensors.torch.save_file(torch.load(path,
weights_only=True), target)`; renaming it is not enough.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minddiff_utils.core.errors import ModelError, check_choice
from minddiff_utils.core.reading import reading
from minddiff_utils.evaluation.metrics.embedders import Embedder, Weights
from minddiff_utils.models import load_torchvision

load_torchvision()

import open_clip  # noqa: E402  (after the shim)
from open_clip.model import CLIP  # noqa: E402
from safetensors import safe_open  # noqa: E402
from torchvision import models as torchvision_models  # noqa: E402

__all__ = ["check_weights", "load_part", "state_shapes"]


@dataclass(frozen=True)
class _Architecture:
    """How a network is built, and how it is cut after the layer that is read.

    `cut` returns the part that computes the layer and the prefix of its keys.
    """

    build: Callable[[], nn.Module]
    cut: Callable[[Any, str], tuple[nn.Module, str]]


def _build_clip() -> CLIP:
    config = Path(open_clip.__file__).parent / "model_configs" / "ViT-L-14.json"
    options = json.loads(config.read_text(encoding="utf-8"))
    # OpenAI trained with the quick form of GELU, which the config leaves open
    return CLIP(
        options["embed_dim"],
        options["vision_cfg"],
        options["text_cfg"],
        quick_gelu=True,
    )


def _build_resnet() -> nn.Module:
    network: nn.Module = torchvision_models.resnet50(weights=None)
    network.fc = nn.Identity()  # SwAV has no classifier
    return network


def _cut_features(network: Any, layer: str) -> tuple[nn.Module, str]:
    """Return the features up to `features[i]`, which `layer` starts with."""
    index = int(layer.partition("[")[2].partition("]")[0])
    part: nn.Module = network.features[: index + 1]
    return part, "features."


def _cut_head(network: Any, _layer: str) -> tuple[nn.Module, str]:
    """Return the network up to its average pooling, whose output it flattens itself."""
    for head in ("fc", "classifier"):
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
    if hasattr(network, "AuxLogits"):
        network.AuxLogits = None  # a second head, for training only
    return network, ""


def _cut_tower(network: Any, _layer: str) -> tuple[nn.Module, str]:
    return network.visual, "visual."


_ARCHITECTURES: Mapping[str, _Architecture] = {
    "alexnet": _Architecture(
        lambda: torchvision_models.alexnet(weights=None), _cut_features
    ),
    # transform_input: torchvision sets it with its weights, whose training had [-1, 1]
    "inception": _Architecture(
        lambda: torchvision_models.inception_v3(
            weights=None, init_weights=False, transform_input=True
        ),
        _cut_head,
    ),
    "clip_l14": _Architecture(_build_clip, _cut_tower),
    "efficientnet": _Architecture(
        lambda: torchvision_models.efficientnet_b1(weights=None), _cut_head
    ),
    "resnet50": _Architecture(_build_resnet, _cut_head),
}


def _on_meta(network: str) -> nn.Module:
    """Return the whole network without memory for its weights."""
    with torch.device("meta"):
        return _ARCHITECTURES[network].build()


def state_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Return the keys that a file of weights must have, with their shapes.

    Parameters
    ----------
    network : {"alexnet", "inception", "clip_l14", "efficientnet", "resnet50"}
        Key of the architecture, `Embedder.network`.
    """
    check_choice(network, tuple(_ARCHITECTURES), "network")
    return {k: tuple(v.shape) for k, v in _on_meta(network).state_dict().items()}


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def check_weights(path: Path, weights: Weights) -> None:
    """Compare the header of a file of weights with the architecture, reading no weight.

    Raises
    ------
    ModelError
        The file is no safetensors file, or a weight is missing, unknown or misshapen.
    """
    no_file = "is not a safetensors file"
    convert = (
        "convert the published weights with safetensors, a renamed .pth is refused"
    )
    with (
        reading(path, ModelError, found=no_file, remedy=convert),
        safe_open(path, framework="pt") as file,
    ):
        stored = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118  (no dict)
    expected, label = state_shapes(weights.network), weights.label
    remedy = "write the published state dict there with its keys unchanged"
    missing = [k for k in expected if k not in stored and not _is_counter(k)]
    unknown = [k for k in stored if k not in expected]
    for word, keys in (("lacks", missing), ("holds unknown", unknown)):
        if keys:
            raise ModelError(
                f"{path} {word} {len(keys)} weights of {label}, the first"
                f" {keys[0]}: {remedy}."
            )
    for key, shape in stored.items():
        if shape != expected[key]:
            raise ModelError(
                f"{path} holds {key} of shape {shape}, but {label} has"
                f" {expected[key]}: {remedy}."
            )


def _read_tensors(path: Path, part: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Read the weights of `part` alone, as float32."""
    tensors = {}
    with safe_open(path, framework="pt") as file:
        stored = set(file.keys())
        for key in part.state_dict():
            if _is_counter(key):
                tensors[key] = torch.zeros((), dtype=torch.long)
                continue
            if prefix + key not in stored:  # checked before, changed since
                raise ModelError(f"{path} lost {prefix + key}: restore the file.")
            value = file.get_tensor(prefix + key)
            if not value.is_floating_point():
                raise ModelError(
                    f"{path} holds {prefix + key} as {value.dtype}, but floating point"
                    " is expected: convert the published weights again."
                )
            tensors[key] = value.float()
    return tensors


def load_part(path: Path, embedder: Embedder, device: torch.device) -> nn.Module:
    """Build the network up to the embedder's layer, with weights, frozen."""
    whole = _on_meta(embedder.network)
    part, prefix = _ARCHITECTURES[embedder.network].cut(whole, embedder.layer)
    part.load_state_dict(_read_tensors(path, part, prefix), assign=True)
    return part.to(device).eval().requires_grad_(False)
