"""COCO's captions, which NSD's bucket does not hold: two members of one archive.

The archive is known by size and digest, so that it may come over any line.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.provenance import MARK
from minddiff_utils.datasets.nsd.layout import find, inventory, is_there
from minddiff_utils.datasets.part_files import check_space, in_units

__all__ = ["ARCHIVE", "Archive", "captions_missing", "captions_words", "fetch_captions"]

#: Where the two files lie below NSD's root.
_PATHS = tuple(Path(f.path) for f in inventory({}) if f.kind == "captions")
_CHUNK = 1 << 20
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Archive:
    """Where the archive is, and how it is known: bytes and SHA-256."""

    url: str
    size: int
    sha256: str


#: Served without TLS, as the server's certificate is not its own; the digest proves it.
#: MD5 f4bbac642086de4f52a3fdda2de5fa2c in the lists of others.
ARCHIVE = Archive(
    "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    252_907_541,
    "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
)


def captions_missing(root: Path) -> tuple[str, ...]:
    """Return the names of the two files of captions that are not there."""
    return tuple(p.name for p in _PATHS if not is_there(find(root / p)))


def captions_words(root: Path, archive: Archive = ARCHIVE) -> str:
    """Return what is to come from COCO, and its terms; empty if nothing is."""
    missing = captions_missing(root)
    if not missing:
        return ""
    return (
        f"COCO's captions are not in NSD's bucket: {in_units(archive.size)} to download"
        f" from {archive.url}, of which {' and '.join(missing)} are kept. They have"
        " terms of their own (CC BY 4.0, https://cocodataset.org/#termsofuse)."
    )


def fetch_captions(
    root: Path,
    archive: Archive = ARCHIVE,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[str, ...]:
    """Download the archive, keep the files of captions that are missing; return them.

    A file that is there is left as it is. Whatever goes wrong, nothing half-written is
    left.

    Raises
    ------
    ConfigError
        The address is none of the web.
    DataError
        The archive does not come, or is another one than that known.
    StoreError
        It does not fit the disk.
    """
    missing, folder = captions_missing(root), root / _PATHS[0].parent
    if not missing:
        return ()
    if not archive.url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{archive.url!r} is no address of COCO's captions: give one that begins"
            " with http:// or https://."
        )
    if (root / MARK).is_file():
        raise DataError(
            f"{root} holds in-silico data ({MARK}), and COCO's captions must not be"
            " mixed with them: name another folder for NSD."
        )
    packed = folder / ".annotations_trainval2017.zip.part"
    check_space({packed: 2 * archive.size})  # the members unpack to less than it
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(archive, packed, on_progress)
        with zipfile.ZipFile(packed) as found:
            for name in missing:
                _unpack(found, name, folder)
    except HTTPError as error:
        error.close()
        raise _failed(root, f"HTTP status {error.code}", archive) from error
    except (OSError, HTTPException, zipfile.BadZipFile, KeyError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise _failed(root, words, archive) from error
    finally:
        with suppress(OSError):
            packed.unlink(missing_ok=True)
    return missing


def _download(
    archive: Archive, packed: Path, on_progress: Callable[[int], None]
) -> None:
    """Write the archive to `packed`; more or other bytes than known are refused."""
    digest, n_bytes = hashlib.sha256(), 0
    request = Request(archive.url, headers={"User-Agent": "minddiff-utils"})
    with (
        urlopen(request, timeout=_TIMEOUT_S) as answer,
        packed.open("wb") as file,
    ):
        while piece := answer.read(_CHUNK):
            n_bytes += len(piece)
            if n_bytes > archive.size:
                break
            digest.update(piece)
            file.write(piece)
            on_progress(len(piece))
    if n_bytes != archive.size:
        raise OSError(
            f"{'more than ' if n_bytes > archive.size else ''}"
            f"{min(n_bytes, archive.size)} bytes came, but it has {archive.size}"
        )
    if digest.hexdigest() != archive.sha256:
        raise OSError("its SHA-256 is not that of the published archive")


def _unpack(found: zipfile.ZipFile, name: str, folder: Path) -> None:
    """Put one member in place, at once or not at all."""
    part = folder / f".{name}.part"
    try:
        with found.open(f"annotations/{name}") as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
        part.replace(folder / name)
    finally:
        part.unlink(missing_ok=True)


def _failed(root: Path, words: str, archive: Archive) -> DataError:
    names = " and ".join(captions_missing(root))
    return DataError(
        f"COCO's captions could not be fetched from {archive.url} ({words}): run again"
        f" later, or unpack {names} of annotations_trainval2017.zip"
        f" (https://cocodataset.org/#download) into {root / _PATHS[0].parent}."
    )
