"""The only writer: atomic files with a manifest beside each, and the project's tree.

Every artefact is written beside its place and renamed, so that nothing half-written is
ever found; its manifest (`NAME.manifest.json`) says what made it. A shard writes its
share of an artefact into the folder `parts` beside it, and the last shard puts all
shares together. Place in the flow: layer 3; notebooks read and write only through here.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import SoftFileLock, Timeout
from PIL import Image

from minddiff_utils.core import provenance, rng
from minddiff_utils.core.config import (
    READS,
    Origin,
    Profile,
    ProfileView,
    load_profile,
    read_environment,
    shipped_models,
)
from minddiff_utils.core.errors import (
    ConfigError,
    StoreError,
    read_trouble,
    system_words,
)
from minddiff_utils.core.reading import reading
from minddiff_utils.core.rows import BLOCK, Rows, in_blocks
from minddiff_utils.core.surroundings import DETERMINISTIC

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

__all__ = [
    "Run",
    "Tree",
    "alone",
    "digest",
    "discard",
    "discard_stale",
    "expected_origin",
    "fix_threads",
    "is_current",
    "is_intact",
    "judge_files",
    "locked",
    "network_files",
    "read_arrays",
    "read_attrs",
    "read_bytes",
    "read_parts",
    "read_png",
    "read_rows",
    "read_table",
    "start",
    "sweep",
    "write_arrays",
    "write_figure",
    "write_part",
    "write_png",
    "write_table",
    "write_text",
]

_log = logging.getLogger(__name__)
Array = npt.NDArray[Any]
#: Of integers in HDF5; higher levels take longer and save little.
_GZIP_LEVEL = 1


@dataclass(frozen=True)
class Tree:
    """Where everything lives below one root, for one profile."""

    root: Path
    profile_name: str
    nsd: Path
    models_root: Path | None = None

    def derived(self, subject: int) -> Path:
        """Return the folder of a subject's derived artefacts."""
        return self.root / "data" / self.profile_name / "derived" / f"subj{subject:02d}"

    def stage_dir(self, subject: int, stage: str) -> Path:
        """Return the folder of one reconstruction condition of a subject."""
        return self.derived(subject) / stage

    @property
    def models(self) -> Path:
        """Return the folder of the shipped or downloaded model weights.

        The profile's `models.path` where there is one (`--models PATH`), else that of
        the root, else the repository's: a root of its own needs no models of its own.
        """
        own = self.root / "data" / "models"
        return self.models_root or (own if own.is_dir() else shipped_models())

    @property
    def figures(self) -> Path:
        """Return the folder of the run's figures."""
        return self.root / "figures" / self.profile_name

    @property
    def tables(self) -> Path:
        """Return the folder of the run's tables."""
        return self.figures / "tables"

    @property
    def study(self) -> Path:
        """Return the folder of the tables of the study of stage 2."""
        return self.root / "data" / "study" / self.profile_name

    @property
    def notebooks(self) -> Path:
        """Return the folder of the executed notebooks."""
        return self.figures / "notebooks"


def network_files(models: Path, kind: str) -> tuple[Path, ...]:
    """Return the files of the generator and its CLIP in the folder `models`, sorted."""
    folder = models / kind
    files = (p for p in folder.glob("*/**/*") if p.is_file())
    return tuple(sorted(p for p in files if p.relative_to(folder).parts[0] != "judge"))


def judge_files(models: Path, kind: str) -> tuple[Path, ...]:
    """Return the files of the judge and of the field's networks, sorted."""
    folders = (models / kind / "judge", models / "perception")
    return tuple(sorted(p for f in folders for p in f.rglob("*") if p.is_file()))


@dataclass(frozen=True)
class Run:
    """One notebook's run: its profile, its tree and its named random streams."""

    profile: Profile
    tree: Tree
    subject: int | None
    shard: tuple[int, int]
    notebook: str = ""

    @property
    def origin(self) -> Origin:
        """Return where the responses come from, by their own word.

        Notebook 01 takes it from the folder that it reads and writes it into the
        manifest of what it prepares, where later notebooks find it.
        """
        mark = expected_origin(self.profile, self.tree)
        if self.notebook.startswith("00"):
            return "in silico"  # it writes them
        if self.notebook.startswith("01"):
            return mark
        who = self.profile.subjects if self.subject is None else [self.subject]
        paths = [self.tree.derived(subject) / "responses.h5" for subject in who]
        said = {_read_manifest(path).get("origin") for path in paths}
        found = [origin for origin in get_args(Origin) if origin in said] or [mark]
        return found[0] if len(found) == 1 else "mixed"

    @property
    def label(self) -> str:
        """Return the words every figure and table carries: profile, data and models."""
        return self.profile.label(self.origin)

    def stream(self, *names: str | int) -> np.random.Generator:
        """Return the numpy stream `names` under the profile's seed."""
        return rng.stream(self.profile.seed, *names)

    def torch_stream(self, *names: str | int) -> "torch.Generator":
        """Return the torch stream `names` under the profile's seed."""
        return rng.torch_stream(self.profile.seed, *names)

    def batches(self, n_images: int) -> list[list[int]]:
        """Return the rows of this run's shard, of `n_images`, batch by batch.

        Shards share out whole batches: an image then meets the same others in its batch
        however many shards there are, and float32 sums come out the same to the bit.
        """
        index, count = self.shard
        size = self.profile.models.batch_size
        starts = range(0, n_images, size)
        rows = [list(range(k, min(k + size, n_images))) for k in starts]
        return rows[index::count]

    @property
    def is_whole(self) -> bool:
        """Return whether this run makes all images, not a shard of them."""
        return self.shard[1] == 1

    def whole(self) -> "Run":
        """Return the run of all images that this run is a shard of."""
        return replace(self, shard=(0, 1))

    def figure_stem(self, name: str) -> Path:
        """Return where the figure `name` goes, without suffix; a shard's has its own.

        A figure of some images never takes the place of the figure of all.
        """
        path = self.tree.figures / name
        return path if self.is_whole else _part_path(path, self.shard)

    def __repr__(self) -> str:
        """Show what a reader needs to know about where numbers come from."""
        profile = self.profile
        who = f"subject {self.subject}" if self.subject else "all subjects"
        part = profile.part(self.notebook)
        lines = [
            self.label,
            f"{who} · shard {self.shard[0]}/{self.shard[1]} · seed {profile.seed} ·"
            f" digest {profile.part_digest(self.notebook)}",
        ]
        hidden = ("name", "seed")
        return "\n".join(
            [*lines, *(f"{k}: {v}" for k, v in part.items() if k not in hidden)]
        )


def expected_origin(profile: Profile, tree: Tree) -> Origin:
    """Return where the responses of the NSD folder come from, by its mark.

    Of a folder that is not there, or holds nothing of NSD, what the profile would put
    there.
    """
    if any(tree.nsd.glob("nsddata*")):
        return provenance.origin_of(tree.nsd)
    return profile.usual_origin


def _parse_shard(shard: str) -> tuple[int, int]:
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(
            f"shard is {shard!r}, but must read INDEX/COUNT, such as 0/1."
        )
    return int(index), int(count)


def start(
    profile: str,
    *,
    subject: int | None = None,
    shard: str = "0/1",
    overrides: Mapping[str, Any] | None = None,
    notebook: str = "",
) -> Run:
    """Resolve `profile` and return the notebook's run.

    `notebook` is its stem, such as "04_stage2": then the run shows it the part of the
    profile that it may read, and its artefacts depend on that and on the code that it
    reaches; without one they depend on everything.

    Raises
    ------
    ConfigError
        Wrong profile, override, subject or shard.
    """
    resolved = load_profile(profile, overrides)
    if subject is not None and subject not in resolved.subjects:
        known = ", ".join(map(str, resolved.subjects))
        raise ConfigError(
            f"subject {subject} is not in profile {profile!r}: use one of {known}."
        )
    here = read_environment()
    nsd = here.nsd_root or here.root / "data" / profile / "nsd"
    parsed = _parse_shard(shard)
    resolved.check_shards(parsed[1])
    tree = Tree(here.root, profile, nsd, resolved.models.folder(here.root))
    run = Run(resolved, tree, subject, parsed, notebook)
    fix_threads(run)
    # a notebook's tables are read, sentences and all
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_columns", None)
    if notebook not in READS:
        return run
    return replace(run, profile=cast(Profile, ProfileView(resolved, notebook)))


def fix_threads(run: Run) -> None:
    """Pin torch to the profile's threads: sums over another number differ in bits.

    And to algorithms that give the same bits each time. `start` does it; a process that
    is handed a run must do it itself.
    """
    import torch

    models = run.profile.models
    if models.device == "cuda" and torch.cuda.is_available():
        os.environ.update(DETERMINISTIC)  # in a kernel that no runner started, too
    torch.use_deterministic_algorithms(mode=True)
    if models.backbone != "sd14":
        torch.set_num_threads(models.n_threads)


# --- writing ----------------------------------------------------------------------


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the system says of writing to `path` into one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter while HDF5 closes a file
        reason = system_words(error)
        raise StoreError(
            f"{path} could not be written ({reason}): free space or mend permissions "
            "there, then run the same command again."
        ) from error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place.

    A file that has the same bytes already is left as it is, with its time, so that
    what the runner knows about it stays true.
    """
    part = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            if not _same_bytes(part, path):
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _same_bytes(first: Path, second: Path) -> bool:
    if not second.is_file() or first.stat().st_size != second.stat().st_size:
        return False
    return provenance.digest_file(first) == provenance.digest_file(second)


def _write(
    path: Path,
    fill: Callable[[Path], None],
    run: Run,
    inputs: Sequence[Path],
    began: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    with _beside(path) as part:
        fill(part)
    manifest = {
        "artefact": path.name,
        "sha256": provenance.digest_file(path),
        "key": _key(run, inputs, facts),
        "inputs": {str(p.name): digest(p) for p in inputs},
        "profile": run.profile.part_digest(run.notebook),
        "seed": run.profile.seed,
        "subject": run.subject,
        "origin": run.origin,
        "seconds": None if began is None else round(time.time() - began, 3),
        **provenance.describe(run.notebook),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    with _beside(_manifest_path(path)) as part:
        part.write_text(text, encoding="utf-8")
    journal = read_environment().journal
    if journal is not None and facts is None:
        with _writing(journal), journal.open("a", encoding="utf-8") as file:
            file.write(f"{path}\n")


def _manifest_path(path: Path) -> Path:
    return path.with_name(path.name + ".manifest.json")


def digest(path: Path) -> str:
    """Return a file's digest, from its manifest where that can be read.

    A large file without one, such as betas, is known by size and time: to read it for
    its digest would take as long as to read it.
    """
    if not path.is_file():
        return "absent"
    try:
        text = _manifest_path(path).read_text(encoding="utf-8")
        return str(json.loads(text)["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        small = path.stat().st_size < provenance.SMALL_BYTES
        return provenance.digest_file(path) if small else provenance.stamp(path)


def _key(
    run: Run, inputs: Sequence[Path], facts: Mapping[str, Any] | None = None
) -> str:
    digests = [digest(p) for p in inputs]
    if facts is not None:  # these name their own code
        return provenance.digest_json({"facts": facts, "inputs": digests})
    parts = {
        "code": provenance.describe(run.notebook)["code"],
        "profile": run.profile.part_digest(run.notebook),
        "inputs": digests,
    }
    return provenance.digest_json(parts)


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of an artefact; empty where it cannot be read."""
    try:
        manifest = json.loads(_manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # nested beyond Python's depth
        return {}
    return manifest if isinstance(manifest, dict) else {}


def is_intact(path: Path) -> bool:
    """Return whether `path` exists and holds what was once written there."""
    digest = _read_manifest(path).get("sha256")
    with reading(path, StoreError, remedy="run again"):
        return path.is_file() and digest == provenance.digest_file(path)


def is_current(
    path: Path,
    *,
    run: Run,
    inputs: Sequence[Path] = (),
    facts: Mapping[str, Any] | None = None,
) -> bool:
    """Return whether `path` exists, is undamaged and was made from these inputs.

    `facts` as in `write_arrays`.
    """
    key = _key(run, inputs, facts)
    return _read_manifest(path).get("key") == key and is_intact(path)


def write_arrays(
    path: Path,
    arrays: Mapping[str, Array | Rows | Sequence[str]],
    *,
    run: Run,
    inputs: Sequence[Path] = (),
    attrs: Mapping[str, str | int | float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write named arrays (names may hold "/") and attributes to one HDF5 file.

    With `facts` the file is a memory, not a result: its key holds these in the place of
    profile and code, and a run is complete without it.

    The same arrays give the same bytes: no time stamps, fixed order. Integers are
    compressed (gzip, level 1), images one by one, so that one can be read alone; floats
    are not, as gzip takes a tenth off them at 20 MB a second. `Rows` are read and
    written block by block.
    """
    began = time.time()

    def fill(part: Path) -> None:
        with h5py.File(part, "w", track_order=True) as file:
            for name, value in arrays.items():
                _write_dataset(file, name, value)
            for name, fact in (attrs or {}).items():
                file.attrs[name] = fact

    _write(path, fill, run, inputs, began, facts)


def _write_dataset(
    file: h5py.File, name: str, value: Array | Rows | Sequence[str]
) -> None:
    if isinstance(value, Rows):
        _write_compressed(file, name, value)
        return
    array = np.asarray(value)
    if array.dtype.kind in "UO":
        text = array.astype(object)
        kind = h5py.string_dtype("utf-8")
        file.create_dataset(name, data=text, dtype=kind, track_times=False)
    elif array.size > 1024 and array.dtype.kind != "f":
        _write_compressed(file, name, array)
    else:
        file.create_dataset(name, data=array, track_times=False)


def _write_compressed(file: h5py.File, name: str, array: Array | Rows) -> None:
    """Write chunks past HDF5's cache, which ends the process where a disk is full."""
    are_images = array.ndim == 4 and array.dtype == np.uint8
    dataset = file.create_dataset(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(1, *array.shape[1:]) if are_images else True,
        compression="gzip",
        compression_opts=_GZIP_LEVEL,
        track_times=False,
    )
    n_rows = -(-BLOCK // dataset.chunks[0]) * dataset.chunks[0]  # whole chunks
    for rows, block in in_blocks(array, n_rows):
        for part in dataset.iter_chunks((rows, *map(slice, array.shape[1:]))):
            chunk = np.zeros(dataset.chunks, dataset.dtype)
            first = slice(part[0].start - rows.start, part[0].stop - rows.start)
            found = block[(first, *part[1:])]
            chunk[tuple(slice(n) for n in found.shape)] = found
            offset = tuple(axis.start for axis in part)
            dataset.id.write_direct_chunk(
                offset, zlib.compress(chunk.tobytes(), _GZIP_LEVEL)
            )


def write_table(
    path: Path,
    table: pd.DataFrame,
    *,
    run: Run,
    inputs: Sequence[Path] = (),
    caption: str = "",
    printed: pd.DataFrame | None = None,
    twins: bool = True,
) -> None:
    """Write `table` as CSV at `path`, with `.md` and `.tex` twins beside it.

    The twins show `printed` where it is given, such as the same numbers in columns;
    a table too long to be read as text has none.
    """
    label = f"{caption} ({run.label})".strip()
    csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_text(path, csv, run=run, inputs=inputs)
    if not twins:
        return
    table = table if printed is None else printed
    shown = table.map(lambda v: f"{v:.3f}" if isinstance(v, float) else str(v))
    header = "| " + " | ".join(map(str, shown.columns)) + " |"
    rule = "|" + "---|" * shown.shape[1]
    rows = ["| " + " | ".join(row) + " |" for row in shown.itertuples(index=False)]
    markdown = "\n".join([f"{label}", "", header, rule, *rows, ""])
    write_text(path.with_suffix(".md"), markdown, run=run, inputs=inputs)
    tex = _latex(shown, label)
    write_text(path.with_suffix(".tex"), tex, run=run, inputs=inputs)


def _latex(shown: pd.DataFrame, label: str) -> str:
    marks = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"}
    table = str.maketrans(marks)
    lines = [r"\begin{table}", rf"\caption{{{label.translate(table)}}}"]
    lines.append(rf"\begin{{tabular}}{{{'l' * shown.shape[1]}}}\hline")
    lines.append(
        " & ".join(str(c).translate(table) for c in shown.columns) + r" \\\hline"
    )
    for row in shown.itertuples(index=False):
        lines.append(" & ".join(str(v).translate(table) for v in row) + r" \\")
    lines += [r"\hline\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def write_png(
    path: Path,
    image: npt.NDArray[np.uint8],
    *,
    run: Run,
    inputs: Sequence[Path] = (),
) -> None:
    """Write an RGB image, uint8 (height, width, 3), as PNG."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise StoreError(
            f"{path.name} must be a uint8 (height, width, 3) image, "
            f"not {image.dtype} {image.shape}."
        )
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    _write(path, lambda part: _write_bytes(part, buffer.getvalue()), run, inputs)


def _write_bytes(part: Path, data: bytes) -> None:
    part.write_bytes(data)


def write_figure(stem: Path, figure: "Figure | None", *, run: Run) -> None:
    """Write `figure` as `stem.png` and `stem.pdf`, without dates.

    None stands for a figure that this run has not: an earlier run's is deleted.
    """
    for suffix, facts in (
        (".png", {"Software": None}),
        (".pdf", {"CreationDate": None}),
    ):
        path = stem.with_name(stem.name + suffix)
        if figure is None:
            discard(path)
            continue
        buffer = BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata=facts)
        data = buffer.getvalue()
        _write(path, partial(_write_bytes, data=data), run, ())


def write_text(path: Path, text: str, *, run: Run, inputs: Sequence[Path] = ()) -> None:
    """Write `text` as UTF-8."""
    _write(path, lambda part: _write_bytes(part, text.encode()), run, inputs)


# --- shards -----------------------------------------------------------------------


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep `folder` for one run until the block ends; refuse a second one at once.

    The system frees the lock of a process that dies.

    Raises
    ------
    StoreError
        Another process has the folder; the sentence names it.
    """
    path = folder / ".run.lock"
    with ExitStack() as stack:
        file = stack.enter_context(_open_lock(path))
        try:
            _hold(file, path, stack, wait=False)
        except BlockingIOError as error:
            file.seek(0)
            who = f"process {file.read().decode(errors='replace').strip()}"
            raise StoreError(
                f"Another run ({who}) is at work in {folder}: wait until it ends, or"
                " give this one a folder of its own with MINDDIFF_ROOT."
            ) from error
        with _writing(path):
            file.truncate(0)
            file.write(f"{os.getpid()} on {_host()}\n".encode())
        yield


def _hold(file: FileIO, path: Path, stack: ExitStack, *, wait: bool) -> None:
    """Lock `file`, open at `path`, until `stack` ends; BlockingIOError if it is held.

    Where the disk knows no such locks (Lustre as it is mounted by default, some NFS),
    a second file beside it, which names host and process, stands for the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    except BlockingIOError:
        raise
    except OSError as error:
        _log.debug("%s: flock says %s", path, error)
    marker = SoftFileLock(path.with_name(path.name + ".held"), thread_local=False)
    with _writing(path):
        while not _claimed(marker, _SAY_SO_S if wait else 0):
            if not wait:
                break
            _log.warning(
                "Waiting for the process whose number and host are in %s; if it has"
                " ended, delete that file.",
                marker.lock_file,
            )
    if not marker.is_locked:
        raise BlockingIOError(errno.EWOULDBLOCK, str(path))
    stack.callback(marker.release)


def _claimed(marker: SoftFileLock, seconds: float) -> bool:
    try:
        marker.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def _open_lock(path: Path) -> FileIO:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab+", buffering=0)  # nothing is left to write on closing


def sweep(folder: Path) -> None:
    """Delete what writers left half-written below `folder` when they were killed.

    Parts of living processes stay, and for a day those of other machines; so does what
    has no name that a writer gives, such as a user's own or a download under way.
    """
    for part in folder.rglob(".*.*.*.part"):
        *_, host, pid, _ = part.name.rsplit(".", 3)
        if not pid.isdecimal() or not host or not part.is_file():
            continue
        if host == _host():
            left = not _is_alive(int(pid))
        else:
            left = time.time() - part.stat().st_mtime > _A_DAY_S
        if left:
            part.unlink(missing_ok=True)


_A_DAY_S = 24 * 3600
#: After so long a wait for another's lock, and each time again, it is said.
_SAY_SO_S = 60.0


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of `folder`'s lock until the block ends.

    The system frees the lock of a process that dies.
    """
    path = folder / ".lock"
    with ExitStack() as stack:
        _hold(stack.enter_context(_open_lock(path)), path, stack, wait=True)
        yield


def _part_path(path: Path, shard: tuple[int, int], suffix: str = "") -> Path:
    name = f"{path.name}.{shard[0]}-of-{shard[1]}{suffix}"
    return path.parent / "parts" / name


def _parts_of(path: Path) -> list[Path]:
    """Return the shares of `path` that shards have written, the newest last."""
    found = (path.parent / "parts").glob(f"{path.name}.*-of-*.h5")
    return sorted(found, key=lambda part: part.stat().st_mtime_ns)


def discard(path: Path) -> None:
    """Delete an artefact, its manifest and, of a table, its twins; absent is fine."""
    twins = [".md", ".tex"] if path.suffix == ".csv" else []
    for file in (path, *map(path.with_suffix, twins)):
        file.unlink(missing_ok=True)
        _manifest_path(file).unlink(missing_ok=True)


def discard_stale(path: Path, *, run: Run, inputs: Sequence[Path]) -> None:
    """Delete `path` and shards' shares of it unless made by this code from these."""
    for artefact in (path, *_parts_of(path)):
        if not is_current(artefact, run=run, inputs=inputs):
            discard(artefact)


def write_part(
    path: Path, arrays: Mapping[str, Array], *, run: Run, inputs: Sequence[Path]
) -> None:
    """Write this shard's share of the artefact `path`."""
    part = _part_path(path, run.shard, ".h5")
    write_arrays(part, arrays, run=run, inputs=inputs)


def read_parts(
    path: Path, *, run: Run, inputs: Sequence[Path]
) -> list[dict[str, Array]] | None:
    """Return all shards' shares of `path` in order, None while one is missing.

    A share that other code, another profile or other inputs made is missing, too.
    """
    count = run.shard[1]
    parts = [_part_path(path, (index, count), ".h5") for index in range(count)]
    if not all(is_current(part, run=run, inputs=inputs) for part in parts):
        return None
    return [read_arrays(part) for part in parts]


# --- reading ----------------------------------------------------------------------


def _require(path: Path) -> None:
    try:
        if path.is_file():
            return
        is_there = path.exists()
    except OSError as error:
        raise StoreError(f"{path} {read_trouble(error)}.") from error
    again = "move it away and run the notebook that writes it again"
    if path.is_symlink():
        raise StoreError(
            f"{path} is a link to nothing: mount the disk it points to, or {again}."
        )
    if is_there:
        raise StoreError(f"{path} is no file: {again}.")
    parts = _parts_of(path)
    if not parts:
        raise StoreError(
            f"{path} does not exist: run the notebook that writes it first "
            "(./run_all.sh does it in order)."
        )
    shards = [part.stem.removeprefix(f"{path.name}.").split("-of-") for part in parts]
    count = shards[-1][1]
    done = {int(index) for index, of in shards if of == count}
    missing = [f"{index}/{count}" for index in range(int(count)) if index not in done]
    what = f"shard {', '.join(missing)} is missing" if missing else "no shard made it"
    again = missing[0] if missing else f"0/{count}"
    raise StoreError(
        f"{path} is not complete, {what}: run the notebook that writes it with "
        f'shard = "{again}", or minddiff run with --shards {count}.'
    )


@contextmanager
def _reading(path: Path, *, is_proven: bool = False) -> Iterator[None]:
    """Turn whatever the libraries raise at what they read in `path` to one sentence.

    A file that is not what its manifest says is not opened: HDF5 may loop for ever on
    a damaged one, and a flipped bit in a number would be read as another number.
    """
    _require(path)
    remedy = "move it away and run again"
    found = "is damaged and cannot be read"
    with reading(path, StoreError, found=found, remedy=remedy):
        stated = None if is_proven else _read_manifest(path).get("sha256")
        if stated is not None and stated != provenance.digest_file(path):
            raise ValueError("not the digest of its manifest")
        yield


def _lacks(path: Path, names: Iterable[str]) -> StoreError:
    listed = ", ".join(sorted(names))
    return StoreError(f"{path} lacks {listed}: move it away and run again.")


class _Arrays(dict[str, Array]):
    """The arrays of a file by name; one that is not there is said with the path."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __missing__(self, name: str) -> Array:
        raise _lacks(self._path, [str(name)])


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, Array]:
    """Return the arrays of `path` by full name; strings come back as `str`.

    Raises
    ------
    StoreError
        The file is missing or damaged, or a name is not in it; without `names`, as soon
        as such a name is asked for.
    """
    found = _Arrays(path)
    with _reading(path), h5py.File(path, "r", locking=False) as file:

        def visit(name: str, item: object) -> None:
            wanted = names is None or name in names
            if wanted and isinstance(item, h5py.Dataset):
                text = h5py.check_string_dtype(item.dtype) is not None
                found[name] = item.asstr()[...] if text else item[...]

        file.visititems(visit)
    missing = set(names or ()) - set(found)
    if missing:
        raise _lacks(path, missing)
    return found


def read_rows(path: Path, name: str) -> Rows:
    """Return an array of `path` that stays there; rows are read when asked for.

    Raises
    ------
    StoreError
        The file is missing or damaged, or has no such array; also later, while rows are
        read, should it be damaged by then.
    """

    def read(wanted: npt.NDArray[np.int64]) -> Array:
        found = np.empty((len(wanted), *shape[1:]), dtype)
        with (
            _reading(path, is_proven=True),
            h5py.File(path, "r", locking=False) as file,
        ):
            stored = file[name]
            for row in np.argsort(wanted, kind="stable"):  # in the file's own order
                stored.read_direct(found, int(wanted[row]), int(row))
        return found

    with _reading(path), h5py.File(path, "r", locking=False) as file:
        known = isinstance(file.get(name), h5py.Dataset)
        if known:
            shape, dtype = file[name].shape, file[name].dtype
    if not known:
        raise _lacks(path, [name])
    return Rows(read, shape, dtype)


def read_attrs(path: Path) -> dict[str, Any]:
    """Return the attributes of the HDF5 file at `path`."""
    with _reading(path), h5py.File(path, "r", locking=False) as file:
        return {str(k): v for k, v in file.attrs.items()}


def read_bytes(path: Path) -> bytes:
    """Return the content of the file at `path`."""
    with _reading(path):
        return path.read_bytes()


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return the CSV table at `path`.

    Raises
    ------
    StoreError
        The file is missing or damaged, or lacks one of `columns`.
    """
    with _reading(path):
        table = pd.read_csv(path)
    missing = set(columns) - set(table.columns)
    if missing:
        raise _lacks(path, (f"the column {name}" for name in missing))
    return table


def read_png(path: Path) -> npt.NDArray[np.uint8]:
    """Return the PNG at `path` as RGB, uint8 (height, width, 3)."""
    with _reading(path), Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
