"""What each step of a rehearsal took, and what the whole run would by that.

A step is a notebook or a section of one. Seconds and bytes grow with what the step
handles: images seen, images reconstructed, or neither. Stage 2 grows with the preset,
which `cost` counts; the fits of the decoders do not grow in proportion, and are timed
apart. The record is what `minddiff plan` reads.

One session has too few images to tell how long decoders take: ridge on 8,000 images
takes other solvers than ridge on 200. So random responses of the real size are drawn,
and some targets of each kind are fitted. A fit forms the normal equations first and
then reads its targets block by block: what passes before the first read is the cost of
a fit, the rest is the cost of the targets.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nbformat
import numpy as np
import pandas as pd
import psutil
import torch
from pydantic import TypeAdapter
from threadpoolctl import threadpool_limits

from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.machine import processor_name
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.reading import reading
from minddiff_utils.core.rng import stream
from minddiff_utils.core.surroundings import in_own_process, peak_bytes
from minddiff_utils.core.types import Matrix
from minddiff_utils.datasets.nsd.layout import FACTS, N_TRIALS
from minddiff_utils.decoding import RidgeGCV, VoxelSelectedRidge
from minddiff_utils.studies import storage

__all__ = [
    "Record",
    "Step",
    "extrapolate",
    "held_at_once",
    "machine",
    "n_train",
    "read_record",
    "read_steps",
    "table",
    "time_fits",
    "whole_run_words",
]


# --- fits at the real size ----------------------------------------------------------

#: Targets of each kind that are fitted: some ten seconds of each.
_SAMPLE = {"c": 1024, "z": 256, "clip": 2048}


@dataclass(frozen=True)
class FitTimes:
    """Processor seconds of a fit, and of one target of each kind, on one thread.

    `decoder`: voxel_selected or dense; `n_train`, `n_voxels`: size of the responses;
    `fixed`: seconds of a fit before its first target; `per_target`: by kind of target
    (c, z, clip); `peak_gb`: of the process.
    """

    decoder: str
    n_train: int
    n_voxels: int
    fixed: float
    per_target: dict[str, float]
    peak_gb: float


def n_train(profile: Profile) -> int:
    """Return the training images of the subject who has most.

    >>> from minddiff_utils.core.profile_files import load_profile
    >>> n_train(load_profile("nsd"))
    8000
    """
    return max(storage.n_trained(profile, subject) for subject in profile.subjects)


def whole_seconds(times: FitTimes, profile: Profile) -> float:
    """Return the seconds of a subject's fits: main ones, folds, and sets of areas.

    The main fits are one of each kind of target, or one of all where the decoder is
    dense. Folds fit the CLIP layers alone; each is taken to cost what a fit of them on
    all images does. Sets of areas (LVC, HVC, eleven areas) fit c, z and one CLIP layer;
    their targets are taken to cost what they do with all voxels, and their normal
    equations nothing. Only LVC and HVC have more voxels than a target of z selects.
    """
    counts = storage.target_counts(profile)
    each = {kind: n * times.per_target[kind] for kind, n in counts.items()}
    n_fits = 1 if times.decoder == "dense" else len(counts)
    folds = profile.decoding.n_folds * (times.fixed + each["clip"])
    layer = each["clip"] / len(profile.features.clip_layers)
    sets = (len(AREAS) + 2) * (each["c"] + layer) + 2 * each["z"]
    return n_fits * times.fixed + sum(each.values()) + folds + sets


def time_fits(profile: Profile, subject: int) -> FitTimes:
    """Measure the fits of the real profile in a process of its own, on one thread.

    The clock is the processor's, which other work on the machine does not stop.
    """
    size = n_train(profile), round(storage.area_voxels(subject))
    return in_own_process(_measure, profile, size, _SAMPLE)


class _Watched:
    """Targets that note when they are first read."""

    def __init__(self, values: Matrix) -> None:
        self._values = values
        self.shape = values.shape
        self.first: float | None = None

    def __getitem__(self, key: Any, /) -> Any:
        if self.first is None:
            self.first = time.process_time()
        return self._values[key]


def _measure(
    profile: Profile, size: tuple[int, int], sample: dict[str, int]
) -> FitTimes:
    X, Y = _problem(stream(profile.seed, "rehearsal", "fits"), size, sample)
    config = profile.decoding
    torch.set_num_threads(1)  # for the life of the process
    with threadpool_limits(1):
        if profile.decoder == "dense":  # a target of each kind costs the same
            fixed, each = _time(RidgeGCV(), X, np.hstack(list(Y.values())))
            per_target = dict.fromkeys(Y, each)
        else:
            times = {}
            for kind, targets in Y.items():
                n_voxels = getattr(config, f"n_feat_{kind}")
                decoder = VoxelSelectedRidge(config.alpha, n_voxels, config.dtype)
                times[kind] = _time(decoder, X, targets)
            fixed = max(first for first, _ in times.values())
            per_target = {kind: each for kind, (_, each) in times.items()}
    return FitTimes(profile.decoder, *size, fixed, per_target, peak_bytes() / 1e9)


def _time(
    decoder: RidgeGCV | VoxelSelectedRidge, X: Matrix, Y: Matrix
) -> tuple[float, float]:
    """Return the seconds before the first target, and those of each target."""
    targets, began = _Watched(Y), time.process_time()
    decoder.fit(X, targets)
    first, end = targets.first or began, time.process_time()
    return first - began, (end - first) / Y.shape[1]


def _problem(
    rng: np.random.Generator, size: tuple[int, int], sample: Mapping[str, int]
) -> tuple[Matrix, dict[str, Matrix]]:
    """Return responses with common causes and noise, and targets of the same causes."""
    n, n_voxels = size
    causes = rng.standard_normal((n, 300), dtype=np.float32)

    def mixed(n_columns: int) -> Matrix:
        weights = rng.standard_normal((300, n_columns), dtype=np.float32)
        weights /= np.float32(300**0.5)
        noise = rng.standard_normal((n, n_columns), dtype=np.float32)
        return np.asarray(causes @ weights + 2 * noise, np.float32)

    return mixed(n_voxels), {kind: mixed(count) for kind, count in sample.items()}


Growth = Literal["images seen", "images reconstructed", "once", "preset", "fits"]

#: What each notebook grows with; the section of fits in 02 is timed apart.
GROWTH: Mapping[str, Growth] = {
    "01_data_prep": "images seen",
    "02_decoding": "images seen",
    "A2_decoders": "images seen",
    "03_stage1": "images reconstructed",
    "04_stage2": "preset",
    "07_subjects": "images seen",
    "08_leakage": "images seen",
    "05_evaluation": "images reconstructed",
    "06_figures": "once",
}
#: Notebooks that ask for the models of stages 1 and 2.
_GENERATING = ("03_stage1", "04_stage2", "07_subjects", "08_leakage")
#: The notebook of the fits, and what the cells call that fit all targets or sets of
#: areas.
_FITTING = ("02_decoding", ("cross_validate(", " fit("))
_FITS = "02_decoding, fits at the real size on one thread"
#: Values of one image by the networks of the field that give many: AlexNet's layers 2
#: and 5 at 256 and at 224 px, Inception, and both CLIPs.
_WIDTHS = (184_512, 57_600, 139_968, 43_264, 2048, 768, 512)


@dataclass(frozen=True)
class Step:
    """A notebook, or a section of one; see `GROWTH`.

    `section`: its heading, empty for the whole notebook, which alone knows the peak of
    its process, and what was written and kept.
    """

    notebook: str
    section: str
    grows_with: Growth
    seconds: float
    peak_gb: float | None = None
    disk_gb: float | None = None


@dataclass(frozen=True)
class Record:
    """What a rehearsal found, and on what.

    `kind`: of the models, full or thin; `preparing`: seconds of writing data and
    models, no part of a real run.
    """

    date: str
    machine: str
    kind: str
    subject: int
    n_sessions: int
    n_images: int
    n_reconstruct: int
    preparing: dict[str, float]
    steps: tuple[Step, ...]
    fits: FitTimes | None

    def text(self) -> str:
        """Return the record as JSON."""
        return _RECORDS.dump_json(self, indent=1).decode() + "\n"


_RECORDS = TypeAdapter(Record)


def read_record(path: Path) -> Record:
    """Read what `Record.text` wrote; damaged, DataError."""
    no_record = "is no record of a rehearsal"
    with reading(path, DataError, found=no_record, remedy="rehearse again"):
        return _RECORDS.validate_json(path.read_bytes())


def machine() -> str:
    """Return processor, cores and memory of this machine, and its GPU if any."""
    memory = psutil.virtual_memory().total / 1e9
    words = f"{psutil.cpu_count()} cores of {processor_name()}, {memory:.0f} GB"
    if torch.cuda.is_available():
        words += f", {torch.cuda.get_device_name()}"
    return words


# --- reading what was run -----------------------------------------------------------


def read_steps(folder: Path) -> tuple[Step, ...]:
    """Return the steps of the notebooks executed in `folder`, in order.

    A record of a notebook that is damaged: DataError.
    """
    steps: list[Step] = []
    for path in sorted(folder.glob("*.run.json")):
        stem = path.name.removesuffix(".run.json")
        notebook = stem.partition("_subj")[0]
        grows = GROWTH.get(notebook, "once")
        with reading(path, DataError, remedy="rehearse again"):
            run = json.loads(path.read_text(encoding="utf-8"))
            written = sum(size for size, _ in run["artefacts"].values())
            facts = (float(run["seconds"]), run["peak_mb"] / 1e3, written / 1e9)
        steps.append(Step(notebook, "", grows, *facts))
        steps += _sections(folder / f"{stem}.ipynb", notebook, grows)
    return tuple(steps)


def _sections(path: Path, notebook: str, grows: Growth) -> Iterator[Step]:
    """Yield the sections of an executed notebook with their cells' seconds.

    Cells that fit decoders are a section of their own within theirs.
    """
    seconds: Counter[tuple[str, Growth]] = Counter()
    section = "before the first section"
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            section = cell.source.splitlines()[0].removeprefix("## ").strip()
        took = cell.metadata.get("papermill", {}).get("duration")
        if cell.cell_type == "code" and took is not None:
            fits = notebook == _FITTING[0] and any(
                call in cell.source for call in _FITTING[1]
            )
            seconds[section, "fits" if fits else grows] += took
    for (name, grown), took in seconds.items():
        yield Step(notebook, name, grown, float(took))


# --- the whole run --------------------------------------------------------------------


def _images(profile: Profile) -> tuple[list[int], list[int]]:
    """Return the images that each subject saw, and those that are reconstructed."""
    both = [storage.images_of(profile, subject) for subject in profile.subjects]
    return [seen for seen, _ in both], [made for _, made in both]


def held_by_decoding(profile: Profile) -> float:
    """Return the bytes of features and weights in notebook 02 at once, at the least.

    All features of all images, their training and test rows (copies), and the
    cross-validated predictions of the CLIP layers, or the weights of a dense decoder,
    which come after them; float32.
    """
    n_images, values = max(_images(profile)[0]), storage.feature_values(profile)
    later = storage.target_counts(profile)["clip"] * n_train(profile)
    if profile.decoder == "dense":
        n_voxels = max(storage.area_voxels(subject) for subject in profile.subjects)
        later = max(later, round(n_voxels * values))
    return 4.0 * (2 * values * n_images + later)


def held_at_once(profile: Profile) -> dict[str, float]:
    """Return the bytes of one subject's arrays in 01, 02 and 05 at once, by notebook.

    Of the largest subject; models and the process itself come on top. 01: all trials,
    and the averages twice while they are joined. 02: see `held_by_decoding`. 05: the
    embeddings of the true images by every network of the field, those of one method by
    the widest, and that method's images.
    """
    n_sessions = max(storage.session_count(profile, s) for s in profile.subjects)
    n_trials = N_TRIALS * n_sessions
    n_images, n_scored = map(max, _images(profile))
    whole = profile.data.voxels == "nsdgeneral"
    n_voxels = max(
        FACTS[s].n_nsdgeneral if whole else storage.area_voxels(s)
        for s in profile.subjects
    )
    looked = 4 * (sum(_WIDTHS) + max(_WIDTHS)) + 3 * profile.models.image_size**2
    return {
        "01_data_prep": n_voxels * (2 * n_trials + 8 * n_images),
        "02_decoding": held_by_decoding(profile),
        "05_evaluation": float(n_scored * looked),
    }


def whole_peaks(record: Record, profile: Profile) -> dict[str, float]:
    """Return the peak of each notebook at the real size, GB, one job of it.

    What was measured, and the arrays of `held_at_once` that the rehearsal had not: it
    had its share of the images, and what does not grow with them stays.
    """
    seen, made = map(max, _images(profile))
    shares = {
        "images seen": record.n_images / seen,
        "images reconstructed": record.n_reconstruct / made,
    }
    lacked = {k: 1 - min(share, 1.0) for k, share in shares.items()}
    held = held_at_once(profile)
    return {
        s.notebook: s.peak_gb
        + held.get(s.notebook, 0.0) * lacked.get(s.grows_with, 0.0) / 1e9
        for s in record.steps
        if s.peak_gb is not None
    }


def extrapolate(record: Record, profile: Profile) -> dict[str, float | None]:
    """Return the hours of the whole run by notebook; None where they are not told.

    Thin models tell nothing of 03 and 04. Of 02 the section of fits is replaced by the
    fits timed at the real size, where they were.
    """
    seen, made = map(sum, _images(profile))
    times: dict[Growth, float] = {
        "images seen": seen / record.n_images,
        "images reconstructed": made / record.n_reconstruct,
        "once": 1.0,
    }
    hours: dict[str, float | None] = {}
    fits = [s.seconds for s in record.steps if s.section and s.grows_with == "fits"]
    for step in (s for s in record.steps if not s.section):
        is_thin = record.kind == "thin" and step.notebook in _GENERATING
        more = None if is_thin else times.get(step.grows_with)
        replaced = record.fits is not None and step.notebook == _FITTING[0]
        seconds = step.seconds - (sum(fits) if replaced else 0.0)
        hours[step.notebook] = None if more is None else seconds * more / 3600
    if record.fits is not None and hours.get(_FITTING[0]) is not None:
        n_subjects = len(profile.subjects)
        hours[_FITS] = n_subjects * whole_seconds(record.fits, profile) / 3600
    return hours


def table(record: Record, profile: Profile) -> pd.DataFrame:
    """Return a row per step: what it took, and the hours of the whole run.

    Columns: step, section, grows_with, seconds, peak_gb, disk_gb, whole_hours,
    whole_peak_gb.
    """
    hours, peaks = extrapolate(record, profile), whole_peaks(record, profile)
    rows: list[tuple[object, ...]] = [
        (name, "", "no part of a real run", seconds, *[None] * 4)
        for name, seconds in record.preparing.items()
    ]
    for step in record.steps:
        own = (hours.get(step.notebook), peaks.get(step.notebook))
        rows.append((*vars(step).values(), *((None, None) if step.section else own)))
    if (fits := record.fits) is not None:
        size = f"{fits.n_train} images, {fits.n_voxels} voxels, one fit without targets"
        peak, hour = fits.peak_gb, hours.get(_FITS)
        rows.append((_FITS, size, "fits", fits.fixed, peak, None, hour, peak))
    columns = ["step", "section", "grows_with", "seconds", "peak_gb", "disk_gb"]
    return pd.DataFrame(rows, columns=[*columns, "whole_hours", "whole_peak_gb"])


def whole_run_words(record: Record, profile: Profile) -> list[str]:
    """Return what the record says of the whole run under `profile`, as lines."""
    hours = extrapolate(record, profile)
    known = ", ".join(f"{k} {v:.2g} h" for k, v in hours.items() if v is not None)
    unknown = ", ".join(k for k, v in hours.items() if v is None)
    n = len(profile.subjects)
    who = "1 subject" if n == 1 else f"{n} subjects"
    lines = [
        f"Rehearsed on {record.machine}, {record.date}, with {record.n_images} images"
        f" of {record.n_sessions} session(s); for {who} one after the other: {known}."
    ]
    if record.fits is not None and record.fits.decoder == "voxel_selected":
        lines.append("models.n_threads shares these fits: the same weights, sooner.")
    if unknown:
        lines.append(
            f"Not told by it: {unknown}; minddiff plan counts their hours by preset."
        )
    peaks = whole_peaks(record, profile)
    if peaks:
        each = ", ".join(f"{name} {gb:.1f} GB" for name, gb in peaks.items())
        lines.append(f"Peak memory of one job at the real size: {each}.")
    return lines
