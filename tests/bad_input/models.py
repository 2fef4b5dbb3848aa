"""What the models' files may have wrong, beside what `test_backbone` tries.

The demo's models have a list of digests, which sees any change; where a case is about
what comes after it, the changed file is listed anew.
"""

import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minddiff_utils.core.profile import ModelConfig
from minddiff_utils.core.provenance import digest_file
from minddiff_utils.models import load_backbone, load_judge

from .case import Act, Case
from .world import (
    Damage,
    World,
    a_dangling_link,
    a_file_for_its_folder,
    a_folder,
    a_loop,
    as_json,
    cut,
    gone,
    holds,
)

DEMO = "data/models/demo"
SUMS = f"{DEMO}/SHA256SUMS"
UNET = f"{DEMO}/unet/diffusion_pytorch_model.safetensors"
VAE, CLIP = f"{DEMO}/vae/config.json", f"{DEMO}/clip/open_clip_model.safetensors"
EYE, WORDS = f"{DEMO}/clip/open_clip_config.json", f"{DEMO}/clip/vocabulary.json"
SCHEDULE = f"{DEMO}/scheduler/scheduler_config.json"
JUDGE = f"{DEMO}/judge/open_clip_config.json"


def load(world: World) -> object:
    return load_backbone(ModelConfig(backbone="demo"), world.root / "data" / "models")


def judge(world: World) -> object:
    return load_judge(world.root / "data" / "models", kind="demo")


def _listed(damage: Damage) -> Damage:
    """Return a damage after which the file's digest is listed anew."""

    def write(path: Path) -> None:
        damage(path)
        sums = path.parents[1] / "SHA256SUMS"
        name = path.relative_to(sums.parent).as_posix()
        lines = [line.split("  ") for line in sums.read_text().splitlines()]
        new = {n: digest_file(path) if n == name else digest for digest, n in lines}
        sums.unlink()
        sums.write_text("".join(f"{digest}  {n}\n" for n, digest in new.items()))

    return write


def _state(**changed: torch.Tensor) -> Damage:
    def write(path: Path) -> None:
        save_file(load_file(path) | changed, path)

    return write


def _without_first(path: Path) -> None:
    state = load_file(path)
    state.pop(sorted(state)[0])
    save_file(state, path)


def _case(
    path: str,
    damage: Damage,
    found: str,
    remedy: str = "restore",
    act: Act = load,
    names: str = "",
) -> Case:
    return Case(act, found, remedy, path, damage, names)


CASES = {
    # the list of digests
    "digests gone": _case(SUMS, gone, "cannot be trusted"),
    "digests empty": _case(
        SUMS, holds(""), "not listed in", "add its digest", judge, "open_clip_model"
    ),
    "digests a folder": _case(SUMS, a_folder, "cannot be trusted"),
    "digests not UTF-8": _case(SUMS, holds(b"\xff\xfe"), "no list of digests"),
    "digests in words": _case(SUMS, holds("see the hub\n"), "line 1, is not a digest"),
    "digests without paths": _case(SUMS, holds("0" * 64 + "\n"), "line 1, is not"),
    "digests of what is not there": _case(
        SUMS, holds("0" * 64 + "  ../../more\n"), "named in SHA256SUMS but missing"
    ),
    # weights
    "weights cut short": _case(UNET, cut, "SHA256SUMS says"),
    "weights a link to nothing": _case(UNET, a_dangling_link, "named in SHA256SUMS"),
    "weights a loop": _case(UNET, a_loop, "named in SHA256SUMS but missing"),
    "weights in a file for a folder": _case(
        UNET, a_file_for_its_folder, "named in SHA256SUMS but missing", names="unet"
    ),
    "listed weights cut short": _case(CLIP, _listed(cut), "does not fit its config"),
    "listed weights empty": _case(CLIP, _listed(holds("")), "is empty"),
    "listed weights of a huge header": _case(
        CLIP, _listed(holds(b"\xff" * 16)), "does not fit its config"
    ),
    "listed weights of text": _case(CLIP, _listed(holds("{}" * 20)), "does not fit"),
    "a pickle named as weights": _case(
        CLIP, _listed(holds(pickle.dumps({"weight": [1.0]}))), "does not fit its config"
    ),
    "a weight too many": _case(
        CLIP, _listed(_state(stranger=torch.ones(1))), "stranger"
    ),
    "a weight too few": _case(CLIP, _listed(_without_first), "Missing key"),
    "a weight of another shape": _case(
        CLIP, _listed(_state(logit_scale=torch.ones(5))), "size mismatch"
    ),
    # configs
    "config cut short": _case(VAE, _listed(cut), "not valid JSON"),
    "config not UTF-8": _case(VAE, _listed(holds(b'{"a": "\xff"}')), "not valid JSON"),
    "config of a list": _case(VAE, _listed(holds("[1]")), "must hold a JSON object"),
    "config of brackets": _case(VAE, _listed(holds("[" * 100_000)), "not valid JSON"),
    "config of words": _case(
        VAE,
        _listed(as_json(lambda c: c | {"block_out_channels": "many"})),
        "no config of such a model",
    ),
    "config of another model": _case(
        VAE, _listed(holds("{}")), "does not fit its config", names="vae"
    ),
    "schedule of words": _case(
        SCHEDULE,
        _listed(as_json(lambda c: c | {"beta_schedule": "steep"})),
        "no config of such a model",
    ),
    "schedule without a number": _case(
        SCHEDULE,
        _listed(as_json(lambda c: c | {"num_train_timesteps": None})),
        "no config of such a model",
    ),
    "CLIP without vision": _case(
        EYE,
        _listed(as_json(lambda _: {"model_cfg": {"embed_dim": 8}})),
        "no config of such a model",
    ),
    "CLIP of two colours": _case(
        EYE,
        _listed(as_json(lambda c: c | {"preprocess_cfg": {"mean": [0.5, 0.5]}})),
        "no config of such a model",
    ),
    "judge of words": _case(
        JUDGE,
        _listed(as_json(lambda c: c | {"model_cfg": "ViT"})),
        "no config of such a model",
        act=judge,
    ),
    "vocabulary without marks": _case(WORDS, _listed(holds("{}")), "not a vocabulary"),
    "vocabulary cut short": _case(WORDS, _listed(cut), "not valid JSON"),
}
