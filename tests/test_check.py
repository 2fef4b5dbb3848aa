"""The check finds every damage, blames the damaged file alone, and counts rightly.

Most tests damage one file of a tiny in-silico folder. The real constants are tried on a
folder of NSD's real sizes without NSD's data: its big files hold next to no chunk.
"""

import gzip
import json
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.datasets import check_folder
from minddiff_utils.datasets.findings import Finding, Report
from minddiff_utils.datasets.inventory import DataFile
from minddiff_utils.datasets.nsd.layout import FACTS, SEEN, inventory
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.insilico import file_formats
from minddiff_utils.pipeline.cli import main
from tests import tiny_nsd
from tests.bad_input.world import (
    Damage,
    as_json,
    cut,
    h5,
    h5_only,
    holds,
    matlab,
    own,
    volume,
    words,
)

SUBJECT = 7
VERSION = "betas_fithrf_GLMdenoise_RR"
BETAS = f"nsddata_betas/ppdata/subj07/func1pt8mm/{VERSION}"
FUNC = "nsddata/ppdata/subj07/func1pt8mm"
TRANSFORMS = "nsddata/ppdata/subj07/transforms"
SURF = "nsddata/freesurfer/subj07/surf"
EXPERIMENT = "nsddata/experiments/nsd"
STIMULI = "nsddata_stimuli/stimuli/nsd"
CTAB = "nsddata/freesurfer/subj07/label/Kastner2015.mgz.ctab"
RESPONSES = "nsddata/ppdata/subj07/behav/responses.tsv"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two sessions of one subject; nobody changes it."""
    return tiny_nsd.simulate(tmp_path_factory.mktemp("check") / "nsd", (SUBJECT,))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return tiny_nsd.copy_of(whole, tmp_path / "a folder with spaces" / "nsd")


def look(root: Path, sessions: Sequence[int] = (1, 2), deep: bool = False) -> Report:
    return check_folder(
        root, subjects=(SUBJECT,), sessions=sessions, betas_version=VERSION, deep=deep
    )


def wrong(found: Report) -> list[Finding]:
    return [f for f in found.findings if f.state != "ok"]


def counted(found: Report) -> dict[str, list[int | None]]:
    return {c.quantity: [c.n, c.expected] for c in found.counts}


def spoil(path: Path, damage: Damage) -> None:
    own(path)  # not the file that others share
    damage(path)


# --- damage -------------------------------------------------------------------------


TURNED = volume(lambda v: v[::-1], -1)


def one_vertex_less(path: Path) -> None:
    data = np.asanyarray(nib.load(path).dataobj)[:-1]
    path.unlink()
    nib.save(nib.MGHImage(data, np.eye(4)), path)


def with_a_hole(data: npt.NDArray) -> npt.NDArray:
    """Keep what lies before the middle of the file, as a broken copy does."""
    return data * (np.arange(data.shape[1]) < data.shape[1] // 2)[:, None, None]


GRID = (53, 65, 50)  # of the in-silico subject 7
H5, NII = f"{BETAS}/betas_session02.hdf5", f"{BETAS}/betas_session01.nii.gz"
KASTNER = f"{FUNC}/roi/Kastner2015.nii.gz"
CAPTIONS = f"{STIMULI}/annotations/captions_val2017.json"

DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "hdf5 cut short": (H5, cut, "truncated file"),
    "hdf5 of float": (H5, h5_only("betas", (750, *GRID[::-1]), "f4"), "float32 betas"),
    "hdf5 of 700 trials": (H5, h5_only("betas", (700, *GRID[::-1]), "i2"), "700"),
    "hdf5 of another thing": (H5, h5_only("beta", (3,), "i2"), "holds beta, but"),
    "hdf5 never written": (
        H5,
        h5_only("betas", (750, *GRID[::-1]), "i2"),
        "zeros or one",
    ),
    "hdf5 with a hole": (
        H5,
        h5("betas", with_a_hole),
        "voxels of the areas, but 5% at most",
    ),
    "nii of zeros": (NII, volume(lambda d: d * 0 + (d == 7)), "voxels of the areas"),
    "nii cut short": (NII, cut, "end-of-stream"),
    "nii of 9 trials": (NII, volume(lambda d: d[..., :9]), "(53, 65, 50, 9)"),
    "ncsnr of NaN": (f"{BETAS}/ncsnr.nii.gz", volume(lambda d: d * np.nan), "above 0"),
    "ncsnr on another grid": (
        f"{BETAS}/ncsnr.nii.gz",
        volume(lambda d: d[:-1]),
        "(52, 65, 50), but (53, 65, 50) is expected",
    ),
    "regions on another grid": (KASTNER, volume(lambda d: d[1:]), "(52, 65, 50)"),
    "regions turned round": (KASTNER, TURNED, "different spaces (LAS, voxels of"),
    "a session turned round": (NII, TURNED, "different spaces (LAS, voxels of"),
    "regions with no label": (KASTNER, volume(lambda d: d + 90.5), "is expected"),
    "no brain": (f"{FUNC}/brainmask.nii.gz", volume(lambda d: d * 0), "0 to 0, but"),
    "colour table of pictures": (CTAB, words("1 V1v", "one V1v"), "invalid literal"),
    "design of 0-based images": (
        f"{EXPERIMENT}/nsd_expdesign.mat",
        matlab("subjectim", lambda v: v - 1),
        "subjectim",
    ),
    "stimuli cut short": (f"{STIMULI}/nsd_stimuli.hdf5", cut, "truncated file"),
    "too few stimuli": (
        f"{STIMULI}/nsd_stimuli.hdf5",
        h5_only("imgBrick", (5, 8, 8, 3), "u1"),
        "Image ids must lie in 0..4",
    ),
    "sulci cut short": (f"{SURF}/lh.sulc", cut, "10242"),
    "flat map cut short": (f"{SURF}/rh.full.flat.patch.3d", cut, "its size"),
    "surface cut short": (f"{SURF}/rh.white", cut, "truncated or not"),
    "transform of another brain": (
        f"{TRANSFORMS}/lh.func1pt8-to-layerB2.mgz",
        one_vertex_less,
        "10241 vertices, but 10242",
    ),
    "map to a bigger group": (
        f"{TRANSFORMS}/rh.white-to-fsaverage.mgz",
        one_vertex_less,
        "10241 vertices, but 10242",
    ),
}


NEVER_WRITTEN = "hdf5 never written"
IN_ITS_PLACE = "; until then the other container is read"


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_the_only_one_blamed(root: Path, name: str) -> None:
    path, damage, found_words = DAMAGE[name]
    spoil(root / path, damage)
    found = look(root)
    (finding,) = wrong(found)
    # betas that cannot be read give way to their other container, empty ones do not
    gives_way = path in (H5, NII) and name not in ("hdf5 with a hole", NEVER_WRITTEN)
    state = "unexpected" if gives_way else "damaged"
    assert (finding.state, finding.path) == (state, root / path)
    assert found_words in finding.words
    assert str(root / path) in finding.words
    again = "simulate the folder again (`minddiff simulate`)"
    resaved = "use both as NSD has them, neither resaved nor resampled"
    remedy = resaved if "turned round" in name else again
    if "has shape" not in finding.words and "must lie in" not in finding.words:
        assert finding.words.removesuffix(IN_ITS_PLACE).endswith(remedy)
    assert finding.words.endswith(IN_ITS_PLACE) is gives_way
    assert finding.sentence.count("\n") == 0
    assert finding.sentence.endswith(".")
    assert finding.sentence.replace(f"{root}/", "") in found.lines()
    assert found.exit_code == (0 if gives_way else 1)


#: One file of each kind, and of each that may lack or not.
EACH = {(f.kind, f.optional): f for f in inventory({SUBJECT: ()})}


@pytest.mark.parametrize("file", EACH.values(), ids=lambda file: file.path)
def test_a_missing_file_is_named_and_only_a_required_one_fails(
    root: Path, file: DataFile
) -> None:
    path = root / file.path
    for form in path.parent.glob(f"*{path.name}"):
        form.unlink()  # the hemispheres would stand in
    found = look(root)
    (finding,) = wrong(found)
    state = "optional missing" if file.optional else "missing"
    assert (finding.state, finding.path) == (state, path)
    assert found.exit_code == int(not file.optional)


def test_a_link_to_nothing_is_missing(root: Path) -> None:
    path = root / BETAS / "ncsnr.nii.gz"
    path.unlink()
    path.symlink_to(root / "unfetched")
    (finding,) = wrong(look(root))
    assert (finding.state, finding.optional) == ("optional missing", True)
    assert "is a link to nothing" in finding.words


# --- betas --------------------------------------------------------------------------


def test_one_container_of_a_session_is_enough(root: Path) -> None:
    (root / BETAS / "betas_session01.hdf5").unlink()
    (root / BETAS / "betas_session02.nii.gz").unlink()
    found = look(root)
    assert wrong(found) == []
    assert found.exit_code == 0


def test_a_session_in_neither_container_is_missing_and_not_counted(root: Path) -> None:
    for suffix in ("hdf5", "nii.gz"):
        (root / BETAS / f"betas_session02.{suffix}").unlink()
    found = look(root)
    (finding,) = wrong(found)
    assert (finding.state, finding.path) == ("missing", root / H5)
    counts = counted(found)
    assert counts["sessions"] == [1, 2]
    assert counts["trials"] == [750, 1500]
    times = NsdTree(root).trials(SUBJECT, 1).place
    assert counts["distinct images"][0] == len(np.unique(times))


def test_missing_sessions_share_a_line(root: Path) -> None:
    found = look(root, sessions=range(1, 6))
    assert [f.state for f in wrong(found)] == ["missing"] * 3
    lines = [line for line in found.lines() if line.startswith("missing")]
    assert len(lines) == 1
    assert "betas session 03, 04, 05" in lines[0]


def test_sessions_beyond_those_asked_for_are_looked_at_too(root: Path) -> None:
    spoil(root / H5, cut)
    (finding,) = wrong(look(root, sessions=[1]))
    assert finding.path == root / H5


def test_of_chosen_sessions_the_others_may_be_missing(root: Path) -> None:
    for suffix in ("hdf5", "nii.gz"):
        (root / BETAS / f"betas_session01.{suffix}").unlink()
    found = look(root, sessions=[2])
    assert wrong(found) == []
    assert "sessions 2" in found.lines()[0]
    counts = counted(found)
    assert counts["trials"] == [750, 750]
    order = NsdTree(root).design().order[750:1500]
    assert counts["distinct images"][0] == len(np.unique(order))


@pytest.mark.parametrize(
    ("name", "state", "expected"),
    [
        ("betas_session00.hdf5", "damaged", "a session from 1 to 40"),
        ("betas_session41.hdf5", "damaged", "a session from 1 to 40"),
        ("betas_session03.hdf5.part", "unexpected", "move it away"),
    ],
)
def test_what_is_no_session_among_the_betas_is_named(
    root: Path, name: str, state: str, expected: str
) -> None:
    path = root / BETAS / name
    path.hardlink_to(root / H5)
    found = look(root)
    (finding,) = wrong(found)
    assert (finding.state, finding.path) == (state, path)
    assert expected in finding.words
    assert found.exit_code == int(state == "damaged")


def test_another_version_of_the_betas_is_one_finding_that_names_those_there(
    whole: Path,
) -> None:
    found = check_folder(
        whole, subjects=(SUBJECT,), sessions=[1, 2], betas_version="betas_assumehrf"
    )
    betas = [f for f in wrong(found) if f.item == "betas"]
    assert len(betas) == 1
    assert betas[0].state == "missing"
    assert f"but {VERSION}: choose" in betas[0].words


# --- depth --------------------------------------------------------------------------


def test_damage_in_the_middle_of_a_nii_is_seen_only_when_read(root: Path) -> None:
    data = bytearray((root / NII).read_bytes())
    data[len(data) // 2] ^= 0xFF  # the length at the end stays right
    spoil(root / NII, holds(bytes(data)))
    found = look(root)
    assert wrong(found) == []
    assert [f.is_unread for f in found.findings if f.path == root / NII] == [True]
    assert "only by header and length" in found.verdict
    (finding,) = wrong(look(root, deep=True))
    assert (finding.state, finding.path) == ("unexpected", root / NII)
    assert finding.words.endswith(IN_ITS_PLACE)


def test_a_nii_in_several_gzip_members_is_no_damage(root: Path) -> None:
    data = gzip.decompress((root / NII).read_bytes())
    parts = data[:1000], data[1000:]
    packed = b"".join(gzip.compress(part, 1) for part in parts)
    spoil(root / NII, holds(packed))
    (stated,) = struct.unpack("<I", (root / NII).read_bytes()[-4:])
    assert stated != len(data)  # so it looks like one cut short
    assert wrong(look(root)) == []


def test_a_copy_of_another_session_is_damage(root: Path) -> None:
    for suffix in ("hdf5", "nii.gz"):
        second = root / BETAS / f"betas_session02.{suffix}"
        second.unlink()
        shutil.copyfile(root / BETAS / f"betas_session01.{suffix}", second)
    found = wrong(look(root))
    assert [f.state for f in found] == ["damaged"] * 2
    for finding, suffix in zip(found, ("hdf5", "nii.gz"), strict=True):
        again = f"holds the numbers of betas_session01.{suffix} once more"
        assert again in finding.words


def test_the_end_of_a_nii_filled_up_with_zeros_is_seen_when_read(root: Path) -> None:
    spoil(root / NII, volume(lambda d: np.where(np.arange(750) < 600, d, 0)))
    (finding,) = wrong(look(root, deep=True))
    assert (finding.state, finding.path) == ("unexpected", root / NII)
    assert "zeros or one value throughout" in finding.words


def test_stimuli_never_written_are_seen_only_when_read(root: Path) -> None:
    path = root / STIMULI / "nsd_stimuli.hdf5"
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", (73_000, 8, 8, 3), "u1", chunks=(1, 8, 8, 3))
    assert wrong(look(root)) == []
    (finding,) = wrong(look(root, deep=True))
    assert finding.path == path
    assert (
        f"{len(np.unique(NsdTree(root).trials(SUBJECT, 2).image_id))} images seen"
        in finding.words
    )


# --- a sound folder -----------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_folder_is_all_right(whole: Path, deep: bool) -> None:
    found = look(whole, deep=deep)
    assert wrong(found) == []
    assert found.exit_code == 0
    assert not found.is_real
    assert ("header and length" in found.verdict) is not deep
    assert {f.state for f in found.findings} == {"ok"}
    items = [(f.subject, f.item) for f in found.findings]
    assert len(items) == len(set(items))


def test_counts_are_those_of_the_reader(whole: Path) -> None:
    tree = NsdTree(whole)
    image, times = np.unique(tree.trials(SUBJECT, 2).place, return_counts=True)
    expected = {"sessions": 2, "trials": 1500, "distinct images": len(image)}
    expected["shared images"] = int((image < 1000).sum())
    expected["other images"] = int((image >= 1000).sum())
    names = ("images with 1 trial", "images with 2 trials", "images with 3 trials")
    for n, name in enumerate(names, start=1):
        expected[name] = int((times == n).sum())
    label, prf = (tree.roi(SUBJECT, n) for n in ("Kastner2015", "prf-visualrois"))
    label = np.where(prf > 0, prf, label)
    values = {  # numbers of the Wang atlas, as NSD's colour table has them
        **{"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "V3ab": (16, 17), "hV4": (7,)},
        **{"VO": (8, 9), "PHC": (10, 11), "LO": (14, 15), "MT": (13,), "MST": (12,)},
        "IPS": tuple(range(18, 24)),
    }
    expected |= {area: int(np.isin(label, v).sum()) for area, v in values.items()}
    low = ("V1", "V2", "V3", "V3ab", "hV4")
    expected["LVC"] = sum(expected[area] for area in low)
    expected["11 areas"] = sum(expected[area] for area in values)
    expected["HVC"] = expected["11 areas"] - expected["LVC"]
    expected["brain mask"] = int(tree.brainmask(SUBJECT).sum())
    expected["prf-visualrois"] = int((prf > 0).sum())
    expected["nsdgeneral"] = int((tree.roi(SUBJECT, "nsdgeneral") > 0).sum())
    assert {c.quantity: c.n for c in look(whole).counts} == expected


def test_an_area_without_a_voxel_is_a_warning(root: Path) -> None:
    # TO1 alone is MT
    spoil(root / KASTNER, volume(lambda d: np.where(d == 13, 0, d)))
    found = look(root)
    (finding,) = wrong(found)
    assert (finding.state, finding.item) == ("unexpected", "count of MT")
    assert found.exit_code == 0


def test_a_test_picture_under_a_training_id_is_noticed(root: Path) -> None:
    path = root / EXPERIMENT / "nsd_stim_info_merged.csv"
    table, trials = pd.read_csv(path, index_col=0), NsdTree(root).trials(SUBJECT, 2)
    shared = trials.place < 1000
    one, other = (trials.image_id[mask][0] for mask in (shared, ~shared))
    columns = ["cocoId", "cocoSplit"]
    table.loc[one, columns] = table.loc[other, columns].tolist()
    spoil(path, holds(table.to_csv()))
    (finding,) = wrong(look(root))
    assert (finding.item, finding.state) == ("test and training images", "damaged")
    assert f"1 of one cocoId in both splits (nsdId {one} = {other})" in finding.words


def test_images_without_captions_are_counted(root: Path) -> None:
    drop = as_json(lambda raw: raw | {"annotations": raw["annotations"][3:]})
    spoil(root / CAPTIONS, drop)
    (finding,) = wrong(look(root))
    assert finding.item == "captions of images seen"
    assert "fewer captions of 1 images" in finding.words


def test_what_is_no_nsd_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(DataError, match=r"(is no folder|not found at .*): give "):
            look(path)
    with pytest.raises(DataError, match="holds none of nsddata, nsddata_betas"):
        look(tmp_path)


def test_an_empty_folder_lacks_everything_and_does_not_fail(tmp_path: Path) -> None:
    (tmp_path / "nsddata").mkdir()
    found = look(tmp_path)
    assert {f.state for f in found.findings} == {"missing", "optional missing"}
    assert found.exit_code == 1
    assert found.lines()[-1] == found.verdict


def test_subjects_and_sessions_that_nsd_lacks_are_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match="subject is 9"):
        check_folder(whole, subjects=(9,), sessions=[1], betas_version=VERSION)
    with pytest.raises(ConfigError, match="sessions is 41"):
        look(whole, sessions=range(1, 42))


# --- the real NSD -------------------------------------------------------------------


def test_published_sizes_agree_with_the_published_totals() -> None:
    # NSD Data Manual, Technical notes: voxels per volume; FINALNUMBERS: all trials
    voxels = [699192, 730128, 704052, 673200, 597714, 797215, 600210, 642720]
    assert [int(np.prod(FACTS[s].grid)) for s in range(1, 9)] == voxels
    assert 750 * sum(fact.n_sessions for fact in FACTS.values()) == 213_000
    for distinct, shared, other, _ in SEEN.values():
        assert distinct == shared + other


REAL_GRID = (81, 104, 83)


@pytest.fixture(scope="module")
def real_size(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of subject 1's sizes: constants right, contents made up."""
    root = tmp_path_factory.mktemp("real") / "nsd"
    shutil.copytree(whole / EXPERIMENT, root / EXPERIMENT)
    csv = root / EXPERIMENT / "nsd_stim_info_merged.csv"
    table = pd.read_csv(csv, index_col=0)
    table.loc[2950, "cocoId"] = 262145
    table.to_csv(csv)
    notes = {"annotations": []}
    seen = np.unique(NsdTree(root).trials(1, 1).image_id)
    for coco_id in table["cocoId"].iloc[seen].tolist():
        note = {"image_id": coco_id, "caption": "a thing"}
        notes["annotations"] += [note | {"id": 5 * coco_id + n} for n in range(5)]
    (root / STIMULI / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        path = root / STIMULI / "annotations" / f"captions_{split}.json"
        path.write_text(json.dumps(notes))
    with h5py.File(root / STIMULI / "nsd_stimuli.hdf5", "w") as file:
        shape = (73_000, 425, 425, 3)
        file.create_dataset("imgBrick", shape, "u1", chunks=(1, 425, 425, 3))
    betas, func = (root / f.replace("subj07", "subj01") for f in (BETAS, FUNC))
    (func / "roi").mkdir(parents=True)
    betas.mkdir(parents=True)
    labelled = np.unravel_index(np.arange(11_694), REAL_GRID)
    noise = np.random.default_rng(0).integers(1, 900, (750, 11_694), np.int16)
    file_formats.write_beta_hdf5(
        betas / "betas_session01.hdf5", noise, np.stack(labelled, 1), REAL_GRID
    )
    save(betas / "ncsnr.nii.gz", 699_192, np.float32)
    save(func / "brainmask.nii.gz", 370_503, np.int16)
    save(func / "roi" / "Kastner2015.nii.gz", 11_694, np.float64, 23)
    save(func / "roi" / "prf-visualrois.nii.gz", 4657, np.float64, 7)
    return root


def save(path: Path, n_voxels: int, dtype: type, n_labels: int = 1) -> None:
    data = np.zeros(REAL_GRID, dtype)
    data.flat[:n_voxels] = np.arange(n_voxels) % n_labels + 1
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    affine[:3, 3] = [-72.0, -92.7, -73.8]  # subject 1's, as NSD's header states it
    nib.save(nib.Nifti1Image(data, affine), path)


def look_at_real(root: Path) -> Report:
    return check_folder(root, subjects=(1,), sessions=[1], betas_version=VERSION)


def test_a_folder_of_the_real_sizes_is_all_right(real_size: Path) -> None:
    found = look_at_real(real_size)
    assert found.is_real
    assert [f for f in wrong(found) if f.state != "optional missing"] == []
    assert found.exit_code == 0
    counts = counted(found)
    assert counts["11 areas"] == [11_694, 11_694]


def test_another_number_of_voxels_is_a_warning(real_size: Path) -> None:
    path = real_size / FUNC.replace("07", "01") / "roi" / "Kastner2015.nii.gz"
    before = path.read_bytes()
    save(path, 11_602, np.float64, 23)
    found = look_at_real(real_size)
    path.write_bytes(before)
    warnings = [f for f in wrong(found) if f.state == "unexpected"]
    assert [f.words[:35] for f in warnings] == ["11602, but 11694 is expected: compa"]
    assert found.exit_code == 0
    assert any("11,602 (not 11,694)" in line for line in found.lines())


def test_in_silico_sizes_are_refused_where_nothing_marks_them(root: Path) -> None:
    (root / "IN_SILICO.txt").unlink()
    found = look(root)
    blamed = {f.item: f for f in wrong(found) if f.state == "damaged"}
    names = {"stimuli", "stimulus table", "brain mask", "Kastner2015", "lh.white"}
    names |= {"betas session 01 hdf5", "betas session 01 nii.gz", "ncsnr"}
    assert names <= set(blamed)
    assert "(78, 95, 81" in blamed["betas session 01 hdf5"].words
    assert "262145" in blamed["stimulus table"].words
    assert "replace it by NSD's own file" in blamed["ncsnr"].words


def test_other_shared_images_are_refused(real_size: Path) -> None:
    path = real_size / EXPERIMENT / "nsd_expdesign.mat"
    before = path.read_bytes()

    def shifted(ids: npt.NDArray) -> npt.NDArray:
        moved = ids.copy()
        moved[:, 0] = 1
        return moved

    matlab("subjectim", shifted)(path)
    matlab("sharedix", shifted)(path)
    found = look_at_real(real_size)
    path.write_bytes(before)
    damaged = [f for f in wrong(found) if f.state == "damaged"]
    assert [f.path for f in damaged] == [path]
    assert "shared images 1 to 72949, but (2951, 72949)" in damaged[0].words


def test_more_sessions_than_a_real_subject_had_are_capped_and_none_is_said(
    real_size: Path,
) -> None:
    folder = real_size / BETAS.replace("subj07", "subj04")
    folder.mkdir(parents=True)
    found = check_folder(
        real_size, subjects=(4,), sessions=range(1, 38), betas_version=VERSION
    )
    none = check_folder(real_size, subjects=(4,), sessions=[35], betas_version=VERSION)
    shutil.rmtree(folder)
    lacking = [f.item for f in found.findings if f.item.startswith("betas session")]
    assert lacking == [f"betas session {k:02d}" for k in range(1, 31)]
    counts = {c.quantity: c.expected for c in found.counts}
    assert counts["sessions"] == 30
    assert not [f for f in found.findings if f.item == "sessions asked for"]
    (said,) = [f for f in none.findings if f.item == "sessions asked for"]
    assert "the subject has 30" in said.words
    assert "change data.only_sessions" in said.words


# --- the command --------------------------------------------------------------------


def test_the_command_prints_the_report_and_its_exit_code_tells(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--profile", "smoke", "--set", "data.sessions=2"]
    wanted += ["--subjects", str(SUBJECT)]
    assert main(["check", str(root), *wanted]) == 0
    assert "11 areas" in capsys.readouterr().out
    next(root.rglob("betas_session02.hdf5")).unlink()
    for path in root.rglob("betas_session02.nii.gz"):
        path.unlink()
    assert main(["check", str(root), *wanted]) == 1
    said = capsys.readouterr()
    assert "session02" in said.out
    assert said.err.count("\n") == 1
    assert "see above" in said.err
