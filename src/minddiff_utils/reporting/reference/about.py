"""What made a reference (`ABOUT.json`), and what made a run (its ledger's manifest)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minddiff_utils.core.errors import ConfigError, DataError, StoreError
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_parts import READS
from minddiff_utils.core.provenance import digest_file, manifest_path
from minddiff_utils.core.reading import reading

__all__ = ["LEDGER", "LIMIT", "NAME", "About", "read_about", "read_run"]

NAME, LEDGER = "ABOUT.json", "claims.csv"
#: Bytes that a reference may take in the clone.
LIMIT = 6_000_000
_RESTORE = "restore it with git checkout -- figures/reference"


@dataclass(frozen=True)
class About:
    """What made a reference.

    `version`, `code`, `commit`: of this package, as the ledger was written; `profile`,
    `label`, `digest`: the profile's name, words and digest; `settings`: the resolved
    profile; `machine`: processor and cores; `versions`: library -> version;
    `notebooks_of_subject`: whose executed notebooks are there; `widest_image`: pixels
    to which images were reduced; `files`: relative name -> bytes and SHA-256.
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


def read_about(folder: Path) -> About:
    """Return what made the reference in `folder`; its files have their digests.

    There is no reference: DataError; a file is missing, changed or not of it:
    StoreError.
    """
    path = folder / NAME
    if not path.is_file():
        raise DataError(
            f"{folder} holds no reference (no {NAME}): take it from the repository, or"
            " make one from a finished run with minddiff compare --write-reference."
        )
    with reading(path, StoreError, found="describes no reference", remedy=_RESTORE):
        about = About(**json.loads(path.read_text(encoding="utf-8")))
        stated = {folder / name: f["sha256"] for name, f in about.files.items()}
    present = {file for file in folder.rglob("*") if file.is_file()} - {path}
    for file in sorted(present | stated.keys()):
        if file not in stated:
            raise StoreError(f"{file} is not part of the reference: move it away.")
        if file not in present:
            raise StoreError(f"{file} is missing: {_RESTORE}.")
        with reading(file, StoreError, remedy=_RESTORE):
            is_same = digest_file(file) == stated[file]
        if not is_same:
            raise StoreError(f"{file} is not the file that {NAME} states: {_RESTORE}.")
    return about


def read_run(run: Path, profile: Profile) -> dict[str, Any]:
    """Return the manifest of the ledger of a finished run in the folder `run`.

    Without a ledger, the run is not finished: DataError. It was made with other
    settings than `profile` has: ConfigError. Damaged: StoreError.
    """
    path = manifest_path(run / LEDGER)
    if not (path.is_file() and (run / LEDGER).is_file()):
        raise DataError(
            f"{run} holds no finished run of profile {profile.name}: run minddiff run"
            f" --profile {profile.name} first."
        )
    facts = ("profile", "code", "commit", "machine", "versions")
    with reading(path, StoreError, remedy="move it away and run again"):
        manifest = dict(json.loads(path.read_text(encoding="utf-8")))
        made_with = {key: manifest[key] for key in facts}["profile"]
    known = {profile.digest, *(profile.part_digest(notebook) for notebook in READS)}
    if made_with not in known:
        raise ConfigError(
            f"{run} was made with other settings than profile {profile.name} has now:"
            " give the --set, --subjects and --models of that run here too, or run"
            " again without them."
        )
    return manifest
