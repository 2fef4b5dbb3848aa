"""NSD-synthetic: one more session of each subject, with stimuli that are no scenes.

284 stimuli in 8 classes (noise, natural scenes and their parts, spirals, words, ...),
744 trials in the same order for all subjects, each stimulus at least twice, in runs of
two tasks (fixation and one-back), over both of which responses are averaged.

References
----------
Gifford, A. T. et al. (2025), NSD-synthetic; gifale95/NSD-synthetic at 5d644e4 (order,
classes, pictures).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import check_shape
from minddiff_utils.core.images import resize
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.further_tests.layout import (
    CLASS_SIZE,
    N_CLASSES,
    N_COMMON,
    N_STIMULI,
    N_TRIALS,
    Name,
)
from minddiff_utils.datasets.further_tests.test_set import (
    FurtherTrials,
    Stimuli,
    file_of,
    middle_square,
)
from minddiff_utils.datasets.nsd.formats import (
    dataset,
    guard,
    open_hdf5,
    read_mat,
    wrong,
)
from minddiff_utils.datasets.nsd.reader import NsdTree

__all__ = ["Synthetic", "as_seen"]

_N_STIMULI, _N_TRIALS = N_STIMULI["synthetic"], N_TRIALS["synthetic"]
#: Columns of the table of stimuli.
_NAME, _CLASS = "Image", "Image class"


def as_seen(stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return stored pixels as a photograph would have them, cut to the middle square.

    The stimuli were shown on a screen of linear response, so that their numbers are
    luminances; the square root stands in for a camera's gamma. Both as in the code that
    comes with the data. What lies at the sides is not seen by the decoders' features.

    Parameters
    ----------
    stored : (n, height, width, 3) uint8

    Examples
    --------
    >>> as_seen(np.full((1, 2, 4, 3), 64, np.uint8))[0, 0, 0].tolist()
    [127, 127, 127]
    """
    gamma = (np.sqrt(np.arange(256) / 255) * 255).astype(np.uint8)
    return np.asarray(gamma[middle_square(stored)])


@dataclass(frozen=True)
class Synthetic:
    """NSD-synthetic in NSD's tree."""

    tree: NsdTree
    name: Name = "synthetic"

    def trials(self, subject: int) -> FurtherTrials:
        """Return the stimulus of each trial, the same for all subjects."""
        path = file_of(self, "design", subject)
        with guard(path, "NSD-synthetic's design"):
            stored = read_mat(path, ("masterordering",))
        if "masterordering" not in stored:
            raise wrong(path, "no variable 'masterordering'", "the order of stimuli")
        order = np.asarray(stored["masterordering"])
        check_shape(order.shape, (1, _N_TRIALS), f"masterordering in {path}")
        stimulus = _to_rows(order[0], path)
        return FurtherTrials(
            stimulus,
            np.full(_N_TRIALS, "vision", "<U9"),
            np.zeros(_N_TRIALS, np.int64),
            (
                "Stimuli of NSD-synthetic are no scenes: numbers say how far decoders "
                "of scenes carry, not how good they are.",
            ),
        )

    def stimuli(self) -> Stimuli:
        """Return names and classes."""
        path = file_of(self, "table", 1)
        with guard(path, "Table of stimuli"):
            table = pd.read_csv(path, keep_default_na=False, dtype=str)
        lacking = [name for name in (_NAME, _CLASS) if name not in table]
        if lacking:
            held = ", ".join(map(str, table.columns))[:200]
            raise wrong(path, f"the columns {held}", f"a column {lacking[0]!r}")
        if len(table) != _N_STIMULI:
            raise wrong(path, f"{len(table)} rows", f"{_N_STIMULI}")
        sizes = table[_CLASS].value_counts()
        if len(sizes) != N_CLASSES or sizes.min() < CLASS_SIZE or "" in sizes:
            found = f"{len(sizes)} classes of {sizes.min()} stimuli or more"
            expected = f"{N_CLASSES} of {CLASS_SIZE} or more, all with a name,"
            raise wrong(path, found, expected)
        if table[_NAME].duplicated().any():
            raise wrong(path, "a name twice", "another for each stimulus")
        group = table[_CLASS].to_numpy(dtype=np.str_)
        return Stimuli(tuple(table[_NAME]), group, np.ones(_N_STIMULI, bool))

    def pictures(self, subject: int, size: int) -> dict[int, npt.NDArray[np.uint8]]:
        """Return all stimuli as seen, at `size` px: common ones, then the subject's."""
        parts = [_read_bricks(*one, size) for one in self._bricks(subject)]
        return dict(enumerate(np.concatenate(parts)))

    def check_pictures(self, subject: int) -> None:
        """Raise DataError unless both files have pictures of the right shape."""
        for path, n in self._bricks(subject):
            with guard(path, "Stimuli"), open_hdf5(path) as file:
                _open_bricks(file, path, n)

    def _bricks(self, subject: int) -> list[tuple[Path, int]]:
        """Return the two files of pictures, and how many each holds."""
        sizes = {"common": N_COMMON, "own": _N_STIMULI - N_COMMON}
        return [(file_of(self, kind, subject), n) for kind, n in sizes.items()]

    def captions(self, n_captions: int) -> Mapping[int, tuple[str, ...]]:  # noqa: ARG002
        """Return nothing: nobody described the stimuli."""
        return {}


def _to_rows(order: npt.NDArray[np.generic], path: Path) -> IntArray:
    """Return 0-based numbers of the stimuli, each of which was shown twice at least."""
    if order.dtype.kind not in "iuf" or not np.isfinite(order.astype(float)).all():
        raise wrong(path, "no numbers in masterordering", "1-based numbers")
    whole = order.astype(np.int64)  # MATLAB's uint16 would wrap below zero
    if not np.array_equal(whole, order):
        raise wrong(path, "fractions in masterordering", "1-based numbers")
    if whole.min() < 1 or whole.max() > _N_STIMULI:
        found = f"stimuli {whole.min()} to {whole.max()}"
        raise wrong(path, found, f"1 to {_N_STIMULI}")
    counts = np.bincount(whole - 1, minlength=_N_STIMULI)
    if counts.min() < 2:
        few = int((counts < 2).sum())
        raise wrong(path, f"{few} stimuli shown less than twice", "none")
    return whole - 1


def _open_bricks(file: h5py.File, path: Path, n: int) -> h5py.Dataset:
    bricks = dataset(file, "imgBrick", path)
    check_shape(bricks.shape, (n, None, None, 3), f"imgBrick in {path}")
    if bricks.dtype != np.uint8:
        raise wrong(path, f"{bricks.dtype} pictures", "uint8")
    return bricks


def _read_bricks(path: Path, n: int, size: int) -> npt.NDArray[np.uint8]:
    """Return the pictures of a file, (n, size, size, 3), one after the other."""
    pictures = np.empty((n, size, size, 3), np.uint8)
    with guard(path, "Stimuli"), open_hdf5(path) as file:
        bricks = _open_bricks(file, path, n)
        for row in range(n):
            pictures[row] = resize(as_seen(bricks[row][None]), size)[0]
    if not pictures.any():
        raise wrong(path, "black pictures alone", "stimuli")
    return pictures
