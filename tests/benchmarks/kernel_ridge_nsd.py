"""Ridge of one NSD subject, part by part: seconds, memory, share of GEMM peak.

    python tests/benchmarks/kernel_ridge_nsd.py --threads 2 --out /tmp/kernel_ridge.json

Simulates 8,859 x 11,694 correlated voxels in two bands and 85,000 targets (3 GB in a
temporary folder) and decodes 982 test images: once with all voxels alike, once with
bands; --weights also keeps the weights (4 GB), as a third run. Every run has a process
of its own. --scale 0.1 shrinks all sizes. `decoders_nsd.py` compares decoders with each
other and with FastL2LiR; this script says where the time of this one goes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from decoders_nsd import gemm_peak, peak_bytes

from minddiff_utils.core.rng import stream
from minddiff_utils.decoding import RidgeGCV, ridge
from minddiff_utils.decoding.scores import feature_correlation

N_TRAIN, N_TEST, N_VOXELS, N_TARGETS, N_HIDDEN = 8859, 982, 11694, 85_000, 300
#: Share of voxels in the first band (early areas), whose noise is lower.
FIRST_BAND = 0.45
#: Functions of `ridge` that are timed; what is left is writing and Python.
PARTS = {
    "centred_responses": "centre",
    "eigenbases": "kernels and eigenbases",
    "centred_targets": "centre targets",
    "choose_penalties": "project and choose",
    "times_coefficients": "predictions and weights",
}


def simulate(path: Path, scale: float) -> None:
    """Write responses, bands, targets and the targets of the test images."""
    rng = stream(0, "benchmark", "kernel_ridge")
    n, n_test, n_voxels, n_targets = (
        round(size * scale) for size in (N_TRAIN, N_TEST, N_VOXELS, N_TARGETS)
    )
    hidden = rng.standard_normal((n + n_test, N_HIDDEN), dtype=np.float32)
    hidden *= np.arange(1, N_HIDDEN + 1, dtype=np.float32) ** -0.4
    bands = (np.arange(n_voxels) >= FIRST_BAND * n_voxels).astype(np.int64)
    X = hidden @ rng.standard_normal((N_HIDDEN, n_voxels), dtype=np.float32)
    noise = (rng.uniform(1, 4, n_voxels) * (1 + bands)).astype(np.float32) * X.std(0)
    X += noise * rng.standard_normal(X.shape, dtype=np.float32)
    X /= X[:n].std(0)
    with h5py.File(path, "w") as file:
        file["X"], file["X_test"], file["bands"] = X[:n], X[n:], bands
        del X
        train = file.create_dataset("Y", (n, n_targets), "f4", chunks=(n, 64))
        test = file.create_dataset("Y_test", (n_test, n_targets), "f4")
        for start in range(0, n_targets, 512):
            stop = min(start + 512, n_targets)
            Y = hidden @ rng.standard_normal((N_HIDDEN, stop - start), dtype=np.float32)
            Y += Y.std(0) * rng.standard_normal(Y.shape, dtype=np.float32)
            train[:, start:stop], test[:, start:stop] = Y[:n], Y[n:]


def count_time(owner: Any, name: str, seconds: dict[str, float], part: str) -> None:
    """Make `owner.name` add the time it takes to `seconds[part]`."""
    inner: Callable[..., Any] = getattr(owner, name)
    seconds[part] = 0.0

    def outer(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = inner(*args, **kwargs)
        seconds[part] += time.perf_counter() - began
        return result

    setattr(owner, name, outer)


def operations(decoder: RidgeGCV, shape: dict[str, int]) -> dict[str, float]:
    """Return the floating-point operations of the products in each part.

    That of eigh (about 4/3 n^3 to tridiagonal form and 2 to 4 n^3 for the vectors) is
    left out: half of it is bound by memory, not by products.
    """
    n, p, t = shape["n_images"], shape["n_voxels"], shape["n_targets"]
    small, n_test = min(n, p), shape["n_test"]
    n_ratios = 1 if decoder.bands is None else len(ridge.band_shares(2))
    n_alphas = len(decoder.alphas_)
    kept = p if hasattr(decoder, "weights_") else 0
    return {
        "kernels and eigenbases": 2 * small * n * p,
        "project and choose": n_ratios * 2 * small * t * (n + n_alphas),
        "predictions and weights": 2 * small * t * (n_test + kept),
    }


def run(path: Path, kind: str, threads: int) -> dict[str, Any]:
    """Fit and predict once; `kind` is plain, bands or weights."""
    peak, seconds = gemm_peak(threads)["float32"], {}
    for name, part in PARTS.items():
        count_time(ridge, name, seconds, part)
    count_time(torch.linalg, "eigh", seconds, "eigh (in eigenbases)")
    with h5py.File(path) as file:
        X, X_test, Y, bands = (file[n][:] for n in ("X", "X_test", "Y", "bands"))
        sample = slice(0, min(2048, Y.shape[1]))
        Y_test = file["Y_test"][:, sample]
    decoder = RidgeGCV(bands=bands if kind == "bands" else None)
    began = time.perf_counter()
    if kind == "weights":
        Y_hat = decoder.fit(X, Y).predict(X_test)
    else:
        Y_hat = decoder.fit_predict(X, Y, X_test)
    total, memory = time.perf_counter() - began, peak_bytes()
    r = feature_correlation(Y_test, Y_hat[:, sample])
    shape = {"n_images": len(X), "n_voxels": X.shape[1], "n_test": len(X_test)}
    counted = operations(decoder, shape | {"n_targets": Y.shape[1]})
    seconds["write and the rest"] = total - sum(seconds[p] for p in PARTS.values())
    return {
        **shape,
        "n_targets": Y.shape[1],
        "threads": threads,
        "seconds": total,
        "seconds_by_part": seconds,
        "gemm_peak": peak,
        "share_of_gemm_peak": {
            part: counted[part] / seconds[part] / peak for part in counted
        },
        "peak_bytes": memory,
        "alpha_median": float(np.median(decoder.alpha_)),
        "r_test_mean": float(np.nanmean(r)),
    }


def main() -> None:
    """Run the benchmark, or one of its runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of every size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", action="store_true", help="also keep weights")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        sys.stdout.write(json.dumps(run(args.path, args.run, args.threads)) + "\n")
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "subject.h5"
        simulate(path, args.scale)
        for kind in ("plain", "bands", *(["weights"] if args.weights else [])):
            command = [sys.executable, __file__, "--run", kind, "--path", str(path)]
            command += ["--threads", str(args.threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"The run {kind!r} failed:\n{done.stderr}")
            found[kind] = json.loads(done.stdout.splitlines()[-1])
            sys.stdout.write(f"{kind}: {json.dumps(found[kind], indent=1)}\n")
            sys.stdout.flush()
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
