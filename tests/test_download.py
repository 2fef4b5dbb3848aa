"""What is fetched equals the bucket, cut off anywhere; what does not is refused.

The bucket is a moto S3 server on loopback with random bytes under NSD's names. `Relay`
stands between it and the client, cuts answers off and changes them.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any

import boto3
import moto.s3.models
import numpy as np
import pytest
from botocore.exceptions import ConnectionError as NoConnectionError
from moto.server import ThreadedMotoServer

from minddiff_utils.core.errors import ConfigError, DataError, StoreError
from minddiff_utils.datasets import download, part_files
from minddiff_utils.datasets.bucket import BUCKET, confirm_agreement, make_client
from minddiff_utils.datasets.download import (
    DownloadPlan,
    Outcome,
    plan_download,
    progress_bar,
)
from minddiff_utils.datasets.nsd.layout import NsdFile, inventory
from minddiff_utils.pipeline.cli import main

SIZE = 64_000  # bytes of an object
PIECE = 1024  # bytes read at once here

Headers = dict[str, str]
Change = Callable[[int, Headers, bytes], tuple[int, Headers, bytes]]


# --- the bucket, and what goes wrong on the way -------------------------------------


class Handler(BaseHTTPRequestHandler):
    server: "Relay"

    def do_HEAD(self) -> None:
        self.pass_on()

    def do_GET(self) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        relay, method = self.server, self.command
        link = HTTPConnection("127.0.0.1", relay.target)
        kept = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        link.request(method, self.path, headers=kept)
        answer = link.getresponse()
        status, headers, body = answer.status, dict(answer.getheaders()), answer.read()
        link.close()
        change = relay.changes.get(method)
        if change is not None and status < 300:
            status, headers, body = change(status, headers, body)
        with relay.lock:
            cut = relay.cuts.pop(0) if method == "GET" and relay.cuts else len(body)
            start = str(self.headers.get("Range"))
            relay.seen.append((method, self.path, start, min(cut, len(body))))
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Relay(ThreadingHTTPServer):
    """Passes requests on to `target`; cuts bodies off after `cuts` bytes, in order."""

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.lock = target, Lock()
        self.cuts: list[int] = []
        self.changes: dict[str, Change] = {}
        self.seen: list[tuple[str, str, str, int]] = []

    def gets(self) -> list[tuple[str, int]]:
        """Return range and bytes sent of each GET."""
        return [(start, n) for method, _, start, n in self.seen if method == "GET"]


@dataclass
class Bucket:
    """A bucket with an anonymous client by way of the relay, and a folder."""

    owner: Any
    client: Any
    relay: Relay
    root: Path
    rng: np.random.Generator
    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, key: str, size: int = SIZE) -> bytes:
        data = self.rng.bytes(size)
        self.owner.put_object(Bucket=BUCKET, Key=key, Body=data, ACL="public-read")
        self.files[key] = data
        return data

    def plan(self) -> DownloadPlan:
        return plan_download(self.client, [want(key) for key in self.files], self.root)

    def fetch(self, n_workers: int = 1) -> Outcome:
        return download.download(self.plan(), n_workers=n_workers)

    def path(self, key: str) -> Path:
        return self.root / key

    def check(self) -> None:
        """Every file is there, byte for byte, and no part is left."""
        for key, data in self.files.items():
            assert self.path(key).read_bytes() == data
        assert not [p for p in self.root.rglob(".*") if p.is_file()]


def want(path: str, *, optional: bool = False) -> NsdFile:
    return NsdFile("any", path, "a test", optional=optional)


def needed(*sessions: int) -> list[NsdFile]:
    """Return the files that a run of subject 1 cannot do without."""
    files = inventory({1: sessions})
    return [f for f in files if not f.optional and f.kind != "captions"]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, Any]]:
    """Give the port of an S3 server on loopback and a client that owns the bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    secret = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    address = f"http://127.0.0.1:{port}"
    owner = boto3.client("s3", "us-east-2", endpoint_url=address, **secret)
    where: Any = {"LocationConstraint": "us-east-2"}
    owner.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    yield port, owner
    owner.close()
    server.stop()
    assert server._server is not None
    server._server.server_close()


@pytest.fixture
def bucket(
    server: tuple[int, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
) -> Iterator[Bucket]:
    """Give an empty bucket and a relay before it; nothing waits, pieces are small."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path / "project"))  # keeps the ETags
    monkeypatch.setattr(download, "_CHUNK", PIECE)
    monkeypatch.setattr(download, "_FIRST_WAIT", 0.0)
    port, owner = server
    relay = Relay(port)
    thread = Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    client = make_client(f"http://127.0.0.1:{relay.server_port}")
    given = Bucket(owner, client, relay, tmp_path / "nsd", rng)
    yield given
    relay.shutdown()
    thread.join()
    relay.server_close()
    client.close()
    for key in given.files:
        owner.delete_object(Bucket=BUCKET, Key=key)


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
    n_gets = len(bucket.relay.gets())
    assert bucket.plan().n_left == 0
    assert bucket.fetch() == Outcome(0, 9, (), ())
    assert len(bucket.relay.gets()) == n_gets


def test_a_broken_connection_costs_only_what_was_not_received(bucket: Bucket) -> None:
    bucket.put("betas.hdf5")
    bucket.relay.cuts = [20 * PIECE + 100, 3 * PIECE]
    told = list[int]()
    download.download(bucket.plan(), on_progress=told.append).check()
    bucket.check()
    starts = [start for start, _ in bucket.relay.gets()]
    first = 20 * PIECE + 100
    assert starts == ["bytes=0-", f"bytes={first}-", f"bytes={first + 3 * PIECE}-"]
    assert sum(n for _, n in bucket.relay.gets()) == SIZE  # nothing came twice
    assert sum(told) == SIZE


def test_a_second_run_goes_on_where_the_first_was_given_up(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_N_TRIES", 2)
    bucket.put("betas.hdf5")
    bucket.put("other.hdf5", 10)
    bucket.relay.cuts = [10 * PIECE, 10 * PIECE]
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
    assert bucket.relay.gets()[-1] == (f"bytes={20 * PIECE}-", SIZE - 20 * PIECE)


def test_an_object_that_changes_between_runs_starts_anew(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_N_TRIES", 1)
    bucket.put("betas.hdf5")
    bucket.relay.cuts = [10 * PIECE]
    assert bucket.fetch().problems
    bucket.put("betas.hdf5")
    bucket.fetch().check()
    bucket.check()
    assert bucket.relay.gets()[-1] == ("bytes=0-", SIZE)


def test_an_object_that_changes_under_way_starts_anew(bucket: Bucket) -> None:
    bucket.put("betas.hdf5")
    plan, told = bucket.plan(), list[int]()
    bucket.relay.cuts = [10 * PIECE]

    def tell(n: int) -> None:
        told.append(n)
        if len(told) == 5:  # after 5 of the first 10 pieces
            bucket.put("betas.hdf5", SIZE + 7)

    download.download(plan, on_progress=tell).check()
    bucket.check()
    assert sum(told) == SIZE + 7
    assert min(told) == -10 * PIECE  # thrown away


def test_a_mirror_without_ranges_sends_the_whole_again(bucket: Bucket) -> None:
    def forget(request: Any, **_: object) -> None:
        request.headers.pop("Range", None)

    bucket.client.meta.events.register("before-send.s3.GetObject", forget)
    bucket.put("betas.hdf5")
    bucket.relay.cuts = [10 * PIECE]
    told = list[int]()
    download.download(bucket.plan(), on_progress=told.append).check()
    bucket.check()
    assert bucket.relay.gets() == [("None", 10 * PIECE), ("None", SIZE)]
    assert sum(told) == SIZE


def test_a_complete_file_is_fetched_again_when_the_bucket_s_changes(
    bucket: Bucket,
) -> None:
    bucket.put("roi.nii.gz")
    bucket.fetch().check()
    bucket.put("roi.nii.gz")
    assert bucket.fetch().n_fetched == 1
    bucket.check()


def test_a_file_put_there_by_other_means_is_checked_not_fetched(bucket: Bucket) -> None:
    bucket.put("good.hdf5")
    bucket.put("bad.hdf5")
    bucket.root.mkdir()
    bucket.path("good.hdf5").write_bytes(bucket.files["good.hdf5"])
    bucket.path("bad.hdf5").write_bytes(bytes(SIZE))
    assert [item.state for item in bucket.plan().items] == ["unverified"] * 2
    assert bucket.fetch() == Outcome(1, 1, (), ())
    bucket.check()
    assert [n for _, n in bucket.relay.gets()] == [SIZE]


# --- what is refused ----------------------------------------------------------------


def wrong_bytes(
    status: int, headers: Headers, body: bytes
) -> tuple[int, Headers, bytes]:
    return status, headers, bytes([body[0] ^ 1]) + body[1:]


def shorter(status: int, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
    body = body[:-1]
    return status, headers | {"Content-Length": str(len(body))}, body


def other_total(
    status: int, headers: Headers, body: bytes
) -> tuple[int, Headers, bytes]:
    changed = {k: v for k, v in headers.items() if k.lower() != "content-range"}
    return status, changed | {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE + 1}"}, body


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (wrong_bytes, "other bytes than its ETag"),
        (shorter, "another size"),
        (other_total, "another size"),
    ],
)
def test_wrong_bytes_and_sizes_never_get_the_file_s_name(
    bucket: Bucket, change: Change, says: str
) -> None:
    bucket.put("betas.hdf5")
    bucket.relay.changes["GET"] = change
    (problem,) = bucket.fetch().problems
    assert problem.startswith("betas.hdf5")
    assert says in problem
    left = [p for p in bucket.root.rglob("*") if p.is_file() and p.stat().st_size]
    assert left == []
    bucket.relay.changes.clear()
    bucket.fetch().check()
    bucket.check()


def test_a_missing_object_is_named_and_the_others_come(bucket: Bucket) -> None:
    bucket.put("there.mat", 100)
    files = [want("gone.mat"), want("there.mat"), want("spare.mgz", optional=True)]
    plan = plan_download(bucket.client, files, bucket.root)
    assert [text.split()[0] for text in plan.problems] == ["gone.mat"]
    assert [text.split()[0] for text in plan.notices] == ["spare.mgz"]
    outcome = download.download(plan)
    assert outcome.n_fetched == 1
    assert outcome.problems == plan.problems
    bucket.check()


@pytest.mark.parametrize("place", ["../out", "/out", "a/../../out", "a\\..\\out", "."])
def test_a_place_outside_the_root_is_refused(bucket: Bucket, place: str) -> None:
    with pytest.raises(DataError, match="outside of"):
        plan_download(bucket.client, [want(place)], bucket.root)


def test_a_folder_of_the_root_may_be_a_link_to_another_disk(
    bucket: Bucket, tmp_path: Path
) -> None:
    data = bucket.put("nsddata/a.mat", 100)
    (tmp_path / "elsewhere").mkdir()
    bucket.root.mkdir()
    bucket.path("nsddata").symlink_to(tmp_path / "elsewhere")
    bucket.fetch().check()
    assert (tmp_path / "elsewhere" / "a.mat").read_bytes() == data


def test_a_bucket_that_is_not_there_is_one_sentence(bucket: Bucket) -> None:
    def refuse(**_: object) -> None:
        raise NoConnectionError(error="refused")

    bucket.client.meta.events.register("before-send", refuse)
    with pytest.raises(DataError, match="does not answer about a") as caught:
        plan_download(bucket.client, [want("a.mat")], bucket.root)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="give an address"):
        make_client("no address")


# --- objects uploaded in parts ------------------------------------------------------


def put_in_parts(
    bucket: Bucket, key: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Upload bytes in parts of `size`; return their ETag by S3's published rule."""
    data = bucket.rng.bytes(SIZE)
    monkeypatch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1)
    at: Any = {"Bucket": BUCKET, "Key": key}
    begun = bucket.owner.create_multipart_upload(**at, ACL="public-read")
    at["UploadId"] = begun["UploadId"]
    parts, digests = [], b""
    for number, start in enumerate(range(0, len(data), size), start=1):
        part = data[start : start + size]
        answer = bucket.owner.upload_part(**at, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        digests += hashlib.md5(part).digest()
    bucket.owner.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    bucket.files[key] = data
    return f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"


def test_an_object_of_parts_is_checked_by_its_parts(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = put_in_parts(bucket, "b.hdf5", 10_000, monkeypatch)
    assert bucket.plan().items[0].etag == etag
    bucket.relay.changes["GET"] = wrong_bytes
    assert "other bytes than its ETag" in bucket.fetch().problems[0]
    bucket.relay.changes.clear()
    assert bucket.fetch() == Outcome(1, 0, (), ())
    bucket.check()


def without_part_sizes(
    status: int, headers: Headers, body: bytes
) -> tuple[int, Headers, bytes]:
    """State the size of the whole for part 1, as mirrors do that know no parts."""
    changed = {k: v for k, v in headers.items() if k.lower() != "content-length"}
    return status, changed | {"Content-Length": str(SIZE)}, body


def test_part_sizes_are_guessed_where_the_bucket_tells_none(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_parts(bucket, "usual.hdf5", 16 * PIECE, monkeypatch)
    put_in_parts(bucket, "odd.hdf5", 10_000, monkeypatch)
    monkeypatch.setattr(download, "_MIB", PIECE)  # "MiB" of 1 kB: usual sizes in reach
    bucket.relay.changes["HEAD"] = without_part_sizes
    outcome = bucket.fetch()
    assert outcome == Outcome(2, 0, ("odd.hdf5",), ())
    bucket.check()


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
        confirm_agreement(ask, agreed=False)
    else:
        with pytest.raises(ConfigError, match="is not signed"):
            confirm_agreement(ask, agreed=False)
    (question,) = asked
    assert "signed NSD's data access agreement?" in question
    assert "https://naturalscenesdataset.org" in question


def test_without_a_terminal_only_the_flag_agrees(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    confirm_agreement(pytest.fail, agreed=True)
    assert _command(bucket) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--agreement-signed" in said
    assert not bucket.root.exists()


# --- the command --------------------------------------------------------------------


def _command(bucket: Bucket, *more: str) -> int:
    port = bucket.relay.server_address[1]
    small = ["--subjects", "1", "--set", "data.sessions=1"]
    address = ["--endpoint", f"http://127.0.0.1:{port}"]
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
    folder = bucket.path("nsddata_stimuli/stimuli/nsd/annotations")
    folder.mkdir(parents=True)
    for split in ("train", "val"):  # else they would come from COCO
        (folder / f"captions_{split}2017.json").write_text("{}", encoding="utf-8")
    assert _command(bucket, "--agreement-signed") == 0
    bucket.check()


def test_a_failed_answer_of_coco_is_said_after_nsds_files_came(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in needed(1):
        bucket.put(file.path, 50)
    nobody = ["--captions-from", "http://127.0.0.1:9/annotations_trainval2017.zip"]
    assert _command(bucket, "--agreement-signed", *nobody) == 1
    said = capsys.readouterr().err
    assert "captions_train2017.json and captions_val2017.json" in said
    bucket.check()


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
        if named is None:
            plan.check_space()
            return
        with pytest.raises(StoreError, match="are free there") as error:
            plan.check_space()
    assert f"/{named}, but" in str(error.value)


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
    assert len(bucket.relay.gets()) == 1  # compared, not fetched again
