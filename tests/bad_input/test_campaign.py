"""Whatever a user gets wrong gets one sentence, and nothing half-written stays.

The tables beside this module hold one row per mistake; here each is made in a copy of a
sound run, through the command line or what a notebook calls.
"""

from pathlib import Path
from types import ModuleType

import pytest

from minddiff_utils.core import provenance, store
from minddiff_utils.core.errors import MindDiffError
from minddiff_utils.pipeline.cli import main

from . import (
    artefacts,
    command_line,
    models,
    notebooks,
    nsd_files,
    places,
    profiles,
    settings,
)
from .case import Case
from .world import PROFILE, Copy, World, own

#: Each table, and what its cases need of the sound run.
TABLES: dict[ModuleType, tuple[str, ...]] = {
    command_line: ("data/smoke/nsd",),
    settings: (),
    profiles: ("notebooks",),
    notebooks: ("notebooks",),
    nsd_files: ("data/smoke/nsd",),
    models: ("data/models",),
    artefacts: ("data/smoke/derived", "figures"),
    places: ("data/smoke/derived", "figures"),
}
CASES: dict[str, tuple[Case, tuple[str, ...]]] = {
    f"{table.__name__.rpartition('.')[2]}: {name}": (case, needs)
    for table, needs in TABLES.items()
    for name, case in table.CASES.items()
}


def test_the_campaign_has_the_size_that_was_asked_for() -> None:
    assert len(CASES) >= 60
    assert all(c.remedy and (c.path or c.names) for c, _ in CASES.values())


def test_the_sound_run_passes_all_that_the_cases_go_through(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without damage nothing is refused, so a case's damage is what it is about."""
    world = copy(("data", "figures", "notebooks"))
    acts = {case.act for case, _ in CASES.values() if callable(case.act) and case.path}
    for act in acts - {places.elsewhere}:  # whose root is no folder
        act(world)
    for command in ("check", "claims"):
        place = [str(world.nsd)] if command == "check" else []
        assert main([command, *place, "--profile", PROFILE]) == 0
    assert capsys.readouterr().err == ""


def _snapshot(root: Path) -> dict[str, str]:
    """Return the digest of every file below `root`, and where every link leads."""
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"to {path.readlink()}"
        elif path.is_file():
            stat = path.stat()
            small = stat.st_size < 100_000
            same = provenance.digest_file(path) if small else stat.st_mtime_ns
            found[name] = f"{stat.st_size} {same}"
    return found


def _is_whole(path: Path) -> bool:
    """Return whether `path` is an artefact with its manifest, or such a manifest."""
    artefact = path.with_name(path.name.removesuffix(".manifest.json"))
    return store.is_intact(artefact)


def _sentence(case: Case, world: World, capsys: pytest.CaptureFixture[str]) -> str:
    """Do what the case does; return what the user reads."""
    if callable(case.act):
        with pytest.raises(MindDiffError) as caught:
            case.act(world)
        return f"{caught.value}\n"
    arguments = [word.replace("{root}", str(world.root)) for word in case.act]
    capsys.readouterr()
    assert main(arguments) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--jobs", "two"], "--jobs"),
        (["run", "--shards", "1.5"], "--shards"),
        (["run", "--sets", "seed=1"], "--sets"),
        (["run", "--set"], "--set"),
        (["plan", "--images", "many"], "--images"),
        (["plan", "--tflops", "fast"], "--tflops"),
        (["study", "--part", "third"], "--part"),
        (["fetch", "--form", "zip", "nsd"], "--form"),
        (["check"], "PATH"),
        (["ruin"], "ruin"),
        ([], "COMMAND"),
    ],
)
def test_what_is_no_command_is_refused_with_its_usage(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    usage, _, sentence = capsys.readouterr().err.rstrip("\n").rpartition("\n")
    assert usage.startswith("usage: minddiff")
    assert "error: " in sentence
    assert named in sentence


@pytest.mark.timeout(120)
def test_a_notebook_s_sentence_is_the_command_line_s(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real way, in a kernel of its own: one line, and nothing of it is lost."""
    case, needs = CASES["nsd_files: design cut short"]
    world = copy(needs)
    design = case.place(world)
    own(design)
    case.damage(design)
    with pytest.raises(MindDiffError) as caught:
        world.play("01")
    assert main(["run", "--profile", PROFILE, "--only", "01", "--jobs", "1"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(caught.value) in said
    assert "run the same command again" in said
    assert list(world.derived.rglob("*")) == []


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(
    name: str,
    copy: Copy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case, needs = CASES[name]
    world = copy(needs)
    spoilt = case.place(world)
    if spoilt.is_file():
        own(spoilt)
    case.damage(spoilt)
    before = _snapshot(world.root)
    said = _sentence(case, world, capsys)
    assert said.count("\n") == 1
    assert said.endswith(".\n")
    assert (case.names or spoilt.name) in said
    assert case.found in said
    assert case.remedy in said
    after = _snapshot(world.root)
    new = [world.root / name for name in after if after[name] != before.get(name)]
    assert {path.name for path in new if not _is_whole(path)} == set(case.leaves)
