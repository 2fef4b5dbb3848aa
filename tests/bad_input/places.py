"""Where nothing can be read or written: files for folders, folders for files.

Permissions say nothing to a superuser, so that none of these rests on them.
"""

from pathlib import Path
from typing import Any

import pytest

from minddiff_utils.core import store
from minddiff_utils.core.locks import alone, locked
from minddiff_utils.core.run import start

from .case import Act, Case
from .world import PROFILE, Damage, World, a_file_for_its_folder, a_folder, holds

DERIVED = "data/smoke/derived/subj01"
LOCK = "data/smoke/.run.lock"


def write(world: World) -> None:
    """Write an artefact, as the end of every notebook does."""
    path = world.derived / "made.txt"
    store.write_text(path, "made", run=world.start())


def draw(world: World) -> None:
    store.write_text(world.figures / "report.html", "made", run=world.start())


def begin(world: World) -> None:
    """Begin a run, as `minddiff run` does."""
    with alone(world.root / "data" / PROFILE):
        pass


def share(world: World) -> None:
    """Wait for the other shards, as notebooks 03 and 04 do."""
    with locked(world.derived):
        pass


def tell(world: World) -> None:
    """Write an artefact where the runner listens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDDIFF_JOURNAL", str(world.root / "journal"))
        write(world)


def elsewhere(world: World) -> None:
    """Ask for the claims of a root that is a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDDIFF_ROOT", str(world.root / "rates.json"))
        run = start(PROFILE)
        store.read_table(run.tree.figures / "claims.csv")


def _folder(path: Path) -> None:
    path.mkdir()


def _case(path: str, act: Act, damage: Damage, found: str, **more: Any) -> Case:
    remedy = "free space or mend permissions there, then run the same command again"
    return Case(act, found, more.pop("remedy", remedy), path, damage, **more)


CASES = {
    "a file for a subject's folder": _case(
        f"{DERIVED}/responses.h5",
        write,
        a_file_for_its_folder,
        "could not be written",
        names="made.txt",
    ),
    "a file for the figures' folder": _case(
        "figures/smoke/claims.csv",
        draw,
        a_file_for_its_folder,
        "could not be written",
        names="report.html",
    ),
    "a folder for an artefact": _case(
        f"{DERIVED}/made.txt", write, _folder, "could not be written"
    ),
    "a folder for a manifest": _case(
        f"{DERIVED}/made.txt.manifest.json",
        write,
        _folder,
        "could not be written",
        leaves=("made.txt",),  # no manifest says that it is current
    ),
    "a folder for the lock of a run": _case(
        LOCK, begin, _folder, "could not be written"
    ),
    "a file for the profile's folder": _case(
        "data/smoke/nsd.manifest.json",
        begin,
        a_file_for_its_folder,
        "could not be written",
        names=".run.lock",
    ),
    "a folder for the lock of shards": _case(
        f"{DERIVED}/.lock", share, a_folder, "could not be written"
    ),
    "a folder for the journal": _case(
        "journal",
        tell,
        _folder,
        "could not be written",
    ),
    "a root that is a file": _case(
        "rates.json", elsewhere, holds("x"), "must be a folder", remedy="set it anew"
    ),
}
