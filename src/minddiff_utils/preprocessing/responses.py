"""One subject's responses: read, scaled, averaged, split, with their noise ceilings.

Nothing is repaired silently: invalid, saturated and filled values are counted. What is
made here is the content of `responses.h5`.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.types import IntArray, Mask, Matrix
from minddiff_utils.datasets.nsd.areas import ROI_NAMES
from minddiff_utils.datasets.nsd.betas import voxel_indices
from minddiff_utils.datasets.nsd.experiment import Trials, to_percent
from minddiff_utils.datasets.nsd.layout import N_SHARED, N_TRIALS
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.datasets.validity import (
    Held,
    check_ncsnr,
    digest_betas,
    fault,
    strange_sessions,
    where_held,
)
from minddiff_utils.preprocessing.noise_ceiling import ncsnr_of_trials, noise_ceiling_r
from minddiff_utils.preprocessing.splits import check_splits, split_images
from minddiff_utils.preprocessing.trials import average_repeats, zscore_sessions
from minddiff_utils.preprocessing.voxels import read_voxels

__all__ = ["Responses", "area_table", "prepare_responses"]

logger = logging.getLogger(__name__)


#: Voxels prepared at a time: bounds memory at the sizes of the real data.
_BLOCK = 1024
#: Most reliable voxels, by which sessions are compared.
_N_BEST = 256
_INT16 = np.iinfo(np.int16)
_STORED = (
    *("betas", "nsd_id", "n_repeats", "split", "voxel_ijk", "roi", "roi_names"),
    *("ncsnr", "ncsnr_recomputed", "noise_ceiling_r"),
)


@dataclass(frozen=True)
class Responses:
    """One subject's prepared responses: the content of `responses.h5`.

    Attributes
    ----------
    betas : (n_images, n_voxels) float32
        Session-standardised, averaged over repeats; rows ascend by 10k index.
    nsd_id, n_repeats, split : (n_images,)
        Image (0-based), its trials with data, and "train", "validation", "test" or
        "test2" (a simulation's second test set).
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
        return {name: np.asarray(getattr(self, name)) for name in _STORED}

    def summary(self) -> pd.DataFrame:
        """Return every count a reader should see, (quantity, n)."""
        names, sizes = np.unique(self.split, return_counts=True)
        rows = {f"{n} images": int(s) for n, s in zip(names, sizes, strict=True)}
        for part in ("train", "test"):
            repeats, images = np.unique(
                self.n_repeats[self.split == part], return_counts=True
            )
            for repeat, n in zip(repeats.tolist(), images.tolist(), strict=True):
                plural = "s" if repeat > 1 else ""
                rows[f"{part} images with {repeat} trial{plural}"] = n
        rows |= {"voxels": self.betas.shape[1], **self.counts}
        return pd.DataFrame({"quantity": list(rows), "n": list(rows.values())})


def area_table(responses: Responses) -> pd.DataFrame:
    """Return medians per area, LVC, HVC and all: ncsnr, recomputed ncsnr, ceiling.

    Columns: area, n_voxels, ncsnr, ncsnr_recomputed, noise_ceiling_r. Areas without a
    voxel have NaN.
    """
    columns = ("ncsnr", "ncsnr_recomputed", "noise_ceiling_r")
    voxels = pd.DataFrame({name: getattr(responses, name) for name in columns})
    known = responses.roi_names
    groups = {name: (name,) for name in known} | {"LVC": LVC, "HVC": HVC, "all": known}
    names = np.array(known)[responses.roi]
    rows = []
    for group, members in groups.items():
        inside = voxels[np.isin(names, members)]
        rows.append({"area": group, "n_voxels": len(inside), **inside.median()})
    return pd.DataFrame(rows)


# --- one subject --------------------------------------------------------------------


def _read_trials(
    tree: NsdTree, subject: int, sessions: Sequence[int], mask: Mask
) -> tuple[npt.NDArray[np.int16], list[Held]]:
    """Return the betas of all sessions, and where each of them holds data."""
    betas = np.empty((len(sessions) * N_TRIALS, int(mask.sum())), np.int16)
    held, seen = [], dict[str, int]()
    for row, session in enumerate(sessions):
        raw = tree.betas(subject, session, mask)
        where = where_held(raw)
        wrong = fault(raw, where)
        other = seen.setdefault(digest_betas(raw), session)
        if not wrong and other != session:
            wrong = f"the numbers of session {other} once more"
        if wrong:
            raise DataError(
                f"{tree.betas_file(subject, session)} holds {wrong}: compare it with "
                f"its source and fetch it again, or do without session {session} "
                "(data.only_sessions)."
            )
        betas[row * N_TRIALS : (row + 1) * N_TRIALS] = raw
        held.append(where)
        words = "subject %d: session %d read (%d of %d)"
        logger.info(words, subject, session, row + 1, len(sessions))
    return betas, held


def _fit_rows(
    trials: Trials, image: IntArray, split: npt.NDArray[np.str_], data: DataConfig
) -> Mask:
    """Return the trials that may fit the session scaling."""
    if data.zscore_on == "all":
        return np.ones(len(trials.image_10k), bool)
    return np.isin(trials.image_10k, image[split == "train"])


def _split(
    tree: NsdTree, subject: int, image: IntArray, data: DataConfig
) -> npt.NDArray[np.str_]:
    """Return the split of each image."""
    images = tree.design().images[subject - 1, :N_SHARED]
    second = np.flatnonzero(np.isin(images, tree.second_test_set())).tolist()
    return split_images(image, data.n_validation, data.validation_fold, second=second)


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
    raw: npt.NDArray[np.int16],
    trials: Trials,
    fit_rows: Mask,
    held: Sequence[Held],
    test: Mask,
) -> _Prepared:
    """Standardise, average and count, a block of voxels at a time.

    `test` is the mask of test images among the distinct ones.
    """
    whole = np.concatenate([session.trials for session in held])
    rows = [trials.session == number for number in np.unique(trials.session)]
    counts, blocks = Counter[str](), []
    for first in range(0, raw.shape[1], _BLOCK):
        block = slice(first, first + _BLOCK)
        empty = np.tile(~whole[:, None], (1, len(held[0].voxels[block])))
        for trial_rows, session in zip(rows, held, strict=True):
            empty[np.ix_(trial_rows, ~session.voxels[block])] = True
        percent = to_percent(raw[:, block])
        z = zscore_sessions(percent, trials.session, fit_rows & whole)
        z[empty] = np.nan
        keep = np.isfinite(z).any(axis=0)
        averaged = average_repeats(z[:, keep], trials.image_10k)
        z_all = zscore_sessions(percent[:, keep], trials.session, whole)
        z_all[empty[:, keep]] = np.nan
        ncsnr = ncsnr_of_trials(z_all, trials.image_10k)  # NSD scales on all
        repeats = averaged.n_valid[test]
        blocks.append((averaged.betas, repeats, ncsnr, keep))
        kept = raw[:, block][:, keep]
        lost = [np.isnan(z[row][:, keep]).all(axis=0).sum() for row in rows]
        at_limit = (kept == _INT16.min) | (kept == _INT16.max)
        counts["voxels left out: no valid session"] += int((~keep).sum())
        counts["voxel-sessions left out: no data"] += int(sum(lost))
        counts["trials left out: no data"] = int((~whole).sum())
        counts["values filled with 0: no valid repeat"] += averaged.n_filled
        counts["trial values at the int16 limits"] += int(at_limit.sum())
    betas, repeats, ncsnr, keep = (
        np.concatenate(part, axis=-1) for part in zip(*blocks, strict=True)
    )
    return _Prepared(betas, repeats, ncsnr, keep, dict(counts))


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
    areas = read_voxels(tree, subject, data.voxels)
    mask = areas >= 0
    snr = _stored_ncsnr(tree, subject, areas.shape)
    raw, held = _read_trials(tree, subject, numbers, mask)
    image, n_repeats = _count_repeats(trials, held)
    split = _split(tree, subject, image, data)
    fit_rows = _fit_rows(trials, image, split, data)
    prepared = _prepare_trials(raw, trials, fit_rows, held, split == "test")
    keep = prepared.keep
    _check_sessions(tree, subject, raw, trials, prepared)
    check_ncsnr(
        snr[mask][keep], prepared.ncsnr, numbers, f"ncsnr.nii.gz of subject {subject}"
    )
    ncsnr, n_unknown = _complete_ncsnr(snr[mask][keep], prepared.ncsnr)
    nsd_id = tree.design().images[subject - 1, image]
    check_splits(nsd_id, split)
    return Responses(
        betas=prepared.betas,
        nsd_id=nsd_id,
        n_repeats=n_repeats,
        n_valid_test=prepared.n_valid_test,
        split=split,
        voxel_ijk=voxel_indices(mask)[keep],
        roi=areas[mask][keep].astype(np.int32),
        ncsnr=ncsnr,
        ncsnr_recomputed=prepared.ncsnr,
        counts=prepared.counts | {"voxels without ncsnr in the file": n_unknown},
    )
