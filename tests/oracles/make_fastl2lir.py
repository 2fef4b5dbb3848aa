"""Runs FastL2LiR 0.11 on small seeded data and keeps what it answered.

The command and the versions are in README.md beside this file.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

SEED = 2308
N_TEST = 10
N_TARGETS = 9
#: Case -> (n_train, n_voxels, n_feat, alpha).
CASES = {
    "few": (40, 30, 8, 0.15),
    "strong": (40, 30, 20, 100.0),
    "all_tall": (40, 30, 30, 0.15),
    "all_wide": (25, 60, 60, 3.0),
    "near_constant": (40, 30, 12, 0.15),
    "ties": (40, 30, 7, 0.15),
}


def draw(
    case: str, n_train: int, n_voxels: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated voxels and targets, both with a mean, train and test rows."""
    n = n_train + N_TEST
    hidden = rng.standard_normal((n, 6))
    X = hidden @ rng.standard_normal((6, n_voxels)) + rng.standard_normal((n, n_voxels))
    X = X * rng.uniform(0.5, 2, n_voxels) + rng.standard_normal(n_voxels)
    Y = hidden @ rng.standard_normal((6, N_TARGETS)) + rng.standard_normal(
        (n, N_TARGETS)
    )
    Y += 2 * rng.standard_normal(N_TARGETS)
    if case == "near_constant":  # follows target 0 exactly, with a variance of 1e-10
        X[:, 4] = 1 + 1e-5 * (Y[:, 0] - Y[:, 0].mean()) / Y[:, 0].std()
    if case == "ties":  # every voxel twice
        X[:, n_voxels // 2 :] = X[:, : n_voxels // 2]
    return X, Y


def answers() -> Iterator[tuple[str, np.ndarray]]:
    from fastl2lir import FastL2LiR  # in the environment of README.md only

    for number, (case, (n_train, n_voxels, n_feat, alpha)) in enumerate(CASES.items()):
        X, Y = draw(case, n_train, n_voxels, np.random.default_rng([SEED, number]))
        model = FastL2LiR()
        model.fit(X[:n_train], Y[:n_train], alpha=alpha, n_feat=n_feat)
        yield f"{case}/alpha", np.array(alpha)
        yield f"{case}/n_feat", np.array(n_feat)
        yield f"{case}/X_train", X[:n_train]
        yield f"{case}/Y_train", Y[:n_train]
        yield f"{case}/X_test", X[n_train:]
        yield f"{case}/W", model.W
        yield f"{case}/b", model.b[0]
        yield f"{case}/Y_hat", model.predict(X[n_train:])


if __name__ == "__main__":
    path = Path(__file__).with_name("fastl2lir.npz")
    np.savez_compressed(path, allow_pickle=False, **dict(answers()))
