"""A whole folder in NSD's layout, read as a run reads it, from wherever it lies.

The folder is an in-silico one of two subjects with two sessions, images of noise and
random percepts; it lies in a path with spaces.
"""

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.datasets.nsd.data_set import Nsd, check_trials
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.pipeline.cli import main
from minddiff_utils.preprocessing import (
    Responses,
    area_table,
    count_areas,
    prepare_responses,
    prepare_stimuli,
)
from tests import tiny_nsd

SUBJECTS = (4, 8)
DATA = DataConfig(sessions=2, n_validation=50, n_reconstruct=2)
CHECK = ["--profile", "smoke", "--set", "data.sessions=2", "--subjects", "4,8"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the folder; nobody changes it."""
    root = tmp_path_factory.mktemp("folder") / "all of NSD" / "as it comes"
    return tiny_nsd.simulate(root, SUBJECTS)


def copy(whole: Path, tmp_path: Path) -> Path:
    """Give a copy of links, in which a test may delete files."""
    return tiny_nsd.copy_of(whole, tmp_path / "a copy of it")


def delete(root: Path, pattern: str) -> None:
    found = list(root.rglob(pattern))
    assert found
    for path in found:
        path.unlink()


def assert_same(first: Responses, second: Responses) -> None:
    assert first.counts == second.counts
    for name, values in first.arrays().items():
        np.testing.assert_array_equal(values, second.arrays()[name], err_msg=name)


# --- containers and sessions --------------------------------------------------------


def test_hdf5_nii_and_a_mixture_of_them_prepare_the_same_responses(
    whole: Path, tmp_path: Path
) -> None:
    from_hdf5, from_nii, mixed = (copy(whole, tmp_path / n) for n in "abc")
    delete(from_hdf5, "betas_session*.nii.gz")
    delete(from_nii, "betas_session*.hdf5")
    delete(mixed, "betas_session01.hdf5")
    delete(mixed, "betas_session02.nii.gz")
    first, *others = (
        prepare_responses(Nsd(NsdTree(root)), 8, DATA)
        for root in (from_hdf5, from_nii, mixed)
    )
    for other in others:
        assert_same(first, other)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_any_set_of_sessions_is_read_without_the_others(
    whole: Path, tmp_path: Path, subject: int
) -> None:
    root = copy(whole, tmp_path)
    delete(root, "betas_session01.*")
    tree = NsdTree(root)
    data = DATA.model_copy(update={"only_sessions": (2,), "zscore_on": "all"})
    ready = prepare_responses(Nsd(tree), subject, data)
    trials = tree.trials(subject, 2)
    shown = trials.place[750:]
    image, n_repeats = np.unique(shown, return_counts=True)
    np.testing.assert_array_equal(
        ready.nsd_id, tree.design().images[subject - 1, image]
    )
    np.testing.assert_array_equal(ready.n_repeats, n_repeats)
    mask = np.zeros(tree.brainmask(subject).shape, bool)
    mask[tuple(ready.voxel_ijk.T)] = True
    raw = tree.betas(subject, 2, mask).astype(float)
    z = (raw - raw.mean(axis=0)) / raw.std(axis=0, ddof=1)
    expected = z[shown == image[3]].mean(axis=0)
    np.testing.assert_allclose(ready.betas[3], expected, atol=1e-4)  # float32
    with pytest.raises(DataError, match="lacks the betas of session 1 in"):
        prepare_responses(Nsd(tree), subject, DATA)


# --- voxels -------------------------------------------------------------------------


def test_nsdgeneral_takes_the_place_of_the_areas(whole: Path) -> None:
    tree = NsdTree(whole)
    areas = prepare_responses(Nsd(tree), 8, DATA)
    data = DATA.model_copy(update={"voxels": "nsdgeneral"})
    general = prepare_responses(Nsd(tree), 8, data)
    inside = tree.roi(8, "nsdgeneral") > 0
    assert inside[tuple(general.voxel_ijk.T)].all()
    n_empty = general.counts["voxels left out: no valid session"]
    assert len(general.voxel_ijk) == inside.sum() - n_empty
    named = {tuple(v): r for v, r in zip(areas.voxel_ijk, areas.roi, strict=True)}
    expected = [named.get(tuple(v), len(AREAS)) for v in general.voxel_ijk]
    assert general.roi.tolist() == expected
    assert set(expected) > {len(AREAS)}
    shared = np.flatnonzero(general.roi < len(AREAS))
    rows = {tuple(v): n for n, v in enumerate(areas.voxel_ijk)}
    same = [rows[tuple(v)] for v in general.voxel_ijk[shared]]
    np.testing.assert_array_equal(general.betas[:, shared], areas.betas[:, same])


def test_voxels_of_nsdgeneral_outside_the_areas_are_named_none(whole: Path) -> None:
    tree = NsdTree(whole)
    data = DATA.model_copy(update={"voxels": "nsdgeneral"})
    ready = prepare_responses(Nsd(tree), 8, data)
    names = ready.arrays()["roi_names"]
    assert names.tolist() == [*AREAS, "none"]
    table = area_table(ready).set_index("area")["n_voxels"]
    assert table["none"] == (names[ready.roi] == "none").sum() > 0
    assert table["all"] == len(ready.roi) == table[["LVC", "HVC", "none"]].sum()
    assert table["all"] == count_areas(ready.units, 8)["n_voxels"].sum()
    areas = prepare_responses(Nsd(tree), 8, DATA)
    assert areas.arrays()["roi_names"].tolist() == list(AREAS)


def test_nsdgeneral_is_an_input_only_where_it_is_read(
    whole: Path, tmp_path: Path
) -> None:
    root = copy(whole, tmp_path)
    delete(root, "nsdgeneral.nii.gz")
    tree = NsdTree(root)
    assert prepare_responses(Nsd(tree), 8, DATA).betas.shape[1] > 0
    data = DATA.model_copy(update={"voxels": "nsdgeneral"})
    with pytest.raises(DataError, match=r"nsdgeneral not found at .*nsdgeneral\.nii"):
        prepare_responses(Nsd(tree), 8, data)
    whole_tree, sessions = NsdTree(whole), (1, 2)
    more = set(whole_tree.inputs("01", [8], sessions, "nsdgeneral"))
    more -= set(whole_tree.inputs("01", [8], sessions))
    assert {path.name for path in more} == {"nsdgeneral.nii.gz"}


# --- where the folder lies ----------------------------------------------------------


def read_all(tree: NsdTree, subject: int) -> Responses:
    """Read what a run reads of a subject."""
    check_trials(tree, subject, 2)
    ready = prepare_responses(Nsd(tree), subject, DATA)
    prepare_stimuli(Nsd(tree), ready.nsd_id[:5], 4, 5)
    for hemisphere in ("lh", "rh"):
        tree.transform(subject, hemisphere)
        tree.surface(subject, hemisphere)
    return ready


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_path_with_spaces_is_read_and_checked(
    whole: Path, subject: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert " " in str(whole)
    assert np.isfinite(read_all(NsdTree(whole), subject).betas).all()
    assert main(["check", str(whole), *CHECK]) == 0
    assert "as it comes" in capsys.readouterr().out


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return time of change and content of every file, and the time of every folder."""
    return {
        path.relative_to(root).as_posix(): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [root, *root.rglob("*")]
    }


@pytest.fixture
def read_only(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """Give a folder without any permission to write; root may write all the same."""
    root = tmp_path / "read-only"
    shutil.copytree(whole, root)
    paths = [root, *root.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    yield root
    for path in paths:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_a_folder_that_may_not_be_written_is_read_checked_and_left_as_it_was(
    read_only: Path,
) -> None:
    before = snapshot(read_only)
    for subject in SUBJECTS:
        assert read_all(NsdTree(read_only), subject).betas.size
    assert main(["check", str(read_only), "--deep", *CHECK]) == 0
    assert snapshot(read_only) == before
