"""The truth behind the in-silico NSD, and tables that describe what was written.

For notebook 00 and the tests only: nothing that decodes may read the truth, and
evaluation reads no more of it than `true_brain` answers. Not a reader of NSD's layout;
recomputed values come from `datasets.nsd` and `preprocessing`, which share no code with
the simulation.

References
----------
Allen et al. 2022, Nature Neuroscience 25:116, Methods (ncsnr, noise ceiling).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError, check_exists, check_shape
from minddiff_utils.core.reading import reading
from minddiff_utils.insilico.folder import PARTS, TRUTH, written
from minddiff_utils.insilico.voxel_model import AREA_OF

__all__ = [
    "Recovery",
    "Truth",
    "layout_table",
    "ncsnr_recovery",
    "ncsnr_standard_error",
    "read_truth",
    "subject_table",
]

Values = npt.NDArray[np.float64]
#: Below so many standard errors, estimates pile up at their limit, zero.
_MIN_ERRORS = 3.0
#: What varies in file names -> how the table of files writes it.
_WILDCARDS = (
    (r"subj\d\d", "subjSS"),
    (r"session\d\d", "sessionNN"),
    (r"\b[lr]h\.", "?h."),
    (r"layerB\d", "layerBN"),
)


@dataclass(frozen=True)
class Truth:
    """What one in-silico subject really is; rows are voxels in C order.

    Attributes
    ----------
    subject : int
        1..8.
    voxel_ijk : ndarray of int32, shape (n_voxels, 3)
        Position in the volume, 0-based.
    area : ndarray of str, shape (n_voxels,)
        One of `config.AREAS`, or "other".
    ncsnr : ndarray of float64, shape (n_voxels,)
        Planted ratio of the SDs of signal and noise.
    faulty : ndarray of bool, shape (n_voxels,)
        Voxels from which data were taken away, in one session or in all.
    """

    subject: int
    voxel_ijk: npt.NDArray[np.int32]
    area: npt.NDArray[np.str_]
    ncsnr: Values
    faulty: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Recovery:
    """Planted and recomputed ncsnr, (n,) each, of voxels that clearly carry signal.

    `n_left_out` counts the others: their estimates are cut off at zero.
    """

    planted: Values
    recomputed: Values
    standard_error: Values
    n_left_out: int

    @property
    def z(self) -> Values:
        """Return the errors in units of their standard errors."""
        return (self.recomputed - self.planted) / self.standard_error

    def summary(self) -> pd.DataFrame:
        """Return (quantity, value, expected) of the errors in standard errors."""
        z = self.z
        rows = (
            ("mean error, in standard errors", z.mean(), 0.0),
            ("SD of errors, in standard errors", z.std(ddof=1), 1.0),
            ("share within one standard error", (np.abs(z) < 1).mean(), 0.6827),
            ("share within two standard errors", (np.abs(z) < 2).mean(), 0.9545),
        )
        return pd.DataFrame(rows, columns=["quantity", "value", "expected"])


def read_truth(tree_nsd: Path, subject: int) -> Truth:
    """Return the truth about `subject`, written into the tree at `tree_nsd`.

    Raises
    ------
    DataError
        The subject was not simulated.
    """
    path = tree_nsd / TRUTH / f"subj{subject:02d}.npz"
    check_exists(path, "Truth", "simulate this subject first (notebook 00)")
    remedy = "simulate this subject again (notebook 00)"
    with (
        reading(path, DataError, remedy=remedy, what="Truth"),
        np.load(path, allow_pickle=False) as file,
    ):
        n_voxels = len(file["voxel_ijk"])
        faulty = np.zeros(n_voxels, dtype=bool)
        faulty[file["tuning/zero"]] = True
        return Truth(
            subject=subject,
            voxel_ijk=file["voxel_ijk"],
            area=np.array(AREA_OF)[file["label"]],
            ncsnr=file["ncsnr"].astype(np.float64),
            faulty=faulty,
        )


def ncsnr_standard_error(ncsnr: Values, n_images: int) -> Values:
    """Return the standard error of NSD's estimate of `ncsnr` (above 0).

    With noise variance v as a share of the total, W the mean variance over the three
    trials of an image and T the total variance, v is estimated by W / T. For Gaussian
    noise and the signal of the images that were shown, the delta method gives
    var(v) = v^2 (1 - 2 v^2 / 3) / n_images; T contains W, hence the bracket. Then
    ncsnr = sqrt(1 / v - 1) has the derivative 1 / (2 v^2 ncsnr).
    """
    share = 1 / (1 + ncsnr**2)
    error: Values = np.sqrt((1 - 2 * share**2 / 3) / n_images) / (2 * ncsnr * share)
    return error


def ncsnr_recovery(
    truth: Truth,
    voxel_ijk: npt.NDArray[np.int32],
    recomputed: npt.NDArray[np.float32],
    n_images: int,
) -> Recovery:
    """Compare an ncsnr that was computed from the written betas with the planted one.

    Parameters
    ----------
    truth : Truth
        One subject.
    voxel_ijk : ndarray of int32, shape (n_voxels, 3)
        Voxels that were read.
    recomputed : ndarray of float32, shape (n_voxels,)
        Their ncsnr (`preprocessing.prepare_responses`).
    n_images : int
        Images with three trials that it was computed from.

    Raises
    ------
    DataError
        A voxel is not in the brain mask of the subject.
    """
    check_shape(recomputed.shape, (len(voxel_ijk),), "Recomputed ncsnr")
    row_of = {tuple(ijk): row for row, ijk in enumerate(truth.voxel_ijk.tolist())}
    rows = [row_of.get(tuple(ijk), -1) for ijk in voxel_ijk.tolist()]
    if -1 in rows:
        raise DataError(
            f"Voxel {voxel_ijk[rows.index(-1)].tolist()} is not in the simulated brain "
            f"of subject {truth.subject}: compare responses of the same folder."
        )
    planted, usable = truth.ncsnr[rows], ~truth.faulty[rows] & np.isfinite(recomputed)
    error = ncsnr_standard_error(np.maximum(planted, 1e-6), n_images)
    clear = usable & (planted > _MIN_ERRORS * error)
    return Recovery(
        planted=planted[clear],
        recomputed=recomputed[clear].astype(np.float64),
        standard_error=error[clear],
        n_left_out=int((usable & ~clear).sum()),
    )


def subject_table(tree_nsd: Path, subjects: Sequence[int]) -> pd.DataFrame:
    """Return what tells the subjects apart: voxels, and medians of the planted noise.

    Columns: subject, n_voxels, n_lvc, n_hvc (in the 11 areas), ncsnr, and the noise
    ceiling of three averaged repeats as percent of variance and as correlation.
    """
    rows = []
    for subject in subjects:
        truth = read_truth(tree_nsd, subject)
        ncsnr = float(np.median(truth.ncsnr[np.isin(truth.area, AREAS)]))
        share = ncsnr**2 / (ncsnr**2 + 1 / 3)
        rows.append(
            {
                "subject": subject,
                "n_voxels": int(np.isin(truth.area, AREAS).sum()),
                "n_lvc": int(np.isin(truth.area, LVC).sum()),
                "n_hvc": int(np.isin(truth.area, HVC).sum()),
                "ncsnr": ncsnr,
                "noise_ceiling_percent": 100 * share,
                "noise_ceiling_r": share**0.5,
            }
        )
    return pd.DataFrame(rows)


def layout_table(tree_nsd: Path) -> pd.DataFrame:
    """Return the kinds of files of a simulation: (file, n_files, megabytes).

    Files of NSD's layout alone, and none that somebody else put beside them. SS stands
    for a subject, NN for a session, ? for l or r, N for a depth.
    """
    kinds: dict[str, list[int]] = {}
    for path in sorted(tree_nsd / name for name in written(tree_nsd)):
        kind = path.relative_to(tree_nsd).as_posix()
        if not kind.startswith(PARTS) or not path.is_file():
            continue
        for pattern, word in _WILDCARDS:
            kind = re.sub(pattern, word, kind)
        kinds.setdefault(kind, []).append(path.stat().st_size)
    rows = [(kind, len(sizes), sum(sizes) / 1e6) for kind, sizes in kinds.items()]
    return pd.DataFrame(rows, columns=["file", "n_files", "megabytes"])
