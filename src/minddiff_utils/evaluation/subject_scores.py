"""Every method of every subject scored, with intervals and paired differences."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from minddiff_utils.core.images import to_torch
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.core.run import Run, fix_threads
from minddiff_utils.core.surroundings import in_processes
from minddiff_utils.core.types import Array, IntArray, Matrix
from minddiff_utils.evaluation.images import condition_images, read_stimuli
from minddiff_utils.evaluation.metrics import (
    METRICS,
    Seen,
    SubjectScores,
    frechet_table,
    score_methods,
)
from minddiff_utils.evaluation.metrics.networks import load_networks
from minddiff_utils.evaluation.subject_tables import check_images
from minddiff_utils.models import Backbone, Judge, load_backbone, load_judge

__all__ = [
    "Models",
    "Scored",
    "each_subject",
    "embed_with",
    "join_subjects",
    "score_subject",
    "text_embed_with",
]

Embedders = Mapping[str, Callable[[Any], Array]]
#: What is made of a subject.
Done = TypeVar("Done")


def embed_with(model: Backbone | Judge, batch_size: int) -> Any:
    """Return a function from uint8 images to embeddings."""
    look = model.image_embed if isinstance(model, Judge) else model.clip_image_embed

    @torch.no_grad()
    def embed(images: Array) -> Matrix:
        return look(to_torch(images)).float().cpu().numpy()

    def embed_all(images: Images) -> Matrix:
        return np.concatenate([embed(x) for _, x in in_blocks(images, batch_size)])

    return embed_all


def text_embed_with(judge: Judge) -> Callable[[Sequence[str]], Matrix]:
    """Return a function from texts to embeddings."""
    return lambda texts: judge.text_embed(texts).float().cpu().numpy()


@dataclass(frozen=True)
class Models:
    """What looks at images: the method's own models, the judge, the field's."""

    backbone: Backbone
    judge: Judge
    networks: Embedders = field(default_factory=dict)


def load_models(run: Run) -> Models:
    """Load the profile's models, and the networks whose weights are there."""
    models = run.profile.models
    return Models(
        load_backbone(models, run.tree.models),
        load_judge(run.tree.models, kind=models.backbone, device=models.device),
        load_networks(run.tree.models, device=models.device).embedders,
    )


#: Scores of a subject, and embeddings of its true test images.
Scored = tuple[SubjectScores, Mapping[str, Array]]


def score_subject(
    run: Run, subject: int, models: Models, *, seen_by: Seen | None = None
) -> Scored:
    """Score every method of one subject; also embed all of its true test images.

    `seen_by` is told what each network makes of the images of each method. The second
    are float (n_test, n_features) by set-wise metric, rows as `Stimuli.test`. A shard
    of notebook 03 or 04 is missing, or they ran for other images: StoreError.
    """
    stimuli = read_stimuli(run, subject)
    check_images(run, subject, stimuli.truth.nsd_id)
    size = run.profile.models.batch_size
    embedders = {
        "clip_judge": embed_with(models.judge, size),
        "clip_method": embed_with(models.backbone, size),
        **models.networks,
    }
    extra, truth = run.profile.evaluation.extra_metrics, stimuli.truth
    compared = condition_images(run, subject, truth)
    scores = score_methods(
        subject, compared, truth, embedders, extra=extra, seen_by=seen_by
    )
    networks = {metric: METRICS[metric].network or "" for metric in scores.sets}
    return scores, {m: embedders[net](stimuli.test) for m, net in networks.items()}


def _do_each(
    run: Run, subjects: Sequence[int], work: Callable[[Run, int, Models], Done]
) -> dict[int, Done]:
    fix_threads(run)  # in a process of its own nobody has
    models = load_models(run)
    return {subject: work(run, subject, models) for subject in subjects}


def each_subject(
    run: Run, subjects: Sequence[int], work: Callable[[Run, int, Models], Done]
) -> dict[int, Done]:
    """Return what `work` makes of each subject, on a CPU as many at once as cores.

    `work`: of a module, so that another process can call it.
    """
    n_workers = min(len(subjects), len(os.sched_getaffinity(0)))
    if n_workers == 1 or run.profile.models.device != "cpu":
        return _do_each(run, subjects, work)
    given = [(run, subjects[k::n_workers], work) for k in range(n_workers)]
    shares = in_processes(_do_each, given, n_workers)
    made = {subject: done for share in shares for subject, done in share.items()}
    return {subject: made[subject] for subject in subjects}


def join_subjects(
    run: Run, scored: Mapping[int, Scored]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the scores of subjects together.

    One row per subject, method, image and metric, with `value` and shuffled `floor`;
    and Fréchet distances to the true test images, by subject (and "all"), method and
    metric.
    """
    subjects = list(scored)
    ids = {subject: read_stimuli(run, subject).test_id for subject in subjects}
    tables = [scored[subject][0].table for subject in subjects]
    distances = [
        frechet_table(
            {str(s): scored[s][0].sets[metric] for s in subjects},
            _references({s: scored[s][1][metric] for s in subjects}, ids),
            metric=metric,
        )
        for metric in scored[subjects[0]][1]
    ]
    return pd.concat(tables, ignore_index=True), pd.concat(distances, ignore_index=True)


def _references(
    embedded: Mapping[int, Array], ids: Mapping[int, IntArray]
) -> dict[str, Array]:
    """Return the true test images by subject, and each of them once under "all".

    Subjects who came to fewer sessions saw fewer of the shared images.
    """
    own = {str(subject): features for subject, features in embedded.items()}
    every = np.concatenate([ids[subject] for subject in embedded])
    first = np.sort(np.unique(every, return_index=True)[1])
    return own | {"all": np.concatenate([*own.values()])[first]}
