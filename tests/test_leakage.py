"""Notebook 08: what decoders say that cannot know, against independent references."""

from dataclasses import replace
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from minddiff_utils.core.condition import Condition
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.rng import stream
from minddiff_utils.decoding import RidgeGCV
from minddiff_utils.decoding.refits import (
    Refits,
    category_clusters,
    compared_with_samples,
    image_clusters,
    likeness,
)
from minddiff_utils.evaluation.metrics.embeddings import share_beaten
from minddiff_utils.generation import generate
from minddiff_utils.models import Backbone
from minddiff_utils.studies import leakage
from minddiff_utils.studies.again import Arms
from tests.small_subject import IDS, Start, backbone, made, start, write_files

__all__ = ["backbone", "start"]  # fixtures
N_TRAIN, N_TEST, N_VOXELS = 90, 12, 20
CLUSTER = np.arange(N_TEST) % 3


@pytest.fixture
def rng() -> np.random.Generator:
    return stream(8, "tests", "leakage")


def _refits(rng: np.random.Generator) -> tuple[Refits, dict[str, np.ndarray]]:
    """Return responses that carry 8 targets of c and 5 of z, and the true test ones."""
    X = rng.normal(size=(N_TRAIN + N_TEST, N_VOXELS)).astype(np.float32)
    Y = {
        name: (X @ rng.normal(size=(N_VOXELS, n)) + rng.normal(size=(len(X), n)) + 3)
        for name, n in (("c", 8), ("z", 5))
    }
    train = {name: y[:N_TRAIN].astype(np.float32) for name, y in Y.items()}
    truth = {name: y[N_TRAIN:].astype(np.float32) for name, y in Y.items()}
    return Refits(X[:N_TRAIN], X[N_TRAIN:], train), truth


# --- clusters -------------------------------------------------------------------------


def test_categories_whose_names_are_alike_are_one_cluster() -> None:
    embedded = np.array([[1, 0.1], [0.1, 1], [3, 0], [0, 2], [-1, -1]])
    found = category_clusters(["cat", "bus", "dog", "car", "pen"], embedded, 3)
    assert found == {"cat": 0, "bus": 1, "dog": 0, "car": 1, "pen": 2}
    assert set(category_clusters(["cat", "bus"], embedded[:2], 6).values()) == {0, 1}


def test_an_image_of_several_clusters_is_of_none() -> None:
    named = [frozenset(s) for s in ({"a", "b"}, {"a"}, {"c"}, {"a", "c"}, set())]
    clusters = {"a": 0, "b": 0, "c": 1}
    assert image_clusters(named, clusters).tolist() == [0, 0, 1, -1, -1]


# --- refits ---------------------------------------------------------------------------


def test_a_held_out_image_is_read_by_a_decoder_that_never_saw_its_cluster(
    rng: np.random.Generator,
) -> None:
    refits, _ = _refits(rng)
    shows = rng.random((N_TRAIN, 3)) < 0.4
    found = refits.without_clusters(shows, CLUSTER, stream(1, "tests"))
    for k in range(3):
        spoilt = {n: Y.copy() for n, Y in refits.Y_train.items()}
        for Y in spoilt.values():
            Y[shows[:, k]] = 1e4
        other = Refits(refits.X_train, refits.X_test, spoilt)
        again = other.without_clusters(shows, CLUSTER, stream(1, "tests"))
        own = k == CLUSTER
        for name in ("c", "z"):
            np.testing.assert_array_equal(
                again["heldout"][name][own], found["heldout"][name][own]
            )
            far = np.abs(again["as_many_out"][name] - found["as_many_out"][name])
            assert far[own].max() > 1
            assert np.abs(again["heldout"][name] - found["heldout"][name]).max() > 1


def test_what_is_left_out_at_random_is_as_much(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    refits, _ = _refits(rng)
    shows = rng.random((N_TRAIN, 3)) < [0.2, 0.4, 0.6]
    sizes: list[int] = []

    def counted(self: Refits, train: np.ndarray) -> dict[str, np.ndarray]:
        assert len(set(train.tolist())) == len(train)
        sizes.append(len(train))
        return {"c": np.zeros((len(self.X_test), 2))}

    monkeypatch.setattr(Refits, "decoded", counted)
    refits.without_clusters(shows, CLUSTER, rng)
    kept = (~shows).sum(axis=0)
    assert sizes == [n for n in kept for _ in range(2)]


def test_axes_are_those_of_an_exact_decomposition_each_read_alone(
    rng: np.random.Generator,
) -> None:
    refits, truth = _refits(rng)
    found = refits.on_axes((0, 1, 3, 4, 50))
    assert list(found) == [0, 1, 3, 4]  # z has 5 targets
    for name, Y in refits.Y_train.items():
        mean, scale = Y.mean(axis=0, dtype=float), Y.std(axis=0, dtype=float)
        np.testing.assert_allclose(found[0][name], np.tile(mean, (N_TEST, 1)), 1e-5)
        standard = (Y - mean) / scale
        axes = np.linalg.svd(standard, full_matrices=False)[2]
        expected = np.zeros((N_TEST, Y.shape[1]))
        for k in range(3):
            own = (standard @ axes[k])[:, None]
            ridge = RidgeGCV(dtype="float64").fit(refits.X_train, own)
            expected += ridge.predict(refits.X_test) * axes[k]
        # float32 sums, and a randomised decomposition that is exact for so few targets
        np.testing.assert_allclose(found[3][name], expected * scale + mean, atol=2e-2)
        r = [np.corrcoef(own[name].ravel(), truth[name].ravel())[0, 1]
             for own in found.values()]  # fmt: skip
        assert all(later > sooner for sooner, later in pairwise(r[1:]))


def test_fewer_trials_are_read_by_the_decoders_of_all(
    rng: np.random.Generator,
) -> None:
    refits, _ = _refits(rng)
    repeated = {"repeats_1": refits.X_test + 1, "repeats_all": refits.X_test}
    one: Any = SimpleNamespace(refits=refits, repeated=repeated)
    found = leakage._with_repeats(one)
    assert list(found) == list(repeated)
    for condition, X in repeated.items():
        alone = replace(refits, X_test=X).decoded()
        for name, Y in alone.items():
            # one product for both: the sums are in another order
            np.testing.assert_allclose(found[condition][name], Y, rtol=1e-4, atol=1e-5)


def test_a_decoder_fitted_to_noise_does_not_depend_on_the_responses(
    rng: np.random.Generator,
) -> None:
    refits, truth = _refits(rng)
    other = Refits(refits.X_train + 5, refits.X_test * 2, refits.Y_train)
    first, second = (one.on_noise(stream(2, "tests")) for one in (refits, other))
    for name in ("c", "z"):
        np.testing.assert_array_equal(first[name], second[name])
        mean = refits.Y_train[name].mean(axis=0)
        r = np.corrcoef((first[name] - mean).ravel(), (truth[name] - mean).ravel())
        assert abs(r[0, 1]) < 0.4  # of 60 values and more


# --- beside clusters and samples ------------------------------------------------------


def test_measures_of_a_case_by_hand() -> None:
    basis = np.eye(3, 6)  # cluster means of the samples, after standardisation too
    samples = np.concatenate([basis, -basis, basis, -basis]).astype(np.float32)
    train_cluster = np.array([0, 1, 2, -1, -1, -1] * 2)
    samples = np.concatenate([samples, samples[:, ::-1]])
    train_cluster = np.concatenate([train_cluster, np.full(12, -1)])
    truth = samples[[0, 1]]
    Y_hat = samples[[0, 2]]  # the first is read rightly, the second as of cluster 2
    measures = {
        name: (value.tolist(), chance)
        for name, value, chance in compared_with_samples(
            Y_hat, truth, samples, np.array([0, 1]), train_cluster
        )
    }
    assert measures["first_cluster"] == ([1.0, 0.0], 1 / 3)
    beats, chance = measures["beats_clusters"]
    assert beats[0] == 1
    # of the two others, 2 is more like it and 0 ties with the own one
    assert beats[1] == pytest.approx(0.25)
    assert chance == 0.5
    # the first: two samples equal the truth, which ties with them; 22 are less like it
    share = measures["beats_samples"][0]
    assert share[0] == pytest.approx((22 + 1) / 24)
    assert measures["top_1"] == ([0.0, 0.0], 1 / 25)
    assert measures["top_10"] == ([1.0, float(share[1] >= 1 - 9 / 24)], 10 / 25)


def test_an_image_of_no_cluster_has_no_cluster_to_beat(
    rng: np.random.Generator,
) -> None:
    Y = rng.normal(size=(30, 4)).astype(np.float32)
    cluster = np.array([0, -1, 1, 2])
    found = {
        name: value
        for name, value, _ in compared_with_samples(
            Y[:4], Y[4:8], Y[8:], cluster, np.arange(22) % 2
        )
    }
    # -1, and a cluster of which no training image is alone
    assert np.isnan(found["beats_clusters"]).tolist() == [False, True, False, True]
    assert not np.isnan(found["beats_samples"]).any()
    none = compared_with_samples(Y[:4], Y[4:8], Y[8:], cluster, np.full(22, -1))
    assert "beats_clusters" not in {name for name, *_ in none}


def test_what_knows_nothing_beats_half_of_the_samples(rng: np.random.Generator) -> None:
    Y = rng.normal(size=(1200, 6)).astype(np.float32)
    cluster = rng.integers(0, 4, 400)
    given = (Y[:400], Y[400:800], Y[800:], cluster, rng.integers(0, 4, 400))
    for _, value, chance in compared_with_samples(*given):
        error = value.std() / np.sqrt(len(value))
        assert abs(value.mean() - chance) < 4 * max(error, 0.002)


def test_likeness_is_pearsons_r(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(3, 7)), rng.normal(size=(4, 7))
    a[1] = 2.0  # constant
    r = likeness(a, b)
    for i, j in product((0, 2), range(4)):
        assert r[i, j] == pytest.approx(stats.pearsonr(a[i], b[j]).statistic, abs=1e-9)
    assert (r[1] == 0).all()


# --- identification among some --------------------------------------------------------


def test_the_share_beaten_among_some_is_a_count(rng: np.random.Generator) -> None:
    similarity = rng.integers(0, 4, (9, 9)).astype(float)
    among = rng.random((9, 9)) < 0.5
    among[:, 4] = False
    found = share_beaten(similarity, among)
    for column in range(9):
        rows = [k for k in range(9) if among[k, column] and k != column]
        own = similarity[column, column]
        won = [(own > similarity[k, column]) + (own == similarity[k, column]) / 2
               for k in rows]  # fmt: skip
        if rows:
            assert found[column] == pytest.approx(np.mean(won))
        else:
            assert np.isnan(found[column])
    every = share_beaten(similarity, np.ones((9, 9), bool))
    np.testing.assert_array_equal(every, share_beaten(similarity))


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_within_clusters_nothing_is_shown_too_often_where_the_cluster_alone_is_known(
    alike: float,
) -> None:
    """O2 and O3 ask for .5 within clusters, whose images share `alike` of a mean.

    2.5 % is the size of the interval's side; 1,000 draws give .0005 to .0145 above it
    (three standard errors), and t over few shares is conservative.
    """
    rng = stream(9, "tests", "within")
    cluster = np.arange(24) % 6
    same = np.equal.outer(cluster, cluster)
    shown = 0
    for _ in range(1000):
        means = rng.normal(size=(6, 8))
        by_subject = []
        truth = alike * means[cluster] + rng.normal(size=(24, 8))
        for _ in range(4):  # subjects see the same images
            made_up = means[cluster] + rng.normal(size=(24, 8))
            by_subject.append(share_beaten(likeness(truth, made_up), same))
        mean = np.mean(by_subject, axis=0) - 0.5
        shown += stats.ttest_1samp(mean, 0, alternative="greater").pvalue < 0.025
    assert shown / 1000 < 0.04


# --- shares ---------------------------------------------------------------------------


def _scores(values: dict[str, list[list[float]]]) -> pd.DataFrame:
    rows = [
        (str(s), method, image, "pcc", value, 0.0)
        for method, table in values.items()
        for s, own in enumerate(table)
        for image, value in enumerate(own)
    ]
    columns = ["subject", "method", "nsd_id", "metric", "value", "floor"]
    return pd.DataFrame(rows, columns=columns)


def test_the_priors_share_of_a_score_with_its_interval(
    rng: np.random.Generator,
) -> None:
    floor, prior, method = (rng.normal(m, 0.05, (2, 6)) for m in (0.1, 0.3, 0.5))
    values = {"axes_0": floor, "prior": prior, "method": method}
    scores = _scores({name: v.tolist() for name, v in values.items()})
    row = leakage.prior_shares(scores, ["method"], ["prior"], ["pcc", "ssim_2d"])
    assert row[["metric", "n_images", "n_subjects"]].to_numpy().tolist() == [
        ["pcc", 6, 2]
    ]

    def share(keep: np.ndarray) -> float:
        own = [v[:, keep].mean() for v in (floor, prior, method)]
        return (own[1] - own[0]) / (own[2] - own[0])

    whole = share(np.arange(6))
    assert row["value"].iloc[0] == pytest.approx(whole)
    pseudo = [6 * whole - 5 * share(np.delete(np.arange(6), k)) for k in range(6)]
    half = stats.t.ppf(0.975, 5) * stats.sem(pseudo)
    assert row["ci_low"].iloc[0] == pytest.approx(whole - half)
    assert row["ci_high"].iloc[0] == pytest.approx(whole + half)


def test_a_method_that_is_not_above_the_floor_has_no_score_to_share(
    rng: np.random.Generator,
) -> None:
    names = ("axes_0", "prior", "method")
    scores = _scores({n: rng.normal(0.1, 0.05, (2, 6)).tolist() for n in names})
    row = leakage.prior_shares(scores, ["method"], ["prior"], ["pcc"]).iloc[0]
    assert np.isnan(row["value"])
    assert row["n_images"] == 6


# --- images ---------------------------------------------------------------------------


def test_the_chosen_images_are_made_from_their_own_features_and_noise(
    start: Start, backbone: Backbone
) -> None:
    run = start()
    features = write_files(run, backbone)
    stage1 = made(features, by_name()["stage1"])["stage1"]
    chosen = np.array([1, 3, 4])
    decoded = features.of("decoded")
    own = {
        "c": decoded.c[chosen].flatten(1).numpy(),
        "z": decoded.z[chosen].flatten(1).numpy(),
    }
    again = {"heldout": own, "setting_only": {"c": own["c"]}}
    arms = Arms(run, backbone, chosen, again)
    sources = {"c": "own", "z": "own", "engine": "sampler"}
    row = Condition("heldout", "", "part", **sources)
    found = generate(run, backbone, arms, row)
    assert found.nsd_id.tolist() == IDS[chosen].tolist()
    # batches of another size add in another order: a gray level at most
    apart = found.images.astype(int) - stage1.images[chosen]
    assert np.abs(apart).max() <= 1
    alone = Condition("setting_only", "", "part", c="own", engine="sampler")
    assert (arms.of_condition(alone).z == 0).all()
