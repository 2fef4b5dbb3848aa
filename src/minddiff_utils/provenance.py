"""What made this: the facts a manifest records beside every artefact.

A key is a hash of everything that can change an artefact's bytes: its inputs, the part
of the profile it depends on, and the source of the code that made it. Place in the
flow: layer 2; `store` writes the manifests.
"""

import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from minddiff_utils.config import project_root

__all__ = ["code_digest", "describe", "digest_file", "digest_json", "versions"]

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


def digest_file(path: Path) -> str:
    """Return the SHA-256 of the file at `path`, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value` as sorted JSON.

    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_digest(notebook: str = "", *, drawing: bool = True) -> str:
    """Return a digest of the package's source, file names and contents.

    Parameters
    ----------
    notebook : str
        Stem of a notebook of the project: only modules that it reaches through imports
        count. Without one, or where there is no such file, all do.
    drawing : bool
        Whether modules that only draw count; no number depends on them.
    """
    package = Path(__file__).resolve().parent
    path = project_root() / "notebooks" / f"{notebook}.ipynb"
    if notebook and path.is_file():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        files = _reached("\n".join(code), package, drawing=drawing)
    else:
        files = set(package.rglob("*.py"))
    return digest_paths(sorted(files), package)


#: Packages that draw and lay out, and that no number comes from.
_DRAWING = ("minddiff_utils.figures", "minddiff_utils.report")
_FROM = re.compile(
    r"^[ \t]*from[ \t]+(minddiff_utils[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)",
    re.MULTILINE,
)
_PLAIN = re.compile(r"^[ \t]*import[ \t]+(minddiff_utils[\w.]*)", re.MULTILINE)


def _reached(code: str, package: Path, *, drawing: bool) -> set[Path]:
    """Return the files of the package that `code` imports, and what these import."""
    found = {package / "__init__.py"}
    waiting = _imported(code)
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        parent = module.rpartition(".")[0]
        if parent and parent not in seen:
            waiting.add(parent)
        seen.add(module)
        if not drawing and module.startswith(_DRAWING):
            continue
        base = package.joinpath(*module.split(".")[1:])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file() and path not in found:
                found.add(path)
                waiting |= _imported(path.read_text(encoding="utf-8")) - seen
    return found


def _imported(code: str) -> set[str]:
    """Return the package's modules that `code` names, and what may be one."""
    modules = set(_PLAIN.findall(code))
    for module, names in _FROM.findall(code):
        modules.add(module)
        for name in re.sub(r"#[^\n]*", "", names).strip("() \n\t").split(","):
            word = name.split()
            if word:
                modules.add(f"{module}.{word[0]}")
    return modules


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
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def _commit() -> str:
    """Return the commit of the project's own repository, "unknown" without one.

    An archive unpacked inside another repository has none.
    """
    root = project_root()
    command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "--short=12"]
    try:
        done = subprocess.run(
            [*command, "HEAD"], capture_output=True, encoding="utf-8", check=True
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
