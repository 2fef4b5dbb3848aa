"""A small folder of MindEye2's files, written from their description alone.

Beside it lie NSD's small files, those of a simulation. Names, shapes, types and order
are those that are published; one subject with two sessions. `evals` holds a trap: a
pickle that leaves a mark where it is opened.
"""

import io
import pickle
import tarfile
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from tests import tiny_nsd

__all__ = ["SUBJECT", "behaviour", "write", "write_tar"]

SUBJECT, N_SESSIONS = 1, 2
BETAS = "betas_all_subj01_fp32_renorm.hdf5"


class _Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


def behaviour(row: int, nsd_id: int, is_shared: bool) -> npt.NDArray[np.float64]:
    """Return a trial's behaviour, (1, 17); -1 for what is missing."""
    values = np.full((1, 17), -1.0)
    values[0, :6] = nsd_id, SUBJECT, row // 750 + 1, 1, row % 750 + 1, row
    values[0, 16] = is_shared
    return values


def write_tar(path: Path, members: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write arrays as members of a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, values in members.items():
            buffer = io.BytesIO()
            np.save(buffer, values)
            info = tarfile.TarInfo(name)
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)


def _roi(root: Path, name: str) -> npt.NDArray[np.float64]:
    folder = root / "nsddata/ppdata/subj01/func1pt8mm/roi"
    return np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj)


def write(root: Path) -> Path:
    """Write the folder; NSD's session files, which nobody needs here, are deleted."""
    tiny_nsd.simulate(root, (SUBJECT,))
    rng = np.random.default_rng(28)
    design = loadmat(root / "nsddata/experiments/nsd/nsd_expdesign.mat")
    order = design["masterordering"][0, : 750 * N_SESSIONS].astype(int) - 1
    ids = design["subjectim"][SUBJECT - 1].astype(int)[order] - 1
    shared = np.zeros(73_000, bool)
    shared[design["sharedix"][0].astype(int) - 1] = True
    general = _roi(root, "nsdgeneral") > 0
    n_voxels = int(general.sum())
    pattern = {i: rng.standard_normal(n_voxels) for i in set(ids.tolist())}
    signal = np.stack([pattern[i] for i in ids.tolist()])
    betas = signal + 0.5 * rng.standard_normal(signal.shape)
    with h5py.File(root / BETAS, "w") as file:
        file["betas"] = betas.astype(np.float32)
    with h5py.File(root / "COCO_73k_subj_indices.hdf5", "w") as file:
        for subject in range(1, 9):
            file[f"subj{subject:02d}"] = ids if subject == SUBJECT else ids[::-1]
    np.save(root / "shared1000.npy", shared)
    drawn = _roi(root, "prf-visualrois")[general]
    with h5py.File(root / "brain_region_masks.hdf5", "w") as file:
        group = file.create_group("subj01")
        group["nsd_general"] = np.ones(n_voxels, bool)
        for k in range(1, 5):
            labels = (7,) if k == 4 else (2 * k - 1, 2 * k)
            group[f"V{k}"] = np.isin(drawn, labels)
        group["higher_vis"] = drawn <= 0
    for session in range(N_SESSIONS):
        rows = range(750 * session, 750 * (session + 1))
        members = dict[str, npt.NDArray[np.generic]]()
        for row in (row for row in rows if not shared[ids[row]]):
            members[f"sample{row:09d}.behav.npy"] = behaviour(row, ids[row], False)
            members[f"sample{row:09d}.past_behav.npy"] = np.full((15, 17), -1.0)
        write_tar(root / f"wds/subj01/train/{session}.tar", members)
    tests = np.flatnonzero(shared[ids])
    write_tar(
        root / "wds/subj01/new_test/0.tar",
        {f"sample{r:09d}.behav.npy": behaviour(r, ids[r], True) for r in tests},
    )
    (root / "evals").mkdir()
    (root / "evals/all_images.pt").write_bytes(pickle.dumps(_Trap(root / "OPENED")))
    for path in (root / "nsddata_betas").rglob("betas_session*"):
        path.unlink()
    return root
