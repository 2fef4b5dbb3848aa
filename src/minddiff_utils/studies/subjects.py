"""What makes subjects differ: their voxels, their signal, or how much there is of it.

What notebook 07 calls. Decoders of c and z are fitted again to less of a subject's
data, to noisier responses of fewer voxels, and to the first minutes of a new subject,
with and without a trained one's help; stage 1 makes images of some. Not here: the
mixed model of images (`core.crossed`), and what is claimed (`evaluation.claims`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.areas import HVC, LVC
from minddiff_utils.core.inference import estimate, jackknife
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Doubles, IntArray, Mask, Matrix
from minddiff_utils.decoding.functional_alignment import NewSubject
from minddiff_utils.decoding.refits import Refits, likeness
from minddiff_utils.decoding.targets import TargetScaling
from minddiff_utils.evaluation.further.naming import mean_of_others
from minddiff_utils.evaluation.images import condition_images, read_stimuli
from minddiff_utils.evaluation.metrics import score_methods, score_rows
from minddiff_utils.evaluation.subject_scores import Models, each_subject, embed_with
from minddiff_utils.evaluation.summaries import Matrices
from minddiff_utils.models import Backbone
from minddiff_utils.preprocessing.image_trials import ImageTrials
from minddiff_utils.studies.again import BATCH, Features, Subject, images_again

__all__ = ["ACCURACIES", "dose_slopes", "doses", "study", "virtual_slopes"]

#: Percent of voxels, trials and sessions; of the rest all are there.
SHARES = (25, 50)
#: Minutes of a new subject's data; one session of NSD has 50.
MINUTES = (12.5, 25.0, 50.0, 100.0, 200.0)
#: Virtual subjects: noise SD of a trial over that of the subject, and percent of its
#: voxels; each subject makes six, another share of voxels with each.
NOISE, VOXELS = (1.0, 2**0.5, 2.0, 2**1.5, 4.0, 2**2.5), (12.5, 25.0, 50.0, 100.0)
#: What images are made of, beside those of virtual subjects.
_PICTURED = (
    *("all", "voxels_25", "trials_25", "sessions_25", "LVC", "HVC"),
    *("own_50", "aligned_50"),
)
#: What a decoder was fitted to; see `study`.
_FACTS = [
    *("method", "trained", "n_voxels", "n_images", "n_trials"),
    *("relative_snr", "voxels_percent"),
]
#: Images of a virtual subject.
_N_VIRTUAL = 8
#: r of the decoded features of an image.
ACCURACIES = ("c_r", "z_r")

#: What was decoded again, and how much of a subject it is from.
Fit = tuple[Features, dict[str, float]]


def _read(
    run: Run, subject: int, backbone: Backbone, kept: dict[int, Subject]
) -> Subject:
    """Return a subject, and keep it: its partner has it for a partner, too."""
    if subject not in kept:
        while len(kept) > 1:  # at NSD's size each has gigabytes
            del kept[next(iter(kept))]
        kept[subject] = Subject.read(run, subject, backbone)
    return kept[subject]


def trained_for(subject: int, subjects: Sequence[int]) -> int | None:
    """Return whose decoders read a new subject; None where there is no other.

    Half of the subjects on, in ascending order, whatever order they are given in.

    >>> [trained_for(s, (7, 1, 5, 2)) for s in (1, 2, 5, 7)]
    [5, 7, 1, 2]
    """
    known = sorted({*subjects, subject})
    place = known.index(subject) + max(1, len(known) // 2)
    return known[place % len(known)] if len(known) > 1 else None


# --- fits -----------------------------------------------------------------------------


def doses(
    trials: ImageTrials, areas: Sequence[str], rng: np.random.Generator
) -> Iterator[tuple[str, Mask, Mask]]:
    """Give how much of a subject is used, by name: which trials, and which voxels.

    All; a quarter and half of voxels, of trials (both drawn), of sessions (the first);
    LVC or HVC alone; the first minutes. What a subject has no room for is left out.
    `areas`, (n_voxels,): name of each voxel's area.
    """
    n_trials, n_voxels = trials.z.shape
    every, whole = np.ones(n_trials, bool), np.ones(n_voxels, bool)
    yield "all", every, whole
    # ranks: a quarter is part of the half
    rank_t, rank_v = rng.permutation(n_trials), rng.permutation(n_voxels)
    sessions = np.unique(trials.session)
    for share in SHARES:
        yield f"voxels_{share}", every, rank_v < n_voxels * share / 100
        yield f"trials_{share}", rank_t < n_trials * share / 100, whole
        if (n := len(sessions) * share // 100) > 0:
            yield f"sessions_{share}", trials.session <= sessions[n - 1], whole
    for name, members in (("LVC", LVC), ("HVC", HVC)):
        if (own := np.isin(areas, members)).any():
            yield name, every, own
    for minutes in MINUTES:
        if minutes < trials.minute[-1] + 1:  # its last trials may be of test images
            yield f"own_{minutes:g}", trials.minute <= minutes, whole


def _fit(
    own: Subject, X: Matrix, rows: IntArray, X_test: Matrix, **facts: float
) -> Fit:
    """Return what decoders say that are fitted to responses X of some images."""
    decoded = Refits(X, X_test, {name: Y[rows] for name, Y in own.Y.items()}).decoded()
    return decoded, {"n_voxels": X.shape[1], "n_images": len(X), **facts}


def _fits(own: Subject, partner: Subject | None) -> Iterator[tuple[str, Fit]]:
    """Give what is decoded of the test responses, by what decoders were fitted to."""
    run, X_test, trials = own.run, own.X_test, own.trials("train")
    areas = np.asarray(own.stored["roi_names"], str)[own.stored["roi"]]
    parts: dict[str, NewSubject] = {}
    rng = run.stream("doses", run.subject or 0)
    for name, keep, voxels in doses(trials, areas, rng):
        X, rows = trials.averaged(keep)
        facts = {"n_trials": int(keep.sum()), "relative_snr": 1.0}
        yield name, _fit(own, X[:, voxels], rows, X_test[:, voxels], **facts)
        if name.startswith("own_"):
            features = {k: Y[rows] for k, Y in own.Y.items()}
            parts[name.replace("own", "aligned")] = NewSubject(X, features)
    if partner is not None and parts:
        read = partner.reads(list(parts.values()), X_test)
        for (name, part), said in zip(parts.items(), read, strict=True):
            shape = dict(zip(("n_images", "n_voxels"), part.X.shape, strict=True))
            yield name, (said, shape)
    if np.bincount(trials.row).max() > 1:
        yield from _virtual(run, own, X_test, trials.noise())


def _virtual(
    run: Run, own: Subject, X_test: Matrix, noise: Matrix
) -> Iterator[tuple[str, Fit]]:
    """Give what is decoded of virtual subjects: with more noise, of fewer voxels.

    The noise that is added was measured: what repeated trials of a training image
    differ by, drawn anew for each response, and so correlated between voxels as it is.
    """
    split, n_repeats = own.stored["split"], own.stored["n_repeats"]
    place = sorted(run.profile.subjects).index(run.subject or 0)
    repeats = n_repeats[split == "train"], n_repeats[split == "test"][: len(X_test)]
    rows = np.arange(len(own.X))
    for k, factor in enumerate(NOISE):
        share = VOXELS[(k + place) % len(VOXELS)]
        rng = run.stream("virtual subject", run.subject or 0, k)
        n = max(2, round(noise.shape[1] * share / 100))
        voxels = np.sort(rng.permutation(noise.shape[1])[:n])
        noisy = []
        for X, times in zip((own.X, X_test), repeats, strict=True):
            drawn = noise[rng.integers(len(noise), size=len(X))][:, voxels]
            scale = np.sqrt((factor**2 - 1) / times)[:, None].astype(np.float32)
            noisy.append(X[:, voxels] + scale * drawn)
        facts = {"relative_snr": 1 / factor, "voxels_percent": share}
        yield f"virtual_{k + 1}", _fit(own, noisy[0], rows, noisy[1], **facts)


# --- scores ---------------------------------------------------------------------------


def _accuracy(
    name: str, said: Features, truth: Features, own: Subject, nsd_id: IntArray
) -> Iterator[pd.DataFrame]:
    """Give r of each image's decoded c and z, and the mean r with other images'."""
    for feature, Y_hat in said.items():
        scaling = TargetScaling.fit(own.Y[feature])
        r = likeness(scaling.apply(Y_hat), scaling.apply(truth[feature]))
        who = name, nsd_id, f"{feature}_r"
        yield score_rows(*who, r.diagonal(), mean_of_others(r))


def study_subject(
    run: Run,
    subject: int,
    models: Models,
    *,
    subjects: Sequence[int],
    beside: Sequence[str],
    kept: dict[int, Subject],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the study of one of some subjects; see `study`."""
    run, backbone = replace(run, subject=subject), models.backbone
    own = _read(run, subject, backbone, kept)
    other, partner = trained_for(subject, subjects), None
    if other is not None:
        partner = _read(run, other, backbone, kept)
    seen = read_stimuli(run, subject).truth
    n, truth = len(seen.nsd_id), own.features("true")
    tables, facts = list[pd.DataFrame](), list[dict[str, Any]]()
    made = [condition_images(run, subject, seen, beside)]
    n_images = run.profile.ablation.n_images or n
    for name, (said, about) in _fits(own, partner):
        tables += _accuracy(name, said, truth, own, seen.nsd_id)
        facts.append({"method": name, "trained": other, **about})
        is_virtual = name.startswith("virtual")
        if is_virtual or name in _PICTURED:
            chosen = np.arange(min(n, n_images, _N_VIRTUAL if is_virtual else n))
            some = {feature: Y[chosen] for feature, Y in said.items()}
            made.append(images_again(run, backbone, chosen, {name: some}))
    judge = {"clip_judge": embed_with(models.judge, BATCH)}
    tables.append(score_methods(subject, chain(*made), seen, judge).table)
    scores = pd.concat(tables, ignore_index=True).dropna(subset="value")
    who = {"subject": str(subject)}
    return scores.assign(**who), pd.DataFrame(facts, columns=_FACTS).assign(**who)


def study(
    run: Run, subjects: Sequence[int], *, beside: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the study of several subjects, as many at once as there are cores.

    `beside`: conditions of the run that are scored, too. The first table has columns
    subject, method, nsd_id, metric, value, floor: c_r and z_r of all images to
    reconstruct (floor: mean r with other images), and the scores of stage 1's images
    of some. Methods: those of `doses`; `aligned_<minutes>`, by the decoders of another
    subject; `virtual_1` and on. The second says what each was fitted to: method,
    n_voxels, n_images, n_trials, relative_snr (of a trial, over the subject's own),
    voxels_percent (of virtual subjects), trained (the other subject), subject.
    """
    about: Any = {"subjects": subjects, "beside": beside, "kept": {}}
    found = each_subject(run, subjects, partial(study_subject, **about))
    scores, facts = zip(*found.values(), strict=True)
    return pd.concat(scores, ignore_index=True), pd.concat(facts, ignore_index=True)


# --- slopes ---------------------------------------------------------------------------

_COLUMNS = ["factor", "metric", "unit", "value", "ci_low", "ci_high", "n"]


def dose_slopes(
    scores: pd.DataFrame, metrics: Sequence[str], *, confidence: float = 0.95
) -> pd.DataFrame:
    """Return what twice as many voxels, trials or sessions add, from a quarter to all.

    Two doublings, of the same images; means over subjects, interval over images.
    Columns factor, metric, unit, value, ci_low, ci_high, n (images).
    """
    made, rows = Matrices(scores), []
    for factor, metric in product(("voxels", "trials", "sessions"), metrics):
        wide = made.contrast("all", f"{factor}_25", metric).dropna(axis=1) / 2
        if wide.size:
            one = estimate(wide, confidence=confidence)
            ends = (one.value, one.low, one.high, one.n_images)
            rows.append((factor, metric, "image", *ends))
    return pd.DataFrame(rows, columns=_COLUMNS)


def virtual_slopes(
    scores: pd.DataFrame,
    facts: pd.DataFrame,
    metrics: Sequence[str],
    *,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return what twice the SNR, and twice the voxels, add over virtual subjects.

    Least squares of each virtual subject's mean on the logarithms to base 2, the
    subject that it is made of a fixed effect; the jackknife over virtual subjects gives
    the interval. Columns as of `dose_slopes`, n counting virtual subjects.
    """
    known = facts[facts["method"].str.startswith("virtual")]
    keys, rows = ["subject", "method"], []
    means = scores.groupby(["metric", *keys])["value"].mean()
    for metric in metrics:
        own = means.xs(metric).rename("value").reset_index()
        table = known.merge(own, on=keys).sort_values(keys)
        dummies = pd.get_dummies(table["subject"]).to_numpy(float)
        doublings = np.log2(table[["relative_snr", "n_voxels"]].to_numpy(float))
        X, y = np.column_stack([doublings, dummies]), table["value"].to_numpy(float)
        for k, factor in enumerate(("SNR", "voxels")):
            if len(X) > X.shape[1] + 1:
                slope = partial(_slope, X, y, k)
                one = jackknife(slope, len(X), confidence=confidence)
                ends = (one.value, one.low, one.high, len(X))
                rows.append((factor, metric, "virtual subject", *ends))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _slope(X: Doubles, y: Doubles, k: int, rows: IntArray) -> Doubles:
    return np.asarray(np.linalg.lstsq(X[rows], y[rows], rcond=None)[0][[k]], np.float64)
