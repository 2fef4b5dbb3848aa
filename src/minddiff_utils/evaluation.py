"""All subjects together: scores of every compared method, and the claims' evidence.

Reads what notebooks 01 to 04 wrote for each subject and hands it to `metrics`,
`statistics` and `claims`, which know nothing of files. Place in the flow: layer 9,
notebooks 05 and 06.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from minddiff_utils import store
from minddiff_utils.ablation import ablation_methods
from minddiff_utils.backbone import Backbone, Judge, load_backbone, load_judge
from minddiff_utils.baselines import (
    CEILINGS,
    conditions,
    in_batches,
    mean_image,
    read_condition,
    repeat_image,
)
from minddiff_utils.claims import CONTRASTS, Evidence
from minddiff_utils.comparison import categories_in_captions
from minddiff_utils.errors import StoreError
from minddiff_utils.images import to_torch, to_uint8
from minddiff_utils.metrics import (
    METRICS,
    Condition,
    SubjectScores,
    category_only_two_way,
    frechet_table,
    score_methods,
)
from minddiff_utils.perception import load_perception
from minddiff_utils.rivals import read_rivals
from minddiff_utils.statistics import Resampling, holm, paired_table, summarise

__all__ = [
    "Models",
    "Stimuli",
    "Stock",
    "category_floor",
    "compare_methods",
    "contrast_table",
    "embed_with",
    "floor_table",
    "gallery",
    "gather",
    "gather_costs",
    "load_models",
    "make_evidence",
    "notebook_seconds",
    "read_stimuli",
    "resampling",
    "score_subject",
    "score_subjects",
    "subject_galleries",
    "take_stock",
    "with_settings",
]

Images = npt.NDArray[np.uint8]
Embedders = Mapping[str, Callable[[Images], npt.NDArray[Any]]]


@dataclass(frozen=True)
class Stimuli:
    """The images of one subject that evaluation needs.

    Attributes
    ----------
    truth : Condition
        The images to reconstruct.
    test : uint8 (n_test, S, S, 3)
        All test images, the reference of set-wise distances.
    train : uint8 (n_train, S, S, 3)
        Training images.
    retrieved : uint8 (n, S, S, 3)
        The training image nearest to each decoded feature set.
    drawn : uint8 (n, S, S, 3)
        A training image at random for each.
    captions : (n, n_captions) str
        Of the images to reconstruct.
    """

    truth: Condition
    test: Images
    train: Images
    retrieved: Images
    drawn: Images
    captions: npt.NDArray[Any]


def read_stimuli(run: store.Run, subject: int) -> Stimuli:
    """Read the true images of one subject.

    Raises
    ------
    StoreError
        An artefact is missing, or two of them do not belong together.
    """
    folder = run.tree.derived(subject)
    names = ["images", "nsd_id", "captions"]
    stored = store.read_arrays(folder / "stimuli.h5", names)
    split = store.read_arrays(folder / "responses.h5", ["split"])["split"]
    found = store.read_arrays(folder / "decoded.h5", ["nsd_id", "retrieval_nsd_id"])
    images, nsd_id = stored["images"], stored["nsd_id"]
    row = {int(i): k for k, i in enumerate(nsd_id)}
    n = run.profile.data.n_reconstruct
    wanted, nearest = (found[k][:n] for k in ("nsd_id", "retrieval_nsd_id"))
    missing = [int(i) for i in (*wanted, *nearest) if int(i) not in row]
    if missing or len(split) != len(images):
        raise StoreError(
            f"{folder}: stimuli.h5, responses.h5 and decoded.h5 do not belong together;"
            " run notebooks 01 and 02 of this subject again."
        )
    rows, train = [row[int(i)] for i in wanted], images[split == "train"]
    draw = run.stream("random train", subject).integers(len(train), size=n)
    return Stimuli(
        truth=Condition("truth", wanted, images[rows]),
        test=images[split == "test"],
        train=train,
        retrieved=images[[row[int(i)] for i in nearest]],
        drawn=train[draw],
        captions=stored["captions"][rows],
    )


# --- scores -------------------------------------------------------------------------


def embed_with(model: Backbone | Judge, batch_size: int) -> Any:
    """Return a function from uint8 images to embeddings."""
    look = model.image_embed if isinstance(model, Judge) else model.clip_image_embed

    @torch.no_grad()
    def embed(images: Images) -> npt.NDArray[np.float32]:
        return look(to_torch(images)).float().cpu().numpy()

    return in_batches(embed, batch_size)


def _round_trip(backbone: Backbone, batch_size: int) -> Any:
    @torch.no_grad()
    def apply(images: Images) -> Images:
        x = to_torch(images).to(backbone.device)
        return to_uint8(backbone.decode_latents(backbone.encode_images(x)))

    return in_batches(apply, batch_size)


def _check_complete(
    run: store.Run, subject: int, nsd_id: npt.NDArray[np.int64]
) -> None:
    """Refuse images of some shards, or of a run for other images."""
    for stage in ("stage1", "stage2"):
        path = run.tree.derived(subject) / f"{stage}.csv"
        table = store.read_table(path)
        made = table.loc[table["method"] == stage, "nsd_id"]
        if made.tolist() != nsd_id.tolist():
            raise StoreError(
                f"{path} tells of {len(made)} images, but other ones, or another"
                f" number than {len(nsd_id)}, are to be evaluated: run notebooks 03"
                " and 04 of this subject with the same profile and overrides."
            )


@dataclass(frozen=True)
class Models:
    """What looks at the images: the method's own models, the judge, and the field's.

    Attributes
    ----------
    backbone : Backbone
    judge : Judge
    perception : mapping of callables
        Further networks by name, from `perception.load_perception`.
    """

    backbone: Backbone
    judge: Judge
    perception: Embedders = field(default_factory=dict)


def load_models(run: store.Run) -> Models:
    """Load the models of the run's profile, and the networks whose weights are there.

    Raises
    ------
    ModelError
        Weights are missing or damaged.
    """
    models = run.profile.models
    return Models(
        load_backbone(models, run.tree.models),
        load_judge(run.tree.models, kind=models.backbone),
        load_perception(run.tree.models, device=models.device).embedders,
    )


def score_subject(
    run: store.Run, subject: int, models: Models
) -> tuple[SubjectScores, Mapping[str, npt.NDArray[Any]]]:
    """Score every method of one subject; also embed all of its true test images.

    Returns
    -------
    SubjectScores
        Scores and, for set-wise distances, embeddings by metric and method.
    mapping of float (n_test, n_features)
        Embeddings of the true test images by set-wise metric.

    Raises
    ------
    StoreError
        A shard of notebook 03 or 04 is missing, or they ran for other images.
    """
    stimuli = read_stimuli(run, subject)
    _check_complete(run, subject, stimuli.truth.nsd_id)
    size = run.profile.models.batch_size
    embedders = {
        "clip_judge": embed_with(models.judge, size),
        "clip_method": embed_with(models.backbone, size),
        **models.perception,
    }
    compared = conditions(
        run.tree,
        subject,
        stimuli.truth,
        _made_here(run, subject, stimuli, models.backbone),
        ablations=tuple(ablation_methods(run.profile)),
    )
    extra = run.profile.evaluation.extra_metrics
    truth = stimuli.truth
    scores = score_methods(subject, compared, truth, embedders, extra=extra)
    networks = {metric: METRICS[metric].network or "" for metric in scores.sets}
    return scores, {m: embedders[net](stimuli.test) for m, net in networks.items()}


def _made_here(
    run: store.Run, subject: int, stimuli: Stimuli, backbone: Backbone
) -> dict[str, Images]:
    """Return the images of the methods that need no generator."""
    truth, size = stimuli.truth, run.profile.models.batch_size
    path = run.tree.derived(subject) / "decoded_rivals.h5"
    side = truth.images.shape[1]
    return {
        "retrieval": stimuli.retrieved,
        "random_train": stimuli.drawn,
        "mean_image": repeat_image(mean_image(stimuli.train), len(truth.images)),
        "pixel_ridge": read_rivals(path, truth.nsd_id, side)["pixel_ridge"],
        "autoencoder": _round_trip(backbone, size)(truth.images),
    }


_Scored = tuple[SubjectScores, Mapping[str, npt.NDArray[Any]]]


def _score_each(
    run: store.Run, subjects: Sequence[int], load: Callable[[store.Run], Models]
) -> dict[int, _Scored]:
    """Score some subjects in this process."""
    models = load(run)
    return {subject: score_subject(run, subject, models) for subject in subjects}


def _score_in(
    name: str, overrides: Mapping[str, Any], subjects: Sequence[int]
) -> dict[int, _Scored]:
    """Score some subjects in a process of their own."""
    return _score_each(store.start(name, overrides=overrides), subjects, load_models)


def score_subjects(
    run: store.Run,
    subjects: Sequence[int],
    *,
    load: Callable[[store.Run], Models] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score subjects, on a CPU as many at once as there are cores.

    Parameters
    ----------
    run : Run
        Of no single subject.
    subjects : sequence of int
    load : callable, optional
        Gives the models; with it all is done in this process. Default: `load_models`.
    overrides : mapping, optional
        Those that `run` was started with.

    Returns
    -------
    DataFrame
        One row per subject, method, image and metric: `value` and shuffled `floor`.
    DataFrame
        Fréchet distances to the true test images, by subject, method and metric.

    Raises
    ------
    StoreError
        As `score_subject`.
    """
    n_workers = min(len(subjects), len(os.sched_getaffinity(0)))
    if load or n_workers == 1 or run.profile.models.device != "cpu":
        found = _score_each(run, subjects, load or load_models)
    else:
        found = _score_at_once(run, overrides or {}, subjects, n_workers)
    shared = found[subjects[0]][1]  # all subjects see the same test set
    distances = [
        frechet_table(
            {str(s): found[s][0].sets[metric] for s in subjects},
            reference,
            metric=metric,
        )
        for metric, reference in shared.items()
    ]
    tables = [found[s][0].table for s in subjects]
    return pd.concat(tables, ignore_index=True), pd.concat(distances, ignore_index=True)


def _score_at_once(
    run: store.Run,
    overrides: Mapping[str, Any],
    subjects: Sequence[int],
    n_workers: int,
) -> dict[int, _Scored]:
    context = multiprocessing.get_context("spawn")  # torch and forks do not mix
    with ProcessPoolExecutor(n_workers, mp_context=context) as pool:
        shares = [subjects[k::n_workers] for k in range(n_workers)]
        tasks = [
            pool.submit(_score_in, run.profile.name, dict(overrides), share)
            for share in shares
        ]
        return {s: scored for task in tasks for s, scored in task.result().items()}


def category_floor(run: store.Run, subject: int) -> float:
    """Return the two-way score of a reconstruction that carries the category alone.

    The category of an image is the set of object names in its captions.
    """
    captions = read_stimuli(run, subject).captions
    return category_only_two_way(categories_in_captions(captions))


# --- which subjects are there -------------------------------------------------------


@dataclass(frozen=True)
class Stock:
    """Subjects whose notebooks are done, and why the others are missing."""

    complete: tuple[int, ...]
    missing: Mapping[int, str]

    def table(self) -> pd.DataFrame:
        """Return a row per subject: `subject` and `state`."""
        rows = [(str(s), "complete") for s in self.complete]
        rows += [(str(s), f"missing: {why}") for s, why in self.missing.items()]
        return pd.DataFrame(rows, columns=["subject", "state"])


#: What notebooks 02 to 04 leave of each subject and later notebooks read.
_NEEDED = (
    "decoded.h5",
    "decoded_rivals.h5",
    "accuracy.csv",
    "k_selection.csv",
    "weights.csv",
    "zero_iterations.csv",
    "trajectories.h5",
)


def take_stock(run: store.Run) -> Stock:
    """Tell finished subjects from missing and half-finished ones.

    Raises
    ------
    StoreError
        No subject of the profile is finished; the sentence is that of the first.
    """
    missing: dict[int, str] = {}
    for subject in run.profile.subjects:
        folder = run.tree.derived(subject)
        absent = [name for name in _NEEDED if not (folder / name).is_file()]
        try:
            if absent:
                raise StoreError(
                    f"{folder / absent[0]} does not exist: run notebooks 02 to 04 of"
                    " this subject."
                )
            _check_complete(run, subject, read_stimuli(run, subject).truth.nsd_id)
        except StoreError as error:
            missing[subject] = str(error)
    complete = tuple(s for s in run.profile.subjects if s not in missing)
    if not complete:
        raise StoreError(next(iter(missing.values())))
    return Stock(complete, missing)


def resampling(run: store.Run) -> Resampling:
    """Return the draws and streams of the profile."""
    config = run.profile.evaluation
    return Resampling(
        stream=run.stream,
        n_bootstrap=config.n_bootstrap,
        n_permutations=config.n_permutations,
        confidence=config.confidence,
    )


def compare_methods(scores: pd.DataFrame, draws: Resampling) -> pd.DataFrame:
    """Return mean, interval, floor and ceiling by subject, method and metric."""
    return summarise(scores, resampling=draws, ceilings=CEILINGS)


def contrast_table(scores: pd.DataFrame, draws: Resampling) -> pd.DataFrame:
    """Return the paired differences that the claims read, one method minus another.

    Contrasts of methods that were not run are left out. The column `p_holm` corrects
    `p_permutation` for all contrasts of the same subject and metric.
    """
    there = set(scores["method"])
    pairs = [
        paired_table(scores, method, reference, resampling=draws)
        for method, reference in CONTRASTS
        if {method, reference} <= there
    ]
    table = pd.concat(pairs, ignore_index=True)
    groups = table.groupby(["subject", "metric"])["p_permutation"]
    return table.assign(p_holm=groups.transform(lambda p: holm(p.to_numpy())))


# --- tables of all subjects -----------------------------------------------------------


def gather(
    run: store.Run, name: str, subjects: Sequence[int] | None = None
) -> pd.DataFrame:
    """Return a table that each subject has, with the column `subject` in front.

    `subjects`: default all of the profile.
    """
    tables = []
    for subject in run.profile.subjects if subjects is None else subjects:
        table = store.read_table(run.tree.derived(subject) / name)
        table = table.drop(columns="subject", errors="ignore")
        table.insert(0, "subject", str(subject))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def make_evidence(
    run: store.Run,
    made: Mapping[str, pd.DataFrame],
    *,
    subjects: Sequence[int] | None = None,
) -> Evidence:
    """Return everything that the claims are decided on.

    Parameters
    ----------
    made : mapping of DataFrame
        What notebook 05 made: `comparison`, `paired`, `contrasts`, `scores` and, where
        k was varied, `k_quality`.
    subjects : sequence of int, optional
        Default all of the profile.
    """
    stage2 = gather(run, "stage2.csv", subjects)
    tables = {
        **made,
        "accuracy": gather(run, "accuracy.csv", subjects),
        "k_selection": gather(run, "k_selection.csv", subjects),
        "weights": gather(run, "weights.csv", subjects),
        "stage2": stage2[stage2["method"] == "stage2"],
    }
    in_silico = run.profile.simulation is not None
    return Evidence(tables, in_silico=in_silico, profile=run.profile.name)


def gather_costs(run: store.Run, subjects: Sequence[int] | None = None) -> pd.DataFrame:
    """Return what each image cost under each method: U-Net evaluations and gradients.

    Stage 1 has no gradients; its column is NaN.
    """
    columns = ["subject", "method", "nsd_id", "n_unet_evaluations", "n_unet_gradients"]
    parts = [gather(run, f"{stage}.csv", subjects) for stage in ("stage1", "stage2")]
    return pd.concat([part.reindex(columns=columns) for part in parts])


def notebook_seconds(run: store.Run) -> pd.DataFrame:
    """Return the wall time of every notebook that the runner has recorded.

    Columns notebook (without subject and shard) and seconds; empty where the notebooks
    were run by hand.
    """
    rows = []
    for path in sorted(run.tree.notebooks.glob("*.run.json")):
        record = json.loads(store.read_bytes(path))
        stem = path.name.removesuffix(".run.json").partition("_subj")[0]
        rows.append((stem, float(record["seconds"])))
    return pd.DataFrame(rows, columns=["notebook", "seconds"])


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of scores with each metric's definition in its last column.

    A table that has it, or no column `metric`, is returned as it is.
    """
    if "metric" not in table or "settings" in table:
        return table
    words = {name: metric.settings for name, metric in METRICS.items()}
    return table.assign(settings=table["metric"].map(words))


_INTERVAL = ("value", "ci_low", "ci_high", "n")
#: Methods that know nothing of the image, and of which kind.
_FLOORS = {
    "random_train": "a training image at random",
    "mean_image": "the mean training image",
    "shuffled": "stage 1 from another image's brain",
    "stage2_shuffled": "stage 2 from another image's brain",
    "permuted_voxels": "stage 1 from responses with permuted voxels",
}


def floor_table(comparison: pd.DataFrame, category_floor: float) -> pd.DataFrame:
    """Return what each metric gives to reconstructions that know nothing.

    Parameters
    ----------
    comparison : DataFrame
        From `compare_methods`; the rows over all subjects are read.
    category_floor : float
        From `category_floor`, for two-way identification.

    Returns
    -------
    DataFrame
        Columns metric, floor (what it is), value, ci_low, ci_high, n.
    """
    pooled = comparison[comparison["subject"] == "all"]
    rows = []
    for metric, block in pooled.groupby("metric", sort=False):
        own = {row["method"]: row for row in block.to_dict("records")}
        if "stage1" in own:
            pairs = {"value": own["stage1"]["floor"], "n": own["stage1"]["n"]}
            words = "stage 1 scored against other images"
            rows.append({"metric": metric, "floor": words, **pairs})
        for method, words in _FLOORS.items():
            numbers = {k: own[method][k] for k in _INTERVAL} if method in own else None
            if numbers:
                rows.append({"metric": metric, "floor": words, **numbers})
        if METRICS[str(metric)].rule.startswith("two_way"):
            words = "the right category and nothing else (expectation)"
            rows.append({"metric": metric, "floor": words, "value": category_floor})
    table = pd.DataFrame(rows, columns=["metric", "floor", *_INTERVAL])
    return table.astype({"n": "Int64"})


# --- pictures -------------------------------------------------------------------------


def gallery(
    run: store.Run,
    subject: int,
    methods: Mapping[str, str],
    *,
    n: int,
    picked: Sequence[int] | None = None,
) -> dict[str, Images]:
    """Return the first `n` images of the run's shard, or those `picked`, by method.

    Parameters
    ----------
    methods : mapping of str to str
        Method (or `truth`, `retrieval`, `random_train`, `pixel_ridge`) to the words of
        its row, in order; methods without images are left out.
    picked : sequence of int, optional
        Image ids, in the order shown.
    """
    stimuli = read_stimuli(run, subject)
    nsd_id = stimuli.truth.nsd_id
    shown = [row for batch in run.batches(len(nsd_id)) for row in batch][:n]
    if picked is not None:
        place = {int(i): row for row, i in enumerate(nsd_id)}
        shown = [place[int(i)] for i in picked]
    own = {
        "truth": stimuli.truth.images,
        "retrieval": stimuli.retrieved,
        "random_train": stimuli.drawn,
    }
    if "pixel_ridge" in methods:
        path = run.tree.derived(subject) / "decoded_rivals.h5"
        size = stimuli.truth.images.shape[1]
        own["pixel_ridge"] = read_rivals(path, nsd_id, size)["pixel_ridge"]
    rows: dict[str, Images] = {}
    for method, words in methods.items():
        if method in own:
            rows[words] = own[method][shown]
            continue
        folder = run.tree.stage_dir(subject, method)
        made = read_condition(folder, method, nsd_id[shown])
        if made is not None:
            rows[words] = made.images
    return rows


def subject_galleries(
    run: store.Run,
    subjects: Sequence[int],
    method: str,
    *,
    n: int,
    picked: Sequence[int] | None = None,
) -> dict[str, Images]:
    """Return the seen images and one method's images of every subject."""
    rows = gallery(run, subjects[0], {"truth": "seen image"}, n=n, picked=picked)
    for subject in subjects:
        words = {method: f"subject {subject}"}
        rows |= gallery(run, subject, words, n=n, picked=picked)
    return rows
