"""Peak memory of the steps that go through all images of one NSD subject.

    python tests/benchmarks/images_nsd.py --folder FOLDER --out FILE.json

Writes nsd_stimuli.hdf5 in NSD's shape, (73000, 425, 425, 3) uint8, of which it fills
9,841 images, and runs in a process each what notebooks 01, 02 and 05 do with them at
the generator's 512 px: 01 resizes, writes and compares all; 02 encodes all, and reduces
them to pixels; 05 scores test images, drawn and retrieved ones among all. Networks are
stand-ins that give features as wide as the real ones; scores of pixels are Pearson's
alone, as SSIM looks at one pair of images at a time, too. Responses, features and the
networks' weights come on top: `minddiff plan` says how much.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

#: What a notebook may hold at most, GiB.
LIMITS = {"01_data_prep": 3.0, "02_decoding": 3.0, "05_evaluation": 4.0}
N_STORED, SIDE = 73_000, 425
SIZES = {"n_images": 9841, "n_test": 982, "size": 512}
#: Embedders and the values of one image: those of `perception` that are wide.
WIDTHS = {
    "clip_judge": 512,
    "alexnet2": 184_512,
    "alexnet5": 57_600,
    "alexnet2_bd": 139_968,
    "alexnet5_bd": 43_264,
    "inception_fid": 2048,
}
ON_DISK = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
Pixels = npt.NDArray[np.uint8]


def picture(number: int) -> Pixels:
    """Return a picture of 17 x 17 fields that no other number has."""
    rng = np.random.default_rng(number)
    fields = rng.integers(0, 256, (17, 17, 3), np.uint8)
    return fields.repeat(SIDE // 17, axis=0).repeat(SIDE // 17, axis=1)


def write_stimuli(root: Path, n_images: int) -> npt.NDArray[np.int64]:
    """Write the file; return the ids of the images that are in it."""
    path = root / ON_DISK
    path.parent.mkdir(parents=True)
    ids = np.sort(np.random.default_rng(1).permutation(N_STORED)[:n_images])
    with h5py.File(path, "w") as file:
        brick = file.create_dataset(
            "imgBrick",
            shape=(N_STORED, SIDE, SIDE, 3),
            dtype=np.uint8,
            chunks=(1, SIDE, SIDE, 3),
            compression="gzip",
        )
        for number in ids.tolist():
            packed = zlib.compress(picture(number).tobytes(), 1)
            brick.id.write_direct_chunk((number, 0, 0, 0), packed)
    return ids


# --- what the notebooks do ------------------------------------------------------------


def run_of(root: Path) -> Any:
    """Return a run whose artefacts lie below `root`, of one subject."""
    import os

    from minddiff_utils.core.run import start

    os.environ["MINDDIFF_ROOT"] = str(root)
    sizes = json.loads((root / "sizes.json").read_text())
    over = {"subjects": [1], "data.n_reconstruct": sizes["n_test"]}
    return start("nsd", subject=1, overrides=over)


def prepare(root: Path) -> None:
    """Do what notebook 01 does with the images."""
    from minddiff_utils.core import store
    from minddiff_utils.datasets.nsd.reader import NsdTree
    from minddiff_utils.preprocessing import prepare_stimuli
    from minddiff_utils.preprocessing.leak_check import leak_report

    run, sizes = run_of(root), json.loads((root / "sizes.json").read_text())
    ids = np.load(root / "ids.npy")
    captions = np.full((len(ids), 5), "a picture of fields", object)
    data_set: Any = SimpleNamespace(
        images=NsdTree(root).stimuli, captions=lambda *_: captions
    )
    split = np.array(["train"] * len(ids), "<U10")
    split[: sizes["n_test"]] = "test"
    stimuli = prepare_stimuli(data_set, ids, sizes["size"], 5)
    folder = run.tree.derived(1)
    store.write_arrays(folder / "stimuli.h5", stimuli, run=run)
    images = store.read_rows(folder / "stimuli.h5", "images")
    responses: Any = SimpleNamespace(nsd_id=ids, split=split)
    leaks = leak_report(responses, images, ids[split == "test"])
    if not leaks["passed"].all():
        raise SystemExit("The pictures are not what was written.")
    write_others(run, ids, split)


def write_others(run: Any, ids: npt.NDArray[np.int64], split: Any) -> None:
    """Write what notebooks 02 and 03 leave for 05."""
    from minddiff_utils.core import store

    folder, test = run.tree.derived(1), ids[split == "test"]
    rng = np.random.default_rng(2)
    nearest = rng.choice(ids[split == "train"], len(test))
    store.write_arrays(folder / "responses.h5", {"split": split}, run=run)
    found = {"nsd_id": test, "retrieval_nsd_id": nearest}
    store.write_arrays(folder / "decoded.h5", found, run=run)
    widths = {"c": 15 * 768, "z": 4 * 64 * 64}
    systems = {
        f"{system}/{name}": np.zeros((len(test), width), np.float32)
        for system in ("takagi", "takagi_minddiffuser", "permuted_voxels")
        for name, width in widths.items()
    }
    pixels = rng.random((len(test), 32 * 32 * 3), np.float32)
    systems |= {"nsd_id": test, "pixel_ridge": pixels}
    store.write_arrays(folder / "decoded_systems.h5", systems, run=run)
    images = store.read_rows(folder / "stimuli.h5", "images")
    for number, image in zip(test.tolist(), images, strict=False):
        path = run.tree.stage_dir(1, "stage1") / f"{number}.png"
        store.write_png(path, 255 - image, run=run)


def _as_given(batch_size: int) -> int:
    return batch_size


def encode(root: Path) -> None:
    """Do what notebook 02 does with the images."""
    import torch

    from minddiff_utils import features
    from minddiff_utils.core import store
    from minddiff_utils.decoding.other_systems import small_pixels

    run, sizes = run_of(root), json.loads((root / "sizes.json").read_text())
    images = store.read_rows(run.tree.derived(1) / "stimuli.h5", "images")
    backbone: Any = SimpleNamespace(
        image_size=sizes["size"],
        latent_shape=(3, 1, 1),
        device=torch.device("cpu"),
        dtype=torch.float32,
        at_once=_as_given,
        encode_images=lambda x: x.mean(dim=(2, 3), keepdim=True),
    )
    features.image_features(backbone, images, [], batch_size=64)
    small_pixels(images, run.profile.systems.pixel_size)


def score(root: Path) -> None:
    """Do what notebook 05 does with the images."""
    from minddiff_utils.core.rows import in_blocks
    from minddiff_utils.evaluation.images import read_condition, read_stimuli
    from minddiff_utils.evaluation.metrics import (
        ConditionImages,
        score_methods,
        scores,
    )

    run = run_of(root)
    stimuli = read_stimuli(run, 1)
    truth = stimuli.truth

    def compared() -> Iterator[ConditionImages]:
        folder = run.tree.stage_dir(1, "stage1")
        for _ in range(3):
            stage1 = read_condition(folder, "stage1", truth.nsd_id)
            assert stage1 is not None
            yield stage1
            del stage1

    def look(width: int) -> Any:
        def embed(images: Any) -> npt.NDArray[np.float32]:
            rows = np.empty((len(images), width), np.float32)  # filled as networks do
            for batch, shown in in_blocks(images, 16):
                rows[batch] = shown.reshape(len(shown), -1)[:, -width:]
            return rows

        return embed

    vars(scores)["PIXEL_SCORES"] = {"pcc": scores.PIXEL_SCORES["pcc"]}
    embedders = {name: look(width) for name, width in WIDTHS.items()}
    score_methods(1, compared(), truth, embedders)
    embedders["clip_judge"](stimuli.test)


STEPS = {"01_data_prep": prepare, "02_decoding": encode, "05_evaluation": score}


# --- measuring ------------------------------------------------------------------------


def measure(root: Path, name: str) -> dict[str, float]:
    """Run one step in a process of its own; return seconds and peak."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(root)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"seconds": time.perf_counter() - began, "peak_gib": float(done.stdout)}


def main() -> None:
    """Measure, or do one step of a measurement."""
    from minddiff_utils.core.surroundings import peak_bytes

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="for 3 GB; temporary by default")
    parser.add_argument("--scale", type=float, default=1.0, help="to try it out")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        STEPS[args.step](args.folder)
        print(peak_bytes() / 2**30)
        return
    counts = {k: round(SIZES[k] * args.scale) for k in ("n_images", "n_test")}
    sizes = counts | {"size": SIZES["size"]}
    all_gib = sizes["n_images"] * sizes["size"] ** 2 * 3 / 2**30
    found: dict[str, Any] = {**sizes, "images_gib": all_gib, "steps": {}}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(folder)
        (root / "sizes.json").write_text(json.dumps(sizes))
        np.save(root / "ids.npy", write_stimuli(root, sizes["n_images"]))
        for name, limit in LIMITS.items():
            took = measure(root, name)
            peak = took["peak_gib"]
            shares = {"of_images": peak / all_gib, "of_limit": peak / limit}
            found["steps"][name] = took | {"limit_gib": limit} | shares
            print(
                f"{name}: {peak:.2f} GiB of {limit:g} GiB allowed (ratio"
                f" {peak / limit:.2f}), {peak / all_gib:.2f} of all images;"
                f" {took['seconds']:.0f} s",
                flush=True,
            )
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if any(step["of_limit"] >= 1 for step in found["steps"].values()):
        raise SystemExit("A step holds more than it may.")


if __name__ == "__main__":
    main()
