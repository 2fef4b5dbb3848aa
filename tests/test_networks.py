"""Networks of the metrics see what published code shows them."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from minddiff_utils.core.errors import ConfigError, DataError, ModelError
from minddiff_utils.core.types import Images
from minddiff_utils.evaluation import metrics
from minddiff_utils.evaluation.metrics import networks
from minddiff_utils.evaluation.metrics.networks import load_networks, prepare
from minddiff_utils.evaluation.metrics.registry import EMBEDDERS, LITE0
from minddiff_utils.insilico.efficientnet_lite import INPUT_SIZE, load_network

# after the networks, which makes the import possible
from torchvision import models as tv  # isort: skip
from torchvision import transforms as T  # isort: skip

#: The same convolutions in another order of batches: float32.
FLOAT32: dict[str, float] = {"rtol": 1e-4, "atol": 1e-5}

#: Networks small enough to be built here: file, architecture with its classifier.
BUILDERS: Mapping[str, Callable[[], nn.Module]] = {
    "alexnet_imagenet1k_v1": lambda: tv.alexnet(weights=None),
    "inception_v3_imagenet1k_v1": lambda: tv.inception_v3(
        weights=None, init_weights=False, transform_input=True
    ),
    "efficientnet_b1_imagenet1k_v1": lambda: tv.efficientnet_b1(weights=None),
    "efficientnet_b1_imagenet1k_v2": lambda: tv.efficientnet_b1(weights=None),
    "swav_resnet50": lambda: tv.resnet50(weights=None),
}


def _images(rng: np.random.Generator, n: int = 2, side: int = 40) -> Images:
    return rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def _random(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with random weights and running statistics, each its own."""
    with torch.device("meta"):
        network = build()
    draw = torch.Generator().manual_seed(0)
    state = {}
    for key, value in network.state_dict().items():
        if not value.is_floating_point():
            state[key] = torch.ones(value.shape, dtype=value.dtype)
        elif key.endswith(("running_var", "running_mean")):
            state[key] = 0.5 + torch.rand(value.shape, generator=draw)
        else:
            spread = (2 / max(value[0].numel(), 1)) ** 0.5 if value.ndim > 1 else 0.5
            state[key] = torch.randn(value.shape, generator=draw) * spread
    network.load_state_dict(state, assign=True)
    return network.eval()


def _save(folder: Path, file: str, state: Mapping[str, Tensor]) -> Path:
    path = folder / "perception" / f"{file}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(dict(state), path)
    return path


def _state(network: nn.Module, *, drop: str = "nothing") -> dict[str, Tensor]:
    return {k: v for k, v in network.state_dict().items() if not k.startswith(drop)}


def _pooled(network: nn.Module, x: Tensor) -> Tensor:
    """Read the output of `avgpool` by a hook, as Brain-Diffuser does."""
    seen: list[Tensor] = []
    hook = network.avgpool.register_forward_hook(lambda *call: seen.append(call[2]))
    network(x)
    hook.remove()
    return seen[0].flatten(1)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """Give an AlexNet and the folder of models with its weights: 244 MB, made once."""
    network = _random(BUILDERS["alexnet_imagenet1k_v1"])
    folder = tmp_path_factory.mktemp("models")
    _save(folder, "alexnet_imagenet1k_v1", _state(network))
    return network, folder


# --- weights and layers ---------------------------------------------------------------


def test_alexnet_s_layers_are_torchvision_s(
    alexnet: tuple[Any, Path], rng: np.random.Generator
) -> None:
    network, folder = alexnet
    names = ["alexnet2", "alexnet5", "alexnet2_bd", "alexnet5_bd"]
    found = load_networks(folder, only=names)
    assert not found.absent
    images = _images(rng, 3)
    for name, layer, side in (
        ("alexnet2", 4, 31),
        ("alexnet5", 11, 15),
        ("alexnet2_bd", 4, 27),
        ("alexnet5_bd", 11, 13),
    ):
        rows = found.embedders[name](images)
        x = prepare(images, EMBEDDERS[name])
        with torch.no_grad():
            for module in list(network.features)[: layer + 1]:
                x = module(x)
        assert x.shape[1:] == (192 if layer == 4 else 256, side, side)
        assert (x >= 0).all()  # after the ReLU
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, x.flatten(1).numpy(), **FLOAT32)


@pytest.mark.parametrize(
    ("name", "n_features", "head"),
    [
        ("inception", 2048, "nothing"),
        ("effnet_b1_v1", 1280, "nothing"),
        ("effnet_b1_v2", 1280, "nothing"),
        ("swav", 2048, "fc."),
    ],
)
def test_pooled_features_are_those_of_torchvision_s_avgpool(
    name: str, n_features: int, head: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    embedder = EMBEDDERS[name]
    network = _random(BUILDERS[embedder.weights.file])
    _save(tmp_path, embedder.weights.file, _state(network, drop=head))
    images = _images(rng, 1)
    rows = load_networks(tmp_path, only=[name]).embedders[name](images)
    with torch.no_grad():
        expected = _pooled(network, prepare(images, embedder)).numpy()
    assert rows.shape == expected.shape == (1, n_features)
    assert expected.std() > 0
    scale = np.abs(expected).max()  # random weights have no unit of their own
    np.testing.assert_allclose(rows / scale, expected / scale, **FLOAT32)


def test_clip_s_keys_and_size_are_those_of_vit_l_14() -> None:
    shapes = networks.state_shapes("clip_l14")
    n_parameters = sum(int(np.prod(shape)) for shape in shapes.values())
    assert n_parameters == 427_616_513  # of OpenAI's ViT-L/14, both towers
    assert shapes["visual.proj"] == (1024, 768)
    assert shapes["visual.positional_embedding"] == (257, 1024)
    assert shapes["visual.conv1.weight"] == (1024, 3, 14, 14)


def test_clip_s_image_tower_has_quick_gelu_and_768_features(
    rng: np.random.Generator,
) -> None:
    whole = networks._on_meta("clip_l14")
    tower, prefix = networks._ARCHITECTURES["clip_l14"][1](whole, "")
    assert prefix == "visual."
    assert not list(tower.buffers())  # nothing that weights would leave on meta
    kinds = {type(module).__name__ for module in tower.modules()}
    assert "QuickGELU" in kinds
    assert "GELU" not in kinds
    with torch.device("meta"):
        assert tower(torch.zeros(2, 3, 224, 224)).shape == (2, 768)
    x = prepare(_images(rng), EMBEDDERS["clip_l14"])
    assert x.shape == (2, 3, 224, 224)


def test_results_do_not_depend_on_the_batch(
    alexnet: tuple[Any, Path],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    see = load_networks(alexnet[1], only=["alexnet5"]).embedders["alexnet5"]
    images = _images(rng, 5)
    whole = see(images)
    monkeypatch.setattr(networks, "_BATCH", 2)
    np.testing.assert_allclose(see(images), whole, **FLOAT32)


def test_a_network_is_built_at_its_first_call_and_weights_are_shared(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _random(BUILDERS["efficientnet_b1_imagenet1k_v1"])
    _save(tmp_path, "efficientnet_b1_imagenet1k_v1", _state(network))
    built: list[str] = []
    load = networks._load_part

    def counted(path: Path, embedder: Any, device: Any) -> nn.Module:
        built.append(embedder.label)
        return load(path, embedder, device)

    monkeypatch.setattr(networks, "_load_part", counted)
    found = load_networks(tmp_path, only=["effnet_b1_v1", "effnet_b1_bd"])
    assert built == []
    images = _images(rng, 1)
    for name in ("effnet_b1_v1", "effnet_b1_v1", "effnet_b1_bd"):
        found.embedders[name](images)
    assert built == ["EfficientNet-B1, weights V1"]


# --- files that do not fit ------------------------------------------------------------


def test_a_missing_file_makes_its_networks_absent_with_a_sentence(
    tmp_path: Path,
) -> None:
    found = load_networks(tmp_path)
    assert set(found.embedders) == set(LITE0)
    assert set(found.absent) == set(EMBEDDERS) - set(LITE0)
    for name, sentence in found.absent.items():
        assert f"{EMBEDDERS[name].weights.file}.safetensors is missing" in sentence
        assert f"{tmp_path.name}/perception;" in sentence
        assert str(tmp_path.parent) not in sentence  # tables do not name the machine
        assert EMBEDDERS[name].weights.url in sentence
    states = metrics.definitions(found.absent).set_index("metric")["state"]
    assert states["fid_inception"] == found.absent["inception_fid"]


def test_lite0_is_absent_without_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "find_spec", lambda _name: None)
    found = load_networks(tmp_path, only=list(LITE0))
    assert not found.embedders
    assert "install requirements.lock" in found.absent["lite0_late"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("classifier.1.bias"), r"lacks 1 weights.*classifier\.1\.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "holds unknown 1 weights.*extra"),
        (
            lambda s: s.update({"classifier.1.bias": torch.ones(3)}),
            r"bias of shape \(3,\), but EfficientNet-B1 has \(1000,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_when_loading(
    spoil: Callable[[dict[str, Tensor]], Any], message: str, tmp_path: Path
) -> None:
    file = "efficientnet_b1_imagenet1k_v1"
    state = _state(BUILDERS[file]())
    spoil(state)
    _save(tmp_path, file, state)
    with pytest.raises(ModelError, match=message):
        load_networks(tmp_path, only=["effnet_b1_v1"])
    load_networks(tmp_path, only=["swav"])  # does not look at other files


def test_a_pickle_under_the_name_of_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "perception" / "swav_resnet50.safetensors"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps({"conv1.weight": [0.0]}))
    with pytest.raises(ModelError, match=r"not a safetensors file.*renamed \.pth"):
        load_networks(tmp_path, only=["swav"])


def test_integer_weights_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    file, name = "efficientnet_b1_imagenet1k_v1", "effnet_b1_v1"
    state = _state(BUILDERS[file]())
    state["features.0.0.weight"] = state["features.0.0.weight"].to(torch.int8)
    _save(tmp_path, file, state)
    see = load_networks(tmp_path, only=[name]).embedders[name]
    with pytest.raises(ModelError, match=r"as torch\.int8, but floating point"):
        see(_images(rng))


def test_half_precision_and_missing_counters_are_read(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    file, name = "efficientnet_b1_imagenet1k_v1", "effnet_b1_v1"
    whole = {k: v.half() for k, v in _state(_random(BUILDERS[file])).items()}
    kept = {k: v for k, v in whole.items() if not k.endswith("num_batches_tracked")}
    assert len(kept) < len(whole)
    images, rows = _images(rng, 1), []
    for part, state in (("with", whole), ("without", kept)):
        (tmp_path / part).mkdir()
        _save(tmp_path / part, file, state)
        found = load_networks(tmp_path / part, only=[name])
        rows.append(found.embedders[name](images))
    assert rows[0].dtype == np.float32
    np.testing.assert_array_equal(*rows)


def test_unknown_names_and_missing_gpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'alexnet9', but must be one of"):
        load_networks(tmp_path, only=["alexnet9"])
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="torch sees no GPU"):
            load_networks(tmp_path, device="cuda")


# --- images to network input ----------------------------------------------------------

_MEANS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
}
_SMOOTH = T.InterpolationMode.BILINEAR


@pytest.mark.parametrize("name", [n for n in EMBEDDERS if n not in LITE0])
@pytest.mark.parametrize("side", [64, 400])  # enlarged, and reduced
def test_images_reach_networks_as_torchvision_s_transforms_show_them(
    name: str, side: int, rng: np.random.Generator
) -> None:
    embedder = EMBEDDERS[name]
    images = _images(rng, 1, side)
    if name.endswith("_bd"):  # Brain-Diffuser: files, opened by Pillow
        picture = T.functional.resize(Image.fromarray(images[0]), [224, 224])
        x = T.functional.to_tensor(picture)[None]
    else:  # MindEye: tensors, stored at 256 px
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        aa = name in ("inception_fid", "effnet_b1_v1")  # MindEye: torchvision 0.15
        if name != "inception_fid":
            x = T.Resize((256, 256), interpolation=_SMOOTH, antialias=aa)(x)
        x = T.Resize(embedder.sizes[-1], interpolation=_SMOOTH, antialias=aa)(x)
    expected = T.Normalize(*_MEANS[embedder.weights.normalisation])(x)
    found = prepare(images, embedder)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # float32


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :-1], "39 x 40 px"),
        (lambda x: x[:0], "0 images"),
        (lambda x: x.astype(np.float32), "float32, but uint8"),
        (lambda x: x[..., :1], "has shape"),
    ],
)
@pytest.mark.parametrize("name", ["lite0_late", "alexnet2"])
def test_images_of_another_kind_are_refused(
    name: str,
    spoil: Callable[[Images], Any],
    message: str,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    see = load_networks(tmp_path).embedders.get(
        name, lambda images: prepare(images, EMBEDDERS[name])
    )
    spoiled = spoil(_images(rng))
    with pytest.raises(DataError, match=message):
        see(spoiled)


# --- the stand-in ---------------------------------------------------------------------


def test_lite0_s_depths_are_those_of_its_forward_pass(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    assert EMBEDDERS["lite0_late"].sizes == (INPUT_SIZE,)
    images = _images(rng, 20, 64)  # more than a batch
    found = load_networks(tmp_path, only=list(LITE0)).embedders
    with torch.no_grad():
        depths = load_network()(prepare(images, EMBEDDERS["lite0_late"]))
    for name, depth in LITE0.items():
        rows = found[name](images)
        expected = depths[depth].flatten(1).numpy()
        assert rows.dtype == np.float32
        assert rows.shape == expected.shape
        np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-4)  # fused order


def test_lite0_looks_once_at_the_same_images_and_again_at_others(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_networks(tmp_path).embedders
    passes: list[int] = []
    see = networks._LiteLook._see

    def counted(look: Any, images: Images) -> Any:
        passes.append(len(images))
        return see(look, images)

    monkeypatch.setattr(networks._LiteLook, "_see", counted)
    images = _images(rng, 2, 64)
    first = {name: found[name](images) for name in LITE0}
    assert passes == [2]
    first["lite0_late"][:] = 0  # the caller's own copy
    assert found["lite0_late"](images.copy()).any()
    images[0, 0, 0] ^= 1
    found["lite0_early"](images)
    assert passes == [2, 2]
