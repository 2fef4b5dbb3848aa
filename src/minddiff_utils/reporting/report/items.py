"""What a section of the report may hold, checked when it is made.

Pictures must be PNG, links must stay below the page's folder, and a gallery must say by
which rule its images were chosen.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from minddiff_utils.core.errors import DataError

__all__ = [
    "FigureItem",
    "GalleryItem",
    "LinkItem",
    "Section",
    "TableItem",
    "png_size",
]

_PNG = b"\x89PNG\r\n\x1a\n"
#: Bytes up to the end of width and height, which every PNG has in its first chunk.
_HEAD = 24


def png_size(png: bytes, name: str) -> tuple[int, int]:
    """Return width and height in pixels, read from the head of a PNG.

    Raises
    ------
    DataError
        The bytes are no PNG; the message calls them `name`.

    References
    ----------
    PNG Specification, Third Edition (W3C, 2025), section 11.2.1, IHDR.
    """
    if len(png) < _HEAD or not png.startswith(_PNG) or png[12:16] != b"IHDR":
        raise DataError(f"{name} is no PNG: pass the bytes of the PNG file.")
    width, height = struct.unpack(">II", png[16:_HEAD])
    return int(width), int(height)


@dataclass(frozen=True)
class FigureItem:
    """A figure of the report.

    Attributes
    ----------
    name : str
        Short name, such as the file's.
    png : bytes
        The picture.
    caption : str
        Words that can be read alone.
    alt : str
        What the picture shows, for who cannot see it; the caption where it is empty.
    """

    name: str
    png: bytes = field(repr=False)
    caption: str
    alt: str = ""

    def __post_init__(self) -> None:
        png_size(self.png, f"Figure {self.name!r}")


@dataclass(frozen=True)
class TableItem:
    """A table of the report.

    Attributes
    ----------
    name : str
        Short name, such as the file's.
    table : pandas.DataFrame
        The rows; a column named `verdict` makes it a ledger, whose verdicts are
        coloured and whose rows can be linked to.
    caption : str
        Words that can be read alone.
    open_rows : int
        A table with more rows than this is folded until the reader opens it. A ledger
        is never folded, and paper shows every row.
    """

    name: str
    table: pd.DataFrame
    caption: str
    open_rows: int = 20


@dataclass(frozen=True)
class GalleryItem:
    """Pictures of the same images by several methods, to be compared by eye.

    Attributes
    ----------
    name : str
        Short name.
    rows : mapping of str to sequence of bytes
        Method -> its PNG pictures, one per image. The first row is what the others are
        compared with: the seen images.
    columns : sequence of str
        The images: their ids or a few words each.
    caption : str
        Words that can be read alone.
    rule : str
        How these images were chosen.

    Raises
    ------
    DataError
        There is no row, no image or no rule; a row lacks a picture; or a picture is no
        PNG.
    """

    name: str
    rows: Mapping[str, Sequence[bytes]] = field(repr=False)
    columns: Sequence[str]
    caption: str
    rule: str

    def __post_init__(self) -> None:
        title = f"Gallery {self.name!r}"
        if not self.rows or not self.columns:
            raise DataError(f"{title} is empty: pass at least one row and one image.")
        if not self.rule.strip():
            raise DataError(f"{title} has no rule: say how its images were chosen.")
        for method, pictures in self.rows.items():
            if len(pictures) != len(self.columns):
                raise DataError(
                    f"{title} has {len(pictures)} pictures of {method!r} for"
                    f" {len(self.columns)} images: pass one per image."
                )
            for picture, column in zip(pictures, self.columns, strict=True):
                png_size(picture, f"{title}, {method!r} of image {column!r}")


@dataclass(frozen=True)
class LinkItem:
    """A link to a file beside the page, such as an executed notebook.

    Attributes
    ----------
    text : str
        What is read and clicked.
    href : str
        The file's path from the page's folder, with "/" between folders and not
        escaped: the page does that.

    Raises
    ------
    DataError
        The text is empty, or the path is not one below the page's folder.
    """

    text: str
    href: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise DataError(f"The link to {self.href!r} has no text: say what it is.")
        parts = self.href.split("/")
        # ":" would start a scheme; "\" is "/" to a browser, which also drops controls
        odd = any(c in ":\\" or not c.isprintable() for c in self.href)
        if odd or any(part.strip() in {"", ".", ".."} for part in parts):
            raise DataError(
                f"The link {self.href!r} is no path below the report's folder: pass one"
                " such as 'notebooks/05_evaluation.ipynb'."
            )


@dataclass(frozen=True)
class Section:
    """A section: title and paragraphs, then what it holds, in the order given here.

    Attributes
    ----------
    title : str
        Its heading.
    paragraphs : sequence of str
        Its text.
    tables, figures, galleries : sequences of TableItem, FigureItem, GalleryItem
        Shown as definitions, tables, galleries, figures, links.
    links : sequence of LinkItem
        Files to open: notebooks, tables, figures in print quality.
    definitions : sequence of (str, str)
        Names and what they mean or are set to: methods, settings.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[TableItem] = ()
    figures: Sequence[FigureItem] = field(default=(), repr=False)
    galleries: Sequence[GalleryItem] = field(default=(), repr=False)
    links: Sequence[LinkItem] = ()
    definitions: Sequence[tuple[str, str]] = ()
