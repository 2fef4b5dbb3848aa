"""Evidence in which a claim's null is true, or its effect planted, by construction.

Made from the run's own tables, so that a rule meets the numbers of images, subjects and
areas that it meets in earnest. Scores are exchanged image by image, in all subjects and
metrics alike: the image is the unit, and what depends on it stays together.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from minddiff_utils.core.areas import HVC
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.resampling import Resampling
from minddiff_utils.evaluation.claims.decoding_rules import K_PAPER, lowest_layer
from minddiff_utils.evaluation.claims.evidence import Evidence, Maker, Pair
from minddiff_utils.evaluation.summaries import paired_table, summarise

__all__ = [
    "at_floor",
    "exchanged",
    "floor_effect",
    "gain_effect",
    "number_effect",
    "pair_effect",
    "pair_null",
    "plant_decoding",
    "plant_k",
    "plant_weights",
    "shuffle_areas",
    "shuffle_decoding",
    "shuffle_k",
]

Pairs = Callable[[Evidence], Sequence[Pair]]

#: Draws of each interval: fewer than in earnest, since every claim needs twenty nulls.
N_BOOTSTRAP = 200
#: A planted effect, in standard deviations of the metric over images and methods.
EFFECT_SD = 4.0
_STAGE2 = "stage2"


def _resampling(rng: np.random.Generator) -> Resampling:
    # no rule reads a permutation p
    return Resampling(lambda *_: rng, n_bootstrap=N_BOOTSTRAP, n_permutations=1)


# --- scores, image by image ---------------------------------------------------------


def exchanged(
    scores: pd.DataFrame, methods: Sequence[str], rng: np.random.Generator
) -> pd.DataFrame:
    """Return the scores with the names of `methods` exchanged at random, per image.

    An image keeps one order of names in all subjects and metrics. Images that not all
    methods have are left out.

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value.
    methods : sequence of str
        At least two methods of the scores.
    rng : numpy Generator

    Returns
    -------
    DataFrame
        The same columns.

    Raises
    ------
    DataError
        A method has no scores, or the methods share no image.
    """
    own = scores[scores["method"].isin(methods)]
    absent = sorted(set(methods) - set(own["method"]))
    if absent:
        raise DataError(
            f"The scores lack {', '.join(absent)}, which the contrasts have: run "
            "notebook 05 again to make both from the same images."
        )
    keys = ["subject", "metric", "nsd_id"]
    wide = own.pivot(index=keys, columns="method", values="value").dropna()
    if wide.empty:
        raise DataError(
            f"{', '.join(methods)} share no image, so that none can be exchanged: make "
            "them for the same images."
        )
    images, row = np.unique(wide.index.get_level_values("nsd_id"), return_inverse=True)
    order = np.tile(np.arange(len(methods)), (len(images), 1))
    order = rng.permuted(order, axis=1)[row]  # (n_rows, n_methods)
    values = np.take_along_axis(wide[list(methods)].to_numpy(), order, axis=1)
    where = wide.index.to_frame(index=False)
    parts = [
        where.assign(method=method, value=values[:, column])
        for column, method in enumerate(methods)
    ]
    return pd.concat(parts, ignore_index=True)


def _compared(
    evidence: Evidence,
    scores: pd.DataFrame,
    pairs: Sequence[Pair],
    rng: np.random.Generator,
) -> Evidence:
    """Return the evidence with the contrasts of these pairs, made from these scores."""
    metrics: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        metrics.setdefault((pair.method, pair.reference), []).append(pair.metric)
    tables = [
        paired_table(
            scores[scores["metric"].isin(names)], *methods, resampling=_resampling(rng)
        )
        for methods, names in metrics.items()
    ]
    contrasts = pd.concat(tables, ignore_index=True)
    return evidence.with_tables(paired=pd.DataFrame(), contrasts=contrasts)


def _exchanging(pairs_of: Pairs, effect_sd: float) -> Maker:
    def make(evidence: Evidence, rng: np.random.Generator) -> Evidence:
        pairs = pairs_of(evidence)
        methods = list(dict.fromkeys(m for pair in pairs for m in pair[:2]))
        scores = evidence.table("scores")
        measured = scores["metric"].isin({pair.metric for pair in pairs})
        scores = exchanged(scores[measured], methods, rng)
        spread = scores.groupby("metric")["value"].std()
        signs = {(p.method, p.metric): p.sign for p in pairs} if effect_sd else {}
        for (method, metric), sign in signs.items():
            row = (scores["method"] == method) & (scores["metric"] == metric)
            scores.loc[row, "value"] += sign * effect_sd * float(spread[metric])
        return _compared(evidence, scores, pairs, rng)

    return make


def pair_null(pairs_of: Pairs) -> Maker:
    """Return a maker: the compared methods are exchanged at random, image by image."""
    return _exchanging(pairs_of, 0.0)


def pair_effect(pairs_of: Pairs) -> Maker:
    """Return a maker: exchanged as in the null, then each first method is raised.

    By four standard deviations of the metric; lowered where the pair's sign is -1.
    """
    return _exchanging(pairs_of, EFFECT_SD)


def gain_effect(pairs_of: Pairs) -> Maker:
    """Return a maker: as `pair_effect`, and references have a lead to keep."""
    raised = pair_effect(pairs_of)

    def make(evidence: Evidence, rng: np.random.Generator) -> Evidence:
        levels = evidence.table("comparison")
        floor = np.minimum(levels["floor"], levels["value"] - 0.1)
        made = raised(evidence, rng)
        return made.with_tables(comparison=levels.assign(floor=floor))

    return make


# --- scores beside their floor --------------------------------------------------------


def _beside_floor(
    evidence: Evidence, metrics: Sequence[str], rng: np.random.Generator
) -> pd.DataFrame:
    """Return stage 2's scores moved to their floor, with their own scatter."""
    scores = evidence.table("scores")
    used = (scores["method"] == _STAGE2) & scores["metric"].isin(metrics)
    own = scores[used].copy()
    lead = own["value"] - own["floor"]
    lead -= lead.groupby([own["subject"], own["metric"]]).transform("mean")
    images, row = np.unique(own["nsd_id"], return_inverse=True)
    signs = rng.integers(0, 2, size=len(images)) * 2 - 1
    own["value"] = own["floor"] + signs[row] * lead
    return own


def _lifted(
    metrics: Sequence[str], lift: Callable[[pd.DataFrame], pd.Series | float]
) -> Maker:
    def make(evidence: Evidence, rng: np.random.Generator) -> Evidence:
        own = _beside_floor(evidence, metrics, rng)
        own["value"] += lift(own)
        levels = summarise(own, resampling=_resampling(rng), ceilings={})
        return evidence.with_tables(comparison=levels)

    return make


def at_floor(*metrics: str) -> Maker:
    """Return a maker: stage 2 scores what it scores against other images.

    Each image keeps its distance from the mean lead over the floor, its sign is random.
    """
    return _lifted(metrics, lambda _: 0.0)


def floor_effect(*metrics: str) -> Maker:
    """Return a maker: as `at_floor`, then four standard deviations higher."""
    return _lifted(
        metrics,
        lambda own: EFFECT_SD * own.groupby("metric")["value"].transform("std"),
    )


def number_effect(metric: str, paper_value: float) -> Maker:
    """Return a maker: stage 2's scores moved, each subject's mean to a number."""
    return _lifted(
        [metric],
        lambda own: paper_value - own.groupby("subject")["value"].transform("mean"),
    )


# --- decoding -------------------------------------------------------------------------


def _reordered(k: pd.Series, rng: np.random.Generator) -> pd.Series:
    """Return k with its values exchanged for one another, one for one."""
    values = np.unique(k.to_numpy(dtype=np.float64))
    new = dict(zip(values.tolist(), rng.permutation(values).tolist(), strict=True))
    return k.astype(float).map(new)


def shuffle_k(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Return the curves with k in random order, one order for a subject's layers."""
    table = evidence.table("k_selection").astype({"k_percent": float})
    for _, own in table.groupby(table["subject"].astype(str)):
        table.loc[own.index, "k_percent"] = _reordered(own["k_percent"], rng)
    tables = {"k_selection": table}
    quality = evidence.table("k_quality")
    if not quality.empty:
        named = _reordered(quality["k_percent"], rng)
        tables["k_quality"] = quality.assign(k_percent=named)
    return evidence.with_tables(**tables)


def plant_k(evidence: Evidence, _rng: np.random.Generator) -> Evidence:
    """Return the curves sorted: accuracy falls, information rises, 25 % is best."""
    table = evidence.table("k_selection").sort_values(["subject", "layer", "k_percent"])
    for _, own in table.groupby(["subject", "layer"]):
        falling = np.sort(own["r_selected_mean"])[::-1]
        table.loc[own.index, "r_selected_mean"] = falling - 1e-6 * np.arange(len(own))
        rising = np.sort(own["variance_kept"])
        table.loc[own.index, "variance_kept"] = rising + 1e-6 * np.arange(len(own))
    tables = {"k_selection": table}
    quality = evidence.table("k_quality")
    if not quality.empty:
        width = (quality["ci_high"] - quality["ci_low"]).max()
        best = np.isclose(quality["k_percent"], K_PAPER)
        lost = np.where(best, 0.0, 2.0 * width + 0.1)
        value = quality["value"].mean() - lost
        ends = {"ci_low": value - width / 2, "ci_high": value + width / 2}
        tables["k_quality"] = quality.assign(value=value, **ends)
    return evidence.with_tables(**tables)


def shuffle_areas(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Return the weights with the areas' names permuted, the same way everywhere."""
    table = evidence.table("weights")
    areas = list(dict.fromkeys(table["area"]))
    new = dict(zip(areas, rng.permutation(areas).tolist(), strict=True))
    return evidence.with_tables(weights=table.assign(area=table["area"].map(new)))


def plant_weights(evidence: Evidence, _rng: np.random.Generator) -> Evidence:
    """Return weights of 2 where a feature is said to lean, of 1 elsewhere."""
    table = evidence.table("weights")
    leans_low = table["feature"].isin(["z", lowest_layer(table)])
    weight = np.where(table["area"].isin(HVC) ^ leans_low, 2.0, 1.0)
    return evidence.with_tables(weights=table.assign(weight=weight))


def shuffle_decoding(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Return accuracies at their null and the quality of subjects in random order."""
    accuracy = evidence.table("accuracy")
    p = rng.uniform(size=len(accuracy))
    scatter = (0.5 - p) * (accuracy["r_null_high"] - accuracy["r_null_mean"])
    null = accuracy.assign(r_mean=accuracy["r_null_mean"] + scatter, p_permutation=p)
    comparison = evidence.table("comparison").copy()
    own = comparison["subject"].astype(str) != "all"
    subjects = list(dict.fromkeys(comparison.loc[own, "subject"]))
    new = dict(zip(subjects, rng.permutation(subjects).tolist(), strict=True))
    comparison.loc[own, "subject"] = comparison.loc[own, "subject"].map(new)
    return evidence.with_tables(accuracy=null, comparison=comparison)


def plant_decoding(evidence: Evidence, _rng: np.random.Generator) -> Evidence:
    """Return accuracies above their null that rank subjects as quality does."""
    accuracy, comparison = evidence.table("accuracy"), evidence.table("comparison")
    judged = (comparison["method"] == _STAGE2) & (comparison["metric"] == "clip_judge")
    own = comparison[judged & (comparison["subject"].astype(str) != "all")]
    rank = own["value"].rank(method="first").set_axis(own["subject"].astype(str))
    lead = 0.1 * accuracy["subject"].astype(str).map(rank)
    r = accuracy["r_null_mean"] + lead
    planted = accuracy.assign(r_mean=r, p_permutation=0.001)
    return evidence.with_tables(accuracy=planted)
