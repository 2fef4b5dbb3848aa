"""The three features decoded from the brain: c, z and Z_CLIP of the images seen.

c says what is there (tokens of the captions), z how it looks (latents), Z_CLIP how it
is laid out (early layers of CLIP). This module turns images and captions into the
matrices (n_images, n_features) that the decoders learn; it knows no brain, scales
nothing and fits nothing.

Results do not depend on the batch size but for the last digits of float32: matrix
products of other shapes add in another order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from minddiff_utils.core.errors import ConfigError, DataError, check_finite, check_shape
from minddiff_utils.core.images import to_torch
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.core.types import Array, Matrix
from minddiff_utils.models import Backbone

__all__ = [
    "Features",
    "extract_features",
    "image_features",
    "semantic_features",
]

Captions = npt.NDArray[np.str_] | npt.NDArray[np.object_]


@dataclass(frozen=True)
class Features:
    """The features of some images, row by row; each is flattened in C order.

    Attributes
    ----------
    c : (n_images, n_tokens * d) float32
        Semantic feature: token sequence, mean over the image's captions.
    z : (n_images, C * h * w) float32
        Detail feature: standardised latents.
    clip : mapping of int to (n_images, n_features) float32
        Structural feature Z_CLIP by CLIP layer (1-based).
    """

    c: Matrix
    z: Matrix
    clip: Mapping[int, Matrix]

    def __post_init__(self) -> None:
        for name, values in self.by_name().items():
            check_shape(values.shape, (len(self.c), None), f"Feature {name}")

    def by_name(self) -> dict[str, Matrix]:
        """Return the matrices by name: c, z, then clip/1, ... in ascending order."""
        layers = {f"clip/{layer}": self.clip[layer] for layer in sorted(self.clip)}
        return {"c": self.c, "z": self.z, **layers}

    def rows(self, index: slice | Array | Sequence[int]) -> "Features":
        """Return the features of some images: rows by slice, mask or positions."""
        clip = {layer: values[index] for layer, values in self.clip.items()}
        return Features(self.c[index], self.z[index], clip)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, but must be at least 1.")


def _to_rows(values: torch.Tensor, name: str) -> Matrix:
    rows = values.flatten(1).float().cpu().numpy()
    check_finite(bool(np.isfinite(rows).all()), f"Feature {name}")
    return np.asarray(rows, dtype=np.float32)


# --- c --------------------------------------------------------------------------------


def _check_captions(captions: Captions) -> npt.NDArray[np.str_]:
    check_shape(captions.shape, (None, None), "Captions")
    if captions.size == 0:
        raise DataError(
            f"Captions are empty {captions.shape}: every image needs one at least."
        )
    blank = [i for i, row in enumerate(captions) if not all(map(_is_text, row))]
    if blank:
        raise DataError(
            f"A caption of image {blank[0]} is blank or no text: give every image the "
            "same number of captions."
        )
    return captions.astype(str)


def _is_text(caption: object) -> bool:
    return isinstance(caption, str) and bool(caption.strip())


@torch.no_grad()
def semantic_features(
    backbone: Backbone, captions: Captions, *, batch_size: int
) -> Matrix:
    """Return c: the token sequences of each image's captions, averaged.

    Each distinct caption is encoded once.

    Parameters
    ----------
    backbone : Backbone
        Encodes the captions.
    captions : (n_images, n_captions) str
        The same number for every image.
    batch_size : int
        Captions encoded at once.

    Returns
    -------
    (n_images, n_tokens * d) float32

    Raises
    ------
    DataError
        There is no caption, one is blank or no text, or c is not finite.

    References
    ----------
    MindDiffuser section 3.1: c is CLIP's text feature of the COCO captions.
    """
    _check_batch_size(batch_size)
    texts = _check_captions(captions)
    n_images, n_captions = texts.shape
    distinct, which = np.unique(texts, return_inverse=True)
    which = which.reshape(n_images, n_captions)
    shape = (backbone.n_tokens, backbone.text_dim)
    total = np.zeros((n_images, shape[0] * shape[1]), np.float32)
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size].tolist()
        tokens = backbone.encode_text(batch)
        check_shape(tuple(tokens.shape), (len(batch), *shape), "Encoded captions")
        image, caption = np.nonzero((which >= start) & (which < start + batch_size))
        encoded = _to_rows(tokens, "c")[which[image, caption] - start]
        np.add.at(total, image, encoded)  # an image may occur twice in a batch
    return total / np.float32(n_captions)


# --- z and Z_CLIP ---------------------------------------------------------------------


@torch.no_grad()
def image_features(
    backbone: Backbone, images: Images, layers: Sequence[int], *, batch_size: int
) -> dict[str, Matrix]:
    """Return z and Z_CLIP by name: the latents, and outputs of CLIP's vision blocks.

    Each image is read once.

    Parameters
    ----------
    backbone : Backbone
        Encodes the images.
    images : (n_images, S, S, 3) uint8
        At the backbone's image size (`images.resize`); may be unread.
    layers : sequence of int
        Blocks, from 1.
    batch_size : int
        Images encoded at once.

    Returns
    -------
    dict of (n_images, n_features) float32
        z, then clip/1, ... in ascending order.

    Raises
    ------
    ModelError
        The backbone lacks a layer.
    DataError
        No image, wrong size or dtype, or a feature is not finite.
    """
    _check_batch_size(batch_size)
    size, ascending = backbone.image_size, sorted(set(layers))
    check_shape(images.shape, (None, size, size, 3), "Images")
    if len(images) == 0:
        raise DataError("There is no image to encode: pass one at least.")
    features: dict[str, Matrix] = {}
    for batch, pixels in in_blocks(images, backbone.at_once(batch_size)):
        x = to_torch(pixels).to(backbone.device, backbone.dtype)
        z = backbone.encode_images(x)
        check_shape(tuple(z.shape), (len(x), *backbone.latent_shape), "Latents")
        outputs = backbone.clip_layers(x, ascending) if ascending else {}
        for layer, values in outputs.items():
            shape = (len(x), backbone.layer_widths[layer - 1])
            check_shape(tuple(values.shape), shape, f"CLIP layer {layer}")
        named = {f"clip/{layer}": outputs[layer] for layer in ascending}
        for name, values in {"z": z, **named}.items():
            rows = _to_rows(values, name)
            if name not in features:
                features[name] = np.empty((len(images), rows.shape[1]), np.float32)
            features[name][batch] = rows
    return features


def extract_features(
    backbone: Backbone,
    images: Images,
    captions: Captions,
    layers: Sequence[int],
    *,
    batch_size: int,
) -> Features:
    """Return all three features of some images.

    Parameters
    ----------
    backbone, images, layers, batch_size
        As in `image_features`; captions, too, are encoded `batch_size` at once.
    captions : (n_images, n_captions) str
        Row by row as `images`.

    Raises
    ------
    DataError
        As the functions for each feature, or rows of captions do not match images.
    """
    check_shape(captions.shape, (len(images), None), "Captions")
    c = semantic_features(backbone, captions, batch_size=batch_size)
    encoded = image_features(backbone, images, layers, batch_size=batch_size)
    clip = {layer: encoded[f"clip/{layer}"] for layer in sorted(set(layers))}
    return Features(c, encoded["z"], clip)
