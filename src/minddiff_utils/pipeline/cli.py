"""`minddiff`: the command line. Place in the flow: layer 10, the outermost."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiff_utils import __version__
from minddiff_utils.core.config import (
    Profile,
    load_profile,
    parse_yaml,
    place,
    project_root,
    read_environment,
)
from minddiff_utils.core.entry import (
    check_extra,
    check_place,
    guarded,
    without_switches,
)
from minddiff_utils.core.entry import say as _say
from minddiff_utils.core.errors import ConfigError, DataError, check_exists
from minddiff_utils.core.run import Tree, expected_origin, start
from minddiff_utils.core.store import read_table
from minddiff_utils.pipeline.runner import (
    Engine,
    Job,
    local_processes,
    make_plan,
    run_plan,
    why,
)

if TYPE_CHECKING:
    from minddiff_utils.studies.cost import Prediction, Rates

__all__ = ["main"]


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(
                f"--set {item!r} must read KEY=VALUE, as stage2.n_iter=5."
            )
        found[key] = parse_yaml(value, f"The value of --set {item[:80]!r}")
    if args.subjects:
        try:
            found["subjects"] = [int(s) for s in args.subjects.split(",")]
        except ValueError as error:
            raise ConfigError(
                f"--subjects {args.subjects!r} must be numbers with commas, as 1,2."
            ) from error
    if args.models:
        path = place(args.models, "--models")
        check_exists(path, "The models' folder", "give its path with --models")
        found["models.path"] = str(path.resolve())
    return found


def _tree(args: argparse.Namespace, profile: Profile) -> Tree:
    here = read_environment()
    nsd = place(args.nsd_root, "--nsd-root") if args.nsd_root else here.nsd_root
    if profile.simulation is None:
        if nsd is None:
            raise DataError(
                "Profile 'nsd' needs the Natural Scenes Dataset: say where it is with "
                "--nsd-root PATH."
            )
        check_exists(nsd, "The NSD folder", "give its path with --nsd-root")
        if not nsd.is_dir():
            raise DataError(f"{nsd} is no folder: give that of NSD with --nsd-root.")
    default = here.root / "data" / profile.name / "nsd"
    models = profile.models.folder(here.root)
    return Tree(here.root, profile.name, (nsd or default).absolute(), models)


def _run(args: argparse.Namespace) -> None:
    if args.rehearse:
        _rehearse(args)
        return
    overrides = _overrides(args)
    profile = load_profile(args.profile, overrides)
    tree = _tree(args, profile)
    only = tuple(args.only.split(",")) if args.only else ()
    chosen = {"only": only, "first": args.first, "n_shards": args.shards}
    n_jobs, engine = _n_jobs(args, profile), _engine(args, profile)
    plan = make_plan(profile, tree, overrides, **chosen)
    label = profile.label(expected_origin(profile, tree))
    _say(f"{label} · subjects {', '.join(map(str, profile.subjects))}")
    if args.dry_run:
        for job in plan.jobs:
            reason = why(job, tree) or ("forced" if args.force else "")
            state = f"would run ({reason})" if reason else "up to date"
            _say(f"{job.name}: {state}")
        return
    how = {"n_jobs": n_jobs, "force": args.force, "say": _say, "engine": engine}
    run_plan(plan, **how, before=partial(_check_first, profile, tree))
    if not only:
        _say(f"Report: {tree.figures / 'report.html'}")
        _claims(args)
    _name_unfinished(profile, tree)


def _name_unfinished(profile: Profile, tree: Tree) -> None:
    """Raise DataError where half precision left images out; say which, what to do."""
    from minddiff_utils.evaluation.baselines import (
        unfinished,  # loads the metrics, seconds
    )

    lines = [
        f"subject {subject}, image {image} ({', '.join(methods)})"
        for subject in profile.subjects
        for image, methods in unfinished(tree.derived(subject)).items()
    ]
    more = f"; and {len(lines) - 20} more" if len(lines) > 20 else ""
    if lines:
        raise DataError(
            f"The U-Net in {profile.models.dtype} gave no number for"
            f" {'; '.join(lines[:20])}{more} (column finished of stage1.csv and"
            " stage2.csv): all else is done, without these images. To have them too,"
            " add --set models.dtype=float32, which makes all images anew."
        )


def _check_first(profile: Profile, tree: Tree, todo: Sequence[Job]) -> None:
    """Raise DataError where notebook 01 would miss something in data of the user's own.

    What is optional is said, and the run goes on.
    """
    stems = {job.notebook[:2] for job in todo}
    simulated = profile.simulation is not None
    ours = simulated and expected_origin(profile, tree) == "in silico"
    if "01" not in stems or "00" in stems or ours:
        return
    from minddiff_utils.datasets.survey import before_run  # loads the readers, a second

    who = {job.subject for job in todo if job.notebook[:2] == "01"}
    subjects = [subject for subject in profile.subjects if subject in who]
    n_captions = profile.features.n_captions
    needed, optional = before_run(tree.nsd, subjects, profile.data, n_captions)
    if needed:
        raise DataError("\n".join(["Nothing was run, as this is needed:", *needed]))
    for line in optional:
        _say(f"{line} The run goes on without.")


def _n_jobs(args: argparse.Namespace, profile: Profile) -> int:
    """Return how many jobs run at once; a GPU has room for one."""
    if args.jobs is None:
        return 1 if profile.models.device == "cuda" else 2
    if args.jobs < 1:
        raise ConfigError(f"--jobs is {args.jobs}, but must be 1 or more.")
    return int(args.jobs)


def _rehearse(args: argparse.Namespace) -> None:
    from minddiff_utils.studies import rehearsal  # loads torch and diffusers, seconds

    if args.profile != "nsd":
        raise ConfigError(
            f"--rehearse is for --profile nsd: {args.profile} runs as it is."
        )
    if args.nsd_root or args.models or args.engine != "local":
        raise ConfigError(
            "--rehearse writes its own data and models, and runs here: leave"
            " --nsd-root, --models and --engine out."
        )
    found = rehearsal.rehearse(_overrides(args), read_environment().root)
    only = tuple(args.only.split(",")) if args.only else ()
    chosen = {"only": only, "first": max("01", args.first), "n_shards": args.shards}
    plan = make_plan(found.profile, found.tree, found.overrides, **chosen)
    _say(f"{found.profile.label()} · subject {found.subject} · {found.kind} models")
    if args.dry_run:
        for job in plan.jobs:
            reason = why(job, found.tree) or ("forced" if args.force else "")
            _say(f"{job.name}: " + (f"would run ({reason})" if reason else "done"))
        return
    preparing = rehearsal.prepare(found, _say)
    run_plan(plan, n_jobs=1, force=args.force, say=_say)  # peaks are each one's own
    record = rehearsal.finish(found, preparing, rehearsal.fits_of(found, _say))
    for line in rehearsal.last_words(found, record):
        _say(line)


def _engine(args: argparse.Namespace, profile: Profile) -> Engine:
    """Return what runs the notebooks: processes here, or workers of dask."""
    if args.scheduler and args.cluster:
        raise ConfigError(
            "--scheduler and --cluster both say where the workers are: give one of "
            "them."
        )
    if args.engine == "local":
        if args.scheduler or args.cluster:
            raise ConfigError("--scheduler and --cluster need --engine dask.")
        return partial(local_processes, gpu=profile.models.device == "cuda")
    check_extra("cluster", "distributed", "--engine dask")
    from minddiff_utils.pipeline.engine import (  # loads dask, a second
        dask_workers,
        read_queue,
    )

    queue = read_queue(place(args.cluster, "--cluster")) if args.cluster else None
    gpu = profile.models.device == "cuda"
    return partial(dask_workers, scheduler=args.scheduler, queue=queue, gpu=gpu)


def _simulate(args: argparse.Namespace) -> None:
    args.only, args.first, args.shards, args.rehearse = "00", "", 1, False
    _run(args)


def _claims(args: argparse.Namespace) -> None:
    from minddiff_utils.evaluation.claims import vacuity_lines

    profile = load_profile(args.profile, _overrides(args))
    tree = _tree(args, profile)
    columns = ["claim", "verdict", "statement", "profile"]
    table = read_table(tree.figures / "claims.csv", columns)
    for row in table.itertuples(index=False):
        _say(f"{row.claim:>4}  {row.verdict}  ·  {row.statement}")
    for label in table["profile"].unique():  # what the data were when it was made
        _say(f"({label})")
    path = tree.tables / "claims_null.csv"
    if not path.is_file():
        raise DataError(
            f"{path} does not exist, so nothing tells whether the checks could fail: "
            f"make it by minddiff run --profile {profile.name} --only 05 --force."
        )
    columns = ["claim", "null", "vacuous", "n_held", "n_draws"]
    vacuous = vacuity_lines(read_table(path, columns))
    for line in vacuous:
        _say(line)
    if vacuous:
        names = ", ".join(line.partition(" ")[0] for line in vacuous)
        raise DataError(
            f"A check that cannot tell a claim from its null decides {names}: that "
            "verdict means nothing until the rule is mended."
        )


def _compare(args: argparse.Namespace) -> None:
    from minddiff_utils.reporting import reference  # loads pandas and Pillow

    overrides = _overrides(args)
    profile, here = load_profile(args.profile, overrides), read_environment()
    nsd = here.nsd_root or here.root / "data" / profile.name / "nsd"
    tree = Tree(here.root, profile.name, nsd, profile.models.folder(here.root))
    shipped = project_root() / "figures" / "reference"
    target = place(args.reference, "--reference") if args.reference else shipped
    if not args.write_reference:
        found = reference.compare(tree.figures, target, profile=profile)
        for line in found.lines():
            _say(line)
        if found.difference():
            raise DataError(found.difference())
        return
    plan = make_plan(profile, tree, overrides)
    for job in plan.jobs:
        if reason := why(job, tree):
            raise DataError(
                f"{job.name} is not up to date ({reason}), so there is no finished run"
                f" to take: run minddiff run --profile {profile.name} first."
            )
    first = (None, profile.subjects[0])
    names = [job.name for job in plan.jobs if job.subject in first]
    about = reference.write_reference(
        tree.figures, target, profile=profile, notebooks=names
    )
    size = sum(facts["bytes"] for facts in about.files.values())
    _say(f"{target}: {len(about.files)} files, {size / 1e6:.2f} MB; {about.words()}")


def _fetch(args: argparse.Namespace) -> None:
    check_extra("download", "boto3", "minddiff fetch")
    from minddiff_utils.datasets import fetch  # loads boto3, a second

    if args.jobs < 1:
        raise ConfigError(f"--jobs is {args.jobs}, but must be 1 or more.")
    profile = load_profile(args.profile, _overrides(args))
    data, root = profile.data, place(args.path, "PATH")
    files = fetch.wanted(
        profile.subjects,
        data.session_numbers,
        data.betas_version,
        form=args.form or "hdf5",
    )
    if args.form is None:
        files = fetch.as_present(files, root)
    files = fetch.not_otherwise(files, root)
    if not args.dry_run:
        fetch.confirm_agreement(input, agreed=args.agreement_signed)
    client = fetch.make_client(args.endpoint or None, n_workers=args.jobs)
    plan = fetch.plan_fetch(client, files, root)
    archive = replace(fetch.ARCHIVE, url=args.captions_from or fetch.ARCHIVE.url)
    words = fetch.captions_words(root, archive)
    for line in (*fetch.listing(plan), *([words] if words else [])):
        _say(line)
    plan.check_space()
    if args.dry_run:
        return
    with fetch.progress_bar(plan) as tell:
        done = fetch.fetch(plan, n_workers=args.jobs, on_progress=tell)
    for line in (
        *done.problems,
        *(f"known by size alone: {k}" for k in done.size_only),
    ):
        _say(line)
    fetch.fetch_captions(root, archive)
    done.check()


def _check(args: argparse.Namespace) -> None:
    from minddiff_utils.datasets.survey import survey  # loads the readers, a second

    profile = load_profile(args.profile, _overrides(args))
    found = survey(
        place(args.path, "PATH"),
        subjects=profile.subjects,
        sessions=profile.data.session_numbers,
        betas_version=profile.data.betas_version,
        deep=args.deep,
    )
    for line in found.lines():
        _say(line)
    if found.exit_code:
        raise DataError(f"{args.path} lacks files or holds damaged ones: see above.")


# --- plan -----------------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> None:
    from minddiff_utils.studies import (  # loads torch and diffusers, seconds
        cost,
        storage,
    )

    profile = load_profile(args.profile, _overrides(args))
    if args.images is not None and args.images < 1:
        raise ConfigError(f"--images is {args.images}, but must be 1 or more.")
    if args.gpus < 1:
        raise ConfigError(f"--gpus is {args.gpus}, but must be 1 or more.")
    rates = _rates(args, profile)
    found = [cost.predict(profile, preset, rates) for preset in cost.PRESETS]
    each = [
        args.images or storage.n_reconstructed(profile, s) for s in profile.subjects
    ]
    few, many, models = min(each), max(each), profile.models
    n_images = f"{few}" if few == many else f"{few} to {many}"
    _say(
        f"{profile.label()} · subjects {', '.join(map(str, profile.subjects))} ·"
        f" {n_images} images of each · {models.backbone} on {models.device},"
        f" U-Net in {models.dtype}, batches of {models.batch_size}"
    )
    wall = f"wall h, {args.gpus} devices" if args.gpus > 1 else "wall h"
    head = ("preset", "U-Net evaluations", "gradients", "decodes", "TFLOP")
    rows: list[tuple[str, ...]] = [
        (*head, "s/image", "device h", wall, "peak GB", "rates")
    ]
    for one in found:
        hours = None
        if one.seconds is not None:
            hours = cost.device_hours(one.seconds, sum(each), n_subjects=1)
        at_once = None if hours is None else cost.wall_hours(hours, args.gpus)
        rows.append(_plan_row(one, hours, at_once))
    for line in _aligned(rows):
        _say(line)
    for line in _plan_whole(profile, each, rates):
        _say(line)
    notes = _plan_notes(found, profile)
    for line in (*notes, *_plan_space(profile), *_plan_rehearsed(profile)):
        _say(line)


def _plan_whole(
    profile: Profile, n_images: Sequence[int], rates: "Rates | None"
) -> list[str]:
    """Return what notebooks 03 and 04 run for all subjects, row by row, and the sum."""
    from minddiff_utils.studies import cost, workload

    known = profile.models.backbone == "sd14"
    rows: list[tuple[str, ...]] = [
        ("condition", "images", "U-Net evaluations", "gradients", "device h", "")
    ]
    whole, hours = cost.Counts(), 0.0
    subjects = [workload.workloads(profile, n) for n in n_images]
    for same in zip(*subjects, strict=True):
        one, own = same[0], None
        counts = sum((each.counts for each in same), cost.Counts())
        if known and rates is not None:
            own = counts.weigh(rates.seconds, one.work.memory) / 3600
            hours += own
        whole += counts
        n = sum(each.n_images for each in same)
        unet = (f"{counts.unet_forwards:,}", f"{counts.unet_backwards:,}")
        rows.append((one.name, f"{n:,}", *unet, _number(own), ""))
    unet = (f"{whole.unet_forwards:,}", f"{whole.unet_backwards:,}")
    rows.append(("all", "", *unet, _number(hours or None), ""))
    return ["Notebooks 03 and 04, all subjects:", *map(str.rstrip, _aligned(rows))]


def _rates(args: argparse.Namespace, profile: Profile) -> "Rates | None":
    """Return the rates: of a file, of two speeds, or those that were measured."""
    from minddiff_utils.studies import cost

    models = profile.models
    half, single = args.tflops, args.tflops_float32
    if args.rates and not half is single is None:
        raise ConfigError(
            "--rates and --tflops both say how fast the device is: give one of them."
        )
    if args.rates:
        return cost.read_rates(place(args.rates, "--rates"))
    if half is not None or single is not None:
        if models.dtype == "float32":
            half = half if single is None else single
        elif half is None:
            raise ConfigError(
                f"--tflops-float32 is the speed of the autoencoder and CLIP, but the"
                f" U-Net computes in {models.dtype}: say with --tflops how fast."
            )
        single = half if single is None else single
        return cost.estimated_rates(half, single, models.device, models.dtype)
    kind = (models.backbone, models.device, models.dtype)
    # this machine's own come first
    return cost.find_rates(_rehearsed() / "rates", *kind) or cost.find_rates(
        None, *kind
    )


def _rehearsed() -> Path:
    """Return the folder in which a rehearsal says what it found."""
    from minddiff_utils.studies.rehearsal import NAME

    return read_environment().root / "figures" / NAME


def _plan_row(
    one: "Prediction", hours: float | None, wall: float | None
) -> tuple[str, ...]:
    total = one.work.total
    teraflop = None if one.operations is None else one.operations / 1e12
    peak = None if one.peak_bytes is None else one.peak_bytes / 1e9
    return (
        one.preset,
        f"{total.unet_forwards:,}",
        f"{total.unet_backwards:,}",
        f"{total.decode_forwards:,}",
        *(_number(v) for v in (teraflop, one.seconds, hours, wall, peak)),
        one.source,
    )


def _number(value: float | None) -> str:
    """Return three significant digits, an em dash where there is no number."""
    if value is None:
        return "—"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines: numbers to the right, first and last column left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *middle, last in rows:
        cells = [cell.rjust(w) for cell, w in zip(middle, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells, last]))
    return lines


def _plan_notes(found: "Sequence[Prediction]", profile: Profile) -> list[str]:
    """Return what the table's numbers rest on."""
    models = profile.models
    notes = [
        "Per image of one condition, at most: an image that stops by itself takes"
        " fewer. An evaluation that is done again for the gradient counts with the"
        " gradient."
    ]
    if models.backbone != "sd14":
        notes.append(
            "Rates and operations are known for Stable Diffusion v1-4 (backbone sd14)"
            f" alone, not for {models.backbone}."
        )
        return notes
    if any(one.seconds is None for one in found):
        notes.append(
            f"Nobody has measured a {models.device} device in this precision: hours are"
            " unknown. Measure yours with tests/benchmarks/stage2_sd14.py --out FILE"
            " and pass --rates FILE, or pass --tflops X for an estimate."
        )
    if any(one.source.startswith("estimate") for one in found):
        notes.append(
            "An estimate divides operations by a speed, nothing was measured: eager"
            " code stays well below the best product of a device."
        )
        one_speed = not any("in float32" in one.source for one in found)
        if one_speed and models.dtype != "float32":
            notes.append(
                "The autoencoder and CLIP compute in float32, and are taken to be as"
                " fast as the U-Net: say with --tflops-float32 how fast they are."
            )
    if any(one.peak_source == "counted tensors" for one in found):
        notes.append(
            "Peak: weights and the values kept for the gradient, counted; what passes"
            " while computing comes on top."
        )
    if models.device == "cuda":
        notes.append(
            f"A peak is that of {models.n_at_once or 1} image(s) at once. As many of a"
            " batch go through as the free memory of the GPU holds; where two fit with"
            " all their values stored, a loop takes a third less time."
        )
    return notes


def _plan_space(profile: Profile) -> list[str]:
    """Return what a run on the real data downloads, keeps and holds, in GB."""
    from minddiff_utils.studies import storage
    from minddiff_utils.studies.rehearsal import held_at_once

    if profile.simulation is not None or profile.models.backbone != "sd14":
        return []
    lines = []
    for words, space in (
        ("To download, betas as hdf5", storage.to_download(profile)),
        ("To keep, an estimate", storage.kept(profile)),
    ):
        parts = ", ".join(f"{k} {v / 1e9:,.1f}" for k, v in space.parts.items())
        lines.append(f"{words}: {space.total / 1e9:,.0f} GB ({parts}).")
    held = ", ".join(f"{k} {v / 1e9:.1f} GB" for k, v in held_at_once(profile).items())
    lines.append(f"Memory of one job beside its models, at the least: {held}.")
    return lines


def _plan_rehearsed(profile: Profile) -> list[str]:
    """Return what a rehearsal on this machine says of the whole run, if there was."""
    path = _rehearsed() / "rehearsal.json"
    if profile.simulation is not None or profile.models.backbone != "sd14":
        return []
    if not path.is_file():
        return [
            "Nobody has rehearsed it here: minddiff run --profile nsd --rehearse times"
            " every notebook on synthetic data of NSD's sizes."
        ]
    from minddiff_utils.studies import rehearsal

    return rehearsal.whole_run_words(rehearsal.read_record(path), profile)


# --- study ----------------------------------------------------------------------------


def _study(args: argparse.Namespace) -> None:
    from minddiff_utils.studies import study  # loads torch and diffusers, seconds

    overrides = _overrides(args)
    profile = load_profile(args.profile, overrides)
    n_jobs = _n_jobs(args, profile)
    label = start(args.profile, overrides=overrides).label
    _say(f"{label} · study of stage 2, {args.part}")
    found = study.run_study(args.profile, overrides, args.part, n_jobs=n_jobs, say=_say)
    _say(found.round(3).to_string(index=False))
    _say(
        f"Notebook 04 draws it: minddiff run --profile {profile.name} --only 04 --force"
    )


# --- the parser -----------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minddiff", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, words, options in _COMMANDS:
        command = commands.add_parser(
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
        "--engine",
        default="local",
        choices=("local", "dask"),
        help="processes of this machine, or workers of dask.distributed",
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
        _run,
        "run the notebooks of a profile, skipping what is up to date",
        (*_NOTEBOOKS, _add_run_options),
    ),
    ("simulate", _simulate, "write the in-silico NSD of a profile", _NOTEBOOKS),
    (
        "fetch",
        _fetch,
        "download the files of NSD that a run needs; goes on where it was cut off",
        (_add_fetch_options,),
    ),
    (
        "check",
        _check,
        "say what a folder of NSD holds, lacks, and what in it is damaged",
        (_add_check_options,),
    ),
    (
        "claims",
        _claims,
        "print the claims ledger of a finished run; fails where a check is vacuous",
        _NOTEBOOKS,
    ),
    (
        "compare",
        _compare,
        "say how a finished run differs from the reference that comes with the clone",
        (_add_profile_options, _add_compare_options),
    ),
    (
        "plan",
        _plan,
        "say what stage 2 costs under each preset, before it runs",
        (_add_profile_options, _add_plan_options),
    ),
    (
        "study",
        _study,
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
