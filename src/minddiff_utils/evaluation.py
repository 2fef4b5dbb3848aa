"""All subjects together: scores of every compared method, and the claims' evidence.

Reads what notebooks 01 to 04 wrote for each subject and hands it to `metrics`,
`statistics` and `claims`, which know nothing of files. Place in the flow: layer 9,
notebooks 05 and 06.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from minddiff_utils import store
from minddiff_utils.backbone import Backbone, Judge
from minddiff_utils.baselines import (
    CEILINGS,
    conditions,
    in_batches,
    mean_image,
    read_condition,
    repeat_image,
)
from minddiff_utils.claims import CONTRASTS, Evidence
from minddiff_utils.errors import StoreError
from minddiff_utils.images import to_torch, to_uint8
from minddiff_utils.metrics import (
    Condition,
    SubjectScores,
    frechet_table,
    score_methods,
)
from minddiff_utils.statistics import Resampling, paired_table, summarise

__all__ = [
    "Stimuli",
    "compare_methods",
    "contrast_table",
    "embed_with",
    "gallery",
    "gather",
    "make_evidence",
    "read_stimuli",
    "resampling",
    "score_subject",
    "score_subjects",
    "subject_galleries",
]

Images = npt.NDArray[np.uint8]


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
    """

    truth: Condition
    test: Images
    train: Images
    retrieved: Images


def read_stimuli(run: store.Run, subject: int) -> Stimuli:
    """Read the true images of one subject.

    Raises
    ------
    StoreError
        An artefact is missing, or two of them do not belong together.
    """
    folder = run.tree.derived(subject)
    stored = store.read_arrays(folder / "stimuli.h5", ["images", "nsd_id"])
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
    return Stimuli(
        truth=Condition("truth", wanted, images[[row[int(i)] for i in wanted]]),
        test=images[split == "test"],
        train=images[split == "train"],
        retrieved=images[[row[int(i)] for i in nearest]],
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


def score_subject(
    run: store.Run, subject: int, backbone: Backbone, judge: Judge
) -> tuple[SubjectScores, npt.NDArray[np.float32]]:
    """Score every method of one subject; also embed all of its true test images.

    Returns
    -------
    SubjectScores
        Scores and the judge's embeddings by method.
    float32 (n_test, n_features)
        The judge's embeddings of the true test images.

    Raises
    ------
    StoreError
        A shard of notebook 03 or 04 is missing, or they ran for other images.
    """
    stimuli = read_stimuli(run, subject)
    _check_complete(run, subject, stimuli.truth.nsd_id)
    size = run.profile.models.batch_size
    truth = stimuli.truth
    made = {
        "retrieval": stimuli.retrieved,
        "mean_image": repeat_image(mean_image(stimuli.train), len(truth.images)),
        "autoencoder": _round_trip(backbone, size)(truth.images),
    }
    embedders = {
        "clip_judge": embed_with(judge, size),
        "clip_method": embed_with(backbone, size),
    }
    compared = conditions(run.tree, subject, truth, made)
    scores = score_methods(subject, compared, truth, embedders)
    return scores, embedders["clip_judge"](stimuli.test)


def score_subjects(
    run: store.Run, backbone: Backbone, judge: Judge
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score all subjects of the profile.

    Returns
    -------
    DataFrame
        One row per subject, method, image and metric: `value` and shuffled `floor`.
    DataFrame
        Fréchet distances to the true test images, by subject and method.
    """
    tables, embeddings, references = [], {}, {}
    for subject in run.profile.subjects:
        scores, reference = score_subject(run, subject, backbone, judge)
        tables.append(scores.table)
        embeddings[str(subject)] = scores.embeddings
        references[subject] = reference
    shared = references[run.profile.subjects[0]]  # all subjects see the same test set
    return pd.concat(tables, ignore_index=True), frechet_table(embeddings, shared)


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
    """Return the paired differences that the claims read, one method minus another."""
    pairs = [
        paired_table(scores, method, reference, resampling=draws)
        for method, reference in CONTRASTS
    ]
    return pd.concat(pairs, ignore_index=True)


# --- tables of all subjects -----------------------------------------------------------


def gather(run: store.Run, name: str) -> pd.DataFrame:
    """Return a table that each subject has, with the column `subject` in front."""
    tables = []
    for subject in run.profile.subjects:
        table = store.read_table(run.tree.derived(subject) / name)
        table = table.drop(columns="subject", errors="ignore")
        table.insert(0, "subject", str(subject))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def make_evidence(
    run: store.Run,
    comparison: pd.DataFrame,
    paired: pd.DataFrame,
    contrasts: pd.DataFrame,
) -> Evidence:
    """Return everything that the claims are decided on."""
    stage2 = gather(run, "stage2.csv")
    tables = {
        "comparison": comparison,
        "paired": paired,
        "contrasts": contrasts,
        "accuracy": gather(run, "accuracy.csv"),
        "k_selection": gather(run, "k_selection.csv"),
        "weights": gather(run, "weights.csv"),
        "stage2": stage2[stage2["method"] == "stage2"],
    }
    return Evidence(tables, in_silico=run.profile.simulation is not None)


# --- pictures -------------------------------------------------------------------------


def gallery(
    run: store.Run, subject: int, methods: Mapping[str, str], *, n: int
) -> dict[str, Images]:
    """Return the first `n` images of the run's shard, method by method.

    Parameters
    ----------
    methods : mapping of str to str
        Method (or `truth`, `retrieval`) to the words of its row, in order.
    """
    stimuli = read_stimuli(run, subject)
    nsd_id = stimuli.truth.nsd_id
    shown = [row for batch in run.batches(len(nsd_id)) for row in batch][:n]
    own = {"truth": stimuli.truth.images, "retrieval": stimuli.retrieved}
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
    run: store.Run, subjects: Sequence[int], method: str, *, n: int
) -> dict[str, Images]:
    """Return the seen images and one method's images of every subject."""
    rows = gallery(run, subjects[0], {"truth": "seen image"}, n=n)
    for subject in subjects:
        rows |= gallery(run, subject, {method: f"subject {subject}"}, n=n)
    return rows
