"""The pretrained models as one object: autoencoder, U-Net, scheduler, text and CLIP.

A `Backbone` turns images into latents z, captions into token sequences c and images
into layer-wise CLIP features, and back from latents to images; nobody else knows if
the models are the demo's, Stable Diffusion v1-4's or tiny random ones. Weights are
safetensors only, their digests are checked, and all parameters are frozen. It trains
nothing and knows nothing of brains. Place in the flow: layer 5.

`torchvision` is loaded here and nowhere before (`load_torchvision`): its compiled
operators are missing beside some builds of torch, and then its import, and with it
those of diffusers, transformers and open_clip, would fail.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minddiff_utils.config import ModelConfig, project_root
from minddiff_utils.errors import ModelError, check_choice
from minddiff_utils.images import clip_normalise, resize_tensor

__all__ = [
    "Backbone",
    "Judge",
    "WordTokenizer",
    "check_digests",
    "load_backbone",
    "load_judge",
    "load_torchvision",
    "tiny_backbone",
    "tiny_judge",
]

LOG = logging.getLogger(__name__)

#: Operators that torchvision's Python code names at import.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def load_torchvision() -> Any:
    """Make `import torchvision` possible; return the stand-in library, None if unused.

    The compiled operators beside torchvision are tried first, so that a good build is
    left untouched. Only when they do not load are the two operators declared that
    torchvision names at import (declared, not implemented: nothing here calls them).
    The cache keeps the returned library, and with it the declarations, alive.

    Raises
    ------
    ModelError
        torchvision is not installed.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModelError(
            "torchvision is not installed, but open_clip needs it: install the packages"
            " of requirements.lock."
        )
    torch_ops: Any = torch.ops
    for compiled in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch_ops.load_library(compiled)
        except OSError as error:
            LOG.debug("%s does not load: %s", compiled.name, error)
        else:
            return None
    make_library: Any = torch.library.Library
    library = make_library("torchvision", "DEF")
    for operator in _OPERATORS:
        library.define(operator)
    return library


load_torchvision()

from diffusers import (  # noqa: E402  (after the shim)
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    UNet2DConditionModel,
)
from open_clip.model import CLIP  # noqa: E402
from open_clip.tokenizer import SimpleTokenizer  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import CLIPTextModel, CLIPTokenizer  # noqa: E402

#: diffusers' classes, whose type annotations are incomplete.
_Autoencoder: Any = AutoencoderKL
_UNet: Any = UNet2DConditionModel
_Scheduler: Any = DDIMScheduler
#: Solvers by name, with their order.
_SOLVERS: dict[str, tuple[Any, int]] = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, 2),
    "dpmpp_3m": (DPMSolverMultistepScheduler, 3),
    "dpmpp_2s": (DPMSolverSinglestepScheduler, 2),
}

#: Tokens of c under Stable Diffusion (MindDiffuser cuts 77 to 15).
SD14_TOKENS = 15
_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_WEIGHTS = "diffusion_pytorch_model.safetensors"


# --- words to token ids -------------------------------------------------------------


class _Tokenizer(Protocol):
    def __call__(self, captions: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class WordTokenizer:
    """Captions to word ids, (n, n_tokens) int64, padded; from a `vocabulary.json`.

    Words are runs of letters and digits in lower case; unknown words get one id. The
    end mark has the largest id, because open_clip pools the text at the largest id.

    >>> tokens = ("<pad>", "<bos>", "<unk>", "cat", "<eos>")
    >>> WordTokenizer(tokens, 0, 1, 4, 2, 5)(["A cat!"]).tolist()
    [[1, 2, 3, 4, 0]]
    """

    tokens: tuple[str, ...]
    pad: int
    bos: int
    eos: int
    unk: int
    n_tokens: int

    def __post_init__(self) -> None:
        n = len(self.tokens)
        ids = (self.pad, self.bos, self.eos, self.unk)
        if len(set(self.tokens)) != n or len(set(ids)) != 4 or self.eos != n - 1:
            raise ModelError(
                "The vocabulary must have distinct tokens and distinct pad, bos, eos"
                f" and unk ids with eos the last of {n}, but they are {ids}."
            )

    @classmethod
    def from_file(cls, path: Path, n_tokens: int) -> "WordTokenizer":
        """Read `vocabulary.json`: tokens and the ids of pad, bos, eos and unk."""
        content = _read_json(path)
        try:
            ids = [int(content[key]) for key in ("pad", "bos", "eos", "unk")]
            tokens = tuple(map(str, content["tokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path} is not a vocabulary: {error!r}.") from error
        pad, bos, eos, unk = ids
        return cls(tokens, pad, bos, eos, unk, n_tokens)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return the ids of `captions`; what does not fit is cut, the end stays."""
        where = {token: row for row, token in enumerate(self.tokens)}
        ids = torch.full((len(captions), self.n_tokens), self.pad, dtype=torch.long)
        for row, caption in enumerate(captions):
            words = re.findall("[a-z0-9]+", caption.lower())[: self.n_tokens - 2]
            line = [self.bos, *(where.get(w, self.unk) for w in words), self.eos]
            ids[row, : len(line)] = torch.tensor(line)
        return ids


# --- captions to token sequences ------------------------------------------------------


class _TextEncoder(Protocol):
    @property
    def n_tokens(self) -> int: ...

    @property
    def width(self) -> int: ...

    def __call__(self, captions: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class _OpenClipText:
    """Token sequence of an open_clip text tower, after its last layer norm."""

    clip: CLIP
    tokenizer: WordTokenizer
    n_tokens: int
    width: int

    def __call__(self, captions: Sequence[str]) -> Tensor:
        clip = self.clip
        ids = self.tokenizer(captions).to(clip.positional_embedding.device)
        x = clip.token_embedding(ids) + clip.positional_embedding
        x = clip.transformer(x, attn_mask=clip.attn_mask)
        sequence: Tensor = clip.ln_final(x)
        return sequence


@dataclass(frozen=True)
class _TransformersText:
    """Last hidden state of a transformers CLIP text model (Stable Diffusion's c)."""

    model: CLIPTextModel
    tokenizer: CLIPTokenizer
    n_tokens: int
    width: int

    def __call__(self, captions: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.n_tokens,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.model.device)
        sequence: Tensor = self.model(ids).last_hidden_state
        return sequence


# --- CLIP's image side ----------------------------------------------------------------


@dataclass(frozen=True)
class _Eye:
    """CLIP with its own image size and normalisation; takes images in [-1, 1]."""

    clip: CLIP
    tokenizer: _Tokenizer
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def prepare(self, x: Tensor) -> Tensor:
        return clip_normalise(resize_tensor(x, self.size), self.mean, self.std)

    def image_embed(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.clip.encode_image(self.prepare(x), normalize=True)
        return embedding

    def text_embed(self, captions: Sequence[str]) -> Tensor:
        ids = self.tokenizer(captions).to(self.clip.positional_embedding.device)
        embedding: Tensor = self.clip.encode_text(ids, normalize=True)
        return embedding

    def layers(self, x: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        tower = self.clip.visual
        hidden = tower._embeds(self.prepare(x))  # (n, n_vision_tokens, width)
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(tower.transformer.resblocks, start=1):
            hidden = hidden + block.ls_1(block.attention(q_x=block.ln_1(hidden)))
            mlp = block.mlp(block.ln_2(hidden))
            if number in layers:
                outputs[number] = mlp.flatten(1)  # (n, n_vision_tokens * width)
            if number == max(layers):
                break
            hidden = hidden + block.ls_2(mlp)
        return outputs


@dataclass(frozen=True)
class Judge:
    """A CLIP that took no part in decoding or generation; it only scores.

    Attributes
    ----------
    name : str
        Which judge, for the tables.
    """

    name: str
    _eye: _Eye = field(repr=False)

    @torch.no_grad()
    def image_embed(self, x: Tensor) -> Tensor:
        """Embed images (n, 3, S, S) in [-1, 1]; returns (n, e) of unit norm."""
        return self._eye.image_embed(x.clamp(-1, 1))

    @torch.no_grad()
    def text_embed(self, captions: Sequence[str]) -> Tensor:
        """Embed captions; returns (n, e) of unit norm."""
        return self._eye.text_embed(captions)


# --- the backbone ---------------------------------------------------------------------


@dataclass(frozen=True)
class Backbone:
    """The frozen models behind the three features and the reconstructions.

    Images are tensors (n, 3, S, S) in [-1, 1]; latents z (n, C, h, w) are standardised
    per channel over the autoencoder's training images (Stable Diffusion: multiplied by
    its scaling factor); text c is (n, n_tokens, d). z, c and images are in `dtype`; the
    U-Net alone may compute in a lower precision, for speed at about three digits.

    Attributes
    ----------
    name : str
        demo, sd14 or tiny.
    image_size : int
        S, in pixels.
    latent_shape : tuple of int
        (C, h, w) of z.
    n_tokens, text_dim : int
        Shape of c.
    layer_widths : tuple of int
        Number of features (tokens times width) of each CLIP vision block.
    device, dtype : torch.device, torch.dtype
        Where and in what precision z, c and images live.
    """

    name: str
    image_size: int
    latent_shape: tuple[int, int, int]
    n_tokens: int
    text_dim: int
    layer_widths: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    _vae: Any = field(repr=False)
    _unet: Any = field(repr=False)
    _scheduler_config: Mapping[str, Any] = field(repr=False)
    _text: _TextEncoder = field(repr=False)
    _eye: _Eye = field(repr=False)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        config = self._vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            channels = self.latent_shape[0]
            mean, std = [0.0] * channels, [1 / config.scaling_factor] * channels
        values = torch.tensor([mean, std], dtype=self.dtype, device=self.device)
        return values[0][:, None, None], values[1][:, None, None]

    def encode_images(self, x: Tensor) -> Tensor:
        """Return z (n, C, h, w): the posterior's mode, standardised per channel."""
        mean, std = self._statistics()
        mode: Tensor = self._vae.encode(
            x.to(self.device, self.dtype)
        ).latent_dist.mode()
        return (mode - mean) / std

    def decode_latents(self, z: Tensor) -> Tensor:
        """Return images (n, 3, S, S), about [-1, 1] and not clipped; differentiable."""
        mean, std = self._statistics()
        image: Tensor = self._vae.decode(z * std + mean).sample
        return image

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Return c (n, n_tokens, d): one vector per token, before pooling."""
        return self._text(captions)

    def null_text(self) -> Tensor:
        """Return c (1, n_tokens, d) of the empty caption, guidance's other side."""
        with torch.no_grad():
            return self._text([""])

    def clip_layers(self, x: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the MLP outputs of the vision blocks `layers` (1-based), flattened.

        Differentiable; stops after the last block asked for.

        Parameters
        ----------
        x : Tensor
            Images (n, 3, S, S) in [-1, 1].
        layers : sequence of int
            Blocks, 1 to `len(layer_widths)`.

        Returns
        -------
        dict of int to Tensor
            Layer to features (n, n_vision_tokens * width).

        References
        ----------
        MindDiffuser section 3: the structural feature is taken from the `Linear-2k`
        outputs of ViT-B/32, the MLP output projections of its first blocks.
        """
        n_blocks = len(self.layer_widths)
        if not layers or min(layers) < 1 or max(layers) > n_blocks:
            raise ModelError(
                f"CLIP layers {tuple(layers)} were asked for, but {self.name} has"
                f" blocks 1 to {n_blocks}: change features.clip_layers."
            )
        return self._eye.layers(x, layers)

    def clip_image_embed(self, x: Tensor) -> Tensor:
        """Return CLIP's image embedding (n, e), unit norm; differentiable."""
        return self._eye.image_embed(x)

    def clip_text_embed(self, captions: Sequence[str]) -> Tensor:
        """Return CLIP's text embedding (n, e), unit norm."""
        return self._eye.text_embed(captions)

    def unet(self, latents: Tensor, t: int | Tensor, c: Tensor) -> Tensor:
        """Return the U-Net's prediction (n, C, h, w) at training timestep `t`."""
        precision = self._unet.dtype
        out: Tensor = self._unet(
            latents.to(precision),
            torch.as_tensor(t, device=self.device),
            c.to(precision),
        ).sample
        return out.to(latents.dtype)

    def scheduler(self, n_steps: int) -> Any:
        """Return the models' DDIMScheduler with `n_steps` inference steps set."""
        scheduler = _Scheduler.from_config(dict(self._scheduler_config))
        scheduler.set_timesteps(n_steps)
        return scheduler

    def solver(self, name: str, timesteps: Sequence[int]) -> Any:
        """Return diffusers' solver `name` on the models' noise schedule.

        Parameters
        ----------
        name : {"dpmpp_2m", "dpmpp_3m", "dpmpp_2s"}
            DPM-Solver++: multistep of order 2 or 3, singlestep of order 2.
        timesteps : sequence of int
            Where it calls the U-Net, noisiest first.
        """
        check_choice(name, tuple(_SOLVERS), "solver")
        kind, order = _SOLVERS[name]
        config = dict(self._scheduler_config)
        # the grid ends where that of the models' DDIM does
        ends_clean = config.get("set_alpha_to_one", True)
        solver = kind.from_config(
            config,
            solver_order=order,
            algorithm_type="dpmsolver++",
            final_sigmas_type="zero" if ends_clean else "sigma_min",
        )
        solver.set_timesteps(timesteps=list(timesteps))
        return solver


# --- reading files --------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path} is missing: restore the models' folder.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object.")
    return content


def check_digests(folder: Path) -> None:
    """Compare every file named in `folder/SHA256SUMS` with its digest.

    Raises
    ------
    ModelError
        The list is missing, a file of it is missing or differs, or a weight file in the
        folder is not in the list.
    """
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise ModelError(
            f"{sums} is missing, so the models cannot be trusted: restore it."
        )
    listed = set()
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        listed.add(path)
        if not path.is_file():
            raise ModelError(f"{path} is named in {sums.name} but missing: restore it.")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != digest:
            raise ModelError(
                f"{path} has SHA-256 {found[:12]}…, but {sums.name} says"
                f" {digest[:12]}…: the file is damaged or was changed; restore it."
            )
    strangers = sorted(set(folder.rglob("*.safetensors")) - listed)
    if strangers:
        raise ModelError(f"{strangers[0]} is not listed in {sums}: add its digest.")


def _load_weights(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"Weights not found at {path}: restore the models' folder.")
    try:
        state = load_file(path)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path} does not fit its config: {reason}") from error


def _freeze(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    return nn.Module.to(model, device, dtype).eval().requires_grad_(False)


def _build_clip(model_config: Mapping[str, Any]) -> CLIP:
    return CLIP(
        int(model_config["embed_dim"]),
        dict(model_config["vision_cfg"]),
        dict(model_config["text_cfg"]),
        quick_gelu=bool(model_config.get("quick_gelu", False)),
    )


def _load_eye(folder: Path, device: torch.device) -> _Eye:
    config = _read_json(folder / "open_clip_config.json")
    model_config = config["model_cfg"]
    clip = _build_clip(model_config)
    _load_weights(clip, folder / "open_clip_model.safetensors")
    # Without a preprocess_cfg the images stay in [-1, 1], as the demo models learnt.
    preprocess = config.get("preprocess_cfg", {})
    words = folder / "vocabulary.json"
    context = int(model_config["text_cfg"]["context_length"])
    tokenizer: _Tokenizer = (
        WordTokenizer.from_file(words, context)
        if words.is_file()
        else SimpleTokenizer(context_length=context)
    )
    return _Eye(
        _freeze(clip, device, torch.float32),
        tokenizer,
        int(model_config["vision_cfg"]["image_size"]),
        tuple(preprocess.get("mean", (0.5, 0.5, 0.5))),
        tuple(preprocess.get("std", (0.5, 0.5, 0.5))),
    )


def _device(config: ModelConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "models.device is 'cuda', but torch sees no GPU: use a GPU build of torch"
            " on a machine with a GPU, or set models.device to cpu."
        )
    return torch.device(config.device)


def _models_folder(root: Path | None, name: str, remedy: str) -> Path:
    folder = (root or project_root() / "data" / "models") / name
    if not folder.is_dir():
        raise ModelError(
            f"The models of backbone {name!r} are not at {folder}: {remedy}."
        )
    return folder


# --- assembling -----------------------------------------------------------------------


def _assemble(
    name: str,
    vae: Any,
    unet: Any,
    scheduler: Mapping[str, Any],
    text: _TextEncoder,
    eye: _Eye,
) -> Backbone:
    vision = eye.clip.visual
    n_blocks = len(vision.transformer.resblocks)
    n_features = vision.positional_embedding.numel()  # n_vision_tokens * width
    halvings = len(vae.config.block_out_channels) - 1
    side = int(unet.config.sample_size)
    if unet.config.cross_attention_dim != text.width:
        raise ModelError(
            f"The U-Net of {name} reads text of width"
            f" {unet.config.cross_attention_dim}, but its text encoder gives"
            f" {text.width}: the models do not belong together."
        )
    return Backbone(
        name=name,
        image_size=side * 2**halvings,
        latent_shape=(int(vae.config.latent_channels), side, side),
        n_tokens=text.n_tokens,
        text_dim=text.width,
        layer_widths=(n_features,) * n_blocks,
        device=vae.device,
        dtype=vae.dtype,
        _vae=vae,
        _unet=unet,
        _scheduler_config=dict(scheduler),
        _text=text,
        _eye=eye,
    )


def _own_text(eye: _Eye) -> _OpenClipText:
    if not isinstance(eye.tokenizer, WordTokenizer):
        raise ModelError("The demo CLIP has no vocabulary.json: restore its folder.")
    n_tokens, width = eye.clip.positional_embedding.shape
    return _OpenClipText(eye.clip, eye.tokenizer, int(n_tokens), int(width))


def _load_demo(config: ModelConfig, root: Path | None) -> Backbone:
    device, precision = _device(config), _DTYPES[config.dtype]
    folder = _models_folder(root, "demo", "restore the repository's data folder")
    check_digests(folder)
    vae = _Autoencoder.from_config(_read_json(folder / "vae" / "config.json"))
    _load_weights(vae, folder / "vae" / _WEIGHTS)
    unet = _UNet.from_config(_read_json(folder / "unet" / "config.json"))
    _load_weights(unet, folder / "unet" / _WEIGHTS)
    eye = _load_eye(folder / "clip", device)
    return _assemble(
        "demo",
        _freeze(vae, device, torch.float32),
        _freeze(unet, device, precision).to(memory_format=torch.channels_last),
        _read_json(folder / "scheduler" / "scheduler_config.json"),
        _own_text(eye),
        eye,
    )


def _load_sd14(config: ModelConfig, root: Path | None) -> Backbone:
    """Read Stable Diffusion v1-4 (diffusers layout) and open_clip's ViT-B/32."""
    device, precision = _device(config), _DTYPES[config.dtype]
    remedy = (
        "put Stable Diffusion v1-4 there in the layout of diffusers (vae, unet,"
        " scheduler, text_encoder, tokenizer; safetensors) and open_clip's ViT-B/32 in"
        " its folder clip"
    )
    folder = _models_folder(root, "sd14", remedy)
    if (folder / "SHA256SUMS").is_file():
        check_digests(folder)
    else:
        LOG.warning("%s has no SHA256SUMS: its weights are not checked", folder)
    options: dict[str, Any] = {"local_files_only": True}
    weights: dict[str, Any] = {**options, "use_safetensors": True}
    try:
        vae = _Autoencoder.from_pretrained(folder, subfolder="vae", **weights)
        unet = _UNet.from_pretrained(folder, subfolder="unet", **weights)
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", **weights)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder} is incomplete ({reason}): {remedy}.") from error
    width = int(text.config.hidden_size)
    model = _freeze(text, device, torch.float32)
    return _assemble(
        "sd14",
        _freeze(vae, device, torch.float32),
        _freeze(unet, device, precision),
        _read_json(folder / "scheduler" / "scheduler_config.json"),
        _TransformersText(model, tokenizer, SD14_TOKENS, width),
        _load_eye(folder / "clip", device),
    )


# --- tiny random models ---------------------------------------------------------------

_TINY_WORDS = (
    *("a", "the", "of", "on", "in", "at", "with", "photo", "small", "large", "red"),
    *("person", "dog", "cat", "bird", "car", "bus", "boat", "chair", "clock", "street"),
)
_TINY_TOKENS = ("<pad>", "<bos>", "<unk>", *_TINY_WORDS, "<eos>")
_TINY_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 16,
        "width": 16,
        "layers": 6,
        "head_width": 8,
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": len(_TINY_TOKENS),
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
_TINY_VAE: dict[str, Any] = {
    "latent_channels": 4,
    "sample_size": 64,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "block_out_channels": [4, 4, 4, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "mid_block_add_attention": False,
    "latents_mean": [0.0] * 4,
    "latents_std": [0.25] * 4,
}
_TINY_UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "block_out_channels": [8, 16],
    "attention_head_dim": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}
_TINY_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def _tiny_eye(dtype: torch.dtype) -> _Eye:
    words = len(_TINY_TOKENS)
    context = int(_TINY_CLIP["text_cfg"]["context_length"])
    half = (0.5, 0.5, 0.5)
    clip = _freeze(_build_clip(_TINY_CLIP), torch.device("cpu"), dtype)
    tokenizer = WordTokenizer(_TINY_TOKENS, 0, 1, words - 1, 2, context)
    return _Eye(clip, tokenizer, 64, half, half)


def tiny_backbone(
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    prediction_type: str = "v_prediction",
) -> Backbone:
    """Return random models of the same classes, a few thousand weights, in memory.

    The weights follow from `seed`; the caller's random state is left as it was. On the
    CPU; for tests and for trying code out, its images mean nothing.

    >>> tiny_backbone().image_size
    64
    """
    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = _freeze(_Autoencoder(**_TINY_VAE), device, dtype)
        unet = _freeze(_UNet(**_TINY_UNET), device, dtype)
        eye = _tiny_eye(dtype)
    scheduler = {**_TINY_SCHEDULER, "prediction_type": prediction_type}
    return _assemble("tiny", vae, unet, scheduler, _own_text(eye), eye)


def tiny_judge(seed: int = 1) -> Judge:
    """Return a judge with random weights from `seed`, for tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Judge("tiny judge", _tiny_eye(torch.float32))


# --- the two doors --------------------------------------------------------------------


def load_backbone(config: ModelConfig, root: Path | None = None) -> Backbone:
    """Load the models that `config` names, frozen.

    Parameters
    ----------
    config : ModelConfig
        Which models, on which device, and the U-Net's precision.
    root : Path, optional
        Folder that holds one folder per kind of models (`demo`, `sd14`); the default is
        the repository's `data/models`.

    Raises
    ------
    ModelError
        A file is missing, damaged, not the one listed in SHA256SUMS or of another
        kind; or a GPU is asked for where there is none.
    """
    if config.backbone == "tiny":
        return tiny_backbone()
    if config.backbone == "demo":
        return _load_demo(config, root)
    return _load_sd14(config, root)


def load_judge(root: Path | None = None, *, kind: str = "demo") -> Judge:
    """Load the judge that belongs to the backbone `kind` (demo, sd14 or tiny).

    Parameters
    ----------
    root : Path, optional
        As in `load_backbone`; the judge is in the folder `judge` of its kind.
    kind : str
        `ModelConfig.backbone` of the profile.

    Raises
    ------
    ConfigError
        Unknown kind.
    ModelError
        A file is missing or damaged.
    """
    check_choice(kind, ("demo", "sd14", "tiny"), "kind")
    if kind == "tiny":
        return tiny_judge()
    remedy = "put an open_clip model (config and safetensors) in its folder judge"
    folder = _models_folder(root, kind, remedy)
    if kind == "demo":
        check_digests(folder)
    return Judge(f"{kind} judge", _load_eye(folder / "judge", torch.device("cpu")))
