"""Tables, images and trajectories are those of one run, whatever the shards."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.run import Run
from minddiff_utils.generation import SubjectFeatures, results
from minddiff_utils.generation.results import (
    Results,
    write_results,
    zero_iterations_equal,
)
from minddiff_utils.models import Backbone
from tests.small_subject import IDS, Start, backbone, made, start, write_files

__all__ = ["backbone", "start"]  # fixtures

ROWS = by_name()
ONE = {"models__batch_size": 1, "data__n_reconstruct": 5}
FIRST = ("stage1", "z_only", "c_only", "retrieval")
SECOND = ("stage2", "stage2_paper")


def _write(run: Run, backbone: Backbone, names: Sequence[str]) -> Results:
    """Do what notebook 03 or 04 does, with some conditions."""
    features = SubjectFeatures(run, backbone)
    return write_results(run, backbone, features, made(features, *map(ROWS.get, names)))


def _both(run: Run, backbone: Backbone) -> list[Results]:
    return [_write(run, backbone, names) for names in (FIRST, SECOND)]


def _written(folder: Path) -> dict[str, bytes]:
    """Return everything but manifests (they hold times), checkpoints and the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file()
        and "manifest" not in path.name
        and path.parent.name not in ("checkpoints", "parts")
        and path.name != ".lock"
    }


# --- tables -------------------------------------------------------------------------


def test_the_stage_1_table_states_what_each_condition_ran_with(
    start: Start, backbone: Backbone
) -> None:
    run = write_files(start(data__n_reconstruct=2), backbone).run
    _write(run, backbone, FIRST)
    table = store.read_table(run.tree.derived(1) / "stage1.csv")
    assert list(table.columns) == [
        *("method", "nsd_id", "seed", "encode_index", "decode_steps"),
        *("guidance_scale", "guided_share", "n_unet_evaluations", "finished"),
    ]
    assert table["method"].tolist() == np.repeat(FIRST, 2).tolist()
    assert table["nsd_id"].tolist() == IDS[:2].tolist() * 4
    by_method = table.groupby("method", sort=False).first()
    assert by_method["decode_steps"].tolist()[::2] == [3, 4]
    assert by_method["encode_index"].tolist()[::2] == [2, 3]
    assert by_method["n_unet_evaluations"].tolist() == [5, 0, 6, 0]
    without = by_method.loc[["z_only", "retrieval"]]
    settings = ["encode_index", "decode_steps", "guidance_scale", "guided_share"]
    assert without[settings].isna().all(axis=None)


def test_the_stage_2_table_compares_losses_of_the_complete_sampler(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(data__n_reconstruct=3), backbone)
    _write(features.run, backbone, FIRST)
    table = _write(features.run, backbone, SECOND[:1]).tables["stage2.csv"]
    assert list(table.columns) == list(results._COLUMNS[2])
    assert table["nsd_id"].tolist() == IDS[:3].tolist()
    stage2 = made(features, ROWS["stage2"])["stage2"]
    losses = stage2.stacked("candidate_losses")
    candidates = stage2.batches[0]["candidates"].tolist()
    chosen = [candidates.index(k) for k in table["best_iteration"]]
    np.testing.assert_array_equal(table["loss_first"], losses[:, 0])
    np.testing.assert_array_equal(table["loss_best"], losses[range(3), chosen])
    # 3 looks and 3 candidates of 3 steps, 2 of them guided
    assert set(table["n_unet_evaluations"]) == {3 * 5 + 3 * 5}
    assert set(table["n_unet_gradients"]) == {2 * 5}
    # by hand: best in the middle; and steps that diverged after the first image
    by_hand = {
        **stage2.batches[0],
        "candidate_losses": np.array([[4, 1, 3], [2, np.nan, np.nan]], np.float32),
    }
    two = {"nsd_id": IDS[:2], "finished": np.ones(2, bool), "batches": (by_hand,)}
    table = results._table(features.run, {"stage2": replace(stage2, **two)}, 2)
    assert table["loss_first"].tolist() == [4, 2]
    assert table["loss_best"].tolist() == [1, 2]


def test_trajectories_hold_losses_of_all_images_and_frames_of_the_first(
    start: Start, backbone: Backbone
) -> None:
    run = start(**ONE, stage2__n_images_trajectory=2)
    features = write_files(run, backbone)
    _write(run, backbone, FIRST)
    arrays = _write(run, backbone, SECOND[:1]).trajectories
    assert {name: value.shape for name, value in arrays.items()} == {
        "stage2/nsd_id": (5,),
        "stage2/losses": (5, 3),
        "stage2/candidates": (3,),
        "stage2/candidate_losses": (5, 3),
        "stage2/best_iteration": (5,),
        "stage2/iterations": (3,),
        "stage2/shown": (2,),
        "stage2/images": (2, 3, 64, 64, 3),
    }
    assert arrays["stage2/shown"].tolist() == IDS[:2].tolist()
    frames = made(features, ROWS["stage2"])["stage2"].batches[1]["frames"]
    np.testing.assert_array_equal(arrays["stage2/images"][1], frames[0])


@pytest.mark.parametrize("preset", ["paper", "released", "bayes"])
def test_zero_iterations_give_the_files_of_their_start(
    start: Start, backbone: Backbone, preset: str
) -> None:
    run = start(stage2__preset=preset, stage2__bayes__strength=2.0)
    features = write_files(run, backbone)  # batches of two: the first is compared
    first = "stage1_posterior" if preset == "bayes" else "stage1"
    _write(run, backbone, (first,))

    def compare() -> list[bool]:
        table = zero_iterations_equal(run, backbone, features)
        assert list(table.columns) == ["nsd_id", "equal"]
        assert table["nsd_id"].tolist() == IDS[:2].tolist()
        return list(table["equal"])

    assert compare() == [True, True]
    path = run.tree.stage_dir(1, first) / f"{IDS[1]}.png"
    spoilt = store.read_png(path).copy()
    spoilt[0, 0, 0] ^= 1
    store.write_png(path, spoilt, run=run)
    assert compare() == [True, False]


# --- shards -------------------------------------------------------------------------


def _started(start: Start, backbone: Backbone, folder: str, **over: Any) -> Run:
    run = start(folder=folder, **{**ONE, **over})
    if not (run.tree.derived(1) / "decoded.h5").exists():
        write_files(run, backbone)
    return run


@pytest.mark.parametrize("order", [(1, 0), (2, 0, 1), (4, 2, 0, 1, 3)])
def test_shards_in_any_order_leave_the_files_of_one_run_to_the_byte(
    start: Start, backbone: Backbone, order: tuple[int, ...]
) -> None:
    whole = _started(start, backbone, "whole")
    _both(whole, backbone)
    expected = _written(whole.tree.derived(1))
    still = expected.pop("zero_iterations.csv")
    assert b"False" not in still
    n = len(order)
    for names in (FIRST, SECOND):
        for turn, index in enumerate(order):
            run = _started(start, backbone, "parts", shard=f"{index}/{n}")
            found = _write(run, backbone, names)
            assert found.run.is_whole == (turn == n - 1)
            if turn == 0:  # its own share alone
                table = found.tables[f"stage{1 if names == FIRST else 2}.csv"]
                own = table.loc[table["method"] == names[0], "nsd_id"]
                assert own.tolist() == IDS[index::n].tolist()
    written = _written(run.tree.derived(1))
    # each shard, perhaps on a machine of its own, has compared its first batch
    table = pd.read_csv(run.tree.derived(1) / "zero_iterations.csv")
    assert table["nsd_id"].tolist() == IDS[:n].tolist()
    assert table["equal"].all()
    written = {k: v for k, v in written.items() if "zero_iterations" not in k}
    expected = {k: v for k, v in expected.items() if "zero_iterations" not in k}
    assert written == expected


def test_shards_at_the_same_time_leave_the_files_of_one_run(
    start: Start, backbone: Backbone
) -> None:
    whole = _started(start, backbone, "whole")
    _write(whole, backbone, FIRST)
    runs = [_started(start, backbone, "parts", shard=f"{k}/5") for k in range(5)]
    with ThreadPoolExecutor(5) as pool:
        done = list(pool.map(lambda run: _write(run, backbone, FIRST), runs))
    assert any(found.run.is_whole for found in done)
    assert _written(runs[0].tree.derived(1)) == _written(whole.tree.derived(1))


def test_tables_of_some_shards_are_not_read_as_those_of_all(
    start: Start, backbone: Backbone
) -> None:
    for index in (0, 2):
        run = _started(start, backbone, "parts", shard=f"{index}/3")
        _both(run, backbone)
    for name in ("stage1.csv", "stage2.csv", "zero_iterations.csv"):
        with pytest.raises(StoreError, match=f"{name} is not complete, shard 1/3 is"):
            store.read_table(run.tree.derived(1) / name)
    with pytest.raises(StoreError, match="shard 1/3 is missing"):
        store.read_arrays(run.tree.derived(1) / "trajectories.h5")


def test_a_shard_of_another_profile_takes_the_old_tables_away_first(
    start: Start, backbone: Backbone
) -> None:
    _write(_started(start, backbone, "run"), backbone, FIRST)
    other = {"stage1__guidance_scale": 1.0}
    run = _started(start, backbone, "run", shard="0/2", **other)
    _write(run, backbone, FIRST)
    path = run.tree.derived(1) / "stage1.csv"
    assert not path.exists()
    _write(_started(start, backbone, "run", shard="1/2", **other), backbone, FIRST)
    table = store.read_table(path)
    assert sorted(table["guidance_scale"].dropna().unique()) == [1.0]
    assert len(table) == len(FIRST) * 5


def test_a_run_that_is_cut_off_leaves_no_table_beside_images_of_another_run(
    start: Start, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(_started(start, backbone, "run"), backbone, FIRST)
    run = _started(start, backbone, "run", stage1__guidance_scale=1.0)

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_png", cut)
    with pytest.raises(KeyboardInterrupt):
        _write(run, backbone, FIRST)
    assert not (run.tree.derived(1) / "stage1.csv").exists()


def test_the_same_shards_again_change_no_file_and_no_time(
    start: Start, backbone: Backbone
) -> None:
    runs = [_started(start, backbone, "run", shard=f"{k}/2") for k in range(2)]

    def times() -> dict[str, int]:
        names = [p for p in runs[0].tree.derived(1).rglob("*.*") if p.name != ".lock"]
        return {str(p): p.stat().st_mtime_ns for p in names if "manifest" not in p.name}

    for run in runs:
        _both(run, backbone)
    before = times()
    for run in runs:
        _both(run, backbone)
    assert times() == before


def test_images_of_an_earlier_larger_run_do_not_stay(
    start: Start, backbone: Backbone
) -> None:
    _write(_started(start, backbone, "run"), backbone, FIRST)
    run = _started(start, backbone, "run", data__n_reconstruct=2)
    _write(run, backbone, FIRST)
    for name in FIRST:
        kept = {f"{i}.png" for i in IDS[:2]}
        kept |= {f"{png}.manifest.json" for png in kept}
        assert {p.name for p in run.tree.stage_dir(1, name).iterdir()} == kept
