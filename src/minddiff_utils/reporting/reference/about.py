"""`ABOUT.json`: what made a reference, and the digest of each of its files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minddiff_utils.core.errors import DataError, StoreError
from minddiff_utils.core.provenance import digest_file
from minddiff_utils.core.reading import reading

__all__ = ["LIMIT", "NAME", "About", "described", "files_below", "read_about"]

NAME = "ABOUT.json"
#: Bytes that a reference may take in the clone.
LIMIT = 6_000_000
_RESTORE = "restore it with git checkout -- figures/reference"


@dataclass(frozen=True)
class About:
    """What made a reference.

    `code` and `commit` are those that wrote the ledger; `settings` is the resolved
    profile, `digest` its digest; `files` gives bytes and SHA-256 by relative name.
    """

    version: str
    code: str
    commit: str
    profile: str
    digest: str
    label: str
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    notebooks_of_subject: int
    widest_image: int
    files: Mapping[str, Mapping[str, Any]]

    def text(self) -> str:
        """Return the content of `ABOUT.json`."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def words(self) -> str:
        """Return one line on what made the reference."""
        versions = ", ".join(
            f"{name} {self.versions.get(name, 'absent')}"
            for name in ("python", "numpy", "torch")
        )
        return (
            f"version {self.version}, {self.label}, {self.machine['cores']} cores of"
            f" {self.machine['processor']}, {versions}"
        )


def described(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return bytes and SHA-256 of each of `files`, by name."""
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    }


def files_below(folder: Path) -> set[str]:
    """Return the names below `folder` of its files, `ABOUT.json` aside."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found} - {NAME}


def read_about(folder: Path) -> About:
    """Return what made the reference in `folder`, once each file has its digest.

    Raises
    ------
    DataError
        There is no reference.
    StoreError
        A file of it is missing, changed or not of it.
    """
    path = folder / NAME
    if not path.is_file():
        raise DataError(
            f"{folder} holds no reference (no {NAME}): take it from the repository, or"
            " make one from a finished run with minddiff compare --write-reference."
        )
    with reading(path, StoreError, found="describes no reference", remedy=_RESTORE):
        about = About(**json.loads(path.read_text(encoding="utf-8")))
        stated = {name: facts["sha256"] for name, facts in about.files.items()}
    for name in sorted(files_below(folder) | stated.keys()):
        file = folder / name
        if name not in stated:
            raise StoreError(f"{file} is not part of the reference: move it away.")
        if not file.is_file():
            raise StoreError(f"{file} is missing: {_RESTORE}.")
        with reading(file, StoreError, remedy=_RESTORE):
            is_same = digest_file(file) == stated[name]
        if not is_same:
            raise StoreError(f"{file} is not the file that {NAME} states: {_RESTORE}.")
    return about
