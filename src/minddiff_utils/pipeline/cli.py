"""`minddiff`, the command line: its commands, their options, the exit code."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from minddiff_utils import __version__
from minddiff_utils.core.entry import check_place, guarded, without_switches
from minddiff_utils.pipeline import commands
from minddiff_utils.pipeline.setup import set_up

__all__ = ["main"]

_Options = dict[str, dict[str, Any]]


def _text(words: str, metavar: str | None = None) -> dict[str, Any]:
    return {"default": "", "metavar": metavar, "help": words}


def _flag(words: str) -> dict[str, Any]:
    return {"action": "store_true", "help": words}


def _number(
    words: str, kind: type = int, default: float | None = None, metavar: str = "N"
) -> dict[str, Any]:
    return {"type": kind, "default": default, "metavar": metavar, "help": words}


def _at_once(what: str) -> dict[str, Any]:
    words = f"{what} at once; default: 2, on a GPU 1; more take a GPU each"
    return {"type": int, "help": words}


#: What names a profile and changes it.
_PROFILE: _Options = {
    "--profile": {
        "default": "demo",
        "help": "smoke, demo, nsd, algonauts, laion_fmri, digits69",
    },
    "--subjects": _text("as 1,2,5,7"),
    "--models": _text("folder of models, for offline use", "PATH"),
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "change a field of the profile",
    },
}
#: What a run of notebooks needs besides its profile.
_NOTEBOOKS: _Options = _PROFILE | {
    "--nsd-root": _text("folder of the real data"),
    "--jobs": _at_once("notebooks"),
    "--force": _flag("run all again"),
    "--dry-run": _flag("only say what would run, and why"),
    "--executor --engine": {
        "default": "local",
        "choices": ("local", "dask"),
        "help": "what runs the notebooks: processes of this machine, or workers of"
        " dask.distributed (--engine is its former name)",
    },
    "--scheduler": _text("of a running dask scheduler", "ADDRESS"),
    "--cluster": _text(
        "YAML that says how to ask a queue for workers: system and options", "FILE"
    ),
}
_RUN: _Options = {
    "--rehearse": _flag(
        "with --profile nsd: run it on synthetic data of NSD's sizes with random"
        " models and a few images, and say what the whole run would take; with"
        " algonauts, laion_fmri and digits69: read and decode data of their sizes"
    ),
    "--only": _text("notebook numbers, as 03,A3"),
    "--from": {"dest": "first", "default": "", "help": "as 02"},
    "--shards": _number(
        "run notebooks 03 and 04 as N jobs per subject, each with its share of the"
        " batches of images; the results are the same (by hand: their parameter shard,"
        " INDEX/N)",
        default=1,
    ),
}
_FURTHER: _Options = {
    "--further-tests": _flag(
        "with --profile nsd: NSD-synthetic and NSD-imagery of these subjects, too"
    ),
}
_CHECK: _Options = _FURTHER | {
    "path": {"metavar": "PATH", "help": "folder of the data set, only read"},
    "--deep": _flag("read all contents too: hours for all of NSD"),
}
_FETCH: _Options = _FURTHER | {
    "path": {"metavar": "PATH", "help": "folder that becomes the data set's root"},
    "--form": {
        "choices": ("hdf5", "nii.gz"),
        "help": "of the betas; by default what is there of a session, else hdf5, which"
        " is read faster",
    },
    "--captions-from": {
        "metavar": "ADDRESS",
        "help": "a mirror of COCO's annotations_trainval2017.zip",
    },
    "--jobs": {"type": int, "default": 4, "help": "files at once"},
    "--dry-run": _flag("list, fetch nothing"),
    "--agreement-signed": _flag(
        "say that you have signed the data set's agreement, and be not asked"
    ),
    "--endpoint": _text("a mirror of the data set's server", "URL"),
}
_SETUP: _Options = _FETCH | {
    "--models-from": _text("a mirror of the models' hub", "URL"),
}
#: What the commands that `setup` composes take, and it does not.
_WITHIN_SETUP = {
    **{"deep": False, "images": None, "gpus": 1},
    **{"tflops": None, "tflops_float32": None, "rates": ""},
}
_PLAN: _Options = {
    "--images": _number("per subject; default: the profile's"),
    "--gpus": _number("devices at once", default=1),
    "--tflops": _number(
        "estimate hours from operation counts, the U-Net at X TFLOP/s",
        float,
        metavar="X",
    ),
    "--tflops-float32": _number(
        "the autoencoder and CLIP, and a U-Net in float32, at X TFLOP/s; default: as"
        " --tflops, which is too fast for them on most GPUs",
        float,
        metavar="X",
    ),
    "--rates": _text(
        "JSON that tests/benchmarks/stage2_sd14.py wrote; default: those in data/cost"
        " for the profile's device and precision",
        "FILE",
    ),
}
_STUDY: _Options = {
    "--part": {
        "default": "confirmation",
        "choices": ("pilot", "confirmation", "heldout", "discrepancies"),
        "help": "variants on validation images, all arms on test images, ours on"
        " images of categories that no training image shows, or what paper and released"
        " code differ in, one by one",
    },
    "--jobs": _at_once("subjects"),
}
_COMPARE: _Options = {
    "--reference": _text(
        "folder of the reference; default: figures/reference of this clone", "PATH"
    ),
    "--write-reference": _flag(
        "for maintainers: make the reference from the finished run instead"
    ),
}
_HUMAN: _Options = {
    "--methods": {
        "default": "stage1,stage2",
        "metavar": "NAMES",
        "help": "conditions whose images people judge, with commas",
    },
    "--n": _number("trials of each method, and of each pair of methods", default=20),
    "--answers": {
        "nargs": "+",
        "metavar": "FILE",
        "help": "evaluate what raters sent back, instead of writing the page",
    },
}


@dataclass(frozen=True)
class _Command:
    """A command: what it does, in words, what it takes, and its own defaults."""

    function: Callable[[argparse.Namespace], None]
    words: str
    options: _Options
    defaults: Mapping[str, Any] = field(default_factory=dict)


_COMMANDS: Mapping[str, _Command] = {
    "run": _Command(
        commands.run_notebooks,
        "run the notebooks of a profile, skipping what is up to date",
        _NOTEBOOKS | _RUN,
    ),
    "simulate": _Command(
        commands.run_notebooks,
        "write the in-silico NSD of a profile",
        _NOTEBOOKS,
        {"only": "00", "first": "", "shards": 1, "rehearse": False},
    ),
    "setup": _Command(
        set_up,
        "bring data and models, check them, say what a run costs, rehearse it; goes on"
        " where it was cut off",
        _SETUP | _PROFILE,
        {"profile": "nsd", **_WITHIN_SETUP},
    ),
    "fetch": _Command(
        commands.fetch_data,
        "download the files that a run needs, and say what comes by hand; goes on where"
        " it was cut off",
        _FETCH | _PROFILE,
        {"profile": "nsd"},
    ),
    "check": _Command(
        commands.check_data,
        "say what a folder of a data set holds, lacks, and what in it is damaged",
        _CHECK | _PROFILE,
        {"profile": "nsd"},
    ),
    "claims": _Command(
        commands.show_claims,
        "print the claims ledger of a finished run",
        _NOTEBOOKS,
    ),
    "compare": _Command(
        commands.compare_runs,
        "say how a finished run differs from the reference that comes with the clone",
        _PROFILE | _COMPARE,
    ),
    "plan": _Command(
        commands.show_plan,
        "say what stage 2 costs under each preset, before it runs",
        _PROFILE | _PLAN,
    ),
    "human-trials": _Command(
        commands.human_trials,
        "write a page of two-alternative trials for people, or evaluate their answers",
        _PROFILE | _HUMAN,
    ),
    "study": _Command(
        commands.run_study,
        "compare the engines of stage 2; goes on where it was cut off",
        _PROFILE | _STUDY,
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minddiff", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        words = command.words
        sub = subparsers.add_parser(
            name, help=words, description=words, allow_abbrev=False
        )
        for names, settings in command.options.items():
            sub.add_argument(*names.split(), **settings)
        sub.set_defaults(function=command.function, **command.defaults)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (1 for a user's error)."""
    if arguments is None:
        without_switches()
    return guarded(partial(_obey, arguments))


def _obey(arguments: Sequence[str] | None) -> None:
    if arguments is None:
        check_place()
    args = _parser().parse_args(arguments)
    args.function(args)


if __name__ == "__main__":
    sys.exit(main())
