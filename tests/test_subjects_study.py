"""Notebook 07: less of a subject, another subject's decoders, and slopes by hand."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.rng import stream
from minddiff_utils.decoding import RidgeGCV
from minddiff_utils.decoding.functional_alignment import NewSubject, TrainedSubject
from minddiff_utils.preprocessing.image_trials import (
    ImageTrials,
    image_trials,
)
from minddiff_utils.reporting.figures import fig_factors
from minddiff_utils.studies import subjects as study

N_IMAGES, N_VOXELS = 60, 44
AREA = np.array(AREAS)[np.arange(N_VOXELS) % len(AREAS)]


@pytest.fixture
def rng() -> np.random.Generator:
    return stream(7, "tests", "subjects")


def _trials(rng: np.random.Generator, n_sessions: int = 4) -> ImageTrials:
    """Return two trials of each image; a session takes 50 minutes, half for others."""
    row = rng.permutation(np.repeat(np.arange(N_IMAGES), 2))
    n = len(row)
    signal = rng.normal(size=(N_IMAGES, N_VOXELS))[row]
    z = (signal + 0.5 * rng.normal(size=signal.shape)).astype(np.float32)
    minute = (np.arange(n) + 1) * 50 * n_sessions / n
    return ImageTrials(z, row, np.arange(n) * n_sessions // n + 1, minute)


# --- less of a subject ----------------------------------------------------------------


def test_doses_are_nested_shares_and_whole_areas(rng: np.random.Generator) -> None:
    trials = _trials(rng)
    made = {n: (t, v) for n, t, v in study.doses(trials, AREA, rng)}
    assert {n: (t.mean(), v.mean()) for n, (t, v) in made.items() if "_" in n} == {
        **{f"voxels_{share}": (1, share / 100) for share in (25, 50)},
        **{f"trials_{share}": (share / 100, 1) for share in (25, 50)},
        **{f"sessions_{share}": (share / 100, 1) for share in (25, 50)},
        **{f"own_{m:g}": pytest.approx((m / 200, 1), abs=0.01) for m in study.MINUTES},
    }
    for factor, which in (("voxels", 1), ("trials", 0), ("sessions", 0)):
        less, more = (made[f"{factor}_{share}"][which] for share in (25, 50))
        assert not (less & ~more).any()
    assert (trials.session[made["sessions_50"][0]] <= 2).all()
    assert (trials.minute[made["own_25"][0]] <= 25).all()
    for name, members in (("LVC", LVC), ("HVC", HVC)):
        assert set(AREA[made[name][1]]) == set(members)
    assert made["all"][0].all()
    assert made["all"][1].all()


def test_what_a_subject_has_no_room_for_is_left_out(rng: np.random.Generator) -> None:
    one = _trials(rng, 1)
    names = {name for name, *_ in study.doses(one, ["V1"] * N_VOXELS, rng)}
    assert {"own_50", "trials_25", "LVC"} <= names
    assert not names & {"sessions_25", "sessions_50", "own_100", "HVC"}
    means = replace(one, minute=np.full(len(one.row), np.nan))
    names = {name for name, *_ in study.doses(means, AREA, rng)}
    assert not any(name.startswith("own") for name in names)


def test_averages_and_noise_of_trials_are_those_by_hand(
    rng: np.random.Generator,
) -> None:
    trials = _trials(rng)
    keep = rng.random(len(trials.row)) < 0.4
    X, rows = trials.averaged(keep)
    assert rows.tolist() == sorted(set(trials.row[keep].tolist()))
    for mean, row in zip(X, rows, strict=True):
        own = trials.z[keep & (trials.row == row)]
        np.testing.assert_allclose(mean, own.mean(axis=0), rtol=1e-5, atol=1e-6)
    # 60 images x 44 voxels: an SD of .5 within 2 %, more than three standard errors
    assert trials.noise().std() == pytest.approx(0.5, rel=0.05)


def test_trials_of_training_images_alone_are_read(
    rng: np.random.Generator,
) -> None:
    """Averaged, they are what notebook 01 writes; no test image is among them."""
    ids, split = np.array([5, 6, 7, 8]), np.array(["train", "test", "train", "test2"])
    image = np.array([6, 5, 7, 5, 8, 7, 6, 5])
    z = rng.normal(size=(8, 3)).astype(np.float32)
    units = SimpleNamespace(
        position=np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]), are_voxels=True,
        grid=(2, 2, 2), at=lambda _: units, units=None,
    )  # fmt: skip
    trials = SimpleNamespace(session=np.ones(8, int), image_id=image)
    trials.of = lambda _: trials
    data_set = SimpleNamespace(
        are_averaged=False,
        units=lambda *_: units,
        sessions=lambda *_: (1,),
        trials=lambda *_: trials,
        responses=lambda *_: z,
        scaled=np.copy,
        test_images=lambda _: np.array([6, 8]),
    )
    data = SimpleNamespace(voxels="areas", session_numbers=(1,), zscore_on="train")
    stored = {"split": split, "nsd_id": ids, "voxel_ijk": units.position}
    found = image_trials(data_set, 1, data, stored)
    assert found.row.tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_allclose(found.minute, np.array([2, 3, 4, 6, 8]) / 15)
    own = z[np.isin(image, [5, 7])]
    scaled = (own - own.mean(axis=0)) / own.std(axis=0, ddof=1)
    np.testing.assert_allclose(found.z, scaled, rtol=1e-4, atol=1e-5)
    test = image_trials(data_set, 1, data, stored, "test")
    assert test.row.tolist() == [0, 0]  # image 6, the first and the seventh trial
    both = (z[[0, 6]] - own.mean(axis=0)) / own.std(axis=0, ddof=1)
    np.testing.assert_allclose(test.z, both, rtol=1e-4, atol=1e-5)


def test_the_first_trials_are_averaged_in_time_order(rng: np.random.Generator) -> None:
    z, row = rng.normal(size=(6, 4)).astype(np.float32), np.array([2, 0, 2, 0, 2, 3])
    trials = ImageTrials(z, row, np.ones(6, int), np.arange(6.0))
    for n in (1, 2, 3):
        found = trials.first(n)
        assert np.isnan(found[1]).all()
        for image in (0, 2, 3):
            mean = z[np.flatnonzero(row == image)[:n]].mean(axis=0)
            np.testing.assert_allclose(found[image], mean, rtol=1e-6)


def test_the_figure_does_without_trials_and_without_other_subjects() -> None:
    """Responses that are averages have no minutes and no virtual subjects."""
    numbers = {"value": 0.3, "ci_low": 0.2, "ci_high": 0.4}
    means = pd.DataFrame([
        {"subject": "1", "method": m, "metric": k, **numbers, "n_images": 6,
         "n_subjects": 1} for m in ("all", "voxels_25") for k in study.ACCURACIES
    ])  # fmt: skip
    facts = pd.DataFrame({"subject": "1", "method": ["all"]})
    facts = facts.reindex(columns=["subject", *study._FACTS])
    slopes = pd.DataFrame(columns=["model", "metric", "feature", "value"])
    figure = fig_factors(means, slopes, facts, {"pcc": "PCC"})
    figure.canvas.draw()
    points = [sum(len(line.get_xdata()) for line in a.lines) for a in figure.axes]
    assert [n > 2 for n in points] == [False, True, False, False]  # 2: the zero line
    means = means.assign(method=means["method"].replace("all", "LVC"))
    with pytest.raises(DataError, match="all data"):
        fig_factors(means, slopes, facts, {"pcc": "PCC"})


# --- another subject's decoders -------------------------------------------------------


def _brains(rng: np.random.Generator, noise: float = 0.3) -> SimpleNamespace:
    """Return two subjects with images of their own; the second is the first, turned."""
    features = rng.normal(size=(3, 150, 8))
    code = rng.normal(size=(8, 24))
    turn = stats.ortho_group.rvs(24, random_state=3)
    signals = [features[0] @ code, features[1] @ code @ turn, features[2] @ code @ turn]
    X = [(s + noise * rng.normal(size=s.shape)).astype(np.float32) for s in signals]
    Y = [{"c": f[:, :5].astype(np.float32), "z": f[:, 5:]} for f in features]
    return SimpleNamespace(
        trained=TrainedSubject(X[0], Y[0]),
        new=NewSubject(X[1], Y[1]),
        X_test=X[2], Y_test=Y[2],
    )  # fmt: skip


def test_a_turned_copy_of_the_trained_brain_is_read_as_well(
    rng: np.random.Generator,
) -> None:
    brains = _brains(rng)
    said = brains.trained.reads([brains.new], brains.X_test)[0]
    for name in ("c", "z"):
        own = RidgeGCV().fit(brains.new.X, brains.new.Y[name]).predict(brains.X_test)
        r = [np.corrcoef(Y.ravel(), brains.Y_test[name].ravel())[0, 1]
             for Y in (said[name], own)]  # fmt: skip
        assert r[0] > 0.95
        assert r[0] > r[1] - 0.01


def test_little_data_says_more_aligned_than_alone() -> None:
    """Of 12 images a decoder of 8 features learns little that is not noise."""
    apart = []
    for seed in range(8):
        brains = _brains(stream(seed, "tests", "aligned"), noise=2.0)
        few = NewSubject(
            brains.new.X[:12], {n: Y[:12] for n, Y in brains.new.Y.items()}
        )
        said = brains.trained.reads([few], brains.X_test)[0]
        own = RidgeGCV().fit(few.X, few.Y["c"]).predict(brains.X_test)
        r = [np.corrcoef(Y.ravel(), brains.Y_test["c"].ravel())[0, 1]
             for Y in (said["c"], own)]  # fmt: skip
        apart.append(r[0] - r[1])
    assert stats.ttest_1samp(apart, 0, alternative="greater").pvalue < 0.025


def test_each_part_and_each_test_image_is_read_by_itself(
    rng: np.random.Generator,
) -> None:
    """No test image takes part: others may be anything, and nothing moves."""
    brains = _brains(rng)
    half = NewSubject(brains.new.X[:70], {n: Y[:70] for n, Y in brains.new.Y.items()})
    both = brains.trained.reads([half, brains.new], brains.X_test)
    spoilt = brains.X_test.copy()
    spoilt[5:] = 100
    alone = brains.trained.reads([half], spoilt)[0]
    for name in ("c", "z"):
        # products of other shapes add in another order
        np.testing.assert_allclose(alone[name][:5], both[0][name][:5], atol=2e-3)
        assert np.abs(both[0][name] - both[1][name]).max() > 0.01


def test_whose_decoders_read_does_not_depend_on_the_order() -> None:
    for subjects in ((1, 2, 5, 7), (7, 5, 1, 2)):
        found = {s: study.trained_for(s, subjects) for s in subjects}
        assert found == {1: 5, 2: 7, 5: 1, 7: 2}
    assert study.trained_for(3, [3]) is None
    assert [study.trained_for(s, (1, 3)) for s in (1, 3)] == [3, 1]


# --- virtual subjects and slopes ------------------------------------------------------


def test_virtual_subjects_have_the_noise_and_voxels_they_say(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = rng.normal(size=(500, N_VOXELS)).astype(np.float32)
    X = np.zeros((900, N_VOXELS), np.float32)
    seen: list[np.ndarray] = []

    def kept(*args: np.ndarray, **facts: float) -> tuple[dict, dict]:
        seen.extend([args[1], args[3]])
        return {}, {"n_voxels": args[1].shape[1], **facts}

    monkeypatch.setattr(study, "_fit", kept)
    split = np.repeat(["train", "test"], [900, 400])
    stored = {"split": split, "n_repeats": np.full(1300, 2)}
    own = SimpleNamespace(X=X, stored=stored)
    shares = []
    for subject in (7, 1, 5, 2):
        run = SimpleNamespace(
            subject=subject, profile=SimpleNamespace(subjects=(5, 2, 1, 7)),
            stream=lambda *names: stream(1, *names),
        )  # fmt: skip
        for (_, (_, facts)), factor in zip(
            study._virtual(run, own, X[:400], noise), study.NOISE, strict=True
        ):
            assert facts["relative_snr"] == pytest.approx(1 / factor)
            shares.append((facts["n_voxels"], factor))
            for values in seen[-2:]:
                variance = (factor**2 - 1) / 2  # of two trials
                assert values.var() == pytest.approx(variance, rel=0.1)
    assert len(set(shares)) == 24  # every pair once


def _scores(value: Callable[[str, str, int], float]) -> pd.DataFrame:
    names = ("all", "voxels_25", "trials_25", *(f"virtual_{k}" for k in range(1, 7)))
    rows = [
        (str(s), name, image, "c_r", value(str(s), name, image))
        for s in (1, 2, 5, 7) for name in names for image in range(9)
    ]  # fmt: skip
    columns = ["subject", "method", "nsd_id", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_the_slope_of_a_dose_is_that_of_least_squares(rng: np.random.Generator) -> None:
    table = _scores(lambda *_: rng.normal())
    found = study.dose_slopes(table, ["c_r", "pcc"]).set_index("factor")
    assert list(found.index) == ["voxels", "trials"]  # no sessions, no pcc
    wide = table.pivot(index="nsd_id", columns=["method", "subject"], values="value")
    for factor in ("voxels", "trials"):
        by_image = ((wide["all"] - wide[f"{factor}_25"]) / 2).mean(axis=1)
        ends = stats.ttest_1samp(by_image, 0).confidence_interval(0.95)
        row = found.loc[factor]
        assert row["value"] == pytest.approx(by_image.mean())
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(ends))


def test_slopes_over_virtual_subjects_are_those_planted() -> None:
    rng = stream(3, "tests", "virtual")
    facts = pd.DataFrame(
        [(str(s), f"virtual_{k + 1}", 2.0 ** (-k / 2), 100 * 2 ** ((k + place) % 4))
         for place, s in enumerate((1, 2, 5, 7)) for k in range(6)],
        columns=["subject", "method", "relative_snr", "n_voxels"],
    )  # fmt: skip
    known = facts.set_index(["subject", "method"])

    def value(subject: str, name: str, _: int) -> float:
        if not name.startswith("virtual"):
            return 0.0
        row = np.log2(known.loc[(subject, name)].to_numpy(float))
        return 0.1 * row[0] + 0.03 * row[1] + int(subject) + 0.05 * rng.normal()

    scores = _scores(value)
    found = study.virtual_slopes(scores, facts, ["c_r"])
    assert found["n"].tolist() == [24, 24]
    for (_, row), planted in zip(found.iterrows(), (0.1, 0.03), strict=True):
        assert row["ci_low"] < planted < row["ci_high"]
        assert row["ci_high"] - row["ci_low"] < 0.05
    other = facts.sample(frac=1, random_state=1)
    again = study.virtual_slopes(scores[::-1], other, ["c_r"])
    pd.testing.assert_frame_equal(again, found)  # whatever the order of subjects
