"""What decoding needs of a further test set, and the two there are.

A further test set has its own stimuli and responses in the same voxels as the core: it
is never trained on. `Synthetic` and `Imagery` are one module each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import check_exists, check_shape
from minddiff_utils.core.types import IntArray, Mask
from minddiff_utils.datasets.further_tests.layout import (
    N_TRIALS,
    Name,
    inventory,
    path,
)
from minddiff_utils.datasets.nsd.betas import read_betas_hdf5, read_betas_nii
from minddiff_utils.datasets.nsd.layout import (
    CONTAINERS,
    as_present,
    find,
    is_there,
)
from minddiff_utils.datasets.nsd.reader import NsdTree

__all__ = [
    "FurtherTest",
    "FurtherTrials",
    "Stimuli",
    "absent_words",
    "betas_file",
    "file_of",
    "files",
    "lacking",
    "middle_square",
    "read_betas",
]

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


class FurtherTest(Protocol):
    """A further test set whose files lie in NSD's tree.

    Every method raises DataError where a file is missing, damaged or at odds with the
    others.
    """

    @property
    def name(self) -> Name:
        """Return its name: `synthetic` or `imagery`."""
        ...

    @property
    def tree(self) -> NsdTree:
        """Return the tree that it lies in."""
        ...

    def trials(self, subject: int) -> FurtherTrials:
        """Return what each of the betas is about, in their order."""
        ...

    def stimuli(self) -> Stimuli:
        """Return the stimuli, the same for all subjects but for their pixels."""
        ...

    def pictures(self, subject: int, size: int) -> dict[int, npt.NDArray[np.uint8]]:
        """Return stimulus -> picture, (size, size, 3); concepts have none."""
        ...

    def check_pictures(self, subject: int) -> None:
        """Raise DataError where headers of files of pictures say that they are not."""
        ...

    def captions(self, n_captions: int) -> Mapping[int, tuple[str, ...]]:
        """Return stimulus -> what people write of it; many have nothing."""
        ...


def lacking(test_set: FurtherTest, subject: int) -> tuple[str, ...]:
    """Return the paths below NSD's root that are not there in any form."""
    root, version = test_set.tree.root, test_set.tree.betas_version
    return tuple(
        file.path
        for file in as_present(inventory(test_set.name, subject, version), root)
        if not is_there(find(root / file.path))
    )


def files(test_set: FurtherTest, subject: int) -> tuple[Path, ...]:
    """Return the files there are of those that a subject needs, sorted."""
    root, version = test_set.tree.root, test_set.tree.betas_version
    found = {
        find(root / file.path)
        for form in CONTAINERS
        for file in inventory(test_set.name, subject, version, form)
    }
    return tuple(sorted(one for one in found if is_there(one)))


def absent_words(test_set: FurtherTest, subject: int) -> str:
    """Return one sentence where a subject has nothing of a test set; else nothing.

    A folder that has a part of it is not without: what is missing is said where it is
    read.
    """
    root, betas = test_set.tree.root, betas_file(test_set, subject)
    if is_there(betas):
        return ""
    return (
        f"NSD-{test_set.name} of subject {subject} is not decoded, because "
        f"{betas.relative_to(root)} is not in {root}: `minddiff fetch --further-tests` "
        "brings it."
    )


def file_of(test_set: FurtherTest, kind: str, subject: int, **names: str) -> Path:
    """Return a file of the inventory, in the form in which it is there.

    Raises
    ------
    DataError
        It is not there.
    """
    tree = test_set.tree
    found = find(
        tree.root / path(test_set.name, kind, subject, tree.betas_version, **names)
    )
    check_exists(found, f"NSD-{test_set.name}: {kind}", _BUCKET)
    return found


def read_betas(
    test_set: FurtherTest, subject: int, mask: Mask
) -> npt.NDArray[np.int16]:
    """Return the stored betas at `mask`, (n_trials, n_voxels) int16.

    Columns follow `voxel_indices(mask)`. Both containers hold the same numbers; hdf5 is
    read where there is one.

    Raises
    ------
    DataError
        The file is missing, truncated, of the wrong shape or dtype, or in another
        space.
    """
    found, n_trials = betas_file(test_set, subject), N_TRIALS[test_set.name]
    check_exists(found, f"NSD-{test_set.name}: betas", _BUCKET)
    test_set.tree.check_space(subject, found)
    is_hdf5 = found.suffix.lower() == ".hdf5"
    return (read_betas_hdf5 if is_hdf5 else read_betas_nii)(found, mask, n_trials)


def betas_file(test_set: FurtherTest, subject: int) -> Path:
    """Return the file that `read_betas` reads; the path as hdf5 where there is none."""
    root, version = test_set.tree.root, test_set.tree.betas_version
    file = as_present(inventory(test_set.name, subject, version), root)[0]
    return find(root / file.path)


def middle_square(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the middle square of pictures, (n, height, width, 3).

    >>> middle_square(np.zeros((1, 2, 5, 3), np.uint8)).shape
    (1, 2, 2, 3)
    """
    height, width = pictures.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pictures[:, top : top + side, left : left + side]
