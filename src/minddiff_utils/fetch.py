"""Downloads what a run reads of NSD, file by file, from NSD's public bucket.

Each file is resumed where it was cut off, checked against the size and ETag that the
bucket states, and renamed into place only then. Not here: reading the files (`nsd`),
and the COCO captions, which the bucket does not hold. Place in the flow: layer 4,
before everything else; `minddiff fetch` calls it. It shares no code with `nsd`; a test
asks that `wanted` names every path that `nsd` reads.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event, Lock
from typing import Any, Literal

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import (
    ConnectionError as NoConnectionError,
)
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from minddiff_utils.errors import (
    ConfigError,
    DataError,
    MindDiffError,
    StoreError,
    check_choice,
)
from minddiff_utils.nsd_facts import FACTS
from minddiff_utils.store import locked

__all__ = [
    "BUCKET",
    "QUESTION",
    "FetchPlan",
    "Item",
    "Outcome",
    "Wanted",
    "captions_note",
    "confirm_agreement",
    "fetch",
    "listing",
    "make_client",
    "plan_fetch",
    "progress_bar",
    "wanted",
]

BUCKET = "natural-scenes-dataset"
REGION = "us-east-2"
BETAS_VERSIONS = (
    "betas_fithrf_GLMdenoise_RR",
    "betas_fithrf",
    "betas_assumehrf",
)
QUESTION = (
    "NSD may be used by those who have signed its data access agreement: research and\n"
    "education only, nothing passed on, nobody identified, Allen et al. 2022 cited.\n"
    "  Dataset    https://naturalscenesdataset.org\n"
    "  Terms      https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions\n"
    "  Agreement  https://forms.gle/eT4jHxaWwYUDEf2i9\n"
    "Have you signed NSD's data access agreement? [yes/no] "
)

#: Bytes read at once.
_CHUNK = 1 << 20
#: Tries in a row that bring less than `_WORTHWHILE` bytes before a file is given up.
_N_TRIES = 6
_WORTHWHILE = 16 << 20
#: Seconds before the second try; doubled each time, up to `_LONGEST_WAIT`.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 30.0
_N_HEADS = 8  # questions about sizes at once
_MIB = 1 << 20
#: Part sizes that upload tools use, MiB; tried where the bucket does not state its own.
_USUAL_PARTS = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024)
_TROUBLE = (BotoCoreError, ClientError, HTTPError, OSError)

State = Literal["complete", "unproven", "begun", "absent"]
Proof = Literal["same", "size only", "other"]


@dataclass(frozen=True)
class Wanted:
    """One file that a run reads: key in the bucket, place below the NSD root."""

    key: str
    destination: PurePosixPath
    reason: str
    optional: bool = False  # a run goes on without it, and makes less


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
        Free bytes of the disk.
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
        """Raise StoreError unless what is left fits the disk."""
        if self.n_left > self.n_free:
            raise StoreError(
                f"{_bytes(self.n_left)} are to be downloaded to {self.root}, but"
                f" {_bytes(self.n_free)} are free there: free space, name another"
                " folder, or fetch fewer subjects or sessions."
            )


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
                " give the same command again, which fetches only these."
            )


def _bytes(n: int) -> str:
    """Return `n` in the units of disks.

    >>> _bytes(1_094_000_000), _bytes(12)
    ('1.09 GB', '12 B')
    """
    value, units = float(n), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{n} B" if n < 1000 else f"{value:.2f} {units[0]}"


# --- what a run reads ---------------------------------------------------------------


def wanted(
    subjects: Sequence[int],
    sessions: Sequence[int],
    betas_version: str = BETAS_VERSIONS[0],
    *,
    form: Literal["hdf5", "nii.gz"] = "hdf5",
) -> tuple[Wanted, ...]:
    """Return every file that a run reads of these sessions (ascending, from 1).

    `form` is the container of the betas: both hold the same numbers; hdf5 is read
    faster, nii.gz is half as large.

    Raises
    ------
    ConfigError
        A subject, version, container or session that NSD lacks.
    """
    check_choice(form, ("hdf5", "nii.gz"), "form")
    check_choice(betas_version, BETAS_VERSIONS, "betas_version")
    files = _experiment()
    for subject in dict.fromkeys(subjects):
        check_choice(subject, range(1, 9), "subject")
        n_sessions = FACTS[subject].n_sessions
        if not 1 <= sessions[0] <= sessions[-1] <= n_sessions:
            raise ConfigError(
                f"Session {sessions[-1]} of subject {subject} is asked for, but NSD has"
                f" 1 to {n_sessions}: set data.sessions to one of these."
            )
        files += _volumes(subject)
        files += _betas(subject, sessions, betas_version, form)
        files += _surfaces(subject)
    return (*files, *_meshes("fsaverage"))


def _file(path: str, reason: str, *, optional: bool = False) -> Wanted:
    """Return a wanted file; NSD's bucket and a local copy have one layout."""
    return Wanted(path, PurePosixPath(path), reason, optional)


def _experiment() -> list[Wanted]:
    folder = "nsddata/experiments/nsd"
    return [
        _file(f"{folder}/nsd_expdesign.mat", "which image each trial showed"),
        _file(f"{folder}/nsd_stim_info_merged.csv", "COCO ids of the images"),
        _file("nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "the images"),
    ]


def _volumes(subject: int) -> list[Wanted]:
    ppdata = f"nsddata/ppdata/subj{subject:02d}"
    labels = f"nsddata/freesurfer/subj{subject:02d}/label"
    areas = ("Kastner2015", "prf-visualrois")
    behaviour = "checks the order of the images"
    return [
        _file(f"{ppdata}/behav/responses.tsv", behaviour, optional=True),
        _file(f"{ppdata}/func1pt8mm/brainmask.nii.gz", "voxels of the brain"),
        *(_file(f"{ppdata}/func1pt8mm/roi/{a}.nii.gz", "visual areas") for a in areas),
        _file(
            f"{ppdata}/func1pt8mm/roi/nsdgeneral.nii.gz",
            "voxels in place of the areas (data.voxels)",
            optional=True,
        ),
        *(
            _file(f"{labels}/{a}.mgz.ctab", "names of the areas", optional=True)
            for a in areas
        ),
    ]


def _betas(
    subject: int, sessions: Sequence[int], version: str, form: str
) -> list[Wanted]:
    folder = f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/{version}"
    return [
        _file(f"{folder}/ncsnr.nii.gz", "noise ceiling"),
        *(
            _file(f"{folder}/betas_session{k:02d}.{form}", "responses of one session")
            for k in sessions
        ),
    ]


def _surfaces(subject: int) -> list[Wanted]:
    folder = f"nsddata/ppdata/subj{subject:02d}/transforms"
    names = [
        *("func1pt8-to-layerB1", "func1pt8-to-layerB2", "func1pt8-to-layerB3"),
        "white-to-fsaverage",
    ]
    transforms = [
        _file(f"{folder}/{h}.{name}.mgz", "from voxels to the cortex", optional=True)
        for h in ("lh", "rh")
        for name in names
    ]
    return transforms + _meshes(f"subj{subject:02d}")


def _meshes(anatomy: str) -> list[Wanted]:
    folder = f"nsddata/freesurfer/{anatomy}/surf"
    kinds = ("white", "inflated", "sulc", "full.flat.patch.3d")
    return [
        _file(f"{folder}/{h}.{kind}", "cortical maps", optional=True)
        for h in ("lh", "rh")
        for kind in kinds
    ]


def captions_note(root: Path) -> str | None:
    """Return what to do about COCO's captions, None where they are in place."""
    folder = root / "nsddata_stimuli" / "stimuli" / "nsd" / "annotations"
    names = ("captions_train2017.json", "captions_val2017.json")
    if all((folder / name).is_file() for name in names):
        return None
    return (
        "COCO's captions are not in NSD's bucket and have COCO's own terms: download"
        " annotations_trainval2017.zip from https://cocodataset.org/#download and"
        f" unpack {' and '.join(names)} into {folder}."
    )


# --- the agreement and the client ---------------------------------------------------


def confirm_agreement(ask: Callable[[str], str], *, agreed: bool) -> None:
    """Ask once, in words, whether NSD's agreement is signed; nothing is remembered.

    `ask` shows a question and returns the answer, as `input` does; `agreed` says that
    the command line has answered already.

    Raises
    ------
    ConfigError
        The answer is not yes, or nobody is there to be asked.
    """
    if agreed:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            "Nobody is at a terminal to say that NSD's data access agreement is signed:"
            " read and sign it (https://naturalscenesdataset.org), then say so with"
            " --agreement-signed."
        )
    try:
        answer = ask(QUESTION)
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("yes", "y"):
        raise ConfigError(
            "Nothing was fetched, since NSD's data access agreement is not signed:"
            " sign it (https://naturalscenesdataset.org), then run again."
        )


def make_client(endpoint: str | None = None, *, n_workers: int = 4) -> Any:
    """Return an anonymous S3 client; `endpoint` is the address of a mirror.

    Raises
    ------
    ConfigError
        `endpoint` is no address, or the AWS settings of this account are broken.
    """
    config = Config(
        signature_version=UNSIGNED,
        region_name=REGION,
        connect_timeout=20,
        read_timeout=60,
        retries={"max_attempts": 4, "mode": "standard"},
        max_pool_connections=max(n_workers, _N_HEADS),
        # we check whole files ourselves; a range has no checksum
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    try:
        return boto3.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"No client for {endpoint or 'S3'} can be made ({_reason(error)}): give an"
            " address such as https://host:port, and check the AWS_ settings."
        ) from error


def _reason(error: Exception) -> str:
    """Return an error of a library in a few words."""
    if isinstance(error, ClientError):
        facts = error.response.get("Error", {})
        return f"{facts.get('Code', '?')}: {facts.get('Message', '')}".strip(": ")
    text = error.strerror if isinstance(error, OSError) and error.strerror else error
    return " ".join(str(text).split()) or type(error).__name__


def _status(error: Exception) -> int:
    """Return the HTTP status of the bucket's answer, 0 where there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


# --- the plan -----------------------------------------------------------------------


def plan_fetch(
    client: Any, files: Sequence[Wanted], root: Path, *, bucket: str = BUCKET
) -> FetchPlan:
    """Ask the bucket for every size and ETag, and see what `root` holds already.

    Writes nothing. A file is complete if it has the size and, by the record beside
    it, the ETag that the bucket states.

    Raises
    ------
    DataError
        A destination leads out of `root`, or the bucket does not answer.
    """
    places = [_place(root, want.destination) for want in files]
    ask = partial(_ask, client, bucket)
    with ThreadPoolExecutor(_N_HEADS) as pool:
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
        _n_free(root),
    )


def _place(root: Path, destination: PurePosixPath) -> Path:
    """Return where a file goes, which is below `root`.

    Folders of the root may be links to other disks: that is the user's own choice.
    """
    text, parts = str(destination), destination.parts
    odd = destination.is_absolute() or ".." in parts or not parts
    if odd or "\0" in text or "\\" in text:
        raise DataError(
            f"{text!r} would be written outside of {root}: no file of NSD has such a"
            " place."
        )
    return root.joinpath(*parts)


def _ask(client: Any, bucket: str, want: Wanted, path: Path) -> Item | str:
    """Return what the bucket says about a file; a sentence where it has none."""
    try:
        return _look(client, bucket, want, path)
    except ClientError as error:
        if _status(error) not in (403, 404):
            raise _no_answer(bucket, want.key, error) from error
        less = " (a run can do without it)" if want.optional else ""
        refused = "is not open to the public" if _status(error) == 403 else "is missing"
        return (
            f"{want.key} {refused} in the bucket {bucket}{less}: check its name in"
            " NSD's manual, or put the file into place by hand."
        )
    except BotoCoreError as error:
        raise _no_answer(bucket, want.key, error) from error


def _no_answer(bucket: str, key: str, error: Exception) -> DataError:
    return DataError(
        f"The bucket {bucket} does not answer about {key} ({_reason(error)}): check"
        " the connection, then run again."
    )


def _look(client: Any, bucket: str, want: Wanted, path: Path) -> Item:
    head = client.head_object(Bucket=bucket, Key=want.key)
    etag, size = str(head["ETag"]).strip('"'), int(head["ContentLength"])
    keyed = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
    is_digest = not keyed and "SSECustomerAlgorithm" not in head
    state, n_begun = _on_disk(path, size, etag)
    return Item(want, size, etag, is_digest, state, n_begun)


def _record(path: Path) -> Path:
    """Return the file that holds the ETag of the complete file `path`.

    Hidden, like the part: `nsd` takes any `betas_*` it sees for a session.
    """
    return path.with_name(f".{path.name.removeprefix('.')}.etag")


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _noted(record: Path) -> str | None:
    """Return the ETag in `record`, None where there is none."""
    if record.is_symlink() or not record.is_file():
        return None
    return record.read_text(encoding="utf-8", errors="replace").strip() or None


def _on_disk(path: Path, size: int, etag: str) -> tuple[State, int]:
    """Return the state of a file and the bytes of its part that count."""
    if path.is_file() and path.stat().st_size == size:
        noted = _noted(_record(path))
        if noted == etag:
            return "complete", 0
        if noted is None:  # put there by other means
            return "unproven", 0
    part = _part(path)
    if part.is_symlink() or not part.is_file() or _noted(_record(part)) != etag:
        return "absent", 0
    n_begun = part.stat().st_size
    return ("begun", n_begun) if n_begun <= size else ("absent", 0)


def _n_free(root: Path) -> int:
    """Return the free bytes of the disk that `root` is or will be on."""
    root = root.absolute()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    return shutil.disk_usage(there).free


def listing(plan: FetchPlan) -> list[str]:
    """Return the plan as lines of text, the totals last."""
    words = {
        "complete": "complete",
        "unproven": "unchecked",
        "begun": "begun",
        "absent": "to fetch",
    }
    lines = [
        f"{_bytes(item.size):>8}  {words[item.state]:<9}  {item.wanted.key}"
        f"  ({item.wanted.reason})"
        for item in plan.items
    ]
    n_complete = sum(item.n_left == 0 for item in plan.items)
    total = (
        f"{len(plan.items)} files, {_bytes(plan.n_bytes)}; {n_complete} are there,"
        f" {_bytes(plan.n_left)} to download to {plan.root};"
        f" {_bytes(plan.n_free)} free."
    )
    return [*lines, *plan.notices, *plan.problems, total]


# --- fetching -----------------------------------------------------------------------


class _ChangedError(Exception):
    """The object in the bucket is another one than that planned."""


class _StoppedError(Exception):
    """The user has stopped the whole."""


@dataclass(frozen=True)
class _Link:
    """What every worker holds: the plan, the way to tell progress, the word to stop."""

    plan: FetchPlan
    progress: Callable[[int], None]
    stop: Event


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
    link = _Link(plan, _one_at_a_time(on_progress), Event())
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
                f"{root} cannot be written ({_reason(error)}): mend permissions there,"
                " or name another folder."
            ) from error
        yield


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


def _attempt(link: _Link, item: Item) -> _Done:
    """Fetch one file; a failure becomes a sentence."""
    key = item.wanted.key
    try:
        return _fetch_one(link, item)
    except MindDiffError as error:
        return _Done(key, problem=str(error))
    except _ChangedError:
        problem = "its object changes while it is downloaded"
    except _TROUBLE as error:
        problem = _reason(error)
    return _Done(
        key,
        problem=f"{key} was not fetched ({problem}): run again to go on where it"
        " stopped.",
    )


def _fetch_one(link: _Link, item: Item) -> _Done:
    path = _place(link.plan.root, item.wanted.destination)
    state, _ = _on_disk(path, item.size, item.etag)  # another process may have been by
    if state == "complete":
        return _Done(item.wanted.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    if state == "unproven":
        proof = _prove(link, item, path)
        if proof != "other":
            _write_record(path, item.etag)
            _discard(_part(path))
            return _Done(item.wanted.key, is_size_only=proof == "size only")
    try:
        _download(link, item, path)
    except _ChangedError:  # once more, as it is now
        link.progress(-_discard(_part(path)))
        item = _look(link.plan.client, link.plan.bucket, item.wanted, path)
        _download(link, item, path)
    proof = _prove(link, item, _part(path))
    if proof == "other":
        link.progress(-_discard(_part(path)))
        raise DataError(
            f"{item.wanted.key} came with other bytes than its ETag {item.etag} stands"
            " for and was thrown away: run again, and if it stays so, tell whoever"
            " runs the bucket."
        )
    _put_in_place(path, item)
    return _Done(item.wanted.key, is_new=True, is_size_only=proof == "size only")


def _download(link: _Link, item: Item, path: Path) -> None:
    """Bring the part of `path` to its full size, from where it stands."""
    part = _part(path)
    state, have = _on_disk(path, item.size, item.etag)
    if state != "begun":
        _discard(part)
        _write_record(part, item.etag)
        part.touch()
        have = 0
    n_tries = 0
    while have < item.size:
        try:
            _stream(link, item, part, have)
        except (ClientError, BotoCoreError, HTTPError, ConnectionError) as error:
            before, have = have, part.stat().st_size
            n_tries = 1 if have - before >= _WORTHWHILE else n_tries + 1
            if _status(error) in (404, 412):
                raise _ChangedError from error
            if not _may_pass(error) or n_tries == _N_TRIES:
                raise
            link.stop.wait(min(_FIRST_WAIT * 2 ** (n_tries - 1), _LONGEST_WAIT))
        else:
            have = part.stat().st_size


def _may_pass(error: Exception) -> bool:
    """Return whether the same request may succeed a little later."""
    if isinstance(error, ClientError):
        return _status(error) >= 500 or _status(error) in (408, 429)
    passing = (NoConnectionError, HTTPClientError, IncompleteReadError)
    return isinstance(error, (*passing, HTTPError, ConnectionError))


def _stream(link: _Link, item: Item, part: Path, start: int) -> None:
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
            while piece := body.read(_CHUNK):
                if link.stop.is_set():
                    raise _StoppedError
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


def _discard(part: Path) -> int:
    """Delete a part and its record; return the bytes it had."""
    n_bytes = part.stat().st_size if part.is_file() else 0
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)
    return n_bytes


def _write_record(path: Path, etag: str) -> None:
    """Note the ETag of `path`, at once or not at all."""
    record = _record(path)
    fresh = record.with_name(f"{record.name}.new")
    fresh.write_text(f"{etag}\n", encoding="utf-8")
    fresh.replace(record)


def _put_in_place(path: Path, item: Item) -> None:
    """Give the proven part its name; cut off anywhere, no record says too much."""
    part = _part(path)
    _sync(part)
    _record(path).unlink(missing_ok=True)
    part.replace(path)
    _write_record(path, item.etag)
    _record(part).unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- proof --------------------------------------------------------------------------


def _prove(link: _Link, item: Item, path: Path) -> Proof:
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


def _stated_part_size(link: _Link, item: Item, n_parts: int) -> int | None:
    """Return the size of the object's parts, None where the bucket does not tell."""
    try:
        head = link.plan.client.head_object(
            Bucket=link.plan.bucket, Key=item.wanted.key, PartNumber=1
        )
    except ClientError as error:
        if _may_pass(error):
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


def _etag(link: _Link, path: Path, part_size: int | None) -> str:
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


def _md5(link: _Link, file: Any, limit: int | None) -> bytes:
    """Return the MD5 sum of the next `limit` bytes, none at the end of the file."""
    digest, n_read = hashlib.md5(usedforsecurity=False), 0
    while limit is None or n_read < limit:
        if link.stop.is_set():
            raise _StoppedError
        piece = file.read(_CHUNK if limit is None else min(_CHUNK, limit - n_read))
        if not piece:
            break
        digest.update(piece)
        n_read += len(piece)
    return digest.digest() if n_read or limit is None else b""
