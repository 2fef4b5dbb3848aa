"""What the further test sets have alike: trials, stimuli, files and betas."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import check_exists, check_shape
from minddiff_utils.core.types import IntArray, Mask
from minddiff_utils.datasets.further_tests.layout import N_TRIALS, Name, inventory
from minddiff_utils.datasets.inventory import DataFile, find, is_there, there
from minddiff_utils.datasets.nsd.betas import read_betas
from minddiff_utils.datasets.nsd.layout import CONTAINERS, Container, as_present
from minddiff_utils.datasets.nsd.reader import NsdTree

__all__ = ["FurtherTrials", "InNsd", "Stimuli", "middle_square"]

_BUCKET = (
    "get it with `minddiff fetch --further-tests`, or name the right folder"
    " (--nsd-root)"
)


@dataclass(frozen=True)
class FurtherTrials:
    """What one subject did in each trial, a row for each of the betas.

    Attributes
    ----------
    stimulus : (n_trials,) int64
        Number of the stimulus, 0-based; -1 where nothing says which it was.
    condition : (n_trials,) str
        What the subject did with it.
    block : (n_trials,) int64
        Trials that were recorded in one run, where that is known.
    notes : tuple of str
        Sentences that a reader of any number needs.
    """

    stimulus: IntArray
    condition: npt.NDArray[np.str_]
    block: IntArray
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("condition", "block"):
            check_shape(getattr(self, name).shape, self.stimulus.shape, name)

    @property
    def is_known(self) -> Mask:
        """Return which trials are about a stimulus that is known."""
        return np.asarray(self.stimulus >= 0)


@dataclass(frozen=True)
class Stimuli:
    """The stimuli of a further test set, in the order of their numbers.

    Attributes
    ----------
    name : tuple of str
        As published.
    group : (n_stimuli,) str
        Class of synthetic stimuli, set of imagined ones.
    has_picture : (n_stimuli,) bool
        Whether there is one picture of it; a concept has a word alone.
    """

    name: tuple[str, ...]
    group: npt.NDArray[np.str_]
    has_picture: Mask


@dataclass(frozen=True)
class InNsd:
    """A test set whose files lie in NSD's tree."""

    tree: NsdTree
    name: ClassVar[Name]

    def listed(self, subject: int, form: Container = "hdf5") -> tuple[DataFile, ...]:
        """Return all files that a subject needs, whether or not they are there."""
        return inventory(self.name, subject, self.tree.betas_version, form)

    def lacking(self, subject: int) -> tuple[str, ...]:
        """Return the paths below NSD's root that are not there in any form."""
        root, files = self.tree.root, as_present(self.listed(subject), self.tree.root)
        return tuple(f.path for f in files if not is_there(find(root, f.path)))

    def files(self, subject: int) -> tuple[Path, ...]:
        """Return the files there are of those that a subject needs, sorted."""
        either = (self.listed(subject, form) for form in CONTAINERS)
        return there(self.tree.root, chain(*either))

    def absent_words(self, subject: int) -> str:
        """Return one sentence where a subject has nothing of it; else nothing.

        A folder that has a part of it is not without: what is missing is said where it
        is read.
        """
        root, betas = self.tree.root, self.betas_file(subject)
        if is_there(betas):
            return ""
        return (
            f"NSD-{self.name} of subject {subject} is not decoded, because "
            f"{betas.relative_to(root)} is not in {root}: `minddiff fetch "
            "--further-tests` brings it."
        )

    def file(self, kind: str, subject: int, **names: str) -> Path:
        """Return a file of the inventory, in the form in which it is there.

        Raises
        ------
        DataError
            It is not there.
        """
        path = next(
            file.path
            for file in self.listed(subject)
            if file.kind == kind and names.items() <= file.names.items()
        )
        found = find(self.tree.root, path)
        check_exists(found, f"NSD-{self.name}: {kind}", _BUCKET)
        return found

    def betas(self, subject: int, mask: Mask) -> npt.NDArray[np.int16]:
        """Return the stored betas at `mask`, (n_trials, n_voxels) int16.

        Columns follow `voxel_indices(mask)`. Both containers hold the same numbers;
        hdf5 is read where there is one.

        Raises
        ------
        DataError
            The file is missing, truncated, of the wrong shape or dtype, or in another
            space.
        """
        found = self.betas_file(subject)
        check_exists(found, f"NSD-{self.name}: betas", _BUCKET)
        self.tree.check_space(subject, found)
        return read_betas(found, mask, N_TRIALS[self.name])

    def betas_file(self, subject: int) -> Path:
        """Return the file of betas; the path as hdf5 where there is none."""
        file = as_present(self.listed(subject), self.tree.root)[0]
        return find(self.tree.root, file.path)


def middle_square(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the middle square of pictures, (n, height, width, 3).

    >>> middle_square(np.zeros((1, 2, 5, 3), np.uint8)).shape
    (1, 2, 2, 3)
    """
    height, width = pictures.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pictures[:, top : top + side, left : left + side]
