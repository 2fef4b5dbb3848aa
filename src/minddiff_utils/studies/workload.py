"""What notebooks 03 and 04 will run, condition by condition, before they run.

The same conditions on as many images with the same settings as in the notebooks, which
a test holds it to; what one image costs is `cost`'s. At most: an image that stops by
itself takes fewer, and images that two conditions share are made once. The check that
no iteration changes nothing, on one batch, is left out. Place in the flow: layer 9,
`minddiff plan`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from minddiff_utils.core.config import Profile, Stage2Config
from minddiff_utils.generation.ablation import (
    iteration_name,
    k_name,
    layers_name,
    shorter,
)
from minddiff_utils.generation.diffusion import DiffusionSettings, make_schedule
from minddiff_utils.generation.reconstruction import (
    default_memory,
    diffusion_settings,
    from_noise,
    paper_config,
    stage2_settings,
    with_memory,
    with_preset,
)
from minddiff_utils.generation.rivals import image_to_image
from minddiff_utils.models import tiny_backbone
from minddiff_utils.studies.cost import Counts, Work, settings_work

__all__ = ["Condition", "conditions"]


@dataclass(frozen=True)
class Condition:
    """A row of the tables: on how many images of a subject, at what cost of each."""

    name: str
    n_images: int
    work: Work

    @property
    def counts(self) -> Counts:
        """Return the counts of all its images."""
        return self.work.total * self.n_images


def conditions(profile: Profile, n_images: int) -> list[Condition]:
    """Return all conditions of notebooks 03 and 04 for `n_images` of one subject."""
    return [*_stage1(profile, n_images), *_stage2(profile, n_images)]


def _sampled(settings: DiffusionSettings | None) -> Work:
    """Return a stage 1 of one image; None: z through the autoencoder alone."""
    n = 0
    if settings is not None:
        n = make_schedule(tiny_backbone(), settings).n_unet_evaluations
    return Work(Counts(), Counts(unet_forwards=n, decode_forwards=1), "store", 0)


def _stage1(profile: Profile, n: int) -> Iterator[Condition]:
    full = diffusion_settings(profile.stage1)
    takagi = image_to_image(full, profile.rivals.strength_takagi)
    few = min(n, profile.ablation.n_images)
    for name, sampler, n_own in (
        ("stage1", full, n),
        ("z_only", None, n),
        ("c_only", from_noise(full), n),
        ("true_features", full, n),
        ("shuffled", full, n),
        ("takagi", takagi, n),
        ("takagi_minddiffuser", full, n),
        ("permuted_voxels", full, n),
        ("none", from_noise(full), few),
        ("z_null", full, few),
    ):
        yield Condition(name, n_own, _sampled(sampler))


def _stage2(profile: Profile, n: int) -> Iterator[Condition]:
    config, full = profile.stage2, diffusion_settings(profile.stage1)
    guided = with_preset(config, "guided")
    few = min(n, config.n_images_controls or n)
    rival = image_to_image(full, profile.rivals.strength_brain_diffuser)
    for name, own, sampler, n_own in (
        ("stage2", config, full, n),
        ("stage2_guided", guided, full, n),
        ("stage2_combined", with_preset(config, "combined"), full, few),
        ("stage2_true", config, full, few),
        ("stage2_shuffled", config, full, few),
        ("stage2_paper", paper_config(config), full, min(n, config.n_images_paper)),
        ("brain_diffuser_style", guided, rival, n),
        *_ablation(profile, n),
    ):
        yield Condition(name, n_own, _aligned(profile, own, sampler))


def _ablation(
    profile: Profile, n: int
) -> Iterator[tuple[str, Stage2Config, DiffusionSettings, int]]:
    wanted, config = profile.ablation, profile.stage2
    guided, full = with_preset(config, "guided"), diffusion_settings(profile.stage1)
    few = min(n, wanted.n_images)
    for name in ("clip_only", "c_clip"):
        yield name, guided, from_noise(full), few
    names = ["z_clip", *map(k_name, wanted.k_grid), *map(layers_name, wanted.layers)]
    for name in names:
        yield name, guided, full, few
    for n_iter in wanted.iterations:
        yield iteration_name(n_iter), shorter(config, n_iter), full, few


def _aligned(
    profile: Profile, config: Stage2Config, sampler: DiffusionSettings
) -> Work:
    settings = stage2_settings(config)
    memory = default_memory(settings, profile.models)
    schedule = make_schedule(tiny_backbone(), sampler)
    return settings_work(schedule, with_memory(settings, memory))
