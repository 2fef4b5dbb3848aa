"""How long the decoders take at the real size, from a sample of their targets.

One session has too few images to tell: ridge on 8,000 images takes other solvers than
ridge on 200. So random responses of the real size are drawn, and some targets of each
kind are fitted. A fit forms the normal equations first and then reads its targets block
by block: what passes before the first read is the cost of a fit, the rest is the cost
of the targets.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.rng import stream
from minddiff_utils.core.surroundings import in_own_process, peak_bytes
from minddiff_utils.core.types import Matrix
from minddiff_utils.decoding import RidgeGCV, VoxelSelectedRidge
from minddiff_utils.studies.storage import area_voxels, n_trained, target_counts

__all__ = ["FitTimes", "n_train", "time_fits", "whole_seconds"]

#: Targets of each kind that are fitted: some ten seconds of each.
_SAMPLE = {"c": 1024, "z": 256, "clip": 2048}


@dataclass(frozen=True)
class FitTimes:
    """Processor seconds of a fit, and of one target of each kind, on one thread.

    `decoder`: voxel_selected or dense; `n_train`, `n_voxels`: size of the responses;
    `fixed`: seconds of a fit before its first target; `per_target`: by kind of target
    (c, z, clip); `peak_gb`: of the process.
    """

    decoder: str
    n_train: int
    n_voxels: int
    fixed: float
    per_target: dict[str, float]
    peak_gb: float


def n_train(profile: Profile) -> int:
    """Return the training images of the subject who has most.

    >>> from minddiff_utils.core.profile_files import load_profile
    >>> n_train(load_profile("nsd"))
    8000
    """
    return max(n_trained(profile, subject) for subject in profile.subjects)


def whole_seconds(times: FitTimes, profile: Profile) -> float:
    """Return the seconds of a subject's fits: main ones, folds, and sets of areas.

    The main fits are one of each kind of target, or one of all where the decoder is
    dense. Folds fit the CLIP layers alone; each is taken to cost what a fit of them on
    all images does. Sets of areas (LVC, HVC, eleven areas) fit c, z and one CLIP layer;
    their targets are taken to cost what they do with all voxels, and their normal
    equations nothing. Only LVC and HVC have more voxels than a target of z selects.
    """
    counts = target_counts(profile)
    each = {kind: n * times.per_target[kind] for kind, n in counts.items()}
    n_fits = 1 if times.decoder == "dense" else len(counts)
    folds = profile.decoding.n_folds * (times.fixed + each["clip"])
    layer = each["clip"] / len(profile.features.clip_layers)
    sets = (len(AREAS) + 2) * (each["c"] + layer) + 2 * each["z"]
    return n_fits * times.fixed + sum(each.values()) + folds + sets


def time_fits(
    profile: Profile,
    subject: int,
    *,
    size: tuple[int, int] | None = None,
    sample: Mapping[str, int] | None = None,
) -> FitTimes:
    """Measure the fits in a process of its own, on one thread.

    The clock is the processor's, which other work on the machine does not stop. `size`:
    training images and voxels, those of the real `profile` by default; `sample`: how
    many targets of each kind.
    """
    size = size or (n_train(profile), round(area_voxels(subject)))
    sample = dict(sample or _SAMPLE)
    return in_own_process(_measure, profile, size, sample)


class _Watched:
    """Targets that note when they are first read."""

    def __init__(self, values: Matrix) -> None:
        self._values = values
        self.shape = values.shape
        self.first: float | None = None

    def __getitem__(self, key: Any, /) -> Any:
        if self.first is None:
            self.first = time.process_time()
        return self._values[key]


def _measure(
    profile: Profile, size: tuple[int, int], sample: dict[str, int]
) -> FitTimes:
    X, Y = _problem(stream(profile.seed, "rehearsal", "fits"), size, sample)
    config = profile.decoding
    torch.set_num_threads(1)  # for the life of the process
    with threadpool_limits(1):
        if profile.decoder == "dense":  # a target of each kind costs the same
            fixed, each = _time(RidgeGCV(), X, np.hstack(list(Y.values())))
            per_target = dict.fromkeys(Y, each)
        else:
            times = {}
            for kind, targets in Y.items():
                n_voxels = getattr(config, f"n_feat_{kind}")
                decoder = VoxelSelectedRidge(config.alpha, n_voxels, config.dtype)
                times[kind] = _time(decoder, X, targets)
            fixed = max(first for first, _ in times.values())
            per_target = {kind: each for kind, (_, each) in times.items()}
    return FitTimes(profile.decoder, *size, fixed, per_target, peak_bytes() / 1e9)


def _time(
    decoder: RidgeGCV | VoxelSelectedRidge, X: Matrix, Y: Matrix
) -> tuple[float, float]:
    """Return the seconds before the first target, and those of each target."""
    targets, began = _Watched(Y), time.process_time()
    decoder.fit(X, targets)
    first, end = targets.first or began, time.process_time()
    return first - began, (end - first) / Y.shape[1]


def _problem(
    rng: np.random.Generator, size: tuple[int, int], sample: Mapping[str, int]
) -> tuple[Matrix, dict[str, Matrix]]:
    """Return responses with common causes and noise, and targets of the same causes."""
    n, n_voxels = size
    causes = rng.standard_normal((n, 300), dtype=np.float32)

    def mixed(n_columns: int) -> Matrix:
        weights = rng.standard_normal((300, n_columns), dtype=np.float32)
        weights /= np.float32(300**0.5)
        noise = rng.standard_normal((n, n_columns), dtype=np.float32)
        return np.asarray(causes @ weights + 2 * noise, np.float32)

    return mixed(n_voxels), {kind: mixed(count) for kind, count in sample.items()}
