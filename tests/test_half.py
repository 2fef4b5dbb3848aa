"""Half precision: gradients keep their direction, whatever the scale of the loss.

The demo's trained U-Net in float16 on the CPU against the same one in float32.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from minddiff_utils.alignment import AlignmentSettings, Latent
from minddiff_utils.alignment.engine import make_engine
from minddiff_utils.alignment.progress import Variables
from minddiff_utils.backbone import Backbone, half, load_backbone
from minddiff_utils.config import ModelConfig, load_profile
from minddiff_utils.critic import StructuralTarget, layer_weights
from minddiff_utils.diffusion import DiffusionSettings, draw_noise, make_schedule
from minddiff_utils.guidance import GuidanceSettings, _estimate, _Pull
from minddiff_utils.reconstruction import diffusion_settings
from minddiff_utils.rng import torch_stream

N = 2
FACTORS = (1e-4, 1e4)


@pytest.fixture(scope="module")
def pair() -> dict[str, Backbone]:
    return {
        name: load_backbone(ModelConfig(backbone="demo", dtype=name))
        for name in ("float32", "float16")
    }


@pytest.fixture(scope="module")
def sampler() -> DiffusionSettings:
    # half of the demo's steps: float16 is slow on a CPU
    return replace(diffusion_settings(load_profile("demo").stage1), decode_steps=4)


@pytest.fixture(scope="module")
def start(pair: dict[str, Backbone]) -> tuple[Latent, StructuralTarget]:
    backbone = pair["float32"]
    streams = [torch_stream(0, "tests", "half", k) for k in range(2 * N)]
    z, noise = draw_noise(backbone, streams).chunk(2)
    c = backbone.encode_text(["a red bus on a street", "a dog at the beach"])
    with torch.no_grad():
        seen = backbone.clip_layers(backbone.decode_latents(z.flip(0)), (1, 2))
    masks = {k: torch.ones(v.shape[1], dtype=torch.bool) for k, v in seen.items()}
    scale = {k: torch.ones(v.shape[1]) for k, v in seen.items()}
    return Latent(z, c, noise), StructuralTarget(seen, masks, scale)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.cosine_similarity(a.flatten(1).double(), b.flatten(1).double())


def _aligned(
    backbone: Backbone,
    start: Any,
    sampler: Any,
    critic: Any,
    factor: float,
    memory: Any,
) -> dict[str, Tensor]:
    latent, target = start
    settings = AlignmentSettings(
        n_iter=1, lr_z=0.1, lr_c=0.1, critic=critic, memory=memory
    )
    engine = make_engine(backbone, target, sampler, settings)
    weights = {k: factor * w for k, w in engine.weights.items()}
    engine = replace(engine, weights=weights)
    moving = Variables(latent, settings)
    rows = torch.arange(N)
    now = Latent(moving.z[rows], moving.c[rows], latent.noise)
    loss = engine.loss_of(engine.imagine(now), rows)
    moving.move(loss.sum(), loss, rows >= 0)
    found = {name: leaf.grad for name, leaf, _ in moving.moving}
    return {name: g / factor for name, g in found.items() if g is not None}


@pytest.mark.parametrize("critic", ["paper", "balanced"])
def test_the_gradients_of_algorithm_1_keep_their_direction_in_float16(
    pair: dict[str, Backbone], start: Any, sampler: DiffusionSettings, critic: Any
) -> None:
    wanted = _aligned(pair["float32"], start, sampler, critic, 1.0, "store")
    for factor in FACTORS:
        found = _aligned(pair["float16"], start, sampler, critic, factor, "store")
        for name in ("z", "c"):
            cosine = _cosine(found[name], wanted[name])
            assert cosine.min() > 0.99, (name, factor, cosine)
            # and their size: it is what a plain gradient step moves by
            ratio = found[name].flatten(1).norm(dim=1) / wanted[name].flatten(1).norm(
                dim=1
            )
            assert ((ratio - 1).abs() < 0.1).all(), (name, factor, ratio)


def test_a_gradient_that_computes_twice_is_the_same_in_float16(
    pair: dict[str, Backbone], start: Any, sampler: DiffusionSettings
) -> None:
    few = replace(sampler, decode_steps=1)
    found = [
        _aligned(pair["float16"], start, few, "paper", 1e4, memory)
        for memory in ("store", "checkpoint")
    ]
    for name in ("z", "c"):
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=0)


def _steep(power: int) -> Callable[[Tensor], Tensor]:
    """Return a function in float16 whose derivative is 2 ** (4 power) in its rows."""

    def network(x: Tensor) -> Tensor:
        y = x.half()
        for _ in range(4):
            y = y * torch.tensor(2.0**power, dtype=torch.float16)
        return y.float()

    return network


@pytest.mark.parametrize("power", [-8, -4, 0, 4, 5])
def test_a_gradient_out_of_range_is_tried_again_at_another_scale(
    power: int, caplog: pytest.LogCaptureFixture
) -> None:
    x = torch.full((2, 3), 1e-6).requires_grad_()
    gradient = torch.tensor([[3.0, -1.0, 2.0], [3e9, -1e9, 2e9]])
    half.from_float32(_steep(power), x).backward(gradient)
    # powers of 2 alone; at the edge of the range a number has 8 bits, not 11
    torch.testing.assert_close(x.grad, gradient * 2.0 ** (4 * power), rtol=1e-2, atol=0)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("network", "word"),
    [(lambda x: x.half().float() * 0, "is 0"), (torch.sqrt, "is no finite number")],
)
def test_a_gradient_that_no_scale_can_save_is_said(
    network: Callable[[Tensor], Tensor], word: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = torch.zeros(2, 3).requires_grad_()
    half.from_float32(network, x).sum().backward()
    (said,) = caplog.messages
    assert f"2 of 2 images {word} in float16" in said
    assert "set models.dtype to float32" in said


def test_an_image_without_a_number_takes_no_other_s_gradient_away() -> None:
    x = torch.ones(2, 3).requires_grad_()
    gradient = torch.tensor([[torch.nan] * 3, [2.0**30] * 3])
    half.from_float32(lambda x: x.half().float() * 2, x).backward(gradient)
    assert x.grad is not None
    assert x.grad[1].tolist() == [2.0**31] * 3


@pytest.mark.parametrize("critic", ["paper", "balanced"])
def test_the_pull_of_guidance_keeps_its_direction_in_float16(
    pair: dict[str, Backbone], start: Any, sampler: DiffusionSettings, critic: Any
) -> None:
    latent, target = start
    step = 1

    def pulled(name: str, factor: float) -> Tensor:
        backbone = pair[name]
        schedule = make_schedule(backbone, sampler)
        weights = {k: factor * w for k, w in layer_weights(target, critic).items()}
        settings = GuidanceSettings(form="unet", critic=critic)
        missed = torch.zeros(N, dtype=torch.int64)
        pull = _Pull(backbone, target, weights, settings, missed)
        a = schedule.abar[step]
        x = (a**0.5 * latent.z + (1 - a) ** 0.5 * latent.noise).requires_grad_()
        clean, _ = _estimate(pull, schedule, latent, step, x)
        value, _ = pull.loss(clean)
        found = pull.direction(value, x)
        assert not missed.any()
        return found

    wanted = pulled("float32", 1.0)
    for factor in FACTORS:
        cosine = _cosine(pulled("float16", factor), wanted)
        assert cosine.min() > 0.99, (factor, cosine)
