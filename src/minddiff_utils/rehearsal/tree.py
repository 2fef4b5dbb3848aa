"""The synthetic folder of a rehearsal: in-silico data, enlarged, put in place whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minddiff_utils.errors import ConfigError, StoreError
from minddiff_utils.insilico import writer
from minddiff_utils.nsd import NsdTree
from minddiff_utils.provenance import digest_json, digest_paths
from minddiff_utils.rehearsal.enlarge import Size, enlarge
from minddiff_utils.rehearsal.settings import Rehearsal

__all__ = ["write_tree"]

Source = Callable[..., writer.Glance]


def write_tree(
    rehearsal: Rehearsal, *, size: Size | None = None, source: Source = writer.look
) -> bool:
    """Write the rehearsal's NSD folder unless it is there; return whether it was.

    Parameters
    ----------
    rehearsal : Rehearsal
    size : Size, optional
        NSD's own by default; a small one serves tests.
    source : callable
        Of the scenes, as in `writer.simulate`.

    Raises
    ------
    StoreError
        The folder cannot be written.
    """
    size = size or rehearsal.size
    simulation, final = rehearsal.profile.simulation, rehearsal.tree.nsd
    if simulation is None:
        raise ConfigError("A rehearsal needs a simulation: make it by `rehearse`.")
    seed, subject = rehearsal.profile.seed, rehearsal.subject
    note = final.with_name("nsd.json")
    key = _key(rehearsal, size)
    if final.is_dir() and note.is_file() and note.read_text("utf-8") == key:
        return True
    part = final.with_name("nsd.new") / "nsd"
    try:
        note.unlink(missing_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        shutil.rmtree(part.parent, ignore_errors=True)
        part.parent.mkdir(parents=True)
        writer.simulate(part, simulation, (subject,), seed, source=source)
        enlarge(NsdTree(part), subject, simulation.n_sessions, size, seed)
        part.rename(final)
        note.write_text(key, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The rehearsal's data could not be written to {final} ({error.strerror}):"
            " free space or mend permissions there, then run the same command again."
        ) from error
    finally:
        shutil.rmtree(part.parent, ignore_errors=True)
    return False


def _key(rehearsal: Rehearsal, size: Size) -> str:
    """Return what the folder follows from."""
    package = Path(__file__).resolve().parents[1]
    code = [
        *(package / "insilico").glob("*.py"),
        *(package / "rehearsal").glob("e*.py"),
    ]
    simulation: Any = rehearsal.profile.simulation
    facts = {
        "simulation": simulation.model_dump(mode="json"),
        "subject": rehearsal.subject,
        "seed": rehearsal.profile.seed,
        "size": [size.grid, size.n_voxels, size.n_brain],
        "code": digest_paths(sorted(code), package),
    }
    return json.dumps({"key": digest_json(facts)})
