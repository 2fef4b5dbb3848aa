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

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.provenance import MARK, digest_file
from minddiff_utils.core.types import Array, Doubles, Images, IntArray
from minddiff_utils.datasets.download import Agreement
from minddiff_utils.datasets.published import Published
from minddiff_utils.datasets.transfer import Download

__all__ = [
    *("AGREEMENT", "COMMIT", "FILE", "N_VOXELS", "SHA256", "SIDE", "SIZE", "Digits"),
    *("downloads", "read_digits"),
]

#: Name, bytes and SHA-256 of the published file.
FILE, SIZE = "digit69_28x28.mat", 2_390_173
SHA256 = "44513e09ad2398566aedd550088b817a3c0bf9cd7873f87078ecd7fdf170b22d"
#: Where it is published, at which commit, and where it was recorded.
_REPOSITORY = "ChangdeDu/DGMM"
COMMIT = "684daf6eb531cfc812bfadf72e07563295264ea2"
_COLLECTION = "https://data.donders.ru.nl/collections/di/dcc/DSC_2018.00112_485"
_BY_HAND = (
    f"take {FILE} from https://github.com/{_REPOSITORY} (commit {COMMIT[:7]}) or"
    f" {_COLLECTION} and put it there"
)
_SERVER = "https://raw.githubusercontent.com"
AGREEMENT = Agreement(
    "the data use agreement of the Donders Repository for DSC_2018.00112_485",
    _COLLECTION,
    'The "69" digits (van Gerven, de Lange and Heskes 2010) were recorded at the\n'
    "Donders Institute, whose collection is open to those who ask and agree to its\n"
    "terms. The copy that is fetched here is published by Du et al. with their code,\n"
    "without a licence. Use it under the collection's terms, pass it on to\n"
    "nobody, cite both.\n"
    f"  Collection  {_COLLECTION}\n"
    f"  Copy        https://github.com/{_REPOSITORY}\n",
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


def downloads(root: Path, *, endpoint: str = "") -> tuple[Download, ...]:
    """Return where the one file comes from that goes to the folder `root`.

    The address is pinned by a commit and the bytes by their SHA-256. `endpoint`:
    address of another server with the same paths.
    """
    url = f"{endpoint.rstrip('/') or _SERVER}/{_REPOSITORY}/{COMMIT}/{FILE}"
    reason = f"responses and images; terms: {_COLLECTION}"
    by_hand = f"{_BY_HAND} ({root})"
    return (Download(FILE, url, reason, by_hand, size=SIZE, sha256=SHA256),)


def read_digits(folder: Path) -> Digits:
    """Return the data of the file in `folder`.

    What is in it is looked at first, so that a sentence says what is wrong, and its
    SHA-256 last: no other file passes, but in a folder that is marked as in silico.

    Raises
    ------
    DataError
        The file is missing, damaged, or another one than published.
    """
    path, fetch = folder / FILE, f"`minddiff fetch {folder} --profile digits69`"
    again = f"move it away, then {fetch}"
    files = Published(f"get them with {fetch}, or {_BY_HAND}", again)
    stored = files.matlab(path, "The 69 digits", _SHAPES)
    for name, shape in _SHAPES.items():
        _check(files, path, name, shape, stored[name])
    responses, images, digit = (
        np.concatenate([stored[f"{name}{part}"] for part in ("Trn", "Test")])
        for name in ("fmri", "stim", "label")
    )
    if trouble := _trouble(responses, images, digit[:, 0]):
        raise files.wrong(path, *trouble)
    digest = digest_file(path)
    if digest != SHA256 and not (folder / MARK).is_file():
        raise DataError(
            f"{path} is laid out as the published file, but its SHA-256 is"
            f" {digest[:12]}..., not {SHA256[:12]}...: {files.again}."
        )
    return Digits(
        responses.astype(np.float64),
        # MATLAB stores columns first
        images.astype(np.uint8).reshape(-1, SIDE, SIDE).transpose(0, 2, 1),
        np.where(digit[:, 0] == 1, _DIGITS[1], _DIGITS[2]).astype(np.int64),
    )


def _check(
    files: Published, path: Path, name: str, shape: tuple[int, int], values: Array
) -> None:
    """Raise DataError unless a variable holds numbers and has its shape."""
    if values.dtype.kind not in "iuf":
        kind = "no numbers" if values.dtype.kind != "c" else "complex numbers"
        raise files.wrong(path, f"{kind} ({values.dtype}) in {name}", "real numbers")
    other = f"{name[:-3]}Test" if name.endswith("Trn") else f"{name[:-4]}Trn"
    if values.shape == _SHAPES[other]:
        found = f"{len(values)} trials in {name}, as many as {other} should have"
        raise files.wrong(path, found, "that they are not swapped")
    check_shape(values.shape, shape, f"{name} in {path}")
    if not np.isfinite(values).all():
        raise files.wrong(path, f"NaN or infinite values in {name}", "numbers")


def _trouble(responses: Array, images: Array, label: Array) -> tuple[str, str] | None:
    """Return what makes values none of responses, images and labels; what is right."""
    flat = int((np.ptp(responses, axis=0) == 0).sum())
    n_of_each = [int((label == value).sum()) for value in _DIGITS]
    n_images, n_rows = (len(np.unique(x, axis=0)) for x in (images, responses))
    if flat:
        return f"{flat} voxels that never vary", "none"
    if n_rows < len(responses):
        return f"the same responses in several trials ({n_rows} differ)", "no two alike"
    if (images != np.rint(images)).any() or images.min() < 0 or images.max() > 255:
        return "other pixels", "whole numbers from 0 to 255"
    if images.max() <= 1:
        return "pixels from 0 to 1", "0 to 255"
    if n_images < len(images):
        return f"an image more than once ({n_images} differ)", "each image once"
    if n_of_each != [len(label) // 2] * 2:
        return f"{n_of_each[0]} labels 1 and {n_of_each[1]} labels 2", "50 of each"
    return None
