"""What the commands do, one function each; what they take is `cli`'s to say.

A library that takes a second or more to load is loaded by the command that needs it.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minddiff_utils.core.checkpoint import checkpoint_in
from minddiff_utils.core.entry import say
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.places import place, project_root, read_environment
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree, expected_origin, start
from minddiff_utils.core.store import read_bytes, read_table
from minddiff_utils.core.surroundings import interrupts_held, settled
from minddiff_utils.pipeline.arguments import (
    check_counts,
    chosen_jobs,
    executor_of,
    n_jobs_of,
    overrides_of,
    rates_of,
    rehearsed_folder,
    tree_of,
)
from minddiff_utils.pipeline.graph import GRAPH, Job, Plan, make_plan
from minddiff_utils.pipeline.records import why
from minddiff_utils.pipeline.runner import run_plan
from minddiff_utils.pipeline.warm_kernels import job_context

if TYPE_CHECKING:
    from minddiff_utils.datasets.download import DownloadPlan
    from minddiff_utils.datasets.sources import Source
    from minddiff_utils.datasets.transfer import Download

__all__ = [
    "bring",
    "check_data",
    "compare_runs",
    "fetch_data",
    "human_trials",
    "list_files",
    "run_notebooks",
    "run_study",
    "show_claims",
    "show_plan",
    "source_for",
]


def run_notebooks(args: argparse.Namespace) -> None:
    """Run the notebooks of a profile."""
    if args.rehearse:
        _rehearse(args)
        return
    overrides = overrides_of(args)
    profile = load_profile(args.profile, overrides)
    tree = tree_of(args, profile)
    n_jobs, executor = n_jobs_of(args, profile), executor_of(args, profile)
    with _loading_ahead(args, profile):
        plan = make_plan(profile, tree, overrides, **chosen_jobs(args))
        checkpoint = checkpoint_in(tree.models / "sd14")
        label = profile.label(expected_origin(profile, tree), checkpoint)
        say(f"{label} · subjects {', '.join(map(str, profile.subjects))}")
        if args.dry_run:
            _say_states(plan, force=args.force, done="up to date")
            return
        run_plan(
            plan,
            n_jobs=n_jobs,
            force=args.force,
            say=say,
            executor=executor,
            before=partial(_check_first, profile, tree),
        )
    if profile.data_set == "digits69":
        say(f"Figure and table: {tree.figures}")
        return
    if not args.only:
        say(f"Report: {tree.figures / 'report.html'}")
        show_claims(args)
    _name_unfinished(profile, tree)


@contextmanager
def _loading_ahead(args: argparse.Namespace, profile: Profile) -> Iterator[None]:
    """Load what the notebooks load beside the plan's making, where most will run."""
    part = args.executor != "local" or args.only or args.first or args.dry_run
    if part or profile.data_set == "digits69":  # of one notebook
        yield
        return
    with settled():
        with interrupts_held():
            job_context(len(GRAPH))
        yield


def _rehearse(args: argparse.Namespace) -> None:
    from minddiff_utils.studies import rehearsal  # loads torch and diffusers, seconds

    if args.profile not in ("nsd", *rehearsal.READING):
        raise ConfigError(
            f"--rehearse is for --profile nsd, {', '.join(rehearsal.READING)}:"
            f" {args.profile} runs as it is."
        )
    if args.nsd_root or args.models or args.executor != "local":
        raise ConfigError(
            "--rehearse writes its own data and models, and runs here: leave"
            " --nsd-root, --models and --executor out."
        )
    root = read_environment().root
    trial = rehearsal.rehearse(args.profile, overrides_of(args), root)
    chosen = chosen_jobs(args) | {"first": max("01", args.first)}
    what = f"{trial.kind} models"
    if trial.notebooks:
        chosen = {"only": trial.notebooks}
        what = f"notebooks {', '.join(trial.notebooks)}"
    plan = make_plan(trial.profile, trial.tree, trial.overrides, **chosen)
    say(f"{trial.profile.label('in silico')} · subject {trial.subject} · {what}")
    if args.dry_run:
        _say_states(plan, force=args.force, done="done")
        return
    say(f"Synthetic data of the release's sizes go to {trial.tree.nsd}: minutes")
    preparing = rehearsal.prepare(trial, say)
    run_plan(plan, n_jobs=1, force=args.force, say=say)  # peaks are each one's own
    for line in rehearsal.finish(trial, preparing, say):
        say(line)


def _say_states(plan: Plan, *, force: bool, done: str) -> None:
    """Say of each job whether it would run, and why; `done` says that it would not."""
    for job in plan.jobs:
        reason = why(job, plan.tree) or ("forced" if force else "")
        say(f"{job.name}: " + (f"would run ({reason})" if reason else done))


def _name_unfinished(profile: Profile, tree: Tree) -> None:
    """Raise DataError where half precision left images out; say which, what to do."""
    from minddiff_utils.evaluation.images import (
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
    from minddiff_utils.datasets.check import before_run  # loads the readers, a second

    who = {job.subject for job in todo if job.notebook[:2] == "01"}
    subjects = [subject for subject in profile.subjects if subject in who]
    if profile.data_set != "nsd":
        _check_data_set(profile, tree.nsd, subjects)
        return
    n_captions = profile.features.n_captions
    needed, optional = before_run(tree.nsd, subjects, profile.data, n_captions)
    if needed:
        raise DataError("\n".join(["Nothing was run, as this is needed:", *needed]))
    for line in optional:
        say(f"{line} The run goes on without.")


def _check_data_set(profile: Profile, root: Path, subjects: Sequence[int]) -> None:
    """Raise DataError unless the files of a data set of means agree; say its notes."""
    from minddiff_utils.datasets import open_data_set  # loads the readers, a second

    version, split = profile.data.betas_version, profile.data.split
    data_set = open_data_set(profile.data_set, root, version, split)
    for subject in subjects:
        sessions = data_set.sessions(subject, profile.data.session_numbers)
        data_set.check(subject, sessions)
        for note in data_set.notes(subject):
            say(f"Subject {subject}: {note}")


def _with_stages(args: argparse.Namespace) -> Profile:
    """Return the profile of a command that is about images made by a generator."""
    profile = load_profile(args.profile, overrides_of(args))
    if profile.data_set == "digits69":
        raise ConfigError(
            "Profile digits69 reads images from voxels without a generator, so it has"
            " no claims, costs or studies: name another profile, such as demo."
        )
    return profile


def show_claims(args: argparse.Namespace) -> None:
    """Print the claims ledger: the verdict on each claim, then its endpoints."""
    from minddiff_utils.evaluation.claims import COLUMNS, ledger_lines  # loads scipy

    profile = _with_stages(args)
    path = tree_of(args, profile).figures / "claims.csv"
    for line in ledger_lines(read_table(path, COLUMNS)):
        say(line)


def compare_runs(args: argparse.Namespace) -> None:
    """Print how a finished run differs from the reference, or make the reference."""
    from minddiff_utils.reporting import reference  # loads pandas and Pillow

    overrides, profile = overrides_of(args), _with_stages(args)
    tree = Tree.of(profile)
    shipped = project_root() / "figures" / "reference"
    target = place(args.reference, "--reference") if args.reference else shipped
    if not args.write_reference:
        comparison = reference.compare(tree.figures, target, profile=profile)
        for line in comparison.lines():
            say(line)
        if comparison.difference():
            raise DataError(comparison.difference())
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
    say(f"{target}: {len(about.files)} files, {size / 1e6:.2f} MB; {about.words()}")


def fetch_data(args: argparse.Namespace) -> None:
    """Download the files of a data set that a run needs."""
    from minddiff_utils.datasets.download import confirm_agreement

    check_counts(args, "jobs")
    profile = load_profile(args.profile, overrides_of(args))
    root = place(args.path, "PATH")
    source = source_for(args, profile, root)
    if source.agreement and not args.dry_run:
        confirm_agreement(source.agreement, input, agreed=args.agreement_signed)
    plan = list_files(source.files, root)
    for line in source.by_hand:
        say(line)
    if args.dry_run:
        return
    bring(plan, args.jobs)
    if source.by_hand:
        raise DataError(
            "What comes from servers is there; what comes by hand is named above: run"
            f" minddiff check {args.path} --profile {profile.name} when it is there."
        )


def source_for(args: argparse.Namespace, profile: Profile, root: Path) -> "Source":
    """Return where the files of a profile's data set come from."""
    from minddiff_utils.datasets.sources import Mirrors, source_of

    asked = (args.endpoint, args.captions_from or "", args.form, args.further_tests)
    subjects, data = profile.subjects, profile.data
    return source_of(profile.data_set, root, subjects, data, Mirrors(*asked))


def list_files(files: "Sequence[Download]", folder: Path) -> "DownloadPlan":
    """Say what would come to `folder`, with sizes; raise where it does not fit."""
    from minddiff_utils.datasets import download

    plan = download.plan_download(files, folder)
    for line in download.listing(plan):
        say(line)
    plan.check_space()
    return plan


def bring(plan: "DownloadPlan", n_jobs: int) -> None:
    """Download what a plan lacks; say what did not come, and raise."""
    from minddiff_utils.datasets import download

    with download.progress_bar(plan) as tell:
        done = download.download(plan, n_workers=n_jobs, on_progress=tell)
    sizes = (f"known by size alone: {path}" for path in done.size_only)
    for line in (*done.problems, *sizes):
        say(line)
    done.check()


def check_data(args: argparse.Namespace) -> None:
    """Say what a folder of a data set holds, lacks, and what in it is damaged."""
    from minddiff_utils.datasets import check_folder  # loads the readers, a second

    profile = load_profile(args.profile, overrides_of(args))
    if args.further_tests and profile.data_set != "nsd":
        raise ConfigError(
            f"Profile {profile.name} has no further test sets: leave --further-tests"
            " out, or check with --profile nsd."
        )
    if profile.data_set == "digits69":
        from minddiff_utils.datasets.digits69.reader import read_digits

        read_digits(place(args.path, "PATH"))
        say("The file is there and is the published one.")
        return
    if profile.data_set != "nsd":
        _check_data_set(profile, place(args.path, "PATH"), profile.subjects)
        say("The files of these subjects are there and agree.")
        return
    findings = check_folder(
        place(args.path, "PATH"),
        subjects=profile.subjects,
        sessions=profile.data.session_numbers,
        betas_version=profile.data.betas_version,
        deep=args.deep,
        further=args.further_tests,
    )
    for line in findings.lines():
        say(line)
    if findings.exit_code:
        raise DataError(f"{args.path} lacks files or holds damaged ones: see above.")


def show_plan(args: argparse.Namespace) -> None:
    """Say what stage 2 costs under each preset."""
    # loads torch and diffusers, seconds
    from minddiff_utils.studies.cost_report import plan_lines

    profile = _with_stages(args)
    check_counts(args, "images", "gpus")
    for line in plan_lines(
        profile,
        rates_of(args, profile),
        n_images=args.images,
        n_devices=args.gpus,
        rehearsed=rehearsed_folder(),
    ):
        say(line)


def run_study(args: argparse.Namespace) -> None:
    """Compare the engines of stage 2."""
    from minddiff_utils.studies import (
        stage2_engines,
    )  # loads torch and diffusers, seconds

    overrides, profile = overrides_of(args), _with_stages(args)
    n_jobs = n_jobs_of(args, profile)
    label = start(args.profile, overrides=overrides).label
    say(f"{label} · study of stage 2, {args.part}")
    table = stage2_engines.run_study(
        args.profile, overrides, args.part, n_jobs=n_jobs, say=say
    )
    say(table.round(3).to_string(index=False))
    number = "A4" if args.part == "discrepancies" else "A3"
    command = f"minddiff run --profile {profile.name} --only {number}"
    say(f"Notebook {number} shows it: {command}")


def human_trials(args: argparse.Namespace) -> None:
    """Write the page of trials for people, or evaluate the answers to it."""
    from minddiff_utils.evaluation.further.human_trials import evaluate_answers
    from minddiff_utils.reporting.human_trials import make_page  # loads torch, seconds

    if args.n < 1:
        raise ConfigError(f"--n is {args.n}, but must be 1 or more.")
    _with_stages(args)
    run = start(args.profile, overrides=overrides_of(args))
    methods, subject = args.methods.split(","), run.profile.subjects[0]
    if not args.answers:
        trials, page = make_page(run, subject, methods, n=args.n)
        run.save("human_trials", trials, twins=False)
        run.save("human_trials.html", page, folder=run.tree.figures)
        say(f"{len(trials)} trials, subject {subject}: send this page to raters:")
        say(str(run.tree.figures / "human_trials.html"))
        say("What they send back: minddiff human-trials --answers FILE [FILE ...]")
        return
    path = run.tree.tables / "human_trials.csv"
    trials = read_table(path, ["trial", "kind", "method", "answer"])
    paths = [place(name, "--answers") for name in args.answers]
    texts = {path.name: read_bytes(path).decode("utf-8", "replace") for path in paths}
    table = evaluate_answers(trials, texts)
    run.save("T9_human_trials", table)
    say(table.round(3).to_string(index=False))
