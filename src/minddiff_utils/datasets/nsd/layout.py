"""NSD's files, in one list: what they are called, who reads them, and their sizes.

`FILES` is the list; above it stands what NSD publishes about itself, which the real
data alone must agree with, below it the two containers of betas.

References
----------
NSD Data Manual (files; Technical notes: sessions, volumes, vertices);
cvnlab/nsddatapaper, `FINALNUMBERSnotes.m` (images seen in 30, 32 and 40 sessions).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Literal

from minddiff_utils.core.errors import check_choice
from minddiff_utils.datasets.inventory import (
    HEMISPHERES,
    DataFile,
    find,
    is_there,
    list_files,
    path_in,
    sides_of,
)
from minddiff_utils.datasets.protocol import sessions_within

__all__ = [
    *("BETAS_VERSIONS", "CONTAINERS", "DEPTHS", "FACTS", "FILES", "FIRST_SHARED"),
    *("IMAGE_SIZE", "NO_DATA", "N_FSAVERAGE", "N_IMAGES", "N_IMAGES_SUBJECT"),
    *("N_SESSIONS", "N_SHARED", "N_TRIALS", "PARTS", "SECOND_TEST_SET", "SEEN"),
    *("SHARED_ENDS", "SUBJECT1", "VOXEL_MM", "Container", "Facts", "as_present"),
    *("inventory", "not_otherwise", "path_of", "published_sessions", "session_of"),
    "sized",
]

#: Both hold the same numbers; hdf5 is read faster, nii.gz is half as large.
Container = Literal["hdf5", "nii.gz"]
CONTAINERS: tuple[Container, ...] = ("hdf5", "nii.gz")

# --- what NSD publishes of itself -----------------------------------------------------

#: The folders below NSD's root.
PARTS = ("nsddata", "nsddata_betas", "nsddata_stimuli")
#: Trials per session, always, and sessions of the design; not all came to all of them.
N_TRIALS, N_SESSIONS = 750, 40
#: Images of the experiment, images per subject, images shared by all subjects.
N_IMAGES, N_IMAGES_SUBJECT, N_SHARED = 73_000, 10_000, 1_000
#: First and last shared image, 1-based; the first one's row and COCO id.
SHARED_ENDS, FIRST_SHARED = (2951, 72949), (2950, 262145)
IMAGE_SIZE, VOXEL_MM, N_FSAVERAGE = 425, 1.8, 163_842
#: "No data" in NSD's coordinate files.
NO_DATA = 9999


@dataclass(frozen=True)
class Facts:
    """What NSD states of one subject; vertices of lh and rh."""

    n_sessions: int
    grid: tuple[int, int, int]
    n_vertices: tuple[int, int]
    n_nsdgeneral: int
    n_brain: int


#: Data manual, Technical notes; voxels of the last two as others counted them in files.
FACTS = {
    1: Facts(40, (81, 104, 83), (227021, 226601), 15724, 370503),
    2: Facts(40, (82, 106, 84), (239633, 239309), 14278, 343107),
    3: Facts(32, (81, 106, 82), (240830, 243023), 15226, 358199),
    4: Facts(30, (85, 99, 80), (228495, 227262), 13153, 329650),
    5: Facts(40, (79, 97, 78), (197594, 198908), 13039, 302566),
    6: Facts(32, (85, 113, 83), (253634, 259406), 17907, 412281),
    7: Facts(40, (78, 95, 81), (198770, 200392), 12682, 296155),
    8: Facts(30, (80, 103, 78), (224364, 224398), 14386, 321595),
}
#: Sessions -> images seen: distinct, shared, other, three times (None: not published).
SEEN: dict[int, tuple[int, int, int, int | None]] = {
    40: (10000, 1000, 9000, 10000),
    37: (9841, 982, 8859, None),
    32: (9411, 930, 8481, 6234),
    30: (9209, 907, 8302, 5445),
}
#: Subject 1: voxels of MindDiffuser's masks, and of the released prf-visualrois.
SUBJECT1 = {"11 areas": 11_694, "prf-visualrois": 4657}

# --- the inventory --------------------------------------------------------------------

BETAS_VERSIONS = ("betas_fithrf_GLMdenoise_RR", "betas_fithrf", "betas_assumehrf")
#: Depths of the cortex at which maps are sampled: 25, 50 and 75 %.
DEPTHS = ("layerB1", "layerB2", "layerB3")

#: Bytes of an hdf5 file of betas per voxel of the volume, beside the numbers.
_CHUNK = 64

_EXPERIMENT = "nsddata/experiments/nsd"
_STIMULI = "nsddata_stimuli/stimuli/nsd"
_CAPTIONS = f"{_STIMULI}/annotations/captions_{{split}}.json"
_PPDATA = "nsddata/ppdata/{subject}"
_ROI = f"{_PPDATA}/func1pt8mm/roi/{{name}}.nii.gz"
_TRANSFORM = f"{_PPDATA}/transforms/{{h}}"
_BETAS = "nsddata_betas/ppdata/{subject}/func1pt8mm/{version}"
_SESSION = "betas_session{session:02d}.{form}"
_FREESURFER = "nsddata/freesurfer/{subject}"
_SURFACE = f"{_FREESURFER}/surf/{{h}}.{{surface}}"
_GROUP = _SURFACE.replace("{subject}", "fsaverage")
_TO_CORTEX, _TO_GROUP = "from voxels to the cortex", "from the cortex to the group's"
_SPLITS = {"split": ("train2017", "val2017")}
_ATLASES = {"name": ("Kastner2015", "prf-visualrois")}
_GENERAL = {"name": ("nsdgeneral",)}
_SIDES = {"h": HEMISPHERES}
_SHAPES = {"surface": ("white", "inflated", "sulc", "full.flat.patch.3d")}
_DEPTHS = _SIDES | {"depth": DEPTHS}
_file, _spare = DataFile, partial(DataFile, optional=True)
_drawn = partial(_spare, notebook="06")

#: Every file that a run reads.
FILES = (
    _file(
        "design", f"{_EXPERIMENT}/nsd_expdesign.mat", "which image each trial showed"
    ),
    _file("table", f"{_EXPERIMENT}/nsd_stim_info_merged.csv", "COCO ids of the images"),
    _file("stimuli", f"{_STIMULI}/nsd_stimuli.hdf5", "the images", n_bytes=39.6e9),
    # each a half of COCO's archive
    _file("captions", _CAPTIONS, "what the images show", _SPLITS, n_bytes=0.125e9),
    _spare("responses", f"{_PPDATA}/behav/responses.tsv", "checks the order of images"),
    _file("brainmask", f"{_PPDATA}/func1pt8mm/brainmask.nii.gz", "voxels of the brain"),
    _spare("labels", f"{_FREESURFER}/label/{{name}}.mgz.ctab", "area names", _ATLASES),
    _file("roi", _ROI, "visual areas", _ATLASES),
    _spare("roi", _ROI, "voxels in place of the areas (data.voxels)", _GENERAL),
    _spare("ncsnr", f"{_BETAS}/ncsnr.nii.gz", "noise ceiling"),
    _file("betas", f"{_BETAS}/{_SESSION}", "responses of one session"),
    _drawn("surface", _SURFACE, "cortical maps", _SIDES | _SHAPES),
    _drawn("surface", _GROUP, "cortical maps", _SIDES | _SHAPES, subject="fsaverage"),
    _drawn("transform", f"{_TRANSFORM}.func1pt8-to-{{depth}}.mgz", _TO_CORTEX, _DEPTHS),
    _drawn("to_fsaverage", f"{_TRANSFORM}.white-to-fsaverage.mgz", _TO_GROUP, _SIDES),
)


#: A table of the shared images that form a test set of their own, column nsdId. Only a
#: simulation writes it; the real NSD has one test set and no such file.
SECOND_TEST_SET = f"{_EXPERIMENT}/second_test_set.csv"


#: The path of a file of NSD, by kind, subject and names.
path_of = partial(path_in, FILES)


def sized(file: DataFile, n_trials: int = N_TRIALS) -> DataFile:
    """Return a file with its size, which of betas the subject's volume and form say."""
    if file.kind != "betas" or not isinstance(file.subject, int):
        return file
    per_voxel = n_trials * 2 + _CHUNK  # int16
    whole = prod(FACTS[file.subject].grid) * per_voxel
    return replace(file, n_bytes=whole if file.names["form"] == "hdf5" else whole / 2)


def inventory(
    sessions: Mapping[int, Sequence[int]],
    version: str = BETAS_VERSIONS[0],
    forms: Sequence[Container] = ("hdf5",),
) -> tuple[DataFile, ...]:
    """Return every file that a run reads: first what subjects share, then by subject.

    Parameters
    ----------
    sessions : dict
        Subject (1..8) -> its sessions (from 1).
    version : str
        Folder of the betas.
    forms : sequence of "hdf5" and "nii.gz"
        Containers of the betas.

    Examples
    --------
    >>> next(f for f in inventory({1: [1]}) if f.kind == "betas").n_bytes / 1e9
    1.093536288
    """
    own = [row for row in FILES if "{subject}" in row.path]
    files = [*list_files((row for row in FILES if row not in own), [None])]
    for subject, numbers in sessions.items():
        betas = {"betas": {"session": numbers, "form": forms}}
        files += map(sized, list_files(own, [subject], betas, version))
    return tuple(files)


def published_sessions(
    subjects: Sequence[int], asked: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Return those of the sessions `asked` (ascending) that NSD has of each subject.

    Raises
    ------
    ConfigError
        A subject that NSD lacks.
    DataError
        A subject without any of the sessions.
    """
    for subject in subjects:
        check_choice(subject, range(1, 9), "subject")
    return {
        subject: sessions_within(subject, asked, FACTS[subject].n_sessions)
        for subject in subjects
    }


# --- the containers of betas ----------------------------------------------------------

#: A session's betas: number and container.
_BETAS_NAME = re.compile(r"betas_session(\d+)\.(hdf5|nii\.gz|nii)", re.IGNORECASE)


def session_of(path: Path) -> tuple[int, str] | None:
    """Return the session whose betas a file holds, and how, by its name.

    None for other files, and (0, "") for what stands among the betas with another end.

    >>> session_of(Path("betas_session07.HDF5"))
    (7, 'hdf5')
    """
    if name := _BETAS_NAME.fullmatch(path.name):
        return int(name[1]), name[2].lower()
    return (0, "") if path.name.lower().startswith("betas_session") else None


def as_present(files: Sequence[DataFile], root: Path) -> tuple[DataFile, ...]:
    """Return the files with betas in the container that `root` has of a session.

    A session that is there as nii.gz, and not as hdf5, is not needed as hdf5, too.
    """
    chosen = []
    for file in files:
        packed = f"{file.path.removesuffix('hdf5')}nii.gz"
        is_hdf5 = file.kind == "betas" and file.names["form"] == "hdf5"
        if is_hdf5 and is_there(find(root, packed)) > is_there(find(root, file.path)):
            names = {**file.names, "form": "nii.gz"}
            chosen.append(replace(file, path=packed, names=names))
        else:
            chosen.append(file)
    return tuple(chosen)


def not_otherwise(files: Sequence[DataFile], root: Path) -> tuple[DataFile, ...]:
    """Return the files without those that `root` has in another form.

    Unpacked, in two hemispheres, without a leading zero, in capitals: a run reads them.
    """
    return tuple(
        file
        for file in files
        if is_there(root / file.path)
        or not all(map(is_there, sides_of(root, file.path)))
    )
