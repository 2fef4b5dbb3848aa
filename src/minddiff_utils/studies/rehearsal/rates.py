"""Seconds and bytes of the units of stage 2 on a GPU, for `minddiff plan`.

What `tests/benchmarks/stage2_sd14.py` measures with more care, in a minute and with the
models of the rehearsal, loaded as the notebooks load them: full architectures, random
weights. `cost.predict` turns the rates into hours and memory of each preset.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from minddiff_utils.core.config import ModelConfig
from minddiff_utils.core.locks import end_with_parent
from minddiff_utils.core.surroundings import ended_if_cut_off, interrupts_held, settled
from minddiff_utils.generation.device_memory import (
    Footprint,
    counted_footprint,
    image_bytes,
)
from minddiff_utils.models import Backbone, load_backbone
from minddiff_utils.studies.cost import Rates, Seconds

__all__ = ["measure_rates"]

_TIMESTEP, _LAYERS, _REPEATS = 500, range(1, 7), 5


def measure_rates(config: ModelConfig, models: Path) -> Rates:
    """Measure in a process of its own.

    Parameters
    ----------
    config : ModelConfig
        Its device must be a GPU: memory is what torch holds there.
    models : Path
        Folder with the folder `sd14`.
    """
    context = multiprocessing.get_context("spawn")
    with (
        settled(),
        ProcessPoolExecutor(1, context, initializer=end_with_parent) as pool,
        ended_if_cut_off(pool),
    ):
        with interrupts_held():
            found = pool.submit(_measure, config, models.absolute())
        return found.result()


@dataclass(frozen=True)
class _Cost:
    """Of one call: seconds of evaluation and gradient, bytes kept between and at most.

    Bytes are above what was held before.
    """

    forward: float
    backward: float
    saved: float
    peak: float


def _measure(config: ModelConfig, models: Path) -> Rates:
    backbone = load_backbone(config, models)
    return rates_of(backbone, config, torch.cuda.get_device_name())


def rates_of(backbone: Backbone, config: ModelConfig, device: str) -> Rates:
    """Return the rates of a loaded backbone; per sample, in batches of the profile."""
    gpu = backbone.device
    each = image_bytes(counted_footprint(backbone.unet_item_bytes), 1, "store")
    n = max(1, int(min(config.batch_size, backbone.free_bytes() / 2 // each)))
    held = _held(gpu)
    z = torch.randn(n, *backbone.latent_shape, device=gpu)
    c = torch.randn(n, backbone.n_tokens, backbone.text_dim, device=gpu)
    size = backbone.image_size
    images = torch.rand(n, 3, size, size, device=gpu) * 2 - 1

    def unet(x: Tensor, text: Tensor) -> Tensor:
        return backbone.unet(x, _TIMESTEP, text)

    def again(x: Tensor, text: Tensor) -> Tensor:
        out: Tensor = checkpoint(unet, x, text, use_reentrant=False)
        return out

    def clip(x: Tensor) -> Tensor:
        return torch.cat(list(backbone.clip_layers(x, _LAYERS).values()), 1)

    stored, kept = _cost(unet, (z, c)), _cost(again, (z, c))
    decode, seen = _cost(backbone.decode_latents, (z,)), _cost(clip, (images,))
    seconds = Seconds(
        unet_forward=stored.forward / n,
        unet_backward_stored=stored.backward / n,
        unet_backward_checkpointed=kept.backward / n,
        decode_forward=decode.forward / n,
        decode_backward=decode.backward / n,
        clip_forward=seen.forward / n,
        clip_backward=seen.backward / n,
    )
    footprint = Footprint(
        weights=max(held, 1.0),
        unet_saved=max(stored.saved / n, 1.0),
        unet_gradient=max(kept.peak / n, 1.0),
        decode_gradient=max(decode.peak / n, 1.0),
    )
    facts = ("sd14", device, config.device, config.dtype, n, torch.__version__)
    return Rates(*facts, seconds, footprint, f"rehearsed on {device}")


def _cost(function: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> _Cost:
    """Return the medians of a few runs; the first one warms up and counts not."""
    runs = [_once(function, leaves) for _ in range(_REPEATS + 1)][1:]
    forward, backward = (
        statistics.median(getattr(run, name) for run in runs)
        for name in ("forward", "backward")
    )
    return _Cost(forward, backward, runs[0].saved, runs[0].peak)


def _once(function: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> _Cost:
    device = leaves[0].device
    with torch.no_grad():
        began = _now(device)
        function(*leaves)
        forward = _now(device) - began
    inputs = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    before = _held(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    out = function(*inputs)
    half, saved = _now(device), _held(device) - before
    torch.autograd.grad(out.float().square().sum(), inputs)
    backward = _now(device) - half
    peak = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    return _Cost(forward, backward, saved, peak)


def _now(device: torch.device) -> float:
    """Return the time at which everything asked for so far is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _held(device: torch.device) -> float:
    return float(torch.cuda.memory_allocated()) if device.type == "cuda" else 0.0
