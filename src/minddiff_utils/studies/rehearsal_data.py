"""The synthetic data of a rehearsal: an in-silico subject enlarged to NSD's sizes.

The in-silico subjects have coarse voxels and a small mask, so that the demo is quick.
Here each of one subject's volumes is laid on NSD's own grid (nearest neighbour), such
that the eleven areas have as many voxels as the paper's, and each session's betas fill
the whole grid as NSD's hdf5 files do. A voxel has the betas of the small voxel that it
came from, and noise of its own. What has NSD's sizes already (design, stimuli,
captions, behaviour) stays; the surfaces stay those of fsaverage5, 10,242 vertices.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError
from minddiff_utils.core.profile import SimulationConfig
from minddiff_utils.core.provenance import digest_json, digest_paths
from minddiff_utils.core.rng import stream
from minddiff_utils.core.types import Array, Doubles, IntArray, Mask
from minddiff_utils.datasets.inventory import HEMISPHERES
from minddiff_utils.datasets.nsd.layout import DEPTHS, N_TRIALS, NO_DATA
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.insilico import file_formats
from minddiff_utils.insilico.folder import PARTS, find, renewing
from minddiff_utils.insilico.nsd_writer import simulate

__all__ = ["Scale", "Size", "enlarge", "write_once", "write_tree"]

Grid = tuple[int, int, int]
#: SD of a voxel's own noise, and of a voxel outside the simulated brain, in units of
#: the file (300 per percent of signal change).
_OWN_NOISE, _OTHER_NOISE = 300.0, 600.0
#: Voxels whose betas are made at once: bounds memory.
_BLOCK = 16_384


@dataclass(frozen=True)
class Size:
    """The sizes of a subject's volumes.

    `grid`: (X, Y, Z) of the functional volume; voxels of the eleven areas, and of the
    brain mask at least.
    """

    grid: Grid
    n_voxels: int
    n_brain: int


@dataclass(frozen=True)
class Scale:
    """Where each voxel of the large grid lies in the small one.

    Voxel i of the large grid stands for voxel floor((i + 0.5 - offset) / factor) of
    the small one, axis by axis; outside of it there is background.
    """

    factor: float
    offset: Doubles  # (3,)
    small: Grid
    large: Grid

    def source(self) -> tuple[IntArray, ...]:
        """Return the small index of each large index, per axis; -1 outside."""
        found = []
        for axis in range(3):
            where = np.arange(self.large[axis]) + 0.5 - self.offset[axis]
            index = np.floor(where / self.factor).astype(np.int64)
            inside = (index >= 0) & (index < self.small[axis])
            found.append(np.where(inside, index, -1))
        return tuple(found)

    def volume(self, values: Array, outside: Any) -> Array:
        """Return a small volume on the large grid; `outside` where there is none."""
        padded = np.pad(values, ((0, 1),) * 3, constant_values=outside)
        large: Array = padded[np.ix_(*self.source())]  # -1 is the padding
        return large

    def coordinates(self, small: Doubles) -> Doubles:
        """Return 0-based voxel coordinates (n, 3) of the small grid in the large."""
        return (small + 0.5) * self.factor + self.offset - 0.5


def find_scale(areas: Mask, size: Size) -> Scale:
    """Return the scale at which `areas`, a small volume, has `size.n_voxels` at least.

    The small grid's centre comes to the large one's, as nearly as the areas fit in. The
    areas are empty, or at that scale do not fit into the grid: DataError.
    """
    ijk = np.argwhere(areas)
    if not len(ijk):
        raise DataError("There is no voxel to enlarge: the areas are empty.")
    low, high = ijk.min(axis=0), ijk.max(axis=0) + 1
    factor, small = (size.n_voxels / len(ijk)) ** (1 / 3), areas.shape
    for _ in range(100):
        least, most = -low * factor, np.array(size.grid) - high * factor
        if (least > most).any():
            raise DataError(
                f"A grid of {size.grid} has no room for {size.n_voxels} voxels of the "
                "areas: take a larger grid or fewer voxels."
            )
        centred = (np.array(size.grid) - np.array(small) * factor) / 2
        scale = Scale(factor, np.clip(centred, least, most), small, size.grid)
        if scale.volume(areas, outside=False).sum() >= size.n_voxels:
            return scale
        factor *= 1.002
    raise DataError(f"No scale gives {size.n_voxels} voxels: this is a bug.")


def write_tree(
    folder: Path, simulation: SimulationConfig, subject: int, seed: int, size: Size
) -> bool:
    """Write an enlarged NSD folder unless it is there; return whether it was.

    `folder` becomes NSD's root and is put in place whole; the rest as for `simulate`,
    of one subject. Where it cannot be written, or holds files that no rehearsal wrote,
    DataError.
    """

    def write(fresh: Path) -> None:
        small = fresh / "small"
        simulate(small, simulation, (subject,), seed)
        enlarge(NsdTree(small), subject, simulation.n_sessions, size, seed)
        for name in PARTS:  # the truth is of the small volumes
            (small / name).rename(fresh / name)
        shutil.rmtree(small)

    facts = {"simulation": simulation.model_dump(mode="json"), "seed": seed}
    return write_once(folder, facts | {"subject": subject, "size": asdict(size)}, write)


def write_once(
    folder: Path, facts: Mapping[str, Any], write: Callable[[Path], None]
) -> bool:
    """Let `write` fill a new folder unless it is there; return whether it was.

    It follows from `facts`, and from the code of rehearsals and of the simulation.
    """
    code = Path(__file__)
    files = [*(code.parents[1] / "insilico").glob("*.py")]
    files += code.parent.glob("rehearsal_*.py")
    key = digest_json({**facts, "code": digest_paths(sorted(files), code.parents[1])})
    if find(folder, key) is not None:
        return True
    with renewing(folder) as renewal:
        write(renewal.fresh)
        renewal.publish(key, {})
    return False


def enlarge(tree: NsdTree, subject: int, n_sessions: int, size: Size, seed: int) -> int:
    """Give one subject of an in-silico folder `size`, in place; return its voxels.

    They are those of the eleven areas, `size.n_voxels`. The betas become hdf5 alone,
    with noise of their own by `seed`. A folder that was cut off half-way is not to be
    used: work beside, then rename.
    """
    areas, small_mask = tree.areas(subject) >= 0, tree.brainmask(subject)
    scale = find_scale(areas, size)
    large = scale.volume(areas, outside=False)
    surplus = _surplus(large, size.n_voxels, seed)
    mask = _brain(scale.volume(small_mask, outside=False), size.n_brain)
    sessions = [tree.betas(subject, s, small_mask) for s in range(1, n_sessions + 1)]
    brainmask = tree.file("brainmask", subject)
    for folder in (brainmask.parent, tree.betas_folder(subject)):
        for path in sorted(folder.rglob("*.nii.gz")):
            _rewrite(path, scale, surplus)
    file_formats.write_nifti(brainmask, mask.astype(np.int16), step=1)
    columns = np.full(small_mask.shape, -1, np.int64)  # in the small betas
    columns[small_mask] = np.arange(small_mask.sum())
    columns = scale.volume(columns, outside=-1)
    for number, betas in enumerate(sessions, start=1):
        path = tree.betas_file(subject, number, "hdf5")
        _write_betas(path, betas, columns, mask, (seed, number))
    for h, depth in product(HEMISPHERES, DEPTHS):
        points = scale.coordinates(tree.transform(subject, h, depth)) + 1  # 1-based
        points[np.isnan(points).any(axis=1)] = NO_DATA
        file_formats.write_mgh(
            tree.file("transform", subject, h=h, depth=depth), points
        )
    return int((large & ~surplus).sum())


def _surplus(areas: Mask, n_voxels: int, seed: int) -> Mask:
    """Return voxels of `areas` that lose their label, so that `n_voxels` remain."""
    ijk = np.argwhere(areas)
    rng = stream(seed, "rehearsal", "surplus")
    drop = rng.permutation(len(ijk))[: len(ijk) - n_voxels]
    surplus = np.zeros(areas.shape, bool)
    surplus[tuple(ijk[drop].T)] = True
    return surplus


def _brain(least: Mask, n_brain: int) -> Mask:
    """Return a mask of `n_brain` voxels around the middle that holds all of `least`."""
    axes = [np.linspace(-1, 1, n) for n in least.shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    distance = x**2 + y**2 + z**2
    distance[least] = -1
    n = min(max(n_brain, int(least.sum())), distance.size)
    chosen = np.argpartition(distance.ravel(), n - 1)[:n]
    mask = np.zeros(distance.size, bool)
    mask[chosen] = True
    return mask.reshape(least.shape)


def _rewrite(path: Path, scale: Scale, surplus: Mask) -> None:
    """Lay one file's volume on the large grid; a file of trials is deleted."""
    image: Any = nib.load(path)
    values = np.asanyarray(image.dataobj)
    step = float(image.header["pixdim"][4])
    if values.ndim != 3:
        path.unlink()
        return
    large = scale.volume(values, outside=values[0, 0, 0])  # a corner is background
    if path.parent.name == "roi":
        large[surplus & (large > 0)] = 0
    file_formats.write_nifti(path, large, step=step)


def _write_betas(
    path: Path,
    betas: npt.NDArray[np.int16],
    columns: IntArray,
    mask: Mask,
    key: tuple[int, int],
) -> None:
    """Write a session's file on the large grid; every voxel is written, as in NSD's.

    `columns`: of each voxel its column in the small betas, -1 where none.
    """
    rng = stream(key[0], "rehearsal", "betas", key[1])
    kji = np.argwhere(np.ones(mask.shape[::-1], bool))  # the file's own order
    ijk = np.ascontiguousarray(kji[:, ::-1], dtype=np.int32)
    source, inside = columns[tuple(ijk.T)], mask[tuple(ijk.T)]
    dead: Mask = ~np.any(betas, axis=0)  # NSD stores zeros where a voxel left the slab
    values = np.zeros((len(ijk), N_TRIALS), np.int16)
    for first in range(0, len(ijk), _BLOCK):
        rows = slice(first, first + _BLOCK)
        known = source[rows] >= 0
        noise = rng.standard_normal((len(known), N_TRIALS), dtype=np.float32)
        noise *= np.where(known, _OWN_NOISE, _OTHER_NOISE)[:, None].astype(np.float32)
        noise[known] += betas.T[source[rows][known]]
        own = inside[rows].copy()
        own[known] &= ~dead[source[rows][known]]
        limits = np.iinfo(np.int16)
        made = np.clip(np.rint(noise), limits.min, limits.max).astype(np.int16)
        values[rows] = np.where(own[:, None], made, 0)
    file_formats.write_beta_hdf5(path, values.T, ijk, mask.shape)
