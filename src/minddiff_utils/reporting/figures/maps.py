"""Cortical maps: values of vertices on flat and inflated surfaces, drawn in 2-D.

`surface_maps` brings voxel values to vertices.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.tri import Triangulation
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Floats, Ints
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import WIDTH
from minddiff_utils.reporting.wording import feature_order, feature_words

__all__ = ["FlatMap", "InflatedMap", "Mesh", "fig_flat_maps", "fig_inflated"]


#: What the maps show: 1 is the mean over voxels, where the colours part.
_UNIT = "weight / mean weight"
_CMAP = "RdYlBu_r"
#: Share of an area's vertices that a connected piece needs for a name of its own.
_NAMED_SHARE = 0.1
#: View -> (direction towards the viewer, up), of the left hemisphere; RAS axes. All
#: look from behind, where visual cortex is.
_VIEWS = {
    "outside": ((-0.28, -0.96, 0.0), (0.0, 0.0, 1.0)),
    "inside": ((0.6, -0.8, 0.0), (0.0, 0.0, 1.0)),
    "below": ((0.0, -0.8, -0.6), (0.0, 0.6, -0.8)),
}


@dataclass(frozen=True)
class FlatMap:
    """Values on a flattened surface; both hemispheres may share one plane.

    Attributes
    ----------
    xy : (n_vertices, 2)
        Positions, mm.
    faces : int (n_faces, 3)
        Triangles, 0-based.
    values : (n_vertices,)
        Value of each vertex; NaN where there are no data.
    sulc : (n_vertices,), optional
        Sulcal depth, above 0 in sulci: the gray below.
    areas : int (n_vertices,), optional
        Index into `area_names`, -1 for none.
    area_names : tuple of str
        Areas.
    """

    xy: Floats
    faces: Ints
    values: Floats
    sulc: Floats | None = None
    areas: Ints | None = None
    area_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.xy)
        check_shape(self.xy.shape, (None, 2), "xy of a flat map")
        _check_mesh(n, self.faces, self.values, self.sulc)
        if self.areas is not None:
            check_shape(self.areas.shape, (n,), "areas of a flat map")


@dataclass(frozen=True)
class Mesh:
    """Values on one hemisphere's inflated surface.

    Attributes
    ----------
    vertices : (n_vertices, 3)
        Positions, mm: right, anterior, superior.
    faces : int (n_faces, 3)
        Triangles, 0-based, counter-clockwise from outside.
    values : (n_vertices,)
        Value of each vertex; NaN where there are no data.
    sulc : (n_vertices,), optional
        Sulcal depth, above 0 in sulci.
    areas : int (n_vertices,), optional
        Area of each vertex, -1 for none; borders are drawn between them.
    """

    vertices: Floats
    faces: Ints
    values: Floats
    sulc: Floats | None = None
    areas: Ints | None = None

    def __post_init__(self) -> None:
        check_shape(self.vertices.shape, (None, 3), "vertices of a mesh")
        _check_mesh(len(self.vertices), self.faces, self.values, self.sulc)


@dataclass(frozen=True)
class InflatedMap:
    """One feature's values on both hemispheres."""

    lh: Mesh
    rh: Mesh


def _check_mesh(n: int, faces: Ints, values: Floats, sulc: Floats | None) -> None:
    check_shape(faces.shape, (None, 3), "faces of a map")
    check_shape(values.shape, (n,), "values of a map")
    if sulc is not None:
        check_shape(sulc.shape, (n,), "sulc of a map")
    if len(faces) and not 0 <= faces.min() <= faces.max() < n:
        raise DataError(
            f"faces name vertices {faces.min()} to {faces.max()}, but the map has "
            f"vertices 0 to {n - 1}: pass 0-based faces of this surface."
        )


# --- faces --------------------------------------------------------------------------


def _face_values(values: Floats, faces: Ints) -> Floats:
    """Return the mean of each face's vertices that have data, NaN below two of them."""
    corners = pd.DataFrame(values[faces])
    return corners.mean(axis=1).where(corners.notna().sum(axis=1) >= 2).to_numpy()


def _gray(sulc: Floats | None, faces: Ints) -> Floats:
    """Return the gray of each face, 0..1: sulci darker than gyri."""
    if sulc is None:
        return np.full(len(faces), 0.86)
    return np.where(sulc[faces].mean(axis=1) > 0, 0.76, 0.88)


def _scale(by_feature: Mapping[str, Floats]) -> Normalize:
    """Return the colour scale of all features: around 1, to 98 % of the values."""
    for feature, values in by_feature.items():
        if not np.isfinite(values).any():
            raise DataError(
                f"No vertex of the map of {feature!r} has a value: check that voxel_ijk"
                " and the surface transforms belong to the same subject."
            )
    distance = np.abs(np.concatenate([*by_feature.values()]) - 1)
    reach = float(np.nanquantile(distance, 0.98))
    return CenteredNorm(1.0, max(reach, 1e-9))


def _colour_bar(figure: Figure, axes: Sequence[Axes], scale: Normalize) -> None:
    mappable = ScalarMappable(scale, _CMAP)
    bar = figure.colorbar(
        mappable, ax=[*axes], shrink=0.5, aspect=24, extend="both", pad=0.02
    )
    bar.set_label(_UNIT, size=6.5)
    bar.ax.tick_params(labelsize=6.5)


# --- flat ---------------------------------------------------------------------------


def _borders(points: Floats, faces: Ints, areas: Ints) -> Floats:
    """Return segments (n, 2, d) between areas: across every face with two labels."""
    labels = areas[faces]
    edges = ((0, 1), (1, 2), (2, 0))
    mixed = np.stack([labels[:, a] != labels[:, b] for a, b in edges], axis=1)
    middles = np.stack([points[faces[:, e]].mean(axis=1) for e in edges], axis=1)
    crossed = mixed.sum(axis=1) == 2
    n_axes = points.shape[1]
    segments: Floats = middles[crossed][mixed[crossed]].reshape(-1, 2, n_axes)
    return segments


def _pieces(flat: FlatMap, areas: Ints) -> Iterator[tuple[str, Floats]]:
    """Yield name and place of every connected piece of an area that is large enough."""
    pairs = flat.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    same = pairs[areas[pairs[:, 0]] == areas[pairs[:, 1]]]
    n = len(flat.xy)
    graph = coo_array((np.ones(len(same), np.int8), (same[:, 0], same[:, 1])), (n, n))
    piece = connected_components(graph, directed=False)[1]
    for index, name in enumerate(flat.area_names):
        inside = np.flatnonzero(areas == index)
        sizes = np.bincount(piece[inside]) if len(inside) else np.zeros(0, int)
        for own in np.flatnonzero(sizes > _NAMED_SHARE * len(inside)):
            points = flat.xy[inside[piece[inside] == own]]
            nearest = ((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()
            yield name, points[nearest]


def _apart(places: Floats, width: float, height: float) -> Floats:
    """Return places of words, moved up or down until none lies on another."""
    places = places.copy()
    for _ in range(40):
        for i in range(len(places)):
            for j in range(i):
                x, y = places[i] - places[j]
                if abs(x) < width and abs(y) < height:
                    push = (height - abs(y)) / 2 * (1 if y >= 0 else -1)
                    places[i, 1] += push
                    places[j, 1] -= push
    return places


def _draw_flat(axes: Axes, flat: FlatMap, scale: Normalize | None) -> None:
    """Draw values with the areas' borders or, without a scale, the areas' names."""
    x, y = flat.xy.T
    means = _face_values(flat.values, flat.faces)
    known = np.isfinite(means)
    options: dict[str, Any] = {"rasterized": True, "edgecolors": "none"}
    base = Triangulation(x, y, flat.faces)
    gray = _gray(flat.sulc, flat.faces)
    axes.tripcolor(base, facecolors=gray, cmap="gray", vmin=0, vmax=1, **options)
    if known.any() and scale is not None:
        data = Triangulation(x, y, flat.faces[known])
        axes.tripcolor(data, facecolors=means[known], cmap=_CMAP, norm=scale, **options)
    if flat.areas is not None:
        segments = list(_borders(flat.xy, flat.faces, flat.areas))
        axes.add_collection(LineCollection(segments, colors="0.15", lw=0.6))
        if scale is None:
            names, places = zip(*_pieces(flat, flat.areas), strict=True)
            wide, high = np.ptp(flat.xy, axis=0)
            apart = _apart(np.array(places), 0.06 * wide, 0.05 * high)
            for name, (at, up) in zip(names, apart, strict=True):
                words = axes.text(at, up, name, size=6, ha="center", va="center")
                words.set_path_effects([withStroke(linewidth=1.4, foreground="white")])
    axes.set_aspect("equal")
    axes.set_axis_off()


@canvas.styled
def fig_flat_maps(maps: Mapping[str, FlatMap]) -> Figure:
    """Draw one flat map per feature on one colour scale, and one with areas' names.

    Parameters
    ----------
    maps : mapping of str to FlatMap
        By feature: weights over their mean, so that 1 is the mean of all voxels.
    """
    if not maps:
        raise DataError("No flat maps given: make at least one with `surface_maps`.")
    names = feature_order(maps)
    sizes = [np.ptp(maps[name].xy, axis=0) for name in names]
    aspect = float(np.median([size[0] / max(size[1], 1e-9) for size in sizes]))
    first = maps[names[0]]
    shown = [*names, *(["areas"] if first.areas is not None else [])]
    n_columns = min(len(shown), 2 if aspect < 3 else 1)
    note = (
        f"{_n_vertices(maps[name].values for name in names)}; left hemisphere left, "
        "right hemisphere right; gray: no data, darker in sulci; lines: borders of the "
        "areas. One scale for all features, around 1, the mean over voxels, to 98 % of "
        "the values; no interval"
    )
    panel = (WIDTH / n_columns - 0.9) / aspect
    height = 1.0 + -(-len(shown) // n_columns) * (min(panel, 3.2) + 0.3)
    figure = canvas.new_figure("Decoder weights on the flattened cortex", note, height)
    grid = canvas.panels(figure, len(shown), n_columns)
    scale = _scale({name: maps[name].values for name in names})
    for axes, name in zip(grid, shown, strict=True):
        of_feature = name in maps
        _draw_flat(axes, maps.get(name, first), scale if of_feature else None)
        axes.set_title(feature_words(name) if of_feature else "the areas")
    _colour_bar(figure, grid, scale)
    return figure


def _n_vertices(values: Iterable[Floats]) -> str:
    """Return how many vertices of a map have data, the mean over features."""
    n = np.mean([np.isfinite(v).sum() for v in values])
    return f"n = {n:,.0f} vertices with data"


# --- inflated -----------------------------------------------------------------------


def _project(
    mesh: Mesh, direction: Floats, up: Floats, scale: Normalize
) -> tuple[Floats, Floats]:
    """Return visible triangles (n, 3, 2), far ones first, and colours (n, 3).

    Orthographic: what faces away from the viewer is left out, what is nearer is drawn
    later (painter's algorithm), brightness follows the angle to the viewer.
    """
    corners = mesh.vertices[mesh.faces]  # (n_faces, 3, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    facing = normal @ direction / length
    visible = np.flatnonzero(facing > 0)
    order = visible[np.argsort((corners[visible].mean(axis=1)) @ direction)]
    values = _face_values(mesh.values, mesh.faces)[order]
    gray = np.repeat(_gray(mesh.sulc, mesh.faces)[order, None], 3, axis=1)
    data = colormaps[_CMAP](scale(values))[:, :3]
    colours = np.where(np.isfinite(values)[:, None], data, gray)
    light = 0.62 + 0.38 * facing[order, None]
    plane = np.stack([np.cross(up, direction), up], axis=1)
    return corners[order] @ plane, colours * light


def _visible_borders(mesh: Mesh, direction: Floats, up: Floats) -> Floats:
    """Return the areas' borders on faces towards the viewer, (n, 2, 2)."""
    if mesh.areas is None:
        return np.empty((0, 2, 2))
    corners = mesh.vertices[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    faces = mesh.faces[normal @ direction > 0]
    plane = np.stack([np.cross(up, direction), up], axis=1)
    segments: Floats = _borders(mesh.vertices, faces, mesh.areas) @ plane
    return segments


def _views(both: InflatedMap) -> Iterator[tuple[str, Mesh, Floats, Floats]]:
    """Yield words, mesh, direction and up: left outside to right outside."""
    for side, mesh, names in (
        ("L", both.lh, ("outside", "inside", "below")),
        ("R", both.rh, ("below", "inside", "outside")),
    ):
        mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
        for name in names:
            direction, up = map(np.array, _VIEWS[name])
            yield f"{side} {name}", mesh, direction * mirror, up


def _draw_inflated(axes: Axes, both: InflatedMap, scale: Normalize) -> None:
    left, bottom, top = 0.0, np.inf, -np.inf
    for words, mesh, direction, up in _views(both):
        triangles, colours = _project(mesh, direction, up, scale)
        if not len(triangles):
            continue
        low = triangles.reshape(-1, 2).min(axis=0)
        high = triangles.reshape(-1, 2).max(axis=0)
        middle = (low[1] + high[1]) / 2
        moved = triangles - np.array([low[0] - left, middle])
        faces = PolyCollection(
            list(moved), facecolors=colours, edgecolors=colours, linewidths=0.1
        )
        faces.set_rasterized(True)
        axes.add_collection(faces)
        lines = _visible_borders(mesh, direction, up) - [low[0] - left, middle]
        axes.add_collection(LineCollection(list(lines), colors="0.15", lw=0.35))
        half = (high[1] - low[1]) / 2
        centre = left + (high[0] - low[0]) / 2
        axes.text(centre, -half - 3, words, size=6, ha="center", va="top", color="0.4")
        bottom, top = min(bottom, -half - 18), max(top, half)
        left += high[0] - low[0] + 14
    axes.set(xlim=(0, left), ylim=(bottom, top), aspect="equal")
    axes.set_axis_off()


@canvas.styled
def fig_inflated(maps: Mapping[str, InflatedMap]) -> Figure:
    """Draw each feature on both inflated hemispheres from behind, on one colour scale.

    Parameters
    ----------
    maps : mapping of str to InflatedMap
        By feature: weights over their mean, so that 1 is the mean of all voxels.
    """
    if not maps:
        raise DataError(
            "No inflated maps given: make at least one with `surface_maps`."
        )
    names = feature_order(maps)
    both = {f: np.concatenate([maps[f].lh.values, maps[f].rh.values]) for f in names}
    note = (
        f"{_n_vertices(both.values())}; L, R: hemispheres, seen from behind: from "
        "outside, from inside, from below; gray: no data, darker in sulci; lines: "
        "borders of the areas. One scale for all features, around 1, the mean over "
        "voxels, to 98 % of the values; no interval"
    )
    height = 1.0 + 1.7 * len(names)
    figure = canvas.new_figure("Decoder weights on the inflated cortex", note, height)
    grid, scale = canvas.panels(figure, len(names), 1), _scale(both)
    for axes, name in zip(grid, names, strict=True):
        _draw_inflated(axes, maps[name], scale)
        axes.set_title(feature_words(name))
    _colour_bar(figure, grid, scale)
    return figure
