"""How fast one session of betas is read from an HDF5 file of NSD's size, beside `cat`.

    python tests/benchmarks/read_nsd.py --folder FOLDER --out FILE.json

Writes subject 1's session (81 x 104 x 83 voxels x 750 trials, int16, a chunk per voxel,
1.1 GB) in a temporary folder within FOLDER, which decides whose disk is measured, and
then takes turns: the file from end to end in blocks of 8 MB without Python's buffer,
and `NsdTree.betas` in a process of its own, so that its peak memory is its own. Before
each turn the operating system is asked to forget the file (`posix_fadvise`); what a
disk or a host machine remembers beneath it stays. Numbers in the file are random, and
11,694 voxels on two half shells at the back of the volume stand for the 11 areas.

The ratio is the time of the end-to-end reading over that of the reader: 0.5 says that
a session takes twice as long as its file from end to end. The rate of the bytes that
are asked for, 17.5 MB of 1.1 GB, stands beside it, and the same for every voxel.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from minddiff_utils.core.rng import stream
from minddiff_utils.core.surroundings import peak_bytes
from minddiff_utils.datasets.nsd.layout import FACTS, N_TRIALS, SUBJECT1
from minddiff_utils.datasets.nsd.reader import NsdTree

SUBJECT, SESSION, BLOCK = 1, 1, 8 << 20
AIMS = {"ratio": 0.5, "peak_gb": 3.0}


def plane(k: int, grid: tuple[int, int, int]) -> npt.NDArray[np.int16]:
    """Return the betas of one plane, (750, Y, X): the same whenever it is asked for."""
    rng = stream(0, "benchmark", "read_nsd", k)
    return rng.integers(-900, 900, (N_TRIALS, grid[1], grid[0]), dtype=np.int16)


def write_session(path: Path, grid: tuple[int, int, int]) -> None:
    """Write a session as NSD's MATLAB code does, seen from Python."""
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        shape = (N_TRIALS, *grid[::-1])
        data = file.create_dataset("betas", shape, "<i2", chunks=(N_TRIALS, 1, 1, 1))
        for k in range(grid[2]):
            data[:, k] = plane(k, grid)
    with path.open("rb") as written:
        os.fsync(written.fileno())


def shell_mask(grid: tuple[int, int, int], n_voxels: int) -> npt.NDArray[np.bool_]:
    """Return the voxels nearest to two half shells, left and right, at the back."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid), indexing="ij")
    radius = np.sqrt(
        ((np.abs(x) - 0.35) / 0.3) ** 2
        + ((y + 0.55) / 0.4) ** 2
        + ((z + 0.1) / 0.45) ** 2
    )
    nearest = np.argsort(np.abs(radius - 1), axis=None, kind="stable")[:n_voxels]
    mask = np.zeros(grid, bool)
    mask.flat[nearest] = True
    return mask


def forget(path: Path) -> None:
    """Ask the operating system to drop the file from its cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path: Path) -> float:
    """Return the seconds that the whole file takes from end to end."""
    block = bytearray(BLOCK)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass
    return time.perf_counter() - began


def read_voxels(root: Path, mask_file: Path) -> dict[str, float]:
    """Read the session once; return seconds, peak memory and what was read."""
    mask = np.load(mask_file)
    began = time.perf_counter()
    betas = NsdTree(root).betas(SUBJECT, SESSION, mask, "hdf5")
    seconds = time.perf_counter() - began
    peak = peak_bytes() / 1e9
    k = int(np.flatnonzero(mask.any(axis=(0, 1)))[-1])  # the last plane, as a proof
    expected = plane(k, mask.shape).transpose(2, 1, 0)[mask[:, :, k]].T
    columns = np.argwhere(mask)[:, 2] == k
    if not np.array_equal(betas[:, columns], expected):
        raise SystemExit("The reader did not return what was written.")
    return {"seconds": seconds, "peak_gb": peak, "megabytes": betas.nbytes / 1e6}


def in_child(root: Path, mask_file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(root), str(mask_file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def measure(root: Path, path: Path, mask_file: Path, turns: int) -> dict[str, Any]:
    """Return both readings, in turns, each as the median over turns."""
    through, found = [], []
    for _ in range(turns):
        forget(path)
        through.append(read_through(path))
        forget(path)
        found.append(in_child(root, mask_file))
    warm = in_child(root, mask_file)["seconds"]
    seconds = statistics.median(turn["seconds"] for turn in found)
    size, whole = path.stat().st_size / 1e6, statistics.median(through)
    return {
        "file_mb": size,
        "end_to_end_s": through,
        "end_to_end_mb_per_s": size / whole,
        "reader_s": [turn["seconds"] for turn in found],
        "reader_s_in_cache": warm,
        "ratio": whole / seconds,
        "wanted_mb": found[0]["megabytes"],
        "wanted_mb_per_s": found[0]["megabytes"] / seconds,
        "peak_gb": max(turn["peak_gb"] for turn in found),
    }


def main() -> None:
    """Measure and print; with --child, be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(read_voxels(*args.child)))
        return
    grid = FACTS[SUBJECT].grid
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(folder) / "nsd"
        path = NsdTree(root).betas_file(SUBJECT, SESSION)
        write_session(path, grid)
        areas, every = Path(folder) / "areas.npy", Path(folder) / "every.npy"
        np.save(areas, shell_mask(grid, SUBJECT1["11 areas"]))
        np.save(every, np.ones(grid, bool))
        found = {
            "11 areas": measure(root, path, areas, args.turns),
            "every voxel": measure(root, path, every, 1),
        }
    text = json.dumps({"aims": AIMS, **found}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
