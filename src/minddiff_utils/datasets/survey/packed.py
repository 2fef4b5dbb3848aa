"""Whether a .nii.gz file is whole, without unpacking it where that can be helped.

Place in the flow: part of `survey`.
"""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from minddiff_utils.datasets.nsd.formats import load_image
from minddiff_utils.datasets.survey.looking import differs

__all__ = ["check_nii"]

_BLOCK = 1 << 20  # bytes unpacked at once


def check_nii(path: Path, *, to_the_end: bool) -> Any:
    """Return the image of a .nii.gz file whose length fits its header.

    gzip's last four bytes hold the length (modulo 2^32) of what was packed, so a file
    cut short is known without unpacking it. A file packed in several parts looks the
    same, so where the length does not fit, the file is read to the end after all. Only
    that also finds damage in the middle, by gzip's checksum.
    """
    image: Any = load_image(path)
    if path.suffix.lower() == ".nii":
        return image  # its length fits, or it were not loaded
    dtype = image.get_data_dtype()
    expected = image.dataobj.offset + int(np.prod(image.shape)) * dtype.itemsize
    with path.open("rb") as file:
        file.seek(-4, 2)
        stated = struct.unpack("<I", file.read(4))[0]
    if not to_the_end and stated == expected % 2**32:
        return image
    n_bytes, blank = 0, True
    with gzip.open(path) as unpacked:
        while block := unpacked.read(_BLOCK):
            start = max(image.dataobj.offset - n_bytes, 0)
            blank &= not np.frombuffer(block, np.uint8)[start:].any()
            n_bytes += len(block)
    if n_bytes < expected:
        raise differs(f"{n_bytes} bytes when unpacked", expected)
    if blank:
        raise differs("nothing but zeros", "values")
    return image
