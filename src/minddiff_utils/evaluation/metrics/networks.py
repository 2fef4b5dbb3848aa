"""The pretrained networks of the field's metrics, as functions from images to features.

Architectures are torchvision's and open_clip's, built empty, cut after the layer that
is read and filled with weights from local safetensors. A network without its file is
absent, with a sentence that says so. The metrics know these networks by name only.

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

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from minddiff_utils.core.errors import DataError, ModelError, check_choice, check_shape
from minddiff_utils.core.images import resize
from minddiff_utils.core.reading import reading
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.evaluation.metrics.registry import (
    EMBEDDERS,
    LITE0,
    NORMALISATIONS,
    Embedder,
    Weights,
)
from minddiff_utils.insilico.efficientnet_lite import INPUT_SIZE, load_network
from minddiff_utils.models import find_device, full_float32, load_torchvision

load_torchvision()

import open_clip  # noqa: E402  (after the shim)
from open_clip.model import CLIP  # noqa: E402
from safetensors import safe_open  # noqa: E402
from torchvision import models as torchvision_models  # noqa: E402

__all__ = ["Networks", "load_networks", "prepare"]

Features = npt.NDArray[np.float32]
Pictures = npt.NDArray[np.uint8]

#: Images that pass a network at once; bounds its memory (ViT-L/14: about 0.3 GB).
_BATCH = 16


@dataclass(frozen=True)
class Networks:
    """Pretrained networks that look at images.

    `embedders`: name -> function from uint8 (n, s, s, 3) to float32 (n, n_features),
    whose network is built at its first call, and kept; `absent`: name -> the sentence
    that says which file is missing and what to do.
    """

    embedders: Mapping[str, Callable[[Images], Features]]
    absent: Mapping[str, str]


# --- architectures and their weights --------------------------------------------------


def _build_clip() -> CLIP:
    # OpenAI trained with the quick form of GELU, which the config leaves open
    return CLIP(**open_clip.get_model_config("ViT-L-14"), quick_gelu=True)


def _build_resnet() -> nn.Module:
    network: nn.Module = torchvision_models.resnet50()
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


_Cut = Callable[[Any, str], tuple[nn.Module, str]]
#: How a network is built, and how it is cut after the layer that is read: into the part
#: that computes the layer and the prefix of its keys.
_ARCHITECTURES: Mapping[str, tuple[Callable[[], nn.Module], _Cut]] = {
    "alexnet": (torchvision_models.alexnet, _cut_features),
    # transform_input: torchvision sets it with its weights, whose training had [-1, 1]
    "inception": (
        partial(
            torchvision_models.inception_v3, init_weights=False, transform_input=True
        ),
        _cut_head,
    ),
    "clip_l14": (_build_clip, lambda network, _layer: (network.visual, "visual.")),
    "efficientnet": (torchvision_models.efficientnet_b1, _cut_head),
    "resnet50": (_build_resnet, _cut_head),
}


def _on_meta(network: str) -> nn.Module:
    """Return the whole network without memory for its weights."""
    with torch.device("meta"):
        return _ARCHITECTURES[network][0]()


def state_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Return the keys that a file of weights must have, with their shapes.

    `network`: key of the architecture (`Embedder.network`) of any embedder but Lite0.
    """
    check_choice(network, tuple(_ARCHITECTURES), "network")
    return {k: tuple(v.shape) for k, v in _on_meta(network).state_dict().items()}


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _check_weights(path: Path, weights: Weights) -> None:
    """Compare the header of a file of weights with the architecture, reading no weight.

    It is no safetensors file, or a weight is missing, unknown or misshapen: ModelError.
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


def _load_part(path: Path, embedder: Embedder, device: torch.device) -> nn.Module:
    """Build the network up to the embedder's layer, with weights, frozen."""
    _build, cut = _ARCHITECTURES[embedder.network]
    part, prefix = cut(_on_meta(embedder.network), embedder.layer)
    part.load_state_dict(_read_tensors(path, part, prefix), assign=True)
    return part.to(device).eval().requires_grad_(False)


# --- images to network input ----------------------------------------------------------


def _check_square(images: Images) -> None:
    check_shape(images.shape, (None, None, None, 3), "Images")
    if images.dtype != np.uint8:
        raise DataError(
            f"Images are {images.dtype}, but uint8 RGB is expected: convert first."
        )
    n, height, width = images.shape[:3]
    if height != width or n == 0:
        raise DataError(
            f"{n} images of {height} x {width} px were given to a network of the"
            " metrics, but at least one, and square, is expected: crop them first."
        )


#: How images are resized that are rounded to 8 bits before all else.
_IN_8_BITS = {
    "bilinear_8bit": Image.Resampling.BILINEAR,
    "bicubic_8bit": Image.Resampling.BICUBIC,
}


def prepare(images: Pictures, embedder: Embedder) -> Tensor:
    """Return images as the network sees them: resized, in [0, 1], standardised.

    Floats are resized with antialiasing only where the embedder says so: the published
    code ran under torchvision 0.15, which had none for tensors. Square RGB images,
    uint8 (n, s, s, 3), or DataError, give float32 (n, 3, size, size), on the CPU.
    """
    _check_square(images)
    if embedder.interpolation in _IN_8_BITS:
        kernel = _IN_8_BITS[embedder.interpolation]
        images = resize(images, embedder.sizes[-1], kernel)
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    smooth = embedder.interpolation != "bilinear_no_aa"
    for size in embedder.sizes:
        if x.shape[-1] != size:
            shape = (size, size)
            x = functional.interpolate(x, size=shape, mode="bilinear", antialias=smooth)
    mean, std, _ = NORMALISATIONS[embedder.weights.normalisation]
    centre, scale = (x.new_tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    return ((x - centre) / scale).contiguous()


# --- from input to features -----------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """One embedder; builds its network at the first call.

    `parts` is shared, so that embedders that differ in resizing alone share weights.
    """

    embedder: Embedder
    path: Path
    device: torch.device
    parts: dict[tuple[Path, str], nn.Module] = field(repr=False)

    def __call__(self, images: Images) -> Features:
        _check_square(images)
        first = self._see(images[:_BATCH])
        # filled in place: AlexNet's features, 0.7 MB an image, are never held twice
        features = np.empty((len(images), first.shape[1]), np.float32)
        features[: len(first)] = first
        for start in range(_BATCH, len(images), _BATCH):
            stop = start + _BATCH
            features[start:stop] = self._see(images[start:stop])
        return features

    @torch.no_grad()
    def _see(self, images: Pictures) -> Features:
        x = prepare(images, self.embedder).to(self.device)
        with full_float32():
            rows: Tensor = self._part()(x)
        return rows.flatten(1).float().cpu().numpy()

    def _part(self) -> nn.Module:
        key = self.path, self.embedder.layer
        if key not in self.parts:
            self.parts[key] = _load_part(self.path, self.embedder, self.device)
        return self.parts[key]


@dataclass
class _LiteLook:
    """Lite0's three depths of the last images seen, which one pass gives together."""

    key: bytes = b""
    depths: tuple[Features, ...] = field(default=(), repr=False)

    def __call__(self, images: Images, depth: int) -> Features:
        _check_square(images)
        digest = hashlib.sha256(repr(images.shape).encode())
        for _, block in in_blocks(images):
            digest.update(np.ascontiguousarray(block).data)
        if digest.digest() != self.key:
            self.depths = self._see(images)
            self.key = digest.digest()
        return self.depths[depth].copy()

    def _see(self, images: Images) -> tuple[Features, ...]:
        network = load_network()
        batches = []
        for _, batch in in_blocks(images, _BATCH):
            shown = resize(batch, INPUT_SIZE)
            seen = network.see(shown.astype(np.float32))
            batches.append([depth.reshape(len(shown), -1) for depth in seen])
        return tuple(np.concatenate(rows) for rows in zip(*batches, strict=True))


# --- which are there ------------------------------------------------------------------


def _why_absent(path: Path, weights: Weights) -> str:
    if weights.network == "lite0":
        return (
            f"Not scored: the package {weights.file} is missing; install"
            " requirements.lock."
        )
    # the sentence goes into tables, which must not depend on where the project lies
    folder = "/".join(path.parts[-3:-1])
    return (
        f"Not scored: {path.name} is missing from {folder}; put the weights of"
        f" {weights.label} ({weights.origin}, {weights.url}) there as safetensors."
    )


def load_networks(
    models: Path, *, device: str = "cpu", only: Sequence[str] | None = None
) -> Networks:
    """Return the networks whose weights are at hand, and why the others are absent.

    Only the headers of the files are read here; weights follow at the first call. Lite0
    is there wherever its package is installed, and always looks on the CPU. It took
    part in the simulated brain of in-silico subjects: `metrics.METRICS` says so.

    `models`: weights are in its folder `perception` (layout: the text of this module);
    `device`: cpu or cuda; `only`: names of `EMBEDDERS`, by default all, others are a
    ConfigError. A file of weights is not safetensors or does not fit its architecture,
    or a GPU is asked for where there is none: ModelError.
    """
    names = list(EMBEDDERS) if only is None else list(only)
    for name in names:
        check_choice(name, tuple(EMBEDDERS), "an embedder's name")
    where, lite = find_device(device), _LiteLook()
    checked: set[Path] = set()
    parts: dict[tuple[Path, str], nn.Module] = {}
    embedders: dict[str, Callable[[Images], Features]] = {}
    absent: dict[str, str] = {}
    for name in names:
        embedder = EMBEDDERS[name]
        weights = embedder.weights
        path = models / "perception" / f"{weights.file}.safetensors"
        is_lite = name in LITE0
        if not (find_spec(weights.file) if is_lite else path.is_file()):
            absent[name] = _why_absent(path, weights)
        elif is_lite:
            embedders[name] = partial(lite, depth=LITE0[name])
        else:
            if path not in checked:
                _check_weights(path, weights)
                checked.add(path)
            embedders[name] = _Look(embedder, path, where, parts)
    return Networks(MappingProxyType(embedders), MappingProxyType(absent))
