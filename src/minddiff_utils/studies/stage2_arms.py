"""What the study of stage 2 compares: its arms, as conditions.

An arm is a row like those of `core.conditions`: an engine with its settings, and the
features that it starts from. `generation` makes its images as it makes all others, in
the same cache.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from minddiff_utils.core.condition import Condition, Engine, Source
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.profile import Profile
from minddiff_utils.generation.presets import (
    PAPER_STEP,
    RELEASED_DECAY,
    GuidanceSettings,
    layers_of,
    sampler_of,
    settings_of,
)

__all__ = ["ENGINES", "Part", "arms_of"]

#: Variants on validation images; the arms on test images; ours on held-out categories;
#: the paper's text and the released code, one difference at a time.
Part = Literal["pilot", "confirmation", "heldout", "discrepancies"]
#: Arms that a figure names; the others are controls.
ENGINES: Mapping[str, str] = {
    "stage1": "stage 1 alone",
    "best_of_n": "best of N draws",
    "paper": "Algorithm 1",
    "paper_tuned": "Algorithm 1, step tuned",
    "released": "released code",
    "bayes": "bayes",
}
#: Draws of the controls without a gradient, as many as in the ledger's.
_N_DRAWS = by_name()["stage1_best"].n_draws


def _arm(
    name: str, engine: Engine, source: Source = "decoded", **more: Any
) -> Condition:
    """Return an arm whose features come from one source; `bayes` has c of its own."""
    features: dict[str, Any] = dict.fromkeys(("c", "z", "clip"), source)
    if engine == "bayes" and source == "decoded":
        features["c"] = "posterior"
    label = ENGINES.get(name, name)
    given = {"label": label, "kind": "method", "engine": engine, **features, **more}
    return Condition(name, **given)


_STAGE1 = _arm("stage1", "sampler", clip=None)
_POSTERIOR = replace(_STAGE1, name="posterior", label="posterior c", c="posterior")
_BAYES = _arm("bayes", "bayes")


def arms_of(profile: Profile, part: Part) -> tuple[Condition, ...]:
    """Return the arms of one part of the study."""
    if part == "heldout":
        return (_STAGE1, _POSTERIOR, _BAYES)
    if part == "discrepancies":
        return (*_loops(profile), *_samplers(), *_decoders())
    return _pilot(profile) if part == "pilot" else _confirmation(profile)


def _best_of_n(name: str, loss: str, **more: Any) -> Condition:
    """Return the best of several draws of stage 1 by some loss: no gradient."""
    return _arm(name, "sampler", n_draws=_N_DRAWS, settings={"loss": loss}, **more)


def _confirmation(profile: Profile) -> tuple[Condition, ...]:
    """Return the arms of the confirmation, with the settings of the profile.

    The best-of-N control keeps the draw of stage 1 that `bayes` would keep, by the
    cosine.
    """
    study = profile.study
    long = {"n_iter": study.n_iter_paper}
    tuned = long | dict.fromkeys(("lr_z", "lr_c"), study.step_tuned)
    return (
        _STAGE1,
        _best_of_n("best_of_n", "cosine", label=f"best of {_N_DRAWS} draws"),
        _arm("paper", "paper", settings=long),
        _arm("paper_tuned", "paper", settings=tuned),
        _arm("released", "released", settings=long),
        _BAYES,
        _arm("bayes_shuffled", "bayes", "shuffled", label="bayes, another brain"),
        _arm("bayes_true", "bayes", "true", label="bayes, true features"),
    )


def _pilot(profile: Profile) -> tuple[Condition, ...]:
    """Return the variants of the pilot: one thing changed at a time.

    `_around_bayes`, and Algorithm 1 with several step sizes, which find the one for
    `paper_tuned`, unless they are to have no iteration. What repeats another arm under
    a new name is left out.
    """
    arms = _around_bayes(profile)
    for eta in (0.01, 0.001, 0.0001, 0.00001) if profile.study.n_iter_pilot else ():
        steps = {"n_iter": profile.study.n_iter_pilot, "lr_z": eta, "lr_c": eta}
        label, name = "Algorithm 1", f"paper, step {eta:g}"
        arms.append(_arm(name, "paper", settings=steps, label=label))
    distinct: dict[object, Condition] = {}
    for arm in arms:
        start = arm.engine, arm.c, arm.clip, arm.n_draws, sampler_of(arm, profile)
        key = (*start, settings_of(arm, profile), layers_of(arm, profile))
        distinct.setdefault(key, arm)
    return (_STAGE1, *distinct.values())


def _around_bayes(profile: Profile) -> list[Condition]:
    """Return variants of the profile's `bayes`, and what needs no gradient.

    One thing changed at a time: what c it starts from, the noise on z, the guidance,
    loss, strength, range, blocks.
    """
    settings, sampler = settings_of(_BAYES, profile), sampler_of(_BAYES, profile)
    assert isinstance(settings, GuidanceSettings)
    index, n_steps = sampler.encode_index, sampler.n_steps
    samplers = {
        "stage 1's noise": profile.stage1.model_dump(),
        "less noise": {"encode_index": index - 1, "decode_steps": index},
        "more noise": {
            "encode_index": min(index + 1, n_steps - 1),
            "decode_steps": min(index + 2, n_steps),
        },
        **{f"guidance {w:g}": {"guidance_scale": w} for w in (5.0, 7.0)},
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
    own = sampler.model_dump()  # decoded c alone would bring stage 1's
    return [
        _BAYES,
        _POSTERIOR,
        _arm("bayes, decoded c", "bayes", c="decoded", sampler=own),
        *(_arm(f"bayes, {k}", "bayes", sampler=v) for k, v in samplers.items()),
        *(_arm(f"bayes, {k}", "bayes", settings=v) for k, v in pulls.items()),
        *(_arm(f"bayes, {k}", "bayes", layers=v) for k, v in layers.items()),
        *(_best_of_n(f"best of {_N_DRAWS}, {k}", k) for k in ("cosine", "likelihood")),
    ]


# --- paper and released code, one difference at a time --------------------------------


def _loops(profile: Profile) -> Iterator[Condition]:
    """Yield Algorithm 1, its step tuned, and one difference of the code's loop each.

    With the paper's k, and the iterations of the pilot; none where these are 0.
    """
    n_iter, step = profile.study.n_iter_pilot, profile.study.step_tuned
    if not n_iter:
        return
    base: dict[str, Any] = {"n_iter": n_iter, "lr_z": step, "lr_c": step}
    adam = {"optimiser": "adam", "lr_decay": RELEASED_DECAY}
    changes: dict[str, dict[str, Any]] = {
        "loop": {},
        "c_stays": {"lr_c": 0.0},
        "adam": adam | dict.fromkeys(("lr_z", "lr_c"), PAPER_STEP),
        "half": {"n_iter": max(1, n_iter // 2)},
        "layer_weights": {"loss": "released"},
        "imagenet": {},  # other features, and another network (`discrepancies`)
    }
    for name, change in changes.items():
        yield _arm(name, "paper", settings=base | change, k_percent=25.0)
    for k in (5.0, 80.0, 100.0):  # the code's default, and what brackets the paper's k
        yield _arm(f"k_{k:g}", "paper", settings=base, k_percent=k)
    whole = {"n_iter": n_iter}
    yield _arm("released_loop", "released", settings=whole, k_percent=25.0)


def _samplers() -> Iterator[Condition]:
    """Yield stage 1 by 50 steps: noised to a level, and denoised by some steps."""
    for encode_index, decode_steps in ((49, 50), (34, 35), (37, 35)):
        levels = {"encode_index": encode_index, "decode_steps": decode_steps}
        name = f"noised_to_{encode_index}"
        yield _arm(name, "sampler", clip=None, sampler={"n_steps": 50} | levels)


def _decoders() -> Iterator[Condition]:
    """Yield stage 1 from what other decoders say (`discrepancies`), and Takagi's."""
    for name in ("dense", "paper_decoder", "own_scaling", "scaled_on_all", "voxels"):
        yield _arm(name, "sampler", "own", clip=None)
    yield from (by_name()[name] for name in ("takagi", "takagi_minddiffuser"))
