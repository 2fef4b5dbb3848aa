"""NSD's files in one list; in other forms they are read, checked and not fetched."""

import ast
import gzip
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.datasets import check_folder, published
from minddiff_utils.datasets.inventory import find
from minddiff_utils.datasets.nsd import betas as nsd_betas
from minddiff_utils.datasets.nsd import layout
from minddiff_utils.datasets.nsd.data_set import Nsd, check_trials
from minddiff_utils.datasets.nsd.layout import (
    as_present,
    inventory,
    not_otherwise,
    published_sessions,
)
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.preprocessing import prepare_responses

from .test_nsd import BETAS, FUNC, N_SESSIONS, STIMULI, Truth, written

__all__ = ["written"]
DATA = DataConfig(sessions=N_SESSIONS, n_validation=50, n_reconstruct=5)


@pytest.fixture
def broken(written: Truth, tmp_path: Path) -> NsdTree:
    """Give a copy that a test may change."""
    shutil.copytree(written.root, tmp_path / "nsd")
    return NsdTree(tmp_path / "nsd")


def unpack(path: Path) -> None:
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()


def unpacked(root: Path) -> None:
    for path in list(root.rglob("*.nii.gz")):
        unpack(path)
    for path in root.rglob("*.hdf5"):
        if "betas" in path.name:
            path.unlink()


def unpadded(root: Path) -> None:
    for path in list((root / BETAS).glob("betas_session0*")):
        path.rename(path.with_name(path.name.replace("session0", "session")))


def in_halves(root: Path) -> None:
    for name in ("Kastner2015", "prf-visualrois"):
        path = root / FUNC / "roi" / f"{name}.nii.gz"
        image = nib.load(path)
        labels = np.asanyarray(image.dataobj)
        left = np.arange(len(labels))[:, None, None] < 2
        for h, side in (("lh", left), ("rh", ~left)):
            half = nib.Nifti1Image(np.where(side, labels, -1), image.affine)
            nib.save(half, path.with_name(f"{h}.{name}.nii.gz"))
        path.unlink()


def in_capitals(root: Path) -> None:
    (root / FUNC / "brainmask.nii.gz").rename(root / FUNC / "BrainMask.NII.GZ")
    roi = root / FUNC / "roi" / "Kastner2015.nii.gz"
    roi.rename(roi.with_name("kastner2015.nii.gz"))
    (root / FUNC / "roi").rename(root / FUNC / "ROI")
    for path in list((root / BETAS).glob("*.hdf5")):
        path.rename(path.with_suffix(".HDF5"))
    for path in (root / BETAS).glob("betas*.nii.gz"):
        path.unlink()


def deeper(root: Path) -> None:
    folder = root / STIMULI / "annotations"
    folder.rename(folder.with_name("kept"))
    folder.mkdir()
    folder.with_name("kept").rename(folder / "annotations")


def beside(root: Path) -> None:
    folder = root / STIMULI / "annotations"
    for path in list(folder.iterdir()):
        path.rename(folder.parent / path.name)
    folder.rmdir()


FORMS: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (unpacked, unpadded, in_halves, in_capitals, deeper, beside)
}


def unusable(tree: NsdTree) -> list[str]:
    """Return what `check` finds that a run would stumble over."""
    seen = check_folder(
        tree.root, subjects=[2], sessions=[1, 2], betas_version=tree.betas_version
    )
    bad = ("missing", "damaged", "unreadable")
    return [f.item for f in seen.findings if f.state in bad]


@pytest.mark.parametrize("form", FORMS)
def test_another_form_prepares_the_same_and_passes_check(
    written: Truth,
    broken: NsdTree,
    form: str,
) -> None:
    ids = broken.trials(2, 1).image_id[:3]
    expected = prepare_responses(Nsd(NsdTree(written.root)), 2, DATA)
    words = NsdTree(written.root).captions(ids, 2)
    (broken.root / "IN_SILICO.txt").touch()
    before = unusable(broken)
    FORMS[form](broken.root)
    assert broken.sessions(2) == (1, 2)
    check_trials(broken, 2, N_SESSIONS)
    found = prepare_responses(Nsd(broken), 2, DATA)
    for name, values in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], values, err_msg=name)
    np.testing.assert_array_equal(broken.captions(ids, 2), words)
    assert unusable(broken) == before


def test_a_damaged_hdf5_gives_way_to_a_whole_nii_and_says_so(
    written: Truth,
    broken: NsdTree,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = broken.root / BETAS / "betas_session01.hdf5"
    path.write_bytes(path.read_bytes()[:9000])
    mask = written.kastner > 5
    expected = written.betas[0][mask].T
    np.testing.assert_array_equal(broken.betas(2, 1, mask), expected)
    assert "betas_session01.hdf5 is truncated" in caplog.text
    assert "betas_session01.nii.gz is read in its place" in caplog.text
    (broken.root / "IN_SILICO.txt").touch()
    seen = check_folder(
        broken.root, subjects=[2], sessions=[1], betas_version=broken.betas_version
    )
    (odd,) = (f for f in seen.findings if f.path == path)
    assert odd.state == "unexpected"
    assert "the other container is read" in odd.words
    (broken.root / BETAS / "betas_session01.nii.gz").unlink()
    with pytest.raises(DataError, match="hdf5 is truncated"):
        broken.betas(2, 1, mask)


def test_mgh_stands_for_mgz(broken: NsdTree) -> None:
    path = broken.root / "nsddata/ppdata/subj02/transforms/lh.func1pt8-to-layerB2.mgh"
    path.parent.mkdir()
    points = np.ones((3, 1, 1, 3), np.float32)
    nib.save(nib.MGHImage(points, np.eye(4)), path)
    assert broken.transform(2, "lh").shape == (3, 3)
    assert find(broken.root, path.with_suffix(".mgz")) == path


def test_what_lies_in_another_form_is_not_fetched(tmp_path: Path) -> None:
    files = inventory({2: (1, 2)})
    for name in (
        f"{FUNC}/brainmask.nii",
        f"{FUNC}/roi/lh.Kastner2015.nii.gz",
        f"{FUNC}/roi/rh.Kastner2015.nii.gz",
        f"{FUNC}/roi/lh.prf-visualrois.nii.gz",  # the other half is not there
        f"{BETAS}/betas_session1.hdf5",
        f"{BETAS}/betas_session2.nii",
        f"{BETAS}/NCSNR.nii.gz",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    left = not_otherwise(as_present(files, tmp_path), tmp_path)
    gone = {f.path for f in files} - {f.path for f in left}
    assert gone == {
        f"{FUNC}/brainmask.nii.gz",
        f"{FUNC}/roi/Kastner2015.nii.gz",
        f"{BETAS}/betas_session01.hdf5",
        f"{BETAS}/betas_session02.hdf5",
        f"{BETAS}/ncsnr.nii.gz",
    }


# --- what a run reads ---------------------------------------------------------------


def test_the_inventory_is_what_the_reader_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()

    def note(path: Path, what: str, remedy: str) -> None:
        asked.add(path.relative_to(tmp_path).as_posix())
        raise DataError(what)

    monkeypatch.setattr(published, "check_exists", note)
    tree, mask = NsdTree(tmp_path), np.ones((2, 2, 2), bool)
    one: dict[str, Callable[..., object]] = {
        "design": tree.design,
        "table": tree.stim_info,
        "stimuli": lambda: tree.stimuli(np.array([0])),
        "captions": lambda split: tree.captions_of(split),
        "responses": lambda: tree.responses(2),
        "brainmask": lambda: tree.brainmask(2),
        "roi": lambda name: tree.roi(2, name),
        "ncsnr": lambda: tree.ncsnr(2),
        "betas": lambda session, form: tree.betas(2, session, mask, form),
        "transform": lambda h, depth: tree.transform(2, h, depth),
        "to_fsaverage": lambda h: tree.from_fsaverage(2, h),
    }
    shape = {"full.flat.patch.3d": tree.flat_patch, "sulc": tree.surface_values}
    files = [f for f in inventory({2: (1, 3)}) if f.kind != "labels"]
    for file in files:
        read = partial(one[file.kind], **file.names) if file.kind in one else None
        if read is None:
            open_surface = shape.get(file.names["surface"], tree.surface)
            more = (file.names["surface"],) if open_surface == tree.surface else ()
            read = partial(open_surface, file.subject, file.names["h"], *more)
        with pytest.raises(DataError):
            read()
    assert {file.path for file in files} == asked
    assert all(file.reason for file in files)


_PATH = re.compile(
    r"nsddata[/_]|expdesign|stim_info|nsd_stimuli|captions_[tv{]|responses\.tsv"
    r"|brainmask\.|ncsnr\.|betas_session|\.ctab|func1pt8|ppdata|\.mgz"
)


def test_a_path_of_nsd_stands_in_inventories_alone() -> None:
    """The in-silico writer has paths of its own, so that it can test the reader.

    Algonauts' inventory holds those of two files that no run of NSD itself reads, that
    of further test sets those of more sessions.
    """
    package = Path(layout.__file__).parents[2]
    holders = set()
    for path in package.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        texts = [n.value for n in nodes if isinstance(n, ast.Constant)]
        words = [t for t in texts if isinstance(t, str) and not re.search(r"\s", t)]
        if any(map(_PATH.search, words)):
            holders.add(path.relative_to(package).as_posix())
    others = {name for name in holders if not name.startswith("insilico/")}
    parts = ("nsd", "algonauts", "further_tests")
    assert others == {f"datasets/{part}/layout.py" for part in parts}


def test_files_are_listed_once_and_subjects_share_the_experiment() -> None:
    paths = [f.path for f in inventory({1: (2, 5), 2: (2, 5)})]
    assert len(paths) == len(set(paths))
    own = [path for path in paths if "subj01" in path]
    assert [path.replace("subj01", "subj02") for path in own] == [
        path for path in paths if "subj02" in path
    ]
    assert [path[-7:-5] for path in own if "betas_session" in path] == ["02", "05"]
    packed = {f.path for f in inventory({1: (2, 5)}, forms=("nii.gz",))}
    swapped = {re.sub(r"(session..)\.hdf5", r"\1.nii.gz", p) for p in paths}
    assert packed == {p for p in swapped if "subj02" not in p}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([3], [37]), "has sessions 1 to 32, but 37"),
        (([1], [0, 1]), "has sessions 1 to 40, but 0, 1"),
        (([9], [1]), "subject is 9"),
    ],
)
def test_what_nsd_lacks_is_refused(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises((ConfigError, DataError), match=says):
        published_sessions(*arguments)


# --- a slow disk --------------------------------------------------------------------


class Slow:
    """An open file each read of which takes a while."""

    def __init__(self, path: Path, wait: float) -> None:
        self._file, self._wait, self.n_reads = path.open("rb"), wait, 0
        self.seek, self.tell = self._file.seek, self._file.tell

    def read(self, n: int = -1) -> bytes:
        self.n_reads += 1
        time.sleep(self._wait)
        return self._file.read(n)

    def readinto(self, buffer: Any) -> int:
        self.n_reads += 1
        time.sleep(self._wait)
        return self._file.readinto(buffer)


def test_a_slow_disk_is_read_in_the_order_of_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
) -> None:
    path = tmp_path / "betas_session01.hdf5"
    stored = rng.integers(-9, 9, (750, 9, 8, 7)).astype(np.int16)
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=stored, chunks=(750, 1, 1, 1))
    slow = Slow(path, wait=0.03)
    read_block, blocks = nsd_betas._Blocks._read_block, list[int]()

    def noted(path: Path, number: int) -> bytes:
        blocks.append(number)
        return read_block(path, number)

    monkeypatch.setattr(nsd_betas._Blocks, "_read_block", staticmethod(noted))
    monkeypatch.setattr(nsd_betas, "open_hdf5", lambda _: h5py.File(slow, "r"))
    monkeypatch.setattr(nsd_betas, "_BLOCK", 1 << 16)
    monkeypatch.setattr(nsd_betas, "_N_BLOCKS", 4)
    mask = np.ones((7, 8, 9), bool)
    found = nsd_betas.read_betas(path, mask)
    np.testing.assert_array_equal(found, stored.transpose(3, 2, 1, 0)[mask].T)
    slow._file.close()
    assert slow.n_reads < 100  # of 504 voxels
    assert 0 < len(blocks) < 4 * path.stat().st_size / (1 << 16)


def test_a_fast_disk_is_read_voxel_by_voxel(
    written: Truth,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nsd_betas, "_Blocks", None)
    # ten microseconds a voxel, however busy the machine is
    clock = SimpleNamespace(perf_counter=partial(next, count(0, 1e-5)))
    monkeypatch.setattr(nsd_betas, "time", clock)
    mask = written.kastner > 5
    found = NsdTree(written.root).betas(2, 1, mask, "hdf5")
    np.testing.assert_array_equal(found, written.betas[0][mask].T)


def test_without_ncsnr_the_recomputed_one_is_used_and_said(
    broken: NsdTree, caplog: pytest.LogCaptureFixture
) -> None:
    (broken.root / BETAS / "ncsnr.nii.gz").unlink()
    ready = prepare_responses(Nsd(broken), 2, DATA)
    known = np.isfinite(ready.ncsnr_recomputed)
    np.testing.assert_array_equal(ready.ncsnr[known], ready.ncsnr_recomputed[known])
    assert ready.counts["voxels without ncsnr in the file"] == len(ready.ncsnr)
    assert "ncsnr recomputed from the trials read is used" in caplog.text
