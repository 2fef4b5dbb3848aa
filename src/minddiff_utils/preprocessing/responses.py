"""One subject's responses: read, scaled, averaged, split, with their noise ceilings.

Nothing is repaired silently: invalid, saturated and filled values are counted. What is
made here is the content of `responses.h5`.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.types import IntArray, Mask, Matrix
from minddiff_utils.datasets.protocol import DataSet, Trials, Units
from minddiff_utils.datasets.validity import (
    Held,
    at_limits,
    check_ncsnr,
    digest_betas,
    fault,
    strange_sessions,
    where_held,
)
from minddiff_utils.preprocessing.noise_ceiling import ncsnr_of_trials, noise_ceiling_r
from minddiff_utils.preprocessing.splits import (
    check_splits,
    evenly,
    may_scale,
    some_images,
    split_images,
)
from minddiff_utils.preprocessing.trials import average_repeats, zscore_sessions

__all__ = [
    "Responses",
    "area_table",
    "compare_ncsnr",
    "count_areas",
    "prepare_responses",
]

logger = logging.getLogger(__name__)

Stored = npt.NDArray[np.int16] | Matrix

#: Voxels prepared at a time: bounds memory at the sizes of the real data.
_BLOCK = 1024
#: Most reliable voxels, by which sessions are compared.
_N_BEST = 256


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
    units : Units
        The voxels, with their areas; ncsnr is NSD's file, completed from the trials.
    ncsnr_recomputed : (n_voxels,) float32
        The same statistic from the trials read here (NaN: unknown).
    counts : dict
        How often something was excluded, filled, or found at the limit.
    data_set : str
        The name of the data set.
    notes : tuple of str
        What a reader of any number from these responses must know.
    """

    betas: Matrix
    nsd_id: IntArray
    n_repeats: npt.NDArray[np.int32]
    split: npt.NDArray[np.str_]
    n_valid_test: npt.NDArray[np.int32]
    units: Units
    ncsnr_recomputed: Matrix
    counts: dict[str, int]
    data_set: str
    notes: tuple[str, ...] = ()

    @property
    def voxel_ijk(self) -> npt.NDArray[np.int32]:
        """Return each voxel's position in the volume, 0-based, in C order."""
        if not self.units.are_voxels:
            raise DataError(f"{self.data_set} has vertices, which lie in no volume.")
        return self.units.position

    @property
    def vertex(self) -> npt.NDArray[np.int32]:
        """Return each vertex as hemisphere (0 left, 1 right) and index, 0-based."""
        if self.units.are_voxels:
            raise DataError(f"{self.data_set} has voxels, which lie on no surface.")
        return self.units.position

    @property
    def roi(self) -> npt.NDArray[np.int32]:
        """Return each voxel's area as an index into `roi_names`."""
        return self.units.area

    @property
    def roi_names(self) -> tuple[str, ...]:
        """Return the names that `roi` counts: the areas, and "none" if it is there."""
        return self.units.area_names

    @property
    def ncsnr(self) -> Matrix:
        """Return each voxel's noise-ceiling SNR."""
        if self.units.ncsnr is None:
            raise DataError(f"{self.data_set} states no ncsnr of its responses.")
        return self.units.ncsnr

    @property
    def noise_ceiling_r(self) -> Matrix:
        """Return each voxel's correlation ceiling for the averaged test responses.

        NaN throughout where no ncsnr is known, as nothing then stands in for it.
        """
        if np.isnan(self.ncsnr).all():
            return self.ncsnr.copy()
        return noise_ceiling_r(self.ncsnr, self.n_valid_test)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the datasets of `responses.h5` by name."""
        position = "voxel_ijk" if self.units.are_voxels else "vertex"
        names = (
            *("betas", "nsd_id", "n_repeats", "split", position, "roi", "roi_names"),
            *("ncsnr", "ncsnr_recomputed", "noise_ceiling_r", "data_set"),
        )
        arrays = {name: np.asarray(getattr(self, name)) for name in names}
        return arrays | ({"notes": np.array(self.notes)} if self.notes else {})

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


def count_areas(units: Units, subject: int) -> pd.DataFrame:
    """Return (subject, area, area_set, n_voxels), areas from early to late.

    Voxels outside the areas, if there are any, form a last row, "none".
    """
    names, sets = units.area_names, units.area_sets
    set_of = {area: name for name, areas in sets.items() for area in areas}
    return pd.DataFrame(
        {
            "subject": subject,
            "area": list(names),
            "area_set": [set_of.get(area, "none") for area in names],
            "n_voxels": np.bincount(units.area, minlength=len(names)),
        }
    )


def area_table(responses: Responses) -> pd.DataFrame:
    """Return medians per area, LVC, HVC and all: ncsnr, recomputed ncsnr, ceiling.

    Columns: area, n_voxels, ncsnr, ncsnr_recomputed, noise_ceiling_r. Areas without a
    voxel have NaN.
    """
    columns = ("ncsnr", "ncsnr_recomputed", "noise_ceiling_r")
    voxels = pd.DataFrame({name: getattr(responses, name) for name in columns})
    known = responses.roi_names
    groups: Mapping[str, tuple[str, ...]] = {
        **{name: (name,) for name in known},
        **responses.units.area_sets,
        "all": known,
    }
    names = np.array(known)[responses.roi]
    rows = []
    for group, members in groups.items():
        inside = voxels[np.isin(names, members)]
        rows.append({"area": group, "n_voxels": len(inside), **inside.median()})
    return pd.DataFrame(rows)


def compare_ncsnr(responses: Responses) -> str:
    """Return how the ncsnr stored and that of the trials read agree, in words."""
    known = np.isfinite(responses.ncsnr_recomputed)
    if not known.any():
        return "ncsnr cannot be recomputed: no image has three trials of its own"
    pair = responses.ncsnr[known], responses.ncsnr_recomputed[known]
    agreement, shift = np.corrcoef(*pair)[0, 1], np.median(pair[1] - pair[0])
    return (
        f"stored and recomputed ncsnr: r = {agreement:.3f}, median shift {shift:+.3f}"
    )


# --- one subject --------------------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """The responses of one subject as they were read, and what they respond to."""

    data_set: DataSet
    subject: int
    trials: Trials
    raw: Stored  # (n_trials, n_voxels)
    held: Sequence[Held]  # where each session holds data

    @property
    def whole(self) -> Mask:
        """Return which trials hold data, (n_trials,)."""
        return np.concatenate([session.trials for session in self.held])

    def scaled(self, voxels: slice | IntArray) -> Matrix:
        """Return responses of some voxels as floats, with 0 where there is no data."""
        values = self.data_set.scaled(self.raw[:, voxels])
        values[np.isnan(values)] = 0
        return values

    def standardised(self, values: Matrix, fit_rows: Mask) -> Matrix:
        """Return scaled responses standardised within sessions, unless they are so."""
        if self.data_set.are_averaged:
            return values.copy()
        return zscore_sessions(values, self.trials.session, fit_rows)


def _read(data_set: DataSet, subject: int, trials: Trials, units: Units) -> _Read:
    """Return the responses of all sessions, and where each of them holds data."""
    sessions = np.unique(trials.session).tolist()
    betas: Stored | None = None
    held, seen = list[Held](), dict[str, int]()
    for n_read, session in enumerate(sessions, start=1):
        raw = data_set.responses(subject, session, units)
        where = where_held(raw)
        wrong = fault(raw, where)
        other = seen.setdefault(digest_betas(raw), session)
        if not wrong and other != session:
            wrong = f"the numbers of session {other} once more"
        if wrong:
            raise DataError(
                f"{data_set.responses_file(subject, session)} holds {wrong}: compare it"
                f" with its source and fetch it again, or do without session {session} "
                "(data.only_sessions)."
            )
        if betas is None:
            betas = np.empty((len(trials.session), raw.shape[1]), raw.dtype)
        betas[trials.session == session] = raw
        held.append(where)
        words = "subject %d: session %d read (%d of %d)"
        logger.info(words, subject, session, n_read, len(sessions))
    assert betas is not None  # there is a session
    return _Read(data_set, subject, trials, betas, held)


def _some_trials(read: _Read, tests: Mask, most: int | None) -> Mask:
    """Return which trials are averaged: of those in `tests` an image's first ones."""
    if most is None:
        return np.ones(len(tests), bool)
    if read.data_set.are_averaged:
        raise ConfigError(
            f"Responses of {read.data_set.name} are averages over trials, of which none"
            " can be left out: do without data.n_test_repeats."
        )
    nth = pd.Series(read.whole.astype(int)).groupby(read.trials.place).cumsum()
    return np.asarray(~tests | (nth <= most))


def _count_repeats(read: _Read, some: Mask) -> tuple[IntArray, npt.NDArray[np.int32]]:
    """Return the place of each distinct image, and its averaged trials that hold data.

    Raises
    ------
    DataError
        An image has none.
    """
    trials = read.trials
    place, row = np.unique(trials.place, return_inverse=True)
    n_repeats = np.bincount(row, weights=read.whole & some)
    if not n_repeats.all():
        lost = np.isin(row, np.flatnonzero(n_repeats == 0))
        ids, numbers = (
            ", ".join(map(str, np.unique(values[lost])[:5].tolist()))
            for values in (trials.image_id, trials.session)
        )
        raise DataError(
            f"{int((n_repeats == 0).sum())} images (such as nsd_id {ids}) have no "
            f"trial with data: compare the betas of session {numbers} with their "
            "source and fetch them again, or do without (data.only_sessions)."
        )
    return place, n_repeats.astype(np.int32)


@dataclass(frozen=True)
class _Prepared:
    betas: Matrix  # (n_images, n_kept)
    n_valid: npt.NDArray[np.int32]  # (n_test, n_kept)
    ncsnr: Matrix  # (n_kept,), recomputed
    keep: Mask  # (n_voxels,), valid in at least one session
    counts: dict[str, int]


def _prepare(read: _Read, fit_rows: Mask, some: Mask, is_test: Mask) -> _Prepared:
    """Standardise, average and count, a block of voxels at a time.

    Trials in `fit_rows` fit the scaling, those in `some` are averaged; of the images
    (n_images,) in `is_test` valid trials are counted voxel by voxel.
    """
    trials, whole = read.trials, read.whole
    rows = [trials.session == number for number in np.unique(trials.session)]
    counts, blocks = Counter[str](), []
    for first in range(0, read.raw.shape[1], _BLOCK):
        block = slice(first, first + _BLOCK)
        empty = np.tile(~whole[:, None], (1, len(read.held[0].voxels[block])))
        for trial_rows, session in zip(rows, read.held, strict=True):
            empty[np.ix_(trial_rows, ~session.voxels[block])] = True
        percent = read.scaled(block)
        z = read.standardised(percent, fit_rows & whole)
        z[empty] = np.nan
        z[~some] = np.nan
        keep = np.isfinite(z).any(axis=0)
        averaged = average_repeats(z[:, keep], trials.place)
        z_all = read.standardised(percent[:, keep], whole)
        z_all[empty[:, keep]] = np.nan
        ncsnr = ncsnr_of_trials(z_all, trials.place)  # NSD scales on all
        blocks.append((averaged.betas, averaged.n_valid[is_test], ncsnr, keep))
        lost = [np.isnan(z[row][:, keep]).all(axis=0).sum() for row in rows]
        at_limit = at_limits(read.raw[:, block][:, keep])
        counts["voxels left out: no valid session"] += int((~keep).sum())
        counts["voxel-sessions left out: no data"] += int(sum(lost))
        counts["trials left out: no data"] = int((~whole).sum())
        counts["values filled with 0: no valid repeat"] += averaged.n_filled
        counts["trial values at the int16 limits"] += int(at_limit.sum())
    betas, n_valid, ncsnr, keep = (
        np.concatenate(part, axis=-1) for part in zip(*blocks, strict=True)
    )
    return _Prepared(betas, n_valid, ncsnr, keep, dict(counts))


def _check_sessions(read: _Read, prepared: _Prepared) -> None:
    """Raise DataError if a session's responses do not fit the images it showed.

    The most reliable voxels tell.
    """
    reliable = np.argsort(-np.nan_to_num(prepared.ncsnr), kind="stable")[:_N_BEST]
    best = np.flatnonzero(prepared.keep)[reliable]
    every = np.ones(len(read.raw), bool)
    z = read.standardised(read.scaled(best), every)
    strange = strange_sessions(z, read.trials.session, read.trials.place)
    if strange is not None:
        sessions, r, highest = strange
        named = ", ".join(map(str, sessions))
        file = read.data_set.responses_file(read.subject, sessions[0])
        raise DataError(
            f"{file} does not fit the images of its "
            f"session ({named}): responses to repeated images correlate with those of "
            f"other sessions at {r:.2f}, but at {highest:.2f} elsewhere; compare it "
            "with its source, as it may be another session or subject under this name,"
            " or do without it (data.only_sessions)."
        )


def _complete_ncsnr(stored: Matrix, recomputed: Matrix) -> tuple[Matrix, int]:
    """Fill unknown values from the trials, else 0 (no evidence of signal); count.

    Where nothing at all is known, nothing is filled.
    """
    unknown = np.isnan(stored)
    if unknown.all() and np.isnan(recomputed).all():
        return stored, len(stored)
    substitute = np.where(np.isnan(recomputed), 0, recomputed)
    return np.where(unknown, substitute, stored).astype(np.float32), int(unknown.sum())


def _split(
    data_set: DataSet, subject: int, data: DataConfig, every: IntArray, place: IntArray
) -> tuple[IntArray, npt.NDArray[np.str_]]:
    """Return the rows of the images that are used, of `every`, and what each is for."""
    is_test = np.isin(every, data_set.test_images(subject))
    is_second = np.isin(every, data_set.second_test_images(subject))
    kept = np.flatnonzero(some_images(is_test * 1 + is_second, data.n_images))
    split = split_images(
        place[kept],
        is_test[kept],
        data.n_validation,
        data.validation_fold,
        is_second=is_second[kept],
    )
    train = np.flatnonzero(split == "train")
    n_train = data.n_train or len(train)
    left_out = np.delete(train, evenly(len(train), n_train))
    return np.delete(kept, left_out), np.delete(split, left_out)


def prepare_responses(data_set: DataSet, subject: int, data: DataConfig) -> Responses:
    """Read and prepare one subject's responses, in the voxels that `data` names.

    Raises
    ------
    ConfigError
        `data` asks for what the data set cannot give.
    DataError
        A file is missing, damaged or does not fit the others.
    """
    if data_set.are_averaged and data.zscore_on != "all":
        raise ConfigError(
            f"Responses of {data_set.name} were standardised on all trials, those of "
            "test images included, before they were published: set data.zscore_on to "
            "all, which says so in every table."
        )
    numbers = data_set.sessions(subject, data.session_numbers)
    trials = data_set.trials(subject, numbers)
    units = data_set.units(subject, data.voxels)
    read = _read(data_set, subject, trials, units)
    test_images = data_set.test_images(subject)
    some = _some_trials(
        read, np.isin(trials.image_id, test_images), data.n_test_repeats
    )
    place, n_repeats = _count_repeats(read, some)
    every = trials.image_id[np.unique(trials.place, return_index=True)[1]]
    kept, split = _split(data_set, subject, data, every, place)
    nsd_id, n_repeats = every[kept], n_repeats[kept]
    check_splits(nsd_id, split)
    known = {"nsd_id": nsd_id, "split": split}
    fits = may_scale(trials.image_id, test_images, known) | (data.zscore_on == "all")
    tests = split == "test"
    prepared = _prepare(read, fits, some, np.isin(every, nsd_id[tests]))
    _check_sessions(read, prepared)
    units = units.at(prepared.keep)
    stored = units.ncsnr
    if stored is None:
        stored = np.full(len(units.area), np.nan, np.float32)
    name = f"ncsnr.nii.gz of subject {subject}"
    check_ncsnr(stored, prepared.ncsnr, numbers, name)
    ncsnr, n_unknown = _complete_ncsnr(stored, prepared.ncsnr)
    averaged = data_set.n_repeats(subject, nsd_id)
    if averaged is None:
        averaged = np.ones(len(nsd_id), np.int64)
    return Responses(
        betas=prepared.betas[kept],
        nsd_id=nsd_id,
        n_repeats=(n_repeats * averaged).astype(np.int32),
        split=split,
        n_valid_test=prepared.n_valid * averaged[tests, None].astype(np.int32),
        units=replace(units, ncsnr=ncsnr),
        ncsnr_recomputed=prepared.ncsnr,
        counts=prepared.counts | {"voxels without ncsnr in the file": n_unknown},
        data_set=data_set.name,
        notes=data_set.notes(subject),
    )
