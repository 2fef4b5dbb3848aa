"""The three features equal what the backbone gives image by image."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from minddiff_utils import features
from minddiff_utils.core.errors import ConfigError, DataError, ModelError
from minddiff_utils.core.images import to_torch
from minddiff_utils.models import Backbone, tiny_backbone

LAYERS = (1, 2)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture
def images(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    return rng.integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)


CAPTIONS = np.array(
    [
        ["a red cat", "a cat"],
        ["a dog", "a cat"],
        ["a dog", "a dog"],
        ["grass", "a red dog on grass"],
        ["a cat", "a house"],
    ]
)


@dataclass(frozen=True)
class Watched:
    """A text encoder that notes what it was given, and may spoil the result."""

    inner: Any
    spoil: float = 0.0
    seen: list[str] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        return int(self.inner.n_tokens)

    @property
    def width(self) -> int:
        return int(self.inner.width)

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        self.seen.extend(captions)
        encoded: torch.Tensor = self.inner(captions) + self.spoil
        return encoded


# --- c ------------------------------------------------------------------------------


def test_c_is_the_mean_of_the_captions_token_sequences(backbone: Backbone) -> None:
    c = features.semantic_features(backbone, CAPTIONS, batch_size=3)
    assert c.dtype == np.float32
    assert c.shape == (5, backbone.n_tokens * backbone.text_dim)
    assert len(np.unique(c, axis=0)) == 5
    for row, captions in zip(c, CAPTIONS.tolist(), strict=True):
        each = [backbone.encode_text([caption]) for caption in captions]
        # float32 of order 1, products of another shape
        np.testing.assert_allclose(
            row, torch.cat(each).mean(dim=0).flatten().numpy(), atol=1e-5
        )


def test_each_distinct_caption_is_encoded_once_as_text_or_as_object(
    backbone: Backbone,
) -> None:
    watched = Watched(backbone._text)
    own = replace(backbone, _text=watched)
    text = features.semantic_features(own, CAPTIONS, batch_size=2)
    assert sorted(watched.seen) == sorted(set(CAPTIONS.ravel().tolist()))
    objects = features.semantic_features(own, CAPTIONS.astype(object), batch_size=2)
    np.testing.assert_array_equal(text, objects)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (np.empty((0, 2), "U9"), "Captions are empty"),
        (np.empty((3, 0), "U9"), "Captions are empty"),
        *(
            (
                np.array([["a", "b"], ["c", blank]], object),
                "image 1 is blank or no text",
            )
            for blank in ("", "  ", None, 3.5)
        ),
    ],
)
def test_captions_that_say_nothing_are_refused(
    backbone: Backbone, captions: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        features.semantic_features(backbone, captions, batch_size=2)


def test_c_that_is_not_finite_is_refused(backbone: Backbone) -> None:
    own = replace(backbone, _text=Watched(backbone._text, spoil=float("nan")))
    with pytest.raises(DataError, match="Feature c holds NaN"):
        features.semantic_features(own, CAPTIONS, batch_size=2)


# --- z and Z_CLIP -------------------------------------------------------------------


def test_z_is_the_flattened_latent(
    backbone: Backbone, images: npt.NDArray[np.uint8]
) -> None:
    z = features.image_features(backbone, images, [], batch_size=2)["z"]
    with torch.no_grad():
        latents = backbone.encode_images(to_torch(images))
    assert z.dtype == np.float32
    assert latents.shape[1:] == backbone.latent_shape
    # float32 of order 1, products of another shape
    np.testing.assert_allclose(z, latents.flatten(1).numpy(), atol=1e-5)


def test_z_clip_has_the_layers_asked_for_in_ascending_order(
    backbone: Backbone, images: npt.NDArray[np.uint8]
) -> None:
    found = features.image_features(backbone, images, (2, 1), batch_size=2)
    with torch.no_grad():
        direct = backbone.clip_layers(to_torch(images), (1, 2))
    assert list(found) == ["z", "clip/1", "clip/2"]
    with pytest.raises(ModelError, match="blocks 1 to"):
        features.image_features(backbone, images, (1, 99), batch_size=2)
    for layer in (1, 2):
        values = found[f"clip/{layer}"]
        assert values.dtype == np.float32
        assert values.shape == (5, backbone.layer_widths[layer - 1])
        # float32 of order 1, products of another shape
        np.testing.assert_allclose(values, direct[layer].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (lambda images: images[:, :32], "Images has shape"),
        (lambda images: images[:0], "no image to encode"),
        (lambda images: images.astype(np.float32), "must be uint8"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(
    backbone: Backbone, images: npt.NDArray[np.uint8], spoiled: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        features.image_features(backbone, spoiled(images), LAYERS, batch_size=2)


# --- all three ----------------------------------------------------------------------


def test_features_do_not_depend_on_the_batch_size(
    backbone: Backbone, images: npt.NDArray[np.uint8]
) -> None:
    one, other = (
        features.extract_features(backbone, images, CAPTIONS, LAYERS, batch_size=n)
        for n in (2, 99)
    )
    for name, values in one.by_name().items():
        # float32 of order 1, products of another shape
        np.testing.assert_allclose(values, other.by_name()[name], atol=1e-5)


def test_features_are_named_in_the_order_of_layers() -> None:
    one = np.zeros((1, 1), np.float32)
    found = features.Features(one, one, {10: one, 9: one})
    assert list(found.by_name()) == ["c", "z", "clip/9", "clip/10"]
    with pytest.raises(DataError, match="Feature clip/3 has shape"):
        features.Features(one, one, {3: one[:0]})


@pytest.mark.parametrize(
    "index", [slice(1, 3), np.array([False, True, True, False, False]), [1, 2]]
)
def test_rows_takes_the_same_images_of_every_feature(index: Any) -> None:
    rows = np.arange(5, dtype=np.float32)[:, None]
    some = features.Features(rows, 10 * rows, {3: 100 * rows}).rows(index)
    assert some.c.ravel().tolist() == [1, 2]
    assert some.z.ravel().tolist() == [10, 20]
    assert some.clip[3].ravel().tolist() == [100, 200]


def test_captions_of_other_images_and_impossible_batches_are_refused(
    backbone: Backbone, images: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(DataError, match="Captions has shape"):
        features.extract_features(backbone, images[1:], CAPTIONS, LAYERS, batch_size=2)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        features.semantic_features(backbone, CAPTIONS, batch_size=0)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        features.image_features(backbone, images, LAYERS, batch_size=0)
