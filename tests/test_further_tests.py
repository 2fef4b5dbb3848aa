"""NSD-synthetic and NSD-imagery: rows, conditions, and every damage in one sentence."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.datasets.check_files import Scope
from minddiff_utils.datasets.findings import Finding
from minddiff_utils.datasets.further_tests import further_tests
from minddiff_utils.datasets.further_tests.check import check_further
from minddiff_utils.datasets.further_tests.imagery import Imagery
from minddiff_utils.datasets.further_tests.synthetic import Synthetic, as_seen
from minddiff_utils.datasets.nsd.data_set import Nsd
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.preprocessing.further_tests import (
    core_scaling,
    core_units,
    prepare_further,
)
from minddiff_utils.preprocessing.responses import prepare_responses
from tests import tiny_further_tests, tiny_nsd
from tests.damaged import Damage, cut, folders, gone, holds, refused, table, taken

DATA = DataConfig(sessions="all", n_validation=50, n_reconstruct=None)
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm"
VERSION = tiny_further_tests.VERSION
SYNTHETIC = f"{BETAS}/nsdsynthetic{VERSION}/betas_nsdsynthetic.hdf5"
IMAGERY = f"{BETAS}/nsdimagery{VERSION}/betas_nsdimagery.hdf5"
DESIGN = "nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat"
TABLE = "nsddata/experiments/nsdsynthetic/nsdsyntheticimageinformation.csv"
BRICKS = "nsddata_stimuli/stimuli/nsdsynthetic"
COMMON, OWN = (
    f"{BRICKS}/nsdsynthetic_{n}.hdf5" for n in ("stimuli", "colorstimuli_subj01")
)
RUNS = "nsddata/bdata/nsdimagery/nsdimagery_subj01"
VIS_A, VIS_B = f"{RUNS}_visA.tsv", f"{RUNS}_visB.tsv"
TARGETS = "nsddata/experiments/nsdimagery/rawtargetimages"


def write(root: Path) -> Path:
    return tiny_further_tests.write(tiny_nsd.simulate(root, (1,)))


whole, copy = folders(write)


@pytest.fixture(scope="module")
def core(whole: Path) -> Any:
    data_set = Nsd(NsdTree(whole))
    ready = prepare_responses(data_set, 1, DATA)
    stored = ready.arrays()
    units = core_units(data_set, 1, DATA, stored)
    return data_set, stored, units, core_scaling(data_set, 1, DATA, stored, units)


# --- what they hold -------------------------------------------------------------------


def test_rows_of_synthetic_betas_are_the_trials_of_the_design(whole: Path) -> None:
    trials = Synthetic(NsdTree(whole)).trials(1)
    expected = tiny_further_tests.synthetic_order() - 1
    np.testing.assert_array_equal(trials.stimulus, expected)
    assert set(trials.condition) == {"vision"}
    assert len(trials.stimulus) == 744
    stimuli = Synthetic(NsdTree(whole)).stimuli()
    sizes = dict(zip(*np.unique(stimuli.group, return_counts=True), strict=True))
    assert sizes == tiny_further_tests.CLASSES
    assert stimuli.has_picture.all()


def test_rows_of_imagery_betas_are_the_runs_in_their_order(whole: Path) -> None:
    trials = Imagery(NsdTree(whole)).trials(1)
    np.testing.assert_array_equal(trials.stimulus, tiny_further_tests.imagery_stimuli())
    begins = {0: "vision", 48: "attention", 144: "imagery", 192: "vision"}
    begins |= {240: "attention", 336: "imagery", 384: "vision", 432: "attention"}
    begins |= {528: "imagery"}
    starts = [0, *(np.flatnonzero(np.diff(trials.block)) + 1).tolist()]
    assert starts == [*begins, 576, 624, 672]
    for row, task in begins.items():
        assert trials.condition[row] == task
    assert set(trials.condition[528:]) == {"imagery"}
    n = pd.Series(trials.stimulus).groupby(trials.condition).value_counts()
    assert set(n["vision"]) == {8}
    assert set(n["imagery"]) == {16}
    assert set(n["attention"]) == {16}
    assert any("two betas" in note for note in trials.notes)


def test_stimuli_of_imagery_have_pictures_words_or_captions(whole: Path) -> None:
    test_set = Imagery(NsdTree(whole))
    stimuli = test_set.stimuli()
    assert len(stimuli.name) == 18
    assert stimuli.group.tolist() == ["A"] * 6 + ["B"] * 6 + ["C"] * 6
    assert stimuli.name[0] == "bar_000.0deg_450L_43W.png"
    assert stimuli.name[12:] == (
        *("stripes", "zebra", "mammal", "yellow", "banana", "fruit"),
    )
    pictures = test_set.pictures(1, 8)
    assert sorted(pictures) == np.flatnonzero(stimuli.has_picture).tolist()
    assert {picture.shape for picture in pictures.values()} == {(8, 8, 3)}
    assert len({picture.tobytes() for picture in pictures.values()}) == 12


def test_captions_are_those_of_the_shared_images_that_names_say(copy: Path) -> None:
    """Five pictures are shared images of NSD; the sixth is none."""
    test_set = Imagery(NsdTree(copy))
    captions = test_set.captions(2)
    assert captions[6] == ("picture 28752, words 0", "picture 28752, words 1")
    assert captions[10] == ("picture 65873, words 0", "picture 65873, words 1")
    assert captions[17] == ("fruit",)
    assert sorted(captions) == [6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17]
    assert Synthetic(NsdTree(copy)).captions(2) == {}
    path = copy / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design = {k: v for k, v in loadmat(path).items() if not k.startswith("_")}
    for name in ("subjectim", "sharedix"):
        design[name][:, [384, 385]] = design[name][:, [385, 384]]
    path.unlink()
    savemat(path, design, do_compression=True)
    with pytest.raises(DataError, match=r"names image 28752 as shared image 385, but"):
        test_set.captions(2)


def test_pixels_are_luminances_and_the_middle_square_is_seen() -> None:
    """gifale95/NSD-synthetic: (sqrt(x / 255) * 255).astype(uint8), centre crop."""
    stored = np.random.default_rng(1).integers(0, 256, (2, 714, 1360, 3), np.uint8)
    expected = (np.sqrt(stored / 255) * 255).astype(np.uint8)[:, :, 323:1037]
    np.testing.assert_array_equal(as_seen(stored), expected)


@pytest.mark.parametrize("name", ["synthetic", "imagery"])
def test_both_containers_hold_the_same_betas(copy: Path, name: str) -> None:
    tree = NsdTree(copy)
    (test_set,) = (t for t in further_tests(tree) if t.name == name)
    mask = tree.areas(1) >= 0
    found = test_set.betas(1, mask)
    with h5py.File(copy / (SYNTHETIC if name == "synthetic" else IMAGERY)) as file:
        whole = file["betas"][...].transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(found, whole[:, mask])
    stimulus = test_set.trials(1).stimulus
    tiny_further_tests.write_betas(copy, name, stimulus, packed=True)
    (copy / (SYNTHETIC if name == "synthetic" else IMAGERY)).unlink()
    np.testing.assert_array_equal(test_set.betas(1, mask), found)


def test_a_folder_without_them_is_told_so_in_a_sentence(copy: Path) -> None:
    for test_set in further_tests(NsdTree(copy)):
        assert test_set.absent_words(1) == ""
        assert test_set.lacking(1) == ()
        assert all(path.is_file() for path in test_set.files(1))
    (copy / SYNTHETIC).unlink()
    shutil.rmtree(copy / IMAGERY.rpartition("/")[0])
    for test_set in further_tests(NsdTree(copy)):
        words = test_set.absent_words(1)
        assert words.startswith(f"NSD-{test_set.name} of subject 1 is not decoded,")
        assert words.count(".hdf5") == 1
        assert "\n" not in words
        assert words[-1] == "."


# --- prepared responses ---------------------------------------------------------------


def test_units_are_those_of_the_responses(core: Any) -> None:
    _, stored, units, _ = core
    np.testing.assert_array_equal(units.position, stored["voxel_ijk"])
    some = {**stored, "voxel_ijk": stored["voxel_ijk"][3:9]}
    part = core_units(core[0], 1, DATA, some)
    np.testing.assert_array_equal(part.position, some["voxel_ijk"])
    off = {**stored, "voxel_ijk": stored["voxel_ijk"] * 0}
    with pytest.raises(DataError, match="run notebook 01 again"):
        core_units(core[0], 1, DATA, off)
    with pytest.raises(DataError, match="has vertices"):
        core_units(core[0], 1, DATA, {"vertex": np.zeros((3, 2))})


def test_the_core_s_mean_and_sd_are_those_of_training_trials(core: Any) -> None:
    data_set, stored, units, scaling = core
    train = stored["nsd_id"][stored["split"] == "train"]
    means, sds = [], []
    for session in (1, 2):
        trials = data_set.trials(1, (1, 2)).of([session])
        raw = data_set.responses(1, session, units) / 300
        some = raw[np.isin(trials.image_id, train)]
        some[:, np.ptp(some, axis=0) == 0] = np.nan  # left the slab on that day
        means.append(some.mean(axis=0))
        sds.append(some.std(axis=0, ddof=1))
    mean, sd = (np.nanmean(parts, axis=0) for parts in (means, sds))
    np.testing.assert_allclose(scaling.mean, mean, atol=1e-5)
    np.testing.assert_allclose(scaling.scale, sd, rtol=1e-5)


@pytest.mark.parametrize("index", [0, 1])
def test_responses_are_standardised_as_said_and_averaged(core: Any, index: int) -> None:
    """An independent loop over stimuli and conditions finds the same."""
    data_set, _, units, scaling = core
    test_set = further_tests(data_set.tree)[index]
    ready = prepare_further(test_set, 1, units, scaling)
    trials = test_set.trials(1)
    mask = np.zeros(units.grid, bool)
    mask[tuple(units.position.T)] = True
    percent = test_set.betas(1, mask) / 300
    own = np.empty_like(percent)
    for block in np.unique(trials.block):
        rows = trials.block == block
        own[rows] = percent[rows] - percent[rows].mean(axis=0)
        own[rows] /= percent[rows].std(axis=0, ddof=1)
    z = {"core": (percent - scaling.mean) / scaling.scale, "own": own}
    assert ready.n_repeats.sum() == len(trials.stimulus)
    for row, (condition, stimulus) in enumerate(
        zip(ready.condition, ready.stimulus, strict=True)
    ):
        same = (trials.stimulus == stimulus) & (trials.condition == condition)
        assert ready.n_repeats[row] == same.sum()
        for name, values in z.items():
            expected = values[same].mean(axis=0)
            found = ready.betas[name][row]
            np.testing.assert_allclose(found, expected, atol=2e-4)  # float32
    assert len(ready.rows(ready.condition[0])) == len(np.unique(ready.stimulus))
    names = {"betas/core", "betas/own", "stimulus", "condition", "n_repeats"}
    assert set(ready.arrays()) == names
    assert set(ready.n_filled.values()) == {0}


def test_voxels_that_left_the_slab_are_filled_and_counted(core: Any) -> None:
    data_set, _, units, scaling = core
    no_signal = scaling.valid.copy()
    no_signal[2] = False
    part = type(scaling)(scaling.mean, scaling.scale, no_signal)
    ready = prepare_further(Synthetic(data_set.tree), 1, units, part)
    assert (ready.betas["core"][:, 2] == 0).all()
    assert ready.n_filled == {"core": 284, "own": 0}


def test_attention_of_other_names_is_left_out_and_said(copy: Path) -> None:
    path = copy / f"{RUNS}_attB.tsv"
    table = pd.read_csv(path, sep="\t")
    path.unlink()
    table.assign(CONDITION=1).to_csv(path, sep="\t", index=False)
    trials = Imagery(NsdTree(copy)).trials(1)
    assert (~trials.is_known).sum() == 96
    assert any("attB" in note for note in trials.notes)


# --- what is refused ------------------------------------------------------------------


def bricks(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Write stimuli again, changed."""

    def damage(root: Path) -> None:
        with h5py.File(root / name) as file:
            pixels = change(file["imgBrick"][...])
        (root / name).unlink()
        with h5py.File(root / name, "w") as file:
            file.create_dataset("imgBrick", data=pixels)

    return damage


def betas(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Write betas again, their values (n_trials, n_voxels) changed."""

    def damage(root: Path) -> None:
        kind = Synthetic if name == SYNTHETIC else Imagery
        test_set = kind(NsdTree(root))
        stimulus = test_set.trials(1).stimulus
        (root / name).unlink()
        tiny_further_tests.write_betas(root, test_set.name, stimulus, change=change)

    return damage


def hollow(
    name: str, shape: Callable[[tuple[int, ...]], Any], kind: str = "<i2"
) -> Damage:
    """Write betas of another shape or type, of which nothing is stored."""

    def damage(root: Path) -> None:
        with h5py.File(root / name) as file:
            whole = file["betas"].shape
        (root / name).unlink()
        with h5py.File(root / name, "w") as file:
            file.create_dataset("betas", shape(whole), kind, chunks=True)

    return damage


def design(change: Callable[[dict[str, Any]], object], **options: Any) -> Damage:
    def damage(root: Path) -> None:
        held = {k: v for k, v in loadmat(root / DESIGN).items() if k[0] != "_"}
        change(held)
        (root / DESIGN).unlink()
        savemat(root / DESIGN, held, do_compression=True, **options)

    return damage


def order(change: Callable[[np.ndarray], Any]) -> Damage:
    return design(
        lambda held: held.update(masterordering=change(held["masterordering"]))
    )


def drawn(name: str, mode: str) -> Damage:
    def damage(root: Path) -> None:
        (root / name).unlink()
        Image.new(mode, (16, 16)).save(root / name)

    return damage


def packed(root: Path) -> None:
    """Betas in another orientation, as a program may resave them."""
    stimulus = Synthetic(NsdTree(root)).trials(1).stimulus
    path = tiny_further_tests.write_betas(root, "synthetic", stimulus, packed=True)
    image = nib.load(path)
    turned = image.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    (root / SYNTHETIC).unlink()


def early_zeros(values: np.ndarray) -> np.ndarray:
    values[:60] = 0
    return values


def at_the_limit(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, 32767, values).astype(np.int16)


def repeated(held: pd.DataFrame) -> pd.DataFrame:
    return held.assign(TRIAL=[1, *held["TRIAL"][:-1]])


def one_class_less(held: pd.DataFrame) -> pd.DataFrame:
    return held.replace({"Image class": {"noise": "words"}})


def a_stimulus_moved(held: pd.DataFrame) -> pd.DataFrame:
    kinds = held["Image class"].where(held.index != 2, "words")
    return held.assign(**{"Image class": kinds})


def half_named(held: pd.DataFrame) -> pd.DataFrame:
    return held.assign(CONDITION=["X", *held["CONDITION"][1:]])


def one_more_of_r(held: pd.DataFrame) -> pd.DataFrame:
    shown = held["CONDITION"].tolist()
    shown[next(k for k, x in enumerate(shown) if x != "R")] = "R"
    return held.assign(CONDITION=shown)


BAD_SYNTHETIC: dict[str, tuple[Damage, str]] = {
    "betas cut short": (cut(SYNTHETIC, -9000), "is truncated"),
    "betas of text": (holds(SYNTHETIC, b"synthetic\n" * 9), "is truncated or not in"),
    "betas empty": (holds(SYNTHETIC, b""), "is empty"),
    "a web page": (holds(SYNTHETIC, b"<!DOCTYPE html><html>"), "server's page"),
    "betas of imagery": (
        taken(SYNTHETIC, IMAGERY),
        r"shape \(.*\b720\b",
    ),
    "a session of the core": (hollow(SYNTHETIC, lambda n: (743, *n[1:])), r"\b743\b"),
    "betas of another subject": (
        hollow(SYNTHETIC, lambda n: (*n[:3], n[3] - 1)), r"\b744\b.*, but"
    ),
    "betas in MATLAB's order": (
        hollow(SYNTHETIC, lambda n: n[::-1]), "has shape"
    ),
    "betas as floats": (
        hollow(SYNTHETIC, tuple, "<f4"), "holds float32 betas"
    ),
    "betas of zeros": (betas(SYNTHETIC, np.zeros_like), "holds zeros or one value"),
    "trials of zeros": (
        betas(SYNTHETIC, early_zeros), "holds zeros or one"
    ),
    "betas at the limits": (
        betas(SYNTHETIC, at_the_limit),
        "limits of int16",
    ),
    "betas turned round": (packed, "lie in different spaces"),
    "design gone": (gone(DESIGN), "design not found"),
    "design cut short": (
        cut(DESIGN, -50),
        "NSD-synthetic's design at .* is truncated or",
    ),
    "design without its order": (
        design(lambda held: held.pop("masterordering")), "a variable 'masterordering'"
    ),
    "design of the core": (
        order(lambda v: np.tile(v, 41)[:, :30000]), r"shape \(1, 30000\), but"
    ),
    "order counted from 0": (order(lambda v: v - 1), "values 0 to 283 in"),
    "order beyond the last": (
        order(lambda v: np.where(v == 284, 285, v)), "values 1 to 285 in"
    ),
    "order of fractions": (order(lambda v: v + 0.5), "fractions in masterordering"),
    "order with NaN": (
        order(lambda v: np.where(v == 7, np.nan, v)), "no numbers in masterordering"
    ),
    "order of words": (order(lambda _: "once"), "shape"),
    "a stimulus never shown": (
        order(lambda v: np.where(v == 280, 1, v)), "1 stimuli shown less than twice"
    ),
    "table gone": (gone(TABLE), "table not found"),
    "table empty": (holds(TABLE, b""), "is empty"),
    "table of binary": (
        holds(TABLE, b"\xff\xfe\x00\x81" * 40),
        "is truncated or|columns",
    ),
    "table without classes": (
        table(TABLE, lambda t: t.drop(columns="Image class")), "a column Image class"
    ),
    "table short of a row": (table(TABLE, lambda t: t[1:]), "holds 283 rows"),
    "a class too few": (table(TABLE, one_class_less), "holds 7 classes of"),
    "a class too small": (
        table(TABLE, a_stimulus_moved), "8 classes of 7 stimuli"
    ),
    "a class without a name": (
        table(TABLE, lambda t: t.replace({"Image class": {"noise": ""}})), "with a name"
    ),
    "two stimuli of a name": (
        table(TABLE, lambda t: t.assign(Image=t["Image"].where(t.index != 4, "noise_0"))
        ), "holds a name twice"
    ),
    "stimuli gone": (gone(COMMON), "common not found"),
    "own stimuli gone": (gone(OWN), "own not found"),
    "own for common": (
        taken(COMMON, OWN),
        r"shape \(64, 14, 26, 3\)",
    ),
    "stimuli cut short": (cut(COMMON, -4000), "is truncated or"),
    "stimuli as floats": (bricks(OWN, lambda v: v / 255), "holds float64 of"),
    "stimuli in grey": (bricks(OWN, lambda v: v[..., :1]), r"shape \(64, 14, 26, 1\)"),
    "stimuli of nothing": (bricks(COMMON, np.zeros_like), "black pictures alone"),
}  # fmt: skip
BAD_IMAGERY: dict[str, tuple[Damage, str]] = {
    "betas cut short": (cut(IMAGERY, -9000), "is truncated"),
    "betas of a folder": (
        lambda root: ((root / IMAGERY).unlink(), (root / IMAGERY).mkdir()),
        "is a folder|Is a directory",
    ),
    "betas of synthetic": (
        taken(IMAGERY, SYNTHETIC),
        r"shape \(.*\b744\b",
    ),
    "betas without attention": (hollow(IMAGERY, lambda n: (432, *n[1:])), r"\b432\b"),
    "betas as floats": (
        hollow(IMAGERY, tuple, "<f8"), "holds float64 betas"
    ),
    "betas of zeros": (betas(IMAGERY, np.zeros_like), "holds zeros or one value"),
    "a run of zeros": (
        betas(IMAGERY, early_zeros), "holds zeros or one"
    ),
    "a pointer": (
        holds(IMAGERY, b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"
    ),
    "a run gone": (gone(f"{RUNS}_imgB_2.tsv"), r"run not found at .*imgB_2\.tsv"),
    "attention gone": (gone(f"{RUNS}_attA.tsv"), r"run not found at .*attA\.tsv"),
    "a run empty": (holds(VIS_A, b""), "is empty"),
    "a run of binary": (holds(VIS_A, b"\xff\x00\x81" * 40), "is truncated or"),
    "a run cut short": (
        table(f"{RUNS}_visC.tsv", lambda t: t[:40]),
        "40 trials, or other numbers",
    ),
    "a run too long": (
        table(f"{RUNS}_visC.tsv", lambda t: pd.concat([t, t[:1]])),
        "49 trials, or other numbers",
    ),
    "a trial twice": (
        table(f"{RUNS}_imgA_1.tsv", repeated),
        "or other numbers of them",
    ),
    "trials without numbers": (
        table(f"{RUNS}_imgA_1.tsv", lambda t: t.assign(TRIAL="one")),
        "or other numbers of them",
    ),
    "no conditions": (
        table(VIS_B, lambda t: t.drop(columns="CONDITION")), "a column CONDITION"
    ),
    "no trials": (table(VIS_B, lambda t: t.drop(columns="TRIAL")), "a column TRIAL"),
    "commas for tabs": (
        lambda root: holds(VIS_A, (root / VIS_A).read_text().replace("\t", ","))(root),
        "holds the columns SUBJECT,SESSION",
    ),
    "conditions of another set": (
        taken(VIS_A, f"{RUNS}_visB.tsv"),
        "the condition 'B', but H, R, V, L, P, E, 8 times each",
    ),
    "a condition without a name": (
        table(f"{RUNS}_imgC_1.tsv", lambda t: t.replace({"CONDITION": {"N": ""}})),
        "the condition ''",
    ),
    "small letters": (
        table(VIS_B, lambda t: t.assign(CONDITION=t["CONDITION"].str.lower())),
        "the condition 'b'",
    ),
    "conditions as often as not": (
        table(VIS_A, one_more_of_r), "unequal conditions"
    ),
    "attention half named": (
        table(f"{RUNS}_attA.tsv", half_named),
        "the condition 'X'",
    ),
    "a picture gone": (
        gone(f"{TARGETS}/setB/shared0741_nsd53882.png"), r"not found at .*shared0741"
    ),
    "a picture cut short": (
        cut(f"{TARGETS}/setA/bar_045.0deg_450L_43W.png", 90),
        "Picture at .* is truncated or",
    ),
    "a picture with a mask": (
        drawn(f"{TARGETS}/setB/shared0000_nsd00000.png", "RGBA"), "of mode RGBA"
    ),
    "a picture of text": (
        holds(f"{TARGETS}/setA/crs_000.0deg_450L_43W.png", b"a cross"),
        "is truncated or",
    ),
}  # fmt: skip


def everything(core: Any, kind: type, root: Path) -> None:
    """Do what notebook A7 does."""
    test_set = kind(NsdTree(root))
    test_set.trials(1)
    test_set.stimuli()
    prepare_further(test_set, 1, *core[2:])
    test_set.pictures(1, 8)


def checked(root: Path, *, needed: bool = False) -> list[Finding]:
    """Return what a deep check finds, the core's regions being sound."""
    scope = Scope(NsdTree(root), (1, 2), (1,), deep=True)
    scope.values |= {(1, name): True for name in ("Kastner2015", "prf-visualrois")}
    return check_further(scope, [1], needed=needed)


def blamed(root: Path, name: str, words: str) -> None:
    """A check says the same sentence, of the damaged part alone."""
    *others, found = sorted(checked(root, needed=True), key=lambda f: f.is_unusable)
    assert {finding.state for finding in others} == {"ok"}
    assert found.is_unusable
    assert found.item.startswith(f"NSD-{name} ")
    assert found.state == "missing" or re.search(words, found.words)


BAD = {
    (name, case): (kind, *how)
    for name, kind, bad in (
        ("synthetic", Synthetic, BAD_SYNTHETIC),
        ("imagery", Imagery, BAD_IMAGERY),
    )
    for case, how in bad.items()
}
assert min(len(BAD_SYNTHETIC), len(BAD_IMAGERY)) >= 25


@pytest.mark.parametrize(("name", "case"), BAD)
def test_a_damaged_set_is_one_sentence(
    copy: Path, core: Any, name: str, case: str
) -> None:
    kind, damage, words = BAD[name, case]
    refused(copy, damage, words, partial(everything, core, kind))
    blamed(copy, name, words)
