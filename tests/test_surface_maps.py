"""Voxel values reach the right vertices, and only those."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.reporting import surface_maps
from minddiff_utils.reporting.figures import Surface
from minddiff_utils.reporting.surface_maps import CorticalData

#: A 4 x 4 x 4 volume whose value tells the voxel: 100 i + 10 j + k.
IJK = np.argwhere(np.ones((4, 4, 4), bool))
VALUES = IJK @ np.array([100.0, 10.0, 1.0])
#: Corners of a square on the surface, in 0-based voxel coordinates.
CORNERS = np.array([[1, 1, 1], [1, 2, 1], [2, 1, 1], [2, 2, 1]], float)
FACES = np.array([[0, 2, 1], [1, 2, 3]])


def _data(keep: npt.NDArray[np.bool_] | None = None, scale: float = 1) -> CorticalData:
    kept = np.ones(len(IJK), bool) if keep is None else keep
    roi = (IJK[kept, 0] >= 2).astype(int)  # V1 at i < 2
    return CorticalData(IJK[kept], roi, ("V1", "V2"), {"c": scale * VALUES[kept]})


def _write_mgz(path: Path, values: npt.NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shaped = values.reshape(len(values), 1, 1, -1).astype(np.float32)
    nib.save(
        nib.MGHImage(shaped[..., 0] if shaped.shape[3] == 1 else shaped, np.eye(4)),
        path,
    )


def _write_surf(folder: Path, h: str) -> None:
    """Write a square of four vertices: white, inflated, sulc and the flat patch."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("white", "inflated"):
        nib.freesurfer.write_geometry(folder / f"{h}.{kind}", CORNERS * 10, FACES)
    sulc = np.array([-1, -1, 1, 1], np.float32)
    nib.freesurfer.write_morph_data(folder / f"{h}.sulc", sulc, fnum=2)
    kind = np.dtype([("index", ">i4"), ("xyz", ">f4", 3)])
    records = np.zeros(4, kind)
    records["index"] = [1, -2, 3, -4]  # 1-based, negative at the border
    records["xyz"] = CORNERS * 10
    head = np.array([-1, 4], ">i4").tobytes()
    (folder / f"{h}.full.flat.patch.3d").write_bytes(head + records.tobytes())


@pytest.fixture
def tree(tmp_path: Path) -> NsdTree:
    """Write subjects 1 and 2, by hand and in NSD's conventions: 1-based, 9999."""
    for h in ("lh", "rh"):
        for subject in (1, 2):
            folder = tmp_path / f"nsddata/ppdata/subj{subject:02d}/transforms"
            for depth in (1, 2, 3):
                stored = CORNERS + 1  # 1-based
                stored[:, 2] += depth - 1  # k = 1, 2, 3 from pial to white
                _write_mgz(folder / f"{h}.func1pt8-to-layerB{depth}.mgz", stored)
            index = np.array([4, 3, 2, 1])  # fsaverage counts backwards
            _write_mgz(folder / f"{h}.white-to-fsaverage.mgz", index)
        for name in ("subj01", "subj02", "fsaverage"):
            _write_surf(tmp_path / f"nsddata/freesurfer/{name}/surf", h)
    return NsdTree(tmp_path)


# --- sampling -------------------------------------------------------------------------


def test_a_vertex_lies_in_the_voxel_with_the_nearest_centre() -> None:
    points = np.array([[1.49, 2.0, 3.0], [0.51, 2.49, 2.51], [0.5, 0, 0]])
    rows = surface_maps.vertex_rows(points, IJK)
    np.testing.assert_array_equal(IJK[rows], [[1, 2, 3], [1, 2, 3], [1, 0, 0]])


def test_the_volume_s_first_and_last_planes_are_reached() -> None:
    points = np.array([[-0.49, 0, 0], [3.49, 3, 3], [-0.51, 0, 0], [3.51, 3, 3]])
    rows = surface_maps.vertex_rows(points, IJK)
    assert (rows >= 0).tolist() == [True, True, False, False]


def test_a_vertex_outside_the_voxels_in_use_or_without_data_has_no_row() -> None:
    only = IJK[(IJK == [1, 1, 1]).all(axis=1)]
    points = np.array([[1, 1, 1], [1, 1, 2], [np.nan] * 3, [-5, 1, 1], [900, 1, 1]])
    assert surface_maps.vertex_rows(points, only).tolist() == [0, -1, -1, -1, -1]


def test_rows_follow_the_order_of_the_voxels_given(rng: np.random.Generator) -> None:
    order = rng.permutation(len(IJK))
    rows = surface_maps.vertex_rows(IJK[order].astype(float), IJK[order])
    np.testing.assert_array_equal(rows, np.arange(len(IJK)))


def test_a_voxel_named_twice_is_refused() -> None:
    with pytest.raises(DataError, match="twice"):
        surface_maps.vertex_rows(np.zeros((1, 3)), np.array([[1, 1, 1], [1, 1, 1]]))


def test_values_are_averaged_over_the_depths_that_have_one() -> None:
    rows = np.array([[0, 0, -1, 2], [1, -1, -1, -1], [2, 1, -1, -1]])
    found = surface_maps.vertex_values(rows, np.array([1.0, 2.0, np.nan]))
    np.testing.assert_array_equal(found, [1.5, 1.5, np.nan, np.nan])


def test_a_vertex_takes_the_area_of_most_depths() -> None:
    roi = np.array([0, 1, 2])
    rows = np.array([[0, 0, 0, -1, 2], [0, 1, 1, -1, -1], [1, 2, -1, -1, 0]])
    # majority; three ways and two ways: the middle depth; none; a tie: lower index
    assert surface_maps.vertex_areas(rows, roi, 3).tolist() == [0, 1, 1, -1, 0]


# --- flat geometry --------------------------------------------------------------------


def _strip(n: int, gap_mm: float) -> Surface:
    """Return n vertices in a row and a second row 1 mm above, zigzag faces."""
    x = np.arange(n) * gap_mm
    xy = np.concatenate([np.stack([x, 0 * x], 1), np.stack([x, 0 * x + 1], 1)])
    k = np.arange(n - 1)
    faces = np.concatenate(
        [np.stack([k, k + 1, k + n], 1), np.stack([k + 1, k + n + 1, k + n], 1)]
    )
    every = np.arange(2.0 * n)
    return Surface(xy, faces, every, every, np.zeros(2 * n, int), ("V1",))


def test_cropping_keeps_the_wanted_vertices_and_12_mm_around() -> None:
    strip = _strip(40, 1.0)
    wanted = np.zeros(80, bool)
    wanted[20] = True
    part = surface_maps.crop(strip, wanted)
    assert part.points[:, 0].min() == 8
    assert part.points[:, 0].max() == 32
    assert set(part.values) == {*range(8, 33), *range(48, 73)}
    # every face is one of the strip's, with the same corners
    whole = {tuple(map(tuple, corners)) for corners in strip.points[strip.faces]}
    assert {tuple(map(tuple, corners)) for corners in part.points[part.faces]} <= whole
    assert len(part.faces) == 2 * 24


def test_faces_that_bridge_a_cut_are_left_out() -> None:
    strip = _strip(10, 1.0)
    moved = strip.points + np.where(np.arange(20) % 10 >= 5, 50.0, 0.0)[:, None] * [
        1,
        0,
    ]
    cut = surface_maps.without_cuts(replace(strip, points=moved))
    assert len(cut.faces) == len(strip.faces) - 2


def test_the_left_hemisphere_stands_left_of_the_right_one() -> None:
    left, right = _strip(5, 1.0), _strip(7, 1.0)
    both = surface_maps.side_by_side(left, right)
    assert both.points[:10, 0].max() < 0 < both.points[10:, 0].min()
    np.testing.assert_array_equal(both.values[both.faces], np.concatenate(
        [left.values[left.faces], right.values[right.faces]]
    ))  # fmt: skip


# --- from files -----------------------------------------------------------------------


def test_flat_maps_read_the_right_voxels_from_1_based_files(tree: NsdTree) -> None:
    flat = surface_maps.flat_maps(tree, 1, _data())["c"]
    # k = 1, 2, 3 at the three depths: mean 2; coordinates read as 0-based would give
    # (222 + 223) / 2 in the first vertex, the third depth lying outside
    expected = [112.0, 122.0, 212.0, 222.0]
    assert flat.values.tolist() == expected * 2
    assert flat.areas.tolist() == [0, 0, 1, 1] * 2
    assert flat.area_names == ("V1", "V2")
    assert flat.sulc.tolist() == [-1, -1, 1, 1] * 2


def test_only_the_voxels_given_show_on_the_map(tree: NsdTree) -> None:
    keep = (IJK[:, 0] == 1) & (IJK[:, 2] >= 2)
    flat = surface_maps.flat_maps(tree, 1, _data(keep))["c"]
    # k = 2 and 3 are left: mean 2.5
    np.testing.assert_array_equal(flat.values[:4], [112.5, 122.5, np.nan, np.nan])


def test_inflated_maps_carry_values_and_geometry_of_both_sides(tree: NsdTree) -> None:
    shown = surface_maps.inflated_maps(tree, 1, _data())["c"]
    for mesh in shown:
        assert mesh.values.tolist() == [112.0, 122.0, 212.0, 222.0]
        np.testing.assert_array_equal(mesh.faces, FACES)
        # FreeSurfer stores float32
        np.testing.assert_allclose(mesh.points, CORNERS * 10, rtol=1e-6)


def test_voxels_of_another_place_are_refused_in_one_sentence(tree: NsdTree) -> None:
    far = CorticalData(IJK + 50, np.zeros(64, int), ("V1",), {"c": VALUES})
    with pytest.raises(DataError, match="same subject"):
        surface_maps.flat_maps(tree, 1, far)


def test_values_of_vertices_lie_on_fsaverage_itself(tmp_path: Path) -> None:
    position = np.array([[0, 0], [0, 3], [1, 2]])
    values = np.array([5.0, 7.0, 9.0])
    data = CorticalData(position, np.array([0, 1, 1]), ("V1", "V2"), {"c": values})
    folder = tmp_path / "nsddata/freesurfer/fsaverage/surf"
    for h in ("lh", "rh"):
        _write_surf(folder, h)
    tree = NsdTree(tmp_path)
    left, right = surface_maps.inflated_maps(tree, "fsaverage", data)["c"]
    np.testing.assert_array_equal(left.values, [5, np.nan, np.nan, 7])
    np.testing.assert_array_equal(right.values, [np.nan, np.nan, 9, np.nan])
    np.testing.assert_array_equal(left.areas, [0, -1, -1, 1])
    flat = surface_maps.flat_maps(tree, "fsaverage", data)["c"]
    assert sorted(flat.values[np.isfinite(flat.values)]) == [5, 7, 9]
    far = CorticalData(position * 9, np.array([0, 1, 1]), ("V1", "V2"), {"c": values})
    with pytest.raises(DataError, match=r"has 4 vertices, but vertex 27 has a value"):
        surface_maps.inflated_maps(tree, "fsaverage", far)
    with pytest.raises(DataError, match=r"not found at .*lh.white"):
        surface_maps.flat_maps(NsdTree(tmp_path / "nsd"), "fsaverage", data)
