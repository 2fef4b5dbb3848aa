"""One subject: volumes, betas, surfaces, what files must say alike, and counts.

Place in the flow: part of `survey`.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.datasets.leaks import caption_keys, leaking_words, pairs_across
from minddiff_utils.datasets.nsd.facts import FACTS, SEEN, SUBJECT1
from minddiff_utils.datasets.nsd.reader import N_SHARED, N_TRIALS, check_trials
from minddiff_utils.datasets.survey.betas import look_at_betas
from minddiff_utils.datasets.survey.experiment import Experiment
from minddiff_utils.datasets.survey.findings import Count, Finding
from minddiff_utils.datasets.survey.looking import Item, Scope, differs, look
from minddiff_utils.datasets.survey.surfaces import look_at_surfaces, look_at_transforms
from minddiff_utils.datasets.survey.volumes import Volumes, look_at_volumes

__all__ = ["look_at_subject"]

IntArray = npt.NDArray[np.int64]


def look_at_subject(
    scope: Scope, subject: int, experiment: Experiment
) -> tuple[list[Finding], list[Count]]:
    """Look at everything of one subject, and count trials, images and voxels."""
    volumes = look_at_volumes(scope, subject)
    betas, well = look_at_betas(scope, subject, volumes)
    asked = scope.asked(subject)
    # lacking sessions have findings of their own
    there = [s for s in asked if not well or s <= max(well)]
    counts = _counts(scope, subject, experiment, volumes, well)
    surfaces, n_own = look_at_surfaces(scope, subject)
    findings = [
        *volumes.findings,
        *betas,
        *_agreements(scope, subject, experiment, there),
        *surfaces,
        *look_at_transforms(scope, subject, n_own, experiment.n_group),
        *_unlike(counts),
    ]
    return findings, counts


def _agreements(
    scope: Scope, subject: int, experiment: Experiment, sessions: Sequence[int]
) -> list[Finding]:
    """Return findings on what several files must say alike, where they are well."""
    path = scope.tree.subject_folder(subject) / "behav" / "responses.tsv"
    item = Item(subject, "responses", path, "a row per trial", optional=True)
    behaviour, _ = look(scope, item, _read_responses, scope, subject)
    findings = [behaviour]
    table = experiment.table
    if experiment.design is None or table is None:
        return findings
    if behaviour.state != "damaged":
        text = "the same in design, stimulus table and responses"
        item = Item(subject, "image of every trial", None, text)
        findings.append(
            look(scope, item, _read_trials, scope, subject, max(sessions, default=0))[0]
        )
    seen = table.iloc[experiment.seen(subject, sessions)]
    item = Item(subject, "test and training images", None, "no picture in both")
    findings.append(look(scope, item, _match_splits, scope, experiment, seen)[0])
    if experiment.captions is not None:
        n = scope.n_captions
        text = f"{n} or more for each"
        item = Item(
            subject, "captions of images seen", None, text, source=scope.captions
        )
        finding, _ = look(scope, item, _match_captions, seen, experiment.captions, n)
        findings.append(finding)
    return findings


def _read_responses(scope: Scope, subject: int) -> tuple[None, str]:
    return None, f"{len(scope.tree.responses(subject))} trials"


def _read_trials(scope: Scope, subject: int, n_sessions: int) -> tuple[None, str]:
    check_trials(scope.tree, subject, n_sessions)
    return None, f"{n_sessions * N_TRIALS} trials agree"


def _match_splits(
    scope: Scope, experiment: Experiment, seen: pd.DataFrame
) -> tuple[None, str]:
    """Look for pictures that test and training share, by COCO's id and by captions."""
    shared = experiment.design.images[0, :N_SHARED] if experiment.design else ()
    test = np.isin(seen["nsdId"], shared)
    keys: dict[str, list[Hashable]] = {"cocoId": seen["cocoId"].tolist()}
    if scope.is_real and experiment.captions is not None:
        known = experiment.captions
        pairs = zip(seen["cocoSplit"], seen["cocoId"], strict=True)
        said = [known[split].get(int(c), []) for split, c in pairs]
        keys["set of captions"] = caption_keys(said)
    for name, some in keys.items():
        found = pairs_across(some, test, ~test)
        if found:
            ids = leaking_words(seen["nsdId"].to_numpy(), found)
            raise differs(f"{len(found)} of one {name} in both (nsdId {ids})", "none")
    return None, f"{int(test.sum())} test and {int((~test).sum())} other images"


def _match_captions(
    seen: pd.DataFrame, captions: Mapping[str, Mapping[int, list[str]]], n: int
) -> tuple[None, str]:
    pairs = zip(seen["cocoSplit"], seen["cocoId"], strict=True)
    few = [c for split, c in pairs if len(captions[split].get(int(c), ())) < n]
    if few:
        raise differs(f"{len(few)} images have fewer, such as cocoId {few[0]}", "none")
    return None, f"{len(seen)} images have them"


# --- counts -------------------------------------------------------------------------


def _counts(
    scope: Scope,
    subject: int,
    experiment: Experiment,
    volumes: Volumes,
    well: set[int],
) -> list[Count]:
    """Return what the files hold: trials and images of sound sessions, and voxels."""
    asked = scope.asked(subject)
    sessions = [s for s in asked if s in well]
    found = {"sessions": len(sessions), "trials": N_TRIALS * len(sessions)}
    n_expected = len(asked)
    expected = {"sessions": n_expected, "trials": N_TRIALS * n_expected}
    if experiment.design is not None:
        trials = experiment.design.order.reshape(-1, N_TRIALS)
        found |= _image_counts(trials[np.array(sessions, int) - 1].ravel())
    if volumes.areas is not None:
        found |= _area_counts(volumes.areas)
    found |= volumes.n_voxels
    if scope.published:
        whole = sessions == list(range(1, len(asked) + 1))
        expected |= _published(subject, len(asked) if whole else 0)
    return [Count(subject, name, n, expected.get(name)) for name, n in found.items()]


def _image_counts(image_10k: IntArray) -> dict[str, int]:
    image, n_repeats = np.unique(image_10k, return_counts=True)
    n_shared = int((image < N_SHARED).sum())
    counts = {"distinct images": len(image), "shared images": n_shared}
    counts["other images"] = len(image) - n_shared
    for n in (1, 2, 3):
        counts[_seen_words(n)] = int((n_repeats == n).sum())
    return counts


def _seen_words(n: int) -> str:
    return f"images with {n} {'trial' if n == 1 else 'trials'}"


def _area_counts(areas: IntArray) -> dict[str, int]:
    n_voxels = np.bincount(areas[areas >= 0], minlength=len(AREAS)).tolist()
    counts = dict(zip(AREAS, n_voxels, strict=True))
    for name, members in (("LVC", LVC), ("HVC", HVC), ("11 areas", AREAS)):
        counts[name] = sum(counts[area] for area in members)
    return counts


def _published(subject: int, n_sessions: int) -> dict[str, int]:
    """Return the counts that NSD or MindDiffuser state of a real subject."""
    facts = FACTS[subject]
    known = {"nsdgeneral": facts.n_nsdgeneral, "brain mask": facts.n_brain}
    known |= SUBJECT1 if subject == 1 else {}
    names = ("distinct images", "shared images", "other images", _seen_words(3))
    seen = SEEN.get(n_sessions, (None,) * 4)
    return known | {k: n for k, n in zip(names, seen, strict=True) if n is not None}


def _unlike(counts: Sequence[Count]) -> list[Finding]:
    """Return a warning for each count that is not the published one, or an empty area.

    Lacking sessions and trials have findings of their own.
    """
    findings = []
    for c in counts:
        if c.quantity in AREAS and c.n == 0:
            item = Item(c.subject, f"voxels of {c.quantity}", None, "one at least")
            remedy = "compare region files and colour tables with NSD's own"
            findings.append(item.finding("unexpected", "none", remedy))
        own = c.quantity in ("sessions", "trials")
        if c.expected is None or c.expected == c.n or own:
            continue
        item = Item(c.subject, f"count of {c.quantity}", None, f"{c.expected}")
        remedy = "compare the release of your files"
        findings.append(item.finding("unexpected", f"{c.n}", remedy))
    return findings
