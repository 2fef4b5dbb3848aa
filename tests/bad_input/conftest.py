"""A sound run, made once, and copies of it to spoil."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .world import Copy, World, build, leave_out_figures, link_copy


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a sound run; nobody changes it. What made it is put back at once."""
    root = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDDIFF_ROOT", str(root))
        patch.setattr("os.fsync", lambda _: None)
        leave_out_figures(patch.setattr)
        world = build(root)
    yield world
    shutil.rmtree(root)


@pytest.fixture
def copy(sound: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Give what makes a copy of links; who damages a file makes a new one there."""
    root = tmp_path / "a folder with spaces"
    root.mkdir()
    monkeypatch.setenv("MINDDIFF_ROOT", str(root))
    monkeypatch.setattr("os.fsync", lambda _: None)
    leave_out_figures(monkeypatch.setattr)

    def make(needs: Sequence[str]) -> World:
        for part in needs:
            shutil.copytree(sound.root / part, root / part, copy_function=link_copy)
        link_copy(str(sound.root / "rates.json"), str(root / "rates.json"))
        return World(root)

    return make
