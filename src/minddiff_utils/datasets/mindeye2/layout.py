"""The files of MindEye2's folder that are read, and what is not settled about them.

`pscotti/mindeyev2` on Hugging Face holds NSD's responses at 1.8 mm inside nsdgeneral,
standardised, all sessions of a subject in one array. Facts were read in public code;
nobody here has opened a file. Not settled:

- Which version of NSD's betas is inside. Nothing in the file says so.
- Over which trials mean and SD were taken. The shipped file leaves the shared images
  out, the public notebook that is said to write it does not (and writes float16): it
  does not reproduce the file (MedARC-AI/MindEyeV2, issue 35). The paper's appendix
  speaks of the training set alone. Whatever it was, standardising within sessions on
  one's own training trials undoes it, as long as it was one mean and one SD for a voxel
  and session: that is done here, as for NSD itself.
- The order of columns. nsdgeneral > 0 in C order fits their number for subject 1; the
  regions that lie beside are compared, and another order is refused.
- A licence. None is stated; NSD's agreement holds.

Files with other suffixes there (`.pt`, `.pth`) are pickles, which could run code: none
is opened.

References
----------
Scotti, P. S. et al. (2024). MindEye2. ICML, arXiv 2403.11207; MedARC-AI/MindEyeV2.
"""

from functools import partial

from minddiff_utils.datasets.inventory import DataFile
from minddiff_utils.datasets.nsd import layout as nsd

__all__ = ["BEHAVIOUR", "FILES"]


#: Columns of a trial's behaviour: (1, 17) float64, -1 for what is missing. Ids and rows
#: count from 0.
BEHAVIOUR = (
    *("image", "subject", "session", "run", "trial", "row", "time", "is_old"),
    *("is_correct", "reaction_time", "change_of_mind", "is_old_current"),
    *("is_correct_current", "total1", "total2", "button", "is_shared"),
)

_file, _spare = DataFile, partial(DataFile, optional=True)
_OF_NSD = ("design", "table", "stimuli", "captions", "labels", "roi", "ncsnr")
#: Every file that is read.
FILES = (
    _file("betas", "betas_all_{subject}_fp32_renorm.hdf5", "responses"),
    _file("indices", "COCO_73k_subj_indices.hdf5", "image of each trial"),
    _file("shared", "shared1000.npy", "images that test"),
    _spare("regions", "brain_region_masks.hdf5", "checks the order of columns"),
    _spare("train", "wds/{subject}/train/{part}.tar", "behaviour", {"part": range(40)}),
    _spare("test", "wds/{subject}/new_test/0.tar", "behaviour"),
    _spare("images224", "coco_images_224_float16.hdf5", "images of 224 px"),
    *(row for row in nsd.FILES if row.kind in _OF_NSD),
)
