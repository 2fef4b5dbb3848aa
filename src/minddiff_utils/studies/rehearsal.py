"""A run rehearsed: synthetic data of its sizes, random models, a few images.

`./run_all.sh --profile nsd --rehearse` runs every notebook as the real run would, in a
folder of its own, and says what each step took and what the whole run would take. It is
for whoever has the data or hopes for it: nothing of NSD is read, no weights are needed.
Sizes that decide memory and speed stay NSD's: grid, voxels, trials, targets, image and
feature sizes. Numbers of things that are alike are cut: one subject, one session, a few
images, a few steps, and not more voxels per target than images. On a GPU the models
have the real architecture; without one, thin copies stand in for the U-Net, the
autoencoder and the judge, the sampler is short and voxels per target are fewer still,
so that stages 1 and 2 run for the form alone.

`--profile algonauts --rehearse` (or laion_fmri): notebooks 01 and 02, fewer images in
02, models of the real architectures for all that makes features; all that comes after
them is the same as with NSD.
`--profile digits69`: notebook A6. It shows that files of the release's layout and sizes
are read and decoded on this machine, and what that takes. Values are noise: no accuracy
means anything.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import psutil
import torch

from minddiff_utils.core import store
from minddiff_utils.core.errors import ConfigError, RunError
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Run, Tree
from minddiff_utils.core.surroundings import in_own_process
from minddiff_utils.datasets.nsd.layout import FACTS
from minddiff_utils.datasets.part_files import free_bytes
from minddiff_utils.insilico.experiment_design import n_images_shown
from minddiff_utils.models.random import Kind, weight_bytes, write_models
from minddiff_utils.studies import storage
from minddiff_utils.studies.rehearsal_data import Size, write_tree
from minddiff_utils.studies.rehearsal_folders import (
    AlgonautsSize,
    LaionSize,
    write_folder,
)
from minddiff_utils.studies.timing_report import (
    Record,
    machine,
    read_steps,
    table,
    time_fits,
    whole_run_words,
)
from minddiff_utils.studies.unit_rates import measure_rates

__all__ = ["NAME", "READING", "finish", "prepare", "rehearse"]

#: Name of the folders of NSD's rehearsal, in `data` and in `figures`.
NAME = "nsd-rehearsal"
#: Profiles of which those notebooks alone are rehearsed that know them from others.
READING = {
    "algonauts": ("01", "02"),
    "laion_fmri": ("01", "02"),
    "digits69": ("A6",),
}
Say = Callable[[str], None]
#: Per session of the in-silico design, of some 390 images: so many for tests and for
#: validation.
_TEST, _VALIDATION = 25, 22
#: Voxels per target, by kind.
_SELECTED = ("decoding.n_feat_c", "decoding.n_feat_z", "decoding.n_feat_clip")
#: Where reading is rehearsed: no more voxels per target than a fifth of the images.
_FEW: Mapping[str, Any] = {
    "data.n_reconstruct": 4,
    "data.n_images": 40,
    "data.n_validation": 4,
    "models.device": "cpu",
    "models.dtype": "float32",
    **dict.fromkeys(_SELECTED, 8),
    "decoding.n_folds": 2,
}
#: Bytes of a process that has loaded the libraries and models, and of the Gram matrices
#: of the decoders; of one stimulus as stored; of what else is kept.
_PROCESS = {"thin": 4e9, "reading": 4e9, "full": 9e9}
_GRAM, _STIMULUS, _OTHER = 16, 0.15e6, 3e9


@dataclass(frozen=True)
class Rehearsal:
    """A rehearsal of one subject and the run that it stands for.

    `real`, `profile`: what would be run, and what is run instead; `overrides`: dotted
    keys, for the notebooks, which make `profile` of the profile's file; `kind`: of the
    models; `tree`: its root may be deleted afterwards; `report`:
    folder of the table and of the record, which `minddiff plan` reads.
    """

    real: Profile
    profile: Profile
    overrides: dict[str, Any]
    kind: Kind
    tree: Tree
    report: Path

    @property
    def subject(self) -> int:
        """Return the one subject."""
        return self.profile.subjects[0]

    @property
    def notebooks(self) -> tuple[str, ...]:
        """Return the numbers of the notebooks that are run, none where all are."""
        return READING.get(self.profile.name, ())

    @property
    def size(self) -> Size | AlgonautsSize | LaionSize | None:
        """Return the release's sizes of the subject; the digits have no choice."""
        name, facts = self.profile.name, FACTS[self.subject]
        if name == "nsd":
            return Size(
                facts.grid, round(storage.area_voxels(self.subject)), facts.n_brain
            )
        if name == "algonauts":
            return AlgonautsSize.of(self.subject)
        return LaionSize() if name == "laion_fmri" else None

    @property
    def n_images(self) -> int:
        """Return the distinct images of the rehearsed sessions."""
        return _n_images(self.profile.data.last_session)


def rehearse(name: str, overrides: Mapping[str, Any], root: Path) -> Rehearsal:
    """Return the rehearsal of the profile `name` under the user's `overrides`.

    `data.sessions` is 1 unless they say otherwise; what else they set stays as they
    say in the rehearsal, too. `root` holds `data` and `figures`. ConfigError as
    `load_profile`.
    """
    real, is_nsd = load_profile(name, overrides), name == "nsd"
    if is_nsd and real.models.backbone != "sd14":
        raise ConfigError(
            f"models.backbone is {real.models.backbone!r}, but a rehearsal is one of"
            " Stable Diffusion v1-4: leave that override out."
        )
    home = root.absolute() / "data" / f"{name}-rehearsal"
    there = "cuda" if torch.cuda.is_available() else "cpu"
    device = str(overrides.get("models.device", there))
    kind: Kind = "reading"
    if is_nsd:
        kind = "full" if device != "cpu" else "thin"
    ours: dict[str, Any] = {} if name == "digits69" else {**_FEW}
    if is_nsd:
        n_sessions = real.data.last_session if "data.sessions" in overrides else 1
        ours = _cut(real, n_sessions, device)
    elif name == "laion_fmri":
        ours["data.sessions"] = 1
    theirs = {
        k: v for k, v in overrides.items() if k not in ("subjects", "models.path")
    }
    groups = {key for key in theirs if "." not in key}
    kept = {k: v for k, v in ours.items() if k.partition(".")[0] not in groups}
    own = {"subjects": [real.subjects[0]], "models.path": str(home / "models")}
    merged = {**kept, **theirs, **own}
    tree = Tree(home, name, home / "folder", home / "models")
    report = root / "figures" / f"{name}-rehearsal"
    return Rehearsal(real, load_profile(name, merged), merged, kind, tree, report)


def _n_images(n_sessions: int) -> int:
    return n_images_shown(n_sessions, n_sessions * _TEST)


def _cut(real: Profile, n_sessions: int, device: str) -> dict[str, Any]:
    """Return the overrides that make a short run of a long one."""
    n_train = _n_images(n_sessions) - n_sessions * (_TEST + _VALIDATION)
    decoding = real.decoding
    cut: dict[str, Any] = {
        "simulation": {"n_sessions": n_sessions, "n_test_images": n_sessions * _TEST},
        "data.sessions": n_sessions,
        "data.n_validation": n_sessions * _VALIDATION,
        "data.n_reconstruct": 4,
        "models.device": device,
        # more voxels than images tell a target nothing
        **{key: min(getattr(decoding, key[9:]), n_train) for key in _SELECTED},
        **{f"stage2.{loop}.n_iter": 2 for loop in ("paper", "released")},
        **{f"stage2.{loop}.n_candidates": 1 for loop in ("paper", "released")},
        "stage2.paper.n_images": 1,
        "stage2.n_images_controls": 1,
        "stage2.n_trajectory": 2,
        "stage2.n_images_trajectory": 4,
        "ablation.n_images": 2,
        "ablation.layers": [[1]],
        "ablation.iterations": [2],
        "ablation.k_grid": [25.0, 100.0],
        "evaluation.n_bootstrap": 200,
    }
    if device == "cpu":
        cut |= {
            "models.dtype": "float32",
            # all targets within minutes; `fits` times the profile's own numbers
            **{key: cut[key] // 4 for key in _SELECTED},
            "decoding.n_folds": 2,
            "stage1.n_steps": 4,
            "stage1.encode_index": 2,
            "stage1.decode_steps": 2,
        }
    return cut


def check_room(rehearsal: Rehearsal, size: Size) -> None:
    """Raise RunError if disk or memory will not do, before anything is written."""
    home, profile = rehearsal.tree.root, rehearsal.profile
    features = 4 * storage.feature_values(profile) * rehearsal.n_images
    volumes = profile.data.last_session * storage.session_bytes(rehearsal.subject)
    disk = volumes + weight_bytes(rehearsal.kind) + 2 * features + _OTHER
    disk += rehearsal.n_images * (_STIMULUS + 3 * profile.models.image_size**2)
    free = free_bytes(home)
    if not home.is_dir() and free < disk:
        raise RunError(
            f"{home}: {free / 1e9:.1f} GB are free, but the rehearsal needs"
            f" about {disk / 1e9:.0f}: free space, or set MINDDIFF_ROOT to another"
            " disk."
        )
    writing = 3 * 750 * prod(size.grid)  # a session and its copy
    decoding = float(_GRAM * size.n_voxels**2 + 3 * features)
    if profile.decoder == "dense":  # a weight per voxel and target, and parts again
        decoding += 1.5 * 4 * size.n_voxels * storage.feature_values(profile)
    memory = max(writing, _PROCESS[rehearsal.kind] + decoding)
    available = psutil.virtual_memory().available
    if available < memory:
        raise RunError(
            f"{available / 1e9:.1f} GB of memory are available, but the rehearsal"
            f" needs about {memory / 1e9:.0f}: close other programs, or take a larger"
            " machine."
        )


# --- before and after the notebooks ---------------------------------------------------


def prepare(rehearsal: Rehearsal, say: Say) -> dict[str, float]:
    """Write data and models unless they are there; return the seconds of each.

    Where disk or memory will not do for NSD's, RunError, and nothing was written; where
    the folder cannot be written, StoreError.
    """
    steps: dict[str, Callable[[], object]] = {
        "synthetic data": partial(_write_data, rehearsal)
    }
    if rehearsal.notebooks != READING["digits69"]:
        given = (rehearsal.tree.models, rehearsal.kind, rehearsal.profile.seed)
        steps["random models"] = partial(write_models, *given)
    seconds = {}
    for name, write in steps.items():
        began = time.time()
        write()
        seconds[name] = time.time() - began
        say(f"{name}: there after {seconds[name]:.0f} s")
    return seconds


def _write_data(rehearsal: Rehearsal) -> None:
    profile, subject, size = rehearsal.profile, rehearsal.subject, rehearsal.size
    if isinstance(size, Size):
        check_room(rehearsal, size)
        simulation: Any = profile.simulation
        write_tree(rehearsal.tree.nsd, simulation, subject, profile.seed, size)
    else:
        write_folder(rehearsal.tree.nsd, subject, profile.data.split, size)


def finish(rehearsal: Rehearsal, preparing: dict[str, float], say: Say) -> list[str]:
    """Write what was run of NSD's, and return what there is to say of any rehearsal.

    The decoders are timed at the real size first, on a GPU the units of stage 2, too.
    """
    lines = _words_of_reading(rehearsal) if rehearsal.notebooks else []
    if not rehearsal.notebooks:
        lines = whole_run_words(_record(rehearsal, preparing, say), rehearsal.real)
        if rehearsal.kind == "thin":
            lines.append(
                "Without a GPU notebooks 03 on ran with thin models, for the form:"
                " their times say nothing of Stable Diffusion's."
            )
        lines.append(f"Table: {rehearsal.report / 'rehearsal.csv'}")
    data = f"Delete the rehearsal's data, models and figures: {rehearsal.tree.root}"
    return [*lines, data]


def _words_of_reading(rehearsal: Rehearsal) -> list[str]:
    whole = [step for step in read_steps(rehearsal.tree.notebooks) if not step.section]
    took = ", ".join(
        f"{step.notebook} {step.seconds:.0f} s, {step.peak_gb:.1f} GB" for step in whole
    )
    return [
        f"Rehearsed on {machine()}: {took} at most.",
        "Not covered: accuracies, as values are noise, the models' weights, too;"
        " generation, which --profile nsd rehearses.",
    ]


def _record(rehearsal: Rehearsal, preparing: dict[str, float], say: Say) -> Record:
    """Write and return what was run."""
    profile, folder = rehearsal.profile, rehearsal.report
    say("decoders at the real size, a sample of targets: some minutes")
    record = Record(
        date=time.strftime("%Y-%m-%d"),
        machine=machine(),
        kind=rehearsal.kind,
        subject=rehearsal.subject,
        n_sessions=profile.data.last_session,
        n_images=rehearsal.n_images,
        n_reconstruct=storage.n_reconstructed(profile, rehearsal.subject),
        preparing=preparing,
        steps=read_steps(rehearsal.tree.notebooks),
        fits=time_fits(rehearsal.real, rehearsal.subject),
    )
    run = Run(profile, rehearsal.tree, None, (0, 1))
    if profile.models.device == "cuda":
        given = (profile.models, rehearsal.tree.models)
        rates = asdict(in_own_process(measure_rates, *given))
        path = folder / "rates" / f"cuda_{profile.models.dtype}.json"
        store.write_text(path, json.dumps(rates, indent=1) + "\n", run=run)
    found = table(record, rehearsal.real)
    caption = f"Rehearsed on {record.machine}, {record.date}"
    store.write_table(folder / "rehearsal.csv", found, run=run, caption=caption)
    store.write_text(folder / "rehearsal.json", record.text(), run=run)
    return record
