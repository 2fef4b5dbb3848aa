"""Stage 2: the presets' steps, runs that go on, and images that stay apart."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from minddiff_utils import generation
from minddiff_utils.core import rng
from minddiff_utils.core.errors import ConfigError, DataError, ModelError
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import Preset, Stage1Config
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.generation import alignment
from minddiff_utils.generation.alignment import (
    AlignmentResult,
    Latent,
    align,
)
from minddiff_utils.generation.alignment_state import Best
from minddiff_utils.generation.decoded_features import DecodedFeatures
from minddiff_utils.generation.presets import AlignmentSettings, engine_settings
from minddiff_utils.generation.sampler import (
    Schedule,
    draw_noise,
    img2img,
    make_schedule,
    sample,
)
from minddiff_utils.generation.structural_loss import (
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.models import Backbone, tiny_backbone

DIFFUSION = Stage1Config(n_steps=3, encode_index=1, decode_steps=2, guidance_scale=2)
LAYERS = (1, 2)
State = Mapping[str, npt.NDArray[Any]]
#: Adam on both variables.
PLAIN = AlignmentSettings(n_iter=3, lr_z=0.05, lr_c=0.05, loss="balanced")
#: Networks sum in another order for another batch size: float32 rounding.
FLOAT32 = 1e-4


def _generators(n: int, start: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(start + row) for row in range(n)]


def _problem(
    n: int = 2, dtype: torch.dtype = torch.float32
) -> tuple[Backbone, Latent, StructuralTarget]:
    """Return random latents, and targets read from images of other latents."""
    backbone = tiny_backbone(dtype=dtype)
    rng = torch.Generator().manual_seed(11)
    z = torch.randn((n, *backbone.latent_shape), generator=rng).to(dtype)
    c = torch.randn((n, backbone.n_tokens, backbone.text_dim), generator=rng).to(dtype)
    latent = Latent(z, c, draw_noise(backbone, _generators(n)))
    other = torch.randn((n, *backbone.latent_shape), generator=rng).to(dtype)
    with torch.no_grad():
        seen = backbone.decode_latents(other).clamp(-1, 1)
        features = backbone.clip_layers(seen, LAYERS)
    width = features[1].shape[1]
    selected = {k: torch.rand(width, generator=rng) < 0.25 for k in LAYERS}
    scale = {k: 0.5 + torch.rand(width, generator=rng) for k in LAYERS}
    mean = {k: features[k].mean(0) - 1 for k in LAYERS}
    return backbone, latent, StructuralTarget(features, selected, scale, mean=mean)


def _rows(latent: Latent, target: StructuralTarget, rows: Sequence[int]) -> Any:
    index = list(rows)
    features = {k: v[index] for k, v in target.features.items()}
    parts = (x[index] for x in (latent.z, latent.c, latent.noise))
    return Latent(*parts), replace(target, features=features)


def _reachable(
    backbone: Backbone, latent: Latent, target: StructuralTarget, distance: float
) -> StructuralTarget:
    """Return the target of images whose z lies at a distance from the given one."""
    schedule = make_schedule(backbone, DIFFUSION)
    rng = torch.Generator().manual_seed(4)
    goal = latent.z + distance * torch.randn(latent.z.shape, generator=rng)
    with torch.no_grad():
        found = img2img(backbone, goal, latent.c, latent.noise, schedule)
        features = backbone.clip_layers(backbone.decode_latents(found), LAYERS)
    return replace(target, features=features)


def _check_equal(found: AlignmentResult, expected: AlignmentResult) -> None:
    """Check that all but the time is equal to the byte."""
    for field in fields(AlignmentResult):
        first, second = (getattr(each, field.name) for each in (found, expected))
        if isinstance(first, Tensor):
            assert torch.equal(first, second), field.name
        elif field.name != "seconds":
            np.testing.assert_array_equal(first, second, err_msg=field.name)


def _stage1(backbone: Backbone, latent: Latent) -> Tensor:
    schedule = make_schedule(backbone, DIFFUSION)
    return sample(backbone, latent.z, latent.c, latent.noise, schedule)


# --- stage 1 is where it starts -----------------------------------------------------


@pytest.mark.parametrize("noise", ["fixed", "fresh"])
def test_zero_iterations_are_stage_1_to_the_byte(noise: Any) -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, n_iter=0, noise=noise)
    generators = _generators(2)
    found = align(backbone, latent, target, DIFFUSION, settings, generators=generators)
    assert torch.equal(found.images, _stage1(backbone, latent))
    assert found.candidates == found.trajectory_iterations == (0,)
    assert found.losses.shape == (2, 1)
    assert found.best_iteration.tolist() == [0, 0]
    assert torch.equal(found.z, latent.z)
    assert torch.equal(found.c, latent.c)


def test_the_inputs_are_left_as_they_were() -> None:
    backbone, latent, target = _problem()
    before = [x.clone() for x in (latent.z, latent.c, latent.noise)]
    align(backbone, latent, target, DIFFUSION, PLAIN)
    for old, new in zip(before, (latent.z, latent.c, latent.noise), strict=True):
        assert torch.equal(old, new)
        assert not new.requires_grad


# --- presets ------------------------------------------------------------------------


def _preset(name: Preset, n_iter: int = 2) -> Any:
    return engine_settings(load_profile("smoke").stage2.using(name, n_iter=n_iter))


def test_presets_are_what_their_sources_say() -> None:
    paper, released = _preset("paper"), _preset("released")
    assert (paper.optimiser, paper.lr_z, paper.lr_c) == ("gradient", 0.01, 0.01)
    assert (paper.loss, paper.noise, paper.lr_decay) == ("paper", "fixed", 1.0)
    assert (released.optimiser, released.lr_z, released.lr_c) == ("adam", 0.01, 0.0)
    assert (released.loss, released.noise) == ("released", "fresh")
    assert released.lr_decay == 0.999


def _loss(
    backbone: Backbone,
    target: StructuralTarget,
    kind: Any,
    *parts: Tensor,
    schedule: Schedule | None = None,
) -> Tensor:
    schedule = schedule or make_schedule(backbone, DIFFUSION)
    images = backbone.decode_latents(img2img(backbone, *parts, schedule))
    weights = layer_weights(target, kind)
    return structural_loss(backbone.clip_layers(images, LAYERS), target, weights)


def test_paper_takes_plain_gradient_steps_on_z_and_c() -> None:
    backbone, latent, target = _problem()
    settings = replace(_preset("paper"), n_candidates=1)
    found = align(backbone, latent, target, DIFFUSION, settings)
    z, c = latent.z.clone(), latent.c.clone()
    for _ in range(2):
        z, c = z.requires_grad_(), c.requires_grad_()
        loss = _loss(backbone, target, "paper", z, c, latent.noise).sum()
        step_z, step_c = torch.autograd.grad(loss, (z, c))
        z, c = (z - 0.01 * step_z).detach(), (c - 0.01 * step_c).detach()
    assert found.best_iteration.tolist() == [2, 2]
    # repeated float32 sums in the same order
    torch.testing.assert_close(found.z, z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.c, c, rtol=1e-6, atol=1e-6)


def test_algorithm_1_in_the_open_of_notebook_04_is_the_loop_s_first_step() -> None:
    backbone, latent, target = _problem(1)
    profile = load_profile("smoke")
    run = SimpleNamespace(
        profile=profile, subject=1, torch_stream=partial(rng.torch_stream, profile.seed)
    )
    decoded = DecodedFeatures(np.array([73], np.int64), latent.z, latent.c, target)
    names: dict[str, Any] = {"run": run, "backbone": backbone, "decoded": decoded}
    names |= {name: getattr(generation, name) for name in generation.__all__}
    names["torch"] = torch
    notebook = project_root() / "notebooks" / "04_stage2.ipynb"
    cells = {c.id: c.source for c in nbformat.read(notebook, as_version=4).cells}
    for cell in ("one-start", "one-gradient", "one-blocks", "one-step"):
        exec(cells[cell], names)
    noise = draw_noise(backbone, [rng.torch_stream(profile.seed, "noise", 1, 73)])
    found = align(
        backbone,
        replace(latent, noise=noise),
        target,
        profile.stage1,
        _preset("paper", n_iter=1),
    )
    assert found.best_iteration.tolist() == [1]
    assert names["loss"].item() == found.losses[0, 0]
    assert names["loss_1"].item() == pytest.approx(found.losses[0, 1], rel=FLOAT32)
    assert sum(names["errors"].values()) == pytest.approx(found.losses[0, 0], rel=1e-5)
    torch.testing.assert_close(names["z_1"], found.z)
    torch.testing.assert_close(names["c_1"], found.c)


def test_released_takes_decayed_adam_steps_on_z_under_fresh_noise() -> None:
    backbone, latent, target = _problem()
    generators = _generators(2)
    noises = [draw_noise(backbone, generators) for _ in range(3)]
    assert torch.equal(noises[0], latent.noise)
    settings = replace(_preset("released", 3), n_candidates=1)
    generators = _generators(2)
    assert torch.equal(draw_noise(backbone, generators), latent.noise)
    found = align(backbone, latent, target, DIFFUSION, settings, generators=generators)
    # Adam (Kingma and Ba 2015, algorithm 1) written out; the rate decays before a step
    z, mean, square = latent.z.clone(), 0.0, 0.0
    for step in range(1, 4):
        z = z.requires_grad_()
        noise = noises[step - 1]
        loss = _loss(backbone, target, "released", z, latent.c, noise).sum()
        (slope,) = torch.autograd.grad(loss, z)
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        unbiased = (mean / (1 - 0.9**step), square / (1 - 0.999**step))
        rate = 0.01 * 0.999**step
        z = (z - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)).detach()
    assert found.best_iteration.tolist() == [3, 3]
    # gradients near Adam's 1e-8 magnify rounding, by far less than the step of 0.01
    torch.testing.assert_close(found.z, z, rtol=0, atol=1e-4)
    assert torch.equal(found.c, latent.c)


def _nudged(latent: Latent, part: str, shift: Tensor) -> list[Tensor]:
    moved = replace(latent, **{part: getattr(latent, part) + shift})
    return [moved.z, moved.c, moved.noise]


@pytest.mark.parametrize("part", ["z", "c"])
def test_a_plain_step_is_minus_eta_times_the_numerical_derivative(part: str) -> None:
    backbone, latent, target = _problem(dtype=torch.float64)
    settings = replace(_preset("paper", 1), n_candidates=1)
    found = align(backbone, latent, target, DIFFUSION, settings)
    assert found.best_iteration.tolist() == [1, 1]
    rng, start = torch.Generator().manual_seed(8), getattr(latent, part)
    way = torch.randn(start.shape, generator=rng).double()
    h = 1e-5
    with torch.no_grad():
        ahead, behind = (
            _loss(backbone, target, "paper", *_nudged(latent, part, shift * way))
            for shift in (h, -h)
        )
    slope = (ahead - behind) / (2 * h)
    moved = ((getattr(found, part) - start) * way).flatten(1).sum(1)
    # central differences: h² times the third derivative, and 1e-16 / h of rounding
    torch.testing.assert_close(moved, -0.01 * slope, rtol=1e-6, atol=1e-10)
    assert bool((slope.abs() > 1e-4).all())  # far above what rounding leaves


# --- what moves ---------------------------------------------------------------------


@pytest.mark.parametrize("still", ["z", "c"])
def test_a_step_size_of_0_leaves_its_variable_untouched(still: str) -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, **{f"lr_{still}": 0.0}, n_candidates=1)
    found = align(backbone, latent, target, DIFFUSION, settings)
    assert (found.best_iteration == 3).all()
    moving = "c" if still == "z" else "z"
    assert torch.equal(getattr(found, still), getattr(latent, still))
    assert not torch.equal(getattr(found, moving), getattr(latent, moving))


def test_two_step_sizes_of_0_give_stage_1() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, lr_z=0.0, lr_c=0.0)
    found = align(backbone, latent, target, DIFFUSION, settings)
    assert torch.equal(found.images, _stage1(backbone, latent))
    assert np.ptp(found.losses, axis=1).max() == 0
    assert found.best_iteration.tolist() == [0, 0]  # ties go to the earlier one


@pytest.mark.parametrize("optimiser", ["gradient", "adam"])
def test_the_loss_falls_where_the_target_can_be_reached(optimiser: Any) -> None:
    backbone, latent, target = _problem()
    reachable = _reachable(backbone, latent, target, 0.3)
    rate = 100.0 if optimiser == "gradient" else 0.05
    settings = replace(PLAIN, n_iter=15, lr_z=rate, lr_c=0.0, optimiser=optimiser)
    losses = align(backbone, latent, reachable, DIFFUSION, settings).losses
    assert (losses[:, -1] < 0.5 * losses[:, 0]).all()


#: Two guided steps and two without guidance.
LONG = Stage1Config(
    n_steps=6, encode_index=3, decode_steps=4, guidance_scale=2, guided_share=0.5
)


def test_the_counted_passes_are_those_of_the_u_net(count_passes: Any) -> None:
    backbone, latent, target = _problem()
    passes = count_passes(backbone)
    settings = replace(PLAIN, n_iter=2, n_candidates=1)
    found = align(backbone, latent, target, LONG, settings)
    # 3 looks and 2 candidates of 2 guided and 2 unguided steps
    assert found.n_unet_evaluations.tolist() == [(3 + 2) * 6] * 2
    # 2 steps, each through 2 guided and 2 unguided ones
    assert found.n_unet_gradients.tolist() == [2 * 6] * 2
    assert passes.forward == found.n_unet_evaluations.sum()
    assert passes.backward == found.n_unet_gradients.sum()


# --- noise --------------------------------------------------------------------------


def test_fresh_noise_varies_the_loss_but_not_the_candidates() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, lr_z=0.0, lr_c=0.0, noise="fresh")
    found = [
        align(
            backbone, latent, target, DIFFUSION, settings, generators=_generators(2, s)
        )
        for s in (0, 0, 50)
    ]
    np.testing.assert_array_equal(found[0].losses, found[1].losses)
    np.testing.assert_array_equal(found[0].losses[:, 0], found[2].losses[:, 0])
    assert (np.abs(found[0].losses[:, 1:] - found[2].losses[:, 1:]) > 1e-6).all()
    assert (np.ptp(found[0].losses, axis=1) > 1e-6).all()
    # nothing moves, and candidates keep the noise of stage 1
    assert np.ptp(found[0].candidate_losses, axis=1).max() == 0


def test_fresh_noise_needs_a_generator_per_image() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, noise="fresh")
    with pytest.raises(DataError, match="1 were given for 2"):
        align(backbone, latent, target, DIFFUSION, settings, generators=_generators(1))


# --- images stay apart --------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "released"])
def test_images_of_a_batch_do_not_influence_each_other(name: str) -> None:
    backbone, latent, target = _problem(3)
    settings = replace(_preset(name, 3), n_candidates=1)
    generators = _generators(3, 7)
    whole = align(backbone, latent, target, DIFFUSION, settings, generators=generators)
    for row in range(3):
        one, own = _rows(latent, target, [row])
        alone = align(
            *(backbone, one, own, DIFFUSION, settings),
            generators=_generators(1, 7 + row),
        )
        # Adam magnifies rounding where gradients are near 0, hence 1e-3
        np.testing.assert_allclose(alone.losses[0], whole.losses[row], rtol=1e-3)
        np.testing.assert_allclose(
            alone.images[0], whole.images[row], atol=10 * FLOAT32
        )


# a single candidate comes after the last number, three come before and after it
@pytest.mark.parametrize("n_candidates", [3, 1])
def test_a_diverging_image_is_named_and_leaves_its_neighbour_alone(
    n_candidates: int, caplog: pytest.LogCaptureFixture
) -> None:
    backbone, latent, target = _problem(2)
    latent = replace(latent, names=("nsd 907", "nsd 12"))
    scaled = {k: v.clone() for k, v in target.features.items()}
    for features in scaled.values():
        features[0] = 2e18  # the sum of squared errors is beyond float32's reach
    spoiled = replace(target, features=scaled)
    settings = replace(PLAIN, loss="paper", optimiser="gradient", lr_z=0.01, lr_c=0.01)
    settings = replace(settings, n_candidates=n_candidates)
    with caplog.at_level(logging.WARNING):
        found = align(backbone, latent, spoiled, DIFFUSION, settings)
    (warning,) = caplog.messages
    assert "image nsd 907: the loss is no longer a number after iteration 0" in warning
    assert found.diverged.tolist() == [True, False]
    assert found.stopped.tolist() == [0, 3]
    clean = align(backbone, latent, target, DIFFUSION, settings)
    assert clean.diverged.tolist() == [False, False]
    assert np.isnan(found.losses[0, -1])
    assert found.best_iteration[0] == 0
    assert torch.equal(found.images[0], _stage1(backbone, latent)[0])
    # the neighbour is alone in the batch afterwards: other float32 rounding
    np.testing.assert_allclose(found.losses[1], clean.losses[1], rtol=1e-5)
    torch.testing.assert_close(found.images[1], clean.images[1], rtol=0, atol=FLOAT32)
    assert bool(found.trajectory.isfinite().all())  # gray, not NaN


# --- runs that are cut off ------------------------------------------------------------


class _CutError(Exception):
    """The power fails."""


class _States:
    """Keeps states in memory, fails at one of them, and gives back its first."""

    def __init__(self, first: State | None = None, fails_at: int | None = None) -> None:
        self.first, self.fails_at = first, fails_at
        self.kept: list[State] = []

    def read(self) -> State | None:
        return self.first

    def write(self, state: State) -> None:
        self.kept.append(state)
        if state["iteration"] == self.fails_at:
            raise _CutError

    def iterations(self) -> list[int]:
        return [int(state["iteration"]) for state in self.kept]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "KEEP_EVERY", 2)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", ["paper", "released"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(name: str) -> None:
    inputs, settings = (*_problem(), DIFFUSION), _preset(name, 5)

    def run(state: _States | None) -> AlignmentResult:
        generators = _generators(2)
        draw_noise(inputs[0], generators)  # stage 1 has drawn its noise before
        return align(*inputs, settings, generators=generators, state=state)

    whole = run(None)
    cut = _States(fails_at=4)
    with pytest.raises(_CutError):
        run(cut)
    assert cut.iterations() == [2, 4]
    # the run goes on from each of them, though it went on before it was cut
    for state in cut.kept:
        _check_equal(run(_States(state)), whole)
    others = _States()
    _check_equal(run(others), whole)
    assert others.iterations() == [2, 4]


# --- choice and bookkeeping ---------------------------------------------------------


def _best(*losses: Sequence[float]) -> Best:
    images = [
        torch.full((len(losses[0]), 3, 1, 1), float(k)) for k in range(len(losses))
    ]
    latents = [Latent(x.clone(), x.clone(), x) for x in images]
    best = Best(images[0], torch.tensor(losses[0]), latents[0])
    for k in range(1, len(losses)):
        best.consider(10 * k, images[k], torch.tensor(losses[k]), latents[k])
    return best


def test_the_lowest_loss_wins_and_the_earlier_one_on_a_tie() -> None:
    best = _best([3.0, 1.0, 2.0], [2.0, 1.0, 3.0], [2.0, 0.5, 2.0])
    assert best.iteration.tolist() == [10, 20, 0]
    assert best.images[:, 0, 0, 0].tolist() == [1.0, 2.0, 0.0]
    assert torch.equal(best.z, best.images)
    assert torch.equal(best.c, best.images)


def test_a_candidate_without_a_number_never_wins() -> None:
    nan = float("nan")
    best = _best([1.0, nan, nan], [nan, 5.0, nan], [2.0, nan, nan])
    assert best.iteration.tolist() == [0, 10, 0]


def test_candidates_and_trajectory_are_kept_as_documented() -> None:
    backbone, latent, target = _problem()
    settings = replace(PLAIN, n_iter=6, n_candidates=3, n_trajectory=4)
    found = align(backbone, latent, target, DIFFUSION, settings)
    assert found.candidates == found.trajectory_iterations == (0, 2, 4, 6)
    assert found.losses.shape == (2, 7)
    assert found.candidate_losses.shape == (2, 4)
    assert found.trajectory.shape == (2, 4, 3, 64, 64)
    column = found.candidate_losses.argmin(axis=1)
    assert found.best_iteration.tolist() == [found.candidates[k] for k in column]
    with torch.no_grad():
        seen = backbone.clip_layers(found.images, LAYERS)
        loss = structural_loss(seen, target, layer_weights(target, "balanced")).numpy()
    # the saved image has the loss that chose it
    np.testing.assert_allclose(loss, found.candidate_losses.min(axis=1), rtol=1e-5)
    # the first frame is stage 1
    torch.testing.assert_close(found.trajectory[:, 0], _stage1(backbone, latent))
    short = align(backbone, latent, target, DIFFUSION, replace(PLAIN, n_iter=1))
    assert short.candidates == short.trajectory_iterations == (0, 1)


# --- refusals -----------------------------------------------------------------------


class _NoGradient:
    """A backbone whose decoder runs without gradients, as the released sampler does."""

    def __init__(self, inner: Backbone) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @torch.no_grad()
    def decode_latents(self, z: Tensor) -> Tensor:
        return self.inner.decode_latents(z)


@pytest.mark.parametrize("name", ["paper", "released"])
def test_a_model_without_gradients_is_an_error(name: str) -> None:
    backbone, latent, target = _problem()
    blind = _NoGradient(backbone)
    with pytest.raises(ModelError, match="no gradient for z"):
        align(
            *(blind, latent, target, DIFFUSION, _preset(name)),
            generators=_generators(2),
        )


def test_moving_c_where_guidance_does_not_read_it_is_refused() -> None:
    backbone, latent, target = _problem()
    deaf = DIFFUSION.model_copy(update={"guidance_scale": 0.0})
    with pytest.raises(ConfigError, match="does not read c"):
        align(backbone, latent, target, deaf, PLAIN)


def test_targets_of_other_images_are_refused() -> None:
    backbone, latent, target = _problem()
    _, one = _rows(latent, target, [0])
    with pytest.raises(DataError, match="2 latents but targets of 1"):
        align(backbone, latent, one, DIFFUSION, PLAIN)
