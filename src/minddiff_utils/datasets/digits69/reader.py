"""The "69" digits: 100 responses of one person to handwritten sixes and nines.

One MATLAB file of 2.4 MB: real responses of V1 to V3 that decoders can be tried on in
a minute. Not behind `protocol`: it has no voxel positions, areas, sessions, repeats or
captions that notebooks 01 to 06 could prepare; notebook A6 alone reads it.

References
----------
van Gerven, de Lange and Heskes (2010), Neural decoding with hierarchical generative
models, Neural Computation 22, 3127-3142 (the recording).
Du, Du, Huang and He (2018), Reconstructing perceived images from human brain activities
with Bayesian deep multi-view learning, IEEE TNNLS (the file, published with its code).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minddiff_utils.core.errors import DataError, check_exists, check_shape
from minddiff_utils.core.provenance import MARK, digest_file
from minddiff_utils.core.reading import reading
from minddiff_utils.core.types import Array, Doubles, Images, IntArray
from minddiff_utils.datasets.nsd.formats import read_mat

__all__ = [
    "BY_HAND",
    "COLLECTION",
    "COMMIT",
    "FILE",
    "N_VOXELS",
    "REPOSITORY",
    "SHA256",
    "SIDE",
    "SIZE",
    "Digits",
    "read_digits",
]

#: Name, bytes and SHA-256 of the published file.
FILE = "digit69_28x28.mat"
SIZE = 2_390_173
SHA256 = "44513e09ad2398566aedd550088b817a3c0bf9cd7873f87078ecd7fdf170b22d"
#: Where it is published, at which commit, and where it was recorded.
REPOSITORY = "https://github.com/ChangdeDu/DGMM"
COMMIT = "684daf6eb531cfc812bfadf72e07563295264ea2"
COLLECTION = "https://data.donders.ru.nl/collections/di/dcc/DSC_2018.00112_485"
BY_HAND = (
    f"take {FILE} from {REPOSITORY} (commit {COMMIT[:7]}) or {COLLECTION} and put it"
    " there"
)

#: Trials of the published split, voxels, and sides of an image in px.
_N_TRAIN, _N_TEST, N_VOXELS, SIDE = 90, 10, 3092, 28
_SHAPES = {
    f"{name}{part}": (n_trials, n_columns)
    for name, n_columns in (("fmri", N_VOXELS), ("stim", SIDE**2), ("label", 1))
    for part, n_trials in (("Trn", _N_TRAIN), ("Test", _N_TEST))
}
#: What stands in the file for which digit.
_DIGITS = {1: 6, 2: 9}


@dataclass(frozen=True)
class Digits:
    """All trials, those that train in the published split first.

    Attributes
    ----------
    responses : (100, 3092) float64
        One row per trial, one column per voxel of V1 to V3, as published (no unit is
        stated).
    images : (100, 28, 28) uint8
        What was seen, white on black.
    digit : (100,) int64
        6 or 9.
    """

    responses: Doubles
    images: Images
    digit: IntArray

    @property
    def pixels(self) -> Doubles:
        """Return the images as targets, (100, 784) float64 in 0..1."""
        return self.images.reshape(len(self.images), -1) / 255.0

    def published_split(self) -> list[tuple[IntArray, IntArray]]:
        """Return the rows that train and those that test, as folds: one fold."""
        rows = np.arange(len(self.digit))
        return [(rows[:_N_TRAIN], rows[_N_TRAIN:])]


def read_digits(folder: Path) -> Digits:
    """Return the data of the file in `folder`.

    What is in it is looked at first, so that a sentence says what is wrong, and its
    SHA-256 last: no other file passes, but in a folder that is marked as in silico.

    Raises
    ------
    DataError
        The file is missing, damaged, or another one than published.
    """
    path = folder / FILE
    fetch = f"`minddiff fetch {folder} --profile digits69`"
    check_exists(path, "The 69 digits", f"get them with {fetch}, or {BY_HAND}")
    found, remedy = "is truncated or no MATLAB file", f"move it away, then {fetch}"
    with reading(path, DataError, found=found, remedy=remedy, what="The 69 digits"):
        stored = read_mat(path, tuple(_SHAPES))
        digest = digest_file(path)
    for name, shape in _SHAPES.items():
        _check(name, shape, stored, f"{path}", remedy)
    responses, images, digit = (
        np.concatenate([stored[f"{name}{part}"] for part in ("Trn", "Test")])
        for name in ("fmri", "stim", "label")
    )
    _check_together(responses, images, digit[:, 0], f"{path}", remedy)
    if digest != SHA256 and not (folder / MARK).is_file():
        raise DataError(
            f"{path} is laid out as the published file, but its SHA-256 is"
            f" {digest[:12]}..., not {SHA256[:12]}...: {remedy}."
        )
    return Digits(
        responses.astype(np.float64),
        # MATLAB stores columns first
        images.astype(np.uint8).reshape(-1, SIDE, SIDE).transpose(0, 2, 1),
        np.where(digit[:, 0] == 1, _DIGITS[1], _DIGITS[2]).astype(np.int64),
    )


def _check(
    name: str, shape: tuple[int, int], stored: dict[str, Array], path: str, remedy: str
) -> None:
    """Raise DataError unless a variable is there, holds numbers and has its shape."""
    if name not in stored:
        held = ", ".join(stored) or "none of its variables"
        raise DataError(f"{path} has no variable {name!r} (it has {held}): {remedy}.")
    values = stored[name]
    if values.dtype.kind not in "iuf":
        kind = "no numbers" if values.dtype.kind != "c" else "complex numbers"
        raise DataError(f"{name} in {path} holds {kind} ({values.dtype}): {remedy}.")
    other = f"{name[:-3]}Test" if name.endswith("Trn") else f"{name[:-4]}Trn"
    if values.shape == _SHAPES[other]:
        raise DataError(
            f"{name} in {path} has {len(values)} trials, as many as {other} should"
            f" have: training and test trials are swapped; {remedy}."
        )
    check_shape(values.shape, shape, f"{name} in {path}")
    if not np.isfinite(values).all():
        raise DataError(f"{name} in {path} holds NaN or infinite values: {remedy}.")


def _check_together(
    responses: Array, images: Array, label: Array, path: str, remedy: str
) -> None:
    """Raise DataError where values are none of responses, images and labels."""
    flat = int((np.ptp(responses, axis=0) == 0).sum())
    whole = np.array_equal(images, np.rint(images))
    n_of_each = [int((label == value).sum()) for value in _DIGITS]
    n_images, n_rows = (len(np.unique(x, axis=0)) for x in (images, responses))
    trouble = ""
    if flat:
        trouble = f"{flat} voxels that never vary"
    elif n_rows < len(responses):
        trouble = f"the same responses in several trials ({n_rows} differ)"
    elif not whole or images.min() < 0 or images.max() > 255:
        trouble = "pixels that are no whole numbers from 0 to 255"
    elif images.max() <= 1:
        trouble = "pixels from 0 to 1, where 0 to 255 are published"
    elif n_images < len(images):
        trouble = f"an image more than once ({n_images} differ)"
    elif n_of_each != [len(label) // 2] * 2:
        trouble = f"{n_of_each[0]} labels 1 and {n_of_each[1]} labels 2, not 50 of each"
    if trouble:
        raise DataError(f"{path} holds {trouble}: {remedy}.")
