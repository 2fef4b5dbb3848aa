"""The real models' loader: the hub's layout, text, CLIP, precision and refusals.

The weights of Stable Diffusion v1-4 and CLIP cannot be had offline. So tiny random
models are written in the very same layout, in the names and by the versions that the
hub's files have, and read by the same code; the real architectures are built from their
configs on the device meta, where tensors have shapes and no values.
"""

import json
import logging
import pickle
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip  # after the package, which makes torchvision importable
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from minddiff_utils.core.errors import ConfigError, DataError, ModelError
from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD, read_png, to_torch
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import ModelConfig
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.models import (
    Backbone,
    downloads,
    libraries,
    load_backbone,
    load_judge,
    precision,
    random,
    tiny_backbone,
)
from minddiff_utils.models.clip import build_clip
from minddiff_utils.models.downloads import PINNED, download_command
from minddiff_utils.models.stable_diffusion import SD14_TOKENS
from minddiff_utils.models.weights import sha256
from tests.meta_device import real_backbone

SHORT = "A red bus in the street, isn't it?"
LONG = "a man in a blue coat rides his small horse along the long beach at dawn in rain"
START, END = 49406, 49407

#: As small as `tiny_backbone`, but with what the real ones have and it has not.
VAE = {k: v for k, v in random.TINY_VAE.items() if not k.startswith(("latents", "mid"))}
UNET = random.TINY_UNET | {
    "cross_attention_dim": 32,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
TEXT = {
    **random.TEXT,
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    # as the hub's file has them, from before they were mended
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": random.TINY_CLIP["vision_cfg"] | {"image_size": 32, "layers": 7},
    "text_cfg": random.TINY_CLIP["text_cfg"]
    | {"context_length": 77, "vocab_size": 49408},
}
#: scheduler/scheduler_config.json of v1-4.
SCHEDULER = {
    **{k: v for k, v in random.SCHEDULER.items() if k != "timestep_spacing"},
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "skip_prk_steps": True,
    "trained_betas": None,
}


# --- tiny models in the hub's layout --------------------------------------------------


@dataclass(frozen=True)
class Hub:
    """A folder of models, and the models that were written there."""

    root: Path
    vae: Any
    unet: Any
    text: Any
    clip: Any

    @property
    def folder(self) -> Path:
        return self.root / "sd14"


def write_tokenizer(folder: Path) -> None:
    """Write the tokenizer with its marks as the hub's files have them."""
    random.write_tokenizer(folder)

    def mark(content: str) -> dict[str, Any]:
        flags = {"lstrip": False, "normalized": True, "rstrip": False}
        return {"content": content, **flags, "single_word": False}

    marks = {
        "bos_token": mark("<|startoftext|>"),
        "eos_token": mark("<|endoftext|>"),
        "pad_token": "<|endoftext|>",
        "unk_token": mark("<|endoftext|>"),
    }
    settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    settings |= {"do_lower_case": True, "add_prefix_space": False, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_open_clip(folder: Path, clip: Any) -> None:
    folder.mkdir(parents=True)
    scale = {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)}
    config = {"model_cfg": CLIP, "preprocess_cfg": scale}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")


def write_vae(folder: Path, vae: Any) -> None:
    """Save by diffusers, then name the attention as the versions before 0.13 did."""
    vae.save_pretrained(folder, safe_serialization=True)
    path = folder / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): v for key, v in state.items()}
    assert sum(".proj_attn." in key for key in state) == 4
    save_file(state, path)


def write_text(folder: Path, model: Any) -> None:
    """Save by transformers, then name the weights as the hub's file does."""
    model.save_pretrained(folder, safe_serialization=True)
    path = folder / "model.safetensors"
    state = {
        f"text_model.{key.removeprefix('text_model.')}": value
        for key, value in load_file(path).items()
    }
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("models")
    folder = root / "sd14"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        vae = libraries.Autoencoder(**VAE).eval()
        unet = libraries.UNet(**UNET).eval()
        model = libraries.CLIPTextModel(libraries.CLIPTextConfig(**TEXT)).eval()
        clip = build_clip(CLIP).eval()
        judge = build_clip(CLIP).eval()
    write_vae(folder / "vae", vae)
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    write_text(folder / "text_encoder", model)
    write_tokenizer(folder / "tokenizer")
    write_open_clip(folder / "clip", clip)
    write_open_clip(folder / "judge", judge)
    (folder / "scheduler").mkdir()
    schedule = json.dumps(SCHEDULER)
    (folder / "scheduler" / "scheduler_config.json").write_text(schedule)
    yield Hub(root, vae, unet, model, clip)
    shutil.rmtree(root)


@pytest.fixture
def copy(hub: Hub, tmp_path: Path) -> Path:
    """Give a copy of the folder sd14 that a test may spoil; links to the files."""
    shutil.copytree(hub.folder, tmp_path / "sd14", copy_function=_link)
    return tmp_path / "sd14"


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def rewrite(path: Path, content: str | bytes) -> None:
    """Replace a link by a file of its own."""
    path.unlink()
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)


def config(**fields: Any) -> ModelConfig:
    return ModelConfig(backbone="sd14", **fields)


@pytest.fixture(scope="module")
def loaded(hub: Hub) -> Backbone:
    return load_backbone(config(), hub.root)


@pytest.fixture(scope="module")
def loaded_77(hub: Hub) -> Backbone:
    return load_backbone(config(n_tokens=77), hub.root)


@pytest.fixture
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1


def refusal(folder: Path, **fields: Any) -> str:
    """Return the sentence with which the models in `folder` are refused."""
    with pytest.raises(ModelError) as caught:
        load_backbone(config(**fields), folder.parent)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# --- the same numbers as the models that were written ---------------------------------


@torch.no_grad()
def test_latents_and_images_are_those_of_the_saved_autoencoder(
    hub: Hub, loaded: Backbone, pictures: torch.Tensor
) -> None:
    z = loaded.encode_images(pictures)
    mode = hub.vae.encode(pictures).latent_dist.mode()
    # v1-4's scaling factor, which its vae/config.json leaves to the default
    torch.testing.assert_close(z, mode * 0.18215)
    assert z.shape[1:] == loaded.latent_shape == (4, 8, 8)
    image = hub.vae.decode(mode).sample
    # dividing by the factor and multiplying by it again costs a few float32 digits
    torch.testing.assert_close(loaded.decode_latents(z), image, rtol=1e-4, atol=1e-5)
    assert loaded.image_size == 64


@torch.no_grad()
def test_the_u_net_is_the_saved_one(hub: Hub, loaded: Backbone) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    c = torch.randn(2, 15, 32, generator=generator)
    found = loaded.unet(latents, 400, c)
    expected = hub.unet(latents, torch.tensor(400), c).sample
    # its channels lie last, so that float32 sums go in another order: seen 8e-7
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


def test_the_sampler_is_ddim_on_the_saved_schedule_and_clips_nothing(
    loaded: Backbone, copy: Path
) -> None:
    scheduler = loaded.scheduler(50)
    assert scheduler.timesteps.tolist() == list(range(981, 0, -20))
    assert scheduler.config.clip_sample is False
    # SD's schedule: betas are the squares of an even grid between the two roots
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    bars = np.cumprod(1 - betas)
    np.testing.assert_allclose(scheduler.alphas_cumprod, bars, rtol=1e-4)  # float32
    silent = {key: v for key, v in SCHEDULER.items() if key != "clip_sample"}
    rewrite(copy / "scheduler" / "scheduler_config.json", json.dumps(silent))
    again = load_backbone(config(), copy.parent)
    assert again.scheduler(50).config.clip_sample is False


# --- text -----------------------------------------------------------------------------


def own_ids(captions: list[str], n_tokens: int) -> torch.Tensor:
    """Return ids by OpenAI's tokenizer, padded with end marks as SD does."""
    ids = open_clip.SimpleTokenizer()(captions, context_length=n_tokens)
    after = (ids == END).cumsum(1) > 0
    return torch.where(after, END, ids)


@torch.no_grad()
@pytest.mark.parametrize("n_tokens", [15, 77])
def test_c_is_the_text_encoders_answer_to_openais_tokens(
    hub: Hub, n_tokens: int, request: pytest.FixtureRequest
) -> None:
    name = "loaded" if n_tokens == 15 else "loaded_77"
    backbone = request.getfixturevalue(name)
    c = backbone.encode_text([SHORT, LONG, ""])
    assert c.shape == (3, n_tokens, 32)
    assert (backbone.n_tokens, backbone.text_dim) == (n_tokens, 32)
    expected = hub.text(own_ids([SHORT, LONG, ""], n_tokens)).last_hidden_state
    torch.testing.assert_close(c, expected)
    torch.testing.assert_close(backbone.null_text(), expected[2:])


def test_a_cut_caption_keeps_its_end_mark(loaded: Backbone) -> None:
    ids = loaded._text.tokenizer(  # type: ignore[attr-defined]
        [LONG, ""], padding="max_length", truncation=True, max_length=15
    ).input_ids
    assert (ids[0][0], ids[0][-1], ids[0].count(END)) == (START, END, 1)
    assert ids[1] == [START, *[END] * 14]


@torch.no_grad()
def test_fifteen_tokens_are_the_first_of_77_unless_the_caption_is_cut(
    loaded: Backbone, loaded_77: Backbone
) -> None:
    few, many = (b.encode_text([SHORT, LONG]) for b in (loaded, loaded_77))
    torch.testing.assert_close(few[0], many[0, :15])
    torch.testing.assert_close(few[1, :14], many[1, :14])
    assert (few[1, 14] - many[1, 14]).abs().max() > 0.01  # the end mark, and a word


def test_cut_captions_are_counted_and_said_once(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = load_backbone(config(), hub.root)
    captions = [LONG, SHORT, LONG, "", LONG]
    assert backbone.count_cut(captions) == 3
    fits = " ".join(["dog"] * 13)
    assert backbone.count_cut([fits, fits + " dog"]) == 1
    caplog.set_level(logging.WARNING)
    caplog.clear()
    with torch.no_grad():
        backbone.encode_text([SHORT])
        assert not caplog.messages
        backbone.encode_text(captions)
        backbone.encode_text([LONG])
    assert len(caplog.messages) == 1
    assert "3 of 5 captions were longer than 15 tokens" in caplog.messages[0]
    small = tiny_backbone()  # eight tokens, two of them marks
    assert small.count_cut(["a cat", "a b c d e f", "a b c d e f g"]) == 1


# --- CLIP -----------------------------------------------------------------------------


@torch.no_grad()
def test_structural_features_are_the_mlp_outputs_that_hooks_see(
    hub: Hub, loaded: Backbone, pictures: torch.Tensor
) -> None:
    seen: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            seen[layer] = output.flatten(1)

        return hook

    blocks = hub.clip.visual.transformer.resblocks
    handles = [b.mlp.register_forward_hook(keep(i + 1)) for i, b in enumerate(blocks)]
    small = torch.nn.functional.interpolate(
        pictures, (32, 32), mode="bicubic", antialias=True
    )
    mean, std = torch.tensor([CLIP_MEAN, CLIP_STD])[:, :, None, None]
    embedding = hub.clip.encode_image(((small + 1) / 2 - mean) / std, normalize=True)
    for handle in handles:
        handle.remove()
    layers = loaded.clip_layers(pictures, range(1, 7))
    assert list(layers) == [1, 2, 3, 4, 5, 6]
    assert loaded.layer_widths == (5 * 16,) * 7
    for layer, values in layers.items():
        torch.testing.assert_close(values, seen[layer], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        loaded.clip_image_embed(pictures), embedding, rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_imagenets_normalisation_is_the_published_codes_and_not_the_default(
    hub: Hub, loaded: Backbone, pictures: torch.Tensor
) -> None:
    released = load_backbone(config(normalisation="imagenet"), hub.root)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    small = torch.nn.functional.interpolate(
        pictures, (32, 32), mode="bicubic", antialias=True
    )
    expected = hub.clip.encode_image(((small + 1) / 2 - mean) / std, normalize=True)
    found = released.clip_image_embed(pictures)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - loaded.clip_image_embed(pictures)).abs().max() > 1e-3
    # latents have nothing to do with it
    torch.testing.assert_close(
        released.encode_images(pictures), loaded.encode_images(pictures)
    )


@torch.no_grad()
def test_the_demo_models_obey_the_normalisation_too(pictures: torch.Tensor) -> None:
    root = project_root() / "data" / "models"
    own = load_backbone(ModelConfig(backbone="demo"), root)
    other = load_backbone(ModelConfig(backbone="demo", normalisation="imagenet"), root)
    assert own._clip.mean == (0.5, 0.5, 0.5)
    assert other._clip.mean == (0.485, 0.456, 0.406)
    assert (own.clip_image_embed(pictures) - other.clip_image_embed(pictures)).any()


def test_a_clip_config_without_quick_gelu_is_said(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = {key: value for key, value in CLIP.items() if key != "quick_gelu"}
    rewrite(copy / "clip" / "open_clip_config.json", json.dumps({"model_cfg": plain}))
    found = load_backbone(config(), copy.parent)._clip
    assert any("quick_gelu" in message for message in caplog.messages)
    # without its own mean and SD it gets CLIP's
    assert (found.mean, found.std) == (CLIP_MEAN, CLIP_STD)


def test_the_judge_is_another_open_clip_model(
    hub: Hub, loaded: Backbone, pictures: torch.Tensor
) -> None:
    judge = load_judge(hub.root, kind="sd14", device="cpu")
    found = judge.image_embed(pictures)
    with torch.no_grad():
        other = loaded.clip_image_embed(pictures)
    assert judge._clip.mean == CLIP_MEAN
    assert (found - other).abs().max() > 0.01
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    elsewhere = load_judge(hub.root, kind="sd14", device="meta")
    assert {p.device.type for p in elsewhere._clip.model.parameters()} == {"meta"}


# --- files ----------------------------------------------------------------------------


class Trap:
    """Leaves a mark when its pickle is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("weights", "in_place"),
    [
        ("vae/diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("unet/diffusion_pytorch_model.safetensors", "../sd-v1-4.ckpt"),
        ("text_encoder/model.safetensors", "pytorch_model.bin"),
        ("clip/open_clip_model.safetensors", "ViT-B-32.pt"),
    ],
)
def test_a_pickle_in_the_place_of_weights_is_refused_unopened(
    copy: Path, tmp_path: Path, weights: str, in_place: str
) -> None:
    (copy / weights).unlink()
    path = (copy / weights).parent / in_place
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    sentence = refusal(copy)
    assert f"{path.name} is a pickle, which can run any code" in sentence
    pin = PINNED[1] if weights.startswith("clip") else PINNED[0]
    assert f"hf download {pin.repository}" in sentence
    assert f"--revision {pin.revision}" in sentence
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_beside_good_weights_does_no_harm(copy: Path, tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists()  # so that the trap is one
    (tmp_path / "sprung").unlink()
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(trap)
    assert load_backbone(config(), copy.parent).name == "sd14"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("path", ["", "sd-v1-4.ckpt"])
def test_the_original_checkpoint_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "sd-v1-4.ckpt").write_bytes(pickle.dumps([1]))
    with pytest.raises(ModelError, match="is a pickle") as caught:
        load_backbone(config(path=str(tmp_path / path)))
    assert "layout of diffusers" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "vae/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "clip/open_clip_config.json",
    ],
)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert f"{copy / name} is missing" in refusal(copy)


def test_weights_that_lack_one_or_have_one_too_many_are_refused(copy: Path) -> None:
    path = copy / "text_encoder" / "model.safetensors"
    state = load_file(path)
    name = "text_model.final_layer_norm.bias"
    rewrite(path, b"")
    save_file({key: v for key, v in state.items() if key != name}, path)
    assert "final_layer_norm.bias" in refusal(copy)
    save_file({**state, "stranger": torch.ones(1)}, path)
    assert "stranger" in refusal(copy)
    save_file({**state, name: torch.ones(5)}, path)
    assert "size mismatch" in refusal(copy)
    path.write_bytes(b"no safetensors at all")
    assert "does not fit its config" in refusal(copy)


def test_models_that_do_not_belong_together_are_refused(copy: Path) -> None:
    assert "U-Net" in with_unet(copy, cross_attention_dim=24)
    sentence = with_unet(copy, in_channels=9)
    assert "takes 9 channels and gives 4, but its latents have 4" in sentence


def test_a_tokenizer_of_another_vocabulary_or_length_is_refused(copy: Path) -> None:
    vocabulary = json.loads((copy / "tokenizer" / "vocab.json").read_text())
    rewrite(
        copy / "tokenizer" / "vocab.json",
        json.dumps(vocabulary | {"newword</w>": 49408}),
    )
    assert "tokenizer knows 49409 tokens" in refusal(copy)
    shutil.rmtree(copy / "text_encoder")
    short = libraries.CLIPTextConfig(**{**TEXT, "max_position_embeddings": 20})
    write_text(copy / "text_encoder", libraries.CLIPTextModel(short))
    sentence = refusal(copy, n_tokens=77)
    assert "n_tokens is 77, but this text encoder has 20 positions" in sentence


def with_unet(copy: Path, **fields: Any) -> str:
    shutil.rmtree(copy / "unet")
    libraries.UNet(**{**UNET, **fields}).save_pretrained(copy / "unet")
    return refusal(copy)


def test_a_folder_of_models_may_be_named_in_the_profile(
    hub: Hub, tmp_path: Path, loaded: Backbone, pictures: torch.Tensor
) -> None:
    # the folder named wins over the tree's own
    found = load_backbone(config(path=str(hub.root)), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(
            found.encode_images(pictures), loaded.encode_images(pictures)
        )
    empty = str(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"not at .*nowhere/sd14: put Stable"):
        load_backbone(config(path=empty), hub.root)


def test_digests_are_checked_where_listed_and_said_to_lack_where_not(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_backbone(config(), copy.parent)
    said = "\n".join(caplog.messages)
    assert "has no SHA256SUMS" in said
    assert f"is not {PINNED[1].revision} of timm/" in said  # a tiny random model
    names = sorted(p.relative_to(copy) for p in copy.rglob("*.safetensors"))
    lines = [f"{sha256(copy / name)}  {name}" for name in names]
    (copy / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    caplog.clear()
    load_backbone(config(), copy.parent)
    assert not caplog.messages
    wrong = [f"{'0' * 64}  {names[0]}", *lines[1:]]
    (copy / "SHA256SUMS").write_text("\n".join(wrong) + "\n")
    assert "SHA256SUMS says 000000000000" in refusal(copy)


def test_every_file_of_the_hub_is_pinned_by_a_commit(hub: Hub) -> None:
    for pin in PINNED:
        assert re.fullmatch("[0-9a-f]{40}", pin.revision)
        command = download_command(pin, Path("my models"))
        assert f"--revision {pin.revision}" in command
        assert f"--local-dir 'my models{'/' + pin.target if pin.target else ''}'" in (
            command
        )
        assert set(pin.digests) <= set(pin.files)
        for digest in pin.digests.values():
            assert re.fullmatch("[0-9a-f]{64}", digest)
    # the table names every file that is read, and no pickle
    pinned = {str(Path(pin.target) / name) for pin in PINNED for name in pin.files}
    read = {str(p.relative_to(hub.folder)) for p in hub.folder.rglob("*.*")}
    assert read == pinned


# --- precision and place --------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("name", "digits"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_is_the_u_nets_alone(
    hub: Hub, loaded: Backbone, name: str, digits: float
) -> None:
    half = load_backbone(config(dtype=name), hub.root)
    kinds = {part: next(getattr(half, part).parameters()).dtype for part in PARTS}
    assert kinds == {"_vae": torch.float32, "_unet": getattr(torch, name)}
    assert next(half._clip.model.parameters()).dtype == torch.float32
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    c = half.encode_text([SHORT])
    found, expected = half.unet(latents, 300, c), loaded.unet(latents, 300, c)
    assert found.dtype == torch.float32
    # 8 or 11 bits of each number, through about thirty layers
    assert (found - expected).abs().max() < digits * expected.abs().max()


PARTS = ("_vae", "_unet")


def test_a_precision_that_torch_cannot_compute_in_is_refused(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr(precision.functional, "conv2d", refuse)
    sentence = refusal(hub.folder, dtype="float16")
    assert (
        "models.dtype is 'float16', but torch cannot compute in it on cpu" in sentence
    )
    assert "set models.dtype to float32" in sentence
    assert precision.place(config()) == (torch.device("cpu"), torch.float32)


def test_a_gpu_that_is_not_there_is_refused(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees no GPU" in refusal(hub.folder, device="cuda")
    with pytest.raises(ModelError, match="torch sees no GPU"):
        load_judge(hub.root, kind="sd14", device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.no_grad()
def test_everything_is_on_the_gpu(hub: Hub, pictures: torch.Tensor) -> None:
    backbone = load_backbone(config(device="cuda", dtype="float16"), hub.root)
    z = backbone.encode_images(pictures)
    c = backbone.encode_text([SHORT, LONG])
    out = backbone.unet(z, 300, c)
    layers = backbone.clip_layers(backbone.decode_latents(z), (1, 6))
    for values in (z, c, out, *layers.values()):
        assert (values.device.type, values.dtype) == ("cuda", torch.float32)
        assert values.isfinite().all()


def test_the_real_u_net_lies_in_memory_as_convolutions_read_it(
    loaded: Backbone,
) -> None:
    kernels = [p for p in loaded._unet.parameters() if p.ndim == 4 and p.shape[2] > 1]
    assert kernels
    last = torch.channels_last
    assert all(kernel.is_contiguous(memory_format=last) for kernel in kernels)


# --- the real architectures, without values -------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return real_backbone(torch.float32, tmp_path_factory.mktemp("words"))


@torch.no_grad()
def test_the_real_models_have_the_papers_shapes(real: Backbone) -> None:
    assert real.image_size == 512
    assert real.latent_shape == (4, 64, 64)
    images = torch.empty(2, 3, 512, 512, device="meta")
    z = real.encode_images(images)
    assert z.shape == (2, 4, 64, 64)
    assert real.decode_latents(z).shape == images.shape
    c = real.encode_text(["", ""])
    assert c.shape == (2, 15, 768)  # MindDiffuser's 15 tokens
    assert real.unet(z, 500, c).shape == z.shape
    layers = real.clip_layers(images, range(1, 7))
    # 50 tokens of width 768 in each of blocks 1 to 6 of 12
    assert {layer: tuple(v.shape) for layer, v in layers.items()} == {
        layer: (2, 50 * 768) for layer in range(1, 7)
    }
    assert real.layer_widths == (38_400,) * 12
    assert real.clip_image_embed(images).shape == (2, 512)


def test_the_real_models_have_the_published_numbers_of_weights(real: Backbone) -> None:
    # As printed for v1-4 and OpenAI's ViT-B/32 all over the field: 860 M, 84 M, 123 M
    # and 151 M.
    models = {
        "unet": real._unet,
        "vae": real._vae,
        "text": real._text.model,  # type: ignore[attr-defined]
        "clip": real._clip.model,
    }
    assert {k: sum(p.numel() for p in m.parameters()) for k, m in models.items()} == {
        "unet": 859_520_964,
        "vae": 83_653_863,
        "text": 123_060_480,
        "clip": 151_277_313,
    }


# --- grey images and the profile ------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1"])
def test_a_grey_image_enters_as_three_equal_channels(tmp_path: Path, mode: str) -> None:
    ramp = np.arange(64, dtype=np.uint8).repeat(64).reshape(64, 64)
    image = Image.fromarray(ramp).convert(mode)
    image.save(tmp_path / "grey.png")
    read = read_png(tmp_path / "grey.png")
    assert (read.shape, read.dtype) == ((64, 64, 3), np.uint8)
    assert (read == read[:, :, :1]).all()
    if mode != "1":
        np.testing.assert_array_equal(read[:, :, 0], ramp)
    with torch.no_grad():
        z = tiny_backbone().encode_images(to_torch(np.stack([read])))
    assert z.shape == (1, 4, 8, 8)


@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 64, 64, 1), (64, 64)])
def test_a_grey_array_is_refused_by_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"has shape .*, but \(any, any, any, 3\)"):
        to_torch(np.zeros(shape, np.uint8))


def test_a_number_of_tokens_is_stable_diffusions_alone() -> None:
    assert ModelConfig(backbone="sd14").n_tokens == SD14_TOKENS
    with pytest.raises(ConfigError, match="n_tokens"):
        load_profile("demo", {"models.n_tokens": 77})
    with pytest.raises(ConfigError, match="n_tokens"):
        load_profile("nsd", {"models.n_tokens": 20})


def test_the_hub_module_prints_a_command_per_repository(
    capsys: pytest.CaptureFixture[str],
) -> None:
    downloads.main(["a folder"])
    lines = capsys.readouterr().out.removeprefix(downloads.LICENCE).splitlines()
    assert lines == [download_command(pin, Path("a folder")) for pin in PINNED]


@pytest.mark.parametrize(
    ("width", "family"), [(1024, "Stable Diffusion 2"), (2048, "Stable Diffusion XL")]
)
def test_another_family_than_1_x_is_refused_before_its_weights_are_read(
    copy: Path, width: int, family: str
) -> None:
    path = copy / "unet" / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()  # a link to that of all tests
    path.write_text(json.dumps(fields | {"cross_attention_dim": width}))
    sentence = refusal(copy)
    assert f"unet/config.json is of {family}, which" in sentence
    assert "v1-5" in sentence
