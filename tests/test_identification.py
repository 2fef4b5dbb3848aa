"""Identification in both directions, and chance among like images."""

import numpy as np
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.types import Array
from minddiff_utils.decoding import targets
from minddiff_utils.decoding.chance import (
    ScoredImages,
    like_images,
    permutations_within,
)
from minddiff_utils.decoding.identification import (
    draw_candidates,
    identification,
    row_products,
)
from minddiff_utils.decoding.scores import accuracy

EVERY = np.arange(2)[None]


# --- identification -----------------------------------------------------------------


def test_similarity_is_pearson_s_r_over_the_targets_that_vary(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_BLOCK_ELEMENTS", 15)  # three targets at a time
    Y, Y_hat = rng.standard_normal((2, 5, 11)).astype(np.float32)
    Y[:, 4], Y_hat[:, 7] = 3.0, -2.0  # would shift every r
    keep = np.delete(np.arange(11), [4, 7])
    expected = np.corrcoef(Y_hat[:, keep], Y[:, keep])[:5, 5:]
    found = row_products(Y, Y_hat).similarity()
    np.testing.assert_allclose(found, expected, atol=1e-12)  # rounded so
    with pytest.raises(DataError, match="2 images or more and a target"):
        row_products(np.ones_like(Y), Y_hat).similarity()


def mindeye_fwd(brain: Array, image: Array) -> float:
    """Return what MindEye2's loop counts as "fwd", line by line."""
    B = image.T
    Z_norm = np.linalg.norm(brain, axis=1, keepdims=True)
    B_norm = np.linalg.norm(B, axis=0, keepdims=True)
    similarity = ((brain @ B) / (Z_norm @ B_norm)).T  # batchwise_cosine_similarity
    return float(np.mean(similarity.argmax(axis=1) == np.arange(len(brain))))


def test_the_directions_are_told_apart_and_mindeye2_names_them_the_other_way() -> None:
    # both decoded features are nearest to image 0; each image is nearest to its own
    similarity = np.array([[0.9, 0.1], [0.8, 0.5]])
    row = identification(similarity, EVERY)
    assert row["identify_top1_by_decoded"] == row["identify_pairwise_by_decoded"] == 0.5
    assert row["identify_top1_by_truth"] == row["identify_pairwise_by_truth"] == 1.0
    image = np.eye(3)[:2]
    brain = np.array([[0.9, 0.1, np.sqrt(0.18)], [0.8, 0.5, np.sqrt(0.11)]])
    np.testing.assert_allclose(brain @ image.T, similarity)  # cosines: unit rows
    assert mindeye_fwd(brain, image) == row["identify_top1_by_truth"]
    assert mindeye_fwd(image, brain) == row["identify_top1_by_decoded"]


def test_identification_equals_its_definition_by_pairs_and_by_rank(
    rng: np.random.Generator,
) -> None:
    S = rng.standard_normal((7, 7)) + np.eye(7)
    S[2, 5] = S[2, 2]  # a tie counts half
    rows = np.array([[0, 2, 3, 5], [1, 4, 5, 6]])
    row = identification(S, rows)
    for name, M in (("by_decoded", S), ("by_truth", S.T)):
        pairs = [
            (M[i, i] > M[i, j]) + 0.5 * (M[i, i] == M[i, j])
            for i in range(7)
            for j in range(7)
            if i != j
        ]
        assert row[f"identify_pairwise_{name}"] == pytest.approx(np.mean(pairs))
        shares = []
        for some in rows:
            found = [
                (M[i, i] == max(M[i, some])) / np.sum(M[i, some] == max(M[i, some]))
                for i in some
            ]
            shares.append(np.mean(found))
        assert row[f"identify_top1_{name}"] == pytest.approx(np.mean(shares))
        sd = np.std(shares, ddof=1)
        assert row[f"identify_top1_{name}_sd"] == pytest.approx(sd)
    assert row["identify_top1_chance"] == 0.25
    assert (row["identify_n"], row["identify_n_draws"]) == (4, 2)
    assert np.isnan(identification(S, rows[:1])["identify_top1_by_truth_sd"])


def test_chance_identifies_half_of_pairs_and_one_of_n(rng: np.random.Generator) -> None:
    rows = [
        identification(rng.standard_normal((12, 12)), np.arange(12)[None])
        for _ in range(200)
    ]
    for name in ("by_decoded", "by_truth"):
        # SE: below .5 / sqrt(200 * 12) = .01, and .28 / sqrt(2400) = .006
        pairwise = np.mean([row[f"identify_pairwise_{name}"] for row in rows])
        top_1 = np.mean([row[f"identify_top1_{name}"] for row in rows])
        assert pairwise == pytest.approx(0.5, abs=0.04)
        assert top_1 == pytest.approx(1 / 12, abs=0.024)


def test_candidates_are_all_images_or_30_draws_of_300(rng: np.random.Generator) -> None:
    np.testing.assert_array_equal(draw_candidates(300, rng), np.arange(300)[None])
    drawn = draw_candidates(320, rng)
    assert drawn.shape == (30, 300)
    assert all(len(set(rows)) == 300 for rows in drawn.tolist())
    assert (drawn.max(), len(np.unique(np.sort(drawn, axis=1), axis=0))) == (319, 30)


# --- chance among like images -------------------------------------------------------


def _kinds(
    n: int, n_kinds: int, rng: np.random.Generator, spread: float = 0.1
) -> tuple[Array, Array]:
    """Return the kind of each image, and a c by which the kinds are far apart."""
    kind = np.arange(n) % n_kinds
    centres = 5 * rng.standard_normal((n_kinds, 8))
    return kind, centres[kind] + spread * rng.standard_normal((n, 8))


def test_like_images_are_those_of_one_cluster_of_the_training_images(
    rng: np.random.Generator,
) -> None:
    kind, c = _kinds(100, 4, rng)
    c[:, 3] = 7.0  # c's start token does not vary
    cluster = like_images(c[:76], c[76:], rng=rng)  # 24 test images: 4 clusters
    assert len(np.unique(cluster)) == 4
    for name in range(4):
        assert len(set(cluster[kind[76:] == name])) == 1
    assert set(like_images(c[:76], c[:5], rng=rng)) == {0}
    same = np.tile([1.0, 2.0], (20, 1))
    same[:3, 0] = 5.0  # two distinct images, four clusters
    assert len(set(like_images(same, np.tile(same, (2, 1))[:24], rng=rng))) == 2


def test_images_change_places_within_their_cluster_alone(
    rng: np.random.Generator,
) -> None:
    cluster = np.array([2, 0, 2, 1, 0, 2])
    orders = permutations_within(cluster, 400, rng=rng)
    assert np.array_equal(cluster[orders], np.tile(cluster, (400, 1)))
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(6), (400, 1)))
    assert len(np.unique(orders, axis=0)) == 2 * 6  # all that there are
    images = ScoredImages(np.arange(6), cluster, orders, np.arange(6)[None])
    assert images.n_alike == 5


@pytest.mark.parametrize("knows", ["cluster", "image"])
def test_a_decoder_that_knows_the_cluster_alone_does_not_exceed_conditional_chance(
    knows: str, rng: np.random.Generator
) -> None:
    kind, c = _kinds(160, 6, rng, spread=1.0)
    train, test = slice(124), slice(124, None)
    images = ScoredImages.draw(
        np.arange(36), c[train], c[test], n_permutations=199, rng=rng
    )
    means = np.stack([c[train][kind[train] == k].mean(axis=0) for k in range(6)])
    Y_hat = means[kind[test]] + 0.3 * rng.standard_normal((36, 8))
    Y_hat += 0.5 * c[test] if knows == "image" else 0
    row = accuracy(
        c[test],
        Y_hat,
        np.ones(8),
        within=images.within,
        n_permutations=199,
        rng=rng,
    )
    # known kinds are well above what all images permuted give
    assert row["r_mean"] > 0.9
    assert row["p_permutation"] == 1 / 200
    if knows == "cluster":
        assert row["r_mean"] == pytest.approx(row["r_null_within"], abs=0.01)
        assert row["r_mean"] < row["r_null_within_high"]
        assert row["p_within"] > 0.05
    else:
        assert row["r_mean"] > row["r_null_within_high"] > row["r_null_within"]
        assert row["p_within"] == 1 / 200


def test_the_p_within_is_uniform_for_decoders_that_know_the_cluster_alone(
    rng: np.random.Generator,
) -> None:
    p = []
    for _ in range(200):
        kind = np.repeat(np.arange(4), 4)
        means = 3 * rng.standard_normal((4, 5))
        Y, Y_hat = means[kind] + rng.standard_normal((2, 16, 5))
        row = accuracy(
            Y,
            Y_hat,
            np.ones(5),
            within=permutations_within(kind, 99, rng=rng),
            n_permutations=1,
            rng=rng,
        )
        p.append(row["p_within"])
    # binomial, n = 200: SD .015 at .05 and .035 at .5; four times that
    assert abs(np.mean(np.array(p) <= 0.05) - 0.05) < 0.06
    assert abs(np.mean(np.array(p) <= 0.5) - 0.5) < 0.14
