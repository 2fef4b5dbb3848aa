"""In-silico brain: what its early and high areas could read from an image.

Early areas see Gabor energy, luminance and colour; high areas mix channels of
EfficientNet-Lite0. The image is all that enters: no scene, caption or category. What
enters by design: the network was trained to tell ImageNet's classes, so its channels
know objects. It is none of the decoder's features, of the generator or of the judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from minddiff_utils.core.images import resize
from minddiff_utils.core.rng import stream
from minddiff_utils.insilico.efficientnet_lite import INPUT_SIZE, load_network

__all__ = [
    "COARSE",
    "CYCLES",
    "FIELD_DEG",
    "GRID",
    "N_LATE",
    "N_MAPS",
    "ORIENTATIONS",
    "Percepts",
    "join",
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
_N_SHALLOW, _N_MIDDLE, N_LATE = 12, 16, 128
N_MAPS = _N_SHALLOW + _N_MIDDLE

#: Gaussian tails below this are zero: no sum feels them, but subnormal numbers, which
#: come soon after, slow products down twentyfold.
_NEGLIGIBLE = np.float32(1e-30)


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
    """

    local: Array
    maps: Array
    late: Array

    def rows(self, index: npt.NDArray[np.int64]) -> "Percepts":
        """Return the percepts of some of the images."""
        return Percepts(*(getattr(self, f.name)[index] for f in fields(self)))


def join(parts: Sequence[Percepts]) -> Percepts:
    """Return the percepts of several batches as one."""
    return Percepts(
        *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Percepts))
    )


def perceive(
    images: npt.NDArray[np.uint8], depths: Sequence[Array] | None = None
) -> Percepts:
    """Return what the model sees in images.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size, 3)
        RGB, of any size; all are seen at 64 px, the size of the images that the demo's
        generator makes, so that none of those loses by its size.
    depths : sequence of three (n, n_features), optional
        What EfficientNet-Lite0 saw in them (`LiteZero.see`, flattened), where somebody
        has asked; it is asked again unless the images are of 64 px.
    """
    n, is_other_size = len(images), images.shape[1] != _SIDE
    images = resize(images, _SIDE)
    if depths is None or is_other_size:
        depths = load_network().see(resize(images, INPUT_SIZE).astype(np.float32))
    shallow, middle, late = depths
    shallow = shallow.reshape(n, -1, COARSE, 2, COARSE, 2).mean(axis=(3, 5))
    both = (x.reshape(n, -1, COARSE**2) for x in (shallow, middle))
    maps = [
        np.einsum("ncp,cm->nmp", x, _mixing(x.shape[1], m))
        for x, m in zip(both, (_N_SHALLOW, _N_MIDDLE), strict=True)
    ]
    return Percepts(
        local=_local(images.astype(np.float32) / np.float32(255)),
        # einsum's memory order would not survive the way from another process, and
        # sums over another order differ in their last bits
        maps=np.ascontiguousarray(np.concatenate(maps, axis=1)),
        late=late @ _mixing(late.shape[1], N_LATE),
    )


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
