"""What the arguments of a command mean: changed settings, folders, workers, rates.

Arguments are those of `cli`; what is wrong with one is a sentence of `ConfigError`.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiff_utils.core.entry import check_extra
from minddiff_utils.core.errors import ConfigError, DataError, check_exists
from minddiff_utils.core.places import place, read_environment
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_files import parse_yaml
from minddiff_utils.core.run import Tree
from minddiff_utils.pipeline.runner import Executor, local_processes

if TYPE_CHECKING:
    from minddiff_utils.studies.unit_rates import Rates

__all__ = [
    "check_counts",
    "chosen_jobs",
    "executor_of",
    "n_jobs_of",
    "overrides_of",
    "rates_of",
    "rehearsed_folder",
    "tree_of",
]


#: What a profile for measured responses is run on.
_NEEDED = {
    "nsd": "the Natural Scenes Dataset",
    "algonauts": "the Algonauts 2023 release",
    "laion_fmri": "LAION-fMRI",
    "digits69": "the folder of the 69 digits",
}


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the profile that the arguments change, by dotted name."""
    fields: dict[str, Any] = {}
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(
                f"--set {item!r} must read KEY=VALUE, as stage2.paper.n_iter=5."
            )
        fields[key] = parse_yaml(value, f"The value of --set {item[:80]!r}")
    if args.subjects:
        try:
            fields["subjects"] = [int(s) for s in args.subjects.split(",")]
        except ValueError as error:
            raise ConfigError(
                f"--subjects {args.subjects!r} must be numbers with commas, as 1,2."
            ) from error
    if args.models:
        path = place(args.models, "--models")
        check_exists(path, "The models' folder", "give its path with --models")
        fields["models.path"] = str(path.resolve())
    return fields


def tree_of(args: argparse.Namespace, profile: Profile) -> Tree:
    """Return where the run reads and writes."""
    given = place(args.nsd_root, "--nsd-root") if args.nsd_root else None
    nsd = given or read_environment().nsd_root
    if profile.simulation is None:
        if nsd is None:
            raise DataError(
                f"Profile {profile.name!r} needs {_NEEDED[profile.data_set]}: say where"
                " it is with --nsd-root PATH."
            )
        check_exists(nsd, "The NSD folder", "give its path with --nsd-root")
        if not nsd.is_dir():
            raise DataError(f"{nsd} is no folder: give that of NSD with --nsd-root.")
    return Tree.of(profile, given)


def chosen_jobs(args: argparse.Namespace) -> dict[str, Any]:
    """Return which of a profile's jobs are asked for, as `make_plan` takes it."""
    only = tuple(args.only.split(",")) if args.only else ()
    return {"only": only, "first": args.first, "n_shards": args.shards}


def n_jobs_of(args: argparse.Namespace, profile: Profile) -> int:
    """Return how many jobs run at once; a GPU has room for one."""
    if args.jobs is None:
        return 1 if profile.models.device == "cuda" else 2
    check_counts(args, "jobs")
    return int(args.jobs)


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raise ConfigError where an option that counts is below 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}, but must be 1 or more.")


def executor_of(args: argparse.Namespace, profile: Profile) -> Executor:
    """Return what runs the notebooks: processes here, or workers of dask."""
    if args.scheduler and args.cluster:
        raise ConfigError(
            "--scheduler and --cluster both say where the workers are: give one of "
            "them."
        )
    if args.executor == "local":
        if args.scheduler or args.cluster:
            raise ConfigError("--scheduler and --cluster need --executor dask.")
        return partial(local_processes, gpu=profile.models.device == "cuda")
    check_extra("cluster", "distributed", "--executor dask")
    from minddiff_utils.pipeline.cluster import (  # loads dask, a second
        dask_workers,
        read_queue,
    )

    queue = read_queue(place(args.cluster, "--cluster")) if args.cluster else None
    gpu = profile.models.device == "cuda"
    return partial(dask_workers, scheduler=args.scheduler, queue=queue, gpu=gpu)


def rates_of(args: argparse.Namespace, profile: Profile) -> "Rates | None":
    """Return the rates: of a file, of two speeds, or those that were measured."""
    from minddiff_utils.studies import unit_rates

    models = profile.models
    half, single = args.tflops, args.tflops_float32
    if args.rates and not half is single is None:
        raise ConfigError(
            "--rates and --tflops both say how fast the device is: give one of them."
        )
    if args.rates:
        return unit_rates.read_rates(place(args.rates, "--rates"))
    if half is not None or single is not None:
        if models.dtype == "float32":
            half = half if single is None else single
        elif half is None:
            raise ConfigError(
                f"--tflops-float32 is the speed of the autoencoder and CLIP, but the"
                f" U-Net computes in {models.dtype}: say with --tflops how fast."
            )
        single = half if single is None else single
        return unit_rates.estimated_rates(half, single, models.device, models.dtype)
    kind = (models.backbone, models.device, models.dtype)
    # this machine's own come first
    return unit_rates.find_rates(
        rehearsed_folder() / "rates", *kind
    ) or unit_rates.find_rates(None, *kind)


def rehearsed_folder() -> Path:
    """Return the folder in which a rehearsal says what it found."""
    from minddiff_utils.studies.rehearsal import NAME

    return read_environment().root / "figures" / NAME
