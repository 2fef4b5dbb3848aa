"""Which files of NSD a run reads, and where they go.

NSD's bucket and a local copy have one layout. Place in the flow: part of `fetch`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from minddiff_utils.core.errors import ConfigError, check_choice
from minddiff_utils.datasets.nsd.facts import FACTS
from minddiff_utils.datasets.nsd.forms import find, is_there, lies_otherwise

__all__ = ["Wanted", "as_present", "not_otherwise", "wanted"]

BETAS_VERSIONS = (
    "betas_fithrf_GLMdenoise_RR",
    "betas_fithrf",
    "betas_assumehrf",
)


@dataclass(frozen=True)
class Wanted:
    """One file that a run reads: key in the bucket, place below the NSD root."""

    key: str
    destination: PurePosixPath
    reason: str
    optional: bool = False  # a run goes on without it, and makes less


def wanted(
    subjects: Sequence[int],
    sessions: Sequence[int],
    betas_version: str = BETAS_VERSIONS[0],
    *,
    form: Literal["hdf5", "nii.gz"] = "hdf5",
) -> tuple[Wanted, ...]:
    """Return every file that a run reads of these sessions (ascending, from 1).

    Of a subject who came to fewer, those that there are.

    `form` is the container of the betas: both hold the same numbers; hdf5 is read
    faster, nii.gz is half as large.

    Raises
    ------
    ConfigError
        A subject, version or container that NSD lacks, or a subject without any of the
        sessions.
    """
    check_choice(form, ("hdf5", "nii.gz"), "form")
    check_choice(betas_version, BETAS_VERSIONS, "betas_version")
    files = _experiment()
    for subject in dict.fromkeys(subjects):
        check_choice(subject, range(1, 9), "subject")
        n_sessions = FACTS[subject].n_sessions
        own = [session for session in sessions if 1 <= session <= n_sessions]
        if not own or sessions[0] < 1:
            raise ConfigError(
                f"Session {sessions[-1]} of subject {subject} is asked for, but NSD has"
                f" 1 to {n_sessions}: change data.only_sessions, or leave the subject"
                " out."
            )
        files += _volumes(subject)
        files += _betas(subject, own, betas_version, form)
        files += _surfaces(subject)
    return (*files, *_meshes("fsaverage"))


def not_otherwise(files: Sequence[Wanted], root: Path) -> tuple[Wanted, ...]:
    """Return the files without those that `root` has in another form.

    Unpacked, in two hemispheres, without a leading zero, in capitals: a run reads them.
    """
    return tuple(f for f in files if not lies_otherwise(root / f.destination))


def as_present(files: Sequence[Wanted], root: Path) -> tuple[Wanted, ...]:
    """Return the files with betas in the container that `root` has of a session.

    A session that is there as nii.gz, and not as hdf5, is not wanted as hdf5, too.
    """

    def choose(file: Wanted) -> Wanted:
        other = file.destination.with_suffix(".nii.gz")
        is_betas = file.destination.suffix == ".hdf5" and "betas_session" in file.key
        if not is_betas or is_there(find(root / file.destination)):
            return file
        if not is_there(find(root / other)):
            return file
        key = file.key.removesuffix(".hdf5") + ".nii.gz"
        return replace(file, key=key, destination=other)

    return tuple(map(choose, files))


def _file(path: str, reason: str, *, optional: bool = False) -> Wanted:
    """Return a wanted file; NSD's bucket and a local copy have one layout."""
    return Wanted(path, PurePosixPath(path), reason, optional)


def _experiment() -> list[Wanted]:
    folder = "nsddata/experiments/nsd"
    return [
        _file(f"{folder}/nsd_expdesign.mat", "which image each trial showed"),
        _file(f"{folder}/nsd_stim_info_merged.csv", "COCO ids of the images"),
        _file("nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "the images"),
    ]


def _volumes(subject: int) -> list[Wanted]:
    ppdata = f"nsddata/ppdata/subj{subject:02d}"
    labels = f"nsddata/freesurfer/subj{subject:02d}/label"
    areas = ("Kastner2015", "prf-visualrois")
    behaviour = "checks the order of the images"
    return [
        _file(f"{ppdata}/behav/responses.tsv", behaviour, optional=True),
        _file(f"{ppdata}/func1pt8mm/brainmask.nii.gz", "voxels of the brain"),
        *(_file(f"{ppdata}/func1pt8mm/roi/{a}.nii.gz", "visual areas") for a in areas),
        _file(
            f"{ppdata}/func1pt8mm/roi/nsdgeneral.nii.gz",
            "voxels in place of the areas (data.voxels)",
            optional=True,
        ),
        *(
            _file(f"{labels}/{a}.mgz.ctab", "names of the areas", optional=True)
            for a in areas
        ),
    ]


def _betas(
    subject: int, sessions: Sequence[int], version: str, form: str
) -> list[Wanted]:
    folder = f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/{version}"
    return [
        _file(f"{folder}/ncsnr.nii.gz", "noise ceiling", optional=True),
        *(
            _file(f"{folder}/betas_session{k:02d}.{form}", "responses of one session")
            for k in sessions
        ),
    ]


def _surfaces(subject: int) -> list[Wanted]:
    folder = f"nsddata/ppdata/subj{subject:02d}/transforms"
    names = [
        *("func1pt8-to-layerB1", "func1pt8-to-layerB2", "func1pt8-to-layerB3"),
        "white-to-fsaverage",
    ]
    transforms = [
        _file(f"{folder}/{h}.{name}.mgz", "from voxels to the cortex", optional=True)
        for h in ("lh", "rh")
        for name in names
    ]
    return transforms + _meshes(f"subj{subject:02d}")


def _meshes(anatomy: str) -> list[Wanted]:
    folder = f"nsddata/freesurfer/{anatomy}/surf"
    kinds = ("white", "inflated", "sulc", "full.flat.patch.3d")
    return [
        _file(f"{folder}/{h}.{kind}", "cortical maps", optional=True)
        for h in ("lh", "rh")
        for kind in kinds
    ]
