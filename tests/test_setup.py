"""Where and with what `.venv` was made decides whether it is made anew."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minddiff_utils.core import entry
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.places import project_root

#: Stands in for Python: makes environments that hold itself, and writes down what
#: it is told. `python -m pip` fails as long as a file `no pip` lies beside the clone.
FAKE = """#!/bin/sh
case "$*" in
    *print*) echo "${FAKE_VERSION:-3.11}" ;;
    "-m venv"*)
        for folder; do :; done
        [ "$3" = --clear ] && rm -rf "$folder"
        mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python"
        echo "venv $3" >> "$LOG" ;;
    *"pip install"*)
        echo "pip $*" >> "$LOG"
        case "$*" in *--requirement*) [ ! -e "$LOG.broken" ] || exit 1 ;; esac ;;
esac
"""


class Clone:
    """A clone of few files, whose Python is the one above."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder.parent / "log"
        (folder / "tests").mkdir(parents=True)
        shutil.copy(project_root() / "tests" / "setup.sh", folder / "tests")
        (folder / "requirements.lock").write_text("torch==2.0\nnumpy==2.0\n")
        (folder / "pyproject.toml").write_text("[project]\n")
        self.python = folder.parent / "python"
        self.python.write_text(FAKE)
        self.python.chmod(0o755)

    def set_up(self, **variables: str) -> tuple[int, list[str]]:
        """Source the script; return its exit code and what was done."""
        self.log.write_text("")
        done = subprocess.run(
            ["bash", "-c", 'cd "$1" && . tests/setup.sh', "bash", str(self.folder)],
            env={"PATH": "/usr/bin:/bin", "LOG": str(self.log)}
            | {"PYTHON": str(self.python)}
            | variables,
            capture_output=True,
            check=False,
        )
        words = self.log.read_text().splitlines()
        return done.returncode, [" ".join(line.split()[:2]) for line in words]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    made = Clone(tmp_path / "a clone {x}")
    code, did = made.set_up()
    assert code == 0
    assert did[0].startswith("venv")
    assert len(did) == 4
    return made


def test_a_second_set_up_does_nothing(clone: Clone) -> None:
    assert clone.set_up() == (0, [])


def test_a_changed_lock_file_is_brought_into_the_same_environment(
    clone: Clone,
) -> None:
    with (clone.folder / "requirements.lock").open("a") as file:
        file.write("scipy==1.0\n")
    code, did = clone.set_up()
    assert code == 0
    assert [line.split()[0] for line in did] == ["pip"] * 3


def test_the_locks_of_extras_add_to_the_same_environment(clone: Clone) -> None:
    (clone.folder / "requirements-tests.lock").write_text("pytest==9.0\n")
    locks = "requirements.lock requirements-tests.lock"
    code, did = clone.set_up(LOCKS=locks)
    assert code == 0
    assert [line.split()[0] for line in did] == ["pip"]  # the package is there already
    assert clone.set_up(LOCKS=locks) == (0, [])
    assert clone.set_up() == (0, [])


@pytest.mark.parametrize("move", [shutil.copytree, shutil.move])
def test_a_clone_in_another_place_gets_an_environment_of_its_own(
    clone: Clone, move: object
) -> None:
    place = clone.folder.with_name("elsewhere")
    move(str(clone.folder), str(place))
    clone.folder = place
    code, did = clone.set_up()
    assert code == 0
    assert did[0] == "venv --clear"
    assert len(did) == 4
    assert clone.set_up() == (0, [])


def test_a_stamp_of_before_is_judged_by_the_scripts(clone: Clone) -> None:
    (stamp,) = (clone.folder / ".venv").glob("*.sha256")
    stamp.write_text(stamp.read_text().splitlines()[0] + "\n")
    pip = clone.folder / ".venv" / "bin" / "pip"
    pip.write_text(f"#!/bin/sh\n'''exec' \"{clone.folder}/.venv/bin/python\" \"$0\"\n")
    code, did = clone.set_up()
    assert code == 0
    assert "venv --clear" not in did
    stamp.write_text(stamp.read_text().splitlines()[0] + "\n")
    pip.write_text("#!/old/place/.venv/bin/python\n")
    assert clone.set_up()[1][0] == "venv --clear"


def test_another_version_of_python_makes_it_anew(clone: Clone) -> None:
    code, did = clone.set_up(FAKE_VERSION="3.12")
    assert code == 0
    assert did[0] == "venv --clear"


def test_a_set_up_that_was_cut_off_is_made_anew(clone: Clone) -> None:
    (clone.folder / "requirements.lock").write_text("torch==2.1\n")
    Path(f"{clone.log}.broken").touch()
    assert clone.set_up()[0] != 0
    Path(f"{clone.log}.broken").unlink()
    code, did = clone.set_up()
    assert code == 0
    assert did[0] == "venv --clear"
    assert clone.set_up() == (0, [])


def test_an_environment_of_the_user_s_own_is_not_emptied(tmp_path: Path) -> None:
    made = Clone(tmp_path / "clone")
    mine = made.folder / ".venv" / "mine"
    mine.mkdir(parents=True)
    assert made.set_up()[0] == 0
    assert mine.is_dir()


def test_a_copied_environment_refuses_to_run_the_other_clone_s_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.check_place()
    copied = tmp_path / "copy" / ".venv"
    (copied / "bin").mkdir(parents=True)
    (copied / "pyvenv.cfg").touch()
    (copied.parent / "src" / "minddiff_utils").mkdir(parents=True)
    for place, value in (
        (("argv"), [str(copied / "bin" / "minddiff")]),
        (("prefix"), str(copied)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, place, value)
            with pytest.raises(
                ConfigError, match=r"was copied .* run \./run_all\.sh in"
            ):
                entry.check_place()
