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
from minddiff_utils.core.config import Profile
from minddiff_utils.core.errors import DataError
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

__all__ = [
    "FEATURES",
    "ablation_table",
    "ladders",
    "main_effects",
    "quality_by_k",
]

#: The features that the factorial turns on and off, in the order of its flags.
FEATURES = ("c", "z", "Z_CLIP")
_EFFECT = "main effect"


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
    wanted, stage2 = profile.ablation, profile.stage2
    blocks = {*wanted.layers, stage2.layers_fast}
    k_own = profile.decoding.k_percent  # None: another one for each layer
    grid = {*wanted.k_grid, *([] if k_own is None else [k_own])}
    methods = {
        "layers": tuple(map(layers_name, sorted(blocks, key=lambda b: (len(b), b)))),
        "iterations": tuple(map(iteration_name, (0, *sorted(wanted.iterations)))),
        "k": tuple(map(k_name, sorted(grid))),
    }
    methods["iterations"] += ("stage2",)
    same_as = {iteration_name(0): "stage1"}
    if stage2.layers_fast not in wanted.layers:
        same_as[layers_name(stage2.layers_fast)] = "stage2_guided"
    if k_own is not None and k_own not in wanted.k_grid:
        same_as[k_name(k_own)] = "stage2_guided"
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
    feature = FEATURES[k]
    present, absent = f"with {feature}", f"without {feature}"
    side = {m: present if flags[k] else absent for m, flags in factorial().items()}
    image = ["subject", "metric", "nsd_id"]
    halves = kept.assign(method=kept["method"].map(side))
    halves = halves.groupby([*image, "method"], sort=False)[["value", "floor"]].mean()
    wide = halves.unstack("method")
    gains, floors = (  # (metric, image) x who
        (wide[kind, present] - wide[kind, absent]).unstack("subject")
        for kind in ("value", "floor")
    )
    table = paired_table(halves.reset_index(), present, absent, resampling=resampling)
    # an image alone has no other to be paired with, so no floor
    common = gains.dropna().index
    by_subject = floors.groupby("metric").mean()
    by_subject["all"] = floors.loc[common].mean(axis=1).groupby("metric").mean()
    n_images = gains.groupby("metric").count()
    n_images["all"] = gains.loc[common].groupby("metric").size()
    cells = list(zip(table["metric"], table["subject"], strict=True))
    return table.assign(
        method=feature,
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
    check_table(scores, SCORES, "The table of scores")
    check_metrics(scores, settings)
    groups = {"factorial": tuple(factorial()), **ladders}
    conditions = [m for group in groups.values() for m in group]
    scores = scores[scores["metric"].isin(settings)]
    present = [m for m in conditions if (scores["method"] == m).any()]
    if not present:
        raise DataError("The scores hold no condition of the ablation: run it first.")
    kept = shared_images(scores, present)
    summary = _summarise_kept(kept, scores, resampling)
    shown = [*map(str, subjects), "all"]
    tables = []
    for group, methods in groups.items():
        reasons = {m: why for m, why in not_run.items() if m in methods}
        own = summary_rows(summary, shown, subjects, methods, settings, reasons)
        tables.append(own.assign(group=group))
        if group == "factorial":
            effects = _effect_rows(kept, shown, settings, resampling)
            tables.append(effects.assign(status=_effect_status(effects, subjects)))
    table = pd.concat(tables, ignore_index=True)
    in_cell = table["group"] == "factorial"
    for k, feature in enumerate(FEATURES):
        flags = {method: int(flags[k]) for method, flags in factorial().items()}
        table[feature] = table["method"].map(flags).where(in_cell).astype("Int64")
    table["n_images"] = _n_images(table, kept)
    order = ["group", *FEATURES, *SUMMARY, "n_images", "p_permutation", "p_holm"]
    return table[[*order, "status", "settings"]]


def _n_images(table: pd.DataFrame, kept: pd.DataFrame) -> pd.Series:
    """Return the images behind each row; behind "all" those that all subjects share."""
    one = kept.drop_duplicates(["subject", "metric", "nsd_id"])
    seen = one.groupby(["metric", "nsd_id"]).size().unstack("metric")
    shared = (seen == one["subject"].nunique()).sum()
    images = table["metric"].map(shared).where(table["subject"] == "all", table["n"])
    return images.where(table["value"].notna(), 0).astype(int)


def _summarise_kept(
    kept: pd.DataFrame, scores: pd.DataFrame, resampling: Resampling
) -> pd.DataFrame:
    """Summarise the kept scores, with the ceilings' scores on the same images."""
    wanted = {best for m, best in ceilings().items() if m in set(kept["method"])}
    best = scores[scores["method"].isin(wanted - set(kept["method"]))]
    best = best.assign(subject=best["subject"].astype(str))
    both = pd.concat([kept, best], ignore_index=True) if len(best) else kept
    return summarise(both, resampling=resampling, ceilings=ceilings())


def _effect_rows(
    kept: pd.DataFrame,
    shown: Sequence[str],
    settings: Mapping[str, str],
    resampling: Resampling,
) -> pd.DataFrame:
    """Return the main effects as rows of T2, or why there are none."""
    absent = [cell for cell in factorial() if cell not in set(kept["method"])]
    columns = [*SUMMARY, "p_permutation", "p_holm", "status"]
    if absent:
        reason = f"a main effect needs all eight cells, {', '.join(absent)} not run"
        reasons = dict.fromkeys(FEATURES, reason)
        nothing = pd.DataFrame(columns=[*SUMMARY, "status"])
        table = complete(nothing, shown, FEATURES, settings, reasons)
    else:
        effects = main_effects(kept, resampling=resampling).assign(status="")
        table = complete(effects, shown, FEATURES, settings, {})
        tests = ["p_permutation", "p_holm"]
        key = ["subject", "method", "metric"]
        table = table.merge(effects[[*key, *tests]], on=key, how="left")
    table = table.reindex(columns=columns)
    return table.assign(group=_EFFECT, settings=table["metric"].map(settings))


def _effect_status(effects: pd.DataFrame, subjects: Sequence[int]) -> list[str]:
    """Return the status of main effects, with the subjects that "all" leaves out."""
    return [
        f"{row['n']} of {len(subjects)} subjects"
        if row["subject"] == "all" and 0 < row["n"] < len(subjects)
        else str(row["status"])
        for row in effects.to_dict("records")
    ]


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
    check_table(scores, SCORES, "The table of scores")
    check_metrics(scores, settings)
    scores = scores[scores["metric"].isin(settings)]
    prefix = k_name(0).removesuffix("0")
    named = [m for m in dict.fromkeys(scores["method"]) if str(m).startswith(prefix)]
    k_of = {method: float(method.removeprefix(prefix)) for method in named}
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
