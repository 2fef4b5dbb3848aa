"""The notebooks as a graph: which there are, what each needs, the jobs of a run.

A job knows the facts on which its notebook depends: its source, the code that it
reaches, its part of the profile, the files that it reads and the jobs before it. Not
for running anything (`runner`), nor for what has been run (`records`).
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from minddiff_utils.core import provenance
from minddiff_utils.core.errors import ConfigError, RunError
from minddiff_utils.core.places import notebook_path, project_root
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.reading import reading
from minddiff_utils.core.run import Tree, expected_origin, judge_files, network_files
from minddiff_utils.datasets.digits69.reader import FILE as DIGITS
from minddiff_utils.datasets.further_tests import further_tests
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.datasets.opening import open_data_set

__all__ = [
    "GRAPH",
    "Job",
    "Notebook",
    "Plan",
    "check_parameters",
    "make_plan",
    "read_parameters",
]


@dataclass(frozen=True)
class Notebook:
    """A notebook that a run executes."""

    stem: str
    per_subject: bool
    per_shard: bool = False
    shows_study: bool = False
    shows_figures: bool = False  # of the notebooks before it
    profile: str = ""  # the one that runs it, and no other notebook
    is_of_nsd: bool = False  # reads more of NSD than any simulation writes
    on_request: bool = False  # run where it is named, and in smoke
    last_read: str = ""  # number of the last one that it reads; none: all before it


#: What a study found, which no other notebook reads.
_of_study = partial(Notebook, per_subject=False, shows_study=True, last_read="04")
#: In the order in which they run; each needs all before it (of its own subject), but
#: no result depends on those of the appendix, only what shows their figures, and some
#: read less.
GRAPH = (
    Notebook("00_insilico_nsd", per_subject=False),
    Notebook("01_data_prep", per_subject=True),
    Notebook("02_decoding", per_subject=True),
    Notebook("A2_decoders", per_subject=True, on_request=True),
    Notebook("A7_further_tests", per_subject=True, is_of_nsd=True),
    Notebook("03_stage1", per_subject=True, per_shard=True),
    Notebook("04_stage2", per_subject=True, per_shard=True),
    # the ledger of 05 reads them
    Notebook("07_subjects", per_subject=False, last_read="04"),
    Notebook("08_leakage", per_subject=False, last_read="04"),
    _of_study("A3_engines"),
    _of_study("A4_discrepancies", on_request=True),
    _of_study("A5_other_generator", on_request=True),
    Notebook("A6_digits69", per_subject=False, profile="digits69"),
    Notebook("09_video", per_subject=False, last_read="01", on_request=True),
    Notebook("05_evaluation", per_subject=False),
    Notebook("06_figures", per_subject=False, shows_figures=True),
)


@dataclass(frozen=True)
class Job:
    """One execution of one notebook; `key` is the digest of `facts`.

    `result` is that of the facts on which its results depend, the drawing left out:
    what comes after it depends on that alone, unless it shows its figures.
    """

    notebook: str
    subject: int | None
    key: str
    needs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(hash=False)
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def result(self) -> str:
        """Return the digest of the facts but what only draws."""
        facts = {name: v for name, v in self.facts.items() if name != "drawing"}
        return provenance.digest_json(facts)

    @property
    def name(self) -> str:
        """Return the name of the executed copy, without suffix."""
        if self.subject is None:
            return self.notebook
        name = f"{self.notebook}_subj{self.subject:02d}"
        shard = self.parameters.get("shard")
        return f"{name}_shard{shard.replace('/', 'of')}" if shard else name


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, in an order that respects what they need."""

    jobs: tuple[Job, ...]
    tree: Tree
    source: Path


# --- parameters -------------------------------------------------------------------


def read_parameters(path: Path) -> dict[str, Any]:
    """Return the literals of the one cell tagged `parameters`, by name.

    Raises
    ------
    RunError
        No such cell, several of them, or something in it that is no literal.
    """
    no_notebook = "is no notebook that can be read"
    with reading(path, RunError, found=no_notebook, remedy="restore it"):
        cells = nbformat.read(path, as_version=4).cells
        tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise RunError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters', but must have "
            "exactly one: tag the cell that holds its parameters."
        )
    where = f"{path.name}, parameters cell, line"
    values = {}
    try:
        for node in ast.parse(tagged[0].source).body:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            if len(targets) != 1 or not isinstance(targets[0], ast.Name):
                raise RunError(
                    f"{where} {node.lineno}: only NAME = literal is allowed there; move"
                    " anything else to the next cell."
                )
            values[targets[0].id] = _literal(where, node)
    except SyntaxError as error:
        raise RunError(
            f"{where} {error.lineno}: {error.msg}, but only NAME = literal is allowed"
            " there: mend that line."
        ) from error
    return values


def _literal(where: str, node: ast.stmt) -> Any:
    try:
        return ast.literal_eval(getattr(node, "value", ""))
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{where} {node.lineno}: the value must be a literal, so that it can be"
            " replaced from outside."
        ) from error


def check_parameters(path: Path, given: Mapping[str, Any]) -> None:
    """Refuse parameters that the notebook lacks or that have another type.

    Raises
    ------
    RunError
        As `read_parameters`; or an unknown name or a wrong type.
    """
    known = read_parameters(path)
    for name, value in given.items():
        if name not in known:
            raise RunError(
                f"{path.name} has no parameter {name!r}: it has {', '.join(known)}."
            )
        if type(value) is not type(known[name]):
            raise RunError(
                f"{path.name}: parameter {name!r} must be "
                f"{type(known[name]).__name__}, not {type(value).__name__}."
            )


# --- the plan ---------------------------------------------------------------------


def make_plan(
    profile: Profile,
    tree: Tree,
    overrides: Mapping[str, Any],
    *,
    only: Sequence[str] = (),
    first: str = "",
    n_shards: int = 1,
    source: Path | None = None,
) -> Plan:
    """Return the jobs of `profile`; `only` and `first` are notebook numbers ("04").

    With `n_shards` above 1, notebooks 03 and 04 are that many jobs per subject.

    Raises
    ------
    ConfigError
        A number that no notebook has, or more shards than batches of images.
    RunError
        A notebook is missing or its parameters are not as they must be.
    """
    source = source or project_root() / "notebooks"
    _check_numbers([*only, first] if first else only)
    profile.check_shards(n_shards)
    jobs: list[Job] = []
    place = (source, tree)
    for notebook in _notebooks_of(profile, only):
        before = tuple(  # shards of one notebook do not need each other
            job for job in jobs if _needs(notebook, job.notebook)
        )
        for part in _parts(notebook, profile, n_shards):
            jobs.append(_job(notebook, part, profile, overrides, before, place))
    numbers = [notebook.stem[:2] for notebook in GRAPH]
    after = numbers[numbers.index(first) :] if first else numbers
    chosen = set(only or numbers) & set(after)
    kept = [job for job in jobs if job.notebook[:2] in chosen]
    if not kept:
        raise ConfigError(
            f"There is no notebook to run: --only {','.join(only) or 'none'} and --from"
            f" {first or 'none'} leave nothing of profile {profile.name}; change --only"
            " or --from."
        )
    return Plan(tuple(kept), tree, source)


def _needs(notebook: Notebook, before: str) -> bool:
    if before[0] == "A":
        return notebook.shows_figures
    return before[:2] <= (notebook.last_read or before[:2])


def _notebooks_of(profile: Profile, only: Sequence[str]) -> list[Notebook]:
    """Return the notebooks that a profile runs; 00 writes what is simulated."""
    is_nsd = profile.simulation is None and profile.data_set == "nsd"
    own = [notebook for notebook in GRAPH if notebook.profile == profile.name]
    if own:
        return own
    simulated = ("00", "09")  # they show something to a simulated brain
    skipped = simulated if profile.simulation is None else ()
    common = [n for n in GRAPH if not n.profile and n.stem[:2] not in skipped]
    asked = {*only, *(n.stem[:2] for n in common if profile.name == "smoke")}
    common = [n for n in common if not n.on_request or n.stem[:2] in asked]
    return [n for n in common if is_nsd or not n.is_of_nsd]


def _check_numbers(given: Sequence[str]) -> None:
    numbers = [n.stem[:2] for n in GRAPH]
    for number in given:
        if number not in numbers:
            raise ConfigError(
                f"No notebook has the number {number!r}: use {', '.join(numbers)}."
            )


def _parts(notebook: Notebook, profile: Profile, n_shards: int) -> list[dict[str, Any]]:
    """Return the parameters in which a notebook's jobs differ."""
    if not notebook.per_subject:
        return [{}]
    shards: list[dict[str, Any]] = [{}]
    if notebook.per_shard and n_shards > 1:
        shards = [{"shard": f"{index}/{n_shards}"} for index in range(n_shards)]
    return [{"subject": s, **shard} for s in profile.subjects for shard in shards]


def _job(
    notebook: Notebook,
    part: Mapping[str, Any],
    profile: Profile,
    overrides: Mapping[str, Any],
    before: Sequence[Job],
    place: tuple[Path, Tree],
) -> Job:
    source, tree = place
    path = notebook_path(notebook.stem, source)
    if not path.is_file():
        raise RunError(f"{path} is missing: restore the notebook.")
    parameters: dict[str, Any] = {
        "profile": profile.name,
        "overrides": dict(overrides),
        **part,
    }
    check_parameters(path, parameters)
    subject = part.get("subject")
    needs = [b for b in before if subject is None or b.subject in (None, subject)]
    facts = {
        "notebook": provenance.digest_file(path),
        "code": provenance.code_digest(notebook.stem, drawing=False),
        "drawing": provenance.code_digest(notebook.stem),
        "profile": profile.part_digest(notebook.stem),
        "files": _files(notebook.stem[:2], subject, profile, tree),
        "before": {
            b.name: b.key if notebook.shows_figures else b.result for b in needs
        },
        **part,
    }
    if notebook.shows_study:
        facts["study"] = _folder_digest(tree.study)
    names = tuple(b.name for b in needs)
    key = provenance.digest_json(facts)
    return Job(notebook.stem, subject, key, names, parameters, facts)


def _files(
    number: str, subject: int | None, profile: Profile, tree: Tree
) -> dict[str, str]:
    """Return the stamps of the files that a notebook reads and no notebook writes.

    A simulated tree is written by notebook 00, whose record knows its files.
    """
    kind = profile.models.backbone
    files: tuple[Path, ...] = ()
    if number in ("02", "A7", "03", "04", "05", "07", "08", "09"):
        files = network_files(tree.models, kind)
    if number in ("05", "07", "08"):
        files += judge_files(tree.models, kind)
    stamps = provenance.stamps(files, tree.models)
    simulated = profile.simulation is not None
    if simulated and expected_origin(profile, tree) == "in silico":
        return stamps
    data = profile.data
    if number == "A6":
        stamps |= provenance.stamps([tree.nsd / DIGITS], tree.nsd)
    if number in ("01", "07"):
        asked = (data.betas_version, data.split)
        data_set = open_data_set(profile.data_set, tree.nsd, *asked)
        for one in profile.subjects if subject is None else (subject,):
            read = data_set.files(one, data.session_numbers, data.voxels)
            stamps |= provenance.stamps(read, tree.nsd)
    if number == "A7" and subject is not None:
        nsd = NsdTree(tree.nsd, data.betas_version)
        several = further_tests(nsd)
        read = tuple(path for one in several for path in one.files(subject))
        stamps |= provenance.stamps(read, tree.nsd)
    if number == "06":
        nsd = NsdTree(tree.nsd, data.betas_version)
        read = nsd.inputs(number, profile.subjects, data.session_numbers)
        stamps |= provenance.stamps(read, tree.nsd)
    return stamps


def _folder_digest(folder: Path) -> str:
    """Return a digest of the files in `folder`, manifests aside; they hold times."""
    files = (p for p in folder.glob("*") if p.is_file() and ".manifest." not in p.name)
    return provenance.digest_paths(sorted(files), folder)
