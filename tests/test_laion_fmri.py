"""LAION-fMRI: rows, columns, areas, splits, and every damage in one sentence."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.profile_values import SPLITS
from minddiff_utils.datasets.laion_fmri.data_set import LaionFmri
from minddiff_utils.pipeline.cli import main
from minddiff_utils.preprocessing import prepare_responses
from tests import tiny_laion_fmri
from tests.damaged import (
    Damage,
    cut,
    filled,
    folders,
    gone,
    holds,
    is_a_sentence,
    preparing,
    refusals,
    table,
    volume,
)
from tests.tiny_laion_fmri import SUBJECT

DATA = DataConfig(sessions=3, n_validation=6, n_reconstruct=None, split="tau")
GLM = "derivatives/glmsingle-tedana/sub-03"
SESSION = f"{GLM}/ses-02/func/sub-03_ses-02_task-images"
BETAS = f"{SESSION}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
TRIALS = f"{SESSION}_desc-SingletrialBetas_trials.tsv"
CEILING = f"{GLM}/sub-03_task-images_space-T1w_desc-Noiseceiling4rep_statmap.nii.gz"
ROIS = "derivatives/rois/sub-03/retinotopy/sub-03_space-T1w_res-1pt8_label-"
V1V, HV4 = f"{ROIS}V1v_mask.nii.gz", f"{ROIS}hV4_mask.nii.gz"
TABLE = "stimuli/task-images_metadata.csv"
CAPTIONS = "stimuli/task-images_desc-captions.csv"
IMAGES = "stimuli/task-images_stimuli.h5"
SPLIT = "splits/sub-03/tau.json"


whole, copy = folders(tiny_laion_fmri.write)


def stored(path: Path) -> Any:
    return np.asanyarray(nib.load(path).dataobj)


# --- what it holds ------------------------------------------------------------------


def test_a_row_is_the_trial_and_a_column_the_voxel_of_the_file(whole: Path) -> None:
    data_set = LaionFmri(whole, "tau")
    units = data_set.units(SUBJECT, "areas")
    trials = data_set.trials(SUBJECT, (1, 2, 3)).of([2])
    found = data_set.responses(SUBJECT, 2, units)
    every = tiny_laion_fmri.names()
    labels = pd.read_csv(whole / TRIALS, sep="\t")["label"].tolist()
    betas = stored(whole / BETAS)
    row = 0
    for at, label in enumerate(labels):
        if "OOD" in label:
            continue
        assert every[trials.image_id[row]] == label
        expected = betas[..., at][tuple(units.position.T)]
        np.testing.assert_array_equal(found[row], expected)
        row += 1
    assert row == len(found)


def test_an_area_is_the_union_of_its_regions_and_mt_is_to1(whole: Path) -> None:
    units = LaionFmri(whole, "tau").units(SUBJECT, "areas")
    groups = {
        "V1": ("V1v", "V1d"), "V2": ("V2v", "V2d"), "V3": ("V3v", "V3d"),
        "V3ab": ("V3A", "V3B"), "hV4": ("hV4",), "VO": ("VO1", "VO2"), "PHC": (),
        "LO": ("LO1", "LO2"), "MT": ("TO1",), "MST": ("TO2",), "IPS": ("IPS0",),
    }  # fmt: skip
    places = {tuple(p): units.area_names[a] for p, a in zip(
        units.position.tolist(), units.area, strict=True
    )}  # fmt: skip
    for area, regions in groups.items():
        masks = [stored(whole / f"{ROIS}{roi}_mask.nii.gz") for roi in regions]
        inside = {tuple(p) for mask in masks for p in np.argwhere(mask).tolist()}
        assert {place for place, name in places.items() if name == area} == inside


def test_a_voxel_of_two_regions_is_the_earlier_area_s(copy: Path) -> None:
    both = tuple(np.argwhere(stored(copy / V1V))[0])
    mask = stored(copy / HV4).copy()
    mask[both] = 1
    volume(copy / HV4, lambda _: mask)
    units = LaionFmri(copy, "tau").units(SUBJECT, "areas")
    row = units.position.tolist().index([int(n) for n in both])
    assert units.area_names[units.area[row]] == "V1"


def test_the_ceiling_is_that_of_four_repeats(whole: Path) -> None:
    """NC = 100 s / (s + 1 / 4), as its makers state; undone by trying s itself."""
    units = LaionFmri(whole, "tau").units(SUBJECT, "areas")
    percent = stored(whole / CEILING)[tuple(units.position.T)]
    assert units.ncsnr is not None
    s = units.ncsnr.astype(float) ** 2
    np.testing.assert_allclose(100 * s / (s + 0.25), percent, rtol=1e-5)


@pytest.mark.parametrize("split", SPLITS)
def test_images_train_and_test_as_the_split_says(whole: Path, split: str) -> None:
    data = DATA.model_copy(update={"split": split, "n_validation": 4})
    ready = prepare_responses(LaionFmri(whole, split), SUBJECT, data)
    stated = json.loads((whole / f"splits/sub-03/{split}.json").read_text())
    (variant,) = stated["variants"]
    every = np.array(tiny_laion_fmri.names())
    assert set(every[ready.nsd_id[ready.split == "test"]]) == set(variant["test_ids"])
    others = set(every[ready.nsd_id[ready.split != "test"]])
    assert others == set(variant["train_ids"])
    assert (ready.split == "validation").sum() == 4
    assert any(f"split {split} of LAION-fMRI" in note for note in ready.notes)
    label = load_profile("laion_fmri", {"data.split": split}).label("measured")
    assert label.endswith(f"split {split}")


def test_a_drop_out_on_one_day_costs_that_day_alone(whole: Path) -> None:
    ready = prepare_responses(LaionFmri(whole, "tau"), SUBJECT, DATA)
    n_units = len(LaionFmri(whole, "tau").units(SUBJECT, "areas").area)
    inside = [3, 3, 3] in ready.voxel_ijk.tolist()
    assert ready.betas.shape[1] == n_units
    assert ready.counts["voxel-sessions left out: no data"] == int(inside)
    assert ready.n_repeats.tolist() == [3] * len(ready.nsd_id)


def test_images_are_as_they_were_shown(whole: Path) -> None:
    """What is open in a PNG was grey on the screen: 128 of 255."""
    every = tiny_laion_fmri.names()
    row = next(n for n, name in enumerate(every) if name.endswith("png"))
    (image,) = LaionFmri(whole, "tau").images(np.array([row]))
    colour = [37 * row % 256, 91 * row % 256, 151 * row % 256]
    assert image[7, 499].tolist() == colour
    assert image[7, 500].tolist() == [128] * 3


def test_captions_are_those_of_people_the_best_first(whole: Path) -> None:
    every = tiny_laion_fmri.names()
    row = next(n for n, name in enumerate(every) if "12rep" in name)
    (texts,) = LaionFmri(whole, "tau").captions(np.array([row]), 5).tolist()
    assert texts == [f"{every[row][:-4]} seen by person {k}" for k in range(1, 6)]


def test_all_visual_cortex_is_laiongeneral_and_trials_may_be_in_any_order(
    copy: Path,
) -> None:
    before = LaionFmri(copy, "tau").trials(SUBJECT, (2,))
    table = pd.read_csv(copy / TRIALS, sep="\t").iloc[::-1]
    (copy / TRIALS).unlink()
    table.assign(session=2).to_csv(copy / TRIALS, sep="\t", index=False)
    after = LaionFmri(copy, "tau").trials(SUBJECT, (2,))
    np.testing.assert_array_equal(after.image_id, before.image_id)
    units = LaionFmri(copy, "tau").units(SUBJECT, "nsdgeneral")
    name = "sub-03_space-T1w_res-1pt8_label-laiongeneral_mask.nii.gz"
    mask = stored(copy / "derivatives/rois/sub-03/visual" / name)
    assert units.position.tolist() == np.argwhere(mask).tolist()


def test_without_a_noise_ceiling_none_is_made_up_and_it_is_said(copy: Path) -> None:
    (copy / CEILING).unlink()
    # no image is left with three trials of its own
    data = DATA.model_copy(update={"sessions": 2})
    data_set = LaionFmri(copy, "tau")
    assert data_set.units(SUBJECT, "areas").ncsnr is None
    assert any("none is estimated" in note for note in data_set.notes(SUBJECT))
    prepare_responses(data_set, SUBJECT, data)


# --- bad input ------------------------------------------------------------------------


def ends_early(root: Path) -> None:
    """Leave a sound gzip file that holds less than its header says."""
    stored = gzip.decompress((root / BETAS).read_bytes())
    holds(BETAS, gzip.compress(stored[:-999], 1))(root)


def too_long(root: Path) -> None:
    stored = gzip.decompress((root / BETAS).read_bytes())
    holds(BETAS, gzip.compress(stored + bytes(4), 1))(root)


def cell(column: str, row: int, value: str) -> Callable[[pd.DataFrame], None]:
    return lambda held: held.__setitem__(
        column, [*held[column][:row], value, *held[column][row + 1 :]]
    )


def split(edit: Callable[[dict[str, Any]], object]) -> Damage:
    def change(root: Path) -> None:
        held = json.loads((root / SPLIT).read_text())
        edit(held)
        holds(SPLIT, json.dumps(held).encode())(root)

    return change


def part(held: dict[str, Any], name: str) -> list[str]:
    ids: list[str] = held["variants"][0][f"{name}_ids"]
    return ids


def moved(held: dict[str, Any]) -> None:
    part(held, "train")[0] = part(held, "test")[0]


def pictures(edit: Callable[[list[Any]], list[Any]]) -> Damage:
    def change(root: Path) -> None:
        with h5py.File(root / IMAGES) as file:
            stored = edit([file["images"][n] for n in range(len(file["images"]))])
        (root / IMAGES).unlink()
        with h5py.File(root / IMAGES, "w") as file:
            kind = h5py.vlen_dtype(np.uint8)
            images = file.create_dataset("images", (len(stored),), kind)
            for row, one in enumerate(stored):
                images[row] = one

    return change


def without_people(held: pd.DataFrame) -> pd.DataFrame:
    return held[held["source"] == "ai"]


def of_one_image(held: pd.DataFrame) -> pd.DataFrame:
    name = next(n for n in tiny_laion_fmri.seen() if "OOD" not in n)
    return held[held["image_name"] != name]


BAD: dict[str, tuple[Damage, str]] = {
    "no such folder": (shutil.rmtree, "are missing"),
    "betas gone": (gone(BETAS), "Betas of 1 sessions are missing, 3 are asked"),
    "betas cut short": (cut(BETAS, -400), "Betas at .* is truncated"),
    "betas end early": (ends_early, "Betas at .*it ends within a trial"),
    "betas too long": (too_long, "Betas at .*more bytes than its header"),
    "betas empty": (holds(BETAS, b""), "is empty"),
    "betas a page": (holds(BETAS, b"<html>403"), "server's page or error message"),
    "betas a pointer": (
        holds(BETAS, b"version https://git-lfs.github.com/spec/v1"),
        "pointer of Git LFS",
    ),
    "betas of whole numbers": (
        volume(BETAS, lambda v: np.nan_to_num(v).astype(np.int16)), "int16 betas"
    ),
    "betas of one volume": (volume(BETAS, lambda v: v[..., 0]), "shape .7, 6, 5., but"),
    "a volume too few": (volume(BETAS, lambda v: v[..., :-1]), "48. is expected"),
    "betas of another grid": (volume(BETAS, lambda v: v[:-1]), "of shape .6, 6, 5,"),
    "betas infinite": (volume(BETAS, filled(np.inf, 4, 4)), "infinite values"),
    "betas all NaN": (volume(BETAS, filled(np.nan, ...)), "zeros or one value through"),
    "many voxels NaN": (volume(BETAS, filled(np.nan, 3)), "zeros or one value through"),
    "trials gone": (gone(TRIALS), "Trials not found at"),
    "trials without labels": (
        table(TRIALS, lambda t: t.drop(columns="label")), "a column label is expected"
    ),
    "trials of another session": (
        table(TRIALS, lambda t: t.assign(session="ses-03")), "trials of session 'ses-03"
    ),
    "a trial without a name": (table(TRIALS, cell("label", 4, "")), "a gap in row 5"),
    "an image that is unknown": (
        table(TRIALS, cell("label", 4, "x.jpg")), "names the image x.jpg, which"
    ),
    "an index twice": (table(TRIALS, cell("beta_index", 1, "0")), "not there once for"),
    "an index in words": (table(TRIALS, cell("beta_index", 1, "b")), "not there once"),
    "a trial too few": (table(TRIALS, lambda t: t[:-1]), "48., but .7, 6, 5, 47. is"),
    "no trial": (table(TRIALS, lambda t: t[:0]), "holds no row"),
    "ceiling cut short": (cut(CEILING), "Noise ceiling at .* is truncated"),
    "ceiling beyond 100": (volume(CEILING, filled(101, 3)), "percent of the variance"),
    "ceiling of another grid": (volume(CEILING, lambda v: v[1:]), "ncsnr of subject 3"),
    "region gone": (gone(V1V), "Region not found at .*label-V1v_mask"),
    "region of fractions": (
        volume(V1V, lambda v: v * np.float32(0.5)), "the value 0.5, but 0 or 1"
    ),
    "region of another grid": (volume(HV4, lambda v: v[:, 1:]), "Region .* has shape"),
    "region in time": (volume(HV4, lambda v: v[..., None][..., [0, 0]]), "i, j, k. is"),
    "table gone": (gone(TABLE), "Table of images not found"),
    "an image twice": (
        table(TABLE, cell("image_name", 4, tiny_laion_fmri.names()[0])), "twice, but ea"
    ),
    "table cut short": (
        table(TABLE, lambda t: t[:20]), "which .*metadata.csv does not have"
    ),
    "images gone": (gone(IMAGES), "Images not found at"),
    "images cut short": (cut(IMAGES, -99), "Images at .* is truncated"),
    "an image too few": (pictures(lambda all_: all_[:-1]), "one for each name"),
    "a picture empty": (
        pictures(lambda all_: [a[:0] for a in all_]), "no picture in row"
    ),
    "a picture damaged": (pictures(lambda all_: [a[:300] for a in all_]), "Images at"),
    "captions gone": (gone(CAPTIONS), "Captions not found"),
    "captions of machines alone": (table(CAPTIONS, without_people), "are 0 captions"),
    "captions of one image gone": (table(CAPTIONS, of_one_image), "are 0 captions of"),
    "a caption without a rank": (
        table(CAPTIONS, lambda t: t.assign(caption_idx="0")), "without a rank"
    ),
    "split gone": (gone(SPLIT), "Split not found .*minddiff fetch"),
    "split no JSON": (holds(SPLIT, b"train: [1]"), "Split at .* not as published"),
    "split of another name": (
        split(lambda s: s.update(name="ood")), "the split 'ood', but 'tau' is expected"
    ),
    "split of other counts": (split(lambda s: s.update(n_train=9)), "which it states"),
    "an image in both parts": (split(moved), "more than once, but each image once"),
    "a split of numbers": (
        split(lambda s: part(s, "train").__setitem__(0, 7)), "ids that are no names"  # type: ignore[call-overload]
    ),
    "a split of unknown images": (
        split(lambda s: part(s, "test").__setitem__(0, "y.jpg")), "the image y.jpg"
    ),
}  # fmt: skip


prepare = preparing("laion_fmri", DATA, SUBJECT, 3)
test_bad_input_is_one_sentence_and_nothing_is_written = refusals(BAD, prepare)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"sessions": 5}, "Betas of 2 sessions are missing, 5 are asked"),
        ({"only_sessions": (31,), "sessions": 40}, "data.only_sessions"),
        ({"split": "ood", "n_validation": 400}, "cannot give a test set"),
        ({"split": None}, "data.split is None, but must be one of"),
    ],
)
def test_what_the_data_set_cannot_give_is_one_sentence(
    whole: Path, over: dict[str, object], words: str
) -> None:
    with pytest.raises((DataError, ConfigError), match=words) as caught:
        prepare(whole, DATA.model_copy(update=over))
    assert is_a_sentence(caught.value)


def test_a_subject_that_there_is_not_and_more_captions_than_there_are(
    whole: Path,
) -> None:
    with pytest.raises(ConfigError, match="must be one of: 1, 3, 5, 6, 7"):
        prepare(whole, subject=2)
    every = tiny_laion_fmri.names()
    row = next(n for n, name in enumerate(every) if name.startswith("sub-03"))
    with pytest.raises(DataError, match="There are 3 captions of"):
        LaionFmri(whole, "tau").captions(np.array([row]), 5)


@pytest.mark.parametrize(
    ("profile", "over", "words"),
    [
        ("laion_fmri", {"data.split": None}, "which laion_fmri alone needs"),
        ("laion_fmri", {"data.split": "taus"}, "data.split is 'taus', but must be"),
        ("nsd", {"data.split": "tau"}, "which laion_fmri alone needs"),
    ],
)
def test_a_split_belongs_to_this_profile_alone(
    profile: str, over: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_profile(profile, over)


def test_check_says_that_all_is_there_or_what_is_not(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", str(copy), "--profile", "laion_fmri", "--subjects", "3"]
    words += ["--set", "data.sessions=3"]
    assert main(words) == 0
    assert "are there and agree" in capsys.readouterr().out
    (copy / V1V).unlink()
    assert main(words) == 1
    assert "label-V1v" in capsys.readouterr().err
