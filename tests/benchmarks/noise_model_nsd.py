"""The noise model of one CLIP layer of NSD's size, beside one PCA by scikit-learn.

    python tests/benchmarks/noise_model_nsd.py --threads 2 --out noise_model_nsd.json

Simulated features of 8,859 training images and 38,400 targets and their predictions (3
GB), learnt as notebook 02 does: axes, gains, covariance, choice of the rank. The
reference is `sklearn.decomposition.PCA` with as many components of the same features.
There are six such layers, and c with 11,520 targets.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from minddiff_utils.decoding.decoding_errors import learn_layer

N_IMAGES, N_TARGETS, N_AXES, N_SOURCES = 8859, 38_400, 300, 400


def simulated(n_images: int, n_targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features whose spectrum falls as 1 / rank, and shrunk predictions."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, N_SOURCES + 1, dtype=np.float32) ** -0.5
    basis = rng.standard_normal((N_SOURCES, n_targets), dtype=np.float32)

    def sources() -> np.ndarray:
        drawn = rng.standard_normal((n_images, N_SOURCES), dtype=np.float32)
        return drawn * spread

    seen = sources()
    Y = seen @ basis
    Y += 0.3 * rng.standard_normal(Y.shape, dtype=np.float32)
    return Y, (0.3 * seen + 0.4 * sources()) @ basis


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of both sizes")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    args = parser.parse_args()
    sizes = round(args.scale * N_IMAGES), round(args.scale * N_TARGETS)
    with threadpool_limits(args.threads):
        Y, Y_hat = simulated(*sizes)
        clocks = {}
        for name, run in (
            ("learnt", lambda: learn_layer(Y, Y_hat)),
            ("pca", lambda: PCA(N_AXES, random_state=0).fit(Y)),
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            clocks[f"{name}_seconds"] = round(time.perf_counter() - wall, 1)
            clocks[f"{name}_cpu_seconds"] = round(time.process_time() - cpu, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {"n_images": sizes[0], "n_targets": sizes[1], "threads": args.threads}
    found |= clocks | {"peak_gb": round(peak, 1)}
    found["ratio"] = round(clocks["learnt_seconds"] / clocks["pca_seconds"], 2)
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
