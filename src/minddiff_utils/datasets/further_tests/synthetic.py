"""NSD-synthetic: one more session of each subject, with stimuli that are no scenes.

284 stimuli in 8 classes (noise, natural scenes and their parts, spirals, words, ...),
744 trials in the same order for all subjects, each stimulus at least twice, in runs of
two tasks (fixation and one-back), over both of which responses are averaged.

References
----------
Gifford, A. T. et al. (2025), NSD-synthetic; gifale95/NSD-synthetic at 5d644e4 (order,
classes, pictures).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import h5py
import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import check_shape
from minddiff_utils.core.images import resize
from minddiff_utils.datasets.further_tests import test_set
from minddiff_utils.datasets.further_tests.layout import N_TRIALS, Name
from minddiff_utils.datasets.nsd.publisher import NSD

__all__ = ["CLASS_SIZE", "Synthetic", "as_seen"]

#: Stimuli, and those of them that all subjects saw; the rest, in colour, were
#: calibrated for each.
_N_STIMULI, _N_COMMON = 284, 220
#: Classes of stimuli, and the fewest stimuli of one: 8 of each are 64 candidates.
_N_CLASSES, CLASS_SIZE = 8, 8
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
    return np.asarray(gamma[test_set.middle_square(stored)])


@dataclass(frozen=True)
class Synthetic(test_set.InNsd):
    """NSD-synthetic in NSD's tree."""

    name: ClassVar[Name] = "synthetic"

    def trials(self, subject: int) -> test_set.FurtherTrials:
        """Return the stimulus of each trial, the same for all subjects."""
        path, name = self.file("design", subject), "masterordering"
        order = NSD.matlab(path, "NSD-synthetic's design", (name,))[name]
        n_trials = N_TRIALS["synthetic"]
        check_shape(order.shape, (1, n_trials), f"{name} in {path}")
        stimulus = NSD.whole(path, order[0], name, 1, _N_STIMULI) - 1
        few = int((np.bincount(stimulus, minlength=_N_STIMULI) < 2).sum())
        if few:
            raise NSD.wrong(path, f"{few} stimuli shown less than twice", "none")
        note = (
            "Stimuli of NSD-synthetic are no scenes: numbers say how far decoders of "
            "scenes carry, not how good they are."
        )
        condition = np.full(n_trials, "vision", "<U9")
        return test_set.FurtherTrials(stimulus, condition, 0 * stimulus, (note,))

    def stimuli(self) -> test_set.Stimuli:
        """Return names and classes, the same for all subjects."""
        path = self.file("table", 1)
        table = NSD.text(path, "Table of stimuli", (_NAME, _CLASS))
        if len(table) != _N_STIMULI:
            raise NSD.wrong(path, f"{len(table)} rows", f"{_N_STIMULI}")
        sizes = table[_CLASS].value_counts()
        if len(sizes) != _N_CLASSES or sizes.min() < CLASS_SIZE or "" in sizes:
            found = f"{len(sizes)} classes of {sizes.min()} stimuli or more"
            expected = f"{_N_CLASSES} of {CLASS_SIZE} or more, all with a name,"
            raise NSD.wrong(path, found, expected)
        if table[_NAME].duplicated().any():
            raise NSD.wrong(path, "a name twice", "another for each stimulus")
        group = table[_CLASS].to_numpy(dtype=np.str_)
        return test_set.Stimuli(tuple(table[_NAME]), group, np.ones(_N_STIMULI, bool))

    def pictures(self, subject: int, size: int) -> dict[int, npt.NDArray[np.uint8]]:
        """Return all stimuli as seen, at `size` px: common ones, then the subject's."""
        found = list[npt.NDArray[np.uint8]]()
        for kind in ("common", "own"):
            with self._bricks(kind, subject) as bricks:
                part = [resize(as_seen(one[None]), size)[0] for one in bricks]
            if not any(map(np.any, part)):
                path = self.file(kind, subject)
                raise NSD.wrong(path, "black pictures alone", "stimuli")
            found += part
        return dict(enumerate(found))

    def check_pictures(self, subject: int) -> None:
        """Raise DataError unless both files have pictures of the right shape."""
        for kind in ("common", "own"):
            with self._bricks(kind, subject):
                pass

    @contextmanager
    def _bricks(self, kind: str, subject: int) -> Iterator[h5py.Dataset]:
        """Open a file of pictures, all subjects' or one's own."""
        path = self.file(kind, subject)
        n = _N_COMMON if kind == "common" else _N_STIMULI - _N_COMMON
        shape = n, "height", "width", 3
        with NSD.hdf5(path, "Stimuli", "imgBrick", "uint8", shape) as bricks:
            yield bricks

    def captions(self, n_captions: int) -> Mapping[int, tuple[str, ...]]:
        """Return nothing: nobody described the stimuli."""
        return {}
