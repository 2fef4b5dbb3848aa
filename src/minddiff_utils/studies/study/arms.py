"""The arms of the study: which engines, with which settings, from which features.

Nothing is run here. Place in the flow: the lowest module of `study`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from minddiff_utils.core.config import Profile
from minddiff_utils.generation.decoded_features import Source
from minddiff_utils.generation.presets import (
    AlignmentSettings,
    EngineSettings,
    GuidanceSettings,
    engine_settings,
)
from minddiff_utils.studies.cost import preset_work

__all__ = ["SHOWN", "Arm", "Part", "arms_of", "confirmation_arms", "pilot_arms"]

#: Variants on validation images, or the arms on test images.
Part = Literal["pilot", "confirmation"]
#: Arms that a figure names; the others are controls.
SHOWN: Mapping[str, str] = {
    "none": "stage 1 alone",
    "best_of_n": "best of N draws",
    "paper": "Algorithm 1",
    "paper_tuned": "Algorithm 1, step tuned",
    "released": "released code",
    "fast": "fast",
    "guided": "guided",
}


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


def _presets(profile: Profile) -> dict[str, EngineSettings]:
    config, study = profile.stage2, profile.study

    def of(name: str, n_iter: int, **more: Any) -> EngineSettings:
        update = {"preset": name, "n_iter": n_iter, **more}
        return engine_settings(config.model_copy(update=update))

    return {
        "paper": of("paper", study.n_iter_paper),
        "paper_tuned": of("paper", study.n_iter_paper, step_paper=study.step_tuned),
        "released": of("released", study.n_iter_paper),
        "fast": of("fast", config.n_iter),
        "guided": of("guided", config.n_iter),
    }


def confirmation_arms(profile: Profile) -> tuple[Arm, ...]:
    """Return the arms of the confirmation, with the settings of the profile.

    The best-of-N control draws as many images of stage 1 as the U-Net evaluations of
    `fast` pay for, and keeps the one that `fast` would keep.
    """
    found, ours = _presets(profile), profile.stage2.layers_fast
    fast, guided = found["fast"], found["guided"]
    assert isinstance(fast, AlignmentSettings)
    z_only = replace(fast, lr_c=0.0)
    cost = preset_work(profile, "fast", "store").total.unet_forwards
    stage1 = preset_work(profile, "guided", "store").finishing.unet_forwards
    n_draws = max(2, round(cost / stage1))
    return (
        Arm("none", "stage 1 alone", None),
        Arm(
            "best_of_n", f"best of {n_draws} draws", None, layers=ours, n_draws=n_draws
        ),
        Arm("paper", "Algorithm 1 as published", found["paper"]),
        Arm("paper_tuned", "Algorithm 1, step size tuned", found["paper_tuned"]),
        Arm("released", "the released code's loop", found["released"]),
        Arm("fast", "fast", fast, layers=ours),
        Arm("fast_z", "fast, z alone", z_only, layers=ours),
        Arm("fast_shuffled", "fast, another brain", fast, "shuffled", ours),
        Arm("fast_true", "fast, true features", fast, "true", ours),
        Arm("guided", "guided sampling", guided, layers=ours),
        Arm("guided_shuffled", "guided, another brain", guided, "shuffled", ours),
        Arm("guided_true", "guided, true features", guided, "true", ours),
    )


def pilot_arms(profile: Profile) -> tuple[Arm, ...]:
    """Return the variants of the pilot: one thing changed at a time, then together.

    Around the profile's `fast`: solver, steps and guidance of the surrogate, its
    a single x0-prediction, what moves and how fast, the anchor, the stop, the blocks
    in the loss. Around `guided`: form, strength, number of
    pulls, range. Algorithm 1 with several step sizes finds the one for `paper_tuned`.
    """
    found, ours = _presets(profile), profile.stage2.layers_fast
    base, steer, paper = found["fast"], found["guided"], found["paper"]
    assert isinstance(base, AlignmentSettings)
    assert isinstance(paper, AlignmentSettings)
    assert isinstance(steer, GuidanceSettings)
    w = profile.stage1.guidance_scale
    all_guided = {"guidance_scale": w, "guided_share": 1.0}
    short = replace(paper, n_iter=profile.study.n_iter_pilot)
    fast: dict[str, dict[str, Any]] = {
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
        "fast, half step sizes": {"lr_z": base.lr_z / 2, "lr_c": base.lr_c / 2},
        "fast, double step sizes": {"lr_z": base.lr_z * 2, "lr_c": base.lr_c * 2},
        "fast, half the iterations": {"n_iter": base.n_iter // 2},
        "fast, discrepancy stop": {"stop_level": 1.0},
    }
    other = "clean" if steer.form == "unet" else "unet"
    pull: dict[str, dict[str, Any]] = {
        "guided": {},
        "guided, half strength": {"strength": steer.strength / 2},
        "guided, double strength": {"strength": steer.strength * 2},
        "guided, 3 pulls": {"form": "clean", "n_inner": 3},
        "guided, first half": {"last": 0.5},
        "guided, second half": {"first": 0.5},
        f"guided, form {other}": {"form": other, "n_inner": 1},
    }
    steps = (0.01, 0.001, 0.0001, 0.00001)
    arms = (
        Arm("none", "stage 1 alone", None),
        *[
            Arm(n, n, replace(base, **change), layers=ours)
            for n, change in fast.items()
        ],
        Arm("fast, all blocks", "fast, all blocks", base),
        *[
            Arm(n, n, replace(steer, **change), layers=ours)
            for n, change in pull.items()
        ],
        Arm("guided, all blocks", "guided, all blocks", steer),
        *[
            Arm(
                f"paper, step {eta:g}",
                "Algorithm 1",
                replace(short, lr_z=eta, lr_c=eta),
            )
            for eta in steps
        ],
    )
    return _distinct(arms)


def _distinct(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """Return the arms without those that repeat another under a new name."""
    known: dict[str, Arm] = {}
    for arm in arms:
        known.setdefault(repr(replace(arm, name="", words="")), arm)
    return tuple(known.values())


def arms_of(profile: Profile, part: Part) -> tuple[Arm, ...]:
    """Return the arms of one part of the study."""
    return pilot_arms(profile) if part == "pilot" else confirmation_arms(profile)
