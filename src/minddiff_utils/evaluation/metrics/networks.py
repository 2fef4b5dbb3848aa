"""The pretrained networks of the field's metrics, as functions from images to features.

A network without its file of weights (`architectures` says which file that is) is
absent, with a sentence that says so. The metrics know these networks by name only.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from minddiff_utils.core.errors import DataError, check_choice, check_shape
from minddiff_utils.core.images import resize
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.evaluation.metrics.architectures import check_weights, load_part
from minddiff_utils.evaluation.metrics.embedders import (
    EMBEDDERS,
    LITE0,
    NORMALISATIONS,
    Embedder,
    Weights,
)
from minddiff_utils.insilico.efficientnet_lite import INPUT_SIZE, load_network
from minddiff_utils.models import find_device, full_float32

__all__ = ["Networks", "load_networks", "prepare"]

Features = npt.NDArray[np.float32]
Pictures = npt.NDArray[np.uint8]

#: Images that pass a network at once; bounds its memory (ViT-L/14: about 0.3 GB).
_BATCH = 16


@dataclass(frozen=True)
class Networks:
    """Pretrained networks that look at images.

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
        images = _resize_8bit(images, embedder.sizes[-1])
    elif embedder.interpolation == "bicubic_8bit":
        images = resize(images, embedder.sizes[-1])
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    for size in embedder.sizes:
        if x.shape[-1] != size:
            shape = (size, size)
            x = functional.interpolate(x, size=shape, mode="bilinear", antialias=True)
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
            self.parts[key] = load_part(self.path, self.embedder, self.device)
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

    Parameters
    ----------
    models : Path
        Folder of models; weights are in its folder `perception` (layout: the text of
        `architectures`).
    device : str
        cpu, or cuda.
    only : sequence of str, optional
        Names of the embedders wanted (default: all of `EMBEDDERS`).

    Returns
    -------
    Networks
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
                check_weights(path, weights)
                checked.add(path)
            embedders[name] = _Look(embedder, path, where, parts)
    return Networks(MappingProxyType(embedders), MappingProxyType(absent))
