"""How fast the units of stage 2 are on a device: measured, read, or estimated.

A unit is one sample through the U-Net, the autoencoder's decoder or CLIP, or its
gradient. `tests/benchmarks/stage2_sd14.py` measures them with care and writes a file;
a rehearsal measures them on its GPU within a minute; where nobody did, counts of
operations at a speed that the user names stand in. `cost` makes hours of them.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minddiff_utils.core.errors import ConfigError, DataError, check_exists
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import ModelConfig
from minddiff_utils.core.reading import reading
from minddiff_utils.generation.device_memory import (
    Footprint,
    counted_footprint,
    image_bytes,
)
from minddiff_utils.models import Backbone, load_backbone

__all__ = [
    "ITEM_BYTES",
    "NOT_MEASURED",
    "OPERATIONS",
    "Rates",
    "Seconds",
    "UnitCost",
    "estimated_rates",
    "find_rates",
    "held_bytes",
    "make_units",
    "measure_rates",
    "measure_unit",
    "peak_bytes",
    "rates_of",
    "rates_of_costs",
    "read_rates",
]

Kind = Literal["cpu", "cuda"]
Precision = Literal["float32", "float16", "bfloat16"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Seconds:
    """Seconds of one sample through each unit, and of its gradient for the inputs.

    A guided step takes two U-Net evaluations. Its gradient has all values stored, or
    the evaluation is done again, as `memory="checkpoint"` does; that of CLIP's image
    tower goes as far as block 6.
    """

    unet_forward: Positive
    unet_backward_stored: Positive
    unet_backward_checkpointed: Positive
    decode_forward: Positive
    decode_backward: Positive
    clip_forward: Positive
    clip_backward: Positive


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes of the units, for one device.

    `kind`: what a profile calls the device; `dtype`: of the U-Net, as the decoder and
    CLIP compute in float32; `batch`: images at once when it was measured; `torch`: its
    version; `source`: where the numbers are from, in a few words.
    """

    backbone: str
    device: str
    kind: Kind
    dtype: Precision
    batch: Annotated[int, Field(gt=0)]
    torch: str
    seconds: Seconds
    bytes: Footprint
    source: str = ""


#: Operations of one sample through each unit of Stable Diffusion v1-4 and CLIP
#: ViT-B/32, two per multiply-add: 64 x 64 latents, 15 tokens, gradients for z and c
#: alone. Counted by `tests/benchmarks/stage2_sd14.py --part operations`.
OPERATIONS = Seconds(
    unet_forward=0.7980e12,
    unet_backward_stored=0.9828e12,
    unet_backward_checkpointed=0.7980e12 + 0.9828e12,
    decode_forward=2.5145e12,
    decode_backward=2.5661e12,
    clip_forward=4.524e9,
    clip_backward=4.593e9,
)
#: In the place of the device where rates are estimated.
NOT_MEASURED = "none"
#: Of one number of the U-Net.
ITEM_BYTES: dict[Precision, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


def read_rates(path: Path) -> Rates:
    """Read the rates that the benchmark wrote to `path`.

    Where it is missing or no JSON, or a number is missing or not above 0, DataError.
    """
    remedy = "write one with tests/benchmarks/stage2_sd14.py --out"
    check_exists(path, "The file of rates", remedy)
    with reading(path, DataError, found="is no file of rates", remedy=remedy):
        content = path.read_bytes()
    try:
        found = TypeAdapter(Rates).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise DataError(
            f"{path} is no file of rates, {where}: {first['msg']}: {remedy}."
        ) from error
    source = f"measured on {found.device}, batches of {found.batch} ({path.name})"
    return replace(found, source=source)


def find_rates(
    folder: Path | None, backbone: str, kind: str, dtype: str
) -> Rates | None:
    """Return the first rates in `folder` for such a device, None if there are none.

    `folder` None means the repository's `data/cost`; the rest as in a profile's models.
    """
    folder = folder or project_root() / "data" / "cost"
    for path in sorted(folder.glob("*.json")):
        rates = read_rates(path)
        if (rates.backbone, rates.kind, rates.dtype) == (backbone, kind, dtype):
            return rates
    return None


def estimated_rates(
    unet_tflops: float, tflops_float32: float, kind: Kind, dtype: Precision
) -> Rates:
    """Return rates of Stable Diffusion v1-4 from operation counts; nothing is measured.

    Speeds in TFLOP/s: of the U-Net in its precision `dtype`, and of the autoencoder and
    CLIP, which compute in float32. One that is no number above 0: ConfigError.
    """
    for speed in (unet_tflops, tflops_float32):
        if not 0 < speed < float("inf"):
            raise ConfigError(
                f"The speed is {speed} TFLOP/s, but must be a finite number above 0."
            )
    speeds = {"unet": unet_tflops, "decode": tflops_float32, "clip": tflops_float32}
    counted = vars(OPERATIONS).items()
    each = Seconds(**{k: n / (speeds[k.split("_")[0]] * 1e12) for k, n in counted})
    source = f"estimate from operation counts at {unet_tflops:g} TFLOP/s"
    if tflops_float32 != unet_tflops:
        source += f", {tflops_float32:g} in float32"
    footprint = counted_footprint(ITEM_BYTES[dtype])
    return Rates("sd14", NOT_MEASURED, kind, dtype, 1, "none", each, footprint, source)


# --- measured -------------------------------------------------------------------------

#: What is evaluated and differentiated, and its leaves.
Unit = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
Clock = Callable[[], float]
_TIMESTEP, _LAYERS, _REPEATS = 500, range(1, 7), 5


@dataclass(frozen=True)
class UnitCost:
    """What a batch costs in one unit.

    Seconds of an evaluation without a graph, and what its gradient adds; bytes that are
    kept for the gradient, and at most, above what was held before.
    """

    forward: float
    backward: float
    saved: float
    peak: float


def make_units(backbone: Backbone, n: int) -> dict[str, Unit]:
    """Return the units by name, on random samples (n, ...)."""
    device, size = backbone.device, backbone.image_size
    z = torch.randn(n, *backbone.latent_shape, device=device)
    c = torch.randn(n, backbone.n_tokens, backbone.text_dim, device=device)
    images = torch.rand(n, 3, size, size, device=device) * 2 - 1

    def unet(x: Tensor, text: Tensor) -> Tensor:
        return backbone.unet(x, _TIMESTEP, text)

    def again(x: Tensor, text: Tensor) -> Tensor:
        out: Tensor = checkpoint(unet, x, text, use_reentrant=False)
        return out

    def clip(x: Tensor) -> Tensor:
        return torch.cat(list(backbone.clip_layers(x, _LAYERS).values()), 1)

    return {
        "unet": (unet, (z, c)),
        "unet_checkpointed": (again, (z, c)),
        "decode": (backbone.decode_latents, (z,)),
        "clip": (clip, (images,)),
    }


def measure_unit(
    backbone: Backbone,
    name: str,
    n: int,
    *,
    repeats: int = _REPEATS,
    warm_up: int = 1,
    clock: Clock = time.perf_counter,
) -> UnitCost:
    """Return the shortest of some runs of a unit on `n` samples, and its bytes.

    Other work on the machine only adds, and a median of few runs may hold some of it.
    """
    function, leaves = make_units(backbone, n)[name]

    def seconds(call: Callable[[], object]) -> float:
        began = _now(backbone.device, clock)
        call()
        return _now(backbone.device, clock) - began

    def evaluate() -> None:
        with torch.no_grad():
            function(*leaves)

    def differentiate() -> None:
        inputs = [leaf.detach().requires_grad_() for leaf in leaves]
        torch.autograd.grad(function(*inputs).float().square().sum(), inputs)

    held = held_bytes(backbone.device)  # runs leave freed memory to the process
    for _ in range(warm_up):
        evaluate()
        differentiate()
    pairs = [(seconds(evaluate), seconds(differentiate)) for _ in range(repeats)]
    forward, both = map(min, zip(*pairs, strict=True))
    peak = peak_bytes(backbone.device) - held
    return UnitCost(forward, both - forward, _saved(backbone, function, leaves), peak)


def _saved(
    backbone: Backbone, function: Callable[..., Tensor], leaves: tuple[Tensor, ...]
) -> float:
    """Return the bytes that autograd keeps; shared storages count once, weights not."""
    parts = [part for part in vars(backbone).values() if isinstance(part, nn.Module)]
    weights = {
        p.untyped_storage().data_ptr() for part in parts for p in part.parameters()
    }
    sizes: dict[int, int] = {}

    def see(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(see, lambda x: x):
        out = function(*(leaf.detach().requires_grad_() for leaf in leaves))
    del out
    return float(sum(size for key, size in sizes.items() if key not in weights))


def _now(device: torch.device, clock: Clock) -> float:
    """Return the time at which everything asked for so far is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock()


def held_bytes(device: torch.device) -> float:
    """Return what is held now, on a CPU by the process (Linux); the peak begins here.

    What the process has freed and kept for itself counts, too.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _status_bytes("VmRSS")


def peak_bytes(device: torch.device) -> float:
    """Return the most that was held since `held_bytes`."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(key))
    return float(line.split()[1]) * 1024


def rates_of_costs(
    costs: Mapping[str, UnitCost],
    n: int,
    weights: float,
    where: tuple[str, Kind, Precision],
) -> Rates:
    """Return the rates of one sample from the costs of `n`, by names of `make_units`.

    `weights`: bytes that are held before the first sample; `where`: name of the device,
    its kind, and dtype of the U-Net.
    """
    each = {key: (c.forward / n, c.backward / n) for key, c in costs.items()}
    # an evaluation that keeps no values for its gradient is evaluated again there
    again = sum(each["unet_checkpointed"]) - each["unet"][0]
    seconds = Seconds(*each["unet"], again, *each["decode"], *each["clip"])
    footprint = Footprint(
        weights=max(weights, 1.0),
        unet_saved=max(costs["unet"].saved / n, 1.0),
        unet_gradient=max(costs["unet_checkpointed"].peak / n, 1.0),
        decode_gradient=max(costs["decode"].peak / n, 1.0),
    )
    device, kind, dtype = where
    facts = ("sd14", device, kind, dtype, n, torch.__version__)
    return Rates(*facts, seconds, footprint, f"measured on {device}")


def measure_rates(config: ModelConfig, models: Path) -> Rates:
    """Return the rates of this machine's GPU, for the models in the folder `models`."""
    backbone = load_backbone(config, models.absolute())
    return rates_of(backbone, config, torch.cuda.get_device_name())


def rates_of(backbone: Backbone, config: ModelConfig, device: str) -> Rates:
    """Return the rates of a loaded backbone; per sample, in batches of the profile."""
    each = image_bytes(counted_footprint(backbone.unet_item_bytes), 1, "store")
    n = max(1, int(min(config.batch_size, backbone.free_bytes() / 2 // each)))
    held = held_bytes(backbone.device)
    costs = {name: measure_unit(backbone, name, n) for name in make_units(backbone, 1)}
    return rates_of_costs(costs, n, held, (device, config.device, config.dtype))
