"""A small in-silico folder in NSD's layout for tests: noise for images, fast."""

import json
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.io import savemat

from minddiff_utils.core.profile import SimulationConfig
from minddiff_utils.core.provenance import digest_file
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.insilico import image_features, nsd_writer

__all__ = ["copy_of", "digests", "noise", "simulate"]


def noise(
    nsd_ids: Sequence[int], image_size: int, held_out: Collection[int] = ()
) -> nsd_writer.Glance:
    """Give noise for images and random percepts: never black, a function of the id."""
    draws = [np.random.default_rng(i) for i in nsd_ids]

    def drawn(*shape: int) -> npt.NDArray[np.float32]:
        return np.stack([d.standard_normal(shape, np.float32) for d in draws])

    side = (image_size, image_size, 3)
    pixels = [d.integers(1, 255, side, dtype=np.uint8) for d in draws]
    return nsd_writer.Glance(
        tuple(nsd_writer.zlib.compress(image.tobytes(), 1) for image in pixels),
        image_features.Percepts(drawn(28, 256), drawn(28, 49), drawn(128)),
    )


def simulate(root: Path, subjects: Sequence[int]) -> Path:
    """Write two sessions of each subject."""
    settings = SimulationConfig(n_sessions=2, n_test_images=30, image_size=8)
    nsd_writer.simulate(
        root, settings, tuple(subjects), 2308, n_workers=1, source=noise
    )
    return root


def copy_of(whole: Path, root: Path) -> Path:
    """Give a copy of links; what damages a file makes a new one in its place."""
    shutil.copytree(whole, root, copy_function=lambda a, b: Path(b).hardlink_to(a))
    return root


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file below `folder`, by its name there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): digest_file(path) for path in files}


#: What reads a file, without arguments.
Read = Callable[[], object]
GRID = (5, 4, 3)


def one_of_each_kind(tree: NsdTree) -> dict[str, tuple[Path, Read]]:
    """Write a small file of each kind of subject 1; return it with what reads it."""
    rng = np.random.default_rng(1)
    behaviour, mask, ncsnr = (
        tree.file(kind, 1) for kind in ("responses", "brainmask", "ncsnr")
    )
    table, design, stimuli = map(tree.file, ("table", "design", "stimuli"))
    notes = tree.file("captions", split="val2017")
    roi, ctab = (tree.file(k, 1, name="prf-visualrois") for k in ("roi", "labels"))
    surf = tree.file("surface", 1, h="lh", surface="white").parent
    mgz = tree.file("transform", 1, h="lh", depth="layerB2")
    hdf5, nii = (tree.betas_file(1, 1, form) for form in ("hdf5", "nii.gz"))
    for path in (behaviour, table, notes, surf / "x", ctab, mgz, mask, roi, hdf5):
        path.parent.mkdir(parents=True, exist_ok=True)
    behaviour.write_text("SESSION\t73KID\t10KID\n1\t2\t3\n")
    table.write_text("a,b\n1,2\n")
    order = np.arange(30_000, dtype=np.uint16)[None] % 10_000 + 1
    savemat(design, {"masterordering": order}, do_compression=True)
    notes.write_text(json.dumps({"annotations": []}))
    names = ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")
    ctab.write_text("".join(f"{v} {name}\n" for v, name in enumerate(names, start=1)))
    labels = (np.arange(60).reshape(GRID) % 9 - 1).astype(np.float64)
    betas = rng.integers(-99, 99, (*GRID, 750)).astype(np.int16)
    volumes = {mask: (labels > 2).astype(np.int16), roi: np.clip(labels, -1, 7)}
    volumes |= {ncsnr: np.abs(labels).astype(np.float32) / 9, nii: betas}
    affine = np.diag([1.8, 1.8, 1.8, 1])
    for path, data in volumes.items():
        image = nib.Nifti1Image(data, affine)
        image.header.set_slope_inter(1, 0)
        nib.save(image, path)
    points = np.arange(36, dtype=np.float32).reshape(12, 1, 1, 3)
    nib.save(nib.MGHImage(points, affine), mgz)
    closed = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    nib.freesurfer.write_geometry(surf / "lh.white", np.eye(4, 3), closed)
    nib.freesurfer.write_morph_data(surf / "lh.sulc", np.arange(40))
    patch = surf / "lh.full.flat.patch.3d"
    patch.write_bytes(b"\xff\xff\xff\xff\0\0\0\0")
    with h5py.File(hdf5, "w") as file:
        stored = betas.transpose(3, 2, 1, 0)
        file.create_dataset("betas", data=stored, chunks=(750, 1, 1, 1))
    with h5py.File(stimuli, "w") as file:
        images = rng.integers(0, 255, (9, 8, 8, 3)).astype(np.uint8)
        file.create_dataset("imgBrick", data=images, chunks=(1, 8, 8, 3))
    inside = np.ones(GRID, bool)
    return {
        "design": (design, tree.design),
        "table": (table, tree.stim_info),
        "stimuli": (stimuli, lambda: tree.stimuli(np.arange(9))),
        "captions": (notes, lambda: tree.captions_of("val2017")),
        "responses": (behaviour, lambda: tree.responses(1)),
        "hdf5": (hdf5, lambda: tree.betas(1, 1, inside, "hdf5")),
        "nii": (nii, lambda: tree.betas(1, 1, inside, "nii.gz")),
        "mask": (mask, lambda: tree.brainmask(1)),
        "regions": (roi, lambda: tree.roi(1, "prf-visualrois")),
        "ncsnr": (ncsnr, lambda: tree.ncsnr(1)),
        "colours": (ctab, lambda: tree.roi_labels(1, "prf-visualrois")),
        "transform": (mgz, lambda: tree.transform(1, "lh")),
        "surface": (surf / "lh.white", lambda: tree.surface(1, "lh", "white")),
        "sulci": (surf / "lh.sulc", lambda: tree.surface_values(1, "lh")),
        "patch": (patch, lambda: tree.flat_patch(1, "lh")),
    }
