"""From voxels to the cortical surface: what the maps of notebook 06 show.

Each vertex takes the values of the voxels it lies in at three cortical depths,
averaged; nothing is interpolated or smoothed, and a vertex outside the voxels in use
has no value. Not here: drawing (`figures`), file formats (`nsd`). Place in the flow:
layer 9; notebook 06 calls it.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126 (three cortical depths).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.datasets.nsd.layout import DEPTHS, HEMISPHERES, Hemisphere
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.reporting.figures import FlatMap, InflatedMap, Mesh

__all__ = [
    "CorticalData",
    "average_over_subjects",
    "crop",
    "flat_maps",
    "group_flat_maps",
    "group_inflated_maps",
    "inflated_maps",
    "side_by_side",
    "to_fsaverage",
    "vertex_areas",
    "vertex_rows",
    "vertex_values",
]

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Rows = npt.NDArray[np.int64]

#: Cortex shown around the vertices with data, and between the hemispheres, mm.
_MARGIN_MM = 12.0
#: A face of a flat map with an edge longer than this many median ones bridges a cut.
_STRETCH = 8.0


@dataclass(frozen=True)
class CorticalData:
    """Values of one subject's voxels.

    Attributes
    ----------
    voxel_ijk : int (n_voxels, 3)
        0-based indices in the functional volume.
    roi : int (n_voxels,)
        Index into `area_names`.
    area_names : tuple of str
        Areas.
    values : mapping of (n_voxels,)
        Values by feature; NaN for none.
    """

    voxel_ijk: Ints
    roi: Ints
    area_names: tuple[str, ...]
    values: Mapping[str, Floats]

    def __post_init__(self) -> None:
        check_shape(self.voxel_ijk.shape, (None, 3), "voxel_ijk")
        n_voxels = len(self.voxel_ijk)
        check_shape(self.roi.shape, (n_voxels,), "roi")
        for name, values in self.values.items():
            check_shape(values.shape, (n_voxels,), f"values of {name!r}")
        if not n_voxels or not self.values:
            raise DataError("A map needs voxels and values: pass at least one feature.")
        if self.roi.min() < 0 or self.roi.max() >= len(self.area_names):
            raise DataError(
                f"roi spans {self.roi.min()}..{self.roi.max()}, but there are "
                f"{len(self.area_names)} area names: pass the names roi counts."
            )


# --- arrays -------------------------------------------------------------------------


def vertex_rows(coordinates: Floats, voxel_ijk: Ints) -> Rows:
    """Return the voxel in which each vertex lies, as a row of `voxel_ijk`.

    Parameters
    ----------
    coordinates : (..., 3)
        0-based voxel-centre coordinates of the vertices; NaN where there are no data.
    voxel_ijk : int (n_voxels, 3)
        0-based indices of the voxels in use, each once, none negative.

    Returns
    -------
    int64 (...)
        Row of the nearest voxel, -1 where it is not in use or there are no data.

    Raises
    ------
    DataError
        A voxel is named twice or has a negative index.

    Examples
    --------
    >>> points = np.array([[1.4, 0, 0], [1.6, 0, 0]])
    >>> vertex_rows(points, np.array([[1, 0, 0]])).tolist()
    [0, -1]
    """
    check_shape(coordinates.shape[-1:], (3,), "the last axis of coordinates")
    if voxel_ijk.min() < 0:
        raise DataError("voxel_ijk holds negative indices: pass 0-based ones.")
    shape = tuple(int(n) for n in voxel_ijk.max(axis=0) + 1)
    lookup = np.full(shape, -1, np.int64)
    lookup[tuple(voxel_ijk.T)] = np.arange(len(voxel_ijk))
    if np.count_nonzero(lookup >= 0) != len(voxel_ijk):
        raise DataError("voxel_ijk names a voxel twice: pass each voxel once.")
    rows = np.full(coordinates.shape[:-1], -1, np.int64)
    # a voxel reaches half an index to each side of its centre
    with np.errstate(invalid="ignore"):
        inside = ((coordinates >= -0.5) & (coordinates < np.array(shape) - 0.5)).all(-1)
    nearest = np.floor(coordinates[inside] + 0.5).astype(np.int64)
    rows[inside] = lookup[tuple(nearest.T)]
    return rows


def vertex_values(rows: Rows, values: Floats) -> Doubles:
    """Return the mean over depths of the voxel values of each vertex.

    Parameters
    ----------
    rows : int (n_depths, n_vertices)
        From `vertex_rows`.
    values : (n_voxels,)
        Values; NaN is left out.

    Returns
    -------
    float64 (n_vertices,)
        NaN where no depth has a value.
    """
    found = np.where(rows >= 0, np.asarray(values, np.float64)[rows], np.nan)
    return _mean_of_known(found)


def _mean_of_known(values: Doubles) -> Doubles:
    """Return the mean over the first axis of what is not NaN; NaN where all are."""
    known = np.isfinite(values)
    n = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: Doubles = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return mean


def vertex_areas(rows: Rows, roi: Ints, n_areas: int) -> Rows:
    """Return the area that most depths of each vertex lie in.

    Parameters
    ----------
    rows : int (n_depths, n_vertices)
        From `vertex_rows`.
    roi : int (n_voxels,)
        Area of each voxel, 0..n_areas - 1.
    n_areas : int
        Number of areas.

    Returns
    -------
    int64 (n_vertices,)
        -1 where no depth lies in a voxel in use. On a tie the middle depth decides if
        it has a vote, otherwise the lower index.
    """
    n_depths, n_vertices = rows.shape
    votes = np.zeros((n_vertices, n_areas))
    for depth, row in enumerate(rows):
        (voter,) = np.nonzero(row >= 0)
        weight = 1.5 if depth == n_depths // 2 else 1.0  # breaks ties, wins none alone
        votes[voter, roi[row[voter]]] += weight
    winner = votes.argmax(axis=1).astype(np.int64)
    return np.where(votes.max(axis=1) > 0, winner, -1)


def to_fsaverage(values: npt.NDArray[Any], index: Ints) -> npt.NDArray[Any]:
    """Return a subject's vertex values on the group surface.

    Parameters
    ----------
    values : (n_vertices,)
        On the subject's surface.
    index : int (n_vertices_fsaverage,)
        Nearest vertex of the subject, 0-based (`NsdTree.from_fsaverage`).

    Raises
    ------
    DataError
        `index` names a vertex that the subject does not have.
    """
    if index.max() >= len(values):
        raise DataError(
            f"The map to fsaverage names vertex {index.max()}, but the subject has "
            f"{len(values)}: use transform and surface of the same subject."
        )
    return values[index]


def average_over_subjects(values: Doubles, min_subjects: int = 1) -> Doubles:
    """Return the mean over subjects, (n_vertices,), of those that have a value.

    Parameters
    ----------
    values : (n_subjects, n_vertices)
        NaN where a subject has no value.
    min_subjects : int
        NaN where fewer subjects have one.
    """
    enough = np.isfinite(values).sum(axis=0) >= max(min_subjects, 1)
    return np.where(enough, _mean_of_known(values), np.nan)


def crop(flat: FlatMap, wanted: npt.NDArray[np.bool_]) -> FlatMap:
    """Return the part of a flat map around the vertices `wanted`, with a margin.

    Raises
    ------
    DataError
        No vertex is wanted.
    """
    if not wanted.any():
        raise DataError(
            "No vertex of the flat map lies in a voxel in use: check that voxel_ijk "
            "and the surface transforms belong to the same subject."
        )
    low = flat.xy[wanted].min(axis=0) - _MARGIN_MM
    high = flat.xy[wanted].max(axis=0) + _MARGIN_MM
    keep = ((flat.xy >= low) & (flat.xy <= high)).all(axis=1)
    return _subset(flat, keep)


def _subset(flat: FlatMap, keep: npt.NDArray[np.bool_]) -> FlatMap:
    """Return the vertices `keep` and the faces that have all three of them."""
    renumber = np.cumsum(keep) - 1
    faces = flat.faces[keep[flat.faces].all(axis=1)]
    return FlatMap(
        xy=flat.xy[keep],
        faces=renumber[faces],
        values=flat.values[keep],
        sulc=None if flat.sulc is None else flat.sulc[keep],
        areas=None if flat.areas is None else flat.areas[keep],
        area_names=flat.area_names,
    )


def _without_cuts(flat: FlatMap) -> FlatMap:
    """Return the map without faces that bridge a cut: they are stretched far."""
    corners = flat.xy[flat.faces]  # (n_faces, 3, 2)
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    whole = edges <= _STRETCH * np.median(edges) if len(edges) else edges > 0
    return replace(flat, faces=flat.faces[whole])


def side_by_side(left: FlatMap, right: FlatMap) -> FlatMap:
    """Return both hemispheres in one plane, left at x < 0, right at x > 0."""
    half = _MARGIN_MM / 2
    middle = [(m.xy.min(axis=0)[1] + m.xy.max(axis=0)[1]) / 2 for m in (left, right)]
    moved = [
        left.xy - np.array([left.xy[:, 0].max() + half, middle[0]]),
        right.xy - np.array([right.xy[:, 0].min() - half, middle[1]]),
    ]
    sulc = (left.sulc, right.sulc)
    areas = (left.areas, right.areas)
    return FlatMap(
        xy=np.concatenate(moved),
        faces=np.concatenate([left.faces, right.faces + len(left.xy)]),
        values=np.concatenate([left.values, right.values]),
        sulc=_both(*sulc),
        areas=_both(*areas),
        area_names=left.area_names,
    )


def _both(
    left: npt.NDArray[Any] | None, right: npt.NDArray[Any] | None
) -> npt.NDArray[Any] | None:
    return None if left is None or right is None else np.concatenate([left, right])


# --- one hemisphere, read -----------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """One hemisphere's values and areas at its vertices."""

    values: Mapping[str, Doubles]  # (n_vertices,)
    areas: Rows  # (n_vertices,)
    area_names: tuple[str, ...]


def _sample(
    tree: NsdTree, subject: int, hemisphere: Hemisphere, data: CorticalData
) -> _Side:
    """Read the three depths of a hemisphere and sample the subject's voxels."""
    coordinates = np.stack([tree.transform(subject, hemisphere, d) for d in DEPTHS])
    rows = vertex_rows(coordinates, data.voxel_ijk)  # (n_depths, n_vertices)
    values = {name: vertex_values(rows, v) for name, v in data.values.items()}
    areas = vertex_areas(rows, data.roi, len(data.area_names))
    return _Side(values, areas, data.area_names)


def _group(
    tree: NsdTree, hemisphere: Hemisphere, data: Mapping[int, CorticalData]
) -> _Side:
    """Sample every subject and average on fsaverage; areas by majority."""
    sides = []
    for subject, own in data.items():
        index = tree.from_fsaverage(subject, hemisphere)
        side = _sample(tree, subject, hemisphere, own)
        values = {n: to_fsaverage(v, index) for n, v in side.values.items()}
        areas = to_fsaverage(side.areas, index)
        sides.append(_Side(values, areas, side.area_names))
    if len({side.area_names for side in sides}) != 1:
        raise DataError("Subjects must have the same area names to be averaged.")
    names = [n for n in sides[0].values if all(n in s.values for s in sides)]
    half = len(sides) // 2 + 1  # most subjects
    mean = {
        n: average_over_subjects(np.stack([s.values[n] for s in sides]), half)
        for n in names
    }
    areas = _majority(np.stack([s.areas for s in sides]), len(sides[0].area_names))
    return _Side(mean, areas, sides[0].area_names)


def _majority(areas: Rows, n_areas: int) -> Rows:
    """Return the area of most subjects at each vertex, -1 where most have none."""
    counts = np.stack([(areas == k).sum(axis=0) for k in range(n_areas)])
    labelled = counts.sum(axis=0) > len(areas) / 2
    return np.where(labelled, counts.argmax(axis=0), -1).astype(np.int64)


def _flat(
    tree: NsdTree,
    anatomy: int | Literal["fsaverage"],
    sides: Mapping[Hemisphere, _Side],
) -> dict[str, FlatMap]:
    """Lay both hemispheres flat, cut to the visual cortex, one map per feature."""
    geometry = {}
    for hemisphere, side in sides.items():
        n_vertices = len(side.areas)
        index, xyz = tree.flat_patch(anatomy, hemisphere)
        faces = tree.surface(anatomy, hemisphere, "white")[1]
        sulc = tree.surface_values(anatomy, hemisphere, "sulc")
        check_shape(sulc.shape, (n_vertices,), f"Sulcal depth of {hemisphere}")
        xy = np.full((n_vertices, 2), np.nan)
        xy[index] = xyz[:, :2]
        geometry[hemisphere] = xy, faces, sulc
    names = list(sides["lh"].values)
    return {
        name: side_by_side(
            *(_flat_side(*geometry[h], sides[h], name) for h in HEMISPHERES)
        )
        for name in names
    }


def _flat_side(
    xy: Doubles, faces: Ints, sulc: Floats, side: _Side, name: str
) -> FlatMap:
    values = side.values[name]
    whole = FlatMap(xy, faces, values, sulc, side.areas, side.area_names)
    on_map = np.asarray(np.isfinite(xy).all(axis=1))
    patch = _without_cuts(_subset(whole, on_map))
    if patch.areas is None:
        raise DataError("A flat map lost its areas.")
    return crop(patch, np.asarray(patch.areas >= 0))


def _inflated(
    tree: NsdTree,
    anatomy: int | Literal["fsaverage"],
    sides: Mapping[Hemisphere, _Side],
) -> dict[str, InflatedMap]:
    geometry = {}
    for hemisphere in sides:
        vertices, faces = tree.surface(anatomy, hemisphere, "inflated")
        sulc = tree.surface_values(anatomy, hemisphere, "sulc")
        geometry[hemisphere] = vertices, faces, sulc
    maps = {}
    for name in sides["lh"].values:
        meshes = []
        for hemisphere in HEMISPHERES:
            vertices, faces, sulc = geometry[hemisphere]
            values = sides[hemisphere].values[name]
            meshes.append(Mesh(vertices, faces, values, sulc))
        maps[name] = InflatedMap(*meshes)
    return maps


# --- maps ---------------------------------------------------------------------------


def flat_maps(tree: NsdTree, subject: int, data: CorticalData) -> dict[str, FlatMap]:
    """Return a flat map per feature on the subject's own surface.

    Parameters
    ----------
    tree : NsdTree
        NSD's folder.
    subject : int
        1..8.
    data : CorticalData
        The subject's voxels and values.

    Raises
    ------
    DataError
        A file is missing or damaged, or no vertex lies in a voxel in use.
    """
    sides = {h: _sample(tree, subject, h, data) for h in HEMISPHERES}
    return _flat(tree, subject, sides)


def inflated_maps(
    tree: NsdTree, subject: int, data: CorticalData
) -> dict[str, InflatedMap]:
    """Return an inflated map per feature on the subject's own surface.

    Parameters
    ----------
    tree, subject, data
        As in `flat_maps`.
    """
    sides = {h: _sample(tree, subject, h, data) for h in HEMISPHERES}
    return _inflated(tree, subject, sides)


def group_flat_maps(
    tree: NsdTree, data: Mapping[int, CorticalData]
) -> dict[str, FlatMap]:
    """Return a flat map per feature on fsaverage, averaged over subjects.

    Values are averaged as they are, so bring them to one scale first. A vertex has a
    value where most subjects have one, and the area that most of them give it.

    Parameters
    ----------
    tree : NsdTree
        NSD's folder.
    data : mapping of int to CorticalData
        By subject; features that all subjects have are averaged.
    """
    return _flat(tree, "fsaverage", {h: _group(tree, h, data) for h in HEMISPHERES})


def group_inflated_maps(
    tree: NsdTree, data: Mapping[int, CorticalData]
) -> dict[str, InflatedMap]:
    """Return an inflated map per feature on fsaverage, averaged over subjects.

    Parameters
    ----------
    tree, data
        As in `group_flat_maps`.
    """
    return _inflated(tree, "fsaverage", {h: _group(tree, h, data) for h in HEMISPHERES})
