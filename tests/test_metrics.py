"""Scores equal their closed forms and the libraries the field uses."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
import scipy.spatial.distance
import torch
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torch.nn import functional

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.evaluation import metrics
from minddiff_utils.evaluation.metrics import ConditionImages

Images = npt.NDArray[np.uint8]
PIXEL_SCORES = [
    metrics.ssim_2d,
    metrics.ssim_percolumn_legacy,
    metrics.pixel_correlation,
]
#: Two orders of summation in float64.
FLOAT64 = 1e-10


def _images(rng: np.random.Generator, n: int = 4, side: int = 20) -> Images:
    return rng.integers(0, 256, (n, side, side + 3, 3), dtype=np.uint8)


# --- pixels -------------------------------------------------------------------------


@pytest.mark.parametrize("score", PIXEL_SCORES)
def test_equal_images_score_1(score: Any, rng: np.random.Generator) -> None:
    images = _images(rng)
    np.testing.assert_allclose(score(images, images), 1.0, atol=FLOAT64)


@pytest.mark.parametrize("score", PIXEL_SCORES)
def test_the_order_of_the_two_sets_does_not_matter(
    score: Any, rng: np.random.Generator
) -> None:
    a, b = _images(rng), _images(rng)
    np.testing.assert_allclose(score(a, b), score(b, a), atol=FLOAT64)


@pytest.mark.parametrize("score", PIXEL_SCORES)
def test_a_pair_s_score_does_not_depend_on_its_batch(
    score: Any, rng: np.random.Generator
) -> None:
    a, b = _images(rng), _images(rng)
    alone = [score(a[k : k + 1], b[k : k + 1])[0] for k in range(len(a))]
    np.testing.assert_array_equal(score(a, b), alone)


def test_ssim_2d_is_scikit_image_s_with_the_published_arguments(
    rng: np.random.Generator,
) -> None:
    a, b = _images(rng), _images(rng)
    b[0] = a[0] // 2
    expected = [
        structural_similarity(
            rgb2gray(x),
            rgb2gray(y),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim_2d(a, b), expected, atol=FLOAT64)


def test_ssim_of_two_flat_grays_is_the_luminance_term_alone() -> None:
    a = np.full((1, 16, 16, 3), 51, np.uint8)  # 0.2
    b = np.full((1, 16, 16, 3), 153, np.uint8)  # 0.6
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    for score in (metrics.ssim_2d, metrics.ssim_percolumn_legacy):
        # the gray weights sum to 1 within rounding
        np.testing.assert_allclose(score(a, b), expected, atol=1e-6)


def test_legacy_ssim_is_the_mean_of_one_dimensional_ssims(
    rng: np.random.Generator,
) -> None:
    a, b = _images(rng, 2), _images(rng, 2)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = []
    for x, y in zip(rgb2gray(a / 255.0), rgb2gray(b / 255.0), strict=True):
        columns = [
            structural_similarity(x[:, k], y[:, k], data_range=1.0, **options)
            for k in range(x.shape[1])
        ]
        expected.append(np.mean(columns))
    found = metrics.ssim_percolumn_legacy(a, b)
    np.testing.assert_allclose(found, expected, atol=FLOAT64)


def test_the_two_ssims_are_different_numbers(rng: np.random.Generator) -> None:
    a = np.repeat(_images(rng, 3)[:, :, :1], 23, axis=2)  # constant along rows
    b = np.transpose(a[:, :, :20], (0, 2, 1, 3))
    b = np.concatenate([b, b[:, :, :3]], axis=2)
    difference = metrics.ssim_2d(a, b) - metrics.ssim_percolumn_legacy(a, b)
    assert (np.abs(difference) > 0.005).all()


def test_pixel_correlation_is_numpy_s_over_all_rgb_values(
    rng: np.random.Generator,
) -> None:
    a, b = _images(rng), _images(rng)
    b[1] = 255 - a[1]
    expected = [
        np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)
    ]
    found = metrics.pixel_correlation(a, b)
    np.testing.assert_allclose(found, expected, atol=FLOAT64)
    assert found[1] == pytest.approx(-1.0)


def test_flat_images_are_counted_and_score_0_correlation(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = _images(rng), _images(rng)
    a[0], b[2] = 7, 255
    with caplog.at_level(logging.WARNING, "minddiff_utils.evaluation.metrics"):
        found = metrics.pixel_correlation(a, b)
    assert (found == 0).tolist() == [True, False, True, False]
    assert caplog.messages == ["2 of 4 pairs do not vary: scored 0"]


@pytest.mark.parametrize("score", PIXEL_SCORES)
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
    score: Any, spoil: Callable[[Images], Any], rng: np.random.Generator
) -> None:
    images = _images(rng)
    with pytest.raises(DataError, match=r"expected"):
        score(images, spoil(images))


def test_images_smaller_than_ssim_s_window_are_refused(
    rng: np.random.Generator,
) -> None:
    small = _images(rng, side=10)
    with pytest.raises(DataError, match="10 x 13 px"):
        metrics.ssim_2d(small, small)


# --- pixels at 425 px ----------------------------------------------------------------


def _at_425(images: Images) -> npt.NDArray[np.float64]:
    """Resize as torchvision resizes tensors, MindEye's way."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    for side in (256, 425):
        x = functional.interpolate(
            x, size=(side, side), mode="bilinear", antialias=True
        )
    return x.permute(0, 2, 3, 1).double().numpy()


@pytest.mark.parametrize("side", [20, 300])  # enlarged, and reduced first
def test_pcc_425_is_numpy_s_at_torchvision_s_425_px(
    side: int, rng: np.random.Generator
) -> None:
    a, b = _images(rng, 2, side), _images(rng, 2, side)
    b[1] = a[1] // 2
    pairs = zip(_at_425(a), _at_425(b), strict=True)
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in pairs]
    # float32 pixels, two implementations of one kernel
    np.testing.assert_allclose(metrics.pcc_425(a, b), expected, atol=1e-5)
    assert abs(metrics.pcc_425(a, b)[0] - metrics.pixel_correlation(a, b)[0]) > 1e-4


def test_the_ssims_425_are_scikit_image_s_at_torchvision_s_425_px(
    rng: np.random.Generator,
) -> None:
    a, b = _images(rng, 1, 64), _images(rng, 1, 64)
    options: dict[str, Any] = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
    }
    x, y = (rgb2gray(_at_425(images)[0]) for images in (a, b))
    whole = structural_similarity(x, y, **options)
    columns = [structural_similarity(x[:, k], y[:, k], **options) for k in range(425)]
    # float32 pixels, two implementations of one kernel
    np.testing.assert_allclose(metrics.ssim_2d_425(a, b), whole, atol=1e-4)
    found = metrics.ssim_percolumn_legacy_425(a, b)
    np.testing.assert_allclose(found, np.mean(columns), atol=1e-4)
    assert abs(found[0] - whole) > 0.01


def test_a_flat_image_scores_0_at_425_px_too(rng: np.random.Generator) -> None:
    a, b = _images(rng, 2), _images(rng, 2)
    a[0] = 77
    found = metrics.pcc_425(a, b)
    assert found[0] == 0
    assert found[1] != 0


# --- embeddings ---------------------------------------------------------------------


def test_cosines_of_hand_made_vectors() -> None:
    a = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    b = np.array([[4.0, 3.0], [0.0, 2.0], [-2.0, -2.0]])
    found = metrics.cosine_similarity(a, b)
    np.testing.assert_allclose(found, [0.96, 0.0, -1.0], atol=FLOAT64)


def test_empty_embeddings_are_counted_and_score_0(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a = np.array([[0.0, 0.0], [1.0, 0.0]])
    with caplog.at_level(logging.WARNING, "minddiff_utils.evaluation.metrics"):
        assert metrics.cosine_similarity(a, np.ones((2, 2))).tolist()[0] == 0.0
    assert caplog.messages == ["1 of 2 embeddings do not vary: scored 0"]


def test_embedding_distance_is_scipy_s_correlation_distance(
    rng: np.random.Generator,
) -> None:
    a, b = rng.normal(3, 1, size=(2, 7, 50)).astype(np.float32)
    b[1], b[2] = -a[1], 2 * a[2] + 1
    expected = [
        scipy.spatial.distance.correlation(x.astype(float), y.astype(float))
        for x, y in zip(a, b, strict=True)
    ]
    found = metrics.embedding_distance(a, b)
    np.testing.assert_allclose(found, expected, atol=FLOAT64)
    # 2 a + 1 was rounded to float32
    np.testing.assert_allclose(found[1:3], [2.0, 0.0], atol=1e-6)
    alone = [metrics.embedding_distance(a[[k]], b[[k]])[0] for k in range(7)]
    np.testing.assert_allclose(found, alone, atol=FLOAT64)  # n does not matter


def test_an_embedding_that_does_not_vary_is_counted_and_at_distance_1(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a = np.array([[5.0, 5.0, 5.0], [1.0, 2.0, 4.0]])
    with caplog.at_level(logging.WARNING, "minddiff_utils.evaluation.metrics"):
        found = metrics.embedding_distance(a, np.array([[1.0, 2.0, 4.0]] * 2))
    np.testing.assert_allclose(found, [1.0, 0.0], atol=FLOAT64)
    assert caplog.messages == ["1 of 2 embeddings do not vary: scored 0"]


def test_a_nan_in_an_embedding_is_refused() -> None:
    with pytest.raises(DataError, match="second embedding holds NaN"):
        metrics.cosine_similarity(np.ones((1, 2)), np.array([[np.nan, 1.0]]))


# --- Fréchet distance ---------------------------------------------------------------


def _textbook(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    mean = a.mean(0) - b.mean(0)
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s_a @ s_b)
    return float(mean @ mean + np.trace(s_a + s_b - 2 * root.real))


def test_frechet_equals_the_matrix_square_root_at_full_rank(
    rng: np.random.Generator,
) -> None:
    a = rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6))
    b = 1 + rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6))
    found = metrics.frechet_distance(a, b)
    assert found == pytest.approx(_textbook(a, b), rel=1e-8)  # sqrtm's own precision
    assert found == pytest.approx(metrics.frechet_distance(b, a), rel=1e-10)


def test_frechet_of_two_gaussians_on_a_line_is_known() -> None:
    a = np.array([[-1.0], [0.0], [1.0]])  # mean 0, standard deviation 1
    b = np.array([[1.0], [4.0], [7.0]])  # mean 4, standard deviation 3
    assert metrics.frechet_distance(a, b) == pytest.approx(4.0**2 + (3.0 - 1.0) ** 2)


def test_frechet_holds_where_covariances_are_singular(
    rng: np.random.Generator,
) -> None:
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(6, 3))
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0][:3]  # 3 dimensions within 40
    wide = metrics.frechet_distance(a @ turn, b @ turn)
    assert wide == pytest.approx(metrics.frechet_distance(a, b), rel=1e-9)
    assert metrics.frechet_distance(a @ turn, a @ turn) == pytest.approx(0, abs=1e-12)


def test_frechet_sees_sets_and_not_pairs(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(9, 4)), rng.normal(size=(9, 4))
    shuffled = metrics.frechet_distance(a[::-1], b)
    assert shuffled == pytest.approx(metrics.frechet_distance(a, b), rel=1e-10)


def test_frechet_needs_two_images_and_equal_features() -> None:
    with pytest.raises(DataError, match="has 1 row"):
        metrics.frechet_distance(np.ones((1, 3)), np.ones((4, 3)))
    with pytest.raises(DataError, match="second feature set has shape"):
        metrics.frechet_distance(np.ones((4, 3)), np.ones((4, 2)))


def test_frechet_table_pools_subjects_and_leaves_out_single_images(
    rng: np.random.Generator,
) -> None:
    truth = rng.normal(size=(8, 3))
    one, two = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    subjects = {"1": {"a": one, "b": one[:1]}, "2": {"a": two, "b": two[:1]}}
    other = rng.normal(size=(6, 3))
    truths = {"1": truth, "2": other, "all": truth}
    table = metrics.frechet_table(subjects, truths)
    found = {(r.subject, r.method): (r.value, r.n) for r in table.itertuples()}
    assert list(found) == [("1", "a"), ("2", "a"), ("all", "a"), ("all", "b")]
    both = np.concatenate([one, two])
    assert found["all", "a"] == (metrics.frechet_distance(both, truth), 10)
    assert found["2", "a"] == (metrics.frechet_distance(two, other), 5)


# --- two-way identification ---------------------------------------------------------


def _by_definition(truth: Any, made: Any) -> npt.NDArray[np.float64]:
    """Count wins one comparison at a time."""
    n = len(truth)
    r = [[np.corrcoef(truth[i], made[j])[0, 1] for j in range(n)] for i in range(n)]
    wins = [[r[j][j] > r[i][j] for i in range(n) if i != j] for j in range(n)]
    return np.mean(wins, axis=1)


def test_two_way_equals_counting_comparisons(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(7, 12))
    made = truth + 2 * rng.normal(size=(7, 12))
    found = metrics.two_way_by_reconstruction(truth, made)
    np.testing.assert_allclose(found, _by_definition(truth, made))
    assert 0.5 < found.mean() < 1


def test_the_two_rules_are_each_other_s_transpose(rng: np.random.Generator) -> None:
    truth, made = rng.normal(size=(2, 6, 9))
    np.testing.assert_array_equal(
        metrics.two_way_by_truth(truth, made),
        metrics.two_way_by_reconstruction(made, truth),
    )
    swapped = metrics.two_way_by_reconstruction(truth, made)
    assert not np.array_equal(metrics.two_way_by_truth(truth, made), swapped)


@pytest.mark.parametrize(
    "rule", [metrics.two_way_by_reconstruction, metrics.two_way_by_truth]
)
def test_features_that_know_nothing_score_half(
    rule: Any, rng: np.random.Generator
) -> None:
    scores = [rule(*rng.normal(size=(2, 20, 8))).mean() for _ in range(200)]
    error = np.std(scores, ddof=1) / np.sqrt(len(scores))
    assert abs(np.mean(scores) - 0.5) < 4 * error  # fails by chance once in 16,000
    assert error < 0.01  # so that a bias of 0.04 would be seen


@pytest.mark.parametrize(
    "rule", [metrics.two_way_by_reconstruction, metrics.two_way_by_truth]
)
def test_perfect_features_score_1(rule: Any, rng: np.random.Generator) -> None:
    truth = rng.normal(size=(5, 8))
    np.testing.assert_array_equal(rule(truth, 3 * truth + 1), 1.0)


def test_one_image_for_every_brain_is_a_tie(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(30, 16)).astype(np.float32)
    same = np.repeat(rng.normal(size=(1, 16)), 30, axis=0).astype(np.float32)
    same[20:] *= 1 + 1e-7  # as another batch size leaves it
    np.testing.assert_array_equal(metrics.two_way_by_truth(truth, same), 0.5)
    rows = metrics.two_way_by_reconstruction(truth, same)
    assert rows.mean() == pytest.approx(0.5)  # every pair is won by one of the two


def test_constant_embeddings_are_counted_and_tie(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    truth = rng.normal(size=(4, 8))
    with caplog.at_level(logging.WARNING, "minddiff_utils.evaluation.metrics"):
        flat = metrics.two_way_by_truth(truth, np.full((4, 8), 1e6 / 3))
    np.testing.assert_array_equal(flat, 0.5)
    assert caplog.messages == ["4 of 4 embeddings do not vary: scored 0"]


def test_two_way_of_wide_features_is_that_of_numpy(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(5, 20_001)).astype(np.float32)  # more than two blocks
    made = truth + 150 * rng.normal(size=truth.shape).astype(np.float32)
    found = metrics.two_way_by_reconstruction(truth, made)
    np.testing.assert_allclose(found, _by_definition(truth, made))
    assert 0 < found.mean() < 1


def test_the_category_alone_scores_its_closed_form() -> None:
    for k in (2, 5, 40):
        images = np.repeat(np.arange(k), 1000)  # 1/n is what the closed form leaves out
        found = metrics.category_only_two_way(images.tolist(), 0.5, 0.9)
        assert found == pytest.approx(0.5 / k + (1 - 1 / k) * 0.9, abs=1e-3)


def test_the_category_alone_of_a_hand_made_case() -> None:
    # a, a, b: of six comparisons two are within the category, four between
    found = metrics.category_only_two_way(["a", "a", "b"], within=0.5, between=0.75)
    assert found == pytest.approx((2 * 0.5 + 4 * 0.75) / 6)
    assert metrics.category_only_two_way(["a", "a"]) == 0.5
    assert metrics.category_only_two_way([1, 2, 3]) == 1.0


def test_the_category_alone_is_what_one_hot_reconstructions_score(
    rng: np.random.Generator,
) -> None:
    categories = rng.integers(0, 4, 30)
    one_hot = np.eye(4)[categories]  # ties within a category count half
    found = metrics.two_way_by_reconstruction(one_hot, one_hot).mean()
    expected = metrics.category_only_two_way(categories.tolist())
    assert found == pytest.approx(expected, abs=FLOAT64)


def test_the_category_alone_needs_two_images_and_probabilities() -> None:
    with pytest.raises(DataError, match="categories of 1 were given"):
        metrics.category_only_two_way(["a"])
    with pytest.raises(DataError, match=r"both must be in \[0, 1\]"):
        metrics.category_only_two_way(["a", "b"], between=1.5)


def test_two_way_needs_two_images() -> None:
    with pytest.raises(DataError, match=r"raise data\.n_reconstruct"):
        metrics.two_way_by_truth(np.ones((1, 3)), np.ones((1, 3)))


# --- conditions ---------------------------------------------------------------------


def _embed(images: Images) -> npt.NDArray[np.float64]:
    return images.reshape(len(images), -1)[:, ::7].astype(np.float64)


SLOW = ["pcc_425", "ssim_2d_425", "ssim_percolumn_legacy_425"]
BRAIN_DIFFUSER = [name for name in metrics.METRICS if name.endswith("_bd")]
EMBEDDERS = {"clip_judge": _embed, "clip_method": lambda x: _embed(x)[:, ::2]}


def _condition(method: str, images: Images, ids: Any = None) -> ConditionImages:
    ids = np.arange(len(images)) + 100 if ids is None else np.asarray(ids)
    return ConditionImages(method, ids, images)


def test_floors_are_the_means_over_other_images(rng: np.random.Generator) -> None:
    images, truth = _images(rng, 8), _images(rng, 8)
    found, own = {"clip_judge": _embed(images)}, {"clip_judge": _embed(truth)}
    floors = metrics.shuffled_floor(images, truth, found, own)
    for row in range(8):
        others = [(row - shift) % 8 for shift in range(1, 6)]
        assert row not in others
        pairs = [
            metrics.pixel_correlation(images[[row]], truth[[k]])[0] for k in others
        ]
        assert floors["pcc"][row] == pytest.approx(np.mean(pairs))
        cosines = [
            metrics.cosine_similarity(_embed(images[[row]]), _embed(truth[[k]]))[0]
            for k in others
        ]
        assert floors["clip_judge"][row] == pytest.approx(np.mean(cosines))
    assert floors["two_way_by_truth"].tolist() == [0.5] * 8


@pytest.mark.parametrize("n", [2, 3, 7])
def test_floors_never_meet_the_own_image(n: int, rng: np.random.Generator) -> None:
    truth = _images(rng, n)
    floors = metrics.shuffled_floor(truth, truth, {}, {})  # own image would score 1
    for name in ("ssim_2d", "pcc"):
        assert floors[name].max() < 0.5


def test_a_single_image_has_scores_but_no_floor(rng: np.random.Generator) -> None:
    image = _images(rng, 1)
    found = metrics.score_methods(
        1, [_condition("stage1", image)], _condition("truth", image), EMBEDDERS
    ).table
    pixels = {"ssim_2d", "ssim_percolumn_legacy", "pcc"}
    assert set(found["metric"]) == {"clip_judge", "clip_method"} | pixels
    assert found["floor"].isna().all()
    np.testing.assert_allclose(found["value"], 1.0, atol=FLOAT64)


def test_every_metric_of_the_table_is_declared_and_can_be_scored(
    rng: np.random.Generator,
) -> None:
    networks = {m.network for m in metrics.METRICS.values() if m.network is not None}
    truth = _condition("truth", _images(rng, 2))
    scored = metrics.score_methods(
        2,
        [_condition("stage1", _images(rng, 2))],
        truth,
        dict.fromkeys(networks, _embed),
        extra=SLOW,
    )
    table = scored.table
    sets = [k for k, m in metrics.METRICS.items() if m.rule == "frechet"]
    assert sorted({*table["metric"], *sets}) == sorted(metrics.METRICS)
    assert sorted(scored.sets) == sorted(sets) == ["fid_inception", "fid_judge"]
    assert table.columns.tolist() == [
        *("subject", "method", "nsd_id", "metric", "value", "floor")
    ]
    assert len(table) == 2 * (len(metrics.METRICS) - len(sets))
    assert table[["value", "floor"]].notna().all(axis=None)
    np.testing.assert_array_equal(
        scored.embeddings["stage1"].shape, (2, _embed(truth.images).shape[1])
    )


def test_each_embedder_gives_the_metrics_that_follow_from_it(
    rng: np.random.Generator,
) -> None:
    images, truth = rng.normal(size=(2, 6, 9))
    pixels = _images(rng, 6)
    found = metrics.score_condition(
        pixels,
        pixels,
        {"lite0_late": images, "alexnet2": images, "inception_fid": images},
        {"lite0_late": truth, "alexnet2": truth, "inception_fid": truth},
    )
    by_reconstruction = metrics.two_way_by_reconstruction(truth, images)
    np.testing.assert_array_equal(found["lite0_late"], by_reconstruction)
    np.testing.assert_array_equal(found["alexnet2"], by_reconstruction)
    by_truth = metrics.two_way_by_truth(truth, images)
    np.testing.assert_array_equal(found["alexnet2_by_truth"], by_truth)
    distance = metrics.embedding_distance(images, truth)
    np.testing.assert_array_equal(found["lite0_distance"], distance)
    assert set(found) == {
        *("ssim_2d", "ssim_percolumn_legacy", "pcc", "lite0_late", "lite0_distance"),
        *("alexnet2", "alexnet2_by_truth"),
    }


def test_the_floor_of_a_distance_is_that_of_other_truths(
    rng: np.random.Generator,
) -> None:
    images, truth = rng.normal(size=(2, 8, 9))
    pixels = _images(rng, 8)
    arguments = pixels, pixels, {"lite0_late": images}, {"lite0_late": truth}
    floors = metrics.shuffled_floor(*arguments)
    others = [(3 - shift) % 8 for shift in range(1, 6)]
    expected = [
        scipy.spatial.distance.correlation(images[3], truth[row]) for row in others
    ]
    assert floors["lite0_distance"][3] == pytest.approx(np.mean(expected))
    assert floors["lite0_late"].tolist() == [0.5] * 8


def test_networks_and_metrics_that_do_not_exist_are_refused(
    rng: np.random.Generator,
) -> None:
    truth = _condition("truth", _images(rng))
    with pytest.raises(ConfigError, match="'alexnet9', but must be one of"):
        metrics.score_methods(1, [truth], truth, {**EMBEDDERS, "alexnet9": _embed})
    with pytest.raises(ConfigError, match="'ssim', but must be one of: pcc_425"):
        metrics.score_methods(1, [truth], truth, EMBEDDERS, extra=["ssim"])
    with pytest.raises(ConfigError, match="'pcc', but must be one of: fid_judge"):
        metrics.frechet_table({}, {}, metric="pcc")


# --- definitions --------------------------------------------------------------------


def test_the_table_of_definitions_tells_what_is_scored_and_why_not() -> None:
    absent = {"alexnet2": "Not scored: alexnet2's file is missing."}
    table = metrics.definitions(absent, extra=["pcc_425"])
    assert table.columns.tolist() == [
        *("metric", "label", "network", "settings", "used_by", "judge_role"),
        *("higher_is_better", "state"),
    ]
    assert table["metric"].tolist() == list(metrics.METRICS)
    assert (table.drop(columns="higher_is_better") != "").all(axis=None)
    assert table["label"].nunique() >= len(table) - len(BRAIN_DIFFUSER)
    state = table.set_index("metric")["state"]
    assert set(state[["alexnet2", "alexnet2_by_truth"]]) == set(absent.values())
    assert set(state[["pcc_425", "alexnet2_bd", "lite0_late"]]) == {"scored"}
    assert "ssim_2d_425 must be asked for" in state["ssim_2d_425"]
    asked = metrics.definitions({}, extra=SLOW)["state"]
    assert (asked == "scored").all()


def test_no_two_metrics_have_the_same_definition() -> None:
    table = metrics.definitions({})
    assert not table[["label", "settings", "used_by"]].duplicated().any()


def test_only_distances_are_better_when_lower() -> None:
    lower = {k for k, m in metrics.METRICS.items() if not m.higher_is_better}
    assert lower == {
        *("fid_judge", "fid_inception", "effnet_b1_v1", "effnet_b1_v2", "swav"),
        *("effnet_b1_bd", "swav_bd", "lite0_distance"),
    }


def test_the_network_of_the_simulated_brain_is_marked() -> None:
    marked = {k for k, m in metrics.METRICS.items() if "simulated" in m.judge_role}
    assert marked == {"lite0_early", "lite0_middle", "lite0_late", "lite0_distance"}


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
    own = both[both["method"] == "a"].reset_index(drop=True)
    assert own.equals(alone)


def test_conditions_that_cannot_be_scored_are_refused(
    rng: np.random.Generator,
) -> None:
    truth = _condition("truth", _images(rng))
    strange = _condition("stage1", _images(rng, 1), [7])
    with pytest.raises(DataError, match=r"stage1 holds images \[7\]"):
        metrics.score_methods(1, [strange], truth, EMBEDDERS)
    with pytest.raises(DataError, match="no images to score"):
        metrics.score_methods(1, [], truth, EMBEDDERS)
    with pytest.raises(DataError, match="clip_judge is missing"):
        metrics.score_methods(1, [truth], truth, {"clip_method": _embed})
