"""Which images are shown, by a stated rule and never by hand, and in which rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.conditions import factorial, gallery_words
from minddiff_utils.core.errors import DataError, StoreError, check_finite
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Images
from minddiff_utils.evaluation import gallery
from minddiff_utils.evaluation.claims.evidence import engine_words
from minddiff_utils.evaluation.images import wanted_ids
from minddiff_utils.evaluation.metrics import METRICS
from minddiff_utils.reporting.figures import MethodPanels
from minddiff_utils.reporting.figures.canvas import check_table
from minddiff_utils.reporting.tables import FEATURES
from minddiff_utils.reporting.tables.rows import check_metrics
from minddiff_utils.reporting.wording import step_words

__all__ = [
    "Selection",
    "ablation_rows",
    "failure_rule",
    "failure_table",
    "marked_pairs",
    "method_panels",
    "own_scores",
    "scored_gallery",
    "select_for_gallery",
    "select_images",
    "subject_gallery",
    "system_rows",
]


#: Columns of scores, one row per image.
_SCORES = ("subject", "method", "metric", "nsd_id", "value")
#: Images that the galleries always show, the first of the test set, and all they show.
_N_FIXED, _N_SHOWN = 4, 9
#: Quantiles of the score in the order in which they are taken.
_QUANTILES = (0.5, 0.05, 0.95, 0.25, 0.75)


# --- the rows -------------------------------------------------------------------------


def system_rows(preset: str) -> dict[str, str]:
    """Return the rows of the comparison gallery (F2): condition -> words.

    `preset`: the engine of stage 2, which its row names.

    >>> system_rows("bayes")["stage2"]
    'stage 2, bayes (ours)'
    """
    stage2 = {"stage2": f"stage 2, {engine_words(preset)}"}
    return {"truth": "seen image", **gallery_words(), **stage2}


def ablation_rows() -> dict[str, str]:
    """Return the rows of the ablation gallery (F4), from all features to none.

    >>> list(ablation_rows().values())[-2:]
    ['Z_CLIP', 'nothing']
    """
    cells = sorted(factorial().items(), key=lambda cell: (sum(cell[1]), cell[1]))
    rows = {"truth": "seen image"}
    for name, flags in reversed(cells):
        *first, last = ["nothing", *compress(FEATURES, flags)]
        rows[name] = " and ".join([*filter(None, [", ".join(first[1:])]), last])
    return rows


# --- the images of a gallery ----------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """Images of a gallery, words above each, and the rule that picked them.

    `nsd_id`: fixed ones first, then from the lowest score to the highest.
    """

    nsd_id: tuple[int, ...]
    titles: tuple[str, ...]
    rule: str


def select_images(
    scores: pd.DataFrame, n: int, *, words: str, fixed: Sequence[int] = ()
) -> Selection:
    """Pick images for a gallery: fixed ids, then quantiles of the score. Never by hand.

    At quantile q of N images the one with rank q (N - 1) is taken, ties in the score
    ranked by id; where that one is taken already, the nearest rank that is not, the
    lower one first.

    `scores`: columns nsd_id and value of one metric, method and subject; an image twice
    or a score that is not finite is a DataError. `n`: number of images, with fewer ones
    all are shown; `words`: what the score is; `fixed`: ids with a score, shown first.
    """
    check_table(scores, ("nsd_id", "value"), "The scores to pick images by")
    if scores["nsd_id"].duplicated().any():
        raise DataError(
            "An image is there twice: pass one metric of one method and one subject."
        )
    values = scores["value"].to_numpy(dtype=np.float64)
    check_finite(bool(np.isfinite(values).all()), "The scores to pick images by")
    ranked = scores.sort_values(["value", "nsd_id"])["nsd_id"].astype(int).tolist()
    taken: dict[int, float] = {}
    for q in _QUANTILES[: n - len(fixed)]:
        free = [r for r, i in enumerate(ranked) if i not in fixed and r not in taken]
        if free:
            taken[min(free, key=lambda r: abs(r - q * (len(ranked) - 1)))] = q
    chosen = sorted(taken)
    titles = [f"fixed: {i}" for i in fixed] + [f"{100 * taken[r]:g} %" for r in chosen]
    levels = ", ".join(f"{100 * q:g}" for q in sorted(taken.values()))
    parts = {
        f"fixed ids {', '.join(map(str, fixed))}": fixed,
        f"quantiles of the score: {levels} % of {words}, among {len(ranked)} images, "
        "ties by id": taken,
    }
    rule = "Picked by rule: " + "; ".join(part for part, has in parts.items() if has)
    return Selection((*fixed, *(ranked[r] for r in chosen)), tuple(titles), rule)


def own_scores(scores: pd.DataFrame, subject: int, method: str) -> pd.DataFrame:
    """Return the rows of one method of one subject in notebook 05's `scores.csv`.

    Without a column, StoreError.
    """
    missing = sorted({*_SCORES} - {*scores})
    if missing:
        raise StoreError(
            f"The scores have no column {missing[0]}: delete scores.csv in the run's"
            " tables and run notebook 05 again."
        )
    mine = scores["subject"].astype(str) == str(subject)
    return scores[mine & (scores["method"] == method)]


def _judged(subject: int, scores: pd.DataFrame) -> pd.DataFrame:
    """Return stage 2's scores by the judge, of images that every subject has."""
    judged = own_scores(scores, subject, "stage2")
    judged = judged[judged["metric"] == "clip_judge"]
    scored = scores[["subject", "nsd_id"]].drop_duplicates()["nsd_id"].value_counts()
    return judged[judged["nsd_id"].isin(scored.index[scored == scored.max()])]


def _judge_words(subject: int) -> str:
    return f"{METRICS['clip_judge'].label} (stage 2, subject {subject})"


def select_for_gallery(subject: int, scores: pd.DataFrame) -> Selection:
    """Pick the images of the galleries: the first ones, then quantiles of stage 2.

    Only images that every subject saw and has a reconstruction of: subjects who came to
    fewer sessions lack some. `scores`: notebook 05's `scores.csv`, of all subjects; the
    judge's CLIP similarity of `subject` ranks the images.
    """
    judged = _judged(subject, scores)
    fixed = [int(i) for i in judged["nsd_id"][:_N_FIXED]]
    return select_images(judged, _N_SHOWN, words=_judge_words(subject), fixed=fixed)


# --- pictures with their scores -------------------------------------------------------

#: Below a picture: one of meaning, one of structure.
_BELOW = ("clip_judge", "ssim_2d")


#: Rows of pictures, and what stands below them.
Pictures = tuple[dict[str, Images], dict[str, list[str]]]


def scored_gallery(
    run: Run,
    subject: int,
    rows: Mapping[str, str],
    scores: pd.DataFrame,
    *,
    ids: Sequence[int] | int,
) -> Pictures:
    """Return pictures by row, and the scores that stand below them.

    `rows`: condition, or `truth`, -> words of its row; `scores`: notebook 05's
    `scores.csv`; `ids`: the images, or how many of the first ones. Both by the words of
    the row: uint8 (n_images, height, width, 3), conditions without images left out, and
    judge CLIP and SSIM of each image. An artefact is missing, or two of them do not
    belong together: StoreError.
    """
    chosen = wanted_ids(run, subject)[:ids].tolist() if isinstance(ids, int) else ids
    pictures = gallery(run, subject, rows, n=len(chosen), picked=chosen)
    below = {}
    for method, words in rows.items():
        own = own_scores(scores, subject, method)
        if len(own):
            wide = own.pivot_table("value", "nsd_id", "metric")
            wide = wide.reindex(index=[*chosen], columns=[*_BELOW])
            printed = wide.map("{:.2f}".format).replace("nan", "–")
            below[words] = printed.agg(" · ".join, axis=1).tolist()
    return pictures, below


def subject_gallery(
    run: Run, subjects: Sequence[int], scores: pd.DataFrame, *, ids: Sequence[int]
) -> Pictures:
    """Return both stages of every subject below the seen images (F3).

    As `scored_gallery`; all `subjects`, in the order shown, saw the images `ids`.
    """
    pictures, below = scored_gallery(
        run, subjects[0], {"truth": "seen image"}, scores, ids=ids
    )
    for subject in subjects:
        rows = {f"stage{k}": f"subject {subject}, stage {k}" for k in (1, 2)}
        more = scored_gallery(run, subject, rows, scores, ids=ids)
        pictures, below = pictures | more[0], below | more[1]
    return pictures, below


# --- failures -------------------------------------------------------------------------


def failure_rule(n: int) -> str:
    """Return the rule of `failure_table` for `n` images of each way, in words."""
    return (
        f"Shown: of the images above the median of one score and below that of the "
        f"other, the {n} with the largest product of the two opposite ranks, ties by id"
    )


def failure_table(
    scores: pd.DataFrame, *, semantic: str, structural: str, n: int
) -> pd.DataFrame:
    """Return both scores of every image, with the extreme disagreements marked.

    An image fails one way where its semantic score is below the median and its
    structural one above (strictly), the other way where it is the reverse. Of each way
    the `n` with the largest product of ranks, the low score counted from the top and
    the high one from the bottom, are marked; equal scores share their mean rank.

    `scores`: of one method of one subject (`own_scores`); others are a DataError, and
    so is an image that lacks one of the two metrics, or whose score is not finite.
    Columns subject, method, nsd_id, one per metric, and `signature`: "low semantic" or
    "low structural" for those marked, else empty; and `place`, 1 to n, else 0.
    """
    check_table(scores, _SCORES, "The scores")
    if scores["subject"].nunique() > 1 or scores["method"].nunique() > 1:
        raise DataError(
            "The scores are of several subjects or methods: pass one of each."
        )
    check_metrics(scores, dict.fromkeys((semantic, structural), ""))
    both = scores[scores["metric"].isin([semantic, structural])]
    both, image = both.astype({"subject": str}), ["subject", "method", "nsd_id"]
    wide = both.pivot(index=image, columns="metric", values="value")
    finite = np.isfinite(wide.to_numpy(dtype=np.float64))
    check_finite(bool(finite.all()), "The scores of an image, or one that is lacking,")
    table = wide[[semantic, structural]].rename_axis(columns=None).reset_index()
    table = table.assign(signature="", place=0)
    ways = ("semantic", semantic, structural), ("structural", structural, semantic)
    for name, low, high in ways:
        marked = _extremes(table, low, high, n)
        table.loc[marked, "signature"] = f"low {name}"
        table.loc[marked, "place"] = range(1, len(marked) + 1)
    return table


def _extremes(table: pd.DataFrame, low: str, high: str, n: int) -> list[int]:
    """Return the rows with the largest product of opposite ranks, in that order."""
    inside = (table[low] < table[low].median()) & (table[high] > table[high].median())
    product = table[low].rank(ascending=False) * table[high].rank()
    order = table.assign(product=product)[inside]
    order = order.sort_values(["product", "nsd_id"], ascending=[False, True])
    return [int(i) for i in order.index[:n]]


# --- images of a run ------------------------------------------------------------------


def marked_pairs(
    run: Run, subject: int, points: pd.DataFrame
) -> dict[int, tuple[Images, Images]]:
    """Return seen image and reconstruction of the images that `failure_table` marks.

    By nsd_id: uint8 (height, width, 3) each. As `scored_gallery`, StoreError.
    """
    marked = points.loc[points["place"] > 0, "nsd_id"].astype(int).tolist()
    if not marked:
        return {}
    names = {"truth": "seen", str(points["method"].iloc[0]): "made"}
    rows = gallery(run, subject, names, n=len(marked), picked=marked)
    return dict(zip(marked, zip(rows["seen"], rows["made"], strict=True), strict=True))


#: Picture of the overview -> its condition.
_PANELS = dict(
    seen="truth", z_alone="z_only", c_alone="c_only", sampled="stage1", aligned="stage2"
)


def method_panels(run: Run, subject: int, scores: pd.DataFrame) -> MethodPanels:
    """Return what `figures.fig_method` draws of the subject's median image.

    `scores`: notebook 05's `scores.csv`, of all subjects; those of stage 2 by the judge
    decide. An image or an array of the subject is missing: StoreError.
    """
    folder = run.tree.derived(subject)
    words = _judge_words(subject)
    median = select_images(_judged(subject, scores), 1, words=words)
    rows = {name: name for name in _PANELS.values()}
    pictures, below = scored_gallery(run, subject, rows, scores, ids=median.nsd_id)
    for name in rows:
        if name not in pictures:
            raise StoreError(
                f"{run.tree.stage_dir(subject, name)} holds no image"
                f" {median.nsd_id[0]}: run notebooks 03 and 04 of this subject."
            )
    stored = store.read_arrays(folder / "responses.h5", ["betas", "split"])
    seen = store.read_arrays(folder / "stimuli.h5", ["nsd_id"])["nsd_id"]
    paths = store.read_arrays(folder / "trajectories.h5", ["stage2/losses"])
    row = int(np.flatnonzero(wanted_ids(run, subject) == median.nsd_id[0])[0])
    (response,) = stored["betas"][seen == median.nsd_id[0]]
    return MethodPanels(
        pictures={part: pictures[name][0] for part, name in _PANELS.items()},
        responses=response,
        losses=paths["stage2/losses"][row],
        scores={p: below[name][0] for p, name in _PANELS.items() if name in below},
        engine=engine_words(run.profile.stage2.preset),
        unit=step_words(run.profile.stage2.preset),
        rule=f"Image {median.nsd_id[0]}. {median.rule}",
    )
