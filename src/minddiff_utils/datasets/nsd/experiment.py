"""The experiment's files: design, stimulus table and stimuli.

Each function reads one file and says in one sentence what is wrong with it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import check_shape
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.nsd import layout
from minddiff_utils.datasets.nsd.publisher import NSD
from minddiff_utils.datasets.published import check_ids

__all__ = ["Design", "read_design", "read_stimuli", "read_table", "to_percent"]

#: int16 units per percent signal change in every beta file (NSD `export.m`).
_BETA_SCALE = 300


@dataclass(frozen=True)
class Design:
    """The experiment's design, 0-based.

    Attributes
    ----------
    order : (30000,) int64
        10k index, 0..9999, of every trial in time order; the same for all subjects.
    images : (8, 10000) int64
        `nsd_id`, 0..72999, of each subject's 10k images; the first 1000 are shared.
    """

    order: IntArray
    images: IntArray

    def of(self, sessions: Collection[int]) -> IntArray:
        """Return the 10k index of every trial of `sessions` (from 1), in time order."""
        rows = np.array(list(sessions), np.int64) - 1
        return self.order.reshape(-1, layout.N_TRIALS)[rows].ravel()


def to_percent(raw: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return stored betas as percent signal change, float32.

    >>> to_percent(np.array([300, -150], np.int16)).tolist()
    [1.0, -0.5]
    """
    return raw.astype(np.float32) / np.float32(_BETA_SCALE)


def read_design(path: Path) -> Design:
    """Return the experiment's design with 0-based indices.

    Raises
    ------
    DataError
        The file is missing, damaged, or not NSD's design.
    """
    sizes = {
        "masterordering": (1, layout.N_SESSIONS * layout.N_TRIALS),
        "subjectim": (8, layout.N_IMAGES_SUBJECT),
        "sharedix": (1, layout.N_SHARED),
    }
    raw, found = NSD.matlab(path, "Experimental design", sizes), list[IntArray]()
    for name, shape in sizes.items():
        check_shape(raw[name].shape, shape, f"{name} in {path}")
        most = layout.N_IMAGES_SUBJECT if name == "masterordering" else layout.N_IMAGES
        found.append(NSD.whole(path, raw[name], name, 1, most) - 1)
    order, images, shared = found
    if not (images[:, : layout.N_SHARED] == shared).all():
        raise NSD.wrong(path, "subjects with other shared images", "the same 1000")
    return Design(order[0], images)


def read_table(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """Return the table of the 73,000 stimuli, row = `nsd_id` (0-based).

    Raises
    ------
    DataError
        The file is missing or damaged, or one of `columns` is not in it or holds
        something else.
    """
    with NSD.reading(path, "Stimulus table"):
        # column by column: a table cut short has no warning of its own
        table = pd.read_csv(path, index_col=0, low_memory=False)
    NSD.check_columns(path, table, (*columns, "nsdId"))
    check_shape(table.shape, (layout.N_IMAGES, None), f"Stimulus table {path}")
    NSD.check_numbers(path, table, set(columns) - {"cocoSplit", "shared1000"})
    if "cocoSplit" in columns and table["cocoSplit"].isna().any():
        raise NSD.wrong(path, "gaps in the column cocoSplit", "train2017 or val2017")
    if not np.array_equal(table["nsdId"], np.arange(layout.N_IMAGES)):
        raise NSD.wrong(path, "rows out of order", "row r to describe nsdId r")
    return table


def read_stimuli(path: Path, nsd_id: IntArray) -> npt.NDArray[np.uint8]:
    """Return the images `nsd_id`, (n, 425, 425, 3) uint8 RGB, in the order asked.

    Raises
    ------
    DataError
        The file is missing, damaged, of another kind, or lacks an image.
    """
    shape = "images", "height", "width", 3
    with NSD.hdf5(path, "Stimuli", "imgBrick", "uint8", shape) as bricks:
        if bricks.shape[1] != bricks.shape[2]:
            sides = f"{bricks.shape[1]} x {bricks.shape[2]}"
            raise NSD.wrong(path, f"images of {sides} px", "squares")
        rows = check_ids(nsd_id, len(bricks), path)
        images = np.empty((len(rows), *bricks.shape[1:]), np.uint8)
        for row in np.argsort(rows, kind="stable"):  # in the file's own order
            images[row] = bricks[rows[row]]
    return images
