"""Every condition gets the features it names, and an image is its own whatever shard.

The models are tiny and random: what images look like means nothing here.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from minddiff_utils.core import store
from minddiff_utils.core.config import Stage2Config
from minddiff_utils.core.errors import ConfigError, DataError, MindDiffError, StoreError
from minddiff_utils.core.images import to_uint8
from minddiff_utils.core.rng import stream, torch_stream
from minddiff_utils.core.run import Run
from minddiff_utils.core.run import start as start_run
from minddiff_utils.generation import batches, reconstruction
from minddiff_utils.generation.alignment import Latent
from minddiff_utils.generation.batches import Batch
from minddiff_utils.generation.diffusion import draw_noise, make_schedule, sample
from minddiff_utils.generation.guidance import GuidanceSettings, guide
from minddiff_utils.generation.reconstruction import (
    Aligned,
    DecodedFeatures,
    Made,
    Source,
)
from minddiff_utils.models import Backbone, tiny_backbone
from minddiff_utils.studies.study import arms as study_arms
from minddiff_utils.studies.study import images as study_images

Arrays = dict[str, npt.NDArray[Any]]
IDS = np.array([907, 12, 3456, 88, 71999])
LAYERS = (1, 2)
SMALL = {
    "models.backbone": "tiny",
    "models.batch_size": 2,
    "features.clip_layers": LAYERS,
    "stage1.n_steps": 4,
    "stage1.encode_index": 2,
    "stage1.decode_steps": 3,
    "stage2.n_iter": 2,
    "stage2.n_steps_fast": 2,
    "stage2.n_iter_paper": 1,
}
Start = Callable[..., Run]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Give a function that starts a smoke run with tiny models below `tmp_path`."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))

    def starts(
        *, subject: int | None = 1, shard: str = "0/1", notebook: str = "", **over: Any
    ) -> Run:
        named = {key.replace("__", "."): value for key, value in over.items()}
        overrides = {**SMALL, "subjects": (1, 2), **named}
        return start_run(
            "smoke",
            subject=subject,
            shard=shard,
            overrides=overrides,
            notebook=notebook,
        )

    return starts


def _decoded(backbone: Backbone) -> Arrays:
    """Return the content of `decoded.h5`, flat, decoded and true ones apart."""
    rng = stream(0, "tests", "decoded")
    widths = {
        "c": backbone.n_tokens * backbone.text_dim,
        "z": int(np.prod(backbone.latent_shape)),
        **{f"clip/{k}": backbone.layer_widths[k - 1] for k in LAYERS},
    }
    arrays: Arrays = {"nsd_id": IDS}
    for name, width in widths.items():
        arrays |= {
            f"{name}/{kind}": rng.normal(size=(len(IDS), width)).astype(np.float32)
            for kind in ("decoded", "true")
        }
        arrays[f"{name}/mean"] = rng.normal(size=width)
        arrays[f"{name}/scale"] = rng.uniform(0.5, 2, width).astype(np.float32)
        arrays[f"{name}/selected"] = rng.random(width) < 0.25
        arrays[f"{name}/residual"] = rng.uniform(0.1, 1, width).astype(np.float32)
    return arrays


def _write(run: Run, arrays: Arrays) -> Path:
    path = run.tree.derived(1) / "decoded.h5"
    store.write_arrays(path, arrays, run=run)
    return path


@pytest.fixture
def read(start: Start, backbone: Backbone) -> Callable[..., DecodedFeatures]:
    """Give a function that reads from a file that holds five images."""
    path = _write(start(), _decoded(backbone))

    def reads(n: int = 3, source: Source = "decoded") -> DecodedFeatures:
        return reconstruction.read_decoded(path, backbone, LAYERS, n=n, source=source)

    return reads


Read = Callable[..., DecodedFeatures]

# --- reading ------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["decoded", "true"])
def test_features_have_the_models_shapes_and_the_file_s_values(
    read: Read, backbone: Backbone, source: Source
) -> None:
    features, arrays = read(3, source), _decoded(backbone)
    assert features.nsd_id.tolist() == IDS[:3].tolist()
    assert features.z.shape == (3, *backbone.latent_shape)
    assert features.c.shape == (3, backbone.n_tokens, backbone.text_dim)
    for name, found in (
        ("z", features.z),
        ("c", features.c),
        *((f"clip/{k}", features.target.features[k]) for k in LAYERS),
    ):
        flat = found.flatten(1).numpy()
        np.testing.assert_array_equal(flat, arrays[f"{name}/{source}"][:3])
    for k in LAYERS:
        for fact in ("selected", "scale", "residual"):
            values = getattr(features.target, fact)[k]
            np.testing.assert_array_equal(values.numpy(), arrays[f"clip/{k}/{fact}"])


@pytest.mark.parametrize("n", [1, 3, 5])
def test_shuffled_features_are_never_an_image_s_own(
    read: Read, backbone: Backbone, n: int
) -> None:
    features, arrays = read(n, "shuffled"), _decoded(backbone)
    assert features.nsd_id.tolist() == IDS[:n].tolist()
    found = {"z": features.z, "c": features.c}
    found |= {f"clip/{k}": features.target.features[k] for k in LAYERS}
    for name, values in found.items():
        decoded = arrays[f"{name}/decoded"]
        donors = [
            int(np.flatnonzero((decoded == row).all(1))[0])
            for row in values.flatten(1).numpy()
        ]
        assert donors == [1, 2, 3, 4, 0][:n]  # one donor for all features


def test_rows_keeps_an_image_s_features_together(read: Read) -> None:
    features = read(3).rows([2, 0])
    assert features.nsd_id.tolist() == [3456, 907]
    whole = read(3)
    assert torch.equal(features.z, whole.z[[2, 0]])
    assert torch.equal(features.c, whole.c[[2, 0]])
    for k in LAYERS:
        expected = whole.target.features[k][[2, 0]]
        assert torch.equal(features.target.features[k], expected)


def _sentence(error: pytest.ExceptionInfo[MindDiffError]) -> str:
    """Return the message, seen to be one sentence."""
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert ". " not in text
    return text


@pytest.mark.parametrize(("asked", "n"), [(6, 5), (None, 5), (5, 5), (2, 2)])
def test_as_many_images_are_read_as_are_asked_for_and_there(
    start: Start, backbone: Backbone, asked: int | None, n: int
) -> None:
    path = _write(start(), _decoded(backbone))
    sources: tuple[Source, ...] = ("decoded", "true", "shuffled")
    for source in sources:
        found = reconstruction.read_decoded(
            path, backbone, LAYERS, n=asked, source=source
        )
        assert found.nsd_id.tolist() == IDS[:n].tolist()
        assert len(found.z) == n


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (None, "All 5 test images are reconstructed."),
        (5, "All 5 test images are reconstructed."),
        (9, "All 5 test images are reconstructed: data.n_reconstruct asks for 9, but"),
        (3, f"Left out, by nsd_id: {IDS[3]}, {IDS[4]}."),
    ],
)
def test_images_that_are_left_out_are_named_and_why(
    start: Start, backbone: Backbone, asked: int | None, words: str
) -> None:
    run = start(data__n_reconstruct=asked)
    path = _write(run, _decoded(backbone))
    said = reconstruction.chosen_words(run, path)
    assert words in said
    if asked == 3:
        assert said.startswith("3 of 5 test images are reconstructed")
        assert "data.n_reconstruct is 3 (null: all)" in said


def test_a_shard_beyond_a_subject_s_images_is_refused(
    start: Start, backbone: Backbone
) -> None:
    run = start(shard="5/6", data__n_reconstruct=6, models__batch_size=1)
    path = _write(run, _decoded(backbone))
    with pytest.raises(ConfigError, match="has 5 images to reconstruct, too few for 6"):
        reconstruction.chosen_words(run, path)


def test_a_single_image_cannot_be_shuffled(start: Start, backbone: Backbone) -> None:
    arrays = _decoded(backbone)
    per_image = [name for name in arrays if name.endswith(("decoded", "true", "id"))]
    path = _write(start(), {**arrays, **{name: arrays[name][:1] for name in per_image}})
    with pytest.raises(StoreError) as error:
        reconstruction.read_decoded(path, backbone, LAYERS, n=1, source="shuffled")
    assert "shuffled condition needs 2 or more" in _sentence(error)


@pytest.mark.parametrize("name", ["z/decoded", "c/decoded", "clip/2/decoded"])
@pytest.mark.parametrize("axis", [0, 1])
def test_features_of_another_shape_are_refused_in_one_sentence(
    start: Start, backbone: Backbone, name: str, axis: int
) -> None:
    arrays = _decoded(backbone)
    arrays[name] = np.delete(arrays[name], 0, axis=axis)
    path = _write(start(), arrays)
    with pytest.raises(StoreError) as error:
        reconstruction.read_decoded(path, backbone, LAYERS, n=3, source="decoded")
    assert f"{name}: shape" in _sentence(error)


@pytest.mark.parametrize("fact", ["selected", "scale", "residual"])
def test_a_selection_of_another_length_is_refused_in_one_sentence(
    start: Start, backbone: Backbone, fact: str
) -> None:
    arrays = _decoded(backbone)
    arrays[f"clip/1/{fact}"] = arrays[f"clip/1/{fact}"][1:]
    path = _write(start(), arrays)
    with pytest.raises(DataError) as error:
        reconstruction.read_decoded(path, backbone, LAYERS, n=3, source="decoded")
    assert f"{fact} of layer 1" in _sentence(error)


def test_unknown_sources_and_layers_are_refused_in_one_sentence(
    start: Start, backbone: Backbone
) -> None:
    path = _write(start(), _decoded(backbone))
    wrong: Any = "guessed"
    with pytest.raises(ConfigError) as error:
        reconstruction.read_decoded(path, backbone, LAYERS, n=1, source=wrong)
    assert "source is 'guessed'" in _sentence(error)
    with pytest.raises(ConfigError) as error:
        reconstruction.read_decoded(path, backbone, (1, 9), n=1, source="true")
    assert "CLIP layer is 9" in _sentence(error)


# --- stage 1 ------------------------------------------------------------------------


def test_stage_1_is_the_sampler_under_each_image_s_own_noise(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run, features = start(models__batch_size=3), read(3)
    made = reconstruction.stage1_images(run, backbone, features)
    assert made.images.shape == (3, 64, 64, 3)
    assert made.images.dtype == np.uint8
    assert made.nsd_id.tolist() == IDS[:3].tolist()
    seed = run.profile.seed
    noise = torch.stack(
        [
            torch.randn(
                backbone.latent_shape, generator=torch_stream(seed, "noise", 1, int(i))
            )
            for i in IDS[:3]
        ]
    )
    settings = reconstruction.diffusion_settings(run.profile.stage1)
    schedule = make_schedule(backbone, settings)
    expected = sample(backbone, features.z, features.c, noise, schedule)
    np.testing.assert_array_equal(made.images, to_uint8(expected))
    assert made.n_unet_evaluations == 6  # 3 steps, both branches of the guidance


def test_c_only_ignores_z_and_z_only_ignores_c(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run, features = start(), read(3)
    other = read(3, "true")

    def images(features: DecodedFeatures, **use: bool) -> npt.NDArray[np.uint8]:
        return reconstruction.stage1_images(run, backbone, features, **use).images

    other_z, other_c = replace(features, z=other.z), replace(features, c=other.c)
    c_only, z_only = images(features, use_z=False), images(features, use_c=False)
    np.testing.assert_array_equal(c_only, images(other_z, use_z=False))
    np.testing.assert_array_equal(z_only, images(other_c, use_c=False))
    # and each does read the other one; stage 1 reads both
    assert not np.array_equal(c_only, images(other_c, use_z=False))
    assert not np.array_equal(z_only, images(other_z, use_c=False))
    assert not np.array_equal(images(features), images(other_z))
    assert not np.array_equal(images(features), images(other_c))


def test_z_only_is_the_autoencoder_alone(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run, features = start(models__batch_size=3), read(3)
    made = reconstruction.stage1_images(run, backbone, features, use_c=False)
    with torch.no_grad():
        expected = to_uint8(backbone.decode_latents(features.z))
    np.testing.assert_array_equal(made.images, expected)
    assert made.n_unet_evaluations == 0
    assert made.settings is None


def test_c_only_starts_at_the_noisiest_level_and_takes_all_steps(
    start: Start, read: Read, backbone: Backbone
) -> None:
    made = reconstruction.stage1_images(start(), backbone, read(1), use_z=False)
    assert made.settings is not None
    assert (made.settings.encode_index, made.settings.decode_steps) == (3, 4)
    assert made.n_unet_evaluations == 8


def test_an_image_of_neither_feature_is_refused_in_one_sentence(
    start: Start, read: Read, backbone: Backbone
) -> None:
    with pytest.raises(ConfigError, match="needs z or c"):
        reconstruction.stage1_images(
            start(), backbone, read(1), use_z=False, use_c=False
        )


def test_noise_depends_on_subject_and_image_alone(
    start: Start, read: Read, backbone: Backbone
) -> None:
    # one image per batch, equal features: images differ by their noise alone
    features = read(3)
    same = replace(
        features,
        z=features.z[:1].expand_as(features.z),
        c=features.c[:1].expand_as(features.c),
    )

    def images(run: Run, order: list[int]) -> npt.NDArray[np.uint8]:
        return reconstruction.stage1_images(run, backbone, same.rows(order)).images

    first = images(start(models__batch_size=1), [0, 1, 2])
    assert len({image.tobytes() for image in first}) == 3
    second = images(start(models__batch_size=1, stage2__n_iter=9), [2, 0])
    np.testing.assert_array_equal(second, first[[2, 0]])
    other = images(start(models__batch_size=1, subject=2), [0, 1, 2])
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


# --- stage 2 ------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["fast", "paper", "released", "guided"])
def test_stage_2_keeps_shapes_and_moves_images(
    start: Start, read: Read, backbone: Backbone, preset: str
) -> None:
    run = start(stage2__preset=preset)
    features = read(3)
    aligned = reconstruction.align_images(run, backbone, features, run.profile.stage2)
    assert aligned.made.images.shape == (3, 64, 64, 3)
    assert aligned.made.nsd_id.tolist() == IDS[:3].tolist()
    assert [len(batch.losses) for batch in aligned.batches] == [2, 1]
    assert [len(batch.images) for batch in aligned.batches] == [0, 0]  # held once
    losses = aligned.stacked("losses")
    assert losses.shape == (3, 3)
    assert not np.array_equal(losses[:, 0], losses[:, 1])


def test_the_guided_preset_is_the_engine_that_steers_the_sampling(
    start: Start, read: Read, backbone: Backbone
) -> None:
    over = {"stage2__strength_guided": 0.7, "stage2__layers_fast": (2,)}
    run = start(stage2__preset="guided", models__batch_size=3, **over)
    features = read(3)
    aligned = reconstruction.align_images(run, backbone, features, run.profile.stage2)
    generators = [
        torch_stream(run.profile.seed, "noise", 1, int(i)) for i in features.nsd_id
    ]
    expected = guide(
        backbone,
        Latent(features.z, features.c, draw_noise(backbone, generators)),
        features.with_layers((2,)).target,
        reconstruction.diffusion_settings(run.profile.stage1),
        GuidanceSettings(form="clean", strength=0.7, n_trajectory=3),
    )
    np.testing.assert_array_equal(aligned.made.images, to_uint8(expected.images))
    np.testing.assert_array_equal(aligned.stacked("losses"), expected.losses)
    assert aligned.made.n_unet_evaluations == 12  # twice 3 guided steps


def test_the_target_of_some_layers_keeps_the_decoder_s_errors(read: Read) -> None:
    whole = read(3).target
    some = read(3).with_layers((2,)).target
    assert some.layers == (2,)
    assert torch.equal(some.residual[2], whole.residual[2])


@pytest.mark.parametrize("name", ["fast", "guided", "combined"])
def test_zero_iterations_give_the_files_of_stage_1(
    start: Start, read: Read, backbone: Backbone, name: str
) -> None:
    run = start(stage2__preset=name, stage2__strength_guided=2.0)
    features = read(5)  # batches of two, of which the first is compared
    made = reconstruction.stage1_images(run, backbone, features)
    reconstruction.write_images(run, {"stage1": made}, inputs=[])
    folder = run.tree.stage_dir(1, "stage1")
    stage2 = run.profile.stage2

    def compare() -> list[bool]:
        table = reconstruction.zero_iterations_equal(
            run, backbone, features, stage2, folder
        )
        assert list(table.columns) == ["nsd_id", "equal"]
        assert table["nsd_id"].tolist() == IDS[:2].tolist()
        return list(table["equal"])

    assert compare() == [True, True]
    spoilt = made.images[1].copy()
    spoilt[0, 0, 0] ^= 1
    store.write_png(folder / f"{IDS[1]}.png", spoilt, run=run)
    assert compare() == [True, False]


# --- runs that are cut off ----------------------------------------------------------


class _CutError(Exception):
    """The power fails."""


@pytest.fixture
def n_calls(backbone: Backbone) -> Iterator[Callable[[], int]]:
    """Give a function that says how often the U-Net was called since the last time."""
    calls: list[int] = []
    handle = backbone._unet.register_forward_hook(lambda *_: calls.append(1))

    def since() -> int:
        found = len(calls)
        calls.clear()
        return found

    yield since
    handle.remove()


def _unfinished(run: Run) -> list[Path]:
    folder = run.tree.derived(1) / "unfinished"
    return sorted(path for path in folder.glob("*.h5"))


def _forget(run: Run) -> None:
    """Delete the batches that are done, as if none had been made."""
    shutil.rmtree(run.tree.derived(1) / "batches")


def _cut_off(
    monkeypatch: pytest.MonkeyPatch, align: Callable[[], Any], *, after: int
) -> None:
    """Run `align` with a state kept in every iteration until so many were kept."""
    write, kept = store.write_arrays, []

    def writes(path: Path, *parts: Any, **more: Any) -> None:
        write(path, *parts, **more)
        if path.parent.name == "unfinished":
            kept.append(path)
            if len(kept) == after:
                raise _CutError

    with monkeypatch.context() as patch:
        patch.setattr(batches, "_KEEP_EVERY", 1)
        patch.setattr(store, "write_arrays", writes)
        with pytest.raises(_CutError):
            align()


#: Long enough that most is done before the cut.
CUT = {"stage2__n_iter": 5, "stage2__lr_c": 0.02, "stage2__anchor_c": 1.0}


@pytest.mark.parametrize("preset", ["fast", "released"])
def test_a_run_that_was_cut_off_goes_on_from_its_file_to_the_same_bytes(
    start: Start,
    read: Read,
    backbone: Backbone,
    n_calls: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    preset: str,
) -> None:
    run, features = start(stage2__preset=preset, **CUT), read(3)

    def align() -> Aligned:
        return reconstruction.align_images(run, backbone, features, run.profile.stage2)

    whole, n_whole = align(), n_calls()
    assert _unfinished(run) == []  # nothing is left of a run that ended
    _forget(run)
    _cut_off(monkeypatch, align, after=4)
    (left,) = _unfinished(run)
    assert left.name.startswith(f"{IDS[0]}_")
    n_cut = n_calls()
    again, n_again = align(), n_calls()
    assert n_again == n_whole - n_cut + 3  # stage 1 of the first batch, once more
    assert _unfinished(run) == []
    np.testing.assert_array_equal(again.made.images, whole.made.images)
    for name in (
        *("images", "losses", "candidate_losses", "best_iteration", "stopped"),
        *("frames", "iterations", "n_unet_evaluations", "n_unet_gradients"),
    ):
        np.testing.assert_array_equal(again.stacked(name), whole.stacked(name))


def test_batches_that_are_done_are_never_made_again(
    start: Start, read: Read, backbone: Backbone, n_calls: Callable[[], int]
) -> None:
    run, features = start(), read(3)

    def make() -> tuple[Made, Aligned]:
        first = reconstruction.stage1_images(run, backbone, features)
        return first, _align(run, backbone, features)

    (first, aligned), n = make(), n_calls()
    assert n > 0
    (first_again, aligned_again), n_again = make(), n_calls()
    assert n_again == 0
    np.testing.assert_array_equal(first_again.images, first.images)
    np.testing.assert_array_equal(aligned_again.made.images, aligned.made.images)
    for found, expected in zip(aligned_again.batches, aligned.batches, strict=True):
        for name, value in expected.arrays().items():
            np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
            assert getattr(found, name).dtype == value.dtype


def test_a_damaged_batch_is_made_again(
    start: Start, read: Read, backbone: Backbone, n_calls: Callable[[], int]
) -> None:
    run, features = start(), read(3)
    images, n = reconstruction.stage1_images(run, backbone, features).images, n_calls()
    files = _batches(run)
    assert len(files) == 2
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 1
    files[0].write_bytes(content)
    again = reconstruction.stage1_images(run, backbone, features).images
    np.testing.assert_array_equal(again, images)
    assert n_calls() == n // 2


def _batches(run: Run) -> list[Path]:
    return sorted((run.tree.derived(1) / "batches").glob("*.h5"))


def _both_stages(
    start: Start, features: DecodedFeatures, backbone: Backbone, *, order: str
) -> None:
    """Begin and make stage 1 ("3"), stage 2 ("4") and a study's arm ("s") in order."""
    for which in order:
        stem = {"3": "03_stage1", "4": "04_stage2", "s": ""}[which]
        run = start(notebook=stem)
        if which == "3":
            reconstruction.begin_stage(run, "stage1", inputs=[])
            reconstruction.stage1_images(run, backbone, features)
        elif which == "4":
            reconstruction.begin_stage(run, "stage2", inputs=[])
            reconstruction.align_images(run, backbone, features, run.profile.stage2)
        else:
            arm = study_arms.Arm("none", "stage 1 alone", None)
            study_images.images_of(run, backbone, "confirmation", arm)


@pytest.mark.parametrize("order", ["343", "4344", "33s43", "s4s3"])
def test_no_notebook_touches_the_batches_of_another(
    start: Start,
    read: Read,
    backbone: Backbone,
    n_calls: Callable[[], int],
    order: str,
) -> None:
    features = read(3)
    seen: dict[Path, tuple[int, bytes]] = {}
    for done in range(1, len(order) + 1):
        n_calls()
        _both_stages(start, features, backbone, order=order[done - 1])
        now = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in _batches(start())}
        assert seen.items() <= now.items()  # neither gone nor written again
        again = order[done - 1] in order[: done - 1]
        assert (n_calls() == 0) == again
        assert (len(now) == len(seen)) == again
        seen = now


def test_an_edit_of_the_guided_sampler_makes_stage_2_again_and_nothing_else(
    start: Start,
    read: Read,
    backbone: Backbone,
    n_calls: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    edited: Callable[..., None],
) -> None:
    features = read(3)
    _both_stages(start, features, backbone, order="34")
    before = set(_batches(start()))
    edited("generation/guidance.py", "def guide(", "def guide(  # another way")
    n_calls()
    _both_stages(start, features, backbone, order="3")
    assert n_calls() == 0
    _both_stages(start, features, backbone, order="4")
    assert n_calls() > 0
    assert before < set(_batches(start()))  # the old ones wait for their code
    edited("generation/guidance.py", "def guide(  # another way", "def guide(")
    n_calls()
    _both_stages(start, features, backbone, order="34")
    assert n_calls() == 0


@pytest.mark.parametrize(
    "name",
    [
        *("core/store.py", "core/run.py", "core/locks.py", "core/provenance.py"),
        "evaluation/claims/reconstruction_rules.py",
    ],
)
def test_words_outside_the_images_makers_make_no_batch_again(
    start: Start,
    read: Read,
    backbone: Backbone,
    n_calls: Callable[[], int],
    name: str,
    edited: Callable[..., None],
) -> None:
    features = read(3)
    _both_stages(start, features, backbone, order="34")
    edited(name, "Return", "Give")
    n_calls()
    _both_stages(start, features, backbone, order="34")
    assert n_calls() == 0


def test_other_weights_make_every_batch_again_and_a_copy_of_them_none(
    start: Start,
    read: Read,
    backbone: Backbone,
    n_calls: Callable[[], int],
    tmp_path: Path,
) -> None:
    features = read(3)
    for name in ("first", "copy"):
        for part in ("unet", "judge"):
            path = tmp_path / name / "tiny" / part / "model.safetensors"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"weights")

    def n_made(folder: str) -> int:
        batches._weights.cache_clear()
        n_calls()
        run = start(models__path=folder)
        reconstruction.stage1_images(run, backbone, features)
        return n_calls()

    assert n_made("first") > 0
    assert n_made("copy") == 0
    (tmp_path / "copy" / "tiny" / "judge" / "model.safetensors").write_bytes(b"other")
    assert n_made("copy") == 0
    (tmp_path / "copy" / "tiny" / "unet" / "model.safetensors").write_bytes(b"other")
    assert n_made("copy") > 0


def test_a_state_of_other_settings_or_of_another_profile_is_not_taken(
    start: Start,
    read: Read,
    backbone: Backbone,
    n_calls: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, features = start(**CUT), read(2)
    config = run.profile.stage2
    other = config.model_copy(update={"lr_z": config.lr_z / 2})
    strange = start(**CUT, stage1__guidance_scale=2.0)

    def align(run: Run, config: Stage2Config) -> Aligned:
        return reconstruction.align_images(run, backbone, features, config)

    cases = [(run, other), (strange, config)]
    expected = [(align(*case).made.images, n_calls()) for case in cases]
    _forget(run)
    _cut_off(monkeypatch, partial(align, run, config), after=3)
    (left,) = _unfinished(run)
    n_calls()
    for (images, n), case in zip(expected, cases, strict=True):
        assert _unfinished(run) == [left]
        np.testing.assert_array_equal(align(*case).made.images, images)
        assert n_calls() == n


def test_the_paper_s_preset_runs_its_own_number_of_iterations(start: Start) -> None:
    config = reconstruction.paper_config(start().profile.stage2)
    assert (config.preset, config.n_iter) == ("paper", 1)


# --- shards -------------------------------------------------------------------------


def _both(run: Run, backbone: Backbone, features: DecodedFeatures) -> list[Made]:
    stage2 = reconstruction.align_images(run, backbone, features, run.profile.stage2)
    return [reconstruction.stage1_images(run, backbone, features), stage2.made]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_shards_together_give_the_images_of_the_whole_run_to_the_byte(
    start: Start, read: Read, backbone: Backbone, batch_size: int
) -> None:
    features, size = read(5), {"models__batch_size": batch_size}
    size |= {"data__n_reconstruct": 5}
    wholes = _both(start(**size), backbone, features)
    parts = [
        _both(start(shard=shard, **size), backbone, features)
        for shard in ("0/2", "1/2")
    ]
    for whole, *shards in zip(wholes, *parts, strict=True):
        found = np.concatenate([shard.nsd_id for shard in shards])
        assert sorted(found.tolist()) == sorted(IDS.tolist())
        images = np.concatenate([shard.images for shard in shards])
        order = [found.tolist().index(i) for i in IDS]
        np.testing.assert_array_equal(images[order], whole.images)


def test_a_shard_without_images_makes_nothing_and_fails_nowhere(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run, features = start(shard="1/2"), read(1)  # one condition of fewer images
    made = reconstruction.stage1_images(run, backbone, features)
    aligned = reconstruction.align_images(run, backbone, features, run.profile.stage2)
    for found in (made, aligned.made):
        assert found.images.shape == (0, 64, 64, 3)
        assert found.nsd_id.tolist() == []
    assert len(reconstruction.stage1_table(run, {"stage1": made})) == 0
    assert len(reconstruction.stage2_table(run.profile, {"stage2": aligned})) == 0
    assert reconstruction.trajectory_arrays({"stage2": aligned}) == {}


# --- writing ------------------------------------------------------------------------


def test_images_are_written_one_file_each_below_the_subject(start: Start) -> None:
    run = start()
    images = stream(0, "tests").integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    made = Made(IDS[:2], images, 0, 0.0)
    reconstruction.write_images(run, {"stage1": made, "z_only": made}, inputs=[])
    for method in ("stage1", "z_only"):
        folder = run.tree.stage_dir(1, method)
        names = sorted(path.name for path in folder.glob("*.png"))
        assert names == ["12.png", "907.png"]
        np.testing.assert_array_equal(store.read_png(folder / "12.png"), images[1])


def test_images_without_a_subject_are_refused(start: Start) -> None:
    with pytest.raises(ConfigError, match="belong to a subject"):
        reconstruction.write_images(start(subject=None), {}, inputs=[])


def test_the_stage_1_table_states_what_each_condition_ran_with(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run, features = start(), read(2)
    make = reconstruction.stage1_images
    made = {
        "stage1": make(run, backbone, features),
        "c_only": make(run, backbone, features, use_z=False),
        "z_only": make(run, backbone, features, use_c=False),
    }
    table = reconstruction.stage1_table(run, made)
    assert list(table.columns) == [
        "method",
        "nsd_id",
        "seed",
        "encode_index",
        "decode_steps",
        "guidance_scale",
        "n_unet_evaluations",
        "finished",
    ]
    assert table["method"].tolist() == ["stage1"] * 2 + ["c_only"] * 2 + ["z_only"] * 2
    assert table["nsd_id"].tolist() == [907, 12] * 3
    assert table["decode_steps"][:4].tolist() == [3, 3, 4, 4]
    assert table["encode_index"][:4].tolist() == [2, 2, 3, 3]
    settings = ["encode_index", "decode_steps", "guidance_scale"]
    assert table.loc[4:, settings].isna().all(axis=None)
    assert table["n_unet_evaluations"].tolist() == [6, 6, 8, 8, 0, 0]
    path = run.tree.tables / "stage1.csv"
    store.write_table(path, table, run=run)
    assert store.read_table(path)["encode_index"][:4].tolist() == [2, 2, 3, 3]


def _align(run: Run, backbone: Backbone, features: DecodedFeatures) -> Aligned:
    return reconstruction.align_images(run, backbone, features, run.profile.stage2)


def test_the_stage_2_table_compares_losses_of_the_complete_sampler(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run = start()
    aligned = _align(run, backbone, read(3))
    table = reconstruction.stage2_table(run.profile, {"stage2": aligned, "x": aligned})
    assert list(table.columns) == [
        "method",
        "nsd_id",
        "seed",
        "loss_first",
        "loss_best",
        "best_iteration",
        "stopped",
        "diverged",
        "n_unet_evaluations",
        "n_unet_gradients",
        "finished",
    ]
    assert table["method"].tolist() == ["stage2"] * 3 + ["x"] * 3
    assert table["nsd_id"].tolist() == IDS[:3].tolist() * 2
    losses = aligned.stacked("candidate_losses")
    candidates = aligned.batches[0].candidates.tolist()
    chosen = [candidates.index(k) for k in table["best_iteration"][:3]]
    np.testing.assert_array_equal(table["loss_first"][:3], losses[:, 0])
    np.testing.assert_array_equal(table["loss_best"][:3], losses[range(3), chosen])
    # surrogate: 3 times 2 unguided steps; complete: 3 candidates of 3 guided steps
    assert set(table["n_unet_evaluations"]) == {3 * 2 + 3 * 6}
    assert set(table["n_unet_gradients"]) == {2 * 2}


def test_the_stage_2_table_states_the_loss_of_the_chosen_candidate_not_the_last(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run = start()
    aligned = _align(run, backbone, read(2))
    # by hand: best in the middle; and steps that diverged after the first image
    by_hand = replace(
        aligned.batches[0],
        candidate_losses=np.array([[4, 1, 3], [2, np.nan, np.nan]], np.float32),
        best_iteration=np.array([1, 0]),
    )
    table = reconstruction.stage2_table(
        run.profile, {"stage2": replace(aligned, batches=(by_hand,))}
    )
    assert table["loss_first"].tolist() == [4, 2]
    assert table["loss_best"].tolist() == [1, 2]
    assert table["best_iteration"].tolist() == [1, 0]


def test_trajectories_hold_losses_and_images_of_all_batches(
    start: Start, read: Read, backbone: Backbone
) -> None:
    aligned = _align(start(), backbone, read(3))
    arrays = reconstruction.trajectory_arrays({"stage2": aligned})
    assert {name: value.shape for name, value in arrays.items()} == {
        "stage2/nsd_id": (3,),
        "stage2/losses": (3, 3),
        "stage2/candidates": (3,),
        "stage2/candidate_losses": (3, 3),
        "stage2/best_iteration": (3,),
        "stage2/iterations": (3,),
        "stage2/shown": (3,),
        "stage2/images": (3, 3, 64, 64, 3),
    }
    frames = aligned.batches[1].frames
    np.testing.assert_array_equal(arrays["stage2/images"][2], frames[0])


def test_frames_are_kept_of_the_first_images_whatever_the_shard(
    start: Start, read: Read, backbone: Backbone
) -> None:
    over = {"stage2__n_images_trajectory": 1, "models__batch_size": 1}
    whole = _align(start(**over), backbone, read(3))
    arrays = reconstruction.trajectory_arrays({"stage2": whole})
    assert arrays["stage2/shown"].tolist() == IDS[:1].tolist()
    assert arrays["stage2/images"].shape == (1, 3, 64, 64, 3)
    assert arrays["stage2/losses"].shape == (3, 3)
    second = _align(
        start(shard="1/3", **over, data__n_reconstruct=3), backbone, read(3)
    )
    arrays = reconstruction.trajectory_arrays({"stage2": second})
    assert arrays["stage2/shown"].tolist() == []
    assert arrays["stage2/images"].shape == (0, 3, 64, 64, 3)


# --- all shards together --------------------------------------------------------------

N_IMAGES = 5
FIVE = {"data__n_reconstruct": N_IMAGES, "models__batch_size": 1}
METHODS = ("stage2", "stage2_paper")


def _made(run: Run, n: int, salt: int = 0) -> Made:
    """Return fake images of this run's share of the first `n`."""
    ids = IDS[[row for batch in run.batches(n) for row in batch]]
    images = [np.full((8, 8, 3), (i + salt) % 251, np.uint8) for i in ids]
    stacked = np.array(images, np.uint8).reshape(-1, 8, 8, 3)
    settings = reconstruction.diffusion_settings(run.profile.stage1)
    return Made(ids, stacked, 6, 0.0, settings)


def _fake_batch(made: Made, row: int) -> Batch:
    """Return a made-up result of one image, with digits that a CSV would round."""
    rng = stream(1, "tests", int(made.nsd_id[row]))
    return Batch(
        images=made.images[row : row + 1],
        finished=np.array([True]),
        losses=rng.random((1, 3), dtype=np.float32),
        candidates=np.array([0, 2]),
        candidate_losses=rng.random((1, 2), dtype=np.float32),
        best_iteration=np.array([int(rng.integers(3))]),
        stopped=np.array([2]),
        diverged=np.array([False]),
        n_unet_evaluations=np.array([11]),
        n_unet_gradients=np.array([4]),
        frames=rng.integers(0, 256, (1, 2, 8, 8, 3), dtype=np.uint8),
        iterations=np.array([0, 2]),
    )


def _fake_aligned(run: Run, n: int) -> Aligned:
    made = _made(run, n)
    rows = range(len(made.nsd_id))
    return Aligned(made, tuple(_fake_batch(made, row) for row in rows))


def _stage1(run: Run, salt: int = 0) -> reconstruction.Finished:
    """Do what notebook 03 does, with fake images."""
    reconstruction.begin_stage(run, "stage1", inputs=[])
    plain = replace(_made(run, N_IMAGES, salt), settings=None)
    made = {"stage1": _made(run, N_IMAGES, salt), "z_only": plain}
    reconstruction.write_images(run, made, inputs=[])
    return reconstruction.finish_stage1(run, made, IDS, inputs=[])


def _stage2(run: Run) -> reconstruction.Finished:
    """Do what notebook 04 does, with fake images; its paper's preset on one image."""
    reconstruction.begin_stage(run, "stage2", inputs=[])
    aligned = {
        "stage2": _fake_aligned(run, N_IMAGES),
        METHODS[1]: _fake_aligned(run, 1),
    }
    made = {name: found.made for name, found in aligned.items()}
    reconstruction.write_images(run, made, inputs=[])
    ids = made["stage2"].nsd_id
    still = pd.DataFrame({"nsd_id": ids, "equal": ids % 2 == 0})
    return reconstruction.finish_stage2(run, aligned, still, IDS, inputs=[])


def _files(folder: Path) -> dict[str, bytes]:
    """Return everything but the manifests (they hold times), parts and the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file()
        and "manifest" not in path.name
        and path.parent.name != "parts"
        and path.name != ".lock"
    }


def _fresh(start: Start, folder: Path, shard: str, **over: Any) -> Run:
    run = start(shard=shard, **{**FIVE, **over})
    return replace(run, tree=replace(run.tree, root=folder))


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 1), (4, 2, 0, 1, 3)])
def test_shards_in_any_order_leave_the_files_of_one_run_to_the_byte(
    start: Start, tmp_path: Path, order: tuple[int, ...]
) -> None:
    whole = _fresh(start, tmp_path / "whole", "0/1")
    _stage1(whole)
    _stage2(whole)
    expected = _files(whole.tree.derived(1))
    assert len(expected) == 3 * 3 + 1 + 2 * 5 + 5 + 1  # tables, h5, PNGs
    for do in (_stage1, _stage2):
        for turn, index in enumerate(order):
            run = _fresh(start, tmp_path / "parts", f"{index}/{len(order)}")
            last = turn == len(order) - 1
            assert do(run).run.is_whole == last
    assert _files(run.tree.derived(1)) == expected


def test_shards_at_the_same_time_leave_the_files_of_one_run_to_the_byte(
    start: Start, tmp_path: Path
) -> None:
    whole = _fresh(start, tmp_path / "whole", "0/1")
    _stage2(whole)
    runs = [_fresh(start, tmp_path / "parts", f"{index}/5") for index in range(5)]
    with ThreadPoolExecutor(5) as pool:
        done = list(pool.map(_stage2, runs))
    assert sum(found.run.is_whole for found in done) == 1  # one alone was the last
    parts = runs[0].tree.derived(1)
    assert _files(parts) == _files(whole.tree.derived(1))


def test_a_shard_that_is_not_the_last_returns_its_own_share(
    start: Start, tmp_path: Path
) -> None:
    run = _fresh(start, tmp_path, "1/2")
    found = _stage2(run)
    assert found.run == run
    assert found.tables["stage2.csv"]["nsd_id"].tolist() == IDS[1::2].tolist()
    assert found.trajectories["stage2/nsd_id"].tolist() == IDS[1::2].tolist()


@pytest.mark.parametrize("name", ["stage2.csv", "zero_iterations.csv"])
def test_tables_of_some_shards_are_not_read_as_those_of_all(
    start: Start, tmp_path: Path, name: str
) -> None:
    for index in (0, 2):
        run = _fresh(start, tmp_path, f"{index}/3")
        _stage2(run)
    with pytest.raises(StoreError) as error:
        store.read_table(run.tree.derived(1) / name)
    assert f"{name} is not complete, shard 1/3 is missing" in _sentence(error)
    with pytest.raises(StoreError, match="shard 1/3 is missing"):
        store.read_arrays(run.tree.derived(1) / "trajectories.h5")


def test_a_shard_of_another_profile_takes_the_old_tables_away_first(
    start: Start, tmp_path: Path
) -> None:
    _stage1(_fresh(start, tmp_path, "0/1"))
    other = {"stage1__guidance_scale": 1.0}
    run = _fresh(start, tmp_path, "0/2", **other)
    _stage1(run, salt=1)
    path = run.tree.derived(1) / "stage1.csv"
    with pytest.raises(StoreError, match="shard 1/2 is missing"):
        store.read_table(path)
    _stage1(_fresh(start, tmp_path, "1/2", **other), salt=1)
    table = store.read_table(path)
    assert sorted(table["guidance_scale"].dropna().unique()) == [1.0]
    assert len(table) == 2 * N_IMAGES


def test_a_run_that_is_cut_off_leaves_no_table_of_another_run(
    start: Start, tmp_path: Path
) -> None:
    _stage1(_fresh(start, tmp_path, "0/1"))
    run = _fresh(start, tmp_path, "0/1", stage1__guidance_scale=1.0)
    reconstruction.begin_stage(run, "stage1", inputs=[])  # and no further
    with pytest.raises(StoreError, match="does not exist"):
        store.read_table(run.tree.derived(1) / "stage1.csv")


def test_the_same_shards_again_change_no_file_and_no_time(
    start: Start, tmp_path: Path
) -> None:
    runs = [_fresh(start, tmp_path, f"{index}/2") for index in range(2)]

    def times() -> dict[str, int]:
        folder = runs[0].tree.derived(1)
        names = [p for p in folder.rglob("*.*") if "manifest" not in p.name]
        return {p.name: p.stat().st_mtime_ns for p in names if p.name != ".lock"}

    for run in runs:
        _stage2(run)
    before = times()
    for run in runs:
        _stage2(run)
    assert times() == before


def test_images_of_an_earlier_larger_run_do_not_stay(
    start: Start, tmp_path: Path
) -> None:
    _stage1(_fresh(start, tmp_path, "0/1"))
    run = _fresh(start, tmp_path, "0/1", data__n_reconstruct=2)
    made = {"stage1": _made(run, 2)}
    reconstruction.write_images(run, made, inputs=[])
    reconstruction.finish_stage1(run, made, IDS[:2], inputs=[])
    folder = run.tree.stage_dir(1, "stage1")
    names = {path.name for path in folder.iterdir()}
    kept = {f"{i}.png" for i in IDS[:2]}
    assert names == kept | {f"{name}.manifest.json" for name in kept}


def test_stages_without_a_subject_are_refused(start: Start) -> None:
    with pytest.raises(ConfigError, match="belong to a subject"):
        reconstruction.begin_stage(start(subject=None), "stage1", inputs=[])
