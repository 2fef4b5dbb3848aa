"""A network in float16 that is differentiated from float32, at any scale of the loss.

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
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["from_float32"]

LOG = logging.getLogger(__name__)

#: Powers of 2 between two tries, and how many tries there are.
_STEP, _TRIES = 5, 5
#: Smallest number with all digits: a gradient that nowhere reaches it is too small.
_NORMAL = torch.finfo(torch.float16).tiny


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
        wanted = [x for x in leaves if x.requires_grad]
        found = iter(_pulled_back(out, wanted, gradients[0]))
        return None, *(next(found) if x.requires_grad else None for x in leaves)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _pulled_back(
    out: Tensor, wanted: Sequence[Tensor], gradient: Tensor
) -> list[Tensor]:
    """Return the gradients of `wanted` from that of `out`, at each row's own scale."""
    largest = gradient.abs().flatten(1).amax(1)
    asked = (largest > 0) & largest.isfinite()
    # a power of 2: to multiply and to divide by it is exact
    power = torch.where(asked, largest, 1.0).log2().ceil().clamp(-100, 100)
    shift, whole = torch.zeros_like(power), [x.new_zeros(x.shape) for x in wanted]
    for left in reversed(range(_TRIES)):
        scale = torch.exp2(shift - power)
        scaled = gradient * _per_row(scale, gradient)
        again = left > 0
        found = torch.autograd.grad(out, wanted, scaled, retain_graph=again)
        size = torch.stack([g.abs().flatten(1).amax(1) for g in found])
        finite, small = size.isfinite().all(0), (size < _NORMAL).any(0)
        for kept, g in zip(whole, found, strict=True):
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
