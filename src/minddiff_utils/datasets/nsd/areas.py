"""From the labels of NSD's two atlases to the visual areas of the paper.

References
----------
Wang, L. et al. (2015). Cerebral Cortex 25, 3911-3931, the areas of Kastner2015.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import check_shape

__all__ = ["AREA_LABELS", "NO_AREA", "ROI_NAMES", "assign_areas"]

IntArray = npt.NDArray[np.int64]

#: Area -> labels of Kastner2015 and prf-visualrois (groups of MindDiffuser's masks;
#: MT is TO1 and MST is TO2; SPL1 and FEF belong to no area).
AREA_LABELS = {
    "V1": ("V1v", "V1d"),
    "V2": ("V2v", "V2d"),
    "V3": ("V3v", "V3d"),
    "V3ab": ("V3A", "V3B"),
    "hV4": ("hV4",),
    "VO": ("VO1", "VO2"),
    "PHC": ("PHC1", "PHC2"),
    "LO": ("LO1", "LO2"),
    "MT": ("TO1",),
    "MST": ("TO2",),
    "IPS": ("IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5"),
}
#: A voxel of nsdgeneral that lies in none of the areas.
NO_AREA = "none"
#: What an index in `roi` means.
ROI_NAMES = (*AREAS, NO_AREA)


def _area_lookup(labels: Mapping[str, int]) -> dict[int, int]:
    wanted = {name: k for k, area in enumerate(AREAS) for name in AREA_LABELS[area]}
    return {value: wanted[name] for name, value in labels.items() if name in wanted}


def _map_labels(volume: IntArray, labels: Mapping[str, int]) -> IntArray:
    areas = np.full(volume.shape, -1, np.int64)
    for value, area in _area_lookup(labels).items():
        areas[volume == value] = area
    return areas


def assign_areas(
    kastner: IntArray,
    kastner_labels: Mapping[str, int],
    prf: IntArray,
    prf_labels: Mapping[str, int],
) -> IntArray:
    """Return each voxel's area as an index into `config.AREAS`, -1 where none.

    Kastner2015 is an atlas fitted to the subject, prf-visualrois was drawn by hand on
    the subject's own retinotopy: where the second has a label, it overrides the first.

    References
    ----------
    styvesg/nsd, `torched_alexnet_fwrf.ipynb`, which MindDiffuser's masks come from.
    """
    check_shape(prf.shape, kastner.shape, "prf-visualrois")
    areas = _map_labels(kastner, kastner_labels)
    drawn = prf > 0
    areas[drawn] = _map_labels(prf, prf_labels)[drawn]
    return areas
