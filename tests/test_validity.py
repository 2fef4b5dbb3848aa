"""A session that holds no data is refused, and what little is empty is not counted."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets import Trials
from minddiff_utils.datasets.nsd.data_set import Nsd
from minddiff_utils.datasets.validity import (
    check_ncsnr,
    fault,
    strange_sessions,
    where_held,
)
from minddiff_utils.preprocessing import prepare_responses, responses
from minddiff_utils.preprocessing.noise_ceiling import noise_ceiling_r
from tests.test_preprocessing import DATA, MemoryTree

Betas = npt.NDArray[np.int16]
N_VOXELS = 200


def session(rng: np.random.Generator) -> Betas:
    return rng.normal(300, 600, (750, N_VOXELS)).astype(np.int16)


def wrong(raw: Betas) -> str:
    return fault(raw, where_held(raw))


def spoilt(rng: np.random.Generator, rows: slice, columns: slice, value: int) -> Betas:
    raw = session(rng)
    raw[rows, columns] = value
    return raw


ALL, TENTH, SOME = slice(None), slice(0, 20), slice(0, 6)
HALF = slice(375, None)


@pytest.mark.parametrize(
    ("rows", "columns", "value", "words"),
    [
        (ALL, ALL, 0, "200 of 200 voxels"),
        (ALL, TENTH, 0, "20 of 200 voxels"),
        (ALL, TENTH, -32768, "20 of 200 voxels"),  # NaN of a GLM, cast
        (ALL, TENTH, 7, "20 of 200 voxels"),
        (HALF, ALL, 0, "200 of 200 voxels"),  # cut, and filled up
        (HALF, ALL, 7, "375 of 750 trials"),
        (slice(0, 75), TENTH, 0, "20 of 200 voxels"),  # a chunk of some
        (slice(700, None), ALL, 7, "50 of 750 trials"),
        (HALF, slice(0, 30), 32767, "values at the limits of int16"),
    ],
)
def test_a_session_with_more_than_five_percent_without_data_is_at_fault(
    rng: np.random.Generator, rows: slice, columns: slice, value: int, words: str
) -> None:
    assert words in wrong(spoilt(rng, rows, columns, value))


@pytest.mark.parametrize(
    ("rows", "columns", "n_voxels", "n_trials"),
    [
        (slice(0, 0), ALL, 0, 0),
        (ALL, SOME, 6, 0),
        (slice(0, 75), SOME, 6, 0),
        (slice(730, None), ALL, 0, 20),
        (slice(4, 5), slice(0, 100), 0, 1),
    ],
)
def test_a_little_without_data_is_found_and_no_fault(
    rng: np.random.Generator,
    rows: slice,
    columns: slice,
    n_voxels: int,
    n_trials: int,
) -> None:
    raw = spoilt(rng, rows, columns, 0)
    held = where_held(raw)
    assert ((~held.voxels).sum(), (~held.trials).sum()) == (n_voxels, n_trials)
    assert wrong(raw) == ""


# --- into preparation ---------------------------------------------------------------


class File:
    """Stands for a path, as the tree in memory has none."""

    def __str__(self) -> str:
        return "betas_session02"


def changed(change: Callable[[Betas, Trials], object]) -> MemoryTree:
    """Give a tree in memory whose betas were changed; session 2 is rows 750 on."""
    tree = MemoryTree()
    trials, raw = tree.parts  # type: ignore[attr-defined]
    raw = raw.copy()
    change(raw, trials)
    object.__setattr__(tree, "parts", (trials, raw))
    object.__setattr__(tree, "betas_file", lambda *_: File())
    return tree


def zeros(rows: slice, columns: slice = ALL) -> Callable[[Betas, Trials], object]:
    def change(raw: Betas, _: Trials) -> None:
        raw[rows, columns] = 0

    return change


@pytest.mark.parametrize(
    "change",
    [
        zeros(slice(750, None)),
        zeros(slice(750, None), slice(0, 3)),
        zeros(slice(1100, None)),
        lambda raw, _: raw.__setitem__(slice(750, None), 5),
        lambda raw, _: raw.__setitem__(slice(750, None), raw[:750]),
    ],
)
def test_preparation_refuses_a_session_without_data_and_names_it(
    change: Callable[[Betas, Trials], object],
) -> None:
    with pytest.raises(DataError, match=r"^betas_session02 holds .*only_sessions"):
        prepare_responses(Nsd(changed(change)), 1, DATA)


def test_an_image_without_a_valid_trial_is_refused() -> None:
    def lose(raw: Betas, trials: Trials) -> None:
        raw[trials.place == 7] = 0

    with pytest.raises(
        DataError, match=r"1 images \(such as nsd_id 12\) have no trial"
    ):
        prepare_responses(Nsd(changed(lose)), 1, DATA)


def test_only_valid_trials_are_counted_and_averaged() -> None:
    lost = slice(1480, None)
    tree = changed(zeros(lost))
    trials, raw = tree.parts  # type: ignore[attr-defined]
    ready = prepare_responses(Nsd(tree), 1, DATA)
    seen = trials.place[:1480]
    image, n_valid = np.unique(seen, return_counts=True)
    assert ready.n_repeats.tolist() == n_valid.tolist()
    assert ready.counts["trials left out: no data"] == 20
    test = image < 1000
    expected = noise_ceiling_r(ready.ncsnr, n_valid[test])
    np.testing.assert_allclose(ready.noise_ceiling_r, expected, rtol=1e-6)
    # the rest is as if the last trials had not been: their zeros pull no mean
    z = np.empty((1480, raw.shape[1]))
    fit = np.isin(seen, image[ready.split == "train"])
    for rows in (slice(0, 750), slice(750, 1480)):
        own = raw[rows].astype(float)
        used = own[fit[rows]]
        z[rows] = (own - used.mean(axis=0)) / used.std(axis=0, ddof=1)
    np.testing.assert_allclose(
        ready.betas[7], z[seen == image[7]].mean(axis=0), atol=1e-4
    )


def test_the_ceiling_of_a_voxel_knows_its_own_valid_trials(
    rng: np.random.Generator,
) -> None:
    ncsnr, n_images = 0.8, 40_000
    repeats = np.stack([np.full(n_images, 3), rng.integers(0, 4, n_images)], axis=1)
    signal = rng.normal(0, ncsnr, (n_images, 2))
    noise = rng.normal(0, 1, signal.shape) / np.sqrt(np.maximum(repeats, 1))
    averaged = np.where(repeats > 0, signal + noise, 0)
    ceiling = noise_ceiling_r(np.full(2, ncsnr, np.float32), repeats)
    for voxel in (0, 1):
        found = np.corrcoef(signal[:, voxel], averaged[:, voxel])[0, 1]
        assert found == pytest.approx(ceiling[voxel], abs=0.015)  # SE of r is 0.004


# --- ncsnr --------------------------------------------------------------------------


@pytest.mark.parametrize(("n_sessions", "refused"), [(30, True), (29, False)])
def test_another_ncsnr_than_that_of_the_trials_is_refused_where_it_is_known_well(
    rng: np.random.Generator, n_sessions: int, refused: bool
) -> None:
    stored = rng.uniform(0, 0.6, 500)
    near = stored + rng.normal(0, 0.03, 500)
    near[:9] = np.nan
    sessions = range(1, n_sessions + 1)
    check_ncsnr(stored, near, sessions, "ncsnr.nii.gz")
    for other in (rng.permutation(stored), np.full(500, 0.3), near[::-1]):
        if refused:
            with pytest.raises(DataError, match=r"ncsnr\.nii\.gz and .* correlate at"):
                check_ncsnr(stored, other, sessions, "ncsnr.nii.gz")
        else:
            check_ncsnr(stored, other, sessions, "ncsnr.nii.gz")


# --- sessions under a wrong name ----------------------------------------------------


def shown(
    rng: np.random.Generator, n_sessions: int, ncsnr: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return z, session and image of 750 trials a session, each image three times."""
    image = rng.permutation(np.repeat(np.arange(250 * n_sessions), 3))
    signal = rng.normal(0, ncsnr, (250 * n_sessions, 64))
    z = signal[image] + rng.normal(0, 1, (len(image), 64))
    return z, np.repeat(np.arange(1, n_sessions + 1), 750), image


def move(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Put the trials of session 3 in the place of other trials of it."""
    moved = z.copy()
    moved[1500:2250] = np.roll(z[1500:2250], 5, axis=0)
    return moved


@pytest.mark.parametrize("n_sessions", [3, 8])
@pytest.mark.parametrize("ncsnr", [0.3, 0.8])
def test_a_session_that_does_not_fit_its_images_is_found(
    rng: np.random.Generator, n_sessions: int, ncsnr: float
) -> None:
    z, session, image = shown(rng, n_sessions, ncsnr)
    assert strange_sessions(z, session, image) is None
    z[session == 2] *= 0.3  # a tired subject is not a strange one
    z[4, 3] = np.nan
    assert strange_sessions(z, session, image) is None
    found = strange_sessions(move(z), session, image)
    if n_sessions > 3:  # of three, those left agree in too few pairs to be sure
        assert found is not None
        assert found[0] == (3,)
        assert found[1] < 0.25 * found[2]


def test_a_session_of_much_noise_is_not_a_strange_one(rng: np.random.Generator) -> None:
    """It agrees with the others in a fifth of what they do, but beyond chance."""
    z, session, image = shown(rng, 6, 0.8)
    own = session == 2
    z[own] = 0.2 * z[own] + np.sqrt(1 - 0.2**2) * rng.normal(size=z[own].shape)
    assert strange_sessions(z, session, image) is None
    z[own] = rng.normal(size=z[own].shape)
    found = strange_sessions(z, session, image)
    assert found is not None
    assert found[0] == (2,)


def test_nothing_is_said_of_noise_or_of_two_sessions(rng: np.random.Generator) -> None:
    for n_sessions, ncsnr in ((6, 0.0), (2, 0.8)):
        z, session, image = shown(rng, n_sessions, ncsnr)
        assert strange_sessions(z, session, image) is None


def test_preparation_names_the_session_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(responses, "strange_sessions", lambda *_: ((2,), 0.01, 0.2))
    with pytest.raises(DataError, match=r"^betas_session02 does not fit the images"):
        prepare_responses(Nsd(changed(lambda *_: None)), 1, DATA)
