"""What an NSD folder holds, what it lacks and what is damaged: `minddiff check`.

Every file that a run reads is looked at, cheaply: headers, shapes, types, lengths, and
the whole of what is small; `deep` reads the betas and the images seen as well. Nothing
raises on a damaged file: it becomes a finding with one sentence. Writes nothing,
prepares nothing. In a folder that no simulation marked as its own, the constants that
NSD publishes must hold too. Place in the flow: layer 7, before notebook 01.

`findings` is what comes out, `looking` how a file is looked at, `nsd_facts` what NSD
publishes; `experiment`, `volumes`, `betas`, `surfaces` and `subject` look at the files,
`packed` at whether a .nii.gz is whole.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from minddiff_utils.core.config import DataConfig
from minddiff_utils.core.errors import DataError, check_choice, check_exists
from minddiff_utils.core.reading import reading
from minddiff_utils.datasets.nsd.facts import N_SESSIONS, PARTS
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.datasets.survey.experiment import look_at_experiment
from minddiff_utils.datasets.survey.findings import (
    Count,
    Finding,
    State,
    Survey,
    wrong_lines,
)
from minddiff_utils.datasets.survey.looking import Scope
from minddiff_utils.datasets.survey.subject import look_at_subject

__all__ = ["Count", "Finding", "State", "Survey", "before_run", "survey"]


def survey(
    root: Path,
    *,
    subjects: Sequence[int],
    sessions: Sequence[int],
    betas_version: str,
    deep: bool = False,
) -> Survey:
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

    Raises
    ------
    ConfigError
        A subject or a session that NSD does not have.
    DataError
        `root` is no folder, or holds none of NSD's folders.
    """
    tree = NsdTree(root, betas_version)
    scope = Scope(tree, tuple(subjects), tuple(sessions), deep, tree.is_real)
    return _look_around(scope)


def before_run(
    root: Path, subjects: Sequence[int], data: DataConfig, n_captions: int
) -> tuple[list[str], list[str]]:
    """Look, within seconds, at what notebook 01 is about to read of some subjects.

    The findings of `survey`, without what the run does not read: sessions that are not
    asked for, and the constants that NSD publishes.

    Returns
    -------
    list of str
        A sentence, with its remedy, for each thing that the run would stumble over.
    list of str
        The same for optional things: surfaces, transforms, behaviour.

    Raises
    ------
    DataError
        As `survey`.
    """
    tree = NsdTree(root, data.betas_version)
    asked = Scope(
        tree, tuple(subjects), data.session_numbers, deep=False, is_real=tree.is_real
    )
    found = _look_around(
        replace(asked, before_run=True, voxels=data.voxels, n_captions=n_captions)
    ).findings
    fatal = [finding for finding in found if finding.is_fatal]
    others = [finding for finding in found if finding.optional]
    lines = (wrong_lines(fatal), wrong_lines(others))
    needed, optional = ([line for line in some if line] for some in lines)
    return needed, optional


def _look_around(scope: Scope) -> Survey:
    root = scope.tree.root
    for subject in scope.subjects:
        check_choice(subject, range(1, 9), "subject")
    for session in scope.sessions:
        check_choice(session, range(1, N_SESSIONS + 1), "sessions")
    check_exists(root, "The NSD folder", "give its path")
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give the path of the NSD folder.")
    with reading(root, DataError, remedy="give the path of the NSD folder"):
        is_nsd = any((root / part).is_dir() for part in PARTS)
    if not is_nsd:
        raise DataError(
            f"{root} holds none of {', '.join(PARTS)}: give the path of the folder "
            "that contains them."
        )
    experiment = look_at_experiment(scope)
    findings, counts = list(experiment.findings), list[Count]()
    for subject in scope.subjects:
        found, counted = look_at_subject(scope, subject, experiment)
        findings += found
        counts += counted
    return Survey(root, scope.is_real, scope.sessions, tuple(findings), tuple(counts))
