"""The report shows this run's own artefacts, and is not made of less than all."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.errors import DataError, StoreError
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run, start
from minddiff_utils.evaluation.claims import evaluate_claims
from minddiff_utils.evaluation.claims.evidence import Evidence
from minddiff_utils.reporting import (
    galleries,
    report_contents,
    surface_maps,
)

IDS = np.array([40, 7, 300])
SPLIT = ["train", "test", "test"]
METHODS = ("z_only", "c_only", "stage1", "stage2")
OVERRIDES = {"subjects": (5, 1), "data.n_reconstruct": 2, "stage2.released.n_iter": 3}
OVERRIDES |= {"stage2.preset": "released"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    monkeypatch.setattr("os.fsync", lambda _: None)  # hundreds of files, none to keep
    return start("smoke", overrides=OVERRIDES)


def _image(value: int) -> npt.NDArray[np.uint8]:
    return np.full((8, 8, 3), value, np.uint8)


# --- panels and maps ----------------------------------------------------------------


@pytest.fixture
def subject_folder(run: Run) -> Path:
    """Write what the panels of subject 1 are made of; every value tells its origin."""
    folder = run.tree.derived(1)
    images = np.stack([_image(k) for k in range(3)])
    files: dict[str, dict[str, Any]] = {
        "stimuli.h5": {
            "images": images,
            "nsd_id": IDS,
            "captions": np.array([["a cat"], ["a dog"], ["a cat"]]),
        },
        "responses.h5": {
            "betas": np.arange(12.0).reshape(3, 4),
            "split": SPLIT,
            "voxel_ijk": np.arange(12).reshape(4, 3),
            "roi": np.array([0, 1, 1, 10]),
            "roi_names": list(AREAS),
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


SCORED = pd.DataFrame(
    [(1, "stage2", i, "clip_judge", v) for i, v in ((7, 0.75), (300, 0.5))],
    columns=["subject", "method", "nsd_id", "metric", "value"],
)


def test_panels_are_those_of_the_median_image(run: Run, subject_folder: Path) -> None:
    panels = galleries.method_panels(run, 1, SCORED)  # of two, the lower one
    assert panels.rule.startswith("Image 300. Picked by rule: quantiles")
    np.testing.assert_array_equal(panels.pictures["seen"], _image(2))
    shown = ("z_alone", "c_alone", "sampled", "aligned")
    for k, name in enumerate(shown):  # in the order of METHODS
        np.testing.assert_array_equal(panels.pictures[name], _image(101 + 10 * k))
    assert panels.responses.tolist() == [8, 9, 10, 11]  # row 2 of betas
    assert panels.losses.tolist() == [3, 2]
    assert panels.scores == {"aligned": "0.50 · –"}
    assert panels.engine == "released code's loop"


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("stage2/300.png", "holds 0 of 1 images"),
        ("trajectories.h5", r"trajectories\.h5 does not exist"),
    ],
)
def test_panels_of_a_stage_that_was_not_run_are_refused(
    run: Run, subject_folder: Path, lost: str, words: str
) -> None:
    (subject_folder / lost).unlink()
    with pytest.raises(StoreError, match=words):
        galleries.method_panels(run, 1, SCORED)


def test_every_subject_has_both_stages_below_the_seen_images(
    run: Run, subject_folder: Path
) -> None:
    rows, below = galleries.subject_gallery(run, [1], SCORED, ids=[300, 7])
    assert list(rows) == ["seen image", "subject 1, stage 1", "subject 1, stage 2"]
    np.testing.assert_array_equal(rows["seen image"][0], _image(2))
    np.testing.assert_array_equal(rows["subject 1, stage 2"][1], _image(130))
    assert below == {"subject 1, stage 2": ["0.50 · –", "0.75 · –"]}


def test_weights_are_relative_to_their_mean_over_voxels(
    run: Run, subject_folder: Path
) -> None:
    maps = surface_maps.weight_maps(run, 1)
    found = {words: values.tolist() for words, values in maps.values.items()}
    assert found == {
        "c": [0.5, 1.0, 1.5, 1.0],
        "z": [0.0, 0.0, 0.0, 4.0],
        "lowest CLIP layer": [1.0, 1.0, 1.0, 1.0],
    }
    assert maps.area_names == AREAS
    assert maps.roi.tolist() == [0, 1, 1, 10]
    assert maps.position.tolist() == np.arange(12).reshape(4, 3).tolist()
    other = start("smoke", overrides={**OVERRIDES, "features.clip_layers": (2, 3)})
    lowest = surface_maps.weight_maps(other, 1).values["lowest CLIP layer"]
    np.testing.assert_allclose(lowest, np.arange(4) / 1.5, rtol=1e-15)  # one division


def test_weights_that_are_all_zero_are_refused_in_one_sentence(
    run: Run, subject_folder: Path
) -> None:
    path = subject_folder / "decoders.h5"
    weights = store.read_arrays(path) | {"z/voxel_weight": np.zeros(4)}
    store.write_arrays(path, weights, run=run)
    with pytest.raises(StoreError, match=r"^.*the weights of z are all zero.*\.$"):
        surface_maps.weight_maps(run, 1)


# --- the report ---------------------------------------------------------------------

#: Notebook 06 has drawn the first subject's cortex.
MAPS = surface_maps.CorticalMaps(5)
#: What every run has: not the study of engines, nor the figure of names.
SHOWN = (
    *("method", "gallery_subjects", "gallery_ablation", "losses", "k_quality"),
    *("cortex_flat", "histograms", "failures", "differences", "stage2_gain"),
    *("comparison", "controls", "ablation", "trajectory", "quality_vs_accuracy"),
    *("cortex_inflated", "accuracy", "leakage", "factors"),
)
FIGURES = tuple(report_contents.FIGURES[name].file_name(name, 5) for name in SHOWN)
TABLES = ("T1_comparison", "T2_ablation", "T4_decoding", "T5_cost")
#: In the gallery of two images.
N_PICTURES = 2 * len(galleries.system_rows("released"))
#: What notebooks 02 to 04 leave and the report only asks for.
LEFT = ("accuracy", "image_accuracy", "k_selection", "weights", "zero_iterations")


def _leave_subject(run: Run, subject: int) -> None:
    """Write what a finished subject leaves; only the images of the gallery matter."""
    folder = run.tree.derived(subject)
    images = np.stack([_image(k) for k in range(3)])
    captions = np.array([["a cat"], ["a dog"], ["a cat"]])
    files: dict[str, dict[str, Any]] = {
        "stimuli.h5": {"images": images, "nsd_id": IDS, "captions": captions},
        "responses.h5": {"split": SPLIT},
        "decoded.h5": {"nsd_id": IDS[1:], "retrieval_nsd_id": IDS[[0, 0]]},
        "decoded_systems.h5": {"nsd_id": IDS[1:]},
        "trajectories.h5": {"x": np.zeros(1)},
    }
    for name, arrays in files.items():
        store.write_arrays(folder / name, arrays, run=run)
    for name in LEFT:
        store.write_table(folder / f"{name}.csv", pd.DataFrame({"x": [1]}), run=run)
    for stage in ("stage1", "stage2"):
        table = pd.DataFrame({"method": [stage] * 2, "nsd_id": IDS[1:]})
        store.write_table(folder / f"{stage}.csv", table, run=run)
    made = [m for m in galleries.system_rows("released") if m != "truth"]
    for k, method in enumerate(made):
        for row, nsd_id in enumerate(IDS[1:]):
            path = run.tree.stage_dir(subject, method) / f"{nsd_id}.png"
            store.write_png(path, _image(100 + 10 * k + row), run=run)


@pytest.fixture
def finished(run: Run) -> Run:
    """Write the figures and tables of a finished run."""
    rng = stream(4, "tests")
    for name in FIGURES:
        image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        store.write_png(run.tree.figures / f"{name}.png", image, run=run)
    for name in TABLES:
        table = pd.DataFrame({"subject": ["1", "all"]}).assign(
            **{"method": [f"{name} of one", f"{name} of all"], "group": "k"},
            **{"area_set": [f"{name} of one", f"{name} of all"], "metric": "pcc"},
            **{"feature": "c", "value": 0.25, "ci_low": 0.125, "ci_high": 0.5},
            **{"floor": 0.0, "ceiling": 1.0, "n": 3, "status": "", "settings": "."},
        )
        store.write_table(run.tree.tables / f"{name}.csv", table, run=run)
    checks = [("a check", "3 of 3", True), ("another", "is low", False)]
    table = pd.DataFrame(checks, columns=["check", "observed", "passed"])
    store.write_table(run.tree.tables / "sanity.csv", table, run=run)
    scores = [("5", "stage2", int(i), "clip_judge", k) for k, i in enumerate(IDS[1:])]
    columns = ["subject", "method", "nsd_id", "metric", "value"]
    path = run.tree.tables / "scores.csv"
    store.write_table(path, pd.DataFrame(scores, columns=columns), run=run, twins=False)
    ledger = evaluate_claims(
        Evidence({}, in_silico=True, profile="smoke"),
        label="word of the profile column",
    )
    ledger.loc[0, "statement"] = "a statement"
    store.write_table(run.tree.figures / "claims.csv", ledger, run=run)
    for subject in run.profile.subjects:
        _leave_subject(run, subject)
    return run


def test_the_report_shows_this_run_s_figures_tables_and_notebooks_once(
    finished: Run,
) -> None:
    finished.tree.notebooks.mkdir(parents=True)
    (finished.tree.notebooks / "05_evaluation.ipynb").write_text("{}")
    page = report_contents.build_report(finished, MAPS)
    assert page == report_contents.build_report(finished, MAPS)
    assert page.count("data:image/png;base64,") == len(FIGURES) + N_PICTURES
    for name in TABLES:
        assert f"{name} of all" in page
        assert f"{name} of one" not in page
    assert "0.250 [0.12, 0.50]" in page
    assert "1 of 2 checks passed." in page
    assert "Failed: another: is low." in page
    assert "a statement" in page
    names = ("notebooks/05_evaluation", "notebooks/06_figures")
    for link in (*(f"{n}.ipynb" for n in names), "tables/T1_comparison.csv"):
        assert f'href="{link}"' in page
    assert finished.label in page
    assert f"smoke, digest {finished.profile.digest}" in page
    assert "preset released: n_iter 3, n_candidates 4" in page
    head = page[: page.index("</header>")]
    assert "Engine of stage 2 in this run: released code&#39;s loop" in head
    assert "reproduced" not in head
    assert "<dd>5, 1</dd>" in page
    assert "subject 5" in page  # captions speak of the first subject
    assert "{subject" not in page
    assert "Engines of stage 2 compared" not in page  # no study was run


def test_a_study_and_further_measures_are_shown_where_they_are(finished: Run) -> None:
    for name in ("study_pareto", "naming"):
        path = finished.tree.figures / f"{name}.png"
        store.write_png(path, _image(3), run=finished)
    table = pd.DataFrame({"category": ["all", "dog"], "method": ["a way", "not shown"]})
    store.write_table(finished.tree.tables / "T8_naming.csv", table, run=finished)
    page = report_contents.build_report(finished, MAPS)
    assert report_contents.FIGURES["study_pareto"].words in page
    assert report_contents.FIGURES["naming"].words in page
    assert "a way" in page
    assert "not shown" not in page
    assert page.count("data:image/png;base64,") == len(FIGURES) + N_PICTURES + 2


def test_endpoints_have_one_quantity_per_column() -> None:
    row: dict[str, Any] = {
        **{"value": 0.25, "ci_low": -0.1, "ci_high": 0.6, "smallest_effect": 0.4},
        **{"n_images": 12, "n_subjects": 4, "n_subjects_positive": 3, "above": 0.0},
        **{"endpoint": "SSIM", "result": "open", "unit": "image", "scale": "score"},
        **{"subjects_low": -1.0, "subjects_high": 1.0},
    }
    ends = report_contents._endpoint(row)
    assert (ends["effect"], ends["interval"]) == ("+0.250", "[-0.100, +0.600]")
    assert (ends["images"], ends["subjects"], ends["could show"]) == (
        "12",
        "4",
        "0.400",
    )
    ends = report_contents._endpoint(row | {"unit": "subject"})
    assert (ends["images"], ends["interval"]) == ("–", "[-1.000, +1.000]")
    assert (
        report_contents._endpoint(row | {"smallest_effect": np.nan})["could show"]
        == "–"
    )


def test_a_missing_subject_is_said_and_the_report_is_of_the_others(
    finished: Run,
) -> None:
    store.discard(finished.tree.derived(1) / "stage2.csv")
    assert "<dd>5</dd>" in report_contents.build_report(finished, MAPS)


def test_without_surfaces_a_note_takes_the_place_of_the_maps(finished: Run) -> None:
    maps = surface_maps.CorticalMaps(1, note="Subject 5 is not shown.")
    page = report_contents.build_report(finished, maps)
    assert "Decoder weights on the flattened cortex, subject 1." in page
    assert "Subject 5 is not shown." in page
    for name in ("cortex_flat", "cortex_inflated"):
        store.write_figure(finished.tree.figures / name, None, run=finished)
    maps = surface_maps.CorticalMaps(None, note="Subject 5 has no surfaces.")
    page = report_contents.build_report(finished, maps)
    assert "Subject 5 has no surfaces." in page
    assert "On the cortex" in page
    assert "on the flattened cortex" not in page
    assert page.count("data:image/png;base64,") == N_PICTURES + len(FIGURES) - 2


def test_conclusions_are_the_endpoints_that_figures_bear_on() -> None:
    ledger = evaluate_claims(
        Evidence({}, in_silico=True, profile="demo"), label="in silico"
    )
    first, second = report_contents.conclusions(
        ledger, {"C4": "Figure 1", "C9": "Figure 2"}
    )
    assert first == "C4 (Figure 1) not testable here: stage 2 was not run"
    assert second.startswith("C9 (Figure 2) not testable here: no accuracies")


@pytest.mark.parametrize(
    ("lacking", "shown"), [((), 5), ((5,), 1), ((5, 1), None), ((1,), 5)]
)
def test_the_first_subject_with_surfaces_is_shown_on_the_cortex(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    lacking: tuple[int, ...],
    shown: int | None,
) -> None:
    def drawn(_tree: Any, subject: int, _data: Any) -> dict[str, object]:
        if subject in lacking:
            raise DataError(f"Surface not found at lh.white of {subject}.")
        return {"c": object()}

    tree: Any = None
    of_voxels = SimpleNamespace(are_vertices=False)
    monkeypatch.setattr(surface_maps, "weight_maps", lambda *_: of_voxels)
    monkeypatch.setattr(surface_maps, "flat_maps", drawn)
    monkeypatch.setattr(surface_maps, "inflated_maps", drawn)
    maps = surface_maps.cortical_maps(run, tree, (5, 1))
    assert maps.subject == shown
    assert bool(maps.flat) == bool(maps.inflated) == (shown is not None)
    before = () if shown == 5 else lacking
    for subject in before:
        assert f"lh.white of {subject}" in maps.note
    assert bool(maps.note) == bool(before)


@pytest.mark.parametrize(
    "lost",
    [
        *(f"{name}.png" for name in FIGURES),
        *(f"tables/{name}.csv" for name in (*TABLES, "sanity", "scores")),
        "claims.csv",
    ],
)
def test_a_report_of_less_than_all_is_refused_by_name(finished: Run, lost: str) -> None:
    (finished.tree.figures / lost).unlink()
    with pytest.raises(StoreError) as error:
        report_contents.build_report(finished, MAPS)
    assert f"{lost} does not exist" in str(error.value)


# --- which images are shown -----------------------------------------------------------


def test_galleries_show_the_first_images_that_all_saw_and_then_quantiles() -> None:
    value = {i: (i * 7) % 20 / 20 for i in range(100, 120)}
    rows = [("5", "stage2", i, "clip_judge", v) for i, v in value.items()]
    rows += [("5", "stage1", i, "clip_judge", 0.0) for i in value]
    columns = ["subject", "method", "nsd_id", "metric", "value"]
    selection = galleries.select_for_gallery(5, pd.DataFrame(rows, columns=columns))
    assert selection.nsd_id[:4] == (100, 101, 102, 103)
    assert len(set(selection.nsd_id)) == 9
    rest = [value[i] for i in selection.nsd_id[4:]]
    assert rest == sorted(rest)
    rows += [("3", "stage2", i, "clip_judge", 0.5) for i in range(101, 119, 2)]
    selection = galleries.select_for_gallery(5, pd.DataFrame(rows, columns=columns))
    assert selection.nsd_id[:4] == (101, 103, 105, 107)
    assert all(i % 2 for i in selection.nsd_id)


def test_marked_failures_come_with_the_seen_and_the_made_image(
    finished: Run,
) -> None:
    points = pd.DataFrame(
        {"method": "stage2", "nsd_id": IDS[1:], "place": [0, 1], "subject": "5"}
    )
    found = galleries.marked_pairs(finished, 5, points)
    assert list(found) == [300]
    seen, made = found[300]
    np.testing.assert_array_equal(seen, _image(2))
    np.testing.assert_array_equal(made, _image(101))  # stage 2 comes first
    assert galleries.marked_pairs(finished, 5, points.assign(place=0)) == {}
