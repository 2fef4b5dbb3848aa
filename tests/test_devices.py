"""Every path that meets a network runs on a device that is not the CPU.

No GPU is needed: the networks, in their real architecture and size, are on torch's
device meta (`tests.meta_device`), which refuses what CUDA would refuse. That is a CPU
tensor that meets a network's, and a half-precision one that meets a float32 one.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiff_utils import features
from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run, fix_threads, start
from minddiff_utils.evaluation import subject_scores
from minddiff_utils.evaluation.metrics import networks
from minddiff_utils.evaluation.metrics.registry import EMBEDDERS
from minddiff_utils.generation import SubjectFeatures
from minddiff_utils.generation.decoded_features import DecodedFeatures
from minddiff_utils.generation.generate import align_batch
from minddiff_utils.generation.presets import engine_settings
from minddiff_utils.models import Backbone
from minddiff_utils.pipeline import warm_kernels
from minddiff_utils.studies import stage2_engines as study
from minddiff_utils.studies.stage2_arms import arms_of
from tests.meta_device import META, Elsewhere, real_backbone, real_judge
from tests.small_subject import LAYERS, ONE_STEP, given, made

IDS = np.array([907, 12])
#: What is asked is where tensors are, not what they hold.
SHORT: dict[str, Any] = ONE_STEP | {
    "data.n_reconstruct": 2,
    "stage2.n_trajectory": 1,
    "ablation.n_images": 2,
    "study.n_images": 2,
    "study.n_images_pilot": 2,
}


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def backbone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Backbone:
    dtype = getattr(torch, request.param)
    return real_backbone(dtype, tmp_path_factory.mktemp("words"))


@pytest.fixture
def elsewhere(backbone: Backbone) -> Iterator[Elsewhere]:
    """Watch every operation of a test; layers of networks must have been among them."""
    with Elsewhere() as mode:
        yield mode
    assert mode.layers, "no network computed: the test would hold whatever happens"
    # beside the networks' own: images are resized in float64
    own = {torch.float32, backbone._unet.dtype}
    assert mode.precisions - {torch.float64} <= own


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Run:
    """Give a run of the preset that the test asks for."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    preset = {"stage2.preset": getattr(request, "param", "released")}
    return start("smoke", subject=1, overrides=SHORT | preset)


@pytest.fixture
def decoded(run: Run, backbone: Backbone, elsewhere: Elsewhere) -> DecodedFeatures:
    """Write decoded features in the real sizes, and read them to the device."""
    del elsewhere  # watches the reading too
    rng = stream(0, "tests", "devices")
    widths = {
        "c": backbone.n_tokens * backbone.text_dim,
        "z": int(np.prod(backbone.latent_shape)),
        **{f"clip/{k}": backbone.layer_widths[k - 1] for k in LAYERS},
    }
    arrays: dict[str, Any] = {"nsd_id": IDS}
    for name, width in widths.items():
        for kind in ("decoded", "true"):
            values = rng.normal(size=(len(IDS), width))
            arrays[f"{name}/{kind}"] = values.astype(np.float32)
        arrays[f"{name}/scale"] = np.ones(width, np.float32)
        arrays[f"{name}/selected"] = rng.random(width) < 0.5
        arrays[f"{name}/mean"] = np.zeros(width, np.float32)
    arrays["c/posterior"] = arrays["c/decoded"]
    folder = run.tree.derived(1)
    for name in ("decoded.h5", "decoded_validation.h5"):
        store.write_arrays(folder / name, arrays, run=run)
    return SubjectFeatures(run, backbone, n=2).of("decoded")


def photographs(n: int = 2) -> Any:
    rng = stream(0, "tests", "photographs")
    return rng.integers(0, 256, (n, 512, 512, 3)).astype(np.uint8)


# --- what is seen to fail -------------------------------------------------------------


def test_a_tensor_of_the_cpu_that_meets_a_network_is_refused(
    backbone: Backbone,
) -> None:
    vision = backbone._clip.model.visual
    with Elsewhere(), torch.no_grad():
        with pytest.raises(AssertionError, match="two devices"):
            vision(torch.zeros(1, 3, 224, 224))
        with pytest.raises(AssertionError, match="two devices"):
            torch.where(
                torch.ones(2, dtype=torch.bool), *torch.zeros(2, 2, device=META)
            )
        with pytest.raises(AssertionError, match=r"tensors of .*float"):
            vision(torch.zeros(1, 3, 224, 224, device=META, dtype=torch.bfloat16))


# --- notebook 02 ----------------------------------------------------------------------


@pytest.mark.usefixtures("elsewhere")
def test_features_are_extracted_on_the_models_device(backbone: Backbone) -> None:
    captions = np.array([["a cat", "a dog"]] * 2)
    found = features.extract_features(
        backbone, photographs(), captions, LAYERS, batch_size=2
    )
    assert {k: v.shape for k, v in found.by_name().items()} == {
        "c": (2, 15 * 768),
        "z": (2, 4 * 64 * 64),
        "clip/1": (2, 50 * 768),
        "clip/2": (2, 50 * 768),
    }


@torch.no_grad()
@pytest.mark.usefixtures("elsewhere")
def test_every_door_of_the_models_takes_what_the_cpu_holds(backbone: Backbone) -> None:
    x = torch.zeros(2, 3, 512, 512, dtype=torch.float64)
    z = backbone.encode_images(x)
    c = backbone.encode_text(["a cat", "a dog"])
    layers = backbone.clip_layers(x, LAYERS)
    seen, read = backbone.clip_image_embed(x), backbone.clip_text_embed(["a cat"])
    out = backbone.unet(z, 500, c)
    image = backbone.decode_latents(z)
    for values in (z, c, *layers.values(), seen, read, out, image):
        assert (values.device, values.dtype) == (META, torch.float32)
    judge = real_judge()
    for values in (judge.image_embed(x), judge.text_embed(["a cat"])):
        assert (values.device, values.dtype) == (META, torch.float32)


# --- notebooks 03 and 04 --------------------------------------------------------------


def test_stage_1_and_its_parts_run_on_the_models_device(
    run: Run, backbone: Backbone, decoded: DecodedFeatures
) -> None:
    features, rows = given(run, backbone, decoded), by_name()
    for name in ("stage1", "c_only", "z_only", "none", "z_null", "autoencoder"):
        (found,) = made(features, rows[name]).values()
        assert found.images.shape == (2, 512, 512, 3)


@pytest.mark.parametrize("run", ["paper", "released", "bayes"], indirect=True)
def test_stage_2_runs_on_the_models_device(
    run: Run, backbone: Backbone, decoded: DecodedFeatures
) -> None:
    (found,) = made(given(run, backbone, decoded), by_name()["stage2"]).values()
    assert found.images.shape == (2, 512, 512, 3)
    assert found.stacked("losses").dtype == np.float32


@pytest.mark.parametrize("backbone", ["float16"], indirect=True)
@pytest.mark.parametrize("name", ["paper", "bayes"])
def test_a_gradient_that_computes_twice_stays_on_the_models_device(
    run: Run, backbone: Backbone, decoded: DecodedFeatures, name: Any
) -> None:
    config = run.profile.stage2.using(name)
    settings = engine_settings(config)
    models = run.profile.models.model_copy(update={"memory": "checkpoint"})
    run = replace(run, profile=run.profile.model_copy(update={"models": models}))
    result = align_batch(run, backbone, decoded, settings, run.profile.stage1)
    assert (result.images.device, result.images.dtype) == (META, torch.float32)
    assert result.n_unet_gradients.sum() > 0


def test_the_images_of_other_systems_are_made_on_the_models_device(
    run: Run, backbone: Backbone, decoded: DecodedFeatures
) -> None:
    rng = stream(0, "tests", "systems")
    systems = {"nsd_id": IDS, "pixel_ridge": rng.random((2, 3 * 8 * 8))}
    for system in (
        *("takagi", "takagi_minddiffuser"),
        *("permuted_voxels", "category_only"),
    ):
        for name, like in (("c", decoded.c), ("z", decoded.z)):
            values = rng.normal(size=(2, like[0].numel()))
            systems[f"{system}/{name}"] = values.astype(np.float32)
    r_cv = {f"clip/{k}/r_cv": rng.random(backbone.layer_widths[k - 1]) for k in LAYERS}
    for name, arrays in (("decoded_systems", systems), ("decoders", r_cv)):
        store.write_arrays(run.tree.derived(1) / f"{name}.h5", arrays, run=run)
    features, rows = given(run, backbone, decoded), by_name()
    wanted = [row for row in rows.values() if row.c == "own" or row.z == "pixels"]
    for found in made(features, *wanted).values():
        assert found.images.shape == (2, 512, 512, 3)
    few = features.of_condition(replace(rows["stage2_guided"], k_percent=25.0))
    assert few.target.selected[1].device == META


# --- notebook 05 and the study --------------------------------------------------------


@pytest.mark.usefixtures("elsewhere")
def test_the_scoring_of_notebook_05_looks_on_the_models_device(
    backbone: Backbone,
) -> None:
    images = photographs()
    assert subject_scores.embed_with(backbone, 2)(images).shape == (2, 512)
    assert subject_scores.embed_with(real_judge(), 2)(images).shape == (2, 1024)


def test_the_networks_of_the_metrics_look_on_the_models_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[torch.device] = []

    def part(_path: Path, embedder: Any, device: torch.device) -> Any:
        whole = networks._on_meta(embedder.network)
        cut = networks._ARCHITECTURES[embedder.network][1](whole, embedder.layer)
        placed.append(device)
        return cut[0].to(device).eval().requires_grad_(False)

    monkeypatch.setattr(networks, "_load_part", part)
    monkeypatch.setattr(networks, "_check_weights", lambda *_: None)
    (tmp_path / "perception").mkdir()
    for embedder in EMBEDDERS.values():
        path = tmp_path / "perception" / f"{embedder.weights.file}.safetensors"
        path.touch()
    seen = networks.load_networks(tmp_path, device="meta")
    with Elsewhere() as mode:
        for name, look in seen.embedders.items():
            if EMBEDDERS[name].network != "lite0":
                assert len(look(photographs())) == 2, name
    assert mode.layers > 500
    assert set(placed) == {META}


def test_what_looks_at_the_images_goes_to_the_profile_s_device(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def judge(_root: Path, *, kind: str, device: str) -> None:
        asked["judge"] = kind, device
        raise InterruptedError

    on_gpu = start("smoke", subject=1, overrides={"models.device": "cuda"})
    for module, look in (
        (subject_scores, lambda: subject_scores.load_models(on_gpu)),
        (study, lambda: study.run_subject(on_gpu, "confirmation", print)),
    ):
        monkeypatch.setattr(module, "load_backbone", lambda *_: None)
        monkeypatch.setattr(module, "load_judge", judge)
        monkeypatch.setattr(store, "read_arrays", lambda *_: {})
        asked.clear()
        with pytest.raises(InterruptedError):
            look()
        assert asked == {"judge": (run.profile.models.backbone, "cuda")}


def test_the_arms_of_the_study_are_made_and_scored_on_the_models_device(
    run: Run, backbone: Backbone, decoded: DecodedFeatures
) -> None:
    del decoded  # is read from its file
    folder = run.tree.derived(1)
    captions = np.array([["a cat outside"]] * len(IDS))
    stimuli = {"images": photographs(), "nsd_id": IDS, "captions": captions}
    store.write_arrays(folder / "stimuli.h5", stimuli, run=run)
    arms = {arm.name: arm for arm in arms_of(run.profile, "confirmation")}
    rows = arms["stage1"], replace(arms["best_of_n"], n_draws=2)
    for name in ("decoded_validation.h5", "decoded.h5"):
        features = SubjectFeatures(run, backbone, decoded=name, n=2)
        arrays = list(made(features, *rows).values())
        scores = study.score_arms(features, real_judge(), arrays)
        assert set(scores["method"]) == {row.name for row in rows}
        assert {"structural_loss", "clip_judge"} <= set(scores["metric"])


@pytest.mark.parametrize("name", ["smoke", "demo", "nsd"])
def test_every_kind_of_models_computes_the_same_bits_each_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, threads = "CUBLAS_WORKSPACE_CONFIG", torch.get_num_threads()
    monkeypatch.setenv(variable, ":0:0")
    torch.use_deterministic_algorithms(mode=False)
    try:
        # models.device decides, not the kind of models
        given = {"models.device": "cuda", "models.n_threads": threads + 1}
        run = start(name, overrides=given)
        assert torch.get_num_threads() == threads + 1
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ[variable] == ":0:0"  # there is no GPU: nothing to set
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        fix_threads(run)
        assert os.environ[variable] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(mode=True)
        torch.set_num_threads(threads)
    monkeypatch.delenv(variable)
    with warm_kernels.environment({}):
        assert os.environ[variable] == ":4096:8"
    assert variable not in os.environ
    monkeypatch.setenv(variable, ":0:0")
