"""A server on loopback that answers as those of data sets and models do.

As S3 for public objects (ranges, If-Match, sizes of parts), as COCO's for an archive,
as the hub of models (digests stated, redirects). It cuts answers off and changes them.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from urllib3.util import Retry

from minddiff_utils.datasets import download, transfer
from minddiff_utils.datasets.download import DownloadPlan, Outcome, plan_download
from minddiff_utils.datasets.inventory import DataFile
from minddiff_utils.datasets.nsd import source
from minddiff_utils.datasets.transfer import Download

__all__ = [
    "ANNOTATIONS", "MEMBERS", "NAMES", "PIECE", "SIZE", "WRONG_ANSWERS", "Answer",
    "Bucket", "Change", "Headers", "Server", "a_page", "left", "pack", "serving",
    "shorter", "status", "wrong_bytes",
]  # fmt: skip

_BUCKETS = re.compile("^/(natural-scenes-dataset|laion-fmri)/")
SIZE = 64_000  # bytes of an object
PIECE = 1024  # bytes read at once here
NAMES = ("captions_train2017.json", "captions_val2017.json")
ANNOTATIONS = "nsddata_stimuli/stimuli/nsd/annotations"
MEMBERS = tuple(f"{ANNOTATIONS}/{name}" for name in NAMES)

Headers = dict[str, str]
Answer = tuple[int, Headers, bytes]
Change = Callable[[int, Headers, bytes], Answer]


# --- the server, and what goes wrong on the way -------------------------------------


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        server, method = self.server, self.command
        status, headers, body = server.find(self.path, self.headers)
        change = server.changes.get(method)
        if change is not None and status < 400:
            status, headers, body = change(status, headers, body)
        headers = {"Content-Length": str(len(body))} | headers
        with server.lock:
            cut = server.cuts.pop(0) if method == "GET" and server.cuts else len(body)
            server.seen.append((method, str(self.headers.get("Range")), cut))
            server.passwords.append(self.headers.get("Authorization"))
        self.send_response_only(status)
        for name, value in (headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        if method == "GET":
            self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Holds objects and one archive; cuts bodies off after `cuts` bytes, in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = Lock()
        self.objects: dict[str, tuple[bytes, str, int]] = {}  # bytes, ETag, part size
        self.archive = pack()
        self.hub: dict[str, tuple[bytes, bool]] = {}  # path: bytes, whether large
        self.cuts: list[int] = []
        self.changes: dict[str, Change] = {}
        self.has_ranges = True
        self.seen: list[tuple[str, str, int]] = []
        self.passwords: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def find(self, address: str, asked: Any) -> Answer:
        path, query = urlsplit(address).path, parse_qs(urlsplit(address).query)
        if path.removeprefix("/elsewhere") in self.hub:
            return self._of_the_hub(path, asked)
        key = _BUCKETS.sub("", unquote(path))
        if key == "/coco.zip":
            return self._part(self.archive, {}, asked)
        if key not in self.objects:
            return 404, {}, b""
        data, etag, part_size = self.objects[key]
        if asked.get("If-Match", f'"{etag}"') != f'"{etag}"':
            return 412, {}, b""
        headers = {"ETag": f'"{etag}"'}
        if "partNumber" in query and part_size:
            return 200, headers, data[:part_size]
        return self._part(data, headers, asked)

    def _part(self, data: bytes, headers: Headers, asked: Any) -> Answer:
        start = asked.get("Range", "")
        if not (start and self.has_ranges):
            return 200, headers, data
        first = int(start.removeprefix("bytes=").removesuffix("-"))
        stated = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return 206, headers | {"Content-Range": stated}, data[first:]

    def _of_the_hub(self, path: str, asked: Any) -> Answer:
        """Answer as huggingface.co does.

        A large file's digest and size are stated before it is sent from elsewhere, by
        a server with ETags of its own; a small one is sent by another path.
        """
        data, is_large = self.hub[path.removeprefix("/elsewhere")]
        if path.startswith("/elsewhere"):
            etag = "of another kind" if is_large else hashlib.sha1(data).hexdigest()
            return self._part(data, {"ETag": f'"{etag}"'}, asked)
        digest = hashlib.sha256(data).hexdigest()
        linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        there = {"Location": f"/elsewhere{path}"}
        return (302, there | linked, b"") if is_large else (307, there, b"")

    def gets(self) -> list[tuple[str, int]]:
        """Return range and bytes sent of each GET."""
        return [(start, n) for method, start, n in self.seen if method == "GET"]


def pack(names: tuple[str, ...] = NAMES) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in (*names, "instances_val2017.json"):
            file.writestr(f"annotations/{name}", f'{{"annotations": "{name}"}}' * 50)
    return buffer.getvalue()


@dataclass
class Bucket:
    """A server's bucket, and the folder that its files go to."""

    server: Server
    root: Path
    rng: np.random.Generator
    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, key: str, size: int = SIZE, part_size: int = 0) -> bytes:
        data = self.files[key] = self.rng.bytes(size)
        etag = hashlib.md5(data).hexdigest()
        if part_size:  # by S3's published rule
            parts = [data[at : at + part_size] for at in range(0, size, part_size)]
            digests = b"".join(hashlib.md5(part).digest() for part in parts)
            etag = f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"
        self.server.objects[key] = data, etag, part_size
        return data

    def serve(self, key: str, data: bytes) -> None:
        """Have the server give these bytes; `files` does not know of them."""
        self.server.objects[key] = data, hashlib.md5(data).hexdigest(), 0

    def want(self, key: str, *, optional: bool = False) -> Download:
        (wanted,) = source.downloads(
            [DataFile("any", key, "a test", optional=optional)],
            self.root,
            endpoint=self.server.address,
        )
        return wanted

    def plan(self) -> DownloadPlan:
        return plan_download([self.want(key) for key in self.files], self.root)

    def fetch(self, n_workers: int = 1) -> Outcome:
        return download.download(self.plan(), n_workers=n_workers)

    def path(self, key: str) -> Path:
        return self.root / key

    def check(self) -> None:
        """Every file is there, byte for byte, and no part is left."""
        for key, data in self.files.items():
            assert self.path(key).read_bytes() == data
        assert not [p for p in self.root.rglob(".*") if p.is_file()]


def wrong_bytes(status: int, headers: Headers, body: bytes) -> Answer:
    return status, headers, bytes([body[0] ^ 1]) + body[1:]


def shorter(status: int, headers: Headers, body: bytes) -> Answer:
    return status, headers, body[:-1]


def a_page(status: int, headers: Headers, body: bytes) -> Answer:
    return 200, {"ETag": headers.get("ETag", "")}, b"<html>Please log in</html>"


def status(number: int) -> Change:
    return lambda *_: (number, {}, b"")


#: What a server may answer in the place of a file, and what is said of it.
WRONG_ANSWERS = pytest.mark.parametrize(
    ("change", "says"),
    [
        (wrong_bytes, "came with other bytes than its"),
        (shorter, "another size"),
        (a_page, "another size"),
        (status(403), "HTTP status 403"),
        (status(503), "HTTP status 503"),
    ],
    ids=["bytes", "shorter", "page", "403", "503"],
)


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@contextmanager
def serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> Iterator[Bucket]:
    """Give an empty bucket on loopback; nothing waits, pieces are small."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path / "project"))  # keeps records
    monkeypatch.setattr(transfer, "_CHUNK", PIECE)
    monkeypatch.setattr(transfer, "_FIRST_WAIT", 0.0)
    monkeypatch.setattr(transfer, "_RETRIES", Retry(0))
    server = Server()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Bucket(server, tmp_path / "nsd", rng)
    server.shutdown()
    thread.join()
    server.server_close()
