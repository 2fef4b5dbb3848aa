"""Which betas are data: empty voxels and trials, sessions that are copies or strangers.

An interrupted copy or a sparse file has holes, and HDF5 reads a hole as zeros without a
word. NSD itself stores zeros where a voxel left the imaged slab, in few voxels of the
areas; so a little is left out and counted, and more is refused. Reads and writes no
file. `preprocessing.responses` uses it on whole sessions, `check` on samples of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Floats, Ints, Mask

__all__ = [
    *("LEAST_AGREEMENT", "MOST_EMPTY", "Held", "at_limits", "check_ncsnr"),
    *("digest_betas", "fault", "strange_sessions", "where_held"),
]

#: As stored: whole numbers, or floats, in which NaN stands for no data.
Betas = npt.NDArray[np.int16] | npt.NDArray[np.float32]

#: Share of a session's voxels, trials or values that may be empty or at the limits.
MOST_EMPTY = 0.05
#: Empty voxels that say nothing about a session, whatever their share.
_FEW = 2
#: Correlation of stored and recomputed ncsnr, and the sessions that it takes: with 30
#: sessions or more, thousands of images have three trials and both hardly have noise.
LEAST_AGREEMENT, _ENOUGH_SESSIONS = 0.9, 30
#: A session is strange whose responses to repeated images agree with the others' no
#: more than by chance (in standard errors) and less than this share of what is highest,
#: where that is clear (in standard errors). A drowsy session agrees little, but does.
_CHANCE, _STRANGE, _CLEAR = 4.0, 0.25, 8.0
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Held:
    """Where one session holds data.

    Attributes
    ----------
    voxels : (n_voxels,) bool
        False where a voxel is constant, or zero or NaN in more than `MOST_EMPTY` of the
        trials, or NaN in one of those kept.
    trials : (n_trials,) bool
        False where a trial is zero or NaN in more than `MOST_EMPTY` of those voxels, or
        has one value in all of them.
    """

    voxels: Mask
    trials: Mask


def _too_many(wrong: Mask, axis: int | None = None) -> Any:
    n = wrong.size if axis is None else wrong.shape[axis]
    return wrong.sum(axis=axis) > max(_FEW, MOST_EMPTY * n)


def where_held(raw: Betas) -> Held:
    """Return where a session's stored betas, (n_trials, n_voxels), are data."""
    empty = raw == 0
    if raw.dtype.kind == "f":
        empty |= np.isnan(raw)
    constant = raw.min(axis=0) == raw.max(axis=0)
    voxels = ~constant & ~_too_many(empty, axis=0)
    if not voxels.any():
        return Held(voxels, np.zeros(len(raw), bool))
    kept = raw[:, voxels]
    trials = ~_too_many(empty[:, voxels], axis=1)
    if kept.shape[1] > _FEW:
        trials &= kept.min(axis=1) != kept.max(axis=1)
    if raw.dtype.kind == "f":
        voxels &= ~np.isnan(raw[trials]).any(axis=0)
    return Held(voxels, trials)


def fault(raw: Betas, held: Held) -> str:
    """Return what makes a session's betas no data, in words; empty if nothing does.

    More than `MOST_EMPTY` of the voxels or trials may not be empty, nor so many of the
    values lie at the limits of int16.
    """
    most = f"but {MOST_EMPTY:.0%} at most may be"
    for what, empty in (("voxels", ~held.voxels), ("trials", ~held.trials)):
        if _too_many(empty):
            return (
                f"zeros or one value throughout in {int(empty.sum())} of {empty.size} "
                f"{what} of the areas, {most}"
            )
    limits = at_limits(raw)
    if _too_many(limits):
        n = int(limits.sum())
        return f"{n} of {limits.size} values at the limits of int16, {most}"
    return ""


def at_limits(raw: Betas) -> Mask:
    """Return which values lie at the limits of int16; no float does."""
    if raw.dtype.kind == "f":
        return np.zeros(raw.shape, bool)
    return np.asarray((raw == _INT16.min) | (raw == _INT16.max))


def digest_betas(raw: Betas) -> str:
    """Return a digest of stored betas: two sessions never have the same."""
    stored = np.ascontiguousarray(raw, raw.dtype.newbyteorder("<"))
    return sha256(stored.tobytes()).hexdigest()


def check_ncsnr(
    stored: Floats, recomputed: Floats, sessions: Sequence[int], name: str
) -> None:
    """Raise DataError where NSD's ncsnr and that of the trials read disagree.

    With fewer than 30 sessions the recomputed one is too noisy to decide.

    Parameters
    ----------
    stored, recomputed : (n_voxels,)
        NaN where unknown.
    sessions : sequence of int
        The sessions read.
    name : str
        The file of the stored ones.
    """
    known = np.isfinite(stored) & np.isfinite(recomputed)
    if len(sessions) < _ENOUGH_SESSIONS or int(known.sum()) <= _FEW:
        return
    with np.errstate(invalid="ignore", divide="ignore"):  # one value throughout: NaN
        r = float(np.corrcoef(stored[known], recomputed[known])[0, 1])
    if not r >= LEAST_AGREEMENT:
        raise DataError(
            f"{name} and the ncsnr recomputed from {len(sessions)} sessions correlate "
            f"at {r:.2f} over {int(known.sum())} voxels, but {LEAST_AGREEMENT} at least"
            " is expected: use betas, ncsnr and design of one subject and release, "
            "each session under its own number."
        )


def strange_sessions(
    z: Floats, session: Ints, image: Ints
) -> tuple[tuple[int, ...], float, float] | None:
    """Return the sessions whose responses do not fit their images, if there are any.

    An image that is shown in two sessions evokes similar patterns. In a session of
    another number or another subject every trial has a wrong image, and its patterns
    are like those of the others by chance only. Of two sessions neither can be told.

    Parameters
    ----------
    z : (n_trials, n_voxels)
        Responses standardised within sessions; NaN where invalid.
    session, image : (n_trials,)

    Returns
    -------
    tuple of sessions, float, float, or None
        The sessions, the mean correlation of their patterns with those of the same
        images in other sessions, and that of the session in which it is highest.
    """
    order = np.argsort(image, kind="stable")
    first, second = order[:-1], order[1:]
    across = (image[first] == image[second]) & (session[first] != session[second])
    first, second = first[across], second[across]
    filled = np.where(np.isfinite(z), z, 0)
    norm = np.sqrt((filled**2).sum(axis=1))
    product = (filled[first] * filled[second]).sum(axis=1)
    r = product / np.maximum(norm[first] * norm[second], 1e-9)
    numbers = np.unique(session)
    involved = [(session[first] == n) | (session[second] == n) for n in numbers]
    if len(numbers) < 3 or min(int(pairs.sum()) for pairs in involved) < 2:
        return None
    mean = np.array([r[pairs].mean() for pairs in involved])
    error = np.array([r[pairs].std() / np.sqrt(pairs.sum()) for pairs in involved])
    best = float(mean.max())
    strange = (mean < _STRANGE * best) & (mean < _CHANCE * error)
    if not strange.any() or best < _CLEAR * error[strange].max():
        return None
    return tuple(numbers[strange].tolist()), float(mean[strange].max()), best
