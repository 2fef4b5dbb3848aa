"""The files of LAION-fMRI, in one list, and what its documentation says of them.

Paths are those of the public bucket, but for the splits: these come with the package
of its makers and lie in a folder `splits` here.

References
----------
https://laion-fmri.hebartlab.com (documentation); ViCCo-Group/LAION-fMRI (package).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minddiff_utils.core.errors import ConfigError, check_choice
from minddiff_utils.datasets.nsd.areas import AREA_LABELS
from minddiff_utils.datasets.nsd.layout import is_there

__all__ = [
    "FILES",
    "N_IMAGES",
    "N_SESSIONS",
    "ROIS",
    "SUBJECTS",
    "LaionFile",
    "check_sessions",
    "inventory",
    "path_of",
    "roi_file",
]

#: Sessions after the 30 of the experiment are held out: the bucket does not give them.
SUBJECTS, N_SESSIONS, N_IMAGES = (1, 3, 5, 6, 7), 30, 25_052
#: What no retinotopic region stands for here: PHC1, PHC2, and IPS beyond IPS0.
_ABSENT = ("PHC1", "PHC2", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5")
#: Area -> regions of the retinotopic maps; MT is TO1 and MST is TO2, as in NSD.
ROIS = {
    area: tuple(label for label in labels if label not in _ABSENT)
    for area, labels in AREA_LABELS.items()
}


@dataclass(frozen=True)
class LaionFile:
    """A file; several where its path differs in a name.

    `gated`: given to those alone who have accepted the images' own terms.
    """

    kind: str
    path: str
    reason: str
    optional: bool = False
    gated: bool = False


_GLM = "derivatives/glmsingle-tedana/{sub}"
_SESSION = f"{_GLM}/{{ses}}/func/{{sub}}_{{ses}}_task-images"
_STIMULI = "stimuli/task-images"
_file = LaionFile
#: Every file that a run reads.
FILES = (
    _file(
        "betas",
        f"{_SESSION}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz",
        "responses of one session",
    ),
    _file(
        "trials",
        f"{_SESSION}_desc-SingletrialBetas_trials.tsv",
        "which image each trial showed",
    ),
    _file(
        "ceiling",
        f"{_GLM}/{{sub}}_task-images_space-T1w_desc-Noiseceiling4rep_statmap.nii.gz",
        "noise ceiling",
        optional=True,
    ),
    _file(
        "roi",
        "derivatives/rois/{sub}/retinotopy/"
        "{sub}_space-T1w_res-1pt8_label-{roi}_mask.nii.gz",
        "visual areas",
    ),
    _file("captions", f"{_STIMULI}_desc-captions.csv", "what the images show"),
    _file("split", "splits/{sub}/{split}.json", "which images train and test"),
    _file("table", f"{_STIMULI}_metadata.csv", "numbers of the images", gated=True),
    _file("images", f"{_STIMULI}_stimuli.h5", "the images", gated=True),
)


def path_of(kind: str, subject: int = 0, **names: str | int) -> str:
    """Return the path of a file below the folder.

    >>> path_of("split", 1, split="tau")
    'splits/sub-01/tau.json'
    """
    row = next(file for file in FILES if file.kind == kind)
    if "session" in names:
        names["ses"] = f"ses-{names['session']:02d}"
    return row.path.format(sub=f"sub-{subject:02d}", **names)


def roi_file(root: Path, subject: int, roi: str) -> Path:
    """Return a region's mask, in whichever group of regions it lies."""
    path = root / path_of("roi", subject, roi=roi)
    beside = sorted(path.parent.parent.glob(f"*/{path.name}"))
    return path if is_there(path) or not beside else beside[0]


def check_sessions(subject: int, sessions: Sequence[int]) -> None:
    """Raise ConfigError for a subject or a session that is not public."""
    check_choice(subject, SUBJECTS, "subject of LAION-fMRI")
    odd = [n for n in sessions if not 1 <= n <= N_SESSIONS]
    if odd:
        raise ConfigError(
            f"Session {odd[0]} is asked for, but LAION-fMRI gives 1 to {N_SESSIONS}"
            f" and holds the others out: set data.sessions to {N_SESSIONS} at most."
        )


def inventory(
    subjects: Sequence[int], sessions: Sequence[int], split: str
) -> list[tuple[str, LaionFile]]:
    """Return every file that a run reads, once, with its path."""
    found = dict[str, LaionFile]()
    for subject in subjects:
        check_sessions(subject, sessions)
        for file in FILES:
            several: dict[str, list[dict[str, str | int]]] = {
                "betas": [{"session": n} for n in sessions],
                "trials": [{"session": n} for n in sessions],
                "roi": [{"roi": roi} for names in ROIS.values() for roi in names],
                "split": [{"split": split}],
            }
            for names in several.get(file.kind, [{}]):
                found[path_of(file.kind, subject, **names)] = file
    return list(found.items())
