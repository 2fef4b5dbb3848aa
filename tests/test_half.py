"""Half precision: gradients keep their direction, whatever the scale of the loss.

The demo's trained U-Net in float16 on the CPU against the same one in float32.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.errors import DataError, StoreError
from minddiff_utils.core.profile import ModelConfig, Stage1Config
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.rng import torch_stream
from minddiff_utils.core.run import Run
from minddiff_utils.core.run import start as start_run
from minddiff_utils.evaluation import images as evaluation_images
from minddiff_utils.evaluation.metrics import ConditionImages
from minddiff_utils.generation import write_results, zero_iterations_equal
from minddiff_utils.generation.alignment import Latent
from minddiff_utils.generation.alignment_state import Variables, make_objective
from minddiff_utils.generation.decoded_features import DecodedFeatures
from minddiff_utils.generation.guided_sampling import _Pull
from minddiff_utils.generation.presets import AlignmentSettings, GuidanceSettings
from minddiff_utils.generation.sampler import (
    _predict,
    clean_and_noise,
    draw_noise,
    make_schedule,
)
from minddiff_utils.generation.structural_loss import (
    StructuralLoss,
    StructuralTarget,
    layer_weights,
)
from minddiff_utils.models import Backbone, load_backbone, precision, tiny_backbone
from minddiff_utils.pipeline import commands
from minddiff_utils.studies.stage2_arms import arms_of
from tests.small_subject import LAYERS, ONE_STEP, given, made

N = 2
FACTORS = (1e-4, 1e4)


@pytest.fixture(scope="module")
def pair() -> dict[str, Backbone]:
    return {
        name: load_backbone(ModelConfig(backbone="demo", dtype=name))
        for name in ("float32", "float16")
    }


@pytest.fixture(scope="module")
def sampler() -> Stage1Config:
    # half of the demo's steps: float16 is slow on a CPU
    return load_profile("demo").stage1.model_copy(update={"decode_steps": 4})


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
    kind: Any,
    factor: float,
    memory: Any,
) -> dict[str, Tensor]:
    latent, target = start
    settings = AlignmentSettings(n_iter=1, lr_z=0.1, lr_c=0.1, loss=kind, memory=memory)
    engine = make_objective(backbone, target, sampler, settings)
    weights = {k: factor * w for k, w in engine.loss.weights.items()}
    engine = replace(engine, loss=replace(engine.loss, weights=weights))
    moving = Variables(latent, settings)
    rows = torch.arange(N)
    now = Latent(moving.z[rows], moving.c[rows], latent.noise)
    loss = engine.loss_of(engine.imagine(now), rows)
    moving.move(loss, rows >= 0)
    found = {name: leaf.grad for name, leaf, _ in moving.moving}
    return {name: g / factor for name, g in found.items() if g is not None}


@pytest.mark.parametrize("kind", ["paper", "balanced"])
def test_the_gradients_of_algorithm_1_keep_their_direction_in_float16(
    pair: dict[str, Backbone], start: Any, sampler: Stage1Config, kind: Any
) -> None:
    wanted = _aligned(pair["float32"], start, sampler, kind, 1.0, "store")
    for factor in FACTORS:
        found = _aligned(pair["float16"], start, sampler, kind, factor, "store")
        for name in ("z", "c"):
            cosine = _cosine(found[name], wanted[name])
            assert cosine.min() > 0.99, (name, factor, cosine)
            # and their size: it is what a plain gradient step moves by
            ratio = found[name].flatten(1).norm(dim=1) / wanted[name].flatten(1).norm(
                dim=1
            )
            assert ((ratio - 1).abs() < 0.1).all(), (name, factor, ratio)


def test_a_gradient_that_computes_twice_is_the_same_in_float16(
    pair: dict[str, Backbone], start: Any, sampler: Stage1Config
) -> None:
    few = sampler.model_copy(update={"decode_steps": 1})
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
    precision.from_float32(_steep(power), x).backward(gradient)
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
    precision.from_float32(network, x).sum().backward()
    (said,) = caplog.messages
    assert f"2 of 2 images {word} in float16" in said
    assert "set models.dtype to float32" in said


def test_an_image_without_a_number_takes_no_other_s_gradient_away() -> None:
    x = torch.ones(2, 3).requires_grad_()
    gradient = torch.tensor([[torch.nan] * 3, [2.0**30] * 3])
    precision.from_float32(lambda x: x.half().float() * 2, x).backward(gradient)
    assert x.grad is not None
    assert x.grad[1].tolist() == [2.0**31] * 3


@pytest.mark.parametrize("kind", ["paper", "balanced"])
def test_the_pull_of_guidance_keeps_its_direction_in_float16(
    pair: dict[str, Backbone], start: Any, sampler: Stage1Config, kind: Any
) -> None:
    latent, target = start
    step = 1

    def pulled(name: str, factor: float) -> Tensor:
        backbone = pair[name]
        schedule = make_schedule(backbone, sampler)
        weights = {k: factor * w for k, w in layer_weights(target, kind).items()}
        settings = GuidanceSettings(loss=kind)
        missed = torch.zeros(N, dtype=torch.int64)
        loss = StructuralLoss(target, kind, weights)
        pull = _Pull(backbone, schedule, loss, settings, missed)
        a = schedule.abar[step]
        x = (a**0.5 * latent.z + (1 - a) ** 0.5 * latent.noise).requires_grad_()
        null = backbone.null_text()
        out = _predict(backbone, schedule, null, x, step, latent.c)
        clean, _ = clean_and_noise(schedule, step, x, out)
        found = pull._direction(pull._see(clean), x)
        assert not missed.any()
        return found

    wanted = pulled("float32", 1.0)
    for factor in FACTORS:
        cosine = _cosine(pulled("float16", factor), wanted)
        assert cosine.min() > 0.99, (factor, cosine)


# --- images that half precision cannot make -------------------------------------------


IDS = np.array([907, 12, 88])


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Run:
    """Give a run in half precision, of the preset that the test asks for."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    small = ONE_STEP | {
        "stage2.preset": getattr(request, "param", "released"),
        "models.backbone": "tiny",
        "models.dtype": "float16",
    }
    return start_run("smoke", subject=1, overrides=small)


@pytest.fixture
def weak() -> Backbone:
    """A U-Net in float16 that loses its numbers for the image of the largest c."""
    backbone = tiny_backbone()
    backbone._unet.half()

    def lose(_unet: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        lost = inputs[2].abs().amax((1, 2)) > 50
        output.sample = torch.where(lost[:, None, None, None], torch.nan, output.sample)

    backbone._unet.register_forward_hook(lose)
    return backbone


@pytest.fixture
def decoded(weak: Backbone) -> DecodedFeatures:
    rng = torch_stream(0, "tests", "unfinished")
    c = torch.randn(3, weak.n_tokens, weak.text_dim, generator=rng)
    c[1] *= 100
    width = weak.layer_widths[0]
    target = StructuralTarget(
        {k: torch.randn(3, width, generator=rng) for k in LAYERS},
        {k: torch.ones(width, dtype=torch.bool) for k in LAYERS},
        {k: torch.ones(width) for k in LAYERS},
        {k: torch.zeros(width) for k in LAYERS},
    )
    z = torch.randn(3, *weak.latent_shape, generator=rng)
    return DecodedFeatures(IDS, z, c, target)


def test_an_image_without_a_number_is_named_in_stage_1_and_the_others_go_on(
    run: Run,
    weak: Backbone,
    decoded: DecodedFeatures,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stale = run.tree.stage_dir(1, "stage1") / "12.png"
    store.write_png(stale, np.zeros((64, 64, 3), np.uint8), run=run)
    for said in (1, 0):  # the second time all is read, and known without being said
        caplog.clear()
        features = given(run, weak, decoded)
        images = made(features, by_name()["stage1"])
        assert images["stage1"].finished.tolist() == [True, False, True]
        assert len(caplog.messages) == said
        assert all("image 12: " in m and "models.dtype" in m for m in caplog.messages)
    write_results(run, weak, features, images)
    folder = run.tree.stage_dir(1, "stage1")
    assert sorted(p.name for p in folder.glob("*.png")) == ["88.png", "907.png"]
    assert evaluation_images.unfinished(run.tree.derived(1)) == {12: ["stage1"]}
    # the table is known to lack it, another is missing
    found = evaluation_images.read_condition(folder, "stage1", IDS)
    assert found is not None
    assert found.nsd_id.tolist() == [907, 88]
    (folder / "88.png").unlink()
    with pytest.raises(StoreError, match="holds 1 of 3 images"):
        evaluation_images.read_condition(folder, "stage1", IDS)


@pytest.mark.parametrize("run", ["paper", "released"], indirect=True)
def test_an_image_without_a_number_is_named_in_stage_2_and_the_others_go_on(
    run: Run,
    weak: Backbone,
    decoded: DecodedFeatures,
    caplog: pytest.LogCaptureFixture,
) -> None:
    features, rows = given(run, weak, decoded), by_name()
    write_results(run, weak, features, made(features, rows["stage1"]))
    aligned = made(features, rows["stage2"])
    assert aligned["stage2"].finished.tolist() == [True, False, True]
    assert any("image 12: the U-Net in float16" in m for m in caplog.messages)
    assert not any("image 907" in m or "image 88" in m for m in caplog.messages)
    table = write_results(run, weak, features, aligned).tables["stage2.csv"]
    assert table["finished"].tolist() == [True, False, True]
    assert table["loss_best"].isna().tolist() == [False, True, False]
    # without its neighbour an image is the same
    alone = made(given(run, weak, decoded.rows([2])), rows["stage2"])["stage2"]
    np.testing.assert_array_equal(alone.images[0], aligned["stage2"].images[2])
    still = zero_iterations_equal(run, weak, features)
    assert still["nsd_id"].tolist() == [907]
    assert still["equal"].all()


@pytest.mark.parametrize("name", ["stage1", "best_of_n", "released"])
def test_an_image_without_a_number_is_named_in_an_arm_of_the_study(
    run: Run,
    weak: Backbone,
    decoded: DecodedFeatures,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arms = {arm.name: arm for arm in arms_of(run.profile, "confirmation")}
    found = made(given(run, weak, decoded), arms[name])[name]
    assert found.nsd_id[found.finished].tolist() == [907, 88]
    assert any("image 12: the U-Net in float16" in m for m in caplog.messages)


def test_a_number_that_float32_loses_is_an_error(
    run: Run, weak: Backbone, decoded: DecodedFeatures
) -> None:
    weak._unet.float()
    with pytest.raises(DataError, match="NaN"):
        made(given(run, weak, decoded), by_name()["stage1"])


def test_a_run_without_some_images_ends_by_naming_them(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame(
        {"method": ["stage1", "takagi"], "nsd_id": 12, "finished": [False, False]}
    )
    store.write_table(run.tree.derived(1) / "stage1.csv", table, run=run)
    profile = run.profile
    with pytest.raises(DataError) as error:
        commands._name_unfinished(profile, run.tree)
    assert "float16 gave no number for subject 1, image 12 (stage1, takagi)" in str(
        error.value
    )
    assert "models.dtype=float32" in str(error.value)
    table["finished"] = True
    store.write_table(run.tree.derived(1) / "stage1.csv", table, run=run)
    commands._name_unfinished(profile, run.tree)


def test_a_gallery_keeps_every_image_in_its_place() -> None:
    images = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1)
    some = ConditionImages("stage1", np.array([907, 88]), images)
    found = evaluation_images._in_place(some, np.array([907, 12, 88, 5]))
    assert found.ravel().tolist() == [0, 255, 1]
