"""The only writer: atomic files with a manifest beside each, verified when read.

Every artefact is written beside its place and renamed, so that nothing half-written is
ever found; its manifest (`NAME.manifest.json`) says what made it. A shard that has done
its share of an artefact leaves a mark in the folder `parts` beside it, and the last one
writes the artefact. Notebooks read and write only through here.
"""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from minddiff_utils.core import provenance, table_text
from minddiff_utils.core.errors import StoreError, read_trouble, writing
from minddiff_utils.core.images import encode_png
from minddiff_utils.core.locks import unfinished
from minddiff_utils.core.places import read_environment
from minddiff_utils.core.reading import reading
from minddiff_utils.core.rows import BLOCK, Rows, in_blocks
from minddiff_utils.core.signature import sign
from minddiff_utils.core.types import Array, IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minddiff_utils.core.run import Run

__all__ = [
    "discard",
    "discard_stale",
    "is_current",
    "is_intact",
    "mark_part",
    "part_path",
    "read_arrays",
    "read_bytes",
    "read_png",
    "read_rows",
    "read_table",
    "write_arrays",
    "write_figure",
    "write_png",
    "write_table",
    "write_text",
]

#: Of integers in HDF5; higher levels take longer and save little.
_GZIP_LEVEL = 1


# --- writing ----------------------------------------------------------------------


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place.

    A file that has the same bytes already is left as it is, with its time, so that
    what the runner knows about it stays true.
    """
    part = unfinished(path)
    with writing(path):
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
    fill: Callable[[Path], object],
    run: "Run",
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
        "inputs": {str(p.name): provenance.input_digest(p) for p in inputs},
        "profile": run.profile.part_digest(run.notebook),
        "seed": run.profile.seed,
        "subject": run.subject,
        "origin": run.origin,
        "seconds": None if began is None else round(time.time() - began, 3),
        **provenance.describe(run.notebook),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    with _beside(provenance.manifest_path(path)) as part:
        part.write_text(text, encoding="utf-8")
    journal = read_environment().journal
    if journal is not None and facts is None:
        with writing(journal), journal.open("a", encoding="utf-8") as file:
            file.write(f"{path}\n")


def _key(
    run: "Run", inputs: Sequence[Path], facts: Mapping[str, Any] | None = None
) -> str:
    digests = [provenance.input_digest(p) for p in inputs]
    if facts is not None:  # these name their own code
        return provenance.digest_json({"facts": facts, "inputs": digests})
    parts = {
        "code": provenance.describe(run.notebook)["code"],
        "profile": run.profile.part_digest(run.notebook),
        "inputs": digests,
    }
    return provenance.digest_json(parts)


def is_intact(path: Path) -> bool:
    """Return whether `path` exists and holds what was once written there."""
    digest = provenance.read_manifest(path).get("sha256")
    with reading(path, StoreError, remedy="run again"):
        return path.is_file() and digest == provenance.digest_file(path)


def is_current(
    path: Path,
    *,
    run: "Run",
    inputs: Sequence[Path] = (),
    facts: Mapping[str, Any] | None = None,
) -> bool:
    """Return whether `path` exists, is undamaged and was made from these inputs.

    `facts` as in `write_arrays`.
    """
    key = _key(run, inputs, facts)
    return provenance.read_manifest(path).get("key") == key and is_intact(path)


def write_arrays(
    path: Path,
    arrays: Mapping[str, Array | Rows | Sequence[str]],
    *,
    run: "Run",
    inputs: Sequence[Path] = (),
    facts: Mapping[str, Any] | None = None,
    began: float | None = None,
) -> None:
    """Write named arrays (names may hold "/") to one HDF5 file.

    With `facts` the file is a memory, not a result: its key holds these in the place of
    profile and code, and a run is complete without it. The manifest's seconds count
    from `began`, by default from now.

    The same arrays give the same bytes: no time stamps, fixed order. Integers are
    compressed (gzip, level 1), images one by one, so that one can be read alone; floats
    are not, as gzip takes a tenth off them at 20 MB a second. `Rows` are read and
    written block by block.
    """
    began = began or time.time()

    def fill(part: Path) -> None:
        with h5py.File(part, "w", track_order=True) as file:
            for name, value in arrays.items():
                _write_dataset(file, name, value)

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
            values = block[(first, *part[1:])]
            chunk[tuple(slice(n) for n in values.shape)] = values
            offset = tuple(axis.start for axis in part)
            dataset.id.write_direct_chunk(
                offset, zlib.compress(chunk.tobytes(), _GZIP_LEVEL)
            )


def write_table(
    path: Path,
    table: pd.DataFrame,
    *,
    run: "Run",
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
    shown = table_text.as_text(table)
    for suffix, form in ((".md", table_text.markdown), (".tex", table_text.latex)):
        write_text(path.with_suffix(suffix), form(shown, label), run=run, inputs=inputs)


def write_png(
    path: Path,
    image: npt.NDArray[np.uint8],
    *,
    run: "Run",
    inputs: Sequence[Path] = (),
) -> None:
    """Write an RGB image, uint8 (height, width, 3), as PNG."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise StoreError(
            f"{path.name} must be a uint8 (height, width, 3) image, "
            f"not {image.dtype} {image.shape}."
        )
    _write(path, partial(Path.write_bytes, data=encode_png(image)), run, inputs)


def write_figure(stem: Path, figure: "Figure | None", *, run: "Run") -> None:
    """Write `figure` as `stem.png` and `stem.pdf`, signed by the run, without dates.

    None stands for a figure that this run has not: an earlier run's is deleted.
    """
    if figure is not None:
        sign(figure, run.label)
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
        _write(path, partial(Path.write_bytes, data=buffer.getvalue()), run, ())


def write_text(
    path: Path, text: str, *, run: "Run", inputs: Sequence[Path] = ()
) -> None:
    """Write `text` as UTF-8."""
    _write(path, partial(Path.write_bytes, data=text.encode()), run, inputs)


# --- shards -----------------------------------------------------------------------


def part_path(path: Path, shard: tuple[int, int], suffix: str = "") -> Path:
    """Return where a shard's share of the artefact at `path` lies."""
    name = f"{path.name}.{shard[0]}-of-{shard[1]}{suffix}"
    return path.parent / "parts" / name


def _parts_of(path: Path) -> list[Path]:
    """Return the marks of shards that have done their share of `path`, newest last."""
    marks = (path.parent / "parts").glob(f"{path.name}.*-of-*.done")
    return sorted(marks, key=lambda part: part.stat().st_mtime_ns)


def discard(path: Path) -> None:
    """Delete an artefact, its manifest and, of a table, its twins; absent is fine."""
    twins = [".md", ".tex"] if path.suffix == ".csv" else []
    for file in (path, *map(path.with_suffix, twins)):
        file.unlink(missing_ok=True)
        provenance.manifest_path(file).unlink(missing_ok=True)


def discard_stale(path: Path, *, run: "Run", inputs: Sequence[Path]) -> None:
    """Delete `path` and shards' marks beside it unless made by this code from these."""
    for artefact in (path, *_parts_of(path)):
        if not is_current(artefact, run=run, inputs=inputs):
            discard(artefact)


def mark_part(path: Path, *, run: "Run", inputs: Sequence[Path]) -> None:
    """Say that this shard has done its share of the artefact `path`."""
    write_text(part_path(path, run.shard, ".done"), "", run=run, inputs=inputs)


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
        stated = None if is_proven else provenance.read_manifest(path).get("sha256")
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
    arrays = _Arrays(path)
    with _reading(path), h5py.File(path, "r", locking=False) as file:

        def visit(name: str, item: object) -> None:
            is_asked = names is None or name in names
            if is_asked and isinstance(item, h5py.Dataset):
                text = h5py.check_string_dtype(item.dtype) is not None
                arrays[name] = item.asstr()[...] if text else item[...]

        file.visititems(visit)
    missing = set(names or ()) - set(arrays)
    if missing:
        raise _lacks(path, missing)
    return arrays


def read_rows(path: Path, name: str) -> Rows:
    """Return an array of `path` that stays there; rows are read when asked for.

    Raises
    ------
    StoreError
        The file is missing or damaged, or has no such array; also later, while rows are
        read, should it be damaged by then.
    """

    def read(positions: IntArray) -> Array:
        rows = np.empty((len(positions), *shape[1:]), dtype)
        with (
            _reading(path, is_proven=True),
            h5py.File(path, "r", locking=False) as file,
        ):
            stored = file[name]
            order = np.argsort(positions, kind="stable")  # the file's own
            steps = np.stack([np.diff(order), np.diff(positions[order])])
            ends = 1 + np.flatnonzero((steps != 1).any(axis=0))
            for run in np.split(order, ends) if len(order) else ():
                here, n = run[0], len(run)  # neighbours there and here: one read
                there = slice(positions[here], positions[here] + n)
                stored.read_direct(rows, there, slice(here, here + n))
        return rows

    with _reading(path), h5py.File(path, "r", locking=False) as file:
        known = isinstance(file.get(name), h5py.Dataset)
        if known:
            shape, dtype = file[name].shape, file[name].dtype
    if not known:
        raise _lacks(path, [name])
    return Rows(read, shape, dtype)


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
