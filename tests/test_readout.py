"""Nothing of a test image reaches a decoder, and what is written can be read back."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from minddiff_utils.core import store
from minddiff_utils.core.config import DecodingConfig
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run, start
from minddiff_utils.decoding import Accuracy, DenseRidge, VoxelSelectedRidge, readout
from minddiff_utils.decoding.penalties import penalty_table
from minddiff_utils.decoding.readout import FeatureReadout, VoxelData

Arrays = dict[str, npt.NDArray[Any]]
SPLIT = np.array(["train"] * 60 + ["validation"] * 9 + ["test"] * 12, dtype=object)
TRAIN, VALIDATION, TEST = (
    np.flatnonzero(np.equal(SPLIT, name)) for name in ("train", "validation", "test")
)
N_VOXELS = 40
#: Targets of each feature; the last one of c is constant, as c's start token is.
WIDTHS = {"c": 10, "z": 8, "clip/1": 12, "clip/2": 16}
ACCURACY_COLUMNS = ["feature", "area_set", *(f.name for f in fields(Accuracy))]


@pytest.fixture
def config() -> DecodingConfig:
    sizes = {"n_feat_c": 6, "n_feat_z": 9, "n_feat_clip": 12, "n_permutations": 20}
    sizes |= {"k_percent": 25.0}
    return load_profile("smoke").decoding.model_copy(update=sizes)


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
    config: DecodingConfig,
    decoder: readout.DecoderName = "voxel_selected",
) -> tuple[dict[str, FeatureReadout], VoxelData]:
    data = VoxelData.from_responses(stored)
    Y_train = _rows(features, TRAIN)
    readouts = readout.fit_readout(data.X_train, Y_train, config, decoder=decoder)
    return readouts, data


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


@pytest.mark.parametrize("decoder", ["voxel_selected", "dense"])
def test_no_test_response_or_feature_reaches_a_decoder_or_the_selection(
    config: DecodingConfig, decoder: readout.DecoderName
) -> None:
    stored, features = _brain()
    readouts, data = _fit(stored, features, config, decoder)
    others, other_data = _fit(
        _changed(stored, ["betas", "n_repeats"], TEST),
        _changed(features, list(WIDTHS), TEST),
        config,
        decoder,
    )
    # the change is seen where it should be
    assert not np.array_equal(data.X_test, other_data.X_test)
    _assert_same(readout.decoder_arrays(readouts), readout.decoder_arrays(others))
    for name, one in readouts.items():
        np.testing.assert_array_equal(one.selected, others[name].selected)
        np.testing.assert_array_equal(one.scaling.mean, others[name].scaling.mean)
        np.testing.assert_array_equal(one.scaling.scale, others[name].scaling.scale)


def test_a_training_feature_does_reach_the_decoder(config: DecodingConfig) -> None:
    # the comparison of the tests beside this one is able to fail
    stored, features = _brain()
    readouts, _ = _fit(stored, features, config)
    others, _ = _fit(stored, _changed(features, ["clip/1"], TRAIN[:20]), config)
    with pytest.raises(AssertionError):
        _assert_same(readout.decoder_arrays(readouts), readout.decoder_arrays(others))


def test_validation_images_are_not_used_at_all(config: DecodingConfig) -> None:
    stored, features = _brain()
    spoilt = {name: value.copy() for name, value in stored.items()}
    spoilt["betas"][VALIDATION] = np.nan
    spoilt["n_repeats"][VALIDATION] = 0
    missing = {name: Y.copy() for name, Y in features.items()}
    for Y in missing.values():
        Y[VALIDATION] = np.nan
    found = []
    for responses, targets in ((stored, features), (spoilt, missing)):
        readouts, data = _fit(responses, targets, config)
        Y_test = _rows(targets, TEST)
        Y_hat = readout.predict(readouts, data.X_test)
        table = readout.accuracy_table(
            readouts, data, Y_test, n_permutations=20, rng=stream(0, "tests")
        )
        scores = {name: table[name].to_numpy() for name in table.columns}
        decoded = readout.decoded_arrays(readouts, Y_test, Y_hat)
        found.append({**readout.decoder_arrays(readouts), **decoded, **scores})
    _assert_same(*found)


def test_a_test_image_is_decoded_without_regard_to_the_other_test_images(
    config: DecodingConfig,
) -> None:
    stored, features = _brain()
    readouts, data = _fit(stored, features, config)
    Y_hat = readout.predict(readouts, data.X_test)
    alone = readout.predict(readouts, data.X_test[3:4])
    for name, values in Y_hat.items():
        # sums over another number of rows: float64 rounding, stored in float32
        np.testing.assert_allclose(alone[name][0], values[3], rtol=1e-6, atol=1e-6)


def test_features_are_ranked_by_training_images_alone_in_the_k_table(
    config: DecodingConfig,
) -> None:
    readouts, _ = _fit(*_brain(), config)
    rng = stream(0, "tests", "k")
    tables = [
        readout.k_table(
            readouts,
            {name: rng.normal(size=width) for name, width in WIDTHS.items()},
            config.k_grid,
        )
        for _ in range(2)
    ]
    assert list(tables[0].columns) == [
        "layer",
        "k_percent",
        "n_selected",
        "r_cv_selected_mean",
        "r_selected_mean",
        "variance_kept",
        "identification",
        "chosen",
    ]
    n_grid = len(config.k_grid)
    assert tables[0]["layer"].tolist() == [1] * n_grid + [2] * n_grid
    differs = [
        name for name in tables[0] if not tables[0][name].equals(tables[1][name])
    ]
    assert differs == ["r_selected_mean"]


def test_without_a_k_each_layer_takes_the_one_that_cross_validation_chose(
    config: DecodingConfig,
) -> None:
    free = config.model_copy(update={"k_percent": None, "k_grid": (25.0, 100.0)})
    readouts, _ = _fit(*_brain(), free)
    for name in ("clip/1", "clip/2"):
        one = readouts[name]
        assert one.k_scores["chosen"].sum() == 1
        k = float(one.k_scores.loc[one.k_scores["chosen"], "k_percent"].iloc[0])
        assert one.selected.sum() == round(k / 100 * WIDTHS[name])


# --- fitting ------------------------------------------------------------------------


def test_the_k_percent_are_kept_of_clip_layers_and_everything_of_c_and_z(
    config: DecodingConfig,
) -> None:
    readouts, _ = _fit(*_brain(), config)
    n_selected = {name: int(one.selected.sum()) for name, one in readouts.items()}
    assert n_selected == {"c": 10, "z": 8, "clip/1": 3, "clip/2": 4}  # k = 25 %
    for name, one in readouts.items():
        assert np.isnan(one.r_cv).all() == (name in ("c", "z"))
    one = readouts["clip/2"]
    assert one.r_cv[one.selected].min() >= one.r_cv[~one.selected].max()


def test_each_feature_has_its_own_number_of_voxels(config: DecodingConfig) -> None:
    readouts, _ = _fit(*_brain(), config)
    n_voxels = {name: one.decoder.voxels_.shape[1] for name, one in readouts.items()}
    assert n_voxels == {"c": 6, "z": 9, "clip/1": 12, "clip/2": 12}


@pytest.mark.parametrize("decoder", ["voxel_selected", "dense"])
def test_a_feature_is_read_as_if_it_were_the_only_one(
    config: DecodingConfig, decoder: readout.DecoderName
) -> None:
    stored, features = _brain()
    readouts, data = _fit(stored, features, config, decoder)
    assert list(readouts) == list(WIDTHS)
    for name, one in readouts.items():
        alone = _fit(stored, {name: features[name]}, config, decoder)[0][name]
        found, expected = one.decoder.arrays(), alone.decoder.arrays()
        for key in {"alpha", "voxels", "n_feat"} & set(expected):  # what was chosen
            np.testing.assert_array_equal(found[key], expected[key], err_msg=key)
        np.testing.assert_array_equal(one.selected, alone.selected)
        pd.testing.assert_frame_equal(one.k_scores, alone.k_scores)
        np.testing.assert_array_equal(one.scaling.scale, alone.scaling.scale)
        # float32 in other blocks of targets
        np.testing.assert_allclose(one.r_cv, alone.r_cv, atol=1e-5)
        Y_hat = (both.decoder.predict(data.X_test) for both in (one, alone))
        np.testing.assert_allclose(*Y_hat, atol=1e-5)


def _count_eigh(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the size of each eigendecomposition."""
    eigh, sizes = torch.linalg.eigh, []

    def counted(A: torch.Tensor) -> Any:
        sizes.append(len(A))
        return eigh(A)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    return sizes


def test_one_eigendecomposition_serves_all_features_and_one_each_fold(
    config: DecodingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = _count_eigh(monkeypatch)
    _fit(*_brain(), config, "dense")
    # 60 images and 40 voxels, or 30 images of each of 2 folds: the smaller side
    assert sorted(sizes) == [30, 30, 40]


def test_one_eigendecomposition_serves_all_features_of_an_area_set(
    config: DecodingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, features = _brain()
    sizes = _count_eigh(monkeypatch)
    readout.accuracy_by_area_set(
        VoxelData.from_responses(stored),
        {"LVC": np.arange(N_VOXELS) < 25, "HVC": np.arange(N_VOXELS) >= 25},
        _rows(features, TRAIN),
        _rows(features, TEST),
        config,
        decoder="dense",
        rng=stream(0, "tests"),
    )
    assert sizes == [25, 15]


def test_features_of_another_number_of_images_are_refused(
    config: DecodingConfig,
) -> None:
    stored, features = _brain()
    data = VoxelData.from_responses(stored)
    with pytest.raises(DataError, match="training targets z has shape"):
        readout.fit_readout(data.X_train, {"z": features["z"]}, config, decoder="dense")


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


# --- scoring ------------------------------------------------------------------------


def test_test_correlations_are_numpy_s(config: DecodingConfig) -> None:
    stored, features = _brain()
    readouts, data = _fit(stored, features, config)
    Y_test, Y_hat = _rows(features, TEST), readout.predict(readouts, data.X_test)
    found = readout.test_correlations(Y_test, Y_hat)
    width = WIDTHS["z"]
    r = np.corrcoef(Y_test["z"].T, Y_hat["z"].T)[:width, width:].diagonal()
    # float32 input, two orders of summation in float64
    np.testing.assert_allclose(found["z"], r, atol=1e-9)
    assert np.isnan(found["c"]).tolist() == [False] * 9 + [True]


def test_floors_are_near_0_and_ceilings_those_of_the_table(
    config: DecodingConfig,
) -> None:
    stored, features = _brain()
    readouts, data = _fit(stored, features, config)
    Y_test, Y_hat = _rows(features, TEST), readout.predict(readouts, data.X_test)
    floors = readout.floor_correlations(Y_test, Y_hat, rng=stream(1, "tests"))
    own = readout.test_correlations(Y_test, Y_hat)
    for name in WIDTHS:
        # 12 test images: r of unrelated images has a standard deviation of 0.3
        assert np.nanmean(floors[name]) < np.nanmean(own[name]) - 0.2
    ceilings = readout.ceiling_correlations(readouts, data, Y_hat)
    table = readout.accuracy_table(
        readouts, data, Y_test, n_permutations=5, rng=stream(2, "tests")
    ).set_index("feature")
    for name, found in readouts.items():
        mean = np.nanmean(ceilings[name][found.selected])
        # the same float32 values, summed in two ways
        assert table.loc[name, "r_ceiling"] == pytest.approx(mean, rel=1e-6)


def test_the_accuracy_table_scores_the_selected_targets(
    config: DecodingConfig,
) -> None:
    stored, features = _brain()
    readouts, data = _fit(stored, features, config)
    Y_test, Y_hat = _rows(features, TEST), readout.predict(readouts, data.X_test)
    table = readout.accuracy_table(
        readouts, data, Y_test, n_permutations=20, rng=stream(0, "tests")
    )
    assert list(table.columns) == ACCURACY_COLUMNS
    assert table["feature"].tolist() == list(WIDTHS)
    assert table["area_set"].unique().tolist() == ["all"]
    assert table["n_targets"].tolist() == [9, 8, 3, 4]  # c's constant has no r
    assert table["n_images"].unique().tolist() == [12]
    r = readout.test_correlations(Y_test, Y_hat)
    means = [np.nanmean(r[name][one.selected]) for name, one in readouts.items()]
    # the same correlations averaged in another order
    np.testing.assert_allclose(table["r_mean"], means, atol=1e-12)


def test_an_area_set_knows_nothing_of_the_voxels_outside_it(
    config: DecodingConfig,
) -> None:
    stored, features = _brain()
    halves = {"LVC": np.arange(N_VOXELS) < 20, "HVC": np.arange(N_VOXELS) >= 20}
    silent = {name: value.copy() for name, value in stored.items()}
    noise = stream(0, "tests", "silent").normal(size=(len(SPLIT), 20))
    silent["betas"][:, 20:] = noise
    Y_train, Y_test = _rows(features, TRAIN), _rows(features, TEST)
    before, after = (
        readout.accuracy_by_area_set(
            VoxelData.from_responses(responses),
            halves,
            Y_train,
            Y_test,
            config,
            decoder="voxel_selected",
            rng=stream(0, "tests"),
        )
        for responses in (stored, silent)
    )
    assert list(before.columns) == ACCURACY_COLUMNS
    assert before["area_set"].tolist() == ["LVC"] * 4 + ["HVC"] * 4
    assert before["n_targets"].tolist() == [9, 8, 12, 16] * 2  # without selection
    assert before[:4].equals(after[:4])
    assert before["r_mean"].min() > 0.5
    # 12 images: the mean over targets that share 5 causes has an SD of about 0.15
    assert after["r_mean"][4:].max() < 0.5


# --- retrieval ----------------------------------------------------------------------


def test_retrieval_finds_the_training_images_that_were_planted(
    config: DecodingConfig,
) -> None:
    stored, features = _brain()
    readouts, _ = _fit(stored, features, config)
    Y_train = _rows(features, TRAIN)
    planted = [41, 0, 17, 17]
    rng = stream(0, "tests", "planted")
    Y_hat = {
        name: one.scaling.apply(Y_train[name])[planted]
        + 0.05 * rng.normal(size=(4, WIDTHS[name])).astype(np.float32)
        for name, one in readouts.items()
    }
    found = readout.nearest_training_image(readouts, Y_train, Y_hat)
    assert found.tolist() == planted


def test_retrieval_does_not_look_at_unselected_features(config: DecodingConfig) -> None:
    stored, features = _brain()
    readouts, data = _fit(stored, features, config)
    Y_train, Y_hat = _rows(features, TRAIN), readout.predict(readouts, data.X_test)
    found = readout.nearest_training_image(readouts, Y_train, Y_hat)
    for name, one in readouts.items():
        Y_hat[name][:, ~one.selected] = 1e6
    again = readout.nearest_training_image(readouts, Y_train, Y_hat)
    assert again.tolist() == found.tolist()


# --- what is written ----------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    return start("smoke", subject=1)


def test_decoded_features_come_back_from_the_file_in_their_own_units(
    config: DecodingConfig, run: Run
) -> None:
    # without noise and with all voxels the decoded feature is the true one
    stored, features = _brain(noise=0.0)
    exact = config.model_copy(
        update={"alpha": 1e-4, "n_feat_c": 40, "n_feat_z": 40, "n_feat_clip": 40}
    )
    readouts, data = _fit(stored, features, exact)
    Y_test, Y_hat = _rows(features, TEST), readout.predict(readouts, data.X_test)
    path = run.tree.derived(1) / "decoded.h5"
    arrays = readout.decoded_arrays(readouts, Y_test, Y_hat)
    store.write_arrays(path, arrays, run=run)
    back = store.read_arrays(path)
    _assert_same(arrays, back)
    for name, one in readouts.items():
        np.testing.assert_array_equal(back[f"{name}/true"], Y_test[name])
        np.testing.assert_array_equal(back[f"{name}/selected"], one.selected)
        # float32 responses under a penalty of 1e-4 of 60 images: a few 1e-6 of the unit
        unit = back[f"{name}/scale"].max()
        error = np.abs(back[f"{name}/decoded"] - Y_test[name]).max()
        assert error < 1e-4 * unit


def test_the_stored_mean_and_scale_are_those_of_the_training_images(
    config: DecodingConfig,
) -> None:
    stored, features = _brain()
    readouts, data = _fit(stored, features, config)
    Y_hat = readout.predict(readouts, data.X_test)
    arrays = readout.decoded_arrays(readouts, _rows(features, TEST), Y_hat)
    for name, Y in _rows(features, TRAIN).items():
        wide = Y.astype(np.float64)
        # scale is stored in float32
        np.testing.assert_allclose(arrays[f"{name}/mean"], wide.mean(0), rtol=1e-9)
        np.testing.assert_allclose(arrays[f"{name}/scale"], wide.std(0), rtol=1e-6)
    # c's constant: no scale, and decoded as what it is
    assert arrays["c/scale"][-1] == 0
    assert set(arrays["c/decoded"][:, -1]) == {np.float32(0.75)}


def test_at_the_size_of_nsd_the_paper_s_decoder_takes_its_fast_solvers() -> None:
    # float64 is always factorised, which takes hours there
    decoding = load_profile("nsd").decoding
    decoder = readout.make_decoder("z", decoding, "voxel_selected")
    assert decoder.get_params()["dtype"] == "float32"
    exact = readout.make_decoder("z", load_profile("demo").decoding, "voxel_selected")
    assert exact.get_params()["dtype"] == "float64"


@pytest.mark.parametrize("decoder", ["voxel_selected", "dense"])
def test_saved_decoders_restore_the_predictions_of_the_selected_targets(
    config: DecodingConfig, run: Run, decoder: readout.DecoderName
) -> None:
    readouts, data = _fit(*_brain(), config, decoder)
    kind = {"voxel_selected": VoxelSelectedRidge, "dense": DenseRidge}[decoder]
    path = run.tree.derived(1) / "decoders.h5"
    store.write_arrays(path, readout.decoder_arrays(readouts), run=run)
    back = store.read_arrays(path)
    Y_hat = readout.predict(readouts, data.X_test)
    for name, one in readouts.items():
        own = {
            key.removeprefix(f"{name}/"): value
            for key, value in back.items()
            if key.startswith(f"{name}/")
        }
        found = kind.from_arrays(own).predict(data.X_test)
        target = own["target"]
        assert target.tolist() == np.flatnonzero(one.selected).tolist()
        expected = Y_hat[name][:, target]
        # some processors round products of fewer columns otherwise
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
        np.testing.assert_array_equal(own["r_cv"], one.r_cv)


def test_voxel_weights_are_the_mean_absolute_weights_of_all_targets(
    config: DecodingConfig,
) -> None:
    readouts, _ = _fit(*_brain(), config)
    found = readout.voxel_weights(readouts)
    decoder = readouts["clip/1"].decoder
    full = np.zeros((WIDTHS["clip/1"], N_VOXELS))
    np.put_along_axis(full, decoder.voxels_.astype(int), decoder.weights_, axis=1)
    assert list(found) == list(WIDTHS)
    # two orders of summation in float64
    np.testing.assert_allclose(found["clip/1"], np.abs(full).mean(0), atol=1e-14)


# --- penalties ----------------------------------------------------------------------


def test_penalties_at_an_edge_of_the_grid_are_counted_over_targets_that_vary(
    config: DecodingConfig,
) -> None:
    rng = stream(1, "tests", "penalties")
    X = rng.standard_normal((60, 5)).astype(np.float32)
    clear = X @ rng.standard_normal((5, 3)).astype(np.float32)
    nothing = rng.permutation(clear[:, :1])
    constant = np.ones((60, 1), np.float32)
    Y = {"c": np.hstack([clear, nothing, constant])}
    readouts = readout.fit_readout(X, Y, config, decoder="dense")
    [row] = penalty_table(readouts).to_dict("records")
    decoder = readouts["c"].decoder
    assert isinstance(decoder, DenseRidge)
    own = decoder.alpha_[:4]
    lowest, highest = decoder.alphas_.min(), decoder.alphas_.max()
    assert row["n_targets"] == 4
    assert row["n_alphas"] == len(decoder.alphas_)
    assert row["at_lowest"] == sum(a == lowest for a in own) / 4 >= 0.75
    assert row["at_highest"] == sum(a == highest for a in own) / 4


def test_the_paper_s_one_penalty_has_no_edges(config: DecodingConfig) -> None:
    responses, features = _brain()
    data = VoxelData.from_responses(responses)
    Y = {"z": features["z"][TRAIN]}
    readouts = readout.fit_readout(data.X_train, Y, config, decoder="voxel_selected")
    [row] = penalty_table(readouts).to_dict("records")
    assert row["median"] == config.alpha
    assert row["n_alphas"] == 1
    assert np.isnan([row["at_lowest"], row["at_highest"]]).all()
