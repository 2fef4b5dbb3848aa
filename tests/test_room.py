"""As many images at once as the device has room for, and values stored where they fit.

The device is a GPU by name alone: what it has free is said here.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Run, start
from minddiff_utils.generation import reconstruction
from minddiff_utils.generation.alignment import Keeper
from minddiff_utils.generation.critic import StructuralTarget
from minddiff_utils.generation.diffusion import Schedule, make_schedule
from minddiff_utils.generation.reconstruction import (
    DecodedFeatures,
    Room,
    Stage2Settings,
    stage2,
)
from minddiff_utils.models import Backbone, precision, tiny_backbone

GB = 10**9
N = 5
SMALL = {
    "models.backbone": "tiny",
    "models.batch_size": 4,
    "features.clip_layers": (1, 2),
    "stage1.n_steps": 4,
    "stage1.encode_index": 2,
    "stage1.decode_steps": 3,
    "stage2.n_iter": 2,
    "stage2.n_steps_fast": 2,
    "data.n_reconstruct": N,
}


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Give a function that starts a smoke run with tiny models below `tmp_path`."""

    def begins(folder: str = "run", **over: Any) -> Run:
        monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path / folder))
        given = {key.replace("__", "."): value for key, value in over.items()}
        return start("smoke", subject=1, overrides={**SMALL, **given})

    return begins


def _features(backbone: Backbone) -> DecodedFeatures:
    draw = torch.Generator().manual_seed(5)
    widths = {k: backbone.layer_widths[k - 1] for k in (1, 2)}
    target = StructuralTarget(
        {k: torch.randn(N, w, generator=draw) for k, w in widths.items()},
        {k: torch.ones(w, dtype=torch.bool) for k, w in widths.items()},
        {k: torch.ones(w) for k, w in widths.items()},
    )
    z = torch.randn(N, *backbone.latent_shape, generator=draw)
    c = torch.randn(N, backbone.n_tokens, backbone.text_dim, generator=draw)
    return DecodedFeatures(np.arange(10, 10 + N), z, c, target)


# --- how much room there is -----------------------------------------------------------


def _card(free: float) -> Any:
    """Return what is asked of Stable Diffusion in half precision on such a card."""
    return SimpleNamespace(
        name="sd14", image_size=512, unet_item_bytes=2, free_bytes=lambda: free
    )


def _engine(preset: str) -> tuple[Stage2Settings, Schedule]:
    profile = load_profile("nsd", {"stage2.preset": preset})
    diffusion = reconstruction.diffusion_settings(profile.stage1)
    full = make_schedule(tiny_backbone(), diffusion)
    return reconstruction.stage2_settings(profile.stage2), full


def _room(preset: str, free: float, **models: Any) -> Room:
    given = {f"models.{name}": value for name, value in models.items()}
    config = load_profile("nsd", given).models
    return reconstruction.room_for(_card(free), *_engine(preset), config, 16)


@pytest.mark.parametrize("preset", ["paper", "released", "fast", "guided", "combined"])
def test_what_is_chosen_fits_into_what_is_free(preset: str) -> None:
    for free in (24 * GB, 40 * GB, 80 * GB, 141 * GB, 1000 * GB):
        found = _room(preset, free)
        held = reconstruction.held_by(*_engine(preset), found.memory)
        footprint = reconstruction.counted_footprint(2)
        each = reconstruction.image_bytes(footprint, held, found.memory)
        assert 1 <= found.n_images <= 16
        assert found.n_images * each <= free
        # and no room for another image is left unused
        assert found.n_images == 16 or (found.n_images + 1) * each > 0.8 * free


def test_a_gpu_is_not_made_to_compute_twice_where_values_fit() -> None:
    # stored, an image holds 70 samples of .77 GB and the decoder's 6 GB
    assert _room("paper", 24 * GB) == Room("checkpoint", 3)
    assert _room("paper", 80 * GB).memory == "checkpoint"
    assert _room("paper", 180 * GB) == Room("store", 2)
    # 9 samples instead of 70
    assert _room("fast", 80 * GB) == Room("store", 4)
    assert _room("fast", 24 * GB).memory == "checkpoint"


@pytest.mark.parametrize("free", [8, 24, 80, 141])
def test_guided_sampling_stores_on_every_card(free: int) -> None:
    assert _room("guided", free * GB).memory == "store"


def test_the_profile_fixes_mode_and_number() -> None:
    assert _room("guided", 80 * GB, memory="checkpoint").memory == "checkpoint"
    assert _room("paper", 80 * GB, memory="store") == Room("store", 1)
    assert _room("fast", 80 * GB, n_at_once=2) == Room("store", 2)
    assert _room("guided", 1000 * GB, n_at_once=99).n_images == 16


def test_too_little_room_is_said_and_one_image_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert _room("paper", 2 * GB) == Room("checkpoint", 1)
    assert "2.0 GB of the device are free" in caplog.text


@pytest.mark.parametrize("preset", ["paper", "fast", "guided", "combined"])
def test_a_cpu_takes_whole_batches_and_stores(preset: str) -> None:
    models, backbone = load_profile("demo").models, tiny_backbone()
    found = reconstruction.room_for(backbone, *_engine(preset), models, 16)
    assert found == Room("store", 16)
    assert backbone.at_once(64) == 64


def test_images_without_a_gradient_pass_as_many_at_once_as_fit() -> None:
    found = [Backbone.at_once(_card(gb * GB), 64) for gb in (24, 141, 0)]
    assert found == [8, 52, 1]


def test_what_torch_holds_unused_counts_as_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 7 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 4 * GB)
    assert precision.free_bytes(torch.device("cuda")) == 13 * GB
    assert precision.free_bytes(torch.device("cpu")) == float("inf")


# --- images do not depend on it -------------------------------------------------------


@pytest.mark.parametrize("preset", ["fast", "guided", "combined"])
def test_fewer_images_at_once_make_the_same_images(
    begin: Callable[..., Run], preset: str
) -> None:
    backbone = tiny_backbone()
    features, made = _features(backbone), []
    for n_at_once in (None, 1, 3):
        run = begin(f"at_once_{n_at_once}", models__n_at_once=n_at_once)
        config = run.profile.stage2.model_copy(update={"preset": preset})
        found = reconstruction.align_images(run, backbone, features, config)
        made.append(found)
        assert [len(batch.losses) for batch in found.batches] == [4, 1]
        assert not list(run.tree.derived(1).glob("unfinished/*.h5"))
    whole, *others = made
    for found in others:
        assert found.made.nsd_id.tolist() == whole.made.nsd_id.tolist()
        # sums over a batch of another size, in float32: a gray level where it rounds
        difference = found.made.images.astype(int) - whole.made.images
        assert np.abs(difference).max() <= 1
        for name in ("losses", "candidate_losses"):
            np.testing.assert_allclose(
                found.stacked(name), whole.stacked(name), rtol=1e-3
            )
        for name in ("stopped", "n_unet_evaluations", "n_unet_gradients"):
            np.testing.assert_array_equal(found.stacked(name), whole.stacked(name))


def test_parts_of_a_batch_keep_their_own_states_in_one_file() -> None:
    disk: dict[str, Any] = {}
    file = Keeper(lambda: dict(disk) or None, disk.update, 25)
    thirds = [np.array(ids) for ids in ([7, 3], [9, 1], [5])]
    first, second, third = stage2._keepers(file, thirds)
    first.save({"z": np.array([1.0])})
    second.save({"z": np.array([2.0])})
    assert third.load() is None
    # as after a cut: the file is all there is
    again = [keeper.load() for keeper in stage2._keepers(file, thirds)]
    assert [state and float(state["z"][0]) for state in again] == [1.0, 2.0, None]
    halves = [np.array([7, 3, 9]), np.array([1, 5])]  # another room: begun anew
    assert [keeper.load() for keeper in stage2._keepers(file, halves)] == [None, None]
    assert stage2._keepers(None, thirds) == [None] * 3


def test_another_room_finds_the_images_that_were_made(
    begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone()
    features, run = _features(backbone), begin()
    first = reconstruction.align_images(run, backbone, features, run.profile.stage2)
    monkeypatch.setattr(stage2, "align_batch", None)  # so that nothing is made again
    other = begin(models__n_at_once=1, models__memory="checkpoint")
    again = reconstruction.align_images(other, backbone, features, other.profile.stage2)
    np.testing.assert_array_equal(again.made.images, first.made.images)


def test_stage_1_passes_in_parts_where_room_is_short(
    begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone()
    features = _features(backbone)
    whole = reconstruction.stage1_images(begin("whole"), backbone, features)
    monkeypatch.setattr(Backbone, "at_once", lambda *_: 3)
    found = reconstruction.stage1_images(begin("parts"), backbone, features)
    difference = found.images.astype(int) - whole.images
    assert np.abs(difference).max() <= 1  # as above


def test_memory_that_ran_out_is_one_sentence_with_a_remedy(
    begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5.56 GiB")

    monkeypatch.setattr(stage2, "align", full)
    backbone, run = tiny_backbone(), begin()
    with pytest.raises(ModelError, match=r"set models\.n_at_once to less") as error:
        reconstruction.align_images(
            run, backbone, _features(backbone), run.profile.stage2
        )
    assert "4 images at once" in str(error.value)
    assert "\n" not in str(error.value)


def test_room_is_no_part_of_the_digest_at_its_default() -> None:
    assert not {"memory", "n_at_once"} & set(load_profile("nsd").models.model_dump())
