"""The simulated brain itself, asked for its responses to any images.

For notebook 00 and for the evaluation of a simulation: a reconstruction is sent through
the voxels that the measured responses came from, without their noise. Nothing that
decodes may know it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.insilico.folder import TRUTH
from minddiff_utils.insilico.ground_truth import read_arrays, read_truth
from minddiff_utils.insilico.image_features import perceive
from minddiff_utils.insilico.voxel_model import Brain, true_signal

__all__ = ["TrueBrain", "read_brain"]

Array = npt.NDArray[np.float32]
_AT_ONCE = 64  # images that the brain looks at together
_SCALES = "scales/"


@dataclass(frozen=True)
class TrueBrain:
    """Some voxels of one in-silico subject.

    Attributes
    ----------
    brain : Brain
        Of all voxels.
    scales : mapping
        Of the images that the subject saw (`voxel_model.planted_signal`).
    rows : int64 (n_voxels,)
        The voxels wanted, in their order.
    """

    brain: Brain
    scales: Mapping[str, Array]
    rows: npt.NDArray[np.int64]

    def __call__(
        self, images: npt.NDArray[np.uint8], depths: Sequence[Array] | None = None
    ) -> Array:
        """Return the responses that images would evoke without noise, (n, n_voxels).

        To any images: seen ones, reconstructions, others; the brain sees all at 64 px.
        In SDs of single trials, as measured responses are, and 0 at the mean of the
        images that the subject saw; 0 where a voxel does not respond to images.

        Parameters
        ----------
        images : uint8 (n, size, size, 3)
            RGB.
        depths : sequence of three (n, n_features), optional
            As for `image_features.perceive`.

        Raises
        ------
        DataError
            Images are not square or not RGB.
        """
        check_shape(images.shape, (None, None, images.shape[1], 3), "images")
        active = self.brain.active
        ncsnr = self.brain.ncsnr[active]
        share = ncsnr / np.sqrt(1 + ncsnr**2)  # the signal's SD, of a trial's
        responses = np.zeros((len(images), len(active)), np.float32)
        for first in range(0, len(images), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            seen = None if depths is None else [depth[some] for depth in depths]
            percepts = perceive(images[some], seen)
            signal = true_signal(self.brain, percepts, self.scales)
            responses[some, active] = signal * share
        return responses[:, self.rows]


def read_brain(
    tree_nsd: Path, subject: int, voxel_ijk: npt.NDArray[np.integer[Any]]
) -> TrueBrain | None:
    """Return the voxels at `voxel_ijk` of a subject that was simulated.

    Parameters
    ----------
    tree_nsd : Path
        Folder of the in-silico NSD.
    subject : int
        1..8.
    voxel_ijk : int (n_voxels, 3)
        Positions in the volume, 0-based, as `responses.h5` states them.

    Returns
    -------
    TrueBrain or None
        None where the folder has no truth: responses of a rehearsal have none behind
        them.

    Raises
    ------
    DataError
        The subject was not simulated, by this version, or has no such voxel.
    """
    if not (tree_nsd / TRUTH).is_dir():
        return None
    stored = read_arrays(tree_nsd, subject)
    tuning: dict[str, Any] = {
        f.name: stored.get(f"tuning/{f.name}") for f in fields(Brain)
    }
    scales = {
        name.removeprefix(_SCALES): values
        for name, values in stored.items()
        if name.startswith(_SCALES)
    }
    if not scales or any(values is None for values in tuning.values()):
        raise DataError(
            f"Truth about subject {subject} in {tree_nsd / TRUTH} is of an earlier"
            " version: simulate this subject again (notebook 00)."
        )
    rows = read_truth(tree_nsd, subject).rows_of(np.asarray(voxel_ijk, np.int32))
    return TrueBrain(Brain(**tuning), scales, rows)
