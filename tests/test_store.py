"""Artefacts are atomic, deterministic and say what made them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from minddiff_utils import store
from minddiff_utils.errors import ConfigError, StoreError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Run:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    return store.start("smoke", subject=1)


def test_arrays_and_strings_come_back_as_they_were(run: store.Run) -> None:
    path = run.tree.derived(1) / "a.h5"
    numbers = np.arange(3000, dtype=np.float32).reshape(50, 60)
    store.write_arrays(path, {"x/y": numbers, "s": ["ä", "b"]}, run=run, attrs={"k": 2})
    back = store.read_arrays(path)
    np.testing.assert_array_equal(back["x/y"], numbers)
    assert list(back["s"]) == ["ä", "b"]
    assert store.read_attrs(path)["k"] == 2


def test_the_same_arrays_give_the_same_bytes(run: store.Run) -> None:
    arrays = {"x": np.arange(5000.0), "s": ["one", "two"]}
    first, second = run.tree.derived(1) / "a.h5", run.tree.derived(1) / "b.h5"
    store.write_arrays(first, arrays, run=run)
    store.write_arrays(second, arrays, run=run)
    assert first.read_bytes() == second.read_bytes()


def test_a_changed_input_or_a_damaged_artefact_is_not_current(run: store.Run) -> None:
    source, path = run.tree.root / "in.txt", run.tree.root / "out.txt"
    source.write_text("1")
    store.write_text(path, "made", run=run, inputs=[source])
    assert store.is_current(path, run=run, inputs=[source])
    source.write_text("2")
    assert not store.is_current(path, run=run, inputs=[source])
    source.write_text("1")
    path.write_text("spoiled")
    assert not store.is_current(path, run=run, inputs=[source])


def test_a_failed_write_leaves_nothing_behind(run: store.Run) -> None:
    path = run.tree.root / "x.h5"
    with pytest.raises(TypeError):
        store.write_arrays(path, {"x": np.array([{}], dtype=object)}, run=run)
    assert list(run.tree.root.iterdir()) == []


def test_missing_and_damaged_files_are_said_in_a_sentence(run: store.Run) -> None:
    path = run.tree.root / "x.h5"
    with pytest.raises(StoreError, match="does not exist"):
        store.read_arrays(path)
    path.write_bytes(b"no hdf5")
    with pytest.raises(StoreError, match="damaged"):
        store.read_arrays(path)


def test_an_absent_name_is_named(run: store.Run) -> None:
    path = run.tree.root / "x.h5"
    store.write_arrays(path, {"x": np.zeros(2)}, run=run)
    with pytest.raises(StoreError, match="lacks y"):
        store.read_arrays(path, ["y"])


def test_a_table_has_markdown_and_latex_twins_with_the_profile(run: store.Run) -> None:
    path = run.tree.tables / "t.csv"
    store.write_table(path, pd.DataFrame({"a_b": [0.5]}), run=run, caption="C")
    assert store.read_table(path)["a_b"].tolist() == [0.5]
    assert "in-silico" in path.with_suffix(".md").read_text()
    assert r"a\_b" in path.with_suffix(".tex").read_text()


def test_png_round_trip_and_wrong_images_are_refused(run: store.Run) -> None:
    path = run.tree.root / "i.png"
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    store.write_png(path, image, run=run)
    np.testing.assert_array_equal(store.read_png(path), image)
    with pytest.raises(StoreError, match="uint8"):
        store.write_png(path, image.astype(float), run=run)


@pytest.mark.parametrize("shard", ["2/2", "a/b", "1", "-1/2"])
def test_wrong_shards_are_refused(run: store.Run, shard: str) -> None:
    with pytest.raises(ConfigError, match="INDEX/COUNT"):
        store.start("smoke", shard=shard)


def test_a_subject_outside_the_profile_is_refused(run: store.Run) -> None:
    with pytest.raises(ConfigError, match="subject 8"):
        store.start("smoke", subject=8)


def test_shards_part_the_images_without_overlap(run: store.Run) -> None:
    shards = [store.start("smoke", shard=f"{i}/3") for i in range(3)]
    for position in range(7):
        assert sum(s.in_shard(position) for s in shards) == 1
