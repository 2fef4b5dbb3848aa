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
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError, check_exists, check_shape
from minddiff_utils.core.reading import reading
from minddiff_utils.insilico.folder import PARTS, TRUTH, written
from minddiff_utils.insilico.noise import Noise, autocorrelation, inflation
from minddiff_utils.insilico.voxel_model import AREA_OF

__all__ = [
    "Recovery",
    "Truth",
    "ceiling_table",
    "layout_table",
    "ncsnr_recovery",
    "ncsnr_standard_error",
    "planted_autocorrelation",
    "read_arrays",
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
    noise : Noise
        Loadings of the noise; with all of it counted in, its SD is signal's / ncsnr.
    """

    subject: int
    voxel_ijk: npt.NDArray[np.int32]
    area: npt.NDArray[np.str_]
    ncsnr: Values
    faulty: npt.NDArray[np.bool_]
    noise: Noise

    def rows_of(self, voxel_ijk: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Return the rows of voxels (n, 3).

        Raises
        ------
        DataError
            A voxel is not in the brain mask of the subject.
        """
        row_of = {tuple(ijk): row for row, ijk in enumerate(self.voxel_ijk.tolist())}
        rows = [row_of.get(tuple(ijk), -1) for ijk in voxel_ijk.tolist()]
        if -1 in rows:
            raise DataError(
                f"Voxel {voxel_ijk[rows.index(-1)].tolist()} is not in the simulated "
                f"brain of subject {self.subject}: compare responses of the same "
                "folder."
            )
        return np.array(rows, np.int64)

    def noise_correlation(self, voxel_ijk: npt.NDArray[np.int32]) -> Values:
        """Return the planted noise correlation between voxels, (n, n)."""
        rows = self.rows_of(voxel_ijk)
        part = Noise(self.noise.smooth[rows], self.noise.aligned[rows])
        return part.correlation().astype(np.float64)


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
    file = read_arrays(tree_nsd, subject)
    faulty = np.zeros(len(file["voxel_ijk"]), dtype=bool)
    faulty[file["tuning/zero"]] = True
    return Truth(
        subject=subject,
        voxel_ijk=file["voxel_ijk"],
        area=np.array(AREA_OF)[file["label"]],
        ncsnr=file["ncsnr"].astype(np.float64),
        faulty=faulty,
        noise=Noise(file["noise/smooth"], file["noise/aligned"]),
    )


def read_arrays(tree_nsd: Path, subject: int) -> dict[str, npt.NDArray[Any]]:
    """Return all that is stored of the truth about `subject`, by name.

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
        return {name: file[name] for name in file.files}


def planted_autocorrelation(n_lags: int) -> Values:
    """Return the planted correlation of the noise 1 to `n_lags` trials apart."""
    return autocorrelation(range(1, n_lags + 1))


def ncsnr_standard_error(
    ncsnr: Values, n_images: int, n_trials: int, *, factor: float = 1.0
) -> Values:
    """Return the standard error of NSD's estimate of `ncsnr` (above 0).

    With noise variance v as a share of the total, W the mean variance over the three
    trials of an image and T the total variance, v is estimated by W / T. For Gaussian
    noise and the signal of the images that were shown, the delta method gives var(v) /
    v^2 = var(W) / W^2 + var(T) / T^2 - 2 cov(W, T) / (W T), that is, with f = `factor`,

        (1 + 2 (f - 1) q / 3) / n_images + (2 v^2 f + 4 v (1 - v) - 4 v f) / n_trials

    where q = 3 n_images / n_trials is the share of trials in W. Then ncsnr =
    sqrt(1 / v - 1) has the derivative 1 / (2 v^2 ncsnr).

    Parameters
    ----------
    ncsnr : ndarray
        Planted.
    n_images, n_trials : int
        Images with three trials, and trials of all images.
    factor : float
        By which serial correlation raises the variance of a sample variance; 1 where
        trials are independent.
    """
    v = 1 / (1 + ncsnr**2)
    share = 3 * n_images / n_trials
    within = (1 + 2 / 3 * (factor - 1) * share) / n_images
    total = (2 * v**2 * factor + 4 * v * (1 - v) - 4 * v * factor) / n_trials
    error: Values = np.sqrt(within + total) / (2 * ncsnr * v)
    return error


def ncsnr_recovery(
    truth: Truth,
    voxel_ijk: npt.NDArray[np.int32],
    recomputed: npt.NDArray[np.float32],
    n_images: int,
    n_trials: int,
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
    n_images, n_trials : int
        Images with three trials, of which it was computed, and trials of all images, by
        which betas are standardised.

    Raises
    ------
    DataError
        A voxel is not in the brain mask of the subject.
    """
    check_shape(recomputed.shape, (len(voxel_ijk),), "Recomputed ncsnr")
    rows = truth.rows_of(voxel_ijk)
    planted, usable = truth.ncsnr[rows], ~truth.faulty[rows] & np.isfinite(recomputed)
    error = ncsnr_standard_error(
        np.maximum(planted, 1e-6), n_images, n_trials, factor=inflation()
    )
    clear = usable & (planted > _MIN_ERRORS * error)
    return Recovery(
        planted=planted[clear],
        recomputed=recomputed[clear].astype(np.float64),
        standard_error=error[clear],
        n_left_out=int((usable & ~clear).sum()),
    )


def ceiling_table(
    true: npt.NDArray[np.float32],
    measured: npt.NDArray[np.float32],
    ceiling: npt.NDArray[np.float32],
) -> pd.DataFrame:
    """Return how well the true signal predicts measured responses, by noise ceiling.

    Parameters
    ----------
    true, measured : ndarray of float32, shape (n_images, n_voxels)
        Noiseless responses (`read_brain`), and averaged ones to the same images.
    ceiling : ndarray of float32, shape (n_voxels,)
        Correlation that a perfect model is said to reach.

    Returns
    -------
    DataFrame
        A row for each tenth of the voxels, from low to high ceilings. Columns: ceiling,
        reached (mean correlations) and n_voxels.
    """
    check_shape(measured.shape, true.shape, "Measured responses")
    check_shape(ceiling.shape, (true.shape[1],), "Noise ceiling")
    x, y = (values - values.mean(axis=0) for values in (true, measured))
    norm = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    reached = (x * y).sum(axis=0) / np.where(norm > 0, norm, np.inf)
    parts = np.array_split(np.argsort(ceiling, kind="stable"), min(10, len(ceiling)))
    rows = [(ceiling[p].mean(), reached[p].mean(), len(p)) for p in parts]
    return pd.DataFrame(rows, columns=["ceiling", "reached", "n_voxels"])


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
