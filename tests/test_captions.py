"""Captions of decoded c: the nearest, the words they share, and what is missing."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.types import Doubles
from minddiff_utils.evaluation.further import captions


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_nearest_caption_is_that_of_the_highest_correlation(
    rng: np.random.Generator,
) -> None:
    known = rng.normal(size=(30, 12)) + 50  # a common part, as all sequences have
    features = known[[4, 17, 4]] + 0.1 * rng.normal(size=(3, 12))
    rows = captions.nearest_rows(features.astype(np.float32), known.astype(np.float32))
    assert rows.tolist() == [4, 17, 4]
    others = rng.normal(size=(20, 12)) + 50
    centre = known.mean(axis=0)
    expected = [
        np.argmax([_cosine(x - centre, k - centre) for k in known]) for x in others
    ]
    assert captions.nearest_rows(others, known).tolist() == expected


def test_recall_counts_the_true_words_that_are_said() -> None:
    recall = captions.recall_of_words(
        [{"cat", "dog"}, {"tv"}], [{"cat"}, {"cat", "tv"}, set()]
    )
    np.testing.assert_array_equal(recall, [[1.0, 0.5, np.nan], [0.0, 0.5, np.nan]])


def test_the_floor_is_what_the_captions_of_other_images_say() -> None:
    said, true = [{"cat"}, {"dog"}, set()], [{"cat"}, {"cat", "dog"}, {"tv"}]
    own, floor = captions.recall_and_floor(said, true)
    np.testing.assert_array_equal(own, [1, 0.5, 0])
    np.testing.assert_array_equal(floor, [0, 0.25, 0])


def test_the_table_has_the_words_of_true_c_and_says_what_is_not_scored() -> None:
    rows = [
        ("1", "decoded c", 1, "object_words", 1.0, 0.1),
        ("1", "decoded c", 2, "object_words", 0.0, 0.2),
        ("1", "true c", 1, "object_words", 1.0, 0.1),
        ("1", "true c", 2, "object_words", 1.0, 0.1),
    ]
    columns = ["subject", "method", "nsd_id", "metric", "value", "floor"]
    scores = pd.DataFrame(rows, columns=columns)
    absent = {"meteor": "Not scored: no file.", "sentence_similarity": "Nor this."}
    table = captions.caption_table(scores, absent, confidence=0.95)
    table = table.set_index("metric")
    row = table.loc["object_words"]
    assert (row["value"], row["true_c"]) == (0.5, 1.0)
    assert row["chance"] == pytest.approx(0.15)
    assert (row["ci_low"], row["ci_high"]) == (0.0, 1.0)  # within what can be
    empty = captions.caption_table(scores.iloc[:0], absent, confidence=0.95)
    assert empty["value"].isna().all()  # no caption with a known word
    assert table.loc[list(absent), "value"].isna().all()
    assert table.loc[list(absent), "state"].to_dict() == absent


def test_a_published_score_has_the_next_five_images_as_floor() -> None:
    n = 8
    table = np.random.default_rng(0).random((n, n))

    def score(said: Sequence[str], true: Sequence[Sequence[str]]) -> Doubles:
        pairs = zip(said, true, strict=True)
        return np.array([table[int(a), int(own[0])] for a, own in pairs])

    texts = [str(k) for k in range(n)]
    value, floor = captions.published_scores(score, texts, [[t] for t in texts])
    np.testing.assert_array_equal(value, np.diag(table))
    expected = [np.mean([table[i, (i + k) % n] for k in range(1, 6)]) for i in range(n)]
    np.testing.assert_allclose(floor, expected)
    _, alone = captions.published_scores(score, texts[:1], [["0"]])
    assert np.isnan(alone).all()
