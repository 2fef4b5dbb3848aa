"""Which sampler and which engine a profile, or one of its conditions, asks for."""

from dataclasses import replace
from typing import Literal

from minddiff_utils.core.conditions import Condition
from minddiff_utils.core.config import RivalConfig, Stage1Config, Stage2Config
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
    "config_of",
    "diffusion_settings",
    "from_noise",
    "image_to_image",
    "paper_config",
    "sampler_of",
    "shorter",
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


def image_to_image(config: DiffusionSettings, strength: float) -> DiffusionSettings:
    """Return the sampler that noises to `strength` of the grid and denoises all of it.

    The image is noised to the level from which it is denoised, as diffusers does.
    CompVis' `stochastic_encode(z, 40)`, which Takagi and Nishimoto call, takes grid
    index 40 and then denoises from 39: one level more noise than the U-Net is told.

    >>> image_to_image(DiffusionSettings(50, 37, 35, 5.0), 0.8)
    DiffusionSettings(n_steps=50, encode_index=39, decode_steps=40, guidance_scale=5.0)
    """
    steps = max(1, int(strength * config.n_steps))
    return replace(config, encode_index=steps - 1, decode_steps=steps)


def sampler_of(
    row: Condition, diffusion: DiffusionSettings, rivals: RivalConfig
) -> DiffusionSettings:
    """Return a condition's sampler: stage 1's, or that from its own level of noise."""
    if row.z is None:
        return from_noise(diffusion)
    if row.strength == "takagi":
        return image_to_image(diffusion, rivals.strength_takagi)
    if row.strength == "brain_diffuser":
        return image_to_image(diffusion, rivals.strength_brain_diffuser)
    return diffusion


def paper_config(config: Stage2Config) -> Stage2Config:
    """Return the `stage2` part under which the paper's own preset runs."""
    return config.model_copy(update={"preset": "paper", "n_iter": config.n_iter_paper})


def with_preset(
    config: Stage2Config, name: Literal["guided", "combined"]
) -> Stage2Config:
    """Return the `stage2` part under which another engine of ours runs."""
    return config.model_copy(update={"preset": name})


def shorter(config: Stage2Config, n_iter: int) -> Stage2Config:
    """Return the loop with `n_iter` iterations, of which the last image counts."""
    fewer = {"n_iter": n_iter, "n_iter_fast": None, "n_candidates": 2}
    return config.model_copy(update={**fewer, "n_candidates_fast": None})


def config_of(row: Condition, config: Stage2Config) -> Stage2Config:
    """Return the `stage2` part under which a condition's engine runs."""
    if row.engine == "paper":
        return paper_config(config)
    if row.engine in ("guided", "combined"):
        config = with_preset(config, row.engine)
    if row.layers is not None:
        config = config.model_copy(update={"layers_fast": row.layers})
    return config if row.n_iter is None else shorter(config, row.n_iter)


def stage2_settings(config: Stage2Config) -> Stage2Settings:
    """Return the settings of the engine that `config.preset` names."""
    if config.preset == "combined":
        return combined_preset(config)
    if config.preset == "guided":
        return guidance_preset(config)
    return preset(config)
