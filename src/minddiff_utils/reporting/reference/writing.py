"""A finished run copied into the clone: what a reviewer reads before running anything.

The ledger and the tables are copied byte by byte, as they are compared; figures, the
report and one subject's executed notebooks are made light. What names this machine is
taken out or refused.
"""

import base64
import getpass
import hashlib
import json
import os
import re
import socket
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from minddiff_utils import __version__
from minddiff_utils.core import provenance
from minddiff_utils.core.errors import StoreError, writing
from minddiff_utils.core.machine import processor_name
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.store import read_bytes, read_table
from minddiff_utils.reporting.reference.about import (
    LEDGER,
    LIMIT,
    NAME,
    About,
    read_about,
    read_run,
)

__all__ = ["write_reference"]

Files = dict[str, bytes]

#: Widths of images in pixels; the first at which all fits is taken.
_WIDTHS = (1000, 900, 800, 700, 600, 500)
#: A table in Markdown above this is not read by anybody as text: the ledger is refused,
#: others stay out; one above the other
#: number holds every image's scores, of which all others are made.
_MOST_MARKDOWN, _MOST_TABLE = 40_000, 500_000
_TEXT = (".csv", ".md", ".html", ".ipynb", ".json")
_OF_SUBJECT = re.compile(r"_subj(\d\d)$")
_EMBEDDED = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
_LINK = re.compile(r'<a href="((?:notebooks|tables)/[^"#]+)">(.*?)</a>')
#: As long as no word is: images in a notebook or a page.
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{200,}")
#: An absolute path of two parts or more; no address, no closing tag.
_PATH = r"(?<![\w.~*<:/+-])/[A-Za-z][\w.-]*/[\w.-]+|\b[A-Z]:\\+\w+"


def write_reference(
    run: Path,
    target: Path,
    *,
    profile: Profile,
    notebooks: Sequence[str],
    limit: int = LIMIT,
) -> About:
    """Write the reference at `target` from the finished run in the folder `run`.

    `run`: `figures/<profile>`, made with `profile`; `target`: an earlier reference
    there is replaced; `notebooks`: names of the executed ones to copy, without suffix;
    `limit`: bytes that it may take. What made it is returned, with its files. A file of
    the run is missing or damaged, or was made by other versions than are installed; it
    would take more than `limit`, or name this machine's folders; or `target` holds
    something else: StoreError.
    """
    _check_target(target)
    manifest = read_run(run, profile)
    _check_versions(manifest["versions"])
    tables = dict(_tables(run))
    for width in _WIDTHS:
        files = tables | dict(_figures(run, profile, width))
        files |= _notebooks(run, notebooks, width)
        files["report.html"] = _report(run, profile, width, files)
        about = _about(run, profile, manifest, width, files)
        files[NAME] = (json.dumps(asdict(about), indent=1) + "\n").encode()
        if sum(map(len, files.values())) <= limit:
            break
    else:
        raise StoreError(_too_large(files, limit))
    for name, data in files.items():
        if name.endswith(_TEXT):
            _check_private(name, data.decode())
    _replace(target, files)
    return about


def _check_target(target: Path) -> None:
    """Raise StoreError unless nothing is lost where `target` is replaced."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if (target / NAME).is_file():
        read_about(target)
    elif target.exists():
        raise StoreError(f"{target} is no reference: move it away or name another.")


def _check_versions(made: Mapping[str, str]) -> None:
    here = provenance.versions()
    other = [
        f"{name} {made.get(name)}, here {here.get(name)}"
        for name in sorted(made.keys() | here.keys())
        if made.get(name) != here.get(name)
    ]
    if other or made["minddiff-utils"] != __version__:
        raise StoreError(
            f"The run was made by other versions than are installed"
            f" ({'; '.join(other) or __version__}), so nobody could say what made the"
            " reference: run it again here."
        )


def _about(
    run: Path, profile: Profile, manifest: Mapping[str, Any], width: int, files: Files
) -> About:
    labels = read_table(run / LEDGER, ["profile"])["profile"].unique()
    machine = {"system": manifest["machine"], "processor": processor_name()}
    return About(
        version=__version__,
        code=manifest["code"],
        commit=manifest["commit"],
        profile=profile.name,
        digest=profile.digest,
        label=", ".join(map(str, labels)),
        settings=profile.model_dump(mode="json"),
        machine=machine | {"cores": os.cpu_count()},
        versions=manifest["versions"],
        notebooks_of_subject=profile.subjects[0],
        widest_image=width,
        files={
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(files.items())
        },
    )


def _too_large(files: Files, limit: int) -> str:
    parts: Counter[str] = Counter()
    for name, data in files.items():
        kind = "figures" if name.endswith(".webp") else name.partition("/")[0]
        parts[kind] += len(data)
    largest = ", ".join(f"{k} {n / 1e6:.2f}" for k, n in parts.most_common(4))
    return (
        f"The reference would take {parts.total() / 1e6:.2f} MB with images of"
        f" {_WIDTHS[-1]} pixels, but may take {limit / 1e6:.2f} ({largest}): make the"
        " largest part smaller."
    )


def _replace(target: Path, files: Files) -> None:
    """Write `files` beside `target`, then put them in its place."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True
        ) as name:
            made, old = Path(name) / "new", Path(name) / "old"
            for file, data in files.items():
                (made / file).parent.mkdir(parents=True, exist_ok=True)
                (made / file).write_bytes(data)
            if target.exists():
                target.rename(old)
            made.rename(target)


# --- the parts ------------------------------------------------------------------------


def _is_ours(path: Path) -> bool:
    """Return whether the run wrote a file, not a user."""
    return provenance.manifest_path(path).is_file()


def _tables(run: Path) -> Iterator[tuple[str, bytes]]:
    """Give the ledger and the run's tables, and Markdown, as far as they are light."""
    for path in filter(_is_ours, (run / LEDGER, *(run / "tables").glob("*.csv"))):
        if path.stat().st_size > _MOST_TABLE:
            continue
        yield path.relative_to(run).as_posix(), read_bytes(path)
        twin = path.with_suffix(".md")
        size = twin.stat().st_size if twin.is_file() else 0
        if size > _MOST_MARKDOWN and path.name == LEDGER:
            raise StoreError(
                f"{twin} takes {size:,} bytes, but may take {_MOST_MARKDOWN:,}, so"
                " that the ledger is read as text: shorten its statements or reasons."
            )
        if 0 < size <= _MOST_MARKDOWN:
            yield twin.relative_to(run).as_posix(), read_bytes(twin)


def _figures(run: Path, profile: Profile, width: int) -> Iterator[tuple[str, bytes]]:
    """Give the run's figures as WebP; of those by subject the first one's."""
    for path in filter(_is_ours, run.glob("*.png")):
        subject = _OF_SUBJECT.search(path.stem)
        if subject is None or int(subject[1]) == profile.subjects[0]:
            yield f"{path.stem}.webp", _webp(read_bytes(path), width)


def _notebooks(run: Path, names: Sequence[str], width: int) -> Files:
    """Return executed notebooks with light images, without times and paths of them."""
    files = {}
    for name in (f"notebooks/{name}.ipynb" for name in names):
        notebook = json.loads(read_bytes(run / name).decode())
        notebook["metadata"].pop("papermill", None)
        for cell in notebook["cells"]:
            tags = cell["metadata"].get("tags")
            cell["metadata"] = {"tags": tags} if tags else {}
            for output in cell.get("outputs", []):
                _lighten(output, width)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        files[name] = _without_places(text, run).encode()
    return files


def _report(run: Path, profile: Profile, width: int, files: Collection[str]) -> bytes:
    """Return the report with light images, a note in its head, and no dead links."""
    note = (
        f"The reference of version {__version__}: images are smaller than in a report"
        f" of your own, and executed notebooks are those of subject"
        f" {profile.subjects[0]} alone."
    )

    def image(found: re.Match[str]) -> str:
        data = _webp(base64.b64decode(found[1]), width)
        return f"data:image/webp;base64,{base64.b64encode(data).decode()}"

    def link(found: re.Match[str]) -> str:
        return found[0] if found[1] in files else found[2]

    html = read_bytes(run / "report.html").decode()
    page = _LINK.sub(link, _EMBEDDED.sub(image, html))
    page = page.replace("</h1>", f"</h1>\n<p>{note}</p>", 1)
    return _without_places(page, run).encode()


def _webp(png: bytes, width: int) -> bytes:
    return _encoded(_narrowed(png, width), "WEBP", quality=75, method=6)


def _lighten(output: dict[str, Any], width: int) -> None:
    """Replace a PNG by the lighter of a JPEG and a PNG of few colours."""
    bundle = output.get("data", {})
    png = bundle.pop("image/png", None)
    if png is None:
        return
    output["metadata"] = {}  # the width at which the larger one is shown
    image = _narrowed(base64.b64decode("".join(png)), width)
    few = image.quantize(64, dither=Image.Dither.NONE)
    forms = {
        "image/png": _encoded(few, "PNG", optimize=True),
        "image/jpeg": _encoded(image, "JPEG", quality=80, optimize=True),
    }
    kind = min(forms, key=lambda kind: len(forms[kind]))
    bundle[kind] = base64.b64encode(forms[kind]).decode()


def _narrowed(png: bytes, width: int) -> Image.Image:
    with Image.open(BytesIO(png)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((width, image.height), Image.Resampling.LANCZOS, reducing_gap=None)
    return image


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


# --- what is private ------------------------------------------------------------------


def _without_places(text: str, run: Path) -> str:
    """Return `text` with project and home replaced by a word, the longest first."""
    places = {run.parents[1]: ".", project_root(): ".", Path.home(): "~"}
    names = {
        str(form): word
        for place, word in places.items()
        for form in (place.absolute(), place.resolve())
        if len(form.parts) > 1  # the root of all files is in every path
    }
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"{re.escape(name)}(?![\w-])", names[name], text)
    return text


def _check_private(name: str, text: str) -> None:
    """Raise StoreError if a file names a folder, a user or a host of this machine."""
    plain = _BASE64.sub("", text)
    for pattern in (_PATH, *_own_names()):
        found = re.search(pattern, plain)
        if found:
            raise StoreError(
                f"{name} would tell {found[0]!r} of this machine to everybody: have the"
                " notebook that writes it name what lies inside the project alone, and"
                " run it again."
            )


def _own_names() -> Iterator[str]:
    """Give what finds this user and host; a host named like a word, beside an @."""
    host = re.escape(socket.gethostname().partition(".")[0])
    if host:
        yield rf"@{host}\b"
        if re.search(r"[\d-]", host):
            yield rf"\b{host}\b"
    with suppress(OSError, KeyError, ImportError):  # a user without a name
        user = re.escape(getpass.getuser())
        yield rf"\b{user}@|~{user}\b"
