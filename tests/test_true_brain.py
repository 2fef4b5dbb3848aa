"""The simulated brain answers to other images as it did to those that were shown."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets import NsdTree
from minddiff_utils.evaluation.metrics.networks import load_networks
from minddiff_utils.evaluation.metrics.registry import LITE0
from minddiff_utils.insilico import image_features, read_brain, voxel_model
from minddiff_utils.insilico.anatomy import make_anatomy
from tests import tiny_nsd

SEED, SUBJECT = 2308, 1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_nsd.simulate(tmp_path_factory.mktemp("truth") / "nsd", (SUBJECT,))


def test_voxels_are_found_by_their_place_and_scaled_as_single_trials_are(
    root: Path, rng: np.random.Generator
) -> None:
    anatomy = make_anatomy(SUBJECT, seed=SEED)
    brain = voxel_model.make_brain(anatomy, seed=SEED, n_sessions=2)
    silent, active = np.flatnonzero(~brain.active)[:1], np.flatnonzero(brain.active)
    rows = np.concatenate([active[[90, 5, 41]], silent])
    shown = np.unique(NsdTree(root).trials(SUBJECT, 2).nsd_id)
    _, scales = voxel_model.planted_signal(
        brain, tiny_nsd.noise(shown.tolist(), 8).percepts
    )
    images = rng.integers(0, 255, (35, 64, 64, 3), dtype=np.uint8)  # two batches
    seen = image_features.perceive(images)
    signal = voxel_model.true_signal(brain, seen, scales)[:, [90, 5, 41]]
    snr = brain.ncsnr[rows[:3]].astype(float)
    expected = signal * snr / np.sqrt(1 + snr**2)
    truth = read_brain(root, SUBJECT, anatomy.voxel_ijk[rows])
    assert truth is not None
    answer = truth(images)
    # percepts of noise make large signals; float32 kernels sum in another order
    np.testing.assert_allclose(answer[:, :3], expected, rtol=1e-4, atol=1e-3)
    assert (answer[:, 3] == 0).all()
    assert truth(images[:0]).shape == (0, 4)
    looks = load_networks(root, only=tuple(LITE0)).embedders
    depths = [looks[name](images) for name in LITE0]
    # the network saw them in other batches
    np.testing.assert_allclose(truth(images, depths), answer, rtol=1e-4, atol=1e-3)
    nothing = [np.zeros_like(depth) for depth in depths]
    assert np.abs(truth(images, nothing) - answer).max() > 0.1  # they are used
    large = np.repeat(np.repeat(images, 2, 1), 2, 2)  # at 128 px, it looks itself
    np.testing.assert_array_equal(truth(large, nothing), truth(large))


def test_a_folder_without_truth_has_no_true_brain(tmp_path: Path) -> None:
    assert read_brain(tmp_path, SUBJECT, np.zeros((1, 3), int)) is None


def test_voxels_files_and_images_of_elsewhere_are_refused(
    root: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="is not in the simulated brain"):
        read_brain(root, SUBJECT, np.array([[-1, 0, 0]]))
    with pytest.raises(DataError, match="simulate this subject"):
        read_brain(root, 3, np.zeros((1, 3), int))
    path = tmp_path / "truth" / "subj01.npz"
    path.parent.mkdir()
    shutil.copy(root / "truth" / "subj01.npz", path)
    with np.load(path) as file:
        kept = {k: file[k] for k in file.files if not k.startswith("scale")}
    np.savez(path, **kept)
    with pytest.raises(DataError, match="of an earlier version"):
        read_brain(tmp_path, SUBJECT, np.zeros((1, 3), int))
    whole = read_brain(root, SUBJECT, make_anatomy(SUBJECT, seed=SEED).voxel_ijk[:2])
    assert whole is not None
    with pytest.raises(DataError, match="images"):
        whole(np.zeros((2, 8, 8, 2), np.uint8))
