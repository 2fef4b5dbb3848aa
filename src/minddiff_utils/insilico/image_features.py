"""In-silico brain: what its early and high areas could read from an image.

Early areas see Gabor energy, luminance and colour; high areas mix channels of
EfficientNet-Lite0 with graded object attributes. Nothing here shares a network with the
decoder's features, the generator or the judge, and no category enters as such.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft

from minddiff_utils.core.rng import stream
from minddiff_utils.insilico import scenes
from minddiff_utils.insilico.backgrounds import BACKGROUNDS
from minddiff_utils.insilico.efficientnet_lite import INPUT_SIZE, load_network

__all__ = [
    "COARSE",
    "CYCLES",
    "FIELD_DEG",
    "GRID",
    "N_ATTRIBUTES",
    "N_LATE",
    "N_MAPS",
    "ORIENTATIONS",
    "Percepts",
    "join",
    "look",
    "perceive",
    "without_tails",
]

Array = npt.NDArray[np.float32]

#: Side of the image in the visual field, degrees (NSD).
FIELD_DEG = 8.4

_SIDE, _PAD, GRID = 64, 8, 16  # px of the early model, its border, its map
ORIENTATIONS, CYCLES = 6, (0.4, 0.8, 1.6, 2.8)  # cycles per degree
_N_LOCAL = ORIENTATIONS * len(CYCLES) + 4
COARSE = 7  # map of the network's shallow and middle channels
_N_SHALLOW, _N_MIDDLE, N_LATE = 12, 16, 64
N_MAPS = _N_SHALLOW + _N_MIDDLE

#: Gaussian tails below this are zero: no sum feels them, but subnormal numbers, which
#: come soon after, slow products down twentyfold.
_NEGLIGIBLE = np.float32(1e-30)

#: Graded traits of COCO's supercategories: animate, mobile, indoor, graspable,
#: edible, natural. Judged by hand for this simulation; not data.
_TRAITS: dict[str, tuple[float, ...]] = {
    "person": (1.0, 0.7, 0.5, 0.0, 0.0, 0.6),
    "vehicle": (0.1, 1.0, 0.0, 0.0, 0.0, 0.0),
    "outdoor": (0.0, 0.1, 0.0, 0.1, 0.0, 0.1),
    "animal": (0.9, 0.8, 0.2, 0.2, 0.2, 1.0),
    "accessory": (0.1, 0.3, 0.6, 0.9, 0.0, 0.1),
    "sports": (0.0, 0.6, 0.2, 0.8, 0.0, 0.1),
    "kitchen": (0.0, 0.1, 0.9, 1.0, 0.3, 0.1),
    "food": (0.1, 0.0, 0.8, 0.9, 1.0, 0.7),
    "furniture": (0.1, 0.0, 0.9, 0.1, 0.0, 0.3),
    "electronic": (0.0, 0.1, 1.0, 0.5, 0.0, 0.0),
    "indoor": (0.2, 0.1, 0.9, 0.9, 0.0, 0.1),
}
_LARGE = {  # height in metres, log10, where it is far from hand-sized
    "person": 0.2, "bicycle": 0.0, "car": 0.2, "motorcycle": 0.1, "airplane": 1.0,
    "bus": 0.5, "train": 0.6, "truck": 0.5, "boat": 0.5, "traffic light": 0.4,
    "stop sign": 0.3, "horse": 0.25, "sheep": 0.0, "cow": 0.2, "elephant": 0.5,
    "bear": 0.2, "zebra": 0.2, "giraffe": 0.7, "dog": -0.2, "couch": 0.0, "bed": 0.0,
    "chair": 0.0, "umbrella": 0.0, "surfboard": 0.3, "kite": 0.0,
}  # fmt: skip
_HAND_SIZED, _N_KIN = -0.7, 4
N_ATTRIBUTES = 7 + _N_KIN + 3


@dataclass(frozen=True)
class Percepts:
    """What the parts of the model see in n images.

    Attributes
    ----------
    local : ndarray of float32, shape (n, n_channels, grid * grid)
        Gabor energy, luminance, colour opponency and contrast over the image.
    maps : ndarray of float32, shape (n, n_channels, coarse * coarse)
        Mixed shallow and middle network channels over the image.
    late : ndarray of float32, shape (n, n_late)
        Mixed late network features.
    attributes : ndarray of float32, shape (n, n_attributes)
        Graded object and scene attributes.
    """

    local: Array
    maps: Array
    late: Array
    attributes: Array

    def rows(self, index: npt.NDArray[np.int64]) -> "Percepts":
        """Return the percepts of some of the images."""
        return Percepts(*(getattr(self, f.name)[index] for f in fields(self)))


def join(parts: Sequence[Percepts]) -> Percepts:
    """Return the percepts of several batches as one."""
    return Percepts(
        *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Percepts))
    )


def perceive(images: npt.NDArray[np.uint8], worlds: Sequence[scenes.Scene]) -> Percepts:
    """Return what the model sees in rendered scenes.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size, 3)
        RGB.
    worlds : sequence of Scene
        The scenes that were rendered, for the object attributes.
    """
    depths = load_network().see(_resized(images, INPUT_SIZE))
    local, maps, late = look(images, depths)
    attributes = np.stack([_attributes(world) for world in worlds])
    return Percepts(local, maps, late, attributes)


def look(
    images: npt.NDArray[np.uint8], depths: Sequence[Array]
) -> tuple[Array, Array, Array]:
    """Return `local`, `maps` and `late` of `Percepts`: what an image alone determines.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size, 3)
        RGB.
    depths : three float32 arrays (n, ...)
        Of EfficientNet-Lite0, shallow, middle and late; channels first, or flattened.
    """
    n, wide = len(images), 2 * COARSE
    shallow = depths[0].reshape(n, -1, wide, wide)
    middle, late = depths[1].reshape(n, -1, COARSE, COARSE), depths[2]
    shallow = shallow.reshape(n, -1, COARSE, 2, COARSE, 2).mean(axis=(3, 5))
    maps = [
        np.einsum("ncp,cm->nmp", x.reshape(n, x.shape[1], -1), _mixing(x.shape[1], m))
        for x, m in ((shallow, _N_SHALLOW), (middle, _N_MIDDLE))
    ]
    return (
        _local(_resized(images, _SIDE) / np.float32(255)),
        # einsum's memory order would not survive the way from another process, and
        # sums over another order differ in their last bits
        np.ascontiguousarray(np.concatenate(maps, axis=1)),
        late @ _mixing(late.shape[1], N_LATE),
    )


def _resized(images: npt.NDArray[np.uint8], size: int) -> Array:
    shrunk = [
        np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC))
        for i in images
    ]
    return np.stack(shrunk).astype(np.float32)


@cache
def _mixing(n_in: int, n_out: int) -> Array:
    """Return a fixed random mixture of channels: areas see no channel in isolation."""
    rng = stream(0, "brain", "mixing", n_in, n_out)
    mixing: Array = rng.standard_normal((n_in, n_out), np.float32)
    return mixing / np.float32(n_in**0.5)


@cache
def _gabor_bank() -> Array:
    """Return the filters in the frequency domain, (n_filters, side, side)."""
    side = _SIDE + 2 * _PAD
    per_degree = side / (FIELD_DEG * side / _SIDE)  # px per degree
    v, u = np.meshgrid(*[np.fft.fftfreq(side) * per_degree] * 2, indexing="ij")
    bank = []
    for cycles in CYCLES:
        for turn in range(ORIENTATIONS):
            angle = np.pi * turn / ORIENTATIONS
            along = u * np.cos(angle) + v * np.sin(angle)
            across = -u * np.sin(angle) + v * np.cos(angle)
            width = 0.45 * cycles
            bank.append(np.exp(-((along - cycles) ** 2 + across**2) / (2 * width**2)))
    one_sided = np.stack(bank).astype(np.float32)  # so that |response| is the energy
    return without_tails(one_sided)


def _local(images: Array) -> Array:
    """Return early-visual channels over the image, (n, n_channels, grid * grid)."""
    n = len(images)
    red, green, blue = np.ascontiguousarray(np.moveaxis(images, -1, 0))
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    red_green, blue_yellow = red - green, blue - (red + green) / 2
    border = ((0, 0), (_PAD, _PAD), (_PAD, _PAD))
    padded = np.pad(luminance - np.float32(0.5), border, mode="reflect")
    spectrum = fft.fft2(padded)
    energy = np.empty((n, _N_LOCAL, GRID, GRID), dtype=np.float32)
    inner = slice(_PAD, _PAD + _SIDE)
    for channel, gabor in enumerate(_gabor_bank()):
        response = fft.ifft2(spectrum * gabor, overwrite_x=True)[:, inner, inner]
        energy[:, channel] = np.sqrt(_pooled(np.abs(response)))  # compressive
    flat = (luminance, red_green, blue_yellow, np.hypot(red_green, blue_yellow))
    for offset, channel_map in enumerate(flat):
        energy[:, _N_LOCAL - 4 + offset] = _pooled(channel_map)
    return energy.reshape(n, _N_LOCAL, -1)


def _pooled(maps: Array) -> Array:
    """Return the means of square tiles; short sums by hand are five times faster."""
    n, step = len(maps), _SIDE // GRID
    tiles = maps.reshape(n, GRID, step, GRID, step)
    across = sum((tiles[..., i] for i in range(1, step)), start=tiles[..., 0])
    down = sum((across[:, :, i] for i in range(1, step)), start=across[:, :, 0])
    return down / np.float32(step**2)


def without_tails(values: Array) -> Array:
    """Return non-negative `values` with zeros in place of negligible ones."""
    return np.where(values < _NEGLIGIBLE, np.float32(0), values)


@cache
def _kin(name: str) -> Array:
    return stream(0, "brain", "kin", name).standard_normal(_N_KIN).astype(np.float32)


def _attributes(world: scenes.Scene) -> Array:
    """Return graded attributes: objects by their size in the image, then the scene."""
    values = np.zeros(N_ATTRIBUTES, dtype=np.float32)
    for item in world.objects:
        traits = np.array(_TRAITS[item.supercategory])
        rng = stream(0, "brain", "idiosyncrasy", item.category)
        traits = traits + rng.normal(0, 0.15, len(traits))
        height = _LARGE.get(item.category, _HAND_SIZED)
        kin = _kin(item.supercategory) + 0.5 * _kin(item.category)
        values[: 7 + _N_KIN] += item.size * np.concatenate([traits, [height], kin])
    _, indoors, horizon = BACKGROUNDS[world.background]
    natural = world.background in ("field", "beach", "forest", "snow", "desert", "sky")
    values[-3:] = float(indoors), horizon, float(natural)
    return values
