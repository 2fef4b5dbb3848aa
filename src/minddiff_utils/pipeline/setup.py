"""`minddiff setup`: from an empty folder to a run that can start.

Composes the commands that do each part alone, `fetch`, `check`, `plan` and a rehearsal;
of its own it has the models, which come by the same transfer as the data. Every part
says how to do it by hand, and what is there is not brought again.
"""

import argparse
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minddiff_utils.core.checkpoint import PAPERS, checkpoint_in
from minddiff_utils.core.entry import say
from minddiff_utils.core.errors import (
    ConfigError,
    DataError,
    ModelError,
    RunError,
    writing,
)
from minddiff_utils.core.places import place
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.models.downloads import (
    LICENCE,
    PINNED,
    HubFiles,
    download_command,
)
from minddiff_utils.pipeline.arguments import check_counts, overrides_of
from minddiff_utils.pipeline.commands import (
    bring,
    check_data,
    list_files,
    run_notebooks,
    show_plan,
    source_for,
)

if TYPE_CHECKING:
    from minddiff_utils.datasets.transfer import Download

__all__ = ["set_up"]

_HUB = "https://huggingface.co"
#: What may go wrong in one part while the others can go on.
_FAILURES = (DataError, ModelError, RunError)


@dataclass(frozen=True)
class _Part:
    """A part of the set-up: its name, what does it, how it is done by hand."""

    name: str
    do: Callable[[], None]
    by_hand: str


def set_up(args: argparse.Namespace) -> None:
    """Bring data and models, check them, say what a run costs, and rehearse it."""
    from minddiff_utils.datasets.download import confirm_agreement

    check_counts(args, "jobs")
    profile = load_profile(args.profile, overrides_of(args))
    if profile.simulation is not None:
        raise ConfigError(
            f"Profile {profile.name} simulates its data and needs no set-up: run"
            f" ./run_all.sh --profile {profile.name}."
        )
    root = place(args.path, "PATH")
    source, models = source_for(args, profile, root), _models_folder(profile, root)
    if models:
        say(LICENCE.replace("# ", ""))
    if args.dry_run:
        list_files(source.files, root)
        for line in source.by_hand:
            say(line)
        if models:
            list_files(_model_files(models, args.models_from), models)
        for part in (*_parts(args, profile, root), *_last_parts(args, profile)):
            say(f"{part.name}, by hand: {part.by_hand}")
        return
    if source.agreement:
        confirm_agreement(source.agreement, input, agreed=args.agreement_signed)
    failed = [part.name for part in _parts(args, profile, root) if not _does(part)]
    if not failed:
        failed = [part.name for part in _last_parts(args, profile) if not _does(part)]
    run = shlex.join(["./run_all.sh", *_options(args), "--nsd-root", args.path])
    if failed:
        raise DataError(
            f"Not ready yet ({', '.join(failed)}): do what is said above, then run the"
            " same command again, which goes on where it stopped."
        )
    say(f"\nReady; the run itself: {run}")


def _does(part: _Part) -> bool:
    """Do a part; say what went wrong, and return whether nothing did."""
    say(f"\n{part.name} (by hand: {part.by_hand})")
    try:
        part.do()
    except _FAILURES as error:
        say(str(error))
        return False
    return True


def _parts(args: argparse.Namespace, profile: Profile, root: Path) -> list[_Part]:
    """Return the parts that do not depend on each other, in order."""
    further = ["--further-tests"] if args.further_tests else []
    check = _words("check", args.path, *_options(args), *further)
    fetch = _words("fetch", args.path, *_options(args), *further)
    parts = [_Part("data", partial(_bring_data, args, profile, root), fetch)]
    if folder := _models_folder(profile, root):
        where = shlex.quote(str(folder))
        by_hand = (
            f"python -m minddiff_utils.models.downloads {where} prints the commands;"
            f" then cd {where} && find . -name '*.safetensors' -printf '%P\\n' |"
            " xargs sha256sum > SHA256SUMS"
        )
        bring_models = partial(_bring_models, folder, args.models_from, args.jobs)
        parts.append(_Part("models", bring_models, by_hand))
    parts.append(_Part("check", partial(check_data, args), check))
    if profile.data_set != "digits69":  # which has no generator
        plan = _words("plan", *_options(args))
        parts.append(_Part("plan", partial(show_plan, args), plan))
    return parts


def _last_parts(args: argparse.Namespace, profile: Profile) -> list[_Part]:
    """Return the rehearsal, which may take long."""
    chosen = {"rehearse": True, "nsd_root": "", "models": "", "only": "", "first": ""}
    more = {"shards": 1, "force": False, "executor": "local"}
    words = argparse.Namespace(**vars(args) | chosen | more)
    by_hand = f"./run_all.sh --profile {profile.name} --rehearse"
    return [_Part("rehearsal", partial(run_notebooks, words), by_hand)]


def _options(args: argparse.Namespace) -> list[str]:
    """Return the options that name the profile and change it, as they were given."""
    named = {"--subjects": args.subjects, "--models": args.models}
    given = [word for pair in named.items() if pair[1] for word in pair]
    changed = [word for setting in args.set for word in ("--set", setting)]
    return ["--profile", args.profile, *given, *changed]


def _words(*command: str) -> str:
    return shlex.join(["minddiff", *command])


def _bring_data(args: argparse.Namespace, profile: Profile, root: Path) -> None:
    """Download what the data set lacks; raise where something is left to do by hand."""
    source = source_for(args, profile, root)
    bring(list_files(source.files, root), args.jobs)
    if source.by_hand:
        raise DataError("\n".join(source.by_hand))


# --- the models -----------------------------------------------------------------------


def _models_folder(profile: Profile, root: Path) -> Path | None:
    """Return the folder of Stable Diffusion and CLIP, None where none is used."""
    if profile.data_set == "digits69" or profile.models.backbone != "sd14":
        return None
    return Tree.of(profile, root).models / "sd14"


def _lacking(folder: Path) -> list[tuple[HubFiles, str]]:
    """Return the pinned files that the folder lacks; none is ever replaced.

    A Stable Diffusion of the user's own is not filled up with files of v1-4.
    """
    is_own = checkpoint_in(folder) not in ("", PAPERS)
    return [
        (pin, name)
        for pin in PINNED
        for name in pin.files
        if not (folder / pin.target / name).is_file() and (pin.target or not is_own)
    ]


def _model_files(folder: Path, mirror: str) -> "list[Download]":
    """Return where each file that the folder lacks comes from, by commit."""
    from minddiff_utils.datasets.transfer import Download

    hub = mirror.rstrip("/") or _HUB
    return [
        Download(
            str(Path(pin.target, name)),
            f"{hub}/{pin.repository}/resolve/{pin.revision}/{name}",
            f"{pin.repository} at {pin.revision[:7]}",
            download_command(pin, folder),
            sha256=pin.digests.get(name, ""),
        )
        for pin, name in _lacking(folder)
    ]


def _bring_models(folder: Path, mirror: str, n_jobs: int) -> None:
    """Download the pinned files that the folder lacks, then note or compare digests.

    Beside each file stands the commit that it is of, as `hf download` notes it: labels
    name the checkpoint by it (`core.checkpoint`).
    """
    from minddiff_utils.models.weights import check_digests, write_digests

    lacking = _lacking(folder)
    try:
        if lacking:
            bring(list_files(_model_files(folder, mirror), folder), n_jobs)
    finally:
        for pin, name in lacking:
            home = folder / pin.target
            if (home / name).is_file():
                note = home / ".cache/huggingface/download" / f"{name}.metadata"
                with writing(note):
                    note.parent.mkdir(parents=True, exist_ok=True)
                    note.write_text(f"{pin.revision}\n\n{time.time()}\n", "utf-8")
    if (folder / "SHA256SUMS").is_file():
        check_digests(folder)
        return
    write_digests(folder)
