"""Brain correlation: an encoding model that recovers a planted brain, and patterns."""

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.areas import AREAS
from minddiff_utils.evaluation.further import brain_correlation as brain


def test_the_encoder_predicts_a_linear_brain_of_new_images(
    rng: np.random.Generator,
) -> None:
    latent = rng.normal(size=(400, 12))
    layers = [latent @ rng.normal(size=(12, k)) for k in (30, 40)]
    true = latent @ rng.normal(size=(12, 25))
    measured = true + 0.5 * rng.normal(size=true.shape)
    encoder = brain.fit_encoder([x[:300] for x in layers], measured[:300], seed=1)
    predicted = encoder.predict([x[300:] for x in layers])
    r = brain.pattern_correlation(predicted, true[300:])
    assert np.diag(r).mean() > 0.95
    others = r[~np.eye(100, dtype=bool)]
    assert abs(others.mean()) < 0.05  # another image's responses: no correlation
    noise = brain.fit_encoder(
        [rng.normal(size=x[:300].shape) for x in layers], measured[:300], seed=1
    )
    blind = brain.pattern_correlation(
        noise.predict([rng.normal(size=x[300:].shape) for x in layers]), true[300:]
    )
    assert abs(np.diag(blind).mean()) < 0.1


def test_the_encoder_is_ridge_with_the_best_penalty_of_each_voxel(
    rng: np.random.Generator,
) -> None:
    """By hand: every image left out in turn, for every penalty; PCA only rotates."""
    layers = [rng.normal(size=(30, k)) for k in (4, 3)]
    responses = np.concatenate(layers, axis=1) @ rng.normal(size=(7, 5))
    responses += np.array([0.1, 1, 3, 10, 30]) * rng.normal(size=(30, 5))
    X = np.concatenate([(x - x.mean(0)) / x.std(0) for x in layers], axis=1)

    def fit(
        rows: np.ndarray, alpha: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean, base = X[rows].mean(0), responses[rows].mean(0)
        A = X[rows] - mean
        inverse = np.linalg.inv(A.T @ A + alpha * np.eye(7))
        return inverse @ A.T @ (responses[rows] - base), mean, base

    every, errors = np.arange(30), []
    for alpha in brain._ALPHAS:
        left = [(k, *fit(np.delete(every, k), alpha)) for k in every]
        off = [responses[k] - ((X[k] - mean) @ w + base) for k, w, mean, base in left]
        errors.append(np.square(off).mean(axis=0))
    best = brain._ALPHAS[np.argmin(errors, axis=0)]
    assert len(set(best)) > 1
    expected = np.column_stack(
        [(X @ fit(every, alpha)[0])[:, v] for v, alpha in enumerate(best)]
    )
    encoder = brain.fit_encoder(layers, responses, seed=0)
    predicted = encoder.predict(layers) - responses.mean(axis=0)
    np.testing.assert_allclose(predicted, expected, atol=1e-8)


def test_blocks_of_voxels_change_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, responses = [rng.normal(size=(60, 8))], rng.normal(size=(60, 9))
    whole = brain.fit_encoder(layers, responses, seed=0).predict(layers)
    monkeypatch.setattr(brain, "_AT_ONCE", 60 * 4)
    parts = brain.fit_encoder(layers, responses, seed=0).predict(layers)
    np.testing.assert_allclose(parts, whole, rtol=1e-9)


def test_pattern_correlation_is_pearson_s_over_voxels(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(4, 30)), rng.normal(size=(6, 30))
    expected = [[np.corrcoef(x, y)[0, 1] for y in b] for x in a]
    np.testing.assert_allclose(brain.pattern_correlation(a, b), expected, atol=1e-12)
    a[0] = 3.0
    assert (brain.pattern_correlation(a, b)[0] == 0).all()


def test_area_sets_leave_out_areas_of_few_voxels() -> None:
    roi = np.repeat([0, 5, 8], [30, 25, 19])  # V1, VO, MT
    sets = brain.area_sets(roi, AREAS)
    assert list(sets) == ["all", "LVC", "HVC", "V1", "VO"]
    assert [int(mask.sum()) for mask in sets.values()] == [74, 30, 44, 30, 25]


def test_the_table_has_the_true_image_of_the_same_images_as_ceiling() -> None:
    rows = [
        ("1", "truth", 7, 0.6, 0.0), ("1", "truth", 9, 0.2, 0.1),
        ("1", "stage1", 7, 0.3, -0.1),
    ]  # fmt: skip
    columns = ["subject", "method", "nsd_id", "value", "floor"]
    scores = pd.DataFrame(rows, columns=columns).assign(metric="brain_LVC")
    table = brain.brain_correlation_table(scores, role="judge", confidence=0.95)
    row = table.set_index("method").loc["stage1"]
    assert (row["area_set"], row["value"], row["ceiling"]) == ("LVC", 0.3, 0.6)
    assert (row["floor"], row["n_images"]) == (-0.1, 1)
    assert table["judge_role"].eq("judge").all()
    both = pd.concat([scores, scores.assign(metric="true_brain_LVC")])
    table = brain.brain_correlation_table(both, role="judge", confidence=0.95)
    own = table[table["through"] == "true simulated brain"]
    assert own["value"].tolist() == table["value"].tolist()[:2]
    assert own["area_set"].eq("LVC").all()
    assert "judge" not in set(own["judge_role"])


def test_permuted_voxels_keep_how_strongly_the_brain_responded(
    rng: np.random.Generator,
) -> None:
    """What the floor of permuted voxels has beyond another image's responses."""
    level, gain = rng.normal(size=(300, 1)), 1 + 0.7 * rng.normal(size=200)
    rest = rng.normal(size=(300, 40)) @ rng.normal(size=(40, 200)) / 40**0.5
    responses = level * gain + rest  # voxels share the level, each by its gain
    known = responses[:150] - responses[:150].mean(axis=0)
    _, _, components = np.linalg.svd(known, full_matrices=False)
    read = components[:20].T @ components[:20]  # a decoder's view of responses

    def above_others(voxels: np.ndarray) -> float:
        r = brain.pattern_correlation(voxels[150:] @ read, responses[150:])
        return float(np.diag(r).mean() - r[~np.eye(150, dtype=bool)].mean())

    moved = [responses[:, rng.permutation(200)] for _ in range(20)]
    assert np.mean([above_others(m) for m in moved]) > 0.2
    without = [m - m.mean(axis=1, keepdims=True) for m in moved]
    # SD of .03 over permutations: .007 of the mean of 20
    assert abs(np.mean([above_others(m) for m in without])) < 0.03
