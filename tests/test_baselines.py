"""Retrieval finds what was planted, and conditions are read as they were written."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minddiff_utils.core import conditions, store
from minddiff_utils.core.errors import ConfigError, DataError, StoreError
from minddiff_utils.core.run import Run, start
from minddiff_utils.decoding.retrieval import nearest_rows
from minddiff_utils.evaluation import baselines
from minddiff_utils.evaluation.metrics import ConditionImages

Images = npt.NDArray[np.uint8]
IDS = np.array([900, 12, 345])


def _images(rng: np.random.Generator, n: int = 3, side: int = 12) -> Images:
    return rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


# --- retrieval ----------------------------------------------------------------------


def _feature(
    rng: np.random.Generator, rows: list[int], *, noise: float, n_features: int = 60
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return noisy copies of `rows`, and the training features of which they are."""
    training = rng.normal(size=(40, n_features))
    return training[rows] + noise * rng.normal(size=(len(rows), n_features)), training


def _nearest(**pairs: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> list[int]:
    decoded, training = ({n: pair[k] for n, pair in pairs.items()} for k in (0, 1))
    return nearest_rows(decoded, training).tolist()


def test_retrieval_finds_the_planted_neighbour_and_of_equal_ones_the_first(
    rng: np.random.Generator,
) -> None:
    rows = [31, 4, 4, 17]
    pairs = {name: _feature(rng, rows, noise=0.5) for name in ("c", "z")}
    assert _nearest(**pairs) == rows
    for _, training in pairs.values():
        training[2] = training[4]
    assert _nearest(**pairs) == [31, 2, 2, 17]


def test_retrieval_takes_the_mean_correlation_and_counts_each_feature_once(
    rng: np.random.Generator,
) -> None:
    pairs = {name: _feature(rng, [3, 8], noise=3.0) for name in ("c", "z")}
    r = sum(np.corrcoef(*pair)[:2, 2:] for pair in pairs.values())
    assert _nearest(**pairs) == np.argmax(r, axis=1).tolist()
    short = _feature(rng, [5], noise=0.0, n_features=20)
    long = _feature(rng, [9], noise=3.0, n_features=4000)
    assert _nearest(c=short, z=long) == [5]


def test_features_that_cannot_be_compared_are_refused(rng: np.random.Generator) -> None:
    predicted, training = _feature(rng, [5, 6], noise=0.5)
    with pytest.raises(DataError, match="at least one decoded feature"):
        _nearest()
    for flat in (np.ones((1, 60)), np.zeros((1, 0))):
        with pytest.raises(DataError, match="does not vary"):
            _nearest(c=(flat, training[:, : flat.shape[1]]))
    with pytest.raises(DataError, match="training c has shape"):
        _nearest(c=(predicted, training[:, 1:]))
    with pytest.raises(DataError, match="similarity by z"):
        _nearest(c=(predicted, training), z=(predicted[:1], training))


# --- simple images ------------------------------------------------------------------


def test_the_mean_image_is_the_rounded_mean_of_each_value() -> None:
    images = np.zeros((3, 1, 2, 3), np.uint8)
    images[:, 0, 0, 0] = (255, 255, 254)  # 254.67: no wrap, rounded up
    images[:, 0, 1, 2] = (1, 0, 0)
    expected = np.zeros((1, 2, 3), np.uint8)
    expected[0, 0, 0] = 255
    found = baselines.mean_image(images)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    repeated = baselines.repeat_image(found, 4)
    assert repeated.shape == (4, 1, 2, 3)
    assert (repeated == found).all()


def test_no_training_images_have_no_mean() -> None:
    with pytest.raises(DataError, match=r"raise data\.sessions"):
        baselines.mean_image(np.zeros((0, 2, 2, 3), np.uint8))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_batches_change_nothing_and_are_no_larger_than_asked(
    batch_size: int, rng: np.random.Generator
) -> None:
    images, seen = _images(rng, 5), []

    def invert(batch: Images) -> npt.NDArray[np.generic]:
        seen.append(len(batch))
        return np.asarray(255 - batch)

    found = baselines.in_batches(invert, batch_size)(images)
    np.testing.assert_array_equal(found, 255 - images)
    assert max(seen) <= batch_size
    assert sum(seen) == 5


# --- conditions on disk -------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    return start("smoke", subject=1)


def _write(run: Run, method: str, ids: Any, images: Images) -> Path:
    folder = run.tree.stage_dir(1, method)
    for nsd_id, image in zip(ids, images, strict=True):
        store.write_png(folder / f"{nsd_id}.png", image, run=run)
    return folder


def test_images_come_back_in_the_order_asked_for(
    run: Run, rng: np.random.Generator
) -> None:
    images = _images(rng)
    folder = _write(run, "stage1", IDS, images)
    found = baselines.read_condition(folder, "stage1", IDS[[2, 0, 1]])
    assert found is not None
    assert found.nsd_id.tolist() == [345, 900, 12]
    np.testing.assert_array_equal(found.images, images[[2, 0, 1]])


def test_missing_images_of_a_complete_method_are_an_error(
    run: Run, rng: np.random.Generator
) -> None:
    folder = _write(run, "stage1", IDS[:2], _images(rng, 2))
    with pytest.raises(StoreError, match="holds 2 of 3 images"):
        baselines.read_condition(folder, "stage1", IDS)
    with pytest.raises(StoreError, match="holds 0 of 3 images"):
        baselines.read_condition(folder.parent / "z_only", "z_only", IDS)


def test_a_method_of_the_first_images_only_may_have_fewer_or_none(
    run: Run, rng: np.random.Generator
) -> None:
    images = _images(rng, 2)
    folder = _write(run, "stage2_paper", IDS[1:], images)
    found = baselines.read_condition(folder, "stage2_paper", IDS)
    assert found is not None
    assert found.nsd_id.tolist() == [12, 345]
    np.testing.assert_array_equal(found.images, images)
    absent = folder.parent / "stage2_true"
    assert baselines.read_condition(absent, "stage2_true", IDS) is None


def test_images_of_different_sizes_are_refused(
    run: Run, rng: np.random.Generator
) -> None:
    folder = _write(run, "stage1", IDS[:2], _images(rng, 2))
    _write(run, "stage1", IDS[2:], _images(rng, 1, side=14))
    with pytest.raises(StoreError, match="different sizes"):
        baselines.read_condition(folder, "stage1", IDS)


COMPLETE = ("stage1", "stage2", "z_only", "c_only", "true_features", "shuffled")
COMPLETE += ("stage2_guided", "stage2_combined", "permuted_voxels")
COMPLETE += ("takagi", "takagi_minddiffuser", "brain_diffuser_style")


def _written(run: Run, rng: np.random.Generator) -> ConditionImages:
    for method in COMPLETE:
        _write(run, method, IDS, _images(rng))
    return ConditionImages("truth", IDS, _images(rng))


def test_conditions_come_in_table_order_with_what_there_is(
    run: Run, rng: np.random.Generator
) -> None:
    truth = _written(run, rng)
    _write(run, "stage2_paper", IDS[:1], _images(rng, 1))
    made = {"mean_image": _images(rng), "retrieval": _images(rng)}
    found = list(baselines.conditions(run.tree, 1, truth, made))
    names = [condition.method for condition in found]
    assert names == [
        row.name
        for row in conditions.TABLE
        if row.name in {*COMPLETE, *made, "stage2_paper"}
    ]
    for condition in found:
        whole = condition.method != "stage2_paper"
        assert condition.nsd_id.tolist() == (IDS if whole else IDS[:1]).tolist()
        assert len(condition.images) == len(condition.nsd_id)
    retrieved = found[names.index("retrieval")]
    np.testing.assert_array_equal(retrieved.images, made["retrieval"])


def test_an_ablation_comes_last_and_may_have_the_first_images_only(
    run: Run, rng: np.random.Generator
) -> None:
    truth = _written(run, rng)
    _write(run, "guided_k25", IDS[:2], _images(rng, 2))
    wanted = ("guided_k25", "guided_k50")
    found = list(baselines.conditions(run.tree, 1, truth, {}, ablations=wanted))
    known = conditions.by_name()
    assert [c.method for c in found if c.method not in known] == ["guided_k25"]
    assert found[-1].nsd_id.tolist() == IDS[:2].tolist()


def test_images_made_on_the_spot_must_be_known_and_match_the_truth(
    run: Run, rng: np.random.Generator
) -> None:
    truth = _written(run, rng)
    for name in ("retreival", "stage1"):
        with pytest.raises(ConfigError, match=f"made is '{name}'"):
            list(baselines.conditions(run.tree, 1, truth, {name: _images(rng)}))
    made = {"retrieval": _images(rng, 2)}
    with pytest.raises(DataError, match="the images of retrieval"):
        list(baselines.conditions(run.tree, 1, truth, made))
