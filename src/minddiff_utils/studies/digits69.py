"""The "69" digits decoded: images from voxels by the package's decoders, and scores.

What notebook A6 calls. The decoders are those of notebook 02; here only voxels are
standardised, within each fold, and decoded pixels become images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.inference import t_interval
from minddiff_utils.core.types import Floats, Images, IntArray, Ints
from minddiff_utils.datasets.digits69.reader import Digits
from minddiff_utils.decoding import contiguous_folds, cross_validate
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.chance import permutations_within
from minddiff_utils.evaluation.metrics.embeddings import (
    pairwise_correlation,
    share_beaten,
)
from minddiff_utils.evaluation.metrics.pixels import pixel_correlation, ssim_2d

__all__ = ["Reconstructions", "balanced_folds", "reconstruct", "score"]

#: Without any brain: the mean training image, and that of the digit that was seen.
MEAN, MEAN_OF_DIGIT = "mean image", "mean image of the true digit"


@dataclass(frozen=True)
class Reconstructions:
    """Images of the trials that were held out, by method.

    `rows`, (n,): trials, ascending; `digit`, (n,): 6 or 9; `truth`, uint8 (n, 28, 28,
    3): what was seen; `images`: method -> images as `truth`, decoders first, then
    `MEAN_OF_DIGIT` and `MEAN`.
    """

    rows: IntArray
    digit: IntArray
    truth: Images
    images: Mapping[str, Images]


def balanced_folds(digits: Digits, n_folds: int) -> list[tuple[IntArray, IntArray]]:
    """Return folds over all trials, as many sixes as nines in each; nothing is drawn.

    Trials that are neighbours in the file test together.
    """
    sixes, nines = (np.flatnonzero(digits.digit == value) for value in (6, 9))
    order = np.stack([sixes, nines], axis=1).ravel()
    folds = contiguous_folds(len(order), n_folds)
    return [(np.sort(order[train]), np.sort(order[held])) for train, held in folds]


def reconstruct(
    digits: Digits,
    decoders: Mapping[str, LinearDecoder],
    folds: Sequence[tuple[IntArray, IntArray]],
) -> Reconstructions:
    """Decode the held-out trials of each fold from its training trials.

    Each voxel is standardised by mean and SD over the training trials. A decoded pixel
    is cut off at black and white. `decoders`: not fitted, they stay so; `folds`: rows
    to train on and held out, from `Digits.published_split` or `balanced_folds`.
    """
    X, Y, digit = digits.responses, digits.pixels, digits.digit
    names = [*decoders, MEAN_OF_DIGIT, MEAN]
    Y_hat: dict[str, Floats] = {name: np.full(Y.shape, np.nan) for name in names}
    for train, held in folds:
        sd = X[train].std(axis=0)
        Z = (X - X[train].mean(axis=0)) / np.where(sd > 0, sd, 1.0)
        targets = dict.fromkeys(decoders, Y)
        found = cross_validate(decoders, Z, targets, [(train, held)])
        for name in decoders:
            Y_hat[name][held] = found[name][held]
        Y_hat[MEAN][held] = Y[train].mean(axis=0)
        for value in np.unique(digit[held]):
            of_digit = Y[train][digit[train] == value].mean(axis=0)
            Y_hat[MEAN_OF_DIGIT][held[digit[held] == value]] = of_digit
    rows = np.sort(np.concatenate([held for _, held in folds]))
    images = {name: _as_images(Y_hat[name][rows]) for name in names}
    return Reconstructions(rows, digit[rows], _as_images(Y[rows]), images)


def _as_images(pixels: Floats) -> Images:
    """Return pixels (n, 784) in 0..1, cut off there, as RGB (n, 28, 28, 3)."""
    side = round(pixels.shape[1] ** 0.5)
    grey = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    return np.repeat(grey.reshape(-1, side, side, 1), 3, axis=3)


# --- scores ---------------------------------------------------------------------------


def score(
    made: Reconstructions,
    *,
    n_permutations: int,
    confidence: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Return a row per method: what its images score, and what chance does.

    Two-way identification asks how often a reconstruction is nearer (pixel correlation)
    to its own digit than to another one. Whoever knows the category alone, six or nine,
    passes that; `within` compares with images of the same digit only. The null permutes
    the images that were seen, over all or within the digit, `n_permutations` times.

    Columns method, n_images; pcc with its interval (t over images); gain, what pcc is
    above that of `MEAN_OF_DIGIT` image by image, with its interval; ssim_2d; mse (of
    pixels in 0..1); then two_way and two_way_within, each with `_null` (mean over
    permutations), `_null_high` (upper end of its `confidence` range) and `_p`
    (one-sided).
    """
    every = np.zeros(len(made.rows), np.int64)
    groups = {"two_way": every, "two_way_within": made.digit}
    orders = {
        name: (group, permutations_within(group, n_permutations, rng=rng))
        for name, group in groups.items()
    }
    table = []
    correlations = {
        name: np.asarray(pixel_correlation(made.truth, images), np.float64)
        for name, images in made.images.items()
    }
    known = correlations[MEAN_OF_DIGIT]
    for method, images in made.images.items():
        pcc = correlations[method]
        low, high, _ = t_interval(pcc, confidence)
        least, most, _ = t_interval(pcc - known, confidence)
        error = (made.truth[..., 0] / 255.0 - images[..., 0] / 255.0) ** 2
        row: dict[str, Any] = {"method": method, "n_images": len(images)}
        row |= {"pcc": pcc.mean(), "pcc_low": low, "pcc_high": high}
        row |= {"gain": (pcc - known).mean(), "gain_low": least, "gain_high": most}
        row |= {"ssim_2d": ssim_2d(made.truth, images).mean(), "mse": error.mean()}
        pixels = [
            x[..., 0].reshape(len(x), -1).astype(np.float64)
            for x in (made.truth, images)
        ]
        similarity = pairwise_correlation(*pixels)
        for name, (group, order) in orders.items():
            row |= _two_way(name, similarity, group, order, confidence)
        table.append(row)
    return pd.DataFrame(table)


def _two_way(
    name: str,
    similarity: Floats,
    group: IntArray,
    orders: Ints,
    confidence: float,
) -> dict[str, float]:
    """Return two-way identification within groups, beside its null."""
    share = _share_within(similarity, group)
    null = np.array([_share_within(similarity[order], group) for order in orders])
    at_least = int((null >= share - 1e-12).sum())
    return {
        name: share,
        f"{name}_null": float(null.mean()),
        f"{name}_null_high": float(np.quantile(null, (1 + confidence) / 2)),
        f"{name}_p": (1 + at_least) / (1 + len(null)),
    }


def _share_within(similarity: Floats, group: IntArray) -> float:
    """Return how often the own image beats another one of its group, mean over all."""
    rows = [np.flatnonzero(group == value) for value in np.unique(group)]
    shares: list[Floats] = [share_beaten(similarity[np.ix_(r, r)]) for r in rows]
    return float(np.concatenate(shares).mean())


def conclusions(scores: pd.DataFrame, decoders: Iterable[str]) -> list[str]:
    """Return what the scores of each split say of the decoders, in words.

    `scores` are rows of `score` with a column `split`.
    """
    lines = []
    for split, rows in scores.groupby("split", sort=False):
        for name in decoders:
            row = rows.set_index("method").loc[name]
            lines.append(
                f"{split}, {row['n_images']} images, {name}: pcc {row['pcc']:.3f},"
                f" {row['gain']:+.3f} [{row['gain_low']:.3f}, {row['gain_high']:.3f}]"
                " beside the mean image of the true digit; nearer to its own than to"
                f" another of its digit in {row['two_way_within']:.1%} of pairs"
                f" (chance 50 %, p = {row['two_way_within_p']:.3f})."
            )
    return lines
