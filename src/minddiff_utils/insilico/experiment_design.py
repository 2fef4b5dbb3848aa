"""The in-silico experiment: which image is shown in which trial, and the design tables.

All indices in the files are NSD's: 10k index and 73k id 1-based, nsdId 0-based. Not a
reader, and not a copy of NSD's design: the sizes are NSD's, the order is ours. As in
NSD's first sessions a subject's own images have one, two or three trials.

References
----------
Allen et al. 2022, data manual, `nsd_expdesign.mat`, `nsd_stim_info_merged.csv`,
`responses.tsv`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.rng import stream
from minddiff_utils.insilico.assumptions import REPEAT_SHARES

__all__ = [
    "N_STIMULI",
    "TRIALS_PER_SESSION",
    "Design",
    "make_design",
    "n_images_shown",
    "responses_table",
    "stimulus_table",
]

TRIALS_PER_SESSION = 750
N_STIMULI = 73000
_N_SESSIONS = 40
_N_IMAGES, _N_SHARED, _N_SUBJECTS, _N_REPEATS = 10000, 1000, 8, 3
#: First and last shared 73k id in NSD.
_SHARED_ENDS = (2951, 72949)
_COCO_LAST = 581929


@dataclass(frozen=True)
class Design:
    """The experiment's order, as `nsd_expdesign.mat` holds it.

    Attributes
    ----------
    n_sessions : int
        Sessions that are written; the order itself always covers 40.
    masterordering : ndarray of int64, shape (30000,)
        10k index (1-based) of every trial; the same for all subjects.
    subjectim : ndarray of int64, shape (8, 10000)
        73k id (1-based) of each subject's images; the first 1000 are shared.
    coco_id : ndarray of int64, shape (73000,)
        COCO id by nsdId.
    in_validation : ndarray of bool, shape (73000,)
        Image belongs to val2017 rather than train2017.
    held_out : ndarray of int64
        nsdId (0-based, ascending) of the shared images of the second test set.
    """

    n_sessions: int
    masterordering: npt.NDArray[np.int64]
    subjectim: npt.NDArray[np.int64]
    coco_id: npt.NDArray[np.int64]
    in_validation: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.int64]

    @property
    def n_trials(self) -> int:
        """Return the number of trials written per subject."""
        return TRIALS_PER_SESSION * self.n_sessions

    @property
    def sharedix(self) -> npt.NDArray[np.int64]:
        """Return the 1000 shared 73k ids (1-based), ascending."""
        return self.subjectim[0, :_N_SHARED]

    def shown(self, subject: int) -> npt.NDArray[np.int64]:
        """Return the nsdId (0-based) of each written trial of `subject`, in order."""
        k10 = self.masterordering[: self.n_trials]
        nsd_id: npt.NDArray[np.int64] = self.subjectim[subject - 1, k10 - 1] - 1
        return nsd_id


def make_design(
    n_sessions: int, n_test_images: int, n_heldout_images: int = 0, *, seed: int
) -> Design:
    """Draw the experiment: all 40 sessions, of which the first `n_sessions` count.

    These show every test image, of both test sets, three times, and of the subject's
    own images as many as `REPEAT_SHARES` make of the other trials, in random order. All
    that is left of three trials per image comes in later sessions.

    Parameters
    ----------
    n_sessions : int
        Sessions that are written.
    n_test_images, n_heldout_images : int
        Shared images in these, of the first and of the second test set.
    seed : int
        Of the simulation.

    Raises
    ------
    ConfigError
        If so many test images cannot be shown in so few sessions, or the reverse.
    """
    n_shared = n_test_images + n_heldout_images
    n_trials = TRIALS_PER_SESSION * n_sessions
    least = -(-n_trials // _N_REPEATS) - (_N_IMAGES - _N_SHARED)
    most = min(_N_SHARED, n_trials // _N_REPEATS - 1)
    if not max(1, least) <= n_shared <= most:
        raise ConfigError(
            f"simulation.n_test_images and n_heldout_images make {n_shared}, but "
            f"{n_sessions} sessions can show {max(1, least)} to {most} shared images: "
            "change one of the three."
        )
    rng = stream(seed, "design", "order")
    shared = rng.permutation(_N_SHARED)
    private = rng.permutation(_N_IMAGES - _N_SHARED) + _N_SHARED
    shown = np.zeros(_N_IMAGES, dtype=np.int64)  # early trials by 10k index
    shown[shared[:n_shared]] = _N_REPEATS
    repeats = _private_repeats(n_trials - _N_REPEATS * n_shared)
    shown[private[: len(repeats)]] = repeats
    every = np.arange(_N_IMAGES)
    order = [rng.permutation(np.repeat(every, n)) for n in (shown, _N_REPEATS - shown)]
    draw = stream(seed, "design", "coco")
    in_validation = draw.random(N_STIMULI) < 5 / 123  # val2017's share of COCO
    subjectim = _subjectim(seed)
    in_validation[subjectim[0, :_N_SHARED] - 1] = False
    return Design(
        n_sessions=n_sessions,
        masterordering=np.concatenate(order).astype(np.int64) + 1,
        subjectim=subjectim,
        coco_id=draw.choice(_COCO_LAST, N_STIMULI, replace=False).astype(np.int64) + 1,
        in_validation=in_validation,
        held_out=np.sort(subjectim[0, shared[n_test_images:n_shared]] - 1),
    )


def n_images_shown(n_sessions: int, n_shared: int) -> int:
    """Return the distinct images of the first sessions, `n_shared` of them shared.

    >>> n_images_shown(40, 1000)
    10000
    """
    n_trials = TRIALS_PER_SESSION * n_sessions - _N_REPEATS * n_shared
    return n_shared + len(_private_repeats(n_trials))


def _private_repeats(n_trials: int) -> npt.NDArray[np.int64]:
    """Return how often each of a subject's own images is shown, in `n_trials` in all.

    As many images as `REPEAT_SHARES` make of the trials; where that is more than there
    are, all of them, the more often.
    """
    per_image = float(np.dot(REPEAT_SHARES, (1, 2, 3)))
    n = min(_N_IMAGES - _N_SHARED, max(1, round(n_trials / per_image)))
    n = max(n, -(-n_trials // _N_REPEATS))
    again = n_trials - n  # n_twice + 2 * n_thrice
    n_twice = min(round(REPEAT_SHARES[1] * n), again, 2 * n - again)
    n_twice -= (again - n_twice) % 2
    if n_twice < 0:
        n_twice = 1
    n_thrice = (again - n_twice) // 2
    return np.repeat([1, 2, 3], [n - n_twice - n_thrice, n_twice, n_thrice])


def _subjectim(seed: int) -> npt.NDArray[np.int64]:
    rng = stream(seed, "design", "subjectim")
    low, high = _SHARED_ENDS
    inner = rng.choice(np.arange(low + 1, high), _N_SHARED - 2, replace=False)
    shared = np.sort(np.concatenate([[low, high], inner]))
    private = np.setdiff1d(np.arange(1, N_STIMULI + 1), shared)
    per_subject = rng.permutation(private).reshape(_N_SUBJECTS, -1)
    return np.concatenate([np.tile(shared, (_N_SUBJECTS, 1)), per_subject], axis=1)


def _presentations(design: Design) -> npt.NDArray[np.int64]:
    """Return the three 1-based trial numbers of each 10k index, (10000, 3)."""
    trials = np.argsort(design.masterordering, kind="stable") + 1
    return trials.reshape(_N_IMAGES, _N_REPEATS)


def stimulus_table(design: Design) -> pd.DataFrame:
    """Return `nsd_stim_info_merged.csv`, 73,000 rows by nsdId: the columns we read."""
    ids = np.arange(N_STIMULI)
    columns: dict[str, object] = {
        "cocoId": design.coco_id,
        "cocoSplit": np.where(design.in_validation, "val2017", "train2017"),
        "nsdId": ids,
        "shared1000": np.isin(ids + 1, design.sharedix),
    }
    trials = _presentations(design)
    for subject in range(_N_SUBJECTS):
        rows = design.subjectim[subject] - 1
        for repeat in range(_N_REPEATS):
            planned = np.zeros(N_STIMULI, dtype=np.int64)
            planned[rows] = trials[:, repeat]
            columns[f"subject{subject + 1}_rep{repeat}"] = planned
    return pd.DataFrame(columns, index=ids)


def responses_table(design: Design, subject: int) -> pd.DataFrame:
    """Return `responses.tsv`: one row per written trial, the columns that we read."""
    k10 = design.masterordering[: design.n_trials]
    return pd.DataFrame(
        {
            "SUBJECT": subject,
            "SESSION": np.arange(design.n_trials) // TRIALS_PER_SESSION + 1,
            "73KID": design.subjectim[subject - 1, k10 - 1],
            "10KID": k10,
        }
    )
