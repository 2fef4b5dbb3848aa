"""Can a moving scene be read from fMRI: clips decoded frame by frame.

What notebook 09 calls. In-silico clips are measured and written as runs, read back, and
decoded in three ways: every volume as a picture; lags as bands of a ridge; and these
with a temporal prior on z. Not here: the clips (`insilico.clips`), and what is claimed
of them (`evaluation.claims`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.images import to_uint8
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Doubles, Floats, Images, IntArray, Ints, Matrix
from minddiff_utils.datasets.bids_runs import BidsRun, read_runs
from minddiff_utils.decoding import BandedRidge
from minddiff_utils.evaluation.further.naming import mean_of_others
from minddiff_utils.evaluation.metrics import score_rows
from minddiff_utils.evaluation.metrics.embeddings import (
    pairwise_correlation,
    share_beaten,
)
from minddiff_utils.evaluation.metrics.pixels import ssim_2d
from minddiff_utils.evaluation.subject_scores import Models, each_subject
from minddiff_utils.features import image_features, semantic_features
from minddiff_utils.insilico import clips as simulated
from minddiff_utils.insilico.clips import N_FRAMES, Timing, make_clip
from minddiff_utils.insilico.ground_truth import read_truth
from minddiff_utils.insilico.image_features import FIELD_DEG
from minddiff_utils.insilico.noise import Noise
from minddiff_utils.insilico.true_brain import TrueBrain, read_brain
from minddiff_utils.models import Backbone
from minddiff_utils.studies.again import BATCH, sampled

__all__ = [
    "METHODS",
    "SHOWN",
    "SPEEDS",
    "banded",
    "design",
    "direction",
    "how_fast",
    "motion",
    "order_name",
    "study",
    "temporal_ssim",
]

#: Seconds for which a frame is shown; images are made at `SHOWN`.
SPEEDS, SHOWN = (0.25, 0.5, 1.0, 2.0, 4.0), 1.0
#: Ways to decode; the first is what the others are compared with.
METHODS = ("picture", "one_lag", "lags", "lags_prior")
#: After a frame, seconds: its volumes, and the one that is taken for its picture.
LAGS, PEAK = (3.0, 5.0, 7.0, 9.0), (5.0,)
#: Clips that train, validate and test, for each one whose images are made; and in how
#: many runs they train, each held out once where penalties are chosen.
_PARTS, _N_RUNS = (6, 1, 2), 4
#: Principal axes that are decoded, and which of a clip's frames train.
_AXES, _EVERY = {"z": 60, "c": 20, "motion": 40}, 2
#: Temporal priors to choose from: width in frames, noise over signal.
_WIDTHS, _NOISES = (1.0, 2.0, 4.0, 8.0), (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
#: Penalties over the mean squared length of a row, and how many shares are tried.
_ALPHAS, _N_SHARES = 10.0 ** np.arange(-3, 4), 12
#: Times that training clips and all others are shown, as in CC2017; runs are means.
_REPEATS = (2, 10)

#: Scores (n_clips,) of a method by metric, with their floor.
_Scores = dict[tuple[str, str], tuple[Doubles, Any]]


# --- clips and runs -------------------------------------------------------------------


@dataclass(frozen=True)
class _Clips:
    """Clips of a subject.

    `images` (n, n_frames, S, S, 3), `z` (n, n_frames, n_z) and `c` (n, n_c) of the
    truth; `responses` (n, n_frames, n_voxels), noiseless; `noise`: which voxels share
    noise; `noise_sd` (n_voxels,): of a picture's single trial; `part`: rows that train,
    validate and test.
    """

    images: Images
    z: Matrix
    c: Matrix
    responses: Matrix
    noise: Noise
    noise_sd: Matrix
    part: Mapping[str, IntArray]


def _draw(run: Run, subject: int, backbone: Backbone) -> _Clips:
    n = np.cumsum(np.multiply(_PARTS, run.profile.ablation.n_images)).tolist()
    parts = np.split(np.arange(n[-1]), n[:-1])
    clips = [make_clip(run.profile.seed, index) for index in range(n[-1])]
    images = np.stack([clip.images for clip in clips])
    flat = images.reshape(-1, *images.shape[2:])
    z = image_features(backbone, flat, (), batch_size=BATCH)["z"]
    texts = np.array([clip.captions for clip in clips])
    brain = _brain_of(run, subject)
    loadings = read_truth(run.tree.nsd, subject).noise
    ncsnr = brain.brain.ncsnr[brain.rows]
    return _Clips(
        images,
        z.reshape(len(clips), N_FRAMES, -1),
        semantic_features(backbone, texts, batch_size=BATCH),
        brain(flat).reshape(len(clips), N_FRAMES, -1),
        Noise(loadings.smooth[brain.rows], loadings.aligned[brain.rows]),
        (1 / np.sqrt(1 + ncsnr**2)).astype(np.float32),
        dict(zip(("train", "validation", "test"), parts, strict=True)),
    )


def _brain_of(run: Run, subject: int) -> TrueBrain:
    voxel_ijk = replace(run, subject=subject).read("responses")["voxel_ijk"]
    brain = read_brain(run.tree.nsd, subject, voxel_ijk)
    if brain is None:
        raise DataError(
            f"{run.tree.nsd} has no in-silico brain to show clips to: run notebook 09"
            " with profile demo or smoke, after notebook 00."
        )
    return brain


def _recorded(run: Run, subject: int, clips: _Clips, timing: Timing) -> list[BidsRun]:
    """Measure all clips, write the runs and read them back: those that train first."""
    task, rng_name = f"clips{round(1000 * timing.frame)}ms", "noise of volumes"
    trains = np.array_split(clips.part["train"], _N_RUNS)
    shown = [*trains, clips.part["validation"], clips.part["test"]]
    sd = clips.noise_sd * simulated.trial_noise_per_volume(timing.tr)
    repeats = [_REPEATS[0]] * _N_RUNS + [_REPEATS[1]] * 2
    runs = []
    for number, rows in enumerate(shown):
        rng = run.stream(rng_name, subject, task, number)
        of_mean = sd / np.sqrt(repeats[number])
        given = (clips.responses[rows], timing, clips.noise, of_mean)
        bold = simulated.measure(*given, rng=rng)
        runs.append((bold, simulated.events(rows.tolist(), timing)))
    folder = run.tree.derived(subject) / "clips"
    simulated.write_runs(folder, subject, task, runs, timing.tr)
    return read_runs(folder, subject, task)


# --- decoding -------------------------------------------------------------------------


def design(run: BidsRun, lags: Sequence[float], *, nearest: bool = False) -> Matrix:
    """Return the volumes at some lags after the middle of each frame, side by side.

    (n_clips, n_frames, n_lags * n_voxels), lag by lag, interpolated between volumes, or
    of `nearest` the one volume that is nearest. Each voxel is standardised over its
    run.
    """
    sd = run.bold.std(axis=0)
    bold = (run.bold - run.bold.mean(axis=0)) / np.where(sd > 0, sd, 1)
    middle = run.events["onset"] + run.events["duration"] / 2
    at = (middle.to_numpy()[:, None] + np.asarray(lags)) / run.tr
    at = np.clip(np.rint(at) if nearest else at, 0, len(bold) - 1)
    first = np.floor(at).astype(int)
    share = (at - first).astype(np.float32)[..., None]
    after = np.minimum(first + 1, len(bold) - 1)
    found = np.asarray(bold[first] * (1 - share) + bold[after] * share, np.float32)
    return found.reshape(-1, N_FRAMES, found.shape[1] * found.shape[2])


def banded(
    X: Sequence[Matrix], Y: Sequence[tuple[Matrix, int]], n_bands: int
) -> list[list[Matrix]]:
    """Return what ridge with a penalty for each band reads of each feature.

    Parameters
    ----------
    X : sequence of (n_clips, ..., n_bands * n_voxels)
        Of each run, band by band; the first `_N_RUNS` train, each held out once to
        choose penalties.
    Y : sequence of (n_clips, ..., n_features) and int
        Features of the training clips, and how many of their principal axes are read.
    n_bands : int

    Returns
    -------
    list of list of (n_clips, ..., n_features)
        Of each feature, of each further run.
    """
    train = np.concatenate(X[:_N_RUNS])
    rows = train.reshape(-1, train.shape[-1])
    flat = [values.reshape(len(rows), -1) for values, _ in Y]
    axes = [_axes(one, most) for one, (_, most) in zip(flat, Y, strict=True)]
    parts = [own.transform(one) for own, one in zip(axes, flat, strict=True)]
    power = float(np.square(rows, dtype=np.float64).sum(axis=1).mean())
    ridge = BandedRidge(
        bands=np.repeat(np.arange(n_bands), rows.shape[1] // n_bands),
        alphas=(power * _ALPHAS).tolist(),
        n_samples=_N_SHARES if n_bands > 1 else 1,
        n_folds=_N_RUNS,
    ).fit(rows, np.concatenate(parts, axis=1))
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]
    read: list[list[Matrix]] = [[] for _ in Y]
    for held in X[_N_RUNS:]:
        found = ridge.predict(held.reshape(-1, held.shape[-1]))
        for k, part in enumerate(np.split(found, ends, axis=1)):
            made = axes[k].inverse_transform(part)
            read[k].append(made.reshape(*held.shape[:-1], -1))
    return read


def _axes(rows: Matrix, most: int) -> Any:
    """Return the principal axes of some features, as many as there can be."""
    n = min(most, len(rows) - 1, rows.shape[1])
    return PCA(n, svd_solver="randomized", random_state=0).fit(rows)


def smoother(width: float, noise: float) -> Doubles:
    """Return the matrix of a Gaussian process's posterior mean over a clip's frames.

    (n_frames, n_frames). The process is what a frame differs in from the mean of its
    clip, which stays: squared-exponential of `width` frames; `noise`: variance of what
    was decoded over that of the process.
    """
    apart = np.subtract.outer(np.arange(N_FRAMES), np.arange(N_FRAMES))
    kernel = np.exp(-((apart / width) ** 2) / 2)
    mean = np.full_like(kernel, 1 / N_FRAMES)
    rest = np.eye(N_FRAMES) - mean
    posterior = np.linalg.solve(kernel + noise * np.eye(N_FRAMES), kernel)
    return np.asarray(mean + rest @ posterior @ rest)


def temporal_prior(found: Floats, truth: Floats) -> Doubles:
    """Return the smoother that brings decoded validation clips nearest to the truth.

    The one that changes nothing is among those to choose from. Both: (n_clips,
    n_frames, n_features).
    """
    among = [np.eye(N_FRAMES)]
    among += [smoother(width, noise) for width in _WIDTHS for noise in _NOISES]
    errors = [np.square(one @ found - truth).sum() for one in among]
    return among[int(np.argmin(errors))]


#: z (n, n_frames, n_z) and c (n, n_frames, n_c) of the test clips, by method.
_Decoded = dict[str, tuple[Matrix, Matrix]]


def _decode(runs: Sequence[BidsRun], clips: _Clips) -> _Decoded:
    """Return what is read of the test clips in each way, and the truth."""
    train, val, test = clips.part.values()
    n_axes, z = _AXES, clips.z
    c = np.repeat(clips.c[:, None], N_FRAMES, axis=1)
    X = [design(one, PEAK, nearest=True) for one in runs]
    thin = [x[:, ::_EVERY] for x in X[:_N_RUNS]]  # neighbours teach little
    Y = [(z[train, ::_EVERY], n_axes["z"]), (c[train, ::_EVERY], n_axes["c"])]
    of_z, of_c = banded([*thin, *X[_N_RUNS:]], Y, 1)
    found = {"picture": (of_z[1], of_c[1])}
    mean = z.mean(axis=1)
    apart = z - mean[:, None]
    for method, lags in (("one_lag", PEAK), ("lags", LAGS)):
        X = [design(one, lags) for one in runs]
        Y = [(mean[train], n_axes["z"]), (clips.c[train], n_axes["c"])]
        of_mean, of_c = banded([x.mean(axis=1) for x in X], Y, len(lags))
        X = [x - x.mean(axis=1, keepdims=True) for x in X]
        thin = [x[:, ::_EVERY] for x in X[:_N_RUNS]]
        Y = [(apart[train, ::_EVERY], n_axes["motion"])]
        (moved,) = banded([*thin, *X[_N_RUNS:]], Y, len(lags))
        text = np.repeat(of_c[1][:, None], N_FRAMES, axis=1)
        found[method] = of_mean[1][:, None] + moved[1], text
    prior = temporal_prior(moved[0], apart[val]).astype(np.float32)
    found["lags_prior"] = prior @ found["lags"][0], text
    return found | {"true": (z[test], c[test])}


# --- measures -------------------------------------------------------------------------


def order_name(frame: float) -> str:
    """Return the metric of the order of frames that are shown for `frame` seconds.

    >>> order_name(0.25)
    'frame_order_250'
    """
    return f"frame_order_{round(1000 * frame)}"


def frame_order(found: Floats, truth: Floats) -> Doubles:
    """Return the share of pairs of frames in order, of each clip in each one's truth.

    (n, n); of its own on the diagonal. A pair is in order where exchanging the decoded
    frames would bring them further from the true ones; where it changes nothing it
    counts half. What all clips share, an object that is in the middle half-way, is
    worth something: the truth of other clips tells how much. Both: (n, n_frames,
    n_features).
    """
    inner, least = _inner(found, truth)
    i, j = np.triu_indices(truth.shape[1], 1)
    gain = inner[..., i, i] + inner[..., j, j] - inner[..., i, j] - inner[..., j, i]
    tie = np.abs(gain) <= least[..., None]
    return np.asarray(np.where(tie, 0.5, gain > 0).mean(axis=2))


def direction(found: Floats, truth: Floats) -> Doubles:
    """Return whether each clip is nearer to each one's truth than to it reversed.

    (n, n) of 0, 1, or a half where it is as near; what does not change when time is
    reversed has no part in it, so that chance is a half. Both as in `frame_order`.
    """
    inner, least = _inner(found, truth)
    k = np.arange(truth.shape[1])
    gain = (inner[..., k, k] - inner[..., k, k[::-1]]).sum(axis=2)
    return np.asarray(np.where(np.abs(gain) <= least, 0.5, gain > 0))


def _inner(found: Floats, truth: Floats) -> tuple[Doubles, Doubles]:
    """Return products of all frames, (n, n, n_frames, n_frames), and what is a tie."""
    n, n_frames = truth.shape[:2]
    decoded, true = (Y.reshape(n * n_frames, -1).astype(float) for Y in (found, truth))
    inner = (decoded @ true.T).reshape(n, n_frames, n, n_frames).swapaxes(1, 2)
    size = [np.linalg.norm(Y, axis=2).max(axis=1) for Y in (found, truth)]
    return inner, 1e-6 * np.multiply.outer(*size)  # features are float32


def motion(images: Images) -> Floats:
    """Return what each frame differs in from the mean of its clip, float, as images."""
    frames = images.astype(np.float64)
    return np.asarray(frames - frames.mean(axis=1, keepdims=True))


def temporal_ssim(found: Images, truth: Images) -> Doubles:
    """Return the mean SSIM of differences between successive frames, (n,).

    Differences are images, halved about middle gray. A clip that stands still has the
    score of plain gray, which is high where little moves: show it beside. Both: uint8
    (n, n_frames, S, S, 3).
    """
    steps = [_steps(images) for images in (found, truth)]
    scores = ssim_2d(*(one.reshape(-1, *one.shape[2:]) for one in steps))
    return np.asarray(scores.reshape(steps[0].shape[:2]).mean(axis=1))


def _steps(images: Images) -> Images:
    step = np.diff(images.astype(np.int16), axis=1)
    return ((step + 255) // 2).astype(np.uint8)


def _score(made: Mapping[str, Images], truth: Images) -> _Scores:
    found: _Scores = {}
    n = len(truth)
    for method, images in made.items():
        found[method, "temporal_ssim"] = _with_next(images, truth)
        for name, look in (("clip", np.asarray), ("motion", motion)):
            flat = [look(x).reshape(n, -1).astype(np.float64) for x in (truth, images)]
            beaten = share_beaten(pairwise_correlation(*flat))
            found[method, f"two_way_{name}"] = np.asarray(beaten), 0.5
    still = np.repeat(truth[:, :1], truth.shape[1], axis=1)
    return found | {("still", "temporal_ssim"): _with_next(still, truth)}


def _with_next(images: Images, truth: Images) -> tuple[Doubles, Doubles]:
    """Return temporal SSIM with the own truth, and with that of the next clip."""
    other = np.roll(truth, 1, axis=0)
    return temporal_ssim(images, truth), temporal_ssim(images, other)


# --- images ---------------------------------------------------------------------------


def _made(
    run: Run, subject: int, backbone: Backbone, decoded: _Decoded, clips: Ints
) -> dict[str, Images]:
    """Return stage 1 of each frame of clips: pictures each from a noise of its own."""
    made = {}
    for method in ("picture", "lags_prior", "true"):
        frames = range(N_FRAMES) if method == "picture" else [0] * N_FRAMES
        images = []
        for k, n in enumerate(clips.tolist()):
            names = [("noise of a clip", subject, n, frame) for frame in frames]
            streams = [run.torch_stream(*name) for name in names]
            clip = [x[k] for x in decoded[method]]
            images.append(to_uint8(sampled(run, backbone, clip, streams)))
        made[method] = np.stack(images)
    return made


def _study_subject(
    run: Run, subject: int, models: Models
) -> tuple[pd.DataFrame, dict[str, Images]]:
    clips = _draw(run, subject, models.backbone)
    test = clips.part["test"]
    scores: _Scores = {}
    shown = test[: run.profile.ablation.n_images]
    for frame in SPEEDS:
        runs = _recorded(run, subject, clips, Timing(frame))
        decoded = _decode(runs, clips)
        name = order_name(frame)
        reverse = name.replace("frame_order", "direction")
        measures = {name: frame_order, reverse: direction}
        for method, (metric, measure) in product(METHODS, measures.items()):
            share = measure(decoded[method][0], clips.z[test])
            scores[method, metric] = share.diagonal(), mean_of_others(share)
        if frame == SHOWN:
            made = _made(run, subject, models.backbone, decoded, shown)
            scores |= _score(made, clips.images[shown])
    tables = [
        score_rows(method, test[: len(value)], metric, value, floor)
        for (method, metric), (value, floor) in scores.items()
    ]
    columns = ["subject", "method", "nsd_id", "metric", "value", "floor"]
    table = pd.concat(tables, ignore_index=True).assign(subject=str(subject))
    return table[columns], {"seen": clips.images[shown], **made}


def study(run: Run, subjects: Sequence[int]) -> tuple[pd.DataFrame, dict[str, Images]]:
    """Return the scores of every subject's clips, and images of the first subject.

    Columns subject, method, nsd_id (the clip), metric, value, floor (other clips in the
    truth's place). Methods: `METHODS`; of images picture, lags_prior, true, stage 1 of
    the true features, and still, the first frame of the truth for all. Metrics:
    `order_name` of each of `SPEEDS`, direction_250 and so on; of images, at `SHOWN`,
    temporal_ssim, and two-way identification of clips by pixels: two_way_clip,
    two_way_motion. Images: method, or seen -> uint8 (n, n_frames, S, S, 3).
    """
    found = each_subject(run, subjects, _study_subject)
    tables = [table for table, _ in found.values()]
    return pd.concat(tables, ignore_index=True), found[subjects[0]][1]


def how_fast(means: pd.DataFrame, methods: Sequence[str], share: float) -> list[str]:
    """Say from which duration on the order of frames is shown to be above `share`.

    Of each method: at that and all longer ones of `SPEEDS` the interval lies above.
    `means`: rows of `summarise` of one subject or of "all".
    """
    lines = []
    for method in methods:
        low = means[means["method"] == method].set_index("metric")["ci_low"]
        slowest_first = sorted(SPEEDS, reverse=True)
        shown = [bool(low[order_name(frame)] > share) for frame in slowest_first]
        n = [*shown, False].index(False)
        words = "at none of these speeds"
        if n:
            clip = Timing(slowest_first[n - 1]).clip
            degrees = simulated.PATH * FIELD_DEG / clip
            words = f"clips of {clip:g} s and slower, {degrees:.2f} degrees per s"
        lines.append(f"{method}: {words}")
    return lines
