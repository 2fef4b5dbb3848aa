"""The files of LAION-fMRI, in one list, and what its documentation says of them.

Paths are those of the public bucket, but for the splits: these come with the package
of its makers and lie in a folder `splits` here.

References
----------
https://laion-fmri.hebartlab.com (documentation); ViCCo-Group/LAION-fMRI (package).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from minddiff_utils.core.errors import check_choice
from minddiff_utils.datasets.inventory import DataFile, is_there, list_files, path_in
from minddiff_utils.datasets.protocol import sessions_within
from minddiff_utils.datasets.transfer import Download
from minddiff_utils.datasets.visual_areas import AREA_LABELS

__all__ = [
    *("FILES", "N_IMAGES", "ROIS", "by_hand", "downloads", "find"),
    *("inventory", "path_of", "public_sessions"),
]

#: Sessions after the 30 of the experiment are held out: the bucket does not give them.
_SUBJECTS, N_SESSIONS, N_IMAGES = (1, 3, 5, 6, 7), 30, 25_052
#: What no retinotopic region stands for here: PHC1, PHC2, and IPS beyond IPS0.
_ABSENT = ("PHC1", "PHC2", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5")
#: Area -> regions of the retinotopic maps; MT is TO1 and MST is TO2, as in NSD.
ROIS = {
    area: tuple(label for label in labels if label not in _ABSENT)
    for area, labels in AREA_LABELS.items()
}


_SUB = "sub-{number:02d}"
_GLM = f"derivatives/glmsingle-tedana/{_SUB}"
_SESSION = f"{_GLM}/ses-{{session:02d}}/func/{_SUB}_ses-{{session:02d}}_task-images"
_BETAS = "space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
_CEILING = "task-images_space-T1w_desc-Noiseceiling4rep_statmap.nii.gz"
_ROI = f"derivatives/rois/{_SUB}/retinotopy/{_SUB}_space-T1w_res-1pt8_label-{{roi}}"
_STIMULI = "stimuli/task-images"
_LABELS = {"roi": [roi for names in ROIS.values() for roi in names]}
_file = DataFile
#: Every file that a run reads.
FILES = (
    _file("betas", f"{_SESSION}_{_BETAS}", "responses of one session"),
    _file("trials", f"{_SESSION}_desc-SingletrialBetas_trials.tsv", "images of trials"),
    _file("ceiling", f"{_GLM}/{_SUB}_{_CEILING}", "noise ceiling", optional=True),
    _file("roi", f"{_ROI}_mask.nii.gz", "visual areas", _LABELS),
    _file("captions", f"{_STIMULI}_desc-captions.csv", "what the images show"),
    _file("split", f"splits/{_SUB}/{{split}}.json", "which images train and test"),
    _file("table", f"{_STIMULI}_metadata.csv", "numbers of the images"),
    _file("images", f"{_STIMULI}_stimuli.h5", "the images"),
)
#: Given to those alone who have accepted the images' own terms.
_GATED = ("table", "images")

#: The path of a file below the folder, by kind, subject and names.
path_of = partial(path_in, FILES)


def find(path: Path) -> Path:
    """Return a file where it is: a region's mask may lie in another group's folder."""
    beside = sorted(path.parent.parent.glob(f"*/{path.name}"))
    return path if is_there(path) or not beside else beside[0]


def public_sessions(subject: int, asked: Sequence[int]) -> tuple[int, ...]:
    """Return those of the sessions asked for that are public; raise without any."""
    check_choice(subject, _SUBJECTS, "subject of LAION-fMRI")
    return sessions_within(subject, asked, N_SESSIONS, " that are public")


def inventory(
    subjects: Sequence[int], asked: Sequence[int], split: str
) -> tuple[DataFile, ...]:
    """Return every file that a run of the sessions `asked` reads, once."""
    (sessions,) = {public_sessions(subject, asked) for subject in subjects}
    names = {kind: {"session": sessions} for kind in ("betas", "trials")}
    return list_files(FILES, subjects, names | {"split": {"split": (split,)}})


# --- where they come from -------------------------------------------------------------

_BUCKET = "laion-fmri"
_ADDRESS = f"https://{_BUCKET}.s3.us-west-2.amazonaws.com"
_PACKAGE = "ViCCo-Group/LAION-fMRI"
_COMMIT = "04ee2883bba2684e65f16f11c7566e2463c9ddc5"
_SERVER = "https://raw.githubusercontent.com"


def downloads(
    root: Path, files: Sequence[DataFile], *, endpoint: str = ""
) -> tuple[Download, ...]:
    """Return where the files come from that are open to all; regions only if lacking.

    Responses, regions and captions are CC0 and need no agreement. The splits lie in the
    repository of the makers' package, pinned by a commit. `endpoint`: address of
    another server with the same paths.
    """
    server = endpoint.rstrip("/")
    bucket = (
        f"{server}/{_BUCKET}" if server else _ADDRESS,
        "look for it with `laion-fmri download`, or put it there by hand",
    )
    package = (
        f"{server or _SERVER}/{_PACKAGE}/{_COMMIT}/laion_fmri/splits/data",
        f"take it from https://github.com/{_PACKAGE} and put it there",
        "splits/",
    )
    return tuple(
        Download.of(file, *(package if file.kind == "split" else bucket))
        for file in files
        if file.kind not in _GATED and find(root / file.path) == root / file.path
    )


def by_hand(root: Path) -> tuple[str, ...]:
    """Return a sentence where the images and their table are not there."""
    paths = [root / path_of(kind) for kind in _GATED]
    if all(map(is_there, paths)):
        return ()
    names = " and ".join(path.name for path in paths)
    return (
        "The images of LAION-fMRI come by hand, 3.2 GB: accept their terms at"
        f" https://laion-fmri.hebartlab.com/request and put {names} into"
        f" {paths[0].parent}.",
    )
