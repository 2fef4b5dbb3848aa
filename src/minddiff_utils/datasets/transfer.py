"""Brings files from web servers, each verified before it takes its name.

A file goes on where it was cut off, is verified by the SHA-256 that is published or the
ETag that the server states, and takes its name only then. Of an archive only the
members asked for are kept.
"""

import hashlib
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from minddiff_utils.core.errors import ConfigError, DataError, MindDiffError, in_a_line
from minddiff_utils.datasets import part_files
from minddiff_utils.datasets.inventory import DataFile

__all__ = ["Done", "Download", "Item", "Worker", "ask", "check_address", "open_session"]

#: Bytes read at once.
_CHUNK = 1 << 20
#: Seconds for a connection, and for an answer.
_TIMEOUT = (20, 60)
#: Connections that fail, and busy servers, are tried again.
_RETRIES = Retry(
    3,
    backoff_factor=0.5,
    status_forcelist=(408, 429, 500, 502, 503, 504),
    raise_on_status=False,
    respect_retry_after_header=False,  # which may be hours
)
#: Tries in a row that bring less than `_WORTHWHILE` bytes before a file is given up.
_N_TRIES, _WORTHWHILE = 6, 16 << 20
#: Seconds before the second try; doubled each time, up to the longest wait.
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
_ENCRYPTION = "x-amz-server-side-encryption"
_SHA256 = re.compile("[0-9a-f]{64}")
_FAILURES = (requests.RequestException, HTTPError, OSError)


# --- files and servers ----------------------------------------------------------------


@dataclass(frozen=True)
class Download:
    """A file that is to be downloaded.

    Attributes
    ----------
    path : str
        Where it goes, below the root of the data set.
    by_hand : str
        What a user does instead where it does not come.
    optional : bool
        Whether a run can do without it.
    size, sha256
        As published; without them, the server's size and ETag are taken.
    members : tuple of str
        Those of an archive that are kept, beside each other; the archive is not.
    """

    path: str
    url: str
    reason: str
    by_hand: str
    optional: bool = False
    size: int = 0
    sha256: str = ""
    members: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, file: DataFile, address: str, by_hand: str, below: str = ""
    ) -> "Download":
        """Return the download of a file whose path `below` is that on a server."""
        url = f"{address}/{quote(file.path.removeprefix(below))}"
        return cls(file.path, url, file.reason, by_hand, file.optional)


@dataclass(frozen=True)
class Item:
    """A file as its publisher or server states it, and what the disk holds of it."""

    file: Download
    size: int
    checksum: str  # SHA-256, or an ETag without quotes; empty where there is none
    state: part_files.State
    n_begun: int  # bytes of an earlier try that count

    @property
    def n_left(self) -> int:
        """Return the bytes that are still to be downloaded."""
        there = self.state in ("complete", "unverified")
        return 0 if there else self.size - self.n_begun


def check_address(url: str) -> None:
    """Raise ConfigError unless `url` is an address of the web."""
    with suppress(ValueError):
        if urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname:
            return
    raise ConfigError(
        f"{in_a_line(url)!r} is no address of the web: give one such as"
        " https://host:port."
    )


def open_session(n_connections: int) -> requests.Session:
    """Return what talks to servers: nameless, through the proxies of the system."""
    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity"})
    session.auth = lambda request: request  # no password of ~/.netrc goes out
    adapter = HTTPAdapter(pool_maxsize=n_connections, max_retries=_RETRIES)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def ask(session: requests.Session, file: Download, path: Path) -> Item | str:
    """Return what is stated about a file; a sentence where the server has none."""
    try:
        return _ask_server(session, file, path)
    except requests.RequestException as error:
        status = _status_of(error)
        if status not in (401, 403, 404):
            raise DataError(
                f"The server does not answer about {file.path} ({_words_of(error)}):"
                " check the connection, then run again."
            ) from error
        words = "is missing" if status == 404 else "is not open to the public"
        less = " (a run can do without it)" if file.optional else ""
        return f"{file.path} {words} at {file.url}{less}: {file.by_hand}."


def _ask_server(session: requests.Session, file: Download, path: Path) -> Item:
    """Return a file as it is published or its server states it; errors go through."""
    size, checksum = file.size, file.sha256
    if not checksum:
        head = _head(session, file.url)
        if linked := _SHA256.fullmatch(head.get("X-Linked-ETag", "").strip('"')):
            # as the hub states a large file
            size, checksum = int(head.get("X-Linked-Size", 0)), linked[0]
            file = replace(file, size=size, sha256=checksum)
        else:
            size, method = int(head.get("Content-Length", 0)), _ENCRYPTION
            keyed = head.get(method, "").startswith("aws:kms")
            # under a key of its own an object's ETag is no MD5 sum
            no_sum = keyed or f"{method}-customer-algorithm" in head
            checksum = "" if no_sum else _etag_of(head)
    return Item(file, size, checksum, *part_files.on_disk(path, size, checksum))


def _head(session: requests.Session, url: str, **query: int) -> Any:
    """Return the headers of a file; raise where the answer is none.

    The hub states SHA-256 and size of a large file before it sends one elsewhere.
    """
    answer = session.head(url, params=query, timeout=_TIMEOUT, allow_redirects=False)
    if answer.is_redirect and "X-Linked-ETag" not in answer.headers:
        answer = session.head(url, params=query, timeout=_TIMEOUT, allow_redirects=True)
    answer.raise_for_status()
    return answer.headers


def _etag_of(headers: Any) -> str:
    return str(headers.get("ETag", "")).strip('"')


def _status_of(error: Exception) -> int:
    """Return the HTTP status of the server's answer, 0 where there was none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _words_of(error: Exception) -> str:
    """Return an error of a library in a few words."""
    if status := _status_of(error):
        return f"HTTP status {status}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reasons = (getattr(argument, "reason", None) for argument in error.args)
    reason = next(filter(None, reasons), error)  # not that it was tried many times
    return in_a_line(" ".join(str(reason).split())) or type(error).__name__


def _may_pass(error: Exception) -> bool:
    """Return whether the same request may succeed a little later."""
    status = _status_of(error)
    return status >= 500 or status in (0, 408, 429)


# --- one file -------------------------------------------------------------------------


class _StoppedError(Exception):
    """The user has stopped the whole."""


class _ChangedError(Exception):
    """The file on the server is another one than that planned."""


@dataclass(frozen=True)
class Done:
    """What became of one file."""

    path: str
    is_new: bool = False
    by_size_only: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Worker:
    """What every worker holds: where to, who is told progress, the word to stop."""

    root: Path
    session: requests.Session
    on_progress: Callable[[int], None]
    stop: Event = field(default_factory=Event)
    lock: Any = field(default_factory=Lock)

    def _tell(self, n_bytes: int) -> None:
        with self.lock:
            self.on_progress(n_bytes)

    def _discard(self, part: Path) -> None:
        self._tell(-part_files.discard(part))

    def attempt(self, item: Item) -> Done:
        """Fetch one file; a failure becomes a sentence."""
        file = item.file
        try:
            return self._fetch(item)
        except MindDiffError as error:
            return Done(file.path, problem=str(error))
        except _ChangedError:
            problem = "it changes on the server while it is downloaded"
        except (*_FAILURES, zipfile.BadZipFile, KeyError) as error:
            problem = _words_of(error)
        words = (
            f"{file.path} was not fetched from {file.url} ({problem}): run again to go"
            f" on where it stopped, or {file.by_hand}."
        )
        return Done(file.path, problem=words)

    def _fetch(self, item: Item) -> Done:
        file, path = item.file, part_files.place_of(self.root, item.file.path)
        part = part_files.part_of(path)
        # another process may have been by
        state, _ = part_files.on_disk(path, item.size, item.checksum)
        if state == "complete" and not file.members:
            return Done(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if state in ("complete", "unverified"):
            match = self._verify(item, path)
            if match != "other":
                _unpack(path, path.parent, file.members)
                part_files.write_record(path, item.checksum)
                part_files.discard(part)
                return Done(file.path, by_size_only=match == "size only")
        try:
            self._complete(item, part)
        except _ChangedError:  # once more, as it is now
            self._discard(part)
            item = _ask_server(self.session, file, path)
            self._complete(item, part)
        match = self._verify(item, part)
        if match == "other":
            self._discard(part)
            kind = "SHA-256" if item.file.sha256 else "ETag"
            raise DataError(
                f"{file.path} came with other bytes than its {kind} {item.checksum}"
                " stands for and was thrown away: run again, and if it stays so,"
                f" tell whoever runs {urlsplit(file.url).hostname}."
            )
        if file.members:
            try:
                _unpack(part, path.parent, file.members)
            finally:
                part_files.discard(part)
        else:
            part_files.put_in_place(path, item.checksum)
        return Done(file.path, is_new=True, by_size_only=match == "size only")

    def _complete(self, item: Item, part: Path) -> None:
        """Bring a part to its full size, from where it stands."""
        if not part_files.is_begun(part, item.size, item.checksum):
            part_files.discard(part)
            part_files.write_record(part, item.checksum)
            part.touch()
        n_tries = 0
        while (have := part.stat().st_size) < item.size:
            try:
                self._append(item, part, have)
            except (requests.RequestException, HTTPError) as error:
                n_new = part.stat().st_size - have
                n_tries = 1 if n_new >= _WORTHWHILE else n_tries + 1
                if _status_of(error) in (404, 412) and not item.file.sha256:
                    raise _ChangedError from error
                if not _may_pass(error) or n_tries == _N_TRIES:
                    raise
                self.stop.wait(min(_FIRST_WAIT * 2 ** (n_tries - 1), _LONGEST_WAIT))

    def _append(self, item: Item, part: Path, have: int) -> None:
        """Append the file's bytes from `have` on to the part."""
        headers = {"Range": f"bytes={have}-"}
        by_etag = bool(item.checksum) and not item.file.sha256
        if by_etag:
            headers["If-Match"] = f'"{item.checksum}"'
        with (
            self.session.get(
                item.file.url, headers=headers, stream=True, timeout=_TIMEOUT
            ) as answer,
            part.open("r+b") as file,
        ):
            answer.raise_for_status()
            if by_etag and _etag_of(answer.headers) != item.checksum:
                raise _ChangedError  # a mirror that does not heed If-Match
            start = _check_range(item, answer.headers, have)
            if start < have:
                self._tell(start - have)
            file.truncate(start)
            file.seek(start)
            while piece := answer.raw.read(_CHUNK):
                if self.stop.is_set():
                    raise _StoppedError
                file.write(piece)
                self._tell(len(piece))

    # Whether a file is the one that is stated

    def _verify(self, item: Item, path: Path) -> Literal["same", "size only", "other"]:
        """Compare a file with the size and checksum that are stated.

        The ETag of an object uploaded at once is its MD5 sum; of one uploaded in N
        parts, the MD5 sum of the parts' sums, `-N`, where S3 states the size of part 1.
        """
        if path.stat().st_size != item.size:
            return "other"
        etag = re.fullmatch("[0-9a-f]{32}(?:-([0-9]+))?", item.checksum)
        if item.file.sha256:
            found = self._digests(path, "sha256", item.size, 1)[0].hexdigest()
            return "same" if found == item.checksum else "other"
        if etag is None:
            return "size only"
        n_parts = int(etag[1] or 1)
        size = self._part_size(item) if n_parts > 1 else item.size
        if n_parts > 1 and (size < 1 or -(-item.size // size) != n_parts):
            return "size only"  # a mirror that does not know parts
        digests = self._digests(path, "md5", size, n_parts)
        found = digests[0].hexdigest()
        if etag[1]:
            joined = b"".join(digest.digest() for digest in digests)
            whole = hashlib.md5(joined, usedforsecurity=False)
            found = f"{whole.hexdigest()}-{n_parts}"
        return "same" if found == item.checksum else "other"

    def _part_size(self, item: Item) -> int:
        """Return the size of the object's first part; the whole where none is told."""
        try:
            head = _head(self.session, item.file.url, partNumber=1)
        except requests.RequestException as error:
            if _may_pass(error):
                raise
            return 0
        return int(head.get("Content-Length", 0))

    def _digests(self, path: Path, kind: str, part_size: int, count: int) -> list[Any]:
        """Return the digest of each part of a file."""
        digests = []
        with path.open("rb") as file:
            for _ in range(count):
                digest, left = hashlib.new(kind, usedforsecurity=False), part_size
                while piece := file.read(min(_CHUNK, left)):
                    if self.stop.is_set():
                        raise _StoppedError
                    digest.update(piece)
                    left -= len(piece)
                digests.append(digest)
        return digests


def _unpack(archive: Path, folder: Path, members: Sequence[str]) -> None:
    """Put members of an archive in place, each at once or not at all."""
    for member in members:
        path = folder / Path(member).name
        part = part_files.part_of(path)
        try:
            with (
                zipfile.ZipFile(archive) as packed,
                packed.open(member) as source,
                part.open("wb") as file,
            ):
                shutil.copyfileobj(source, file, _CHUNK)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _check_range(item: Item, headers: Any, start: int) -> int:
    """Return where the answer's bytes begin, which must reach to the file's end."""
    found = headers.get("Content-Range")
    if found is None:  # a mirror that sends the whole
        start, found = 0, f"bytes 0-{item.size - 1}/{item.size}"
    expected = f"bytes {start}-{item.size - 1}/{item.size}"
    length = int(headers.get("Content-Length", item.size - start))
    if found != expected or length != item.size - start:
        raise DataError(
            f"{item.file.path} has another size than the {item.size} bytes first"
            f" stated ({length} bytes of {found!r} came from {item.file.url}): nothing"
            " was kept of the answer; run again, and check the address of the mirror"
            f" if there is one, or {item.file.by_hand}."
        )
    return start
