"""COCO's captions come from its own archive, verified, or are named."""

import errno
import hashlib
import io
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from minddiff_utils.core.errors import ConfigError, DataError, MindDiffError, StoreError
from minddiff_utils.datasets import coco_captions
from minddiff_utils.datasets.coco_captions import (
    ARCHIVE,
    Archive,
    captions_missing,
    captions_words,
    fetch_captions,
)

NAMES = ("captions_train2017.json", "captions_val2017.json")
FOLDER = "nsddata_stimuli/stimuli/nsd/annotations"


def packed(names: tuple[str, ...] = NAMES) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in (*names, "instances_val2017.json"):
            file.writestr(f"annotations/{name}", f'{{"annotations": "{name}"}}' * 50)
    return buffer.getvalue()


class Coco(ThreadingHTTPServer):
    """COCO's server on this machine: what it answers can be changed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.status, self.stated = packed(), 200, -1

    def archive(self, body: bytes | None = None) -> Archive:
        """Return the archive as it would be published."""
        whole = self.body if body is None else body
        url = f"http://127.0.0.1:{self.server_port}/annotations_trainval2017.zip"
        return Archive(url, len(whole), hashlib.sha256(whole).hexdigest())


class Handler(BaseHTTPRequestHandler):
    server: Coco

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        n = self.server.stated if self.server.stated >= 0 else len(self.server.body)
        self.send_header("Content-Length", str(n))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def coco() -> Iterator[Coco]:
    server = Coco()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def sentence(error: pytest.ExceptionInfo[MindDiffError]) -> str:
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def test_the_archive_is_the_published_one() -> None:
    """Size and SHA-256 as in the lists of several public projects."""
    assert (ARCHIVE.size, ARCHIVE.sha256[:8]) == (252_907_541, "113a836d")


def test_two_files_come_and_the_archive_goes(coco: Coco, tmp_path: Path) -> None:
    assert "CC BY 4.0" in captions_words(tmp_path)
    assert fetch_captions(tmp_path, coco.archive()) == NAMES
    assert left(tmp_path) == list(NAMES)
    assert (tmp_path / FOLDER / NAMES[1]).read_text("utf-8").count(NAMES[1]) == 50
    assert (captions_missing(tmp_path), captions_words(tmp_path)) == ((), "")
    assert fetch_captions(tmp_path, replace(ARCHIVE, url="http://nowhere")) == ()


def test_a_file_that_is_there_is_left_as_it_is(coco: Coco, tmp_path: Path) -> None:
    own = tmp_path / FOLDER / NAMES[0]
    own.parent.mkdir(parents=True)
    own.write_text("mine", encoding="utf-8")
    assert fetch_captions(tmp_path, coco.archive()) == NAMES[1:]
    assert own.read_text("utf-8") == "mine"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status": 403}, "HTTP status 403"),
        ({"status": 404}, "HTTP status 404"),
        ({"status": 500}, "HTTP status 500"),
        ({"body": b"<html>Please log in</html>"}, "26 bytes came"),
        ({"body": packed() + b"more"}, "more than"),
        ({"body": b"x" * len(packed())}, "SHA-256"),
        ({"stated": 10**6}, "bytes came|IncompleteRead"),
    ],
    # the same in every process, which a zip's bytes are not: they hold the second
    ids=["403", "404", "500", "a page", "too long", "other bytes", "too short"],
)
def test_a_bad_answer_is_one_sentence_and_leaves_nothing(
    coco: Coco, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    archive = coco.archive()
    if "stated" in change:  # the line breaks before the end
        archive = replace(archive, size=10**6)
    vars(coco).update(change)
    with pytest.raises(DataError, match=says) as error:
        fetch_captions(tmp_path, archive)
    for name in (*NAMES, FOLDER, archive.url):
        assert name in sentence(error)
    assert left(tmp_path) == []


def test_nobody_there_is_one_sentence_with_the_way_by_hand(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be fetched") as error:
        fetch_captions(tmp_path, replace(ARCHIVE, url="http://127.0.0.1:9/", size=10))
    assert "unpack" in sentence(error)
    assert left(tmp_path) == []


@pytest.mark.parametrize("url", ["", "ftp://host/a.zip", "file:///etc/passwd", "a.zip"])
def test_an_address_that_is_none_of_the_web_is_refused(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(ConfigError, match="no address"):
        fetch_captions(tmp_path, replace(ARCHIVE, url=url))


def test_an_archive_without_the_files_is_said(coco: Coco, tmp_path: Path) -> None:
    coco.body = packed(NAMES[:1])
    with pytest.raises(DataError, match=r"captions_val2017.json"):
        fetch_captions(tmp_path, coco.archive())
    assert left(tmp_path) == [NAMES[0]]  # it is whole


def test_a_disk_that_is_or_becomes_full_is_said(
    coco: Coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(coco_captions.shutil, "copyfileobj", full)
        with pytest.raises(DataError, match="No space left"):
            fetch_captions(tmp_path, coco.archive())
    assert left(tmp_path) == []
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match="10 B are free"):
        fetch_captions(tmp_path, coco.archive())
    assert left(tmp_path) == []


def test_in_silico_data_get_no_real_captions(coco: Coco, tmp_path: Path) -> None:
    (tmp_path / "IN_SILICO.txt").write_text("mark", encoding="utf-8")
    with pytest.raises(DataError, match="in-silico"):
        fetch_captions(tmp_path, coco.archive())
    assert left(tmp_path) == ["IN_SILICO.txt"]
