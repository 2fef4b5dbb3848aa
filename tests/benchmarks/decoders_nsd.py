"""The decoders at the size of one NSD subject, beside FastL2LiR 0.11, in one run.

    python tests/benchmarks/decoders_nsd.py --reference PYTHON --out FILE.json

Simulates responses (8,859 x 11,694, correlated voxels) and 84,736 targets (c, z, six
CLIP layers). Every part runs in a process of its own, so
that its peak memory is its own. FastL2LiR is timed on a few targets of each feature and
extrapolated: fixed cost and cost per target come from two numbers of targets. PYTHON is
an interpreter with fastl2lir 0.11 and numpy below 2.4; without it that part is not run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from minddiff_utils.core.rng import stream
from minddiff_utils.decoding import RidgeGCV, VoxelSelectedRidge
from minddiff_utils.decoding._solvers import expected_iterations

N_TRAIN, N_TEST, N_VOXELS, N_HIDDEN, ALPHA = 8859, 982, 11694, 300, 0.15
#: Targets and voxels per target of each feature, as in the released code.
FEATURES = {"c": (10752, 450), "z": (16384, 4000), "clip": (57600, 850)}
#: Two numbers of targets on which the reference is timed: their difference must take
#: seconds, beside a fixed cost of a quarter of a minute.
SAMPLE = {"c": (40, 1000), "z": (4, 14), "clip": (24, 400)}
REFERENCE = """
import json, sys, time
import numpy as np
from fastl2lir import FastL2LiR
folder, name, n_feat, few, many = *sys.argv[1:3], *map(int, sys.argv[3:])
X, X_test = (np.load(f"{folder}/{part}.npy") for part in ("X", "X_test"))
Y = np.load(f"{folder}/sample_{name}.npy")
X, X_test, Y = (a.astype(np.float64) for a in (X, X_test, Y))
seconds = []
for n_targets in (few, few, many):  # the first one warms up
    began = time.perf_counter()
    model = FastL2LiR()
    model.fit(X, Y[:, :n_targets], alpha=0.15, n_feat=n_feat)
    seconds.append(time.perf_counter() - began)
np.save(f"{folder}/reference_{name}.npy", model.predict(X_test))
print(json.dumps(seconds[1:]))
"""


def simulate(folder: Path, scale: float) -> None:
    """Write responses and targets of one simulated subject."""
    rng = stream(0, "benchmark", "decoders")
    n, n_voxels = round(N_TRAIN * scale), round(N_VOXELS * scale)
    n_all = n + round(N_TEST * scale)
    hidden = rng.standard_normal((n_all, N_HIDDEN), dtype=np.float32)
    hidden *= (np.arange(1, N_HIDDEN + 1, dtype=np.float32)) ** -0.4
    tuning = rng.standard_normal((N_HIDDEN, n_voxels), dtype=np.float32)
    X = hidden @ tuning
    noise = rng.uniform(1, 4, n_voxels).astype(np.float32) * X.std(0)
    X += noise * rng.standard_normal(X.shape, dtype=np.float32)
    X /= X[:n].std(0)
    np.save(folder / "X.npy", X[:n])
    np.save(folder / "X_test.npy", X[n:])
    with h5py.File(folder / "targets.h5", "w") as file:
        for name, (n_targets, _) in FEATURES.items():
            n_targets = round(n_targets * scale)
            data = file.create_dataset(name, (n, n_targets), "f4", chunks=(n, 64))
            for start in range(0, n_targets, 512):
                stop = min(start + 512, n_targets)
                Y = hidden[:n] @ rng.standard_normal(
                    (N_HIDDEN, stop - start), dtype=np.float32
                )
                Y += Y.std(0) * rng.standard_normal(Y.shape, dtype=np.float32)
                data[:, start:stop] = (Y - Y.mean(0)) / Y.std(0)
            sample = min(SAMPLE[name][1], n_targets)
            np.save(folder / f"sample_{name}.npy", data[:, :sample])


def peak_bytes() -> int:
    """Return the most memory that this process has held, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def gemm_peak(threads: int) -> dict[str, float]:
    """Return measured operations per second of large products, by dtype."""
    torch.set_num_threads(threads)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(4096, 4096, dtype=dtype)
        a @ a
        began = time.perf_counter()
        for _ in range(4):
            a @ a
        found[str(dtype).removeprefix("torch.")] = (
            4 * 2 * 4096**3 / (time.perf_counter() - began)
        )
    return found


# --- parts, each in its own process ---------------------------------------------------


def run_voxel_selected(
    folder: Path, scale: float, threads: int, names: Sequence[str]
) -> dict:
    """Fit features with the paper's decoder and predict the test images."""
    torch.set_num_threads(threads)
    X, X_test = np.load(folder / "X.npy"), np.load(folder / "X_test.npy")
    decoders = [
        VoxelSelectedRidge(ALPHA, round(FEATURES[name][1] * scale), "float32")
        for name in names
    ]
    with h5py.File(folder / "targets.h5") as file:
        targets = [file[name][:] for name in names]
    began = time.perf_counter()
    for decoder, Y in zip(decoders, targets, strict=True):
        decoder.fit(X, Y)
    fitted = time.perf_counter() - began
    for name, decoder in zip(names, decoders, strict=True):
        Y_hat = decoder.predict(X_test)
        np.save(folder / f"ours_{name}.npy", Y_hat[:, : SAMPLE[name][1]])
        del Y_hat
    return {
        "seconds_fit": fitted,
        "seconds": time.perf_counter() - began,
        "n_targets": sum(len(decoder.weights_) for decoder in decoders),
        "solvers": [decoder.solver_ for decoder in decoders],
        "residual_max": max(float(d.residual_.max()) for d in decoders),
        "operations": sum(operations(d, X.shape) for d in decoders)
        + len(names) * len(X) * X.shape[1] ** 2,
        "peak_bytes": peak_bytes(),
    }


def operations(decoder: VoxelSelectedRidge, shape: tuple[int, int]) -> float:
    """Return the planned operations of a fit, its Gram matrix aside."""
    n_targets, n_feat = decoder.weights_.shape
    each = n_feat**3 / 3 + 4 * n_feat**2
    if decoder.solver_ == "cg":
        tol = 2e-6  # the decoder's own default in float32
        iterations = expected_iterations(shape[0], n_feat, tol)
        each = iterations * 2 * shape[1] ** 2
    return n_targets * (each + 2 * shape[0] * shape[1])


def run_dense(folder: Path, threads: int) -> dict:
    """Fit all features at once with the dense ridge and predict the test images."""
    torch.set_num_threads(threads)
    X, X_test = np.load(folder / "X.npy"), np.load(folder / "X_test.npy")
    with h5py.File(folder / "targets.h5") as file:
        Y = np.concatenate([file[name][:] for name in FEATURES], axis=1)
    began = time.perf_counter()
    decoder = RidgeGCV()
    Y_hat = decoder.fit_predict(X, Y, X_test)
    return {
        "seconds": time.perf_counter() - began,
        "n_targets": Y_hat.shape[1],
        "alpha_median": float(np.median(decoder.alpha_)),
        "peak_bytes": peak_bytes(),
    }


# --- the whole ------------------------------------------------------------------------


def in_process(args: argparse.Namespace, folder: Path, part: str) -> dict:
    """Run one part in a process of its own and return its figures."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    command += ["--scale", str(args.scale), "--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{part} failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(part, json.dumps(found), flush=True)
    return found


def reference(args: argparse.Namespace, folder: Path, name: str) -> dict:
    """Time FastL2LiR on a sample of one feature's targets and extrapolate."""
    n_feat = round(FEATURES[name][1] * args.scale)
    command = [args.reference, "-c", REFERENCE, str(folder), name, str(n_feat)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    environment["OPENBLAS_NUM_THREADS"] = str(args.threads)
    done = subprocess.run(
        [*command, *map(str, SAMPLE[name])],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    few, many = SAMPLE[name]
    fast, slow = json.loads(done.stdout.splitlines()[-1])
    each = (slow - fast) / (many - few)
    fixed = fast - few * each
    n_targets = round(FEATURES[name][0] * args.scale)
    theirs = np.load(folder / f"reference_{name}.npy")
    ours = np.load(folder / f"ours_{name}.npy").astype(np.float64)
    error = np.abs(ours - theirs)
    spread = theirs.std(0)
    found = {
        "seconds_per_target": each,
        "seconds_fixed": fixed,
        "seconds_extrapolated": fixed + each * n_targets,
        "n_sample": many,
        # of the target where it is largest: root mean square over images, and maximum
        "difference_rms_in_sd": float((np.sqrt((error**2).mean(0)) / spread).max()),
        "difference_max_in_sd": float((error.max(0) / spread).max()),
    }
    print("reference", name, json.dumps(found), flush=True)
    return found


def whole(args: argparse.Namespace, folder: Path) -> dict:
    """Run everything and return all figures."""
    began = time.perf_counter()
    simulate(folder, args.scale)
    print(f"simulated in {time.perf_counter() - began:.0f} s", flush=True)
    found: dict = {"scale": args.scale, "threads": args.threads}
    found["gemm_peak"] = gemm_peak(args.threads)
    peak = found["gemm_peak"]["float32"]
    for names in ("+".join(FEATURES), *FEATURES):  # the whole subject, then each alone
        part = in_process(args, folder, f"voxel_selected/{names}")
        part["share_of_float32_gemm_peak"] = (
            part["operations"] / part["seconds_fit"] / peak
        )
        found[names] = part
    if args.reference:
        for name in FEATURES:
            found[name]["fastl2lir"] = reference(args, folder, name)
    found["dense"] = in_process(args, folder, "dense")
    if args.reference:
        ours = found["+".join(FEATURES)]["seconds"]
        theirs = sum(found[n]["fastl2lir"]["seconds_extrapolated"] for n in FEATURES)
        found["seconds_voxel_selected"] = ours
        found["seconds_fastl2lir_extrapolated"] = theirs
        found["ratio"] = theirs / ours
        found["ratio_dense"] = theirs / found["dense"]["seconds"]
    return found


def main() -> None:
    """Run the benchmark, or one part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", help="interpreter that has fastl2lir 0.11")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="of every size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        kind, _, names = args.part.partition("/")
        if kind == "voxel_selected":
            result = run_voxel_selected(
                args.folder, args.scale, args.threads, names.split("+")
            )
        else:
            result = run_dense(args.folder, args.threads)
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = whole(args, Path(folder))
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
