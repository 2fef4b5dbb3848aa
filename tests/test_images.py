"""Converters keep pixels, ranges and gradients."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minddiff_utils.core import images
from minddiff_utils.core.errors import DataError

U8 = arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(5), st.just(5), st.just(3)))


@settings(max_examples=30, deadline=None)
@given(U8)
def test_round_trip_through_torch_is_exact(pixels: np.ndarray) -> None:
    x = images.to_torch(pixels)
    assert x.dtype == torch.float32
    assert x.shape == (len(pixels), 3, 5, 5)
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1
    np.testing.assert_array_equal(images.to_uint8(x), pixels)


def test_channel_and_position_are_kept() -> None:
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    pixels[0, 1, 2, 0] = 255
    x = images.to_torch(pixels)
    assert float(x[0, 0, 1, 2]) == 1
    assert float(x.sum()) == -46  # 47 others at -1


def test_values_beyond_the_range_are_clipped() -> None:
    x = torch.tensor([-3.0, 0.0, 3.0]).view(1, 3, 1, 1)
    assert images.to_uint8(x).ravel().tolist() == [0, 128, 255]


def test_nan_is_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        images.to_uint8(torch.full((1, 3, 2, 2), float("nan")))


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8)]
)
def test_other_dtypes_and_shapes_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(DataError, match="Images"):
        images.to_torch(pixels)


def test_resizing_to_the_same_size_changes_nothing(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    same = images.resize(pixels, 8)
    np.testing.assert_array_equal(same, pixels)
    assert same is not pixels


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    inner = images.resize(stripes, 16)[:, 2:-2, 2:-2].astype(int)
    assert abs(inner - 127).max() <= 2  # without antialiasing: 0 or 255


def test_array_and_tensor_reduction_agree(rng: np.random.Generator) -> None:
    coarse = rng.integers(60, 200, (1, 8, 8, 3), np.uint8)
    smooth = images.resize(coarse, 64)
    by_array = images.resize(smooth, 16).astype(int)
    by_tensor = images.to_uint8(images.resize_tensor(images.to_torch(smooth), 16))
    assert abs(by_array - by_tensor).max() <= 2  # Pillow rounds between two passes


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(512, 512, 224), (64, 64, 224), (425, 425, 64), (96, 40, 32), (1, 7, 5)],
)
def test_resizing_by_two_matrices_equals_torch_s_own(
    height: int, width: int, size: int, rng: np.random.Generator
) -> None:
    values = rng.uniform(-1, 1, (2, 3, height, width))
    x = torch.from_numpy(values).requires_grad_()
    other = x.detach().clone().requires_grad_()
    found = images.resize_tensor(x, size)
    expected = torch.nn.functional.interpolate(
        other, size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )
    # both in float64; torch keeps its weights in float64 then, too
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.from_numpy(rng.normal(size=tuple(found.shape)))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=0, atol=1e-11)
    single = images.resize_tensor(x.detach().float(), size)
    assert single.dtype == torch.float32
    # sums of at most a hundred products below 2, in float32
    torch.testing.assert_close(single.double(), found.detach(), rtol=0, atol=1e-5)


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(DataError, match="4 x 6 px"):
        images.resize(np.zeros((1, 4, 6, 3), np.uint8), 4)


def test_clip_normalisation_equals_its_definition() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    pixels = np.array([0, 0.5, 1])
    expected = (pixels - np.array(images.CLIP_MEAN)) / np.array(images.CLIP_STD)
    found = images.clip_normalise(x).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_constants_equal_the_clip_processor_s() -> None:
    import_module("minddiff_utils.models")  # owns torchvision's first import
    constants = import_module("transformers.utils.constants")
    assert list(images.CLIP_MEAN) == constants.OPENAI_CLIP_MEAN
    assert list(images.CLIP_STD) == constants.OPENAI_CLIP_STD


def test_gradients_pass_through_resizing_and_normalisation() -> None:
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    images.clip_normalise(images.resize_tensor(x, 4)).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().min()) > 0


def test_png_round_trip_and_equal_bytes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 256, (6, 7, 3), np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(images.encode_png(image))
    np.testing.assert_array_equal(images.read_png(path), image)
    assert images.encode_png(image) == path.read_bytes()


def test_damaged_and_missing_png_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(DataError, match=r"not found at .*a\.png"):
        images.read_png(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\nno")
    with pytest.raises(DataError, match=r"a\.png is truncated"):
        images.read_png(path)
