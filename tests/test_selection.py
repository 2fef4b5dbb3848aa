"""Choices made on training images: no leak, and the choice that a hand would make."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import Ridge

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.decoding import (
    DenseRidge,
    TargetScaling,
    VoxelSelectedRidge,
    targets,
)
from minddiff_utils.decoding.selection import (
    choose_by_correlation,
    choose_each_by_correlation,
    choose_k,
    contiguous_folds,
    cross_validated_features,
    cross_validated_predictions,
    identification_accuracy,
)

Floats = npt.NDArray[np.float64]


def world(
    rng: np.random.Generator, n: int = 90, n_voxels: int = 30, n_targets: int = 12
) -> tuple[Floats, Floats]:
    """Return voxels and targets of one hidden signal; the last half is pure noise."""
    hidden = rng.standard_normal((n, 6))
    X = hidden @ rng.standard_normal((6, n_voxels)) + rng.standard_normal((n, n_voxels))
    Y = hidden @ rng.standard_normal((6, n_targets))
    Y[:, n_targets // 2 :] = rng.standard_normal((n, n_targets - n_targets // 2))
    return X, Y


def test_an_image_never_changes_its_own_out_of_fold_prediction(
    rng: np.random.Generator,
) -> None:
    X, Y = world(rng)
    folds = contiguous_folds(len(X), 3)
    options = {"decoder": VoxelSelectedRidge(1.0, 8), "folds": folds}
    before = cross_validated_predictions(X, Y, **options)
    changed = Y.copy()
    changed[5] += 100.0  # an image of the first fold
    after = cross_validated_predictions(X, changed, **options)
    held = folds[0][1]
    np.testing.assert_array_equal(after[held], before[held])
    assert not np.allclose(after[folds[1][1]], before[folds[1][1]])


def test_rows_that_no_fold_holds_out_have_no_prediction(
    rng: np.random.Generator,
) -> None:
    X, Y = world(rng)
    first = contiguous_folds(len(X), 3)[:1]
    Y_hat = cross_validated_predictions(
        X, Y, decoder=VoxelSelectedRidge(1.0, 8), folds=first
    )
    assert np.isfinite(Y_hat[first[0][1]]).all()
    assert np.isnan(Y_hat[first[0][0]]).all()


def test_the_estimator_passed_in_stays_unfitted(rng: np.random.Generator) -> None:
    X, Y = world(rng)
    decoder = VoxelSelectedRidge(1.0, 8)
    cross_validated_predictions(X, Y, decoder=decoder, folds=contiguous_folds(90, 2))
    assert not hasattr(decoder, "weights_")


def test_a_sensible_penalty_wins_over_none_and_over_a_huge_one(
    rng: np.random.Generator,
) -> None:
    X, Y = world(rng, n=60, n_voxels=40)  # as many voxels as training images
    grid = (1e-6, 30.0, 1e7)
    candidates: dict[str, BaseEstimator] = {
        f"alpha {alpha:g}": VoxelSelectedRidge(alpha, 40) for alpha in grid
    }
    table = choose_by_correlation(
        X, Y, candidates=candidates, folds=contiguous_folds(60, 3)
    )
    assert table["candidate"][0] == "alpha 30"
    assert table["r_cv_mean"].is_monotonic_decreasing
    assert (table["n_targets"] == 12).all()


def test_of_equal_candidates_the_first_one_is_chosen(rng: np.random.Generator) -> None:
    X, Y = world(rng)
    same = {"first": VoxelSelectedRidge(1.0, 8), "second": VoxelSelectedRidge(1.0, 8)}
    table = choose_by_correlation(X, Y, candidates=same, folds=contiguous_folds(90, 2))
    assert table["candidate"].tolist() == ["first", "second"]


def test_no_candidate_is_refused(rng: np.random.Generator) -> None:
    X, Y = world(rng)
    with pytest.raises(ConfigError, match="no decoder to choose from"):
        choose_by_correlation(X, Y, candidates={}, folds=contiguous_folds(90, 2))


@pytest.mark.parametrize(
    "decoder", [VoxelSelectedRidge(1.0, 8), DenseRidge(dtype="float64"), Ridge(3.0)]
)
def test_features_are_cross_validated_as_folds_fitted_by_hand(
    decoder: BaseEstimator, rng: np.random.Generator
) -> None:
    X, Y = world(rng)
    features = {"c": Y[:, :5], "clip/1": 20 + 3 * Y[:, 5:]}
    folds = contiguous_folds(len(X), 3)
    decoders = {"clip/1": decoder, "c": decoder}
    found = cross_validated_features(X, features, decoders=decoders, folds=folds)
    assert list(found) == ["clip/1", "c"]
    for name, own in features.items():
        for train, held in folds:
            scaling = TargetScaling.fit(own[train])
            alone = clone(decoder).fit(X[train], scaling.apply(own[train]))
            expected = scaling.invert(alone.predict(X[held]))
            # standardised predictions pass through float32; targets are up to 40
            np.testing.assert_allclose(found[name][held], expected, atol=2e-5)


class Counted(VoxelSelectedRidge):
    """Counts all fits of the class."""

    n_fits = 0

    def fit(self, X: Floats, Y: Floats) -> "Counted":
        type(self).n_fits += 1
        return super().fit(X, Y)


def test_features_with_equal_decoders_take_one_fit_per_fold(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = world(rng)
    monkeypatch.setattr(Counted, "n_fits", 0)
    decoders = {"c": Counted(1.0, 9), "clip/1": Counted(1, 8), "clip/2": Counted(1, 8)}
    features = {"c": Y[:, :2], "clip/1": Y[:, 2:7], "clip/2": Y[:, 7:]}
    folds = contiguous_folds(len(X), 3)
    cross_validated_features(X, features, decoders=decoders, folds=folds)
    assert Counted.n_fits == 2 * 3


def test_targets_are_cross_validated_by_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched:
        """Targets that note how many were asked for at once."""

        def __init__(self, Y: Floats) -> None:
            self.Y, self.shape = Y, Y.shape
            self.widths: list[int] = []

        def __getitem__(self, key: tuple[slice, slice]) -> Floats:
            found: Floats = self.Y[key]
            self.widths.append(found.shape[1])
            return found

    X, Y = world(rng, n_targets=40)
    monkeypatch.setattr(targets, "_BLOCK_ELEMENTS", 10 * len(X))
    parts = {"clip/1": Watched(Y[:, :25]), "clip/2": Watched(Y[:, 25:])}
    folds = contiguous_folds(len(X), 3)
    decoders = dict.fromkeys(parts, VoxelSelectedRidge(1.0, 8, chunk_targets=10))
    found = cross_validated_features(X, parts, decoders=decoders, folds=folds)
    alone = cross_validated_predictions(X, Y, decoder=decoders["clip/1"], folds=folds)
    np.testing.assert_allclose(found["clip/2"], alone[:, 25:], atol=1e-6)  # float32
    for part in parts.values():
        # scaling reads up to 15 targets of 60 images, the fit 10
        assert max(part.widths) <= 15
        # each fold reads all targets twice, for the scaling and for the fit
        assert sum(part.widths) == 2 * 3 * part.shape[1]


def test_each_feature_gets_the_candidate_it_would_get_alone(
    rng: np.random.Generator,
) -> None:
    X, Y = world(rng, n=60, n_voxels=40)
    features = {"signal": Y[:, :6], "noise": Y[:, 6:]}
    candidates: dict[str, BaseEstimator] = {
        f"alpha {alpha:g}": VoxelSelectedRidge(alpha, 40) for alpha in (1.0, 30.0, 1e4)
    }
    folds = contiguous_folds(60, 3)
    each = {name: dict.fromkeys(features, one) for name, one in candidates.items()}
    found = choose_each_by_correlation(X, features, candidates=each, folds=folds)
    assert list(found) == list(features)
    for name, own in features.items():
        alone = choose_by_correlation(X, own, candidates=candidates, folds=folds)
        assert found[name]["candidate"].tolist() == alone["candidate"].tolist()
        # predictions in float32, of other blocks of targets
        np.testing.assert_allclose(
            found[name]["r_cv_mean"], alone["r_cv_mean"], atol=1e-6
        )


def test_identification_of_a_hand_computed_case() -> None:
    truth = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    # images 0 and 1 are swapped, image 2 is right: of 6 comparisons image 2 wins 2;
    # 0 and 1 lose to each other and tie with image 2's pattern by symmetry
    decoded = truth[[1, 0, 2]]
    assert identification_accuracy(truth, truth) == 1
    assert identification_accuracy(truth, decoded) == pytest.approx((0.25 * 2 + 1) / 3)


def test_identification_of_noise_is_at_chance(rng: np.random.Generator) -> None:
    scores = [
        identification_accuracy(*rng.standard_normal((2, 20, 15))) for _ in range(200)
    ]
    error = np.std(scores) / np.sqrt(len(scores))
    assert abs(np.mean(scores) - 0.5) < 4 * error  # passes by chance 1 - 6e-5


def test_identification_leaves_out_targets_that_do_not_vary(
    rng: np.random.Generator,
) -> None:
    Y, Y_hat = rng.standard_normal((2, 10, 6))
    wide, wide_hat = (np.column_stack([A, np.full(10, 3.0)]) for A in (Y, Y_hat))
    assert identification_accuracy(wide, wide_hat) == identification_accuracy(Y, Y_hat)
    with pytest.raises(DataError, match="a target that varies"):
        identification_accuracy(np.ones((5, 2)), Y[:5, :2])
    with pytest.raises(DataError, match="2 images or more"):
        identification_accuracy(Y[:1], Y_hat[:1])


def test_k_is_chosen_between_too_few_and_too_noisy(rng: np.random.Generator) -> None:
    n, n_good, n_bad = 120, 20, 380
    Y = rng.standard_normal((n, n_good + n_bad))
    Y_hat = rng.standard_normal(Y.shape)
    Y_hat[:, :n_good] += 0.8 * Y[:, :n_good]  # a twentieth is decodable
    table = choose_k(Y, Y_hat, folds=contiguous_folds(n, 3), k_grid=(0.5, 5, 100))
    assert table["chosen"].tolist() == [False, True, False]
    assert table["n_selected"].tolist() == [2, 20, 400]


def test_the_images_that_are_identified_do_not_rank_the_targets(
    rng: np.random.Generator,
) -> None:
    # pure noise: a ranking that saw the same images would identify above chance
    scores = []
    for _ in range(20):
        Y, Y_hat = rng.standard_normal((2, 40, 300))
        table = choose_k(Y, Y_hat, folds=contiguous_folds(40, 2), k_grid=(5,))
        scores.append(table["identification"][0])
    error = np.std(scores) / np.sqrt(len(scores))
    assert abs(np.mean(scores) - 0.5) < 4 * error  # passes by chance 1 - 6e-5


def test_a_choice_of_k_needs_folds_and_candidates(rng: np.random.Generator) -> None:
    Y = rng.standard_normal((20, 4))
    for folds, grid in ((contiguous_folds(20, 2)[:1], (5,)), ([], (5,))):
        with pytest.raises(ConfigError, match="2 folds or more"):
            choose_k(Y, Y, folds=folds, k_grid=grid)
    with pytest.raises(ConfigError, match="at least one k"):
        choose_k(Y, Y, folds=contiguous_folds(20, 2), k_grid=())
