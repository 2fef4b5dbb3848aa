"""Where and in what precision the models compute; frozen there.

The U-Net takes nearly all time and memory, and alone may compute in half precision, at
about three digits. The autoencoder and both CLIPs stay in float32: their outputs are
what the decoders learn, and what the loss of stage 2 compares.

On a GPU whose U-Net computes in half precision, products of float32 may take TF32: 10
bits, as many as float16 has, so that nothing else becomes the coarsest part. Decoded
features are off by a hundred times more. Where the profile asks for float32, and in all
networks that score, products keep their 23 bits, so that scores of two machines agree.

float16 holds magnitudes of 6e-8 to 65504. A gradient beyond them becomes infinite or 0,
and one loss of stage 2 has thousands of times the gradient of another. So each image's
gradient is brought to a largest magnitude of 1 where it comes from the part in float32,
and what the network makes of it is divided by the same number afterwards. An image that
still overflows goes through again at a smaller scale, one that vanishes at a larger.

References
----------
Micikevicius et al. 2018, Mixed Precision Training (arXiv 1710.03740): loss scaling.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.profile import ModelConfig

__all__ = [
    "compiled",
    "find_device",
    "free_bytes",
    "freeze",
    "from_float32",
    "full_float32",
    "place",
]

LOG = logging.getLogger(__name__)

#: Powers of 2 between two tries of a gradient in float16, and how many tries there are.
_STEP, _TRIES = 5, 5
#: Smallest number with all digits: a gradient that nowhere reaches it is too small.
_NORMAL = torch.finfo(torch.float16).tiny
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


# --- gradients in float16 ------------------------------------------------------------


def from_float32(network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return `network` of float32 `inputs`; its gradients are scaled image by image.

    Parameters
    ----------
    network : callable
        Takes and gives float32 tensors with one row per image; computes in float16.
    inputs : Tensor
        What may have a gradient.
    """
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in inputs):
        return network(*inputs)
    out: Tensor = _Scaled.apply(network, *inputs)  # type: ignore[no-untyped-call]
    return out


class _Scaled(torch.autograd.Function):
    """The network with a graph of its own, through which a gradient can go twice."""

    @staticmethod
    def forward(ctx: Any, network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Keep the network's own graph beside its output."""
        leaves = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
        with torch.enable_grad():
            out = network(*leaves)
        ctx.graph = out, leaves
        return out.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs; the graph is let go."""
        out, leaves = ctx.graph
        ctx.graph = None
        inputs = [x for x in leaves if x.requires_grad]
        pulled = iter(_pulled_back(out, inputs, gradients[0]))
        return None, *(next(pulled) if x.requires_grad else None for x in leaves)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _pulled_back(
    out: Tensor, inputs: Sequence[Tensor], gradient: Tensor
) -> list[Tensor]:
    """Return the gradients of `inputs` from that of `out`, at each row's own scale."""
    largest = gradient.abs().flatten(1).amax(1)
    asked = (largest > 0) & largest.isfinite()
    # a power of 2: to multiply and to divide by it is exact
    power = torch.where(asked, largest, 1.0).log2().ceil().clamp(-100, 100)
    shift, whole = torch.zeros_like(power), [x.new_zeros(x.shape) for x in inputs]
    for left in reversed(range(_TRIES)):
        scale = torch.exp2(shift - power)
        scaled = gradient * _per_row(scale, gradient)
        again = left > 0
        scaled_back = torch.autograd.grad(out, inputs, scaled, retain_graph=again)
        size = torch.stack([g.abs().flatten(1).amax(1) for g in scaled_back])
        finite, small = size.isfinite().all(0), (size < _NORMAL).any(0)
        for kept, g in zip(whole, scaled_back, strict=True):
            # what has no number yet takes whatever there is
            take = finite | ~kept.flatten(1).any(1)
            kept.copy_(torch.where(_per_row(take, g), g / _per_row(scale, g), kept))
        if bool((~asked | (finite & ~small)).all()):
            return whole
        shift = shift + _STEP * (asked & finite & small) - _STEP * (asked & ~finite)
    infinite = torch.stack([~g.isfinite().flatten(1).all(1) for g in whole]).any(0)
    zero = torch.stack([~g.flatten(1).any(1) for g in whole]).any(0)
    _say(asked & infinite, asked & zero)
    return whole


def _say(infinite: Tensor, zero: Tensor) -> None:
    for rows, word in ((infinite, "no finite number"), (zero, "0")):
        if bool(rows.any()):
            LOG.warning(
                "the gradient of %d of %d images is %s in float16 at every scale that"
                " was tried: set models.dtype to float32",
                *(int(rows.sum()), len(rows), word),
            )
