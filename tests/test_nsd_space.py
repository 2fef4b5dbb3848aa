"""Volumes of one subject lie in one space, or the two that do not are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets.nsd.reader import NsdTree

GRID = (6, 6, 6)
VERSION = "betas_fithrf_GLMdenoise_RR"
BETAS = f"nsddata_betas/ppdata/subj01/func1pt8mm/{VERSION}"
FUNC = "nsddata/ppdata/subj01/func1pt8mm"
FILES = {
    "Kastner2015": f"{FUNC}/roi/Kastner2015.nii.gz",
    "prf-visualrois": f"{FUNC}/roi/prf-visualrois.nii.gz",
    "ncsnr": f"{BETAS}/ncsnr.nii.gz",
    "brainmask": f"{FUNC}/brainmask.nii.gz",
    "betas_session01": f"{BETAS}/betas_session01.nii.gz",
}
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
AFFINE[:3, 3] = -4.5


def save(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


@pytest.fixture
def tree(tmp_path: Path) -> NsdTree:
    labels = np.zeros(GRID)
    labels[2:4, 1:3, 4] = 1
    values = {
        "Kastner2015": labels,
        "prf-visualrois": labels,
        "ncsnr": labels.astype(np.float32) / 2,
        "brainmask": np.ones(GRID, np.int16),
        "betas_session01": np.ones((*GRID, 750), np.int16),
    }
    for name, path in FILES.items():
        save(tmp_path / path, nib.Nifti1Image(values[name], AFFINE))
    return NsdTree(tmp_path)


def read(tree: NsdTree) -> None:
    """Read what a run reads of a subject's volumes."""
    mask = (tree.roi(1, "Kastner2015") > 0) | (tree.roi(1, "prf-visualrois") > 0)
    tree.ncsnr(1)
    tree.brainmask(1)
    assert tree.betas(1, 1, mask).shape == (750, 4)


def reoriented(axes: str) -> Callable[[Any], Any]:
    def change(image: Any) -> Any:
        start = nib.orientations.io_orientation(image.affine)
        end = nib.orientations.axcodes2ornt(tuple(axes))
        return image.as_reoriented(nib.orientations.ornt_transform(start, end))

    return change


def placed(change: Callable[[Any], object]) -> Callable[[Any], Any]:
    """Return what changes the affine alone."""

    def changed(image: Any) -> Any:
        affine = image.affine.copy()
        change(affine)
        return nib.Nifti1Image(np.asanyarray(image.dataobj), affine)

    return changed


def shifted(mm: float) -> Callable[[Any], Any]:
    return placed(lambda a: a.__setitem__((0, 3), a[0, 3] + mm))


def coded(sform: int, qform: int, shift: float = 0) -> Callable[[Any], Any]:
    def change(image: Any) -> Any:
        other = image.affine.copy()
        other[0, 3] += shift
        # without an affine of its own, nibabel writes the codes as they stand
        new = nib.Nifti1Image(np.asanyarray(image.dataobj), None)
        new.header.set_sform(image.affine, code=sform)
        new.header.set_qform(other, code=qform)
        return new

    return change


WRONG = {
    "LAS": reoriented("LAS"),
    "RPS": reoriented("RPS"),
    "LPS": reoriented("LPS"),
    "transposed": reoriented("ARS"),
    "shifted by a millimetre": shifted(1.0),
    "shifted by a tenth": shifted(0.1),
    "larger voxels": placed(lambda a: a.__setitem__((1, 1), 2.0)),
    "turned": placed(lambda a: a.__setitem__((0, 1), 0.1)),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", FILES)
def test_a_volume_in_another_space_is_refused_and_both_files_are_named(
    tree: NsdTree, name: str, change: Callable[[Any], Any]
) -> None:
    path = tree.root / FILES[name]
    save(path, change(nib.load(path)))
    with pytest.raises(DataError, match="lie in different spaces") as raised:
        read(tree)
    said = str(raised.value)
    assert said.count(".nii.gz") == 2
    assert str(path) in said
    assert said.count("\n") == 0


UNCLEAR = {
    "no space": (coded(0, 0), "states no space"),
    "two spaces": (coded(1, 1, shift=3.6), "states two different spaces"),
}


@pytest.mark.parametrize(("change", "words"), UNCLEAR.values(), ids=UNCLEAR)
@pytest.mark.parametrize("name", FILES)
def test_a_header_that_does_not_say_where_it_lies_is_refused(
    tree: NsdTree, name: str, change: Callable[[Any], Any], words: str
) -> None:
    path = tree.root / FILES[name]
    save(path, change(nib.load(path)))
    with pytest.raises(DataError, match=words) as raised:
        read(tree)
    assert str(path) in str(raised.value)


SAME = {
    "rounded": shifted(1e-4),
    "by qform alone": coded(0, 1),
    "by both": coded(2, 1),
    "by the form alone": coded(1, 0),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
@pytest.mark.parametrize("name", FILES)
def test_the_same_space_in_other_words_is_read(
    tree: NsdTree, name: str, change: Callable[[Any], Any]
) -> None:
    path = tree.root / FILES[name]
    save(path, change(nib.load(path)))
    read(tree)


def test_volumes_all_turned_are_refused_beside_betas_without_an_affine(
    tree: NsdTree,
) -> None:
    (tree.root / FILES["betas_session01"]).unlink()
    for name in FILES:
        path = tree.root / FILES[name]
        if path.exists():
            save(path, WRONG["LAS"](nib.load(path)))
    with h5py.File(tree.root / BETAS / "betas_session01.hdf5", "w") as file:
        file["betas"] = np.ones((750, *GRID), np.int16)
    with pytest.raises(DataError, match=r"ncsnr\.nii\.gz lead to LAS, but those of .*"):
        read(tree)
