"""The "69" digits: read or refused in one sentence, decoded, judged against chance."""

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.places import notebook_path, project_root
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.core.store import read_table
from minddiff_utils.datasets.digits69 import reader
from minddiff_utils.datasets.digits69.reader import Digits, read_digits
from minddiff_utils.decoding import RidgeGCV, VoxelSelectedRidge
from minddiff_utils.evaluation.metrics.embeddings import category_only_two_way
from minddiff_utils.pipeline import graph
from minddiff_utils.pipeline.cli import main
from minddiff_utils.studies import digits69
from tests import tiny_digits69
from tests.damaged import refused

FILE = "digit69_28x28.mat"
PROFILE = "digits69"


def approve(patch: pytest.MonkeyPatch, path: Path) -> None:
    """Let the file at `path` count as the published one."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    patch.setattr(reader, "SHA256", digest)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_digits69.write(tmp_path_factory.mktemp("digits") / PROFILE)


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy that passes for the published file."""
    folder = tmp_path / PROFILE
    folder.mkdir()
    shutil.copyfile(whole, folder / FILE)
    approve(monkeypatch, whole)
    return folder / FILE


# --- reading ------------------------------------------------------------------------


def test_what_was_written_is_read_as_digits_that_stand_upright(copy: Path) -> None:
    digits, stored = read_digits(copy.parent), tiny_digits69.variables(1.0)
    fmri = np.concatenate([stored["fmriTrn"], stored["fmriTest"]])
    np.testing.assert_array_equal(digits.responses, fmri)
    images = tiny_digits69.drawn(np.random.default_rng(1))
    np.testing.assert_array_equal(digits.images, images)
    assert digits.digit.tolist() == [6] * 45 + [9] * 45 + [6] * 5 + [9] * 5
    heavy = digits.images[:, 14:].sum((1, 2)) > digits.images[:, :14].sum((1, 2))
    np.testing.assert_array_equal(heavy, digits.digit == 6)  # a six's ring is below
    assert digits.pixels.shape == (100, 784)
    assert digits.pixels.max() <= 1


def test_the_pinned_file_is_the_one_that_is_known() -> None:
    """Bytes and SHA-256 of the copy at the pinned commit of its publisher."""
    assert (reader.SIZE, reader.SHA256[:12]) == (2_390_173, "44513e09ad23")
    assert len(reader.COMMIT) == 40


# --- what is refused ----------------------------------------------------------------

Damage = Callable[[Path], object]


def resaved(change: Callable[[dict[str, Any]], object], **options: Any) -> Damage:
    """Write the file again, its variables changed in place."""

    def damage(path: Path) -> None:
        held = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
        change(held)
        savemat(path, held, do_compression=True, **options)

    return damage


def replaced(name: str, change: Callable[[Any], Any]) -> Damage:
    return resaved(lambda held: held.__setitem__(name, change(held[name])))


def filled(name: str, where: Any, value: float) -> Damage:
    def change(values: Any) -> Any:
        values = values.astype(np.float64)
        values[where] = value
        return values

    return replaced(name, change)


def exchanged(one: str, other: str) -> Damage:
    return resaved(lambda held: held.update({one: held[other], other: held[one]}))


def holds(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("absent.mat")


def all_swapped(held: dict[str, Any]) -> None:
    for name in ("fmri", "stim", "label"):
        pair = held[f"{name}Test"], held[f"{name}Trn"]
        held[f"{name}Trn"], held[f"{name}Test"] = pair


def a_training_image_in_the_test(held: dict[str, Any]) -> None:
    held["stimTest"][0] = held["stimTrn"][0]


def other_variables(held: dict[str, Any]) -> None:
    held.clear()
    held["images"] = np.zeros(3)


def a_voxel_of_zeros(held: dict[str, Any]) -> None:
    for name in ("fmriTrn", "fmriTest"):
        held[name][:, 7] = 0


def black_and_white(held: dict[str, Any]) -> None:
    for name in ("stimTrn", "stimTest"):
        held[name] = (held[name] > 40).astype(np.uint8)


def images_by_rows(values: Any) -> Any:
    return values.reshape(-1, 28, 28).transpose(0, 2, 1).reshape(values.shape)


def added(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x" * 64)


def cell(values: Any) -> Any:
    found = np.empty((len(values), 1), object)
    found[:, 0] = list(values)
    return found


BAD: dict[str, tuple[Damage, str]] = {
    "no such folder": (lambda path: shutil.rmtree(path.parent), "not found at"),
    "no file": (Path.unlink, "not found at"),
    "a folder": (a_folder, "Is a directory"),
    "a link to nothing": (a_link_to_nothing, "is a link to nothing"),
    "empty": (holds(b""), "is empty"),
    "text": (holds(b"six, nine, nine, six\n" * 40), "is truncated or not as"),
    "a web page": (holds(b"<!DOCTYPE html><html>"), "server's page"),
    "a pointer of Git LFS": (holds(b"version https://git-lfs.github.com/"), "Git LFS"),
    "version 7.3": (holds(b"MATLAB 7.3 MAT-file" + bytes(600)), "save it in MATLAB"),
    "cut short": (lambda p: p.write_bytes(p.read_bytes()[:-4000]), "is truncated"),
    "cut to its head": (lambda p: p.write_bytes(p.read_bytes()[:90]), "is truncated"),
    "one bit flipped": (flipped, "is truncated or"),
    "bytes added": (added, "is truncated or|its SHA-256 is"),
    "no responses": (resaved(lambda held: held.pop("fmriTrn")), "a variable 'fmriTr"),
    "no labels": (resaved(lambda held: held.pop("labelTest")), "a variable 'labelT"),
    "nothing of it": (resaved(other_variables), "holds none of its variables"),
    "training and test swapped": (resaved(all_swapped), "that they are not swapped"),
    "images swapped": (exchanged("stimTrn", "stimTest"), "10 trials in stimTrn, as"),
    "responses for images": (exchanged("fmriTrn", "stimTrn"), r"shape \(90, 784\)"),
    "a trial lost": (replaced("fmriTrn", lambda v: v[1:]), r"shape \(89, 3092\), but"),
    "a trial too many": (
        replaced("stimTest", lambda v: np.vstack([v, v[:1]])), r"shape \(11, 784\)"
    ),
    "voxels lost": (replaced("fmriTest", lambda v: v[:, :967]), r"shape \(10, 967\)"),
    "voxels in rows": (replaced("fmriTrn", np.transpose), r"shape \(3092, 90\)"),
    "images of 10 px": (replaced("stimTrn", lambda v: v[:, :100]), r"\(90, 100\), but"),
    "images in three axes": (
        replaced("stimTrn", lambda v: v.reshape(-1, 28, 28)), r"shape \(90, 28, 28\)"
    ),
    "cells for responses": (
        replaced("fmriTest", cell), r"no numbers \(object\) in fmriTest"
    ),
    "cells for images": (replaced("stimTrn", cell), r"no numbers .* in stimTrn"),
    "words for labels": (
        replaced("labelTest", lambda _: np.array([["6"]] * 10, object)), "no numbers"
    ),
    "sparse": (replaced("fmriTrn", csc_matrix), "fmriTrn"),
    "complex": (replaced("fmriTrn", lambda v: v * 1j), "complex numbers"),
    "NaN in a voxel": (filled("fmriTrn", (3, 5), np.nan), "NaN .* in fmriTrn"),
    "infinite": (filled("fmriTest", (3, 5), np.inf), "NaN or infinite .* in fmriTe"),
    "NaN in an image": (filled("stimTest", (0, 0), np.nan), "NaN .* in stimTest"),
    "zeros throughout": (replaced("fmriTrn", lambda v: v * 0), "same responses in sev"),
    "a voxel of zeros": (resaved(a_voxel_of_zeros), "1 voxels that never vary"),
    "one trial twice": (
        replaced("fmriTest", lambda v: np.vstack([v[:9], v[:1]])), r"\(99 differ\)"
    ),
    "a test image that trains": (
        resaved(a_training_image_in_the_test), "an image more than once"
    ),
    "pixels from 0 to 1": (resaved(black_and_white), "pixels from 0 to 1, but 0 to"),
    "pixels of fractions": (
        replaced("stimTest", lambda v: v / 255.0), "whole numbers from 0 to 255"
    ),
    "pixels beyond white": (filled("stimTrn", (0, 0), 256), "from 0 to 255"),
    "pixels below black": (filled("stimTrn", (0, 0), -1), "from 0 to 255"),
    "labels all one": (replaced("labelTrn", lambda v: v * 0 + 1), "labels 1 and 5 lab"),
    "labels from 0": (replaced("labelTrn", lambda v: v - 1), "but 50 of each"),
    "another file": (filled("fmriTrn", (0, 0), 0.123), "its SHA-256 is"),
    "another image": (filled("stimTrn", (0, 0), 7), "its SHA-256 is"),
    "images by rows": (replaced("stimTrn", images_by_rows), "its SHA-256 is"),
}  # fmt: skip


assert len(BAD) >= 25


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_file_is_one_sentence(copy: Path, case: str) -> None:
    damage, words = BAD[case]
    folder = copy.parent
    refused(folder, lambda _: damage(copy), words, read_digits)


def test_a_file_that_may_not_be_read_is_said_as_that(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read anything
    with pytest.raises(DataError, match="Permission denied") as caught:
        read_digits(copy.parent)
    assert "move it away" not in str(caught.value)  # it may be whole


def test_a_missing_file_says_both_ways_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_digits(tmp_path)
    for words in (
        f"minddiff fetch {tmp_path} --profile digits69",
        "https://github.com/ChangdeDu/DGMM",
        "DSC_2018.00112_485",
    ):
        assert words in str(caught.value)


# --- decoding -----------------------------------------------------------------------


def digits_of(folder: Path, noise: float, patch: pytest.MonkeyPatch) -> Digits:
    approve(patch, tiny_digits69.write(folder, noise=noise))
    return read_digits(folder)


@pytest.mark.parametrize(
    "decoder",
    [RidgeGCV(dtype="float64"), VoxelSelectedRidge(1e-3, 200)],
    ids=["dense", "selected"],
)
def test_without_noise_decoding_recovers_the_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: Any
) -> None:
    """Responses are linear in the pixels, and pixels in four shapes of each digit.

    So pixels are linear in responses, but for half a grey value of rounding and for the
    penalty, which shrinks: less than 4 of 255 on average.
    """
    digits = digits_of(tmp_path, 0.0, monkeypatch)
    made = digits69.reconstruct(digits, {"it": decoder}, digits.published_split())
    off = np.abs(made.images["it"].astype(float) - made.truth)
    assert off.mean() < 4
    scores = digits69.score(
        made, n_permutations=50, confidence=0.95, rng=np.random.default_rng(2)
    ).set_index("method")
    assert scores.loc["it", "pcc"] > 0.99
    assert scores.loc["it", "two_way_within"] > 0.9


def test_folds_are_balanced_and_hold_out_every_trial_once(copy: Path) -> None:
    digits = read_digits(copy.parent)
    folds = digits69.balanced_folds(digits, 10)
    held = np.concatenate([rows for _, rows in folds])
    assert sorted(held.tolist()) == list(range(100))
    for train, rows in folds:
        assert sorted([*train, *rows]) == list(range(100))
        assert (digits.digit[rows] == 6).sum() == 5
    ((train, rows),) = digits.published_split()
    assert (train.tolist(), rows.tolist()) == (list(range(90)), list(range(90, 100)))
    with pytest.raises(ConfigError, match="n_folds is 1"):
        digits69.balanced_folds(digits, 1)


def test_a_held_out_trial_has_no_part_in_its_own_image(copy: Path) -> None:
    digits = read_digits(copy.parent)
    decoders = {"dense": RidgeGCV()}
    before = digits69.reconstruct(digits, decoders, digits.published_split())
    images = digits.images.copy()
    images[90:] = 255 - images[90:]
    changed = Digits(digits.responses, images, digits.digit)
    after = digits69.reconstruct(changed, decoders, digits.published_split())
    for name, made in before.images.items():
        np.testing.assert_array_equal(made, after.images[name])
    assert not np.array_equal(before.truth, after.truth)


def test_floors_are_the_mean_images_of_the_training_trials(copy: Path) -> None:
    digits = read_digits(copy.parent)
    made = digits69.reconstruct(digits, {}, digits.published_split())
    assert list(made.images) == [digits69.MEAN_OF_DIGIT, digits69.MEAN]
    mean = digits.images[:90].mean(0)
    six = digits.images[:45].mean(0)
    # rounded to whole grey values
    assert np.abs(made.images[digits69.MEAN][3, ..., 0] - mean).max() <= 0.5 + 1e-6
    first = made.images[digits69.MEAN_OF_DIGIT][0, ..., 1]
    assert np.abs(first - six).max() <= 0.5 + 1e-6


# --- chance -------------------------------------------------------------------------


def scored(made: digits69.Reconstructions, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = digits69.score(made, n_permutations=n, confidence=0.95, rng=rng)
    return rows.set_index("method")


def test_the_category_alone_passes_two_way_but_not_within_the_digit(
    copy: Path,
) -> None:
    digits = read_digits(copy.parent)
    made = digits69.reconstruct(digits, {}, digits.published_split())
    row = scored(made).loc[digits69.MEAN_OF_DIGIT]
    # every pair across digits is won, every pair within them a tie
    assert row["two_way"] == pytest.approx(category_only_two_way(made.digit.tolist()))
    assert row["two_way_p"] < 0.05
    assert row["two_way_within"] == 0.5
    assert row["two_way_within_p"] == 1.0
    mean = scored(made).loc[digits69.MEAN]
    assert (mean["two_way"], mean["two_way_p"]) == (0.5, 1.0)


def test_the_null_contains_chance_and_responses_of_other_trials_do_not_leave_it(
    copy: Path,
) -> None:
    """Responses handed to other trials: nothing can be decoded from them."""
    digits = read_digits(copy.parent)
    order = np.random.default_rng(3).permutation(100)
    other = Digits(digits.responses[order], digits.images, digits.digit)
    folds = digits69.balanced_folds(other, 5)
    row = scored(digits69.reconstruct(other, {"dense": RidgeGCV()}, folds)).loc["dense"]
    for name in ("two_way", "two_way_within"):
        # the mean of 400 permutations has a standard error of .002
        assert row[f"{name}_null"] == pytest.approx(0.5, abs=0.01)
        assert row[f"{name}_null_high"] > 0.5
        assert row[name] < row[f"{name}_null_high"]
        assert row[f"{name}_p"] > 0.025


def test_real_information_leaves_the_null(copy: Path) -> None:
    digits = read_digits(copy.parent)
    made = digits69.reconstruct(
        digits, {"dense": RidgeGCV()}, digits69.balanced_folds(digits, 5)
    )
    scores = scored(made)
    row = scores.loc["dense"]
    assert row["pcc_low"] > scores.loc[digits69.MEAN_OF_DIGIT, "pcc"]
    known = scores.loc[digits69.MEAN_OF_DIGIT, "pcc"]
    assert row["gain"] == pytest.approx(row["pcc"] - known)
    assert row["gain_low"] > 0
    assert row["two_way_within"] > row["two_way_within_null_high"]
    assert row["two_way_within_p"] == pytest.approx(1 / 401)
    rows = scores.reset_index().assign(split="five folds")
    (line,) = digits69.conclusions(rows, ["dense"])
    assert line.startswith(f"five folds, 100 images, dense: pcc {row['pcc']:.3f}, +")


# --- what was kept of the real file ---------------------------------------------------


def test_the_kept_scores_are_whole_and_the_text_beside_them_says_the_same(
    copy: Path,
) -> None:
    folder = project_root() / "data" / "study"
    kept = pd.read_csv(folder / PROFILE / "digits69.csv")
    made = digits69.reconstruct(
        read_digits(copy.parent), {}, read_digits(copy.parent).published_split()
    )
    assert list(kept) == ["split", *scored(made, n=2).reset_index()]
    text = (folder / "README.md").read_text(encoding="utf-8").split("## The 69 dig")[1]
    rows = re.findall(r"^\| ([\w -]+) \| ([\w -]+) \| (\d+) \| (.+) \|$", text, re.M)
    for (split, method, n, cells), row in zip(
        rows, kept.to_dict("records"), strict=True
    ):
        assert (split, method, int(n)) == (row["split"], row["method"], row["n_images"])
        said = [float(x) for x in re.findall(r"[-+]?\.?\d+", cells)]
        names = ["pcc", "pcc_low", "pcc_high", "gain", "gain_low", "gain_high"]
        names += ["ssim_2d", "mse", "two_way", "two_way_within"]
        if method == digits69.MEAN_OF_DIGIT:
            names = [name for name in names if name not in ("gain_low", "gain_high")]
        # three decimals are printed
        assert said == pytest.approx([row[name] for name in names], abs=5.01e-4)


# --- the profile, the notebook and the commands -------------------------------------


def play(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the notebook's code in this process, on a file of the tests' own."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(root))
    monkeypatch.setenv("MINDDIFF_NSD_ROOT", str(folder))
    cells = nbformat.read(notebook_path("A6_digits69"), as_version=4).cells
    names: dict[str, Any] = {}
    few = {"decoding.n_folds": 5, "decoding.n_permutations": 50}
    for cell in cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names["overrides"] = few | {"decoding.n_feat_c": 20}
    return names


def test_the_notebook_runs_from_the_question_to_the_figure(
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = play(tmp_path, copy.parent, monkeypatch)
    said = capsys.readouterr().out
    assert "100 trials, 3092 voxels, 784 pixels" in said
    assert said.count("another of its digit in") == 4  # 2 splits, 2 decoders
    assert names["run"].label == "profile digits69: measured responses"
    figures = tmp_path / "figures" / PROFILE
    table = read_table(figures / "tables" / "digits69.csv")
    assert table["n_images"].tolist() == [10] * 4 + [100] * 4
    assert set(table["split"]) == {"published split", "cross-validation"}
    # bars, intervals, permutations: nothing is missing
    assert np.isfinite(table.select_dtypes("number").to_numpy()).all()
    assert (figures / "digits69.png").stat().st_size > 10_000


def test_the_profile_runs_its_own_notebook_and_no_other_runs_it(
    copy: Path, tmp_path: Path
) -> None:
    profile = load_profile(PROFILE)
    tree = Tree(tmp_path, PROFILE, copy.parent)
    (job,) = graph.make_plan(profile, tree, {}).jobs
    assert job.name == "A6_digits69"
    assert list(job.facts["files"]) == [FILE]
    nsd = graph.make_plan(load_profile("demo"), Tree(tmp_path, "demo", tmp_path), {})
    assert "A6_digits69" not in {job.notebook for job in nsd.jobs}
    before = job.key
    flipped(copy)
    assert graph.make_plan(profile, tree, {}).jobs[0].key != before


def test_what_has_no_meaning_for_pixels_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    for command in ("claims", "compare", "plan", "study", "human-trials"):
        assert main([command, "--profile", PROFILE]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "without a generator" in said
    assert list(tmp_path.iterdir()) == []


def test_check_says_that_it_is_the_published_file_or_what_is_wrong(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check", str(copy.parent), "--profile", PROFILE]
    assert main(arguments) == 0
    assert "is the published one" in capsys.readouterr().out
    flipped(copy)
    assert main(arguments) == 1
    assert "move it away" in capsys.readouterr().err


def test_a_run_without_the_file_s_folder_says_how_to_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    assert main(["run", "--profile", PROFILE]) == 1
    said = capsys.readouterr().err
    assert "needs the folder of the 69 digits" in said
    assert "--nsd-root PATH" in said
