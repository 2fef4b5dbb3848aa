"""What is used of torchvision, diffusers, transformers and open_clip.

The one place where they are imported. torchvision comes first: its compiled operators
are missing beside some builds of torch, and then its import, and with it those of the
others, would fail.
"""

import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from minddiff_utils.core.errors import ModelError

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
    UNet2DConditionModel,
)
from open_clip.model import CLIP  # noqa: E402
from open_clip.tokenizer import SimpleTokenizer  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: E402

__all__ = [
    "CLIP",
    "Autoencoder",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTokenizer",
    "SafetensorError",
    "Scheduler",
    "SimpleTokenizer",
    "UNet",
    "load_file",
    "load_torchvision",
]

#: diffusers' classes, whose type annotations are incomplete.
Autoencoder: Any = AutoencoderKL
UNet: Any = UNet2DConditionModel
Scheduler: Any = DDIMScheduler
