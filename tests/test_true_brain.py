"""The simulated brain answers to other images as it did to those that were shown."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets import NsdTree
from minddiff_utils.insilico import image_features, read_brain, voxel_model
from minddiff_utils.insilico.anatomy import make_anatomy
from tests import tiny_nsd

SEED, SUBJECT = 2308, 1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_nsd.simulate(tmp_path_factory.mktemp("truth") / "nsd", (SUBJECT,))


@pytest.fixture(scope="module")
def brain() -> voxel_model.Brain:
    anatomy = make_anatomy(SUBJECT, seed=SEED)
    return voxel_model.make_brain(anatomy, seed=SEED, n_sessions=2)


def test_an_image_that_was_shown_evokes_its_true_signal(
    brain: voxel_model.Brain,
) -> None:
    mixture = brain.mixture.copy()
    mixture[:, 3:] = 0  # nothing that an image alone does not tell
    brain = dataclasses.replace(brain, mixture=mixture)
    percepts = tiny_nsd.noise(range(30), 8).percepts
    signal, scales = voxel_model.true_signal(brain, percepts)
    some = percepts.rows(np.array([4, 17]))
    again = voxel_model.image_signal(brain, (some.local, some.maps, some.late), scales)
    # float32 products of another number of rows
    np.testing.assert_allclose(again, signal[[4, 17]], atol=1e-4)


def test_what_only_scenes_tell_stays_at_its_mean(brain: voxel_model.Brain) -> None:
    mixture = np.zeros_like(brain.mixture)
    mixture[:, 3:] = 0.5
    brain = dataclasses.replace(brain, mixture=mixture)
    percepts = tiny_nsd.noise(range(30), 8).percepts
    _, scales = voxel_model.true_signal(brain, percepts)
    seen = (percepts.local, percepts.maps, percepts.late)
    assert np.abs(voxel_model.image_signal(brain, seen, scales)).max() < 1e-4


def test_voxels_are_found_by_their_place_and_scaled_as_single_trials_are(
    root: Path, brain: voxel_model.Brain, rng: np.random.Generator
) -> None:
    ijk = make_anatomy(SUBJECT, seed=SEED).voxel_ijk
    silent, active = np.flatnonzero(~brain.active)[:1], np.flatnonzero(brain.active)
    rows = np.concatenate([active[[90, 5, 41]], silent])
    images = rng.integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    shapes = ((40, 14, 14), (112, 7, 7), (1280,))
    depths = [rng.random((3, *shape)).astype(np.float32) for shape in shapes]
    truth = read_brain(root, SUBJECT, ijk[rows])
    flat = [depth.reshape(3, -1) for depth in depths]  # as evaluation holds them
    _, scales = voxel_model.true_signal(
        brain, tiny_nsd.noise(np.unique(_shown(root)).tolist(), 8).percepts
    )
    whole = voxel_model.image_signal(
        brain, image_features.look(images, depths), scales
    )[:, [90, 5, 41]]
    snr = brain.ncsnr[rows[:3]].astype(float)
    expected = whole * snr / np.sqrt(1 + snr**2)
    assert truth is not None
    answer = truth(images, flat)
    np.testing.assert_allclose(answer[:, :3], expected, atol=1e-4)
    assert (answer[:, 3] == 0).all()


def _shown(root: Path) -> np.ndarray:
    """Return the images of the folder: those that have captions."""
    return NsdTree(root).trials(SUBJECT, 2).nsd_id


def test_a_folder_without_truth_has_no_true_brain(tmp_path: Path) -> None:
    assert read_brain(tmp_path, SUBJECT, np.zeros((1, 3), int)) is None


def test_voxels_and_files_of_elsewhere_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not in the simulated brain"):
        read_brain(root, SUBJECT, np.array([[-1, 0, 0]]))
    with pytest.raises(DataError, match="notebook 00"):
        read_brain(root, 2, np.zeros((1, 3), int))
    path = tmp_path / "truth" / "subj01.npz"
    path.parent.mkdir()
    shutil.copy(root / "truth" / "subj01.npz", path)
    with np.load(path) as file:
        kept = {k: file[k] for k in file.files if not k.startswith("scale")}
    np.savez(path, **kept)
    with pytest.raises(DataError, match="of an earlier version"):
        read_brain(tmp_path, SUBJECT, np.zeros((1, 3), int))
