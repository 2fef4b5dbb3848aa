"""All scores of a subject's conditions, with their floors.

Embedders are functions from images to embeddings by name; which metrics follow from
each is written in `definitions.METRICS`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import DataError, check_choice
from minddiff_utils.core.rows import Images, Rows, take
from minddiff_utils.evaluation.metrics.definitions import METRICS, metrics_of
from minddiff_utils.evaluation.metrics.embeddings import (
    cosine_similarity,
    embedding_distance,
    frechet_distance,
    pairwise_correlation,
    share_beaten,
)
from minddiff_utils.evaluation.metrics.pixels import (
    pcc_425,
    pixel_correlation,
    ssim_2d,
    ssim_2d_425,
    ssim_percolumn_legacy,
    ssim_percolumn_legacy_425,
)

__all__ = [
    "ConditionImages",
    "SubjectScores",
    "frechet_table",
    "score_condition",
    "score_methods",
    "shuffled_floor",
]

Floats = npt.NDArray[np.float64]
Embedding = npt.NDArray[np.floating]
Embedders = Mapping[str, Callable[[Images], Embedding]]
_PixelScore = Callable[[Images, Images], Floats]
_PairScore = Callable[[Embedding, Embedding], Floats]

#: Other truths that each reconstruction is compared with for the floor.
_N_SHIFTS = 5
#: Metrics of which one other truth must do: an SSIM for each column, or at 425 px.
_SLOW = {name for name, metric in METRICS.items() if metric.on_request}
_SLOW |= {"ssim_percolumn_legacy"}
#: What unrelated images score in two-way identification, by construction.
_TWO_WAY_FLOOR = 0.5
_PIXEL_SCORES: Mapping[str, _PixelScore] = {
    "ssim_2d": ssim_2d,
    "ssim_percolumn_legacy": ssim_percolumn_legacy,
    "pcc": pixel_correlation,
    "pcc_425": pcc_425,
    "ssim_2d_425": ssim_2d_425,
    "ssim_percolumn_legacy_425": ssim_percolumn_legacy_425,
}
#: Rules that compare row by row; the others need the whole set.
_PAIR_RULES: Mapping[str, _PairScore] = {
    "cosine": cosine_similarity,
    "distance": embedding_distance,
}


@dataclass(frozen=True)
class ConditionImages:
    """The images of one method for one subject, in the order of `nsd_id`."""

    method: str
    nsd_id: npt.NDArray[np.int64]
    images: Images


@dataclass(frozen=True)
class SubjectScores:
    """All scores of a subject and the embeddings that set-wise distances need.

    Attributes
    ----------
    table : DataFrame
        Columns subject, method, nsd_id, metric, value, floor.
    embeddings : mapping of float64 (n, n_features)
        The judge's embeddings by method.
    sets : mapping of mapping of float64 (n, n_features)
        By metric (`fid_judge`, `fid_inception`), then by method: what `frechet_table`
        takes.
    """

    table: pd.DataFrame
    embeddings: Mapping[str, Floats] = field(default_factory=dict)
    sets: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)


# --- scores of one condition --------------------------------------------------------


def _pixel_scores(extra: Collection[str]) -> dict[str, _PixelScore]:
    """Return the pixel metrics to score: all that are quick, and those asked for."""
    slow = [name for name in _PIXEL_SCORES if METRICS[name].on_request]
    for name in extra:
        check_choice(name, slow, "a metric on request")
    return {
        name: score
        for name, score in _PIXEL_SCORES.items()
        if name not in slow or name in extra
    }


def score_condition(
    images: Images,
    truth: Images,
    embeddings: Mapping[str, Embedding],
    truth_embeddings: Mapping[str, Embedding],
    *,
    extra: Collection[str] = (),
) -> dict[str, Floats]:
    """Return every per-image score of `images` against `truth`.

    Parameters
    ----------
    images, truth : uint8 (n, height, width, 3)
        Reconstructions and true images, row by row.
    embeddings, truth_embeddings : mapping of float (n, n_features)
        By embedder: `clip_judge`, `clip_method`, or a network of `METRICS`; each gives
        the metrics that follow from it, two-way identification only where n > 1.
    extra : collection of str
        Metrics on request, such as `pcc_425`.

    Returns
    -------
    dict of float64 (n,)
        By metric name.

    Raises
    ------
    ConfigError
        No metric uses an embedder of that name, or `extra` names another metric.
    """
    pixels = _pixel_scores(extra)
    scores = {name: score(images, truth) for name, score in pixels.items()}
    return scores | _all_embedding_scores(embeddings, truth_embeddings)


def _all_embedding_scores(
    embeddings: Mapping[str, Embedding], truth_embeddings: Mapping[str, Embedding]
) -> dict[str, Floats]:
    scores: dict[str, Floats] = {}
    for network, rows in embeddings.items():
        scores |= _embedding_scores(network, rows, truth_embeddings[network])
    return scores


def _embedding_scores(
    network: str, rows: Embedding, truth: Embedding
) -> dict[str, Floats]:
    rules = {name: metric.rule for name, metric in metrics_of(network).items()}
    scores = {
        name: _PAIR_RULES[rule](rows, truth)
        for name, rule in rules.items()
        if rule in _PAIR_RULES
    }
    two_way = {name: rule for name, rule in rules.items() if rule.startswith("two_way")}
    if two_way and len(rows) > 1:
        similarity = pairwise_correlation(truth, rows)  # once, it costs most
        for name, rule in two_way.items():
            by_truth = rule == "two_way_by_truth"
            scores[name] = share_beaten(similarity.T if by_truth else similarity)
    return scores


def shuffled_floor(
    images: Images,
    truth: Images,
    embeddings: Mapping[str, Embedding],
    truth_embeddings: Mapping[str, Embedding],
    *,
    extra: Collection[str] = (),
) -> dict[str, Floats]:
    """Return the scores of the same reconstructions against other true images.

    Reconstruction i meets the truths i+1 .. i+5 (cyclic, fewer where n <= 5; by slow
    metrics i+1 alone), so no image meets its own; the floor of two-way identification
    is 0.5 by construction.
    For distances the "floor" is what unrelated images have, a value to stay below.

    Parameters
    ----------
    images, truth, embeddings, truth_embeddings, extra
        As for `score_condition`.

    Returns
    -------
    dict of float64 (n,)
        By metric name: mean over the other truths; NaN where n < 2.
    """
    floors = {
        name: _mean_over_others(
            score, images, truth, n_shifts=1 if name in _SLOW else _N_SHIFTS
        )
        for name, score in _pixel_scores(extra).items()
    }
    return floors | _embedding_floors(embeddings, truth_embeddings)


def _embedding_floors(
    embeddings: Mapping[str, Embedding], truth_embeddings: Mapping[str, Embedding]
) -> dict[str, Floats]:
    floors: dict[str, Floats] = {}
    for network, rows in embeddings.items():
        other = truth_embeddings[network]
        for name, metric in metrics_of(network).items():
            if metric.rule in _PAIR_RULES:
                rule = _PAIR_RULES[metric.rule]
                floors[name] = _mean_over_others(rule, rows, other)
            elif metric.rule != "frechet":
                floors[name] = np.full(len(rows), _TWO_WAY_FLOOR)
    return floors


def _mean_over_others(
    score: Callable[..., Floats],
    rows: npt.NDArray[np.generic] | Rows,
    truth: npt.NDArray[np.generic] | Rows,
    *,
    n_shifts: int = _N_SHIFTS,
) -> Floats:
    n = len(rows)
    shifts = range(1, min(n - 1, n_shifts) + 1)
    others = (np.roll(np.arange(n), shift) for shift in shifts)
    rounds = [score(rows, take(truth, other)) for other in others]
    return np.mean(rounds, axis=0) if rounds else np.full(n, np.nan)


# --- all conditions of a subject ----------------------------------------------------


def score_methods(
    subject: int,
    conditions: Iterable[ConditionImages],
    truth: ConditionImages,
    embedders: Embedders,
    *,
    extra: Collection[str] = (),
) -> SubjectScores:
    """Score every condition of one subject; conditions are read one at a time.

    Parameters
    ----------
    subject : int
        Written into the table.
    conditions : iterable of ConditionImages
        Their images must be among those of `truth`.
    truth : ConditionImages
        The true images; unread ones are never held all at once.
    embedders : mapping of callables
        Images -> embedding, by name: `clip_judge` at least, `clip_method`, and those of
        `perception.load_perception`.
    extra : collection of str
        Metrics on request, such as `pcc_425`.

    Returns
    -------
    SubjectScores
        The table, the judge's embeddings by method, and those of set-wise distances.

    Raises
    ------
    DataError
        An image of a condition has no true image, there is no condition, or no
        `clip_judge` among the embedders.
    ConfigError
        No metric uses an embedder of that name, or `extra` names another metric.
    """
    if "clip_judge" not in embedders:
        raise DataError(
            "The judge's embedding clip_judge is missing from the embedders: add it."
        )
    set_wise = _frechet_metrics(embedders)
    sets: dict[str, dict[str, Floats]] = {metric: {} for metric in set_wise}
    known = {name: embed(truth.images) for name, embed in embedders.items()}
    position = {int(image): row for row, image in enumerate(truth.nsd_id)}
    frames: list[pd.DataFrame] = []
    for condition in conditions:
        rows = _rows(condition, position)
        pairs = condition.images, take(truth.images, rows)
        scores = score_condition(*pairs, {}, {}, extra=extra)
        floors = shuffled_floor(*pairs, {}, {}, extra=extra)
        for network, embed in embedders.items():  # one at a time: AlexNet's are large
            found = embed(condition.images)
            looked = {network: found}, {network: known[network][rows]}
            scores |= _all_embedding_scores(*looked)
            floors |= _embedding_floors(*looked)
            for metric in (m for m, name in set_wise.items() if name == network):
                sets[metric][condition.method] = np.asarray(found, dtype=np.float64)
            del found, looked  # before the next one's are made
        frames += [
            _frame(subject, condition, name, values, floors[name])
            for name, values in scores.items()
        ]
        del condition, pairs  # before the next one's images are read
    if not frames:
        raise DataError(
            f"Subject {subject} has no images to score: run notebooks 03 and 04 first."
        )
    table = pd.concat(frames, ignore_index=True)
    return SubjectScores(table, sets["fid_judge"], sets)


def _frechet_metrics(embedders: Embedders) -> dict[str, str]:
    """Return the set-wise metrics that follow from the embedders: metric -> network."""
    return {
        name: network
        for network in embedders
        for name, metric in metrics_of(network).items()
        if metric.rule == "frechet"
    }


def _rows(condition: ConditionImages, position: Mapping[int, int]) -> slice | list[int]:
    """Return where the condition's images are in the truth; a slice copies nothing."""
    missing = [int(i) for i in condition.nsd_id if int(i) not in position]
    if missing:
        raise DataError(
            f"{condition.method} holds images {missing[:5]} that have no true image: "
            "move that folder away and run the notebook that writes it again."
        )
    rows = [position[int(i)] for i in condition.nsd_id]
    return slice(None) if rows == list(range(len(position))) else rows


def _frame(
    subject: int,
    condition: ConditionImages,
    metric: str,
    values: Floats,
    floors: Floats,
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
    subjects: Mapping[str, Mapping[str, Embedding]],
    references: Mapping[str, Embedding],
    *,
    metric: str = "fid_judge",
) -> pd.DataFrame:
    """Return the Fréchet distance of each method's images to the reference images.

    No interval: resampling repeats images, which by itself raises the distance.

    Parameters
    ----------
    subjects : mapping of mapping of float (n, n_features)
        Embeddings by subject and method (`SubjectScores.sets[metric]`); the row "all"
        puts subjects together.
    references : mapping of float (n_reference, n_features)
        Embeddings of the true test images by the same network, by subject and "all".
    metric : {"fid_judge", "fid_inception"}
        Written into the table.

    Returns
    -------
    DataFrame
        Columns subject, method, metric, value, n; methods with fewer than two images
        are left out.
    """
    known = [name for name, m in METRICS.items() if m.rule == "frechet"]
    check_choice(metric, known, "a set-wise metric")
    methods = list(dict.fromkeys(m for found in subjects.values() for m in found))
    pooled = {
        method: np.concatenate([s[method] for s in subjects.values() if method in s])
        for method in methods
    }
    rows = [
        (
            subject,
            method,
            metric,
            frechet_distance(features, references[subject]),
            len(features),
        )
        for subject, found in {**subjects, "all": pooled}.items()
        for method, features in found.items()
        if len(features) > 1
    ]
    return pd.DataFrame(rows, columns=["subject", "method", "metric", "value", "n"])
