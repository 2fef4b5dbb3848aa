"""Whether a file on disk is the bucket's: its size and its ETag.

Place in the flow: part of `fetch`, after every download.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Literal

from botocore.exceptions import ClientError

from minddiff_utils.datasets.fetch.bucket import may_pass
from minddiff_utils.datasets.fetch.plan import FetchPlan, Item

__all__ = ["CHUNK", "Link", "StoppedError", "prove"]

Proof = Literal["same", "size only", "other"]
#: Bytes read at once.
CHUNK = 1 << 20
_MIB = 1 << 20
#: Part sizes that upload tools use, MiB; tried where the bucket does not state its own.
_USUAL_PARTS = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024)


class StoppedError(Exception):
    """The user has stopped the whole."""


@dataclass(frozen=True)
class Link:
    """What every worker holds: the plan, the way to tell progress, the word to stop."""

    plan: FetchPlan
    progress: Callable[[int], None]
    stop: Event


def prove(link: Link, item: Item, path: Path) -> Proof:
    """Compare a file with the size and ETag that the bucket states.

    The ETag of an object uploaded at once is its MD5 sum; of one uploaded in N parts,
    the MD5 sum of the parts' sums, `-N`. The bucket states the size of part 1. Where it
    does not, sizes are guessed, and a guess that fails proves nothing.
    """
    if path.stat().st_size != item.size:
        return "other"
    digest, _, count = item.etag.partition("-")
    if not item.is_digest or len(digest) != 32 or (count and not count.isdecimal()):
        return "size only"
    if not count:
        return "same" if _etag(link, path, None) == item.etag else "other"
    stated = _stated_part_size(link, item, int(count))
    if stated is not None:
        return "same" if _etag(link, path, stated) == item.etag else "other"
    guesses = _likely_part_sizes(item.size, int(count))
    proven = any(_etag(link, path, guess) == item.etag for guess in guesses)
    return "same" if proven else "size only"


def _stated_part_size(link: Link, item: Item, n_parts: int) -> int | None:
    """Return the size of the object's parts, None where the bucket does not tell."""
    try:
        head = link.plan.client.head_object(
            Bucket=link.plan.bucket, Key=item.wanted.key, PartNumber=1
        )
    except ClientError as error:
        if may_pass(error):
            raise
        return None  # a mirror that does not know parts
    size = int(head["ContentLength"])
    return size if _fits(item.size, size, n_parts) else None


def _fits(size: int, part_size: int, n_parts: int) -> bool:
    return part_size > 0 and -(-size // part_size) == n_parts


def _likely_part_sizes(size: int, n_parts: int) -> list[int]:
    """Return the part sizes to try: usual ones, and the least whole MiB that fits.

    >>> [n // _MIB for n in _likely_part_sizes(1_090_000_000, 130)]
    [8]
    """
    least = -(-size // (n_parts * _MIB))
    sizes = {n * _MIB for n in (*_USUAL_PARTS, least)}
    return sorted(n for n in sizes if _fits(size, n, n_parts))


def _etag(link: Link, path: Path, part_size: int | None) -> str:
    """Return the ETag that `path` has, uploaded at once or in parts of `part_size`."""
    whole = hashlib.md5(usedforsecurity=False)
    n_parts = 0
    with path.open("rb") as file:
        while digest := _md5(link, file, part_size):
            n_parts += 1
            if part_size is None:
                return digest.hex()
            whole.update(digest)
    return f"{whole.hexdigest()}-{n_parts}"


def _md5(link: Link, file: Any, limit: int | None) -> bytes:
    """Return the MD5 sum of the next `limit` bytes, none at the end of the file."""
    digest, n_read = hashlib.md5(usedforsecurity=False), 0
    while limit is None or n_read < limit:
        if link.stop.is_set():
            raise StoppedError
        piece = file.read(CHUNK if limit is None else min(CHUNK, limit - n_read))
        if not piece:
            break
        digest.update(piece)
        n_read += len(piece)
    return digest.digest() if n_read or limit is None else b""
