"""The simulated brain itself, asked for its responses to other images.

For the evaluation of a simulation: a reconstruction is sent through the voxels that the
measured responses came from, without their noise. Nothing that decodes may know it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_exists
from minddiff_utils.core.reading import reading
from minddiff_utils.insilico.folder import TRUTH
from minddiff_utils.insilico.image_features import look
from minddiff_utils.insilico.voxel_model import Brain, Scales, image_signal

__all__ = ["TrueBrain", "read_brain"]

Array = npt.NDArray[np.float32]
#: What is not of every voxel.
_OF_ALL = ("zero", "zero_session", "saturated")


@dataclass(frozen=True)
class TrueBrain:
    """Some voxels of one in-silico subject.

    Attributes
    ----------
    brain : Brain
        Of the voxels wanted, in their order.
    scales : mapping
        Of the images that the subject saw, of the voxels that respond.
    """

    brain: Brain
    scales: Scales

    def __call__(self, images: npt.NDArray[np.uint8], depths: Sequence[Array]) -> Array:
        """Return the responses that images would evoke without noise, (n, n_voxels).

        In SDs of single trials, as measured responses are; 0 where a voxel does not
        respond to images. Of what an image alone tells: see `image_signal`.

        Parameters
        ----------
        images : uint8 (n, size, size, 3)
            RGB.
        depths : three float32 arrays (n, ...)
            What EfficientNet-Lite0 sees in them.
        """
        brain = self.brain
        responses = np.zeros((len(images), len(brain.active)), np.float32)
        if len(images) and brain.active.any():
            signal = image_signal(brain, look(images, depths), self.scales)
            share = brain.ncsnr / np.sqrt(1 + brain.ncsnr**2)  # of a trial's SD
            responses[:, brain.active] = signal * share[brain.active]
        return responses


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
        Positions in the volume, 0-based.

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
    path = tree_nsd / TRUTH / f"subj{subject:02d}.npz"
    remedy = "simulate this subject again (notebook 00)"
    check_exists(path, "Truth", remedy)
    with (
        reading(path, DataError, remedy=remedy, what="Truth"),
        np.load(path, allow_pickle=False) as file,
    ):
        stored = {name: file[name] for name in file.files}
        brain = Brain(**{f.name: stored[f"tuning/{f.name}"] for f in fields(Brain)})
    if "scale/signal/mean" not in stored:
        raise DataError(f"Truth at {path} is of an earlier version: {remedy}.")
    row_of = {tuple(ijk): k for k, ijk in enumerate(stored["voxel_ijk"].tolist())}
    rows = [row_of.get(tuple(ijk), -1) for ijk in np.asarray(voxel_ijk).tolist()]
    if -1 in rows:
        raise DataError(
            f"Voxel {np.asarray(voxel_ijk)[rows.index(-1)].tolist()} is not in the"
            f" simulated brain of subject {subject}: use responses of the same folder."
        )
    place = np.cumsum(brain.active) - 1  # among the voxels that respond
    kept = place[rows][brain.active[rows]]
    own = {
        f.name: getattr(brain, f.name)[rows]
        for f in fields(Brain)
        if f.name not in _OF_ALL
    }
    return TrueBrain(replace(brain, **own), _scales(stored, kept))


def _scales(
    stored: dict[str, npt.NDArray[Any]], kept: npt.NDArray[np.integer[Any]]
) -> Scales:
    scales: dict[str, tuple[Array, Array]] = {}
    for key in stored:
        kind, _, rest = key.partition("/")
        name, _, what = rest.rpartition("/")
        if kind != "scale" or what != "mean":
            continue
        both = stored[key], stored[f"scale/{name}/sd"]
        if name == "signal" or name.startswith("part "):  # one of each voxel
            both = both[0][:, kept], both[1][:, kept]
        scales[name] = both
    return scales
