"""Named random streams: every random number is drawn from a stream with a name.

A stream depends on the seed and its names alone, never on the order of calls, on the
shard or on global state.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["derive_seed", "stream", "torch_stream"]


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed derived from `seed` and the ordered `names`.

    >>> derive_seed(0, "noise", 7) == derive_seed(0, "noise", 7)
    True
    >>> derive_seed(0, "noise", 7) == derive_seed(0, "noise", "7")
    False
    """
    text = repr((int(seed), *names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return an independent numpy generator for the ordered `names` under `seed`.

    >>> bool(stream(0, "a").random() == stream(0, "a").random())
    True
    """
    return np.random.default_rng(derive_seed(seed, *names))


def torch_stream(seed: int, *names: str | int) -> "torch.Generator":
    """Return an independent CPU torch generator for the ordered `names` under `seed`.

    Noise is always drawn on the CPU and then moved, so that it does not depend on the
    device.
    """
    import torch  # slow import, only where torch is in use already

    return torch.Generator(device="cpu").manual_seed(derive_seed(seed, *names))
