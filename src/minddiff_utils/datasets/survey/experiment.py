"""What all subjects share: design, stimulus table, stimuli, captions, group surface.

Place in the flow: part of `survey`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.errors import check_shape
from minddiff_utils.datasets.nsd.facts import (
    FIRST_SHARED,
    IMAGE_SIZE,
    N_SESSIONS,
    SHARED_ENDS,
)
from minddiff_utils.datasets.nsd.files import open_hdf5
from minddiff_utils.datasets.nsd.formats import read_mat
from minddiff_utils.datasets.nsd.forms import find
from minddiff_utils.datasets.nsd.reader import (
    N_IMAGES,
    N_SHARED,
    N_TRIALS,
    Design,
    Hemisphere,
)
from minddiff_utils.datasets.survey.findings import Finding
from minddiff_utils.datasets.survey.looking import (
    UNREAD,
    Item,
    Scope,
    damage,
    differs,
    look,
)
from minddiff_utils.datasets.survey.surfaces import look_at_surfaces

__all__ = ["Experiment", "look_at_experiment"]

IntArray = npt.NDArray[np.int64]

_COUNTS = ("basiccnt", "stimpattern")
_BATCH = 64  # images read at once


@dataclass(frozen=True)
class Experiment:
    """What all subjects share; None where a file is missing or damaged."""

    findings: tuple[Finding, ...]
    design: Design | None
    table: pd.DataFrame | None
    captions: dict[str, dict[int, list[str]]] | None  # by split of COCO
    n_group: Mapping[Hemisphere, int | None]

    def seen(self, subject: int, sessions: Sequence[int]) -> IntArray:
        """Return the distinct `nsd_id` seen in sessions; none without a design."""
        if self.design is None:
            return np.zeros(0, np.int64)
        rows = np.array(sessions, int) - 1
        order = self.design.order.reshape(-1, N_TRIALS)[rows].ravel()
        return np.unique(self.design.images[subject - 1, order])


def look_at_experiment(scope: Scope) -> Experiment:
    """Look at what all subjects share."""
    tree = scope.tree
    mat = tree.experiment_file("nsd_expdesign.mat")
    csv = tree.experiment_file("nsd_stim_info_merged.csv")
    text = "masterordering 1 x 30000, subjectim 8 x 10000, sharedix 1 x 1000"
    first, design = look(
        scope, Item(None, "experimental design", mat, text), _read_design, scope
    )
    text = f"{N_IMAGES} rows, {N_SHARED} of them shared"
    second, table = look(
        scope, Item(None, "stimulus table", csv, text), _read_table, scope
    )
    findings = [first, second]
    if design is not None:
        findings.append(_session_counts(scope, mat, design))
    captions, notes = _captions(scope, table)
    surfaces, n_group = look_at_surfaces(scope, "fsaverage")
    found = Experiment((), design, table, captions, n_group)
    findings += [_stimuli(scope, found), *notes, *surfaces]
    return replace(found, findings=tuple(findings))


def _read_design(scope: Scope) -> tuple[Design, str]:
    design = scope.tree.design()
    shared = design.images[0, :N_SHARED] + 1
    ends = (int(shared.min()), int(shared.max()))
    if scope.published and ends != SHARED_ENDS:
        raise differs(f"shared images {ends[0]} to {ends[1]}", SHARED_ENDS)
    return design, f"{len(design.order)} trials, shared images {ends[0]} to {ends[1]}"


def _session_counts(scope: Scope, path: Path, design: Design) -> Finding:
    """Return whether what the design says of itself is true; a run needs none of it."""
    text = "basiccnt 3 x 40 and stimpattern 40 x 12 x 75, as masterordering has it"
    item = Item(None, "design, session by session", path, text, optional=True)
    try:
        lacking = [n for n in _COUNTS if n not in read_mat(path, _COUNTS)]
    except Exception as error:  # noqa: BLE001  (a damaged file may raise anything)
        return damage(item, error, scope.remedy)
    if lacking:
        found = f"no {' and no '.join(lacking)}"
        return item.finding("optional missing", found, scope.remedy)
    return look(scope, item, _read_session_counts, path, design)[0]


def _read_session_counts(path: Path, design: Design) -> tuple[None, str]:
    raw = read_mat(path, _COUNTS)
    check_shape(raw["basiccnt"].shape, (3, N_SESSIONS), "basiccnt")
    check_shape(raw["stimpattern"].shape, (N_SESSIONS, 12, 75), "stimpattern")
    for session in range(N_SESSIONS):
        rows = slice(session * N_TRIALS, (session + 1) * N_TRIALS)
        times = np.unique(design.order[rows], return_counts=True)[1]
        for n in (1, 2, 3):
            stated, true = int(raw["basiccnt"][n - 1, session]), int((times == n).sum())
            if stated != true:
                raise differs(
                    f"basiccnt has {stated} images with {n} trials in session"
                    f" {session + 1}",
                    f"{true}, as in masterordering,",
                )
    per_session = raw["stimpattern"].sum(axis=(1, 2))
    if not (per_session == N_TRIALS).all():
        raise differs("stimpattern has other sessions", f"{N_TRIALS} trials in each")
    return None, "in agreement"


def _read_table(scope: Scope) -> tuple[pd.DataFrame, str]:
    table = scope.tree.stim_info("cocoId", "cocoSplit", "shared1000")
    n_shared = int(table["shared1000"].astype(bool).sum())
    if n_shared != N_SHARED:
        raise differs(f"{n_shared} shared images", N_SHARED)
    row, coco_id = FIRST_SHARED
    if scope.published and int(table["cocoId"].iloc[row]) != coco_id:
        raise differs(f"cocoId {table['cocoId'].iloc[row]} in row {row}", coco_id)
    return table, f"{len(table)} rows, {n_shared} shared"


def _stimuli(scope: Scope, experiment: Experiment) -> Finding:
    seen = [experiment.seen(s, scope.asked(s)) for s in scope.subjects]
    wanted = np.unique(np.concatenate(seen))
    side = f"{IMAGE_SIZE} x {IMAGE_SIZE}" if scope.published else "n x n"
    rows = N_IMAGES if scope.published or not len(wanted) else wanted[-1] + 1
    path = find(scope.tree.stimuli_folder() / "nsd_stimuli.hdf5")
    more = "" if scope.published else "at least "
    item = Item(None, "stimuli", path, f"uint8, {more}{rows} x {side} x 3")
    return look(scope, item, _read_stimuli, scope, path, wanted)[0]


def _read_stimuli(scope: Scope, path: Path, wanted: IntArray) -> tuple[None, str]:
    scope.tree.stimuli(wanted[:0])  # the reader's own checks, and no image
    with open_hdf5(path) as file:
        shape = file["imgBrick"].shape
    real = (N_IMAGES, IMAGE_SIZE, IMAGE_SIZE, 3)
    check_shape(
        shape, real if scope.published else (None, shape[1], shape[1], 3), "imgBrick"
    )
    scope.tree.stimuli(wanted[-1:])  # the last one seen is within the file
    found = f"uint8, {' x '.join(map(str, shape))}"
    if not scope.deep:
        return None, f"{found}; {UNREAD}"
    blank = 0
    for first in range(0, len(wanted), _BATCH):
        images = scope.tree.stimuli(wanted[first : first + _BATCH])
        blank += int((~images.any(axis=(1, 2, 3))).sum())
    if blank:
        raise differs(f"{blank} images seen by a subject are black", "none")
    return None, f"{found}; {len(wanted)} images seen were read"


def _captions(
    scope: Scope, table: pd.DataFrame | None
) -> tuple[dict[str, dict[int, list[str]]] | None, list[Finding]]:
    """Return captions by split if all files are well, and a finding for each file."""
    splits = ["train2017", "val2017"]
    if table is not None:
        splits = sorted(map(str, table["cocoSplit"].unique()))
    known: dict[str, dict[int, list[str]]] = {}
    findings = []
    for split in splits:
        path = scope.tree.captions_file(split)
        text = "annotations with id, image_id and caption"
        item = Item(None, f"captions {split}", path, text, source=scope.captions)
        finding, some = look(scope, item, _read_captions, scope, split)
        findings.append(finding)
        known[split] = some or {}
    whole = all(finding.state == "ok" for finding in findings)
    return (known if whole else None), findings


def _read_captions(scope: Scope, split: str) -> tuple[dict[int, list[str]], str]:
    known = scope.tree.captions_of(split)
    n = sum(map(len, known.values()))
    if not n:
        raise differs("no caption", "at least one")
    return known, f"{n} captions of {len(known)} images"
