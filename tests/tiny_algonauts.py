"""A small folder of the Algonauts 2023 release, written from its description alone.

Nothing here knows the reader: paths, types and order are those that the release and
NSD publish. Values are noise; no byte is NSD's or COCO's. `mapping_*.npy` are traps: a
pickle that leaves a mark where it is opened.
"""

import json
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.io import savemat

__all__ = ["SUBJECT", "picture", "write"]

SUBJECT, LAST_SESSION = 5, 37
N_FSAVERAGE, N_LH, N_RH = 163_842, 14, 12
N_SHARED_SEEN, N_OWN_SEEN = 12, 36
ROIS = {
    "prf-visualrois": ["V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"],
    "floc-bodies": ["EBA", "FBA-1", "FBA-2", "mTL-bodies"],
    "floc-faces": ["OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"],
    "floc-places": ["OPA", "PPA", "RSC"],
    "floc-words": ["OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"],
    "streams": [
        "early",
        "midventral",
        "midlateral",
        "midparietal",
        "ventral",
        "lateral",
        "parietal",
    ],
}


class _Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


def picture(nsd_id: int) -> npt.NDArray[np.uint8]:
    """Return the image of an id: 425 x 425, its number for a colour."""
    colour = nsd_id >> 16, nsd_id >> 8 & 255, nsd_id & 255
    return np.full((425, 425, 3), colour, np.uint8)


def write(root: Path) -> Path:
    """Write subject 5 of the release and the files of NSD beside it."""
    rng = np.random.default_rng(23)
    shared = np.sort(rng.choice(73_000, 1000, replace=False))
    others = np.setdiff1d(np.arange(73_000), shared)
    own = rng.permutation(others)[:9000]
    seen = np.sort(np.r_[rng.choice(shared, N_SHARED_SEEN, False), own[:N_OWN_SEEN]])
    _write_nsd(root, rng, shared, own, seen)
    _write_subject(root / f"subj{SUBJECT:02d}", rng, seen)
    return root


def _write_nsd(
    root: Path,
    rng: np.random.Generator,
    shared: npt.NDArray[np.int64],
    own: npt.NDArray[np.int64],
    seen: npt.NDArray[np.int64],
) -> None:
    folder = root / "nsddata/experiments/nsd"
    folder.mkdir(parents=True)
    ids = np.arange(73_000)
    reps = np.zeros((73_000, 3), np.int64)
    reps[seen, 0] = rng.integers(1, 750 * LAST_SESSION + 1, len(seen))
    reps[seen, 1:] = rng.integers(1, 30_001, (len(seen), 2))
    table = pd.DataFrame(
        {
            "cocoId": 500_000 - ids,
            "cocoSplit": np.where(ids % 2, "train2017", "val2017"),
            "nsdId": ids,
            "shared1000": np.isin(ids, shared),
            **{f"subject{SUBJECT}_rep{r}": reps[:, r] for r in range(3)},
        }
    )
    table.to_csv(folder / "nsd_stim_info_merged.csv")
    images = np.tile(np.r_[shared, own] + 1, (8, 1))
    order = rng.permutation(np.repeat(np.arange(1, 10_001), 3))
    design = {"masterordering": order[None], "subjectim": images}
    design["sharedix"] = shared[None] + 1
    savemat(folder / "nsd_expdesign.mat", design, do_compression=True)

    folder = root / "nsddata_stimuli/stimuli/nsd/annotations"
    folder.mkdir(parents=True)
    for split, odd in (("train2017", 1), ("val2017", 0)):
        notes = [
            {"image_id": 500_000 - int(i), "id": 5 * int(i) + k, "caption": f"{i} {k}"}
            for i in seen[seen % 2 == odd]
            for k in range(5)
        ]
        text = json.dumps({"annotations": notes})
        (folder / f"captions_{split}.json").write_text(text)

    label = root / "nsddata/freesurfer/fsaverage/label"
    ratio = (
        root
        / "nsddata_betas/ppdata"
        / f"subj{SUBJECT:02d}"
        / "fsaverage/betas_fithrf_GLMdenoise_RR"
    )
    for path in (label, ratio):
        path.mkdir(parents=True)
    for h in ("lh", "rh"):
        atlas = rng.integers(0, 26, N_FSAVERAGE)
        ncsnr = rng.uniform(0, 1, N_FSAVERAGE)
        for path, values in (
            (label / f"{h}.Kastner2015.mgz", atlas),
            (ratio / f"{h}.ncsnr.mgh", ncsnr),
        ):
            stored = values.astype(np.float32).reshape(-1, 1, 1)
            nib.save(nib.MGHImage(stored, np.eye(4)), path)


def _write_subject(
    folder: Path, rng: np.random.Generator, seen: npt.NDArray[np.int64]
) -> None:
    training, withheld = folder / "training_split", folder / "test_split/test_images"
    for name in ("training_fmri", "training_images"):
        (training / name).mkdir(parents=True)
    for path in (withheld, folder / "roi_masks"):
        path.mkdir(parents=True)
    for rank, nsd_id in enumerate(seen.tolist(), start=1):
        path = training / "training_images" / f"train-{rank:04d}_nsd-{nsd_id:05d}.png"
        Image.fromarray(picture(nsd_id)).save(path, compress_level=1)
    Image.fromarray(picture(7)).save(withheld / "test-0001_nsd-00007.png")
    for h, n in (("lh", N_LH), ("rh", N_RH)):
        values = rng.standard_normal((len(seen), n)).astype(np.float32)
        np.save(training / "training_fmri" / f"{h}_training_fmri.npy", values)
        inside = np.zeros(N_FSAVERAGE, np.int64)
        inside[rng.choice(N_FSAVERAGE, n, replace=False)] = 1
        masks = folder / "roi_masks"
        np.save(masks / f"{h}.all-vertices_fsaverage_space.npy", inside)
        for roi, labels in ROIS.items():
            whole = np.zeros(N_FSAVERAGE, np.int64)
            whole[inside > 0] = rng.integers(0, len(labels) + 1, n)
            np.save(masks / f"{h}.{roi}_fsaverage_space.npy", whole)
            np.save(masks / f"{h}.{roi}_challenge_space.npy", whole[inside > 0])
    for roi in ROIS:
        path = folder / "roi_masks" / f"mapping_{roi}.npy"
        path.write_bytes(pickle.dumps(_Trap(folder.parent / "OPENED")))
