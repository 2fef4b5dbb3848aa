"""What each metric is: its rule, network, settings, and who publishes it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import pandas as pd

from minddiff_utils.core.errors import check_choice
from minddiff_utils.evaluation.metrics.embedders import EMBEDDERS

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


# --- the metrics ------------------------------------------------------------------

_INDEPENDENT = "independent judge"
#: What else the network of a metric does, by its architecture; else independent.
_ROLES = {
    "clip_l14": "independent judge of the demo models; image side of the CLIP whose"
    " text side is Stable Diffusion v1-4's text encoder",
    "lite0": "took part in the simulated brain of in-silico subjects; independent judge"
    " for real subjects",
}
_LABELS: Mapping[Rule, str] = {
    "two_way_by_reconstruction": "two-way identification, {}, each reconstruction among"
    " truths",
    "two_way_by_truth": "two-way identification, {}, each truth among reconstructions",
    "distance": "correlation distance, {}",
    "frechet": "Fréchet distance, {}",
}
_OURS = "none of these"
_TAKAGI = "none of these; the rule is Takagi and Nishimoto's, their layers are not"
_SEEN_BY_JUDGE = (
    "image embedding of the judge CLIP; resized to its input size, bicubic; no crop;"
    " its own mean and SD"
)
_AT_SIZE = "at the size given"
_VIA_425 = "resized to 256 px, then 425 px, bilinear with antialiasing"
_WINDOW = "; Gaussian window, sigma 1.5 px"


def _pixels(label: str, settings: str, used_by: str) -> Metric:
    on_request = settings.startswith(_VIA_425)
    return Metric(
        label, "no network", settings=settings, used_by=used_by, on_request=on_request
    )


def _judged(label: str, rule: Rule, used_by: str = _OURS) -> Metric:
    return Metric(
        label,
        _INDEPENDENT,
        rule != "frechet",
        "clip_judge",
        rule,
        _SEEN_BY_JUDGE,
        used_by,
    )


_COLUMNS = "SSIM, gray, mean over 1-D columns"
_OWN: Mapping[str, Metric] = {
    "clip_judge": _judged(
        "CLIP similarity, judge CLIP",
        "cosine",
        "the rule is MindDiffuser's, by secondary notes; its CLIP is not known",
    ),
    "clip_method": Metric(
        "CLIP similarity, the method's own CLIP",
        "took part in the method",
        network="clip_method",
        rule="cosine",
        settings=_SEEN_BY_JUDGE.replace("judge CLIP", "method's own CLIP"),
        used_by=_OURS,
    ),
    "ssim_2d": _pixels("SSIM, gray, 2-D", _AT_SIZE + _WINDOW, _OURS),
    "ssim_percolumn_legacy": _pixels(
        f"{_COLUMNS} (scikit-image <= 0.19)", _AT_SIZE + _WINDOW, _OURS
    ),
    "pcc": _pixels("pixel correlation, RGB", _AT_SIZE, _OURS),
    "two_way_by_reconstruction": _judged(
        "two-way identification, each reconstruction among truths",
        "two_way_by_reconstruction",
    ),
    "two_way_by_truth": _judged(
        "two-way identification, each truth among reconstructions", "two_way_by_truth"
    ),
    "fid_judge": _judged("Fréchet distance, judge CLIP features", "frechet"),
    "pcc_425": _pixels(
        "pixel correlation, RGB, 425 px", _VIA_425, "MindEye1, MindEye2, MindBridge"
    ),
    "ssim_2d_425": _pixels(
        "SSIM, gray, 2-D, 425 px", _VIA_425 + _WINDOW, "MindEye1, MindEye2"
    ),
    "ssim_percolumn_legacy_425": _pixels(
        f"{_COLUMNS}, 425 px",
        _VIA_425 + _WINDOW,
        "Brain-Diffuser (but for its bicubic resizing)",
    ),
}


_IDENTIFY = ("alexnet2", "alexnet5", "inception", "clip_l14")
_LITE0_DEPTHS = ("lite0_early", "lite0_middle", "lite0_late")
#: Metric -> how it follows from which embedder: the field's under MindEye's settings,
#: two-way scores by Takagi's rule, `_bd` under Brain-Diffuser's, then what can be had
#: without a download.
_FOLLOWS: Mapping[str, tuple[Rule, str]] = {
    **{name: ("two_way_by_reconstruction", name) for name in _IDENTIFY},
    **{name: ("distance", name) for name in ("effnet_b1_v1", "effnet_b1_v2", "swav")},
    **{f"{name}_by_truth": ("two_way_by_truth", name) for name in _IDENTIFY},
    "fid_inception": ("frechet", "inception_fid"),
    **{f"{k}_bd": ("two_way_by_reconstruction", f"{k}_bd") for k in _IDENTIFY},
    **{name: ("distance", name) for name in ("effnet_b1_bd", "swav_bd")},
    **{name: ("two_way_by_reconstruction", name) for name in _LITE0_DEPTHS},
    "lite0_distance": ("distance", "lite0_late"),
}


def _published() -> Iterator[tuple[str, Metric]]:
    for name, (rule, network) in _FOLLOWS.items():
        embedder = EMBEDDERS[network]
        yield (
            name,
            Metric(
                _LABELS[rule].format(embedder.label),
                _ROLES.get(embedder.network, _INDEPENDENT),
                higher_is_better=rule not in ("distance", "frechet"),
                network=network,
                rule=rule,
                settings=embedder.settings,
                used_by=_TAKAGI if rule == "two_way_by_truth" else embedder.used_by,
            ),
        )


#: Every metric of the tables, in the order in which they are shown.
METRICS: Mapping[str, Metric] = MappingProxyType({**_OWN, **dict(_published())})


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
        Embedder -> why it is not there (`Networks.absent`, and what else the caller
        did not give to `score_methods`).
    extra : collection of str
        Metrics on request that were asked for.

    Returns
    -------
    DataFrame
        Columns metric, label, network, settings, used_by, judge_role,
        higher_is_better, state; `state` is "scored" or the sentence that says why not.
    """
    columns = ["label", "network", "settings", "used_by", "judge_role"]
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
