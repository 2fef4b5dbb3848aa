"""TF32 where it is safe, and a compiled U-Net that makes equal images."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.profile import ModelConfig
from minddiff_utils.models import clip, load_backbone, load_judge, precision

Flags = Callable[[], tuple[bool, bool]]


@pytest.fixture
def tf32() -> Iterator[Flags]:
    """Give a function that returns whether products and convolutions may take TF32."""
    parts = torch.backends.cuda.matmul, torch.backends.cudnn
    with precision.full_float32():
        yield lambda: (parts[0].allow_tf32, parts[1].allow_tf32)


@pytest.mark.parametrize(("dtype", "allowed"), [("float16", True), ("float32", False)])
def test_only_beside_a_half_precise_u_net_products_may_be_as_coarse(
    dtype: str,
    allowed: bool,
    tf32: Flags,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(precision, "_try_precision", lambda *_: None)
    precision.place(ModelConfig(backbone="sd14", device="cuda", dtype=dtype))
    assert tf32() == (allowed, allowed)


def test_what_scores_keeps_all_digits(
    tf32: Flags, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision._allow_tf32(allowed=True)
    seen = []

    def embed(*_: object) -> torch.Tensor:
        seen.append(tf32())
        return torch.zeros(1, 2)

    monkeypatch.setattr(clip.ClipEncoder, "image_embed", embed)
    monkeypatch.setattr(clip.ClipEncoder, "text_embed", embed)
    judge = load_judge(kind="tiny")
    judge.image_embed(torch.zeros(1, 3, 64, 64))
    judge.text_embed([""])
    assert seen == [(False, False)] * 2
    assert tf32() == (True, True)


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))),
    reason="torch.compile needs a C++ compiler",
)


@needs_compiler
@pytest.mark.timeout(600)
def test_a_compiled_u_net_makes_equal_images_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = load_backbone(ModelConfig(backbone="tiny"))
    # traced and differentiated as on a GPU, without the minutes of its code generator
    quick = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", quick)
    quickened = load_backbone(ModelConfig(backbone="tiny", compile=True))
    draw = torch.Generator().manual_seed(3)
    c = torch.randn(2, plain.n_tokens, plain.text_dim, generator=draw)
    z = torch.randn(2, *plain.latent_shape, generator=draw)
    found = []
    for backbone in (plain, quickened):
        x = z.clone().requires_grad_()
        images = backbone.decode_latents(backbone.unet(x, 300, c))
        found.append((images, *torch.autograd.grad(images.square().mean(), x)))
    for one, other in zip(*found, strict=True):
        # float32 sums in another order; seen: 0 here, 1e-6 through its code generator
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert quickened._unet is not plain._unet


def test_compiling_without_a_compiler_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ModelError, match=r"needs a C\+\+ compiler") as error:
        load_backbone(ModelConfig(backbone="tiny", compile=True))
    assert "set models.compile to false" in str(error.value)
