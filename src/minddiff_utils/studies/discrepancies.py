"""What the paper's text and the released code differ in, and what each is worth.

27 differences were found in the code (commit c9773ac). Each that is a switch is turned
alone, from what the paper says towards what the code does, and its effect is paired
with the other side on the same images: decoders are fitted again to all targets, stage
1 makes images of what they say, and Algorithm 1's loop runs with one thing changed
(`stage2_arms`). The others are listed, with the reason why they have no effect that can
be measured here. The command is `minddiff study --part discrepancies`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.profile import DecodingConfig, Profile
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Doubles, IntArray, Matrix
from minddiff_utils.decoding import RidgeGCV, VoxelSelectedRidge, fit
from minddiff_utils.decoding.refits import likeness
from minddiff_utils.decoding.scores import feature_correlation, nanmean
from minddiff_utils.decoding.targets import TargetScaling
from minddiff_utils.evaluation.metrics import score_rows
from minddiff_utils.evaluation.summaries import contrast_table
from minddiff_utils.features import image_features
from minddiff_utils.models import Backbone, load_backbone
from minddiff_utils.studies.again import BATCH, Arms, Features, Subject
from minddiff_utils.studies.discrepancy_list import listed

__all__ = [
    "METRICS",
    "conclusions",
    "effects",
    "per_image",
    "read_again",
    "read_effects",
]

#: What effects are shown in, in words: accuracy of decoding, then final images.
METRICS: Mapping[str, str] = {
    "r_c": "r of c",
    "r_z": "r of z",
    "r_clip": "r of Z_CLIP",
    "ssim_2d": "SSIM",
    "pcc": "PCC",
    "clip_judge": "CLIP (judge)",
}
#: An effect on accuracy moves a conclusion beyond this; those of images have the
#: margins of the study.
MARGIN_R = 0.02
#: Voxels that the released code loads for those that it trains with.
_VOXELS = {"c": 125 / 450, "z": 4000 / 3000}


# --- decoders, fitted again -----------------------------------------------------------


def _ridges(config: DecodingConfig, names: Any, **share: float) -> dict[str, Any]:
    """Return the paper's decoder of each feature, with a share of its voxels."""
    n_voxels = {"c": config.n_feat_c, "z": config.n_feat_z}
    wanted = {n: n_voxels.get(n, config.n_feat_clip) * share.get(n, 1) for n in names}
    return {
        name: VoxelSelectedRidge(config.alpha, max(1, round(n)), config.dtype)
        for name, n in wanted.items()
    }


def _standardised(X: Matrix, like: Matrix) -> Matrix:
    """Return responses in units of the mean and SD of some, each voxel its own."""
    scale = like.std(0)
    return np.asarray((X - like.mean(0)) / np.where(scale > 0, scale, 1), np.float32)


def decoded_again(
    X_train: Matrix,
    X_test: Matrix,
    X_held: Matrix,
    Y_train: Features,
    config: DecodingConfig,
) -> dict[str, dict[str, Matrix]]:
    """Return what decoders say of the test images, by switch, then by feature.

    "dense": ridge on all voxels; "paper_decoder": FastL2LiR's, responses standardised
    on training images; and of that one "own_scaling": test responses standardised by
    themselves; "scaled_on_all": c and z, standardised on validation images too;
    "voxels": c and z, the numbers of voxels that the code loads.

    Parameters
    ----------
    X_train, X_test, X_held : (n_images, n_voxels) float32
        Responses to training, test and validation images.
    Y_train : mapping of (n_train, n_targets) float32
    config : DecodingConfig
    """
    some = {name: Y_train[name] for name in ("c", "z")}
    X, X_new, X_own = (
        _standardised(*pair)
        for pair in ((X_train, X_train), (X_test, X_train), (X_test, X_test))
    )
    every = np.concatenate([X_train, X_held])
    X_every, X_new_every = (_standardised(part, every) for part in (X_train, X_test))
    ridges, dense = _ridges(config, Y_train), dict.fromkeys(Y_train, RidgeGCV())
    paper, loaded = fit(ridges, X, Y_train), _ridges(config, some, **_VOXELS)
    scaled = fit(_ridges(config, some), X_every, some)
    return {
        "dense": fit(dense, X, Y_train).predict_units(X_new),
        "paper_decoder": paper.predict_units(X_new),
        "own_scaling": paper.predict_units(X_own),
        "scaled_on_all": scaled.predict_units(X_new_every),
        "voxels": fit(loaded, X, some).predict_units(X_new),
    }


def _by_group(values: Mapping[str, Doubles]) -> dict[str, Doubles]:
    """Return scores of images by metric, (n_images,): CLIP layers are averaged."""
    clip = [own for name, own in values.items() if name.startswith("clip/")]
    found = {f"r_{name}": own for name, own in values.items() if name in ("c", "z")}
    return found | ({"r_clip": np.mean(clip, axis=0)} if clip else {})


def _accuracy(Y_hat: Features, truth: Features, scaling: Any) -> dict[str, Doubles]:
    """Return r of each image over standardised targets, by metric."""
    pairs = {
        name: (scaling[name].apply(truth[name]), scaling[name].apply(Y))
        for name, Y in Y_hat.items()
    }
    return _by_group({n: likeness(*pair).diagonal() for n, pair in pairs.items()})


def per_image(statistic: Callable[[IntArray], float], n: int) -> Doubles:
    """Return a number for each image, of a statistic that all images have together.

    Their mean is the statistic; Student's interval of that mean is the jackknife's.
    `statistic`: of some of n images, by their rows.
    """
    rows = np.arange(n)
    left = np.array([statistic(np.delete(rows, k)) for k in rows])
    return np.asarray(statistic(rows) + (n - 1) * (left.mean() - left))


def _mean_r(
    truth: Matrix, Y_hat: Matrix, size: Callable[[Doubles], Doubles]
) -> Callable[[IntArray], float]:
    """Return what gives the mean over targets of the size of r, over some images."""
    return lambda rows: nanmean(size(feature_correlation(truth[rows], Y_hat[rows])))


def _score_forms(
    Y_hat: Features, truth: Features, scaling: Mapping[str, TargetScaling]
) -> dict[str, dict[str, Doubles]]:
    """Return the score of decoding in the forms of paper and code, by method, metric.

    "signed", "absolute": the mean over targets of r over images, or of its size; both
    also of "other", where each prediction is of the next image; "three_scores": of c, r
    over targets in their own units, of z the mean product of standardised values.
    """
    rows = np.arange(len(truth["c"]))
    found: dict[str, dict[str, Doubles]] = {}
    for end, order in (("", rows), ("_other", np.roll(rows, -1))):
        for form, size in (("signed", np.asarray), ("absolute", np.abs)):
            values = {
                name: per_image(_mean_r(truth[name], Y[order], size), len(rows))
                for name, Y in Y_hat.items()
            }
            found[form + end] = _by_group(values)
    z = [scaling["z"].apply(Y["z"]) for Y in (truth, Y_hat)]
    c = likeness(truth["c"], Y_hat["c"]).diagonal()
    found["three_scores"] = {"r_c": c, "r_z": (z[0] * z[1]).mean(1).astype(float)}
    return found


# --- of one subject -------------------------------------------------------------------


def read_again(run: Run, backbone: Backbone, n: int) -> tuple[Arms, Arms, pd.DataFrame]:
    """Fit the decoders of all switches, and score what they say of the test images.

    `run`: of one subject; `n`: images that the arms make, the first ones. Returned are
    what all arms start from but "imagenet", which has the second, and scores of
    decoding by image.
    """
    layers = run.profile.features.clip_layers
    own = Subject.read(run, run.subject or 0, backbone, layers)
    truth, decoded = own.features("true"), own.features("decoded")
    held = own.stored["betas"][own.stored["split"] == "validation"]
    again = decoded_again(own.X, own.X_test, held, own.Y, run.profile.decoding)
    (other, seen_by_other), clip, accuracy = _imagenet(own)
    scaling = {name: TargetScaling.fit(Y) for name, Y in own.Y.items()}
    scores = {name: _accuracy(Y, truth, scaling) for name, Y in again.items()}
    scores |= _score_forms(decoded, truth, scaling)
    seen = {k: Y for k, Y in decoded.items() if k.startswith("clip/")}
    scores |= {"loop": _accuracy(seen, truth, scaling), "imagenet": accuracy}
    ids = own.stored["nsd_id"][own.test]
    tables = [
        score_rows(method, ids, metric, values)
        for method, by_metric in scores.items()
        for metric, values in by_metric.items()
    ]
    first = np.arange(len(own.test))[:n]
    cut = {arm: {k: Y[first] for k, Y in said.items()} for arm, said in again.items()}
    cut_clip = {k: (Y[first], scale) for k, (Y, scale) in clip.items()}
    return (
        Arms(run, backbone, first, cut),
        Arms(other, seen_by_other, first, {}, cut_clip),
        pd.concat(tables, ignore_index=True).assign(subject=str(run.subject)),
    )


def _imagenet(own: Subject) -> tuple[tuple[Run, Backbone], Any, dict[str, Doubles]]:
    """Return CLIP that sees images by ImageNet's mean and SD, and Z_CLIP decoded of it.

    By the decoder of the run; with its accuracy.
    """
    run, profile = own.run, own.run.profile
    layers, models = profile.features.clip_layers, profile.models
    models = models.model_copy(update={"normalisation": "imagenet"})
    other = replace(run, profile=profile.model_copy(update={"models": models}))
    backbone = load_backbone(models, run.tree.models)
    images = own.images.of(np.concatenate([own.train, own.test]))
    both = image_features(backbone, images, layers, batch_size=BATCH)
    Y_train, truth = (
        {f"clip/{k}": both[f"clip/{k}"][rows] for k in layers}
        for rows in (slice(len(own.train)), slice(len(own.train), None))
    )
    ridges: Any = dict.fromkeys(Y_train, RidgeGCV())
    if profile.decoder != "dense":
        ridges = _ridges(profile.decoding, Y_train)
    Y_hat = fit(ridges, own.X, Y_train).predict_units(own.X_test)
    scaling = {name: TargetScaling.fit(Y) for name, Y in Y_train.items()}
    clip = {k: (Y_hat[f"clip/{k}"], scaling[f"clip/{k}"]) for k in layers}
    return (other, backbone), clip, _accuracy(Y_hat, truth, scaling)


# --- what it says ---------------------------------------------------------------------


def effects(scores: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Return the 27 differences, each with the effects of its switches.

    `scores`: of decoding and of images, by subject, method, nsd_id, metric. Columns
    number, switch, those of `summaries.contrast_table` over all subjects (the code's
    side minus the paper's), margin, moves, why, paper, code. `moves` a conclusion:
    "yes" where the interval lies beyond the margin, "no" where it lies within, else
    "open"; a difference without an effect has no numbers, and says `why`.
    """
    known = scores[scores["metric"].isin(METRICS)]
    rows, sides = listed(), ["method", "reference"]
    switched = rows.loc[rows["method"] != "", sides]
    pairs = [(str(method), str(reference)) for method, reference in switched.to_numpy()]
    sure = profile.evaluation.confidence
    table = contrast_table(known, pairs, confidence=sure)
    table = table[table["subject"] == "all"].drop(columns="subject")
    margins = dict.fromkeys(METRICS, MARGIN_R) | profile.study.margins
    table["margin"] = table["metric"].map(margins)
    low, high, margin = table["ci_low"], table["ci_high"], table["margin"]
    beyond = (low > margin) | (high < -margin)
    within = (low > -margin) & (high < margin)
    table["moves"] = np.select([beyond, within], ["yes", "no"], "open")
    table = rows.merge(table, "left", on=sides)
    is_lost = table["value"].isna() & (table["why"] == "")
    return table.assign(why=table["why"].mask(is_lost, "not run"))


def read_effects(run: Run) -> pd.DataFrame | None:
    """Return the kept table of `effects`, None where it has not been made."""
    path = run.tree.study / "discrepancies.csv"
    if not path.is_file():
        return None
    table = store.read_table(path, ["number", "method", "reference", "metric", "moves"])
    text = ["number", "switch", "method", "reference", "metric", "moves", "why"]
    return table.assign(subject="all", **table[text].astype(object).fillna(""))


def conclusions(table: pd.DataFrame) -> list[str]:
    """Return which differences move a conclusion, a line for each answer."""
    words = {"yes": "Move a conclusion", "open": "Open", "no": "Move none"}
    lines, left = [], list(dict.fromkeys(table["number"]))
    for answer, start in words.items():
        own = table[table["moves"] == answer].groupby("number")["metric"].unique()
        told = [
            n if answer == "no" else f"{n} ({', '.join(own[n])})"
            for n in left
            if n in own.index
        ]
        lines.append(f"{start}: {'; '.join(told) or 'none'}.")
        left = [n for n in left if n not in own.index]
    return [*lines, f"No effect was measured: {', '.join(left) or 'none'}."]
