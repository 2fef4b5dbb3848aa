"""Nothing of a test image reaches a decoder, and what is written can be read back."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from minddiff_utils.core import store
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.images import resize
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run, start
from minddiff_utils.decoding import (
    RidgeGCV,
    VoxelData,
    VoxelSelectedRidge,
    contiguous_folds,
    cross_validate,
    fit,
    score,
    top_percent,
)
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.chance import ScoredImages
from minddiff_utils.decoding.fitting import FittedDecoders, Scores
from minddiff_utils.decoding.other_systems import decode_systems, small_pixels
from minddiff_utils.decoding.scores import feature_correlation

Arrays = dict[str, npt.NDArray[Any]]
SPLIT = np.array(["train"] * 60 + ["validation"] * 9 + ["test"] * 12, dtype=object)
TRAIN, VALIDATION, TEST = (
    np.flatnonzero(np.equal(SPLIT, name)) for name in ("train", "validation", "test")
)
N_VOXELS = 40
#: Targets of each feature; the last one of c is constant, as c's start token is.
WIDTHS = {"c": 10, "z": 8, "clip/1": 12, "clip/2": 16}
K_GRID = (25.0, 100.0)
PAPER: dict[str, LinearDecoder] = {
    name: VoxelSelectedRidge(0.15, n)
    for name, n in (("c", 6), ("z", 9), ("clip/1", 12), ("clip/2", 12))
}
OURS: dict[str, LinearDecoder] = {name: RidgeGCV() for name in WIDTHS}
KINDS = pytest.mark.parametrize("decoders", [PAPER, OURS], ids=["paper", "ours"])


def _brain(noise: float = 0.5) -> tuple[Arrays, Arrays]:
    """Return `responses.h5` and features, in units of their own, of the same images."""
    rng = stream(0, "tests", "readout")
    hidden = rng.normal(size=(len(SPLIT), 5))
    seen = hidden @ rng.normal(size=(5, N_VOXELS))
    stored = {
        "betas": (seen + noise * rng.normal(size=seen.shape)).astype(np.float32),
        "split": SPLIT,
        "ncsnr": rng.uniform(0.2, 1, N_VOXELS).astype(np.float32),
        "n_repeats": rng.integers(1, 4, len(SPLIT)),
    }
    features: Arrays = {}
    for name, width in WIDTHS.items():
        made = hidden @ rng.normal(size=(5, width))
        made += noise * rng.normal(size=made.shape)
        offset, unit = 20 * rng.normal(size=width), rng.uniform(0.5, 8, width)
        features[name] = (offset + unit * made).astype(np.float32)
    features["c"][:, -1] = 0.75
    return stored, features


def _rows(features: Arrays, rows: npt.NDArray[np.int64]) -> Arrays:
    return {name: Y[rows] for name, Y in features.items()}


def _fit(
    stored: Arrays,
    features: Arrays,
    decoders: dict[str, LinearDecoder] = PAPER,
    k_percent: float | None = 25.0,
) -> tuple[FittedDecoders, VoxelData]:
    """Choose the k % of each layer and fit, as notebook 02 does."""
    data, Y = VoxelData.from_responses(stored), _rows(features, TRAIN)
    layers = {n: decoders[n] for n in Y if n.startswith("clip/")}
    folds = contiguous_folds(len(TRAIN), 2)
    Y_cv = cross_validate(layers, data.X_train, Y, folds)
    k = {"k_grid": K_GRID, "k_percent": k_percent}
    selections = {n: top_percent(Y[n], Y_cv[n], folds, **k) for n in layers}
    return fit({n: decoders[n] for n in Y}, data.X_train, Y, selections), data


def _scores(fitted: FittedDecoders, data: VoxelData, features: Arrays) -> Scores:
    c = features["c"]
    images = ScoredImages.draw(
        100 + TEST, c[TRAIN], c[TEST], n_permutations=20, rng=stream(0, "tests", "draw")
    )
    rng, Y_test = stream(0, "tests"), _rows(features, TEST)
    return score(fitted, data, Y_test, images, n_permutations=20, rng=rng)


def _score(fitted: FittedDecoders, data: VoxelData, features: Arrays) -> pd.DataFrame:
    return _scores(fitted, data, features).accuracy


def _assert_same(first: Arrays, second: Arrays) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


# --- leaks --------------------------------------------------------------------------


def _changed(arrays: Arrays, names: list[str], rows: npt.NDArray[np.int64]) -> Arrays:
    """Return a copy with other values in some rows of some arrays."""
    copy = {name: value.copy() for name, value in arrays.items()}
    for name in names:
        copy[name][rows] = copy[name][rows][::-1] * 3 + 7
    return copy


@KINDS
def test_no_test_response_or_feature_reaches_a_decoder_or_the_selection(
    decoders: dict[str, LinearDecoder],
) -> None:
    stored, features = _brain()
    fitted, data = _fit(stored, features, decoders)
    others, other_data = _fit(
        _changed(stored, ["betas", "n_repeats"], TEST),
        _changed(features, list(WIDTHS), TEST),
        decoders,
    )
    # the change is seen where it should be
    assert not np.array_equal(data.X_test, other_data.X_test)
    _assert_same(fitted.arrays(), others.arrays())
    for name, one in fitted.items():
        np.testing.assert_array_equal(one.selected, others[name].selected)
        np.testing.assert_array_equal(one.scaling.mean, others[name].scaling.mean)
        np.testing.assert_array_equal(one.scaling.scale, others[name].scaling.scale)
    # the comparison is able to fail
    third, _ = _fit(stored, _changed(features, ["clip/1"], TRAIN[:20]), decoders)
    with pytest.raises(AssertionError):
        _assert_same(fitted.arrays(), third.arrays())


def test_validation_images_are_not_used_at_all() -> None:
    stored, features = _brain()
    spoilt = {name: value.copy() for name, value in stored.items()}
    spoilt["betas"][VALIDATION] = np.nan
    spoilt["n_repeats"][VALIDATION] = 0
    missing = {name: Y.copy() for name, Y in features.items()}
    for Y in missing.values():
        Y[VALIDATION] = np.nan
    results = []
    for responses, targets in ((stored, features), (spoilt, missing)):
        fitted, data = _fit(responses, targets)
        Y_hat = fitted.predict(data.X_test)
        table = _score(fitted, data, targets)
        scores = {name: table[name].to_numpy() for name in table.columns}
        decoded = fitted.decoded(_rows(targets, TEST), Y_hat)
        results.append({**fitted.arrays(), **decoded, **scores})
    _assert_same(*results)


def test_a_test_image_is_decoded_without_regard_to_the_other_test_images() -> None:
    fitted, data = _fit(*_brain())
    alone = fitted.predict(data.X_test[3:4])
    for name, values in fitted.predict(data.X_test).items():
        # sums over another number of rows: float64 rounding, stored in float32
        np.testing.assert_allclose(alone[name][0], values[3], rtol=1e-6, atol=1e-6)


def test_features_are_ranked_by_training_images_alone_in_the_k_table() -> None:
    fitted, _ = _fit(*_brain())
    rng = stream(0, "tests", "k")
    one, other = (
        fitted.k_table({n: rng.normal(size=w) for n, w in WIDTHS.items()}, K_GRID)
        for _ in range(2)
    )
    columns = ["layer", "k_percent", "n_selected", "r_cv_selected_mean"]
    columns += ["r_selected_mean", "variance_kept", "identification", "chosen"]
    assert list(one.columns) == columns
    assert one["layer"].tolist() == [1, 1, 2, 2]
    assert [n for n in one if not one[n].equals(other[n])] == ["r_selected_mean"]


# --- fitting ------------------------------------------------------------------------


def test_the_k_percent_are_kept_of_clip_layers_and_everything_of_c_and_z() -> None:
    fitted, _ = _fit(*_brain())
    n_selected = {name: int(one.selected.sum()) for name, one in fitted.items()}
    assert n_selected == {"c": 10, "z": 8, "clip/1": 3, "clip/2": 4}  # k = 25 %
    for name, one in fitted.items():
        assert np.isnan(one.selection.r_cv).all() == (name in ("c", "z"))
    one = fitted["clip/2"]
    r_cv = one.selection.r_cv
    assert r_cv[one.selected].min() >= r_cv[~one.selected].max()
    free, _ = _fit(*_brain(), k_percent=None)
    for name in ("clip/1", "clip/2"):
        scores = free[name].selection.k_scores
        k = float(scores.loc[scores["chosen"], "k_percent"].iloc[0])
        assert free[name].selected.sum() == round(k / 100 * WIDTHS[name])


@KINDS
def test_a_feature_is_read_as_if_it_were_the_only_one(
    decoders: dict[str, LinearDecoder],
) -> None:
    stored, features = _brain()
    fitted, data = _fit(stored, features, decoders)
    assert list(fitted) == list(WIDTHS)
    for name, one in fitted.items():
        alone = _fit(stored, {name: features[name]}, decoders)[0][name]
        np.testing.assert_array_equal(one.decoder.alpha_, alone.decoder.alpha_)
        np.testing.assert_array_equal(one.selected, alone.selected)
        pd.testing.assert_frame_equal(one.selection.k_scores, alone.selection.k_scores)
        np.testing.assert_array_equal(one.scaling.scale, alone.scaling.scale)
        # float32 in other blocks of targets
        np.testing.assert_allclose(one.selection.r_cv, alone.selection.r_cv, atol=1e-5)
        Y_hat = (both.decoder.predict(data.X_test) for both in (one, alone))
        np.testing.assert_allclose(*Y_hat, atol=1e-5)


def test_one_eigendecomposition_serves_all_features_and_one_each_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eigh, sizes = torch.linalg.eigh, []

    def counted(A: torch.Tensor) -> Any:
        sizes.append(len(A))
        return eigh(A)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    _fit(*_brain(), OURS)
    # 60 images and 40 voxels, or 30 images of each of 2 folds: the smaller side
    assert sorted(sizes) == [30, 30, 40]


@pytest.mark.parametrize("lacking", ["train", "test"])
def test_responses_without_training_or_test_images_are_refused(lacking: str) -> None:
    stored, _ = _brain()
    stored["split"] = np.where(np.equal(SPLIT, lacking), "validation", SPLIT)
    with pytest.raises(DataError, match=r"no training or no test images: run"):
        VoxelData.from_responses(stored)


@pytest.mark.parametrize(
    ("name", "shape"), [("X_test", (4, 2)), ("ncsnr", (4,)), ("n_repeats_test", (5,))]
)
def test_arrays_of_other_sizes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    zeros: Arrays = {
        "X_train": np.zeros((6, 3), np.float32),
        "X_test": np.zeros((4, 3), np.float32),
        "ncsnr": np.zeros(3, np.float32),
        "n_repeats_test": np.ones(4, np.int64),
    }
    VoxelData(**zeros)
    with pytest.raises(DataError, match=f"{name} has shape"):
        VoxelData(**{**zeros, name: np.ones(shape, zeros[name].dtype)})
    with pytest.raises(DataError, match="training targets z has shape"):
        fit({"z": RidgeGCV()}, zeros["X_train"], {"z": np.zeros((5, 2), np.float32)})


# --- scoring ------------------------------------------------------------------------


def test_the_table_scores_the_selected_targets_against_null_and_ceiling() -> None:
    stored, features = _brain()
    fitted, data = _fit(stored, features)
    table = _score(fitted, data, features)
    columns = ["feature", "area_set", "r_mean", "r_median", "r_null_mean"]
    columns += ["r_null_high", "p_permutation", "r_ceiling", "n_images", "n_targets"]
    columns += ["r_null_within", "r_null_within_high", "p_within"]
    both = ("by_decoded", "by_truth")
    columns += [f"identify_pairwise_{name}" for name in both]
    columns += [f"identify_top1_{n}{sd}" for n in both for sd in ("", "_sd")]
    columns += ["identify_top1_chance", "identify_n", "identify_n_draws"]
    assert list(table.columns) == columns
    assert table["feature"].tolist() == list(WIDTHS)
    assert table["area_set"].unique().tolist() == ["all"]
    assert table["n_targets"].tolist() == [9, 8, 3, 4]  # c's constant has no r
    assert table["n_images"].unique().tolist() == [12]
    Y_test, Y_hat = _rows(features, TEST), fitted.predict(data.X_test)
    r, ceilings = fitted.correlations(Y_test, Y_hat), fitted.ceilings(data, Y_hat)
    assert np.isnan(r["c"]).tolist() == [False] * 9 + [True]
    for row, (name, one) in zip(table.itertuples(), fitted.items(), strict=True):
        # the same values, summed in two ways
        assert row.r_mean == pytest.approx(np.nanmean(r[name][one.selected]))
        ceiling = np.nanmean(ceilings[name][one.selected])
        assert row.r_ceiling == pytest.approx(ceiling, rel=1e-6)


def test_each_image_has_the_r_of_its_standardised_selected_targets() -> None:
    stored, features = _brain()
    fitted, data = _fit(stored, features)
    table = _scores(fitted, data, features).images
    assert list(table.columns) == ["nsd_id", "feature", "area_set", "r"]
    assert table["nsd_id"].tolist() == [*(100 + TEST)] * len(WIDTHS)
    Y_hat = fitted.predict(data.X_test)
    for name, rows in table.groupby("feature"):
        Y_train = features[name][TRAIN].astype(float)
        truth = (features[name][TEST] - Y_train.mean(0)) / np.where(
            Y_train.std(0) > 0, Y_train.std(0), 1
        )
        keep = fitted[name].selected & (Y_train.std(0) > 0)
        expected = [
            np.corrcoef(t[keep], y[keep])[0, 1]
            for t, y in zip(truth, Y_hat[name], strict=True)
        ]
        np.testing.assert_allclose(rows["r"], expected, atol=1e-5)  # float32


def test_decoders_with_all_targets_are_scored_on_all_of_them() -> None:
    stored, features = _brain()
    fitted, data = _fit(stored, features)
    kept = _score(fitted, data, features)
    every = _score(fitted.with_all_targets(), data, features)
    assert every["n_targets"].tolist() == [9, 8, 12, 16]
    assert kept[:2].equals(every[:2])  # all of c and z are in use
    assert fitted["clip/1"].selected.sum() == 3  # as before


def test_an_area_set_knows_nothing_of_the_voxels_outside_it() -> None:
    stored, features = _brain()
    silent = {name: value.copy() for name, value in stored.items()}
    noise = stream(0, "tests", "silent").normal(size=(len(SPLIT), 20))
    silent["betas"][:, 20:] = noise
    tables = []
    for responses in (stored, silent):
        for keep in (np.arange(N_VOXELS) < 20, np.arange(N_VOXELS) >= 20):
            part = VoxelData.from_responses(responses).voxels(keep)
            fitted = fit(PAPER, part.X_train, _rows(features, TRAIN))
            tables.append(_score(fitted, part, features))
    before_low, before_high, after_low, after_high = tables
    assert before_low["n_targets"].tolist() == [9, 8, 12, 16]  # without selection
    assert before_low.equals(after_low)
    assert min(before_low["r_mean"].min(), before_high["r_mean"].min()) > 0.5
    # 12 images: the mean over targets that share 5 causes has an SD of about 0.15
    assert after_high["r_mean"].max() < 0.5


def test_penalties_at_an_edge_of_the_grid_are_counted_over_targets_that_vary() -> None:
    rng = stream(1, "tests", "penalties")
    X = rng.standard_normal((60, 5)).astype(np.float32)
    clear = X @ rng.standard_normal((5, 3)).astype(np.float32)
    nothing = rng.permutation(clear[:, :1])
    constant = np.ones((60, 1), np.float32)
    Y = {"c": np.hstack([clear, nothing, constant]), "z": clear}
    fitted = fit({"c": RidgeGCV(), "z": VoxelSelectedRidge(0.15, 3)}, X, Y)
    ours, paper = fitted.penalties().to_dict("records")
    decoder = fitted["c"].decoder
    lowest, highest = decoder.alphas_.min(), decoder.alphas_.max()
    assert (ours["n_targets"], ours["n_alphas"]) == (4, len(decoder.alphas_))
    assert ours["at_lowest"] == sum(decoder.alpha_[:4] == lowest) / 4 >= 0.75
    assert ours["at_highest"] == sum(decoder.alpha_[:4] == highest) / 4
    assert (paper["median"], paper["n_alphas"]) == (0.15, 1)
    assert np.isnan([paper["at_lowest"], paper["at_highest"]]).all()


# --- retrieval ----------------------------------------------------------------------


def test_retrieval_finds_the_planted_images_by_the_selected_features_alone() -> None:
    stored, features = _brain()
    fitted, _ = _fit(stored, features)
    Y_train = _rows(features, TRAIN)
    planted = [41, 0, 17, 17]
    rng = stream(0, "tests", "planted")
    Y_hat = {
        name: one.scaling.apply(Y_train[name])[planted]
        + 0.05 * rng.normal(size=(4, WIDTHS[name])).astype(np.float32)
        for name, one in fitted.items()
    }
    assert fitted.nearest(Y_train, Y_hat).tolist() == planted
    for name, one in fitted.items():
        Y_hat[name][:, ~(one.selected & one.scaling.varies)] = 1e6
    assert fitted.nearest(Y_train, Y_hat).tolist() == planted


# --- what is written ----------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    return start("smoke", subject=1)


def test_decoded_features_come_back_from_the_file_in_their_own_units(run: Run) -> None:
    # without noise and with all voxels the decoded feature is the true one
    stored, features = _brain(noise=0.0)
    exact: dict[str, LinearDecoder] = {n: VoxelSelectedRidge(1e-4, 40) for n in WIDTHS}
    fitted, data = _fit(stored, features, exact)
    Y_test, Y_hat = _rows(features, TEST), fitted.predict(data.X_test)
    arrays = fitted.decoded(Y_test, Y_hat)
    path = run.tree.derived(1) / "decoded.h5"
    store.write_arrays(path, arrays, run=run)
    back = store.read_arrays(path)
    _assert_same(arrays, back)
    for name, one in fitted.items():
        np.testing.assert_array_equal(back[f"{name}/true"], Y_test[name])
        np.testing.assert_array_equal(back[f"{name}/selected"], one.selected)
        # float32 responses under a penalty of 1e-4 of 60 images: a few 1e-6 of the unit
        unit = back[f"{name}/scale"].max()
        error = np.abs(back[f"{name}/decoded"] - Y_test[name]).max()
        assert error < 1e-4 * unit
        train = features[name][TRAIN].astype(np.float64)
        # scale is stored in float32
        np.testing.assert_allclose(back[f"{name}/mean"], train.mean(0), rtol=1e-9)
        np.testing.assert_allclose(back[f"{name}/scale"], train.std(0), rtol=1e-6)
    # c's constant: no scale, and decoded as what it is
    assert back["c/scale"][-1] == 0
    assert set(back["c/decoded"][:, -1]) == {np.float32(0.75)}


@KINDS
def test_saved_decoders_restore_the_predictions_of_the_selected_targets(
    run: Run, decoders: dict[str, LinearDecoder]
) -> None:
    fitted, data = _fit(*_brain(), decoders)
    path = run.tree.derived(1) / "decoders.h5"
    store.write_arrays(path, fitted.arrays(), run=run)
    back = store.read_arrays(path)
    Y_hat = fitted.predict(data.X_test)
    for name, one in fitted.items():
        prefix = f"{name}/"
        part = {k.removeprefix(prefix): v for k, v in back.items() if prefix in k[:7]}
        found = type(one.decoder).from_arrays(part).predict(data.X_test)
        assert part["target"].tolist() == np.flatnonzero(one.selected).tolist()
        expected = Y_hat[name][:, part["target"]]
        # some processors round products of fewer columns otherwise
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
        np.testing.assert_array_equal(part["r_cv"], one.selection.r_cv)
        weight = fitted.voxel_weights()[name]
        np.testing.assert_array_equal(part["voxel_weight"], weight)


def test_at_the_size_of_nsd_the_paper_s_decoder_takes_its_fast_solvers() -> None:
    # float64 is always factorised, which takes hours there
    assert load_profile("nsd").decoding.dtype == "float32"
    assert load_profile("demo").decoding.dtype == "float64"


# --- the compared systems -----------------------------------------------------------

LOWER = np.arange(12) < 6


@pytest.fixture(scope="module")
def planted() -> tuple[VoxelData, Arrays, Arrays]:
    """Give voxels whose lower half carries z and pixels, the higher half c."""
    rng = stream(0, "tests", "systems")
    X = rng.normal(size=(150, 12)).astype(np.float32)
    noise = {name: 0.1 * rng.normal(size=(150, 4)) for name in ("c", "z", "pixels")}
    Y = {
        "c": (X[:, 6:10] + noise["c"] + 3).astype(np.float32),
        "z": (2 * X[:, :4] + noise["z"]).astype(np.float32),
        "pixels": (X[:, 1:5] + noise["pixels"]).astype(np.float32),
    }
    data = VoxelData(X[:120], X[120:], np.ones(12, np.float32), np.full(30, 3))
    parts = slice(120), slice(120, None)
    return data, *({k: v[part] for k, v in Y.items()} for part in parts)


def _decode(
    data: VoxelData, Y_train: Arrays, lower: npt.NDArray[np.bool_] = LOWER
) -> Arrays:
    both = ("c", "z")
    fitted = fit({name: RidgeGCV() for name in both}, data.X_train, Y_train)
    paper = {name: VoxelSelectedRidge(0.15, 6) for name in both}
    rng = stream(0, "tests", "permuted")
    return decode_systems(data, Y_train, fitted, paper, lower=lower, rng=rng)


def _r(Y: npt.NDArray[Any], Y_hat: npt.NDArray[Any]) -> float:
    return float(np.nanmean(feature_correlation(Y, Y_hat)))


def test_takagi_reads_z_from_lower_and_c_from_higher_areas_only(
    planted: tuple[VoxelData, Arrays, Arrays],
) -> None:
    data, Y_train, Y_test = planted
    right, wrong = _decode(data, Y_train), _decode(data, Y_train, ~LOWER)
    for name in ("c", "z"):
        assert _r(Y_test[name], right[f"takagi/{name}"]) > 0.9
        # n = 30 test images: chance r has a standard error of 0.18 per target
        assert abs(_r(Y_test[name], wrong[f"takagi/{name}"])) < 0.4
        # the re-implementation reads all areas, wherever the border is
        assert _r(Y_test[name], wrong[f"takagi_minddiffuser/{name}"]) > 0.9
    assert _r(Y_test["pixels"], right["pixel_ridge"]) > 0.9
    # in the feature's units: the planted mean is 3 and the noise 0.1; 30 images
    np.testing.assert_allclose(right["takagi/c"].mean(), Y_test["c"].mean(), atol=0.1)
    # permuted voxels lose the meaning and keep the scale
    permuted = right["permuted_voxels/z"]
    assert _r(Y_test["z"], permuted) < 0.6  # by luck some voxels may keep their place
    assert 0.5 < permuted.std() / Y_test["z"].std() < 2
    with pytest.raises(DataError, match="one group is empty"):
        _decode(data, Y_train, np.ones(12, bool))


def test_small_pixels_are_the_colours_of_the_resized_images() -> None:
    images = np.broadcast_to(np.uint8([51, 102, 255]), (2, 16, 16, 3))
    found = small_pixels(np.ascontiguousarray(images), 4)
    assert found.shape == (2, 48)
    np.testing.assert_array_equal(
        found, resize(images, 4).reshape(2, -1).astype(np.float32) / np.float32(255)
    )
