"""The rules of the claims on decoding: C8 to C10.

Each rule was fixed before the numbers and reads the tables of notebook 02, C8 and C10
also those of notebook 05. Tests are exact: over all orders of k, of subjects, and all
splits of the areas.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.areas import HVC, LVC
from minddiff_utils.core.rng import stream
from minddiff_utils.core.types import Floats
from minddiff_utils.evaluation.claims.evidence import (
    ALPHA,
    CANNOT,
    FAILS,
    HOLDS,
    SHORT,
    Evidence,
    Outcome,
    cannot,
    count_words,
    find,
    p_words,
    refused,
)

__all__ = [
    "K_PAPER",
    "all_areas",
    "decodable",
    "interpretable",
    "lowest_layer",
    "selection",
]


#: The paper's choice, in percent.
K_PAPER = 25.0
#: Up to this many items all orders are listed; above, this many orders are drawn.
_MAX_LISTED, _DRAWN = 8, 20_000
#: Fewer items have too few orders for any p to reach `ALPHA`.
_MIN_ITEMS = 4


# --- orders -----------------------------------------------------------------------


@lru_cache(maxsize=4)
def _orders(n: int) -> npt.NDArray[np.int64]:
    """Return orders of n items (n_orders, n): all of them, or many always the same."""
    if n <= _MAX_LISTED:
        return np.array(list(itertools.permutations(range(n))), dtype=np.int64)
    drawn = np.tile(np.arange(n), (_DRAWN, 1))
    drawn[1:] = stream(0, "claims", "orders").permuted(drawn[1:], axis=1)
    return drawn  # the first is the order as it is, so that no p is 0


def _unit_ranks(values: npt.ArrayLike) -> Floats:
    """Return ranks (n, n_curves), ties by their mean, centred and of length 1."""
    ranks = pd.DataFrame(np.asarray(values, dtype=np.float64)).rank().to_numpy()
    ranks = ranks - ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    return np.asarray(ranks / np.where(length > 0, length, 1.0))


def _rank_trend(x: Sequence[float], curves: npt.ArrayLike) -> tuple[Floats, float]:
    """Return Spearman's rho of each curve with x, and the p of their mean.

    One order of x is drawn for all curves, which may depend on one another; p is the
    share of orders whose mean rho is as high (one-sided). A curve that does not vary
    has rho 0.

    Parameters
    ----------
    x : float (n,)
    curves : float (n, n_curves)
    """
    a, b = _unit_ranks(np.asarray(x)[:, None])[:, 0], _unit_ranks(curves)
    mean = b.mean(axis=1)
    null = a[_orders(len(a))] @ mean
    return np.asarray(a @ b), float(np.mean(null >= a @ mean - 1e-12))


# --- C8: how many features to keep --------------------------------------------------


def selection(evidence: Evidence) -> Outcome:
    """Decide C8: as k grows accuracy falls and information rises, and k = 25 balances.

    The trend, in every subject: the mean rank correlation with k over layers, falling
    for the accuracy on test images and rising for the variance kept, both at p <= 0.05
    among all orders of k. The balance, where final quality was measured by k: in every
    metric quality at k = 25 lies within or above the interval of the best k, and in
    some metric another k lies below it; if every k were as good, 25 would balance
    nothing.
    """
    table = evidence.table("k_selection")
    if table.empty:
        return cannot("no k-selection table in this run")
    if table["k_percent"].nunique() < _MIN_ITEMS:
        return cannot(f"fewer than {_MIN_ITEMS} values of k show no trend")
    trends = _trends(table)
    if trends is None:
        return cannot("a subject has no curve with a number for every k")
    falls, rises, p, p_opposite = trends
    balanced, start, balance = _balance(evidence.table("k_quality"))
    words = (
        f"as k grows, accuracy falls in {int((falls > 0).sum())} of {len(falls)} curves"
        f" and information rises in {int((rises > 0).sum())} (orders of k, largest of "
        f"the subjects: {p_words(p)}); {balance}"
    )
    state = FAILS if p > ALPHA or balanced == FAILS else HOLDS
    if p > ALPHA:
        start = refused(shown=p_opposite <= ALPHA)
    value, n = float(-falls.mean()), len(falls)
    return Outcome(state, f"{start}{words}", value, n=n, floor=0.0, ceiling=-1.0)


def _trends(table: pd.DataFrame) -> tuple[Floats, Floats, float, float] | None:
    """Return rho by curve, fall and rise counted as positive, and the largest p.

    The last number is the largest p of the opposite trend.
    """
    columns = {"r_selected_mean": -1.0, "variance_kept": 1.0}
    rho: dict[str, list[Floats]] = {column: [] for column in columns}
    p, opposite = [], []
    for _, own in table.groupby(table["subject"].astype(str)):
        curves = own.pivot(index="k_percent", columns="layer", values=list(columns))
        whole = curves.notna().all().groupby(level="layer").all()
        if not whole.any():
            return None
        k = curves.index.to_list()
        for column, sign in columns.items():
            values = sign * curves[column].loc[:, whole].to_numpy()
            trend, p_trend = _rank_trend(k, values)
            rho[column].append(trend)
            p.append(p_trend)
            opposite.append(_rank_trend(k, -values)[1])
    falls, rises = (np.concatenate(curves) for curves in rho.values())
    return falls, rises, max(p), max(opposite)


def _balance(table: pd.DataFrame) -> tuple[str, str, str]:
    """Return state, first and last words: is k = 25 as good as the best k."""
    unknown = "that k = 25 is a good balance is not tested here"
    if table.empty:
        return CANNOT, "", unknown
    pooled = table[table["subject"].astype(str) == "all"]
    own = table if pooled.empty else pooled
    own = own[own["metric"].isin(SHORT) & own["ci_low"].notna()]
    worse, matters, best_k = [], False, []
    for (_, metric), block in own.groupby(["subject", "metric"], sort=False):
        chosen = block[np.isclose(block["k_percent"], K_PAPER)]
        if chosen.empty:
            return CANNOT, "", f"{unknown}: quality at k = 25 was not measured"
        best = block.iloc[int(block["value"].to_numpy().argmax())]
        matters |= bool((block["value"] < best["ci_low"]).any())
        best_k.append(f"{SHORT[str(metric)]} best at k = {best['k_percent']:g}")
        if float(chosen["value"].iloc[0]) < float(best["ci_low"]):
            worse.append(SHORT[str(metric)])
    if not best_k:
        return CANNOT, "", f"{unknown}: no final quality with an interval"
    best_words = ", ".join(dict.fromkeys(best_k))
    if worse:
        names = ", ".join(dict.fromkeys(worse))
        why = f"k = 25 lies below the interval of the best k in {names} ({best_words})"
        return FAILS, "the trend is seen, the balance is not: ", why
    if not matters:
        why = f"no k is certainly worse than another, 25 included ({best_words})"
        return FAILS, "not shown, the trend is seen, the balance is open: ", why
    return HOLDS, "", f"k = 25 lies within the interval of the best k ({best_words})"


# --- C9: where the weights are ------------------------------------------------------


def lowest_layer(table: pd.DataFrame) -> str | None:
    """Return the feature `clip/<layer>` of the lowest layer, if there is one."""
    layers = [str(f) for f in set(table["feature"]) if str(f).startswith("clip/")]
    return min(layers, key=lambda name: int(name.split("/")[1]), default=None)


def _log_ratios(table: pd.DataFrame, features: Sequence[str]) -> Floats:
    """Return log mean |w| of high over low areas (n_features, n_subjects, n_splits).

    Split 0 is the real one; the others put as many areas into each group in every other
    way. Means are over voxels. NaN or infinite where a group has no voxel or no weight.
    """
    own = table[table["area"].isin((*LVC, *HVC)) & table["feature"].isin(features)]
    keys = [own["feature"], own["subject"].astype(str), own["area"]]
    wide = [own.groupby(keys)[c].sum().unstack() for c in ("weight", "n_voxels")]
    weight, count = (
        part.fillna(0.0).reindex(list(features), level=0).to_numpy(np.float64)
        for part in wide
    )
    areas = list(wide[0].columns)
    real = tuple(k for k, area in enumerate(areas) if area in HVC)
    splits = list(itertools.combinations(range(len(areas)), len(real)))
    splits.sort(key=lambda split: split != real)  # the real one first
    high = np.array([np.isin(np.arange(len(areas)), split) for split in splits], float)
    total = weight * count
    with np.errstate(divide="ignore", invalid="ignore"):
        above = (total @ high.T) / (count @ high.T)
        under = (total @ (1 - high).T) / (count @ (1 - high).T)
        ratios = np.log(above / under)
    return np.reshape(ratios, (len(features), -1, len(splits)))


def interpretable(evidence: Evidence) -> Outcome:
    """Decide C9: c leans on high-level areas, z and the lowest CLIP layer on low ones.

    A feature leans by the mean |w| of a high-level voxel over that of a low-level one.
    In every subject it must be above 1 for c and below 1 for the others, and c must
    lean further from the others than under 95 % of all splits of the areas into groups
    of the same sizes: subjects have like maps, so that the area is the unit.
    """
    table = evidence.table("weights")
    low = None if table.empty else lowest_layer(table)
    if low is None:
        return cannot("no table of voxel weights of CLIP layers in this run")
    missing = cannot("weights of c, z or the lowest CLIP layer are missing")
    features = ("c", "z", low)
    subjects = [set(table.loc[table["feature"] == f, "subject"]) for f in features]
    if not subjects[0] or any(own != subjects[0] for own in subjects):
        return missing
    ratios = _log_ratios(table, features)
    real = ratios[..., 0]
    if not np.isfinite(real).all():
        return missing
    apart = (ratios[0] - (ratios[1] + ratios[2]) / 2).mean(axis=0)
    # a split without voxels in a group counts against the claim
    p = float(np.mean(~(apart < apart[0] - 1e-12)))
    opposite = float(np.mean(~(apart > apart[0] + 1e-12)))
    leans = (real[0] > 0) & (real[1] < 0) & (real[2] < 0)
    means = dict(zip(features, np.exp(real).mean(axis=1), strict=True))
    state = HOLDS if leans.all() and p <= ALPHA else FAILS
    start = "" if state == HOLDS else refused(shown=opposite <= ALPHA)
    words = (
        f"{start}weight of a high-level over a low-level voxel: "
        f"{', '.join(f'{f} {value:.2f}' for f, value in means.items())}; c above 1 and"
        f" the others below 1 in {int(leans.sum())} of"
        f" {count_words(len(leans), 'subject')}; c apart from the others among all"
        f" splits of the areas: {p_words(p)}"
    )
    return Outcome(state, words, float(means["c"]), n=len(leans), floor=1.0)


# --- C10: above chance, and quality follows -----------------------------------------


def all_areas(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Return the rows decoded from all areas together."""
    if accuracy.empty or "area_set" not in accuracy:
        return accuracy
    every = accuracy[accuracy["area_set"].astype(str).str.lower() == "all"]
    return accuracy if every.empty else every


def decodable(evidence: Evidence) -> Outcome:
    """Decide C10: every feature decodes above chance, and quality follows accuracy.

    Above chance: p <= 0.05 against permuted test images, for every feature and subject.
    Following: subjects rank in stage 2's judge CLIP as in accuracy, p <= 0.05 among all
    orders of at least four subjects.
    """
    accuracy = all_areas(evidence.table("accuracy"))
    if accuracy.empty:
        return cannot("no decoding accuracies in this run")
    passed = (accuracy["p_permutation"] <= ALPHA) & (
        accuracy["r_mean"] > accuracy["r_null_mean"]
    )
    first = (
        f"{int(passed.sum())} of {len(accuracy)} pairs of feature and subject decode "
        "above chance"
    )
    state, start, words = FAILS, refused(shown=False), first
    if passed.all():
        state, start, second = _quality_follows(accuracy, evidence.table("comparison"))
        words = f"{first}; {second}"
    return Outcome(
        state,
        f"{start}{words}",
        float(accuracy["r_mean"].mean()),
        n=int(accuracy["subject"].nunique()),
        floor=float(accuracy["r_null_mean"].mean()),
        ceiling=float(accuracy["r_ceiling"].mean()),
    )


def _quality_follows(
    accuracy: pd.DataFrame, comparison: pd.DataFrame
) -> tuple[str, str, str]:
    """Return state, first and last words: does quality rank subjects as accuracy does.

    A subject's accuracy is the mean over its features.
    """
    mean = accuracy.groupby(accuracy["subject"].astype(str))["r_mean"].mean()
    quality: dict[str, float] = {}
    for subject in mean.index:
        row = find(comparison, subject=subject, method="stage2", metric="clip_judge")
        if row is not None:
            quality[str(subject)] = float(row["value"])
    n = len(quality)
    if n < _MIN_ITEMS:
        few = (
            f"{count_words(n, 'scored subject')}, too few to show that quality follows"
        )
        return CANNOT, "", few
    x, y = [float(mean[s]) for s in quality], np.array([list(quality.values())]).T
    rho, p = _rank_trend(x, y)
    words = (
        f"rank correlation with judge CLIP over {n} subjects {rho[0]:+.2f} "
        f"({p_words(p)})"
    )
    if p <= ALPHA:
        return HOLDS, "", words
    return FAILS, refused(shown=_rank_trend(x, -y)[1] <= ALPHA), words
