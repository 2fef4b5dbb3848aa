"""MindEye2's folder: rows, columns, areas, and every damage in one sentence."""

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from scipy.io import loadmat

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.datasets.mindeye2 import data_set as stored
from minddiff_utils.datasets.mindeye2.data_set import MindEye2
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.preprocessing import prepare_responses
from tests import tiny_mindeye2
from tests.damaged import (
    Damage,
    cut,
    filled,
    folders,
    gone,
    holds,
    preparing,
    refusals,
    volume,
)
from tests.damaged import array as npy
from tests.tiny_mindeye2 import BETAS, SUBJECT

DATA = DataConfig(sessions=2, n_validation=50, n_reconstruct=None)
INDICES, SHARED = "COCO_73k_subj_indices.hdf5", "shared1000.npy"
REGIONS, IMAGES = "brain_region_masks.hdf5", "coco_images_224_float16.hdf5"
TRAIN, TEST = "wds/subj01/train/1.tar", "wds/subj01/new_test/0.tar"
ROI = "nsddata/ppdata/subj01/func1pt8mm/roi"
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


whole, copy = folders(tiny_mindeye2.write)


def opened(root: Path) -> MindEye2:
    return MindEye2(NsdTree(root))


# --- what it holds --------------------------------------------------------------------


def test_a_row_is_a_trial_and_a_column_a_voxel_of_nsdgeneral(whole: Path) -> None:
    """An independent reading: C order over X, Y, Z, session by session."""
    data_set = opened(whole)
    units = data_set.units(SUBJECT, "nsdgeneral")
    general = np.asarray(nib.load(whole / ROI / "nsdgeneral.nii.gz").dataobj) > 0
    np.testing.assert_array_equal(units.position, np.argwhere(general))
    with h5py.File(whole / BETAS) as file:
        betas = file["betas"][...]
    for session in (1, 2):
        found = data_set.responses(SUBJECT, session, units)
        rows = slice(750 * (session - 1), 750 * session)
        np.testing.assert_array_equal(found, betas[rows])
    some = data_set.units(SUBJECT, "areas")
    assert 0 < len(some.area) < len(units.area)
    columns = [
        units.position.tolist().index(ijk) for ijk in some.position[[0, -1]].tolist()
    ]
    found = data_set.responses(SUBJECT, 2, some.at([0, len(some.area) - 1]))
    np.testing.assert_array_equal(found, betas[750:][:, columns])


def test_trials_are_those_of_the_design(whole: Path) -> None:
    trials = opened(whole).trials(SUBJECT, (1, 2))
    raw = loadmat(whole / DESIGN)
    k10 = raw["masterordering"][0, :1500].astype(int)
    nsd_id = raw["subjectim"][SUBJECT - 1].astype(int)[k10 - 1] - 1
    np.testing.assert_array_equal(trials.image_id, nsd_id)
    np.testing.assert_array_equal(trials.place, k10 - 1)
    assert opened(whole).sessions(SUBJECT, range(1, 41)) == (1, 2)


def test_another_standardisation_within_sessions_makes_no_difference(
    copy: Path,
) -> None:
    """So that it does not matter over which trials mean and SD were taken."""
    before = prepare_responses(opened(copy), SUBJECT, DATA).betas
    rng = np.random.default_rng(1)
    with h5py.File(copy / BETAS) as file:
        betas = file["betas"][...]
    for session in (0, 1):
        rows = slice(750 * session, 750 * session + 750)
        gain, shift = (
            rng.uniform(0.5, 2, betas.shape[1]),
            rng.normal(size=betas.shape[1]),
        )
        betas[rows] = betas[rows] * gain + shift
    (copy / BETAS).unlink()
    with h5py.File(copy / BETAS, "w") as file:
        file["betas"] = betas
    after = prepare_responses(opened(copy), SUBJECT, DATA).betas
    np.testing.assert_allclose(after, before, atol=1e-4)  # float32


def test_pickles_are_never_opened(whole: Path) -> None:
    prepare(whole)
    assert (whole / "evals/all_images.pt").is_file()
    assert not (whole / "OPENED").exists()


def test_behaviour_is_a_table_with_gaps(whole: Path) -> None:
    table = stored.read_behaviour(whole / TEST)
    assert table["is_shared"].all()
    assert table["reaction_time"].isna().all()
    ids = opened(whole).trials(SUBJECT, (1, 2)).image_id
    np.testing.assert_array_equal(ids[table["row"].astype(int)], table["image"])


def test_images_are_nsd_s_or_the_folder_s_own(copy: Path) -> None:
    ids = np.array([5, 0, 3])
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (6, 3, 4, 4))
    with h5py.File(copy / IMAGES, "w") as file:
        file["images"] = (pixels / 255).astype(np.float16)
    assert opened(copy).images(ids).shape == (3, 8, 8, 3)  # NSD's, of a simulation
    (copy / STIMULI).unlink()
    found = opened(copy).images(ids)
    expected = pixels[ids].transpose(0, 2, 3, 1)
    # float16 has 11 bits: 255 numbers in 0..1 come back
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(DataError, match=r"must lie in 0\.\.5"):
        opened(copy).images(np.array([6]))


def test_what_is_not_settled_is_said(copy: Path) -> None:
    notes = opened(copy).notes(SUBJECT)
    assert any("does not say from which betas" in note for note in notes)
    assert not any("other images validate" in note for note in notes)
    (copy / DESIGN).unlink()
    assert any("other images validate" in n for n in opened(copy).notes(SUBJECT))
    prepare(copy)


def test_behaviour_and_regions_may_be_missing(copy: Path) -> None:
    for name in (TRAIN, TEST, REGIONS):
        (copy / name).unlink()
    prepare(copy)
    names = {path.name for path in opened(copy).files(SUBJECT, (1, 2), "areas")}
    assert {BETAS, INDICES, SHARED, "nsdgeneral.nii.gz"} <= names


# --- what is refused ------------------------------------------------------------------


def array(name: str, key: str, change: Callable[[np.ndarray], object]) -> Damage:
    """Write a file of HDF5 again, one array changed; None leaves it out."""

    def damage(root: Path) -> None:
        with h5py.File(root / name) as file:
            held = dict[str, np.ndarray]()
            file.visititems(
                lambda k, v: held.update({k: v[...]}) if hasattr(v, "shape") else None
            )
        changed = change(held.pop(key))
        (root / name).unlink()
        with h5py.File(root / name, "w") as file:
            for k, values in held.items():
                file[k] = values
            if changed is not None:
                file[key] = changed

    return damage


def tar(
    name: str, values: np.ndarray, member: str = "sample000000000.behav.npy"
) -> Damage:
    def damage(root: Path) -> None:
        (root / name).unlink()
        tiny_mindeye2.write_tar(root / name, {member: values})

    return damage


def one_voxel_less(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[tuple(np.argwhere(values > 0)[0])] = 0
    return values


def objects(values: np.ndarray) -> np.ndarray:
    return values.astype(object)


def sample(**changed: float) -> np.ndarray:
    values = np.full((1, 17), -1.0)
    values[0, :6] = 0, SUBJECT, 1, 1, 1, 0
    for name, value in changed.items():
        values[0, ["image", "subject", "", "", "", "row"].index(name)] = value
    return values


NINES = np.full((73_000, 3, 1, 1), 9)
BAD: dict[str, tuple[Damage, str]] = {
    "betas gone": (gone(BETAS), "Responses not found at"),
    "betas empty": (holds(BETAS, b""), "is empty"),
    "betas of text": (holds(BETAS, b"betas\n" * 30), "is truncated or not as publish"),
    "a web page": (holds(BETAS, b"<!DOCTYPE html><html>"), "server's page"),
    "a pointer": (
        holds(BETAS, b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"
    ),
    "betas cut short": (cut(BETAS, -5000), "is truncated or not"),
    "betas under another name": (
        array(BETAS, "betas", lambda _: None), "holds nothing, but a dataset 'betas'"
    ),
    "betas as float16": (
        array(BETAS, "betas", lambda v: v.astype(np.float16)), "holds float16 of shape"
    ),
    "a trial lost": (array(BETAS, "betas", lambda v: v[1:]), "1499 trials, but a mult"),
    "betas turned round": (array(BETAS, "betas", np.transpose), "2949 trials, but"),
    "betas of three axes": (array(BETAS, "betas", lambda v: v[None]), r"shape \(1, 15"),
    "more sessions than NSD has": (
        array(BETAS, "betas", lambda _: np.zeros((750 * 41, 2), np.float32)),
        "holds 41 sessions",
    ),
    "voxels of another subject": (
        array(BETAS, "betas", lambda v: v[:, :-3]), r"as NSD's nsdgeneral of subject 1"
    ),
    "betas infinite": (array(BETAS, "betas", filled(np.inf, 3)), "infinite values"),
    "betas NaN": (array(BETAS, "betas", filled(np.nan, slice(None))), "holds zeros"),
    "a session of zeros": (
        array(BETAS, "betas", filled(0, slice(750, None))),
        "rows 750 to 1499, holds zeros",
    ),
    "a session twice": (
        array(BETAS, "betas", lambda v: np.r_[v[:750], v[:750]]), "session 1 once more"
    ),
    "indices gone": (gone(INDICES), "Images of the trials not found"),
    "indices of others": (
        array(INDICES, "subj01", lambda _: None), "a dataset 'subj01'"
    ),
    "indices swapped": (
        lambda root: array(INDICES, "subj01", lambda v: v[::-1])(root),
        "nsd_expdesign.mat|not the subject's",
    ),
    "indices too few": (
        array(INDICES, "subj01", lambda v: v[:-750]), "750 trials of subject 1, but 15"
    ),
    "indices counted from 1": (array(INDICES, "subj01", lambda v: v + 1), "subject's"),
    "indices beyond the last": (
        array(INDICES, "subj01", filled(73_000, 3)), "to 73000 in subj01"
    ),
    "indices of fractions": (
        array(INDICES, "subj01", lambda v: v + 0.5), "fractions in subj01"
    ),
    "indices NaN": (
        array(INDICES, "subj01", lambda v: np.where(v == v[0], np.nan, v)), "no numb"
    ),
    "indices in a table": (
        array(INDICES, "subj01", lambda v: v[None]), r"int64 of shape \(1, 1500\)"
    ),
    "shared images gone": (gone(SHARED), "Shared images not found"),
    "shared images as objects": (npy(SHARED, objects), "Shared images at .* is"),
    "shared images as ids": (npy(SHARED, np.flatnonzero), r"int64 of shape \(1000,\)"),
    "one shared image less": (
        npy(SHARED, lambda v: filled(0, np.flatnonzero(v)[0])(v)), "999 shared images"
    ),
    "regions of others": (
        array(REGIONS, "subj01/V1", lambda v: v[:-1]), "for V1, but numbers of"
    ),
    "regions without V1": (
        array(REGIONS, "subj01/V1", lambda _: None), "the regions V2, V3, V4"
    ),
    "columns in another order": (
        array(REGIONS, "subj01/V1", lambda v: v[::-1]), "not in the order"
    ),
    "regions of nobody": (holds(REGIONS, b"regions"), "Regions at .* is truncated"),
    "nsdgeneral gone": (gone(f"{ROI}/nsdgeneral.nii.gz"), "nsdgeneral .*not found"),
    "nsdgeneral of another release": (
        volume(f"{ROI}/nsdgeneral.nii.gz", one_voxel_less),
        "as NSD's nsdgeneral of subject 1 has",
    ),
    "atlas gone": (gone(f"{ROI}/Kastner2015.nii.gz"), "Kastner2015 .*not found"),
    "behaviour cut short": (cut(TRAIN, -40_000), "Behaviour at .* is truncated"),
    "behaviour of text": (holds(TRAIN, b"behaviour"), "Behaviour at .* is truncated"),
    "behaviour as objects": (
        tar(TEST, np.array([[None] * 17], object)), "Behaviour at .* is truncated"
    ),
    "behaviour of 16 columns": (tar(TEST, np.zeros((1, 16))), r"shape \(1, 16\)"),
    "behaviour without a trial": (
        tar(TEST, np.zeros(3), "sample000000000.jpg"), "no member"
    ),
    "behaviour of another subject": (tar(TEST, sample(subject=2)), "of subject 2"),
    "behaviour of another row": (tar(TEST, sample(row=1500)), "values 1500 to 1500"),
    "behaviour without a row": (tar(TEST, sample(row=-1)), "no numbers in the"),
    "behaviour of another image": (tar(TEST, sample(image=72_999)), "image 72999"),
    "no images": (gone(STIMULI), "Stimuli not found"),
    "images of another kind": (
        lambda root: (gone(STIMULI)(root), _images(root, np.zeros((9, 4, 4, 3)))),
        r"shape \(9, 4, 4, 3\)",
    ),
    "images in 0 to 255": (
        lambda root: (gone(STIMULI)(root), _images(root, NINES)),
        "values beyond 0 and 1",
    ),
}  # fmt: skip


def _images(root: Path, values: np.ndarray) -> None:
    with h5py.File(root / IMAGES, "w") as file:
        file["images"] = values.astype(np.float16)


prepare = preparing("mindeye2", DATA, SUBJECT, 2)
test_bad_input_is_one_sentence_and_nothing_is_written = refusals(BAD, prepare)


def test_subjects_and_sessions_that_there_are_not_are_one_sentence(
    whole: Path,
) -> None:
    with pytest.raises(
        DataError, match=r"has sessions 1 to 2 in .* but 3, 4 are asked"
    ):
        opened(whole).sessions(SUBJECT, (3, 4))
    with pytest.raises(DataError, match=r"Responses not found at .*subj02"):
        opened(whole).sessions(2, (1,))
