"""Table T2: the factorial of c, z and Z_CLIP with its main effects, and the ladders.

Every row is over the same images.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from minddiff_utils.core.conditions import (
    ceilings,
    factorial,
    iteration_name,
    k_name,
    layers_name,
)
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.resampling import Resampling, holm
from minddiff_utils.evaluation.summaries import paired_table, summarise
from minddiff_utils.reporting.figures.canvas import check_table
from minddiff_utils.reporting.tables.rows import (
    SCORES,
    SUMMARY,
    check_metrics,
    complete,
    shared_images,
    summary_rows,
)

__all__ = ["FEATURES", "ablation_table", "ladders", "main_effects", "quality_by_k"]

#: The features that the factorial turns on and off, in the order of its flags.
FEATURES = ("c", "z", "Z_CLIP")
_EFFECT = "main effect"
_IMAGE = ["subject", "metric", "nsd_id"]


def ladders(profile: Profile) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return what the profile's ablation varies beside the factorial.

    Returns
    -------
    dict of tuple of str
        "layers", "iterations" and "k" -> methods, from few to many.
    dict of str
        Methods that are another one by construction, for `with_aliases`: the profile's
        own blocks and k are `stage2_guided`, and no iteration is stage 1.
    """
    varied, layers = profile.ablation, profile.stage2.fast.layers
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


def main_effects(scores: pd.DataFrame, *, resampling: Resampling) -> pd.DataFrame:
    """Return what each feature adds, averaged over the presence of the two others.

    Per image: the mean score of the four cells of the factorial with the feature, minus
    that of the four without it.

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value, floor with all eight cells.
    resampling : Resampling
        Draws, confidence and streams.

    Returns
    -------
    DataFrame
        The columns of `summaries.paired_table`, `method` (the feature), `n_images`,
        `p_holm` (adjusted over features and metrics of one subject, or of "all"),
        `floor` (what the feature adds to the score of shuffled pairs) and `ceiling`
        (NaN: a difference has none). Rows "all": interval over subjects and images.

    Raises
    ------
    DataError
        As `shared_images`, over the eight cells.
    """
    kept = shared_images(scores, factorial())
    table = pd.concat(
        [_effect(kept, k, resampling) for k in range(len(FEATURES))], ignore_index=True
    )
    adjusted = table.groupby("subject", sort=False)["p_permutation"].transform(holm)
    return table.assign(p_holm=adjusted, ceiling=np.nan)


def _effect(kept: pd.DataFrame, k: int, resampling: Resampling) -> pd.DataFrame:
    """Return the paired table of the feature with number `k`."""
    present, absent = f"with {FEATURES[k]}", f"without {FEATURES[k]}"
    side = {m: present if flags[k] else absent for m, flags in factorial().items()}
    halves = kept.assign(method=kept["method"].map(side))
    halves = halves.groupby([*_IMAGE, "method"], sort=False)[["value", "floor"]].mean()
    wide = halves.unstack("method")
    gains, floors = (  # (metric, image) x subject
        (wide[kind, present] - wide[kind, absent]).unstack("subject")
        for kind in ("value", "floor")
    )
    # an image alone has no other to be paired with, so no floor
    common = gains.dropna().index
    by_subject = floors.groupby("metric").mean()
    by_subject["all"] = floors.loc[common].mean(axis=1).groupby("metric").mean()
    n_images = gains.groupby("metric").count()
    n_images["all"] = gains.loc[common].groupby("metric").size()
    table = paired_table(halves.reset_index(), present, absent, resampling=resampling)
    cells = list(zip(table["metric"], table["subject"], strict=True))
    return table.assign(
        method=FEATURES[k],
        floor=[by_subject.loc[cell] for cell in cells],
        n_images=[int(n_images.loc[cell]) for cell in cells],
    )


def ablation_table(
    scores: pd.DataFrame,
    *,
    subjects: Sequence[int],
    settings: Mapping[str, str],
    resampling: Resampling,
    ladders: Mapping[str, Sequence[str]],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return table T2: the full factorial with its main effects, and the ladders.

    Every row is over the same images: those that all conditions have which were
    scored at all.

    Parameters
    ----------
    scores : DataFrame
        Columns subject, method, nsd_id, metric, value, floor; see `with_aliases` for
        conditions that are another one by construction.
    subjects, settings, not_run
        As for `comparison_table`; a condition without scores or reason is reported too.
    resampling : Resampling
        Draws, confidence and streams.
    ladders : mapping of sequence of str
        What is varied beside the factorial -> methods, in order; see `ladders`.

    Returns
    -------
    DataFrame
        Columns group ("factorial", "main effect" or a key of `ladders`), c, z, Z_CLIP
        (1 or 0 in the factorial), those of `comparison_table`, n_images (in the rows
        "all" those that every subject shares), p_permutation and p_holm (main effects).
        In main effects `method` is the feature.

    Raises
    ------
    DataError
        A column or a metric is missing, no condition was scored, or as
        `shared_images`.
    """
    scores = _of_metrics(scores, settings)
    groups = {"factorial": tuple(factorial()), **ladders}
    scored = set(scores["method"])
    present = [m for group in groups.values() for m in group if m in scored]
    if not present:
        raise DataError("The scores hold no condition of the ablation: run it first.")
    kept = shared_images(scores, present)
    summary = _summarise_kept(kept, scores, resampling)
    who = [*map(str, subjects), "all"]
    tables = {}
    for group, methods in groups.items():
        reasons = {m: why for m, why in not_run.items() if m in methods}
        rows = summary_rows(summary, who, subjects, methods, settings, reasons)
        tables[group] = rows
        if group == "factorial":
            effects, lacking = _effect_rows(kept, len(subjects), resampling)
            tables[_EFFECT] = complete(effects, who, FEATURES, settings, lacking)
    table = pd.concat(tables, names=["group"]).reset_index("group")
    table = table.reset_index(drop=True)
    in_cell = table["group"] == "factorial"
    for k, feature in enumerate(FEATURES):
        flags = {method: int(flags[k]) for method, flags in factorial().items()}
        table[feature] = table["method"].map(flags).where(in_cell).astype("Int64")
    table["n_images"] = _n_images(table, kept)
    order = ["group", *FEATURES, *SUMMARY, "n_images", "p_permutation", "p_holm"]
    return table[[*order, "status", "settings"]]


def _of_metrics(scores: pd.DataFrame, settings: Mapping[str, str]) -> pd.DataFrame:
    """Return the scores by the metrics that are defined, or raise DataError."""
    check_table(scores, SCORES, "The table of scores")
    check_metrics(scores, settings)
    return scores[scores["metric"].isin(settings)]


def _n_images(table: pd.DataFrame, kept: pd.DataFrame) -> pd.Series:
    """Return the images behind each row; behind "all" those that all subjects share."""
    one = kept.drop_duplicates(_IMAGE)
    seen = one.groupby(["metric", "nsd_id"]).size().unstack("metric")
    shared = (seen == one["subject"].nunique()).sum()
    images = table["metric"].map(shared).where(table["subject"] == "all", table["n"])
    return images.where(table["value"].notna(), 0).astype(int)


def _summarise_kept(
    kept: pd.DataFrame, scores: pd.DataFrame, resampling: Resampling
) -> pd.DataFrame:
    """Summarise the kept scores, with the ceilings' scores on the same images."""
    known = set(kept["method"])
    best_names = {best for m, best in ceilings().items() if m in known} - known
    best = scores[scores["method"].isin(best_names)]
    best = best.assign(subject=best["subject"].astype(str))
    both = pd.concat([kept, best], ignore_index=True) if len(best) else kept
    return summarise(both, resampling=resampling, ceilings=ceilings())


def _effect_rows(
    kept: pd.DataFrame, n_subjects: int, resampling: Resampling
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the main effects with their status, or by feature why there are none."""
    columns = [*SUMMARY, "p_permutation", "p_holm", "status"]
    absent = [cell for cell in factorial() if cell not in set(kept["method"])]
    if absent:
        reason = f"a main effect needs all eight cells, {', '.join(absent)} not run"
        return pd.DataFrame(columns=columns), dict.fromkeys(FEATURES, reason)
    effects = main_effects(kept, resampling=resampling)
    few = (effects["subject"] == "all") & (effects["n"] < n_subjects)
    words = effects["n"].astype(str) + f" of {n_subjects} subjects"
    return effects.assign(status=words.where(few, ""))[columns], {}


def quality_by_k(
    scores: pd.DataFrame, *, settings: Mapping[str, str], resampling: Resampling
) -> pd.DataFrame:
    """Return the final quality at each k of the ablation, on the same images.

    Parameters
    ----------
    scores : DataFrame
        As for `ablation_table`.
    settings : mapping of str to str
        Metric -> its definition; these metrics are summarised.
    resampling : Resampling

    Returns
    -------
    DataFrame
        Columns k_percent, those of `summaries.summarise`, and settings.

    Raises
    ------
    DataError
        No k was scored, or as `shared_images`.
    """
    scores = _of_metrics(scores, settings)
    prefix = k_name(0).removesuffix("0")
    k_of = {
        method: float(method.removeprefix(prefix))
        for method in dict.fromkeys(map(str, scores["method"]))
        if method.startswith(prefix)
    }
    if not k_of:
        raise DataError(
            f"The scores hold no method {prefix}…: run the ablation of k (profile's "
            "ablation.k_grid)."
        )
    kept = shared_images(scores, k_of)
    table = summarise(kept, resampling=resampling, ceilings=ceilings())
    table.insert(0, "k_percent", table["method"].map(k_of))
    table = table.sort_values(["k_percent", "metric"], kind="stable")
    return table.assign(settings=table["metric"].map(settings)).reset_index(drop=True)
