"""What made this: the facts a manifest records beside every artefact.

A key is a hash of everything that can change an artefact's bytes: its inputs, the part
of the profile it depends on, and the source of the code that made it. Place in the
flow: layer 2; `store` writes the manifests.
"""

import hashlib
import json
import platform
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
def code_digest() -> str:
    """Return a digest of the package's own source, file names and contents."""
    package = Path(__file__).resolve().parent
    return digest_paths(sorted(package.rglob("*.py")), package)


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
    command = ["git", "-C", str(project_root()), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def describe() -> dict[str, Any]:
    """Return code digest, commit, versions and machine, for a manifest."""
    return {
        "code": code_digest(),
        "commit": _commit(),
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
