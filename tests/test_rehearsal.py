"""A rehearsal has NSD's sizes, stays apart, and extrapolates by stated rules."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pytest
import torch

from minddiff_utils.core.errors import ConfigError, DataError, RunError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.datasets import check_folder
from minddiff_utils.datasets.nsd.data_set import Nsd, check_trials
from minddiff_utils.datasets.nsd.layout import FACTS, SUBJECT1
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.insilico.experiment_design import n_images_shown
from minddiff_utils.models import load_backbone, load_judge, tiny_backbone
from minddiff_utils.models import random as random_models
from minddiff_utils.pipeline.cli import main
from minddiff_utils.pipeline.graph import make_plan
from minddiff_utils.preprocessing import prepare_responses
from minddiff_utils.reporting.report.page import banner
from minddiff_utils.studies import rehearsal, unit_rates
from minddiff_utils.studies import rehearsal_data as data
from minddiff_utils.studies import timing_report as report
from minddiff_utils.studies.storage import session_bytes
from minddiff_utils.studies.timing_report import FitTimes

#: Sizes of the tests: NSD's grid of subject 1 at 0.6 of each side.
SMALL = data.Size((48, 62, 50), 2000, 60_000)


# --- what is run ----------------------------------------------------------------------


def test_what_decides_memory_and_speed_keeps_nsds_size_apart_from_all_results(
    tmp_path: Path,
) -> None:
    found = rehearsal.rehearse("nsd", {}, tmp_path)
    profile, real = found.profile, load_profile("nsd")
    assert found.size.grid == FACTS[1].grid
    assert found.size.n_voxels == SUBJECT1["11 areas"]
    assert profile.features == real.features
    assert (profile.models.image_size, profile.models.backbone) == (512, "sd14")
    assert profile.simulation is not None
    assert profile.simulation.image_size == 425
    assert profile.decoding.n_compare == real.decoding.n_compare
    assert len(profile.subjects) == 1
    for place in (found.tree.nsd, found.tree.figures, found.tree.derived(1)):
        assert place.is_relative_to(tmp_path / "data" / "nsd-rehearsal")
    assert found.tree.models.is_relative_to(found.tree.root)
    assert found.report == tmp_path / "figures" / "nsd-rehearsal"
    # every figure says what it is of
    label = profile.label()
    assert label == "rehearsal of profile nsd: in-silico subjects, random models"
    assert banner(label)[0].startswith("In silico")
    # the notebooks accept it, and the first is not run
    plan = make_plan(profile, found.tree, found.overrides, first="01")
    numbers = [job.notebook[:2] for job in plan.jobs]
    assert numbers == ["01", "02", "03", "04", "07", "08", "A3", "05", "06"]
    json.dumps(found.overrides)  # they go to a notebook as its parameters


def test_the_users_overrides_hold_in_the_rehearsal_too(tmp_path: Path) -> None:
    theirs = {"data.sessions": 2, "decoding.alpha": 0.5, "subjects": [5, 7]}
    found = rehearsal.rehearse("nsd", theirs, tmp_path)
    assert found.subject == 5
    assert found.real.subjects == (5, 7)
    assert found.profile.decoding.alpha == 0.5
    assert found.profile.simulation.n_sessions == 2
    assert found.n_images == n_images_shown(2, 50)
    assert found.size.grid == FACTS[5].grid
    whole = {"n_steps": 8, "encode_index": 5, "decode_steps": 6}
    found = rehearsal.rehearse(
        "nsd", {"stage1": whole, "models.device": "cpu"}, tmp_path
    )
    assert found.profile.stage1.model_dump(include=set(whole)) == whole
    with pytest.raises(ConfigError, match="backbone"):
        rehearsal.rehearse("nsd", {"models.backbone": "demo"}, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "smoke"], "is for --profile nsd"),
        (["--profile", "nsd", "--nsd-root", "."], "leave --nsd-root"),
        (["--profile", "nsd", "--models", "."], "leave --nsd-root"),
        (
            ["--profile", "nsd", "--set", "models.backbone=tiny"],
            "Stable Diffusion v1-4",
        ),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--rehearse", *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("disk", "memory", "words"),
    [(1e9, 1e12, "GB are free"), (1e13, 1e9, "of memory are available")],
)
def test_a_full_disk_or_little_memory_is_said_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disk: float,
    memory: float,
    words: str,
) -> None:
    found = rehearsal.rehearse("nsd", {"models.device": "cpu"}, tmp_path)

    class Amount:
        free, available = disk, memory

    monkeypatch.setattr("shutil.disk_usage", lambda _: Amount)
    monkeypatch.setattr(rehearsal.psutil, "virtual_memory", lambda: Amount)
    with pytest.raises(RunError, match=words):
        rehearsal.prepare(found, lambda _: None)
    assert list(tmp_path.iterdir()) == []


# --- the data -------------------------------------------------------------------------


def test_a_scale_gives_the_voxels_asked_for_and_loses_none() -> None:
    areas = np.zeros((10, 10, 10), bool)
    areas[0:4, 3:6, 2:8] = True  # 72 voxels, up to the border
    size = data.Size((20, 30, 25), 1000, 1)
    scale = data.find_scale(areas, size)
    large = scale.volume(areas, outside=False)
    assert large.shape == size.grid
    assert 1000 <= large.sum() < 1150  # a voxel more per side at most
    assert all(
        set(np.unique(index[where])) == set(np.unique(small))
        for index, where, small in zip(
            scale.source(), np.nonzero(large), np.nonzero(areas), strict=True
        )
    )


def test_a_point_stays_in_the_voxel_that_it_was_in() -> None:
    scale = data.Scale(2.0, np.array([1.0, 0.0, -3.0]), (5, 5, 5), (12, 10, 8))
    small = np.array([[0, 1, 2], [2, 3, 4]])
    large = np.rint(scale.coordinates(small + 0.2)).astype(int)
    source = scale.source()
    back = np.stack([source[axis][large[:, axis]] for axis in range(3)], axis=1)
    assert back.tolist() == small.tolist()


def test_areas_that_do_not_fit_are_refused() -> None:
    areas = np.ones((4, 4, 4), bool)
    with pytest.raises(DataError, match="no room"):
        data.find_scale(areas, data.Size((8, 8, 4), 512, 1))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> rehearsal.Rehearsal:
    """Return a rehearsal whose data are written, with volumes of SMALL's sizes."""
    root = tmp_path_factory.mktemp("a root with spaces")
    found = rehearsal.rehearse("nsd", {"models.device": "cpu"}, root)
    simulation = found.profile.simulation.model_copy(update={"image_size": 32})
    found = replace(
        found, profile=found.profile.model_copy(update={"simulation": simulation})
    )
    assert not _write(found)
    return found


def _write(found: rehearsal.Rehearsal, size: data.Size = SMALL) -> bool:
    given = (found.tree.nsd, found.profile.simulation, 1, found.profile.seed, size)
    return data.write_tree(*given)


def test_written_data_are_a_whole_subject_of_those_sizes(
    small: rehearsal.Rehearsal,
) -> None:
    tree = NsdTree(small.tree.nsd)
    check_trials(tree, 1, 1)
    responses = prepare_responses(Nsd(tree), 1, small.profile.data)
    assert responses.betas.shape[0] == small.n_images
    # the simulation leaves some voxels without data, as NSD does
    left_out = responses.counts["voxels left out: no valid session"]
    assert responses.betas.shape[1] + left_out == 2000
    assert tree.brainmask(1).shape == SMALL.grid
    assert tree.brainmask(1).sum() == 60_000
    path = tree.betas_file(1, 1, "hdf5")
    with h5py.File(path) as file:
        assert file["betas"].shape == (750, *SMALL.grid[::-1])
        assert file["betas"].chunks == (750, 1, 1, 1)
    expected = session_bytes(1) * np.prod(SMALL.grid) / np.prod(FACTS[1].grid)
    assert path.stat().st_size == pytest.approx(expected, rel=0.01)  # all written


def test_the_stimuli_have_nsds_shape_and_take_no_room_where_nothing_is_shown(
    small: rehearsal.Rehearsal,
) -> None:
    path = NsdTree(small.tree.nsd).file("stimuli")
    with h5py.File(path) as file:
        assert file["imgBrick"].shape == (73_000, 32, 32, 3)
        assert file["imgBrick"].id.get_num_chunks() == small.n_images
    assert path.stat().st_size < small.n_images * 32 * 32 * 3 + 1e6


def test_enlarged_voxels_keep_their_areas_signal(
    small: rehearsal.Rehearsal,
) -> None:
    """Recomputed from the enlarged trials, ncsnr follows the small voxels' own."""
    found = prepare_responses(Nsd(NsdTree(small.tree.nsd)), 1, small.profile.data)
    known = np.isfinite(found.ncsnr_recomputed) & np.isfinite(found.ncsnr)
    r = np.corrcoef(found.ncsnr[known], found.ncsnr_recomputed[known])[0, 1]
    assert r > 0.8  # noise of each voxel's own lowers it


def test_minddiff_check_finds_nothing_damaged(small: rehearsal.Rehearsal) -> None:
    found = check_folder(
        small.tree.nsd,
        subjects=(1,),
        sessions=[1],
        betas_version=small.profile.data.betas_version,
    )
    assert found.exit_code == 0, "\n".join(found.lines())


def test_surfaces_point_into_the_enlarged_areas(small: rehearsal.Rehearsal) -> None:
    tree = NsdTree(small.tree.nsd)
    areas = tree.areas(1) >= 0
    points = [tree.transform(1, side, "layerB2") for side in ("lh", "rh")]
    inside = np.rint(np.concatenate(points))
    inside = inside[np.isfinite(inside).all(axis=1)].astype(int)
    inside = inside[((inside >= 0) & (inside < SMALL.grid)).all(axis=1)]
    hit = np.zeros(SMALL.grid, bool)
    hit[tuple(inside.T)] = True
    # a vertex per small voxel and more: of its eight-odd copies some are hit
    assert (hit & areas).sum() > 0.1 * areas.sum()


def test_data_that_are_there_are_not_written_again(
    small: rehearsal.Rehearsal,
) -> None:
    assert _write(small)
    folder, written = small.tree.root / "once", []
    for facts, n_written in (({"size": 1}, 1), ({"size": 1}, 1), ({"size": 2}, 2)):
        data.write_once(folder, facts, written.append)
        assert len(written) == n_written


# --- the models -----------------------------------------------------------------------


def test_the_full_models_are_stable_diffusions() -> None:
    """The hub's files hold 859,520,964 and 83,653,863 weights of U-Net and VAE."""
    with torch.device("meta"):
        counts = {
            name: sum(p.numel() for p in random_models.MAKERS[name][1](c).parameters())
            for name, c in random_models.model_configs("full").items()
            if name != "judge"
        }
    assert counts["unet"] == 859_520_964
    assert counts["vae"] == 83_653_863
    assert counts["text_encoder"] == 123_060_480
    assert counts["clip"] == 151_277_313


def test_thin_models_load_by_the_same_code_and_give_features_of_nsds_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = random_models.model_configs("thin")
    # one layer of text and judge alone: they are not what is tested
    text = {**real["text_encoder"], "num_hidden_layers": 1}
    vision = {**real["judge"]["vision_cfg"], "layers": 1, "width": 64}
    judge = {**real["judge"], "vision_cfg": vision}
    judge["text_cfg"] = {**judge["text_cfg"], "layers": 1, "width": 64, "heads": 1}
    configs = {**real, "text_encoder": text, "judge": judge}
    monkeypatch.setattr(random_models, "model_configs", lambda _: configs)
    random_models.write_models(tmp_path, "thin", 7)
    config = load_profile(
        "nsd", {"models.device": "cpu", "models.dtype": "float32"}
    ).models
    backbone = load_backbone(config, tmp_path)
    assert backbone.latent_shape == (4, 64, 64)
    assert (backbone.n_tokens, backbone.text_dim) == (15, 768)
    assert backbone.layer_widths[:6] == (50 * 768,) * 6
    with torch.no_grad():
        z = backbone.encode_images(torch.rand(1, 3, 512, 512) * 2 - 1)
        assert z.shape == (1, 4, 64, 64)
        assert bool(torch.isfinite(backbone.unet(z, 500, backbone.null_text())).all())
    load_judge(tmp_path, kind="sd14")
    before = (tmp_path / "sd14" / "SHA256SUMS").stat().st_mtime_ns
    random_models.write_models(tmp_path, "thin", 7)
    assert (tmp_path / "sd14" / "SHA256SUMS").stat().st_mtime_ns == before


# --- the account ----------------------------------------------------------------------


def step(
    notebook: str, seconds: float, section: str = "", **own: object
) -> report.Step:
    grows = own.pop("grows", report.GROWTH[notebook])
    return report.Step(notebook, section, grows, seconds)  # type: ignore[arg-type]


def record(**own: object) -> report.Record:
    facts = {
        "date": "2026-01-01",
        "machine": "a machine",
        "kind": "full",
        "subject": 1,
        "n_sessions": 1,
        "n_images": 250,
        "n_reconstruct": 4,
        "preparing": {"synthetic data": 60.0},
        "steps": (
            step("01_data_prep", 36.0),
            step("02_decoding", 100.0),
            step("02_decoding", 40.0, "2. Two linear decoders", grows="fits"),
            step("02_decoding", 60.0, "1. Features"),
            step("03_stage1", 8.0),
            step("04_stage2", 50.0),
            step("05_evaluation", 12.0),
            step("06_figures", 36.0),
        ),
        "fits": None,
    }
    return report.Record(**{**facts, **own})  # type: ignore[arg-type]


def test_steps_grow_with_what_they_handle() -> None:
    """By hand: 9841 / 250 images and 982 / 4 reconstructions, of 4 subjects."""
    hours = report.extrapolate(record(), load_profile("nsd"))
    assert hours["01_data_prep"] == pytest.approx(4 * 9841 / 250 * 36 / 3600)
    assert hours["03_stage1"] == pytest.approx(4 * 982 / 4 * 8 / 3600)
    assert hours["05_evaluation"] == pytest.approx(4 * 982 / 4 * 12 / 3600)
    assert hours["06_figures"] == pytest.approx(0.01)
    assert hours["04_stage2"] is None  # the preset decides
    thin = report.extrapolate(record(kind="thin"), load_profile("nsd"))
    assert thin["03_stage1"] is thin["04_stage2"] is None  # their models are others
    assert thin["01_data_prep"] == hours["01_data_prep"]


def test_fits_at_the_real_size_take_the_place_of_the_rehearsed_ones() -> None:
    """By hand: 3 fits of 10 s, 11,520 + 2 x 16,384 ms, 3 folds of 10 s + 230.4 s.

    And 13 sets of areas with 11.52 s of c and 38.4 s of a layer, z in two of them.
    """
    each = {"c": 1e-3, "z": 2e-3, "clip": 1e-3}
    times = FitTimes("voxel_selected", 8000, 11_694, 10.0, each, 2.5)
    profile = load_profile("nsd", {"subjects": [1, 2]})
    whole = 30 + 11.52 + 32.768 + 230.4 + 3 * (10 + 230.4)
    whole += 13 * (11.52 + 38.4) + 2 * 32.768
    assert report.whole_seconds(times, profile) == pytest.approx(whole)
    hours = report.extrapolate(record(fits=times), profile)
    assert hours["02_decoding"] == pytest.approx(2 * 9841 / 250 * (100 - 40) / 3600)
    assert hours[report._FITS] == pytest.approx(2 * whole / 3600)
    dense = FitTimes("dense", 8000, 11_694, 10.0, dict.fromkeys(each, 0.0), 2.5)
    few = load_profile("nsd", {"decoding.n_folds": 2})
    assert report.whole_seconds(dense, few) == pytest.approx(10 + 2 * 10)


def test_the_features_that_notebook_02_holds_are_counted() -> None:
    """By hand: 15 x 768 + 16,384 + 6 x 38,400 values of an image, float32."""
    values = 11_520 + 16_384 + 230_400
    expected = 4 * (2 * values * 9841 + 230_400 * 8000)
    assert report.held_by_decoding(load_profile("nsd")) == expected
    dense = load_profile("nsd", {"decoding.decoder": "dense", "subjects": [1]})
    expected = 4 * values * (2 * 9841 + 11_694)
    assert report.held_by_decoding(dense) == expected


def test_memory_is_stated_for_the_real_size_not_for_the_rehearsed_one() -> None:
    real = load_profile("nsd", {"subjects": [1]})
    held = report.held_at_once(real)
    assert held["02_decoding"] == report.held_by_decoding(real)
    assert held["01_data_prep"] == pytest.approx(
        11_694 * (2 * 37 * 750 + 8 * 9841), rel=1e-3
    )
    names = ("01_data_prep", "02_decoding", "03_stage1", "05_evaluation")
    steps = tuple(report.Step(n, "", report.GROWTH[n], 1.0, 1.5) for n in names)
    found = record(n_images=500, n_reconstruct=10)
    peaks = report.whole_peaks(replace(found, steps=steps), real)
    assert peaks["03_stage1"] == 1.5  # does not grow
    share = {"01_data_prep": 500 / 9841, "02_decoding": 500 / 9841}
    for name, part in (share | {"05_evaluation": 10 / 982}).items():
        assert peaks[name] == pytest.approx(1.5 + held[name] / 1e9 * (1 - part))
    shown = report.table(replace(found, steps=steps), real)
    whole = shown.set_index("step")["whole_peak_gb"]
    assert whole["05_evaluation"] == peaks["05_evaluation"]
    same = replace(found, steps=steps, n_images=9841, n_reconstruct=982)
    assert set(report.whole_peaks(same, real).values()) == {1.5}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    each = {"c": 1e-3, "z": 2e-3, "clip": 1e-3}
    times = FitTimes("voxel_selected", 8000, 11_694, 10.0, each, 2.5)
    first, path = record(fits=times), tmp_path / "rehearsal.json"
    path.write_text(first.text())
    assert report.read_record(path) == first
    path.write_text("{}")
    with pytest.raises(DataError, match="rehearse again"):
        report.read_record(path)


def test_steps_are_read_off_the_executed_notebooks(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell(
            "import x", metadata={"papermill": {"duration": 1.0}}
        ),
        nbformat.v4.new_markdown_cell("## 1. Features\n\nWords"),
        nbformat.v4.new_code_cell("a", metadata={"papermill": {"duration": 2.0}}),
        nbformat.v4.new_code_cell("b", metadata={"papermill": {"duration": 3.0}}),
        nbformat.v4.new_markdown_cell("## 2. Decoders"),
        nbformat.v4.new_code_cell(
            "r = fit(x)", metadata={"papermill": {"duration": 4.0}}
        ),
    ]
    name = "02_decoding_subj01"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    facts = {"seconds": 12.5, "peak_mb": 3000, "artefacts": {"a": [10**9, 1]}}
    (tmp_path / f"{name}.run.json").write_text(json.dumps(facts))
    whole, *sections = report.read_steps(tmp_path)
    assert (whole.notebook, whole.seconds) == ("02_decoding", 12.5)
    assert (whole.peak_gb, whole.disk_gb) == (3.0, 1.0)
    assert [(s.section, s.seconds, s.grows_with) for s in sections] == [
        ("before the first section", 1.0, "images seen"),
        ("1. Features", 5.0, "images seen"),
        ("2. Decoders", 4.0, "fits"),
    ]


@pytest.mark.parametrize("decoder", ["voxel_selected", "dense"])
def test_fits_are_timed_by_what_passes_before_and_after_the_first_read(
    decoder: str,
) -> None:
    """More targets take longer, a fit without targets does not."""
    profile = load_profile("nsd", {"decoding.decoder": decoder})
    sample = {"c": 8, "z": 8, "clip": 8}
    times = report._measure(profile, (120, 90), sample)
    assert (times.n_train, times.n_voxels) == (120, 90)
    assert times.fixed > 0
    assert set(times.per_target) == {"c", "z", "clip"}
    assert all(value >= 0 for value in times.per_target.values())
    assert sum(times.per_target.values()) > 0


def test_rates_of_the_units_are_read_by_the_plan(tmp_path: Path) -> None:
    config = load_profile("nsd", {"models.device": "cpu", "models.dtype": "float32"})
    found = unit_rates.rates_of(tiny_backbone(), config.models, "a device")
    path = tmp_path / "cpu_float32.json"
    path.write_text(json.dumps(asdict(found)))
    read = unit_rates.read_rates(path)
    assert read.seconds == found.seconds
    assert read.batch == config.models.batch_size
    assert read.source.startswith("measured on a device")


def test_the_plan_says_what_was_rehearsed_and_where(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    words = ["plan", "--profile", "nsd", "--images", "4", "--tflops", "250"]
    assert main(words) == 0
    assert "Nobody has rehearsed it here" in capsys.readouterr().out
    path = tmp_path / "figures" / "nsd-rehearsal" / "rehearsal.json"
    path.parent.mkdir(parents=True)
    path.write_text(record().text())
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "Rehearsed on a machine, 2026-01-01, with 250 images of 1 session" in said
    assert "01_data_prep 1.6 h" in said
    assert "Memory of one job beside its models" in said
    assert "02_decoding 27.7 GB" in said
