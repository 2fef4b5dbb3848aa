"""Preparation: no leak, no silent repair, and noise ceilings that are true."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.datasets import Trials, Units
from minddiff_utils.datasets.nsd.data_set import Nsd
from minddiff_utils.datasets.nsd.experiment import Design
from minddiff_utils.datasets.nsd.layout import FACTS, SUBJECT1
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.datasets.visual_areas import ROI_LABELS, assign_areas
from minddiff_utils.preprocessing import (
    area_table,
    count_areas,
    prepare_responses,
    responses,
)
from minddiff_utils.preprocessing.noise_ceiling import (
    ncsnr_of_trials,
    noise_ceiling,
    noise_ceiling_r,
)
from minddiff_utils.preprocessing.repeats import read_repeats
from minddiff_utils.preprocessing.splits import check_splits, split_images
from minddiff_utils.preprocessing.stimuli import COCO_CATEGORIES, categories_in_captions
from minddiff_utils.preprocessing.trials import (
    average_repeats,
    fit_scaling,
    zscore_sessions,
)

SEEDS = st.integers(0, 2**32 - 1)


def labels(name: str) -> dict[str, int]:
    return {label: v for v, label in enumerate(ROI_LABELS[name], start=1)}


# --- splits -------------------------------------------------------------------------


def test_a_split_of_another_name_is_caught() -> None:
    with pytest.raises(DataError, match="'dev' is not"):
        check_splits(np.array([3]), np.array(["dev"]))


def test_images_out_of_order_are_refused() -> None:
    with pytest.raises(DataError, match="distinct and ascending"):
        split_images(np.array([1, 1, 2000]), np.array([True, True, False]), 0)


def published_order(rng: np.random.Generator) -> np.ndarray:
    """Return an order, 0-based, in which 18 shared and 141 other images come late.

    These are the images that NSD's first 37 sessions lack (1000 - 982, 9000 - 8859).
    """
    late = np.r_[rng.choice(1000, 18, False), 1000 + rng.choice(9000, 141, False)]
    others = np.setdiff1d(np.arange(10_000), late)
    again = rng.permutation(np.repeat(others, 2))
    trials = np.r_[rng.permutation(others), again]
    end = rng.permutation(np.r_[trials[27_750:], np.repeat(late, 3)])
    return np.r_[trials[:27_750], end]


def split_counts(order: np.ndarray, sessions: int) -> dict[str, int]:
    seen = np.unique(order[: 750 * sessions])
    split = split_images(seen, seen < 1000, 859)
    return dict(zip(*np.unique(split, return_counts=True), strict=True))


def test_37_and_40_sessions_give_the_published_splits(rng: np.random.Generator) -> None:
    order = published_order(rng)
    assert split_counts(order, 37) == {"test": 982, "validation": 859, "train": 8000}
    assert split_counts(order, 40) == {"test": 1000, "validation": 859, "train": 8141}


@pytest.mark.parametrize("sessions", [3, 30, 37, 40])
def test_the_split_follows_what_was_shown_and_no_number(
    rng: np.random.Generator, sessions: int
) -> None:
    order = rng.permutation(np.repeat(np.arange(10_000), 3))
    seen = set(order[: 750 * sessions].tolist())
    n_test = sum(image < 1000 for image in seen)
    counts = {"test": n_test, "validation": 859, "train": len(seen) - n_test - 859}
    assert split_counts(order, sessions) == counts


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(1000, 9999), min_size=3, max_size=60), st.data())
def test_validation_folds_share_no_image_and_the_first_is_published(
    other: set[int], data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(other) - 1))
    images = np.array([0, *sorted(other)])
    n_folds = len(other) // size
    folds = [
        images[split_images(images, images < 1000, size, fold) == "validation"].tolist()
        for fold in range(1, n_folds + 1)
    ]
    assert folds[0] == images[-size:].tolist()
    joined = [image for fold in reversed(folds) for image in fold]
    assert joined == images[len(images) - n_folds * size :].tolist()
    with pytest.raises(DataError, match=f"folds 1 to {n_folds} of {size}"):
        split_images(images, images < 1000, size, n_folds + 1)


# --- choices in the profile ---------------------------------------------------------


@pytest.mark.parametrize("chosen", [[2, 1], [1, 1], [2, 38], [0, 1], []])
def test_a_set_of_sessions_that_cannot_be_is_one_sentence(chosen: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"only_sessions.*mend the override"):
        load_profile("nsd", {"data.only_sessions": chosen})


def test_a_set_of_sessions_is_read_instead_of_the_first_ones() -> None:
    assert DATA.session_numbers == (1, 2)
    data = load_profile("nsd", {"data.only_sessions": [3, 37]}).data
    assert data.session_numbers == (3, 37)


@pytest.mark.parametrize(
    ("field", "usual", "other"),
    [
        ("only_sessions", None, [3, 37]),
        ("validation_fold", 1, 2),
        ("voxels", "areas", "nsdgeneral"),
        ("n_train", None, 100),
        ("n_test_repeats", None, 1),
    ],
)
def test_only_another_choice_than_the_usual_one_changes_the_digest(
    field: str, usual: object, other: object
) -> None:
    stated = load_profile("nsd", {f"data.{field}": usual})
    assert stated.digest == load_profile("nsd").digest
    changed = load_profile("nsd", {f"data.{field}": other})
    assert changed.digest != stated.digest


# --- scaling ------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.floats(-1e3, 1e3), st.floats(0.1, 100))
def test_training_values_do_not_change_when_test_values_do(
    seed: int, shift: float, factor: float
) -> None:
    rng = np.random.default_rng(seed)
    percent = rng.normal(2, 3, (40, 4)).astype(np.float32)
    session = np.repeat([1, 2], 20)
    fit = rng.permutation(np.tile([True, True, False, True], 10))
    changed = percent.copy()
    changed[~fit] = changed[~fit] * np.float32(factor) + np.float32(shift)
    before = zscore_sessions(percent, session, fit)
    after = zscore_sessions(changed, session, fit)
    np.testing.assert_array_equal(before[fit], after[fit])


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_each_session_has_mean_zero_and_sd_one_on_the_fitted_trials(seed: int) -> None:
    rng = np.random.default_rng(seed)
    session = rng.permutation(np.repeat([3, 8], 30))
    percent = rng.normal(0, 1, (60, 3)) * (session[:, None] + 1) + session[:, None]
    fit = rng.random(60) < 0.7
    z = zscore_sessions(percent.astype(np.float32), session, fit)
    for number in (3, 8):
        rows = z[fit & (session == number)].astype(np.float64)
        np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)  # float32
        np.testing.assert_allclose(rows.std(axis=0, ddof=1), 1, atol=1e-5)


def test_a_voxel_without_data_in_a_session_is_nan_there_only() -> None:
    rng = np.random.default_rng(0)
    percent = rng.normal(size=(20, 2)).astype(np.float32)
    session = np.repeat([1, 2], 10)
    percent[:10, 1] = 0
    z = zscore_sessions(percent, session, np.ones(20, bool))
    assert np.isnan(z[:10, 1]).all()
    assert np.isfinite(z[10:]).all()
    assert np.isfinite(z[:, 0]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_raise(bad: float) -> None:
    percent = np.ones((6, 2), np.float32)
    percent[3, 1] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        zscore_sessions(percent, np.ones(6, np.int64), np.ones(6, bool))
    with pytest.raises(DataError, match="NaN or infinite"):
        fit_scaling(percent)


def test_a_session_without_training_trials_is_refused() -> None:
    percent = np.ones((6, 2), np.float32)
    with pytest.raises(DataError, match="at least 2 training rows, but has 0"):
        zscore_sessions(percent, np.ones(6, np.int64), np.zeros(6, bool))


def test_scaling_applies_the_training_statistics_to_other_rows() -> None:
    scaling = fit_scaling(np.array([[0, 5], [2, 5]], np.float32))
    found = scaling.apply(np.array([[1 + np.sqrt(2), 7]], np.float32))
    np.testing.assert_allclose(found, [[1, np.nan]], rtol=1e-6)
    assert scaling.valid.tolist() == [True, False]


# --- averaging ----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 40))
def test_averaging_equals_a_loop_over_images(seed: int, n_trials: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_trials, 3)).astype(np.float32)
    z[rng.random(z.shape) < 0.2] = np.nan
    image = rng.integers(0, 8, n_trials)
    found = average_repeats(z, image)
    assert found.image.tolist() == sorted(set(image.tolist()))
    n_filled = 0
    for row, i in enumerate(found.image):
        assert found.n_repeats[row] == (image == i).sum()
        for v in range(3):
            values = z[image == i, v].astype(np.float64)
            values = values[np.isfinite(values)]
            n_filled += not len(values)
            expected = values.mean() if len(values) else 0.0
            assert found.betas[row, v] == pytest.approx(expected, abs=1e-6)
    assert found.n_filled == n_filled


# --- reliability --------------------------------------------------------------------


def simulate(
    rng: np.random.Generator, ncsnr: float, n_images: int, repeats: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return signal (n_images,), z (n_trials, 1), image; unit total variance."""
    signal = rng.normal(0, ncsnr, n_images)
    image = np.repeat(np.arange(n_images), repeats)
    trials = signal[image] + rng.normal(0, 1, len(image))
    return signal, (trials / np.hypot(ncsnr, 1))[:, None].astype(np.float32), image


@pytest.mark.parametrize("ncsnr", [0.3, 0.6, 1.0])
def test_ncsnr_is_recovered(rng: np.random.Generator, ncsnr: float) -> None:
    _, z, image = simulate(rng, ncsnr, 20_000, np.array(3))
    found = ncsnr_of_trials(z, image)[0]
    # v^2 has relative SE 1/sqrt(2 x 20000 / 2) = 0.7 %, so SE(ncsnr) < 0.013 at 0.3
    assert found == pytest.approx(ncsnr, abs=0.04)


def test_ncsnr_equals_the_textbook_loop(rng: np.random.Generator) -> None:
    z = rng.normal(size=(60, 2)).astype(np.float32) * np.float32(0.8)
    z[5, 1] = np.nan
    image = rng.permutation(np.r_[np.repeat(np.arange(15), 3), np.arange(15, 30)])
    for voxel in (0, 1):
        variances = [
            np.var(z[image == i, voxel].astype(float), ddof=1) for i in range(15)
        ]
        noise = np.nanmean(variances)
        expected = np.sqrt(max(0, 1 - noise)) / np.sqrt(noise)
        assert ncsnr_of_trials(z, image)[voxel] == pytest.approx(expected, 1e-5)


def test_ncsnr_is_unknown_without_three_repeats() -> None:
    z = np.ones((4, 2), np.float32)
    assert np.isnan(ncsnr_of_trials(z, np.array([0, 0, 1, 1]))).all()


def test_the_ceiling_is_the_correlation_of_averages_with_the_signal(
    rng: np.random.Generator,
) -> None:
    repeats = rng.integers(1, 4, 30_000)
    signal, z, image = simulate(rng, 0.5, 30_000, repeats)
    averaged = average_repeats(z, image).betas[:, 0]
    found = np.corrcoef(signal, averaged)[0, 1]
    ceiling = noise_ceiling_r(np.array([0.5], np.float32), repeats)[0]
    assert found == pytest.approx(ceiling, abs=0.015)  # SE of r is 0.004


def test_the_mixed_formula_equals_nsd_s_for_equal_repeats() -> None:
    ncsnr = np.array([0, 0.2, 0.9], np.float32)
    for n in (1, 2, 3):
        found = noise_ceiling(ncsnr, np.full(7, n))
        np.testing.assert_allclose(found, 100 * ncsnr**2 / (ncsnr**2 + 1 / n), 1e-6)


@pytest.mark.parametrize("bad", [np.nan, -0.1])
def test_a_ceiling_needs_a_valid_ncsnr(bad: float) -> None:
    with pytest.raises(DataError, match="ncsnr"):
        noise_ceiling(np.array([bad], np.float32), np.array([3]))


def test_a_ceiling_needs_repeats() -> None:
    with pytest.raises(DataError, match="at least one repeat"):
        noise_ceiling(np.ones(1, np.float32), np.array([0, 3]))


# --- areas --------------------------------------------------------------------------


def test_drawn_areas_override_the_atlas() -> None:
    kastner = np.array([1, 1, 0, 24, -1, 13, 12, 25])
    prf = np.array([7, 0, 3, 0, -1, 0, 6, 0])
    areas = assign_areas(kastner, labels("Kastner2015"), prf, labels("prf-visualrois"))
    named = [AREAS[a] if a >= 0 else "" for a in areas]
    assert named == ["hV4", "V1", "V2", "", "", "MT", "V3", ""]


def test_every_atlas_label_has_the_area_of_the_published_recipe() -> None:
    kastner = np.arange(-1, 26)
    areas = assign_areas(
        kastner,
        labels("Kastner2015"),
        np.zeros_like(kastner),
        labels("prf-visualrois"),
    )
    groups = {
        "V1": {1, 2}, "V2": {3, 4}, "V3": {5, 6}, "hV4": {7}, "VO": {8, 9},
        "PHC": {10, 11}, "MST": {12}, "MT": {13}, "LO": {14, 15}, "V3ab": {16, 17},
        "IPS": set(range(18, 24)),
    }  # fmt: skip
    found = {a: set(kastner[areas == k].tolist()) for k, a in enumerate(AREAS)}
    assert found == groups


def test_voxels_outside_the_areas_are_counted_apart() -> None:
    named = {"LVC": LVC, "HVC": HVC}
    position, area = np.zeros((4, 3), np.int32), np.array([0, 5, 11, 11], np.int32)
    table = count_areas(Units(position, (1, 1, 1), area, (*AREAS, "none"), named), 1)
    sets = table.groupby("area_set")["n_voxels"].sum()
    assert sets.to_dict() == {"LVC": 1, "HVC": 1, "none": 2}
    assert table["area"].tolist() == [*AREAS, "none"]


# --- one subject --------------------------------------------------------------------


class MemoryTree(NsdTree):
    """A tree whose files are arrays."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(root=None)  # type: ignore[arg-type]
        rng = np.random.default_rng(seed)
        images = np.r_[np.arange(100), np.arange(1000, 1400)]
        order = rng.permutation(np.repeat(images, 3))
        trials = Trials(np.repeat([1, 2], 750), order + 5, order)
        signal = rng.normal(0, 300, (10_000, 12))[order]
        raw = signal + rng.normal(0, 400, signal.shape)
        raw = (raw * np.repeat([1, 2], 750)[:, None]).astype(np.int16)
        object.__setattr__(self, "parts", (trials, raw))

    def check_sessions(self, *_: object) -> None: ...

    def has_ncsnr(self, _: object) -> bool:
        return True

    def sessions_of(self, _: object, asked: Sequence[int]) -> Sequence[int]:
        return asked

    def trials(self, *_: object) -> Trials:
        return self.parts[0]  # type: ignore[attr-defined]

    def design(self) -> Design:
        images = np.tile(np.arange(10_000) + 5, (8, 1))
        return Design(np.zeros(0, np.int64), images)

    def second_test_set(self) -> np.ndarray:
        return self.second

    second = np.zeros(0, np.int64)

    def roi(self, _: object, name: str) -> np.ndarray:
        drawn = name == "prf-visualrois"
        return np.where(drawn, 0, np.arange(1, 13)).reshape(3, 2, 2)

    def roi_labels(self, _: object, name: str) -> dict[str, int]:
        return labels(name)

    def ncsnr(self, *_: object) -> np.ndarray:
        return np.full((3, 2, 2), 0.75, np.float32)

    def betas(self, _: object, session: int, *__: object) -> np.ndarray:
        trials, raw = self.parts  # type: ignore[attr-defined]
        return raw[trials.session == session]


DATA = DataConfig(sessions=2, n_validation=40, n_reconstruct=3)


class FullGrid(MemoryTree):
    """Subject 1's real grid, with 12 voxels in the areas."""

    def roi(self, _: object, name: str) -> np.ndarray:
        volume = np.zeros(FACTS[1].grid)
        volume[40, 20, 30:42] = 0 if name == "prf-visualrois" else np.arange(1, 13)
        return volume

    def ncsnr(self, *_: object) -> np.ndarray:
        return np.full(FACTS[1].grid, 0.75, np.float32)


def test_areas_are_counted_and_another_number_than_the_paper_s_only_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "minddiff_utils")
    assert prepare_responses(Nsd(FullGrid()), 1, DATA).betas.shape[1] == 12
    counts = "12 voxels (V1 2, V2 2, V3 2, V3ab 0, hV4 1, VO 2, PHC 2, LO 0, MT 0"
    assert counts in caplog.text
    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("subject 1 has 12 voxels in the 11 areas, but")
    assert "used 11694" in warning
    caplog.clear()
    prepare_responses(Nsd(FullGrid()), 2, DATA)  # the paper states no other subject's
    prepare_responses(Nsd(MemoryTree()), 1, DATA)  # a folder that is not NSD's size
    monkeypatch.setitem(SUBJECT1, "11 areas", 12)
    prepare_responses(Nsd(FullGrid()), 1, DATA)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_prepared_responses_are_complete_and_aligned() -> None:
    ready = prepare_responses(Nsd(MemoryTree()), 1, DATA)
    arrays = ready.arrays()
    assert arrays["betas"].shape == (500, 12)
    assert arrays["betas"].dtype == arrays["noise_ceiling_r"].dtype == np.float32
    assert (np.diff(arrays["nsd_id"]) > 0).all()
    assert arrays["roi_names"].tolist() == list(AREAS)
    recomputed = ready.ncsnr_recomputed
    assert recomputed.mean() == pytest.approx(0.75, abs=0.05)  # 12 voxels, SE 0.01


def test_prepared_training_rows_ignore_the_test_trials() -> None:
    tree, other = MemoryTree(), MemoryTree()
    trials, raw = other.parts  # type: ignore[attr-defined]
    changed = raw.copy()
    shared = trials.place < 1000
    changed[shared] = -changed[shared] // 3
    object.__setattr__(other, "parts", (trials, changed))
    before = prepare_responses(Nsd(tree), 1, DATA)
    after = prepare_responses(Nsd(other), 1, DATA)
    rows = before.split != "test"
    np.testing.assert_array_equal(before.betas[rows], after.betas[rows])
    assert not np.array_equal(before.betas[~rows], after.betas[~rows])


class WithSecondSet(MemoryTree):
    """A tree in which some shared images form a second test set."""

    second = np.array([7, 20, 104])  # nsd_id; the 10k index is five less


def test_a_second_test_set_is_a_split_of_its_own_and_moves_no_other_image() -> None:
    trees = MemoryTree(), WithSecondSet()
    one, two = (prepare_responses(Nsd(tree), 1, DATA) for tree in trees)
    again = two.split == "test2"
    assert two.nsd_id[again].tolist() == [7, 20, 104]
    assert (one.split[again] == "test").all()
    np.testing.assert_array_equal(one.split[~again], two.split[~again])
    np.testing.assert_array_equal(one.betas, two.betas)  # no test trial scales
    assert len(two.n_valid_test) == 97


def test_a_second_test_set_must_leave_a_first_one_and_be_shared() -> None:
    place = np.array([3, 1000, 1001])
    shared = place < 1000
    with pytest.raises(DataError, match="cannot give a test set"):
        split_images(place, shared, 1, is_second=shared)
    place = np.array([3, 4, 1000, 1001])
    second = np.isin(place, [4, 1000])
    split = split_images(place, place < 1000, 1, is_second=second)
    assert split.tolist() == ["test", "test2", "train", "validation"]


def test_fewer_trials_of_a_test_image_are_its_first_ones_and_move_nothing_else() -> (
    None
):
    tree = WithSecondSet()
    whole = prepare_responses(Nsd(tree), 1, DATA)
    single = prepare_responses(
        Nsd(tree), 1, DATA.model_copy(update={"n_test_repeats": 1})
    )
    tests = np.char.startswith(whole.split, "test")
    np.testing.assert_array_equal(whole.nsd_id, single.nsd_id)
    np.testing.assert_array_equal(whole.betas[~tests], single.betas[~tests])
    np.testing.assert_array_equal(whole.n_repeats[~tests], single.n_repeats[~tests])
    assert (single.n_repeats[tests] == 1).all()
    assert (single.n_valid_test == 1).all()
    found = read_repeats(Nsd(tree), 1, DATA, whole, [0, 1], n_images=5)
    rows = np.searchsorted(single.nsd_id, found.nsd_id)
    np.testing.assert_allclose(single.betas[rows][:, :2], found.z[:, 0], atol=1e-6)
    np.testing.assert_array_equal(whole.ncsnr_recomputed, single.ncsnr_recomputed)
    assert (single.noise_ceiling_r < whole.noise_ceiling_r).all()


def test_fewer_training_images_are_spread_and_leave_the_others() -> None:
    few = DATA.model_copy(update={"n_train": 36})
    whole, part = (prepare_responses(Nsd(MemoryTree()), 1, d) for d in (DATA, few))
    train = np.flatnonzero(whole.split == "train")
    assert len(train) == 360
    kept = np.flatnonzero(np.isin(whole.nsd_id, part.nsd_id))
    np.testing.assert_array_equal(part.split, whole.split[kept])
    np.testing.assert_array_equal(
        np.delete(whole.split, train), part.split[part.split != "train"]
    )
    chosen = np.flatnonzero(np.isin(train, kept))
    assert len(chosen) == 36
    assert chosen[0] == 0
    assert chosen[-1] == 359
    assert set(np.diff(chosen).tolist()) <= {10, 11}
    np.testing.assert_array_equal(part.betas, whole.betas[kept])  # scaled as before
    more = DATA.model_copy(update={"n_train": 1000})
    same = prepare_responses(Nsd(MemoryTree()), 1, more)
    np.testing.assert_array_equal(same.nsd_id, whole.nsd_id)


def test_trials_that_were_averaged_before_cannot_be_left_out() -> None:
    averaged = Nsd(MemoryTree())
    object.__setattr__(averaged, "are_averaged", True)
    data = DATA.model_copy(update={"n_test_repeats": 1, "zscore_on": "all"})
    with pytest.raises(ConfigError, match="do without data"):
        prepare_responses(averaged, 1, data)


def test_scaling_on_all_trials_is_the_stated_alternative() -> None:
    data = DATA.model_copy(update={"zscore_on": "all"})
    trials, raw = MemoryTree().parts  # type: ignore[attr-defined]
    ready = prepare_responses(Nsd(MemoryTree()), 1, data)
    z = np.empty(raw.shape)
    for session in (1, 2):
        rows = raw[trials.session == session].astype(float)
        scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
        z[trials.session == session] = scaled
    image = np.unique(trials.place)[7]
    expected = z[trials.place == image].mean(axis=0)
    np.testing.assert_allclose(ready.betas[7], expected, atol=1e-5)  # float32


def test_the_fold_decides_which_images_validate_and_what_scales_the_sessions() -> None:
    first = prepare_responses(Nsd(MemoryTree()), 1, DATA)
    second = prepare_responses(
        Nsd(MemoryTree()), 1, DATA.model_copy(update={"validation_fold": 2})
    )
    assert np.flatnonzero(first.split == "validation").tolist() == [*range(460, 500)]
    assert np.flatnonzero(second.split == "validation").tolist() == [*range(420, 460)]
    assert not np.array_equal(first.betas, second.betas)


def test_blocks_of_voxels_do_not_change_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = prepare_responses(Nsd(MemoryTree()), 1, DATA)
    monkeypatch.setattr(responses, "_BLOCK", 5)
    parts = prepare_responses(Nsd(MemoryTree()), 1, DATA)
    np.testing.assert_array_equal(whole.betas, parts.betas)
    np.testing.assert_array_equal(whole.ncsnr_recomputed, parts.ncsnr_recomputed)


def test_the_area_table_covers_areas_sets_and_all() -> None:
    ready = prepare_responses(Nsd(MemoryTree()), 1, DATA)
    table = area_table(ready).set_index("area")
    assert list(table.index) == [*AREAS, "LVC", "HVC", "all"]
    n_all = table.loc["all", "n_voxels"]
    assert n_all == 12 == table.loc["LVC", "n_voxels"] + table.loc["HVC", "n_voxels"]
    assert table.loc["all", "ncsnr"] == pytest.approx(0.75)


# --- single trials ------------------------------------------------------------------


class MaskedTree(MemoryTree):
    """A tree that returns the voxels that are asked for, and notes the sessions."""

    def betas(self, _: object, session: int, mask: np.ndarray) -> np.ndarray:
        self.asked.append(session)  # type: ignore[attr-defined]
        return super().betas(None, session)[:, mask.ravel()]


@pytest.mark.parametrize("zscore_on", ["train", "all"])
@pytest.mark.parametrize("voxels", [(2, 7), (7, 2)])
def test_the_mean_of_the_repeats_is_the_response(
    zscore_on: str, voxels: tuple[int, int]
) -> None:
    data = DATA.model_copy(update={"zscore_on": zscore_on})
    tree = MaskedTree()
    object.__setattr__(tree, "asked", [])
    ready = prepare_responses(Nsd(tree), 1, data)
    found = read_repeats(Nsd(tree), 1, data, ready, voxels, n_images=7)
    assert found.z.shape == (7, 3, 2)
    rows = np.searchsorted(ready.nsd_id, found.nsd_id)
    assert (ready.split[rows] == "test").all()
    expected = ready.betas[rows][:, list(voxels)]
    np.testing.assert_allclose(found.z.mean(axis=1), expected, rtol=0, atol=2e-6)


def test_repeats_come_from_the_first_sessions_that_hold_enough_of_them() -> None:
    tree = MaskedTree()
    object.__setattr__(tree, "asked", [])
    ready = prepare_responses(Nsd(tree), 1, DATA)
    trials = tree.trials()
    first = trials.image_id[(trials.place < 1000) & (trials.session == 1)]
    ids, counts = np.unique(first, return_counts=True)
    tree.asked.clear()  # type: ignore[attr-defined]
    found = read_repeats(Nsd(tree), 1, DATA, ready, [0, 1], n_images=3)
    assert tree.asked == [1]  # type: ignore[attr-defined]
    assert set(found.nsd_id) <= set(ids[counts == 3])


def test_a_voxel_that_is_named_twice_is_refused() -> None:
    tree = MaskedTree()
    object.__setattr__(tree, "asked", [])
    ready = prepare_responses(Nsd(tree), 1, DATA)
    with pytest.raises(DataError, match="not all different"):
        read_repeats(Nsd(tree), 1, DATA, ready, [1, 1])


# --- captions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("two hot dogs on a plate", {"hot dog"}),
        ("a DOG and three buses", {"dog", "bus"}),
        ("a carpet and a catalogue", set()),
        ("a teddy bear beside a bear", {"teddy bear", "bear"}),
        ("Two people with knives, and a mouse", {"person", "knife", "mouse"}),
    ],
)
def test_captions_name_whole_categories(caption: str, expected: set[str]) -> None:
    assert categories_in_captions(np.array([[caption]])) == [expected]


def test_coco_has_eighty_distinct_categories() -> None:
    assert len(set(COCO_CATEGORIES)) == 80
