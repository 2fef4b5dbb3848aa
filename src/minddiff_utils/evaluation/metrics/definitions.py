"""What each metric is: its rule, network, settings, and who publishes it.

The settings of networks are `perception`'s, repeated in words because the judge may not
import what the simulated brain is built with; a test holds the two together.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import pandas as pd

from minddiff_utils.core.errors import check_choice

__all__ = ["METRICS", "Metric", "Rule", "definitions", "metrics_of", "with_settings"]

#: How a metric follows from pixels or from a network's embeddings.
Rule = Literal[
    "pixels",
    "cosine",
    "distance",
    "two_way_by_reconstruction",
    "two_way_by_truth",
    "frechet",
]


@dataclass(frozen=True)
class Metric:
    """What a score is.

    Attributes
    ----------
    label : str
        Its words.
    judge_role : str
        The role of its network elsewhere.
    higher_is_better : bool
        False for distances.
    network : str or None
        Name of the embedder it needs, None for pixels.
    rule : str
        How it follows from the embeddings.
    settings : str
        Layer, input size, interpolation, crop, normalisation and weights, in words.
    used_by : str
        Published code with this metric and these settings.
    on_request : bool
        True where it is scored only if asked for by name, because it is slow.
    """

    label: str
    judge_role: str
    higher_is_better: bool = True
    network: str | None = None
    rule: Rule = "pixels"
    settings: str = ""
    used_by: str = ""
    on_request: bool = False


# --- roles, layers and weights ----------------------------------------------------

_INDEPENDENT = "independent judge"
_METHOD = "took part in the method"
_NO_NETWORK = "no network"
_SIMULATED = (
    "took part in the simulated brain of in-silico subjects; independent judge for real"
    " subjects"
)
_SISTER = (
    "independent judge of the demo models; image side of the CLIP whose text side is"
    " Stable Diffusion v1-4's text encoder"
)
_OURS = "none of these"
_MINDEYE = "MindEye1, MindEye2, MindBridge"
_OMNI = "Mind-Omni (whose images pass through 224 px)"
_BD = "Brain-Diffuser"
_TAKAGI = "none of these; the rule is Takagi and Nishimoto's, their layers are not"
_NO_FID = "none of these; pytorch-fid has other weights of this network"
_STAND_IN = "none of these; a stand-in that needs no download"
_JUDGE_SETTINGS = (
    "image embedding of the judge CLIP; resized to its input size, bicubic; no crop;"
    " its own mean and SD"
)
_METHOD_SETTINGS = _JUDGE_SETTINGS.replace("judge CLIP", "method's own CLIP")

_SMOOTH = "bilinear with antialiasing; no crop"
_PILLOW = "bilinear in 8 bits (Pillow); no crop"
_IMAGENET = "ImageNet mean and SD; weights IMAGENET1K_V1"
_ALEX2 = "AlexNet features[4] (after the ReLU of convolution 2); resized to"
_ALEX5 = "AlexNet features[11] (after the ReLU of convolution 5); resized to"
_INCEPTION = "Inception v3 avgpool; resized to"
_CLIP = "CLIP ViT-L/14 image embedding; resized to"
_OPENAI = "CLIP mean and SD; weights of OpenAI"
_EFFNET = "EfficientNet-B1 avgpool; resized to"
_SWAV = "ResNet-50 avgpool; resized to"
_SWAV_WEIGHTS = "ImageNet mean and SD; weights SwAV, 800 epochs"
_LITE_INPUT = (
    "resized to 112 px, bicubic in 8 bits (Pillow); no crop; (value - 127) / 128;"
    " weights of TensorFlow, ImageNet"
)


def _pixels(
    label: str, settings: str, used_by: str, *, on_request: bool = False
) -> Metric:
    return Metric(
        label, _NO_NETWORK, settings=settings, used_by=used_by, on_request=on_request
    )


def _two_way(
    network: str,
    words: str,
    settings: str,
    used_by: str = _MINDEYE,
    role: str = _INDEPENDENT,
) -> Metric:
    return Metric(
        f"two-way identification, {words}, each reconstruction among truths",
        role,
        network=network,
        rule="two_way_by_reconstruction",
        settings=settings,
        used_by=used_by,
    )


def _by_truth(
    network: str, words: str, settings: str, role: str = _INDEPENDENT
) -> Metric:
    return Metric(
        f"two-way identification, {words}, each truth among reconstructions",
        role,
        network=network,
        rule="two_way_by_truth",
        settings=settings,
        used_by=_TAKAGI,
    )


def _distance(
    network: str, words: str, settings: str, used_by: str, role: str = _INDEPENDENT
) -> Metric:
    return Metric(
        f"correlation distance, {words}",
        role,
        higher_is_better=False,
        network=network,
        rule="distance",
        settings=settings,
        used_by=used_by,
    )


# --- the metrics ------------------------------------------------------------------

_OWN: Mapping[str, Metric] = {
    "clip_judge": Metric(
        "CLIP similarity, judge CLIP",
        _INDEPENDENT,
        network="clip_judge",
        rule="cosine",
        settings=_JUDGE_SETTINGS,
        used_by="the rule is MindDiffuser's, by secondary notes; its CLIP is not known",
    ),
    "clip_method": Metric(
        "CLIP similarity, the method's own CLIP",
        _METHOD,
        network="clip_method",
        rule="cosine",
        settings=_METHOD_SETTINGS,
        used_by=_OURS,
    ),
    "ssim_2d": _pixels(
        "SSIM, gray, 2-D", "at the size given; Gaussian window, sigma 1.5 px", _OURS
    ),
    "ssim_percolumn_legacy": _pixels(
        "SSIM, gray, mean over 1-D columns (scikit-image <= 0.19)",
        "at the size given; Gaussian window, sigma 1.5 px",
        _OURS,
    ),
    "pcc": _pixels("pixel correlation, RGB", "at the size given", _OURS),
    "two_way_by_reconstruction": Metric(
        "two-way identification, each reconstruction among truths",
        _INDEPENDENT,
        network="clip_judge",
        rule="two_way_by_reconstruction",
        settings=_JUDGE_SETTINGS,
        used_by=_OURS,
    ),
    "two_way_by_truth": Metric(
        "two-way identification, each truth among reconstructions",
        _INDEPENDENT,
        network="clip_judge",
        rule="two_way_by_truth",
        settings=_JUDGE_SETTINGS,
        used_by=_OURS,
    ),
    "fid_judge": Metric(
        "Fréchet distance, judge CLIP features",
        _INDEPENDENT,
        higher_is_better=False,
        network="clip_judge",
        rule="frechet",
        settings=_JUDGE_SETTINGS,
        used_by=_OURS,
    ),
}

_VIA_425 = "resized to 256 px, then 425 px, bilinear with antialiasing"
_AT_425: Mapping[str, Metric] = {
    "pcc_425": _pixels(
        "pixel correlation, RGB, 425 px", _VIA_425, _MINDEYE, on_request=True
    ),
    "ssim_2d_425": _pixels(
        "SSIM, gray, 2-D, 425 px",
        f"{_VIA_425}; Gaussian window, sigma 1.5 px",
        "MindEye1, MindEye2",
        on_request=True,
    ),
    "ssim_percolumn_legacy_425": _pixels(
        "SSIM, gray, mean over 1-D columns, 425 px",
        f"{_VIA_425}; Gaussian window, sigma 1.5 px",
        f"{_BD} (but for its bicubic resizing)",
        on_request=True,
    ),
}

_AT_256 = f"256 px, {_SMOOTH}; {_IMAGENET}"
_AT_342 = f"256 px, then 342 px, {_SMOOTH}; {_IMAGENET}"
_AT_255 = f"256 px, then 255 px, {_SMOOTH}; {_IMAGENET}"
_AT_224 = f"256 px, then 224 px, {_SMOOTH}"
_CLIP_SETTINGS = f"{_CLIP} {_AT_224}; {_OPENAI}"
#: The field's metrics under MindEye's settings, and two-way scores by Takagi's rule.
_PUBLISHED: Mapping[str, Metric] = {
    "alexnet2": _two_way("alexnet2", "AlexNet 2", f"{_ALEX2} {_AT_256}"),
    "alexnet5": _two_way("alexnet5", "AlexNet 5", f"{_ALEX5} {_AT_256}"),
    "inception": _two_way("inception", "Inception", f"{_INCEPTION} {_AT_342}"),
    "clip_l14": _two_way("clip_l14", "CLIP ViT-L/14", _CLIP_SETTINGS, role=_SISTER),
    "effnet_b1_v1": _distance(
        "effnet_b1_v1", "EfficientNet-B1, weights V1", f"{_EFFNET} {_AT_255}", _OMNI
    ),
    "effnet_b1_v2": _distance(
        "effnet_b1_v2",
        "EfficientNet-B1, weights V2",
        f"{_EFFNET} {_AT_255}".replace("1K_V1", "1K_V2"),
        _MINDEYE,
    ),
    "swav": _distance("swav", "SwAV", f"{_SWAV} {_AT_224}; {_SWAV_WEIGHTS}", _MINDEYE),
    "alexnet2_by_truth": _by_truth("alexnet2", "AlexNet 2", f"{_ALEX2} {_AT_256}"),
    "alexnet5_by_truth": _by_truth("alexnet5", "AlexNet 5", f"{_ALEX5} {_AT_256}"),
    "inception_by_truth": _by_truth(
        "inception", "Inception", f"{_INCEPTION} {_AT_342}"
    ),
    "clip_l14_by_truth": _by_truth(
        "clip_l14", "CLIP ViT-L/14", _CLIP_SETTINGS, _SISTER
    ),
    "fid_inception": Metric(
        "Fréchet distance, Inception features (torchvision's weights)",
        _INDEPENDENT,
        higher_is_better=False,
        network="inception_fid",
        rule="frechet",
        settings=f"{_INCEPTION} 299 px, {_SMOOTH}; {_IMAGENET}",
        used_by=_NO_FID,
    ),
}

_BD_224 = f"224 px, {_PILLOW}; {_IMAGENET}"
#: The same under Brain-Diffuser's settings: 224 px for every network.
_BRAIN_DIFFUSER: Mapping[str, Metric] = {
    "alexnet2_bd": _two_way("alexnet2_bd", "AlexNet 2", f"{_ALEX2} {_BD_224}", _BD),
    "alexnet5_bd": _two_way("alexnet5_bd", "AlexNet 5", f"{_ALEX5} {_BD_224}", _BD),
    "inception_bd": _two_way(
        "inception_bd", "Inception", f"{_INCEPTION} {_BD_224}", _BD
    ),
    "clip_l14_bd": _two_way(
        "clip_l14_bd",
        "CLIP ViT-L/14",
        f"{_CLIP} 224 px, {_PILLOW}; {_OPENAI}",
        _BD,
        _SISTER,
    ),
    "effnet_b1_bd": _distance(
        "effnet_b1_bd", "EfficientNet-B1, weights V1", f"{_EFFNET} {_BD_224}", _BD
    ),
    "swav_bd": _distance(
        "swav_bd", "SwAV", f"{_SWAV} 224 px, {_PILLOW}; {_SWAV_WEIGHTS}", _BD
    ),
}

_LATE = f"EfficientNet-Lite0 avgpool; {_LITE_INPUT}"
#: What can be had without a download.
_LITE0: Mapping[str, Metric] = {
    "lite0_early": _two_way(
        "lite0_early",
        "Lite0 early",
        f"EfficientNet-Lite0 block 5 (40 x 14 x 14); {_LITE_INPUT}",
        _STAND_IN,
        _SIMULATED,
    ),
    "lite0_middle": _two_way(
        "lite0_middle",
        "Lite0 middle",
        f"EfficientNet-Lite0 block 11 (112 x 7 x 7); {_LITE_INPUT}",
        _STAND_IN,
        _SIMULATED,
    ),
    "lite0_late": _two_way("lite0_late", "Lite0 late", _LATE, _STAND_IN, _SIMULATED),
    "lite0_distance": _distance(
        "lite0_late", "Lite0 late", _LATE, _STAND_IN, _SIMULATED
    ),
}
#: Every metric of the tables, in the order in which they are shown.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {**_OWN, **_AT_425, **_PUBLISHED, **_BRAIN_DIFFUSER, **_LITE0}
)


# --- tables -----------------------------------------------------------------------


def metrics_of(network: str) -> dict[str, Metric]:
    """Return the metrics that follow from the embedder `network`, by name.

    Raises
    ------
    ConfigError
        No metric uses an embedder of that name.
    """
    known = dict.fromkeys(m.network for m in METRICS.values() if m.network is not None)
    check_choice(network, tuple(known), "an embedder's name")
    return {name: m for name, m in METRICS.items() if m.network == network}


def definitions(
    absent: Mapping[str, str], *, extra: Collection[str] = ()
) -> pd.DataFrame:
    """Return the table of definitions: every metric, and whether it is scored.

    Parameters
    ----------
    absent : mapping of str
        Embedder -> why it is not there (`Perception.absent`, and what else the caller
        did not give to `score_methods`).
    extra : collection of str
        Metrics on request that were asked for.

    Returns
    -------
    DataFrame
        Columns metric, label, network, settings, used_by, judge_role,
        higher_is_better, state; `state` is "scored" or the sentence that says why not.
    """
    rows = [
        {
            "metric": name,
            "label": metric.label,
            "network": metric.network or "none",
            "settings": metric.settings,
            "used_by": metric.used_by,
            "judge_role": metric.judge_role,
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
