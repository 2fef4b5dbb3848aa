"""From voxels to the cortical surface: what the maps of notebook 06 show.

Each vertex takes the values of the voxels it lies in at three cortical depths,
averaged; nothing is interpolated or smoothed, and a vertex outside the voxels in use
has no value. Not here: drawing (`figures.maps`), file formats (`datasets.surfaces`).

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126 (three cortical depths).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.errors import DataError, StoreError, check_shape
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Doubles, Floats, Ints, Mask
from minddiff_utils.datasets.inventory import HEMISPHERES, Anatomy, Hemisphere
from minddiff_utils.datasets.nsd.layout import DEPTHS
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.reporting.figures import Surface
from minddiff_utils.reporting.figures.maps import Hemispheres

__all__ = [
    "CorticalData",
    "CorticalMaps",
    "cortical_maps",
    "crop",
    "flat_maps",
    "inflated_maps",
    "side_by_side",
    "vertex_areas",
    "vertex_rows",
    "vertex_values",
    "weight_maps",
    "without_cuts",
]

Rows = npt.NDArray[np.int64]

#: Cortex shown around the vertices with data, and between the hemispheres, mm.
_MARGIN_MM = 12.0
#: A face of a flat map with an edge longer than this many median ones bridges a cut.
_STRETCH = 8.0


@dataclass(frozen=True)
class CorticalData:
    """Values of one subject's voxels or vertices, NaN for none, by feature.

    `position`: of voxels (n_voxels, 3), 0-based indices in the functional volume; of
    vertices of fsaverage (n_vertices, 2), hemisphere and index; `roi`, (n_voxels,):
    index into `area_names`.
    """

    position: Ints
    roi: Ints
    area_names: tuple[str, ...]
    values: Mapping[str, Floats]

    @property
    def are_vertices(self) -> bool:
        """Return whether values belong to vertices of fsaverage, not to voxels."""
        return self.position.shape[1:] == (2,)


# --- vertices -------------------------------------------------------------------------


def vertex_rows(coordinates: Floats, voxel_ijk: Ints) -> Rows:
    """Return the voxel in which each vertex lies, as a row of `voxel_ijk`.

    `coordinates`, (..., 3): 0-based voxel-centre coordinates of the vertices, NaN where
    there are no data; `voxel_ijk`, int (n_voxels, 3): 0-based indices of the voxels in
    use, each once, none negative, or DataError. The row, int64 (...), is that of the
    nearest voxel, -1 where it is not in use or there are no data.

    >>> points = np.array([[1.4, 0, 0], [1.6, 0, 0]])
    >>> vertex_rows(points, np.array([[1, 0, 0]])).tolist()
    [0, -1]
    """
    check_shape(coordinates.shape[-1:], (3,), "the last axis of coordinates")
    if voxel_ijk.min() < 0:
        raise DataError("voxel_ijk holds negative indices: pass 0-based ones.")
    voxels = pd.MultiIndex.from_arrays(list(voxel_ijk.T))
    if not voxels.is_unique:
        raise DataError("voxel_ijk names a voxel twice: pass each voxel once.")
    # a voxel reaches half an index to each side of its centre; none has the index -1
    nearest = np.floor(np.nan_to_num(coordinates, nan=-1.0) + 0.5).astype(np.int64)
    rows = voxels.get_indexer(pd.MultiIndex.from_arrays(list(nearest.reshape(-1, 3).T)))
    return np.asarray(rows, np.int64).reshape(coordinates.shape[:-1])


def vertex_values(rows: Rows, values: Floats) -> Doubles:
    """Return the mean over depths of each vertex, float64 (n_vertices,).

    `rows`, (n_depths, n_vertices): from `vertex_rows`; `values`, (n_voxels,): NaN is
    left out, and is the mean where no depth has a value.
    """
    sampled = np.where(rows >= 0, np.asarray(values, np.float64)[rows], np.nan)
    mean: Doubles = pd.DataFrame(sampled).mean().to_numpy()
    return mean


def vertex_areas(rows: Rows, roi: Ints, n_areas: int) -> Rows:
    """Return the area that most depths of each vertex lie in, int64 (n_vertices,).

    -1 where no depth lies in a voxel in use. On a tie the middle depth decides if it
    has a vote, otherwise the lower index. `rows`: from `vertex_rows`; `roi`: area of
    each voxel, 0..n_areas - 1.
    """
    n_depths, n_vertices = rows.shape
    votes = np.zeros((n_vertices, n_areas))
    for depth, row in enumerate(rows):
        (voter,) = np.nonzero(row >= 0)
        weight = 1.5 if depth == n_depths // 2 else 1.0  # breaks ties, wins none alone
        votes[voter, roi[row[voter]]] += weight
    winner = votes.argmax(axis=1).astype(np.int64)
    return np.where(votes.max(axis=1) > 0, winner, -1)


def _side(
    tree: NsdTree,
    anatomy: Anatomy,
    h: Hemisphere,
    data: CorticalData,
    mesh: tuple[Floats, Ints],
) -> dict[str, Surface]:
    """Return a hemisphere by feature; `mesh`: its points and faces."""
    sulc = tree.surface_values(anatomy, h, "sulc")
    rows = _rows(tree, anatomy, h, data, len(sulc))  # (n_depths, n_vertices)
    areas = vertex_areas(rows, data.roi, len(data.area_names))
    check_shape(sulc.shape, areas.shape, f"Sulcal depth of {h}")
    return {
        name: Surface(*mesh, vertex_values(rows, v), sulc, areas, data.area_names)
        for name, v in data.values.items()
    }


def _rows(
    tree: NsdTree, anatomy: Anatomy, h: Hemisphere, data: CorticalData, n_vertices: int
) -> Rows:
    """Return the voxel or vertex of the data at each vertex of a surface, by depth."""
    if isinstance(anatomy, int):
        coordinates = np.stack([tree.transform(anatomy, h, depth) for depth in DEPTHS])
        return vertex_rows(coordinates, data.position)
    (own,) = np.nonzero(data.position[:, 0] == HEMISPHERES.index(h))
    index = data.position[own, 1]
    if len(index) and index.max() >= n_vertices:
        raise DataError(
            f"The surface of {h} has {n_vertices} vertices, but vertex {index.max()}"
            " has a value: take fsaverage from NSD's bucket (`minddiff fetch`)."
        )
    rows = np.full((1, n_vertices), -1, np.int64)
    rows[0, index] = own
    return rows


# --- flat maps ------------------------------------------------------------------------


def crop(flat: Surface, inside: Mask) -> Surface:
    """Return the part of a flat map around the vertices `inside`, with a margin.

    Where there are none, DataError.
    """
    if not inside.any():
        raise DataError(
            "No vertex of the flat map lies in a voxel in use: check that voxel_ijk "
            "and the surface transforms belong to the same subject."
        )
    shown = flat.points[inside]
    low, high = shown.min(axis=0) - _MARGIN_MM, shown.max(axis=0) + _MARGIN_MM
    return _subset(flat, ((flat.points >= low) & (flat.points <= high)).all(axis=1))


def _subset(flat: Surface, keep: Mask) -> Surface:
    """Return the vertices `keep` and the faces that have all three of them."""
    renumber = np.cumsum(keep) - 1
    faces = renumber[flat.faces[keep[flat.faces].all(axis=1)]]
    names = ("points", "values", "sulc", "areas")
    return replace(flat, faces=faces, **{k: getattr(flat, k)[keep] for k in names})


def without_cuts(flat: Surface) -> Surface:
    """Return the map without faces that bridge a cut: they are stretched far."""
    corners = flat.points[flat.faces]  # (n_faces, 3, 2)
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    whole = edges <= _STRETCH * np.median(edges) if len(edges) else edges > 0
    return replace(flat, faces=flat.faces[whole])


def side_by_side(left: Surface, right: Surface) -> Surface:
    """Return both hemispheres in one plane, left at x < 0, right at x > 0."""
    half = _MARGIN_MM / 2
    middle = [(m.points[:, 1].min() + m.points[:, 1].max()) / 2 for m in (left, right)]
    moved = [
        left.points - np.array([left.points[:, 0].max() + half, middle[0]]),
        right.points - np.array([right.points[:, 0].min() - half, middle[1]]),
    ]
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(left, name), getattr(right, name)])
        for name in ("values", "sulc", "areas")
    }
    faces = np.concatenate([left.faces, right.faces + len(left.points)])
    return replace(left, points=np.concatenate(moved), faces=faces, **joined)


def flat_maps(
    tree: NsdTree, anatomy: Anatomy, data: CorticalData
) -> dict[str, Surface]:
    """Return a flat map per feature, of visual cortex.

    `anatomy`: the subject, or "fsaverage" for vertices. Where a file is missing or
    damaged, or no vertex lies in a voxel in use, DataError.
    """
    left, right = (_flat_side(tree, anatomy, h, data) for h in HEMISPHERES)
    return {name: side_by_side(left[name], right[name]) for name in data.values}


def _flat_side(
    tree: NsdTree, anatomy: Anatomy, h: Hemisphere, data: CorticalData
) -> dict[str, Surface]:
    points, faces = tree.surface(anatomy, h, "white")
    xy = np.full((len(points), 2), np.nan)
    index, xyz = tree.flat_patch(anatomy, h)
    xy[index] = xyz[:, :2]
    on_map, maps = np.isfinite(xy).all(axis=1), {}
    for name, whole in _side(tree, anatomy, h, data, (xy, faces)).items():
        patch = without_cuts(_subset(whole, on_map))
        maps[name] = crop(patch, patch.areas >= 0)
    return maps


def inflated_maps(
    tree: NsdTree, anatomy: Anatomy, data: CorticalData
) -> dict[str, Hemispheres]:
    """Return an inflated map per feature; `anatomy` as for `flat_maps`."""
    left, right = (
        _side(tree, anatomy, h, data, tree.surface(anatomy, h, "inflated"))
        for h in HEMISPHERES
    )
    return {name: (left[name], right[name]) for name in data.values}


# --- maps of a run --------------------------------------------------------------------


def weight_maps(run: Run, subject: int) -> CorticalData:
    """Return each voxel's weight over the mean: c, z and the lowest CLIP layer.

    Where an artefact is missing, or a feature's weights are all zero, StoreError.
    """
    folder = run.tree.derived(subject)
    lowest = f"clip/{run.profile.features.clip_layers[0]}"
    names = {"c": "c", "z": "z", "lowest CLIP layer": lowest}
    path = folder / "decoders.h5"
    weights = store.read_arrays(path, [f"{n}/voxel_weight" for n in names.values()])
    values = {}
    for words, name in names.items():
        weight = weights[f"{name}/voxel_weight"]
        if not np.any(weight):
            raise StoreError(
                f"{path}: the weights of {words} are all zero, so no"
                " voxel's share can be shown: run notebook 02 again with a lower"
                " decoding.alpha."
            )
        values[words] = weight / np.mean(weight)
    position = "vertex" if run.profile.data_set == "algonauts" else "voxel_ijk"
    arrays = [position, "roi", "roi_names"]
    voxels = store.read_arrays(folder / "responses.h5", arrays)
    areas = tuple(map(str, voxels["roi_names"]))
    return CorticalData(voxels[position], voxels["roi"], areas, values)


@dataclass(frozen=True)
class CorticalMaps:
    """Decoder weights on a subject's cortex, or a note that says why there are none.

    `subject`: whose cortex, None where no subject has all surfaces and transforms;
    `flat`, `inflated`: by feature, empty without a subject; `note`: which subjects have
    no maps, and why, and whose surface it is if not their own.
    """

    subject: int | None
    flat: Mapping[str, Surface] = field(default_factory=dict)
    inflated: Mapping[str, Hemispheres] = field(default_factory=dict)
    note: str = ""


def cortical_maps(run: Run, tree: NsdTree, subjects: Sequence[int]) -> CorticalMaps:
    """Return the maps of the first finished subject whose surfaces can be read.

    Surfaces and transforms are optional files of NSD: without them there is a note. An
    artefact is missing, or a feature's weights are all zero: StoreError.
    """
    if run.profile.data_set == "laion_fmri":
        words = "No map of LAION-fMRI's voxels on the cortex is drawn yet."
        return CorticalMaps(None, note=words)
    reasons = list[str]()
    for subject in subjects:
        data = weight_maps(run, subject)
        anatomy: Anatomy = "fsaverage" if data.are_vertices else subject
        try:
            flat = flat_maps(tree, anatomy, data)
            inflated = inflated_maps(tree, anatomy, data)
        except DataError as error:
            reasons.append(f"Subject {subject} is not shown on the cortex: {error}")
        else:
            if data.are_vertices:
                reasons.append(f"Subject {subject} is shown on fsaverage's surface.")
            return CorticalMaps(subject, flat, inflated, " ".join(reasons))
    note = f"{' '.join(reasons)} Surfaces are optional, all else is here without them."
    return CorticalMaps(None, note=note)
