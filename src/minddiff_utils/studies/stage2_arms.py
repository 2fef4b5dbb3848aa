"""What the study of stage 2 compares: its arms, as conditions.

An arm is a row like those of `core.conditions`: an engine with its settings, and the
features that it starts from. `generation` makes its images as it makes all others, in
the same cache.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from minddiff_utils.core.conditions import Condition, Engine, Source
from minddiff_utils.core.profile import OUR_PRESETS, Profile
from minddiff_utils.generation.presets import (
    AlignmentSettings,
    GuidanceSettings,
    layers_of,
    sampler_of,
    settings_of,
)
from minddiff_utils.studies.cost import work_of

__all__ = ["ENGINES", "Part", "arms_of"]

#: Variants on validation images; the arms on test images; ours on held-out categories.
Part = Literal["pilot", "confirmation", "heldout"]
#: Arms that a figure names; the others are controls.
ENGINES: Mapping[str, str] = {
    "stage1": "stage 1 alone",
    "best_of_n": "best of N draws",
    "paper": "Algorithm 1",
    "paper_tuned": "Algorithm 1, step tuned",
    "released": "released code",
    "fast": "fast",
    "guided": "guided",
    "bayes": "bayes",
}
_STAGE1 = Condition("stage1", ENGINES["stage1"], "method", "decoded", "decoded")
_STAGE1 = replace(_STAGE1, engine="sampler")
_POSTERIOR = replace(_STAGE1, name="posterior", label="posterior c", c="posterior")


def _arm(
    name: str, engine: Engine, source: Source = "decoded", **more: Any
) -> Condition:
    """Return an arm whose c, z and Z_CLIP come from one source."""
    more.setdefault("label", ENGINES.get(name, name))
    three = dict.fromkeys(("c", "z", "clip"), source)
    return Condition(name, kind="method", engine=engine, **three, **more)


def arms_of(profile: Profile, part: Part) -> tuple[Condition, ...]:
    """Return the arms of one part of the study."""
    if part == "heldout":
        ours = [_arm(name, name) for name in OUR_PRESETS]
        return (_STAGE1, _POSTERIOR, *ours)
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
    for name in OUR_PRESETS:
        shuffled, true = f"{name}, another brain", f"{name}, true features"
        arms.append(_arm(name, name))
        arms.append(_arm(f"{name}_shuffled", name, "shuffled", label=shuffled))
        arms.append(_arm(f"{name}_true", name, "true", label=true))
    return tuple(arms)


def _pilot(profile: Profile) -> tuple[Condition, ...]:
    """Return the variants of the pilot: one thing changed at a time.

    Around the profile's `fast`: what moves and how fast, the loss, the blocks in it.
    Around `guided`: form, strength, loss, branches of its gradient, blocks; around
    `bayes`: `_around_bayes`. Algorithm 1 with several step sizes finds the one for
    `paper_tuned`. What repeats another arm under a new name is left out.
    """
    fast = settings_of(_arm("fast", "fast"), profile)
    guided = settings_of(_arm("guided", "guided"), profile)
    assert isinstance(fast, AlignmentSettings)
    assert isinstance(guided, GuidanceSettings)
    loops: dict[str, dict[str, Any]] = {
        "fast": {},
        "fast, z alone": {"lr_c": 0.0},
        "fast, c alone": {"lr_z": 0.0},
        "fast, no anchor": {"anchor_c": 0.0},
        "fast, half step sizes": {"lr_z": fast.lr_z / 2, "lr_c": fast.lr_c / 2},
        "fast, double step sizes": {"lr_z": fast.lr_z * 2, "lr_c": fast.lr_c * 2},
        "fast, all steps": {"n_steps": None, "guided_share": 1.0},
    }
    losses = ("balanced", "cosine", "likelihood")
    loops |= {f"fast, {loss}": {"loss": loss} for loss in losses}
    other = "clean" if guided.form == "unet" else "unet"
    pulls: dict[str, dict[str, Any]] = {
        "guided": {},
        "guided, half strength": {"strength": guided.strength / 2},
        "guided, double strength": {"strength": guided.strength * 2},
        f"guided, form {other}": {"form": other},
        "guided, both branches": {"gradient": "both"},
        "guided, conditional branch": {"gradient": "conditional"},
    }
    pulls |= {f"guided, {loss}": {"loss": loss} for loss in losses}
    every: dict[str, Any] = {"layers": profile.features.clip_layers}
    arms = [
        *(_arm(name, "fast", settings=change) for name, change in loops.items()),
        _arm("fast, all blocks", "fast", **every),
        *(_arm(name, "guided", settings=change) for name, change in pulls.items()),
        _arm("guided, all blocks", "guided", **every),
        *_around_bayes(profile),
    ]
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


def _around_bayes(profile: Profile) -> list[Condition]:
    """Return variants of the profile's `bayes`, and what needs no gradient.

    One thing changed at a time: what c it starts from, the noise on z, loss, strength,
    range, blocks.
    """
    bayes = _arm("bayes", "bayes")
    settings, sampler = settings_of(bayes, profile), sampler_of(bayes, profile)
    assert isinstance(settings, GuidanceSettings)
    index, n_steps = sampler.encode_index, sampler.n_steps
    noise = {
        "stage 1's noise": profile.stage1.model_dump(),
        "less noise": {"encode_index": index - 1, "decode_steps": index},
        "more noise": {
            "encode_index": min(index + 1, n_steps - 1),
            "decode_steps": min(index + 2, n_steps),
        },
    }
    pulls: dict[str, dict[str, Any]] = {
        "half strength": {"strength": settings.strength / 2},
        "double strength": {"strength": settings.strength * 2},
        "balanced": {"loss": "balanced"},
        "likelihood": {"loss": "likelihood"},
        "both branches": {"gradient": "both"},
        "first half": {"last": 0.5},
        "second half": {"first": 0.5},
    }
    every = profile.features.clip_layers
    layers = {"blocks 1, 2": every[:2], "blocks 1 to 4": every[:4]}
    decoded: dict[str, Any] = {
        "settings": {k: v for k, v in vars(settings).items() if k != "memory"},
        "sampler": sampler.model_dump(),
        "layers": layers_of(bayes, profile),
    }
    return [
        bayes,
        _POSTERIOR,
        _arm("bayes, decoded c", "guided", **decoded),
        *(_arm(f"bayes, {k}", "bayes", sampler=v) for k, v in noise.items()),
        *(_arm(f"bayes, {k}", "bayes", settings=v) for k, v in pulls.items()),
        *(_arm(f"bayes, {k}", "bayes", layers=v) for k, v in layers.items()),
        *(
            _arm(f"best of 10, {k}", "sampler", n_draws=10, settings={"loss": k})
            for k in ("cosine", "likelihood")
        ),
    ]
