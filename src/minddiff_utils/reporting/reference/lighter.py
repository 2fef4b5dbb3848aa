"""Figures, notebooks and the report of a run, made light, without what is private."""

import base64
import getpass
import json
import re
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from minddiff_utils.core.errors import StoreError

__all__ = ["check_private", "light_figure", "light_notebook", "light_report", "scrub"]

_WEBP_QUALITY, _JPEG_QUALITY, _N_COLOURS = 75, 80, 64
_EMBEDDED = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
_LINK = re.compile(r'<a href="((?:notebooks|tables)/[^"#]+)">(.*?)</a>')
#: As long as no word is: images in a notebook or a page.
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{200,}")
#: An absolute path of two parts or more; no address, no closing tag.
_PATH = re.compile(r"(?<![\w.~*<:/+-])/[A-Za-z][\w.-]*/[\w.-]+|\b[A-Z]:\\+\w+")


def light_figure(png: bytes, width: int) -> bytes:
    """Return an image as WebP, at most `width` pixels wide."""
    return _encoded(_narrowed(png, width), "WEBP", quality=_WEBP_QUALITY, method=6)


def light_report(html: str, width: int, files: Collection[str], note: str) -> str:
    """Return the report with light images, `note` in its head, and no dead links.

    Links to notebooks and tables stay where `files` has them.
    """

    def image(found: re.Match[str]) -> str:
        data = light_figure(base64.b64decode(found[1]), width)
        return f"data:image/webp;base64,{base64.b64encode(data).decode()}"

    def link(found: re.Match[str]) -> str:
        return found[0] if found[1] in files else found[2]

    page = _LINK.sub(link, _EMBEDDED.sub(image, html))
    return page.replace("</h1>", f"</h1>\n<p>{note}</p>", 1)


def light_notebook(text: str, width: int) -> str:
    """Return an executed notebook with light images, without times and paths of it."""
    notebook = json.loads(text)
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        for output in cell.get("outputs", []):
            _lighten(output.get("data", {}), width)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _lighten(bundle: dict[str, Any], width: int) -> None:
    """Replace a PNG by the lighter of a JPEG and a PNG of few colours."""
    png = bundle.pop("image/png", None)
    if png is None:
        return
    image = _narrowed(base64.b64decode("".join(png)), width)
    few = image.quantize(_N_COLOURS, dither=Image.Dither.NONE)
    forms = {
        "image/png": _encoded(few, "PNG", optimize=True),
        "image/jpeg": _encoded(image, "JPEG", quality=_JPEG_QUALITY, optimize=True),
    }
    kind = min(forms, key=lambda kind: len(forms[kind]))
    bundle[kind] = base64.b64encode(forms[kind]).decode()


def _narrowed(png: bytes, width: int) -> Image.Image:
    with Image.open(BytesIO(png)) as opened:
        image = opened.convert("RGB")
    if image.width <= width:
        return image
    height = max(1, round(image.height * width / image.width))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


# --- what is private ----------------------------------------------------------------


def scrub(text: str, places: Mapping[Path, str]) -> str:
    """Return `text` with each of `places` replaced by its word, the longest first."""
    names = {
        str(form): word
        for place, word in places.items()
        for form in (place.absolute(), place.resolve())
        if len(form.parts) > 1  # the root of all files is in every path
    }
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"{re.escape(name)}(?![\w-])", names[name], text)
    return text


def check_private(name: str, text: str) -> None:
    """Raise StoreError if a file names a folder, a user or a host of this machine."""
    plain = _BASE64.sub("", text)
    for pattern in (_PATH, *_own_names()):
        found = pattern.search(plain)
        if found:
            raise StoreError(
                f"{name} would tell {found[0]!r} of this machine to everybody: have the"
                " notebook that writes it name what lies inside the project alone, and"
                " run it again."
            )


def _own_names() -> list[re.Pattern[str]]:
    """Return what finds this user and host; a host named like a word, beside an @."""
    host = socket.gethostname().partition(".")[0]
    found = [rf"@{re.escape(host)}\b"]
    if re.search(r"[\d-]", host):
        found.append(rf"\b{re.escape(host)}\b")
    with suppress(OSError, KeyError, ImportError):  # a user without a name
        user = re.escape(getpass.getuser())
        found.append(rf"\b{user}@|~{user}\b")
    return [re.compile(pattern) for pattern in found if host]
