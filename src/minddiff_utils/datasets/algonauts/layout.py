"""The files of the Algonauts 2023 release, in one list, and what it says of itself.

Below one folder lie the release (`subjNN/...`) and those files of NSD that it needs
(`nsddata/...`, `nsddata_stimuli/...`).

References
----------
Gifford, A. T. et al. (2023). The Algonauts Project 2023 Challenge. arXiv 2301.03198;
gifale95/algonauts_2023, `challenge_data_preparation.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from minddiff_utils.datasets.nsd.layout import FACTS as NSD_FACTS
from minddiff_utils.datasets.nsd.layout import FILES as NSD_FILES
from minddiff_utils.datasets.nsd.layout import HEMISPHERES, NsdFile, path_of

__all__ = [
    "FILES",
    "IMAGE_NAME",
    "N_VERTICES",
    "ROIS",
    "inventory",
    "n_sessions",
    "nsd_files",
    "path",
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
IMAGE_NAME = re.compile(r"train-(\d{4,})_nsd-(\d{5})\.png")

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
_FSAVERAGE = "nsddata_betas/ppdata/{subject}/fsaverage/betas_fithrf_GLMdenoise_RR"
_file = NsdFile
#: Every file that a run reads, but for the images.
FILES = (
    _file(
        "fmri",
        "{subject}/training_split/training_fmri/{h}_training_fmri.npy",
        "responses",
    ),
    _file("vertices", f"{_MASKS}.all-vertices_fsaverage_space.npy", "which vertices"),
    _file("roi", f"{_MASKS}.{{roi}}_challenge_space.npy", "visual areas"),
    _file(
        "kastner",
        "nsddata/freesurfer/fsaverage/label/{h}.Kastner2015.mgz",
        "visual areas beyond hV4",
    ),
    _file("ncsnr", f"{_FSAVERAGE}/{{h}}.ncsnr.mgh", "noise ceiling", optional=True),
    _file("table", path_of("table"), "COCO ids, repeats and the images that test"),
    _file("design", path_of("design"), "order of the images", optional=True),
    *(
        _file("captions", path_of("captions", split=split), "what the images show")
        for split in ("train2017", "val2017")
    ),
    *(
        replace(row, path=path_of("surface", "fsaverage", h="{h}", surface=shape))
        for row in NSD_FILES
        if row.kind == "surface"
        for shape in row.names["surface"]
    ),
)


def n_sessions(subject: int) -> int:
    """Return over how many sessions the release averages an image's trials."""
    return NSD_FACTS[subject].n_sessions - _N_WITHHELD


def path(kind: str, subject: int, **names: str) -> str:
    """Return the path of a file below the folder.

    >>> path("roi", 1, h="lh", roi="streams")
    'subj01/roi_masks/lh.streams_challenge_space.npy'
    """
    row = next(file for file in FILES if file.kind == kind)
    return row.path.format(subject=f"subj{subject:02d}", **names)


def inventory(subject: int) -> tuple[str, ...]:
    """Return the paths of all files that notebook 01 reads, images aside."""
    paths = dict.fromkeys(
        file.path.format(subject=f"subj{subject:02d}", h=h, roi="prf-visualrois")
        for file, h in product(FILES, HEMISPHERES)
        if file.notebook == "01"
    )
    return tuple(paths)


def nsd_files(subjects: Sequence[int]) -> tuple[NsdFile, ...]:
    """Return the files of NSD, and COCO's captions, that lie beside the release."""
    rows = [file for file in FILES if file.path.startswith("nsddata")]
    found = dict[str, NsdFile]()
    for file, subject, h in product(rows, subjects, HEMISPHERES):
        place = file.path.format(subject=f"subj{subject:02d}", h=h)
        found[place] = replace(file, path=place)
    return tuple(found.values())
