"""`minddiff setup` from an empty folder, on loopback: what comes, what does not."""

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minddiff_utils.core.checkpoint import PAPERS, checkpoint_in
from minddiff_utils.datasets import part_files
from minddiff_utils.datasets.coco import Archive
from minddiff_utils.datasets.nsd import source
from minddiff_utils.models.weights import check_digests
from minddiff_utils.pipeline import commands, setup
from minddiff_utils.pipeline.cli import _parser, main
from tests import tiny_algonauts, tiny_laion_fmri
from tests.loopback import (
    MEMBERS,
    PIECE,
    SIZE,
    WRONG_ANSWERS,
    Bucket,
    Change,
    serving,
    status,
)

#: Where the repository of LAION-fMRI's makers has the splits.
_PACKAGE = "/ViCCo-Group/LAION-fMRI/04ee2883bba2684e65f16f11c7566e2463c9ddc5/laion_fmri"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the release and NSD's files beside it."""
    return tiny_algonauts.write(tmp_path_factory.mktemp("all of it") / "algonauts")


@pytest.fixture
def bucket(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    release: Path,
) -> Iterator[Bucket]:
    """Serve NSD's files, the captions and the models; the release is there by hand."""
    with serving(tmp_path, monkeypatch, rng) as bucket:
        for path in sorted(release.glob("nsddata*/**/*.*")):
            bucket.serve(path.relative_to(release).as_posix(), path.read_bytes())
        shutil.copytree(release / "subj05", bucket.root / "subj05")
        packed = bucket.server.archive = _packed(release)
        digest = hashlib.sha256(packed).hexdigest()
        coco = f"{bucket.server.address}/coco.zip"
        archive = Archive(coco, len(packed), digest)
        monkeypatch.setitem(source.downloads.__kwdefaults__, "archive", archive)
        pins = tuple(replace(pin, digests={}) for pin in setup.PINNED)
        monkeypatch.setattr(setup, "PINNED", pins)
        for pin in pins:
            for name in pin.files:
                where = f"/{pin.repository}/resolve/{pin.revision}/{name}"
                size = SIZE if name.endswith("safetensors") else 90
                bucket.server.hub[where] = rng.bytes(size), size == SIZE
        models(bucket).parent.mkdir(parents=True)
        monkeypatch.setattr(setup, "run_notebooks", lambda _: None)
        monkeypatch.setattr(setup, "show_plan", lambda _: None)  # seconds
        yield bucket


def _packed(release: Path) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for member in MEMBERS:
            path = release / member
            file.writestr(f"annotations/{path.name}", path.read_bytes())
    return buffer.getvalue()


def models(bucket: Bucket) -> Path:
    return bucket.root.parent / "project" / "data" / "models" / "sd14"


def command(bucket: Bucket, *more: str, agreed: bool = True) -> int:
    where = bucket.server.address
    words = ["setup", str(bucket.root), "--profile", "algonauts", "--subjects", "5"]
    words += ["--endpoint", where, "--models-from", where, "--jobs", "1"]
    return main([*words, *(["--agreement-signed"] if agreed else []), *more])


def brought(bucket: Bucket) -> list[str]:
    """Return what lies in the folders of data and models, but for the release."""
    folders = bucket.root, models(bucket)
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    return [p.name for p in files if "subj05" not in p.parts or "ncsnr" in p.name]


# --- what comes -----------------------------------------------------------------------


def test_all_comes_through_broken_connections_and_only_once(
    bucket: Bucket,
    release: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(setup, "show_plan", commands.show_plan)
    bucket.server.cuts = [PIECE] * 4
    assert command(bucket) == 0
    said = capsys.readouterr().out
    assert "CreativeML OpenRAIL-M" in said
    assert "minddiff setup PATH --profile algonauts --dry-run" in said  # of the plan
    assert "./run_all.sh --profile algonauts --rehearse" in said
    assert said.rstrip().endswith(f"--subjects 5 --nsd-root {bucket.root}")
    for path in release.glob("nsddata*/**/*.*"):
        here = bucket.root / path.relative_to(release)
        assert here.read_bytes() == path.read_bytes()
    for where, (data, _) in bucket.server.hub.items():
        repository, _, name = where.partition("/resolve/")
        (pin,) = (p for p in setup.PINNED if repository == f"/{p.repository}")
        own = models(bucket) / pin.target / name.partition("/")[2]
        assert own.read_bytes() == data
    assert checkpoint_in(models(bucket)) == PAPERS
    check_digests(models(bucket))
    assert not list(bucket.root.rglob(".*.part"))
    n_gets = len(bucket.server.gets())
    assert command(bucket) == 0
    assert len(bucket.server.gets()) == n_gets


def test_what_no_server_gives_is_said_and_all_else_comes(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(bucket.root / "subj05")
    assert command(bucket) == 1
    found = capsys.readouterr()
    assert "subj05 of the release comes by hand" in found.out
    assert "https://algonauts.csail.mit.edu/challenge.html" in found.out
    assert found.err.startswith("Not ready yet (data, check): do what is said above")
    assert found.err.count("\n") == 1
    assert (models(bucket) / "SHA256SUMS").is_file()
    assert {"nsd_expdesign.mat", "lh.Kastner2015.mgz"} < set(brought(bucket))


def test_a_dry_run_lists_sizes_and_commands_that_can_be_given_by_hand(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(bucket, "--dry-run", agreed=False) == 0
    said = capsys.readouterr().out
    assert brought(bucket) == []
    assert bucket.server.gets() == []
    assert re.search(rf"64\.00 kB  to fetch +{UNET} ", said)
    for name in ("nsd_stim_info_merged.csv", "annotations_trainval2017.zip"):
        assert name in said
    commands = re.findall(r"by hand: (minddiff .+)$", said, re.M)
    assert [line.split()[1] for line in commands] == ["fetch", "check", "plan"]
    for line in commands:
        _parser().parse_args(shlex.split(line)[1:])
    assert "python -m minddiff_utils.models.downloads" in said


def test_a_stable_diffusion_of_the_user_s_own_is_left_as_it_is(bucket: Bucket) -> None:
    folder = models(bucket)
    (folder / "unet").mkdir(parents=True)
    (folder / UNET).write_bytes(b"mine")
    assert command(bucket) == 0
    assert (folder / UNET).read_bytes() == b"mine"
    assert not (folder / "vae").exists()
    assert (folder / "clip" / "open_clip_model.safetensors").is_file()


def test_a_model_that_has_changed_since_is_said(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(bucket) == 0
    (models(bucket) / UNET).write_bytes(b"another")
    assert command(bucket) == 1
    found = capsys.readouterr()
    assert "the file is damaged or was changed" in found.out
    assert "(models)" in found.err


def test_the_rehearsal_begins_when_all_else_is_there(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = list[str]()

    def note(args: object) -> None:
        done.append("rehearsal" if getattr(args, "rehearse", False) else "other")

    monkeypatch.setattr(setup, "run_notebooks", note)
    monkeypatch.setattr(setup, "check_data", note)
    monkeypatch.setattr(setup, "show_plan", note)
    words = ["--profile", "nsd", "--subjects", "1", "--set", "data.sessions=1"]
    assert command(bucket, *words) == 1  # betas and stimuli are not served
    assert done == ["other", "other"]
    monkeypatch.setattr(setup, "bring", lambda *_: None)
    assert command(bucket, *words) == 0
    assert done == ["other", "other"] * 2 + ["rehearsal"]
    assert "./run_all.sh --profile nsd --rehearse" in capsys.readouterr().out


@pytest.fixture(scope="module")
def laion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the folder of LAION-fMRI."""
    return tiny_laion_fmri.write(tmp_path_factory.mktemp("all of laion") / "folder")


def test_open_data_need_no_agreement_and_their_images_come_by_hand(
    bucket: Bucket,
    laion: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gated = ("task-images_stimuli.h5", "task-images_metadata.csv")
    for path in (p for p in laion.rglob("*.*") if p.is_file() and p.name not in gated):
        key = path.relative_to(laion).as_posix()
        if key.startswith("splits/"):  # as the package of its makers has them
            key = f"{_PACKAGE}/{key.replace('splits/', 'splits/data/')}"
        bucket.serve(key, path.read_bytes())
    monkeypatch.setattr("sys.stdin", None)  # nobody is asked
    words = ["--profile", "laion_fmri", "--subjects", "3", "--set", "data.sessions=3"]
    assert command(bucket, *words, agreed=False) == 1
    found = capsys.readouterr()
    assert "https://laion-fmri.hebartlab.com/request" in found.out
    assert "(data, check)" in found.err
    for name in gated:
        shutil.copy(laion / "stimuli" / name, bucket.root / "stimuli")
    assert command(bucket, *words, agreed=False) == 0
    names = {p.name for p in bucket.root.rglob("*") if p.is_file()}
    assert {"tau.json", *gated} < names
    assert "random_0.json" not in names  # of the splits the profile's alone
    assert "./run_all.sh --profile laion_fmri --rehearse" in capsys.readouterr().out


# --- what does not --------------------------------------------------------------------


@WRONG_ANSWERS
def test_wrong_answers_get_no_name_and_the_next_run_mends_it(
    bucket: Bucket, capsys: pytest.CaptureFixture[str], change: Change, says: str
) -> None:
    bucket.server.changes["GET"] = change
    assert command(bucket) == 1
    found = capsys.readouterr()
    assert says in found.out
    assert "(data, models, check)" in found.err
    kept = set(brought(bucket))
    assert not any(name.endswith((".safetensors", ".mgz", ".csv")) for name in kept)
    assert not (models(bucket) / "SHA256SUMS").exists()
    bucket.server.changes.clear()
    assert command(bucket) == 0


@pytest.mark.parametrize("number", [401, 403, 404])
def test_a_closed_bucket_is_said_with_what_to_do_by_hand(
    bucket: Bucket, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    bucket.server.changes["HEAD"] = status(number)
    assert command(bucket) == 1
    said = capsys.readouterr().out
    words = "is missing at" if number == 404 else "is not open to the public at"
    assert f"nsd_stim_info_merged.csv {words}" in said
    assert "hf download CompVis/stable-diffusion-v1-4" in said
    assert "put the file into place by hand" in said
    assert not (models(bucket) / "SHA256SUMS").exists()


def test_a_server_that_does_not_answer_is_one_sentence_each(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    away = ["--endpoint", "http://127.0.0.1:9", "--models-from", "http://127.0.0.1:9"]
    assert command(bucket, *away) == 1
    found = capsys.readouterr()
    assert found.out.count("The server does not answer about") == 2
    assert found.err.startswith("Not ready yet")


def test_a_full_disk_is_said_before_anything_is_begun(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage("/")._replace(free=PIECE)
    monkeypatch.setattr(part_files.shutil, "disk_usage", lambda _: usage)
    assert command(bucket) == 1
    assert "are free there" in capsys.readouterr().err
    assert bucket.server.gets() == []
    assert brought(bucket) == []


@pytest.mark.parametrize("answer", ["no", "", "perhaps"])
def test_without_a_yes_nothing_is_brought(
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
) -> None:
    asked = list[str]()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert command(bucket, agreed=False) == 1
    assert len(asked) == 1
    assert "is not signed" in capsys.readouterr().err
    assert bucket.server.seen == []
    assert brought(bucket) == []


def test_without_a_terminal_nothing_is_brought(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert command(bucket, agreed=False) == 1
    said = capsys.readouterr().err
    assert "--agreement-signed" in said
    assert said.count("\n") == 1
    assert bucket.server.seen == []


def test_a_profile_that_simulates_needs_no_set_up(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(bucket, "--profile", "demo") == 1
    assert "./run_all.sh --profile demo" in capsys.readouterr().err
