"""What the study of stage 2 compares: its arms, as conditions.

An arm is a row like those of `core.conditions`: an engine with its settings, and the
features that it starts from. `generation` makes its images as it makes all others, in
the same cache.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from minddiff_utils.core.conditions import Condition, Engine, Source
from minddiff_utils.core.profile import Profile
from minddiff_utils.generation.presets import (
    AlignmentSettings,
    GuidanceSettings,
    layers_of,
    settings_of,
)
from minddiff_utils.studies.cost import work_of

__all__ = ["ENGINES", "OURS", "Part", "arms_of"]

#: Variants on validation images, or the arms on test images.
Part = Literal["pilot", "confirmation"]
#: Arms that a figure names; the others are controls.
ENGINES: Mapping[str, str] = {
    "stage1": "stage 1 alone",
    "best_of_n": "best of N draws",
    "paper": "Algorithm 1",
    "paper_tuned": "Algorithm 1, step tuned",
    "released": "released code",
    "fast": "fast",
    "guided": "guided",
}
#: The engines that the study is about.
OURS: tuple[Literal["fast", "guided"], ...] = ("fast", "guided")
_STAGE1 = Condition("stage1", ENGINES["stage1"], "method", "decoded", "decoded")
_STAGE1 = replace(_STAGE1, engine="sampler")


def _arm(
    name: str, engine: Engine, source: Source = "decoded", **more: Any
) -> Condition:
    """Return an arm whose c, z and Z_CLIP come from one source."""
    more.setdefault("label", ENGINES.get(name, name))
    three = dict.fromkeys(("c", "z", "clip"), source)
    return Condition(name, kind="method", engine=engine, **three, **more)


def arms_of(profile: Profile, part: Part) -> tuple[Condition, ...]:
    """Return the arms of one part of the study."""
    return _pilot(profile) if part == "pilot" else _confirmation(profile)


def _confirmation(profile: Profile) -> tuple[Condition, ...]:
    """Return the arms of the confirmation, with the settings of the profile.

    The best-of-N control draws as many images of stage 1 as the U-Net evaluations of
    `fast` pay for, and keeps the one that `fast` would keep.
    """
    study, layers = profile.study, profile.stage2.fast.layers
    fast, stage1 = (
        work_of(row, profile).counts.unet_forwards
        for row in (_arm("fast", "fast"), _STAGE1)
    )
    n_draws = max(2, round(fast / stage1))
    long = {"n_iter": study.n_iter_paper}
    tuned = long | dict.fromkeys(("lr_z", "lr_c"), study.step_tuned)
    best: dict[str, Any] = {
        "layers": layers,
        "n_draws": n_draws,
        "label": f"best of {n_draws} draws",
    }
    arms = [
        _STAGE1,
        _arm("best_of_n", "sampler", **best),
        _arm("paper", "paper", settings=long),
        _arm("paper_tuned", "paper", settings=tuned),
        _arm("released", "released", settings=long),
        _arm("fast_z", "fast", settings={"lr_c": 0.0}, label="fast, z alone"),
    ]
    for name in OURS:
        shuffled, true = f"{name}, another brain", f"{name}, true features"
        arms.append(_arm(name, name))
        arms.append(_arm(f"{name}_shuffled", name, "shuffled", label=shuffled))
        arms.append(_arm(f"{name}_true", name, "true", label=true))
    return tuple(arms)


def _pilot(profile: Profile) -> tuple[Condition, ...]:
    """Return the variants of the pilot: one thing changed at a time, then together.

    Around the profile's `fast`: solver, steps and guidance of the surrogate, a single
    prediction of the clean image, what moves and how fast, the anchor, the stop, the
    blocks in the loss. Around `guided`: form, strength, number of pulls, range, loss,
    branches of its gradient, and what it starts from. Algorithm 1 with several step
    sizes finds the one for `paper_tuned`. What repeats another arm under a new name is
    left out.
    """
    fast, guided = (settings_of(_arm(name, name), profile) for name in OURS)
    assert isinstance(fast, AlignmentSettings)
    assert isinstance(guided, GuidanceSettings)
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
        "fast, discrepancy stop": {"stop_level": 1.0, "loss": "balanced"},
        "fast, balanced": {"loss": "balanced"},
        "fast, cosine": {"loss": "cosine"},
        "fast, likelihood": {"loss": "likelihood"},
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
        "guided, balanced": {"loss": "balanced"},
        "guided, cosine": {"loss": "cosine"},
        "guided, likelihood": {"loss": "likelihood"},
        "guided, both branches": {"gradient": "both"},
        "guided, conditional branch": {"gradient": "conditional"},
    }
    every: dict[str, Any] = {"layers": profile.features.clip_layers}
    arms = [
        *(_arm(name, "fast", settings=change) for name, change in loops.items()),
        _arm("fast, all blocks", "fast", **every),
        *(_arm(name, "guided", settings=change) for name, change in pulls.items()),
        _arm("guided, all blocks", "guided", **every),
    ]
    arms += _from_the_posterior(profile, guided.strength)
    for eta in (0.01, 0.001, 0.0001, 0.00001):
        steps = {"n_iter": profile.study.n_iter_pilot, "lr_z": eta, "lr_c": eta}
        label, name = "Algorithm 1", f"paper, step {eta:g}"
        arms.append(_arm(name, "paper", settings=steps, label=label))
    distinct: dict[object, Condition] = {}
    for arm in arms:
        start = arm.engine, arm.c, arm.n_draws, *sorted(arm.sampler.items())
        key = (*start, settings_of(arm, profile), layers_of(arm, profile))
        distinct.setdefault(key, arm)
    return (_STAGE1, *distinct.values())


def _from_the_posterior(profile: Profile, strength: float) -> list[Condition]:
    """Return what starts from the posterior mean of c, and what the likelihood chooses.

    At stage 1's level of noise and at about half of it, on a grid twice as fine, from
    which as many steps are taken.
    """
    index, n_steps = profile.stage1.encode_index, profile.stage1.n_steps
    finer = {"n_steps": 2 * n_steps, "encode_index": index, "decode_steps": index + 1}
    likely: dict[str, Any] = {"loss": "likelihood"}
    best = _arm("best of 10, likelihood", "sampler", n_draws=10, settings=likely)
    arms = [best]
    for level, sampler in (("", {}), (", less noise", finer)):
        row = replace(_STAGE1, name=f"posterior{level}", c="posterior", sampler=sampler)
        arms.append(replace(row, label=row.name))
        for loss in ("cosine", "likelihood"):
            for factor in (0.5, 1, 2):
                settings: dict[str, Any] = {"loss": loss, "gradient": "conditional"}
                settings |= {"strength": factor * strength}
                settings |= {"form": "unet", "n_inner": 1}
                name = f"posterior, {loss}, strength x{factor:g}{level}"
                arm = _arm(name, "guided", settings=settings, sampler=sampler)
                arms.append(replace(arm, c="posterior"))
    return arms
