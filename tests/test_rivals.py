"""Compared systems read the voxels they claim to read and start where they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.images import resize
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run
from minddiff_utils.generation import rivals
from minddiff_utils.generation.diffusion import DiffusionSettings
from minddiff_utils.generation.reconstruction import DecodedFeatures, stage1_images
from minddiff_utils.generation.reconstruction.settings import image_to_image
from minddiff_utils.models import Backbone, tiny_backbone
from tests.test_reconstruction import IDS, LAYERS, Start, read, start

__all__ = ["read", "start"]  # fixtures of the conditions these are compared with


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


# --- files --------------------------------------------------------------------------


def _stored(backbone: Backbone, side: int = 8) -> dict[str, npt.NDArray[Any]]:
    rng = stream(0, "tests", "stored rivals")
    width = {
        "c": backbone.n_tokens * backbone.text_dim,
        "z": int(np.prod(backbone.latent_shape)),
    }
    systems = ("takagi", "takagi_minddiffuser", "permuted_voxels")
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{system}/{k}": rng.normal(size=(len(IDS), n)).astype(np.float32)
        for system in systems
        for k, n in width.items()
    }
    pixels = rng.uniform(-0.2, 1.2, (len(IDS), side * side * 3)).astype(np.float32)
    return arrays | {"nsd_id": IDS, "pixel_ridge": pixels}


def _path(run: Run, arrays: dict[str, npt.NDArray[Any]]) -> Path:
    path = run.tree.derived(1) / "decoded_rivals.h5"
    store.write_arrays(path, arrays, run=run)
    return path


def test_read_pixels_are_clipped_images_of_the_generator_s_size(
    start: Start, backbone: Backbone
) -> None:
    stored = _stored(backbone)
    found = rivals.read_rivals(_path(start(), stored), IDS[:3], 16)
    expected = np.rint(255 * np.clip(stored["pixel_ridge"][:3], 0, 1)).astype(np.uint8)
    small = expected.reshape(3, 8, 8, 3)
    np.testing.assert_array_equal(found["pixel_ridge"], resize(small, 16))


def test_pixels_alone_are_those_of_all_of_the_rows_that_are_asked_for(
    start: Start, backbone: Backbone
) -> None:
    path = _path(start(), _stored(backbone))
    every = rivals.read_rivals(path, IDS[:3], 16)["pixel_ridge"]
    np.testing.assert_array_equal(rivals.read_pixel_ridge(path, IDS[:3], 16), every)
    some = rivals.read_pixel_ridge(path, IDS[:3], 16, np.array([2, 0]))
    np.testing.assert_array_equal(some, every[[2, 0]])
    with pytest.raises(StoreError, match="not of the images"):
        rivals.read_pixel_ridge(path, IDS[1:3], 16)


def test_rivals_of_other_images_are_refused(start: Start, backbone: Backbone) -> None:
    path = _path(start(), _stored(backbone))
    with pytest.raises(StoreError, match="not of the images"):
        rivals.read_rivals(path, IDS[1:3], 16)


# --- images -------------------------------------------------------------------------


def test_strength_means_the_published_share_of_steps() -> None:
    base = DiffusionSettings(50, 37, 35, 5.0)
    # Takagi's code: strength 0.8 of 50 steps is t_enc = 40, index 39 counted from 0
    assert image_to_image(base, 0.8) == DiffusionSettings(50, 39, 40, 5.0)
    assert image_to_image(base, 1.0) == DiffusionSettings(50, 49, 50, 5.0)
    assert image_to_image(base, 0.001) == DiffusionSettings(50, 0, 1, 5.0)


def test_a_system_with_our_features_and_sampler_is_our_stage_1(
    start: Start, backbone: Backbone, read: Callable[..., DecodedFeatures]
) -> None:
    run, decoded = start(), read(3)
    arrays = _stored(backbone)
    arrays["takagi_minddiffuser/c"] = decoded.c.flatten(1).numpy()
    arrays["takagi_minddiffuser/z"] = decoded.z.flatten(1).numpy()
    own = run.profile.stage1
    sampler = DiffusionSettings(
        own.n_steps, own.encode_index, own.decode_steps, own.guidance_scale
    )
    arrays = {name: values[:3] for name, values in arrays.items()}
    made = rivals.rival_images(run, backbone, decoded, arrays, sampler)
    ours = stage1_images(run, backbone, decoded)
    np.testing.assert_array_equal(made["takagi_minddiffuser"].images, ours.images)
    assert not np.array_equal(made["takagi"].images, ours.images)
    assert made["takagi"].settings == image_to_image(sampler, 0.8)


def test_brain_diffuser_s_start_is_the_image_read_from_voxels(
    start: Start, backbone: Backbone, read: Callable[..., DecodedFeatures]
) -> None:
    run, decoded = start(), read(3)
    found = rivals.read_rivals(
        _path(run, _stored(backbone)), IDS[:3], backbone.image_size
    )
    own = run.profile.stage1
    sampler = DiffusionSettings(
        own.n_steps, own.encode_index, own.decode_steps, own.guidance_scale
    )
    inputs = (run, backbone, decoded)
    first = rivals.brain_diffuser_style(*inputs, found, sampler)
    other = {**found, "pixel_ridge": 255 - found["pixel_ridge"]}
    second = rivals.brain_diffuser_style(*inputs, other, sampler)
    assert first.made.images.shape == (3, *found["pixel_ridge"].shape[1:])
    assert not np.array_equal(first.made.images, second.made.images)
    assert decoded.target.layers[-1] == LAYERS[-1]
