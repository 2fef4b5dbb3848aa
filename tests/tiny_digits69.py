"""A file in the layout of the "69" digits, written from its description alone.

MATLAB 5, every variable compressed, trials in rows: fmriTrn (90, 3092) and fmriTest
(10, 3092) double, stimTrn (90, 784) and stimTest (10, 784) uint8 with columns first,
labelTrn and labelTest 1 for a six and 2 for a nine. Every digit is a mixture of a few
drawn shapes and responses are linear in its pixels; no byte is that of the real file.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import savemat

__all__ = ["N_VOXELS", "drawn", "variables", "write"]

FILE = "digit69_28x28.mat"
N_VOXELS = 3092
#: Rows of all 100 trials, the training ones first, that are sixes.
_SIX = np.r_[0:45, 90:95]


def _shapes() -> npt.NDArray[np.float64]:
    """Return four sixes, (4, 28, 28) in 0..1: a ring below, a stroke up from it."""
    y, x = np.mgrid[:28, :28].astype(np.float64)
    shapes = []
    for radius, lean, width in ((4, 0.1, 1.2), (5, 0.5, 1.6), (6, 0.3, 2.2), (4, 0, 3)):
        ring = np.abs(np.hypot(x - 13, y - 18) - radius)
        slope = np.abs(x - (13 - radius) - lean * (18 - y))
        stroke = np.where((y > 4) & (y < 18), slope, 99)
        shapes.append(np.exp(-((np.minimum(ring, stroke) / width) ** 2)))
    return np.stack(shapes)


def drawn(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return 100 digits, (100, 28, 28): a nine is a six turned by half a turn."""
    shares = rng.dirichlet(np.full(4, 0.7), 100)
    images = np.einsum("ns,sij->nij", shares, _shapes())
    nines = np.setdiff1d(np.arange(100), _SIX)
    images[nines] = images[nines, ::-1, ::-1]
    return np.rint(255 * images).astype(np.uint8)


def variables(noise: float, seed: int = 1) -> dict[str, npt.NDArray[np.generic]]:
    """Return what the file holds; `noise`: its SD relative to that of the signal."""
    rng = np.random.default_rng(seed)
    images = drawn(rng)
    pixels = images.reshape(100, -1) / 255.0
    signal = (pixels - pixels.mean(0)) @ rng.standard_normal((784, N_VOXELS)) / 100
    spread = noise * signal.std()
    fmri = signal + spread * rng.standard_normal(signal.shape) + 0.01
    stim = images.transpose(0, 2, 1).reshape(100, -1)  # as MATLAB stores columns
    label = np.full((100, 1), 2, np.uint8)
    label[_SIX] = 1
    named = {"fmri": fmri, "stim": stim, "label": label}
    parts = {"Trn": slice(90), "Test": slice(90, 100)}
    return {
        f"{n}{p}": values[rows]
        for n, values in named.items()
        for p, rows in parts.items()
    }


def write(folder: Path, *, noise: float = 1.0) -> Path:
    """Write the file into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / FILE, variables(noise), do_compression=True)
    return folder / FILE
