"""Whether two volumes lie on one grid of voxels in one space.

NSD's betas, regions and ncsnr are read voxel by voxel, by index. A volume that some
program has resaved in another orientation has other voxels at the same indices, often
with the same shape; only the affines of the headers tell.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets.nsd.publisher import NSD
from minddiff_utils.datasets.volumes import load_image

__all__ = ["check_space"]

Affine = npt.NDArray[np.float64]

#: Where NSD's array axes lead: to the right, to the front, up.
_AXES = ("R", "A", "S")
#: Farthest that a corner of the volume may lie off, mm: headers hold float32, and some
#: programs write a few digits of it.
_ROUNDING = 0.01
_REMEDY = "use both as NSD has them, neither resaved nor resampled"


def _affine(path: Path, image: Any) -> Affine:
    """Return a volume's affine; refuse a header that states none, or two."""
    header = image.header
    codes = [int(header[name]) for name in ("sform_code", "qform_code")]
    if not any(codes):
        raise DataError(
            f"{path} states no space (sform and qform code are 0), so that its voxels "
            "may be in any order: use the file as NSD has it, not resaved."
        )
    sform: Affine = np.asarray(image.affine, np.float64)
    if all(codes) and _distance(sform, image.get_qform(), image.shape) > _ROUNDING:
        raise DataError(
            f"{path} states two different spaces (sform and qform): use the file as "
            "NSD has it, not resaved."
        )
    return sform


def _distance(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """Return how far the corners of a volume lie apart at most, mm."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape[:3]) - 1)
    there = np.c_[corners, np.ones(8)] @ (first - second).T
    return float(np.abs(there).max())


def _words(affine: Affine) -> str:
    axes = "".join(a or "?" for a in nib.aff2axcodes(affine))
    size = " x ".join(f"{n:.4g}" for n in nib.affines.voxel_sizes(affine))
    origin = ", ".join(f"{x:.4g}" for x in affine[:3, 3])
    return f"{axes}, voxels of {size} mm from {origin}"


def check_space(path: Path, others: Iterable[Path]) -> None:
    """Raise DataError unless a volume lies where the first one of `others` does.

    Of files only headers are read. What is no NIfTI states nothing and passes, and so
    does a volume without others; betas as hdf5 are compared by the order of the axes.
    """
    for other in (other for other in others if other != path):
        with suppress(DataError), NSD.reading(other, "Volume"):
            beside = load_image(other)
            break
    else:
        return
    if path.suffix.lower() == ".hdf5":
        _check_axes(other, beside, path)
        return
    with NSD.reading(path, "Volume"):
        image = load_image(path)
    _check_same_space(path, image, other, beside)


def _check_same_space(path: Path, image: Any, other: Path, beside: Any) -> None:
    """Raise DataError unless two volumes of one shape have one affine."""
    if not all(isinstance(i, nib.Nifti1Image) for i in (image, beside)):
        return
    shape = image.shape[:3]
    if shape != beside.shape[:3]:  # said where they are read
        return
    one, two = _affine(path, image), _affine(other, beside)
    if _distance(one, two, shape) > _ROUNDING:
        raise DataError(
            f"{path} and {other} lie in different spaces ({_words(one)}, but "
            f"{_words(two)}), while one is expected: {_REMEDY}."
        )


def _check_axes(path: Path, image: Any, betas: Path) -> None:
    """Raise DataError unless a volume's axes lead where those of NSD's hdf5 files do.

    Betas as hdf5 have no affine; their axes are NSD's.
    """
    if not isinstance(image, nib.Nifti1Image):
        return
    axes = nib.aff2axcodes(_affine(path, image))
    if axes != _AXES:
        raise DataError(
            f"The axes of {path} lead to {''.join(a or '?' for a in axes)}, but those "
            f"of {betas} to {''.join(_AXES)}, which is expected of both: {_REMEDY}."
        )
