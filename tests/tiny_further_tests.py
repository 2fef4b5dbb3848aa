"""Small NSD-synthetic and NSD-imagery, written from their description alone.

Into a folder in NSD's layout: names, shapes, types, order and counts are those that NSD
publishes, pictures are smaller. Responses are a pattern for each stimulus and noise. No
byte is NSD's.
"""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.io import loadmat, savemat

__all__ = ["CLASSES", "TARGETS", "synthetic_order", "write", "write_betas"]

VERSION = "betas_fithrf_GLMdenoise_RR"
#: Sizes of the eight classes, 284 stimuli in all.
CLASSES = {
    "noise": 8,
    "natural scenes": 12,
    "phase coherence": 20,
    "line drawings": 8,
    "contrast": 20,
    "words": 40,
    "spirals": 112,
    "chromatic noise": 64,
}
#: Stimulus number of each run's conditions: letter by letter, and where the row begins.
TARGETS = {
    "A": ("H", "R", "V", "L", "P", "E"),
    "B": ("W", "K", "B", "C", "D", "T"),
    "C": ("S", "Z", "M", "Y", "N", "F"),
}
FIRST = {
    "visA": 0, "attA": 48, "imgA_1": 144, "visB": 192, "attB": 240, "imgB_1": 336,
    "visC": 384, "attC": 432, "imgC_1": 528, "imgA_2": 576, "imgB_2": 624,
    "imgC_2": 672,
}  # fmt: skip
PICTURES = {
    "A": [
        *(f"bar_{d:05.1f}deg_450L_43W.png" for d in (0, 45, 90, 135)),
        *(f"crs_{d:05.1f}deg_450L_43W.png" for d in (0, 45)),
    ],
    "B": [
        "shared0385_nsd28752.png",
        "shared0413_nsd30857.png",
        "shared0741_nsd53882.png",
        "shared0842_nsd61178.png",
        "shared0907_nsd65873.png",
        "shared0000_nsd00000.png",
    ],
}


def synthetic_order() -> npt.NDArray[np.int64]:
    """Return the 1-based stimulus of each of the 744 trials: 2 to 4 of each."""
    rng = np.random.default_rng(284)
    numbers = np.repeat(np.arange(1, 285), 2)
    more = np.repeat(np.arange(1, 89), 2)
    return rng.permutation(np.r_[numbers, more])


def imagery_conditions(run: str) -> list[str]:
    """Return the letters of a run's 48 trials."""
    letters = TARGETS[run[3]]
    rng = np.random.default_rng(FIRST[run])
    return rng.permutation(np.repeat(letters, 8)).tolist()


def imagery_stimuli() -> npt.NDArray[np.int64]:
    """Return the stimulus, 0 to 17, of each of the 720 betas."""
    letters = [letter for known in TARGETS.values() for letter in known]
    found = np.full(720, -1)
    for run, first in FIRST.items():
        n = 2 if run.startswith("att") else 1
        rows = np.repeat([letters.index(x) for x in imagery_conditions(run)], n)
        found[first : first + len(rows)] = rows
    return found


def write_betas(
    root: Path,
    name: str,
    stimulus: npt.NDArray[np.int64],
    *,
    subject: int = 1,
    packed: bool = False,
    change: Callable[[npt.NDArray[np.int16]], npt.NDArray[np.int16]] = np.asarray,
) -> Path:
    """Write the betas of a test set at the voxels of the regions.

    `change`: what becomes of them, (n_trials, n_voxels), before they are written.
    """
    rois = root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi"
    labels = [nib.load(rois / f"{n}.nii.gz") for n in ("Kastner2015", "prf-visualrois")]
    inside = np.any([np.asarray(x.dataobj) > 0 for x in labels], axis=0)
    ijk, n_trials = np.argwhere(inside), len(stimulus)
    rng = np.random.default_rng(n_trials)
    patterns = 300 * rng.standard_normal((stimulus.max() + 1, len(ijk)))
    values = patterns[stimulus] + 150 * rng.standard_normal((n_trials, len(ijk)))
    stored = change(np.rint(values + 200).astype(np.int16))
    folder = f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/nsd{name}{VERSION}"
    path = root / folder / f"betas_nsd{name}.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        volume = np.zeros((*inside.shape, n_trials), np.int16)
        volume[inside] = stored.T
        image = nib.Nifti1Image(volume, labels[0].affine)
        nib.save(image, path.with_suffix(".nii.gz"))
        return path.with_suffix(".nii.gz")
    with h5py.File(path, "w") as file:
        shape = (n_trials, *inside.shape[::-1])
        data = file.create_dataset(
            "betas", shape, "<i2", chunks=(n_trials, 1, 1, 1), fillvalue=0
        )
        for (i, j, k), column in zip(ijk.tolist(), stored.T, strict=True):
            data.id.write_direct_chunk((0, k, j, i), column.tobytes())
    return path


def _write_synthetic(root: Path, subject: int) -> None:
    folder = root / "nsddata/experiments/nsdsynthetic"
    folder.mkdir(parents=True, exist_ok=True)
    order = synthetic_order()
    design = {"masterordering": order.astype(np.uint16)[None]}
    design["stimpattern"] = np.ones((1, 8, 107), np.uint8)
    savemat(folder / "nsdsynthetic_expdesign.mat", design, do_compression=True)
    names = [f"{c}_{n}" for c, size in CLASSES.items() for n in range(size)]
    kinds = np.repeat(list(CLASSES), list(CLASSES.values()))
    table = pd.DataFrame({"Image number": np.arange(1, 285), "Image": names})
    table["Image subclass number"], table["Image subclass"] = 1, kinds
    table["Image class number"], table["Image class"] = 1, kinds
    table.to_csv(folder / "nsdsyntheticimageinformation.csv", index=False)
    bricks = root / "nsddata_stimuli/stimuli/nsdsynthetic"
    bricks.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(714)
    for name, n in (("stimuli", 220), (f"colorstimuli_subj{subject:02d}", 64)):
        with h5py.File(bricks / f"nsdsynthetic_{name}.hdf5", "w") as file:
            pixels = rng.integers(0, 256, (n, 14, 26, 3), dtype=np.uint8)
            file.create_dataset("imgBrick", data=pixels)
    write_betas(root, "synthetic", order - 1, subject=subject)


def _write_imagery(root: Path, subject: int) -> None:
    folder = root / "nsddata/bdata/nsdimagery"
    folder.mkdir(parents=True, exist_ok=True)
    for run in FIRST:
        letters = imagery_conditions(run)
        columns = {"SUBJECT": subject, "SESSION": 1, "RUN": 1}
        table = pd.DataFrame(columns, index=range(48))
        table["TRIAL"], table["CONDITION"], table["CUE"] = range(1, 49), letters, "X"
        path = folder / f"nsdimagery_subj{subject:02d}_{run}.tsv"
        table.to_csv(path, sep="\t", index=False)
    rng = np.random.default_rng(18)
    for name, pictures in PICTURES.items():
        targets = root / f"nsddata/experiments/nsdimagery/rawtargetimages/set{name}"
        targets.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            side = (20, 20) if name == "A" else (16, 16, 3)
            pixels = rng.integers(0, 256, side, dtype=np.uint8)
            Image.fromarray(pixels).save(targets / picture)
    write_betas(root, "imagery", imagery_stimuli(), subject=subject)


#: Place among the shared images -> number (from 1) of the pictures of set B.
SHARED = {385: 28752, 413: 30857, 741: 53882, 842: 61178, 907: 65873}


def _share(root: Path) -> None:
    """Exchange images, so that the shared ones are those that pictures of B name."""
    folder = root / "nsddata/experiments/nsd"
    design_path, table_path = (
        folder / name for name in ("nsd_expdesign.mat", "nsd_stim_info_merged.csv")
    )
    design = {k: v for k, v in loadmat(design_path).items() if not k.startswith("_")}
    table = pd.read_csv(table_path, index_col=0)
    shown = [c for c in table if c.startswith("subject") or c == "shared1000"]
    notes = root / "nsddata_stimuli/stimuli/nsd/annotations"
    stimuli = root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    for place, number in SHARED.items():
        other = int(design["sharedix"][0, place - 1])
        for name in ("subjectim", "sharedix"):
            ids = design[name]
            was, becomes = ids == other, ids == number
            ids[was], ids[becomes] = number, other
        pair = [other - 1, number - 1]
        table.loc[pair, shown] = table.loc[pair[::-1], shown].to_numpy()
        with h5py.File(stimuli, "r+") as file:
            images = file["imgBrick"][sorted(pair)][::-1]
            for row, image in zip(sorted(pair), images, strict=True):
                file["imgBrick"][row] = image
        path = notes / f"captions_{table.loc[number - 1, 'cocoSplit']}.json"
        held = json.loads(path.read_text())
        held["annotations"] += [
            {
                "id": 10**8 + 10 * number + k,
                "image_id": int(table.loc[number - 1, "cocoId"]),
                "caption": f"picture {number}, words {k}",
            }
            for k in range(5)
        ]
        path.write_text(json.dumps(held))
    savemat(design_path, design, do_compression=True)
    table.to_csv(table_path)
    for path in (root / "nsddata/ppdata").glob("subj*/behav/responses.tsv"):
        path.unlink()  # optional, and of the images before


def write(root: Path, subject: int = 1) -> Path:
    """Write both test sets of a subject into a folder in NSD's layout."""
    _share(root)
    _write_synthetic(root, subject)
    _write_imagery(root, subject)
    return root
