"""A subject with five images to reconstruct, as notebooks 01 and 02 leave it.

The models are tiny and random: what images look like means nothing here.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run
from minddiff_utils.core.run import start as start_run
from minddiff_utils.generation import SubjectFeatures, generate
from minddiff_utils.generation.decoded_features import DecodedFeatures
from minddiff_utils.generation.generate import Generated
from minddiff_utils.models import Backbone, tiny_backbone

Arrays = dict[str, npt.NDArray[Any]]
Start = Callable[..., Run]
IDS = np.array([907, 12, 3456, 88, 71999])
TRAIN = np.array([5, 6, 7, 8])
LAYERS = (1, 2)
#: Axes of the noise model, per layer.
N_AXES = 4
#: Of every engine the shortest loop there is.
ONE_STEP = {
    "subjects": (1,),
    "models.batch_size": 2,
    "features.clip_layers": LAYERS,
    "stage1.n_steps": 2,
    "stage1.encode_index": 1,
    "stage1.decode_steps": 1,
    **{f"stage2.{loop}.n_iter": 1 for loop in ("paper", "released")},
    "stage2.preset": "released",
    **{f"posterior.{name}": 1 for name in ("encode_index", "decode_steps")},
    "posterior.n_steps": 3,
}
SMALL = {
    "models.backbone": "tiny",
    "models.batch_size": 2,
    "features.clip_layers": LAYERS,
    "stage1.n_steps": 4,
    "stage1.encode_index": 2,
    "stage1.decode_steps": 3,
    "stage2.paper.n_iter": 1,
    "stage2.released.n_iter": 2,
    "stage2.preset": "released",
    "posterior.n_steps": 4,
    "posterior.encode_index": 1,
    "posterior.decode_steps": 2,
    "subjects": (1, 2),
    "data.n_reconstruct": 5,
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Give a function that starts a smoke run with tiny models below `tmp_path`."""

    def starts(
        *,
        subject: int | None = 1,
        shard: str = "0/1",
        notebook: str = "",
        folder: str = "run",
        **over: Any,
    ) -> Run:
        monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path / folder))
        named = {key.replace("__", "."): value for key, value in over.items()}
        return start_run(
            "smoke",
            subject=subject,
            shard=shard,
            overrides={**SMALL, **named},
            notebook=notebook,
        )

    return starts


@pytest.fixture
def n_calls(backbone: Backbone) -> Iterator[Callable[[], int]]:
    """Give a function that says how often the U-Net was called since the last time."""
    calls: list[int] = []
    handle = backbone._unet.register_forward_hook(lambda *_: calls.append(1))

    def since() -> int:
        n = len(calls)
        calls.clear()
        return n

    yield since
    handle.remove()


def files(backbone: Backbone) -> dict[str, Arrays]:
    """Return the content of the subject's files, by name."""
    rng = stream(0, "tests", "decoded")
    widths = {
        "c": backbone.n_tokens * backbone.text_dim,
        "z": int(np.prod(backbone.latent_shape)),
        **{f"clip/{k}": backbone.layer_widths[k - 1] for k in LAYERS},
    }
    n = len(IDS)

    def normal(width: int) -> npt.NDArray[np.float32]:
        return rng.normal(size=(n, width)).astype(np.float32)

    decoded: Arrays = {"nsd_id": IDS, "retrieval_nsd_id": TRAIN[[1, 0, 3, 1, 2]]}
    decoded["posterior_nsd_id"] = TRAIN[[3, 3, 0, 2, 1]]
    for name, width in widths.items():
        decoded |= {f"{name}/{kind}": normal(width) for kind in ("decoded", "true")}
        decoded[f"{name}/scale"] = rng.uniform(0.5, 2, width).astype(np.float32)
        decoded[f"{name}/selected"] = rng.random(width) < 0.25
        decoded[f"{name}/mean"] = 0.1 * decoded[f"{name}/scale"]
    donors: Arrays = {"nsd_id": TRAIN[:3]}
    donors |= {f"{name}/decoded": normal(width)[:3] for name, width in widths.items()}
    systems: Arrays = {"nsd_id": IDS, "category_only/c": normal(widths["c"])}
    for system in ("takagi", "takagi_minddiffuser", "permuted_voxels"):
        systems |= {f"{system}/{k}": normal(widths[k]) for k in ("c", "z")}
    pixels = rng.uniform(-0.2, 1.2, (n, 8 * 8 * 3)).astype(np.float32)
    ids = np.concatenate([TRAIN, IDS])
    images = rng.integers(0, 256, (len(ids), 64, 64, 3), dtype=np.uint8)
    r_cv = {f"clip/{k}/r_cv": rng.uniform(size=widths[f"clip/{k}"]) for k in LAYERS}
    noise: Arrays = {}
    for k in LAYERS:
        noise[f"clip/{k}/map"] = normal(widths[f"clip/{k}"])[:N_AXES]
        noise[f"clip/{k}/shift"] = normal(N_AXES)[0]
        decoded[f"clip/{k}/whitened"] = normal(N_AXES)
        donors[f"clip/{k}/whitened"] = normal(N_AXES)[:3]
    decoded["c/posterior"] = normal(widths["c"])
    donors["c/posterior"] = normal(widths["c"])[:3]
    words = [f"a {('cat', 'dog', 'bus')[k % 3]} outside" for k in range(len(ids))]
    captions = np.array(words)[:, None]
    return {
        "decoded.h5": decoded,
        "noise_model.h5": noise,
        "decoded_validation.h5": donors,
        "decoded_systems.h5": systems
        | {"pixel_ridge": pixels, "posterior_image": pixels[::-1].copy()},
        "decoders.h5": r_cv,
        "stimuli.h5": {"nsd_id": ids, "images": images, "captions": captions},
        "responses.h5": {"split": np.array(["train"] * len(TRAIN) + ["test"] * n)},
    }


def write_files(run: Run, backbone: Backbone, **changed: Arrays) -> SubjectFeatures:
    """Write the subject's files, some arrays of `decoded.h5` changed, and read them."""
    for name, arrays in files(backbone).items():
        path = run.tree.derived(run.subject or 1) / name
        arrays |= changed.get(name.removesuffix(".h5"), {})
        store.write_arrays(path, arrays, run=run)
    return SubjectFeatures(run, backbone)


def made(features: SubjectFeatures, *rows: Any) -> dict[str, Generated]:
    """Return the images of some conditions."""
    inputs = (features.run, features.backbone, features)
    return {row.name: generate(*inputs, row) for row in rows}


def given(run: Run, backbone: Backbone, decoded: DecodedFeatures) -> SubjectFeatures:
    """Return features as if they were those of the subject's files."""
    features = SubjectFeatures(run, backbone)
    features._read = dict.fromkeys(("decoded", "true", "shuffled"), decoded)
    return features
