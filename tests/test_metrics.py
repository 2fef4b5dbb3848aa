"""Scores equal their closed forms and the libraries the field uses."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.spatial.distance
import torch
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torch.nn import functional

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.types import Floats, Images
from minddiff_utils.evaluation import metrics
from minddiff_utils.evaluation.metrics import METRICS, ConditionImages
from minddiff_utils.evaluation.metrics.embeddings import (
    category_only_two_way,
    cosine_similarity,
    embedding_distance,
    frechet_distance,
    pairwise_correlation,
    share_beaten,
)
from minddiff_utils.evaluation.metrics.pixels import (
    PIXEL_SCORES,
    ssim_2d,
    ssim_2d_with_floor,
)

SIZES = ("ssim_2d", "ssim_percolumn_legacy", "pcc")
#: Two orders of summation in float64.
FLOAT64 = 1e-10
#: The call that most fMRI papers share.
PUBLISHED: Mapping[str, Any] = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "data_range": 1.0,
}


def _images(rng: np.random.Generator, n: int = 4, side: int = 20) -> Images:
    return rng.integers(0, 256, (n, side, side + 3, 3), dtype=np.uint8)


# --- pixels -------------------------------------------------------------------------


def _at_425(images: Images, path: str) -> Floats:
    """Resize as torch does: MindEye's two ways, and Brain-Diffuser's."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if path == "425 only":
        x = functional.interpolate(x, size=(425, 425), mode="bicubic", antialias=True)
        x = (x.clip(0, 1) * 255).round() / 255
    else:
        for side in (256, 425):
            x = functional.interpolate(
                x, size=(side, side), mode="bilinear", antialias=path == "256 aa"
            )
    return x.permute(0, 2, 3, 1).double().numpy()


def _by_library(name: str, a: Floats, b: Floats) -> float:
    """Score one pair of RGB images in 0..1 by numpy and scikit-image."""
    if name.startswith("pcc"):
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    x, y = rgb2gray(a), rgb2gray(b)
    if name.startswith("ssim_2d"):
        return float(structural_similarity(x, y, **PUBLISHED))
    columns = zip(x.T, y.T, strict=True)
    return float(
        np.mean([structural_similarity(*pair, **PUBLISHED) for pair in columns])
    )


@pytest.mark.parametrize("name", PIXEL_SCORES)
@pytest.mark.parametrize("side", [20, 300])  # at 425 px: enlarged, and reduced first
def test_pixel_scores_are_those_of_the_libraries(
    name: str, side: int, rng: np.random.Generator
) -> None:
    a, b = _images(rng, 2, side), _images(rng, 2, side)
    b[1] = 255 - a[1] // 2
    path = METRICS[name].path
    resized = path != "as given"
    given = [_at_425(x, path) if resized else x / 255.0 for x in (a, b)]
    expected = [_by_library(name, *pair) for pair in zip(*given, strict=True)]
    scores = PIXEL_SCORES[name](a, b)
    # at 425 px two implementations of one kernel, in float32; in 8 bits a level more
    accuracy = {"as given": FLOAT64, "425 only": 2e-3}.get(path, 1e-4)
    np.testing.assert_allclose(scores, expected, atol=accuracy)


@pytest.mark.parametrize("name", SIZES)
def test_the_three_paths_to_425_px_are_three_numbers(
    name: str, rng: np.random.Generator
) -> None:
    a, b = (rng.integers(0, 256, (1, 512, 512, 3), dtype=np.uint8) for _ in range(2))
    b = (b // 2 + a // 2).astype(np.uint8)
    suffixes = ("", "_425", "_425_no_aa", "_425_only")
    values = [PIXEL_SCORES[name + suffix](a, b)[0] for suffix in suffixes]
    assert np.abs(np.subtract.outer(values, values))[~np.eye(4, dtype=bool)].min() > 0
    there = (
        a[:, :425, :425],
        b[:, :425, :425],
    )  # Brain-Diffuser leaves these as they are
    kept = PIXEL_SCORES[f"{name}_425_only"](*there)
    np.testing.assert_allclose(kept, PIXEL_SCORES[name](*there), atol=FLOAT64)


@pytest.mark.parametrize("name", SIZES)
def test_equal_images_score_1_and_order_and_batch_do_not_matter(
    name: str, rng: np.random.Generator
) -> None:
    score, a, b = PIXEL_SCORES[name], _images(rng), _images(rng)
    np.testing.assert_allclose(score(a, a), 1.0, atol=FLOAT64)
    np.testing.assert_allclose(score(a, b), score(b, a), atol=FLOAT64)
    alone = [score(a[k : k + 1], b[k : k + 1])[0] for k in range(len(a))]
    np.testing.assert_array_equal(score(a, b), alone)


def test_ssim_of_two_flat_grays_is_the_luminance_term_alone() -> None:
    a = np.full((1, 16, 16, 3), 51, np.uint8)  # 0.2
    b = np.full((1, 16, 16, 3), 153, np.uint8)  # 0.6
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    for name in SIZES[:2]:
        # the gray weights sum to 1 within rounding
        np.testing.assert_allclose(PIXEL_SCORES[name](a, b), expected, atol=1e-6)


def test_the_two_ssims_are_different_numbers(rng: np.random.Generator) -> None:
    a = np.repeat(_images(rng, 3)[:, :, :1], 23, axis=2)  # constant along rows
    b = np.transpose(a[:, :, :20], (0, 2, 1, 3))
    b = np.concatenate([b, b[:, :, :3]], axis=2)
    two_d, by_column = (PIXEL_SCORES[name](a, b) for name in SIZES[:2])
    assert (np.abs(two_d - by_column) > 0.005).all()


@pytest.mark.parametrize("name", ["pcc", "pcc_425"])
def test_flat_images_are_counted_and_score_0_correlation(
    name: str, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = _images(rng), _images(rng)
    a[0], b[2] = 7, 255
    with caplog.at_level(logging.WARNING, "minddiff_utils.evaluation.metrics"):
        scores = PIXEL_SCORES[name](a, b)
    assert (scores == 0).tolist() == [True, False, True, False]
    assert caplog.messages == ["2 of 4 pairs do not vary: scored 0"]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.astype(np.float32),
        lambda x: x[:1],
        lambda x: x[..., :1],
        lambda x: x[:, :-1],
    ],
)
def test_sets_that_do_not_match_are_refused(
    name: str, spoil: Callable[[Images], Any], rng: np.random.Generator
) -> None:
    images = _images(rng)
    with pytest.raises(DataError, match=r"expected"):
        PIXEL_SCORES[name](images, spoil(images))


def test_images_smaller_than_ssim_s_window_are_refused(
    rng: np.random.Generator,
) -> None:
    small = _images(rng, side=10)
    with pytest.raises(DataError, match="10 x 13 px"):
        PIXEL_SCORES["ssim_2d"](small, small)


# --- embeddings ---------------------------------------------------------------------


def test_cosines_of_hand_made_vectors() -> None:
    a = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    b = np.array([[4.0, 3.0], [0.0, 2.0], [-2.0, -2.0]])
    np.testing.assert_allclose(cosine_similarity(a, b), [0.96, 0, -1], atol=FLOAT64)
    with pytest.raises(DataError, match="second embedding holds NaN"):
        cosine_similarity(np.ones((1, 2)), np.array([[np.nan, 1.0]]))


def test_embedding_distance_is_scipy_s_correlation_distance(
    rng: np.random.Generator,
) -> None:
    a, b = rng.normal(3, 1, size=(2, 7, 50)).astype(np.float32)
    b[1], b[2] = -a[1], 2 * a[2] + 1
    pairs = zip(a.astype(float), b.astype(float), strict=True)
    expected = [scipy.spatial.distance.correlation(x, y) for x, y in pairs]
    distance = embedding_distance(a, b)
    np.testing.assert_allclose(distance, expected, atol=FLOAT64)
    # 2 a + 1 was rounded to float32
    np.testing.assert_allclose(distance[1:3], [2.0, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("score", "flat", "expected"),
    [(cosine_similarity, 0.0, 0.0), (embedding_distance, 5.0, 1.0)],
)
def test_embeddings_that_do_not_vary_are_counted(
    score: Any, flat: float, expected: float, caplog: pytest.LogCaptureFixture
) -> None:
    a = np.array([[flat, flat, flat], [1.0, 2.0, 4.0]])
    with caplog.at_level(logging.WARNING, "minddiff_utils.evaluation.metrics"):
        scores = score(a, np.array([[1.0, 2.0, 4.0]] * 2))
    assert scores[0] == pytest.approx(expected, abs=FLOAT64)
    assert caplog.messages == ["1 of 2 embeddings do not vary: scored 0"]


# --- Fréchet distance ---------------------------------------------------------------


def _textbook(a: Floats, b: Floats) -> float:
    mean = a.mean(0) - b.mean(0)
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s_a @ s_b)
    return float(mean @ mean + np.trace(s_a + s_b - 2 * root.real))


def test_frechet_equals_the_matrix_square_root_and_sees_sets_not_pairs(
    rng: np.random.Generator,
) -> None:
    a = rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6))
    b = 1 + rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6))
    distance = frechet_distance(a, b)
    assert distance == pytest.approx(_textbook(a, b), rel=1e-8)  # sqrtm's precision
    assert distance == pytest.approx(frechet_distance(b, a[::-1]), rel=1e-10)


def test_frechet_of_two_gaussians_on_a_line_is_known() -> None:
    a = np.array([[-1.0], [0.0], [1.0]])  # mean 0, standard deviation 1
    b = np.array([[1.0], [4.0], [7.0]])  # mean 4, standard deviation 3
    assert frechet_distance(a, b) == pytest.approx(4.0**2 + (3.0 - 1.0) ** 2)


def test_frechet_holds_where_covariances_are_singular(
    rng: np.random.Generator,
) -> None:
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(6, 3))
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0][:3]  # 3 dimensions within 40
    wide = frechet_distance(a @ turn, b @ turn)
    assert wide == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert frechet_distance(a @ turn, a @ turn) == pytest.approx(0, abs=1e-12)


def test_frechet_needs_two_images_and_equal_features() -> None:
    with pytest.raises(DataError, match="has 1 row"):
        frechet_distance(np.ones((1, 3)), np.ones((4, 3)))
    with pytest.raises(DataError, match="second feature set has shape"):
        frechet_distance(np.ones((4, 3)), np.ones((4, 2)))


def test_frechet_table_pools_subjects_and_leaves_out_single_images(
    rng: np.random.Generator,
) -> None:
    truth = rng.normal(size=(8, 3))
    one, two = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    subjects = {"1": {"a": one, "b": one[:1]}, "2": {"a": two, "b": two[:1]}}
    other = rng.normal(size=(6, 3))
    truths = {"1": truth, "2": other, "all": truth}
    table = metrics.frechet_table(subjects, truths)
    cells = {(r.subject, r.method): (r.value, r.n) for r in table.itertuples()}
    assert list(cells) == [("1", "a"), ("2", "a"), ("all", "a"), ("all", "b")]
    both = np.concatenate([one, two])
    assert cells["all", "a"] == (frechet_distance(both, truth), 10)
    assert cells["2", "a"] == (frechet_distance(two, other), 5)
    with pytest.raises(ConfigError, match="'pcc', but must be one of: fid_judge"):
        metrics.frechet_table({}, {}, metric="pcc")


# --- two-way identification ---------------------------------------------------------


def _by_reconstruction(truth: Any, made: Any) -> Floats:
    return share_beaten(pairwise_correlation(truth, made))


def _by_truth(truth: Any, made: Any) -> Floats:
    return share_beaten(pairwise_correlation(truth, made).T)


def _by_definition(truth: Any, made: Any) -> Floats:
    """Count wins one comparison at a time."""
    n = len(truth)
    r = [[np.corrcoef(truth[i], made[j])[0, 1] for j in range(n)] for i in range(n)]
    wins = [[r[j][j] > r[i][j] for i in range(n) if i != j] for j in range(n)]
    return np.mean(wins, axis=1)


@pytest.mark.parametrize(
    ("n_features", "noise"),
    [(12, 2.0), (20_001, 150.0)],  # and more than two blocks
)
def test_two_way_equals_counting_comparisons(
    n_features: int, noise: float, rng: np.random.Generator
) -> None:
    truth = rng.normal(size=(7, n_features)).astype(np.float32)
    made = truth + noise * rng.normal(size=truth.shape).astype(np.float32)
    expected = _by_definition(truth, made)
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(_by_reconstruction(truth, made), expected)
    np.testing.assert_allclose(_by_truth(made, truth), expected)
    assert not np.array_equal(_by_truth(truth, made), expected)


@pytest.mark.parametrize("rule", [_by_reconstruction, _by_truth])
def test_features_that_know_nothing_score_half_and_perfect_ones_1(
    rule: Any, rng: np.random.Generator
) -> None:
    scores = [rule(*rng.normal(size=(2, 20, 8))).mean() for _ in range(200)]
    error = np.std(scores, ddof=1) / np.sqrt(len(scores))
    assert abs(np.mean(scores) - 0.5) < 4 * error  # fails by chance once in 16,000
    assert error < 0.01  # so that a bias of 0.04 would be seen
    truth = rng.normal(size=(5, 8))
    np.testing.assert_array_equal(rule(truth, 3 * truth + 1), 1.0)


def test_one_image_for_every_brain_is_a_tie(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(30, 16)).astype(np.float32)
    same = np.repeat(rng.normal(size=(1, 16)), 30, axis=0).astype(np.float32)
    same[20:] *= 1 + 1e-7  # as another batch size leaves it
    np.testing.assert_array_equal(_by_truth(truth, same), 0.5)
    # every pair is won by one of the two
    assert _by_reconstruction(truth, same).mean() == pytest.approx(0.5)


def test_constant_embeddings_are_counted_and_tie(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    truth = rng.normal(size=(4, 8))
    with caplog.at_level(logging.WARNING, "minddiff_utils.evaluation.metrics"):
        flat = _by_truth(truth, np.full((4, 8), 1e6 / 3))
    np.testing.assert_array_equal(flat, 0.5)
    assert caplog.messages == ["4 of 4 embeddings do not vary: scored 0"]


def test_two_way_needs_two_images() -> None:
    with pytest.raises(DataError, match=r"raise data\.n_reconstruct"):
        pairwise_correlation(np.ones((1, 3)), np.ones((1, 3)))
    with pytest.raises(DataError, match="categories of 1 were given"):
        category_only_two_way(["a"])


def test_the_category_alone_is_what_one_hot_reconstructions_score(
    rng: np.random.Generator,
) -> None:
    categories = rng.integers(0, 4, 30)
    one_hot = np.eye(4)[categories]  # ties within a category count half
    expected = category_only_two_way(categories.tolist())
    assert _by_truth(one_hot, one_hot).mean() == pytest.approx(expected, abs=FLOAT64)
    for k in (2, 5, 40):
        images = np.repeat(np.arange(k), 1000)  # 1/n is what the closed form leaves out
        share = category_only_two_way(images.tolist())
        assert share == pytest.approx(0.5 / k + 1 - 1 / k, abs=1e-3)
    # of six comparisons two are within the category, four between
    assert category_only_two_way(["a", "a", "b"]) == pytest.approx(5 / 6)


# --- conditions ---------------------------------------------------------------------


def _embed(images: Images) -> Floats:
    return images.reshape(len(images), -1)[:, ::7].astype(np.float64)


QUICK = ("ssim_2d", "pcc")
SLOW = [name for name, metric in METRICS.items() if metric.on_request]
EMBEDDERS = {
    "clip_judge": _embed,
    "clip_method": lambda x: _embed(x)[:, ::2],
    "lite0_late": lambda x: _embed(x)[:, 1::2],
}


def _condition(method: str, images: Images, ids: Any = None) -> ConditionImages:
    ids = np.arange(len(images)) + 100 if ids is None else np.asarray(ids)
    return ConditionImages(method, ids, images)


def _scored(images: Images, truth: Images) -> dict[str, pd.DataFrame]:
    """Score one condition; by metric its rows."""
    made, seen = _condition("stage1", images), _condition("truth", truth)
    table = metrics.score_methods(1, [made], seen, EMBEDDERS).table
    return {str(metric): rows for metric, rows in table.groupby("metric")}


def test_floors_are_the_means_over_other_images(rng: np.random.Generator) -> None:
    images, truth = _images(rng, 8), _images(rng, 8)
    tables = _scored(images, truth)
    scores: dict[str, Callable[[Images, Images], Floats]] = {
        "pcc": PIXEL_SCORES["pcc"],
        "clip_judge": lambda a, b: cosine_similarity(_embed(a), _embed(b)),
        "lite0_distance": lambda a, b: embedding_distance(
            *(EMBEDDERS["lite0_late"](x) for x in (a, b))
        ),
    }
    for name, score in scores.items():
        for row in range(8):
            others = [k for k in range(8) if k != row]
            pairs = [score(images[[row]], truth[[k]])[0] for k in others]
            assert tables[name]["floor"].iloc[row] == pytest.approx(np.mean(pairs))
    for name in ("two_way_by_truth", "lite0_late"):
        assert set(tables[name]["floor"]) == {0.5}


@pytest.mark.parametrize("n", [2, 3, 7])
def test_floors_never_meet_the_own_image(n: int, rng: np.random.Generator) -> None:
    truth = _images(rng, n)
    tables = _scored(truth, truth)  # the own image would score 1
    for name in QUICK:
        assert tables[name]["floor"].max() < 0.9


def test_a_single_image_has_scores_but_no_floor(rng: np.random.Generator) -> None:
    image = _images(rng, 1)
    table = pd.concat(_scored(image, image).values())
    assert set(table["metric"]) == {
        *("clip_judge", "clip_method", "lite0_distance", *QUICK)
    }
    assert table["floor"].isna().all()
    expected = (table["metric"] != "lite0_distance").astype(float)
    np.testing.assert_allclose(table["value"], expected, atol=FLOAT64)


def test_every_metric_of_the_table_is_declared_and_can_be_scored(
    rng: np.random.Generator,
) -> None:
    networks = {m.network for m in METRICS.values() if m.network is not None}
    scored = metrics.score_methods(
        2,
        [_condition("stage1", _images(rng, 2))],
        _condition("truth", _images(rng, 2)),
        dict.fromkeys(networks, _embed),
        extra=SLOW,
    )
    table = scored.table
    sets = [k for k, m in METRICS.items() if m.rule == "frechet"]
    assert sorted({*table["metric"], *sets}) == sorted(METRICS)
    assert sorted(scored.sets) == sorted(sets) == ["fid_inception", "fid_judge"]
    assert table.columns.tolist() == [
        *("subject", "method", "nsd_id", "metric", "value", "floor")
    ]
    assert len(table) == 2 * (len(METRICS) - len(sets))
    assert table[["value", "floor"]].notna().all(axis=None)
    assert scored.sets["fid_judge"]["stage1"].shape[0] == 2


def test_each_embedder_gives_the_metrics_that_follow_from_it(
    rng: np.random.Generator,
) -> None:
    images, truth = rng.normal(size=(2, 6, 9))
    made, seen = _condition("stage1", _images(rng, 6)), _condition("t", _images(rng, 6))

    def look(pictures: Images) -> np.ndarray:
        return images if np.array_equal(pictures, made.images) else truth

    names = ("clip_judge", "lite0_late", "alexnet2", "inception_fid")
    table = metrics.score_methods(1, [made], seen, dict.fromkeys(names, look)).table
    both = _by_reconstruction(truth, images), _by_truth(truth, images)
    expected = {
        "clip_judge": cosine_similarity(images, truth),
        "two_way_by_reconstruction": both[0],
        "two_way_by_truth": both[1],
        "lite0_late": both[0],
        "alexnet2": both[0],
        "alexnet2_by_truth": both[1],
        "lite0_distance": embedding_distance(images, truth),
    }
    scores = dict(iter(table.groupby("metric")["value"]))
    assert set(scores) == {*QUICK, *expected}
    for name, values in expected.items():
        np.testing.assert_array_equal(scores[name], values)


def test_a_partial_condition_meets_its_own_truths(rng: np.random.Generator) -> None:
    truth = _condition("truth", _images(rng, 6))
    part = _condition("stage2_paper", truth.images[[4, 1]], [104, 101])
    table = metrics.score_methods(1, [part], truth, EMBEDDERS).table
    pcc = table[table["metric"] == "pcc"]
    assert pcc["nsd_id"].tolist() == [104, 101]
    np.testing.assert_allclose(pcc["value"], 1.0)
    assert (pcc["floor"] < 0.5).all()


def test_scores_do_not_depend_on_the_other_conditions(
    rng: np.random.Generator,
) -> None:
    truth = _condition("truth", _images(rng))
    a, b = _condition("a", _images(rng)), _condition("b", _images(rng))
    both = metrics.score_methods(1, [b, a], truth, EMBEDDERS).table
    alone = metrics.score_methods(1, [a], truth, EMBEDDERS).table
    assert both[both["method"] == "a"].reset_index(drop=True).equals(alone)


def test_what_cannot_be_scored_is_refused(rng: np.random.Generator) -> None:
    truth = _condition("truth", _images(rng))
    strange = _condition("stage1", _images(rng, 1), [7])
    unknown = {**EMBEDDERS, "alexnet9": _embed}
    for error, words, conditions, embedders, extra in (
        (DataError, r"stage1 holds images \[7\]", [strange], EMBEDDERS, []),
        (DataError, "no images to score", [], EMBEDDERS, []),
        (DataError, "clip_judge is missing", [truth], {"clip_method": _embed}, []),
        (ConfigError, "'alexnet9', but must be one of", [truth], unknown, []),
        (
            ConfigError,
            "'ssim', but must be one of: ssim_percolumn_legacy",
            [truth],
            EMBEDDERS,
            ["ssim"],
        ),
    ):
        with pytest.raises(error, match=words):
            metrics.score_methods(1, conditions, truth, embedders, extra=extra)


# --- definitions --------------------------------------------------------------------


def test_the_table_of_definitions_tells_what_is_scored_and_why_not() -> None:
    absent = {"alexnet2": "Not scored: alexnet2's file is missing."}
    table = metrics.definitions(absent, extra=["pcc_425"])
    assert table.columns.tolist() == [
        *("metric", "label", "network", "path", "settings", "used_by", "judge_role"),
        *("higher_is_better", "state"),
    ]
    assert table["metric"].tolist() == list(METRICS)
    assert (table.drop(columns="higher_is_better") != "").all(axis=None)
    assert not table[["label", "settings", "used_by"]].duplicated().any()
    state = table.set_index("metric")["state"]
    assert set(state[["alexnet2", "alexnet2_by_truth"]]) == set(absent.values())
    assert set(state[["pcc_425", "alexnet2_bd", "lite0_late"]]) == {"scored"}
    assert "ssim_2d_425 must be asked for" in state["ssim_2d_425"]
    assert (metrics.definitions({}, extra=SLOW)["state"] == "scored").all()


def test_settings_say_how_ties_count_and_what_takagi_does_first() -> None:
    for metric in METRICS.values():
        assert ("tie counts half" in metric.settings) == metric.rule.startswith("two_")
        assert ("five samples" in metric.settings) == (
            metric.rule == "two_way_by_truth"
        )


def test_only_distances_are_better_when_lower_and_only_lite0_made_the_brain() -> None:
    lower = {k for k, m in METRICS.items() if not m.higher_is_better}
    assert lower == {
        *("fid_judge", "fid_inception", "effnet_b1_v1", "effnet_b1_v2", "swav"),
        *("effnet_b1_bd", "swav_bd", "lite0_distance"),
    }
    marked = {k for k, m in METRICS.items() if "simulated" in m.judge_role}
    assert marked == {"lite0_early", "lite0_middle", "lite0_late", "lite0_distance"}


def test_ssim_and_its_floor_are_scikit_images_with_own_and_next_images(
    rng: np.random.Generator,
) -> None:
    images, truth = rng.integers(0, 255, (2, 4, 20, 24, 3)).astype(np.uint8)
    moved = [np.roll(truth, -shift, axis=0) for shift in (1, 2, 3)]
    expected = np.mean([ssim_2d(images, other) for other in moved], axis=0)
    own, floor = ssim_2d_with_floor(images, truth, 3)
    # the same moments, in another order of sums
    np.testing.assert_allclose(own, ssim_2d(images, truth), atol=1e-12)
    np.testing.assert_allclose(floor, expected, atol=1e-12)
