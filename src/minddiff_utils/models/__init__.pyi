from .backbone import Backbone
from .clip import Judge
from .libraries import load_torchvision
from .loading import load_backbone, load_judge
from .precision import find_device, full_float32
from .random import tiny_backbone

__all__ = [
    "Backbone",
    "Judge",
    "find_device",
    "full_float32",
    "load_backbone",
    "load_judge",
    "load_torchvision",
    "tiny_backbone",
]
