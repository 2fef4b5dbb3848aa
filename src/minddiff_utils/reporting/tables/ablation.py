"""Table T2: the factorial of c, z and Z_CLIP with its main effects, and the ladders.

Every row is over the same images.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd

from minddiff_utils.core.conditions import (
    NOISE_WEIGHTS,
    ceilings,
    factorial,
    iteration_name,
    k_name,
    layers_name,
)
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile import Profile
from minddiff_utils.evaluation.summaries import ESTIMATE, contrast_table, summarise
from minddiff_utils.reporting.figures.canvas import check_table
from minddiff_utils.reporting.tables import rows

__all__ = [
    "FEATURES",
    "ablation_table",
    "k_differences",
    "ladders",
    "main_effects",
    "quality_by_k",
]

#: The features that the factorial turns on and off, in the order of its flags.
FEATURES = ("c", "z", "Z_CLIP")
_EFFECT = "main effect"


def ladders(profile: Profile) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return what the profile's ablation varies beside the factorial.

    First "layers", "iterations" and "k" -> methods, from few to many; then methods that
    are another one by construction, for `with_aliases`: all blocks and the profile's
    own k are `stage2_guided`, and no iteration is stage 1.
    """
    varied, layers = profile.ablation, profile.features.clip_layers
    k = profile.decoding.k_percent  # None: another one for each layer
    blocks = sorted({*varied.layers, layers}, key=lambda b: (len(b), b))
    iterations = (0, *sorted(varied.iterations))
    methods = {
        "layers": tuple(map(layers_name, blocks)),
        "iterations": (*map(iteration_name, iterations), "stage2"),
        "k": tuple(map(k_name, sorted({*varied.k_grid, *([] if k is None else [k])}))),
    }
    same_as = {iteration_name(0): "stage1"}
    if layers not in varied.layers:
        same_as[layers_name(layers)] = "stage2_guided"
    if k is not None and k not in varied.k_grid:
        same_as[k_name(k)] = "stage2_guided"
    return methods, same_as


def main_effects(scores: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return what each feature adds, averaged over the presence of the two others.

    Per image: the mean score of the four cells of the factorial with the feature, minus
    that of the four without it. `scores`: columns `rows.SCORES`, with all eight cells;
    DataError as in `shared_images`. Columns subject (or "all"), method (the feature),
    metric and those of `summaries.ESTIMATE`.
    """
    kept, tables = rows.shared_images(scores, factorial()), []
    for k, feature in enumerate(FEATURES):
        half = {m: feature if f[k] else "without" for m, f in factorial().items()}
        halves = kept.assign(method=kept["method"].map(half))
        image = ["subject", "method", "nsd_id", "metric"]
        means = halves.groupby(image)["value"].mean().reset_index()
        pair = [(feature, "without")]
        tables.append(contrast_table(means, pair, confidence=confidence))
    return pd.concat(tables, ignore_index=True).drop(columns="reference")


def ablation_table(
    scores: pd.DataFrame,
    *,
    subjects: Sequence[int],
    settings: Mapping[str, str],
    ladders: Mapping[str, Sequence[str]],
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return table T2: the full factorial with its main effects, and the ladders.

    Every row is over the same images: those that all conditions have which were scored
    at all. `scores`: columns `rows.SCORES`, see `with_aliases` for conditions that are
    another one by construction; `subjects`: the profile's, one without scores is
    reported too; `settings`: metric -> its definition, these metrics are shown;
    `ladders`: what is varied beside the factorial -> methods, in order. A column, a
    metric or every condition is missing, or as `shared_images`: DataError.

    Columns group ("factorial", "main effect" or a key of `ladders`), c, z, Z_CLIP (1 or
    0 in the factorial), those of `comparison_table` and `summaries.ESTIMATE`. In main
    effects `method` is the feature.
    """
    check_table(scores, rows.SCORES, "The table of scores")
    rows.check_metrics(scores, settings)
    scores = scores[scores["metric"].isin(settings)]
    groups = {"factorial": tuple(factorial()), **ladders}
    names = [m for methods in groups.values() for m in methods]
    scored = [m for m in dict.fromkeys(names) if (scores["method"] == m).any()]
    if not scored:
        raise DataError("No condition of the ablation was scored: run notebook 04.")
    kept = rows.shared_images(scores, scored)
    best_names = {ceilings()[m] for m in scored if m in ceilings()} - {*scored}
    best = scores[scores["method"].isin(best_names)]
    both = pd.concat([kept, best.astype({"subject": str})], ignore_index=True)
    summary = summarise(both, confidence=confidence, ceilings=ceilings())
    who = [*map(str, subjects), "all"]
    absent = {*factorial()} - {*scored}
    effects = summary[:0] if absent else main_effects(kept, confidence=confidence)
    reason = f"a main effect needs all cells, {', '.join(sorted(absent))}"
    why = dict.fromkeys(FEATURES, reason)
    tables = {}
    for group, methods in groups.items():
        tables[group] = rows.complete(summary, who, methods, settings, {})
        if group == "factorial":
            tables[_EFFECT] = rows.complete(effects, who, FEATURES, settings, why)
    table = pd.concat(tables, names=["group"])
    table = table.reset_index("group").reset_index(drop=True)
    in_cell = table["group"] == "factorial"
    for k, feature in enumerate(FEATURES):
        flags = {method: int(flags[k]) for method, flags in factorial().items()}
        table[feature] = table["method"].map(flags).where(in_cell).astype("Int64")
    more = [name for name in ESTIMATE if name not in rows.SUMMARY]
    columns = ["group", *FEATURES, *rows.SUMMARY, *more, "status", "settings"]
    return table.reindex(columns=columns)


def quality_by_k(
    scores: pd.DataFrame, *, settings: Mapping[str, str], confidence: float = 0.95
) -> pd.DataFrame:
    """Return the final quality at each k of the ablation, on the same images.

    Columns k_percent, those of `summaries.summarise`, and settings; arguments as for
    `ablation_table`. No k was scored, a metric is missing, or as `shared_images`:
    DataError.
    """
    rows.check_metrics(scores, settings)
    scores = scores[scores["metric"].isin(settings)]
    k_of = _k_of(scores)
    kept = rows.shared_images(scores, k_of)
    table = summarise(kept, confidence=confidence, ceilings=ceilings())
    table.insert(0, "k_percent", table["method"].map(k_of))
    table = table.sort_values(["k_percent", "metric"], kind="stable")
    return table.assign(settings=table["metric"].map(settings)).reset_index(drop=True)


def k_differences(scores: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return how the final quality at each k differs from that at the largest one.

    Columns features, k_percent and those of `summaries.contrast_table`: "decoded" or
    "true" Z_CLIP at each k, each ladder on the same images; "weighted": all decoded
    features, weighted by the decoder's errors, without a k, minus the largest k of the
    decoded ones. What was not scored is left out, and with a single k there is no row;
    no k was scored as decoded, or they share no image: DataError.
    """
    decoded, true = _k_of(scores, "decoded"), _k_of(scores, "true")
    weighted = [NOISE_WEIGHTS] if (scores["method"] == NOISE_WEIGHTS).any() else []
    ladders = {
        "decoded": ([*decoded], decoded),
        "true": ([*true], true),
        "weighted": (weighted, decoded),
    }
    tables = []
    for features, (methods, k_of) in ladders.items():
        last = [*k_of][-1] if methods else ""
        pairs = [(method, last) for method in methods if method != last]
        if pairs:
            kept = rows.shared_images(scores, {*methods, last})
            table = contrast_table(kept, pairs, confidence=confidence)
            table.insert(0, "k_percent", table["method"].map(k_of))
            table.insert(0, "features", features)
            tables.append(table)
    if not tables:
        about = ["features", "k_percent", "subject", "method", "reference", "metric"]
        return pd.DataFrame(columns=[*about, *ESTIMATE])
    return pd.concat(tables, ignore_index=True)


def _k_of(
    scores: pd.DataFrame, clip: Literal["decoded", "true"] = "decoded"
) -> dict[str, float]:
    """Return the methods of a ladder of k, each with its k, the lowest first."""
    prefix = k_name(0, clip).removesuffix("0")
    k_of = {
        method: float(method.removeprefix(prefix))
        for method in dict.fromkeys(map(str, scores["method"]))
        if method.startswith(prefix)
    }
    if not k_of and clip == "decoded":
        raise DataError(
            f"The scores hold no method {prefix}…: run the ablation of k (profile's "
            "ablation.k_grid)."
        )
    return dict(sorted(k_of.items(), key=lambda method: method[1]))
