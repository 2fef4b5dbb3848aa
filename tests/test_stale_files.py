"""Whatever file a run reads: another one in its place makes its notebook stale."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minddiff_utils.core import provenance
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.datasets.nsd.layout import inventory
from minddiff_utils.pipeline import graph, records

ALL = "01 02 03 04 05 06 07 08 A3 A7"
BY_SUBJECT = (
    "01_data_prep",
    "02_decoding",
    "03_stage1",
    "04_stage2",
    "A7_further_tests",
)
OVER = {"subjects": [1, 2], "data.sessions": 2}
CAPTIONS = "nsddata_stimuli/stimuli/nsd/annotations/captions_train2017.json"
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
WANTED = sorted(
    file.path
    for file in inventory({1: (1, 2)}, forms=("hdf5", "nii.gz"))
    if "nsdgeneral" not in file.path
)
WEIGHTS = {
    "sd14/unet/diffusion_pytorch_model.safetensors": "02 03 04 05 06 07 08 A3 A7",
    "sd14/clip/open_clip_config.json": "02 03 04 05 06 07 08 A3 A7",
    "sd14/judge/open_clip_model.safetensors": "05 06 07 08",
    "perception/alexnet_imagenet1k_v1.safetensors": "05 06 07 08",
}
Stale = Callable[[], str]


def _put(path: Path, text: str = "first") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def nsd(tmp_path: Path) -> Path:
    """Return a folder with a file at every place that a run reads: no data."""
    for name in WANTED:
        _put(tmp_path / "nsd" / name)
    for name in WEIGHTS:
        _put(tmp_path / "models" / name)
    return tmp_path / "nsd"


def _jobs(nsd: Path, models: Path, **over: object) -> dict[str, graph.Job]:
    profile = load_profile("nsd", OVER | over)
    tree = Tree(models.parent, "nsd", nsd, models)
    return {job.name: job for job in graph.make_plan(profile, tree, {}).jobs}


@pytest.fixture
def stale(nsd: Path) -> Stale:
    """Give a function that says which notebooks of subject 1 are stale by now."""
    models = nsd.parent / "models"
    before = _jobs(nsd, models)

    def numbers() -> str:
        after = _jobs(nsd, models)
        changed = [name for name in before if before[name].key != after[name].key]
        return " ".join(sorted({name[:2] for name in changed if "subj02" not in name}))

    return numbers


def _reader(name: str) -> str:
    is_drawn = "/surf/" in name or "/transforms/" in name
    return "06" if is_drawn else ALL


def _replace(path: Path, text: str) -> None:
    """Write another content that is as long and as old."""
    status = path.stat()
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    provenance._content.cache_clear()


@pytest.mark.parametrize("name", WANTED)
def test_a_file_replaced_or_gone_makes_its_reader_stale(
    nsd: Path, stale: Stale, name: str
) -> None:
    _replace(nsd / name, "other")
    assert stale() == _reader(name)
    (nsd / name).unlink()
    assert stale() == _reader(name)


def test_a_file_put_back_is_current_and_a_touched_one_is_not(
    nsd: Path, stale: Stale
) -> None:
    path = nsd / CAPTIONS
    assert stale() == ""
    for text in ("other", "first"):
        _replace(path, text)
    assert stale() == ""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert stale() == ALL


@pytest.mark.parametrize(("name", "expected"), WEIGHTS.items())
def test_other_weights_make_their_readers_stale(
    nsd: Path, stale: Stale, name: str, expected: str
) -> None:
    (nsd.parent / "models" / name).write_text("others", encoding="utf-8")
    assert stale() == expected


ROI = "nsddata/ppdata/subj01/func1pt8mm/roi"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (f"{BETAS}/betas_session01.hdf5", f"{BETAS}/betas_session1.hdf5"),
        (f"{BETAS}/betas_session02.nii.gz", f"{BETAS}/betas_session02.nii"),
        (f"{ROI}/Kastner2015.nii.gz", f"{ROI}/Kastner2015.nii"),
        (CAPTIONS, CAPTIONS.replace("annotations/", "annotations/annotations/")),
    ],
)
def test_another_form_in_the_place_of_a_file_counts(
    nsd: Path, stale: Stale, name: str, other: str
) -> None:
    (nsd / other).parent.mkdir(exist_ok=True)
    (nsd / name).rename(nsd / other)
    assert stale() == ALL
    assert (
        f"{other}"
        in _jobs(nsd, nsd.parent / "models")["01_data_prep_subj01"].facts["files"]
    )


@pytest.mark.parametrize(
    "name",
    [
        f"{BETAS}/betas_session03.hdf5",
        f"{BETAS}/betas_session01.hdf5.part",
        f"{ROI}/floc-faces.nii.gz",
        "nsddata/freesurfer/subj01/surf/lh.thickness",
    ],
)
def test_a_file_that_this_run_does_not_read_makes_nothing_stale(
    nsd: Path, stale: Stale, name: str
) -> None:
    _put(nsd / name, "something new")
    assert stale() == ""


def test_one_subject_s_files_leave_the_others_alone(nsd: Path) -> None:
    models = nsd.parent / "models"
    before = _jobs(nsd, models)
    _put(nsd / BETAS / "betas_session01.hdf5", "others")
    after = _jobs(nsd, models)
    same = {name for name in before if before[name].key == after[name].key}
    assert same == {f"{stem}_subj02" for stem in BY_SUBJECT}


def test_a_moved_tree_is_the_same_and_another_one_is_not(nsd: Path) -> None:
    models = nsd.parent / "models"
    before = _jobs(nsd, models)
    moved = shutil.copytree(nsd, nsd.parent / "elsewhere" / "tree")  # keeps times
    assert _jobs(moved, models) == before
    _put(moved / BETAS / "betas_session02.hdf5", "other")
    assert _jobs(moved, models)["01_data_prep_subj01"].key != (
        before["01_data_prep_subj01"].key
    )


def test_a_large_file_is_known_without_being_read(
    nsd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = nsd / BETAS / "betas_session01.hdf5"
    with path.open("wb") as file:
        file.truncate(provenance.SMALL_BYTES)
    read = []
    digest = provenance.digest_file
    monkeypatch.setattr(
        provenance, "digest_file", lambda p: read.append(p) or digest(p)
    )
    _jobs(nsd, nsd.parent / "models")
    assert read
    assert path not in read


def test_a_file_that_may_not_be_read_stops_no_plan(
    nsd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    provenance._content.cache_clear()
    monkeypatch.setattr(provenance, "digest_file", refuse)
    assert provenance.stamp(nsd / CAPTIONS) == "Permission denied"


# --- what the user is told, and what is remembered ----------------------------------


def _ran(job: graph.Job, tree: Tree) -> None:
    """Write the record of a run of `job`."""
    tree.notebooks.mkdir(parents=True, exist_ok=True)
    records.remember(job, tree, tree.root / "no.journal", 1.0, 2.0)


def test_the_reason_names_the_files(nsd: Path) -> None:
    models = nsd.parent / "models"
    tree = Tree(nsd.parent, "nsd", nsd, models)
    job = _jobs(nsd, models)["01_data_prep_subj01"]
    _ran(job, tree)
    assert records.why(job, tree) == ""
    betas = nsd / BETAS / "betas_session01.hdf5"
    _put(betas, "others")
    again = _jobs(nsd, models)["01_data_prep_subj01"]
    assert records.why(again, tree) == f"{betas.relative_to(nsd)} changed"
    betas.unlink()
    (nsd / CAPTIONS).unlink()
    again = _jobs(nsd, models)["01_data_prep_subj01"]
    told = f"{betas.relative_to(nsd)} is gone (and 1 more)"
    assert records.why(again, tree) == told


def test_a_job_run_alone_on_old_results_is_not_current_once_they_are_new(
    nsd: Path,
) -> None:
    models = nsd.parent / "models"
    tree = Tree(nsd.parent, "nsd", nsd, models)
    for job in _jobs(nsd, models).values():
        _ran(job, tree)
    _put(nsd / BETAS / "betas_session01.hdf5", "others")
    jobs = _jobs(nsd, models)
    first, third = jobs["01_data_prep_subj01"], jobs["03_stage1_subj01"]
    _ran(third, tree)  # --only 03, on what 01 and 02 have left
    assert records.why(third, tree) == "01_data_prep_subj01 changed"
    for job in (first, jobs["02_decoding_subj01"]):
        _ran(job, tree)
    assert records.why(third, tree) == "01_data_prep_subj01 changed"
    _ran(third, tree)
    assert records.is_done(third, tree)


def test_a_changed_file_of_a_simulated_tree_makes_the_simulation_stale(
    nsd: Path,
) -> None:
    tree = Tree(nsd.parent, "smoke", nsd)
    (job,) = graph.make_plan(load_profile("smoke"), tree, {}, only=("00",)).jobs
    _ran(job, tree)
    assert records.is_done(job, tree)
    _put(nsd / BETAS / "betas_session01.hdf5", "others")
    assert records.why(job, tree) == f"{BETAS}/betas_session01.hdf5 changed"
    elsewhere = Tree(nsd.parent, "smoke", nsd.parent / "empty")
    assert "is gone" in records.why(job, elsewhere)
