"""The images of conditions are read as they were written, in the tables' order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name, conditions_of
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.run import Run, start
from minddiff_utils.core.types import Images
from minddiff_utils.evaluation.images import condition_images, read_condition
from minddiff_utils.evaluation.metrics import ConditionImages

IDS = np.array([900, 12, 345])


def _images(rng: np.random.Generator, n: int = 3, side: int = 12) -> Images:
    return rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


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
    found = read_condition(folder, "stage1", IDS[[2, 0, 1]])
    assert found is not None
    assert found.nsd_id.tolist() == [345, 900, 12]
    np.testing.assert_array_equal(found.images, images[[2, 0, 1]])


def test_missing_images_of_a_complete_method_are_an_error(
    run: Run, rng: np.random.Generator
) -> None:
    folder = _write(run, "stage1", IDS[:2], _images(rng, 2))
    with pytest.raises(StoreError, match="holds 2 of 3 images"):
        read_condition(folder, "stage1", IDS)
    with pytest.raises(StoreError, match="holds 0 of 3 images"):
        read_condition(folder.parent / "z_only", "z_only", IDS)


def test_a_method_of_the_first_images_only_may_have_fewer_or_none(
    run: Run, rng: np.random.Generator
) -> None:
    images = _images(rng, 2)
    folder = _write(run, "stage2_paper", IDS[1:], images)
    found = read_condition(folder, "stage2_paper", IDS)
    assert found is not None
    assert found.nsd_id.tolist() == [12, 345]
    np.testing.assert_array_equal(found.images, images)
    absent = folder.parent / "stage2_true"
    assert read_condition(absent, "stage2_true", IDS) is None


def test_images_of_different_sizes_are_refused(
    run: Run, rng: np.random.Generator
) -> None:
    folder = _write(run, "stage1", IDS[:2], _images(rng, 2))
    _write(run, "stage1", IDS[2:], _images(rng, 1, side=14))
    with pytest.raises(StoreError, match="different sizes"):
        read_condition(folder, "stage1", IDS)


COMPLETE = [r.name for r in by_name().values() if r.engine and r.n_images == "all"]


def test_conditions_come_in_table_order_with_what_there_is(
    run: Run, rng: np.random.Generator
) -> None:
    for method in COMPLETE:
        _write(run, method, IDS, _images(rng))
    some = ("stage2_paper", "guided_k25", "none")
    for method in some:
        _write(run, method, IDS[:1], _images(rng, 1))
    truth = ConditionImages("truth", IDS, _images(rng))
    found = list(condition_images(run, 1, truth))
    rows = [row.name for row in conditions_of(run.profile)]
    written = {*COMPLETE, *some}
    assert [one.method for one in found] == [r for r in rows if r in written]
    assert {"none", "guided_k25"} == {one.method for one in found[-2:]}
    for one in found:
        whole = one.method not in some
        assert one.nsd_id.tolist() == (IDS if whole else IDS[:1]).tolist()
        assert len(one.images) == len(one.nsd_id)


@pytest.mark.parametrize("method", COMPLETE)
def test_a_condition_of_all_images_may_not_be_missing(
    run: Run, rng: np.random.Generator, method: str
) -> None:
    for name in COMPLETE:
        if name != method:
            _write(run, name, IDS, _images(rng))
    with pytest.raises(StoreError, match=f"{method} holds 0 of 3 images"):
        list(condition_images(run, 1, ConditionImages("truth", IDS, _images(rng))))
