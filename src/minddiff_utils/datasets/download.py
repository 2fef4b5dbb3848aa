"""Downloads what a run reads of NSD, file by file, from NSD's public bucket.

`plan_download` asks the bucket for sizes and ETags and looks at what is there;
`download` brings what is lacking. Each file goes on where it was cut off, is verified
by the size and the ETag that the bucket states, and takes its name only then: that is
why the transfers of boto3 are not used, which begin a file of 40 GB anew. COCO's
captions, which the bucket does not hold, come by `coco_captions`.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from minddiff_utils.core.errors import ConfigError, DataError, MindDiffError, StoreError
from minddiff_utils.core.locks import locked
from minddiff_utils.core.provenance import MARK
from minddiff_utils.datasets import bucket, part_files
from minddiff_utils.datasets.nsd.layout import NsdFile

__all__ = [
    "DownloadPlan",
    "Item",
    "Outcome",
    "download",
    "listing",
    "plan_download",
    "progress_bar",
]

#: Bytes read at once.
_CHUNK = 1 << 20
#: Tries in a row that bring less than `_WORTHWHILE` bytes before a file is given up.
_N_TRIES, _WORTHWHILE = 6, 16 << 20
#: Seconds before the second try; doubled each time, up to the longest wait.
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
#: Part sizes that upload tools use, MiB; tried where the bucket does not state its own.
_MIB, _USUAL_PARTS = 1 << 20, (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512)


# --- what is to be downloaded ---------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """A file as the bucket states it: bytes and ETag, and what disk holds."""

    file: NsdFile
    size: int
    etag: str  # without quotes
    is_digest: bool  # False under keys that make an ETag something else than MD5
    state: part_files.State
    n_begun: int  # bytes of an earlier try that count

    @property
    def n_left(self) -> int:
        """Return the bytes that are still to be downloaded."""
        there = self.state in ("complete", "unverified")
        return 0 if there else self.size - self.n_begun


@dataclass(frozen=True)
class DownloadPlan:
    """What is to be downloaded into `root`.

    Attributes
    ----------
    problems : tuple of str
        One sentence per file that a run needs and the bucket does not give.
    notices : tuple of str
        The same for files that a run can do without.
    """

    client: Any
    root: Path
    items: tuple[Item, ...]
    problems: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def n_left(self) -> int:
        """Return the bytes that are still to be downloaded."""
        return sum(item.n_left for item in self.items)

    def check_space(self) -> None:
        """Raise StoreError unless what is left fits the disks that it goes to."""
        left = [item for item in self.items if item.n_left]
        places = {part_files.place_of(self.root, i.file.path): i.n_left for i in left}
        part_files.check_space(places)


def plan_download(client: Any, files: Sequence[NsdFile], root: Path) -> DownloadPlan:
    """Ask the bucket for every size and ETag, and see what `root` holds already.

    Writes nothing. A file is complete if it has the size and, by its record, the ETag
    that the bucket states.

    Raises
    ------
    DataError
        A place leads out of `root`, which holds in-silico data, or the bucket does not
        answer.
    """
    if (root / MARK).is_file():
        raise DataError(
            f"{root} holds in-silico data ({MARK}), and real files must not be mixed"
            " with them: name another folder for NSD."
        )
    places = [part_files.place_of(root, file.path) for file in files]
    with ThreadPoolExecutor(bucket.N_HEADS) as pool:
        answers = list(pool.map(lambda *a: _ask(client, *a), files, places))
    refused = [
        (f, a) for f, a in zip(files, answers, strict=True) if isinstance(a, str)
    ]
    items = tuple(answer for answer in answers if isinstance(answer, Item))
    problems = tuple(answer for file, answer in refused if not file.optional)
    notices = tuple(answer for file, answer in refused if file.optional)
    return DownloadPlan(client, root, items, problems, notices)


def _ask(client: Any, file: NsdFile, path: Path) -> Item | str:
    """Return what the bucket says about a file; a sentence where it has none."""
    try:
        return _ask_bucket(client, file, path)
    except (ClientError, BotoCoreError) as error:
        if bucket.status_of(error) not in (403, 404):
            raise DataError(
                f"The bucket {bucket.BUCKET} does not answer about {file.path}"
                f" ({bucket.words_of(error)}): check the connection, then run again."
            ) from error
        missing = bucket.status_of(error) == 404
        words = "is missing" if missing else "is not open to the public"
        less = " (a run can do without it)" if file.optional else ""
        return (
            f"{file.path} {words} in the bucket {bucket.BUCKET}{less}: check its name"
            " in NSD's manual, or put the file into place by hand."
        )


def _ask_bucket(client: Any, file: NsdFile, path: Path) -> Item:
    """Return a file as the bucket states it; errors of the client go through."""
    head = client.head_object(Bucket=bucket.BUCKET, Key=file.path)
    etag, size = str(head["ETag"]).strip('"'), int(head["ContentLength"])
    keyed = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
    is_digest = not keyed and "SSECustomerAlgorithm" not in head
    return Item(file, size, etag, is_digest, *part_files.on_disk(path, size, etag))


def listing(plan: DownloadPlan) -> list[str]:
    """Return the plan as lines of text, the totals last."""
    words = {"unverified": "unchecked", "absent": "to fetch"}
    lines = [
        f"{part_files.in_units(item.size):>8}  {words.get(item.state, item.state):<9} "
        f" {item.file.path}  ({item.file.reason})"
        for item in plan.items
    ]
    n_complete = sum(item.n_left == 0 for item in plan.items)
    n_bytes, n_free = sum(i.size for i in plan.items), part_files.free_bytes(plan.root)
    size, left, free = map(part_files.in_units, (n_bytes, plan.n_left, n_free))
    total = (
        f"{len(plan.items)} files, {size}; {n_complete} are there, {left} to download"
        f" to {plan.root}; {free} free."
    )
    return [*lines, *plan.notices, *plan.problems, total]


# --- the download ---------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What `download` did: counts of files, keys known by size alone, and problems."""

    n_fetched: int
    n_kept: int
    size_only: tuple[str, ...]
    problems: tuple[str, ...]

    def check(self) -> None:
        """Raise DataError unless every file is there."""
        if self.problems:
            raise DataError(
                f"{len(self.problems)} files are missing: mend what is said above, then"
                " run the same command again, which fetches only these."
            )


@contextmanager
def progress_bar(plan: DownloadPlan) -> Iterator[Callable[[int], None]]:
    """Show a bar over the plan's bytes; yields what `download` tells progress to."""
    items = [item for item in plan.items if item.n_left]
    with tqdm(
        total=sum(item.size for item in items),
        initial=sum(item.n_begun for item in items),
        desc="NSD",
        unit="B",
        unit_scale=True,
        disable=None,  # silent where nobody watches
    ) as bar:
        yield bar.update


def download(
    plan: DownloadPlan,
    *,
    n_workers: int = 4,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Download what the plan lacks, `n_workers` files at once.

    A file that fails is named in the outcome and the others go on; its part stays, and
    the next call continues there. Another process that fetches to the same root waits.

    Parameters
    ----------
    on_progress
        Told the bytes of each piece, never from two threads at once; bytes that had to
        be thrown away are negative.

    Raises
    ------
    StoreError
        What is left does not fit the disk, or `root` cannot be written.
    ConfigError
        `n_workers` is below 1.
    """
    if n_workers < 1:
        raise ConfigError(f"n_workers is {n_workers}, but must be 1 or more.")
    plan.check_space()
    work = _Download(plan, on_progress)
    with _alone(plan.root), ThreadPoolExecutor(n_workers) as pool:
        futures = [pool.submit(work.attempt, item) for item in plan.items]
        try:
            done = [future.result() for future in futures]
        except BaseException:  # Ctrl-C: workers stop at the next piece
            work.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    problems = tuple(one.problem for one in done if one.problem)
    n_fetched = sum(one.is_new for one in done)
    n_kept = len(done) - n_fetched - len(problems)
    size_only = tuple(one.key for one in done if one.by_size_only)
    return Outcome(n_fetched, n_kept, size_only, (*plan.problems, *problems))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep a second download out of `root`."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(root))
        except OSError as error:
            raise StoreError(
                f"{root} cannot be written ({bucket.words_of(error)}): mend permissions"
                " there, or name another folder."
            ) from error
        try:
            yield
        finally:
            with suppress(OSError):  # nothing of ours is left among the data
                (root / ".lock").unlink(missing_ok=True)


class _StoppedError(Exception):
    """The user has stopped the whole."""


class _ChangedError(Exception):
    """The object in the bucket is another one than that planned."""


@dataclass(frozen=True)
class _Done:
    key: str
    is_new: bool = False
    by_size_only: bool = False
    problem: str = ""


@dataclass(frozen=True)
class _Download:
    """What every worker holds: the plan, who is told progress, the word to stop."""

    plan: DownloadPlan
    on_progress: Callable[[int], None]
    stop: Event = field(default_factory=Event)
    lock: Any = field(default_factory=Lock)

    def tell(self, n_bytes: int) -> None:
        with self.lock:
            self.on_progress(n_bytes)

    def attempt(self, item: Item) -> _Done:
        """Fetch one file; a failure becomes a sentence."""
        key = item.file.path
        try:
            return self._fetch(item)
        except MindDiffError as error:
            return _Done(key, problem=str(error))
        except _ChangedError:
            problem = "its object changes while it is downloaded"
        except (BotoCoreError, ClientError, HTTPError, OSError) as error:
            problem = bucket.words_of(error)
        words = (
            f"{key} was not fetched ({problem}): run again to go on where it stopped."
        )
        return _Done(key, problem=words)

    def _fetch(self, item: Item) -> _Done:
        key, path = item.file.path, part_files.place_of(self.plan.root, item.file.path)
        # another process may have been by
        state, _ = part_files.on_disk(path, item.size, item.etag)
        if state == "complete":
            return _Done(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if state == "unverified" and (match := self._verify(item, path)) != "other":
            part_files.write_record(path, item.etag)
            part_files.discard(part_files.part_of(path))
            return _Done(key, by_size_only=match == "size only")
        try:
            self._complete(item, path)
        except _ChangedError:  # once more, as it is now
            self.tell(-part_files.discard(part_files.part_of(path)))
            item = _ask_bucket(self.plan.client, item.file, path)
            self._complete(item, path)
        match = self._verify(item, part_files.part_of(path))
        if match == "other":
            self.tell(-part_files.discard(part_files.part_of(path)))
            raise DataError(
                f"{key} came with other bytes than its ETag {item.etag} stands for and"
                " was thrown away: run again, and if it stays so, tell whoever runs the"
                " bucket."
            )
        part_files.put_in_place(path, item.etag)
        return _Done(key, is_new=True, by_size_only=match == "size only")

    def _complete(self, item: Item, path: Path) -> None:
        """Bring the part of `path` to its full size, from where it stands."""
        part = part_files.part_of(path)
        if part_files.on_disk(path, item.size, item.etag)[0] != "begun":
            part_files.discard(part)
            part_files.write_record(part, item.etag)
            part.touch()
        n_tries = 0
        while (have := part.stat().st_size) < item.size:
            try:
                self._append(item, part, have)
            except (ClientError, BotoCoreError, HTTPError, ConnectionError) as error:
                n_new = part.stat().st_size - have
                n_tries = 1 if n_new >= _WORTHWHILE else n_tries + 1
                if bucket.status_of(error) in (404, 412):
                    raise _ChangedError from error
                if not bucket.may_pass(error) or n_tries == _N_TRIES:
                    raise
                self.stop.wait(min(_FIRST_WAIT * 2 ** (n_tries - 1), _LONGEST_WAIT))

    def _append(self, item: Item, part: Path, have: int) -> None:
        """Append the object's bytes from `have` on to the part."""
        answer = self.plan.client.get_object(
            Bucket=bucket.BUCKET,
            Key=item.file.path,
            Range=f"bytes={have}-",
            IfMatch=f'"{item.etag}"',
        )
        with closing(answer["Body"]) as body, part.open("r+b") as file:
            if str(answer.get("ETag", "")).strip('"') != item.etag:
                raise _ChangedError  # a mirror that does not heed If-Match
            start = _check_range(item, answer, have)
            if start < have:
                self.tell(start - have)
            file.truncate(start)
            file.seek(start)
            while piece := body.read(_CHUNK):
                if self.stop.is_set():
                    raise _StoppedError
                file.write(piece)
                self.tell(len(piece))

    # Whether a file is the bucket's

    def _verify(self, item: Item, path: Path) -> Literal["same", "size only", "other"]:
        """Compare a file with the size and ETag that the bucket states.

        The ETag of an object uploaded at once is its MD5 sum; of one uploaded in N
        parts, the MD5 sum of the parts' sums, `-N`. The bucket states the size of part
        1. Where it does not, sizes are guessed, and a guess that fails tells nothing.
        """
        if path.stat().st_size != item.size:
            return "other"
        digest, _, count = item.etag.partition("-")
        if not item.is_digest or len(digest) != 32 or (count and not count.isdecimal()):
            return "size only"
        stated = self._stated_part_size(item, int(count)) if count else item.size
        if stated is None:
            sizes = _likely_part_sizes(item.size, int(count))
        else:
            sizes = [stated]
        if any(self._etag(path, size, count) == item.etag for size in sizes):
            return "same"
        return "size only" if stated is None else "other"

    def _stated_part_size(self, item: Item, n_parts: int) -> int | None:
        """Return the size of the object's parts, None where it is not stated."""
        try:
            head = self.plan.client.head_object(
                Bucket=bucket.BUCKET, Key=item.file.path, PartNumber=1
            )
        except ClientError as error:
            if bucket.may_pass(error):
                raise
            return None  # a mirror that does not know parts
        size = int(head["ContentLength"])
        return size if _fits(item.size, size, n_parts) else None

    def _etag(self, path: Path, part_size: int, count: str) -> str:
        """Return the ETag of `path` uploaded in parts; at once where `count` is ""."""
        digests = []
        with path.open("rb") as file:
            for _ in range(int(count or 1)):
                digest, left = hashlib.md5(usedforsecurity=False), part_size
                while piece := file.read(min(_CHUNK, left)):
                    if self.stop.is_set():
                        raise _StoppedError
                    digest.update(piece)
                    left -= len(piece)
                digests.append(digest)
        if not count:
            return digests[0].hexdigest()
        joined = b"".join(digest.digest() for digest in digests)
        return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{count}"


def _fits(size: int, part_size: int, n_parts: int) -> bool:
    return part_size > 0 and -(-size // part_size) == n_parts


def _likely_part_sizes(size: int, n_parts: int) -> list[int]:
    """Return the part sizes to try: usual ones, and the least whole MiB that fits.

    >>> [n // _MIB for n in _likely_part_sizes(1_090_000_000, 130)]
    [8]
    """
    least = -(-size // (n_parts * _MIB))
    sizes = {n * _MIB for n in (*_USUAL_PARTS, 1024, least)}
    return sorted(n for n in sizes if _fits(size, n, n_parts))


def _check_range(item: Item, answer: Any, start: int) -> int:
    """Return where the answer's bytes begin, which must reach to the object's end."""
    if answer.get("ContentRange") is None:  # a mirror that sends the whole
        start, found = 0, f"bytes 0-{item.size - 1}/{item.size}"
    else:
        found = str(answer["ContentRange"])
    expected = f"bytes {start}-{item.size - 1}/{item.size}"
    length = int(answer["ContentLength"])
    if found != expected or length != item.size - start:
        raise DataError(
            f"{item.file.path} has another size than the {item.size} bytes first"
            f" stated ({length} bytes of {found!r} came): nothing was kept of the"
            " answer; run again, and check the address of the mirror if there is one."
        )
    return start
