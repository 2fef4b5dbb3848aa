"""How alike the images of two generators are from the same decoded features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.generation import SubjectFeatures
from minddiff_utils.models import Backbone, tiny_backbone
from minddiff_utils.models.random import tiny_judge
from minddiff_utils.studies.other_generator import DRAW, likeness
from tests.small_subject import IDS, Start, backbone, start, write_files

__all__ = ["backbone", "start"]  # fixtures

# a window of SSIM needs 7 px; the tiny models make 64
NO_CONTROLS: dict[str, Any] = {"stage2__n_images_controls": 2}


def features(start: Start, models: Backbone, folder: str, **over: Any) -> Any:
    return write_files(start(folder=folder, **NO_CONTROLS, **over), models)


def test_the_same_generator_gives_the_same_image_and_another_one_a_likely_one(
    start: Start, backbone: Backbone
) -> None:
    own = features(start, backbone, "own")
    others = {
        "itself": features(start, backbone, "same"),
        "another": features(start, tiny_backbone(seed=1), "other"),
    }
    table = likeness(own, others, tiny_judge())
    assert set(table["stage"]) == {"stage1", "stage2"}
    assert set(table["method"]) == {"itself", "another", DRAW}
    assert set(table.loc[table["method"] == DRAW, "stage"]) == {"stage1"}
    means = table.groupby(["method", "metric"])["value"].mean().unstack()
    floors = table.groupby(["method", "metric"])["floor"].mean().unstack()
    # identical images correlate by 1, to the digits of float64
    np.testing.assert_allclose(means.loc["itself"], 1, atol=1e-6)
    assert (means.loc[["another", DRAW], "pcc"] < 0.999).all()
    assert (floors.loc["itself", "pcc"]) < 0.999
    counts = table.groupby(["stage", "method", "metric"])["nsd_id"]
    for ids in counts.apply(list):
        assert sorted(ids) == sorted(IDS.tolist())


def _models(folder: Path, **parts: float) -> Path:
    for name, value in parts.items():
        path = folder / "tiny" / name / "model.safetensors"
        path.parent.mkdir(parents=True)
        save_file({"w": np.full(3, value, np.float32)}, path)
    return folder


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"unet": 1.0, "vae": 2.0}, r"differ in vae/model\.safetensors"),
        ({"unet": 1.0, "vae": 1.0, "clip": 1.0}, r"differ in clip/model\.safetensors"),
        ({"unet": 0.0, "vae": 1.0}, "are those of the run"),
    ],
)
def test_another_generator_differs_in_the_unet_alone(
    start: Start, backbone: Backbone, tmp_path: Path, parts: dict, words: str
) -> None:
    own, other = (
        features(start, backbone, name, models__path=str(_models(tmp_path / name, **p)))
        for name, p in (("a", {"unet": 0.0, "vae": 1.0}), ("b", parts))
    )
    with pytest.raises(ConfigError, match=words):
        likeness(own, {"the second": other}, tiny_judge())


def test_a_second_unet_beside_the_same_clip_is_accepted(
    start: Start, backbone: Backbone, tmp_path: Path
) -> None:
    own, other = (
        features(start, backbone, name, models__path=str(_models(tmp_path / name, **p)))
        for name, p in (("a", {"unet": 0.0, "vae": 1}), ("b", {"unet": 1.0, "vae": 1}))
    )
    assert isinstance(own, SubjectFeatures)
    assert len(likeness(own, {"the second": other}, tiny_judge()))
