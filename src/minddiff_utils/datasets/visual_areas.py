"""From the labels of NSD's regions to the visual areas of the paper.

References
----------
Wang, L. et al. (2015). Cerebral Cortex 25, 3911-3931, the areas of Kastner2015.
"""

from collections.abc import Mapping

import numpy as np

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import check_shape
from minddiff_utils.core.types import IntArray

__all__ = ["AREA_LABELS", "NEEDED_LABELS", "ROI_LABELS", "assign_areas", "read_labels"]


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
_PRF = ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")
_WANG = ("VO1", "VO2", "PHC1", "PHC2", "TO2", "TO1", "LO2", "LO1", "V3B", "V3A")
_IPS = ("IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5")


def _numbered(*labels: str) -> dict[str, int]:
    return {label: value for value, label in enumerate(labels, start=1)}


#: Label names and values, used where a folder holds no colour table.
ROI_LABELS = {
    "prf-visualrois": _numbered(*_PRF),
    "Kastner2015": _numbered(*_PRF, *_WANG, *_IPS, "SPL1", "FEF"),
    "nsdgeneral": _numbered("nsdgeneral"),
}
#: Labels without which voxels of the eleven areas would be lost.
NEEDED_LABELS = {"prf-visualrois": _PRF, "Kastner2015": (*_PRF, *_WANG, *_IPS)}


def read_labels(text: str) -> dict[str, int]:
    r"""Return label name -> value of a colour table; 0, the background, is left out.

    Tables carry trailing blanks and tabs, colours, comments, and may end anywhere.

    Raises
    ------
    ValueError
        A line begins with no number, or a name or a value stands twice.

    Examples
    --------
    >>> read_labels("# Wang 2015\n0 Unknown\t\n1 V1v 255 0 0 0\n")
    {'V1v': 1}
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    rows = [line for line in lines if not line[0].startswith("#")]
    labels: dict[str, int] = {}
    for value, name in ((int(row[0]), row[1]) for row in rows if len(row) > 1):
        if value <= 0 or labels.get(name) == value:
            continue
        if name in labels or value in labels.values():
            raise ValueError(f"the line {value} {name} gives a name or value again")
        labels[name] = value
    return labels


def _map_labels(volume: IntArray, labels: Mapping[str, int]) -> IntArray:
    areas = np.full(volume.shape, -1, np.int64)
    for number, area in enumerate(AREAS):
        values = [labels[name] for name in AREA_LABELS[area] if name in labels]
        areas[np.isin(volume, values)] = number
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
