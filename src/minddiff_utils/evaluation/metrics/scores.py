"""All scores of a subject's conditions, with their floors.

Embedders are functions from images to embeddings by name; which metrics follow from
each is written in `registry.METRICS`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import DataError, check_choice
from minddiff_utils.core.rows import Images, in_blocks, take
from minddiff_utils.core.types import Array, Floats, IntArray
from minddiff_utils.evaluation.metrics.embeddings import (
    cosine_similarity,
    embedding_distance,
    frechet_distance,
    mean_with_others,
    pairwise_correlation,
    share_beaten,
    unit_rows,
)
from minddiff_utils.evaluation.metrics.pixels import PIXEL_SCORES, ssim_2d_with_floor
from minddiff_utils.evaluation.metrics.registry import METRICS, metrics_of

__all__ = [
    "ConditionImages",
    "Seen",
    "SubjectScores",
    "frechet_table",
    "score_methods",
    "score_rows",
]

Embedders = Mapping[str, Callable[[Images], Floats]]
#: Scores of corresponding rows, of images or of embeddings.
_PairScore = Callable[[Any, Any], Floats]

#: Images held as numbers at once: 16 of 512 px take 100 MB.
_N_AT_ONCE = 16
#: True images of fewer bytes are read once; more of them once for every condition.
_FEW_BYTES = 2**27
#: What unrelated images score in two-way identification, by construction.
_TWO_WAY_FLOOR = 0.5
#: Rules that compare row by row; the others need the whole set.
_PAIR_RULES: Mapping[str, _PairScore] = {
    "cosine": cosine_similarity,
    "distance": embedding_distance,
}


@dataclass(frozen=True)
class ConditionImages:
    """The images of one method for one subject, in the order of `nsd_id`."""

    method: str
    nsd_id: IntArray
    images: Images


@dataclass(frozen=True)
class SubjectScores:
    """All scores of a subject and the embeddings that set-wise distances need.

    `table`: columns subject, method, nsd_id, metric, value, floor; `sets`: by metric
    (`fid_judge`, `fid_inception`), then by method, float64 (n, n_features).
    """

    table: pd.DataFrame
    sets: Mapping[str, Mapping[str, Floats]]


#: Is told the images of a condition (of "truth" first), the embedder's name and what it
#: made of them, rows as the images.
Seen = Callable[[ConditionImages, str, Floats], None]


# --- scores of one condition --------------------------------------------------------


def _pixel_scores(extra: Collection[str]) -> dict[str, _PairScore]:
    """Return the pixel metrics to score: all that are quick, and those asked for."""
    slow = [name for name in PIXEL_SCORES if METRICS[name].on_request]
    for name in extra:
        check_choice(name, slow, "a metric on request")
    left_out = {*slow} - {*extra}
    return {k: score for k, score in PIXEL_SCORES.items() if k not in left_out}


def _pair_scores(network: str) -> dict[str, _PairScore]:
    """Return the metrics of a network that compare row by row."""
    rules = {name: metric.rule for name, metric in metrics_of(network).items()}
    return {k: _PAIR_RULES[rule] for k, rule in rules.items() if rule in _PAIR_RULES}


def _two_way(network: str, rows: Floats, truth: Floats) -> dict[str, Floats]:
    """Return the identification scores of a network, none of one image."""
    rules = {name: metric.rule for name, metric in metrics_of(network).items()}
    two_way = {name: rule for name, rule in rules.items() if rule.startswith("two_way")}
    if not two_way or len(rows) < 2:
        return {}
    similarity = pairwise_correlation(truth, rows)  # once for both, it costs most
    sides = {"two_way_by_reconstruction": similarity, "two_way_by_truth": similarity.T}
    return {name: share_beaten(sides[rule]) for name, rule in two_way.items()}


def _with_floors(
    scores: Mapping[str, _PairScore], rows: Any, other: Any
) -> dict[str, tuple[Floats, Floats]]:
    """Return each metric's scores and the mean of those against other true images.

    These are all others but where the metric says how many (`Metric.n_others`): then
    reconstruction i meets the truths i+1, i+2, .. alone (cyclic, fewer where there are
    fewer). No image meets its own; NaN where n < 2. For distances it is what unrelated
    images have, to stay below.
    """
    scored, n = {}, len(rows)
    for name, score in scores.items():
        n_others = METRICS[name].n_others
        if n_others is None:
            scored[name] = score(rows, other), _floor_of_all(score, rows, other)
            continue
        some = min(n - 1, n_others)
        if name == "ssim_2d" and n > 1:  # as below, ten times as fast
            scored[name] = ssim_2d_with_floor(rows, other, some)
            continue
        shifts = range(1, some + 1)
        moved = (take(other, np.roll(np.arange(n), shift)) for shift in shifts)
        floors = [score(rows, truths) for truths in moved]
        floor = np.mean(floors, axis=0) if floors else np.full(n, np.nan)
        scored[name] = score(rows, other), floor
    return scored


def _floor_of_all(score: _PairScore, rows: Any, other: Any) -> Floats:
    """Return each row's mean score against all truths but its own."""
    centred = score is not cosine_similarity
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        floor = mean_with_others(
            *(unit_rows(part, centred=centred) for part in (rows, other))
        )
        return 1.0 - floor if score is embedding_distance else floor
    return _pixel_floor(rows, other)


def _pixel_floor(rows: Images, other: Images) -> Floats:
    """Return the mean pixel correlation with all truths but the own, in blocks."""
    n = len(rows)
    if n < 2:
        return np.full(n, np.nan)
    total = sum(_unit_pixels(b).sum(axis=0) for _, b in in_blocks(other, _N_AT_ONCE))
    floors = []
    for part, block in in_blocks(rows, _N_AT_ONCE):
        made, seen = _unit_pixels(block), _unit_pixels(other[part])
        floors.append((made @ total - np.einsum("ij,ij->i", made, seen)) / (n - 1))
    return np.concatenate(floors)


def _unit_pixels(images: Array) -> Floats:
    flat = np.asarray(images, np.float64).reshape(len(images), -1)
    return unit_rows(flat, centred=True)


# --- all conditions of a subject ----------------------------------------------------


def score_methods(
    subject: int,
    conditions: Iterable[ConditionImages],
    truth: ConditionImages,
    embedders: Embedders,
    *,
    extra: Collection[str] = (),
    seen_by: Seen | None = None,
) -> SubjectScores:
    """Score every condition of one subject; conditions are read one at a time.

    `conditions`: their images must be among those of `truth`, the true ones, which are
    held all at once only where they are few; `embedders`: images -> embedding, by name,
    `clip_judge` at least, `clip_method`, and those of `networks.load_networks`;
    `extra`: metrics on request, such as `pcc_425`; `seen_by`: is given every embedding,
    so that nothing else has to look at an image again.

    An image of a condition has no true image, there is no condition, or no `clip_judge`
    among the embedders: DataError. No metric uses an embedder of that name, or `extra`
    names another metric: ConfigError.
    """
    if "clip_judge" not in embedders:
        raise DataError(
            "The judge's embedding clip_judge is missing from the embedders: add it."
        )
    set_wise = {
        name: network
        for network in embedders
        for name, metric in metrics_of(network).items()
        if metric.rule == "frechet"
    }
    sets: dict[str, dict[str, Floats]] = {metric: {} for metric in set_wise}
    tell = seen_by or (lambda *_: None)
    if truth.images.size <= _FEW_BYTES:
        truth = replace(truth, images=np.asarray(truth.images[:]))
    known = {}
    for network, embed in embedders.items():
        known[network] = embed(truth.images)
        tell(truth, network, known[network])
    position = {int(image): row for row, image in enumerate(truth.nsd_id)}
    frames: list[pd.DataFrame] = []
    for condition in conditions:
        rows = _rows(condition, position)
        pairs = condition.images, take(truth.images, rows)
        scored = _with_floors(_pixel_scores(extra), *pairs)
        for network, embed in embedders.items():  # one at a time: AlexNet's are large
            seen, true = embed(condition.images), known[network][rows]
            tell(condition, network, seen)
            scored |= _with_floors(_pair_scores(network), seen, true)
            for name, values in _two_way(network, seen, true).items():
                scored[name] = values, np.full(len(values), _TWO_WAY_FLOOR)
            for metric in (m for m, name in set_wise.items() if name == network):
                sets[metric][condition.method] = np.asarray(seen, dtype=np.float64)
            del seen, true  # before the next one's are made
        who = condition.method, condition.nsd_id
        frames += [score_rows(*who, name, *both) for name, both in scored.items()]
        del condition, pairs  # before the next one's images are read
    if not frames:
        raise DataError(
            f"Subject {subject} has no images to score: run notebooks 03 and 04 first."
        )
    table = pd.concat(frames, ignore_index=True)
    table.insert(0, "subject", str(subject))
    return SubjectScores(table, sets)


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


def score_rows(
    method: str, nsd_id: IntArray, metric: str, value: object, floor: object = None
) -> pd.DataFrame:
    """Return a method's scores by one metric, a row for each image."""
    about = {"method": method, "nsd_id": nsd_id, "metric": metric, "value": value}
    return pd.DataFrame(about if floor is None else about | {"floor": floor})


def frechet_table(
    subjects: Mapping[str, Mapping[str, Floats]],
    references: Mapping[str, Floats],
    *,
    metric: str = "fid_judge",
) -> pd.DataFrame:
    """Return the Fréchet distance of each method's images to the reference images.

    No interval: resampling repeats images, which by itself raises the distance.
    `subjects`: float (n, n_features) by subject and method (`SubjectScores.sets` of
    `metric`), which the row "all" puts together; `references`: those of the true test
    images by the same network, by subject and "all". Columns subject, method, metric,
    value, n; methods with fewer than two images are left out.
    """
    known = [name for name, m in METRICS.items() if m.rule == "frechet"]
    check_choice(metric, known, "a set-wise metric")
    pooled: dict[str, list[Floats]] = {}
    for method, features in (item for own in subjects.values() for item in own.items()):
        pooled.setdefault(method, []).append(features)
    everyone = {method: np.concatenate(parts) for method, parts in pooled.items()}
    rows = [
        (subject, method, metric, frechet_distance(x, references[subject]), len(x))
        for subject, own in {**subjects, "all": everyone}.items()
        for method, x in own.items()
        if len(x) > 1
    ]
    return pd.DataFrame(rows, columns=["subject", "method", "metric", "value", "n"])
