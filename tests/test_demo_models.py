"""The shipped demo models are whole, small, and do what data/README.md says."""

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.models import load_backbone, load_judge
from minddiff_utils.models.weights import check_digests

MODELS = project_root() / "data" / "models"
N_SCENES = 120


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    folder = str(project_root() / "notebooks" / "appendix")
    sys.path.insert(0, folder)
    try:
        import demo_evaluation
    finally:
        sys.path.remove(folder)
    return demo_evaluation


def test_every_file_has_the_digest_that_is_listed() -> None:
    check_digests(MODELS / "demo")


@pytest.mark.parametrize(
    "form",
    [
        "{digest}  {name}",
        "{digest} *{name}",
        "{upper}  {name}",
        "{digest}\t{name}",
        "{digest} {name}",
        "# made by sha256sum\n\n{digest}  {name}\n\n",
        "\ufeff{digest}  {name}",
        "{digest}  {name}\r",
        "SHA256 ({name}) = {digest}",
        "SHA256({name})= {upper}",
        "SHA2-256({name})= {digest}",
    ],
)
@pytest.mark.parametrize("is_right", [True, False])
def test_a_list_of_digests_is_read_as_the_usual_tools_write_it(
    tmp_path: Path, form: str, is_right: bool
) -> None:
    name = "unet/a file.bin"
    (tmp_path / "unet").mkdir()
    (tmp_path / name).write_bytes(b"weights")
    digest = hashlib.sha256(b"weights" if is_right else b"others").hexdigest()
    line = form.format(digest=digest, upper=digest.upper(), name=name)
    (tmp_path / "SHA256SUMS").write_bytes(f"{line}\n".encode())
    if is_right:
        check_digests(tmp_path)
    else:
        with pytest.raises(ModelError, match="SHA256SUMS says"):
            check_digests(tmp_path)


@pytest.mark.parametrize("line", ["0" * 63 + "  name", "0" * 64, "g" * 64 + "  a", "a"])
def test_a_line_that_is_no_digest_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"# digests\n{line}\n")
    with pytest.raises(ModelError, match="line 2, is not a digest and a path"):
        check_digests(tmp_path)


def test_all_models_together_stay_within_forty_megabytes() -> None:
    files = [p for p in (MODELS / "demo").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 40e6


def test_weights_are_half_precision_safetensors() -> None:
    from safetensors import safe_open

    weights = sorted((MODELS / "demo").rglob("*.safetensors"))
    assert {p.parent.name for p in weights} == {"clip", "judge", "unet", "vae"}
    for path in weights:
        with safe_open(path, "pt") as file:
            kinds = {str(file.get_tensor(key).dtype) for key in file.keys()}  # noqa: SIM118
        assert kinds <= {"torch.float16", "torch.int64"}, path


def test_the_training_log_covers_every_part() -> None:
    log = json.loads((MODELS / "demo" / "training_log.json").read_text())
    assert set(log) == {"vae", "clip", "judge", "unet"}
    assert all(entries for entries in log.values())


def test_clip_and_judge_name_held_out_objects(quality: ModuleType) -> None:
    # The demo promises 80 %; with 120 scenes the standard error at 90 % is 3 %.
    _, x, categories, _ = quality.held_out(N_SCENES)
    backbone = load_backbone(load_profile("demo").models, MODELS)
    for model in (backbone, load_judge(MODELS)):
        said = np.array(quality.named_by_clip(model, x))
        assert np.mean(said == categories) >= 0.80


def test_autoencoder_round_trip_keeps_the_promised_quality(
    quality: ModuleType,
) -> None:
    # data/README.md states 29.0 dB over 560 scenes, and the mean of 120 has a standard
    # error of about 0.2 dB.
    _, x, _, _ = quality.held_out(N_SCENES)
    backbone = load_backbone(load_profile("demo").models, MODELS)
    round_trip = backbone.decode_latents(backbone.encode_images(x))
    assert quality.psnr(x, round_trip).mean() >= 28.2


def test_samples_show_the_category_that_was_asked_for(quality: ModuleType) -> None:
    # data/README.md: 93 % by CLIP, 86 % by the judge over 112 samples; of 28 the
    # standard errors are 5 and 7 %. Chance is 4 %.
    backbone = load_backbone(load_profile("demo").models, MODELS)
    samples = quality.text_to_image(
        backbone, quality.category_prompts(), n_steps=25, guidance_scale=5.0, seed=1
    )
    y, asked = quality.as_tensor(samples), np.arange(len(samples))
    assert quality.right(quality.named_by_clip(backbone, y), asked).mean() >= 0.75
    judge = load_judge(MODELS)
    assert quality.right(quality.named_by_clip(judge, y), asked).mean() >= 0.65


def test_judge_and_method_share_neither_weights_nor_architecture() -> None:
    def config(part: str) -> dict:
        path = MODELS / "demo" / part / "open_clip_config.json"
        return dict(json.loads(path.read_text())["model_cfg"]["vision_cfg"])

    assert config("clip") != config("judge")
    digests = dict(
        reversed(line.split("  "))
        for line in (MODELS / "demo" / "SHA256SUMS").read_text().splitlines()
    )
    name = Path("open_clip_model.safetensors")
    assert digests[f"clip/{name}"] != digests[f"judge/{name}"]
