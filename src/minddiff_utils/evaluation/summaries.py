"""Tables of means with intervals, and of paired differences.

Pure functions of a table of scores, one row per image. Intervals are those of
`core.inference`: these subjects, new images; rows of differences also give the one for
new subjects. Not here: what a score is (`metrics`), what it means (`claims`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple

import numpy as np
import pandas as pd

from minddiff_utils.core.conditions import ceilings, draws, floors
from minddiff_utils.core.contrasts import CONTRASTS, Pair
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.inference import Estimate, estimate
from minddiff_utils.evaluation.metrics import METRICS

__all__ = [
    "ESTIMATE",
    "compare_methods",
    "contrast",
    "contrast_rows",
    "contrast_table",
    "matrix",
    "summarise",
]

#: Columns of an `Estimate` in every table, in its order.
ESTIMATE = (
    *("value", "ci_low", "ci_high", "smallest_effect"),
    *("n_images", "n_subjects", "n_subjects_positive"),
    *("subjects_low", "subjects_high"),
)
_MEAN = ["value", "ci_low", "ci_high", "n_images", "n_subjects"]


def matrix(scores: pd.DataFrame, method: str, metric: str) -> pd.DataFrame:
    """Return a method's scores as subjects x images; NaN where one is missing.

    Raises
    ------
    DataError
        An image is scored twice for one subject.
    """
    rows = scores[(scores["method"] == method) & (scores["metric"] == metric)]
    if rows.duplicated(["subject", "nsd_id"]).any():
        raise DataError(
            "An image is scored twice for one subject, method and metric: pass each"
            " score once."
        )
    return rows.pivot(index="subject", columns="nsd_id", values="value")


def _shared(wide: pd.DataFrame) -> pd.DataFrame:
    """Return the images that every subject has, of subjects with any."""
    shared = wide.dropna(how="all").dropna(axis=1)
    if shared.empty:
        raise DataError(
            "No image is scored in every subject, so subjects cannot be averaged: "
            "reconstruct the same test images for all subjects."
        )
    return shared


def _estimates(
    wide: pd.DataFrame, confidence: float
) -> Iterator[tuple[str, Estimate, pd.DataFrame]]:
    """Yield each subject's estimate and values, then "all" on the shared images."""
    for subject in wide.index:
        own = wide.loc[[subject]].dropna(axis=1)
        if own.size:
            yield str(subject), estimate(own, confidence=confidence), own
    shared = _shared(wide)
    yield "all", estimate(shared, confidence=confidence), shared


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

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value, floor; one row per image.
    confidence : float
    ceilings : mapping of str to str
        Method -> the method whose score on the same images is its ceiling.
    floors : collection of str
        Methods that know nothing of the image.
    draws : sequence of str
        Methods that are the first of them again, from other noise.

    Returns
    -------
    DataFrame
        Columns subject (or "all"), method, metric, value, ci_low, ci_high, n_images,
        n_subjects, floor (the row's images scored against other seen images), chance
        (the highest of that and of the methods `floors` on the same images; of a
        distance the lowest), chance_method (whose it is, "" for shuffled pairs),
        ceiling and sd_draw: of an image's score over `draws`, the root of the mean
        variance. A ceiling is NaN where it was not made for all images of the row,
        sd_draw in the rows of other methods than the draws.
    """
    rows: list[tuple[object, ...]] = []
    blocks = dict(iter(scores.groupby(["method", "metric"], sort=False)))
    known: dict[tuple[str, str], pd.DataFrame] = {}

    def of(name: str, metric: str) -> pd.DataFrame:
        """Return `matrix`, each once: a chance level is read for every method."""
        if (key := (name, metric)) not in known:
            known[key] = matrix(blocks.get(key, scores.iloc[:0]), name, metric)
        return known[key]

    for method, metric in scores[["method", "metric"]].drop_duplicates().to_numpy():
        wide, block = of(method, metric), blocks[method, metric]
        # the same rows, scored against other seen images
        paired = matrix(block.assign(value=block["floor"]), method, metric)
        others = {name: of(name, metric) for name in floors}
        top = of(ceilings.get(method, ""), metric)
        again = [of(d, metric) for d in draws if method in draws]
        for subject, mean, used in _estimates(wide, confidence):
            floor = _mean_on(used, paired)
            knowing = {"": floor}
            knowing |= {name: _mean_on(used, one) for name, one in others.items()}
            name, chance = _highest(knowing, metric)
            numbers = mean.value, mean.low, mean.high, mean.n_images, mean.n_subjects
            ends = floor, chance, name, _mean_on(used, top), _spread(used, again)
            rows.append((subject, method, metric, *numbers, *ends))
    levels = ["floor", "chance", "chance_method", "ceiling", "sd_draw"]
    columns = ["subject", "method", "metric", *_MEAN, *levels]
    return pd.DataFrame(rows, columns=columns)


def _mean_on(used: pd.DataFrame, other: pd.DataFrame) -> float:
    """Return the mean of `other` on the subjects and images of `used`, or NaN."""
    same = other.reindex(index=used.index, columns=used.columns)
    return float(same.to_numpy(np.float64).mean())  # NaN where one is missing


def _spread(used: pd.DataFrame, again: Sequence[pd.DataFrame]) -> float:
    """Return the SD of an image's score over draws; NaN without two of them."""
    if len(again) < 2:
        return np.nan
    same = [m.reindex(index=used.index, columns=used.columns) for m in again]
    return float(np.sqrt(np.var(np.stack(same), axis=0, ddof=1).mean()))


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
    return summarise(
        scores,
        confidence=confidence,
        ceilings=ceilings(),
        floors=floors(),
        draws=draws(),
    )


# --- paired differences -------------------------------------------------------------


def contrast(
    scores: pd.DataFrame, method: str, reference: str, metric: str
) -> pd.DataFrame:
    """Return `method` minus `reference`, subjects x images that both have.

    NaN where a subject lacks an image; empty where they share none.

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value.
    """
    wide = matrix(scores, method, metric) - matrix(scores, reference, metric)
    return wide.dropna(how="all").dropna(axis=1, how="all")


def contrast_rows(
    scores: pd.DataFrame, method: str, reference: str, *, confidence: float = 0.95
) -> pd.DataFrame:
    """Return `method` minus `reference` on the same images, by subject and over all.

    Returns
    -------
    DataFrame
        Columns subject (or "all"), method, reference, metric and those of `ESTIMATE`.
        Rows "all" are over the images that every subject has.

    Raises
    ------
    DataError
        The two methods share no image.
    """
    rows = []
    for metric in dict.fromkeys(scores.loc[scores["method"] == method, "metric"]):
        wide = contrast(scores, method, reference, metric)
        if wide.empty:
            continue
        for subject, result, _ in _estimates(wide, confidence):
            rows.append((subject, method, reference, metric, *astuple(result)))
    if not rows:
        raise DataError(
            f"{method} and {reference} share no image: run the notebooks that make "
            "them for the same images."
        )
    return pd.DataFrame(
        rows, columns=["subject", "method", "reference", "metric", *ESTIMATE]
    )


def contrast_table(
    scores: pd.DataFrame,
    pairs: Iterable[Pair] = CONTRASTS,
    *,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return `contrast_rows` of each pair whose methods were both run."""
    there = set(scores["method"])
    tables = [
        contrast_rows(scores, *pair, confidence=confidence)
        for pair in pairs
        if there.issuperset(pair)
    ]
    if not tables:
        raise DataError("No two methods were run that are to be compared.")
    return pd.concat(tables, ignore_index=True)
