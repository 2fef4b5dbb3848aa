"""The files of the Algonauts 2023 release, in one list, and what it says of itself.

Below one folder lie the release (`subjNN/...`) and those files of NSD that it needs
(`nsddata/...`, `nsddata_stimuli/...`).

References
----------
Gifford, A. T. et al. (2023). The Algonauts Project 2023 Challenge. arXiv 2301.03198;
gifale95/algonauts_2023, `challenge_data_preparation.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from minddiff_utils.datasets.inventory import (
    HEMISPHERES,
    DataFile,
    is_there,
    list_files,
    path_in,
)
from minddiff_utils.datasets.nsd import layout as nsd

__all__ = [
    *("FILES", "IMAGE_NAME", "N_VERTICES", "ROIS"),
    *("by_hand", "inventory", "n_sessions", "path"),
]

#: Vertices of the challenge space by subject, lh and rh: nsdgeneral and RSC on
#: fsaverage, of subjects 6 and 8 without those that lack data in some session.
N_VERTICES = {
    **dict.fromkeys((1, 2, 3, 4, 5, 7), (19_004, 20_544)),
    6: (18_978, 20_220),
    8: (18_981, 20_530),
}
#: The last sessions of each subject are withheld with the test split.
_N_WITHHELD = 3
#: Rank from 1, `nsd_id` 0-based.
IMAGE_NAME = r"^train-(?P<rank>\d{4,9})_nsd-(?P<nsd_id>\d{5})\.png$"

#: Label names of the release's masks in order of value 1..N. Its mapping_*.npy say the
#: same, but are pickles, which could run code: they are never opened.
ROIS: dict[str, tuple[str, ...]] = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": (
        *("early", "midventral", "midlateral", "midparietal"),
        *("ventral", "lateral", "parietal"),
    ),
}


_MASKS = "{subject}/roi_masks/{h}"
_FMRI = "{subject}/training_split/training_fmri/{h}_training_fmri.npy"
_ATLAS = "nsddata/freesurfer/fsaverage/label/{h}.Kastner2015.mgz"
_NCSNR = "nsddata_betas/ppdata/{subject}/fsaverage/betas_fithrf_GLMdenoise_RR/{h}"
_SIDES = {"h": HEMISPHERES}
_DRAWN = {**_SIDES, "roi": ("prf-visualrois",)}
_OF_NSD = ("table", "design", "captions", "surface")
_file = DataFile

#: Every file that a run reads, but for the images; surfaces are those of the group.
FILES = (
    _file("fmri", _FMRI, "responses", _SIDES),
    _file("vertices", f"{_MASKS}.all-vertices_fsaverage_space.npy", "which", _SIDES),
    _file("roi", f"{_MASKS}.{{roi}}_challenge_space.npy", "visual areas", _DRAWN),
    _file("kastner", _ATLAS, "visual areas beyond hV4", _SIDES),
    _file("ncsnr", f"{_NCSNR}.ncsnr.mgh", "noise ceiling", _SIDES, optional=True),
    *(
        replace(row, optional=row.kind in ("design", "surface"))
        for row in nsd.FILES
        if row.kind in _OF_NSD and (row.subject or "{subject}" not in row.path)
    ),
)

#: The path of a file below the folder, by kind, subject and names.
path = partial(path_in, FILES)


def n_sessions(subject: int) -> int:
    """Return over how many sessions the release averages an image's trials."""
    return nsd.FACTS[subject].n_sessions - _N_WITHHELD


def inventory(*subjects: int) -> tuple[DataFile, ...]:
    """Return every file that a run reads, images aside, each once.

    Those of NSD, and COCO's captions, lie below folders nsddata*.
    """
    return list_files(FILES, subjects)


def by_hand(root: Path, subjects: Sequence[int]) -> tuple[str, ...]:
    """Return a sentence for each subject whose responses are not there.

    The release is behind a link that its makers send to those who have filled in a
    form; no server gives it to a program.
    """
    address = "https://algonauts.csail.mit.edu/challenge.html"
    files = (file for file in inventory(*subjects) if file.kind == "fmri")
    lacking = [file.subject for file in files if not is_there(root / file.path)]
    return tuple(
        f"{folder} of the release comes by hand, 1.6 GB of responses and the training"
        f" images: ask for its link at {address}, download {folder} and unpack it as"
        f" {root / folder}."
        for folder in dict.fromkeys(f"subj{subject:02d}" for subject in lacking)
    )
