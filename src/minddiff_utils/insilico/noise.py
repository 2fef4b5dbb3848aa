"""In-silico brain: what makes two trials of one image differ.

The noise of a trial has three parts, whose loadings are drawn once for a subject: one
independent between voxels, one smooth on the cortex, one that looks like the signal.
It goes on from trial to trial, has an offset in every run, and its variance, with all
of it counted in, is what a voxel's ncsnr says.

Notation
--------
e_t = noise of trial t, unit variance per voxel: e_t = sqrt(1 - r) n_t + sqrt(r) o_run,
n_t = rho n_(t-1) + sqrt(1 - rho^2) w_t, r = `RUN_SHARE`, rho = `SERIAL`.

References
----------
Allen et al. 2022, Nature Neuroscience 25:116 (ncsnr, runs); Kay et al. 2025, PLoS
Computational Biology (GSN: covariance of noise and signal).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.rng import stream
from minddiff_utils.insilico.anatomy import Anatomy
from minddiff_utils.insilico.assumptions import (
    ALIGNED_RANK,
    ALIGNED_SHARE,
    RUN_SHARE,
    SERIAL,
    SMOOTH_MM,
    SMOOTH_RANK,
    SMOOTH_SHARE,
)
from minddiff_utils.insilico.voxel_model import Brain

__all__ = [
    "Noise",
    "autocorrelation",
    "inflation",
    "make_noise",
    "ncsnr_from_betas",
    "session_betas",
]

Array = npt.NDArray[np.float32]

_WAVES = 16  # plane waves that make up a smooth field
_RUNS = np.repeat(np.arange(12), [63, 62] * 6)  # of each of a session's 750 trials
_BLOCK = 256  # voxels that are worked on at once
_SCALE_INT16 = 300.0  # NSD stores percent signal change times 300


@dataclass(frozen=True)
class Noise:
    """The fixed loadings of one subject's noise; squares of a row sum to its share.

    Attributes
    ----------
    smooth, aligned : ndarray of float32, shape (n_voxels, rank)
        Of the parts that are shared between voxels; a voxel without signal has no
        aligned part.
    """

    smooth: Array
    aligned: Array

    @property
    def own_sd(self) -> Array:
        """Return the SD of the part that is independent between voxels."""
        shared = (self.smooth**2).sum(axis=1) + (self.aligned**2).sum(axis=1)
        own: Array = np.sqrt(1 - shared)
        return own

    def correlation(self) -> Array:
        """Return the correlation of the noise between voxels, (n_voxels, n_voxels).

        Run offsets, a small share, have that of the smooth part.
        """
        smooth = self.smooth @ self.smooth.T
        found: Array = self.aligned @ self.aligned.T
        found += smooth
        found *= np.float32(1 - RUN_SHARE)
        found += np.float32(RUN_SHARE / SMOOTH_SHARE) * smooth
        np.fill_diagonal(found, 1)
        return found


def make_noise(anatomy: Anatomy, brain: Brain, signal: Array, *, seed: int) -> Noise:
    """Draw the loadings of a subject's noise.

    Parameters
    ----------
    anatomy, brain
        Of one subject.
    signal : ndarray of float32, shape (n_images, n_active)
        Its noiseless responses, from `planted_signal`.
    seed : int
        Of the simulation.
    """
    rng = stream(seed, "brain", anatomy.subject, "noise loadings")
    position = anatomy.voxel_ijk * np.float32(anatomy.edge_mm)
    waves = rng.normal(0, 1 / SMOOTH_MM, (3, SMOOTH_RANK * _WAVES)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, SMOOTH_RANK * _WAVES).astype(np.float32)
    fields = np.cos(position @ waves + phases)  # their sums: nearly a Gaussian field
    smooth = fields.reshape(len(position), SMOOTH_RANK, _WAVES).sum(axis=2)
    mixtures = rng.standard_normal((ALIGNED_RANK, len(signal)), np.float32)
    aligned = np.zeros((len(position), ALIGNED_RANK), np.float32)
    aligned[brain.active] = (mixtures @ signal).T
    return Noise(_of_share(smooth, SMOOTH_SHARE), _of_share(aligned, ALIGNED_SHARE))


def _of_share(loadings: Array, share: float) -> Array:
    norm = np.linalg.norm(loadings, axis=1, keepdims=True)
    norm[norm == 0] = 1
    scaled: Array = loadings * (np.float32(share**0.5) / norm)
    return scaled


def autocorrelation(lags: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the correlation of a voxel's noise `lags` trials apart in a session.

    Means over the trials of a session; offsets of runs, which sum to zero, count.
    """
    n = len(_RUNS)
    found = [_correlations(np.arange(n - lag), lag).mean() for lag in lags]
    return np.array(found)


def _correlations(first: npt.NDArray[np.int64], lag: int) -> npt.NDArray[np.float64]:
    """Return the correlation of each trial `first` with the one `lag` later."""
    same = _RUNS[first] == _RUNS[first + lag]
    n_runs = _RUNS[-1] + 1
    offsets = np.where(same, 1.0, -1 / (n_runs - 1))  # as the mean is taken away
    return np.asarray((1 - RUN_SHARE) * SERIAL**lag + RUN_SHARE * offsets)


def inflation() -> float:
    """Return how much more a sample variance of the noise varies than of white noise.

    1 plus twice the sum of squared autocorrelations: successive trials say less.
    """
    n = len(_RUNS)
    squares = [(_correlations(np.arange(n - k), k) ** 2).sum() for k in range(1, n)]
    return 1 + 2 * float(np.sum(squares)) / n


def _session_noise(noise: Noise, n_trials: int, rng: np.random.Generator) -> Array:
    """Return noise of unit variance of each trial and voxel, (n_trials, n_voxels)."""
    loadings = np.concatenate([noise.smooth, noise.aligned], axis=1)
    found = rng.standard_normal((n_trials, len(loadings)), np.float32)
    found *= noise.own_sd
    found += rng.standard_normal((n_trials, loadings.shape[1]), np.float32) @ loadings.T
    fresh = np.float32((1 - SERIAL**2) ** 0.5)
    for before, now in pairwise(found):
        now *= fresh
        now += np.float32(SERIAL) * before
    found *= np.float32((1 - RUN_SHARE) ** 0.5)
    runs = _RUNS[:n_trials]
    count = np.bincount(runs)
    factors = rng.standard_normal((len(count), noise.smooth.shape[1]), np.float32)
    factors -= np.average(factors, axis=0, weights=count).astype(np.float32)
    lost = max(1, len(count) - 1) / len(count)  # by taking the mean away
    offset = (
        factors @ noise.smooth.T * np.float32((RUN_SHARE / SMOOTH_SHARE / lost) ** 0.5)
    )
    found += offset[runs]
    return found


def session_betas(
    brain: Brain,
    noise: Noise,
    signal: Array,
    session: int,
    *,
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Return one session's single-trial betas as NSD stores them.

    Parameters
    ----------
    brain, noise
        One subject.
    signal : ndarray of float32, shape (n_trials, n_active)
        True signal of each trial, at most 750.
    session : int
        1-based.
    rng : Generator
        Noise and drift of this session.

    Returns
    -------
    ndarray of int16, shape (n_trials, n_voxels)
        Percent signal change times 300, clipped to int16.
    """
    n_voxels = len(brain.active)
    noise_sd = brain.total_sd / np.sqrt(1 + brain.ncsnr**2)
    betas = _session_noise(noise, len(signal), rng)
    betas *= noise_sd
    betas[:, brain.active] += signal * (noise_sd * brain.ncsnr)[brain.active]
    scale = np.exp(rng.normal(0, 0.08, n_voxels) + rng.normal(0, 0.05))
    offset = 0.3 * brain.total_sd * (rng.normal(0, 1, n_voxels) + rng.normal(0, 0.5))
    betas *= scale.astype(np.float32)
    betas += (brain.mean + offset).astype(np.float32)
    betas *= np.float32(_SCALE_INT16)
    stored = np.clip(np.rint(betas), -32768, 32767).astype(np.int16)
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
