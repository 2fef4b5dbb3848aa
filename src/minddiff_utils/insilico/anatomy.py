"""In-silico anatomy: fsaverage5's labelled visual cortex folded into each subject.

Every subject is fsaverage5 turned, scaled and gently bent in its own way, cut into
voxels of its own size; labels, hemispheres and population receptive fields come from
the atlas vertices that fall into each voxel. Not a registration and not a real brain.
`voxel_model` gives its voxels responses, `nsd_writer` writes it in NSD's layout.

References
----------
Wang et al. 2015, Cerebral Cortex 25:3911 (areas); Benson et al. 2014, PLoS
Computational Biology 10:e1003538 (retinotopy); Fischl et al. 1999, Human Brain
Mapping 8:272 (fsaverage). See `data/atlas/README.md`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from minddiff_utils.core.errors import DataError, check_exists
from minddiff_utils.core.places import project_root
from minddiff_utils.core.reading import reading
from minddiff_utils.core.rng import stream

__all__ = [
    "HEMISPHERES",
    "KASTNER_NAMES",
    "PRF_NAMES",
    "ROI_NAMES",
    "Anatomy",
    "Atlas",
    "Surface",
    "load_atlas",
    "make_anatomy",
]

HEMISPHERES = ("lh", "rh")
PRF_NAMES = ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")
KASTNER_NAMES = (
    *PRF_NAMES, "VO1", "VO2", "PHC1", "PHC2", "TO2", "TO1", "LO2", "LO1",
    "V3B", "V3A", "IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5", "SPL1", "FEF",
)  # fmt: skip
#: ROI file name -> names of labels 1..N, as in NSD's colour tables.
ROI_NAMES: dict[str, tuple[str, ...]] = {
    "Kastner2015": KASTNER_NAMES,
    "prf-visualrois": PRF_NAMES,
    "nsdgeneral": ("nsdgeneral",),
}
#: nsdgeneral voxels of subjects 1..8 in NSD's release: sets our voxel sizes.
_NSDGENERAL = (15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386)
#: Edge of subject 1's voxels in fsaverage's mm (the headers say 1.8 mm).
_EDGE_MM = 2.6
#: Further depths whose vertices vote for voxels, so that few labels have holes.
_N_FURTHER = 6
#: The map of maximum probabilities leaves 11 vertices to TO2, MST; it takes its
#: neighbours without a label, so that every subject has 20 voxels there.
_GROWN = KASTNER_NAMES.index("TO2") + 1
#: fsaverage5 has 270 vertices in V1 where NSD has 1350 voxels, so eccentricities and
#: pRF sizes are drawn together: enough voxels then look at the image.
_FIELD_SCALE = 0.6
#: Largest eccentricity (deg) of the areas that a pRF experiment outlines.
_PRF_LIMIT_DEG = 7.0
_FEF_ABSENT = 7  # this subject lacks FEF: labels may be missing in one subject


@dataclass(frozen=True)
class Surface:
    """One hemisphere of fsaverage5 with its atlas; arrays have one row per vertex.

    `areas` 0..25 (Wang), `retinotopy` 0..12 (Benson), `angle`, `eccentricity` and
    `sigma` in degrees (0 where unknown), `cortex` False on the medial wall.
    """

    white: npt.NDArray[np.float32]
    pial: npt.NDArray[np.float32]
    inflated: npt.NDArray[np.float32]
    flat: npt.NDArray[np.float32]
    sulc: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    cortex: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.int64]
    retinotopy: npt.NDArray[np.int64]
    angle: npt.NDArray[np.float32]
    eccentricity: npt.NDArray[np.float32]
    sigma: npt.NDArray[np.float32]


Atlas = dict[str, Surface]


@dataclass(frozen=True)
class Anatomy:
    """One in-silico subject.

    Attributes
    ----------
    subject : int
        1..8.
    shape : tuple of int
        (X, Y, Z) of the functional volume.
    hemisphere : ndarray of int8, shape (X, Y, Z)
        0 left cortex, 1 right cortex, -1 no cortex.
    rois : dict of str to ndarray of float64, shape (X, Y, Z)
        -1 no cortex, 0 unlabelled, 1..N; keys of `ROI_NAMES`.
    brainmask : ndarray of bool, shape (X, Y, Z)
        Voxels with data.
    voxel_ijk : ndarray of int32, shape (n_voxels, 3)
        Voxels of the mask, in C order.
    label : ndarray of int64, shape (n_voxels,)
        Kastner2015 label, overwritten by prf-visualrois; 0 for none.
    x, y, sigma : ndarray of float32, shape (n_voxels,)
        Receptive field centre (right, up) and size, degrees; NaN where unknown.
    coordinates : dict of str to ndarray of float32, shape (n_depths, n_vertices, 3)
        0-based voxel coordinates of each native vertex from near pial to near white;
        NaN on the medial wall.
    surfaces : dict
        (hemisphere, surface name) -> native coordinates in mm.
    order : dict of str to ndarray of int64
        Native vertex n is fsaverage5's vertex `order[n]`.
    edge_mm : float
        Edge of a voxel in the folded fsaverage.
    """

    subject: int
    shape: tuple[int, int, int]
    hemisphere: npt.NDArray[np.int8]
    rois: dict[str, npt.NDArray[np.float64]]
    brainmask: npt.NDArray[np.bool_]
    voxel_ijk: npt.NDArray[np.int32]
    label: npt.NDArray[np.int64]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    sigma: npt.NDArray[np.float32]
    coordinates: dict[str, npt.NDArray[np.float32]]
    surfaces: dict[tuple[str, str], npt.NDArray[np.float32]]
    order: dict[str, npt.NDArray[np.int64]]
    edge_mm: float

    @property
    def n_voxels(self) -> int:
        """Return the number of voxels in the brain mask."""
        return len(self.voxel_ijk)

    def at_voxels(self, volume: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the values of `volume` at the voxels of the mask."""
        i, j, k = self.voxel_ijk.T
        values: npt.NDArray[np.float64] = volume[i, j, k]
        return values


@cache
def load_atlas() -> Atlas:
    """Read fsaverage5 and the two atlases from `data/atlas`.

    Raises
    ------
    DataError
        If one of the two files is missing.
    """
    folder = project_root() / "data" / "atlas"
    loaded, remedy = [], "restore data/atlas from the repository"
    for name in ("visual_atlas_fsaverage5.npz", "surfaces_fsaverage5.npz"):
        path = folder / name
        check_exists(path, "Atlas file", remedy)
        with (
            reading(path, DataError, remedy=remedy, what="Atlas file"),
            np.load(path, allow_pickle=False) as file,
        ):
            loaded.append({key: file[key] for key in file.files})
    labels, meshes = loaded
    return {h: _surface(h, labels, meshes) for h in HEMISPHERES}


def _surface(
    hemisphere: str,
    labels: dict[str, npt.NDArray[np.float32]],
    meshes: dict[str, npt.NDArray[np.float32]],
) -> Surface:
    faces = meshes["faces"].astype(np.int32)
    kept = meshes[f"{hemisphere}_flat_face"].astype(bool)
    cortex = np.zeros(len(meshes[f"{hemisphere}_white"]), dtype=bool)
    cortex[np.unique(faces[kept])] = True

    def mesh(name: str) -> npt.NDArray[np.float32]:
        return meshes[f"{hemisphere}_{name}"].astype(np.float32)

    def label(name: str) -> npt.NDArray[np.float32]:
        return labels[f"{hemisphere}_{name}"]

    areas = label("wang15").astype(np.int64)
    beside = np.unique(faces[(areas[faces] == _GROWN).any(axis=1)])
    areas[beside[(areas[beside] == 0) & cortex[beside]]] = _GROWN
    return Surface(
        white=mesh("white"),
        pial=mesh("pial"),
        inflated=mesh("inflated"),
        flat=mesh("flat"),
        sulc=mesh("sulc"),
        faces=faces,
        cortex=cortex,
        areas=areas,
        retinotopy=label("varea").astype(np.int64),
        angle=label("angle_deg"),
        eccentricity=label("eccen_deg"),
        sigma=label("sigma_deg"),
    )


def make_anatomy(subject: int, *, seed: int, n_depths: int = 3) -> Anatomy:
    """Fold fsaverage5 into the volume of `subject`.

    Parameters
    ----------
    subject : int
        1..8; voxel size follows that subject's share of voxels in NSD.
    seed : int
        Seed of the simulation.
    n_depths : int
        Cortical depths sampled between pial and white surface.
    """
    atlas = load_atlas()
    folded = _fold(subject, seed, atlas)
    depths = np.concatenate(
        [
            np.arange(1, n + 1, dtype=np.float32) / (n + 1)
            for n in (n_depths, _N_FURTHER)
        ]
    )
    layers = {  # (n_depths + n_further, n_vertices, 3), mm
        h: np.stack([p + d * (w - p) for d in depths]) for h, (w, p) in folded.items()
    }
    edge = _EDGE_MM * (_NSDGENERAL[0] / _NSDGENERAL[subject - 1]) ** 0.5
    layers, shape = _to_voxels(layers, edge)
    labels = {h: _vertex_labels(atlas[h], subject, seed, h) for h in HEMISPHERES}
    votes = _Votes(atlas, layers, shape)
    hemisphere = votes.hemisphere()
    rois = {name: votes.labels(labels, name, hemisphere) for name in ROI_NAMES}
    merged = np.where(rois["prf-visualrois"] > 0, rois["prf-visualrois"], 0)
    merged = np.where(merged > 0, merged, np.maximum(rois["Kastner2015"], 0))
    seen = (merged > 0) | (rois["nsdgeneral"] > 0)
    brainmask = ndimage.binary_dilation(seen) & (hemisphere >= 0)
    voxel_ijk = np.argwhere(brainmask).astype(np.int32)
    i, j, k = voxel_ijk.T
    x, y, sigma = (field[i, j, k] for field in votes.fields(hemisphere, merged > 0))
    order = {h: _vertex_order(atlas[h], subject, seed, h) for h in HEMISPHERES}
    return Anatomy(
        subject=subject,
        shape=shape,
        hemisphere=hemisphere,
        rois=rois,
        brainmask=brainmask,
        voxel_ijk=voxel_ijk,
        label=merged[i, j, k].astype(np.int64),
        x=x,
        y=y,
        sigma=sigma,
        coordinates={h: layers[h][:n_depths, order[h]] for h in HEMISPHERES},
        surfaces=_native_surfaces(atlas, folded, order),
        order=order,
        edge_mm=edge,
    )


def _vertex_order(
    surface: Surface, subject: int, seed: int, hemisphere: str
) -> npt.NDArray[np.int64]:
    """Return fsaverage5's vertex of each native vertex: natives are numbered anew."""
    rng = stream(seed, "anatomy", subject, hemisphere, "order")
    return rng.permutation(len(surface.white))


def _native_surfaces(
    atlas: Atlas,
    folded: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]],
    order: dict[str, npt.NDArray[np.int64]],
) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
    native = {}
    for h, surface in atlas.items():
        native[h, "white"] = folded[h][0][order[h]]
        native[h, "inflated"] = surface.inflated[order[h]]
    return native


def _fold(
    subject: int, seed: int, atlas: Atlas
) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Turn, scale and bend white and pial surfaces: one smooth warp per subject."""
    rng = stream(seed, "anatomy", subject, "shape")
    a, b, c = np.deg2rad(rng.normal(0, 2.5, 3))
    turn = np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]])  # small angles
    linear = (turn * (1 + rng.normal(0, 0.025, 3))).astype(np.float32)
    waves = rng.normal(0, 1 / 25, (3, 3)).astype(np.float32)  # rad per mm
    phases = rng.uniform(0, 2 * np.pi, 3).astype(np.float32)
    push = rng.normal(0, 1.0, (3, 3)).astype(np.float32)  # mm

    def bend(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        bent: npt.NDArray[np.float32] = points @ linear.T
        bent += np.sin(points @ waves + phases) @ push
        return bent

    return {h: (bend(s.white), bend(s.pial)) for h, s in atlas.items()}


def _to_voxels(
    layers: dict[str, npt.NDArray[np.float32]], edge: float
) -> tuple[dict[str, npt.NDArray[np.float32]], tuple[int, int, int]]:
    """Return 0-based voxel coordinates and the volume that holds them."""
    points = np.concatenate([layer.reshape(-1, 3) for layer in layers.values()])
    low, high = points.min(axis=0), points.max(axis=0)
    x, y, z = (int(n) for n in np.ceil((high - low) / edge) + 5)
    moved = {
        h: ((layer - low) / edge + 2).astype(np.float32) for h, layer in layers.items()
    }
    return moved, (x, y, z)


def _vertex_labels(
    surface: Surface, subject: int, seed: int, hemisphere: str
) -> dict[str, npt.NDArray[np.int64]]:
    """Return each ROI's label per vertex: -1 nowhere, 0 unlabelled (surfaces)."""
    kastner = surface.areas.copy()
    if subject == _FEF_ABSENT:
        kastner[kastner == len(KASTNER_NAMES)] = 0
    rng = stream(seed, "anatomy", subject, hemisphere, "prf")
    limit = _PRF_LIMIT_DEG * float(rng.uniform(0.9, 1.1))
    area = surface.retinotopy
    drawn = (area >= 1) & (area <= 4) & (surface.eccentricity < limit)
    dorsal = surface.angle >= 90
    code = np.where(area == 4, len(PRF_NAMES), 2 * area - 1 + dorsal)
    prf = np.where(drawn & surface.cortex, code, 0)
    merged = np.where(prf > 0, prf, kastner)
    general = (merged >= 1) & (merged <= KASTNER_NAMES.index("IPS2") + 1)
    touched = np.zeros(len(general), dtype=bool)
    touched[surface.faces[general[surface.faces].any(axis=1)]] = True  # one ring
    return {
        "Kastner2015": kastner,
        "prf-visualrois": prf,
        "nsdgeneral": (touched & surface.cortex).astype(np.int64),
    }


class _Votes:
    """Vertices of all depths vote for the voxel they fall into; the winner takes it."""

    def __init__(
        self,
        atlas: Atlas,
        layers: dict[str, npt.NDArray[np.float32]],
        shape: tuple[int, int, int],
    ) -> None:
        self.atlas, self.shape = atlas, shape
        self.size = int(np.prod(shape))
        self.voxel: dict[str, npt.NDArray[np.int64]] = {}
        self.vertex: dict[str, npt.NDArray[np.int64]] = {}
        for h, surface in atlas.items():
            valid = np.flatnonzero(surface.cortex)
            ijk = np.rint(layers[h][:, valid]).astype(np.int64)
            flat = np.ravel_multi_index(tuple(ijk.reshape(-1, 3).T), shape)
            self.voxel[h] = np.asarray(flat, dtype=np.int64)
            self.vertex[h] = np.tile(valid, len(ijk))
            layers[h][:, ~surface.cortex] = np.nan

    def hemisphere(self) -> npt.NDArray[np.int8]:
        left, right = (
            np.bincount(self.voxel[h], minlength=self.size) for h in HEMISPHERES
        )
        side = np.where(left + right == 0, -1, np.where(left >= right, 0, 1))
        return side.astype(np.int8).reshape(self.shape)

    def labels(
        self,
        labels: dict[str, dict[str, npt.NDArray[np.int64]]],
        name: str,
        hemisphere: npt.NDArray[np.int8],
    ) -> npt.NDArray[np.float64]:
        n_labels = len(ROI_NAMES[name]) + 1
        volume = np.full(self.size, -1.0)
        for side, h in enumerate(HEMISPHERES):
            cast = labels[h][name][self.vertex[h]]
            counts = np.bincount(
                self.voxel[h] * n_labels + cast, minlength=self.size * n_labels
            ).reshape(self.size, n_labels)
            own = hemisphere.ravel() == side
            volume[own] = counts[own].argmax(axis=1)
        return volume.reshape(self.shape)

    def fields(
        self, hemisphere: npt.NDArray[np.int8], labelled: npt.NDArray[np.bool_]
    ) -> list[npt.NDArray[np.float32]]:
        """Return x, y and sigma per voxel: the mean over its vertices that have one."""
        sums = np.zeros((4, self.size))
        for side, h in enumerate(HEMISPHERES):
            surface = self.atlas[h]
            voxel, vertex = self.voxel[h], self.vertex[h]
            own = (surface.sigma[vertex] > 0) & (hemisphere.ravel()[voxel] == side)
            voxel, vertex = voxel[own], vertex[own]
            angle = np.deg2rad(surface.angle[vertex])
            radius = surface.eccentricity[vertex] * _FIELD_SCALE
            across = radius * np.sin(angle) * (1 if h == "lh" else -1)
            values = (
                across,
                radius * np.cos(angle),
                surface.sigma[vertex] * _FIELD_SCALE,
            )
            for row, value in enumerate(values):
                sums[row] += np.bincount(voxel, value, self.size)
            sums[3] += np.bincount(voxel, minlength=self.size)
        known = (sums[3] > 0) & labelled.ravel()
        means = np.full((3, self.size), np.nan, dtype=np.float32)
        means[:, known] = sums[:3, known] / sums[3, known]
        return [mean.reshape(self.shape) for mean in means]
