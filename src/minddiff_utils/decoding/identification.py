"""Whether a decoded feature is nearer to its own image than to the others.

Two directions, which differ: a decoded feature among the true ones of all candidates
(`by_decoded`), and a true one among the decoded ones (`by_truth`).
"""

import numpy as np

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Doubles, Floats, Ints
from minddiff_utils.decoding.targets import target_blocks

__all__ = [
    "RowProducts",
    "draw_candidates",
    "identification",
    "pairwise",
    "row_products",
    "top_1",
]


#: The field's retrieval on NSD: so many draws of so many test images.
_N_DRAWS, _N_CANDIDATES = 30, 300


class RowProducts:
    """Correlations of decoded with true images over targets that come in portions.

    Sets of targets that grow share most of their products: each target enters once.
    Sums are those of Pearson's r over the targets of a row.
    """

    def __init__(self, n_images: int) -> None:
        self._n_targets = 0
        self._cross = np.zeros((n_images, n_images))  # (decoded, true image)
        self._sums = np.zeros((2, n_images))  # of true and decoded rows
        self._squares = np.zeros((2, n_images))

    def add(self, truth: Floats, decoded: Floats) -> None:
        """Take more targets, (n_images, n_new)."""
        self._n_targets += truth.shape[1]
        self._cross += decoded @ truth.T
        for row, Y in enumerate((truth, decoded)):
            self._sums[row] += Y.sum(axis=1, dtype=np.float64)
            self._squares[row] += np.einsum("ij,ij->i", Y, Y, dtype=np.float64)

    def similarity(self) -> Doubles:
        """Return r of each decoded (rows) with each true image (columns).

        0 where a row does not vary over its targets.

        Raises
        ------
        DataError
            Fewer than 2 images, or no target.
        """
        n_images = len(self._cross)
        if n_images < 2 or self._n_targets == 0:
            raise DataError(
                f"Identification needs 2 images or more and a target that varies, not"
                f" {n_images} images and {self._n_targets} such targets."
            )
        true_sum, decoded_sum = self._sums / np.sqrt(self._n_targets)
        norm = np.sqrt(np.clip(self._squares - [true_sum**2, decoded_sum**2], 0, None))
        true_norm, decoded_norm = np.where(norm > 0, norm, 1)
        covariance = self._cross - np.outer(decoded_sum, true_sum)
        similarity = covariance / np.outer(decoded_norm, true_norm)
        return np.asarray(similarity.round(12))  # a tie stays one, despite rounding


def row_products(Y_true: Floats, Y_hat: Floats) -> RowProducts:
    """Return the products over the targets that vary over the images in both.

    Y_true, Y_hat : (n_images, n_targets), standardised; read in blocks of targets.
    """
    products = RowProducts(len(Y_true))
    for block in target_blocks(*Y_true.shape):
        truth, decoded = (Y[:, block].astype(np.float64) for Y in (Y_true, Y_hat))
        varies = (np.ptp(truth, axis=0) > 0) & (np.ptp(decoded, axis=0) > 0)
        products.add(truth[:, varies], decoded[:, varies])
    return products


def draw_candidates(n_images: int, rng: np.random.Generator) -> Ints:
    """Return the rows among which images are retrieved, (n_draws, n_candidates).

    As the field does on NSD: 30 draws of 300 test images without replacement. Where
    there are no more than 300, all of them, once.
    """
    if n_images <= _N_CANDIDATES:
        return np.arange(n_images)[None]
    every = np.tile(np.arange(n_images), (_N_DRAWS, 1))
    return rng.permuted(every, axis=1)[:, :_N_CANDIDATES]


def pairwise(similarity: Doubles) -> float:
    """Return how often a row's own entry, on the diagonal, beats another of the row.

    Chance is .5; a tie counts half.
    """
    to_itself = np.diag(similarity)[:, None]
    less, same = similarity < to_itself, similarity == to_itself
    wins = less.sum(axis=1) + (same.sum(axis=1) - 1) / 2
    return float(wins.mean() / (len(similarity) - 1))


def top_1(similarity: Doubles, candidates: Ints) -> Doubles:
    """Return the share of rows whose own entry is the largest, (n_draws,).

    Of k equal largest ones each counts 1/k.
    """
    shares = np.empty(len(candidates))
    for draw, rows in enumerate(candidates):
        some = similarity[np.ix_(rows, rows)]
        is_best = some == some.max(axis=1, keepdims=True)
        shares[draw] = (np.diag(is_best) / is_best.sum(axis=1)).mean()
    return shares


def identification(similarity: Doubles, candidates: Ints) -> dict[str, float | int]:
    """Return pairwise identification and top-1 retrieval in both directions.

    Public code has these names swapped: MindEye2's `batchwise_cosine_similarity`
    returns the transpose of what its callers take it for, so that its "fwd", meant as
    the image retrieved from the brain, finds the brain of each image, and "bwd" the
    reverse. Its "fwd" is `by_truth` here, its "bwd" `by_decoded`.

    Parameters
    ----------
    similarity : (n_images, n_images)
        Of each decoded (rows) with each true image (columns).
    candidates : (n_draws, n_candidates) int
        From `draw_candidates`, for retrieval; pairs are of all images.

    Returns
    -------
    dict
        identify_pairwise_by_decoded: how often a decoded feature is nearer to its own
        image's true feature than to another image's (chance .5); `_by_truth`: how often
        a true feature is nearer to its own decoded one than to another's.
        identify_top1_by_decoded, `_by_truth`: how often it is the nearest of all
        candidates, mean over draws; the same with `_sd`: SD over draws, NaN of one.
        identify_top1_chance: 1 / n_candidates. identify_n, identify_n_draws.

    References
    ----------
    Scotti et al. (2024), MindEye2, https://github.com/MedARC-AI/MindEyeV2: src/utils.py
    and src/final_evaluations.ipynb.
    """
    n_draws, n_candidates = candidates.shape
    directions = {"by_decoded": similarity, "by_truth": similarity.T}
    row: dict[str, float | int] = {
        f"identify_pairwise_{name}": pairwise(S) for name, S in directions.items()
    }
    for name, S in directions.items():
        shares = top_1(S, candidates)
        spread = float(shares.std(ddof=1)) if n_draws > 1 else float("nan")
        row[f"identify_top1_{name}"] = float(shares.mean())
        row[f"identify_top1_{name}_sd"] = spread
    counts = {"identify_n": n_candidates, "identify_n_draws": n_draws}
    return row | {"identify_top1_chance": 1 / n_candidates} | counts
