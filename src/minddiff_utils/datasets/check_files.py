"""How one file of NSD is checked: what should be in it, and what is.

Whatever goes wrong becomes a finding; what a sound file holds is kept in the `Scope`,
for the files that must fit it. Betas are in `check_betas`.
"""

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.profile import FeatureConfig
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.findings import UNREAD, Finding, differs, look
from minddiff_utils.datasets.nsd import layout
from minddiff_utils.datasets.nsd.experiment import Design
from minddiff_utils.datasets.nsd.formats import load_image, open_hdf5
from minddiff_utils.datasets.nsd.reader import NsdTree, VoxelSet

__all__ = ["Scope", "check_file", "check_nii"]


_BATCH = 64  # images read at once
_BLOCK = 1 << 20  # bytes unpacked at once
#: What files are called that have another name than their kind or their path.
_LABELS = {
    "design": "experimental design",
    "table": "stimulus table",
    "captions": "captions {split}",
    "labels": "labels of {name}",
    "roi": "{name}",
    "brainmask": "brain mask",
}
#: What should be in a file; {n}, {grid} and {images} where it is known.
_EXPECTED = {
    "design": "masterordering 1 x 30000, subjectim 8 x 10000, sharedix 1 x 1000",
    "table": f"{layout.N_IMAGES} rows, {layout.N_SHARED} of them shared",
    "stimuli": "uint8, {images} x 3",
    "captions": "annotations with id, image_id and caption",
    "responses": "a row per trial",
    "labels": "a number and a name per line",
    "brainmask": "{grid}, with 0 and 1",
    "roi": "{grid}, with -1, 0 and labels",
    "ncsnr": "{grid}, with floats, above 0 in the areas",
    "surface": "a surface of {n} vertices",
    "transform": "a coordinate for each of {n} vertices",
    "to_fsaverage": "a vertex for each of {group} vertices of fsaverage",
}


@dataclass
class Scope:
    """What is asked of which folder, and what its sound files hold.

    Attributes
    ----------
    sessions : tuple of int
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
    deep: bool = False
    before_run: bool = False
    voxels: VoxelSet = "areas"
    n_captions: int = FeatureConfig().n_captions
    values: dict[tuple[object, ...], Any] = field(default_factory=dict)
    n_vertices: dict[tuple[object, object], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the vertices that NSD publishes, where they must hold."""
        if self.published:
            for side, h in enumerate(layout.HEMISPHERES):
                self.n_vertices["fsaverage", h] = layout.N_FSAVERAGE
                for subject, facts in layout.FACTS.items():
                    self.n_vertices[subject, h] = facts.n_vertices[side]

    @property
    def published(self) -> bool:
        """Return whether the constants that NSD publishes must hold."""
        return self.tree.is_real and not self.before_run

    def n_sessions(self, subject: int) -> int:
        """Return the last session that `subject` can have."""
        return (
            layout.FACTS[subject].n_sessions if self.tree.is_real else layout.N_SESSIONS
        )

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

    def remedy(self, kind: str = "") -> str:
        """Return where a lacking file comes from."""
        if not self.tree.is_real:
            return "simulate the folder"
        coco = "unpack COCO's annotations_trainval2017.zip"
        return coco if kind == "captions" else "download it from NSD"


def check_file(
    scope: Scope, file: layout.NsdFile, images: IntArray | None = None
) -> Finding:
    """Look at a file, and keep in `scope.values` what it holds if all is well.

    `images` are those, by `nsd_id`, that must be among the stimuli.
    """
    path = layout.sides_of(scope.tree.root / file.path)[0]
    label = _LABELS.get(file.kind, file.kind).format(**file.names)
    subject = file.subject
    if file.notebook == "06":
        label = Path(file.path).name
    if subject == "fsaverage":
        subject, label = None, f"fsaverage {label}"
    images = np.zeros(0, np.int64) if images is None else images
    expected = _expected(scope, file, images)
    optional = file.optional and label != scope.voxels
    if file.kind == "labels" and path.exists():
        optional = False  # a run reads it where it is
    about = (subject, label, path, expected, scope.remedy(file.kind), optional)
    finding, value = look(Finding(*about), _read, scope, file, path, images)
    scope.values[subject, label] = value
    return finding


def _expected(scope: Scope, file: layout.NsdFile, images: IntArray) -> str:
    """Return what should be in a file, in words."""
    grid, h = "the grid of the others", file.names.get("h")
    if scope.published and isinstance(file.subject, int):
        grid = " x ".join(map(str, layout.FACTS[file.subject].grid))
    least = images[-1] + 1 if len(images) else layout.N_IMAGES
    shape = " x ".join(map(str, (layout.N_IMAGES, *[layout.IMAGE_SIZE] * 2)))
    return _EXPECTED[file.kind].format(
        grid=grid,
        n=scope.n_vertices.get((file.subject, h), "its"),
        group=scope.n_vertices.get(("fsaverage", h), "its"),
        images=shape if scope.published else f"at least {least} x n x n",
    )


def _read(
    scope: Scope, file: layout.NsdFile, path: Path, images: IntArray
) -> tuple[Any, str]:
    """Return what a file holds, and what was seen of it."""
    subject: Any = file.subject
    tree = scope.tree
    match file.kind:
        case "design":
            return _read_design(scope)
        case "table":
            return _read_table(scope)
        case "stimuli":
            return _read_stimuli(scope, path, images)
        case "captions":
            known = tree.captions_of(file.names["split"])
            n = sum(map(len, known.values()))
            if not n:
                raise differs("no caption", "at least one")
            return known, f"{n} captions of {len(known)} images"
        case "responses":
            table = tree.responses(subject)
            return table, f"{len(table)} trials"
        case "labels":
            labels = tree.roi_labels(subject, file.names["name"])
            return labels, f"{len(labels)} labels"
        case "brainmask" | "roi" | "ncsnr":
            return _read_volume(scope, file, path)
        case _:
            return _read_surface(scope, file)


# --- the experiment -------------------------------------------------------------------


def _read_design(scope: Scope) -> tuple[Design, str]:
    design = scope.tree.design()
    shared = design.images[0, : layout.N_SHARED] + 1
    ends = (int(shared.min()), int(shared.max()))
    if scope.published and ends != layout.SHARED_ENDS:
        raise differs(f"shared images {ends[0]} to {ends[1]}", layout.SHARED_ENDS)
    return design, f"{len(design.order)} trials, shared images {ends[0]} to {ends[1]}"


def _read_table(scope: Scope) -> tuple[Any, str]:
    table = scope.tree.stim_info("cocoId", "cocoSplit", "shared1000")
    n_shared = int(table["shared1000"].astype(bool).sum())
    if n_shared != layout.N_SHARED:
        raise differs(f"{n_shared} shared images", layout.N_SHARED)
    row, coco_id = layout.FIRST_SHARED
    if scope.published and int(table["cocoId"].iloc[row]) != coco_id:
        raise differs(f"cocoId {table['cocoId'].iloc[row]} in row {row}", coco_id)
    return table, f"{len(table)} rows, {n_shared} shared"


def _read_stimuli(scope: Scope, path: Path, images: IntArray) -> tuple[None, str]:
    tree = scope.tree
    tree.stimuli(images[:0])  # the reader's own checks, and no image
    with open_hdf5(path) as file:
        shape = file["imgBrick"].shape
    real = (layout.N_IMAGES, layout.IMAGE_SIZE, layout.IMAGE_SIZE, 3)
    if scope.published:
        check_shape(shape, real, "imgBrick")
    tree.stimuli(images[-1:])  # the last one seen is within the file
    found = f"uint8, {' x '.join(map(str, shape))}"
    if not scope.deep:
        return None, f"{found}; {UNREAD}"
    blank = 0
    for first in range(0, len(images), _BATCH):
        pixels = tree.stimuli(images[first : first + _BATCH])
        blank += int((~pixels.any(axis=(1, 2, 3))).sum())
    if blank:
        raise differs(f"{blank} images seen by a subject are black", "none")
    return None, f"{found}; {len(images)} images seen were read"


# --- volumes --------------------------------------------------------------------------


def _read_volume(
    scope: Scope, file: layout.NsdFile, path: Path
) -> tuple[npt.NDArray[Any], str]:
    """Return a volume as the reader gives it; these are small and read whole."""
    values: npt.NDArray[Any]
    subject: Any = file.subject
    tree = scope.tree
    image = check_nii(path, to_the_end=True)
    if file.kind == "brainmask":
        values = tree.brainmask(subject)
        _check_affine(scope, image)
    elif file.kind == "ncsnr":
        if image.get_data_dtype().kind != "f":
            raise differs(f"{image.get_data_dtype()} values", "float32")
        values = tree.ncsnr(subject)
    else:
        values = tree.roi(subject, file.names["name"])
    n = int((values > 0).sum())
    if not n:
        raise differs("no voxel above 0", "some")
    shape = " x ".join(map(str, values.shape))
    return values, f"{image.get_data_dtype()}, {shape}, {n} voxels above 0"


def _check_affine(scope: Scope, image: Any) -> None:
    """Raise DataError unless NSD's voxels are 1.8 mm and centred on the origin."""
    if not scope.published:
        return
    affine = np.diag([layout.VOXEL_MM, layout.VOXEL_MM, layout.VOXEL_MM, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * layout.VOXEL_MM for n in image.shape[:3]]
    if not np.allclose(image.affine, affine, atol=1e-3):  # float32 in the header
        raise differs("another affine", "1.8 mm voxels centred on the origin")


def check_nii(path: Path, *, to_the_end: bool) -> Any:
    """Return the image of a .nii.gz file whose length fits its header.

    gzip's last four bytes hold the length (modulo 2^32) of what was packed, so a file
    cut short is known without unpacking it. A file packed in several parts looks the
    same, so where the length does not fit, the file is read to the end after all. Only
    that also finds damage in the middle, by gzip's checksum.
    """
    image: Any = load_image(path)
    if path.suffix.lower() == ".nii":
        return image  # its length fits, or it were not loaded
    dtype = image.get_data_dtype()
    expected = image.dataobj.offset + int(np.prod(image.shape)) * dtype.itemsize
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
        raise differs(f"{n_bytes} bytes when unpacked", expected)
    if blank:
        raise differs("nothing but zeros", "values")
    return image


# --- surfaces -------------------------------------------------------------------------


def _read_surface(scope: Scope, file: layout.NsdFile) -> tuple[None, str]:
    """Compare a surface or a transform with the vertices known; learn them from it."""
    who: Any = file.subject
    tree, names = scope.tree, file.names
    h, kind = names["h"], names.get("surface", "")
    known = scope.n_vertices.get((who, h))
    if file.kind == "transform":
        values = tree.transform(who, h, names["depth"])
        n_known = int(np.isfinite(values).all(axis=1).sum())
        _check_vertices(len(values), known)
        if not n_known:
            raise differs("no vertex with a coordinate", "a map into the volume")
        return None, f"{len(values)} vertices, {n_known} with a coordinate"
    if file.kind == "to_fsaverage":
        index = tree.from_fsaverage(who, h)
        _check_vertices(len(index), scope.n_vertices.get(("fsaverage", h)))
        _check_index(index, known)
        return None, f"{len(index)} vertices of fsaverage"
    if kind == "full.flat.patch.3d":  # a part of the surface
        index = tree.flat_patch(who, h)[0]
        _check_index(index, known)
        return None, f"{len(index)} vertices lie flat"
    if kind == "sulc":
        n = len(tree.surface_values(who, h))
    else:
        vertices, faces = tree.surface(who, h, kind)
        n = len(vertices)
        _check_index(faces, n)
    _check_vertices(n, known)
    scope.n_vertices[who, h] = n
    return None, f"{n} vertices"


def _check_vertices(n: int, expected: int | None) -> None:
    if expected is not None and n != expected:
        raise differs(f"{n} vertices", expected)


def _check_index(index: IntArray, n: int | None) -> None:
    if not index.size:
        raise differs("no vertex", "a surface")
    if n is not None and not 0 <= index.min() <= index.max() < n:
        raise differs(f"vertices {index.min()} to {index.max()}", f"0 to {n - 1}")
