"""What is to be downloaded: the bucket's sizes and ETags beside what disk holds.

Writes nothing. Place in the flow: part of `fetch`, before `transfer`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets.fetch.bucket import BUCKET, N_HEADS, http_status, words_of
from minddiff_utils.datasets.fetch.disk import (
    State,
    check_rooms,
    free_bytes,
    in_units,
    on_disk,
    place_of,
)
from minddiff_utils.datasets.fetch.files import Wanted
from minddiff_utils.datasets.nsd.facts import MARK

__all__ = ["FetchPlan", "Item", "ask_bucket", "listing", "plan_fetch"]


@dataclass(frozen=True)
class Item:
    """A wanted file as the bucket states it: bytes and ETag, and what disk holds."""

    wanted: Wanted
    size: int
    etag: str  # without quotes
    is_digest: bool  # False under keys that make an ETag something else than MD5
    state: State
    n_begun: int  # bytes of an earlier try that count

    @property
    def n_left(self) -> int:
        """Return the bytes that are still to be downloaded."""
        there = self.state in ("complete", "unproven")
        return 0 if there else self.size - self.n_begun


@dataclass(frozen=True)
class FetchPlan:
    """What is to be downloaded into `root`.

    Attributes
    ----------
    problems : tuple of str
        One sentence per file that a run needs and the bucket does not give.
    notices : tuple of str
        The same for files that a run can do without.
    n_free : int
        Free bytes of the root's disk.
    """

    client: Any
    bucket: str
    root: Path
    items: tuple[Item, ...]
    problems: tuple[str, ...]
    notices: tuple[str, ...]
    n_free: int

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all files."""
        return sum(item.size for item in self.items)

    @property
    def n_left(self) -> int:
        """Return the bytes that are still to be downloaded."""
        return sum(item.n_left for item in self.items)

    def check_space(self) -> None:
        """Raise StoreError unless what is left fits the disks that it goes to."""
        left = [item for item in self.items if item.n_left]
        check_rooms({place_of(self.root, i.wanted.destination): i.n_left for i in left})


def plan_fetch(
    client: Any, files: Sequence[Wanted], root: Path, *, bucket: str = BUCKET
) -> FetchPlan:
    """Ask the bucket for every size and ETag, and see what `root` holds already.

    Writes nothing. A file is complete if it has the size and, by the record beside
    it, the ETag that the bucket states.

    Raises
    ------
    DataError
        A destination leads out of `root`, which holds in-silico data, or the bucket
        does not answer.
    """
    if (root / MARK).is_file():
        raise DataError(
            f"{root} holds in-silico data ({MARK}), and real files must not be mixed"
            " with them: name another folder for NSD."
        )
    places = [place_of(root, want.destination) for want in files]
    ask = partial(_ask, client, bucket)
    with ThreadPoolExecutor(N_HEADS) as pool:
        answers = list(pool.map(ask, files, places))
    problems, notices = list[str](), list[str]()
    for want, answer in zip(files, answers, strict=True):
        if isinstance(answer, str):
            (notices if want.optional else problems).append(answer)
    return FetchPlan(
        client,
        bucket,
        root,
        tuple(answer for answer in answers if isinstance(answer, Item)),
        tuple(problems),
        tuple(notices),
        free_bytes(root),
    )


def _ask(client: Any, bucket: str, want: Wanted, path: Path) -> Item | str:
    """Return what the bucket says about a file; a sentence where it has none."""
    try:
        return ask_bucket(client, bucket, want, path)
    except ClientError as error:
        if http_status(error) not in (403, 404):
            raise _no_answer(bucket, want.key, error) from error
        less = " (a run can do without it)" if want.optional else ""
        refused = (
            "is not open to the public" if http_status(error) == 403 else "is missing"
        )
        return (
            f"{want.key} {refused} in the bucket {bucket}{less}: check its name in"
            " NSD's manual, or put the file into place by hand."
        )
    except BotoCoreError as error:
        raise _no_answer(bucket, want.key, error) from error


def _no_answer(bucket: str, key: str, error: Exception) -> DataError:
    return DataError(
        f"The bucket {bucket} does not answer about {key} ({words_of(error)}): check"
        " the connection, then run again."
    )


def ask_bucket(client: Any, bucket: str, want: Wanted, path: Path) -> Item:
    """Return a file as the bucket states it; errors of the client go through."""
    head = client.head_object(Bucket=bucket, Key=want.key)
    etag, size = str(head["ETag"]).strip('"'), int(head["ContentLength"])
    keyed = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
    is_digest = not keyed and "SSECustomerAlgorithm" not in head
    state, n_begun = on_disk(path, size, etag)
    return Item(want, size, etag, is_digest, state, n_begun)


def listing(plan: FetchPlan) -> list[str]:
    """Return the plan as lines of text, the totals last."""
    words = {
        "complete": "complete",
        "unproven": "unchecked",
        "begun": "begun",
        "absent": "to fetch",
    }
    lines = [
        f"{in_units(item.size):>8}  {words[item.state]:<9}  {item.wanted.key}"
        f"  ({item.wanted.reason})"
        for item in plan.items
    ]
    n_complete = sum(item.n_left == 0 for item in plan.items)
    total = (
        f"{len(plan.items)} files, {in_units(plan.n_bytes)}; {n_complete} are there,"
        f" {in_units(plan.n_left)} to download to {plan.root};"
        f" {in_units(plan.n_free)} free."
    )
    return [*lines, *plan.notices, *plan.problems, total]
