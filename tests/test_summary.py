"""The report shows this run's own artefacts, and is not made of less than all."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from minddiff_utils import store, summary
from minddiff_utils.config import AREAS
from minddiff_utils.errors import StoreError
from minddiff_utils.report import TableItem
from minddiff_utils.rng import stream

IDS = np.array([40, 7, 300])
SPLIT = ["train", "test", "test"]
METHODS = ("z_only", "c_only", "stage1", "stage2")
OVERRIDES = {"subjects": (5, 1), "data.n_reconstruct": 2, "stage2.n_iter": 3}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Run:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    monkeypatch.setattr("os.fsync", lambda _: None)  # hundreds of files, none to keep
    return store.start("smoke", overrides=OVERRIDES)


def _image(value: int) -> npt.NDArray[np.uint8]:
    return np.full((8, 8, 3), value, np.uint8)


# --- panels and maps ----------------------------------------------------------------


@pytest.fixture
def subject_folder(run: store.Run) -> Path:
    """Write what the panels of subject 1 are made of; every value tells its origin."""
    folder = run.tree.derived(1)
    images = np.stack([_image(k) for k in range(3)])
    files: dict[str, dict[str, Any]] = {
        "stimuli.h5": {"images": images, "nsd_id": IDS},
        "responses.h5": {
            "betas": np.arange(12.0).reshape(3, 4),
            "split": SPLIT,
            "voxel_ijk": np.arange(12).reshape(4, 3),
            "roi": np.array([0, 1, 1, 10]),
        },
        "decoded.h5": {"nsd_id": IDS[1:], "retrieval_nsd_id": IDS[[0, 0]]},
        "trajectories.h5": {"stage2/losses": np.array([[5.0, 4.0], [3.0, 2.0]])},
        "decoders.h5": {
            "c/voxel_weight": np.array([1.0, 2.0, 3.0, 2.0]),
            "z/voxel_weight": np.array([0.0, 0.0, 0.0, 8.0]),
            "clip/1/voxel_weight": np.full(4, 0.5),
            "clip/2/voxel_weight": np.arange(4.0),
        },
    }
    for name, arrays in files.items():
        store.write_arrays(folder / name, arrays, run=run)
    for k, method in enumerate(METHODS):
        for row, nsd_id in enumerate(IDS[1:]):
            path = run.tree.stage_dir(1, method) / f"{nsd_id}.png"
            store.write_png(path, _image(100 + 10 * k + row), run=run)
    return folder


def test_panels_are_the_first_test_image_s_own(
    run: store.Run, subject_folder: Path
) -> None:
    panels = summary.method_panels(run, 1)
    np.testing.assert_array_equal(panels.seen, _image(1))
    for k, method in enumerate(METHODS):
        np.testing.assert_array_equal(getattr(panels, method), _image(100 + 10 * k))
    assert panels.responses.tolist() == [4, 5, 6, 7]  # row 1 of betas
    assert panels.losses.tolist() == [5, 4]


def test_panels_of_a_stage_that_was_not_run_are_refused(
    run: store.Run, subject_folder: Path
) -> None:
    (run.tree.stage_dir(1, "stage2") / "7.png").unlink()
    with pytest.raises(StoreError, match="holds 0 of 1 images"):
        summary.method_panels(run, 1)


def test_panels_without_trajectories_are_refused(
    run: store.Run, subject_folder: Path
) -> None:
    (subject_folder / "trajectories.h5").unlink()
    with pytest.raises(StoreError, match=r"trajectories\.h5 does not exist"):
        summary.method_panels(run, 1)


def test_weights_are_relative_to_their_mean_over_voxels(
    run: store.Run, subject_folder: Path
) -> None:
    maps = summary.weight_maps(run, 1)
    found = {words: values.tolist() for words, values in maps.values.items()}
    assert found == {
        "c": [0.5, 1.0, 1.5, 1.0],
        "z": [0.0, 0.0, 0.0, 4.0],
        "lowest CLIP layer": [1.0, 1.0, 1.0, 1.0],
    }
    assert maps.area_names == AREAS
    assert maps.roi.tolist() == [0, 1, 1, 10]
    assert maps.voxel_ijk.tolist() == np.arange(12).reshape(4, 3).tolist()


def test_the_lowest_layer_is_that_of_the_profile(
    run: store.Run, subject_folder: Path
) -> None:
    overrides = {**OVERRIDES, "features.clip_layers": (2, 3)}
    other = store.start("smoke", overrides=overrides)
    lowest = summary.weight_maps(other, 1).values["lowest CLIP layer"]
    np.testing.assert_allclose(lowest, np.arange(4) / 1.5, rtol=1e-15)  # one division


def test_weights_that_are_all_zero_are_refused_in_one_sentence(
    run: store.Run, subject_folder: Path
) -> None:
    path = subject_folder / "decoders.h5"
    weights = store.read_arrays(path) | {"z/voxel_weight": np.zeros(4)}
    store.write_arrays(path, weights, run=run)
    with pytest.raises(StoreError) as error:
        summary.weight_maps(run, 1)
    text = str(error.value)
    assert "the weights of z are all zero" in text
    assert text.endswith(".")
    assert "\n" not in text


# --- the report ---------------------------------------------------------------------

FIGURES = (
    *("method", "gallery", "gallery_subjects", "comparison", "stage2_gain"),
    *("subjects", "quality_vs_accuracy", "k_selection", "cortex_flat"),
    *("cortex_inflated", "accuracy_subj05", "histograms_subj05", "weights_subj05"),
    *("decoders_subj05", "holdout_subj05"),
    *("stage1_subj05", "losses_subj05", "trajectory_subj05", "stage2_subj05"),
    *("roi_counts_subj05", "reliability_subj05"),
)
TABLES = ("sanity", "comparison", "paired", "frechet")


@pytest.fixture
def finished(run: store.Run) -> store.Run:
    """Write the figures and tables of a finished run."""
    rng = stream(4, "tests")
    for name in FIGURES:
        image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        store.write_png(run.tree.figures / f"{name}.png", image, run=run)
    for name in TABLES:
        words = {"subject": ["1", "all"], "what": [f"{name} of one", f"{name} of all"]}
        path = run.tree.tables / f"{name}.csv"
        store.write_table(path, pd.DataFrame(words), run=run)
    ledger = pd.DataFrame(
        {
            "claim": ["C1"],
            "statement": ["a statement"],
            "verdict": ["supported"],
            "profile": ["word of the profile column"],
        }
    )
    store.write_table(run.tree.figures / "claims.csv", ledger, run=run)
    for subject in run.profile.subjects:
        table = pd.DataFrame({"feature": [f"accuracy of subject {subject}"]})
        path = run.tree.derived(subject) / "accuracy.csv"
        store.write_table(path, table, run=run)
    return run


def test_the_report_shows_every_figure_once_and_every_table(
    finished: store.Run,
) -> None:
    page = summary.build_report(finished)
    assert page.count("data:image/png;base64,") == len(FIGURES)
    for name in ("sanity", "paired", "frechet"):
        assert f"{name} of one" in page
    for subject in (1, 5):
        assert f"accuracy of subject {subject}" in page
    assert "a statement" in page


def test_the_report_pools_the_comparison_and_drops_the_profile_column(
    finished: store.Run,
) -> None:
    page = summary.build_report(finished)
    assert "comparison of all" in page
    assert "comparison of one" not in page
    assert "word of the profile column" not in page


def test_the_report_says_which_run_made_it(finished: store.Run) -> None:
    page = summary.build_report(finished)
    profile = finished.profile
    assert profile.label in page
    assert f"smoke, digest {profile.digest}" in page
    assert "preset fast, 3 iterations" in page
    assert "5, 1" in page
    assert "subject 5" in page  # captions speak of the first subject
    assert "{subject" not in page


def test_the_same_run_gives_the_same_page(finished: store.Run) -> None:
    assert summary.build_report(finished) == summary.build_report(finished)


@pytest.mark.parametrize(
    "lost",
    [
        *(f"{name}.png" for name in FIGURES),
        *(f"tables/{name}.csv" for name in TABLES),
        "claims.csv",
    ],
)
def test_a_report_of_less_than_all_is_refused_by_name(
    finished: store.Run, lost: str
) -> None:
    (finished.tree.figures / lost).unlink()
    with pytest.raises(StoreError) as error:
        summary.build_report(finished)
    assert f"{lost} does not exist" in str(error.value)


def test_the_stages_are_shown_in_the_order_of_the_flow(finished: store.Run) -> None:
    titles = [section.title for section in summary._sections(finished)]
    assert titles.index("Scores") < titles.index("Decoding")
    tables = [
        item.name
        for section in summary._sections(finished)
        for item in section.tables
        if isinstance(item, TableItem)
    ]
    assert tables == ["claims", "sanity", "comparison", "paired", "frechet", "accuracy"]
