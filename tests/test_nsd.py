"""The reader returns what was written, and says what is wrong with what was not.

The tiny folder is written here with h5py, nibabel and scipy from NSD's documented
layout, and shares no code with the reader or with the in-silico writer.
"""

import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.io import loadmat, savemat

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.datasets.nsd.betas import voxel_indices
from minddiff_utils.datasets.nsd.data_set import Nsd, check_trials
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.preprocessing import prepare_responses, prepare_stimuli

GRID = (5, 4, 3)
N_SESSIONS = 2
BETAS = "nsddata_betas/ppdata/subj02/func1pt8mm/betas_fithrf_GLMdenoise_RR"
FUNC = "nsddata/ppdata/subj02/func1pt8mm"
EXPERIMENT = "nsddata/experiments/nsd"
PRF = ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")
STIMULI = "nsddata_stimuli/stimuli/nsd"


@dataclass(frozen=True)
class Truth:
    """What was written, as the files mean it."""

    root: Path
    order: npt.NDArray[np.int64]  # 1-based
    images: npt.NDArray[np.int64]  # 1-based
    betas: npt.NDArray[np.int16]  # (sessions, X, Y, Z, 750)
    kastner: npt.NDArray[np.int64]
    prf: npt.NDArray[np.int64]


def save_nii(path: Path, data: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * 1.8 for n in GRID]
    image = nib.Nifti1Image(data, affine)
    image.header.set_slope_inter(1, 0)
    nib.save(image, path)


def write_design(root: Path, rng: np.random.Generator) -> tuple[npt.NDArray, ...]:
    early = np.concatenate([np.arange(1, 101), np.arange(1001, 1401)])  # 3 x 500
    late = np.setdiff1d(np.arange(1, 10_001), early)
    order = np.concatenate(
        [rng.permutation(np.repeat(part, 3)) for part in (early, late)]
    )
    ids = rng.permutation(73_000) + 1
    shared = np.sort(ids[:1000])
    private = ids[1000:].reshape(8, 9000)
    images = np.hstack([np.tile(shared, (8, 1)), private])
    (root / EXPERIMENT).mkdir(parents=True)
    variables = {
        "masterordering": order[None].astype(np.uint16),
        "subjectim": images.astype(np.int32),
        "sharedix": shared[None].astype(np.int32),
    }
    savemat(root / EXPERIMENT / "nsd_expdesign.mat", variables, do_compression=True)
    return order, images


def write_table(root: Path, order: npt.NDArray, images: npt.NDArray) -> None:
    table = pd.DataFrame({"cocoId": np.arange(73_000) * 7 + 3})
    table["cocoSplit"] = np.where(table.index % 5 == 0, "val2017", "train2017")
    table["cropBox"] = "(0, 0, 0.1, 0.1)"
    table["loss"] = 0.1
    table["nsdId"] = table.index
    for flag in ("flagged", "BOLD5000"):
        table[flag] = False
    table["shared1000"] = table.index.isin(images[0, :1000] - 1)
    columns = {f"subject{s}": 0 for s in range(1, 9)}
    columns |= {f"subject{s}_rep{r}": 0 for s in range(1, 9) for r in range(3)}
    table = table.assign(**columns)
    shown = pd.DataFrame({"k": order, "trial": np.arange(1, 30_001)})
    repeat = shown.groupby("k").cumcount()
    for r in range(3):
        part = shown[repeat == r].sort_values("k")
        values = np.zeros(73_000, np.int64)
        values[images[1, part["k"] - 1] - 1] = part["trial"]
        table[f"subject2_rep{r}"] = values
    table.to_csv(root / EXPERIMENT / "nsd_stim_info_merged.csv")


def write_stimuli(root: Path, ids: npt.NDArray) -> None:
    folder = root / STIMULI / "annotations"
    folder.mkdir(parents=True)
    with h5py.File(root / STIMULI / "nsd_stimuli.hdf5", "w") as file:
        brick = file.create_dataset(
            "imgBrick", (73_000, 8, 8, 3), "u1", chunks=(1, 8, 8, 3)
        )
        for i in ids:
            brick[i] = np.full((8, 8, 3), i % 251, np.uint8)
    for split in ("train2017", "val2017"):
        here = [i for i in ids if (i % 5 == 0) == (split == "val2017")]
        notes = [
            {"image_id": int(i) * 7 + 3, "id": int(i) * 10 + n, "caption": f"{i} n{n}"}
            for n in (2, 0, 1)
            for i in here
        ]
        path = folder / f"captions_{split}.json"
        path.write_text(json.dumps({"annotations": notes}))


def write_regions(root: Path) -> tuple[npt.NDArray, npt.NDArray]:
    kastner = np.zeros(GRID, np.int64)
    kastner.flat[:30] = np.arange(30) % 26  # every label, and 0
    kastner[4] = -1
    prf = np.zeros(GRID, np.int64)
    prf.flat[:4] = [7, 0, 1, 2]
    prf[4] = -1
    for name, labels in (("Kastner2015", kastner), ("prf-visualrois", prf)):
        save_nii(root / FUNC / "roi" / f"{name}.nii.gz", labels.astype(np.float64))
    labels = root / "nsddata/freesurfer/subj02/label"
    labels.mkdir(parents=True)
    lines = ["0 Unknown \t"] + [f"{v} {n}  \t" for v, n in enumerate(PRF, start=1)]
    (labels / "prf-visualrois.mgz.ctab").write_text("\n".join(lines) + "\n")
    return kastner, prf


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    rng = np.random.default_rng(7)
    root = tmp_path_factory.mktemp("nsd")
    order, images = write_design(root, rng)
    write_table(root, order, images)
    shown = np.unique(images[1, order[: 750 * N_SESSIONS] - 1] - 1)
    write_stimuli(root, shown)
    kastner, prf = write_regions(root)
    tuned = rng.normal(0, 500, (10_000, *GRID))[order[: 750 * N_SESSIONS] - 1]
    noisy = tuned + rng.normal(0, 500, tuned.shape)
    betas = np.moveaxis(noisy.reshape(N_SESSIONS, 750, *GRID), 1, -1)
    betas = np.clip(np.rint(betas), -32768, 32767).astype(np.int16)
    betas[0, 0, 0, 1] = 0  # no data in session 1
    betas[1, 0, 0, 2, 5] = 32767  # saturated
    betas[:, 0, 1, 0] = 0  # never any data
    for session in range(N_SESSIONS):
        stem = root / BETAS / f"betas_session{session + 1:02d}"
        save_nii(Path(f"{stem}.nii.gz"), betas[session])
        with h5py.File(f"{stem}.hdf5", "w") as file:
            stored = betas[session].transpose(3, 2, 1, 0)
            file.create_dataset("betas", data=stored, chunks=(750, 1, 1, 1))
    ncsnr = np.full(GRID, 0.4, np.float32)
    ncsnr[0, 0, 2] = np.nan
    save_nii(root / BETAS / "ncsnr.nii.gz", ncsnr)
    save_nii(root / FUNC / "brainmask.nii.gz", np.ones(GRID, np.int16))
    return Truth(root, order, images, betas, kastner, prf)


@pytest.fixture
def tree(written: Truth) -> NsdTree:
    return NsdTree(written.root)


@pytest.fixture
def broken(written: Truth, tmp_path: Path) -> NsdTree:
    """Give a copy that a test may damage."""
    shutil.copytree(written.root, tmp_path / "nsd")
    return NsdTree(tmp_path / "nsd")


# --- the index chain ---------------------------------------------------------------


def test_indices_are_converted_from_one_based_exactly_once(
    tree: NsdTree, written: Truth
) -> None:
    trials = tree.trials(2, N_SESSIONS)
    for trial in (0, 1, 749, 750, 1499):
        k10 = written.order[trial]
        assert trials.place[trial] == k10 - 1
        assert trials.image_id[trial] == written.images[1, k10 - 1] - 1
        assert trials.session[trial] == 1 + trial // 750
        assert (trials.place[trial] < 1000) == (k10 <= 1000)


def test_stimulus_table_of_another_subject_is_noticed(tree: NsdTree) -> None:
    with pytest.raises(DataError, match="does not list nsdId"):
        check_trials(tree, 1, 1)


@pytest.mark.parametrize("subject", range(1, 9))
def test_all_eight_subjects_have_their_own_images(
    tree: NsdTree, written: Truth, subject: int
) -> None:
    trials = tree.trials(subject, 30)
    expected = written.images[subject - 1][written.order[:22_500] - 1] - 1
    np.testing.assert_array_equal(trials.image_id, expected)


@pytest.mark.parametrize("shift", [0, 1])
def test_behaviour_must_name_the_images_of_the_design(
    broken: NsdTree, shift: int
) -> None:
    trials = broken.trials(2, 1)
    ids = {"10KID": trials.place + 1, "73KID": trials.image_id + 1 + shift}
    path = broken.root / "nsddata/ppdata/subj02/behav/responses.tsv"
    path.parent.mkdir(parents=True)
    table = pd.DataFrame({"SUBJECT": 2, "SESSION": trials.session, **ids})
    table.astype(float).to_csv(path, sep="\t", index=False)
    if shift:
        with pytest.raises(DataError, match=r"responses\.tsv names other images"):
            check_trials(broken, 2, 1)
    else:
        check_trials(broken, 2, 1)


def test_subject_and_sessions_out_of_range_are_refused(tree: NsdTree) -> None:
    with pytest.raises(ConfigError, match="subject is 9"):
        tree.trials(9, 1)
    with pytest.raises(ConfigError, match="n_sessions is 41"):
        tree.trials(1, 41)


# --- betas --------------------------------------------------------------------------


def test_both_containers_give_the_voxels_that_were_written(
    tree: NsdTree, written: Truth, rng: np.random.Generator
) -> None:
    mask = rng.random(GRID) < 0.4
    for session in (1, 2):
        stored = [tree.betas(2, session, mask, c) for c in ("hdf5", "nii.gz", None)]
        expected = written.betas[session - 1][mask].T
        for betas in stored:
            assert betas.dtype == np.int16
            np.testing.assert_array_equal(betas, expected)


def test_columns_follow_the_c_order_of_the_volume(
    tree: NsdTree, written: Truth
) -> None:
    mask = np.ones(GRID, bool)
    betas = tree.betas(2, 2, mask)
    for column, (i, j, k) in enumerate(voxel_indices(mask)):
        np.testing.assert_array_equal(betas[:, column], written.betas[1, i, j, k])


RECHUNKED = {"chunks": (75, 1, 2, 2)}
COMPRESSED = {"chunks": (750, 1, 1, 1), "compression": "gzip"}


@pytest.mark.parametrize("layout", [RECHUNKED, COMPRESSED, {}])
def test_betas_stored_in_other_chunks_are_read_alike(
    broken: NsdTree, written: Truth, layout: dict[str, object]
) -> None:
    stored = written.betas[0].transpose(3, 2, 1, 0)
    with h5py.File(broken.root / BETAS / "betas_session01.hdf5", "w") as file:
        file.create_dataset("betas", data=stored.astype(">i2"), **layout)
    mask = written.kastner > 5
    betas = broken.betas(2, 1, mask, "hdf5")
    assert betas.dtype == np.int16
    np.testing.assert_array_equal(betas, written.betas[0][mask].T)


def test_a_voxel_that_was_never_written_is_zero(broken: NsdTree) -> None:
    with h5py.File(broken.root / BETAS / "betas_session01.hdf5", "w") as file:
        shape = (750, *GRID[::-1])
        data = file.create_dataset("betas", shape, "<i2", chunks=(750, 1, 1, 1))
        data[:, 2, 1, 0] = np.arange(750)
    betas = broken.betas(2, 1, np.ones(GRID, bool), "hdf5")
    column = np.ravel_multi_index((0, 1, 2), GRID)
    np.testing.assert_array_equal(betas[:, column], np.arange(750))
    assert not np.delete(betas, column, axis=1).any()


def test_no_voxels_give_no_columns(tree: NsdTree) -> None:
    for container in ("hdf5", "nii.gz"):
        shape = tree.betas(2, 1, np.zeros(GRID, bool), container).shape
        assert shape == (750, 0)


@pytest.mark.parametrize("suffix", ["hdf5", "nii.gz"])
def test_float_betas_are_refused(broken: NsdTree, suffix: str) -> None:
    path = broken.root / BETAS / f"betas_session01.{suffix}"
    if suffix == "hdf5":
        with h5py.File(path, "w") as file:
            file["betas"] = np.zeros((750, *GRID[::-1]), np.float32)
    else:
        save_nii(path, np.zeros((*GRID, 750), np.float32))
    with pytest.raises(DataError, match="float32 betas, but int16"):
        broken.betas(2, 1, np.ones(GRID, bool), suffix)


@pytest.mark.parametrize("suffix", ["hdf5", "nii.gz"])
def test_betas_on_another_grid_are_refused(tree: NsdTree, suffix: str) -> None:
    with pytest.raises(DataError, match="has shape"):
        tree.betas(2, 1, np.ones((4, 4, 3), bool), suffix)


def test_missing_sessions_are_listed(tree: NsdTree) -> None:
    assert tree.sessions(2) == (1, 2)
    with pytest.raises(DataError, match=r"lacks the betas of session 3, 4 in"):
        tree.check_sessions(2, range(1, 5))


def test_sessions_that_nsd_has_not_are_said(tree: NsdTree) -> None:
    with pytest.raises(DataError, match=r"of session 33 in.*has 32 of this subject"):
        tree.check_sessions(3, (33,))


def test_what_a_broken_download_left_is_no_session(
    tree: NsdTree, tmp_path: Path
) -> None:
    folder = tmp_path / "nsd" / BETAS
    folder.mkdir(parents=True)
    for name in ("betas_session01.hdf5", "betas_session02.hdf5.part"):
        (folder / name).write_bytes(b"")
    broken = NsdTree(tmp_path / "nsd", folder.name)
    assert broken.sessions(2) == (1,)


# --- volumes and labels -------------------------------------------------------------


def test_region_volumes_keep_minus_one_zero_and_labels(
    tree: NsdTree, written: Truth
) -> None:
    np.testing.assert_array_equal(tree.roi(2, "Kastner2015"), written.kastner)
    np.testing.assert_array_equal(tree.roi(2, "prf-visualrois"), written.prf)


def test_without_a_colour_table_the_documented_labels_hold(tree: NsdTree) -> None:
    labels = tree.roi_labels(2, "Kastner2015")
    known = {"PHC2": 11, "TO2": 12, "TO1": 13, "LO1": 15, "V3B": 16, "V3A": 17}
    known |= {"IPS0": 18, "IPS5": 23, "SPL1": 24, "FEF": 25}
    assert {name: labels[name] for name in known} == known
    assert len(labels) == 25


def test_ncsnr_keeps_nan_and_refuses_negative_values(broken: NsdTree) -> None:
    assert int(np.isnan(broken.ncsnr(2)).sum()) == 1
    save_nii(broken.root / BETAS / "ncsnr.nii.gz", np.full(GRID, -0.1, np.float32))
    with pytest.raises(DataError, match="negative or infinite"):
        broken.ncsnr(2)


# --- stimuli ------------------------------------------------------------------------


def test_stimuli_come_in_the_order_asked(tree: NsdTree) -> None:
    ids = tree.trials(2, 1).image_id[:6]
    images = tree.stimuli(ids)
    assert images.shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(images[:, 0, 0, 0], ids % 251)


def test_captions_join_by_coco_id_and_are_ordered(tree: NsdTree) -> None:
    ids = tree.trials(2, 1).image_id[:20]
    captions = tree.captions(ids, 2)
    assert captions.tolist() == [[f"{i} n0", f"{i} n1"] for i in ids]


# --- surfaces -----------------------------------------------------------------------


def test_transform_becomes_zero_based_and_no_data_becomes_nan(broken: NsdTree) -> None:
    stored = np.array([[1, 1, 1], [9999, 9999, 9999], [2.5, 4, 3]], np.float32)
    path = broken.root / "nsddata/ppdata/subj02/transforms/lh.func1pt8-to-layerB2.mgz"
    path.parent.mkdir()
    nib.save(nib.MGHImage(stored.reshape(3, 1, 1, 3), np.eye(4)), path)
    found = broken.transform(2, "lh")
    np.testing.assert_array_equal(found, [[0, 0, 0], [np.nan] * 3, [1.5, 3, 2]])


def test_surface_is_read_back(broken: NsdTree) -> None:
    folder = broken.root / "nsddata/freesurfer/subj02/surf"
    folder.mkdir()
    vertices = np.eye(4, 3)
    faces = np.array([[0, 1, 2], [1, 2, 3]])
    nib.freesurfer.write_geometry(folder / "rh.inflated", vertices, faces)
    nib.freesurfer.write_morph_data(folder / "rh.sulc", np.arange(4))
    found = broken.surface(2, "rh")
    np.testing.assert_array_equal(found[0], vertices)
    np.testing.assert_array_equal(found[1], faces)
    np.testing.assert_array_equal(broken.surface_values(2, "rh"), np.arange(4))


def test_flat_patch_is_read_with_border_vertices(broken: NsdTree) -> None:
    folder = broken.root / "nsddata/freesurfer/fsaverage/surf"
    folder.mkdir(parents=True)
    path = folder / "lh.full.flat.patch.3d"
    points = [(1, 0.5, 1.0, 0.0), (-4, -2.0, 3.0, 0.0)]  # the second on the border
    body = b"".join(struct.pack(">ifff", *point) for point in points)
    path.write_bytes(struct.pack(">ii", -1, 2) + body)
    vertices, positions = broken.flat_patch("fsaverage", "lh")
    assert vertices.tolist() == [0, 3]
    assert positions.tolist() == [[0.5, 1.0, 0.0], [-2.0, 3.0, 0.0]]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="size does not fit its header"):
        broken.flat_patch("fsaverage", "lh")


def test_vertices_of_the_group_surface_are_zero_based(broken: NsdTree) -> None:
    path = broken.root / "nsddata/ppdata/subj02/transforms/rh.white-to-fsaverage.mgz"
    path.parent.mkdir()
    stored = np.array([3, 1, 1], np.float32).reshape(3, 1, 1)
    nib.save(nib.MGHImage(stored, np.eye(4)), path)
    assert broken.from_fsaverage(2, "rh").tolist() == [2, 0, 0]


# --- into preparation ---------------------------------------------------------------


def test_a_written_folder_is_prepared_with_every_irregularity_counted(
    tree: NsdTree, written: Truth
) -> None:
    data = DataConfig(sessions=N_SESSIONS, n_validation=50, n_reconstruct=5)
    ready = prepare_responses(Nsd(tree), 2, data)
    n_labelled = int(((written.kastner > 0) & (written.kastner < 24)).sum())
    n_labelled += 1  # first voxel: Kastner 0, drawn as hV4
    assert ready.betas.shape == (500, n_labelled - 1)  # one never had data
    assert ready.counts["voxels left out: no valid session"] == 1
    assert ready.counts["voxel-sessions left out: no data"] == 1
    assert ready.counts["trial values at the int16 limits"] == 1
    assert ready.counts["voxels without ncsnr in the file"] == 1
    assert ready.counts["values filled with 0: no valid repeat"] > 0
    assert np.isfinite(ready.betas).all()
    splits = dict(zip(*np.unique(ready.split, return_counts=True), strict=True))
    assert splits == {"test": 100, "train": 350, "validation": 50}
    assert (ready.n_repeats == 3).all()
    assert AREAS[ready.roi[0]] == "hV4"  # prf-visualrois overrides
    np.testing.assert_array_equal(ready.voxel_ijk[0], [0, 0, 0])
    np.testing.assert_array_equal(
        ready.nsd_id[ready.split == "test"], written.images[1, :100] - 1
    )


def test_prepared_stimuli_have_the_size_asked_and_their_captions(tree: NsdTree) -> None:
    ids = np.unique(tree.trials(2, 1).image_id)[:70]  # more than one batch
    ready = prepare_stimuli(Nsd(tree), ids, 4, 2)
    assert ready["images"].shape == (70, 4, 4, 3)
    np.testing.assert_array_equal(ready["images"][:][:, 1, 2, 0], ids % 251)
    assert ready["captions"][69, 1] == f"{ids[69]} n1"


# --- resaved by others --------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">i2", np.int32, np.uint8])
def test_labels_resaved_as_floats_or_scaled_are_the_same_labels(
    broken: NsdTree, written: Truth, dtype: str
) -> None:
    """Other programs store -1 to 25 with a slope, and round: -1 becomes -0.99999."""
    path = broken.root / FUNC / "roi" / "Kastner2015.nii.gz"
    image = nib.Nifti1Image(written.kastner * (1 - 1e-6), nib.load(path).affine)
    image.set_data_dtype(np.dtype(dtype))
    nib.save(image, path)
    np.testing.assert_array_equal(broken.roi(2, "Kastner2015"), written.kastner)


@pytest.mark.parametrize("value", [26, -2, 0.5, -0.5, np.nan, 1e12, -1e300])
def test_what_is_no_label_is_named_as_it_is(
    broken: NsdTree, written: Truth, value: float
) -> None:
    labels = written.kastner.astype(np.float64)
    labels[0, 0, 0] = value
    save_nii(broken.root / FUNC / "roi" / "Kastner2015.nii.gz", labels)
    with pytest.raises(
        DataError, match=r"holds (the value|NaN).* is expected"
    ) as raised:
        broken.roi(2, "Kastner2015")
    assert "the value -1," not in str(raised.value)


def test_a_matlab_file_of_version_7_3_is_said(broken: NsdTree) -> None:
    path = broken.root / EXPERIMENT / "nsd_expdesign.mat"
    path.unlink()
    with h5py.File(path, "w", userblock_size=512) as file:
        file["masterordering"] = np.ones((30_000, 1))
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + path.read_bytes()[512:])
    with pytest.raises(DataError, match="save it in MATLAB with -v7"):
        broken.design()


def test_a_design_that_is_not_compressed_is_read_alike(
    broken: NsdTree, written: Truth
) -> None:
    path = broken.root / EXPERIMENT / "nsd_expdesign.mat"
    raw = {k: v for k, v in loadmat(path).items() if k[0] != "_"}
    savemat(path, raw)
    np.testing.assert_array_equal(broken.design().order + 1, written.order)
