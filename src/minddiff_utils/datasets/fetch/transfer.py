"""Downloads what a plan lacks, several files at once, from where each was cut off.

Place in the flow: part of `fetch`, after `plan`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from minddiff_utils.core.errors import ConfigError, DataError, MindDiffError, StoreError
from minddiff_utils.core.locks import locked
from minddiff_utils.datasets.fetch.bucket import (
    TROUBLE,
    http_status,
    may_pass,
    words_of,
)
from minddiff_utils.datasets.fetch.disk import (
    discard,
    on_disk,
    part_of,
    place_of,
    put_in_place,
    write_record,
)
from minddiff_utils.datasets.fetch.plan import FetchPlan, Item, ask_bucket
from minddiff_utils.datasets.fetch.proof import CHUNK, Link, StoppedError, prove

__all__ = ["Outcome", "fetch", "progress_bar"]

#: Tries in a row that bring less than `_WORTHWHILE` bytes before a file is given up.
_N_TRIES = 6
_WORTHWHILE = 16 << 20
#: Seconds before the second try; doubled each time, up to `_LONGEST_WAIT`.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Outcome:
    """What `fetch` did: counts of files, keys known by size alone, and problems."""

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


class _ChangedError(Exception):
    """The object in the bucket is another one than that planned."""


@dataclass(frozen=True)
class _Done:
    key: str
    is_new: bool = False
    is_size_only: bool = False
    problem: str = ""


def fetch(
    plan: FetchPlan,
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
    link = Link(plan, _one_at_a_time(on_progress), Event())
    with _alone(plan.root), ThreadPoolExecutor(n_workers) as pool:
        futures = [pool.submit(_attempt, link, item) for item in plan.items]
        try:
            done = [future.result() for future in futures]
        except BaseException:  # Ctrl-C: workers stop at the next piece
            link.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    failed = tuple(one.problem for one in done if one.problem)
    n_fetched = sum(one.is_new for one in done)
    return Outcome(
        n_fetched,
        len(done) - n_fetched - len(failed),
        tuple(one.key for one in done if one.is_size_only),
        (*plan.problems, *failed),
    )


def _one_at_a_time(tell: Callable[[int], None]) -> Callable[[int], None]:
    lock = Lock()

    def told(n: int) -> None:
        with lock:
            tell(n)

    return told


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep a second `fetch` out of `root`."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(root))
        except OSError as error:
            raise StoreError(
                f"{root} cannot be written ({words_of(error)}): mend permissions there,"
                " or name another folder."
            ) from error
        try:
            yield
        finally:
            with suppress(OSError):  # nothing of ours is left among the data
                (root / ".lock").unlink(missing_ok=True)


@contextmanager
def progress_bar(plan: FetchPlan) -> Iterator[Callable[[int], None]]:
    """Show a bar over the plan's bytes; yields what `fetch` tells its progress to."""
    items = [item for item in plan.items if item.n_left]
    bar = tqdm(
        total=sum(item.size for item in items),
        initial=sum(item.n_begun for item in items),
        desc="NSD",
        unit="B",
        unit_scale=True,
        disable=None,  # silent where nobody watches
    )
    with bar:
        yield bar.update


def _attempt(link: Link, item: Item) -> _Done:
    """Fetch one file; a failure becomes a sentence."""
    key = item.wanted.key
    try:
        return _fetch_one(link, item)
    except MindDiffError as error:
        return _Done(key, problem=str(error))
    except _ChangedError:
        problem = "its object changes while it is downloaded"
    except TROUBLE as error:
        problem = words_of(error)
    return _Done(
        key,
        problem=f"{key} was not fetched ({problem}): run again to go on where it"
        " stopped.",
    )


def _fetch_one(link: Link, item: Item) -> _Done:
    path = place_of(link.plan.root, item.wanted.destination)
    state, _ = on_disk(path, item.size, item.etag)  # another process may have been by
    if state == "complete":
        return _Done(item.wanted.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    if state == "unproven":
        proof = prove(link, item, path)
        if proof != "other":
            write_record(path, item.etag)
            discard(part_of(path))
            return _Done(item.wanted.key, is_size_only=proof == "size only")
    try:
        _download(link, item, path)
    except _ChangedError:  # once more, as it is now
        link.progress(-discard(part_of(path)))
        item = ask_bucket(link.plan.client, link.plan.bucket, item.wanted, path)
        _download(link, item, path)
    proof = prove(link, item, part_of(path))
    if proof == "other":
        link.progress(-discard(part_of(path)))
        raise DataError(
            f"{item.wanted.key} came with other bytes than its ETag {item.etag} stands"
            " for and was thrown away: run again, and if it stays so, tell whoever"
            " runs the bucket."
        )
    put_in_place(path, item.etag)
    return _Done(item.wanted.key, is_new=True, is_size_only=proof == "size only")


def _download(link: Link, item: Item, path: Path) -> None:
    """Bring the part of `path` to its full size, from where it stands."""
    part = part_of(path)
    state, have = on_disk(path, item.size, item.etag)
    if state != "begun":
        discard(part)
        write_record(part, item.etag)
        part.touch()
        have = 0
    n_tries = 0
    while have < item.size:
        try:
            _stream(link, item, part, have)
        except (ClientError, BotoCoreError, HTTPError, ConnectionError) as error:
            before, have = have, part.stat().st_size
            n_tries = 1 if have - before >= _WORTHWHILE else n_tries + 1
            if http_status(error) in (404, 412):
                raise _ChangedError from error
            if not may_pass(error) or n_tries == _N_TRIES:
                raise
            link.stop.wait(min(_FIRST_WAIT * 2 ** (n_tries - 1), _LONGEST_WAIT))
        else:
            have = part.stat().st_size


def _stream(link: Link, item: Item, part: Path, start: int) -> None:
    """Append the object's bytes from `start` on to the part."""
    answer = link.plan.client.get_object(
        Bucket=link.plan.bucket,
        Key=item.wanted.key,
        Range=f"bytes={start}-",
        IfMatch=f'"{item.etag}"',
    )
    with closing(answer["Body"]) as body:
        if str(answer.get("ETag", "")).strip('"') != item.etag:
            raise _ChangedError  # a mirror that does not heed If-Match
        start = _check_range(item, answer, start)
        n_begun = part.stat().st_size
        if start < n_begun:
            link.progress(start - n_begun)
        with part.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            while piece := body.read(CHUNK):
                if link.stop.is_set():
                    raise StoppedError
                file.write(piece)
                link.progress(len(piece))


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
            f"{item.wanted.key} has another size than the {item.size} bytes first"
            f" stated ({length} bytes of {found!r} came): nothing was kept of the"
            " answer; run again, and check the address of the mirror if there is one."
        )
    return start
