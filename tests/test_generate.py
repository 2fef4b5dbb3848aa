"""Every condition starts from what its row says, and an image is its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minddiff_utils.core import conditions
from minddiff_utils.core.condition import Condition
from minddiff_utils.core.conditions import by_name, conditions_of
from minddiff_utils.core.errors import ConfigError, DataError, MindDiffError, StoreError
from minddiff_utils.core.images import resize, to_torch, to_uint8
from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.core.rng import torch_stream
from minddiff_utils.generation import SubjectFeatures
from minddiff_utils.generation.alignment import Latent
from minddiff_utils.generation.baselines import mean_image
from minddiff_utils.generation.decoded_features import Source, with_k
from minddiff_utils.generation.generate import Generated
from minddiff_utils.generation.guided_sampling import guide
from minddiff_utils.generation.presets import (
    GuidanceSettings,
    image_to_image,
    layers_of,
    sampler_of,
    settings_of,
)
from minddiff_utils.generation.sampler import draw_noise, make_schedule, sample
from minddiff_utils.generation.structural_loss import Loss, StructuralLoss
from minddiff_utils.models import Backbone
from tests.small_subject import (
    IDS,
    LAYERS,
    TRAIN,
    Start,
    backbone,
    files,
    made,
    n_calls,
    start,
    write_files,
)

__all__ = ["backbone", "n_calls", "start"]  # fixtures

ROWS = by_name()
ABLATION = {
    "ablation__n_images": 2,
    "ablation__layers": [[1]],
    "ablation__iterations": [2],
    "ablation__k_grid": [25.0, 100.0],
    "stage2__bayes__strength": 0.5,
}


def _sentence(error: pytest.ExceptionInfo[MindDiffError]) -> str:
    """Return the message, seen to be one sentence."""
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert ". " not in text
    return text


def _one(features: SubjectFeatures, row: Condition) -> Generated:
    (found,) = made(features, row).values()
    return found


# --- reading ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "kind", "donors"),
    [
        ("decoded", "decoded", [0, 1, 2, 3, 4]),
        ("true", "true", [0, 1, 2, 3, 4]),
        ("shuffled", "decoded", [1, 2, 0, 1, 2]),  # of three validation images
    ],
)
@pytest.mark.parametrize("n", [1, 3, None, 9])
def test_features_are_the_file_s_in_the_models_shapes(
    start: Start,
    backbone: Backbone,
    source: Source,
    kind: str,
    donors: list[int],
    n: int | None,
) -> None:
    read = write_files(start(data__n_reconstruct=n), backbone).of(source)
    stored, rows = files(backbone)["decoded.h5"], donors[:n]
    by_source = {"shuffled": "decoded_validation.h5"}
    values_of = files(backbone)[by_source.get(source, "decoded.h5")]
    assert read.nsd_id.tolist() == IDS[:n].tolist()
    assert read.z.shape == (len(rows), *backbone.latent_shape)
    assert read.c.shape == (len(rows), backbone.n_tokens, backbone.text_dim)
    values = {"z": read.z, "c": read.c}
    values |= {f"clip/{k}": read.target.features[k] for k in LAYERS}
    for name, tensor in values.items():
        expected = values_of[f"{name}/{kind}"][rows]
        np.testing.assert_array_equal(tensor.flatten(1).numpy(), expected)
    for k in LAYERS:
        for fact in ("selected", "scale", "mean"):
            found = getattr(read.target, fact)[k].numpy()
            np.testing.assert_array_equal(found, stored[f"clip/{k}/{fact}"])


@pytest.mark.parametrize(
    ("source", "file", "donors"),
    [
        ("decoded", "decoded.h5", [0, 1, 2, 3, 4]),
        ("shuffled", "decoded_validation.h5", [1, 2, 0, 1, 2]),
    ],
)
def test_the_likelihood_compares_with_what_was_decoded_of_the_same_image(
    start: Start, backbone: Backbone, source: Source, file: str, donors: list[int]
) -> None:
    target = write_files(start(), backbone).of(source).target
    for k in LAYERS:
        known, stored = target.likelihood[k], files(backbone)
        np.testing.assert_array_equal(
            known.decoded, stored[file][f"clip/{k}/whitened"][donors]
        )
        for part in ("map", "shift"):
            expected = stored["noise_model.h5"][f"clip/{k}/{part}"]
            np.testing.assert_array_equal(getattr(known, part), expected)


def test_true_features_have_no_loss_under_their_own_likelihood(
    start: Start, backbone: Backbone
) -> None:
    target = write_files(start(), backbone).of("true").target
    loss = StructuralLoss.of(target, "likelihood")(target.features)
    assert torch.equal(loss, torch.zeros(len(IDS)))
    other = StructuralLoss.of(target, "likelihood")(
        target.rows([1, 0, 3, 4, 2]).features
    )
    assert (other > 1).all()


def test_without_a_noise_model_only_the_likelihood_is_refused(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(), backbone)
    features.path("noise_model.h5").unlink()
    target = features.of("decoded").target
    assert target.likelihood == {}
    StructuralLoss.of(target, "cosine")
    with pytest.raises(DataError, match="run notebook 02 again") as caught:
        StructuralLoss.of(target, "likelihood")
    _sentence(caught)


def test_rows_and_layers_keep_an_image_s_features_together(
    start: Start, backbone: Backbone
) -> None:
    whole = write_files(start(), backbone).of("decoded")
    some = whole.rows([2, 0]).with_layers((2,))
    assert some.nsd_id.tolist() == [3456, 907]
    assert torch.equal(some.z, whole.z[[2, 0]])
    assert torch.equal(some.c, whole.c[[2, 0]])
    assert some.target.layers == (2,)
    assert torch.equal(some.target.features[2], whole.target.features[2][[2, 0]])
    assert torch.equal(some.target.scale[2], whole.target.scale[2])
    known = some.target.likelihood[2]
    assert torch.equal(known.decoded, whole.target.likelihood[2].decoded[[2, 0]])
    with pytest.raises(ConfigError, match="choose among them"):
        whole.with_layers((1, 3))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (None, "All 5 test images are reconstructed."),
        (5, "All 5 test images are reconstructed."),
        (9, "All 5 test images are reconstructed: data.n_reconstruct asks for 9, but"),
        (3, f"data.n_reconstruct is 3 (null: all). Left out, by nsd_id: {IDS[3]}, "),
    ],
)
def test_images_that_are_left_out_are_named_and_why(
    start: Start, backbone: Backbone, asked: int | None, words: str
) -> None:
    run = start(data__n_reconstruct=asked)
    assert words in write_files(run, backbone).describe()


def test_a_shard_beyond_a_subject_s_images_is_refused(
    start: Start, backbone: Backbone
) -> None:
    run = start(shard="5/6", data__n_reconstruct=6, models__batch_size=1)
    with pytest.raises(ConfigError, match="has 5 images to reconstruct, too few for 6"):
        write_files(run, backbone).describe()


def _cut(name: str, axis: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda stored: {name: np.delete(stored[name], 0, axis=axis)}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        *(
            (_cut(name, axis), StoreError, f"{name}: shape")
            for name in ("z/decoded", "c/decoded", "clip/2/decoded")
            for axis in (0, 1)
        ),
        *(
            (_cut(f"clip/1/{fact}", 0), DataError, f"{fact} of layer 1")
            for fact in ("selected", "scale", "mean")
        ),
    ],
)
def test_features_of_another_shape_are_refused_in_one_sentence(
    start: Start, backbone: Backbone, change: Any, error: Any, words: str
) -> None:
    changed = change(files(backbone)["decoded.h5"])
    features = write_files(start(), backbone, decoded=changed)
    with pytest.raises(error) as caught:
        features.of("decoded")
    assert words in _sentence(caught)


def test_unknown_sources_and_layers_and_no_donor_are_refused(
    start: Start, backbone: Backbone
) -> None:
    wrong: Any = "guessed"
    with pytest.raises(ConfigError, match="source is 'guessed'"):
        write_files(start(), backbone).of(wrong)
    with pytest.raises(ConfigError, match="CLIP layer is 9"):
        write_files(start(features__clip_layers=(1, 9)), backbone).of("true")
    donors = files(backbone)["decoded_validation.h5"]
    none = {k: v[:0] for k, v in donors.items()}
    features = write_files(start(), backbone, decoded_validation=none)
    with pytest.raises(StoreError) as error:
        features.of("shuffled")
    assert "a shuffled condition takes its features from validation" in _sentence(error)


def test_donors_are_never_among_the_images_that_are_evaluated(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(), backbone)
    donors = files(backbone)["decoded_validation.h5"]
    assert not set(donors["nsd_id"]) & set(features.nsd_id)
    assert features.of("shuffled").nsd_id.tolist() == features.nsd_id.tolist()


# --- what a condition starts from ---------------------------------------------------

GENERATED = [row for row in conditions.TABLE if row.engine and not row.is_baseline]


@pytest.mark.parametrize("row", GENERATED, ids=lambda row: row.name)
def test_a_condition_s_features_come_from_where_its_row_says(
    start: Start, backbone: Backbone, row: Condition
) -> None:
    features = write_files(start(), backbone)
    stored = files(backbone)
    found = features.of_condition(row)
    n = len(found.nsd_id)
    assert n == conditions.n_images_of(row, features.run.profile, len(IDS))
    for name, source in (("c", row.c), ("z", row.z), ("target", row.clip)):
        value = getattr(found, name)
        if source in ("decoded", "true", "shuffled"):
            expected = getattr(features.of(source), name)
            if name == "target":
                layers = layers_of(row, features.run.profile)
                assert value.layers == layers
                value, expected = value.features[2], expected.features[2]
            assert torch.equal(value, expected[:n])
        elif source == "own":
            expected = stored["decoded_systems.h5"][f"{row.name}/{name}"][:n]
            np.testing.assert_array_equal(value.flatten(1).numpy(), expected)
        elif source == "posterior":
            expected = stored["decoded.h5"]["c/posterior"][:n]
            np.testing.assert_array_equal(value.flatten(1).numpy(), expected)
        elif name == "c":
            assert torch.equal(value, backbone.null_text().expand_as(value))
        elif source is None and name == "z":
            assert not value.any()


def test_a_new_row_may_mix_sources(start: Start, backbone: Backbone) -> None:
    features = write_files(start(), backbone)
    row = Condition(
        "mixed", "true z", "method", "decoded", "true", "shuffled", engine="bayes"
    )
    found = features.of_condition(row)
    assert torch.equal(found.c, features.of("decoded").c)
    assert torch.equal(found.z, features.of("true").z)
    shuffled = features.of("shuffled").target.features[1]
    assert torch.equal(found.target.features[1], shuffled)


def test_features_of_other_images_are_refused(start: Start, backbone: Backbone) -> None:
    other = {"nsd_id": IDS + 1}
    features = write_files(start(), backbone, decoded_systems=other)
    with pytest.raises(StoreError, match="not of the images"):
        features.of_condition(ROWS["takagi"])


def test_the_best_of_n_is_chosen_by_the_loss_that_its_row_names(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(), backbone)
    row = replace(ROWS["stage1_best"], n_draws=3)
    draws = [replace(ROWS["stage1"], name=f"draw {k}", draw=k) for k in (1, 2, 3)]
    drawn = [images.images for images in made(features, *draws).values()]
    kinds: tuple[Loss, ...] = ("balanced", "cosine", "likelihood")
    for kind in kinds:
        settings: Any = {} if kind == "balanced" else {"loss": kind}
        found = made(features, replace(row, settings=settings))["stage1_best"].images
        target = features.of("decoded").target
        loss_of = StructuralLoss.of(target, kind)
        losses = []
        for images in drawn:
            x = to_torch(images)
            losses.append(loss_of(backbone.clip_layers(x, target.layers)).numpy())
        best = np.argmin(losses, axis=0)
        for image, k in enumerate(best):
            np.testing.assert_array_equal(found[image], drawn[k][image])


@pytest.mark.parametrize("n", [2, None])
def test_the_posterior_mean_of_c_stands_for_c_where_a_row_says_so(
    start: Start, backbone: Backbone, n: int | None
) -> None:
    posterior = files(backbone)["decoded.h5"]["c/decoded"][::-1].copy()
    run = start(data__n_reconstruct=n)
    features = write_files(run, backbone, decoded={"c/posterior": posterior})
    found = features.of_condition(ROWS["stage1_posterior"])
    np.testing.assert_array_equal(found.c.flatten(1).numpy(), posterior[:n])
    decoded = features.of_condition(ROWS["stage1"])
    assert torch.equal(found.z, decoded.z)
    assert not torch.equal(found.c, decoded.c)


@pytest.mark.parametrize(
    ("name", "file", "rows"),
    [
        ("stage2", "decoded.h5", [0, 1, 2, 3, 4]),
        ("stage2_shuffled", "decoded_validation.h5", [1, 2, 0, 1, 2]),
    ],
)
def test_preset_bayes_starts_from_the_posterior_mean_of_the_brain_in_question(
    start: Start, backbone: Backbone, name: str, file: str, rows: list[int]
) -> None:
    features = write_files(start(stage2__preset="bayes"), backbone)
    found = features.of_condition(replace(ROWS[name], n_images="all"))
    posterior = files(backbone)[file]["c/posterior"]
    np.testing.assert_array_equal(found.c.flatten(1).numpy(), posterior[rows])


def test_preset_bayes_leaves_true_features_and_other_engines_as_they_are(
    start: Start, backbone: Backbone
) -> None:
    run = start(stage2__preset="bayes", ablation__n_images=5)
    features = write_files(run, backbone)
    decoded, true = features.of("decoded"), features.of("true")
    assert torch.equal(features.of_condition(ROWS["stage2_guided"]).c, decoded.c)
    assert torch.equal(features.of_condition(ROWS["stage1"]).c, decoded.c)
    row = replace(ROWS["stage2_true"], n_images="all")
    assert torch.equal(features.of_condition(row).c, true.c)


def test_what_starts_from_the_posterior_has_a_sampler_of_its_own(start: Start) -> None:
    profile = start(stage2__preset="bayes").profile
    for name in ("stage1_posterior", "stage2", "stage2_true", "stage2_shuffled"):
        assert sampler_of(ROWS[name], profile) == profile.posterior, name
    for name in ("stage1", "stage2_guided", "true_features"):
        assert sampler_of(ROWS[name], profile) == profile.stage1, name
    without = profile.model_copy(update={"posterior": None})
    assert sampler_of(ROWS["stage2"], without) == without.stage1


def test_preset_bayes_steers_the_row_without_z_clip(
    start: Start, backbone: Backbone
) -> None:
    over = {"stage2__preset": "bayes", "stage2__bayes__strength": 2.0}
    features = write_files(start(**over), backbone)
    plain, steered = made(features, ROWS["stage1_posterior"], ROWS["stage2"]).values()
    losses = steered.stacked("candidate_losses")
    better = losses[:, 1] < losses[:, 0]
    equal = (plain.images == steered.images).all(axis=(1, 2, 3))
    assert better.any()
    np.testing.assert_array_equal(equal, ~better)
    unpulled = made(features, replace(ROWS["stage2"], n_iter=0))["stage2"]
    np.testing.assert_array_equal(unpulled.images, plain.images)


def test_a_ladder_of_iterations_is_of_the_paper_where_the_preset_has_no_loop(
    start: Start,
) -> None:
    profile = start(**ABLATION, stage2__preset="bayes").profile
    rows = {row.name: row for row in conditions_of(profile)}
    found = settings_of(rows["stage2_iter_2"], profile)
    loop = settings_of(ROWS["stage2_paper"], profile)
    assert found == replace(loop, n_iter=2, n_candidates=2)
    assert sampler_of(rows["stage2_iter_2"], profile) == profile.stage1


def test_notebook_03_sees_its_rows_without_the_settings_of_stage_2(
    start: Start,
) -> None:
    run = start(**ABLATION, notebook="03_stage1")
    for row in conditions.generated(run.profile, 1):
        if row.engine == "sampler":
            sampler_of(row, run.profile)


def test_stage_1_can_be_steered_from_c_as_decoded_in_its_own_sampler(
    start: Start, backbone: Backbone
) -> None:
    run = start(stage2__preset="bayes", ablation__n_images=5)
    features = write_files(run, backbone)
    profile, row = features.run.profile, ROWS["stage2_guided"]
    assert torch.equal(features.of_condition(row).c, features.of("decoded").c)
    assert sampler_of(row, profile) == profile.stage1 != profile.posterior
    assert settings_of(row, profile) == settings_of(ROWS["stage2"], profile)
    assert layers_of(row, profile) == layers_of(ROWS["stage2"], profile) == LAYERS


def test_a_row_s_own_sampler_changes_its_fields_alone(start: Start) -> None:
    profile = start().profile
    row = replace(ROWS["stage1"], sampler={"n_steps": 8, "encode_index": 3})
    found = sampler_of(row, profile)
    assert found.model_dump(exclude={"n_steps", "encode_index"}) == (
        profile.stage1.model_dump(exclude={"n_steps", "encode_index"})
    )
    assert (found.n_steps, found.encode_index) == (8, 3)


def test_k_keeps_the_best_decodable_features(start: Start, backbone: Backbone) -> None:
    target = write_files(start(), backbone).of("decoded").target
    stored = files(backbone)["decoders.h5"]
    r_cv = {k: stored[f"clip/{k}/r_cv"] for k in LAYERS}
    for k in (5.0, 25.0, 100.0):
        kept = with_k(target, r_cv, k).selected
        for layer in LAYERS:
            n, mask = len(r_cv[layer]), kept[layer].numpy()
            assert mask.sum() == max(1, round(n * k / 100))
            assert r_cv[layer][mask].min() >= np.sort(r_cv[layer])[n - mask.sum()]


# --- stage 1 ------------------------------------------------------------------------


def test_stage_1_is_the_sampler_under_each_image_s_own_noise(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(models__batch_size=5), backbone)
    found, run = _one(features, ROWS["stage1"]), features.run
    assert found.images.shape == (5, 64, 64, 3)
    assert found.images.dtype == np.uint8
    assert found.nsd_id.tolist() == IDS.tolist()
    seeds = [torch_stream(run.profile.seed, "noise", 1, int(i)) for i in IDS]
    noise = torch.stack(
        [torch.randn(backbone.latent_shape, generator=g) for g in seeds]
    )
    schedule = make_schedule(backbone, run.profile.stage1)
    own = features.of("decoded")
    expected = sample(backbone, own.z, own.c, noise, schedule)
    np.testing.assert_array_equal(found.images, to_uint8(expected))
    assert found.n_unet_evaluations == 5  # 3 steps, 2 of them guided


def test_a_later_draw_is_stage_1_from_the_next_noise_of_the_same_stream(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(models__batch_size=5), backbone)
    found, run = _one(features, ROWS["stage1_draw_3"]), features.run
    seeds = [torch_stream(run.profile.seed, "noise", 1, int(i)) for i in IDS]
    noise = [
        torch.stack([torch.randn(backbone.latent_shape, generator=g) for g in seeds])
        for _ in range(3)
    ]
    schedule, own = make_schedule(backbone, run.profile.stage1), features.of("decoded")
    expected = to_uint8(sample(backbone, own.z, own.c, noise[2], schedule))
    np.testing.assert_array_equal(found.images, expected)
    assert found.n_unet_evaluations == 5  # one draw is used, and one is paid for
    assert conditions.draws() == ["stage1", "stage1_draw_2", "stage1_draw_3"]


def test_z_alone_is_the_autoencoder_and_c_alone_takes_all_steps_from_noise(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(models__batch_size=5), backbone)
    z_only, c_only = made(features, ROWS["z_only"], ROWS["c_only"]).values()
    with torch.no_grad():
        expected = to_uint8(backbone.decode_latents(features.of("decoded").z))
    np.testing.assert_array_equal(z_only.images, expected)
    assert (z_only.n_unet_evaluations, z_only.sampler) == (0, None)
    assert c_only.sampler is not None
    assert (c_only.sampler.encode_index, c_only.sampler.decode_steps) == (3, 4)
    assert c_only.n_unet_evaluations == 6  # 4 steps, 2 of them guided


def test_noise_depends_on_subject_and_image_alone(
    start: Start, backbone: Backbone
) -> None:
    # equal features, one image per batch: images differ by their noise alone
    same = {
        f"{name}/decoded": np.repeat(
            files(backbone)["decoded.h5"][f"{name}/true"][:1], 5, 0
        )
        for name in ("c", "z")
    }
    one = {"models__batch_size": 1}
    features = write_files(start(**one), backbone, decoded=same)
    first = _one(features, ROWS["stage1"]).images
    assert len({image.tobytes() for image in first}) == 5
    order = {name: value[::-1] for name, value in {"nsd_id": IDS}.items()}
    turned = write_files(start(folder="turned", **one), backbone, decoded=same | order)
    np.testing.assert_array_equal(_one(turned, ROWS["stage1"]).images, first[::-1])
    path = features.run.tree.derived(2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(features.run.tree.derived(1))
    other = SubjectFeatures(start(subject=2, **one), backbone)
    found = _one(other, ROWS["stage1"]).images
    assert not any(np.array_equal(a, b) for a, b in zip(found, first, strict=True))


def test_strength_means_the_published_share_of_steps() -> None:
    levels = {
        strength: image_to_image(Stage1Config(), strength)
        for strength in (0.8, 1.0, 0.001)
    }
    # Takagi's code: strength 0.8 of 50 steps is t_enc = 40, index 39 counted from 0
    assert {s: (a.encode_index, a.decode_steps) for s, a in levels.items()} == {
        0.8: (39, 40),
        1.0: (49, 50),
        0.001: (0, 1),
    }


def test_a_system_with_our_features_and_sampler_is_our_stage_1(
    start: Start, backbone: Backbone
) -> None:
    stored = files(backbone)["decoded.h5"]
    own = {f"takagi_minddiffuser/{k}": stored[f"{k}/decoded"] for k in ("c", "z")}
    features = write_files(start(), backbone, decoded_systems=own)
    names = ("stage1", "takagi_minddiffuser", "takagi")
    ours, same, other = made(features, *map(ROWS.get, names)).values()
    np.testing.assert_array_equal(same.images, ours.images)
    assert not np.array_equal(other.images, ours.images)
    assert other.sampler == image_to_image(features.run.profile.stage1, 0.8)


# --- stage 2 ------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["paper", "released", "bayes"])
def test_stage_2_keeps_shapes_and_moves_images(
    start: Start, backbone: Backbone, preset: str
) -> None:
    over = {} if preset == "bayes" else {f"stage2__{preset}__n_iter": 2}
    run = start(stage2__preset=preset, data__n_reconstruct=3, **over)
    features = write_files(run, backbone)
    found = _one(features, ROWS["stage2"])
    assert found.images.shape == (3, 64, 64, 3)
    assert found.nsd_id.tolist() == IDS[:3].tolist()
    assert [len(batch["losses"]) for batch in found.batches] == [2, 1]
    assert not any("images" in batch for batch in found.batches)  # held once
    losses = found.stacked("losses")
    assert losses.shape == (3, 2 if preset == "bayes" else 2 + 1)  # two steps
    assert not np.array_equal(losses[:, 0], losses[:, 1])


def test_preset_bayes_is_the_engine_that_steers_the_sampling(
    start: Start, backbone: Backbone
) -> None:
    run = start(
        stage2__preset="bayes", models__batch_size=5, stage2__bayes__strength=0.7
    )
    features = write_files(run, backbone)
    found, own = _one(features, ROWS["stage2"]), features.of("decoded")
    seeds = [torch_stream(run.profile.seed, "noise", 1, int(i)) for i in IDS]
    plain = to_torch(_one(features, ROWS["stage1_posterior"]).images)
    c = features.of_condition(ROWS["stage2"]).c
    expected = guide(
        backbone,
        Latent(own.z, c, draw_noise(backbone, seeds), images=plain),
        own.target,
        run.profile.posterior,
        GuidanceSettings(
            gradient="conditional",
            strength=0.7,
            loss="cosine",
            n_trajectory=3,
        ),
    )
    np.testing.assert_array_equal(found.images, to_uint8(expected.images))
    np.testing.assert_array_equal(found.stacked("losses"), expected.losses)
    assert set(found.stacked("n_unet_evaluations")) == {6}  # twice 2 steps, 1 guided


@pytest.mark.parametrize("preset", ["paper", "bayes"])
def test_stage_2_reads_the_images_of_stage_1_and_never_samples_them_twice(
    start: Start, backbone: Backbone, count_passes: Any, preset: str
) -> None:
    over = {"stage2__paper__n_iter": 1, "stage2__paper__n_candidates": 1}
    run = start(stage2__preset=preset, **over)
    features = write_files(run, backbone)
    start_row = "stage1_posterior" if preset == "bayes" else "stage1"
    first = _one(features, ROWS[start_row])
    passes = count_passes(backbone)
    second = _one(features, ROWS["stage2"])
    said = second.stacked("n_unet_evaluations")
    assert passes.forward == said.sum() - first.n_unet_evaluations * len(said)
    kept = second.stacked("best_iteration") == 0
    np.testing.assert_array_equal(second.images[kept], first.images[kept])


def test_presets_of_conditions(start: Start) -> None:
    profile = start(**ABLATION).profile
    paper = settings_of(ROWS["stage2_paper"], profile)
    assert (paper.optimiser, paper.n_iter) == ("gradient", 1)
    assert layers_of(ROWS["stage2_paper"], profile) == LAYERS
    assert layers_of(ROWS["brain_diffuser_style"], profile) == (2,)
    rows = {row.name: row for row in conditions_of(profile)}
    assert layers_of(rows["guided_layers_1"], profile) == (1,)
    short = settings_of(rows["stage2_iter_2"], profile)
    assert (short.loss, short.n_iter, short.n_candidates) == ("released", 2, 2)
    other = replace(ROWS["stage2"], engine="released", settings={"lr_z": 0.5})
    released = settings_of(other, profile)
    assert (released.loss, released.lr_z, released.lr_c) == ("released", 0.5, 0.0)


def test_more_iterations_are_the_same_loop_for_longer(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(**ABLATION, stage2__released__n_iter=2), backbone)
    rows = {row.name: row for row in conditions_of(features.run.profile)}
    short, whole = made(features, rows["stage2_iter_2"], rows["stage2"]).values()
    losses = [found.batches[0]["losses"] for found in (short, whole)]
    np.testing.assert_array_equal(*losses)


def test_brain_diffuser_s_start_is_the_image_read_from_voxels(
    start: Start, backbone: Backbone
) -> None:
    features = write_files(start(), backbone)
    row, size = ROWS["brain_diffuser_style"], backbone.image_size
    pixels = features.pixels("pixel_ridge", size)
    stored = files(backbone)["decoded_systems.h5"]["pixel_ridge"]
    small = np.rint(255 * np.clip(stored, 0, 1)).astype(np.uint8).reshape(5, 8, 8, 3)
    np.testing.assert_array_equal(pixels, resize(small, size))
    other = write_files(
        start(folder="other"), backbone, decoded_systems={"pixel_ridge": 1 - stored}
    )
    first, second = _one(features, row), _one(other, row)
    assert not np.array_equal(first.images, second.images)


# --- every row ----------------------------------------------------------------------


def test_every_condition_of_a_profile_has_its_images_and_the_baselines_no_generator(
    start: Start, backbone: Backbone, n_calls: Callable[[], int]
) -> None:
    features = write_files(start(**ABLATION), backbone)
    profile = features.run.profile
    for row in (*conditions.generated(profile, 1), *conditions.generated(profile, 2)):
        found = _one(features, row)
        n = conditions.n_images_of(row, profile, len(IDS))
        assert found.nsd_id.tolist() == IDS[:n].tolist(), row.name
        assert found.images.shape == (n, 64, 64, 3), row.name
        # the best of ten has sampled the draws that are rows of their own
        free = row.is_baseline or row.engine == "autoencoder" or row.kind == "draw"
        assert (n_calls() == 0) == free, row.name


def test_baselines_are_training_images_their_mean_and_the_pixels_read(
    start: Start, backbone: Backbone
) -> None:
    features, stored = write_files(start(), backbone), files(backbone)
    stimuli = stored["stimuli.h5"]
    seen = dict(zip(stimuli["nsd_id"], stimuli["images"], strict=True))
    names = ("mean_image", "retrieval", "random_train")
    mean, near, drawn = made(features, *map(ROWS.get, names)).values()
    train = np.stack([seen[i] for i in TRAIN])
    np.testing.assert_array_equal(mean.images, np.stack([mean_image(train)] * 5))
    ids = stored["decoded.h5"]["retrieval_nsd_id"]
    np.testing.assert_array_equal(near.images, np.stack([seen[i] for i in ids]))
    stream = features.run.stream("random train", 1).integers(4, size=5)
    np.testing.assert_array_equal(drawn.images, train[stream])

    names = ("pixel_ridge", "posterior_image", "retrieval_caption")
    read, expected, likeliest = made(features, *map(ROWS.get, names)).values()
    np.testing.assert_array_equal(read.images, features.pixels("pixel_ridge", 64))
    # the file of this test has the pixels of one in the other order
    np.testing.assert_array_equal(expected.images, read.images[::-1])
    ids = stored["decoded.h5"]["posterior_nsd_id"]
    np.testing.assert_array_equal(likeliest.images, np.stack([seen[i] for i in ids]))


def test_the_mean_image_is_the_rounded_mean_of_each_value() -> None:
    images = np.zeros((3, 1, 2, 3), np.uint8)
    images[:, 0, 0, 0] = (255, 255, 254)  # 254.67: no wrap, rounded up
    images[:, 0, 1, 2] = (1, 0, 0)
    found = mean_image(images)
    assert found.dtype == np.uint8
    assert found.tolist() == [[[255, 0, 0], [0, 0, 0]]]
    with pytest.raises(DataError, match=r"raise data\.sessions"):
        mean_image(images[:0])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("responses", {"split": np.array(["train"] * 3)}),
        ("decoded", {"retrieval_nsd_id": np.arange(5) + 99}),
    ],
)
def test_baselines_from_files_that_do_not_belong_together_are_refused(
    start: Start, backbone: Backbone, name: str, wrong: Any
) -> None:
    features = write_files(start(), backbone, **{name: wrong})
    with pytest.raises(StoreError, match="do not belong together"):
        made(features, ROWS["retrieval"])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_shards_together_give_the_images_of_the_whole_run_to_the_byte(
    start: Start, backbone: Backbone, batch_size: int
) -> None:
    size = {"models__batch_size": batch_size, "data__n_reconstruct": 5}
    rows = [ROWS[name] for name in ("stage1", "stage2", "retrieval", "z_only")]
    whole = made(write_files(start(**size), backbone), *rows)
    parts = [
        made(write_files(start(shard=shard, folder="parts", **size), backbone), *rows)
        for shard in ("0/2", "1/2")
    ]
    for name, expected in whole.items():
        found = np.concatenate([part[name].nsd_id for part in parts])
        images = np.concatenate([part[name].images for part in parts])
        order = [found.tolist().index(i) for i in IDS]
        np.testing.assert_array_equal(images[order], expected.images, err_msg=name)
