"""Write the in-silico NSD: NSD's own layout, from scenes, anatomy and brain.

Writing is deterministic to the byte, skipped when the folder was made by the same code
from the same settings, and never replaces a file that no simulation wrote (`folder`).
Not a reader: `datasets.nsd` reads these folders and real ones, and shares no code with
this module. The truth goes to `truth/` in the folder (`ground_truth` reads it).

Where the layout departs from NSD: `imgBrick` is compressed (its chunks hold one image,
unwritten images read as black), the group surface is fsaverage5 (10,242 vertices under
the name fsaverage), the brain mask ends one voxel beyond the labelled cortex, only the
files, variables and columns exist that a run reads, and `second_test_set.csv` names the
shared images that hold categories which no other image of the folder holds.

References
----------
Allen et al. 2022, Nature Neuroscience 25:116, data manual (names, types, axis order).
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from scipy.io import savemat
from threadpoolctl import threadpool_limits

from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.locks import end_with_parent
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import SimulationConfig
from minddiff_utils.core.provenance import digest_json, digest_paths
from minddiff_utils.insilico import image_features, scenes
from minddiff_utils.insilico.categories import CATEGORIES, HELD_OUT
from minddiff_utils.insilico.experiment_design import (
    N_STIMULI,
    make_design,
    stimulus_table,
)
from minddiff_utils.insilico.folder import PARTS, TRUTH, find, renewing
from minddiff_utils.insilico.image_features import Percepts
from minddiff_utils.insilico.subject_files import Job, write_fsaverage, write_subject

__all__ = ["WORLD", "Glance", "Summary", "look", "scene_of", "simulate"]

logger = logging.getLogger(__name__)

#: World of the in-silico NSD's scenes; a scene's index is its nsdId.
WORLD = "insilico-nsd"
_RENDER_SIZE = 128  # px; enlarged to NSD's size
_BATCH = 32  # scenes per task: fixed, so that results do not depend on the workers
#: Fewer do not repay the seconds that a process takes to start: threads share them.
_SCENES_PER_WORKER = 400
_BYTES_PER_IMAGE, _BYTES_PER_BETA = 130_000, 4


@dataclass(frozen=True)
class Glance:
    """A batch of images: as stored in imgBrick (zlib), and as the model sees them."""

    packed: tuple[bytes, ...]
    percepts: Percepts


@dataclass(frozen=True)
class Summary:
    """What the folder holds.

    Attributes
    ----------
    path : Path
        Root of the written tree.
    subjects : tuple of int
        Subjects written.
    n_sessions, n_trials, n_images, n_test_images, n_heldout_images : int
        Per subject.
    n_scenes : int
        Distinct images over all subjects.
    n_voxels : dict of str to int
        Labelled voxels by subject ("subj01").
    n_bytes : int
        Size of NSD's three folders.
    was_current : bool
        True if nothing had to be written.
    """

    path: Path
    subjects: tuple[int, ...]
    n_sessions: int
    n_trials: int
    n_images: int
    n_test_images: int
    n_heldout_images: int
    n_scenes: int
    n_voxels: dict[str, int]
    n_bytes: int
    was_current: bool


#: Returns a `Glance` for a batch of nsdIds and an image size; the third argument holds
#: the nsdIds of the second test set.
Source = Callable[[Sequence[int], int, frozenset[int]], Glance]
_SEEN = tuple(name for name in CATEGORIES if name not in HELD_OUT)


def scene_of(nsd_id: int, held_out: Collection[int]) -> scenes.Scene:
    """Return the scene of an image; those of `held_out` show held-out categories."""
    categories = HELD_OUT if nsd_id in held_out else _SEEN
    return scenes.make_scene(scenes.world_seed(WORLD), nsd_id, categories=categories)


def look(
    nsd_ids: Sequence[int], image_size: int, held_out: frozenset[int] = frozenset()
) -> Glance:
    """Render scenes, enlarge them to `image_size` px (bicubic) and look at them."""
    rendered = np.stack(
        [scenes.render(scene_of(i, held_out), _RENDER_SIZE) for i in nsd_ids]
    )
    side = (image_size, image_size)
    packed = tuple(
        zlib.compress(
            Image.fromarray(image).resize(side, Image.Resampling.BICUBIC).tobytes(), 1
        )
        for image in rendered
    )
    return Glance(packed, image_features.perceive(rendered))


def simulate(
    tree_nsd: Path,
    simulation: SimulationConfig | None,
    subjects: Sequence[int],
    seed: int,
    *,
    n_workers: int | None = None,
    source: Source = look,
) -> Summary:
    """Write an in-silico NSD to `tree_nsd`, unless it is there already.

    Parameters
    ----------
    tree_nsd : Path
        Root of the tree, by convention `data/<profile>/nsd`.
    simulation : SimulationConfig, optional
        Sessions, test images, image size, cortical depths; a profile of real data has
        none and is refused.
    subjects : sequence of int
        1..8.
    seed : int
        Same seed, same bytes.
    n_workers : int, optional
        Processes; by default one per core that this process may use, and no more
        than there is work for: where one is enough, its threads share the cores.
        Does not change the result.
    source : callable
        Makes the images; another one serves tests.

    Raises
    ------
    ConfigError
        If the profile simulates nothing, or the sessions cannot show so many test
        images.
    DataError
        If there is no space left, `tree_nsd` holds files of another origin where new
        ones would go, or one of the processes died.
    """
    if simulation is None:
        raise ConfigError(
            "This profile reads real data and has no simulation: use profile demo or "
            "smoke, or begin with notebook 01."
        )
    key = _key(simulation, subjects, seed, source.__qualname__)
    known = find(tree_nsd, key)
    if known is not None:
        logger.info("in-silico NSD at %s is up to date", tree_nsd)
        shown_to = tuple(known["subjects"])
        facts = {**known, "subjects": shown_to, "path": tree_nsd, "was_current": True}
        return Summary(**facts)
    design = make_design(
        simulation.n_sessions,
        simulation.n_test_images,
        simulation.n_heldout_images,
        seed=seed,
    )
    shown = {subject: np.unique(design.shown(subject)) for subject in subjects}
    nsd_ids = np.unique(np.concatenate(list(shown.values())))
    with renewing(tree_nsd) as renewal:
        _check_space(tree_nsd, len(nsd_ids), len(subjects) * design.n_trials)
        job = Job(renewal.fresh, renewal.fresh / TRUTH, simulation, design, seed)
        job.truth.mkdir()
        n = n_workers or _n_useful(len(nsd_ids))
        with _workers(n, n_threads=n_workers or _n_cores()) as run:
            percepts = _write_stimuli(job, nsd_ids, run, source)
            tasks = [
                (job, s, percepts.rows(np.searchsorted(nsd_ids, shown[s])), shown[s])
                for s in subjects
            ]
            del percepts  # the tasks hold copies
            n_voxels = dict(run(write_subject, tasks))
        write_fsaverage(job.folder)
        n_images = len(shown[subjects[0]])
        summary = _summary(tree_nsd, job, subjects, n_images, len(nsd_ids), n_voxels)
        facts = asdict(summary)
        del facts["path"], facts["was_current"]
        renewal.publish(key, facts)
    return summary


def _key(
    simulation: SimulationConfig, subjects: Sequence[int], seed: int, source: str
) -> str:
    """Return a digest of everything that can change a byte of the tree."""
    package = Path(__file__).resolve().parents[1]
    data = project_root() / "data"
    code = [*(package / "insilico").glob("*.py"), package / "core" / "rng.py"]
    inputs = [*(data / "atlas").glob("*.npz"), *(data / "sprites").glob("*.webp")]
    return digest_json(
        {
            "simulation": simulation.model_dump(mode="json"),
            "subjects": list(subjects),
            "seed": seed,
            "source": source,
            "code": digest_paths(sorted(code), package),
            "inputs": digest_paths(sorted(inputs), data),
        }
    )


def _n_bytes(folder: Path) -> int:
    """Return the size of what is in NSD's layout."""
    parts = [folder / name for name in PARTS]
    files = (f for part in parts for f in part.rglob("*") if f.is_file())
    return sum(f.stat().st_size for f in files)


def _check_space(folder: Path, n_scenes: int, n_trials: int) -> None:
    voxels = 5000
    needed = n_scenes * _BYTES_PER_IMAGE + n_trials * voxels * _BYTES_PER_BETA + 1e8
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder} has {free / 1e9:.1f} GB free, but the in-silico NSD needs "
            f"about {needed / 1e9:.1f} GB: free space or take fewer sessions."
        )


def _summary(
    tree_nsd: Path,
    job: Job,
    subjects: Sequence[int],
    n_images: int,
    n_scenes: int,
    n_voxels: dict[str, int],
) -> Summary:
    return Summary(
        path=tree_nsd,
        subjects=tuple(subjects),
        n_sessions=job.design.n_sessions,
        n_trials=job.design.n_trials,
        n_images=n_images,
        n_test_images=job.simulation.n_test_images,
        n_heldout_images=job.simulation.n_heldout_images,
        n_scenes=n_scenes,
        n_voxels=n_voxels,
        n_bytes=_n_bytes(job.folder),
        was_current=False,
    )


_Run = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[Any]]


@contextmanager
def _workers(n: int, n_threads: int) -> Iterator[_Run]:
    """Give a function that runs tasks in order, in threads or in `n` processes."""
    with ExitStack() as stack:
        pool: Executor
        if n == 1:
            stack.enter_context(threadpool_limits(1))
            stack.enter_context(_one_torch_thread())
            pool = ThreadPoolExecutor(n_threads)
        else:
            spawn = get_context("spawn")
            pool = ProcessPoolExecutor(n, spawn, initializer=_start_worker)
        try:
            yield lambda task, arguments: pool.map(task, *zip(*arguments, strict=True))
        except BrokenProcessPool as error:
            raise DataError(
                "A process that wrote the in-silico NSD died, which happens when memory"
                " runs out: close other programs, then run the same command again."
            ) from error
        finally:  # after an error, what waits in line is not begun any more
            pool.shutdown(cancel_futures=True)


def _n_useful(n_scenes: int) -> int:
    return min(_n_cores(), max(1, n_scenes // _SCENES_PER_WORKER))


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: respects limits on this process
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start_worker() -> None:
    end_with_parent()  # else it would write beside the next run's workers
    torch.set_num_threads(1)
    threadpool_limits(1)  # for the life of the process


def _write_stimuli(
    job: Job,
    nsd_ids: npt.NDArray[np.int64],
    run: _Run,
    source: Source,
) -> Percepts:
    """Write images, captions and design tables; return what the model saw."""
    size, held_out = job.simulation.image_size, frozenset(job.design.held_out.tolist())
    batches = [
        (nsd_ids[i : i + _BATCH].tolist(), size, held_out)
        for i in range(0, len(nsd_ids), _BATCH)
    ]
    glances: Iterator[Glance] = run(source, batches)
    _write_design(job)
    _write_captions(job, nsd_ids)
    path = job.folder / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    percepts = []
    with h5py.File(path, "w") as file:
        brick = file.create_dataset(
            "imgBrick",
            shape=(N_STIMULI, size, size, 3),
            dtype=np.uint8,
            chunks=(1, size, size, 3),
            compression="gzip",
            compression_opts=1,
            track_times=False,
        )
        for (ids, *_), glance in zip(batches, glances, strict=True):
            for row, packed in zip(ids, glance.packed, strict=True):
                brick.id.write_direct_chunk((row, 0, 0, 0), packed)
            percepts.append(glance.percepts)
            n_done = min(len(percepts) * _BATCH, len(nsd_ids))
            logger.info("scenes: %d of %d", n_done, len(nsd_ids))
    return image_features.join(percepts)


def _write_design(job: Job) -> None:
    design = job.design
    folder = job.folder / "nsddata" / "experiments" / "nsd"
    folder.mkdir(parents=True)
    path = folder / "nsd_expdesign.mat"
    savemat(
        path,
        {
            "masterordering": design.masterordering[None].astype(np.uint16),
            "sharedix": design.sharedix[None].astype(np.int32),
            "subjectim": design.subjectim.astype(np.int32),
        },
        format="5",
        do_compression=True,
    )
    dated = path.read_bytes()  # the first 116 bytes are free text with a date
    text = b"MATLAB 5.0 MAT-file, in-silico NSD, minddiff-utils".ljust(116)
    path.write_bytes(text + dated[116:])
    table = stimulus_table(design)
    table.to_csv(folder / "nsd_stim_info_merged.csv", lineterminator="\n")
    if len(design.held_out):
        second = pd.DataFrame({"nsdId": design.held_out})
        path = folder / "second_test_set.csv"
        second.to_csv(path, index=False, lineterminator="\n")


def _write_captions(job: Job, nsd_ids: npt.NDArray[np.int64]) -> None:
    """Write COCO's caption files for the written images."""
    folder = job.folder / "nsddata_stimuli" / "stimuli" / "nsd" / "annotations"
    folder.mkdir(parents=True)
    info = {"description": "in-silico NSD scenes, not COCO", "version": "1.0"}
    for split, in_split in (("train2017", False), ("val2017", True)):
        ids = nsd_ids[job.design.in_validation[nsd_ids] == in_split].tolist()
        images, captions = _annotations(job, ids)
        found = {"info": info, "licenses": [], "images": images}
        text = json.dumps(found | {"annotations": captions})
        path = folder / f"captions_{split}.json"
        path.write_text(text + "\n", encoding="utf-8")


_Rows = list[dict[str, Any]]


def _annotations(job: Job, nsd_ids: list[int]) -> tuple[_Rows, _Rows]:
    """Return COCO's rows for images and for their captions."""
    images: _Rows = []
    captions: _Rows = []
    size, held_out = job.simulation.image_size, set(job.design.held_out.tolist())
    for nsd_id in nsd_ids:
        coco_id = int(job.design.coco_id[nsd_id])
        scene = scene_of(nsd_id, held_out)
        name = f"{coco_id:012d}.jpg"
        images.append({"id": coco_id, "file_name": name, "height": size, "width": size})
        for number, text in enumerate(scene.captions, start=1):
            row = {"image_id": coco_id, "id": 10 * nsd_id + number, "caption": text}
            captions.append(row)
    return images, captions
