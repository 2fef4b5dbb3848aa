"""Moving scenes: clips, their responses in time, files of runs, decoding with lags."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Tree
from minddiff_utils.datasets.bids_runs import BidsRun, read_runs
from minddiff_utils.decoding import BandedRidge
from minddiff_utils.insilico import clips
from minddiff_utils.insilico.clips import N_FRAMES, Timing
from minddiff_utils.insilico.noise import Noise
from minddiff_utils.pipeline.graph import make_plan
from minddiff_utils.studies import video

N_VOXELS = 60
SILENT = Noise(np.zeros((N_VOXELS, 1), np.float32), np.zeros((N_VOXELS, 1), np.float32))


@pytest.fixture
def rng() -> np.random.Generator:
    return stream(3, "tests", "video")


def _measured(
    responses: np.ndarray, timing: Timing, sd: float, rng: np.random.Generator
) -> np.ndarray:
    return clips.measure(responses, timing, SILENT, np.full(N_VOXELS, sd), rng=rng)


# --- clips and their responses --------------------------------------------------------


def test_an_object_goes_its_way_before_a_scene_that_stays() -> None:
    clip, again = clips.make_clip(7, 3), clips.make_clip(7, 3)
    assert clip.images.shape == (N_FRAMES, 64, 64, 3)
    np.testing.assert_array_equal(clip.images, again.images)
    assert not np.array_equal(clip.images, clips.make_clip(8, 3).images)
    moved = (clip.images != clip.images[0]).any(axis=(0, 3))
    assert 0.05 < moved.mean() < 0.9
    # the middle of what differs from the background goes the length of the path
    scene = np.median(clip.images, axis=0)
    where = np.abs(clip.images - scene).sum(axis=3)
    grid = np.arange(64)
    x, y = (
        (where.sum(axis=axis) * grid).sum(axis=1) / where.sum(axis=(1, 2))
        for axis in (1, 2)
    )
    way = np.array([x[-1] - x[0], -(y[-1] - y[0])])
    ahead = np.array([np.cos(clip.heading), np.sin(clip.heading)])
    assert way @ ahead / np.linalg.norm(way) > 0.9


def test_the_response_to_an_instant_has_area_one_and_peaks_at_five_seconds() -> None:
    t = np.arange(-5, 60, 0.001)
    h = clips.hrf(t)
    assert (h[t <= 0] == 0).all()
    assert h.sum() * 0.001 == pytest.approx(1, abs=1e-4)
    assert t[h.argmax()] == pytest.approx(5.0, abs=0.05)
    assert 10 < t[h.argmin()] < 20  # the undershoot


def test_volumes_are_the_sum_of_the_responses_to_all_frames(
    rng: np.random.Generator,
) -> None:
    timing = Timing(0.7, tr=1.5, rest=3.0)
    responses = rng.normal(size=(2, N_FRAMES, N_VOXELS)).astype(np.float32)
    found = _measured(responses, timing, 0.0, rng)
    step = 0.01
    instants = np.arange(0, timing.n_volumes(2) * timing.tr, step) + step / 2
    shown = np.zeros((len(instants), N_VOXELS))
    for onset, response in zip(
        timing.onsets(2).ravel(), responses.reshape(-1, N_VOXELS), strict=True
    ):
        shown[(instants >= onset) & (instants < onset + timing.frame)] = response
    for volume in (0, 3, 9, len(found) - 1):
        naive = clips.hrf(volume * timing.tr - instants) @ shown * step
        np.testing.assert_allclose(found[volume], naive, atol=2e-3)


def test_noise_has_its_size_and_goes_on_from_volume_to_volume(
    rng: np.random.Generator,
) -> None:
    zeros = np.zeros((200, N_FRAMES, N_VOXELS), np.float32)
    noise = _measured(zeros, Timing(1.0), 0.5, rng)
    assert noise.std() == pytest.approx(0.5, rel=0.02)
    serial = np.mean(noise[1:] * noise[:-1]) / np.mean(noise**2)
    assert serial == pytest.approx(0.3, abs=0.02)  # assumed at two seconds


def test_a_picture_alone_is_estimated_with_the_noise_of_a_trial(
    rng: np.random.Generator,
) -> None:
    tr = 2.0
    regressor = np.convolve(clips.hrf(np.arange(0, 45, 0.01)), np.ones(300)) * 0.01
    r = regressor[: int(40 / 0.01) : int(tr / 0.01)]
    noise = clips.trial_noise_per_volume(tr) * rng.normal(size=(20_000, len(r)))
    assert (noise @ r / (r @ r)).std() == pytest.approx(1, rel=0.03)


# --- files ----------------------------------------------------------------------------


def _write(folder: Path, n_runs: int = 2) -> list[np.ndarray]:
    rng, timing, runs = stream(4, "tests", "runs"), Timing(1.0), []
    for number in range(n_runs):
        bold = rng.normal(size=(timing.n_volumes(2), 5)).astype(np.float32)
        runs.append((bold, clips.events([2 * number, 2 * number + 1], timing)))
    clips.write_runs(folder, 1, "clips", runs, timing.tr)
    return [bold for bold, _ in runs]


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = _write(tmp_path)
    found = read_runs(tmp_path, 1, "clips")
    for bold, run in zip(written, found, strict=True):
        step = np.ptp(bold) / 65_000  # of int16
        np.testing.assert_allclose(run.bold, bold, atol=step)
        assert run.tr == 2.0
    events = found[1].events
    assert events["clip"].tolist() == [2] * N_FRAMES + [3] * N_FRAMES
    assert events["onset"].tolist()[:2] == [0.0, 1.0]
    assert events["onset"].iloc[N_FRAMES] == N_FRAMES + 8.0
    first = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    _write(tmp_path)
    assert all(p.read_bytes() == content for p, content in first.items())


def _run(folder: Path, ending: str, number: int = 2) -> Path:
    return folder / f"sub-01/func/sub-01_task-clips_run-{number}_{ending}"


def _cut(folder: Path) -> None:
    path = _run(folder, "bold.nii.gz")
    path.write_bytes(path.read_bytes()[:-40])


def _say(text: str, ending: str) -> Callable[[Path], object]:
    return lambda folder: _run(folder, ending).write_text(text)


def _nan(folder: Path) -> None:
    bold = np.full((20, 5), 1.0, np.float32)
    bold[3, 2] = np.nan
    table = clips.events([0], Timing(1.0))
    with pytest.MonkeyPatch.context() as patch:
        set_type = "nibabel.Nifti1Image.set_data_dtype"
        patch.setattr(set_type, lambda *_: None)  # int16 has no NaN
        clips.write_runs(folder, 1, "clips", [(bold, table)], 2.0)


BAD = {
    "gone": (
        lambda f: shutil.rmtree(f / "sub-01"),
        "has no file sub-01_task-clips_run",
    ),
    "no description": (
        lambda f: (f / "dataset_description.json").unlink(),
        "Description of BIDS not found",
    ),
    "no sidecar": (lambda f: _run(f, "bold.json").unlink(), "Sidecar not found"),
    "no events": (lambda f: _run(f, "events.tsv").unlink(), "Events not found"),
    "truncated": (_cut, "Volumes at .* is truncated or not as published"),
    "no tr": (_say("{}", "bold.json"), "Sidecar at .*RepetitionTime"),
    "no json": (_say("{", "bold.json"), "Sidecar at .* is truncated"),
    "other tr": (
        _say(json.dumps({"RepetitionTime": 1.5}), "bold.json"),
        "holds a volume every 2 s, but one every 1.5 s",
    ),
    "no time": (
        _say(json.dumps({"RepetitionTime": "2 s"}), "bold.json"),
        "RepetitionTime '2 s', but a number of seconds",
    ),
    "NaN": (_nan, "NaN or infinite values"),
    "no column": (_say("onset\tduration\n0\t1\n", "events.tsv"), "a column clip"),
    "late": (
        _say("onset\tduration\tclip\tframe\n500\t1\t0\t0\n", "events.tsv"),
        "a frame that ends at 501 s",
    ),
    "no number": (
        _say("onset\tduration\tclip\tframe\nn/a\t1\t0\t0\n", "events.tsv"),
        "a time that is no number",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_run_gets_one_sentence(tmp_path: Path, case: str) -> None:
    _write(tmp_path)
    spoil, words = BAD[case]
    spoil(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        read_runs(tmp_path, 1, "clips")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


# --- decoding -------------------------------------------------------------------------


def _bids(bold: np.ndarray, n_clips: int, timing: Timing) -> BidsRun:
    return BidsRun(bold, timing.tr, clips.events(list(range(n_clips)), timing))


def test_the_design_has_the_volumes_after_each_frame(rng: np.random.Generator) -> None:
    timing = Timing(1.0)
    run = _bids(rng.normal(size=(timing.n_volumes(2), 3)), 2, timing)
    standard = (run.bold - run.bold.mean(axis=0)) / run.bold.std(axis=0)
    found = video.design(run, (2.5, 4.0))
    assert found.shape == (2, N_FRAMES, 6)
    # the middle of frame 2 is at 2.5 s: volume 2.5 by one lag, 3.25 by the other
    between = [standard[2:4].mean(axis=0), 0.75 * standard[3] + 0.25 * standard[4]]
    np.testing.assert_allclose(found[0, 2], np.concatenate(between), atol=1e-6)
    near = video.design(run, (4.0,), nearest=True)
    np.testing.assert_allclose(near[0, 2], standard[3], atol=1e-6)


def test_a_ridge_with_lags_as_bands_finds_the_lag(rng: np.random.Generator) -> None:
    timing = Timing(2.0)
    run = _bids(rng.normal(size=(timing.n_volumes(20), 6)), 20, timing)
    X = video.design(run, (3.0, 5.0, 7.0)).reshape(-1, 18)
    Y = X[:, 6:12] @ rng.normal(size=(6, 4))  # the second lag
    ridge = BandedRidge(np.repeat([0, 1, 2], 6), n_samples=12).fit(X, Y)
    assert (ridge.band_scales_.argmax(axis=1) == 1).all()


def _order_at(frame: float, rng: np.random.Generator) -> float:
    """Return the order of frames that voxels see without noise, by lags."""
    n = [12] * 4 + [12, 30]
    z = [rng.normal(size=(k, 1, 4)) for k in n]
    ahead = [rng.normal(size=(k, 1, 4)) for k in n]
    way = np.linspace(-1, 1, N_FRAMES)[:, None]
    z = [(a + way * b).astype(np.float32) for a, b in zip(z, ahead, strict=True)]
    tuning = rng.normal(size=(4, N_VOXELS)).astype(np.float32)
    timing = Timing(frame)
    runs = [
        _bids(_measured(one @ tuning, timing, 1e-3, rng), len(one), timing) for one in z
    ]
    X = [video.design(run, video.LAGS) for run in runs]
    X = [x - x.mean(axis=1, keepdims=True) for x in X]
    apart = np.concatenate([one - one.mean(axis=1, keepdims=True) for one in z[:4]])
    (found,) = video.banded(X, [(apart, 4)], len(video.LAGS))
    return float(video.frame_order(found[1], z[5]).diagonal().mean())


def test_slow_frames_are_put_in_order_and_infinitely_fast_ones_are_not(
    rng: np.random.Generator,
) -> None:
    assert _order_at(4.0, rng) > 0.95
    # 30 clips, whose shares have an SD of .5 at most: three standard errors
    assert abs(_order_at(1e-4, rng) - 0.5) < 3 * 0.5 / np.sqrt(30)


def test_the_order_of_frames_is_a_share_of_pairs(rng: np.random.Generator) -> None:
    truth = np.arange(4.0)[None, :, None] * np.ones((3, 1, 2))
    found = np.stack([truth[0], -truth[0], np.zeros((4, 2))])
    order = video.frame_order(found, truth)
    np.testing.assert_allclose(order, np.repeat([[1], [0], [0.5]], 3, axis=1))
    found = truth[:1, [0, 2, 1, 3]]  # one pair of six is exchanged
    assert video.frame_order(found, truth[:1])[0, 0] == pytest.approx(5 / 6)
    found, truth = rng.normal(size=(2, 50, 8, 3))
    share = [
        np.mean([(f[i] - f[j]) @ (t[i] - t[j]) > 0 for i in range(8) for j in range(i)])
        for f, t in zip(found, np.roll(truth, 1, axis=0), strict=True)
    ]
    order = video.frame_order(found, truth)
    np.testing.assert_allclose(order[np.arange(50), np.arange(-1, 49)], share)
    assert order.mean() == pytest.approx(0.5, abs=0.02)


def test_the_direction_is_right_half_of_the_time_whatever_clips_share(
    rng: np.random.Generator,
) -> None:
    way = np.linspace(-1, 1, N_FRAMES)[:, None]
    ahead = rng.normal(size=(2, 200, 1, 3))
    middle = 3 * way**2 * np.ones(3)  # alike in all clips, and when time is reversed
    found, truth = (middle + way * one for one in ahead)
    others = ~np.eye(200, dtype=bool)
    assert video.direction(found, truth)[others].mean() == pytest.approx(0.5, abs=0.02)
    assert video.frame_order(found, truth)[others].mean() > 0.6
    own = video.direction(truth, truth).diagonal()
    assert (own == 1).all()
    still = np.repeat(truth[:, :1], N_FRAMES, axis=1)
    assert (video.direction(still, truth) == 0.5).all()


def test_a_temporal_prior_never_worsens_a_clip_without_noise(
    rng: np.random.Generator,
) -> None:
    ways = rng.normal(size=(2, 20, 1, 3))
    truth = ways[0] + np.linspace(-1, 1, N_FRAMES)[:, None] * ways[1]
    np.testing.assert_array_equal(video.temporal_prior(truth, truth), np.eye(N_FRAMES))
    noisy = truth + rng.normal(size=truth.shape)
    prior = video.temporal_prior(noisy, truth)
    assert (
        np.square(prior @ noisy - truth).mean() < 0.6 * np.square(noisy - truth).mean()
    )
    # a clip's mean stays, whatever is smoothed
    np.testing.assert_allclose((prior @ noisy).mean(axis=1), noisy.mean(axis=1))


def test_standing_still_has_the_score_of_gray_and_no_motion() -> None:
    seen = np.stack([clips.make_clip(1, k).images for k in range(2)])
    still = np.repeat(seen[:, :1], N_FRAMES, axis=1)
    assert video.temporal_ssim(seen, seen) == pytest.approx([1, 1])
    assert (video.temporal_ssim(still, seen) < 0.98).all()
    assert (video.motion(still) == 0).all()
    assert np.abs(video.motion(seen).mean(axis=1)).max() < 1e-9


def test_how_fast_is_too_fast_is_said_of_all_slower_speeds() -> None:
    low = dict(zip(video.SPEEDS, (0.8, 0.4, 0.76, 0.8, 0.9), strict=True))
    means = pd.DataFrame(
        [("lags", video.order_name(f), v) for f, v in low.items()],
        columns=["method", "metric", "ci_low"],
    )
    (line,) = video.how_fast(means, ["lags"], 0.75)
    assert line.startswith("lags: clips of 8 s and slower")
    (line,) = video.how_fast(means, ["lags"], 0.95)
    assert line == "lags: at none of these speeds"


# --- where it stands ------------------------------------------------------------------


def _stems(profile: str, root: Path, *only: str) -> list[str]:
    plan = make_plan(load_profile(profile), Tree(root, profile, root), {}, only=only)
    return [job.notebook for job in plan.jobs]


def test_notebook_09_runs_in_smoke_and_where_it_is_asked_for(tmp_path: Path) -> None:
    assert "09_video" in _stems("smoke", tmp_path)
    assert "09_video" not in _stems("demo", tmp_path)
    assert _stems("demo", tmp_path, "09") == ["09_video"]
    with pytest.raises(ConfigError, match="leave nothing of profile nsd"):
        _stems("nsd", tmp_path, "09")
    demo = load_profile("demo")
    plan = make_plan(demo, Tree(tmp_path, "demo", tmp_path), {})
    assert all("09_video" not in job.needs for job in plan.jobs)


def test_without_a_simulated_brain_there_is_nothing_to_show_clips_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses = {"voxel_ijk": np.zeros((2, 3), int)}
    monkeypatch.setattr(video, "replace", lambda run, **_: run)
    run = SimpleNamespace(tree=SimpleNamespace(nsd=tmp_path), read=lambda _: responses)
    with pytest.raises(DataError, match="no in-silico brain to show clips to"):
        video._brain_of(run, 1)
