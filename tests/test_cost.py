"""Predicted costs: counts are those of a real run, hours are honest about rates."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.generation.alignment import Latent, align
from minddiff_utils.generation.device_memory import Footprint
from minddiff_utils.generation.guided_sampling import guide
from minddiff_utils.generation.presets import (
    AlignmentSettings,
    EngineSettings,
    GuidanceSettings,
    engine_settings,
    sampler_of,
)
from minddiff_utils.generation.sampler import Memory, draw_noise, make_schedule
from minddiff_utils.generation.structural_loss import StructuralTarget
from minddiff_utils.models import Backbone, tiny_backbone
from minddiff_utils.pipeline.cli import main
from minddiff_utils.studies import cost, storage, unit_rates
from minddiff_utils.studies.cost import PRESETS, Counts, Preset, Work

#: Small enough to run: 4 sampler steps, 4 iterations.
SMALL = {
    "stage1.n_steps": 5,
    "stage1.encode_index": 3,
    "stage1.decode_steps": 4,
    **{f"stage2.{loop}.n_iter": 4 for loop in ("paper", "released")},
    **{f"stage2.{loop}.n_candidates": 3 for loop in ("paper", "released")},
    "stage2.bayes.range": [0.0, 0.5],
}
N = 2


def _small(**changes: Any) -> Profile:
    return load_profile("smoke", {**SMALL, **changes})


class Meter:
    """Counts the rows through a backbone's parts, evaluations done again too."""

    def __init__(self, backbone: Backbone) -> None:
        self.seen: Counter[str] = Counter()
        block = backbone._clip.model.visual.transformer.resblocks[0].mlp
        parts = {"unet": backbone._unet, "decode": backbone._vae.decoder, "clip": block}
        for name, part in parts.items():
            part.register_forward_pre_hook(self._forwards(name))
            part.register_forward_hook(self._backwards(name))

    def _forwards(self, name: str) -> Callable[..., None]:
        def hook(module: object, inputs: tuple) -> None:
            self.seen[f"{name}_forwards"] += len(inputs[0])

        return hook

    def _backwards(self, name: str) -> Callable[..., None]:
        def hook(module: object, inputs: tuple, output: Any) -> None:
            out = output if isinstance(output, torch.Tensor) else output.sample
            if out.requires_grad:
                out.register_hook(lambda gradient: self._add(name, len(gradient)))

        return hook

    def _add(self, name: str, n: int) -> None:
        self.seen[f"{name}_backwards"] += n


def _metered(settings: EngineSettings, profile: Profile) -> tuple[Any, Counter[str]]:
    """Run an engine on two images of the tiny models; return what it says and does."""
    backbone = tiny_backbone()
    meter = Meter(backbone)
    generators = [torch.Generator().manual_seed(row) for row in range(N)]
    rng = torch.Generator().manual_seed(5)
    c = torch.randn((N, backbone.n_tokens, backbone.text_dim), generator=rng)
    noise = draw_noise(backbone, generators)
    images = torch.zeros(N, 3, backbone.image_size, backbone.image_size)
    latent = Latent(draw_noise(backbone, generators), c, noise, images=images)
    widths = {k: backbone.layer_widths[k - 1] for k in (1, 2)}
    target = StructuralTarget(
        {k: torch.randn(N, w, generator=rng) for k, w in widths.items()},
        {k: torch.ones(w, dtype=torch.bool) for k, w in widths.items()},
        {k: torch.ones(w) for k, w in widths.items()},
        mean={k: torch.zeros(w) for k, w in widths.items()},
    )
    inputs = (backbone, latent, target, profile.stage1, settings)
    if isinstance(settings, GuidanceSettings):
        return guide(*inputs), meter.seen
    return align(*inputs, generators=generators), meter.seen


def _expected(work: Work) -> dict[str, int]:
    """Return what a meter sees: evaluations done again are seen too."""
    counts = asdict(work.counts)
    if work.memory == "checkpoint":
        counts["unet_forwards"] += counts["unet_backwards"]
    return {name: N * n for name, n in counts.items() if n}


# --- counts -----------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["store", "checkpoint"])
@pytest.mark.parametrize("preset", PRESETS)
def test_counts_are_those_a_hook_sees_in_a_real_run(
    preset: Preset, memory: Memory
) -> None:
    profile = _small()
    config = profile.stage2.using(preset)
    chosen = profile.model_copy(update={"stage2": config})
    sampler = sampler_of(by_name()["stage2"], chosen)
    sampled = profile.model_copy(update={"stage1": sampler})
    result, seen = _metered(replace(engine_settings(config), memory=memory), sampled)
    assert not result.diverged.any()
    work = cost.preset_work(profile, preset, memory)
    assert seen == _expected(work)
    # stage 1 has made its image; what an image of stage 2 costs says it all the same
    stage1 = make_schedule(tiny_backbone(), sampled.stage1).n_unet_evaluations
    assert (result.n_unet_evaluations == work.counts.unet_forwards + stage1).all()
    assert (result.n_unet_gradients == work.counts.unet_backwards).all()


LOOP = AlignmentSettings(n_iter=2, lr_z=0.1, lr_c=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        GuidanceSettings(last=0.5),
        replace(LOOP, n_iter=0),
        replace(LOOP, n_iter=4, lr_z=0.0, lr_c=0.0),
        replace(LOOP, n_iter=1, n_candidates=4),
        replace(LOOP, n_iter=5, n_candidates=9),
    ],
)
def test_counts_hold_at_the_edges_of_the_settings(settings: EngineSettings) -> None:
    profile = _small()
    _, seen = _metered(settings, profile)
    work = cost.settings_work(profile.stage1, settings)
    assert seen == _expected(work)


def test_the_papers_evaluations_are_those_of_algorithm_1() -> None:
    profile = load_profile("nsd")
    work = cost.preset_work(profile, "paper", "checkpoint")
    # 35 guided steps are 70 evaluations: in 300 gradient steps, in the last look, and
    # in the candidates; stage 1's image is given.
    n_images = 300 + 1 + profile.stage2.paper.n_candidates
    assert work.counts.unet_forwards == 70 * n_images
    assert work.counts.unet_backwards == 70 * 300


def test_the_best_of_ten_draws_makes_those_that_are_no_rows() -> None:
    profile = load_profile("nsd")
    counts = {one.name: one.work.counts for one in cost.workloads(profile, 9)}
    best, one = counts["stage1_best"], counts["stage1"]
    assert best.unet_forwards == 7 * one.unet_forwards
    assert best.decode_forwards == 7 * one.decode_forwards
    assert best.clip_forwards == 10


def test_ours_keep_to_their_share_of_algorithm_1() -> None:
    for name in ("demo", "nsd"):
        profile = load_profile(name)
        paper, bayes = (
            cost.preset_work(profile, preset).counts.unet_forwards
            for preset in ("paper", "bayes")
        )
        assert bayes <= paper / 100


# --- memory -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "held", "expected"),
    [
        ("store", 70, 100 + 4 * (70 * 3 + 20)),  # all steps lie under the decoder
        ("checkpoint", 2, 100 + 4 * 20),  # the decoder is above two samples' 2 x 7
        ("checkpoint", 4, 100 + 4 * 4 * 7),
    ],
)
def test_the_peak_is_weights_and_what_a_batch_holds_at_once(
    memory: Memory, held: int, expected: float
) -> None:
    footprint = Footprint(100, unet_saved=3, unet_gradient=7, decode_gradient=20)
    work = Work(Counts(), memory, held)
    assert work.peak_bytes(footprint, 4) == expected


def test_a_plan_for_a_gpu_checkpoints_loops_and_stores_one_guided_step() -> None:
    profile = load_profile("nsd")
    assert cost.preset_work(profile, "paper").held == 2
    assert cost.preset_work(profile, "paper", "store").held == 70
    steered = cost.preset_work(profile, "bayes")
    assert (steered.memory, steered.held) == ("store", 2)


# --- rates ------------------------------------------------------------------------


def _rates_file(folder: Path, **changes: Any) -> Path:
    """Write rates of a device on which each unit takes its own power of two."""
    rates = unit_rates.estimated_rates(1.0, 1.0, "cuda", "float16")
    facts = asdict(rates) | {"device": "Card X", "torch": "2.13.0"}
    names = list(facts["seconds"])
    facts["seconds"] = {name: 2.0**k / 1000 for k, name in enumerate(names)}
    del facts["source"]
    path = folder / "x_float16.json"
    path.write_text(json.dumps({**facts, "units": {}, **changes}), encoding="utf-8")
    return path


def test_seconds_are_counts_times_rates_by_hand(tmp_path: Path) -> None:
    rates = unit_rates.read_rates(_rates_file(tmp_path))
    work = Work(Counts(17, 3, 5, 2, 1, 1), "store", 1)
    # forward 1, stored backward 2, decode 8 and 16, CLIP 32 and 64 ms
    by_hand = (17 * 1 + 3 * 2 + 5 * 8 + 2 * 16 + 32 + 64) / 1000
    # float64 sums of seven terms in another order
    assert work.weigh(rates.seconds) == pytest.approx(by_hand, rel=1e-12)
    again = replace(work, memory="checkpoint")  # a backward of 4 ms
    difference = again.weigh(rates.seconds) - work.weigh(rates.seconds)
    assert difference == pytest.approx(3 * 2 / 1000, rel=1e-12)


def test_an_estimate_is_the_operations_over_two_speeds_and_says_so() -> None:
    profile = load_profile("nsd")
    rates = unit_rates.estimated_rates(250.0, 50.0, "cuda", "float16")
    found = cost.predict(profile, "bayes", rates)
    assert found.seconds is not None
    assert found.operations is not None
    total = found.work.counts
    decoder = unit_rates.OPERATIONS.decode_forward * total.decode_forwards
    decoder += unit_rates.OPERATIONS.decode_backward * total.decode_backwards
    clip = unit_rates.OPERATIONS.clip_forward * total.clip_forwards
    clip += unit_rates.OPERATIONS.clip_backward * total.clip_backwards
    unet = found.operations - decoder - clip
    by_hand = unet / 250e12 + (decoder + clip) / 50e12
    # float64 sums of seven terms in another order
    assert found.seconds == pytest.approx(by_hand, rel=1e-12)
    assert decoder > 0.4 * found.operations  # so that one speed for all would mislead
    words = "estimate from operation counts at 250 TFLOP/s, 50 in float32"
    assert found.source == words


def test_a_device_that_nobody_measured_has_no_hours(tmp_path: Path) -> None:
    profile = load_profile("nsd")
    assert unit_rates.find_rates(tmp_path, "sd14", "cuda", "float16") is None
    found = cost.predict(profile, "bayes", None)
    assert found.seconds is None
    assert found.source == "not measured"


def test_rates_are_found_by_models_device_and_precision(tmp_path: Path) -> None:
    _rates_file(tmp_path)
    found = unit_rates.find_rates(tmp_path, "sd14", "cuda", "float16")
    assert found is not None
    assert found.device == "Card X"
    assert found.source == "measured on Card X, batches of 1 (x_float16.json)"
    for wanted in (("sd14", "cpu", "float16"), ("sd14", "cuda", "float32")):
        assert unit_rates.find_rates(tmp_path, *wanted) is None


_ZERO = asdict(unit_rates.OPERATIONS) | {"decode_forward": 0.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "as a whole: Invalid JSON"),
        ("[]", "as a whole"),
        ('{"backbone": "sd14"}', "device: Field required"),
        (json.dumps({"seconds": _ZERO}), r"seconds\.decode_forward: .* greater than 0"),
    ],
)
def test_a_file_that_is_no_rates_is_refused(
    text: str, words: str, tmp_path: Path
) -> None:
    path = _rates_file(tmp_path)
    if "seconds" in text:
        text = json.dumps(json.loads(path.read_text("utf-8")) | json.loads(text))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words) as caught:
        unit_rates.read_rates(path)
    assert "\n" not in str(caught.value)
    assert "stage2_sd14.py --out" in str(caught.value)


def test_shipped_rates_carry_the_operations_that_estimates_use() -> None:
    paths = sorted((project_root() / "data" / "cost").glob("*.json"))
    assert paths
    for path in paths:
        unit_rates.read_rates(path)
        counted = json.loads(path.read_text(encoding="utf-8"))["operations"]
        for name, value in asdict(unit_rates.OPERATIONS).items():
            if name != "unet_backward_checkpointed":  # stated to three digits
                found = counted[name.removesuffix("_stored")]
                assert found == pytest.approx(value, rel=5e-3), (path.name, name)


# --- the command line -------------------------------------------------------------


def _said(capsys: pytest.CaptureFixture, *arguments: str) -> list[str]:
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_hours_are_those_of_the_images_that_each_subject_saw(
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile = load_profile("nsd", {"subjects": [1, 3, 4]})
    assert [storage.n_reconstructed(profile, s) for s in (1, 3, 4)] == [982, 930, 907]
    assert main(["plan", "--profile", "nsd", "--subjects", "1,3,4"]) == 0
    assert "907 to 982 images of each" in capsys.readouterr().out


def test_plan_prints_a_row_per_preset_and_says_what_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(unit_rates, "project_root", lambda: tmp_path)  # no rates there
    lines = _said(capsys, "--profile", "nsd")
    assert "subjects 1, 2, 5, 7 · 982 images of each" in lines[0]
    presets, after = lines[2 : 2 + len(PRESETS)], lines[2 + len(PRESETS) :]
    assert [line.split()[0] for line in presets] == list(PRESETS)
    assert all(line.endswith("not measured") for line in presets)
    assert any("Nobody has measured a cuda device" in line for line in after)


def test_plan_with_rates_names_their_file_and_shares_hours_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = _rates_file(tmp_path)
    arguments = ("--profile", "nsd", "--rates", str(path), "--gpus", "4")
    lines = _said(capsys, *arguments, "--subjects", "1", "--images", "10")
    assert "subjects 1 · 10 images of each" in lines[0]
    row = lines[4]  # bayes
    assert row.endswith("measured on Card X, batches of 1 (x_float16.json)")
    seconds, hours, wall = (float(cell) for cell in row.split()[5:8])
    # printed to three digits
    assert hours == pytest.approx(10 * seconds / 3600, rel=1e-2)
    assert wall == pytest.approx(hours / 4, rel=1e-2)


def test_plan_with_a_speed_says_it_is_an_estimate_and_two_speeds_take_longer(
    capsys: pytest.CaptureFixture,
) -> None:
    one = ("--profile", "nsd", "--tflops", "250")
    first = _said(capsys, *one)
    label = "estimate from operation counts at 250 TFLOP/s"
    assert all(line.endswith(label) for line in first[2:5])
    assert any("nothing was measured" in line for line in first[5:])
    assert any("--tflops-float32" in line for line in first)
    slow = _said(capsys, *one, "--tflops-float32", "60")
    assert slow[2].endswith("at 250 TFLOP/s, 60 in float32")
    assert not any("--tflops-float32" in line for line in slow)
    for before, after in zip(first[2:5], slow[2:5], strict=True):
        assert float(after.split()[5]) > float(before.split()[5])  # seconds


def test_plan_of_a_u_net_in_float32_has_one_speed(
    capsys: pytest.CaptureFixture,
) -> None:
    whole = ("--profile", "nsd", "--set", "models.dtype=float32")
    rows = [
        _said(capsys, *whole, *speed)[2:6]
        for speed in (("--tflops-float32", "60"), ("--tflops", "60"))
    ]
    assert rows[0] == rows[1]
    assert rows[0][0].endswith("at 60 TFLOP/s")


def test_plan_of_other_models_gives_counts_alone(
    capsys: pytest.CaptureFixture,
) -> None:
    lines = _said(capsys, "--profile", "smoke", "--tflops", "1")
    assert all(line.endswith("none for these models") for line in lines[2:5])
    assert any("not for demo" in line for line in lines[6:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "0"], "--images is 0"),
        (["--gpus", "0"], "--gpus is 0"),
        (["--tflops", "0"], "0.0 TFLOP/s"),
        (["--tflops", "nan"], "nan TFLOP/s"),
        (["--tflops", "9", "--tflops-float32", "-1"], "-1.0 TFLOP/s"),
        (["--tflops-float32", "9"], "say with --tflops how fast"),
        (["--rates", "x.json", "--tflops-float32", "9"], "give one of them"),
        (["--rates", "/nowhere.json"], "not found"),
        (["--rates", "x.json", "--tflops", "9"], "give one of them"),
        (["--profile", "dmeo"], "does not exist"),
    ],
)
def test_wrong_use_of_plan_gets_one_sentence_and_exit_code_one(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["plan", "--profile", "nsd", *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
