"""A finished run copied into the clone: what a reviewer reads before running anything.

The ledger and the tables are copied byte by byte, as they are compared; figures, the
report and one subject's executed notebooks are made light.
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minddiff_utils import __version__
from minddiff_utils.core import provenance
from minddiff_utils.core.config import Profile
from minddiff_utils.core.errors import StoreError, system_words
from minddiff_utils.core.machine import processor_name
from minddiff_utils.core.places import project_root
from minddiff_utils.core.store import read_bytes, read_table
from minddiff_utils.reporting.reference import lighter
from minddiff_utils.reporting.reference.about import (
    LIMIT,
    NAME,
    About,
    described,
    read_about,
)
from minddiff_utils.reporting.reference.run import read_manifest

__all__ = ["write_reference"]

#: Widths of images in pixels; the first at which all fits is taken.
_WIDTHS = (1000, 900, 800, 700, 600, 500)
#: A table in Markdown above this is not read by anybody as text.
_MOST_MARKDOWN = 30_000
_OF_SUBJECT = re.compile(r"_subj(\d\d)$")
_TEXT = (".csv", ".md", ".html", ".ipynb", ".json")


def write_reference(
    run: Path,
    target: Path,
    *,
    profile: Profile,
    notebooks: Sequence[str],
    limit: int = LIMIT,
) -> About:
    """Write the reference at `target` from the finished run in the folder `run`.

    Parameters
    ----------
    run : Path
        `figures/<profile>` of a finished run.
    target : Path
        The reference's folder; an earlier reference there is replaced.
    profile : Profile
        What the run was made with.
    notebooks : sequence of str
        Names of the executed notebooks to copy, without suffix.
    limit : int
        Bytes that it may take.

    Returns
    -------
    About
        What made it, and its files.

    Raises
    ------
    StoreError
        A file of the run is missing or damaged, or was made by other versions than are
        installed; it would take more than `limit`, or name this machine's folders; or
        `target` holds something else.
    """
    _check_target(target)
    manifest = read_manifest(run, profile)
    _check_versions(manifest)
    tables = _tables(run)
    for width in _WIDTHS:
        files = {**tables, **_drawn(run, profile, notebooks, width, tables)}
        about = _about(run, profile, manifest, width, files)
        files[NAME] = about.text().encode()
        if sum(map(len, files.values())) <= limit:
            break
    else:
        raise StoreError(_too_large(files, limit))
    for name, data in files.items():
        if name.endswith(_TEXT):
            lighter.check_private(name, data.decode())
    _replace(target, files)
    return about


def _check_target(target: Path) -> None:
    """Raise StoreError unless nothing is lost where `target` is replaced."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if (target / NAME).is_file():
        read_about(target)
    elif target.exists():
        raise StoreError(f"{target} is no reference: move it away or name another.")


def _check_versions(manifest: Mapping[str, Any]) -> None:
    made, here = manifest["versions"], provenance.versions()
    other = [
        f"{name} {made.get(name)}, here {here.get(name)}"
        for name in sorted(made.keys() | here.keys())
        if made.get(name) != here.get(name)
    ]
    if other or made["minddiff-utils"] != __version__:
        raise StoreError(
            f"The run was made by other versions than are installed"
            f" ({'; '.join(other) or __version__}), so nobody could say what made the"
            " reference: run it again here."
        )


def _tables(run: Path) -> dict[str, bytes]:
    """Return the ledger and the tables that the run wrote, and Markdown where light."""
    found = {}
    for path in (run / "claims.csv", *sorted((run / "tables").glob("*.csv"))):
        if not path.with_name(f"{path.name}.manifest.json").is_file():
            continue  # a user's own
        for file in (path, path.with_suffix(".md")):
            light = file == path or _is_light(file)
            if light:
                found[file.relative_to(run).as_posix()] = read_bytes(file)
    return found


def _is_light(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= _MOST_MARKDOWN


def _drawn(
    run: Path,
    profile: Profile,
    notebooks: Sequence[str],
    width: int,
    tables: Mapping[str, bytes],
) -> dict[str, bytes]:
    """Return figures, notebooks and report with images of `width` pixels at most."""
    root = run.parents[1]
    places = {root: ".", project_root(): ".", Path.home(): "~"}
    found = {}
    for path in sorted(run.glob("*.png")):
        subject = _OF_SUBJECT.search(path.stem)
        ours = path.with_name(f"{path.name}.manifest.json").is_file()
        if ours and (subject is None or int(subject[1]) == profile.subjects[0]):
            found[f"{path.stem}.webp"] = lighter.light_figure(read_bytes(path), width)
    for name in notebooks:
        path = run / "notebooks" / f"{name}.ipynb"
        text = lighter.light_notebook(read_bytes(path).decode(), width)
        found[f"notebooks/{path.name}"] = lighter.scrub(text, places).encode()
    note = (
        f"The reference of version {__version__}: images are smaller than in a report"
        f" of your own, and executed notebooks are those of subject"
        f" {profile.subjects[0]} alone."
    )
    html = read_bytes(run / "report.html").decode()
    page = lighter.light_report(html, width, {*tables, *found}, note)
    found["report.html"] = lighter.scrub(page, places).encode()
    return found


def _about(
    run: Path,
    profile: Profile,
    manifest: Mapping[str, Any],
    width: int,
    files: Mapping[str, bytes],
) -> About:
    labels = read_table(run / "claims.csv", ["profile"])["profile"].unique()
    return About(
        version=__version__,
        code=manifest["code"],
        commit=manifest["commit"],
        profile=profile.name,
        digest=profile.digest,
        label=", ".join(map(str, labels)),
        settings=profile.model_dump(mode="json"),
        machine={
            "system": manifest["machine"],
            "processor": processor_name(),
            "cores": os.cpu_count(),
        },
        versions=manifest["versions"],
        notebooks_of_subject=profile.subjects[0],
        widest_image=width,
        files=described(files),
    )


def _too_large(files: Mapping[str, bytes], limit: int) -> str:
    parts: Counter[str] = Counter()
    for name, data in files.items():
        kind = "figures" if name.endswith(".webp") else name.partition("/")[0]
        parts[kind] += len(data)
    largest = ", ".join(f"{k} {n / 1e6:.2f}" for k, n in parts.most_common(4))
    return (
        f"The reference would take {parts.total() / 1e6:.2f} MB with images of"
        f" {_WIDTHS[-1]} pixels, but may take {limit / 1e6:.2f} ({largest}): make the"
        " largest part smaller."
    )


def _replace(target: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` beside `target`, then put them in its place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True
        ) as name:
            made, old = Path(name) / "new", Path(name) / "old"
            for file, data in files.items():
                (made / file).parent.mkdir(parents=True, exist_ok=True)
                (made / file).write_bytes(data)
            if target.exists():
                target.rename(old)
            made.rename(target)
    except OSError as error:
        raise StoreError(
            f"{target} could not be written ({system_words(error)}): free space or mend"
            " permissions there, then run the same command again."
        ) from error
