"""The arms of the study of stage 2: what is compared, and the images of each.

An arm is an engine with its settings and the features that it starts from. Its images
are checkpoints, batch by batch, as those of the notebooks are.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minddiff_utils.core.profile import Preset, Profile
from minddiff_utils.core.run import Run
from minddiff_utils.generation.checkpoints import checkpoint_of, subject_of
from minddiff_utils.generation.decoded_features import (
    DecodedFeatures,
    Source,
    read_decoded,
)
from minddiff_utils.generation.generate import (
    States,
    align_batch,
    finished_images,
    noise_generators,
)
from minddiff_utils.generation.presets import (
    AlignmentSettings,
    EngineSettings,
    GuidanceSettings,
    engine_settings,
)
from minddiff_utils.generation.sampler import draw_noise, make_schedule, sample
from minddiff_utils.generation.structural_loss import (
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.models import Backbone
from minddiff_utils.studies.cost import preset_work, stage1_work

__all__ = [
    "ENGINES",
    "Arm",
    "Part",
    "arms_of",
    "confirmation_arms",
    "images_of",
    "pilot_arms",
    "read_features",
]

LOG = logging.getLogger(__name__)

#: Variants on validation images, or the arms on test images.
Part = Literal["pilot", "confirmation"]
#: Arms that a figure names; the others are controls.
ENGINES: Mapping[str, str] = {
    "none": "stage 1 alone",
    "best_of_n": "best of N draws",
    "paper": "Algorithm 1",
    "paper_tuned": "Algorithm 1, step tuned",
    "released": "released code",
    "fast": "fast",
    "guided": "guided",
}
#: The validation images of notebook 02 and the test images, by part.
_DECODED = {"pilot": "decoded_validation.h5", "confirmation": "decoded.h5"}


@dataclass(frozen=True)
class Arm:
    """One way to make the images.

    Attributes
    ----------
    name, words : str
        Its name in tables, and what it is.
    settings : AlignmentSettings, GuidanceSettings or None
        The engine's; None means stage 1 alone.
    source : {"decoded", "true", "shuffled"}
        Where its features come from.
    layers : tuple of int or None
        CLIP blocks in its loss; None means all that were decoded.
    n_draws : int
        Stage-1 images of which the one with the lowest loss is kept.
    """

    name: str
    words: str
    settings: EngineSettings | None
    source: Source = "decoded"
    layers: tuple[int, ...] | None = None
    n_draws: int = 1


def arms_of(profile: Profile, part: Part) -> tuple[Arm, ...]:
    """Return the arms of one part of the study."""
    return pilot_arms(profile) if part == "pilot" else confirmation_arms(profile)


def _loop(profile: Profile, name: Preset, **changes: Any) -> AlignmentSettings:
    settings = engine_settings(profile.stage2.using(name, **changes))
    assert isinstance(settings, AlignmentSettings)
    return settings


def _guided(profile: Profile) -> GuidanceSettings:
    settings = engine_settings(profile.stage2.using("guided"))
    assert isinstance(settings, GuidanceSettings)
    return settings


def confirmation_arms(profile: Profile) -> tuple[Arm, ...]:
    """Return the arms of the confirmation, with the settings of the profile.

    The best-of-N control draws as many images of stage 1 as the U-Net evaluations of
    `fast` pay for, and keeps the one that `fast` would keep.
    """
    study, layers = profile.study, profile.stage2.fast.layers
    n_iter = study.n_iter_paper
    paper = _loop(profile, "paper", n_iter=n_iter)
    paper_tuned = _loop(profile, "paper", n_iter=n_iter, step=study.step_tuned)
    released = _loop(profile, "released", n_iter=n_iter)
    fast = _loop(profile, "fast")
    cost = preset_work(profile, "fast").counts.unet_forwards
    stage1 = stage1_work(profile.stage1).counts.unet_forwards
    n_draws = max(2, round(cost / stage1))
    draws = f"best of {n_draws} draws"
    arms = [
        Arm("none", "stage 1 alone", None),
        Arm("best_of_n", draws, None, layers=layers, n_draws=n_draws),
        Arm("paper", "Algorithm 1 as published", paper),
        Arm("paper_tuned", "Algorithm 1, step size tuned", paper_tuned),
        Arm("released", "the released code's loop", released),
        Arm("fast", "fast", fast, layers=layers),
        Arm("fast_z", "fast, z alone", replace(fast, lr_c=0.0), layers=layers),
    ]
    ours: tuple[tuple[str, str, EngineSettings], ...] = (
        ("fast", "fast", fast),
        ("guided", "guided sampling", _guided(profile)),
    )
    for name, words, settings in ours:
        if name != "fast":
            arms.append(Arm(name, words, settings, layers=layers))
        shuffled, true = f"{name}, another brain", f"{name}, true features"
        arms.append(Arm(f"{name}_shuffled", shuffled, settings, "shuffled", layers))
        arms.append(Arm(f"{name}_true", true, settings, "true", layers))
    return tuple(arms)


def pilot_arms(profile: Profile) -> tuple[Arm, ...]:
    """Return the variants of the pilot: one thing changed at a time, then together.

    Around the profile's `fast`: solver, steps and guidance of the surrogate, a single
    prediction of the clean image, what moves and how fast, the anchor, the stop, the
    blocks in the loss. Around `guided`: form, strength, number of pulls, range.
    Algorithm 1 with several step sizes finds the one for `paper_tuned`. What repeats
    another arm under a new name is left out.
    """
    layers = profile.stage2.fast.layers
    fast = _loop(profile, "fast")
    guided = _guided(profile)
    paper = _loop(profile, "paper", n_iter=profile.study.n_iter_pilot)
    w = profile.stage1.guidance_scale
    all_guided = {"guidance_scale": w, "guided_share": 1.0}
    loops: dict[str, dict[str, Any]] = {
        "fast": {},
        "fast, no guidance": {"guidance_scale": 1.0},
        "fast, guidance": all_guided,
        "fast, guidance in half": {"guidance_scale": w, "guided_share": 0.5},
        "fast, dpmpp_2m": {"solver": "dpmpp_2m"},
        "fast, dpmpp_2m, guidance": {"solver": "dpmpp_2m", **all_guided},
        "fast, dpmpp_2s, guidance": {"solver": "dpmpp_2s", **all_guided},
        "fast, 2 steps": {"n_steps": 2},
        "fast, 1 step (x0)": {"n_steps": 1},
        "fast, all steps": {"n_steps": None, **all_guided},
        "fast, z alone": {"lr_c": 0.0},
        "fast, c alone": {"lr_z": 0.0},
        "fast, no anchor": {"anchor_c": 0.0},
        "fast, half step sizes": {"lr_z": fast.lr_z / 2, "lr_c": fast.lr_c / 2},
        "fast, double step sizes": {"lr_z": fast.lr_z * 2, "lr_c": fast.lr_c * 2},
        "fast, half the iterations": {"n_iter": fast.n_iter // 2},
        "fast, discrepancy stop": {"stop_level": 1.0},
    }
    other = "clean" if guided.form == "unet" else "unet"
    pulls: dict[str, dict[str, Any]] = {
        "guided": {},
        "guided, half strength": {"strength": guided.strength / 2},
        "guided, double strength": {"strength": guided.strength * 2},
        "guided, 3 pulls": {"form": "clean", "n_inner": 3},
        "guided, first half": {"last": 0.5},
        "guided, second half": {"first": 0.5},
        f"guided, form {other}": {"form": other, "n_inner": 1},
    }
    arms = [Arm("none", "stage 1 alone", None)]
    arms += [Arm(n, n, replace(fast, **c), layers=layers) for n, c in loops.items()]
    arms.append(Arm("fast, all blocks", "fast, all blocks", fast))
    arms += [Arm(n, n, replace(guided, **c), layers=layers) for n, c in pulls.items()]
    arms.append(Arm("guided, all blocks", "guided, all blocks", guided))
    for eta in (0.01, 0.001, 0.0001, 0.00001):
        settings = replace(paper, lr_z=eta, lr_c=eta)
        arms.append(Arm(f"paper, step {eta:g}", "Algorithm 1", settings))
    distinct: dict[str, Arm] = {}
    for arm in arms:
        distinct.setdefault(repr(replace(arm, name="", words="")), arm)
    return tuple(distinct.values())


# --- the images of an arm -------------------------------------------------------------


def decoded_path(run: Run, part: Part) -> Path:
    """Return the file of decoded features that a part of the study starts from."""
    return run.tree.derived(subject_of(run)) / _DECODED[part]


def read_features(
    run: Run, backbone: Backbone, part: Part, source: Source
) -> DecodedFeatures:
    """Return the features of the images that a part of the study makes."""
    study, layers = run.profile.study, run.profile.features.clip_layers
    n = study.n_images_pilot if part == "pilot" else study.n_images
    path = decoded_path(run, part)
    return read_decoded(path, backbone, layers, n=n, source=source)


def images_of(
    run: Run, backbone: Backbone, part: Part, arm: Arm
) -> dict[str, npt.NDArray[Any]]:
    """Return what an arm made, batch by batch, from an earlier run's file if whole."""
    features = read_features(run, backbone, part, arm.source)
    words = f"{arm!r} {run.profile.stage1!r}"
    parts = []
    for rows in run.batches(len(features.nsd_id)):
        batch = features.rows(rows)
        checkpoint = checkpoint_of(
            run, batch.nsd_id.tolist(), make, settings=words, tensors=batch.tensors
        )
        given = (run, backbone, batch, arm)
        parts.append(checkpoint.made_once(partial(make, *given, states=checkpoint)))
    made = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    lost = sorted({*features.nsd_id.tolist()} - {*made["nsd_id"].tolist()})
    if lost:
        LOG.warning(
            "subject %d, %s: the U-Net in %s gave no number for the images %s, which"
            " are left out; to have them, set models.dtype to float32",
            *(run.subject, arm.name, run.profile.models.dtype, lost),
        )
    return made


def make(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    arm: Arm,
    *,
    states: States | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Return images and cost of one arm for one batch; `states` as in `align_batch`.

    Images without a number (`finished_images`) are left out.
    """
    began, n = time.perf_counter(), len(features.nsd_id)
    if arm.layers is not None:
        features = features.with_layers(arm.layers)
    if arm.settings is None:
        images, n_evaluations = best_of(run, backbone, features, arm.n_draws)
        none = np.zeros(n, np.int64)
        made: dict[str, npt.NDArray[Any]] = {
            "n_unet_evaluations": np.full(n, n_evaluations),
            "n_unet_gradients": none,
            "steps": none,
            "diverged": none > 0,
        }
    else:
        result = align_batch(run, backbone, features, arm.settings, states=states)
        images = result.images
        made = {
            "n_unet_evaluations": result.n_unet_evaluations,
            "n_unet_gradients": result.n_unet_gradients,
            "steps": result.stopped,
            "diverged": result.diverged,
        }
    seconds = np.full(n, (time.perf_counter() - began) / n)
    kept, finished = finished_images(backbone, images, features.nsd_id.tolist())
    made |= {"nsd_id": features.nsd_id, "images": kept, "seconds": seconds}
    return {key: values[finished] for key, values in made.items()}


def best_of(
    run: Run, backbone: Backbone, features: DecodedFeatures, n_draws: int
) -> tuple[Tensor, int]:
    """Return the stage-1 images of the lowest loss among `n_draws`, and their cost.

    The draws go on in each image's own stream: more of them change no earlier one. The
    cost is in U-Net evaluations of each image.
    """
    schedule = make_schedule(backbone, run.profile.stage1)
    generators = noise_generators(run, features.nsd_id.tolist())
    best: Tensor | None = None
    lowest = torch.full((len(features.nsd_id),), torch.inf)
    for _ in range(n_draws):
        noise = draw_noise(backbone, generators)
        images = sample(backbone, features.z, features.c, noise, schedule)
        loss = balanced_loss(backbone, images, features.target)
        best = images if best is None else best
        better = (loss < lowest) | lowest.isinf()  # a draw may have no number
        chosen = better.to(images.device)[:, None, None, None]
        best = torch.where(chosen, images, best)
        lowest = torch.where(loss < lowest, loss, lowest)
    assert best is not None
    return best, n_draws * schedule.n_unet_evaluations


@torch.no_grad()
def balanced_loss(
    backbone: Backbone, images: Tensor, target: StructuralTarget
) -> Tensor:
    """Return the balanced structural loss of images (n, 3, S, S), (n,)."""
    features = backbone.clip_layers(images, target.layers)
    return structural_loss(features, target, layer_weights(target, "balanced")).cpu()
