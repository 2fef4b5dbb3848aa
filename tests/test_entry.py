"""A command ends in a sentence on any terminal, however the user stops listening."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.places import read_environment
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.pipeline.cli import _COMMANDS, main
from minddiff_utils.pipeline.graph import make_plan

SAYS = """
import sys
from minddiff_utils.core import entry
def command():
    for k in range(int(sys.argv[1])):
        entry.say("smoke · 2 × 3 – “caf\\u00e9” \\udcff")
sys.exit(entry.guarded(command))
"""


def _run(words: str, *arguments: str, **more: object) -> subprocess.CompletedProcess:
    """Run a shell command in which "$@" is the program above."""
    command = [sys.executable, "-c", SAYS, *arguments]
    return subprocess.run(
        ["bash", "-c", words, "bash", *command],
        capture_output=True,
        check=False,
        timeout=120,
        **more,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8", "koi8-r"])
def test_any_terminal_can_show_what_is_said(encoding: str) -> None:
    done = _run('"$@"', "1", env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode(encoding)
    assert said.startswith("smoke ")
    assert said.endswith("\\udcff\n")
    assert "2 × 3" in said or "2 x 3" in said


@pytest.mark.parametrize("stream", ["ascii", "cp437"])
def test_every_command_s_help_is_shown_there(stream: str) -> None:
    program = (
        "import sys; from minddiff_utils.pipeline.cli import main\n"
        f"for name in {list(_COMMANDS)!r}:\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
    )
    env = os.environ | {"PYTHONIOENCODING": stream}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"usage: minddiff") == len(_COMMANDS)


def test_whoever_reads_the_first_line_only_ends_it_without_a_word() -> None:
    done = _run('set -o pipefail; "$@" | head -n 1', "100000")
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1
    assert done.returncode == 141


def test_a_full_disk_behind_the_output_is_one_sentence() -> None:
    done = _run('"$@" > /dev/full', "1")
    assert done.returncode == 1
    assert b"could not be written (No space left on device)" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    done = _run(f'"$@" {closed}', "1")
    assert done.returncode == 0
    assert done.stderr == b""


STOPPED = """
import sys, time
from minddiff_utils.core import entry
def command():
    entry.say("begun")
    time.sleep(60)
sys.exit(entry.guarded(command))
"""


def test_ctrl_c_is_one_sentence_and_its_own_exit_code() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.count("\n") == 1
    assert "run the same command again" in error


@pytest.mark.timeout(300)
def test_ctrl_c_ends_a_run_and_all_its_processes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "minddiff_utils.pipeline.cli",
        "run",
        "--profile",
        "smoke",
    ]
    with subprocess.Popen(
        [*command, "--only", "00"],
        env=os.environ | {"MINDDIFF_ROOT": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        while not run.stdout.readline().endswith("queued\n"):
            assert run.poll() is None
        time.sleep(1.0)  # its job is being started
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        said, _ = run.communicate(timeout=120)
    assert said.count("\n") == 1, said
    assert said.startswith("Stopped by Ctrl-C: what is done is kept")
    assert run.returncode == 130


@pytest.mark.parametrize("switch", ["PYTHONOPTIMIZE", "PYTHONWARNINGS"])
def test_switches_of_python_do_not_reach_what_is_started(switch: str) -> None:
    program = (
        "import sys; sys.argv = ['minddiff', '--version']\n"
        "from minddiff_utils.core import entry\n"
        "entry.os.execve = lambda *a: print(a[1][1:], sorted(a[2]))\n"
        "entry.without_switches()"
    )
    env = os.environ | {switch: {"PYTHONOPTIMIZE": "2"}.get(switch, "error")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, check=True, env=env, text=True)
    assert "['-P', '-m', 'minddiff_utils.pipeline.cli', '--version']" in done.stdout
    assert switch not in done.stdout


# --- MINDDIFF_ROOT --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a place", "{x}", "50 %", "Ü", "a/", "link"])
def test_a_root_is_absolute_however_it_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in (name, f"./{name}", f"~/{name}", f"{tmp_path}/{name}"):
        monkeypatch.setenv("MINDDIFF_ROOT", written)
        assert read_environment().root == tmp_path / name


def test_every_folder_that_is_given_may_begin_with_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No shell expands `~` in `--nsd-root=~/nsd`, nor in a profile."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    config = load_profile("demo", {"models.path": "~/models"}).models
    assert config.folder(Path("/anywhere")) == tmp_path / "models"
    for command in (
        ["run", "--dry-run", "--profile", "nsd", "--nsd-root=~/no"],
        ["run", "--dry-run", "--profile", "nsd", "--models=~/no"],
        ["plan", "--rates=~/no"],
        ["check", "~/no"],
    ):
        assert main(command) == 1
        printed = capsys.readouterr()
        assert str(tmp_path / "no") in printed.out + printed.err
        assert "~" not in printed.err.replace(str(tmp_path), "")


@pytest.mark.parametrize("option", ["--nsd-root", "--models"])
def test_a_home_that_nobody_has_is_one_sentence(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--dry-run", "--profile", "nsd", f"{option}=~x~/nsd"]) == 1
    said = capsys.readouterr().err
    assert f"{option} is ~x~/nsd, which names no place here" in said


def test_an_empty_root_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = read_environment()
    for name in ("MINDDIFF_ROOT", "MINDDIFF_NSD_ROOT", "MINDDIFF_JOURNAL"):
        monkeypatch.setenv(name, " ")
    assert read_environment() == usual


@pytest.mark.parametrize(
    ("root", "words"), [("file", "a folder"), ("~x~/y", "no place")]
)
def test_a_root_that_is_none_is_one_sentence(
    root: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINDDIFF_ROOT", root)
    with pytest.raises(ConfigError, match=f"^MINDDIFF_ROOT is .*{words}"):
        read_environment()


def test_a_root_of_its_own_needs_no_models_of_its_own(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "smoke", tmp_path / "nsd")
    assert (tree.models / "demo").is_dir()
    (tmp_path / "data" / "models").mkdir(parents=True)
    assert tree.models == tmp_path / "data" / "models"
    assert make_plan(load_profile("smoke"), tree, {}).jobs
