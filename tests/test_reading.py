"""What the system says of a file is said as such; only its own bytes are damage.

Every reader meets every error that a lock, a disk, a network or the limits of a process
make: the file behind it is whole, and nobody may be told to replace it.
"""

import builtins
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from torch import zeros

from minddiff_utils.core import images, places, store
from minddiff_utils.core.errors import MindDiffError, read_trouble
from minddiff_utils.core.run import Run, start
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.models import weights
from minddiff_utils.studies import unit_rates
from tests.tiny_nsd import Read, one_of_each_kind

NUMBERS = (
    *(errno.EAGAIN, errno.ENOLCK, errno.EDEADLK, errno.EBUSY, errno.EACCES),
    *(errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ETIMEDOUT, errno.ENOTCONN, errno.ENOLINK, errno.EINTR, errno.ENODEV),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EHOSTDOWN, errno.EREMOTEIO, errno.ENXIO),
    *(errno.ENETUNREACH, errno.ECONNRESET, errno.EPROTO, errno.EOVERFLOW, errno.EDQUOT),
)
#: What nobody may be told of a file that may be whole.
FORBIDDEN = ("delete", "damaged", "truncated", "download", "simulate", "restore")


def write_others(root: Path, run: Run) -> dict[str, tuple[Path, Read]]:
    """Write a file of each kind that others than `nsd` read."""
    arrays, table, png = (root / f"made.{end}" for end in ("h5", "csv", "png"))
    store.write_arrays(arrays, {"a": np.arange(3)}, run=run)
    store.write_text(table, "a\n1\n", run=run)
    store.write_png(png, np.zeros((4, 4, 3), np.uint8), run=run)
    picture = root / "picture.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture)
    fields, numbers = root / "config.json", root / "model.safetensors"
    fields.write_text("{}")
    save_file({"a": zeros(3)}, numbers)
    rates = root / "rates.json"
    rates.write_bytes(
        (places.project_root() / "data/cost/cpu_float32.json").read_bytes()
    )
    truth = root / "nsd" / "truth" / "subj01.npz"
    truth.parent.mkdir(exist_ok=True)
    np.savez(truth, a=np.arange(3))
    return {
        "arrays": (arrays, lambda: store.read_arrays(arrays)),
        "bytes": (table, lambda: store.read_bytes(table)),
        "csv": (table, lambda: store.read_table(table)),
        "png": (png, lambda: store.read_png(png)),
        "picture": (picture, lambda: images.read_png(picture)),
        "json": (fields, lambda: weights.read_json(fields)),
        "rates": (rates, lambda: unit_rates.read_rates(rates)),
    }


@pytest.fixture(scope="module")
def readers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, tuple[Path, Read]]]:
    root = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDDIFF_ROOT", str(root))
        run = start("smoke", subject=1)
        nsd = one_of_each_kind(NsdTree(root / "nsd"))
        yield nsd | write_others(root, run)


def said(read: Read) -> str:
    """Return the sentence of a reader that fails."""
    with pytest.raises(MindDiffError) as raised:
        read()
    text = str(raised.value)
    assert text.endswith(".")
    assert len(text.splitlines()) == 1
    return text


def assert_blames_the_system(text: str, number: int, path: Path) -> None:
    words = "not enough memory" if number == errno.ENOMEM else os.strerror(number)
    assert f"cannot be read ({words}): " in text
    assert str(path) in text
    rest = text.replace(str(path), "")
    assert not [word for word in FORBIDDEN if word in rest], text


# --- the system -----------------------------------------------------------------------


class Failing(io.FileIO):
    """A file that opens, and then cannot be read."""

    number = errno.EIO

    def _fail(self, *_: object) -> Any:
        raise OSError(self.number, os.strerror(self.number))

    read = readinto = readall = _fail


def fail_at_open(patch: pytest.MonkeyPatch, path: Path, number: int) -> None:
    """Let every way to open `path` fail as the system would."""
    opened, h5 = io.open, h5py.File

    def refuse(name: Any, *args: Any, **named: Any) -> Any:
        if isinstance(name, (str, Path)) and Path(name) == path:
            raise OSError(number, os.strerror(number), str(path))
        return opened(name, *args, **named)

    def refuse_h5(name: Any, *args: Any, **named: Any) -> Any:
        if Path(name) == path:
            raise OSError(f"Unable to open (failed, errno = {number}, flags = 0)")
        return h5(name, *args, **named)

    patch.setattr(io, "open", refuse)
    patch.setattr(builtins, "open", refuse)
    patch.setattr(h5py, "File", refuse_h5)


READERS = (
    *("design", "table", "stimuli", "captions", "responses", "hdf5", "nii", "mask"),
    *("regions", "ncsnr"),
    *("colours", "transform", "surface", "sulci", "patch", "arrays"),
    *("bytes", "csv", "png", "picture", "json", "rates"),
)


@pytest.mark.parametrize("name", READERS)
def test_no_error_of_the_system_is_taken_for_damage(
    readers: dict[str, tuple[Path, Read]], name: str
) -> None:
    path, read = readers[name]
    for number in NUMBERS:
        with pytest.MonkeyPatch.context() as patch:
            fail_at_open(patch, path, number)
            text = said(read)
        assert_blames_the_system(text, number, path)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_not_there_any_more_is_no_damage(
    readers: dict[str, tuple[Path, Read]], name: str
) -> None:
    """Folder, loop, link to nothing, file in place of a folder: all are real here."""
    path, read = readers[name]
    kept = path.with_name("kept")
    path.rename(kept)
    try:
        for damage in ("folder", "loop", "nothing"):
            if damage == "folder":
                path.mkdir()
            else:
                path.symlink_to(path if damage == "loop" else "/nowhere/at all")
            text = said(read).replace(str(path), "")
            path.rmdir() if damage == "folder" else path.unlink()
            assert not [word for word in FORBIDDEN if word in text], text
    finally:
        kept.rename(path)


def test_a_lock_of_another_program_stops_no_reader(
    readers: dict[str, tuple[Path, Read]],
) -> None:
    import fcntl

    for name in ("hdf5", "stimuli", "arrays"):
        path, read = readers[name]
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            read()


def test_too_little_memory_is_one_sentence(
    readers: dict[str, tuple[Path, Read]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object, **__: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(h5py, "File", too_large)
    for name in ("hdf5", "arrays"):
        assert "(not enough memory): free memory" in said(readers[name][1])


@pytest.mark.parametrize(
    "error",
    [
        OSError("Unable to open file (truncated file: eof = 7, stored_eof = 9)"),
        OSError("Unable to open file (file signature not found)"),
        OSError(errno.EINVAL, "Invalid argument"),  # what damaged files make one ask
        EOFError("Compressed file ended"),
        ValueError("cannot reshape array"),
    ],
)
def test_damage_is_not_taken_for_the_system(error: Exception) -> None:
    assert read_trouble(error) is None


def test_the_system_s_word_is_found_in_the_error_before() -> None:
    hidden = KeyError("no such thing")
    hidden.__context__ = PermissionError(errno.EACCES, "Permission denied")
    assert "Permission denied" in str(read_trouble(hidden))
    wrapped = RuntimeError("I/O error: Input/output error (os error 5)")
    assert "Input/output error" in str(read_trouble(wrapped))


# --- what lies in the place of a file -------------------------------------------------

#: Any text is one of these, until somebody asks for a column or a colour.
TEXTS = ("bytes", "colours", "csv", "rates", "sulci")
POINTERS = {
    b"": "is empty",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n": "git lfs pull",
    b"/annex/objects/SHA256E-s123--4d7a.mat\n": "git annex get",
    b"../../.git/annex/objects/x/SHA256E-s1--4d7a/SHA256E-s1--4d7a": "git annex get",
    b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>': "server's page",
    b"\n<!DOCTYPE html><html><body>404</body></html>": "server's page",
    b"<HTML><HEAD><TITLE>moved</TITLE>": "server's page",
}


@pytest.mark.parametrize("name", [n for n in READERS if n not in TEXTS])
def test_a_pointer_in_the_place_of_a_file_is_said(
    readers: dict[str, tuple[Path, Read]], name: str
) -> None:
    path, read = readers[name]
    sound = path.read_bytes()
    manifest = path.with_name(f"{path.name}.manifest.json")
    listed = manifest.read_bytes() if manifest.exists() else None
    try:
        manifest.unlink(missing_ok=True)
        for content, words in POINTERS.items():
            path.write_bytes(content)
            assert words in said(read)
    finally:
        path.write_bytes(sound)
        if listed is not None:
            manifest.write_bytes(listed)


def test_a_folder_that_may_not_be_entered_is_said(
    readers: dict[str, tuple[Path, Read]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root enters every folder, so that the system's refusal is played."""
    stat = os.stat

    def refuse(path: Any, *args: Any, **named: Any) -> os.stat_result:
        if str(path) == str(refused):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **named)

    monkeypatch.setattr(os, "stat", refuse)
    for name in READERS:
        refused, read = readers[name]
        text = said(read)
        assert "(Permission denied): permit yourself to read it" in text
        assert str(refused) in text
