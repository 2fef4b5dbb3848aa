"""Where and in what precision the models compute; frozen there.

The U-Net takes nearly all time and memory, and alone may compute in half precision, at
about three digits. The autoencoder and both CLIPs stay in float32: their outputs are
what the decoders learn, and what the loss of stage 2 compares.

On a GPU whose U-Net computes in half precision, products of float32 may take TF32: 10
bits, as many as float16 has, so that nothing else becomes the coarsest part. Decoded
features are off by a hundred times more. Where the profile asks for float32, and in all
networks that score, products keep their 23 bits, so that scores of two machines agree.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from minddiff_utils.core.config import ModelConfig
from minddiff_utils.core.errors import ModelError

__all__ = [
    "compiled",
    "find_device",
    "free_bytes",
    "freeze",
    "full_float32",
    "place",
]

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def freeze(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return `model` on `device` in `dtype`, for evaluation, without gradients."""
    return nn.Module.to(model, device, dtype).eval().requires_grad_(False)


def find_device(name: str) -> torch.device:
    """Return the device `name`; raise ModelError where it is a GPU that is not there.

    >>> find_device("cpu")
    device(type='cpu')
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "models.device is 'cuda', but torch sees no GPU: use a GPU build of torch"
            " on a machine with a GPU, or set models.device to cpu."
        )
    return device


def free_bytes(device: torch.device) -> float:
    """Return the bytes that torch could still take on a GPU; inf anywhere else."""
    if device.type != "cuda":
        return inf
    free, _ = torch.cuda.mem_get_info(device)
    # what torch has taken and does not use at present
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(free + cached)


def place(config: ModelConfig) -> tuple[torch.device, torch.dtype]:
    """Return the device of all models and the U-Net's precision.

    Raises
    ------
    ModelError
        A GPU is asked for where torch sees none, or a precision that torch cannot
        compute in there.
    """
    device, dtype = find_device(config.device), _DTYPES[config.dtype]
    if dtype != torch.float32:
        _try_precision(device, dtype)
    if device.type == "cuda":
        _allow_tf32(allowed=dtype != torch.float32)
    return device, dtype


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def full_float32() -> Iterator[None]:
    """Let products of float32 on a GPU keep all their bits inside, see above."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    _allow_tf32(allowed=False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def compiled(unet: Any) -> Any:
    """Return the U-Net through `torch.compile`, anew for each shape of its inputs.

    Equal to rounding. It takes minutes at the first call of each shape, with a gradient
    and without.

    Raises
    ------
    ModelError
        There is no C++ compiler, which torch needs for it.
    """
    names = (os.environ.get("CXX", "g++"), "g++", "clang++", "c++")
    if not any(map(shutil.which, names)):
        raise ModelError(
            "models.compile is true, but torch.compile needs a C++ compiler and none is"
            " on the PATH: install g++, or set models.compile to false."
        )
    return torch.compile(unet, dynamic=False)


def _try_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Run one of each kind of layer of a U-Net; raise ModelError if torch lacks one."""
    x = torch.ones(1, 4, 4, 4, device=device, dtype=dtype)
    try:
        x = functional.conv2d(x, x.new_ones(4, 4, 3, 3), padding=1)
        x = functional.linear(functional.group_norm(x, 2), x.new_ones(4, 4))
        functional.scaled_dot_product_attention(x, x, x)
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        name = str(dtype).removeprefix("torch.")
        raise ModelError(
            f"models.dtype is {name!r}, but torch cannot compute in it on {device}"
            f" ({reason}): set models.dtype to float32, or use another device."
        ) from error
