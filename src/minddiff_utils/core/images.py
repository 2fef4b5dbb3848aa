"""One canonical image space and its converters.

On disk and between notebooks an image is uint8 RGB, (n, size, size, 3); inside networks
it is float32 in [-1, 1], (n, 3, size, size). Every change of size or range is here and
nowhere else.
"""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from minddiff_utils.core.errors import (
    DataError,
    check_exists,
    check_finite,
    check_shape,
)
from minddiff_utils.core.reading import reading
from minddiff_utils.core.types import Images

if TYPE_CHECKING:
    import torch

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "clip_normalise",
    "encode_png",
    "read_png",
    "resize",
    "resize_tensor",
    "to_torch",
    "to_uint8",
]


#: Channel mean and SD in [0, 1] of OpenAI's CLIP (Radford et al. 2021, released code).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _check_images(images: Images, name: str) -> None:
    if images.dtype != np.uint8:
        raise DataError(f"{name} are {images.dtype}, but must be uint8 in 0..255.")
    check_shape(images.shape, (None, None, None, 3), name)


def to_torch(images: Images) -> "torch.Tensor":
    """Return uint8 images (n, h, w, 3) as float32 (n, 3, h, w) in [-1, 1], on the CPU.

    Raises
    ------
    DataError
        The images are not uint8 or not (n, h, w, 3).
    """
    import torch  # slow import, only where torch is in use already

    _check_images(images, "Images")
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return pixels.to(torch.float32).div(127.5).sub(1.0).contiguous()


def to_uint8(x: "torch.Tensor") -> Images:
    """Return images (n, 3, h, w) in [-1, 1] as uint8 (n, h, w, 3), rounded, clipped.

    `to_uint8(to_torch(images))` equals `images` exactly.

    Raises
    ------
    DataError
        A value is NaN or infinite, or the shape is not (n, 3, h, w).
    """
    check_shape(tuple(x.shape), (None, 3, None, None), "Image tensor")
    values = x.detach().float().cpu()
    check_finite(bool(values.isfinite().all()), "Image tensor")
    pixels = values.add(1.0).mul(127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    return np.ascontiguousarray(pixels.numpy().astype(np.uint8))


def resize(
    images: Images, size: int, kernel: Image.Resampling = Image.Resampling.BICUBIC
) -> Images:
    """Return square images (n, s, s, 3) resized to (n, size, size, 3), uint8.

    By a kernel of Pillow, whose support grows with the reduction (antialiasing);
    images that already have the size are returned as a copy, unchanged.

    Raises
    ------
    DataError
        The images are not uint8, not (n, s, s, 3), or not square.
    """
    _check_images(images, "Images")
    height, width = images.shape[1:3]
    if height != width or size < 1:
        raise DataError(
            f"Images of {height} x {width} px cannot become {size} x {size} px without "
            "distortion: crop them to squares first."
        )
    if height == size:
        return images.copy()
    resized = np.empty((len(images), size, size, 3), np.uint8)
    for row, image in enumerate(images):
        small = Image.fromarray(image).resize((size, size), kernel)
        resized[row] = np.asarray(small)
    return resized


def resize_tensor(x: "torch.Tensor", size: int) -> "torch.Tensor":
    """Return images (n, 3, h, w) as (n, 3, size, size), differentiably.

    Bicubic with antialiasing, which is linear and separable: A x Bᵀ with one fixed
    matrix per side. torch's own operation has no deterministic gradient on a GPU, two
    matrix products have; in float64, as those of float32 may be TF32 there. Unchanged
    where the size fits. Values may leave [-1, 1]
    by the kernel's overshoot and are not clipped, so that gradients survive.
    """
    if x.shape[-2:] == (size, size):
        return x
    down, across = (_resampling(side, size).to(x.device) for side in x.shape[-2:])
    return (down @ x.double() @ across.mT).to(x.dtype)


@lru_cache(maxsize=16)
def _resampling(side: int, size: int) -> "torch.Tensor":
    """Return the matrix (size, side) of torch's bicubic kernel with antialiasing."""
    import torch  # slow import
    from torch.nn import functional

    # what becomes of each single pixel of a column; exact to the last digits of float64
    pixels = torch.eye(side, dtype=torch.float64, device="cpu")[None, None]
    matrix: torch.Tensor = functional.interpolate(
        pixels, (size, side), mode="bicubic", antialias=True, align_corners=False
    )
    return matrix[0, 0]


def clip_normalise(
    x: "torch.Tensor",
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
) -> "torch.Tensor":
    """Return images (n, 3, h, w) in [-1, 1] standardised per channel, differentiably.

    `mean` and `std` are those of the network, for values in [0, 1].
    """
    centre = x.new_tensor(mean).view(1, 3, 1, 1)
    scale = x.new_tensor(std).view(1, 3, 1, 1)
    return (x.add(1.0).div(2.0) - centre) / scale


def read_png(path: Path) -> Images:
    """Return the image at `path` as RGB uint8 (h, w, 3).

    Raises
    ------
    DataError
        The file is missing or no image.
    """
    check_exists(path, "Image", "name an image file that exists")
    found = "is truncated or of an unknown kind"
    with (
        reading(path, DataError, found=found, remedy="replace it", what="Image"),
        Image.open(path) as image,
    ):
        return np.asarray(image.convert("RGB"), np.uint8)


def encode_png(image: Images) -> bytes:
    """Return the PNG bytes of one uint8 image (h, w, 3); the same bytes every time."""
    _check_images(image[None], "Image")
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
