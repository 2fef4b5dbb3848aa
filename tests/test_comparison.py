"""Decoders side by side: intervals that hold, categories that stay out, no leak."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.types import Array
from minddiff_utils.decoding import (
    BandedRidge,
    RidgeGCV,
    VoxelData,
    VoxelSelectedRidge,
    comparison,
)
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.scores import feature_correlation
from minddiff_utils.reporting import figures

BANDS = np.arange(30) % 2
OPTIONS: dict[str, Any] = {"n_bootstrap": 50, "confidence": 0.95}
#: Training and test images of `world`, and those that a hold-out scores.
HALVES, ROWS = (slice(90), slice(90, None)), np.arange(60, 120)
CONDITIONS = ["same categories", "other categories"]


def world(rng: np.random.Generator, n: int = 120) -> tuple[Array, dict[str, Array]]:
    """Return responses (n, 30) and two features of the same hidden causes."""
    hidden = rng.standard_normal((n, 4))
    X = hidden @ rng.standard_normal((4, 30)) + rng.standard_normal((n, 30))
    features = {
        name: (hidden @ rng.standard_normal((4, 6)) * 3 + 50).astype(np.float32)
        for name in ("c", "z")
    }
    return X.astype(np.float32), features


def voxel_data(X: Array, n_train: int) -> VoxelData:
    repeats = np.full(len(X) - n_train, 3)
    ncsnr = np.full(X.shape[1], 1.0, np.float32)
    return VoxelData(X[:n_train], X[n_train:], ncsnr, repeats)


# --- intervals ------------------------------------------------------------------------


def test_the_mean_r_is_that_of_the_targets(rng: np.random.Generator) -> None:
    Y, Y_hat = rng.standard_normal((2, 30, 5)).astype(np.float32)
    found = comparison.bootstrap_mean_r(
        Y, Y_hat, n_bootstrap=20, confidence=0.9, rng=rng
    )
    assert found.value == pytest.approx(feature_correlation(Y, Y_hat).mean())
    assert found.n == 30


def test_a_resample_gives_the_r_of_the_images_it_drew(rng: np.random.Generator) -> None:
    Y, Y_hat = rng.standard_normal((2, 12, 3)).astype(np.float32)
    found = comparison.bootstrap_mean_r(
        Y, Y_hat, n_bootstrap=1, confidence=0.9, rng=np.random.default_rng(3)
    )
    counts = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=1)[0]
    rows = np.repeat(np.arange(12), counts)
    expected = feature_correlation(Y[rows], Y_hat[rows]).mean()
    # float32 inputs standardised in float64: rounding only
    assert found.low == pytest.approx(expected, abs=1e-6)
    assert found.high == pytest.approx(expected, abs=1e-6)


def test_the_interval_covers_the_true_mean_r() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        Y = rng.standard_normal((60, 20)).astype(np.float32)
        Y_hat = (0.5 * Y + np.sqrt(0.75) * rng.standard_normal(Y.shape)).astype("f4")
        found = comparison.bootstrap_mean_r(
            Y, Y_hat, n_bootstrap=200, confidence=0.95, rng=rng
        )
        covered += found.low <= 0.5 <= found.high
    # nominal 95 of 100; a percentile bootstrap of 60 images is a little narrow: at
    # least 85, which a coverage of .93 misses once in 300 such tests
    assert covered >= 85


def test_targets_that_do_not_vary_are_left_out(rng: np.random.Generator) -> None:
    Y, Y_hat = rng.standard_normal((2, 20, 4)).astype(np.float32)
    wide = np.column_stack([Y, np.full(20, 2.0, np.float32)])
    wide_hat = np.column_stack([Y_hat, Y_hat[:, 0]])
    one, other = (
        comparison.bootstrap_mean_r(*pair, **OPTIONS, rng=np.random.default_rng(1))
        for pair in ((Y, Y_hat), (wide, wide_hat))
    )
    assert one == other
    still = np.ones((5, 2), np.float32)
    with pytest.raises(DataError, match="No target varies"):
        comparison.bootstrap_mean_r(still, still, **OPTIONS, rng=rng)


def test_the_interval_has_the_confidence_asked_for(rng: np.random.Generator) -> None:
    Y, Y_hat = rng.standard_normal((2, 30, 5)).astype(np.float32)
    half, most = (
        comparison.bootstrap_mean_r(
            Y, Y_hat, n_bootstrap=400, confidence=level, rng=np.random.default_rng(1)
        )
        for level in (0.5, 0.95)
    )
    assert most.low < half.low < half.high < most.high
    # of normal draws 1.96 / 0.674 = 2.9; quantiles of 400 draws are 10 % off at most
    ratio = (most.high - most.low) / (half.high - half.low)
    assert 2.3 < ratio < 3.7
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            comparison.bootstrap_mean_r(
                Y, Y_hat, n_bootstrap=5, confidence=level, rng=rng
            )


# --- side by side ---------------------------------------------------------------------


def test_every_decoder_is_scored_on_every_feature(rng: np.random.Generator) -> None:
    X, features = world(rng)
    train, test = ({n: Y[part] for n, Y in features.items()} for part in HALVES)
    paper = {name: VoxelSelectedRidge(0.15, 5) for name in features}
    grid: dict[str, Any] = {"alphas": (0.15, 100.0), "factors": (1.0, 3.0)}
    banded = BandedRidge(BANDS, comparison.coarse_penalties(X[:90]), 4, 2)
    decoders: dict[str, dict[str, LinearDecoder]] = {
        "paper": dict(paper),
        "tuned": comparison.tuned(paper, X[:90], train, n_folds=2, **grid),
        "dense": {name: RidgeGCV() for name in features},
        "banded": dict.fromkeys(features, banded),
    }
    data = voxel_data(X, 90)
    table = comparison.compare_decoders(decoders, data, train, test, rng=rng, **OPTIONS)
    assert table.groupby("decoder", sort=False)["feature"].apply(list).to_dict() == {
        name: ["c", "z"] for name in decoders
    }
    assert table["r_mean"].between(0.5, 1).all()  # a world that can be decoded
    assert (table["r_low"] <= table["r_high"]).all()
    np.testing.assert_allclose(
        table["rank_share"], table["rank"] / table["rank_true"], rtol=1e-12
    )  # one division
    assert table["r_ceiling"].between(0, 1).all()


def decoders_of(features: dict[str, Array]) -> dict[str, dict[str, LinearDecoder]]:
    """Return decoders that are equal for all features, and two that are not."""
    own: list[LinearDecoder] = [VoxelSelectedRidge(1.0, 5), RidgeGCV()]
    return {
        "dense": {name: RidgeGCV() for name in features},
        "bands": {name: RidgeGCV(bands=BANDS) for name in features},
        "paper": {name: VoxelSelectedRidge(1.0, 9) for name in features},
        "mixed": dict(zip(features, own, strict=True)),
    }


@pytest.mark.parametrize("trained_on", [["test"], CONDITIONS])
def test_features_side_by_side_score_as_each_alone(
    trained_on: list[str], rng: np.random.Generator
) -> None:
    X, features = world(rng)
    decoders = decoders_of(features)
    train, test = ({n: Y[part] for n, Y in features.items()} for part in HALVES)
    holdout = comparison.Holdout(("a",), np.arange(40), np.arange(20, 60), ROWS)

    def score(given: dict[str, dict[str, LinearDecoder]]) -> pd.DataFrame:
        options = {"rng": np.random.default_rng(5), **OPTIONS}
        if trained_on == CONDITIONS:
            return comparison.compare_on_holdout(given, X, features, holdout, **options)
        data = voxel_data(X, 90)
        table = comparison.compare_decoders(given, data, train, test, **options)
        return table.assign(trained_on="test")

    together = score(decoders)
    apart = [
        score({name: {feature: one}})
        for name, by_feature in decoders.items()
        for feature, one in by_feature.items()
    ]
    # in the same order, and equal up to rounding in float32
    expected = pd.concat(apart, ignore_index=True)
    pd.testing.assert_frame_equal(together, expected, rtol=1e-4)
    assert together["trained_on"].tolist() == trained_on * 8


def test_figures_tell_the_confidence_of_the_tables(rng: np.random.Generator) -> None:
    X, features = world(rng)
    ridge: dict[str, dict[str, LinearDecoder]] = {"dense": {"c": RidgeGCV()}}
    train, test = ({n: Y[part] for n, Y in features.items()} for part in HALVES)
    options: dict[str, Any] = {"n_bootstrap": 20, "confidence": 0.8, "rng": rng}
    data = voxel_data(X, 90)
    compared = comparison.compare_decoders(ridge, data, train, test, **options)
    holdout = comparison.Holdout(("a",), np.arange(40), np.arange(20, 60), ROWS)
    unseen = comparison.compare_on_holdout(ridge, X, features, holdout, **options)
    for draw, table in (
        (figures.fig_decoders, compared),
        (figures.fig_holdout, unseen),
    ):
        figure = draw(table)
        words = " ".join(t.get_text() for t in figure.findobj(mpl.text.Text))
        assert "80 % interval" in " ".join(words.split())


def test_tuning_prefers_a_strong_penalty_where_noise_rules_and_fits_nothing() -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((80, 30)).astype(np.float32)
    Y = (X[:, :3].sum(1, keepdims=True) + 6 * rng.standard_normal((80, 5))).astype("f4")
    grid: dict[str, Any] = {"alphas": (0.15, 100.0, 1000.0), "factors": (1.0, 3.0)}
    paper = {"c": VoxelSelectedRidge(0.15, 30)}
    one = comparison.tuned(paper, X, {"c": Y}, n_folds=2, **grid)["c"]
    again = comparison.tuned(paper, X.copy(), {"c": Y}, n_folds=2, **grid)["c"]
    assert one.get_params() == again.get_params()
    assert one.get_params()["alpha"] > 0.15
    assert not hasattr(one, "n_features_in_")


# --- categories -----------------------------------------------------------------------


def labels_of(rng: np.random.Generator, n: int = 120) -> list[frozenset[str]]:
    names = [f"thing {k}" for k in range(9)]
    return [frozenset(rng.choice(names, rng.integers(1, 3))) for _ in range(n)]


def test_no_training_image_of_the_hold_out_shows_a_held_out_category(
    rng: np.random.Generator,
) -> None:
    labels = labels_of(rng)
    held = comparison.split_by_category(labels, share=1 / 3, rng=rng)
    chosen = set(held.categories)
    assert len(chosen) == 3
    assert all(not labels[row] & chosen for row in held.other)
    assert all(labels[row] <= chosen for row in held.held_out)
    # the control sees these categories, as many images, and none of the scored ones
    assert any(labels[row] & chosen for row in held.same)
    assert len(held.same) == len(held.other)
    assert not set(held.same) & set(held.held_out)


def test_images_of_both_kinds_or_without_a_label_are_in_no_part() -> None:
    labels = [frozenset(one) for one in 5 * ("d", "c", "dc", "", "wd", "co", "w", "o")]
    for seed in range(9):
        rng = np.random.default_rng(seed)
        held = comparison.split_by_category(labels, share=0.5, rng=rng)
        chosen = set(held.categories)
        rows = [row for row, one in enumerate(labels) if one and not one & chosen]
        assert held.other.tolist() == rows
        assert all(labels[row] and labels[row] <= chosen for row in held.held_out)


def test_too_few_categories_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match="cannot be held out"):
        comparison.split_by_category([frozenset({"a"})] * 5, share=0.3, rng=rng)
    labels = [frozenset({"a"}), frozenset({"b"}), frozenset({"b"})]
    with pytest.raises(DataError, match="use more sessions"):
        comparison.split_by_category(labels, share=0.5, rng=rng)


def test_what_only_a_category_s_own_images_teach_is_lost_without_them() -> None:
    rng = np.random.default_rng(4)
    labels = labels_of(rng, 400)
    names = sorted(frozenset().union(*labels))
    member = np.array([[name in one for name in names] for one in labels], float)
    X = member @ rng.standard_normal((9, 30)) * 2 + rng.standard_normal((400, 30))
    Y = {"c": (member @ rng.standard_normal((9, 12))).astype(np.float32)}
    holdout = comparison.split_by_category(labels, share=1 / 3, rng=rng)
    decoders: dict[str, dict[str, LinearDecoder]] = {
        "dense": {"c": RidgeGCV()},
        "paper": {"c": VoxelSelectedRidge(1.0, 10)},
    }
    table = comparison.compare_on_holdout(
        decoders, X.astype(np.float32), Y, holdout, rng=rng, **OPTIONS
    ).set_index(["decoder", "trained_on"])
    for name in decoders:
        same = table.loc[(name, "same categories"), "r_mean"]
        other = table.loc[(name, "other categories"), "r_mean"]
        assert same > other + 0.2
    assert (table["n_train"] == len(holdout.other)).all()
    assert (table["n_images"] == len(holdout.held_out)).all()


def test_conclusions_name_the_best_decoder_and_what_is_lost() -> None:
    row = {"feature": "c", "r_low": 0.0, "r_high": 0.0}
    compared = pd.DataFrame(
        [
            {**row, "decoder": "paper", "r_mean": 0.3, "r_low": 0.2, "r_high": 0.4},
            {**row, "decoder": "dense", "r_mean": 0.5, "r_low": 0.45, "r_high": 0.6},
            {**row, "decoder": "bands", "r_mean": 0.48, "r_low": 0.4, "r_high": 0.5},
        ]
    )
    unseen = pd.DataFrame(
        [
            {"decoder": "dense", "feature": "c", "trained_on": condition, "r_mean": r}
            for condition, r in zip(CONDITIONS, (0.6, 0.35), strict=True)
        ]
    )
    first, second = comparison.conclusions(compared, unseen)
    assert first == (
        "c: dense reads most (r 0.50); intervals that reach its own: bands"
    )
    assert second == "dense: change of r on categories never seen: c -0.25"
