"""From the masks of LAION-fMRI's regions to the paper's areas."""

from pathlib import Path

import numpy as np

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.laion_fmri import files, layout

__all__ = ["read_areas"]


def read_areas(root: Path, subject: int) -> IntArray:
    """Return the volume of areas as indices into `AREAS`, -1 outside.

    Where regions overlap at a border, the earlier area has the voxel.

    Raises
    ------
    DataError
        A mask is missing, damaged or of another grid, or no voxel lies in any area.
    """
    volume: IntArray | None = None
    for number, area in reversed(list(enumerate(AREAS))):
        for roi in layout.ROIS[area]:
            path = layout.roi_file(root, subject, roi)
            mask = files.read_mask(path)
            if volume is None:
                volume = np.full(mask.shape, -1, np.int64)
            check_shape(mask.shape, volume.shape, f"Region {path}")
            volume[mask] = number
    if volume is None or not (volume >= 0).any():
        raise DataError(
            f"Subject {subject} has no voxel in any of the areas: fetch the masks of "
            "derivatives/rois again."
        )
    return volume
