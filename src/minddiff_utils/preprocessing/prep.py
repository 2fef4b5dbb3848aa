"""From single trials to a response matrix: scaling, averaging, splits, noise ceilings.

The core is pure functions on arrays; `prepare_responses` and `prepare_stimuli` feed
them from an NSD folder. Nothing is repaired silently: invalid, saturated and filled
values are counted. Place in the flow: layer 6, notebook 01; every later notebook reads
what is made here.

Notation
--------
v = voxel, s = session, i = image, m = repeats of i.
z_vst = (b_vst - mean_vs) / sd_vs ; y_vi = mean over the valid repeats of z.

References
----------
Allen, E. J. et al. (2022). Nature Neuroscience 25, 116-126, noise ceiling in Methods.
Wang, L. et al. (2015). Cerebral Cortex 25, 3911-3931, the areas of Kastner2015.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from minddiff_utils.core.config import AREAS, HVC, LVC, DataConfig
from minddiff_utils.core.errors import DataError, check_finite, check_shape
from minddiff_utils.core.images import resize
from minddiff_utils.core.rows import Images, Rows
from minddiff_utils.datasets.leaks import check_leaks, leak_report
from minddiff_utils.datasets.nsd.areas import (
    AREA_LABELS,
    NO_AREA,
    ROI_NAMES,
    assign_areas,
)
from minddiff_utils.datasets.nsd.facts import FACTS, MARK, SUBJECT1
from minddiff_utils.datasets.nsd.reader import (
    N_SHARED,
    N_TRIALS,
    NsdTree,
    Trials,
    to_percent,
    voxel_indices,
)
from minddiff_utils.datasets.validity import (
    Held,
    check_ncsnr,
    digest_betas,
    fault,
    strange_sessions,
    where_held,
)

__all__ = [
    "AREAS",
    "AREA_LABELS",
    "NO_AREA",
    "N_SHARED",
    "ROI_NAMES",
    "Averaged",
    "Responses",
    "Scaling",
    "area_table",
    "assign_areas",
    "average_repeats",
    "check_leaks",
    "check_splits",
    "count_areas",
    "find_leaks",
    "fit_scaling",
    "leak_report",
    "ncsnr_of_trials",
    "noise_ceiling",
    "noise_ceiling_r",
    "prepare_responses",
    "prepare_stimuli",
    "split_images",
    "zscore_sessions",
]

logger = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Voxels prepared at a time: bounds memory at the sizes of the real data.
_BLOCK = 1024
#: Most reliable voxels, by which sessions are compared.
_N_BEST = 256
_INT16 = np.iinfo(np.int16)


# --- scaling ------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaling:
    """A standardisation fitted on some rows, to be applied to any.

    Attributes
    ----------
    mean, scale : (n_columns,) float32
        Mean and SD (n - 1) of the rows it was fitted on; scale is 1 where invalid.
    valid : (n_columns,) bool
        False where the fitted rows are constant: there is no signal to scale.
    """

    mean: Matrix
    scale: Matrix
    valid: Mask

    def apply(self, X: Matrix) -> Matrix:
        """Return (X - mean) / scale, with NaN in invalid columns."""
        check_shape(X.shape, (None, len(self.mean)), "X")
        scaled = (X - self.mean) / self.scale
        scaled[:, ~self.valid] = np.nan
        return scaled.astype(np.float32)


def fit_scaling(X_train: Matrix) -> Scaling:
    """Fit mean and SD of each column, (n_rows, n_columns), on training rows only.

    Raises
    ------
    DataError
        Fewer than two rows, or a NaN or infinite value.
    """
    check_shape(X_train.shape, (None, None), "X_train")
    if len(X_train) < 2:
        raise DataError(
            f"Scaling needs at least 2 training rows, but has {len(X_train)}: "
            "use more sessions or fewer validation images."
        )
    check_finite(bool(np.isfinite(X_train).all()), "X_train")
    wide = X_train.astype(np.float64)
    deviation = wide.std(axis=0, ddof=1)
    valid = np.ptp(X_train, axis=0) > 0
    scale = np.where(valid, deviation, 1.0).astype(np.float32)
    return Scaling(wide.mean(axis=0).astype(np.float32), scale, valid)


def zscore_sessions(percent: Matrix, session: IntArray, fit_rows: Mask) -> Matrix:
    """Standardise each voxel within each session, (n_trials, n_voxels) float32.

    Mean and SD (n - 1, as NSD's `calczscore`) come from the trials in `fit_rows` alone.
    A voxel that is constant there in a session (NSD stores zeros where a voxel left the
    slab) is invalid in that session and NaN in the result.

    Raises
    ------
    DataError
        NaN in the input, shapes that do not match, or a session without fit rows.
    """
    check_shape(session.shape, (len(percent),), "session")
    check_shape(fit_rows.shape, (len(percent),), "fit_rows")
    check_finite(bool(np.isfinite(percent).all()), "Betas")
    z = np.empty_like(percent, dtype=np.float32)
    for number in np.unique(session):
        rows = session == number
        z[rows] = fit_scaling(percent[rows & fit_rows]).apply(percent[rows])
    return z


# --- averaging and splits -----------------------------------------------------------


@dataclass(frozen=True)
class Averaged:
    """Responses averaged over repeats, rows ascending by image.

    Attributes
    ----------
    image : (n_images,) int64
        The distinct images.
    betas : (n_images, n_voxels) float32
        Mean over valid repeats; 0, the session mean, where no repeat is valid.
    n_repeats : (n_images,) int32
        Trials of each image, valid or not.
    n_valid : (n_images, n_voxels) int32
        Repeats that are valid in each voxel; where there is none, betas are filled.
    """

    image: IntArray
    betas: Matrix
    n_repeats: npt.NDArray[np.int32]
    n_valid: npt.NDArray[np.int32]

    @property
    def n_filled(self) -> int:
        """Return how many values are 0 because no repeat was valid."""
        return int((self.n_valid == 0).sum())


def average_repeats(z: Matrix, image: IntArray) -> Averaged:
    """Average the trials of each image over its valid (not NaN) repeats.

    Raises
    ------
    DataError
        An infinite value, or as many image indices as trials are not given.
    """
    check_shape(image.shape, (len(z),), "image")
    check_finite(not np.isinf(z).any(), "Standardised responses")
    distinct, row, n_repeats = np.unique(image, return_inverse=True, return_counts=True)
    shape = (len(distinct), len(z))
    ones = np.ones(len(z), np.float64)
    gather = sparse.csr_array((ones, (row, np.arange(len(z)))), shape=shape)
    valid = np.isfinite(z)
    total = gather @ np.where(valid, z, 0).astype(np.float64)  # (n_images, n_voxels)
    count = gather @ valid.astype(np.float64)
    betas = (total / np.maximum(count, 1)).astype(np.float32)
    return Averaged(distinct, betas, n_repeats.astype(np.int32), count.astype(np.int32))


def split_images(
    image_10k: IntArray, n_validation: int, fold: int = 1
) -> npt.NDArray[np.str_]:
    """Return "train", "validation" or "test" for each distinct image, by image.

    Test = shared images (index below 1000), however many were shown; validation = a
    block of `n_validation` of the others, in ascending order of the subject's image
    index: the last block for `fold` 1, as in the published code, the one before it for
    2, and so on. Folds do not overlap; NSD lists a subject's own images in no order.

    Raises
    ------
    DataError
        Images are not distinct and ascending, no training or test image is left, or
        there is no such fold.

    Examples
    --------
    >>> split_images(np.array([3, 1000, 1001, 1005]), 1, fold=2).tolist()
    ['test', 'train', 'validation', 'train']
    """
    if (np.diff(image_10k) <= 0).any():
        raise DataError("Images must be distinct and ascending: average repeats first.")
    shared = image_10k < N_SHARED
    n_other = int((~shared).sum())
    if not shared.any() or n_validation >= n_other:
        raise DataError(
            f"{int(shared.sum())} shared and {n_other} other images cannot give a test "
            f"set, {n_validation} validation images and a training set: use more "
            "sessions, or lower data.n_validation."
        )
    last = n_other - (fold - 1) * n_validation
    if not n_validation <= last <= n_other:
        raise DataError(
            f"There is no validation fold {fold}: {n_other} images that are not shared "
            f"make folds 1 to {n_other // n_validation} of {n_validation} images; lower"
            " data.validation_fold or data.n_validation."
        )
    split = np.where(shared, "test", "train").astype("<U10")
    split[np.flatnonzero(~shared)[last - n_validation : last]] = "validation"
    return split


def check_splits(nsd_id: IntArray, split: npt.NDArray[np.str_]) -> None:
    """Raise DataError if an image stands in two splits, or twice in one."""
    check_shape(split.shape, nsd_id.shape, "split")
    unknown = set(split.tolist()) - {"train", "validation", "test"}
    if unknown:
        raise DataError(
            f"Split {sorted(unknown)[0]!r} is not train, validation or test."
        )
    ids, counts = np.unique(nsd_id, return_counts=True)
    if (counts > 1).any():
        twice = int(ids[counts > 1][0])
        where = ", ".join(sorted(set(split[nsd_id == twice].tolist())))
        raise DataError(
            f"Image nsd_id {twice} stands {int(counts.max())} times ({where}): "
            "average repeats before splitting, and split by image."
        )


# --- reliability --------------------------------------------------------------------


def ncsnr_of_trials(z: Matrix, image: IntArray) -> Matrix:
    """Return the noise-ceiling SNR of each voxel, (n_voxels,) float32; NaN if unknown.

    NSD's recipe: over images with exactly three trials, the mean of the variance over
    trials (n - 1) is the noise variance v^2 of z-scored data, and
    ncsnr = sqrt(max(0, 1 - v^2)) / v. Images with an invalid trial at a voxel are
    ignored there.

    References
    ----------
    cvnlab/nsddatapaper, `main/export_noiseceiling.m`.
    """
    check_shape(image.shape, (len(z),), "image")
    order = np.argsort(image, kind="stable")
    _, start, count = np.unique(image[order], return_index=True, return_counts=True)
    first = start[count == 3]
    if not len(first):
        return np.full(z.shape[1], np.nan, np.float32)
    trials = z[order[first[:, None] + np.arange(3)]]  # (n_images, 3, n_voxels)
    variance = trials.astype(np.float64).var(axis=1, ddof=1)
    known = np.isfinite(variance)
    n_known = known.sum(axis=0)
    noise = np.where(known, variance, 0).sum(axis=0) / np.maximum(n_known, 1)
    signal = np.sqrt(np.maximum(0.0, 1.0 - noise))
    usable = (n_known > 0) & (noise > 0)
    ratio = signal / np.sqrt(np.where(usable, noise, 1.0))
    return np.where(usable, ratio, np.nan).astype(np.float32)


def noise_ceiling(ncsnr: Matrix, n_repeats: npt.NDArray[np.integer[Any]]) -> Matrix:
    """Return the noise ceiling, percent of variance, of responses averaged as stated.

    NC = 100 p ncsnr^2 / (ncsnr^2 + mean(1 / m)): with mixed repeats m the noise
    variance of the averages is the mean over images of 1 / m. Where a voxel has no
    repeat (m = 0) the response is its mean, which nothing correlates with: p is the
    share of images that have one, and the mean is over those.

    Parameters
    ----------
    ncsnr : (n_voxels,)
    n_repeats : (n_images,) or (n_images, n_voxels) of int
        Repeats in all voxels, or the valid ones in each, which may be none.

    Raises
    ------
    DataError
        No image, one without repeat, a voxel without any, or an ncsnr that is negative
        or not finite.

    Examples
    --------
    >>> noise_ceiling(np.array([0, 1], np.float32), np.array([3, 3])).tolist()
    [0.0, 75.0]
    """
    least = n_repeats if n_repeats.ndim == 1 else n_repeats.max(axis=0, initial=0)
    if not least.size or least.min() < 1:
        raise DataError("A noise ceiling needs images with at least one repeat each.")
    check_finite(bool(np.isfinite(ncsnr).all()), "ncsnr")
    if (ncsnr < 0).any():
        raise DataError("ncsnr must not be negative: it is a ratio of SDs.")
    power = ncsnr.astype(np.float64) ** 2
    valid = n_repeats > 0
    n_valid = valid.sum(axis=0)
    noise = np.sum(valid / np.maximum(n_repeats, 1), axis=0) / n_valid
    share = n_valid / len(n_repeats)
    return np.asarray(100.0 * share * power / (power + noise), np.float32)


def noise_ceiling_r(ncsnr: Matrix, n_repeats: npt.NDArray[np.integer[Any]]) -> Matrix:
    """Return the highest correlation a perfect model can reach: sqrt(NC / 100)."""
    share = noise_ceiling(ncsnr, n_repeats) / np.float32(100)
    return np.asarray(np.sqrt(share), np.float32)


# --- areas --------------------------------------------------------------------------


# --- one subject --------------------------------------------------------------------


@dataclass(frozen=True)
class Responses:
    """One subject's prepared responses: the content of `responses.h5`.

    Attributes
    ----------
    betas : (n_images, n_voxels) float32
        Session-standardised, averaged over repeats; rows ascend by 10k index.
    nsd_id, n_repeats, split : (n_images,)
        Image (0-based), its trials with data, and "train", "validation" or "test".
    n_valid_test : (n_test, n_voxels) int32
        Valid trials of each test image in each voxel.
    voxel_ijk : (n_voxels, 3) int32
        Position in the volume, 0-based, in C order.
    roi : (n_voxels,) int32
        Index into `roi_names`.
    ncsnr, ncsnr_recomputed : (n_voxels,) float32
        NSD's file, and the same statistic from the trials read here (NaN: unknown).
    counts : dict
        How often something was excluded, filled, or found at the limit.
    """

    betas: Matrix
    nsd_id: IntArray
    n_repeats: npt.NDArray[np.int32]
    split: npt.NDArray[np.str_]
    n_valid_test: npt.NDArray[np.int32]
    voxel_ijk: npt.NDArray[np.int32]
    roi: npt.NDArray[np.int32]
    ncsnr: Matrix
    ncsnr_recomputed: Matrix
    counts: dict[str, int]

    @property
    def roi_names(self) -> tuple[str, ...]:
        """Return the names that `roi` counts: the areas, and "none" if it is there."""
        beyond = (self.roi >= len(AREAS)).any()
        return ROI_NAMES if beyond else AREAS

    @property
    def noise_ceiling_r(self) -> Matrix:
        """Return each voxel's correlation ceiling for the averaged test responses."""
        return noise_ceiling_r(self.ncsnr, self.n_valid_test)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the datasets of `responses.h5` by name."""
        return {
            "betas": self.betas,
            "nsd_id": self.nsd_id,
            "n_repeats": self.n_repeats,
            "split": self.split,
            "voxel_ijk": self.voxel_ijk,
            "roi": self.roi,
            "roi_names": np.array(self.roi_names),
            "ncsnr": self.ncsnr,
            "ncsnr_recomputed": self.ncsnr_recomputed,
            "noise_ceiling_r": self.noise_ceiling_r,
        }

    def summary(self) -> pd.DataFrame:
        """Return every count a reader should see, (quantity, n)."""
        names, sizes = np.unique(self.split, return_counts=True)
        rows = {f"{n} images": int(s) for n, s in zip(names, sizes, strict=True)}
        repeats, images = np.unique(
            self.n_repeats[self.split == "test"], return_counts=True
        )
        for repeat, n in zip(repeats, images, strict=True):
            rows[f"test images with {repeat} trials"] = int(n)
        rows |= {"voxels": self.betas.shape[1], **self.counts}
        return pd.DataFrame({"quantity": list(rows), "n": list(rows.values())})


def _blocks(n_voxels: int) -> Iterator[slice]:
    for first in range(0, n_voxels, _BLOCK):
        yield slice(first, min(first + _BLOCK, n_voxels))


def _read_trials(
    tree: NsdTree, subject: int, sessions: Sequence[int], mask: Mask
) -> tuple[npt.NDArray[np.int16], list[Held]]:
    """Return the betas of all sessions, and where each of them holds data."""
    betas = np.empty((len(sessions) * N_TRIALS, int(mask.sum())), np.int16)
    held, seen = [], dict[str, int]()
    for n_read, session in enumerate(sessions, start=1):
        raw = tree.betas(subject, session, mask)
        found = where_held(raw)
        wrong = fault(raw, found)
        other = seen.setdefault(digest_betas(raw), session)
        if not wrong and other != session:
            wrong = f"the numbers of session {other} once more"
        if wrong:
            raise DataError(
                f"{tree.betas_file(subject, session)} holds {wrong}: compare it with "
                f"its source and fetch it again, or do without session {session} "
                "(data.only_sessions)."
            )
        betas[(n_read - 1) * N_TRIALS : n_read * N_TRIALS] = raw
        held.append(found)
        words = "subject %d: session %d read (%d of %d)"
        logger.info(words, subject, session, n_read, len(sessions))
    return betas, held


def _read_areas(tree: NsdTree, subject: int) -> IntArray:
    """Return the volume of areas as indices into `ROI_NAMES`, -1 outside them all."""
    kastner, prf = "Kastner2015", "prf-visualrois"
    areas = assign_areas(
        tree.roi(subject, kastner),
        tree.roi_labels(subject, kastner),
        tree.roi(subject, prf),
        tree.roi_labels(subject, prf),
    )
    n_voxels = int((areas >= 0).sum())
    if not n_voxels:
        raise DataError(
            f"Subject {subject} has no voxel in any of the areas {', '.join(AREAS)}: "
            "check Kastner2015.nii.gz and prf-visualrois.nii.gz."
        )
    _report_areas(subject, areas)
    return areas


def _report_areas(subject: int, areas: IntArray) -> None:
    """Log voxels per area; warn where NSD's subject 1 has not MindDiffuser's number."""
    counts = np.bincount(areas[areas >= 0], minlength=len(AREAS)).tolist()
    each = ", ".join(f"{a} {n}" for a, n in zip(AREAS, counts, strict=True))
    logger.info("subject %d: %d voxels (%s)", subject, sum(counts), each)
    is_paper_s = subject == 1 and areas.shape == FACTS[1].grid
    if is_paper_s and sum(counts) != SUBJECT1["11 areas"]:
        logger.warning(
            "subject 1 has %d voxels in the 11 areas, but MindDiffuser used %d: these "
            "region files differ from the paper's",
            sum(counts),
            SUBJECT1["11 areas"],
        )


def _read_voxels(
    tree: NsdTree, subject: int, voxels: Literal["areas", "nsdgeneral"]
) -> IntArray:
    """Return the volume of indices into `ROI_NAMES`, -1 where a voxel is not used."""
    areas = _read_areas(tree, subject)
    if voxels == "areas":
        return areas
    general = tree.roi(subject, "nsdgeneral") > 0
    check_shape(general.shape, areas.shape, f"nsdgeneral of subject {subject}")
    if not general.any():
        raise DataError(
            f"Subject {subject} has no voxel in nsdgeneral.nii.gz: replace it by NSD's "
            "own file, or set data.voxels to areas."
        )
    named = np.where(areas < 0, ROI_NAMES.index(NO_AREA), areas)
    return np.where(general, named, -1)


def _fit_rows(trials: Trials, data: DataConfig) -> Mask:
    """Return the trials that may fit the session scaling."""
    if data.zscore_on == "all":
        return np.ones(len(trials.image_10k), bool)
    distinct = np.unique(trials.image_10k)
    split = split_images(distinct, data.n_validation, data.validation_fold)
    return np.isin(trials.image_10k, distinct[split == "train"])


def _count_repeats(
    trials: Trials, held: Sequence[Held]
) -> tuple[IntArray, npt.NDArray[np.int32]]:
    """Return the distinct images, and the trials of each that hold data.

    Raises
    ------
    DataError
        An image has none.
    """
    whole = np.concatenate([session.trials for session in held])
    image, row = np.unique(trials.image_10k, return_inverse=True)
    n_repeats = np.bincount(row, weights=whole)
    if not n_repeats.all():
        lost = np.isin(row, np.flatnonzero(n_repeats == 0))
        ids, numbers = (
            ", ".join(map(str, np.unique(values[lost])[:5].tolist()))
            for values in (trials.nsd_id, trials.session)
        )
        raise DataError(
            f"{int((n_repeats == 0).sum())} images (such as nsd_id {ids}) have no "
            f"trial with data: compare the betas of session {numbers} with their "
            "source and fetch them again, or do without (data.only_sessions)."
        )
    return image, n_repeats.astype(np.int32)


@dataclass(frozen=True)
class _Prepared:
    betas: Matrix  # (n_images, n_kept)
    n_valid_test: npt.NDArray[np.int32]  # (n_test, n_kept)
    ncsnr: Matrix  # (n_kept,), recomputed
    keep: Mask  # (n_voxels,), valid in at least one session
    counts: dict[str, int]


def _prepare_trials(
    raw: npt.NDArray[np.int16], trials: Trials, fit_rows: Mask, held: Sequence[Held]
) -> _Prepared:
    """Standardise, average and count, a block of voxels at a time."""
    betas, repeats, ncsnr, keep = [], [], [], []
    n_filled = n_invalid = n_limits = 0
    whole = np.concatenate([session.trials for session in held])
    rows = [trials.session == number for number in np.unique(trials.session)]
    for block in _blocks(raw.shape[1]):
        empty = np.zeros((len(raw), block.stop - block.start), bool)
        empty[~whole] = True
        for own, session in zip(rows, held, strict=True):
            empty[np.ix_(own, ~session.voxels[block])] = True
        percent = to_percent(raw[:, block])
        z = zscore_sessions(percent, trials.session, fit_rows & whole)
        z[empty] = np.nan
        valid = np.isfinite(z).any(axis=0)
        averaged = average_repeats(z[:, valid], trials.image_10k)
        z_all = zscore_sessions(percent[:, valid], trials.session, whole)
        z_all[empty[:, valid]] = np.nan
        betas.append(averaged.betas)
        repeats.append(averaged.n_valid[averaged.image < N_SHARED])
        ncsnr.append(ncsnr_of_trials(z_all, trials.image_10k))  # NSD scales on all
        keep.append(valid)
        found = raw[:, block][:, valid]
        n_limits += int(((found == _INT16.min) | (found == _INT16.max)).sum())
        n_filled += averaged.n_filled
        n_invalid += sum(
            int(np.isnan(z[own][:, valid]).all(axis=0).sum()) for own in rows
        )
    kept = np.concatenate(keep)
    counts = {
        "voxels left out: no valid session": int((~kept).sum()),
        "voxel-sessions left out: no data": n_invalid,
        "trials left out: no data": int((~whole).sum()),
        "values filled with 0: no valid repeat": n_filled,
        "trial values at the int16 limits": n_limits,
    }
    return _Prepared(
        np.hstack(betas), np.hstack(repeats), np.concatenate(ncsnr), kept, counts
    )


def _check_sessions(
    tree: NsdTree,
    subject: int,
    raw: npt.NDArray[np.int16],
    trials: Trials,
    prepared: _Prepared,
) -> None:
    """Raise DataError if a session's responses do not fit the images it showed.

    The most reliable voxels tell.
    """
    reliable = np.argsort(-np.nan_to_num(prepared.ncsnr), kind="stable")[:_N_BEST]
    best = np.flatnonzero(prepared.keep)[reliable]
    every = np.ones(len(raw), bool)
    z = zscore_sessions(to_percent(raw[:, best]), trials.session, every)
    strange = strange_sessions(z, trials.session, trials.image_10k)
    if strange is not None:
        sessions, r, highest = strange
        named = ", ".join(map(str, sessions))
        raise DataError(
            f"{tree.betas_file(subject, sessions[0])} does not fit the images of its "
            f"session ({named}): responses to repeated images correlate with those of "
            f"other sessions at {r:.2f}, but at {highest:.2f} elsewhere; compare it "
            "with its source, as it may be another session or subject under this name,"
            " or do without it (data.only_sessions)."
        )


def _complete_ncsnr(stored: Matrix, recomputed: Matrix) -> tuple[Matrix, int]:
    """Fill unknown values from the trials, else 0 (no evidence of signal); count."""
    unknown = np.isnan(stored)
    substitute = np.where(np.isnan(recomputed), 0, recomputed)
    return np.where(unknown, substitute, stored).astype(np.float32), int(unknown.sum())


def _stored_ncsnr(tree: NsdTree, subject: int, grid: tuple[int, ...]) -> Matrix:
    """Return NSD's ncsnr on the grid; NaN throughout where there is no such file."""
    if not tree.has_ncsnr(subject):
        logger.warning(
            "subject %d has no ncsnr.nii.gz: ncsnr recomputed from the trials read is"
            " used in its place",
            subject,
        )
        return np.full(grid, np.nan, np.float32)
    snr = tree.ncsnr(subject)
    check_shape(snr.shape, grid, f"ncsnr of subject {subject}")
    return snr


def prepare_responses(tree: NsdTree, subject: int, data: DataConfig) -> Responses:
    """Read and prepare one subject's responses, in the voxels that `data` names.

    Raises
    ------
    DataError
        A file is missing, damaged or does not fit the others.
    """
    numbers = tree.sessions_of(subject, data.session_numbers)
    tree.check_sessions(subject, numbers)
    trials = tree.trials(subject, numbers[-1]).of(numbers)
    areas = _read_voxels(tree, subject, data.voxels)
    mask = areas >= 0
    snr = _stored_ncsnr(tree, subject, areas.shape)
    raw, held = _read_trials(tree, subject, numbers, mask)
    image, n_repeats = _count_repeats(trials, held)
    prepared = _prepare_trials(raw, trials, _fit_rows(trials, data), held)
    keep = prepared.keep
    _check_sessions(tree, subject, raw, trials, prepared)
    check_ncsnr(
        snr[mask][keep], prepared.ncsnr, numbers, f"ncsnr.nii.gz of subject {subject}"
    )
    ncsnr, n_unknown = _complete_ncsnr(snr[mask][keep], prepared.ncsnr)
    responses = Responses(
        betas=prepared.betas,
        nsd_id=tree.design().images[subject - 1, image],
        n_repeats=n_repeats,
        n_valid_test=prepared.n_valid_test,
        split=split_images(image, data.n_validation, data.validation_fold),
        voxel_ijk=voxel_indices(mask)[keep],
        roi=areas[mask][keep].astype(np.int32),
        ncsnr=ncsnr,
        ncsnr_recomputed=prepared.ncsnr,
        counts=prepared.counts | {"voxels without ncsnr in the file": n_unknown},
    )
    check_splits(responses.nsd_id, responses.split)
    return responses


def prepare_stimuli(
    tree: NsdTree, nsd_id: IntArray, size: int, n_captions: int
) -> dict[str, npt.NDArray[Any] | Rows]:
    """Return the content of `stimuli.h5`: images at `size` px, nsd_id, captions.

    Images are read and resized when they are asked for, so that none needs to be held.
    """
    images = Rows(
        lambda rows: resize(tree.stimuli(nsd_id[rows]), size),
        (len(nsd_id), size, size, 3),
        np.dtype(np.uint8),
    )
    captions = tree.captions(nsd_id, n_captions)
    return {"images": images, "nsd_id": nsd_id, "captions": captions}


# --- tables -------------------------------------------------------------------------


def _area_set(area: str) -> str:
    if area == NO_AREA:
        return NO_AREA
    return "LVC" if area in LVC else "HVC"


def count_areas(roi: npt.NDArray[np.int32], subject: int) -> pd.DataFrame:
    """Return (subject, area, area_set, n_voxels), areas from early to late.

    Voxels outside the areas, if there are any, form a last row, "none".
    """
    counts = np.bincount(roi, minlength=len(AREAS))
    names = ROI_NAMES[: len(counts)]
    return pd.DataFrame(
        {
            "subject": subject,
            "area": list(names),
            "area_set": [_area_set(area) for area in names],
            "n_voxels": counts,
        }
    )


def area_table(responses: Responses) -> pd.DataFrame:
    """Return medians per area, LVC, HVC and all: ncsnr, recomputed ncsnr, ceiling.

    Columns: area, n_voxels, ncsnr, ncsnr_recomputed, noise_ceiling_r. Areas without a
    voxel have NaN.
    """
    voxels = pd.DataFrame(
        {
            "ncsnr": responses.ncsnr,
            "ncsnr_recomputed": responses.ncsnr_recomputed,
            "noise_ceiling_r": responses.noise_ceiling_r,
        }
    )
    known = responses.roi_names
    groups = {name: (name,) for name in known} | {"LVC": LVC, "HVC": HVC, "all": known}
    names = np.array(known)[responses.roi]
    rows = []
    for group, members in groups.items():
        inside = voxels[np.isin(names, members)]
        rows.append({"area": group, "n_voxels": len(inside), **inside.median()})
    return pd.DataFrame(rows)


def find_leaks(
    tree: NsdTree,
    subject: int,
    responses: Responses,
    images: Images,
    captions: npt.NDArray[np.object_],
) -> pd.DataFrame:
    """Return `leak_report` of one subject's responses, their images and captions.

    In-silico captions come from a small grammar, so that many scenes share all of
    theirs; they are compared in measured data only.
    """
    shared_id = tree.design().images[subject - 1, :N_SHARED]
    coco_id = tree.stim_info("cocoId")["cocoId"].to_numpy()[responses.nsd_id]
    said = None if (tree.root / MARK).is_file() else captions.tolist()
    return leak_report(responses, images, shared_id, coco_id, said)
