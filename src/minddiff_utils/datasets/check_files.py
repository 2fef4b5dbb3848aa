"""How one file of NSD is checked: read as a run reads it, and compared with the others.

Whatever goes wrong becomes a finding; what a sound file holds is kept in the `Scope`,
for the files that must fit it. Of betas, by default, a sample alone is read: of an hdf5
file some voxels in all trials, of a nii.gz file the first trials. Where a sample has a
hole, the file is read as notebook 01 would, so that both refuse the same.
"""

import gzip
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.profile import FeatureConfig
from minddiff_utils.core.types import Array, IntArray, Mask
from minddiff_utils.datasets.findings import Finding, look
from minddiff_utils.datasets.inventory import HEMISPHERES, DataFile, sides_of
from minddiff_utils.datasets.nsd import layout
from minddiff_utils.datasets.nsd.betas import check_int16
from minddiff_utils.datasets.nsd.experiment import Design
from minddiff_utils.datasets.nsd.publisher import NSD
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.datasets.protocol import UnitSet
from minddiff_utils.datasets.validity import MOST_EMPTY, digest_betas, fault, where_held
from minddiff_utils.datasets.volumes import end_of, load_image

__all__ = ["Scope", "Space", "check_betas", "check_file", "read_sample"]

_BATCH = 64  # images read at once
_BLOCK = 1 << 20  # bytes unpacked at once
#: Voxels of an hdf5 file, and trials of a nii.gz file, that are read as a sample.
_N_VOXELS, _N_TRIALS = 64, 2
_BESIDE = "a file beside the betas"
#: What files are called that have another name than their kind or their path.
_LABELS = {
    "design": "experimental design",
    "table": "stimulus table",
    "captions": "captions {split}",
    "labels": "labels of {name}",
    "roi": "{name}",
    "brainmask": "brain mask",
}


@dataclass
class Scope:
    """What is asked of which folder, and what its sound files hold.

    Attributes
    ----------
    sessions, subjects : tuple of int
        Ascending, from 1.
    before_run : bool
        Look at what a run reads alone, whether or not NSD publishes other numbers.
    values : dict
        (subject, item of its finding) -> what a file holds; None where it is not sound.
    n_vertices : dict
        (anatomy, hemisphere) -> vertices, where they are known.
    """

    tree: NsdTree
    sessions: tuple[int, ...]
    subjects: tuple[int, ...]
    deep: bool = False
    before_run: bool = False
    voxels: UnitSet = "areas"
    n_captions: int = FeatureConfig().n_captions
    values: dict[tuple[object, ...], Any] = field(default_factory=dict)
    n_vertices: dict[tuple[object, object], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the vertices that NSD publishes, where they must hold."""
        if self.published:
            for side, h in enumerate(HEMISPHERES):
                self.n_vertices["fsaverage", h] = layout.N_FSAVERAGE
                for subject, facts in layout.FACTS.items():
                    self.n_vertices[subject, h] = facts.n_vertices[side]

    @property
    def published(self) -> bool:
        """Return whether the constants that NSD publishes must hold."""
        return self.tree.is_real and not self.before_run

    def n_sessions(self, subject: int) -> int:
        """Return the last session that `subject` can have."""
        real = self.tree.is_real
        return layout.FACTS[subject].n_sessions if real else layout.N_SESSIONS

    def asked(self, subject: int) -> tuple[int, ...]:
        """Return those of the sessions asked for that `subject` has, or should have."""
        try:
            return self.tree.sessions_of(subject, self.sessions)
        except DataError:
            return ()

    @property
    def design(self) -> Design | None:
        """Return the experiment's design, None where it is not sound."""
        return self.values.get((None, "experimental design"))

    def seen(self, subject: int, sessions: Sequence[int]) -> IntArray:
        """Return the distinct `nsd_id` seen in sessions; none without a design."""
        if self.design is None:
            return np.zeros(0, np.int64)
        return np.unique(self.design.images[subject - 1, self.design.of(sessions)])


def check_file(scope: Scope, file: DataFile) -> Finding:
    """Look at a file, and keep in `scope.values` what it holds if all is well."""
    path = sides_of(scope.tree.root, file.path)[0]
    label = _LABELS.get(file.kind, file.kind).format(**file.names)
    subject = file.subject
    if file.notebook == "06":
        label = Path(file.path).name
    if subject == "fsaverage":
        subject, label = None, f"fsaverage {label}"
    optional = file.optional and label != scope.voxels
    if file.kind == "labels" and path.exists():
        optional = False  # a run reads it where it is
    unread = file.kind == "stimuli" and not scope.deep
    finding = Finding(subject, label, path, optional, unread)
    finding, value = look(finding, _read, scope, file, path)
    scope.values[subject, label] = value
    return finding


def _read(scope: Scope, file: DataFile, path: Path) -> Any:
    """Return what a file holds, in so far as it must fit others."""
    subject: Any = file.subject
    tree = scope.tree
    match file.kind:
        case "design":
            return _read_design(scope, path)
        case "table":
            return _read_table(scope, path)
        case "stimuli":
            return _read_stimuli(scope, path)
        case "captions":
            if known := tree.captions_of(file.names["split"]):
                return known
            raise NSD.wrong(path, "no caption", "one at least")
        case "responses":
            return tree.responses(subject)
        case "labels":
            return tree.roi_labels(subject, file.names["name"])
        case "brainmask" | "roi" | "ncsnr":
            return _read_volume(scope, file, path)
        case _:
            return _read_surface(scope, file, path)


# --- the experiment -------------------------------------------------------------------


def _read_design(scope: Scope, path: Path) -> Design:
    design = scope.tree.design()
    shared = design.images[0, : layout.N_SHARED] + 1
    ends = (int(shared.min()), int(shared.max()))
    if scope.published and ends != layout.SHARED_ENDS:
        text = f"shared images {ends[0]} to {ends[1]}"
        raise NSD.wrong(path, text, f"{layout.SHARED_ENDS}")
    return design


def _read_table(scope: Scope, path: Path) -> Any:
    scope.tree.shared_images()
    table = scope.tree.stim_info("cocoId", "cocoSplit")
    row, coco_id = layout.FIRST_SHARED
    stated = int(table["cocoId"].iloc[row])
    if scope.published and stated != coco_id:
        raise NSD.wrong(path, f"cocoId {stated} in row {row}", f"{coco_id}")
    return table


def _read_stimuli(scope: Scope, path: Path) -> None:
    tree = scope.tree
    each = [scope.seen(subject, scope.asked(subject)) for subject in scope.subjects]
    seen = np.unique(np.concatenate(each))
    if scope.published:
        with NSD.hdf5(path, "Stimuli", "imgBrick") as bricks:
            real = (layout.N_IMAGES, layout.IMAGE_SIZE, layout.IMAGE_SIZE, 3)
            check_shape(bricks.shape, real, f"imgBrick in {path}")
    tree.stimuli(seen[-1:])  # the last one seen is within the file
    blank = 0
    for first in range(0, len(seen) if scope.deep else 0, _BATCH):
        pixels = tree.stimuli(seen[first : first + _BATCH])
        blank += int((~pixels.any(axis=(1, 2, 3))).sum())
    if blank:
        raise NSD.wrong(
            path, f"{blank} images seen by a subject that are black", "none"
        )


# --- volumes --------------------------------------------------------------------------


def _read_volume(scope: Scope, file: DataFile, path: Path) -> Any:
    """Return a volume as the reader gives it; these are small and read whole."""
    subject: Any = file.subject
    tree = scope.tree
    values: Array
    if file.kind == "roi":
        values = tree.roi(subject, file.names["name"])
    else:
        values = (tree.ncsnr if file.kind == "ncsnr" else tree.brainmask)(subject)
    if not (values > 0).any():
        raise NSD.wrong(path, "no voxel above 0", "one at least")
    if file.kind == "brainmask" and scope.published:
        mm = layout.VOXEL_MM
        centred = np.diag([mm, mm, mm, 1.0])
        centred[:3, 3] = [-(n - 1) / 2 * mm for n in values.shape]
        # float32 in the header
        if not np.allclose(load_image(path).affine, centred, atol=1e-3):
            text = "voxels of 1.8 mm centred on the origin"
            raise NSD.wrong(path, "another affine", text)
    return values


def _check_nii(path: Path, *, to_the_end: bool) -> Any:
    """Return the image of a .nii.gz file whose length fits its header.

    gzip's last four bytes hold the length (modulo 2^32) of what was packed, so a file
    cut short is known without unpacking it. A file packed in several parts looks the
    same, so where the length does not fit, the file is read to the end after all. Only
    that also finds damage in the middle, by gzip's checksum.
    """
    image: Any = load_image(path)
    if path.suffix.lower() == ".nii":
        return image  # its length fits, or it were not loaded
    expected = end_of(image)
    with path.open("rb") as file:
        file.seek(-4, 2)
        stated = struct.unpack("<I", file.read(4))[0]
    if not to_the_end and stated == expected % 2**32:
        return image
    n_bytes, blank = 0, True
    with gzip.open(path) as unpacked:
        while block := unpacked.read(_BLOCK):
            start = max(image.dataobj.offset - n_bytes, 0)
            blank &= not np.frombuffer(block, np.uint8)[start:].any()
            n_bytes += len(block)
    if n_bytes < expected:
        raise NSD.wrong(path, f"{n_bytes} bytes when unpacked", f"{expected}")
    if blank:
        raise NSD.wrong(path, "nothing but zeros", "a value")
    return image


# --- surfaces -------------------------------------------------------------------------


def _read_surface(scope: Scope, file: DataFile, path: Path) -> None:
    """Compare a surface or a transform with the vertices known; learn them from it."""
    who: Any = file.subject
    tree, h, kind = scope.tree, file.names["h"], file.names.get("surface", file.kind)
    known = scope.n_vertices.get((who, h))
    n, index = known, np.zeros(1, np.int64)  # of its own vertices
    if kind == "transform":
        values = tree.transform(who, h, file.names["depth"])
        n = len(values)
        if not np.isfinite(values).all(axis=1).any():
            raise NSD.wrong(
                path, "no vertex with a coordinate", "a map into the volume"
            )
    elif kind == "to_fsaverage":
        index = tree.from_fsaverage(who, h)
        _check_vertices(path, len(index), scope.n_vertices.get(("fsaverage", h)))
    elif kind == "full.flat.patch.3d":  # a part of the surface
        index = tree.flat_patch(who, h)[0]
    elif kind == "sulc":
        n = scope.n_vertices[who, h] = len(tree.surface_values(who, h))
    else:
        vertices, faces = tree.surface(who, h, kind)
        n, index = len(vertices), faces
        scope.n_vertices[who, h] = n
    _check_vertices(path, n, known)
    if not index.size:
        raise NSD.wrong(path, "no vertex", "a surface")
    if n is not None and not 0 <= index.min() <= index.max() < n:
        raise NSD.wrong(
            path, f"vertices {index.min()} to {index.max()}", f"0 to {n - 1}"
        )


def _check_vertices(path: Path, n: int | None, expected: int | None) -> None:
    if None not in (n, expected) and n != expected:
        raise NSD.wrong(path, f"{n} vertices", f"{expected}")


# --- betas ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """What the betas of a subject must fit: grid and areas, None where not known."""

    subject: int
    grid: tuple[int, ...] | None
    areas: Mask | None


def check_betas(scope: Scope, space: Space) -> tuple[list[Finding], set[int]]:
    """Return findings on the betas there and lacking, and the sound sessions."""
    subject, asked = space.subject, scope.asked(space.subject)
    folder = scope.tree.betas_folder(subject)
    held = Finding(subject, "betas", folder)
    finding, paths = look(held, lambda: sorted(folder.iterdir()))
    if paths is None:
        beside = ", ".join(sorted(p.name for p in folder.parent.glob("betas_*")))
        if finding.state == "missing" and beside:
            words = f"{folder} is not there, but {beside}: choose data.betas_version"
            finding = finding.but("missing", words)
        return [finding], set()
    files = _look_at_files(scope, space, paths)
    sound = {number for number, finding in files if finding.state == "ok"}
    findings = []
    if not asked:
        numbers = ", ".join(map(str, scope.sessions))
        words = (
            f"the subject has {scope.n_sessions(subject)}, but some of {numbers} are"
            " expected: change data.only_sessions, or leave the subject out"
        )
        findings.append(Finding(subject, "sessions asked for").but("missing", words))
    for number, finding in files:
        replaced = number in sound and finding.is_unusable
        if replaced and _gives_way(scope, space, finding):
            words = f"{finding.words}; until then the other container is read"
            finding = finding.but("unexpected", words)
        findings.append(finding)
    for number in sorted(set(asked) - {number for number, _ in files}):
        path = scope.tree.betas_file(subject, number)
        words = f"neither {path} nor the same as nii.gz is there: {NSD.source(path)}"
        lacking = Finding(subject, f"betas session {number:02d}", path)
        findings.append(lacking.but("missing", words))
    return findings, sound


def _look_at_files(
    scope: Scope, space: Space, paths: Sequence[Path]
) -> list[tuple[int, Finding]]:
    """Return the session (0: none) and the finding of each file of betas."""
    files, seen = list[tuple[int, Finding]](), dict[str, str]()
    asked, most = scope.asked(space.subject), scope.n_sessions(space.subject)
    for path in paths:
        known = layout.session_of(path)
        if known is None or (scope.before_run and known[0] not in asked):
            continue
        number, form = known
        unread = not scope.deep and (form != "hdf5" or space.areas is None)
        item = f"betas session {number:02d} {form}" if form else _BESIDE
        finding = Finding(space.subject, item, path, is_unread=unread)
        if not form:
            words = f"{path.name}: move it away if a download has left it behind"
            finding = finding.but("unexpected", words)
        elif not 1 <= number <= most:
            words = (
                f"{path} is of session {number}, but a session from 1 to {most} is"
                " expected: move it away, or give it its name"
            )
            finding, number = finding.but("damaged", words), 0
        else:
            read = partial(scope.tree.betas, space.subject, number)
            finding, digest = look(finding, read_sample, scope, space, path, read)
            if digest and seen.setdefault(digest, path.name) != path.name:
                words = (
                    f"{path} holds the numbers of {seen[digest]} once more: compare"
                    " both with their source and fetch them again"
                )
                finding = finding.but("damaged", words)
        files.append((number, finding))
    return files


def _gives_way(scope: Scope, space: Space, finding: Finding) -> bool:
    """Return whether a run reads a session's other container in place of a bad file.

    It reads the hdf5 where there is one, and gives up one that cannot be read; numbers
    that are no data are refused in notebook 01.
    """
    if finding.path is None or finding.path.suffix.lower() != ".hdf5":
        return True
    if space.areas is None:
        return False
    number, _ = layout.session_of(finding.path) or (0, "")
    try:
        scope.tree.betas(space.subject, number, _sample(space.areas, 1), "hdf5")
    except DataError:
        return True
    return False


def read_sample(
    scope: Scope,
    space: Space,
    path: Path,
    read: Callable[[Mask, layout.Container], npt.NDArray[np.int16]],
    n_trials: int = layout.N_TRIALS,
) -> str:
    """Return a digest of the betas read, "" where none is; refuse what is no data.

    `read` gives all trials of a file at a mask, as a run reads them.
    """
    is_hdf5, areas = path.suffix.lower() == ".hdf5", space.areas
    image: Any = None
    if is_hdf5:
        with NSD.hdf5(path, "Betas", "betas") as data:  # refuses one cut short
            shape, dtype = data.shape[::-1], data.dtype
    else:
        image = _check_nii(path, to_the_end=scope.deep)
        shape, dtype = image.shape, image.get_data_dtype()
    check_int16(dtype, path)
    grid = space.grid or (None, None, None)
    check_shape(shape, (*grid, n_trials), f"Betas in {path}")
    scope.tree.check_space(space.subject, path)
    if areas is None:
        return ""

    form: layout.Container = "hdf5" if is_hdf5 else "nii.gz"
    if is_hdf5:
        raw = read(areas if scope.deep else _sample(areas), form)
        held = where_held(raw)
        suspect = bool(fault(raw, held)) or not (
            held.voxels.all() and held.trials.all()
        )
        suspect &= not (scope.before_run and held.voxels.any())  # 01 reads them all
    else:
        raw = np.asanyarray(image.dataobj[..., :_N_TRIALS])[areas].T
        empty = float((raw == 0).all(axis=0).mean())
        most = 1 - 1e-9 if scope.before_run else MOST_EMPTY
        suspect = scope.deep or empty > most
    if suspect:
        every = read(areas, form)
        if words := fault(every, where_held(every)):
            raise DataError(f"{path} holds {words}: {NSD.remedy(path)}.")
    return digest_betas(raw)


def _sample(areas: Mask, n: int = _N_VOXELS) -> Mask:
    """Return at most `n` voxels of the areas, evenly in the order of the file.

    A hole of a file in one piece is found if it is 1 / n of the areas or more.
    """
    k, j, i = np.nonzero(areas.T)
    rows = np.unique(np.linspace(0, len(k) - 1, n).round().astype(np.int64))
    sample = np.zeros_like(areas)
    sample[i[rows], j[rows], k[rows]] = True
    return sample
