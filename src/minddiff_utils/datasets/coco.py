"""COCO's captions: read, and where its archive of them comes from.

What is no caption is never turned into words.
"""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minddiff_utils.datasets.inventory import DataFile, find, is_there
from minddiff_utils.datasets.published import Published
from minddiff_utils.datasets.transfer import Download

__all__ = [
    *("ARCHIVE", "Archive", "captions_by_image", "download_of_captions"),
    *("is_caption", "read_captions"),
]


@dataclass(frozen=True)
class Archive:
    """An archive as it is published: bytes and SHA-256 prove it over any line."""

    url: str
    size: int
    sha256: str


#: COCO's captions. Served without TLS, as the server's certificate is not its own.
#: MD5 f4bbac642086de4f52a3fdda2de5fa2c in the lists of others.
ARCHIVE = Archive(
    "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    252_907_541,
    "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
)


def download_of_captions(
    files: Sequence[DataFile], root: Path, archive: Archive, address: str = ""
) -> tuple[Download, ...]:
    """Return the archive's download where `root` lacks one of the files, else nothing.

    `address`: of a mirror of the archive.
    """
    paths = [Path(file.path) for file in files]
    lacking = [path for path in paths if not is_there(find(root, path))]
    if not lacking:
        return ()
    names, folder = tuple(path.name for path in lacking), lacking[0].parent
    download = Download(
        f"{folder.as_posix()}/annotations_trainval2017.zip",
        address or archive.url,
        f"{' and '.join(names)} of COCO: CC BY 4.0,"
        " https://cocodataset.org/#termsofuse",
        f"unpack {' and '.join(names)} of annotations_trainval2017.zip"
        f" (https://cocodataset.org/#download) into {root / folder}",
        size=archive.size,
        sha256=archive.sha256,
        members=tuple(f"annotations/{name}" for name in names),
    )
    return (download,)


# --- captions -------------------------------------------------------------------------


def read_captions(files: Published, path: Path) -> dict[int, list[str]]:
    """Return the captions of one of `files` by cocoId, in the order of their ids.

    Raises
    ------
    DataError
        The file is missing, or no file of captions.
    """
    with files.reading(path, "COCO captions"):
        raw = json.loads(path.read_text(encoding="utf-8"))
    try:
        return captions_by_image(raw)
    except ValueError as error:
        raise files.wrong(path, str(error), "COCO's caption annotations") from error


def captions_by_image(raw: Any) -> dict[int, list[str]]:
    """Return COCO's captions by cocoId, in the order of their annotation ids.

    A caption without a visible character is none; an annotation that stands twice
    counts once; white space and control characters become single blanks.

    Raises
    ------
    ValueError
        What is wrong, in words: no annotations, an id that is no whole number, a
        caption that is no text, two annotations under one id.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("annotations"), list):
        raise ValueError("no list of annotations")
    seen: dict[int, tuple[int, str]] = {}
    for note in raw["annotations"]:
        number, image = (_whole(note, name) for name in ("id", "image_id"))
        caption = image, _text(note, number)
        if seen.setdefault(number, caption) != caption:
            raise ValueError(f"two different annotations with the id {number}")
    known: dict[int, list[str]] = {}
    for _, (image, text) in sorted(seen.items()):
        if is_caption(text):
            known.setdefault(image, []).append(text)
    return known


def _field(note: Any, name: str) -> Any:
    if not isinstance(note, dict):
        raise ValueError(f"{type(note).__name__} {str(note)[:40]!r} for an annotation")
    if name not in note:
        held = ", ".join(map(str, note)) or "nothing"
        raise ValueError(f"an annotation without {name!r} (it has {held[:80]})")
    return note[name]


def _whole(note: Any, name: str) -> int:
    value = _field(note, name)
    try:
        number = int(value)
        whole = not isinstance(value, bool) and float(value) == number
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(f"{str(value)[:40]!r} for the {name!r} of an annotation")
    return number


def _text(note: Any, number: int) -> str:
    value = _field(note, "caption")
    if not isinstance(value, str):
        kind = "nothing (null)" if value is None else f"{str(value)[:40]!r}"
        raise ValueError(f"{kind} for the caption of annotation {number}")
    kinds = [unicodedata.category(c) for c in value]
    if "Cs" in kinds:  # half of a pair: no file can hold it
        raise ValueError(f"broken Unicode in the caption of annotation {number}")
    visible = (" " if k == "Cc" else c for c, k in zip(value, kinds, strict=True))
    return " ".join("".join(visible).split())


def is_caption(text: str) -> bool:
    r"""Return whether a text has a visible character.

    >>> is_caption("a cat"), is_caption(" \u200b")
    (True, False)
    """
    return any(c.isprintable() and not c.isspace() for c in text)
