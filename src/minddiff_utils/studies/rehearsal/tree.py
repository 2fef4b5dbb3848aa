"""The synthetic folder of a rehearsal: in-silico data, enlarged, put in place whole."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.provenance import digest_json, digest_paths
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.insilico.folder import PARTS, find, renewing
from minddiff_utils.insilico.nsd_writer import Glance, look, simulate
from minddiff_utils.studies.rehearsal.enlarge import Size, enlarge
from minddiff_utils.studies.rehearsal.settings import Rehearsal

__all__ = ["write_tree"]

Source = Callable[..., Glance]


def write_tree(
    rehearsal: Rehearsal, *, size: Size | None = None, source: Source = look
) -> bool:
    """Write the rehearsal's NSD folder unless it is there; return whether it was.

    Parameters
    ----------
    rehearsal : Rehearsal
    size : Size, optional
        NSD's own by default; a small one serves tests.
    source : callable
        Of the scenes, as in `simulate`.

    Raises
    ------
    DataError
        The folder cannot be written, or holds files that no rehearsal wrote.
    """
    size = size or rehearsal.size
    simulation, final = rehearsal.profile.simulation, rehearsal.tree.nsd
    if simulation is None:
        raise ConfigError("A rehearsal needs a simulation: make it by `rehearse`.")
    seed, subject = rehearsal.profile.seed, rehearsal.subject
    key = _key(rehearsal, size)
    if find(final, key) is not None:
        return True
    with renewing(final) as renewal:
        small = renewal.fresh / "small"
        simulate(small, simulation, (subject,), seed, source=source)
        enlarge(NsdTree(small), subject, simulation.n_sessions, size, seed)
        for name in PARTS:  # the truth is of the small volumes
            (small / name).rename(renewal.fresh / name)
        shutil.rmtree(small)
        renewal.publish(key, {})
    return False


def _key(rehearsal: Rehearsal, size: Size) -> str:
    """Return what the folder follows from."""
    package = Path(__file__).resolve().parents[2]
    code = [
        *(package / "insilico").glob("*.py"),
        *(package / "studies" / "rehearsal").glob("e*.py"),
    ]
    simulation: Any = rehearsal.profile.simulation
    facts = {
        "simulation": simulation.model_dump(mode="json"),
        "subject": rehearsal.subject,
        "seed": rehearsal.profile.seed,
        "size": [size.grid, size.n_voxels, size.n_brain],
        "code": digest_paths(sorted(code), package),
    }
    return digest_json(facts)
