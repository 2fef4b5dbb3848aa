"""Algonauts 2023: rows, columns, areas, and every damage in one sentence."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.datasets import open_data_set
from minddiff_utils.datasets.algonauts import layout
from minddiff_utils.datasets.algonauts.data_set import Algonauts
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.pipeline.cli import main
from minddiff_utils.preprocessing import prepare_responses
from minddiff_utils.reporting import surface_maps
from minddiff_utils.reporting.surface_maps import CorticalData, cortical_maps
from tests import tiny_algonauts
from tests.damaged import (
    Damage,
    array,
    cut,
    filled,
    folders,
    gone,
    holds,
    is_a_sentence,
    preparing,
    refusals,
    table,
)
from tests.tiny_algonauts import SUBJECT

ONE = np.ones(1)
VERSION = "betas_fithrf_GLMdenoise_RR"
DATA = DataConfig(sessions=37, n_validation=6, n_reconstruct=None, zscore_on="all")
FMRI = "subj05/training_split/training_fmri"
IMAGES = "subj05/training_split/training_images"
MASKS = "subj05/roi_masks"
NSD = "nsddata/experiments/nsd"
TABLE, DESIGN = f"{NSD}/nsd_stim_info_merged.csv", f"{NSD}/nsd_expdesign.mat"
ATLAS = "nsddata/freesurfer/fsaverage/label"
NCSNR = f"nsddata_betas/ppdata/subj05/fsaverage/{VERSION}"
NOTES = "nsddata_stimuli/stimuli/nsd/annotations"


whole, copy = folders(tiny_algonauts.write)


def opened(root: Path) -> Algonauts:
    return Algonauts(NsdTree(root))


def per_vertex(path: Path) -> Any:
    if path.suffix == ".mgz":
        return np.array(nib.load(path).dataobj)
    return np.array(nib.MGHImage.from_bytes(path.read_bytes()).dataobj)


def ids_of(root: Path) -> list[int]:
    return [int(path.stem[-5:]) for path in sorted((root / IMAGES).iterdir())]


# --- what it holds ------------------------------------------------------------------


def test_a_column_is_the_vertex_that_the_release_says(whole: Path) -> None:
    """Column j is the j-th nonzero vertex; an area the drawn one, else the atlas's."""
    units = opened(whole).units(SUBJECT, "nsdgeneral")
    found = opened(whole).responses(SUBJECT, 1, units)
    expected = [np.load(whole / FMRI / f"{h}_training_fmri.npy") for h in ("lh", "rh")]
    np.testing.assert_array_equal(found, np.concatenate(expected, axis=1))
    groups = {
        "V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "hV4": (7,), "VO": (8, 9),
        "PHC": (10, 11), "MST": (12,), "MT": (13,), "LO": (14, 15), "V3ab": (16, 17),
        "IPS": range(18, 24),
    }  # fmt: skip
    row = 0
    for side, h in enumerate(("lh", "rh")):
        inside = np.load(whole / MASKS / f"{h}.all-vertices_fsaverage_space.npy")
        drawn = np.load(whole / MASKS / f"{h}.prf-visualrois_fsaverage_space.npy")
        atlas = per_vertex(whole / ATLAS / f"{h}.Kastner2015.mgz").ravel()
        ncsnr = per_vertex(whole / NCSNR / f"{h}.ncsnr.mgh").ravel()
        for vertex in np.flatnonzero(inside):
            assert units.position[row].tolist() == [side, vertex]
            label = drawn[vertex] or atlas[vertex]
            names = [name for name, labels in groups.items() if label in labels]
            assert units.area_names[units.area[row]] == (names or ["none"])[0]
            assert units.ncsnr is not None
            assert units.ncsnr[row] == np.float32(ncsnr[vertex])
            row += 1
    assert row == len(units.area)


def test_responses_are_left_as_released_and_ordered_by_nsd_s_list(whole: Path) -> None:
    ready = prepare_responses(opened(whole), SUBJECT, DATA)
    own = NsdTree(whole).design().images[SUBJECT - 1].tolist()
    places = [own.index(i) for i in ready.nsd_id.tolist()]
    assert places == sorted(places)
    assert sorted(ready.nsd_id.tolist()) == ids_of(whole)
    assert (ready.split == "test").tolist() == [place < 1000 for place in places]
    assert np.flatnonzero(ready.split == "validation").tolist() == [*range(42, 48)]
    values = opened(whole).responses(SUBJECT, 1, ready.units)
    rows = [ids_of(whole).index(i) for i in ready.nsd_id.tolist()]
    np.testing.assert_array_equal(ready.betas, values[rows])
    assert ready.arrays()["vertex"].shape == (len(ready.roi), 2)
    assert "voxel_ijk" not in ready.arrays()


def test_repeats_are_those_of_the_sessions_that_are_averaged(whole: Path) -> None:
    table = pd.read_csv(whole / TABLE, index_col=0)
    ready = prepare_responses(opened(whole), SUBJECT, DATA)
    trials = table[[f"subject{SUBJECT}_rep{r}" for r in range(3)]].to_numpy()
    expected = ((trials > 0) & (trials <= 37 * 750)).sum(axis=1)[ready.nsd_id]
    assert ready.n_repeats.tolist() == expected.tolist()
    assert set(expected) > {3}
    ceiling = ready.noise_ceiling_r
    m = np.mean(1 / expected[ready.split == "test"])
    power = ready.ncsnr.astype(float) ** 2
    np.testing.assert_allclose(ceiling, np.sqrt(power / (power + m)), rtol=1e-5)


def test_without_the_design_rows_ascend_by_id_and_it_is_said(copy: Path) -> None:
    (copy / DESIGN).unlink()
    ready = prepare_responses(opened(copy), SUBJECT, DATA)
    assert ready.nsd_id.tolist() == ids_of(copy)
    assert any("other images validate" in note for note in ready.notes)
    full = prepare_responses(opened(copy.parent / "a copy"), SUBJECT, DATA)
    assert (full.split == "test").sum() == tiny_algonauts.N_SHARED_SEEN


def test_without_ncsnr_no_ceiling_is_made_up_and_it_is_said(copy: Path) -> None:
    (copy / NCSNR / "rh.ncsnr.mgh").unlink()
    ready = prepare_responses(opened(copy), SUBJECT, DATA)
    assert np.isnan(ready.ncsnr).all()
    assert np.isnan(ready.noise_ceiling_r).all()
    assert any("no noise ceiling is available" in note for note in ready.notes)


def test_scores_that_saw_the_test_images_are_said_in_every_label() -> None:
    label = load_profile("algonauts").label("measured")
    assert label == "profile algonauts: session z-scores with test images"
    assert load_profile("nsd").label("measured") == "profile nsd"


def test_no_pickle_is_opened_and_names_are_written_by_hand(whole: Path) -> None:
    opened(whole).check(SUBJECT, (1,))
    prepare_responses(opened(whole), SUBJECT, DATA)
    assert not (whole / "OPENED").exists()
    assert {k: list(v) for k, v in layout.ROIS.items()} == tiny_algonauts.ROIS


def test_the_withheld_images_are_not_used(whole: Path) -> None:
    with pytest.raises(DataError, match=r"hold image nsd_id 7: unpack"):
        opened(whole).images(np.array([7]))
    shown = ids_of(whole)[3]
    [image] = opened(whole).images(np.array([shown]))
    np.testing.assert_array_equal(image, tiny_algonauts.picture(shown))


@pytest.mark.parametrize(
    ("subject", "n"), [(1, 37), (3, 29), (4, 27), (6, 29), (8, 27)]
)
def test_three_sessions_of_each_subject_are_withheld(subject: int, n: int) -> None:
    assert layout.n_sessions(subject) == n


def test_the_profile_has_the_paper_s_sizes_and_this_data_set(whole: Path) -> None:
    profile, paper = load_profile("algonauts"), load_profile("nsd")
    assert (profile.data_set, paper.data_set) == ("algonauts", "nsd")
    assert profile.data.n_validation == paper.data.n_validation
    found = open_data_set(profile.data_set, whole, profile.data.betas_version)
    asked = profile.data.session_numbers
    assert found.sessions(SUBJECT, asked) == tuple(range(1, 38))


def test_maps_of_vertices_need_fsaverage_which_is_fetched(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Any = SimpleNamespace(profile=load_profile("algonauts"))
    data = CorticalData(np.zeros((1, 2), int), np.zeros(1, int), ("V1",), {"c": ONE})
    monkeypatch.setattr(surface_maps, "weight_maps", lambda *_: data)
    maps = cortical_maps(run, NsdTree(copy), (5,))
    assert maps.subject is None
    assert "lh.sulc" in maps.note or "lh.white" in maps.note
    wanted = {file.path: file for file in layout.inventory(5)}
    surfaces = [path for path in wanted if "/fsaverage/surf/" in path]
    assert len(surfaces) == 8
    assert all(wanted[path].optional for path in surfaces)
    assert {wanted[path].notebook for path in surfaces} == {"06"}


# --- bad input ----------------------------------------------------------------------


def swapped(folder: str, pattern: str) -> Damage:
    def change(root: Path) -> None:
        for left in list((root / folder).glob(pattern)):
            right = left.with_name(f"rh{left.name[2:]}")
            aside = left.rename(root / "aside")
            right.rename(left)
            aside.rename(right)

    return change


def named(rank: int, name: str) -> Damage:
    def change(root: Path) -> None:
        [path] = (root / IMAGES).glob(f"train-{rank:04d}_*")
        path.rename(path.with_name(name))

    return change


def first_image(save: Damage) -> Damage:
    def change(root: Path) -> None:
        path = min((root / IMAGES).iterdir())
        path.unlink()
        save(path)

    return change


def drawn(size: tuple[int, int], mode: str) -> Damage:
    return first_image(lambda path: Image.new(mode, size).save(path))


def surface(name: str, edit: Callable[[Any], Any]) -> Damage:
    def change(root: Path) -> None:
        values = per_vertex(root / name)
        (root / name).unlink()
        nib.save(nib.MGHImage(edit(values), np.eye(4)), root / name)

    return change


def other_reps(held: pd.DataFrame) -> None:
    held[[f"subject{SUBJECT}_rep{r}" for r in range(3)]] = 0


LH, RH = (f"{FMRI}/{h}_training_fmri.npy" for h in ("lh", "rh"))
ALL = f"{MASKS}/lh.all-vertices_fsaverage_space.npy"
PRF = f"{MASKS}/lh.prf-visualrois_challenge_space.npy"
BAD: dict[str, tuple[Damage, str]] = {
    "no such folder": (shutil.rmtree, "Training images not found"),
    "array cut short": (cut(LH), r"lh_training_fmri\.npy is truncated"),
    "array gone": (gone(RH), r"Responses not found at .*rh_training_fmri\.npy"),
    "array empty": (holds(LH, ""), "is empty"),
    "array a pointer": (
        holds(LH, "version https://git-lfs.github.com/spec/v1\n"), "pointer of Git LFS"
    ),
    "array a web page": (holds(LH, "<!DOCTYPE html><html>quota"), "server's page"),
    "array of objects": (
        array(LH, lambda v: v.astype(object)), r"lh_training_fmri\.npy is truncated or"
    ),
    "array of doubles": (
        array(LH, lambda v: v.astype(np.float64)), "holds float64 .* but float32"
    ),
    "array of one axis": (array(LH, np.ravel), r"\(672,\), but float32 of"),
    "rows lost": (array(RH, lambda v: v[:-2]), "46 rows, but .* 48 images"),
    "columns lost": (array(LH, lambda v: v[:, 1:]), "13 vertices, .* lh marks 14"),
    "arrays swapped": (swapped(FMRI, "lh_*"), "as many as rh has: are they swapped"),
    "NaN throughout": (array(LH, filled(np.nan, slice(None))), "holds zeros or one"),
    "zeros throughout": (array(RH, filled(0, slice(None))), "holds zeros or one"),
    "infinite": (array(LH, filled(np.inf, 3)), "infinite values"),
    "mask gone": (gone(ALL), r"Mask not found at .*lh\.all-vertices"),
    "mask cut short": (cut(ALL), "all-vertices_fsaverage_space.npy is truncated"),
    "mask of another surface": (array(ALL, lambda v: v[:10_242]), r"shape \(10242,\)"),
    "mask of fractions": (
        array(ALL, lambda v: v * 0.5), "holds fractions in the mask, but whole"
    ),
    "mask of labels": (array(ALL, lambda v: v * 3), "0 to 3 in the mask, but 0 to 1"),
    "mask without a vertex": (array(ALL, lambda v: v * 0), "holds no vertex"),
    "masks of areas gone": (gone(PRF), "not found at .*prf-visualrois_challenge"),
    "a label too many": (array(PRF, filled(8, 0)), "8 in the mask, but 0 to 7"),
    "areas of fsaverage": (array(PRF, lambda v: v[:5]), r"\(5,\), but .* \(14,\)"),
    "areas swapped": (
        swapped(MASKS, "lh.prf*challenge*"), r"shape \(12,\), but .* \(14,\)"
    ),
    "an image lost": (
        lambda root: next((root / IMAGES).glob("train-0007_*")).unlink(),
        "no image of rank 7",
    ),
    "no image": (
        lambda root: [p.unlink() for p in (root / IMAGES).iterdir()] and None,
        "holds no image",
    ),
    "image named otherwise": (named(3, "img-3.png"), "is no name of the release"),
    "id beyond the last": (named(48, "train-0048_nsd-73000.png"), "image 73000 by"),
    "ids out of order": (named(2, "train-0002_nsd-00000.png"), "out of order at ra"),
    "id of another subject": (
        named(48, "train-0048_nsd-72999.png"), r"nsd_id 72999\) were not shown in sess"
    ),
    "image cut short": (
        lambda root: cut(str(min((root / IMAGES).iterdir())), -90)(root),
        "Image at .* is truncated",
    ),
    "image of another size": (drawn((224, 224), "RGB"), "224 x 224 px .RGB., but 425"),
    "image in grey": (drawn((425, 425), "L"), r"425 x 425 px \(L\), but"),
    "table gone": (gone(TABLE), "Stimulus table not found"),
    "table of others": (
        table(TABLE, other_reps),
        r"48 images of subject 5 .* were not shown",
    ),
    "table without shared images": (
        table(TABLE, lambda t: t.__setitem__("shared1000", False)),
        "0 shared images, but 1000",
    ),
    "design cut short": (cut(DESIGN, -900), "Experimental design at"),
    "captions gone": (gone(f"{NOTES}/captions_val2017.json"), "captions .*not found"),
    "captions missing": (
        holds(f"{NOTES}/captions_val2017.json", '{"annotations": []}'), "There are 0 ca"
    ),
    "atlas gone": (gone(f"{ATLAS}/rh.Kastner2015.mgz"), "Kastner2015 .*not found"),
    "atlas of another surface": (
        surface(f"{ATLAS}/lh.Kastner2015.mgz", lambda v: v[:642]), r"shape \(642,\)"
    ),
    "atlas of fractions": (
        surface(f"{ATLAS}/lh.Kastner2015.mgz", lambda v: v + 0.4), "a whole number"
    ),
    "atlas of other labels": (
        surface(f"{ATLAS}/lh.Kastner2015.mgz", lambda v: v + 9), "the value 26"
    ),
    "ncsnr negative": (
        surface(f"{NCSNR}/lh.ncsnr.mgh", lambda v: v - 2), r"lh\.ncsnr\.mgh holds neg"
    ),
}  # fmt: skip


prepare = preparing("algonauts", DATA, SUBJECT, 5)
test_bad_input_is_one_sentence_and_nothing_is_written = refusals(BAD, prepare)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"sessions": 20}, "means over sessions 1 to 37, but session 21"),
        ({"only_sessions": (3,)}, "means over sessions 1 to 37, but session 1"),
        ({"zscore_on": "train"}, "set data.zscore_on to all"),
        ({"betas_version": "betas_assumehrf"}, "betas_version"),
        ({"n_validation": 400}, "cannot give a test set"),
    ],
)
def test_what_the_release_cannot_give_is_one_sentence(
    whole: Path, over: dict[str, object], words: str
) -> None:
    with pytest.raises((DataError, ConfigError), match=words) as caught:
        prepare(whole, DATA.model_copy(update=over))
    assert is_a_sentence(caught.value)


def test_another_subject_is_one_sentence(whole: Path) -> None:
    with pytest.raises(DataError, match=r"Training images not found at .*subj01"):
        prepare(whole, subject=1)


def test_check_says_that_all_is_there_or_what_is_not(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", str(copy), "--profile", "algonauts", "--subjects", "5"]
    assert main(words) == 0
    assert "are there and agree" in capsys.readouterr().out
    (copy / LH).unlink()
    assert main(words) == 1
    assert "lh_training_fmri.npy" in capsys.readouterr().err


def test_a_run_says_what_is_missing_before_it_starts(
    copy: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path / "root"))
    (copy / PRF).unlink()
    words = ["run", "--profile", "algonauts", "--subjects", "5", "--only", "01"]
    assert main([*words, "--nsd-root", str(copy), "--set", "models.backbone=tiny"])
    assert "prf-visualrois_challenge_space" in capsys.readouterr().err
    assert main(words) == 1
    assert "needs the Algonauts 2023 release" in capsys.readouterr().err


def test_a_few_vertices_without_data_are_left_out_and_counted(copy: Path) -> None:
    array(LH, filled(np.nan, slice(None), 0))(copy)
    data = DATA.model_copy(update={"voxels": "nsdgeneral"})
    ready = prepare_responses(opened(copy), SUBJECT, data)
    assert ready.counts["voxels left out: no valid session"] == 1
    assert ready.betas.shape[1] == tiny_algonauts.N_LH + tiny_algonauts.N_RH - 1
    assert set(np.array(AREAS)[ready.roi[ready.roi < 11]]) > {"V1"}
