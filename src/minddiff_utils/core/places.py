"""Where a run's files lie: the caller's environment, paths as users write them."""

import os
from dataclasses import dataclass
from pathlib import Path

from minddiff_utils.core.errors import ConfigError, in_a_line

__all__ = [
    "Environment",
    "notebook_path",
    "place",
    "project_root",
    "read_environment",
    "shipped_models",
]


@dataclass(frozen=True)
class Environment:
    """What the caller's environment says about this run."""

    root: Path
    nsd_root: Path | None
    journal: Path | None


def read_environment() -> Environment:
    """Return the roots and the journal that the runner or a user has set.

    `MINDDIFF_ROOT` (default: the repository) holds data and figures,
    `MINDDIFF_NSD_ROOT` is a real NSD tree, `MINDDIFF_JOURNAL` a file to which the store
    appends the path of each artefact it writes. An empty value is none; `~` is the
    home, and a relative path begins where the command was given.

    Raises
    ------
    ConfigError
        `MINDDIFF_ROOT` is something else than a folder, or names no place.
    """
    root = _named_by("MINDDIFF_ROOT") or project_root()
    if root.exists() and not root.is_dir():
        raise ConfigError(
            f"MINDDIFF_ROOT is {root}, but must be a folder: set it anew."
        )
    return Environment(
        root=root,
        nsd_root=_named_by("MINDDIFF_NSD_ROOT"),
        journal=_named_by("MINDDIFF_JOURNAL"),
    )


def _named_by(variable: str) -> Path | None:
    """Return the absolute path that an environment variable names, None if empty."""
    value = os.environ.get(variable, "").strip()
    return place(value, variable) if value else None


def place(written: str, name: str) -> Path:
    """Return the absolute path that `written` names; `~` is the home.

    Raises
    ------
    ConfigError
        Where it names no place; `name` says which option or setting wrote it.
    """
    try:
        return Path(written).expanduser().absolute()
    except (RuntimeError, OSError, ValueError) as error:  # no home, no folder here
        raise ConfigError(
            f"{name} is {in_a_line(written)}, which names no place here ({error}): give"
            " an absolute path."
        ) from error


def project_root() -> Path:
    """Return the repository's root, found from this file (editable install)."""
    return Path(__file__).resolve().parents[3]


def notebook_path(stem: str, folder: Path | None = None) -> Path:
    """Return where a notebook of the project lies, those of the appendix in their own.

    `folder` is that of the notebooks; by default the project's.
    """
    folder = folder or project_root() / "notebooks"
    return (folder / "appendix" if stem[:1] == "A" else folder) / f"{stem}.ipynb"


def shipped_models() -> Path:
    """Return the repository's folder of models."""
    return project_root() / "data" / "models"
