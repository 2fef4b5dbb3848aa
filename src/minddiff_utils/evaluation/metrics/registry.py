"""The one table of metrics and networks: each metric's rule, network and settings.

Published code agrees on the networks but not on input size, resizing and weights, and
leaves the resizing of images to the version of a library: every variant has a name of
its own. The rows stand in `metrics.csv`, `embedders.csv` (layers of networks) and
`weights.csv`; here is what they mean. `pixels` compares images, `networks` looks at
them, `scores` applies the rules.

References
----------
Reconstruction_Metrics.py of MindEye1 and final_evaluations.ipynb of MindEye2, whose
installers resolve to torchvision 0.15, where tensors are resized without antialiasing
(from 0.17 on the same calls have it); evaluate_reconstruction.py of Brain-Diffuser,
whose true images stay at NSD's 425 px.
"""

import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd
from pydantic import TypeAdapter

from minddiff_utils.core.errors import check_choice
from minddiff_utils.core.images import CLIP_MEAN, CLIP_STD

__all__ = [
    "EMBEDDERS",
    "LITE0",
    "METRICS",
    "NORMALISATIONS",
    "Embedder",
    "Metric",
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
Way = Literal["as given", "256 aa", "256 no aa", "425 only"]


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
    that each reconstruction meets for its floor, the next ones, None: all of them;
    `on_request`: it is scored only if asked for by name, because it is slow.
    """

    label: str
    judge_role: str
    network: str | None = None
    rule: Rule = "pixels"
    settings: str = ""
    used_by: str = ""
    path: Way = "as given"
    n_others: int | None = None
    on_request: bool = False

    @property
    def higher_is_better(self) -> bool:
        """False for distances."""
        return self.rule not in ("distance", "frechet")


# --- the rows -----------------------------------------------------------------------

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
#: What a rule adds to the settings of a network.
_TIES: Mapping[Rule, str] = {
    "two_way_by_reconstruction": "; a tie counts half (published code counts it as"
    " lost)",
    "two_way_by_truth": "; a tie counts half; one image per truth (Takagi and"
    " Nishimoto average the correlations of five samples first)",
}


def _rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a table of this folder, without what is left blank."""
    path = Path(__file__).with_name(f"{name}.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def _read_embedders() -> Iterator[tuple[str, Embedder]]:
    weights = {row["file"]: Weights(**row) for row in _rows("weights")}
    for row in _rows("embedders"):
        row["weights"] = weights[row["weights"]]
        row["sizes"] = tuple(map(int, row["sizes"].split()))
        yield row.pop("name"), Embedder(**row)


#: Every embedder by name: MindEye's settings, `_bd` those of Brain-Diffuser, which
#: shows every network 224 px, resized by Pillow.
EMBEDDERS: Mapping[str, Embedder] = MappingProxyType(dict(_read_embedders()))
_LITE0 = [name for name, one in EMBEDDERS.items() if one.network == "lite0"]
#: Depth of Lite0 by embedder; its simulated brain sees them too, in their order.
LITE0 = {name: depth for depth, name in enumerate(_LITE0)}


def _read_metrics() -> Iterator[tuple[str, Metric]]:
    for row in _rows("metrics"):
        name, metric = row.pop("name"), TypeAdapter(Metric).validate_python(row)
        if embedder := EMBEDDERS.get(metric.network or ""):
            words = embedder.settings + _TIES.get(metric.rule, "")
            metric = replace(metric, settings=words)
        yield name, metric


#: Every metric of the tables, in the order in which they are shown.
METRICS: Mapping[str, Metric] = MappingProxyType(dict(_read_metrics()))


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
