"""The simulated brain sees pixels alone, and its noise is what the files say it is."""

import ast
import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import DataConfig, SimulationConfig
from minddiff_utils.datasets import Nsd, NsdTree, check_folder
from minddiff_utils.evaluation.metrics.networks import load_networks
from minddiff_utils.evaluation.metrics.registry import LITE0
from minddiff_utils.insilico import (
    anatomy,
    assumptions,
    ground_truth,
    image_features,
    nsd_writer,
    read_brain,
    scenes,
    voxel_model,
)
from minddiff_utils.insilico import noise as trial_noise
from minddiff_utils.insilico.categories import HELD_OUT
from minddiff_utils.preprocessing import categories_in_captions, prepare_responses
from minddiff_utils.preprocessing.noise_structure import (
    by_distance,
    correlation_between_trials,
    noise_residuals,
)
from tests.tiny_nsd import copy_of, digests
from tests.tiny_nsd import noise as any_image

SEED, SUBJECT = 2308, 7
SETTINGS = SimulationConfig(
    n_sessions=1, n_test_images=20, n_heldout_images=8, image_size=16
)
DATA = DataConfig(sessions=1, n_validation=40, n_reconstruct=2)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one session of rendered scenes that the whole model saw."""
    path = tmp_path_factory.mktemp("seen") / "nsd"
    nsd_writer.simulate(path, SETTINGS, (SUBJECT,), SEED, n_workers=1)
    return path


@dataclass(frozen=True)
class Shown:
    """The images that a subject has seen, and what they call forth without noise."""

    nsd_id: npt.NDArray[np.int64]
    worlds: list[scenes.Scene]
    images: npt.NDArray[np.uint8]
    responses: npt.NDArray[np.float32]  # in units of betas; of the active voxels
    voxel_ijk: npt.NDArray[np.int32]
    silent_ijk: npt.NDArray[np.int32]


@pytest.fixture(scope="module")
def shown(seen: Path) -> Shown:
    """Render and see all images of the session again, by nothing that was written."""
    tree = NsdTree(seen)
    second = set(tree.second_test_set().tolist())
    ids = np.unique(tree.trials(SUBJECT, 1).image_id)
    worlds = [nsd_writer.scene_of(int(i), second) for i in ids]
    images = np.stack([scenes.render(world) for world in worlds])
    body = anatomy.make_anatomy(SUBJECT, seed=SEED)
    brain = voxel_model.make_brain(body, seed=SEED, n_sessions=1)
    glances = [
        image_features.perceive(images[k : k + 32]) for k in range(0, len(images), 32)
    ]
    planted, _ = voxel_model.planted_signal(brain, image_features.join(glances))
    ncsnr = brain.ncsnr[brain.active]
    responses = planted * ncsnr / np.sqrt(1 + ncsnr**2)
    voxel_ijk, silent = body.voxel_ijk[brain.active], body.voxel_ijk[~brain.active]
    return Shown(ids, worlds, images, responses, voxel_ijk, silent)


@pytest.fixture(scope="module")
def two_sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two") / "nsd"
    settings = SETTINGS.model_copy(update={"n_sessions": 2})
    nsd_writer.simulate(path, settings, (SUBJECT,), SEED, n_workers=1, source=any_image)
    return path


@pytest.fixture(scope="module")
def parts() -> tuple[anatomy.Anatomy, voxel_model.Brain, npt.NDArray[np.float32]]:
    """Give a subject's anatomy, brain and planted signal of some random percepts."""
    body = anatomy.make_anatomy(SUBJECT, seed=SEED)
    brain = voxel_model.make_brain(body, seed=SEED, n_sessions=1)
    percepts = any_image(range(300), 8).percepts
    return body, brain, voxel_model.planted_signal(brain, percepts)[0]


@pytest.fixture(scope="module")
def noise(
    parts: tuple[anatomy.Anatomy, voxel_model.Brain, npt.NDArray[np.float32]],
) -> trial_noise.Noise:
    return trial_noise.make_noise(*parts, seed=SEED)


def drawn(noise: trial_noise.Noise, n_sessions: int) -> npt.NDArray[np.float32]:
    """Return noise of some sessions, (n_sessions, 750, n_voxels)."""
    rngs = (np.random.default_rng(s) for s in range(n_sessions))
    return np.stack([trial_noise._session_noise(noise, 750, rng) for rng in rngs])


# --- pixels alone -------------------------------------------------------------------


def test_the_brain_is_given_images_and_nothing_else() -> None:
    given = list(inspect.signature(image_features.perceive).parameters)
    assert given == ["images", "depths"]  # what the network inside it saw in them
    folder = project_root() / "src" / "minddiff_utils" / "insilico"
    for name in ("image_features", "voxel_model", "noise"):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        read = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        worlds = ("scenes", "backgrounds", "captions", "categories")
        assert not {f"minddiff_utils.insilico.{world}" for world in worlds} & read


def test_responses_to_images_that_were_shown_are_the_planted_ones(
    seen: Path, shown: Shown
) -> None:
    some = np.arange(38, 3, -1)  # two batches
    voxels = np.concatenate([shown.voxel_ijk[::-3], shown.silent_ijk[:1]])
    read = read_brain(seen, SUBJECT, voxels)
    assert read is not None
    answer = read(shown.images[some])
    # float32 kernels sum in an order that depends on how many images pass at once
    expected = shown.responses[some][:, ::-3]
    np.testing.assert_allclose(answer[:, :-1], expected, atol=2e-3)
    assert not answer[:, -1].any()
    assert read(shown.images[:0]).shape == (0, len(voxels))


def test_what_the_network_saw_already_is_not_looked_at_again(
    seen: Path, shown: Shown, rng: np.random.Generator
) -> None:
    read = read_brain(seen, SUBJECT, shown.voxel_ijk[::-3])
    assert read is not None
    images = rng.integers(0, 255, (35, 64, 64, 3), dtype=np.uint8)  # two batches
    looks = load_networks(seen, only=tuple(LITE0)).embedders
    depths, answer = [looks[name](images) for name in LITE0], read(images)
    # the network saw them in other batches
    np.testing.assert_allclose(read(images, depths), answer, rtol=1e-4, atol=2e-3)
    nothing = [np.zeros_like(depth) for depth in depths]
    assert np.abs(read(images, nothing) - answer).max() > 0.1  # they are used
    large = np.repeat(np.repeat(images, 2, 1), 2, 2)  # at 128 px, it looks itself
    np.testing.assert_array_equal(read(large, nothing), read(large))


def test_voxels_files_and_images_of_elsewhere_are_refused(
    seen: Path, shown: Shown, tmp_path: Path
) -> None:
    one = np.zeros((1, 3), int)
    assert read_brain(tmp_path, SUBJECT, one) is None  # without truth
    with pytest.raises(DataError, match="is not in the simulated brain"):
        read_brain(seen, SUBJECT, one - 1)
    with pytest.raises(DataError, match="simulate this subject"):
        read_brain(seen, 3, one)
    path = tmp_path / "truth" / "subj07.npz"
    path.parent.mkdir()
    with np.load(seen / "truth" / "subj07.npz") as file:
        kept = {k: file[k] for k in file.files if not k.startswith("scale")}
    np.savez(path, **kept)
    with pytest.raises(DataError, match="of an earlier version"):
        read_brain(tmp_path, SUBJECT, one)
    whole = read_brain(seen, SUBJECT, shown.voxel_ijk[:2])
    assert whole is not None
    with pytest.raises(DataError, match="images"):
        whole(np.zeros((2, 8, 8, 2), np.uint8))


def test_stimuli_are_the_rendered_scenes_in_rows_of_nsd_id(
    seen: Path, shown: Shown
) -> None:
    with h5py.File(NsdTree(seen).file("stimuli")) as file:
        assert file["imgBrick"].shape == (73000, 16, 16, 3)
        assert file["imgBrick"].dtype == np.uint8
    tree = NsdTree(seen)
    for row in (7, 300):
        scene = Image.fromarray(shown.images[row])
        small = np.asarray(scene.resize((16, 16), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(tree.stimuli(shown.nsd_id[[row]])[0], small)


def test_the_folder_of_two_workers_is_that_of_one_and_without_fault(
    seen: Path, tmp_path: Path
) -> None:
    nsd_writer.simulate(tmp_path / "nsd", SETTINGS, (SUBJECT,), SEED, n_workers=2)
    found, expected = digests(tmp_path / "nsd"), digests(seen)
    assert "truth/subj07.npz" in found
    assert found == expected
    version = NsdTree.betas_version
    report = check_folder(
        seen, subjects=(SUBJECT,), sessions=(1,), betas_version=version
    )
    assert {finding.state for finding in report.findings} == {"ok"}


def test_early_areas_carry_layout_and_high_areas_category(
    seen: Path, shown: Shown
) -> None:
    ready = prepare_responses(Nsd(NsdTree(seen)), SUBJECT, DATA)
    rows, n = np.searchsorted(shown.nsd_id, ready.nsd_id), len(ready.nsd_id)
    light = NsdTree(seen).stimuli(ready.nsd_id).mean(axis=3).reshape(n, 4, 4, 4, 4)
    groups = ("animal", "vehicle", "food", "person")
    sizes = [
        [sum(o.size for o in w.objects if o.supercategory == g) for g in groups]
        for w in shown.worlds
    ]
    targets = {"layout": light.mean(axis=(2, 4)).reshape(n, 16)}
    targets["category"] = np.array(sizes)[rows]
    names = np.array(AREAS)[ready.roi]
    place = {tuple(ijk): k for k, ijk in enumerate(shown.voxel_ijk.tolist())}
    voxels = [place[tuple(ijk)] for ijk in ready.voxel_ijk.tolist()]
    responses = shown.responses[rows][:, voxels]

    def accuracy(areas: tuple[str, ...], name: str) -> float:
        X, Y = responses[:, np.isin(names, areas)], targets[name]
        ridge = RidgeCV(alphas=np.logspace(1, 5, 9))
        pairs = zip(Y.T, cross_val_predict(ridge, X, Y, cv=3).T, strict=True)
        return float(np.mean([np.corrcoef(y, y_hat)[0, 1] for y, y_hat in pairs]))

    # some 480 images: a correlation has an SD of about .04
    assert accuracy(LVC, "layout") > 0.3
    assert accuracy(LVC, "layout") > accuracy(HVC, "layout")
    assert accuracy(HVC, "category") > 0.3
    assert accuracy(HVC, "category") > accuracy(LVC, "category") + 0.1


def test_measured_responses_are_the_true_ones_and_noise(seen: Path) -> None:
    ready = prepare_responses(Nsd(NsdTree(seen)), SUBJECT, DATA)
    test = np.flatnonzero(ready.split == "test")
    images = [
        scenes.render(nsd_writer.scene_of(int(i), ())) for i in ready.nsd_id[test]
    ]
    brain = read_brain(seen, SUBJECT, ready.voxel_ijk)
    assert brain is not None
    x, y = (v - v.mean(axis=0) for v in (brain(np.stack(images)), ready.betas[test]))
    r = (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    # n = 20 images: the mean over voxels, which share noise, is known to about .05
    assert r.mean() == pytest.approx(ready.noise_ceiling_r.mean(), abs=0.15)
    assert (x * y).sum() / (x**2).sum() == pytest.approx(1, abs=0.15)  # the same units


# --- noise --------------------------------------------------------------------------


def test_noise_has_the_variance_that_ncsnr_states(noise: trial_noise.Noise) -> None:
    sessions = drawn(noise, 6)
    variance = sessions.reshape(-1, sessions.shape[-1]).var(axis=0)
    # 4500 trials that correlate: an SD of .022 of each; shared parts keep the mean from
    # being known much better
    assert variance.mean() == pytest.approx(1, abs=0.02)
    assert variance.std() < 0.03


def test_voxels_share_noise_as_the_loadings_say(noise: trial_noise.Noise) -> None:
    some = slice(None, None, 9)
    sessions = drawn(noise, 6)[:, :, some].reshape(4500, -1)
    measured = np.corrcoef(sessions.T)
    planted = noise.correlation()[some, some]
    off = ~np.eye(len(planted), dtype=bool)
    # each has an SE of .016 or a little more
    assert np.abs(measured - planted)[off].mean() < 0.02
    slope = np.polyfit(planted[off], measured[off], 1)[0]
    assert slope == pytest.approx(1, abs=0.05)


def test_noise_is_smooth_on_the_cortex(
    parts: tuple[anatomy.Anatomy, voxel_model.Brain, npt.NDArray[np.float32]],
    noise: trial_noise.Noise,
) -> None:
    body = parts[0]
    silent = dataclasses.replace(noise, aligned=np.zeros_like(noise.aligned))
    table = by_distance(
        {"r": silent.correlation().astype(np.float64)},
        body.voxel_ijk,
        (0.5, 1.2, 1.6, 2.2, 4, 6, 12, 30),
    )
    mm = table["distance"] * body.edge_mm
    expected = assumptions.SMOOTH_SHARE * np.exp(
        -(mm**2) / (2 * assumptions.SMOOTH_MM**2)
    )
    # 30 fields: a correlation of .3 has an SE of .05, and pairs share fields
    np.testing.assert_allclose(table["r"], expected, atol=0.04)


def test_a_part_of_the_noise_looks_like_the_signal(
    parts: tuple[anatomy.Anatomy, voxel_model.Brain, npt.NDArray[np.float32]],
    noise: trial_noise.Noise,
) -> None:
    brain, signal = parts[1:]
    alike = np.corrcoef(signal[:, ::5].T)
    shared = (noise.aligned @ noise.aligned.T)[brain.active][:, brain.active][::5, ::5]
    off = ~np.eye(len(alike), dtype=bool)
    slope = np.polyfit(alike[off], shared[off], 1)[0]
    assert slope == pytest.approx(assumptions.ALIGNED_SHARE, abs=0.03)
    np.testing.assert_allclose(np.diag(shared), assumptions.ALIGNED_SHARE, atol=1e-5)
    assert not noise.aligned[~brain.active].any()


def test_noise_goes_on_from_trial_to_trial_and_within_a_run(
    noise: trial_noise.Noise,
) -> None:
    sessions = drawn(noise, 6)[:, :, ::20]
    for lag in (1, 2, 30, 300):
        expected = trial_noise.autocorrelation([lag])[0]
        products = (sessions[:, lag:] * sessions[:, :-lag]).mean()
        assert products == pytest.approx(expected, abs=0.012)  # 4500 trials, shared
    first, second = trial_noise.autocorrelation([1, 2])
    assert first == pytest.approx(0.97 * 0.2 + 0.03 * (1 - 12 / 749), abs=0.002)
    assert second == pytest.approx(0.97 * 0.04 + 0.03 * (1 - 24 / 749), abs=0.002)


def test_a_sample_variance_varies_more_where_trials_are_not_independent(
    noise: trial_noise.Noise,
) -> None:
    white = dataclasses.replace(
        noise, aligned=noise.aligned[:400] * 0, smooth=noise.smooth[:400]
    )
    spread = drawn(white, 40).var(axis=1).var()
    # an SD of 16,000 variances, of which those of a session share 30 fields
    assert spread * 750 / 2 == pytest.approx(trial_noise.inflation(), rel=0.1)


# --- what a folder shows of it ------------------------------------------------------


def test_noise_that_was_planted_is_found_in_the_written_betas(
    two_sessions: Path,
) -> None:
    tree, data = NsdTree(two_sessions), DATA.model_copy(update={"sessions": 2})
    ready = prepare_responses(Nsd(tree), SUBJECT, data)
    residuals, voxels = noise_residuals(Nsd(tree), SUBJECT, data, ready)
    truth = ground_truth.read_truth(two_sessions, SUBJECT)
    ijk = ready.voxel_ijk[voxels]
    both = {
        "planted": truth.noise_correlation(ijk),
        "measured": residuals.correlation(),
    }
    table = by_distance(both, ijk, (0.5, 1.2, 2, 3, 5, 10, 40))
    # some 600 trials: .04 for a pair, and pairs of a bin have trials in common
    np.testing.assert_allclose(table["measured"], table["planted"], atol=0.02)
    found = correlation_between_trials(residuals, 3)
    np.testing.assert_allclose(
        found, ground_truth.planted_autocorrelation(3), atol=0.03
    )


def test_held_out_categories_are_in_the_second_test_set_alone(seen: Path) -> None:
    tree = NsdTree(seen)
    ready = prepare_responses(Nsd(tree), SUBJECT, DATA)
    named = categories_in_captions(tree.captions(ready.nsd_id, 5))
    second = ready.split == "test2"
    assert ready.nsd_id[second].tolist() == tree.second_test_set().tolist()
    assert (ready.n_repeats[second] == 3).all()
    world = [
        {o.category for o in nsd_writer.scene_of(int(i), ()).objects}
        for i in ready.nsd_id[~second]
    ]
    assert not set.union(*world) & set(HELD_OUT)
    # people write "lorry", too: not all is named, and an "orange car" is no orange
    held = set().union(*(n for n, s in zip(named, second, strict=True) if s))
    assert held
    assert held <= set(HELD_OUT)


def test_images_seen_once_are_averaged_split_and_bounded(seen: Path) -> None:
    ready = prepare_responses(Nsd(NsdTree(seen)), SUBJECT, DATA)
    train = ready.n_repeats[ready.split == "train"]
    assert set(train.tolist()) == {1, 2, 3}
    assert (ready.n_repeats[ready.split == "test"] == 3).all()
    assert ready.n_valid_test.shape == (20, ready.betas.shape[1])
    # noise of an average falls with its trials, the signal stays
    spread = [ready.betas[ready.n_repeats == m].var(axis=0).mean() for m in (1, 2, 3)]
    assert spread == sorted(spread, reverse=True)
    power = np.median(ready.ncsnr) ** 2
    expected = [(power + 1 / m) / (power + 1) for m in (2, 3)]
    np.testing.assert_allclose(np.array(spread[1:]) / spread[0], expected, rtol=0.15)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nsd\n3\n", "a column nsdId"),
        ("nsdId\nthree\n", "no numbers in the column"),
        ("nsdId\n0\n", "not shared"),  # NSD's first shared image is 2950
    ],
)
def test_a_second_test_set_that_cannot_be_is_one_sentence(
    two_sessions: Path, tmp_path: Path, text: str, words: str
) -> None:
    tree = NsdTree(copy_of(two_sessions, tmp_path / "nsd"))
    path = tree.file("design").with_name("second_test_set.csv")
    assert path in tree.inputs("01", [SUBJECT], [1])
    path.unlink()
    assert len(tree.second_test_set()) == 0
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        tree.second_test_set()
