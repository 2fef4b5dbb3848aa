"""Named scores of reconstructed images: pure functions, one definition per name.

Every variant that published code confuses has a name of its own here. Networks come in
as embeddings, so that the judge knows nothing of the method it judges. Not here:
intervals and tests (`statistics`). Place in the flow: layer 7; notebook 05 calls it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from minddiff_utils.errors import DataError, check_finite, check_shape

__all__ = [
    "METRICS",
    "Condition",
    "Metric",
    "SubjectScores",
    "cosine_similarity",
    "frechet_distance",
    "frechet_table",
    "pixel_correlation",
    "score_condition",
    "score_methods",
    "shuffled_floor",
    "ssim_2d",
    "ssim_percolumn_legacy",
    "two_way_by_reconstruction",
    "two_way_by_truth",
]

_logger = logging.getLogger(__name__)

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Embedding = npt.NDArray[np.floating]

#: Gaussian window of SSIM (Wang et al. 2004): sigma in px.
_SSIM_SIGMA = 1.5
#: Side of that window in px: no image may be smaller.
_SSIM_WINDOW = 11
#: Correlations that differ by less are a tie: embeddings are float32 (1e-7), and those
#: of one image differ by as much between batches of different size.
_TIE = 1e-6
#: Other truths that each reconstruction is compared with for the floor.
_N_SHIFTS = 5


@dataclass(frozen=True)
class Metric:
    """What a score is: its words, the role of its network, which way is better."""

    label: str
    judge_role: str
    higher_is_better: bool = True


_INDEPENDENT = "independent judge"
#: Every metric of the tables, in the order in which they are shown.
METRICS: Mapping[str, Metric] = {
    "clip_judge": Metric("CLIP similarity, judge CLIP", _INDEPENDENT),
    "clip_method": Metric(
        "CLIP similarity, the method's own CLIP", "took part in the method"
    ),
    "ssim_2d": Metric("SSIM, gray, 2-D", "no network"),
    "ssim_percolumn_legacy": Metric(
        "SSIM, gray, mean over 1-D columns (scikit-image <= 0.19)", "no network"
    ),
    "pcc": Metric("pixel correlation, RGB", "no network"),
    "two_way_by_reconstruction": Metric(
        "two-way identification, each reconstruction among truths", _INDEPENDENT
    ),
    "two_way_by_truth": Metric(
        "two-way identification, each truth among reconstructions", _INDEPENDENT
    ),
    "fid_judge": Metric(
        "Fréchet distance, judge CLIP features", _INDEPENDENT, higher_is_better=False
    ),
}


# --- pixels -----------------------------------------------------------------------


def _check_pairs(images_a: Images, images_b: Images) -> None:
    check_shape(images_a.shape, (None, None, None, 3), "the first image set")
    check_shape(images_b.shape, images_a.shape, "the second image set")
    for images in (images_a, images_b):
        if images.dtype != np.uint8:
            raise DataError(
                f"Images are {images.dtype}, but uint8 RGB is expected: convert first."
            )


def _gray(image: Images) -> Floats:
    return np.asarray(rgb2gray(image.astype(np.float64) / 255.0))  # (h, w) in 0..1


def _ssim(images_a: Images, images_b: Images, channel_axis: int | None) -> Floats:
    _check_pairs(images_a, images_b)
    height, width = images_a.shape[1:3]
    if min(height, width) < _SSIM_WINDOW:
        raise DataError(
            f"Images of {height} x {width} px are smaller than SSIM's window of "
            f"{_SSIM_WINDOW} px: score larger ones."
        )
    # one pair at a time: all images of a full test set as float64 take gigabytes
    pairs = zip(images_a, images_b, strict=True)
    return np.array([_ssim_pair(a, b, channel_axis) for a, b in pairs], np.float64)


def _ssim_pair(a: Images, b: Images, channel_axis: int | None) -> float:
    value = structural_similarity(
        _gray(a),
        _gray(b),
        data_range=1.0,
        gaussian_weights=True,
        sigma=_SSIM_SIGMA,
        use_sample_covariance=False,
        channel_axis=channel_axis,
    )
    return float(value)


def ssim_2d(images_a: Images, images_b: Images) -> Floats:
    """Return the structural similarity of each pair of images.

    Gray by Rec. 709 weights, Gaussian window of sigma 1.5 (11 x 11 px), population
    covariance, data range 1, at the size given. What scikit-image 0.20 and later
    compute for the call that most fMRI papers share.

    Parameters
    ----------
    images_a, images_b : uint8 (n, height, width, 3)
        RGB images of at least 11 px a side; the order of the two does not matter.

    Returns
    -------
    float64 (n,)
        In [-1, 1]; 1 for equal images.

    Raises
    ------
    DataError
        The sets differ in shape, are not uint8 RGB, or are smaller than 11 px.

    References
    ----------
    Wang et al. (2004), Image quality assessment, IEEE TIP 13(4), equation 13.
    """
    return _ssim(images_a, images_b, None)


def ssim_percolumn_legacy(images_a: Images, images_b: Images) -> Floats:
    """Return the mean of one-dimensional SSIMs over the columns of each pair.

    The published calls pass `multichannel=True` with gray images. Up to scikit-image
    0.19 each column was then a channel of its own, so that the score is a mean of 1-D
    SSIMs: usually higher than `ssim_2d`, and never to be compared with it.

    Parameters
    ----------
    images_a, images_b : uint8 (n, height, width, 3)
        RGB images.

    Returns
    -------
    float64 (n,)
        In [-1, 1]; 1 for equal images.
    """
    return _ssim(images_a, images_b, -1)


def _unit_rows(rows: Floats, size: Floats | float, name: str) -> Floats:
    """Scale rows to length 1; rows of no length stay zero and are counted in the log.

    `size` is what the rows were computed from: a length of 1e-12 of it is rounding.
    """
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    empty = norms <= 1e-12 * np.asarray(size)
    if empty.any():
        count = int(empty.sum())
        _logger.warning("%d of %d %s do not vary: scored 0", count, len(rows), name)
    return np.where(empty, 0.0, rows / np.where(empty, 1.0, norms))


def _standard_rows(rows: npt.NDArray[np.floating], name: str) -> Floats:
    wide = rows.astype(np.float64)
    size = np.linalg.norm(wide, axis=1, keepdims=True)
    return _unit_rows(wide - wide.mean(axis=1, keepdims=True), size, name)


def pixel_correlation(images_a: Images, images_b: Images) -> Floats:
    """Return Pearson's r over all RGB values of each pair, at the size given.

    An image of one colour has no correlation; it scores 0 and is counted in the log.

    Parameters
    ----------
    images_a, images_b : uint8 (n, height, width, 3)
        RGB images.

    Returns
    -------
    float64 (n,)
        In [-1, 1].
    """
    _check_pairs(images_a, images_b)
    pairs = zip(images_a, images_b, strict=True)  # one at a time, to spare memory
    values = np.array([_pearson(a, b) for a, b in pairs], dtype=np.float64)
    flat = np.isnan(values)
    if flat.any():
        _logger.warning("%d of %d pairs do not vary: scored 0", flat.sum(), len(values))
    return np.where(flat, 0.0, values)


def _pearson(image_a: Images, image_b: Images) -> float:
    """Return Pearson's r of two images, NaN where one has a single value."""
    a, b = (image.ravel().astype(np.float64) for image in (image_a, image_b))
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a @ a) * (b @ b))
    flat = np.ptp(image_a) == 0 or np.ptp(image_b) == 0
    return float("nan") if flat else float(a @ b / length)


# --- embeddings -------------------------------------------------------------------


def cosine_similarity(embedding_a: Embedding, embedding_b: Embedding) -> Floats:
    """Return the cosine between corresponding rows.

    Its floor is far above 0 for CLIP: show the score of shuffled pairs beside it.

    Parameters
    ----------
    embedding_a, embedding_b : float (n, n_features)
        Embeddings of the two sets, of any length.

    Returns
    -------
    float64 (n,)
        In [-1, 1].

    Examples
    --------
    >>> cosine_similarity(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).round(3)
    array([0.707])
    """
    _check_embeddings(embedding_a, embedding_b)
    a = _unit_rows(embedding_a.astype(np.float64), 0.0, "embeddings")
    b = _unit_rows(embedding_b.astype(np.float64), 0.0, "embeddings")
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _check_embeddings(embedding_a: Embedding, embedding_b: Embedding) -> None:
    check_shape(embedding_a.shape, (None, None), "the first embedding")
    check_shape(embedding_b.shape, embedding_a.shape, "the second embedding")
    for name, rows in (("first", embedding_a), ("second", embedding_b)):
        check_finite(bool(np.isfinite(rows).all()), f"the {name} embedding")


def frechet_distance(features_a: Embedding, features_b: Embedding) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to two feature sets.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))`` with sample covariances
    (n - 1). With the Inception network this is FID; here the caller names the network.

    Small samples: the distance of two samples of one distribution is positive and grows
    as n falls below the number of features, so a value is comparable only with values
    of the same two sample sizes, and says nothing by itself. It sees two sets, not
    pairs: shuffling the images does not change it.

    Parameters
    ----------
    features_a, features_b : float (n_a, n_features), (n_b, n_features)
        At least two rows each.

    Returns
    -------
    float
        0 or more; 0 for equal sets.

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


def _gaussian(features: Embedding) -> tuple[Floats, Floats]:
    """Return the mean and a root R of the covariance, ``S = R' R``."""
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    root = np.linalg.qr(wide - mean, mode="r")  # (min(n, f), f)
    return mean, root / np.sqrt(len(wide) - 1)


def _pairwise_correlation(truth: Embedding, reconstruction: Embedding) -> Floats:
    """Return r[i, j] between the features of truth i and of reconstruction j."""
    _check_embeddings(truth, reconstruction)
    if len(truth) < 2:
        raise DataError(
            f"Two-way identification needs two images, not {len(truth)}: "
            "raise data.n_reconstruct."
        )
    a = _standard_rows(truth, "embeddings")
    return np.asarray(a @ _standard_rows(reconstruction, "embeddings").T)


def _share_beaten(similarity: Floats) -> Floats:
    """Return, per column, how often the diagonal beats the column's other entries."""
    n = len(similarity)
    own = np.diag(similarity)[None, :]
    tied = np.abs(own - similarity) <= _TIE
    wins = np.where(tied, 0.5, own > similarity)  # a tie is half a win
    np.fill_diagonal(wins, 0.0)
    return np.asarray(wins.sum(axis=0) / (n - 1))


def two_way_by_reconstruction(truth: Embedding, reconstruction: Embedding) -> Floats:
    """Return, per reconstruction, how often its own truth beats another truth.

    The rule of Brain-Diffuser and MindEye: Pearson's r of features, own truth against
    every other truth. Chance is 0.5 exactly; a tie counts half.

    Parameters
    ----------
    truth, reconstruction : float (n, n_features)
        Features of the true images and of the reconstructions, n >= 2.

    Returns
    -------
    float64 (n,)
        Share of the n - 1 comparisons won.
    """
    return _share_beaten(_pairwise_correlation(truth, reconstruction))


def two_way_by_truth(truth: Embedding, reconstruction: Embedding) -> Floats:
    """Return, per truth, how often its own reconstruction beats another one.

    The rule of Takagi and Nishimoto: the transpose of `two_way_by_reconstruction`.

    Parameters
    ----------
    truth, reconstruction : float (n, n_features)
        Features of the true images and of the reconstructions, n >= 2.

    Returns
    -------
    float64 (n,)
        Share of the n - 1 comparisons won; chance is 0.5.
    """
    return _share_beaten(_pairwise_correlation(truth, reconstruction).T)


# --- conditions -------------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """The images of one method for one subject, in the order of `nsd_id`."""

    method: str
    nsd_id: npt.NDArray[np.int64]
    images: Images


@dataclass(frozen=True)
class SubjectScores:
    """All scores of a subject and the judge's embedding of each method's images."""

    table: pd.DataFrame
    embeddings: Mapping[str, Floats] = field(default_factory=dict)


Embedders = Mapping[str, Callable[[Images], Embedding]]
_PIXEL_SCORES: Mapping[str, Callable[[Images, Images], Floats]] = {
    "ssim_2d": ssim_2d,
    "ssim_percolumn_legacy": ssim_percolumn_legacy,
    "pcc": pixel_correlation,
}


def score_condition(
    images: Images,
    truth: Images,
    embeddings: Mapping[str, Embedding],
    truth_embeddings: Mapping[str, Embedding],
) -> dict[str, Floats]:
    """Return every per-image score of `images` against `truth`.

    Parameters
    ----------
    images, truth : uint8 (n, height, width, 3)
        Reconstructions and true images, row by row.
    embeddings, truth_embeddings : mapping of float (n, n_features)
        By metric name, `clip_judge` and `clip_method`; two-way identification uses the
        judge's and is left out where n < 2.

    Returns
    -------
    dict of float64 (n,)
        By metric name.
    """
    scores = {name: score(images, truth) for name, score in _PIXEL_SCORES.items()}
    for name, rows in embeddings.items():
        scores[name] = cosine_similarity(rows, truth_embeddings[name])
    if "clip_judge" in embeddings and len(images) > 1:
        pair = truth_embeddings["clip_judge"], embeddings["clip_judge"]
        scores["two_way_by_reconstruction"] = two_way_by_reconstruction(*pair)
        scores["two_way_by_truth"] = two_way_by_truth(*pair)
    return scores


def shuffled_floor(
    images: Images,
    truth: Images,
    embeddings: Mapping[str, Embedding],
    truth_embeddings: Mapping[str, Embedding],
) -> dict[str, Floats]:
    """Return the scores of the same reconstructions against other true images.

    Reconstruction i meets the truths i+1 .. i+5 (cyclic, fewer where n <= 5), so no
    image meets its own; the floor of two-way identification is 0.5 by construction.

    Parameters
    ----------
    images, truth, embeddings, truth_embeddings
        As for `score_condition`.

    Returns
    -------
    dict of float64 (n,)
        By metric name: mean over the other truths; NaN where n < 2.
    """
    n = len(images)
    shifts = range(1, min(n - 1, _N_SHIFTS) + 1)
    floors: dict[str, Floats] = {}
    for name, score in _PIXEL_SCORES.items():
        rounds = [score(images, np.roll(truth, s, axis=0)) for s in shifts]
        floors[name] = _mean_or_nan(rounds, n)
    for name, rows in embeddings.items():
        other = truth_embeddings[name]
        rounds = [cosine_similarity(rows, np.roll(other, s, axis=0)) for s in shifts]
        floors[name] = _mean_or_nan(rounds, n)
    for name in ("two_way_by_reconstruction", "two_way_by_truth"):
        floors[name] = np.full(n, 0.5)
    return floors


def _mean_or_nan(rounds: list[Floats], n: int) -> Floats:
    return np.mean(rounds, axis=0) if rounds else np.full(n, np.nan)


def score_methods(
    subject: int,
    conditions: Iterable[Condition],
    truth: Condition,
    embedders: Embedders,
) -> SubjectScores:
    """Score every condition of one subject; conditions are read one at a time.

    Parameters
    ----------
    subject : int
        Written into the table.
    conditions : iterable of Condition
        Their images must be among those of `truth`.
    truth : Condition
        The true images.
    embedders : mapping of callables
        Images -> embedding, by metric name (`clip_judge`, `clip_method`).

    Returns
    -------
    SubjectScores
        Table with columns subject, method, nsd_id, metric, value, floor; the judge's
        embeddings by method.

    Raises
    ------
    DataError
        An image of a condition has no true image, there is no condition, or no
        `clip_judge` among the embedders.
    """
    if "clip_judge" not in embedders:
        raise DataError(
            "The judge's embedding clip_judge is missing from the embedders: add it."
        )
    known = {name: embed(truth.images) for name, embed in embedders.items()}
    position = {int(image): row for row, image in enumerate(truth.nsd_id)}
    frames: list[pd.DataFrame] = []
    kept: dict[str, Floats] = {}
    for condition in conditions:
        rows = _rows(condition, position)
        found = {name: embed(condition.images) for name, embed in embedders.items()}
        own = {name: values[rows] for name, values in known.items()}
        arguments = (condition.images, truth.images[rows], found, own)
        scores, floors = score_condition(*arguments), shuffled_floor(*arguments)
        kept[condition.method] = np.asarray(found["clip_judge"], dtype=np.float64)
        frames += [
            _frame(subject, condition, name, values, floors[name])
            for name, values in scores.items()
        ]
    if not frames:
        raise DataError(
            f"Subject {subject} has no images to score: run notebooks 03 and 04 first."
        )
    return SubjectScores(pd.concat(frames, ignore_index=True), kept)


def _rows(condition: Condition, position: Mapping[int, int]) -> list[int]:
    missing = [int(i) for i in condition.nsd_id if int(i) not in position]
    if missing:
        raise DataError(
            f"{condition.method} holds images {missing[:5]} that have no true image: "
            "delete that folder and run the notebook that writes it again."
        )
    return [position[int(i)] for i in condition.nsd_id]


def _frame(
    subject: int, condition: Condition, metric: str, values: Floats, floors: Floats
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "subject": str(subject),
            "method": condition.method,
            "nsd_id": condition.nsd_id,
            "metric": metric,
            "value": values,
            "floor": floors,
        }
    )


def frechet_table(
    subjects: Mapping[str, Mapping[str, Embedding]], reference: Embedding
) -> pd.DataFrame:
    """Return the Fréchet distance of each method's images to the reference images.

    No interval: resampling repeats images, which by itself raises the distance.

    Parameters
    ----------
    subjects : mapping of mapping of float (n, n_features)
        Judge embeddings by subject and method; the row "all" puts subjects together.
    reference : float (n_reference, n_features)
        Judge embeddings of the true test images.

    Returns
    -------
    DataFrame
        Columns subject, method, metric, value, n; methods with fewer than two images
        are left out.
    """
    methods = list(dict.fromkeys(m for found in subjects.values() for m in found))
    pooled = {
        method: np.concatenate([s[method] for s in subjects.values() if method in s])
        for method in methods
    }
    rows = [
        (
            subject,
            method,
            "fid_judge",
            frechet_distance(features, reference),
            len(features),
        )
        for subject, found in {**subjects, "all": pooled}.items()
        for method, features in found.items()
        if len(features) > 1
    ]
    return pd.DataFrame(rows, columns=["subject", "method", "metric", "value", "n"])
