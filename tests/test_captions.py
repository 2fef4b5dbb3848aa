"""Captions of decoded c: the nearest, the words they share, and what is missing."""

import numpy as np
import pandas as pd
import pytest

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
    recall = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.25, 0.0, 1.0]])
    own, floor = captions._pairs(recall)
    np.testing.assert_array_equal(own, 1.0)
    np.testing.assert_allclose(floor, [0.125, 0.25, 0.25])


def test_the_table_has_the_words_of_true_c_and_says_what_is_not_scored() -> None:
    rows = [
        ("1", "decoded c", 1, "object_words", 1.0, 0.1),
        ("1", "decoded c", 2, "object_words", 0.0, 0.2),
        ("1", "true c", 1, "object_words", 1.0, 0.1),
        ("1", "true c", 2, "object_words", 1.0, 0.1),
    ]
    columns = ["subject", "method", "nsd_id", "metric", "value", "floor"]
    scores = pd.DataFrame(rows, columns=columns)
    table = captions.caption_table(scores, confidence=0.95).set_index("metric")
    row = table.loc["object_words"]
    assert (row["value"], row["true_c"]) == (0.5, 1.0)
    assert row["chance"] == pytest.approx(0.15)
    assert (row["ci_low"], row["ci_high"]) == (0.0, 1.0)  # within what can be
    empty = captions.caption_table(scores.iloc[:0], confidence=0.95)
    assert empty["value"].isna().all()  # no caption with a known word
    missing = table.loc[["meteor", "rouge_1", "rouge_l", "sentence_similarity"]]
    assert missing["value"].isna().all()
    assert missing["state"].str.startswith("Not scored: ").all()
    assert missing["state"].str.endswith(".").all()
