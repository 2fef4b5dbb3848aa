"""The surfaces and transforms that `cortex` draws from; a run goes on without them.

Place in the flow: part of `survey`.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from minddiff_utils.datasets.nsd.facts import FACTS, N_FSAVERAGE
from minddiff_utils.datasets.nsd.reader import Anatomy, Hemisphere
from minddiff_utils.datasets.survey.findings import Finding
from minddiff_utils.datasets.survey.looking import Item, Scope, differs, look

__all__ = ["look_at_surfaces", "look_at_transforms"]

IntArray = npt.NDArray[np.int64]

_HEMISPHERES: tuple[Hemisphere, Hemisphere] = ("lh", "rh")
#: The depths at which `cortex` samples.
_DEPTHS = ("layerB1", "layerB2", "layerB3")


def look_at_surfaces(
    scope: Scope, anatomy: Anatomy
) -> tuple[list[Finding], dict[Hemisphere, int | None]]:
    """Return findings on what `cortex` draws, and the vertices of each hemisphere."""
    findings, n_vertices = [], dict[Hemisphere, int | None]()
    subject = None if isinstance(anatomy, str) else anatomy
    owner = "fsaverage " if subject is None else ""
    folder = scope.tree.freesurfer_folder(anatomy, "surf")
    for side, h in enumerate(_HEMISPHERES):
        n = None
        if scope.published:
            n = N_FSAVERAGE if subject is None else FACTS[subject].n_vertices[side]
        for kind in ("white", "inflated", "sulc", "full.flat.patch.3d"):
            text = f"a surface of {n} vertices" if n else "a surface"
            name, path = f"{owner}{h}.{kind}", folder / f"{h}.{kind}"
            item = Item(subject, name, path, text, optional=True)
            finding, found = look(
                scope, item, _read_surface, scope, anatomy, h, kind, n
            )
            findings.append(finding)
            n = n or found  # the white surface comes first, the others must fit it
        n_vertices[h] = n
    return findings, n_vertices


def _read_surface(
    scope: Scope, anatomy: Anatomy, h: Hemisphere, kind: str, n: int | None
) -> tuple[int | None, str]:
    """Return the vertices of a surface file, None for a patch, which holds a part."""
    if kind == "full.flat.patch.3d":
        index = scope.tree.flat_patch(anatomy, h)[0]
        _check_index(index, n)
        return None, f"{len(index)} vertices lie flat"
    if kind == "sulc":
        found = len(scope.tree.surface_values(anatomy, h, kind))
    else:
        vertices, faces = scope.tree.surface(anatomy, h, kind)
        found = len(vertices)
        _check_index(faces, found)
    _check_vertices(found, n)
    return found, f"{found} vertices"


def _check_vertices(found: int, n: int | None) -> None:
    if n is not None and found != n:
        raise differs(f"{found} vertices", n)


def _check_index(index: IntArray, n: int | None) -> None:
    if not index.size:
        raise differs("no vertex", "a surface")
    if n is not None and not 0 <= index.min() <= index.max() < n:
        raise differs(f"vertices {index.min()} to {index.max()}", f"0 to {n - 1}")


def look_at_transforms(
    scope: Scope,
    subject: int,
    n_own: Mapping[Hemisphere, int | None],
    n_group: Mapping[Hemisphere, int | None],
) -> list[Finding]:
    """Return findings on what brings voxels to surfaces, and subjects to the group."""
    folder = scope.tree.subject_folder(subject) / "transforms"
    findings = []
    for h in _HEMISPHERES:
        for depth in _DEPTHS:
            name = f"{h}.func1pt8-to-{depth}.mgz"
            text = f"a coordinate for each of {n_own[h] or 'its'} vertices"
            item = Item(subject, name, folder / name, text, optional=True)
            finding, _ = look(
                scope, item, _read_transform, scope, subject, h, depth, n_own[h]
            )
            findings.append(finding)
        name = f"{h}.white-to-fsaverage.mgz"
        text = f"a vertex for each of {n_group[h] or 'its'} vertices of fsaverage"
        item = Item(subject, name, folder / name, text, optional=True)
        finding, _ = look(
            scope, item, _read_to_group, scope, subject, h, n_own[h], n_group[h]
        )
        findings.append(finding)
    return findings


def _read_transform(
    scope: Scope, subject: int, h: Hemisphere, depth: str, n: int | None
) -> tuple[None, str]:
    values = scope.tree.transform(subject, h, depth)
    _check_vertices(len(values), n)
    known = int(np.isfinite(values).all(axis=1).sum())
    if not known:
        raise differs("no vertex with a coordinate", "a map into the volume")
    return None, f"{len(values)} vertices, {known} with a coordinate"


def _read_to_group(
    scope: Scope, subject: int, h: Hemisphere, n_own: int | None, n_group: int | None
) -> tuple[None, str]:
    index = scope.tree.from_fsaverage(subject, h)
    _check_vertices(len(index), n_group)
    _check_index(index, n_own)
    return None, f"{len(index)} vertices of fsaverage"
