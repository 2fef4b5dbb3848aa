"""Each ablated condition lacks what its name says, and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from minddiff_utils.core.conditions import (
    ablation_conditions,
    factorial,
    layers_name,
)
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run
from minddiff_utils.generation import ablation
from minddiff_utils.generation.diffusion import DiffusionSettings
from minddiff_utils.generation.reconstruction import (
    DecodedFeatures,
    Made,
    align_images,
    diffusion_settings,
    stage1_images,
    with_preset,
)
from minddiff_utils.models import Backbone, tiny_backbone
from tests.test_reconstruction import LAYERS, Start, read, start

__all__ = ["read", "start"]  # fixtures of the conditions these are compared with

Read = Callable[..., DecodedFeatures]
OVER = {
    "ablation__n_images": 2,
    "ablation__layers": [[1]],
    "ablation__iterations": [2],
    "ablation__k_grid": [25.0, 100.0],
    "stage2__strength_guided": 0.5,
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


def _sampler(run: Run) -> DiffusionSettings:
    return diffusion_settings(run.profile.stage1)


def _r_cv(features: DecodedFeatures) -> dict[int, np.ndarray]:
    rng = stream(0, "tests", "r_cv")
    return {k: rng.uniform(size=features.target.features[k].shape[1]) for k in LAYERS}


def test_every_method_of_the_profile_is_made_and_named(
    start: Start, backbone: Backbone, read: Read
) -> None:
    run, decoded = start(**OVER), read(3)
    made = set(ablation.cells_without_clip(run, backbone, decoded))
    aligned = ablation.ablation_images(
        run, backbone, decoded, _r_cv(decoded), _sampler(run)
    )
    assert made | set(aligned) == {row.name for row in ablation_conditions(run.profile)}
    for found in aligned.values():
        assert found.made.nsd_id.tolist() == decoded.nsd_id[:2].tolist()


def _changed(a: Made, b: Made) -> bool:
    return not np.array_equal(a.images, b.images)


@pytest.mark.parametrize("cell", ["none", "z_null"])
def test_a_cell_without_clip_does_not_see_what_it_lacks(
    start: Start, backbone: Backbone, read: Read, cell: str
) -> None:
    run, decoded = start(**OVER), read(3)
    has_c, has_z, _ = factorial()[cell]
    before = ablation.cells_without_clip(run, backbone, decoded)[cell]
    for field, there in (("c", has_c), ("z", has_z)):
        other = replace(decoded, **{field: -getattr(decoded, field)})
        after = ablation.cells_without_clip(run, backbone, other)[cell]
        assert _changed(before, after) == there, field


@pytest.mark.parametrize("cell", ["clip_only", "c_clip", "z_clip"])
def test_a_guided_cell_sees_z_clip_and_not_what_it_lacks(
    start: Start, backbone: Backbone, read: Read, cell: str
) -> None:
    run, decoded = start(**OVER), read(2)
    r_cv = _r_cv(decoded)

    def make(features: DecodedFeatures) -> Made:
        found = ablation.ablation_images(run, backbone, features, r_cv, _sampler(run))
        return found[cell].made

    has_c, has_z, _ = factorial()[cell]
    before = make(decoded)
    for field, there in (("c", has_c), ("z", has_z)):
        other = replace(decoded, **{field: -getattr(decoded, field)})
        assert _changed(before, make(other)) == there, field


def test_all_three_features_with_the_profile_s_settings_are_stage2_guided(
    start: Start, backbone: Backbone, read: Read
) -> None:
    run, decoded = start(**OVER, stage2__layers_fast=[1]), read(2)
    found = ablation.ablation_images(
        run, backbone, decoded, _r_cv(decoded), _sampler(run)
    )
    guided = align_images(
        run, backbone, decoded, with_preset(run.profile.stage2, "guided")
    )
    same = found[layers_name((1,))].made.images
    np.testing.assert_array_equal(same, guided.made.images)


def test_k_keeps_the_best_decodable_features(read: Read) -> None:
    features = read(2)
    r_cv = _r_cv(features)
    for k in (5.0, 25.0, 100.0):
        kept = ablation.with_k(features, r_cv, k).target.selected
        for layer in LAYERS:
            n = len(r_cv[layer])
            mask = kept[layer].numpy()
            assert mask.sum() == max(1, round(n * k / 100))
            assert r_cv[layer][mask].min() >= np.sort(r_cv[layer])[n - mask.sum()]
    assert not torch.equal(features.target.selected[1], kept[1])


def test_more_iterations_are_the_same_loop_for_longer(
    start: Start, backbone: Backbone, read: Read
) -> None:
    run, decoded = start(**OVER, stage2__n_iter=2), read(2)
    found = ablation.ablation_images(
        run, backbone, decoded, _r_cv(decoded), _sampler(run)
    )
    whole = align_images(run, backbone, decoded, run.profile.stage2)
    losses = [r.losses for r in found["stage2_iter_2"].batches]
    np.testing.assert_array_equal(losses[0], whole.batches[0].losses)


def test_the_factorial_is_full() -> None:
    assert len(set(factorial().values())) == 8
    methods = [row.name for row in ablation_conditions(load_profile("demo"))]
    others = {"c_only", "stage1", "stage2_guided"}
    assert set(factorial()) <= set(methods) | others


def test_stage_1_with_the_profile_s_own_sampler_is_stage_1(
    start: Start, backbone: Backbone, read: Read
) -> None:
    run, decoded = start(), read(2)
    plain = stage1_images(run, backbone, decoded)
    named = stage1_images(run, backbone, decoded, diffusion=_sampler(run))
    np.testing.assert_array_equal(plain.images, named.images)
