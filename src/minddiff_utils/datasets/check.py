"""What an NSD folder holds, what it lacks and what is damaged: `minddiff check`.

Each file of the inventory is read as a run reads it and compared with the others
(`check_files`), cheaply: headers, shapes, types, lengths, and the whole of what is
small; `deep` reads the betas and the images seen as well. Nothing raises on a damaged
file: it becomes a finding with the reader's sentence. In a folder that no simulation
marked as its own, the constants that NSD publishes must hold, too. Writes nothing.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError, check_choice, check_exists
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.core.reading import reading
from minddiff_utils.core.types import Array, IntArray
from minddiff_utils.datasets import findings as outcomes
from minddiff_utils.datasets.check_files import Scope, Space, check_betas, check_file
from minddiff_utils.datasets.findings import Count, Finding, Report
from minddiff_utils.datasets.further_tests.check import check_further
from minddiff_utils.datasets.inventory import DataFile
from minddiff_utils.datasets.leaks import caption_keys, leaking_words, pairs_across
from minddiff_utils.datasets.nsd import layout
from minddiff_utils.datasets.nsd.data_set import check_trials
from minddiff_utils.datasets.nsd.publisher import NSD
from minddiff_utils.datasets.nsd.reader import NsdTree

__all__ = ["before_run", "check_folder"]

Grid = tuple[int, ...]
#: A volume of one subject by its name, None where it is not sound.
Volumes = dict[str, Array | None]
#: Split of COCO -> cocoId -> captions.
Captions = Mapping[str, Mapping[int, Sequence[str]]]

_VOLUMES = ("brain mask", "Kastner2015", "prf-visualrois", "nsdgeneral", "ncsnr")
#: Counts of images, those that NSD publishes first.
_IMAGES = (
    *("distinct images", "shared images", "other images", "images with 3 trials"),
    *("images with 1 trial", "images with 2 trials"),
)


def check_folder(
    root: Path,
    *,
    subjects: Sequence[int],
    sessions: Sequence[int],
    betas_version: str,
    deep: bool = False,
    further: bool = False,
) -> Report:
    """Look at every file that a run on `root` would read.

    Parameters
    ----------
    root : Path
        Folder in NSD's layout, real or in silico; only read.
    subjects : sequence of int
        1..8.
    sessions : sequence of int
        Ascending, from 1: these must be there; others that are there are looked at.
    betas_version : str
        Folder of the betas, such as "betas_fithrf_GLMdenoise_RR".
    deep : bool
        Read betas and images seen as well: minutes to hours on the real data.
    further : bool
        NSD-synthetic and NSD-imagery must be there; else they are looked at where they
        are.

    Raises
    ------
    ConfigError
        A subject or a session that NSD does not have.
    DataError
        `root` is no folder, or holds none of NSD's folders.
    """
    tree = NsdTree(root, betas_version)
    scope = Scope(tree, tuple(sessions), tuple(subjects), deep)
    report = _check(scope)
    more = check_further(scope, subjects, needed=further)
    return replace(report, findings=(*report.findings, *more))


def before_run(
    root: Path, subjects: Sequence[int], data: DataConfig, n_captions: int
) -> tuple[list[str], list[str]]:
    """Look, within seconds, at what notebook 01 is about to read of some subjects.

    The findings of `check_folder`, without what the run does not read: sessions that
    are not asked for, and the constants that NSD publishes.

    Returns
    -------
    list of str
        A sentence, with its remedy, for each thing that the run would stumble over.
    list of str
        The same for optional things: surfaces, transforms, behaviour.

    Raises
    ------
    DataError
        As `check_folder`.
    """
    asked = Scope(
        NsdTree(root, data.betas_version),
        data.session_numbers,
        tuple(subjects),
        before_run=True,
        voxels=data.voxels,
        n_captions=n_captions,
    )
    findings = _check(asked).findings
    needed = [f for f in findings if f.is_unusable and not f.optional]
    return outcomes.sentences(needed), outcomes.sentences(
        [f for f in findings if f.optional]
    )


def _check(scope: Scope) -> Report:
    for subject in scope.subjects:
        check_choice(subject, range(1, 9), "subject")
    for session in scope.sessions:
        check_choice(session, range(1, layout.N_SESSIONS + 1), "sessions")
    root, remedy = scope.tree.root, "give the path of the NSD folder"
    check_exists(root, "The NSD folder", "give its path")
    if not root.is_dir():
        raise DataError(f"{root} is no folder: {remedy}.")
    with reading(root, DataError, remedy=remedy):
        is_nsd = any((root / part).is_dir() for part in layout.PARTS)
    if not is_nsd:
        raise DataError(
            f"{root} holds none of {', '.join(layout.PARTS)}: give the path of the"
            " folder that contains them."
        )
    sessions = {subject: scope.asked(subject) for subject in scope.subjects}
    files = layout.inventory(sessions, scope.tree.betas_version)
    shared = (file for file in files if not isinstance(file.subject, int))
    findings, counts = [check_file(scope, file) for file in shared], list[Count]()
    for subject in scope.subjects:
        own = [file for file in files if file.subject == subject]
        found, counted = _look_at_subject(scope, subject, own)
        findings += found
        counts += counted
    real = scope.tree.is_real
    return Report(root, real, scope.sessions, tuple(findings), tuple(counts))


# --- one subject ----------------------------------------------------------------------


def _look_at_subject(
    scope: Scope, subject: int, files: Sequence[DataFile]
) -> tuple[list[Finding], list[Count]]:
    """Look at everything of one subject, and count trials, images and voxels."""
    findings = dict[str, Finding]()
    for file in (file for file in files if file.kind != "betas"):
        table = findings.get(f"labels of {file.names.get('name')}")
        if file.kind == "roi" and table is not None and table.is_unusable:
            continue  # nothing tells what the numbers mean
        finding = check_file(scope, file)
        findings[finding.item] = finding
    volumes, grid = _compare_volumes(scope, subject, findings)
    areas = _areas(scope, subject, findings, volumes)
    inside = None if areas is None else areas >= 0
    betas, sound = check_betas(scope, Space(subject, grid, inside))
    counts = _counts(scope, subject, volumes, areas, sound)
    # lacking sessions have findings of their own
    there = [n for n in scope.asked(subject) if not sound or n <= max(sound)]
    agreements = _agreements(scope, subject, findings["responses"], there)
    return [*findings.values(), *betas, *agreements, *_unlike(counts)], counts


def _compare_volumes(
    scope: Scope, subject: int, findings: dict[str, Finding]
) -> tuple[Volumes, Grid | None]:
    """Return the sound volumes, and their grid; those that do not lie on it are not."""
    volumes = {name: scope.values.get((subject, name)) for name in _VOLUMES}
    shapes = Counter(v.shape for v in volumes.values() if v is not None)
    grid: Grid | None = shapes.most_common(1)[0][0] if shapes else None
    if scope.published:
        grid = layout.FACTS[subject].grid
    for name, values in volumes.items():
        if values is not None and values.shape != grid:
            _blame(findings, name, f"shape {values.shape}", f"{grid}")
            volumes[name] = None
    return volumes, grid


def _blame(findings: dict[str, Finding], name: str, found: str, expected: str) -> None:
    """Say of a file that could be read what makes it useless."""
    path = findings[name].path or Path(name)
    error = NSD.wrong(path, found, expected)
    findings[name] = outcomes.spoilt(findings[name], error)


def _areas(
    scope: Scope, subject: int, findings: dict[str, Finding], volumes: Volumes
) -> IntArray | None:
    """Return the areas, None where they are not known; blame what makes them useless.

    Nothing could be decoded without a voxel, or with a noise ceiling of 0.
    """
    if volumes["Kastner2015"] is None or volumes["prf-visualrois"] is None:
        return None
    areas = scope.tree.areas(subject)
    inside, ncsnr = areas >= 0, volumes["ncsnr"]
    if not inside.any():
        _blame(findings, "Kastner2015", "no voxel in any of the areas", "one at least")
        return None
    if ncsnr is not None and not (ncsnr[inside] > 0).any():
        _blame(findings, "ncsnr", "no voxel of the areas above 0", "one at least")
    return areas


# --- what several files must say alike ------------------------------------------------


def _agreements(
    scope: Scope, subject: int, behaviour: Finding, sessions: Sequence[int]
) -> list[Finding]:
    """Return findings on what several files must say alike, where they are sound."""
    table = scope.values.get((None, "stimulus table"))
    if scope.design is None or table is None:
        return []
    n_sessions, findings = max(sessions, default=0), list[Finding]()

    def compare(item: str, read: Callable[..., None], *args: Any) -> None:
        findings.append(outcomes.look(Finding(subject, item), read, *args)[0])

    if n_sessions and not behaviour.is_unusable:
        compare("image of every trial", check_trials, scope.tree, subject, n_sessions)
    seen, captions = table.iloc[scope.seen(subject, sessions)], _captions(scope, table)
    compare("test and training images", _match_splits, scope, seen, captions)
    if captions is not None:
        compare("captions of images seen", _match_captions, scope, seen, captions)
    return findings


def _captions(scope: Scope, table: pd.DataFrame) -> Captions | None:
    """Return the captions by cocoId for each split, None unless all are sound."""
    splits = sorted(map(str, table["cocoSplit"].unique()))
    known = {name: scope.values.get((None, f"captions {name}")) for name in splits}
    sound = {name: captions for name, captions in known.items() if captions is not None}
    return sound if len(sound) == len(splits) else None


def _match_splits(scope: Scope, seen: pd.DataFrame, captions: Captions | None) -> None:
    """Look for pictures that test and training share, by COCO's id and by captions."""
    shared = () if scope.design is None else scope.design.images[0, : layout.N_SHARED]
    test = np.isin(seen["nsdId"], shared)
    keys: dict[str, list[Hashable]] = {"cocoId": seen["cocoId"].tolist()}
    if scope.tree.is_real and captions is not None:
        images = zip(seen["cocoSplit"], seen["cocoId"], strict=True)
        texts = [captions[split].get(int(c), []) for split, c in images]
        keys["set of captions"] = caption_keys(texts)
    for name, rows in keys.items():
        if pairs := pairs_across(rows, test, ~test):
            ids = leaking_words(seen["nsdId"].to_numpy(), pairs)
            found = f"{len(pairs)} of one {name} in both splits (nsdId {ids})"
            raise NSD.wrong(scope.tree.file("table"), found, "none")


def _match_captions(scope: Scope, seen: pd.DataFrame, captions: Captions) -> None:
    n = scope.n_captions
    for split, images in seen.groupby("cocoSplit")["cocoId"]:
        few = [c for c in images if len(captions[str(split)].get(int(c), ())) < n]
        if few:
            found = f"fewer captions of {len(few)} images, such as cocoId {few[0]}"
            path = scope.tree.file("captions", split=str(split))
            raise NSD.wrong(path, found, f"{n} of each")


# --- counts ---------------------------------------------------------------------------


def _counts(
    scope: Scope,
    subject: int,
    volumes: Volumes,
    areas: IntArray | None,
    sound: set[int],
) -> list[Count]:
    """Return what the files hold: trials and images of sound sessions, and voxels."""
    asked = scope.asked(subject)
    sessions = [n for n in asked if n in sound]
    numbers = {"sessions": len(sessions), "trials": layout.N_TRIALS * len(sessions)}
    expected = {"sessions": len(asked), "trials": layout.N_TRIALS * len(asked)}
    if scope.design is not None:
        image, n = np.unique(scope.design.of(sessions), return_counts=True)
        n_shared = int((image < layout.N_SHARED).sum())
        each = (
            len(image),
            n_shared,
            len(image) - n_shared,
            *((n == k).sum() for k in (3, 1, 2)),
        )
        numbers |= dict(zip(_IMAGES, map(int, each), strict=True))
    if areas is not None:
        n_voxels = np.bincount(areas[areas >= 0], minlength=len(AREAS)).tolist()
        numbers |= zip(AREAS, n_voxels, strict=True)
        for name, members in (("LVC", LVC), ("HVC", HVC), ("11 areas", AREAS)):
            numbers[name] = sum(numbers[area] for area in members)
    for name in ("brain mask", "prf-visualrois", "nsdgeneral"):
        if (volume := volumes[name]) is not None:
            numbers[name] = int((volume > 0).sum())
    if scope.published:  # what NSD or MindDiffuser state of a real subject
        facts = layout.FACTS[subject]
        expected |= {"nsdgeneral": facts.n_nsdgeneral, "brain mask": facts.n_brain}
        expected |= layout.SUBJECT1 if subject == 1 else {}
        if sessions == list(range(1, len(asked) + 1)):
            seen = layout.SEEN.get(len(asked), ())
            stated = zip(_IMAGES, seen, strict=False)
            expected |= {name: n for name, n in stated if n is not None}
    return [Count(subject, name, n, expected.get(name)) for name, n in numbers.items()]


def _unlike(counts: Sequence[Count]) -> list[Finding]:
    """Return a warning for each count that is not the published one, or an empty area.

    Lacking sessions and trials have findings of their own.
    """
    findings = []
    for c in counts:
        is_empty = c.quantity in AREAS and c.n == 0
        has_own = c.quantity in ("sessions", "trials")
        is_other = c.expected not in (None, c.n) and not has_own
        if is_empty or is_other:
            expected = c.expected if is_other else "one at least"
            words = (
                f"{c.n}, but {expected} is expected: compare the release of your files"
                " (volumes, region files, colour tables) with NSD's own"
            )
            item = f"count of {c.quantity}"
            findings.append(Finding(c.subject, item, state="unexpected", words=words))
    return findings
