"""`minddiff`: the command line. Place in the flow: layer 10, the outermost."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from minddiff_utils import __version__
from minddiff_utils.config import Profile, load_profile, read_environment
from minddiff_utils.errors import ConfigError, DataError, MindDiffError, check_exists
from minddiff_utils.runner import is_done, make_plan, run_plan
from minddiff_utils.store import Tree, read_table

__all__ = ["main"]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(
                f"--set {item!r} must read KEY=VALUE, as stage2.n_iter=5."
            )
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"--set {item!r} has a value that is not valid YAML: {reason}."
            ) from error
    if args.subjects:
        try:
            found["subjects"] = [int(s) for s in args.subjects.split(",")]
        except ValueError as error:
            raise ConfigError(
                f"--subjects {args.subjects!r} must be numbers with commas, as 1,2."
            ) from error
    return found


def _tree(args: argparse.Namespace, profile: Profile) -> Tree:
    here = read_environment()
    nsd = Path(args.nsd_root) if args.nsd_root else here.nsd_root
    if profile.simulation is None:
        if nsd is None:
            raise DataError(
                "Profile 'nsd' needs the Natural Scenes Dataset: say where it is with "
                "--nsd-root PATH."
            )
        check_exists(nsd, "The NSD folder", "give its path with --nsd-root")
    default = here.root / "data" / profile.name / "nsd"
    return Tree(here.root, profile.name, (nsd or default).absolute())


def _run(args: argparse.Namespace) -> None:
    overrides = _overrides(args)
    profile = load_profile(args.profile, overrides)
    tree = _tree(args, profile)
    only = tuple(args.only.split(",")) if args.only else ()
    chosen = {"only": only, "first": args.first, "n_shards": args.shards}
    if args.jobs < 1:
        raise ConfigError(f"--jobs is {args.jobs}, but must be 1 or more.")
    plan = make_plan(profile, tree, overrides, **chosen)
    _say(f"{profile.label} · subjects {', '.join(map(str, profile.subjects))}")
    if args.dry_run:
        for job in plan.jobs:
            state = "up to date" if is_done(job, tree) else "would run"
            _say(f"{job.name}: {state}")
        return
    run_plan(plan, n_jobs=args.jobs, force=args.force, say=_say)
    if not only:
        _claims(args)
        _say(f"Report: {tree.figures / 'report.html'}")


def _simulate(args: argparse.Namespace) -> None:
    args.only, args.first, args.shards = "00", "", 1
    _run(args)


def _claims(args: argparse.Namespace) -> None:
    profile = load_profile(args.profile, _overrides(args))
    tree = _tree(args, profile)
    table = read_table(tree.figures / "claims.csv").fillna("")
    for row in table.itertuples(index=False):
        _say(f"{row.claim:>4}  {row.verdict}  ·  {row.statement}")
    _say(f"({profile.label})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minddiff", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, words in (
        ("run", _run, "run the notebooks of a profile, skipping what is up to date"),
        ("simulate", _simulate, "write the in-silico NSD of a profile"),
        ("claims", _claims, "print the claims ledger of a finished run"),
    ):
        command = commands.add_parser(
            name, help=words, description=words, allow_abbrev=False
        )
        command.set_defaults(function=function)
        command.add_argument("--profile", default="demo", help="smoke, demo or nsd")
        command.add_argument("--nsd-root", default="", help="folder of the real NSD")
        command.add_argument("--subjects", default="", help="as 1,2,5,7")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="change a field of the profile",
        )
        command.add_argument("--jobs", type=int, default=2, help="notebooks at once")
        command.add_argument("--force", action="store_true", help="run all again")
        command.add_argument(
            "--dry-run", action="store_true", help="only say what runs"
        )
        if name == "run":
            _add_run_options(command)
    return parser


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--only", default="", help="notebook numbers, as 03,04")
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (1 for a user's error)."""
    args = _parser().parse_args(arguments)
    try:
        args.function(args)
    except MindDiffError as error:
        sys.stdout.flush()
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
