"""Stage 2 at full size: seconds and peak memory of its units and of each preset.

    python tests/benchmarks/stage2_sd14.py --device cuda --dtype bfloat16 --out FILE

Builds the architectures of Stable Diffusion v1-4 and CLIP ViT-B/32 from their published
configs with random weights (time and memory do not depend on what the weights are); the
text encoder has a stand-in. `--dtype` is the U-Net's, the decoder and CLIP compute in
float32, as in a run. Every part is a process of its own, so that its peak memory is its
own. With `--out` the figures become rates for `minddiff plan`; put them in `data/cost`.

On a CPU a sampler of one step is run, which ends within minutes and 20 GB; on a GPU the
profile's 35 (`--steps` changes this). Presets with a loop run `--iterations` and one
more: the difference is what each iteration of an uncut run costs. With `--threads 1`
the clock is the processor's, which other work on the machine does not stop.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD
from minddiff_utils.core.machine import processor_name
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.generation.alignment import Latent, align
from minddiff_utils.generation.guided_sampling import guide
from minddiff_utils.generation.presets import (
    GuidanceSettings,
    engine_settings,
    layers_of,
    sampler_of,
)
from minddiff_utils.generation.sampler import draw_noise
from minddiff_utils.generation.structural_loss import StructuralTarget
from minddiff_utils.models import Backbone, libraries, precision
from minddiff_utils.models.backbone import assemble
from minddiff_utils.models.clip import ClipEncoder, build_clip
from minddiff_utils.models.random import SCHEDULER, UNET, VAE
from minddiff_utils.models.stable_diffusion import SD14_TOKENS
from minddiff_utils.studies import cost, unit_rates

CLIP = "ViT-B-32-quickgelu"  # OpenAI's, in open_clip's list of configs
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
UNITS = ("unet", "unet_checkpointed", "decode", "clip")


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
        clip = build_clip({**config, "quick_gelu": True})
        clip = precision.freeze(clip, kind, torch.float32)
        unet = precision.freeze(libraries.UNet(**UNET), kind, DTYPES[args.dtype])
    context = config["text_cfg"]["context_length"]
    words = libraries.SimpleTokenizer(context_length=context)
    size = config["vision_cfg"]["image_size"]
    vision = ClipEncoder(clip, words, size, CLIP_MEAN, CLIP_STD)
    text = StandIn(device=kind.type)
    return assemble("sd14", vae, unet, SCHEDULER, text, vision)


def problem(
    backbone: Backbone, args: argparse.Namespace, layers: tuple[int, ...]
) -> tuple[Latent, StructuralTarget, list[torch.Generator]]:
    """Return random latents, targets with a quarter of the features, generators."""
    generators = [
        torch.Generator().manual_seed(args.seed + k) for k in range(args.batch)
    ]
    noise, z = draw_noise(backbone, generators), draw_noise(backbone, generators)
    rng, at = torch.Generator().manual_seed(args.seed), backbone.device
    shape = (args.batch, backbone.n_tokens, backbone.text_dim)
    c = torch.randn(shape, generator=rng).to(at)
    widths = {k: backbone.layer_widths[k - 1] for k in layers}
    target = StructuralTarget(
        {
            k: torch.randn(args.batch, w, generator=rng).to(at)
            for k, w in widths.items()
        },
        {k: (torch.rand(w, generator=rng) < 0.25).to(at) for k, w in widths.items()},
        {k: torch.ones(w, device=at) for k, w in widths.items()},
    )
    return Latent(z, c, noise), target, generators


def clock(args: argparse.Namespace) -> str:
    """Return which clock counts: on one thread the processor's, deaf to other work."""
    return "processor" if args.device == "cpu" and args.threads == 1 else "wall"


# --- parts, each in a process of its own ----------------------------------------------


def run_unit(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measure one unit of a batch."""
    backbone = build(args)
    held = unit_rates.held_bytes(backbone.device)
    counts = time.process_time if clock(args) == "processor" else time.perf_counter
    options = {"repeats": args.repeats, "warm_up": args.warm_up, "clock": counts}
    found = unit_rates.measure_unit(backbone, name, args.batch, **options)
    return {**asdict(found), "held_bytes": held}


def fused(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
    """Return the operations of the CPU's fused attention; torch counts none."""
    return sdpa_flop_count(q, k, v)


def fused_gradient(g: Any, q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
    """Return those of its gradient."""
    return sdpa_backward_flop_count(g, q, k, v)


def operation_counter() -> FlopCounterMode:
    """Return a counter of all operations inside a block."""
    name = "_scaled_dot_product_flash_attention_for_cpu"
    known = {
        getattr(torch.ops.aten, name): fused,
        getattr(torch.ops.aten, f"{name}_backward"): fused_gradient,
    }
    return FlopCounterMode(display=False, custom_mapping=known)


def run_operations(args: argparse.Namespace) -> dict[str, float]:
    """Count operations of one sample through each unit, and weights; shapes alone."""
    args.device, found = "cpu", dict[str, float]()
    backbone = build(args)
    # fake tensors of a CPU take its fused attention, whose gradient forms part of the
    # evaluation again, as on a GPU; those of the device meta would not
    with FakeTensorMode(allow_non_fake_inputs=True):
        units = unit_rates.make_units(backbone, 1)
        for label in ("unet", "decode", "clip"):
            function, leaves = units[label]
            inputs = [leaf.requires_grad_() for leaf in leaves]
            with operation_counter() as forward:
                out = function(*inputs)
            with operation_counter() as backward:
                torch.autograd.grad(out.sum(), inputs)
            found[f"{label}_forward"] = forward.get_total_flops()
            found[f"{label}_backward"] = backward.get_total_flops()
    parts = {"unet": backbone._unet, "vae": backbone._vae, "clip": backbone._clip.model}
    for label, part in parts.items():
        found[f"{label}_weights"] = sum(p.numel() for p in part.parameters())
    return found


def run_preset(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Time a preset at the sizes of profile nsd, its loop cut short; per batch."""
    profile = load_profile("nsd", {"stage2.preset": name})
    stage2, config = by_name()["stage2"], profile.stage2
    diffusion = sampler_of(stage2, profile)
    if args.steps:
        steps = min(args.steps, diffusion.decode_steps)
        diffusion = diffusion.model_copy(update={"decode_steps": steps})
    settings = replace(engine_settings(config), memory=args.memory)
    backbone = build(args)
    layers = layers_of(stage2, profile)
    latent, target, generators = problem(backbone, args, layers)
    held = unit_rates.held_bytes(backbone.device)

    def run(engine: Any) -> dict[str, Any]:
        inputs = (backbone, latent, target, diffusion, engine)
        began = time.perf_counter()
        if isinstance(engine, GuidanceSettings):
            result = guide(*inputs)
        else:
            result = align(*inputs, generators=generators)
        if result.diverged.any():
            sys.exit("a loss lost its number, so that not all images were computed")
        counts = cost.settings_work(diffusion, engine).counts
        return {"seconds": time.perf_counter() - began, "counts": asdict(counts)}

    if isinstance(settings, GuidanceSettings):
        runs = [run(settings)]
    else:
        n_iters = (args.iterations, 2 * args.iterations)
        runs = [run(replace(settings, n_iter=n, n_candidates=1)) for n in n_iters]
    work = cost.settings_work(diffusion, settings)
    facts = {"memory": work.memory, "held": work.held, "steps": diffusion.decode_steps}
    peak = unit_rates.peak_bytes(backbone.device)
    return {"runs": runs, **facts, "held_bytes": held, "peak_bytes": peak}


# --- the whole ------------------------------------------------------------------------


def in_process(args: argparse.Namespace, part: str) -> dict[str, Any]:
    """Run one part in a process of its own and return its figures."""
    command = [sys.executable, __file__, "--part", part]
    for name, value in vars(args).items():
        if name not in ("part", "out"):
            command += [f"--{name.replace('_', '-')}", str(value)]
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
    return f"{processor_name()}, {args.threads} thread(s)"


def compare(found: dict[str, Any], rates: unit_rates.Rates) -> None:
    """Put beside a preset's figures what the rates predict for them."""
    for run in found["runs"]:
        counts = cost.Counts(**run["counts"])
        run["predicted"] = rates.batch * counts.weigh(rates.seconds, found["memory"])
    work = cost.Work(cost.Counts(), found["memory"], found["held"])
    found["predicted_peak"] = work.peak_bytes(rates.bytes, rates.batch)


def whole(args: argparse.Namespace) -> dict[str, Any]:
    """Run everything and return all figures."""
    counted = in_process(args, "operations")
    units = {name: in_process(args, name) for name in UNITS}
    presets = {name: in_process(args, name) for name in cost.PRESETS}
    held = {name: found.pop("held_bytes") for name, found in units.items()}
    costs = {name: unit_rates.UnitCost(**found) for name, found in units.items()}
    where = (device_name(args), args.device, args.dtype)
    rates = unit_rates.rates_of_costs(costs, args.batch, held["unet"], where)
    for found in presets.values():
        compare(found, rates)
    pairs = zip(astuple(unit_rates.OPERATIONS), astuple(rates.seconds), strict=True)
    per_second = [n / s for n, s in pairs]
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


def parsed() -> argparse.Namespace:
    """Return the arguments, with a device's own defaults."""
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
    parser.add_argument("--warm-up", type=int, default=1, help="runs of a unit before")
    parser.add_argument("--memory", choices=("store", "checkpoint"))
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    parts = ("operations", *UNITS, *cost.PRESETS)
    parser.add_argument(
        "--part", choices=parts, help="this part alone, in this process"
    )
    args = parser.parse_args()
    quick = {"steps": 1, "iterations": 1, "repeats": 1, "memory": "store"}
    thorough = {"steps": 0, "iterations": 3, "repeats": 5, "memory": "checkpoint"}
    for name, value in (quick if args.device == "cpu" else thorough).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> None:
    """Run the benchmark, or one part of it."""
    args = parsed()
    torch.set_num_threads(args.threads)
    if args.part is None:
        text = json.dumps(whole(args), indent=1)
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
