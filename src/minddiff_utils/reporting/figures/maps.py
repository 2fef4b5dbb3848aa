"""Cortical maps: values of vertices on flat and inflated surfaces, drawn in 2-D.

`surface_maps` brings voxel values to vertices.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Floats, Ints
from minddiff_utils.reporting.figures import canvas
from minddiff_utils.reporting.figures.canvas import WIDTH, draws
from minddiff_utils.reporting.wording import feature_order, feature_words

__all__ = ["Surface", "fig_flat_maps", "fig_inflated"]

#: Of weights over their mean: the colours part at 1.
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
class Surface:
    """Values on a surface: one hemisphere, or both flattened in one plane.

    `points`, (n_vertices, 2 or 3): mm, in the plane, or right, anterior, superior;
    `faces`, int (n_faces, 3): triangles, 0-based, counter-clockwise from outside. By
    vertex: `values`, NaN where there are no data; `sulc`, sulcal depth, above 0 in
    sulci, the gray below; `areas`, index into `area_names`, -1 for none, between which
    borders are drawn.
    """

    points: Floats
    faces: Ints
    values: Floats
    sulc: Floats
    areas: Ints
    area_names: tuple[str, ...]

    def __post_init__(self) -> None:
        n, faces = len(self.points), self.faces
        check_shape(faces.shape, (None, 3), "faces of a map")
        for name in ("values", "sulc", "areas"):
            check_shape(getattr(self, name).shape, (n,), f"{name} of a map")
        if len(faces) and not 0 <= faces.min() <= faces.max() < n:
            raise DataError(
                f"faces name vertices {faces.min()} to {faces.max()}, but the map has "
                f"vertices 0 to {n - 1}: pass 0-based faces of this surface."
            )


#: Left and right.
Hemispheres = tuple[Surface, Surface]


# --- faces --------------------------------------------------------------------------


def _face_values(values: Floats, faces: Ints) -> Floats:
    """Return the mean of each face's vertices that have data, NaN below two of them."""
    corners = pd.DataFrame(values[faces])
    return corners.mean(axis=1).where(corners.notna().sum(axis=1) >= 2).to_numpy()


def _face_colours(mesh: Surface, scale: Normalize | None) -> Floats:
    """Return each face's colour, (n_faces, 3): gray without a value or a scale."""
    in_sulcus = mesh.sulc[mesh.faces].mean(axis=1) > 0
    gray = np.where(in_sulcus, 0.76, 0.88)[:, None].repeat(3, axis=1)
    if scale is None:
        return gray
    values = _face_values(mesh.values, mesh.faces)
    data = colormaps[_CMAP](scale(values))[:, :3]
    return np.where(np.isfinite(values)[:, None], data, gray)


def _scale(by_feature: Mapping[str, Floats]) -> Normalize:
    """Return the colour scale of all features: around 1, to 98 % of the values."""
    if not by_feature:
        raise DataError("No maps given: make at least one with `surface_maps`.")
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
    bar.set_label("weight / mean weight", size=6.5)
    bar.ax.tick_params(labelsize=6.5)


# --- flat ---------------------------------------------------------------------------


def _borders(points: Floats, faces: Ints, areas: Ints) -> Floats:
    """Return segments (n, 2, d) between areas: across every face with two labels."""
    labels = areas[faces]
    edges = np.array([(0, 1), (1, 2), (2, 0)])
    mixed = labels[:, edges[:, 0]] != labels[:, edges[:, 1]]
    middles = points[faces[:, edges]].mean(axis=2)  # (n_faces, 3, d)
    crossed = mixed.sum(axis=1) == 2
    segments: Floats = middles[crossed][mixed[crossed]]
    return segments.reshape(-1, 2, points.shape[1])


def _pieces(flat: Surface) -> Iterator[tuple[str, Floats]]:
    """Yield name and place of every connected piece of an area that is large enough."""
    pairs = flat.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    same = pairs[flat.areas[pairs[:, 0]] == flat.areas[pairs[:, 1]]]
    n = len(flat.points)
    graph = coo_array((np.ones(len(same), np.int8), (same[:, 0], same[:, 1])), (n, n))
    piece = connected_components(graph, directed=False)[1]
    for index, name in enumerate(flat.area_names):
        inside = np.flatnonzero(flat.areas == index)
        sizes = np.bincount(piece[inside]) if len(inside) else np.zeros(0, int)
        for own in np.flatnonzero(sizes > _NAMED_SHARE * len(inside)):
            points = flat.points[inside[piece[inside] == own]]
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


def _draw_flat(axes: Axes, flat: Surface, scale: Normalize | None) -> None:
    """Draw values with the areas' borders or, without a scale, the areas' names."""
    colours, triangles = _face_colours(flat, scale), list(flat.points[flat.faces])
    faces = PolyCollection(triangles, facecolors=colours, antialiaseds=False)
    axes.add_collection(faces).set_rasterized(True)
    segments = list(_borders(flat.points, flat.faces, flat.areas))
    axes.add_collection(LineCollection(segments, colors="0.15", lw=0.6))
    if scale is None:
        names, places = zip(*_pieces(flat), strict=True)
        wide, high = np.ptp(flat.points, axis=0)
        apart = _apart(np.array(places), 0.06 * wide, 0.05 * high)
        for name, (at, up) in zip(names, apart, strict=True):
            words = axes.text(at, up, name, size=6, ha="center", va="center")
            words.set_path_effects([withStroke(linewidth=1.4, foreground="white")])
    axes.set_aspect("equal")
    axes.set_axis_off()


@draws()
def fig_flat_maps(maps: Mapping[str, Surface]) -> Figure:
    """Draw one flat map per feature on one colour scale, and one with areas' names.

    `maps`: feature to both hemispheres in one plane (`surface_maps.flat_maps`); values
    are weights over their mean, so that 1 is the mean of all voxels.
    """
    names = feature_order(maps)
    scale = _scale({name: maps[name].values for name in names})
    sizes = [np.ptp(maps[name].points, axis=0) for name in names]
    aspect = float(np.median([size[0] / max(size[1], 1e-9) for size in sizes]))
    first = maps[names[0]]
    shown = [*names, "areas"]
    n_columns = min(len(shown), 2 if aspect < 3 else 1)
    where = "left hemisphere left, right hemisphere right"
    note = _note([maps[name].values for name in names], where)
    panel = (WIDTH / n_columns - 0.9) / aspect
    height = 1.0 + -(-len(shown) // n_columns) * (min(panel, 3.2) + 0.3)
    figure = canvas.new_figure("Decoder weights on the flattened cortex", note, height)
    grid = canvas.panels(figure, len(shown), n_columns)
    for axes, name in zip(grid, shown, strict=True):
        of_feature = name in maps
        _draw_flat(axes, maps.get(name, first), scale if of_feature else None)
        axes.set_title(feature_words(name) if of_feature else "the areas")
    _colour_bar(figure, grid, scale)
    return figure


def _note(values: Sequence[Floats], where: str) -> str:
    """Return the words below a map; n is the mean over features."""
    n = np.mean([np.isfinite(v).sum() for v in values])
    return (
        f"n = {n:,.0f} vertices with data; {where}; gray: no data, darker in sulci;"
        " lines: borders of the areas. One scale for all features, around 1, the mean"
        " over voxels, to 98 % of the values; no interval"
    )


# --- inflated -----------------------------------------------------------------------


def _project(
    mesh: Surface, direction: Floats, up: Floats, scale: Normalize
) -> tuple[Floats, Floats, Floats]:
    """Return visible triangles (n, 3, 2), far ones first, colours (n, 3), and borders.

    Borders of the areas on these triangles: (m, 2, 2). Orthographic: what faces away
    from the viewer is left out, what is nearer is drawn later (painter's algorithm),
    brightness follows the angle to the viewer.
    """
    corners = mesh.points[mesh.faces]  # (n_faces, 3, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    facing = normal @ direction / length  # 1: squarely; 0: edgewise
    visible = np.flatnonzero(facing > 0)
    order = visible[np.argsort((corners[visible].mean(axis=1)) @ direction)]
    light = 0.62 + 0.38 * facing[order, None]
    plane = np.stack([np.cross(up, direction), up], axis=1)
    borders = _borders(mesh.points, mesh.faces[visible], mesh.areas)
    colours = _face_colours(mesh, scale)[order] * light
    return corners[order] @ plane, colours, borders @ plane


def _views(both: Hemispheres) -> Iterator[tuple[str, Surface, Floats, Floats]]:
    """Yield words, mesh, direction and up: left outside to right outside."""
    for side, mesh, sign in zip("LR", both, (1, -1), strict=True):
        mirror = np.array([sign, 1, 1])
        for name in [*_VIEWS][::sign]:
            direction, up = map(np.array, _VIEWS[name])
            yield f"{side} {name}", mesh, direction * mirror, up


def _draw_inflated(axes: Axes, both: Hemispheres, scale: Normalize) -> None:
    left, bottom, top = 0.0, np.inf, -np.inf
    for words, mesh, direction, up in _views(both):
        triangles, colours, borders = _project(mesh, direction, up, scale)
        if not len(triangles):
            continue
        low, high = (extent(triangles, axis=(0, 1)) for extent in (np.min, np.max))
        width, half = high[0] - low[0], (high[1] - low[1]) / 2
        shift = np.array([left, -half]) - low
        faces = PolyCollection(triangles + shift, facecolors=colours, lw=0.1)
        faces.set(edgecolors=colours, rasterized=True)
        axes.add_collection(faces, autolim=False)  # limits are set below
        lines = LineCollection(list(borders + shift), colors="0.15", lw=0.35)
        axes.add_collection(lines, autolim=False)
        at = left + width / 2
        axes.text(at, -half - 3, words, size=6, color="0.4", va="top", ha="center")
        bottom, top = min(bottom, -half - 18), max(top, half)
        left += width + 14
    axes.set(xlim=(0, left), ylim=(bottom, top), aspect="equal")
    axes.set_axis_off()


@draws()
def fig_inflated(maps: Mapping[str, Hemispheres]) -> Figure:
    """Draw each feature on both inflated hemispheres from behind, on one colour scale.

    `maps`: left and right hemisphere by feature, as in `fig_flat_maps`.
    """
    names = feature_order(maps)
    both = {f: np.concatenate([side.values for side in maps[f]]) for f in names}
    scale = _scale(both)
    where = "L, R: hemispheres, seen from behind: from outside, from inside, from below"
    page = ("Decoder weights on the inflated cortex", _note([*both.values()], where))
    figure = canvas.new_figure(*page, 1.0 + 1.7 * len(names))
    grid = canvas.panels(figure, len(names), 1)
    for axes, name in zip(grid, names, strict=True):
        _draw_inflated(axes, maps[name], scale)
        axes.set_title(feature_words(name))
    _colour_bar(figure, grid, scale)
    return figure
