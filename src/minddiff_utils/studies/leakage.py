"""How much of a reconstruction is read from the brain, and how much is guessed.

What notebook 08 calls. What decoders say that were fitted again to less, and c that
knows the true setting alone, is carried to images by stage 1 and scored beside the
run's own conditions, on the same images. Not here: the refits (`decoding.refits`), and
what is claimed of them (`evaluation.claims`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from minddiff_utils.core.inference import estimate, jackknife
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Doubles, Floats, IntArray, Ints, Matrix
from minddiff_utils.decoding.other_systems import category_means, small_pixels
from minddiff_utils.decoding.refits import (
    Refits,
    category_clusters,
    compared_with_samples,
    image_clusters,
    likeness,
)
from minddiff_utils.evaluation.further.captions import SETTINGS
from minddiff_utils.evaluation.further.scores import ReadBrain
from minddiff_utils.evaluation.images import condition_images
from minddiff_utils.evaluation.metrics import (
    ConditionImages,
    score_methods,
    score_rows,
)
from minddiff_utils.evaluation.metrics.embeddings import (
    pairwise_correlation,
    share_beaten,
)
from minddiff_utils.evaluation.subject_scores import Models, each_subject, embed_with
from minddiff_utils.evaluation.summaries import Matrices
from minddiff_utils.models import Backbone
from minddiff_utils.preprocessing import categories_in_captions
from minddiff_utils.studies.again import BATCH, Features, Subject, images_again

__all__ = ["AXES", "FLOOR", "prior_shares", "study", "study_subject"]

#: Principal axes of c and of z that are read; on none the training mean is left, and so
#: the generator is told nothing.
AXES, FLOOR = (0, 1, 2, 5, 10, 20, 50), "axes_0"
#: What was decoded again is compared with training samples, too.
_COMPARED = ("heldout", "as_many_out", "noise_refit")
#: Clusters of categories, each left out once.
_N_CLUSTERS = 6

Named = Sequence[frozenset[str]]


@dataclass(frozen=True)
class _Chosen:
    """What one subject's study starts from; test images are the chosen ones.

    `chosen`: their rows among the images to reconstruct; `decoded`: by notebook 02;
    `cluster`, `settings`: of training and of test images; `shows`: see `Refits`;
    `repeated`: condition -> responses to the test images of fewer trials, or of none.
    """

    own: Subject
    refits: Refits
    chosen: IntArray
    seen: ConditionImages
    truth: Features
    decoded: Features
    clusters: Mapping[str, int]
    shows: Any
    cluster: tuple[Ints, Ints]
    settings: tuple[Named, Named]
    repeated: Mapping[str, Matrix]


def _choose(own: Subject, backbone: Backbone, true_brain: ReadBrain | None) -> _Chosen:
    captions, train, test = own.captions, own.train, own.test
    named = [categories_in_captions(captions[rows]) for rows in (train, test)]
    clusters = _clusters(backbone, sorted(frozenset().union(*named[0], *named[1])))
    in_train, in_test = (image_clusters(part, clusters) for part in named)
    pure = np.flatnonzero(in_test >= 0)  # others cannot lose their categories alone
    chosen = pure if len(pure) > 1 else np.arange(len(test))
    chosen = chosen[: own.run.profile.ablation.n_images]
    shown = test[chosen]
    truth, decoded = (
        {name: Y[chosen] for name, Y in own.features(side).items()}
        for side in ("true", "decoded")
    )
    there = [{clusters[n] for n in part} for part in named[0]]
    every = range(len({*clusters.values()}))
    settings = (categories_in_captions(captions[r], SETTINGS) for r in (train, shown))
    seen = ConditionImages("truth", own.stored["nsd_id"][shown], own.images[shown])
    return _Chosen(
        own,
        Refits(own.X, own.X_test[chosen], own.Y),
        chosen,
        seen,
        truth,
        decoded,
        clusters,
        np.array([[k in own_ones for k in every] for own_ones in there]),
        (in_train, in_test[chosen]),
        cast(tuple[Named, Named], tuple(settings)),
        _repeated(own, seen, chosen, true_brain),
    )


def _repeated(
    own: Subject,
    seen: ConditionImages,
    chosen: IntArray,
    true_brain: ReadBrain | None,
) -> dict[str, Matrix]:
    """Return the responses to the chosen test images by how much noise is in them.

    "repeats_1", "repeats_2", ...: means of the first trials, up to as many as an image
    has; "noiseless": of the true brain, where there is one. Without single trials the
    responses are left as they are, as "repeats_all".
    """
    run, trials = own.run, own.trials("test")
    found: dict[str, Matrix] = {}
    if not np.isnan(trials.minute).all():  # no averages
        most = run.profile.data.n_test_repeats or int(np.bincount(trials.row).max())
        found = {f"repeats_{n}": trials.first(n)[chosen] for n in range(1, most)}
    found["repeats_all"] = own.X_test[chosen]
    voxels = own.stored.get("voxel_ijk")  # measured responses may be of vertices
    if true_brain is not None and run.origin == "in silico" and voxels is not None:
        brain = true_brain(run.tree.nsd, run.subject or 0, voxels)
        if brain is not None:
            found["noiseless"] = np.asarray(brain(seen.images), np.float32)
    return found


@torch.no_grad()
def _clusters(backbone: Backbone, names: Sequence[str]) -> dict[str, int]:
    if not names:
        return {}
    embedded = backbone.clip_text_embed([f"a photo of a {name}" for name in names])
    return category_clusters(names, embedded.float().cpu().numpy(), _N_CLUSTERS)


# --- images ---------------------------------------------------------------------------


def _decoded_again(one: _Chosen) -> dict[str, Features]:
    """Return c and z by condition; a cluster is left out where each image has one."""
    run, subject = one.own.run, one.own.run.subject or 0
    setting = category_means(one.own.Y["c"], *one.settings)
    noise = one.refits.on_noise(run.stream("noise for voxels", subject))
    found: dict[str, Features] = {"setting_only": {"c": setting}, "noise_refit": noise}
    found |= {f"axes_{n}": own for n, own in one.refits.on_axes(AXES).items()}
    found |= _with_repeats(one)
    if (one.cluster[1] >= 0).all():
        stream = run.stream("images left out", subject)
        found |= one.refits.without_clusters(one.shows, one.cluster[1], stream)
    return found


def _with_repeats(one: _Chosen) -> dict[str, Features]:
    """Return c and z of each of the responses `repeated`, by decoders fitted once."""
    every = np.concatenate([*one.repeated.values()])
    said = replace(one.refits, X_test=every).decoded()
    ends = np.cumsum([len(X) for X in one.repeated.values()])[:-1]
    parts = {name: np.split(Y, ends) for name, Y in said.items()}
    return {
        condition: {name: Y[k] for name, Y in parts.items()}
        for k, condition in enumerate(one.repeated)
    }


# --- scores ---------------------------------------------------------------------------


def _score_images(
    one: _Chosen, conditions: Sequence[ConditionImages], models: Models
) -> Iterator[pd.DataFrame]:
    """Give the scores of images, with two-way identification by cluster."""
    seen: dict[str, Floats] = {}

    def keep(shown: ConditionImages, _network: str, embedded: Floats) -> None:
        seen[shown.method] = embedded

    judge = {"clip_judge": embed_with(models.judge, BATCH)}
    subject = one.own.run.subject or 0
    yield score_methods(subject, conditions, one.seen, judge, seen_by=keep).table
    for shown in (shown for shown in conditions if len(shown.nsd_id) > 1):
        rows = np.flatnonzero(np.isin(one.seen.nsd_id, shown.nsd_id))
        own = one.cluster[1][rows]
        known, same = np.logical_and.outer(own >= 0, own >= 0), np.equal.outer(own, own)
        similarity = pairwise_correlation(seen["truth"][rows], seen[shown.method])
        for where, among in (("within", known & same), ("across", known & ~same)):
            who = shown.method, shown.nsd_id, f"two_way_{where}"
            yield score_rows(*who, share_beaten(similarity, among), 0.5)


def _score_features(
    one: _Chosen, again: Mapping[str, Features]
) -> Iterator[pd.DataFrame]:
    """Give what was decoded beside clusters and samples, and how near samples are."""
    left_out = {k: again[k] for k in again if k in _COMPARED}
    for method, features in ({"stage1": one.decoded} | left_out).items():
        for name, Y_hat in features.items():
            samples = one.own.Y[name]
            given = (Y_hat, one.truth[name], samples, one.cluster[1], one.cluster[0])
            who = method, one.seen.nsd_id
            for metric, value, chance in compared_with_samples(*given):
                yield score_rows(*who, f"{name}_{metric}", value, chance)
    size, training = one.own.run.profile.systems.pixel_size, one.own.images
    pixels = (one.seen.images, training.of(one.own.train))
    r = likeness(*(small_pixels(images, size) for images in pixels))
    who = "nearest_sample", one.seen.nsd_id
    yield score_rows(*who, "pixels", r.max(1), np.nan)


def study_subject(
    run: Run,
    subject: int,
    models: Models,
    *,
    beside: Sequence[str],
    true_brain: ReadBrain | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the study of one subject; see `study`."""
    own, backbone = Subject.read(run, subject, models.backbone), models.backbone
    one = _choose(own, backbone, true_brain)
    again = _decoded_again(one)
    made = [*images_again(own.run, backbone, one.chosen, again)]
    made += condition_images(own.run, subject, one.seen, beside)
    tables = [*_score_images(one, made, models), *_score_features(one, again)]
    scores = pd.concat(tables, ignore_index=True).dropna(subset="value")
    rows = [
        (k, name, int(one.shows[:, k].sum()), int((one.cluster[1] == k).sum()))
        for name, k in one.clusters.items()
    ]
    columns = ["cluster", "category", "n_train", "n_test"]
    clusters = pd.DataFrame(rows, columns=columns).sort_values("cluster")
    who = {"subject": str(subject)}
    return scores.assign(**who), clusters.assign(**who)


def study(
    run: Run,
    subjects: Sequence[int],
    *,
    beside: Sequence[str],
    true_brain: ReadBrain | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the study of several subjects, as many at once as there are cores.

    `beside`: conditions of the run that are scored beside those made here;
    `true_brain`: as for `evaluation.further.all_scores`. The first
    table has columns subject, method, nsd_id, metric, value, floor: of images the
    scores of notebook 05, and two_way_within and two_way_across, identification among
    images of the own cluster of categories and of others; of features `c_` and `z_`
    with the measures of `compared_with_samples`; of "nearest_sample" pixels, r with the
    training image most like the seen one. The second has columns cluster, category,
    n_train (training images that show the cluster), n_test, subject.
    """
    work = partial(study_subject, beside=beside, true_brain=true_brain)
    found = each_subject(run, subjects, work)
    scores, clusters = zip(*found.values(), strict=True)
    return pd.concat(scores, ignore_index=True), pd.concat(clusters, ignore_index=True)


# --- what it says ---------------------------------------------------------------------


def prior_shares(
    scores: pd.DataFrame,
    methods: Sequence[str],
    priors: Sequence[str],
    metrics: Sequence[str],
    *,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the share of each method's score above the floor that a prior reaches.

    (prior - floor) / (method - floor), of means over subjects and the images that all
    have; the floor is `FLOOR`, the interval the jackknife's over images. NaN where a
    method is not shown to lie above the floor. Columns metric, method, prior, value,
    ci_low, ci_high, n_images, n_subjects.
    """
    made, rows = Matrices(scores), []
    for metric, method, prior in product(metrics, methods, priors):
        both = [made.of(n, metric) - made.of(FLOOR, metric) for n in (prior, method)]
        top, gain = (part[:, ~np.isnan(sum(both)).any(axis=0)] for part in both)
        n_subjects, n = gain.shape
        value = low = high = np.nan
        if n >= 4 and estimate(gain, confidence=confidence).low > 0:
            ratio = partial(_ratio, top, gain)
            found = jackknife(ratio, n, confidence=confidence)
            value, low, high = found.value, found.low, found.high
        if n:
            rows.append((metric, method, prior, value, low, high, n, n_subjects))
    columns = ["metric", "method", "prior", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=[*columns, "n_images", "n_subjects"])


def _ratio(top: Doubles, bottom: Doubles, rows: IntArray) -> Doubles:
    return np.array([top[:, rows].mean() / bottom[:, rows].mean()])
