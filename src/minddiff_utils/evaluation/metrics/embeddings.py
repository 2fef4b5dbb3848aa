"""Scores of embeddings: pairs, sets, and identification among others.

Networks come in as embeddings, float (n, n_features), made elsewhere.
"""

import logging
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from minddiff_utils.core.errors import DataError, check_finite, check_shape
from minddiff_utils.core.types import Floats, Mask

__all__ = [
    "category_only_two_way",
    "cosine_similarity",
    "embedding_distance",
    "frechet_distance",
    "mean_with_others",
    "pairwise_correlation",
    "share_beaten",
    "unit_rows",
]

_logger = logging.getLogger(__name__)

#: Correlations that differ by less are a tie: embeddings are float32 (1e-7), and those
#: of one image differ by as much between batches of different size.
_TIE = 1e-6
#: Features correlated at once: AlexNet's 184,512 take 1.5 GB per 1000 images (float64).
_BLOCK = 2048


def _reciprocal(norms: Floats, size: Floats | float, name: str) -> Floats:
    """Return 1 / norms; 0 for rows of no length, which are counted in the log.

    `size` is what the rows were computed from: a length of 1e-12 of it is rounding.
    """
    empty = norms <= 1e-12 * np.asarray(size)
    if empty.any():
        count = int(empty.sum())
        _logger.warning("%d of %d %s do not vary: scored 0", count, len(norms), name)
    return np.where(empty, 0.0, 1.0 / np.where(empty, 1.0, norms))


def cosine_similarity(embedding_a: Floats, embedding_b: Floats) -> Floats:
    """Return the cosine between corresponding rows, float64 (n,) in [-1, 1].

    Its floor is far above 0 for CLIP: show the score of shuffled pairs beside it.

    >>> cosine_similarity(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).round(3)
    array([0.707])
    """
    _check_embeddings(embedding_a, embedding_b)
    a, b = (unit_rows(rows) for rows in (embedding_a, embedding_b))
    return np.asarray(np.einsum("ij,ij->i", a, b))


def unit_rows(rows: Floats, *, centred: bool = False) -> Floats:
    """Return rows of length 1, after their mean where `centred`; 0 without a length."""
    wide = rows.astype(np.float64)
    size: Floats | float = 0.0
    if centred:
        size = np.linalg.norm(wide, axis=1)
        wide = wide - wide.mean(axis=1, keepdims=True)
    scale = _reciprocal(np.linalg.norm(wide, axis=1), size, "embeddings")
    return np.asarray(wide * scale[:, None])


def mean_with_others(a: Floats, b: Floats) -> Floats:
    """Return the mean product of each row of `a` with the rows of `b` but its own.

    Of unit rows that is the mean similarity over all n - 1 shuffled pairs, at the cost
    of one pair; NaN where n is 1.

    >>> mean_with_others(np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]]))
    array([0.6, 0. ])
    """
    if len(a) < 2:
        return np.full(len(a), np.nan)
    own = np.einsum("ij,ij->i", a, b)
    return np.asarray((a @ b.sum(axis=0) - own) / (len(a) - 1))


def embedding_distance(embedding_a: Floats, embedding_b: Floats) -> Floats:
    """Return 1 - Pearson's r of corresponding rows: the field's "EffNet-B" and "SwAV".

    Float64 (n,) in [0, 2]; 0 for rows that agree. A row that does not vary has no
    correlation: its distance is 1, and it is counted in the log.

    >>> a, b = np.array([[0.0, 1.0, 2.0]]), np.array([[2.0, 1.0, 0.0]])
    >>> embedding_distance(a, b).round(3)
    array([2.])
    """
    _check_embeddings(embedding_a, embedding_b)
    a, b = (unit_rows(rows, centred=True) for rows in (embedding_a, embedding_b))
    return np.asarray(1.0 - np.einsum("ij,ij->i", a, b))


def _check_embeddings(embedding_a: Floats, embedding_b: Floats) -> None:
    check_shape(embedding_a.shape, (None, None), "the first embedding")
    check_shape(embedding_b.shape, embedding_a.shape, "the second embedding")
    for name, rows in (("first", embedding_a), ("second", embedding_b)):
        check_finite(bool(np.isfinite(rows).all()), f"the {name} embedding")


def frechet_distance(features_a: Floats, features_b: Floats) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to two feature sets.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))`` with sample covariances
    (n - 1) of float (n_a, n_features) and (n_b, n_features), two rows or more each; 0
    for equal sets. With the Inception network this is FID; here the caller names the
    network.

    Small samples: the distance of two samples of one distribution is positive and grows
    as n falls below the number of features, so a value is comparable only with values
    of the same two sample sizes, and says nothing by itself. It sees two sets, not
    pairs: shuffling the images does not change it.

    Notes
    -----
    With centred rows ``X = Q R``, ``S = R' R / (n - 1)``; the eigenvalues of
    ``S_a S_b`` are the squared singular values of ``R_a R_b' / sqrt((n_a-1)(n_b-1))``,
    so the trace of the root is their sum: exact for singular covariances too, where a
    matrix square root is not.

    References
    ----------
    Heusel et al. (2017), GANs trained by a two time-scale update rule, equation 6.
    """
    check_shape(features_b.shape, (None, features_a.shape[1]), "the second feature set")
    for name, rows in (("first", features_a), ("second", features_b)):
        check_finite(bool(np.isfinite(rows).all()), f"the {name} feature set")
        if len(rows) < 2:
            raise DataError(
                f"The {name} feature set has {len(rows)} row, but a covariance needs "
                "two: evaluate more images."
            )
    mean_a, root_a = _gaussian(features_a)
    mean_b, root_b = _gaussian(features_b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2.0 * cross
    distance = float(np.square(mean_a - mean_b).sum() + spread)
    return max(distance, 0.0)  # rounding can leave -1e-16 for equal sets


def _gaussian(features: Floats) -> tuple[Floats, Floats]:
    """Return the mean and a root R of the covariance, ``S = R' R``."""
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    root = np.linalg.qr(wide - mean, mode="r")  # (min(n, f), f)
    return mean, root / np.sqrt(len(wide) - 1)


# --- identification ---------------------------------------------------------------


def _moments(rows: Floats) -> tuple[Floats, Floats]:
    """Return each row's mean and 1 / length once centred, read block by block."""
    mean = rows.mean(axis=1, dtype=np.float64)
    squares, size = np.zeros(len(rows)), np.zeros(len(rows))
    for start in range(0, rows.shape[1], _BLOCK):
        wide = rows[:, start : start + _BLOCK].astype(np.float64)
        squares += np.square(wide - mean[:, None]).sum(axis=1)
        size += np.square(wide).sum(axis=1)
    return mean, _reciprocal(np.sqrt(squares), np.sqrt(size), "embeddings")


def pairwise_correlation(truth: Floats, reconstruction: Floats) -> Floats:
    """Return Pearson's r between each truth (rows) and each reconstruction (columns).

    Features are taken block by block: memory is that of the embeddings and of the
    result, (n, n). The embeddings differ in shape, hold NaN, or have fewer than two
    rows: DataError.
    """
    _check_embeddings(truth, reconstruction)
    if len(truth) < 2:
        raise DataError(
            f"Two-way identification needs two images, not {len(truth)}: "
            "raise data.n_reconstruct."
        )
    (mean_a, scale_a), (mean_b, scale_b) = _moments(truth), _moments(reconstruction)
    r = np.zeros((len(truth), len(truth)))
    for start in range(0, truth.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        a = (truth[:, block] - mean_a[:, None]) * scale_a[:, None]
        b = (reconstruction[:, block] - mean_b[:, None]) * scale_b[:, None]
        r += a @ b.T
        del a, b  # before the next block's are made
    return r


def share_beaten(similarity: Floats, among: Mask | None = None) -> Floats:
    """Return, per column, how often the diagonal beats the column's other entries.

    With truths in rows and reconstructions in columns this is two-way identification by
    the rule of Brain-Diffuser and MindEye: per reconstruction, how often its own truth
    beats another one. The transpose gives that of Takagi and Nishimoto: per truth, how
    often its own reconstruction beats another one. Chance is 0.5; a tie counts half.

    `similarity`, float64 (n, n): from `pairwise_correlation`, n >= 2. `among`, bool
    (n, n): which entries are compared, by default all others; NaN where there are none.
    """
    own = np.diag(similarity)[None, :]
    tied = np.abs(own - similarity) <= _TIE
    wins = np.where(tied, 0.5, own > similarity)
    others = ~np.eye(len(similarity), dtype=bool)
    if among is not None:
        others &= among
    n = others.sum(axis=0)
    return np.asarray((wins * others).sum(axis=0) / np.where(n, n, np.nan))


def category_only_two_way(categories: Sequence[Hashable]) -> float:
    """Return the two-way score expected of images that carry the category alone.

    A comparison with an image of another category is won, one within the category is
    won by chance. With s the mean share of the other images that have an image's own
    category, the score is ``s / 2 + (1 - s)``; for k equally frequent categories and
    many images, s = 1/k: ``0.5 / k + 1 - 1/k``. Fewer than two images: DataError.

    >>> category_only_two_way(["cat", "cat", "dog", "dog"]) * 6  # s = 1/3
    5.0
    """
    n = len(categories)
    if n < 2:
        raise DataError(
            f"Two-way identification needs two images, but categories of {n} were"
            " given: name the category of every image."
        )
    counts = Counter(categories).values()
    share = sum(count * (count - 1) for count in counts) / (n * (n - 1))
    return share * 0.5 + (1.0 - share)
