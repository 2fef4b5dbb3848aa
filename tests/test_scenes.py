"""Scenes are deterministic, legal, and captioned with what they show."""

import numpy as np
import pytest
from PIL import Image

from minddiff_utils.core.errors import DataError
from minddiff_utils.insilico import scenes
from minddiff_utils.insilico.backgrounds import BACKGROUNDS


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    seed = scenes.world_seed("test")
    assert scenes.make_scene(seed, 5) == scenes.make_scene(seed, 5)
    assert scenes.make_scene(seed, 5) != scenes.make_scene(seed, 6)
    assert scenes.make_scene(seed, 5) != scenes.make_scene(
        scenes.world_seed("other"), 5
    )


def test_rendering_twice_gives_the_same_bytes() -> None:
    scene = scenes.make_scene(scenes.world_seed("test"), 3)
    assert scenes.render(scene).tobytes() == scenes.render(scene).tobytes()


def test_light_scales_colours_rounded_and_clipped_but_not_opacity() -> None:
    pixels = np.array([[[0, 99, 250, 120]]], np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    lit = scenes._lit(image, 1.1, 1.1, 1.1, 1)
    assert lit.tolist() == [[[0, 109, 255, 120]]]  # 108.9 and 275


@pytest.mark.parametrize("size", [64, 128])
def test_rendered_scene_is_rgb_of_the_size_asked(size: int) -> None:
    image = scenes.render(scenes.make_scene(scenes.world_seed("test"), 0), size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_there_are_at_least_forty_categories_and_all_are_drawn() -> None:
    seed = scenes.world_seed("test")
    drawn = {o.category for i in range(800) for o in scenes.make_scene(seed, i).objects}
    assert len(scenes.CATEGORIES) >= 40
    assert drawn == set(scenes.CATEGORIES)


def test_captions_name_every_object_of_the_scene() -> None:
    seed = scenes.world_seed("test")
    for index in range(100):
        scene = scenes.make_scene(seed, index)
        assert len(scene.captions) == 5
        for item in scene.objects:
            assert item.category in scene.captions[0]


def test_every_background_can_be_rendered_to_its_lower_edge() -> None:
    seed = scenes.world_seed("test")
    seen = set()
    for index in range(120):
        scene = scenes.make_scene(seed, index)
        if scene.background not in seen:
            seen.add(scene.background)
            assert scenes.render(scene, 64)[-1].mean() > 8
    assert seen == set(BACKGROUNDS)


def test_number_of_objects_can_be_fixed_and_is_checked() -> None:
    seed = scenes.world_seed("test")
    assert len(scenes.make_scene(seed, 0, n_objects=2).objects) == 2
    assert len(scenes.make_scene(seed, 0, n_objects=1).objects) == 1
    with pytest.raises(DataError, match="1 or 2"):
        scenes.make_scene(seed, 0, n_objects=3)
