"""Intervals, permutation tests and the tables built from them.

Everything random takes a generator or a named stream; nothing here knows what a score
means. Place in the flow: layer 7; notebooks 02 and 05 call it.
"""

import itertools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import ConfigError, DataError, check_finite, check_shape

__all__ = [
    "Interval",
    "Resampling",
    "bootstrap_interval",
    "crossed_bootstrap_interval",
    "exact_sign_flip_test",
    "holm",
    "non_inferiority",
    "paired_permutation_test",
    "paired_table",
    "permutation_p",
    "summarise",
]

Floats = npt.NDArray[np.float64]
Stream = Callable[..., np.random.Generator]

#: Above this many units all sign flips are not enumerated.
_MAX_EXACT_UNITS = 16


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval and the number of units behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Resampling:
    """How many draws, at which confidence, from which named streams."""

    stream: Stream
    n_bootstrap: int = 2000
    n_permutations: int = 2000
    confidence: float = 0.95


def _check_sample(values: npt.ArrayLike, name: str) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise DataError(f"{name} is empty: evaluate at least one image.")
    check_finite(bool(np.isfinite(sample).all()), name)
    return sample


def _percentiles(draws: Floats, confidence: float) -> tuple[float, float]:
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence is {confidence}, but must lie between 0 and 1.")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)


def bootstrap_interval(
    values: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of `values` with a percentile bootstrap interval over images.

    With about ten images a percentile interval is somewhat too narrow (by about a
    tenth); read borderline cases accordingly.

    Parameters
    ----------
    values : float (n_images,)
        One score per image; the image is the unit that is resampled.
    rng : numpy Generator
        Source of the draws.
    n_bootstrap : int
        Number of draws.
    confidence : float
        Nominal coverage.

    Returns
    -------
    Interval
        With one image, low and high are NaN.

    Raises
    ------
    DataError
        No values, or values that are not finite.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    sample = _check_sample(values, "The scores")
    check_shape(sample.shape, (None,), "The scores")
    if len(sample) == 1:
        return Interval(float(sample[0]), float("nan"), float("nan"), 1)
    rows = rng.integers(0, len(sample), size=(n_bootstrap, len(sample)))
    low, high = _percentiles(sample[rows].mean(axis=1), confidence)
    return Interval(float(sample.mean()), low, high, len(sample))


def crossed_bootstrap_interval(
    values: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of subject means, resampling subjects and images together.

    All subjects see the same images, so neither is nested in the other: each draw
    takes subjects with replacement and, independently, images with replacement. With
    one subject this is the bootstrap over images. Conservative where subjects hardly
    differ. With four subjects that differ as much as images do, a nominal 0.95 covers
    about 0.83 (simulated, four subjects and 60 images): read it beside the number of
    subjects that share the sign.

    Parameters
    ----------
    values : float (n_subjects, n_images)
        Scores, one row per subject, one column per image.
    rng, n_bootstrap, confidence
        As for `bootstrap_interval`.

    Returns
    -------
    Interval
        `n` counts subjects.

    References
    ----------
    Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1(2).
    """
    sample = _check_sample(values, "The scores")
    check_shape(sample.shape, (None, None), "The scores")
    n_subjects, n_images = sample.shape
    if sample.size == 1:
        return Interval(float(sample[0, 0]), float("nan"), float("nan"), 1)
    who = rng.integers(0, n_subjects, size=(n_bootstrap, n_subjects, 1))
    what = rng.integers(0, n_images, size=(n_bootstrap, 1, n_images))
    low, high = _percentiles(_crossed_means(sample, who, what), confidence)
    return Interval(float(sample.mean()), low, high, n_subjects)


def _crossed_means(
    sample: Floats, who: npt.NDArray[np.int64], what: npt.NDArray[np.int64]
) -> Floats:
    """Return the mean of each draw; counts instead of copies keep memory small."""
    n_draws, (n_subjects, n_images) = len(who), sample.shape
    weight_who = np.zeros((n_draws, n_subjects))
    weight_what = np.zeros((n_draws, n_images))
    draw = np.arange(n_draws)[:, None]
    np.add.at(weight_who, (draw, who[:, :, 0]), 1.0 / n_subjects)
    np.add.at(weight_what, (draw, what[:, 0, :]), 1.0 / n_images)
    return np.asarray(((weight_who @ sample) * weight_what).sum(axis=1))


def permutation_p(observed: float, null: npt.ArrayLike) -> float:
    """Return ``(1 + #{null >= observed}) / (1 + N)``, never 0.

    Parameters
    ----------
    observed : float
        Statistic of the data; larger means more evidence.
    null : float (n_permutations,)
        The statistic under permutations.

    Returns
    -------
    float
        In (0, 1].

    References
    ----------
    Phipson and Smyth (2010), Permutation p-values should never be zero.

    Examples
    --------
    >>> permutation_p(2.0, [0.0, 1.0, 3.0])
    0.5
    """
    draws = _check_sample(null, "The null distribution")
    check_finite(bool(np.isfinite(observed)), "The observed statistic")
    slack = 1e-12 * max(1.0, abs(observed))  # a tie that rounding broke is still a tie
    return float((1 + np.count_nonzero(draws >= observed - slack)) / (1 + draws.size))


def paired_permutation_test(
    differences: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    n_permutations: int = 2000,
) -> float:
    """Return the two-sided p of a mean difference of 0, by random sign flips.

    Parameters
    ----------
    differences : float (n,)
        One difference per unit.
    rng : numpy Generator
        Source of the flips.
    n_permutations : int
        Number of flips drawn; p is at least 1 / (1 + n_permutations).

    Returns
    -------
    float
        In (0, 1].
    """
    sample = _check_sample(differences, "The differences")
    check_shape(sample.shape, (None,), "The differences")
    signs = rng.integers(0, 2, size=(n_permutations, len(sample))) * 2.0 - 1.0
    return permutation_p(abs(sample.mean()), np.abs(signs @ sample) / len(sample))


def exact_sign_flip_test(differences: npt.ArrayLike) -> float:
    """Return the two-sided p of a mean difference of 0 over all sign flips.

    For few units, such as subjects: with four the smallest p is 2/16, so that four
    subjects alone can never reach 0.05.

    Parameters
    ----------
    differences : float (n,)
        One difference per unit, at most 16 units.

    Returns
    -------
    float
        Share of the 2^n flips at least as far from 0, in (0, 1].

    Examples
    --------
    >>> exact_sign_flip_test([1.0, 2.0, 1.0, 3.0])
    0.125
    """
    sample = _check_sample(differences, "The differences")
    check_shape(sample.shape, (None,), "The differences")
    if len(sample) > _MAX_EXACT_UNITS:
        raise DataError(
            f"{len(sample)} units have too many sign flips to list, at most "
            f"{_MAX_EXACT_UNITS}: use paired_permutation_test."
        )
    flips = np.array(list(itertools.product((1.0, -1.0), repeat=len(sample))))
    null = np.abs(flips @ sample) / len(sample)
    observed = abs(sample.mean())
    slack = 1e-12 * max(1.0, observed)
    return float(np.mean(null >= observed - slack))


# --- tables -----------------------------------------------------------------------


def _matrix(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return subjects x images, with the images that every subject has."""
    if scores.duplicated(["subject", "nsd_id"]).any():
        raise DataError(
            "An image is scored twice for one subject, method and metric: pass each"
            " score once."
        )
    wide = scores.pivot(index="subject", columns="nsd_id", values=column)
    shared = wide.dropna(axis=1)
    if shared.empty:
        raise DataError(
            "No image is scored in every subject, so subjects cannot be pooled: "
            "reconstruct the same test images for all subjects."
        )
    return shared


def _pooled(wide: pd.DataFrame, resampling: Resampling, *names: str) -> Interval:
    return crossed_bootstrap_interval(
        wide.to_numpy(),
        rng=resampling.stream("bootstrap", "all", *names),
        n_bootstrap=resampling.n_bootstrap,
        confidence=resampling.confidence,
    )


def _single(values: Floats, resampling: Resampling, *names: str) -> Interval:
    return bootstrap_interval(
        values,
        rng=resampling.stream("bootstrap", *names),
        n_bootstrap=resampling.n_bootstrap,
        confidence=resampling.confidence,
    )


def summarise(
    scores: pd.DataFrame,
    *,
    resampling: Resampling,
    ceilings: Mapping[str, str],
) -> pd.DataFrame:
    """Return mean, interval, floor and ceiling of each method and metric.

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value, floor; one row per image.
    resampling : Resampling
        Draws, confidence and streams; each cell has a stream of its own, so that
        adding a method moves no other number.
    ceilings : mapping of str to str
        Method -> the method whose score is its ceiling (same subject). One that was run
        on the first images alone lends its lead over them (`_ceiling`).

    Returns
    -------
    DataFrame
        Columns subject (or "all"), method, metric, value, ci_low, ci_high, n, floor,
        ceiling. `n` counts images per subject, and subjects in the rows "all".
    """
    rows: list[tuple[object, ...]] = []
    for (method, metric), block in scores.groupby(["method", "metric"], sort=False):
        names = (str(method), str(metric))
        best = _ceiling_scores(scores, ceilings.get(names[0]), names[1])
        for subject, own in block.groupby("subject", sort=False):
            interval = _single(
                own["value"].to_numpy(), resampling, str(subject), *names
            )
            floor, top = own["floor"].mean(), _ceiling(best, own)
            rows.append((subject, *names, *_flat(interval), floor, top))
        wide = _matrix(block, "value")
        common = block[block["nsd_id"].isin(wide.columns)]
        floor, top = common["floor"].mean(), _ceiling(best, common)
        interval = _pooled(wide, resampling, *names)
        rows.append(("all", *names, *_flat(interval), floor, top))
    columns = ["subject", "method", "metric", "value", "ci_low", "ci_high", "n"]
    return pd.DataFrame(rows, columns=[*columns, "floor", "ceiling"])


def _flat(interval: Interval) -> tuple[float, float, float, int]:
    return interval.value, interval.low, interval.high, interval.n


def _ceiling_scores(
    scores: pd.DataFrame, method: str | None, metric: str
) -> pd.DataFrame:
    return scores[(scores["method"] == method) & (scores["metric"] == metric)]


def _ceiling(best: pd.DataFrame, own: pd.DataFrame) -> float:
    """Return the mean of `own` plus the mean lead of `best` on the images of both.

    Where `best` has all images of `own` that is the mean of `best`; where it has the
    first ones only, an easy or hard choice of images does not pass for a lead.
    """
    both = own.merge(best, on=["subject", "nsd_id"], suffixes=("", "_best"))
    if len(both) == len(own):
        return float(both["value_best"].mean())
    lead = (both["value_best"] - both["value"]).mean()  # NaN without an image of both
    return float(own["value"].mean() + lead)


def paired_table(
    scores: pd.DataFrame,
    method: str,
    reference: str,
    *,
    resampling: Resampling,
) -> pd.DataFrame:
    """Return `method` minus `reference` on the same images, with intervals and tests.

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value.
    method, reference : str
        The two methods; images that both have are compared.
    resampling : Resampling
        Draws, confidence and streams.

    Returns
    -------
    DataFrame
        Columns subject (or "all"), contrast, metric, value, ci_low, ci_high,
        p_permutation, n, n_subjects_positive, p_subjects. Rows of a subject: the image
        is the unit. Rows "all": the interval resamples subjects and images,
        p_permutation flips images averaged over subjects, and p_subjects flips the
        subjects' means (at least 2 / 2^n).

    Raises
    ------
    DataError
        The two methods share no image.
    """
    keys = ["subject", "nsd_id", "metric"]
    first = scores[scores["method"] == method]
    second = scores[scores["method"] == reference]
    both = first.merge(second, on=keys, suffixes=("", "_reference"))
    if both.empty:
        raise DataError(
            f"{method} and {reference} share no image: run the notebooks that make "
            "them for the same images."
        )
    both["value"] = both["value"] - both["value_reference"]
    contrast = f"{method} - {reference}"
    rows: list[tuple[object, ...]] = []
    for metric, block in both.groupby("metric", sort=False):
        names = (contrast, str(metric))
        for subject, own in block.groupby("subject", sort=False):
            rows.append(_paired_row(str(subject), names, own, resampling))
        rows.append(_pooled_row(names, _matrix(block, "value"), resampling))
    columns = ["subject", "contrast", "metric", "value", "ci_low", "ci_high"]
    more = ["p_permutation", "n", "n_subjects_positive", "p_subjects"]
    return pd.DataFrame(rows, columns=columns + more)


def _paired_row(
    subject: str, names: tuple[str, str], own: pd.DataFrame, resampling: Resampling
) -> tuple[object, ...]:
    values = own["value"].to_numpy()
    interval = _single(values, resampling, subject, *names)
    p = paired_permutation_test(
        values,
        rng=resampling.stream("flips", subject, *names),
        n_permutations=resampling.n_permutations,
    )
    bounds = (interval.value, interval.low, interval.high)
    return (subject, *names, *bounds, p, len(values), int(values.mean() > 0), np.nan)


def _pooled_row(
    names: tuple[str, str], wide: pd.DataFrame, resampling: Resampling
) -> tuple[object, ...]:
    interval = _pooled(wide, resampling, *names)
    means = wide.mean(axis=1).to_numpy()
    p = paired_permutation_test(
        wide.mean(axis=0).to_numpy(),
        rng=resampling.stream("flips", "all", *names),
        n_permutations=resampling.n_permutations,
    )
    bounds = (interval.value, interval.low, interval.high)
    positive, p_subjects = int((means > 0).sum()), exact_sign_flip_test(means)
    return ("all", *names, *bounds, p, len(means), positive, p_subjects)


# --- no worse -------------------------------------------------------------------------


def holm(p_values: npt.ArrayLike) -> Floats:
    """Return p values adjusted for the number of tests, in their order.

    The k-th smallest of m is multiplied by m - k + 1, then made to rise.

    Parameters
    ----------
    p_values : float (n_tests,)

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _check_sample(p_values, "The p values")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def non_inferiority(
    scores: pd.DataFrame,
    method: str,
    reference: str,
    margins: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
    *,
    resampling: Resampling,
) -> pd.DataFrame:
    """Return whether `method` is no worse than `reference` by more than a margin.

    A difference is counted so that above 0 means better. `low` is the lower end of a
    one-sided interval; p is that of a sign-flip test of the difference plus the margin,
    adjusted (Holm) over the endpoints of one subject. "no worse": p is at most one less
    the confidence and `low` above minus the margin; "worse": `high`, the upper end,
    is below 0 and `low` below minus the margin; else "not shown".

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value.
    method, reference : str
    margins : mapping of float
        By metric, in its units, at least 0; these metrics are the endpoints.
    higher_is_better : mapping of bool
        By metric.
    resampling : Resampling

    Returns
    -------
    DataFrame
        Columns subject (or "all"), method, reference, metric, value, low, high, margin,
        p_holm, verdict, n (images of a subject; subjects for "all").
    """
    known = scores[scores["metric"].isin(margins)]
    better = known["metric"].map(higher_is_better).map({True: 1.0, False: -1.0})
    signed = known.assign(value=known["value"] * better)
    # the 1 - 2 tail interval has the one-sided bound at its lower end
    one_sided = replace(resampling, confidence=2 * resampling.confidence - 1)
    table = paired_table(signed, method, reference, resampling=one_sided)
    margin = table["metric"].map(margins)
    table = table.assign(method=method, reference=reference, margin=margin)
    table["p"] = [
        _one_sided_p(signed, row, resampling) for row in table.to_dict("records")
    ]
    adjusted = table.groupby("subject", sort=False)["p"].transform(holm)
    names = {"ci_low": "low", "ci_high": "high"}
    table = table.assign(p_holm=adjusted).rename(columns=names)
    table["verdict"] = [_verdict(row, resampling) for row in table.to_dict("records")]
    columns = ["subject", "method", "reference", "metric", "value", "low", "high"]
    return table[[*columns, "margin", "p_holm", "verdict", "n"]]


def _one_sided_p(
    signed: pd.DataFrame, row: Mapping[Hashable, Any], resampling: Resampling
) -> float:
    """Return the p of a difference at or below minus the margin."""
    own = signed[signed["metric"] == row["metric"]]
    if row["subject"] != "all":
        own = own[own["subject"] == row["subject"]]
    wide = own.pivot(index=["subject", "nsd_id"], columns="method", values="value")
    pairs = (wide[row["method"]] - wide[row["reference"]]).dropna()
    per_image = pairs.groupby("nsd_id").mean().to_numpy() + row["margin"]
    names = (str(row["method"]), str(row["reference"]), str(row["metric"]))
    generator = resampling.stream("margin", str(row["subject"]), *names)
    draws = (resampling.n_permutations, len(per_image))
    signs = generator.integers(0, 2, size=draws) * 2.0 - 1.0
    return permutation_p(per_image.mean(), signs @ per_image / len(per_image))


def _verdict(row: Mapping[Hashable, Any], resampling: Resampling) -> str:
    if row["low"] > -row["margin"] and row["p_holm"] <= 1 - resampling.confidence:
        return "no worse"
    if row["high"] < 0 and row["low"] < -row["margin"]:
        return "worse"
    return "not shown"
