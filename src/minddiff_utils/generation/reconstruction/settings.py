"""Which sampler and which engine a profile asks for.

Place in the flow: part of `reconstruction`.
"""

from dataclasses import replace
from typing import Literal

from minddiff_utils.core.config import Stage1Config, Stage2Config
from minddiff_utils.generation.alignment import AlignmentSettings, preset
from minddiff_utils.generation.diffusion import DiffusionSettings
from minddiff_utils.generation.guidance import (
    CombinedSettings,
    GuidanceSettings,
    combined_preset,
    guidance_preset,
)

__all__ = [
    "Stage2Settings",
    "diffusion_settings",
    "from_noise",
    "paper_config",
    "stage2_settings",
    "with_preset",
]

#: What tells which engine of stage 2 runs, and how.
Stage2Settings = AlignmentSettings | GuidanceSettings | CombinedSettings


def diffusion_settings(config: Stage1Config) -> DiffusionSettings:
    """Return the sampler's settings of a profile."""
    return DiffusionSettings(
        n_steps=config.n_steps,
        encode_index=config.encode_index,
        decode_steps=config.decode_steps,
        guidance_scale=config.guidance_scale,
    )


def from_noise(settings: DiffusionSettings) -> DiffusionSettings:
    """Return the settings that begin at the highest level and take all steps."""
    n_steps = settings.n_steps
    return replace(settings, encode_index=n_steps - 1, decode_steps=n_steps)


def paper_config(config: Stage2Config) -> Stage2Config:
    """Return the `stage2` part under which the paper's own preset runs."""
    return config.model_copy(update={"preset": "paper", "n_iter": config.n_iter_paper})


def with_preset(
    config: Stage2Config, name: Literal["guided", "combined"]
) -> Stage2Config:
    """Return the `stage2` part under which another engine of ours runs."""
    return config.model_copy(update={"preset": name})


def stage2_settings(config: Stage2Config) -> Stage2Settings:
    """Return the settings of the engine that `config.preset` names."""
    if config.preset == "combined":
        return combined_preset(config)
    if config.preset == "guided":
        return guidance_preset(config)
    return preset(config)
