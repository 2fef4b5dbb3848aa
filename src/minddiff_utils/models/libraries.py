"""What is used of diffusers, transformers and open_clip; nobody else imports them here.

The one place where they are imported, after torchvision has been made importable.
"""

from typing import Any

from minddiff_utils.models.torchvision import load_torchvision

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
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: E402

__all__ = [
    "CLIP",
    "SOLVERS",
    "Autoencoder",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTokenizer",
    "SafetensorError",
    "Scheduler",
    "SimpleTokenizer",
    "UNet",
    "load_file",
]

#: diffusers' classes, whose type annotations are incomplete.
Autoencoder: Any = AutoencoderKL
UNet: Any = UNet2DConditionModel
Scheduler: Any = DDIMScheduler
#: Solvers by name, with their order.
SOLVERS: dict[str, tuple[Any, int]] = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, 2),
    "dpmpp_3m": (DPMSolverMultistepScheduler, 3),
    "dpmpp_2s": (DPMSolverSinglestepScheduler, 2),
}
