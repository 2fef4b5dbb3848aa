"""As many images at once as the device has room for, and values stored where they fit.

The device is a GPU by name alone: what it has free is said here.
"""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.generation.device_memory import (
    Room,
    counted_footprint,
    held_by,
    image_bytes,
    room_for,
)
from minddiff_utils.generation.presets import EngineSettings, engine_settings
from minddiff_utils.generation.sampler import Schedule, make_schedule
from minddiff_utils.models import Backbone, precision, tiny_backbone
from tests.small_subject import Start, backbone, made, start, write_files

__all__ = ["backbone", "start"]  # fixtures

#: The module, in whose place the function of the same name is handed on.
GENERATE = sys.modules["minddiff_utils.generation.generate"]
GB = 10**9


# --- how much room there is -----------------------------------------------------------


def _card(free: float) -> Any:
    """Return what is asked of Stable Diffusion in half precision on such a card."""
    return SimpleNamespace(
        name="sd14", image_size=512, unet_item_bytes=2, free_bytes=lambda: free
    )


def _engine(preset: str) -> tuple[EngineSettings, Schedule]:
    profile = load_profile("nsd", {"stage2.preset": preset})
    full = make_schedule(tiny_backbone(), profile.stage1)
    return engine_settings(profile.stage2), full


def _room(preset: str, free: float, **models: Any) -> Room:
    given = {f"models.{name}": value for name, value in models.items()}
    config = load_profile("nsd", given).models
    return room_for(_card(free), *_engine(preset), config, 16)


@pytest.mark.parametrize("preset", ["paper", "released", "bayes"])
def test_what_is_chosen_fits_into_what_is_free(preset: str) -> None:
    for free in (24 * GB, 40 * GB, 80 * GB, 141 * GB, 1000 * GB):
        found = _room(preset, free)
        held = held_by(*_engine(preset), found.memory)
        footprint = counted_footprint(2)
        each = image_bytes(footprint, held, found.memory)
        assert 1 <= found.n_images <= 16
        assert found.n_images * each <= free
        # and no room for another image is left unused
        assert found.n_images == 16 or (found.n_images + 1) * each > 0.8 * free


def test_a_gpu_is_not_made_to_compute_twice_where_values_fit() -> None:
    # stored, an image holds 70 samples of .77 GB and the decoder's 6 GB
    assert _room("paper", 24 * GB) == Room("checkpoint", 3)
    assert _room("paper", 80 * GB).memory == "checkpoint"
    assert _room("paper", 180 * GB) == Room("store", 2)


@pytest.mark.parametrize("free", [8, 24, 80, 141])
def test_guided_sampling_stores_on_every_card(free: int) -> None:
    assert _room("bayes", free * GB).memory == "store"


def test_the_profile_fixes_mode_and_number() -> None:
    assert _room("bayes", 80 * GB, memory="checkpoint").memory == "checkpoint"
    assert _room("paper", 80 * GB, memory="store") == Room("store", 1)
    assert _room("paper", 80 * GB, n_at_once=2) == Room("checkpoint", 2)
    assert _room("bayes", 1000 * GB, n_at_once=99).n_images == 16


def test_too_little_room_is_said_and_one_image_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert _room("paper", 2 * GB) == Room("checkpoint", 1)
    assert "2.0 GB of the device are free" in caplog.text


@pytest.mark.parametrize("preset", ["paper", "bayes"])
def test_a_cpu_takes_whole_batches_and_stores(preset: str) -> None:
    models, backbone = load_profile("demo").models, tiny_backbone()
    found = room_for(backbone, *_engine(preset), models, 16)
    assert found == Room("store", 16)
    assert backbone.at_once(64) == 64


def test_images_without_a_gradient_pass_as_many_at_once_as_fit() -> None:
    found = [Backbone.at_once(_card(gb * GB), 64) for gb in (24, 141, 0)]
    assert found == [8, 52, 1]


def test_a_cpu_encodes_large_images_one_by_one_and_small_ones_together() -> None:
    """16 of 512 px at once did not fit into 24 GB, and were no faster."""
    assert Backbone.at_once(_card(float("inf")), 16) == 1
    small: Any = SimpleNamespace(image_size=64, free_bytes=lambda: float("inf"))
    assert Backbone.at_once(small, 60) == 60


def test_what_torch_holds_unused_counts_as_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 7 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 4 * GB)
    assert precision.free_bytes(torch.device("cuda")) == 13 * GB
    assert precision.free_bytes(torch.device("cpu")) == float("inf")


# --- images do not depend on it -------------------------------------------------------

FOUR = {"models__batch_size": 4, "ablation__n_images": 5}


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage2_guided"])
def test_fewer_images_at_once_make_the_same_images(
    start: Start, backbone: Backbone, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for n_at_once in (None, 1, 3):
        run = start(folder=f"at_{n_at_once}", models__n_at_once=n_at_once, **FOUR)
        if n_at_once is not None:  # stage 1 asks the backbone, stage 2 for its room
            monkeypatch.setattr(Backbone, "at_once", lambda *_, n=n_at_once: n)
        found.append(made(write_files(run, backbone), by_name()[name])[name])
        assert not list(run.tree.derived(1).glob("unfinished/*.h5"))
    whole, *others = found
    for other in others:
        assert other.nsd_id.tolist() == whole.nsd_id.tolist()
        # sums over a batch of another size, in float32: a gray level where it rounds
        difference = other.images.astype(int) - whole.images
        assert np.abs(difference).max() <= 1
        if name == "stage1":
            continue
        assert [len(batch["losses"]) for batch in other.batches] == [4, 1]
        for field in ("losses", "candidate_losses"):
            expected = whole.stacked(field)
            np.testing.assert_allclose(other.stacked(field), expected, rtol=1e-3)
        for field in ("stopped", "n_unet_evaluations", "n_unet_gradients"):
            np.testing.assert_array_equal(other.stacked(field), whole.stacked(field))


def test_another_room_finds_the_images_that_were_made(
    start: Start, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(write_files(start(), backbone), by_name()["stage2"])["stage2"]
    monkeypatch.setattr(GENERATE, "align_batch", None)  # nothing is made again
    run = start(models__n_at_once=1, models__memory="checkpoint")
    again = made(write_files(run, backbone), by_name()["stage2"])["stage2"]
    np.testing.assert_array_equal(again.images, first.images)


def test_memory_that_ran_out_is_one_sentence_with_a_remedy(
    start: Start, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5.56 GiB")

    monkeypatch.setattr(GENERATE, "align", full)
    features = write_files(start(**FOUR), backbone)
    with pytest.raises(ModelError, match=r"set models\.n_at_once to less") as error:
        made(features, by_name()["stage2"])
    assert "4 images at once" in str(error.value)
    assert "\n" not in str(error.value)
