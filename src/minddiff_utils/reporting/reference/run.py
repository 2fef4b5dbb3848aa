"""Whether a folder holds a finished run of a profile, by the ledger's manifest."""

import json
from pathlib import Path
from typing import Any

from minddiff_utils.core.config import Profile
from minddiff_utils.core.errors import ConfigError, DataError, StoreError
from minddiff_utils.core.profile_parts import READS
from minddiff_utils.core.reading import reading

__all__ = ["read_manifest"]

_FACTS = ("profile", "code", "commit", "machine", "versions")


def read_manifest(run: Path, profile: Profile) -> dict[str, Any]:
    """Return the manifest of the ledger of a finished run in the folder `run`.

    Raises
    ------
    DataError
        There is no ledger: the run is not finished.
    ConfigError
        The run was made with other settings than `profile` has.
    StoreError
        The manifest is damaged.
    """
    path = run / "claims.csv.manifest.json"
    again = f"run minddiff run --profile {profile.name} first"
    if not (path.is_file() and (run / "claims.csv").is_file()):
        raise DataError(
            f"{run} holds no finished run of profile {profile.name}: {again}."
        )
    with reading(path, StoreError, remedy="move it away and run again"):
        manifest = dict(json.loads(path.read_text(encoding="utf-8")))
        made_with = {key: manifest[key] for key in _FACTS}["profile"]
    known = {profile.digest, *(profile.part_digest(notebook) for notebook in READS)}
    if made_with not in known:
        raise ConfigError(
            f"{run} was made with other settings than profile {profile.name} has now:"
            " give the --set, --subjects and --models of that run here too, or run"
            " again without them."
        )
    return manifest
