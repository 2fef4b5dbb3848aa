"""The rules of the claims: from the tables of a run to the endpoints that decide.

Every rule, margin and bound was fixed before the numbers that it judges were seen;
CHANGELOG.md has the date. A rule with several endpoints asks for all of them. Effects
are averaged over subjects, images are the unit, unless an endpoint says otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from minddiff_utils.core.areas import FEW_VOXELS, high_over_low
from minddiff_utils.core.conditions import floors
from minddiff_utils.core.contrasts import FROM_ALL_THREE
from minddiff_utils.core.inference import Estimate, jackknife
from minddiff_utils.core.types import Doubles, IntArray
from minddiff_utils.evaluation.claims.evidence import (
    SHORT,
    Endpoint,
    Evidence,
    NotTestableError,
    Rule,
    count_words,
    method_words,
)

__all__ = [
    "above",
    "decodable",
    "each_feature",
    "engine_gain",
    "every_subject",
    "image_pairs",
    "paired_images",
    "paper_number",
    "signatures",
    "where_read",
]

#: C1 to C3: our number equals the paper's within this, on at least so many images.
MARGIN_NUMBER, MIN_IMAGES_NUMBER = 0.03, 500
#: C5: a larger loss of judge CLIP is one of semantics.
MARGIN_CLIP = 0.03
#: What is compared of two systems: meaning, then structure.
_METRICS = ("clip_judge", "pcc", "ssim_2d")
#: C6: which metric each feature stands for.
_STANDS_FOR = {"c": "clip_judge", "z": "pcc", "Z_CLIP": "ssim_2d"}


# --- C1 to C3: the paper's numbers ------------------------------------------------


def paper_number(metric: str, paper_value: float) -> Rule:
    """Return the rule: our mean of subject 1 equals the paper's within the margin."""

    def rule(evidence: Evidence) -> list[Endpoint]:
        if evidence.in_silico:
            raise NotTestableError(
                "a simulated subject's number has no match in the paper"
            )
        if metric == "clip_method" and evidence.backbone != "sd14":
            raise NotTestableError(
                "the paper's CLIP (ViT-B/32) is not the method's here"
            )
        wide = pd.DataFrame()
        if len(evidence.table("scores")):
            wide = evidence.matrices().matrix("stage2", metric)
        if "1" not in wide.index:
            raise NotTestableError("subject 1 has no stage-2 scores in this run")
        own = wide.loc[["1"]].dropna(axis=1) - paper_value
        few = f"{own.shape[1]} images, the rule asks for {MIN_IMAGES_NUMBER}"
        if own.shape[1] < MIN_IMAGES_NUMBER:
            raise NotTestableError(few)
        name = f"stage 2 of subject 1 minus {paper_value}"
        near = evidence.mean(own, name, SHORT[metric], few)
        return [replace(near, above=-MARGIN_NUMBER, below=MARGIN_NUMBER)]

    return rule


# --- C4 to C7: images compared with images ------------------------------------------


def above(
    reference: str,
    metrics: Sequence[str] = _METRICS,
    *,
    method: str = "stage2",
    source: str = "scores",
) -> Rule:
    """Return the rule: `method` above `reference` in each of the metrics."""

    def rule(evidence: Evidence) -> list[Endpoint]:
        pair = (method, reference)
        return [evidence.contrast(*pair, metric, source=source) for metric in metrics]

    return rule


def engine_gain(engine: str, reference: str = "stage1") -> Rule:
    """Return the rule of C5 for an engine: structure rises, meaning is kept.

    PCC and SSIM above the reference; a loss of judge CLIP beyond `MARGIN_CLIP`
    excluded. The images are those of this run where it made them, else those of the
    study of this profile. `engine`: paper, released or bayes; `reference`: stage1, or
    stage1_best, the best of N draws of it.
    """

    def rule(evidence: Evidence) -> list[Endpoint]:
        source, method, base = _images_of(evidence, engine, reference)
        bounds = {"pcc": 0.0, "ssim_2d": 0.0, "clip_judge": -MARGIN_CLIP}
        return [
            evidence.contrast(method, base, metric, above=bound, source=source)
            for metric, bound in bounds.items()
        ]

    return rule


#: Names in the study; stage 1 had another one in its first files.
_STUDY_STAGE1, _STUDY_BEST = ("stage1", "none"), ("best_of_n",)


def _images_of(evidence: Evidence, engine: str, reference: str) -> tuple[str, str, str]:
    """Return which table has an engine's images, its method and its reference."""
    scores, study = evidence.table("scores"), evidence.table("study")
    made = set(scores["method"]) if len(scores) else set()
    if evidence.preset == engine and {"stage2", reference} <= made:
        return "scores", "stage2", reference
    arms = set(study["method"]) if len(study) else set()
    for base in _STUDY_STAGE1 if reference == "stage1" else _STUDY_BEST:
        if {engine, base} <= arms:
            return "study", engine, base
    both = f"{method_words(engine)} and {method_words(reference)}"
    raise NotTestableError(f"neither this run nor a study has {both}")


def each_feature(evidence: Evidence) -> list[Endpoint]:
    """Decide C6: without a feature the metric it stands for falls, for all three.

    Each is taken from all three in the steered sampling of stage 1.
    """
    pairs = {
        feature: evidence.contrast(*FROM_ALL_THREE[feature], metric)
        for feature, metric in _STANDS_FOR.items()
    }
    return [replace(e, name=f"with minus without {k}") for k, e in pairs.items()]


def every_subject(evidence: Evidence) -> list[Endpoint]:
    """Decide C7: in every subject stage 2 lies above the highest chance level.

    That of a metric is the condition that knows nothing of the image and has the
    highest mean over subjects, of those made for all images of stage 2: another image's
    brain, permuted voxels, the mean training image, one at random.
    """
    scores = evidence.table("scores")
    if scores.empty or scores["subject"].nunique() < 2:
        n = 0 if scores.empty else scores["subject"].nunique()
        raise NotTestableError(f"the run has {count_words(n, 'subject')}")
    return [e for metric in _METRICS for e in _above_chance(evidence, metric)]


def _above_chance(evidence: Evidence, metric: str) -> Iterator[Endpoint]:
    made = evidence.matrices()
    there = ~np.isnan(made.of("stage2", metric))
    levels = {
        name: float(np.nanmean(level))
        for name in sorted(floors())
        if there.any() and not np.isnan((level := made.of(name, metric))[there]).any()
    }
    if not levels:
        raise NotTestableError("no condition that knows nothing of the image was run")
    highest = max(levels, key=levels.__getitem__)
    apart = made.contrast("stage2", highest, metric)
    for subject in apart.index:
        name = f"subject {subject}: stage 2 minus {method_words(highest)}"
        yield evidence.mean(apart.loc[[subject]], name, SHORT[metric], "no image")


# --- C9: where each feature is read ---------------------------------------------------


def _lowest_layer(table: pd.DataFrame) -> str | None:
    """Return the feature `clip/<layer>` of the lowest layer, if there is one."""
    layers = [str(f) for f in set(table["feature"]) if str(f).startswith("clip/")]
    return min(layers, key=lambda name: int(name.split("/")[1]), default=None)


def where_read(evidence: Evidence) -> list[Endpoint]:
    """Decide C9: c is read from high-level areas, z and the lowest CLIP layer less so.

    For z and for the lowest CLIP layer: the interaction of feature and area in the
    accuracy of single images (from HVC minus from LVC, of c minus of the feature), and
    that in the decoders' patterns (log mean pattern of a voxel in HVC over LVC; unit:
    subject; areas under `FEW_VOXELS` voxels left out). Weights are no endpoint: they
    follow the signal-to-noise ratio (Haufe et al. 2014).
    """
    table = evidence.table("image_accuracy")
    if table.empty or not {"LVC", "HVC"} <= set(table["area_set"]):
        raise NotTestableError("no accuracies of single images from LVC and HVC")
    lowest = _lowest_layer(table)
    if lowest is None:
        raise NotTestableError("no CLIP layer was decoded from LVC and HVC")
    leans = {f: _image_accuracy(table, f, "HVC", "LVC") for f in ("c", "z", lowest)}
    patterns = _log_pattern_ratios(evidence.table("weights"), ("c", "z", lowest))
    endpoints = []
    for feature in ("z", lowest):
        name = f"HVC minus LVC, c minus {feature}"
        apart = leans["c"] - leans[feature]
        why = f"no image has accuracies of c and {feature}"
        endpoints.append(evidence.mean(apart, f"accuracy: {name}", "r", why))
        ratio = patterns["c"] - patterns[feature]
        endpoints.append(evidence.subject_mean(ratio, f"pattern: {name}", "log ratio"))
    return endpoints


def _image_accuracy(
    table: pd.DataFrame, feature: str, area_set: str, minus: str | None = None
) -> pd.DataFrame:
    """Return r of each image, subjects x images, or its difference of two area sets."""
    own = table[(table["feature"] == feature) & (table["area_set"] == area_set)]
    wide = own.pivot(index="subject", columns="nsd_id", values="r")
    if minus is not None:
        wide = wide - _image_accuracy(table, feature, minus)
    if wide.empty:
        raise NotTestableError(f"no accuracy of single images of {feature}")
    return wide


def _log_pattern_ratios(table: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
    """Return log of `high_over_low` of the patterns, subjects x features."""
    if table.empty or "pattern" not in table:
        raise NotTestableError("no patterns of the decoders by area")
    share = high_over_low(table, "pattern", by=("subject", "feature"))
    ratios = share.unstack("feature").reindex(columns=list(features)).apply(np.log)
    if ratios.empty or ratios.isna().to_numpy().any():
        raise NotTestableError(
            f"too few voxels in LVC or HVC (areas under {FEW_VOXELS})"
        )
    return ratios


# --- C10 and C11: accuracy and quality, image by image --------------------------------


def decodable(evidence: Evidence) -> list[Endpoint]:
    """Decide C10: features decode above conditional chance, and quality follows.

    Above chance: r minus its mean with test images permuted among like ones (unit:
    subject), for c, z and the lowest CLIP layer. Following: within a subject, the
    images whose c is read better have the higher judge CLIP in stage 2 (Spearman's rho,
    mean over subjects).
    """
    accuracy = evidence.table("accuracy")
    if accuracy.empty or "r_null_within" not in accuracy:
        raise NotTestableError("no decoding accuracies with a conditional chance level")
    whole = accuracy[accuracy["area_set"] == "all"]
    lowest = _lowest_layer(whole)
    endpoints = []
    for feature in ("c", "z", lowest) if lowest else ("c", "z"):
        own = whole[whole["feature"] == feature]
        above = (own["r_mean"] - own["r_null_within"]).to_numpy(np.float64)
        name = f"{feature} above chance within like images"
        endpoints.append(evidence.subject_mean(above, name, "r"))
    return [*endpoints, _correlated("C10", evidence)]


def signatures(evidence: Evidence) -> list[Endpoint]:
    """Decide C11: what was read of an image tells in which way it fails.

    Over images, within subject: the rank of c's accuracy minus that of z's goes with
    the rank of judge CLIP minus that of PCC in stage 2 (Spearman's rho).
    """
    return [_correlated("C11", evidence)]


#: Claim -> what was read of an image and what became of it, in words, and which
#: features and metrics these are; of two the difference of the ranks.
_IMAGE_LEVEL = {
    "C10": (
        ("accuracy of c, r", "CLIP similarity (judge), stage 2"),
        (("c",), ("clip_judge",)),
    ),
    "C11": (
        ("rank of r of c minus rank of r of z", "rank of CLIP minus rank of PCC"),
        (("c", "z"), ("clip_judge", "pcc")),
    ),
}


def _correlated(claim: str, evidence: Evidence) -> Endpoint:
    (x, y), (words, _) = _image_level(claim, evidence), _IMAGE_LEVEL[claim]
    rho = rank_correlation(x.to_numpy(), y.to_numpy(), confidence=evidence.confidence)
    return Endpoint(" with ".join(words), "Spearman's rho", rho)


def _image_level(claim: str, evidence: Evidence) -> tuple[pd.DataFrame, ...]:
    """Return what C10 or C11 correlates, each subjects x images."""
    _, (features, metrics) = _IMAGE_LEVEL[claim]
    parts = paired_images(evidence, features, metrics)
    n = len(features)
    return tuple(
        part[0] if n == 1 else part[0].rank(axis=1) - part[1].rank(axis=1)
        for part in (parts[:n], parts[n:])
    )


def image_pairs(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """Return what C10 and C11 correlate, image by image, for a figure.

    By claim: columns subject, nsd_id, x, y; `attrs` hold the words of "x" and "y" and
    "rho", the correlation with its interval. Empty where the run lacks them.
    """
    pairs = {}
    for claim, ((x_words, y_words), _) in _IMAGE_LEVEL.items():
        try:
            x, y = _image_level(claim, evidence)
        except NotTestableError:
            continue
        table = pd.DataFrame({"x": x.stack(), "y": y.stack()})
        table = table.rename_axis(["subject", "nsd_id"]).reset_index()
        rho = _correlated(claim, evidence).result_of
        words = f"rho = {rho.value:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}]"
        table.attrs = {"x": x_words, "y": y_words, "rho": words}
        pairs[claim] = table
    return pairs


def paired_images(
    evidence: Evidence,
    features: Sequence[str],
    metrics: Sequence[str],
    method: str = "stage2",
) -> list[pd.DataFrame]:
    """Return accuracies, then a method's scores, on the images of every subject.

    Subjects x images each; there are none, or fewer than 4 images: NotTestableError.
    """
    table = evidence.table("image_accuracy")
    if table.empty or evidence.table("scores").empty:
        raise NotTestableError("no accuracies of single images beside their scores")
    read = [_image_accuracy(table, f, "all").rename(index=str) for f in features]
    scored = [evidence.matrices().matrix(method, m) for m in metrics]
    keys = range(len(read) + len(scored))
    both = pd.concat([*read, *scored], axis=1, join="inner", keys=keys).sort_index()
    complete = both.notna().all().unstack(fill_value=False).all()
    images = [i for i, known in complete.items() if known and len(both)]
    if len(images) < 4:
        raise NotTestableError(
            f"{count_words(len(images), 'image')} with both, 4 at least"
        )
    return [part.loc[both.index, images] for part in (*read, *scored)]


def rank_correlation(x: Doubles, y: Doubles, *, confidence: float = 0.95) -> Estimate:
    """Return the mean over subjects of Spearman's rho over images, with intervals.

    `x`, `y`: float (n_subjects, n_images).
    """

    def rho(rows: IntArray) -> Doubles:
        ranks = [stats.rankdata(part[:, rows], axis=1) for part in (x, y)]
        a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
        scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        return np.asarray((a * b).sum(axis=1) / np.where(scale > 0, scale, np.inf))

    return jackknife(rho, x.shape[1], confidence=confidence)
