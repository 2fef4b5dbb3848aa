"""`minddiff`, the command line: its commands, their options, the exit code."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

from minddiff_utils import __version__
from minddiff_utils.core.entry import check_place, guarded, without_switches
from minddiff_utils.pipeline import commands

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minddiff", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, words, options in _COMMANDS:
        command = subparsers.add_parser(
            name, help=words, description=words, allow_abbrev=False
        )
        command.set_defaults(function=function)
        for add in options:
            add(command)
    return parser


def _add_profile_options(command: argparse.ArgumentParser) -> None:
    """Add what names a profile and changes it."""
    command.add_argument("--profile", default="demo", help="smoke, demo or nsd")
    command.add_argument("--subjects", default="", help="as 1,2,5,7")
    command.add_argument(
        "--models", default="", metavar="PATH", help="folder of models, for offline use"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a field of the profile",
    )


def _add_check_options(command: argparse.ArgumentParser) -> None:
    """Add what names a folder of NSD; its profile is the real one by default."""
    command.add_argument("path", metavar="PATH", help="folder of NSD, only read")
    command.add_argument(
        "--deep",
        action="store_true",
        help="read all contents too: hours for all of NSD",
    )
    _add_profile_options(command)
    command.set_defaults(profile="nsd")


def _add_fetch_options(command: argparse.ArgumentParser) -> None:
    """Add where NSD's files go, in which form, and from where."""
    command.add_argument("path", metavar="PATH", help="folder that becomes NSD's root")
    command.add_argument(
        "--form",
        choices=("hdf5", "nii.gz"),
        help="of the betas; by default what is there of a session, else hdf5, which is"
        " read faster",
    )
    command.add_argument(
        "--captions-from",
        metavar="ADDRESS",
        help="a mirror of COCO's annotations_trainval2017.zip",
    )
    command.add_argument("--jobs", type=int, default=4, help="files at once")
    command.add_argument("--dry-run", action="store_true", help="list, fetch nothing")
    command.add_argument(
        "--agreement-signed",
        action="store_true",
        help="say that you have signed NSD's data access agreement, and be not asked",
    )
    command.add_argument(
        "--endpoint", default="", metavar="URL", help="a mirror of the bucket"
    )
    _add_profile_options(command)
    command.set_defaults(profile="nsd")


def _add_job_options(command: argparse.ArgumentParser) -> None:
    """Add what a run of notebooks needs besides its profile."""
    command.add_argument("--nsd-root", default="", help="folder of the real NSD")
    _add_jobs(command, "notebooks")
    command.add_argument("--force", action="store_true", help="run all again")
    command.add_argument(
        "--dry-run", action="store_true", help="only say what would run, and why"
    )
    command.add_argument(
        "--executor",
        "--engine",
        default="local",
        choices=("local", "dask"),
        help="what runs the notebooks: processes of this machine, or workers of"
        " dask.distributed (--engine is its former name)",
    )
    command.add_argument(
        "--scheduler", default="", metavar="ADDRESS", help="of a running dask scheduler"
    )
    command.add_argument(
        "--cluster",
        default="",
        metavar="FILE",
        help="YAML that says how to ask a queue for workers: system and options",
    )


def _add_jobs(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--jobs",
        type=int,
        help=f"{what} at once; default: 2, on a GPU 1; more take a GPU each",
    )


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rehearse",
        action="store_true",
        help="with --profile nsd: run it on synthetic data of NSD's sizes with random"
        " models and a few images, and say what the whole run would take",
    )
    command.add_argument("--only", default="", help="notebook numbers, as 03,A3")
    command.add_argument("--from", dest="first", default="", help="as 02")
    command.add_argument(
        "--shards",
        type=int,
        default=1,
        metavar="N",
        help="run notebooks 03 and 04 as N jobs per subject, each with its share of "
        "the batches of images; the results are the same (by hand: their parameter "
        "shard, INDEX/N)",
    )


def _add_plan_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images", type=int, metavar="N", help="per subject; default: the profile's"
    )
    command.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="devices at once"
    )
    command.add_argument(
        "--tflops",
        type=float,
        metavar="X",
        help="estimate hours from operation counts, the U-Net at X TFLOP/s",
    )
    command.add_argument(
        "--tflops-float32",
        type=float,
        metavar="X",
        help="the autoencoder and CLIP, and a U-Net in float32, at X TFLOP/s; default:"
        " as --tflops, which is too fast for them on most GPUs",
    )
    command.add_argument(
        "--rates",
        default="",
        metavar="FILE",
        help="JSON that tests/benchmarks/stage2_sd14.py wrote; default: those in "
        "data/cost for the profile's device and precision",
    )


def _add_study_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--part",
        default="confirmation",
        choices=("pilot", "confirmation"),
        help="variants on validation images, or all arms on test images",
    )
    _add_jobs(command, "subjects")


def _add_compare_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reference",
        default="",
        metavar="PATH",
        help="folder of the reference; default: figures/reference of this clone",
    )
    command.add_argument(
        "--write-reference",
        action="store_true",
        help="for maintainers: make the reference from the finished run instead",
    )


_Options = Callable[[argparse.ArgumentParser], None]
_NOTEBOOKS: tuple[_Options, ...] = (_add_profile_options, _add_job_options)
_COMMANDS: tuple[
    tuple[str, Callable[[argparse.Namespace], None], str, tuple[_Options, ...]], ...
] = (
    (
        "run",
        commands.run_notebooks,
        "run the notebooks of a profile, skipping what is up to date",
        (*_NOTEBOOKS, _add_run_options),
    ),
    ("simulate", commands.simulate, "write the in-silico NSD of a profile", _NOTEBOOKS),
    (
        "fetch",
        commands.fetch_data,
        "download the files of NSD that a run needs; goes on where it was cut off",
        (_add_fetch_options,),
    ),
    (
        "check",
        commands.check_data,
        "say what a folder of NSD holds, lacks, and what in it is damaged",
        (_add_check_options,),
    ),
    (
        "claims",
        commands.show_claims,
        "print the claims ledger of a finished run; fails where a check is vacuous",
        _NOTEBOOKS,
    ),
    (
        "compare",
        commands.compare_runs,
        "say how a finished run differs from the reference that comes with the clone",
        (_add_profile_options, _add_compare_options),
    ),
    (
        "plan",
        commands.show_plan,
        "say what stage 2 costs under each preset, before it runs",
        (_add_profile_options, _add_plan_options),
    ),
    (
        "study",
        commands.run_study,
        "compare the engines of stage 2; goes on where it was cut off",
        (_add_profile_options, _add_study_options),
    ),
)


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
