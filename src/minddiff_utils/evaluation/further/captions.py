"""What the decoded text feature c says: the training caption nearest to it, in words.

No captioner is needed: the captions of the training image whose true c is nearest to
the decoded one are compared with the captions of the seen image, by the object words
and the setting words that they share, and by the published scores of captions of
`caption_metrics`. Pure functions, and `caption_scores`, which reads a run.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.errors import check_shape
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Doubles, Floats, IntArray
from minddiff_utils.evaluation.further.caption_metrics import Score
from minddiff_utils.evaluation.further.naming import mean_of_images, mean_of_others
from minddiff_utils.evaluation.images import rows_of
from minddiff_utils.evaluation.metrics import score_rows
from minddiff_utils.evaluation.subject_scores import Models
from minddiff_utils.features import semantic_features
from minddiff_utils.preprocessing import categories_in_captions

__all__ = ["SETTINGS", "caption_scores", "caption_table", "nearest_rows"]

Words = Sequence[Collection[str]]

#: Where a picture is taken, as captions say it; a name counts as a word.
SETTINGS = (
    *("grass", "beach", "street", "night", "forest", "snow", "desert", "sky", "room"),
    *("kitchen", "field", "park", "road", "city", "ocean", "water", "river", "lake"),
    *("mountain", "hill", "bathroom", "bedroom", "living room", "office", "restaurant"),
    *("table", "counter", "floor", "wall", "window", "yard", "garden", "sidewalk"),
    *("station", "track", "airport", "runway", "court", "zoo", "barn", "fence", "tree"),
    *("lawn", "town", "sand", "sea", "indoors"),
)
#: Other images that each caption found is compared with for the chance level of a
#: published score: one for all of them takes an hour at NSD's size.
_N_OTHERS = 5
#: Published scores that can be below 0.
_SIGNED = ("sentence_similarity",)
_METHODS = ("decoded c", "true c")
#: Metric -> the words of each image's captions whose recall it is.
_WORDS: Mapping[str, Callable[[Any], Words]] = {
    "object_words": categories_in_captions,
    "setting_words": partial(categories_in_captions, names=SETTINGS),
}


def nearest_rows(features: Floats, known: Floats) -> IntArray:
    """Return, per row, the row of `known` with the highest correlation.

    Decoded c, (n, n_features), and true c of training images, (n_known, n_features),
    both centred on the mean of `known` first: the sequences of all captions share most
    of their values.
    """
    check_shape(features.shape, (None, known.shape[1]), "the decoded c")
    centre = known.mean(axis=0, dtype=np.float64)
    a, b = ((x - centre).astype(np.float32) for x in (features, known))
    lengths = np.linalg.norm(b, axis=1)
    similarity = a @ b.T / np.where(lengths > 0, lengths, np.inf)
    return np.asarray(np.argmax(similarity, axis=1), np.int64)


def recall_of_words(said: Words, true: Words) -> Doubles:
    """Return the share of the true words that are said, of every pair: float64 (n, m).

    `said`, `true`: words of the n captions found, and of the m seen images; NaN in the
    columns of images without such a word.

    >>> recall_of_words([{"cat", "dog"}], [{"cat"}, {"cat", "tv"}, set()]).tolist()
    [[1.0, 0.5, nan]]
    """
    sizes = np.array([len(words) or np.nan for words in true], np.float64)
    hits = np.array([[len({*own} & {*one}) for own in true] for one in said], float)
    return np.asarray(hits.reshape(len(said), len(true)) / sizes)


def recall_and_floor(said: Words, true: Words) -> tuple[Doubles, Doubles]:
    """Return each caption's recall, and the mean of the others' of the same image."""
    recall = recall_of_words(said, true)
    return np.diag(recall), mean_of_others(recall.T)


def published_scores(
    score: Score, said: Sequence[str], true: Sequence[Sequence[str]]
) -> tuple[Doubles, Doubles]:
    """Return a score of each caption with its image's captions, and with others'.

    `said`: the caption found for each of n images; `true`: the captions of each image,
    of which the one with the highest score counts. The second, float64 (n,) like the
    first, is the mean over the captions of the next five images (cyclic; fewer where
    n <= 5, NaN where n is 1).
    """
    n = len(said)
    floors = [
        score(said, [true[(i + k) % n] for i in range(n)])
        for k in range(1, min(n - 1, _N_OTHERS) + 1)
    ]
    return score(said, true), np.mean(floors, axis=0) if floors else np.full(n, np.nan)


def caption_scores(
    run: Run, subject: int, models: Models, published: Mapping[str, Score]
) -> pd.DataFrame:
    """Return the recall of words, and published scores, for every test image.

    `published`: from `caption_metrics`, by metric. An artefact is missing, or two of
    them do not belong together: StoreError. Columns subject, method ("decoded c",
    "true c"), nsd_id, metric (object_words, setting_words and those of `published`),
    value, floor (the captions found for other images), caption (the first of those
    found, which the published scores compare).
    """
    folder = run.tree.derived(subject)
    shown = store.read_arrays(folder / "stimuli.h5", ["nsd_id", "captions"])
    split = store.read_arrays(folder / "responses.h5", ["split"])["split"]
    captions, train = shown["captions"], np.flatnonzero(split == "train")
    size = run.profile.models.batch_size
    known = semantic_features(models.backbone, captions[train], batch_size=size)
    test = store.read_arrays(folder / "decoded.h5", ["nsd_id", "c/decoded", "c/true"])
    seen = captions[rows_of(folder, test["nsd_id"], shown["nsd_id"])]
    parts = []
    for method, name in zip(_METHODS, ("c/decoded", "c/true"), strict=True):
        found = captions[train][nearest_rows(test[name], known)]
        first = found[:, 0].tolist()
        made = {
            metric: recall_and_floor(words(found), words(seen))
            for metric, words in _WORDS.items()
        }
        made |= {
            metric: published_scores(score, first, seen.tolist())
            for metric, score in published.items()
        }
        for metric, (value, floor) in made.items():
            part = score_rows(method, test["nsd_id"], metric, value, floor)
            parts.append(part.assign(caption=first))
    table = pd.concat(parts, ignore_index=True).assign(subject=str(subject))
    names = ["subject", "method", "nsd_id", "metric", "value", "floor", "caption"]
    return table.loc[table["value"].notna(), names].reset_index(drop=True)


def caption_table(
    scores: pd.DataFrame, absent: Mapping[str, str], *, confidence: float
) -> pd.DataFrame:
    """Return mean scores with intervals, and a row for what cannot be scored here.

    `scores`: from `caption_scores`, of all subjects; `absent`: metric -> why it is not
    scored. Columns metric, method, value, ci_low, ci_high, chance, true_c (the captions
    nearest to true c: no bound, as they may name the object and miss the setting),
    n_images, n_subjects, state.
    """
    decoded, true = _METHODS
    rows: list[dict[str, object]] = []
    for metric, block in scores.groupby("metric", sort=False):
        best = block[block["method"] == true]
        part = block[block["method"] == decoded]
        row: dict[str, object] = {"metric": metric, "method": decoded}
        least = -1.0 if metric in _SIGNED else 0.0
        row |= mean_of_images(part, confidence, least=least, most=1.0)
        row |= {"chance": part["floor"].mean(), "true_c": best["value"].mean()}
        rows.append(row | {"state": "scored"})
    for metric, why in absent.items():
        rows.append({"metric": metric, "method": decoded, "state": why})
    columns = ["metric", "method", "value", "ci_low", "ci_high", "chance", "true_c"]
    table = pd.DataFrame(rows, columns=[*columns, "n_images", "n_subjects", "state"])
    return table.astype({"n_images": "Int64", "n_subjects": "Int64"})
