"""What made this: the facts a manifest records beside every artefact.

A key is a hash of everything that can change an artefact's bytes: its inputs, the part
of the profile it depends on, and the source of the code that made it. `store` writes
the manifests.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from minddiff_utils.core.places import notebook_path, project_root
from minddiff_utils.core.profile import Origin
from minddiff_utils.core.reach import WHOLE, Package

__all__ = [
    "MARK",
    "SMALL_BYTES",
    "code_digest",
    "describe",
    "digest_file",
    "digest_json",
    "digest_of",
    "input_digest",
    "manifest_path",
    "origin_of",
    "read_manifest",
    "stamp",
    "stamps",
    "versions",
]

#: What a simulation leaves in a folder of its own.
MARK = "IN_SILICO.txt"

#: Packages whose version is recorded because they can move a number.
_PACKAGES = (
    "diffusers",
    "h5py",
    "minddiff-utils",
    "nibabel",
    "numpy",
    "open_clip_torch",
    "pandas",
    "pillow",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "torch",
    "transformers",
)


def origin_of(nsd: Path) -> Origin:
    """Return whether the responses in a folder of NSD's layout were measured."""
    return "in silico" if (nsd / MARK).is_file() else "measured"


def digest_file(path: Path) -> str:
    """Return the SHA-256 of the file at `path`, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


#: Files below this are known by their content too.
SMALL_BYTES = 50_000_000


def stamp(path: Path) -> str:
    """Return size, time of change and, where the file is small, digest of the content.

    A file that cannot be read is known by what can be seen of it.
    """
    try:
        facts = _seen(path)
        if path.stat().st_size >= SMALL_BYTES:
            return facts
        return f"{facts}, {_content(path, facts)[:16]}"
    except OSError as error:
        return error.strerror or "not readable"


def _seen(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} bytes, {status.st_mtime_ns}"


@lru_cache(maxsize=4096)
def _content(path: Path, _facts: str) -> str:
    """Return a file's digest; read again where what is seen of the file has changed."""
    return digest_file(path)


def stamps(paths: Iterable[Path], base: Path) -> dict[str, str]:
    """Return the stamp of each path under its name below `base`.

    A tree that is moved, or copied with the times of its files, has the same.
    """
    return {path.relative_to(base).as_posix(): stamp(path) for path in paths}


def digest_json(value: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value` as sorted JSON.

    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


#: Packages that draw and lay out, and that no number comes from.
_DRAWING = ("minddiff_utils.reporting.figures", "minddiff_utils.reporting.report")


@cache
def _package() -> Package:
    return Package(Path(__file__).resolve().parents[1])


def read_package() -> None:
    """Read the whole package now, so that digests of parts of it take no time later.

    Processes forked from this one then need not read it again.
    """
    package = _package()
    package.reached(roots=[(name, WHOLE) for name in package.all_modules])


@cache
def code_digest(notebook: str = "", *, drawing: bool = True) -> str:
    """Return a digest of the package's source.

    Parameters
    ----------
    notebook : str
        Stem of a notebook of the project: only what it reaches counts (`reach`).
        Without one, or where there is no such file, all of it does.
    drawing : bool
        Whether modules that only draw count; no number depends on them.
    """
    package = _package()
    path = notebook_path(notebook)
    if not (notebook and path.is_file()):
        return digest_paths(package.files, package.folder)
    without = () if drawing else _DRAWING
    reached = package.reached(_cells(path), without=without)
    return digest_json(dict(package.text(reached)))


def _cells(path: Path) -> str:
    """Return the code of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


@cache
def digest_of(*functions: Callable[..., Any], without: tuple[str, ...] = ()) -> str:
    """Return a digest of the code that functions of this package reach.

    `without`: full names of modules of which nothing counts.
    """
    roots = [(f.__module__, f.__qualname__.partition(".")[0]) for f in functions]
    reached = _package().reached(roots=roots, without=without)
    return digest_json(dict(_package().text(reached)))


def digest_paths(paths: Iterable[Path], base: Path) -> str:
    """Return a digest over the names (below `base`) and contents of `paths`."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.relative_to(base).as_posix().encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can move a number."""
    known = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            known[name] = "absent"
    return known


@cache
def _commit() -> str:
    """Return the commit of the project's own repository, "unknown" without one.

    An archive unpacked inside another repository has none.
    """
    root = project_root()
    # whoever owns the files: reading a commit runs nothing of theirs
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    command += ["rev-parse", "--show-toplevel", "--short=12", "HEAD"]
    # GIT_DIR and its like name another repository
    variables = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, encoding="utf-8", check=True
        )
        top, commit = done.stdout.splitlines()
        return commit if Path(top).samefile(root) else "unknown"
    except (OSError, ValueError, subprocess.CalledProcessError):
        return "unknown"


def describe(notebook: str = "") -> dict[str, Any]:
    """Return code digest, commit, versions and machine, for a manifest.

    The code is what numbers of `notebook` come from, all of it without one.
    """
    return {
        "code": code_digest(notebook, drawing=not notebook),
        "commit": _commit(),
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


# --- what a manifest states ---------------------------------------------------------


def manifest_path(path: Path) -> Path:
    """Return where the manifest of the artefact at `path` lies."""
    return path.with_name(path.name + ".manifest.json")


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of an artefact; empty where it cannot be read."""
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # nested beyond Python's depth
        return {}
    return manifest if isinstance(manifest, dict) else {}


def input_digest(path: Path) -> str:
    """Return a file's digest, from its manifest where that can be read.

    A large file without one, such as betas, is known by size and time: to read it for
    its digest would take as long as to read it.
    """
    if not path.is_file():
        return "absent"
    try:
        text = manifest_path(path).read_text(encoding="utf-8")
        return str(json.loads(text)["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        small = path.stat().st_size < SMALL_BYTES
        return _content(path, _seen(path)) if small else stamp(path)
