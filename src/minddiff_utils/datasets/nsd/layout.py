"""NSD's files, in one list: what they are called, who reads them, and their sizes.

The reader, `minddiff check`, `minddiff fetch`, the estimate of disk space and the
question whether a notebook is up to date all read `FILES`; another file is one more row
there. Below it: the forms in which people have these files, and what NSD publishes
about itself, which the real data alone must agree with.

References
----------
NSD Data Manual (files; Technical notes: sessions, volumes, vertices);
cvnlab/nsddatapaper, `FINALNUMBERSnotes.m` (images seen in 30, 32 and 40 sessions).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from minddiff_utils.core.errors import DataError, check_choice

__all__ = [
    *("BETAS_VERSIONS", "CONTAINERS", "DEPTHS", "FACTS", "FILES", "FIRST_SHARED"),
    *("HEMISPHERES", "IMAGE_SIZE", "NO_DATA", "N_FSAVERAGE", "N_IMAGES"),
    *("N_IMAGES_SUBJECT", "N_SESSIONS", "N_SHARED", "N_TRIALS", "PARTS"),
    *("SECOND_TEST_SET", "SEEN", "SHARED_ENDS", "SUBJECT1", "VOXEL_MM", "Anatomy"),
    *("Container", "Facts", "Hemisphere", "NsdFile", "as_present", "expand", "find"),
    *("inventory", "is_there", "not_otherwise", "path_in", "path_of"),
    *("published_sessions", "session_of", "sessions_within", "sides_of", "there"),
]

Hemisphere = Literal["lh", "rh"]
#: A subject, or the group surface.
Anatomy = int | Literal["fsaverage"]
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
HEMISPHERES: tuple[Hemisphere, ...] = ("lh", "rh")
#: Depths of the cortex at which maps are sampled: 25, 50 and 75 %.
DEPTHS = ("layerB1", "layerB2", "layerB3")

#: Bytes of an hdf5 file of betas per voxel of the volume, beside the numbers.
_CHUNK = 64
#: Bytes of other large files; of captions, a half of COCO's archive.
_N_BYTES = {"stimuli": 39.6e9, "captions": 0.125e9}


@dataclass(frozen=True)
class NsdFile:
    """A file of NSD; in `FILES`, several of one kind whose paths differ in a name.

    Attributes
    ----------
    kind : str
        How it is read and checked.
    path : str
        Below NSD's root; the key in NSD's bucket is the same.
    reason : str
        What a run needs it for.
    names : dict
        Name, session, h, ...: its own, and in `FILES` what there is to choose from.
    optional : bool
        Whether a run goes on without it, and makes less.
    notebook : str
        The one that reads it.
    subject : int, "fsaverage" or None
        None for what all subjects share.
    n_trials : int
        Of a file of betas.
    """

    kind: str
    path: str
    reason: str
    names: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False
    notebook: str = "01"
    subject: Anatomy | None = None
    n_trials: int = N_TRIALS

    @property
    def n_bytes(self) -> float:
        """Return its size as published, 0 where it is too small to count.

        >>> next(f for f in inventory({1: [1]}) if f.kind == "betas").n_bytes / 1e9
        1.093536288
        """
        if self.kind == "betas" and isinstance(self.subject, int):
            per_voxel = self.n_trials * 2 + _CHUNK  # int16
            whole = prod(FACTS[self.subject].grid) * per_voxel
            return whole if self.names["form"] == "hdf5" else whole / 2
        return _N_BYTES.get(self.kind, 0)


_EXPERIMENT = "nsddata/experiments/nsd"
_STIMULI = "nsddata_stimuli/stimuli/nsd"
_CAPTIONS = "annotations/captions_{split}.json"
_PPDATA = "nsddata/ppdata/{subject}"
_ROI = f"{_PPDATA}/func1pt8mm/roi/{{name}}.nii.gz"
_TRANSFORM = f"{_PPDATA}/transforms/{{h}}"
_BETAS = "nsddata_betas/ppdata/{subject}/func1pt8mm/{version}"
_SESSION = "betas_session{session:02d}.{form}"
_FREESURFER = "nsddata/freesurfer/{subject}"
_SURFACE = f"{_FREESURFER}/surf/{{h}}.{{surface}}"
_TO_CORTEX, _TO_GROUP = "from voxels to the cortex", "from the cortex to the group's"
_SPLITS = {"split": ("train2017", "val2017")}
_ATLASES = {"name": ("Kastner2015", "prf-visualrois")}
_GENERAL = {"name": ("nsdgeneral",)}
_SIDES = {"h": HEMISPHERES}
_SHAPES = {"surface": ("white", "inflated", "sulc", "full.flat.patch.3d")}
_DEPTHS = _SIDES | {"depth": DEPTHS}
_file, _spare = NsdFile, partial(NsdFile, optional=True)
_drawn = partial(_spare, notebook="06")

#: Every file that a run reads.
FILES = (
    _file(
        "design", f"{_EXPERIMENT}/nsd_expdesign.mat", "which image each trial showed"
    ),
    _file("table", f"{_EXPERIMENT}/nsd_stim_info_merged.csv", "COCO ids of the images"),
    _file("stimuli", f"{_STIMULI}/nsd_stimuli.hdf5", "the images"),
    _file("captions", f"{_STIMULI}/{_CAPTIONS}", "what the images show", _SPLITS),
    _spare("responses", f"{_PPDATA}/behav/responses.tsv", "checks the order of images"),
    _file("brainmask", f"{_PPDATA}/func1pt8mm/brainmask.nii.gz", "voxels of the brain"),
    _spare("labels", f"{_FREESURFER}/label/{{name}}.mgz.ctab", "area names", _ATLASES),
    _file("roi", _ROI, "visual areas", _ATLASES),
    _spare("roi", _ROI, "voxels in place of the areas (data.voxels)", _GENERAL),
    _spare("ncsnr", f"{_BETAS}/ncsnr.nii.gz", "noise ceiling"),
    _file("betas", f"{_BETAS}/{_SESSION}", "responses of one session"),
    _drawn("surface", _SURFACE, "cortical maps", _SIDES | _SHAPES),
    _drawn("transform", f"{_TRANSFORM}.func1pt8-to-{{depth}}.mgz", _TO_CORTEX, _DEPTHS),
    _drawn("to_fsaverage", f"{_TRANSFORM}.white-to-fsaverage.mgz", _TO_GROUP, _SIDES),
)


#: A table of the shared images that form a test set of their own, column nsdId. Only a
#: simulation writes it; the real NSD has one test set and no such file.
SECOND_TEST_SET = f"{_EXPERIMENT}/second_test_set.csv"


def path_in(
    rows: Sequence[NsdFile],
    kind: str,
    subject: Anatomy | None = None,
    /,
    **names: str | int,
) -> str:
    """Return the path of a file of an inventory, as published.

    >>> path_in(FILES, "labels", 1, name="Kastner2015")
    'nsddata/freesurfer/subj01/label/Kastner2015.mgz.ctab'
    """
    row = next(row for row in rows if row.kind == kind)
    return row.path.format(subject=_folder(subject), number=subject, **names)


#: The path of a file of NSD.
path_of = partial(path_in, FILES)


def _folder(subject: Anatomy | None) -> str | None:
    return f"subj{subject:02d}" if isinstance(subject, int) else subject


def inventory(
    sessions: Mapping[int, Sequence[int]],
    version: str = BETAS_VERSIONS[0],
    forms: Sequence[Container] = ("hdf5",),
) -> tuple[NsdFile, ...]:
    """Return every file that a run reads: first what subjects share, then by subject.

    Parameters
    ----------
    sessions : dict
        Subject (1..8) -> its sessions (from 1).
    version : str
        Folder of the betas.
    forms : sequence of "hdf5" and "nii.gz"
        Containers of the betas.
    """
    shared = [row for row in FILES if "{subject}" not in row.path]
    surfaces = next(row for row in FILES if row.kind == "surface")
    files = [file for row in shared for file in expand(row, None, {}, version)]
    files += expand(surfaces, "fsaverage", {}, version)
    for subject, numbers in sessions.items():
        betas = {"session": numbers, "form": forms}
        for row in (row for row in FILES if row not in shared):
            names = betas if row.kind == "betas" else {}
            files += expand(row, subject, names, version)
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


def sessions_within(
    subject: int, asked: Sequence[int], most: int, where: str = ""
) -> tuple[int, ...]:
    """Return those of the sessions `asked` up to `most`; DataError without any."""
    sessions = tuple(session for session in asked if session <= most)
    if not sessions or sessions[0] < 1:
        raise DataError(
            f"Subject {subject} has sessions 1 to {most}{where}, but"
            f" {', '.join(map(str, asked))} are asked for: change data.only_sessions,"
            " or leave the subject out."
        )
    return sessions


def expand(
    row: NsdFile,
    subject: Anatomy | None,
    more: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    version: str = BETAS_VERSIONS[0],
) -> Iterator[NsdFile]:
    """Yield the files of a row of an inventory; `more` names to choose from."""
    choices = {**row.names, **more}
    for values in product(*choices.values()):
        names = dict(zip(choices, values, strict=True))
        given = {"subject": _folder(subject), "number": subject, "version": version}
        path = row.path.format(**given | names)
        yield replace(row, path=path, subject=subject, names=names)


# --- the forms in which people have the files -----------------------------------------

#: A session's betas: number and container.
_BETAS_NAME = re.compile(r"betas_session(\d+)\.(hdf5|nii\.gz|nii)", re.IGNORECASE)
#: How COCO's archive unpacks below or beside the folder of captions.
_UNPACKED = ("annotations", "annotations_trainval2017/annotations")


def session_of(path: Path) -> tuple[int, str] | None:
    """Return the session whose betas a file holds, and how, by its name.

    None for other files, and (0, "") for what stands among the betas with another end.

    >>> session_of(Path("betas_session07.HDF5"))
    (7, 'hdf5')
    """
    if name := _BETAS_NAME.fullmatch(path.name):
        return int(name[1]), name[2].lower()
    return (0, "") if path.name.lower().startswith("betas_session") else None


def is_there(path: Path) -> bool:
    """Return whether a file has this name, even if nobody can read it.

    A link to nothing has it, and so may what lies in a folder that may not be entered:
    who reads it says what is wrong.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def find(path: Path) -> Path:
    """Return the file in the place of NSD's `path`; `path` itself where none is.

    A name as NSD publishes it comes first; then the same numbers unpacked, sessions
    without a leading zero, COCO's captions a folder deeper, other capitals.
    """
    if is_there(path):
        return path
    for folder, name in product(_folders(path), _names(path.name)):
        if is_there(found := _as_written(folder / name)):
            return found
    return path


def there(root: Path, files: Iterable[NsdFile]) -> tuple[Path, ...]:
    """Return the files there are of an inventory, in any form, sorted."""
    found = {find(root / file.path) for file in files}
    return tuple(sorted(path for path in found if is_there(path)))


def sides_of(path: Path) -> tuple[Path, ...]:
    """Return the file of a volume, or where only those are there, its two halves."""
    whole = find(path)
    halves = tuple(find(path.with_name(f"{h}.{path.name}")) for h in HEMISPHERES)
    return halves if not is_there(whole) and all(map(is_there, halves)) else (whole,)


def as_present(files: Sequence[NsdFile], root: Path) -> tuple[NsdFile, ...]:
    """Return the files with betas in the container that `root` has of a session.

    A session that is there as nii.gz, and not as hdf5, is not needed as hdf5, too.
    """
    chosen = []
    for file in files:
        packed = f"{file.path.removesuffix('hdf5')}nii.gz"
        is_hdf5 = file.kind == "betas" and file.names["form"] == "hdf5"
        if is_hdf5 and is_there(find(root / packed)) > is_there(find(root / file.path)):
            names = {**file.names, "form": "nii.gz"}
            chosen.append(replace(file, path=packed, names=names))
        else:
            chosen.append(file)
    return tuple(chosen)


def not_otherwise(files: Sequence[NsdFile], root: Path) -> tuple[NsdFile, ...]:
    """Return the files without those that `root` has in another form.

    Unpacked, in two hemispheres, without a leading zero, in capitals: a run reads them.
    """

    def lies_otherwise(path: Path) -> bool:
        return not is_there(path) and all(map(is_there, sides_of(path)))

    return tuple(file for file in files if not lies_otherwise(root / file.path))


def _names(name: str) -> Iterator[str]:
    """Yield the names of a file and of its other forms."""
    stems = [name]
    if session := _BETAS_NAME.fullmatch(name):
        stems.append(f"betas_session{int(session[1])}.{session[2]}")
    for stem in stems:
        yield stem
        if stem.endswith(".nii.gz"):
            yield stem.removesuffix(".gz")
        if stem.endswith(".mgz"):
            yield f"{stem.removesuffix('z')}h"


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders that may hold a file."""
    folder = path.parent
    yield folder
    if path.name.startswith("captions_"):
        yield from (folder / name for name in _UNPACKED)
        yield folder.parent
        yield from (folder.parent / name for name in _UNPACKED)


def _as_written(path: Path) -> Path:
    """Return a file or folder in the capitals in which it is there."""
    if is_there(path) or path.name in PARTS or path == path.parent:
        return path
    parent, held = _as_written(path.parent), list[Path]()
    with suppress(OSError):  # nobody may look
        held = sorted(parent.iterdir())
    alike = (one for one in held if one.name.lower() == path.name.lower())
    return next(alike, parent / path.name)
