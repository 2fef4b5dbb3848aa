"""Stage 2 at full size: seconds and peak memory of its units and of each preset.

    python tests/benchmarks/stage2_sd14.py --device cuda --dtype bfloat16 --out FILE

Builds the architectures of Stable Diffusion v1-4 and CLIP ViT-B/32 from their published
configs with random weights (time and memory do not depend on what the weights are); the
text encoder has a stand-in. `--dtype` is the U-Net's, the decoder and CLIP compute in
float32, as in a run. Every part is a process of its own, so that its peak memory is its
own. With `--out` the figures become rates for `minddiff plan`; put them in `data/cost`.

On a CPU a sampler of one step is run, which ends within minutes and 20 GB; on a GPU the
profile's 35 (`--steps` changes this). Iterations of a preset are cut off after
`--iterations`: each costs what each of an uncut run does. With `--threads 1` the clock
is the processor's, which other work on the machine does not stop.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from minddiff_utils.core.config import Profile, Stage1Config
from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.generation import alignment
from minddiff_utils.generation.alignment import Latent, align, surrogate
from minddiff_utils.generation.device_memory import Footprint
from minddiff_utils.generation.guided_sampling import guide
from minddiff_utils.generation.presets import engine_settings
from minddiff_utils.generation.sampler import draw_noise, make_schedule
from minddiff_utils.generation.structural_loss import StructuralTarget
from minddiff_utils.models import Backbone, libraries, precision
from minddiff_utils.models.backbone import assemble
from minddiff_utils.models.clip import ClipEncoder, build_clip
from minddiff_utils.models.random import SCHEDULER, UNET, VAE
from minddiff_utils.models.stable_diffusion import SD14_TOKENS
from minddiff_utils.studies import cost

CLIP = "ViT-B-32-quickgelu"  # OpenAI's, in open_clip's list of configs
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
UNITS = ("unet_forward", "unet_store", "unet_checkpoint", "decode_forward")
UNITS += ("decode_gradient", "clip_gradient")
TIMESTEP = 500


# --- the models -----------------------------------------------------------------------


@dataclass(frozen=True)
class StandIn:
    """Text sequences of the right shape, the same for all captions."""

    n_tokens: int = SD14_TOKENS
    width: int = 768
    device: str = "cpu"

    def __call__(self, captions: Any) -> Tensor:
        return torch.zeros(len(captions), self.n_tokens, self.width, device=self.device)


def build(args: argparse.Namespace) -> Backbone:
    """Return the random backbone."""
    from open_clip import get_model_config  # after the package, see `backbone`

    kind = torch.device(args.device)
    config = get_model_config(CLIP)
    with torch.random.fork_rng(devices=[]), kind:
        torch.manual_seed(args.seed)
        vae = precision.freeze(libraries.Autoencoder(**VAE), kind, torch.float32)
        model = build_clip({**config, "quick_gelu": True})
        clip = precision.freeze(model, kind, torch.float32)
        unet = precision.freeze(libraries.UNet(**UNET), kind, DTYPES[args.dtype])
    context, size = (
        config["text_cfg"]["context_length"],
        config["vision_cfg"]["image_size"],
    )
    words = libraries.SimpleTokenizer(context_length=context)
    vision = ClipEncoder(clip, words, size, CLIP_MEAN, CLIP_STD)
    text = StandIn(device=kind.type)
    return assemble("sd14", vae, unet, SCHEDULER, text, vision)


def problem(backbone: Backbone, args: argparse.Namespace) -> tuple[Latent, list]:
    """Return random latents and the generators of their noise."""
    generators = [
        torch.Generator().manual_seed(args.seed + k) for k in range(args.batch)
    ]
    noise = draw_noise(backbone, generators)
    c = torch.stack(
        [
            torch.randn(backbone.n_tokens, backbone.text_dim, generator=generator)
            for generator in generators
        ]
    )
    z = draw_noise(backbone, generators)
    return Latent(z, c.to(backbone.device), noise), generators


def random_target(
    backbone: Backbone, args: argparse.Namespace, layers: tuple[int, ...]
) -> StructuralTarget:
    """Return random targets of which a quarter of the features count."""
    rng = torch.Generator().manual_seed(args.seed)
    features, selected, scale = {}, {}, {}
    for layer in layers:
        width = backbone.layer_widths[layer - 1]
        values = torch.randn(args.batch, width, generator=rng)
        features[layer] = values.to(backbone.device)
        selected[layer] = (torch.rand(width, generator=rng) < 0.25).to(backbone.device)
        scale[layer] = torch.ones(width, device=backbone.device)
    return StructuralTarget(features, selected, scale)


# --- seconds and bytes ----------------------------------------------------------------


def status_bytes(key: str) -> int:
    """Return a figure of this process (VmHWM: its peak, VmRSS: what it holds)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(key))
    return int(line.split()[1]) * 1024


def held_bytes(device: str) -> int:
    """Return what is held now, and let the peak begin here."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return status_bytes("VmRSS")


def peak_bytes(device: str) -> int:
    """Return the most that was held since `held_bytes`."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return status_bytes("VmHWM")


def clock(args: argparse.Namespace) -> str:
    """Return which clock counts: on one thread the processor's, deaf to other work."""
    return "processor" if args.device == "cpu" and args.threads == 1 else "wall"


def now(args: argparse.Namespace) -> float:
    """Return the time at which everything asked for so far is done."""
    if args.device == "cuda":
        torch.cuda.synchronize()
    return time.process_time() if clock(args) == "processor" else time.perf_counter()


class Saved:
    """Bytes that autograd keeps inside the block; shared storages count once."""

    def __init__(self, backbone: Backbone) -> None:
        parts = (backbone._unet, backbone._vae, backbone._clip.model)
        self.weights = {
            p.untyped_storage().data_ptr() for part in parts for p in part.parameters()
        }
        self.sizes: dict[int, int] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._see, lambda x: x)

    def _see(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return x

    def __enter__(self) -> "Saved":
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    @property
    def bytes(self) -> int:
        """Return the sum."""
        return sum(self.sizes.values())


# --- units ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """A function of some leaves, whose gradient may be formed."""

    function: Callable[..., Tensor]
    leaves: tuple[Tensor, ...]

    def forward(self, args: argparse.Namespace) -> float:
        """Return the seconds of an evaluation without a graph."""
        began = now(args)
        with torch.no_grad():
            self.function(*self.leaves)
        return now(args) - began

    def gradient(
        self, args: argparse.Namespace, backbone: Backbone
    ) -> tuple[float, float, int]:
        """Return seconds of evaluation and gradient, and the bytes kept between."""
        leaves = [leaf.requires_grad_() for leaf in self.leaves]
        began = now(args)
        with Saved(backbone) as saved:
            out = self.function(*leaves)
        half = now(args)
        torch.autograd.grad(out.float().square().sum(), leaves)
        return half - began, now(args) - half, saved.bytes


def make_unit(backbone: Backbone, args: argparse.Namespace, name: str) -> Unit:
    """Return the unit that a part measures."""
    latent, _ = problem(backbone, args)

    def unet(x: Tensor, c: Tensor) -> Tensor:
        return backbone.unet(x, TIMESTEP, c)

    def unet_again(x: Tensor, c: Tensor) -> Tensor:
        out: Tensor = checkpoint(unet, x, c, use_reentrant=False)
        return out

    def clip(images: Tensor) -> Tensor:
        return torch.cat(list(backbone.clip_layers(images, range(1, 7)).values()), 1)

    if name == "unet_checkpoint":
        return Unit(unet_again, (latent.z, latent.c))
    if name.startswith("unet"):
        return Unit(unet, (latent.z, latent.c))
    if name.startswith("decode"):
        return Unit(backbone.decode_latents, (latent.z,))
    size = backbone.image_size
    images = torch.rand(args.batch, 3, size, size, device=backbone.device)
    return Unit(clip, (images * 2 - 1,))


def run_unit(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measure a unit; per call of `batch` samples."""
    backbone = build(args)
    unit = make_unit(backbone, args, name)
    forward_only = name.endswith("forward")

    def once() -> tuple[float, ...]:
        if forward_only:
            return (unit.forward(args),)
        return unit.gradient(args, backbone)

    held = held_bytes(args.device)  # the warm-up leaves freed memory to the process
    for _ in range(args.warm_up):
        once()
    runs = [once() for _ in range(args.repeats)]
    forward, *rest = (
        sorted(values)[len(values) // 2] for values in zip(*runs, strict=True)
    )
    found = {"seconds_forward": forward, "held_bytes": held}
    if rest:
        found |= {"seconds_backward": rest[0], "saved_bytes": rest[1]}
    return {**found, "peak_bytes": peak_bytes(args.device)}


def fused(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
    """Return the operations of the CPU's fused attention; torch counts none."""
    return sdpa_flop_count(q, k, v)


def fused_gradient(g: Any, q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
    """Return those of its gradient."""
    return sdpa_backward_flop_count(g, q, k, v)


def operation_counter() -> FlopCounterMode:
    """Return a counter of all operations inside a block."""
    name = "_scaled_dot_product_flash_attention_for_cpu"
    forward, backward = (
        getattr(torch.ops.aten, name),
        getattr(torch.ops.aten, f"{name}_backward"),
    )
    known = {forward: fused, backward: fused_gradient}
    return FlopCounterMode(display=False, custom_mapping=known)


def run_operations(args: argparse.Namespace) -> dict[str, float]:
    """Count operations of one sample through each unit, and weights; shapes alone."""
    args.batch, args.device, found = 1, "cpu", {}
    backbone = build(args)
    # fake tensors of a CPU take its fused attention, whose gradient forms part of the
    # evaluation again, as on a GPU; those of the device meta would not
    with FakeTensorMode(allow_non_fake_inputs=True):
        count_units(backbone, args, found)
    parts = {"unet": backbone._unet, "vae": backbone._vae, "clip": backbone._clip.model}
    for label, part in parts.items():
        found[f"{label}_weights"] = sum(p.numel() for p in part.parameters())
    return found


def count_units(
    backbone: Backbone, args: argparse.Namespace, found: dict[str, float]
) -> None:
    """Add the operations of each unit to `found`."""
    for name in ("unet_store", "decode_gradient", "clip_gradient"):
        unit, label = make_unit(backbone, args, name), name.partition("_")[0]
        leaves = [leaf.requires_grad_() for leaf in unit.leaves]
        with operation_counter() as forward:
            out = unit.function(*leaves)
        with operation_counter() as backward:
            torch.autograd.grad(out.sum(), leaves)
        found[f"{label}_forward"] = forward.get_total_flops()
        found[f"{label}_backward"] = backward.get_total_flops()


# --- presets --------------------------------------------------------------------------


class CutOffError(Exception):
    """The iterations to be timed are done."""


def short_settings(profile: Profile, args: argparse.Namespace) -> Stage1Config:
    """Return the profile's sampler with at most `--steps` steps."""
    settings = profile.stage1
    if args.steps == 0:
        return settings
    steps = min(args.steps, settings.decode_steps)
    return settings.model_copy(update={"decode_steps": steps})


def time_alignment(
    backbone: Backbone,
    args: argparse.Namespace,
    config: Any,
    diffusion: Stage1Config,
    layers: tuple[int, ...],
) -> dict[str, Any]:
    """Run `align` up to its first iterations; return seconds and counts."""
    marks: dict[str, float] = {}
    latent, generators = problem(backbone, args)
    target = random_target(backbone, args, layers)
    settings: Any = replace(engine_settings(config), memory=args.memory)

    class Timed:
        """Marks the beginning of the loop, and its first state."""

        def read(self) -> None:
            marks["loop"] = now(args)

        def write(self, state: Mapping[str, Any]) -> None:
            if state["diverged"].any():
                sys.exit("a loss lost its number, so that not all images were computed")
            marks["end"] = now(args)
            raise CutOffError

    marks["start"] = now(args)
    vars(alignment)["KEEP_EVERY"] = args.iterations
    try:
        inputs = (backbone, latent, target, diffusion, settings)
        align(*inputs, generators=generators, state=Timed())
    except CutOffError:
        pass
    full = make_schedule(backbone, diffusion)
    short = surrogate(full, settings)
    work = cost.alignment_work(full, short, settings)
    return {
        "seconds_per_iteration": (marks["end"] - marks["loop"]) / args.iterations,
        "seconds_complete_sampler": marks["loop"] - marks["start"],
        "counts_per_iteration": asdict(cost.iteration_counts(short)),
        "n_iterations": settings.n_iter,
        "n_complete_samplers": 1 + min(settings.n_candidates, settings.n_iter),
        "work": work,
    }


def time_guidance(
    backbone: Backbone,
    args: argparse.Namespace,
    config: Any,
    diffusion: Stage1Config,
    layers: tuple[int, ...],
) -> dict[str, Any]:
    """Run `guide`; return seconds and counts."""
    latent, _ = problem(backbone, args)
    target = random_target(backbone, args, layers)
    settings: Any = replace(engine_settings(config), memory=args.memory)
    began = now(args)
    result = guide(backbone, latent, target, diffusion, settings)
    seconds = now(args) - began
    if result.diverged.any():
        sys.exit("a loss lost its number, so that not all images were computed")
    work = cost.guidance_work(make_schedule(backbone, diffusion), settings)
    return {"seconds_run": seconds, "work": work}


def run_preset(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measure a preset at the sizes of profile nsd; per batch."""
    profile = load_profile("nsd", {"stage2.preset": name})
    config = profile.stage2
    backbone = build(args)
    held = held_bytes(args.device)
    ours = name in ("fast", "guided")
    layers = tuple(config.layers_fast) if ours else profile.features.clip_layers
    diffusion = short_settings(profile, args)
    function = time_guidance if name == "guided" else time_alignment
    for _ in range(args.warm_up if args.device == "cuda" else 0):
        function(backbone, args, config, diffusion, layers)
    found = function(backbone, args, config, diffusion, layers)
    work = found.pop("work")
    found |= {"counts": asdict(work.total), "memory": work.memory, "held": work.held}
    found |= {"held_bytes": held, "peak_bytes": peak_bytes(args.device)}
    found["steps"] = diffusion.decode_steps
    return found


# --- the whole ------------------------------------------------------------------------


def in_process(args: argparse.Namespace, part: str) -> dict[str, Any]:
    """Run one part in a process of its own and return its figures."""
    command = [sys.executable, __file__, "--part", part]
    for name in ("device", "dtype", "batch", "threads", "seed"):
        command += [f"--{name}", str(getattr(args, name))]
    for name in ("steps", "iterations", "repeats", "warm_up", "memory"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{part} failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(part, json.dumps(found), flush=True)
    return found


def device_name(args: argparse.Namespace) -> str:
    """Return what the figures hold for."""
    if args.device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return f"{names[0] if names else 'unnamed CPU'}, {args.threads} thread(s)"


def to_rates(args: argparse.Namespace, parts: Mapping[str, Any]) -> cost.Rates:
    """Return the figures of the units as rates: of one sample."""
    n = args.batch

    def forward(part: str) -> float:
        return parts[part]["seconds_forward"] / n

    def backward(part: str, plain: str) -> float:
        # an evaluation that keeps its values is slower: the gradient pays for that
        return forward(part) + parts[part]["seconds_backward"] / n - forward(plain)

    seconds = cost.Seconds(
        unet_forward=forward("unet_forward"),
        unet_backward_stored=backward("unet_store", "unet_forward"),
        unet_backward_checkpointed=backward("unet_checkpoint", "unet_forward"),
        decode_forward=forward("decode_forward"),
        decode_backward=backward("decode_gradient", "decode_forward"),
        clip_forward=forward("clip_gradient"),
        clip_backward=backward("clip_gradient", "clip_gradient"),
    )

    def above(part: str) -> float:
        return (parts[part]["peak_bytes"] - parts[part]["held_bytes"]) / n

    footprint = Footprint(
        weights=parts["paper"]["held_bytes"],
        unet_saved=parts["unet_store"]["saved_bytes"] / n,
        unet_gradient=above("unet_store"),
        decode_gradient=above("decode_gradient"),
    )
    return cost.Rates(
        backbone="sd14",
        device=device_name(args),
        kind=args.device,
        dtype=args.dtype,
        batch=n,
        torch=torch.__version__,
        seconds=seconds,
        bytes=footprint,
    )


def compare(found: dict[str, Any], rates: cost.Rates, *, whole_sampler: bool) -> None:
    """Put beside a preset's figures what the rates predict for them."""
    n, memory = rates.batch, found["memory"]
    if "counts_per_iteration" in found:
        counts = cost.Counts(**found["counts_per_iteration"])
        predicted = counts.weigh(rates.seconds, memory) * n
        found["predicted_seconds_per_iteration"] = predicted
        if whole_sampler:  # the last look, without a gradient, is left out
            found["seconds_per_image_extrapolated"] = (
                found["n_iterations"] * found["seconds_per_iteration"]
                + found["n_complete_samplers"] * found["seconds_complete_sampler"]
            ) / n
    else:
        counts = cost.Counts(**found["counts"])
        found["predicted_seconds_run"] = counts.weigh(rates.seconds, memory) * n
        found["seconds_per_image"] = found["seconds_run"] / n
    work = cost.Work(counts, cost.Counts(), memory, found["held"])
    found["predicted_peak_bytes"] = cost.peak_bytes(work, rates.bytes, n)


def whole(args: argparse.Namespace) -> dict[str, Any]:
    """Run everything and return all figures."""
    counted = in_process(args, "operations")
    units = {name: in_process(args, name) for name in UNITS}
    presets = {name: in_process(args, name) for name in cost.PRESETS}
    rates = to_rates(args, {**units, **presets})
    for found in presets.values():
        compare(found, rates, whole_sampler=args.steps == 0)
    per_second = [
        n / s
        for n, s in zip(astuple(cost.OPERATIONS), astuple(rates.seconds), strict=True)
    ]
    facts = asdict(rates)
    del facts["source"]
    return {
        **facts,
        "measured": time.strftime("%Y-%m-%d"),
        "clock": clock(args),
        "steps": args.steps,
        "memory": args.memory,
        "operations": counted,
        "operations_per_second": dict(
            zip(asdict(rates.seconds), per_second, strict=True)
        ),
        "units": units,
        "presets": presets,
    }


def main() -> None:
    """Run the benchmark, or one part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    parser.add_argument("--batch", type=int, default=1, help="images at once")
    parser.add_argument(
        "--steps", type=int, help="of the sampler, 0: all; default: 1 on a CPU, else 0"
    )
    parser.add_argument("--iterations", type=int, help="default: 1 on a CPU, else 3")
    parser.add_argument(
        "--repeats", type=int, help="of a unit; default: 1 on a CPU, else 5"
    )
    parser.add_argument(
        "--warm-up", type=int, default=1, help="runs before; of a preset on a GPU only"
    )
    parser.add_argument("--memory", choices=("store", "checkpoint"))
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    parts = ("operations", *UNITS, *cost.PRESETS)
    parser.add_argument(
        "--part", choices=parts, help="this part alone, in this process"
    )
    args = parser.parse_args()
    quick = {"steps": 1, "iterations": 1, "repeats": 1}
    thorough = {"steps": 0, "iterations": 3, "repeats": 5}
    for name, value in (quick if args.device == "cpu" else thorough).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.memory = args.memory or ("store" if args.device == "cpu" else "checkpoint")
    torch.set_num_threads(args.threads)
    if args.part is None:
        found = whole(args)
        text = json.dumps(found, indent=1)
        print(text)
        if args.out:
            args.out.write_text(text + "\n", encoding="utf-8")
    elif args.part == "operations":
        print(json.dumps(run_operations(args)))
    elif args.part in UNITS:
        print(json.dumps(run_unit(args, args.part)))
    else:
        print(json.dumps(run_preset(args, args.part)))


if __name__ == "__main__":
    main()
