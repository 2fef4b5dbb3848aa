"""How a command begins and ends: from a sound place, on any terminal.

Other alphabets, closed pipes, a full disk behind a redirection and Ctrl-C get their
words here. The command line alone uses it.
"""

import codecs
import errno
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minddiff_utils.core.errors import ConfigError, MindDiffError
from minddiff_utils.core.places import project_root

__all__ = ["check_extra", "check_place", "guarded", "say", "without_switches"]

#: What a shell says of a command that Ctrl-C ended, or that wrote to a closed pipe.
_INTERRUPTED, _NOBODY_READS = 130, 141
#: Our signs in ASCII, for terminals that cannot show them.
_PLAIN = {"·": "-", "–": "-", "—": "-", "×": "x", "…": "...", "’": "'", "±": "+-"}
#: Variables by which Python raises warnings, or leaves out asserts and docstrings.
_SWITCHES = ("PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONDEVMODE")
_RESTARTED = "MINDDIFF_RESTARTED"
#: As an error handler's name.
_IN_ASCII = "minddiff"


class _SilentError(Exception):
    """What was to be said could not be written."""


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for what an encoding lacks: our signs, else escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    words = (_PLAIN.get(c) or ascii(c)[1:-1] for c in lacking)
    return "".join(words), error.end


def without_switches() -> None:
    """Start this command anew if Python raises warnings or leaves out docstrings.

    diffusers cannot be imported then, and every process of the run would be started
    with the same switches.
    """
    if not (sys.flags.optimize or sys.warnoptions) or _RESTARTED in os.environ:
        return
    variables = {k: v for k, v in os.environ.items() if k not in _SWITCHES}
    command = [sys.executable, "-P", "-m", "minddiff_utils.pipeline.cli", *sys.argv[1:]]
    os.execve(sys.executable, command, variables | {_RESTARTED: "1"})


def check_place() -> None:
    """Raise ConfigError if this environment was copied, and runs another clone's code.

    A copied `.venv` names the interpreter and the package of the clone where it was
    made, whose data and figures the run would change.
    """
    here = Path(__file__).resolve().parents[1]
    for environment in (Path(sys.argv[0]).absolute().parents[1:2], [Path(sys.prefix)]):
        for folder in environment:
            package = folder.parent / "src" / "minddiff_utils"
            made = (folder / "pyvenv.cfg").is_file() and package.is_dir()
            if made and package.resolve() != here:
                raise ConfigError(
                    f"{folder} was copied and runs the code in {here}, not that in"
                    f" {package}: run ./run_all.sh in {folder.parent}, which sets it"
                    " up anew there."
                )


def check_extra(extra: str, package: str, needed_by: str) -> None:
    """Raise ConfigError unless `package` of an extra is installed; say how to get it.

    Extras have lock files of their own, as most runs need none of them.
    """
    if importlib.util.find_spec(package) is not None:
        return
    lock = project_root() / f"requirements-{extra}.lock"
    command = [sys.executable, "-m", "pip", "install", "-r", str(lock)]
    raise ConfigError(
        f"{needed_by} needs {package}, which is not installed: run"
        f" `{shlex.join(command)}`, then the same command again."
    )


def say(text: str) -> None:
    """Write a line to the terminal, at once."""
    with _writing():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _SilentError from error


def guarded(command: Callable[[], None]) -> int:
    """Run `command`; return the exit code, with one sentence for what went wrong.

    1: an error of ours, or output that could not be written; 130: Ctrl-C; 141: whoever
    read the output has left, as `head` does.
    """
    _prepare()
    try:
        try:
            command()
        finally:
            with _writing():
                sys.stdout.flush()
    except MindDiffError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain(
            "Stopped by Ctrl-C: what is done is kept; run the same command again to"
            " go on.",
            _INTERRUPTED,
        )
    except _SilentError as error:
        return _unheard(error.__cause__)
    return 0


def _prepare() -> None:
    """Give every stream a place, and words for what its encoding lacks."""
    codecs.register_error(_IN_ASCII, _in_ascii)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would get its number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # not every stand-in can
            stream.reconfigure(errors=_IN_ASCII)


def _complain(sentence: str, code: int) -> int:
    with suppress(OSError):
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()
    return code


def _unheard(error: BaseException | None) -> int:
    """Return the exit code where nobody can read on; a pipe closes without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is not tried again
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return _NOBODY_READS
    reason = getattr(error, "strerror", None) or error
    return _complain(
        f"What this command has to say could not be written ({reason}): free space"
        " there, or send it elsewhere; what is done is kept.",
        1,
    )
