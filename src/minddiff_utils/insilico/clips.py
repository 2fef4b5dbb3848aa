"""In-silico clips: a moving object, its slow and noisy responses, and files of runs.

A clip is a scene of one object that moves on a straight path. The brain answers to each
frame as to a picture of its own (it has no tuning to motion); the haemodynamic response
adds the frames up, a volume samples that every two seconds, and noise goes on from
volume to volume. Not a reader: `datasets.bids_runs` reads the files.

Notation
--------
h = response to an instant, of unit area; H(t) = its integral up to t, so that a picture
shown from a to b adds H(t - a) - H(t - b) of its response at time t; all in seconds.

References
----------
Friston et al. (1998), Event-related fMRI, NeuroImage 7:30; SPM12's `spm_hrf`: gamma
densities that peak at 5 and 15 s, the second subtracted at a sixth.
Gorgolewski et al. (2016), The brain imaging data structure, Scientific Data 3:160044.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from scipy import signal, stats

from minddiff_utils.core.rng import derive_seed, stream
from minddiff_utils.core.types import Array, Doubles, Floats, Images, Matrix
from minddiff_utils.insilico.noise import Noise
from minddiff_utils.insilico.scenes import make_scene, render

__all__ = [
    "N_FRAMES",
    "PATH",
    "Clip",
    "Timing",
    "events",
    "hrf",
    "make_clip",
    "measure",
    "trial_noise_per_volume",
    "write_runs",
]

#: Frames of a clip, its sides in px, and the length of the path in sides.
N_FRAMES, SIDE, PATH = 8, 64, 0.5
#: Objects are smaller than in pictures, to have room to move.
_SHRUNK = 0.6
#: The two gamma densities, and the weight of the second.
_SHAPES, _UNDERSHOOT = (6.0, 16.0), 1 / 6
#: Seconds after the last clip of a run; and for which NSD shows a picture.
_TAIL, _PICTURE = 16.0, 3.0
#: Correlation of the noise two seconds apart: assumed.
_SERIAL, _APART = 0.3, 2.0


@dataclass(frozen=True)
class Clip:
    """A clip.

    `images`: uint8 (n_frames, 64, 64, 3); `captions`: five, which say nothing of the
    motion; `heading`: its direction in radians (0: right, pi / 2: up).
    """

    images: Images
    captions: tuple[str, ...]
    heading: float


def make_clip(seed: int, index: int) -> Clip:
    """Draw clip `index` of the simulation `seed`; a pure function of both.

    The object goes `PATH` of a side in any direction, through a point near the middle.
    """
    scene = make_scene(derive_seed(seed, "clips"), index, n_objects=1)
    rng = stream(scene.seed, "motion", index)
    heading = float(rng.uniform(0, 2 * np.pi))
    x, y = 0.5 + rng.uniform(-0.08, 0.08, 2)
    item = replace(scene.objects[0], size=_SHRUNK * scene.objects[0].size)
    images = []
    for way in np.linspace(-PATH / 2, PATH / 2, N_FRAMES):
        there = x + way * np.cos(heading), y - way * np.sin(heading)
        foot = there[1] + item.size / 2
        moved = replace(item, x=there[0], y=there[1], foot=foot)
        images.append(render(replace(scene, objects=(moved,)), SIDE))
    return Clip(np.stack(images), scene.captions, heading)


# --- what the scanner measures --------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """When frames are shown and volumes taken, in seconds; volume v is at v * `tr`.

    `frame`: each frame is shown for; `tr`: between volumes (2 s, as in CC2017); `rest`:
    after each clip.
    """

    frame: float
    tr: float = 2.0
    rest: float = 8.0

    @property
    def clip(self) -> float:
        """Return how long a clip lasts."""
        return N_FRAMES * self.frame

    def onsets(self, n_clips: int) -> Doubles:
        """Return when each frame of a run begins, (n_clips, n_frames)."""
        clips = np.arange(n_clips) * (self.clip + self.rest)
        return clips[:, None] + np.arange(N_FRAMES) * self.frame

    def n_volumes(self, n_clips: int) -> int:
        """Return how many volumes a run of clips has."""
        return int(np.ceil((n_clips * (self.clip + self.rest) + _TAIL) / self.tr))


def hrf(t: Floats | float) -> Doubles:
    """Return the haemodynamic response h to an instant at 0, per second.

    >>> float(hrf(-1.0)), bool(hrf(5.0) > hrf(4.0))
    (0.0, True)
    """
    first, second = (stats.gamma.pdf(t, shape) for shape in _SHAPES)
    return np.asarray((first - _UNDERSHOOT * second) / (1 - _UNDERSHOOT))


def _risen(t: Floats) -> Doubles:
    """Return H, the integral of h."""
    first, second = (stats.gamma.cdf(t, shape) for shape in _SHAPES)
    return np.asarray((first - _UNDERSHOOT * second) / (1 - _UNDERSHOOT))


def _design(onsets: Doubles, duration: float, times: Doubles) -> Doubles:
    """Return how much of the response to each frame each volume has."""
    since = times[:, None] - onsets
    return _risen(since) - _risen(since - duration)


def measure(
    responses: Matrix,
    timing: Timing,
    noise: Noise,
    noise_sd: Floats,
    *,
    rng: np.random.Generator,
) -> Matrix:
    """Return the volumes of a run, (n_volumes, n_voxels) float32.

    Parameters
    ----------
    responses : (n_clips, n_frames, n_voxels) float32
        What each frame would evoke if it stayed.
    noise : Noise
        Which voxels share noise, of the same voxels.
    noise_sd : (n_voxels,)
        SD of a volume's noise.
    rng : Generator
        Of the noise.
    """
    n_clips, n_voxels = len(responses), responses.shape[2]
    times = np.arange(timing.n_volumes(n_clips), dtype=float) * timing.tr
    design = _design(timing.onsets(n_clips).ravel(), timing.frame, times)
    bold = design.astype(np.float32) @ responses.reshape(-1, n_voxels)
    loadings = np.concatenate([noise.smooth, noise.aligned], axis=1)
    fresh = rng.standard_normal(bold.shape, np.float32) * noise.own_sd
    fresh += (
        rng.standard_normal((len(bold), loadings.shape[1]), np.float32) @ loadings.T
    )
    serial = _SERIAL ** (timing.tr / _APART)
    fresh[1:] *= np.float32((1 - serial**2) ** 0.5)  # the first is at its variance
    found = bold + signal.lfilter([1.0], [1.0, -serial], fresh, axis=0) * noise_sd
    return np.asarray(found, np.float32)


def trial_noise_per_volume(tr: float) -> float:
    """Return the SD of a volume's noise, in SDs of a picture's estimated response.

    So that a picture shown for 3 s, alone, is estimated by least squares from volumes
    of white noise with the noise that its single trial has in the in-silico NSD.
    """
    times = np.arange(0.0, 40.0, tr, dtype=float)
    return float(np.linalg.norm(_design(np.zeros(1), _PICTURE, times)))


# --- files ----------------------------------------------------------------------------


def events(clips: Sequence[int], timing: Timing) -> pd.DataFrame:
    """Return the events of a run, a frame each: onset, duration, clip, frame.

    In seconds from the first volume; `clips`: the index of each clip.
    """
    onset = timing.onsets(len(clips)).ravel()
    frame = np.tile(np.arange(N_FRAMES), len(clips))
    about = {"onset": onset, "duration": timing.frame}
    return pd.DataFrame({**about, "clip": np.repeat(clips, N_FRAMES), "frame": frame})


def write_runs(
    folder: Path,
    subject: int,
    task: str,
    runs: Sequence[tuple[Matrix, pd.DataFrame]],
    tr: float,
) -> None:
    """Write runs of a task as in BIDS, the same bytes for the same arrays.

    Where it departs from BIDS: a volume holds the voxels of a mask in a row, (n_voxels,
    1, 1, n_volumes) int16 with a scale, so that its place in the head is not in the
    file.

    Parameters
    ----------
    runs : sequence of (n_volumes, n_voxels) and table
        Volumes, and their `events`; runs are counted from 1.
    """
    func = folder / f"sub-{subject:02d}" / "func"
    func.mkdir(parents=True, exist_ok=True)
    about = {"Name": "In-silico clips; no brain was scanned", "BIDSVersion": "1.10.0"}
    _write_json(folder / "dataset_description.json", {**about, "DatasetType": "raw"})
    for number, (bold, table) in enumerate(runs, 1):
        stem = f"{func}/sub-{subject:02d}_task-{task}_run-{number}"
        image = nibabel.Nifti1Image(_as_volumes(bold), np.eye(4))
        image.set_data_dtype(np.int16)
        image.header.set_zooms((1.0, 1.0, 1.0, tr))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, f"{stem}_bold.nii.gz")
        _write_json(Path(f"{stem}_bold.json"), {"TaskName": task, "RepetitionTime": tr})
        table.to_csv(f"{stem}_events.tsv", sep="\t", index=False, lineterminator="\n")


def _as_volumes(bold: Matrix) -> Array:
    return bold.T[:, None, None, :]


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
