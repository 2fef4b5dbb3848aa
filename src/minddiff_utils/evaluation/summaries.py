"""Tables of means with intervals, and of paired differences.

Pure functions of a table of scores, one row per image. Intervals are those of
`core.inference`: these subjects, new images; rows of differences also give the one for
new subjects. Not here: what a score is (`metrics`), what it means (`claims`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.conditions import ceilings, draws, floors
from minddiff_utils.core.contrasts import CONTRASTS, Pair
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.inference import Estimate, estimate
from minddiff_utils.core.types import Doubles
from minddiff_utils.evaluation.metrics import METRICS

__all__ = [
    "ESTIMATE",
    "Matrices",
    "compare_methods",
    "contrast_table",
    "floor_table",
    "summarise",
]

#: Columns of an `Estimate` in every table, in its order.
ESTIMATE = (
    *("value", "ci_low", "ci_high", "smallest_effect"),
    *("n_images", "n_subjects", "n_subjects_positive"),
    *("subjects_low", "subjects_high"),
)
_MEAN = ["value", "ci_low", "ci_high", "n_images", "n_subjects"]
#: Index of some subjects and images.
_Place = tuple[Any, ...]


class Matrices:
    """Scores of every method and metric as a matrix, subjects x images.

    Each row of the table is put in its place once: to look for a method again for each
    of its numbers takes longer than all arithmetic. `scores`: columns subject, method,
    nsd_id, metric and `column`, "value" or "floor"; an image that is scored twice for
    one subject is a DataError. `pairs`: methods with their metrics, in the order of the
    table.
    """

    def __init__(self, scores: pd.DataFrame, column: str = "value") -> None:
        key = ["method", "metric", "subject", "nsd_id"]
        where = scores[key].astype({"subject": str})
        if where.duplicated().any():
            raise DataError(
                "An image is scored twice for one subject, method and metric: pass each"
                " score once."
            )
        codes, names = zip(
            *(pd.factorize(where[k], sort=True) for k in key), strict=True
        )
        self._row_of = [{name: k for k, name in enumerate(own)} for own in names[:2]]
        self._subjects, self._images = names[2:]
        self._values: Doubles = np.full([len(own) for own in names], np.nan)
        self._values[codes] = scores[column]
        pairs = where[key[:2]].drop_duplicates().to_numpy()
        self.pairs = [(str(method), str(metric)) for method, metric in pairs]

    def of(self, method: str, metric: str) -> Doubles:
        """Return a method's scores (n_subjects, n_images); NaN where one is missing."""
        methods, metrics = self._row_of
        if method not in methods or metric not in metrics:
            return np.full(self._values.shape[2:], np.nan)
        return np.asarray(self._values[methods[method], metrics[metric]])

    def matrix(self, method: str, metric: str) -> pd.DataFrame:
        """Return `of` by subject and image, those without any score left out."""
        return self._framed(self.of(method, metric))

    def contrast(self, method: str, reference: str, metric: str) -> pd.DataFrame:
        """Return `method` minus `reference`, subjects x images that both have.

        NaN where a subject lacks an image; empty where they share none.
        """
        return self._framed(self.of(method, metric) - self.of(reference, metric))

    def _framed(self, values: Doubles) -> pd.DataFrame:
        wide = pd.DataFrame(values, self._subjects, self._images)
        return wide.dropna(how="all").dropna(axis=1, how="all")

    def estimates(
        self, values: Doubles, confidence: float
    ) -> Iterator[tuple[str, Estimate, _Place]]:
        """Yield each subject's estimate, then that of "all" on the images all have.

        Beside it, where in `values` its numbers are. No image is scored in every
        subject: DataError.
        """
        there = ~np.isnan(values)
        scored = np.flatnonzero(there.any(axis=1))
        for row in scored:
            place = np.ix_([row], np.flatnonzero(there[row]))
            mean = estimate(values[place], confidence=confidence)
            yield str(self._subjects[row]), mean, place
        shared = np.flatnonzero(there[scored].all(axis=0))
        if not scored.size or not shared.size:
            raise DataError(
                "No image is scored in every subject, so subjects cannot be averaged: "
                "reconstruct the same test images for all subjects."
            )
        place = np.ix_(scored, shared)
        yield "all", estimate(values[place], confidence=confidence), place


# --- means --------------------------------------------------------------------------


def summarise(
    scores: pd.DataFrame,
    *,
    confidence: float = 0.95,
    ceilings: Mapping[str, str],
    floors: Collection[str] = (),
    draws: Sequence[str] = (),
) -> pd.DataFrame:
    """Return mean, interval, chance levels and ceiling of each method and metric.

    `scores`: columns subject, method, nsd_id, metric, value, floor, one row per image;
    `ceilings`: method -> the method whose score on the same images is its ceiling;
    `floors`: methods that know nothing of the image; `draws`: methods that are the
    first of them again, from other noise.

    Columns subject (or "all"), method, metric, value, ci_low, ci_high, n_images,
    n_subjects, floor (the row's images scored against other seen images), chance (the
    highest of that and of the methods `floors` on the same images; of a distance the
    lowest), chance_method (whose it is, "" for shuffled pairs), ceiling (NaN where it
    was not made for all images of the row), and sd_draw: of an image's score over
    `draws`, the root of the mean variance (NaN of other methods).
    """
    rows: list[tuple[object, ...]] = []
    # the second: the same images scored against other seen ones
    made, paired = Matrices(scores), Matrices(scores, "floor")
    for method, metric in made.pairs:
        own = made.of(method, metric)
        knowing = {"": paired.of(method, metric)}
        knowing |= {name: made.of(name, metric) for name in floors}
        top = made.of(ceilings.get(method, ""), metric)
        again = [made.of(d, metric) for d in draws if method in draws]
        for subject, mean, place in made.estimates(own, confidence):
            # NaN where one of the row's images is missing
            levels = {name: float(one[place].mean()) for name, one in knowing.items()}
            name, chance = _highest(levels, metric)
            numbers = mean.value, mean.low, mean.high, mean.n_images, mean.n_subjects
            ends = levels[""], chance, name, float(top[place].mean())
            spread = _spread([one[place] for one in again])
            rows.append((subject, method, metric, *numbers, *ends, spread))
    columns = ["subject", "method", "metric", *_MEAN, "floor", "chance"]
    columns += ["chance_method", "ceiling", "sd_draw"]
    return pd.DataFrame(rows, columns=columns)


def _spread(again: Sequence[Doubles]) -> float:
    """Return the SD of an image's score over draws; NaN without two of them."""
    if len(again) < 2:
        return np.nan
    return float(np.sqrt(np.var(np.stack(again), axis=0, ddof=1).mean()))


def _highest(levels: Mapping[str, float], metric: str) -> tuple[str, float]:
    """Return the chance level that is hardest to beat, and whose it is."""
    known = {name: level for name, level in levels.items() if not np.isnan(level)}
    if not known:
        return "", np.nan
    rises = metric not in METRICS or METRICS[metric].higher_is_better
    name = (max if rises else min)(known, key=lambda key: known[key])
    return name, known[name]


def compare_methods(scores: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return `summarise` with the ceilings and floors of the table of conditions."""
    known: Any = {"ceilings": ceilings(), "floors": floors(), "draws": draws()}
    return summarise(scores, confidence=confidence, **known)


def floor_table(comparison: pd.DataFrame, category_floor: float) -> pd.DataFrame:
    """Return what each metric gives to reconstructions that know nothing.

    `comparison`: from `compare_methods`, whose rows over all subjects are read;
    `category_floor`: for two-way identification. Columns metric, floor (what it is),
    value, ci_low, ci_high, n_images, n_subjects.
    """
    pooled = comparison[comparison["subject"] == "all"]
    rows = []
    for metric, block in pooled.groupby("metric", sort=False):
        own = {row["method"]: row for row in block.to_dict("records")}
        if "stage1" in own:
            counts = {k: own["stage1"][k] for k in ("n_images", "n_subjects")}
            pairs = {"value": own["stage1"]["floor"], **counts}
            words = "stage 1 scored against other images"
            rows.append({"metric": metric, "floor": words, **pairs})
        for method, words in floors().items():
            numbers = {k: own[method][k] for k in _MEAN} if method in own else None
            if numbers:
                rows.append({"metric": metric, "floor": words, **numbers})
        if METRICS[str(metric)].rule.startswith("two_way"):
            words = "the right category and nothing else (expectation)"
            rows.append({"metric": metric, "floor": words, "value": category_floor})
    table = pd.DataFrame(rows, columns=["metric", "floor", *_MEAN])
    return table.astype({"n_images": "Int64", "n_subjects": "Int64"})


# --- paired differences -------------------------------------------------------------


def contrast_table(
    scores: pd.DataFrame,
    pairs: Iterable[Pair] = CONTRASTS,
    *,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return a method minus a reference on the same images, by subject and over all.

    `scores`: columns subject, method, nsd_id, metric, value; `pairs`: method and
    reference, those of which one was not run are left out. No pair was run, or the two
    methods of one share no image: DataError. Columns subject (or "all", over the images
    that every subject has), method, reference, metric and those of `ESTIMATE`, one row
    for each metric in which the two share an image.
    """
    rows: list[tuple[object, ...]] = []
    made = Matrices(scores)
    there = {method for method, _ in made.pairs}
    for pair in pairs:
        if not there.issuperset(pair):
            continue
        n_before = len(rows)
        for metric in (m for method, m in made.pairs if method == pair[0]):
            apart = made.of(pair[0], metric) - made.of(pair[1], metric)
            if np.isnan(apart).all():
                continue
            for subject, mean, _ in made.estimates(apart, confidence):
                rows.append((subject, *pair, metric, *astuple(mean)))
        if len(rows) == n_before:
            raise DataError(
                f"{pair[0]} and {pair[1]} share no image: run the notebooks that make"
                " them for the same images."
            )
    if not rows:
        raise DataError("No two methods were run that are to be compared.")
    return pd.DataFrame(
        rows, columns=["subject", "method", "reference", "metric", *ESTIMATE]
    )
