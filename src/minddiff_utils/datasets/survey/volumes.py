"""One subject's volumes: brain mask, regions, noise-ceiling SNR, on one grid.

They are small and read whole, by the reader. Place in the flow: part of `survey`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.datasets.nsd.areas import assign_areas
from minddiff_utils.datasets.nsd.facts import FACTS, VOXEL_MM
from minddiff_utils.datasets.nsd.files import again
from minddiff_utils.datasets.nsd.forms import sides_of
from minddiff_utils.datasets.survey.findings import Finding
from minddiff_utils.datasets.survey.looking import Item, Scope, differs, look
from minddiff_utils.datasets.survey.packed import check_nii

__all__ = ["Grid", "Volumes", "look_at_volumes"]

IntArray = npt.NDArray[np.int64]
Grid = tuple[int, ...]

_AREA_FILES = ("Kastner2015", "prf-visualrois")
#: What the voxels of each volume hold.
_HELD = {
    "brain mask": "0 and 1",
    "Kastner2015": "-1, 0 and labels",
    "prf-visualrois": "-1, 0 and labels",
    "nsdgeneral": "-1, 0 and 1",
    "ncsnr": "floats, above 0 in the areas",
}


#: A finding, and the values where all is well.
_Look = tuple[Finding, npt.NDArray[Any] | None]


@dataclass(frozen=True)
class Volumes:
    """A subject's volumes; None where a file is missing or damaged."""

    findings: tuple[Finding, ...]
    grid: Grid | None
    areas: IntArray | None  # index into AREAS, -1 for none
    n_voxels: Mapping[str, int]  # of brain mask, prf-visualrois, nsdgeneral


def look_at_volumes(scope: Scope, subject: int) -> Volumes:
    """Look at a subject's volumes; nsdgeneral must be there only where it is read."""
    tree = scope.tree
    roi = tree.func_folder(subject) / "roi"
    paths = {
        "brain mask": tree.func_folder(subject) / "brainmask.nii.gz",
        "Kastner2015": roi / "Kastner2015.nii.gz",
        "prf-visualrois": roi / "prf-visualrois.nii.gz",
        "nsdgeneral": roi / "nsdgeneral.nii.gz",
        "ncsnr": tree.betas_folder(subject) / "ncsnr.nii.gz",
    }
    grid: Grid | None = FACTS[subject].grid if scope.published else None
    size = "the grid of the others" if grid is None else " x ".join(map(str, grid))
    looks: dict[str, _Look] = {}
    for name, known in paths.items():
        path = sides_of(known)[0]
        text = f"{size}, with {_HELD[name]}"
        optional = name not in ("brain mask", *_AREA_FILES, scope.voxels)
        item = Item(subject, name, path, text, optional)
        looks[name] = look(scope, item, _read_volume, scope, subject, name, path)
    shapes = Counter(v.shape for _, v in looks.values() if v is not None)
    if grid is None and shapes:
        grid = shapes.most_common(1)[0][0]
    looks = _misplaced(scope, looks, grid)
    areas = _areas(scope, subject, looks["Kastner2015"][1], looks["prf-visualrois"][1])
    if areas is not None:
        looks |= _useless(scope, looks, areas)
    n_voxels = {
        name: int((values > 0).sum())
        for name, (_, values) in looks.items()
        if values is not None and name in ("brain mask", "prf-visualrois", "nsdgeneral")
    }
    findings = tuple(_blamed(scope, subject, n, f) for n, (f, _) in looks.items())
    return Volumes(findings, grid, areas, n_voxels)


def _misplaced(
    scope: Scope, looks: Mapping[str, _Look], grid: Grid | None
) -> dict[str, _Look]:
    """Return the looks, those damaged that do not lie on the grid."""
    checked = dict(looks)
    for name, (finding, values) in looks.items():
        if values is not None and values.shape != grid:
            found = f"shape {values.shape}, but {grid} is expected"
            checked[name] = _spoilt(scope, finding, found)
    return checked


def _spoilt(scope: Scope, finding: Finding, found: str) -> _Look:
    remedy = scope.remedy if finding.path is None else again(finding.path)
    return replace(finding, state="damaged", found=found, remedy=remedy), None


def _read_volume(
    scope: Scope, subject: int, name: str, path: Path
) -> tuple[npt.NDArray[Any], str]:
    """Return a volume as the reader gives it; these are small and read whole."""
    values: npt.NDArray[Any]
    image = check_nii(path, to_the_end=True)
    if name == "brain mask":
        values = scope.tree.brainmask(subject)
        _check_affine(scope, image)
    elif name == "ncsnr":
        if image.get_data_dtype().kind != "f":
            raise differs(f"{image.get_data_dtype()} values", "float32")
        values = scope.tree.ncsnr(subject)
    else:
        values = scope.tree.roi(subject, name)
    n = int((values > 0).sum())
    if not n:
        raise differs("no voxel above 0", "some")
    shape = " x ".join(map(str, values.shape))
    return values, f"{image.get_data_dtype()}, {shape}, {n} voxels above 0"


def _check_affine(scope: Scope, image: Any) -> None:
    """Raise DataError unless NSD's voxels are 1.8 mm and centred on the origin."""
    if not scope.published:
        return
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * VOXEL_MM for n in image.shape[:3]]
    if not np.allclose(image.affine, affine, atol=1e-3):  # float32 in the header
        raise differs("another affine", "1.8 mm voxels centred on the origin")


def _blamed(scope: Scope, subject: int, name: str, finding: Finding) -> Finding:
    """Return the finding with the colour table's path if that is what is wrong."""
    table = scope.tree.freesurfer_folder(subject, "label") / f"{name}.mgz.ctab"
    if str(table) not in finding.found:
        return finding
    found = finding.found.replace(f" at {table}", "").replace(str(table), table.name)
    return replace(finding, path=table, found=found)


def _areas(
    scope: Scope, subject: int, kastner: IntArray | None, prf: IntArray | None
) -> IntArray | None:
    if kastner is None or prf is None:
        return None
    labels = [
        scope.tree.roi_labels(subject, n) for n in ("Kastner2015", "prf-visualrois")
    ]
    return assign_areas(kastner, labels[0], prf, labels[1])


def _useless(
    scope: Scope, looks: Mapping[str, _Look], areas: IntArray
) -> dict[str, _Look]:
    """Return what is damaged because nothing could be decoded with it."""
    inside = areas >= 0
    if not inside.any():
        name, found = "Kastner2015", "no voxel in any of the areas"
        return {name: _spoilt(scope, looks[name][0], found)}
    finding, values = looks["ncsnr"]
    if values is None or (values[inside] > 0).any():
        return {}
    return {"ncsnr": _spoilt(scope, finding, "no voxel of the areas above 0")}
