"""Every condition gets the features it names, and an image is its own whatever shard.

The models are tiny and random: what images look like means nothing here.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from minddiff_utils import reconstruction, store
from minddiff_utils.backbone import Backbone, tiny_backbone
from minddiff_utils.diffusion import make_schedule, sample
from minddiff_utils.errors import ConfigError, DataError, MindDiffError, StoreError
from minddiff_utils.images import to_uint8
from minddiff_utils.reconstruction import Aligned, DecodedFeatures, Made, Source
from minddiff_utils.rng import stream, torch_stream

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
Start = Callable[..., store.Run]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Give a function that starts a smoke run with tiny models below `tmp_path`."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))

    def starts(
        *, subject: int | None = 1, shard: str = "0/1", **over: Any
    ) -> store.Run:
        named = {key.replace("__", "."): value for key, value in over.items()}
        overrides = {**SMALL, "subjects": (1, 2), **named}
        return store.start("smoke", subject=subject, shard=shard, overrides=overrides)

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
    return arrays


def _write(run: store.Run, arrays: Arrays) -> Path:
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
        selected, scale = features.target.selected[k], features.target.scale[k]
        np.testing.assert_array_equal(selected.numpy(), arrays[f"clip/{k}/selected"])
        np.testing.assert_array_equal(scale.numpy(), arrays[f"clip/{k}/scale"])


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


def test_too_few_images_are_refused_in_one_sentence(read: Read) -> None:
    with pytest.raises(StoreError) as error:
        read(6)
    assert "holds 5 test images, but 6 are to be" in _sentence(error)


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


@pytest.mark.parametrize("fact", ["selected", "scale"])
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

    def images(run: store.Run, order: list[int]) -> npt.NDArray[np.uint8]:
        return reconstruction.stage1_images(run, backbone, same.rows(order)).images

    first = images(start(models__batch_size=1), [0, 1, 2])
    assert len({image.tobytes() for image in first}) == 3
    second = images(start(models__batch_size=1, stage2__n_iter=9), [2, 0])
    np.testing.assert_array_equal(second, first[[2, 0]])
    other = images(start(models__batch_size=1, subject=2), [0, 1, 2])
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


# --- stage 2 ------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["fast", "paper", "released"])
def test_stage_2_keeps_shapes_and_moves_images(
    start: Start, read: Read, backbone: Backbone, preset: str
) -> None:
    run = start(stage2__preset=preset)
    features = read(3)
    aligned = reconstruction.align_images(run, backbone, features, run.profile.stage2)
    assert aligned.made.images.shape == (3, 64, 64, 3)
    assert aligned.made.nsd_id.tolist() == IDS[:3].tolist()
    assert [len(batch.images) for batch in aligned.batches] == [2, 1]
    losses = aligned.stacked("losses")
    assert losses.shape == (3, 3)
    assert not np.array_equal(losses[:, 0], losses[:, 1])


def test_zero_iterations_give_the_files_of_stage_1(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run, features = start(), read(3)
    made = reconstruction.stage1_images(run, backbone, features)
    reconstruction.write_images(run, {"stage1": made}, inputs=[])
    folder = run.tree.stage_dir(1, "stage1")
    stage2 = run.profile.stage2

    def compare() -> list[bool]:
        table = reconstruction.zero_iterations_equal(
            run, backbone, features, stage2, folder
        )
        assert list(table.columns) == ["nsd_id", "equal"]
        assert table["nsd_id"].tolist() == IDS[:3].tolist()
        return list(table["equal"])

    assert compare() == [True, True, True]
    spoilt = made.images[1].copy()
    spoilt[0, 0, 0] ^= 1
    store.write_png(folder / f"{IDS[1]}.png", spoilt, run=run)
    assert compare() == [True, False, True]


def test_the_paper_s_preset_runs_its_own_number_of_iterations(start: Start) -> None:
    config = reconstruction.paper_config(start().profile.stage2)
    assert (config.preset, config.n_iter) == ("paper", 1)


def test_only_a_gpu_recomputes_steps_to_save_memory(backbone: Backbone) -> None:
    gpu = replace(backbone, device=torch.device("cuda"))
    assert reconstruction._memory(backbone) == "store"
    assert reconstruction._memory(gpu) == "checkpoint"


# --- shards -------------------------------------------------------------------------


def _both(run: store.Run, backbone: Backbone, features: DecodedFeatures) -> list[Made]:
    stage2 = reconstruction.align_images(run, backbone, features, run.profile.stage2)
    return [reconstruction.stage1_images(run, backbone, features), stage2.made]


@pytest.mark.parametrize(
    ("batch_size", "grey_levels"),
    [
        (1, 0),  # the same batches: to the byte
        (4, 1),  # batches of 4 + 1 against 3 and 2: float32 rounding may tip a level
    ],
)
def test_shards_together_give_the_images_of_the_whole_run(
    start: Start, read: Read, backbone: Backbone, batch_size: int, grey_levels: int
) -> None:
    features = read(5)
    wholes = _both(start(models__batch_size=batch_size), backbone, features)
    parts = [
        _both(start(models__batch_size=batch_size, shard=shard), backbone, features)
        for shard in ("0/2", "1/2")
    ]
    assert [part[0].nsd_id.tolist() for part in parts] == [
        IDS[::2].tolist(),
        IDS[1::2].tolist(),
    ]
    for whole, *shards in zip(wholes, *parts, strict=True):
        for index, shard in enumerate(shards):
            expected = whole.images[index::2].astype(int)
            assert np.abs(shard.images.astype(int) - expected).max() <= grey_levels


def test_a_shard_without_images_makes_nothing_and_fails_nowhere(
    start: Start, read: Read, backbone: Backbone
) -> None:
    run, features = start(shard="1/2"), read(1)
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


def _align(run: store.Run, backbone: Backbone, features: DecodedFeatures) -> Aligned:
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
        "n_unet_evaluations",
    ]
    assert table["method"].tolist() == ["stage2"] * 3 + ["x"] * 3
    assert table["nsd_id"].tolist() == IDS[:3].tolist() * 2
    losses = aligned.stacked("candidate_losses")
    candidates = aligned.batches[0].candidates
    chosen = [candidates.index(k) for k in table["best_iteration"][:3]]
    np.testing.assert_array_equal(table["loss_first"][:3], losses[:, 0])
    np.testing.assert_array_equal(table["loss_best"][:3], losses[range(3), chosen])
    # surrogate: 3 times 2 unguided steps; complete: 3 candidates of 3 guided steps
    assert set(table["n_unet_evaluations"]) == {3 * 2 + 3 * 6}


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
        "stage2/images": (3, 3, 64, 64, 3),
        "stage2/iterations": (3,),
    }
    first_of_last = to_uint8(aligned.batches[1].trajectory[0])
    np.testing.assert_array_equal(arrays["stage2/images"][2], first_of_last)
