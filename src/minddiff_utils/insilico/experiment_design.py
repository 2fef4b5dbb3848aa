"""The in-silico experiment: which image is shown in which trial, and the design tables.

All indices in the files are NSD's: 10k index and 73k id 1-based, nsdId 0-based. Not a
reader, and not a copy of NSD's design: the sizes are NSD's, the order is ours.

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

__all__ = [
    "N_STIMULI",
    "TRIALS_PER_SESSION",
    "Design",
    "make_design",
    "responses_table",
    "stimulus_table",
]

TRIALS_PER_SESSION = 750
N_STIMULI = 73000
_N_SESSIONS, _N_RUNS, _N_SLOTS = 40, 12, 75
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
    stimpattern : ndarray of uint8, shape (40, 12, 75)
        1 where a stimulus was shown in the slots of a run.
    coco_id : ndarray of int64, shape (73000,)
        COCO id by nsdId.
    in_validation : ndarray of bool, shape (73000,)
        Image belongs to val2017 rather than train2017.
    """

    n_sessions: int
    masterordering: npt.NDArray[np.int64]
    subjectim: npt.NDArray[np.int64]
    stimpattern: npt.NDArray[np.uint8]
    coco_id: npt.NDArray[np.int64]
    in_validation: npt.NDArray[np.bool_]

    @property
    def n_trials(self) -> int:
        """Return the number of trials written per subject."""
        return TRIALS_PER_SESSION * self.n_sessions

    @property
    def sharedix(self) -> npt.NDArray[np.int64]:
        """Return the 1000 shared 73k ids (1-based), ascending."""
        return self.subjectim[0, :_N_SHARED]

    @property
    def basiccnt(self) -> npt.NDArray[np.uint16]:
        """Return how many images each session shows exactly 1, 2 and 3 times."""
        count = np.zeros((_N_REPEATS, _N_SESSIONS), dtype=np.int64)
        for session in range(_N_SESSIONS):
            trials = slice(
                session * TRIALS_PER_SESSION, (session + 1) * TRIALS_PER_SESSION
            )
            times = np.bincount(self.masterordering[trials])
            count[:, session] = [(times == n).sum() for n in (1, 2, 3)]
        return count.astype(np.uint16)

    def shown(self, subject: int) -> npt.NDArray[np.int64]:
        """Return the nsdId (0-based) of each written trial of `subject`, in order."""
        k10 = self.masterordering[: self.n_trials]
        nsd_id: npt.NDArray[np.int64] = self.subjectim[subject - 1, k10 - 1] - 1
        return nsd_id


def make_design(n_sessions: int, n_test_images: int, *, seed: int) -> Design:
    """Draw the experiment; its first `n_sessions` sessions are complete by themselves.

    They show `250 * n_sessions` images three times each, `n_test_images` of them
    shared; repeats are spread over these sessions at random.

    Raises
    ------
    ConfigError
        If so many test images cannot be shown in so few sessions, or the reverse.
    """
    n_images = TRIALS_PER_SESSION * n_sessions // _N_REPEATS
    least = max(1, n_images - (_N_IMAGES - _N_SHARED))
    most = min(_N_SHARED, n_images - 1) if n_sessions < _N_SESSIONS else _N_SHARED
    if not least <= n_test_images <= most:
        raise ConfigError(
            f"simulation.n_test_images is {n_test_images}, but {n_sessions} sessions "
            f"can show {least} to {most} shared images: change one of the two."
        )
    rng = stream(seed, "design", "order")
    shared = rng.permutation(_N_SHARED)
    private = rng.permutation(_N_IMAGES - _N_SHARED) + _N_SHARED
    n_private = n_images - n_test_images
    early = np.concatenate([shared[:n_test_images], private[:n_private]])
    late = np.concatenate([shared[n_test_images:], private[n_private:]])
    order = [rng.permutation(np.repeat(part, _N_REPEATS)) for part in (early, late)]
    draw = stream(seed, "design", "coco")
    in_validation = draw.random(N_STIMULI) < 5 / 123  # val2017's share of COCO
    subjectim = _subjectim(seed)
    in_validation[subjectim[0, :_N_SHARED] - 1] = False
    return Design(
        n_sessions=n_sessions,
        masterordering=np.concatenate(order).astype(np.int64) + 1,
        subjectim=subjectim,
        stimpattern=_stimpattern(seed),
        coco_id=draw.choice(_COCO_LAST, N_STIMULI, replace=False).astype(np.int64) + 1,
        in_validation=in_validation,
    )


def _subjectim(seed: int) -> npt.NDArray[np.int64]:
    rng = stream(seed, "design", "subjectim")
    low, high = _SHARED_ENDS
    inner = rng.choice(np.arange(low + 1, high), _N_SHARED - 2, replace=False)
    shared = np.sort(np.concatenate([[low, high], inner]))
    private = np.setdiff1d(np.arange(1, N_STIMULI + 1), shared)
    per_subject = rng.permutation(private).reshape(_N_SUBJECTS, -1)
    return np.concatenate([np.tile(shared, (_N_SUBJECTS, 1)), per_subject], axis=1)


def _stimpattern(seed: int) -> npt.NDArray[np.uint8]:
    """Return stimulus slots: 3 blank, 63 or 62 stimuli among blanks, 4 blank."""
    rng = stream(seed, "design", "stimpattern")
    pattern = np.zeros((_N_SESSIONS, _N_RUNS, _N_SLOTS), dtype=np.uint8)
    for session in range(_N_SESSIONS):
        for run in range(_N_RUNS):
            slots = rng.permutation(np.arange(3, _N_SLOTS - 4))
            pattern[session, run, slots[: 63 - run % 2]] = 1
    return pattern


def _presentations(design: Design) -> npt.NDArray[np.int64]:
    """Return the three 1-based trial numbers of each 10k index, (10000, 3)."""
    trials = np.argsort(design.masterordering, kind="stable") + 1
    return trials.reshape(_N_IMAGES, _N_REPEATS)


def stimulus_table(design: Design, *, seed: int) -> pd.DataFrame:
    """Return `nsd_stim_info_merged.csv`: 73,000 rows, indexed by nsdId."""
    rng = stream(seed, "design", "stimulus table")
    crop = rng.uniform(0, 0.25, N_STIMULI).round(6).astype(str)
    wide = rng.random(N_STIMULI) < 0.75
    boxes = [
        f"(0, 0, {c}, {c})" if w else f"({c}, {c}, 0, 0)"
        for c, w in zip(crop.tolist(), wide.tolist(), strict=True)
    ]
    ids = np.arange(N_STIMULI)
    columns: dict[str, object] = {
        "cocoId": design.coco_id,
        "cocoSplit": np.where(design.in_validation, "val2017", "train2017"),
        "cropBox": boxes,
        "loss": rng.uniform(0, 0.3, N_STIMULI).round(6),
        "nsdId": ids,
        "flagged": np.zeros(N_STIMULI, dtype=bool),
        "BOLD5000": np.zeros(N_STIMULI, dtype=bool),
        "shared1000": np.isin(ids + 1, design.sharedix),
    }
    trials = _presentations(design)
    repeats: dict[str, object] = {}
    for subject in range(_N_SUBJECTS):
        rows = design.subjectim[subject] - 1
        seen = np.zeros(N_STIMULI, dtype=np.int64)
        seen[rows] = 1
        columns[f"subject{subject + 1}"] = seen
        for repeat in range(_N_REPEATS):
            planned = np.zeros(N_STIMULI, dtype=np.int64)
            planned[rows] = trials[:, repeat]
            repeats[f"subject{subject + 1}_rep{repeat}"] = planned
    return pd.DataFrame(columns | repeats, index=ids)


def responses_table(design: Design, subject: int, *, seed: int) -> pd.DataFrame:
    """Return `responses.tsv`: one row per written trial, NSD's 19 columns.

    The button presses are those of a subject who answers 85 % of trials correctly.
    """
    rng = stream(seed, "design", "behaviour", subject)
    n = design.n_trials
    k10 = design.masterordering[:n]
    trials = pd.Series(np.arange(n)).groupby(k10)
    showing = trials.cumcount().to_numpy()
    previous = trials.shift(1).to_numpy()
    first = trials.transform("first").to_numpy()
    session = np.arange(n) // TRIALS_PER_SESSION
    position = np.arange(n) % TRIALS_PER_SESSION
    starts = np.cumsum([0] + [63 - run % 2 for run in range(_N_RUNS)])
    run = np.searchsorted(starts, position, side="right") - 1
    old = (showing > 0).astype(float)
    old_here = (previous >= session * TRIALS_PER_SESSION).astype(float)
    correct = (rng.random(n) < 0.85).astype(float)
    said_old = np.where(correct == 1, old, 1 - old)
    recent_first = np.where(showing > 1, np.arange(n) - first - 1, np.nan)
    return pd.DataFrame(
        {
            "SUBJECT": float(subject),
            "SESSION": session + 1.0,
            "RUN": run + 1.0,
            "TRIAL": position - starts[run] + 1.0,
            "73KID": design.subjectim[subject - 1, k10 - 1].astype(float),
            "10KID": k10.astype(float),
            "TIME": session * 7 + 0.5 + position * 4 / 86400,
            "ISOLD": old,
            "ISCORRECT": correct,
            "RT": rng.gamma(9, 100, n).round(6),
            "CHANGEMIND": 0.0,
            "MEMORYRECENT": np.arange(n) - previous - 1,
            "MEMORYFIRST": recent_first,
            "ISOLDCURRENT": old_here,
            "ISCORRECTCURRENT": (said_old == old_here).astype(float),
            "TOTAL1": 1 - said_old,
            "TOTAL2": said_old,
            "BUTTON": 1 + said_old,
            "MISSINGDATA": 0.0,
        }
    )
