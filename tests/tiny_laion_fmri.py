"""A small folder of LAION-fMRI, written from its documentation alone.

Nothing here knows the reader: paths, types and columns are those that its makers
publish. Values are noise and pictures plain colours; no byte is theirs.
"""

import io
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

__all__ = ["N_SESSIONS", "SPLIT", "SUBJECT", "names", "write"]

SUBJECT, SPLIT, N_SESSIONS = 3, "tau", 3
GRID = (7, 6, 5)
SUB = f"sub-{SUBJECT:02d}"
#: Retinotopic regions, and a few of other groups.
RETINOTOPY = [
    *("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "V3A", "V3B", "hV4"),
    *("LO1", "LO2", "TO1", "TO2", "VO1", "VO2", "IPS0"),
]
N_SHARED, N_OWN, N_OTHERS, N_OOD = 14, 30, 5, 4
#: Of the images that the split knows.
N_TEST = 10


def names() -> list[str]:
    """Return the names of all images, in the order of the table."""
    shared = [f"shared_12rep_LAION_cluster_{7 * i}_i{i % 3}.jpg" for i in range(14)]
    own = [f"{SUB}_unique_4rep_LAION_cluster_{i}_i0.jpg" for i in range(N_OWN)]
    others = [f"sub-01_unique_4rep_LAION_cluster_{i}_i1.jpg" for i in range(N_OTHERS)]
    ood = [f"shared_4rep_OOD_gabor_{i}.png" for i in range(N_OOD)]
    order = np.random.default_rng(5).permutation(53)
    every = [*shared, *own, *others, *ood]
    return [every[i] for i in order]


def seen() -> list[str]:
    """Return the names of the images that the subject saw."""
    return [name for name in names() if not name.startswith("sub-01")]


def write(root: Path) -> Path:
    """Write subject 3, whose three sessions show each image three times in all."""
    rng = np.random.default_rng(29)
    _write_stimuli(root / "stimuli")
    _write_regions(root, rng)
    folder = root / "derivatives/glmsingle-tedana" / SUB
    order = rng.permutation(np.repeat(seen(), 3))
    pattern = {name: rng.standard_normal(GRID) for name in seen()}
    for session, labels in enumerate(np.split(order, N_SESSIONS), start=1):
        _write_session(folder, session, labels.tolist(), pattern, rng)
    ceiling = rng.uniform(5, 80, GRID).astype(np.float32)
    ceiling[0, 0, 0] = 0
    name = f"{SUB}_task-images_space-T1w_desc-Noiseceiling4rep_statmap.nii.gz"
    _save(ceiling, folder / name)
    _write_split(root / "splits" / SUB, rng)
    return root


def _save(values: npt.NDArray[np.generic], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.778, 1.778, 1.778, 1])), path)


def _write_session(
    folder: Path,
    session: int,
    labels: list[str],
    pattern: dict[str, npt.NDArray[np.float64]],
    rng: np.random.Generator,
) -> None:
    stem = f"{SUB}_ses-{session:02d}_task-images"
    func = folder / f"ses-{session:02d}" / "func"
    betas = np.stack([pattern[name] for name in labels], axis=-1)
    betas += 0.7 * rng.standard_normal(betas.shape)
    betas = (0.01 * session * betas + 0.02).astype(np.float32)
    betas[0, :2, :] = np.nan  # at the edge of the brain
    if session == 2:
        betas[3, 3, 3, :] = np.nan  # a drop-out on one day
    name = f"{stem}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
    _save(betas, func / name)
    table = pd.DataFrame(
        {
            "session": f"ses-{session:02d}",
            "run": [f"run-{1 + i // 5:02d}" for i in range(len(labels))],
            "beta_index": np.arange(len(labels)),
            "label": labels,
        }
    )
    name = f"{stem}_desc-SingletrialBetas_trials.tsv"
    table.to_csv(func / name, sep="\t", index=False)


def _write_regions(root: Path, rng: np.random.Generator) -> None:
    folder = root / "derivatives/rois" / SUB
    labels = rng.integers(0, len(RETINOTOPY) + 1, GRID)
    labels[0] = len(RETINOTOPY)  # in no region where there is no data
    for number, roi in enumerate(RETINOTOPY):
        name = f"{SUB}_space-T1w_res-1pt8_label-{roi}_mask.nii.gz"
        _save((labels == number).astype(np.uint8), folder / "retinotopy" / name)
    general = (rng.random(GRID) < 0.8).astype(np.uint8)
    general[0] = 0
    name = f"{SUB}_space-T1w_res-1pt8_label-laiongeneral_mask.nii.gz"
    _save(general, folder / "visual" / name)


def _write_stimuli(folder: Path) -> None:
    folder.mkdir(parents=True)
    every = names()
    shared = ["shared" if name.startswith("shared") else "unique" for name in every]
    pd.DataFrame(
        {
            "image_name": every,
            "dataset": ["OOD" if "OOD" in name else "LAION" for name in every],
            "participant": [
                "all" if kind == "shared" else name[:6]
                for name, kind in zip(every, shared, strict=True)
            ],
            "unique_or_shared": shared,
            "n_reps": [12 if "12rep" in name else 4 for name in every],
        }
    ).to_csv(folder / "task-images_metadata.csv", index=False)
    with h5py.File(folder / "task-images_stimuli.h5", "w") as file:
        kind = h5py.vlen_dtype(np.uint8)
        images = file.create_dataset("images", (len(every),), kind)
        for row, name in enumerate(every):
            images[row] = np.frombuffer(_picture(row, name), np.uint8)
    rows = [
        (name, k, "human", f"{name[:-4]} seen by person {k}", "main1", f"p{k}", "")
        for name in every
        for k in range(1, 6 if name.startswith("shared") else 4)
    ]
    rows += [
        (name, 0, "ai", "a machine's words", "gpt-5.1", "", "gpt-5.1")
        for name in every
        if "12rep" in name
    ]
    columns = [
        *("image_name", "caption_idx", "source", "caption"),
        *("origin_collection", "participant_id", "ai_model"),
    ]
    table = pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=3)
    table.to_csv(folder / "task-images_desc-captions.csv", index=False)


def _picture(row: int, name: str) -> bytes:
    """Return a plain colour of 1000 x 1000 px; a PNG is open on the right half."""
    colour = 37 * row % 256, 91 * row % 256, 151 * row % 256
    buffer = io.BytesIO()
    if name.endswith("png"):
        pixels = np.full((1000, 1000, 4), (*colour, 255), np.uint8)
        pixels[:, 500:, 3] = 0
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    else:
        Image.new("RGB", (1000, 1000), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def _write_split(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    pool = rng.permutation([name for name in seen() if "OOD" not in name]).tolist()
    ood = [name for name in seen() if "OOD" in name]
    parts = {"tau": (pool[N_TEST:], pool[:N_TEST]), "ood": (pool, ood)}
    parts |= {f"random_{k}": (pool[:-9], pool[-9:]) for k in range(5)}
    parts |= {f"cluster_k5_{k}": (pool[:-7], pool[-7:]) for k in range(5)}
    for name, (train, test) in parts.items():
        split = {
            "name": name,
            "pool": f"{SUB} full pool (unique + LAION non-OOD shared)",
            "splitter": "for tests",
            "params": {},
            "n_train": len(train),
            "n_test": len(test),
            "variants": [{"variant_id": 0, "train_ids": train, "test_ids": test}],
        }
        (folder / f"{name}.json").write_text(json.dumps(split))
