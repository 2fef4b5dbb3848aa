"""A small in-silico folder in NSD's layout for tests: noise for images, fast."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.profile import SimulationConfig
from minddiff_utils.insilico import image_features, nsd_writer

__all__ = ["copy_of", "noise", "simulate"]


def noise(nsd_ids: Sequence[int], image_size: int) -> nsd_writer.Glance:
    """Give noise for images and random percepts: never black, a function of the id."""
    draws = [np.random.default_rng(i) for i in nsd_ids]

    def drawn(*shape: int) -> npt.NDArray[np.float32]:
        return np.stack([d.standard_normal(shape, np.float32) for d in draws])

    side = (image_size, image_size, 3)
    pixels = [d.integers(1, 255, side, dtype=np.uint8) for d in draws]
    return nsd_writer.Glance(
        tuple(nsd_writer.zlib.compress(image.tobytes(), 1) for image in pixels),
        image_features.Percepts(drawn(28, 256), drawn(28, 49), drawn(64), drawn(14)),
    )


def simulate(root: Path, subjects: Sequence[int]) -> Path:
    """Write two sessions of each subject."""
    settings = SimulationConfig(n_sessions=2, n_test_images=30, image_size=8)
    nsd_writer.simulate(
        root, settings, tuple(subjects), 2308, n_workers=1, source=noise
    )
    return root


def copy_of(whole: Path, root: Path) -> Path:
    """Give a copy of links; what damages a file makes a new one in its place."""
    shutil.copytree(whole, root, copy_function=lambda a, b: Path(b).hardlink_to(a))
    return root
