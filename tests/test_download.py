"""What is fetched equals the server's, cut off anywhere; what does not is refused.

The server is that of `loopback`.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minddiff_utils.core.errors import ConfigError, DataError, StoreError
from minddiff_utils.datasets import coco as coco_files
from minddiff_utils.datasets import download, part_files, transfer
from minddiff_utils.datasets.digits69 import reader as digits69
from minddiff_utils.datasets.download import (
    Outcome,
    confirm_agreement,
    plan_download,
    progress_bar,
)
from minddiff_utils.datasets.inventory import DataFile
from minddiff_utils.datasets.nsd import source
from minddiff_utils.datasets.nsd.layout import inventory
from minddiff_utils.datasets.transfer import Download
from minddiff_utils.pipeline.cli import main
from tests.loopback import (
    ANNOTATIONS,
    MEMBERS,
    NAMES,
    PIECE,
    SIZE,
    Answer,
    Bucket,
    Change,
    Headers,
    a_page,
    left,
    pack,
    serving,
    shorter,
    status,
    wrong_bytes,
)


def needed(*sessions: int) -> list[DataFile]:
    """Return the files that a run of subject 1 cannot do without."""
    files = inventory({1: sessions})
    return [f for f in files if not f.optional and f.kind != "captions"]


@pytest.fixture
def bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> Iterator[Bucket]:
    """Give an empty bucket on loopback."""
    with serving(tmp_path, monkeypatch, rng) as bucket:
        yield bucket


# --- fetching -----------------------------------------------------------------------


def test_a_run_s_files_are_fetched_byte_for_byte_and_only_once(
    bucket: Bucket, rng: np.random.Generator
) -> None:
    for file in needed(1, 2):
        bucket.put(file.path, int(rng.integers(1, 5000)))
    bucket.put("nsddata/empty.txt", 0)
    plan, told = bucket.plan(), list[int]()
    total = sum(map(len, bucket.files.values()))
    assert plan.n_left == total
    outcome = download.download(plan, n_workers=4, on_progress=told.append)
    assert outcome == Outcome(9, 0, (), ())
    outcome.check()
    bucket.check()
    assert sum(told) == total
    n_gets = len(bucket.server.gets())
    assert bucket.plan().n_left == 0
    assert bucket.fetch() == Outcome(0, 9, (), ())
    assert len(bucket.server.gets()) == n_gets


def test_a_broken_connection_costs_only_what_was_not_received(bucket: Bucket) -> None:
    bucket.put("betas.hdf5")
    bucket.server.cuts = [20 * PIECE + 100, 3 * PIECE]
    told = list[int]()
    download.download(bucket.plan(), on_progress=told.append).check()
    bucket.check()
    first = 20 * PIECE + 100
    starts = [0, first, first + 3 * PIECE]
    assert [s for s, _ in bucket.server.gets()] == [f"bytes={n}-" for n in starts]
    assert sum(n for _, n in bucket.server.gets()) == SIZE  # nothing came twice
    assert sum(told) == SIZE


def test_a_second_run_goes_on_where_the_first_was_given_up(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_N_TRIES", 2)
    bucket.put("betas.hdf5")
    bucket.put("other.hdf5", 10)
    bucket.server.cuts = [10 * PIECE, 10 * PIECE]
    outcome = bucket.fetch()
    assert [outcome.n_fetched, len(outcome.problems)] == [1, 1]
    assert outcome.problems[0].startswith("betas.hdf5 was not fetched")
    with pytest.raises(DataError, match="1 files are missing"):
        outcome.check()
    assert not bucket.path("betas.hdf5").exists()
    plan = bucket.plan()
    assert plan.n_left == SIZE - 20 * PIECE
    with progress_bar(plan) as tell:
        assert download.download(plan, on_progress=tell) == Outcome(1, 1, (), ())
    bucket.check()
    assert bucket.server.gets()[-1] == (f"bytes={20 * PIECE}-", SIZE - 20 * PIECE)


def test_an_object_that_changes_under_way_starts_anew(bucket: Bucket) -> None:
    bucket.put("betas.hdf5")
    plan, told = bucket.plan(), list[int]()
    bucket.server.cuts = [10 * PIECE]

    def tell(n: int) -> None:
        told.append(n)
        if len(told) == 5:  # after 5 of the first 10 pieces
            bucket.put("betas.hdf5", SIZE + 7)

    download.download(plan, on_progress=tell).check()
    bucket.check()
    assert sum(told) == SIZE + 7
    assert min(told) == -10 * PIECE  # thrown away


@pytest.mark.parametrize("n_first", [10 * PIECE, SIZE], ids=["begun", "complete"])
def test_an_object_that_changes_between_runs_is_fetched_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, n_first: int
) -> None:
    monkeypatch.setattr(transfer, "_N_TRIES", 1)
    bucket.put("betas.hdf5")
    bucket.server.cuts = [n_first]
    bucket.fetch()
    bucket.put("betas.hdf5")
    assert bucket.fetch() == Outcome(1, 0, (), ())
    bucket.check()
    assert bucket.server.gets()[-1] == ("bytes=0-", SIZE)


def test_a_mirror_without_ranges_sends_the_whole_again(bucket: Bucket) -> None:
    bucket.server.has_ranges = False
    bucket.put("betas.hdf5")
    bucket.server.cuts = [10 * PIECE]
    told = list[int]()
    download.download(bucket.plan(), on_progress=told.append).check()
    bucket.check()
    assert [n for _, n in bucket.server.gets()] == [10 * PIECE, SIZE]
    assert sum(told) == SIZE


def test_a_file_put_there_by_other_means_is_checked_not_fetched(bucket: Bucket) -> None:
    bucket.put("good.hdf5")
    bucket.put("bad.hdf5")
    bucket.root.mkdir()
    bucket.path("good.hdf5").write_bytes(bucket.files["good.hdf5"])
    bucket.path("bad.hdf5").write_bytes(bytes(SIZE))
    assert [item.state for item in bucket.plan().items] == ["unverified"] * 2
    assert bucket.fetch() == Outcome(1, 1, (), ())
    bucket.check()
    assert [n for _, n in bucket.server.gets()] == [SIZE]


def test_no_password_of_the_account_goes_out(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password mine\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    bucket.put("a.mat", 10)
    bucket.fetch().check()
    assert set(bucket.server.passwords) == {None}


# --- what is refused ----------------------------------------------------------------


def other_total(status: int, headers: Headers, body: bytes) -> Answer:
    stated = {"Content-Range": f"bytes 0-{len(body) - 1}/{len(body) + 1}"}
    return status, headers | stated, body


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (wrong_bytes, "other bytes than its"),
        (shorter, "another size"),
        (other_total, "another size"),
        (a_page, "another size"),
        (status(403), "HTTP status 403"),
        (status(503), "HTTP status 503"),
    ],
    ids=["bytes", "shorter", "total", "page", "403", "503"],
)
@pytest.mark.parametrize("is_archive", [False, True])
def test_wrong_answers_never_get_the_file_s_name(
    bucket: Bucket,
    coco: coco_files.Archive,
    change: Change,
    says: str,
    is_archive: bool,
) -> None:
    def fetch() -> Outcome:
        if not is_archive:
            return bucket.fetch()
        files = captions(bucket, coco)
        return download.download(plan_download(files, bucket.root))

    if not is_archive:
        bucket.put("betas.hdf5")
    bucket.server.changes["GET"] = change
    (problem,) = fetch().problems
    assert problem.startswith(f"{ANNOTATIONS}/" if is_archive else "betas.hdf5")
    assert says in problem
    assert problem.endswith(".")
    assert "\n" not in problem
    left = [p for p in bucket.root.rglob("*") if p.is_file() and p.stat().st_size]
    assert left == []
    bucket.server.changes.clear()
    assert fetch() == Outcome(1, 0, (), ())
    bucket.check()


def test_a_missing_object_is_named_and_the_others_come(bucket: Bucket) -> None:
    bucket.put("there.mat", 100)
    files = [bucket.want(key) for key in ("gone.mat", "there.mat")]
    files.append(bucket.want("spare.mgz", optional=True))
    plan = plan_download(files, bucket.root)
    assert [text.split()[0] for text in plan.problems] == ["gone.mat"]
    assert [text.split()[0] for text in plan.notices] == ["spare.mgz"]
    outcome = download.download(plan)
    assert outcome.n_fetched == 1
    assert outcome.problems == plan.problems
    bucket.check()


@pytest.mark.parametrize("place", ["../out", "/out", "a/../../out", "a\\..\\out", "."])
def test_a_place_outside_the_root_is_refused(bucket: Bucket, place: str) -> None:
    with pytest.raises(DataError, match="outside of"):
        plan_download([bucket.want(place)], bucket.root)


def test_a_server_that_is_not_there_is_one_sentence(bucket: Bucket) -> None:
    nobody = replace(bucket.want("a.mat"), url="http://127.0.0.1:9/a.mat")
    with pytest.raises(DataError, match="does not answer about a") as caught:
        plan_download([nobody], bucket.root)
    assert "\n" not in str(caught.value)
    assert "Connection refused)" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "ftp://host/a", "file:///etc/passwd", "no address"]
)
def test_an_address_that_is_none_of_the_web_is_refused(
    bucket: Bucket, url: str
) -> None:
    with pytest.raises(ConfigError, match="is no address of the web: give one"):
        plan_download([replace(bucket.want("a.mat"), url=url)], bucket.root)


# --- objects uploaded in parts ------------------------------------------------------


def test_an_object_of_parts_is_checked_by_its_parts(bucket: Bucket) -> None:
    bucket.put("b.hdf5", part_size=10_000)
    bucket.server.changes["GET"] = wrong_bytes
    assert "other bytes than its ETag" in bucket.fetch().problems[0]
    bucket.server.changes.clear()
    assert bucket.fetch() == Outcome(1, 0, (), ())
    bucket.check()


def test_where_nobody_tells_the_size_of_parts_a_file_is_known_by_size_alone(
    bucket: Bucket,
) -> None:
    data = bucket.put("odd.hdf5", part_size=10_000)
    bucket.server.objects["odd.hdf5"] = data, bucket.server.objects["odd.hdf5"][1], 0
    assert bucket.fetch() == Outcome(1, 0, ("odd.hdf5",), ())
    bucket.check()


# --- captions: members of an archive ------------------------------------------------


@pytest.fixture
def coco(bucket: Bucket) -> coco_files.Archive:
    """Give the server's archive as it would be published."""
    data = bucket.server.archive
    digest = hashlib.sha256(data).hexdigest()
    return coco_files.Archive(f"{bucket.server.address}/coco.zip", len(data), digest)


def captions(bucket: Bucket, coco: coco_files.Archive) -> tuple[Download, ...]:
    files = [file for file in inventory({}) if file.kind == "captions"]
    return source.downloads(files, bucket.root, archive=coco)


def test_the_archive_is_the_published_one() -> None:
    """Size and SHA-256 as in the lists of several public projects."""
    archive = coco_files.ARCHIVE
    assert (archive.size, archive.sha256[:8]) == (252_907_541, "113a836d")


def test_two_captions_come_and_the_archive_goes(
    bucket: Bucket, coco: coco_files.Archive
) -> None:
    (wanted,) = captions(bucket, coco)
    assert "CC BY 4.0" in wanted.reason
    plan = plan_download([wanted], bucket.root)
    assert download.download(plan) == Outcome(1, 0, (), ())
    assert left(bucket.root) == list(NAMES)
    assert bucket.path(MEMBERS[1]).read_text("utf-8").count(NAMES[1]) == 50
    assert captions(bucket, coco) == ()


def test_captions_that_are_there_are_left_as_they_are(
    bucket: Bucket, coco: coco_files.Archive
) -> None:
    own = bucket.path(MEMBERS[0])
    own.parent.mkdir(parents=True)
    own.write_text("mine", encoding="utf-8")
    download.download(plan_download(captions(bucket, coco), bucket.root)).check()
    assert own.read_text("utf-8") == "mine"
    assert left(bucket.root) == list(NAMES)


def test_an_archive_that_a_user_has_brought_is_unpacked_and_kept(
    bucket: Bucket, coco: coco_files.Archive
) -> None:
    own = bucket.path(f"{ANNOTATIONS}/annotations_trainval2017.zip")
    own.parent.mkdir(parents=True)
    own.write_bytes(bucket.server.archive)
    for _ in range(2):  # the second time it is known already
        download.download(plan_download(captions(bucket, coco), bucket.root)).check()
        assert left(bucket.root) == [own.name, *NAMES]
        bucket.path(MEMBERS[0]).unlink()
    assert bucket.server.gets() == []


def test_an_archive_without_the_files_or_a_full_disk_is_said(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = bucket.server.archive = pack(NAMES[:1])
    digest = hashlib.sha256(data).hexdigest()
    archive = coco_files.Archive(f"{bucket.server.address}/coco.zip", len(data), digest)
    (problem,) = download.download(
        plan_download(captions(bucket, archive), bucket.root)
    ).problems
    for words in (NAMES[1], ANNOTATIONS, archive.url, "unpack"):
        assert words in problem
    assert left(bucket.root) == [NAMES[0]]  # it is whole
    bucket.path(MEMBERS[0]).unlink()
    monkeypatch.setattr(transfer.shutil, "copyfileobj", full)
    plan = plan_download(captions(bucket, archive), bucket.root)
    assert "No space left" in download.download(plan).problems[0]
    assert left(bucket.root) == []


# --- the agreement ------------------------------------------------------------------


@pytest.mark.parametrize("answer", [" Yes\n", "", "no", "yesterday"])
def test_the_agreement_is_asked_once_and_only_yes_goes_on(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    asked = list[str]()

    def ask(question: str) -> str:
        asked.append(question)
        return answer

    if answer == " Yes\n":
        confirm_agreement(source.AGREEMENT, ask, agreed=False)
    else:
        with pytest.raises(ConfigError, match="is not signed"):
            confirm_agreement(source.AGREEMENT, ask, agreed=False)
    (question,) = asked
    assert "signed NSD's data access agreement?" in question
    assert "https://naturalscenesdataset.org" in question


def test_without_a_terminal_only_the_flag_agrees(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    confirm_agreement(source.AGREEMENT, pytest.fail, agreed=True)
    assert _command(bucket) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--agreement-signed" in said
    assert not bucket.root.exists()


# --- the command --------------------------------------------------------------------


def _command(bucket: Bucket, *more: str) -> int:
    small = ["--subjects", "1", "--set", "data.sessions=1"]
    address = ["--endpoint", bucket.server.address]
    return main(["fetch", str(bucket.root), *small, *address, *more])


def test_the_command_lists_first_and_then_brings_every_needed_file(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in needed(1):
        bucket.put(file.path, 50)
    assert _command(bucket, "--dry-run") == 0
    assert not bucket.root.exists()
    said = capsys.readouterr().out
    assert "betas_session01.hdf5" in said
    assert "CC BY 4.0" in said  # the terms of the captions
    nobody = ["--captions-from", "http://127.0.0.1:9/annotations_trainval2017.zip"]
    assert _command(bucket, "--agreement-signed", *nobody) == 1
    said = capsys.readouterr().out
    assert "unpack captions_train2017.json and captions_val2017.json" in said
    assert left(bucket.root / "nsddata_betas")
    bucket.path(ANNOTATIONS).mkdir(parents=True, exist_ok=True)
    for member in MEMBERS:
        bucket.path(member).write_text("{}", encoding="utf-8")
    assert _command(bucket, "--agreement-signed") == 0
    shutil.rmtree(bucket.path(ANNOTATIONS))
    bucket.check()


# --- a data set of one file -----------------------------------------------------------

DIGITS = "digit69_28x28.mat"


@pytest.fixture
def digits(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Give the server a file at the pinned address, and let it be the known one."""
    data = bucket.rng.bytes(SIZE)
    key = f"/ChangdeDu/DGMM/{digits69.COMMIT}/{DIGITS}"
    bucket.server.objects[key] = data, "an ETag that says nothing", 0
    monkeypatch.setattr(digits69, "SIZE", SIZE)
    monkeypatch.setattr(digits69, "SHA256", hashlib.sha256(data).hexdigest())
    return data


def _fetch_digits(bucket: Bucket, *more: str) -> int:
    where = ["--profile", "digits69", "--endpoint", bucket.server.address]
    return main(["fetch", str(bucket.root), *where, *more])


def test_the_digits_are_pinned_by_commit_size_and_digest() -> None:
    (file,) = digits69.downloads(Path("data"))
    address = "https://raw.githubusercontent.com/ChangdeDu/DGMM/684daf6eb531cfc"
    assert file.url.startswith(address)
    assert file.url.endswith(f"/{DIGITS}")
    assert (file.path, file.size) == (DIGITS, 2_390_173)
    assert file.sha256.startswith("44513e09ad2398566aedd550088b817a")


def test_the_digits_come_once_their_terms_are_accepted(
    bucket: Bucket, digits: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fetch_digits(bucket, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "DSC_2018.00112_485" in said
    assert "64.00 kB to download" in said
    assert _fetch_digits(bucket) == 1  # nobody is at a terminal
    said = capsys.readouterr().err
    assert "Donders Repository" in said
    assert "--agreement-signed" in said
    assert bucket.server.gets() == []
    assert not bucket.root.exists()
    bucket.server.cuts = [10 * PIECE]  # a connection that breaks
    assert _fetch_digits(bucket, "--agreement-signed") == 0
    assert bucket.path(DIGITS).read_bytes() == digits
    assert left(bucket.root) == [DIGITS]
    assert [n for _, n in bucket.server.gets()] == [10 * PIECE, SIZE - 10 * PIECE]
    assert _fetch_digits(bucket, "--agreement-signed") == 0
    assert len(bucket.server.gets()) == 2  # it is there


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_the_terms_of_the_digits_are_shown_before_the_question(
    bucket: Bucket, digits: bytes, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    asked = list[str]()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert _fetch_digits(bucket) == (0 if answer == "yes" else 1)
    assert bucket.path(DIGITS).exists() == (answer == "yes")
    (question,) = asked
    for words in ("without a licence", "pass it on to", "van Gerven", "DGMM"):
        assert words in question


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (wrong_bytes, "other bytes than its SHA-256"),
        (shorter, "another size"),
        (a_page, "another size"),
        (status(403), "HTTP status 403"),
        (status(404), "HTTP status 404"),
        (status(503), "HTTP status 503"),
    ],
    ids=["bytes", "shorter", "page", "403", "404", "503"],
)
def test_other_bytes_than_the_digits_never_get_their_name(
    bucket: Bucket,
    digits: bytes,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    says: str,
) -> None:
    bucket.server.changes["GET"] = change
    assert _fetch_digits(bucket, "--agreement-signed") == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(DIGITS)
    assert says in said
    if change is not wrong_bytes:  # by hand instead
        assert "https://github.com/ChangdeDu/DGMM" in said
        assert str(bucket.root) in said
    found = [p for p in bucket.root.rglob("*") if p.is_file() and p.stat().st_size]
    assert found == []
    bucket.server.changes.clear()
    assert _fetch_digits(bucket, "--agreement-signed") == 0
    assert bucket.path(DIGITS).read_bytes() == digits


def test_a_disk_that_is_full_is_said_before_the_digits_are_begun(
    bucket: Bucket,
    digits: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage("/")._replace(free=SIZE - 1)
    monkeypatch.setattr(part_files.shutil, "disk_usage", lambda _: usage)
    assert _fetch_digits(bucket, "--agreement-signed") == 1
    assert "are free there" in capsys.readouterr().err
    assert bucket.server.gets() == []
    assert not bucket.root.exists()


def test_an_own_copy_of_the_digits_is_verified_not_fetched(
    bucket: Bucket, digits: bytes
) -> None:
    bucket.root.mkdir()
    bucket.path(DIGITS).write_bytes(digits)
    assert _fetch_digits(bucket, "--agreement-signed") == 0
    assert bucket.server.gets() == []


# --- disks ----------------------------------------------------------------------------


def _disks(monkeypatch: pytest.MonkeyPatch, other: Path, free: dict[str, int]) -> None:
    """Let `other` be another disk than the rest."""
    stat, usage = Path.stat, shutil.disk_usage

    def is_other(path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(other)

    def stated(self: Path, **more: Any) -> Any:
        found = stat(self, **more)
        if not is_other(self):
            return found
        return SimpleNamespace(
            **{k: getattr(found, k) for k in dir(found) if k[:3] == "st_"}
            | {"st_dev": -1}
        )

    def used(path: Path) -> Any:
        name = "other" if is_other(Path(path)) else "root"
        return usage("/")._replace(free=free[name])

    monkeypatch.setattr(part_files.Path, "stat", stated)
    monkeypatch.setattr(part_files.shutil, "disk_usage", used)


@pytest.mark.parametrize(
    ("free", "named"),
    [
        ({"root": SIZE - 1, "other": 9 * SIZE}, "nsd"),
        ({"root": 9 * SIZE, "other": 2 * SIZE - 1}, "nsd/nsddata_betas"),
        ({"root": SIZE, "other": 2 * SIZE}, None),
    ],
)
def test_free_space_is_counted_on_each_disk(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: dict[str, int],
    named: str | None,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    bucket.root.mkdir()
    bucket.path("nsddata_betas").symlink_to(tmp_path / "elsewhere")
    for key in ("small.mat", "nsddata_betas/a.hdf5", "nsddata_betas/b.hdf5"):
        bucket.put(key)
    with monkeypatch.context() as patch:
        _disks(patch, tmp_path / "elsewhere", free)
        plan = bucket.plan()
        if named is not None:
            with pytest.raises(StoreError, match="are free there") as error:
                plan.check_space()
            assert f"/{named}, but" in str(error.value)
            return
        plan.check_space()
    bucket.fetch().check()
    linked = (tmp_path / "elsewhere" / "a.hdf5").read_bytes()
    assert linked == bucket.files["nsddata_betas/a.hdf5"]


def test_a_link_to_nothing_or_to_a_disk_that_takes_no_writing_is_said(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket.put("nsddata/a.mat")
    bucket.root.mkdir()
    bucket.path("nsddata").symlink_to(tmp_path / "absent")
    with pytest.raises(StoreError, match="nsddata is a link to nothing"):
        bucket.fetch()
    (tmp_path / "absent").mkdir()
    monkeypatch.setattr(part_files.os, "access", lambda *_: False)
    with pytest.raises(StoreError, match="nsddata cannot be written"):
        bucket.fetch()
    assert not [p for p in tmp_path.rglob("*.part")]


def test_a_folder_of_in_silico_data_gets_no_real_file(bucket: Bucket) -> None:
    bucket.put("a.mat")
    bucket.root.mkdir()
    (bucket.root / "IN_SILICO.txt").write_text("mark", encoding="utf-8")
    with pytest.raises(DataError, match="holds in-silico data"):
        bucket.fetch()
    assert [p.name for p in bucket.root.iterdir()] == ["IN_SILICO.txt"]


def test_nothing_of_ours_is_left_among_the_data_and_the_records_may_be_lost(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("a.mat")
    bucket.fetch().check()
    assert [p.name for p in bucket.root.rglob("*")] == ["a.mat"]
    assert bucket.plan().items[0].state == "complete"
    shutil.rmtree(tmp_path / "project")
    assert bucket.plan().items[0].state == "unverified"
    bucket.fetch().check()
    assert bucket.plan().items[0].state == "complete"
    assert len(bucket.server.gets()) == 1  # compared, not fetched again
