"""Synthetic folders of other data sets than NSD, at their sizes; values are noise.

Names come from the inventories, so that no path stands in two places; what the readers
make of the published layout is tested on folders that the tests write on their own.
"""

import gzip
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import savemat

from minddiff_utils.core.rng import stream
from minddiff_utils.core.types import Array, IntArray
from minddiff_utils.datasets.algonauts import layout as algonauts
from minddiff_utils.datasets.digits69 import reader as digits69
from minddiff_utils.datasets.inventory import HEMISPHERES
from minddiff_utils.datasets.laion_fmri import layout as laion
from minddiff_utils.datasets.nsd import layout as nsd
from minddiff_utils.studies.rehearsal_data import write_once

__all__ = [
    "AlgonautsSize",
    "LaionSize",
    "write_folder",
]

_SEED = 2308
#: Rows of responses written at once.
_BLOCK = 512
#: Patches along a side of a synthetic picture.
_PATCHES = 17


@dataclass(frozen=True)
class AlgonautsSize:
    """Images that all subjects share and others, and vertices of lh and rh."""

    n_shared: int
    n_other: int
    n_vertices: tuple[int, int]

    @classmethod
    def of(cls, subject: int) -> "AlgonautsSize":
        """Return the release's sizes of a subject."""
        known = nsd.SEEN[min(n for n in nsd.SEEN if n >= algonauts.n_sessions(subject))]
        return cls(known[1], known[2], algonauts.N_VERTICES[subject])


@dataclass(frozen=True)
class LaionSize:
    """Sides of the volume, of a region's cube, and images of one session, thrice each.

    By default 1,050 trials and 11,664 voxels in 16 regions.
    """

    side: int = 143
    region: int = 9
    n_images: int = 350
    n_table: int = laion.N_IMAGES


def _picture(number: int, size: int) -> Image.Image:
    """Return patches of colours of an image's own, written quickly."""
    rng = stream(_SEED, "rehearsal", "picture", number)
    patches = rng.integers(0, 256, (_PATCHES, _PATCHES, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((size, size), Image.Resampling.NEAREST)


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_folder(
    folder: Path,
    subject: int,
    split: str | None,
    size: AlgonautsSize | LaionSize | None,
) -> None:
    """Write the folder of a data set unless it is there; no size: the digits."""

    def write(fresh: Path) -> None:
        if isinstance(size, LaionSize):
            _write_laion(fresh, subject, str(split), size)
        elif size is not None:
            _write_algonauts(fresh, subject, size)
        else:
            _write_digits(fresh)

    own = asdict(size) if size else "digits69"
    write_once(folder, {"size": own, "subject": subject, "split": split}, write)


# --- Algonauts 2023 -------------------------------------------------------------------


def _write_algonauts(root: Path, subject: int, size: AlgonautsSize) -> None:
    """Write one subject of the release, and the files of NSD that it needs."""
    rng = stream(_SEED, "rehearsal", "algonauts", subject)
    shared = np.sort(rng.choice(nsd.N_IMAGES, nsd.N_SHARED, replace=False))
    others = np.setdiff1d(np.arange(nsd.N_IMAGES), shared)
    seen = np.concatenate(
        [
            rng.choice(shared, size.n_shared, replace=False),
            rng.choice(others, size.n_other, replace=False),
        ]
    )
    ids = np.sort(seen)
    _write_experiment(root, subject, shared, ids, rng)
    for h, n in zip(HEMISPHERES, size.n_vertices, strict=True):
        inside = np.zeros(nsd.N_FSAVERAGE, np.int64)
        inside[np.sort(rng.choice(nsd.N_FSAVERAGE, n, replace=False))] = 1
        np.save(_place(root / algonauts.path("vertices", subject, h=h)), inside)
        drawn = np.zeros(n, np.int64)  # a third of the vertices, and the atlas a third
        drawn[: n // 3] = 1 + np.arange(n // 3) % 7
        roi = "prf-visualrois"
        np.save(root / algonauts.path("roi", subject, h=h, roi=roi), drawn)
        path = _place(root / algonauts.path("kastner", subject, h=h))
        atlas = rng.choice(76, nsd.N_FSAVERAGE).astype(np.float32)
        atlas[atlas > 25] = 0
        nib.save(nib.MGHImage(atlas.reshape(-1, 1, 1), np.eye(4)), path)
        path = _place(root / algonauts.path("fmri", subject, h=h))
        values = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.float32, shape=(len(ids), n)
        )
        for first in range(0, len(ids), _BLOCK):
            rows = values[first : first + _BLOCK]
            rows[:] = rng.standard_normal(rows.shape, np.float32)
        values.flush()
    folder = path.parent.parent / "training_images"
    folder.mkdir(exist_ok=True)
    for rank, nsd_id in enumerate(ids.tolist(), start=1):
        name = f"train-{rank:04d}_nsd-{nsd_id:05d}.png"
        _picture(nsd_id, nsd.IMAGE_SIZE).save(folder / name, compress_level=1)


def _write_experiment(
    root: Path,
    subject: int,
    shared: IntArray,
    ids: IntArray,
    rng: np.random.Generator,
) -> None:
    """Write the table of images and COCO's captions."""
    every = np.arange(nsd.N_IMAGES)
    last = nsd.N_TRIALS * algonauts.n_sessions(subject)
    reps = rng.integers(
        1, nsd.N_TRIALS * nsd.FACTS[subject].n_sessions + 1, (nsd.N_IMAGES, 3)
    )
    reps[:, 0] = rng.integers(1, last + 1, nsd.N_IMAGES)
    splits = np.where(every % 2, "train2017", "val2017")
    table = pd.DataFrame(
        {
            "cocoId": every + 1,
            "cocoSplit": splits,
            "nsdId": every,
            "shared1000": np.isin(every, shared),
            **{f"subject{subject}_rep{r}": reps[:, r] for r in range(3)},
        }
    )
    table.to_csv(_place(root / algonauts.path("table", subject)))
    files = algonauts.inventory(subject)
    paths = [file.path for file in files if file.kind == "captions"]
    for path in paths:
        own = ids[[split in path for split in splits[ids]]]
        notes = [
            {"image_id": n + 1, "id": 5 * n + k, "caption": f"picture {n}, words {k}"}
            for n in own.tolist()
            for k in range(5)
        ]
        text = json.dumps({"annotations": notes})
        _place(root / path).write_text(text, encoding="utf-8")


# --- LAION-fMRI -----------------------------------------------------------------------


def _write_laion(root: Path, subject: int, split: str, size: LaionSize) -> None:
    """Write one session of a subject, the regions, the images that it shows."""
    rng = stream(_SEED, "rehearsal", "laion_fmri", subject)
    names = [f"image_{number:05d}.jpg" for number in range(size.n_table)]
    shown = rng.permutation(np.repeat(np.arange(size.n_images), 3))
    _write_session(root, subject, [names[n] for n in shown], size, rng)
    _write_stimuli(root, names, size)
    order = rng.permutation(size.n_images)
    train, test = np.split(order, [size.n_images * 4 // 5])
    parts = {
        f"{part}_ids": [names[n] for n in numbers]
        for part, numbers in (("train", train), ("test", test))
    }
    facts = {"name": split, "n_train": len(train), "n_test": len(test)}
    text = json.dumps(facts | {"variants": [{"variant_id": 0, **parts}]})
    path = _place(root / laion.path_of("split", subject, split=split))
    path.write_text(text, encoding="utf-8")


def _write_session(
    root: Path,
    subject: int,
    labels: list[str],
    size: LaionSize,
    rng: np.random.Generator,
) -> None:
    """Write regions, noise ceiling, trials and betas: zero outside of the regions."""
    shape = (size.side,) * 3
    regions = [roi for names in laion.ROIS.values() for roi in names]
    areas = np.zeros(shape, bool)
    for number, roi in enumerate(regions):  # cubes in a row of four by four
        mask = np.zeros(shape, np.uint8)
        i, j = (size.region * n for n in divmod(number, 4))
        mask[i : i + size.region, j : j + size.region, : size.region] = 1
        areas |= mask > 0
        _save(root / laion.path_of("roi", subject, roi=roi), mask)
    _save(
        root / laion.path_of("ceiling", subject),
        np.where(areas, rng.uniform(1, 60, shape), 0).astype(np.float32),
    )
    table = pd.DataFrame({"session": "ses-01", "run": "run-01", "label": labels})
    table["beta_index"] = np.arange(len(labels))
    path = _place(root / laion.path_of("trials", subject, session=1))
    table.to_csv(path, sep="\t", index=False)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((*shape, len(labels)))
    header["vox_offset"] = 352
    place = np.flatnonzero(areas.ravel(order="F"))
    path = _place(root / laion.path_of("betas", subject, session=1))
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in labels:
            volume = np.zeros(size.side**3, np.float32)
            volume[place] = rng.standard_normal(len(place), np.float32)
            file.write(volume.tobytes())


def _save(path: Path, values: Array) -> None:
    nib.save(nib.Nifti1Image(values, np.eye(4)), _place(path))


def _write_stimuli(root: Path, names: list[str], size: LaionSize) -> None:
    """Write the table of all images, and pictures and captions of those shown."""
    table = pd.DataFrame({"image_name": names})
    table.to_csv(_place(root / laion.path_of("table")), index=False)
    shown = names[: size.n_images]
    rows = [
        (name, k, "human", f"{name}, words {k}") for name in shown for k in range(1, 6)
    ]
    columns = ["image_name", "caption_idx", "source", "caption"]
    captions = pd.DataFrame(rows, columns=columns)
    captions.to_csv(root / laion.path_of("captions"), index=False)
    with h5py.File(root / laion.path_of("images"), "w") as file:
        kind = h5py.vlen_dtype(np.uint8)
        images = file.create_dataset("images", (len(names),), kind)
        for row in range(size.n_images):
            buffer = io.BytesIO()
            _picture(row, 1000).save(buffer, "JPEG")
            images[row] = np.frombuffer(buffer.getvalue(), np.uint8)


# --- the "69" digits ------------------------------------------------------------------


def _write_digits(root: Path) -> None:
    """Write 100 rings, low and high for the two digits, and responses to them."""
    rng = stream(_SEED, "rehearsal", "digits69")
    y, x = np.mgrid[: digits69.SIDE, : digits69.SIDE]
    label = 1 + np.arange(100) % 2
    middle = np.where(label == 1, 18, 10)[:, None, None]
    radius = rng.permutation(np.linspace(3, 8, 100))[:, None, None]
    ring = np.exp(-((np.hypot(x - 14, y - middle) - radius) ** 2) / 4)
    pixels = np.rint(255 * ring).astype(np.uint8)
    stim = pixels.transpose(0, 2, 1).reshape(100, -1)  # columns first, as in MATLAB
    weights = rng.standard_normal((stim.shape[1], digits69.N_VOXELS))
    fmri = ring.reshape(100, -1) @ weights
    fmri += fmri.std() * rng.standard_normal(fmri.shape)
    values = {"fmri": fmri, "stim": stim, "label": label[:, None]}
    parts = {"Trn": slice(90), "Test": slice(90, 100)}
    stored = {
        f"{k}{p}": v[rows] for k, v in values.items() for p, rows in parts.items()
    }
    savemat(_place(root / digits69.FILE), stored, do_compression=True)
