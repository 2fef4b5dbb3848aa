"""What is downloaded of a data set: planned, listed, agreed to, brought.

A data set says where its files come from (`nsd.source`). `plan_download` asks the
servers for sizes and ETags and looks at what is there; `download` brings what is
lacking, by `transfer`.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from minddiff_utils.core.errors import ConfigError, DataError, StoreError, system_words
from minddiff_utils.core.locks import locked
from minddiff_utils.core.provenance import MARK
from minddiff_utils.datasets import part_files, transfer
from minddiff_utils.datasets.transfer import Download, Item

__all__ = [
    *("Agreement", "DownloadPlan", "Outcome", "confirm_agreement", "download"),
    *("listing", "plan_download", "progress_bar"),
]

#: Questions about sizes at once.
_N_HEADS = 8


# --- what is to be downloaded ---------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """What a user has to sign before a download: its name, where, and what it says."""

    name: str
    address: str
    terms: str


@dataclass(frozen=True)
class DownloadPlan:
    """What is to be downloaded into `root`.

    Attributes
    ----------
    problems : tuple of str
        One sentence per file that a run needs and the server does not give.
    notices : tuple of str
        The same for files that a run can do without.
    """

    root: Path
    items: tuple[Item, ...]
    problems: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def n_left(self) -> int:
        """Return the bytes that are still to be downloaded."""
        return sum(item.n_left for item in self.items)

    def check_space(self) -> None:
        """Raise StoreError unless what is left fits the disks that it goes to.

        The members of an archive unpack to less than the archive.
        """
        sizes = {
            part_files.place_of(self.root, item.file.path): item.n_left
            + (item.size if item.file.members else 0)
            for item in self.items
            if item.n_left
        }
        part_files.check_space(sizes)


def confirm_agreement(
    agreement: Agreement, ask: Callable[[str], str], *, agreed: bool
) -> None:
    """Ask once, in words, whether an agreement is signed; nothing is remembered.

    `ask` shows a question and returns the answer, as `input` does; `agreed` says that
    the command line has answered already.

    Raises
    ------
    ConfigError
        The answer is not yes, or nobody is there to be asked.
    """
    name, address = agreement.name, agreement.address
    if agreed:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            f"Nobody is at a terminal to say that {name} is signed: read and sign it"
            f" ({address}), then say so with --agreement-signed."
        )
    answer = ""
    with suppress(EOFError):
        answer = ask(f"{agreement.terms}Have you signed {name}? [yes/no] ")
    if answer.strip().lower() not in ("yes", "y"):
        raise ConfigError(
            f"Nothing was fetched, since {name} is not signed: sign it ({address}),"
            " then run again."
        )


def plan_download(files: Sequence[Download], root: Path) -> DownloadPlan:
    """Ask for every size and checksum, and see what `root` holds already.

    Writes nothing. A file is complete if it has the size and, by its record, the
    checksum that is stated.

    Raises
    ------
    ConfigError
        An address is none of the web.
    DataError
        A place leads out of `root`, which holds in-silico data, or a server does not
        answer.
    """
    if (root / MARK).is_file():
        raise DataError(
            f"{root} holds in-silico data ({MARK}), and real files must not be mixed"
            " with them: name another folder."
        )
    for url in dict.fromkeys(file.url for file in files):
        transfer.check_address(url)
    places = [part_files.place_of(root, file.path) for file in files]
    with (
        transfer.open_session(_N_HEADS) as session,
        ThreadPoolExecutor(_N_HEADS) as pool,
    ):
        answers = list(pool.map(lambda *a: transfer.ask(session, *a), files, places))
    items = tuple(answer for answer in answers if isinstance(answer, Item))
    refused: dict[bool, list[str]] = {False: [], True: []}
    for file, answer in zip(files, answers, strict=True):
        if isinstance(answer, str):
            refused[file.optional].append(answer)
    return DownloadPlan(root, items, tuple(refused[False]), tuple(refused[True]))


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
    """What `download` did: counts of files, those known by size alone, and problems."""

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
        desc="download",
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
    with _alone(plan.root), transfer.open_session(n_workers) as session:
        work = transfer.Worker(plan.root, session, on_progress)
        with ThreadPoolExecutor(n_workers) as pool:
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
    size_only = tuple(one.path for one in done if one.by_size_only)
    return Outcome(n_fetched, n_kept, size_only, (*plan.problems, *problems))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep a second download out of `root`."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(root))
        except OSError as error:
            raise StoreError(
                f"{root} cannot be written ({system_words(error)}): mend permissions"
                " there, or name another folder."
            ) from error
        try:
            yield
        finally:
            with suppress(OSError):  # nothing of ours is left among the data
                (root / ".lock").unlink(missing_ok=True)
