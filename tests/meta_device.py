"""A device that is not the CPU, played by torch's device meta, and the real networks.

A tensor on `meta` has a shape, a dtype and a place, and no values, so Stable Diffusion
v1-4 and the CLIPs fit in no memory and cost no time. What CUDA would refuse is refused
here: an operation on tensors of two devices, a product of two precisions, an operation
that has no deterministic form. What CUDA
would answer, a value that the host asks for, is invented: every number is 0 (as one
value: 1) and every condition holds. Under such answers the code takes the branches of
images that move, get better and lose their numbers, all at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD
from minddiff_utils.models import (
    Backbone,
    Judge,
    backbone,
    clip,
    libraries,
    precision,
    stable_diffusion,
)
from minddiff_utils.models import random as random_models
from minddiff_utils.models.text_encoder import TransformersText

__all__ = ["META", "Elsewhere", "real_backbone", "real_judge"]

META = torch.device("meta")
aten = torch.ops.aten

#: May take tensors of two devices, as on CUDA.
_TRANSFERS = {aten.copy_.default, aten._to_copy.default}
#: Do the work of a network's layer: their numbers must be of one precision.
_LAYERS = {
    *(aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution),
    *(aten.convolution_backward, aten.native_layer_norm, aten.native_group_norm),
    *(aten.native_batch_norm, aten._native_batch_norm_legit_no_training),
}
#: Raise on CUDA under deterministic algorithms: they add in the order of the threads.
_RACING = {
    *(aten._upsample_bicubic2d_aa_backward, aten._upsample_bilinear2d_aa_backward),
    *(aten.upsample_bicubic2d_backward, aten.upsample_bilinear2d_backward),
    *(aten.upsample_linear1d_backward, aten.upsample_trilinear3d_backward),
    *(aten.grid_sampler_2d_backward, aten.reflection_pad2d_backward),
    *(aten.replication_pad2d_backward, aten._adaptive_avg_pool2d_backward),
    *(aten.max_pool2d_with_indices_backward, aten.avg_pool3d_backward),
    *(aten.kthvalue, aten.histc, aten.bincount, aten.put_),
}


class Elsewhere(TorchDispatchMode):
    """Refuses what CUDA would, and answers where it would; counts the layers seen.

    Attributes
    ----------
    layers : int
        Layers of networks that computed on `meta`: a test whose networks did not is
        none.
    precisions : set of torch.dtype
        Of those layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = 0
        self.precisions: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self._check_devices(func, args, tensors)
        self._check_precision(func, tensors)
        assert func.overloadpacket not in _RACING, f"{func} gives other bits each time"
        if any(x.device.type == "meta" for x in tensors):
            answer = _ANSWERS.get(func)
            if answer is not None:
                found = answer(*args, **kwargs)
                if found is not NotImplemented:
                    return found
        return func(*args, **kwargs)

    def _check_devices(self, func: Any, args: Any, tensors: list[Tensor]) -> None:
        if func in _TRANSFERS:
            return
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            # CUDA takes rows that the host counts, the host none that CUDA counts
            first = args[0].device.type
            tensors = [x for x in tensors if x.device.type == "meta" or x is args[0]]
            tensors += [x for x in tree_leaves(args[2:]) if isinstance(x, Tensor)]
            assert first == "meta" or len({x.device for x in tensors}) == 1, func
        kinds = {x.device.type for x in tensors if x.ndim}
        kinds |= {x.device.type for x in tensors if x.device.type == "meta"}
        words = [(tuple(x.shape), str(x.dtype), x.device.type) for x in tensors]
        assert len(kinds) < 2, f"{func} on tensors of two devices: {words}"

    def _check_precision(self, func: Any, tensors: list[Tensor]) -> None:
        if func.overloadpacket not in _LAYERS or tensors[0].device.type != "meta":
            return
        kinds = {x.dtype for x in tensors if x.is_floating_point()}
        assert len(kinds) == 1, f"{func} on tensors of {kinds}"
        self.layers += 1
        self.precisions |= kinds


# --- what the host is told ------------------------------------------------------------


def _invented(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    dtype = dtype or like.dtype
    if dtype == torch.bool:
        return torch.ones(like.shape, dtype=dtype)
    return torch.zeros(like.shape, dtype=dtype)


def _to_copy(x: Tensor, **kwargs: Any) -> Any:
    device = kwargs.get("device")
    if x.device.type != "meta" or device is None or device.type == "meta":
        return NotImplemented
    return _invented(x, kwargs.get("dtype"))


def _copy(target: Tensor, source: Tensor, *_: Any) -> Any:
    if target.device.type == "meta":
        return NotImplemented
    return target.copy_(_invented(source, target.dtype))


def _value(x: Tensor) -> Any:
    return torch.ones((), dtype=x.dtype).item()


def _rows(mask: Tensor) -> Tensor:
    n = mask.numel()
    return torch.zeros((n, mask.ndim), dtype=torch.int64, device="meta")


def _index(x: Tensor, indices: list[Tensor | None]) -> Any:
    """Take all rows where a mask says which."""
    if not any(i is not None and i.dtype == torch.bool for i in indices):
        return NotImplemented
    counted: list[Tensor | None] = []
    for i in indices:
        if i is None or i.dtype != torch.bool:
            counted.append(i)
        else:
            counted += [torch.zeros(i.numel(), dtype=torch.int64, device="meta")] * (
                i.ndim
            )
    return aten.index.Tensor(x, counted)


_ANSWERS: dict[Any, Callable[..., Any]] = {
    aten._to_copy.default: _to_copy,
    aten.copy_.default: _copy,
    aten._local_scalar_dense.default: _value,
    aten.nonzero.default: _rows,
    aten.index.Tensor: _index,
    aten.equal.default: lambda *_: True,
}


# --- the real networks ----------------------------------------------------------------


def real_backbone(dtype: torch.dtype, folder: Path) -> Backbone:
    """Return Stable Diffusion v1-4 and ViT-B/32 on `meta`, the U-Net in `dtype`.

    A tokenizer is written to `folder`.
    """
    random_models.write_tokenizer(folder)
    with torch.device("meta"):
        vae = libraries.Autoencoder(**random_models.VAE)
        unet = libraries.UNet(**random_models.UNET)
        model = libraries.CLIPTextModel(libraries.CLIPTextConfig(**random_models.TEXT))
    seeing = real_clip("ViT-B-32-quickgelu")
    kind = torch.float32
    reading = TransformersText(
        precision.freeze(model, META, kind),
        stable_diffusion._read_tokenizer(folder),
        stable_diffusion.SD14_TOKENS,
        768,
    )
    return backbone.assemble(
        "sd14",
        precision.freeze(vae, META, kind),
        precision.freeze(unet, META, dtype),
        random_models.SCHEDULER,
        reading,
        seeing,
    )


def real_clip(name: str) -> clip.ClipEncoder:
    import open_clip  # after the package, which makes torchvision importable

    with torch.device("meta"):
        model = clip.build_clip(open_clip.get_model_config(name))
    words = open_clip.SimpleTokenizer(context_length=77)
    frozen = precision.freeze(model, META, torch.float32)
    return clip.ClipEncoder(frozen, words, 224, CLIP_MEAN, CLIP_STD)


def real_judge() -> Judge:
    """Return ViT-H/14 on `meta`."""
    return clip.Judge("sd14 judge", real_clip("ViT-H-14"))
