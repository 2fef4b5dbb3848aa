"""Which voxels are decoded from, and the visual area of each.

References
----------
Wang, L. et al. (2015). Cerebral Cortex 25, 3911-3931, the areas of Kastner2015.
"""

import logging
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.areas import AREAS, LVC
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.nsd.areas import NO_AREA, ROI_NAMES
from minddiff_utils.datasets.nsd.layout import FACTS, SUBJECT1
from minddiff_utils.datasets.nsd.reader import NsdTree

__all__ = ["count_areas", "read_voxels"]

logger = logging.getLogger(__name__)


def read_voxels(
    tree: NsdTree, subject: int, voxels: Literal["areas", "nsdgeneral"]
) -> IntArray:
    """Return the volume of indices into `ROI_NAMES`, -1 where a voxel is not used."""
    areas = _read_areas(tree, subject)
    if voxels == "areas":
        return areas
    general = tree.roi(subject, "nsdgeneral") > 0
    check_shape(general.shape, areas.shape, f"nsdgeneral of subject {subject}")
    if not general.any():
        raise DataError(
            f"Subject {subject} has no voxel in nsdgeneral.nii.gz: replace it by NSD's "
            "own file, or set data.voxels to areas."
        )
    named = np.where(areas < 0, ROI_NAMES.index(NO_AREA), areas)
    return np.where(general, named, -1)


def _read_areas(tree: NsdTree, subject: int) -> IntArray:
    """Return the volume of areas as indices into `ROI_NAMES`, -1 outside them all."""
    areas = tree.areas(subject)
    n_voxels = int((areas >= 0).sum())
    if not n_voxels:
        raise DataError(
            f"Subject {subject} has no voxel in any of the areas {', '.join(AREAS)}: "
            "check Kastner2015.nii.gz and prf-visualrois.nii.gz."
        )
    _report_areas(subject, areas)
    return areas


def _report_areas(subject: int, areas: IntArray) -> None:
    """Log voxels per area; warn where NSD's subject 1 has not MindDiffuser's number."""
    counts = np.bincount(areas[areas >= 0], minlength=len(AREAS)).tolist()
    each = ", ".join(f"{a} {n}" for a, n in zip(AREAS, counts, strict=True))
    logger.info("subject %d: %d voxels (%s)", subject, sum(counts), each)
    is_paper_s = subject == 1 and areas.shape == FACTS[1].grid
    if is_paper_s and sum(counts) != SUBJECT1["11 areas"]:
        logger.warning(
            "subject 1 has %d voxels in the 11 areas, but MindDiffuser used %d: these "
            "region files differ from the paper's",
            sum(counts),
            SUBJECT1["11 areas"],
        )


def _area_set(area: str) -> str:
    if area == NO_AREA:
        return NO_AREA
    return "LVC" if area in LVC else "HVC"


def count_areas(roi: npt.NDArray[np.int32], subject: int) -> pd.DataFrame:
    """Return (subject, area, area_set, n_voxels), areas from early to late.

    Voxels outside the areas, if there are any, form a last row, "none".
    """
    counts = np.bincount(roi, minlength=len(AREAS))
    names = ROI_NAMES[: len(counts)]
    return pd.DataFrame(
        {
            "subject": subject,
            "area": list(names),
            "area_set": [_area_set(area) for area in names],
            "n_voxels": counts,
        }
    )
