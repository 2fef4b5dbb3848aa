"""The control of the demo's U-Net writes both of its tables."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minddiff_utils.core import store
from minddiff_utils.core.places import project_root
from minddiff_utils.core.run import Run
from minddiff_utils.models import Backbone, tiny_backbone
from minddiff_utils.models.random import tiny_judge
from tests.small_subject import Start, backbone, files, start, write_files

__all__ = ["backbone", "start"]  # fixtures

CHANGES: dict[str, Any] = {
    "stage2__n_images_controls": 2,
    "study__n_images": 3,
    "study__n_images_pilot": 2,
}


@pytest.fixture
def control(
    start: Start, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Return the script on a run of two small subjects, whose arms are tiny models."""
    monkeypatch.syspath_prepend(str(project_root() / "notebooks" / "appendix"))
    monkeypatch.delitem(sys.modules, "demo_control", raising=False)
    import demo_control

    def begins(
        _profile: str, *, subject: int | None = None, overrides: Any = None
    ) -> Run:
        arm = Path((overrides or {}).get("models.path", "own")).name
        return start(subject=subject, **CHANGES, models__path=arm)

    def models(config: Any, _folder: Path) -> Backbone:
        seeds = {"corrupted": 1, "uncorrupted": 2}
        return tiny_backbone(seed=seeds.get(str(config.path), 0))

    monkeypatch.setattr(demo_control, "start", begins)
    monkeypatch.setattr(demo_control, "load_backbone", models)
    monkeypatch.setattr(demo_control, "judge_of", lambda _: tiny_judge())
    for subject in (1, 2):
        run = begins("", subject=subject)
        write_files(run, backbone)
        path = run.tree.derived(subject) / "decoded_validation.h5"
        store.write_arrays(path, files(backbone)["decoded.h5"], run=run)
    return demo_control


def test_the_arms_are_compared_by_image_in_all_conditions(
    control: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    control.write_control()
    table = store.read_table(control.start("").tree.study / "control.csv")
    assert set(table["method"]) == {
        f"{row}, corrupted" for row in ("stage1", "posterior", "bayes")
    }
    assert set(table["n_images"]) == {4}  # two of each subject, one sample
    assert "bayes, uncorrupted" in capsys.readouterr().out


def test_each_arm_is_set_beside_the_own_generator(
    control: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    control.write_generators()
    table = store.read_table(control.start("").tree.study / "generators.csv")
    assert {*control.ARMS, "another draw"} == set(table["method"])
    assert set(table["stage"]) == {"stage1", "stage2"}
    assert "another draw" in capsys.readouterr().out
