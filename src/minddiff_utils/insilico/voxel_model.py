"""In-silico brain: how voxels respond to what is in an image.

Early areas sum `image_features` inside their population receptive field; high areas mix
the network's late features; the areas between interpolate. A part of each voxel's
signal is its own: as reliable as the rest, but a tangled function of the image that no
linear readout finds, since no known model explains all of the reliable variance of real
voxels. `noise` makes trials of it.

What enters by design, and is no finding: early areas know layout and high areas know
objects, since they were given such features; tuning is drawn at random, voxel by voxel,
so that neighbours share receptive fields and noise but no preferences.

References
----------
Allen et al. 2022, Nature Neuroscience 25:116 (ncsnr); St-Yves and Naselaris 2018,
NeuroImage 180:188 (feature-weighted receptive fields).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.rng import stream
from minddiff_utils.insilico.anatomy import Anatomy
from minddiff_utils.insilico.assumptions import OWN_SHARE, OWN_SPEED, VOLUME_FACTOR
from minddiff_utils.insilico.image_features import (
    COARSE,
    CYCLES,
    FIELD_DEG,
    GRID,
    N_LATE,
    N_MAPS,
    ORIENTATIONS,
    Percepts,
    without_tails,
)

__all__ = [
    "AREA_OF",
    "Brain",
    "area_table",
    "make_brain",
    "planted_signal",
    "true_signal",
]

Array = npt.NDArray[np.float32]

#: Median ncsnr in nsdgeneral of NSD's subjects 1..8, in their surface betas.
_NCSNR = (0.490, 0.510, 0.431, 0.392, 0.542, 0.439, 0.371, 0.323)
#: Area -> weights of (local, network maps, network late) in the variance of the rest of
#: the signal, and relative ncsnr.
_PROFILES: dict[str, tuple[tuple[float, float, float], float]] = {
    "V1": ((1.00, 0.00, 0.00), 1.30),
    "V2": ((0.85, 0.15, 0.00), 1.25),
    "V3": ((0.70, 0.30, 0.00), 1.20),
    "V3ab": ((0.50, 0.40, 0.10), 1.00),
    "hV4": ((0.40, 0.45, 0.15), 1.20),
    "VO": ((0.15, 0.40, 0.45), 1.00),
    "PHC": ((0.05, 0.25, 0.70), 0.95),
    "LO": ((0.15, 0.35, 0.50), 1.15),
    "MT": ((0.25, 0.35, 0.40), 0.90),
    "MST": ((0.10, 0.30, 0.60), 0.80),
    "IPS": ((0.15, 0.30, 0.55), 0.65),
    "other": ((0.10, 0.30, 0.60), 0.45),
}
#: Merged label 0..25 (Kastner2015, prf-visualrois) -> area of the model.
AREA_OF = (
    "other", "V1", "V1", "V2", "V2", "V3", "V3", "hV4", "VO", "VO", "PHC", "PHC",
    "MST", "MT", "LO", "LO", "V3ab", "V3ab", *["IPS"] * 6, "other", "other",
)  # fmt: skip
_BLOCK = 256  # voxels that are worked on at once

_PARTS = ("local", "maps", "late", "own")
#: Means and SDs over the images that were shown, by what they standardise.
Scales = dict[str, Array]


@dataclass(frozen=True)
class Brain:
    """The truth about one subject's voxels; rows follow `Anatomy.voxel_ijk`.

    Attributes
    ----------
    active : ndarray of bool, shape (n_voxels,)
        Voxels that respond to images at all.
    x, y, sigma : ndarray of float32
        Receptive fields used, degrees (drawn where the atlas knows none).
    mixture : ndarray of float32, shape (n_voxels, 4)
        Share of the signal's variance by part of the model; the last is the voxel's
        own.
    local, maps, late : ndarray of float32, shape (n_voxels, n_channels)
        Tuning.
    own : ndarray of float32, shape (n_voxels, 1 + n_late)
        Phase and frequencies of the voxel's own part.
    ncsnr : ndarray of float32
        Signal SD over noise SD.
    total_sd, mean : ndarray of float32
        SD and mean of single-trial responses, percent signal change.
    zero : ndarray of int64, shape (2,)
        A voxel never measured, and one not measured in `zero_session` alone.
    zero_session : int
        1-based number of that session.
    saturated : int
        A voxel whose betas leave the range of int16.
    """

    active: npt.NDArray[np.bool_]
    x: Array
    y: Array
    sigma: Array
    mixture: Array
    local: Array
    maps: Array
    late: Array
    own: Array
    ncsnr: Array
    total_sd: Array
    mean: Array
    zero: npt.NDArray[np.int64]
    zero_session: int
    saturated: int


def make_brain(anatomy: Anatomy, *, seed: int, n_sessions: int) -> Brain:
    """Draw the tuning and the noise of every voxel of `anatomy`."""
    rng = stream(seed, "brain", anatomy.subject, "tuning")
    n = anatomy.n_voxels
    general = anatomy.at_voxels(anatomy.rois["nsdgeneral"]) > 0
    active = general | (anatomy.label > 0)
    areas = [AREA_OF[label] for label in anatomy.label]
    x, y, sigma = _receptive_fields(anatomy, rng)
    reliability = np.array([_PROFILES[a][1] for a in areas])
    reliability *= np.exp(rng.normal(0, 0.35, n)) * np.sqrt(_coverage(x, y, sigma))
    median = float(np.median(reliability[general]))
    target = VOLUME_FACTOR * _NCSNR[anatomy.subject - 1]
    ncsnr = np.clip(reliability * target / median, 0.02, 1.5)
    early = np.isin(areas, ("V1", "V2", "V3"))
    zero, saturated = _faults(anatomy, general, rng)
    total_sd = np.where(early, 3.3, 2.3) * np.exp(rng.normal(0, 0.2, n))
    total_sd[saturated] = 120.0
    return Brain(
        active=active,
        x=x,
        y=y,
        sigma=sigma,
        mixture=_mixture(areas, rng),
        local=_local_tuning(sigma, rng),
        maps=rng.standard_normal((n, N_MAPS), np.float32),
        late=rng.standard_normal((n, N_LATE), np.float32),
        own=_own_tuning(n, rng),
        ncsnr=np.where(active, ncsnr, 0).astype(np.float32),
        total_sd=total_sd.astype(np.float32),
        mean=(0.5 * total_sd * rng.normal(1, 0.5, n)).astype(np.float32),
        zero=zero,
        zero_session=min(2, n_sessions),
        saturated=saturated,
    )


def _mixture(areas: Sequence[str], rng: np.random.Generator) -> Array:
    """Return the share of each part in each voxel's signal, (n_voxels, 4), sum 1."""
    shares = np.array([_PROFILES[area][0] for area in areas])
    shares *= rng.uniform(0.5, 1.5, shares.shape)
    own = OWN_SHARE * rng.uniform(0.7, 1.3, (len(areas), 1))
    shares *= (1 - own) / shares.sum(axis=1, keepdims=True)
    return np.concatenate([shares, own], axis=1).astype(np.float32)


def _own_tuning(n_voxels: int, rng: np.random.Generator) -> Array:
    """Return phase and frequencies: two images a SD apart differ by `OWN_SPEED`."""
    frequencies = rng.standard_normal((n_voxels, N_LATE)) * OWN_SPEED / N_LATE**0.5
    phase = rng.uniform(0, 2 * np.pi, (n_voxels, 1))
    return np.concatenate([phase, frequencies], axis=1).astype(np.float32)


def area_table() -> pd.DataFrame:
    """Return the model's mean share of each part in the signal variance of each area.

    Columns: area, local, maps, late, own, relative_ncsnr; the four shares of a row sum
    to 1.
    """
    rows = [
        {
            "area": area,
            **{
                part: share * (1 - OWN_SHARE)
                for part, share in zip(_PARTS[:3], shares, strict=True)
            },
            "own": OWN_SHARE,
            "relative_ncsnr": reliability,
        }
        for area, (shares, reliability) in _PROFILES.items()
    ]
    return pd.DataFrame(rows)


def _faults(
    anatomy: Anatomy, general: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], int]:
    """Choose two labelled voxels that lose data and one unlabelled that saturates."""
    parietal = np.flatnonzero([AREA_OF[label] == "IPS" for label in anatomy.label])
    zero = rng.choice(parietal, 2, replace=False).astype(np.int64)
    outside = np.flatnonzero((anatomy.label == 0) & ~general)
    return zero, int(rng.choice(outside))


def _receptive_fields(
    anatomy: Anatomy, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Return x, y, sigma in degrees; drawn in the contralateral field where unknown."""
    n = anatomy.n_voxels
    side = np.where(
        anatomy.at_voxels(anatomy.hemisphere.astype(np.float64)) == 1, -1, 1
    )
    drawn = (
        side * np.abs(rng.normal(0, 1.5, n)),
        rng.normal(0, 1.5, n),
        rng.uniform(1.5, 3.0, n),
    )
    unknown = np.isnan(anatomy.x)
    known = (anatomy.x, anatomy.y, anatomy.sigma)
    x, y, sigma = (np.where(unknown, d, k) for d, k in zip(drawn, known, strict=True))
    x, y = x + rng.normal(0, 0.15, n), y + rng.normal(0, 0.15, n)
    sigma = np.clip(sigma * np.exp(rng.normal(0, 0.15, n)), 0.25, 4.0)
    return x.astype(np.float32), y.astype(np.float32), sigma.astype(np.float32)


def _local_tuning(sigma: Array, rng: np.random.Generator) -> Array:
    """Return weights of the early channels: broad orientation and frequency tuning."""
    n = len(sigma)
    angle = np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS
    preferred = rng.uniform(0, np.pi, (n, 1))
    sharpness = rng.uniform(0.2, 1.5, (n, 1))
    by_angle = np.exp(sharpness * (np.cos(2 * (angle - preferred)) - 1))
    favourite = np.log2(1.2 / np.clip(sigma, 0.4, 2.5)[:, None]) + rng.normal(
        0, 0.5, (n, 1)
    )
    by_cycles = np.exp(-((np.log2(CYCLES) - favourite) ** 2) / (2 * 1.2**2))
    gabor = (by_cycles[:, :, None] * by_angle[:, None, :]).reshape(n, -1)
    gabor /= np.linalg.norm(gabor, axis=1, keepdims=True)
    colour = rng.normal(0, 0.5, (n, 4))
    return np.concatenate([gabor, colour], axis=1).astype(np.float32)


def _field_weights(x: Array, y: Array, sigma: Array, grid: int) -> Array:
    """Return Gaussian receptive fields on a grid, (n_voxels, grid * grid), sum 1."""
    exponent = _exponent(x, y, sigma, grid)
    weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    weights = without_tails(weights)
    normed: Array = weights / weights.sum(axis=1, keepdims=True)
    return normed


def _exponent(x: Array, y: Array, sigma: Array, grid: int) -> Array:
    centres: Array = np.arange(grid, dtype=np.float32) + np.float32(0.5)
    centres = ((centres / grid - 0.5) * FIELD_DEG).astype(np.float32)
    down, right = np.meshgrid(-centres, centres, indexing="ij")  # row 0 is up
    squared = (right.ravel() - x[:, None]) ** 2 + (down.ravel() - y[:, None]) ** 2
    return np.asarray(-squared / (2 * sigma[:, None] ** 2), np.float32)


def _coverage(x: Array, y: Array, sigma: Array) -> Array:
    """Return the share of each receptive field that lies inside the image."""
    grid = 32
    mass = np.exp(_exponent(x, y, sigma, grid)).sum(axis=1)
    area = (FIELD_DEG / grid) ** 2
    share: Array = np.clip(mass * area / (2 * np.pi * sigma**2), 0.02, 1.0)
    return share


#: Standardises the channels or voxels of what has a name.
_Standardise = Callable[[str, Array], Array]


def planted_signal(brain: Brain, percepts: Percepts) -> tuple[Array, Scales]:
    """Return the noiseless responses of the active voxels to the images shown.

    Parameters
    ----------
    brain : Brain
        One subject.
    percepts : Percepts
        The images shown to this subject, each once.

    Returns
    -------
    signal : ndarray of float32, shape (n_images, n_active)
        Mean 0 and SD 1 over the images, per voxel.
    scales : dict of str to ndarray of float32
        What makes them so: with it, `true_signal` is on the same scale for any image.
    """
    scales: Scales = {}

    def fit(name: str, values: Array) -> Array:
        axis = (0, 2) if values.ndim == 3 else 0  # maps: over their places, too
        mean = values.mean(axis=axis, keepdims=True)
        spread = np.maximum(values.std(axis=axis, keepdims=True), np.float32(1e-6))
        scales[name] = np.stack([mean, spread])
        return _scaled(values, scales[name])

    return _signal(brain, percepts, fit), scales


def true_signal(brain: Brain, percepts: Percepts, scales: Mapping[str, Array]) -> Array:
    """Return the noiseless responses of the active voxels to any images.

    Parameters
    ----------
    brain : Brain
        One subject.
    percepts : Percepts
        Any images.
    scales : mapping of str to ndarray
        From `planted_signal`, of the images shown to the subject.

    Returns
    -------
    ndarray of float32, shape (n_images, n_active)
        In SDs over the images that were shown.
    """

    def apply(name: str, values: Array) -> Array:
        return _scaled(values, scales[name])

    return _signal(brain, percepts, apply)


def _scaled(values: Array, scale: Array) -> Array:
    scaled: Array = values - scale[0]
    scaled /= scale[1]
    return scaled


def _signal(brain: Brain, percepts: Percepts, standardise: _Standardise) -> Array:
    rows = brain.active
    where = (brain.x[rows], brain.y[rows], brain.sigma[rows])
    wide = (*where[:2], np.maximum(where[2], 0.8))  # the network's maps are coarse
    local = standardise("local", percepts.local)
    maps = standardise("maps", percepts.maps)
    late, own = standardise("late", percepts.late), brain.own[rows]
    parts = (
        _pooled_response(local, brain.local[rows], where, GRID),
        _pooled_response(maps, brain.maps[rows], wide, COARSE),
        late @ brain.late[rows].T,
        np.cos(own[:, 0] + late @ own[:, 1:].T),
    )
    signal = np.zeros_like(parts[0])
    for name, share, part in zip(_PARTS, brain.mixture[rows].T, parts, strict=True):
        signal += np.sqrt(share) * standardise(f"{name} response", part)
    return standardise("signal", signal)


def _pooled_response(
    channels: Array, tuning: Array, where: tuple[Array, Array, Array], grid: int
) -> Array:
    """Return tuned sums of receptive-field averages, (n, n_voxels)."""
    n_voxels, n_channels = tuning.shape
    window = _field_weights(*where, grid)  # (n_voxels, grid * grid)
    flat = channels.reshape(len(channels), -1)
    response = np.empty((len(channels), n_voxels), dtype=np.float32)
    for first in range(0, n_voxels, _BLOCK):  # bounds memory
        rows = slice(first, first + _BLOCK)
        filters = tuning[rows, :, None] * window[rows, None, :]
        filters = filters.reshape(-1, n_channels * window.shape[1])
        response[:, rows] = flat @ filters.T
    return response
