"""The contract of every data set: what preparation may rely on, whatever the files.

Each folder is written by the tests, in the layout that the data set publishes. A data
set is added to `SETS`, and nothing else here knows one from another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.datasets import DataSet, Trials, Units, open_data_set
from minddiff_utils.preprocessing import (
    Responses,
    count_areas,
    find_leaks,
    prepare_responses,
    prepare_stimuli,
    read_repeats,
)
from tests import tiny_algonauts, tiny_laion_fmri, tiny_mindeye2, tiny_nsd

VERSION = "betas_fithrf_GLMdenoise_RR"


@dataclass(frozen=True)
class Example:
    """A small folder of a data set: who and what is in it, how it is prepared."""

    write: Callable[[Path], Path]
    subject: int
    data: DataConfig


def _nsd(root: Path) -> Path:
    return tiny_nsd.simulate(root, (8,))


SETS: Mapping[str, Example] = {
    "nsd": Example(
        _nsd, 8, DataConfig(sessions="all", n_validation=50, n_reconstruct=None)
    ),
    "algonauts": Example(
        tiny_algonauts.write,
        tiny_algonauts.SUBJECT,
        DataConfig(sessions="all", n_validation=6, n_reconstruct=None, zscore_on="all"),
    ),
    "mindeye2": Example(
        tiny_mindeye2.write,
        tiny_mindeye2.SUBJECT,
        DataConfig(sessions="all", n_validation=50, n_reconstruct=None),
    ),
    "laion_fmri": Example(
        tiny_laion_fmri.write,
        tiny_laion_fmri.SUBJECT,
        DataConfig(
            sessions=tiny_laion_fmri.N_SESSIONS,
            n_validation=6,
            n_reconstruct=None,
            split=tiny_laion_fmri.SPLIT,
        ),
    ),
}


@dataclass(frozen=True)
class Opened:
    data_set: DataSet
    subject: int
    data: DataConfig
    root: Path
    sessions: tuple[int, ...]
    trials: Trials
    units: Units
    ready: Responses


@pytest.fixture(scope="module", params=SETS)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Opened:
    example = SETS[request.param]
    root = example.write(tmp_path_factory.mktemp("a folder of") / request.param)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    data_set = open_data_set(request.param, root, VERSION, example.data.split)
    subject, data = example.subject, example.data
    sessions = data_set.sessions(subject, data.session_numbers)
    found = Opened(
        data_set,
        subject,
        data,
        root,
        sessions,
        data_set.trials(subject, sessions),
        data_set.units(subject, "areas"),
        prepare_responses(data_set, subject, data),
    )
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert after == before  # files are only read
    return found


def test_a_data_set_that_there_is_not_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data_set is 'nds', but must be one of"):
        open_data_set("nds", tmp_path, VERSION)


def test_sessions_are_those_asked_for_that_there_are(opened: Opened) -> None:
    assert opened.sessions == tuple(sorted(set(opened.sessions)))
    asked = opened.data.session_numbers
    assert set(opened.sessions) <= set(asked)
    again = opened.data_set.sessions(opened.subject, opened.sessions)
    assert again == opened.sessions
    with pytest.raises(DataError):
        opened.data_set.sessions(opened.subject, (40,))


def test_trials_name_images_of_one_place_each_and_the_files_agree(
    opened: Opened,
) -> None:
    trials = opened.trials
    opened.data_set.check(opened.subject, opened.sessions)
    assert (np.diff(trials.session) >= 0).all()
    pairs = set(zip(trials.place.tolist(), trials.image_id.tolist(), strict=True))
    assert len(pairs) == len(set(trials.place)) == len(set(trials.image_id))
    if opened.data_set.are_averaged:  # a row for each image
        assert set(trials.session.tolist()) == {opened.sessions[0]}
        assert len(pairs) == len(trials.session)
        return
    assert set(trials.session.tolist()) == set(opened.sessions)
    last = opened.sessions[-1]
    part = opened.data_set.trials(opened.subject, (last,))
    for name in ("session", "image_id", "place"):
        np.testing.assert_array_equal(
            getattr(part, name), getattr(trials.of([last]), name)
        )


def test_repeats_behind_means_are_known_or_not_and_of_single_trials_not_asked(
    opened: Opened,
) -> None:
    found = opened.data_set.n_repeats(opened.subject, opened.ready.nsd_id)
    if found is not None:
        assert opened.data_set.are_averaged
        assert found.min() >= 1
    assert all(note.endswith(".") for note in opened.data_set.notes(opened.subject))


def test_some_images_test_and_others_train(opened: Opened) -> None:
    tests = opened.data_set.test_images(opened.subject)
    assert len(set(tests.tolist())) == len(tests)
    share = np.isin(opened.trials.image_id, tests).mean()
    assert 0 < share < 1
    second = opened.data_set.second_test_images(opened.subject)
    assert set(second.tolist()) < set(tests.tolist())


def test_units_have_distinct_places_in_c_order_and_an_area(opened: Opened) -> None:
    for which in ("areas", "nsdgeneral"):
        units = opened.data_set.units(opened.subject, which)
        flat = np.ravel_multi_index(tuple(units.position.T), units.grid)
        assert (np.diff(flat) > 0).all()
        assert 0 <= units.area.min() <= units.area.max() < len(units.area_names)
        inside = {area for areas in units.area_sets.values() for area in areas}
        assert inside == set(units.area_names) - {"none"}
        if which == "areas":
            assert "none" not in units.area_names
        if units.ncsnr is not None:
            assert units.ncsnr.dtype == np.float32
            assert not (units.ncsnr < 0).any()


def test_responses_have_a_row_per_trial_and_a_column_per_unit(opened: Opened) -> None:
    session = int(opened.trials.session[-1])
    n_trials = int((opened.trials.session == session).sum())
    whole = opened.data_set.responses(opened.subject, session, opened.units)
    assert whole.shape == (n_trials, len(opened.units.area))
    some = [1, 4, len(opened.units.area) - 1]
    part = opened.data_set.responses(opened.subject, session, opened.units.at(some))
    np.testing.assert_array_equal(part, whole[:, some])
    assert opened.data_set.scaled(part).dtype == np.float32
    assert opened.data_set.responses_file(opened.subject, session)


def test_images_and_captions_come_in_the_order_asked(opened: Opened) -> None:
    ids = opened.ready.nsd_id[[5, 0, 3]]
    images = opened.data_set.images(ids)
    assert images.dtype == np.uint8
    assert images.shape == (3, images.shape[1], images.shape[1], 3)
    captions = opened.data_set.captions(ids, 2)
    assert captions.shape == (3, 2)
    assert all(isinstance(text, str) and text for text in captions.ravel())
    np.testing.assert_array_equal(opened.data_set.images(ids[::-1]), images[::-1])
    np.testing.assert_array_equal(
        opened.data_set.captions(ids[::-1], 2), captions[::-1]
    )
    assert len({image.tobytes() for image in images}) == 3
    coco_id = opened.data_set.coco_id(ids)
    assert coco_id is None or len(set(coco_id.tolist())) == 3
    with pytest.raises(DataError, match=str(10**6)):
        opened.data_set.images(np.array([10**6]))


def test_files_are_there_and_below_the_folder(opened: Opened) -> None:
    data = opened.data
    files = opened.data_set.files(opened.subject, data.session_numbers, data.voxels)
    assert files == tuple(sorted(set(files)))
    assert all(path.is_file() and path.is_relative_to(opened.root) for path in files)


def test_prepared_responses_are_aligned_and_say_their_data_set(opened: Opened) -> None:
    ready, trials = opened.ready, opened.trials
    n_images = len(set(trials.image_id.tolist()))
    assert ready.betas.shape == (n_images, len(ready.units.area))
    assert np.isfinite(ready.betas).all()
    place = dict(zip(trials.image_id.tolist(), trials.place.tolist(), strict=True))
    assert (np.diff([place[i] for i in ready.nsd_id.tolist()]) > 0).all()
    tests = np.isin(ready.nsd_id, opened.data_set.test_images(opened.subject))
    second = opened.data_set.second_test_images(opened.subject)
    is_second = np.isin(ready.nsd_id, second)
    np.testing.assert_array_equal(ready.split == "test2", is_second)
    np.testing.assert_array_equal(ready.split == "test", tests & ~is_second)
    assert (ready.split == "validation").sum() == opened.data.n_validation
    stored = ready.arrays()
    assert str(stored["data_set"]) == opened.data_set.name
    assert len(stored["noise_ceiling_r"]) == ready.betas.shape[1]
    counted = count_areas(ready.units, opened.subject)["n_voxels"].sum()
    assert counted == ready.betas.shape[1]


def test_what_notebook_01_makes_of_it_has_no_leak(opened: Opened) -> None:
    ready, data_set = opened.ready, opened.data_set
    stimuli = prepare_stimuli(data_set, ready.nsd_id, 8, 2)
    images, captions = stimuli["images"], stimuli["captions"]
    assert isinstance(captions, np.ndarray)
    leaks = find_leaks(data_set, opened.subject, ready, images, captions)
    assert leaks["passed"].all(), leaks
    shown = read_repeats(
        data_set, opened.subject, opened.data, ready, [2, 0], n_images=3
    )
    rows = [ready.nsd_id.tolist().index(i) for i in shown.nsd_id.tolist()]
    expected = ready.betas[rows][:, [2, 0]]
    np.testing.assert_allclose(shown.z.mean(axis=1), expected, rtol=0, atol=2e-6)


def test_fewer_images_are_a_share_of_each_split_and_scaled_as_all_are(
    opened: Opened,
) -> None:
    data_set, subject, every = opened.data_set, opened.subject, opened.ready
    more = {"n_images": 24, "n_validation": 4}
    data = opened.data.model_copy(update=more)
    few = prepare_responses(data_set, subject, data)
    assert len(few.nsd_id) == pytest.approx(24, abs=2)
    at = [every.nsd_id.tolist().index(i) for i in few.nsd_id.tolist()]
    assert at == sorted(at)
    share = (every.split == "test").mean()
    n_test = (few.split == "test").sum()
    assert n_test == pytest.approx(max(24 * share, 2), abs=1)
    tests = data_set.test_images(subject)
    np.testing.assert_array_equal(
        np.isin(few.nsd_id, tests), np.isin(few.split, ["test", "test2"])
    )
    assert (few.split == "validation").sum() == 4
    np.testing.assert_array_equal(few.n_repeats, every.n_repeats[at])
    np.testing.assert_array_equal(few.units.position, every.units.position)
    # other images validate, and all others of all sessions scale
    r = [
        np.corrcoef(a, b)[0, 1] for a, b in zip(few.betas, every.betas[at], strict=True)
    ]
    assert min(r) > 0.99
    shown = read_repeats(data_set, subject, data, few, [2, 0], n_images=2)
    rows = [few.nsd_id.tolist().index(i) for i in shown.nsd_id.tolist()]
    np.testing.assert_allclose(
        shown.z.mean(axis=1), few.betas[rows][:, [2, 0]], rtol=0, atol=2e-6
    )
