"""Single files of the Algonauts release, opened: what is wrong is one sentence.

Arrays are read without pickles: an array of objects is refused.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from minddiff_utils.core.errors import DataError, check_exists, check_shape
from minddiff_utils.core.reading import Published, reading
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.algonauts.layout import IMAGE_NAME
from minddiff_utils.datasets.nsd import formats
from minddiff_utils.datasets.nsd.layout import IMAGE_SIZE, N_FSAVERAGE, N_IMAGES

__all__ = [
    "list_images",
    "read_fmri",
    "read_image",
    "read_mask",
    "read_ncsnr",
    "read_surface",
]

_WHERE = (
    "name the folder that holds subj01 to subj08 of the Algonauts 2023 release "
    "(--nsd-root), or unpack the release there"
)
_AGAIN = "compare it with the Algonauts 2023 release and download it again"
_RELEASE = Published(_WHERE, _AGAIN)
_FROM_NSD = (
    "download it from NSD's bucket, where it has the same path from nsddata on, or name"
    " the right folder (--nsd-root)"
)


def read_fmri(path: Path) -> npt.NDArray[np.float32]:
    """Return a hemisphere's responses, (n_images, n_vertices), left on disk."""
    with _RELEASE.reading(path, "Responses"):
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.dtype != np.float32:
        raise _RELEASE.wrong(path, f"{values.dtype} values", "float32")
    if values.ndim != 2 or 0 in values.shape:
        raise _RELEASE.wrong(
            path, f"an array of shape {values.shape}", "(images, vertices)"
        )
    return np.asarray(values)


def read_mask(path: Path, n: int, allowed: Collection[int]) -> IntArray:
    """Return a mask of `n` vertices, whose values are all among `allowed`."""
    with _RELEASE.reading(path, "Mask"):
        values = np.load(path, allow_pickle=False)
    if values.dtype.kind not in "iub":
        raise _RELEASE.wrong(path, f"{values.dtype} values", "whole numbers")
    if values.shape != (n,):
        raise _RELEASE.wrong(path, f"an array of shape {values.shape}", f"({n},)")
    odd = np.setdiff1d(values, list(allowed))
    if len(odd):
        most = max(allowed)
        raise _RELEASE.wrong(
            path, f"the value {int(odd[0])}", f"a whole number 0 to {most}"
        )
    return np.asarray(values, np.int64)


def read_surface(path: Path, what: str) -> npt.NDArray[np.float32]:
    """Return one number per vertex of fsaverage, from a file of NSD."""
    check_exists(path, what, _FROM_NSD)
    values = formats.read_volume(path, what).squeeze()
    check_shape(values.shape, (N_FSAVERAGE,), f"{what} {path}")
    return values.astype(np.float32)


def read_ncsnr(path: Path) -> npt.NDArray[np.float32]:
    """Return NSD's noise-ceiling SNR of each vertex; NaN where it is unknown."""
    values = read_surface(path, "Noise-ceiling SNR")
    if (values < 0).any() or np.isinf(values).any():
        found = "negative or infinite values"
        raise formats.wrong(path, found, "a signal-to-noise ratio")
    return values


def list_images(folder: Path) -> dict[int, Path]:
    """Return the training images by `nsd_id`, in the order of the rows of responses.

    Raises
    ------
    DataError
        There is none, a name is not as released, or ranks and ids do not ascend
        together from rank 1 without a gap.
    """
    check_exists(folder, "Training images", _WHERE)
    with reading(folder, DataError, remedy=_AGAIN):
        pictures = [p for p in folder.iterdir() if p.suffix.lower() == ".png"]
    found = dict[int, tuple[int, Path]]()
    for path in sorted(p for p in pictures if not p.name.startswith(".")):
        name = IMAGE_NAME.fullmatch(path.name)
        if name is None:
            raise DataError(
                f"{path} is no name of the release, as train-0001_nsd-00013.png is: "
                "leave the files as they were unpacked."
            )
        rank, nsd_id = int(name[1]), int(name[2])
        if nsd_id >= N_IMAGES:
            raise _RELEASE.wrong(
                path, f"image {nsd_id} by its name", f"0 to {N_IMAGES - 1}"
            )
        if rank in found:
            raise _RELEASE.wrong(folder, f"two images of rank {rank}", "one")
        found[rank] = nsd_id, path
    if not found:
        raise _RELEASE.wrong(folder, "no image", "train-0001_nsd-NNNNN.png and others")
    gaps = sorted(set(range(1, max(found) + 1)) - set(found))
    if gaps or 0 in found:
        lost = gaps[0] if gaps else 0
        words = f"no image of rank {lost}" if gaps else "an image of rank 0"
        raise _RELEASE.wrong(folder, words, "ranks from 1 without a gap")
    ranked = [found[rank] for rank in sorted(found)]
    ids = [nsd_id for nsd_id, _ in ranked]
    if (np.diff(ids) <= 0).any():
        row = int(np.flatnonzero(np.diff(ids) <= 0)[0]) + 2
        raise _RELEASE.wrong(
            folder, f"an id out of order at rank {row}", "ascending ids"
        )
    return dict(ranked)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return one image, (425, 425, 3) uint8."""
    with _RELEASE.reading(path, "Image"), Image.open(path) as picture:
        mode, size = picture.mode, picture.size
        pixels = np.asarray(picture)
    if mode != "RGB" or size != (IMAGE_SIZE, IMAGE_SIZE):
        found = f"a picture of {size[0]} x {size[1]} px ({mode})"
        raise _RELEASE.wrong(path, found, f"{IMAGE_SIZE} x {IMAGE_SIZE} px (RGB)")
    return pixels
