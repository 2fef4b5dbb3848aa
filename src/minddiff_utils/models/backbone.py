"""The frozen models as one object, whatever models they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from minddiff_utils.core.errors import ModelError
from minddiff_utils.models.clip import ClipEncoder
from minddiff_utils.models.libraries import Scheduler
from minddiff_utils.models.precision import free_bytes, from_float32
from minddiff_utils.models.text_encoder import OpenClipText, TextEncoder, WordTokenizer

__all__ = ["Backbone", "assemble", "own_text"]

#: Bytes of one image of 512 px on its way through autoencoder and U-Net, at most: seven
#: values of the widest layer, 256 channels in float32, and an eighth for the rest.
_PASSING = 2**31
#: Share of the free memory that may be filled.
_SHARE = 0.8
#: Bytes on a CPU, however many are free, as the batch decides on the last digits: one
#: image of 512 px, where more are no faster, and a hundred of 64 px.
_ON_CPU = 2**32


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
    _text: TextEncoder = field(repr=False)
    _clip: ClipEncoder = field(repr=False)

    @property
    def precision(self) -> torch.dtype:
        """Return what the U-Net computes in."""
        precision: torch.dtype = self._unet.dtype
        return precision

    @property
    def unet_item_bytes(self) -> int:
        """Return the bytes of one number of the U-Net."""
        return int(self._unet.dtype.itemsize)

    def free_bytes(self) -> float:
        """Return the bytes that the models' device has left; a CPU is never asked."""
        return free_bytes(self.device)

    def at_once(self, most: int) -> int:
        """Return how many images, `most` or fewer, pass at once without a gradient."""
        each, free = _PASSING * (self.image_size / 512) ** 2, self.free_bytes()
        room = _SHARE * (free if isfinite(free) else _ON_CPU)
        return max(1, int(min(most, room // each)))

    def _statistics(self) -> tuple[Tensor, Tensor]:
        config = self._vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            channels = self.latent_shape[0]
            mean, std = [0.0] * channels, [1 / config.scaling_factor] * channels
        values = torch.tensor([mean, std], dtype=self.dtype, device=self.device)
        return values[0][:, None, None], values[1][:, None, None]

    def encode_images(self, x: Tensor) -> Tensor:
        """Return z (n, C, h, w): the posterior's mode, standardised per channel.

        CompVis' `get_first_stage_encoding`, which the released code calls, draws from
        the posterior instead: a decoder would learn that draw's noise as well.
        """
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

    def count_cut(self, captions: Sequence[str]) -> int:
        """Return how many of `captions` are longer than `n_tokens`, and so are cut."""
        return self._text.count_cut(captions)

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
        return self._clip.layers(x, layers)

    def clip_image_embed(self, x: Tensor) -> Tensor:
        """Return CLIP's image embedding (n, e), unit norm; differentiable."""
        return self._clip.image_embed(x)

    def clip_text_embed(self, captions: Sequence[str]) -> Tensor:
        """Return CLIP's text embedding (n, e), unit norm."""
        return self._clip.text_embed(captions)

    def unet(self, latents: Tensor, t: int | Tensor, c: Tensor) -> Tensor:
        """Return the U-Net's prediction (n, C, h, w) at training timestep `t`.

        In float16 its gradients are scaled image by image (`precision`).
        """
        precision, time = self.precision, torch.as_tensor(t, device=self.device)

        def predict(latents: Tensor, c: Tensor) -> Tensor:
            out = self._unet(latents.to(precision), time, c.to(precision))
            noise: Tensor = out.sample.to(latents.dtype)
            return noise

        if precision == torch.float16:
            return from_float32(predict, latents, c)
        return predict(latents, c)

    def scheduler(self, n_steps: int) -> Any:
        """Return the models' DDIMScheduler with `n_steps` inference steps set."""
        scheduler = Scheduler.from_config(dict(self._scheduler_config))
        scheduler.set_timesteps(n_steps)
        return scheduler


# --- assembling -----------------------------------------------------------------------


def assemble(
    name: str,
    vae: Any,
    unet: Any,
    scheduler: Mapping[str, Any],
    text: TextEncoder,
    clip: ClipEncoder,
) -> Backbone:
    """Return the models as a `Backbone`; sizes are read off their configs.

    Raises
    ------
    ModelError
        The models do not belong together.
    """
    vision = clip.model.visual
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
    channels = int(vae.config.latent_channels)
    if unet.config.in_channels != channels or unet.config.out_channels != channels:
        raise ModelError(
            f"The U-Net of {name} takes {unet.config.in_channels} channels and gives"
            f" {unet.config.out_channels}, but its latents have {channels}: take the"
            " U-Net for text to image, not one for inpainting."
        )
    return Backbone(
        name=name,
        image_size=side * 2**halvings,
        latent_shape=(channels, side, side),
        n_tokens=text.n_tokens,
        text_dim=text.width,
        layer_widths=(n_features,) * n_blocks,
        device=vae.device,
        dtype=vae.dtype,
        _vae=vae,
        _unet=unet,
        _scheduler_config=dict(scheduler),
        _text=text,
        _clip=clip,
    )


def own_text(clip: ClipEncoder) -> OpenClipText:
    """Return the text tower of a CLIP."""
    if not isinstance(clip.tokenizer, WordTokenizer):
        raise ModelError("The demo CLIP has no vocabulary.json: restore its folder.")
    n_tokens, width = clip.model.positional_embedding.shape
    return OpenClipText(clip.model, clip.tokenizer, int(n_tokens), int(width))
