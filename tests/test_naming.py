"""Naming: what is said, how often by chance, and the table that counts it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from minddiff_utils.evaluation.further import naming

CATEGORIES = [{"cat"}, {"dog"}, {"cat", "tv"}, set()]


def test_an_image_is_named_by_the_nearest_caption() -> None:
    heard: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        heard.extend(texts)
        return np.eye(3)

    images = np.array([[0.0, 0.1, 0.9], [0.8, 0.5, 0.3]])
    assert naming.name_by_captions(images, ["a", "b", "c"], embed) == ["c", "a"]
    assert heard == ["a photo of a a", "a photo of a b", "a photo of a c"]


def test_names_are_those_of_the_run_and_there_may_be_none() -> None:
    assert naming.all_names(CATEGORIES) == ["cat", "dog", "tv"]
    assert naming.all_names([set(), set()]) == []
    table = naming.naming_table(_scores().iloc[:0], {}, roles={}, confidence=0.95)
    assert table.empty
    assert "judge_role" in table


def test_chance_is_the_mean_over_permutations(rng: np.random.Generator) -> None:
    named = ["cat", "tv", "cat", "dog"]
    chance = naming.chance_of_names(named, CATEGORIES)
    draws = []
    for _ in range(4000):  # permutations that leave no image in its place
        order = rng.permutation(4)
        if not (order == np.arange(4)).any():
            draws.append(
                [w in CATEGORIES[k] for w, k in zip(named, order, strict=True)]
            )
    np.testing.assert_allclose(chance, np.mean(draws, axis=0), atol=0.05)  # 4 SE
    assert np.isnan(naming.chance_of_names(["cat"], [{"cat"}])).all()


def test_the_probe_is_ridge_and_learns_what_is_linear(rng: np.random.Generator) -> None:
    kinds = rng.integers(0, 3, 300)
    features = rng.normal(size=(300, 20)) + 4 * np.eye(3, 20)[kinds]
    categories = [{"abc"[k]} for k in kinds]
    probe = naming.fit_probe(features[:200], categories[:200])
    said = probe.name(features[200:])
    right = np.mean([w in own for w, own in zip(said, categories[200:], strict=True)])
    assert right > 0.9
    scale = StandardScaler().fit(features[:200])
    present = np.eye(3)[kinds[:200]]
    scores = probe.model.predict(features)
    errors = [
        np.abs(
            Ridge(alpha)
            .fit(scale.transform(features[:200]), present)
            .predict(scale.transform(features))
            - scores
        ).max()
        for alpha in np.logspace(1, 5, 9)
    ]
    assert min(errors) < 1e-8


def _scores() -> pd.DataFrame:
    rows = [
        ("1", "truth", 7, 1.0, 0.5), ("1", "truth", 9, 0.0, 0.5),
        ("2", "truth", 7, 1.0, 0.5), ("2", "truth", 9, 1.0, 0.5),
        ("1", "stage1", 7, 1.0, 0.1), ("1", "stage1", 9, 0.0, 0.3),
        ("2", "stage1", 7, 0.0, 0.1), ("2", "stage1", 9, 0.0, 0.3),
        ("1", "first", 7, 1.0, 0.2),
    ]  # fmt: skip
    columns = ["subject", "method", "nsd_id", "value", "floor"]
    return pd.DataFrame(rows, columns=columns).assign(metric="named_by_judge")


def test_the_table_counts_by_method_and_category_with_the_true_images_as_ceiling() -> (
    None
):
    categories = {7: frozenset({"cat"}), 9: frozenset({"cat", "dog"})}
    table = naming.naming_table(
        _scores(), categories, roles={"named_by_judge": "judge"}, confidence=0.95
    )
    cell = table.set_index(["method", "category"]).loc
    assert cell["stage1", "all"]["value"] == pytest.approx(0.25)
    assert cell["stage1", "all"]["ceiling"] == pytest.approx(0.75)
    assert cell["stage1", "all"]["chance"] == pytest.approx(0.2)
    assert cell["stage1", "all"]["n_images"] == 2
    assert cell["stage1", "dog"]["value"] == 0
    assert cell["stage1", "dog"]["ceiling"] == pytest.approx(0.5)
    assert cell["stage1", "cat"]["n_subjects"] == 2
    nothing = categories | {9: frozenset()}  # no name would be right
    table_of_one = naming.naming_table(
        _scores(), nothing, roles={"named_by_judge": "judge"}, confidence=0.95
    )
    assert (table_of_one["n_images"] == 1).all()
    # on the images that the row has, not on all
    assert cell["first", "all"]["ceiling"] == 1.0
    assert np.isnan(cell["first", "all"]["ci_low"])
    assert set(table["judge_role"]) == {"judge"}


def test_the_interval_is_student_s_over_images(rng: np.random.Generator) -> None:
    values = rng.normal(size=(3, 8))
    scores = pd.DataFrame({"nsd_id": np.tile(np.arange(8), 3), "value": values.ravel()})
    scores["subject"] = np.repeat(["1", "2", "5"], 8)
    row = naming.mean_of_images(scores, 0.95)
    means = values.mean(axis=0)
    half = 2.3646 * means.std(ddof=1) / np.sqrt(8)  # t of 7 degrees of freedom
    assert row == {
        "value": pytest.approx(values.mean()),
        "ci_low": pytest.approx(values.mean() - half, abs=1e-4),
        "ci_high": pytest.approx(values.mean() + half, abs=1e-4),
        **{"n_images": 8, "n_subjects": 3},
    }
    bounded = naming.mean_of_images(scores, 0.95, least=0.0, most=0.0)
    assert float(bounded["ci_low"]) >= 0 >= float(bounded["ci_high"])
