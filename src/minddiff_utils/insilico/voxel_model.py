"""In-silico brain: how voxels respond to what is in an image, and how noisily.

Early areas sum `image_features` inside their population receptive field; high areas mix
the network's late features with attributes; the areas between interpolate. A part of
each voxel's signal is its own: as reliable as the rest, but a tangled function of the
image that no linear readout finds, since no known model explains all of the reliable
variance of real voxels.

References
----------
Allen et al. 2022, Nature Neuroscience 25:116 (ncsnr, noise ceilings); St-Yves and
Naselaris 2018, NeuroImage 180:188 (feature-weighted receptive fields).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.rng import stream
from minddiff_utils.insilico.anatomy import Anatomy
from minddiff_utils.insilico.image_features import (
    COARSE,
    CYCLES,
    FIELD_DEG,
    GRID,
    N_ATTRIBUTES,
    N_LATE,
    N_MAPS,
    ORIENTATIONS,
    Percepts,
    without_tails,
)

__all__ = [
    "AREA_OF",
    "Brain",
    "Scales",
    "area_table",
    "image_signal",
    "make_brain",
    "ncsnr_from_betas",
    "session_betas",
    "true_signal",
]

Array = npt.NDArray[np.float32]

#: Median ncsnr in nsdgeneral of NSD's subjects 1..8, in their surface betas.
_NCSNR = (0.490, 0.510, 0.431, 0.392, 0.542, 0.439, 0.371, 0.323)
#: NSD's volume betas are noisier than its surface betas; how much is our assumption.
_VOLUME_FACTOR = 0.8

#: Share of the signal's variance that is the voxel's own, out of a linear decoder's
#: reach. This and the factor above are assumptions: c is decoded with r of about .5,
#: above NSD's, because the demo has 1,300 training images where NSD has 8,859.
_OWN_SHARE, _OWN_SPEED = 0.2, 3.0  # rad per SD of what the voxel sees

#: Merged label -> weights of (local, network maps, network late, attributes) in the
#: variance of the rest of the signal, and relative ncsnr.
_PROFILES: dict[str, tuple[tuple[float, float, float, float], float]] = {
    "V1": ((1.00, 0.00, 0.00, 0.00), 1.30),
    "V2": ((0.85, 0.15, 0.00, 0.00), 1.25),
    "V3": ((0.70, 0.30, 0.00, 0.00), 1.20),
    "V3ab": ((0.50, 0.40, 0.10, 0.00), 1.00),
    "hV4": ((0.40, 0.45, 0.15, 0.00), 1.20),
    "VO": ((0.15, 0.40, 0.35, 0.10), 1.00),
    "PHC": ((0.05, 0.25, 0.40, 0.30), 0.95),
    "LO": ((0.15, 0.35, 0.35, 0.15), 1.15),
    "MT": ((0.25, 0.35, 0.25, 0.15), 0.90),
    "MST": ((0.10, 0.30, 0.35, 0.25), 0.80),
    "IPS": ((0.15, 0.30, 0.30, 0.25), 0.65),
    "other": ((0.10, 0.30, 0.30, 0.30), 0.45),
}
#: Merged label 0..25 (Kastner2015, prf-visualrois) -> area of the model.
AREA_OF = (
    "other", "V1", "V1", "V2", "V2", "V3", "V3", "hV4", "VO", "VO", "PHC", "PHC",
    "MST", "MT", "LO", "LO", "V3ab", "V3ab", *["IPS"] * 6, "other", "other",
)  # fmt: skip
_NOISE_RANK, _NOISE_SHARED = 15, 0.3  # low-rank part of the noise variance
_BLOCK = 256  # voxels that are worked on at once
_SCALE_INT16 = 300.0  # NSD stores percent signal change times 300

_PARTS = ("local", "maps", "late", "attributes")


@dataclass(frozen=True)
class Brain:
    """The truth about one subject's voxels; rows follow `Anatomy.voxel_ijk`.

    Attributes
    ----------
    active : ndarray of bool, shape (n_voxels,)
        Voxels that respond to images at all.
    x, y, sigma : ndarray of float32
        Receptive fields used, degrees (drawn where the atlas knows none).
    mixture : ndarray of float32, shape (n_voxels, 5)
        Share of the signal's variance by part of the model; the last is the voxel's
        own.
    local, maps, late, attributes : ndarray of float32, shape (n_voxels, n_channels)
        Tuning.
    own : ndarray of float32, shape (n_voxels, 1 + n_late + n_attributes)
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
    attributes: Array
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
    target = _VOLUME_FACTOR * _NCSNR[anatomy.subject - 1]
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
        attributes=rng.standard_normal((n, N_ATTRIBUTES), np.float32),
        own=_own_tuning(n, rng),
        ncsnr=np.where(active, ncsnr, 0).astype(np.float32),
        total_sd=total_sd.astype(np.float32),
        mean=(0.5 * total_sd * rng.normal(1, 0.5, n)).astype(np.float32),
        zero=zero,
        zero_session=min(2, n_sessions),
        saturated=saturated,
    )


def _mixture(areas: Sequence[str], rng: np.random.Generator) -> Array:
    """Return the share of each part in each voxel's signal, (n_voxels, 5), sum 1."""
    shares = np.array([_PROFILES[area][0] for area in areas])
    shares *= rng.uniform(0.5, 1.5, shares.shape)
    own = _OWN_SHARE * rng.uniform(0.7, 1.3, (len(areas), 1))
    shares *= (1 - own) / shares.sum(axis=1, keepdims=True)
    return np.concatenate([shares, own], axis=1).astype(np.float32)


def _own_tuning(n_voxels: int, rng: np.random.Generator) -> Array:
    """Return phase and frequencies: two images a SD apart differ by `_OWN_SPEED`."""
    n_seen = N_LATE + N_ATTRIBUTES
    frequencies = rng.standard_normal((n_voxels, n_seen)) * _OWN_SPEED / n_seen**0.5
    phase = rng.uniform(0, 2 * np.pi, (n_voxels, 1))
    return np.concatenate([phase, frequencies], axis=1).astype(np.float32)


def area_table() -> pd.DataFrame:
    """Return the model's mean share of each part in the signal variance of each area.

    Columns: area, local, maps, late, attributes, own, relative_ncsnr; the five shares
    of a row sum to 1.
    """
    rows = [
        {
            "area": area,
            **{
                part: share * (1 - _OWN_SHARE)
                for part, share in zip(_PARTS, shares, strict=True)
            },
            "own": _OWN_SHARE,
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


#: Mean and SD over the images shown, of what is standardised, by name.
Scales = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True)
class _Standard:
    """Standardises over the images given, or as others were that are known."""

    known: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    def __call__(
        self, name: str, values: Array, axis: int | tuple[int, ...] = 0
    ) -> Array:
        if name not in self.known:
            spread = values.std(axis=axis, keepdims=True)
            mean = values.mean(axis=axis, keepdims=True)
            self.known[name] = mean, np.maximum(spread, np.float32(1e-6))
        mean, spread = self.known[name]
        centred: Array = values - mean
        centred /= spread
        return centred


def true_signal(brain: Brain, percepts: Percepts) -> tuple[Array, Scales]:
    """Return the noiseless responses of the active voxels, and how they were scaled.

    Parameters
    ----------
    brain : Brain
    percepts : Percepts
        The images shown to this subject, each once.

    Returns
    -------
    ndarray of float32, shape (n_images, n_active)
        Mean 0 and SD 1 over the images, per voxel.
    mapping
        Mean and SD of every part, for `image_signal`.
    """
    standard = _Standard()
    late = standard("late", percepts.late)
    attributes = standard("attributes", percepts.attributes)
    seen, own = np.concatenate([late, attributes], axis=1), brain.own[brain.active]
    parts = (
        *_image_parts(brain, percepts.local, percepts.maps, late, standard),
        attributes @ brain.attributes[brain.active].T,
        np.cos(own[:, 0] + seen @ own[:, 1:].T),
    )
    return _mixed(brain, parts, standard), standard.known


def image_signal(
    brain: Brain, seen: tuple[Array, Array, Array], scales: Scales
) -> Array:
    """Return the noiseless responses of a subject's voxels to other images.

    What objects and scene are is known of scenes alone, and a voxel's own part depends
    on it: both stay at their mean.

    Parameters
    ----------
    brain : Brain
    seen : three float32 arrays (n_images, ...)
        From `image_features.look`.
    scales : mapping
        From `true_signal` of the images shown.

    Returns
    -------
    ndarray of float32, shape (n_images, n_active)
        In SDs over the images shown.
    """
    standard = _Standard(dict(scales))
    local, maps, late = seen
    late = standard("late", late)
    parts = _image_parts(brain, local, maps, late, standard)
    return _mixed(brain, parts, standard)


def _image_parts(
    brain: Brain, local: Array, maps: Array, late: Array, standard: _Standard
) -> tuple[Array, Array, Array]:
    rows = brain.active
    where = (brain.x[rows], brain.y[rows], brain.sigma[rows])
    wide = (*where[:2], np.maximum(where[2], 0.8))  # the network's maps are coarse
    local, maps = standard("local", local, (0, 2)), standard("maps", maps, (0, 2))
    return (
        _pooled_response(local, brain.local[rows], where, GRID),
        _pooled_response(maps, brain.maps[rows], wide, COARSE),
        late @ brain.late[rows].T,
    )


def _mixed(brain: Brain, parts: Sequence[Array], standard: _Standard) -> Array:
    """Return the sum of the first parts of the model, each by its share."""
    signal = np.zeros_like(parts[0])
    shares = brain.mixture[brain.active].T
    for k, (share, part) in enumerate(zip(shares, parts, strict=False)):
        signal += np.sqrt(share) * standard(f"part {k}", part)
    return standard("signal", signal)


def _pooled_response(
    scaled: Array, tuning: Array, where: tuple[Array, Array, Array], grid: int
) -> Array:
    """Return tuned sums of receptive-field averages, (n, n_voxels)."""
    n_voxels, n_channels = tuning.shape
    window = _field_weights(*where, grid)  # (n_voxels, grid * grid)
    scaled = scaled.reshape(len(scaled), -1)
    response = np.empty((len(scaled), n_voxels), dtype=np.float32)
    for first in range(0, n_voxels, _BLOCK):  # bounds memory
        rows = slice(first, first + _BLOCK)
        filters = tuning[rows, :, None] * window[rows, None, :]
        filters = filters.reshape(-1, n_channels * window.shape[1])
        response[:, rows] = scaled @ filters.T
    return response


def session_betas(
    brain: Brain,
    signal: Array,
    session: int,
    *,
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Return one session's single-trial betas as NSD stores them.

    Parameters
    ----------
    brain : Brain
    signal : ndarray of float32, shape (n_trials, n_active)
        True signal of each trial.
    session : int
        1-based.
    rng : Generator
        Noise and drift of this session.

    Returns
    -------
    ndarray of int16, shape (n_trials, n_voxels)
        Percent signal change times 300, clipped to int16.
    """
    n_trials, n_voxels = len(signal), len(brain.active)
    shared = rng.standard_normal((_NOISE_RANK, n_voxels), np.float32)
    shared /= np.linalg.norm(shared, axis=0)
    own = rng.standard_normal((n_trials, n_voxels), np.float32)
    common = rng.standard_normal((n_trials, _NOISE_RANK), np.float32) @ shared
    noise = np.float32((1 - _NOISE_SHARED) ** 0.5) * own
    noise += np.float32(_NOISE_SHARED**0.5) * common
    noise_sd = brain.total_sd / np.sqrt(1 + brain.ncsnr**2)
    betas = noise * noise_sd
    betas[:, brain.active] += signal * (noise_sd * brain.ncsnr)[brain.active]
    scale = np.exp(rng.normal(0, 0.08, n_voxels) + rng.normal(0, 0.05))
    offset = 0.3 * brain.total_sd * (rng.normal(0, 1, n_voxels) + rng.normal(0, 0.5))
    betas = betas * scale.astype(np.float32) + (brain.mean + offset).astype(np.float32)
    stored = np.clip(np.rint(betas * np.float32(_SCALE_INT16)), -32768, 32767)
    stored = stored.astype(np.int16)
    stored[:, brain.zero[0]] = 0
    if session == brain.zero_session:
        stored[:, brain.zero[1]] = 0
    return stored


def ncsnr_from_betas(
    betas: Sequence[npt.NDArray[np.int16]], k10: npt.NDArray[np.int64]
) -> Array:
    """Return NSD's noise-ceiling signal-to-noise ratio of every voxel.

    Each voxel is z-scored within each session; the variance over the three trials of an
    image, averaged over images, is the noise variance v^2; ncsnr = sqrt(1 - v^2) / v.

    Parameters
    ----------
    betas : sequence of ndarray of int16, each (n_trials, n_voxels)
        One array per session.
    k10 : ndarray of int64
        Image of each trial; images with other than three trials are left out.

    Returns
    -------
    ndarray of float32, shape (n_voxels,)
        NaN where there are no data.
    """
    images, count = np.unique(k10, return_counts=True)
    kept = images[count == 3]
    order = np.argsort(k10, kind="stable")
    order = order[np.isin(k10[order], kept)].reshape(-1, 3)
    n_voxels = betas[0].shape[1]
    edges = np.linspace(0, n_voxels, 1 + -(-n_voxels // _BLOCK)).astype(int)
    found = []
    for first, last in pairwise(edges.tolist()):  # bounds memory
        stacked = np.concatenate([_scored(b[:, first:last]) for b in betas])
        variance = stacked[order].var(axis=1, ddof=1)  # (n_images, n_voxels)
        found.append(_snr(variance))
    return np.concatenate(found)


def _scored(session: npt.NDArray[np.int16]) -> Array:
    """Return z-scores over the trials of a session; NaN where there are no data."""
    values = session.astype(np.float32)
    spread = values.std(axis=0, ddof=1)
    spread[spread == 0] = np.nan
    scored: Array = (values - values.mean(axis=0)) / spread
    return scored


def _snr(variance: Array) -> Array:
    valid = np.isfinite(variance)
    count = valid.sum(axis=0)
    total = np.where(valid, variance, 0).sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        noise = total / count  # 0 / 0 is NaN: a voxel without data
        ratio: Array = np.sqrt(np.maximum(0, 1 - noise) / noise).astype(np.float32)
    return ratio
