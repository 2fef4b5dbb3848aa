"""The in-silico NSD's files of one subject, and of the group surface.

Both beta containers are written for every session: nii.gz costs half a second each.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.profile import SimulationConfig
from minddiff_utils.core.rng import stream
from minddiff_utils.insilico import anatomy as anatomical
from minddiff_utils.insilico import file_formats, voxel_model
from minddiff_utils.insilico.anatomy import HEMISPHERES, ROI_NAMES, Anatomy, load_atlas
from minddiff_utils.insilico.experiment_design import (
    TRIALS_PER_SESSION,
    Design,
    responses_table,
)
from minddiff_utils.insilico.image_features import Percepts
from minddiff_utils.insilico.voxel_model import Brain, Scales

__all__ = ["Job", "write_fsaverage", "write_subject"]

logger = logging.getLogger(__name__)

_BETAS_VERSION = "betas_fithrf_GLMdenoise_RR"


@dataclass(frozen=True)
class Job:
    """What is simulated, and the folders it is written to."""

    folder: Path
    truth: Path
    simulation: SimulationConfig
    design: Design
    seed: int


def write_subject(
    job: Job, subject: int, percepts: Percepts, nsd_ids: npt.NDArray[np.int64]
) -> tuple[str, int]:
    """Write everything of one subject; return its name and labelled voxels."""
    name = f"subj{subject:02d}"
    depths = job.simulation.n_surface_depths
    anatomy = anatomical.make_anatomy(subject, seed=job.seed, n_depths=depths)
    brain = voxel_model.make_brain(
        anatomy, seed=job.seed, n_sessions=job.design.n_sessions
    )
    signal, scales = voxel_model.true_signal(brain, percepts)
    trials = np.searchsorted(nsd_ids, job.design.shown(subject))
    betas = _write_betas(job, anatomy, brain, signal[trials])
    data = job.folder / "nsddata" / "ppdata" / name
    _write_volumes(data / "func1pt8mm", anatomy)
    _write_transforms(data / "transforms", anatomy)
    _write_freesurfer(job.folder / "nsddata" / "freesurfer" / name, anatomy)
    _write_behaviour(data / "behav", job, subject)
    path, model = job.truth / f"{name}.npz", (brain, scales)
    _write_truth(path, anatomy, model, signal[trials], betas)
    logger.info("%s written", name)
    return name, int((anatomy.label > 0).sum())


def _write_behaviour(folder: Path, job: Job, subject: int) -> None:
    table = responses_table(job.design, subject)
    folder.mkdir(parents=True)
    table.to_csv(folder / "responses.tsv", sep="\t", index=False, lineterminator="\n")


def _write_betas(
    job: Job, anatomy: Anatomy, brain: Brain, signal: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Write both containers of every session, and ncsnr, which is returned."""
    folder = job.folder / "nsddata_betas" / "ppdata" / f"subj{anatomy.subject:02d}"
    folder = folder / "func1pt8mm" / _BETAS_VERSION
    sessions = []
    for session in range(1, job.design.n_sessions + 1):
        rng = stream(job.seed, "brain", anatomy.subject, "noise", session)
        trials = slice((session - 1) * TRIALS_PER_SESSION, session * TRIALS_PER_SESSION)
        betas = voxel_model.session_betas(brain, signal[trials], session, rng=rng)
        stem = f"session{session:02d}"
        for write, suffix in (
            (file_formats.write_beta_hdf5, "hdf5"),
            (file_formats.write_beta_nifti, "nii.gz"),
        ):
            path = folder / f"betas_{stem}.{suffix}"
            write(path, betas, anatomy.voxel_ijk, anatomy.shape)
        sessions.append(betas)
    k10 = job.design.masterordering[: job.design.n_trials]
    ncsnr = voxel_model.ncsnr_from_betas(sessions, k10)
    volume = np.full(anatomy.shape, np.nan, dtype=np.float32)
    volume[tuple(anatomy.voxel_ijk.T)] = ncsnr
    file_formats.write_nifti(folder / "ncsnr.nii.gz", volume)
    return ncsnr


def _write_volumes(folder: Path, anatomy: Anatomy) -> None:
    mask = anatomy.brainmask.astype(np.int16)
    file_formats.write_nifti(folder / "brainmask.nii.gz", mask, step=1)
    for name, volume in anatomy.rois.items():
        file_formats.write_nifti(folder / "roi" / f"{name}.nii.gz", volume, step=1)


def _write_transforms(folder: Path, anatomy: Anatomy) -> None:
    """Write 1-based coordinates of vertices in the volume, and vertex indices."""
    for h in HEMISPHERES:
        for depth, coordinates in enumerate(anatomy.coordinates[h], start=1):
            stored = np.where(np.isnan(coordinates), 9999, coordinates + 1)
            file_formats.write_mgh(
                folder / f"{h}.func1pt8-to-layerB{depth}.mgz", stored
            )
        order = anatomy.order[h]
        file_formats.write_mgh(
            folder / f"{h}.white-to-fsaverage.mgz", np.argsort(order) + 1
        )


def _write_freesurfer(folder: Path, anatomy: Anatomy) -> None:
    atlas = load_atlas()
    for h, surface in atlas.items():
        order = anatomy.order[h]
        faces = np.argsort(order)[surface.faces].astype(np.int32)
        for name in ("white", "inflated"):
            path = folder / "surf" / f"{h}.{name}"
            file_formats.write_surface(path, anatomy.surfaces[h, name], faces)
        _write_flat(folder, h, surface, order)
    (folder / "label").mkdir()
    for name in ROI_NAMES:
        _write_ctab(folder / "label" / f"{name}.mgz.ctab", ROI_NAMES[name])


def _write_flat(
    folder: Path,
    h: str,
    surface: anatomical.Surface,
    order: npt.NDArray[np.int64],
) -> None:
    file_formats.write_flat_patch(
        folder / "surf" / f"{h}.full.flat.patch.3d",
        surface.flat[order],
        surface.cortex[order],
    )
    sulc = surface.sulc[order]
    file_formats.write_curvature(
        folder / "surf" / f"{h}.sulc", sulc, len(surface.faces)
    )


def write_fsaverage(folder: Path) -> None:
    """Write the group surface; here it has fsaverage5's 10,242 vertices."""
    home = folder / "nsddata" / "freesurfer" / "fsaverage"
    for h, surface in load_atlas().items():
        for name in ("white", "inflated"):
            path = home / "surf" / f"{h}.{name}"
            file_formats.write_surface(path, getattr(surface, name), surface.faces)
        _write_flat(home, h, surface, np.arange(len(surface.white)))


def _write_ctab(path: Path, names: Sequence[str]) -> None:
    """Write a colour table with the stray blanks and tabs of the real ones."""
    endings = ("", " \t", "\t")
    lines = [
        f"{value} {name}{endings[value % 3]}"
        for value, name in enumerate(("Unknown", *names))
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_truth(
    path: Path,
    anatomy: Anatomy,
    model: tuple[Brain, Scales],
    signal: npt.NDArray[np.float32],
    ncsnr_found: npt.NDArray[np.float32],
) -> None:
    """Save tuning and noise; `ncsnr` is for the trials that were really shown."""
    brain, scales = model
    noise_sd = brain.total_sd / np.sqrt(1 + brain.ncsnr**2)
    shown_sd = np.zeros(anatomy.n_voxels, dtype=np.float32)
    shown_sd[brain.active] = signal.std(axis=0)
    tuning = {f"tuning/{name}": value for name, value in asdict(brain).items()}
    for name, (mean, spread) in scales.items():
        tuning |= {f"scale/{name}/mean": mean, f"scale/{name}/sd": spread}
    np.savez_compressed(
        path,
        voxel_ijk=anatomy.voxel_ijk,
        label=anatomy.label,
        noise_sd=noise_sd,
        ncsnr=brain.ncsnr * shown_sd,
        ncsnr_from_betas=ncsnr_found,
        **tuning,
    )
