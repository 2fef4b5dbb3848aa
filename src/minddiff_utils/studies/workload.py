"""What notebooks 03 and 04 will run, condition by condition, before they run.

The same conditions on as many images with the same settings as in the notebooks, which
a test holds it to; what one image costs is `cost`'s. At most: an image that stops by
itself takes fewer, and images that two conditions share are made once. The check that
no iteration changes nothing, on one batch, is left out.
"""

from dataclasses import dataclass, replace

from minddiff_utils.core.conditions import Condition, conditions_of, n_images_of
from minddiff_utils.core.config import Profile, Stage1Config, Stage2Config
from minddiff_utils.generation.device_memory import default_memory
from minddiff_utils.generation.presets import config_of, engine_settings, sampler_of
from minddiff_utils.generation.sampler import make_schedule
from minddiff_utils.models import tiny_backbone
from minddiff_utils.studies.cost import Counts, Work, settings_work

__all__ = ["Workload", "workloads"]


@dataclass(frozen=True)
class Workload:
    """One condition: on how many images of a subject, at what cost of each."""

    name: str
    n_images: int
    work: Work

    @property
    def counts(self) -> Counts:
        """Return the counts of all its images."""
        return self.work.total * self.n_images


def workloads(profile: Profile, n_images: int) -> list[Workload]:
    """Return what notebooks 03 and 04 make for `n_images` of one subject."""
    return [
        Workload(row.name, n_images_of(row, profile, n_images), _work(row, profile))
        for row in conditions_of(profile)
        if row.engine and not row.is_baseline
    ]


def _work(row: Condition, profile: Profile) -> Work:
    sampler = sampler_of(row, profile)
    if row.engine == "autoencoder":
        return _sampled(None)
    if row.engine == "sampler":
        return _sampled(sampler)
    return _aligned(profile, config_of(row, profile.stage2), sampler)


def _sampled(settings: Stage1Config | None) -> Work:
    """Return a stage 1 of one image; None: z through the autoencoder alone."""
    n = 0
    if settings is not None:
        n = make_schedule(tiny_backbone(), settings).n_unet_evaluations
    return Work(Counts(), Counts(unet_forwards=n, decode_forwards=1), "store", 0)


def _aligned(profile: Profile, config: Stage2Config, sampler: Stage1Config) -> Work:
    settings = engine_settings(config)
    memory = default_memory(settings, profile.models)
    schedule = make_schedule(tiny_backbone(), sampler)
    return settings_work(schedule, replace(settings, memory=memory))
