"""Finished batches stay, and a run that is cut off goes on to the same bytes."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.run import Run
from minddiff_utils.generation import SubjectFeatures, alignment, checkpoints
from minddiff_utils.generation.checkpoints import checkpoint_of
from minddiff_utils.generation.generate import Generated
from minddiff_utils.models import Backbone
from minddiff_utils.studies.stage2_arms import arms_of
from tests.small_subject import Start, backbone, made, n_calls, start, write_files

__all__ = ["backbone", "n_calls", "start"]  # fixtures

ROWS = by_name()
Count = Callable[[], int]


class _CutError(Exception):
    """The power fails."""


def _files(run: Run, folder: str = "checkpoints") -> list[Path]:
    return sorted((run.tree.derived(1) / folder).glob("*.h5"))


def _stage2(features: SubjectFeatures) -> Generated:
    return made(features, ROWS["stage2"])["stage2"]


def _cut_off(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any], *, after: int
) -> None:
    """Run with a state kept in every second iteration until so many were kept."""
    write, kept = store.write_arrays, []

    def writes(path: Path, *parts: Any, **more: Any) -> None:
        write(path, *parts, **more)
        if path.parent.name == "unfinished":
            kept.append(path)
            if len(kept) == after:
                raise _CutError

    with monkeypatch.context() as patch:
        patch.setattr(alignment, "KEEP_EVERY", 2)
        patch.setattr(store, "write_arrays", writes)
        with pytest.raises(_CutError):
            run()


#: Long enough that most is done before the cut.
CUT = {
    "stage2__paper__n_iter": 5,
    "stage2__released__n_iter": 5,
    "data__n_reconstruct": 3,
}


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_a_run_that_was_cut_off_goes_on_from_its_file_to_the_same_bytes(
    start: Start,
    backbone: Backbone,
    n_calls: Count,
    monkeypatch: pytest.MonkeyPatch,
    preset: str,
) -> None:
    features = write_files(start(stage2__preset=preset, **CUT), backbone)
    run = features.run
    whole, n_whole = _stage2(features), n_calls()
    assert _files(run, "unfinished") == []  # nothing is left of a run that ended
    shutil.rmtree(run.tree.derived(1) / "checkpoints")
    _cut_off(monkeypatch, lambda: _stage2(features), after=2)
    (left,) = _files(run, "unfinished")
    assert left.name.startswith(f"{whole.nsd_id[0]}_")
    assert store.read_arrays(left)["iteration"] == 4
    n_cut = n_calls()
    again, n_again = _stage2(features), n_calls()
    assert n_again == n_whole - n_cut  # stage 1 of the first batch was kept, too
    assert _files(run, "unfinished") == []
    np.testing.assert_array_equal(again.images, whole.images)
    for first, second in zip(whole.batches, again.batches, strict=True):
        for name, value in first.items():
            np.testing.assert_array_equal(second[name], value, err_msg=name)
            assert second[name].dtype == value.dtype


def test_a_state_of_other_settings_or_of_another_profile_is_not_taken(
    start: Start, backbone: Backbone, n_calls: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = CUT | {"stage2__preset": "paper"}
    features = write_files(start(**cut), backbone)
    others = [
        SubjectFeatures(start(**cut, **change), backbone)
        for change in ({"stage2__paper__step": 0.05}, {"stage1__guidance_scale": 2.0})
    ]
    expected = [(_stage2(other).images, n_calls()) for other in others]
    shutil.rmtree(features.run.tree.derived(1) / "checkpoints")
    _cut_off(monkeypatch, lambda: _stage2(features), after=1)
    (left,) = _files(features.run, "unfinished")
    n_calls()
    # stage 1 of the first batch, 3 steps, is that of the first of them too
    for other, (images, n), known in zip(others, expected, (3, 0), strict=True):
        assert _files(features.run, "unfinished") == [left]
        np.testing.assert_array_equal(_stage2(other).images, images)
        assert n_calls() == n - known


def test_parts_of_a_batch_keep_their_own_states_until_the_batch_is_done(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(), backbone).of("decoded")
    run = start()
    ids = features.nsd_id.tolist()
    batch = checkpoint_of(run, ids, _files, settings="", tensors=features.tensors)
    first, second = batch.state_of(ids[:2]), batch.state_of(ids[2:])
    first.write({"z": np.array([1.0])})
    second.write({"z": np.array([2.0])})
    found = [state.read() for state in (first, second, batch.state_of(ids[:3]))]
    assert [state and float(state["z"][0]) for state in found] == [1.0, 2.0, None]
    batch.made_once(lambda: {"x": np.zeros(1)})
    assert _files(run, "unfinished") == []
    assert batch.read() is not None


def test_a_damaged_batch_is_made_again_and_the_others_stay(
    start: Start, backbone: Backbone, n_calls: Count
) -> None:
    features = write_files(start(data__n_reconstruct=4), backbone)
    images, n = made(features, ROWS["stage1"])["stage1"].images, n_calls()
    files = _files(features.run)
    assert len(files) == 2
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 1
    files[0].write_bytes(content)
    again = made(features, ROWS["stage1"])["stage1"].images
    np.testing.assert_array_equal(again, images)
    assert n_calls() == n // 2


def _make(start: Start, backbone: Backbone, *, order: str) -> None:
    """Make stage 1 ("3"), stage 2 ("4") and a study's arm ("s") in order."""
    for which in order:
        stem = {"3": "03_stage1", "4": "04_stage2", "s": ""}[which]
        run = start(notebook=stem, data__n_reconstruct=3)
        if which == "s":
            (arm,) = (
                a for a in arms_of(run.profile, "pilot") if a.name == "paper, step 0.01"
            )
            features = SubjectFeatures(run, backbone, n=2)
            made(features, replace(arm, settings={"n_iter": 1}))
        else:
            name = "stage1" if which == "3" else "stage2"
            made(SubjectFeatures(run, backbone), ROWS[name])


@pytest.mark.parametrize("order", ["33s43", "s4s3"])
def test_no_notebook_touches_the_checkpoints_of_another(
    start: Start, backbone: Backbone, n_calls: Count, order: str
) -> None:
    write_files(start(), backbone)
    seen: dict[Path, tuple[int, bytes]] = {}
    for done in range(1, len(order) + 1):
        n_calls()
        _make(start, backbone, order=order[done - 1])
        now = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in _files(start())}
        assert seen.items() <= now.items()  # neither gone nor written again
        before, which = order[: done - 1], order[done - 1]
        # stage 2 keeps the images of stage 1 that it starts from
        again = which in before or (which == "3" and "4" in before)
        assert (n_calls() == 0) == again
        assert (len(now) == len(seen)) == again
        seen = now


def test_an_edit_of_the_guided_sampler_makes_stage_2_again_and_nothing_else(
    start: Start, backbone: Backbone, n_calls: Count, edited: Callable[..., None]
) -> None:
    write_files(start(), backbone)
    _make(start, backbone, order="34")
    before = set(_files(start()))
    name, old, new = (
        "generation/guided_sampling.py",
        "def guide(",
        "def guide(  # other",
    )
    edited(name, old, new)
    n_calls()
    _make(start, backbone, order="3")
    assert n_calls() == 0
    _make(start, backbone, order="4")
    assert n_calls() > 0
    assert before < set(_files(start()))  # the old ones wait for their code
    edited(name, new, old)
    n_calls()
    _make(start, backbone, order="34")
    assert n_calls() == 0


def test_words_outside_the_images_makers_make_no_batch_again(
    start: Start, backbone: Backbone, n_calls: Count, edited: Any
) -> None:
    write_files(start(), backbone)
    _make(start, backbone, order="34")
    for name in (
        *("core/store.py", "core/run.py", "core/locks.py", "core/provenance.py"),
        *("core/conditions.py", "generation/results.py", "generation/checkpoints.py"),
        "evaluation/claims/ledger.py",
    ):
        edited(name, "Return", "Give")
    n_calls()
    _make(start, backbone, order="34")
    assert n_calls() == 0


def test_other_weights_make_every_batch_again_and_a_copy_of_them_none(
    start: Start, backbone: Backbone, n_calls: Count, tmp_path: Path
) -> None:
    write_files(start(), backbone)
    for name in ("first", "copy"):
        for part in ("unet", "judge"):
            path = tmp_path / "run" / name / "tiny" / part / "model.safetensors"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"weights")

    def n_made(folder: str) -> int:
        checkpoints._weights.cache_clear()
        n_calls()
        run = start(models__path=folder)
        made(SubjectFeatures(run, backbone), ROWS["stage1"])
        return n_calls()

    copy = tmp_path / "run" / "copy" / "tiny"
    assert n_made("first") > 0
    assert n_made("copy") == 0
    (copy / "judge" / "model.safetensors").write_bytes(b"other")
    assert n_made("copy") == 0
    (copy / "unet" / "model.safetensors").write_bytes(b"other")
    assert n_made("copy") > 0


def test_images_without_a_subject_are_refused(start: Start, backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="belong to a subject"):
        SubjectFeatures(start(subject=None), backbone).of("decoded")
